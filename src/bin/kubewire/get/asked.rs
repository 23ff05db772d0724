//! What the arguments of `get` mean: in flow names of resources and objects, or files, out come
//! resources and names.

use std::{
    collections::BTreeMap,
    fs,
    io::Read as _,
    path::{Path, PathBuf},
};

use clap::Args;
use kubewire::{Client, Error, error::CallerError, request::ApiResource};
use serde_json::Value;

use crate::{
    changes,
    connection::Connection,
    failure::{Failure, Local as _},
};

/// Bytes of a file with objects: 64 MiB.
const FILE: u64 = 64 << 20;

/// The arguments that name objects by files.
#[derive(Args)]
pub(crate) struct Files {
    /// The objects that are in these files or directories, in YAML or JSON; - for stdin
    #[arg(
        short,
        long,
        value_name = "FILE",
        value_delimiter = ',',
        conflicts_with = "objects"
    )]
    filename: Vec<PathBuf>,
    /// With the directories in directories of --filename
    #[arg(short = 'R', long)]
    pub(crate) recursive: bool,
}

impl Files {
    pub(crate) fn are_none(&self) -> bool {
        self.filename.is_empty()
    }

    /// The objects in the files, or, without any, those that are named, perhaps in all namespaces.
    pub(crate) async fn asked_or(
        &self,
        (objects, all_namespaces): (&[String], bool),
        client: &Client,
        connection: &Connection,
    ) -> Result<Vec<Asked>, Failure> {
        match &self.filename[..] {
            [] => named(client, objects, all_namespaces).await,
            files => in_files(client, connection, files, self.recursive).await,
        }
    }
}

/// What is asked for of one type: all, or the object of a name.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) known: ApiResource,
    pub(crate) name: Option<String>,
    /// `None` for all namespaces, or the cluster's.
    pub(crate) namespace: Option<String>,
}

impl Asked {
    /// As kubectl writes the type: the singular, and the group.
    pub(crate) fn title(&self) -> String {
        changes::title(&self.known)
    }
}

/// What names on the command line mean: `TYPE,TYPE [NAME…]` or `TYPE/NAME…`.
async fn named(
    client: &Client,
    objects: &[String],
    all_namespaces: bool,
) -> Result<Vec<Asked>, Failure> {
    let mut pairs = Vec::new();
    if objects.iter().any(|object| object.contains('/')) {
        for object in objects {
            let Some((resource, name)) = object.split_once('/') else {
                bail!("TYPE/NAME and a name exclude each other");
            };
            pairs.push((resource, Some(name)));
        }
    } else if let Some((resources, names)) = objects.split_first() {
        for resource in resources.split(',') {
            match names {
                [] => pairs.push((resource, None)),
                names => pairs.extend(names.iter().map(|name| (resource, Some(&**name)))),
            }
        }
    }
    let mut found: BTreeMap<&str, ApiResource> = BTreeMap::new();
    let mut asked = Vec::new();
    for (resource, name) in pairs {
        if name.is_some() && all_namespaces {
            bail!("a name and --all-namespaces exclude each other");
        }
        let known = match found.get(resource) {
            Some(known) => vec![known.clone()],
            None => find(client, resource, name.is_none()).await?,
        };
        if let [one] = &known[..] {
            found.insert(resource, one.clone());
        }
        for known in known {
            let in_one = known.resource.namespaced && !all_namespaces;
            asked.push(Asked {
                known,
                name: name.map(str::to_owned),
                namespace: in_one.then(|| client.namespace().to_owned()),
            });
        }
    }
    Ok(asked)
}

/// The resource of a name, or those of a category, such as `all`, that can be listed.
async fn find(client: &Client, name: &str, lists: bool) -> Result<Vec<ApiResource>, Failure> {
    let error = match client.find(name).await {
        Ok(known) => return Ok(vec![known]),
        Err(error) => error,
    };
    let known = match &error {
        Error::Caller(CallerError::NoResource { .. }) if lists => client.discover().await?,
        _ => return Err(error.into()),
    };
    let has = |all: &[String], one: &str| all.iter().any(|other| other == one);
    let is_in =
        |one: &&ApiResource| one.preferred && has(&one.categories, name) && has(&one.verbs, "list");
    let found: Vec<_> = known.resources().iter().filter(is_in).cloned().collect();
    match found.is_empty() {
        true => Err(error.into()),
        false => Ok(found),
    }
}

async fn in_files(
    client: &Client,
    connection: &Connection,
    files: &[PathBuf],
    recursive: bool,
) -> Result<Vec<Asked>, Failure> {
    let mut asked = Vec::new();
    for file in expand(files, recursive)? {
        let shown = file.display();
        let problem = |what: &str| Failure::Message(format!("{shown}: {what}"));
        let mut objects = Vec::new();
        for document in documents(&file)? {
            let is_list = document["kind"]
                .as_str()
                .is_some_and(|kind| kind.ends_with("List"));
            match (is_list, &document["items"]) {
                (true, Value::Array(items)) => objects.extend(items.iter().cloned()),
                _ => objects.push(document),
            }
        }
        for object in objects {
            let (version, kind) = (object["apiVersion"].as_str(), object["kind"].as_str());
            let (Some(version), Some(kind)) = (version, kind) else {
                return Err(problem("an object without an apiVersion or a kind"));
            };
            let name = object["metadata"]["name"].as_str();
            let name = name.ok_or_else(|| problem("an object without a name"))?;
            let known = client.find(&qualified(kind, version)).await?;
            let there = object["metadata"]["namespace"].as_str();
            let here = client.namespace();
            if let Some(there) = there.filter(|there| connection.has_namespace() && *there != here)
            {
                let what =
                    format!("{kind} {name} is of namespace {there}, and --namespace is {here}");
                return Err(problem(&what));
            }
            let namespace = known
                .resource
                .namespaced
                .then(|| there.unwrap_or(here).to_owned());
            asked.push(Asked {
                known,
                name: Some(name.to_owned()),
                namespace,
            });
        }
    }
    Ok(asked)
}

/// A kind with its version and group, as they are looked for: `Deployment.v1.apps`, `Pod.v1`.
fn qualified(kind: &str, version: &str) -> String {
    match version.split_once('/') {
        Some((group, version)) => format!("{kind}.{version}.{group}"),
        None => format!("{kind}.{version}"),
    }
}

/// Files, and those of directories by their names, as kubectl takes them.
fn expand(files: &[PathBuf], recursive: bool) -> Result<Vec<PathBuf>, Failure> {
    let mut all = Vec::new();
    for file in files {
        let text = file.to_string_lossy();
        if text.starts_with("http://") || text.starts_with("https://") {
            bail!("{text}: files of other servers are not fetched; use curl and -f -");
        }
        if !file.is_dir() {
            all.push(file.clone());
            continue;
        }
        let mut entries = Vec::new();
        for entry in fs::read_dir(file).local(&text)? {
            entries.push(entry.local(&text)?.path());
        }
        entries.sort();
        let is_known = |file: &Path| {
            let extension = file.extension().and_then(|extension| extension.to_str());
            matches!(extension, Some("json" | "yaml" | "yml"))
        };
        let before = all.len();
        for entry in entries {
            match (entry.is_dir(), recursive) {
                (true, true) => all.extend(expand(&[entry], true)?),
                (false, _) if is_known(&entry) => all.push(entry),
                _ => {}
            }
        }
        if all.len() == before && !recursive {
            bail!("{text}: no file ends with .json, .yaml or .yml");
        }
    }
    Ok(all)
}

/// What is in a file, in YAML or JSON, but for empty documents; `-` is stdin.
pub(crate) fn documents(file: &Path) -> Result<Vec<Value>, Failure> {
    let text = read(file).local(file.display())?;
    let mut documents: Vec<Value> = serde_saphyr::from_multiple(&text).local(file.display())?;
    documents.retain(|document| !document.is_null());
    Ok(documents)
}

fn read(file: &Path) -> std::io::Result<String> {
    let mut text = String::new();
    if file == Path::new("-") {
        std::io::stdin()
            .lock()
            .take(FILE)
            .read_to_string(&mut text)?;
    } else {
        fs::File::open(file)?.take(FILE).read_to_string(&mut text)?;
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_give_the_files_in_them_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        fs::create_dir_all(path("below/empty")).unwrap();
        for name in ["b.yaml", "a.json", "c.yml", "notes.txt", "below/d.yaml"] {
            fs::write(path(name), "").unwrap();
        }
        let names = |recursive| {
            let all = expand(&[dir.path().to_owned()], recursive).unwrap();
            let name = |file: PathBuf| file.file_name().unwrap().to_str().unwrap().to_owned();
            all.into_iter().map(name).collect::<Vec<_>>()
        };
        assert_eq!(names(false), ["a.json", "b.yaml", "c.yml"]);
        assert_eq!(names(true), ["a.json", "b.yaml", "d.yaml", "c.yml"]);
        assert!(expand(&[path("below/empty")], false).is_err());
        assert!(expand(&["https://example.com/x.yaml".into()], false).is_err());
    }

    #[test]
    fn kinds_are_looked_for_in_their_version() {
        assert_eq!(qualified("Pod", "v1"), "Pod.v1");
        assert_eq!(qualified("Deployment", "apps/v1"), "Deployment.v1.apps");
    }
}

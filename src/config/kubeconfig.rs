//! Kubeconfig files: their form, how several merge, and what a context selects.
//!
//! In flow the paths and the overrides of [`KubeconfigOptions`]; out comes a
//! [`Config`](super::Config). The form is that of `k8s.io/client-go/tools/clientcmd/api/v1/types.go`;
//! fields that are not read here are ignored, as are unknown ones.

use std::{
    collections::{BTreeMap, HashSet},
    fs, io,
    path::{Path, PathBuf},
};

use secrecy::SecretString;
use serde::Deserialize;

use super::{exec::ExecEntry, material::unreadable, wrong};
use crate::Result;

/// Which kubeconfig to read, and what to take instead of what it says.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct KubeconfigOptions {
    /// The files. Empty: those that `KUBECONFIG` lists, or else `~/.kube/config`.
    ///
    /// A single file must exist. Of several, those that do not exist are passed over; the others
    /// are merged, and the first that says something wins.
    pub paths: Vec<PathBuf>,
    /// The context to use instead of `current-context`.
    pub context: Option<String>,
    /// The cluster to use instead of the context's.
    pub cluster: Option<String>,
    /// The user to use instead of the context's.
    pub user: Option<String>,
    /// The server's URL to use instead of the cluster's. With it the kubeconfig may be missing, or
    /// name no cluster. The cluster's other fields stay, except for `tls-server-name`, which is
    /// about another server.
    pub server: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "kebab-case")]
struct File {
    current_context: Option<String>,
    clusters: Option<Vec<NamedCluster>>,
    contexts: Option<Vec<NamedContext>>,
    users: Option<Vec<NamedUser>>,
}

#[derive(Deserialize)]
struct NamedCluster {
    name: String,
    cluster: Option<Cluster>,
}

#[derive(Deserialize)]
struct NamedContext {
    name: String,
    context: Option<Context>,
}

#[derive(Deserialize)]
struct NamedUser {
    name: String,
    user: Option<User>,
}

/// `Cluster` of the v1 API.
#[derive(Deserialize, Clone, Default)]
#[serde(default, rename_all = "kebab-case")]
pub(super) struct Cluster {
    pub(super) server: Option<String>,
    pub(super) tls_server_name: Option<String>,
    pub(super) insecure_skip_tls_verify: Option<bool>,
    pub(super) certificate_authority: Option<PathBuf>,
    pub(super) certificate_authority_data: Option<String>,
    pub(super) proxy_url: Option<SecretString>,
    pub(super) disable_compression: Option<bool>,
    pub(super) extensions: Option<Vec<NamedExtension>>,
}

/// `NamedExtension` of the v1 API.
#[derive(Deserialize, Clone)]
pub(super) struct NamedExtension {
    pub(super) name: String,
    #[serde(default)]
    pub(super) extension: serde_json::Value,
}

/// `Context` of the v1 API.
#[derive(Deserialize, Clone, Default)]
#[serde(default)]
pub(super) struct Context {
    pub(super) cluster: Option<String>,
    pub(super) user: Option<String>,
    pub(super) namespace: Option<String>,
}

/// `AuthInfo` of the v1 API.
#[derive(Deserialize, Clone, Default)]
#[serde(default, rename_all = "kebab-case")]
pub(super) struct User {
    pub(super) client_certificate: Option<PathBuf>,
    pub(super) client_certificate_data: Option<String>,
    pub(super) client_key: Option<PathBuf>,
    pub(super) client_key_data: Option<SecretString>,
    pub(super) token: Option<SecretString>,
    #[serde(rename = "tokenFile")]
    pub(super) token_file: Option<PathBuf>,
    #[serde(rename = "as")]
    pub(super) impersonate: Option<String>,
    pub(super) as_uid: Option<String>,
    pub(super) as_groups: Option<Vec<String>>,
    pub(super) as_user_extra: Option<BTreeMap<String, Vec<String>>>,
    pub(super) username: Option<String>,
    pub(super) password: Option<SecretString>,
    pub(super) auth_provider: Option<AuthProvider>,
    pub(super) exec: Option<ExecEntry>,
}

/// `AuthProviderConfig` of the v1 API.
#[derive(Deserialize, Clone, Default)]
#[serde(default)]
pub(super) struct AuthProvider {
    pub(super) name: Option<String>,
    pub(super) config: Option<BTreeMap<String, SecretString>>,
}

/// An entry and the file that it comes from.
#[derive(Clone, Default)]
pub(super) struct Entry<T> {
    pub(super) entry: T,
    pub(super) file: PathBuf,
}

impl<T> Entry<T> {
    /// What error texts call a field of this entry.
    pub(super) fn origin(&self, kind: &str, name: &str) -> String {
        format!("{kind} {name:?} in {}", self.file.display())
    }

    /// Paths in a kubeconfig are relative to its directory (`clientcmd.ResolveLocalPaths`).
    pub(super) fn path(&self, path: &Path) -> PathBuf {
        self.file.parent().unwrap_or(Path::new("")).join(path)
    }
}

/// Several kubeconfig files as one.
#[derive(Default)]
pub(super) struct Merged {
    files: Vec<PathBuf>,
    /// Files that were looked for and do not exist.
    pub(super) missing: Vec<PathBuf>,
    current_context: Option<String>,
    clusters: BTreeMap<String, Entry<Cluster>>,
    contexts: BTreeMap<String, Entry<Context>>,
    users: BTreeMap<String, Entry<User>>,
}

/// What a context selects.
pub(super) struct Selected {
    pub(super) cluster_name: String,
    pub(super) cluster: Entry<Cluster>,
    pub(super) user: Option<(String, Entry<User>)>,
    pub(super) namespace: Option<String>,
}

impl Merged {
    /// Reads and merges files.
    ///
    /// The rules are those of `clientcmd.ClientConfigLoadingRules.Load`: each file once, empty
    /// names and missing files passed over, and of two entries of one name the first wins whole.
    pub(super) fn read(paths: &[PathBuf]) -> Result<Self> {
        let mut merged = Self::default();
        let mut seen = HashSet::new();
        for path in paths {
            if path.as_os_str().is_empty() || !seen.insert(path) {
                continue;
            }
            match fs::read_to_string(path) {
                Ok(text) => merged.add(path, &text)?,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    merged.missing.push(path.clone());
                }
                Err(error) => {
                    return Err(wrong("kubeconfig", unreadable(path, &error)));
                }
            }
        }
        Ok(merged)
    }

    fn add(&mut self, path: &Path, text: &str) -> Result<()> {
        let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        let file = parse(&path, text)?;
        let origin = path.display().to_string();
        self.files.push(path.clone());
        if self.current_context.is_none() {
            self.current_context = given(&file.current_context);
        }
        let clusters = file.clusters.into_iter().flatten();
        let contexts = file.contexts.into_iter().flatten();
        let users = file.users.into_iter().flatten();
        merge(
            &mut self.clusters,
            &path,
            "cluster",
            clusters.map(|n| (n.name, n.cluster)),
        )
        .and_then(|()| {
            let contexts = contexts.map(|n| (n.name, n.context));
            merge(&mut self.contexts, &path, "context", contexts)
        })
        .and_then(|()| {
            merge(
                &mut self.users,
                &path,
                "user",
                users.map(|n| (n.name, n.user)),
            )
        })
        .map_err(|problem| wrong(origin, problem))
    }

    /// What error texts call the whole.
    fn origin(&self) -> String {
        let files: Vec<_> = self
            .files
            .iter()
            .map(|file| file.display().to_string())
            .collect();
        files.join(", ")
    }

    /// Whether the files exist and select a cluster, or would with these overrides. If not, what
    /// is missing.
    pub(super) fn selects(&self, options: &KubeconfigOptions) -> Result<(), String> {
        let server = given(&options.server).is_some();
        if self.files.is_empty() && !(server && options.paths.is_empty()) {
            let missing = self.missing.iter().map(|file| file.display().to_string());
            let missing: Vec<_> = missing.collect();
            return Err(match missing.len() {
                0 => "no kubeconfig file is named".to_owned(),
                1 => format!("{} does not exist", missing[0]),
                _ => format!("none of {} exists", missing.join(", ")),
            });
        }
        let named = self.current_context.is_some()
            || given(&options.context).is_some()
            || given(&options.cluster).is_some()
            || server;
        match named {
            true => Ok(()),
            false if self.contexts.is_empty() => Err(format!("{} is empty", self.origin())),
            false => Err(format!(
                "{} has no current-context; its contexts are {}",
                self.origin(),
                names(&self.contexts)
            )),
        }
    }

    /// Looks up the context, its cluster and its user.
    ///
    /// # Errors
    ///
    /// If one that is named does not exist (`clientcmd.ConfirmUsable`).
    pub(super) fn select(&self, options: &KubeconfigOptions) -> Result<Selected> {
        let find = |problem| wrong(self.origin(), problem);
        self.selects(options)
            .map_err(|problem| wrong("kubeconfig", problem))?;
        let context = match given(&options.context).or_else(|| self.current_context.clone()) {
            None => Context::default(),
            Some(name) => {
                lookup(&self.contexts, "context", &name)
                    .map_err(find)?
                    .entry
            }
        };
        let server = given(&options.server);
        let (cluster_name, mut cluster) =
            match given(&options.cluster).or_else(|| given(&context.cluster)) {
                Some(name) => {
                    let cluster = lookup(&self.clusters, "cluster", &name).map_err(find)?;
                    (name, cluster)
                }
                None if server.is_some() => (String::new(), Entry::default()),
                None => return Err(find("the context names no cluster".to_owned())),
            };
        if server.is_some() {
            cluster.entry.server = server;
            cluster.entry.tls_server_name = None;
        }
        let user = match given(&options.user).or_else(|| given(&context.user)) {
            None => None,
            Some(name) => {
                let user = lookup(&self.users, "user", &name).map_err(find)?;
                Some((name, user))
            }
        };
        Ok(Selected {
            cluster_name,
            cluster,
            user,
            namespace: given(&context.namespace),
        })
    }
}

/// An empty string is an absent one, as in Go.
pub(super) fn given(text: &Option<String>) -> Option<String> {
    text.clone().filter(|text| !text.is_empty())
}

fn lookup<T: Clone>(
    entries: &BTreeMap<String, Entry<T>>,
    kind: &str,
    name: &str,
) -> Result<Entry<T>, String> {
    entries
        .get(name)
        .cloned()
        .ok_or_else(|| match entries.is_empty() {
            true => format!("the {kind} {name:?} does not exist; there is none"),
            false => format!(
                "the {kind} {name:?} does not exist; there are {}",
                names(entries)
            ),
        })
}

fn names<T>(entries: &BTreeMap<String, T>) -> String {
    let names: Vec<_> = entries.keys().map(|name| format!("{name:?}")).collect();
    names.join(", ")
}

/// `clientcmd/api/v1/conversion.go`: a name twice in one list is an error.
fn merge<T: Default>(
    into: &mut BTreeMap<String, Entry<T>>,
    file: &Path,
    kind: &str,
    entries: impl Iterator<Item = (String, Option<T>)>,
) -> Result<(), String> {
    let mut here = HashSet::new();
    for (name, entry) in entries {
        if !here.insert(name.clone()) {
            return Err(format!("the {kind} {name:?} is in the list twice"));
        }
        into.entry(name).or_insert_with(|| Entry {
            entry: entry.unwrap_or_default(),
            file: file.to_owned(),
        });
    }
    Ok(())
}

/// Parses one file. The error gives a place and no text: any line may hold a secret.
fn parse(path: &Path, text: &str) -> Result<File> {
    let mut options = serde_saphyr::Options::default();
    options.with_snippet = false;
    if text
        .lines()
        .all(|line| line.trim().is_empty() || line.trim_start().starts_with('#'))
    {
        return Ok(File::default());
    }
    let file: Option<File> =
        serde_saphyr::from_str_with_options(text, options).map_err(|error| {
            let place = error.location().map_or_else(String::new, |at| {
                format!(", at line {} column {}", at.line(), at.column())
            });
            let problem = format!("is not a kubeconfig in YAML or JSON{place}");
            wrong(path.display().to_string(), problem)
        })?;
    Ok(file.unwrap_or_default())
}

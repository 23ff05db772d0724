//! Kubeconfig files: how several merge, and what a context selects.
//!
//! In flow the paths and the overrides of [`KubeconfigOptions`]; out comes what they select, for a
//! [`Config`](super::Config).

use std::{
    collections::{BTreeMap, HashSet},
    ffi::OsStr,
    fs, io,
    path::{Path, PathBuf},
};

use secrecy::{ExposeSecret, SecretString};

use super::{
    Config,
    file::{Cluster, Context, File, Named, User},
    material::{Material, from_base64, unreadable},
    wrong,
};
use crate::Result;

/// Which kubeconfig to read, and what to take instead of what it says.
///
/// ```
/// use kubewire::{Config, config::KubeconfigOptions};
///
/// let text = "
/// clusters: [{name: one, cluster: {server: 'https://one.example.com'}}]
/// contexts:
/// - {name: prod, context: {cluster: one, namespace: prod}}
/// - {name: dev, context: {cluster: one, namespace: dev}}
/// current-context: prod";
/// let options = KubeconfigOptions::new().context("dev");
/// let config = Config::from_kubeconfig_str(text, &options)?;
/// assert_eq!(config.namespace(), "dev");
/// # Ok::<(), kubewire::Error>(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct KubeconfigOptions {
    pub(super) files: Vec<PathBuf>,
    pub(super) context: Option<String>,
    pub(super) cluster: Option<String>,
    pub(super) user: Option<String>,
    pub(super) server: Option<String>,
    trust: Option<Trust>,
    identity: Option<(PathBuf, PathBuf)>,
    token: Option<SecretString>,
    tls_server_name: Option<String>,
    proxy: Option<SecretString>,
}

/// What to believe instead of what the cluster says.
#[derive(Debug, Clone)]
enum Trust {
    File(PathBuf),
    Anybody,
}

impl KubeconfigOptions {
    /// The files that `KUBECONFIG` lists, or else `~/.kube/config`, as they are.
    pub fn new() -> Self {
        Self::default()
    }

    setters! {
        /// Reads this file instead of those of the environment.
        ///
        /// A single file must exist. Of several, those that do not exist are passed over; the others
        /// are merged, and the first that says something wins.
        fn file(path: impl Into<PathBuf>) files.push(path.into());

        /// Uses this context instead of `current-context`.
        fn context(name: impl Into<String>) context = Some(name.into());

        /// Uses this cluster instead of the context's.
        fn cluster(name: impl Into<String>) cluster = Some(name.into());

        /// Uses this user instead of the context's.
        fn user(name: impl Into<String>) user = Some(name.into());

        /// Uses this URL instead of the cluster's. With it the kubeconfig may be missing, or name no
        /// cluster. The cluster's other fields stay, except for `tls-server-name`, which is about
        /// another server.
        fn server(url: impl Into<String>) server = Some(url.into());

        /// As [`Config::with_ca_file`], in place of what the cluster says of certificate authorities
        /// and `insecure-skip-tls-verify`, even if that cannot be used.
        fn ca_file(path: impl Into<PathBuf>) trust = Some(Trust::File(path.into()));

        /// As [`Config::with_insecure_skip_tls_verify`], in place of the cluster's certificate
        /// authorities, even if they cannot be used.
        fn insecure_skip_tls_verify() trust = Some(Trust::Anybody);

        /// As [`Config::with_client_certificate_files`], in place of the user's certificate, key and
        /// plugin, even if they cannot be used.
        fn client_certificate_files(certificate: impl Into<PathBuf>, key: impl Into<PathBuf>)
            identity = Some((certificate.into(), key.into()));

        /// As [`Config::with_token`], in place of the user's token, password, plugin or provider, even
        /// if they cannot be used.
        fn token(token: impl Into<SecretString>) token = Some(token.into());

        /// As [`Config::with_tls_server_name`], in place of the cluster's.
        fn tls_server_name(name: impl Into<String>) tls_server_name = Some(name.into());

        /// As [`Config::with_proxy`], in place of the cluster's, even if that cannot be used.
        fn proxy(url: impl Into<SecretString>) proxy = Some(url.into());
    }

    /// Whether it says which server, and is not only about how to reach it.
    pub(super) fn names_a_server(&self) -> bool {
        let names = [&self.context, &self.cluster, &self.user, &self.server];
        !self.files.is_empty() || names.iter().any(|name| given(name).is_some())
    }

    pub(super) fn has_tls(&self) -> bool {
        self.trust.is_some() || self.identity.is_some()
    }

    /// Takes out what is replaced, so that nobody looks at it
    /// (`clientcmd/client_config.go`, `getCluster` and `getAuthInfo`).
    fn clear(&self, cluster: &mut Cluster, user: Option<&mut User>) {
        if self.trust.is_some() {
            cluster.insecure_skip_tls_verify = None;
            cluster.certificate_authority = None;
            cluster.certificate_authority_data = None;
        }
        if self.proxy.is_some() {
            cluster.proxy_url = None;
        }
        let Some(user) = user else { return };
        if self.identity.is_some() {
            user.client_certificate = None;
            user.client_certificate_data = None;
            user.client_key = None;
            user.client_key_data = None;
        }
        if self.token.is_some() {
            user.token = None;
            user.token_file = None;
            user.username = None;
            user.password = None;
            user.auth_provider = None;
        }
        if self.token.is_some() || self.identity.is_some() {
            user.exec = None;
        }
    }

    /// Puts in what replaces it.
    pub(super) fn apply(&self, mut config: Config) -> Result<Config> {
        config = match &self.trust {
            Some(Trust::File(path)) => config.with_ca_file(path),
            Some(Trust::Anybody) => config.with_insecure_skip_tls_verify(),
            None => config,
        };
        if let Some((certificate, key)) = &self.identity {
            config = config.with_client_certificate_files(certificate, key);
        }
        if let Some(token) = &self.token {
            config = config.with_token(token.clone());
        }
        if let Some(name) = &self.tls_server_name {
            config = config.with_tls_server_name(name);
        }
        match &self.proxy {
            Some(url) => config.with_proxy(url.clone()),
            None => Ok(config),
        }
    }
}

/// An entry and the file that it comes from, if it comes from one.
#[derive(Clone, Default)]
pub(super) struct Entry<T> {
    pub(super) entry: T,
    pub(super) file: Option<PathBuf>,
}

impl<T> Entry<T> {
    /// What error texts call a field of this entry.
    pub(super) fn origin(&self, kind: &str, name: &str) -> String {
        format!("{kind} {name:?} in {}", display(self.file.as_deref()))
    }

    /// Paths in a kubeconfig are relative to its directory (`clientcmd.ResolveLocalPaths`).
    pub(super) fn path(&self, path: &Path) -> PathBuf {
        let parent = self.file.as_deref().and_then(Path::parent);
        parent.unwrap_or(Path::new("")).join(path)
    }

    /// A certificate or a key: what `field` with `-data` has in base64 wins over the file that the
    /// field names (`clientcmd/api/types.go`).
    pub(super) fn material(
        &self,
        field: &str,
        file: &Option<PathBuf>,
        data: Option<SecretString>,
        origin: &str,
    ) -> Result<Option<Material>> {
        if let Some(data) = given_secret(data.as_ref()) {
            let origin = format!("{field}-data of {origin}");
            let pem = from_base64(&origin, data.expose_secret())?;
            return Ok(Some(Material::inline(origin, pem)));
        }
        let file = given(file).map(|path| self.path(&path));
        Ok(file.map(|path| Material::file(format!("{field} of {origin}"), path)))
    }
}

/// Several kubeconfig files as one.
#[derive(Default)]
pub(super) struct Merged {
    files: Vec<Option<PathBuf>>,
    /// Files that were looked for and do not exist.
    pub(super) missing: Vec<PathBuf>,
    current_context: Option<String>,
    clusters: BTreeMap<String, Entry<Result<Cluster, String>>>,
    contexts: BTreeMap<String, Entry<Result<Context, String>>>,
    users: BTreeMap<String, Entry<Result<User, String>>>,
}

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
            match fs::read(path).and_then(text_of) {
                Ok(text) => merged.add(Some(path), &text)?,
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

    /// Takes a text in place of files. Relative paths in it are relative to the current directory.
    pub(super) fn of_text(text: &str) -> Result<Self> {
        let mut merged = Self::default();
        merged.add(None, text)?;
        Ok(merged)
    }

    fn add(&mut self, path: Option<&Path>, text: &str) -> Result<()> {
        let path = path.map(|path| std::path::absolute(path).unwrap_or_else(|_| path.to_owned()));
        let bad = |problem| wrong(display(path.as_deref()), problem);
        let file = File::parse(text).map_err(bad)?;
        if self.current_context.is_none() {
            self.current_context = given(&file.current_context);
        }
        merge(&mut self.clusters, &path, "cluster", file.clusters).map_err(bad)?;
        merge(&mut self.contexts, &path, "context", file.contexts).map_err(bad)?;
        merge(&mut self.users, &path, "user", file.users).map_err(bad)?;
        self.files.push(path);
        Ok(())
    }

    /// What error texts call the whole.
    fn origin(&self) -> String {
        let files = self.files.iter().map(|file| display(file.as_deref()));
        files.collect::<Vec<_>>().join(", ")
    }

    /// Whether the files exist and select a cluster, or would with these overrides. If not, what
    /// is missing.
    pub(super) fn selects(&self, options: &KubeconfigOptions) -> Result<(), String> {
        let server = given(&options.server).is_some();
        if self.files.is_empty() && !(server && options.files.is_empty()) {
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
    /// If one that is named does not exist or cannot be read. A user that only the context names
    /// may be missing (`clientcmd/client_config.go`, `getAuthInfo`).
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
        let mut user = match (given(&options.user), given(&context.user)) {
            (None, None) => None,
            (None, Some(name)) if !self.users.contains_key(&name) => {
                tracing::warn!(
                    user = name,
                    kubeconfig = self.origin(),
                    "the user of the context does not exist; no credentials are sent"
                );
                None
            }
            (Some(name), _) | (None, Some(name)) => {
                let user = lookup(&self.users, "user", &name).map_err(find)?;
                Some((name, user))
            }
        };
        let entry = user.as_mut().map(|(_, user)| &mut user.entry);
        options.clear(&mut cluster.entry, entry);
        Ok(Selected {
            cluster_name,
            cluster,
            user,
            namespace: given(&context.namespace),
        })
    }
}

/// An empty text or path is an absent one, as in Go.
pub(super) fn given<T: Clone + AsRef<OsStr>>(text: &Option<T>) -> Option<T> {
    text.clone().filter(|text| !text.as_ref().is_empty())
}

/// [`given`], of a secret.
pub(super) fn given_secret(text: Option<&SecretString>) -> Option<SecretString> {
    text.filter(|text| !text.expose_secret().is_empty())
        .cloned()
}

fn lookup<T: Clone>(
    entries: &BTreeMap<String, Entry<Result<T, String>>>,
    kind: &str,
    name: &str,
) -> Result<Entry<T>, String> {
    let Some(Entry { entry, file }) = entries.get(name) else {
        return Err(match entries.is_empty() {
            true => format!("the {kind} {name:?} does not exist; there is none"),
            false => format!(
                "the {kind} {name:?} does not exist; there are {}",
                names(entries)
            ),
        });
    };
    match entry {
        Ok(entry) => Ok(Entry {
            entry: entry.clone(),
            file: file.clone(),
        }),
        Err(problem) => Err(format!("the {kind} {name:?} cannot be read: {problem}")),
    }
}

fn names<T>(entries: &BTreeMap<String, T>) -> String {
    let names: Vec<_> = entries.keys().map(|name| format!("{name:?}")).collect();
    names.join(", ")
}

/// `clientcmd/api/v1/conversion.go`: a name twice in one list is an error.
fn merge<T>(
    into: &mut BTreeMap<String, Entry<Result<T, String>>>,
    file: &Option<PathBuf>,
    kind: &str,
    entries: Vec<Named<T>>,
) -> Result<(), String> {
    let mut here = HashSet::new();
    for Named { name, entry } in entries {
        if !here.insert(name.clone()) {
            return Err(format!("the {kind} {name:?} is in the list twice"));
        }
        into.entry(name).or_insert_with(|| Entry {
            entry,
            file: file.clone(),
        });
    }
    Ok(())
}

fn display(file: Option<&Path>) -> String {
    file.map_or_else(
        || "the given kubeconfig".to_owned(),
        |file| file.display().to_string(),
    )
}

/// The text of a file: UTF-8, or UTF-16 behind its mark, as PowerShell writes it.
fn text_of(bytes: Vec<u8>) -> io::Result<String> {
    let unit: fn([u8; 2]) -> u16 = match bytes[..] {
        [0xFF, 0xFE, ..] => u16::from_le_bytes,
        [0xFE, 0xFF, ..] => u16::from_be_bytes,
        _ => {
            let text = String::from_utf8(bytes);
            return text.map_err(|_| io::Error::other("it is not in UTF-8"));
        }
    };
    let units: Vec<u16> = bytes[2..].as_chunks().0.iter().copied().map(unit).collect();
    String::from_utf16(&units).map_err(|_| io::Error::other("it is not in UTF-16"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_reads_in_the_encodings_and_with_the_doubled_keys_that_kubectl_takes() {
        let text = "current-context: a\ncurrent-context: \u{fc}\n\
                    contexts: [{name: \u{fc}, context: {namespace: m, namespace: last}}]\n";
        let units = |mark: &[u8], unit: fn(u16) -> [u8; 2]| {
            let units = text.encode_utf16().flat_map(unit);
            mark.iter().copied().chain(units).collect::<Vec<u8>>()
        };
        for bytes in [
            text.as_bytes().to_vec(),
            ["\u{feff}", text].concat().into_bytes(),
            text.replace('\n', "\r\n").into_bytes(),
            units(&[0xFF, 0xFE], u16::to_le_bytes),
            units(&[0xFE, 0xFF], u16::to_be_bytes),
        ] {
            let file = File::parse(&text_of(bytes.clone()).unwrap()).unwrap();
            assert_eq!(
                file.current_context.as_deref(),
                Some("\u{fc}"),
                "{bytes:x?}"
            );
            let context = file.contexts[0].entry.as_ref().unwrap();
            assert_eq!(context.namespace.as_deref(), Some("last"));
        }
        for bytes in [&[0xFF, 0xFE, 0x00, 0xD8][..], b"\xE9"] {
            let error = text_of(bytes.to_vec()).unwrap_err().to_string();
            assert!(error.starts_with("it is not in UTF-"), "{error}");
        }
    }
}

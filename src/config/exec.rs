//! The `exec` entry of a user: which credential plugin to run, and how.
//!
//! In flows the entry as it is in the kubeconfig; out come [`Exec`] settings that can be carried
//! out. The rules are those of `validateAuthInfo` of `k8s.io/client-go/tools/clientcmd`.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::{kubeconfig::given, wrong};
use crate::Result;

const V1: &str = "client.authentication.k8s.io/v1";
const V1BETA1: &str = "client.authentication.k8s.io/v1beta1";

/// `ExecConfig` of the kubeconfig's v1 API.
#[derive(Deserialize, Clone, Default)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct ExecEntry {
    command: Option<String>,
    args: Option<Vec<Option<String>>>,
    env: Option<Vec<Option<VariableEntry>>>,
    api_version: Option<String>,
    install_hint: Option<String>,
    provide_cluster_info: Option<bool>,
    interactive_mode: Option<String>,
}

/// `ExecEnvVar` of the kubeconfig's v1 API.
#[derive(Deserialize, Clone, Default)]
#[serde(default)]
struct VariableEntry {
    name: Option<String>,
    value: Option<String>,
}

#[derive(Clone)]
pub(crate) struct Variable {
    pub(crate) name: String,
    pub(crate) value: String,
}

/// Whether the plugin may ask the user.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Interactive {
    Never,
    IfAvailable,
    Always,
}

#[derive(Clone)]
pub(crate) struct Exec {
    /// What error texts call the entry.
    pub(crate) origin: String,
    pub(crate) command: PathBuf,
    pub(crate) args: Vec<String>,
    pub(crate) variables: Vec<Variable>,
    /// The `apiVersion` of the exchange.
    pub(crate) version: &'static str,
    /// What to tell a user who lacks the plugin.
    pub(crate) hint: Option<String>,
    pub(crate) interactive: Interactive,
    /// Whether the caller lets it have standard input.
    pub(crate) stdin: bool,
    /// What to tell it of the cluster, with `provideClusterInfo`.
    pub(crate) cluster: Option<ExecCluster>,
}

/// What only a plugin needs to know of the cluster.
#[derive(Clone)]
pub(crate) struct ExecCluster {
    /// The server's URL as the kubeconfig has it.
    pub(crate) server: String,
    pub(crate) disable_compression: bool,
    /// The cluster's extension `client.authentication.k8s.io/exec`.
    pub(crate) config: Option<serde_json::Value>,
}

impl Exec {
    /// Checks an entry. `path` gives a command with a slash its place relative to the kubeconfig.
    pub(super) fn new(
        entry: &ExecEntry,
        origin: &str,
        cluster: ExecCluster,
        path: impl Fn(&Path) -> PathBuf,
    ) -> Result<Self> {
        let origin = format!("exec of {origin}");
        let bad = |problem: String| wrong(origin.as_str(), problem);
        let command = given(&entry.command).ok_or_else(|| bad("it names no command".to_owned()))?;
        let version = match given(&entry.api_version).as_deref() {
            Some(V1) => V1,
            Some(V1BETA1) => V1BETA1,
            None => return Err(bad("it names no apiVersion".to_owned())),
            Some("client.authentication.k8s.io/v1alpha1") => {
                return Err(bad(format!(
                    "the apiVersion client.authentication.k8s.io/v1alpha1 was removed in \
                     Kubernetes 1.24; have the plugin's installer write {V1} or {V1BETA1}"
                )));
            }
            Some(other) => {
                return Err(bad(format!(
                    "the apiVersion {other:?} is not known; {V1} and {V1BETA1} are"
                )));
            }
        };
        let interactive = match given(&entry.interactive_mode).as_deref() {
            Some("Never") => Interactive::Never,
            Some("IfAvailable") => Interactive::IfAvailable,
            Some("Always") => Interactive::Always,
            // SetDefaults_ExecConfig of clientcmd/api/v1/defaults.go.
            None if version == V1BETA1 => Interactive::IfAvailable,
            None => {
                return Err(bad(format!(
                    "{V1} needs an interactiveMode: Never, IfAvailable or Always"
                )));
            }
            Some(other) => {
                return Err(bad(format!(
                    "the interactiveMode {other:?} is not known; Never, IfAvailable and Always are"
                )));
            }
        };
        // What is null is empty, as in Go.
        let variables = entry.env.iter().flatten().map(|variable| {
            let VariableEntry { name, value } = variable.clone().unwrap_or_default();
            Variable {
                name: name.unwrap_or_default(),
                value: value.unwrap_or_default(),
            }
        });
        let variables: Vec<_> = variables.collect();
        let args = entry.args.iter().flatten();
        if variables.iter().any(|variable| variable.name.is_empty()) {
            return Err(bad("a variable in env has no name".to_owned()));
        }
        let command = PathBuf::from(command);
        Ok(Self {
            // GetAuthInfoFileReferences: only a command that PATH has nothing to do with.
            command: match command.components().count() > 1 {
                true => path(&command).components().collect(),
                false => command,
            },
            args: args.map(|arg| arg.clone().unwrap_or_default()).collect(),
            variables,
            version,
            hint: given(&entry.install_hint),
            interactive,
            stdin: true,
            cluster: (entry.provide_cluster_info == Some(true)).then_some(cluster),
            origin,
        })
    }
}

// Arguments and variables may be secrets.
debug_fields!(Exec { command, version });

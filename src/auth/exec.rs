//! Credential plugins: programs that print a token or a client certificate.
//!
//! In flow the `exec` entry of a user; out come credentials. The exchange is that of
//! `k8s.io/client-go/pkg/apis/clientauthentication` (`v1`, `v1beta1`), the rules those of
//! `k8s.io/client-go/plugin/pkg/client/auth/exec/exec.go`.

use std::{
    io::{self, IsTerminal},
    path::PathBuf,
    process::Stdio,
    time::SystemTime,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use tokio::io::AsyncReadExt;

use super::{bearer, renewal::Issued};
use crate::{
    Result,
    config::{Material, wrong},
    limits,
};

const V1: &str = "client.authentication.k8s.io/v1";
const V1BETA1: &str = "client.authentication.k8s.io/v1beta1";

/// `ExecConfig` of the kubeconfig's v1 API.
#[derive(Deserialize, Clone, Default)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct ExecEntry {
    command: Option<String>,
    args: Option<Vec<String>>,
    env: Option<Vec<Variable>>,
    api_version: Option<String>,
    install_hint: Option<String>,
    provide_cluster_info: Option<bool>,
    interactive_mode: Option<String>,
}

#[derive(Deserialize, Clone)]
struct Variable {
    name: String,
    #[serde(default)]
    value: String,
}

/// Whether the plugin may ask the user.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Interactive {
    Never,
    IfAvailable,
    Always,
}

/// A plugin that can be run.
#[derive(Clone)]
pub(crate) struct Exec {
    origin: String,
    command: PathBuf,
    args: Vec<String>,
    variables: Vec<Variable>,
    version: &'static str,
    hint: Option<String>,
    interactive: Interactive,
    /// Set later, by [`Config::with_stdin_for_plugins`](crate::Config::with_stdin_for_plugins).
    pub(crate) stdin: bool,
    cluster: Option<ClusterInfo>,
}

/// What a plugin with `provideClusterInfo` is told of the cluster (`Cluster` of
/// `k8s.io/client-go/pkg/apis/clientauthentication/v1`).
#[derive(Clone, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct ClusterInfo {
    pub(crate) server: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) tls_server_name: Option<String>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) insecure_skip_tls_verify: bool,
    #[serde(skip)]
    pub(crate) ca: Option<Material>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) certificate_authority_data: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) proxy_url: Option<String>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) disable_compression: bool,
    /// The cluster's extension `client.authentication.k8s.io/exec`.
    pub(crate) config: Option<serde_json::Value>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Request {
    kind: &'static str,
    api_version: &'static str,
    spec: Spec,
}

#[derive(Serialize)]
struct Spec {
    #[serde(skip_serializing_if = "Option::is_none")]
    cluster: Option<ClusterInfo>,
    interactive: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    kind: Option<String>,
    api_version: Option<String>,
    status: Option<AnswerStatus>,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct AnswerStatus {
    expiration_timestamp: Option<jiff::Timestamp>,
    token: Option<SecretString>,
    client_certificate_data: Option<String>,
    client_key_data: Option<SecretString>,
}

impl Exec {
    /// Checks an entry, as `validateAuthInfo` of `k8s.io/client-go/tools/clientcmd` does.
    ///
    /// `path` gives a command with a slash its place relative to the kubeconfig.
    pub(crate) fn new(
        entry: &ExecEntry,
        origin: &str,
        cluster: ClusterInfo,
        path: impl Fn(&std::path::Path) -> PathBuf,
    ) -> Result<Self> {
        let origin = format!("exec of {origin}");
        let bad = |problem: String| wrong(origin.as_str(), problem);
        let text = |field: &Option<String>| field.clone().filter(|text| !text.is_empty());
        let command = text(&entry.command).ok_or_else(|| bad("it names no command".to_owned()))?;
        let version = match text(&entry.api_version).as_deref() {
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
        let interactive = match text(&entry.interactive_mode).as_deref() {
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
        let variables = entry.env.clone().unwrap_or_default();
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
            args: entry.args.clone().unwrap_or_default(),
            variables,
            version,
            hint: text(&entry.install_hint),
            interactive,
            stdin: true,
            cluster: (entry.provide_cluster_info == Some(true)).then_some(cluster),
            origin,
        })
    }

    /// Runs the plugin.
    ///
    /// Its standard error is that of this process. It inherits standard input if that is a
    /// terminal and the entry and the caller allow it. There is no time limit: a plugin may wait
    /// for a user in a browser.
    pub(crate) async fn issue(&self) -> Result<Issued> {
        let interactive = self.may_ask(std::io::stdin().is_terminal())?;
        let request = serde_json::to_string(&Request {
            kind: "ExecCredential",
            api_version: self.version,
            spec: Spec {
                cluster: self.cluster_info()?,
                interactive,
            },
        })
        .map_err(|error| self.wrong(error.to_string()))?;
        // client-go's encoder ends it with a line end.
        let request = request + "\n";
        tracing::debug!(command = %self.command.display(), interactive, "running the exec plugin");
        let mut command = tokio::process::Command::new(&self.command);
        command
            .args(&self.args)
            .envs(self.variables.iter().map(|v| (&v.name, &v.value)))
            .env("KUBERNETES_EXEC_INFO", request)
            .stdin(if interactive {
                Stdio::inherit()
            } else {
                Stdio::null()
            })
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .kill_on_drop(true);
        let mut child = command.spawn().map_err(|error| self.not_started(&error))?;
        let output = match child.stdout.take() {
            None => Vec::new(),
            Some(stdout) => self.read(stdout).await?,
        };
        let output = SecretString::from(
            String::from_utf8(output)
                .map_err(|_| self.wrong("it printed something else than JSON".to_owned()))?,
        );
        let status = child
            .wait()
            .await
            .map_err(|error| self.not_started(&error))?;
        if !status.success() {
            return Err(self.wrong(format!("it failed ({status}){}", self.advice())));
        }
        let mut issued = self.understand(&output)?;
        issued.early = !interactive;
        Ok(issued)
    }

    fn may_ask(&self, terminal: bool) -> Result<bool> {
        match self.interactive {
            Interactive::Never => Ok(false),
            Interactive::IfAvailable => Ok(self.stdin && terminal),
            Interactive::Always if !self.stdin => {
                Err(self.wrong("it must ask the user, and standard input is in use".to_owned()))
            }
            Interactive::Always if !terminal => {
                Err(self
                    .wrong("it must ask the user, and standard input is not a terminal".to_owned()))
            }
            Interactive::Always => Ok(true),
        }
    }

    fn cluster_info(&self) -> Result<Option<ClusterInfo>> {
        let Some(mut cluster) = self.cluster.clone() else {
            return Ok(None);
        };
        if let Some(ca) = &cluster.ca {
            cluster.certificate_authority_data = Some(STANDARD.encode(ca.read()?.expose_secret()));
        }
        Ok(Some(cluster))
    }

    async fn read(&self, stdout: impl tokio::io::AsyncRead + Unpin) -> Result<Vec<u8>> {
        let mut output = Vec::new();
        let most = limits::PLUGIN_OUTPUT as u64 + 1;
        let read = stdout.take(most).read_to_end(&mut output).await;
        read.map_err(|error| self.wrong(format!("its output cannot be read: {error}")))?;
        match output.len() <= limits::PLUGIN_OUTPUT {
            true => Ok(output),
            false => Err(self.wrong(format!(
                "it printed more than {} bytes",
                limits::PLUGIN_OUTPUT
            ))),
        }
    }

    /// No error repeats what the plugin printed.
    fn understand(&self, output: &SecretString) -> Result<Issued> {
        let bad = |problem: &str| self.wrong(problem.to_owned());
        let answer: Answer = serde_json::from_str(output.expose_secret()).map_err(|error| {
            bad(&format!(
                "it printed no ExecCredential in JSON (line {} column {})",
                error.line(),
                error.column()
            ))
        })?;
        if answer.kind.as_deref() != Some("ExecCredential") {
            return Err(bad("it printed JSON that is no ExecCredential"));
        }
        let version = answer.api_version.unwrap_or_default();
        if version != self.version {
            let version: String = version.chars().take(64).collect();
            return Err(bad(&format!(
                "it is configured for {} and answered as {version:?}",
                self.version
            )));
        }
        let status = answer
            .status
            .ok_or_else(|| bad("its ExecCredential has no status"))?;
        let token = status
            .token
            .filter(|token| !token.expose_secret().is_empty());
        let certificate = status.client_certificate_data.filter(|pem| !pem.is_empty());
        let key = status
            .client_key_data
            .filter(|pem| !pem.expose_secret().is_empty());
        let identity = match (certificate, key) {
            (None, None) if token.is_none() => {
                return Err(bad("it gave neither a token nor a certificate and key"));
            }
            (None, None) => None,
            (Some(certificate), Some(key)) => {
                let name = |field: &str| format!("{field} from {}", self.origin);
                let key = key.expose_secret().as_bytes().to_vec();
                Some((
                    Material::inline(name("clientCertificateData"), certificate.into_bytes()),
                    Material::inline(name("clientKeyData"), key),
                ))
            }
            _ => return Err(bad("it gave only one of certificate and key")),
        };
        Ok(Issued {
            header: token
                .map(|token| bearer(&token, &format!("the token from {}", self.origin)))
                .transpose()?,
            identity,
            expires: status.expiration_timestamp.map(SystemTime::from),
            early: true,
        })
    }

    fn not_started(&self, error: &io::Error) -> crate::Error {
        match error.kind() {
            io::ErrorKind::NotFound => self.wrong(format!("it is not installed{}", self.advice())),
            _ => self.wrong(format!("it cannot be run: {error}{}", self.advice())),
        }
    }

    fn advice(&self) -> String {
        match &self.hint {
            None => String::new(),
            Some(hint) => format!("; {}", hint.trim()),
        }
    }

    fn wrong(&self, problem: String) -> crate::Error {
        let command = self.command.display();
        wrong(
            self.origin.as_str(),
            format!("the plugin {command}: {problem}"),
        )
    }
}

/// Arguments and variables may be secrets.
impl std::fmt::Debug for Exec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Exec")
            .field("command", &self.command)
            .field("version", &self.version)
            .finish_non_exhaustive()
    }
}

#[cfg(all(test, unix))]
mod tests;

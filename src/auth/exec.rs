//! Credential plugins: programs that print a token or a client certificate.
//!
//! In flow the [`Exec`] settings of a user; out come credentials. The exchange is that of
//! `k8s.io/client-go/pkg/apis/clientauthentication` (`v1`, `v1beta1`), the rules those of
//! `k8s.io/client-go/plugin/pkg/client/auth/exec/exec.go`.

use std::{
    io::{self, IsTerminal},
    process::{ExitStatus, Stdio},
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Deserializer, Serialize, de::Error as _};
use tokio::{
    io::AsyncReadExt,
    process::{Child, ChildStdout},
    time::timeout,
};

use super::{bearer, renewal::Issued};
use crate::{
    REQUESTS, Result,
    config::{Config, Exec, ExecCluster, Interactive, Material, below, document, wrong},
    error::text,
    limits,
};

pub(crate) struct Plugin {
    settings: Arc<Exec>,
    cluster: Option<ClusterInfo>,
}

/// What a plugin with `provideClusterInfo` is told of the cluster (`Cluster` of
/// `k8s.io/client-go/pkg/apis/clientauthentication/v1`).
#[derive(Clone, Serialize)]
#[serde(rename_all = "kebab-case")]
struct ClusterInfo {
    server: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    tls_server_name: Option<String>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    insecure_skip_tls_verify: bool,
    #[serde(skip)]
    ca: Option<Material>,
    #[serde(skip_serializing_if = "Option::is_none")]
    certificate_authority_data: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    proxy_url: Option<String>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    disable_compression: bool,
    config: Option<serde_json::Value>,
}

impl ClusterInfo {
    /// `rest.ConfigToExecCluster` of `k8s.io/client-go/rest/exec.go`.
    fn new(cluster: &ExecCluster, config: &Config) -> Self {
        let proxy = config.proxies.of(&config.server).ok().flatten();
        Self {
            server: cluster.server.clone(),
            tls_server_name: config.tls.server_name.clone(),
            insecure_skip_tls_verify: config.tls.insecure,
            ca: config.tls.ca.clone(),
            certificate_authority_data: None,
            proxy_url: proxy.map(|proxy| proxy.url().expose_secret().to_owned()),
            disable_compression: cluster.disable_compression,
            config: cluster.config.clone(),
        }
    }
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

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase")]
struct Answer {
    kind: Option<String>,
    api_version: Option<String>,
    status: Option<AnswerStatus>,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct AnswerStatus {
    #[serde(deserialize_with = "expiry")]
    expiration_timestamp: Option<jiff::Timestamp>,
    token: Option<SecretString>,
    client_certificate_data: Option<String>,
    client_key_data: Option<SecretString>,
}

impl Plugin {
    /// The plugin of a configuration, whose present settings it is told if it wants to know.
    pub(crate) fn new(settings: &Arc<Exec>, config: &Config) -> Self {
        Self {
            cluster: settings
                .cluster
                .as_ref()
                .map(|cluster| ClusterInfo::new(cluster, config)),
            settings: Arc::clone(settings),
        }
    }

    /// Runs the plugin.
    ///
    /// Its standard error is that of this process. It inherits standard input if that is a
    /// terminal and the entry and the caller allow it. There is no time limit, as a plugin may wait
    /// for a user in a browser; that it is waited for is told once.
    pub(crate) async fn issue(&self) -> Result<Issued> {
        let interactive = self.may_ask(std::io::stdin().is_terminal())?;
        let request = serde_json::to_string(&Request {
            kind: "ExecCredential",
            api_version: self.settings.version,
            spec: Spec {
                cluster: self.cluster_info()?,
                interactive,
            },
        })
        .map_err(|error| self.wrong(error))?;
        // client-go's encoder ends it with a line end.
        let request = request + "\n";
        let (plugin, begun) = (self.settings.command.display(), Instant::now());
        tracing::debug!(command = %plugin, interactive, "running the exec plugin");
        let mut command = tokio::process::Command::new(&self.settings.command);
        command
            .args(&self.settings.args)
            .envs(self.settings.variables.iter().map(|v| (&v.name, &v.value)))
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
        let stdout = child.stdout.take();
        let mut ended = Box::pin(self.end(&mut child, stdout));
        let (status, output) = match timeout(limits::PLUGIN_PATIENCE, &mut ended).await {
            Ok(ended) => ended?,
            Err(_) => {
                tracing::warn!(command = %plugin, "waiting for the exec plugin to end");
                ended.await?
            }
        };
        let output = String::from_utf8(output);
        let output = output.map_err(|_| self.wrong("it printed no text"))?;
        let output = SecretString::from(output);
        let ms = begun.elapsed().as_millis();
        tracing::debug!(target: REQUESTS, command = %plugin, %status, ms, "the exec plugin has ended");
        if !status.success() {
            return Err(self.wrong(format!("it failed ({status}){}", self.advice())));
        }
        let mut issued = self.understand(&output)?;
        issued.early = !interactive;
        Ok(issued)
    }

    fn may_ask(&self, terminal: bool) -> Result<bool> {
        match self.settings.interactive {
            Interactive::Never => Ok(false),
            Interactive::IfAvailable => Ok(self.settings.stdin && terminal),
            Interactive::Always if !self.settings.stdin => {
                Err(self.wrong("it must ask the user, and standard input is in use"))
            }
            Interactive::Always if !terminal => {
                Err(self.wrong("it must ask the user, and standard input is not a terminal"))
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

    /// Waits for its end, and reads what it prints until then: what it leaves behind may hold its
    /// output open for ever.
    async fn end(
        &self,
        child: &mut Child,
        stdout: Option<ChildStdout>,
    ) -> Result<(ExitStatus, Vec<u8>)> {
        let mut output = Vec::new();
        let status = {
            let mut read = std::pin::pin!(self.read(stdout, &mut output));
            tokio::select! {
                all = &mut read => {
                    all?;
                    child.wait().await
                }
                status = child.wait() => {
                    if let Ok(all) = timeout(limits::PLUGIN_REST, read).await {
                        all?;
                    }
                    status
                }
            }
        };
        let status = status.map_err(|error| self.not_started(&error))?;
        Ok((status, output))
    }

    async fn read(&self, stdout: Option<ChildStdout>, output: &mut Vec<u8>) -> Result<()> {
        let Some(mut stdout) = stdout else {
            return Ok(());
        };
        let failed = |error| self.wrong(format!("its output cannot be read: {error}"));
        while stdout.read_buf(output).await.map_err(failed)? > 0 {
            if output.len() > limits::PLUGIN_OUTPUT {
                let most = limits::PLUGIN_OUTPUT;
                return Err(self.wrong(format!("it printed more than {most} bytes")));
            }
        }
        Ok(())
    }

    /// No error repeats what the plugin printed.
    pub(super) fn understand(&self, output: &SecretString) -> Result<Issued> {
        let text = output.expose_secret().trim_start_matches('\u{feff}');
        if text.trim().is_empty() {
            return Err(self.wrong("it printed nothing"));
        }
        // client-go reads both.
        let printed = match text.trim_start().starts_with('{') {
            true => serde_json::from_str(text)
                .map_err(|error| format!(", at line {} column {}", error.line(), error.column())),
            false => document(text),
        };
        let none = "it printed no ExecCredential in JSON or YAML";
        let printed = printed.map_err(|place| self.wrong(format!("{none}{place}")))?;
        let read = |printed| serde_json::from_value::<Answer>(printed);
        let answer = read(printed.clone()).map_err(|_| {
            match below(&printed, &|printed| read(printed).is_ok()).strip_prefix('.') {
                Some(field) => self.wrong(format!("{field} of what it printed cannot be read")),
                None => self.wrong(none),
            }
        })?;
        if answer.kind.as_deref() != Some("ExecCredential") {
            return Err(self.wrong(none));
        }
        let version = answer.api_version.unwrap_or_default();
        if version != self.settings.version {
            let version: String = version.chars().take(64).collect();
            return Err(self.wrong(format!(
                "it is configured for {} and answered as {version:?}",
                self.settings.version
            )));
        }
        let status = answer
            .status
            .ok_or_else(|| self.wrong("its ExecCredential has no status"))?;
        let token = status
            .token
            .filter(|token| !token.expose_secret().is_empty());
        let certificate = status.client_certificate_data.filter(|pem| !pem.is_empty());
        let key = status
            .client_key_data
            .filter(|pem| !pem.expose_secret().is_empty());
        let identity = match (certificate, key) {
            (None, None) if token.is_none() => {
                return Err(self.wrong("it gave neither a token nor a certificate and key"));
            }
            (None, None) => None,
            (Some(certificate), Some(key)) => {
                let name = |field: &str| format!("{field} from {}", self.settings.origin);
                let key = key.expose_secret().as_bytes().to_vec();
                Some((
                    Material::inline(name("clientCertificateData"), certificate.into_bytes()),
                    Material::inline(name("clientKeyData"), key),
                ))
            }
            _ => return Err(self.wrong("it gave only one of certificate and key")),
        };
        Ok(Issued {
            header: token
                .map(|token| bearer(&token, &format!("the token from {}", self.settings.origin)))
                .transpose()?,
            identity,
            expires: status.expiration_timestamp.and_then(moment),
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
        match &self.settings.hint {
            None => String::new(),
            Some(hint) => format!("; {}", text::line(hint.as_bytes(), limits::SERVER_TEXT)),
        }
    }

    fn wrong(&self, problem: impl std::fmt::Display) -> crate::Error {
        let command = self.settings.command.display();
        wrong(
            self.settings.origin.as_str(),
            format!("the plugin {command}: {problem}"),
        )
    }
}

/// Go's zero time is none (`time.Time.IsZero`), and so is the end of 9999, after the last of jiff's.
fn expiry<'de, D: Deserializer<'de>>(from: D) -> Result<Option<jiff::Timestamp>, D::Error> {
    const ZERO: i64 = -62_135_596_800;
    let text = Option::<String>::deserialize(from)?;
    let Some(text) = text else { return Ok(None) };
    let is_date = |utc: &str| utc.parse::<jiff::civil::DateTime>().is_ok();
    match text.parse::<jiff::Timestamp>() {
        Ok(time) => Ok(Some(time).filter(|time| time.as_second() != ZERO)),
        Err(_) if text.strip_suffix('Z').is_some_and(is_date) => Ok(None),
        Err(error) => Err(D::Error::custom(error)),
    }
}

/// A time by the system's clock: the earliest that all systems have, or none if they cannot have it.
fn moment(time: jiff::Timestamp) -> Option<SystemTime> {
    match Duration::try_from(time.as_duration()) {
        Ok(after) => SystemTime::UNIX_EPOCH.checked_add(after),
        Err(_) => Some(SystemTime::UNIX_EPOCH),
    }
}

#[cfg(all(test, unix))]
mod tests;

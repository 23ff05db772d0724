//! A pod: the start of every verb.

use std::sync::Arc;

use serde_json::Value;

use super::{
    Attach, Client, Container, Exec, ForwardTarget, IntoCommand, Logs, PortForward, Request,
    Resource,
};
use crate::{
    Result,
    error::{Error, Hint},
    resource::{push, with_query},
    session::logs::LogConfig,
    transport::http::About,
    wire::{self, status::Status},
};

/// A pod of a [`Client`]'s cluster.
///
/// ```
/// # kubewire::example(|pod| pod.container("main", ["sleep", "infinity"]), async |client| {
/// let pod = client.pod("default", "web-0");
/// let containers = pod.containers().await?;
/// assert_eq!(containers[0].name, "main");
/// assert_eq!(pod.exec(["echo", "hello"]).output().await?.stdout, b"hello\n");
/// # Ok(())
/// # });
/// ```
#[derive(Debug, Clone)]
pub struct Pod {
    client: Client,
    /// Its namespace and its name, in one piece: every session keeps it.
    names: Arc<str>,
    /// Where the name begins.
    at: usize,
}

impl Pod {
    pub(super) fn new(client: Client, namespace: &str, name: &str) -> Self {
        Self {
            client,
            names: [namespace, name].concat().into(),
            at: namespace.len(),
        }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.names[self.at..]
    }

    /// Its namespace.
    pub fn namespace(&self) -> &str {
        &self.names[..self.at]
    }

    /// A command to run in one of its containers: a program (`"date"`), or a program and its
    /// arguments (`["date", "-u"]`). No shell is involved.
    pub fn exec<M>(&self, command: impl IntoCommand<M>) -> Exec {
        Exec::new(self.clone(), command.into_command())
    }

    /// Attaches to the process that one of its containers runs.
    pub fn attach(&self) -> Attach {
        Attach::new(self.clone())
    }

    /// Opens connections to its ports.
    pub fn port_forward(&self) -> PortForward {
        self.client
            .port_forward(self.namespace(), ForwardTarget::Pod(self.name().to_owned()))
    }

    /// The log of one of its containers.
    pub fn logs(&self) -> Logs {
        Logs::new(self.clone(), LogConfig::default())
    }

    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    pub(crate) fn path(&self, subresource: &str, query: &[(&str, &str)]) -> Result<String> {
        let mut path = "/api/v1/namespaces".to_owned();
        push(&mut path, "a namespace's name", self.namespace())?;
        path.push_str("/pods");
        push(&mut path, "a pod's name", self.name())?;
        if !subresource.is_empty() {
            path.extend(["/", subresource]);
        }
        Ok(with_query(path, query))
    }

    /// What is asked of this pod, for traces.
    pub(crate) fn about(&self, verb: &'static str, subresource: &str) -> About {
        let slash = if subresource.is_empty() { "" } else { "/" };
        About {
            verb: verb.into(),
            resource: format!("pods{slash}{subresource}"),
            namespace: Some(self.namespace().to_owned()),
            name: Some(self.name().to_owned()),
        }
    }

    /// What is asked of this pod, for errors.
    pub(crate) fn operation(&self, verb: &str) -> String {
        format!("{verb} pod {}/{}", self.namespace(), self.name())
    }

    /// Adds to a refusal what it leaves out and the server says if asked: the names of the pod's
    /// containers where one was wrong, that there is no such namespace where the pod is not, and of
    /// a `session`, the subresource that needs a container that runs, what is missing for it.
    pub(crate) async fn explain(&self, error: Error, session: Option<&str>) -> Error {
        let Error::Api(mut refusal) = error else {
            return error;
        };
        if refusal.hint.is_none() {
            refusal.hint = self.hint(&refusal.status, session).await;
        }
        Error::Api(refusal)
    }

    async fn hint(&self, status: &Status, session: Option<&str>) -> Option<Hint> {
        let is_about = |kind| status.details.as_ref().is_some_and(|it| it.kind == kind);
        match (status.code, session) {
            (400, _) if status.message.contains("is not valid for pod") => {
                let containers = self.containers().await.ok()?.into_iter();
                Some(Hint::Containers(containers.map(|one| one.name).collect()))
            }
            (404, _) if is_about("pods") => {
                let namespaces = Resource::cluster("", "v1", "namespaces");
                let namespaces = self.client.request(namespaces);
                let namespace = namespaces.get::<Value>(self.namespace()).await;
                let is_missing = namespace.is_err_and(|error| error.is_not_found());
                is_missing.then(|| Hint::Namespace(self.namespace().to_owned()))
            }
            // Who may get and not create is told nothing (`ensureAuthorizedForVerb` of
            // k8s.io/kubernetes/pkg/registry/core/pod/rest/subresources.go).
            (403, Some(session)) if status.message.ends_with("is forbidden: ") => {
                Some(Hint::Rule {
                    group: String::new(),
                    resource: format!("pods/{session}"),
                    verbs: vec!["get".into(), "create".into()],
                })
            }
            (400 | 404 | 500, Some(_)) => {
                let pod: wire::pod::Pod = self.request().get(self.name()).await.ok()?;
                let (phase, reason) = pod.not_running()?;
                Some(Hint::NotRunning { phase, reason })
            }
            _ => None,
        }
    }

    /// The container that is meant where none is named, if the pod can be read.
    pub(super) async fn default_container(&self) -> Option<String> {
        let pod: wire::pod::Pod = self.request().get(self.name()).await.ok()?;
        pod.default_container().map(str::to_owned)
    }

    pub(super) fn request(&self) -> Request {
        let pods = Resource::namespaced("", "v1", "pods");
        self.client.request(pods).namespace(self.namespace())
    }

    /// Asks the API server which containers the pod has: the regular ones, the init containers,
    /// the ephemeral ones. It needs the right `get` on `pods`.
    ///
    /// Cancel safety: dropping the future gives the request up.
    ///
    /// # Errors
    ///
    /// Those of [`Request::get`](super::Request::get).
    pub async fn containers(&self) -> Result<Vec<Container>> {
        let pod: wire::pod::Pod = self.request().get(self.name()).await?;
        Ok(pod.containers())
    }
}

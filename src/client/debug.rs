//! Ephemeral containers: in flow an image and what it is to look at, out comes a container that
//! runs beside those of a pod, to attach to.

use std::time::Duration;

use serde_json::{Map, Value, json};

use super::{Attach, IntoCommand, Patch, Pod};
use crate::{
    Error, Resource, Result,
    error::{CallerError, Hint},
    limits,
    resource::suffix,
    session::watch::Update,
    wire::{self, pod::ContainerState, watch::EventType},
};

/// What a [`DebugContainer`] may do (`k8s.io/kubectl/pkg/cmd/debug/profiles.go`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DebugProfile {
    /// Trace processes (`SYS_PTRACE`), as kubectl's unless told.
    #[default]
    General,
    /// Nothing that the baseline standard of pod security forbids.
    Baseline,
    /// What the restricted standard allows: no root, no capabilities, the runtime's seccomp.
    Restricted,
    /// Configure the network (`NET_ADMIN`, `NET_RAW`).
    NetAdmin,
    /// All (`privileged`).
    SysAdmin,
}

impl DebugProfile {
    /// The `securityContext` of the container.
    fn security_context(self) -> Option<Value> {
        Some(match self {
            Self::Baseline => return None,
            Self::General => json!({"capabilities": {"add": ["SYS_PTRACE"]}}),
            Self::Restricted => json!({
                "runAsNonRoot": true,
                "capabilities": {"drop": ["ALL"]},
                "allowPrivilegeEscalation": false,
                "seccompProfile": {"type": "RuntimeDefault"},
            }),
            Self::NetAdmin => json!({"capabilities": {"add": ["NET_ADMIN", "NET_RAW"]}}),
            Self::SysAdmin => json!({"privileged": true}),
        })
    }
}

/// An ephemeral container to put into a pod that runs, as `kubectl debug` does.
///
/// It stays in the pod's object until the pod is deleted: Kubernetes has no way to take it out.
///
/// ```
/// # kubewire::example(|pod| pod.container("main", ["sleep", "infinity"]), async |client| {
/// use kubewire::debug::DebugProfile;
///
/// let debugger = client
///     .pod("default", "web-0")
///     .debug("busybox")
///     .target("main")
///     .profile(DebugProfile::Baseline)
///     .command(["sh", "-c", "while :; do echo here; sleep 0.1; done"])
///     .start()
///     .await?;
/// let attached = debugger.attach().spawn().await?;
/// assert!(attached.stdout.is_some());
/// # Ok(())
/// # });
/// ```
#[derive(Debug, Clone)]
#[must_use = "no container is made until it is started"]
pub struct DebugContainer {
    pod: Pod,
    image: String,
    name: Option<String>,
    profile: DebugProfile,
    fields: Map<String, Value>,
    env: Vec<Value>,
    timeout: Duration,
}

/// An ephemeral container that has started.
///
/// ```no_run
/// # async fn run(pod: kubewire::Pod) -> kubewire::Result<()> {
/// let debugger = pod.debug("busybox").command("date").start().await?;
/// if debugger.has_ended() {
///     let mut lines = pod.logs().container(debugger.name()).stream();
///     # let _ = lines.next().await;
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Debugger {
    pod: Pod,
    name: String,
    ended: bool,
}

impl Pod {
    /// An ephemeral container of this image, beside the containers of the pod.
    pub fn debug(&self, image: impl Into<String>) -> DebugContainer {
        DebugContainer {
            pod: self.clone(),
            image: image.into(),
            name: None,
            profile: DebugProfile::default(),
            fields: Map::new(),
            env: Vec::new(),
            timeout: limits::DEBUG_START,
        }
    }
}

impl DebugContainer {
    setters! {
        /// Its name; `debugger-` and five letters unless set.
        fn name(name: impl Into<String>) name = Some(name.into());

        /// What it may do.
        fn profile(profile: DebugProfile) profile = profile;

        /// How long it may take to start, its image pulled; [`limits::DEBUG_START`] unless set.
        fn timeout(limit: Duration) timeout = limit;
    }

    /// The container whose processes it is to see, where the runtime can.
    pub fn target(self, container: impl Into<String>) -> Self {
        self.field("targetContainerName", container.into())
    }

    /// What it runs instead of the image's entry point.
    pub fn command<M>(self, command: impl IntoCommand<M>) -> Self {
        self.field("command", command.into_command())
    }

    /// What the image's entry point, or the command, is given.
    pub fn args<M>(self, args: impl IntoCommand<M>) -> Self {
        self.field("args", args.into_command())
    }

    /// A variable of its environment.
    pub fn env(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        let (name, value) = (name.into(), value.into());
        self.env.push(json!({"name": name, "value": value}));
        self
    }

    /// When its image is pulled: `Always`, `IfNotPresent` or `Never`; the server's choice unless
    /// set.
    pub fn image_pull_policy(self, policy: impl Into<String>) -> Self {
        self.field("imagePullPolicy", policy.into())
    }

    /// Gives its process an input to attach to.
    pub fn stdin(self) -> Self {
        self.field("stdin", true)
    }

    /// Gives its process a terminal.
    pub fn tty(self) -> Self {
        self.field("tty", true)
    }

    fn field(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.fields.insert(name.to_owned(), value.into());
        self
    }

    /// Puts the container into the pod and waits until it has started, or has ended already.
    ///
    /// It needs the rights `patch` on `pods/ephemeralcontainers`, and `list` and `watch` on `pods`.
    /// Cancel safety: dropping the future stops to wait; the container may be there.
    ///
    /// # Errors
    ///
    /// [`CallerError::NotStarted`] with what it waits for if it does not start in time, and those of
    /// [`create`](Self::create), of which [`CallerError::CannotStart`] also comes later: when the
    /// pod ends, or where the runtime cannot execute the command.
    pub async fn start(&self) -> Result<Debugger> {
        let debugger = self.create().await?;
        let mut waits_for = String::new();
        let started = self.started(&debugger.name, &mut waits_for);
        match tokio::time::timeout(self.timeout, started).await {
            Ok(ended) => Ok(Debugger {
                ended: ended?,
                ..debugger
            }),
            Err(_) if waits_for.is_empty() => {
                let operation = self.pod.operation("start a debugger in");
                Err(Error::late(operation, self.timeout))
            }
            Err(_) => Err(CallerError::NotStarted {
                container: debugger.name,
                after: self.timeout,
                reason: waits_for,
            }
            .into()),
        }
    }

    /// Puts the container into the pod, and does not wait.
    ///
    /// # Errors
    ///
    /// [`CallerError::CannotStart`] if the pod is over or being deleted, which nothing starts in any
    /// more; those of [`Request::patch`](super::Request::patch): an [`Error::Api`] if the pod does
    /// not exist, or has a container of this name.
    pub async fn create(&self) -> Result<Debugger> {
        let name = self.name.clone();
        let name = name.unwrap_or_else(|| format!("debugger-{}", suffix()));
        let mut container = self.fields.clone();
        container.insert("name".to_owned(), json!(name));
        container.insert("image".to_owned(), json!(self.image));
        container.insert("terminationMessagePolicy".to_owned(), json!("File"));
        if !self.env.is_empty() {
            container.insert("env".to_owned(), json!(self.env));
        }
        if let Some(context) = self.profile.security_context() {
            container.insert("securityContext".to_owned(), context);
        }
        let patch = json!({"spec": {"ephemeralContainers": [container]}});
        let request = self.pod.request().subresource("ephemeralcontainers");
        let patched = request.patch(self.pod.name(), Patch::Strategic(&patch));
        match patched.await {
            Ok(pod) => start_of(&pod, &name)?,
            Err(error) => return Err(self.pod.explain(error, None).await),
        };
        Ok(Debugger {
            pod: self.pod.clone(),
            name,
            ended: false,
        })
    }

    /// Waits until it runs; says whether it has ended already.
    async fn started(&self, name: &str, waits_for: &mut String) -> Result<bool> {
        let pods = Resource::namespaced("", "v1", "pods");
        let watch = self.pod.client().watch(pods);
        let watch = watch.namespace(self.pod.namespace()).name(self.pod.name());
        let mut updates = watch.stream();
        let mut is_there = false;
        while let Some(update) = updates.next().await {
            let event = match update? {
                Update::Event(event) => event,
                Update::SnapshotBegin => {
                    is_there = false;
                    continue;
                }
                Update::SnapshotEnd { .. } if !is_there => return Err(never(name, GONE)),
                _ => continue,
            };
            is_there = true;
            if event.event_type == EventType::Deleted {
                return Err(never(name, GONE));
            }
            match start_of(&event.object.decode()?, name)? {
                Start::Running => return Ok(false),
                Start::Ended => return Ok(true),
                Start::Waiting(reason) if reason == *waits_for => {}
                Start::Waiting(reason) => {
                    let waits = "waiting for a container to start";
                    match &*reason {
                        CREATING => tracing::info!(container = name, %reason, "{waits}"),
                        _ => tracing::warn!(container = name, %reason, "{waits}"),
                    }
                    *waits_for = reason;
                }
            }
        }
        Ok(false)
    }
}

/// Why it waits where nothing is wrong.
const CREATING: &str = "ContainerCreating";

/// Why a container of a pod that is no more does not start.
const GONE: &str = "the pod has been deleted";

fn never(container: &str, reason: impl Into<String>) -> Error {
    CallerError::CannotStart {
        container: container.to_owned(),
        reason: reason.into(),
    }
    .into()
}

/// How far a container has come.
#[derive(Debug)]
enum Start {
    Waiting(String),
    Running,
    Ended,
}

/// How far the container has come; an error if it will never start.
fn start_of(pod: &wire::pod::Pod, name: &str) -> Result<Start> {
    match pod.state(name) {
        Some(ContainerState::Running { .. }) => Ok(Start::Running),
        // It had no process (containerd's `container_start.go`, Docker's).
        Some(ContainerState::Ended { exit, .. })
            if matches!(&*exit.reason, "StartError" | "ContainerCannotRun") =>
        {
            Err(never(name, with_message(&exit.reason, &exit.message)))
        }
        Some(ContainerState::Ended { .. }) => Ok(Start::Ended),
        state => {
            // A kubelet starts nothing in a pod that is over, or to be.
            if let Some((phase, reason)) = pod.not_running().filter(|_| pod.is_over()) {
                return Err(never(name, Hint::NotRunning { phase, reason }.to_string()));
            }
            if pod.is_leaving() {
                return Err(never(name, "the pod is being deleted"));
            }
            match state {
                Some(ContainerState::Waiting { reason, message })
                    if reason == "InvalidImageName" =>
                {
                    Err(never(name, with_message(&reason, &message)))
                }
                Some(ContainerState::Waiting { reason, message }) => {
                    Ok(Start::Waiting(with_message(&reason, &message)))
                }
                _ => Ok(Start::Waiting(CREATING.to_owned())),
            }
        }
    }
}

fn with_message(reason: &str, message: &str) -> String {
    match message {
        "" => reason.to_owned(),
        message => format!("{reason}: {message}"),
    }
}

impl Debugger {
    /// The container's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether it had ended when it was last looked at: its log says why.
    pub fn has_ended(&self) -> bool {
        self.ended
    }

    /// Attaches to it. With [`DebugContainer::stdin`] there is an input, with
    /// [`DebugContainer::tty`] a terminal.
    pub fn attach(&self) -> Attach {
        self.pod.attach().container(&self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What becomes of the container `look` of a pod with this status.
    fn start(metadata: Value, status: Value) -> Result<Start, String> {
        let spec =
            json!({"containers": [{"name": "main"}], "ephemeralContainers": [{"name": "look"}]});
        let pod = json!({"metadata": metadata, "spec": spec, "status": status});
        start_of(&serde_json::from_value(pod).unwrap(), "look").map_err(|error| error.to_string())
    }

    fn in_state(state: Value, last: Value) -> Result<Start, String> {
        let look = json!({"name": "look", "state": state, "lastState": last});
        let status = json!({"phase": "Running", "ephemeralContainerStatuses": [look]});
        start(json!({}), status)
    }

    // The states are those that a kubelet of 1.36 over containerd 1.6 reports.
    #[test]
    fn a_container_that_will_never_start_is_an_error_that_says_why() {
        let why = |text: &str| format!("the container look cannot start: {text}");
        for (phase, reason, said) in [("Failed", "Evicted", ", Evicted"), ("Succeeded", "", "")] {
            let error = start(json!({}), json!({"phase": phase, "reason": reason})).unwrap_err();
            assert_eq!(
                error,
                why(&format!("the pod is not running: {phase}{said}"))
            );
        }
        let leaving = json!({"deletionTimestamp": "2026-11-27T15:41:02Z"});
        let error = start(leaving, json!({"phase": "Running"})).unwrap_err();
        assert_eq!(error, why("the pod is being deleted"));
        let told = "exec: \"/no/such\": stat /no/such: no such file or directory";
        let failed = json!({"waiting": {"reason": "RunContainerError", "message": told}});
        let exit =
            json!({"terminated": {"reason": "StartError", "exitCode": 128, "message": told}});
        for (state, last) in [(failed, exit.clone()), (exit, json!({}))] {
            let error = in_state(state, last).unwrap_err();
            assert_eq!(error, why(&format!("StartError: {told}")));
        }
        let message = "couldn't parse image name \"A:::b\"";
        let state = json!({"waiting": {"reason": "InvalidImageName", "message": message}});
        let error = in_state(state, json!({})).unwrap_err();
        assert_eq!(error, why(&format!("InvalidImageName: {message}")));
    }

    #[test]
    fn a_container_that_may_still_start_says_what_it_waits_for() {
        let waits = |start| match start {
            Ok(Start::Waiting(reason)) => reason,
            other => panic!("{other:?}"),
        };
        assert_eq!(
            waits(start(json!({}), json!({"phase": "Running"}))),
            CREATING
        );
        assert_eq!(
            waits(start(json!({}), json!({"phase": "Pending"}))),
            "Pending"
        );
        let state =
            json!({"waiting": {"reason": "ErrImageNeverPull", "message": "it is not present"}});
        assert_eq!(
            waits(in_state(state, json!({}))),
            "ErrImageNeverPull: it is not present"
        );
        let started = in_state(json!({"running": {}}), json!({}));
        assert!(matches!(started, Ok(Start::Running)));
        let ended = in_state(
            json!({"terminated": {"reason": "Error", "exitCode": 1}}),
            json!({}),
        );
        assert!(matches!(ended, Ok(Start::Ended)));
    }
}

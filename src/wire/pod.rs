//! What a Pod says about itself, for every verb that asks.
//!
//! In goes the object of a Pod; out come its containers with their kinds and states, the
//! container that is meant where none is named, and whether and since when the pod can be used.

use serde::Deserialize;

use super::status::null_is_default;

/// A container of a pod, as its specification has it.
///
/// ```
/// # kubewire::example(|pod| {
/// #     pod.container("main", ["sleep", "600"]).container("proxy", ["sleep", "600"])
/// # }, async |client| {
/// let containers = client.pod("default", "web-0").containers().await?;
/// let default = containers.iter().find(|container| container.default);
/// assert_eq!(default.map(|container| container.name.as_str()), Some("main"));
/// # Ok(())
/// # });
/// ```
#[cfg(feature = "client")]
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Container {
    /// Its name.
    pub name: String,
    /// What it is to its pod.
    pub kind: ContainerKind,
    /// Whether its process has an input to attach to.
    pub stdin: bool,
    /// Whether its process has a terminal.
    pub tty: bool,
    /// Whether it is meant where none is named, as in kubectl: it is the one of the annotation
    /// `kubectl.kubernetes.io/default-container`, or else the first regular one.
    pub default: bool,
}

/// What a container is to its pod.
///
/// ```
/// use kubewire::exec::ContainerKind;
///
/// assert!(ContainerKind::Sidecar.is_init() && !ContainerKind::Ephemeral.is_init());
/// ```
#[cfg_attr(
    not(feature = "client"),
    expect(unreachable_pub, reason = "named by the client's users alone")
)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ContainerKind {
    /// One of `spec.initContainers` that ends before the next one starts.
    Init,
    /// One of `spec.initContainers` that goes on beside the others: its `restartPolicy` is
    /// `Always`.
    Sidecar,
    /// One of `spec.containers`.
    Regular,
    /// One of `spec.ephemeralContainers`.
    Ephemeral,
}

#[cfg(feature = "client")]
impl ContainerKind {
    /// Whether it is one of `spec.initContainers`, which start before all others.
    pub const fn is_init(self) -> bool {
        matches!(self, Self::Init | Self::Sidecar)
    }
}

/// How a container ended.
///
/// ```
/// use kubewire::logs::Exit;
///
/// fn was_killed_for_memory(exit: &Exit) -> bool {
///     exit.reason == "OOMKilled"
/// }
/// assert!(!was_killed_for_memory(&Exit::default()));
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Exit {
    /// The exit code, where it is known.
    pub code: Option<i32>,
    /// The signal that ended it, where the runtime says so.
    pub signal: Option<i32>,
    /// Such as `Completed`, `Error` or `OOMKilled`.
    pub reason: String,
    /// What the container left as its termination message, or the runtime says of a process that it
    /// could not start; often empty.
    pub message: String,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum ContainerState {
    Running {
        id: String,
        restarts: u32,
        /// The instance before this one.
        before: Option<(String, Exit)>,
    },
    /// It has ended; its log can still be read.
    Ended {
        id: String,
        exit: Exit,
        /// The instance before this one.
        before: Option<(String, Exit)>,
        will_restart: bool,
    },
    /// It has not started yet.
    Waiting { reason: String, message: String },
    /// The pod is over and says nothing about the container.
    Over(Exit),
}

/// A Pod, as far as a verb needs it.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Pod {
    #[serde(default)]
    metadata: Metadata,
    spec: Spec,
    #[serde(default)]
    status: PodStatus,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Metadata {
    #[cfg(feature = "client")]
    name: String,
    uid: String,
    deletion_timestamp: Option<String>,
    #[serde(deserialize_with = "null_is_default")]
    annotations: Annotations,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct Annotations {
    /// `k8s.io/kubectl/pkg/cmd/util/podcmd/podcmd.go`, `DefaultContainerAnnotationName`.
    #[serde(rename = "kubectl.kubernetes.io/default-container")]
    default_container: Option<String>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Spec {
    restart_policy: String,
    #[serde(deserialize_with = "null_is_default")]
    containers: Vec<ContainerSpec>,
    #[serde(deserialize_with = "null_is_default")]
    init_containers: Vec<ContainerSpec>,
    #[serde(deserialize_with = "null_is_default")]
    ephemeral_containers: Vec<ContainerSpec>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ContainerSpec {
    name: String,
    restart_policy: Option<String>,
    #[cfg(feature = "client")]
    #[serde(default)]
    stdin: bool,
    #[cfg(feature = "client")]
    #[serde(default)]
    tty: bool,
    #[cfg(feature = "client")]
    #[serde(default, deserialize_with = "null_is_default")]
    ports: Vec<ContainerPort>,
}

#[cfg(feature = "client")]
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ContainerPort {
    name: String,
    container_port: u16,
    protocol: Protocol,
}

/// Unless an object says otherwise it is TCP, and nothing else can be forwarded.
#[cfg(feature = "client")]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
pub(crate) enum Protocol {
    #[default]
    #[serde(rename = "TCP")]
    Tcp,
    #[serde(other)]
    Other,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct PodStatus {
    phase: String,
    reason: String,
    message: String,
    #[cfg(feature = "client")]
    #[serde(deserialize_with = "null_is_default")]
    conditions: Vec<Condition>,
    #[serde(deserialize_with = "null_is_default")]
    container_statuses: Vec<ContainerStatus>,
    #[serde(deserialize_with = "null_is_default")]
    init_container_statuses: Vec<ContainerStatus>,
    #[serde(deserialize_with = "null_is_default")]
    ephemeral_container_statuses: Vec<ContainerStatus>,
}

#[cfg(feature = "client")]
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Condition {
    r#type: String,
    status: String,
    last_transition_time: Option<String>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ContainerStatus {
    name: String,
    #[serde(rename = "containerID")]
    container_id: String,
    restart_count: u32,
    state: State,
    last_state: State,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct State {
    waiting: Option<Waiting>,
    running: Option<serde::de::IgnoredAny>,
    terminated: Option<Terminated>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct Waiting {
    reason: String,
    message: String,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Terminated {
    exit_code: i32,
    signal: Option<i32>,
    reason: String,
    message: String,
    #[serde(rename = "containerID")]
    container_id: String,
}

impl Terminated {
    fn instance(&self) -> (String, Exit) {
        let exit = Exit {
            code: Some(self.exit_code),
            signal: self.signal.filter(|signal| *signal != 0),
            reason: self.reason.clone(),
            message: self.message.clone(),
        };
        (self.container_id.clone(), exit)
    }
}

impl Pod {
    pub(crate) fn uid(&self) -> &str {
        &self.metadata.uid
    }

    /// Whether somebody has asked for its end.
    pub(crate) fn is_leaving(&self) -> bool {
        self.metadata.deletion_timestamp.is_some()
    }

    /// Whether all of its containers have ended for good.
    pub(crate) fn is_over(&self) -> bool {
        matches!(self.status.phase.as_str(), "Succeeded" | "Failed")
    }

    fn specs(&self) -> impl Iterator<Item = (ContainerKind, &ContainerSpec)> {
        use ContainerKind::{Ephemeral, Init, Regular, Sidecar};
        let spec = &self.spec;
        let regular = spec.containers.iter().map(|one| (Regular, one));
        let init = spec.init_containers.iter().map(|one| {
            let goes_on = one.restart_policy.as_deref() == Some("Always");
            (if goes_on { Sidecar } else { Init }, one)
        });
        let ephemeral = spec.ephemeral_containers.iter();
        regular
            .chain(init)
            .chain(ephemeral.map(|one| (Ephemeral, one)))
    }

    /// The names of the containers: of the regular ones, those of `initContainers`, the ephemeral
    /// ones.
    pub(crate) fn container_names(&self) -> impl Iterator<Item = &str> {
        self.specs().map(|(_, spec)| spec.name.as_str())
    }

    /// The container that is meant where none is named (`podcmd.go`,
    /// `FindOrDefaultContainerByName`).
    pub(crate) fn default_container(&self) -> Option<&str> {
        let named = self.metadata.annotations.default_container.as_deref();
        named
            .filter(|name| self.specs().any(|(_, spec)| spec.name == **name))
            .or(self.spec.containers.first().map(|spec| &*spec.name))
    }

    /// How a container is; `None` if the pod has none of that name.
    pub(crate) fn state(&self, name: &str) -> Option<ContainerState> {
        let (kind, spec) = self.specs().find(|(_, spec)| spec.name == name)?;
        let all = &self.status;
        let statuses = match kind {
            ContainerKind::Regular => &all.container_statuses,
            ContainerKind::Ephemeral => &all.ephemeral_container_statuses,
            _ => &all.init_container_statuses,
        };
        let over = self.is_over();
        let Some(status) = statuses.iter().find(|status| status.name == name) else {
            return Some(if over {
                ContainerState::Over(Exit {
                    reason: all.reason.clone(),
                    message: all.message.clone(),
                    ..Exit::default()
                })
            } else {
                let reason = match (&*all.reason, &*all.phase) {
                    // An ephemeral container that the kubelet has not seen yet.
                    ("", "Running") => "ContainerCreating",
                    ("", phase) => phase,
                    (reason, _) => reason,
                };
                ContainerState::Waiting {
                    reason: reason.to_owned(),
                    message: all.message.clone(),
                }
            });
        };
        let last = status.last_state.terminated.as_ref();
        let before = last.map(Terminated::instance);
        if status.state.running.is_some() {
            return Some(ContainerState::Running {
                id: status.container_id.clone(),
                restarts: status.restart_count,
                before,
            });
        }
        let ended = |(id, exit): (String, Exit), before| {
            let may_restart = !over && !self.is_leaving() && kind != ContainerKind::Ephemeral;
            let policy = spec.restart_policy.as_ref();
            let will_restart = may_restart
                && match policy.unwrap_or(&self.spec.restart_policy).as_str() {
                    // An init container that succeeded is done.
                    "Always" => kind != ContainerKind::Init || exit.code != Some(0),
                    "OnFailure" => exit.code != Some(0),
                    _ => false,
                };
            ContainerState::Ended {
                id,
                exit,
                before,
                will_restart,
            }
        };
        if let Some(terminated) = &status.state.terminated {
            return Some(ended(terminated.instance(), before));
        }
        if let Some(before) = before {
            return Some(ended(before, None));
        }
        let waiting = status.state.waiting.as_ref();
        Some(ContainerState::Waiting {
            reason: waiting.map(|w| w.reason.clone()).unwrap_or_default(),
            message: waiting.map(|w| w.message.clone()).unwrap_or_default(),
        })
    }
}

#[cfg(feature = "client")]
impl Pod {
    pub(crate) fn name(&self) -> &str {
        &self.metadata.name
    }

    /// Whether it runs and nobody has asked for its end.
    pub(crate) fn is_running(&self) -> bool {
        !self.is_leaving() && self.status.phase == "Running"
    }

    /// Its phase and why it has that one, unless it runs.
    pub(crate) fn not_running(&self) -> Option<(String, String)> {
        let PodStatus { phase, reason, .. } = &self.status;
        (phase != "Running").then(|| (phase.clone(), reason.clone()))
    }

    /// Since when it has been ready, as RFC 3339; empty if it does not say since when.
    pub(crate) fn ready_since(&self) -> Option<&str> {
        let conditions = &self.status.conditions;
        let ready = |one: &&Condition| one.r#type == "Ready" && one.status == "True";
        let since = &conditions.iter().find(ready)?.last_transition_time;
        Some(since.as_deref().unwrap_or_default())
    }

    /// The containers, in the order of their [names](Self::container_names).
    pub(crate) fn containers(&self) -> Vec<Container> {
        let default = self.default_container();
        let container = |(kind, spec): (ContainerKind, &ContainerSpec)| Container {
            name: spec.name.clone(),
            kind,
            stdin: spec.stdin,
            tty: spec.tty,
            default: default == Some(spec.name.as_str()),
        };
        self.specs().map(container).collect()
    }

    /// The TCP port of this name, of the containers that run beside each other.
    pub(crate) fn port(&self, name: &str) -> Option<u16> {
        use ContainerKind::{Regular, Sidecar};
        let stays = |kind| matches!(kind, Regular | Sidecar);
        let containers = self.specs().filter(|(kind, _)| stays(*kind));
        let mut ports = containers.flat_map(|(_, spec)| &spec.ports);
        ports
            .find(|port| port.name == name && port.protocol == Protocol::Tcp)
            .map(|port| port.container_port)
    }
}

#[cfg(test)]
mod tests;

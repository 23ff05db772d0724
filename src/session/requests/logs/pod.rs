//! What a pod says about one of its containers.
//!
//! In goes the JSON of a Pod; out comes whether the container runs, has ended or is yet to start.

use serde::Deserialize;

/// How a container ended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Exit {
    /// The exit code, where it is known.
    pub code: Option<i32>,
    /// The signal that ended it, where the runtime says so.
    pub signal: Option<i32>,
    /// Such as `Completed`, `Error` or `OOMKilled`.
    pub reason: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Pod {
    metadata: Metadata,
    spec: Spec,
    status: PodStatus,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Metadata {
    uid: String,
    deletion_timestamp: Option<String>,
    annotations: Option<std::collections::HashMap<String, String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Spec {
    restart_policy: String,
    containers: Vec<ContainerSpec>,
    init_containers: Vec<ContainerSpec>,
    ephemeral_containers: Vec<ContainerSpec>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ContainerSpec {
    name: String,
    restart_policy: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct PodStatus {
    phase: String,
    reason: String,
    message: String,
    container_statuses: Vec<ContainerStatus>,
    init_container_statuses: Vec<ContainerStatus>,
    ephemeral_container_statuses: Vec<ContainerStatus>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ContainerStatus {
    name: String,
    #[serde(rename = "containerID")]
    container_id: String,
    restart_count: u32,
    state: State,
    last_state: State,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct State {
    waiting: Option<Waiting>,
    running: Option<serde::de::IgnoredAny>,
    terminated: Option<Terminated>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Waiting {
    reason: String,
    message: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Terminated {
    exit_code: i32,
    signal: Option<i32>,
    reason: String,
    #[serde(rename = "containerID")]
    container_id: String,
}

impl Terminated {
    fn instance(&self) -> (String, Exit) {
        let exit = Exit {
            code: Some(self.exit_code),
            signal: self.signal.filter(|signal| *signal != 0),
            reason: self.reason.clone(),
        };
        (self.container_id.clone(), exit)
    }
}

/// The container that is followed.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Container {
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

impl Pod {
    pub(super) fn uid(&self) -> &str {
        &self.metadata.uid
    }

    fn specs(&self) -> impl Iterator<Item = &ContainerSpec> {
        let spec = &self.spec;
        let usual = spec.containers.iter().chain(&spec.init_containers);
        usual.chain(&spec.ephemeral_containers)
    }

    pub(super) fn container_names(&self) -> Vec<String> {
        self.specs().map(|spec| spec.name.clone()).collect()
    }

    /// The container that kubectl takes if none is named.
    pub(super) fn default_container(&self) -> Option<String> {
        // `k8s.io/kubectl/pkg/cmd/util/podcmd/podcmd.go`, DefaultContainerAnnotationName.
        let annotation = "kubectl.kubernetes.io/default-container";
        let annotations = self.metadata.annotations.as_ref();
        annotations
            .and_then(|all| all.get(annotation))
            .filter(|name| self.specs().any(|spec| spec.name == **name))
            .or(self.spec.containers.first().map(|spec| &spec.name))
            .cloned()
    }

    /// `None` if the pod has no container of that name.
    pub(super) fn container(&self, name: &str) -> Option<Container> {
        let spec = self.specs().find(|spec| spec.name == name)?;
        let all = &self.status;
        let usual = all
            .container_statuses
            .iter()
            .chain(&all.init_container_statuses);
        let mut statuses = usual.chain(&all.ephemeral_container_statuses);
        let over = matches!(all.phase.as_str(), "Succeeded" | "Failed");
        let Some(status) = statuses.find(|status| status.name == name) else {
            return Some(if over {
                Container::Over(Exit {
                    reason: all.reason.clone(),
                    ..Exit::default()
                })
            } else {
                Container::Waiting {
                    reason: if all.reason.is_empty() {
                        &all.phase
                    } else {
                        &all.reason
                    }
                    .clone(),
                    message: all.message.clone(),
                }
            });
        };
        let last = status.last_state.terminated.as_ref();
        let before = last.map(Terminated::instance);
        if status.state.running.is_some() {
            return Some(Container::Running {
                id: status.container_id.clone(),
                restarts: status.restart_count,
                before,
            });
        }
        let ended = |(id, exit): (String, Exit), before| {
            let may_restart = !over && self.metadata.deletion_timestamp.is_none();
            let policy = spec.restart_policy.as_ref();
            let will_restart = may_restart
                && match policy.unwrap_or(&self.spec.restart_policy).as_str() {
                    "Always" => {
                        // An init container that succeeded is done; one that is to be restarted
                        // always has the policy itself.
                        let init = &self.spec.init_containers;
                        let is_init = init.iter().any(|spec| spec.name == name);
                        !is_init || policy.is_some() || exit.code != Some(0)
                    }
                    "OnFailure" => exit.code != Some(0),
                    _ => false,
                };
            Container::Ended {
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
        Some(Container::Waiting {
            reason: waiting.map(|w| w.reason.clone()).unwrap_or_default(),
            message: waiting.map(|w| w.message.clone()).unwrap_or_default(),
        })
    }
}

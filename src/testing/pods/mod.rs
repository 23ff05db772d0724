//! Pods: in flow those that a test declares or a client creates, and requests for their streams, out
//! come processes of this machine and what they say. Here is what pods there are, and the choice of a
//! container in one.

pub(super) mod attach;
pub(super) mod container;
pub(super) mod exec;
pub(super) mod kubelet;
pub(super) mod logs;
pub(super) mod port_forward;
pub(super) mod process;
pub(super) mod proxy;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use http::StatusCode;
use serde_json::{Value, json};

use self::{container::Container, logs::now, port_forward::Ports};
use crate::{
    Resource,
    error::panic::lock,
    server::Refusal,
    testing::{
        objects::store::seconds,
        values::json::{items, items_mut, push, set, text},
    },
    wire::stamp::Stamp,
};

/// The node that all pods are on.
pub(super) const NODE: &str = "embedded";

/// A container that does not run.
#[derive(Debug, Clone, Default)]
pub(super) struct Waiting {
    pub(super) name: String,
    pub(super) image: String,
    pub(super) reason: &'static str,
    pub(super) message: String,
}

/// A pod with its running containers.
#[derive(Debug)]
pub(super) struct Pod {
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) uid: String,
    pub(super) ip: String,
    /// Whether it has a node.
    pub(super) is_placed: bool,
    pub(super) ports: Ports,
    pub(super) started: Stamp,
    pub(super) containers: Vec<Arc<Container>>,
    /// Those that `kubectl debug` has added.
    pub(super) ephemeral: Mutex<Vec<Arc<Container>>>,
    pub(super) waiting: Vec<Waiting>,
}

#[derive(Debug, Default)]
pub(super) struct Pods(Mutex<BTreeMap<(String, String), Arc<Pod>>>);

pub(super) fn resource() -> Resource {
    Resource::namespaced("", "v1", "pods")
}

impl Pods {
    pub(super) fn add(&self, pod: Arc<Pod>) {
        let mut pods = lock(&self.0);
        pods.insert((pod.namespace.clone(), pod.name.clone()), pod);
    }

    pub(super) fn get(&self, namespace: &str, name: &str) -> Option<Arc<Pod>> {
        let pods = lock(&self.0);
        pods.get(&(namespace.to_owned(), name.to_owned())).cloned()
    }

    pub(super) fn remove(&self, namespace: &str, name: &str) -> Option<Arc<Pod>> {
        let mut pods = lock(&self.0);
        pods.remove(&(namespace.to_owned(), name.to_owned()))
    }
}

/// Whether a pod's processes have ended for good.
pub(super) fn is_over(pod: &Value) -> bool {
    ["Succeeded", "Failed"].contains(&text(&pod["status"]["phase"]))
}

/// A pod's phase: `k8s.io/kubernetes/pkg/kubelet/kubelet_pods.go`, `getPhase`.
fn phase(waiting: bool, codes: &[Option<i64>], restarts: &Value) -> &'static str {
    match () {
        () if waiting => "Pending",
        // Ports alone are served for good.
        () if codes.is_empty() || codes.iter().any(Option::is_none) => "Running",
        () if *restarts == "Always" => "Running",
        () if codes.iter().all(|code| *code == Some(0)) => "Succeeded",
        () if *restarts == "OnFailure" => "Running",
        () => "Failed",
    }
}

/// Adds to a container's status what it has been given (`convertToAPIContainerStatuses`).
fn report(status: &mut Value, container: &Value) {
    let mounts = items(&container["volumeMounts"]).map(|mount| {
        let mut given = json!({"name": mount["name"], "mountPath": mount["mountPath"]});
        if mount["readOnly"] == true {
            given["readOnly"] = true.into();
            given["recursiveReadOnly"] = "Disabled".into();
        }
        given
    });
    let mounts: Vec<_> = mounts.collect();
    if !mounts.is_empty() {
        status["volumeMounts"] = mounts.into();
    }
    let resources = &container["resources"];
    if resources.is_object() {
        status["resources"] = resources.clone();
    }
    set(status, "allocatedResources", &resources["requests"]);
}

impl Pod {
    /// A pod that starts now, without containers.
    pub(super) fn new(named: [&str; 4]) -> Self {
        let [namespace, name, uid, ip] = named.map(str::to_owned);
        Self {
            namespace,
            name,
            uid,
            ip,
            is_placed: true,
            ports: Ports::default(),
            started: now(),
            containers: Vec::new(),
            ephemeral: Mutex::default(),
            waiting: Vec::new(),
        }
    }

    /// A pod that has no node yet.
    pub(super) fn unplaced(object: &Value) -> Self {
        let metadata = &object["metadata"];
        let waiting = items(&object["spec"]["containers"]).map(|container| Waiting {
            name: text(&container["name"]).to_owned(),
            ..Waiting::default()
        });
        let (namespace, name) = (text(&metadata["namespace"]), text(&metadata["name"]));
        Self {
            waiting: waiting.collect(),
            is_placed: false,
            ..Self::new([namespace, name, "", ""])
        }
    }

    /// The container that a request means, or the refusal of
    /// `k8s.io/kubernetes/pkg/registry/core/pod/strategy.go` (`validateContainer`).
    /// One may be waiting.
    pub(super) fn container(
        &self,
        name: Option<&str>,
    ) -> Result<Result<Arc<Container>, &Waiting>, Refusal> {
        let pod = &self.name;
        let waiting = self.waiting.iter().map(|waiting| &*waiting.name);
        let names = self.containers.iter().map(|c| c.name()).chain(waiting);
        let names: Vec<_> = names.collect();
        let name = match (name, &names[..]) {
            (Some(name), _) => name,
            (None, [only]) => only,
            (None, []) => {
                let why = format!("a container name must be specified for pod {pod}");
                return Err(Refusal::bad_request(why));
            }
            (None, several) => {
                return Err(Refusal::bad_request(format!(
                    "a container name must be specified for pod {pod}, choose one of: [{}]",
                    several.join(" ")
                )));
            }
        };
        if let Some(found) = self.all().find(|known| known.name() == name) {
            return Ok(Ok(found));
        }
        match self.waiting.iter().find(|waiting| waiting.name == name) {
            Some(waiting) => Ok(Err(waiting)),
            None => {
                let why = format!("container {name} is not valid for pod {pod}");
                Err(Refusal::bad_request(why))
            }
        }
    }

    /// Likewise, if it runs. `gone` has a kubelet's words for one that does not, which the API server
    /// passes on as they are.
    pub(super) fn running(
        &self,
        name: Option<&str>,
        gone: impl Fn(&str) -> String,
    ) -> Result<Arc<Container>, Refusal> {
        let name = match &self.container(name)? {
            Ok(found) if found.is_running() => return Ok(found.clone()),
            Ok(found) => gone(found.name()),
            Err(waiting) => gone(&waiting.name),
        };
        Err(Refusal::text(StatusCode::INTERNAL_SERVER_ERROR, name))
    }

    /// Why there is no log yet.
    pub(super) fn no_log(&self, Waiting { name, reason, .. }: &Waiting) -> Refusal {
        let pod = &self.name;
        Refusal::bad_request(format!(
            "container {name:?} in pod {pod:?} is waiting to start: {reason}"
        ))
    }

    /// All containers with processes.
    pub(super) fn all(&self) -> impl Iterator<Item = Arc<Container>> + use<> {
        let ephemeral = lock(&self.ephemeral);
        let all: Vec<_> = self
            .containers
            .iter()
            .chain(ephemeral.iter())
            .cloned()
            .collect();
        all.into_iter()
    }

    /// The status that a kubelet reports, given the pod's object.
    pub(super) fn status(&self, object: &Value, now: Stamp) -> Value {
        let before = &object["status"];
        let mut statuses: Vec<_> = self.containers.iter().map(|c| c.status()).collect();
        let codes: Vec<_> = statuses
            .iter()
            .map(|status| status["state"]["terminated"]["exitCode"].as_i64())
            .collect();
        let is_waiting = !self.waiting.is_empty();
        // What is being deleted is not started again.
        let policy = match &object["metadata"]["deletionTimestamp"] {
            Value::Null => &object["spec"]["restartPolicy"],
            _ => &json!("Never"),
        };
        let phase = phase(is_waiting, &codes, policy);
        let is_ready = phase == "Running" && codes.iter().all(Option::is_none);
        for status in &mut statuses {
            let mut declared = items(&object["spec"]["containers"]);
            if let Some(of) = declared.find(|of| of["name"] == status["name"]) {
                report(status, of);
            }
        }
        statuses.extend(self.waiting.iter().map(|waiting| {
            json!({
                "name": waiting.name, "ready": false, "started": false, "restartCount": 0,
                "image": waiting.image, "imageID": "", "lastState": {},
                "state": {"waiting": {"reason": waiting.reason, "message": waiting.message}},
            })
        }));
        let ephemeral = lock(&self.ephemeral);
        let ephemeral: Vec<_> = ephemeral.iter().map(|c| c.status()).collect();
        let mut status = before.clone();
        if !status.is_object() {
            status = json!({});
        }
        let why = match (is_ready, phase) {
            (true, _) => None,
            (_, "Succeeded") => Some("PodCompleted"),
            (_, "Failed") => Some("PodFailed"),
            _ => Some("ContainersNotReady"),
        };
        for (name, holds, reason) in [
            (
                "PodReadyToStartContainers",
                !matches!(phase, "Succeeded" | "Failed"),
                None,
            ),
            ("Initialized", true, None),
            ("Ready", is_ready, why),
            ("ContainersReady", is_ready, why),
            ("PodScheduled", true, None),
        ] {
            let why = reason.map(|reason| (reason, ""));
            condition(&mut status, name, holds, why, now);
        }
        let generation = &object["metadata"]["generation"];
        for condition in items_mut(&mut status["conditions"]) {
            if condition.get("lastProbeTime").is_some() {
                condition["observedGeneration"] = generation.clone();
            }
        }
        status["observedGeneration"] = generation.clone();
        status["resources"] = json!({});
        status["phase"] = phase.into();
        status["containerStatuses"] = statuses.into();
        if !ephemeral.is_empty() {
            status["ephemeralContainerStatuses"] = ephemeral.into();
        }
        status["hostIP"] = "127.0.0.1".into();
        status["hostIPs"] = json!([{"ip": "127.0.0.1"}]);
        status["podIP"] = self.ip.clone().into();
        status["podIPs"] = json!([{"ip": self.ip}]);
        status["startTime"] = seconds(self.started).into();
        status
    }
}

/// Sets a condition; others stay, and so does the time of the last transition.
pub(super) fn condition(
    status: &mut Value,
    name: &str,
    holds: bool,
    why: Option<(&str, &str)>,
    now: Stamp,
) {
    let holds = if holds { "True" } else { "False" };
    let mut condition = json!({
        "type": name, "status": holds, "lastProbeTime": null, "lastTransitionTime": seconds(now),
    });
    if let Some((reason, message)) = why {
        condition["reason"] = reason.into();
        if !message.is_empty() {
            condition["message"] = message.into();
        }
    }
    let mut conditions = items_mut(&mut status["conditions"]);
    match conditions.find(|known| known["type"] == name) {
        Some(known) => {
            if known["status"] == holds {
                condition["lastTransitionTime"] = known["lastTransitionTime"].clone();
            }
            *known = condition;
        }
        None => {
            drop(conditions);
            push(&mut status["conditions"], condition);
        }
    }
}

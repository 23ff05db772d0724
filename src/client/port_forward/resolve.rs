//! From a target to a pod and its ports: in flow the objects of the API server, out come the pod
//! that is ready, and the numbers of its ports.
//!
//! The rules are kubectl's (`k8s.io/kubectl/pkg/polymorphichelpers`, `pkg/util/service_port.go`),
//! except that a pod which is not ready is taken only if none is.

use std::{cmp::Reverse, collections::BTreeMap};

use serde::Deserialize;
use serde_json::Value;

use super::target::{ForwardPort, ForwardTarget, ResolvedPort};
use crate::{
    Error, Result,
    client::{Client, Pod, Request, Resource},
    error::CallerError,
    limits,
    wire::pod::{self, Protocol},
};

/// A pod that was found, and what is known about it.
#[derive(Debug, Clone)]
pub(super) struct Destination {
    pub(super) pod: Pod,
    /// Its object. Unknown for a pod that was named, until a port is.
    object: Option<pod::Pod>,
    service: Option<ServiceObject>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct ServiceObject {
    spec: ServiceSpec,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct ServiceSpec {
    selector: BTreeMap<String, String>,
    #[serde(rename = "clusterIP")]
    cluster_ip: String,
    ports: Vec<ServicePort>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ServicePort {
    name: String,
    port: u16,
    protocol: Protocol,
    target_port: Option<TargetPort>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
enum TargetPort {
    Number(u16),
    Name(String),
}

/// `metav1.LabelSelector`.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct LabelSelector {
    match_labels: BTreeMap<String, String>,
    match_expressions: Vec<Requirement>,
}

#[derive(Debug, Deserialize)]
struct Requirement {
    key: String,
    operator: String,
    #[serde(default)]
    values: Vec<String>,
}

/// The pod that a target means now. `keep` is the one that it meant before, which stays if it can.
pub(super) async fn find(
    client: &Client,
    namespace: &str,
    target: &ForwardTarget,
    keep: Option<&Destination>,
) -> Result<Destination> {
    if let ForwardTarget::Pod(name) = target {
        return Ok(Destination {
            pod: client.pod(namespace, name),
            object: None,
            service: None,
        });
    }
    let (selector, service) = selects(client, namespace, target).await?;
    let list = pods(client, namespace).labels(selector).list().await?;
    let uid = keep.and_then(|known| Some(known.object.as_ref()?.uid()));
    let object = choose(list.items, uid).ok_or_else(|| CallerError::NoPod {
        target: target.to_string(),
        namespace: namespace.to_owned(),
    })?;
    Ok(Destination {
        pod: client.pod(namespace, object.name()),
        object: Some(object),
        service,
    })
}

/// The selector of a target's pods, and the service that it is, if it is one.
async fn selects(
    client: &Client,
    namespace: &str,
    target: &ForwardTarget,
) -> Result<(String, Option<ServiceObject>)> {
    let (selector, service) = match target {
        ForwardTarget::Pod(_) => (String::new(), None),
        ForwardTarget::Service(name) => {
            let services = client.request(Resource::namespaced("", "v1", "services"));
            let service: ServiceObject = services.namespace(namespace).get(name).await?;
            (labels(&service.spec.selector), Some(service))
        }
        ForwardTarget::Workload { resource, name } => {
            let workloads = client.request(resource.clone()).namespace(namespace);
            let workload: Value = workloads.get(name).await?;
            (selector(&workload["spec"]["selector"]), None)
        }
    };
    if selector.is_empty() {
        let target = target.to_string();
        return Err(CallerError::NoSelector { target }.into());
    }
    Ok((selector, service))
}

impl Client {
    /// The selector of the pods that a service or a workload means, such as `app=web`.
    ///
    /// Cancel safety: dropping the future gives the request up.
    ///
    /// # Errors
    ///
    /// Those of [`Request::get`], and [`CallerError::NoSelector`], of a pod too.
    pub async fn selector(&self, namespace: &str, target: &ForwardTarget) -> Result<String> {
        Ok(selects(self, namespace, target).await?.0)
    }
}

fn pods(client: &Client, namespace: &str) -> Request {
    let pods = client.request(Resource::namespaced("", "v1", "pods"));
    pods.namespace(namespace).timeout(limits::FORWARD_LOOK)
}

impl Destination {
    /// Whether the pod is certainly gone, or about to go. One that cannot be asked about is not.
    pub(super) async fn is_gone(&self, client: &Client) -> bool {
        let Some(known) = &self.object else {
            return false;
        };
        let pods = pods(client, self.pod.namespace());
        match pods.get::<pod::Pod>(self.pod.name()).await {
            Ok(now) => now.uid() != known.uid() || !now.is_running(),
            Err(Error::Api(refusal)) => refusal.status.code == 404,
            Err(_) => false,
        }
    }

    /// Whether the other is the same pod, as far as is known.
    pub(super) fn is_pod_of(&self, other: &Self) -> bool {
        let uid = |of: &Self| of.object.as_ref().map(|object| object.uid().to_owned());
        self.pod.name() == other.pod.name() && uid(self) == uid(other)
    }

    /// What a port means.
    pub(super) async fn port(
        &mut self,
        client: &Client,
        port: &ForwardPort,
    ) -> Result<ResolvedPort> {
        if let (None, ForwardPort::Name(_)) = (&self.object, port) {
            let pods = pods(client, self.pod.namespace());
            self.object = Some(pods.get(self.pod.name()).await?);
        }
        let object = self.object.as_ref();
        lookup(port, self.service.as_ref(), |name| object?.port(name)).ok_or_else(|| {
            let (of, name) = match self.service {
                Some(_) => ("the service or its pod", self.pod.name()),
                None => ("the pod", self.pod.name()),
            };
            CallerError::NoPort {
                object: format!("{of} {name}"),
                port: port.to_string(),
            }
            .into()
        })
    }
}

/// `LookupContainerPortNumberByServicePort` of `k8s.io/kubectl/pkg/util/service_port.go`.
fn lookup<'a>(
    port: &'a ForwardPort,
    service: Option<&'a ServiceObject>,
    named: impl Fn(&str) -> Option<u16>,
) -> Option<ResolvedPort> {
    let Some(service) = service else {
        let number = match port {
            ForwardPort::Number(number) => *number,
            ForwardPort::Name(name) => named(name)?,
        };
        return Some(ResolvedPort {
            target: number,
            pod: number,
        });
    };
    let found = service.spec.ports.iter().find(|known| {
        known.protocol == Protocol::Tcp
            && match port {
                ForwardPort::Number(number) => known.port == *number,
                ForwardPort::Name(name) => known.name == *name,
            }
    })?;
    let pod = match &found.target_port {
        // Without an address of its own a service redirects nothing.
        _ if service.spec.cluster_ip == "None" => found.port,
        None | Some(TargetPort::Number(0)) => found.port,
        Some(TargetPort::Number(number)) => *number,
        Some(TargetPort::Name(name)) => named(name)?,
    };
    Some(ResolvedPort {
        target: found.port,
        pod,
    })
}

/// Of the pods that run, the one that is to stay, or that has been ready for longest, or any.
fn choose(pods: Vec<pod::Pod>, keep: Option<&str>) -> Option<pod::Pod> {
    let running = pods.into_iter().filter(pod::Pod::is_running);
    running.min_by_key(|pod| {
        let ready = pod.ready_since().map(str::to_owned);
        let kept = keep == Some(pod.uid());
        // RFC 3339 in UTC: earlier times sort first.
        (
            Reverse(ready.is_some()),
            Reverse(kept),
            ready,
            pod.name().to_owned(),
        )
    })
}

/// A selector as a query has it, from equal labels.
fn labels(labels: &BTreeMap<String, String>) -> String {
    let terms: Vec<_> = labels
        .iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    terms.join(",")
}

/// The same from `spec.selector`, which is a plain map in a replicationcontroller. Empty for one
/// that cannot be understood.
fn selector(selector: &Value) -> String {
    let structured = ["matchLabels", "matchExpressions"];
    if !structured.iter().any(|key| selector.get(key).is_some()) {
        let plain = BTreeMap::deserialize(selector);
        return plain.as_ref().map(labels).unwrap_or_default();
    }
    let Ok(selector) = LabelSelector::deserialize(selector) else {
        return String::new();
    };
    let mut terms = vec![labels(&selector.match_labels)];
    for Requirement {
        key,
        operator,
        values,
    } in selector.match_expressions
    {
        let values = values.join(",");
        terms.push(match operator.as_str() {
            "In" => format!("{key} in ({values})"),
            "NotIn" => format!("{key} notin ({values})"),
            "Exists" => key,
            "DoesNotExist" => format!("!{key}"),
            _ => return String::new(),
        });
    }
    terms.retain(|term| !term.is_empty());
    terms.join(",")
}

#[cfg(test)]
mod tests {
    use serde_json::{from_value, json};

    use super::*;

    fn pod(name: &str, change: Value) -> pod::Pod {
        let mut object = json!({
            "metadata": {"name": name, "uid": format!("uid of {name}")},
            "spec": {"containers": []},
            "status": {"phase": "Running", "conditions": []},
        });
        for (part, fields) in change.as_object().unwrap() {
            for (key, value) in fields.as_object().unwrap() {
                object[part][key] = value.clone();
            }
        }
        from_value(object).unwrap()
    }

    fn ready(since: &str) -> Value {
        json!({"conditions": [
            {"type": "Initialized", "status": "True"},
            {"type": "Ready", "status": "True", "lastTransitionTime": since},
        ]})
    }

    fn chosen(pods: &[pod::Pod], keep: Option<&str>) -> Option<String> {
        choose(pods.to_vec(), keep).map(|pod| pod.name().to_owned())
    }

    #[test]
    fn the_pod_that_has_been_ready_for_longest_is_taken() {
        let mut pods = vec![
            pod("pending", json!({"status": {"phase": "Pending"}})),
            pod("done", json!({"status": {"phase": "Succeeded"}})),
        ];
        assert_eq!(chosen(&pods, None), None);
        pods.push(pod("unready", json!({})));
        assert_eq!(chosen(&pods, None).unwrap(), "unready");
        pods.push(pod(
            "young",
            json!({"status": ready("2026-02-02T00:00:00Z")}),
        ));
        pods.push(pod("old", json!({"status": ready("2026-01-02T00:00:00Z")})));
        pods.push(pod(
            "leaving",
            json!({
                "metadata": {"deletionTimestamp": "2026-03-01T00:00:00Z"},
                "status": ready("2025-01-01T00:00:00Z"),
            }),
        ));
        assert_eq!(chosen(&pods, None).unwrap(), "old");
        assert_eq!(chosen(&pods, Some("uid of young")).unwrap(), "young");
        assert_eq!(chosen(&pods, Some("uid of leaving")).unwrap(), "old");
        assert_eq!(chosen(&pods, Some("uid of unready")).unwrap(), "old");
    }

    #[test]
    fn ports_of_a_service_lead_to_those_of_its_pod() {
        let pod = pod(
            "web-0",
            json!({"spec": {
                "containers": [
                    {"name": "a", "ports": [{"name": "dns", "containerPort": 53, "protocol": "UDP"}]},
                    {"name": "b", "ports": [{"name": "web", "containerPort": 8000, "protocol": "TCP"}]},
                ],
                "initContainers": [
                    {"name": "c", "ports": [{"name": "setup", "containerPort": 1}]},
                    {"name": "d", "restartPolicy": "Always", "ports": [{"name": "mesh", "containerPort": 15000}]},
                ],
            }}),
        );
        let mut service: ServiceObject = from_value(json!({"spec": {
            "clusterIP": "10.0.0.1",
            "ports": [
                {"name": "dns", "port": 53, "protocol": "UDP", "targetPort": 53},
                {"name": "http", "port": 80, "protocol": "TCP", "targetPort": "web"},
                {"name": "admin", "port": 81, "targetPort": 9000},
                {"name": "same", "port": 82},
                {"name": "lost", "port": 83, "targetPort": "nothing"},
            ],
        }}))
        .unwrap();
        let of = |port: ForwardPort, service: Option<&ServiceObject>| {
            let found = lookup(&port, service, |name| pod.port(name));
            found.map(|found| (found.target, found.pod))
        };
        assert_eq!(of(80.into(), Some(&service)), Some((80, 8000)));
        assert_eq!(of("http".into(), Some(&service)), Some((80, 8000)));
        assert_eq!(of("admin".into(), Some(&service)), Some((81, 9000)));
        assert_eq!(of(82.into(), Some(&service)), Some((82, 82)));
        for wrong in [
            53.into(),
            "dns".into(),
            83.into(),
            8000.into(),
            "web".into(),
        ] {
            assert_eq!(of(wrong, Some(&service)), None);
        }
        service.spec.cluster_ip = "None".into();
        assert_eq!(of("http".into(), Some(&service)), Some((80, 80)));

        assert_eq!(of(1234.into(), None), Some((1234, 1234)));
        assert_eq!(of("web".into(), None), Some((8000, 8000)));
        assert_eq!(of("mesh".into(), None), Some((15000, 15000)));
        for wrong in ["dns", "setup", "http"] {
            assert_eq!(of(wrong.into(), None), None);
        }
    }

    #[test]
    fn selectors_of_all_forms_become_queries() {
        for (object, query) in [
            (json!({"matchLabels": {"a": "b", "c": "d"}}), "a=b,c=d"),
            (
                json!({"matchLabels": {"a": "b"}, "matchExpressions": [
                    {"key": "t", "operator": "In", "values": ["x", "y"]},
                    {"key": "u", "operator": "NotIn", "values": ["z"]},
                    {"key": "v", "operator": "Exists"},
                    {"key": "w", "operator": "DoesNotExist"},
                ]}),
                "a=b,t in (x,y),u notin (z),v,!w",
            ),
            (json!({"app": "old"}), "app=old"),
            (
                json!({"matchExpressions": [{"key": "t", "operator": "Gt"}]}),
                "",
            ),
            (json!({}), ""),
            (Value::Null, ""),
        ] {
            assert_eq!(selector(&object), query, "{object}");
        }
    }
}

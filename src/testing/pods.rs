//! The pods of a server, and the choice of a container in one.

use std::{collections::BTreeMap, sync::Arc};

use serde_json::{Value, json};

use super::{builder::RestartPolicy, container::Container, store::Object};
use crate::server::Refusal;

/// A pod with its running containers.
#[derive(Debug)]
pub(super) struct Pod {
    pub(super) namespace: String,
    pub(super) name: String,
    labels: BTreeMap<String, String>,
    annotations: BTreeMap<String, String>,
    policy: RestartPolicy,
    containers: Vec<Arc<Container>>,
}

impl Pod {
    pub(super) fn new(
        namespace: String,
        name: String,
        labels: BTreeMap<String, String>,
        annotations: BTreeMap<String, String>,
        policy: RestartPolicy,
        containers: Vec<Arc<Container>>,
    ) -> Self {
        Self {
            namespace,
            name,
            labels,
            annotations,
            policy,
            containers,
        }
    }

    /// The container that a request means, or the refusal of
    /// `k8s.io/kubernetes/pkg/registry/core/pod/strategy.go` (`validateContainer`).
    pub(super) fn container(&self, name: Option<&str>) -> Result<&Arc<Container>, Refusal> {
        let pod = &self.name;
        match (name, &self.containers[..]) {
            (Some(name), all) => all
                .iter()
                .find(|known| known.name() == name)
                .ok_or_else(|| {
                    Refusal::bad_request(format!("container {name} is not valid for pod {pod}"))
                }),
            (None, [only]) => Ok(only),
            (None, []) => Err(Refusal::bad_request(format!(
                "a container name must be specified for pod {pod}"
            ))),
            (None, several) => {
                let names: Vec<_> = several.iter().map(|known| known.name()).collect();
                Err(Refusal::bad_request(format!(
                    "a container name must be specified for pod {pod}, choose one of: [{}]",
                    names.join(" ")
                )))
            }
        }
    }

    pub(super) fn containers(&self) -> impl Iterator<Item = &Arc<Container>> {
        self.containers.iter()
    }

    pub(super) fn to_object(&self) -> Object {
        Object::new(self.to_json())
    }

    /// The pod's object, as far as there is anything to say.
    pub(super) fn to_json(&self) -> Value {
        let containers = self.containers.iter();
        json!({
            "kind": "Pod",
            "apiVersion": "v1",
            "metadata": {
                "name": self.name,
                "namespace": self.namespace,
                "labels": self.labels,
                "annotations": self.annotations,
            },
            "spec": {
                "restartPolicy": self.policy.as_str(),
                "containers": containers.clone().map(|c| c.spec()).collect::<Vec<_>>(),
            },
            "status": {
                "phase": "Running",
                "containerStatuses": containers.map(|c| c.status()).collect::<Vec<_>>(),
            },
        })
    }
}

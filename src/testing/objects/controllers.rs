//! What a cluster's controllers do at once: in flow objects that were written, out come pods that
//! run and kinds that are served. There are no others: a Deployment makes no pods.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{
    delete, owners,
    store::{self, Object, seconds},
};
use crate::testing::{
    kinds::Kind,
    pods::{kubelet, logs},
    router::Cluster,
    values::json::{items, text},
    writes::managed::{self, Manager},
};

pub(crate) fn after(cluster: &Arc<Cluster>, kind: &Kind, before: Option<&Value>, object: &Value) {
    owners::changed(cluster, kind, before, object);
    if kind.custom.is_some() {
        return;
    }
    match (&*kind.resource.plural, before) {
        ("pods", None) => kubelet::start(cluster, object),
        ("pods", Some(before)) if is_gated(before) && !is_gated(object) => {
            kubelet::start(cluster, object);
        }
        ("namespaces", None) => furnish(cluster, text(&object["metadata"]["name"])),
        ("namespaces", Some(_)) => delete::settle(cluster, &store::key_of(&kind.resource, object)),
        ("customresourcedefinitions", _) => define(cluster, kind, object),
        _ => {}
    }
}

pub(crate) fn is_gated(pod: &Value) -> bool {
    items(&pod["spec"]["schedulingGates"]).len() > 0
}

/// Gives a namespace what a cluster's controllers put into each: the service account of its pods
/// and the certificate authority.
pub(crate) fn furnish(cluster: &Cluster, namespace: &str) {
    let put = |plural: &str, object: &mut Value, name: &str| {
        let (kind, now) = (cluster.kinds.core(plural), logs::now());
        object["apiVersion"] = "v1".into();
        object["kind"] = kind.kind.clone().into();
        let manager = Manager::part("kube-controller-manager", "");
        managed::updated(&kind, &manager, None, object, now);
        object["metadata"]["name"] = name.into();
        object["metadata"]["namespace"] = namespace.into();
        let object = Object::new(object.take());
        cluster.store.put(&kind.resource, object);
    };
    put("serviceaccounts", &mut json!({"metadata": {}}), "default");
    let about = "Contains a CA bundle that can be used to verify the kube-apiserver when using \
                 internal endpoints such as the internal service IP or kubernetes.default.svc. No \
                 other usage is guaranteed across distributions of Kubernetes clusters.";
    let mut authority = json!({
        "metadata": {"annotations": {"kubernetes.io/description": about}},
        "data": {"ca.crt": cluster.ca},
    });
    put("configmaps", &mut authority, "kube-root-ca.crt");
}

/// Serves the kinds of a definition, and says so in its status.
fn define(cluster: &Arc<Cluster>, kind: &Kind, definition: &Value) {
    for kind in Kind::of_definition(definition) {
        cluster.kinds.add(kind);
    }
    let key = store::key_of(&kind.resource, definition);
    let now = logs::now();
    cluster.store.edit(&key, |json| {
        let names = &json["spec"]["names"];
        let mut versions = items(&json["spec"]["versions"]);
        let stored = versions.find(|version| version["storage"] == true);
        let condition = |name: &str, reason: &str, message: &str| {
            json!({
                "type": name, "status": "True", "reason": reason, "message": message,
                "lastTransitionTime": seconds(now),
            })
        };
        let status = json!({
            "acceptedNames": names,
            "storedVersions": [stored.map(|version| version["name"].clone())],
            "conditions": [
                condition("NamesAccepted", "NoConflicts", "no conflicts found"),
                condition("Established", "InitialNamesAccepted",
                    "the initial names have been accepted"),
            ],
        });
        let old = &json["status"];
        if old["acceptedNames"] != status["acceptedNames"] || old["conditions"].is_null() {
            let before = json.clone();
            json["status"] = status;
            let manager = Manager::part("kube-apiserver", "status");
            managed::updated(kind, &manager, Some(&before), json, now);
        }
        false
    });
}

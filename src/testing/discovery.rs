//! What the server has: out come the documents by which kubectl finds out that `pods` is a
//! resource. They are those of `k8s.io/apiserver/pkg/endpoints/discovery`, not aggregated.

use serde_json::{Value, json};

/// The resources of `/api/v1`: name, kind, verbs.
const RESOURCES: [(&str, &str, &[&str]); 3] = [
    ("pods", "Pod", &["get"]),
    ("pods/attach", "PodAttachOptions", &["create", "get"]),
    ("pods/exec", "PodExecOptions", &["create", "get"]),
];

/// `/api`.
pub(super) fn versions() -> Value {
    json!({"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []})
}

/// `/apis`.
pub(super) fn groups() -> Value {
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": []})
}

/// `/api/v1`.
pub(super) fn resources() -> Value {
    let resources = RESOURCES.map(|(name, kind, verbs)| {
        let singular = if name == "pods" { "pod" } else { "" };
        json!({
            "name": name, "singularName": singular, "namespaced": true, "kind": kind,
            "verbs": verbs, "shortNames": if name == "pods" { json!(["po"]) } else { json!([]) },
        })
    });
    json!({
        "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": "v1",
        "resources": resources,
    })
}

//! What the server has: out come the documents by which clients find out which resources there
//! are. They are those of `k8s.io/apiserver/pkg/endpoints/discovery`, not aggregated.

use serde_json::{Value, json};

use super::store::Known;

/// The resources of `/api/v1` that are always there: name, kind, verbs.
const RESOURCES: [(&str, &str, &[&str]); 5] = [
    ("pods", "Pod", &VERBS),
    ("pods/attach", "PodAttachOptions", &["create", "get"]),
    ("pods/exec", "PodExecOptions", &["create", "get"]),
    ("pods/log", "Pod", &["get"]),
    (
        "pods/portforward",
        "PodPortForwardOptions",
        &["create", "get"],
    ),
];

/// What can be done with objects.
const VERBS: [&str; 7] = [
    "create", "delete", "get", "list", "patch", "update", "watch",
];

/// `/api`.
pub(super) fn versions() -> Value {
    json!({"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []})
}

/// `/apis`: the groups that objects have been put into.
pub(super) fn groups(known: &[Known]) -> Value {
    let mut groups: Vec<(&str, Vec<Value>)> = Vec::new();
    for Known { resource, .. } in known {
        if resource.group.is_empty() {
            continue;
        }
        let version = json!({"groupVersion": resource.api_version(), "version": resource.version});
        match groups.iter_mut().find(|(name, _)| *name == resource.group) {
            Some((_, versions)) if versions.contains(&version) => {}
            Some((_, versions)) => versions.push(version),
            None => groups.push((&resource.group, vec![version])),
        }
    }
    let groups = groups.into_iter().map(|(name, versions)| {
        json!({"name": name, "preferredVersion": versions[0], "versions": versions})
    });
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups.collect::<Vec<_>>()})
}

/// `/api/v1` or `/apis/{group}/{version}`; `None` if there is no such version.
pub(super) fn resources(known: &[Known], group: &str, version: &str) -> Option<Value> {
    let mut resources = Vec::new();
    let is_core = (group, version) == ("", "v1");
    if is_core {
        for (name, kind, verbs) in RESOURCES {
            let singular = if name == "pods" { "pod" } else { "" };
            let short = if name == "pods" { &["po"][..] } else { &[] };
            resources.push(json!({
                "name": name, "singularName": singular, "namespaced": true, "kind": kind,
                "verbs": verbs, "shortNames": short,
            }));
        }
    }
    for Known { resource, kind, .. } in known {
        let listed = is_core && resource.plural == "pods";
        if resource.group == group && resource.version == version && !listed {
            resources.push(json!({
                "name": resource.plural, "singularName": kind.to_lowercase(),
                "namespaced": resource.namespaced, "kind": kind, "verbs": VERBS,
            }));
        }
    }
    let group_version = match group {
        "" => version.to_owned(),
        group => format!("{group}/{version}"),
    };
    (!resources.is_empty()).then(|| {
        json!({
            "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version,
            "resources": resources,
        })
    })
}

//! How lists are merged: in flows the path of a list, out come the fields by which its items are
//! told apart. All other lists are one value.

use serde_json::Value;

use super::kinds::Kind;

/// How the items of a list are told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Keys {
    /// By these fields; the first alone for a strategic merge patch.
    Map(&'static [&'static str]),
    /// By themselves.
    Set,
}

/// The lists of built-in kinds that are merged, by the end of their path: `patchMergeKey` and
/// `listMapKey` in `k8s.io/api`.
const LISTS: &[(&[&str], Keys)] = &[
    (&["containers"], Keys::Map(&["name"])),
    (&["initContainers"], Keys::Map(&["name"])),
    (&["ephemeralContainers"], Keys::Map(&["name"])),
    (
        &["containers", "ports"],
        Keys::Map(&["containerPort", "protocol"]),
    ),
    (
        &["initContainers", "ports"],
        Keys::Map(&["containerPort", "protocol"]),
    ),
    (
        &["ephemeralContainers", "ports"],
        Keys::Map(&["containerPort", "protocol"]),
    ),
    (&["env"], Keys::Map(&["name"])),
    (&["volumeMounts"], Keys::Map(&["mountPath"])),
    (&["volumeDevices"], Keys::Map(&["devicePath"])),
    (&["spec", "volumes"], Keys::Map(&["name"])),
    (&["spec", "ports"], Keys::Map(&["port", "protocol"])),
    (&["spec", "resourceClaims"], Keys::Map(&["name"])),
    (&["imagePullSecrets"], Keys::Map(&["name"])),
    (&["secrets"], Keys::Map(&["name"])),
    (&["hostAliases"], Keys::Map(&["ip"])),
    (
        &["topologySpreadConstraints"],
        Keys::Map(&["topologyKey", "whenUnsatisfiable"]),
    ),
    (&["status", "conditions"], Keys::Map(&["type"])),
    (&["status", "podIPs"], Keys::Map(&["ip"])),
    (&["status", "addresses"], Keys::Map(&["type"])),
    (&["metadata", "ownerReferences"], Keys::Map(&["uid"])),
    (&["metadata", "finalizers"], Keys::Set),
];

/// Maps that are one value (`+structType=atomic`, `+mapType=atomic`).
const ATOMIC: &[&str] = &[
    "selector",
    "labelSelector",
    "namespaceSelector",
    "podSelector",
    "nodeSelector",
    "fieldRef",
    "configMapKeyRef",
    "secretKeyRef",
    "resourceFieldRef",
    "roleRef",
];

/// The lists of built-in kinds.
pub(super) fn built_in(path: &[&str]) -> Option<Keys> {
    // The longest end wins: the ports of a container are no others.
    let found = LISTS.iter().filter(|(end, _)| path.ends_with(end));
    let found = found.max_by_key(|(end, _)| end.len());
    found.map(|(_, keys)| *keys)
}

/// The schema of a field of a custom resource.
fn schema<'a>(kind: &'a Kind, path: &[&str]) -> &'a Value {
    let mut schema = kind.custom.as_ref().map_or(&Value::Null, |c| &c.schema);
    for name in path {
        if schema["items"].is_object() {
            schema = &schema["items"];
        }
        schema = match &schema["properties"][name] {
            Value::Null => &schema["additionalProperties"],
            field => field,
        };
    }
    schema
}

/// How the items of a list are told apart in an object of this kind.
pub(super) fn keys(kind: &Kind, path: &[&str]) -> Option<Vec<String>> {
    if kind.custom.is_none() || path.first() == Some(&"metadata") {
        return match built_in(path)? {
            Keys::Map(keys) => Some(keys.iter().map(|key| (*key).to_owned()).collect()),
            Keys::Set => Some(Vec::new()),
        };
    }
    let schema = schema(kind, path);
    match schema["x-kubernetes-list-type"].as_str()? {
        "set" => Some(Vec::new()),
        "map" => {
            let keys = schema["x-kubernetes-list-map-keys"].as_array()?.iter();
            Some(
                keys.filter_map(|key| key.as_str().map(str::to_owned))
                    .collect(),
            )
        }
        _ => None,
    }
}

/// Whether a map is one value in an object of this kind.
pub(super) fn is_atomic(kind: &Kind, path: &[&str]) -> bool {
    match &kind.custom {
        None => path.last().is_some_and(|name| ATOMIC.contains(name)),
        Some(_) => schema(kind, path)["x-kubernetes-map-type"] == "atomic",
    }
}

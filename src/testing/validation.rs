//! Whether objects may be written: in flow objects before and after, out come the fields that are
//! invalid (`k8s.io/apimachinery/pkg/api/validation/objectmeta.go`).

use serde_json::{Value, json};

use super::{
    kinds::{Kind, NameRule},
    target::Invalid,
};

/// Bytes of all annotations: `TotalAnnotationSizeLimitB`.
const ANNOTATIONS: usize = 256 << 10;

/// Whether a text is made of these characters and begins and ends with a letter or a digit.
fn is_made_of(text: &str, limit: usize, is_inner: impl Fn(u8) -> bool, upper: bool) -> bool {
    let is_outer = |byte: &u8| match upper {
        true => byte.is_ascii_alphanumeric(),
        false => byte.is_ascii_lowercase() || byte.is_ascii_digit(),
    };
    let bytes = text.as_bytes();
    text.len() <= limit
        && bytes.first().is_some_and(is_outer)
        && bytes.last().is_some_and(is_outer)
        && bytes.iter().all(|byte| is_outer(byte) || is_inner(*byte))
}

pub(super) fn is_label(text: &str) -> bool {
    is_made_of(text, 63, |byte| byte == b'-', false)
}

pub(super) fn is_subdomain(text: &str) -> bool {
    text.len() <= 253
        && text
            .split('.')
            .all(|part| is_made_of(part, 253, |b| b == b'-', false))
}

fn is_qualified(text: &str) -> bool {
    is_made_of(text, 63, |byte| matches!(byte, b'-' | b'_' | b'.'), true)
}

/// A key of a label or an annotation.
pub(super) fn is_label_key(text: &str) -> bool {
    match text.split_once('/') {
        Some((prefix, name)) => is_subdomain(prefix) && is_qualified(name),
        None => is_qualified(text),
    }
}

pub(super) fn is_label_value(text: &str) -> bool {
    text.is_empty() || is_qualified(text)
}

const SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric \
    characters, '-' or '.', and must start and end with an alphanumeric character (e.g. \
    'example.com', regex used for validation is \
    '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";

const LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters \
    or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', \
    regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";

const QUALIFIED: &str = "name part must consist of alphanumeric characters, '-', '_' or '.', and \
    must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or \
    '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";

const LABEL_VALUE: &str = "a valid label must be an empty string or consist of alphanumeric \
    characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. \
    'MyValue',  or 'my_value',  or '12345', regex used for validation is \
    '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";

/// What is wrong with a name, if anything is.
fn name_fault(rule: NameRule, name: &str) -> Option<String> {
    let (is_valid, limit, why) = match rule {
        NameRule::Label => (is_label(name), 63, LABEL),
        NameRule::Subdomain => (is_subdomain(name), 253, SUBDOMAIN),
        NameRule::PathSegment => {
            // `k8s.io/apimachinery/pkg/api/validation/path/name.go`.
            let fault = match name {
                "." | ".." => format!("may not be '{name}'"),
                _ => {
                    let bad = name
                        .chars()
                        .find(|character| matches!(character, '/' | '%'))?;
                    format!("may not contain '{bad}'")
                }
            };
            return Some(fault);
        }
    };
    match () {
        () if is_valid => None,
        () if name.len() > limit => Some(format!("must be no more than {limit} bytes")),
        () => Some(why.to_owned()),
    }
}

fn quoted(text: &str) -> String {
    format!("{text:?}")
}

/// What is wrong with an object's metadata.
pub(super) fn metadata(kind: &Kind, object: &Value) -> Vec<Invalid> {
    let metadata = &object["metadata"];
    let mut faults = Vec::new();
    let name = metadata["name"].as_str().unwrap_or_default();
    if name.is_empty() {
        let why = "name or generateName is required";
        faults.push(Invalid::required("metadata.name", why));
    } else if let Some(why) = name_fault(kind.name_rule(), name) {
        faults.push(Invalid::value("metadata.name", &quoted(name), &why));
    }
    let pairs = |field: &str| metadata[field].as_object().into_iter().flatten();
    for (field, what) in [("labels", true), ("annotations", false)] {
        let mut size = 0;
        for (key, value) in pairs(field) {
            let path = format!("metadata.{field}");
            let Some(text) = value.as_str() else {
                faults.push(Invalid::value(path, &value.to_string(), "must be a string"));
                continue;
            };
            size += key.len() + text.len();
            let is_key = match what {
                true => is_label_key(key),
                // Annotations are compared in lower case.
                false => is_label_key(&key.to_lowercase()),
            };
            if !is_key {
                faults.push(Invalid::value(path, &quoted(key), QUALIFIED));
            } else if what && !is_label_value(text) {
                faults.push(Invalid::value(path, &quoted(text), LABEL_VALUE));
            }
        }
        if !what && size > ANNOTATIONS {
            faults.push(Invalid {
                field: "metadata.annotations".to_owned(),
                reason: "FieldValueTooLong",
                message: format!("Too long: may not be more than {ANNOTATIONS} bytes"),
            });
        }
    }
    for finalizer in texts(&metadata["finalizers"]) {
        if !is_label_key(finalizer) {
            let field = "metadata.finalizers";
            faults.push(Invalid::value(field, &quoted(finalizer), QUALIFIED));
        }
    }
    let owners = metadata["ownerReferences"].as_array().into_iter().flatten();
    for (at, owner) in owners.enumerate() {
        for field in ["apiVersion", "kind", "name", "uid"] {
            if owner[field].as_str().is_none_or(str::is_empty) {
                let path = format!("metadata.ownerReferences[{at}].{field}");
                let why = format!("{field} must not be empty");
                faults.push(Invalid::value(path, "\"\"", &why));
            }
        }
    }
    faults
}

pub(super) fn texts(value: &Value) -> impl Iterator<Item = &str> {
    let values = value.as_array().into_iter().flatten();
    values.filter_map(Value::as_str)
}

/// Keeps the server's part of the metadata, and says what was wrong with the attempt to change it.
pub(super) fn keep_metadata(before: &Value, after: &mut Value) -> Vec<Invalid> {
    let mut faults = Vec::new();
    let old = &before["metadata"];
    for field in [
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
    ] {
        let new = &after["metadata"][field];
        if !new.is_null() && *new != old[field] {
            let value = match new {
                Value::String(text) => quoted(text),
                other => other.to_string(),
            };
            let path = format!("metadata.{field}");
            faults.push(Invalid::value(path, &value, "field is immutable"));
        }
    }
    if !old["deletionTimestamp"].is_null() {
        let known: Vec<_> = texts(&old["finalizers"]).collect();
        let new = texts(&after["metadata"]["finalizers"]);
        let added: Vec<_> = new
            .filter(|name| !known.contains(name))
            .map(quoted)
            .collect();
        if !added.is_empty() {
            let why = format!(
                "no new finalizers can be added if the object is being deleted, found new \
                 finalizers []string{{{}}}",
                added.join(", ")
            );
            faults.push(Invalid::forbidden("metadata.finalizers", &why));
        }
    }
    if !after["metadata"].is_object() {
        after["metadata"] = json!({});
    }
    let kept = [
        "uid",
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "resourceVersion",
        "generation",
        "managedFields",
    ];
    for field in kept {
        let metadata = after["metadata"].as_object_mut();
        match (metadata, &old[field]) {
            (Some(metadata), Value::Null) => drop(metadata.remove(field)),
            (Some(metadata), value) => drop(metadata.insert(field.to_owned(), value.clone())),
            (None, _) => {}
        }
    }
    faults
}

/// Fields that must be there.
const REQUIRED: &[(&str, &str)] = &[
    ("pods", "/spec/containers"),
    ("deployments", "/spec/selector"),
    ("deployments", "/spec/template/spec/containers"),
    ("replicasets", "/spec/selector"),
    ("daemonsets", "/spec/selector"),
    ("daemonsets", "/spec/template/spec/containers"),
    ("statefulsets", "/spec/selector"),
    ("statefulsets", "/spec/template/spec/containers"),
    ("jobs", "/spec/template/spec/containers"),
    ("cronjobs", "/spec/schedule"),
    ("rolebindings", "/roleRef/name"),
    ("clusterrolebindings", "/roleRef/name"),
    ("storageclasses", "/provisioner"),
    ("persistentvolumeclaims", "/spec/accessModes"),
    ("customresourcedefinitions", "/spec/group"),
    ("customresourcedefinitions", "/spec/names/plural"),
    ("customresourcedefinitions", "/spec/names/kind"),
    ("customresourcedefinitions", "/spec/scope"),
    ("customresourcedefinitions", "/spec/versions"),
];

/// What a built-in kind lacks.
pub(super) fn required(kind: &Kind, object: &Value) -> Vec<Invalid> {
    let plural = &*kind.resource.plural;
    let paths = REQUIRED
        .iter()
        .filter(|(of, _)| kind.custom.is_none() && *of == plural);
    let mut faults = Vec::new();
    for (_, path) in paths {
        let there = object.pointer(path);
        if there.is_none_or(|value| value.is_null() || *value == json!([]) || value == "") {
            faults.push(Invalid::required(path[1..].replace('/', "."), ""));
        }
        if path.ends_with("/containers") {
            let containers = there.and_then(Value::as_array).into_iter().flatten();
            for (at, container) in containers.enumerate() {
                for field in ["name", "image"] {
                    if container[field].as_str().is_none_or(str::is_empty) {
                        let path = format!("{}[{at}].{field}", path[1..].replace('/', "."));
                        faults.push(Invalid::required(path, ""));
                    }
                }
            }
        }
    }
    faults
}

/// Fields that cannot be changed once they are set.
const IMMUTABLE: &[(&str, &str)] = &[
    ("deployments", "/spec/selector"),
    ("replicasets", "/spec/selector"),
    ("daemonsets", "/spec/selector"),
    ("statefulsets", "/spec/selector"),
    ("statefulsets", "/spec/serviceName"),
    ("statefulsets", "/spec/volumeClaimTemplates"),
    ("statefulsets", "/spec/podManagementPolicy"),
    ("jobs", "/spec/template"),
    ("jobs", "/spec/selector"),
    ("jobs", "/spec/completionMode"),
    ("secrets", "/type"),
    ("services", "/spec/clusterIP"),
    ("storageclasses", "/provisioner"),
    ("storageclasses", "/parameters"),
    ("rolebindings", "/roleRef"),
    ("clusterrolebindings", "/roleRef"),
    ("priorityclasses", "/value"),
    ("customresourcedefinitions", "/spec/group"),
    ("customresourcedefinitions", "/spec/names/plural"),
    ("customresourcedefinitions", "/spec/scope"),
];

/// What was changed that cannot be.
pub(super) fn immutable(kind: &Kind, before: &Value, after: &Value) -> Vec<Invalid> {
    let mut faults = Vec::new();
    if kind.custom.is_some() {
        return faults;
    }
    let plural = &*kind.resource.plural;
    let get = |object: &Value, path| object.pointer(path).cloned().unwrap_or_default();
    let paths = IMMUTABLE.iter().filter(|(of, _)| *of == plural);
    for (_, path) in paths {
        let (old, new) = (get(before, path), get(after, path));
        if !old.is_null() && old != new {
            let field = path[1..].replace('/', ".");
            faults.push(Invalid::value(
                field,
                &new.to_string(),
                "field is immutable",
            ));
        }
    }
    if before["immutable"] == true {
        for field in ["data", "binaryData", "stringData", "immutable"] {
            if before[field] != after[field] {
                let why = "field is immutable when `immutable` is set";
                faults.push(Invalid::forbidden(field, why));
            }
        }
    }
    if kind.is_core("pods") && fixed(&before["spec"]) != fixed(&after["spec"]) {
        let why = "pod updates may not change fields other than `spec.containers[*].image`,\
                   `spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,\
                   `spec.tolerations` (only additions to existing tolerations),\
                   `spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was \
                   previously negative)";
        faults.push(Invalid::forbidden("spec", why));
    }
    faults
}

/// What of a pod's spec cannot be changed (`ValidatePodUpdate`).
fn fixed(spec: &Value) -> Value {
    let mut spec = spec.clone();
    for list in ["containers", "initContainers"] {
        for container in spec[list].as_array_mut().into_iter().flatten() {
            container["image"] = Value::Null;
        }
    }
    for field in ["activeDeadlineSeconds", "tolerations", "initContainers"] {
        if spec[field].as_array().is_none_or(Vec::is_empty) || field == "tolerations" {
            spec[field] = Value::Null;
        }
    }
    spec
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked_as_the_api_server_does() {
        for (rule, name, is_valid) in [
            (NameRule::Subdomain, "web-0.example", true),
            (NameRule::Subdomain, "Web", false),
            (NameRule::Subdomain, "a_b", false),
            (NameRule::Subdomain, "a..b", false),
            (NameRule::Subdomain, "-a", false),
            (NameRule::Label, "a.b", false),
            (NameRule::Label, "a-b", true),
            (NameRule::PathSegment, "system:node", true),
            (NameRule::PathSegment, "a/b", false),
            (NameRule::PathSegment, "..", false),
        ] {
            assert_eq!(name_fault(rule, name).is_none(), is_valid, "{name}");
        }
        assert!(name_fault(NameRule::Label, &"a".repeat(64)).is_some());
        assert!(is_label_key("app.kubernetes.io/name") && !is_label_key("a/b/c"));
        assert!(is_label_value("") && !is_label_value("a b"));
    }
}

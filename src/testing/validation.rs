//! Whether objects may be written: in flow objects before and after, out come the fields that are
//! invalid (`k8s.io/apimachinery/pkg/api/validation/objectmeta.go`).

use serde_json::Value;

use super::{
    checks,
    json::{items, items_mut, members, set, some, text, texts},
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

fn is_label(text: &str) -> bool {
    is_made_of(text, 63, |byte| byte == b'-', false)
}

fn is_subdomain(text: &str) -> bool {
    text.len() <= 253
        && text
            .split('.')
            .all(|part| is_made_of(part, 253, |b| b == b'-', false))
}

fn is_qualified(text: &str) -> bool {
    let is_inner = |byte| matches!(byte, b'-' | b'_' | b'.');
    is_made_of(text, usize::MAX, is_inner, true)
}

/// What is wrong with a key of a label or an annotation, or a finalizer
/// (`k8s.io/apimachinery/pkg/api/validate/content/kube.go`, `IsLabelKey`).
pub(super) fn key_faults(text: &str, what: &str) -> Vec<String> {
    let mut faults = Vec::new();
    let name = match text.split('/').collect::<Vec<_>>()[..] {
        [name] => name,
        [prefix, name] => {
            match prefix {
                "" => faults.push("prefix part must be non-empty".to_owned()),
                prefix => {
                    let fault = name_fault(NameRule::Subdomain, prefix);
                    faults.extend(fault.map(|why| format!("prefix part {why}")));
                }
            }
            name
        }
        _ => {
            let prefix =
                "with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')";
            return vec![format!("{what} {QUALIFIED} {prefix}")];
        }
    };
    match name.len() {
        0 => faults.push("name part must be non-empty".to_owned()),
        64.. => faults.push("name part must be no more than 63 bytes".to_owned()),
        _ => {}
    }
    if !is_qualified(name) {
        faults.push(format!("name part {QUALIFIED}"));
    }
    faults
}

pub(super) fn label_value_fault(text: &str) -> Option<&'static str> {
    match text.len() {
        64.. => Some("must be no more than 63 bytes"),
        1.. if !is_qualified(text) => Some(LABEL_VALUE),
        _ => None,
    }
}

const SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric \
    characters, '-' or '.', and must start and end with an alphanumeric character (e.g. \
    'example.com', regex used for validation is \
    '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";

const LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters \
    or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', \
    regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";

const QUALIFIED: &str = "must consist of alphanumeric characters, '-', '_' or '.', and must start \
    and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex \
    used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";

const LABEL_VALUE: &str = "a valid label must be an empty string or consist of alphanumeric \
    characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. \
    'MyValue',  or 'my_value',  or '12345', regex used for validation is \
    '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";

pub(super) const CONFIG_KEY: &str = "a valid config key must consist of alphanumeric characters, '-', '_' or '.' \
    (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is \
    '[-._a-zA-Z0-9]+')";

/// What is wrong with a name, if anything is.
pub(super) fn name_fault(rule: NameRule, name: &str) -> Option<String> {
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
        // Nothing else can be wrong with it.
        () if rule == NameRule::Label && name.len() <= limit && is_subdomain(name) => {
            Some("must not contain dots".to_owned())
        }
        () if name.len() > limit => Some(format!("must be no more than {limit} characters")),
        () => Some(why.to_owned()),
    }
}

/// What is wrong with an object's metadata.
pub(super) fn metadata(kind: &Kind, object: &Value) -> Vec<Invalid> {
    let metadata = &object["metadata"];
    let mut faults = Vec::new();
    let mut invalid = |field: &str, value: &str, why: &str| {
        faults.push(Invalid::value(
            format!("metadata.{field}"),
            &format!("{value:?}"),
            why,
        ));
    };
    let name = text(&metadata["name"]);
    // What is generated may have any end, and so its front has another.
    let front = text(&metadata["generateName"]);
    let whole = front.strip_suffix('-').map(|front| format!("{front}a"));
    let whole = whole.unwrap_or_else(|| front.to_owned());
    for (field, spelled, name) in [("generateName", front, &*whole), ("name", name, name)] {
        if let Some(why) = name_fault(kind.name_rule(), name).filter(|_| !name.is_empty()) {
            invalid(field, spelled, &why);
        }
    }
    for (key, value) in members(&metadata["labels"]) {
        for why in key_faults(key, "a valid label key") {
            invalid("labels", key, &why);
        }
        if let Some(why) = label_value_fault(text(value)) {
            invalid("labels", text(value), why);
        }
    }
    let annotations = || members(&metadata["annotations"]);
    for (key, _) in annotations() {
        // Annotations are compared in lower case.
        for why in key_faults(&key.to_lowercase(), "a qualified name") {
            invalid("annotations", key, &why);
        }
    }
    for (at, finalizer) in texts(&metadata["finalizers"]).enumerate() {
        for why in key_faults(finalizer, "a qualified name") {
            invalid("finalizers", finalizer, &why);
        }
        // `k8s.io/apimachinery/pkg/api/validation/objectmeta.go`, ValidateFinalizerName.
        let is_standard = matches!(finalizer, "kubernetes" | "orphan" | "foregroundDeletion");
        if !finalizer.contains('/') && !is_standard {
            let why = "name is neither a standard finalizer name nor is it fully qualified";
            invalid(&format!("finalizers[{at}]"), finalizer, why);
        }
    }
    for (at, owner) in items(&metadata["ownerReferences"]).enumerate() {
        for field in ["apiVersion", "kind", "name", "uid"] {
            if some(&owner[field]).is_none() {
                let why = format!("{field} must not be empty");
                invalid(&format!("ownerReferences[{at}].{field}"), "", &why);
            }
        }
    }
    if name.is_empty() {
        let why = "name or generateName is required";
        faults.push(Invalid::required("metadata.name", why));
    }
    if annotations()
        .map(|(key, value)| key.len() + text(value).len())
        .sum::<usize>()
        > ANNOTATIONS
    {
        let message = format!("Too long: may not be more than {ANNOTATIONS} bytes");
        faults.push(Invalid::new(
            "metadata.annotations",
            "FieldValueTooLong",
            message,
        ));
    }
    faults
}

/// Keeps the server's part of the metadata, and says what was wrong with the attempt to change it.
pub(super) fn keep_metadata(before: &Value, after: &mut Value) -> Vec<Invalid> {
    let mut faults = Vec::new();
    let (old, new) = (&before["metadata"], &mut after["metadata"]);
    for field in ["uid", "deletionTimestamp", "deletionGracePeriodSeconds"] {
        let value = &new[field];
        if !value.is_null() && *value != old[field] {
            let path = format!("metadata.{field}");
            let fault = || Invalid::value(&*path, &value.to_string(), "field is immutable");
            // The API server checks it twice (`rest.BeforeUpdate`, and the kind's own strategy).
            faults.extend([fault(), fault()]);
        }
    }
    let known: Vec<_> = texts(&old["finalizers"]).collect();
    let added = texts(&new["finalizers"]).filter(|name| !known.contains(name));
    let added: Vec<_> = added.map(|name| format!("{name:?}")).collect();
    if !old["deletionTimestamp"].is_null() && !added.is_empty() {
        let why = format!(
            "no new finalizers can be added if the object is being deleted, found new finalizers \
             []string{{{}}}",
            added.join(", ")
        );
        faults.push(Invalid::forbidden("metadata.finalizers", &why));
    }
    for field in [
        "uid",
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "resourceVersion",
        "generation",
        "managedFields",
    ] {
        set(new, field, &old[field]);
    }
    faults
}

/// What was changed that cannot be.
pub(super) fn immutable(kind: &Kind, before: &Value, after: &Value) -> Vec<Invalid> {
    let mut faults = checks::changed(kind, before, after);
    if kind.custom.is_none() && before["immutable"] == true {
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
        for container in items_mut(&mut spec[list]) {
            container["image"] = Value::Null;
        }
    }
    for field in ["activeDeadlineSeconds", "tolerations"] {
        spec[field] = Value::Null;
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
        let is_key = |key| key_faults(key, "").is_empty();
        assert!(is_key("app.kubernetes.io/name") && !is_key("a/b/c") && !is_key("/b"));
        assert!(label_value_fault("").is_none() && label_value_fault("a b").is_some());
    }
}

//! Selectors: in flows the text of a label or field selector, out come requirements that an
//! object's labels or fields meet or do not.

use serde_json::Value;

use super::{
    kinds::Kind,
    validation::{is_label_key, is_label_value},
};
use crate::server::Refusal;

/// One part of a selector.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Requirement {
    Is(String, String),
    IsNot(String, String),
    In(String, Vec<String>),
    NotIn(String, Vec<String>),
    Exists(String),
    Missing(String),
    Greater(String, i64),
    Less(String, i64),
}

impl Requirement {
    pub(super) fn matches(&self, get: impl Fn(&str) -> Option<String>) -> bool {
        let number = |key: &str| get(key).and_then(|value| value.parse::<i64>().ok());
        match self {
            Self::Is(key, value) => get(key).as_ref() == Some(value),
            Self::IsNot(key, value) => get(key).as_ref() != Some(value),
            Self::In(key, values) => get(key).is_some_and(|value| values.contains(&value)),
            Self::NotIn(key, values) => !get(key).is_some_and(|value| values.contains(&value)),
            Self::Exists(key) => get(key).is_some(),
            Self::Missing(key) => get(key).is_none(),
            Self::Greater(key, than) => number(key).is_some_and(|value| value > *than),
            Self::Less(key, than) => number(key).is_some_and(|value| value < *than),
        }
    }

    fn key(&self) -> &str {
        match self {
            Self::Is(key, _) | Self::IsNot(key, _) | Self::In(key, _) | Self::NotIn(key, _) => key,
            Self::Exists(key) | Self::Missing(key) => key,
            Self::Greater(key, _) | Self::Less(key, _) => key,
        }
    }

    fn values(&self) -> &[String] {
        match self {
            Self::Is(_, value) | Self::IsNot(_, value) => std::slice::from_ref(value),
            Self::In(_, values) | Self::NotIn(_, values) => values,
            _ => &[],
        }
    }
}

/// The parts of a selector, which commas separate where they are not in parentheses.
fn split(text: &str) -> impl Iterator<Item = &str> {
    let mut depth = 0;
    let parts = text.split(move |character| {
        match character {
            '(' => depth += 1,
            ')' => depth -= 1,
            _ => {}
        }
        character == ',' && depth == 0
    });
    parts.map(str::trim)
}

/// Reads a label selector (`k8s.io/apimachinery/pkg/labels/selector.go`).
pub(super) fn labels(text: &str) -> Result<Vec<Requirement>, Refusal> {
    if text.trim().is_empty() {
        return Ok(Vec::new());
    }
    split(text).map(label).collect()
}

fn label(part: &str) -> Result<Requirement, Refusal> {
    let bad = |what: &str| Refusal::bad_request(format!("unable to parse requirement: {what}"));
    let set = |values: &str| -> Result<Vec<String>, Refusal> {
        let values = values.trim();
        let inside = values.strip_prefix('(').and_then(|v| v.strip_suffix(')'));
        let inside = inside.ok_or_else(|| bad(&format!("found '{values}', expected: '('")))?;
        Ok(inside
            .split(',')
            .map(|value| value.trim().to_owned())
            .collect())
    };
    let number = |text: &str| {
        let why = "for 'Gt', 'Lt' operators, the value must be an integer";
        text.trim()
            .parse()
            .map_err(|_| bad(&format!("values[0]: Invalid value: {text:?}: {why}")))
    };
    let own = |text: &str| text.trim().to_owned();
    let requirement = if let Some((key, value)) = part.split_once("!=") {
        Requirement::IsNot(own(key), own(value))
    } else if let Some((key, value)) = part.split_once("==").or_else(|| part.split_once('=')) {
        Requirement::Is(own(key), own(value))
    } else if let Some((key, values)) = part.split_once(" notin") {
        Requirement::NotIn(own(key), set(values)?)
    } else if let Some((key, values)) = part.split_once(" in") {
        Requirement::In(own(key), set(values)?)
    } else if let Some((key, value)) = part.split_once('>') {
        Requirement::Greater(own(key), number(value)?)
    } else if let Some((key, value)) = part.split_once('<') {
        Requirement::Less(own(key), number(value)?)
    } else if let Some(key) = part.strip_prefix('!') {
        Requirement::Missing(own(key))
    } else {
        Requirement::Exists(own(part))
    };
    let key = requirement.key();
    if !is_label_key(key) {
        return Err(bad(&format!(
            "<nil>: Invalid value: {key:?}: name part must consist of alphanumeric characters, \
             '-', '_' or '.', and must start and end with an alphanumeric character"
        )));
    }
    if let Some(value) = requirement
        .values()
        .iter()
        .find(|value| !is_label_value(value))
    {
        return Err(bad(&format!(
            "values[0][{key}]: Invalid value: {value:?}: a valid label must be an empty string or \
             consist of alphanumeric characters, '-', '_' or '.', and must start and end with an \
             alphanumeric character"
        )));
    }
    Ok(requirement)
}

/// The fields that can be selected by, besides name and namespace: `AddFieldLabelConversionsFor…`
/// in `k8s.io/kubernetes/pkg/apis/*/v1/conversion.go`.
const FIELDS: &[(&str, &[&str])] = &[
    (
        "pods",
        &[
            "spec.nodeName",
            "spec.restartPolicy",
            "spec.schedulerName",
            "spec.serviceAccountName",
            "spec.hostNetwork",
            "status.phase",
            "status.podIP",
            "status.podIPs",
            "status.nominatedNodeName",
        ],
    ),
    (
        "events",
        &[
            "involvedObject.kind",
            "involvedObject.namespace",
            "involvedObject.name",
            "involvedObject.uid",
            "involvedObject.apiVersion",
            "involvedObject.resourceVersion",
            "involvedObject.fieldPath",
            "reason",
            "reportingComponent",
            "source",
            "type",
        ],
    ),
    ("nodes", &["spec.unschedulable"]),
    ("namespaces", &["status.phase"]),
    ("secrets", &["type"]),
    ("services", &["spec.clusterIP", "spec.type"]),
    ("replicationcontrollers", &["status.replicas"]),
    ("replicasets", &["status.replicas"]),
    ("jobs", &["status.successful"]),
    ("certificatesigningrequests", &["spec.signerName"]),
];

/// Reads a field selector (`k8s.io/apimachinery/pkg/fields/selector.go`) for a kind.
pub(super) fn fields(text: &str, kind: &Kind) -> Result<Vec<Requirement>, Refusal> {
    let mut requirements = Vec::new();
    for part in text.split(',').filter(|part| !part.is_empty()) {
        let requirement = if let Some((key, value)) = part.split_once("!=") {
            Requirement::IsNot(key.to_owned(), value.to_owned())
        } else if let Some((key, value)) = part.split_once("==").or_else(|| part.split_once('=')) {
            Requirement::Is(key.to_owned(), value.to_owned())
        } else {
            let why = format!("invalid selector: '{text}'; can't understand '{part}'");
            return Err(Refusal::bad_request(why));
        };
        let key = requirement.key();
        let custom = kind.custom.is_some();
        let mut own = FIELDS
            .iter()
            .filter(|(plural, _)| !custom && kind.resource.plural == *plural);
        let selectable = kind.custom.as_ref().map(|custom| &custom.selectable[..]);
        let is_known = matches!(key, "metadata.name" | "metadata.namespace")
            || own.any(|(_, fields)| fields.contains(&key))
            || selectable
                .unwrap_or_default()
                .iter()
                .any(|known| known == key);
        if !is_known {
            return Err(Refusal::bad_request(format!(
                "field label not supported: {key}"
            )));
        }
        requirements.push(requirement);
    }
    Ok(requirements)
}

/// Whether an object is selected.
pub(super) fn selects(labels: &[Requirement], fields: &[Requirement], object: &Value) -> bool {
    let text = |value: &Value| match value {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        other => Some(other.to_string()),
    };
    let label = |key: &str| text(&object["metadata"]["labels"][key]);
    let field = |path: &str| {
        let path = format!("/{}", path.replace('.', "/"));
        Some(object.pointer(&path).and_then(text).unwrap_or_default())
    };
    labels.iter().all(|r| r.matches(label)) && fields.iter().all(|r| r.matches(field))
}

#[cfg(test)]
mod tests {
    #[test]
    fn selectors_are_those_of_labels() {
        let labels = [("app", "web"), ("tier", "front"), ("size", "3")];
        let get = |key: &str| {
            let found = labels.iter().find(|(name, _)| *name == key);
            found.map(|(_, value)| (*value).to_owned())
        };
        for (text, expected) in [
            ("", true),
            ("app=web", true),
            ("app==web,tier!=back", true),
            ("app=db", false),
            ("app in (db, web)", true),
            ("app notin (db,web)", false),
            ("other notin (db)", true),
            ("tier", true),
            ("!tier", false),
            ("!other,app in (web),tier=front", true),
            ("size>2,size<4", true),
            ("size > 3", false),
            ("other<4", false),
        ] {
            let all = super::labels(text).unwrap();
            assert_eq!(all.iter().all(|r| r.matches(get)), expected, "{text}");
        }
        for text in [
            "app in web",
            "a b",
            "app=a b",
            "=web",
            "a,,b",
            "size>x",
            "app=-",
        ] {
            let refusal = super::labels(text).unwrap_err();
            assert_eq!(refusal.code(), 400, "{text}");
        }
    }
}

//! Selectors: in flows the text of a label or field selector, out come requirements that an
//! object's labels or fields meet or do not.

use serde_json::Value;

use super::{
    kinds::Kind,
    validation::{LABEL_VALUE, QUALIFIED, is_label_key, is_label_value},
};
use crate::server::Refusal;

/// How a value is compared.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Operator {
    In,
    NotIn,
    Exists,
    Missing,
    Greater,
    Less,
}

/// One part of a selector.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Requirement {
    key: String,
    operator: Operator,
    values: Vec<String>,
}

impl Requirement {
    fn new<'a>(key: &str, operator: Operator, values: impl IntoIterator<Item = &'a str>) -> Self {
        let values = values
            .into_iter()
            .map(|value| value.trim().to_owned())
            .collect();
        Self {
            key: key.trim().to_owned(),
            operator,
            values,
        }
    }

    /// `key=value`, `key==value` or `key!=value`.
    fn equality(part: &str) -> Option<Self> {
        if let Some((key, value)) = part.split_once("!=") {
            return Some(Self::new(key, Operator::NotIn, [value]));
        }
        let (key, value) = part.split_once("==").or_else(|| part.split_once('='))?;
        Some(Self::new(key, Operator::In, [value]))
    }

    fn matches(&self, get: impl Fn(&str) -> Option<String>) -> bool {
        let value = get(&self.key);
        let is_in = value
            .as_ref()
            .is_some_and(|value| self.values.contains(value));
        let number = |text: &String| text.parse::<i64>().ok();
        let numbers = || Some((number(value.as_ref()?)?, number(self.values.first()?)?));
        match self.operator {
            Operator::In => is_in,
            Operator::NotIn => !is_in,
            Operator::Exists => value.is_some(),
            Operator::Missing => value.is_none(),
            Operator::Greater => numbers().is_some_and(|(value, than)| value > than),
            Operator::Less => numbers().is_some_and(|(value, than)| value < than),
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
    let set = |key: &str, operator, values: &str| {
        let values = values.trim();
        let inside = values.strip_prefix('(').and_then(|v| v.strip_suffix(')'));
        let inside = inside.ok_or_else(|| bad(&format!("found '{values}', expected: '('")))?;
        Ok::<_, Refusal>(Requirement::new(key, operator, inside.split(',')))
    };
    let number = |key: &str, operator, value: &str| match value.trim().parse::<i64>() {
        Ok(_) => Ok(Requirement::new(key, operator, [value])),
        Err(_) => Err(bad(&format!(
            "values[0]: Invalid value: {value:?}: for 'Gt', 'Lt' operators, the value must be an \
             integer"
        ))),
    };
    let requirement = if let Some(equality) = Requirement::equality(part) {
        equality
    } else if let Some((key, values)) = part.split_once(" notin") {
        set(key, Operator::NotIn, values)?
    } else if let Some((key, values)) = part.split_once(" in") {
        set(key, Operator::In, values)?
    } else if let Some((key, value)) = part.split_once('>') {
        number(key, Operator::Greater, value)?
    } else if let Some((key, value)) = part.split_once('<') {
        number(key, Operator::Less, value)?
    } else if let Some(key) = part.strip_prefix('!') {
        Requirement::new(key, Operator::Missing, [])
    } else {
        Requirement::new(part, Operator::Exists, [])
    };
    let key = &requirement.key;
    if !is_label_key(key) {
        return Err(bad(&format!("<nil>: Invalid value: {key:?}: {QUALIFIED}")));
    }
    match requirement
        .values
        .iter()
        .find(|value| !is_label_value(value))
    {
        None => Ok(requirement),
        Some(value) => Err(bad(&format!(
            "values[0][{key}]: Invalid value: {value:?}: {LABEL_VALUE}"
        ))),
    }
}

/// Reads a field selector (`k8s.io/apimachinery/pkg/fields/selector.go`) for a kind, whose fields
/// are those of `AddFieldLabelConversionsFor…` in `k8s.io/kubernetes/pkg/apis/*/v1/conversion.go`.
pub(super) fn fields(text: &str, kind: &Kind) -> Result<Vec<Requirement>, Refusal> {
    let mut requirements = Vec::new();
    for part in text.split(',').filter(|part| !part.is_empty()) {
        let requirement = Requirement::equality(part).ok_or_else(|| {
            let why = format!("invalid selector: '{text}'; can't understand '{part}'");
            Refusal::bad_request(why)
        })?;
        let key = &requirement.key;
        let mut selectable = kind.custom.iter().flat_map(|custom| &custom.selectable);
        let is_known = matches!(&**key, "metadata.name" | "metadata.namespace")
            || kind.rules("select").any(|(field, _)| field == key)
            || selectable.any(|field| field == key);
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

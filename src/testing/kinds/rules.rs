//! What the API server knows of built-in types besides their fields: in flow objects as clients
//! write them, out they come as Go reads and writes them, with their defaults
//! (`k8s.io/kubernetes/pkg/apis/*/v1/defaults.go`).

use std::{collections::HashMap, sync::LazyLock};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use super::{
    Kind,
    types::{self, Field, Of, Shape},
};
use crate::testing::{
    objects::store::seconds,
    pods::logs,
    values::{
        json::{items, items_mut, map, members, text},
        paths::{clear, each, fill, get, holds, segments},
        quantity, texts,
    },
};

/// A line of the table: `TYPE[CONDITIONS] RULE FIELD VALUE`.
#[derive(Debug)]
pub(crate) struct Rule {
    conditions: Vec<&'static str>,
    pub(crate) rule: &'static str,
    pub(crate) field: &'static str,
    pub(crate) value: &'static str,
}

static RULES: LazyLock<HashMap<String, Vec<Rule>>> = LazyLock::new(|| {
    let mut rules: HashMap<_, Vec<_>> = HashMap::new();
    let lines = include_str!("rules.txt").lines();
    for line in lines.filter(|line| !line.starts_with('#')) {
        let mut columns = line.splitn(4, ' ');
        let mut column = || columns.next().unwrap_or_default();
        let of = column();
        let (of, conditions) = of.split_once('[').unwrap_or((of, ""));
        let conditions = conditions.trim_end_matches(']').split(';');
        rules.entry(types::full(of)).or_default().push(Rule {
            conditions: conditions.filter(|text| !text.is_empty()).collect(),
            rule: column(),
            field: column(),
            value: column(),
        });
    }
    rules
});

/// All rules for a type.
pub(crate) fn all(name: &str) -> &'static [Rule] {
    RULES.get(name).map_or(&[], Vec::as_slice)
}

fn of(name: &str, rule: &str) -> impl Iterator<Item = &'static Rule> {
    all(name).iter().filter(move |known| known.rule == rule)
}

/// The rules of one sort for a kind as a whole.
pub(crate) fn of_kind(kind: &Kind, rule: &str) -> impl Iterator<Item = &'static Rule> {
    of(kind.type_name().unwrap_or_default(), rule)
}

impl Rule {
    pub(crate) fn holds(&self, object: &Value) -> bool {
        let mut conditions = self.conditions.iter();
        conditions.all(|condition| holds(condition, object))
    }

    /// The value, in which texts such as `$metadata/name` are those of fields, and such as
    /// `={metadata/name}List` have them in them.
    fn value(&self, object: &Value) -> Value {
        fn replace(value: &mut Value, object: &Value) {
            match value {
                Value::String(text) => {
                    if let Some(path) = text.strip_prefix('$') {
                        *value = get(object, path).clone();
                    } else if let Some(template) = text.strip_prefix('=') {
                        *value = texts::value(template, object, logs::now());
                    }
                }
                Value::Array(items) => items.iter_mut().for_each(|item| replace(item, object)),
                Value::Object(map) => map.values_mut().for_each(|item| replace(item, object)),
                _ => {}
            }
        }
        let mut value = match self.value {
            "IP" => {
                let [a, b] = rand::random::<u16>().to_be_bytes();
                return format!("10.96.{a}.{b}").into();
            }
            "NOW" => return seconds(logs::now()).into(),
            "QOS" => return quality(object).into(),
            value => serde_json::from_str(value).expect("a table of JSON"),
        };
        replace(&mut value, object);
        value
    }
}

/// `k8s.io/kubernetes/pkg/apis/core/v1/helper/qos/qos.go`.
fn quality(pod: &Value) -> &'static str {
    let spec = &pod["spec"];
    let all = || items(&spec["containers"]).chain(items(&spec["initContainers"]));
    let is_fixed = |container: &Value| {
        let resources = &container["resources"];
        ["cpu", "memory"].iter().all(|name| {
            let limit = &resources["limits"][*name];
            let request = &resources["requests"][*name];
            !limit.is_null() && (request.is_null() || request == limit)
        })
    };
    let asks = |container: &Value| {
        let resources = &container["resources"];
        members(&resources["limits"])
            .chain(members(&resources["requests"]))
            .any(|(name, _)| matches!(&**name, "cpu" | "memory"))
    };
    match () {
        () if all().all(is_fixed) => "Guaranteed",
        () if all().any(asks) => "Burstable",
        () => "BestEffort",
    }
}

/// An object of a built-in kind as the API server writes what it has read: with defaults, with
/// quantities in their one form, without what Go leaves out if it is empty and with what it does
/// not leave out.
pub(crate) fn complete(kind: &Kind, object: &mut Value) {
    // It is written and never read.
    if kind.is_core("secrets")
        && let Some(Value::Object(texts)) = map(object).remove("stringData")
    {
        for (name, value) in texts {
            object["data"][name] = STANDARD.encode(text(&value)).into();
        }
    }
    match kind.type_name() {
        Some(name) => write(name, object, true),
        // Go reads the metadata of all kinds.
        None => write(
            &types::full("meta.ObjectMeta"),
            &mut object["metadata"],
            false,
        ),
    }
    if kind.is_core("pods") {
        let is_of_host = object["spec"]["hostNetwork"] == true;
        for list in ["/spec/containers", "/spec/initContainers"] {
            for container in object.pointer_mut(list).into_iter().flat_map(items_mut) {
                inherit(&mut container["resources"], "requests", "limits");
                let ports = container.get_mut("ports").filter(|_| is_of_host);
                for port in ports.into_iter().flat_map(items_mut) {
                    let own = port["containerPort"].clone();
                    fill(port, &["hostPort"], &own);
                }
            }
        }
    }
}

/// Gives a map, by name, also what another map has.
fn inherit(object: &mut Value, field: &str, from: &str) {
    let more = object[from].clone();
    for (name, value) in members(&more) {
        let own = map(&mut object[field]).entry(name);
        own.or_insert(value.clone());
    }
}

/// What Go writes of an empty object.
pub(crate) fn empty(name: &str) -> Value {
    let mut object = json!({});
    write(name, &mut object, false);
    object
}

fn write(name: &str, object: &mut Value, with_defaults: bool) {
    let Some(fields) = object.as_object_mut() else {
        return;
    };
    let own = types::fields(name);
    fields.retain(|_, value| !value.is_null());
    // An empty list that is required is none where it has been stored, in protobuf.
    let is_stored_so = !name.contains("apiextensions");
    for field in own
        .iter()
        .filter(|field| !field.is_required() || is_stored_so && field.shape != Shape::One)
    {
        if fields
            .get(field.name)
            .is_some_and(|value| is_empty(field, value))
        {
            fields.remove(field.name);
        }
    }
    for rule in all(name).iter().filter(|_| with_defaults) {
        match rule.rule {
            "default" if rule.holds(object) => {
                let value = rule.value(object);
                fill(object, &segments(rule.field), &value);
            }
            "replace" if rule.holds(object) => {
                let (value, path) = (rule.value(object), segments(rule.field));
                clear(object, &path);
                if !value.is_null() {
                    fill(object, &path, &value);
                }
            }
            "inherit" if rule.holds(object) => inherit(object, rule.field, rule.value),
            _ => {}
        }
    }
    for field in own {
        let inner = match &field.of {
            Of::Type(inner) if field.is_inline() => {
                write(inner, object, with_defaults);
                continue;
            }
            Of::Type(inner) => Some(inner),
            Of::Scalar(_) => None,
        };
        let fields = map(object);
        if !fields.contains_key(field.name) {
            match written(field) {
                Some(value) => drop(fields.insert(field.name.to_owned(), value)),
                None => continue,
            }
        }
        let value = &mut fields[field.name];
        let mut one = |value: &mut Value| match (inner, &field.of) {
            (Some(inner), _) => {
                if field.shape != Shape::One {
                    map(value);
                }
                write(inner, value, with_defaults);
            }
            // Go reads a null in a list or a map as what is empty.
            (None, Of::Scalar('s' | 'y')) if value.is_null() && field.shape != Shape::One => {
                *value = "".into();
            }
            (None, Of::Scalar('Q')) if value.is_null() => *value = "0".into(),
            (None, Of::Scalar('Q')) => {
                let is_resource = field.shape == Shape::Map;
                let unit = if is_resource { quantity::MILLI } else { 1 };
                if let Some(canonical) = quantity::canonical(value, unit) {
                    *value = canonical.into();
                }
            }
            _ => {}
        };
        match field.shape {
            Shape::One => one(value),
            Shape::List => items_mut(value).for_each(one),
            Shape::Map => value
                .as_object_mut()
                .into_iter()
                .for_each(|map| map.values_mut().for_each(&mut one)),
        }
    }
}

/// Whether Go does not write it: it is no pointer, and has its type's zero.
fn is_empty(field: &Field, value: &Value) -> bool {
    match (field.shape, &field.of) {
        (Shape::One, _) if field.is_pointer() => false,
        (Shape::One, Of::Type(_)) => false,
        _ => {
            matches!(value, Value::Bool(false))
                || *value == json!(0)
                || *value == json!("")
                || *value == json!([])
                || *value == json!({})
        }
    }
}

/// What Go writes of a field that is not set, if it writes anything.
fn written(field: &Field) -> Option<Value> {
    let is_one = field.shape == Shape::One && !field.is_pointer();
    match &field.of {
        Of::Type(_) if is_one => Some(json!({})),
        // It is the one that is left out (`omitzero`).
        Of::Scalar('T' | 'M') if is_one && field.name != "creationTimestamp" => Some(Value::Null),
        _ if !field.is_required() => None,
        Of::Scalar('s') if is_one => Some("".into()),
        Of::Scalar('i' | 'l') if is_one => Some(0.into()),
        Of::Scalar('b') if is_one => Some(false.into()),
        _ => Some(Value::Null),
    }
}

/// Fills in what the server has to give besides defaults, which a client's replacement keeps if it
/// says nothing else, and which nobody manages.
pub(crate) fn allocate(kind: &Kind, before: Option<&Value>, object: &mut Value) {
    for rule in of_kind(kind, "drop") {
        if !rule.holds(object) {
            continue;
        }
        let kept = before.map(|before| each(before, rule.field, ""));
        if kept.is_some_and(|kept| kept == each(object, rule.field, "")) {
            clear(object, &segments(rule.field));
        }
    }
    for rule in of_kind(kind, "set") {
        if !rule.holds(object) {
            continue;
        }
        let known = before.map(|before| get(before, rule.field));
        let value = match known {
            Some(known) if !known.is_null() => known.clone(),
            _ => rule.value(object),
        };
        match value {
            Value::Null => clear(object, &segments(rule.field)),
            value => fill(object, &segments(rule.field), &value),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::checks::validation;

    /// The rules that are done here; the others are those of `checks.rs`.
    const OWN: &str = "default drop fixed immutable inherit named replace select set";
    const CHECKED: &str = "alone always apart disjoint enum equals excludes fault forbidden format \
                           invalid json least matches missing most only ordered present range \
                           refers required resources selects single size twice unique warn whole within";

    #[test]
    fn every_line_of_the_table_is_a_rule_of_a_type() {
        let asked = [
            "meta.WriteOptions",
            "meta.ListOptions",
            "core.PodLogOptions",
            "extensions.Schema",
            "meta.BuiltIn",
            "meta.Custom",
        ];
        let asked = asked.map(types::full);
        for (of, rules) in RULES.iter() {
            assert!(!types::fields(of).is_empty() || asked.contains(of), "{of}");
            for rule in rules {
                let mut known = OWN.split(' ').chain(CHECKED.split_whitespace());
                assert!(known.any(|name| name == rule.rule), "{of} {rule:?}");
                let is_value = ["default", "replace", "set"].contains(&rule.rule);
                if is_value && !["IP", "NOW", "QOS"].contains(&rule.value) {
                    let value = serde_json::from_str::<Value>(rule.value);
                    assert!(value.is_ok(), "{of} {rule:?}");
                }
                if ["always", "format", "matches"].contains(&rule.rule) {
                    assert!(validation::is_format(rule.value), "{of} {rule:?}");
                }
                for condition in &rule.conditions {
                    assert!(
                        condition.contains(['=', '!', '<', '>', '~']),
                        "{of} {rule:?}"
                    );
                }
            }
        }
        let named: usize = RULES.values().map(Vec::len).sum();
        let lines = include_str!("rules.txt").lines();
        assert_eq!(named, lines.filter(|line| !line.starts_with('#')).count());
    }
}

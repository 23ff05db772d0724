//! What is wrong with a server-side apply: in flow objects, and who owns which of their fields, out
//! come the API server's words.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::{
    managed::{Entry, Path, item_name},
    patch,
};
use crate::{
    server::Refusal,
    testing::{
        checks::schema,
        kinds::{Kind, place::Place},
        requests::target::{Invalid, failed, refusal},
        values::json::text,
    },
};

/// Refuses an object to apply that cannot be read: by the schema, or else by Go's types.
pub(super) fn check(kind: &Kind, object: &Value) -> Result<(), Refusal> {
    let mut faults = Vec::new();
    schema::check(object, schema::of(kind), "", false, &mut faults);
    let (mut typed, mut converted) = (Vec::new(), None);
    for Invalid { field, message, .. } in &faults {
        let (path, value) = found(Place::of(kind), object, field);
        match expected(value, message) {
            Ok(what) => typed.push(format!("{path}: expected {what}")),
            // Go has no type for the rest, of which the schema speaks later.
            Err(_) if kind.custom.is_some() && !field.starts_with("metadata.") => {}
            Err(why) => converted = converted.or(Some(why)),
        }
    }
    let is_within = |name: &String| faults.iter().any(|fault| name.starts_with(&fault.field));
    let unknown = schema::unknown_fields(kind, object).into_iter();
    let unknown = unknown.filter(|name| !is_within(name));
    typed.extend(unknown.map(|field| {
        let (path, _) = found(Place::of(kind), object, &field);
        format!("{path}: field not declared in schema")
    }));
    typed.sort();
    if typed.is_empty() {
        typed.extend(duplicates(Place::of(kind), object, &mut Vec::new()));
    }
    let (metadata, resource) = (&object["metadata"], &kind.resource);
    let of_kind = format!(
        "{}/{}, Kind={}",
        resource.group, resource.version, kind.kind
    );
    let (namespace, name) = (text(&metadata["namespace"]), text(&metadata["name"]));
    let of = format!("({namespace}/{name}; {of_kind})");
    let front = format!("failed to create typed patch object {of}");
    Err(failed(match (&typed[..], converted) {
        ([], None) => return Ok(()),
        ([], Some(why)) => format!(
            "failed to convert new object {of} to proper version: unable to convert unstructured \
             object to {of_kind}: {why}"
        ),
        ([one], _) => format!("{front}: {one}"),
        (several, _) => format!("{front}: errors:\n  {}", several.join("\n  ")),
    }))
}

/// A value, and the path to it with the names of items.
fn found<'a>(mut place: Place<'_>, mut value: &'a Value, field: &str) -> (String, &'a Value) {
    let mut path = String::new();
    for name in field.split(['.', '[']) {
        let name = name.trim_end_matches(']');
        value = match value {
            Value::Array(items) => {
                let item = name.parse().ok().and_then(|at: usize| items.get(at));
                let item = item.unwrap_or(&Value::Null);
                path += &match place.keys() {
                    Some(keys) => spelled(&vec![item_name(item, &keys)]),
                    None => format!("[{name}]"),
                };
                item
            }
            value => {
                path += &format!(".{name}");
                place = place.field(name);
                &value[name]
            }
        };
    }
    (path, value)
}

/// What a schema wants of a value, or why it cannot be converted though no schema minds.
fn expected(value: &Value, message: &str) -> Result<String, String> {
    let go = patch::spelled(value);
    let Some((found, wanted)) = message.split_once('\t') else {
        return match value.is_object() || value.is_array() {
            true => Ok(format!("any scalar, got &{{{go}}}")),
            false if message.contains("base64") => {
                Err(format!("error decoding from json: {message}"))
            }
            false => Err(message.to_owned()),
        };
    };
    let is_text = value.is_string();
    Ok(match wanted {
        "intstr.IntOrString" => {
            return Err(format!(
                "json: cannot unmarshal {found} into Go value of type int32"
            ));
        }
        "int32" | "int64" if value.is_f64() => return Err(schema::unconverted("number", wanted)),
        "string" if is_text => format!("string, got &value.valueUnstructured{{Value:{value}}}"),
        "string" => format!("string, got &value.valueUnstructured{{Value:{go}}}"),
        "bool" => format!("boolean, got &{{{go}}}"),
        "int32" | "int64" | "float64" => format!(
            "numeric (int or float), got {}",
            found.split(' ').next().unwrap_or(found)
        ),
        wanted if wanted.starts_with("[]") => format!("list, got &{{{go}}}"),
        _ => format!("map, got &{{{go}}}"),
    })
}

/// The items of lists that are there twice, in the words of
/// `sigs.k8s.io/structured-merge-diff/v6/typed`.
fn duplicates(place: Place<'_>, value: &Value, path: &mut Path) -> Option<String> {
    let inside = |place: Place<'_>, name: String, value: &Value, path: &mut Path| {
        path.push(name);
        let found = duplicates(place, value, path);
        path.pop();
        found
    };
    match value {
        Value::Object(map) => {
            let mut fields = map.iter();
            fields.find_map(|(name, value)| {
                inside(place.field(name), format!("f:{name}"), value, path)
            })
        }
        Value::Array(items) => {
            let keys = place.keys();
            let name = |item: &Value| keys.as_ref().map(|keys| item_name(item, keys));
            let named: Vec<_> = items.iter().map(name).collect();
            let keyless = |item: &Value| keys.iter().flatten().all(|key| item[*key].is_null());
            let keyless = items
                .iter()
                .position(keyless)
                .filter(|_| place.has_no_defaults());
            if let (Some(keys), Some(at)) = (keys.as_ref().filter(|keys| !keys.is_empty()), keyless)
            {
                let list = spelled(path);
                let keys: Vec<_> = keys.iter().map(|key| format!("{key:?}")).collect();
                let keys = keys.join(" ");
                return Some(format!(
                    "{list}: element {at}: associative list with keys has an element that omits \
                     all key fields [{keys}] (and doesn't have default values for any key fields)"
                ));
            }
            let mut all = items.iter().zip(&named);
            let found = all.find_map(|(item, name)| {
                inside(place, name.clone().unwrap_or_default(), item, path)
            });
            found.or_else(|| {
                let mut twice = (1..named.len()).filter(|at| named[..*at].contains(&named[*at]));
                let twice = twice.find_map(|at| named[at].clone())?;
                let (list, item) = (spelled(path), spelled(&vec![twice]));
                Some(format!("{list}: duplicate entries for key {item}"))
            })
        }
        _ => None,
    }
}

/// A path as messages have it: `.spec.containers[name="a"].image`.
fn spelled(path: &Path) -> String {
    let mut text = String::new();
    for element in path {
        match element.split_once(':') {
            Some(("k", keys)) => {
                let keys: Map<String, Value> = serde_json::from_str(keys).unwrap_or_default();
                let keys = keys.iter().map(|(name, value)| format!("{name}={value}"));
                text += &format!("[{}]", keys.collect::<Vec<_>>().join(","));
            }
            Some(("v", value)) => text += &format!("[={value}]"),
            Some((_, name)) => text += &format!(".{name}"),
            None => {}
        }
    }
    text
}

/// `k8s.io/apimachinery/pkg/util/managedfields/internal/conflict.go`.
pub(super) fn conflict(conflicts: &[(&Entry, &Path)]) -> Refusal {
    let manager = |entry: &Entry| {
        let name = format!("{:?}", text(&entry.json["manager"]));
        let with = match text(&entry.json["subresource"]) {
            "" => String::new(),
            subresource => format!(" with subresource {subresource:?}"),
        };
        match text(&entry.json["operation"]) {
            "Update" => format!("{name}{with} using {}", text(&entry.json["apiVersion"])),
            _ => format!("{name}{with}"),
        }
    };
    let mut by_manager: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (entry, path) in conflicts {
        by_manager
            .entry(manager(entry))
            .or_default()
            .push(spelled(path));
    }
    let one = conflicts.len() == 1;
    let parts = by_manager.iter().map(|(manager, paths)| match one {
        true => format!("conflict: conflict with {manager}: {}", paths[0]),
        false => format!("conflicts with {manager}:\n- {}", paths.join("\n- ")),
    });
    let parts = parts.collect::<Vec<_>>().join("\n");
    let between = if one { "" } else { "conflicts: " };
    let message = format!("Apply failed with {} {between}{parts}", conflicts.len());
    let causes = conflicts.iter().map(|(entry, path)| {
        let message = format!("conflict with {}", manager(entry));
        ("FieldManagerConflict", message, spelled(path))
    });
    refusal((409, "Conflict"), message, ["", "", ""], causes)
}

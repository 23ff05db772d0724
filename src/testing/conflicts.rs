//! What is wrong with a server-side apply: in flow objects, and who owns which of their fields, out
//! come the API server's words.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::{
    json::text,
    managed::{Entry, Path, item_name},
    place::Place,
    target::refusal,
};
use crate::server::Refusal;

/// The items of lists that are there twice, in the words of
/// `sigs.k8s.io/structured-merge-diff/v6/typed`.
pub(super) fn duplicates(place: Place<'_>, value: &Value, path: &mut Path) -> Option<String> {
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
            let name = |item: &Value| item_name(item, keys.as_ref()?);
            let named: Vec<_> = items.iter().map(name).collect();
            let mut all = items.iter().zip(&named);
            let mut found = all.find_map(|(item, name)| {
                inside(place, name.clone().unwrap_or_default(), item, path)
            });
            if keys.is_some() {
                let mut twice = (1..named.len()).filter(|at| named[..*at].contains(&named[*at]));
                let twice = twice.find_map(|at| named[at].clone());
                found = found.or_else(|| {
                    let (list, item) = (spelled(path), spelled(&vec![twice?]));
                    Some(format!("{list}: duplicate entries for key {item}"))
                });
            }
            found
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

//! Who owns which field: in flow an object before and after a write, out come its `managedFields`,
//! and what a server-side apply makes of it.
//!
//! It is `sigs.k8s.io/structured-merge-diff/v6/merge/update.go` over the lists of
//! the [schemas](crate::testing::checks::schema): all others are one value.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use super::conflicts;
use crate::{
    server::Refusal,
    testing::{
        kinds::{
            Kind,
            place::Place,
            rules,
            types::{self, Of, Shape},
        },
        objects::store::seconds,
        values::json::{items, list, map, members, set, some, text},
    },
    wire::stamp::Stamp,
};

/// A path as `FieldsV1` spells it: `f:spec`, `k:{"name":"a"}`, `v:"x"`.
pub(super) type Path = Vec<String>;
type Set = BTreeSet<Path>;
/// The fields of an object with their values; of an item of a list, that it is there.
type Leaves = BTreeMap<Path, Value>;

#[derive(Debug, Clone)]
pub(crate) struct Manager {
    pub(super) name: String,
    /// `Apply` or `Update`.
    pub(super) operation: &'static str,
    pub(super) subresource: String,
}

impl Manager {
    /// A part of a cluster.
    pub(crate) fn part(name: &str, subresource: &str) -> Self {
        Self {
            name: name.to_owned(),
            operation: "Update",
            subresource: subresource.to_owned(),
        }
    }
}

const LAST: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// What nobody owns: it is the server's
/// (`k8s.io/apimachinery/pkg/util/managedfields/internal/stripmeta.go`).
fn is_stripped(path: &[String]) -> bool {
    const SERVERS: &str = "name namespace creationTimestamp selfLink uid resourceVersion generation \
                           managedFields deletionTimestamp deletionGracePeriodSeconds";
    match &names(path)[..] {
        ["apiVersion" | "kind" | "metadata"] => path.len() == 1,
        ["metadata", name, ..] => SERVERS.split(' ').any(|known| known == *name),
        _ => false,
    }
}

/// How an item of a list is called in a path.
pub(super) fn item_name(item: &Value, keys: &[&str]) -> String {
    if keys.is_empty() {
        return format!("v:{item}");
    }
    let mut named = Map::new();
    for key in keys {
        let value = match &item[*key] {
            // Their defaults.
            Value::Null if *key == "protocol" => "TCP".into(),
            Value::Null if key.to_lowercase().ends_with("port") => 0.into(),
            Value::Null => "".into(),
            value => value.clone(),
        };
        named.insert((*key).to_owned(), value);
    }
    format!("k:{}", Value::Object(named))
}

/// The names of fields in a path, without the items of lists.
fn names(path: &[String]) -> Vec<&str> {
    let names = path.iter().filter_map(|element| element.strip_prefix("f:"));
    names.collect()
}

fn leaves(kind: &Kind, object: &Value) -> Leaves {
    let mut leaves = Leaves::new();
    add_leaves(Place::of(kind), object, &mut Vec::new(), &mut leaves, false);
    leaves.retain(|path, _| !is_stripped(path));
    leaves
}

/// The leaves, and of maps and lists that they are there, but for those that always are in Go.
fn nodes(kind: &Kind, object: &Value) -> Leaves {
    let mut nodes = Leaves::new();
    add_leaves(Place::of(kind), object, &mut Vec::new(), &mut nodes, true);
    let is_nobodys =
        |path: &Path, value: &Value| is_stripped(path) || value.is_null() && is_always(kind, path);
    nodes.retain(|path, value| !is_nobodys(path, value));
    nodes
}

/// Whether Go has a field even in an empty object: a struct that is no pointer, or a list that is
/// not left out when it is empty, all the way down.
fn is_always(kind: &Kind, path: &[String]) -> bool {
    let mut of = kind.type_name();
    for (depth, name) in path.iter().enumerate() {
        let name = name.strip_prefix("f:");
        let field = of.zip(name).and_then(|(of, name)| types::field(of, name));
        let Some(field) = field else {
            return false;
        };
        of = match &field.of {
            Of::Type(name) if field.shape == Shape::One && !field.is_pointer() => Some(name),
            _ => return depth + 1 == path.len() && field.is_required(),
        };
    }
    true
}

fn add_leaves(
    place: Place<'_>,
    value: &Value,
    path: &mut Path,
    leaves: &mut Leaves,
    with_nodes: bool,
) {
    match value {
        Value::Object(map) if !map.is_empty() && !place.is_atomic() => {
            if with_nodes && !path.is_empty() {
                leaves.insert(path.clone(), Value::Null);
            }
            for (name, value) in map {
                path.push(format!("f:{name}"));
                add_leaves(place.field(name), value, path, leaves, with_nodes);
                path.pop();
            }
        }
        Value::Array(items) => {
            let Some(keys) = place.keys() else {
                leaves.insert(path.clone(), value.clone());
                return;
            };
            if with_nodes {
                leaves.insert(path.clone(), Value::Null);
            }
            for item in items {
                path.push(item_name(item, &keys));
                if leaves.insert(path.clone(), Value::Null).is_some() {
                    // What is there twice is owned as a whole.
                    leaves.retain(|known, _| known == path || !known.starts_with(path));
                } else if item.is_object() {
                    add_leaves(place, item, path, leaves, with_nodes);
                }
                path.pop();
            }
        }
        value => {
            leaves.insert(path.clone(), value.clone());
        }
    }
}

/// Reads a `FieldsV1`.
fn read(fields: &Value) -> Set {
    fn walk(fields: &Value, path: &mut Path, set: &mut Set) {
        if *fields == json!({}) && !path.is_empty() {
            set.insert(path.clone());
        }
        for (name, inner) in members(fields) {
            if name == "." {
                set.insert(path.clone());
                continue;
            }
            path.push(name.clone());
            walk(inner, path, set);
            path.pop();
        }
    }
    let mut set = Set::new();
    walk(fields, &mut Vec::new(), &mut set);
    set
}

/// Writes a `FieldsV1`.
fn write(set: &Set) -> Value {
    let mut root = json!({});
    let mut last: Option<&Path> = None;
    for path in set {
        let mut at = &mut root;
        for (depth, name) in path.iter().enumerate() {
            // What is owned itself and has owned parts says so. It comes right before them.
            if last.is_some_and(|last| last.len() == depth && path.starts_with(last)) {
                at["."] = json!({});
            }
            at = &mut at[name];
            map(at);
        }
        last = Some(path);
    }
    root
}

#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) json: Value,
    set: Set,
}

impl Entry {
    fn is(&self, manager: &Manager, api_version: &str) -> bool {
        self.json["manager"] == *manager.name
            && self.json["operation"] == manager.operation
            && self.json["subresource"].as_str().unwrap_or_default() == manager.subresource
            // Who applies keeps its fields from version to version.
            && (manager.operation == "Apply" || self.json["apiVersion"] == api_version)
    }
}

fn entries(object: &Value) -> Vec<Entry> {
    let entries = items(&object["metadata"]["managedFields"]).map(|json| Entry {
        json: json.clone(),
        set: read(&json["fieldsV1"]),
    });
    entries.collect()
}

fn store(object: &mut Value, entries: Vec<Entry>) {
    let entries = entries.into_iter().filter(|entry| !entry.set.is_empty());
    let mut json: Vec<_> = entries.map(|entry| entry.json).collect();
    let order = ["operation", "time", "manager", "apiVersion", "subresource"];
    json.sort_by_key(|entry| order.map(|field| text(&entry[field]).to_owned()));
    set(&mut object["metadata"], "managedFields", &list(json));
}

/// Gives a manager what it owns now; the time is that of a change.
fn own(entries: &mut Vec<Entry>, kind: &Kind, manager: &Manager, set: Set, now: Option<Stamp>) {
    let api_version = kind.resource.api_version();
    let mut json = json!({
        "manager": manager.name,
        "operation": manager.operation,
        "apiVersion": api_version,
        "fieldsType": "FieldsV1",
        "fieldsV1": write(&set),
    });
    if !manager.subresource.is_empty() {
        json["subresource"] = manager.subresource.clone().into();
    }
    let mut known = entries.iter_mut();
    let known = known.find(|entry| entry.is(manager, &api_version));
    match (now, &known) {
        (Some(now), _) => json["time"] = seconds(now).into(),
        (None, Some(known)) => self::set(&mut json, "time", &known.json["time"]),
        (None, None) => {}
    }
    match known {
        Some(entry) if entry.set == set => {}
        Some(entry) => *entry = Entry { json, set },
        None => entries.push(Entry { json, set }),
    }
}

/// Takes fields away from everybody but one.
fn disown(entries: &mut [Entry], lost: &Set, but: impl Fn(&Entry) -> bool) {
    for entry in entries.iter_mut().filter(|entry| !but(entry)) {
        let left: Set = entry.set.difference(lost).cloned().collect();
        if left.len() != entry.set.len() {
            entry.json["fieldsV1"] = write(&left);
            entry.set = left;
        }
    }
}

/// The fields that are new or other.
fn different(old: &Leaves, new: &Leaves) -> Set {
    let changed = new
        .iter()
        .filter(|(path, value)| old.get(*path) != Some(value));
    changed.map(|(path, _)| path.clone()).collect()
}

/// Notes who owns the fields that a create, an update or a patch has changed.
pub(crate) fn updated(
    kind: &Kind,
    manager: &Manager,
    before: Option<&Value>,
    after: &mut Value,
    now: impl Into<Option<Stamp>>,
) {
    let api_version = kind.resource.api_version();
    let nodes = |object: &Value| {
        let mut nodes = nodes(kind, object);
        // What the subresource alone writes is nobody's here (`GetResetFields`).
        let is_reset = kind.has("status") && manager.subresource.is_empty();
        nodes.retain(|path, _| !is_reset || path[0] != "f:status");
        nodes
    };
    if before.is_some_and(|before| items(&before["metadata"]["managedFields"]).len() == 0) {
        // Nobody is noted where nobody was (`skipNonAppliedManager`).
        return;
    }
    let empty = kind.type_name().map(rules::empty);
    let old = before.or(empty.as_ref()).map(nodes).unwrap_or_default();
    let new = nodes(after);
    let changed = different(&old, &new);
    let removed = old.into_keys().filter(|path| !new.contains_key(path));
    let removed: Set = removed.collect();
    if changed.is_empty() && removed.is_empty() {
        return;
    }
    let mut entries = entries(after);
    let is_mine = |entry: &Entry| entry.is(manager, &api_version);
    disown(&mut entries, &changed, is_mine);
    disown(&mut entries, &removed, |_| false);
    let mine = entries.iter().find(|entry| is_mine(entry));
    let mut mine = mine.map(|entry| entry.set.clone()).unwrap_or_default();
    mine.extend(changed);
    own(&mut entries, kind, manager, mine, now.into());
    store(after, entries);
}

/// What a server-side apply makes of an object. It is refused if others own fields that it would
/// change, unless it is forced to.
pub(super) fn apply(
    kind: &Kind,
    manager: &Manager,
    before: Option<&Value>,
    applied: &Value,
    force: bool,
    now: Stamp,
) -> Result<Value, Refusal> {
    let api_version = kind.resource.api_version();
    let wish = leaves(kind, applied);
    let set: Set = wish.keys().cloned().collect();
    let mut after = before.cloned().unwrap_or_else(|| json!({}));
    let old = leaves(kind, &after);
    let mut entries = entries(&after);
    if entries.is_empty() && before.is_some() {
        // `k8s.io/apimachinery/pkg/util/managedfields/internal/skipnonapplied.go`.
        let first = Manager::part("before-first-apply", "");
        let mut noted = after.clone();
        updated(kind, &first, None, &mut noted, now);
        entries = self::entries(&noted);
    }
    let is_mine = |entry: &Entry| entry.is(manager, &api_version);
    let mut changed = different(&old, &wish);
    // An empty map changes nothing of what is in it.
    let has_parts = |path: &Path| {
        let mut parts = old.keys();
        parts.any(|known| known.len() > path.len() && known.starts_with(path))
    };
    changed.retain(|path| wish[path] != json!({}) || !has_parts(path));
    // Maps that had no parts, and items that were not there, change with their first.
    let around = changed
        .iter()
        .flat_map(|path| (1..path.len()).map(|end| path[..end].to_vec()));
    let around: Vec<_> = around.filter(|path| !has_parts(path)).collect();
    changed.extend(around);
    // kubectl may have applied it in the old way (`managedfields/internal/lastapplied{manager,updater}.go`).
    let last = some(&after["metadata"]["annotations"][LAST]).filter(|_| manager.name == "kubectl");
    let last = last.map(|last| serde_json::from_str(last).unwrap_or_default());
    let allowed = last.as_ref().map(|last| leaves(kind, last));
    if !force {
        let others = entries.iter().filter(|entry| !is_mine(entry));
        let is_allowed = |path: &Path| allowed.as_ref().is_some_and(|of| of.contains_key(path));
        let conflicts: Vec<_> = others
            .flat_map(|entry| {
                let mut both: Vec<_> = entry.set.intersection(&changed).collect();
                // What ends comes before what has parts (`fieldpath.Set.Iterate`).
                both.sort_by_key(|path| {
                    let elements = path.iter().enumerate();
                    let key = elements.map(|(at, name)| (at + 1 < path.len(), name.clone()));
                    key.collect::<Vec<_>>()
                });
                both.into_iter().map(move |path| (entry, path))
            })
            .filter(|(_, path)| !is_allowed(path))
            .collect();
        if !conflicts.is_empty() {
            return Err(conflicts::conflict(&conflicts));
        }
    }
    disown(&mut entries, &changed, is_mine);
    let given_up: Vec<Path> = {
        let mine = entries.iter().filter(|entry| is_mine(entry));
        let given_up = mine.flat_map(|entry| entry.set.difference(&set));
        let others = || entries.iter().filter(|entry| !is_mine(entry));
        // An item stays as long as anybody owns a part of it.
        let is_owned = |path: &Path| {
            others().any(|entry| entry.set.iter().any(|other| other.starts_with(path)))
                || set.iter().any(|other| other.starts_with(path))
        };
        given_up.filter(|path| !is_owned(path)).cloned().collect()
    };
    for path in &given_up {
        remove(Place::of(kind), &mut after, path);
    }
    combine(Place::of(kind), &mut after, applied);
    if last.is_some() {
        after["metadata"]["annotations"][LAST] = format!("{applied}\n").into();
    }
    // Who only says what there is already has no time of its own.
    let now = (before != Some(&after)).then_some(now);
    own(&mut entries, kind, manager, set, now);
    store(&mut after, entries);
    Ok(after)
}

/// Lays what is applied over what there is.
fn combine(place: Place<'_>, live: &mut Value, applied: &Value) {
    match applied {
        Value::Object(fields) if !place.is_atomic() => {
            map(live);
            for (name, value) in fields {
                combine(place.field(name), &mut live[name], value);
            }
        }
        Value::Array(items) => {
            let (Some(keys), Value::Array(known)) = (place.keys(), &mut *live) else {
                *live = applied.clone();
                return;
            };
            for item in items {
                let name = item_name(item, &keys);
                let mut known_items = known.iter_mut();
                match known_items.find(|known| item_name(known, &keys) == name) {
                    Some(known) => combine(place, known, item),
                    None => known.push(item.clone()),
                }
            }
        }
        value => *live = value.clone(),
    }
}

/// Removes a field or an item, and the maps that are empty without it; says whether `value` is.
fn remove(place: Place<'_>, value: &mut Value, path: &[String]) -> bool {
    let Some((first, rest)) = path.split_first() else {
        return true;
    };
    match value {
        Value::Object(map) => {
            let name = first.strip_prefix("f:").unwrap_or(first);
            let Some(inner) = map.get_mut(name) else {
                return false;
            };
            let gone = remove(place.field(name), inner, rest);
            if gone {
                map.remove(name);
            }
            gone && map.is_empty()
        }
        Value::Array(items) => {
            let keys = place.keys().unwrap_or_default();
            let is_it = |item: &Value| item_name(item, &keys) == *first;
            if rest.is_empty() {
                items.retain(|item| !is_it(item));
                return items.is_empty();
            }
            if let Some(item) = items.iter_mut().find(|item| is_it(item)) {
                remove(place, item, rest);
            }
            false
        }
        _ => false,
    }
}

//! Patches: in flow an object and what is to become of it, out comes what becomes of it.

use serde_json::{Map, Value, json};

use crate::{
    server::Refusal,
    testing::{
        checks::schema,
        kinds::place::Place,
        requests::{
            gojson,
            target::{failed, refusal},
        },
        values::json::{items, map},
    },
    wire::status::Status,
};

/// Operations of a JSON patch: `k8s.io/apiserver/pkg/endpoints/handlers/patch.go`,
/// `maxJSONPatchOperations`.
const OPERATIONS: usize = 10_000;

/// RFC 7386.
pub(super) fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    let target = map(target);
    for (name, value) in patch {
        match value {
            Value::Null => drop(target.remove(name)),
            value => merge(target.entry(name).or_insert(Value::Null), value),
        }
    }
}

/// RFC 6902.
pub(super) fn json_patch(target: &mut Value, patch: &[u8]) -> Result<(), Refusal> {
    let bad = |why| Refusal::bad_request(format!("error decoding patch: {why}"));
    let patch = gojson::read(patch).map_err(bad)?;
    if patch.is_null() {
        return Ok(());
    }
    let into = match patch.as_array() {
        Some(items) => items
            .iter()
            .find(|item| !item.is_object())
            .map(|item| (item, "")),
        None => Some((&patch, "[]")),
    };
    if let Some((value, of)) = into {
        let found = schema::go_type_of(value);
        let into = format!("Go value of type {of}handlers.jsonPatchOp");
        return Err(bad(format!("json: cannot unmarshal {found} into {into}")));
    }
    let fields = items(&patch).flat_map(|step| ["op", "from", "path"].map(|of| (of, &step[of])));
    let mut odd = fields.filter(|(_, value)| !value.is_null() && !value.is_string());
    if let Some((field, value)) = odd.next() {
        let found = schema::go_type_of(value);
        let into = format!("Go struct field jsonPatchOp.{field} of type string");
        return Err(bad(format!("json: cannot unmarshal {found} into {into}")));
    }
    let patch: Vec<_> = items(&patch).collect();
    if patch.len() > OPERATIONS {
        let message = format!(
            "The allowed maximum operations in a JSON patch is {OPERATIONS}, got {}",
            patch.len()
        );
        let status = Status::failure(413, "RequestEntityTooLarge", message);
        return Err(Refusal::new(status));
    }
    let done = patch.iter().try_for_each(|step| operate(target, step));
    // The API server keeps the reason to itself (`NewGenericServerResponse`).
    let message = "the server rejected our request due to an error in our request";
    done.ok_or_else(|| refusal((422, "Invalid"), message, [""; 3], []))
}

/// Does one operation, unless it cannot be done (`gopkg.in/evanphx/json-patch.v4/patch.go`).
fn operate(target: &mut Value, operation: &Value) -> Option<()> {
    let (path, value) = (operation["path"].as_str()?, &operation["value"]);
    let from = || operation["from"].as_str();
    match operation["op"].as_str()? {
        "test" if path.is_empty() => (target == value).then_some(()),
        "test" => (get(target, path)? == *value).then_some(()),
        "replace" if path.is_empty() => {
            *target = Some(value.clone()).filter(|value| value.is_object() || value.is_array())?;
            Some(())
        }
        "replace" => {
            get(target, path)?;
            take(target, path);
            add(target, path, value.clone())
        }
        "add" => add(target, path, value.clone()),
        "remove" => take(target, path).map(drop),
        "copy" => {
            let value = get(target, from()?)?;
            add(target, path, value)
        }
        "move" => {
            let value = take(target, from()?)?;
            add(target, path, value)
        }
        _ => None,
    }
}

/// What has the value at a path, and what it calls it.
fn holder<'a>(target: &'a mut Value, path: &str) -> Option<(&'a mut Value, String)> {
    // What is before the first slash does not count.
    let names = path.split('/').skip(1);
    let mut names: Vec<_> = names
        .map(|name| name.replace("~1", "/").replace("~0", "~"))
        .collect();
    let last = names.pop()?;
    let mut names = names.iter();
    Some((
        names.try_fold(target, |holder, name| inside(holder, name))?,
        last,
    ))
}

fn inside<'a>(holder: &'a mut Value, name: &str) -> Option<&'a mut Value> {
    match holder {
        Value::Object(map) => map.get_mut(name),
        Value::Array(list) => index(name, list.len()).and_then(|at| list.get_mut(at)),
        _ => None,
    }
}

/// A place in a list; those below zero count from its end.
fn index(name: &str, length: usize) -> Option<usize> {
    let at = match name.parse().ok()? {
        at @ isize::MIN..0 => length.checked_add_signed(at)?,
        at => at.unsigned_abs(),
    };
    (at < length).then_some(at)
}

/// What a map does not have is null.
fn get(target: &mut Value, path: &str) -> Option<Value> {
    let (holder, name) = holder(target, path)?;
    let missing = holder.is_object().then_some(Value::Null);
    inside(holder, &name).cloned().or(missing)
}

fn take(target: &mut Value, path: &str) -> Option<Value> {
    match holder(target, path)? {
        (Value::Object(map), name) => map.remove(&name),
        (Value::Array(list), name) => index(&name, list.len()).map(|at| list.remove(at)),
        _ => None,
    }
}

fn add(target: &mut Value, path: &str, value: Value) -> Option<()> {
    match holder(target, path)? {
        (Value::Object(map), name) => drop(map.insert(name, value)),
        (Value::Array(list), name) if name == "-" => list.push(value),
        (Value::Array(list), name) => list.insert(index(&name, list.len() + 1)?, value),
        _ => return None,
    }
    Some(())
}

fn keyless(item: &Value, key: &str) -> Refusal {
    let item = spelled(item);
    failed(format!(
        "map: {item} does not contain declared merge key: {key}"
    ))
}

/// A strategic merge patch
/// (`k8s.io/apimachinery/pkg/util/strategicpatch/patch.go`) of a built-in kind.
pub(super) fn strategic(
    place: Place<'_>,
    target: &mut Value,
    patch: &Value,
) -> Result<(), Refusal> {
    let mut patch = patch.as_object().cloned().unwrap_or_default();
    match patch.get("$patch").map(spelled).as_deref() {
        None => {}
        Some("replace") => {
            patch.remove("$patch");
            *target = patch.into();
            return Ok(());
        }
        Some("delete") => {
            *target = json!({});
            return Ok(());
        }
        Some(other) => {
            let whole = spelled(&patch.clone().into());
            return Err(failed(format!(
                "unknown patch type: {other} in map: {whole}"
            )));
        }
    }
    let target = map(target);
    if let Some(kept) = patch.remove("$retainKeys") {
        let is_kept = |name: &str| items(&kept).any(|kept| kept == name);
        let is_change = |(name, value): &(&String, &Value)| {
            let is_of_list = [DELETION, ORDER]
                .iter()
                .any(|front| name.starts_with(front));
            !value.is_null() && !is_of_list
        };
        if !kept.is_array()
            || !patch
                .iter()
                .filter(is_change)
                .all(|(name, _)| is_kept(name))
        {
            return Err(Refusal::bad_request("invalid patch format of retainKeys"));
        }
        target.retain(|name, _| is_kept(name));
    }
    let orders: Vec<_> = patch
        .iter()
        .filter(|(name, _)| name.starts_with(ORDER))
        .map(|(name, order)| (name.clone(), order.clone()))
        .collect();
    for (directive, order) in orders {
        patch.remove(&directive);
        let name = named(&directive, ORDER, "setElementOrder list")?;
        ordered(place, (target, &mut patch), name, list(&order)?)?;
    }
    for (name, value) in patch {
        let is_deletion = name.starts_with(DELETION);
        let name = match is_deletion {
            true => named(&name, DELETION, "primitive list")?,
            false => &name,
        };
        let place = place.field(name);
        match (target.get_mut(name), value) {
            (_, Value::Null) => drop(target.remove(name)),
            (Some(known @ Value::Object(_)), value @ Value::Object(_)) => {
                strategic(place, known, &value)?;
            }
            (Some(Value::Array(known)), Value::Array(items)) => {
                strategic_list(place, known, &items, is_deletion)?;
            }
            _ if is_deletion => {}
            (_, value) => match without_directives(value) {
                Some(value) => drop(target.insert(name.to_owned(), value)),
                None => drop(target.remove(name)),
            },
        }
    }
    Ok(())
}

/// What begins the name of a list of which items go, and of one that says in which order they are.
const DELETION: &str = "$deleteFromPrimitiveList";
const ORDER: &str = "$setElementOrder";

fn named<'a>(directive: &'a str, front: &str, called: &str) -> Result<&'a str, Refusal> {
    let name = directive.strip_prefix(front);
    let name = name.and_then(|name| name.strip_prefix('/'));
    name.ok_or_else(|| Refusal::bad_request(format!("invalid patch format of {called}")))
}

fn list(value: &Value) -> Result<&Vec<Value>, Refusal> {
    let found = schema::go_type_of(value).replace("object", "map[string]interface {}");
    let why = format!("expected a []interface {{}}, but received a {found}");
    value.as_array().ok_or_else(|| failed(why))
}

/// What is put where nothing was, or something else: without nulls, and without what is marked.
fn without_directives(value: Value) -> Option<Value> {
    Some(match value {
        Value::Object(map) if map.contains_key("$patch") => return None,
        Value::Object(map) => {
            let there = map.into_iter().filter(|(_, value)| !value.is_null());
            let kept = there.filter_map(|(name, value)| Some((name, without_directives(value)?)));
            kept.collect()
        }
        Value::Array(items) => items.into_iter().filter_map(without_directives).collect(),
        other => other,
    })
}

/// Merges a list whose order is given.
fn ordered(
    place: Place<'_>,
    (target, patch): (&mut Map<String, Value>, &mut Map<String, Value>),
    name: &str,
    given: &[Value],
) -> Result<(), Refusal> {
    let new = patch.remove(name);
    let before = target.get(name).map(list).transpose()?.cloned();
    new.as_ref().map(list).transpose()?;
    if let Some(why) = place.no_list(name) {
        return Err(failed(why));
    }
    let place = place.field(name);
    let key = place.merge_key().flatten();
    if let Some(new) = &new {
        let mut left = given.iter();
        let mut marked = list(new)?.iter().filter(|item| item["$patch"].is_null());
        if !given.is_empty() && !marked.all(|item| left.any(|known| is_same(key, item, known))) {
            let [new, given] = [new, &given.into()].map(spelled);
            let words = "The order in patch list";
            return Err(failed(format!(
                "{words}:\n{new}\n doesn't match {ORDER} list:\n{given}\n"
            )));
        }
    }
    match (before.is_some(), new) {
        (false, None) => return Ok(()),
        (false, Some(new)) => {
            let new = without_directives(new).unwrap_or_default();
            target.insert(name.to_owned(), new);
        }
        (true, Some(Value::Array(new))) => {
            if let Some(Value::Array(list)) = target.get_mut(name) {
                strategic_list(place, list, &new, false)?;
            }
        }
        (true, _) => {}
    }
    let mut odd = given
        .iter()
        .filter(|item| key.is_some_and(|key| item[key].is_null()));
    if let (Some(item), Some(key)) = (odd.next(), key) {
        return Err(keyless(item, key));
    }
    if let Some(Value::Array(list)) = target.get_mut(name) {
        order(list, &before.unwrap_or_default(), given, key);
    }
    Ok(())
}

/// Whether an item is another, by the key of their list or as a whole.
fn is_same(key: Option<&str>, one: &Value, other: &Value) -> bool {
    match key {
        Some(key) => one[key] == other[key],
        None => one == other,
    }
}

/// The items that are named come in this order, and the others where they were, as far as that
/// goes: what is new comes first (`normalizeElementOrder`).
fn order(list: &mut Vec<Value>, before: &[Value], order: &[Value], key: Option<&str>) {
    let place = |of: &[Value], item: &Value| of.iter().position(|named| is_same(key, named, item));
    let (mut named, others): (Vec<_>, Vec<_>) = std::mem::take(list)
        .into_iter()
        .partition(|item| place(order, item).is_some());
    named.sort_by_key(|item| place(order, item));
    let mut others = others.into_iter().peekable();
    for item in named {
        let at = place(before, &item);
        while let Some(other) = others.next_if(|other| {
            at.zip(place(before, other))
                .is_some_and(|(at, other)| other < at)
        }) {
            list.push(other);
        }
        list.push(item);
    }
    list.extend(others);
}

/// As Go prints what JSON is read into.
pub(super) fn spelled(value: &Value) -> String {
    let join = |parts: Vec<String>| parts.join(" ");
    match value {
        Value::Null => "<nil>".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(items) => format!("[{}]", join(items.iter().map(spelled).collect())),
        Value::Object(map) => {
            let pairs = map
                .iter()
                .map(|(name, value)| format!("{name}:{}", spelled(value)));
            format!("map[{}]", join(pairs.collect()))
        }
        other => other.to_string(),
    }
}

fn strategic_list(
    place: Place<'_>,
    list: &mut Vec<Value>,
    patch: &[Value],
    is_deletion: bool,
) -> Result<(), Refusal> {
    let key = match place.merge_key() {
        Some(key) => key,
        None if is_deletion => None,
        None => {
            *list = patch.to_vec();
            return Ok(());
        }
    };
    let all = || list.iter().chain(patch).map(std::mem::discriminant);
    if all().any(|of| Some(of) != all().next()) {
        let print = |items: &[Value]| items.iter().map(spelled).collect::<Vec<_>>().join(" ");
        let lists = format!("[[{}] [{}]]", print(list), print(patch));
        return Err(failed(format!(
            "list element types are not identical: {lists}"
        )));
    }
    let before = list.clone();
    let Some(key) = key else {
        if is_deletion {
            list.retain(|item| !patch.contains(item));
            return Ok(());
        }
        for item in patch {
            if !list.contains(item) {
                list.push(item.clone());
            }
        }
        order(list, &before, patch, None);
        return Ok(());
    };
    let (marked, plain): (Vec<_>, Vec<_>) =
        patch.iter().partition(|item| item.get("$patch").is_some());
    for item in &marked {
        match &*spelled(&item["$patch"]) {
            "replace" => {}
            "delete" if item[key].is_null() => return Err(keyless(item, key)),
            "delete" => list.retain(|known| known[key] != item[key]),
            "merge" => {
                let why = "merging lists cannot yet be specified in the patch";
                return Err(failed(why));
            }
            other => {
                let whole = spelled(item);
                return Err(failed(format!(
                    "unknown patch type: {other} in map: {whole}"
                )));
            }
        }
    }
    if marked.iter().any(|item| item["$patch"] == "replace") {
        *list = plain.into_iter().cloned().collect();
        return Ok(());
    }
    for item in &plain {
        if item[key].is_null() {
            return Err(keyless(item, key));
        }
        match list.iter_mut().find(|known| known[key] == item[key]) {
            Some(known) => strategic(place, known, item)?,
            None => list.push((*item).clone()),
        }
    }
    order(list, &before, patch, Some(key));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::kinds::Kinds;

    /// The examples of RFC 7386, appendix A.
    #[test]
    fn patches_merge_as_the_rfc_says() {
        for (target, patch, expected) in [
            (json!({"a": "b"}), json!({"a": "c"}), json!({"a": "c"})),
            (
                json!({"a": "b"}),
                json!({"b": "c"}),
                json!({"a": "b", "b": "c"}),
            ),
            (json!({"a": "b"}), json!({"a": null}), json!({})),
            (json!({"a": ["b"]}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": "c"}), json!({"a": ["b"]}), json!({"a": ["b"]})),
            (
                json!({"a": {"b": "c"}}),
                json!({"a": {"b": "d", "c": null}}),
                json!({"a": {"b": "d"}}),
            ),
            (
                json!({"e": null}),
                json!({"a": 1}),
                json!({"e": null, "a": 1}),
            ),
            (
                json!([1, 2]),
                json!({"a": "b", "c": null}),
                json!({"a": "b"}),
            ),
            (
                json!({}),
                json!({"a": {"bb": {"ccc": null}}}),
                json!({"a": {"bb": {}}}),
            ),
        ] {
            let mut merged = target.clone();
            merge(&mut merged, &patch);
            assert_eq!(merged, expected, "{target} {patch}");
        }
    }

    #[test]
    fn what_is_missing_is_tested_as_null() {
        let tested = |path: &str| {
            let patch = json!([{"op": "test", "path": path, "value": null}]);
            json_patch(&mut json!({"a": {"b": 1}}), patch.to_string().as_bytes()).is_ok()
        };
        assert!(tested("/a/c") && tested("/c"));
        assert!(!tested("/a/b") && !tested("/c/d"));
    }

    #[test]
    fn strategic_patches_merge_lists_by_their_keys() {
        let kind = Kinds::new().core("pods");
        let pod = json!({"spec": {
            "containers": [
                {"name": "a", "image": "x", "env": [{"name": "k", "value": "v"}]},
                {"name": "b", "image": "y"},
            ],
            "tolerations": [{"key": "t"}],
        }, "metadata": {"finalizers": ["x/one"]}});
        for (patch, path, expected) in [
            (
                json!({"spec": {"containers": [{"name": "b", "image": "z"}]}}),
                "/spec/containers/1/image",
                json!("z"),
            ),
            (
                json!({"spec": {"containers": [{"name": "a", "env": [{"name": "l", "value": "w"}]}]}}),
                "/spec/containers/0/env",
                json!([{"name": "l", "value": "w"}, {"name": "k", "value": "v"}]),
            ),
            (
                json!({"spec": {"containers": [{"name": "a", "$patch": "delete"}]}}),
                "/spec/containers",
                json!([{"name": "b", "image": "y"}]),
            ),
            (
                json!({"spec": {"containers": [{"$patch": "replace"}, {"name": "c"}]}}),
                "/spec/containers",
                json!([{"name": "c"}]),
            ),
            (
                json!({"spec": {"tolerations": [{"key": "u"}]}}),
                "/spec/tolerations",
                json!([{"key": "u"}]),
            ),
            (
                json!({"metadata": {"finalizers": ["x/two"]}}),
                "/metadata/finalizers",
                json!(["x/two", "x/one"]),
            ),
            (
                json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["x/one"]}}),
                "/metadata/finalizers",
                json!([]),
            ),
            (
                json!({"spec": {"$setElementOrder/containers": [{"name": "b"}, {"name": "a"}]}}),
                "/spec/containers/0/name",
                json!("b"),
            ),
            (
                json!({"spec": {"$retainKeys": ["tolerations"], "tolerations": []}}),
                "/spec",
                json!({"tolerations": []}),
            ),
            (
                json!({"spec": {"$patch": "replace", "x": 1}}),
                "/spec",
                json!({"x": 1}),
            ),
        ] {
            let mut patched = pod.clone();
            strategic(Place::of(&kind), &mut patched, &patch).unwrap();
            assert_eq!(patched.pointer(path), Some(&expected), "{patch}");
        }
        let keyless = json!({"spec": {"containers": [{"image": "z"}]}});
        assert!(strategic(Place::of(&kind), &mut pod.clone(), &keyless).is_err());
    }
}

//! Patches: in flow an object and what is to become of it, out comes what becomes of it.

use serde_json::{Map, Value, json};

use super::{
    gojson,
    json::{items_mut, map},
    place::Place,
    schema,
    target::{not_implemented, refusal},
};
use crate::{server::Refusal, wire::status::Status};

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
    let mut patch = gojson::read(patch).map_err(bad)?;
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
    for operation in items_mut(&mut patch) {
        map(operation).entry("value").or_insert(Value::Null);
    }
    // The API server keeps the reason to itself (`NewGenericServerResponse`).
    let message = "the server rejected our request due to an error in our request";
    let rejected = || refusal((422, "Invalid"), message, [""; 3], []);
    let patch: json_patch::Patch = serde_json::from_value(patch).map_err(|_| rejected())?;
    if patch.0.len() > OPERATIONS {
        let message = format!(
            "The allowed maximum operations in a JSON patch is {OPERATIONS}, got {}",
            patch.0.len()
        );
        return Err(Refusal::new(Status::failure(
            413,
            "RequestEntityTooLarge",
            message,
        )));
    }
    for mut operation in patch.0 {
        // What is not there is put there.
        if let json_patch::PatchOperation::Replace(replace) = &operation
            && target.pointer(replace.path.as_str()).is_none()
        {
            let (path, value) = (replace.path.clone(), replace.value.clone());
            operation = json_patch::PatchOperation::Add(json_patch::AddOperation { path, value });
        }
        // What is not there is null to the API server's library, and to kube-rs's `finalizer`.
        if let json_patch::PatchOperation::Test(test) = &operation
            && test.value.is_null()
            && target.pointer(test.path.as_str()).is_none()
            && let Some((parent, _)) = test.path.as_str().rsplit_once('/')
            && target.pointer(parent).is_some_and(Value::is_object)
        {
            continue;
        }
        json_patch::patch(target, &[operation]).map_err(|_| rejected())?;
    }
    Ok(())
}

/// A strategic merge patch
/// (`k8s.io/apimachinery/pkg/util/strategicpatch/patch.go`) of a built-in kind.
pub(super) fn strategic(
    place: Place<'_>,
    target: &mut Value,
    patch: &Value,
) -> Result<(), Refusal> {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return Ok(());
    };
    match patch.get("$patch").and_then(Value::as_str) {
        None | Some("merge") => {}
        Some("replace") => {
            let mut whole = patch.clone();
            whole.remove("$patch");
            *target = Value::Object(whole);
            return Ok(());
        }
        Some("delete") => {
            *target = json!({});
            return Ok(());
        }
        Some(other) => {
            let whole = spelled(&patch.clone().into());
            let why = format!("unknown patch type: {other} in map: {whole}");
            return Err(Refusal::new(Status::failure(500, "", why)));
        }
    }
    let target = map(target);
    if let Some(Value::Array(kept)) = patch.get("$retainKeys") {
        target.retain(|name, _| kept.iter().any(|kept| kept == name.as_str()));
    }
    for (name, value) in patch.iter().filter(|(name, _)| !name.starts_with('$')) {
        let place = place.field(name);
        if value.is_null() || value["$patch"] == "delete" {
            target.remove(name);
            continue;
        }
        let target = target.entry(name).or_insert(Value::Null);
        match value {
            Value::Array(items) => strategic_list(place, target, items)?,
            value => strategic(place, target, value)?,
        }
    }
    directives(place, target, patch)
}

/// What a patch says about lists besides their items.
fn directives(
    place: Place<'_>,
    target: &mut Map<String, Value>,
    patch: &Map<String, Value>,
) -> Result<(), Refusal> {
    for (directive, value) in patch.iter().filter(|(name, _)| name.contains('/')) {
        let (Some((directive, name)), Value::Array(values)) = (directive.split_once('/'), value)
        else {
            continue;
        };
        let Some(Value::Array(list)) = target.get_mut(name) else {
            continue;
        };
        match directive {
            "$deleteFromPrimitiveList" => list.retain(|item| !values.contains(item)),
            "$setElementOrder" => {
                let key = place.field(name).merge_key().flatten();
                let before = list.clone();
                order(list, &before, values, key);
            }
            // A label may be called so.
            _ if !directive.starts_with('$') => {}
            other => return Err(not_implemented(format!("the directive {other} of a patch"))),
        }
    }
    Ok(())
}

/// The items that are named come in this order, and the others where they were, as far as that
/// goes: what is new comes first (`normalizeElementOrder`).
fn order(list: &mut Vec<Value>, before: &[Value], order: &[Value], key: Option<&str>) {
    let place = |of: &[Value], item: &Value| {
        of.iter().position(|named| match key {
            Some(key) => named[key] == item[key],
            None => named == item,
        })
    };
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

fn strategic_list(place: Place<'_>, list: &mut Value, patch: &[Value]) -> Result<(), Refusal> {
    let is_directive = |item: &Value, how: &str| item["$patch"] == how;
    if patch.iter().any(|item| is_directive(item, "replace")) {
        let items = patch.iter().filter(|item| !is_directive(item, "replace"));
        *list = items.cloned().collect();
        return Ok(());
    }
    let Some(key) = place.merge_key() else {
        *list = patch.to_vec().into();
        return Ok(());
    };
    let Value::Array(list) = list else {
        let mut new: Vec<_> = patch.to_vec();
        new.retain(|item| !is_directive(item, "delete"));
        *list = new.into();
        return Ok(());
    };
    let failed = |why: String| Refusal::new(Status::failure(500, "", why));
    let all = || list.iter().chain(patch).map(std::mem::discriminant);
    if all().any(|of| Some(of) != all().next()) {
        let print = |items: &[Value]| items.iter().map(spelled).collect::<Vec<_>>().join(" ");
        let lists = format!("[[{}] [{}]]", print(list), print(patch));
        return Err(failed(format!(
            "list element types are not identical: {lists}"
        )));
    }
    let before = list.clone();
    for item in patch {
        let Some(key) = key else {
            if !list.contains(item) {
                list.push(item.clone());
            }
            continue;
        };
        if item[key].is_null() {
            let item = spelled(item);
            return Err(failed(format!(
                "map: {item} does not contain declared merge key: {key}"
            )));
        }
        if is_directive(item, "delete") {
            list.retain(|known| known[key] != item[key]);
            continue;
        }
        match list.iter_mut().find(|known| known[key] == item[key]) {
            Some(known) => strategic(place, known, item)?,
            None => {
                let mut new = Value::Null;
                strategic(place, &mut new, item)?;
                list.push(new);
            }
        }
    }
    order(list, &before, patch, key);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let kind = crate::testing::kinds::Kinds::new().core("pods");
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

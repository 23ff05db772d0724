//! Patches: in flow an object and what is to become of it, out comes what becomes of it.

use serde_json::{Map, Value, json};

use super::{json::map, kinds::Kind, schema, target::not_implemented};
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
    let patch: json_patch::Patch = serde_json::from_slice(patch)
        .map_err(|error| Refusal::bad_request(format!("error decoding patch: {error}")))?;
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
    json_patch::patch(target, &patch).map_err(|_| {
        // The API server keeps the reason to itself (`NewGenericServerResponse`).
        let message = "the server rejected our request due to an error in our request";
        Refusal::new(Status::failure(422, "Invalid", message))
    })
}

/// A strategic merge patch
/// (`k8s.io/apimachinery/pkg/util/strategicpatch/patch.go`) of a built-in kind.
pub(super) fn strategic(kind: &Kind, target: &mut Value, patch: &Value) -> Result<(), Refusal> {
    strategic_at(kind, target, patch, &mut Vec::new())
}

fn strategic_at<'a>(
    kind: &Kind,
    target: &mut Value,
    patch: &'a Value,
    path: &mut Vec<&'a str>,
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
            let why = format!("Unknown patch type found: {other}");
            return Err(Refusal::bad_request(why));
        }
    }
    let target = map(target);
    if let Some(Value::Array(kept)) = patch.get("$retainKeys") {
        target.retain(|name, _| kept.iter().any(|kept| kept == name.as_str()));
    }
    for (name, value) in patch.iter().filter(|(name, _)| !name.starts_with('$')) {
        path.push(name);
        match value {
            Value::Null => drop(target.remove(name)),
            Value::Array(items) => {
                strategic_list(kind, target.entry(name).or_insert(Value::Null), items, path)?;
            }
            Value::Object(inner) if inner.get("$patch").is_some_and(|how| how == "delete") => {
                target.remove(name);
            }
            value => {
                strategic_at(kind, target.entry(name).or_insert(Value::Null), value, path)?;
            }
        }
        path.pop();
    }
    directives(kind, target, patch, path)
}

/// What a patch says about lists besides their items.
fn directives<'a>(
    kind: &Kind,
    target: &mut Map<String, Value>,
    patch: &'a Map<String, Value>,
    path: &mut Vec<&'a str>,
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
                path.push(name);
                let key = schema::merge_key(kind, path).flatten();
                path.pop();
                order(list, values, key.as_deref());
            }
            // A label may be called so.
            _ if !directive.starts_with('$') => {}
            other => return Err(not_implemented(format!("the directive {other} of a patch"))),
        }
    }
    Ok(())
}

/// The items that are named come in the order that is, where such items were.
fn order(list: &mut [Value], order: &[Value], key: Option<&str>) {
    let place = |item: &Value| {
        order.iter().position(|named| match key {
            Some(key) => named[key] == item[key],
            None => named == item,
        })
    };
    let places: Vec<_> = (0..list.len())
        .filter(|at| place(&list[*at]).is_some())
        .collect();
    let mut named: Vec<_> = places.iter().map(|at| list[*at].clone()).collect();
    named.sort_by_key(place);
    for (at, item) in places.into_iter().zip(named) {
        list[at] = item;
    }
}

fn strategic_list<'a>(
    kind: &Kind,
    list: &mut Value,
    patch: &'a [Value],
    path: &mut Vec<&'a str>,
) -> Result<(), Refusal> {
    let is_directive = |item: &Value, how: &str| item["$patch"] == how;
    if patch.iter().any(|item| is_directive(item, "replace")) {
        let items = patch.iter().filter(|item| !is_directive(item, "replace"));
        *list = items.cloned().collect();
        return Ok(());
    }
    let Some(key) = schema::merge_key(kind, path) else {
        *list = patch.to_vec().into();
        return Ok(());
    };
    if !list.is_array() {
        *list = json!([]);
    }
    let Value::Array(list) = list else {
        return Ok(());
    };
    for item in patch {
        let Some(key) = &key else {
            if !list.contains(item) {
                list.push(item.clone());
            }
            continue;
        };
        if item[key].is_null() {
            let name = path.last().copied().unwrap_or_default();
            let why = format!("map: {item} does not contain declared merge key: {key} ({name})");
            return Err(Refusal::bad_request(why));
        }
        if is_directive(item, "delete") {
            list.retain(|known| known[key] != item[key]);
            continue;
        }
        match list.iter_mut().find(|known| known[key] == item[key]) {
            Some(known) => strategic_at(kind, known, item, path)?,
            None => {
                let mut new = Value::Null;
                strategic_at(kind, &mut new, item, path)?;
                list.push(new);
            }
        }
    }
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
                json!([{"name": "k", "value": "v"}, {"name": "l", "value": "w"}]),
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
                json!(["x/one", "x/two"]),
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
            strategic(&kind, &mut patched, &patch).unwrap();
            assert_eq!(patched.pointer(path), Some(&expected), "{patch}");
        }
        let keyless = json!({"spec": {"containers": [{"image": "z"}]}});
        assert!(strategic(&kind, &mut pod.clone(), &keyless).is_err());
    }
}

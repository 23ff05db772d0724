//! Schemas: in flow objects, out come the fields that they should not have and those that are
//! wrong. Those of custom resources are in their definitions,
//! those of built-in kinds in the table of types.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::Value;

use super::{bounds, validation};
use crate::{
    server::Refusal,
    testing::{
        kinds::{
            Kind,
            types::{self, Field, Of, Shape},
        },
        requests::{
            gojson,
            pages::not_base64,
            target::{Invalid, not_implemented},
        },
        values::{
            json::{items, map, members, text, texts},
            paths::join,
            quantity,
        },
    },
};

/// What a schema may ask for that is not checked here.
const UNCHECKED: &[&str] = &["x-kubernetes-validations"];

const OBJECT_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";

/// The schema of a kind; null if it has none.
pub(crate) fn of(kind: &Kind) -> &Value {
    match &kind.custom {
        Some(version) => &version["schema"]["openAPIV3Schema"],
        None => kind.type_name().map_or(&Value::Null, types::schema),
    }
}

/// What a reference leads to.
pub(crate) fn resolve(schema: &Value) -> &Value {
    match schema["$ref"]
        .as_str()
        .and_then(|path| path.strip_prefix(types::REFERENCE))
    {
        Some(name) => types::schema(name),
        None => schema,
    }
}

/// The schema of a field; `None` if there may be no such field.
pub(crate) fn field<'a>(schema: &'a Value, name: &str, is_root: bool) -> Option<&'a Value> {
    if is_root && matches!(name, "apiVersion" | "kind") {
        return Some(&Value::Null);
    }
    if is_root && name == "metadata" {
        return Some(types::schema(OBJECT_META));
    }
    match (&schema["properties"][name], &schema["additionalProperties"]) {
        (field @ Value::Object(_), _) => Some(field),
        (_, more @ Value::Object(_)) => Some(more),
        (_, Value::Bool(true)) => Some(&Value::Null),
        _ if schema["x-kubernetes-preserve-unknown-fields"] == true => Some(&Value::Null),
        // Nothing is said about it.
        _ if schema["properties"].is_null() && schema["type"].is_null() => Some(&Value::Null),
        _ => None,
    }
}

/// Goes through an object's fields: `unknown` is called for those that its schema does not have,
/// and says whether they are removed. Defaults are filled in.
fn walk(value: &mut Value, schema: &Value, path: &str, unknown: &mut dyn FnMut(String) -> bool) {
    let schema = resolve(schema);
    match value {
        Value::Object(map) => {
            // What is filled in has defaults of its own.
            for (name, field) in members(&schema["properties"]) {
                let is_missing = map.get(name).is_none_or(Value::is_null);
                if let (true, Some(value)) = (is_missing, field.get("default")) {
                    map.insert(name.clone(), value.clone());
                }
            }
            let is_root = path.is_empty() || schema["x-kubernetes-embedded-resource"] == true;
            map.retain(|name, value| match field(schema, name, is_root) {
                Some(field) => {
                    walk(value, field, &join(path, name), unknown);
                    true
                }
                None => !unknown(join(path, name)),
            });
        }
        Value::Array(items) => {
            for (at, item) in items.iter_mut().enumerate() {
                walk(item, &schema["items"], &format!("{path}[{at}]"), unknown);
            }
        }
        _ => {}
    }
}

/// Removes what an object has and its schema has not, and fills in the defaults
/// (`k8s.io/apiextensions-apiserver/pkg/apiserver/schema/{pruning,defaulting}`).
pub(crate) fn prune(kind: &Kind, object: &mut Value, is_applied: bool) {
    if of(kind).is_object() {
        // What is applied is not decoded as its kind.
        if kind.custom.is_some() && !is_applied {
            drop_nulls(object, of(kind));
        }
        walk(object, of(kind), "", &mut |_| true);
    }
}

/// Removes nulls where there may be none (`PruneNonNullableNullsWithoutDefaults`).
fn drop_nulls(value: &mut Value, schema: &Value) {
    match value {
        Value::Object(map) => map.retain(|name, value| {
            let inner = match &schema["properties"][name] {
                Value::Null => &schema["additionalProperties"],
                field => field,
            };
            drop_nulls(value, inner);
            !value.is_null() || !inner.is_object() || inner["nullable"] == true
        }),
        Value::Array(items) => items
            .iter_mut()
            .for_each(|item| drop_nulls(item, &schema["items"])),
        _ => {}
    }
}

pub(crate) fn unknown_fields(kind: &Kind, object: &Value) -> Vec<String> {
    let mut unknown = Vec::new();
    if of(kind).is_object() {
        walk(&mut object.clone(), of(kind), "", &mut |path| {
            unknown.push(path);
            false
        });
    }
    unknown
}

/// Refuses an object whose fields are not of their types: it cannot be read at all. Of a custom
/// resource that is its metadata.
pub(crate) fn check_types(kind: &Kind, object: &Value, is_converted: bool) -> Result<(), Refusal> {
    let fault = match kind.custom {
        Some(_) => first_fault(&object["metadata"], types::schema(OBJECT_META), "metadata"),
        None => first_fault(object, of(kind), ""),
    };
    let Some(mut fault) = fault else {
        return Ok(());
    };
    let of = kind.type_name().unwrap_or(OBJECT_META);
    if kind.custom.is_some() {
        // Its metadata is read alone.
        fault.field = fault.field.trim_start_matches("metadata.").to_owned();
    }
    let (kind, version) = (&kind.kind, &kind.resource.version);
    Err(Refusal::bad_request(match fault.message.split_once('\t') {
        Some((found, wanted)) if is_converted => {
            let why = unconverted(found, wanted);
            format!("cannot be handled as a {kind}: {why}")
        }
        _ => {
            let why = unmarshalled(of, &fault);
            format!("{kind} in version {version:?} cannot be handled as a {kind}: {why}")
        }
    }))
}

/// Why Go cannot read JSON into a type, in which fields are called by the innermost struct and a path
/// with the names of structs that are inlined, but without items and keys.
fn unmarshalled(of: &str, Invalid { field, message, .. }: &Invalid) -> String {
    let Some((found, wanted)) = message.split_once('\t') else {
        return message.clone();
    };
    let short = |name: &str| name.rsplit('.').next().unwrap_or_default().to_owned();
    let (mut of, mut inside, mut path) = (Some(of), short(of), Vec::new());
    for name in field.split('.') {
        let name = name.split('[').next().unwrap_or_default();
        // The keys of maps are left out, and what is in texts.
        let Some(outer) = of else { break };
        inside = short(outer);
        let holds = |inline: &&Field| match &inline.of {
            Of::Type(inner) => inline.is_inline() && types::field(inner, name).is_some(),
            Of::Scalar(_) => false,
        };
        if let Some(Of::Type(inline)) = types::fields(outer).iter().find(holds).map(|f| &f.of) {
            path.push(short(inline));
        }
        path.push(name.to_owned());
        of = match types::field(outer, name) {
            Some(Field {
                of: Of::Type(inner),
                shape,
                ..
            }) if *shape != Shape::Map => Some(&**inner),
            _ => None,
        };
    }
    let path = path.join(".");
    let wanted = wanted.replace("intstr.IntOrString", "int32");
    format!("json: cannot unmarshal {found} into Go struct field {inside}.{path} of type {wanted}")
}

/// Likewise of a deletion.
pub(crate) fn check_options(options: &Value) -> Result<(), Refusal> {
    let of = types::full("meta.DeleteOptions");
    let fault = first_fault(options, types::schema(&of), "");
    fault.map_or(Ok(()), |fault| {
        Err(Refusal::bad_request(unmarshalled(&of, &fault)))
    })
}

/// The first field that is not of its type.
fn first_fault(value: &Value, schema: &Value, path: &str) -> Option<Invalid> {
    let mut faults = Vec::new();
    check(value, schema, path, false, &mut faults);
    faults.into_iter().next()
}

/// Why Go cannot turn a value that it has read into a type
/// (`k8s.io/apimachinery/pkg/runtime/converter.go`).
pub(crate) fn unconverted(found: &str, wanted: &str) -> String {
    let found = match found {
        "array" => "slice",
        "object" => "map",
        found => found.split(' ').next().unwrap_or(found),
    };
    match wanted {
        "int32" | "int64" if found == "number" => format!("cannot convert float64 to {wanted}"),
        "string" if found == "number" => "cannot convert int64 to string".to_owned(),
        wanted if wanted.starts_with("[]") => format!("cannot restore slice from {found}"),
        wanted if wanted.starts_with("map[") => format!("cannot restore map from {found}"),
        wanted if wanted.contains('.') => format!("cannot restore struct from: {found}"),
        wanted => format!("unrecognized type: {wanted}"),
    }
}

/// What is wrong with a custom resource.
pub(crate) fn faults(kind: &Kind, object: &Value) -> Vec<Invalid> {
    let mut faults = Vec::new();
    if kind.custom.is_some() {
        check(object, of(kind), "", true, &mut faults);
    }
    faults
}

fn is_of_type(value: &Value, schema: &Value) -> bool {
    let is_integer =
        value.is_i64() || value.is_u64() || value.as_f64().is_some_and(|v| v.fract() == 0.0);
    if schema["x-kubernetes-int-or-string"] == true {
        return is_integer || value.is_string();
    }
    match text(&schema["type"]) {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "integer" => is_integer,
        "number" => value.is_number(),
        _ => true,
    }
}

fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn go_type(schema: &Value) -> String {
    if let Some(name) = schema["$ref"].as_str() {
        let mut parts = name.rsplit('.');
        let (kind, package) = (
            parts.next().unwrap_or(name),
            parts.next().unwrap_or_default(),
        );
        return format!("{package}.{kind}");
    }
    match (text(&schema["type"]), text(&schema["format"])) {
        ("array", _) => format!("[]{}", go_type(&schema["items"])),
        ("object", _) if schema["properties"].is_object() => "v1.ObjectMeta".to_owned(),
        ("object", _) if resolve(&schema["additionalProperties"])["format"] == "quantity" => {
            "v1.ResourceList".to_owned()
        }
        ("object", _) => format!("map[string]{}", go_type(&schema["additionalProperties"])),
        ("boolean", _) => "bool".to_owned(),
        ("integer", "") => "int64".to_owned(),
        ("integer", format) => format.to_owned(),
        ("number", _) => "float64".to_owned(),
        ("", _) if schema["x-kubernetes-int-or-string"] == true => "intstr.IntOrString".to_owned(),
        (_, "byte") => "[]uint8".to_owned(),
        _ => "string".to_owned(),
    }
}

pub(crate) fn go_type_of(value: &Value) -> String {
    let of = type_of(value).replace("boolean", "bool");
    of.replace("integer", "number")
}

pub(crate) fn check(
    value: &Value,
    given: &Value,
    path: &str,
    is_custom: bool,
    faults: &mut Vec<Invalid>,
) {
    let schema = resolve(given);
    if value.is_null() && (schema["nullable"] == true || !is_custom) {
        return;
    }
    // Of a type of Go's no integer has a point.
    let is_integer = schema["type"] == "integer" || schema["x-kubernetes-int-or-string"] == true;
    let is_odd = !is_custom && value.is_f64() && is_integer;
    if is_odd || !is_of_type(value, schema) {
        let found = type_of(value);
        let wanted = schema["type"].as_str().unwrap_or("integer,string");
        let message = match is_custom {
            true => format!(
                "Invalid value: {found:?}: {path} in body must be of type {wanted}: {found:?}"
            ),
            false if value.is_f64() => format!("number {value}\t{}", go_type(given)),
            false => format!("{}\t{}", go_type_of(value), go_type(given)),
        };
        let reason = "FieldValueTypeInvalid";
        faults.push(Invalid {
            reason,
            ..Invalid::new(path, message)
        });
        if is_custom {
            bounds::one_of(value, schema, path, faults);
        }
        return;
    }
    if is_custom {
        bounds::limits(value, schema, path, faults);
        bounds::junctions(value, schema, path, faults);
    } else if schema["format"] == "quantity" {
        let why = validation::faults("resource-quantity", &quantity::spelled(value));
        // Who finds no number does not go on.
        faults.extend(why.into_iter().take(1).map(|why| Invalid::new(path, why)));
    } else if schema["format"] == "byte"
        && let Err(error) = STANDARD.decode(text(value))
    {
        faults.push(Invalid::new(path, not_base64(&error, text(value))));
    } else if schema["format"] == "date-time"
        && let Some(why) = gojson::no_time(text(value), schema["pattern"].is_string())
    {
        faults.push(Invalid::new(path, why));
    }
    match value {
        Value::Object(map) => {
            // Nulls are dropped.
            let is_there = |name: &str| map.get(name).is_some_and(|value| !value.is_null());
            let required = texts(&schema["required"]).filter(|name| is_custom && !is_there(name));
            let missing: Vec<_> = required.collect();
            for name in &missing {
                faults.push(Invalid::required(join(path, name), ""));
            }
            if is_custom && schema["x-kubernetes-embedded-resource"] == true {
                faults.extend(unnamed(value, path));
            }
            for (name, value) in map {
                let is_root = path.is_empty();
                if is_root && is_custom && matches!(&**name, "apiVersion" | "kind" | "metadata") {
                    continue;
                }
                if missing.contains(&&**name) {
                    continue;
                }
                if let Some(field) = field(schema, name, is_root) {
                    check(value, field, &join(path, name), is_custom, faults);
                }
            }
        }
        Value::Array(items) => {
            for (at, item) in items.iter().enumerate() {
                let path = format!("{path}[{at}]");
                check(item, &schema["items"], &path, is_custom, faults);
                let name = |item: &Value| match text(&schema["x-kubernetes-list-type"]) {
                    "set" => Some(item.clone()),
                    "map" => {
                        let keys = texts(&schema["x-kubernetes-list-map-keys"]);
                        Some(
                            keys.map(|key| (key.to_owned(), item[key].clone()))
                                .collect(),
                        )
                    }
                    _ => None,
                };
                let named = name(item).filter(|_| is_custom);
                if let Some(named) = named
                    && items[..at]
                        .iter()
                        .any(|item| name(item).as_ref() == Some(&named))
                {
                    let message = format!("Duplicate value: {named}");
                    faults.push(Invalid::new(path, message));
                }
            }
        }
        _ => {}
    }
}

/// Whether an object in an object does not say of which kind it is
/// (`k8s.io/apiextensions-apiserver/pkg/apiserver/schema/objectmeta/validation.go`).
fn unnamed(object: &Value, path: &str) -> Vec<Invalid> {
    let fault = |name| match &object[name] {
        Value::Null => Some(Invalid::required(join(path, name), "")),
        given if text(given).is_empty() => {
            let given = given.to_string();
            Some(Invalid::value(
                join(path, name),
                &given,
                "must not be empty",
            ))
        }
        _ => None,
    };
    ["apiVersion", "kind"]
        .into_iter()
        .filter_map(fault)
        .collect()
}

/// Refuses what asks for checks that are not done here.
pub(crate) fn unchecked(kind: &Kind, object: &Value) -> Result<(), Refusal> {
    fn find(schema: &Value, found: &mut Vec<&'static str>) {
        for (name, inner) in members(schema) {
            match &**name {
                "properties" => members(inner).for_each(|(_, schema)| find(schema, found)),
                "items" | "additionalProperties" => find(inner, found),
                name => found.extend(UNCHECKED.iter().find(|known| **known == name)),
            }
        }
    }
    let mut found = Vec::new();
    if kind.is("uncalled") {
        found.push("calls of admission's webhooks and policies");
    }
    let versions = &object["spec"]["versions"];
    for version in items(versions).filter(|_| kind.is_definition()) {
        find(&version["schema"]["openAPIV3Schema"], &mut found);
    }
    if kind.is_definition() && object["spec"]["conversion"]["strategy"] == "Webhook" {
        found.push("conversion by webhooks");
    }
    found
        .first()
        .map_or(Ok(()), |what| Err(not_implemented(what)))
}

/// A kind's schema and those that it refers to, under the names that OpenAPI has for them.
pub(crate) fn documents(kinds: &[&Kind]) -> serde_json::Map<String, Value> {
    let mut schemas = types::closure(kinds.iter().filter_map(|kind| kind.type_name()));
    for kind in kinds.iter().filter(|kind| kind.custom.is_some()) {
        let of = &kind.resource;
        let mut schema = of_custom(kind);
        schema["x-kubernetes-group-version-kind"] =
            serde_json::json!([{"group": of.group, "version": of.version, "kind": kind.kind}]);
        schemas.extend(types::closure([OBJECT_META]));
        schemas.insert(format!("{}.{}.{}", of.group, of.version, kind.kind), schema);
    }
    schemas
}

/// A custom resource's schema, with what every object has.
fn of_custom(kind: &Kind) -> Value {
    let mut schema = of(kind).clone();
    map(&mut schema).entry("type").or_insert("object".into());
    let properties = &mut schema["properties"];
    for name in ["apiVersion", "kind"] {
        properties[name] = serde_json::json!({"type": "string"});
    }
    properties["metadata"] =
        serde_json::json!({"$ref": format!("{}{OBJECT_META}", types::REFERENCE)});
    schema
}

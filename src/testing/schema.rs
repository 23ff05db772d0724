//! Schemas: in flow objects, out come the fields that they should not have. Those of custom
//! resources are in their definitions, those of built-in kinds in the types of k8s-openapi.

use serde_json::{Value, json};

use super::{kinds::Kind, target::Invalid};
use crate::server::Refusal;

/// What a schema may ask for that is not checked here.
const UNCHECKED: &[&str] = &[
    "pattern",
    "x-kubernetes-validations",
    "oneOf",
    "anyOf",
    "not",
    "format",
    "multipleOf",
];

fn of(kind: &Kind) -> Option<&Value> {
    let schema = &kind.custom.as_ref()?.schema;
    schema.is_object().then_some(schema)
}

/// The schema of a field; `None` if there may be no such field.
fn field<'a>(schema: &'a Value, name: &str) -> Option<&'a Value> {
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

/// Goes through the fields of a custom resource: `unknown` is called for those that its schema
/// does not have, and says whether they are removed.
fn walk(value: &mut Value, schema: &Value, path: &str, unknown: &mut dyn FnMut(String) -> bool) {
    match value {
        Value::Object(map) => {
            let is_root = path.is_empty() || schema["x-kubernetes-embedded-resource"] == true;
            map.retain(|name, value| {
                if is_root && matches!(&**name, "apiVersion" | "kind" | "metadata") {
                    return true;
                }
                let path = match path {
                    "" => name.clone(),
                    path => format!("{path}.{name}"),
                };
                match field(schema, name) {
                    Some(field) => {
                        walk(value, field, &path, unknown);
                        true
                    }
                    None => !unknown(path),
                }
            });
            let properties = schema["properties"].as_object().into_iter().flatten();
            for (name, field) in properties {
                let is_missing = map.get(name).is_none_or(Value::is_null);
                if let (true, Some(value)) = (is_missing, field.get("default")) {
                    map.insert(name.clone(), value.clone());
                }
            }
        }
        Value::Array(items) => {
            for (at, item) in items.iter_mut().enumerate() {
                walk(item, &schema["items"], &format!("{path}[{at}]"), unknown);
            }
        }
        _ => {}
    }
}

/// Removes what a custom resource has and its schema has not, and fills in the defaults
/// (`k8s.io/apiextensions-apiserver/pkg/apiserver/schema/{pruning,defaulting}`).
pub(super) fn prune(kind: &Kind, object: &mut Value) {
    if let Some(schema) = of(kind) {
        walk(object, schema, "", &mut |_| true);
    }
}

/// The fields that an object has and its schema has not; `None` if there is no schema to ask.
pub(super) fn unknown_fields(kind: &Kind, object: &Value) -> Option<Vec<String>> {
    if kind.custom.is_none() {
        return built_in::unknown_fields(kind, object);
    }
    let mut unknown = Vec::new();
    if let Some(schema) = of(kind) {
        walk(&mut object.clone(), schema, "", &mut |path| {
            unknown.push(path);
            false
        });
    }
    Some(unknown)
}

/// What is wrong with an object.
pub(super) fn faults(kind: &Kind, object: &Value) -> Result<Vec<Invalid>, Refusal> {
    let mut faults = Vec::new();
    match of(kind) {
        Some(schema) => check(object, schema, "", &mut faults),
        None if kind.custom.is_none() => built_in::check(kind, object)?,
        None => {}
    }
    Ok(faults)
}

fn is_of_type(value: &Value, schema: &Value) -> bool {
    let is_integer =
        value.is_i64() || value.is_u64() || value.as_f64().is_some_and(|v| v.fract() == 0.0);
    if schema["x-kubernetes-int-or-string"] == true {
        return is_integer || value.is_string();
    }
    match schema["type"].as_str() {
        Some("object") => value.is_object(),
        Some("array") => value.is_array(),
        Some("string") => value.is_string(),
        Some("boolean") => value.is_boolean(),
        Some("integer") => is_integer,
        Some("number") => value.is_number(),
        _ => true,
    }
}

fn check(value: &Value, schema: &Value, path: &str, faults: &mut Vec<Invalid>) {
    if value.is_null() && schema["nullable"] == true {
        return;
    }
    if !is_of_type(value, schema) {
        let wanted = schema["type"].as_str().unwrap_or("integer or string");
        let found = match value {
            Value::Null => "null",
            Value::Bool(_) => "boolean",
            Value::Number(_) => "number",
            Value::String(_) => "string",
            Value::Array(_) => "array",
            Value::Object(_) => "object",
        };
        let why = format!("{path} in body must be of type {wanted}: {found:?}");
        faults.push(Invalid {
            field: path.to_owned(),
            reason: "FieldValueTypeInvalid",
            message: format!("Invalid value: {found:?}: {why}"),
        });
        return;
    }
    let mut fault = |why: String| {
        faults.push(Invalid::value(
            path,
            &value.to_string(),
            &format!("{path} in body {why}"),
        ));
    };
    let size = match value {
        Value::String(text) => Some(("Length", "chars long", text.chars().count() as u64)),
        Value::Array(items) => Some(("Items", "items", items.len() as u64)),
        Value::Object(map) => Some(("Properties", "properties", map.len() as u64)),
        _ => None,
    };
    if let Some((of, unit, size)) = size {
        if let Some(least) = schema[format!("min{of}")]
            .as_u64()
            .filter(|least| size < *least)
        {
            fault(format!("should be at least {least} {unit}"));
        }
        if let Some(most) = schema[format!("max{of}")]
            .as_u64()
            .filter(|most| size > *most)
        {
            fault(format!("should be at most {most} {unit}"));
        }
    }
    if let Some(number) = value.as_f64() {
        if let Some(least) = schema["minimum"].as_f64().filter(|least| number < *least) {
            fault(format!("should be greater than or equal to {least}"));
        }
        if let Some(most) = schema["maximum"].as_f64().filter(|most| number > *most) {
            fault(format!("should be less than or equal to {most}"));
        }
    }
    if let Some(values) = schema["enum"]
        .as_array()
        .filter(|values| !values.contains(value))
    {
        let values: Vec<_> = values.iter().map(Value::to_string).collect();
        faults.push(Invalid {
            field: path.to_owned(),
            reason: "FieldValueNotSupported",
            message: format!(
                "Unsupported value: {value}: supported values: {}",
                values.join(", ")
            ),
        });
    }
    match value {
        Value::Object(map) => {
            let join = |name: &str| match path {
                "" => name.to_owned(),
                path => format!("{path}.{name}"),
            };
            let required = schema["required"].as_array().into_iter().flatten();
            for name in required.filter_map(Value::as_str) {
                if !map.contains_key(name) {
                    faults.push(Invalid::required(join(name), ""));
                }
            }
            for (name, value) in map {
                if path.is_empty() && matches!(&**name, "apiVersion" | "kind" | "metadata") {
                    continue;
                }
                if let Some(field) = field(schema, name) {
                    check(value, field, &join(name), faults);
                }
            }
        }
        Value::Array(items) => {
            for (at, item) in items.iter().enumerate() {
                check(item, &schema["items"], &format!("{path}[{at}]"), faults);
            }
        }
        _ => {}
    }
}

/// What a definition's schemas ask for that is not checked here, for a warning.
pub(super) fn unchecked(kind: &Kind, object: &Value) -> Vec<String> {
    fn find(schema: &Value, found: &mut Vec<&'static str>) {
        let Some(map) = schema.as_object() else {
            return;
        };
        for (name, inner) in map {
            if let Some(known) = UNCHECKED.iter().find(|known| *known == name)
                && !found.contains(known)
            {
                found.push(known);
            }
            match name.as_str() {
                "properties" => inner
                    .as_object()
                    .into_iter()
                    .flatten()
                    .for_each(|(_, s)| find(s, found)),
                "items" | "additionalProperties" => find(inner, found),
                _ => {}
            }
        }
    }
    if kind.custom.is_some() || kind.resource.plural != "customresourcedefinitions" {
        return Vec::new();
    }
    let mut found = Vec::new();
    for version in object["spec"]["versions"].as_array().into_iter().flatten() {
        find(&version["schema"]["openAPIV3Schema"], &mut found);
    }
    if object["spec"]["conversion"]["strategy"] == json!("Webhook") {
        found.push("conversion by webhooks");
    }
    let text =
        |what: &str| format!("not implemented by the embedded server: {what} is not checked");
    found.into_iter().map(text).collect()
}

/// Built-in kinds, by the types of k8s-openapi.
#[cfg(feature = "k8s-openapi")]
mod built_in {
    use k8s_openapi::api::{
        apps::v1 as apps, autoscaling::v2 as autoscaling, batch::v1 as batch,
        coordination::v1 as coordination, core::v1 as core, discovery::v1 as discovery,
        networking::v1 as networking, policy::v1 as policy, rbac::v1 as rbac,
        scheduling::v1 as scheduling, storage::v1 as storage,
    };
    use serde::{Serialize, de::DeserializeOwned};
    use serde_json::Value;

    use super::Kind;
    use crate::server::Refusal;

    /// An object as its type keeps it.
    fn keep<T: Serialize + DeserializeOwned>(object: &Value) -> serde_json::Result<Value> {
        serde_json::to_value(T::deserialize(object)?)
    }

    macro_rules! types {
        ($kind:expr, $object:expr, $($module:ident: $($name:ident),+;)+) => {
            match &*$kind.kind {
                $($(stringify!($name) => Some(keep::<$module::$name>($object)),)+)+
                _ => None,
            }
        };
    }

    /// What the type of a kind keeps of an object; `None` if there is no such type here.
    fn kept(kind: &Kind, object: &Value) -> Option<serde_json::Result<Value>> {
        types! { kind, object,
            core: ConfigMap, Endpoints, Event, LimitRange, Namespace, Node, PersistentVolume,
                PersistentVolumeClaim, Pod, PodTemplate, ReplicationController, ResourceQuota,
                Secret, Service, ServiceAccount;
            apps: ControllerRevision, DaemonSet, Deployment, ReplicaSet, StatefulSet;
            autoscaling: HorizontalPodAutoscaler;
            batch: CronJob, Job;
            coordination: Lease;
            discovery: EndpointSlice;
            networking: Ingress, IngressClass, NetworkPolicy;
            policy: PodDisruptionBudget;
            rbac: ClusterRole, ClusterRoleBinding, Role, RoleBinding;
            scheduling: PriorityClass;
            storage: CSIDriver, CSINode, StorageClass, VolumeAttachment;
        }
    }

    pub(super) fn unknown_fields(kind: &Kind, object: &Value) -> Option<Vec<String>> {
        let mut unknown = Vec::new();
        // What is not of the type at all is refused in `check`.
        if let Ok(kept) = kept(kind, object)? {
            compare(object, &kept, "", &mut unknown);
        }
        Some(unknown)
    }

    fn compare(object: &Value, kept: &Value, path: &str, unknown: &mut Vec<String>) {
        match (object, kept) {
            (Value::Object(map), Value::Object(kept)) => {
                for (name, value) in map.iter().filter(|(_, value)| !value.is_null()) {
                    let path = match path {
                        "" => name.clone(),
                        path => format!("{path}.{name}"),
                    };
                    match kept.get(name) {
                        Some(kept) => compare(value, kept, &path, unknown),
                        None => unknown.push(path),
                    }
                }
            }
            (Value::Array(items), Value::Array(kept)) => {
                for (at, (item, kept)) in items.iter().zip(kept).enumerate() {
                    compare(item, kept, &format!("{path}[{at}]"), unknown);
                }
            }
            _ => {}
        }
    }

    pub(super) fn check(kind: &Kind, object: &Value) -> Result<(), Refusal> {
        let error = match kept(kind, object) {
            Some(Err(error)) => error.to_string(),
            _ => return Ok(()),
        };
        // What is required is another's business.
        if error.starts_with("missing field") {
            return Ok(());
        }
        let (kind, version) = (&kind.kind, &kind.resource.version);
        Err(Refusal::bad_request(format!(
            "{kind} in version {version:?} cannot be handled as a {kind}: json: {error}"
        )))
    }
}

#[cfg(not(feature = "k8s-openapi"))]
mod built_in {
    use serde_json::Value;

    use super::Kind;
    use crate::server::Refusal;

    pub(super) fn unknown_fields(_: &Kind, _: &Value) -> Option<Vec<String>> {
        None
    }

    pub(super) fn check(_: &Kind, _: &Value) -> Result<(), Refusal> {
        Ok(())
    }
}

//! Scale and eviction: in flow objects, out come other views of them.

use http::Response;
use serde_json::{Value, json};

use super::{
    body, checks, delete,
    json::{at, at_mut, items, members, set, text, texts},
    kinds::Kind,
    objects,
    paths::plain,
    router::{self, Body},
    schema, selector,
    target::{Invalid, Target, invalid, refusal},
    writes::Write,
};
use crate::server::Refusal;

/// Where a definition says where an object has its scale, the wish, the state and the selector, and
/// where built-in kinds have them.
pub(super) const SCALE: [(&str, &str); 3] = [
    ("specReplicasPath", ".spec.replicas"),
    ("statusReplicasPath", ".status.replicas"),
    ("labelSelectorPath", ".spec.selector"),
];

fn paths(kind: &Kind) -> [&str; 3] {
    SCALE.map(|(field, path)| match &kind.custom {
        None => path,
        Some(version) => text(&version["subresources"]["scale"][field]),
    })
}

/// The selector as text (`metav1.FormatLabelSelector`).
pub(super) fn selector_text(selector: &Value) -> String {
    if let Some(text) = selector.as_str() {
        return text.to_owned();
    }
    // A ReplicationController has the labels alone.
    let labels = match &selector["matchLabels"] {
        Value::Null if selector["matchExpressions"].is_null() => selector,
        labels => labels,
    };
    let labels =
        members(labels).filter_map(|(key, value)| Some(format!("{key}={}", value.as_str()?)));
    let expressions = items(&selector["matchExpressions"]).map(|expression| {
        let key = text(&expression["key"]);
        let values = texts(&expression["values"]).collect::<Vec<_>>().join(",");
        match text(&expression["operator"]) {
            "In" => format!("{key} in ({values})"),
            "NotIn" => format!("{key} notin ({values})"),
            "DoesNotExist" => format!("!{key}"),
            _ => key.to_owned(),
        }
    });
    labels.chain(expressions).collect::<Vec<_>>().join(",")
}

/// The `Scale` of an object for who asks
/// (`k8s.io/apiextensions-apiserver/pkg/registry/customresource/etcd.go`).
pub(super) fn read(kind: &Kind, object: &Value) -> Result<Value, Refusal> {
    let [wish, ..] = paths(kind);
    if kind.custom.is_none() || !at(object, wish).is_null() {
        return scale(kind, object);
    }
    let why = format!("the spec replicas field {wish:?} does not exist");
    let words = format!("Internal error occurred: {why}");
    let cause = ("", why, String::new());
    Err(refusal((500, "InternalError"), words, [""; 3], [cause]))
}

/// What is wrong with the wish of a custom resource that has a scale
/// (`k8s.io/apiextensions-apiserver/pkg/registry/customresource/validator.go`).
pub(super) fn fault(kind: &Kind, object: &Value) -> Option<Invalid> {
    let [wish, ..] = paths(kind);
    let value = at(object, wish);
    let (found, of) = match value {
        _ if kind.custom.is_none() || !kind.has("scale") => return None,
        Value::Null => return None,
        Value::Number(number) => match number.as_i64() {
            Some(0..) => return None,
            Some(_) => {
                let why = "should be a non-negative integer";
                return Some(Invalid::value(wish, &value.to_string(), why));
            }
            None => {
                let number = number.as_f64().unwrap_or_default();
                (number.to_string(), "float64".to_owned())
            }
        },
        value => (plain(value), schema::go_type_of(value)),
    };
    let why = format!("{wish} accessor error: {found} is of the type {of}, expected int64");
    Some(Invalid::value(wish, "0", &why))
}

pub(super) fn scale(kind: &Kind, object: &Value) -> Result<Value, Refusal> {
    let [wish, state, selector] = paths(kind);
    let number = |path| at(object, path).as_i64().unwrap_or(0);
    let wish = match number(wish) {
        0 => json!({}),
        replicas => json!({"replicas": replicas}),
    };
    let mut scale = json!({
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": {},
        "spec": wish,
        "status": {"replicas": number(state)},
    });
    for field in "name namespace uid resourceVersion creationTimestamp".split(' ') {
        set(&mut scale["metadata"], field, &object["metadata"][field]);
    }
    if !selector.is_empty() && !at(object, selector).is_null() {
        scale["status"]["selector"] = selector_text(at(object, selector)).into();
    }
    Ok(scale)
}

pub(super) fn scaled(target: &Target, object: &Value, scale: &Value) -> Result<Value, Refusal> {
    let wanted = &scale["spec"]["replicas"];
    let wanted = if wanted.is_null() { &json!(0) } else { wanted };
    let [wish, ..] = paths(&target.kind);
    if wanted.as_i64().is_none_or(|replicas| replicas < 0) {
        let (of, why) = (target.kind.qualified(), "should be a non-negative integer");
        let (of, field, why) = match &target.kind.custom {
            Some(_) => (&*of, wish, why),
            None => (
                "Scale.autoscaling",
                "spec.replicas",
                "must be greater than or equal to 0",
            ),
        };
        let field = Invalid::value(field, &wanted.to_string(), why);
        return Err(invalid(of, target.name(), vec![field]));
    }
    let mut object = object.clone();
    if let Some(replicas) = at_mut(&mut object, wish) {
        *replicas = wanted.clone();
    }
    object["metadata"]["resourceVersion"] = scale["metadata"]["resourceVersion"].clone();
    Ok(object)
}

/// Answers an eviction: a deletion, unless a budget forbids it
/// (`k8s.io/kubernetes/pkg/registry/core/pod/storage/eviction.go`).
pub(super) fn evict(write: &Write<'_>) -> Result<Response<Body>, Refusal> {
    let (cluster, target) = (write.cluster, write.target);
    let mut eviction = body::object(&write.media, &write.body, "Eviction")?;
    if eviction["apiVersion"] == "policy/v1beta1" {
        eviction["apiVersion"] = "policy/v1".into();
    }
    write.check_type(&mut eviction, "policy/v1", "Eviction")?;
    if eviction["metadata"]["name"] != target.name() {
        let why = "name in URL does not match name in Eviction object";
        return Err(Refusal::bad_request(why));
    }
    let pod = objects::find(cluster, target)?;
    let budgets = crate::Resource::namespaced("policy", "v1", "poddisruptionbudgets");
    for (key, budget) in cluster.store.now(&budgets, Some(&target.namespace)) {
        let labels = selector::labels(&selector_text(&budget.json["spec"]["selector"]))?;
        // The number is a controller's, or a test's: nobody else counts here.
        let left = budget.json["status"]["disruptionsAllowed"]
            .as_i64()
            .unwrap_or(0);
        if left <= 0 && selector::selects(&labels, &[], &pod.json) {
            let message = "Cannot evict pod as it would violate the pod's disruption budget.";
            let cause = format!("The disruption budget {} does not allow it now", key.3);
            let cause = ("DisruptionBudget", cause, String::new());
            return Err(refusal(
                (429, "TooManyRequests"),
                message,
                ["", "", ""],
                [cause],
            ));
        }
    }
    checks::options(
        "meta.DeleteOptions",
        "DeleteOptions",
        &eviction["deleteOptions"],
    )?;
    let mut options = delete::Options::parse(&eviction["deleteOptions"]);
    options.dry |= write.dry;
    delete::delete(cluster, &target.kind, target.key(), &options)?;
    Ok(router::success(201, ("code", json!(201))))
}

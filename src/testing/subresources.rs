//! Scale and eviction: in flow objects, out come other views of them.

use http::{Response, StatusCode};
use serde_json::{Value, json};

use super::{
    delete,
    kinds::Kind,
    router::{self, Body},
    selector, store,
    target::{Invalid, Parameters, Target, not_implemented},
    writes::Write,
};
use crate::{
    server::Refusal,
    wire::status::{Status, StatusCause, StatusDetails},
};

/// Where an object has its scale: wish, state, selector.
fn paths(kind: &Kind) -> Result<[String; 3], Refusal> {
    let paths = match &kind.custom {
        None => [".spec.replicas", ".status.replicas", ".spec.selector"].map(str::to_owned),
        Some(custom) => custom
            .scale
            .clone()
            .ok_or_else(|| not_implemented("this scale"))?,
    };
    Ok(paths.map(|path| path.replace('.', "/")))
}

/// The selector as text (`metav1.FormatLabelSelector`).
fn selector_text(selector: &Value) -> String {
    if let Some(text) = selector.as_str() {
        return text.to_owned();
    }
    // A ReplicationController has the labels alone.
    let labels = match &selector["matchLabels"] {
        Value::Null if selector["matchExpressions"].is_null() => selector,
        labels => labels,
    };
    let labels = labels.as_object().into_iter().flatten();
    let labels = labels.filter_map(|(key, value)| Some(format!("{key}={}", value.as_str()?)));
    let expressions = selector["matchExpressions"]
        .as_array()
        .into_iter()
        .flatten();
    let expressions = expressions.map(|expression| {
        let key = expression["key"].as_str().unwrap_or_default();
        let values = expression["values"].as_array().into_iter().flatten();
        let values: Vec<_> = values.filter_map(Value::as_str).collect();
        match expression["operator"].as_str() {
            Some("In") => format!("{key} in ({})", values.join(",")),
            Some("NotIn") => format!("{key} notin ({})", values.join(",")),
            Some("DoesNotExist") => format!("!{key}"),
            _ => key.to_owned(),
        }
    });
    labels.chain(expressions).collect::<Vec<_>>().join(",")
}

/// The `Scale` of an object.
pub(super) fn scale(kind: &Kind, object: &Value) -> Result<Value, Refusal> {
    let [wish, state, selector] = paths(kind)?;
    let number = |path: &str| object.pointer(path).and_then(Value::as_i64).unwrap_or(0);
    let mut scale = json!({
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": {},
        "spec": {"replicas": number(&wish)},
        "status": {"replicas": number(&state)},
    });
    for field in [
        "name",
        "namespace",
        "uid",
        "resourceVersion",
        "creationTimestamp",
    ] {
        let value = &object["metadata"][field];
        if !value.is_null() {
            scale["metadata"][field] = value.clone();
        }
    }
    if let Some(selector) = object.pointer(&selector).map(selector_text) {
        scale["status"]["selector"] = selector.into();
    }
    Ok(scale)
}

/// An object with another scale.
pub(super) fn scaled(target: &Target, object: &Value, scale: &Value) -> Result<Value, Refusal> {
    let wanted = &scale["spec"]["replicas"];
    let wanted = if wanted.is_null() { &json!(0) } else { wanted };
    if wanted.as_i64().is_none_or(|replicas| replicas < 0) {
        let why = "must be greater than or equal to 0";
        let field = Invalid::value("spec.replicas", &wanted.to_string(), why);
        let name = target.name.as_deref().unwrap_or_default();
        return Err(super::target::invalid(
            "Scale.autoscaling",
            name,
            vec![field],
        ));
    }
    let [wish, ..] = paths(&target.kind)?;
    let mut object = object.clone();
    let mut at = &mut object;
    for name in wish.split('/').skip(1) {
        at = &mut at[name];
    }
    *at = wanted.clone();
    let version = &scale["metadata"]["resourceVersion"];
    object["metadata"]["resourceVersion"] = version.clone();
    Ok(object)
}

/// Answers an eviction: a deletion, unless a budget forbids it
/// (`k8s.io/kubernetes/pkg/registry/core/pod/storage/eviction.go`).
pub(super) fn evict(write: &Write<'_>) -> Result<Response<Body>, Refusal> {
    let (cluster, target) = (write.cluster, write.target);
    let eviction = write.object("policy/v1", "Eviction")?;
    let name = target.name.as_deref().unwrap_or_default();
    let key = store::key(target.resource(), &target.namespace, name);
    let pod = cluster
        .store
        .get(&key)
        .ok_or_else(|| target.missing(name))?;
    let budgets = crate::Resource::namespaced("policy", "v1", "poddisruptionbudgets");
    let budgets = cluster.store.list(&budgets, Some(&target.namespace), None);
    for (_, budget) in budgets.unwrap_or_default().0 {
        let selector = selector_text(&budget.json["spec"]["selector"]);
        let labels = selector::labels(&selector)?;
        if !selector::selects(&labels, &[], &pod.json) {
            continue;
        }
        // The number is a controller's, or a test's: nobody else counts here.
        if budget.json["status"]["disruptionsAllowed"]
            .as_i64()
            .unwrap_or(0)
            <= 0
        {
            let message = "Cannot evict pod as it would violate the pod's disruption budget.";
            let mut status = Status::failure(429, "TooManyRequests", message);
            let name = budget.json["metadata"]["name"].as_str().unwrap_or_default();
            status.details = Some(StatusDetails {
                causes: vec![StatusCause {
                    reason: "DisruptionBudget".to_owned(),
                    message: format!("The disruption budget {name} does not allow it now"),
                    field: String::new(),
                }],
                ..StatusDetails::default()
            });
            return Err(Refusal::new(status));
        }
    }
    let parameters = Parameters::default();
    let options = delete::Options::parse(&eviction["deleteOptions"], &parameters, write.dry)?;
    delete::delete(cluster, &target.kind, key, &options)?;
    let mut response = router::object(&json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201,
    }));
    *response.status_mut() = StatusCode::CREATED;
    Ok(response)
}

//! Scale, eviction, binding and approval: in flow objects, out come other views of them, or what such
//! a view makes of them.

use http::Response;
use serde_json::{Value, json};

use super::{Write, update};
use crate::{
    server::Refusal,
    testing::{
        checks::{self, schema},
        kinds::Kind,
        objects::{
            self, delete,
            store::{Next, seconds},
        },
        pods::{self, kubelet, logs},
        requests::{
            body, selector,
            target::{self, Invalid, Target, failed, invalid, refusal},
        },
        router::{self, Body},
        values::{
            json::{at, at_mut, items, items_mut, members, set, some, text, texts},
            paths::{fill, plain},
        },
    },
};

/// Where a definition says where an object has its scale, the wish, the state and the selector, and
/// where built-in kinds have them.
pub(crate) const SCALE: [(&str, &str); 3] = [
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
pub(crate) fn selector_text(selector: &Value) -> String {
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
pub(crate) fn read(kind: &Kind, object: &Value) -> Result<Value, Refusal> {
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
        value if kind.custom.is_none() || !kind.has("scale") || value.is_null() => return None,
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

/// The conditions of one type of a CertificateSigningRequest.
fn of_type<'a>(request: &'a Value, name: &'a str) -> impl Iterator<Item = &'a Value> {
    items(&request["status"]["conditions"]).filter(move |condition| condition["type"] == name)
}

/// What says whether a certificate is given, which is said by `approval` alone.
const DECISIONS: [&str; 2] = ["Approved", "Denied"];

/// Dates the conditions of a CertificateSigningRequest, and keeps those that decide, as far as
/// `status` leaves them (`k8s.io/kubernetes/pkg/registry/certificates/certificates/strategy.go`).
pub(super) fn date(target: &Target, old: &Value, new: &mut Value) {
    if !target.kind.is("asks") || !(target.is("status") || target.is("approval")) {
        return;
    }
    for name in DECISIONS.into_iter().filter(|_| target.is("status")) {
        let mut before = of_type(old, name);
        if before.by_ref().count() == of_type(new, name).count() {
            let mut before = of_type(old, name);
            let kept = items_mut(&mut new["status"]["conditions"]);
            let kept = kept.filter(|condition| condition["type"] == name);
            kept.for_each(|condition| condition.clone_from(before.next().unwrap_or(&Value::Null)));
        }
    }
    let now = Value::from(seconds(logs::now()));
    for condition in items_mut(&mut new["status"]["conditions"]) {
        let same = items(&old["status"]["conditions"]).find(|known| {
            known["type"] == condition["type"] && known["status"] == condition["status"]
        });
        let since = same
            .map_or(&now, |known| &known["lastTransitionTime"])
            .clone();
        fill(condition, &["lastUpdateTime"], &now);
        fill(condition, &["lastTransitionTime"], &since);
    }
}

/// What was said of a CertificateSigningRequest that cannot be, or cannot be taken back
/// (`k8s.io/kubernetes/pkg/apis/certificates/validation/validation.go`).
pub(super) fn decided(target: &Target, old: &Value, new: &Value) -> Vec<Invalid> {
    let mut faults = Vec::new();
    if !target.kind.is("asks") {
        return faults;
    }
    let field = "status.conditions";
    let decisions = items(&new["status"]["conditions"]).map(|condition| text(&condition["type"]));
    let mut decisions = decisions.filter(|name| DECISIONS.contains(name));
    if let Some(first) = decisions.next() {
        let why = "Approved and Denied conditions are mutually exclusive";
        let others = decisions.filter(|name| *name != first);
        faults.extend(others.map(|name| Invalid::value(field, &format!("{name:?}"), why)));
    }
    for name in [DECISIONS[0], DECISIONS[1], "Failed"] {
        let (before, after) = (of_type(old, name).count(), of_type(new, name).count());
        let is_added = after > before && target.is("status") && DECISIONS.contains(&name);
        let what = match () {
            () if after < before => "remove",
            () if is_added => "add",
            () => continue,
        };
        let why = format!("updates may not {what} a condition of type {name:?}");
        faults.push(Invalid::forbidden(field, &why));
    }
    let certificate = |of: &Value| of["status"]["certificate"].clone();
    if !certificate(old).is_null() && certificate(old) != certificate(new) {
        let why = "updates may not modify existing certificate content";
        faults.push(Invalid::forbidden("status.certificate", why));
    }
    faults
}

/// Gives a pod a node (`k8s.io/kubernetes/pkg/registry/core/pod/storage/storage.go`).
pub(super) fn bind(write: &Write<'_>) -> Result<Response<Body>, Refusal> {
    let (cluster, target) = (write.cluster, write.target);
    let mut binding = body::object(&write.media, &write.body, "Binding")?;
    write.check_type(&mut binding, "v1", "Binding")?;
    let (metadata, node) = (&binding["metadata"], &binding["target"]);
    if some(&metadata["namespace"]).is_some_and(|given| given != target.namespace) {
        return Err(target::other_namespace());
    }
    let name = text(&metadata["name"]);
    if target.name.is_none() && name.is_empty() {
        return Err(Refusal::bad_request("Name parameter required."));
    }
    if target
        .name
        .as_deref()
        .is_some_and(|of_path| of_path != name)
    {
        let why = "name in URL does not match name in Binding object";
        return Err(Refusal::bad_request(why));
    }
    let faults = checks::of_type("core.Binding", &binding);
    if !faults.is_empty() {
        // Nobody makes a refusal of it.
        let faults = faults
            .iter()
            .map(|fault| format!("{}: {}", fault.field, fault.message));
        return Err(failed(target::listed(&faults.collect::<Vec<_>>())));
    }
    let pod = Target {
        kind: cluster.kinds.core("pods"),
        name: Some(name.to_owned()),
        ..target.clone()
    };
    let refuse = |why: String| {
        let message = format!("Operation cannot be fulfilled on pods/binding {name:?}: {why}");
        let code = (409, "Conflict");
        Err(refusal(code, message, ["", "pods/binding", name], []))
    };
    let written = cluster.store.write(pod.key(), write.dry, |before| {
        let before = before.ok_or_else(|| pod.missing(name))?;
        for (field, called) in [("uid", "UID"), ("resourceVersion", "ResourceVersion")] {
            let there = &before.json["metadata"][field];
            if some(&metadata[field]).is_some_and(|wanted| there != wanted) {
                let wanted = text(&metadata[field]);
                return Err(update::other(&pod, called, wanted, text(there)));
            }
        }
        let spec = &before.json["spec"];
        if !before.json["metadata"]["deletionTimestamp"].is_null() {
            return refuse(format!(
                "pod {name} is being deleted, cannot be assigned to a host"
            ));
        }
        if let Some(node) = some(&spec["nodeName"]) {
            return refuse(format!("pod {name} is already assigned to node {node:?}"));
        }
        if items(&spec["schedulingGates"]).len() > 0 {
            return refuse(format!("pod {name} has non-empty .spec.schedulingGates"));
        }
        let mut bound = before.clone();
        bound.json["spec"]["nodeName"] = node["name"].clone();
        for field in ["annotations", "labels"] {
            for (name, value) in members(&metadata[field]) {
                bound.json["metadata"][field][name] = value.clone();
            }
        }
        let (status, now) = (&mut bound.json["status"], logs::now());
        pods::condition(status, "PodScheduled", true, None, now);
        Ok(Next::Put(bound))
    })?;
    if let (Some(bound), false) = (written, write.dry) {
        kubelet::start(cluster, &bound.json);
    }
    Ok(router::success(201, ("code", json!(201))))
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

//! Admission: in flow pods that are to be created, out they come with what a cluster gives every pod,
//! or refusals (`k8s.io/kubernetes/plugin/pkg/admission`).

use serde_json::{Value, json};

use super::Write;
use crate::{
    Resource,
    resource::suffix,
    server::Refusal,
    testing::{
        checks::WARNING,
        kinds::Kind,
        objects::{controllers, store},
        pods::{self, logs},
        requests::target::{Invalid, forbidden, not_implemented},
        router::Cluster,
        values::{
            json::{items, items_mut, map, members, push, some, text},
            paths::{self, each, plain},
        },
    },
};

/// Where a container finds the token of its service account.
pub(crate) const TOKEN: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
const TOKEN_VOLUME: &str = "kube-api-access-";

/// What a ResourceQuota limits of pods.
const OF_PODS: [&str; 6] = [
    "cpu",
    "memory",
    "ephemeral-storage",
    "requests.",
    "limits.",
    "hugepages-",
];

/// What a pod must not say other than a class does.
const COMPUTED: &str = "must not be provided in pod spec; priority admission controller computed";

impl Write<'_> {
    /// Admits an object, and gives it what it gets by that.
    pub(super) fn admit(&self, object: &mut Value) -> Result<(), Refusal> {
        let (target, name) = (self.target, text(&object["metadata"]["name"]).to_owned());
        if !target.kind.is_core("pods") {
            return Ok(());
        }
        unchecked(self.cluster, &target.namespace, &object["spec"])?;
        if controllers::is_gated(object) {
            let message = "Scheduling is blocked due to non-empty scheduling gates";
            let (status, why) = (&mut object["status"], ("SchedulingGated", message));
            pods::condition(status, "PodScheduled", false, Some(why), logs::now());
        }
        complete(self.cluster, &target.namespace, &mut object["spec"])
            .map_err(|why| forbidden(target.resource(), &name, &why))
    }
}

fn find(cluster: &Cluster, group: &str, plural: &str, at: (&str, &str)) -> Option<Value> {
    let key = store::key(&cluster.kinds.any(group, plural)?.resource, at.0, at.1);
    cluster.store.get(&key).map(|found| found.json.clone())
}

/// Refuses what a ResourceQuota counts, for nobody counts here.
pub(super) fn counted(cluster: &Cluster, kind: &Kind, namespace: &str) -> Result<(), Refusal> {
    let Resource { group, plural, .. } = &kind.resource;
    let counts = |name: &str| match name.strip_prefix("count/") {
        Some(of) => of == format!("{plural}.{group}").trim_end_matches('.'),
        None => {
            name.split('.').next() == Some(plural)
                || name == "requests.storage" && plural == "persistentvolumeclaims"
                || kind.is_core("pods") && OF_PODS.iter().any(|front| name.starts_with(front))
        }
    };
    let quotas = Resource::namespaced("", "v1", "resourcequotas");
    for (_, quota) in cluster.store.now(&quotas, Some(namespace)) {
        let mut hard = members(&quota.json["spec"]["hard"]);
        if let Some((name, _)) = hard.find(|(name, _)| counts(name)) {
            return Err(not_implemented(format!(
                "{plural} where a ResourceQuota limits {name}"
            )));
        }
    }
    Ok(())
}

/// Refuses what a namespace or a class asks of its pods and nobody looks after here.
fn unchecked(cluster: &Cluster, namespace: &str, spec: &Value) -> Result<(), Refusal> {
    let found = find(cluster, "", "namespaces", ("", namespace)).unwrap_or_default();
    let mut labels = members(&found["metadata"]["labels"]);
    let level = labels.find(|(name, level)| {
        let how = name.strip_prefix("pod-security.kubernetes.io/");
        how.is_some_and(|how| ["enforce", "warn"].contains(&how)) && **level != "privileged"
    });
    let ranges = Resource::namespaced("", "v1", "limitranges");
    let ranges = cluster.store.now(&ranges, Some(namespace));
    let mut limits = ranges
        .iter()
        .flat_map(|(_, range)| items(&range.json["spec"]["limits"]));
    let is_limited = limits.any(|limit| limit["type"] != "PersistentVolumeClaim");
    let class = runtime(cluster, spec).unwrap_or_default();
    match level {
        Some((name, level)) => Err(not_implemented(format!("{name}={}", text(level)))),
        None if members(&spec["resources"]).next().is_some() => {
            Err(not_implemented("resources of a pod as a whole"))
        }
        None if is_limited => Err(not_implemented("pods where a LimitRange is")),
        None if class["scheduling"].is_object() => {
            Err(not_implemented("the scheduling of a RuntimeClass"))
        }
        None => Ok(()),
    }
}

fn runtime(cluster: &Cluster, spec: &Value) -> Option<Value> {
    let name = text(&spec["runtimeClassName"]);
    find(cluster, "node.k8s.io", "runtimeclasses", ("", name))
}

/// Gives a pod its service account, its priority and its tolerations.
pub(crate) fn complete(cluster: &Cluster, namespace: &str, spec: &mut Value) -> Result<(), String> {
    account(cluster, namespace, spec)?;
    priority(cluster, spec)?;
    tolerate(spec);
    match runtime(cluster, spec) {
        None if some(&spec["runtimeClassName"]).is_some() => {
            let name = &spec["runtimeClassName"];
            return Err(format!("pod rejected: RuntimeClass {name} not found"));
        }
        Some(class) if class["overhead"]["podFixed"].is_object() => {
            spec["overhead"] = class["overhead"]["podFixed"].clone();
        }
        _ if spec["overhead"].is_object() => {
            let why = "Pod Overhead set without corresponding RuntimeClass defined Overhead";
            return Err(format!("pod rejected: {why}"));
        }
        _ => {}
    }
    Ok(())
}

/// Lets a pod stay for a while on a node that is not ready.
pub(super) fn tolerate(spec: &mut Value) {
    for key in ["not-ready", "unreachable"] {
        let key = format!("node.kubernetes.io/{key}");
        let is = |value: &Value, wanted: &str| [wanted, ""].contains(&text(value));
        let tolerates =
            |known: &Value| is(&known["key"], &key) && is(&known["effect"], "NoExecute");
        if !items(&spec["tolerations"]).any(tolerates) {
            let toleration = json!({
                "key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300,
            });
            push(&mut spec["tolerations"], toleration);
        }
    }
}

fn account(cluster: &Cluster, namespace: &str, spec: &mut Value) -> Result<(), String> {
    let name = some(&spec["serviceAccountName"])
        .unwrap_or("default")
        .to_owned();
    for field in ["serviceAccountName", "serviceAccount"] {
        spec[field] = name.clone().into();
    }
    let account = find(cluster, "", "serviceaccounts", (namespace, &name));
    let account = account.ok_or_else(|| {
        format!(
            "error looking up service account {namespace}/{name}: serviceaccount {name:?} not found"
        )
    })?;
    if items(&spec["imagePullSecrets"]).len() == 0 && account["imagePullSecrets"].is_array() {
        spec["imagePullSecrets"] = account["imagePullSecrets"].clone();
    }
    let automount = "automountServiceAccountToken";
    if spec[automount] == false || spec[automount].is_null() && account[automount] == false {
        return Ok(());
    }
    let mut volumes = items(&spec["volumes"]).map(|volume| text(&volume["name"]));
    let known = volumes.find(|name| name.starts_with(TOKEN_VOLUME));
    let is_new = known.is_none();
    let volume = known.map_or_else(|| format!("{TOKEN_VOLUME}{}", suffix()), str::to_owned);
    let mut is_needed = false;
    for list in ["initContainers", "containers"] {
        for container in items_mut(map(spec).entry(list).or_insert(Value::Null)) {
            let mounts = map(container).entry("volumeMounts").or_insert(Value::Null);
            if !items(mounts).any(|mount| mount["mountPath"] == TOKEN) {
                push(
                    mounts,
                    json!({"name": volume, "readOnly": true, "mountPath": TOKEN}),
                );
                is_needed = true;
            }
        }
    }
    map(spec).retain(|_, value| !value.is_null());
    if is_needed && is_new {
        let namespace = json!({"apiVersion": "v1", "fieldPath": "metadata.namespace"});
        let sources = json!([
            {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
            {"configMap": {
                "name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}],
            }},
            {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": namespace}]}},
        ]);
        let projected = json!({"sources": sources, "defaultMode": 420});
        push(
            &mut spec["volumes"],
            json!({"name": volume, "projected": projected}),
        );
    }
    Ok(())
}

/// How important a pod is, its class says, or the class of those that have none.
fn priority(cluster: &Cluster, spec: &mut Value) -> Result<(), String> {
    let resource = Resource::cluster("scheduling.k8s.io", "v1", "priorityclasses");
    let classes = cluster.store.now(&resource, None);
    let name = text(&spec["priorityClassName"]).to_owned();
    let class = classes
        .iter()
        .map(|(_, class)| &class.json)
        .find(|class| match &*name {
            "" => class["globalDefault"] == true,
            name => class["metadata"]["name"] == name,
        });
    if let (None, false) = (class, name.is_empty()) {
        return Err(format!("no PriorityClass with name {name} was found"));
    }
    let of = |field: &str, other: Value| class.map_or(other, |class| class[field].clone());
    let value = of("value", 0.into());
    let policy = of("preemptionPolicy", "PreemptLowerPriority".into());
    for (field, what, value) in [
        ("priority", "the integer value of priority", value),
        (
            "preemptionPolicy",
            "the string value of PreemptionPolicy",
            policy,
        ),
    ] {
        let given = paths::plain(&spec[field]);
        let value_text = paths::plain(&value);
        if !given.is_empty() && given != value_text {
            return Err(format!(
                "{what} ({given}) {COMPUTED} {value_text} from the given PriorityClass name"
            ));
        }
        spec[field] = value;
    }
    if let Some(class) = class {
        spec["priorityClassName"] = class["metadata"]["name"].clone();
    }
    Ok(())
}

/// Tells what a pod has twice (`k8s.io/kubernetes/pkg/api/pod/warnings.go`).
pub(crate) fn twice(spec: &Value, at: &str, found: &mut Vec<Invalid>) {
    let mut warn = |field: &str, message: String| {
        found.push(Invalid {
            field: field.to_owned(),
            reason: WARNING,
            message,
        });
    };
    for (path, name) in [
        ("hostAliases/*/ip", "ip"),
        ("imagePullSecrets/*/name", "name"),
    ] {
        let all = each(spec, path, at);
        for (index, (field, value)) in all.iter().enumerate() {
            if all[..index].iter().any(|(_, known)| known == value) {
                warn(field, format!("duplicate {name} {value}"));
            }
        }
    }
    let mut ports = Vec::new();
    let containers = ["initContainers/*", "containers/*"].map(|path| each(spec, path, at));
    for (at, container) in containers.iter().flatten() {
        let variables = each(container, "env/*", at);
        for (index, (field, variable)) in variables.iter().enumerate() {
            let (name, value) = (&variable["name"], text(&variable["value"]));
            let old = format!("$({})", text(name));
            let is_kept = variable["valueFrom"].is_null() && value != old && value.contains(&old);
            if !is_kept
                && variables[..index]
                    .iter()
                    .any(|(_, known)| known["name"] == *name)
            {
                let how = "which may be dropped when using apply";
                warn(field, format!("hides previous definition of {name}, {how}"));
            }
        }
        ports.extend(each(container, "ports/*", at));
    }
    let same = |one: &Value, other: &Value, fields: &[&str]| {
        fields.iter().all(|field| one[*field] == other[*field])
    };
    for (index, (field, port)) in ports.iter().enumerate() {
        if port["hostPort"].is_null() && !port["hostIP"].is_null() {
            let of = ["containerPort", "protocol", "hostIP"].map(|name| plain(&port[name]));
            let [number, protocol, ip] = of;
            let name = text(&port["name"]);
            let how = format!(
                "Name:{name} HostPort:0 ContainerPort:{number} Protocol:{protocol} HostIP:{ip}"
            );
            warn(field, format!("hostIP set without hostPort: {{{how}}}"));
        }
        for (first, other) in &ports[..index] {
            let how = match () {
                () if !same(port, other, &["containerPort", "protocol"]) => continue,
                () if same(port, other, &["hostIP", "hostPort"]) => "duplicate",
                () if port["hostPort"].is_null() || other["hostPort"].is_null() => "overlapping",
                () if same(port, other, &["hostPort"])
                    && port["hostIP"].is_null() != other["hostIP"].is_null() =>
                {
                    "dangerously ambiguous"
                }
                () => continue,
            };
            warn(field, format!("{how} port definition with {first}"));
        }
    }
    for (index, (field, port)) in ports.iter().enumerate() {
        let name = &port["name"];
        let mut before = ports[..index].iter().filter(|_| !name.is_null());
        if let Some((first, _)) = before.find(|(_, known)| known["name"] == *name) {
            let how = format!("services and probes that select ports by name will use {first}");
            warn(
                field,
                format!("duplicate port name {name} with {first}, {how}"),
            );
        }
    }
}

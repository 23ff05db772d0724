//! Defaults: in flows an object as a client wrote it, out it comes as the API server keeps it, as
//! far as the table goes (`k8s.io/kubernetes/pkg/apis/*/v1/defaults.go`).

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use super::kinds::Kind;

/// Resource, field and what is in it if nothing is.
const DEFAULTS: &[(&str, &str, &str)] = &[
    ("namespaces", "/spec/finalizers", r#"["kubernetes"]"#),
    ("namespaces", "/status/phase", r#""Active""#),
    ("secrets", "/type", r#""Opaque""#),
    ("services", "/spec/type", r#""ClusterIP""#),
    ("services", "/spec/sessionAffinity", r#""None""#),
    ("services", "/spec/internalTrafficPolicy", r#""Cluster""#),
    ("services", "/spec/ipFamilies", r#"["IPv4"]"#),
    ("services", "/spec/ipFamilyPolicy", r#""SingleStack""#),
    ("services", "/status", r#"{"loadBalancer": {}}"#),
    (
        "persistentvolumeclaims",
        "/spec/volumeMode",
        r#""Filesystem""#,
    ),
    ("persistentvolumeclaims", "/status/phase", r#""Pending""#),
    ("pods", "/status/phase", r#""Pending""#),
    ("pods", "/status/qosClass", r#""BestEffort""#),
    ("deployments", "/spec/replicas", "1"),
    ("deployments", "/spec/revisionHistoryLimit", "10"),
    ("deployments", "/spec/progressDeadlineSeconds", "600"),
    (
        "deployments",
        "/spec/strategy",
        r#"{"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}}"#,
    ),
    ("deployments", "/status", "{}"),
    ("replicasets", "/spec/replicas", "1"),
    ("replicasets", "/status", r#"{"replicas": 0}"#),
    ("replicationcontrollers", "/spec/replicas", "1"),
    ("replicationcontrollers", "/status", r#"{"replicas": 0}"#),
    ("statefulsets", "/spec/replicas", "1"),
    ("statefulsets", "/spec/revisionHistoryLimit", "10"),
    (
        "statefulsets",
        "/spec/podManagementPolicy",
        r#""OrderedReady""#,
    ),
    (
        "statefulsets",
        "/spec/updateStrategy",
        r#"{"type": "RollingUpdate", "rollingUpdate": {"partition": 0}}"#,
    ),
    (
        "statefulsets",
        "/status",
        r#"{"replicas": 0, "availableReplicas": 0}"#,
    ),
    ("daemonsets", "/spec/revisionHistoryLimit", "10"),
    (
        "daemonsets",
        "/spec/updateStrategy",
        r#"{"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}}"#,
    ),
    ("jobs", "/spec/parallelism", "1"),
    ("jobs", "/spec/completions", "1"),
    ("jobs", "/spec/backoffLimit", "6"),
    ("jobs", "/spec/completionMode", r#""NonIndexed""#),
    ("jobs", "/spec/suspend", "false"),
    ("jobs", "/status", "{}"),
    ("cronjobs", "/spec/concurrencyPolicy", r#""Allow""#),
    ("cronjobs", "/spec/suspend", "false"),
    ("cronjobs", "/spec/successfulJobsHistoryLimit", "3"),
    ("cronjobs", "/spec/failedJobsHistoryLimit", "1"),
    ("cronjobs", "/status", "{}"),
    ("storageclasses", "/reclaimPolicy", r#""Delete""#),
    ("storageclasses", "/volumeBindingMode", r#""Immediate""#),
];

/// Of a pod's spec, and of each of its containers.
const POD: &[(&str, &str)] = &[
    ("restartPolicy", r#""Always""#),
    ("terminationGracePeriodSeconds", "30"),
    ("dnsPolicy", r#""ClusterFirst""#),
    ("securityContext", "{}"),
    ("schedulerName", r#""default-scheduler""#),
];
const CONTAINER: &[(&str, &str)] = &[
    ("resources", "{}"),
    ("terminationMessagePath", r#""/dev/termination-log""#),
    ("terminationMessagePolicy", r#""File""#),
];

/// Where specs of pods are in objects.
const PODS: &[&str] = &[
    "/spec",
    "/spec/template/spec",
    "/spec/jobTemplate/spec/template/spec",
];

fn default(object: &mut Value, field: &str, value: &str) {
    if object[field].is_null() {
        object[field] = serde_json::from_str(value).expect("a table of JSON");
    }
}

/// Fills in what a client has left out.
pub(super) fn fill(kind: &Kind, object: &mut Value) {
    if kind.custom.is_some() {
        return;
    }
    let plural = &*kind.resource.plural;
    for (_, path, value) in DEFAULTS.iter().filter(|(of, _, _)| *of == plural) {
        let (parents, field) = path.rsplit_once('/').unwrap_or_default();
        let mut at = &mut *object;
        for parent in parents.split('/').skip(1) {
            at = &mut at[parent];
        }
        // What is no map is no object of this kind.
        if at.is_null() || at.is_object() {
            default(at, field, value);
        }
    }
    for base in PODS {
        if kind.is_core("pods") != (*base == "/spec") {
            continue;
        }
        if let Some(spec) = object
            .pointer_mut(base)
            .filter(|spec| spec["containers"].is_array())
        {
            pod(spec);
        }
    }
    match plural {
        "namespaces" => {
            let name = object["metadata"]["name"].clone();
            object["metadata"]["labels"]["kubernetes.io/metadata.name"] = name;
        }
        "services" => service(&mut object["spec"]),
        "secrets" => secret(object),
        _ => {}
    }
}

fn pod(spec: &mut Value) {
    for (field, value) in POD {
        default(spec, field, value);
    }
    for list in ["containers", "initContainers", "ephemeralContainers"] {
        for container in spec[list].as_array_mut().into_iter().flatten() {
            if !container.is_object() {
                continue;
            }
            for (field, value) in CONTAINER {
                default(container, field, value);
            }
            // `SetDefaults_Container`.
            let image = container["image"].as_str().unwrap_or_default();
            let (_, tag) = image.rsplit_once('/').unwrap_or(("", image));
            let is_latest =
                !image.contains('@') && (!tag.contains(':') || tag.ends_with(":latest"));
            let policy = if is_latest {
                r#""Always""#
            } else {
                r#""IfNotPresent""#
            };
            default(container, "imagePullPolicy", policy);
            for port in container["ports"].as_array_mut().into_iter().flatten() {
                default(port, "protocol", r#""TCP""#);
            }
        }
        if spec[list].is_null() {
            spec.as_object_mut().map(|spec| spec.remove(list));
        }
    }
}

fn service(spec: &mut Value) {
    let is_external = spec["type"] == "ExternalName";
    if spec["clusterIP"].is_null() && !is_external {
        let number: u16 = rand::random();
        let [a, b] = number.to_be_bytes();
        spec["clusterIP"] = format!("10.96.{a}.{b}").into();
    }
    if spec["clusterIPs"].is_null() && !is_external {
        spec["clusterIPs"] = json!([spec["clusterIP"]]);
    }
    for port in spec["ports"].as_array_mut().into_iter().flatten() {
        default(port, "protocol", r#""TCP""#);
        if port["targetPort"].is_null() {
            port["targetPort"] = port["port"].clone();
        }
    }
}

/// `stringData` is written and never read.
fn secret(object: &mut Value) {
    let Some(Value::Object(texts)) = object.as_object_mut().and_then(|o| o.remove("stringData"))
    else {
        return;
    };
    for (name, text) in texts {
        let text = text.as_str().unwrap_or_default();
        object["data"][name] = STANDARD.encode(text).into();
    }
}

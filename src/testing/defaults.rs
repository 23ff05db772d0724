//! Defaults: in flows an object as a client wrote it, out it comes as the API server keeps it, as
//! far as the table goes (`k8s.io/kubernetes/pkg/apis/*/v1/defaults.go`).

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use super::{
    json::{at, at_mut, items_mut, map, text},
    kinds::Kind,
};

/// Where specs of pods are in objects.
const PODS: &[&str] = &[
    "/spec",
    "/spec/template/spec",
    "/spec/jobTemplate/spec/template/spec",
];

fn default(object: &mut Value, path: &str, value: Value) {
    if let Some(field) = at_mut(object, path).filter(|field| field.is_null()) {
        *field = value;
    }
}

/// Fills in what a client has left out.
pub(super) fn fill(kind: &Kind, object: &mut Value) {
    for (path, value) in kind.rules("default") {
        default(
            object,
            path,
            serde_json::from_str(value).expect("a table of JSON"),
        );
    }
    if kind.custom.is_some() {
        return;
    }
    for path in PODS
        .iter()
        .filter(|path| kind.is_core("pods") == (**path == "/spec"))
    {
        if let Some(spec) = object
            .pointer_mut(path)
            .filter(|spec| spec["containers"].is_array())
        {
            pod(spec);
        }
    }
    match &*kind.resource.plural {
        "namespaces" => {
            let name = object["metadata"]["name"].clone();
            object["metadata"]["labels"]["kubernetes.io/metadata.name"] = name;
        }
        "services" => {
            for port in object["spec"]
                .get_mut("ports")
                .into_iter()
                .flat_map(items_mut)
            {
                default(port, "protocol", json!("TCP"));
                let number = port["port"].clone();
                default(port, "targetPort", number);
            }
        }
        "secrets" => secret(object),
        "customresourcedefinitions" => {
            let kind = text(&object["spec"]["names"]["kind"]).to_owned();
            default(object, "/spec/names/singular", kind.to_lowercase().into());
            default(object, "/spec/names/listKind", format!("{kind}List").into());
        }
        _ => {}
    }
}

fn pod(spec: &mut Value) {
    for (field, value) in [
        ("restartPolicy", json!("Always")),
        ("terminationGracePeriodSeconds", json!(30)),
        ("dnsPolicy", json!("ClusterFirst")),
        ("securityContext", json!({})),
        ("schedulerName", json!("default-scheduler")),
    ] {
        default(spec, field, value);
    }
    for list in ["containers", "initContainers", "ephemeralContainers"] {
        let Some(containers) = spec.get_mut(list) else {
            continue;
        };
        for container in items_mut(containers).filter(|container| container.is_object()) {
            // `SetDefaults_Container`.
            let image = text(&container["image"]);
            let (_, tag) = image.rsplit_once('/').unwrap_or(("", image));
            let is_tagged = tag.contains(':') && !tag.ends_with(":latest");
            let policy = match image.contains('@') || is_tagged {
                true => "IfNotPresent",
                false => "Always",
            };
            for (field, value) in [
                ("resources", json!({})),
                ("terminationMessagePath", json!("/dev/termination-log")),
                ("terminationMessagePolicy", json!("File")),
                ("imagePullPolicy", json!(policy)),
            ] {
                default(container, field, value);
            }
            if let Some(ports) = container.get_mut("ports") {
                items_mut(ports).for_each(|port| default(port, "protocol", json!("TCP")));
            }
        }
    }
}

/// Fills in what the server has to give besides defaults, which a client's replacement keeps if it
/// says nothing else, and which nobody manages.
pub(super) fn allocate(kind: &Kind, before: Option<&Value>, object: &mut Value) {
    for (path, value) in kind.rules("set") {
        let known = before.map(|before| at(before, path).clone());
        let value = match value {
            _ if object["spec"]["type"] == "ExternalName" => continue,
            "IP" => {
                let [a, b] = rand::random::<u16>().to_be_bytes();
                format!("10.96.{a}.{b}").into()
            }
            "IPS" if object["spec"]["clusterIP"].is_null() => continue,
            "IPS" => json!([object["spec"]["clusterIP"]]),
            value => serde_json::from_str(value).expect("a table of JSON"),
        };
        default(
            object,
            path,
            known.filter(|known| !known.is_null()).unwrap_or(value),
        );
    }
}

/// `stringData` is written and never read.
fn secret(object: &mut Value) {
    if let Some(Value::Object(texts)) = map(object).remove("stringData") {
        for (name, value) in texts {
            object["data"][name] = STANDARD.encode(text(&value)).into();
        }
    }
}

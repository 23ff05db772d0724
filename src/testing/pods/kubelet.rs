//! Pods at run time: in flow pods' objects, out come processes, and the states of the objects that
//! a kubelet reports.
//!
//! A container runs if it names a command of this machine. What a container asks for and has not
//! got here keeps it waiting, with the reason in its state.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{NODE, Pod, Waiting, container::Container, logs};
use crate::{
    error::panic::lock,
    server::Refusal,
    testing::{
        builder::{ContainerBuilder, PodBuilder, RestartPolicy},
        kinds::rules,
        objects::{
            controllers, delete,
            store::{self, Object},
        },
        pods,
        requests::target::Target,
        router::Cluster,
        values::{
            json::{at, items, some, text, texts},
            paths::plain,
        },
        writes::admission,
    },
    wire::status::Status,
};

/// What a container may ask for and does not get.
const FIELDS: &str = "envFrom lifecycle livenessProbe readinessProbe startupProbe volumeDevices \
                      volumeMounts workingDir";

/// The addresses of pods: of this machine, so that on Linux they lead to servers in pods.
#[derive(Debug, Default)]
pub(crate) struct Addresses(AtomicU32);

impl Addresses {
    fn next(&self) -> String {
        let number = self.0.fetch_add(1, Ordering::Relaxed) + 1;
        let [_, a, b, c] = number.to_be_bytes();
        format!("127.{}.{b}.{c}", a | 0x80)
    }
}

/// Starts a pod that a test declares.
pub(crate) fn add(
    cluster: &Arc<Cluster>,
    namespace: &str,
    name: &str,
    declared: PodBuilder,
) -> io::Result<()> {
    let PodBuilder {
        labels,
        annotations,
        policy,
        containers,
        ports,
    } = declared;
    let mut started = Vec::new();
    for container in containers {
        let container = Container::start(name, container, policy, &cluster.tasks);
        started.push(
            container.inspect_err(|_| started.iter().for_each(|c: &Arc<Container>| c.stop()))?,
        );
    }
    let mut object = json!({
        "kind": "Pod",
        "apiVersion": "v1",
        "metadata": {
            "name": name,
            "namespace": namespace,
            "labels": labels,
            "annotations": annotations,
            "generation": 1,
        },
        "spec": {
            "restartPolicy": format!("{policy:?}"),
            "nodeName": NODE,
            "containers": started.iter().map(|c| c.spec()).collect::<Vec<_>>(),
        },
    });
    cluster.ensure_namespace(namespace);
    // Without the account only if a test has deleted it.
    let _ = admission::complete(cluster, namespace, &mut object["spec"]);
    rules::complete(&cluster.kinds.core("pods"), &mut object);
    stop(cluster, namespace, name);
    let resource = pods::resource();
    let now = logs::now();
    // With its state from the first version on.
    let (uid, ip) = (cluster.store.next_uid(), cluster.addresses.next());
    let pod = Pod {
        ports,
        containers: started,
        ..Pod::new([namespace, name, &uid, &ip])
    };
    object["metadata"]["uid"] = pod.uid.clone().into();
    object["status"] = pod.status(&object, now);
    let key = store::key_of(&resource, &object);
    cluster.store.delete(&key);
    cluster.store.put(&resource, Object::new(object));
    keep(cluster, pod);
    Ok(())
}

/// Keeps containers running as the pod's policy wants it, and the pod's object true.
fn keep(cluster: &Arc<Cluster>, pod: Pod) {
    let pod = Arc::new(pod);
    cluster.pods.add(pod.clone());
    publish(cluster, &pod);
    for container in pod.all() {
        keep_one(cluster, &pod, container);
    }
}

fn keep_one(cluster: &Arc<Cluster>, pod: &Arc<Pod>, container: Arc<Container>) {
    let (of_cluster, pod) = (cluster.clone(), pod.clone());
    cluster.tasks.spawn(async move {
        container.keep(|| publish(&of_cluster, &pod)).await;
    });
}

/// Stores a pod's state, unless the pod is gone.
fn publish(cluster: &Cluster, pod: &Pod) {
    let key = store::key(&pods::resource(), &pod.namespace, &pod.name);
    let now = logs::now();
    cluster.store.edit(&key, |json| {
        if json["metadata"]["uid"] == pod.uid {
            json["status"] = pod.status(json, now);
            json["spec"]["nodeName"] = NODE.into();
        }
        false
    });
}

/// Starts a pod that a client has created.
pub(crate) fn start(cluster: &Arc<Cluster>, object: &Value) {
    let text = |value: &Value| text(value).to_owned();
    let (metadata, spec) = (&object["metadata"], &object["spec"]);
    let (namespace, name) = (text(&metadata["namespace"]), text(&metadata["name"]));
    if !is_ours(spec) || controllers::is_gated(object) {
        return;
    }
    if let Some(field) = unschedulable(spec) {
        let (key, message) = (store::key_of(&pods::resource(), object), not_here(field));
        let why = Some(("Unschedulable", &*message));
        cluster.store.edit(&key, |json| {
            pods::condition(&mut json["status"], "PodScheduled", false, why, logs::now());
            false
        });
        return;
    }
    let policy = match spec["restartPolicy"].as_str() {
        Some("Never") => RestartPolicy::Never,
        Some("OnFailure") => RestartPolicy::OnFailure,
        _ => RestartPolicy::Always,
    };
    let (mut containers, mut waiting) = (Vec::new(), Vec::new());
    let ip = cluster.addresses.next();
    for container in items(&spec["containers"]) {
        let declared = match items(&spec["initContainers"]).len() == 0 {
            true => declare(cluster, object, container, &ip),
            false => Err(("CreateContainerConfigError", not_here("initContainers"))),
        };
        let started = declared.and_then(|declared| {
            Container::start(&name, declared, policy, &cluster.tasks)
                .map_err(|error| ("RunContainerError", error.to_string()))
        });
        match started {
            Ok(container) => containers.push(container),
            Err((reason, message)) => waiting.push(Waiting {
                name: text(&container["name"]),
                image: text(&container["image"]),
                reason,
                message,
            }),
        }
    }
    let uid = text(&metadata["uid"]);
    let pod = Pod {
        containers,
        waiting,
        ..Pod::new([&namespace, &name, &uid, &ip])
    };
    keep(cluster, pod);
}

fn not_here(what: &str) -> String {
    format!("not implemented by the embedded server: {what}")
}

/// What of a pod nobody looks after here, where its node is yet to be found.
fn unschedulable(spec: &Value) -> Option<&'static str> {
    let fields = ["nodeSelector", "affinity", "resourceClaims"];
    let is_free = some(&spec["nodeName"]).is_none();
    let mut set = fields
        .into_iter()
        .filter(|name| !plain(&spec[*name]).is_empty());
    set.next().filter(|_| is_free)
}

/// Whether this node runs a pod, which is for itself, or for its scheduler, to say.
fn is_ours(spec: &Value) -> bool {
    match some(&spec["nodeName"]) {
        Some(node) => node == NODE,
        None => some(&spec["schedulerName"]).is_none_or(|name| name == "default-scheduler"),
    }
}

/// A container as its pod's spec declares it, or why it cannot be, as a kubelet says it.
fn declare(
    cluster: &Cluster,
    pod: &Value,
    container: &Value,
    ip: &str,
) -> Result<ContainerBuilder, (&'static str, String)> {
    let config = |message: String| ("CreateContainerConfigError", message);
    // The token is not there: containers see this machine's files.
    let is_token = |mount: &Value| mount["mountPath"] == admission::TOKEN;
    let is_asked = |field: &&str| match &container[*field] {
        Value::Null => false,
        Value::Array(mounts) => !mounts.iter().all(is_token),
        _ => true,
    };
    if let Some(field) = FIELDS.split(' ').find(is_asked) {
        return Err(config(not_here(field)));
    }
    let mut command: Vec<_> = texts(&container["command"]).map(str::to_owned).collect();
    let args = texts(&container["args"]).map(str::to_owned);
    command.extend(args);
    let is_complete = !container["command"].is_null() || has_no_command(container);
    if command.is_empty() || !is_complete {
        // There are no images, and so no commands of theirs.
        return Err((
            "ErrImageNeverPull",
            not_here("images: the container names no command"),
        ));
    }
    let mut env: Vec<(String, String)> = Vec::new();
    for variable in items(&container["env"]) {
        let name = text(&variable["name"]);
        let value = match &variable["valueFrom"] {
            Value::Null => text(&variable["value"]).to_owned(),
            from => value_from(cluster, pod, from, ip).map_err(config)?,
        };
        env.push((name.to_owned(), value));
    }
    for argument in &mut command {
        // `k8s.io/kubernetes/third_party/forked/golang/expansion/expand.go`.
        for (name, value) in &env {
            *argument = argument.replace(&format!("$({name})"), value);
        }
    }
    Ok(ContainerBuilder {
        name: text(&container["name"]).to_owned(),
        command,
        env,
        stdin: container["stdin"] == true,
        stdin_once: container["stdinOnce"] == true,
        tty: container["tty"] == true,
        image: container["image"].as_str().map(str::to_owned),
    })
}

/// Whether a container's image has no command of its own, so that its arguments are one.
fn has_no_command(container: &Value) -> bool {
    const IMAGES: &str = "alpine almalinux amazonlinux archlinux busybox centos debian fedora \
                          opensuse rockylinux ubuntu";
    let image = text(&container["image"]);
    let image = image.split('@').next().unwrap_or_default();
    let name = image.rsplit('/').next().unwrap_or_default();
    let name = name.split(':').next().unwrap_or_default();
    IMAGES.split(' ').any(|known| known == name)
}

fn value_from(cluster: &Cluster, pod: &Value, from: &Value, ip: &str) -> Result<String, String> {
    if let Some(path) = from["fieldRef"]["fieldPath"].as_str() {
        let value = match path {
            "status.podIP" | "status.podIPs" => ip.to_owned(),
            "status.hostIP" => "127.0.0.1".to_owned(),
            "spec.nodeName" => NODE.to_owned(),
            path if path.contains('[') => return Err(not_here(path)),
            path => text(at(pod, path)).to_owned(),
        };
        return Ok(value);
    }
    for (field, plural) in [
        ("configMapKeyRef", "configmaps"),
        ("secretKeyRef", "secrets"),
    ] {
        let from = &from[field];
        let (Some(name), Some(key)) = (from["name"].as_str(), from["key"].as_str()) else {
            continue;
        };
        let namespace = text(&pod["metadata"]["namespace"]);
        let resource = &cluster.kinds.core(plural).resource;
        let object = cluster.store.get(&store::key(resource, namespace, name));
        let value = object.as_ref().and_then(|object| {
            let text = object.json["data"][key].as_str()?;
            match plural {
                "secrets" => String::from_utf8(STANDARD.decode(text).ok()?).ok(),
                _ => Some(text.to_owned()),
            }
        });
        return match value {
            Some(value) => Ok(value),
            None if from["optional"] == true => Ok(String::new()),
            None if object.is_none() => Err(format!(
                "{} {name:?} not found",
                &plural[..plural.len() - 1]
            )),
            None => Err(format!(
                "couldn't find key {key} in {plural} {namespace}/{name}"
            )),
        };
    }
    Err(not_here("this valueFrom"))
}

/// Ends a pod's processes, which have until the end of the grace period, and then deletes its
/// object.
pub(crate) fn terminate(cluster: &Arc<Cluster>, object: &Value, grace: u64) {
    let text = |field: &str| text(&object["metadata"][field]).to_owned();
    let (namespace, name, uid) = (text("namespace"), text("name"), text("uid"));
    let pod = cluster
        .pods
        .get(&namespace, &name)
        .filter(|pod| pod.uid == uid);
    let of_cluster = cluster.clone();
    cluster.tasks.spawn(async move {
        if let Some(pod) = pod {
            // Grace for ever is a year.
            let grace = Duration::from_secs(grace.min(31_536_000));
            let deadline = Instant::now() + grace;
            let mut ends = tokio::task::JoinSet::new();
            for container in pod.all() {
                ends.spawn(async move { container.terminate(deadline).await });
            }
            while ends.join_next().await.is_some() {}
            publish(&of_cluster, &pod);
        }
        delete::finish(&of_cluster, &namespace, &name, &uid);
    });
}

/// Kills a pod whose object is gone.
pub(crate) fn stop(cluster: &Cluster, namespace: &str, name: &str) {
    if let Some(pod) = cluster.pods.remove(namespace, name) {
        pod.all().for_each(|container| container.stop());
    }
}

/// Starts the ephemeral containers that a pod's object has and the pod has not.
pub(crate) fn debug(
    cluster: &Arc<Cluster>,
    target: &Target,
    object: &Value,
) -> Result<(), Refusal> {
    // One that does not run yet has no kubelet.
    let Some(pod) = cluster.pods.get(&target.namespace, target.name()) else {
        return Ok(());
    };
    let known: Vec<_> = pod
        .all()
        .map(|container| container.name().to_owned())
        .collect();
    for container in items(&object["spec"]["ephemeralContainers"]) {
        if known.iter().any(|known| container["name"] == **known) {
            continue;
        }
        let fail = |message: String| Refusal::new(Status::failure(501, "NotImplemented", message));
        let declared =
            declare(cluster, object, container, &pod.ip).map_err(|(_, message)| fail(message))?;
        let policy = RestartPolicy::Never;
        let started = Container::start(&pod.name, declared, policy, &cluster.tasks);
        let started = started.map_err(|error| fail(error.to_string()))?;
        let mut ephemeral = lock(&pod.ephemeral);
        ephemeral.push(started.clone());
        drop(ephemeral);
        keep_one(cluster, &pod, started);
    }
    publish(cluster, &pod);
    Ok(())
}

//! Deletions: in flow objects that are to go, out come what becomes of them and of those that
//! depend on them.
//!
//! A finalizer holds a deletion up, a pod has its grace period, a namespace goes when it is empty,
//! and what an object owned goes after it, or before it if that is asked for
//! (`k8s.io/kubernetes/pkg/controller/garbagecollector`). All but namespaces that can be done at once
//! is done before the answer.

use std::{sync::Arc, time::Duration};

use http::Response;
use http_body_util::Full;
use serde_json::{Value, json};

use super::{
    owners,
    store::{self, Key, Next, Object, seconds},
};
use crate::{
    server::Refusal,
    testing::{
        kinds::Kind,
        objects,
        pods::{self, kubelet, logs},
        requests::target::{forbidden, missing, refusal},
        router::{self, Body, Cluster},
        values::json::{items, push, text, texts},
        writes::Write,
    },
    wire::stamp::Stamp,
};

/// How long it takes until a controller does its part, at least.
pub(super) const CONTROLLER: Duration = Duration::from_millis(100);

const CLEANUP: &str = "customresourcecleanup.apiextensions.k8s.io";
/// `k8s.io/kubernetes/pkg/registry/batch/job/storage/storage.go`, Delete.
const PRESERVED: &str = "child pods are preserved by default when jobs are deleted; set \
                         propagationPolicy=Background to remove them or set \
                         propagationPolicy=Orphan to suppress this warning";

const ORPHAN: &str = "orphan";

/// What a client says about a deletion: `DeleteOptions`.
#[derive(Debug, Default)]
pub(crate) struct Options {
    grace: Option<u64>,
    propagation: String,
    preconditions: Value,
    pub(crate) dry: bool,
}

impl Options {
    pub(crate) fn parse(options: &Value) -> Self {
        let propagation = match options["orphanDependents"] == true {
            true => "Orphan",
            false => text(&options["propagationPolicy"]),
        };
        let grace = options["gracePeriodSeconds"].as_i64();
        Self {
            // `k8s.io/apiserver/pkg/registry/rest/delete.go`: less than nothing is a second.
            grace: grace.map(|grace| u64::try_from(grace).unwrap_or(1)),
            propagation: propagation.to_owned(),
            preconditions: options["preconditions"].clone(),
            dry: texts(&options["dryRun"]).any(|how| how == "All"),
        }
    }

    pub(crate) fn warning(&self, kind: &Kind) -> Option<&'static str> {
        (kind.resource.plural == "jobs" && self.propagation.is_empty()).then_some(PRESERVED)
    }
}

pub(crate) fn one(write: &Write<'_>, options: &Options) -> Result<Response<Body>, Refusal> {
    let target = write.target;
    let object = delete(write.cluster, &target.kind, target.key(), options)?;
    let metadata = &object.json["metadata"];
    if target.kind.is("returned") || !metadata["deletionTimestamp"].is_null() {
        return objects::answer(&write.query, &object);
    }
    let resource = target.resource();
    let mut details =
        json!({"name": target.name(), "kind": resource.plural, "uid": metadata["uid"]});
    if !resource.group.is_empty() {
        details["group"] = (&*resource.group).into();
    }
    Ok(router::success(200, ("details", details)))
}

/// Answers the deletion of all objects that are selected, with the list of them.
pub(crate) fn collection(write: &Write<'_>, options: &Options) -> Result<Response<Body>, Refusal> {
    let (selected, metadata) = match objects::select(write.cluster, &write.query)? {
        Ok(selected) => selected,
        Err(compacted) => return Ok(compacted),
    };
    for (key, _) in &selected {
        match delete(write.cluster, &write.target.kind, key.clone(), options) {
            // It went with another.
            Err(refusal) if refusal.code() != 404 => return Err(refusal),
            _ => {}
        }
    }
    // As they were.
    let gone = selected.into_iter().map(|(_, object)| object).collect();
    objects::render(&write.query, gone, metadata, |bytes| {
        router::body(Full::new(bytes))
    })
}

/// How long a pod may take to end.
fn grace(kind: &Kind, object: &Value, options: &Options) -> u64 {
    // `k8s.io/kubernetes/pkg/registry/core/pod/strategy.go`, CheckGracefulDelete.
    if !kind.is_core("pods") || pods::is_over(object) || object["spec"]["nodeName"].is_null() {
        return 0;
    }
    let own = object["spec"]["terminationGracePeriodSeconds"].as_u64();
    options.grace.or(own).unwrap_or(30)
}

fn is_held(metadata: &Value) -> bool {
    texts(&metadata["finalizers"]).next().is_some()
}

/// Deletes an object, or begins to, and returns its last state.
pub(crate) fn delete(
    cluster: &Arc<Cluster>,
    kind: &Arc<Kind>,
    key: Key,
    options: &Options,
) -> Result<Arc<Object>, Refusal> {
    let (resource, name, now) = (&kind.resource, key.3.clone(), logs::now());
    let is_namespace = kind.is_core("namespaces");
    if is_namespace && ["default", "kube-public", "kube-system"].contains(&&*name) {
        // `k8s.io/apiserver/pkg/admission/plugin/namespace/lifecycle`.
        let why = "this namespace may not be deleted";
        return Err(forbidden(resource, &name, why));
    }
    let holder = match &*options.propagation {
        _ if kind.is_definition() => Some(CLEANUP),
        "Foreground" => Some(owners::FOREGROUND),
        "Orphan" => Some(ORPHAN),
        "" if kind.is("orphan") => Some(ORPHAN),
        _ => None,
    };
    let mut ends_in = None;
    let written = cluster.store.write(key.clone(), options.dry, |before| {
        ends_in = None;
        let before = before.ok_or_else(|| missing(resource, &name))?;
        check(kind, &name, before, &options.preconditions)?;
        let metadata = &before.json["metadata"];
        let grace = grace(kind, &before.json, options);
        let is_leaving = !metadata["deletionTimestamp"].is_null();
        let was_given = metadata["deletionGracePeriodSeconds"]
            .as_u64()
            .unwrap_or(u64::MAX);
        if !is_held(metadata) && holder.is_none() && !is_namespace && grace == 0 {
            return Ok::<_, Refusal>(Next::Delete);
        }
        if is_leaving && grace >= was_given {
            return Ok(Next::Same);
        }
        let mut object = before.clone();
        mark(kind, &mut object.json["metadata"], grace, now);
        let metadata = &mut object.json["metadata"];
        if let (Some(holder), false) = (holder, is_leaving) {
            metadata["finalizers"] = texts(&metadata["finalizers"]).chain([holder]).collect();
        }
        if is_namespace {
            object.json["status"]["phase"] = "Terminating".into();
        }
        if let (true, false) = (kind.is_definition(), is_leaving) {
            let condition = json!({
                "type": "Terminating", "status": "True", "lastTransitionTime": seconds(now),
                "reason": "InstanceDeletionPending",
                "message": "CustomResourceDefinition marked for deletion; CustomResource deletion will begin soon",
            });
            push(&mut object.json["status"]["conditions"], condition);
        }
        ends_in = Some(grace);
        Ok(Next::Put(object))
    })?;
    let written = written.ok_or_else(|| missing(resource, &name))?;
    let written = match ends_in {
        None if kind.is_core("pods") && written.json["metadata"]["deletionTimestamp"].is_null() => {
            let mut pod = Object::clone(&written);
            mark(kind, &mut pod.json["metadata"], 0, now);
            Arc::new(pod)
        }
        _ => written,
    };
    if options.dry {
        return Ok(written);
    }
    match holder {
        Some(ORPHAN) => owners::orphan(cluster, &written.json),
        Some(owners::FOREGROUND) if ends_in.is_some() => {
            owners::collect(cluster, &written.json, &options.propagation);
        }
        _ => {}
    }
    if let Some(ORPHAN | owners::FOREGROUND) = holder {
        settle(cluster, &key);
    }
    match ends_in {
        None if cluster.store.get(&key).is_none() => gone(cluster, kind, &written.json),
        None => {}
        Some(grace) if kind.is_core("pods") => kubelet::terminate(cluster, &written.json, grace),
        Some(_) => {
            // It is a controller's, which comes later.
            let again = cluster.clone();
            cluster.tasks.spawn(async move {
                tokio::time::sleep(CONTROLLER).await;
                if is_namespace {
                    for (key, _) in again.store.all(|key, _| key.2 == name) {
                        try_delete(&again, key, "");
                    }
                }
                settle(&again, &key);
            });
        }
    }
    Ok(written)
}

/// Says of an object that it is to go, and when.
fn mark(kind: &Kind, metadata: &mut Value, grace: u64, now: Stamp) {
    let is_leaving = !metadata["deletionTimestamp"].is_null();
    let end = Stamp::from_unix(now.unix_seconds().saturating_add_unsigned(grace), 0);
    metadata["deletionTimestamp"] = seconds(end.unwrap_or(now)).into();
    if !kind.is_core("namespaces") && !kind.is_definition() {
        metadata["deletionGracePeriodSeconds"] = grace.into();
        if let (Some(generation), false) = (metadata["generation"].as_i64(), is_leaving) {
            metadata["generation"] = (generation + 1).into();
        }
    }
}

/// `k8s.io/apiserver/pkg/registry/generic/registry/store.go`, checked before the deletion.
fn check(kind: &Kind, name: &str, object: &Object, conditions: &Value) -> Result<(), Refusal> {
    for (field, spelled, perhaps) in [
        ("uid", "UID", "deleted and then recreated"),
        ("resourceVersion", "ResourceVersion", "modified"),
    ] {
        let (wanted, there) = (&conditions[field], &object.json["metadata"][field]);
        if !wanted.is_null() && wanted != there {
            let what = kind.qualified();
            let message = format!(
                "Operation cannot be fulfilled on {what} {name:?}: the {spelled} in the \
                 precondition ({}) does not match the {spelled} in record ({}). The object might \
                 have been {perhaps}",
                text(wanted),
                text(there)
            );
            let of = [&*kind.resource.group, &kind.kind, name];
            return Err(refusal((409, "Conflict"), message, of, []));
        }
    }
    Ok(())
}

/// Whether nothing holds an object any more that is to go. A namespace waits for what is in it.
pub(crate) fn is_over(kind: &Kind, object: &Value) -> bool {
    let metadata = &object["metadata"];
    !metadata["deletionTimestamp"].is_null()
        && metadata["deletionGracePeriodSeconds"].as_u64().unwrap_or(0) == 0
        && !is_held(metadata)
        && !kind.is_core("namespaces")
}

/// Takes from an object that is to go the finalizers of controllers that have nothing to do for it
/// any more, and lets it go if nothing else holds it.
pub(super) fn settle(cluster: &Arc<Cluster>, key: &Key) {
    let Some(kind) = cluster.kinds.any(&key.0, &key.1) else {
        return;
    };
    let edited = cluster.store.edit(key, |json| {
        if json["metadata"]["deletionTimestamp"].is_null() {
            return false;
        }
        let finalizers = texts(&json["metadata"]["finalizers"]).map(str::to_owned);
        let (held, done): (Vec<_>, Vec<_>) =
            finalizers.partition(|name| holds(cluster, name, key, json));
        if !done.is_empty() {
            json["metadata"]["finalizers"] = held.into();
        }
        is_over(&kind, json) || kind.is_core("namespaces") && is_empty(cluster, json, &key.3)
    });
    if let Some((object, true)) = edited {
        gone(cluster, &kind, &object.json);
    }
}

/// Whether a finalizer holds an object that is to go. Those of clients always do.
fn holds(cluster: &Cluster, finalizer: &str, key: &Key, object: &Value) -> bool {
    match finalizer {
        // What it defines goes with it.
        CLEANUP | "kubernetes.io/vac-protection" => false,
        ORPHAN => !owners::dependents(cluster, object).is_empty(),
        owners::FOREGROUND => owners::is_awaited(cluster, object),
        // `k8s.io/kubernetes/pkg/controller/volume/{pvc,pv}protection`.
        "kubernetes.io/pv-protection" => object["status"]["phase"] == "Bound",
        "kubernetes.io/pvc-protection" => {
            let is_it = |volume: &Value| volume["persistentVolumeClaim"]["claimName"] == *key.3;
            let uses =
                |pod: &Value| !pods::is_over(pod) && items(&pod["spec"]["volumes"]).any(is_it);
            let pods = &cluster.kinds.core("pods").resource;
            let pods = cluster.store.now(pods, Some(&key.2));
            pods.iter().any(|(_, pod)| uses(&pod.json))
        }
        _ => true,
    }
}

/// Whether nothing is left in a namespace, and nobody else has something to do there.
fn is_empty(cluster: &Cluster, namespace: &Value, name: &str) -> bool {
    !is_held(&namespace["metadata"])
        && texts(&namespace["spec"]["finalizers"]).all(|name| name == "kubernetes")
        && cluster.store.all(|key, _| key.2 == name).is_empty()
}

/// A pod's processes have ended, which is said first: its object goes, or waits for its finalizers
/// alone.
pub(crate) fn finish(cluster: &Arc<Cluster>, namespace: &str, name: &str, uid: &str) {
    let key = store::key(&cluster.kinds.core("pods").resource, namespace, name);
    cluster.store.edit(&key, |json| {
        let metadata = &mut json["metadata"];
        if metadata["uid"] == uid {
            metadata["deletionGracePeriodSeconds"] = 0.into();
        }
        false
    });
    settle(cluster, &key);
}

pub(crate) fn gone(cluster: &Arc<Cluster>, kind: &Kind, object: &Value) {
    let (namespace, name) = (
        text(&object["metadata"]["namespace"]),
        text(&object["metadata"]["name"]),
    );
    if kind.is_core("pods") {
        kubelet::stop(cluster, namespace, name);
        let claims = ("persistentvolumeclaims", Some(namespace));
        for (plural, namespace) in [claims, ("persistentvolumes", None)] {
            let resource = &cluster.kinds.core(plural).resource;
            for (key, _) in cluster.store.now(resource, namespace) {
                settle(cluster, &key);
            }
        }
    }
    if kind.is_definition() {
        for kind in Kind::of_definition(object) {
            let resource = &kind.resource;
            for (key, object) in cluster.store.now(resource, None) {
                if cluster.store.delete(&key).is_some() {
                    gone(cluster, &kind, &object.json);
                }
            }
            cluster.kinds.remove(&resource.group, &resource.plural);
        }
    }
    owners::gone(cluster, object);
    let namespaces = &cluster.kinds.core("namespaces").resource;
    settle(cluster, &store::key(namespaces, "", namespace));
}

/// Deletes an object, unless it has gone with another or by itself.
pub(super) fn try_delete(cluster: &Arc<Cluster>, key: Key, propagation: &str) {
    let options = Options {
        propagation: propagation.to_owned(),
        ..Options::default()
    };
    if let Some(kind) = cluster.kinds.any(&key.0, &key.1) {
        let _ = delete(cluster, &kind, key, &options);
    }
}

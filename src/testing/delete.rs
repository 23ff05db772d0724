//! Deletions: in flow objects that are to go, out come what becomes of them and of those that
//! depend on them.
//!
//! A finalizer holds a deletion up, a pod has its grace period, a namespace goes when it is empty,
//! and what an object owned goes after it, or before it if that is asked for
//! (`k8s.io/kubernetes/pkg/controller/garbagecollector`). All that can be done at once is done
//! before the answer.

use std::sync::Arc;

use http::{Request, Response};
use serde_json::{Value, json};

use super::{
    kinds::Kind,
    kubelet, logs,
    objects::{self, Query},
    router::{self, Body, Cluster},
    store::{self, Key, Next, Object, seconds},
    target::{Invalid, Parameters, Target, invalid},
    validation::texts,
};
use crate::{server::Refusal, wire::stamp::Stamp};

const FOREGROUND: &str = "foregroundDeletion";

/// Kinds whose deletion is answered with the object (`ReturnDeletedObject`).
const RETURNED: &[&str] = &[
    "persistentvolumeclaims",
    "persistentvolumes",
    "pods",
    "podtemplates",
    "resourcequotas",
    "serviceaccounts",
    "services",
];

/// What a client says about a deletion: `DeleteOptions`.
#[derive(Debug, Default)]
pub(super) struct Options {
    grace: Option<u64>,
    propagation: String,
    preconditions: Value,
    pub(super) dry: bool,
}

impl Options {
    pub(super) fn parse(body: &Value, parameters: &Parameters, dry: bool) -> Result<Self, Refusal> {
        let text = |field: &str| {
            let of_body = body[field].as_str().unwrap_or_default();
            match of_body {
                "" => parameters.get(field).to_owned(),
                text => text.to_owned(),
            }
        };
        let mut propagation = text("propagationPolicy");
        match &*propagation {
            "" if body["orphanDependents"] == true => "Orphan".clone_into(&mut propagation),
            "" | "Background" | "Foreground" | "Orphan" => {}
            other => {
                let why = "supported values: \"Background\", \"Foreground\", \"Orphan\"";
                let field = Invalid {
                    field: "propagationPolicy".to_owned(),
                    reason: "FieldValueNotSupported",
                    message: format!("Unsupported value: {other:?}: {why}"),
                };
                return Err(invalid("DeleteOptions.meta.k8s.io", "", vec![field]));
            }
        }
        Ok(Self {
            grace: match body["gracePeriodSeconds"].as_u64() {
                Some(grace) => Some(grace),
                None => parameters.number("gracePeriodSeconds")?,
            },
            propagation,
            preconditions: body["preconditions"].clone(),
            dry: dry
                || body["dryRun"]
                    .as_array()
                    .is_some_and(|list| list.contains(&"All".into())),
        })
    }
}

/// Answers the deletion of one object.
pub(super) fn one(
    cluster: &Arc<Cluster>,
    target: &Target,
    options: &Options,
    head: &Request<()>,
) -> Result<Response<Body>, Refusal> {
    let name = target.name.as_deref().unwrap_or_default();
    let query = Query::parse(cluster, target, head)?;
    let key = store::key(target.resource(), &target.namespace, name);
    let object = delete(cluster, &target.kind, key, options)?;
    let metadata = &object.json["metadata"];
    let is_returned =
        target.kind.custom.is_none() && RETURNED.contains(&&*target.kind.resource.plural);
    if is_returned || !metadata["deletionTimestamp"].is_null() {
        return objects::answer(&query, &object);
    }
    Ok(router::object(&json!({
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Success",
        "details": {
            "name": name,
            "group": target.resource().group,
            "kind": target.resource().plural,
            "uid": metadata["uid"],
        },
    })))
}

/// Answers the deletion of all objects that are selected, with the list of them.
pub(super) fn collection(
    cluster: &Arc<Cluster>,
    target: &Target,
    options: &Options,
    head: &Request<()>,
) -> Result<Response<Body>, Refusal> {
    let query = Query::parse(cluster, target, head)?;
    let listed = cluster
        .store
        .list(target.resource(), target.in_namespace(), None);
    let (objects, version) = listed.unwrap_or_default();
    let mut items = Vec::new();
    for (key, object) in objects
        .into_iter()
        .filter(|(_, object)| query.selects(&object.json))
    {
        match delete(cluster, &target.kind, key, options) {
            Ok(object) => items.push(object.json.clone()),
            // It went with another.
            Err(refusal) if refusal.code() == 404 => items.push(object.json.clone()),
            Err(refusal) => return Err(refusal),
        }
    }
    Ok(router::object(&json!({
        "kind": format!("{}List", target.kind.kind),
        "apiVersion": target.resource().api_version(),
        "metadata": {"resourceVersion": version.to_string()},
        "items": items,
    })))
}

/// How long a pod may take to end.
fn grace(kind: &Kind, object: &Value, options: &Options) -> u64 {
    // `k8s.io/kubernetes/pkg/registry/core/pod/strategy.go`, CheckGracefulDelete.
    let phase = object["status"]["phase"].as_str().unwrap_or_default();
    let is_over = matches!(phase, "Succeeded" | "Failed") || object["spec"]["nodeName"].is_null();
    if !kind.is_core("pods") || is_over {
        return 0;
    }
    let own = object["spec"]["terminationGracePeriodSeconds"].as_u64();
    options.grace.or(own).unwrap_or(30)
}

/// Deletes an object, or begins to, and returns its last state.
pub(super) fn delete(
    cluster: &Arc<Cluster>,
    kind: &Arc<Kind>,
    key: Key,
    options: &Options,
) -> Result<Arc<Object>, Refusal> {
    let resource = &kind.resource;
    let name = key.3.clone();
    let now = logs::now();
    let owns = |object: &Object| !dependents(cluster, &object.json).is_empty();
    let is_held_by_own = match options.propagation == "Foreground" {
        true => cluster.store.get(&key).is_some_and(|object| owns(&object)),
        false => false,
    };
    let mut ends_in = None;
    let written = cluster
        .store
        .write(key.clone(), now, options.dry, |before| {
            let before = before.ok_or_else(|| super::target::missing(resource, &name))?;
            check(resource, &name, before, &options.preconditions)?;
            let metadata = &before.json["metadata"];
            let grace = grace(kind, &before.json, options);
            let is_leaving = !metadata["deletionTimestamp"].is_null();
            let was_given = metadata["deletionGracePeriodSeconds"]
                .as_u64()
                .unwrap_or(u64::MAX);
            let has_finalizers = texts(&metadata["finalizers"]).next().is_some();
            let is_held = has_finalizers || is_held_by_own || kind.is_core("namespaces");
            if !is_held && grace == 0 {
                return Ok::<_, Refusal>(Next::Delete);
            }
            if is_leaving && grace >= was_given {
                return Ok(Next::Same);
            }
            let mut object = before.clone();
            let metadata = &mut object.json["metadata"];
            let end = Stamp::from_unix(now.unix_seconds().saturating_add_unsigned(grace), 0);
            metadata["deletionTimestamp"] = seconds(end.unwrap_or(now)).into();
            metadata["deletionGracePeriodSeconds"] = grace.into();
            if let (Some(generation), false) = (metadata["generation"].as_i64(), is_leaving) {
                metadata["generation"] = (generation + 1).into();
            }
            if is_held_by_own && !is_leaving {
                let held = texts(&metadata["finalizers"]).chain([FOREGROUND]);
                metadata["finalizers"] = held.collect();
            }
            if kind.is_core("namespaces") {
                object.json["status"]["phase"] = "Terminating".into();
            }
            ends_in = Some(grace);
            Ok(Next::Put(object))
        })?;
    let written = written.ok_or_else(|| super::target::missing(resource, &name))?;
    if options.dry {
        return Ok(written);
    }
    if options.propagation == "Orphan" {
        orphan(cluster, &written.json);
    }
    match ends_in {
        None if cluster.store.get(&key).is_none() => gone(cluster, kind, &written.json),
        None => {}
        Some(grace) if kind.is_core("pods") => kubelet::terminate(cluster, &written.json, grace),
        Some(_) => {
            if is_held_by_own {
                collect(cluster, &written.json, &options.propagation);
                release(cluster, &written.json);
            }
            if kind.is_core("namespaces") {
                clear(cluster, &name);
            }
        }
    }
    Ok(written)
}

fn check(
    resource: &crate::Resource,
    name: &str,
    object: &Object,
    preconditions: &Value,
) -> Result<(), Refusal> {
    let metadata = &object.json["metadata"];
    for (field, spelled) in [("uid", "UID"), ("resourceVersion", "ResourceVersion")] {
        let wanted = &preconditions[field];
        if !wanted.is_null() && *wanted != metadata[field] {
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let message = format!(
                "Operation cannot be fulfilled on {resource} {name:?}: Precondition failed: \
                 {spelled} in precondition: {}, {spelled} in object meta: {}",
                text(wanted),
                text(&metadata[field])
            );
            return Err(super::target::refuse(
                resource, name, 409, "Conflict", message,
            ));
        }
    }
    Ok(())
}

/// A pod's processes have ended: its object goes, or waits for its finalizers alone.
pub(super) fn finish(cluster: &Arc<Cluster>, namespace: &str, name: &str, uid: &str) {
    let kind = cluster.kinds.core("pods");
    let key = store::key(&kind.resource, namespace, name);
    let written = cluster
        .store
        .write(key.clone(), logs::now(), false, |before| {
            let Some(before) = before.filter(|before| before.json["metadata"]["uid"] == uid) else {
                return Ok::<_, Refusal>(Next::Same);
            };
            if texts(&before.json["metadata"]["finalizers"])
                .next()
                .is_none()
            {
                return Ok(Next::Delete);
            }
            let mut object = before.clone();
            object.json["metadata"]["deletionGracePeriodSeconds"] = 0.into();
            Ok(Next::Put(object))
        });
    if let Ok(Some(object)) = written
        && object.json["metadata"]["uid"] == uid
        && cluster.store.get(&key).is_none()
    {
        gone(cluster, &kind, &object.json);
    }
}

/// Does what follows when an object has gone.
pub(super) fn gone(cluster: &Arc<Cluster>, kind: &Kind, object: &Value) {
    let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default();
    let (namespace, name) = (text("namespace"), text("name"));
    if kind.is_core("pods") {
        kubelet::stop(cluster, namespace, name);
    }
    if kind.resource.plural == "customresourcedefinitions" && kind.custom.is_none() {
        for kind in Kind::of_definition(object) {
            let resource = &kind.resource;
            let listed = cluster.store.list(resource, None, None);
            for (key, object) in listed.unwrap_or_default().0 {
                if cluster.store.delete(&key).is_some() {
                    gone(cluster, &kind, &object.json);
                }
            }
            cluster.kinds.remove(&resource.group, &resource.plural);
        }
    }
    collect(cluster, object, "Background");
    for owner in owners(object) {
        let owned_by = cluster
            .store
            .all(|_, object| object.json["metadata"]["uid"] == owner);
        for (_, owner) in owned_by {
            release(cluster, &owner.json);
        }
    }
    empty(cluster, namespace);
}

fn owners(object: &Value) -> impl Iterator<Item = &str> {
    let owners = object["metadata"]["ownerReferences"].as_array();
    let owners = owners.into_iter().flatten();
    owners.filter_map(|owner| owner["uid"].as_str())
}

/// The objects that an object owns, perhaps with others.
fn dependents(cluster: &Cluster, owner: &Value) -> store::Objects {
    let uid = owner["metadata"]["uid"].as_str().unwrap_or_default();
    match cluster.store.has_owned() {
        true => cluster
            .store
            .all(|_, object| owners(&object.json).any(|owner| owner == uid)),
        false => Vec::new(),
    }
}

/// Deletes what an object owns alone.
fn collect(cluster: &Arc<Cluster>, owner: &Value, propagation: &str) {
    let own = owner["metadata"]["uid"].as_str().unwrap_or_default();
    for (key, object) in dependents(cluster, owner) {
        let others: Vec<_> = owners(&object.json).filter(|uid| *uid != own).collect();
        let is_there = |object: &Object| {
            let uid = object.json["metadata"]["uid"].as_str();
            uid.is_some_and(|uid| others.contains(&uid))
        };
        if !others.is_empty() && !cluster.store.all(|_, object| is_there(object)).is_empty() {
            forget(cluster, key, own);
        } else if let Some(kind) = cluster.kinds.any(&key.0, &key.1) {
            let options = Options {
                propagation: propagation.to_owned(),
                ..Options::default()
            };
            // It may have gone by itself.
            let _ = delete(cluster, &kind, key, &options);
        }
    }
}

fn orphan(cluster: &Cluster, owner: &Value) {
    let uid = owner["metadata"]["uid"].as_str().unwrap_or_default();
    for (key, _) in dependents(cluster, owner) {
        forget(cluster, key, uid);
    }
}

/// Takes an owner from an object.
fn forget(cluster: &Cluster, key: Key, owner: &str) {
    let _ = cluster.store.write(key, logs::now(), false, |before| {
        let Some(mut object) = before.cloned() else {
            return Ok::<_, Refusal>(Next::Same);
        };
        let metadata = &mut object.json["metadata"];
        let owners = metadata["ownerReferences"].as_array();
        let left = owners
            .into_iter()
            .flatten()
            .filter(|known| known["uid"] != owner);
        let left: Vec<_> = left.cloned().collect();
        match metadata.as_object_mut() {
            Some(metadata) if left.is_empty() => drop(metadata.remove("ownerReferences")),
            _ => metadata["ownerReferences"] = left.into(),
        }
        Ok(Next::Put(object))
    });
}

/// Lets an object go that waited for what it owned.
fn release(cluster: &Arc<Cluster>, owner: &Value) {
    let is_waiting = texts(&owner["metadata"]["finalizers"]).any(|name| name == FOREGROUND);
    let uid = owner["metadata"]["uid"].as_str().unwrap_or_default();
    let blocks = |object: &Object| {
        let owners = object.json["metadata"]["ownerReferences"].as_array();
        let mut owners = owners.into_iter().flatten();
        owners.any(|owner| owner["uid"] == uid && owner["blockOwnerDeletion"] == true)
    };
    if !is_waiting
        || dependents(cluster, owner)
            .iter()
            .any(|(_, object)| blocks(object))
    {
        return;
    }
    let found = cluster
        .store
        .all(|_, object| object.json["metadata"]["uid"] == uid);
    let Some((key, _)) = found.into_iter().next() else {
        return;
    };
    let written = cluster
        .store
        .write(key.clone(), logs::now(), false, |before| {
            let Some(mut object) = before.cloned() else {
                return Ok::<_, Refusal>(Next::Same);
            };
            let left: Vec<_> = texts(&object.json["metadata"]["finalizers"])
                .filter(|name| *name != FOREGROUND)
                .map(str::to_owned)
                .collect();
            if left.is_empty() {
                return Ok(Next::Delete);
            }
            object.json["metadata"]["finalizers"] = left.into();
            Ok(Next::Put(object))
        });
    if let (Ok(Some(object)), None) = (written, cluster.store.get(&key))
        && let Some(kind) = cluster.kinds.any(&key.0, &key.1)
    {
        gone(cluster, &kind, &object.json);
    }
}

/// Deletes all that is in a namespace.
fn clear(cluster: &Arc<Cluster>, namespace: &str) {
    for (key, _) in cluster.store.all(|key, _| key.2 == namespace) {
        if let Some(kind) = cluster.kinds.any(&key.0, &key.1) {
            // It may have gone with another.
            let _ = delete(cluster, &kind, key, &Options::default());
        }
    }
    empty(cluster, namespace);
}

/// Lets a namespace go that is to go, if nothing is left in it.
fn empty(cluster: &Arc<Cluster>, namespace: &str) {
    let kind = cluster.kinds.core("namespaces");
    let key = store::key(&kind.resource, "", namespace);
    let found = cluster.store.get(&key);
    let is_leaving = found.is_some_and(|object| {
        let metadata = &object.json["metadata"];
        !metadata["deletionTimestamp"].is_null() && texts(&metadata["finalizers"]).next().is_none()
    });
    if !is_leaving || !cluster.store.all(|key, _| key.2 == namespace).is_empty() {
        return;
    }
    let object = cluster.store.get(&key);
    if cluster.store.delete(&key).is_some()
        && let Some(object) = object
    {
        gone(cluster, &kind, &object.json);
    }
}

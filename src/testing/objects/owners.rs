//! Owners: in flow objects that came or went, out come what becomes of those that they own
//! (`k8s.io/kubernetes/pkg/controller/garbagecollector`).

use std::sync::Arc;

use serde_json::Value;

use super::{
    delete::{CONTROLLER, settle, try_delete},
    store::{self, Key, Object, Objects},
};
use crate::testing::{
    kinds::Kind,
    router::Cluster,
    values::json::{items, list, set, text},
};

pub(super) const FOREGROUND: &str = "foregroundDeletion";

/// Takes an owner from an object.
fn forget(cluster: &Cluster, key: &Key, owner: &str) {
    cluster.store.edit(key, |json| {
        let metadata = &mut json["metadata"];
        let left = items(&metadata["ownerReferences"]).filter(|known| known["uid"] != owner);
        let left = list(left.cloned());
        set(metadata, "ownerReferences", &left);
        false
    });
}

fn owners(object: &Value) -> impl Iterator<Item = &str> {
    items(&object["metadata"]["ownerReferences"]).filter_map(|owner| owner["uid"].as_str())
}

/// The objects that an object owns, perhaps with others.
pub(super) fn dependents(cluster: &Cluster, owner: &Value) -> Objects {
    let uid = text(&owner["metadata"]["uid"]);
    match cluster.store.has_owned() {
        true => cluster
            .store
            .all(|_, object| owners(&object.json).any(|owner| owner == uid)),
        false => Vec::new(),
    }
}

/// Deletes what an object owns alone.
pub(super) fn collect(cluster: &Arc<Cluster>, owner: &Value, propagation: &str) {
    for (key, _) in dependents(cluster, owner) {
        reconsider(cluster, key, &owner["metadata"]["uid"], propagation);
    }
}

/// Deletes an object that nobody owns any more, or takes those from it that have gone.
fn reconsider(cluster: &Arc<Cluster>, key: Key, gone: &Value, propagation: &str) {
    let Some(object) = cluster.store.get(&key) else {
        return;
    };
    let owners = items(&object.json["metadata"]["ownerReferences"]);
    let (absent, there): (Vec<_>, Vec<_>) =
        owners.partition(|owner| owner["uid"] == *gone || is_absent(cluster, &key.2, owner));
    if absent.is_empty() {
    } else if there.is_empty() {
        try_delete(cluster, key, propagation);
    } else {
        let absent = absent.into_iter();
        absent.for_each(|owner| forget(cluster, &key, text(&owner["uid"])));
    }
}

/// Whether an owner is not there. That cannot be known of a kind that is not served, nor of one in
/// a namespace if what it owns is in none.
fn is_absent(cluster: &Cluster, namespace: &str, owner: &Value) -> bool {
    let mut kinds = cluster.kinds.all().into_iter();
    let is_its = |kind: &Kind| {
        owner["kind"] == kind.kind && owner["apiVersion"] == kind.resource.api_version()
    };
    let Some(kind) = kinds.find(|kind| is_its(kind)) else {
        return false;
    };
    let namespace = match kind.resource.namespaced {
        true if namespace.is_empty() => return false,
        true => namespace,
        false => "",
    };
    let key = store::key(&kind.resource, namespace, text(&owner["name"]));
    let found = cluster.store.get(&key);
    found.is_none_or(|found| found.json["metadata"]["uid"] != owner["uid"])
}

/// Looks a moment later whether the owners that an object has got are there.
pub(super) fn changed(cluster: &Arc<Cluster>, kind: &Kind, before: Option<&Value>, object: &Value) {
    let owners = |object: &Value| object["metadata"]["ownerReferences"].clone();
    if before.map(owners).unwrap_or_default() != owners(object) {
        let (again, key) = (cluster.clone(), store::key_of(&kind.resource, object));
        cluster.tasks.spawn(async move {
            tokio::time::sleep(CONTROLLER).await;
            reconsider(&again, key, &Value::Null, "Background");
        });
    }
}

/// Whether something that an object owns has to go before it.
pub(super) fn is_awaited(cluster: &Cluster, owner: &Value) -> bool {
    let uid = &owner["metadata"]["uid"];
    let blocks = |owner: &Value| owner["uid"] == *uid && owner["blockOwnerDeletion"] == true;
    let is_first = |owned: &Object| items(&owned.json["metadata"]["ownerReferences"]).any(blocks);
    let owned = dependents(cluster, owner);
    owned.iter().any(|(_, owned)| is_first(owned))
}

/// Leaves what an object owns to itself.
pub(super) fn orphan(cluster: &Cluster, owner: &Value) {
    for (key, _) in dependents(cluster, owner) {
        forget(cluster, &key, text(&owner["metadata"]["uid"]));
    }
}

pub(super) fn gone(cluster: &Arc<Cluster>, object: &Value) {
    collect(cluster, object, "Background");
    let of = |owner: &Object| owners(object).any(|uid| owner.json["metadata"]["uid"] == uid);
    if owners(object).next().is_some() {
        for (key, _) in cluster.store.all(|_, owner| of(owner)) {
            settle(cluster, &key);
        }
    }
}

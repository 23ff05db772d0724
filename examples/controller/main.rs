//! A controller: for every `Site` there is to be a ConfigMap with its page.
//!
//! ```text
//! cargo run --example controller             # plays against an API server inside this process
//! cargo run --example controller -- cluster  # works in the cluster of the kubeconfig
//! ```
//!
//! One reconcile a site at a time; what fails is tried again, ever later. The status of a site says
//! what was done. A finalizer has the page removed before the site, and the page's owner reference
//! has the garbage collector do so where this controller is no more.

#![allow(clippy::print_stdout)]

mod played;
mod queue;

use kubewire::{
    Client, Error, Resource, Result,
    request::Deleted,
    watch::{Mirror, ObjectKey, Update},
};
use queue::{Failure, Queue};
use serde_json::{Value, json};

const FINALIZER: &str = "example.com/page";

fn sites() -> Resource {
    Resource::namespaced("example.com", "v1", "sites")
}

fn config_maps() -> Resource {
    Resource::namespaced("", "v1", "configmaps")
}

#[tokio::main]
async fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    match std::env::args().nth(1).as_deref() {
        None => played::play().await,
        Some("cluster") => {
            control(Client::from_env().await?).await;
            Ok(())
        }
        Some(_) => Err("usage: controller [cluster]".into()),
    }
}

/// Follows the sites for good.
async fn control(client: Client) {
    let reconcile = |key| reconcile(client.clone(), key);
    let mut mirror: Mirror<()> = Mirror::new(); // for the changes: a reconcile reads for itself
    let mut updates = client.watch(sites()).stream();
    let mut queue = Queue::default();
    loop {
        tokio::select! {
            Some(update) = updates.next() => {
                if let Ok(Update::Retrying { error, .. }) = &update {
                    println!("  (passing: {error})");
                }
                // A refusal passes too, when the sites are defined or the right is given.
                let changes = update.and_then(|update| mirror.apply(&update, |_| Ok::<_, Error>(())));
                match changes {
                    Ok(changes) => changes.iter().for_each(|it| queue.add(it.key(), reconcile)),
                    Err(error) => println!("  (watch: {error})"),
                }
            }
            Some((key, done)) = queue.done() => {
                let again = queue.again(&key, done.is_err(), reconcile);
                if let (Err(error), Some(delay)) = (done, again) {
                    println!("  {key}: {error}; again in {delay:?}");
                }
            }
        }
    }
}

/// Makes the ConfigMap of a site what it should be: as the site says, or gone with it.
async fn reconcile(client: Client, key: ObjectKey) -> std::result::Result<(), Failure> {
    let sites = client.request(sites()).namespace(key.namespace());
    let maps = client.request(config_maps()).namespace(key.namespace());
    let Some(site) = unless_gone(sites.get::<Value>(key.name()).await)? else {
        return Ok(());
    };
    if !site["metadata"]["deletionTimestamp"].is_null() {
        unless_gone::<Deleted<Value>>(maps.delete(key.name(), None).await)?;
        let release = |site: &mut Value| {
            if let Some(all) = site["metadata"]["finalizers"].as_array_mut() {
                all.retain(|one| one != FINALIZER);
            }
        };
        unless_gone(sites.update(key.name(), release).await)?;
        return Ok(());
    }
    let page = site["spec"]["page"]
        .as_str()
        .ok_or("spec.page is not a text")?;
    let hold = |site: &mut Value| {
        let mut all = site["metadata"]["finalizers"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        if !all.iter().any(|one| one == FINALIZER) {
            all.push(FINALIZER.into());
            site["metadata"]["finalizers"] = all.into();
        }
    };
    sites.update(key.name(), hold).await?;
    let owner = json!([{
        "apiVersion": "example.com/v1", "kind": "Site", "name": key.name(),
        "uid": site["metadata"]["uid"], "controller": true,
    }]);
    let map = json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": key.name(), "ownerReferences": owner},
        "data": {"index.html": page},
    });
    match maps.create(&map).await {
        Err(error) if error.status().is_some_and(|status| status.code == 409) => {
            maps.update(key.name(), |found: &mut Value| {
                found["data"] = map["data"].clone();
            })
            .await?
        }
        created => created?,
    };
    let status = json!({"observedGeneration": site["metadata"]["generation"], "published": true});
    let say = |site: &mut Value| site["status"] = status.clone();
    sites.subresource("status").update(key.name(), say).await?;
    Ok(())
}

fn unless_gone<T>(answer: Result<T>) -> Result<Option<T>> {
    match answer {
        Err(error) if error.is_not_found() => Ok(None),
        answer => answer.map(Some),
    }
}

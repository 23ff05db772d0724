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

use k8s_openapi::{api::core::v1::ConfigMap, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use kubewire::{
    Client, Resource,
    request::{Kind, Namespaced, Patch},
    watch::{MirrorReader, MirrorUpdate, ObjectKey},
};
use queue::{Done, Queue};
use serde_json::{Value, json};

const FINALIZER: &str = "example.com/page";

/// What is read of a site. It is changed as it stands, so that what else is in one is kept.
#[derive(serde::Deserialize)]
struct Site {
    metadata: ObjectMeta,
    spec: Spec,
}

#[derive(serde::Deserialize)]
struct Spec {
    page: String,
}

impl Kind for Site {
    type Scope = Namespaced;

    fn resource() -> Resource {
        Resource::namespaced("example.com", "v1", "sites")
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    match std::env::args().nth(1).as_deref() {
        None => played::play().await?,
        Some("cluster") => control(Client::from_env().await?).await,
        Some(_) => return Err("usage: controller [cluster]".into()),
    }
    Ok(())
}

/// Follows the sites for good.
async fn control(client: Client) {
    let sites = client.mirror::<Site>().start();
    let reconcile = |key| reconcile(client.clone(), sites.clone(), key);
    let mut changes = sites.changes();
    let mut queue = Queue::default();
    loop {
        tokio::select! {
            Some(update) = changes.next() => match update {
                Ok(MirrorUpdate::Unreadable { error, .. }) => println!("  (no site: {error})"),
                Ok(MirrorUpdate::Retrying { error, .. }) => println!("  (passing: {error})"),
                Ok(update) => update.key().into_iter().for_each(|key| queue.add(key, reconcile)),
                // A refusal passes too, when the sites are defined or the right is given.
                Err(error) => println!("  (watch: {error})"),
            },
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
async fn reconcile(client: Client, all: MirrorReader<Site>, key: ObjectKey) -> Done {
    let Some(site) = all.get(&key) else {
        return Ok(());
    };
    let (name, meta) = (key.name(), &site.metadata);
    let sites = client.request(Site::resource()).namespace(key.namespace());
    let maps = client.api::<ConfigMap>().namespace(key.namespace());
    if meta.deletion_timestamp.is_some() {
        match maps.delete(name, None).await {
            Err(error) if !error.is_not_found() => return Err(error.into()),
            _ => return Ok(sites.remove_finalizer(name, FINALIZER).await?),
        }
    }
    sites.add_finalizer(name, FINALIZER).await?;
    let map = json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": name, "ownerReferences": [{
            "apiVersion": Site::resource().api_version(), "kind": "Site",
            "name": name, "uid": meta.uid, "controller": true,
        }]},
        "data": {"index.html": site.spec.page},
    });
    let apply = Patch::Apply {
        object: &map,
        manager: "sites.example.com",
        force: true,
    };
    maps.patch(name, apply).await?;
    let status = json!({"observedGeneration": meta.generation, "published": true});
    let say = |site: &mut Value| site["status"].clone_from(&status);
    sites.subresource("status").update(name, say).await?;
    Ok(())
}

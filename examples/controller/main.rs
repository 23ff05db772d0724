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
mod site;

use k8s_openapi::{api::core::v1::ConfigMap, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use kubewire::{
    Client, Result,
    watch::{MirrorReader, MirrorUpdate, ObjectKey},
};
use queue::{Failure, Queue};
use site::{Site, Status};

const FINALIZER: &str = "example.com/page";

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
async fn reconcile(
    client: Client,
    all: MirrorReader<Site>,
    key: ObjectKey,
) -> std::result::Result<(), Failure> {
    let Some(site) = all.get(&key) else {
        return Ok(());
    };
    let name = key.name();
    let sites = client.api::<Site>().namespace(key.namespace());
    let maps = client.api::<ConfigMap>().namespace(key.namespace());
    if site.metadata.deletion_timestamp.is_some() {
        unless_gone(maps.delete(name, None).await)?;
        let release = |site: &mut Site| site.finalizers().retain(|one| one != FINALIZER);
        unless_gone(sites.update(name, release).await)?;
        return Ok(());
    }
    let hold = |site: &mut Site| {
        if !site.finalizers().iter().any(|one| one == FINALIZER) {
            site.finalizers().push(FINALIZER.to_owned());
        }
    };
    sites.update(name, hold).await?;
    let map = ConfigMap {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            owner_references: Some(vec![site.owner()]),
            ..ObjectMeta::default()
        },
        data: Some([("index.html".to_owned(), site.spec.page.clone())].into()),
        ..ConfigMap::default()
    };
    match maps.create(&map).await {
        Err(error) if error.status().is_some_and(|status| status.code == 409) => {
            let fill = |found: &mut ConfigMap| found.data.clone_from(&map.data);
            maps.update(name, fill).await?
        }
        created => created?,
    };
    let status = Status {
        observed_generation: site.metadata.generation,
        published: true,
    };
    let say = |site: &mut Site| site.status = Some(status.clone());
    sites.status().update(name, say).await?;
    Ok(())
}

fn unless_gone<T>(answer: Result<T>) -> Result<Option<T>> {
    match answer {
        Err(error) if error.is_not_found() => Ok(None),
        answer => answer.map(Some),
    }
}

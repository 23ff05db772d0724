//! A controller and its test: for every `Site` there is to be a ConfigMap with its page.
//!
//! ```text
//! cargo run --example controller
//! ```
//!
//! `control` is what a program would run in a cluster. `main` tests it against an API server
//! inside this process, whose answers break off and whose history is lost.

#![allow(clippy::print_stdout)]

use std::time::Duration;

use kubewire::{
    Client, Resource, Result,
    request::Deleted,
    testing::{ApiServer, BodyFault},
    watch::{Mirror, ObjectKey, Update},
};
use serde::Deserialize;
use serde_json::{Value, json};

fn sites() -> Resource {
    Resource::namespaced("example.com", "v1", "sites")
}

fn config_maps() -> Resource {
    Resource::namespaced("", "v1", "configmaps")
}

/// What the controller reads of a site. Only this much of each object is kept.
#[derive(Debug, Deserialize)]
struct Site {
    spec: Spec,
}

#[derive(Debug, Deserialize)]
struct Spec {
    page: String,
}

/// Follows the sites for good.
async fn control(client: &Client) -> Result<()> {
    let mut mirror: Mirror<Site> = Mirror::new();
    let mut updates = client.watch(sites()).stream();
    while let Some(update) = updates.next().await {
        // `Err` is what the server has understood and refused, such as a missing right.
        let update = update?;
        if let Update::Retrying { error, .. } = &update {
            println!("  (passing: {error})");
        }
        // What was deleted while the connection was down is among the changes.
        for change in mirror.apply(&update, |object| object.decode())? {
            let key = change.key();
            reconcile(client, key, mirror.get(key)).await?;
        }
    }
    Ok(())
}

/// Makes the ConfigMap of a site what it should be: as the site says, or gone with it.
async fn reconcile(client: &Client, key: &ObjectKey, site: Option<&Site>) -> Result<()> {
    let maps = client.request(config_maps()).namespace(key.namespace());
    let Some(site) = site else {
        let gone: Result<Deleted<Value>> = maps.delete(key.name(), None).await;
        return unless(404, gone);
    };
    let map = json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": key.name()},
        "data": {"index.html": site.spec.page},
    });
    unless(409, maps.create(&map).await)?;
    let page = |found: &mut Value| found["data"] = map["data"].clone();
    maps.update(key.name(), page).await?;
    Ok(())
}

/// Takes a refusal with this code for done.
fn unless<T>(code: u16, done: Result<T>) -> Result<()> {
    match done {
        Err(error) if error.status().is_some_and(|status| status.code == code) => Ok(()),
        done => done.map(drop),
    }
}

#[tokio::main]
async fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    let server = ApiServer::builder().start().await?;
    let put = |name: &str, page: &str| {
        let metadata = json!({"name": name, "namespace": "default"});
        server.put(
            &sites(),
            json!({"kind": "Site", "metadata": metadata, "spec": {"page": page}}),
        );
    };
    put("old", "hello");
    let client = Client::new(&server.config())?;
    let controller = tokio::spawn(async move { control(&client).await });
    until(&server, &[("old", "hello")]).await?;

    println!("the next answers break off, and what happens meanwhile is forgotten");
    let cuts = (0..5).map(|n| Some(BodyFault::Cut { after: 100 * n }));
    server.inject_into_bodies(cuts);
    put("new", "hello again");
    put("old", "changed");
    server.delete(&sites(), "default", "old");
    server.compact();
    until(&server, &[("new", "hello again")]).await?;

    assert!(!controller.is_finished());
    controller.abort();
    server.shutdown().await;
    Ok(())
}

/// Waits until these are the pages.
async fn until(
    server: &ApiServer,
    expected: &[(&str, &str)],
) -> std::result::Result<(), tokio::time::error::Elapsed> {
    let all = || {
        let maps = server.objects(&config_maps()).into_iter();
        maps.map(|map| {
            (
                map["metadata"]["name"].clone(),
                map["data"]["index.html"].clone(),
            )
        })
        .collect::<Vec<_>>()
    };
    let reached = async {
        while all()
            != expected
                .iter()
                .map(|(a, b)| (json!(a), json!(b)))
                .collect::<Vec<_>>()
        {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), reached).await?;
    println!("the pages are {expected:?}");
    Ok(())
}

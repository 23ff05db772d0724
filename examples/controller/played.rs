//! The controller's test: an API server whose answers break off and whose history is lost, and a
//! site that no one can publish.

use std::time::Duration;

use k8s_openapi::{
    api::core::v1::ConfigMap,
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kubewire::{
    Client,
    request::{Deleted, Kind as _},
    testing::{ApiServer, BodyFault},
};
use serde_json::{Value, json};

use super::{Site, control};

type Result<T = (), E = Box<dyn std::error::Error>> = std::result::Result<T, E>;

pub(crate) async fn play() -> Result {
    let server = ApiServer::builder().start().await?;
    let client = Client::new(&server.config())?;
    let controller = tokio::spawn(control(client.clone()));
    let all = client.request(Site::resource()).namespace("default");
    let create = |name: &str, spec: Value| {
        let metadata = json!({"name": name, "namespace": "default"});
        let site = json!({
            "apiVersion": "example.com/v1", "kind": "Site", "metadata": metadata, "spec": spec,
        });
        server.put(&Site::resource(), site);
    };
    println!("nothing is defined yet");
    tokio::time::sleep(Duration::from_millis(200)).await;
    let definition = serde_json::from_value(definition())?;
    client
        .api::<CustomResourceDefinition>()
        .create(&definition)
        .await?;
    create("malformed", json!({"page": 1}));
    create("old", json!({"page": "hello"}));
    until(&server, &[("old", "hello")]).await?;

    println!("the next answers break off, and what happens meanwhile is forgotten");
    server.inject_into_bodies((0..2).map(|n| Some(BodyFault::Cut { after: 100 * n })));
    create("new", json!({"page": "hello again"}));
    server.compact();
    until(&server, &[("new", "hello again"), ("old", "hello")]).await?;

    println!("a site changes, another goes, and its page with it");
    let changed = json!({"spec": {"page": "changed"}});
    let _: Value = all.patch("new", &changed).await?;
    let _: Deleted<Value> = all.delete("old", None).await?;
    until(&server, &[("new", "changed")]).await?;

    println!("the status follows, and the old site goes");
    let status = async {
        loop {
            let site: Value = all.get("new").await?;
            let said = &site["status"]["observedGeneration"];
            if *said == site["metadata"]["generation"]
                && server.objects(&Site::resource()).len() == 2
            {
                return Ok::<_, kubewire::Error>(site);
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let site = tokio::time::timeout(Duration::from_secs(120), status).await??;
    assert_eq!(
        pages(&server)[0]["metadata"]["ownerReferences"][0]["uid"],
        site["metadata"]["uid"]
    );

    assert!(!controller.is_finished());
    controller.abort();
    server.shutdown().await;
    Ok(())
}

fn definition() -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "sites.example.com"},
        "spec": {
            "group": "example.com", "scope": "Namespaced",
            "names": {"plural": "sites", "singular": "site", "kind": "Site"},
            "versions": [{
                "name": "v1", "served": true, "storage": true, "subresources": {"status": {}},
                "schema": {"openAPIV3Schema": {
                    "type": "object", "x-kubernetes-preserve-unknown-fields": true,
                }},
            }],
        },
    })
}

/// Waits until these are the pages, by name.
async fn until(server: &ApiServer, expected: &[(&str, &str)]) -> Result {
    let expected: Vec<_> = expected
        .iter()
        .map(|(name, page)| (json!(name), json!(page)))
        .collect();
    let are_there = || {
        let pages = pages(server).into_iter();
        pages
            .map(|page| {
                (
                    page["metadata"]["name"].clone(),
                    page["data"]["index.html"].clone(),
                )
            })
            .collect::<Vec<_>>()
    };
    let reached = async {
        while are_there() != expected {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(120), reached).await?;
    println!("the pages are {expected:?}");
    Ok(())
}

/// The ConfigMaps that have a page: every namespace has another.
fn pages(server: &ApiServer) -> Vec<Value> {
    let mut maps = server.objects(&ConfigMap::resource());
    maps.retain(|map| map["data"]["index.html"].is_string());
    maps
}

//! Plain requests to a real API server.
//!
//! ```text
//! KUBECONFIG=... cargo test --test requests -- --ignored
//! ```
//!
//! They make ConfigMaps of their own in `default` and delete them at the end.

#![cfg(feature = "client")]
#![allow(clippy::unwrap_used)]

use kubewire::{
    Client, Error,
    request::{Deleted, List, Patch, Request, Resource},
};
use serde_json::{Value, json};

async fn maps() -> (Client, Request) {
    let client = Client::from_env().await.unwrap();
    let maps = client
        .request(Resource::namespaced("", "v1", "configmaps"))
        .namespace("default");
    (client, maps)
}

fn map(name: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "labels": {"kubewire-test": name}},
        "data": {"n": "0"},
    })
}

#[tokio::test]
#[ignore = "needs a cluster"]
async fn an_object_lives_and_dies() {
    let (_, maps) = maps().await;
    let name = format!("kubewire-life-{}", std::process::id());
    let created = maps.create(&map(&name)).await.unwrap();
    let again = maps.create(&map(&name)).await.unwrap_err();
    assert_eq!(again.status().unwrap().reason, "AlreadyExists");
    assert!(matches!(again, Error::Api(_)), "{again:?}");

    let mut next = created.clone();
    next["data"]["n"] = json!("1");
    maps.replace(&name, &next).await.unwrap();
    let late = maps.replace(&name, &next).await.unwrap_err();
    assert!(matches!(late, Error::Conflict(_)), "{late:?}");

    for (patch, expected) in [
        (Patch::Merge(&json!({"data": {"n": "2"}})), "2"),
        (Patch::Strategic(&json!({"data": {"n": "3"}})), "3"),
        (
            Patch::Json(&json!([{"op": "replace", "path": "/data/n", "value": "4"}])),
            "4",
        ),
    ] {
        let patched: Value = maps.patch(&name, patch).await.unwrap();
        assert_eq!(patched["data"]["n"], expected);
    }
    let mut object = map(&name);
    object["data"]["n"] = json!("5");
    let apply = |force| Patch::Apply {
        object: &object,
        manager: "kubewire-test",
        force,
    };
    let owned = maps
        .patch::<_, Value>(&name, apply(false))
        .await
        .unwrap_err();
    assert!(matches!(owned, Error::Conflict(_)), "{owned:?}");
    let causes = owned.status().unwrap().causes().count();
    assert!(causes > 0, "the owners are named");
    let applied: Value = maps.patch(&name, apply(true)).await.unwrap();
    assert_eq!(applied["data"]["n"], "5");

    let gone: Deleted<Value> = maps.delete(&name, None).await.unwrap();
    assert!(matches!(gone, Deleted::Gone(_)), "{gone:?}");
    let error = maps.get::<Value>(&name).await.unwrap_err();
    assert_eq!(error.status().unwrap().code, 404);
}

#[tokio::test]
#[ignore = "needs a cluster"]
async fn updates_of_many_lose_nothing() {
    let (_, maps) = maps().await;
    let name = format!("kubewire-update-{}", std::process::id());
    maps.create(&map(&name)).await.unwrap();
    let tasks: Vec<_> = (0..4)
        .map(|_| {
            let (maps, name) = (maps.clone(), name.clone());
            tokio::spawn(async move {
                for _ in 0..5 {
                    maps.update(&name, |map: &mut Value| {
                        let n: u32 = map["data"]["n"].as_str().unwrap().parse().unwrap();
                        map["data"]["n"] = json!((n + 1).to_string());
                    })
                    .await
                    .unwrap();
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let map: Value = maps.get(&name).await.unwrap();
    maps.delete::<Value>(&name, None).await.unwrap();
    assert_eq!(map["data"]["n"], "20");
}

#[tokio::test]
#[ignore = "needs a cluster"]
async fn lists_come_in_pages() {
    let (_, maps) = maps().await;
    let label = format!("kubewire-page-{}", std::process::id());
    for n in 0..5 {
        let mut map = map(&format!("{label}-{n}"));
        map["metadata"]["labels"] = json!({"kubewire-test": label});
        maps.create(&map).await.unwrap();
    }
    let mine = maps.clone().labels(format!("kubewire-test={label}"));
    let mut pages = mine.pages::<Value>(2);
    let mut sizes = Vec::new();
    while let Some(page) = pages.next().await.unwrap() {
        sizes.push(page.items.len());
    }
    let all: List<Value> = mine.list().await.unwrap();
    for item in &all.items {
        let name = item["metadata"]["name"].as_str().unwrap();
        maps.delete::<Value>(name, None).await.unwrap();
    }
    assert_eq!((sizes, all.items.len()), (vec![2, 2, 1], 5));
    assert!(!all.metadata.resource_version.is_empty());
}

#[tokio::test]
#[ignore = "needs a cluster"]
async fn names_of_every_form_give_their_resource() {
    let (client, _) = maps().await;
    for name in ["configmaps", "configmap", "ConfigMap", "cm"] {
        let known = client.find(name).await.unwrap();
        assert_eq!(known.resource, Resource::namespaced("", "v1", "configmaps"));
    }
    for name in [
        "deploy",
        "Deployment",
        "deployments.apps",
        "deployments.v1.apps",
    ] {
        let known = client.find(name).await.unwrap();
        assert_eq!(known.resource.to_string(), "deployments.apps");
        assert!(known.subresources.iter().any(|sub| sub == "scale"));
    }
    assert!(!client.find("no").await.unwrap().resource.namespaced);
    assert!(client.find("no-such-thing").await.is_err());
}

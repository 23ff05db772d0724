//! Objects of a type that is known: each verb, and what it sends.

#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use k8s_openapi::api::core::v1::{ConfigMap, Node, Pod};
use kubewire::{
    Client, Error, Resource,
    error::CallerError,
    request::{Deleted, Kind, Namespaced, Patch},
    testing::ApiServer,
};
use serde_json::{Value, json};

async fn start() -> (ApiServer, Client) {
    let server = ApiServer::builder()
        .pod("default", "web-0", |pod| {
            pod.label("app", "web")
                .container("main", ["sleep", "infinity"])
        })
        .start()
        .await
        .unwrap();
    let client = Client::new(&server.config()).unwrap();
    (server, client)
}

fn map(name: &str, value: &str) -> ConfigMap {
    let map = json!({"metadata": {"name": name, "labels": {"app": name}}, "data": {"key": value}});
    serde_json::from_value(map).unwrap()
}

fn value(map: &ConfigMap) -> &str {
    &map.data.as_ref().unwrap()["key"]
}

#[tokio::test]
async fn each_verb_gives_and_takes_the_type() {
    let (_server, client) = start().await;
    let maps = client.api::<ConfigMap>().namespace("default");
    for name in ["a", "b"] {
        assert_eq!(value(&maps.create(&map(name, "1")).await.unwrap()), "1");
    }
    assert_eq!(value(&maps.get("a").await.unwrap()), "1");
    let mut read = maps.get("a").await.unwrap();
    read.data.as_mut().unwrap().insert("key".into(), "2".into());
    assert_eq!(value(&maps.replace("a", &read).await.unwrap()), "2");
    let stale = maps.replace("a", &read).await;
    assert!(stale.unwrap_err().is_conflict());
    let changed = maps.update("a", |map| {
        map.data.as_mut().unwrap().insert("key".into(), "3".into());
    });
    assert_eq!(value(&changed.await.unwrap()), "3");

    let own = maps.clone().labels("app");
    assert_eq!(own.list().await.unwrap().items.len(), 2);
    let selected = maps.clone().labels("app=b");
    assert_eq!(selected.list().await.unwrap().items.len(), 1);
    let named = maps.clone().fields("metadata.name=a");
    assert_eq!(named.list().await.unwrap().items.len(), 1);
    let mut pages = own.pages(1);
    let mut names = Vec::new();
    while let Some(page) = pages.next().await.unwrap() {
        names.extend(page.items.into_iter().map(|map| map.metadata.name.unwrap()));
    }
    assert_eq!(names, ["a", "b"]);

    let mut events = selected.watch().once().await.unwrap();
    let event = events.next().await.unwrap().unwrap();
    assert_eq!(event.decode().unwrap().metadata.name.unwrap(), "b");

    let gone = maps.delete("a", None).await.unwrap();
    assert!(matches!(gone, Deleted::Gone(_) | Deleted::Object(_)));
    assert!(maps.get("a").await.unwrap_err().is_not_found());
}

#[tokio::test]
async fn the_kind_of_a_patch_is_that_of_its_argument() {
    let (_server, client) = start().await;
    let maps = client.api::<ConfigMap>().namespace("default");
    maps.create(&map("a", "1")).await.unwrap();
    let merge = json!({"data": {"key": "2"}});
    assert_eq!(value(&maps.patch("a", &merge).await.unwrap()), "2");
    // A type whose fields are left out merges as well.
    let typed: ConfigMap = serde_json::from_value(json!({"data": {"more": "x"}})).unwrap();
    let merged = maps.patch("a", &typed).await.unwrap();
    assert_eq!(
        (value(&merged), merged.data.as_ref().unwrap().len()),
        ("2", 2)
    );
    let list = json!([{"op": "test", "path": "/data/key", "value": "2"},
        {"op": "replace", "path": "/data/key", "value": "3"}]);
    assert_eq!(value(&maps.patch("a", &list).await.unwrap()), "3");
    let strategic = Patch::Strategic(&json!({"data": {"key": "4"}}));
    assert_eq!(value(&maps.patch("a", strategic).await.unwrap()), "4");
    let apply = Patch::Apply {
        object: &json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {"key": "5"}}),
        manager: "tests",
        force: true,
    };
    assert_eq!(value(&maps.patch("a", apply).await.unwrap()), "5");
}

#[tokio::test]
async fn the_status_is_by_itself() {
    let (_server, client) = start().await;
    let pods = client.api::<Pod>().namespace("default");
    let both = json!({"spec": {"priority": 7}, "status": {"reason": "Tested"}});
    let pod = pods.status().patch("web-0", &both).await.unwrap();
    assert_eq!(pod.status.unwrap().reason.unwrap(), "Tested");
    let pod = pods.status().get("web-0").await.unwrap();
    assert_eq!(pod.spec.unwrap().priority, Some(0));
}

#[tokio::test]
async fn objects_of_the_cluster_have_no_namespace() {
    let (server, client) = start().await;
    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "one"}});
    server.put(&Node::resource(), node);
    let nodes = client.api::<Node>();
    assert_eq!(nodes.get("one").await.unwrap().metadata.namespace, None);
    let named = nodes.fields("metadata.name=one").list().await.unwrap();
    assert_eq!(named.items.len(), 1);
}

#[tokio::test]
async fn a_type_of_ones_own_is_a_part_of_the_object() {
    #[derive(serde::Deserialize)]
    struct Phase {
        status: Status,
    }
    #[derive(serde::Deserialize)]
    struct Status {
        phase: String,
    }
    impl Kind for Phase {
        type Scope = Namespaced;

        fn resource() -> Resource {
            Pod::resource()
        }
    }
    let (_server, client) = start().await;
    let pods = client.api::<Phase>().namespace("default");
    assert_eq!(pods.get("web-0").await.unwrap().status.phase, "Running");
}

#[cfg(feature = "kube")]
mod kube {
    use kube_core::{Resource as _, metadata::PartialObjectMeta};

    use super::*;

    #[tokio::test]
    async fn metadata_are_asked_for_and_cannot_be_written() {
        let (server, client) = start().await;
        let pods = client.api::<PartialObjectMeta<Pod>>().namespace("default");
        let pod = pods.get("web-0").await.unwrap();
        assert_eq!(pod.types.as_ref().unwrap().kind, "PartialObjectMetadata");
        assert_eq!(pods.list().await.unwrap().items.len(), 1);
        let mut events = pods.watch().once().await.unwrap();
        let event = events.next().await.unwrap().unwrap();
        let decoded = event.decode().unwrap();
        assert_eq!(decoded.meta().name.as_deref(), Some("web-0"));
        let before = server.objects(&Resource::namespaced("", "v1", "pods"));
        let refused = pods.replace("web-0", &pod).await.unwrap_err();
        assert!(matches!(
            refused,
            Error::Caller(CallerError::MetadataOnly { .. })
        ));
        let after: Vec<Value> = server.objects(&Resource::namespaced("", "v1", "pods"));
        assert_eq!(before, after);
    }

    fn config(server: &ApiServer) -> kube_client::Config {
        // The embedded server's kubeconfig, as a program with kube reads it.
        let kubeconfig = kube_client::config::Kubeconfig::from_yaml(&server.kubeconfig()).unwrap();
        kube_client::Config::try_from(kubeconfig).unwrap()
    }

    #[tokio::test]
    async fn a_client_comes_out_of_kubes_configuration() {
        let (server, _) = start().await;
        let mut kube = config(&server);
        kube.default_namespace = "elsewhere".into();
        let client = Client::try_from(kube).unwrap();
        assert_eq!(client.namespace(), "elsewhere");
        let pod = client.api::<Pod>().namespace("default").get("web-0").await;
        assert_eq!(pod.unwrap().metadata.name.as_deref(), Some("web-0"));
        let output = client.pod("default", "web-0").exec(["true"]).output().await;
        assert!(output.unwrap().status.success());
    }

    #[tokio::test]
    async fn kubes_user_is_taken_over_and_what_cannot_be_is_refused() {
        let (server, _) = start().await;
        let mut kube = config(&server);
        kube.auth_info.token = Some("not the token".into());
        let error = Client::try_from(kube.clone())
            .unwrap()
            .api::<Pod>()
            .get("web-0")
            .await
            .unwrap_err();
        assert_eq!(error.status().unwrap().code, 401);
        let exec = kube_client::config::ExecConfig {
            command: Some("true".into()),
            api_version: Some("client.authentication.k8s.io/v1".into()),
            drop_env: Some(vec!["HOME".into()]),
            ..Default::default()
        };
        kube.auth_info.exec = Some(exec);
        let error = Client::try_from(kube).unwrap_err();
        assert!(error.to_string().contains("drop_env"), "{error}");
    }
}

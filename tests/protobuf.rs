//! Objects as messages of k8s-pb: requests, watches and mirrors, and what has no protobuf.

#![cfg(all(feature = "testing", feature = "k8s-pb"))]
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

#[path = "common/empty.rs"]
mod empty;

use std::{collections::BTreeMap, future::Future, time::Duration};

use k8s_pb::{
    NamespaceResourceScope,
    api::core::v1::{ConfigMap, Node, Pod},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kubewire::{
    Client, Error, Resource,
    error::PeerError,
    request::Deleted,
    testing::ApiServer,
    watch::{Encoding, EventError, Form, MirrorUpdate, Protobuf, Update},
};
use serde_json::{Value, json};

async fn patient<T>(future: impl Future<Output = T>) -> T {
    let minutes = Duration::from_secs(180);
    tokio::time::timeout(minutes, future).await.unwrap()
}

fn maps() -> Resource {
    Resource::namespaced("", "v1", "configmaps")
}

fn put(server: &ApiServer, name: &str, value: &str) {
    let metadata = json!({"name": name, "namespace": "default"});
    let map = json!({"kind": "ConfigMap", "metadata": metadata, "data": {"key": value}});
    server.put(&maps(), map);
}

async fn start() -> (ApiServer, Client) {
    let server = ApiServer::builder().start().await.unwrap();
    empty::empty(&server);
    let client = Client::new(&server.config()).unwrap();
    (server, client)
}

/// A custom resource, which has no protobuf.
#[derive(Clone, PartialEq, prost::Message)]
struct Thing {
    #[prost(message, optional, tag = "1")]
    metadata: Option<ObjectMeta>,
}

impl k8s_pb::Resource for Thing {
    const API_VERSION: &'static str = "example.com/v1";
    const GROUP: &'static str = "example.com";
    const KIND: &'static str = "Thing";
    const VERSION: &'static str = "v1";
    const URL_PATH_SEGMENT: &'static str = "things";
    type Scope = NamespaceResourceScope;
}

/// The paths of one kind, and the fields of another.
#[derive(Clone, PartialEq, prost::Message)]
struct NoMap {
    #[prost(message, optional, tag = "1")]
    metadata: Option<ObjectMeta>,
}

impl k8s_pb::Resource for NoMap {
    const API_VERSION: &'static str = "v1";
    const GROUP: &'static str = "";
    const KIND: &'static str = "NoMap";
    const VERSION: &'static str = "v1";
    const URL_PATH_SEGMENT: &'static str = "configmaps";
    type Scope = NamespaceResourceScope;
}

fn problem(error: Error) -> String {
    let Error::Peer(PeerError::Answer { problem, .. }) = error else {
        panic!("{error:?}");
    };
    problem
}

#[tokio::test]
async fn requests_give_messages() {
    let (server, client) = start().await;
    for (name, value) in [("a", "1"), ("b", "2"), ("c", "3")] {
        put(&server, name, value);
    }
    let api = client.api::<Protobuf<ConfigMap>>().namespace("default");
    let map = patient(api.get("a")).await.unwrap();
    let key = |value: &str| BTreeMap::from([("key".to_owned(), value.to_owned())]);
    assert_eq!(map.data, key("1"));
    assert_eq!(map.metadata.as_ref().unwrap().name(), "a");

    let list = patient(api.list()).await.unwrap();
    let values: Vec<_> = list.items.iter().map(|map| map.data.clone()).collect();
    assert_eq!(values, ["1", "2", "3"].map(key));
    let json = client.request(maps()).namespace("default");
    let json = patient(json.list::<Value>()).await.unwrap();
    assert_eq!(list.metadata, json.metadata);

    let mut pages = api.pages(2);
    let page = patient(pages.next()).await.unwrap().unwrap();
    assert_eq!(page.items.len(), 2);
    assert_eq!(page.metadata.remaining_item_count, Some(1));
    let page = patient(pages.next()).await.unwrap().unwrap();
    assert_eq!(page.items[0].data, key("3"));
    assert!(patient(pages.next()).await.unwrap().is_none());

    let map = patient(api.patch("a", &json!({"data": {"key": "4"}}))).await;
    assert_eq!(map.unwrap().data, key("4"));
    assert!(patient(api.delete("a", None)).await.is_ok());
    let status = patient(api.get("a")).await.unwrap_err();
    assert!(status.is_not_found(), "{status}");
    server.shutdown().await;
}

#[tokio::test]
async fn a_deleted_object_is_a_message_too() {
    let (server, client) = start().await;
    let map = json!({
        "kind": "ConfigMap",
        "metadata": {
            "name": "kept", "namespace": "default", "finalizers": ["example.com/keep"],
        },
    });
    server.put(&maps(), map);
    let api = client.api::<Protobuf<ConfigMap>>().namespace("default");
    let deleted = patient(api.delete("kept", None)).await.unwrap();
    let Deleted::Object(map) = deleted else {
        panic!("{deleted:?}");
    };
    assert!(map.metadata.as_ref().unwrap().deletion_timestamp.is_some());
    server.shutdown().await;
}

#[tokio::test]
async fn watches_and_mirrors_give_messages() {
    for watch_list in [true, false] {
        let builder = ApiServer::builder().watch_list(watch_list);
        let builder = builder.pod("default", "web-0", |pod| {
            pod.label("app", "web").container("main", ["sleep", "9"])
        });
        let server = builder.start().await.unwrap();
        let client = Client::new(&server.config()).unwrap();
        let api = client.api::<Protobuf<Pod>>().namespace("default");
        for over_websocket in [false, true] {
            let watch = match over_websocket {
                true => api.watch().over_websocket(),
                false => api.watch(),
            };
            let mut updates = watch.stream();
            loop {
                match patient(updates.next()).await.unwrap().unwrap() {
                    Update::Event(event) => {
                        assert_eq!(event.object.encoding(), Encoding::Protobuf);
                        let pod = event.decode().unwrap();
                        assert_eq!(pod.metadata.as_ref().unwrap().name(), "web-0");
                        let spec = pod.spec.as_ref().unwrap();
                        assert_eq!(spec.containers[0].command, ["sleep", "9"]);
                    }
                    Update::SnapshotEnd { .. } => break,
                    Update::SnapshotBegin => {}
                    other => panic!("{other:?}"),
                }
            }
        }
        let pods = api.mirror().index_by_label("app").start();
        patient(pods.wait_until_ready()).await.unwrap();
        let web = &pods.by_label("app", "web").unwrap()[0];
        assert_eq!(web.spec.as_ref().unwrap().containers.len(), 1);
        let metadata = api.mirror().metadata_only().start();
        patient(metadata.wait_until_ready()).await.unwrap();
        assert_eq!(metadata.len(), 1);
        server.shutdown().await;
    }
}

#[tokio::test]
async fn objects_of_the_cluster_have_no_namespace() {
    let (server, client) = start().await;
    let node = json!({"kind": "Node", "metadata": {"name": "node-1"}});
    server.put(&Resource::cluster("", "v1", "nodes"), node);
    let node = patient(client.api::<Protobuf<Node>>().get("node-1")).await;
    assert_eq!(node.unwrap().metadata.as_ref().unwrap().name(), "node-1");
    server.shutdown().await;
}

#[tokio::test]
async fn what_has_no_protobuf_is_refused_in_words() {
    let (server, client) = start().await;
    let things = Resource::namespaced("example.com", "v1", "things");
    let metadata = json!({"name": "a", "namespace": "default"});
    server.put(&things, json!({"kind": "Thing", "metadata": metadata}));
    let words = "the server sends JSON, and a prost type is read from protobuf";
    let api = client.api::<Protobuf<Thing>>().namespace("default");
    for error in [
        patient(api.get("a")).await.unwrap_err(),
        patient(api.list()).await.unwrap_err(),
    ] {
        assert!(problem(error).contains(words));
    }
    let mut changes = api.mirror().start().changes();
    loop {
        match patient(changes.next()).await.unwrap().unwrap() {
            MirrorUpdate::Unreadable { key, error } => {
                assert_eq!(key.unwrap().name(), "a");
                let found = Encoding::Json;
                assert_eq!(error, EventError::NotProtobuf { found });
                break;
            }
            MirrorUpdate::Current | MirrorUpdate::Retrying { .. } => {}
            other => panic!("{other:?}"),
        }
    }
    // Their metadata have.
    let metadata = api.mirror().metadata_only().start();
    patient(metadata.wait_until_ready()).await.unwrap();
    assert_eq!(metadata.len(), 1);
    server.shutdown().await;
}

#[tokio::test]
async fn a_message_of_another_kind_is_none() {
    let (server, client) = start().await;
    put(&server, "a", "1");
    let api = client.api::<Protobuf<NoMap>>().namespace("default");
    let words = "it is a ConfigMap, not a NoMap";
    for error in [
        patient(api.get("a")).await.unwrap_err(),
        patient(api.list()).await.unwrap_err(),
    ] {
        assert_eq!(problem(error), words);
    }
    // Nor is what the server makes of one.
    let maps = client.api::<Protobuf<ConfigMap>>().namespace("default");
    let mut events = patient(maps.watch().form(Form::Metadata).once())
        .await
        .unwrap();
    let event = patient(events.next()).await.unwrap().unwrap();
    let error = event.decode().unwrap_err();
    let words = "it is a PartialObjectMetadata, not a ConfigMap";
    assert_eq!(error, EventError::Decode(words.to_owned()));
    server.shutdown().await;
}

#[tokio::test]
#[ignore = "needs a cluster"]
async fn a_real_server_s_objects_are_messages() {
    let client = Client::from_env().await.unwrap();
    let nodes = client.api::<Protobuf<Node>>();
    let list = patient(nodes.list()).await.unwrap();
    let of = |node: &Node| {
        let info = node.status.as_ref().and_then(|it| it.node_info.as_ref());
        let name = node.metadata.as_ref().map(|it| it.name().to_owned());
        (name.unwrap(), info.unwrap().kubelet_version().to_owned())
    };
    assert!(!list.items.is_empty());
    let json = client.request(Resource::cluster("", "v1", "nodes"));
    let json = patient(json.list::<Value>()).await.unwrap();
    for (node, same) in list.items.iter().zip(&json.items) {
        let (name, version) = of(node);
        assert_eq!(same["metadata"]["name"], *name);
        assert_eq!(same["status"]["nodeInfo"]["kubeletVersion"], *version);
    }
    for watch_list in [true, false] {
        let mut updates = nodes.watch().watch_list(watch_list).stream();
        let mut seen = 0;
        loop {
            match patient(updates.next()).await.unwrap().unwrap() {
                Update::Event(event) => {
                    assert_eq!(event.object.encoding(), Encoding::Protobuf);
                    assert!(!of(&event.decode().unwrap()).1.is_empty());
                    seen += 1;
                }
                Update::SnapshotEnd { .. } => break,
                _ => {}
            }
        }
        assert_eq!(seen, list.items.len());
    }
    let metadata = nodes.mirror().metadata_only().start();
    patient(metadata.wait_until_ready()).await.unwrap();
    assert_eq!(metadata.len(), list.items.len());
    let missing = patient(nodes.get("no-such-node")).await.unwrap_err();
    assert!(missing.is_not_found(), "{missing}");
}

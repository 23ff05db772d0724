//! Writes to the embedded server, as controllers make them.

#![cfg(feature = "testing")]
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use kubewire::{
    Client, Error, Resource,
    request::{Deleted, Patch, Request},
    testing::ApiServer,
    wire::status::Status,
};
use serde_json::{Value, json};

fn things() -> Resource {
    Resource::namespaced("example.com", "v1", "things")
}

async fn start() -> (ApiServer, Client, Request) {
    let server = ApiServer::builder()
        .resource_with(things(), "Thing", |thing| thing.status())
        .start()
        .await
        .unwrap();
    let client = Client::new(&server.config()).unwrap();
    let requests = client.request(things()).namespace("default");
    (server, client, requests)
}

fn thing(name: &str) -> Value {
    json!({
        "apiVersion": "example.com/v1",
        "kind": "Thing",
        "metadata": {"name": name},
        "spec": {"size": 1},
    })
}

fn status<T: std::fmt::Debug>(result: Result<T, Error>) -> Status {
    result.unwrap_err().status().unwrap().clone()
}

#[tokio::test]
async fn an_object_is_created_once_and_completed() {
    let (server, _, requests) = start().await;
    let made = requests.create(&thing("a")).await.unwrap();
    let metadata = &made["metadata"];
    assert_eq!(metadata["namespace"], "default");
    assert_eq!(metadata["generation"], 1);
    assert_eq!(metadata["resourceVersion"], server.resource_version());
    assert!(metadata["uid"].is_string() && metadata["creationTimestamp"].is_string());
    assert_eq!(requests.get::<Value>("a").await.unwrap(), made);
    let again = status(requests.create(&thing("a")).await);
    assert_eq!((again.code, &*again.reason), (409, "AlreadyExists"));
    assert_eq!(again.message, "things.example.com \"a\" already exists");
    let mut generated = thing("");
    generated["metadata"] = json!({"generateName": "a-"});
    let made = requests.create(&generated).await.unwrap();
    assert!(made["metadata"]["name"].as_str().unwrap().len() > 2);
    generated["metadata"] = json!({});
    assert_eq!(status(requests.create(&generated).await).code, 422);
    let elsewhere = json!({"metadata": {"name": "b", "namespace": "other"}});
    assert_eq!(status(requests.create(&elsewhere).await).code, 400);
}

#[tokio::test]
async fn only_the_present_version_can_be_replaced() {
    let (server, _, requests) = start().await;
    let first = requests.create(&thing("a")).await.unwrap();
    let mut second = first.clone();
    second["spec"]["size"] = 2.into();
    let second = requests.replace("a", &second).await.unwrap();
    assert_eq!(second["metadata"]["generation"], 2);
    assert_eq!(second["metadata"]["uid"], first["metadata"]["uid"]);
    let conflict = requests.replace("a", &first).await.unwrap_err();
    assert!(matches!(conflict, Error::Conflict(_)), "{conflict}");
    assert!(
        conflict
            .to_string()
            .contains("the object has been modified")
    );
    // A write that changes nothing is none.
    let version = server.resource_version();
    assert_eq!(requests.replace("a", &second).await.unwrap(), second);
    assert_eq!(server.resource_version(), version);
    assert_eq!(status(requests.replace("b", &second).await).code, 400);
    assert_eq!(status(requests.replace("b", &thing("b")).await).code, 404);
    let mut other = second.clone();
    other["metadata"]["uid"] = "another".into();
    assert!(matches!(
        requests.replace("a", &other).await,
        Err(Error::Conflict(_))
    ));

    // Many at once lose nothing.
    let add = || {
        let requests = requests.clone();
        tokio::spawn(async move {
            let grow = |thing: &mut Value| {
                thing["spec"]["size"] = (thing["spec"]["size"].as_u64().unwrap() + 1).into();
            };
            while let Err(error) = requests.update("a", grow).await {
                assert!(matches!(error, Error::Conflict(_)), "{error}");
            }
        })
    };
    for task in (0..8).map(|_| add()).collect::<Vec<_>>() {
        task.await.unwrap();
    }
    assert_eq!(
        requests.get::<Value>("a").await.unwrap()["spec"]["size"],
        10
    );
}

#[tokio::test]
async fn patches_merge_and_the_status_is_apart() {
    let (_server, _, requests) = start().await;
    requests.create(&thing("a")).await.unwrap();
    let patch = json!({"metadata": {"labels": {"x": "y"}}, "spec": {"size": null, "color": "red"}});
    let patched: Value = requests.patch("a", Patch::Merge(&patch)).await.unwrap();
    assert_eq!(patched["spec"], json!({"color": "red"}));
    assert_eq!(patched["metadata"]["labels"], json!({"x": "y"}));
    assert_eq!(patched["metadata"]["generation"], 2);
    let statuses = requests.clone().subresource("status");
    let patch = json!({"spec": {"color": "blue"}, "status": {"ready": true}});
    let patched: Value = statuses.patch("a", Patch::Merge(&patch)).await.unwrap();
    assert_eq!(patched["spec"], json!({"color": "red"}));
    assert_eq!(patched["status"], json!({"ready": true}));
    assert_eq!(patched["metadata"]["generation"], 2);
    let stale = json!({"metadata": {"resourceVersion": "1"}, "spec": {"color": "green"}});
    let conflict: Result<Value, _> = requests.patch("a", Patch::Merge(&stale)).await;
    assert!(matches!(conflict, Err(Error::Conflict(_))));
    let unknown: Result<Value, _> = requests.patch("a", Patch::Strategic(&patch)).await;
    assert_eq!(status(unknown).code, 415);
    let missing: Result<Value, _> = requests.patch("b", Patch::Merge(&patch)).await;
    assert_eq!(status(missing).code, 404);
}

#[tokio::test]
async fn finalizers_hold_a_deletion_up() {
    let (server, client, requests) = start().await;
    let mut held = thing("a");
    held["metadata"]["finalizers"] = json!(["example.com/cleanup"]);
    let made = requests.create(&held).await.unwrap();
    let uid = json!({"preconditions": {"uid": "another"}});
    let conflict: Result<Deleted<Value>, _> = requests.delete("a", Some(&uid)).await;
    assert!(matches!(conflict, Err(Error::Conflict(_))));
    let right = json!({"preconditions": {"uid": made["metadata"]["uid"]}});
    let Deleted::Object(leaving) = requests.delete::<Value>("a", Some(&right)).await.unwrap()
    else {
        panic!("it is held");
    };
    assert!(leaving["metadata"]["deletionTimestamp"].is_string());
    let again = requests.delete::<Value>("a", None).await.unwrap();
    assert_eq!(again, Deleted::Object(leaving));
    let done = json!({"metadata": {"finalizers": null}});
    let mut watch = client.watch(things()).from(server.resource_version());
    watch = watch.namespace("default");
    let mut events = watch.once().await.unwrap();
    let _: Value = requests.patch("a", Patch::Merge(&done)).await.unwrap();
    let event = events.next().await.unwrap().unwrap();
    assert_eq!(event.event_type.as_str(), "DELETED");
    assert!(server.objects(&things()).is_empty());
    requests.create(&thing("b")).await.unwrap();
    let gone = requests.delete::<Value>("b", None).await.unwrap();
    assert!(matches!(gone, Deleted::Gone(_)), "{gone:?}");
    assert_eq!(status(requests.delete::<Value>("b", None).await).code, 404);
}

#[tokio::test]
async fn who_has_no_rights_writes_nothing() {
    let (server, _, _) = start().await;
    let config = server.config_with_token(server.token_without_rights());
    let nobody = Client::new(&config).unwrap();
    let requests = nobody.request(things()).namespace("default");
    let error = requests.create(&thing("a")).await.unwrap_err();
    let text = "cannot create resource \"things\" in API group \"example.com\"";
    assert!(error.to_string().contains(text), "{error}");
    let patch = json!({"status": {}});
    let statuses = requests.subresource("status");
    let error = statuses.patch::<_, Value>("a", Patch::Merge(&patch)).await;
    let error = error.unwrap_err().to_string();
    assert!(
        error.contains("cannot patch resource \"things/status\""),
        "{error}"
    );
    assert!(server.objects(&things()).is_empty());
}

//! Objects in every encoding and form, from the embedded server to the client.

#![cfg(feature = "testing")]
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use kubewire::{
    Client, Error, Resource,
    session::watch::Form,
    testing::{ApiServer, ApiServerBuilder, BodyFault},
    watch::{Change, Mirror, Update, Updates, Watch},
    wire::{
        status::Status,
        watch::{Encoding, Event, EventError, EventType, Object},
    },
};
use prost::Message;
use serde_json::{Value, json};

const ENCODINGS: [Encoding; 3] = [Encoding::Json, Encoding::Protobuf, Encoding::Cbor];

fn things() -> Resource {
    Resource::namespaced("example.com", "v1", "things")
}

fn maps() -> Resource {
    Resource::namespaced("", "v1", "configmaps")
}

fn thing(name: &str, value: u64) -> Value {
    json!({
        "kind": "Thing",
        "metadata": {
            "name": name,
            "namespace": "default",
            "generation": 7,
            "labels": {"app": "web", "unicode": "ünïcödé \u{1F980}"},
            "annotations": {"quotes": "\"\\\n<&>"},
        },
        "value": value,
        "nested": {"list": [1, -2, 0.5, null, true], "empty": {}},
    })
}

/// `ConfigMap` of `k8s.io/api/core/v1/generated.proto`, without its metadata.
#[derive(Clone, PartialEq, Message)]
struct ConfigMap {
    #[prost(btree_map = "string, string", tag = "2")]
    data: BTreeMap<String, String>,
    #[prost(bool, optional, tag = "4")]
    immutable: Option<bool>,
}

fn put_map(server: &ApiServer, name: &str, value: &str) -> String {
    let data = BTreeMap::from([("key".to_owned(), value.to_owned())]);
    let message = ConfigMap {
        data: data.clone(),
        immutable: Some(true),
    };
    let object = json!({
        "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": "default", "labels": {"value": value}},
        "data": data,
        "immutable": true,
    });
    server.put_protobuf(&maps(), object, message.encode_to_vec())
}

async fn start(builder: ApiServerBuilder) -> (ApiServer, Client) {
    let server = builder.start().await.unwrap();
    // Those that are in every namespace.
    for map in server.objects(&maps()) {
        let metadata = &map["metadata"];
        let name = metadata["name"].as_str().unwrap();
        server.delete(&maps(), metadata["namespace"].as_str().unwrap(), name);
    }
    let client = Client::new(&server.config()).unwrap();
    (server, client)
}

async fn patient<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(300), work)
        .await
        .expect("it hangs")
}

/// The objects of the snapshot.
async fn snapshot(updates: &mut Updates) -> Vec<Object> {
    let mut objects = Vec::new();
    loop {
        match patient(updates.next()).await.unwrap().unwrap() {
            Update::Event(event) => objects.push(event.object),
            Update::SnapshotEnd { .. } => return objects,
            Update::SnapshotBegin => {}
            other => panic!("{other:?}"),
        }
    }
}

/// The next event, if nothing goes wrong before it.
async fn event(updates: &mut Updates) -> Event {
    loop {
        match patient(updates.next()).await.unwrap().unwrap() {
            Update::Event(event) => return event,
            Update::Retrying { error, .. } => panic!("{error}"),
            _ => {}
        }
    }
}

/// What `metadata` says.
fn facts(object: &Object) -> Value {
    let metadata = object.metadata().unwrap();
    let labels = |labels: kubewire::wire::watch::Labels<'_>| -> BTreeMap<String, String> {
        let entries = labels.map(|entry| entry.unwrap());
        let owned = entries.map(|(key, value)| (key.into_owned(), value.into_owned()));
        owned.collect()
    };
    json!({
        "apiVersion": metadata.api_version().unwrap(),
        "kind": metadata.kind().unwrap(),
        "name": metadata.name().unwrap(),
        "namespace": metadata.namespace().unwrap(),
        "uid": metadata.uid().unwrap(),
        "resourceVersion": metadata.resource_version().unwrap(),
        "generation": metadata.generation().unwrap(),
        "created": metadata.creation_timestamp().unwrap().map(|at| at.to_string()),
        "labels": labels(metadata.labels().unwrap()),
        "annotations": labels(metadata.annotations().unwrap()),
    })
}

#[tokio::test]
async fn whole_objects_are_the_same_in_every_encoding() {
    for watch_list in [true, false] {
        let (server, client) = start(ApiServer::builder().cbor(true).watch_list(watch_list)).await;
        put_map(&server, "a", "1");
        put_map(&server, "b", "2");
        let mut seen = Vec::new();
        for encoding in ENCODINGS {
            let mut updates = client.watch(maps()).encoding(encoding).page(1).stream();
            let mut objects = snapshot(&mut updates).await;
            put_map(&server, "a", "3");
            let change = event(&mut updates).await;
            assert_eq!(change.event_type, EventType::Modified);
            server.delete(&maps(), "default", "b");
            let gone = event(&mut updates).await;
            assert_eq!(gone.event_type, EventType::Deleted);
            put_map(&server, "b", "2");
            objects.sort_by_key(|object| facts(object)["name"].to_string());
            objects.extend([change.object, gone.object]);
            assert!(objects.iter().all(|object| object.encoding() == encoding));
            let contents = objects.iter().map(|object| {
                let data = match object.protobuf_message().unwrap() {
                    Some(message) => json!(ConfigMap::decode(message).unwrap().data),
                    None => object.decode::<Value>().unwrap()["data"].clone(),
                };
                let mut facts = facts(object);
                assert_ne!(facts["uid"], "");
                assert!(facts["created"].is_string());
                // What differs between the rounds.
                for field in ["resourceVersion", "uid", "created"] {
                    facts[field] = Value::Null;
                }
                json!([facts, data])
            });
            seen.push(contents.collect::<Vec<_>>());
            put_map(&server, "a", "1");
        }
        assert_eq!(seen[0], seen[1]);
        assert_eq!(seen[0], seen[2]);
        assert_eq!(seen[0][0][0]["kind"], "ConfigMap");
        assert_eq!(seen[0][2][1], json!({"key": "3"}));
        server.shutdown().await;
    }
}

#[tokio::test]
async fn metadata_alone_is_the_same_in_every_encoding_even_of_custom_resources() {
    for watch_list in [true, false] {
        let (server, client) = start(ApiServer::builder().cbor(true).watch_list(watch_list)).await;
        server.put(&things(), thing("a", 1));
        let mut seen = Vec::new();
        for encoding in ENCODINGS {
            let watch = client.watch(things()).encoding(encoding);
            let objects = snapshot(&mut watch.form(Form::Metadata).stream()).await;
            assert_eq!(objects.len(), 1);
            assert_eq!(objects[0].encoding(), encoding);
            if encoding != Encoding::Protobuf {
                let json: Value = objects[0].decode().unwrap();
                assert_eq!(json["value"], Value::Null);
            }
            seen.push(facts(&objects[0]));
        }
        assert_eq!(seen[0]["kind"], "PartialObjectMetadata");
        assert_eq!(seen[0]["labels"]["unicode"], "ünïcödé \u{1F980}");
        assert_eq!(seen[0]["annotations"]["quotes"], "\"\\\n<&>");
        assert_eq!(seen[0]["generation"], 7);
        assert_eq!(seen[0], seen[1]);
        assert_eq!(seen[0], seen[2]);
    }
}

#[tokio::test]
async fn what_the_server_does_not_have_comes_as_json() {
    // Custom resources have no protobuf, and 1.36 has no CBOR unless asked to.
    for watch_list in [true, false] {
        let (server, client) = start(ApiServer::builder().watch_list(watch_list)).await;
        server.put(&things(), thing("a", 1));
        for encoding in ENCODINGS {
            let mut updates = client.watch(things()).encoding(encoding).stream();
            let objects = snapshot(&mut updates).await;
            assert_eq!(objects[0].encoding(), Encoding::Json);
            let object: Value = objects[0].decode().unwrap();
            assert_eq!(object["nested"], thing("a", 1)["nested"]);
            let events = client.watch(things()).encoding(encoding).once().await;
            let event = patient(events.unwrap().next()).await.unwrap().unwrap();
            assert_eq!(event.object.encoding(), Encoding::Json);
        }
    }
}

#[tokio::test]
async fn a_server_that_refuses_an_encoding_is_asked_for_json() {
    let (server, client) = start(ApiServer::builder()).await;
    put_map(&server, "a", "1");
    let refusal = Status::failure(406, "NotAcceptable", "only JSON today");
    server.inject_into_bodies([Some(BodyFault::Refuse(Box::new(refusal)))]);
    let mut updates = client.watch(maps()).encoding(Encoding::Protobuf).stream();
    let objects = snapshot(&mut updates).await;
    assert_eq!(objects[0].encoding(), Encoding::Json);
    assert_eq!(objects[0].metadata().unwrap().name().unwrap(), "a");
}

#[tokio::test]
async fn bookmarks_move_the_version_in_every_encoding_and_form() {
    let builder = ApiServer::builder().cbor(true);
    let (server, client) = start(builder.bookmark_period(Duration::from_millis(20))).await;
    put_map(&server, "a", "1");
    for encoding in ENCODINGS {
        for form in [Form::Object, Form::Metadata, Form::Table] {
            let watch = client.watch(maps()).encoding(encoding).form(form);
            let mut updates = watch.stream();
            assert_eq!(snapshot(&mut updates).await.len(), 1);
            let version = server.put(&things(), thing("other", 1));
            patient(async {
                while updates.resource_version() != version {
                    let wait = Duration::from_millis(20);
                    let update = tokio::time::timeout(wait, updates.next()).await;
                    assert!(
                        matches!(&update, Err(_) | Ok(Some(Ok(Update::Bookmark { .. })))),
                        "{update:?}"
                    );
                }
            })
            .await;
        }
    }
}

#[tokio::test]
async fn an_expired_version_is_told_in_every_encoding() {
    let (server, client) = start(ApiServer::builder().cbor(true)).await;
    let version = put_map(&server, "a", "1");
    put_map(&server, "a", "2");
    server.compact();
    for encoding in ENCODINGS {
        let watch = client.watch(maps()).encoding(encoding).from(&version);
        let mut events = watch.once().await.unwrap();
        let event = patient(events.next()).await.unwrap().unwrap();
        assert_eq!(event.event_type, EventType::Error);
        assert_eq!(event.object.encoding(), encoding);
        let status = event.object.status().unwrap();
        assert_eq!((status.code, &*status.reason), (410, "Expired"));
        assert!(events.next().await.is_none());

        // One that never ends begins anew.
        let watch = client.watch(maps()).encoding(encoding).from(&version);
        let mut updates = watch.stream();
        let objects = snapshot(&mut updates).await;
        assert_eq!(facts(&objects[0])["labels"], json!({"value": "2"}));
    }
}

#[tokio::test]
async fn refusals_come_in_the_encoding_that_was_asked_for() {
    let server = ApiServer::builder().cbor(true).start().await.unwrap();
    put_map(&server, "a", "1");
    let config = server.config_with_token(server.token_without_rights());
    let client = Client::new(&config).unwrap();
    for encoding in ENCODINGS {
        let watch = || client.watch(maps()).encoding(encoding);
        let error = watch().once().await.unwrap_err();
        let text = "User \"nobody\" cannot watch resource \"configmaps\"";
        assert!(error.to_string().contains(text), "{error}");
        let mut updates = watch().stream();
        let error = patient(async {
            loop {
                if let Err(error) = updates.next().await.unwrap() {
                    return error;
                }
            }
        });
        let error = error.await;
        assert!(error.to_string().contains(text), "{error}");
        assert!(matches!(&error, Error::Api(e) if e.status.code == 403));
    }
}

/// What a path answers: its code, its media type and its body.
async fn ask(client: &Client, path: &str, accept: &str) -> (u16, String, Bytes) {
    let request = http::Request::get(path).header("accept", accept);
    let response = client.send(request.body(Bytes::new()).unwrap()).await;
    let response = response.unwrap();
    let media = response.headers()["content-type"].to_str().unwrap();
    let (code, media) = (response.status().as_u16(), media.to_owned());
    let body = response.into_body().bytes(1 << 20).await.unwrap();
    (code, media, body)
}

#[tokio::test]
async fn forms_that_do_not_fit_are_refused_as_by_the_api_server() {
    let (server, client) = start(ApiServer::builder()).await;
    server.put(&things(), thing("a", 1));
    let all = "/apis/example.com/v1/namespaces/default/things";
    let one = format!("{all}/a");
    let form = |kind: &str| format!("application/json;as={kind};g=meta.k8s.io;v=v1");
    let media = "only the following media types are accepted: application/json, \
                 application/yaml, application/vnd.kubernetes.protobuf";
    let partial = form("PartialObjectMetadata");
    let partial_list = form("PartialObjectMetadataList");
    for (path, accept, code, text) in [
        (all, "text/html", 406, media),
        (all, "application/cbor", 406, media),
        (all, &*form("Foo"), 406, media),
        (all, &partial, 406, "the requested object is a list"),
        // Of built-in kinds this is 406 with other words.
        (&one, &partial_list, 500, "content is not a list"),
        (all, &partial_list, 200, "PartialObjectMetadataList"),
        (&one, &partial, 200, "PartialObjectMetadata"),
        (&one, &form("Table"), 200, "columnDefinitions"),
        (all, "*/*", 200, "ThingList"),
        (&one, "", 200, "\"value\":1"),
    ] {
        let (found, media, body) = ask(&client, path, accept).await;
        let body = String::from_utf8(body.to_vec()).unwrap();
        assert_eq!((found, &*media), (code, "application/json"), "{accept}");
        assert!(body.contains(text), "{accept}: {body}");
    }
    let protobuf = "application/vnd.kubernetes.protobuf";
    let (code, found, body) = ask(&client, all, protobuf).await;
    assert_eq!((code, &*found), (406, protobuf));
    let status = Object::new(Encoding::Protobuf, body).status().unwrap();
    assert!(status.message.contains(media), "{}", status.message);
    let watch = format!("{all}?watch=true&timeoutSeconds=1");
    let (code, found, _) = ask(&client, &watch, &format!("{protobuf}, */*;q=0.1")).await;
    assert_eq!((code, &*found), (200, "application/json"));
}

#[tokio::test]
async fn an_object_that_has_no_protobuf_ends_a_watch_in_it() {
    let (server, client) = start(ApiServer::builder()).await;
    let thing =
        |name: &str| json!({"kind": "Thing", "metadata": {"name": name, "namespace": "default"}});
    let version = server.put_protobuf(&things(), thing("a"), Vec::new());
    let watch = client.watch(things()).encoding(Encoding::Protobuf);
    let mut events = watch.from(version).once().await.unwrap();
    server.put(&things(), thing("b"));
    let event = patient(events.next()).await.unwrap().unwrap();
    let status = event.object.status().unwrap();
    assert_eq!((event.event_type, status.code), (EventType::Error, 406));
    assert!(events.next().await.is_none());
}

#[tokio::test]
async fn built_in_kinds_have_the_same_protobuf_whoever_writes_it() {
    let (server, client) = start(ApiServer::builder()).await;
    let begin = server.resource_version();
    put_map(&server, "a", "1");
    let given = server.objects(&maps()).remove(0);
    let watch = client.watch(maps()).encoding(Encoding::Protobuf);
    let mut events = watch.from(begin).once().await.unwrap();
    let first = patient(events.next()).await.unwrap().unwrap().object;
    server.put(&maps(), given);
    let second = patient(events.next()).await.unwrap().unwrap().object;
    let message = |object: &Object| {
        let message = object.protobuf_message().unwrap().unwrap();
        ConfigMap::decode(message).unwrap()
    };
    assert_eq!(message(&first), message(&second));
    assert_eq!(message(&second).data["key"], "1");
}

fn cells(table: &Object) -> Value {
    let table: Value = table.decode().unwrap();
    assert_eq!(table["kind"], "Table");
    table["rows"][0]["cells"].clone()
}

#[tokio::test]
async fn a_table_shows_pods_as_kubectl_does() {
    let builder = ApiServer::builder().pod("default", "web-0", |pod| {
        pod.container("main", ["sh", "-c", "sleep 60"])
            .container("done", ["sh", "-c", "exit 3"])
    });
    let (server, client) = start(builder).await;
    let pods = Resource::namespaced("", "v1", "pods");
    let watch: Watch = client.watch(pods).form(Form::Table);
    let mut events = watch.once().await.unwrap();
    let mut tables = Vec::new();
    patient(async {
        loop {
            let event = events.next().await.unwrap().unwrap();
            tables.push(event.object.decode::<Value>().unwrap());
            if cells(&event.object)[2] == "Error" {
                break;
            }
        }
    })
    .await;
    let (first, last) = (&tables[0], &tables[tables.len() - 1]);
    let columns = first["columnDefinitions"].as_array().unwrap();
    let names: Vec<_> = columns.iter().map(|column| &column["name"]).collect();
    let expected = ["Name", "Ready", "Status", "Restarts", "Age"];
    assert_eq!(names[..5], expected);
    assert!(columns[5..].iter().all(|column| column["priority"] == 1));
    if tables.len() > 1 {
        assert!(last["columnDefinitions"].is_null());
    }
    let row = &last["rows"][0];
    let cells = row["cells"].as_array().unwrap();
    assert_eq!(cells[..4], ["web-0", "1/2", "Error", "0"]);
    assert_eq!(row["object"]["metadata"]["name"], "web-0");
    drop(server);
}

#[tokio::test]
async fn a_table_that_lasts_begins_with_pages_of_rows() {
    for watch_list in [true, false] {
        let (server, client) = start(ApiServer::builder().watch_list(watch_list)).await;
        for n in 0..5 {
            server.put(&things(), thing(&format!("t{n}"), n));
        }
        let watch = client.watch(things()).form(Form::Table).page(2);
        let mut updates = watch.stream();
        let pages = snapshot(&mut updates).await;
        let rows = |object: &Object| {
            let table: Value = object.decode().unwrap();
            let rows = table["rows"].as_array().unwrap().iter();
            let names = rows.map(|row| row["cells"][0].as_str().unwrap().to_owned());
            names.collect::<Vec<_>>()
        };
        let names: Vec<_> = pages.iter().map(rows).collect();
        assert_eq!(names, [vec!["t0", "t1"], vec!["t2", "t3"], vec!["t4"]]);
        server.delete(&things(), "default", "t3");
        let gone = event(&mut updates).await;
        assert_eq!(gone.event_type, EventType::Deleted);
        assert_eq!(rows(&gone.object), ["t3"]);
        // Another watch of the resource may still ask for watch-list.
        snapshot(&mut client.watch(things()).stream()).await;
    }
}

#[tokio::test]
async fn a_mirror_of_metadata_follows_a_watch_in_protobuf() {
    let (server, client) = start(ApiServer::builder()).await;
    for n in 0..5 {
        server.put(&things(), thing(&format!("t{n}"), n));
    }
    let watch = client.watch(things()).encoding(Encoding::Protobuf);
    let mut updates = watch.form(Form::Metadata).stream();
    let mut mirror = Mirror::new();
    let mut changes = Vec::new();
    fn version(object: &Object) -> Result<String, EventError> {
        Ok(object.metadata()?.resource_version()?.into_owned())
    }
    patient(async {
        while !mirror.is_current() {
            let update = updates.next().await.unwrap().unwrap();
            mirror.apply(&update, version).unwrap();
        }
        server.put(&things(), thing("t1", 100));
        server.delete(&things(), "default", "t2");
        while changes.len() < 2 {
            let update = updates.next().await.unwrap().unwrap();
            changes.extend(mirror.apply(&update, version).unwrap());
        }
    })
    .await;
    assert!(matches!(&changes[0], Change::Modified(key) if key.name() == "t1"));
    assert!(matches!(&changes[1], Change::Deleted(key, _) if key.name() == "t2"));
    let expected: BTreeMap<_, _> = server
        .objects(&things())
        .iter()
        .map(|object| {
            let text = |value: &Value| value.as_str().unwrap().to_owned();
            let metadata = &object["metadata"];
            (text(&metadata["name"]), text(&metadata["resourceVersion"]))
        })
        .collect();
    let mirrored: BTreeMap<_, _> = mirror
        .iter()
        .map(|(key, version)| (key.name().to_owned(), version.clone()))
        .collect();
    assert_eq!(mirrored, expected);
}

#[tokio::test]
async fn what_was_put_is_found_by_its_kind() {
    let (server, client) = start(ApiServer::builder()).await;
    server.put(&things(), thing("a", 1));
    server.put(
        &Resource::cluster("", "v1", "nodes"),
        json!({"kind": "Node", "metadata": {"name": "node-1"}}),
    );
    let found = client.find("thing").await.unwrap();
    assert_eq!(found.resource, things());
    assert_eq!(found.kind, "Thing");
    let found = client.find("Node").await.unwrap();
    assert!(!found.resource.namespaced);
    assert_eq!(client.find("po").await.unwrap().resource.plural, "pods");
    assert!(client.find("gadgets").await.is_err());
}

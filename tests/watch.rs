//! Watches against the embedded server, over every transport, with and without faults.

#![cfg(feature = "testing")]
#![allow(clippy::unwrap_used)]

use std::{collections::BTreeMap, time::Duration};

use kubewire::{
    Client, Error, Resource,
    session::watch::Form,
    testing::{ApiServer, ApiServerBuilder, BodyFault, Fault, ResourceBuilder},
    watch::{Mirror, Shard, ShardField, Update},
    wire::{
        status::Status,
        watch::{EventError, EventType, Object},
    },
};
use serde_json::{Value, json};

fn things() -> Resource {
    Resource::namespaced("example.com", "v1", "things")
}

fn put(server: &ApiServer, name: &str, value: u64) -> String {
    let object = json!({
        "kind": "Thing",
        "metadata": {"name": name, "namespace": "default", "labels": {"odd": (value % 2).to_string()}},
        "value": value,
    });
    server.put(&things(), object)
}

async fn start(builder: ApiServerBuilder) -> (ApiServer, Client) {
    let things = |thing: ResourceBuilder| thing.selectable_field("value");
    let builder = builder.resource_with(self::things(), "Thing", things);
    let server = builder.start().await.unwrap();
    let client = Client::new(&server.config()).unwrap();
    (server, client)
}

fn value(object: &Object) -> Result<u64, EventError> {
    Ok(object.decode::<Value>()?["value"].as_u64().unwrap())
}

fn state(server: &ApiServer) -> BTreeMap<String, u64> {
    let objects = server.objects(&things()).into_iter();
    objects
        .map(|o| {
            let name = o["metadata"]["name"].as_str().unwrap().to_owned();
            (name, o["value"].as_u64().unwrap())
        })
        .collect()
}

fn mirrored(mirror: &Mirror<u64>) -> BTreeMap<String, u64> {
    let all = mirror
        .iter()
        .map(|(key, value)| (key.name().to_owned(), *value));
    all.collect()
}

/// Follows until the mirror knows the object `done`.
async fn until_done(updates: &mut kubewire::watch::Updates, mirror: &mut Mirror<u64>) {
    let done = kubewire::watch::ObjectKey::new("default", "done");
    let follow = async {
        while !(mirror.is_current() && mirror.get(&done).is_some()) {
            // Refusals are among the faults.
            if let Ok(update) = updates.next().await.unwrap() {
                mirror.apply(&update, value).unwrap();
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(300), follow)
        .await
        .unwrap();
}

#[tokio::test]
async fn every_transport_brings_the_snapshot_and_what_follows() {
    let servers = [
        ApiServer::builder(),
        ApiServer::builder().http1_only(),
        ApiServer::builder().plain(),
        ApiServer::builder().watch_list(false),
    ];
    for builder in servers {
        let (server, client) = start(builder).await;
        for n in 0..7 {
            put(&server, &format!("t{n}"), n);
        }
        let mut updates = client.watch(things()).namespace("default").page(3).stream();
        let mut mirror = Mirror::new();
        while !mirror.is_current() {
            let update = updates.next().await.unwrap().unwrap();
            mirror.apply(&update, value).unwrap();
        }
        assert_eq!(mirrored(&mirror), state(&server));
        assert_eq!(updates.resource_version(), server.resource_version());
        put(&server, "t1", 100);
        server.delete(&things(), "default", "t2");
        let version = put(&server, "done", 1);
        until_done(&mut updates, &mut mirror).await;
        assert_eq!(mirrored(&mirror), state(&server));
        assert_eq!(updates.resource_version(), version);
        server.shutdown().await;
    }
}

#[tokio::test]
async fn over_a_websocket_all_is_the_same() {
    for builder in [
        ApiServer::builder(),
        ApiServer::builder().plain().watch_list(false),
    ] {
        let (server, client) = start(builder).await;
        for n in 0..7 {
            put(&server, &format!("t{n}"), n);
        }
        let watch = client.watch(things()).namespace("default").over_websocket();
        let mut updates = watch.clone().stream();
        let mut mirror = Mirror::new();
        while !mirror.is_current() {
            let update = updates.next().await.unwrap().unwrap();
            mirror.apply(&update, value).unwrap();
        }
        assert_eq!(mirrored(&mirror), state(&server));
        let version = put(&server, "t1", 100);
        server.delete(&things(), "default", "t2");
        for n in 0..5 {
            put(&server, "t3", n);
        }
        let watch = watch.from(version);
        server.inject(Fault::CutAfter(400));
        let mut cut = watch.clone().once().await.unwrap();
        let error = loop {
            match cut.next().await.unwrap() {
                Ok(event) => assert_eq!(event.event_type, EventType::Deleted),
                Err(error) => break error,
            }
        };
        assert!(matches!(error, Error::Network(_)), "{error}");
        server.inject(Fault::CutAfter(20));
        let lost = watch.clone().once().await.unwrap_err();
        assert!(matches!(lost, Error::Network(_)), "{lost}");
        let unavailable = Status::failure(503, "ServiceUnavailable", "not now");
        server.inject(Fault::Refuse(Box::new(unavailable)));
        let refused = watch.clone().once().await.unwrap_err();
        assert_eq!(refused.status().unwrap().code, 503);
        server.inject_into_bodies([Some(BodyFault::Close { after: 700 })]);
        let mut closed = watch.once().await.unwrap();
        let mut events = Vec::new();
        while let Some(event) = closed.next().await {
            events.push(event.unwrap().event_type);
        }
        assert_eq!(events, [EventType::Deleted, EventType::Modified]);
        let version = put(&server, "done", 1);
        until_done(&mut updates, &mut mirror).await;
        assert_eq!(mirrored(&mirror), state(&server));
        assert_eq!(updates.resource_version(), version);
        server.shutdown().await;
    }
}

#[tokio::test]
async fn over_a_websocket_a_refusal_is_the_same_too() {
    let server = ApiServer::builder().start().await.unwrap();
    let config = server.config_with_token(server.token_without_rights());
    let client = Client::new(&config).unwrap();
    let watch = client.watch(things()).namespace("default").over_websocket();
    let mut updates = watch.clone().stream();
    let error = loop {
        match updates.next().await.unwrap() {
            Ok(update) => assert!(matches!(update, Update::SnapshotBegin)),
            Err(error) => break error,
        }
    };
    for error in [error, watch.once().await.unwrap_err()] {
        assert!(matches!(&error, Error::Api(e) if e.status.code == 403 && e.hint.is_some()));
    }
}

#[cfg(feature = "k8s-openapi")]
#[tokio::test]
async fn a_typed_watch_decodes_on_demand_and_survives_what_is_no_such_type() {
    use k8s_openapi::api::core::v1::ConfigMap;
    use kubewire::request::Kind as _;
    for watch_list in [true, false] {
        let (server, client) = start(ApiServer::builder().watch_list(watch_list)).await;
        let maps = ConfigMap::resource();
        let put = |name: &str, data: Value| {
            let object = json!({
                "kind": "ConfigMap", "data": data,
                "metadata": {"name": name, "namespace": "default"},
            });
            server.put(&maps, object)
        };
        put("good", json!({"key": "value"}));
        put("bad", json!("no map"));
        let mut watch = client.api::<ConfigMap>().watch().stream();
        let (mut good, mut bad) = (Vec::new(), 0);
        while let Some(update) = watch.next().await {
            match update.unwrap() {
                Update::Event(event) => match event.decode() {
                    Ok(map) => good.extend(map.data.unwrap_or_default().remove("key")),
                    Err(error) => {
                        assert!(matches!(error, EventError::Decode(_)));
                        let metadata = event.object.metadata().unwrap();
                        assert_eq!(metadata.name().unwrap(), "bad");
                        bad += 1;
                    }
                },
                Update::SnapshotEnd { .. } => drop(put("good", json!({"key": "new"}))),
                _ => {}
            }
            if good.len() == 2 {
                break;
            }
        }
        assert_eq!((good, bad), (vec!["value".into(), "new".into()], 1));
    }
}

#[tokio::test]
async fn a_typed_watch_takes_any_serde_type() {
    #[derive(serde::Deserialize)]
    struct Thing {
        value: u64,
    }
    let (server, client) = start(ApiServer::builder()).await;
    put(&server, "a", 41);
    let mut events = client
        .watch(things())
        .typed::<Thing>()
        .once()
        .await
        .unwrap();
    let event = events.next().await.unwrap().unwrap();
    assert_eq!(event.decode().unwrap().value, 41);
}

#[tokio::test]
async fn the_server_wants_an_origin_and_one_subprotocol_at_most() {
    use http::header::{
        CONNECTION, ORIGIN, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION,
        UPGRADE,
    };
    let (server, client) = start(ApiServer::builder().plain()).await;
    put(&server, "a", 1);
    for (origin, offer, code) in [
        (true, None, 101),
        (true, Some("any.name"), 101),
        (true, Some("one,two"), 400),
        (false, None, 403),
    ] {
        let mut request = http::Request::get("/apis/example.com/v1/things?watch=true")
            .header(CONNECTION, "Upgrade")
            .header(UPGRADE, "websocket")
            .header(SEC_WEBSOCKET_VERSION, "13")
            .header(SEC_WEBSOCKET_KEY, "dGhlIHNhbXBsZSBub25jZQ==");
        if origin {
            request = request.header(ORIGIN, "http://127.0.0.1");
        }
        if let Some(offer) = offer {
            request = request.header(SEC_WEBSOCKET_PROTOCOL, offer);
        }
        let request = request.body(Default::default()).unwrap();
        let answer = client.send_upgrade(request).await.unwrap();
        assert_eq!(answer.status(), code, "{origin} {offer:?}");
        let answered = answer.headers().get(SEC_WEBSOCKET_PROTOCOL);
        let offer = offer.filter(|_| code == 101);
        assert_eq!(answered.and_then(|v| v.to_str().ok()), offer);
    }
}

#[tokio::test]
async fn an_expired_watch_reports_what_was_deleted_meanwhile() {
    let (server, client) = start(ApiServer::builder()).await;
    put(&server, "kept", 1);
    put(&server, "lost", 2);
    // The first response ends before the next events.
    server.inject_into_bodies([Some(BodyFault::Cut { after: 900 })]);
    let mut updates = client.watch(things()).stream();
    let mut mirror = Mirror::new();
    while !mirror.is_current() {
        let update = updates.next().await.unwrap().unwrap();
        mirror.apply(&update, value).unwrap();
    }
    // What the cut lets through of these differs by nothing that counts.
    server.inject_into_bodies([Some(BodyFault::Delay(Duration::from_millis(300)))]);
    server.delete(&things(), "default", "lost");
    for n in 0..4 {
        put(&server, "kept", n);
    }
    put(&server, "done", 1);
    server.compact();
    until_done(&mut updates, &mut mirror).await;
    assert_eq!(mirrored(&mirror), state(&server));
}

#[tokio::test]
async fn selectors_shards_and_forms_reach_the_server() {
    let (server, client) = start(ApiServer::builder()).await;
    for n in 0..10 {
        put(&server, &format!("t{n}"), n);
    }
    let snapshot = async |watch: kubewire::watch::Watch| {
        let mut updates = watch.stream();
        let mut objects = Vec::new();
        loop {
            match updates.next().await.unwrap().unwrap() {
                Update::Event(event) => objects.push(event.object),
                Update::SnapshotEnd { .. } => return objects,
                _ => {}
            }
        }
    };
    assert_eq!(
        snapshot(client.watch(things()).labels("odd=1")).await.len(),
        5
    );
    assert_eq!(snapshot(client.watch(things()).name("t4")).await.len(), 1);
    assert_eq!(
        snapshot(client.watch(things()).fields("value=9"))
            .await
            .len(),
        1
    );
    assert_eq!(
        snapshot(client.watch(things()).namespace("other"))
            .await
            .len(),
        0
    );
    let mut parts = 0;
    for index in 0..4 {
        let shard = Shard::of(ShardField::Uid, index, 4).unwrap();
        parts += snapshot(client.watch(things()).shard(shard)).await.len();
    }
    assert_eq!(parts, 10);
    let partial = snapshot(client.watch(things()).form(Form::Metadata)).await;
    let object: Value = partial[0].decode().unwrap();
    assert_eq!(object["kind"], "PartialObjectMetadata");
    assert!(object["value"].is_null());
}

#[tokio::test]
async fn objects_enter_and_leave_a_selection() {
    let (server, client) = start(ApiServer::builder()).await;
    put(&server, "a", 1);
    let mut events = client.watch(things()).labels("odd=1").once().await.unwrap();
    let mut seen = Vec::new();
    for (name, value) in [("a", 2), ("a", 3), ("b", 2), ("b", 5)] {
        put(&server, name, value);
    }
    while seen.len() < 4 {
        let event = events.next().await.unwrap().unwrap();
        // After what was there at first.
        if event.event_type == EventType::Bookmark {
            continue;
        }
        let name = event
            .object
            .metadata()
            .unwrap()
            .name()
            .unwrap()
            .into_owned();
        seen.push((event.event_type, name));
    }
    use EventType::{Added, Deleted};
    let expected = [(Added, "a"), (Deleted, "a"), (Added, "a"), (Added, "b")];
    assert_eq!(seen, expected.map(|(t, n)| (t, n.to_owned())));
}

#[tokio::test]
async fn a_single_watch_says_what_the_server_said() {
    let (server, client) = start(ApiServer::builder()).await;
    let version = put(&server, "a", 1);
    put(&server, "a", 2);
    server.compact();
    let mut events = client.watch(things()).from(version).once().await.unwrap();
    let event = events.next().await.unwrap().unwrap();
    assert_eq!(event.event_type, EventType::Error);
    let status = event.object.status().unwrap();
    assert_eq!((status.code, status.reason.as_str()), (410, "Expired"));
    assert!(events.next().await.is_none());
}

#[tokio::test]
async fn a_refusal_names_the_rule_and_the_watch_goes_on_if_polled() {
    let server = ApiServer::builder().start().await.unwrap();
    let config = server.config_with_token(server.token_without_rights());
    let client = Client::new(&config).unwrap();
    let mut updates = client.watch(things()).namespace("default").stream();
    let error = loop {
        match updates.next().await.unwrap() {
            Ok(update) => assert!(matches!(update, Update::SnapshotBegin)),
            Err(error) => break error,
        }
    };
    let text = error.to_string();
    assert!(
        text.contains("apiGroups: [\"example.com\"], resources: [\"things\"]"),
        "{text}"
    );
    assert!(matches!(&error, Error::Api(e) if e.status.code == 403));
    let again = tokio::time::timeout(Duration::from_secs(300), async {
        loop {
            if let Err(error) = updates.next().await.unwrap() {
                return error;
            }
        }
    });
    assert!(again.await.is_ok());
    let single = client.watch(things()).once().await.unwrap_err();
    assert_eq!(single.status().unwrap().code, 403);
}

/// A small generator of numbers, so that a failure can be run again.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_watches_through_random_faults_end_with_the_server_s_state() {
    for (seed, builder) in [
        (1, ApiServer::builder()),
        (2, ApiServer::builder().http1_only().watch_list(false)),
        (
            3,
            ApiServer::builder().bookmark_period(Duration::from_millis(20)),
        ),
    ] {
        let mut random = Random(seed);
        let (server, client) = start(builder).await;
        for n in 0..20 {
            put(&server, &format!("t{n}"), n);
        }
        let watches: Vec<_> = (0..40)
            .map(|_| {
                let mut updates = client.watch(things()).page(6).stream();
                tokio::spawn(async move {
                    let mut mirror = Mirror::new();
                    until_done(&mut updates, &mut mirror).await;
                    mirror
                })
            })
            .collect();
        for step in 0..400 {
            let name = format!("t{}", random.below(30));
            match random.below(3) {
                0 => drop(server.delete(&things(), "default", &name)),
                _ => drop(put(&server, &name, random.below(1000))),
            }
            if step % 50 == 49 {
                server.compact();
            }
            if step < 300 {
                let after = random.below(4000) as usize;
                let unavailable = Status::failure(503, "ServiceUnavailable", "not now");
                server.inject_into_bodies([
                    None,
                    Some(match random.below(6) {
                        0 | 1 => BodyFault::Cut { after },
                        2 | 3 => BodyFault::Close { after },
                        4 => BodyFault::Refuse(Box::new(unavailable)),
                        _ => BodyFault::Delay(Duration::from_millis(random.below(50))),
                    }),
                ]);
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        server.clear_body_faults();
        put(&server, "done", 1);
        for watch in watches {
            assert_eq!(
                mirrored(&watch.await.unwrap()),
                state(&server),
                "seed {seed}"
            );
        }
        server.shutdown().await;
    }
}

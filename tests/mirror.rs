//! Shared mirrors against the embedded server: one watch, many readers.

#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

#[path = "common/empty.rs"]
mod empty;
#[path = "common/soon.rs"]
mod soon;

use std::{
    collections::BTreeSet,
    io,
    pin::Pin,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicUsize, Ordering::SeqCst},
        mpsc,
    },
    task::{Context, Poll},
    thread,
    time::Duration,
};

use futures_util::{StreamExt as _, future::join_all};
use k8s_openapi::api::core::v1::{ConfigMap, Node};
use kubewire::{
    Client, Config, Error,
    error::{CallerError, PeerError},
    limits,
    request::Kind as _,
    testing::{ApiServer, BodyFault, Fault},
    watch::{Condition, MirrorReader, MirrorUpdate, ObjectKey},
    wire::{
        status::Status,
        watch::{EventError, Object},
    },
};
use serde_json::{Value, json};
use soon::soon;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf},
    net::{TcpListener, TcpStream},
};

async fn start() -> (ApiServer, Client) {
    let server = ApiServer::builder().plain().start().await.unwrap();
    empty::empty(&server);
    let client = Client::new(&server.config()).unwrap();
    (server, client)
}

fn put(server: &ApiServer, namespace: &str, name: &str, value: &str) {
    let map = json!({
        "apiVersion": "v1", "kind": "ConfigMap", "data": {"value": value},
        "metadata": {"name": name, "namespace": namespace, "labels": {"app": value}},
    });
    server.put(&ConfigMap::resource(), map);
}

fn value(map: &ConfigMap) -> &str {
    &map.data.as_ref().unwrap()["value"]
}

fn is(value: &'static str) -> Condition<ConfigMap> {
    Condition::when(move |map: Option<&ConfigMap>| map.is_some_and(|it| self::value(it) == value))
}

/// A connection that is counted.
struct Counted(TcpStream, Arc<AtomicUsize>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.1.fetch_sub(1, SeqCst);
    }
}

impl AsyncRead for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Counted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

#[tokio::test]
async fn readers_share_a_watch_that_ends_with_the_last_of_them() {
    let server = ApiServer::builder()
        .plain()
        .http1_only()
        .start()
        .await
        .unwrap();
    let (open, made) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let counts = (open.clone(), made.clone());
    let config: Config = server.config().with_dialer(move |host, port| {
        let (open, made) = counts.clone();
        async move {
            let socket = TcpStream::connect((host, port)).await?;
            open.fetch_add(1, SeqCst);
            made.fetch_add(1, SeqCst);
            Ok(Counted(socket, open))
        }
    });
    let client = Client::new(&config).unwrap();
    put(&server, "default", "a", "1");
    let first = client.mirror::<ConfigMap>().start();
    let readers: Vec<_> = (0..100).map(|_| first.clone()).collect();
    let all = readers.iter().map(|reader| async {
        let mut changes = reader.changes();
        reader.wait_until_ready().await.unwrap();
        reader.wait_for("default/a", &is("2")).await.unwrap();
        while let Some(update) = changes.next().await {
            if let MirrorUpdate::Modified(_, map) = update.unwrap() {
                return map;
            }
        }
        panic!("the watch has ended");
    });
    let change = async {
        first.wait_until_ready().await.unwrap();
        put(&server, "default", "a", "2");
    };
    let (maps, ()) = soon(async { tokio::join!(join_all(all), change) }).await;
    assert_eq!(
        made.load(SeqCst),
        1,
        "connections for one watch over HTTP/1.1"
    );
    assert!(maps.iter().all(|map| Arc::ptr_eq(map, &maps[0])));
    let changes = first.changes();
    drop((first, readers));
    assert_eq!(open.load(SeqCst), 1, "there is a reader still");
    drop(changes);
    soon(async {
        while open.load(SeqCst) > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn objects_are_found_by_name_namespace_and_label() {
    let (server, client) = start().await;
    for (namespace, name) in [("default", "a"), ("default", "b"), ("other", "a")] {
        put(&server, namespace, name, &format!("of-{namespace}"));
    }
    let maps = client.mirror::<ConfigMap>().index_by_label("app").start();
    soon(maps.wait_until_ready()).await.unwrap();
    // The namespace that was made has one of its own.
    assert!(maps.is_ready() && maps.len() == 4);
    assert_eq!(value(&maps.get("other/a").unwrap()), "of-other");
    assert!(maps.get("a").is_none() && maps.get(ObjectKey::new("other", "b")).is_none());
    assert_eq!(maps.in_namespace("default").len(), 2);
    assert_eq!(maps.by_label("app", "of-other").unwrap().len(), 1);
    let error = maps.by_label("tier", "web").unwrap_err();
    assert!(matches!(error, Error::Caller(CallerError::NoIndex { label }) if label == "tier"));

    let few = client.mirror::<ConfigMap>().namespace("default");
    let few = few.fields("metadata.name=b").start();
    soon(few.wait_until_ready()).await.unwrap();
    assert!(few.get("b").is_some() && few.len() == 1);
    let selected = client.api::<ConfigMap>().labels("app=of-other");
    let metadata = selected
        .mirror()
        .metadata_only()
        .index_by_label("app")
        .start();
    soon(metadata.wait_until_ready()).await.unwrap();
    let found = metadata.by_label("app", "of-other").unwrap();
    assert_eq!((found.len(), found[0].label("app")), (1, Some("of-other")));

    let maps = client.watch(ConfigMap::resource());
    let maps = maps.mirror(|map| map.decode::<Value>()).start();
    soon(maps.wait_until_ready()).await.unwrap();
    assert_eq!(
        maps.get("default/b").unwrap()["data"]["value"],
        "of-default"
    );

    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "one"}});
    server.put(&Node::resource(), node);
    let nodes = client.mirror::<Node>().start();
    let exists = Condition::when(|node: Option<&Node>| node.is_some());
    soon(nodes.wait_for("one", &exists)).await.unwrap();
}

#[tokio::test]
async fn many_objects_are_waited_for_at_once() {
    let (server, client) = start().await;
    let maps = client.mirror::<ConfigMap>().namespace("default").start();
    let names: Vec<_> = (0..200).map(|at| format!("map-{at}")).collect();
    let wanted = is("done");
    let waits = names.iter().map(|name| maps.wait_for(name, &wanted));
    let work = async {
        maps.wait_until_ready().await.unwrap();
        for state in ["begun", "done"] {
            for name in &names {
                put(&server, "default", name, state);
            }
            tokio::task::yield_now().await;
        }
    };
    let (waited, ()) = soon(async { tokio::join!(join_all(waits), work) }).await;
    let waited: Vec<_> = waited.into_iter().map(|it| it.unwrap().unwrap()).collect();
    let waited: BTreeSet<_> = waited
        .iter()
        .map(|it| it.metadata.name.as_deref())
        .collect();
    assert_eq!(waited.len(), names.len());
    // An object that is made anew at once was deleted all the same.
    let deleted = Condition::deleted();
    let wait = maps.wait_for("map-7", &deleted);
    let again = async {
        tokio::task::yield_now().await;
        server.delete(&ConfigMap::resource(), "default", "map-7");
        put(&server, "default", "map-7", "anew");
    };
    let (gone, ()) = soon(async { tokio::join!(wait, again) }).await;
    gone.unwrap();
    assert!(
        soon(maps.wait_for("never", &deleted))
            .await
            .unwrap()
            .is_none()
    );
}

#[tokio::test]
async fn a_refusal_reaches_every_reader_and_the_watch_is_tried_again() {
    let server = ApiServer::builder().start().await.unwrap();
    let config = server.config_with_token(server.token_without_rights());
    let maps = Client::new(&config).unwrap().mirror::<ConfigMap>().start();
    let waits = (0..3).map(|_| async {
        let ready = maps.wait_until_ready().await.unwrap_err();
        let object = maps.wait_for("default/a", &is("1")).await.unwrap_err();
        let mut changes = maps.changes();
        let told = loop {
            match changes.next().await.unwrap() {
                Ok(_) => {}
                Err(error) => break error,
            }
        };
        [ready, object, told].map(|error| error.is_forbidden())
    });
    let refused = soon(join_all(waits)).await;
    assert_eq!(refused, [[true; 3]; 3]);

    // One that passes.
    let (server, client) = start().await;
    let status = json!({
        "status": "Failure", "code": 404, "reason": "NotFound", "message": "not yet defined",
    });
    let status = Status::from_json(status.to_string().as_bytes()).unwrap();
    server.inject(Fault::Refuse(Box::new(status)));
    let maps = client.mirror::<ConfigMap>().start();
    let mut changes = maps.changes();
    let first = soon(async {
        loop {
            match changes.next().await.unwrap() {
                Ok(MirrorUpdate::Current) => panic!("nothing was refused"),
                Ok(_) => {}
                Err(error) => break error,
            }
        }
    });
    assert!(first.await.is_not_found());
    let current = changes.filter(|it| {
        let is_current = matches!(it, Ok(MirrorUpdate::Current));
        async move { is_current }
    });
    tokio::pin!(current);
    soon(current.next()).await.unwrap().unwrap();
    assert!(maps.is_ready());
}

#[tokio::test]
async fn readers_outlive_lost_connections_and_forgotten_history() {
    let (server, client) = start().await;
    for name in ["a", "b"] {
        put(&server, "default", name, "1");
    }
    let maps = client.mirror::<ConfigMap>().namespace("default").start();
    let mut changes = maps.changes();
    soon(maps.wait_until_ready()).await.unwrap();
    server.inject_into_bodies((0..3).map(|n| Some(BodyFault::Cut { after: 50 * n })));
    server.delete(&ConfigMap::resource(), "default", "a");
    put(&server, "default", "b", "2");
    server.compact();
    soon(maps.wait_for("a", &Condition::deleted()))
        .await
        .unwrap();
    soon(maps.wait_for("b", &is("2"))).await.unwrap();
    let mut copy = BTreeSet::new();
    while copy != BTreeSet::from(["b=2".to_owned()]) {
        match soon(changes.next()).await.unwrap().unwrap() {
            MirrorUpdate::Added(key, map) => {
                copy.insert(format!("{}={}", key.name(), value(&map)));
            }
            MirrorUpdate::Modified(key, map) => {
                copy.retain(|text| !text.starts_with(key.name()));
                copy.insert(format!("{}={}", key.name(), value(&map)));
            }
            MirrorUpdate::Deleted(key, _) => copy.retain(|text| !text.starts_with(key.name())),
            _ => {}
        }
    }
}

#[tokio::test]
async fn a_reader_that_sleeps_is_told_what_it_missed_and_holds_nobody_up() {
    let (server, client) = start().await;
    let maps = client.mirror::<ConfigMap>().namespace("default").start();
    let mut sleeper = maps.changes();
    soon(maps.wait_until_ready()).await.unwrap();
    let all = limits::MIRROR_BACKLOG * 2;
    for at in 0..all {
        put(
            &server,
            "default",
            &format!("map-{}", at % 10),
            &at.to_string(),
        );
        if at % 100 == 0 {
            // So that it is not one batch.
            let last = Condition::when(move |map: Option<&ConfigMap>| {
                map.is_some_and(|map| value(map) == at.to_string())
            });
            soon(maps.wait_for(&format!("map-{}", at % 10), &last))
                .await
                .unwrap();
        }
    }
    let last = Condition::when(move |map: Option<&ConfigMap>| {
        map.is_some_and(|map| value(map) == (all - 1).to_string())
    });
    soon(maps.wait_for(&format!("map-{}", (all - 1) % 10), &last))
        .await
        .unwrap();
    let mut updates = Vec::new();
    loop {
        let update = soon(sleeper.next()).await.unwrap().unwrap();
        let is_end = matches!(update, MirrorUpdate::Current) && !updates.is_empty();
        updates.push(update);
        if is_end {
            break;
        }
    }
    let lagged = updates
        .iter()
        .position(|it| matches!(it, MirrorUpdate::Lagged { .. }));
    let anew = &updates[lagged.expect("it is told") + 1..];
    assert_eq!(anew.len(), 11, "{anew:?}");
}

#[tokio::test]
async fn an_object_of_another_form_is_the_error_of_those_who_wait_for_it() {
    let (server, client) = start().await;
    put(&server, "default", "good", "1");
    let bad = json!({
        "apiVersion": "v1", "kind": "ConfigMap", "data": "no map",
        "metadata": {"name": "bad", "namespace": "default"},
    });
    server.put(&ConfigMap::resource(), bad);
    let maps = client.mirror::<ConfigMap>().namespace("default").start();
    let error = soon(maps.wait_for("bad", &is("1"))).await.unwrap_err();
    assert!(matches!(error, Error::Peer(PeerError::Event(_))));
    soon(maps.wait_until_ready()).await.unwrap();
    soon(maps.wait_for("good", &is("1"))).await.unwrap();
    let mut changes = maps.changes();
    let mut unreadable = None;
    while unreadable.is_none() {
        if let MirrorUpdate::Unreadable { key, .. } = soon(changes.next()).await.unwrap().unwrap() {
            unreadable = key;
        }
    }
    assert_eq!(unreadable.unwrap().to_string(), "default/bad");
}

#[test]
fn readers_whose_runtime_is_gone_are_told_so() {
    let runtime = || {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        builder.enable_all().build().unwrap()
    };
    let other = runtime();
    let (_server, maps) = other.block_on(async {
        let (server, client) = start().await;
        let maps = client.mirror::<ConfigMap>().start();
        soon(maps.wait_until_ready()).await.unwrap();
        (server, maps)
    });
    let mut changes = maps.changes();
    drop(other);
    runtime().block_on(soon(async {
        while changes.next().await.is_some() {}
        let error = maps.wait_for("default/a", &is("1")).await.unwrap_err();
        assert!(matches!(error, Error::Caller(CallerError::Ended)));
        assert!(maps.is_empty());
    }));
}

/// It would hold up the watch that it waits for, if the state were locked.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_condition_may_look_at_the_mirror() {
    let (server, client) = start().await;
    put(&server, "default", "a", "1");
    let maps = client.mirror::<ConfigMap>().namespace("default").start();
    soon(maps.wait_until_ready()).await.unwrap();
    let (done, waits) = tokio::sync::oneshot::channel();
    // A thread that nobody waits for.
    std::thread::spawn(move || {
        let reader = maps.clone();
        let both = Condition::when(move |map: Option<&ConfigMap>| {
            put(&server, "default", "b", "2");
            while reader.get("b").is_none() {
                std::thread::sleep(std::time::Duration::from_millis(1));
            }
            map.is_some()
        });
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        let _ = done.send(runtime.unwrap().block_on(maps.wait_for("a", &both)));
    });
    assert!(soon(waits).await.unwrap().unwrap().is_some());
}

/// A server that sends an object as it has known it behind what it has become.
async fn server_that_goes_back() -> Client {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let map = |version| json!({"metadata": {"name": "a", "resourceVersion": version}});
    let event = |version| json!({"type": "MODIFIED", "object": map(version)}).to_string();
    let list = json!({"metadata": {"resourceVersion": "5"}, "items": [map("5")]}).to_string();
    let events = format!("{}\n{}\n", event("6"), event("5"));
    let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length:";
    tokio::spawn(async move {
        let mut open = Vec::new();
        while let Ok((mut socket, _)) = listener.accept().await {
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                request.push(socket.read_u8().await.unwrap());
            }
            let request = String::from_utf8(request).unwrap();
            let (length, body) = match request.contains("watch=") {
                true => (events.len() + 1, &events),
                false => (list.len(), &list),
            };
            let answer = format!("{head} {length}\r\nConnection: close\r\n\r\n{body}");
            socket.write_all(answer.as_bytes()).await.unwrap();
            open.push(socket);
        }
    });
    Client::new(&Config::new(&url).unwrap()).unwrap()
}

#[tokio::test]
async fn what_keeps_objects_may_look_at_the_mirror() {
    let client = server_that_goes_back().await;
    let mirror = Arc::new(OnceLock::<MirrorReader<String>>::new());
    let reads = mirror.clone();
    let watch = client.watch(ConfigMap::resource()).watch_list(false);
    let keep = move |object: &Object| {
        let (reader, (told, len)) = (reads.get().cloned(), mpsc::channel());
        // Another thread looks, so that a mirror that is locked is no test that hangs.
        thread::spawn(move || told.send(reader.map(|reader| reader.len())));
        len.recv_timeout(Duration::from_secs(60))
            .map_err(|_| EventError::Decode("the mirror is locked".to_owned()))?;
        Ok(object.metadata()?.resource_version()?.into_owned())
    };
    let reader = watch.mirror(keep).start();
    mirror.set(reader.clone()).unwrap();
    let mut changes = reader.changes();
    let mut versions = Vec::new();
    while versions.len() < 3 {
        match soon(changes.next()).await.unwrap().unwrap() {
            MirrorUpdate::Added(_, version) | MirrorUpdate::Modified(_, version) => {
                versions.push(version);
            }
            MirrorUpdate::Unreadable { error, .. } => panic!("{error}"),
            _ => {}
        }
    }
    assert_eq!(versions.last().unwrap().as_str(), "5");
}

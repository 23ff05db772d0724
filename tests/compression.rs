//! Lists and watches in gzip, from the embedded server and from servers that do it wrong.

#![cfg(feature = "testing")]
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::{
    future::Future,
    io::Write as _,
    sync::{Arc, Mutex},
    time::Duration,
};

use flate2::{Compression, write::GzEncoder};
use kubewire::{
    Client, Config, Error, Resource,
    config::KubeconfigOptions,
    error::{NetworkError, PeerError},
    testing::ApiServer,
    watch::{Update, Updates, Watch},
    wire::{gzip::GzipError, watch::EventError},
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

async fn patient<T>(future: impl Future<Output = T>) -> T {
    let minutes = Duration::from_secs(180);
    tokio::time::timeout(minutes, future).await.unwrap()
}

fn maps() -> Resource {
    Resource::namespaced("", "v1", "configmaps")
}

fn gzip(content: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

/// What is there, by name.
async fn snapshot(updates: &mut Updates) -> Vec<(String, Value)> {
    let mut seen = Vec::new();
    loop {
        match patient(updates.next()).await.unwrap().unwrap() {
            Update::Event(event) => {
                let name = event
                    .object
                    .metadata()
                    .unwrap()
                    .name()
                    .unwrap()
                    .into_owned();
                seen.push((
                    name,
                    event.object.decode::<Value>().unwrap()["data"].clone(),
                ));
            }
            Update::SnapshotEnd { .. } => break,
            Update::SnapshotBegin => {}
            other => panic!("{other:?}"),
        }
    }
    seen.sort_by(|a, b| a.0.cmp(&b.0));
    seen
}

fn put(server: &ApiServer, name: &str, text: &str) {
    let data = json!({"text": text.repeat(1000)});
    let metadata = json!({"name": name, "namespace": "default"});
    let map = json!({"kind": "ConfigMap", "metadata": metadata, "data": data});
    server.put(&maps(), map);
}

#[tokio::test]
async fn lists_and_watches_are_the_same_and_smaller() {
    for (watch_list, plain) in [(true, true), (true, false), (false, true), (false, false)] {
        let builder = ApiServer::builder()
            .watch_list(watch_list)
            .watch_compression(true);
        let builder = if plain { builder.plain() } else { builder };
        let server = builder.start().await.unwrap();
        for at in 0..30 {
            put(&server, &format!("map-{at}"), "some text ");
        }
        let mut seen = Vec::new();
        for compression in [false, true] {
            let client = Client::new(&server.config().with_compression(compression)).unwrap();
            let mut updates = client.watch(maps()).namespace("default").stream();
            let objects = snapshot(&mut updates).await;
            // The certificate authority of the namespace is another.
            assert_eq!(objects.len(), 31);
            put(&server, &format!("new-{compression}"), "more text ");
            let update = patient(updates.next()).await.unwrap().unwrap();
            let Update::Event(event) = update else {
                panic!("{update:?}");
            };
            let text = event.object.decode::<Value>().unwrap()["data"]["text"].clone();
            assert_eq!(text, "more text ".repeat(1000));
            let list = client.request(maps()).namespace("default");
            let items = patient(list.list::<Value>()).await.unwrap().items.len();
            seen.push((objects, items, updates.stats().received));
            server.delete(&maps(), "default", &format!("new-{compression}"));
        }
        assert_eq!(seen[0].0, seen[1].0);
        assert_eq!((seen[0].1, seen[1].1), (32, 32));
        let (identity, compressed) = (seen[0].2, seen[1].2);
        assert!(compressed * 10 < identity, "{compressed} of {identity}");
        server.shutdown().await;
    }
}

/// A server of HTTP/1.1 that answers each request with the next of these, then with the last; and
/// the heads of the requests.
async fn serve(answers: Vec<Vec<u8>>) -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let heads = Arc::new(Mutex::new(Vec::new()));
    let record = heads.clone();
    tokio::spawn(async move {
        loop {
            let (mut tcp, _) = listener.accept().await.unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                match tcp.read_u8().await {
                    Ok(byte) => head.push(byte),
                    Err(_) => break,
                }
            }
            let at = {
                let mut heads = record.lock().unwrap();
                heads.push(String::from_utf8(head).unwrap().to_lowercase());
                heads.len() - 1
            };
            let answer = answers.get(at).or(answers.last()).unwrap().clone();
            let _ = tcp.write_all(&answer).await;
        }
    });
    (url, heads)
}

/// An answer in gzip that ends with its connection, in order.
fn compressed(body: &[u8]) -> Vec<u8> {
    let mut answer = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\
        content-encoding: gzip\r\nconnection: close\r\n"
        .to_vec();
    answer.extend_from_slice(format!("content-length: {}\r\n\r\n", body.len()).as_bytes());
    answer.extend_from_slice(body);
    answer
}

fn client(url: &str) -> Client {
    Client::new(&Config::new(url).unwrap().with_compression(true)).unwrap()
}

const LIST: &[u8] = br#"{"kind":"ConfigMapList","apiVersion":"v1","metadata":{"resourceVersion":"7"},"items":[{"metadata":{"name":"a"}}]}"#;

fn event(version: u32) -> Vec<u8> {
    format!(
        "{{\"type\":\"ADDED\",\"object\":{{\"kind\":\"ConfigMap\",\"metadata\":\
         {{\"name\":\"a\",\"resourceVersion\":\"{version}\"}}}}}}\n"
    )
    .into_bytes()
}

#[tokio::test]
async fn lists_and_watches_are_asked_for_so_and_nothing_else() {
    let (url, heads) = serve(vec![compressed(&gzip(LIST))]).await;
    let kubeconfig = json!({
        "current-context": "x",
        "contexts": [{"name": "x", "context": {"cluster": "x"}}],
        "clusters": [{"name": "x", "cluster": {"server": url, "disable-compression": true}}],
    });
    let options = KubeconfigOptions::new();
    let disabled = Config::from_kubeconfig_str(&kubeconfig.to_string(), &options).unwrap();
    let plain = Config::new(&url).unwrap();
    for (config, expected) in [
        // This machine itself.
        (plain.clone(), false),
        (disabled.clone(), false),
        (disabled.with_compression(true), true),
        (plain.clone().with_compression(true), true),
        (plain.with_compression(false), false),
    ] {
        heads.lock().unwrap().clear();
        let client = Client::new(&config).unwrap();
        let maps = client.request(maps()).namespace("n");
        let _ = patient(maps.list::<Value>()).await;
        let _ = patient(maps.list_raw("application/json")).await;
        let _ = patient(client.watch(self::maps()).once()).await;
        let _ = patient(maps.get::<Value>("a")).await;
        let mut log = client.pod("n", "p").logs().stream();
        patient(async {
            while !heads
                .lock()
                .unwrap()
                .iter()
                .any(|head| head.contains("/log?"))
            {
                let moment = Duration::from_millis(10);
                let _ = tokio::time::timeout(moment, log.next()).await;
            }
        })
        .await;
        let asked = heads.lock().unwrap().clone();
        assert!(asked.len() >= 5, "{asked:?}");
        for head in asked {
            let asks = head.contains("accept-encoding: gzip\r\n");
            let may = head.contains("/configmaps?") || head.contains("/configmaps ");
            assert_eq!(asks, expected && may, "{head}");
        }
    }
}

#[tokio::test]
async fn a_server_that_ignores_it_is_read_all_the_same() {
    let mut answer = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\
        connection: close\r\n\r\n"
        .to_vec();
    answer.extend_from_slice(LIST);
    let (url, _) = serve(vec![answer]).await;
    let list = client(&url).request(maps());
    assert_eq!(patient(list.list::<Value>()).await.unwrap().items.len(), 1);
}

#[tokio::test]
async fn a_list_of_several_members_is_one() {
    let (first, second) = LIST.split_at(40);
    let body = [gzip(first), gzip(second)].concat();
    let (url, _) = serve(vec![compressed(&body)]).await;
    let list = client(&url).request(maps());
    assert_eq!(
        patient(list.list::<Value>())
            .await
            .unwrap()
            .metadata
            .resource_version,
        "7"
    );
}

#[tokio::test]
async fn a_list_that_is_cut_in_a_member_is_asked_for_again() {
    let whole = gzip(LIST);
    for cut in [5, 20, whole.len() - 1] {
        let (url, heads) = serve(vec![compressed(&whole[..cut]), compressed(&whole)]).await;
        let list = client(&url).request(maps());
        assert_eq!(
            patient(list.list::<Value>()).await.unwrap().items.len(),
            1,
            "{cut}"
        );
        assert_eq!(heads.lock().unwrap().len(), 2);
        let (url, _) = serve(vec![compressed(&whole[..cut])]).await;
        let list = client(&url).request(maps());
        let error = patient(list.list::<Value>()).await.unwrap_err();
        let is_lost = matches!(error, Error::Network(NetworkError::Lost(_)));
        assert!(is_lost, "{error}");
    }
}

#[tokio::test]
async fn garbage_behind_a_member_is_an_error() {
    let body = [gzip(LIST), b"garbage".to_vec()].concat();
    let (url, _) = serve(vec![compressed(&body)]).await;
    let list = client(&url).request(maps());
    let error = patient(list.list::<Value>()).await.unwrap_err();
    let Error::Peer(PeerError::Gzip(GzipError::Malformed(_))) = error else {
        panic!("{error:?}");
    };
    // What a watch brought before it counts.
    let body = [gzip(&event(5)), gzip(&event(6)), b"garbage".to_vec()].concat();
    let (url, _) = serve(vec![compressed(&body)]).await;
    let mut events = patient(client(&url).watch(maps()).once()).await.unwrap();
    for version in ["5", "6"] {
        let event = patient(events.next()).await.unwrap().unwrap();
        assert_eq!(
            event.object.metadata().unwrap().resource_version().unwrap(),
            version
        );
    }
    let error = patient(events.next()).await.unwrap().unwrap_err();
    assert!(matches!(error, Error::Peer(PeerError::Gzip(_))), "{error}");
    assert!(patient(events.next()).await.is_none());
}

#[tokio::test]
async fn a_watch_that_is_cut_in_a_member_goes_on_behind_the_last_whole_one() {
    let cut = gzip(&event(7));
    let first = [
        gzip(&event(5)),
        gzip(&event(6)),
        cut[..cut.len() / 2].to_vec(),
    ]
    .concat();
    let (url, heads) = serve(vec![compressed(&first), compressed(&gzip(&event(8)))]).await;
    let mut updates = client(&url).watch(maps()).from("4").stream();
    for version in ["5", "6", "8"] {
        let update = patient(updates.next()).await.unwrap().unwrap();
        let Update::Event(event) = update else {
            panic!("{update:?}");
        };
        assert_eq!(
            event.object.metadata().unwrap().resource_version().unwrap(),
            version
        );
    }
    assert!(heads.lock().unwrap()[1].contains("resourceversion=6"));
}

/// What a body of a few kilobytes becomes is refused where what it becomes is too large.
#[tokio::test]
async fn a_bomb_is_an_event_that_is_too_large() {
    const BOUND: usize = 256 << 10;
    let bomb = |start: &str| {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(start.as_bytes()).unwrap();
        encoder.write_all(&vec![b'x'; 32 * BOUND]).unwrap();
        encoder.finish().unwrap()
    };
    let body = bomb("{\"type\":\"ADDED\",\"object\":{\"x\":\"");
    assert!(body.len() < BOUND, "{}", body.len());
    let (url, _) = serve(vec![compressed(&body)]).await;
    let watch = client(&url).watch(maps()).max_event(BOUND);
    let mut events = patient(watch.once()).await.unwrap();
    let error = patient(events.next()).await.unwrap().unwrap_err();
    let too_large = EventError::TooLarge { bound: BOUND };
    assert!(
        matches!(&error, Error::Peer(PeerError::Event(found)) if *found == too_large),
        "{error}"
    );
    let body = bomb("{\"kind\":\"ConfigMapList\",\"items\":[{\"x\":\"");
    let (url, _) = serve(vec![compressed(&body)]).await;
    let watch: Watch = client(&url)
        .watch(maps())
        .max_event(BOUND)
        .watch_list(false);
    let mut updates = watch.stream();
    loop {
        if let Update::Retrying { error, .. } = patient(updates.next()).await.unwrap().unwrap() {
            assert!(
                matches!(&error, Error::Peer(PeerError::Event(found)) if *found == too_large),
                "{error}"
            );
            break;
        }
    }
}

#[tokio::test]
#[ignore = "needs a cluster"]
async fn a_real_server_s_lists_come_compressed() {
    let config = Config::from_env().unwrap();
    // A list of more than 128 KiB that every cluster has: its cluster roles.
    let roles = Resource::cluster("rbac.authorization.k8s.io", "v1", "clusterroles");
    let mut seen = Vec::new();
    for compression in [false, true] {
        let client = Client::new(&config.clone().with_compression(compression)).unwrap();
        let watch = client.watch(roles.clone()).watch_list(false);
        let mut updates = watch.stream();
        let mut names = Vec::new();
        loop {
            match patient(updates.next()).await.unwrap().unwrap() {
                Update::Event(event) => {
                    names.push(
                        event
                            .object
                            .metadata()
                            .unwrap()
                            .name()
                            .unwrap()
                            .into_owned(),
                    );
                }
                Update::SnapshotEnd { .. } => break,
                _ => {}
            }
        }
        seen.push((names, updates.stats().received));
    }
    assert_eq!(seen[0].0, seen[1].0);
    let (identity, compressed) = (seen[0].1, seen[1].1);
    assert!(compressed * 3 < identity, "{compressed} of {identity}");
}

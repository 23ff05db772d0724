//! Watches and logs, which go on: faults of answers and of the connections that bring them.

use std::{collections::BTreeMap, time::Duration};

use kubewire::{
    Client, Error, Resource,
    logs::{LogEnd, LogUpdate},
    testing::{ApiServer, ApiServerBuilder, BodyFault, Fault},
    watch::{Change, Mirror, ObjectKey, Update},
    wire::{
        line::LineEnd,
        status::Status,
        watch::{Encoding, EventError, Object},
    },
};
use serde_json::{Value, json};
use tokio::sync::OnceCell;

use super::{
    harness::{Random, run_all},
    proxy::{Plan, Proxy},
};

fn refusal(random: &mut Random) -> Box<Status> {
    Box::new(match random.below(6) {
        0 => {
            let mut status = Status::failure(429, "TooManyRequests", "later");
            let details = status.details.get_or_insert_default();
            details.retry_after_seconds = random.below(5) as u32;
            status
        }
        1 | 2 => Status::failure(503, "ServiceUnavailable", "not now"),
        3 => Status::failure(504, "Timeout", "too slow"),
        _ => Status::failure(500, "InternalError", "no kubelet"),
    })
}

/// Only watches know it.
fn expired() -> Box<Status> {
    let text = "too old resource version: 1 (2)";
    Box::new(Status::failure(410, "Expired", text))
}

fn body_fault(random: &mut Random, reach: u64) -> Option<BodyFault> {
    let after = random.below(reach) as usize;
    Some(match random.below(10) {
        0..3 => BodyFault::Cut { after },
        3..6 => BodyFault::Close { after },
        6 => BodyFault::Stall { after },
        7 => BodyFault::Refuse(refusal(random)),
        8 if random.one_in(3) => BodyFault::Refuse(expired()),
        8 => BodyFault::Delay(Duration::from_millis(random.below(100_000))),
        _ => return None,
    })
}

/// Faults of bodies, refusals, and of connections at any byte, TLS and the HTTP head included.
fn inject(server: &ApiServer, proxy: &Proxy, random: &mut Random, reach: u64) {
    for _ in 0..random.below(8) {
        server.inject_into_bodies([body_fault(random, reach)]);
    }
    inject_into_connections(server, proxy, random, reach);
}

fn inject_into_connections(server: &ApiServer, proxy: &Proxy, random: &mut Random, reach: u64) {
    if random.one_in(4) {
        server.inject(Fault::Refuse(refusal(random)));
    }
    for _ in 0..random.below(4) {
        proxy.plan(Plan::random(random, [1500, reach + 1500]));
    }
}

/// Mostly without TLS, which takes its time; with it, HTTP/2 half of the time.
fn server(random: &mut Random) -> ApiServerBuilder {
    match random.below(8) {
        0 => ApiServer::builder(),
        1 => ApiServer::builder().http1_only(),
        _ => ApiServer::builder().plain(),
    }
}

/// In virtual time: whoever waits longer waits for ever. It is long because a clock that jumps
/// does not wait for what containers' processes do in real time.
const LONG: Duration = Duration::from_secs(365 * 24 * 3600);

fn things() -> Resource {
    Resource::namespaced("example.com", "v1", "things")
}

fn put(server: &ApiServer, name: &str, value: u64) {
    let object = json!({
        "kind": "Thing",
        "metadata": {"name": name, "namespace": "default", "labels": {"odd": (value % 2).to_string()}},
        "value": value,
    });
    server.put(&things(), object);
}

fn value(object: &Object) -> Result<u64, EventError> {
    Ok(object.decode::<Value>()?["value"].as_u64().unwrap())
}

async fn any_watch(random: &mut Random) {
    let builder = server(random)
        .watch_list(!random.one_in(3))
        .bookmark_period(Duration::from_secs(1 + random.below(90)));
    let server = builder.start().await.unwrap();
    let proxy = Proxy::new(&server, []).await;
    let client = Client::new(&proxy.config(&server)).unwrap();
    for n in 0..random.below(12) {
        put(&server, &format!("t{n}"), n);
    }
    inject(&server, &proxy, random, 3000);
    let mut watch = client.watch(things()).page(random.below(6) as usize);
    let only_odd = random.one_in(3);
    if only_odd {
        watch = watch.labels("odd=1");
    }
    if random.one_in(4) {
        watch = watch.over_websocket();
    }
    if random.one_in(4) {
        watch = watch.encoding(Encoding::Protobuf);
    }
    let mut updates = watch.stream();
    let mut mirror = Mirror::new();
    // What the changes say, without looking at the mirror.
    let mut told = BTreeMap::new();
    let mut apply = |mirror: &mut Mirror<u64>, update: &Update| {
        for change in mirror.apply(update, value).unwrap() {
            match change {
                Change::Added(key) => {
                    let before = told.insert(key.name().to_owned(), *mirror.get(&key).unwrap());
                    assert_eq!(before, None, "{key} is added again");
                }
                Change::Modified(key) => {
                    let before = told.insert(key.name().to_owned(), *mirror.get(&key).unwrap());
                    assert!(before.is_some(), "{key} is modified before it is there");
                }
                Change::Deleted(key, value) => {
                    assert_eq!(told.remove(key.name()), Some(value), "{key} is deleted");
                }
            }
        }
    };
    for _ in 0..random.below(25) {
        // Sometimes hours pass, sometimes everything happens at once.
        let pause = match random.below(4) {
            0 => 0,
            1 => random.below(50),
            2 => random.below(5_000),
            _ => random.below(900_000),
        };
        let follow = async {
            while let Some(update) = updates.next().await {
                // Refusals are among the faults.
                if let Ok(update) = update {
                    apply(&mut mirror, &update);
                }
            }
        };
        let _ = tokio::time::timeout(Duration::from_millis(pause), follow).await;
        for _ in 0..1 + random.below(4) {
            let name = format!("t{}", random.below(15));
            match random.below(8) {
                0 | 1 => drop(server.delete(&things(), "default", &name)),
                2 => server.compact(),
                _ => put(&server, &name, random.below(1000)),
            }
        }
        if random.one_in(6) {
            inject(&server, &proxy, random, 1500);
        }
    }
    server.clear_body_faults();
    put(&server, "done", 1);
    let done = ObjectKey::new("default", "done");
    let follow = async {
        while !(mirror.is_current() && mirror.get(&done).is_some()) {
            if let Ok(update) = updates.next().await.unwrap() {
                apply(&mut mirror, &update);
            }
        }
    };
    tokio::time::timeout(LONG, follow)
        .await
        .expect("the watch goes on");
    let state: BTreeMap<_, _> = server
        .objects(&things())
        .into_iter()
        .map(|object| {
            let name = object["metadata"]["name"].as_str().unwrap().to_owned();
            (name, object["value"].as_u64().unwrap())
        })
        .filter(|(_, value)| !only_odd || value % 2 == 1)
        .collect();
    let mirrored: BTreeMap<_, _> = mirror
        .iter()
        .map(|(key, value)| (key.name().to_owned(), *value))
        .collect();
    assert_eq!(mirrored, state);
    assert_eq!(told, state);
    server.shutdown().await;
}

async fn any_log(random: &mut Random) {
    let (lines, width) = (random.below(60), 1 + random.below(97));
    let unfinished = random.one_in(3);
    let script = format!(
        "i=0; while [ $i -lt {lines} ]; do printf '%s %0*d\\n' $i $((i * 31 % {width})) 0; \
         i=$((i+1)); [ $((i % 16)) -eq 0 ] && sleep 0.001; done; {}exit 7",
        if unfinished { "printf end; " } else { "" },
    );
    let command = ["sh".into(), "-c".into(), script];
    let builder = server(random).pod("default", "web-0", |pod| pod.container("main", command));
    let server = builder.start().await.unwrap();
    let proxy = Proxy::new(&server, []).await;
    let client = Client::new(&proxy.config(&server)).unwrap();
    let reach = 200 + lines * width / 2;
    for _ in 0..random.below(8) {
        let fault = body_fault(random, reach);
        if fault == Some(BodyFault::Refuse(expired())) {
            continue;
        }
        let ends = matches!(fault, Some(BodyFault::Close { .. }));
        server.inject_into_bodies([fault]);
        // Two in a row that claim to be whole cannot be told from the truth.
        if ends {
            server.inject_into_bodies([None]);
        }
    }
    inject_into_connections(&server, &proxy, random, reach);
    let mut logs = client.pod("default", "web-0").logs().follow();
    if random.one_in(4) {
        logs = logs.over_websocket();
    }
    // Some lines come in pieces.
    if random.one_in(3) {
        logs = logs.max_line(64);
    }
    let mut seen = Vec::new();
    let mut piece = String::new();
    let read = async {
        let mut stream = logs.clone().stream();
        while let Some(update) = stream.next_update().await {
            match update {
                LogUpdate::Line(line) => {
                    piece.push_str(std::str::from_utf8(&line.bytes).unwrap());
                    if line.end != LineEnd::Piece {
                        seen.push(std::mem::take(&mut piece));
                    }
                }
                // Refusals before the first line are told at once: then it is asked for again.
                LogUpdate::Ended(LogEnd::Failed(error)) if seen.is_empty() => {
                    assert!(error.status().is_some(), "{error}");
                    stream = logs.clone().stream();
                }
                LogUpdate::Notice(text) => panic!("no text of a kubelet: {text:?}"),
                _ => {}
            }
        }
        stream.end().cloned()
    };
    let end = tokio::time::timeout(LONG, read).await.expect("it ends");
    let mut expected: Vec<_> = (0..lines)
        .map(|n| format!("{n} {:01$}", 0, (n * 31 % width) as usize))
        .collect();
    expected.extend(unfinished.then(|| "end".to_owned()));
    assert_eq!(seen, expected);
    assert_eq!(piece, "");
    assert!(
        matches!(&end, Some(LogEnd::Exited(exit)) if exit.code == Some(7)),
        "{end:?}"
    );
    server.shutdown().await;
}

/// A mirror of two objects, one of which comes later, with a fault of the first connection.
async fn short_watch(plan: Plan) -> [u64; 2] {
    let server = ApiServer::builder().plain().start().await.unwrap();
    let proxy = Proxy::new(&server, [plan]).await;
    let client = Client::new(&proxy.config(&server)).unwrap();
    put(&server, "t0", 0);
    let mut updates = client.watch(things()).stream();
    let mut mirror = Mirror::new();
    let keys = ["t0", "t1"].map(|name| ObjectKey::new("default", name));
    for (value, key) in (0..).zip(&keys) {
        put(&server, key.name(), value);
        while !(mirror.is_current() && mirror.get(key) == Some(&value)) {
            let update = updates.next().await.unwrap().unwrap();
            mirror.apply(&update, self::value).unwrap();
        }
    }
    assert_eq!(mirror.iter().count(), 2);
    drop(updates);
    proxy.carried()
}

/// A log that is not followed, of which the first connection is at fault.
async fn short_log(plan: Plan) -> [u64; 2] {
    let command = ["sh", "-c", "echo one; echo two; printf three"];
    let builder = ApiServer::builder().plain();
    let builder = builder.pod("default", "web-0", |pod| pod.container("main", command));
    let server = builder.start().await.unwrap();
    // Until it has exited.
    let direct = Client::new(&server.config()).unwrap();
    let mut whole = direct.pod("default", "web-0").logs().follow().stream();
    while whole.next().await.is_some() {}
    let proxy = Proxy::new(&server, [plan]).await;
    let client = Client::new(&proxy.config(&server)).unwrap();
    let mut lines = client.pod("default", "web-0").logs().stream();
    let mut seen = Vec::new();
    while let Some(line) = lines.next().await {
        match line {
            Ok(line) => seen.push(line.bytes),
            Err(error) => assert!(matches!(error, Error::Network(_)), "{error:?}"),
        }
    }
    match lines.end() {
        Some(LogEnd::Failed(error)) => {
            assert!(matches!(error, Error::Network(_)), "{error:?}");
            assert!(proxy.faults() > 0);
        }
        _ => assert_eq!(seen, ["one", "two", "three"]),
    }
    proxy.carried()
}

#[test]
fn after_any_faults_the_mirror_equals_the_store() {
    let carried = OnceCell::new();
    run_all(async move |seed| match seed % 2 {
        0 => {
            let whole = *carried
                .get_or_init(async || short_watch(Plan::default()).await)
                .await;
            short_watch(Plan::nth(seed / 2, whole)).await;
        }
        _ => any_watch(&mut Random::new(seed)).await,
    });
}

#[test]
fn after_any_faults_each_line_came_once() {
    let carried = OnceCell::new();
    run_all(async move |seed| match seed % 2 {
        0 => {
            let whole = *carried
                .get_or_init(async || short_log(Plan::default()).await)
                .await;
            short_log(Plan::nth(seed / 2, whole)).await;
        }
        _ => any_log(&mut Random::new(seed)).await,
    });
}

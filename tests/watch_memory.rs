//! What a watch of very many objects costs in memory: counted by the allocator, over a socket.
//!
//! 100,000 Pods of 7 KB in release builds, 4,000 in others: without a mirror the number does not
//! matter, and with one the figure is for each object.

#![cfg(feature = "client")]
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

#[path = "common/capture.rs"]
mod capture;

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
};

use kubewire::{
    Client, Resource,
    watch::{Mirror, Update},
    wire::watch::ObjectMeta,
};

const OBJECTS: usize = if cfg!(debug_assertions) {
    4_000
} else {
    100_000
};

/// The Pod of the capture with another name, uid and version.
struct Pods {
    /// What lies between the places that differ.
    parts: [String; 4],
}

impl Pods {
    fn new() -> Self {
        let event = String::from_utf8(capture::body("watch-json")).unwrap();
        let start = event.find(r#""object":"#).unwrap() + r#""object":"#.len();
        let end = event.find("}\n").unwrap();
        let pod = &event[start..end];
        assert!(pod.len() > 6_500, "{}", pod.len());
        let (first, rest) = pod.split_once(r#""name":"box""#).unwrap();
        let (second, rest) = rest.split_once("f5850694").unwrap();
        let (third, fourth) = rest.split_once(r#""resourceVersion":"544""#).unwrap();
        Self {
            parts: [first, second, third, fourth].map(str::to_owned),
        }
    }

    fn write(&self, n: usize, to: &mut Vec<u8>) {
        let [first, second, third, fourth] = &self.parts;
        write!(
            to,
            "{first}\"name\":\"box-{n:06}\"{second}{n:08x}{third}\"resourceVersion\":\"{}\"{fourth}",
            n + 1000
        )
        .unwrap();
    }
}

fn chunk(to: &mut TcpStream, bytes: &mut Vec<u8>) -> std::io::Result<()> {
    write!(to, "{:x}\r\n", bytes.len())?;
    to.write_all(bytes)?;
    bytes.clear();
    to.write_all(b"\r\n")
}

fn answer(to: &mut TcpStream, target: &str, pods: &Pods) -> std::io::Result<()> {
    let get = |name: &str| {
        let mut pairs = target.split(['?', '&']).filter_map(|p| p.split_once('='));
        pairs.find(|(found, _)| *found == name).map(|(_, v)| v)
    };
    to.write_all(
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n",
    )?;
    let mut bytes = Vec::new();
    if target.starts_with("/version") {
        bytes.extend_from_slice(b"{}");
    } else if get("watch").is_some() {
        if get("sendInitialEvents").is_some() {
            for n in 0..OBJECTS {
                bytes.extend_from_slice(br#"{"type":"ADDED","object":"#);
                pods.write(n, &mut bytes);
                bytes.extend_from_slice(b"}\n");
                if bytes.len() > 64 << 10 {
                    chunk(to, &mut bytes)?;
                }
            }
            bytes.extend_from_slice(
                br#"{"type":"BOOKMARK","object":{"kind":"Pod","apiVersion":"v1","metadata":{"resourceVersion":"9999999","annotations":{"k8s.io/initial-events-end":"true"}}}}"#,
            );
            bytes.push(b'\n');
        }
        if !bytes.is_empty() {
            chunk(to, &mut bytes)?;
        }
        // The watch goes on until the client has gone.
        to.read_exact(&mut [0])?;
    } else {
        let from: usize = get("continue").map_or(0, |text| text.parse().unwrap());
        let limit: usize = get("limit").unwrap().parse().unwrap();
        let end = (from + limit).min(OBJECTS);
        let next = if end < OBJECTS {
            end.to_string()
        } else {
            String::new()
        };
        write!(
            bytes,
            r#"{{"kind":"PodList","apiVersion":"v1","metadata":{{"resourceVersion":"9","continue":"{next}"}},"items":["#
        )?;
        for n in from..end {
            pods.write(n, &mut bytes);
            bytes.extend_from_slice(if n + 1 < end { b"," } else { b"]}" });
            if bytes.len() > 64 << 10 {
                chunk(to, &mut bytes)?;
            }
        }
    }
    if !bytes.is_empty() {
        chunk(to, &mut bytes)?;
    }
    to.write_all(b"0\r\n\r\n")
}

/// An API server in threads of its own, whose memory is not counted.
fn serve() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for tcp in listener.incoming() {
            let mut to = tcp.unwrap();
            std::thread::spawn(move || {
                let pods = Pods::new();
                let mut from = BufReader::new(to.try_clone().unwrap());
                loop {
                    let mut head = Vec::new();
                    while !head.ends_with(b"\r\n\r\n") {
                        if from.read_until(b'\n', &mut head).unwrap_or(0) == 0 {
                            return;
                        }
                    }
                    let head = String::from_utf8(head).unwrap();
                    let target = head.split(' ').nth(1).unwrap().to_owned();
                    if answer(&mut to, &target, &pods).is_err() {
                        return;
                    }
                }
            });
        }
    });
    address
}

/// The most that was allocated at once, and what is left at the end, over the idle client.
fn measure(watch_list: bool, mut each: impl FnMut(&Update)) -> (u64, u64) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let client = runtime.block_on(async {
        let client = Client::from_url(&format!("http://{}", serve())).unwrap();
        let version = http::Request::get("/version").body(Default::default());
        let answer = client.send(version.unwrap()).await.unwrap();
        answer.into_body().bytes(100).await.unwrap();
        client
    });
    let mut objects = 0;
    let pods = Resource::namespaced("", "v1", "pods");
    let counted = allocation_counter::measure(|| {
        let mut updates = client.watch(pods).watch_list(watch_list).stream();
        runtime.block_on(async {
            loop {
                let update = updates.next().await.unwrap().unwrap();
                each(&update);
                match update {
                    Update::Event(_) => objects += 1,
                    Update::SnapshotEnd { .. } => return,
                    _ => {}
                }
            }
        });
        // While the watch is still there.
        std::mem::forget(updates);
    });
    assert_eq!(objects, OBJECTS);
    (
        counted.bytes_max,
        u64::try_from(counted.bytes_current).unwrap(),
    )
}

#[test]
fn a_watch_without_a_mirror_stays_under_16_mib() {
    for watch_list in [true, false] {
        let (most, left) = measure(watch_list, |_| {});
        println!("watch-list {watch_list}: {most} bytes at most, {left} at the end");
        assert!(most < 16 << 20, "{most} bytes");
        assert!(left < 1 << 20, "{left} bytes");
    }
}

#[test]
fn a_mirror_of_metadata_costs_less_than_1_kib_an_object() {
    for watch_list in [true, false] {
        let mut mirror = Mirror::new();
        let (most, left) = measure(watch_list, |update| {
            mirror.apply(update, ObjectMeta::of).unwrap();
        });
        assert_eq!(mirror.len(), OBJECTS);
        let each = left / OBJECTS as u64;
        println!("watch-list {watch_list}: {each} bytes an object, {most} at most");
        assert!(each < 1 << 10, "{each} bytes");
        assert!(most < (16 << 20) + (OBJECTS << 10) as u64, "{most} bytes");
        // Of what has come no more is kept on the way than half of what stays.
        assert!(most < left + left / 2, "{most} bytes for {left}");
    }
}

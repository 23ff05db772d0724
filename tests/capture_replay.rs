//! The client half of each recorded session, sent to the embedded server: what that answers is the
//! recorded server half, but for the differences that are listed here.
//!
//! Everywhere: the headers that are not compared ([`HEADERS`] are), how bytes are cut into chunks and
//! messages, and that a server of Go closes a connection without waiting for the other's Close. In exec: the ids of containers and processes. In port-forward: the reason
//! why IPv6 was refused, which is the machine's. In logs: the times, and at which line they begin.
//! In watches: nothing, once the objects have been put at the versions that they were recorded
//! with; a map of CBOR has its keys in any order.

#![cfg(all(unix, feature = "testing"))]
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::{collections::BTreeMap, os::unix::fs::PermissionsExt as _, time::Duration};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use kubewire::{
    Resource, Role,
    testing::ApiServer,
    wire::{
        spdy::{self, Frame},
        watch,
        websocket::{Decoder, Message},
    },
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream},
    net::TcpStream,
};

/// The headers that are compared.
const HEADERS: [&str; 5] = [
    "connection",
    "content-type",
    "sec-websocket-accept",
    "sec-websocket-protocol",
    "upgrade",
];

/// One step of a recorded session.
enum Step {
    Client(Vec<u8>),
    /// The client closed its half.
    ClientEnd,
    Server(Vec<u8>),
}

struct Capture {
    name: String,
    steps: Vec<Step>,
    /// Whether the server closed the connection.
    ends: bool,
}

impl Capture {
    fn read(name: &str) -> Self {
        let path = format!("{}/tests/captures/{name}.jsonl", env!("CARGO_MANIFEST_DIR"));
        let text = std::fs::read_to_string(path).unwrap();
        let mut capture = Self {
            name: name.to_owned(),
            steps: Vec::new(),
            ends: false,
        };
        for line in text.lines().skip(1) {
            let line: Value = serde_json::from_str(line).unwrap();
            let bytes = line["b64"].as_str();
            let bytes = bytes.map(|bytes| BASE64_STANDARD.decode(bytes).unwrap());
            capture.steps.push(match (line["from"] == "client", bytes) {
                (true, Some(bytes)) => Step::Client(bytes),
                (true, None) => Step::ClientEnd,
                (false, Some(bytes)) => Step::Server(bytes),
                (false, None) => {
                    capture.ends = true;
                    continue;
                }
            });
        }
        capture
    }

    fn server(&self) -> Vec<u8> {
        let theirs = self.steps.iter().filter_map(|step| match step {
            Step::Server(bytes) => Some(bytes.clone()),
            _ => None,
        });
        theirs.flatten().collect()
    }

    /// Sends the client's half, each part when as much has come as had then.
    async fn replay(&self, server: &ApiServer, enough: impl Fn(&[u8]) -> usize) -> Vec<u8> {
        let work = async {
            let mut stream = TcpStream::connect(server.address()).await.unwrap();
            let (mut received, mut recorded) = (Vec::new(), Vec::new());
            let mut is_over = false;
            for step in &self.steps {
                if let Step::Server(bytes) = step {
                    recorded.extend(bytes);
                    continue;
                }
                while !is_over && enough(&received) < enough(&recorded) {
                    let read = stream.read_buf(&mut received).await;
                    is_over = matches!(read, Ok(0) | Err(_));
                }
                // A server that has ended does not read.
                match step {
                    Step::Client(bytes) => drop(stream.write_all(bytes).await),
                    _ => drop(stream.shutdown().await),
                }
            }
            while !is_over && (self.ends || enough(&received) < enough(&recorded)) {
                let read = stream.read_buf(&mut received).await;
                is_over = matches!(read, Ok(0) | Err(_));
            }
            received
        };
        let replayed = tokio::time::timeout(Duration::from_secs(180), work).await;
        replayed.unwrap_or_else(|_| panic!("{} hangs", self.name))
    }
}

/// An HTTP head as it is compared, and what follows it.
fn parts(wire: &[u8]) -> (Vec<String>, &[u8]) {
    let Some(at) = wire.windows(4).position(|end| end == b"\r\n\r\n") else {
        return (Vec::new(), &[]);
    };
    let head = std::str::from_utf8(&wire[..at]).unwrap();
    let mut lines = head.lines();
    let mut kept = vec![lines.next().unwrap().to_owned()];
    for line in lines {
        let (name, value) = line.split_once(": ").unwrap();
        let name = name.to_lowercase();
        if HEADERS.contains(&&*name) {
            kept.push(format!("{name}: {}", value.to_lowercase()));
        }
    }
    kept.sort();
    (kept, &wire[at + 4..])
}

/// The payloads of a server's messages by channel, and its close code.
fn channels(wire: &[u8]) -> (BTreeMap<u8, Vec<u8>>, Option<u16>) {
    let (head, rest) = parts(wire);
    let is_base64 = head.iter().any(|line| line.contains("base64"));
    let mut decoder = Decoder::new(Role::Client, 1 << 24);
    let mut buffer = bytes::BytesMut::from(rest);
    let (mut channels, mut code) = (BTreeMap::<u8, Vec<u8>>::new(), None);
    while let Ok(Some(message)) = decoder.decode(&mut buffer) {
        match message {
            Message::Text(text) if is_base64 => {
                if let Some((channel, data)) = text.split_first() {
                    let data = BASE64_STANDARD.decode(data).unwrap();
                    channels.entry(channel - b'0').or_default().extend(data);
                }
            }
            Message::Binary(data) | Message::Text(data) => {
                if let Some((channel, data)) = data.split_first() {
                    channels.entry(*channel).or_default().extend(data);
                }
            }
            Message::Close(close) => code = close.map(|close| close.code),
            _ => {}
        }
    }
    (channels, code)
}

/// How much came: of messages their bytes, but of words that there are some, and of another body
/// likewise.
fn amount(name: &str, wire: &[u8]) -> usize {
    let (head, rest) = parts(wire);
    match head.iter().any(|line| line.starts_with("HTTP/1.1 101")) {
        true => {
            let (channels, code) = channels(wire);
            let is_words = |channel: u8| match name.starts_with("portforward") {
                true => channel % 2 == 1,
                false => channel == 3,
            };
            let amounts = channels
                .iter()
                .map(|(channel, bytes)| match is_words(*channel) {
                    // A port-forward begins with the port.
                    true => usize::from(bytes.len() > 2),
                    false => bytes.len(),
                });
            1 + amounts.sum::<usize>() + usize::from(code.is_some())
        }
        false => rest.len().min(1),
    }
}

/// Ids are some; so is the pod's name where a cluster has the sandbox's.
fn without_ids(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text)
        .replace("pod box", "pod ID")
        .replace("\"box\"", "\"ID\"");
    let mut parts = Vec::new();
    for word in text.split_inclusive(|c: char| !c.is_ascii_hexdigit()) {
        let hex = word.trim_end_matches(|c: char| !c.is_ascii_hexdigit());
        match hex.len() {
            64 => parts.push(format!("ID{}", &word[64..])),
            _ => parts.push(word.to_owned()),
        }
    }
    parts.concat()
}

/// As the recorded pod wrote, but for the pauses before the first 200 lines.
const LINES: &str =
    "i=0; while true; do echo line $i; i=$((i+1)); [ $i -lt 200 ] || sleep 0.1; done";

/// A `sleep` that ends when the terminal has another size than at the last time.
const RESIZED: &str = r#"#!/bin/sh
last=$(cat "$SEEN"/size 2>/dev/null || echo 0 0)
while [ "$(stty size)" = "$last" ]; do /bin/sleep 0.02; done
stty size >"$SEEN"/size"#;

/// What the recorded application answers, and closes.
async fn web(mut connection: DuplexStream) {
    let mut request = [0; 1];
    if connection.read(&mut request).await.unwrap_or(0) > 0 {
        let _ = connection
            .write_all(
                b"HTTP/1.1 200 OK\r\nDate: Sun, 22 Nov 2026 01:56:58 GMT\r\nConnection: close\r\n\
                  Content-type: text/html\r\nAccept-Ranges: bytes\r\nLast-Modified: Sun, 22 Nov \
                  2026 01:55:42 GMT\r\nETag: \"6b024b9e-a\"\r\nContent-Length: 10\r\n\r\nhello-web\n",
            )
            .await;
    }
}

async fn server(seen: &std::path::Path) -> ApiServer {
    let sleep = seen.join("sleep");
    std::fs::write(&sleep, RESIZED).unwrap();
    std::fs::set_permissions(&sleep, std::fs::Permissions::from_mode(0o755)).unwrap();
    let seen = seen.display().to_string();
    let path = format!("{seen}:/usr/bin:/bin");
    let builder = ApiServer::builder().plain().pod("default", "box", |pod| {
        pod.container_with("main", ["/bin/sh", "-c", LINES], |container| {
            container.env("SEEN", &seen)
        })
        .container_with("terminal", ["/bin/sleep", "infinity"], |container| {
            container.env("PATH", &path).env("SEEN", &seen)
        })
        .container_with("cat", ["cat"], |container| container.stdin())
        .port_with(18080, web)
    });
    builder.start().await.unwrap()
}

/// What is compared of a channel's bytes.
fn words(name: &str, bytes: &[u8]) -> String {
    let words = without_ids(bytes);
    match words.split_once("IPv6 dial") {
        Some((front, _)) if name.starts_with("portforward") => front.to_owned(),
        // The time of the other recording.
        _ => words.replace("01:55:54", "01:56:58"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_and_forwards_are_answered_as_recorded() {
    let seen = tempfile::tempdir().unwrap();
    let server = server(seen.path()).await;
    for name in [
        "attach-v5",
        "exec-v1-exit3",
        "exec-v4-base64",
        "exec-v4-exit3",
        "exec-v4-stdin",
        "exec-v5-exit3",
        "exec-v5-large",
        "exec-v5-not-found",
        "exec-v5-signal",
        "exec-v5-stdin-close",
        "exec-v5-success",
        "exec-v5-tty-resize",
        "portforward-v4",
    ] {
        let mut capture = Capture::read(name);
        if let (Some(Step::Client(request)), "exec-v5-tty-resize") =
            (capture.steps.first_mut(), name)
        {
            // Where `sleep` waits for the resize, however long that takes.
            let text = String::from_utf8(request.clone()).unwrap();
            *request = text.replace("container=main", "container=terminal").into();
        }
        let (wanted, found) = (
            capture.server(),
            capture.replay(&server, |wire| amount(name, wire)).await,
        );
        assert_eq!(parts(&found).0, parts(&wanted).0, "{name}");
        let (wanted, found) = (channels(&wanted), channels(&found));
        assert_eq!(found.1, wanted.1, "{name}: the close code");
        let of = |channels: &BTreeMap<u8, Vec<u8>>| -> BTreeMap<u8, String> {
            let channels = channels.iter().filter(|(_, bytes)| !bytes.is_empty());
            channels
                .map(|(channel, bytes)| (*channel, words(name, bytes)))
                .collect()
        };
        let (wanted, found) = (of(&wanted.0), of(&found.0));
        assert!(wanted.keys().eq(found.keys()), "{name}: {found:?}");
        for (channel, wanted) in wanted {
            let found = &found[&channel];
            // A Status is compared field by field, in any order of them.
            match serde_json::from_str::<Value>(&wanted) {
                Ok(Value::Object(wanted)) => {
                    let found: Value = serde_json::from_str(found).unwrap();
                    assert_eq!(found, Value::Object(wanted), "{name}, channel {channel}");
                }
                _ => assert_eq!(*found, wanted, "{name}, channel {channel}"),
            }
        }
    }
}

/// What a server's frames say of each stream: its bytes, and what else was said, in order.
fn streams(wire: &[u8]) -> BTreeMap<u32, (Vec<u8>, Vec<&'static str>)> {
    let mut decoder = Decoder::new(Role::Client, 1 << 24);
    let mut buffer = bytes::BytesMut::from(parts(wire).1);
    let (mut frames, mut headers) = (spdy::Decoder::new(), spdy::HeaderReader::new());
    let mut streams = BTreeMap::<u32, (Vec<u8>, Vec<&'static str>)>::new();
    while let Ok(Some(message)) = decoder.decode(&mut buffer) {
        let Message::Binary(mut bytes) = message else {
            continue;
        };
        while let Some(frame) = frames.decode(&mut bytes).unwrap() {
            let (stream, fin) = match &frame {
                Frame::Data(data) => (data.stream, data.fin),
                Frame::SynReply(reply) => (reply.stream, reply.fin),
                other => panic!("{other:?}"),
            };
            let (data, said) = streams.entry(stream.get()).or_default();
            match frame {
                Frame::Data(frame) => data.extend(frame.payload),
                Frame::SynReply(reply) => {
                    assert!(headers.read(&reply.block).unwrap().is_empty());
                    said.push("reply");
                }
                _ => {}
            }
            if fin {
                said.push("end");
            }
        }
    }
    streams
}

#[tokio::test]
async fn kubectl_s_forwards_are_answered_as_recorded() {
    let seen = tempfile::tempdir().unwrap();
    let (server, capture) = (server(seen.path()).await, Capture::read("portforward-spdy"));
    let enough = |wire: &[u8]| {
        let streams = streams(wire).into_values();
        streams.map(|(data, said)| data.len() + said.len()).sum()
    };
    let (wanted, found) = (capture.server(), capture.replay(&server, enough).await);
    assert_eq!(parts(&found).0, parts(&wanted).0);
    assert_eq!(streams(&found), streams(&wanted));
}

/// The lines of a log, each with its distance from the first, and whether each has a time.
fn lines(text: &[u8]) -> Vec<(bool, u64)> {
    let lines = std::str::from_utf8(text).unwrap().lines();
    let lines = lines.map(|line| {
        let (front, number) = line.split_once("line ").unwrap();
        let stamp = front.trim_end();
        assert!(stamp.is_empty() || stamp.len() == "2026-11-22T01:55:55.156900177Z".len());
        (!stamp.is_empty(), number.parse::<u64>().unwrap())
    });
    let lines: Vec<_> = lines.collect();
    let first = lines[0].1;
    let from_first = lines.into_iter().map(|(stamp, line)| (stamp, line - first));
    from_first.collect()
}

#[tokio::test]
async fn logs_are_answered_as_recorded() {
    let seen = tempfile::tempdir().unwrap();
    let server = server(seen.path()).await;
    for name in ["logs-follow", "logs-tail", "logs-ws"] {
        let capture = Capture::read(name);
        let text = |wire: &[u8]| match name {
            "logs-ws" => messages(wire),
            _ => body(wire),
        };
        // Until the pod has written as much as it had, which takes a moment.
        let found = loop {
            let found = capture.replay(&server, |wire| text(wire).len()).await;
            if text(&found).len() >= text(&capture.server()).len() {
                break found;
            }
        };
        assert_eq!(parts(&found).0, parts(&capture.server()).0, "{name}");
        let (wanted, found) = (lines(&text(&capture.server())), lines(&text(&found)));
        // One that is followed may have gone on.
        assert_eq!(found[..wanted.len()], wanted, "{name}");
        assert!(found.len() == wanted.len() || name != "logs-tail");
    }
}

#[tokio::test]
async fn refusals_are_as_recorded() {
    let seen = tempfile::tempdir().unwrap();
    let server = server(seen.path()).await;
    for name in ["exec-no-container", "exec-no-pod"] {
        let capture = Capture::read(name);
        let recorded = capture.server();
        // The recorded connection was closed by its client.
        let enough = |wire: &[u8]| {
            let body = serde_json::from_slice::<Value>(parts(wire).1);
            usize::from(body.is_ok())
        };
        let found = capture.replay(&server, enough).await;
        assert_eq!(parts(&found).0, parts(&recorded).0, "{name}");
        let status = |wire: &[u8]| serde_json::from_slice::<Value>(parts(wire).1).unwrap();
        assert_eq!(status(&found), status(&recorded), "{name}");
    }
}

/// The body of a chunked answer, as far as it came.
fn body(wire: &[u8]) -> Vec<u8> {
    let (mut rest, mut body) = (parts(wire).1, Vec::new());
    while let Some(at) = rest.windows(2).position(|end| end == b"\r\n") {
        let size = usize::from_str_radix(std::str::from_utf8(&rest[..at]).unwrap(), 16).unwrap();
        let Some(chunk) = rest.get(at + 2..at + 2 + size) else {
            break;
        };
        body.extend(chunk);
        rest = rest.get(at + 2 + size + 2..).unwrap_or_default();
    }
    body
}

/// The payloads of all messages.
fn messages(wire: &[u8]) -> Vec<u8> {
    let mut decoder = Decoder::new(Role::Client, 1 << 24);
    let mut buffer = bytes::BytesMut::from(parts(wire).1);
    let mut payloads = Vec::new();
    while let Ok(Some(message)) = decoder.decode(&mut buffer) {
        if let Message::Text(bytes) | Message::Binary(bytes) = message {
            payloads.extend(bytes);
        }
    }
    payloads
}

/// The events of a watch in JSON, in the bodies of HTTP or in messages.
fn events(wire: &[u8]) -> Vec<Value> {
    let text = match parts(wire).0.iter().any(|line| line.contains(" 101")) {
        true => messages(wire),
        false => body(wire),
    };
    let events = serde_json::Deserializer::from_slice(&text).into_iter::<Value>();
    events.map(Result::unwrap).collect()
}

fn version(object: &Value) -> u64 {
    let version = object["metadata"]["resourceVersion"].as_str().unwrap();
    version.parse().unwrap()
}

/// A server with these objects, each at the version that it was recorded with.
async fn with_objects(objects: &[Value], last: u64) -> ApiServer {
    let builder = ApiServer::builder().plain().cbor(true);
    let server = builder.start().await.unwrap();
    let other = Resource::namespaced("example.com", "v1", "others");
    let fill = |upto: u64| {
        while server.resource_version().parse::<u64>().unwrap() < upto {
            server.put(
                &other,
                json!({"kind": "Other", "metadata": {"name": "a", "namespace": "default"}}),
            );
        }
    };
    let mut objects = objects.to_vec();
    objects.sort_by_key(version);
    for object in objects {
        fill(version(&object) - 1);
        let plural = match object["kind"].as_str().unwrap() {
            "Pod" => "pods",
            _ => "configmaps",
        };
        server.put(&Resource::namespaced("", "v1", plural), object);
    }
    fill(last);
    server
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watches_are_answered_as_recorded() {
    let pod = &events(&Capture::read("watch-json").server())[0]["object"];
    for name in [
        "watch-cbor",
        "watch-json",
        "watch-list",
        "watch-metadata",
        "watch-protobuf",
        "watch-ws",
    ] {
        let capture = Capture::read(name);
        let recorded = capture.server();
        let server = match name {
            "watch-list" => {
                let mut objects: Vec<_> = events(&recorded)
                    .into_iter()
                    .map(|mut event| event["object"].take())
                    .collect();
                let bookmark = objects.pop().unwrap();
                with_objects(&objects, version(&bookmark)).await
            }
            _ => with_objects(std::slice::from_ref(pod), version(pod)).await,
        };
        // A watch ends by itself.
        let enough = |wire: &[u8]| match name {
            "watch-ws" => usize::from(channels(wire).1.is_some()),
            _ => usize::from(wire.ends_with(b"0\r\n\r\n")),
        };
        let found = capture.replay(&server, enough).await;
        assert_eq!(parts(&found).0, parts(&recorded).0, "{name}");
        match name {
            "watch-protobuf" => assert_eq!(body(&found), body(&recorded)),
            "watch-cbor" => {
                let decoded = |wire: &[u8]| {
                    let mut decoder = watch::Decoder::new(watch::Encoding::Cbor);
                    decoder.push(body(wire).into());
                    let event = decoder.next_event().unwrap().unwrap();
                    event.object.decode::<Value>().unwrap()
                };
                assert_eq!(decoded(&found), decoded(&recorded));
            }
            _ => {
                // No controller ran there that gives each namespace the certificate authority.
                let mut told = events(&found);
                told.retain(|event| event["object"]["metadata"]["name"] != "kube-root-ca.crt");
                assert_eq!(told, events(&recorded), "{name}");
            }
        }
    }
}

#[tokio::test]
async fn a_watch_of_what_has_expired_is_refused_as_recorded() {
    let server = ApiServer::builder().plain().start().await.unwrap();
    let pods = Resource::namespaced("", "v1", "pods");
    server.put(
        &pods,
        json!({"kind": "Pod", "metadata": {"name": "a", "namespace": "default"}}),
    );
    server.compact();
    let capture = Capture::read("watch-expired");
    let found = capture.replay(&server, |_| 0).await;
    assert_eq!(parts(&found).0, parts(&capture.server()).0);
    let status = |wire: &[u8]| {
        let mut event = events(wire).remove(0);
        // The versions are others.
        let message = event["object"]["message"].as_str().unwrap().to_owned();
        let front: String = message
            .chars()
            .take_while(|c| !c.is_ascii_digit())
            .collect();
        event["object"]["message"] = front.into();
        event
    };
    assert_eq!(status(&found), status(&capture.server()));
}

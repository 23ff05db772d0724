//! The client half of each recorded session, sent to the embedded server: what that answers is the
//! recorded server half, but for the differences that are listed here.
//!
//! Everywhere: the headers that are not compared ([`HEADERS`] are), and how output is cut into
//! messages. In exec: the ids of containers and processes, and that a kubelet's Status of v4 does
//! not say its `kind` and `apiVersion`. In watches: the versions.

#![cfg(all(unix, feature = "testing"))]
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::{collections::BTreeMap, time::Duration};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use kubewire::{
    Resource, Role,
    testing::ApiServer,
    wire::websocket::{Decoder, Message},
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
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

/// What was sent, by whom; the server's half ends if it says so.
struct Capture {
    steps: Vec<(bool, Vec<u8>)>,
    ends: bool,
}

impl Capture {
    fn read(name: &str) -> Self {
        let path = format!("{}/tests/captures/{name}.jsonl", env!("CARGO_MANIFEST_DIR"));
        let text = std::fs::read_to_string(path).unwrap();
        let mut capture = Self {
            steps: Vec::new(),
            ends: false,
        };
        for line in text.lines().skip(1) {
            let line: Value = serde_json::from_str(line).unwrap();
            let is_client = line["from"] == "client";
            match line["b64"].as_str() {
                Some(bytes) => {
                    let bytes = BASE64_STANDARD.decode(bytes).unwrap();
                    capture.steps.push((is_client, bytes));
                }
                None => capture.ends |= line["eof"] == true && !is_client,
            }
        }
        capture
    }

    fn server(&self) -> Vec<u8> {
        let theirs = self.steps.iter().filter(|(is_client, _)| !is_client);
        theirs.flat_map(|(_, bytes)| bytes.clone()).collect()
    }

    /// Sends the client's half, each part when as much has come as had then.
    async fn replay(&self, server: &ApiServer, enough: impl Fn(&[u8]) -> usize) -> Vec<u8> {
        let work = async {
            let mut stream = TcpStream::connect(server.address()).await.unwrap();
            let (mut received, mut recorded) = (Vec::new(), Vec::new());
            let mut is_over = false;
            for (is_client, bytes) in &self.steps {
                if !is_client {
                    recorded.extend(bytes);
                    continue;
                }
                while !is_over && enough(&received) < enough(&recorded) {
                    is_over = stream.read_buf(&mut received).await.unwrap() == 0;
                }
                // A server that has ended does not read.
                let _ = stream.write_all(bytes).await;
            }
            while !is_over && (self.ends || enough(&received) < enough(&recorded)) {
                is_over = matches!(stream.read_buf(&mut received).await, Ok(0) | Err(_));
            }
            received
        };
        let replayed = tokio::time::timeout(Duration::from_secs(180), work).await;
        replayed.expect("it hangs")
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

/// How much came: of messages their bytes, of another body its bytes.
fn amount(wire: &[u8]) -> usize {
    let (head, rest) = parts(wire);
    match head.iter().any(|line| line.starts_with("HTTP/1.1 101")) {
        true => {
            let (channels, code) = channels(wire);
            let bytes: usize = channels.values().map(Vec::len).sum();
            1 + bytes + usize::from(code.is_some())
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

async fn server() -> ApiServer {
    let builder = ApiServer::builder().plain().pod("default", "box", |pod| {
        pod.container("main", ["sleep", "infinity"])
            .container_with("cat", ["cat"], |container| container.stdin())
    });
    builder.start().await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_and_forwards_are_answered_as_recorded() {
    let server = server().await;
    for name in ["attach-v5", "exec-v1-exit3", "exec-v4-base64"] {
        let capture = Capture::read(name);
        let (wanted, found) = (capture.server(), capture.replay(&server, amount).await);
        assert_eq!(parts(&found).0, parts(&wanted).0, "{name}");
        let (wanted, found) = (channels(&wanted), channels(&found));
        assert_eq!(found.1, wanted.1, "{name}: the close code");
        let of = |channels: &BTreeMap<u8, Vec<u8>>| -> BTreeMap<u8, String> {
            let channels = channels.iter().filter(|(_, bytes)| !bytes.is_empty());
            channels
                .map(|(channel, bytes)| (*channel, without_ids(bytes)))
                .collect()
        };
        let (wanted, found) = (of(&wanted.0), of(&found.0));
        assert!(wanted.keys().eq(found.keys()), "{name}: {found:?}");
        for (channel, wanted) in wanted {
            let found = &found[&channel];
            // A Status is compared field by field, in any order of them.
            match serde_json::from_str::<Value>(&wanted) {
                Ok(Value::Object(wanted)) => {
                    let mut found: Value = serde_json::from_str(found).unwrap();
                    for field in ["kind", "apiVersion"] {
                        if let (None, Some(found)) = (wanted.get(field), found.as_object_mut()) {
                            found.remove(field);
                        }
                    }
                    assert_eq!(found, Value::Object(wanted), "{name}, channel {channel}");
                }
                _ => assert_eq!(*found, wanted, "{name}, channel {channel}"),
            }
        }
    }
}

#[tokio::test]
async fn refusals_are_as_recorded() {
    let server = server().await;
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

/// The events of a watch, in the bodies of HTTP or in messages.
fn events(wire: &[u8]) -> Vec<Value> {
    let (head, mut rest) = parts(wire);
    let mut text = Vec::new();
    if head.iter().any(|line| line.starts_with("HTTP/1.1 101")) {
        let mut decoder = Decoder::new(Role::Client, 1 << 24);
        let mut buffer = bytes::BytesMut::from(rest);
        while let Ok(Some(Message::Text(message))) = decoder.decode(&mut buffer) {
            text.extend(message);
        }
    } else {
        while let Some(at) = rest.windows(2).position(|end| end == b"\r\n") {
            let size =
                usize::from_str_radix(std::str::from_utf8(&rest[..at]).unwrap(), 16).unwrap();
            text.extend(&rest[at + 2..at + 2 + size]);
            rest = &rest[at + 2 + size + 2..];
        }
    }
    let events = serde_json::Deserializer::from_slice(&text).into_iter::<Value>();
    events.map(Result::unwrap).collect()
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

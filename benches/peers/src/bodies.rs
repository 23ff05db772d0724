//! Watch events and log lines, from memory: in goes a body in chunks as it comes over HTTP/2.

use std::{hint::black_box, time::Instant};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::{Bytes, BytesMut};
use k8s_openapi::api::core::v1::Pod;
use kube::core::WatchEvent;
use kubewire::wire::{
    line::LineSplitter,
    watch::{Decode as _, Decoder, Encoding, Event, Protobuf},
};
use serde::{Deserialize, de::DeserializeOwned};
use tokio_util::codec::{Decoder as _, LinesCodec};

use crate::row::{Work, share};

/// What one read brings: a full HTTP/2 frame of a Go server.
const READ: usize = 16 << 10;
const EVENTS: usize = 100;
/// How often the events come: what a socket has just brought is in the processor's cache, and so
/// is a body of this size.
const ROUNDS: usize = share(100);
const LINES: usize = 10_000;

/// Events or lines a second.
pub(crate) fn run(work: &Work, side: &str) -> f64 {
    let (body, expected) = match work {
        Work::Lines => (log(), LINES),
        Work::Messages if side == "kubewire" => (messages(), EVENTS),
        _ => (events(), EVENTS),
    };
    let pass = || match (work, side) {
        (Work::Metadata, "kubewire") => watch(&body, |event| {
            let metadata = event.object.metadata().expect("metadata");
            black_box((
                metadata.kind().expect("a kind"),
                metadata.name().expect("a name"),
                metadata.namespace().expect("a namespace"),
                metadata.uid().expect("a uid"),
                metadata.resource_version().expect("a version"),
            ));
        }),
        (Work::Typed, "kubewire") => watch(&body, |event| {
            black_box(event.object.decode::<Pod>().expect("a Pod"));
        }),
        (Work::Messages, "kubewire") => watch_in(Encoding::Protobuf, &body, |event| {
            black_box(
                Protobuf::<k8s_pb::api::core::v1::Pod>::decode(&event.object).expect("a Pod"),
            );
        }),
        (Work::Unmanaged, "kubewire") => watch(&body, |event| {
            let object = event.object.without_managed_fields().expect("an object");
            black_box(object.decode::<Pod>().expect("a Pod"));
        }),
        (Work::Lines, "kubewire") => lines(&body),
        (Work::Lines, "raw") => newlines(&body),
        (Work::Lines, _) => lines_codec(&body),
        (Work::Partial, "kubewire") => watch(&body, |event| {
            black_box(event.object.decode::<Few<&str>>().expect("a Pod"));
        }),
        // kube gives what it owns.
        (Work::Partial, "kube-rs-tuned") => kube_typed::<Few<String>>(&body),
        _ => kube_typed::<Pod>(&body),
    };
    // The first pass warms up.
    assert_eq!(pass(), expected);
    let start = Instant::now();
    for _ in 0..ROUNDS {
        assert_eq!(pass(), expected);
    }
    (ROUNDS * expected) as f64 / start.elapsed().as_secs_f64()
}

/// The five fields that a controller reads of a Pod.
#[expect(dead_code, reason = "only decoding is measured")]
#[derive(Deserialize)]
struct Few<S> {
    metadata: FewMetadata<S>,
    spec: FewSpec<S>,
    status: FewStatus<S>,
}

#[expect(dead_code, reason = "only decoding is measured")]
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct FewMetadata<S> {
    name: S,
    resource_version: S,
}

#[expect(dead_code, reason = "only decoding is measured")]
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct FewSpec<S> {
    node_name: Option<S>,
}

#[expect(dead_code, reason = "only decoding is measured")]
#[derive(Deserialize)]
struct FewStatus<S> {
    phase: Option<S>,
    #[serde(rename = "podIP")]
    pod_ip: Option<S>,
}

/// The same Pod in protobuf.
fn messages() -> Bytes {
    message().repeat(EVENTS).into()
}

/// One event with its length.
pub(crate) fn message() -> Vec<u8> {
    let wire = wire(include_str!("../../../tests/captures/watch-protobuf.jsonl"));
    let head = memchr::memmem::find(&wire, b"\n\x05ADDED").expect("an event") - 4;
    let len = wire[head..].first_chunk().copied().expect("its length");
    wire[head..head + 4 + u32::from_be_bytes(len) as usize].to_vec()
}

/// The captured Pod of 7 KB, each time with another name and version.
fn events() -> Bytes {
    let event = line(include_str!("../../../tests/captures/watch-json.jsonl"));
    let event = String::from_utf8(event).expect("JSON");
    let mut body = BytesMut::new();
    for n in 0..EVENTS {
        let name = format!("\"name\":\"box-{n}\"");
        let version = format!("\"resourceVersion\":\"{}\"", 544 + n);
        let event = event.replacen("\"name\":\"box\"", &name, 1).replacen(
            "\"resourceVersion\":\"544\"",
            &version,
            1,
        );
        body.extend_from_slice(event.as_bytes());
    }
    body.freeze()
}

/// The first event of a capture, with its newline.
pub(crate) fn line(capture: &str) -> Vec<u8> {
    let wire = wire(capture);
    let start = memchr::memmem::find(&wire, b"{\"type\":\"ADDED\"").expect("an event");
    let end = start + memchr::memchr(b'\n', &wire[start..]).expect("its end");
    wire[start..=end].to_vec()
}

/// What a server sent in a capture.
fn wire(capture: &str) -> Vec<u8> {
    let mut wire = Vec::new();
    for line in capture.lines().skip(1) {
        let read: serde_json::Value = serde_json::from_str(line).expect("a capture");
        if let ("server", Some(data)) = (read["from"].as_str().unwrap_or(""), read["b64"].as_str())
        {
            wire.extend(STANDARD.decode(data).expect("base64"));
        }
    }
    wire
}

fn log() -> Bytes {
    let line = format!("2026-11-22T01:55:55.156900177Z {}\n", "x".repeat(68));
    line.repeat(LINES).into()
}

pub(crate) fn chunks(body: &Bytes) -> impl Iterator<Item = Bytes> + '_ {
    (0..body.len())
        .step_by(READ)
        .map(|at| body.slice(at..body.len().min(at + READ)))
}

fn watch(body: &Bytes, each: impl Fn(Event)) -> usize {
    watch_in(Encoding::Json, body, each)
}

fn watch_in(encoding: Encoding, body: &Bytes, each: impl Fn(Event)) -> usize {
    let mut decoder = Decoder::new(encoding);
    let mut count = 0;
    for chunk in chunks(body) {
        decoder.push(chunk);
        while let Some(event) = decoder.next_event().expect("an event") {
            each(event);
            count += 1;
        }
    }
    count
}

/// As `kube_client::Client::request_events` does it.
fn kube_typed<K: DeserializeOwned>(body: &Bytes) -> usize {
    let mut codec = LinesCodec::new();
    let mut buffer = BytesMut::new();
    let mut count = 0;
    for chunk in chunks(body) {
        buffer.extend_from_slice(&chunk);
        while let Some(line) = codec.decode(&mut buffer).expect("UTF-8") {
            let event: WatchEvent<K> = serde_json::from_str(&line).expect("an event");
            black_box(event);
            count += 1;
        }
    }
    count
}

fn lines(body: &Bytes) -> usize {
    let mut splitter = LineSplitter::new(1 << 20);
    let mut count = 0;
    for chunk in chunks(body) {
        splitter.push(chunk);
        while let Some(line) = splitter.next_line() {
            black_box(line.bytes);
            count += 1;
        }
    }
    count
}

fn lines_codec(body: &Bytes) -> usize {
    let mut codec = LinesCodec::new();
    let mut buffer = BytesMut::new();
    let mut count = 0;
    for chunk in chunks(body) {
        buffer.extend_from_slice(&chunk);
        while let Some(line) = codec.decode(&mut buffer).expect("UTF-8") {
            black_box(line);
            count += 1;
        }
    }
    count
}

fn newlines(body: &Bytes) -> usize {
    chunks(body)
        .map(|chunk| memchr::memchr_iter(b'\n', &chunk).map(black_box).count())
        .sum()
}

#![allow(dead_code, reason = "each bench uses its part")]
//! The work of the parsers, a batch at a time, for benches by time and by instruction.

#[path = "callgrind.rs"]
pub(crate) mod callgrind;
#[path = "../../../tests/common/capture.rs"]
mod capture;
#[path = "initial.rs"]
mod initial;
#[path = "scale.rs"]
pub(crate) mod scale;

use std::{hint::black_box, io::Write as _, time::Instant};

use bytes::{Bytes, BytesMut};
use flate2::{Compression, write::GzEncoder};
use futures_util::StreamExt as _;
use k8s_openapi::api::core::v1::Pod;
use kubewire::{
    AnyWebSocket, KeepaliveConfig, Role,
    exec::{Child, ChildStdout, Streams, Subprotocol},
    session::{
        Message, Session as _,
        remote_command::RemoteCommand,
        watch::{SharedMirror, Update},
    },
    wire::{
        channel::{self, Encoding as ChannelEncoding},
        gzip,
        line::LineSplitter,
        spdy,
        stamp::Stamp,
        status::Status,
        watch::{Decode as _, Decoder as WatchDecoder, Encoding, Event, Object, Protobuf},
        websocket::{Decoder, FrameHeader, Opcode, apply_mask},
    },
};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _},
    runtime::Builder,
};

/// One kind of work.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    /// Frames, events or lines in a batch.
    pub(crate) units: u64,
    /// Bytes in a batch.
    pub(crate) bytes: u64,
    /// Prepares a batch.
    pub(crate) prepare: Box<dyn Fn() -> Work>,
}

impl Case {
    /// Runs in valgrind.
    pub(crate) fn run(self) {
        // The first run fills what is computed once.
        drop((self.prepare)()());
        drop(callgrind::counted((self.prepare)()));
    }
}

/// Instructions a unit, of the case with so many that `words` name to this program.
pub(crate) fn count(units: u64, words: &[&str]) -> f64 {
    let (total, _) = callgrind::count(words).unwrap();
    total / units as f64
}

/// A batch that is ready. What it gives is dropped unmeasured.
pub(crate) type Work = Box<dyn FnOnce() -> Box<dyn Drop_>>;

/// Anything that can be kept for later.
pub(crate) trait Drop_ {}
impl<T> Drop_ for T {}

fn case<I: 'static, O: 'static>(
    name: &'static str,
    units: usize,
    bytes: usize,
    input: impl Fn() -> I + 'static,
    work: impl Fn(I) -> O + Copy + 'static,
) -> Case {
    Case {
        name,
        units: units as u64,
        bytes: bytes as u64,
        prepare: Box::new(move || {
            let input = input();
            Box::new(move || Box::new(work(input)))
        }),
    }
}

/// All of them.
pub(crate) fn all() -> Vec<Case> {
    let mut cases = Vec::new();
    for (name, size) in [
        ("channel frame, 64 B", 64),
        ("channel frame, 32 KiB", 32 << 10),
    ] {
        cases.push(channel_frames(name, size));
    }
    for (name, size) in [
        ("WebSocket frame, 64 B", 64),
        ("WebSocket frame, 32 KiB", 32 << 10),
    ] {
        cases.push(websocket_frames(name, size));
    }
    cases.push(session_frames());
    cases.extend(output());
    cases.push(case(
        "mask 32 KiB",
        1,
        32 << 10,
        || vec![7_u8; 32 << 10],
        |mut payload| {
            apply_mask(&mut payload, [1, 2, 3, 4], 1);
            payload
        },
    ));
    cases.push(spdy_frames());
    for (name, capture, encoding) in [
        ("watch metadata, JSON", "watch-json", Encoding::Json),
        (
            "watch metadata, protobuf",
            "watch-protobuf",
            Encoding::Protobuf,
        ),
        ("watch metadata, CBOR", "watch-cbor", Encoding::Cbor),
    ] {
        cases.push(watch_metadata(name, capture, encoding));
    }
    cases.extend(typed());
    cases.extend(initial::cases());
    cases.extend(compressed());
    cases.extend(log_lines());
    cases.push(status());
    cases
}

fn frames(channel: Option<u8>, size: usize, count: usize) -> BytesMut {
    let mut wire = BytesMut::new();
    for _ in 0..count {
        FrameHeader {
            fin: true,
            opcode: Opcode::Binary,
            mask: None,
            length: size as u64 + u64::from(channel.is_some()),
        }
        .encode(&mut wire);
        wire.extend(channel);
        wire.extend_from_slice(&vec![b'x'; size]);
    }
    wire
}

fn messages(size: usize, count: usize) -> Vec<Bytes> {
    let mut message = vec![b'x'; size + 1];
    message[0] = 1;
    let message = Bytes::from(message);
    (0..count).map(|_| message.slice(..)).collect()
}

fn channel_frames(name: &'static str, size: usize) -> Case {
    const COUNT: usize = 1000;
    case(
        name,
        COUNT,
        COUNT * size,
        move || (messages(size, COUNT), Vec::with_capacity(COUNT)),
        |(messages, mut parsed)| {
            for message in messages {
                parsed.push(channel::parse(ChannelEncoding::Binary, true, message));
            }
            parsed
        },
    )
}

fn websocket_frames(name: &'static str, size: usize) -> Case {
    let count = (1 << 20) / size;
    case(
        name,
        count,
        count * size,
        move || (frames(None, size, count), Vec::with_capacity(count)),
        |(mut wire, mut decoded)| {
            let mut decoder = Decoder::new(Role::Client, 1 << 20);
            while let Some(message) = decoder.decode(&mut wire).unwrap() {
                decoded.push(message);
            }
            decoded
        },
    )
}

fn session_frames() -> Case {
    const COUNT: usize = 1000;
    let streams = Streams {
        stdout: true,
        ..Streams::default()
    };
    let now = Instant::now();
    case(
        "exec session, 64 B",
        COUNT,
        COUNT * 64,
        move || {
            let keepalive = KeepaliveConfig::default();
            let session =
                RemoteCommand::new(Role::Client, Subprotocol::V5, streams, keepalive, now);
            (session, messages(64, COUNT), Vec::with_capacity(COUNT))
        },
        move |(mut session, messages, mut events)| {
            for message in messages {
                session.handle_message(now, Message::Binary(message));
                events.extend(session.poll_event());
            }
            (session, events)
        },
    )
}

/// Output in frames of 64 bytes that have arrived, through the whole session to a reader.
fn output() -> Vec<Case> {
    const COUNT: usize = 1000;
    fn reader<F: Future<Output = usize>>(
        name: &'static str,
        read: impl Fn(ChildStdout) -> F + Copy + 'static,
    ) -> Case {
        case(
            name,
            COUNT,
            COUNT * 64,
            || {
                let mut builder = Builder::new_current_thread();
                let runtime = builder.enable_time().build().unwrap();
                (runtime, frames(Some(1), 64, COUNT).freeze())
            },
            move |(runtime, wire)| {
                let streams = Streams {
                    stdout: true,
                    ..Streams::default()
                };
                let read = runtime.block_on(async {
                    let socket = AnyWebSocket::from_io(tokio::io::empty(), Role::Client, wire);
                    let mut child = Child::over(socket, Subprotocol::V5, streams).spawn();
                    read(child.stdout.take().unwrap()).await
                });
                assert_eq!(read, COUNT * 64);
                runtime
            },
        )
    }
    vec![
        reader("output of 64 B, slices", |mut stdout| async move {
            let mut all = 0;
            while let Some(Ok(slice)) = stdout.next().await {
                all += black_box(slice).len();
            }
            all
        }),
        reader("output of 64 B, a slice a read", |mut stdout| async move {
            let (mut buffer, mut all) = (vec![0; 64 << 10], 0);
            while let Ok(slice @ [_, ..]) = stdout.fill_buf().await {
                let length = slice.len();
                black_box(&mut buffer)[..length].copy_from_slice(slice);
                stdout.consume(length);
                all += length;
            }
            all
        }),
        reader("output of 64 B, reads of 64 KiB", |mut stdout| async move {
            let (mut buffer, mut all) = (vec![0; 64 << 10], 0);
            while let Ok(length @ 1..) = stdout.read(black_box(&mut buffer)).await {
                all += length;
            }
            all
        }),
    ]
}

fn spdy_frames() -> Case {
    const COUNT: usize = 100;
    let mut wire = Vec::new();
    for _ in 0..COUNT {
        // Stream 1, no flags, the length.
        wire.extend_from_slice(&[0, 0, 0, 1, 0, 0, 0x80, 0]);
        wire.extend_from_slice(&[7; 0x8000]);
    }
    let wire = Bytes::from(wire);
    case(
        "SPDY data frame, 32 KiB",
        COUNT,
        wire.len(),
        move || (wire.slice(..), Vec::with_capacity(COUNT)),
        |(mut wire, mut parsed)| {
            while let Some(frame) = spdy::Frame::parse(&mut wire).unwrap() {
                parsed.push(frame);
            }
            parsed
        },
    )
}

/// The captured Pod as an event, its newline with it.
fn pod_event(capture: &str, encoding: Encoding) -> Vec<u8> {
    let body = Bytes::from(capture::body(capture));
    let mut decoder = WatchDecoder::new(encoding);
    decoder.push(body.clone());
    let mut event = Bytes::new();
    let mut before = body.len();
    while decoder.next_event().unwrap().is_some() {
        let left = decoder.buffered();
        // The largest is the Pod.
        if before - left > event.len() {
            event = body.slice(body.len() - before..body.len() - left);
        }
        before = left;
    }
    let mut event = event.to_vec();
    if encoding == Encoding::Json {
        let line = event.trim_ascii().len();
        event.drain(..event.len() - event.trim_ascii_start().len());
        event.truncate(line);
        event.push(b'\n');
    }
    event
}

/// The captured Pod as 200 events, in chunks of 16 KiB as they come over HTTP/2.
fn watch_metadata(name: &'static str, capture: &str, encoding: Encoding) -> Case {
    const COUNT: usize = 200;
    let stream = Bytes::from(pod_event(capture, encoding).repeat(COUNT));
    case(
        name,
        COUNT,
        stream.len(),
        move || {
            let ends = (0..stream.len()).step_by(16 << 10);
            let chunks = ends.map(|at| stream.slice(at..stream.len().min(at + (16 << 10))));
            chunks.collect::<Vec<_>>()
        },
        move |chunks| {
            let mut decoder = WatchDecoder::new(encoding);
            let mut count = 0;
            for chunk in chunks {
                decoder.push(chunk);
                while let Some(event) = decoder.next_event().unwrap() {
                    let metadata = event.object.metadata().unwrap();
                    black_box(metadata.kind().unwrap());
                    black_box(metadata.name().unwrap());
                    black_box(metadata.namespace().unwrap());
                    black_box(metadata.resource_version().unwrap());
                    count += 1;
                }
            }
            assert_eq!(count, COUNT);
        },
    )
}

/// The five fields that a controller reads of a Pod.
#[derive(serde::Deserialize)]
struct FewFields<S> {
    metadata: FewMetadata<S>,
    spec: FewSpec<S>,
    status: FewStatus<S>,
}

#[derive(serde::Deserialize)]
#[serde(rename_all = "camelCase")]
struct FewMetadata<S> {
    name: S,
    resource_version: S,
}

#[derive(serde::Deserialize)]
#[serde(rename_all = "camelCase")]
struct FewSpec<S> {
    node_name: Option<S>,
}

#[derive(serde::Deserialize)]
struct FewStatus<S> {
    phase: Option<S>,
    #[serde(rename = "podIP")]
    pod_ip: Option<S>,
}

/// What costs too much if it is more than this part of something else: what, of what, and the part.
pub(crate) const PARTS: &[(&str, &str, f64)] = &[
    ("watch, Pods of k8s-pb", "watch, Pods", 0.3),
    ("watch, five fields of Pods", "watch, Pods", 1.0 / 4.0),
    (
        "watch, five fields of Pods, borrowed",
        "watch, Pods",
        1.0 / 4.0,
    ),
    (
        "mirror of Pods, 100 readers",
        "mirror of Pods, a reader",
        1.05,
    ),
];

fn typed() -> Vec<Case> {
    const COUNT: usize = 200;
    /// Updates of a watch that are applied at once: what a read of 64 KiB brings.
    const BATCH: usize = 10;
    let event = pod_event("watch-json", Encoding::Json);
    let updates: Vec<_> = (0..COUNT)
        .map(|at| {
            let event = String::from_utf8(event.clone()).unwrap();
            let (name, version) = (
                format!("\"name\":\"box-{at}\""),
                format!("\"{}\"", 1000 + at),
            );
            let event = event.replacen("\"name\":\"box\"", &name, 1);
            let event = event.replacen("\"544\"", &version, 1);
            Event::from_message(Encoding::Json, Bytes::from(event)).unwrap()
        })
        .collect();
    let decoded = |name, decode: fn(&Object)| {
        let updates = updates.clone();
        case(
            name,
            COUNT,
            COUNT * event.len(),
            move || updates.clone(),
            move |events: Vec<Event>| {
                for event in &events {
                    decode(&event.object);
                }
                events
            },
        )
    };
    let mirrored = |name, readers: usize| {
        let updates = updates.clone();
        case(
            name,
            COUNT,
            COUNT * event.len(),
            move || {
                let mirror = SharedMirror::<Pod>::new(Vec::new());
                let readers: Vec<_> = (0..readers).map(|_| mirror.begin()).collect();
                let updates: Vec<_> = updates.iter().cloned().map(Update::Event).collect();
                (mirror, readers, updates)
            },
            |(mut mirror, mut readers, updates)| {
                for batch in updates.chunks(BATCH) {
                    for update in batch {
                        mirror.apply(update, |object| object.decode());
                    }
                    mirror.publish();
                    for reader in &mut readers {
                        assert!(mirror.fill(reader));
                        while let Some(update) = reader.next_update() {
                            black_box(update.unwrap());
                        }
                    }
                }
                (mirror, readers, updates)
            },
        )
    };
    vec![
        decoded("watch, Pods", |object| {
            black_box(object.decode::<Pod>().unwrap());
        }),
        messages_of_pods(),
        decoded("watch, five fields of Pods", |object| {
            black_box(object.decode::<FewFields<String>>().unwrap());
        }),
        decoded("watch, five fields of Pods, borrowed", |object| {
            black_box(object.decode::<FewFields<&str>>().unwrap());
        }),
        mirrored("mirror of Pods, a reader", 1),
        mirrored("mirror of Pods, 100 readers", 100),
    ]
}

/// The same Pod as protobuf, whole.
fn messages_of_pods() -> Case {
    const COUNT: usize = 200;
    let event = pod_event("watch-protobuf", Encoding::Protobuf);
    // Without its length: a message of its own.
    let event = Bytes::from(event).slice(4..);
    let events: Vec<_> = (0..COUNT)
        .map(|_| Event::from_message(Encoding::Protobuf, event.clone()).unwrap())
        .collect();
    case(
        "watch, Pods of k8s-pb",
        COUNT,
        COUNT * event.len(),
        move || events.clone(),
        |events| {
            for event in &events {
                black_box(Protobuf::<k8s_pb::api::core::v1::Pod>::decode(&event.object).unwrap());
            }
            events
        },
    )
}

/// A list of Pods in one member of gzip, and a watch of them with one each: by event.
fn compressed() -> Vec<Case> {
    const COUNT: usize = 200;
    let gzip = |content: &[u8]| {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::new(1));
        encoder.write_all(content).unwrap();
        encoder.finish().unwrap()
    };
    let event = pod_event("watch-json", Encoding::Json);
    let bodies = [
        ("inflate, a list of Pods", gzip(&event.repeat(COUNT))),
        ("inflate, a watch of Pods", gzip(&event).repeat(COUNT)),
    ];
    let size = COUNT * event.len();
    let inflated = bodies.map(|(name, body)| {
        let body = Bytes::from(body);
        case(
            name,
            COUNT,
            size,
            move || pieces(&body, 16 << 10),
            move |chunks| {
                let mut decoder = gzip::Decoder::new();
                let mut all = 0;
                for chunk in chunks {
                    decoder.push(chunk);
                    while let Some(piece) = decoder.next_piece().unwrap() {
                        all += piece.len();
                        black_box(piece);
                    }
                }
                assert_eq!(all, size);
            },
        )
    });
    inflated.into()
}

fn pieces(input: &Bytes, size: usize) -> Vec<Bytes> {
    let starts = (0..input.len()).step_by(size);
    starts
        .map(|at| input.slice(at..input.len().min(at + size)))
        .collect()
}

/// Hands a body to a splitter, chunk by chunk.
fn split(chunks: Vec<Bytes>, take: impl Fn(&mut LineSplitter)) {
    let mut splitter = LineSplitter::new(1 << 20);
    for chunk in chunks {
        splitter.push(chunk);
        take(&mut splitter);
    }
}

fn log_lines() -> Vec<Case> {
    const COUNT: usize = 10_000;
    let line = format!("2026-11-22T01:55:55.156900177Z {}\n", "x".repeat(68));
    let bytes = line.len() * COUNT;
    let log = Bytes::from(line.repeat(COUNT));
    let chunks = move || pieces(&log, 16 << 10);
    vec![
        case(
            "log lines of 100 B",
            COUNT,
            bytes,
            chunks.clone(),
            |chunks| {
                split(chunks, |splitter| {
                    while let Some(line) = splitter.next_line() {
                        black_box(line.bytes);
                    }
                });
            },
        ),
        case(
            "log lines of 100 B, kept",
            COUNT,
            bytes,
            chunks.clone(),
            |chunks| {
                split(chunks, |splitter| {
                    while let Some(line) = splitter.next_line() {
                        black_box(line.to_bytes());
                    }
                });
            },
        ),
        case(
            "log lines of 100 B, with stamps",
            COUNT,
            bytes,
            chunks.clone(),
            |chunks| {
                split(chunks, |splitter| {
                    while let Some(line) = splitter.next_line() {
                        black_box(Stamp::parse_prefix(line.bytes));
                    }
                });
            },
        ),
        case(
            "baseline: memchr for newlines",
            COUNT,
            bytes,
            chunks,
            |chunks| {
                for chunk in chunks {
                    for at in memchr::memchr_iter(b'\n', &chunk) {
                        black_box(at);
                    }
                }
            },
        ),
    ]
}

fn status() -> Case {
    const STATUS: &[u8] = br#"{"metadata":{},"status":"Failure","message":"command terminated with non-zero exit code: exit status 3","reason":"NonZeroExitCode","details":{"causes":[{"reason":"ExitCode","message":"3"}]}}"#;
    case(
        "Status of an exit code",
        1,
        STATUS.len(),
        || (),
        |()| Status::from_json(black_box(STATUS)).unwrap(),
    )
}

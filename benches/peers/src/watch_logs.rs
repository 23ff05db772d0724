//! Watch events and log lines, against what kube-rs does with them: `LinesCodec`, then serde_json
//! into k8s-openapi's types. In one run, alternating, medians.
//!
//! ```text
//! cargo run --release --manifest-path benches/peers/Cargo.toml --bin watch_logs
//! ```

use std::{hint::black_box, time::Instant};

use bytes::{Bytes, BytesMut};
use k8s_openapi::api::core::v1::Pod;
use kubewire::wire::{
    line::LineSplitter,
    stamp::Stamp,
    watch::{Decoder, Encoding},
};
use serde::Deserialize;
use tokio_util::codec::{Decoder as _, LinesCodec};

/// What one read brings: a full HTTP/2 frame of a Go server.
const READ: usize = 16 << 10;

#[derive(Deserialize)]
struct WatchEvent {
    #[allow(dead_code)]
    r#type: String,
    object: Pod,
}

fn events(count: usize) -> (Bytes, usize) {
    let capture = include_str!("../../../tests/captures/watch-json.jsonl");
    let mut wire = Vec::new();
    for line in capture.lines().skip(1) {
        let read: serde_json::Value = serde_json::from_str(line).expect("a capture");
        if let ("server", Some(b64)) = (read["from"].as_str().unwrap_or(""), read["b64"].as_str()) {
            wire.extend(base64(b64));
        }
    }
    let start = memchr::memmem::find(&wire, b"{\"type\":\"ADDED\"").expect("an event");
    let end = start + memchr::memchr(b'\n', &wire[start..]).expect("its end");
    let event = String::from_utf8(wire[start..=end].to_vec()).expect("JSON");
    let mut body = BytesMut::new();
    for n in 0..count {
        let name = format!("\"name\":\"box-{n}\"");
        let version = format!("\"resourceVersion\":\"{}\"", 544 + n);
        let event = event
            .replacen("\"name\":\"box\"", &name, 1)
            .replacen("\"resourceVersion\":\"544\"", &version, 1);
        body.extend_from_slice(event.as_bytes());
    }
    (body.freeze(), event.len())
}

fn base64(text: &str) -> Vec<u8> {
    let value = |b: u8| match b {
        b'A'..=b'Z' => u32::from(b - b'A'),
        b'a'..=b'z' => u32::from(b - b'a') + 26,
        b'0'..=b'9' => u32::from(b - b'0') + 52,
        b'+' => 62,
        _ => 63,
    };
    let digits: Vec<u32> = text.bytes().filter(|b| *b != b'=').map(value).collect();
    let bytes = digits.chunks(4).flat_map(|four| {
        let word = four.iter().enumerate().fold(0, |w, (i, d)| w | d << (18 - 6 * i));
        let len = four.len() * 6 / 8;
        word.to_be_bytes()[1..=len].to_vec()
    });
    bytes.collect()
}

/// Feeds a body in chunks of `READ`.
fn chunks(body: &Bytes) -> impl Iterator<Item = Bytes> + '_ {
    (0..body.len()).step_by(READ).map(|at| body.slice(at..body.len().min(at + READ)))
}

fn metadata(body: &Bytes) -> usize {
    let mut decoder = Decoder::new(Encoding::Json);
    let mut count = 0;
    for chunk in chunks(body) {
        decoder.push(chunk);
        while let Some(event) = decoder.next_event().expect("valid") {
            let metadata = event.object.metadata().expect("valid");
            black_box((
                metadata.kind().expect("valid"),
                metadata.name().expect("valid"),
                metadata.namespace().expect("valid"),
                metadata.uid().expect("valid"),
                metadata.resource_version().expect("valid"),
            ));
            count += 1;
        }
    }
    count
}

/// Each event is a chunk of its own, as over HTTP/1.1.
fn metadata_by_event(events: &[Bytes]) -> usize {
    let mut decoder = Decoder::new(Encoding::Json);
    let mut count = 0;
    for chunk in events {
        decoder.push(chunk.clone());
        while let Some(event) = decoder.next_event().expect("valid") {
            let metadata = event.object.metadata().expect("valid");
            black_box(metadata.resource_version().expect("valid"));
            count += 1;
        }
    }
    count
}

fn typed(body: &Bytes) -> usize {
    let mut decoder = Decoder::new(Encoding::Json);
    let mut count = 0;
    for chunk in chunks(body) {
        decoder.push(chunk);
        while let Some(event) = decoder.next_event().expect("valid") {
            black_box(event.object.decode::<Pod>().expect("a Pod"));
            count += 1;
        }
    }
    count
}

fn kube_typed(body: &Bytes) -> usize {
    let mut codec = LinesCodec::new();
    let mut buffer = BytesMut::new();
    let mut count = 0;
    for chunk in chunks(body) {
        buffer.extend_from_slice(&chunk);
        while let Some(line) = codec.decode(&mut buffer).expect("UTF-8") {
            let event: WatchEvent = serde_json::from_str(&line).expect("an event");
            black_box(event.object);
            count += 1;
        }
    }
    count
}

fn blocks(body: &Bytes) -> usize {
    let mut splitter = LineSplitter::new(1 << 20);
    let mut count = 0;
    for chunk in chunks(body) {
        splitter.push(chunk);
        while let Some(block) = splitter.next_block() {
            for (line, _) in block.lines() {
                black_box(line);
                count += 1;
            }
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

fn stamps(body: &Bytes) -> usize {
    let mut splitter = LineSplitter::new(1 << 20);
    let mut count = 0;
    for chunk in chunks(body) {
        splitter.push(chunk);
        while let Some(block) = splitter.next_block() {
            for (line, _) in block.lines() {
                black_box(Stamp::parse_prefix(line));
                count += 1;
            }
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

fn bare(body: &Bytes) -> usize {
    chunks(body).map(|chunk| memchr::memchr_iter(b'\n', &chunk).map(black_box).count()).sum()
}

/// Seconds of each side, the median of alternating runs.
fn measure(sides: &mut [(&str, Box<dyn FnMut() -> usize + '_>)], expected: usize) -> Vec<f64> {
    const RUNS: usize = 9;
    let mut times = vec![Vec::new(); sides.len()];
    for _ in 0..RUNS {
        for (index, (name, run)) in sides.iter_mut().enumerate() {
            let start = Instant::now();
            assert_eq!(run(), expected, "{name}");
            times[index].push(start.elapsed().as_secs_f64());
        }
    }
    let median = |times: &mut Vec<f64>| {
        times.sort_by(f64::total_cmp);
        times[RUNS / 2]
    };
    times.iter_mut().map(median).collect()
}

fn main() {
    const EVENTS: usize = 2000;
    let (body, size) = events(EVENTS);
    let single: Vec<Bytes> = {
        let ends = memchr::memchr_iter(b'\n', &body);
        let mut from = 0;
        ends.map(|end| {
            let event = body.slice(from..=end);
            from = end + 1;
            event
        })
        .collect()
    };
    let mut sides: Vec<(&str, Box<dyn FnMut() -> usize>)> = vec![
        ("kube-rs: LinesCodec, serde_json, Pod", Box::new(|| kube_typed(&body))),
        ("typed: Decoder, decode::<Pod>", Box::new(|| typed(&body))),
        ("metadata: five fields", Box::new(|| metadata(&body))),
        ("metadata, an event a chunk", Box::new(|| metadata_by_event(&single))),
    ];
    let times = measure(&mut sides, EVENTS);
    println!("watch events of {size} bytes, in chunks of {READ}:");
    for ((name, _), time) in sides.iter().zip(&times) {
        let rate = EVENTS as f64 / time;
        println!("  {name:40} {rate:>12.0} events/s  {:>6.1} x", times[0] / time);
    }

    const LINES: usize = 200_000;
    let line = "2026-11-22T01:55:55.156900177Z ".to_owned() + &"x".repeat(68) + "\n";
    let log = Bytes::from(line.repeat(LINES));
    let mut sides: Vec<(&str, Box<dyn FnMut() -> usize>)> = vec![
        ("tokio-util: LinesCodec", Box::new(|| lines_codec(&log))),
        ("a line at a time", Box::new(|| lines(&log))),
        ("a block at a time", Box::new(|| blocks(&log))),
        ("a block at a time, stamps parsed", Box::new(|| stamps(&log))),
        ("bare memchr", Box::new(|| bare(&log))),
    ];
    let times = measure(&mut sides, LINES);
    println!("log lines of {} bytes, in chunks of {READ}:", line.len());
    for ((name, _), time) in sides.iter().zip(&times) {
        let rate = log.len() as f64 / time / 1e9;
        println!("  {name:40} {rate:>12.2} GB/s      {:>6.1} x", times[0] / time);
    }
}

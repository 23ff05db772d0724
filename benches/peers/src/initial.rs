//! The metadata of many Pods, from memory into a mirror: what kubewire asks for is protobuf, and
//! kube-rs JSON.

use std::{hint::black_box, time::Instant};

use bytes::{Bytes, BytesMut};
use k8s_openapi::api::core::v1::Pod;
use kube::{
    core::{PartialObjectMeta, WatchEvent},
    runtime::{reflector::store, watcher},
};
use kubewire::{
    session::{
        Exchange as _, Head,
        watch::{SharedMirror, Watch, WatchConfig},
    },
    wire::watch::{Encoding, ObjectMeta},
};
use tokio_util::codec::{Decoder as _, LinesCodec};

use crate::{
    bodies::{chunks, line, message},
    snapshot,
};

/// Fewer where it is only seen whether all works.
const OBJECTS: usize = if cfg!(debug_assertions) { 500 } else { 50_000 };

/// Objects a second.
pub(crate) fn run(side: &str) -> f64 {
    let body = match side {
        "kube-rs" => {
            let capture = include_str!("../../../tests/captures/watch-metadata.jsonl");
            snapshot::json(&line(capture), OBJECTS)
        }
        _ => snapshot::protobuf(&message(), OBJECTS),
    };
    let start = Instant::now();
    match side {
        "kubewire" => kubewire(&body),
        "kube-rs" => kube(&body),
        _ => {
            for chunk in chunks(&body) {
                black_box(memchr::memchr_iter(b'\n', &chunk).count());
            }
        }
    }
    OBJECTS as f64 / start.elapsed().as_secs_f64()
}

fn kubewire(body: &Bytes) {
    let now = Instant::now();
    let mut watch = Watch::new(WatchConfig::default(), now, 7);
    assert!(watch.poll_request(now).is_some());
    let head = Head {
        status: 200,
        content_type: Some(Encoding::Protobuf.media_type()),
        ..Head::default()
    };
    watch.handle_head(now, head);
    let mut mirror = SharedMirror::new(Vec::new());
    for chunk in chunks(body) {
        watch.handle_body(now, chunk);
        while let Some(update) = watch.poll_update() {
            mirror.apply(&update, ObjectMeta::of);
        }
        mirror.publish();
    }
    assert!(mirror.is_current() && mirror.len() == OBJECTS);
}

/// As `kube_client::Client::request_events` reads and a reflector keeps.
fn kube(body: &Bytes) {
    let (reader, mut writer) = store::<PartialObjectMeta<Pod>>();
    writer.apply_watcher_event(&watcher::Event::Init);
    let mut codec = LinesCodec::new();
    let mut buffer = BytesMut::new();
    for chunk in chunks(body) {
        buffer.extend_from_slice(&chunk);
        while let Some(line) = codec.decode(&mut buffer).expect("UTF-8") {
            let event = serde_json::from_str(&line).expect("an event");
            writer.apply_watcher_event(&match event {
                WatchEvent::Added(object) => watcher::Event::InitApply(object),
                _ => watcher::Event::InitDone,
            });
        }
    }
    assert_eq!(reader.len(), OBJECTS);
}

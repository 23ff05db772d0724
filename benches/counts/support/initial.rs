//! What a watch begins with: the metadata of many Pods into a mirror, by object.

#[path = "../../support/snapshot.rs"]
mod snapshot;

use std::{hint::black_box, time::Instant};

use bytes::Bytes;
use kubewire::{
    session::{
        Exchange as _, Head,
        watch::{SharedMirror, Watch, WatchConfig},
    },
    wire::watch::{Encoding, ObjectMeta},
};

use super::{Case, case, pieces, pod_event};

const COUNT: usize = 10_000;

pub(super) fn cases() -> Vec<Case> {
    vec![
        mirror(
            "initial list of metadata, JSON",
            Encoding::Json,
            COUNT,
            json,
        ),
        mirror(
            "initial list of metadata, protobuf",
            Encoding::Protobuf,
            COUNT,
            protobuf,
        ),
        // The least that reads the bytes.
        case(
            "baseline: newlines of the same list",
            COUNT,
            COUNT * json(1).len(),
            || pieces(&json(COUNT), 16 << 10),
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

/// So many objects in protobuf.
pub(super) fn of(count: usize) -> Case {
    mirror("initial list", Encoding::Protobuf, count, protobuf)
}

/// The bytes go through the session that a mirror follows, and what it says into the mirror.
fn mirror(name: &'static str, encoding: Encoding, count: usize, body: fn(usize) -> Bytes) -> Case {
    case(
        name,
        count,
        count * body(1).len(),
        move || pieces(&body(count), 16 << 10),
        move |chunks| {
            let now = Instant::now();
            let mut watch = Watch::new(WatchConfig::default(), now, 7);
            assert!(watch.poll_request(now).is_some());
            let head = Head {
                status: 200,
                content_type: Some(encoding.media_type()),
                ..Head::default()
            };
            watch.handle_head(now, head);
            let mut mirror = SharedMirror::new(Vec::new());
            for chunk in chunks {
                watch.handle_body(now, chunk);
                while let Some(update) = watch.poll_update() {
                    mirror.apply(&update, ObjectMeta::of);
                }
                mirror.publish();
            }
            assert!(mirror.is_current() && mirror.len() == count);
            mirror
        },
    )
}

fn json(count: usize) -> Bytes {
    snapshot::json(&pod_event("watch-metadata", Encoding::Json), count)
}

fn protobuf(count: usize) -> Bytes {
    snapshot::protobuf(&pod_event("watch-protobuf", Encoding::Protobuf), count)
}

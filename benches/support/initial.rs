//! What a watch begins with: the metadata of many Pods into a mirror, by object.

use std::{hint::black_box, time::Instant};

use bytes::Bytes;
use k8s_pb::{
    api::core::v1::Pod,
    apimachinery::pkg::{
        apis::meta::v1::{ObjectMeta as Meta, PartialObjectMetadata, WatchEvent},
        runtime::{RawExtension, TypeMeta, Unknown},
    },
};
use kubewire::{
    session::{
        Exchange as _, Head,
        watch::{SharedMirror, Watch, WatchConfig},
    },
    wire::watch::{Encoding, ObjectMeta},
};
use prost::Message as _;

use super::{Case, case, pieces, pod_event};

const COUNT: usize = 10_000;
const NAME: &str = "box";
const VERSION: &str = "544";

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

const END: &str = r#"{"type":"BOOKMARK","object":{"kind":"PartialObjectMetadata","apiVersion":"meta.k8s.io/v1","metadata":{"resourceVersion":"99999","annotations":{"k8s.io/initial-events-end":"true"}}}}"#;

fn json(count: usize) -> Bytes {
    let event = String::from_utf8(pod_event("watch-metadata", Encoding::Json)).unwrap();
    let mut body = Vec::new();
    for n in 0..count {
        let name = format!("\"name\":\"{NAME}-{n}\"");
        let version = format!("\"{}\"", 1000 + n);
        let event = event.replacen(&format!("\"name\":\"{NAME}\""), &name, 1);
        let event = event.replacen(&format!("\"{VERSION}\""), &version, 1);
        body.extend_from_slice(event.as_bytes());
    }
    body.extend_from_slice(END.as_bytes());
    body.push(b'\n');
    body.into()
}

/// The metadata of the same Pod.
fn protobuf(count: usize) -> Bytes {
    let event = Bytes::from(pod_event("watch-protobuf", Encoding::Protobuf));
    let event = WatchEvent::decode(event.slice(4..)).unwrap();
    let envelope = event.object.unwrap().raw.unwrap();
    let envelope = Unknown::decode(&envelope[4..]).unwrap();
    let mut meta = Pod::decode(&*envelope.raw.unwrap())
        .unwrap()
        .metadata
        .unwrap();
    let mut body = Vec::new();
    for n in 0..count {
        meta.name = Some(format!("{NAME}-{n}"));
        meta.resource_version = Some((1000 + n).to_string());
        push(&mut body, "ADDED", meta.clone());
    }
    let end = Meta {
        resource_version: Some("99999".to_owned()),
        annotations: [("k8s.io/initial-events-end".to_owned(), "true".to_owned())].into(),
        ..Meta::default()
    };
    push(&mut body, "BOOKMARK", end);
    body.into()
}

fn push(body: &mut Vec<u8>, event_type: &str, metadata: Meta) {
    let metadata = Some(metadata);
    let unknown = Unknown {
        type_meta: Some(TypeMeta {
            api_version: Some("meta.k8s.io/v1".to_owned()),
            kind: Some("PartialObjectMetadata".to_owned()),
        }),
        raw: Some(PartialObjectMetadata { metadata }.encode_to_vec()),
        ..Unknown::default()
    };
    let raw = [&b"k8s\0"[..], &unknown.encode_to_vec()].concat();
    let event = WatchEvent {
        r#type: Some(event_type.to_owned()),
        object: Some(RawExtension { raw: Some(raw) }),
    };
    let event = event.encode_to_vec();
    body.extend_from_slice(&(event.len() as u32).to_be_bytes());
    body.extend_from_slice(&event);
}

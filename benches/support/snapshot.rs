#![allow(clippy::unwrap_used)]
//! What a watch for metadata begins with: out come the objects and the bookmark behind them.

use bytes::Bytes;
use k8s_pb::{
    api::core::v1::Pod,
    apimachinery::pkg::{
        apis::meta::v1::{ObjectMeta as Meta, PartialObjectMetadata, WatchEvent},
        runtime::{RawExtension, TypeMeta, Unknown},
    },
};
use prost::Message as _;

const NAME: &str = "box";
const VERSION: &str = "544";

const END: &str = r#"{"type":"BOOKMARK","object":{"kind":"PartialObjectMetadata","apiVersion":"meta.k8s.io/v1","metadata":{"resourceVersion":"99999","annotations":{"k8s.io/initial-events-end":"true"}}}}"#;

/// So many objects, made of this event.
pub(crate) fn json(event: &[u8], count: usize) -> Bytes {
    let event = String::from_utf8_lossy(event);
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

/// The metadata of so many Pods, made of this event with its length.
pub(crate) fn protobuf(event: &[u8], count: usize) -> Bytes {
    let event = WatchEvent::decode(&event[4..]).unwrap();
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

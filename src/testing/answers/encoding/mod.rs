//! Objects as bytes: in flow objects in JSON's terms, out come bodies and watch events in the
//! encoding that was negotiated.

mod cbor;
mod protobuf;

use std::io::Write as _;

use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
pub(crate) use protobuf::decode;
use serde_json::{Value, json};

use crate::{
    server::Refusal,
    wire::{status::Status, watch::Encoding},
};

/// What is sent: an object, a list or a Status.
#[derive(Debug, Clone)]
pub(crate) struct Document {
    /// For a list, without its items.
    pub(crate) json: Value,
    /// The protobuf message of an object that is more than its metadata, whatever that says about
    /// the metadata.
    pub(crate) message: Option<Bytes>,
    /// Those of a list.
    pub(crate) items: Option<Vec<Document>>,
    /// The name of its type, where its kind does not say.
    pub(crate) of: Option<&'static str>,
}

impl Document {
    /// An object, without a protobuf message of its own unless its kind implies one.
    pub(crate) fn object(json: Value) -> Self {
        Self {
            json,
            message: None,
            items: None,
            of: None,
        }
    }

    pub(crate) fn status(status: &Status) -> Self {
        let json = serde_json::from_slice(&status.to_json());
        Self::object(json.unwrap_or_default())
    }

    /// As a body of its own. It is refused if there is no message of the object.
    pub(crate) fn encode(self, encoding: Encoding) -> Result<Bytes, Refusal> {
        match encoding {
            Encoding::Protobuf => protobuf::envelope(&self).map(Bytes::from),
            Encoding::Cbor => Ok(cbor::encode(&self.into_json()).into()),
            Encoding::Json => Ok(format!("{}\n", self.into_json()).into()),
        }
    }

    /// As an event of a watch.
    pub(crate) fn encode_event(self, encoding: Encoding, event: &str) -> Result<Bytes, Refusal> {
        match encoding {
            Encoding::Protobuf => protobuf::event(event, &self).map(Bytes::from),
            Encoding::Cbor => {
                let event = json!({"type": event, "object": self.into_json()});
                Ok(cbor::encode_event(&event).into())
            }
            // The type comes first, as in `metav1.WatchEvent`.
            Encoding::Json => {
                let object = self.into_json();
                Ok(format!("{{\"type\":\"{event}\",\"object\":{object}}}\n").into())
            }
        }
    }

    fn into_json(self) -> Value {
        let mut json = self.json;
        if let Some(items) = self.items {
            let is_null = items.is_empty() && json["kind"] == "PartialObjectMetadataList";
            let items = items.into_iter().map(Self::into_json).collect();
            json["items"] = if is_null { Value::Null } else { items };
        }
        json
    }
}

/// A member of gzip with this in it, at the level of the API server
/// (`k8s.io/apiserver/pkg/endpoints/handlers/responsewriters/writers.go`).
pub(crate) fn gzip(bytes: &[u8]) -> Bytes {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::new(1));
    let written = encoder.write_all(bytes).and_then(|()| encoder.finish());
    written.expect("a vector takes all").into()
}

/// What the body of one object or list, or that of a watch, is called.
pub(crate) fn content_type(encoding: Encoding, is_watch: bool) -> &'static str {
    match encoding {
        Encoding::Protobuf if is_watch => "application/vnd.kubernetes.protobuf;stream=watch",
        Encoding::Cbor if is_watch => "application/cbor-seq",
        encoding => encoding.media_type(),
    }
}

#[cfg(test)]
#[path = "../../../../tests/common/capture.rs"]
#[allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "helpers of tests are tests"
)]
mod capture;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::watch::{Decoder, Event, Object};

    fn events(name: &str, encoding: Encoding) -> Vec<Event> {
        let mut decoder = Decoder::new(encoding);
        decoder.push(capture::body(name).into());
        let mut events = Vec::new();
        while let Some(event) = decoder.next_event().unwrap() {
            events.push(event);
        }
        assert!(!events.is_empty());
        events
    }

    /// The JSON and the protobuf capture are of the same pod.
    fn pod() -> (Value, Bytes) {
        let json = events("watch-json", Encoding::Json).remove(0).object;
        let protobuf = events("watch-protobuf", Encoding::Protobuf).remove(0);
        let message = protobuf.object.protobuf_message().unwrap().unwrap();
        (json.decode().unwrap(), message)
    }

    #[test]
    fn a_pod_in_protobuf_has_the_bytes_of_the_capture() {
        let (json, message) = pod();
        let document = Document {
            message: Some(message),
            ..Document::object(json)
        };
        let encoded = document.encode_event(Encoding::Protobuf, "ADDED").unwrap();
        let captured = capture::body("watch-protobuf");
        assert_eq!(encoded, captured[..encoded.len()]);
    }

    #[test]
    fn the_table_writes_and_reads_a_pod_with_the_bytes_of_the_capture() {
        let (json, _) = pod();
        let document = Document::object(json.clone());
        let encoded = document
            .clone()
            .encode_event(Encoding::Protobuf, "ADDED")
            .unwrap();
        let captured = capture::body("watch-protobuf");
        assert_eq!(encoded, captured[..encoded.len()]);
        let again = decode(&document.encode(Encoding::Protobuf).unwrap()).unwrap();
        let mut missing = Vec::new();
        compare(&json, &again, "", &mut missing);
        assert_eq!(missing, Vec::<String>::new());
    }

    /// What is there and not the same, but for what is empty and for nulls.
    fn compare(wanted: &Value, found: &Value, path: &str, missing: &mut Vec<String>) {
        match (wanted, found) {
            (Value::Object(wanted), found) if found.is_object() || wanted.is_empty() => {
                for (name, value) in wanted {
                    compare(value, &found[name], &format!("{path}.{name}"), missing);
                }
            }
            (Value::Array(wanted), Value::Array(found)) if wanted.len() == found.len() => {
                for (wanted, found) in wanted.iter().zip(found) {
                    compare(wanted, found, path, missing);
                }
            }
            (Value::Null | Value::Bool(false), Value::Null) => {}
            (wanted, found) if *wanted == 0 && found.is_null() => {}
            (wanted, found) if wanted == found => {}
            (wanted, found) => missing.push(format!("{path}: {wanted} {found}")),
        }
    }

    #[test]
    fn an_event_in_cbor_has_the_size_and_the_content_of_the_capture() {
        // The order in maps is random on purpose
        // (`k8s.io/apimachinery/pkg/runtime/serializer/cbor/internal/modes/encode.go`).
        let captured = capture::body("watch-cbor");
        let event = events("watch-cbor", Encoding::Cbor).remove(0);
        let json: Value = event.object.decode().unwrap();
        let document = Document::object(json.clone());
        let encoded = document
            .clone()
            .encode_event(Encoding::Cbor, "ADDED")
            .unwrap();
        assert_eq!(encoded.len(), captured.len());
        let again = Event::from_message(Encoding::Cbor, encoded).unwrap();
        assert_eq!(again.object.decode::<Value>().unwrap(), json);
        let alone = Object::new(Encoding::Cbor, document.encode(Encoding::Cbor).unwrap());
        assert_eq!(alone.decode::<Value>().unwrap(), json);
    }

    #[test]
    fn numbers_in_cbor_come_back_as_they_were() {
        let numbers = json!({
            "numbers": [0, 23, 24, 255, 256, 65_535, 65_536, 4_294_967_296_u64, u64::MAX, -1, -24,
                -25, -1_000_000, i64::MIN, 0.5, -1e300],
            "others": [null, true, false, "", [], {}],
        });
        let encoded = Document::object(numbers.clone()).encode(Encoding::Cbor);
        let object = Object::new(Encoding::Cbor, encoded.unwrap());
        assert_eq!(object.decode::<Value>().unwrap(), numbers);
    }

    /// Recorded from a 1.36 API server over `kubectl proxy`.
    #[test]
    fn statuses_bookmarks_and_empty_lists_have_the_api_server_s_bytes() {
        let expired = Status::failure(410, "Expired", "too old resource version: 1 (3310)");
        let event = Document::status(&expired).encode_event(Encoding::Protobuf, "ERROR");
        assert_eq!(
            event.unwrap(),
            &b"\x00\x00\x00d\n\x05ERROR\x12[\nYk8s\x00\n\x0c\n\x02v1\x12\x06Status\x12A\n\x06\n\x00\
               \x12\x00\x1a\x00\x12\x07Failure\x1a\"too old resource version: 1 (3310)\"\x07Expired\
               0\x9a\x03\x1a\x00\"\x00"[..]
        );
        let mut missing = Status::failure(404, "NotFound", "pods \"nopod\" not found");
        missing.details = Some(crate::wire::status::StatusDetails {
            name: "nopod".to_owned(),
            kind: "pods".to_owned(),
            ..Default::default()
        });
        assert_eq!(
            Document::status(&missing)
                .encode(Encoding::Protobuf)
                .unwrap(),
            &b"k8s\x00\n\x0c\n\x02v1\x12\x06Status\x12K\n\x06\n\x00\x12\x00\x1a\x00\x12\x07Failure\
               \x1a\x16pods \"nopod\" not found\"\x08NotFound*\x13\n\x05nopod\x12\x00\x1a\x04pods(\
               \x002\x000\x94\x03\x1a\x00\"\x00"[..]
        );
        let bookmark = Document::object(json!({
            "kind": "PartialObjectMetadata",
            "apiVersion": "meta.k8s.io/v1",
            "metadata": {
                "resourceVersion": "3390",
                "annotations": {"k8s.io/initial-events-end": "true"},
            },
        }));
        assert_eq!(
            bookmark
                .encode_event(Encoding::Protobuf, "BOOKMARK")
                .unwrap(),
            &b"\x00\x00\x00z\n\x08BOOKMARK\x12n\nlk8s\x00\n'\n\x0emeta.k8s.io/v1\x12\x15\
               PartialObjectMetadata\x129\n7\n\x00\x12\x00\x1a\x00\"\x00*\x002\x0433908\x00B\x00b!\
               \n\x19k8s.io/initial-events-end\x12\x04true\x1a\x00\"\x00"[..]
        );
        let empty = Document {
            items: Some(Vec::new()),
            ..Document::object(json!({
                "kind": "PodList", "apiVersion": "v1", "metadata": {"resourceVersion": "3390"},
            }))
        };
        assert_eq!(
            empty.encode(Encoding::Protobuf).unwrap(),
            &b"k8s\x00\n\r\n\x02v1\x12\x07PodList\x12\x0c\n\n\n\x00\x12\x043390\x1a\x00\x1a\x00\"\x00"[..]
        );
    }

    #[test]
    fn an_object_without_a_message_is_not_written_in_protobuf() {
        let thing = Document::object(json!({"kind": "Thing", "metadata": {"name": "a"}}));
        let refusal = thing.encode(Encoding::Protobuf).unwrap_err();
        let status = refusal.status().unwrap();
        assert_eq!((status.code, &*status.reason), (406, "NotAcceptable"));
    }
}

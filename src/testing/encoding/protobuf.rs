//! The protocol buffers of Kubernetes: the messages that every kind shares, and the envelope
//! around a message.
//!
//! The numbers of fields are those of the `generated.proto` files of `k8s.io/apimachinery`. As
//! gogo's generated code does, fields that are not pointers in Go are written even if empty.

use serde_json::Value;

use super::Document;
use crate::{
    server::Refusal,
    wire::{
        stamp::Stamp,
        status::Status,
        watch::{Fields, MAGIC},
    },
};

/// A message that is being written.
#[derive(Debug, Default)]
struct Message(Vec<u8>);

impl Message {
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push((value & 0x7f | 0x80) as u8);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    fn number(&mut self, field: u64, value: u64) {
        self.varint(field << 3);
        self.varint(value);
    }

    fn bytes(&mut self, field: u64, bytes: &[u8]) {
        self.varint(field << 3 | 2);
        self.varint(bytes.len() as u64);
        self.0.extend(bytes);
    }

    fn message(&mut self, field: u64, message: &Self) {
        self.bytes(field, &message.0);
    }

    /// Text that is written even if empty.
    fn text(&mut self, field: u64, value: &Value) {
        self.bytes(field, value.as_str().unwrap_or_default().as_bytes());
    }

    /// A number behind a pointer.
    fn optional_number(&mut self, field: u64, value: &Value) {
        if let Some(value) = value.as_i64() {
            self.number(field, value.cast_unsigned());
        }
    }

    /// A truth value behind a pointer.
    fn optional_bool(&mut self, field: u64, value: &Value) {
        if let Some(value) = value.as_bool() {
            self.number(field, value.into());
        }
    }

    /// `metav1.Time`: seconds = 1, nanos = 2; nothing at all for none.
    fn time(&mut self, field: u64, value: &Value) {
        let mut time = Self::default();
        let text = value.as_str().unwrap_or_default();
        if let Some(stamp) = Stamp::parse(text.as_bytes()) {
            time.number(1, stamp.unix_seconds().cast_unsigned());
            time.number(2, stamp.subsec_nanos().into());
        }
        self.message(field, &time);
    }

    /// A map of strings: an entry a field, key = 1, value = 2.
    fn map(&mut self, field: u64, value: &Value) {
        for (key, value) in value.as_object().into_iter().flatten() {
            let mut entry = Self::default();
            entry.bytes(1, key.as_bytes());
            entry.text(2, value);
            self.message(field, &entry);
        }
    }
}

/// `metav1.ObjectMeta`.
fn object_meta(json: &Value) -> Message {
    let mut meta = Message::default();
    meta.text(1, &json["name"]);
    meta.text(2, &json["generateName"]);
    meta.text(3, &json["namespace"]);
    meta.text(4, &json["selfLink"]);
    meta.text(5, &json["uid"]);
    meta.text(6, &json["resourceVersion"]);
    let generation = json["generation"].as_i64().unwrap_or_default();
    meta.number(7, generation.cast_unsigned());
    meta.time(8, &json["creationTimestamp"]);
    if !json["deletionTimestamp"].is_null() {
        meta.time(9, &json["deletionTimestamp"]);
    }
    meta.optional_number(10, &json["deletionGracePeriodSeconds"]);
    meta.map(11, &json["labels"]);
    meta.map(12, &json["annotations"]);
    for owner in json["ownerReferences"].as_array().into_iter().flatten() {
        meta.message(13, &owner_reference(owner));
    }
    for finalizer in json["finalizers"].as_array().into_iter().flatten() {
        meta.text(14, finalizer);
    }
    for entry in json["managedFields"].as_array().into_iter().flatten() {
        meta.message(17, &managed_fields_entry(entry));
    }
    meta
}

fn owner_reference(json: &Value) -> Message {
    let mut owner = Message::default();
    owner.text(1, &json["kind"]);
    owner.text(3, &json["name"]);
    owner.text(4, &json["uid"]);
    owner.text(5, &json["apiVersion"]);
    owner.optional_bool(6, &json["controller"]);
    owner.optional_bool(7, &json["blockOwnerDeletion"]);
    owner
}

fn managed_fields_entry(json: &Value) -> Message {
    let mut entry = Message::default();
    entry.text(1, &json["manager"]);
    entry.text(2, &json["operation"]);
    entry.text(3, &json["apiVersion"]);
    if !json["time"].is_null() {
        entry.time(4, &json["time"]);
    }
    entry.text(6, &json["fieldsType"]);
    if !json["fieldsV1"].is_null() {
        // `FieldsV1`: raw = 1, which is JSON.
        let mut fields = Message::default();
        fields.bytes(1, json["fieldsV1"].to_string().as_bytes());
        entry.message(7, &fields);
    }
    entry.text(8, &json["subresource"]);
    entry
}

/// `metav1.ListMeta`.
fn list_meta(json: &Value) -> Message {
    let mut meta = Message::default();
    meta.text(1, &json["selfLink"]);
    meta.text(2, &json["resourceVersion"]);
    meta.text(3, &json["continue"]);
    meta.optional_number(4, &json["remainingItemCount"]);
    meta
}

/// `metav1.Status`.
fn status(json: &Value) -> Message {
    let mut status = Message::default();
    status.message(1, &list_meta(&json["metadata"]));
    status.text(2, &json["status"]);
    status.text(3, &json["message"]);
    status.text(4, &json["reason"]);
    let details = &json["details"];
    if !details.is_null() {
        let mut message = Message::default();
        message.text(1, &details["name"]);
        message.text(2, &details["group"]);
        message.text(3, &details["kind"]);
        for json in details["causes"].as_array().into_iter().flatten() {
            let mut cause = Message::default();
            cause.text(1, &json["reason"]);
            cause.text(2, &json["message"]);
            cause.text(3, &json["field"]);
            message.message(4, &cause);
        }
        let seconds = details["retryAfterSeconds"].as_u64().unwrap_or_default();
        message.number(5, seconds);
        message.text(6, &details["uid"]);
        status.message(5, &message);
    }
    status.number(6, json["code"].as_u64().unwrap_or_default());
    status
}

/// The message of an object or a list.
fn message(document: &Document) -> Result<Message, Refusal> {
    let json = &document.json;
    let metadata = &json["metadata"];
    let mut message = Message::default();
    if let Some(items) = &document.items {
        // In every list: metadata = 1, items = 2.
        message.message(1, &list_meta(metadata));
        for item in items {
            message.message(2, &self::message(item)?);
        }
        return Ok(message);
    }
    let given = match (json["kind"].as_str(), &document.message) {
        (Some("Status"), _) => return Ok(status(json)),
        (Some("PartialObjectMetadata"), _) => &[][..],
        (_, Some(given)) => given,
        (kind, None) => {
            // `k8s.io/apimachinery/pkg/runtime/serializer/protobuf/protobuf.go`, errNotMarshalable.
            let text = format!(
                "object {} does not implement the protobuf marshalling interface and cannot be \
                 encoded to a protobuf message",
                kind.unwrap_or_default()
            );
            return Err(Refusal::new(Status::failure(406, "NotAcceptable", text)));
        }
    };
    // In every object: metadata = 1. It is the server's business, the rest is not.
    message.message(1, &object_meta(metadata));
    let mut fields = Fields::new(given);
    loop {
        let before = fields.rest();
        match fields.next() {
            Ok(Some((1, _))) => {}
            Ok(Some(_)) => {
                let len = before.len() - fields.rest().len();
                message.0.extend(&before[..len]);
            }
            Ok(None) => return Ok(message),
            Err(error) => {
                let status = Status::failure(500, "InternalError", error.to_string());
                return Err(Refusal::new(status));
            }
        }
    }
}

/// The magic number and a `runtime.Unknown`: typeMeta = 1, raw = 2, contentEncoding = 3,
/// contentType = 4.
pub(super) fn envelope(document: &Document) -> Result<Vec<u8>, Refusal> {
    let mut unknown = Message(MAGIC.to_vec());
    let mut type_meta = Message::default();
    type_meta.text(1, &document.json["apiVersion"]);
    type_meta.text(2, &document.json["kind"]);
    unknown.message(1, &type_meta);
    unknown.message(2, &message(document)?);
    unknown.bytes(3, b"");
    unknown.bytes(4, b"");
    Ok(unknown.0)
}

/// A `metav1.WatchEvent` behind its length: type = 1, object = 2, which is a
/// `runtime.RawExtension`: raw = 1.
pub(super) fn event(name: &str, document: &Document) -> Result<Vec<u8>, Refusal> {
    let mut object = Message::default();
    object.bytes(1, &envelope(document)?);
    let mut event = Message::default();
    event.bytes(1, name.as_bytes());
    event.message(2, &object);
    // `k8s.io/apimachinery/pkg/util/framer/framer.go`: length, big-endian.
    let len = u32::try_from(event.0.len()).unwrap_or(u32::MAX);
    let mut frame = len.to_be_bytes().to_vec();
    frame.append(&mut event.0);
    Ok(frame)
}

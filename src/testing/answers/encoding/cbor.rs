//! CBOR as API servers write it (KEP-4222): definite lengths, strings as byte strings, and what
//! stands for an object tagged as self-described.

use serde_json::{Number, Value};

use crate::wire::watch::put_head;

/// RFC 8949, section 3.4.6.
const SELF_DESCRIBED: [u8; 3] = [0xd9, 0xd9, 0xf7];

/// An object or a list as an item of its own.
pub(super) fn encode(value: &Value) -> Vec<u8> {
    let mut bytes = SELF_DESCRIBED.to_vec();
    write(value, &mut bytes);
    bytes
}

/// A `metav1.WatchEvent`; its object is a `runtime.RawExtension` and tagged as well.
pub(super) fn encode_event(event: &Value) -> Vec<u8> {
    let mut bytes = SELF_DESCRIBED.to_vec();
    let members = event.as_object().into_iter().flatten();
    put_head(5, members.clone().count() as u64, &mut bytes);
    for (name, value) in members {
        string(name, &mut bytes);
        if value.is_object() {
            bytes.extend(SELF_DESCRIBED);
        }
        write(value, &mut bytes);
    }
    bytes
}

fn write(value: &Value, bytes: &mut Vec<u8>) {
    match value {
        Value::Null => bytes.push(0xf6),
        Value::Bool(false) => bytes.push(0xf4),
        Value::Bool(true) => bytes.push(0xf5),
        Value::Number(value) => number(value, bytes),
        Value::String(text) => string(text, bytes),
        Value::Array(items) => {
            put_head(4, items.len() as u64, bytes);
            items.iter().for_each(|item| write(item, bytes));
        }
        Value::Object(members) => {
            put_head(5, members.len() as u64, bytes);
            for (name, value) in members {
                string(name, bytes);
                write(value, bytes);
            }
        }
    }
}

fn number(value: &Number, bytes: &mut Vec<u8>) {
    match (value.as_u64(), value.as_i64()) {
        (Some(value), _) => put_head(0, value, bytes),
        // RFC 8949, section 3.1: major type 1 is -1 - n.
        (None, Some(value)) => put_head(1, !value.cast_unsigned(), bytes),
        (None, None) => {
            bytes.push(0xfb);
            bytes.extend(value.as_f64().unwrap_or_default().to_be_bytes());
        }
    }
}

fn string(text: &str, bytes: &mut Vec<u8>) {
    put_head(2, text.len() as u64, bytes);
    bytes.extend(text.as_bytes());
}

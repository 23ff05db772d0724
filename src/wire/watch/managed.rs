//! Objects without their `metadata.managedFields`: in goes an object, out comes a copy of all
//! else, in the same encoding.

use bytes::{BufMut as _, BytesMut};

use super::{Encoding, EventError, Object, cbor, json, protobuf};

/// The name of the field.
const NAME: &[u8] = b"managedFields";
/// Its number in `ObjectMeta` (`k8s.io/apimachinery/pkg/apis/meta/v1/generated.proto`).
const NUMBER: u64 = 17;

impl Object {
    /// The object without its `metadata.managedFields`, in a buffer of its own; the object itself
    /// if it has none.
    ///
    /// They say which client set which field, for server-side apply; hardly anyone else reads
    /// them. In a typical Pod they are a third of the bytes, half of the cost of
    /// [`decode`](Self::decode) and much of the memory of what it makes. An update that is sent
    /// without them leaves them as they are
    /// (`k8s.io/apimachinery/pkg/util/managedfields/internal/fieldmanager.go`, `Update`).
    ///
    /// # Errors
    ///
    /// If the object is malformed on the way to the end of its metadata.
    pub fn without_managed_fields(&self) -> Result<Self, EventError> {
        let data = &*self.bytes;
        let mut kept = BytesMut::with_capacity(data.len());
        let found = match self.encoding {
            Encoding::Json => json_without(data, &mut kept)?,
            Encoding::Cbor => cbor_without(data, &mut kept)?,
            Encoding::Protobuf => protobuf_without(data, &mut kept)?,
        };
        if !found {
            return Ok(self.clone());
        }
        Ok(Self {
            encoding: self.encoding,
            bytes: kept.freeze(),
            of_list: self.of_list.clone(),
        })
    }
}

fn json_without(data: &[u8], kept: &mut BytesMut) -> Result<bool, EventError> {
    let mut members = json::Members::new(data)?;
    while let Some((name, value)) = members.next()? {
        if &*name != b"metadata" {
            continue;
        }
        let metadata = data.len() - value.len();
        let mut members = json::Members::new(value)?;
        while let Some((name, field)) = members.next()? {
            if &*name != NAME {
                continue;
            }
            let start = metadata + members.start();
            let mut end = data.len() - field.len() + json::skip_value(field)?;
            // One comma goes with it: the one before, or for the first member the one behind.
            if data[start] != b',' {
                let behind = json::skip_space(data, end);
                if data.get(behind) == Some(&b',') {
                    end = behind + 1;
                }
            }
            kept.put_slice(&data[..start]);
            kept.put_slice(&data[end..]);
            return Ok(true);
        }
        return Ok(false);
    }
    Ok(false)
}

fn cbor_without(data: &[u8], kept: &mut BytesMut) -> Result<bool, EventError> {
    let mut entries = cbor::Entries::new(data)?;
    while let Some((key, value)) = entries.next()? {
        if key != b"metadata" {
            continue;
        }
        let map = cbor::untag(value)?;
        let head = cbor::head(map)?;
        let first = data.len() - map.len() + head.len;
        let mut at = first;
        let mut entries = cbor::Entries::new(map)?;
        while let Some((key, value)) = entries.next()? {
            let end = data.len() - value.len() + cbor::skip(value)?;
            if key == NAME {
                kept.put_slice(&data[..first - head.len]);
                cbor::put_head(5, head.argument - 1, kept);
                kept.put_slice(&data[first..at]);
                kept.put_slice(&data[end..]);
                return Ok(true);
            }
            at = end;
        }
        return Ok(false);
    }
    Ok(false)
}

fn protobuf_without(data: &[u8], kept: &mut BytesMut) -> Result<bool, EventError> {
    let mut found = false;
    let mut metadata = |metadata: &[u8], kept: &mut BytesMut| {
        rewrite(metadata, NUMBER, kept, |_, _, _| {
            found = true;
            Ok(())
        })
    };
    // Field 1 is the metadata in every object.
    let mut message = |message: &[u8], kept: &mut BytesMut| {
        rewrite(message, 1, kept, |number, field, kept| {
            nested(number, field, kept, &mut metadata)
        })
    };
    match data.strip_prefix(protobuf::MAGIC) {
        // runtime.Unknown: raw = 2.
        Some(unknown) => {
            kept.put_slice(protobuf::MAGIC);
            rewrite(unknown, 2, kept, |number, field, kept| {
                nested(number, field, kept, &mut message)
            })?;
        }
        None => message(data, kept)?,
    }
    Ok(found)
}

/// Copies the fields of a message, and leaves those of one number to `each`.
fn rewrite(
    message: &[u8],
    number: u64,
    kept: &mut BytesMut,
    mut each: impl FnMut(u64, &[u8], &mut BytesMut) -> Result<(), EventError>,
) -> Result<(), EventError> {
    let mut fields = protobuf::Fields::new(message);
    loop {
        let before = fields.rest();
        let Some((found, value)) = fields.next()? else {
            return Ok(());
        };
        match found == number {
            true => each(number, value.bytes()?, kept)?,
            false => kept.put_slice(&before[..before.len() - fields.rest().len()]),
        }
    }
}

/// Writes a field that is a message, as `inner` makes it.
fn nested(
    number: u64,
    field: &[u8],
    kept: &mut BytesMut,
    inner: &mut impl FnMut(&[u8], &mut BytesMut) -> Result<(), EventError>,
) -> Result<(), EventError> {
    let mut rewritten = BytesMut::with_capacity(field.len());
    inner(field, &mut rewritten)?;
    // Wire type 2: a length, then so many bytes.
    protobuf::put_varint(number << 3 | 2, kept);
    protobuf::put_varint(rewritten.len() as u64, kept);
    kept.put_slice(&rewritten);
    Ok(())
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use serde_json::{Value, json};

    use super::*;

    fn stripped(text: &str) -> String {
        let object = Object::new(Encoding::Json, Bytes::copy_from_slice(text.as_bytes()));
        let object = object.without_managed_fields().unwrap();
        String::from_utf8(object.bytes().unwrap().to_vec()).unwrap()
    }

    #[test]
    fn the_field_goes_with_one_comma_wherever_it_stands() {
        for (before, after) in [
            (
                r#"{"metadata":{"managedFields":[{"a":"}"}]}}"#,
                r#"{"metadata":{}}"#,
            ),
            (
                r#"{"metadata":{"managedFields":[] , "name":"x"},"spec":{}}"#,
                r#"{"metadata":{ "name":"x"},"spec":{}}"#,
            ),
            (
                r#"{"metadata":{"name":"x","managedFields":[1],"uid":"u"}}"#,
                r#"{"metadata":{"name":"x","uid":"u"}}"#,
            ),
            (
                r#"{"metadata":{"name":"x" , "managedFields" : null } }"#,
                r#"{"metadata":{"name":"x"  } }"#,
            ),
            // Only the one of the metadata.
            (
                r#"{"spec":{"managedFields":1},"metadata":{"name":"x"}}"#,
                r#"{"spec":{"managedFields":1},"metadata":{"name":"x"}}"#,
            ),
            (r#"{"kind":"Pod"}"#, r#"{"kind":"Pod"}"#),
        ] {
            assert_eq!(stripped(before), after);
            serde_json::from_str::<Value>(after).unwrap();
        }
    }

    #[test]
    fn what_is_cut_is_an_error_and_no_panic() {
        let text = br#"{"metadata":{"name":"x","managedFields":[1,"a"]}}"#;
        for end in 0..text.len() - 2 {
            let object = Object::new(Encoding::Json, Bytes::copy_from_slice(&text[..end]));
            assert!(object.without_managed_fields().is_err(), "cut at {end}");
        }
    }

    #[test]
    fn cbor_maps_say_one_entry_less() {
        // {"metadata": {24 entries}}: the shorter head of 23.
        let mut data = vec![0xa1];
        let text = |text: &str, data: &mut Vec<u8>| {
            data.push(0x60 | text.len() as u8);
            data.extend_from_slice(text.as_bytes());
        };
        text("metadata", &mut data);
        data.extend([0xb8, 24]);
        for n in 0..23 {
            text(&format!("k{n}"), &mut data);
            data.push(n);
        }
        text("managedFields", &mut data);
        data.extend([0x81, 0xa0]);
        let object = Object::new(Encoding::Cbor, data.into());
        let stripped = object.without_managed_fields().unwrap();
        assert_eq!(stripped.bytes().unwrap()[10], 0xa0 | 23);
        let value: Value = stripped.decode().unwrap();
        assert_eq!(value["metadata"].as_object().unwrap().len(), 23);
        assert_eq!(value["metadata"]["k22"], json!(22));
    }

    #[test]
    fn protobuf_messages_are_as_long_as_they_say() {
        // metadata = 1 { name = 1 "x", managedFields = 17 twice, labels = 11 }, spec = 2.
        let metadata = b"\x0a\x01x\x8a\x01\x02ab\x8a\x01\x00\x5a\x00";
        let mut message = vec![0x0a, metadata.len() as u8];
        message.extend_from_slice(metadata);
        message.extend_from_slice(b"\x12\x03xyz");
        let expected = b"\x0a\x05\x0a\x01x\x5a\x00\x12\x03xyz";
        let bare = Object::new(Encoding::Protobuf, message.clone().into());
        let bare = bare.without_managed_fields().unwrap();
        assert_eq!(&bare.bytes().unwrap()[..], expected);

        let mut unknown = b"k8s\0\x0a\x00\x12".to_vec();
        unknown.push(message.len() as u8);
        unknown.extend_from_slice(&message);
        unknown.extend_from_slice(b"\x1a\x00");
        let object = Object::new(Encoding::Protobuf, unknown.into());
        let object = object.without_managed_fields().unwrap();
        assert_eq!(&object.protobuf_message().unwrap().unwrap()[..], expected);
        assert!(object.bytes().unwrap().ends_with(b"\x1a\x00"));
    }
}

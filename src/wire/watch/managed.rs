//! Objects without their `metadata.managedFields`: in goes an object, out comes a copy of all
//! else, in the same encoding.

use bytes::{BufMut as _, BytesMut};

use super::{
    Encoding, EventError, Object, cbor,
    cursor::{MANAGED_FIELDS, METADATA, Members, Value},
    protobuf,
};

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
    /// If the object is malformed on the way to the end of its `managedFields`, or of its metadata if
    /// it has none.
    pub fn without_managed_fields(&self) -> Result<Self, EventError> {
        let envelope = protobuf::Envelope::open(self.encoding, &self.bytes)?;
        let mut members = Members::new(self.encoding, envelope.message)?;
        while let Some((key, value)) = members.next()? {
            if key.is(METADATA) {
                return self.without(value);
            }
        }
        Ok(self.clone())
    }

    fn without(&self, metadata: Value<'_>) -> Result<Self, EventError> {
        let mut edits = Vec::new();
        let mut members = metadata.members()?;
        while let Some((key, value)) = members.next()? {
            if key.is(MANAGED_FIELDS) {
                edits.push((members.span(value)?, BytesMut::new()));
                // In protobuf a list is its field again and again.
                if self.encoding != Encoding::Protobuf {
                    break;
                }
            }
        }
        if edits.is_empty() {
            return Ok(self.clone());
        }
        match self.encoding {
            Encoding::Json => {}
            Encoding::Cbor => {
                let map = cbor::untag(metadata.data())?;
                let head = cbor::head(map)?;
                let mut fewer = BytesMut::new();
                cbor::put_head(5, head.argument - 1, &mut fewer);
                edits.insert(0, (&map[..head.len], fewer));
            }
            Encoding::Protobuf => {
                let mut less: usize = edits.iter().map(|(cut, _)| cut.len()).sum();
                let raw = protobuf::Envelope::open(self.encoding, &self.bytes)?.raw;
                for (number, field) in [(METADATA.1, metadata.data()), (2, raw)] {
                    if let Some((_, message)) = protobuf::Fields::new(field).next()? {
                        let message = message.bytes()?;
                        let before = &field[..offset(field, message)];
                        let mut head = BytesMut::new();
                        // Wire type 2: a length, then so many bytes.
                        protobuf::put_varint(number << 3 | 2, &mut head);
                        protobuf::put_varint((message.len() - less) as u64, &mut head);
                        // A head may be longer than it need be, never shorter.
                        less += before.len() - head.len();
                        edits.insert(0, (before, head));
                    }
                }
            }
        }
        let mut kept = BytesMut::with_capacity(self.bytes.len());
        let mut at = 0;
        for (cut, instead) in edits {
            let start = offset(&self.bytes, cut);
            kept.put_slice(&self.bytes[at..start]);
            kept.put_slice(&instead);
            at = start + cut.len();
        }
        kept.put_slice(&self.bytes[at..]);
        Ok(Self {
            encoding: self.encoding,
            bytes: kept.freeze(),
            of_list: self.of_list.clone(),
        })
    }
}

/// Where in `whole` its part begins.
fn offset(whole: &[u8], part: &[u8]) -> usize {
    part.as_ptr().addr() - whole.as_ptr().addr()
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
            (r#" {"kind":"Pod"} "#, r#"{"kind":"Pod"}"#),
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

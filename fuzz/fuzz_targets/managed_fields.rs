//! Without its managedFields an object is what serde_json makes of it with that member taken out,
//! and what is left is a slice or a copy of what was there. The first byte chooses the encoding;
//! where that is not JSON, only what can be asked of the bytes is.
#![no_main]

use std::fmt;

use bytes::Bytes;
use kubewire::wire::watch::{Encoding, Object};
use libfuzzer_sys::fuzz_target;
use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

/// JSON in which no object has two members of a name: readers disagree about which of them counts.
struct Unambiguous;

impl<'de> Deserialize<'de> for Unambiguous {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;
        impl<'de> Visitor<'de> for Any {
            type Value = Unambiguous;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("JSON")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Unambiguous, A::Error> {
                let mut names = std::collections::HashSet::new();
                while let Some(name) = map.next_key::<String>()? {
                    if !names.insert(name) {
                        return Err(A::Error::custom("twice"));
                    }
                    map.next_value::<Unambiguous>()?;
                }
                Ok(Unambiguous)
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Unambiguous, A::Error> {
                while seq.next_element::<Unambiguous>()?.is_some() {}
                Ok(Unambiguous)
            }
            fn visit_unit<E>(self) -> Result<Unambiguous, E> {
                Ok(Unambiguous)
            }
            fn visit_bool<E>(self, _: bool) -> Result<Unambiguous, E> {
                Ok(Unambiguous)
            }
            fn visit_i64<E>(self, _: i64) -> Result<Unambiguous, E> {
                Ok(Unambiguous)
            }
            fn visit_u64<E>(self, _: u64) -> Result<Unambiguous, E> {
                Ok(Unambiguous)
            }
            fn visit_f64<E>(self, _: f64) -> Result<Unambiguous, E> {
                Ok(Unambiguous)
            }
            fn visit_str<E>(self, _: &str) -> Result<Unambiguous, E> {
                Ok(Unambiguous)
            }
        }
        deserializer.deserialize_any(Any)
    }
}

fuzz_target!(|data: &[u8]| {
    let Some((&encoding, body)) = data.split_first() else {
        return;
    };
    let encoding = match encoding % 3 {
        0 => Encoding::Json,
        1 => Encoding::Protobuf,
        _ => Encoding::Cbor,
    };
    let object = Object::new(encoding, Bytes::copy_from_slice(body));
    let stripped = object.without_managed_fields();
    if encoding != Encoding::Json || serde_json::from_slice::<Unambiguous>(body).is_err() {
        return;
    }
    let Ok(mut value) = serde_json::from_slice::<Value>(body) else {
        return;
    };
    let Value::Object(members) = &mut value else {
        return;
    };
    match members.get_mut("metadata") {
        None => {}
        Some(Value::Object(metadata)) => drop(metadata.remove("managedFields")),
        // It may be refused.
        Some(_) => return,
    }
    let stripped = stripped.expect("JSON that can be parsed can be read");
    let left = stripped.decode::<Value>().expect("what is left can be parsed");
    assert_eq!(left, value);
    // There are none left.
    let again = stripped.without_managed_fields().expect("as readable as before");
    assert_eq!(again.bytes().ok(), stripped.bytes().ok());
    assert!(again.bytes().is_ok_and(|after| after.len() <= body.len()));
});

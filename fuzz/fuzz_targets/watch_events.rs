//! Any bytes are events or an error, in all three encodings; and where an object can be parsed,
//! the metadata read lazily is that of the parse. The first byte chooses the encoding, the second
//! the size of chunks.
#![no_main]

use std::fmt;

use bytes::Bytes;
use kubewire::wire::watch::{Decoder, Encoding, Event, ListDecoder, Object};
use libfuzzer_sys::fuzz_target;
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::Value;

/// Of members with the same name the first, as the lazy reader finds it.
#[derive(Debug, Default, PartialEq)]
struct Parsed {
    kind: Option<String>,
    metadata: Option<Metadata>,
}

#[derive(Debug, Default, PartialEq)]
struct Metadata {
    name: Option<String>,
    resource_version: Option<String>,
    generation: Option<i64>,
}

macro_rules! first_wins {
    ($type:ident, $($name:literal => $field:ident),*) => {
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Members;
                impl<'de> Visitor<'de> for Members {
                    type Value = $type;
                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str("an object")
                    }
                    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<$type, A::Error> {
                        let mut found = <$type>::default();
                        while let Some(name) = map.next_key::<String>()? {
                            match name.as_str() {
                                $($name if found.$field.is_none() => {
                                    found.$field = Some(map.next_value()?);
                                })*
                                _ => drop(map.next_value::<IgnoredAny>()?),
                            }
                        }
                        Ok(found)
                    }
                }
                deserializer.deserialize_map(Members)
            }
        }
    };
}

first_wins!(Parsed, "kind" => kind, "metadata" => metadata);
first_wins!(Metadata, "name" => name, "resourceVersion" => resource_version, "generation" => generation);

fn check(object: &Object) {
    let lazy = object.metadata();
    if let Ok(metadata) = &lazy {
        let _ = (metadata.api_version(), metadata.uid(), metadata.namespace());
        let _ = metadata.annotations().map(|all| all.count());
        let _ = (metadata.labels().map(|all| all.count()), metadata.deletion_timestamp());
    }
    let _ = (object.status(), object.bytes(), object.protobuf_message());
    // What a type does not name is passed over, valid or not; a value takes all.
    if object.decode::<Value>().is_err() {
        return;
    }
    let Ok(parsed) = object.decode::<Parsed>() else {
        return;
    };
    let stripped = object.without_managed_fields().expect("what can be parsed can be read");
    let kept = stripped.decode::<Parsed>().expect("what is left can be parsed");
    assert_eq!(parsed, kept);
    let lazy = lazy.expect("what can be parsed can be read");
    assert_eq!(lazy.kind().unwrap(), parsed.kind.unwrap_or_default());
    let Some(metadata) = parsed.metadata else {
        return;
    };
    assert_eq!(lazy.name().unwrap(), metadata.name.unwrap_or_default());
    assert_eq!(
        lazy.resource_version().unwrap(),
        metadata.resource_version.unwrap_or_default()
    );
    assert_eq!(lazy.generation().unwrap(), metadata.generation.unwrap_or_default());
}

fuzz_target!(|data: &[u8]| {
    let [encoding, chunk, body @ ..] = data else {
        return;
    };
    let encoding = match encoding % 3 {
        0 => Encoding::Json,
        1 => Encoding::Protobuf,
        _ => Encoding::Cbor,
    };
    let mut decoder = Decoder::with_bound(encoding, 4096);
    'body: for chunk in body.chunks(usize::from(*chunk).max(1)) {
        decoder.push(Bytes::copy_from_slice(chunk));
        loop {
            match decoder.next_event() {
                Ok(Some(event)) => check(&event.object),
                Ok(None) => break,
                Err(_) => break 'body,
            }
        }
        assert!(decoder.buffered() <= 4096 + 4 + 255);
    }
    let _ = decoder.finish();
    let body = Bytes::copy_from_slice(body);
    if let Ok(event) = Event::from_message(encoding, body.clone()) {
        check(&event.object);
    }
    check(&Object::new(encoding, body.clone()));
    let mut list = ListDecoder::with_bounds(encoding, 4096, 4096);
    for chunk in body.chunks(usize::from(*chunk).max(1)) {
        list.push(body.slice_ref(chunk));
        while let Ok(Some(object)) = list.next_item() {
            check(&object);
        }
        assert!(list.buffered() <= 2 * 4096 + 255);
    }
    let _ = list.finish();
    while let Ok(Some(object)) = list.next_item() {
        check(&object);
    }
});

//! Bodies of requests: in flow bytes and their media type, out come objects.

use std::{cell::RefCell, fmt};

use bytes::Bytes;
use http::{Request, header::CONTENT_TYPE};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::body::Incoming;
use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

use crate::{server::Refusal, wire::status::Status};

/// Bytes of a request's body: `k8s.io/apiserver/pkg/server/config.go`, `MaxRequestBodyBytes`.
const BODY: usize = 3 << 20;

const JSON: &str = "application/json";
const YAML: &str = "application/yaml";
const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";
pub(super) const JSON_PATCH: &str = "application/json-patch+json";
pub(super) const MERGE_PATCH: &str = "application/merge-patch+json";
pub(super) const STRATEGIC_PATCH: &str = "application/strategic-merge-patch+json";
pub(super) const APPLY_PATCH: &str = "application/apply-patch+yaml";

/// The media type of a body without its parameters; JSON if there is none.
pub(super) fn media<B>(request: &Request<B>) -> String {
    let media = request.headers().get(CONTENT_TYPE);
    let media = media
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    match media.split(';').next().unwrap_or_default().trim() {
        "" => JSON.to_owned(),
        media => media.to_lowercase(),
    }
}

/// The whole body.
pub(super) async fn read(request: &mut Request<Incoming>) -> Result<Bytes, Refusal> {
    let body = Limited::new(request.body_mut(), BODY).collect().await;
    let body = body.map_err(|error| match error.is::<LengthLimitError>() {
        true => {
            let message = format!("Request entity too large: limit is {BODY}");
            Refusal::new(Status::failure(413, "RequestEntityTooLarge", message))
        }
        false => Refusal::bad_request(format!("the request cannot be read: {error}")),
    })?;
    Ok(body.to_bytes())
}

/// The refusal of a media type (`endpoints/handlers/negotiation/errors.go`).
pub(super) fn unsupported(known: &[&str]) -> Refusal {
    let message = format!(
        "the body of the request was in an unknown format - accepted media types include: {}",
        known.join(", ")
    );
    Refusal::new(Status::failure(415, "UnsupportedMediaType", message))
}

/// Reads an object.
pub(super) fn object(media: &str, body: &[u8]) -> Result<Value, Refusal> {
    match media {
        JSON => json(body),
        YAML => yaml(body),
        PROTOBUF => super::encoding::decode(body),
        _ => Err(unsupported(&[JSON, YAML, PROTOBUF])),
    }
}

/// Reads an object in YAML, of which JSON is a part.
pub(super) fn yaml(body: &[u8]) -> Result<Value, Refusal> {
    let text = std::str::from_utf8(body).map_err(bad)?;
    let value: Value = serde_saphyr::from_str(text).map_err(bad)?;
    object_of(value)
}

/// Reads a merge patch or a strategic one.
pub(super) fn patch(body: &[u8]) -> Result<Value, Refusal> {
    let bad = |why: String| Refusal::bad_request(format!("error decoding patch: {why}"));
    let patch: Value = serde_json::from_slice(body).map_err(|error| bad(error.to_string()))?;
    match patch.is_object() {
        true => Ok(patch),
        false => Err(bad(format!(
            "json: cannot unmarshal {} into Go value of type map[string]interface {{}}",
            super::schema::type_of(&patch)
        ))),
    }
}

pub(super) fn json(body: &[u8]) -> Result<Value, Refusal> {
    object_of(serde_json::from_slice(body).map_err(bad)?)
}

fn bad(error: impl fmt::Display) -> Refusal {
    Refusal::bad_request(format!("the object provided is unrecognized: {error}"))
}

fn object_of(value: Value) -> Result<Value, Refusal> {
    match value {
        Value::Object(_) => Ok(value),
        Value::Null => Ok(Value::Object(serde_json::Map::new())),
        _ => Err(bad("it is no object")),
    }
}

/// The fields that a JSON text names twice, as strict decoding reports them.
pub(super) fn duplicates(body: &[u8]) -> Vec<String> {
    let found = RefCell::new(Vec::new());
    let seed = Duplicates {
        path: String::new(),
        found: &found,
    };
    // What is no JSON has been refused before.
    let _ = seed.deserialize(&mut serde_json::Deserializer::from_slice(body));
    found.into_inner()
}

struct Duplicates<'a> {
    path: String,
    found: &'a RefCell<Vec<String>>,
}

impl<'de> DeserializeSeed<'de> for Duplicates<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

macro_rules! scalars {
    ($($visit:ident: $of:ty),+) => {
        $(fn $visit<E>(self, _: $of) -> Result<(), E> {
            Ok(())
        })+
    };
}

impl<'de> Visitor<'de> for Duplicates<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut known = Vec::new();
        while let Some(name) = map.next_key::<String>()? {
            let path = match &*self.path {
                "" => name.clone(),
                path => format!("{path}.{name}"),
            };
            if known.contains(&name) {
                self.found.borrow_mut().push(path.clone());
            }
            known.push(name);
            map.next_value_seed(Duplicates {
                path,
                found: self.found,
            })?;
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        let mut at = 0;
        let next = |at: usize| Duplicates {
            path: format!("{}[{at}]", self.path),
            found: self.found,
        };
        while items.next_element_seed(next(at))?.is_some() {
            at += 1;
        }
        Ok(())
    }

    scalars!(visit_bool: bool, visit_i64: i64, visit_u64: u64, visit_f64: f64, visit_str: &str);

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
}

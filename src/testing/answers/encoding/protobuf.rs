//! The protocol buffers of Kubernetes: in flow objects in JSON's terms, out come messages, and the
//! other way around, by the table of types.
//!
//! As gogo's generated code does, fields that are no pointers in Go are written even if empty, in
//! the order of their numbers. What a message has and the table has not is dropped, as by the API
//! server.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Map, Value, json};

use super::Document;
use crate::{
    server::Refusal,
    testing::{
        kinds::types::{self, Field, Of, Shape},
        requests::target::not_implemented,
        values::{
            json::{items, map, members, text},
            quantity,
        },
    },
    wire::{
        stamp::Stamp,
        status::Status,
        watch::{Fields, MAGIC, Raw, put_varint},
    },
};

#[derive(Debug, Default)]
struct Message(Vec<u8>);

impl Message {
    fn number(&mut self, field: u64, value: i64) {
        put_varint(field << 3, &mut self.0);
        put_varint(value.cast_unsigned(), &mut self.0);
    }

    fn bytes(&mut self, field: u64, bytes: &[u8]) {
        put_varint(field << 3 | 2, &mut self.0);
        put_varint(bytes.len() as u64, &mut self.0);
        self.0.extend(bytes);
    }

    /// An object of a type of the table.
    fn object(name: &str, json: &Value) -> Self {
        let mut message = Self::default();
        let mut fields: Vec<_> = types::fields(name).iter().collect();
        fields.sort_by_key(|field| field.number);
        for field in fields {
            let own = &json[field.name];
            let value = if field.is_inline() { json } else { own };
            match field.shape {
                Shape::One if value.is_null() && field.is_pointer() => {}
                Shape::One => message.value(field.number, field, value),
                Shape::List => items(value).for_each(|one| message.value(field.number, field, one)),
                // An entry a field: key = 1, value = 2.
                Shape::Map => members(value).for_each(|(key, value)| {
                    let mut entry = Self::default();
                    entry.bytes(1, key.as_bytes());
                    entry.value(2, field, value);
                    message.bytes(field.number, &entry.0);
                }),
            }
        }
        message
    }

    fn value(&mut self, number: u64, field: &Field, value: &Value) {
        let of = match &field.of {
            Of::Type(name) => return self.bytes(number, &Self::object(name, value).0),
            Of::Scalar(of) => *of,
        };
        let mut inner = Self::default();
        match of {
            'b' => return self.number(number, value.as_bool().unwrap_or_default().into()),
            'i' | 'l' => return self.number(number, value.as_i64().unwrap_or_default()),
            'd' => {
                put_varint(number << 3 | 1, &mut self.0);
                return self
                    .0
                    .extend(value.as_f64().unwrap_or_default().to_le_bytes());
            }
            's' => return self.bytes(number, text(value).as_bytes()),
            'y' => return self.bytes(number, &STANDARD.decode(text(value)).unwrap_or_default()),
            // seconds = 1, nanos = 2; nothing at all for none.
            'T' | 'M' => {
                if let Some(stamp) = Stamp::parse(text(value).as_bytes()) {
                    inner.number(1, stamp.unix_seconds());
                    inner.number(2, stamp.subsec_nanos().into());
                }
            }
            // type = 1, intVal = 2, strVal = 3.
            'I' => {
                inner.number(1, value.is_string().into());
                inner.number(2, value.as_i64().unwrap_or_default());
                inner.bytes(3, text(value).as_bytes());
            }
            'Q' => inner.bytes(1, quantity::spelled(value).as_bytes()),
            'X' => items(value).for_each(|item| inner.bytes(1, text(item).as_bytes())),
            // raw = 1, which is JSON.
            _ if value.is_null() => {}
            _ => inner.bytes(1, value.to_string().as_bytes()),
        }
        self.bytes(number, &inner.0);
    }
}

fn message(document: &Document) -> Result<Message, Refusal> {
    let json = &document.json;
    if let Some(items) = &document.items {
        // In every list: metadata = 1, items = 2.
        let mut message = Message::default();
        message.bytes(1, &Message::object(LIST_META, &json["metadata"]).0);
        for item in items {
            message.bytes(2, &self::message(item)?.0);
        }
        return Ok(message);
    }
    let (version, kind) = (text(&json["apiVersion"]), text(&json["kind"]));
    let known = match kind {
        "PartialObjectMetadata" | "Status" => Some("meta.k8s.io/v1"),
        _ => None,
    };
    if let Some(given) = &document.message {
        // In every object: metadata = 1. It is the server's business, the rest is not.
        let mut message = Message::default();
        message.bytes(1, &Message::object(OBJECT_META, &json["metadata"]).0);
        let mut fields = Fields::new(given);
        loop {
            let before = fields.rest();
            match fields
                .next()
                .map_err(|_| broken("a message that the test gave"))?
            {
                Some((1, _)) => {}
                Some(_) => message
                    .0
                    .extend(&before[..before.len() - fields.rest().len()]),
                None => return Ok(message),
            }
        }
    }
    match document
        .of
        .or_else(|| types::name(known.unwrap_or(version), kind))
    {
        Some(name) => Ok(Message::object(name, json)),
        None => Err(Refusal::new(Status::failure(
            406,
            "NotAcceptable",
            // `k8s.io/apimachinery/pkg/runtime/serializer/protobuf/protobuf.go`, errNotMarshalable.
            format!(
                "object {kind} does not implement the protobuf marshalling interface and cannot be \
                 encoded to a protobuf message"
            ),
        ))),
    }
}

const OBJECT_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";
const LIST_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ListMeta";

/// The magic number and a `runtime.Unknown`: typeMeta = 1, raw = 2, contentEncoding = 3,
/// contentType = 4.
pub(super) fn envelope(document: &Document) -> Result<Vec<u8>, Refusal> {
    let mut unknown = Message(MAGIC.to_vec());
    let mut type_meta = Message::default();
    type_meta.bytes(1, text(&document.json["apiVersion"]).as_bytes());
    type_meta.bytes(2, text(&document.json["kind"]).as_bytes());
    unknown.bytes(1, &type_meta.0);
    unknown.bytes(2, &message(document)?.0);
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
    event.bytes(2, &object.0);
    // `k8s.io/apimachinery/pkg/util/framer/framer.go`: length, big-endian.
    let len = u32::try_from(event.0.len()).unwrap_or(u32::MAX);
    let mut frame = len.to_be_bytes().to_vec();
    frame.append(&mut event.0);
    Ok(frame)
}

fn broken(what: &str) -> Refusal {
    Refusal::bad_request(format!("{what} is no message of Kubernetes in protobuf"))
}

fn bad() -> Refusal {
    broken("the body of the request")
}

/// The fields of a message, to its end.
fn fields(bytes: &[u8]) -> impl Iterator<Item = Result<(u64, Raw<'_>), Refusal>> {
    let mut fields = Fields::new(bytes);
    let mut failed = false;
    std::iter::from_fn(move || {
        let next = (!failed).then(|| fields.next().map_err(|_| bad()).transpose())??;
        failed = next.is_err();
        Some(next)
    })
}

fn utf8(raw: Raw<'_>) -> Result<&str, Refusal> {
    match raw {
        Raw::Bytes(bytes) => std::str::from_utf8(bytes).map_err(|_| bad()),
        Raw::Number(_) => Err(bad()),
    }
}

/// Reads an object behind the magic number.
pub(crate) fn decode(body: &[u8]) -> Result<Value, Refusal> {
    let (mut api_version, mut kind, mut raw) = ("", "", &[][..]);
    for field in fields(body.strip_prefix(MAGIC).ok_or_else(bad)?) {
        match field? {
            (1, Raw::Bytes(type_meta)) => {
                for field in fields(type_meta) {
                    match field? {
                        (1, text) => api_version = utf8(text)?,
                        (2, text) => kind = utf8(text)?,
                        _ => {}
                    }
                }
            }
            (2, Raw::Bytes(message)) => raw = message,
            _ => {}
        }
    }
    let name = types::name(api_version, kind).or_else(|| {
        // `DeleteOptions` come in the version of their resource.
        types::name("v1", kind).filter(|_| kind == "DeleteOptions")
    });
    let name = name.ok_or_else(|| not_implemented(format!("{kind} in protobuf; send JSON")))?;
    let mut object = Map::new();
    read(name, raw, &mut object, 0)?;
    object.insert("apiVersion".to_owned(), api_version.into());
    object.insert("kind".to_owned(), kind.into());
    Ok(Value::Object(object))
}

/// Messages within messages: as for JSON, whose limit is serde's.
const DEPTH: usize = 128;

fn read(
    name: &str,
    bytes: &[u8],
    object: &mut Map<String, Value>,
    depth: usize,
) -> Result<(), Refusal> {
    if depth > DEPTH {
        return Err(bad());
    }
    for next in fields(bytes) {
        let (number, raw) = next?;
        let Some(field) = types::fields(name)
            .iter()
            .find(|field| field.number == number)
        else {
            continue;
        };
        match (field.shape, &field.of, raw) {
            (_, Of::Type(inner), Raw::Bytes(bytes)) if field.is_inline() => {
                read(inner, bytes, object, depth + 1)?;
            }
            (Shape::List, ..) => {
                let list = object.entry(field.name).or_insert_with(|| json!([]));
                if let Some(list) = list.as_array_mut() {
                    list.push(value(field, raw, depth)?);
                }
            }
            (Shape::Map, _, Raw::Bytes(entry)) => {
                let (mut key, mut inner) = ("", None);
                for next in fields(entry) {
                    match next? {
                        (1, raw) => key = utf8(raw)?,
                        (2, raw) => inner = Some(value(field, raw, depth)?),
                        _ => {}
                    }
                }
                let inner = inner.map_or_else(|| value(field, Raw::Bytes(&[]), depth), Ok)?;
                map(object.entry(field.name).or_insert(Value::Null)).insert(key.to_owned(), inner);
            }
            // What is empty and no pointer is not there in JSON.
            (_, _, Raw::Number(0) | Raw::Bytes([]))
                if !field.is_pointer() && !field.is_required() => {}
            _ => {
                let value = value(field, raw, depth)?;
                let is_hollow = value.as_object().is_some_and(Map::is_empty) && !field.is_pointer();
                if !is_hollow && !value.is_null() {
                    object.insert(field.name.to_owned(), value);
                }
            }
        }
    }
    Ok(())
}

fn value(field: &Field, raw: Raw<'_>, depth: usize) -> Result<Value, Refusal> {
    let of = match (&field.of, raw) {
        (Of::Type(name), Raw::Bytes(bytes)) => {
            let mut object = Map::new();
            read(name, bytes, &mut object, depth + 1)?;
            return Ok(object.into());
        }
        (Of::Type(_), _) => return Err(bad()),
        (Of::Scalar(of), _) => *of,
    };
    // The fields of the message that a scalar of JSON may be.
    let inner = |number: u64| match raw {
        Raw::Bytes(bytes) => fields(bytes)
            .flatten()
            .find(|(known, _)| *known == number)
            .map(|(_, raw)| raw),
        Raw::Number(_) => None,
    };
    let number = |number| match inner(number) {
        Some(Raw::Number(number)) => number.cast_signed(),
        _ => 0,
    };
    Ok(match (of, raw) {
        ('b', Raw::Number(number)) => (number != 0).into(),
        ('i' | 'l', Raw::Number(number)) => number.cast_signed().into(),
        ('d', Raw::Bytes(bytes)) => f64::from_le_bytes(bytes.try_into().map_err(|_| bad())?).into(),
        ('s', raw) => utf8(raw)?.into(),
        ('y', Raw::Bytes(bytes)) => STANDARD.encode(bytes).into(),
        ('T' | 'M', Raw::Bytes([])) => Value::Null,
        ('T' | 'M', Raw::Bytes(_)) => {
            let nanos = u32::try_from(number(2)).map_err(|_| bad())?;
            let text = Stamp::from_unix(number(1), nanos)
                .ok_or_else(bad)?
                .to_string();
            match of {
                'T' => format!("{}Z", &text[..19]).into(),
                _ => format!("{}Z", &text[..26]).into(),
            }
        }
        ('I', Raw::Bytes(_)) if number(1) == 0 => number(2).into(),
        ('I', Raw::Bytes(_)) => inner(3).map_or(Ok(""), utf8)?.into(),
        ('Q', Raw::Bytes(_)) => inner(1).map_or(Ok(""), utf8)?.into(),
        ('X', Raw::Bytes(bytes)) => {
            let texts = fields(bytes).map(|next| Ok(utf8(next?.1)?.into()));
            texts.collect::<Result<Vec<Value>, Refusal>>()?.into()
        }
        ('R', Raw::Bytes(_)) => match inner(1) {
            Some(Raw::Bytes(bytes)) => serde_json::from_slice(bytes)
                .map_err(|_| not_implemented("what is no JSON in a RawExtension"))?,
            _ => Value::Null,
        },
        ('J', _) => return Err(not_implemented("this schema in protobuf; send JSON")),
        _ => return Err(bad()),
    })
}

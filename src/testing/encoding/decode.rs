//! Objects in protobuf: in flow the bodies of requests, out come objects in JSON's terms.
//!
//! The messages are those of a table; what it does not have is refused, and not left out.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Map, Value};

use crate::{server::Refusal, testing::target::not_implemented, wire::watch::MAGIC};

fn bad() -> Refusal {
    Refusal::bad_request("the body of the request is no message of Kubernetes in protobuf")
}

/// A number of seven bits a byte.
fn varint(bytes: &mut &[u8]) -> Result<u64, Refusal> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (first, rest) = bytes.split_first().ok_or_else(bad)?;
        *bytes = rest;
        value |= u64::from(first & 0x7f) << shift;
        if first & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(bad())
}

/// What a field has.
enum Raw<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

/// The next field of a message; `None` at its end.
fn field<'a>(bytes: &mut &'a [u8]) -> Result<Option<(u64, Raw<'a>)>, Refusal> {
    if bytes.is_empty() {
        return Ok(None);
    }
    let tag = varint(bytes)?;
    let raw = match tag & 7 {
        0 => Raw::Number(varint(bytes)?),
        2 => {
            let len = usize::try_from(varint(bytes)?).map_err(|_| bad())?;
            let (inside, rest) = bytes.split_at_checked(len).ok_or_else(bad)?;
            *bytes = rest;
            Raw::Bytes(inside)
        }
        _ => return Err(not_implemented("fixed-size fields in protobuf")),
    };
    Ok(Some((tag >> 3, raw)))
}

/// Reads an object behind the magic number: a `runtime.Unknown` with typeMeta = 1, raw = 2.
pub(in crate::testing) fn decode(body: &[u8]) -> Result<Value, Refusal> {
    let mut unknown = body.strip_prefix(MAGIC).ok_or_else(bad)?;
    let (mut api_version, mut kind, mut raw) = (String::new(), String::new(), &[][..]);
    while let Some((number, value)) = field(&mut unknown)? {
        match (number, value) {
            (1, Raw::Bytes(mut type_meta)) => {
                while let Some((number, value)) = field(&mut type_meta)? {
                    match (number, value) {
                        (1, Raw::Bytes(text)) => api_version = self::text(text)?,
                        (2, Raw::Bytes(text)) => kind = self::text(text)?,
                        _ => {}
                    }
                }
            }
            (2, Raw::Bytes(message)) => raw = message,
            _ => {}
        }
    }
    let mut object = message(&kind, raw)?;
    object.insert("apiVersion".to_owned(), api_version.into());
    object.insert("kind".to_owned(), kind.into());
    Ok(Value::Object(object))
}

fn text(bytes: &[u8]) -> Result<String, Refusal> {
    String::from_utf8(bytes.to_vec()).map_err(|_| bad())
}

/// The fields of a message of the table.
fn fields(name: &str) -> Option<Vec<&'static str>> {
    let mut lines = include_str!("messages.txt")
        .lines()
        .map(|line| line.split(' '));
    let line = lines.find(|line| line.clone().next() == Some(name))?;
    Some(line.skip(1).collect())
}

fn message(name: &str, mut bytes: &[u8]) -> Result<Map<String, Value>, Refusal> {
    let fields =
        fields(name).ok_or_else(|| not_implemented(format!("{name} in protobuf; send JSON")))?;
    let mut object = Map::new();
    while let Some((number, raw)) = field(&mut bytes)? {
        // gogo's code writes fields that are no pointers even if they are empty.
        let is_empty = matches!(raw, Raw::Number(0) | Raw::Bytes([]));
        let number = number.to_string();
        let found = fields.chunks_exact(3).find(|field| field[0] == number);
        let Some([_, field, kind]) = found else {
            if is_empty || is_hollow(&raw) {
                continue;
            }
            let what = format!("field {number} of {name} in protobuf; send JSON");
            return Err(not_implemented(what));
        };
        let first = kind.chars().next();
        let of = kind.trim_start_matches(['*', '%']);
        match (first, raw) {
            (Some('%'), Raw::Bytes(mut entry)) => {
                let (mut key, mut value) = (String::new(), Value::String(String::new()));
                while let Some((number, raw)) = self::field(&mut entry)? {
                    match (number, raw) {
                        (1, Raw::Bytes(bytes)) => key = text(bytes)?,
                        (2, raw) => value = self::value(of, raw)?,
                        _ => {}
                    }
                }
                let map = object
                    .entry((*field).to_owned())
                    .or_insert_with(|| Map::new().into());
                map[key] = value;
            }
            (Some('*'), raw) => {
                let list = object
                    .entry((*field).to_owned())
                    .or_insert_with(|| Value::Array(Vec::new()));
                let value = value(of, raw)?;
                if let Value::Array(list) = list {
                    list.push(value);
                }
            }
            // A number behind a pointer may be 0: where that is another wish than none.
            (_, Raw::Number(0)) if *field == "replicas" || *field == "gracePeriodSeconds" => {
                object.insert((*field).to_owned(), 0.into());
            }
            _ if is_empty => {}
            (_, raw) => {
                let value = value(of, raw)?;
                if !value.as_object().is_some_and(Map::is_empty) {
                    object.insert((*field).to_owned(), value);
                }
            }
        }
    }
    Ok(object)
}

/// Whether a message says nothing: all that is in it is empty.
fn is_hollow(raw: &Raw<'_>) -> bool {
    let Raw::Bytes(mut bytes) = *raw else {
        return false;
    };
    while let Ok(Some((_, raw))) = field(&mut bytes) {
        if !matches!(raw, Raw::Number(0)) && !is_hollow(&raw) {
            return false;
        }
    }
    bytes.is_empty()
}

fn value(kind: &str, raw: Raw<'_>) -> Result<Value, Refusal> {
    Ok(match (kind, raw) {
        ("Ignored", _) => Map::new().into(),
        ("string", Raw::Bytes(bytes)) => text(bytes)?.into(),
        ("bytes", Raw::Bytes(bytes)) => STANDARD.encode(bytes).into(),
        ("int", Raw::Number(number)) => number.cast_signed().into(),
        ("bool", Raw::Number(number)) => (number != 0).into(),
        (name, Raw::Bytes(bytes)) => message(name, bytes)?.into(),
        _ => return Err(bad()),
    })
}

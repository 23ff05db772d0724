//! One way through an object, whatever it is written in.
//!
//! In goes an object in JSON, CBOR or protobuf; out come its members, one at a time, a [`Key`] and
//! a [`Value`] each. A value is data that has not been looked at: it is read as what the caller
//! expects, and skipped only on the way to the next member.

use std::borrow::Cow;

use super::{Encoding, EventError, Text, cbor, json, protobuf};
use crate::wire::stamp::Stamp;

/// A field: its name, and its number in protobuf.
#[derive(Debug, Clone, Copy)]
pub(super) struct Field(pub(super) &'static str, pub(super) u64);

/// The number of fields that protobuf does not number: it has 29 bits for them.
const UNNUMBERED: u64 = u64::MAX;

// In protobuf the first two are in the envelope; the third is field 1 of every object.
pub(super) const API_VERSION: Field = Field("apiVersion", UNNUMBERED);
pub(super) const KIND: Field = Field("kind", UNNUMBERED);
pub(super) const METADATA: Field = Field("metadata", 1);
/// Of the metadata; numbered as in `k8s.io/apimachinery/pkg/apis/meta/v1/generated.proto`.
pub(super) const MANAGED_FIELDS: Field = Field("managedFields", 17);

/// What a member is called.
#[derive(Debug)]
pub(super) enum Key<'a> {
    Name(Cow<'a, [u8]>),
    Number(u64),
}

impl<'a> Key<'a> {
    #[inline]
    pub(super) fn is(&self, field: Field) -> bool {
        match self {
            Self::Name(name) => **name == *field.0.as_bytes(),
            Self::Number(number) => *number == field.1,
        }
    }

    /// The key of a map, which is text in every encoding.
    pub(super) fn text(self, encoding: Encoding) -> Result<Text<'a>, EventError> {
        let text = match self {
            Self::Name(Cow::Borrowed(name)) => std::str::from_utf8(name).ok().map(Cow::Borrowed),
            Self::Name(Cow::Owned(name)) => String::from_utf8(name).ok().map(Cow::Owned),
            Self::Number(_) => None,
        };
        text.ok_or(encoding.malformed("a string is not UTF-8"))
    }
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Value<'a> {
    /// The object from the start of the value on.
    Json(&'a [u8]),
    /// The same.
    Cbor(&'a [u8]),
    Protobuf {
        /// The object from the start of the field on: a list or a map is the same field again and
        /// again.
        data: &'a [u8],
        value: protobuf::Value<'a>,
    },
}

impl<'a> Value<'a> {
    pub(super) fn encoding(self) -> Encoding {
        match self {
            Self::Json(_) => Encoding::Json,
            Self::Cbor(_) => Encoding::Cbor,
            Self::Protobuf { .. } => Encoding::Protobuf,
        }
    }

    /// The object from here on.
    pub(super) fn data(self) -> &'a [u8] {
        match self {
            Self::Json(data) | Self::Cbor(data) | Self::Protobuf { data, .. } => data,
        }
    }

    #[inline]
    pub(super) fn text(self) -> Result<Text<'a>, EventError> {
        match self {
            Self::Json(data) => json::text(data),
            Self::Cbor(data) => cbor::text(data).map(Cow::Borrowed),
            Self::Protobuf { value, .. } => value.text().map(Cow::Borrowed),
        }
    }

    pub(super) fn integer(self) -> Result<i64, EventError> {
        match self {
            Self::Json(data) => json::integer(data),
            Self::Cbor(data) => cbor::integer(data),
            Self::Protobuf { value, .. } => Ok(value.number()? as i64),
        }
    }

    /// A `metav1.Time`.
    pub(super) fn stamp(self) -> Result<Option<Stamp>, EventError> {
        if let Self::Protobuf { .. } = self {
            let (mut seconds, mut nanos) = (None, 0);
            let mut members = self.members()?;
            while let Some((key, value)) = members.next()? {
                match key {
                    Key::Number(1) => seconds = Some(value.integer()?),
                    Key::Number(2) => nanos = value.integer()?,
                    _ => {}
                }
            }
            let Some(seconds) = seconds else {
                return Ok(None);
            };
            let nanos = u32::try_from(nanos).ok();
            let stamp = nanos.and_then(|nanos| Stamp::from_unix(seconds, nanos));
            let beyond = self.encoding().malformed("a time is beyond all years");
            return stamp.map(Some).ok_or(beyond);
        }
        let text = self.text()?;
        if text.is_empty() {
            return Ok(None);
        }
        let other = self.encoding().malformed("a time is not RFC 3339");
        Stamp::parse(text.as_bytes()).map(Some).ok_or(other)
    }

    /// Whether the object certainly has no member of this name from here on; only in JSON is that said
    /// without passing over the values.
    pub(super) fn lacks(self, name: &[u8]) -> bool {
        matches!(self, Self::Json(data) if json::lacks(data, name))
    }

    /// The value and nothing else; in protobuf without its tag and length.
    #[inline]
    pub(super) fn bytes(self) -> Result<&'a [u8], EventError> {
        match self {
            Self::Json(data) => Ok(&data[..json::skip_value(data)?]),
            Self::Cbor(data) => Ok(&data[..cbor::skip(data)?]),
            Self::Protobuf { value, .. } => value.bytes(),
        }
    }

    /// The members of the object that the value is; none of `null`.
    #[inline]
    pub(super) fn members(self) -> Result<Members<'a>, EventError> {
        Ok(match self {
            Self::Json(data) => Members::Json(json::Members::new(data)?),
            Self::Cbor(data) => Members::Cbor(cbor::Entries::new(data)?),
            Self::Protobuf { value, .. } => {
                Members::Protobuf(protobuf::Fields::new(value.bytes()?))
            }
        })
    }

    /// The entries of the map that the value is, or that begins with it.
    pub(super) fn entries(self) -> Result<Members<'a>, EventError> {
        let Self::Protobuf { data, .. } = self else {
            return self.members();
        };
        let fields = protobuf::Fields::new(data);
        let number = { fields }.next()?.map_or(0, |(number, _)| number);
        Ok(Members::Map { fields, number })
    }
}

/// The members of an object, one at a time.
#[derive(Debug, Clone, Copy)]
pub(super) enum Members<'a> {
    Json(json::Members<'a>),
    Cbor(cbor::Entries<'a>),
    Protobuf(protobuf::Fields<'a>),
    /// A map in protobuf: the fields of this number.
    Map {
        fields: protobuf::Fields<'a>,
        number: u64,
    },
}

impl<'a> Members<'a> {
    pub(super) const NONE: Self = Self::Protobuf(protobuf::Fields::NONE);

    /// The members of the object or message that `data` begins with, or in protobuf is.
    pub(super) fn new(encoding: Encoding, data: &'a [u8]) -> Result<Self, EventError> {
        Ok(match encoding {
            Encoding::Json => Self::Json(json::Members::new(data)?),
            Encoding::Cbor => Self::Cbor(cbor::Entries::new(data)?),
            Encoding::Protobuf => Self::Protobuf(protobuf::Fields::new(data)),
        })
    }

    #[inline]
    pub(super) fn next(&mut self) -> Result<Option<(Key<'a>, Value<'a>)>, EventError> {
        match self {
            Self::Json(members) => {
                let member = members.next()?;
                Ok(member.map(|(name, data)| (Key::Name(name), Value::Json(data))))
            }
            Self::Cbor(entries) => {
                let entry = entries.next()?;
                Ok(entry.map(|(key, data)| (Key::Name(key), Value::Cbor(data))))
            }
            Self::Protobuf(fields) => numbered(fields),
            Self::Map { fields, number } => {
                while let Some((found, value)) = fields.next()? {
                    if found == *number {
                        return entry(value.bytes()?).map(Some);
                    }
                }
                Ok(None)
            }
        }
    }

    /// The member at hand, whose value `value` is, with the comma that goes with it.
    pub(super) fn span(&self, value: Value<'a>) -> Result<&'a [u8], EventError> {
        match self {
            Self::Json(members) => members.span(),
            Self::Cbor(entries) => entries.span(),
            _ => {
                let data = value.data();
                let mut fields = protobuf::Fields::new(data);
                fields.next()?;
                Ok(&data[..data.len() - fields.rest().len()])
            }
        }
    }

    /// The value at hand up to the end of the object, which is not looked for: if more members
    /// follow, JSON has them behind the value.
    pub(super) fn last(&self, value: Value<'a>) -> Result<&'a [u8], EventError> {
        match self {
            Self::Json(_) => {
                let whole = value.data().trim_ascii_end();
                Ok(whole.strip_suffix(b"}").unwrap_or(&[]).trim_ascii_end())
            }
            Self::Cbor(entries) if entries.is_last() => Ok(value.data()),
            _ => value.bytes(),
        }
    }
}

#[inline(always)]
fn numbered<'a>(
    fields: &mut protobuf::Fields<'a>,
) -> Result<Option<(Key<'a>, Value<'a>)>, EventError> {
    let data = fields.rest();
    let field = fields.next()?;
    Ok(field.map(|(number, value)| (Key::Number(number), Value::Protobuf { data, value })))
}

/// An entry of a map in protobuf: key = 1, value = 2.
fn entry(message: &[u8]) -> Result<(Key<'_>, Value<'_>), EventError> {
    // What is empty is not written.
    let empty = protobuf::Value::Bytes(&[]);
    let (mut name, mut text) = (empty, empty);
    let mut fields = protobuf::Fields::new(message);
    while let Some((number, value)) = fields.next()? {
        match number {
            1 => name = value,
            2 => text = value,
            _ => {}
        }
    }
    let value = Value::Protobuf {
        data: &[],
        value: text,
    };
    Ok((Key::Name(Cow::Borrowed(name.bytes()?)), value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_an_error_nothing_is_read_behind_it() {
        let objects: [(Encoding, &[u8]); 4] = [
            // A name of 5 bytes, of which 3 are there and look like a name of one.
            (Encoding::Protobuf, b"\x0a\x05\x0a\x05\x0a\x01x"),
            (Encoding::Cbor, b"\xa1\x48metadata\xa1\x01\x44name"),
            (
                Encoding::Cbor,
                b"\xa1\x48metadata\xa2\x41a\xff\x44name\x41x",
            ),
            (Encoding::Json, b"{\"metadata\":{\"a\":0,0,\"name\":\"x\"}}"),
        ];
        for (encoding, bytes) in objects {
            let object = super::super::Object::new(encoding, bytes.into());
            let metadata = object.metadata().unwrap();
            let first = metadata.name().unwrap_err();
            for _ in 0..3 {
                assert_eq!(metadata.name().unwrap_err(), first, "{encoding}");
            }
        }
    }
}

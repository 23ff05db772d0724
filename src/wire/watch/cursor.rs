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
        text.ok_or(EventError::Malformed {
            encoding,
            what: "a string is not UTF-8",
        })
    }
}

/// The value of a member.
#[derive(Debug, Clone, Copy)]
pub(super) struct Value<'a> {
    pub(super) encoding: Encoding,
    /// In JSON and CBOR the object from the start of the value on. In protobuf from the start of
    /// its field on, for a list or a map is the same field again and again; empty for what was
    /// not written, because it is zero or without text.
    pub(super) data: &'a [u8],
}

impl<'a> Value<'a> {
    fn field(self) -> Result<(u64, protobuf::Value<'a>), EventError> {
        let field = protobuf::Fields::new(self.data).next()?;
        Ok(field.unwrap_or((0, protobuf::Value::Bytes(&[]))))
    }

    pub(super) fn text(self) -> Result<Text<'a>, EventError> {
        match self.encoding {
            Encoding::Json => json::text(self.data),
            Encoding::Cbor => cbor::text(self.data).map(Cow::Borrowed),
            Encoding::Protobuf => self.field()?.1.text().map(Cow::Borrowed),
        }
    }

    pub(super) fn integer(self) -> Result<i64, EventError> {
        match self.encoding {
            Encoding::Json => json::integer(self.data),
            Encoding::Cbor => cbor::integer(self.data),
            Encoding::Protobuf => Ok(self.field()?.1.number()? as i64),
        }
    }

    /// A `metav1.Time`.
    pub(super) fn stamp(self) -> Result<Option<Stamp>, EventError> {
        if self.encoding == Encoding::Protobuf {
            let (mut seconds, mut nanos) = (None, 0);
            let mut members = self.members()?;
            while let Some((key, value)) = members.next()? {
                match key {
                    Key::Number(1) => seconds = Some(value.integer()?),
                    Key::Number(2) => nanos = value.integer()? as u32,
                    _ => {}
                }
            }
            return Ok(seconds.and_then(|seconds| Stamp::from_unix(seconds, nanos)));
        }
        let text = self.text()?;
        if text.is_empty() {
            return Ok(None);
        }
        let stamp = Stamp::parse(text.as_bytes()).ok_or(EventError::Malformed {
            encoding: self.encoding,
            what: "a time is not RFC 3339",
        })?;
        Ok(Some(stamp))
    }

    /// The value and nothing else; in protobuf without its tag and length.
    pub(super) fn bytes(self) -> Result<&'a [u8], EventError> {
        match self.encoding {
            Encoding::Json => Ok(&self.data[..json::skip_value(self.data)?]),
            Encoding::Cbor => Ok(&self.data[..cbor::skip(self.data)?]),
            Encoding::Protobuf => self.field()?.1.bytes(),
        }
    }

    /// The members of the object that the value is; none of `null`.
    pub(super) fn members(self) -> Result<Members<'a>, EventError> {
        match self.encoding {
            Encoding::Protobuf => Members::new(self.encoding, self.bytes()?),
            encoding => Members::new(encoding, self.data),
        }
    }

    /// The entries of the map that the value is, or that begins with it.
    pub(super) fn entries(self) -> Result<Members<'a>, EventError> {
        if self.encoding != Encoding::Protobuf {
            return self.members();
        }
        Ok(Members::Map {
            fields: protobuf::Fields::new(self.data),
            number: self.field()?.0,
        })
    }
}

/// The members of an object, one at a time.
#[derive(Debug, Clone, Copy)]
pub(super) enum Members<'a> {
    Json(json::Members<'a>),
    Cbor(cbor::Entries<'a>),
    Protobuf(protobuf::Fields<'a>),
    /// A whole object in protobuf: what its envelope says, then its fields.
    Object {
        type_meta: protobuf::Fields<'a>,
        message: protobuf::Fields<'a>,
    },
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

    /// The members of an object of the API, which in protobuf may be in an envelope.
    pub(super) fn of_object(encoding: Encoding, data: &'a [u8]) -> Result<Self, EventError> {
        if encoding != Encoding::Protobuf {
            return Self::new(encoding, data);
        }
        let envelope = protobuf::Envelope::open(data)?;
        Ok(Self::Object {
            type_meta: protobuf::Fields::new(envelope.type_meta),
            message: protobuf::Fields::new(envelope.message),
        })
    }

    #[inline]
    pub(super) fn next(&mut self) -> Result<Option<(Key<'a>, Value<'a>)>, EventError> {
        let named = |encoding| {
            move |(name, data): (Cow<'a, [u8]>, &'a [u8])| {
                (Key::Name(name), Value { encoding, data })
            }
        };
        match self {
            Self::Json(members) => Ok(members.next()?.map(named(Encoding::Json))),
            Self::Cbor(entries) => Ok(entries.next()?.map(named(Encoding::Cbor))),
            Self::Protobuf(fields) => numbered(fields),
            Self::Object { type_meta, message } => {
                while let Some((key, value)) = numbered(type_meta)? {
                    // runtime.TypeMeta: apiVersion = 1, kind = 2.
                    let field = match key {
                        Key::Number(1) => API_VERSION,
                        Key::Number(2) => KIND,
                        _ => continue,
                    };
                    return Ok(Some((Key::Name(Cow::Borrowed(field.0.as_bytes())), value)));
                }
                numbered(message)
            }
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
                let mut fields = protobuf::Fields::new(value.data);
                fields.next()?;
                Ok(&value.data[..value.data.len() - fields.rest().len()])
            }
        }
    }

    /// The value at hand up to the end of the object, which is not looked for: if more members
    /// follow, JSON has them behind the value.
    pub(super) fn last(&self, value: Value<'a>) -> Result<&'a [u8], EventError> {
        match self {
            Self::Json(_) => {
                let whole = value.data.trim_ascii_end();
                Ok(whole.strip_suffix(b"}").unwrap_or(&[]).trim_ascii_end())
            }
            Self::Cbor(entries) if entries.is_last() => Ok(value.data),
            _ => value.bytes(),
        }
    }
}

#[inline]
fn numbered<'a>(
    fields: &mut protobuf::Fields<'a>,
) -> Result<Option<(Key<'a>, Value<'a>)>, EventError> {
    let data = fields.rest();
    let encoding = Encoding::Protobuf;
    let field = fields.next()?;
    Ok(field.map(|(number, _)| (Key::Number(number), Value { encoding, data })))
}

/// An entry of a map in protobuf: key = 1, value = 2.
fn entry(message: &[u8]) -> Result<(Key<'_>, Value<'_>), EventError> {
    let (mut name, mut data) = (&[][..], &[][..]);
    let mut fields = protobuf::Fields::new(message);
    loop {
        let from_here = fields.rest();
        match fields.next()? {
            Some((1, key)) => name = key.bytes()?,
            Some((2, _)) => data = from_here,
            Some(_) => {}
            None => break,
        }
    }
    let encoding = Encoding::Protobuf;
    Ok((Key::Name(Cow::Borrowed(name)), Value { encoding, data }))
}

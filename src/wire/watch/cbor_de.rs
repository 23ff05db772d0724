//! Kubernetes' CBOR for serde.
//!
//! In goes one item; out comes any serde type that reads Kubernetes' JSON. Kubernetes writes text
//! as byte strings, because Go strings need not be UTF-8, and marks binary data with the tag that
//! asks for base64 (KEP-4222), which is how JSON has it.

use base64::{Engine, engine::general_purpose::STANDARD};
use serde::de::{
    Deserialize, DeserializeSeed, Deserializer, Error as _, Expected, IntoDeserializer, MapAccess,
    SeqAccess, Unexpected, Visitor, value::MapAccessDeserializer,
};

use super::{Encoding::Cbor, EventError, cbor};
use crate::limits;

pub(super) fn from_slice<'a, T: Deserialize<'a>>(data: &'a [u8]) -> Result<T, EventError> {
    let mut reader = Reader { data, depth: 0 };
    T::deserialize(&mut reader)
}

impl serde::de::Error for EventError {
    fn custom<T: std::fmt::Display>(message: T) -> Self {
        Self::Decode(message.to_string())
    }

    fn invalid_type(unexpected: Unexpected<'_>, expected: &dyn Expected) -> Self {
        // As JSON has it.
        match unexpected {
            Unexpected::Unit => {
                Self::custom(format_args!("invalid type: null, expected {expected}"))
            }
            other => Self::custom(format_args!("invalid type: {other}, expected {expected}")),
        }
    }
}

struct Reader<'de> {
    data: &'de [u8],
    depth: usize,
}

impl<'de> Reader<'de> {
    fn head(&mut self) -> Result<cbor::Head, EventError> {
        let head = cbor::head(self.data)?;
        self.data = &self.data[head.len..];
        Ok(head)
    }

    /// The head of an item and whether the tag for base64 stands before it.
    fn untagged(&mut self) -> Result<(cbor::Head, bool), EventError> {
        let mut base64 = false;
        loop {
            let head = self.head()?;
            match (head.major, head.argument) {
                // RFC 8949, section 3.4.5.2: expected later encoding base64.
                (6, 22) => base64 = true,
                (6, 55799) => {}
                (6, _) => return Err(Cbor.malformed("an unknown tag")),
                _ => return Ok((head, base64)),
            }
        }
    }

    fn take(&mut self, len: u64) -> Result<&'de [u8], EventError> {
        let (taken, rest) = usize::try_from(len)
            .ok()
            .and_then(|len| self.data.split_at_checked(len))
            .ok_or(Cbor.malformed("a string does not end"))?;
        self.data = rest;
        Ok(taken)
    }

    fn nested<T>(
        &mut self,
        read: impl FnOnce(&mut Self) -> Result<T, EventError>,
    ) -> Result<T, EventError> {
        if self.depth == limits::WATCH_DEPTH {
            return Err(Cbor.malformed("the items are nested too deeply"));
        }
        self.depth += 1;
        let value = read(self);
        self.depth -= 1;
        value
    }
}

/// The halves of RFC 8949, section 3.3; the calculation is that of its appendix D.
fn half(bits: u64) -> f64 {
    let (exponent, mantissa) = ((bits >> 10) & 0x1f, (bits & 0x3ff) as f64);
    let value = match exponent {
        0 => mantissa * 2_f64.powi(-24),
        31 if mantissa == 0.0 => f64::INFINITY,
        31 => f64::NAN,
        _ => (mantissa + 1024.0) * 2_f64.powi(exponent as i32 - 25),
    };
    if bits & 0x8000 == 0 { value } else { -value }
}

impl<'de> Deserializer<'de> for &mut Reader<'de> {
    type Error = EventError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, EventError> {
        let (head, base64) = self.untagged()?;
        match (head.major, head.info) {
            (0, _) => visitor.visit_u64(head.argument),
            (1, _) => match i64::try_from(head.argument) {
                Ok(number) => visitor.visit_i64(-1 - number),
                Err(_) => Err(Cbor.malformed("a number below the range of 64 bits")),
            },
            (2, _) if base64 => visitor.visit_string(STANDARD.encode(self.take(head.argument)?)),
            (2 | 3, _) => match std::str::from_utf8(self.take(head.argument)?) {
                Ok(text) => visitor.visit_borrowed_str(text),
                Err(_) => Err(Cbor.malformed("a string is not UTF-8")),
            },
            (4, _) => self.nested(|reader| {
                visitor.visit_seq(Items {
                    reader,
                    left: head.argument,
                })
            }),
            (5, _) => self.nested(|reader| {
                visitor.visit_map(Items {
                    reader,
                    left: head.argument,
                })
            }),
            (7, 20) => visitor.visit_bool(false),
            (7, 21) => visitor.visit_bool(true),
            (7, 22) => visitor.visit_unit(),
            (7, 25) => visitor.visit_f64(half(head.argument)),
            (7, 26) => visitor.visit_f64(f64::from(f32::from_bits(head.argument as u32))),
            (7, 27) => visitor.visit_f64(f64::from_bits(head.argument)),
            _ => Err(Cbor.malformed("a simple value that JSON does not have")),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, EventError> {
        if self.data.first() == Some(&0xf6) {
            self.data = &self.data[1..];
            return visitor.visit_none();
        }
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, EventError> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, EventError> {
        let (head, _) = self.untagged()?;
        match head.major {
            2 | 3 => {
                let text = std::str::from_utf8(self.take(head.argument)?)
                    .map_err(|_| Cbor.malformed("a string is not UTF-8"))?;
                visitor.visit_enum(IntoDeserializer::<EventError>::into_deserializer(text))
            }
            // With content: a map with one entry.
            5 if head.argument == 1 => self.nested(|reader| {
                visitor.visit_enum(MapAccessDeserializer::new(Items { reader, left: 1 }))
            }),
            _ => Err(EventError::custom("a variant should stand here")),
        }
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, EventError> {
        self.data = &self.data[cbor::skip(self.data)?..];
        visitor.visit_unit()
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit
        unit_struct seq tuple tuple_struct map struct identifier
    }
}

struct Items<'a, 'de> {
    reader: &'a mut Reader<'de>,
    left: u64,
}

impl<'de> SeqAccess<'de> for Items<'_, 'de> {
    type Error = EventError;

    fn next_element_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, EventError> {
        if self.left == 0 {
            return Ok(None);
        }
        self.left -= 1;
        seed.deserialize(&mut *self.reader).map(Some)
    }
}

impl<'de> MapAccess<'de> for Items<'_, 'de> {
    type Error = EventError;

    fn next_key_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, EventError> {
        self.next_element_seed(seed)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<S::Value, EventError> {
        seed.deserialize(&mut *self.reader)
    }
}

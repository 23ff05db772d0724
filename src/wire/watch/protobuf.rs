//! The protocol buffers of Kubernetes, read field by field.
//!
//! Field numbers are those of the `generated.proto` files of `k8s.io/apimachinery` and are named
//! where they are used.

use bytes::BufMut;

use super::{
    Encoding::{self, Protobuf},
    EventError,
};
use crate::wire::status::{Status, StatusCause, StatusDetails};

/// What stands before every object in this encoding
/// (`k8s.io/apimachinery/pkg/runtime/serializer/protobuf/protobuf.go`).
pub(crate) const MAGIC: &[u8] = b"k8s\0";

#[derive(Debug, Clone, Copy)]
pub(crate) enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

impl<'a> Value<'a> {
    #[inline]
    pub(super) fn bytes(self) -> Result<&'a [u8], EventError> {
        match self {
            Self::Bytes(bytes) => Ok(bytes),
            Self::Number(_) => Err(Protobuf.malformed("a field has the wrong wire type")),
        }
    }

    #[inline]
    pub(super) fn text(self) -> Result<&'a str, EventError> {
        std::str::from_utf8(self.bytes()?).map_err(|_| Protobuf.malformed("a string is not UTF-8"))
    }

    pub(super) fn number(self) -> Result<u64, EventError> {
        match self {
            Self::Number(number) => Ok(number),
            Self::Bytes(_) => Err(Protobuf.malformed("a field has the wrong wire type")),
        }
    }
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    pub(super) const NONE: Self = Self { rest: &[] };

    pub(crate) const fn new(message: &'a [u8]) -> Self {
        Self { rest: message }
    }

    /// The next field and its number. Groups, which Kubernetes does not write, are refused.
    /// After an error it is the same again.
    #[inline(always)]
    pub(crate) fn next(&mut self) -> Result<Option<(u64, Value<'a>)>, EventError> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let mut fields = *self;
        let field = fields.field()?;
        *self = fields;
        Ok(Some(field))
    }

    #[inline(always)]
    fn field(&mut self) -> Result<(u64, Value<'a>), EventError> {
        let tag = self.varint()?;
        // https://protobuf.dev/programming-guides/encoding/#structure
        let value = match tag & 7 {
            0 => Value::Number(self.varint()?),
            1 => Value::Bytes(self.take(8)?),
            2 => {
                let len = self.varint()?;
                let len =
                    usize::try_from(len).map_err(|_| Protobuf.malformed("a field does not end"))?;
                Value::Bytes(self.take(len)?)
            }
            5 => Value::Bytes(self.take(4)?),
            _ => return Err(Protobuf.malformed("a field has an unknown wire type")),
        };
        Ok((tag >> 3, value))
    }

    /// What follows the field read last.
    pub(crate) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    #[inline]
    fn take(&mut self, len: usize) -> Result<&'a [u8], EventError> {
        let (taken, rest) = self
            .rest
            .split_at_checked(len)
            .ok_or(Protobuf.malformed("a field does not end"))?;
        self.rest = rest;
        Ok(taken)
    }

    #[inline]
    fn varint(&mut self) -> Result<u64, EventError> {
        // Nearly every number is a short one.
        match *self.rest {
            [byte @ ..0x80, ref rest @ ..] => {
                self.rest = rest;
                Ok(u64::from(byte))
            }
            [low, high @ ..0x80, ref rest @ ..] => {
                self.rest = rest;
                Ok(u64::from(low & 0x7f) | u64::from(high) << 7)
            }
            _ => self.long_varint(),
        }
    }

    fn long_varint(&mut self) -> Result<u64, EventError> {
        let mut value = 0_u64;
        for (index, byte) in self.rest.iter().enumerate().take(10) {
            value |= u64::from(byte & 0x7f) << (7 * index);
            if byte & 0x80 == 0 {
                self.rest = &self.rest[index + 1..];
                return Ok(value);
            }
        }
        Err(Protobuf.malformed("a number does not end"))
    }
}

/// Where the field that some data begins with lies in it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Extent {
    pub(super) number: u64,
    /// It is bytes, a text or a message.
    pub(super) delimited: bool,
    pub(super) content: usize,
    /// Where it ends, perhaps behind what has arrived.
    pub(super) end: usize,
}

impl Extent {
    /// Reads tag and length; `None` if they have not arrived whole.
    pub(super) fn of(data: &[u8]) -> Result<Option<Self>, EventError> {
        let mut rest = Fields::new(data);
        let whole = |rest: &Fields<'_>| rest.rest.iter().take(10).any(|byte| byte & 0x80 == 0);
        if !whole(&rest) && rest.rest.len() < 10 {
            return Ok(None);
        }
        let tag = rest.varint()?;
        let behind = data.len() - rest.rest.len();
        let len = match tag & 7 {
            0 | 2 if !whole(&rest) && rest.rest.len() < 10 => return Ok(None),
            0 => {
                rest.varint()?;
                (data.len() - rest.rest.len() - behind) as u64
            }
            1 => 8,
            2 => rest.varint()?,
            5 => 4,
            _ => return Err(Protobuf.malformed("a field has an unknown wire type")),
        };
        let content = match tag & 7 {
            2 => data.len() - rest.rest.len(),
            _ => behind,
        };
        let end = usize::try_from(len)
            .ok()
            .and_then(|len| content.checked_add(len));
        Ok(Some(Self {
            number: tag >> 3,
            delimited: tag & 7 == 2,
            content,
            end: end.ok_or(Protobuf.malformed("a field does not end"))?,
        }))
    }
}

pub(crate) fn put_varint(mut value: u64, out: &mut impl BufMut) {
    while value >= 0x80 {
        out.put_u8(value as u8 | 0x80);
        value >>= 7;
    }
    out.put_u8(value as u8);
}

/// What stands in the `runtime.Unknown` around an object.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Envelope<'a> {
    /// The `runtime.TypeMeta`.
    pub(super) type_meta: &'a [u8],
    /// The message of the object itself.
    pub(super) message: &'a [u8],
    /// The envelope from the field on that the message is; empty without envelope.
    pub(super) raw: &'a [u8],
}

impl<'a> Envelope<'a> {
    /// Opens the envelope, which only protobuf has; the items of a list stand without one.
    pub(super) fn open(encoding: Encoding, object: &'a [u8]) -> Result<Self, EventError> {
        let mut envelope = Self::default();
        // No message begins so: `k` would be a group, field 13.
        let unknown = object.strip_prefix(MAGIC);
        let Some(unknown) = unknown.filter(|_| encoding == Protobuf) else {
            envelope.message = object;
            return Ok(envelope);
        };
        let mut fields = Fields::new(unknown);
        loop {
            let from_here = fields.rest();
            match fields.next()? {
                // runtime.Unknown: typeMeta = 1, raw = 2.
                Some((1, value)) => envelope.type_meta = value.bytes()?,
                Some((2, value)) => {
                    (envelope.message, envelope.raw) = (value.bytes()?, from_here);
                }
                Some(_) => {}
                None => return Ok(envelope),
            }
        }
    }
}

/// What a `runtime.TypeMeta` says: `apiVersion` and `kind`.
pub(super) fn type_meta(message: &[u8]) -> Result<[Option<Value<'_>>; 2], EventError> {
    let mut said = [None; 2];
    let mut fields = Fields::new(message);
    while let Some((number, value)) = fields.next()? {
        match number {
            1 => said[0] = Some(value),
            2 => said[1] = Some(value),
            _ => {}
        }
    }
    Ok(said)
}

/// A text, which is not written where it is empty.
pub(super) fn text(value: Option<Value<'_>>) -> Result<&str, EventError> {
    value.map_or(Ok(""), Value::text)
}

/// Reads a Status. The numbers are those of `Status`, `StatusDetails` and `StatusCause` in
/// `k8s.io/apimachinery/pkg/apis/meta/v1/generated.proto`.
pub(super) fn status(message: &[u8]) -> Result<Status, EventError> {
    let mut status = Status::default();
    let mut fields = Fields::new(message);
    while let Some((number, value)) = fields.next()? {
        match number {
            2 => status.status = value.text()?.into(),
            3 => status.message = value.text()?.into(),
            4 => status.reason = value.text()?.into(),
            5 => {
                let mut details = StatusDetails::default();
                let mut fields = Fields::new(value.bytes()?);
                while let Some((number, value)) = fields.next()? {
                    match number {
                        1 => details.name = value.text()?.into(),
                        2 => details.group = value.text()?.into(),
                        3 => details.kind = value.text()?.into(),
                        4 => details.causes.push(cause(value.bytes()?)?),
                        5 => {
                            let seconds = u32::try_from(value.number()?);
                            details.retry_after_seconds = seconds.unwrap_or(0);
                        }
                        6 => details.uid = value.text()?.into(),
                        _ => {}
                    }
                }
                status.details = Some(details);
            }
            6 => status.code = u16::try_from(value.number()?).unwrap_or(0),
            _ => {}
        }
    }
    Ok(status)
}

fn cause(message: &[u8]) -> Result<StatusCause, EventError> {
    let mut cause = StatusCause::default();
    let mut fields = Fields::new(message);
    while let Some((number, value)) = fields.next()? {
        match number {
            1 => cause.reason = value.text()?.into(),
            2 => cause.message = value.text()?.into(),
            3 => cause.field = value.text()?.into(),
            _ => {}
        }
    }
    Ok(cause)
}

//! The eight bytes that every frame starts with.

use bytes::{BufMut, BytesMut};

use super::{FLAG_FIN, HEAD, SpdyError, StreamId, u32_at};
use crate::limits;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Head {
    Data {
        stream: StreamId,
        fin: bool,
        length: usize,
    },
    Control {
        kind: u16,
        flags: u8,
        length: usize,
    },
}

impl Head {
    /// Reads the head at the front of `input`; `None` if it is incomplete.
    pub(super) fn parse(input: &[u8]) -> Result<Option<Self>, SpdyError> {
        if input.len() < HEAD {
            return Ok(None);
        }
        let (first, second) = (u32_at(input, 0), u32_at(input, 4));
        let flags = (second >> 24) as u8;
        let length = (second & 0x00ff_ffff) as usize;
        if first >> 31 == 0 {
            let stream = StreamId::new(first).ok_or(SpdyError::StreamZero("DATA"))?;
            let fin = flags & FLAG_FIN != 0;
            return Ok(Some(Self::Data {
                stream,
                fin,
                length,
            }));
        }
        let version = (first >> 16) as u16 & 0x7fff;
        if version != 3 {
            return Err(SpdyError::Version(version));
        }
        if length > limits::SPDY_CONTROL_FRAME {
            return Err(SpdyError::TooLarge(length));
        }
        Ok(Some(Self::Control {
            kind: first as u16,
            flags,
            length,
        }))
    }

    /// Bytes of what follows.
    pub(super) fn length(&self) -> usize {
        match *self {
            Self::Data { length, .. } | Self::Control { length, .. } => length,
        }
    }

    pub(super) fn encode_control(kind: u16, flags: u8, length: usize, out: &mut BytesMut) {
        out.reserve(HEAD + length);
        out.put_u16(0x8003);
        out.put_u16(kind);
        out.put_u32(u32::from(flags) << 24 | length as u32);
    }
}

//! The head of a frame: in flow its bytes, out comes a [`FrameHeader`], and back.

use bytes::BufMut;

use super::WebSocketError;

/// The longest frame header: two bytes, eight of length, four of mask.
pub const MAX_HEADER: usize = 14;

/// "All control frames MUST have a payload length of 125 bytes or less" (RFC 6455, section 5.5).
pub(super) const MAX_CONTROL: u64 = 125;

/// What a frame is (RFC 6455, section 5.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Opcode {
    /// More of the message that an earlier frame began.
    Continuation = 0,
    /// Text.
    Text = 1,
    /// Bytes.
    Binary = 2,
    /// The sender sends nothing after this.
    Close = 8,
    /// A question for a sign of life.
    Ping = 9,
    /// The answer to it.
    Pong = 10,
}

impl Opcode {
    #[inline]
    const fn from_bits(bits: u8) -> Option<Self> {
        Some(match bits {
            0 => Self::Continuation,
            1 => Self::Text,
            2 => Self::Binary,
            8 => Self::Close,
            9 => Self::Ping,
            10 => Self::Pong,
            _ => return None,
        })
    }

    #[inline]
    pub(super) const fn is_control(self) -> bool {
        self as u8 >= 8
    }
}

/// The part of a frame before its payload.
///
/// ```
/// use kubewire::wire::websocket::{FrameHeader, Opcode};
///
/// let header = FrameHeader { fin: true, opcode: Opcode::Binary, mask: None, length: 5 };
/// let mut bytes = Vec::new();
/// header.encode(&mut bytes);
/// assert_eq!(bytes, [0x82, 5]);
/// assert_eq!(FrameHeader::parse(&bytes)?, Some((header, 2)));
/// # Ok::<(), kubewire::wire::websocket::WebSocketError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameHeader {
    /// Whether the message ends with this frame.
    pub fin: bool,
    /// What the frame is.
    pub opcode: Opcode,
    /// The masking key, from client to server.
    pub mask: Option<[u8; 4]>,
    /// Bytes of payload that follow.
    pub length: u64,
}

impl FrameHeader {
    /// Reads a header from the front of `input`: it and its own length, or `None` if it is not
    /// whole yet.
    ///
    /// # Errors
    ///
    /// If the bytes break a rule that can be seen in one header.
    #[inline]
    pub fn parse(input: &[u8]) -> Result<Option<(Self, usize)>, WebSocketError> {
        let [first, second, ..] = *input else {
            return Ok(None);
        };
        // "MUST be 0 unless an extension is negotiated" (section 5.2); none is ever offered.
        if first & 0x70 != 0 {
            return Err(WebSocketError::ReservedBits);
        }
        let fin = first & 0x80 != 0;
        let opcode =
            Opcode::from_bits(first & 0x0f).ok_or(WebSocketError::UnknownOpcode(first & 0x0f))?;
        let masked = second & 0x80 != 0;
        let (length, mut at) = match second & 0x7f {
            126 => match input.get(2..4) {
                Some(b) => (u64::from(u16::from_be_bytes([b[0], b[1]])), 4),
                None => return Ok(None),
            },
            127 => match input.get(2..10).and_then(|b| b.try_into().ok()) {
                Some(b) => (u64::from_be_bytes(b), 10),
                None => return Ok(None),
            },
            short => (u64::from(short), 2),
        };
        // "Control frames ... MUST NOT be fragmented" (section 5.5).
        if opcode.is_control() && (!fin || length > MAX_CONTROL) {
            return Err(WebSocketError::ControlFrame);
        }
        let mask = if masked {
            let Some(key) = input.get(at..at + 4).and_then(|b| b.try_into().ok()) else {
                return Ok(None);
            };
            at += 4;
            Some(key)
        } else {
            None
        };
        Ok(Some((
            Self {
                fin,
                opcode,
                mask,
                length,
            },
            at,
        )))
    }

    /// Writes the header, at most [`MAX_HEADER`] bytes.
    pub fn encode(&self, out: &mut impl BufMut) {
        out.put_u8((u8::from(self.fin) << 7) | self.opcode as u8);
        let masked = u8::from(self.mask.is_some()) << 7;
        match self.length {
            length @ 0..=125 => out.put_u8(masked | length as u8),
            length @ 126..=0xffff => {
                out.put_u8(masked | 126);
                out.put_u16(length as u16);
            }
            length => {
                out.put_u8(masked | 127);
                out.put_u64(length);
            }
        }
        if let Some(key) = self.mask {
            out.put_slice(&key);
        }
    }
}

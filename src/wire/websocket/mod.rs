//! WebSocket frames (RFC 6455): in flow the bytes of a connection after its handshake, out come
//! whole [`Message`]s whose payloads are slices of the buffer that was read into.
//!
//! [`Decoder`] puts fragments together and checks what the RFC says each end must check;
//! [`FrameHeader`] and [`apply_mask`] are the other direction. A frame that arrives whole is
//! neither copied nor does it cost more the longer it is, except that a server unmasks it in
//! place.

mod decoder;
mod header;
mod mask;

use bytes::{BufMut as _, Bytes, BytesMut};

use self::header::MAX_CONTROL;
pub use self::{
    decoder::Decoder,
    header::{FrameHeader, MAX_HEADER, Opcode},
    mask::apply_mask,
};

#[cfg(any(feature = "client", feature = "server"))]
pub(crate) use self::mask::masked_copy;

/// One whole message.
///
/// That of a text message is UTF-8.
///
/// ```
/// use kubewire::{Role, wire::websocket::{Decoder, Message}};
///
/// let mut input = bytes::BytesMut::from(&b"\x82\x05hello"[..]);
/// let message = Decoder::new(Role::Client, 1024).decode(&mut input)?;
/// assert_eq!(message, Some(Message::Binary("hello".into())));
/// # Ok::<(), kubewire::wire::websocket::WebSocketError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// A text message.
    Text(Bytes),
    /// A binary message.
    Binary(Bytes),
    /// A ping; whoever owns the connection owes a pong with the same payload.
    Ping(Bytes),
    /// A pong.
    Pong(Bytes),
    /// The peer sends nothing after this.
    Close(Option<Close>),
}

/// Why a peer closes (RFC 6455, section 7.4).
///
/// ```
/// use kubewire::wire::websocket::Close;
///
/// let close = Close { code: Close::NORMAL, reason: "done".to_owned() };
/// assert_eq!(&close.to_payload()[..], b"\x03\xe8done");
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Close {
    /// The status code: 1000 is a normal end.
    pub code: u16,
    /// The reason, for people; empty where none was given.
    pub reason: String,
}

impl Close {
    /// "1000 indicates a normal closure" (section 7.4.1).
    pub const NORMAL: u16 = 1000;
    /// "1011 indicates that a server is terminating the connection because it encountered an
    /// unexpected condition" (section 7.4.1).
    pub const INTERNAL: u16 = 1011;

    /// Section 7.4 and IANA's registry: 1004 is reserved; 1005, 1006 and 1015 "MUST NOT be set as a
    /// status code in a Close control frame"; 1016 to 2999 are for revisions of the protocol.
    pub(crate) const fn may_be_sent(code: u16) -> bool {
        matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999)
    }

    fn parse(payload: &[u8]) -> Result<Option<Self>, WebSocketError> {
        match payload {
            [] => Ok(None),
            // "If there is a body, the first two bytes of the body MUST be a 2-byte unsigned
            // integer" (section 5.5.1).
            [_] => Err(WebSocketError::CloseBody),
            [high, low, reason @ ..] => {
                let code = u16::from_be_bytes([*high, *low]);
                if !Self::may_be_sent(code) {
                    return Err(WebSocketError::CloseCode(code));
                }
                // Section 8.1: a reason is text.
                let reason = std::str::from_utf8(reason).map_err(|_| WebSocketError::Utf8)?;
                let reason = reason.to_owned();
                Ok(Some(Self { code, reason }))
            }
        }
    }

    /// The payload of a close frame; the reason is cut where a control frame ends.
    pub fn to_payload(&self) -> Bytes {
        let mut end = self.reason.len().min(MAX_CONTROL as usize - 2);
        while !self.reason.is_char_boundary(end) {
            end -= 1;
        }
        let mut payload = BytesMut::with_capacity(2 + end);
        payload.put_u16(self.code);
        payload.put_slice(&self.reason.as_bytes()[..end]);
        payload.freeze()
    }
}

/// How a peer breaks RFC 6455, or this side's bound.
///
/// ```
/// use kubewire::{Role, wire::websocket::{Decoder, WebSocketError}};
///
/// let mut input = bytes::BytesMut::from(&b"HTTP/1.1 200 OK"[..]);
/// let error = Decoder::new(Role::Client, 1024).decode(&mut input).unwrap_err();
/// assert_eq!(error, WebSocketError::ReservedBits);
/// ```
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WebSocketError {
    /// A reserved bit is set although no extension was agreed on.
    #[error("a frame has reserved bits set")]
    ReservedBits,
    /// An opcode that the RFC does not define.
    #[error("a frame has the unknown opcode {0:#x}")]
    UnknownOpcode(u8),
    /// A control frame in fragments, or of more than 125 bytes.
    #[error("a control frame is fragmented or too long")]
    ControlFrame,
    /// A close frame of one byte.
    #[error("a close frame has a body of one byte")]
    CloseBody,
    /// A close frame with a status code that nobody may send.
    #[error("a close frame has the status code {0}, which is none to be sent")]
    CloseCode(u16),
    /// A text message or the reason in a close frame that is not UTF-8.
    #[error("a text message or the reason of a close is not UTF-8")]
    Utf8,
    /// A masked frame from a server.
    #[error("a server's frame is masked")]
    Masked,
    /// An unmasked frame from a client.
    #[error("a client's frame is not masked")]
    Unmasked,
    /// A continuation of nothing, or a new message inside another.
    #[error("fragments of a message are out of order")]
    Fragments,
    /// A message that is, or says it is, longer than allowed.
    #[error("a message of {length} bytes is longer than the {limit} that are allowed")]
    TooLong {
        /// Its length so far, in bytes.
        length: u64,
        /// The bound, in bytes.
        limit: usize,
    },
}

impl WebSocketError {
    /// The status code with which to close because of it (RFC 6455, section 7.4.1): 1007 "data
    /// within a message that was not consistent with the type", 1009 "a message that is too big
    /// for it to process", 1002 "a protocol error".
    pub const fn close_code(&self) -> u16 {
        match self {
            Self::Utf8 => 1007,
            Self::TooLong { .. } => 1009,
            _ => 1002,
        }
    }
}

#[cfg(test)]
mod tests;

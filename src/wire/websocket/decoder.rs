//! Whole messages out of the bytes of one direction.

use bytes::{Buf as _, BytesMut};

use super::{Close, FrameHeader, Message, Opcode, WebSocketError, apply_mask};
use crate::Role;

/// What is reserved at once for a frame whose length has only been announced.
const RESERVE_STEP: usize = 256 << 10;

/// Takes the bytes of one direction apart into messages.
///
/// ```
/// use kubewire::{Role, wire::websocket::{Decoder, Message}};
///
/// let mut decoder = Decoder::new(Role::Client, 1024);
/// let mut input = bytes::BytesMut::from(&b"\x82\x05hel"[..]);
/// assert_eq!(decoder.decode(&mut input)?, None);
/// input.extend_from_slice(b"lo");
/// assert_eq!(decoder.decode(&mut input)?, Some(Message::Binary("hello".into())));
/// # Ok::<(), kubewire::wire::websocket::WebSocketError>(())
/// ```
#[derive(Debug)]
pub struct Decoder {
    role: Role,
    limit: usize,
    header: Option<FrameHeader>,
    fragments: Option<Fragments>,
}

/// A message whose last fragment has not arrived.
#[derive(Debug)]
struct Fragments {
    opcode: Opcode,
    whole: BytesMut,
    /// Bytes of text known to be UTF-8; behind them at most a part of one character.
    utf8: usize,
}

impl Fragments {
    fn new(opcode: Opcode, whole: BytesMut, fin: bool) -> Result<Self, WebSocketError> {
        let mut fragments = Self {
            opcode,
            whole,
            utf8: 0,
        };
        fragments.check(fin)?;
        Ok(fragments)
    }

    /// Section 8.1: text is UTF-8; a fragment may end within a character, a message may not.
    fn check(&mut self, fin: bool) -> Result<(), WebSocketError> {
        if self.opcode != Opcode::Text {
            return Ok(());
        }
        match std::str::from_utf8(&self.whole[self.utf8..]) {
            Ok(_) => self.utf8 = self.whole.len(),
            Err(error) if !fin && error.error_len().is_none() => self.utf8 += error.valid_up_to(),
            Err(_) => return Err(WebSocketError::Utf8),
        }
        Ok(())
    }
}

impl Decoder {
    /// A decoder for what arrives at the end `role`, with messages of at most `limit` bytes.
    pub fn new(role: Role, limit: usize) -> Self {
        Self {
            role,
            limit,
            header: None,
            fragments: None,
        }
    }

    /// Takes the next message from the front of `input`, or `None` if it is not whole yet; then
    /// the bytes that have been understood are gone from `input` all the same, and the rest stays.
    ///
    /// # Errors
    ///
    /// If the peer breaks the protocol. Nothing after that can be understood.
    #[inline]
    pub fn decode(&mut self, input: &mut BytesMut) -> Result<Option<Message>, WebSocketError> {
        // Nearly every frame that a client gets.
        if let Some((head, length)) = self.whole_message(input) {
            let mut payload = input.split_to(head + length).freeze();
            payload.advance(head);
            return Ok(Some(Message::Binary(payload)));
        }
        self.decode_any(input)
    }

    /// The lengths of head and payload, if the input begins with a binary message that is whole
    /// in its one frame and not masked, as it should be.
    #[inline]
    fn whole_message(&self, input: &[u8]) -> Option<(usize, usize)> {
        let (head, length) = match *input {
            [0x82, length @ ..=125, ..] => (2, usize::from(length)),
            [0x82, 126, high, low, ..] => (4, usize::from(u16::from_be_bytes([high, low]))),
            _ => return None,
        };
        let is_expected =
            self.role == Role::Client && self.header.is_none() && self.fragments.is_none();
        let is_whole = length <= input.len() - head && length <= self.limit;
        (is_expected && is_whole).then_some((head, length))
    }

    fn decode_any(&mut self, input: &mut BytesMut) -> Result<Option<Message>, WebSocketError> {
        loop {
            let (header, head) = match self.header {
                Some(header) => (header, 0),
                None => match FrameHeader::parse(input)? {
                    None => return Ok(None),
                    Some((header, head)) => {
                        self.check(&header)?;
                        (header, head)
                    }
                },
            };
            // `check` has bounded the length by the limit, a usize.
            let length = header.length as usize;
            if input.len() - head < length {
                if head > 0 {
                    input.advance(head);
                    self.header = Some(header);
                }
                return Ok(None);
            }
            self.header = None;
            let mut frame = input.split_to(head + length);
            if let Some(key) = header.mask {
                apply_mask(&mut frame[head..], key, 0);
            }
            // Nearly every frame that a server gets.
            if header.fin && header.opcode == Opcode::Binary {
                let mut payload = frame.freeze();
                payload.advance(head);
                return Ok(Some(Message::Binary(payload)));
            }
            frame.advance(head);
            if let Some(message) = self.assemble(header, frame)? {
                return Ok(Some(message));
            }
        }
    }

    /// Bytes that the frame under way still lacks, if its header has been read; never more than a
    /// step, so that an announced length alone reserves little.
    pub fn missing(&self, input: &BytesMut) -> usize {
        self.header.map_or(0, |header| {
            (header.length as usize)
                .saturating_sub(input.len())
                .min(RESERVE_STEP)
        })
    }

    #[inline]
    fn check(&self, header: &FrameHeader) -> Result<(), WebSocketError> {
        match (self.role, header.mask) {
            // "A client MUST close a connection if it detects a masked frame", and a server
            // "upon receiving a frame that is not masked" (section 5.1).
            (Role::Client, Some(_)) => return Err(WebSocketError::Masked),
            (Role::Server, None) => return Err(WebSocketError::Unmasked),
            _ => {}
        }
        let before = match (&self.fragments, header.opcode) {
            (_, opcode) if opcode.is_control() => 0,
            (Some(before), Opcode::Continuation) => before.whole.len() as u64,
            (None, Opcode::Text | Opcode::Binary) => 0,
            _ => return Err(WebSocketError::Fragments),
        };
        let length = before.saturating_add(header.length);
        if length > self.limit as u64 {
            return Err(WebSocketError::TooLong {
                length,
                limit: self.limit,
            });
        }
        Ok(())
    }

    fn assemble(
        &mut self,
        header: FrameHeader,
        payload: BytesMut,
    ) -> Result<Option<Message>, WebSocketError> {
        let fin = header.fin;
        let message = match header.opcode {
            Opcode::Continuation => {
                let Some(mut message) = self.fragments.take() else {
                    return Err(WebSocketError::Fragments);
                };
                message.whole.extend_from_slice(&payload);
                message.check(fin)?;
                message
            }
            opcode => Fragments::new(opcode, payload, fin)?,
        };
        if !fin {
            self.fragments = Some(message);
            return Ok(None);
        }
        let payload = message.whole.freeze();
        Ok(Some(match message.opcode {
            Opcode::Text => Message::Text(payload),
            Opcode::Binary | Opcode::Continuation => Message::Binary(payload),
            Opcode::Ping => Message::Ping(payload),
            Opcode::Pong => Message::Pong(payload),
            Opcode::Close => Message::Close(Close::parse(&payload)?),
        }))
    }
}

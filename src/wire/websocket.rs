//! WebSocket frames (RFC 6455): in flow the bytes of a connection after its handshake, out come
//! whole [`Message`]s whose payloads are slices of the buffer that was read into.
//!
//! [`Decoder`] puts fragments together and checks what the RFC says each end must check;
//! [`FrameHeader`] and [`apply_mask`] are the other direction. A frame that arrives whole is
//! neither copied nor does it cost more the longer it is, except that a server unmasks it in
//! place.

use bytes::{Buf as _, BufMut, Bytes, BytesMut};

use crate::Role;

/// The longest frame header: two bytes, eight of length, four of mask.
pub const MAX_HEADER: usize = 14;

/// "All control frames MUST have a payload length of 125 bytes or less" (RFC 6455, section 5.5).
const MAX_CONTROL: u64 = 125;

/// What is reserved at once for a frame whose length has only been announced.
const RESERVE_STEP: usize = 256 << 10;

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

    const fn is_control(self) -> bool {
        self as u8 >= 8
    }
}

/// The part of a frame before its payload.
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

/// Masks or unmasks `data`, which begins `offset` bytes into its frame (RFC 6455, section 5.3).
pub fn apply_mask(data: &mut [u8], key: [u8; 4], offset: usize) {
    let mut wide = [0; 8];
    for (i, byte) in wide.iter_mut().enumerate() {
        *byte = key[(i + offset) % 4];
    }
    let wide = u64::from_ne_bytes(wide);
    let mut words = data.chunks_exact_mut(8);
    for word in &mut words {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(word);
        word.copy_from_slice(&(u64::from_ne_bytes(bytes) ^ wide).to_ne_bytes());
    }
    for (byte, key) in words.into_remainder().iter_mut().zip(wide.to_ne_bytes()) {
        *byte ^= key;
    }
}

/// One whole message.
///
/// The payload of a text message is not checked to be UTF-8: whatever reads it (base64, JSON)
/// refuses what is not its own.
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

    fn parse(payload: &[u8]) -> Result<Option<Self>, WebSocketError> {
        match payload {
            [] => Ok(None),
            // "If there is a body, the first two bytes of the body MUST be a 2-byte unsigned
            // integer" (section 5.5.1).
            [_] => Err(WebSocketError::CloseBody),
            [high, low, reason @ ..] => Ok(Some(Self {
                code: u16::from_be_bytes([*high, *low]),
                reason: String::from_utf8_lossy(reason).into_owned(),
            })),
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

/// Takes the bytes of one direction apart into messages.
#[derive(Debug)]
pub struct Decoder {
    role: Role,
    limit: usize,
    header: Option<FrameHeader>,
    fragments: Option<(Opcode, BytesMut)>,
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
            (Some((_, before)), Opcode::Continuation) => before.len() as u64,
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
        let (opcode, payload) = match (header.opcode, header.fin) {
            (Opcode::Continuation, fin) => {
                let Some((opcode, mut whole)) = self.fragments.take() else {
                    return Err(WebSocketError::Fragments);
                };
                whole.extend_from_slice(&payload);
                if !fin {
                    self.fragments = Some((opcode, whole));
                    return Ok(None);
                }
                (opcode, whole)
            }
            (opcode, false) => {
                self.fragments = Some((opcode, payload));
                return Ok(None);
            }
            (opcode, true) => (opcode, payload),
        };
        let payload = payload.freeze();
        Ok(Some(match opcode {
            Opcode::Text => Message::Text(payload),
            Opcode::Binary | Opcode::Continuation => Message::Binary(payload),
            Opcode::Ping => Message::Ping(payload),
            Opcode::Pong => Message::Pong(payload),
            Opcode::Close => Message::Close(Close::parse(&payload)?),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(fin: bool, opcode: Opcode, mask: Option<[u8; 4]>, payload: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        FrameHeader {
            fin,
            opcode,
            mask,
            length: payload.len() as u64,
        }
        .encode(&mut out);
        let start = out.len();
        out.extend_from_slice(payload);
        if let Some(key) = mask {
            apply_mask(&mut out[start..], key, 0);
        }
        out
    }

    fn decode_all(role: Role, chunks: &[&[u8]]) -> Result<Vec<Message>, WebSocketError> {
        let mut decoder = Decoder::new(role, 1 << 20);
        let mut input = BytesMut::new();
        let mut messages = Vec::new();
        for chunk in chunks {
            input.extend_from_slice(chunk);
            while let Some(message) = decoder.decode(&mut input)? {
                messages.push(message);
            }
        }
        Ok(messages)
    }

    #[test]
    fn a_header_reads_as_it_was_written() {
        for length in [
            0,
            1,
            125,
            126,
            127,
            65535,
            65536,
            u64::from(u32::MAX),
            u64::MAX,
        ] {
            for mask in [None, Some([1, 2, 3, 4])] {
                let header = FrameHeader {
                    fin: true,
                    opcode: Opcode::Binary,
                    mask,
                    length,
                };
                let mut wire = Vec::new();
                header.encode(&mut wire);
                assert_eq!(FrameHeader::parse(&wire), Ok(Some((header, wire.len()))));
                for cut in 0..wire.len() {
                    assert_eq!(FrameHeader::parse(&wire[..cut]), Ok(None));
                }
            }
        }
    }

    #[test]
    fn masking_works_at_every_offset_and_length() {
        let key = [0x12, 0x34, 0x56, 0x78];
        for offset in 0..9 {
            for length in 0..40 {
                let data: Vec<u8> = (0..length).collect();
                let mut masked = data.clone();
                apply_mask(&mut masked, key, offset);
                for (i, byte) in masked.iter().enumerate() {
                    assert_eq!(*byte, data[i] ^ key[(i + offset) % 4]);
                }
            }
        }
    }

    #[test]
    fn messages_are_the_same_at_every_split() {
        let wire = [
            frame(true, Opcode::Binary, None, b"one"),
            frame(false, Opcode::Text, None, b"fr"),
            frame(true, Opcode::Ping, None, b"?"),
            frame(false, Opcode::Continuation, None, b""),
            frame(true, Opcode::Continuation, None, b"agment"),
            frame(true, Opcode::Binary, None, &[7; 300]),
            frame(true, Opcode::Close, None, b"\x03\xe8bye"),
        ]
        .concat();
        let expected = [
            Message::Binary("one".into()),
            Message::Ping("?".into()),
            Message::Text("fragment".into()),
            Message::Binary(vec![7; 300].into()),
            Message::Close(Some(Close {
                code: 1000,
                reason: "bye".into(),
            })),
        ];
        for split in 0..=wire.len() {
            let (a, b) = wire.split_at(split);
            assert_eq!(
                decode_all(Role::Client, &[a, b]).unwrap(),
                expected,
                "split at {split}"
            );
        }
    }

    #[test]
    fn a_whole_frame_is_not_copied() {
        let mut input = BytesMut::from(&frame(true, Opcode::Binary, None, &[1; 1000])[..]);
        let start = input[4..].as_ptr();
        let mut decoder = Decoder::new(Role::Client, 1 << 20);
        let Some(Message::Binary(payload)) = decoder.decode(&mut input).unwrap() else {
            panic!("no message");
        };
        assert_eq!(payload.as_ptr(), start);
    }

    #[test]
    fn a_server_unmasks() {
        let wire = frame(true, Opcode::Binary, Some([9, 8, 7, 6]), b"masked payload");
        assert_eq!(
            decode_all(Role::Server, &[&wire]).unwrap(),
            [Message::Binary("masked payload".into())]
        );
    }

    #[test]
    fn what_breaks_the_protocol_is_named() {
        use WebSocketError as E;
        let cases: [(Role, Vec<u8>, E); 10] = [
            (Role::Client, vec![0xc2, 0], E::ReservedBits),
            (Role::Client, vec![0x83, 0], E::UnknownOpcode(3)),
            (Role::Client, vec![0x09, 0], E::ControlFrame),
            (Role::Client, vec![0x89, 126, 0, 126], E::ControlFrame),
            (Role::Client, vec![0x88, 1, 3], E::CloseBody),
            (
                Role::Client,
                frame(true, Opcode::Binary, Some([0; 4]), b"x"),
                E::Masked,
            ),
            (
                Role::Server,
                frame(true, Opcode::Binary, None, b"x"),
                E::Unmasked,
            ),
            (
                Role::Client,
                frame(true, Opcode::Continuation, None, b"x"),
                E::Fragments,
            ),
            (
                Role::Client,
                [
                    frame(false, Opcode::Text, None, b"x"),
                    frame(true, Opcode::Text, None, b"x"),
                ]
                .concat(),
                E::Fragments,
            ),
            (
                Role::Client,
                vec![0x82, 127, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
                E::TooLong {
                    length: u64::MAX,
                    limit: 1 << 20,
                },
            ),
        ];
        for (role, wire, error) in cases {
            assert_eq!(decode_all(role, &[&wire]), Err(error));
        }
    }

    #[test]
    fn fragments_cannot_add_up_past_the_bound() {
        let half = vec![0; 600 << 10];
        let wire = [
            frame(false, Opcode::Binary, None, &half),
            frame(true, Opcode::Continuation, None, &half),
        ]
        .concat();
        assert_eq!(
            decode_all(Role::Client, &[&wire]),
            Err(WebSocketError::TooLong {
                length: 1200 << 10,
                limit: 1 << 20
            })
        );
    }
}

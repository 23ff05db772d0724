//! Port-forward over channels: `v4.channel.k8s.io` and `v4.base64.channel.k8s.io`.
//!
//! In flow WebSocket messages; out come a port's index, which of its two channels, and the
//! payload. The ports are those of the request's `ports` parameters, in order. Port *i* has the
//! channel 2*i* for data, both ways, and 2*i*+1 for the server's error text; the server's first
//! two bytes on each are the port's number, little-endian
//! (`k8s.io/cri-streaming/pkg/streaming/portforward/websocket.go`).
//!
//! ```text
//! binary:   | channel (8) | payload                |     a binary message
//! base64:   | '0' + channel | payload, in base64   |     a text message
//! ```

use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::{Buf, Bytes, BytesMut};

use super::channel::Encoding;

/// Ports that one WebSocket can carry: a channel is a byte, and a port has two.
pub const MAX_PORTS: usize = 127;

/// Ports that one WebSocket can carry in base64: the channel's character must be ASCII, since text
/// messages are UTF-8.
pub const MAX_PORTS_BASE64: usize = 39;

impl Encoding {
    /// Ports that one WebSocket can carry.
    pub fn max_ports(self) -> usize {
        match self {
            Self::Binary => MAX_PORTS,
            Self::Base64 => MAX_PORTS_BASE64,
        }
    }
}

/// One of the channels of a port.
///
/// ```
/// use kubewire::wire::{channel::Encoding, port_channel::PortChannel};
///
/// let message = PortChannel::data(1).message(b"hi", Encoding::Binary);
/// assert_eq!(message, "\x02hi"); // the second port's first channel
/// let parsed = PortChannel::parse(message, Encoding::Binary)?;
/// assert_eq!(parsed, Some((PortChannel::data(1), "hi".into())));
/// # Ok::<(), kubewire::wire::port_channel::PortChannelError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PortChannel {
    /// The port's index in the request.
    pub index: u8,
    /// Whether it is the channel of the server's error text, not that of the data.
    pub error: bool,
}

impl PortChannel {
    /// The data channel of the port with this index.
    pub fn data(index: u8) -> Self {
        Self {
            index,
            error: false,
        }
    }

    /// The error channel of the port with this index.
    pub fn error(index: u8) -> Self {
        Self { index, error: true }
    }

    /// The first byte of a message on this channel.
    pub fn head(self, encoding: Encoding) -> u8 {
        let channel = self.index << 1 | u8::from(self.error);
        match encoding {
            Encoding::Binary => channel,
            Encoding::Base64 => b'0'.wrapping_add(channel),
        }
    }

    /// Takes a message apart. The payload is a slice of the message, or what the base64 in it
    /// says. `None` for a message without even a channel: servers skip them, and so they serve to
    /// keep a connection from being idle.
    ///
    /// # Errors
    ///
    /// If the message is no base64 where it should be.
    pub fn parse(
        mut message: Bytes,
        encoding: Encoding,
    ) -> Result<Option<(Self, Bytes)>, PortChannelError> {
        if message.is_empty() {
            return Ok(None);
        }
        let head = message.get_u8();
        let channel = match encoding {
            Encoding::Binary => head,
            Encoding::Base64 => {
                message = BASE64_STANDARD
                    .decode(&message)
                    .map_err(|_| PortChannelError::Base64)?
                    .into();
                head.checked_sub(b'0').ok_or(PortChannelError::Base64)?
            }
        };
        let channel = Self {
            index: channel >> 1,
            error: channel & 1 == 1,
        };
        Ok(Some((channel, message)))
    }

    /// A whole message, with a copy of the payload.
    pub fn message(self, payload: &[u8], encoding: Encoding) -> Bytes {
        let head = self.head(encoding);
        match encoding {
            Encoding::Binary => {
                let mut message = BytesMut::with_capacity(1 + payload.len());
                message.extend_from_slice(&[head]);
                message.extend_from_slice(payload);
                message.freeze()
            }
            Encoding::Base64 => {
                let mut message = String::from(char::from(head));
                BASE64_STANDARD.encode_string(payload, &mut message);
                message.into()
            }
        }
    }
}

/// The two bytes at the start of a channel that repeat the port's number.
///
/// ```
/// use kubewire::wire::port_channel::Preamble;
///
/// let mut preamble = Preamble::default();
/// let mut payload = bytes::Bytes::from_static(b"\x90\x1fhello");
/// assert_eq!(preamble.take(&mut payload), Some(8080));
/// assert_eq!(payload, "hello");
/// ```
#[derive(Debug, Clone, Copy, Default)]
pub struct Preamble {
    first: Option<u8>,
    done: bool,
}

impl Preamble {
    /// Takes what is missing off the front of `payload`. `Some` once, with the number; what stays
    /// in `payload` is the channel's content.
    pub fn take(&mut self, payload: &mut Bytes) -> Option<u16> {
        while !self.done && payload.has_remaining() {
            let byte = payload.get_u8();
            match self.first {
                None => self.first = Some(byte),
                Some(first) => {
                    self.done = true;
                    return Some(u16::from_le_bytes([first, byte]));
                }
            }
        }
        None
    }

    /// Whether both bytes have been taken.
    pub fn is_done(&self) -> bool {
        self.done
    }
}

/// Why a message of a port-forward over channels is not acceptable.
///
/// ```
/// use kubewire::wire::{channel::Encoding, port_channel::{PortChannel, PortChannelError}};
///
/// let error = PortChannel::parse("0?".into(), Encoding::Base64).unwrap_err();
/// assert_eq!(error, PortChannelError::Base64);
/// ```
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PortChannelError {
    /// A message that should be a character and base64, and is not.
    #[error("a message that is not base64")]
    Base64,
    /// A channel of a port that was not asked for, or that the sender may not write.
    #[error("a message on channel {0}, which is not open")]
    Channel(u8),
    /// The server announces another port than the one asked for.
    #[error("the channel of port {asked} is announced as port {announced}")]
    Port {
        /// The port that the request named.
        asked: u16,
        /// The port that the server names.
        announced: u16,
    },
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn channels_are_numbered_as_the_kubelet_does() {
        assert_eq!(PortChannel::data(0).head(Encoding::Binary), 0);
        assert_eq!(PortChannel::error(0).head(Encoding::Binary), 1);
        assert_eq!(PortChannel::error(126).head(Encoding::Binary), 253);
        assert_eq!(PortChannel::data(1).head(Encoding::Base64), b'2');
        assert!(PortChannel::error(MAX_PORTS_BASE64 as u8 - 1).head(Encoding::Base64) < 0x80);
        assert_eq!(
            PortChannel::data(1).message(b"hi", Encoding::Binary),
            "\x02hi"
        );
        assert_eq!(
            PortChannel::data(1).message(b"hi", Encoding::Base64),
            "2aGk="
        );
    }

    #[test]
    fn a_binary_payload_is_a_slice_of_the_message() {
        let message = Bytes::from_static(b"\x03text");
        let (channel, payload) = PortChannel::parse(message.clone(), Encoding::Binary)
            .unwrap()
            .unwrap();
        assert_eq!(channel, PortChannel::error(1));
        assert_eq!(payload.as_ptr(), message[1..].as_ptr());
        assert_eq!(payload, "text");
    }

    #[test]
    fn messages_without_a_channel_are_skipped() {
        for encoding in [Encoding::Binary, Encoding::Base64] {
            assert_eq!(PortChannel::parse(Bytes::new(), encoding), Ok(None));
        }
    }

    #[test]
    fn what_is_not_base64_is_refused() {
        for message in ["2a", "2!!!!", "/aGk=", "\u{1}aGk="] {
            let outcome = PortChannel::parse(message.into(), Encoding::Base64);
            assert_eq!(outcome, Err(PortChannelError::Base64), "{message:?}");
        }
    }

    #[test]
    fn the_preamble_is_read_however_it_is_cut() {
        let content = Bytes::from_static(b"\xa0\x46rest");
        for cut in 0..=content.len() {
            let (mut preamble, mut port, mut rest) = (Preamble::default(), None, vec![]);
            for mut piece in [content.slice(..cut), content.slice(cut..)] {
                port = port.or(preamble.take(&mut piece));
                rest.extend_from_slice(&piece);
            }
            assert!(preamble.is_done());
            assert_eq!(
                (port, &rest[..]),
                (Some(18080), &b"rest"[..]),
                "cut at {cut}"
            );
        }
    }

    proptest! {
        #[test]
        fn messages_survive(
            index in 0..MAX_PORTS_BASE64 as u8,
            error: bool,
            payload in prop::collection::vec(any::<u8>(), 0..50),
        ) {
            let channel = PortChannel { index, error };
            for encoding in [Encoding::Binary, Encoding::Base64] {
                let message = channel.message(&payload, encoding);
                let parsed = PortChannel::parse(message, encoding).unwrap();
                prop_assert_eq!(parsed, Some((channel, Bytes::from(payload.clone()))));
            }
        }
    }
}

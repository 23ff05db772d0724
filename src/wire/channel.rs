//! One remotecommand message: a channel byte and a payload.
//!
//! In flows the payload of one WebSocket message of exec or attach; out comes a [`Frame`], its
//! payload a slice of the message. The other way, [`prefix`] gives the byte that goes before a
//! payload, and [`to_base64`] the text form of the base64 subprotocols.
//!
//! The channels are those of `k8s.io/apimachinery/pkg/util/remotecommand/constants.go`; the two
//! encodings those of `k8s.io/streaming/pkg/httpstream/wsstream/conn.go`.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::{Buf as _, Bytes};

/// The `CLOSE` signal of `v5.channel.k8s.io`, sent in place of a channel number.
const CLOSE: u8 = 255;

/// A stream of exec or attach.
///
/// ```
/// use kubewire::wire::channel::Channel;
///
/// assert_eq!(Channel::from_number(2), Some(Channel::Stderr));
/// assert_eq!(Channel::Stderr.name(), "stderr");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Channel {
    /// Input of the remote process, client to server.
    Stdin = 0,
    /// Output of the remote process; with a TTY its only output.
    Stdout = 1,
    /// Error output of the remote process; never with a TTY.
    Stderr = 2,
    /// How the work ended, server to client: a Status, or text in the oldest subprotocol.
    Error = 3,
    /// Terminal sizes, client to server.
    Resize = 4,
}

impl Channel {
    /// The channel of a number on the wire.
    pub const fn from_number(number: u8) -> Option<Self> {
        Some(match number {
            0 => Self::Stdin,
            1 => Self::Stdout,
            2 => Self::Stderr,
            3 => Self::Error,
            4 => Self::Resize,
            _ => return None,
        })
    }

    /// Its number on the wire.
    pub const fn number(self) -> u8 {
        self as u8
    }

    /// The stream's usual name: `stdin`, `stdout`, …
    pub const fn name(self) -> &'static str {
        match self {
            Self::Stdin => "stdin",
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
            Self::Error => "error",
            Self::Resize => "resize",
        }
    }
}

/// How payloads are written into messages.
///
/// ```
/// use kubewire::wire::channel::{Channel, Encoding, Frame, parse, to_base64};
///
/// let message = to_base64(Channel::Stdout, b"hi");
/// assert_eq!(message, "1aGk=");
/// let frame = parse(Encoding::Base64, false, message)?;
/// assert_eq!(frame, Some(Frame::Data(Channel::Stdout, "hi".into())));
/// # Ok::<(), kubewire::wire::channel::ChannelError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Encoding {
    /// The channel number as a byte, then the payload as it is.
    Binary,
    /// The channel number as an ASCII digit, then the payload in padded standard base64.
    Base64,
}

/// One message, taken apart.
///
/// ```
/// use kubewire::wire::channel::{Channel, Encoding, Frame, close_signal, parse};
///
/// let frame = parse(Encoding::Binary, true, "\x01hi".into())?;
/// assert_eq!(frame, Some(Frame::Data(Channel::Stdout, "hi".into())));
/// let end = parse(Encoding::Binary, true, close_signal(Channel::Stdin).to_vec().into())?;
/// assert_eq!(end, Some(Frame::Close(Channel::Stdin)));
/// # Ok::<(), kubewire::wire::channel::ChannelError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// Bytes of a channel. They may be none: servers begin with an empty message, and it is not
    /// the end of the stream.
    Data(Channel, Bytes),
    /// The channel ends here, `v5.channel.k8s.io` only.
    Close(Channel),
}

/// Why a message is not a [`Frame`].
///
/// ```
/// use kubewire::wire::channel::{ChannelError, Encoding, parse};
///
/// let error = parse(Encoding::Binary, true, "\x09hi".into()).unwrap_err();
/// assert_eq!(error, ChannelError::UnknownChannel(9));
/// ```
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ChannelError {
    /// A number that no channel has.
    #[error("a message names channel {0}, which does not exist")]
    UnknownChannel(u8),
    /// A payload that should be base64 is not.
    #[error("a message on channel {0} is not valid base64")]
    Base64(u8),
    /// A `CLOSE` signal that is not one channel number long, or names no channel.
    #[error("a CLOSE signal must name one channel")]
    MalformedClose,
    /// Data on a channel that flows the other way.
    #[error("a message on {0} came from the end that reads it")]
    WrongDirection(&'static str),
}

/// Takes one message apart. `None` for a message without even a channel number: peers send it to
/// keep a connection from idling, and readers skip it (`wsstream/conn.go`, `handle`).
///
/// `close` says whether the subprotocol has the `CLOSE` signal. The cost does not depend on the
/// payload's length, except that base64 is decoded into a buffer of its own.
///
/// # Errors
///
/// Where the message is none of the subprotocol's; nothing of it is to be used.
#[inline]
pub fn parse(
    encoding: Encoding,
    close: bool,
    mut message: Bytes,
) -> Result<Option<Frame>, ChannelError> {
    let Some(&first) = message.first() else {
        return Ok(None);
    };
    let number = match encoding {
        Encoding::Binary => first,
        Encoding::Base64 => first.wrapping_sub(b'0'),
    };
    let Some(channel) = Channel::from_number(number) else {
        // "[255, ch]", exactly two bytes (wsstream/conn.go, `handle`).
        return match (&message[1..], encoding) {
            (rest, Encoding::Binary) if close && first == CLOSE => match rest {
                [number] => match Channel::from_number(*number) {
                    Some(channel) => Ok(Some(Frame::Close(channel))),
                    None => Err(ChannelError::MalformedClose),
                },
                _ => Err(ChannelError::MalformedClose),
            },
            _ => Err(ChannelError::UnknownChannel(number)),
        };
    };
    message.advance(1);
    let payload = match encoding {
        Encoding::Binary => message,
        Encoding::Base64 => STANDARD
            .decode(&message)
            .map_err(|_| ChannelError::Base64(number))?
            .into(),
    };
    Ok(Some(Frame::Data(channel, payload)))
}

/// The byte that goes before a payload in a binary message.
#[inline]
pub const fn prefix(channel: Channel) -> u8 {
    channel.number()
}

/// The whole `CLOSE` signal for a channel.
pub const fn close_signal(channel: Channel) -> [u8; 2] {
    [CLOSE, channel.number()]
}

/// A whole text message of the base64 subprotocols.
pub fn to_base64(channel: Channel, payload: &[u8]) -> Bytes {
    let mut text = String::with_capacity(1 + payload.len().div_ceil(3) * 4);
    text.push(char::from(b'0' + channel.number()));
    STANDARD.encode_string(payload, &mut text);
    text.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_is_a_slice_of_the_message() {
        let message = Bytes::from_static(b"\x01hello");
        let Some(Frame::Data(Channel::Stdout, payload)) =
            parse(Encoding::Binary, true, message.clone()).unwrap()
        else {
            panic!("not stdout");
        };
        assert_eq!(payload, "hello");
        assert_eq!(payload.as_ptr(), message[1..].as_ptr());
    }

    #[test]
    fn an_empty_payload_is_data_and_an_empty_message_is_nothing() {
        let parse = |m: &'static [u8]| parse(Encoding::Binary, true, Bytes::from_static(m));
        assert_eq!(
            parse(b"\x01"),
            Ok(Some(Frame::Data(Channel::Stdout, Bytes::new())))
        );
        assert_eq!(parse(b""), Ok(None));
    }

    #[test]
    fn close_exists_only_where_the_subprotocol_has_it() {
        let parse = |close, m: &'static [u8]| parse(Encoding::Binary, close, Bytes::from_static(m));
        assert_eq!(
            parse(true, &[255, 0]),
            Ok(Some(Frame::Close(Channel::Stdin)))
        );
        assert_eq!(
            parse(false, &[255, 0]),
            Err(ChannelError::UnknownChannel(255))
        );
        for malformed in [&[255u8][..], &[255, 5], &[255, 0, 0]] {
            assert_eq!(parse(true, malformed), Err(ChannelError::MalformedClose));
        }
    }

    #[test]
    fn base64_goes_there_and_back() {
        for length in 0..9 {
            let payload = &b"\x00\xffbinary!"[..length];
            let text = to_base64(Channel::Stderr, payload);
            assert!(text.is_ascii());
            assert_eq!(
                parse(Encoding::Base64, false, text),
                Ok(Some(Frame::Data(
                    Channel::Stderr,
                    Bytes::copy_from_slice(payload)
                )))
            );
        }
    }

    #[test]
    fn what_is_not_base64_is_refused() {
        let parse = |m: &'static [u8]| parse(Encoding::Base64, false, Bytes::from_static(m));
        assert_eq!(parse(b"1a"), Err(ChannelError::Base64(1)));
        assert_eq!(parse(b"1*A=="), Err(ChannelError::Base64(1)));
        assert_eq!(parse(b"9YQ=="), Err(ChannelError::UnknownChannel(9)));
        assert_eq!(parse(b"\xff\x00"), Err(ChannelError::UnknownChannel(207)));
    }
}

//! SPDY/3.1 frames: what `SPDY/3.1+portforward.k8s.io` carries.
//!
//! In flow bytes, however the WebSocket cut them into messages; out come
//! [`Frame`]s, the payload of DATA as slices of the input, header blocks still compressed. The
//! other way each frame writes itself into a buffer. A [`HeaderReader`] and a [`HeaderWriter`]
//! turn header blocks into [`Headers`] and back; each keeps the zlib context of one direction.
//!
//! ```text
//! data:     |0|        stream (31)         |   control:  |1| version (15) |    type (16)    |
//!           | flags (8) |    length (24)   |             | flags (8) |     length (24)      |
//!           |          payload             |             |              body                |
//! ```
//!
//! Section numbers are those of the SPDY/3 draft (draft-mbelshe-httpbis-spdy-00); SPDY/3.1 adds
//! flow control for the whole session to it. The one implementation that matters is
//! `moby/spdystream` in the API server, the kubelet and the container runtimes: it never sends
//! HEADERS, SETTINGS or WINDOW_UPDATE and ignores the latter two, so that there is no flow
//! control.

mod data;
mod decoder;
mod dictionary;
mod error;
mod goaway;
mod head;
mod header_block;
mod headers;
mod ping;
mod rst_stream;
mod stream_id;
mod syn_stream;

use std::ops::RangeBounds;

use bytes::Bytes;

pub use self::data::{Data, MAX_DATA};
pub use self::decoder::Decoder;
pub use self::error::SpdyError;
pub use self::goaway::{GoAway, GoAwayStatus};
pub use self::header_block::{HeaderReader, HeaderWriter, Headers};
pub use self::headers::{HeadersFrame, SynReply};
pub use self::ping::Ping;
pub use self::rst_stream::{RstStatus, RstStream};
pub use self::stream_id::StreamId;
pub use self::syn_stream::SynStream;

use self::head::Head;

/// Bytes of the head that every frame starts with.
pub const HEAD: usize = 8;

/// The sender sends nothing more on the stream (FLAG_FIN, sections 2.2.2 and 2.6.1).
pub(crate) const FLAG_FIN: u8 = 0x01;

/// One frame.
///
/// ```
/// use kubewire::wire::spdy::{Decoder, Frame};
///
/// // SETTINGS, which nobody in Kubernetes sends.
/// let mut bytes = bytes::Bytes::from_static(b"\x80\x03\x00\x04\x00\x00\x00\x04\x00\x00\x00\x00");
/// assert_eq!(Decoder::new().decode(&mut bytes)?, Some(Frame::Unknown(4)));
/// # Ok::<(), kubewire::wire::spdy::SpdyError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Frame {
    /// Payload of a stream.
    Data(Data),
    /// A new stream.
    SynStream(SynStream),
    /// The acceptance of a stream.
    SynReply(SynReply),
    /// The abrupt end of a stream.
    RstStream(RstStream),
    /// A sign of life, or the answer to one.
    Ping(Ping),
    /// The sender accepts no further streams.
    GoAway(GoAway),
    /// More headers of a stream.
    Headers(HeadersFrame),
    /// A control frame of another type, whose body was skipped: endpoints ignore what they do
    /// not recognize (section 2.2.1). SETTINGS and WINDOW_UPDATE are among them.
    Unknown(u16),
}

impl Frame {
    /// Takes one whole frame off the front of `input`; the payload of DATA and the header blocks
    /// are slices of it. `None` means that the frame is incomplete: nothing is consumed.
    ///
    /// Where frames arrive cut into pieces, a [`Decoder`] saves waiting for the whole of a DATA
    /// frame and copying its pieces together.
    ///
    /// # Errors
    ///
    /// If the bytes cannot be the start of a frame. The rest of the input means nothing then.
    pub fn parse(input: &mut Bytes) -> Result<Option<Self>, SpdyError> {
        let Some(head) = Head::parse(input)? else {
            return Ok(None);
        };
        let whole = HEAD + head.length();
        if input.len() < whole {
            return Ok(None);
        }
        let mut body = input.split_to(whole);
        let body = body.split_off(HEAD);
        Self::of_head(&head, body).map(Some)
    }

    fn of_head(head: &Head, body: Bytes) -> Result<Self, SpdyError> {
        Ok(match *head {
            Head::Data { stream, fin, .. } => Self::Data(Data {
                stream,
                payload: body,
                fin,
            }),
            Head::Control { kind, flags, .. } => match kind {
                SynStream::KIND => Self::SynStream(SynStream::parse(flags, body)?),
                SynReply::KIND => Self::SynReply(SynReply::parse(flags, body)?),
                RstStream::KIND => Self::RstStream(RstStream::parse(&body)?),
                Ping::KIND => Self::Ping(Ping::parse(&body)?),
                GoAway::KIND => Self::GoAway(GoAway::parse(&body)?),
                HeadersFrame::KIND => Self::Headers(HeadersFrame::parse(flags, body)?),
                other => Self::Unknown(other),
            },
        })
    }

    /// Writes the frame to the end of `out`. The payload of DATA is copied; [`Data::head`] saves
    /// that.
    pub fn encode(&self, out: &mut bytes::BytesMut) {
        match self {
            Self::Data(frame) => {
                out.extend_from_slice(&frame.head());
                out.extend_from_slice(&frame.payload);
            }
            Self::SynStream(frame) => frame.encode(out),
            Self::SynReply(frame) => frame.encode(out),
            Self::RstStream(frame) => frame.encode(out),
            Self::Ping(frame) => frame.encode(out),
            Self::GoAway(frame) => frame.encode(out),
            Self::Headers(frame) => frame.encode(out),
            Self::Unknown(kind) => Head::encode_control(*kind, 0, 0, out),
        }
    }
}

/// Checks the length of a frame's body.
fn has_length(
    frame: &'static str,
    body: &[u8],
    lengths: impl RangeBounds<usize>,
) -> Result<(), SpdyError> {
    let length = body.len();
    match lengths.contains(&length) {
        true => Ok(()),
        false => Err(SpdyError::Length { frame, length }),
    }
}

/// The big-endian `u32` at `at`; zero past the end. Callers have checked the length.
fn u32_at(body: &[u8], at: usize) -> u32 {
    body.get(at..at + 4)
        .and_then(|bytes| bytes.try_into().ok())
        .map_or(0, u32::from_be_bytes)
}

#[cfg(test)]
mod tests;

//! RST_STREAM: the abrupt end of a stream (section 2.6.3).

use std::fmt;

use bytes::{BufMut, BytesMut};

use super::{SpdyError, StreamId, has_length, head::Head, u32_at};

/// The abrupt end of a stream, in both directions.
///
/// ```
/// use kubewire::wire::spdy::{Decoder, Frame, RstStatus, RstStream, StreamId};
///
/// let stream = StreamId::new(1).expect("it is not zero");
/// let frame = RstStream { stream, status: RstStatus::CANCEL };
/// let mut bytes = bytes::BytesMut::new();
/// frame.encode(&mut bytes);
/// assert_eq!(Decoder::new().decode(&mut bytes.freeze())?, Some(Frame::RstStream(frame)));
/// # Ok::<(), kubewire::wire::spdy::SpdyError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RstStream {
    /// The stream.
    pub stream: StreamId,
    /// Why.
    pub status: RstStatus,
}

/// Why a stream was reset: see [`RstStream`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RstStatus(pub u32);

impl RstStatus {
    /// The other end broke the protocol on this stream.
    pub const PROTOCOL_ERROR: Self = Self(1);
    /// A frame for a stream that is not open.
    pub const INVALID_STREAM: Self = Self(2);
    /// The stream was refused before anything was done with it.
    pub const REFUSED_STREAM: Self = Self(3);
    /// The sender lost interest; the only status that `moby/spdystream` sends for an open stream
    /// (`stream.go`, `resetStream`).
    pub const CANCEL: Self = Self(5);
    /// The sender failed.
    pub const INTERNAL_ERROR: Self = Self(6);
    /// More was sent than the receiver keeps.
    pub const FLOW_CONTROL_ERROR: Self = Self(7);
    /// Payload after the sender had said that it was all.
    pub const STREAM_ALREADY_CLOSED: Self = Self(9);
}

impl fmt::Display for RstStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self.0 {
            1 => "PROTOCOL_ERROR",
            2 => "INVALID_STREAM",
            3 => "REFUSED_STREAM",
            4 => "UNSUPPORTED_VERSION",
            5 => "CANCEL",
            6 => "INTERNAL_ERROR",
            7 => "FLOW_CONTROL_ERROR",
            8 => "STREAM_IN_USE",
            9 => "STREAM_ALREADY_CLOSED",
            10 => "INVALID_CREDENTIALS",
            11 => "FRAME_TOO_LARGE",
            other => return write!(f, "status {other}"),
        };
        f.write_str(name)
    }
}

impl RstStream {
    pub(super) const KIND: u16 = 3;

    pub(super) fn parse(body: &[u8]) -> Result<Self, SpdyError> {
        // "For RST_STREAM control frames, this value is always 8" (section 2.6.3).
        has_length("RST_STREAM", body, 8..=8)?;
        let stream = StreamId::new(u32_at(body, 0)).ok_or(SpdyError::StreamZero("RST_STREAM"))?;
        Ok(Self {
            stream,
            status: RstStatus(u32_at(body, 4)),
        })
    }

    /// Writes the frame to the end of `out`. A status of zero is not valid and goes out as
    /// INTERNAL_ERROR: `moby/spdystream` ends the connection at a zero (`spdy/read.go`).
    pub fn encode(&self, out: &mut BytesMut) {
        let status = match self.status.0 {
            0 => RstStatus::INTERNAL_ERROR.0,
            status => status,
        };
        Head::encode_control(Self::KIND, 0, 8, out);
        out.put_u32(self.stream.get());
        out.put_u32(status);
    }
}

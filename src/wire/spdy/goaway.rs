//! GOAWAY: the sender accepts no further streams (section 2.6.6).

use bytes::{BufMut, BytesMut};

use super::{SpdyError, StreamId, has_length, head::Head, u32_at};

/// The sender accepts no further streams. Streams up to the last good one go on, says the draft;
/// `moby/spdystream` stops reading and ends them all (`connection.go`, `Serve`).
///
/// ```
/// use kubewire::wire::spdy::{Decoder, Frame, GoAway, GoAwayStatus, StreamId};
///
/// let frame = GoAway { last_good: StreamId::new(3), status: GoAwayStatus::OK };
/// let mut bytes = bytes::BytesMut::new();
/// frame.encode(&mut bytes);
/// assert_eq!(Decoder::new().decode(&mut bytes.freeze())?, Some(Frame::GoAway(frame)));
/// # Ok::<(), kubewire::wire::spdy::SpdyError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GoAway {
    /// The last stream of the receiver that the sender handled, if any.
    pub last_good: Option<StreamId>,
    /// Why.
    pub status: GoAwayStatus,
}

/// Why an end goes away: see [`GoAway`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct GoAwayStatus(pub u32);

impl GoAwayStatus {
    /// An orderly end.
    pub const OK: Self = Self(0);
    /// The other end broke the protocol.
    pub const PROTOCOL_ERROR: Self = Self(1);
    /// The sender failed.
    pub const INTERNAL_ERROR: Self = Self(2);
}

impl GoAway {
    pub(super) const KIND: u16 = 7;

    pub(super) fn parse(body: &[u8]) -> Result<Self, SpdyError> {
        // "Length: This frame is always 8 bytes long" (section 2.6.6).
        has_length("GOAWAY", body, 8..=8)?;
        Ok(Self {
            last_good: StreamId::new(u32_at(body, 0)),
            status: GoAwayStatus(u32_at(body, 4)),
        })
    }

    /// Writes the frame to the end of `out`.
    pub fn encode(&self, out: &mut BytesMut) {
        Head::encode_control(Self::KIND, 0, 8, out);
        out.put_u32(self.last_good.map_or(0, StreamId::get));
        out.put_u32(self.status.0);
    }
}

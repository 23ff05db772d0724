//! WINDOW_UPDATE: more room at a receiver (section 2.6.8).

use bytes::{BufMut, BytesMut};

use super::{SpdyError, StreamId, head::Head, u32_at};

/// More room at a receiver. No implementation in Kubernetes sends it or heeds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WindowUpdate {
    /// The stream, or `None` for the whole session (SPDY/3.1).
    pub stream: Option<StreamId>,
    /// Bytes that the sender may send beyond what it might before; 31 bits.
    pub delta: u32,
}

impl WindowUpdate {
    pub(super) const KIND: u16 = 9;

    pub(super) fn parse(body: &[u8]) -> Result<Self, SpdyError> {
        // "Length: The length field is always 8 for this frame" (section 2.6.8).
        if body.len() != 8 {
            return Err(SpdyError::Length {
                frame: "WINDOW_UPDATE",
                length: body.len(),
            });
        }
        Ok(Self {
            stream: StreamId::new(u32_at(body, 0)),
            delta: u32_at(body, 4) & StreamId::MAX,
        })
    }

    /// Writes the frame to the end of `out`.
    pub fn encode(&self, out: &mut BytesMut) {
        Head::encode_control(Self::KIND, 0, 8, out);
        out.put_u32(self.stream.map_or(0, StreamId::get));
        out.put_u32(self.delta & StreamId::MAX);
    }
}

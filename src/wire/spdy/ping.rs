//! PING: a sign of life, or the answer to one (section 2.6.5).

use bytes::{BufMut, BytesMut};

use super::{SpdyError, has_length, head::Head, u32_at};

/// A sign of life. The receiver sends it back unchanged if the id is of the sender's parity: odd
/// from clients, even from servers.
///
/// ```
/// use kubewire::wire::spdy::{Decoder, Frame, Ping};
///
/// let mut bytes = bytes::BytesMut::new();
/// Ping { id: 1 }.encode(&mut bytes);
/// assert_eq!(Decoder::new().decode(&mut bytes.freeze())?, Some(Frame::Ping(Ping { id: 1 })));
/// # Ok::<(), kubewire::wire::spdy::SpdyError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ping {
    /// The id, which tells answers from requests.
    pub id: u32,
}

impl Ping {
    pub(super) const KIND: u16 = 6;

    pub(super) fn parse(body: &[u8]) -> Result<Self, SpdyError> {
        // "Length: This frame is always 4 bytes long" (section 2.6.5).
        has_length("PING", body, 4..=4)?;
        Ok(Self {
            id: u32_at(body, 0),
        })
    }

    /// Writes the frame to the end of `out`.
    pub fn encode(&self, out: &mut BytesMut) {
        Head::encode_control(Self::KIND, 0, 4, out);
        out.put_u32(self.id);
    }
}

//! SYN_REPLY: the acceptance of a stream (section 2.6.2).

use bytes::{BufMut, Bytes, BytesMut};

use super::{FLAG_FIN, SpdyError, StreamId, head::Head, u32_at};

/// The acceptance of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SynReply {
    /// The stream that the receiver opened.
    pub stream: StreamId,
    /// The sender sends nothing on the stream.
    pub fin: bool,
    /// The compressed headers; Kubernetes sends a block of none.
    pub block: Bytes,
}

impl SynReply {
    pub(super) const KIND: u16 = 2;

    pub(super) fn parse(flags: u8, mut body: Bytes) -> Result<Self, SpdyError> {
        if body.len() < 4 {
            return Err(SpdyError::Length {
                frame: "SYN_REPLY",
                length: body.len(),
            });
        }
        let stream = StreamId::new(u32_at(&body, 0)).ok_or(SpdyError::StreamZero("SYN_REPLY"))?;
        Ok(Self {
            stream,
            fin: flags & FLAG_FIN != 0,
            block: body.split_off(4),
        })
    }

    /// Writes the frame to the end of `out`.
    pub fn encode(&self, out: &mut BytesMut) {
        let flags = if self.fin { FLAG_FIN } else { 0 };
        Head::encode_control(Self::KIND, flags, 4 + self.block.len(), out);
        out.put_u32(self.stream.get());
        out.put_slice(&self.block);
    }
}

//! HEADERS: more headers of a stream (section 2.6.7).

use bytes::{BufMut, Bytes, BytesMut};

use super::{FLAG_FIN, SpdyError, StreamId, head::Head, u32_at};

/// More headers of a stream. Kubernetes never sends any, but the header block must be
/// decompressed to keep the context in step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeadersFrame {
    /// The stream.
    pub stream: StreamId,
    /// The sender sends nothing more on the stream.
    pub fin: bool,
    /// The compressed headers.
    pub block: Bytes,
}

impl HeadersFrame {
    pub(super) const KIND: u16 = 8;

    pub(super) fn parse(flags: u8, mut body: Bytes) -> Result<Self, SpdyError> {
        if body.len() < 4 {
            return Err(SpdyError::Length {
                frame: "HEADERS",
                length: body.len(),
            });
        }
        let stream = StreamId::new(u32_at(&body, 0)).ok_or(SpdyError::StreamZero("HEADERS"))?;
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

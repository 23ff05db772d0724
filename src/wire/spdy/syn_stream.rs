//! SYN_STREAM: a new stream (section 2.6.1).

use bytes::{BufMut, Bytes, BytesMut};

use super::{FLAG_FIN, SpdyError, StreamId, has_length, head::Head, u32_at};

/// The receiver may send nothing on the stream.
const FLAG_UNIDIRECTIONAL: u8 = 0x02;
/// Bytes before the header block.
const FIXED: usize = 10;

/// A new stream.
///
/// ```
/// use kubewire::wire::spdy::{Decoder, Frame, HeaderReader, HeaderWriter, Headers, StreamId, SynStream};
///
/// let headers = Headers::new().with("streamtype", "data").with("port", "8080");
/// let frame = SynStream {
///     stream: StreamId::new(1).expect("it is not zero"),
///     associated: None,
///     priority: 0,
///     fin: false,
///     unidirectional: false,
///     block: HeaderWriter::new().write(&headers)?,
/// };
/// let mut bytes = bytes::BytesMut::new();
/// frame.encode(&mut bytes);
/// let Some(Frame::SynStream(arrived)) = Decoder::new().decode(&mut bytes.freeze())? else {
///     unreachable!("it is whole")
/// };
/// assert_eq!(HeaderReader::new().read(&arrived.block)?.get("port"), Some("8080"));
/// # Ok::<(), kubewire::wire::spdy::SpdyError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SynStream {
    /// Its id, above those of all streams that the sender opened before.
    pub stream: StreamId,
    /// The stream that it belongs to; Kubernetes has none.
    pub associated: Option<StreamId>,
    /// 0 (the highest) to 7; Kubernetes sends 0.
    pub priority: u8,
    /// The sender sends nothing on the stream.
    pub fin: bool,
    /// The receiver may send nothing on the stream.
    pub unidirectional: bool,
    /// The compressed headers, for a [`HeaderReader`](super::HeaderReader).
    pub block: Bytes,
}

impl SynStream {
    pub(super) const KIND: u16 = 1;

    pub(super) fn parse(flags: u8, mut body: Bytes) -> Result<Self, SpdyError> {
        has_length("SYN_STREAM", &body, FIXED..)?;
        let stream = StreamId::new(u32_at(&body, 0)).ok_or(SpdyError::StreamZero("SYN_STREAM"))?;
        Ok(Self {
            stream,
            associated: StreamId::new(u32_at(&body, 4)),
            priority: body[8] >> 5,
            fin: flags & FLAG_FIN != 0,
            unidirectional: flags & FLAG_UNIDIRECTIONAL != 0,
            block: body.split_off(FIXED),
        })
    }

    /// Writes the frame to the end of `out`.
    pub fn encode(&self, out: &mut BytesMut) {
        let mut flags = 0;
        if self.fin {
            flags |= FLAG_FIN;
        }
        if self.unidirectional {
            flags |= FLAG_UNIDIRECTIONAL;
        }
        Head::encode_control(Self::KIND, flags, FIXED + self.block.len(), out);
        out.put_u32(self.stream.get());
        out.put_u32(self.associated.map_or(0, StreamId::get));
        out.put_u8(self.priority << 5);
        out.put_u8(0); // The credential slot, which nobody uses.
        out.put_slice(&self.block);
    }
}

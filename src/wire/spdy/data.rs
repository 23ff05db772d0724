//! DATA: payload of a stream (section 2.2.2).

use bytes::Bytes;

use super::{FLAG_FIN, HEAD, StreamId};

/// Bytes of the largest payload that a DATA frame can carry: its length has 24 bits.
pub const MAX_DATA: usize = (1 << 24) - 1;

/// Payload of a stream.
///
/// ```
/// use kubewire::wire::spdy::{Data, Decoder, Frame, StreamId};
///
/// let stream = StreamId::new(1).expect("it is not zero");
/// let frame = Data { stream, payload: "hello".into(), fin: true };
/// let mut bytes = bytes::BytesMut::from(&frame.head()[..]);
/// bytes.extend_from_slice(&frame.payload);
/// assert_eq!(Decoder::new().decode(&mut bytes.freeze())?, Some(Frame::Data(frame)));
/// # Ok::<(), kubewire::wire::spdy::SpdyError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Data {
    /// The stream.
    pub stream: StreamId,
    /// What the sender wrote; may be empty. At most [`MAX_DATA`] bytes.
    pub payload: Bytes,
    /// The sender sends nothing more on this stream.
    pub fin: bool,
}

impl Data {
    /// The head of this frame; the payload follows it on the wire.
    pub fn head(&self) -> [u8; HEAD] {
        Self::head_of(self.stream, self.payload.len(), self.fin)
    }

    /// The head of a DATA frame with a payload of `length` bytes, at most [`MAX_DATA`].
    pub fn head_of(stream: StreamId, length: usize, fin: bool) -> [u8; HEAD] {
        debug_assert!(length <= MAX_DATA);
        let flags = if fin { u32::from(FLAG_FIN) << 24 } else { 0 };
        let mut head = [0; HEAD];
        head[..4].copy_from_slice(&stream.get().to_be_bytes());
        head[4..].copy_from_slice(&(flags | length as u32).to_be_bytes());
        head
    }
}

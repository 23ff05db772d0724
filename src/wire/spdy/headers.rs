//! SYN_REPLY (section 2.6.2) and HEADERS (section 2.6.7): headers of a stream that is open.

use bytes::{BufMut, Bytes, BytesMut};

use super::{FLAG_FIN, SpdyError, StreamId, has_length, head::Head, u32_at};

/// The two frames have one layout.
macro_rules! headers_of_a_stream {
    ($(#[$doc:meta])* $name:ident, $kind:literal, $text:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub struct $name {
            /// The stream.
            pub stream: StreamId,
            /// The sender sends nothing more on the stream.
            pub fin: bool,
            /// The compressed headers.
            pub block: Bytes,
        }

        impl $name {
            pub(super) const KIND: u16 = $kind;

            pub(super) fn parse(flags: u8, mut body: Bytes) -> Result<Self, SpdyError> {
                has_length($text, &body, 4..)?;
                let stream = StreamId::new(u32_at(&body, 0));
                Ok(Self {
                    stream: stream.ok_or(SpdyError::StreamZero($text))?,
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
    };
}

headers_of_a_stream! {
    /// The acceptance of a stream that the receiver opened. Kubernetes sends no headers with it.
    SynReply, 2, "SYN_REPLY"
}

headers_of_a_stream! {
    /// More headers of a stream. Kubernetes never sends any, but the header block must be
    /// decompressed to keep the context in step.
    HeadersFrame, 8, "HEADERS"
}

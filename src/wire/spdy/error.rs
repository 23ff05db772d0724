//! What can be wrong with SPDY bytes.

/// Why bytes are not SPDY/3.1, or not acceptable SPDY/3.1.
///
/// All of these end the connection: the frames that follow, or the compression context, mean
/// nothing any more.
///
/// ```
/// use kubewire::wire::spdy::{Decoder, SpdyError};
///
/// let mut http = bytes::Bytes::from_static(b"\x80\x02\x00\x01\x00\x00\x00\x00");
/// assert_eq!(Decoder::new().decode(&mut http), Err(SpdyError::Version(2)));
/// ```
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SpdyError {
    /// A control frame of another protocol version.
    #[error("a SPDY control frame of version {0} instead of 3")]
    Version(u16),
    /// A frame whose type fixes a length that it does not have.
    #[error("a SPDY {frame} frame of {length} bytes")]
    Length {
        /// The frame's type.
        frame: &'static str,
        /// Bytes of its body.
        length: usize,
    },
    /// A control frame larger than 16 KiB.
    #[error("a SPDY control frame of {0} bytes")]
    TooLarge(usize),
    /// A frame about stream zero, which does not exist.
    #[error("a SPDY {0} frame for stream 0")]
    StreamZero(&'static str),
    /// A stream id that the sender may not use: of the other parity, or not above the last one.
    #[error("a SPDY stream with the id {0}, out of order")]
    StreamOrder(u32),
    /// A header block that zlib cannot expand, or that ends in the middle.
    #[error("a SPDY header block that cannot be decompressed: {0}")]
    Compression(String),
    /// A header block that expands to more than
    /// [`limits::SPDY_HEADERS`](crate::limits::SPDY_HEADERS).
    #[error("a SPDY header block of more than {0} bytes")]
    HeadersTooLarge(usize),
    /// A header block whose lengths do not add up.
    #[error("a SPDY header block whose lengths do not add up")]
    HeadersLength,
    /// A header name that is empty, has upper case, or appears twice (section 2.6.10).
    #[error("a SPDY header block with the name {0:?}")]
    HeaderName(String),
    /// Something that does not belong on the stream that it came on.
    #[error("a SPDY stream was used wrongly: {0}")]
    Stream(String),
    /// A text message where only bytes belong.
    #[error("a text message among the bytes of SPDY")]
    Text,
    /// The peer asks for so many answers without reading them that they would fill the memory.
    #[error("the peer asks for answers that it does not read: {0} bytes wait")]
    Flood(usize),
}

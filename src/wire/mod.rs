//! Bytes to frames and back: pure functions over `&[u8]` and [`Bytes`](bytes::Bytes).
//!
//! Nothing here waits, allocates for a payload, or copies one: what comes out is a slice of what
//! went in. Parsing answers *complete*, *partial* or *error*, and a partial answer consumes
//! nothing, so that every way to split the input gives the same frames.

#[doc(hidden)]
pub mod age;
pub mod channel;
pub mod gzip;
pub mod line;
pub(crate) mod pod;
pub mod port_channel;
#[doc(hidden)]
pub mod quantity;
pub mod resize;
pub mod spdy;
pub mod stamp;
pub mod status;
pub mod watch;
pub mod websocket;

/// A chunk behind the rest of the one before, with which it is copied, if there is any.
#[inline]
pub(crate) fn behind(rest: &[u8], chunk: bytes::Bytes) -> bytes::Bytes {
    match rest {
        [] => chunk,
        _ => [rest, &chunk].concat().into(),
    }
}

/// Puts `more` behind what is kept of something that may have `bound` bytes. What is kept doubles as
/// it grows, but not past the bound: as old and new are there for a moment, that would be three
/// times as much.
#[inline]
pub(crate) fn keep(kept: &mut bytes::BytesMut, more: &[u8], bound: usize) {
    let needed = kept.len() + more.len();
    if needed > kept.capacity() && kept.capacity() > bound / 2 {
        let mut whole = bytes::BytesMut::with_capacity(needed.max(bound));
        whole.extend_from_slice(kept);
        *kept = whole;
    }
    kept.extend_from_slice(more);
}

//! Bytes to frames and back: pure functions over `&[u8]` and [`Bytes`](bytes::Bytes).
//!
//! Nothing here waits, allocates for a payload, or copies one: what comes out is a slice of what
//! went in. Parsing answers *complete*, *partial* or *error*, and a partial answer consumes
//! nothing, so that every way to split the input gives the same frames.

pub mod channel;
pub mod gzip;
pub mod line;
pub(crate) mod pod;
pub mod port_channel;
pub mod resize;
pub mod spdy;
pub mod stamp;
pub mod status;
pub mod watch;
pub mod websocket;

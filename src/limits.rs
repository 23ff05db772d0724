//! Every bound in the crate, with its default, unit and reason.
//!
//! Reaching a bound is backpressure or a named error, never growth. A bound that a caller may
//! change has a builder method of its own, which its text names.

/// Bytes of the largest WebSocket message that is accepted, fragments added up: 32 MiB.
///
/// Servers write at most 32 KiB at a time, and `golang.org/x/net/websocket` refuses more than
/// this in the other direction (`websocket.go`, `DefaultMaxPayloadBytes`).
pub const MESSAGE: usize = 32 << 20;

/// Bytes of the error channel's content that are kept: 1 MiB.
///
/// A `metav1.Status` is a few hundred bytes; etcd refuses objects above 1.5 MiB, so nothing
/// honest comes near.
pub const STATUS: usize = 1 << 20;

/// Bytes of the largest SPDY control frame that is accepted: 64 KiB.
///
/// The frames of a port-forward are a few dozen bytes, the first header block about 60.
pub const SPDY_CONTROL_FRAME: usize = 64 << 10;

/// Bytes that a SPDY header block may expand to: 64 KiB.
///
/// A stream of a port-forward has three headers of a few bytes. zlib expands up to a
/// thousandfold, so that the bound on frames is none on this.
pub const SPDY_HEADERS: usize = 64 << 10;

/// Headers in one SPDY header block: 100.
///
/// Kubernetes sends three.
pub const SPDY_HEADER_COUNT: usize = 100;

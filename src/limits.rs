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

/// Bytes of the longest log line that is handed out in one piece: 1 MiB. Longer ones come in
/// pieces of this size.
///
/// The kubelet joins the 16 KiB chunks in which container runtimes write a long line, so that
/// there is no bound on the other side. `LineSplitter::new` takes another.
pub const LOG_LINE: usize = 1 << 20;

/// Bytes of the largest watch event that is accepted: 32 MiB.
///
/// etcd takes requests of 1.5 MiB unless told otherwise, and its values twenty times over are
/// still less than this. `Decoder::with_bound` takes another.
pub const WATCH_EVENT: usize = 32 << 20;

/// How deep arrays and maps may lie within each other in CBOR: 128.
///
/// Kubernetes itself writes and reads no more than 64
/// (`apimachinery/pkg/runtime/serializer/cbor/internal/modes/decode.go`, `MaxNestedLevels`).
pub const WATCH_DEPTH: usize = 128;

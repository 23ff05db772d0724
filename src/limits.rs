//! Every bound in the crate, with its default, unit and reason.
//!
//! Reaching a bound is backpressure or a named error, never growth. A bound that a caller may
//! change has a builder method of its own, which its text names.

use std::time::Duration;

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

/// The longest wait for a TCP connection, name resolution included: 30 s.
///
/// client-go dials with the same bound (`k8s.io/client-go/transport/cache.go`).
pub const CONNECT: Duration = Duration::from_secs(30);

/// The longest wait for a TLS handshake: 10 s.
///
/// client-go's `tlsHandshakeTimeout` (`k8s.io/client-go/transport/cache.go`, `TLSHandshakeTimeout`).
pub const TLS_HANDSHAKE: Duration = Duration::from_secs(10);

/// How long a TCP connection may be silent before the kernel probes it: 30 s.
///
/// client-go's dialer has the same (`k8s.io/client-go/transport/cache.go`, `KeepAlive`). It keeps
/// NAT tables warm; it is no replacement for a ping, which tests the peer and not its kernel.
pub const TCP_KEEPALIVE: Duration = Duration::from_secs(30);

/// How long a token that was read from a file is used before the file is read again: 60 s.
///
/// The kubelet rotates projected tokens when 80 % of their life, at least ten minutes, is over;
/// client-go reads them once a minute (`k8s.io/client-go/transport/token_source.go`).
pub const TOKEN_FILE_PERIOD: Duration = Duration::from_secs(60);

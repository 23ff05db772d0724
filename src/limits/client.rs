//! The bounds of the client that are its own affair: connections, credentials, plain requests.

use std::time::Duration;

/// The time for which a local connection waits while the way to the pod is down: 30 s.
pub(crate) const FORWARD_RETRY: Duration = Duration::from_secs(30);

/// How often a request is sent again that the server says it has not begun with: 6 times, as in Go
/// (`golang.org/x/net/http2/transport.go`, `RoundTripOpt`).
pub(crate) const UNPROCESSED_RETRIES: u32 = 6;

/// The pause before it is sent for the second time: 250 ms; each later one is twice as long.
pub(crate) const UNPROCESSED_RETRY: Duration = Duration::from_millis(250);

/// The pause before the second attempt to find the way to a pod: 250 ms; each later one is twice
/// as long.
pub(crate) const FORWARD_RETRY_FIRST: Duration = Duration::from_millis(250);

/// The longest wait for the answer to that question, and to the one which pods there are: 10 s.
pub(crate) const FORWARD_LOOK: Duration = Duration::from_secs(10);

/// How long before its end a credential is renewed, at most: 5 min.
///
/// A fifth of its life if that is less, so that a token of 15 minutes is not renewed at once.
/// Whoever needs a credential in that time uses the old one and does not wait.
pub(crate) const RENEW_BEFORE: Duration = Duration::from_secs(5 * 60);

/// The pause after a failed renewal of a credential that is still valid: 10 s. It is also how
/// long a credential that the server refuses, and that renewal did not change, is left as it is.
pub(crate) const RENEW_AGAIN: Duration = Duration::from_secs(10);

/// Bytes that an exec plugin may write to its standard output: 1 MiB.
///
/// A token and a certificate chain have a few kilobytes.
pub(crate) const PLUGIN_OUTPUT: usize = 1 << 20;

/// How long an exec plugin may run before it is told that it is waited for: 20 s.
pub(crate) const PLUGIN_PATIENCE: Duration = Duration::from_secs(20);

/// How long the output of an exec plugin that has ended is read on where a process that it left
/// behind holds it open: 1 s.
pub(crate) const PLUGIN_REST: Duration = Duration::from_secs(1);

/// Bytes of an answer of an OpenID Connect provider: 1 MiB.
pub(crate) const OIDC_ANSWER: usize = 1 << 20;

/// The longest wait for an answer of an OpenID Connect provider: 30 s.
pub(crate) const OIDC_REQUEST: Duration = Duration::from_secs(30);

/// How long before its end an `id-token` counts as expired: 10 s
/// (`golang.org/x/oauth2`, `defaultExpiryDelta`).
pub(crate) const OIDC_EARLY: Duration = Duration::from_secs(10);

/// Bytes of the head of an HTTP proxy's answer to CONNECT: 16 KiB.
pub(crate) const PROXY_ANSWER: usize = 16 << 10;

/// The longest `Retry-After` that is waited out: 60 s. One that is longer is an error at once.
pub(crate) const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(60);

/// How long a connection without requests is kept: 90 s, as in Go's `http.DefaultTransport`.
pub(crate) const IDLE_CONNECTION: Duration = Duration::from_secs(90);

/// Answers of code 1xx before the one that counts: 5, as in Go (`net/http/transport.go`,
/// `max1xxResponses`).
pub(crate) const INFORMATIONAL: usize = 5;

/// How long a new HTTP/2 connection keeps other requests waiting until its server says how many
/// may share it: 1 s. After that it is taken to be [`STREAMS`].
pub(crate) const HTTP2_SETTINGS: Duration = Duration::from_secs(1);

/// Bytes that may wait to be read of one HTTP/2 response: 1 MiB.
pub(crate) const HTTP2_STREAM: u32 = 1 << 20;

/// Bytes that may wait to be read on one HTTP/2 connection: 1 GiB, so that it is never the
/// connection that stops, and a reader that is slow holds up only its own response. Go has the
/// same (`golang.org/x/net/http2`, `transportDefaultConnFlow`).
pub(crate) const HTTP2_CONNECTION: u32 = 1 << 30;

/// How long an HTTP/2 connection in use may be silent before it is pinged: 30 s
/// (`k8s.io/apimachinery/pkg/util/net/http.go`, `readIdleTimeoutSeconds`).
pub(crate) const HTTP2_PING: Duration = Duration::from_secs(30);

/// How long an HTTP/2 ping may stay without an answer: 15 s (`pingTimeoutSeconds`).
pub(crate) const HTTP2_PONG: Duration = Duration::from_secs(15);

/// Bytes of an object or of a page of a list: 256 MiB.
///
/// etcd refuses objects above 1.5 MiB; a page of 500 of them is the worst case that is thinkable.
pub(crate) const OBJECT: usize = 256 << 20;

/// Objects in a page of a list: 500, as kubectl asks for (`k8s.io/kubectl/pkg/cmd/get`).
pub(crate) const PAGE: u32 = 500;

/// The pause before the second try of an update, doubled for each further one: 10 ms
/// (`k8s.io/client-go/util/retry`, `DefaultRetry`).
pub(crate) const UPDATE_PAUSE: Duration = Duration::from_millis(10);

/// How many groups of resources a server without aggregated discovery is asked about at once: 32.
pub(crate) const DISCOVERY_REQUESTS: usize = 32;

/// How long such a group may take to answer before it is left out: 10 s. Its own server may be
/// down, and the API server waits for it.
pub(crate) const DISCOVERY_GROUP: Duration = Duration::from_secs(10);

/// How many requests share one HTTP/2 connection: 100; more open another.
///
/// API servers refuse more streams than that on one connection
/// (`k8s.io/apiserver/pkg/server/secure_serving.go`, `http2MaxStreamsPerConnection`), and hyper
/// would let them wait.
pub(crate) const STREAMS: usize = 100;

/// Bytes of the largest HTTP/2 frame that is accepted: 64 KiB. Larger ones make fewer reads.
pub(crate) const HTTP2_FRAME: u32 = 64 << 10;

/// Lines from many pods that wait to be taken: 32.
pub(crate) const ALL_LINES: usize = 32;

/// The time without inbound bytes after which a copy is given up though the container may not have
/// read what it was sent: 5 min. Disks may hang for a while.
#[cfg(feature = "copy")]
pub(crate) const COPY_STALLED: Duration = Duration::from_secs(300);

/// The time in which a program that has complained must take some of a copy, else it is given up:
/// 15 s. It is likely to have ended, of which not every server tells. After as much time it is asked
/// whether one that takes nothing has.
#[cfg(feature = "copy")]
pub(crate) const COPY_COMPLAINED: Duration = Duration::from_secs(15);

/// Bytes of a copied archive that one step of its pipe carries: 64 KiB.
#[cfg(feature = "copy")]
pub(crate) const COPY_STEP: usize = 64 << 10;

/// Steps of a copied archive that wait between the connection and the disk: 16, 1 MiB.
#[cfg(feature = "copy")]
pub(crate) const COPY_STEPS: usize = 16;

/// Bytes of all names in a copy together: 64 MiB. They are kept until all files are compared.
#[cfg(feature = "copy")]
pub(crate) const COPY_NAMES: usize = 64 << 20;

/// Bytes between the contents of two files of an archive, and behind its end: 1 MiB.
///
/// They are headers, with names of at most a few KiB, and padding.
#[cfg(feature = "copy")]
pub(crate) const COPY_HEADERS: u64 = 1 << 20;

/// Bytes of what `tar` in a container complains of that are kept for the error: 4 KiB.
#[cfg(feature = "copy")]
pub(crate) const COPY_COMPLAINT: usize = 4 << 10;

//! The bounds of frames and sessions that are their own affair.

use std::time::Duration;

/// Bytes of the largest SPDY control frame that is accepted: 16 KiB.
///
/// The frames of a port-forward are a few dozen bytes, the first header block about 60. The
/// largest [header block](super::SPDY_HEADERS) fits in, compressed or not.
pub(crate) const SPDY_CONTROL_FRAME: usize = 16 << 10;

/// Headers in one SPDY header block: 100.
///
/// Kubernetes sends three.
pub(crate) const SPDY_HEADER_COUNT: usize = 100;

/// Bytes of payload in one SPDY DATA frame that is sent: 32 KiB, as Go's `io.Copy` writes.
///
/// Streams take turns frame by frame, so that it is also how long a small write waits behind each
/// busy stream.
pub(crate) const SPDY_DATA: usize = 32 << 10;

/// Bytes of answers that wait for a SPDY peer that asks and does not read: 1 MiB.
///
/// The answers (to pings, new streams, and frames for streams that never were) are 12 to 24 bytes
/// each.
pub(crate) const SPDY_OWED: usize = 1 << 20;

/// The time for which the end of a forwarded connection waits for the server's text about it:
/// 100 ms.
///
/// Servers write it right before or right after the end of the data, on another stream.
pub(crate) const FORWARD_VERDICT: Duration = Duration::from_millis(100);

/// The time for which a connection whose handle was dropped may take to end in order: 60 s. Also
/// the time after which a listener gives up a connection over channels whose local end has
/// finished, if the application, which nobody can tell, sends nothing.
///
/// Container runtimes end theirs a second after this side has (`containerd`,
/// `sandbox_portforward_linux.go`); after this it is reset.
pub(crate) const FORWARD_LINGER: Duration = Duration::from_secs(60);

/// Bytes of a server's text about a failed connection that are kept: 16 KiB.
pub(crate) const FORWARD_TEXT: usize = 16 << 10;

/// Bytes of the number that pairs the two streams of a connection: 256. A stream with a longer one
/// is refused.
///
/// client-go counts from 0 (`portforward.go`, `nextRequestID`). A server keeps it until the other
/// stream has come.
pub(crate) const FORWARD_REQUEST: usize = 256;

/// The time within which the two streams of a connection must arrive at a server: 30 s, as in
/// Kubernetes (`cri-streaming/pkg/streaming/server.go`, `DefaultStreamCreationTimeout`).
pub(crate) const FORWARD_PAIR: Duration = Duration::from_secs(30);

/// Bytes of the error channel that are kept: 64 KiB, like client-go's bound for a refusal.
///
/// A `metav1.Status` is a few hundred bytes.
pub(crate) const STATUS: usize = 64 << 10;

/// Sizes of the client's terminal that one message can bring to a server: 2, the last and the one
/// before, from which it must differ for a program to draw its screen again
/// (`k8s.io/kubectl/pkg/cmd/attach/attach.go` sends two for this).
pub(crate) const TERMINAL_SIZES: usize = 2;

/// Characters of another's words, such as a refusal's message, that an error shows: 8,192.
pub(crate) const ERROR_TEXT: usize = 8 << 10;

/// Bytes of an HTTP answer that refuses a request: 64 KiB, like [`STATUS`].
pub(crate) const REFUSAL: usize = 64 << 10;

/// How deep arrays and maps may lie within each other in what is decoded: 128.
///
/// Kubernetes itself writes and reads no more than 64
/// (`apimachinery/pkg/runtime/serializer/cbor/internal/modes/decode.go`, `MaxNestedLevels`).
pub(crate) const WATCH_DEPTH: usize = 128;

/// The first delay before an attempt is repeated: 0.8 s, client-go's
/// (`k8s.io/client-go/tools/cache/reflector.go`).
pub(crate) const RETRY_FIRST: Duration = Duration::from_millis(800);

/// The longest delay before an attempt is repeated: 30 s, client-go's. A server that asks for more
/// in `Retry-After` gets more, up to [`LOG_WATCH_RETRY_AFTER`].
pub(crate) const RETRY_MOST: Duration = Duration::from_secs(30);

/// How long after the time asked for a watch may still end by itself: 30 s. One that has sent
/// nothing until then is dead.
pub(crate) const WATCH_SLACK: Duration = Duration::from_secs(30);

/// The longest silence of a watch whose server sends bookmarks, which it does about once a minute
/// (`k8s.io/apiserver/pkg/storage/cacher/cacher.go`, `defaultBookmarkFrequency`): 200 s, three
/// of them lost.
pub(crate) const WATCH_SILENCE: Duration = Duration::from_secs(200);

/// The longest silence before a watch-list says that its snapshot is complete: 30 s. A server that
/// does not know watch-list, and ignores that it was asked for, never says so.
pub(crate) const SNAPSHOT_SILENCE: Duration = Duration::from_secs(30);

/// How long an answer to a request may let its first byte wait: 60 s.
///
/// API servers end other requests than watches after a minute (`--request-timeout`).
pub(crate) const ANSWER: Duration = Duration::from_secs(60);

/// How long an answer must last to count as a success, so that the next failure of a watch or a
/// log is the first: 60 s.
pub(crate) const ANSWER_PROVEN: Duration = Duration::from_secs(60);

/// The longest `Retry-After` that a watch or a log keeps to: 10 min.
pub(crate) const LOG_WATCH_RETRY_AFTER: Duration = Duration::from_secs(600);

/// How many stamps of delivered log lines are remembered, to tell them from others when the log
/// is read again: 256.
///
/// Lines of stdout and stderr are stamped before they are ordered, so that some are a little older
/// than the line before. They are apart by microseconds, not by 256 stamps.
pub(crate) const LOG_STAMPS: usize = 256;

/// How many last lines of a log are asked for to go on behind the one that was delivered last:
/// 4,096. Where more were written meanwhile, another request asks for them.
pub(crate) const LOG_AGAIN: u32 = 4096;

/// How far a node's clock may step back without a log's lines being hidden by the time from which
/// on they are asked for: a day.
pub(crate) const LOG_CLOCK: Duration = Duration::from_secs(86_400);

/// How long lines of a log that is read again are held back because it is not known whether they
/// are new: 5 s. The line that was delivered last comes at once if it comes again.
pub(crate) const LOG_DOUBT: Duration = Duration::from_secs(5);

/// For how long no more of a log's last lines have come when they are all: 1 s.
pub(crate) const LOG_QUIET: Duration = Duration::from_secs(1);

/// Bytes of such lines: 1 MiB. With more of them it is taken not to come again.
pub(crate) const LOG_HELD: usize = 1 << 20;

/// The silence after which a log that is followed is asked for again: 10 min.
///
/// A container may be silent for longer. But a connection over HTTP/1.1 that died silently looks
/// the same, and asking again costs two small requests and repeats nothing.
pub(crate) const LOG_SILENCE: Duration = Duration::from_secs(600);

/// Bytes of a kubelet's text about a log, and of a refusal that is no Status, that are told: 4 KiB.
pub(crate) const SERVER_TEXT: usize = 4 << 10;

/// How often a pod is looked at while its container is to start: every 2 s.
pub(crate) const POD_POLL: Duration = Duration::from_secs(2);

/// How often in a row a log that is not followed is asked for again after the connection was lost:
/// 5 times.
pub(crate) const LOG_RETRIES: u32 = 5;

/// Pages of one list: 100,000. A server that names ever another has none.
///
/// With [`LIST_PAGE`](super::LIST_PAGE) objects each they are more than etcd has room for.
pub(crate) const LIST_PAGES: u32 = 100_000;

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

/// Bytes of payload in one SPDY DATA frame that is sent: 32 KiB, as Go's `io.Copy` writes.
///
/// Streams take turns frame by frame, so that it is also how long a small write waits behind each
/// busy stream.
pub const SPDY_DATA: usize = 32 << 10;

/// Streams that a SPDY peer may have open at once: 4,096, two a forwarded connection.
pub const SPDY_STREAMS: usize = 4096;

/// Bytes of answers that wait for a SPDY peer that asks and does not read: 1 MiB.
///
/// The answers (to pings, new streams, and frames for streams that never were) are 12 to 24 bytes
/// each.
pub const SPDY_OWED: usize = 1 << 20;

/// Bytes of one forwarded connection that wait for its reader: 4 MiB. `PortForward::buffer`
/// changes it.
///
/// The tunnel has no flow control: up to here a slow reader slows nobody else, and here it either
/// holds back the whole tunnel or loses its connection.
pub const FORWARD_RECEIVE: usize = 4 << 20;

/// Bytes of all connections of a tunnel together that wait for their readers: 64 MiB. Here the
/// tunnel is held back whatever the choice for single connections is.
pub const FORWARD_RECEIVE_TOTAL: usize = 64 << 20;

/// Bytes of one forwarded connection that wait to be sent before its writer has to wait: 64 KiB,
/// two turns.
pub const FORWARD_SEND: usize = 64 << 10;

/// The time for which a reader of a full connection may take nothing while other connections of
/// the tunnel wait: 5 s.
pub const FORWARD_PATIENCE: Duration = Duration::from_secs(5);

/// The time within which a peer must accept a stream: 30 s, as in client-go
/// (`k8s.io/client-go/tools/portforward/portforward.go`).
pub const FORWARD_REPLY: Duration = Duration::from_secs(30);

/// The time without inbound bytes after which a tunnel is pinged: 10 s, as client-go does
/// (`tunneling_dialer.go`).
pub const TUNNEL_PING: Duration = Duration::from_secs(10);

/// The time without inbound bytes, though a ping is out, after which new connections get a new
/// tunnel: 15 s.
pub const TUNNEL_SUSPECT: Duration = Duration::from_secs(15);

/// The time without inbound bytes after which a tunnel is dead although sent payload may be
/// waiting for an application that does not read: 5 min.
pub const TUNNEL_STALLED: Duration = Duration::from_secs(300);

/// The time for which the end of a forwarded connection waits for the server's text about it:
/// 100 ms.
///
/// Servers write it right before or right after the end of the data, on another stream.
pub const FORWARD_VERDICT: Duration = Duration::from_millis(100);

/// The time for which a connection whose handle was dropped may take to end in order: 60 s. Also
/// the time after which a listener gives up a connection over channels whose local end has
/// finished, if the application, which nobody can tell, sends nothing.
///
/// Container runtimes end theirs a second after this side has (`containerd`,
/// `sandbox_portforward_linux.go`); after this it is reset.
pub const FORWARD_LINGER: Duration = Duration::from_secs(60);

/// The time after which an application that has not read, or answered, what was sent to it is
/// taken for one that has stopped reading: 2 s. New connections then take another tunnel, for the
/// server may be waiting for it.
pub const FORWARD_STALL: Duration = Duration::from_secs(2);

/// The bytes that must have been sent to it for that: 64 KiB. Fewer are taken by the operating
/// system, whether they are read or not.
pub const FORWARD_UNREAD: usize = 64 << 10;

/// The time for which a local connection waits while the way to the pod is down: 30 s.
pub const FORWARD_RETRY: Duration = Duration::from_secs(30);

/// The pause before the second attempt to find the way to a pod: 250 ms; each later one is twice
/// as long.
pub const FORWARD_RETRY_FIRST: Duration = Duration::from_millis(250);

/// How long a pod that was found through a service or a workload is taken to be there still: 1 s.
/// The next connection after that asks.
pub const FORWARD_FRESH: Duration = Duration::from_secs(1);

/// The longest wait for the answer to that question, and to the one which pods there are: 10 s.
pub const FORWARD_LOOK: Duration = Duration::from_secs(10);

/// Bytes of a server's text about a failed connection that are kept: 16 KiB.
pub const FORWARD_TEXT: usize = 16 << 10;

/// Bytes of the number that pairs the two streams of a connection: 256. A stream with a longer one
/// is refused.
///
/// client-go counts from 0 (`portforward.go`, `nextRequestID`). A server keeps it until the other
/// stream has come.
pub const FORWARD_REQUEST: usize = 256;

/// The time within which the two streams of a connection must arrive at a server: 30 s, as in
/// Kubernetes (`cri-streaming/pkg/streaming/server.go`, `DefaultStreamCreationTimeout`).
pub const FORWARD_PAIR: Duration = Duration::from_secs(30);

/// Bytes of the error channel that are kept: 64 KiB, like client-go's bound for a refusal.
///
/// A `metav1.Status` is a few hundred bytes.
pub const STATUS: usize = 64 << 10;

/// Sizes of the client's terminal that one message can bring to a server: 2, the last and the one
/// before, from which it must differ for a program to draw its screen again
/// (`k8s.io/kubectl/pkg/cmd/attach/attach.go` sends two for this).
pub const TERMINAL_SIZES: usize = 2;

/// Bytes of one output stream that wait for its reader: 1 MiB. `Exec::buffer` changes it.
///
/// A stream at its bound holds back every other stream of its session, because one WebSocket
/// carries them all. The bound is high enough for the diagnostics of most commands, low enough
/// for thousands of sessions whose readers sleep.
pub const STREAM_BUFFER: usize = 1 << 20;

/// Bytes that wait to be sent before a writer has to wait: 256 KiB.
///
/// About what a loopback socket takes at once; more only adds latency to what follows.
pub const SEND_BUFFER: usize = 256 << 10;

/// Bytes of input that go into one message: 64 KiB.
///
/// Servers read a message whole before they pass it on, and nothing else gets in between.
pub const INPUT_MESSAGE: usize = 64 << 10;

/// Bytes of output that `output` and `wait_with_output` collect: 1 GiB. `Exec::max_output` changes
/// it.
pub const OUTPUT: usize = 1 << 30;

/// Characters of another's words, such as a refusal's message, that an error shows: 8,192.
pub const ERROR_TEXT: usize = 8 << 10;

/// Bytes of an HTTP answer that refuses a request: 64 KiB, like [`STATUS`].
pub const REFUSAL: usize = 64 << 10;

/// The time without inbound bytes after which a ping is sent: 20 s.
///
/// Load balancers and address translators drop what idles for one to six minutes
/// (kubernetes/kubernetes#64949); half a minute is the usual lower end.
pub const PING_INTERVAL: Duration = Duration::from_secs(20);

/// The time without inbound bytes, pings unanswered, after which a peer is dead: 70 s.
///
/// Three lost pings. client-go waits 61 s.
pub const SILENCE: Duration = Duration::from_secs(70);

/// The time without outbound messages after which an empty one is sent: 30 min.
///
/// Servers end a session after four hours without one
/// (`k8s.io/apiserver/pkg/util/proxy/websocket.go`).
pub const IDLE_REFRESH: Duration = Duration::from_secs(30 * 60);

/// The time that the end of a session may take, close frames and all: 10 s.
///
/// It is also how long a server may take to close after it has sent the Status, which is what
/// API servers allow themselves (`streamtranslator.go`).
pub const CLOSE_GRACE: Duration = Duration::from_secs(10);

/// The time that a server waits for the client to take the end of the output and to close, after
/// the Status has been queued: 10 min.
///
/// A client that sleeps over its output takes it when it wakes. A server that closed before would
/// destroy what is still on its way as soon as the client sends anything, a ping say.
pub const LINGER: Duration = Duration::from_secs(10 * 60);

/// The longest wait for a TCP connection, name resolution included: 30 s.
///
/// client-go dials with the same bound (`k8s.io/client-go/transport/cache.go`).
pub const CONNECT: Duration = Duration::from_secs(30);

/// The longest wait for a TLS handshake: 10 s.
///
/// client-go has the same bound (`k8s.io/client-go/transport/cache.go`, `TLSHandshakeTimeout`).
pub const TLS_HANDSHAKE: Duration = Duration::from_secs(10);

/// How long a TCP connection may be silent before the kernel probes it: 30 s.
///
/// client-go's dialer has the same (`k8s.io/client-go/transport/cache.go`, `KeepAlive`). It keeps
/// NAT tables warm; it is no replacement for a ping, which tests the peer and not its kernel.
pub const TCP_KEEPALIVE: Duration = Duration::from_secs(30);

/// How long a token that was read from a file is used before the file is read again: 60 s.
///
/// The kubelet renews a projected token when 80 % of its life is over, and that is ten minutes or
/// more; client-go reads it once a minute (`k8s.io/client-go/transport/token_source.go`).
pub const TOKEN_FILE_PERIOD: Duration = Duration::from_secs(60);

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

/// Bytes of one page of a list that has to be kept whole, in CBOR or as a `Table`: 256 MiB. After
/// this is reached, pages are asked for smaller.
///
/// A page is [`LIST_PAGE`] objects, and etcd's default bound on each is 1.5 MiB; the usual page is
/// a few megabytes.
pub const LIST_BODY: usize = 256 << 20;

/// Objects on one page of a list: 500, as client-go and kubectl ask for
/// (`k8s.io/client-go/tools/pager/pager.go`, `defaultPageSize`).
pub const LIST_PAGE: usize = 500;

/// The first delay before an attempt is repeated: 0.8 s, client-go's
/// (`k8s.io/client-go/tools/cache/reflector.go`).
pub const RETRY_FIRST: Duration = Duration::from_millis(800);

/// The longest delay before an attempt is repeated: 30 s, client-go's. A server that asks for more
/// in `Retry-After` gets more, up to [`LOG_WATCH_RETRY_AFTER`].
pub const RETRY_MOST: Duration = Duration::from_secs(30);

/// How long the server is asked to keep a watch up: 5 min, and at random up to twice that, as
/// client-go does (`reflector.go`, `minWatchTimeout`).
pub const WATCH_TIMEOUT: Duration = Duration::from_secs(300);

/// How long after the time asked for a watch may still end by itself: 30 s. One that has sent
/// nothing until then is dead.
pub const WATCH_SLACK: Duration = Duration::from_secs(30);

/// The longest silence of a watch whose server sends bookmarks, which it does about once a minute
/// (`k8s.io/apiserver/pkg/storage/cacher/cacher.go`, `defaultBookmarkFrequency`): 200 s, three
/// of them lost.
pub const WATCH_SILENCE: Duration = Duration::from_secs(200);

/// The longest silence before a watch-list says that its snapshot is complete: 30 s. A server that
/// does not know watch-list, and ignores that it was asked for, never says so.
pub const SNAPSHOT_SILENCE: Duration = Duration::from_secs(30);

/// How long an answer to a request may let its first byte wait: 60 s.
///
/// API servers end other requests than watches after a minute (`--request-timeout`).
pub const ANSWER: Duration = Duration::from_secs(60);

/// How long an answer must last to count as a success, so that the next failure of a watch or a
/// log is the first: 60 s.
pub const ANSWER_PROVEN: Duration = Duration::from_secs(60);

/// The longest `Retry-After` that a watch or a log keeps to: 10 min.
pub const LOG_WATCH_RETRY_AFTER: Duration = Duration::from_secs(600);

/// How many stamps of delivered log lines are remembered, to tell them from others when the log
/// is read again: 256.
///
/// Lines of stdout and stderr are stamped before they are ordered, so that some are a little older
/// than the line before. They are apart by microseconds, not by 256 stamps.
pub const LOG_STAMPS: usize = 256;

/// The silence after which a log that is followed is asked for again: 10 min.
///
/// A container may be silent for longer. But a connection over HTTP/1.1 that died silently looks
/// the same, and asking again costs two small requests and repeats nothing.
pub const LOG_SILENCE: Duration = Duration::from_secs(600);

/// How long a followed log that a server refuses to give, and that gives nothing in between, is
/// asked for: 10 min. Then it has failed. Where the server cannot be reached at all it is asked
/// for without end.
pub const LOG_GIVE_UP: Duration = Duration::from_secs(600);

/// Bytes of a kubelet's text about a log, and of a refusal that is no Status, that are told: 4 KiB.
pub const SERVER_TEXT: usize = 4 << 10;

/// How often a pod is looked at while its container is to start: every 2 s.
pub const POD_POLL: Duration = Duration::from_secs(2);

/// How often in a row a log that is not followed is asked for again after the connection was lost:
/// 5 times.
pub const LOG_RETRIES: u32 = 5;

/// The time that opening a stream may take after the connection stands: 60 s.
///
/// The container runtime gives itself 30 s to start a process
/// (`k8s.io/cri-streaming/pkg/streaming/server.go`, `StreamCreationTimeout`).
pub const OPEN: Duration = Duration::from_secs(60);

/// How long before its end a credential is renewed, at most: 5 min.
///
/// A fifth of its life if that is less, so that a token of 15 minutes is not renewed at once.
/// Whoever needs a credential in that time uses the old one and does not wait.
pub const RENEW_BEFORE: Duration = Duration::from_secs(5 * 60);

/// The pause after a failed renewal of a credential that is still valid: 10 s. It is also how
/// long a credential that the server refuses, and that renewal did not change, is left as it is.
pub const RENEW_AGAIN: Duration = Duration::from_secs(10);

/// Bytes that an exec plugin may write to its standard output: 1 MiB.
///
/// A token and a certificate chain have a few kilobytes.
pub const PLUGIN_OUTPUT: usize = 1 << 20;

/// Bytes of an answer of an OpenID Connect provider: 1 MiB.
pub const OIDC_ANSWER: usize = 1 << 20;

/// The longest wait for an answer of an OpenID Connect provider: 30 s.
pub const OIDC_REQUEST: Duration = Duration::from_secs(30);

/// How long before its end an `id-token` counts as expired: 10 s
/// (`golang.org/x/oauth2`, `defaultExpiryDelta`).
pub const OIDC_EARLY: Duration = Duration::from_secs(10);

/// Bytes of the head of an HTTP proxy's answer to CONNECT: 16 KiB.
pub const PROXY_ANSWER: usize = 16 << 10;

/// The longest wait for the head of the answer to a plain request: 90 s.
///
/// API servers end such requests after 60 s themselves (`--request-timeout`). Requests that may
/// take longer, such as those to a pod through the API server, have no such limit.
pub const REQUEST: Duration = Duration::from_secs(90);

/// How often a request is sent again because the server asked for patience: 10 times, as in
/// client-go (`k8s.io/client-go/rest/request.go`, `maxRetries`).
pub const RETRIES: u32 = 10;

/// The longest `Retry-After` that is waited out: 60 s. One that is longer is an error at once.
pub const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(60);

/// How long a connection without requests is kept: 90 s, as in Go's `http.DefaultTransport`.
pub const IDLE_CONNECTION: Duration = Duration::from_secs(90);

/// Answers of code 1xx before the one that counts: 5, as in Go (`net/http/transport.go`,
/// `max1xxResponses`).
pub const INFORMATIONAL: usize = 5;

/// How long a new HTTP/2 connection keeps other requests waiting until its server says how many
/// may share it: 1 s. After that it is taken to be [`STREAMS`].
pub const HTTP2_SETTINGS: Duration = Duration::from_secs(1);

/// Bytes that may wait to be read of one HTTP/2 response: 1 MiB.
pub const HTTP2_STREAM: u32 = 1 << 20;

/// Bytes that may wait to be read on one HTTP/2 connection: 1 GiB, so that it is never the
/// connection that stops, and a reader that is slow holds up only its own response. Go has the
/// same (`golang.org/x/net/http2`, `transportDefaultConnFlow`).
pub const HTTP2_CONNECTION: u32 = 1 << 30;

/// How long an HTTP/2 connection in use may be silent before it is pinged: 30 s
/// (`k8s.io/apimachinery/pkg/util/net/http.go`, `readIdleTimeoutSeconds`).
pub const HTTP2_PING: Duration = Duration::from_secs(30);

/// How long an HTTP/2 ping may stay without an answer: 15 s (`pingTimeoutSeconds`).
pub const HTTP2_PONG: Duration = Duration::from_secs(15);

/// Bytes of an object or of a page of a list: 256 MiB.
///
/// etcd refuses objects above 1.5 MiB; a page of 500 of them is the worst case that is thinkable.
pub const OBJECT: usize = 256 << 20;

/// Objects in a page of a list: 500, as kubectl asks for (`k8s.io/kubectl/pkg/cmd/get`).
pub const PAGE: u32 = 500;

/// How often an update is tried again after a conflict: 10 times.
///
/// client-go's `retry.DefaultBackoff` and `DefaultRetry` have 4 and 5.
pub const UPDATES: u32 = 10;

/// The pause before the second try of an update, doubled for each further one: 10 ms
/// (`k8s.io/client-go/util/retry`, `DefaultRetry`).
pub const UPDATE_PAUSE: Duration = Duration::from_millis(10);

/// How long a client uses what it knows about the server's resources: 10 min.
///
/// A name that is not found is looked up anew at once.
pub const DISCOVERY: Duration = Duration::from_secs(600);

/// How many groups of resources a server without aggregated discovery is asked about at once: 32.
pub const DISCOVERY_REQUESTS: usize = 32;

/// How long such a group may take to answer before it is left out: 10 s. Its own server may be
/// down, and the API server waits for it.
pub const DISCOVERY_GROUP: Duration = Duration::from_secs(10);

/// How many requests share one HTTP/2 connection: 100; more open another.
///
/// API servers refuse more streams than that on one connection
/// (`k8s.io/apiserver/pkg/server/secure_serving.go`, `http2MaxStreamsPerConnection`), and hyper
/// would let them wait.
pub const STREAMS: usize = 100;

/// Bytes of the largest HTTP/2 frame that is accepted: 64 KiB. Larger ones make fewer reads.
pub const HTTP2_FRAME: u32 = 64 << 10;

/// How many logs are read at once where many are merged: 500. More wait until others end.
///
/// Each is a request under way at a kubelet; kubectl stops at 5
/// (`k8s.io/kubectl/pkg/cmd/logs/logs.go`, `--max-log-requests`) and asks for consent.
pub const LOG_SOURCES: usize = 500;

//! The bounds that a caller may change or has to know, with their defaults, units and reasons.
//!
//! Every other buffer, queue and deadline in the crate has a bound, too. Reaching one is
//! backpressure or a named error, never growth. A bound that a caller may change has a method of
//! its own for it.

#[cfg(feature = "client")]
mod client;
mod session;

use std::time::Duration;

#[cfg(feature = "client")]
pub(crate) use client::*;
pub(crate) use session::*;

/// Bytes of the largest WebSocket message that is accepted, fragments added up: 32 MiB.
///
/// Servers write at most 32 KiB at a time, and `golang.org/x/net/websocket` refuses more than
/// this in the other direction (`websocket.go`, `DefaultMaxPayloadBytes`).
pub const MESSAGE: usize = 32 << 20;

/// Bytes that a SPDY header block may expand to: 8 KiB.
///
/// A stream of a port-forward has three headers of a few bytes. zlib expands up to a
/// thousandfold, so that the bound on frames is none on this.
pub const SPDY_HEADERS: usize = 8 << 10;

/// Bytes of one forwarded connection that wait for its reader: 1 MiB. `PortForward::buffer`
/// changes it.
///
/// The protocol has no flow control: up to here a slow reader slows nobody else, and here it either
/// holds back all others of its WebSocket or loses its connection.
pub const FORWARD_RECEIVE: usize = 1 << 20;

/// Bytes of all connections of a WebSocket together that wait for their readers: 64 MiB. Here the
/// WebSocket is held back whatever the choice for single connections is.
///
/// Where many wait, each a little, more would only wait longer: they are held back at 2 MiB, of
/// which no connection counts for more than 128 KiB. So sixteen readers that take nothing are what
/// stops all others, either way.
pub const FORWARD_RECEIVE_TOTAL: usize = 64 << 20;

/// Bytes of one forwarded connection that wait to be sent before its writer has to wait: 64 KiB,
/// two turns.
pub const FORWARD_SEND: usize = 64 << 10;

/// The time for which a reader of a full connection may take nothing while other connections of
/// the WebSocket wait: 5 s.
pub const FORWARD_PATIENCE: Duration = Duration::from_secs(5);

/// The time within which a peer must accept a stream: 30 s, as in client-go
/// (`k8s.io/client-go/tools/portforward/portforward.go`).
pub const FORWARD_REPLY: Duration = Duration::from_secs(30);

/// Streams that a SPDY peer may have open at once: 4,096, two a forwarded connection.
pub const SPDY_STREAMS: usize = 4096;

/// The time without inbound bytes after which a SPDY connection is pinged: 10 s, as client-go does
/// (`tunneling_dialer.go`).
pub const SPDY_KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);

/// The time without inbound bytes, though a ping is out, after which new connections get a new
/// WebSocket: 15 s.
pub const SPDY_SUSPECT: Duration = Duration::from_secs(15);

/// The time without inbound bytes after which a SPDY connection is dead although sent payload may
/// be waiting for an application that does not read: 5 min.
pub const SPDY_STALLED: Duration = Duration::from_secs(300);

/// The time after which an application that has not read, or answered, what was sent to it is
/// taken for one that has stopped reading: 2 s. New connections then take another WebSocket, for
/// the server may be waiting for it.
pub const FORWARD_STALL: Duration = Duration::from_secs(2);

/// The bytes that must have been sent to it for that: 64 KiB. Fewer are taken by the operating
/// system, whether they are read or not.
pub const FORWARD_UNREAD: usize = 64 << 10;

/// WebSockets that are dialled to keep connections to a port that has not answered yet from those
/// to others: 8. Where that is not enough, they share.
pub const FORWARD_APART: usize = 8;

/// How long the first bytes to a port wait, beside other connections, for a refusal that would
/// leave them unread: 100 ms after the server has taken on the connection.
pub const FORWARD_PROBE: Duration = Duration::from_millis(100);

/// How long a pod that was found through a service or a workload is taken to be there still: 1 s.
/// The next connection after that asks.
pub const FORWARD_FRESH: Duration = Duration::from_secs(1);

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

/// The time without inbound bytes after which a ping is sent: 20 s.
///
/// Load balancers and address translators drop what idles for one to six minutes
/// (kubernetes/kubernetes#64949); half a minute is the usual lower end.
pub const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(20);

/// The time without inbound bytes, pings unanswered, after which a peer is dead: 70 s.
///
/// Three lost pings. client-go waits 61 s.
pub const SILENCE: Duration = Duration::from_secs(70);

/// The same while input is on its way that the peer may not have read: 4 h.
///
/// A process may sleep over its input for long, and its server reads no pings meanwhile. Servers
/// end a session that they hear nothing of after as long
/// (`k8s.io/apiserver/pkg/util/proxy/websocket.go`).
pub const UNREAD: Duration = Duration::from_secs(4 * 60 * 60);

/// The time without outbound messages after which an empty one is sent: 30 min.
///
/// Servers end a session after four hours without one
/// (`k8s.io/apiserver/pkg/util/proxy/websocket.go`).
pub const IDLE_REFRESH: Duration = Duration::from_secs(30 * 60);

/// The time that the end of a session may take, close frames and all: 10 s.
///
/// It is also how long a server may take to close after it has sent the Status, which is what
/// API servers allow themselves (`streamtranslator.go`), and how long a connection that broke as it
/// was written to is still read, in case the peer says why.
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

/// How long a TCP connection may be silent before the kernel probes it: 30 s.
/// `Config::with_tcp_keepalive` changes it.
///
/// client-go's dialer has the same (`k8s.io/client-go/transport/cache.go`, `KeepAlive`). It keeps
/// NAT tables warm; it is no replacement for a ping, which tests the peer and not its kernel.
pub const TCP_KEEPALIVE: Duration = Duration::from_secs(30);

/// The longest wait for a TLS handshake: 10 s.
///
/// client-go has the same bound (`k8s.io/client-go/transport/cache.go`, `TLSHandshakeTimeout`).
pub const TLS_HANDSHAKE: Duration = Duration::from_secs(10);

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

/// Bytes of one page of a list that has to be kept whole, in CBOR or as a `Table`: 64 MiB. After
/// this is reached, pages are asked for smaller.
///
/// A page is [`LIST_PAGE`] objects; the usual page is a few megabytes.
pub const LIST_BODY: usize = 64 << 20;

/// How long a followed log that a server refuses to give, and that gives nothing in between, is
/// asked for: 10 min. Then it has failed. Where the server cannot be reached at all, in between as
/// well, it is asked for without end.
pub const LOG_GIVE_UP: Duration = Duration::from_secs(600);

/// How long a watch or a followed log goes on asking for what the server once granted and now
/// refuses, or for which there are no credentials any more: 1 min. An API server takes requests a
/// while before it knows who may do what.
pub const GRANT_PATIENCE: Duration = Duration::from_secs(60);

/// Objects on one page of a list: 500, as client-go and kubectl ask for
/// (`k8s.io/client-go/tools/pager/pager.go`, `defaultPageSize`).
pub const LIST_PAGE: usize = 500;

/// How long the server is asked to keep a watch up: 5 min, and at random up to twice that, as
/// client-go does (`reflector.go`, `minWatchTimeout`).
pub const WATCH_TIMEOUT: Duration = Duration::from_secs(300);

/// How many changes of a shared mirror are kept for its slowest reader, who is told the state anew
/// when it is further behind: 1024. A burst on a busy cluster is a few hundred.
pub const MIRROR_BACKLOG: u64 = 1024;

/// The time that opening a stream may take after the connection stands: 60 s.
///
/// The container runtime gives itself 30 s to start a process
/// (`k8s.io/cri-streaming/pkg/streaming/server.go`, `StreamCreationTimeout`).
pub const OPEN: Duration = Duration::from_secs(60);

/// The longest wait for the head of the answer to a plain request, and for each part of a body that
/// is read whole: 90 s.
///
/// API servers end such requests after 60 s themselves (`--request-timeout`). Requests that may
/// take longer, such as those to a pod through the API server, have no such limit.
pub const REQUEST: Duration = Duration::from_secs(90);

/// How often a request is sent again because the server asked for patience: 10 times, as in
/// client-go (`k8s.io/client-go/rest/request.go`, `maxRetries`).
pub const RETRIES: u32 = 10;

/// How often an update is tried again after a conflict: 10 times.
///
/// client-go's `retry.DefaultBackoff` and `DefaultRetry` have 4 and 5.
pub const UPDATES: u32 = 10;

/// How long a client uses what it knows about the server's resources: 10 min.
///
/// A name that is not found is looked up anew at once.
pub const DISCOVERY: Duration = Duration::from_secs(600);

/// How many logs are read at once where many are merged: 500. More wait until others end.
///
/// Each is a request under way at a kubelet; kubectl stops at 5
/// (`k8s.io/kubectl/pkg/cmd/logs/logs.go`, `--max-log-requests`) and asks for consent.
pub const LOG_SOURCES: usize = 500;

/// Entries of an archive that a container may send: 1,000,000. `CopyFrom::max_entries` changes it.
///
/// Of each file the name, the size and the digest are kept until all are compared.
pub const COPY_ENTRIES: u64 = 1_000_000;

/// Bytes of the files that a container may send in one copy: 1 TiB. `CopyFrom::max_bytes` changes
/// it. Holes count, so that a disk of that size is enough.
pub const COPY_BYTES: u64 = 1 << 40;

/// In how many pods a command runs at once: 32. `ExecAll::max_concurrent` changes it.
///
/// Each is a WebSocket, and a process at a kubelet.
pub const ALL_AT_ONCE: usize = 32;

/// Bytes of a line from one of many pods: 64 KiB. A longer one comes in pieces.
pub const ALL_LINE: usize = 64 << 10;

/// How long an ephemeral container may take to start: 5 min. `DebugContainer::timeout` changes it.
///
/// Its image may have to be pulled.
pub const DEBUG_START: Duration = Duration::from_secs(300);

//! Errors by who is to blame: the peer, the API, the network, the caller.

use std::{io, sync::Arc};

mod hint;

use crate::wire::{
    channel::ChannelError,
    port_channel::PortChannelError,
    resize::ResizeError,
    spdy::SpdyError,
    status::{Status, StatusError},
    watch::EventError,
    websocket::WebSocketError,
};

/// The result of nearly everything in this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong, by who is to blame.
///
/// An `Error` clones cheaply: every handle of a session that fails gets the same one. Handles
/// that implement `AsyncRead` or `AsyncWrite` wrap it in an [`io::Error`]; [`Error::of_io`] finds
/// it there.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The other end broke the protocol. Repeating the request will not help; a report to its
    /// maintainers might.
    #[error(transparent)]
    Peer(#[from] PeerError),
    /// The API server understood the request and refused it, or it failed there.
    #[error(transparent)]
    Api(Box<ApiError>),
    /// The object has changed since it was read (409 `Conflict`): read it again and repeat the
    /// change, as [`Request::update`](crate::client::Request::update) does.
    #[error(transparent)]
    Conflict(Box<ApiError>),
    /// The connection could not be made, or was lost. Repeating the request may help.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// The request, the configuration or the use of a handle is wrong on this side.
    #[error(transparent)]
    Caller(#[from] CallerError),
}

impl Error {
    /// The error of this crate inside an [`io::Error`] that a handle of this crate returned.
    pub fn of_io(error: &io::Error) -> Option<&Self> {
        error.get_ref()?.downcast_ref()
    }

    /// The Status that the server sent with its refusal.
    pub fn status(&self) -> Option<&Status> {
        match self {
            Self::Api(error) | Self::Conflict(error) => Some(&error.status),
            _ => None,
        }
    }

    pub(crate) fn kind(&self) -> io::ErrorKind {
        match self {
            Self::Conflict(_) => io::ErrorKind::Other,
            Self::Peer(_) => io::ErrorKind::InvalidData,
            Self::Api(error) => match error.status.code {
                401 | 403 => io::ErrorKind::PermissionDenied,
                404 => io::ErrorKind::NotFound,
                _ => io::ErrorKind::Other,
            },
            Self::Network(error) => error.kind(),
            Self::Caller(CallerError::HalfClose { .. }) => io::ErrorKind::Unsupported,
            Self::Caller(CallerError::Ended) => io::ErrorKind::BrokenPipe,
            Self::Caller(CallerError::Killed) => io::ErrorKind::ConnectionAborted,
            Self::Caller(_) => io::ErrorKind::InvalidInput,
        }
    }
}

/// A 409 is a [`Conflict`](Error::Conflict), unless the object exists already.
impl From<Box<ApiError>> for Error {
    fn from(error: Box<ApiError>) -> Self {
        match (error.status.code, error.status.reason.as_str()) {
            (409, "Conflict") => Self::Conflict(error),
            _ => Self::Api(error),
        }
    }
}

/// An event that cannot be understood is the peer's fault.
impl From<EventError> for Error {
    fn from(error: EventError) -> Self {
        PeerError::from(error).into()
    }
}

impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        Self::new(error.kind(), error)
    }
}

/// How the other end broke the protocol.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum PeerError {
    /// The bytes are not WebSocket frames as RFC 6455 has them.
    #[error("the peer broke the WebSocket protocol: {0}")]
    WebSocket(#[from] WebSocketError),
    /// The same, in the words of the library whose WebSocket this is
    /// (`transport::AnyWebSocket`).
    #[error("the peer broke the WebSocket protocol: {0}")]
    WebSocketLibrary(String),
    /// A message is none of exec or attach.
    #[error("the peer broke the remotecommand protocol: {0}")]
    Channel(#[from] ChannelError),
    /// What should have been a terminal size is none.
    #[error("the peer broke the remotecommand protocol: {0}")]
    Resize(#[from] ResizeError),
    /// What should have been a Status is none.
    #[error("the peer sent an unreadable status: {0}")]
    Status(#[from] StatusError),
    /// Bytes of a port-forward tunnel that are not acceptable SPDY.
    #[error("the peer broke the SPDY protocol: {0}")]
    Spdy(#[from] SpdyError),
    /// A message of a port-forward that its channels do not allow.
    #[error("the peer broke the port-forward protocol: {0}")]
    PortChannel(#[from] PortChannelError),
    /// The server chose a subprotocol that was not offered, or none.
    #[error("the server answered with the subprotocol {answer:?}; offered were {offered:?}")]
    Subprotocol {
        /// What was offered.
        offered: String,
        /// What came back; empty for nothing.
        answer: String,
    },
    /// The bytes are not HTTP.
    #[error("the peer broke HTTP: {0}")]
    Http(String),
    /// An answer of success that is not what was asked for.
    #[error("{operation}: the server's answer cannot be read: {problem}")]
    Answer {
        /// What was asked.
        operation: String,
        /// What is wrong with the answer.
        problem: String,
    },
    /// The answer to the WebSocket handshake is not one.
    #[error("the server's WebSocket handshake is wrong: {0}")]
    Handshake(String),
    /// What should have been a watch event, a list or an object is none.
    #[error("the server sent an unreadable object: {0}")]
    Event(#[from] EventError),
    /// A text message of a log over a WebSocket, which should be base64, is not.
    #[error("the server sent a message of a log that is not valid base64")]
    Base64,
    /// An answer that should be objects is something else.
    #[error("the server answered with the content type {found:?}")]
    ContentType {
        /// What it answered with.
        found: String,
    },
}

/// The API server's refusal, or its failure to do what was asked.
///
/// It reads the same whether the server refused the request with an HTTP code or accepted the
/// WebSocket first and sent the Status on its error channel: API servers with
/// `v5.channel.k8s.io` answer before they ask the kubelet
/// (`k8s.io/apiserver/pkg/util/proxy/streamtranslator.go`).
#[derive(Debug, Clone, thiserror::Error)]
#[error("{operation}: {status}{}", Advice(.hint.as_ref()))]
#[non_exhaustive]
pub struct ApiError {
    /// What was asked, such as `exec in pod default/web-0`.
    pub operation: String,
    /// The server's whole answer.
    pub status: Status,
    /// What the user can do about it, where the answer says enough to tell.
    pub hint: Option<Hint>,
}

/// What a user can do about an [`ApiError`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Hint {
    /// The user lacks a right: a Role with this rule grants it.
    Rule {
        /// The API group of the resource; empty for the core group.
        group: String,
        /// The resource with its subresource, such as `pods/exec`.
        resource: String,
        /// The verbs that the rule must list.
        verbs: Vec<String>,
    },
    /// The pod has several containers, or none of the given name: name one of these.
    Containers(Vec<String>),
    /// The container has no such program, or it cannot be executed.
    Program(String),
}

impl ApiError {
    /// The refusal `status` of `operation`, with the hint that its message gives.
    pub fn new(operation: impl Into<String>, status: Status) -> Self {
        Self {
            operation: operation.into(),
            hint: hint::find(&status),
            status,
        }
    }
}

struct Advice<'a>(Option<&'a Hint>);

impl std::fmt::Display for Advice<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            None => Ok(()),
            Some(hint) => write!(f, " ({hint})"),
        }
    }
}

impl std::fmt::Display for Hint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Rule {
                group,
                resource,
                verbs,
            } => write!(
                f,
                "a Role needs the rule {{apiGroups: [{group:?}], resources: [{resource:?}], \
                 verbs: {verbs:?}}}"
            ),
            Self::Containers(names) => write!(f, "the containers are {}", names.join(", ")),
            Self::Program(name) => write!(f, "the container cannot execute {name:?}"),
        }
    }
}

/// How the connection could not be made, or was lost.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum NetworkError {
    /// No connection to the server.
    #[error("cannot connect to {address}: {source}")]
    Connect {
        /// Host and port, or the proxy's.
        address: String,
        /// What the operating system or the resolver said.
        source: Arc<io::Error>,
    },
    /// The proxy was reached and does not let the connection through.
    #[error("the proxy {proxy} does not connect to {address}: {source}")]
    Proxy {
        /// Host and port of the proxy.
        proxy: String,
        /// Host and port of the server.
        address: String,
        /// What the proxy said.
        source: Arc<io::Error>,
    },
    /// The server's certificate cannot be trusted.
    #[error("the certificate of {address} is refused: {problem}")]
    Certificate {
        /// Host and port.
        address: String,
        /// The name, the dates, the issuer?
        problem: CertificateProblem,
        /// What TLS said.
        source: Arc<io::Error>,
    },
    /// The TLS handshake failed for another reason than the server's certificate.
    #[error("TLS handshake with {address} failed: {source}")]
    Tls {
        /// Host and port.
        address: String,
        /// What TLS said.
        source: Arc<io::Error>,
    },
    /// An established connection broke.
    #[error("the connection was lost: {0}")]
    Lost(#[source] Arc<io::Error>),
    /// The connection ended, in whatever way, before the server said how the work ended. This is
    /// never a success: the process may still be running, or may have failed.
    #[error("the connection ended without a status{}", Ending(*.code, .reason, .source.as_deref()))]
    ClosedWithoutStatus {
        /// The code of the WebSocket close frame, if there was one (RFC 6455, section 7.4).
        code: Option<u16>,
        /// The text of the close frame.
        reason: String,
        /// How the connection broke, if it did.
        source: Option<Arc<io::Error>>,
    },
    /// The other end reset this connection, and said no more about it.
    #[error("the connection was reset by the other end ({status})")]
    Reset {
        /// The name of the status that it gave.
        status: String,
    },
    /// None of the pods that a service or a workload selects is running.
    #[error("no pod of {target} in namespace {namespace} is running")]
    NoPod {
        /// What selects them, such as `service/web`.
        target: String,
        /// Its namespace.
        namespace: String,
    },
    /// Nothing arrived for too long although the peer was asked for a sign of life.
    #[error("the peer has been silent for {} s", .silent.as_secs())]
    Silent {
        /// How long nothing arrived.
        silent: std::time::Duration,
    },
    /// An operation did not finish before its deadline.
    #[error("{operation} did not finish within {} s", .after.as_secs_f32())]
    TimedOut {
        /// What was under way.
        operation: String,
        /// The deadline.
        after: std::time::Duration,
    },
}

/// Why a server's certificate is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CertificateProblem {
    /// It is for other names than the one that was dialled.
    #[error("it is not for the name {expected:?} but for {presented:?}")]
    Name {
        /// The host of the server's URL, or the `tls-server-name` given instead.
        expected: String,
        /// The names in the certificate.
        presented: Vec<String>,
    },
    /// Its time is over, by this machine's clock.
    #[error("it expired{}", Ago(.for_how_long))]
    Expired {
        /// How long it has been expired, where TLS says so.
        for_how_long: Option<std::time::Duration>,
    },
    /// Its time has not begun, by this machine's clock.
    #[error("it is not valid yet; is this machine's clock right?")]
    NotYetValid,
    /// None of the certificate authorities that this client trusts signed it.
    #[error("its issuer is not among the trusted certificate authorities ({trusted})")]
    Issuer {
        /// Where the trusted certificate authorities come from.
        trusted: String,
    },
    /// Its issuer has withdrawn it.
    #[error("it is revoked")]
    Revoked,
    /// Something else, in the words of the TLS library.
    #[error("{0}")]
    Other(String),
}

struct Ago<'a>(&'a Option<std::time::Duration>);

impl std::fmt::Display for Ago<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0.map(|age| age.as_secs()) {
            None => Ok(()),
            Some(age @ 0..60) => write!(f, " {age} s ago"),
            Some(age @ 60..7200) => write!(f, " {} min ago", age / 60),
            Some(age @ 7200..172_800) => write!(f, " {} h ago", age / 3600),
            Some(age) => write!(f, " {} days ago", age / 86_400),
        }
    }
}

struct Ending<'a>(Option<u16>, &'a str, Option<&'a io::Error>);

impl std::fmt::Display for Ending<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self(Some(code), "", _) => write!(f, " (close code {code})"),
            Self(Some(code), reason, _) => write!(f, " (close code {code}: {reason})"),
            Self(None, _, Some(source)) => write!(f, " ({source})"),
            Self(None, _, None) => Ok(()),
        }
    }
}

impl NetworkError {
    fn kind(&self) -> io::ErrorKind {
        match self {
            Self::Connect { source, .. }
            | Self::Proxy { source, .. }
            | Self::Certificate { source, .. }
            | Self::Tls { source, .. }
            | Self::Lost(source) => source.kind(),
            Self::ClosedWithoutStatus { .. } => io::ErrorKind::UnexpectedEof,
            Self::Reset { .. } => io::ErrorKind::ConnectionReset,
            Self::NoPod { .. } => io::ErrorKind::NotConnected,
            Self::Silent { .. } | Self::TimedOut { .. } => io::ErrorKind::TimedOut,
        }
    }
}

/// What is wrong on this side.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum CallerError {
    /// A configuration that cannot be used: which file or variable, and why.
    #[error("{origin}: {problem}")]
    Config {
        /// The file, the environment variable or the field.
        origin: String,
        /// What is wrong with it, and what would be right.
        problem: String,
    },
    /// The server speaks a subprotocol that cannot end stdin alone, so that the remote command
    /// would wait for input for ever.
    #[error("stdin cannot be closed by itself over {protocol}: the server lacks v5.channel.k8s.io")]
    HalfClose {
        /// The subprotocol in use.
        protocol: &'static str,
    },
    /// A terminal size for a session without a terminal. Servers read it and never deliver it:
    /// after a few the whole session hangs.
    #[error("resize needs a session with a TTY")]
    ResizeWithoutTty,
    /// A write after the remote command, or the session, has ended.
    #[error("the session has ended")]
    Ended,
    /// The session's owner was dropped or killed it; what had arrived was still delivered.
    #[error("the session was killed on this side")]
    Killed,
    /// A stream that nobody reads is full, so that nothing else can arrive.
    #[error(
        "{bytes} bytes of {stream} wait to be read and hold everything else back: read it, drop \
         it, or allow it a larger buffer"
    )]
    Unread {
        /// The stream.
        stream: &'static str,
        /// The bound that it reached, in bytes.
        bytes: usize,
    },
    /// More output than the caller allows to be collected.
    #[error("more than {limit} bytes of output")]
    TooMuchOutput {
        /// The bound, in bytes.
        limit: usize,
    },
    /// No local address to listen on.
    #[error("cannot listen: {0}")]
    Listen(#[source] Arc<io::Error>),
    /// A request that cannot be sent.
    #[error("{0}")]
    Request(String),
}

//! Errors by who is to blame: the peer, the API, the network, the caller.

use std::io;
#[cfg(any(feature = "client", feature = "server"))]
use std::sync::Arc;

mod caller;
#[cfg(any(feature = "client", feature = "server"))]
pub(crate) mod guarded;
mod hint;
mod network;
#[cfg(any(feature = "client", feature = "server"))]
pub(crate) mod panic;
pub(crate) mod text;

pub use self::{
    caller::{CallerError, PartialOutput},
    network::{CertificateProblem, NetworkError},
};

pub(crate) use self::text::Printable;
#[doc(hidden)]
pub use self::text::is_obeyed;
use crate::wire::{
    channel::ChannelError,
    gzip::GzipError,
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
///
/// `Debug` is for a person who reads it: what `Display` says, then the causes that it leaves out.
/// So a `main` that returns an `Error` ends in words. `{:#?}` shows the values.
///
/// ```
/// use kubewire::error::{CallerError, Error};
///
/// let error = Error::from(CallerError::Ended);
/// assert_eq!(format!("{error:?}"), "the session has ended");
/// assert!(!error.is_retryable() && !error.is_not_found());
/// ```
#[derive(Clone, thiserror::Error)]
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

    /// The error of this crate inside an [`io::Error`], or else what `other` makes of it.
    #[cfg(any(feature = "client", feature = "server"))]
    pub(crate) fn of_stream<E: Into<Self>>(
        error: io::Error,
        other: fn(Arc<io::Error>) -> E,
    ) -> Self {
        match Self::of_io(&error) {
            Some(error) => error.clone(),
            None => other(Arc::new(error)).into(),
        }
    }

    /// The same, where all else is a connection that broke.
    #[cfg(any(feature = "client", feature = "server"))]
    pub(crate) fn of_connection(error: io::Error) -> Self {
        Self::of_stream(error, NetworkError::Lost)
    }

    /// The Status that the server sent with its refusal.
    pub fn status(&self) -> Option<&Status> {
        match self {
            Self::Api(error) | Self::Conflict(error) => Some(&error.status),
            _ => None,
        }
    }

    /// The Status with which a server passes the error on: the one that the API server sent, or one
    /// with the code 504 for a time that ran out and 500 for everything else, and the error's words.
    ///
    /// ```
    /// use kubewire::error::{CallerError, Error};
    ///
    /// let status = Error::from(CallerError::Ended).to_status();
    /// assert_eq!((status.code, status.message.as_str()), (500, "the session has ended"));
    /// ```
    pub fn to_status(&self) -> Status {
        match (self.status(), self) {
            (Some(status), _) => status.clone(),
            (None, Self::Caller(CallerError::TimedOut { .. })) => {
                Status::failure(504, "Timeout", self.to_string())
            }
            (None, _) => Status::failure(500, "InternalError", self.to_string()),
        }
    }

    /// Whether the object, or what it was asked for, does not exist (404).
    pub fn is_not_found(&self) -> bool {
        self.code() == Some(404)
    }

    /// Whether the object has changed since it was read (409 `Conflict`). That it exists already
    /// is no conflict.
    pub fn is_conflict(&self) -> bool {
        matches!(self, Self::Conflict(_))
    }

    /// Whether the user lacks the right (403).
    pub fn is_forbidden(&self) -> bool {
        self.code() == Some(403)
    }

    /// Whether the server no longer has the `resourceVersion`, or the page, that was asked for
    /// (410): list anew.
    pub fn is_gone(&self) -> bool {
        self.code() == Some(410)
    }

    /// Whether the same request may succeed later, without a change on this side: the connection
    /// failed, or the server is overloaded or not ready (429, 500, 502, 503, 504), or no pod was
    /// running. Whether it has been carried out already, this does not say.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Network(NetworkError::Certificate { .. }) | Self::Peer(_) => false,
            Self::Network(_) | Self::Caller(CallerError::NoPod { .. }) => true,
            Self::Api(error) => matches!(error.status.code, 429 | 500 | 502..=504),
            Self::Conflict(_) | Self::Caller(_) => false,
        }
    }

    fn code(&self) -> Option<u16> {
        self.status().map(|status| status.code)
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
            Self::Caller(CallerError::NoPod { .. }) => io::ErrorKind::NotConnected,
            Self::Caller(CallerError::TimedOut { .. }) => io::ErrorKind::TimedOut,
            Self::Caller(CallerError::Ended) => io::ErrorKind::BrokenPipe,
            Self::Caller(CallerError::Killed) => io::ErrorKind::ConnectionAborted,
            Self::Caller(_) => io::ErrorKind::InvalidInput,
        }
    }
}

/// As anyhow prints it, without the causes whose words have been said.
impl std::fmt::Debug for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if f.alternate() {
            return match self {
                Self::Peer(error) => f.debug_tuple("Peer").field(error).finish(),
                Self::Api(error) => f.debug_tuple("Api").field(error).finish(),
                Self::Conflict(error) => f.debug_tuple("Conflict").field(error).finish(),
                Self::Network(error) => f.debug_tuple("Network").field(error).finish(),
                Self::Caller(error) => f.debug_tuple("Caller").field(error).finish(),
            };
        }
        let mut said = self.to_string();
        f.write_str(&said)?;
        let mut heading = "\n\nCaused by:";
        let mut next = std::error::Error::source(self);
        while let Some(cause) = next {
            let text = cause.to_string();
            if !said.contains(&text) {
                f.write_str(heading)?;
                for line in text.lines() {
                    write!(f, "\n    {}", Printable(line))?;
                }
                heading = "";
                said = text;
            }
            next = cause.source();
        }
        Ok(())
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
///
/// ```
/// # kubewire::example(|pod| pod.container("main", ["sh", "-c", "echo ready; sleep 600"]), async |client| {
/// use kubewire::{Error, error::PeerError, request::Resource};
///
/// // An answer that is an object, but not of this type.
/// let pods = client.request(Resource::namespaced("", "v1", "pods"));
/// let error = pods.get::<Vec<u8>>("web-0").await.unwrap_err();
/// assert!(matches!(error, Error::Peer(PeerError::Answer { .. })), "{error:?}");
/// # Ok(())
/// # });
/// ```
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum PeerError {
    /// The bytes are not WebSocket frames as RFC 6455 has them.
    #[error("the peer broke the WebSocket protocol: {0}")]
    WebSocket(#[from] WebSocketError),
    /// The same, in the words of the library whose WebSocket this is
    /// (`transport::AnyWebSocket`).
    #[error("the peer broke the WebSocket protocol: {}", Printable(.0))]
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
    /// Bytes of a port-forward that are not acceptable SPDY.
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
    #[error("the peer broke HTTP: {}", Printable(.0))]
    Http(String),
    /// A body in gzip that is none.
    #[error("the server sent a body that cannot be read: {0}")]
    Gzip(#[from] GzipError),
    /// An answer of success that is not what was asked for.
    #[error("{operation}: the server's answer cannot be read: {}", Printable(.problem))]
    Answer {
        /// What was asked.
        operation: String,
        /// What is wrong with the answer.
        problem: String,
    },
    /// The answer to the WebSocket handshake is not one.
    #[error("the server's WebSocket handshake is wrong: {}", Printable(.0))]
    Handshake(String),
    /// What should have been a watch event, a list or an object is none.
    #[error("the server sent an unreadable object: {0}")]
    Event(#[from] EventError),
    /// A text message of a log over a WebSocket, which should be base64, is not.
    #[error("the server sent a message of a log that is not valid base64")]
    Base64,
    /// A copy that is not what was copied, or that would not stay where it belongs.
    #[error("{}: {}", Printable(.path), Printable(.problem))]
    Copy {
        /// The file, as the container names it.
        path: String,
        /// What is wrong with it.
        problem: String,
    },
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
///
/// ```
/// # kubewire::example(|pod| pod.container("main", ["sleep", "infinity"]), async |client| {
/// use kubewire::{Error, error::Hint};
///
/// let error = client.pod("default", "web-0").exec(["/no/such/program"]).output().await.unwrap_err();
/// let Error::Api(refusal) = error else { panic!("{error}") };
/// assert!(matches!(refusal.hint, Some(Hint::Program(_))));
/// assert!(refusal.to_string().contains("exec in pod default/web-0"));
/// # Ok(())
/// # });
/// ```
#[derive(Debug, Clone, thiserror::Error)]
#[error("{operation}: {}{}", Printable(.status), Advice(self))]
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
    /// There is no such namespace, and so no pod in it.
    Namespace(String),
    /// The pod does not run, so that nothing can be run in it, attached or forwarded to.
    NotRunning {
        /// Such as `Succeeded` or `Pending`.
        phase: String,
        /// Why, such as `Evicted`, where the pod says so; else empty.
        reason: String,
    },
    /// The container has no such program, or it cannot be executed.
    Program(String),
    /// The request to upgrade arrived as a plain one: something on the way strips the headers
    /// `Connection` and `Upgrade`, as a load balancer without WebSockets does.
    Upgrade,
    /// The server does not know the user: what it was sent, or nothing if that is empty.
    Credentials(String),
    /// The client certificate is out of date, which may be why the server does not know the user.
    ClientCertificate {
        /// Which one it is.
        certificate: String,
        /// Since when, or until when.
        problem: String,
    },
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

struct Advice<'a>(&'a ApiError);

impl std::fmt::Display for Advice<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.0.hint {
            None => Ok(()),
            // The message has named them.
            Some(Hint::Containers(_)) if self.0.status.message.contains("choose one of: ") => {
                f.write_str(" (set the container; to take the default one needs `get` on `pods`)")
            }
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
            Self::Containers(names) => {
                write!(f, "the containers are {}", Printable(names.join(", ")))
            }
            Self::ClientCertificate {
                certificate,
                problem,
            } => write!(f, "the client certificate ({certificate}): {problem}"),
            Self::Credentials(sent) if sent.is_empty() => f.write_str(
                "no credentials have reached the server: log in, or name a user that has some",
            ),
            Self::Credentials(sent) => {
                write!(
                    f,
                    "it does not take {}: log in again, or name another user",
                    Printable(sent)
                )
            }
            Self::Namespace(name) => write!(f, "there is no namespace {name:?}"),
            Self::NotRunning { phase, reason } => {
                let dash = if reason.is_empty() { "" } else { ", " };
                let text = format!("the pod is not running: {phase}{dash}{reason}");
                write!(f, "{}", Printable(text))
            }
            Self::Program(name) => write!(f, "the container cannot execute {name:?}"),
            Self::Upgrade => f.write_str(
                "a proxy or load balancer on the way strips the headers that ask for a WebSocket",
            ),
        }
    }
}

#[cfg(test)]
mod tests;

impl PeerError {
    /// Whether another than the API server has answered, or none that can: not a part of an answer
    /// is wrong, but all of it.
    pub(crate) fn is_of_whole_answer(&self) -> bool {
        matches!(self, Self::Answer { .. } | Self::Handshake(_))
    }

    /// That an answer is not what it should be.
    #[cfg(feature = "client")]
    pub(crate) fn answer(operation: impl Into<String>, problem: impl Into<String>) -> Self {
        let (operation, problem) = (operation.into(), problem.into());
        Self::Answer { operation, problem }
    }

    /// Of a list that has a page behind each page.
    pub(crate) fn endless(operation: String) -> Self {
        let problem = "the list has no end: page after page names another".to_owned();
        Self::Answer { operation, problem }
    }
}

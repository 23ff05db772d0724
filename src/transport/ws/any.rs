//! A WebSocket that someone else connected: in flow another library's connection, or a byte
//! stream behind its handshake, out comes what a session can be driven over.

use std::io;

use bytes::Bytes;
use futures_core::Stream;
use futures_sink::Sink;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{self, Utf8Bytes, protocol::CloseFrame},
};

use super::websocket::{MessageSocket, Socket, WebSocket};
use crate::{
    Role,
    error::{Error, PeerError, guarded::Guarded},
    session::{Close, Message},
};

/// A WebSocket whose handshake is over, whoever did it: the start of `client::Child::over` and
/// `server::Process::over`.
///
/// A byte stream is the fastest: [`from_io`](Self::from_io) reads it the way this crate reads its
/// own connections, without copying payloads. Where another library holds the connection, use
/// [`From`] for tokio-tungstenite or [`from_messages`](Self::from_messages) for any other.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use kubewire::{AnyWebSocket, Role, exec::{Child, Streams, Subprotocol}, server::Process};
///
/// // Both ends of a session in memory.
/// let streams = Streams { stdout: true, ..Streams::default() };
/// let (near, far) = tokio::io::duplex(1 << 16);
/// let near = AnyWebSocket::from_io(near, Role::Client, Default::default());
/// let far = AnyWebSocket::from_io(far, Role::Server, Default::default());
/// let child = Child::over(near, Subprotocol::V5, streams).spawn();
/// let process = Process::over(far, Subprotocol::V5, streams);
/// let (told, output) = tokio::join!(
///     process.exit(kubewire::wire::status::Status::exit_code(3)),
///     child.wait_with_output(),
/// );
/// told?;
/// assert_eq!(output?.status.code(), Some(3));
/// # Ok(())
/// # }
/// ```
pub struct AnyWebSocket(Box<dyn WebSocket>);

impl AnyWebSocket {
    /// A WebSocket over a byte stream. `read` is what arrived behind the handshake and has been
    /// read already; `role` is this end's, which decides who masks (RFC 6455, section 5.1).
    ///
    /// No extension must have been agreed on in the handshake.
    pub fn from_io<S>(io: S, role: Role, read: Bytes) -> Self
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let read = read.try_into_mut().unwrap_or_else(|read| read[..].into());
        Self(Box::new(Socket::new(Guarded::new(io), role, read)))
    }

    /// A WebSocket of any library, with two functions that translate its messages.
    ///
    /// `incoming` gives `None` for what has no counterpart here, and that is skipped. `outgoing`
    /// gives `None` for what must not be sent: where the library answers pings by itself, for
    /// [`Message::Pong`]. A close frame is only sent to begin the end; the answer to the peer's is
    /// left to the library, whose sink is closed afterwards. Whole messages must come in, and none may be fragmented on its way out:
    /// Kubernetes' servers take a fragment for a message (`golang.org/x/net/websocket/hybi.go`).
    ///
    /// An error of the library becomes
    /// [`NetworkError::Lost`](crate::error::NetworkError::Lost), and the end of its stream the end
    /// of the connection.
    pub fn from_messages<T, M, E>(
        inner: T,
        incoming: fn(M) -> Option<Message>,
        outgoing: fn(Message) -> Option<M>,
    ) -> Self
    where
        T: Stream<Item = Result<M, E>> + Sink<M, Error = E> + Send + Unpin + 'static,
        M: Send + 'static,
        E: Into<Box<dyn std::error::Error + Send + Sync>> + 'static,
    {
        let failure = |error: E| Error::lost(io::Error::other(error));
        Self(Box::new(MessageSocket::new(
            inner, incoming, outgoing, failure,
        )))
    }

    pub(crate) fn into_inner(self) -> Box<dyn WebSocket> {
        self.0
    }
}

debug_fields!(AnyWebSocket {});

/// What is left in the stream's own buffers is read too. The answers to pings are its own.
impl<S> From<WebSocketStream<S>> for AnyWebSocket
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    fn from(stream: WebSocketStream<S>) -> Self {
        Self(Box::new(MessageSocket::new(
            stream,
            from_tungstenite,
            to_tungstenite,
            failure,
        )))
    }
}

fn from_tungstenite(message: tungstenite::Message) -> Option<Message> {
    use tungstenite::Message as Theirs;
    Some(match message {
        Theirs::Text(text) => Message::Text(text.into()),
        Theirs::Binary(bytes) => Message::Binary(bytes),
        Theirs::Ping(bytes) => Message::Ping(bytes),
        Theirs::Pong(bytes) => Message::Pong(bytes),
        Theirs::Close(close) => Message::Close(close.map(|close| Close {
            code: close.code.into(),
            reason: close.reason.as_str().to_owned(),
        })),
        // Only its own sending side makes these.
        Theirs::Frame(_) => return None,
    })
}

fn to_tungstenite(message: Message) -> Option<tungstenite::Message> {
    use tungstenite::Message as Theirs;
    Some(match message {
        // Text of a session is base64.
        Message::Text(bytes) => Theirs::Text(Utf8Bytes::try_from(bytes).ok()?),
        Message::Binary(bytes) => Theirs::Binary(bytes),
        Message::Ping(bytes) => Theirs::Ping(bytes),
        // It has sent, or will send, one of its own.
        Message::Pong(_) => return None,
        Message::Close(close) => Theirs::Close(close.map(|close| CloseFrame {
            code: close.code.into(),
            reason: close.reason.into(),
        })),
    })
}

fn failure(error: tungstenite::Error) -> Error {
    use tungstenite::{Error as Theirs, error::ProtocolError};
    match error {
        Theirs::Io(error) => Error::lost(error),
        Theirs::Protocol(ProtocolError::ResetWithoutClosingHandshake) => {
            Error::lost(io::ErrorKind::ConnectionReset)
        }
        Theirs::Protocol(_) | Theirs::Capacity(_) | Theirs::Utf8(_) => {
            PeerError::WebSocketLibrary(error.to_string()).into()
        }
        error => Error::lost(io::Error::other(error)),
    }
}

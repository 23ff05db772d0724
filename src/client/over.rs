//! Sessions over somebody else's WebSocket: in flow an open WebSocket and what was agreed on it,
//! out comes a child.

use super::{
    Attached, Child,
    remote_command::{Options, Stdio},
};
use crate::{
    session::{KeepaliveConfig, Subprotocol, remote_command::Streams},
    transport::{AnyWebSocket, ws::remote_command::Control},
};

/// A session of exec or attach over a WebSocket that someone else connected.
///
/// ```no_run
/// use kubewire::{Over, exec::{Child, Streams, Subprotocol}};
/// # use tokio::io::{AsyncRead, AsyncWrite};
/// # async fn run<S>(
/// #     stream: tokio_tungstenite::WebSocketStream<S>,
/// # ) -> kubewire::Result<()>
/// # where
/// #     S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
/// # {
/// // What the request that opened the WebSocket asked for: `stdin=true&stdout=true`.
/// let streams = Streams { stdin: true, stdout: true, ..Streams::default() };
/// let mut child = Over::new(stream, Subprotocol::V5, streams).buffer(64 << 10).child();
/// let status = child.wait().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[must_use = "the session begins with `child` or `attached`"]
pub struct Over {
    websocket: AnyWebSocket,
    protocol: Subprotocol,
    streams: Streams,
    operation: String,
    options: Options,
}

impl Over {
    /// A session over `websocket`, where `protocol` was agreed on and the request asked for
    /// `streams`. [`Subprotocol::accept`] tells the protocol from the server's answer.
    ///
    /// Every stream of `streams` gets a handle; drop those that do not matter. A terminal does not
    /// know its size until [`Child::resize`] is called.
    pub fn new(
        websocket: impl Into<AnyWebSocket>,
        protocol: Subprotocol,
        streams: Streams,
    ) -> Self {
        let piped = |wanted| match wanted {
            true => Stdio::piped(),
            false => Stdio::null(),
        };
        Self {
            websocket: websocket.into(),
            protocol,
            streams,
            operation: "remote command".into(),
            options: Options {
                stdin: piped(streams.stdin),
                stdout: piped(streams.stdout),
                stderr: piped(streams.stderr),
                ..Options::default()
            },
        }
    }

    /// What errors call it; `remote command` unless set.
    pub fn operation(mut self, name: impl Into<String>) -> Self {
        self.operation = name.into();
        self
    }

    /// See [`Exec::buffer`](super::Exec::buffer).
    pub fn buffer(mut self, bytes: usize) -> Self {
        self.options.buffer = bytes;
        self
    }

    /// See [`Exec::max_output`](super::Exec::max_output).
    pub fn max_output(mut self, bytes: usize) -> Self {
        self.options.max_output = bytes;
        self
    }

    /// See [`Exec::keepalive`](super::Exec::keepalive).
    pub fn keepalive(mut self, config: KeepaliveConfig) -> Self {
        self.options.keepalive = config;
        self
    }

    fn start(self) -> (Control, Streams, String, usize) {
        let socket = self.websocket.into_inner();
        let control = self.options.start(socket, self.protocol, self.streams);
        (
            control,
            self.streams,
            self.operation,
            self.options.max_output,
        )
    }

    /// Begins the session of an exec.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime, on which the session's timers run.
    pub fn child(self) -> Child {
        let (control, streams, operation, max_output) = self.start();
        let Streams {
            stdin,
            stdout,
            stderr,
            ..
        } = streams;
        Child::new(control, operation, stdin, stdout, stderr, max_output)
    }

    /// Begins the session of an attach.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime, on which the session's timers run.
    pub fn attached(self) -> Attached {
        let (control, streams, operation, _) = self.start();
        let Streams {
            stdin,
            stdout,
            stderr,
            ..
        } = streams;
        Attached::new(control, operation, stdin, stdout, stderr)
    }
}

//! Sessions over somebody else's WebSocket: in flow an open WebSocket and what was agreed on it,
//! out comes a child.

use std::marker::PhantomData;

use super::{
    Attached, Child,
    feed::{Ends, Handles},
    remote_command::{Opened, Options, Subject},
};
use crate::{
    session::{KeepaliveConfig, Subprotocol, remote_command::Streams},
    transport::AnyWebSocket,
};

/// A session to be over a WebSocket that someone else connected: [`Child::over`],
/// [`Attached::over`].
///
/// ```no_run
/// use kubewire::exec::{Child, Streams, Subprotocol};
/// # use tokio::io::{AsyncRead, AsyncWrite};
/// # async fn run<S>(
/// #     stream: tokio_tungstenite::WebSocketStream<S>,
/// # ) -> kubewire::Result<()>
/// # where
/// #     S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
/// # {
/// // What the request that opened the WebSocket asked for: `stdin=true&stdout=true`.
/// let streams = Streams { stdin: true, stdout: true, ..Streams::default() };
/// let mut child = Child::over(stream, Subprotocol::V5, streams).buffer(64 << 10).spawn();
/// let status = child.wait().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[must_use = "the session begins with `spawn`"]
pub struct Over<T> {
    websocket: AnyWebSocket,
    protocol: Subprotocol,
    streams: Streams,
    operation: String,
    options: Options,
    session: PhantomData<fn() -> T>,
}

impl<T> Over<T> {
    pub(super) fn new(websocket: AnyWebSocket, protocol: Subprotocol, streams: Streams) -> Self {
        let mut options = Options::default();
        options.set_streams(streams);
        Self {
            websocket,
            protocol,
            streams,
            operation: "remote command".into(),
            options,
            session: PhantomData,
        }
    }

    setters! {
        /// What errors call it; `remote command` unless set.
        fn operation(name: impl Into<String>) operation = name.into();

        /// See [`Exec::buffer`](super::Exec::buffer).
        fn buffer(bytes: usize) options.buffer = bytes;

        /// See [`Exec::keepalive`](super::Exec::keepalive).
        fn keepalive(config: KeepaliveConfig) options.keepalive = config;
    }

    fn start(self) -> (Opened, Handles) {
        let socket = self.websocket.into_inner();
        let control = self.options.start(socket, self.protocol, self.streams);
        let ends = Ends::default();
        let (handles, copies) = Handles::new(&control, &self.options, self.streams, ends);
        let opened = Opened {
            control,
            subject: Subject::Other(self.operation),
            container: None,
            copies,
        };
        (opened, handles)
    }
}

impl Over<Child> {
    setters! {
        /// See [`Exec::max_output`](super::Exec::max_output).
        fn max_output(bytes: usize) options.max_output = bytes;
    }

    /// Begins the session.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime, on which the session's timers run.
    pub fn spawn(self) -> Child {
        let max_output = self.options.max_output;
        Child::new(self.start(), max_output, None)
    }
}

impl Over<Attached> {
    /// Begins the session.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime, on which the session's timers run.
    pub fn spawn(self) -> Attached {
        Attached::new(self.start())
    }
}

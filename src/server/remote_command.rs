//! exec and attach as a server: in flows a request for a WebSocket, out come what the client asks
//! and, once it is accepted, a [`Process`]: the streams of the client's child seen from inside.

use std::future::Future;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::upgrade::OnUpgrade;

use super::{
    Refusal,
    upgrade::{Handshake, opened, query_pairs},
};
use crate::{
    Result, Role, limits,
    session::{KeepaliveConfig, RemoteCommand, Subprotocol, remote_command::Streams},
    transport::{
        AnyWebSocket, now,
        ws::{
            remote_command::{self, Control, Input, Output as Writer},
            slices::{sink_inner, slices_inner},
            stats::SessionStats,
            websocket::WebSocket,
        },
    },
    wire::{channel::Channel, resize::TerminalSize, status::Status},
};

/// Every subprotocol of exec and attach, and none.
pub const SUBPROTOCOLS: [Subprotocol; 6] = [
    Subprotocol::V5,
    Subprotocol::V4,
    Subprotocol::V4Base64,
    Subprotocol::V1,
    Subprotocol::V1Base64,
    Subprotocol::Unnamed,
];

/// A client's request for exec or attach.
///
/// A server reads it, decides whether the client may have what it asks, changes what it must, and
/// [accepts](Self::accept).
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use axum::{Router, body::Body, extract::Request, response::Response, routing::any};
/// use kubewire::{server::{Refusal, RemoteCommandRequest, SUBPROTOCOLS}, wire::status::Status};
/// use tokio::io::AsyncWriteExt as _;
///
/// /// Answers every exec with its command.
/// async fn echo(mut request: Request) -> Result<Response, Response> {
///     let refuse = |refusal: Refusal| refusal.into_response().map(Body::new);
///     let asked = RemoteCommandRequest::parse(&mut request).map_err(refuse)?;
///     let command = asked.command.join(" ");
///     let (response, opening) = asked.accept(&SUBPROTOCOLS).map_err(refuse)?;
///     tokio::spawn(async move {
///         let mut process = opening.await?;
///         if let Some(mut stdout) = process.stdout.take() {
///             stdout.write_all(command.as_bytes()).await?;
///         }
///         process.exit(Status::success()).await?;
///         std::io::Result::Ok(())
///     });
///     Ok(response.map(Body::new))
/// }
///
/// let router = Router::new().route("/api/v1/namespaces/{namespace}/pods/{pod}/exec", any(echo));
/// # let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
/// # let url = format!("http://{}", listener.local_addr()?);
/// # tokio::spawn(async { axum::serve(listener, router).await });
/// # let client = kubewire::Client::from_url(&url)?;
/// let output = client.pod("default", "any").exec(["a", "b"]).output().await?;
/// assert_eq!(output.stdout, b"a b");
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub struct RemoteCommandRequest {
    /// The container; absent or empty is `None`.
    pub container: Option<String>,
    /// The program and its arguments; empty for attach.
    pub command: Vec<String>,
    /// The streams that the client wants.
    pub streams: Streams,
    /// Bytes of stdin that may wait for their reader, [`limits::STREAM_BUFFER`] unless set: past
    /// it the client is held back.
    pub buffer: usize,
    /// How often to ask the client for signs of life, and how long to wait for them.
    pub keepalive: KeepaliveConfig,
    handshake: Handshake,
    upgrade: OnUpgrade,
}

impl RemoteCommandRequest {
    /// Reads a request.
    ///
    /// A stream is asked for by any value but `false` and `0`, the empty one included
    /// (`k8s.io/apimachinery/pkg/runtime/conversion.go`, `Convert_Slice_string_To_bool`); of
    /// several values the first counts.
    ///
    /// # Errors
    ///
    /// A [`Refusal`] with code 400 if it does not ask for a WebSocket of version 13.
    pub fn parse<B>(request: &mut Request<B>) -> Result<Self, Refusal> {
        let handshake = Handshake::check(request)?;
        let mut container = None;
        let mut command = Vec::new();
        let mut flags = [None; 4];
        for (key, value) in query_pairs(request.uri().query().unwrap_or_default()) {
            let flag = match key.as_str() {
                "stdin" => &mut flags[0],
                "stdout" => &mut flags[1],
                "stderr" => &mut flags[2],
                "tty" => &mut flags[3],
                "container" => {
                    container.get_or_insert(value);
                    continue;
                }
                "command" => {
                    command.push(value);
                    continue;
                }
                _ => continue,
            };
            flag.get_or_insert(!value.eq_ignore_ascii_case("false") && value != "0");
        }
        let [stdin, stdout, stderr, tty] = flags.map(|flag| flag.unwrap_or(false));
        Ok(Self {
            container: container.filter(|name| !name.is_empty()),
            command,
            streams: Streams {
                stdin,
                stdout,
                stderr,
                tty,
            },
            buffer: limits::STREAM_BUFFER,
            keepalive: KeepaliveConfig::default(),
            handshake,
            upgrade: hyper::upgrade::on(request),
        })
    }

    /// Accepts the request with the first subprotocol of the client's order that is among
    /// `supported`. Gives the response, which must go to the client, and the future of the
    /// session, which is ready when it has gone there: spawn it.
    ///
    /// # Errors
    ///
    /// A [`Refusal`]: with code 400 where there is no stream, or stderr beside a terminal
    /// (`k8s.io/cri-streaming/pkg/streaming/server.go`, `validateExecRequest`; kubelets since 1.29
    /// drop stderr there, as a caller may do in [`streams`](Self::streams) before); and with a
    /// bare 403 where no subprotocol fits (`golang.org/x/net/websocket/server.go`).
    pub fn accept(
        self,
        supported: &[Subprotocol],
    ) -> Result<
        (
            Response<Full<Bytes>>,
            impl Future<Output = Result<Process>> + Send + 'static,
        ),
        Refusal,
    > {
        let streams = self.streams;
        if !(streams.stdin || streams.stdout || streams.stderr) {
            return Err(Refusal::bad_request(
                "you must specify at least 1 of stdin, stdout, stderr",
            ));
        }
        if streams.tty && streams.stderr {
            return Err(Refusal::bad_request("tty and stderr cannot both be true"));
        }
        let protocol = Subprotocol::choose(&self.handshake.offer, supported)
            .ok_or_else(|| Refusal::bare(StatusCode::FORBIDDEN))?;
        let response = self.handshake.response(protocol.name());
        let (upgrade, buffer, keepalive) = (self.upgrade, self.buffer, self.keepalive);
        let opening = async move {
            let socket = opened(upgrade).await?;
            Ok(Process::new(socket, protocol, streams, buffer, keepalive))
        };
        Ok((response, opening))
    }
}

/// The server's end of a session of exec or attach.
///
/// Dropping it with all its streams closes the connection without a Status, which to the client
/// is an error; [`exit`](Self::exit) is the way to end it.
///
/// ```
/// # kubewire::example_session(async |child, mut process| {
/// use kubewire::wire::status::Status;
/// use tokio::io::AsyncWriteExt as _;
///
/// // `process` is what an accepted request gives.
/// let mut stdout = process.stdout.take().expect("the client asked for it");
/// stdout.write_all(b"hello\n").await?;
/// let (told, output) = tokio::join!(process.exit(Status::exit_code(3)), child.wait_with_output());
/// told?;
/// let output = output?;
/// assert_eq!((output.status.code(), &output.stdout[..]), (Some(3), &b"hello\n"[..]));
/// # Ok(())
/// # });
/// ```
#[derive(Debug)]
pub struct Process {
    /// The client's input, if it asked to send any.
    pub stdin: Option<Stdin>,
    /// Where output goes, if the client asked for it.
    pub stdout: Option<Output>,
    /// Where error output goes, if the client asked for it.
    pub stderr: Option<Output>,
    control: Control,
}

impl Process {
    fn new(
        socket: Box<dyn WebSocket>,
        protocol: Subprotocol,
        streams: Streams,
        buffer: usize,
        keepalive: KeepaliveConfig,
    ) -> Self {
        let now = now();
        let session = RemoteCommand::new(Role::Server, protocol, streams, keepalive, now);
        let reads = streams.stdin.then_some(Channel::Stdin);
        let control = remote_command::spawn(session, socket, buffer, reads.as_slice());
        let output = |channel| Output(control.output(channel));
        Self {
            stdin: streams.stdin.then(|| Stdin(control.input(Channel::Stdin))),
            stdout: streams.stdout.then(|| output(Channel::Stdout)),
            stderr: streams.stderr.then(|| output(Channel::Stderr)),
            control,
        }
    }

    /// The server's end over a WebSocket that someone else accepted, where `protocol` was agreed on
    /// and the request asked for `streams`.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    pub fn over(
        websocket: impl Into<AnyWebSocket>,
        protocol: Subprotocol,
        streams: Streams,
    ) -> Self {
        Self::new(
            websocket.into().into_inner(),
            protocol,
            streams,
            limits::STREAM_BUFFER,
            KeepaliveConfig::default(),
        )
    }

    /// The subprotocol that was agreed on.
    pub fn protocol(&self) -> Subprotocol {
        self.control.protocol()
    }

    /// The streams of the session.
    pub fn streams(&self) -> Streams {
        self.control.streams()
    }

    /// What went through the session's WebSocket so far.
    pub fn stats(&self) -> SessionStats {
        self.control.stats()
    }

    /// Waits for the next size of the client's terminal, the newest if there were several;
    /// `None` once the session has ended.
    ///
    /// Cancel safety: nothing is lost; call it again.
    pub async fn resized(&self) -> Option<TerminalSize> {
        self.control.resized().await
    }

    /// Waits until the session is over, which before [`exit`](Self::exit) means that the client
    /// has left. A client that leaves does not end the process of a real container, unless that
    /// has a terminal (kubernetes/kubernetes#89031).
    ///
    /// Cancel safety: nothing is lost; call it again.
    ///
    /// # Errors
    ///
    /// If the client did not close the WebSocket in order: it broke the protocol, the connection
    /// was lost, or it was silent for too long.
    pub async fn closed(&self) -> Result<()> {
        self.control.ended().await
    }

    /// Says how the work ended, after all output that has been written, and closes; then waits
    /// until the client has taken all of it and closed as well, at most [`limits::LINGER`].
    ///
    /// Output that is written afterwards fails with
    /// [`CallerError::Ended`](crate::error::CallerError::Ended), input that still comes is
    /// dropped.
    ///
    /// Cancel safety: dropping the future leaves out the waiting only; a client that is slow to
    /// read then may lose the end of the output.
    ///
    /// # Errors
    ///
    /// [`CallerError::Ended`](crate::error::CallerError::Ended) if the client has left before, or
    /// the error with which the connection was lost.
    pub async fn exit(self, status: Status) -> Result<()> {
        let Self { control, stdin, .. } = self;
        // Bytes left unread when a socket closes reset the connection, and the reset can destroy
        // output that is on its way (RFC 1122, section 4.2.2.13): input is read to its end.
        drop(stdin);
        control.discard(Channel::Stdin);
        control.exit(&status)?;
        control.ended().await
    }
}

/// The input of a client: [`AsyncRead`](tokio::io::AsyncRead),
/// [`AsyncBufRead`](tokio::io::AsyncBufRead), and a [`Stream`](futures_core::Stream) of [`Bytes`]
/// that are slices of the buffer which the socket was read into.
///
/// It ends when the client closes it (`v5.channel.k8s.io`) or the WebSocket; a connection that is
/// lost is an error. While [`RemoteCommandRequest::buffer`] bytes wait here the client is held
/// back. Dropping it drops what still comes.
///
/// Cancel safety: a read that is dropped has taken nothing.
///
/// ```
/// # kubewire::example_session(async |mut child, mut process| {
/// use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
///
/// # let mut near = child.stdin.take().expect("it is piped");
/// # near.write_all(b"typed").await?;
/// # near.shutdown().await?;
/// // `process` is what an accepted request gives.
/// let mut stdin = process.stdin.take().expect("the client asked for it");
/// let mut typed = String::new();
/// stdin.read_to_string(&mut typed).await?;
/// assert_eq!(typed, "typed");
/// # Ok(())
/// # });
/// ```
#[derive(Debug)]
pub struct Stdin(Input);

slices_inner!(Stdin);

/// One of the client's output streams: [`AsyncWrite`](tokio::io::AsyncWrite), and a
/// [`Sink`](futures_sink::Sink) of [`Bytes`] that are sent without being copied.
///
/// A write waits while more than [`limits::SEND_BUFFER`] bytes are on their way, and fails with
/// [`CallerError::Ended`](crate::error::CallerError::Ended) once the session is over. An output
/// stream cannot be ended alone: shutting it down sends what is queued, dropping it says nothing.
///
/// Cancel safety: what a write that has returned has taken will be sent, and a write that is
/// dropped has taken nothing.
///
/// ```
/// # kubewire::example_session(async |child, mut process| {
/// use bytes::Bytes;
/// use futures_util::SinkExt as _;
///
/// let mut stdout = process.stdout.take().expect("the client asked for it");
/// stdout.send(Bytes::from_static(b"not copied")).await?;
/// # let status = kubewire::wire::status::Status::success();
/// # let (_, output) = tokio::join!(process.exit(status), child.wait_with_output());
/// # assert_eq!(output?.stdout, b"not copied");
/// # Ok(())
/// # });
/// ```
#[derive(Debug)]
pub struct Output(Writer);

sink_inner!(Output, poll_flush);

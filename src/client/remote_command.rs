//! What exec and attach have in common: in flow the builder's choices, out comes an open session.

use tracing::{Instrument as _, Span};

use super::{
    ChildStderr, ChildStdout, Pod, Stdio,
    feed::{Copies, Ends, Handles},
    span,
};
use crate::{
    Error, Result, Role,
    error::Hint,
    limits,
    session::{KeepaliveConfig, RemoteCommand, Subprotocol, remote_command::Streams},
    transport::{
        http::Outgoing,
        now,
        ws::{
            remote_command::{self, Control},
            websocket::WebSocket,
        },
    },
    wire::{channel::Channel, resize::TerminalSize, status::Status},
};

/// A session that has begun. Dropping it before its Status has come closes the connection.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) control: Control,
    pub(super) subject: Subject,
    /// Where the process is, unless the server chose.
    pub(super) container: Option<String>,
    pub(super) copies: Copies,
}

impl Drop for Opened {
    fn drop(&mut self) {
        if !self.control.has_status() {
            self.control.close();
        }
    }
}

/// With what a session is.
#[derive(Debug)]
pub(super) enum Subject {
    Pod {
        pod: Pod,
        /// Its subresource.
        verb: &'static str,
    },
    /// Someone else's WebSocket, which he calls so.
    Other(String),
}

impl Subject {
    /// What errors call the session.
    pub(super) fn operation(&self) -> String {
        match self {
            Self::Pod { pod, verb: "exec" } => pod.operation("exec in"),
            Self::Pod { pod, .. } => pod.operation("attach to"),
            Self::Other(operation) => operation.clone(),
        }
    }

    /// A failure that came in the stream, with what the pod says of it: API servers accept what
    /// a kubelet then refuses.
    pub(super) async fn explain(&self, error: Error) -> Error {
        match self {
            // It is large, and rare.
            Self::Pod { pod, verb } => Box::pin(pod.explain(error, Some(verb))).await,
            Self::Other(_) => error,
        }
    }
}

impl Opened {
    /// Waits for the Status, and until all has been copied. Of the output streams that are there
    /// nobody can be reading meanwhile.
    pub(super) async fn status(
        &mut self,
        stdout: &Option<ChildStdout>,
        stderr: &Option<ChildStderr>,
    ) -> Result<Status> {
        let status = self.control.status(&unread(stdout, stderr)).await;
        self.copies.finish(status).await
    }

    /// [`status`](Self::status), if it is known.
    pub(super) fn try_status(
        &mut self,
        stdout: &Option<ChildStdout>,
        stderr: &Option<ChildStderr>,
    ) -> Option<Result<Status>> {
        let status = self.control.try_status(&unread(stdout, stderr))?;
        self.copies.try_finish(status)
    }
}

fn unread(stdout: &Option<ChildStdout>, stderr: &Option<ChildStderr>) -> Vec<Channel> {
    let stdout = stdout.is_some().then_some(Channel::Stdout);
    let stderr = stderr.is_some().then_some(Channel::Stderr);
    stdout.into_iter().chain(stderr).collect()
}

/// Whether the server wants a container to be named.
fn is_ambiguous(error: &Error) -> bool {
    matches!(error, Error::Api(refusal) if matches!(refusal.hint, Some(Hint::Containers(_))))
}

#[derive(Debug, Clone)]
pub(super) struct Options {
    pub(super) container: Option<String>,
    pub(super) stdin: Stdio,
    pub(super) stdout: Stdio,
    pub(super) stderr: Stdio,
    pub(super) tty: bool,
    /// What the terminal is told first, if anything.
    pub(super) size: Option<TerminalSize>,
    pub(super) protocols: Vec<Subprotocol>,
    pub(super) buffer: usize,
    pub(super) max_output: usize,
    pub(super) keepalive: KeepaliveConfig,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            container: None,
            stdin: Stdio::null(),
            stdout: Stdio::piped(),
            stderr: Stdio::piped(),
            tty: false,
            size: None,
            protocols: Subprotocol::DEFAULT.to_vec(),
            buffer: limits::STREAM_BUFFER,
            max_output: limits::OUTPUT,
            keepalive: KeepaliveConfig::default(),
        }
    }
}

impl Options {
    pub(super) fn set_tty(&mut self, size: TerminalSize) {
        self.tty = true;
        self.size = Some(size);
    }

    /// Asks for these streams, each with a handle, and for a terminal without a size.
    pub(super) fn set_streams(&mut self, streams: Streams) {
        let piped = |wanted| match wanted {
            true => Stdio::piped(),
            false => Stdio::null(),
        };
        self.stdin = piped(streams.stdin);
        self.stdout = piped(streams.stdout);
        self.stderr = piped(streams.stderr);
        self.tty = streams.tty;
    }

    /// What the request asks for. The server wants at least one stream, and no stderr beside a
    /// TTY (`k8s.io/cri-streaming/pkg/streaming/server.go`, `validateExecRequest`).
    pub(super) fn streams(&self) -> Streams {
        let tty = self.tty;
        let stdin = !self.stdin.is_null();
        let stderr = !self.stderr.is_null() && !tty;
        let stdout = !self.stdout.is_null() || tty || !(stdin || stderr);
        Streams {
            stdin,
            stdout,
            stderr,
            tty,
        }
    }

    fn reads(&self) -> Vec<Channel> {
        let streams = self.streams();
        let read = [
            (Channel::Stdout, !self.stdout.is_null() && streams.stdout),
            (Channel::Stderr, streams.stderr),
        ];
        read.into_iter()
            .filter_map(|(channel, read)| read.then_some(channel))
            .collect()
    }

    /// Opens the session, in a span that lasts as long as it does.
    pub(super) async fn open(
        &self,
        pod: &Pod,
        verb: &'static str,
        command: &[String],
    ) -> Result<(Opened, Handles)> {
        let span = match verb {
            "exec" => span::exec(pod),
            _ => span::attach(pod),
        };
        let opening = self.open_in(&span, pod, verb, command);
        let opened = opening.instrument(span.clone()).await;
        span::record_opened(&span, &opened);
        opened
    }

    async fn open_in(
        &self,
        span: &Span,
        pod: &Pod,
        verb: &'static str,
        command: &[String],
    ) -> Result<(Opened, Handles)> {
        let ends = Ends::open(self)?;
        let streams = self.streams();
        let subject = Subject::Pod {
            pod: pod.clone(),
            verb,
        };
        let mut container = self.container.clone();
        let ask = async |container: Option<&str>| {
            let path = self.path(pod, verb, command, container)?;
            let outgoing = Outgoing {
                about: pod.about("get", verb),
                ..Outgoing::upgrade(subject.operation(), path)
            };
            pod.client().open(outgoing, &self.protocols).await
        };
        let mut opened = ask(container.as_deref()).await;
        if let (None, Err(error)) = (&container, &opened)
            && is_ambiguous(error)
            && let Some(default) = pod.default_container().await
        {
            tracing::debug!(
                pod = pod.name(),
                container = default,
                "no container is named: this is the pod's default"
            );
            opened = ask(Some(&default)).await;
            container = Some(default);
        }
        let (websocket, protocol) = match opened {
            Ok(opened) => opened,
            Err(error) => return Err(subject.explain(error).await),
        };
        span.record("k8s.container.name", container.as_deref());
        let control = self.start(websocket.into_inner(), protocol, streams);
        if let Some(size) = self.size {
            // The server does not know the terminal's size until it is told.
            control.resize(size)?;
        }
        let (handles, copies) = Handles::new(&control, self, streams, ends);
        let opened = Opened {
            control,
            subject,
            container,
            copies,
        };
        Ok((opened, handles))
    }

    fn path(
        &self,
        pod: &Pod,
        verb: &str,
        command: &[String],
        container: Option<&str>,
    ) -> Result<String> {
        let streams = self.streams();
        let mut query = Vec::new();
        query.extend(container.map(|name| ("container", name)));
        for (key, wanted) in [
            ("stdin", streams.stdin),
            ("stdout", streams.stdout),
            ("stderr", streams.stderr),
            ("tty", streams.tty),
        ] {
            query.extend(wanted.then_some((key, "true")));
        }
        query.extend(command.iter().map(|word| ("command", word.as_str())));
        pod.path(verb, &query)
    }

    pub(super) fn start(
        &self,
        socket: Box<dyn WebSocket>,
        protocol: Subprotocol,
        streams: Streams,
    ) -> Control {
        let session = RemoteCommand::new(Role::Client, protocol, streams, self.keepalive, now());
        remote_command::spawn(session, socket, self.buffer, &self.reads())
    }
}

/// The methods that the handles of exec and attach share.
macro_rules! session {
    () => {
        /// A session over a WebSocket that someone else connected, where `protocol` was agreed on
        /// and the request asked for `streams`; [`Over::spawn`] begins it. [`Subprotocol::accept`]
        /// tells the protocol from the server's answer.
        ///
        /// Every stream of `streams` gets a handle; drop those that do not matter. A terminal does
        /// not know its size until [`resize`](Self::resize) is called.
        pub fn over(
            websocket: impl Into<AnyWebSocket>,
            protocol: Subprotocol,
            streams: Streams,
        ) -> Over<Self> {
            Over::new(websocket.into(), protocol, streams)
        }

        /// Tells the process's terminal its new size.
        ///
        /// # Errors
        ///
        /// [`CallerError::ResizeWithoutTty`](crate::error::CallerError::ResizeWithoutTty) if it has
        /// none; [`CallerError::Ended`](crate::error::CallerError::Ended) if it has ended.
        pub fn resize(&self, size: TerminalSize) -> Result<()> {
            self.session.control.resize(size)
        }

        /// The container, where this side chose it: the one that was named, or of several the pod's
        /// default. `None` if the server chose, which is when there is only one.
        pub fn container(&self) -> Option<&str> {
            self.session.container.as_deref()
        }

        /// The subprotocol that the server chose.
        pub fn protocol(&self) -> Subprotocol {
            self.session.control.protocol()
        }

        /// What went through the session's WebSocket so far.
        pub fn stats(&self) -> SessionStats {
            self.session.control.stats()
        }

        /// The name of the stream that is full and holds everything else back, if one is.
        pub fn held_back_by(&self) -> Option<&'static str> {
            self.session.control.full().map(Channel::name)
        }
    };
}
pub(super) use session;

/// The setters that the builders of exec and attach share.
macro_rules! options {
    () => {
        setters! {
            /// The container. Without one it is the pod's only one or, as in kubectl, the one of its
            /// annotation `kubectl.kubernetes.io/default-container`, or else its first. To choose among
            /// several needs the right `get` on `pods`; the handle's `container` says which it is.
            fn container(name: impl Into<String>) options.container = Some(name.into());

            /// What becomes of stdin; [`Stdio::null`] unless set.
            fn stdin(stdio: impl Into<Stdio>) options.stdin = stdio.into();

            /// What becomes of stdout; [`Stdio::piped`] unless set.
            fn stdout(stdio: impl Into<Stdio>) options.stdout = stdio.into();

            /// What becomes of stderr; [`Stdio::piped`] unless set. With a TTY there is none: a
            /// terminal shows both on stdout.
            fn stderr(stdio: impl Into<Stdio>) options.stderr = stdio.into();

            /// The subprotocols to offer, most wanted first; [`Subprotocol::DEFAULT`] unless set.
            /// [`Subprotocol::Unnamed`] alone offers none.
            fn subprotocols(protocols: impl IntoIterator<Item = Subprotocol>)
                options.protocols = protocols.into_iter().collect();

            /// Bytes of each output stream that may wait for its reader;
            /// [`limits::STREAM_BUFFER`](crate::limits::STREAM_BUFFER) unless set. A stream that
            /// reaches the bound holds back every other stream of the session.
            fn buffer(bytes: usize) options.buffer = bytes;

            /// How often to ask the server for signs of life, and how long to wait for them.
            fn keepalive(config: KeepaliveConfig) options.keepalive = config;
        }

        /// What the process reads from stdin: bytes, a file, or with [`Input::reader`] any reader.
        /// A task feeds it while output is read, and then closes stdin.
        ///
        /// A process that ends before it has read everything is no error. A failed read of the
        /// input ends the session, and is the error of `wait`. Servers without
        /// `v5.channel.k8s.io` cannot close stdin by itself: see
        /// [`require_half_close`](Self::require_half_close). An attached session ends with its input,
        /// unless the container has `stdinOnce`.
        pub fn input(self, input: impl Into<Input>) -> Self {
            self.stdin(input.into())
        }

        /// Refuses servers on which stdin cannot be closed by itself, so that a command which
        /// reads to the end of its input cannot wait for ever: only `v5.channel.k8s.io` is
        /// offered, and an older server's refusal fails the opening.
        pub fn require_half_close(self) -> Self {
            self.subprotocols([Subprotocol::V5])
        }

        /// Asks for what a client of this side has asked for.
        #[cfg(feature = "server")]
        pub(crate) fn streams(
            mut self,
            streams: crate::session::remote_command::Streams,
            container: &Option<String>,
        ) -> Self {
            self.options.set_streams(streams);
            self.options.container.clone_from(container);
            self
        }
    };
}
pub(super) use options;

//! attach: the builder, and the session with a process that runs already.

use super::{
    ChildStderr, ChildStdin, ChildStdout, Input, Over, Pod, Stdio,
    feed::{Copies, Handles},
    remote_command::{Opened, Options, options},
};
use crate::{
    Result,
    error::{ApiError, Error},
    session::{KeepaliveConfig, Subprotocol, remote_command::Streams},
    transport::{
        AnyWebSocket,
        ws::{remote_command::Control, stats::SessionStats},
    },
    wire::{channel::Channel, resize::TerminalSize},
};

/// Attaches to the process that a container runs.
///
/// Output from before is in the container's log and does not come again. stdin needs a container
/// with `stdin: true`, a terminal one with `tty: true`.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let server = kubewire::testing::ApiServer::builder()
/// #     .pod("default", "web-0", |pod| pod.container("main", ["sh", "-c", "while :; do echo tick; sleep 0.1; done"]))
/// #     .start()
/// #     .await?;
/// # let client = kubewire::Client::new(&server.config())?;
/// use tokio::io::AsyncBufReadExt as _;
///
/// let mut attached = client.pod("default", "web-0").attach().container("main").spawn().await?;
/// let mut lines = attached.stdout.take().expect("stdout is piped").lines();
/// assert_eq!(lines.next_line().await?.as_deref(), Some("tick"));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
#[must_use = "nothing is attached until it is spawned"]
pub struct Attach {
    pod: Pod,
    options: Options,
}

impl Attach {
    pub(super) fn new(pod: Pod) -> Self {
        Self {
            pod,
            options: Options::default(),
        }
    }

    options!();

    /// Uses the container's terminal and gives it this size.
    pub fn tty(mut self, size: TerminalSize) -> Self {
        self.options.set_tty(size);
        self
    }

    /// Attaches.
    ///
    /// Cancel safety: dropping the future drops the connection.
    ///
    /// # Errors
    ///
    /// Those of [`Exec::spawn`](super::Exec::spawn).
    pub async fn spawn(&self) -> Result<Attached> {
        let opened = self.options.open(&self.pod, "attach", &[]).await?;
        Ok(Attached::new(opened))
    }
}

/// A session with a process that was running already.
///
/// Dropping it closes the connection; the process goes on.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let server = kubewire::testing::ApiServer::builder()
/// #     .pod("default", "web-0", |pod| pod.container("main", ["sh", "-c", "sleep 1; echo done"]))
/// #     .start()
/// #     .await?;
/// # let client = kubewire::Client::new(&server.config())?;
/// let mut attached = client.pod("default", "web-0").attach().spawn().await?;
/// attached.stdout = None; // its bytes are dropped
/// attached.stderr = None;
/// attached.wait().await?; // the container has ended
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Attached {
    /// The process's input, if it was asked for.
    pub stdin: Option<ChildStdin>,
    /// Its output, if it was asked for.
    pub stdout: Option<ChildStdout>,
    /// Its error output, if it was asked for and there is no terminal.
    pub stderr: Option<ChildStderr>,
    copies: Copies,
    operation: String,
    container: Option<String>,
    control: Control,
}

impl Attached {
    pub(super) fn new(opened: Opened) -> Self {
        let Handles {
            stdin,
            stdout,
            stderr,
            copies,
        } = opened.handles;
        Self {
            stdin,
            stdout,
            stderr,
            copies,
            operation: opened.operation,
            container: opened.container,
            control: opened.control,
        }
    }

    /// A session of attach over a WebSocket that someone else connected, where `protocol` was agreed on and
    /// the request asked for `streams`; [`Over::spawn`] begins it. [`Subprotocol::accept`] tells the
    /// protocol from the server's answer.
    ///
    /// Every stream of `streams` gets a handle; drop those that do not matter. A terminal does not
    /// know its size until [`resize`](Self::resize) is called.
    pub fn over(
        websocket: impl Into<AnyWebSocket>,
        protocol: Subprotocol,
        streams: Streams,
    ) -> Over<Self> {
        Over::new(websocket.into(), protocol, streams)
    }

    /// Waits until the server ends the session, which is when the container ends.
    ///
    /// There is no exit code: the server does not send one
    /// (`k8s.io/cri-streaming/pkg/streaming/remotecommand/attach.go`). It is in the pod's
    /// `status.containerStatuses[].state.terminated.exitCode`.
    ///
    /// Cancel safety: nothing is lost; call it again.
    ///
    /// # Errors
    ///
    /// [`Error::Api`] if the server says that attaching failed;
    /// [`NetworkError::ClosedWithoutStatus`](crate::error::NetworkError::ClosedWithoutStatus) if
    /// it ends without a word; [`CallerError::Unread`](crate::error::CallerError::Unread) if a
    /// stream that is still in this struct is full.
    pub async fn wait(&mut self) -> Result<()> {
        let unread = unread(&self.stdout, &self.stderr);
        let status = self.control.status(&unread).await;
        let status = self.copies.finish(status).await?;
        if status.is_success() {
            return Ok(());
        }
        Err(Error::Api(Box::new(ApiError::new(&self.operation, status))))
    }

    /// Tells the terminal its new size.
    ///
    /// # Errors
    ///
    /// [`CallerError::ResizeWithoutTty`](crate::error::CallerError::ResizeWithoutTty) or
    /// [`CallerError::Ended`](crate::error::CallerError::Ended).
    pub fn resize(&self, size: TerminalSize) -> Result<()> {
        self.control.resize(size)
    }

    /// The container, where this side chose it: the one that was named, or of several the pod's
    /// default. `None` if the server chose, which is when there is only one.
    pub fn container(&self) -> Option<&str> {
        self.container.as_deref()
    }

    /// The subprotocol that the server chose.
    pub fn protocol(&self) -> Subprotocol {
        self.control.protocol()
    }

    /// What went through the session's WebSocket so far.
    pub fn stats(&self) -> SessionStats {
        self.control.stats()
    }

    /// The name of the stream that is full and holds everything else back, if one is.
    pub fn held_back_by(&self) -> Option<&'static str> {
        self.control.full().map(Channel::name)
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        if !self.control.has_status() {
            self.control.close();
        }
    }
}

/// The output streams that nobody can be reading while their owner is borrowed.
pub(super) fn unread(stdout: &Option<ChildStdout>, stderr: &Option<ChildStderr>) -> Vec<Channel> {
    let stdout = stdout.is_some().then_some(Channel::Stdout);
    stdout
        .into_iter()
        .chain(stderr.is_some().then_some(Channel::Stderr))
        .collect()
}

//! attach: the builder, and the session with a process that runs already.

use super::{
    ChildStderr, ChildStdin, ChildStdout, Input, Over, Pod, Stdio,
    feed::Handles,
    remote_command::{Opened, Options, options, session},
};
use crate::{
    Result,
    error::{ApiError, Error},
    session::{
        KeepaliveConfig, Subprotocol,
        remote_command::{InputAtExit, Streams},
    },
    transport::{AnyWebSocket, ws::stats::SessionStats},
    wire::{channel::Channel, resize::TerminalSize},
};

/// Attaches to the process that a container runs.
///
/// Output from before is in the container's log and does not come again. stdin needs a container
/// with `stdin: true`, a terminal one with `tty: true`.
///
/// ```
/// # kubewire::example(|pod| pod.container("main", ["sh", "-c", "while :; do echo tick; sleep 0.1; done"]), async |client| {
/// use tokio::io::AsyncBufReadExt as _;
///
/// let mut attached = client.pod("default", "web-0").attach().container("main").spawn().await?;
/// let mut lines = attached.stdout.take().expect("stdout is piped").lines();
/// assert_eq!(lines.next_line().await?.as_deref(), Some("tick"));
/// # Ok(())
/// # });
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

    setters! {
        /// Uses the container's terminal and gives it this size.
        fn tty(size: TerminalSize) options.set_tty(size);
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
/// # kubewire::example(|pod| pod.container("main", ["sh", "-c", "sleep 1; echo done"]), async |client| {
/// let mut attached = client.pod("default", "web-0").attach().spawn().await?;
/// attached.stdout = None; // its bytes are dropped
/// attached.stderr = None;
/// attached.wait().await?; // the container has ended
/// # Ok(())
/// # });
/// ```
#[derive(Debug)]
pub struct Attached {
    // Dropped first: what ends the session says nothing of its input.
    session: Opened,
    /// The process's input, if it was asked for.
    pub stdin: Option<ChildStdin>,
    /// Its output, if it was asked for.
    pub stdout: Option<ChildStdout>,
    /// Its error output, if it was asked for and there is no terminal.
    pub stderr: Option<ChildStderr>,
}

impl Attached {
    pub(super) fn new((session, handles): (Opened, Handles)) -> Self {
        Self {
            session,
            stdin: handles.stdin,
            stdout: handles.stdout,
            stderr: handles.stderr,
        }
    }

    session!();

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
        let status = self.session.status(&self.stdout, &self.stderr).await?;
        if status.is_success() {
            return Ok(());
        }
        let Opened { subject, .. } = &self.session;
        let refusal = Box::new(ApiError::new(subject.operation(), status));
        Err(subject.explain(Error::from(refusal)).await)
    }

    /// What had become of the input when the session ended, as
    /// [`ExitStatus::input_at_exit`](crate::exec::ExitStatus::input_at_exit) says of a command;
    /// `None` before [`wait`](Self::wait) has told of an end.
    pub fn input_at_exit(&self) -> Option<InputAtExit> {
        self.session.control.input_at_exit()
    }
}

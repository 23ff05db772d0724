//! The builder of exec.

use std::time::Duration;

use super::{
    Child, Input, Output, Pod, Stdio,
    child::Deadline,
    exit::ExitStatus,
    remote_command::{Options, options},
};
use crate::{
    Result,
    error::{CallerError, PartialOutput},
    session::{KeepaliveConfig, Subprotocol},
    wire::resize::TerminalSize,
};

/// A command to run in a container, in the shape of [`tokio::process::Command`].
///
/// ```
/// # kubewire::example(|pod| pod.container("main", ["sleep", "infinity"]), async |client| {
/// use kubewire::exec::Stdio;
/// use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _};
///
/// let pod = client.pod("default", "web-0");
/// let output = pod.exec(["sh", "-c", "cat; exit 3"]).input("hello").output().await?;
/// assert_eq!(output.stdout, b"hello");
/// assert_eq!(output.status.code(), Some(3));
///
/// // A conversation needs the streams themselves.
/// let mut child = pod.exec("cat").container("main").stdin(Stdio::piped()).spawn().await?;
/// let mut stdin = child.stdin.take().expect("it is piped");
/// let mut lines = child.stdout.take().expect("it is piped").lines();
/// stdin.write_all(b"hello\n").await?;
/// assert_eq!(lines.next_line().await?.as_deref(), Some("hello"));
/// stdin.shutdown().await?;
/// assert!(child.wait().await?.success());
/// # Ok(())
/// # });
/// ```
#[derive(Debug, Clone)]
#[must_use = "a command does nothing until it is spawned"]
pub struct Exec {
    pod: Pod,
    command: Vec<String>,
    options: Options,
    timeout: Option<Duration>,
}

impl Exec {
    pub(super) fn new(pod: Pod, command: Vec<String>) -> Self {
        Self {
            pod,
            command,
            options: Options::default(),
            timeout: None,
        }
    }

    options!();

    setters! {
        /// Gives the process a terminal of this size. Output is then on stdout alone, with `\r\n` for
        /// line ends, and dropping the session hangs up the terminal, which ends most processes.
        fn tty(size: TerminalSize) options.set_tty(size);

        /// Bytes that [`output`](Self::output) and [`Child::wait_with_output`] collect of each
        /// stream; [`limits::OUTPUT`](crate::limits::OUTPUT) unless set.
        fn max_output(bytes: usize) options.max_output = bytes;

        /// How long the command may take, from when it is spawned to its status; without limit unless
        /// set. Past it, [`output`](Self::output), [`status`](Self::status) and what waits for the
        /// [`Child`] fail with [`CallerError::TimedOut`], which has the output so far, and the
        /// connection is closed: what that does to the process says [`Child`](Child#dropping).
        ///
        /// ```
        /// # kubewire::example(|pod| pod.container("main", ["sleep", "infinity"]), async |client| {
        /// use kubewire::{Error, error::CallerError};
        /// use std::time::Duration;
        ///
        /// let pod = client.pod("default", "web-0");
        /// let slow = pod.exec(["sleep", "600"]).timeout(Duration::from_millis(200));
        /// match slow.output().await {
        ///     Err(Error::Caller(CallerError::TimedOut { output, .. })) => {
        ///         assert!(output.stdout.is_empty());
        ///     }
        ///     other => panic!("{other:?}"),
        /// }
        /// # Ok(())
        /// # });
        /// ```
        fn timeout(limit: Duration) timeout = Some(limit);
    }

    /// Starts the command.
    ///
    /// The server may accept before it has started anything (API servers with
    /// `v5.channel.k8s.io` do): that the program does not exist, say, is then an error of
    /// [`Child::wait`].
    ///
    /// Cancel safety: dropping the future drops the connection; the command may have started.
    ///
    /// # Errors
    ///
    /// [`Error::Api`](crate::Error::Api) if the server refuses, with its Status and often a
    /// [`Hint`](crate::error::Hint); [`Error::Network`](crate::Error::Network) if there is no
    /// connection; [`Error::Peer`](crate::Error::Peer) if the answer is no WebSocket handshake.
    pub async fn spawn(&self) -> Result<Child> {
        if self.command.is_empty() {
            return Err(CallerError::NoCommand.into());
        }
        let deadline = self.timeout.map(Deadline::after);
        // It is large, and the future of every caller would have it twice.
        let opening = Box::pin(self.options.open(&self.pod, "exec", &self.command));
        let Some(opened) = Deadline::limit(deadline, opening).await else {
            let operation = self.pod.operation("exec in");
            return Err(Deadline::missed(
                deadline,
                operation,
                PartialOutput::default(),
            ));
        };
        Ok(Child::new(opened?, self.options.max_output, deadline))
    }

    /// Runs the command and collects what it writes.
    ///
    /// # Errors
    ///
    /// Those of [`spawn`](Self::spawn) and of [`Child::wait_with_output`]. A command that fails is
    /// none: see [`Output::status`].
    pub async fn output(&self) -> Result<Output> {
        self.spawn().await?.wait_with_output().await
    }

    /// Runs the command, drops what it writes to pipes, and says how it ended.
    ///
    /// # Errors
    ///
    /// Those of [`spawn`](Self::spawn) and of [`Child::wait`].
    pub async fn status(&self) -> Result<ExitStatus> {
        let mut quiet = self.clone();
        for output in [&mut quiet.options.stdout, &mut quiet.options.stderr] {
            if output.is_piped() {
                *output = Stdio::null();
            }
        }
        quiet.spawn().await?.wait().await
    }
}

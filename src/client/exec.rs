//! The builder of exec.

use super::{
    Child, Output, Pod,
    child::ExitStatus,
    remote_command::{Options, Stdio, options},
};
use crate::{
    Result,
    error::CallerError,
    session::{KeepaliveConfig, Subprotocol},
    wire::resize::TerminalSize,
};

/// A command to run in a container, in the shape of [`tokio::process::Command`].
///
/// ```no_run
/// # use kubewire::{Client, exec::Stdio};
/// # use tokio::io::AsyncWriteExt as _;
/// # async fn run(client: Client) -> kubewire::Result<(), Box<dyn std::error::Error>> {
/// let pod = client.pod("default", "web-0");
/// let mut child = pod
///     .exec(["sh", "-c", "cat; exit 3"])
///     .container("main")
///     .stdin(Stdio::piped())
///     .spawn()
///     .await?;
/// let mut stdin = child.stdin.take().expect("it is piped");
/// stdin.write_all(b"hello").await?;
/// stdin.shutdown().await?;
/// let output = child.wait_with_output().await?;
/// assert_eq!(output.stdout, b"hello");
/// assert_eq!(output.status.code(), Some(3));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
#[must_use = "a command does nothing until it is spawned"]
pub struct Exec {
    pod: Pod,
    command: Vec<String>,
    options: Options,
}

impl Exec {
    pub(super) fn new(pod: Pod, command: Vec<String>) -> Self {
        Self {
            pod,
            command,
            options: Options::default(),
        }
    }

    options!();

    /// Gives the process a terminal of this size. Output is then on stdout alone, with `\r\n` for
    /// line ends, and dropping the session hangs up the terminal, which ends most processes.
    pub fn tty(mut self, size: TerminalSize) -> Self {
        self.options.tty = Some(size);
        self
    }

    /// Bytes that [`output`](Self::output) and [`Child::wait_with_output`] collect of each
    /// stream; [`limits::OUTPUT`](crate::limits::OUTPUT) unless set.
    pub fn max_output(mut self, bytes: usize) -> Self {
        self.options.max_output = bytes;
        self
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
        let (control, streams) = self.options.open(&self.pod, "exec", &self.command).await?;
        Ok(Child::new(
            control,
            self.pod.operation("exec in"),
            streams.stdin,
            self.options.stdout.is_piped(),
            streams.stderr,
            self.options.max_output,
        ))
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

    /// Runs the command, drops what it writes, and says how it ended.
    ///
    /// # Errors
    ///
    /// Those of [`spawn`](Self::spawn) and of [`Child::wait`].
    pub async fn status(&self) -> Result<ExitStatus> {
        let quiet = self.clone().stdout(Stdio::null()).stderr(Stdio::null());
        quiet.spawn().await?.wait().await
    }
}

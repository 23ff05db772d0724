//! How a remote process ended: in flows its Status, out come the exit code and what became of its
//! input.

use std::fmt;

use crate::{
    Result,
    error::{ApiError, Error},
    session::remote_command::InputAtExit,
    wire::status::Status,
};

/// How a remote process ended.
///
/// ```
/// # kubewire::example(|pod| pod.container("main", ["sh", "-c", "echo ready; sleep 600"]), async |client| {
/// let output = client.pod("default", "web-0").exec(["sh", "-c", "exit 3"]).output().await?;
/// assert!(!output.status.success());
/// assert_eq!(output.status.code(), Some(3));
/// # Ok(())
/// # });
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExitStatus {
    code: i64,
    input: InputAtExit,
    status: Status,
}

impl ExitStatus {
    pub(super) fn of(
        status: Status,
        input: InputAtExit,
        operation: impl FnOnce() -> String,
    ) -> Result<Self> {
        match status.code_of_exit() {
            Some(code) => Ok(Self {
                code,
                input,
                status,
            }),
            None => Err(Error::Api(Box::new(ApiError::new(operation(), status)))),
        }
    }

    /// Whether the process ended with code 0. A process whose input was cut short may succeed:
    /// see [`input_at_exit`](Self::input_at_exit).
    pub fn success(&self) -> bool {
        self.status.is_success()
    }

    /// The exit code, as [`std::process::ExitStatus::code`] gives it: a code of Windows above
    /// `i32::MAX` is the negative number with the same 32 bits, 3221225786 (0xC000013A) being
    /// -1073741510. [`raw_code`](Self::raw_code) has it as it was sent.
    ///
    /// A process that a signal ended has 128 plus the signal's number, as in a shell: that is all
    /// that container runtimes tell. `None` for a number that does not have 32 bits, which no
    /// process ends with.
    pub fn code(&self) -> Option<i32> {
        i32::try_from(self.code)
            .or_else(|_| u32::try_from(self.code).map(u32::cast_signed))
            .ok()
    }

    /// The exit code, as the server sent it.
    pub fn raw_code(&self) -> i64 {
        self.code
    }

    /// What had become of the input when the exit status came: whether its end had been said, and
    /// what had not been sent.
    ///
    /// A process that reads only what it wants and ends, as `head -1` does, leaves input over, and
    /// nothing is wrong. Elsewhere it may not have seen all: container runtimes end its input when
    /// its stdout ends before the process does, as in `sh -c 'cat >file'`
    /// (containerd/containerd#13934), and then it succeeds with a part. Keeping stdout open helps:
    /// `sh -c 'cat >file; true'`.
    ///
    /// It says nothing of input that had been sent and lay unread somewhere on the way: a process
    /// that must have all of it had better tell, by a checksum on its stdout.
    ///
    /// ```no_run
    /// # use kubewire::{Client, exec::Stdio};
    /// # use tokio::io::AsyncWriteExt as _;
    /// # async fn run(client: Client) -> Result<(), Box<dyn std::error::Error>> {
    /// let pod = client.pod("default", "web-0");
    /// let exec = pod.exec(["sh", "-c", "cat >/tmp/file"]).stdin(Stdio::piped());
    /// let mut child = exec.spawn().await?;
    /// let mut stdin = child.stdin.take().expect("it is piped");
    /// let sent = stdin.write_all(&[7; 1 << 20]).await;
    /// let status = child.wait().await?;
    /// if sent.is_err() || !status.input_at_exit().is_whole() {
    ///     eprintln!("the file is not whole: {:?}", status.input_at_exit());
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn input_at_exit(&self) -> InputAtExit {
        self.input
    }

    /// The server's words for it; empty for a success.
    pub fn message(&self) -> &str {
        &self.status.message
    }

    /// The server's reason: `NonZeroExitCode`, or empty for a success.
    pub fn reason(&self) -> &str {
        &self.status.reason
    }

    /// The whole Status.
    pub fn status(&self) -> &Status {
        &self.status
    }
}

impl fmt::Display for ExitStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "exit status: {}", self.code)
    }
}

/// What a process wrote, and how it ended.
///
/// ```
/// # kubewire::example(|pod| pod.container("main", ["sleep", "infinity"]), async |client| {
/// let output = client.pod("default", "web-0").exec(["sh", "-c", "echo no >&2; exit 1"]).output().await?;
/// assert!(!output.status.success());
/// assert_eq!((&output.stdout[..], &output.stderr[..]), (&b""[..], &b"no\n"[..]));
/// # Ok(())
/// # });
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// How it ended.
    pub status: ExitStatus,
    /// What it wrote to stdout; with a terminal, everything.
    pub stdout: Vec<u8>,
    /// What it wrote to stderr.
    pub stderr: Vec<u8>,
}

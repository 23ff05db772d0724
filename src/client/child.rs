//! A remote process and its streams.

use std::{pin::pin, sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{
    Over,
    exit::{ExitStatus, Output},
    feed::{Handles, next_slice},
    remote_command::{Opened, session},
};
use crate::{
    Result,
    error::{CallerError, Error, PartialOutput},
    session::{Subprotocol, remote_command::Streams},
    transport::{
        AnyWebSocket, runtime,
        ws::{
            remote_command::{Input, Output as Writer},
            slices::{sink_inner, slices_inner},
            stats::SessionStats,
        },
    },
    wire::{channel::Channel, resize::TerminalSize, status::Status},
};

/// A command that runs in a container, in the shape of [`tokio::process::Child`].
///
/// # Streams
///
/// One WebSocket carries all streams. Output that nobody reads is kept up to the bound of
/// [`Exec::buffer`](super::Exec::buffer); a stream that reaches it holds everything else back,
/// the exit status too. Read all streams, drop the handles of those that do not matter (then
/// their bytes are dropped as they come), or raise the bound.
/// [`held_back_by`](Self::held_back_by) tells which stream it is.
///
/// # Dropping
///
/// Dropping the child before its exit status has arrived closes the connection, and its streams
/// end with [`CallerError::Killed`]. A process with a terminal is hung up by that; one without is
/// not told, and most end at their next write (kubernetes/kubernetes#89031). After the status the
/// streams can be read to their end without the child.
///
/// ```
/// # kubewire::example(|pod| pod.container("main", ["sleep", "infinity"]), async |client| {
/// use tokio::io::AsyncReadExt as _;
///
/// let mut child = client.pod("default", "web-0").exec(["sh", "-c", "echo hello; exit 3"]).spawn().await?;
/// let mut output = String::new();
/// child.stdout.take().expect("stdout is piped").read_to_string(&mut output).await?;
/// let status = child.wait().await?;
/// assert_eq!((output.as_str(), status.code()), ("hello\n", Some(3)));
/// # Ok(())
/// # });
/// ```
#[derive(Debug)]
pub struct Child {
    // Dropped first: what ends the session says nothing of its input.
    session: Opened,
    /// The process's input, if it is piped. Dropping it ends the input where the subprotocol
    /// can say so: see [`ChildStdin::can_shutdown`].
    pub stdin: Option<ChildStdin>,
    /// The process's output, if it is piped.
    pub stdout: Option<ChildStdout>,
    /// The process's error output, if it is piped and there is no terminal.
    pub stderr: Option<ChildStderr>,
    max_output: usize,
    deadline: Option<Deadline>,
}

impl Child {
    pub(super) fn new(
        (session, handles): (Opened, Handles),
        max_output: usize,
        deadline: Option<Deadline>,
    ) -> Self {
        Self {
            session,
            stdin: handles.stdin,
            stdout: handles.stdout,
            stderr: handles.stderr,
            max_output,
            deadline,
        }
    }

    session!();

    /// Closes stdin, then waits for the process to end.
    ///
    /// On servers without `v5.channel.k8s.io` stdin cannot be closed, and a process that reads to
    /// the end of its input goes on waiting: see [`ChildStdin::can_shutdown`].
    ///
    /// A success means that the server says so. An API server whose connection to the kubelet
    /// breaks at the wrong moment can take that for a success
    /// (`k8s.io/client-go/tools/remotecommand/errorstream.go`); where that matters, let the
    /// command end its output with a mark or a checksum.
    ///
    /// Cancel safety: nothing is lost; call it again.
    ///
    /// # Errors
    ///
    /// * [`Error::Api`] if the command could not be started, or the server failed;
    /// * [`NetworkError::ClosedWithoutStatus`](crate::error::NetworkError::ClosedWithoutStatus) if
    ///   the connection ends first: nothing is known of the process then;
    /// * [`CallerError::Unread`] if an output stream that is still in this struct, where nobody
    ///   can be reading it, is full and holds the status back. Take it and read it, or drop it,
    ///   and wait again;
    /// * [`CallerError::TimedOut`] past [`Exec::timeout`](super::Exec::timeout), which kills the
    ///   session;
    /// * [`CallerError::Stream`] if an [`Input`](super::Input) could not be read, or a file not
    ///   be written, which kills the session too.
    pub async fn wait(&mut self) -> Result<ExitStatus> {
        let deadline = self.deadline;
        match Deadline::limit(deadline, self.end()).await {
            Some(ended) => ended,
            None => Err(self.miss(deadline, PartialOutput::default())),
        }
    }

    async fn end(&mut self) -> Result<ExitStatus> {
        self.stdin = None;
        let status = self.session.status(&self.stdout, &self.stderr).await?;
        match self.exit_status(status) {
            Err(error) => Err(self.session.subject.explain(error).await),
            ended => ended,
        }
    }

    fn miss(&mut self, deadline: Option<Deadline>, output: PartialOutput) -> Error {
        self.kill();
        Deadline::missed(deadline, self.session.subject.operation(), output)
    }

    /// Closes stdin, reads both output streams to their ends, and waits for the process to end.
    ///
    /// # Errors
    ///
    /// Those of [`wait`](Self::wait); and [`CallerError::TooMuchOutput`] past the bound of
    /// [`Exec::max_output`](super::Exec::max_output); and
    /// [`NetworkError::Lost`](crate::error::NetworkError::Lost) if the connection broke after the
    /// status, when output may be missing.
    pub async fn wait_with_output(mut self) -> Result<Output> {
        self.stdin = None;
        let (stdout, stderr) = (self.stdout.take(), self.stderr.take());
        let (limit, deadline) = (self.max_output, self.deadline);
        // Outside of what the deadline cuts off, so that it can be handed over.
        let mut output = PartialOutput::default();
        let end = async {
            let (status, (), ()) = tokio::try_join!(
                self.end(),
                collect(stdout.map(|stream| stream.0), limit, &mut output.stdout),
                collect(stderr.map(|stream| stream.0), limit, &mut output.stderr),
            )?;
            Ok(status)
        };
        match Deadline::limit(deadline, end).await {
            None => Err(self.miss(deadline, output)),
            // The other streams fail too when the session is killed for a task's sake.
            Some(Err(error)) => self.session.copies.result(Err(error)),
            Some(Ok(status)) => Ok(Output {
                status,
                stdout: output.stdout,
                stderr: output.stderr,
            }),
        }
    }

    /// The exit status, if it has arrived: as [`wait`](Self::wait), without waiting and without
    /// closing stdin.
    ///
    /// # Errors
    ///
    /// Those of [`wait`](Self::wait).
    pub fn try_wait(&mut self) -> Result<Option<ExitStatus>> {
        match self.session.try_status(&self.stdout, &self.stderr) {
            Some(status) => self.exit_status(status?).map(Some),
            None => Ok(None),
        }
    }

    fn exit_status(&self, status: Status) -> Result<ExitStatus> {
        // Wherever there is a Status there is this, too.
        let control = &self.session.control;
        let input = control.input_at_exit().unwrap_or_default();
        let code = status.code_of_exit();
        control.span().record("process.exit.code", code);
        ExitStatus::of(status, input, || self.session.subject.operation())
    }

    /// Closes the connection without waiting for the process; see [Dropping](Self#dropping).
    pub fn kill(&mut self) {
        self.session.control.close();
    }
}

async fn collect(stream: Option<Input>, limit: usize, output: &mut Vec<u8>) -> Result<()> {
    let Some(mut stream) = stream else {
        return Ok(());
    };
    while let Some(slice) = next_slice(&mut stream).await? {
        if output.len() + slice.len() > limit {
            return Err(CallerError::TooMuchOutput { limit }.into());
        }
        output.extend_from_slice(&slice);
    }
    Ok(())
}

/// Until when a command must have ended.
#[derive(Debug, Clone, Copy)]
pub(super) struct Deadline {
    /// `None` is later than any clock goes.
    at: Option<Instant>,
    after: Duration,
}

impl Deadline {
    pub(super) fn after(after: Duration) -> Self {
        let at = Instant::now().checked_add(after);
        Self { at, after }
    }

    /// What comes of `work`, if it comes in time. Outside of a runtime, which has the timers, `work`
    /// says so itself.
    pub(super) async fn limit<T>(
        deadline: Option<Self>,
        work: impl Future<Output = T>,
    ) -> Option<T> {
        let work = pin!(work);
        let at = deadline.and_then(|deadline| deadline.at);
        match at.filter(|_| runtime().is_ok()) {
            Some(at) => tokio::time::timeout_at(at, work).await.ok(),
            None => Some(work.await),
        }
    }

    pub(super) fn missed(
        deadline: Option<Self>,
        operation: String,
        output: PartialOutput,
    ) -> Error {
        CallerError::TimedOut {
            operation,
            after: deadline.map_or(Duration::MAX, |deadline| deadline.after),
            output: Arc::new(output),
        }
        .into()
    }
}

/// The input of a remote process: [`AsyncWrite`](tokio::io::AsyncWrite), and a
/// [`Sink`](futures_sink::Sink) of [`Bytes`](bytes::Bytes) that are sent without being copied,
/// unless somebody else holds them too.
///
/// A write waits while more than [`limits::SEND_BUFFER`](crate::limits::SEND_BUFFER) bytes are
/// on their way. It fails with [`CallerError::Ended`] once the process or the session has ended.
/// Writes need no flush; a flush waits until the operating system has taken everything.
///
/// Cancel safety: as for a pipe, what a write that has returned has taken will be sent, and a
/// write that is dropped has taken nothing.
///
/// ```
/// # kubewire::example(|pod| pod.container("main", ["sleep", "infinity"]), async |client| {
/// use kubewire::exec::Stdio;
/// use tokio::io::AsyncWriteExt as _;
///
/// let exec = client.pod("default", "web-0").exec(["wc", "-c"]).stdin(Stdio::piped());
/// let mut child = exec.spawn().await?;
/// let mut stdin = child.stdin.take().expect("stdin is piped");
/// stdin.write_all(b"hello").await?;
/// assert!(stdin.can_shutdown());
/// stdin.shutdown().await?; // `wc` sees the end of its input
/// assert_eq!(child.wait_with_output().await?.stdout.trim_ascii(), b"5");
/// # Ok(())
/// # });
/// ```
#[derive(Debug)]
pub struct ChildStdin(Writer);

impl ChildStdin {
    pub(super) fn new(writer: Writer) -> Self {
        Self(writer)
    }

    /// Whether the process will see the end of its input when this is shut down or dropped.
    ///
    /// Only `v5.channel.k8s.io` can say so. Elsewhere
    /// [`shutdown`](tokio::io::AsyncWriteExt::shutdown) sends what is queued, fails with
    /// [`CallerError::HalfClose`] and changes nothing else, dropping says nothing, and the process
    /// must know by itself when it has read enough (`head -c 6`).
    pub fn can_shutdown(&self) -> bool {
        self.0.control().protocol().has_half_close()
    }
}

sink_inner!(ChildStdin, poll_shutdown);

macro_rules! output_stream {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        ///
        /// It is [`AsyncRead`](tokio::io::AsyncRead), [`AsyncBufRead`](tokio::io::AsyncBufRead), and
        /// a [`Stream`](futures_core::Stream) of [`Bytes`](bytes::Bytes) that are slices of
        /// the buffer which the socket was read into. All three can be mixed. The end of the
        /// stream is the end of the session; a session that ends without the server closing it in
        /// order is an error here, after all that had arrived.
        ///
        /// Cancel safety: a read that is dropped has taken nothing.
        #[derive(Debug)]
        pub struct $name(Input);

        impl $name {
            pub(super) fn new(input: Input) -> Self {
                Self(input)
            }
        }

        slices_inner!($name);
    };
}

output_stream! {
    /// The output of a remote process.
    ChildStdout
}

output_stream! {
    /// The error output of a remote process.
    ChildStderr
}

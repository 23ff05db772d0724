//! exec and attach, joined: in flow a session with a client and one with an API server, out comes
//! how both ended.

use std::{
    future::{IntoFuture, poll_fn},
    io,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;

use super::pump::{Pump, Stopped};
use crate::{
    Result,
    client::{Attached, Child, ChildStderr, ChildStdin, ChildStdout},
    error::{CallerError, Error},
    server::{Output, Process, Stdin},
    wire::{resize::TerminalSize, status::Status},
};

/// The session with the API server: a [`Child`] or an [`Attached`].
///
/// ```
/// # kubewire::example(|pod| pod.container("main", ["sleep", "infinity"]), async |client| {
/// # let process = |_: kubewire::gateway::ClientSession| {};
/// // What `Process::splice` takes: a child, or an attached session.
/// let child = client.pod("default", "web-0").exec(["true"]).spawn().await?;
/// process(child.into());
/// # Ok(())
/// # });
/// ```
#[derive(Debug)]
pub struct ClientSession(Kind);

#[derive(Debug)]
enum Kind {
    Exec(Child),
    Attach(Attached),
}

impl From<Child> for ClientSession {
    fn from(child: Child) -> Self {
        Self(Kind::Exec(child))
    }
}

impl From<Attached> for ClientSession {
    fn from(attached: Attached) -> Self {
        Self(Kind::Attach(attached))
    }
}

impl ClientSession {
    fn streams(&mut self) -> (Option<ChildStdin>, Option<ChildStdout>, Option<ChildStderr>) {
        match &mut self.0 {
            Kind::Exec(child) => (child.stdin.take(), child.stdout.take(), child.stderr.take()),
            Kind::Attach(it) => (it.stdin.take(), it.stdout.take(), it.stderr.take()),
        }
    }

    fn resize(&self, size: TerminalSize) -> Result<()> {
        match &self.0 {
            Kind::Exec(child) => child.resize(size),
            Kind::Attach(attached) => attached.resize(size),
        }
    }

    async fn end(&mut self) -> Result<Status> {
        match &mut self.0 {
            Kind::Exec(child) => child.wait().await.map(|exit| exit.status().clone()),
            Kind::Attach(attached) => attached.wait().await.map(|()| Status::success()),
        }
    }
}

/// What passes through a [`Splice`], in the order in which it does; a slice of the buffer that the
/// socket was read into, which a clone shares.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub enum Tapped<'a> {
    /// What the client sends.
    Stdin(&'a Bytes),
    /// What the process writes to stdout; with a terminal, everything.
    Stdout(&'a Bytes),
    /// What the process writes to stderr.
    Stderr(&'a Bytes),
    /// The client's terminal has this size.
    Resize(TerminalSize),
}

type Tap = Box<dyn FnMut(Tapped<'_>) -> io::Result<()> + Send>;

/// Two sessions, joined when this is awaited, until either ends.
///
/// * Streams go through as they come. Neither side is read while the other does not take what it
///   sent, so that a slow client holds the process back and a process that does not read holds the
///   client back; between them lie at most the buffers of both sessions
///   ([`Exec::buffer`](crate::exec::Exec::buffer),
///   [`RemoteCommandRequest::buffer`](crate::server::RemoteCommandRequest::buffer) and
///   [`limits::SEND_BUFFER`](crate::limits::SEND_BUFFER) each way).
/// * Sizes of the terminal go to the process, and the end of the client's input, if both
///   subprotocols can say it (`v5.channel.k8s.io`): else the process does not see its input end.
/// * The Status of the process goes to the client after all output: an exit code, or why the
///   command could not be started. If the connection to the API server breaks first, the client
///   gets a Status that says so ([`Error::to_status`]), never a success.
/// * A client that leaves ends the session with the API server, as a dropped
///   [`Child`](crate::exec::Child#dropping) does: a process with a terminal is hung up, one without
///   is not told. While the client is held back nobody sees that it has left; keepalive of the
///   session with the API server goes on.
///
/// Dropping the future ends both sessions, and the client is not told how.
///
/// ```
/// # kubewire::example(|pod| pod.container("main", ["sleep", "infinity"]), async |client| {
/// # use kubewire::exec::{Child, Streams, Subprotocol};
/// # use tokio_tungstenite::{WebSocketStream, tungstenite::protocol::Role};
/// # let streams = Streams { stdout: true, ..Streams::default() };
/// # let (near, far) = tokio::io::duplex(1 << 16);
/// # let near = WebSocketStream::from_raw_socket(near, Role::Client, None).await;
/// # let far = WebSocketStream::from_raw_socket(far, Role::Server, None).await;
/// # let user = Child::over(near, Subprotocol::V5, streams).spawn();
/// # let process = kubewire::server::Process::over(far, Subprotocol::V5, streams);
/// use kubewire::gateway::Tapped;
/// use std::sync::{Arc, Mutex};
///
/// // `process` is what an accepted request gives.
/// let child = client.pod("default", "web-0").exec(["echo", "hello"]).spawn().await?;
/// let record = Arc::new(Mutex::new(Vec::new()));
/// let recorder = record.clone();
/// let splice = process.splice(child).tap(move |passed| {
///     if let Tapped::Stdout(bytes) = passed {
///         recorder.lock().unwrap().push(bytes.clone());
///     }
///     Ok(())
/// });
/// # let (spliced, output) = tokio::join!(splice.into_future(), user.wait_with_output());
/// # assert_eq!(output?.stdout, b"hello\n");
/// # let spliced = async { spliced };
/// let spliced = spliced.await;
/// assert_eq!(spliced.status?.code_of_exit(), Some(0));
/// assert_eq!(record.lock().unwrap().concat(), b"hello\n");
/// # Ok(())
/// # });
/// # use std::future::IntoFuture as _;
/// ```
#[must_use = "nothing is joined until it is awaited"]
pub struct Splice {
    process: Process,
    session: ClientSession,
    tap: Option<Tap>,
}

debug_fields!(Splice { process, session });

/// How a [`Splice`] ended.
///
/// ```no_run
/// # fn audit(spliced: &kubewire::gateway::Spliced) {
/// match &spliced.status {
///     Ok(status) => println!("exit code {:?}", status.code_of_exit()),
///     Err(error) => println!("how it ended is not known: {error}"),
/// }
/// println!("{} bytes in, {} out", spliced.stdin, spliced.stdout + spliced.stderr);
/// # }
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Spliced {
    /// What the API server said of the process, its exit code ([`Status::code_of_exit`]) or a
    /// success of attach; or why that is not known: the error that the client was told, or
    /// [`CallerError::Killed`] where the client left first.
    pub status: Result<Status>,
    /// Whether the client has been told; else how it left.
    pub client: Result<()>,
    /// Bytes of input that went to the process.
    pub stdin: u64,
    /// Bytes of output that went to the client.
    pub stdout: u64,
    /// Bytes of error output that went to the client.
    pub stderr: u64,
}

impl Splice {
    pub(super) fn new(process: Process, session: ClientSession) -> Self {
        Self {
            process,
            session,
            tap: None,
        }
    }

    /// Shows everything that passes to `tap`, before it does. An error of the tap ends both
    /// sessions, and is told to the client: what cannot be recorded does not go on. It runs where
    /// the sessions do and must not block.
    pub fn tap(mut self, tap: impl FnMut(Tapped<'_>) -> io::Result<()> + Send + 'static) -> Self {
        self.tap = Some(Box::new(tap));
        self
    }

    async fn run(self) -> Spliced {
        let Self {
            mut process,
            mut session,
            tap,
        } = self;
        let (stdin, stdout, stderr) = session.streams();
        let flow = Flow {
            stdin: Pump::new(process.stdin.take(), stdin),
            stdout: Pump::new(stdout, process.stdout.take()),
            stderr: Pump::new(stderr, process.stderr.take()),
            broken: None,
            tap,
        };
        let mut joined = Joined {
            session,
            flow,
            process,
        };
        let ended = joined.until_end().await;
        let Joined {
            session,
            flow,
            process,
        } = joined;
        drop(session);
        let (status, client) = match ended {
            Ended::Process(status) => {
                let told = match &status {
                    Ok(status) => status.clone(),
                    Err(error) => error.to_status(),
                };
                (status, process.exit(told).await)
            }
            Ended::Client(left) => (
                Err(CallerError::Killed.into()),
                left.and(Err(CallerError::Ended.into())),
            ),
        };
        Spliced {
            status,
            client,
            stdin: flow.stdin.bytes,
            stdout: flow.stdout.bytes,
            stderr: flow.stderr.bytes,
        }
    }
}

impl IntoFuture for Splice {
    type Output = Spliced;
    type IntoFuture = Pin<Box<dyn Future<Output = Spliced> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.run())
    }
}

enum Ended {
    /// The session with the API server, or what joins the two.
    Process(Result<Status>),
    /// The client's.
    Client(Result<()>),
}

/// Both sessions. The one with the API server is dropped before its input, whose end it would
/// otherwise take for the end of what the client sends.
struct Joined {
    session: ClientSession,
    flow: Flow,
    process: Process,
}

impl Joined {
    async fn until_end(&mut self) -> Ended {
        let Self {
            session,
            flow,
            process,
        } = self;
        let status = loop {
            tokio::select! {
                biased;
                status = session.end() => break status,
                left = process.closed() => return Ended::Client(left),
                Some(size) = process.resized() => {
                    if let Err(error) = see(&mut flow.tap, Tapped::Resize(size)) {
                        return Ended::Process(Err(failed(error)));
                    }
                    // Without a terminal there is nobody to tell, and past its end neither.
                    let _ = session.resize(size);
                }
                unseen = poll_fn(|cx| flow.poll(cx)) => return Ended::Process(Err(unseen)),
            }
        };
        flow.stdin.stop();
        tokio::select! {
            biased;
            drained = poll_fn(|cx| flow.poll_outputs(cx)) => {
                Ended::Process(status.and_then(|status| drained.map(|()| status)))
            }
            left = process.closed() => Ended::Client(left),
        }
    }
}

fn failed(error: io::Error) -> Error {
    Error::of_stream(error, CallerError::Stream)
}

struct Flow {
    stdin: Pump<Stdin, ChildStdin>,
    stdout: Pump<ChildStdout, Output>,
    stderr: Pump<ChildStderr, Output>,
    /// Why output is missing.
    broken: Option<Error>,
    tap: Option<Tap>,
}

impl Flow {
    /// Passes on what can be. Ready only if the tap has failed: what else ends a stream, the
    /// sessions say.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Error> {
        let Self {
            stdin,
            stdout,
            stderr,
            broken,
            tap,
        } = self;
        for stopped in [
            stdin.poll(cx, |bytes| see(tap, Tapped::Stdin(bytes))),
            stdout.poll(cx, |bytes| see(tap, Tapped::Stdout(bytes))),
            stderr.poll(cx, |bytes| see(tap, Tapped::Stderr(bytes))),
        ] {
            match stopped {
                Poll::Ready(Stopped::Tap(error)) => return Poll::Ready(failed(error)),
                Poll::Ready(Stopped::Source(error)) => {
                    broken.get_or_insert(failed(error));
                }
                Poll::Ready(Stopped::Finished | Stopped::Sink) | Poll::Pending => {}
            }
        }
        Poll::Pending
    }

    /// Ready when no more output goes to the client.
    fn poll_outputs(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        if let Poll::Ready(unseen) = self.poll(cx) {
            return Poll::Ready(Err(unseen));
        }
        match (
            self.stdout.is_stopped() && self.stderr.is_stopped(),
            &self.broken,
        ) {
            (false, _) => Poll::Pending,
            (true, Some(error)) => Poll::Ready(Err(error.clone())),
            (true, None) => Poll::Ready(Ok(())),
        }
    }
}

fn see(tap: &mut Option<Tap>, passed: Tapped<'_>) -> io::Result<()> {
    match tap {
        Some(tap) => tap(passed),
        None => Ok(()),
    }
}

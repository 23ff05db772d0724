//! The container's side of a copy: in flows a program to run there, out come its streams, joined to
//! a pipe, and how it ended.

use std::{
    future::poll_fn,
    io,
    path::Path,
    pin::Pin,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
};

use bytes::Bytes;
use futures_core::Stream as _;
use futures_sink::Sink as _;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _, ReadBuf},
    sync::mpsc,
};

use super::{
    lock,
    pipe::{Awaited, PipeReader, PipeWriter, pipe},
    progress::Progress,
    shell::WATCHED,
    stage::Stage,
    sums::Sum,
    tools::{is_of_change, without_tools},
    unpack::wrong,
};
use crate::{
    KeepaliveConfig, Pod, Result,
    client::{ChildStderr, ChildStdin, ChildStdout, Exec, ExitStatus, Input, Stdio},
    error::{ApiError, Error, Hint, panic::blocking},
    limits,
};

/// A container runtime that dies calls what it ran a success.
const EARLY: &str = "the program in the container ended before it had read all, and the container \
                     runtime calls that a success";

/// An input that says nothing more, and does not end.
struct Silence;

impl AsyncRead for Silence {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        _: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Poll::Pending
    }
}

/// What runs a script, with the arguments behind it.
fn shell(script: &str) -> impl Iterator<Item = &str> {
    ["sh", "-c", script, "kubewire"].into_iter()
}

#[derive(Debug, Clone)]
pub(super) struct Side {
    pub(super) pod: Pod,
    pub(super) container: Option<String>,
    /// Whether there is a shell, which may have programs in itself.
    pub(super) shell: bool,
    pub(super) sum: Sum,
}

impl Side {
    pub(super) fn new(pod: &Pod) -> Self {
        Self {
            pod: pod.clone(),
            container: None,
            shell: false,
            sum: Sum::default(),
        }
    }

    pub(super) fn exec<'a>(&self, command: impl IntoIterator<Item = &'a str>) -> Exec {
        // `tar` and what compares files read what they are sent.
        let keepalive = KeepaliveConfig {
            unread: limits::COPY_STALLED,
            ..KeepaliveConfig::default()
        };
        let exec = self.pod.exec(command).keepalive(keepalive);
        match &self.container {
            Some(container) => exec.container(container),
            None => exec,
        }
    }

    pub(super) fn program<'a>(&self, command: impl IntoIterator<Item = &'a str>) -> Exec {
        match self.shell {
            true => self.script(r#"exec "$@""#, command),
            false => self.exec(command),
        }
    }

    /// A program that reads these bytes, and ends with the session: where there is no shell, only
    /// when its output does.
    pub(super) fn reader<'a>(
        &self,
        input: Vec<u8>,
        command: impl IntoIterator<Item = &'a str>,
    ) -> Exec {
        match (self.shell, input.is_empty()) {
            (true, _) => self
                .watched(input.len(), command)
                .input(Input::reader(io::Cursor::new(input).chain(Silence))),
            (false, true) => self.exec(command),
            (false, false) => self.exec(command).input(input).require_half_close(),
        }
    }

    /// A program that reads so many bytes, and ends with its input: there must be a shell.
    pub(super) fn watched<'a>(
        &self,
        bytes: usize,
        command: impl IntoIterator<Item = &'a str>,
    ) -> Exec {
        let words = command.into_iter().map(|word| -> &str { word });
        self.script(WATCHED, [&*bytes.to_string()].into_iter().chain(words))
    }

    /// The same, of a script.
    pub(super) fn reading<'a>(
        &self,
        script: &'a str,
        arguments: impl IntoIterator<Item = &'a str>,
    ) -> Exec {
        self.reader(Vec::new(), shell(script).chain(arguments))
    }

    /// A script, whose arguments begin with `$1`.
    pub(super) fn script<'a>(
        &self,
        script: &'a str,
        arguments: impl IntoIterator<Item = &'a str>,
    ) -> Exec {
        self.exec(shell(script).chain(arguments))
    }

    /// Runs a program to its end; gives what it writes.
    pub(super) async fn run(&self, exec: Exec, verb: &str) -> Result<Vec<u8>> {
        let output = exec.output().await?;
        let complaint = String::from_utf8_lossy(&output.stderr);
        self.judge(&output.status, verb, complaint.trim())?;
        Ok(output.stdout)
    }

    /// Gives what a program writes to a thread.
    pub(super) async fn receive(
        &self,
        exec: Exec,
        progress: &Progress,
        job: impl FnOnce(PipeReader) -> Result<()> + Send + 'static,
    ) -> Result<()> {
        let mut child = exec.spawn().await.map_err(|error| self.explain(error))?;
        let (to, from) = pipe();
        let (_held, awaited) = Awaited::new();
        let working = thread(progress, move || job(PipeReader::new(from, awaited)));
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let work = async {
            let pumped = pump(stdout, to).await;
            // Also after a failure, for the thread cleans up.
            let done = working.await;
            let status = if pumped? {
                Some(child.wait().await.map_err(|error| self.explain(error))?)
            } else {
                child.kill();
                None
            };
            Ok::<_, Error>((status, done))
        };
        let (done, complaint) = tokio::join!(work, complaint(stderr));
        let (status, done) = done?;
        let Some(status) = status else {
            return done;
        };
        match self.judge(&status, "copy from", &complaint) {
            // That may be forgiven, and what is wrong here not.
            Err(error) if is_of_change(&error) => done.and(Err(error)),
            judged => judged.and(done),
        }
    }

    /// Gives a program what a thread writes; gives what that says in the end. `stage` is where it
    /// runs, if that tells whether it does.
    pub(super) async fn send<T: Send + 'static>(
        &self,
        exec: Exec,
        stage: Option<&Stage>,
        progress: &Progress,
        job: impl FnOnce(PipeWriter) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (to, from) = pipe();
        let (_held, awaited) = Awaited::new();
        let progress = progress.clone();
        let working =
            async move { thread(&progress, move || job(PipeWriter::new(to, awaited))).await };
        self.deliver(exec, stage, from, working).await
    }

    /// Gives a program what comes out of a pipe, which `working` fills.
    pub(super) async fn deliver<T>(
        &self,
        exec: Exec,
        stage: Option<&Stage>,
        from: mpsc::Receiver<Bytes>,
        working: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        let exec = exec.stdin(Stdio::piped()).stdout(Stdio::null());
        let exec = exec.require_half_close();
        let mut child = exec.spawn().await.map_err(|error| self.explain(error))?;
        let (stdin, stderr) = (child.stdin.take(), child.stderr.take());
        let (taken, said) = (AtomicU64::new(0), Mutex::default());
        let work = async {
            let (fed, done) = tokio::join!(feed(from, stdin, &taken), working);
            if let (Ok(()), Err(error)) = (&fed, &done) {
                child.kill();
                return Err(error.clone());
            }
            let status = child.wait().await.map_err(|error| self.explain(error))?;
            Ok((fed, done, status))
        };
        let ended = async { tokio::join!(work, listen(stderr, &said)).0 };
        let (fed, done, status) = tokio::select! {
            ended = ended => ended?,
            problem = stuck(&taken, &said, stage) => {
                let operation = self.pod.operation("copy to");
                return Err(wrong(Path::new(&operation), problem));
            }
        };
        self.judge(&status, "copy to", &text(&said))?;
        fed.map_err(|_| Error::lost(io::Error::other(EARLY)))?;
        done
    }

    /// What it means how a program ended.
    pub(super) fn judge(&self, status: &ExitStatus, verb: &str, complaint: &str) -> Result<()> {
        if status.success() {
            return Ok(());
        }
        let operation = self.pod.operation(verb);
        let operation = match complaint {
            "" => operation,
            complaint => format!("{operation}: {complaint}"),
        };
        Err(Error::Api(Box::new(ApiError::new(
            operation,
            status.status().clone(),
        ))))
    }

    /// That the program is missing means that there is nothing to copy with.
    fn explain(&self, error: Error) -> Error {
        match is_missing(&error) {
            true => without_tools(self),
            false => error,
        }
    }
}

/// Runs what blocks, from now on; until it has ended, there is something at work.
pub(super) fn thread<T: Send + 'static, F: FnOnce() -> Result<T> + Send + 'static>(
    progress: &Progress,
    job: F,
) -> impl Future<Output = Result<T>> + Send + use<T, F> {
    let busy = progress.busy();
    blocking("a thread of the copy", move || {
        let done = job();
        drop(busy);
        done
    })
}

/// Whether the container has no such program.
pub(super) fn is_missing(error: &Error) -> bool {
    match error {
        Error::Api(error) => matches!(error.hint, Some(Hint::Program(_))),
        _ => false,
    }
}

pub(super) async fn send_all(to: &mut ChildStdin, bytes: Bytes) -> io::Result<()> {
    poll_fn(|cx| Pin::new(&mut *to).poll_ready(cx)).await?;
    Pin::new(to).start_send(bytes)
}

/// Sends all that comes, and the end; counts the steps that are taken.
async fn feed(
    mut from: mpsc::Receiver<Bytes>,
    to: Option<ChildStdin>,
    taken: &AtomicU64,
) -> io::Result<()> {
    let Some(mut to) = to else { return Ok(()) };
    while let Some(step) = from.recv().await {
        send_all(&mut to, step).await?;
        taken.fetch_add(1, Ordering::Relaxed);
    }
    to.shutdown().await
}

/// Ends when a program that has complained, or has gone, goes on with nothing; gives what is wrong.
/// containerd does not tell the end of one that leaves more input unread than its pipe holds: the
/// copy into that pipe, for which it waits, never ends (`ExecIO.Attach`,
/// `internal/cri/io/exec_io.go`).
async fn stuck(taken: &AtomicU64, said: &Mutex<Vec<u8>>, stage: Option<&Stage>) -> String {
    let (mut before, mut was_idle) = (None, false);
    loop {
        let now = Some((lock(said).len(), taken.load(Ordering::Relaxed)));
        let is_still = now == before;
        if is_still && !lock(said).is_empty() {
            return format!("{}, and it takes no more input", text(said));
        }
        // How it ended may be on its way.
        let is_idle = match stage.filter(|_| is_still) {
            Some(stage) => stage.is_idle().await.unwrap_or(false),
            None => false,
        };
        if is_idle && was_idle {
            return "the program that took it has ended, and nobody says how".to_owned();
        }
        (before, was_idle) = (now, is_idle);
        tokio::time::sleep(limits::COPY_COMPLAINED).await;
    }
}

/// Hands on all that comes. `false` if nobody takes it any more.
async fn pump(from: Option<ChildStdout>, to: mpsc::Sender<Bytes>) -> Result<bool> {
    let Some(mut from) = from else {
        return Ok(true);
    };
    while let Some(bytes) = poll_fn(|cx| Pin::new(&mut from).poll_next(cx)).await {
        let mut bytes = bytes.map_err(Error::of_connection)?;
        while !bytes.is_empty() {
            let step = bytes.split_to(bytes.len().min(limits::COPY_STEP));
            if to.send(step).await.is_err() {
                return Ok(false);
            }
        }
    }
    Ok(true)
}

/// Reads what a program complains of to the end, and keeps the start.
pub(super) async fn complaint(from: Option<ChildStderr>) -> String {
    let said = Mutex::default();
    listen(from, &said).await;
    text(&said)
}

async fn listen(from: Option<ChildStderr>, said: &Mutex<Vec<u8>>) {
    let Some(mut from) = from else { return };
    let mut buffer = [0; 1 << 10];
    // How the session ended, its status says.
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        let mut said = lock(said);
        let room = limits::COPY_COMPLAINT - said.len();
        said.extend_from_slice(&buffer[..read.min(room)]);
    }
}

fn text(said: &Mutex<Vec<u8>>) -> String {
    String::from_utf8_lossy(&lock(said)).trim().to_owned()
}

//! Local processes: in flow a command and the streams that it shall have, out comes the process
//! with their other ends.

use std::{
    io,
    os::unix::process::ExitStatusExt as _,
    pin::Pin,
    process::Stdio,
    sync::{Arc, Mutex},
    task::{Context, Poll},
};

use bytes::{BufMut as _, Bytes, BytesMut};
use pty_process::{OwnedWritePty, Size};
use rustix::process::Pid;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite},
    process::{Child, Command},
};

use crate::{
    error::panic::lock, session::remote_command::Streams, testing::tasks::Tasks,
    wire::resize::TerminalSize,
};

/// Bytes of output that are read at once, as container runtimes do.
const CHUNK: usize = 32 << 10;

const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

pub(super) type Reader = Box<dyn AsyncRead + Send + Unpin>;
pub(super) type Writer = Box<dyn AsyncWrite + Send + Unpin>;

/// A running process. Dropping it kills it.
pub(super) struct Process {
    pub(super) stdin: Option<Writer>,
    pub(super) stdout: Option<Reader>,
    pub(super) stderr: Option<Reader>,
    pub(super) terminal: Option<Terminal>,
    pub(super) wait: Wait,
}

/// Starts `command`, which must not be empty.
pub(super) fn start(
    command: &[String],
    env: &[(String, String)],
    hostname: &str,
    streams: Streams,
    size: Option<TerminalSize>,
    tasks: &Arc<Tasks>,
) -> io::Result<Process> {
    let (program, arguments) = command
        .split_first()
        .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
    tasks.expect();
    let mut command = Command::new(program);
    command
        .args(arguments)
        .env_clear()
        .env("PATH", PATH)
        .env("HOME", "/root")
        .env("HOSTNAME", hostname)
        .current_dir("/")
        .kill_on_drop(true);
    if streams.tty {
        command.env("TERM", "xterm");
    }
    command.envs(env.iter().map(|(name, value)| (name, value)));
    if streams.tty {
        return start_on_terminal(command, streams, size, tasks);
    }
    let stdin = match streams.stdin {
        true => Stdio::piped(),
        false => Stdio::null(),
    };
    // Output that nobody wants is read nevertheless, as by containerd.
    let mut child = command
        .process_group(0)
        .stdin(stdin)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    Ok(Process {
        stdin: child.stdin.take().map(|pipe| Box::new(pipe) as Writer),
        stdout: child.stdout.take().map(|pipe| Box::new(pipe) as Reader),
        stderr: child.stderr.take().map(|pipe| Box::new(pipe) as Reader),
        terminal: None,
        wait: Wait::new(child, tasks),
    })
}

fn start_on_terminal(
    command: Command,
    streams: Streams,
    size: Option<TerminalSize>,
    tasks: &Arc<Tasks>,
) -> io::Result<Process> {
    let plain = |error| match error {
        pty_process::Error::Io(error) => error,
        error => io::Error::other(error),
    };
    let (pty, pts) = pty_process::open().map_err(plain)?;
    if let Some(TerminalSize { width, height }) = size {
        pty.resize(Size::new(height, width)).map_err(plain)?;
    }
    let child = pty_process::Command::from(command)
        .spawn(pts)
        .map_err(plain)?;
    let (read, write) = pty.into_split();
    let terminal = Terminal(Arc::new(Mutex::new(write)));
    Ok(Process {
        stdin: streams.stdin.then(|| Box::new(terminal.clone()) as Writer),
        // Output is taken even where nobody wants it: a full terminal would stop the process.
        stdout: Some(Box::new(read)),
        stderr: None,
        terminal: Some(terminal),
        wait: Wait::new(child, tasks),
    })
}

pub(super) struct Wait {
    child: Child,
    group: Option<Pid>,
    tasks: Arc<Tasks>,
}

impl Wait {
    fn new(child: Child, tasks: &Arc<Tasks>) -> Self {
        // Every process here leads a group of its own, by `process_group` or by `setsid`.
        let group = child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
        if let Some(group) = group {
            tasks.watch(group);
        }
        Self {
            child,
            group,
            tasks: tasks.clone(),
        }
    }

    /// The processes that end with this one if they are told to.
    pub(super) fn group(&self) -> Option<Pid> {
        self.group
    }

    /// Waits for the exit code: 128 plus the number of the signal that ended it, as container
    /// runtimes count.
    pub(super) async fn code(&mut self) -> io::Result<i32> {
        let status = self.child.wait().await?;
        if let Some(group) = self.group.take() {
            self.tasks.reaped(group);
        }
        Ok(status
            .code()
            .unwrap_or_else(|| 128 + status.signal().unwrap_or_default()))
    }
}

/// The master's writing end of a terminal. The terminal is hung up when all its ends are gone.
#[derive(Clone)]
pub(super) struct Terminal(Arc<Mutex<OwnedWritePty>>);

impl Terminal {
    pub(super) fn resize(&self, TerminalSize { width, height }: TerminalSize) {
        let pty = lock(&self.0);
        if let Err(error) = pty.resize(Size::new(height, width)) {
            tracing::debug!(%error, "a terminal cannot be resized");
        }
    }
}

impl AsyncWrite for Terminal {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let mut pty = lock(&self.0);
        Pin::new(&mut *pty).poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// The next bytes of a process's output; `None` at its end.
pub(super) async fn chunk(reader: &mut Reader, buffer: &mut BytesMut) -> Option<Bytes> {
    buffer.reserve(CHUNK);
    match reader.read_buf(&mut buffer.limit(CHUNK)).await {
        // The end of a terminal is EIO.
        Ok(0) | Err(_) => None,
        Ok(_) => Some(buffer.split().freeze()),
    }
}

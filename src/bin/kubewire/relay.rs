//! A session and the standard streams of this process: in flow the handles of exec or attach, out
//! comes how the remote ended.

use std::{
    cell::Cell,
    future::{Future, poll_fn},
    io,
    pin::{Pin, pin},
    time::Duration,
};

use bytes::Bytes;
use futures_core::Stream;
use kubewire::{
    Error,
    attach::Attached,
    error::CallerError,
    exec::{Child, ChildStderr, ChildStdin, ChildStdout, ExitStatus, InputAtExit, TerminalSize},
};
use tokio::{io::AsyncWriteExt as _, time::timeout};

use crate::{
    failure::{Failure, Local as _, note},
    keys::{Keys, Request},
    signals::{Received, Signals},
    stdio::{Input, Output},
    target::Terminal,
    terminal::{self, RawMode},
};

/// How long input may wait to be taken before that is said.
const UNTAKEN: Duration = Duration::from_secs(20);

type Streams = (Option<ChildStdin>, Option<ChildStdout>, Option<ChildStderr>);

/// A session, of either verb.
pub(crate) trait Remote {
    type Exit: Clone;

    /// Whether the size of the terminal is told again after the start, so that the program draws its
    /// screen again.
    const REDRAWS: bool;

    /// What is said where the end came before that of the input.
    const UNREAD: &str;

    fn streams(&mut self) -> Streams;

    /// Waits for the end. Cancel safe.
    fn wait(&mut self) -> impl Future<Output = kubewire::Result<Self::Exit>>;

    /// What had become of the input by then.
    fn input(exit: &Self::Exit) -> InputAtExit;

    fn resize(&self, size: TerminalSize) -> kubewire::Result<()>;
}

macro_rules! remote {
    ($type:ty, $exit:ty, $ended:expr, $input:expr, $redraws:literal, $unread:literal) => {
        impl Remote for $type {
            type Exit = $exit;
            const REDRAWS: bool = $redraws;
            const UNREAD: &str = $unread;

            fn streams(&mut self) -> Streams {
                (self.stdin.take(), self.stdout.take(), self.stderr.take())
            }

            async fn wait(&mut self) -> kubewire::Result<$exit> {
                let exit = Self::wait(self).await?;
                Ok($ended(self, exit))
            }

            fn input(exit: &$exit) -> InputAtExit {
                $input(exit)
            }

            fn resize(&self, size: TerminalSize) -> kubewire::Result<()> {
                Self::resize(self, size)
            }
        }
    };
}
// containerd ends the input of a process whose output has ended (containerd#13934).
remote!(
    Child,
    ExitStatus,
    |_: &Child, exit| exit,
    ExitStatus::input_at_exit,
    false,
    "warning: the command ended before all its input was sent and ended. Where it was to read all, \
     its standard output may have ended first, with which the container runtime ends its input: keep \
     it open, as in sh -c 'cat >file; true'"
);
remote!(
    Attached,
    InputAtExit,
    |it: &Attached, ()| it.input_at_exit().unwrap_or_default(),
    InputAtExit::clone,
    true,
    "warning: the container ended before all its input was sent and ended"
);

/// Copies input and output until the remote has ended and all its output is written; gives how it
/// ended, or `None` if keys that were typed, those that `detach` among them, ended the session
/// alone. To be `quiet` is not to say that input is not taken.
pub(crate) async fn run<R: Remote>(
    mut remote: R,
    terminal: Option<Terminal>,
    detach: &[u8],
    quiet: bool,
) -> Result<Option<R::Exit>, Failure> {
    let quiet = quiet || terminal.is_some();
    let unusable = "the standard streams cannot be used";
    let (stdin, stdout, stderr) = remote.streams();
    let mut signals = Signals::new().local(unusable)?;
    let raw = terminal.filter(|terminal| terminal.raw);
    let entered = raw.map(|_| RawMode::enter()).transpose();
    let _raw = entered.local("the terminal cannot be put into raw mode")?;
    let mut size = terminal.map(|terminal| terminal.size);
    if let (Some(size), true) = (size, R::REDRAWS) {
        resize(&remote, size)?;
    }

    // What is not typed is passed on as it is.
    let keys = raw.map(|_| Keys::new(detach));
    let stdin = stdin.map(|stdin| io::Result::Ok((stdin, Input::start()?)));
    let stdin = stdin.transpose().local(unusable)?;
    let taken = Cell::new(0);
    let mut input = pin!(copy_in(stdin, keys, &taken, quiet));
    let stdout = copy_out(stdout, Output::stdout().local(unusable)?, "stdout");
    let stderr = copy_out(stderr, Output::stderr().local(unusable)?, "stderr");
    let mut outputs = pin!(async { tokio::try_join!(stdout, stderr) });

    let (mut reading, mut written, mut exit) = (true, None, None);
    loop {
        tokio::select! {
            signal = signals.next() => match signal {
                Received::End(number) => return Err(Failure::Signal(number)),
                Received::Window => if let Some(known) = &mut size {
                    let now = terminal::size();
                    if *known != now {
                        *known = now;
                        resize(&remote, now)?;
                    }
                },
            },
            result = &mut input, if reading => {
                match result? {
                    None => reading = false,
                    Some(Request::Detach) => {
                        note("detached");
                        return Ok(None);
                    }
                    Some(Request::GiveUp) => {
                        bail!("given up with ~. ; what runs there may go on");
                    }
                }
            }
            result = &mut outputs, if written.is_none() => written = Some(result?),
            result = remote.wait(), if exit.is_none() => exit = Some(result),
        }
        // What arrived before a failure is written before the failure is told.
        if let (Some(exit), Some(lost)) = (&exit, &written) {
            return match (exit, lost) {
                (Ok(exit), (None, None)) => {
                    if taken.get() > 0 && !quiet && !R::input(exit).is_whole() {
                        note(R::UNREAD);
                    }
                    Ok(Some(exit.clone()))
                }
                (Err(error), _) => Err(error.clone().into()),
                (Ok(_), (Some(error), _) | (None, Some(error))) => Err(error.clone().into()),
            };
        }
    }
}

fn resize(remote: &impl Remote, size: TerminalSize) -> kubewire::Result<()> {
    match remote.resize(size) {
        // Why it has ended is about to be known.
        Err(Error::Caller(CallerError::Ended)) => Ok(()),
        result => result,
    }
}

/// Copies stdin, and ends the remote's where that is possible; or gives what keys ask for. Counts
/// the bytes that it has `taken`.
async fn copy_in(
    stdin: Option<(ChildStdin, Input)>,
    mut keys: Option<Keys>,
    taken: &Cell<u64>,
    quiet: bool,
) -> Result<Option<Request>, Failure> {
    let Some((mut remote, mut local)) = stdin else {
        return Ok(None);
    };
    let mut is_told = quiet;
    while let Some(bytes) = local.next().await {
        let mut bytes = bytes.local("stdin cannot be read")?;
        if let Some(keys) = &mut keys {
            let (sent, request) = keys.take(&bytes);
            if request.is_some() {
                return Ok(request);
            }
            bytes = sent.into();
        }
        taken.set(taken.get() + bytes.len() as u64);
        let mut write = pin!(remote.write_all(&bytes));
        let written = match timeout(UNTAKEN, write.as_mut()).await {
            Ok(written) => written,
            Err(_) => {
                if !std::mem::replace(&mut is_told, true) {
                    note!(
                        "warning: no input has been taken for {} s: if the command has ended, \
                         its container runtime may never say so (containerd waits until all \
                         input is read)",
                        UNTAKEN.as_secs()
                    );
                }
                write.await
            }
        };
        // If the session has ended, its end is what there is to report.
        if written.is_err() {
            return Ok(None);
        }
    }
    let ended = remote.shutdown().await.err();
    if let Some(error @ Error::Caller(CallerError::HalfClose { .. })) =
        ended.as_ref().and_then(Error::of_io)
    {
        note!("warning: {error}; a command that reads its input to the end waits for ever");
    }
    Ok(None)
}

/// Copies one of the remote's output streams to its end, or to where it was lost, and says how.
async fn copy_out(
    remote: Option<impl Stream<Item = io::Result<Bytes>> + Unpin>,
    local: Output,
    name: &str,
) -> Result<Option<Error>, Failure> {
    let Some(mut remote) = remote else {
        return Ok(None);
    };
    let mut lost = None;
    while let Some(bytes) = poll_fn(|cx| Pin::new(&mut remote).poll_next(cx)).await {
        match bytes {
            Ok(bytes) => {
                if !local.write(bytes).await {
                    break;
                }
            }
            Err(error) => {
                lost = Some(error);
                break;
            }
        }
    }
    let failed = |error| Failure::stream(&format!("{name} cannot be written"), &error);
    local.finish().await.map_err(failed)?;
    match lost {
        None => Ok(None),
        Some(error) => match Error::of_io(&error) {
            Some(error) => Ok(Some(error.clone())),
            None => Err(error).local(format!("{name} cannot be read")),
        },
    }
}

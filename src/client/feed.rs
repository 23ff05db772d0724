//! Streams of a remote process without a handle: in flow the caller's reader and writers, out
//! flows what a task for each copies.

use std::{
    io,
    sync::{Arc, OnceLock},
};

use bytes::Bytes;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    task::JoinHandle,
};

use super::{
    ChildStderr, ChildStdin, ChildStdout,
    remote_command::Options,
    stdio::{Reader, Writer},
};
use crate::{
    Result,
    error::{CallerError, Error, panic::caught_in},
    limits,
    session::remote_command::Streams,
    transport::ws::remote_command::{Control, Input},
    wire::channel::Channel,
};

/// The readers and writers of this side, opened before the process starts, so that one that
/// cannot be had starts nothing.
#[derive(Default)]
pub(super) struct Ends {
    stdin: Option<Reader>,
    stdout: Option<Writer>,
    stderr: Option<Writer>,
}

impl Ends {
    pub(super) fn open(options: &Options) -> Result<Self> {
        Ok(Self {
            stdin: options.stdin.reader()?,
            stdout: options.stdout.writer(|| Box::pin(tokio::io::stdout()))?,
            stderr: options.stderr.writer(|| Box::pin(tokio::io::stderr()))?,
        })
    }
}

/// The streams of a session that are piped.
#[derive(Debug)]
pub(super) struct Handles {
    pub(super) stdin: Option<ChildStdin>,
    pub(super) stdout: Option<ChildStdout>,
    pub(super) stderr: Option<ChildStderr>,
}

impl Handles {
    /// They, and the tasks of the others.
    pub(super) fn new(
        control: &Control,
        options: &Options,
        streams: Streams,
        ends: Ends,
    ) -> (Self, Copies) {
        let mut copies = Copies::default();
        if let Some(from) = ends.stdin {
            copies.feed(control, from);
        }
        for (channel, to, asked) in [
            (Channel::Stdout, ends.stdout, streams.stdout),
            (Channel::Stderr, ends.stderr, streams.stderr),
        ] {
            if let (Some(to), true) = (to, asked) {
                copies.drain(control, channel, to);
            }
        }
        let stdin = streams.stdin && options.stdin.is_piped();
        let stdout = streams.stdout && options.stdout.is_piped();
        let stderr = streams.stderr && options.stderr.is_piped();
        let handles = Self {
            stdin: stdin.then(|| ChildStdin::new(control.output(Channel::Stdin))),
            stdout: stdout.then(|| ChildStdout::new(control.input(Channel::Stdout))),
            stderr: stderr.then(|| ChildStderr::new(control.input(Channel::Stderr))),
        };
        (handles, copies)
    }
}

/// The tasks that copy, and what went wrong with one. Dropping them gives the input up; output is
/// copied to the end of the session.
#[derive(Debug, Default)]
pub(super) struct Copies {
    failed: Arc<OnceLock<Error>>,
    stdin: Option<JoinHandle<()>>,
    outputs: Vec<JoinHandle<()>>,
}

impl Copies {
    fn feed(&mut self, control: &Control, from: Reader) {
        let mut to = ChildStdin::new(control.output(Channel::Stdin));
        let (control, failed) = (control.clone(), self.failed.clone());
        self.stdin = Some(tokio::spawn(async move {
            // It fails before `to` is dropped, with which the input would end in order.
            let fed = caught_in("the reader of stdin", feed(from, &mut to)).await;
            // What the process did not read before its end is no error.
            if let Err(error) = fed
                && !control.has_status()
            {
                fail(&control, &failed, error);
            }
        }));
    }

    fn drain(&mut self, control: &Control, channel: Channel, to: Writer) {
        let from = control.input(channel);
        let who = match channel {
            Channel::Stderr => "the writer of stderr",
            _ => "the writer of stdout",
        };
        let (control, failed) = (control.clone(), self.failed.clone());
        self.outputs.push(tokio::spawn(async move {
            if let Err(error) = caught_in(who, drain(from, to)).await {
                fail(&control, &failed, error);
            }
        }));
    }

    /// Gives up what is left of the input, and waits until the output has been written. `ended` is
    /// how the session ended; what a task did wrong comes first.
    ///
    /// Cancel safe.
    pub(super) async fn finish<T>(&mut self, ended: Result<T>) -> Result<T> {
        self.stop_input();
        if ended.is_ok() {
            while let Some(task) = self.outputs.last_mut() {
                // It has no result: its guard has said what went wrong.
                let _ = task.await;
                self.outputs.pop();
            }
        }
        self.result(ended)
    }

    /// [`finish`](Self::finish), if nothing is left to wait for.
    pub(super) fn try_finish<T>(&mut self, ended: Result<T>) -> Option<Result<T>> {
        self.stop_input();
        if ended.is_ok() && !self.outputs.iter().all(JoinHandle::is_finished) {
            return None;
        }
        Some(self.result(ended))
    }

    /// `ended`, unless a task has failed: then that.
    pub(super) fn result<T>(&self, ended: Result<T>) -> Result<T> {
        match self.failed.get() {
            Some(error) => Err(error.clone()),
            None => ended,
        }
    }

    fn stop_input(&mut self) {
        if let Some(task) = self.stdin.take() {
            task.abort();
        }
    }
}

impl Drop for Copies {
    fn drop(&mut self) {
        self.stop_input();
    }
}

/// Ends the session for what went wrong with a copy.
fn fail(control: &Control, failed: &OnceLock<Error>, error: Error) {
    let _ = failed.set(error);
    if !control.has_status() {
        control.close();
    }
}

/// Copies the input and closes stdin. Only errors of `from` are errors: why `to` takes no more, the
/// session says.
async fn feed(from: Reader, to: &mut ChildStdin) -> Result<()> {
    let mut from = BufReader::with_capacity(limits::INPUT_MESSAGE, from);
    loop {
        let bytes = from.fill_buf().await.map_err(of_stream)?;
        if bytes.is_empty() {
            break;
        }
        let Ok(taken) = to.write(bytes).await else {
            return Ok(());
        };
        from.consume(taken);
    }
    if !to.can_shutdown() {
        tracing::warn!(
            "the server lacks v5.channel.k8s.io: the process does not see its input end"
        );
    }
    let _ = to.shutdown().await;
    Ok(())
}

fn of_stream(error: io::Error) -> Error {
    CallerError::Stream(Arc::new(error)).into()
}

async fn drain(mut from: Input, mut to: Writer) -> Result<()> {
    while let Some(slice) = next_slice(&mut from).await? {
        to.write_all(&slice).await.map_err(of_stream)?;
        // What a person watches must not wait for more.
        to.flush().await.map_err(of_stream)?;
    }
    Ok(())
}

/// The next slice of an output, with the session's own error where it fails.
pub(super) async fn next_slice(from: &mut Input) -> Result<Option<Bytes>> {
    let next = std::future::poll_fn(|cx| from.poll_slice(cx)).await;
    next.transpose()
        .map_err(|error| Error::of_stream(error, CallerError::Stream))
}

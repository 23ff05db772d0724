//! The container's side of a copy: in flows a program to run there, out come its streams, joined to
//! a pipe, and how it ended.

use std::{future::poll_fn, io, pin::Pin, sync::Arc};

use bytes::Bytes;
use futures_core::Stream as _;
use futures_sink::Sink as _;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    sync::mpsc,
    task::JoinHandle,
};

use super::pipe::{PipeReader, pipe};
use crate::{
    KeepaliveConfig, Pod, Result,
    client::{ChildStderr, ChildStdin, ChildStdout, Exec, ExitStatus},
    error::{ApiError, CallerError, Error, NetworkError},
    limits,
};

/// The container.
#[derive(Debug, Clone)]
pub(super) struct Side {
    pub(super) pod: Pod,
    pub(super) container: Option<String>,
}

impl Side {
    pub(super) fn new(pod: &Pod) -> Self {
        Self {
            pod: pod.clone(),
            container: None,
        }
    }

    pub(super) fn exec<'a>(&self, command: impl IntoIterator<Item = &'a str>) -> Exec {
        // `tar` and `sha256sum` read what they are sent.
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

    /// Gives the archive of `name`, or of all that is in `directory`, to a thread.
    pub(super) async fn receive<T: Send + 'static>(
        &self,
        directory: &str,
        name: Option<&str>,
        job: impl FnOnce(PipeReader) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        // A name that begins with a dash is no option this way.
        let what = format!("./{}", name.unwrap_or_default());
        let mut child = self
            .exec(["tar", "-c", "-f", "-", "-C", directory, &what])
            .spawn()
            .await?;
        let (to, from) = pipe();
        let working = tokio::task::spawn_blocking(move || job(PipeReader::new(from)));
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let work = async {
            let pumped = pump(stdout, to).await;
            // Also after a failure, for the thread cleans up.
            let done = joined(working).await;
            let status = if pumped? {
                Some(child.wait().await?)
            } else {
                child.kill();
                None
            };
            Ok::<_, Error>((status, done))
        };
        let (done, complaint) = tokio::join!(work, complaint(stderr));
        let (status, done) = done?;
        if let Some(status) = status {
            self.judge(&status, "copy from", &complaint)?;
        }
        done
    }

    /// What it means how `tar` ended.
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
}

/// What a thread came to.
pub(super) async fn joined<T>(thread: JoinHandle<Result<T>>) -> Result<T> {
    match thread.await {
        Ok(done) => done,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime is shut down.
            Err(_) => Err(CallerError::Killed.into()),
        },
    }
}

pub(super) fn of_stream(error: io::Error) -> Error {
    match Error::of_io(&error) {
        Some(error) => error.clone(),
        None => NetworkError::Lost(Arc::new(error)).into(),
    }
}

pub(super) async fn send_all(to: &mut ChildStdin, bytes: Bytes) -> io::Result<()> {
    poll_fn(|cx| Pin::new(&mut *to).poll_ready(cx)).await?;
    Pin::new(to).start_send(bytes)
}

/// Sends all that comes, and the end.
pub(super) async fn feed(
    mut from: mpsc::Receiver<Bytes>,
    to: Option<ChildStdin>,
) -> io::Result<()> {
    let Some(mut to) = to else { return Ok(()) };
    while let Some(step) = from.recv().await {
        send_all(&mut to, step).await?;
    }
    to.shutdown().await
}

/// Hands on all that comes. `false` if nobody takes it any more.
async fn pump(from: Option<ChildStdout>, to: mpsc::Sender<Bytes>) -> Result<bool> {
    let Some(mut from) = from else {
        return Ok(true);
    };
    while let Some(bytes) = poll_fn(|cx| Pin::new(&mut from).poll_next(cx)).await {
        let mut bytes = bytes.map_err(of_stream)?;
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
    let mut kept = Vec::new();
    if let Some(mut from) = from {
        let bound = limits::COPY_COMPLAINT as u64;
        // How the session ended, its status says.
        let _ = (&mut from).take(bound).read_to_end(&mut kept).await;
        let _ = tokio::io::copy(&mut from, &mut tokio::io::sink()).await;
    }
    String::from_utf8_lossy(&kept).trim().to_owned()
}

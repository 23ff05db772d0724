//! Faults that a test injects: in flow a connection's bytes, out they come until the fault.

use std::{
    collections::VecDeque,
    io,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll, Waker, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::{error::panic::lock, wire::status::Status};

/// What goes wrong with a request; see [`ApiServer::inject`](crate::testing::ApiServer::inject).
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let server = kubewire::testing::ApiServer::builder()
/// #     .pod("default", "web-0", |pod| pod.container("main", ["sleep", "infinity"]))
/// #     .start()
/// #     .await?;
/// # let client = kubewire::Client::new(&server.config())?;
/// use kubewire::testing::Fault;
///
/// server.inject(Fault::CutAfter(1000));
/// let broken = client.pod("default", "web-0").exec(["seq", "100000"]).output().await;
/// assert!(broken.unwrap_err().is_retryable());
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Fault {
    /// The connection is cut, without any farewell, when this many bytes of the answer have been
    /// sent. The HTTP head of the answer counts, TLS does not.
    CutAfter(u64),
    /// When this many bytes of the answer have been sent, counted likewise, nothing is sent or
    /// read any more, and the connection stays open.
    StallAfter(u64),
    /// The request is refused with this Status and its code.
    Refuse(Box<Status>),
}

/// The faults of requests to come, one a request, or none of one that goes well.
#[derive(Debug)]
pub(super) struct Faults<T>(Mutex<VecDeque<Option<T>>>);

impl<T> Default for Faults<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T> Faults<T> {
    pub(super) fn push(&self, faults: impl IntoIterator<Item = Option<T>>) {
        lock(&self.0).extend(faults);
    }

    pub(super) fn clear(&self) {
        lock(&self.0).clear();
    }

    pub(super) fn next(&self) -> Option<T> {
        lock(&self.0).pop_front().flatten()
    }
}

const NEVER: u64 = u64::MAX;

#[derive(Debug)]
pub(super) struct Plan {
    /// Bytes that may still be sent.
    left: AtomicU64,
    cut: AtomicBool,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            left: AtomicU64::new(NEVER),
            cut: AtomicBool::new(false),
        }
    }
}

impl Plan {
    /// Lets the connection go after so many bytes: cut off, or else stalled.
    pub(super) fn fail_after(&self, bytes: u64, cut: bool) {
        self.cut.store(cut, Ordering::Relaxed);
        self.left.store(bytes, Ordering::Release);
    }

    /// How many of `wanted` bytes may be sent.
    fn allowed(&self, wanted: usize) -> usize {
        match self.left.load(Ordering::Acquire) {
            NEVER => wanted,
            left => wanted.min(usize::try_from(left).unwrap_or(usize::MAX)),
        }
    }

    fn sent(&self, bytes: usize) {
        // A connection is written by one task at a time.
        let left = self.left.load(Ordering::Acquire);
        if left != NEVER {
            self.left
                .store(left.saturating_sub(bytes as u64), Ordering::Release);
        }
    }
}

/// A connection that fails as its plan says.
pub(super) struct Faulty<S> {
    /// `None` once it is cut.
    io: Option<S>,
    plan: Arc<Plan>,
    reader: Option<Waker>,
}

impl<S> Faulty<S> {
    pub(super) fn new(io: S, plan: Arc<Plan>) -> Self {
        Self {
            io: Some(io),
            plan,
            reader: None,
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Faulty<S> {
    /// Whether the time of the fault has come, and then does what the plan says.
    fn poll_fault(&mut self) -> Poll<io::Result<&mut S>> {
        if self.plan.allowed(1) == 0 {
            if !self.plan.cut.load(Ordering::Relaxed) {
                return Poll::Pending;
            }
            self.io = None;
            if let Some(reader) = self.reader.take() {
                reader.wake();
            }
        }
        match &mut self.io {
            Some(io) => Poll::Ready(Ok(io)),
            None => Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Faulty<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = Pin::new(ready!(self.poll_fault())?).poll_read(cx, buf);
        if read.is_pending() {
            self.reader = Some(cx.waker().clone());
        }
        read
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Faulty<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let allowed = self.plan.allowed(buf.len());
        let io = ready!(self.poll_fault())?;
        let sent = ready!(Pin::new(io).poll_write(cx, &buf[..allowed]))?;
        self.plan.sent(sent);
        Poll::Ready(Ok(sent))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(ready!(self.poll_fault())?).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(ready!(self.poll_fault())?).poll_shutdown(cx)
    }
}

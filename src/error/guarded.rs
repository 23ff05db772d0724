//! A byte stream of the caller's: in it flows, out comes the same, whose panics are errors, so that
//! whoever drives it can say what they were and goes on.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::panic::{panicked, words};

/// The caller's.
pub(crate) struct Guarded<S>(Option<S>);

impl<S: Unpin> Guarded<S> {
    pub(crate) fn new(stream: S) -> Self {
        Self(Some(stream))
    }

    fn guard<T>(
        &mut self,
        work: impl FnOnce(Pin<&mut S>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        guard(|| match &mut self.0 {
            Some(stream) => work(Pin::new(stream)),
            None => Poll::Pending,
        })
    }
}

/// Polls what is the caller's.
pub(crate) fn guard<T>(work: impl FnOnce() -> Poll<io::Result<T>>) -> Poll<io::Result<T>> {
    let panicked = |message| panicked("the stream of the connection", message);
    words(work).unwrap_or_else(|message| Poll::Ready(Err(panicked(message).into())))
}

impl<S> Drop for Guarded<S> {
    fn drop(&mut self) {
        // Nobody is left to be told.
        let _ = words(|| drop(self.0.take()));
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Guarded<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.guard(|stream| stream.poll_read(cx, buf))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Guarded<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.guard(|stream| {
            stream
                .poll_write(cx, buf)
                .map(|taken| within(taken, buf.len()))
        })
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let length = bufs.iter().map(|buf| buf.len()).sum();
        self.guard(|stream| {
            let written = stream.poll_write_vectored(cx, bufs);
            written.map(|taken| within(taken, length))
        })
    }

    fn is_write_vectored(&self) -> bool {
        self.0.as_ref().is_some_and(AsyncWrite::is_write_vectored)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.guard(|stream| stream.poll_flush(cx))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.guard(|stream| stream.poll_shutdown(cx))
    }
}

/// What was written, if that can be.
fn within(taken: io::Result<usize>, length: usize) -> io::Result<usize> {
    let taken = taken?;
    match taken <= length {
        true => Ok(taken),
        false => panic!("it says that it wrote {taken} of {length} bytes"),
    }
}

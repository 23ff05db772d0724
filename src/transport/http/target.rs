//! The target of a request, as long as it is: in flows the head that hyper writes for `/`, out goes
//! the same with the real target.
//!
//! `http::Uri` holds 64 KiB, the arguments of a command can be longer, and API servers take heads
//! of 1 MiB (`net/http`, `DefaultMaxHeaderBytes`).

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use http::Method;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A connection on which the first request goes to another target than it says.
#[derive(Debug)]
pub(super) struct Retargeted<S> {
    stream: S,
    /// The method and the target, as far as they have not been written.
    line: Bytes,
    /// The bytes that they stand in place of.
    replaced: usize,
}

impl<S> Retargeted<S> {
    /// The request that is written as `method /` goes to `target`.
    pub(super) fn new(stream: S, method: &Method, target: &str) -> Self {
        Self {
            stream,
            line: format!("{method} {target}").into(),
            replaced: method.as_str().len() + " /".len(),
        }
    }

    pub(super) fn into_inner(self) -> S {
        self.stream
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Retargeted<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Retargeted<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        while this.line.has_remaining() {
            match ready!(Pin::new(&mut this.stream).poll_write(cx, &this.line))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written => this.line.advance(written),
            }
        }
        if this.replaced > 0 {
            let skipped = this.replaced.min(buf.len());
            this.replaced -= skipped;
            return Poll::Ready(Ok(skipped));
        }
        Pin::new(&mut this.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

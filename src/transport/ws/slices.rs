//! The streams of sessions as tokio has them: in flow a type's slices, out come `AsyncRead` and
//! `AsyncBufRead` of it, and those of the public types around it.

/// Implements both for a type with `poll_slice`, and a field `current` for the slice that is being
/// read; `$next` gives one that has been taken already, so that a read takes many small ones.
macro_rules! read_slices {
    ($name:ty, $next:expr) => {
        impl tokio::io::AsyncBufRead for $name {
            fn poll_fill_buf(
                self: std::pin::Pin<&mut Self>,
                cx: &mut std::task::Context<'_>,
            ) -> std::task::Poll<std::io::Result<&[u8]>> {
                let this = self.get_mut();
                if this.current.is_empty() {
                    match std::task::ready!(this.poll_slice(cx)) {
                        Some(slice) => this.current = slice?,
                        None => return std::task::Poll::Ready(Ok(&[])),
                    }
                }
                std::task::Poll::Ready(Ok(&this.current))
            }

            fn consume(mut self: std::pin::Pin<&mut Self>, amount: usize) {
                bytes::Buf::advance(&mut self.current, amount);
            }
        }

        impl tokio::io::AsyncRead for $name {
            fn poll_read(
                mut self: std::pin::Pin<&mut Self>,
                cx: &mut std::task::Context<'_>,
                buf: &mut tokio::io::ReadBuf<'_>,
            ) -> std::task::Poll<std::io::Result<()>> {
                use tokio::io::AsyncBufRead as _;
                let next: fn(&mut Self) -> Option<bytes::Bytes> = $next;
                std::task::ready!(self.as_mut().poll_fill_buf(cx))?;
                let this = self.get_mut();
                loop {
                    let amount = this.current.len().min(buf.remaining());
                    buf.put_slice(&this.current[..amount]);
                    bytes::Buf::advance(&mut this.current, amount);
                    if buf.remaining() == 0 {
                        break;
                    }
                    match next(this) {
                        Some(slice) => this.current = slice,
                        None => break,
                    }
                }
                std::task::Poll::Ready(Ok(()))
            }
        }
    };
}

/// Implements both, and `Stream`, for a type around one with [`read_slices`] and `poll_next`.
macro_rules! slices_inner {
    ($name:ty) => {
        crate::delegate::read_inner!($name);

        impl tokio::io::AsyncBufRead for $name {
            fn poll_fill_buf(
                self: std::pin::Pin<&mut Self>,
                cx: &mut std::task::Context<'_>,
            ) -> std::task::Poll<std::io::Result<&[u8]>> {
                std::pin::Pin::new(&mut self.get_mut().0).poll_fill_buf(cx)
            }

            fn consume(mut self: std::pin::Pin<&mut Self>, amount: usize) {
                std::pin::Pin::new(&mut self.0).consume(amount);
            }
        }

        impl futures_core::Stream for $name {
            type Item = std::io::Result<bytes::Bytes>;

            fn poll_next(
                mut self: std::pin::Pin<&mut Self>,
                cx: &mut std::task::Context<'_>,
            ) -> std::task::Poll<Option<std::io::Result<bytes::Bytes>>> {
                self.0.poll_next(cx)
            }
        }
    };
}

/// Implements `AsyncWrite`, and `Sink` of [`Bytes`](bytes::Bytes), for a type around an output of a
/// session; `$end` is what is done to shut it down.
macro_rules! sink_inner {
    ($name:ty, $end:ident) => {
        crate::delegate::write_inner!($name, $end);

        impl futures_sink::Sink<bytes::Bytes> for $name {
            type Error = std::io::Error;

            fn poll_ready(
                self: std::pin::Pin<&mut Self>,
                cx: &mut std::task::Context<'_>,
            ) -> std::task::Poll<std::io::Result<()>> {
                self.0.poll_ready(cx)
            }

            fn start_send(
                self: std::pin::Pin<&mut Self>,
                item: bytes::Bytes,
            ) -> std::io::Result<()> {
                self.0.send(item)
            }

            fn poll_flush(
                self: std::pin::Pin<&mut Self>,
                cx: &mut std::task::Context<'_>,
            ) -> std::task::Poll<std::io::Result<()>> {
                tokio::io::AsyncWrite::poll_flush(self, cx)
            }

            fn poll_close(
                self: std::pin::Pin<&mut Self>,
                cx: &mut std::task::Context<'_>,
            ) -> std::task::Poll<std::io::Result<()>> {
                tokio::io::AsyncWrite::poll_shutdown(self, cx)
            }
        }
    };
}

pub(super) use read_slices;
pub(crate) use {sink_inner, slices_inner};

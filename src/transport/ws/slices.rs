//! Reading what arrives as slices: in flow a type's slices, out come `AsyncRead` and
//! `AsyncBufRead` of it.

/// Implements both for a type with `poll_slice`, and a field `current` for the slice that is being
/// read.
macro_rules! read_slices {
    ($name:ty) => {
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
                let available = std::task::ready!(self.as_mut().poll_fill_buf(cx))?;
                let amount = available.len().min(buf.remaining());
                buf.put_slice(&available[..amount]);
                self.consume(amount);
                std::task::Poll::Ready(Ok(()))
            }
        }
    };
}

pub(super) use read_slices;

//! A forwarded connection and a local socket, copied into each other.
//!
//! In flow the bytes of both; out come the same bytes on the other side, and each side's end. What
//! arrives on the forwarded connection is written to the socket from where it was read to; what
//! the socket sends is read into a buffer that is masked in place and sent.

use std::{
    future::poll_fn,
    io,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
};

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use super::port_forward::ForwardStream;
use crate::{error::Error, limits};

/// What a read buffer begins with, in bytes.
const SMALL: usize = 2 << 10;

/// Copies until both directions have ended, or one has broken: then the other end sees that, too.
///
/// Without half-close nobody can tell the application that the socket has finished, and nobody can
/// tell a socket that only finished from one that was closed. Such a connection ends when the
/// application does, or has sent nothing for [`limits::FORWARD_LINGER`].
///
/// If the future is dropped, the forwarded connection is reset: its other end must not take what
/// is cut off for the whole.
pub(crate) async fn relay<S>(stream: ForwardStream, socket: S) -> Result<(), Error>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut unfinished = Unfinished(Some(stream));
    let (mut read, mut write) = tokio::io::split(socket);
    let outcome = {
        let Some(stream) = &unfinished.0 else {
            return Ok(());
        };
        let (finished, received) = (AtomicBool::new(false), AtomicUsize::new(0));
        let up = async {
            let mut size = SMALL;
            loop {
                // A buffer of its own for each read, so that it can be masked where it is.
                let mut buffer = BytesMut::with_capacity(size);
                match read.read_buf(&mut buffer).await {
                    Ok(0) => {
                        finished.store(true, Relaxed);
                        return stream.finish();
                    }
                    Ok(length) => {
                        size = match length == size {
                            true => (size * 4).min(limits::SPDY_DATA),
                            false => size,
                        };
                        stream.send(buffer.freeze()).await?;
                    }
                    Err(error) => return Err(broken(error)),
                }
            }
        };
        let down = async {
            while let Some(payload) = poll_fn(|cx| stream.poll_payload(cx)).await {
                let payload = payload.map_err(|error| match Error::of_io(&error) {
                    Some(known) => known.clone(),
                    None => broken(error),
                })?;
                received.fetch_add(payload.len(), Relaxed);
                write.write_all(&payload).await.map_err(broken)?;
            }
            write.shutdown().await.map_err(broken)
        };
        let lingered = async {
            let mut before = None;
            while before != Some(received.load(Relaxed)) {
                before = finished.load(Relaxed).then(|| received.load(Relaxed));
                tokio::time::sleep(limits::FORWARD_LINGER).await;
            }
        };
        tokio::select! {
            biased;
            outcome = async { tokio::try_join!(up, down) } => outcome.map(drop),
            () = lingered, if !stream.has_half_close() => Ok(()),
        }
    };
    if outcome.is_ok() {
        unfinished.0 = None;
    }
    outcome
}

/// A connection whose bytes have not all been copied.
struct Unfinished(Option<ForwardStream>);

impl Drop for Unfinished {
    fn drop(&mut self) {
        if let Some(stream) = &mut self.0 {
            stream.abort();
        }
    }
}

fn broken(error: io::Error) -> Error {
    crate::error::NetworkError::Lost(std::sync::Arc::new(error)).into()
}

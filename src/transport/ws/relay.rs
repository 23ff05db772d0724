//! A forwarded connection and a local socket, copied into each other.
//!
//! In flow the bytes of both; out come the same bytes on the other side, and each side's end. What
//! arrives on the forwarded connection is written to the socket from where it was read to; what
//! the socket sends is read into a buffer that is masked in place and sent.

use std::{
    collections::VecDeque,
    future::poll_fn,
    io,
    sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
};

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use super::{
    port_forward::ForwardStream,
    websocket::{advance, vectors},
};
use crate::{
    error::{CallerError, Error},
    limits,
};

/// What a read buffer begins with, in bytes, and goes back to when little is read.
const SMALL: usize = 2 << 10;
/// Bytes that are taken at once to be written to the socket, about.
const WRITE: usize = 128 << 10;

#[derive(Debug, Default)]
pub(crate) struct Copied {
    /// From the socket to the forwarded connection.
    pub(crate) sent: AtomicU64,
    /// To the socket.
    pub(crate) received: AtomicU64,
}

/// Copies until both directions have ended, or one has broken: then the other end sees that, too.
///
/// Without half-close nobody can tell the application that the socket has finished, and nobody can
/// tell a socket that only finished from one that was closed. Such a connection ends when the
/// application does, or has sent nothing for [`limits::FORWARD_LINGER`].
///
/// If the future is dropped, the forwarded connection is reset: its other end must not take what
/// is cut off for the whole.
pub(crate) async fn relay<S>(stream: ForwardStream, socket: S, copied: &Copied) -> Result<(), Error>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut unfinished = Unfinished(Some(stream));
    let (mut read, mut write) = tokio::io::split(socket);
    let outcome = {
        let Some(stream) = &unfinished.0 else {
            return Ok(());
        };
        let (finished, received) = (AtomicBool::new(false), &copied.received);
        let reset = AtomicBool::new(false);
        let up = async {
            let mut size = SMALL;
            loop {
                // A buffer of its own for each read, so that it can be masked where it is.
                let mut buffer = BytesMut::with_capacity(size);
                let length = read.read_buf(&mut buffer).await.map_err(of_socket)?;
                if length == 0 {
                    // The system tells of a reset once: to who wrote. This is no end in order then.
                    if !reset.load(Relaxed) {
                        finished.store(true, Relaxed);
                        stream.finish()?;
                    }
                    return Ok(None);
                }
                size = match length == size {
                    true => (size * 4).min(limits::FORWARD_SEND),
                    false => (size / 2).max(SMALL),
                };
                if let Err(error) = stream.send(buffer.freeze()).await {
                    return Ok(Some(error));
                }
                copied.sent.fetch_add(length as u64, Relaxed);
            }
        };
        let down = async {
            let mut queue = VecDeque::new();
            while let Some(first) = poll_fn(|cx| stream.poll_payloads(cx, &mut queue, WRITE)).await
            {
                queue.push_front(first.map_err(Error::of_connection)?);
                if let Err(error) = write_all(&mut write, &mut queue, received).await {
                    reset.store(true, Relaxed);
                    return Ok(Some(of_socket(error)));
                }
            }
            Ok(write.shutdown().await.map_err(of_socket).err())
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
            outcome = both(up, down) => outcome,
            () = lingered, if !stream.has_half_close() => Ok(()),
        }
    };
    match &outcome {
        Ok(()) => unfinished.0 = None,
        Err(error) => unfinished.fail(error),
    }
    outcome
}

/// The connection to the cluster has nothing to do with it.
fn of_socket(error: io::Error) -> Error {
    Error::of_stream(error, CallerError::Stream)
}

/// Writes the queue to its end, as many slices at once as may be.
async fn write_all(
    write: &mut (impl AsyncWrite + Unpin),
    queue: &mut VecDeque<Bytes>,
    written: &AtomicU64,
) -> io::Result<()> {
    while !queue.is_empty() {
        let (slices, used) = vectors(queue);
        let length = write.write_vectored(&slices[..used]).await?;
        if length == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        written.fetch_add(length as u64, Relaxed);
        advance(queue, length);
    }
    // It may keep what it was given until then.
    write.flush().await
}

/// Waits for both directions. One that cannot hand on its bytes says so and leaves the other to
/// what had arrived there before: an answer whose sender reads no more is still an answer. One that
/// is an error has nothing more to read, and ends both.
async fn both(
    up: impl Future<Output = Result<Option<Error>, Error>>,
    down: impl Future<Output = Result<Option<Error>, Error>>,
) -> Result<(), Error> {
    let (up, down) = tokio::try_join!(up, down)?;
    up.or(down).map_or(Ok(()), Err)
}

/// Joins a connection of a client to one that this side has opened, until both directions have
/// ended or one has broken: then the other end sees that, with the words of `far` for it.
///
/// If the future is dropped, both are reset.
#[cfg(all(feature = "client", feature = "server"))]
pub(crate) async fn splice(
    near: ForwardStream,
    far: ForwardStream,
    copied: &Copied,
) -> Result<(), Error> {
    let (mut near, mut far) = (Unfinished(Some(near)), Unfinished(Some(far)));
    let outcome = {
        let (Some(near), Some(far)) = (&near.0, &far.0) else {
            return Ok(());
        };
        let up = pass(near, far, &copied.sent);
        let down = pass(far, near, &copied.received);
        both(up, down).await
    };
    match &outcome {
        Ok(()) => (near.0, far.0) = (None, None),
        Err(error) => near.fail(error),
    }
    outcome
}

#[cfg(all(feature = "client", feature = "server"))]
async fn pass(
    from: &ForwardStream,
    to: &ForwardStream,
    bytes: &AtomicU64,
) -> Result<Option<Error>, Error> {
    while let Some(payload) = poll_fn(|cx| from.poll_payload(cx)).await {
        let payload = payload.map_err(Error::of_connection)?;
        let length = payload.len();
        if let Err(error) = to.send(payload).await {
            return Ok(Some(error));
        }
        bytes.fetch_add(length as u64, Relaxed);
    }
    to.finish().map(|()| None)
}

/// A connection whose bytes have not all been copied.
struct Unfinished(Option<ForwardStream>);

impl Unfinished {
    /// Resets it behind what it was given; the client of a server is told why.
    fn fail(&mut self, error: &Error) {
        if let Some(stream) = self.0.take() {
            let status = error.status().map(|status| status.message.clone());
            stream.fail(&status.unwrap_or_else(|| error.to_string()));
        }
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if let Some(stream) = self.0.take() {
            stream.fail("");
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex},
        task::JoinHandle,
        time::{Instant, sleep},
    };

    use super::*;
    use crate::{
        Role,
        session::port_forward::{Channels, ForwardConfig},
        transport::ws::{port_forward::Connections, websocket::Socket},
        wire::channel::Encoding,
    };

    /// A relay over channels: its local end, the server's end, and how it goes.
    async fn over_channels() -> (DuplexStream, ForwardStream, JoinHandle<Result<(), Error>>) {
        let session = |role| {
            let (config, now) = (ForwardConfig::default(), crate::transport::now());
            Channels::new(role, Encoding::Binary, &[80], config, now).map(Box::new)
        };
        let (near, far) = duplex(4096);
        let near = Box::new(Socket::new(near, Role::Client, BytesMut::new()));
        let far = Box::new(Socket::new(far, Role::Server, BytesMut::new()));
        let server = Connections::spawn(session(Role::Server).unwrap(), far);
        let client = session(Role::Client).unwrap();
        let client = Connections::spawn_opened(client, near, false, 80).unwrap();
        let (incoming, _) = server.accept().await.unwrap();
        let (local, socket) = duplex(1 << 20);
        let relaying = tokio::spawn(async move { relay(client, socket, &Copied::default()).await });
        (local, incoming, relaying)
    }

    #[tokio::test(start_paused = true)]
    async fn without_half_close_a_closed_socket_ends_its_connection_after_a_while() {
        let (local, mut application, relaying) = over_channels().await;
        let begin = Instant::now();
        drop(local);
        relaying.await.unwrap().unwrap();
        let waited = begin.elapsed();
        assert!(waited >= limits::FORWARD_LINGER && waited < 3 * limits::FORWARD_LINGER);
        assert!(application.read_u8().await.is_err(), "it is told");
    }

    #[tokio::test(start_paused = true)]
    async fn without_half_close_a_slow_answer_is_waited_for() {
        let (mut local, mut application, relaying) = over_channels().await;
        local.shutdown().await.unwrap();
        let mut answer = [0; 2];
        for at in 0..10 {
            sleep(limits::FORWARD_LINGER * 9 / 10).await;
            application.write_all(&[at, at]).await.unwrap();
            local.read_exact(&mut answer).await.unwrap();
            assert_eq!(answer, [at, at]);
        }
        application.shutdown().await.unwrap();
        assert_eq!(local.read(&mut answer).await.unwrap(), 0);
        relaying.await.unwrap().unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_socket_said_before_it_stopped_reading_is_sent() {
        let (mut local, mut application, relaying) = over_channels().await;
        let answer = vec![7; 600 << 10];
        local.write_all(&answer).await.unwrap();
        // Whoever hands it on finds out before all of the answer has been read.
        application
            .write_all(b"more of the question")
            .await
            .unwrap();
        drop(local);
        let mut said = Vec::new();
        let _ = application.read_to_end(&mut said).await;
        assert!(said == answer, "{} bytes came", said.len());
        assert!(relaying.await.unwrap().is_err());
    }
}

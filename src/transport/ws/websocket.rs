//! One WebSocket over one socket: in flow the socket's bytes and the messages to send, out come
//! whole messages whose payloads are slices of the read buffer.
//!
//! [`Socket`] is the hot path: its read buffer grows while data flows and shrinks when it stops,
//! and what it sends is masked in place where nobody else holds the bytes. [`MessageSocket`] is a
//! WebSocket that someone else connected, message by message.

use std::{
    collections::VecDeque,
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf as _, BufMut, Bytes, BytesMut};
use futures_core::Stream;
use futures_sink::Sink;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::{
    Role,
    error::{Error, PeerError, guarded::guard},
    limits,
    session::{Message, Opcode, Transmit},
    wire::websocket::{Decoder, FrameHeader, MAX_HEADER, apply_mask, masked_copy},
};

/// What a reading buffer begins with, and goes back to when nothing flows.
const SMALL_READ: usize = 1 << 10;
/// What it grows to: larger ones do not pay (see `docs/ARCHITECTURE.md`).
const LARGE_READ: usize = 128 << 10;
/// Payloads up to this are copied behind their header; longer ones are written from where they
/// are.
const GATHER: usize = 2 << 10;
/// The masking key of a client's message.
type Mask = Option<[u8; 4]>;
/// Buffers handed to one vectored write.
const VECTORS: usize = 16;

/// What one vectored write is handed of a queue, and how many slices that are.
pub(super) fn vectors(queue: &VecDeque<Bytes>) -> ([IoSlice<'_>; VECTORS], usize) {
    let mut slices = [IoSlice::new(&[]); VECTORS];
    for (slice, bytes) in slices.iter_mut().zip(queue) {
        *slice = IoSlice::new(bytes);
    }
    (slices, queue.len().min(VECTORS))
}

/// Takes off a queue what has been written of it.
pub(super) fn advance(queue: &mut VecDeque<Bytes>, mut written: usize) {
    while let Some(front) = queue.front_mut() {
        let part = written.min(front.len());
        front.advance(part);
        written -= part;
        if !front.is_empty() {
            break;
        }
        queue.pop_front();
    }
}

/// What a session is driven over.
pub(crate) trait WebSocket: Send {
    /// The next message that needs no reading from the socket.
    fn buffered(&mut self) -> Result<Option<Message>, Error>;

    /// Reads once. `Ok(false)` is the end of the connection.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<Result<bool, Error>>;

    fn send(&mut self, transmit: Transmit);

    /// Queues a copy of `payload` as a binary message behind a prefix.
    fn send_copy(&mut self, prefix: u8, payload: &[u8]) {
        self.send(Transmit {
            opcode: Opcode::Binary,
            prefix: Some(prefix),
            payload: Bytes::copy_from_slice(payload),
        });
    }

    fn pending(&self) -> usize;

    /// Writes all that is queued.
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// Ends this side's direction.
    fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// Gives back the memory that only flowing data needs.
    fn shrink(&mut self);
}

/// A WebSocket over a byte stream of our own.
#[derive(Debug)]
pub(crate) struct Socket<S> {
    io: S,
    role: Role,
    decoder: Decoder,
    input: BytesMut,
    /// Bytes of a new buffer.
    read_size: usize,
    /// Bytes that one read may bring.
    window: usize,
    /// Headers and short payloads that are not in `output` yet.
    staged: BytesMut,
    output: VecDeque<Bytes>,
    pending: usize,
}

impl<S> Socket<S> {
    /// A WebSocket over `io`, after its handshake; `read` was read behind the handshake already.
    pub(crate) fn new(io: S, role: Role, read: BytesMut) -> Self {
        Self {
            io,
            role,
            decoder: Decoder::new(role, limits::MESSAGE),
            input: read,
            read_size: SMALL_READ,
            window: SMALL_READ,
            staged: BytesMut::new(),
            output: VecDeque::new(),
            pending: 0,
        }
    }

    /// Begins a message in `out`, with its prefix: its mask, and the length of the prefix.
    fn begin(
        role: Role,
        out: &mut impl BufMut,
        opcode: Opcode,
        prefix: Option<u8>,
        payload: usize,
    ) -> (Mask, usize) {
        let prefixed = usize::from(prefix.is_some());
        let mask = match role {
            Role::Client => Some(rand::random::<[u8; 4]>()),
            Role::Server => None,
        };
        let length = prefixed + payload;
        FrameHeader {
            fin: true,
            opcode,
            mask,
            length: length as u64,
        }
        .encode(out);
        if let Some(prefix) = prefix {
            out.put_u8(prefix ^ mask.map_or(0, |key| key[0]));
        }
        (mask, prefixed)
    }

    /// Queues a message whose payload is copied.
    fn stage(&mut self, opcode: Opcode, prefix: Option<u8>, payload: &[u8]) {
        if self.role == Role::Client && payload.len() > GATHER {
            let mut head = [0; MAX_HEADER + 1];
            let mut rest = &mut head[..];
            let (mask, prefixed) = Self::begin(self.role, &mut rest, opcode, prefix, payload.len());
            let used = MAX_HEADER + 1 - rest.len();
            let message = masked_copy(&head[..used], payload, mask.unwrap_or_default(), prefixed);
            self.pending += message.len();
            self.seal();
            self.output.push_back(message);
            return;
        }
        let before = self.staged.len();
        self.staged.reserve(MAX_HEADER + 1 + payload.len());
        let (mask, prefixed) =
            Self::begin(self.role, &mut self.staged, opcode, prefix, payload.len());
        let begin = self.staged.len();
        self.staged.extend_from_slice(payload);
        if let Some(key) = mask {
            apply_mask(&mut self.staged[begin..], key, prefixed);
        }
        self.pending += self.staged.len() - before;
    }

    fn seal(&mut self) {
        if !self.staged.is_empty() {
            self.output.push_back(self.staged.split().freeze());
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> WebSocket for Socket<S> {
    #[inline]
    fn buffered(&mut self) -> Result<Option<Message>, Error> {
        Ok(self
            .decoder
            .decode(&mut self.input)
            .map_err(PeerError::from)?)
    }

    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<Result<bool, Error>> {
        // A frame that has begun goes on where it is if it fits, else it moves to a new buffer:
        // the only copy of a payload on this path.
        let spare = self.input.capacity() - self.input.len();
        let missing = self.decoder.missing(&self.input);
        let wanted = if missing > 0 {
            missing
        } else {
            self.read_size / 4
        };
        if spare < wanted {
            self.input.reserve(missing.max(self.read_size));
        }
        let spare = self.input.capacity() - self.input.len();
        // rustls fills what it is given with zeros first, and has a record of 16 KiB at a time.
        let room = spare.min(self.window.max(missing));
        let io = Pin::new(&mut self.io);
        let mut input = (&mut self.input).limit(room);
        let read = ready!(tokio_util::io::poll_read_buf(io, cx, &mut input));
        let read = read.map_err(Error::of_connection)?;
        if read == room {
            self.window = (room * 4).clamp(SMALL_READ, LARGE_READ);
            // Only what fills it makes the buffer larger: a session that idles after a few bytes
            // has a small one.
            self.read_size = self.read_size.max(self.window);
        } else {
            let rounded = (read + 1).next_multiple_of(4 << 10);
            self.window = (self.window / 2).max(rounded).min(LARGE_READ);
        }
        Poll::Ready(Ok(read > 0))
    }

    fn send(&mut self, transmit: Transmit) {
        let Transmit {
            opcode,
            prefix,
            payload,
        } = transmit;
        if payload.len() <= GATHER {
            return self.stage(opcode, prefix, &payload);
        }
        let before = self.staged.len();
        let payload = match self.role {
            Role::Server => {
                Self::begin(self.role, &mut self.staged, opcode, prefix, payload.len());
                payload
            }
            Role::Client => match payload.try_into_mut() {
                Ok(mut own) => {
                    let (mask, prefixed) =
                        Self::begin(self.role, &mut self.staged, opcode, prefix, own.len());
                    if let Some(key) = mask {
                        apply_mask(&mut own, key, prefixed);
                    }
                    own.freeze()
                }
                // Somebody else holds it: it stays as it is.
                Err(shared) => return self.stage(opcode, prefix, &shared),
            },
        };
        self.pending += self.staged.len() - before + payload.len();
        self.seal();
        self.output.push_back(payload);
    }

    fn send_copy(&mut self, prefix: u8, payload: &[u8]) {
        self.stage(Opcode::Binary, Some(prefix), payload);
    }

    fn pending(&self) -> usize {
        self.pending
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.seal();
        while let Some(front) = self.output.front() {
            let io = Pin::new(&mut self.io);
            let written = if self.output.len() == 1 {
                ready!(io.poll_write(cx, front))?
            } else {
                let (slices, used) = vectors(&self.output);
                ready!(io.poll_write_vectored(cx, &slices[..used]))?
            };
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.pending -= written;
            advance(&mut self.output, written);
        }
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn shrink(&mut self) {
        self.read_size = SMALL_READ;
        self.window = SMALL_READ;
        if self.input.is_empty() {
            self.input = BytesMut::new();
        }
        if self.output.is_empty() && self.staged.is_empty() {
            self.staged = BytesMut::new();
            self.output = VecDeque::new();
        }
    }
}

/// A WebSocket of another library, turned into ours a message at a time.
///
/// `T` is its stream and sink. The functions translate; what the other side has no word for is
/// skipped (`None`). The answer to a close frame is the library's: all of them either give it
/// themselves, and take ours for an error, or give it when they are closed.
pub(crate) struct MessageSocket<T, M, E> {
    inner: T,
    incoming: fn(M) -> Option<Message>,
    outgoing: fn(Message) -> Option<M>,
    failure: fn(E) -> Error,
    ready: VecDeque<Message>,
    output: VecDeque<M>,
    pending: usize,
    unflushed: bool,
    /// Whether the peer's close frame has arrived.
    closed: bool,
}

impl<T, M, E> MessageSocket<T, M, E> {
    pub(crate) fn new(
        inner: T,
        incoming: fn(M) -> Option<Message>,
        outgoing: fn(Message) -> Option<M>,
        failure: fn(E) -> Error,
    ) -> Self {
        Self {
            inner,
            incoming,
            outgoing,
            failure,
            ready: VecDeque::new(),
            output: VecDeque::new(),
            pending: 0,
            unflushed: false,
            closed: false,
        }
    }

    fn poll_sent(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>
    where
        T: Sink<M, Error = E> + Unpin,
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        while !self.output.is_empty() {
            ready!(Pin::new(&mut self.inner).poll_ready(cx)).map_err(io::Error::other)?;
            if let Some(message) = self.output.pop_front() {
                self.unflushed = true;
                Pin::new(&mut self.inner)
                    .start_send(message)
                    .map_err(io::Error::other)?;
            }
        }
        if self.unflushed {
            ready!(Pin::new(&mut self.inner).poll_flush(cx)).map_err(io::Error::other)?;
            self.unflushed = false;
        }
        self.pending = 0;
        Poll::Ready(Ok(()))
    }
}

impl<T, M, E> WebSocket for MessageSocket<T, M, E>
where
    T: Stream<Item = Result<M, E>> + Sink<M, Error = E> + Send + Unpin,
    M: Send,
    E: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    fn buffered(&mut self) -> Result<Option<Message>, Error> {
        Ok(self.ready.pop_front())
    }

    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<Result<bool, Error>> {
        let next = guard(|| Pin::new(&mut self.inner).poll_next(cx).map(Ok));
        match ready!(next).map_err(Error::of_connection)? {
            Some(Ok(message)) => {
                let message = (self.incoming)(message);
                self.closed |= matches!(message, Some(Message::Close(_)));
                self.ready.extend(message);
                Poll::Ready(Ok(true))
            }
            Some(Err(error)) => Poll::Ready(Err((self.failure)(error))),
            None => Poll::Ready(Ok(false)),
        }
    }

    fn send(&mut self, transmit: Transmit) {
        let message = match transmit.opcode {
            Opcode::Close if self.closed => None,
            _ => (self.outgoing)(transmit.to_message()),
        };
        match message {
            Some(message) => {
                self.pending += transmit.len();
                self.output.push_back(message);
            }
            // What the library says instead may still be in its buffer.
            None => self.unflushed = true,
        }
    }

    fn pending(&self) -> usize {
        self.pending
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        guard(|| self.poll_sent(cx))
    }

    fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let closed = guard(|| Pin::new(&mut self.inner).poll_close(cx).map(Ok));
        closed.map(|closed| closed?.map_err(io::Error::other))
    }

    fn shrink(&mut self) {}
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::AsyncReadExt as _;

    use super::*;

    #[tokio::test]
    async fn messages_arrive_as_they_were_however_they_were_queued() {
        for role in [Role::Client, Role::Server] {
            let (near, mut far) = tokio::io::duplex(1 << 20);
            let mut socket = Socket::new(near, role, BytesMut::new());
            let mut expected = Vec::new();
            for length in [
                0,
                1,
                7,
                GATHER,
                GATHER + 1,
                GATHER + 64,
                12 << 10,
                (65 << 10) + 5,
            ] {
                let payload: Vec<u8> = (0..length).map(|n| (n % 251) as u8).collect();
                let mut message = vec![2];
                message.extend_from_slice(&payload);
                expected.extend([message.clone(), message.clone(), message]);
                socket.send_copy(2, &payload);
                let transmit = |payload| Transmit {
                    opcode: Opcode::Binary,
                    prefix: Some(2),
                    payload,
                };
                socket.send(transmit(Bytes::from(payload.clone())));
                // Somebody else still holds this one: it must stay as it is.
                let shared = Bytes::from(payload.clone());
                socket.send(transmit(shared.clone()));
                assert_eq!(shared, payload);
            }
            let sent = socket.pending();
            poll_fn(|cx| socket.poll_flush(cx)).await.unwrap();
            assert_eq!(socket.pending(), 0);
            drop(socket);
            let mut wire = Vec::new();
            far.read_to_end(&mut wire).await.unwrap();
            assert_eq!(wire.len(), sent);
            let mut wire = BytesMut::from(&wire[..]);
            let other = match role {
                Role::Client => Role::Server,
                Role::Server => Role::Client,
            };
            let mut decoder = Decoder::new(other, 1 << 20);
            for message in expected {
                let arrived = decoder.decode(&mut wire).unwrap();
                assert_eq!(arrived, Some(Message::Binary(message.into())));
            }
            assert!(wire.is_empty());
        }
    }
}

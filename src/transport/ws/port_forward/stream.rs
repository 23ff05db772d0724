//! One forwarded connection: in flow the bytes of either end, out they come at the other.

use std::{
    collections::VecDeque,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use tokio::io::AsyncWrite;

use super::{Connection, Connections, Forward};
use crate::{
    error::{CallerError, Error},
    limits,
    session::port_forward::ConnectionId,
    transport::ws::{
        shared::{Shared, Slot},
        slices::read_slices,
    },
};

fn is_deferred(forward: &Forward, id: ConnectionId) -> bool {
    forward
        .connections
        .get(&id)
        .is_some_and(|connection| connection.deferred)
}

/// One forwarded connection: reads what the other end sends, writes what it is to read.
///
/// `shutdown` ends this side's half and leaves the other open. Dropping it is like closing a TCP
/// socket: what was written is still sent, and the connection then ends; if something has not
/// been read, it is reset.
///
/// A failure of this connection alone, such as an application that refuses it, is an error of its
/// reads and writes: [`Error::of_io`] has it, with the server's text. The server connects to the
/// application after it has accepted the connection here, so that the first read is where a
/// refusal shows.
///
/// Reads and writes are cancel safe: what a dropped future did not report was not done.
///
/// ```
/// # kubewire::example(|pod| pod.container("main", ["sleep", "infinity"]), async |client| {
/// # use tokio::io::AsyncReadExt as _;
/// # let port = kubewire::example_port().await?;
/// let tunnel = client.pod("default", "web-0").port_forward().connect().await?;
/// let mut stream = tunnel.open(port).await?;
/// let payload = stream.next().await.expect("it says something")?; // not copied
/// assert_eq!(payload, "hello");
///
/// // What the application refuses shows in the first read.
/// # let closed = tokio::net::TcpListener::bind("127.0.0.1:0").await?.local_addr()?.port();
/// let error = tunnel.open(closed).await?.read_u8().await.unwrap_err();
/// assert!(kubewire::Error::of_io(&error).is_some());
/// # Ok(())
/// # });
/// ```
#[derive(Debug)]
pub struct ForwardStream {
    connections: Connections,
    id: ConnectionId,
    slot: Slot,
    current: Bytes,
}

impl ForwardStream {
    pub(super) fn new(connections: Connections, id: ConnectionId, slot: Slot) -> Self {
        Self {
            connections,
            id,
            slot,
            current: Bytes::new(),
        }
    }

    fn shared(&self) -> &Shared<Forward> {
        self.connections.shared()
    }

    /// The next payload, without copying it; `None` at the end of the stream.
    #[inline]
    pub(crate) fn poll_slice(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        if !self.current.is_empty() {
            return Poll::Ready(Some(Ok(std::mem::take(&mut self.current))));
        }
        self.poll_payload(cx)
    }

    /// [`poll_slice`](Self::poll_slice) for those who use nothing else to read.
    #[inline]
    pub(crate) fn poll_payload(&self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        self.poll_read(cx, |forward| forward.session.read(self.id))
    }

    /// The same, and what else is there in `more`, together about as much as `bytes`.
    pub(crate) fn poll_payloads(
        &self,
        cx: &mut Context<'_>,
        more: &mut VecDeque<Bytes>,
        bytes: usize,
    ) -> Poll<Option<io::Result<Bytes>>> {
        self.poll_read(cx, |forward| {
            let first = forward.session.read(self.id)?;
            let mut left = bytes.saturating_sub(first.len());
            while left > 0
                && let Some(payload) = forward.session.read(self.id)
            {
                left = left.saturating_sub(payload.len());
                more.push_back(payload);
            }
            Some(first)
        })
    }

    #[inline]
    fn poll_read(
        &self,
        cx: &mut Context<'_>,
        mut read: impl FnMut(&mut Forward) -> Option<Bytes>,
    ) -> Poll<Option<io::Result<Bytes>>> {
        let id = self.id;
        self.shared().poll_take(cx, self.slot, |forward| {
            if let Some(payload) = read(forward) {
                return Some(Some(Ok(payload)));
            }
            match forward.connections.get(&id) {
                Some(connection) if connection.finished => Some(None),
                Some(Connection { closed: None, .. }) => None,
                Some(Connection {
                    closed: Some(Err(error)),
                    ..
                }) => Some(Some(Err(error.clone().into()))),
                _ => Some(None),
            }
        })
    }

    /// Sends payload without copying it, as soon as there is room for any.
    pub(crate) async fn send(&self, payload: Bytes) -> Result<(), Error> {
        let mut payload = Some(payload);
        let write = |cx: &mut Context<'_>| {
            self.poll_room(cx, |_, forward| {
                let payload = payload.take().unwrap_or_default();
                let length = payload.len();
                forward
                    .session
                    .write(crate::transport::now(), self.id, payload)?;
                Ok(length)
            })
        };
        std::future::poll_fn(write).await.map(drop)
    }

    fn poll_room(
        &self,
        cx: &mut Context<'_>,
        write: impl FnOnce(usize, &mut Forward) -> Result<usize, CallerError>,
    ) -> Poll<Result<usize, Error>> {
        let id = self.id;
        let ready = |forward: &mut Forward| {
            let closed = forward
                .connections
                .get(&id)
                .is_none_or(|c| c.closed.is_some());
            closed
                || is_deferred(forward, id)
                || forward.session.room(id) > 0
                || !forward.session.can_write(id)
        };
        let mut state = ready!(self.shared().poll_room_of(cx, self.slot, ready));
        let endpoint = &mut state.endpoint;
        if let Some(connection) = endpoint.connections.get(&id)
            && let Some(closed) = &connection.closed
        {
            let error = closed.clone().err();
            return Poll::Ready(Err(error.unwrap_or(CallerError::Ended.into())));
        }
        if is_deferred(endpoint, id) {
            return Poll::Ready(Err(CallerError::Ended.into()));
        }
        let room = endpoint.session.room(id);
        let written = write(room, endpoint)?;
        endpoint.sent(id, written);
        self.shared().push(&mut state);
        Poll::Ready(Ok(written))
    }

    /// Queues the end of what this side sends, or keeps it for later where the other end has to
    /// finish first.
    pub(crate) fn finish(&self) -> Result<(), Error> {
        let mut state = self.shared().lock();
        let forward = &mut state.endpoint;
        let connection = forward.connections.get_mut(&self.id);
        if let Some(connection) = connection
            && !connection.finished
            && connection.closed.is_none()
            && (self.connections.defer || !forward.session.has_half_close())
        {
            connection.deferred = true;
            return Ok(());
        }
        forward.session.finish(crate::transport::now(), self.id)?;
        self.shared().push(&mut state);
        Ok(())
    }

    /// Waits, where the server may be waiting for another connection's application to read, until
    /// it has taken on this new one. Otherwise the WebSocket takes no new ones, and this one has
    /// carried nothing yet. Beside others it then waits a moment for a refusal, so that this one
    /// has left nothing unread that would hold up those.
    #[cfg(feature = "client")]
    pub(crate) async fn is_taken_on(&self) -> bool {
        let (is_doubtful, is_strange) = {
            let forward = &self.shared().lock().endpoint;
            (forward.is_doubtful(self.id), forward.is_strange(self.id))
        };
        if !(is_doubtful || is_strange) {
            return true;
        }
        let taken = self.shared().take(|forward| forward.is_taken_on(self.id));
        let taken = tokio::time::timeout(limits::FORWARD_STALL, taken).await;
        if taken.is_err() && is_doubtful {
            self.shared().lock().endpoint.blocked = true;
        }
        let taken = taken.unwrap_or(!is_doubtful);
        if !(taken && is_strange) {
            return taken;
        }
        let answered = |forward: &mut Forward| forward.is_answered(self.id);
        let answered = self.shared().take(answered);
        let answered = tokio::time::timeout(limits::FORWARD_PROBE, answered).await;
        answered.unwrap_or(true)
    }

    /// The next payload as it arrived, not copied; `None` at the end.
    ///
    /// Cancel safety: nothing is lost; call it again.
    ///
    /// # Errors
    ///
    /// The [`Error`] of the connection, in an [`io::Error`].
    pub async fn next(&mut self) -> Option<io::Result<Bytes>> {
        std::future::poll_fn(|cx| self.poll_slice(cx)).await
    }

    /// Whether this end can finish while the other goes on.
    pub fn has_half_close(&self) -> bool {
        self.shared().lock().endpoint.session.has_half_close()
    }

    /// Resets the connection behind what was written; a server says why.
    pub(crate) fn fail(self, text: &str) {
        self.shared().say(|forward| {
            forward.give_up(self.id, 1);
            forward.session.fail(self.id, text);
        });
    }
}

impl Drop for ForwardStream {
    fn drop(&mut self) {
        let mut state = self.shared().lock();
        let forward = &mut state.endpoint;
        forward.give_up(self.id, limits::FORWARD_UNREAD);
        match self.current.is_empty() {
            true => forward.session.detach(crate::transport::now(), self.id),
            false => forward.session.release(self.id),
        }
        forward.connections.remove(&self.id);
        self.shared().push(&mut state);
        self.shared().leave(&mut state, self.slot);
    }
}

// What waits in the session counts for its bound.
read_slices!(ForwardStream, |_| None);

impl AsyncWrite for ForwardStream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        if buf.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let id = self.id;
        let written = ready!(self.poll_room(cx, |room, forward| {
            // Whole frames, so that the payload is masked where it is.
            let length = buf.len().min(room.max(1)).min(limits::SPDY_DATA);
            let payload = Bytes::copy_from_slice(&buf[..length]);
            forward
                .session
                .write(crate::transport::now(), id, payload)?;
            Ok(length)
        }));
        Poll::Ready(written.map_err(io::Error::from))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.shared().poll_flushed(cx, self.slot).map(Ok)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Err(error) = self.finish() {
            return Poll::Ready(Err(error.into()));
        }
        self.poll_flush(cx)
    }
}

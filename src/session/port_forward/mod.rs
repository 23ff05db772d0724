//! Port-forward: many connections over one WebSocket.
//!
//! In flow WebSocket messages, and commands for single connections; out come messages to send and
//! [events](ForwardEvent). Two protocols carry connections, with the same events:
//!
//! - [`Tunnel`], `SPDY/3.1+portforward.k8s.io`: any number of connections to any ports, opened and
//!   half-closed at will, each with an error stream of its own;
//! - [`Channels`], `v4.channel.k8s.io`: one connection for each of the ports that the request
//!   names, open from the start, without half-close.
//!
//! ```text
//!   client: open --> Accepted --> Readable* --> Finished --> Closed(Ok)
//!   server: Incoming -----------> Readable* --> Finished --> Closed(Ok)
//!           at any time ---------------------------------> Closed(Err)
//! ```
//!
//! A connection that fails fails alone: its [`ForwardEvent::Closed`] has the server's text, and the others
//! go on. What arrived before may be read after it. [`PortForward::release`] gives up a connection
//! at any time; it must be called for each in the end.

mod channels;
mod protocol;
mod tunnel;

use std::time::Instant;

use bytes::Bytes;

use super::{KeepaliveConfig, Message, Session, Transmit, mux::MuxConfig};
use crate::{
    Role,
    error::{ApiError, CallerError, Error, NetworkError},
    wire::status::Status,
};

pub use self::channels::Channels;
pub use self::protocol::ForwardProtocol;
pub use self::tunnel::Tunnel;
pub use super::mux::OpenError;

/// The number of a connection, which a session never uses again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(pub(crate) u32);

/// What to do when as much waits for a connection's reader as may.
///
/// The protocols have no flow control, and one WebSocket carries all connections of a tunnel, so
/// that either the reader loses its connection or all wait for it. Where neither will do, the
/// client's `PortForward::tunnels` gives connections WebSockets of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WhenFull {
    /// Everything waits until the reader takes something, as TCP would have it. If it takes
    /// nothing at all for [`MuxConfig::patience`] and there are other connections, it loses its
    /// own, and what waits on it.
    ///
    /// This is the default because a pod sends faster than many readers read: under
    /// [`Reset`](Self::Reset) a download to a slow disk fails that works with kubectl.
    #[default]
    Hold,
    /// The connection is reset at once, and what waits on it is lost. The others never wait.
    Reset,
}

/// The bounds and times of a [`PortForward`].
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct ForwardConfig {
    /// The bounds of a connection and of all together, and the tunnel's signs of life.
    pub mux: MuxConfig,
    /// What happens at the bound of a connection.
    pub when_full: WhenFull,
    /// The signs of life of [`Channels`]; a [`Tunnel`] pings by itself.
    pub keepalive: KeepaliveConfig,
}

/// What a port-forward tells its user.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum ForwardEvent {
    /// The client opened a connection (server): connect to the port, or
    /// [`fail`](PortForward::fail).
    Incoming {
        /// The connection.
        id: ConnectionId,
        /// The port to connect to.
        port: u16,
    },
    /// The server accepted a connection (client). Whether the application does shows later: the
    /// server connects to it after this.
    Accepted(ConnectionId),
    /// [`PortForward::read`] has something again, after it had nothing.
    Readable(ConnectionId),
    /// [`PortForward::room`] has room again, after it had none.
    Writable(ConnectionId),
    /// The peer sends nothing more on this connection; this end still may.
    Finished(ConnectionId),
    /// The connection is over. [`PortForward::read`] may still have something.
    Closed {
        /// The connection.
        id: ConnectionId,
        /// Why, unless both ends had finished.
        result: Result<(), Error>,
    },
    /// The peer accepts no new connections.
    GoAway,
    /// The peer is silent although it was asked for a sign of life. A new connection has better
    /// chances elsewhere.
    Suspect,
    /// The peer is not silent any more.
    Heard,
    /// Nothing follows; each connection has had its [`Closed`](ForwardEvent::Closed) before.
    Ended(Result<(), Error>),
}

/// The server's text about a connection that failed, as an error.
fn refused(port: u16, text: &[u8]) -> Error {
    let text = String::from_utf8_lossy(text);
    let status = Status::failure(500, "InternalError", text.trim());
    Box::new(ApiError {
        operation: format!("port-forward to port {port}"),
        status,
        hint: None,
    })
    .into()
}

fn cut() -> Error {
    let cut = std::io::Error::from(std::io::ErrorKind::UnexpectedEof);
    NetworkError::Lost(std::sync::Arc::new(cut)).into()
}

/// A port-forward over one WebSocket, in either protocol and either role.
#[derive(Debug)]
#[allow(clippy::large_enum_variant)] // There is one for each WebSocket.
pub enum PortForward {
    /// `SPDY/3.1+portforward.k8s.io`.
    Tunnel(Tunnel),
    /// `v4.channel.k8s.io` and its base64 form.
    Channels(Channels),
}

macro_rules! either {
    ($self:ident, $inner:ident => $what:expr) => {
        match $self {
            Self::Tunnel($inner) => $what,
            Self::Channels($inner) => $what,
        }
    };
}

impl PortForward {
    /// Opens a connection (client). It can be written to at once.
    ///
    /// # Errors
    ///
    /// If the session has ended or the peer accepts no more. [`Channels`] have one connection for
    /// each port of the request: [`OpenError::Exhausted`] says that it has been given out.
    pub fn open(&mut self, now: Instant, port: u16) -> Result<ConnectionId, OpenError> {
        either!(self, inner => inner.open(now, port))
    }

    /// Whether [`open`](Self::open) has a chance.
    ///
    /// # Errors
    ///
    /// Why not.
    pub fn can_open(&self) -> Result<(), OpenError> {
        either!(self, inner => inner.can_open())
    }

    /// The next payload of the connection. `None` if there is none now, or never will be.
    pub fn read(&mut self, id: ConnectionId) -> Option<Bytes> {
        either!(self, inner => inner.read(id))
    }

    /// Bytes that should be written at most; none if the connection takes no more.
    pub fn room(&self, id: ConnectionId) -> usize {
        either!(self, inner => inner.room(id))
    }

    /// Queues payload. More than [`room`](Self::room) is taken too.
    ///
    /// # Errors
    ///
    /// [`CallerError::Ended`] if this end has finished, or the connection is over.
    pub fn write(
        &mut self,
        now: Instant,
        id: ConnectionId,
        payload: Bytes,
    ) -> Result<(), CallerError> {
        either!(self, inner => inner.write(now, id, payload))
    }

    /// Says, after all that was written, that this was all. Doing it again does nothing.
    ///
    /// # Errors
    ///
    /// [`CallerError::HalfClose`] for a client of [`Channels`]: the connection stays open.
    pub fn finish(&mut self, now: Instant, id: ConnectionId) -> Result<(), CallerError> {
        either!(self, inner => inner.finish(now, id))
    }

    /// Says why the connection could not be made, or broke, and gives it up (server).
    pub fn fail(&mut self, id: ConnectionId, text: &str) {
        either!(self, inner => inner.fail(id, text));
    }

    /// Gives up the connection: it is reset unless it is over, what waits is dropped, and no event
    /// of it follows.
    pub fn release(&mut self, id: ConnectionId) {
        either!(self, inner => inner.release(id));
    }

    /// Gives up the connection in order, as when a TCP socket is closed: what was written is
    /// still sent, and this end finishes; if there is anything that was not read, now or later, the
    /// connection is reset. No event of it follows.
    ///
    /// Over [`Channels`] this is [`release`](Self::release).
    pub fn detach(&mut self, now: Instant, id: ConnectionId) {
        match self {
            Self::Tunnel(tunnel) => tunnel.detach(now, id),
            Self::Channels(channels) => channels.release(id),
        }
    }

    /// Whether [`write`](Self::write) has a chance, now or when there is room.
    pub fn can_write(&self, id: ConnectionId) -> bool {
        either!(self, inner => inner.can_write(id))
    }

    /// Whether this end can [`finish`](Self::finish) a connection by itself.
    pub fn has_half_close(&self) -> bool {
        match self {
            Self::Tunnel(_) => true,
            Self::Channels(channels) => channels.role() == Role::Server,
        }
    }

    /// Connections that are not over.
    pub fn len(&self) -> usize {
        either!(self, inner => inner.len())
    }

    /// Whether all connections are over.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Streams that are not forgotten: of connections that are not over or have not been read to
    /// the end, two each through a tunnel.
    pub fn streams(&self) -> usize {
        match self {
            Self::Tunnel(tunnel) => tunnel.streams(),
            Self::Channels(channels) => channels.len(),
        }
    }

    /// Whether no message should be handed in until more has been read.
    pub fn wants_hold(&self) -> bool {
        either!(self, inner => inner.wants_hold())
    }

    /// Whether the peer is silent although it was asked for a sign of life.
    pub fn is_suspect(&self) -> bool {
        match self {
            Self::Tunnel(tunnel) => tunnel.is_suspect(),
            Self::Channels(_) => false,
        }
    }
}

impl Session for PortForward {
    type Event = ForwardEvent;

    fn handle_message(&mut self, now: Instant, message: Message) {
        either!(self, inner => inner.handle_message(now, message));
    }

    fn handle_activity(&mut self, now: Instant) {
        either!(self, inner => inner.handle_activity(now));
    }

    fn handle_end(&mut self, lost: Option<Error>) {
        either!(self, inner => inner.handle_end(lost));
    }

    fn handle_hold(&mut self, now: Instant, held: bool) {
        either!(self, inner => inner.handle_hold(now, held));
    }

    fn handle_timeout(&mut self, now: Instant) {
        either!(self, inner => inner.handle_timeout(now));
    }

    fn poll_timeout(&self) -> Option<Instant> {
        either!(self, inner => inner.poll_timeout())
    }

    fn poll_transmit(&mut self) -> Option<Transmit> {
        either!(self, inner => inner.poll_transmit())
    }

    fn queued(&self) -> usize {
        either!(self, inner => inner.queued())
    }

    fn is_ended(&self) -> bool {
        either!(self, inner => inner.is_ended())
    }

    fn poll_event(&mut self) -> Option<ForwardEvent> {
        either!(self, inner => inner.poll_event())
    }

    fn close(&mut self) {
        either!(self, inner => inner.close());
    }
}

#[cfg(test)]
mod tests;

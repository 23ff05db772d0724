//! Port-forward: many connections over one WebSocket.
//!
//! In flow WebSocket messages, and commands for single connections; out come messages to send and
//! [events](ForwardEvent). Two protocols carry connections, behind one trait, [`PortForward`]:
//!
//! - [`Spdy`], `SPDY/3.1+portforward.k8s.io`: any number of connections to any ports, opened and
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
mod spdy;

use std::{fmt, time::Instant};

use bytes::Bytes;

use super::{KeepaliveConfig, Session, mux::MuxConfig};
use crate::{
    error::{ApiError, CallerError, Error},
    wire::status::Status,
};

pub use self::channels::Channels;
pub use self::protocol::ForwardProtocol;
pub use self::spdy::Spdy;
pub use super::mux::OpenError;

/// The number of a connection, which a session never uses again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(pub(crate) u32);

/// What to do when as much waits for a connection's reader as may.
///
/// The protocols have no flow control, and one WebSocket carries all its connections, so
/// that either the reader loses its connection or all wait for it. Where neither will do, the
/// client's `PortForward::websockets` gives connections WebSockets of their own.
///
/// ```
/// # #[cfg(feature = "client")]
/// # async fn run(pod: kubewire::Pod) -> kubewire::Result<()> {
/// use kubewire::port_forward::WhenFull;
///
/// // Many readers, none of which may hold the others up.
/// let tunnel = pod.port_forward().when_full(WhenFull::Reset).connect().await?;
/// # drop(tunnel);
/// # Ok(())
/// # }
/// ```
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
    /// The bounds of a connection and of all together, and a SPDY connection's signs of life.
    pub mux: MuxConfig,
    /// What happens at the bound of a connection.
    pub when_full: WhenFull,
    /// The signs of life of [`Channels`]; a [`Spdy`] pings by itself.
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
    /// The server accepted a connection, both streams of it in a tunnel (client). Whether the
    /// application does shows later: the server connects to it after this.
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

/// A port-forward over one WebSocket, in either protocol and either role.
///
/// ```
/// use kubewire::{
///     Role,
///     session::{
///         Session as _,
///         port_forward::{ConnectionId, ForwardConfig, ForwardEvent, PortForward, Spdy},
///     },
/// };
/// use std::time::Instant;
///
/// /// Works over either protocol: what one end sends, the other is handed.
/// fn carry(from: &mut dyn PortForward, to: &mut dyn PortForward, now: Instant) {
///     while let Some(transmit) = from.poll_transmit() {
///         to.handle_message(now, transmit.to_message());
///     }
/// }
///
/// let now = Instant::now();
/// let mut client = Spdy::new(Role::Client, ForwardConfig::default(), now);
/// let mut server = Spdy::new(Role::Server, ForwardConfig::default(), now);
/// let ours: ConnectionId = client.open(now, 80)?;
/// client.write(now, ours, "GET / HTTP/1.0\r\n\r\n".into())?;
/// carry(&mut client, &mut server, now);
///
/// let Some(ForwardEvent::Incoming { id, port: 80 }) = server.poll_event() else {
///     panic!("a connection to port 80");
/// };
/// assert!(server.read(id).is_some_and(|request| request.starts_with(b"GET /")));
/// server.fail(id, "connection refused");
/// carry(&mut server, &mut client, now);
///
/// let events = std::iter::from_fn(|| client.poll_event());
/// let failed = |event| matches!(event, ForwardEvent::Closed { result: Err(_), .. });
/// assert!(events.map(failed).any(|failed| failed));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait PortForward: Session<Event = ForwardEvent> + fmt::Debug + Send {
    /// Opens a connection (client). It can be written to at once.
    ///
    /// # Errors
    ///
    /// If the session has ended or the peer accepts no more. [`Channels`] have one connection for
    /// each port of the request: [`OpenError::Exhausted`] says that it has been given out.
    fn open(&mut self, now: Instant, port: u16) -> Result<ConnectionId, OpenError>;

    /// Whether [`open`](Self::open) has a chance.
    ///
    /// # Errors
    ///
    /// Why not.
    fn can_open(&self) -> Result<(), OpenError>;

    /// The next payload of the connection. `None` if there is none now, or never will be.
    fn read(&mut self, id: ConnectionId) -> Option<Bytes>;

    /// Bytes that should be written at most; none if the connection takes no more.
    fn room(&self, id: ConnectionId) -> usize;

    /// Queues payload. More than [`room`](Self::room) is taken too.
    ///
    /// # Errors
    ///
    /// [`CallerError::Ended`] if this end has finished, or the connection is over.
    fn write(&mut self, now: Instant, id: ConnectionId, payload: Bytes) -> Result<(), CallerError>;

    /// Whether [`write`](Self::write) has a chance, now or when there is room.
    fn can_write(&self, id: ConnectionId) -> bool;

    /// Says, after all that was written, that this was all. Doing it again does nothing.
    ///
    /// # Errors
    ///
    /// [`CallerError::HalfClose`] for a client of [`Channels`]: the connection stays open.
    fn finish(&mut self, now: Instant, id: ConnectionId) -> Result<(), CallerError>;

    /// Whether this end can [`finish`](Self::finish) a connection by itself.
    fn has_half_close(&self) -> bool;

    /// Gives up the connection like [`release`](Self::release), but behind what was written. A
    /// server first says why it could not be made, or broke; with no text it says as little as the
    /// protocol allows.
    fn fail(&mut self, id: ConnectionId, text: &str);

    /// Gives up the connection: it is reset unless it is over, what waits is dropped, and no event
    /// of it follows. [`Channels`] close the WebSocket when all connections are given up or over.
    fn release(&mut self, id: ConnectionId);

    /// Gives up the connection in order, as when a TCP socket is closed: what was written is
    /// still sent, and this end finishes; if there is anything that was not read, now or later, the
    /// connection is reset. No event of it follows.
    ///
    /// Over [`Channels`] this is [`release`](Self::release).
    fn detach(&mut self, now: Instant, id: ConnectionId);

    /// Connections that are not over.
    fn len(&self) -> usize;

    /// Whether all connections are over.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Streams that are not forgotten: of connections that are not over or have not been read to
    /// the end, two each over SPDY.
    fn streams(&self) -> usize;

    /// Whether no message should be handed in until more has been read.
    fn wants_hold(&self) -> bool;

    /// Whether the peer is silent although it was asked for a sign of life.
    fn is_suspect(&self) -> bool;
}

#[cfg(test)]
mod tests;

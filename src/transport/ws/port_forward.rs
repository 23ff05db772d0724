//! Port-forward over a socket: in flow a session and its WebSocket, out come connections, each an
//! `AsyncRead` and `AsyncWrite`, in either role.
//!
//! [`Connections`] opens them (client) or accepts them (server) and tells what becomes of the
//! whole; [`ForwardStream`] is one of them. The WebSocket is closed when the last of all these handles is
//! dropped.

mod stream;

#[cfg(feature = "client")]
use std::time::Instant;
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

#[cfg(feature = "client")]
use super::stats::SessionStats;
use super::{
    shared::{Closing, Endpoint, Shared, Slot, Waiters},
    websocket::WebSocket,
};
use crate::{
    error::{CallerError, Error},
    session::port_forward::{ConnectionId, ForwardEvent, PortForward},
};
#[cfg(feature = "client")]
use crate::{limits, session::port_forward::OpenError};

pub use self::stream::ForwardStream;

/// What the handle of a connection needs to know.
#[derive(Debug, Default)]
struct Connection {
    slot: Slot,
    port: u16,
    #[cfg(feature = "client")]
    accepted: bool,
    /// Whether anything has ever come from its application.
    heard: bool,
    finished: bool,
    /// Whether this side has finished and the peer is to be told when it has, too.
    deferred: bool,
    closed: Option<Result<(), Error>>,
    unread: Unread,
}

/// What this side has sent since the application last said something: it may not have been read.
#[derive(Debug, Default)]
struct Unread {
    bytes: usize,
    /// When the last of it could be sent.
    #[cfg(feature = "client")]
    since: Option<Instant>,
}

impl Unread {
    /// Whether the application has stopped reading, as far as one can tell.
    #[cfg(feature = "client")]
    fn is_stalled(&self, now: Instant) -> bool {
        let stalled = |since| now.saturating_duration_since(since) >= limits::FORWARD_STALL;
        self.bytes >= limits::FORWARD_UNREAD && self.since.is_some_and(stalled)
    }
}

#[cfg(feature = "client")]
impl Connection {
    /// Whether the server may be waiting for an application to read, or for one that is not there.
    fn is_doubtful(&self) -> bool {
        let unread = match self.heard {
            true => limits::FORWARD_UNREAD,
            false => 1,
        };
        self.closed.is_none() && self.unread.bytes >= unread
    }
}

/// A session with the state of its connections.
#[derive(Debug)]
pub(crate) struct Forward {
    session: Box<dyn PortForward>,
    connections: BTreeMap<ConnectionId, Connection>,
    incoming: VecDeque<(ConnectionId, u16)>,
    /// Whether the peer is silent or going away.
    going_away: bool,
    /// Whether a connection has failed, or been given up, that may have left bytes of ours unread.
    ///
    /// A server's SPDY library delivers frames by a few workers, each of which waits until the
    /// bytes of a stream are read (`github.com/moby/spdystream/connection.go`, `frameHandler`).
    /// Those of a refused connection never are where the server does not reset it (containerd
    /// 1.6), and our own reset waits behind them.
    blocked: bool,
    /// The ports whose applications have answered, and not failed since.
    answering: BTreeSet<u16>,
    /// When the handle of a doubtful connection was last dropped.
    #[cfg(feature = "client")]
    parted: Option<Instant>,
    ended: Option<Result<(), Error>>,
    warned: bool,
}

impl Forward {
    fn new(session: Box<dyn PortForward>) -> Self {
        Self {
            session,
            connections: BTreeMap::new(),
            incoming: VecDeque::new(),
            going_away: false,
            blocked: false,
            answering: BTreeSet::new(),
            #[cfg(feature = "client")]
            parted: None,
            ended: None,
            warned: false,
        }
    }

    fn sent(&mut self, id: ConnectionId, bytes: usize) {
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.unread.bytes = connection.unread.bytes.saturating_add(bytes);
            #[cfg(feature = "client")]
            {
                connection.unread.since = Some(crate::transport::now());
            }
        }
    }

    /// Takes note that nobody will know what becomes of a connection; `many` unread bytes then
    /// say that its application does not read.
    fn give_up(&mut self, id: ConnectionId, many: usize) {
        if let Some(connection) = self.connections.get(&id)
            && connection.closed.is_none()
            && !connection.finished
        {
            self.blocked |= connection.unread.bytes >= many;
            #[cfg(feature = "client")]
            if connection.is_doubtful() {
                self.parted = Some(crate::transport::now());
            }
        }
    }

    /// Forgets a connection that failed before anybody accepted it: nothing of it can be read to
    /// its end any more. Whether it was one.
    fn forget_incoming(&mut self, id: ConnectionId, waiters: &mut Waiters) -> bool {
        let Some(at) = self.incoming.iter().position(|(known, _)| *known == id) else {
            return false;
        };
        self.incoming.remove(at);
        if let Some(connection) = self.connections.remove(&id) {
            waiters.leave(connection.slot);
        }
        self.session.release(id);
        true
    }

    fn insert(&mut self, id: ConnectionId, slot: Slot, port: u16) {
        let connection = Connection {
            slot,
            port,
            ..Connection::default()
        };
        self.connections.insert(id, connection);
    }
}

#[cfg(feature = "client")]
impl Forward {
    /// Whether a connection to this port would share the WebSocket with none to another port of
    /// which one is not known to have an application that reads.
    fn suits(&self, port: u16) -> bool {
        let open = |it: &&Connection| it.closed.is_none() && it.port != port;
        let mut others = self.connections.values().filter(open).peekable();
        if self.should_leave() {
            return false;
        }
        others.peek().is_none()
            || self.answering.contains(&port)
                && others.all(|it| it.heard || self.answering.contains(&it.port))
    }

    /// Whether a new connection is not the only one, and nothing is known of its port.
    fn is_strange(&self, id: ConnectionId) -> bool {
        let port = self.connections.get(&id).map(|it| it.port);
        port.is_some_and(|port| !self.answering.contains(&port))
            && self
                .connections
                .iter()
                .any(|(known, it)| *known != id && it.closed.is_none())
    }

    /// Whether a new connection may be written to, if it is known what became of it or its port.
    fn is_answered(&self, id: ConnectionId) -> Option<bool> {
        match self.connections.get(&id) {
            Some(it) if it.heard || it.closed.is_some() => Some(true),
            Some(_) if self.blocked || self.ended.is_some() => Some(false),
            Some(it) if self.answering.contains(&it.port) => Some(true),
            Some(_) => None,
            None => Some(true),
        }
    }

    fn should_leave(&self) -> bool {
        let now = crate::transport::now();
        let stalled = |connection: &Connection| connection.unread.is_stalled(now);
        self.going_away
            || self.blocked
            || self.session.can_open().is_err()
            || self.connections.values().any(stalled)
    }

    /// Whether the server may be waiting for an application that is not that of `id`.
    fn is_doubtful(&self, id: ConnectionId) -> bool {
        let now = crate::transport::now();
        let recent = |then| now.saturating_duration_since(then) < limits::FORWARD_STALL;
        let doubtful =
            |(known, other): (&ConnectionId, &Connection)| *known != id && other.is_doubtful();
        self.parted.is_some_and(recent) || self.connections.iter().any(doubtful)
    }

    /// Whether the server has taken on a new connection, so that it may be written to, if that is
    /// known.
    fn is_taken_on(&self, id: ConnectionId) -> Option<bool> {
        match self.connections.get(&id) {
            // Its own failure is the answer.
            Some(it) if it.accepted || self.ended.is_none() && it.closed.is_some() => Some(true),
            // Nothing arrives until a slow reader has read, and no other server is waited for.
            Some(_) if self.session.wants_hold() => Some(true),
            Some(_) if self.ended.is_none() && !self.blocked => None,
            _ => Some(false),
        }
    }
}

impl Endpoint for Forward {
    type Session = dyn PortForward;

    fn session(&self) -> &Self::Session {
        &*self.session
    }

    fn session_mut(&mut self) -> &mut Self::Session {
        &mut *self.session
    }

    fn sort(&mut self, event: ForwardEvent, waiters: &mut Waiters) {
        match event {
            ForwardEvent::Incoming { id, port } => {
                self.insert(id, waiters.claim(), port);
                self.incoming.push_back((id, port));
                waiters.wake_session();
            }
            ForwardEvent::Readable(id) => {
                if let Some(connection) = self.connections.get_mut(&id) {
                    connection.unread = Unread::default();
                    waiters.wake_reader(connection.slot);
                    if !std::mem::replace(&mut connection.heard, true)
                        && self.answering.insert(connection.port)
                    {
                        waiters.wake_session();
                    }
                }
            }
            ForwardEvent::Writable(id) => {
                if let Some(connection) = self.connections.get(&id) {
                    waiters.wake_writer(connection.slot);
                }
            }
            ForwardEvent::Finished(id) => {
                if let Some(connection) = self.connections.get_mut(&id) {
                    connection.finished = true;
                    connection.heard = true;
                    waiters.wake_reader(connection.slot);
                    if std::mem::take(&mut connection.deferred) {
                        // Over channels there is nothing to say.
                        let _ = self.session.finish(crate::transport::now(), id);
                    }
                }
            }
            ForwardEvent::Closed { id, result } => {
                if result.is_err() && self.forget_incoming(id, waiters) {
                    return;
                }
                let unread = |connection: &Connection| connection.unread.bytes > 0;
                // Of one whose handle has gone nothing is known.
                self.blocked |= result.is_err() && self.connections.get(&id).is_none_or(unread);
                if let Some(connection) = self.connections.get_mut(&id) {
                    if result.is_err() {
                        self.answering.remove(&connection.port);
                    }
                    connection.closed = Some(result);
                    waiters.wake_reader(connection.slot);
                    waiters.wake_writer(connection.slot);
                }
                waiters.wake_session();
            }
            ForwardEvent::Suspect | ForwardEvent::GoAway => {
                self.going_away = true;
                waiters.wake_session();
            }
            ForwardEvent::Heard => self.going_away = self.session.can_open().is_err(),
            #[cfg(feature = "client")]
            ForwardEvent::Accepted(id) => {
                if let Some(connection) = self.connections.get_mut(&id) {
                    connection.accepted = true;
                    waiters.wake_session();
                }
            }
            #[cfg(not(feature = "client"))]
            ForwardEvent::Accepted(_) => {}
            ForwardEvent::Ended(how) => {
                self.ended = Some(how);
                waiters.wake_all();
            }
        }
    }

    fn has_room(&self) -> bool {
        !self.session.wants_hold()
    }

    fn closed(&mut self) {
        let killed = || Err(CallerError::Killed.into());
        for connection in self.connections.values_mut() {
            connection.closed.get_or_insert_with(killed);
        }
        self.ended.get_or_insert_with(killed);
    }

    fn held_back(&mut self) {
        if !std::mem::replace(&mut self.warned, true) {
            tracing::debug!(
                "a forwarded connection is full: nothing else arrives until it is read"
            );
        }
    }
}

/// The handle of a session as a whole.
#[derive(Debug, Clone)]
pub(crate) struct Connections {
    session: Arc<Closing<Forward>>,
    /// Whether this side finishes a connection only after the peer has.
    defer: bool,
}

impl Connections {
    /// Starts a session over its socket, on the current tokio runtime.
    #[cfg(feature = "server")]
    pub(crate) fn spawn(session: Box<dyn PortForward>, socket: Box<dyn WebSocket>) -> Self {
        Self::spawn_with(session, socket, false)
    }

    /// [`spawn`](Self::spawn), where `defer` says that this side finishes a connection only after
    /// the peer has.
    pub(crate) fn spawn_with(
        session: Box<dyn PortForward>,
        socket: Box<dyn WebSocket>,
        defer: bool,
    ) -> Self {
        Self::over(Forward::new(session), Waiters::default(), socket, defer)
    }

    fn over(forward: Forward, waiters: Waiters, socket: Box<dyn WebSocket>, defer: bool) -> Self {
        Self {
            session: Arc::new(Closing(Shared::spawn(forward, waiters, socket))),
            defer,
        }
    }

    fn shared(&self) -> &Shared<Forward> {
        &self.session.0
    }

    pub(crate) fn streams(&self) -> usize {
        self.shared().lock().endpoint.session.streams()
    }

    /// Waits for a connection that the peer opens, and its port; `None` at the end.
    #[cfg(feature = "server")]
    pub(crate) async fn accept(&self) -> Option<(ForwardStream, u16)> {
        let next = |forward: &mut Forward| match (forward.incoming.pop_front(), &forward.ended) {
            (Some((id, port)), _) => {
                let slot = forward.connections.get(&id)?.slot;
                Some(Some((id, slot, port)))
            }
            (None, Some(_)) => Some(None),
            (None, None) => None,
        };
        let (id, slot, port) = self.shared().take(next).await?;
        Some((ForwardStream::new(self.clone(), id, slot), port))
    }

    /// Ends the session and all its connections.
    pub(crate) fn close(&self) {
        self.shared().close();
    }
}

#[cfg(feature = "client")]
impl Connections {
    /// [`spawn_with`](Self::spawn_with), and opens a connection before anything can arrive: a
    /// server that was told of it in the request may refuse it at once.
    pub(crate) fn spawn_opened(
        session: Box<dyn PortForward>,
        socket: Box<dyn WebSocket>,
        defer: bool,
        port: u16,
    ) -> Result<ForwardStream, OpenError> {
        let mut forward = Forward::new(session);
        let mut waiters = Waiters::default();
        let (id, slot) = (
            forward.session.open(crate::transport::now(), port)?,
            waiters.claim(),
        );
        forward.insert(id, slot, port);
        let connections = Self::over(forward, waiters, socket, defer);
        let mut state = connections.shared().lock();
        connections.shared().push(&mut state);
        drop(state);
        Ok(ForwardStream::new(connections, id, slot))
    }

    /// Opens a connection, without waiting for anything.
    pub(crate) fn open(&self, port: u16) -> Result<ForwardStream, OpenError> {
        let mut state = self.shared().lock();
        let id = state.endpoint.session.open(crate::transport::now(), port)?;
        let slot = self.shared().claim(&mut state);
        state.endpoint.insert(id, slot, port);
        self.shared().push(&mut state);
        drop(state);
        Ok(ForwardStream::new(self.clone(), id, slot))
    }

    pub(crate) fn stats(&self) -> SessionStats {
        self.shared().stats()
    }

    /// How much a new connection would wait for others: whether a reader holds all back, and how
    /// many there are.
    pub(crate) fn load(&self) -> (bool, usize) {
        let state = self.shared().lock();
        let session = &state.endpoint.session;
        (session.wants_hold(), session.len())
    }

    /// Whether a new connection to this port does no harm here, and suffers none.
    pub(crate) fn suits(&self, port: u16) -> bool {
        self.shared().lock().endpoint.suits(port)
    }

    /// Whether new connections should be opened elsewhere: also for a loss that has come and that
    /// nobody has read of, since nothing was open.
    pub(crate) fn should_leave(&self) -> bool {
        let leave = |forward: &mut Forward| forward.should_leave().then_some(());
        self.shared().try_take(leave).is_some()
    }

    /// Waits until the session is over, or new connections have better chances on another one.
    pub(crate) async fn closed(&self) -> Result<(), Error> {
        let closed = |forward: &mut Forward| {
            let leave = || forward.going_away.then_some(Ok(()));
            forward.ended.clone().or_else(leave)
        };
        self.shared().take(closed).await
    }

    /// Why the session is over, if it is.
    pub(crate) fn ended(&self) -> Option<Result<(), Error>> {
        self.shared().lock().endpoint.ended.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Role,
        error::NetworkError,
        session::port_forward::{ForwardConfig, Spdy},
    };

    fn incoming(count: u32) -> (Forward, Waiters, Vec<ConnectionId>) {
        let now = crate::transport::now();
        let config = ForwardConfig::default();
        // Ids as a client gives them; the peer that is tested only has to name them.
        let mut client = Spdy::new(Role::Client, config.clone(), now);
        let ids = (0..count).map(|_| client.open(now, 80).unwrap()).collect();
        let server = Spdy::new(Role::Server, config, now);
        (Forward::new(Box::new(server)), Waiters::default(), ids)
    }

    #[test]
    fn what_is_reset_before_anybody_accepts_it_leaves_nothing_behind() {
        let (mut forward, mut waiters, ids) = incoming(200);
        for id in ids {
            forward.sort(ForwardEvent::Incoming { id, port: 80 }, &mut waiters);
            let result = Err(NetworkError::Silent {
                silent: std::time::Duration::ZERO,
            }
            .into());
            forward.sort(ForwardEvent::Closed { id, result }, &mut waiters);
            assert_eq!((forward.incoming.len(), forward.connections.len()), (0, 0));
        }
    }

    #[test]
    fn what_ended_in_order_before_anybody_accepts_it_can_be_read() {
        let (mut forward, mut waiters, ids) = incoming(1);
        let id = ids[0];
        forward.sort(ForwardEvent::Incoming { id, port: 80 }, &mut waiters);
        forward.sort(ForwardEvent::Closed { id, result: Ok(()) }, &mut waiters);
        assert_eq!((forward.incoming.len(), forward.connections.len()), (1, 1));
    }
}

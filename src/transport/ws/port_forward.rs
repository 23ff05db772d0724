//! Port-forward over a socket: in flow a session and its WebSocket, out come connections, each an
//! `AsyncRead` and `AsyncWrite`, in either role.
//!
//! [`Connections`] opens them (client) or accepts them (server) and tells what becomes of the
//! whole; [`ForwardStream`] is one of them. The WebSocket is closed when the last of all these handles is
//! dropped.

mod stream;

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    task::{Context, Poll},
    time::Instant,
};

use super::{
    shared::{Endpoint, Shared, Slot, Waiting},
    websocket::WebSocket,
};
use crate::{
    error::{CallerError, Error},
    session::{
        Message, Session, Transmit,
        port_forward::{ConnectionId, ForwardEvent, OpenError, PortForward},
    },
};

pub use self::stream::ForwardStream;

/// Who waits for connections that the peer opens.
const INCOMING_SLOT: Slot = 0;
/// Who waits for what becomes of the whole.
const NEWS_SLOT: Slot = 1;
/// The first slot of a connection.
const FIRST_SLOT: Slot = 2;

/// What becomes of a session as a whole.
#[derive(Debug, Clone)]
pub(crate) enum News {
    /// New connections have better chances on another one.
    Leave,
    /// It is over.
    Ended(Result<(), Error>),
}

/// What the handle of a connection needs to know.
#[derive(Debug, Default)]
struct Known {
    slot: Slot,
    finished: bool,
    /// Whether this side has finished and the peer is to be told when it has, too.
    deferred: bool,
    closed: Option<Result<(), Error>>,
}

/// A session with the state of its connections.
#[derive(Debug)]
pub(crate) struct Forward {
    session: Box<dyn PortForward>,
    known: BTreeMap<ConnectionId, Known>,
    free: Vec<Slot>,
    slots: Slot,
    incoming: VecDeque<(ConnectionId, u16)>,
    /// Whether the peer is suspect or going away.
    leave: bool,
    ended: Option<Result<(), Error>>,
    warned: bool,
}

impl Forward {
    fn register(&mut self, id: ConnectionId) {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots += 1;
            self.slots - 1
        });
        let known = Known {
            slot,
            ..Known::default()
        };
        self.known.insert(id, known);
    }
}

impl Session for Forward {
    type Event = ();

    fn handle_message(&mut self, now: Instant, message: Message) {
        self.session.handle_message(now, message);
    }

    fn handle_activity(&mut self, now: Instant) {
        self.session.handle_activity(now);
    }

    fn handle_end(&mut self, lost: Option<Error>) {
        self.session.handle_end(lost);
    }

    fn handle_hold(&mut self, now: Instant, held: bool) {
        self.session.handle_hold(now, held);
        if held && !std::mem::replace(&mut self.warned, true) {
            tracing::debug!(
                "a forwarded connection is full: nothing else arrives until it is read"
            );
        }
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.session.handle_timeout(now);
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.session.poll_timeout()
    }

    fn poll_transmit(&mut self) -> Option<Transmit> {
        self.session.poll_transmit()
    }

    fn poll_event(&mut self) -> Option<()> {
        None
    }

    fn close(&mut self) {
        self.session.close();
        let killed = || Err(CallerError::Killed.into());
        for known in self.known.values_mut() {
            known.closed.get_or_insert_with(killed);
        }
        self.ended.get_or_insert_with(killed);
    }
}

impl Endpoint for Forward {
    /// A tunnel is open until somebody ends it.
    fn is_complete(&self) -> bool {
        false
    }

    fn sort_events(&mut self, waiting: &mut Waiting, writing: &mut Waiting) {
        while let Some(event) = self.session.poll_event() {
            match event {
                ForwardEvent::Incoming { id, port } => {
                    self.register(id);
                    self.incoming.push_back((id, port));
                    waiting.wake(INCOMING_SLOT);
                }
                ForwardEvent::Readable(id) => {
                    if let Some(known) = self.known.get(&id) {
                        waiting.wake(known.slot);
                    }
                }
                ForwardEvent::Writable(id) => {
                    if let Some(known) = self.known.get(&id) {
                        writing.wake(known.slot);
                    }
                }
                ForwardEvent::Finished(id) => {
                    if let Some(known) = self.known.get_mut(&id) {
                        known.finished = true;
                        waiting.wake(known.slot);
                        if std::mem::take(&mut known.deferred) {
                            // Over channels there is nothing to say.
                            let _ = self.session.finish(crate::transport::now(), id);
                        }
                    }
                }
                ForwardEvent::Closed { id, result } => {
                    if let Some(known) = self.known.get_mut(&id) {
                        known.closed = Some(result);
                        waiting.wake(known.slot);
                        writing.wake(known.slot);
                    }
                }
                ForwardEvent::Suspect | ForwardEvent::GoAway => {
                    self.leave = true;
                    waiting.wake(NEWS_SLOT);
                }
                ForwardEvent::Heard => self.leave = self.session.can_open().is_err(),
                ForwardEvent::Accepted(_) => {}
                ForwardEvent::Ended(how) => {
                    self.ended = Some(how);
                    waiting.wake_all();
                    writing.wake_all();
                }
            }
        }
    }

    fn has_room(&self) -> bool {
        !self.session.wants_hold()
    }

    fn queued(&self) -> usize {
        self.session.queued()
    }

    fn is_ended(&self) -> bool {
        self.session.is_ended()
    }
}

/// All handles of a session.
#[derive(Debug)]
struct Lease(Arc<Shared<Forward>>);

impl Drop for Lease {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// The handle of a session as a whole.
#[derive(Debug, Clone)]
pub(crate) struct Connections {
    lease: Arc<Lease>,
    /// Whether this side finishes a connection only after the peer has.
    defer: bool,
}

impl Forward {
    fn new(session: Box<dyn PortForward>) -> Self {
        Self {
            session,
            known: BTreeMap::new(),
            free: Vec::new(),
            slots: FIRST_SLOT,
            incoming: VecDeque::new(),
            leave: false,
            ended: None,
            warned: false,
        }
    }
}

impl Connections {
    /// Starts a session over its socket, on the current tokio runtime.
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
        Self::over(Forward::new(session), socket, defer)
    }

    /// [`spawn_with`](Self::spawn_with), and opens a connection before anything can arrive: a
    /// server that was told of it in the request may refuse it at once.
    pub(crate) fn spawn_opened(
        session: Box<dyn PortForward>,
        socket: Box<dyn WebSocket>,
        defer: bool,
        port: u16,
    ) -> Result<ForwardStream, OpenError> {
        let mut forward = Forward::new(session);
        let id = forward.session.open(crate::transport::now(), port)?;
        forward.register(id);
        let slot = forward.known.get(&id).map_or(0, |known| known.slot);
        let connections = Self::over(forward, socket, defer);
        let mut state = connections.shared().lock();
        connections.shared().push(&mut state);
        drop(state);
        Ok(ForwardStream::new(connections, id, slot))
    }

    fn over(forward: Forward, socket: Box<dyn WebSocket>, defer: bool) -> Self {
        Self {
            lease: Arc::new(Lease(Shared::spawn(forward, socket))),
            defer,
        }
    }

    fn shared(&self) -> &Shared<Forward> {
        &self.lease.0
    }

    /// Opens a connection, without waiting for anything.
    pub(crate) fn open(&self, port: u16) -> Result<ForwardStream, OpenError> {
        let mut state = self.shared().lock();
        let id = state.endpoint.session.open(crate::transport::now(), port)?;
        state.endpoint.register(id);
        let slot = state.endpoint.known.get(&id).map_or(0, |known| known.slot);
        self.shared().push(&mut state);
        drop(state);
        Ok(ForwardStream::new(self.clone(), id, slot))
    }

    /// Streams that the session has not forgotten.
    pub(crate) fn streams(&self) -> usize {
        self.shared().lock().endpoint.session.streams()
    }

    /// How much a new connection would wait for others: whether a reader holds all back, and how
    /// many there are.
    pub(crate) fn load(&self) -> (bool, usize) {
        let state = self.shared().lock();
        let session = &state.endpoint.session;
        (session.wants_hold(), session.len())
    }

    /// Whether new connections should be opened elsewhere.
    pub(crate) fn should_leave(&self) -> bool {
        let state = self.shared().lock();
        state.endpoint.leave || state.endpoint.session.can_open().is_err()
    }

    /// Waits for a connection that the peer opens, and its port; `None` at the end.
    pub(crate) fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<Option<(ForwardStream, u16)>> {
        let next = self.shared().poll_take(cx, INCOMING_SLOT, |forward| {
            match (forward.incoming.pop_front(), &forward.ended) {
                (Some((id, port)), _) => {
                    let slot = forward.known.get(&id).map_or(0, |known| known.slot);
                    Some(Some((id, slot, port)))
                }
                (None, Some(_)) => Some(None),
                (None, None) => None,
            }
        });
        next.map(|next| {
            let (id, slot, port) = next?;
            Some((ForwardStream::new(self.clone(), id, slot), port))
        })
    }

    /// Waits until the session is over or should be left.
    pub(crate) fn poll_news(&self, cx: &mut Context<'_>) -> Poll<News> {
        self.shared().poll_take(cx, NEWS_SLOT, |forward| {
            let ended = forward.ended.clone().map(News::Ended);
            ended.or_else(|| forward.leave.then_some(News::Leave))
        })
    }

    /// Why the session is over, if it is.
    pub(crate) fn ended(&self) -> Option<Result<(), Error>> {
        self.shared().lock().endpoint.ended.clone()
    }

    /// Ends the session and all its connections.
    pub(crate) fn close(&self) {
        self.shared().close();
    }
}

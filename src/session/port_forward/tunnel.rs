//! Connections as pairs of streams of a SPDY connection.
//!
//! In flow WebSocket messages, whose boundaries mean nothing, and commands; out come messages and
//! events. A client opens two streams for each connection, the first for the server's error text
//! and the second for the data; their headers say which is which, the port, and a number that
//! pairs them (`k8s.io/client-go/tools/portforward/portforward.go`, `handleConnection`).
//!
//! The end of the data and the text about it come on different streams, in an order that depends
//! on the server: the end is held back until the error stream has ended, but not for longer than
//! [`limits::FORWARD_VERDICT`].

mod inbound;
mod session;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Instant,
};

use bytes::Bytes;

use super::{ConnectionId, ForwardConfig, ForwardEvent, OpenError, WhenFull};
use crate::{
    Role,
    error::{CallerError, Error},
    limits,
    session::{Transmit, mux::Mux},
    wire::spdy::{Headers, RstStatus, StreamId},
};

/// How far the peer's half of the data has come.
#[derive(Debug)]
enum Data {
    Open,
    Finished,
    Reset(Error),
}

/// A connection that is not over. Its id is that of its data stream.
#[derive(Debug)]
struct Connection {
    port: u16,
    /// The error stream; `None` once the peer has ended it.
    error: Option<StreamId>,
    /// The server's text so far (client).
    text: Vec<u8>,
    data: Data,
    /// Whether this end has finished.
    finished: bool,
    /// Whether the user knows that the peer has.
    told: bool,
    /// Until when the text is waited for.
    verdict_by: Option<Instant>,
    /// Whether it has been waited for long enough.
    verdict: bool,
    /// Until when a connection without a user may take to end.
    detached: Option<Instant>,
}

impl Connection {
    fn new(port: u16, error: StreamId) -> Self {
        Self {
            port,
            error: Some(error),
            text: Vec::new(),
            data: Data::Open,
            finished: false,
            told: false,
            verdict_by: None,
            verdict: false,
            detached: None,
        }
    }
}

/// The streams of a connection of which the other is still to come (server).
#[derive(Debug)]
struct Half {
    request: String,
    stream: StreamId,
    is_error: bool,
    port: u16,
    until: Instant,
}

/// Port-forward through a SPDY connection.
#[derive(Debug)]
pub struct Tunnel {
    role: Role,
    when_full: WhenFull,
    pub(super) mux: Mux,
    connections: BTreeMap<ConnectionId, Connection>,
    /// The connections of error streams.
    errors: BTreeMap<StreamId, ConnectionId>,
    /// In the order in which they came (server).
    halves: VecDeque<Half>,
    verdicts: BTreeSet<(Instant, ConnectionId)>,
    lingering: BTreeSet<(Instant, ConnectionId)>,
    /// Connections opened so far, the number of the next (client).
    requests: u64,
    events: VecDeque<ForwardEvent>,
    pong: Option<Transmit>,
    close: Option<Transmit>,
    close_sent: bool,
    ended: bool,
    /// The last time that was handed in.
    now: Instant,
}

fn id_of(stream: StreamId) -> ConnectionId {
    ConnectionId(stream.get())
}

impl Tunnel {
    /// A tunnel that begins at `now`, right after the handshake.
    pub fn new(role: Role, config: ForwardConfig, now: Instant) -> Self {
        Self {
            role,
            when_full: config.when_full,
            mux: Mux::new(role, config.mux, now),
            connections: BTreeMap::new(),
            errors: BTreeMap::new(),
            halves: VecDeque::new(),
            verdicts: BTreeSet::new(),
            lingering: BTreeSet::new(),
            requests: 0,
            events: VecDeque::new(),
            pong: None,
            close: None,
            close_sent: false,
            ended: false,
            now,
        }
    }

    /// See [`PortForward::can_open`](super::PortForward::can_open).
    ///
    /// # Errors
    ///
    /// Why not.
    pub fn can_open(&self) -> Result<(), OpenError> {
        self.mux.can_open()
    }

    /// See [`PortForward::open`](super::PortForward::open).
    ///
    /// # Errors
    ///
    /// If the tunnel has ended, the peer accepts no more, or the ids are used up.
    pub fn open(&mut self, now: Instant, port: u16) -> Result<ConnectionId, OpenError> {
        let request = self.requests.to_string();
        let headers = |kind: &'static str| {
            Headers::new()
                .with("streamtype", kind)
                .with("port", port.to_string())
                .with("requestid", request.clone())
        };
        let error = self.mux.open(now, &headers("error"))?;
        // "we're not writing to this stream" (portforward.go, `handleConnection`).
        self.mux.finish(error);
        let data = match self.mux.open(now, &headers("data")) {
            Ok(data) => data,
            Err(why) => {
                self.mux.reset(error, RstStatus::CANCEL);
                return Err(why);
            }
        };
        self.requests += 1;
        let id = id_of(data);
        self.errors.insert(error, id);
        self.connections.insert(id, Connection::new(port, error));
        Ok(id)
    }

    /// See [`PortForward::read`](super::PortForward::read).
    pub fn read(&mut self, id: ConnectionId) -> Option<Bytes> {
        self.mux.read(StreamId::new(id.0)?)
    }

    /// See [`PortForward::room`](super::PortForward::room).
    pub fn room(&self, id: ConnectionId) -> usize {
        StreamId::new(id.0).map_or(0, |stream| self.mux.room(stream))
    }

    /// See [`PortForward::write`](super::PortForward::write).
    ///
    /// # Errors
    ///
    /// [`CallerError::Ended`] if this end has finished, or the connection is over.
    pub fn write(
        &mut self,
        _now: Instant,
        id: ConnectionId,
        payload: Bytes,
    ) -> Result<(), CallerError> {
        let stream = StreamId::new(id.0).ok_or(CallerError::Ended)?;
        self.mux.write(stream, payload)
    }

    /// See [`PortForward::finish`](super::PortForward::finish).
    ///
    /// # Errors
    ///
    /// None.
    pub fn finish(&mut self, now: Instant, id: ConnectionId) -> Result<(), CallerError> {
        self.now = now;
        if let Some(connection) = self.connections.get_mut(&id)
            && !connection.finished
        {
            connection.finished = true;
            // The text may come now that the server sees the end.
            connection.verdict = false;
            if let Some(stream) = StreamId::new(id.0) {
                self.mux.finish(stream);
            }
            self.judge(id);
        }
        Ok(())
    }

    /// See [`PortForward::fail`](super::PortForward::fail).
    pub fn fail(&mut self, id: ConnectionId, text: &str) {
        if let Some(error) = self.connections.get_mut(&id).and_then(|c| c.error.take()) {
            self.errors.remove(&error);
            // The text first, then the resets, as the kubelet has it (cri-streaming
            // httpstream.go, `portForward`).
            let _ = self.mux.finish_with(error, text.as_bytes());
        }
        self.release(id);
    }

    /// See [`PortForward::release`](super::PortForward::release).
    pub fn release(&mut self, id: ConnectionId) {
        self.forget(id);
        if let Some(stream) = StreamId::new(id.0) {
            self.mux.reset(stream, RstStatus::CANCEL);
        }
    }

    /// See [`PortForward::detach`](super::PortForward::detach).
    pub fn detach(&mut self, now: Instant, id: ConnectionId) {
        let Some(stream) = StreamId::new(id.0) else {
            return;
        };
        // An end with unread bytes is a reset, as for TCP (RFC 2525, section 2.17).
        if self.mux.readable(stream) > 0 {
            return self.release(id);
        }
        let until = now + limits::FORWARD_LINGER;
        match self.connections.get_mut(&id) {
            // It is over; what still waits to be sent goes its way.
            None => return,
            Some(connection) if connection.detached.is_none() => {
                connection.detached = Some(until);
                self.lingering.insert((until, id));
            }
            Some(_) => {}
        }
        // It cannot fail here.
        let _ = self.finish(now, id);
    }

    /// See [`PortForward::can_write`](super::PortForward::can_write).
    pub fn can_write(&self, id: ConnectionId) -> bool {
        StreamId::new(id.0).is_some_and(|stream| self.mux.can_write(stream))
    }

    /// Connections that are not over.
    pub fn len(&self) -> usize {
        self.connections.len()
    }

    /// Whether all connections are over.
    pub fn is_empty(&self) -> bool {
        self.connections.is_empty()
    }

    /// See [`PortForward::streams`](super::PortForward::streams).
    pub fn streams(&self) -> usize {
        self.mux.len()
    }

    /// Whether no message should be handed in until more has been read.
    pub fn wants_hold(&self) -> bool {
        self.mux.wants_hold()
    }

    /// Whether the peer is silent although it was asked for a sign of life.
    pub fn is_suspect(&self) -> bool {
        self.mux.is_suspect()
    }

    /// Forgets a connection and its error stream.
    fn forget(&mut self, id: ConnectionId) -> Option<Connection> {
        let connection = self.connections.remove(&id)?;
        if let Some(error) = connection.error {
            self.errors.remove(&error);
            match self.role {
                Role::Client => self.mux.reset(error, RstStatus::CANCEL),
                Role::Server => self.mux.finish(error),
            }
        }
        if let Some(at) = connection.verdict_by {
            self.verdicts.remove(&(at, id));
        }
        if let Some(at) = connection.detached {
            self.lingering.remove(&(at, id));
        }
        Some(connection)
    }
}

#[cfg(test)]
impl Tunnel {
    pub(super) fn assert_nothing_left(&self) {
        assert!(self.mux.is_empty(), "{:?}", self.mux);
        assert!(self.connections.is_empty() && self.errors.is_empty());
        assert!(self.halves.is_empty() && self.verdicts.is_empty());
        assert!(self.lingering.is_empty());
    }
}

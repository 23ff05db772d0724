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
//!
//! ```text
//!   local:   Open -- finish --> Finished -- detach --> Detached
//!   remote:  Open -- FIN -----> Finished             Open -- RST_STREAM --> Reset
//!   verdict: Open -- the data has ended --> Awaited -- a moment --> Overdue
//!              +---------- the error stream has ended --------------> Ended
//!
//!   A connection is over when the verdict is there and the remote half is Reset, or has brought a
//!   text, or both halves have finished.
//! ```

mod inbound;
mod session;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Instant,
};

use bytes::Bytes;

use super::{ConnectionId, ForwardConfig, ForwardEvent, OpenError, PortForward, WhenFull};
use crate::{
    Role,
    error::{CallerError, Error},
    limits,
    session::{link::Link, mux::Mux},
    wire::spdy::{Headers, RstStatus, StreamId},
};

/// What this side may still send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Local {
    /// Anything.
    Open,
    /// Nothing: it has said that this was all.
    Finished,
    /// Nothing, and nobody reads: the connection may take until then to end.
    Detached { until: Instant },
}

/// What the peer may still send.
#[derive(Debug)]
enum Remote {
    /// Anything.
    Open,
    /// Nothing: it said that this was all.
    Finished { told: bool },
    /// Nothing: the data stream was reset.
    Reset(Error),
}

/// Whether the server's text about the end is known.
#[derive(Debug, Clone, Copy)]
enum Verdict {
    /// It may come on this stream.
    Open(StreamId),
    /// The data has ended, and until then the text is waited for.
    Awaited { stream: StreamId, until: Instant },
    /// It has been waited for long enough.
    Overdue(StreamId),
    /// The peer has said all.
    Ended,
}

impl Verdict {
    fn stream(self) -> Option<StreamId> {
        match self {
            Self::Open(stream) | Self::Overdue(stream) | Self::Awaited { stream, .. } => {
                Some(stream)
            }
            Self::Ended => None,
        }
    }
}

/// A connection that is not over. Its id is that of its data stream.
#[derive(Debug)]
struct Connection {
    port: u16,
    local: Local,
    remote: Remote,
    verdict: Verdict,
    /// How many of its streams the server has accepted (client).
    accepted: u8,
    /// The server's text so far (client).
    text: Vec<u8>,
}

impl Connection {
    fn new(port: u16, error: StreamId) -> Self {
        Self {
            port,
            local: Local::Open,
            remote: Remote::Open,
            verdict: Verdict::Open(error),
            accepted: 0,
            text: Vec::new(),
        }
    }

    fn is_detached(&self) -> bool {
        matches!(self.local, Local::Detached { .. })
    }
}

/// The streams of a connection of which the other is still to come (server).
#[derive(Debug)]
struct Half {
    /// At most [`limits::FORWARD_REQUEST`] bytes.
    request: String,
    stream: StreamId,
    is_error: bool,
    port: u16,
    until: Instant,
}

/// Port-forward through a SPDY connection.
#[derive(Debug)]
pub struct Spdy {
    /// Without pings: the SPDY connection has its own.
    link: Link,
    when_full: WhenFull,
    pub(super) mux: Mux,
    connections: BTreeMap<ConnectionId, Connection>,
    errors: BTreeMap<StreamId, ConnectionId>,
    /// In the order in which they came (server).
    halves: VecDeque<Half>,
    verdicts: BTreeSet<(Instant, ConnectionId)>,
    lingering: BTreeSet<(Instant, ConnectionId)>,
    /// Connections opened so far, the number of the next (client).
    requests: u64,
    events: VecDeque<ForwardEvent>,
    /// The last time that was handed in.
    now: Instant,
}

fn id_of(stream: StreamId) -> ConnectionId {
    ConnectionId(stream.get())
}

impl Spdy {
    /// A session that begins at `now`, right after the handshake.
    pub fn new(role: Role, config: ForwardConfig, now: Instant) -> Self {
        Self {
            link: Link::new(role, None, now),
            when_full: config.when_full,
            mux: Mux::new(role, config.mux, now),
            connections: BTreeMap::new(),
            errors: BTreeMap::new(),
            halves: VecDeque::new(),
            verdicts: BTreeSet::new(),
            lingering: BTreeSet::new(),
            requests: 0,
            events: VecDeque::new(),
            now,
        }
    }

    fn role(&self) -> Role {
        self.link.role()
    }

    fn forget(&mut self, id: ConnectionId) -> Option<Connection> {
        let connection = self.connections.remove(&id)?;
        if let Some(error) = connection.verdict.stream() {
            self.errors.remove(&error);
            match self.role() {
                Role::Client => self.mux.reset(error, RstStatus::CANCEL),
                Role::Server => self.mux.finish(error),
            }
        }
        if let Verdict::Awaited { until, .. } = connection.verdict {
            self.verdicts.remove(&(until, id));
        }
        if let Local::Detached { until } = connection.local {
            self.lingering.remove(&(until, id));
        }
        Some(connection)
    }
}

impl PortForward for Spdy {
    fn can_open(&self) -> Result<(), OpenError> {
        self.mux.can_open()
    }

    fn open(&mut self, now: Instant, port: u16) -> Result<ConnectionId, OpenError> {
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

    fn read(&mut self, id: ConnectionId) -> Option<Bytes> {
        self.mux.read(StreamId::new(id.0)?)
    }

    fn room(&self, id: ConnectionId) -> usize {
        StreamId::new(id.0).map_or(0, |stream| self.mux.room(stream))
    }

    fn write(
        &mut self,
        _now: Instant,
        id: ConnectionId,
        payload: Bytes,
    ) -> Result<(), CallerError> {
        let stream = StreamId::new(id.0).ok_or(CallerError::Ended)?;
        self.mux.write(stream, payload)
    }

    fn can_write(&self, id: ConnectionId) -> bool {
        StreamId::new(id.0).is_some_and(|stream| self.mux.can_write(stream))
    }

    fn finish(&mut self, now: Instant, id: ConnectionId) -> Result<(), CallerError> {
        self.now = now;
        if let Some(connection) = self.connections.get_mut(&id)
            && connection.local == Local::Open
        {
            connection.local = Local::Finished;
            self.finish_data(id);
        }
        Ok(())
    }

    fn has_half_close(&self) -> bool {
        true
    }

    fn fail(&mut self, id: ConnectionId, text: &str) {
        if let Some(stream) = StreamId::new(id.0) {
            self.mux.flush(stream);
        }
        if let Some(connection) = self.connections.get(&id)
            && let Some(error) = connection.verdict.stream()
        {
            // The text first, then the resets, as the kubelet has it (cri-streaming
            // httpstream.go, `portForward`). A client has finished that stream.
            let _ = self.mux.finish_with(error, text.as_bytes());
        }
        self.release(id);
    }

    fn release(&mut self, id: ConnectionId) {
        self.forget(id);
        if let Some(stream) = StreamId::new(id.0) {
            self.mux.reset(stream, RstStatus::CANCEL);
        }
    }

    fn detach(&mut self, now: Instant, id: ConnectionId) {
        let Some(stream) = StreamId::new(id.0) else {
            return;
        };
        // An end with unread bytes is a reset, as for TCP (RFC 2525, section 2.17).
        if self.mux.readable(stream) > 0 {
            return self.release(id);
        }
        // Where it is over, what still waits to be sent goes its way.
        let Some(connection) = self.connections.get_mut(&id) else {
            return;
        };
        if connection.is_detached() {
            return;
        }
        self.now = now;
        let until = now + limits::FORWARD_LINGER;
        let before = std::mem::replace(&mut connection.local, Local::Detached { until });
        self.lingering.insert((until, id));
        if before == Local::Open {
            self.finish_data(id);
        }
    }

    fn len(&self) -> usize {
        self.connections.len()
    }

    fn streams(&self) -> usize {
        self.mux.len()
    }

    fn wants_hold(&self) -> bool {
        self.mux.wants_hold()
    }

    fn is_suspect(&self) -> bool {
        self.mux.is_suspect()
    }
}

#[cfg(test)]
impl Spdy {
    pub(super) fn assert_nothing_left(&self) {
        assert!(self.mux.is_empty(), "{:?}", self.mux);
        assert!(self.connections.is_empty() && self.errors.is_empty());
        assert!(self.halves.is_empty() && self.verdicts.is_empty());
        assert!(self.lingering.is_empty());
    }
}

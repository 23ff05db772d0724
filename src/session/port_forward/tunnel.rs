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

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Instant,
};

use bytes::Bytes;

use super::{ConnectionId, Event, ForwardConfig, OpenError, WhenFull, cut, refused};
use crate::{
    Role,
    error::{CallerError, Error, NetworkError, PeerError},
    limits,
    session::{
        Close, Message, Opcode, Session, Transmit,
        mux::{self, Abort, Mux},
    },
    wire::spdy::{Headers, RstStatus, SpdyError, StreamId},
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
    events: VecDeque<Event>,
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

    /// Bytes that wait for [`poll_transmit`](Session::poll_transmit).
    pub fn queued(&self) -> usize {
        let frames = [&self.pong, &self.close].into_iter().flatten();
        self.mux.queued() + frames.map(|frame| 2 + frame.len()).sum::<usize>()
    }

    /// Whether [`Event::Ended`] has been made.
    pub fn is_ended(&self) -> bool {
        self.ended
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

    /// The connection is over: the user is told, and may still read what has arrived.
    fn over(&mut self, id: ConnectionId, result: Result<(), Error>) {
        let (Some(connection), Some(stream)) = (self.forget(id), StreamId::new(id.0)) else {
            return;
        };
        if connection.detached.is_some() {
            return self.mux.reset(stream, RstStatus::CANCEL);
        }
        // It tells the peer only if one of the two has not finished.
        if result.is_err() {
            self.mux.cancel(stream, RstStatus::CANCEL);
        }
        self.events.push_back(Event::Closed { id, result });
    }

    /// Decides what the ends of the two streams mean, once both are known.
    fn judge(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.get_mut(&id) else {
            return;
        };
        let silent = connection.text.is_empty();
        let heard = connection.error.is_none() || connection.verdict || self.role == Role::Server;
        match &connection.data {
            Data::Open if silent => {}
            Data::Finished if connection.told && !connection.finished && silent => {}
            _ if !heard => {
                if connection.verdict_by.is_none() {
                    let at = self.now + limits::FORWARD_VERDICT;
                    connection.verdict_by = Some(at);
                    self.verdicts.insert((at, id));
                }
            }
            _ if !silent => {
                let error = refused(connection.port, &connection.text);
                self.over(id, Err(error));
            }
            Data::Open => {}
            Data::Finished => {
                let told = std::mem::replace(&mut connection.told, true);
                if !told && connection.detached.is_none() {
                    self.events.push_back(Event::Finished(id));
                }
                if connection.finished {
                    self.over(id, Ok(()));
                }
            }
            Data::Reset(error) => {
                let error = error.clone();
                self.over(id, Err(error));
            }
        }
    }

    /// Sorts what the SPDY connection tells.
    fn sort(&mut self) {
        while let Some(event) = self.mux.poll_event() {
            match event {
                mux::Event::Opened { stream, headers } => self.handle_open(stream, &headers),
                mux::Event::Accepted(stream) => {
                    self.tell(stream, Event::Accepted);
                }
                mux::Event::Readable(stream) => match self.errors.get(&stream) {
                    Some(&id) => self.take_text(stream, id),
                    // Nobody will read it.
                    None if self.is_detached(stream) => self.release(id_of(stream)),
                    None => self.tell(stream, Event::Readable),
                },
                mux::Event::Writable(stream) => self.tell(stream, Event::Writable),
                mux::Event::Finished(stream) => match self.errors.get(&stream) {
                    // Clients finish theirs at once: it says nothing.
                    Some(_) if self.role == Role::Server => {}
                    Some(_) => self.end_error(stream),
                    None => self.end_data(stream, Data::Finished),
                },
                mux::Event::Reset { stream, why } => {
                    if self.errors.contains_key(&stream) {
                        self.end_error(stream);
                    } else {
                        let error = reset(why);
                        self.end_data(stream, Data::Reset(error));
                    }
                    self.halves.retain(|half| half.stream != stream);
                }
                mux::Event::Full(stream) => {
                    if self.when_full == WhenFull::Reset {
                        self.give_up(stream);
                    }
                }
                mux::Event::Stuck(stream) => {
                    if self.connections.len() > 1 || self.when_full == WhenFull::Reset {
                        self.give_up(stream);
                    }
                }
                mux::Event::GoAway => self.events.push_back(Event::GoAway),
                mux::Event::Suspect => self.events.push_back(Event::Suspect),
                mux::Event::Heard => self.events.push_back(Event::Heard),
                mux::Event::Ended(how) => self.end(how),
            }
        }
    }

    fn is_detached(&self, stream: StreamId) -> bool {
        let connection = self.connections.get(&id_of(stream));
        connection.is_some_and(|connection| connection.detached.is_some())
    }

    fn tell(&mut self, stream: StreamId, event: fn(ConnectionId) -> Event) {
        if self.connections.contains_key(&id_of(stream)) && !self.is_detached(stream) {
            self.events.push_back(event(id_of(stream)));
        }
    }

    /// A reader holds up the others and does not move.
    fn give_up(&mut self, stream: StreamId) {
        let id = id_of(stream);
        if self.connections.contains_key(&id) {
            let bytes = self.mux.readable(stream);
            // What waits goes with it: as long as it stays, it holds up the others.
            self.mux.reset(stream, RstStatus::FLOW_CONTROL_ERROR);
            let stream = "a forwarded connection";
            self.over(id, Err(CallerError::Unread { stream, bytes }.into()));
        } else {
            self.mux.reset(stream, RstStatus::FLOW_CONTROL_ERROR);
            self.halves.retain(|half| half.stream != stream);
        }
    }

    fn take_text(&mut self, stream: StreamId, id: ConnectionId) {
        while let Some(payload) = self.mux.read(stream) {
            if let (Some(connection), Role::Client) = (self.connections.get_mut(&id), self.role) {
                let room = limits::FORWARD_TEXT - connection.text.len();
                connection
                    .text
                    .extend_from_slice(&payload[..payload.len().min(room)]);
            }
        }
        self.judge(id);
    }

    fn end_error(&mut self, stream: StreamId) {
        if let Some(id) = self.errors.remove(&stream) {
            if let Some(connection) = self.connections.get_mut(&id) {
                connection.error = None;
            }
            self.judge(id);
        }
    }

    fn end_data(&mut self, stream: StreamId, how: Data) {
        if let Some(connection) = self.connections.get_mut(&id_of(stream)) {
            connection.data = how;
            self.judge(id_of(stream));
        }
    }

    /// A stream that the client opened.
    fn handle_open(&mut self, stream: StreamId, headers: &Headers) {
        let port = headers
            .get("port")
            .and_then(|port| port.parse::<u16>().ok())
            .filter(|port| *port > 0);
        let is_error = match headers.get("streamtype") {
            Some("error") => Some(true),
            Some("data") => Some(false),
            _ => None,
        };
        let (Role::Server, Some(port), Some(is_error)) = (self.role, port, is_error) else {
            // The kubelet resets what it does not understand, too (cri-streaming httpstream.go,
            // `httpStreamReceived`).
            return self.mux.reset(stream, RstStatus::REFUSED_STREAM);
        };
        // Clients from before the header open both streams in turn, the error stream first
        // (httpstream.go, `requestID`).
        let request = match headers.get("requestid") {
            Some(request) if !request.is_empty() => request.to_owned(),
            _ if is_error => format!("stream {}", stream.get()),
            _ => format!("stream {}", stream.get().saturating_sub(2)),
        };
        let other = self.halves.iter().position(|half| half.request == request);
        let Some(other) = other else {
            self.mux.accept(stream);
            return self.halves.push_back(Half {
                request,
                stream,
                is_error,
                port,
                until: self.now + limits::FORWARD_PAIR,
            });
        };
        if self.halves[other].is_error == is_error {
            return self.mux.reset(stream, RstStatus::PROTOCOL_ERROR);
        }
        let Some(other) = self.halves.remove(other) else {
            return;
        };
        self.mux.accept(stream);
        // The port is the data stream's.
        let (error, data, port) = match is_error {
            true => (stream, other.stream, other.port),
            false => (other.stream, stream, port),
        };
        let id = id_of(data);
        self.errors.insert(error, id);
        self.connections.insert(id, Connection::new(port, error));
        self.events.push_back(Event::Incoming { id, port });
        // What came on the first stream before the second was there.
        self.take_text(error, id);
        if self.mux.readable(data) > 0 {
            self.events.push_back(Event::Readable(id));
        }
        if self.mux.is_finished(data) {
            self.end_data(data, Data::Finished);
        }
    }

    fn end(&mut self, how: Result<(), Error>) {
        let ids: Vec<ConnectionId> = self.connections.keys().copied().collect();
        for id in ids {
            // No text will come any more.
            if let Some(connection) = self.connections.get_mut(&id) {
                connection.verdict = true;
            }
            self.judge(id);
            let lost = how.clone().err().unwrap_or_else(cut);
            self.over(id, Err(lost));
        }
        self.halves.clear();
        self.ended = true;
        let code = match &how {
            Err(Error::Peer(_)) => 1002,
            _ => Close::NORMAL,
        };
        self.send_close(code);
        self.events.push_back(Event::Ended(how));
    }

    fn send_close(&mut self, code: u16) {
        if !std::mem::replace(&mut self.close_sent, true) {
            self.close = Some(Transmit::close(code, ""));
        }
    }
}

/// What a reset by the SPDY connection means to the user.
fn reset(why: Abort) -> Error {
    match why {
        Abort::Peer(status) => NetworkError::Reset {
            status: status.to_string(),
        }
        .into(),
        Abort::NoReply => NetworkError::TimedOut {
            operation: "opening a forwarded connection".into(),
            after: limits::FORWARD_REPLY,
        }
        .into(),
        Abort::Protocol(status) => PeerError::Spdy(SpdyError::Stream(status.to_string())).into(),
        Abort::GoneAway => cut(),
    }
}

impl Session for Tunnel {
    type Event = Event;

    fn handle_message(&mut self, now: Instant, message: Message) {
        self.now = now;
        match message {
            _ if self.ended => {}
            Message::Binary(bytes) => self.mux.handle_bytes(now, bytes),
            // The API server's end of the tunnel treats text as an error, too
            // (k8s.io/apiserver/pkg/util/proxy/streamtunnel.go).
            Message::Text(_) => self
                .mux
                .handle_end(Some(PeerError::Spdy(SpdyError::Text).into())),
            Message::Ping(payload) => {
                self.mux.handle_activity(now);
                // Only the most recent ping needs an answer (RFC 6455, section 5.5.3).
                self.pong = Some(Transmit::new(Opcode::Pong, payload));
            }
            Message::Pong(_) => self.mux.handle_activity(now),
            Message::Close(close) => {
                let code = close.as_ref().map_or(Close::NORMAL, |close| close.code);
                self.send_close(code);
                let lost = close
                    .filter(|close| close.code != Close::NORMAL)
                    .map(|close| {
                        NetworkError::ClosedWithoutStatus {
                            code: Some(close.code),
                            reason: close.reason,
                            source: None,
                        }
                        .into()
                    });
                self.mux.handle_end(lost);
            }
        }
        self.sort();
    }

    fn handle_activity(&mut self, now: Instant) {
        self.now = now;
        self.mux.handle_activity(now);
        self.sort();
    }

    fn handle_end(&mut self, lost: Option<Error>) {
        self.mux.handle_end(lost);
        self.sort();
    }

    fn handle_hold(&mut self, now: Instant, held: bool) {
        self.mux.handle_hold(now, held);
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.now = now;
        self.mux.handle_timeout(now);
        self.sort();
        while let Some(&(at, id)) = self.verdicts.first()
            && at <= now
        {
            self.verdicts.pop_first();
            if let Some(connection) = self.connections.get_mut(&id) {
                connection.verdict_by = None;
                connection.verdict = true;
            }
            self.judge(id);
        }
        while let Some(&(at, id)) = self.lingering.first()
            && at <= now
        {
            self.lingering.pop_first();
            self.release(id);
        }
        while self.halves.front().is_some_and(|half| half.until <= now)
            && let Some(half) = self.halves.pop_front()
        {
            if half.is_error {
                let text = b"timed out waiting for the data stream";
                let _ = self.mux.finish_with(half.stream, text);
            }
            self.mux.reset(half.stream, RstStatus::CANCEL);
        }
    }

    fn poll_timeout(&self) -> Option<Instant> {
        if self.ended {
            return None;
        }
        let verdict = self.verdicts.first().map(|(at, _)| *at);
        let half = self.halves.front().map(|half| half.until);
        let linger = self.lingering.first().map(|(at, _)| *at);
        [self.mux.poll_timeout(), verdict, linger, half]
            .into_iter()
            .flatten()
            .min()
    }

    fn poll_transmit(&mut self) -> Option<Transmit> {
        if let Some(pong) = self.pong.take() {
            return Some(pong);
        }
        match self.mux.poll_transmit() {
            Some(bytes) => Some(Transmit::new(Opcode::Binary, bytes)),
            None => self.close.take(),
        }
    }

    fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    fn close(&mut self) {
        self.mux.close();
        while self.mux.poll_event().is_some() {}
        self.connections.clear();
        self.errors.clear();
        self.halves.clear();
        self.verdicts.clear();
        self.lingering.clear();
        self.events.clear();
        self.ended = true;
        self.send_close(Close::NORMAL);
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

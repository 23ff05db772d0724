//! What the SPDY connection tells, sorted by connection.

use super::{Connection, Half, Local, Remote, Spdy, Verdict, id_of};
use crate::{
    Role,
    error::{CallerError, Error, NetworkError, PeerError},
    limits,
    session::{
        mux::{Abort, MuxEvent},
        port_forward::{ConnectionId, ForwardEvent, PortForward, WhenFull, refused},
    },
    wire::spdy::{Headers, RstStatus, SpdyError, StreamId},
};

impl Spdy {
    /// The connection is over: the user is told, and may still read what has arrived.
    pub(super) fn over(&mut self, id: ConnectionId, result: Result<(), Error>) {
        let (Some(connection), Some(stream)) = (self.forget(id), StreamId::new(id.0)) else {
            return;
        };
        if connection.is_detached() {
            self.mux.reset(stream, RstStatus::CANCEL);
            // It says something of them all.
            if result.is_err() {
                self.events.push_back(ForwardEvent::Closed { id, result });
            }
            return;
        }
        // It tells the peer only if one of the two has not finished.
        if result.is_err() {
            self.mux.cancel(stream, RstStatus::CANCEL);
        }
        self.events.push_back(ForwardEvent::Closed { id, result });
    }

    /// Ends this side's half of the data.
    pub(super) fn finish_data(&mut self, id: ConnectionId) {
        if let Some(connection) = self.connections.get_mut(&id) {
            // The text may come now that the server sees the end.
            if let Verdict::Overdue(stream) = connection.verdict {
                connection.verdict = Verdict::Open(stream);
            }
            if let Some(stream) = StreamId::new(id.0) {
                self.mux.finish(stream);
            }
            self.judge(id);
        }
    }

    /// Decides what the ends of the two streams mean, once both are known.
    pub(super) fn judge(&mut self, id: ConnectionId) {
        let role = self.role();
        let Some(connection) = self.connections.get_mut(&id) else {
            return;
        };
        let silent = connection.text.is_empty();
        let finished = connection.local != Local::Open;
        match (&mut connection.remote, connection.verdict) {
            (Remote::Open, _) if silent => {}
            (Remote::Finished { told: true }, _) if !finished && silent => {}
            (_, Verdict::Open(stream)) if role == Role::Client => {
                let until = self.now + limits::FORWARD_VERDICT;
                connection.verdict = Verdict::Awaited { stream, until };
                self.verdicts.insert((until, id));
            }
            (_, Verdict::Awaited { .. }) => {}
            _ if !silent => {
                let error = refused(connection.port, &connection.text);
                self.over(id, Err(error));
            }
            (Remote::Open, _) => {}
            (Remote::Finished { told }, _) => {
                let told = std::mem::replace(told, true);
                if !told && !connection.is_detached() {
                    self.events.push_back(ForwardEvent::Finished(id));
                }
                if finished {
                    self.over(id, Ok(()));
                }
            }
            (Remote::Reset(error), _) => {
                let error = error.clone();
                self.over(id, Err(error));
            }
        }
    }

    /// The text has been waited for long enough.
    pub(super) fn waited(&mut self, id: ConnectionId) {
        if let Some(connection) = self.connections.get_mut(&id) {
            if let Verdict::Awaited { until, .. } = connection.verdict {
                self.verdicts.remove(&(until, id));
            }
            if let Some(stream) = connection.verdict.stream() {
                connection.verdict = Verdict::Overdue(stream);
            }
        }
        self.judge(id);
    }

    /// Sorts what the SPDY connection tells.
    pub(super) fn sort(&mut self) {
        while let Some(event) = self.mux.poll_event() {
            match event {
                MuxEvent::Opened { stream, headers } => self.handle_open(stream, &headers),
                MuxEvent::Accepted(stream) => {
                    let id = self.errors.get(&stream).copied();
                    let id = id.unwrap_or_else(|| id_of(stream));
                    if let Some(connection) = self.connections.get_mut(&id) {
                        connection.accepted += 1;
                        if connection.accepted == 2 && !connection.is_detached() {
                            self.events.push_back(ForwardEvent::Accepted(id));
                        }
                    }
                }
                MuxEvent::Readable(stream) => match self.errors.get(&stream) {
                    Some(&id) => self.take_text(stream, id),
                    // Nobody will read it.
                    None if self.is_detached(stream) => self.release(id_of(stream)),
                    None => self.tell(stream, ForwardEvent::Readable),
                },
                MuxEvent::Writable(stream) => self.tell(stream, ForwardEvent::Writable),
                MuxEvent::Finished(stream) => match self.errors.get(&stream) {
                    // Clients finish theirs at once: it says nothing.
                    Some(_) if self.role() == Role::Server => {}
                    Some(_) => self.end_error(stream),
                    None => self.end_data(stream, Remote::Finished { told: false }),
                },
                MuxEvent::Reset { stream, why } => {
                    if let Some(id) = self.errors.get(&stream) {
                        // A server does nothing for a connection of which it has one half.
                        if let (Abort::NoReply, Some(data)) = (why, StreamId::new(id.0)) {
                            self.end_data(data, Remote::Reset(reset(why)));
                        }
                        self.end_error(stream);
                    } else {
                        let error = reset(why);
                        self.end_data(stream, Remote::Reset(error));
                    }
                    self.halves.retain(|half| half.stream != stream);
                }
                MuxEvent::Full(stream) => {
                    if self.when_full == WhenFull::Reset {
                        self.give_up(stream);
                    }
                }
                MuxEvent::Stuck(stream) => {
                    if self.connections.len() > 1 || self.when_full == WhenFull::Reset {
                        self.give_up(stream);
                    }
                }
                MuxEvent::GoAway => self.events.push_back(ForwardEvent::GoAway),
                MuxEvent::Suspect => self.events.push_back(ForwardEvent::Suspect),
                MuxEvent::Heard => self.events.push_back(ForwardEvent::Heard),
                MuxEvent::Ended(how) => self.end(how),
            }
        }
    }

    pub(super) fn is_detached(&self, stream: StreamId) -> bool {
        let connection = self.connections.get(&id_of(stream));
        connection.is_some_and(Connection::is_detached)
    }

    pub(super) fn tell(&mut self, stream: StreamId, event: fn(ConnectionId) -> ForwardEvent) {
        if self.connections.contains_key(&id_of(stream)) && !self.is_detached(stream) {
            self.events.push_back(event(id_of(stream)));
        }
    }

    /// A reader holds up the others and does not move.
    pub(super) fn give_up(&mut self, stream: StreamId) {
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

    pub(super) fn take_text(&mut self, stream: StreamId, id: ConnectionId) {
        let role = self.role();
        while let Some(payload) = self.mux.read(stream) {
            if let (Some(connection), Role::Client) = (self.connections.get_mut(&id), role) {
                let room = limits::FORWARD_TEXT - connection.text.len();
                connection
                    .text
                    .extend_from_slice(&payload[..payload.len().min(room)]);
            }
        }
        self.judge(id);
    }

    pub(super) fn end_error(&mut self, stream: StreamId) {
        if let Some(id) = self.errors.remove(&stream) {
            if let Some(connection) = self.connections.get_mut(&id)
                && let Verdict::Awaited { until, .. } =
                    std::mem::replace(&mut connection.verdict, Verdict::Ended)
            {
                self.verdicts.remove(&(until, id));
            }
            self.judge(id);
        }
    }

    pub(super) fn end_data(&mut self, stream: StreamId, how: Remote) {
        if let Some(connection) = self.connections.get_mut(&id_of(stream)) {
            connection.remote = how;
            self.judge(id_of(stream));
        }
    }

    /// A stream that the client opened.
    pub(super) fn handle_open(&mut self, stream: StreamId, headers: &Headers) {
        let port = headers
            .get("port")
            .and_then(|port| port.parse::<u16>().ok())
            .filter(|port| *port > 0);
        let is_error = match headers.get("streamtype") {
            Some("error") => Some(true),
            Some("data") => Some(false),
            _ => None,
        };
        let (Role::Server, Some(port), Some(is_error)) = (self.role(), port, is_error) else {
            // The kubelet resets what it does not understand, too (cri-streaming httpstream.go,
            // `httpStreamReceived`).
            return self.mux.reset(stream, RstStatus::REFUSED_STREAM);
        };
        // Clients from before the header open both streams in turn, the error stream first
        // (httpstream.go, `requestID`).
        let request = match headers.get("requestid") {
            Some(request) if request.len() > limits::FORWARD_REQUEST => {
                return self.mux.reset(stream, RstStatus::REFUSED_STREAM);
            }
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
        self.events.push_back(ForwardEvent::Incoming { id, port });
        // What came on the first stream before the second was there.
        self.take_text(error, id);
        if self.mux.readable(data) > 0 {
            self.events.push_back(ForwardEvent::Readable(id));
        }
        if self.mux.is_finished(data) {
            self.end_data(data, Remote::Finished { told: false });
        }
    }

    pub(super) fn end(&mut self, how: Result<(), Error>) {
        match &how {
            Err(Error::Peer(error)) => self.link.fail(error),
            _ => self.link.end(),
        };
        let ids: Vec<ConnectionId> = self.connections.keys().copied().collect();
        for id in ids {
            // No text will come any more.
            self.waited(id);
            let lost = how.clone().err().unwrap_or_else(Error::cut);
            self.over(id, Err(lost));
        }
        self.halves.clear();
        self.events.push_back(ForwardEvent::Ended(how));
    }
}

/// What a reset by the SPDY connection means to the user.
fn reset(why: Abort) -> Error {
    match why {
        Abort::Peer(status) => NetworkError::Reset {
            status: status.to_string(),
        }
        .into(),
        Abort::NoReply => Error::late("opening a forwarded connection", limits::FORWARD_REPLY),
        Abort::Protocol(status) => PeerError::Spdy(SpdyError::Stream(status.to_string())).into(),
        Abort::GoneAway => Error::cut(),
    }
}

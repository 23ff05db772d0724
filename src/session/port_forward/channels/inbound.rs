//! What arrives on the channels of connections, and how these end.

use std::time::Instant;

use bytes::Bytes;

use super::Channels;
use crate::{
    Role,
    error::{CallerError, Error, NetworkError, PeerError},
    limits,
    session::{
        Close, Message, Opcode, Session, Transmit,
        keepalive::Due,
        later::later,
        port_forward::{ConnectionId, ForwardEvent, WhenFull, cut, refused},
    },
    wire::{
        channel::Encoding,
        port_channel::{PortChannel, PortChannelError},
    },
};

impl Channels {
    pub(super) fn close_if_over(&mut self) {
        if self.connections.iter().all(|c| c.over) && !self.ended {
            self.send_close(Close::NORMAL);
            // A client waits for nothing more; a server, for the client's close.
            if self.connections.iter().all(|c| c.released) || self.role == Role::Client {
                self.end(Ok(()));
            }
        }
    }

    /// The connection is over: the user is told, and may still read what has arrived.
    pub(super) fn over(&mut self, id: ConnectionId, result: Result<(), Error>) {
        let Some(connection) = self.get(id).filter(|c| !c.over) else {
            return;
        };
        connection.over = true;
        connection.verdict_by = None;
        connection.stuck_at = None;
        if connection.claimed {
            self.events.push_back(ForwardEvent::Closed { id, result });
        }
        self.close_if_over();
    }

    pub(super) fn fail_session(&mut self, error: PeerError) {
        self.send_close(1002);
        self.end(Err(error.into()));
    }

    /// Nothing more arrives.
    pub(super) fn end(&mut self, how: Result<(), Error>) {
        if self.ended {
            return;
        }
        self.ended = true;
        for index in 0..self.connections.len() {
            let id = ConnectionId(index as u32);
            let connection = &mut self.connections[index];
            if connection.over {
                continue;
            }
            let result = match (&how, self.role) {
                _ if !connection.text.is_empty() => Err(refused(connection.port, &connection.text)),
                // The server closes when all connections have ended well or with a text.
                (Ok(()), Role::Client) => {
                    if connection.claimed {
                        self.events.push_back(ForwardEvent::Finished(id));
                    }
                    Ok(())
                }
                (Ok(()), Role::Server) => Err(cut()),
                (Err(error), _) => Err(error.clone()),
            };
            self.over(id, result);
        }
        self.events.push_back(ForwardEvent::Ended(how));
    }

    pub(super) fn handle_payload(&mut self, message: Bytes) -> Result<(), PortChannelError> {
        let Some((channel, mut payload)) = PortChannel::parse(message, self.encoding)? else {
            return Ok(());
        };
        let id = ConnectionId(u32::from(channel.index));
        let unknown = PortChannelError::Channel(channel.head(Encoding::Binary));
        let role = self.role;
        let Some(connection) = self.get(id) else {
            return Err(unknown);
        };
        if role == Role::Client {
            let preamble = match channel.error {
                true => &mut connection.error_preamble,
                false => &mut connection.data_preamble,
            };
            if let Some(announced) = preamble.take(&mut payload) {
                if announced != connection.port {
                    let asked = connection.port;
                    return Err(PortChannelError::Port { asked, announced });
                }
                if !channel.error && connection.claimed {
                    self.events.push_back(ForwardEvent::Accepted(id));
                }
            }
        } else if channel.error {
            return Err(unknown);
        }
        let now = self.now;
        let Some(connection) = self.get(id).filter(|c| !c.over) else {
            return Ok(());
        };
        if payload.is_empty() {
            return Ok(());
        }
        if channel.error {
            let room = limits::FORWARD_TEXT - connection.text.len();
            let text = &payload[..payload.len().min(room)];
            connection.text.extend_from_slice(text);
            connection.verdict_by = Some(now + limits::FORWARD_VERDICT);
            return Ok(());
        }
        if connection.receive.is_empty() && connection.claimed {
            self.events.push_back(ForwardEvent::Readable(id));
        }
        self.received += payload.len();
        let bound = self.config.mux.receive_buffer;
        let patience = self.config.mux.patience;
        let connection = &mut self.connections[id.0 as usize];
        connection.receive.push(payload);
        if connection.receive.len() >= bound && connection.stuck_at.is_none() {
            if self.config.when_full == WhenFull::Reset {
                self.give_up(id);
            } else {
                connection.stuck_at = Some(later(now, patience));
                connection.progress = false;
            }
        }
        Ok(())
    }

    pub(super) fn give_up(&mut self, id: ConnectionId) {
        let bytes = self.get(id).map_or(0, |c| c.receive.len());
        // What waits goes with it: as long as it stays, it holds up the others.
        if let Some(connection) = self.get(id) {
            connection.receive.clear();
        }
        self.received -= bytes;
        let stream = "a forwarded connection";
        self.over(id, Err(CallerError::Unread { stream, bytes }.into()));
    }

    pub(super) fn handle_stuck(&mut self, index: usize) {
        let bound = self.config.mux.receive_buffer;
        let next = later(self.now, self.config.mux.patience);
        let others = self.len() > 1;
        let connection = &mut self.connections[index];
        connection.stuck_at = None;
        let progress = std::mem::take(&mut connection.progress);
        if connection.receive.len() < bound {
            return;
        }
        if progress || !others {
            connection.stuck_at = Some(next);
        } else {
            self.give_up(ConnectionId(index as u32));
        }
    }
}

impl Session for Channels {
    type Event = ForwardEvent;

    fn handle_message(&mut self, now: Instant, message: Message) {
        self.handle_activity(now);
        if self.ended {
            return;
        }
        match message {
            Message::Binary(bytes) | Message::Text(bytes) => {
                if let Err(error) = self.handle_payload(bytes) {
                    self.fail_session(error.into());
                }
            }
            Message::Ping(payload) => {
                // Only the most recent ping needs an answer (RFC 6455, section 5.5.3).
                let pong = Transmit::new(Opcode::Pong, payload);
                match self.transmits.iter_mut().find(|t| t.opcode == Opcode::Pong) {
                    Some(queued) => {
                        self.queued = self.queued - queued.len().max(1) + pong.len().max(1);
                        *queued = pong;
                    }
                    None if !self.close_sent => self.queue(pong),
                    None => {}
                }
            }
            Message::Pong(payload) => self.keepalive.pong(now, &payload),
            Message::Close(close) => {
                let code = close.as_ref().map_or(Close::NORMAL, |close| close.code);
                self.send_close(code);
                let lost = close.filter(|close| close.code != Close::NORMAL);
                self.end(lost.map_or(Ok(()), |close| {
                    Err(NetworkError::ClosedWithoutStatus {
                        code: Some(close.code),
                        reason: close.reason,
                        source: None,
                    }
                    .into())
                }));
            }
        }
    }

    fn handle_activity(&mut self, now: Instant) {
        self.now = now;
        self.keepalive.inbound(now);
    }

    fn handle_end(&mut self, lost: Option<Error>) {
        // Without a close frame nothing says that the connections had ended.
        self.end(Err(lost.unwrap_or_else(cut)));
    }

    fn handle_hold(&mut self, now: Instant, held: bool) {
        self.now = now;
        self.keepalive.hold(now, held);
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.now = now;
        for index in 0..self.connections.len() {
            let id = ConnectionId(index as u32);
            let connection = &self.connections[index];
            if connection.verdict_by.is_some_and(|at| at <= now) {
                let error = refused(connection.port, &connection.text);
                self.over(id, Err(error));
            } else if connection.stuck_at.is_some_and(|at| at <= now) {
                self.handle_stuck(index);
            }
        }
        while !self.ended && !self.close_sent {
            match self.keepalive.handle_timeout(now) {
                Due::Nothing => return,
                Due::Send(transmit) => {
                    // One ping in the queue asks as much as two.
                    if !self.transmits.iter().any(|t| t.opcode == transmit.opcode) {
                        self.queue(transmit);
                    }
                }
                Due::Dead(silent) => self.end(Err(NetworkError::Silent { silent }.into())),
            }
        }
    }

    fn poll_timeout(&self) -> Option<Instant> {
        if self.ended {
            return None;
        }
        let connections = self.connections.iter();
        let connections = connections.flat_map(|c| [c.verdict_by, c.stuck_at]);
        let pings = (!self.close_sent).then(|| self.keepalive.deadline());
        connections.chain([pings]).flatten().min()
    }

    fn poll_transmit(&mut self) -> Option<Transmit> {
        let transmit = self.transmits.pop_front()?;
        self.queued -= transmit.len().max(1);
        if self.queued <= self.config.mux.send_buffer / 2 {
            let events = self.blocked.drain(..).map(ForwardEvent::Writable);
            self.events.extend(events);
        }
        Some(transmit)
    }

    fn queued(&self) -> usize {
        self.queued
    }

    fn is_ended(&self) -> bool {
        self.ended
    }

    fn poll_event(&mut self) -> Option<ForwardEvent> {
        self.events.pop_front()
    }

    fn close(&mut self) {
        self.events.clear();
        self.ended = true;
        for connection in &mut self.connections {
            connection.over = true;
            connection.claimed = true;
        }
        self.send_close(Close::NORMAL);
    }
}

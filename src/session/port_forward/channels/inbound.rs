//! What arrives on the channels of connections, and how these end.

use std::time::Instant;

use bytes::Bytes;

use super::{Channels, State};
use crate::{
    Role,
    error::{CallerError, Error, PeerError},
    limits,
    session::{
        Message, Session, Transmit,
        later::later,
        link::of_link,
        port_forward::{ConnectionId, ForwardEvent, PortForward, WhenFull, refused},
        reader::Watch,
    },
    wire::{
        channel::Encoding,
        port_channel::{PortChannel, PortChannelError},
    },
};

impl Channels {
    /// Closes the WebSocket when no connection is left that anybody could use.
    pub(super) fn close_if_over(&mut self) {
        let over = |c: &super::Connection| matches!(c.state, State::Over | State::Released);
        if !self.connections.iter().all(over) || !self.link.is_open() {
            return;
        }
        match self.link.role() {
            Role::Client => {
                self.link.leave(true);
                self.events.push_back(ForwardEvent::Ended(Ok(())));
            }
            Role::Server => self.link.close(self.now),
        }
    }

    /// The connection is over: the user is told, and may still read what has arrived.
    pub(super) fn over(&mut self, id: ConnectionId, result: Result<(), Error>) {
        let Some(connection) = self.live(id) else {
            return;
        };
        connection.watch = Watch::Off;
        if connection.is_known() {
            connection.state = State::Over;
            self.events.push_back(ForwardEvent::Closed { id, result });
        } else {
            connection.state = State::Untold(result);
        }
        self.close_if_over();
    }

    fn fail_session(&mut self, error: PeerError) {
        self.link.fail(&error);
        self.end(Err(error.into()));
    }

    /// Nothing more arrives.
    fn end(&mut self, how: Result<(), Error>) {
        self.link.end();
        for index in 0..self.connections.len() {
            let id = ConnectionId(index as u32);
            let connection = &self.connections[index];
            let result = match (&connection.state, &how) {
                (State::Failing { text, .. }, _) => Err(refused(connection.port, text)),
                // The server closes when all connections have ended well or with a text.
                (State::Open { known }, Ok(())) if self.link.role() == Role::Client => {
                    if *known {
                        self.events.push_back(ForwardEvent::Finished(id));
                    }
                    Ok(())
                }
                (_, Ok(())) => Err(Error::cut()),
                (_, Err(error)) => Err(error.clone()),
            };
            self.over(id, result);
        }
        self.events.push_back(ForwardEvent::Ended(how));
    }

    fn handle_payload(&mut self, message: Bytes) -> Result<(), PortChannelError> {
        let Some((channel, mut payload)) = PortChannel::parse(message, self.encoding)? else {
            return Ok(());
        };
        let id = ConnectionId(u32::from(channel.index));
        let unknown = PortChannelError::Channel(channel.head(Encoding::Binary));
        let role = self.link.role();
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
                if !channel.error && connection.is_known() {
                    self.events.push_back(ForwardEvent::Accepted(id));
                }
            }
        } else if channel.error {
            return Err(unknown);
        }
        if payload.is_empty() || self.live(id).is_none() {
            return Ok(());
        }
        match channel.error {
            true => self.take_text(id, &payload),
            false => self.take_data(id, payload),
        }
        Ok(())
    }

    fn take_text(&mut self, id: ConnectionId, payload: &[u8]) {
        let now = self.now;
        let Some(connection) = self.get(id) else {
            return;
        };
        let (known, mut text) = match &mut connection.state {
            State::Open { known } => (*known, Vec::new()),
            State::Failing { known, text, .. } => (*known, std::mem::take(text)),
            State::Untold(_) | State::Over | State::Released => return,
        };
        let room = limits::FORWARD_TEXT - text.len();
        text.extend_from_slice(&payload[..payload.len().min(room)]);
        connection.state = State::Failing {
            known,
            text,
            until: now + limits::FORWARD_VERDICT,
        };
    }

    fn take_data(&mut self, id: ConnectionId, payload: Bytes) {
        let (bound, patience) = (self.config.mux.receive_buffer, self.config.mux.patience);
        let look = later(self.now, patience);
        let reset = self.config.when_full == WhenFull::Reset;
        let Some(connection) = self.connections.get_mut(id.0 as usize) else {
            return;
        };
        if connection.receive.is_empty() && connection.is_known() {
            self.events.push_back(ForwardEvent::Readable(id));
        }
        self.received += payload.len();
        connection.receive.push(payload);
        if connection.receive.len() >= bound {
            match reset {
                true => self.give_up(id),
                false => drop(connection.watch.begin(look)),
            }
        }
    }

    fn give_up(&mut self, id: ConnectionId) {
        let bytes = self.get(id).map_or(0, |c| c.receive.len());
        // What waits goes with it: as long as it stays, it holds up the others.
        if let Some(connection) = self.get(id) {
            connection.receive.clear();
        }
        self.received -= bytes;
        let stream = "a forwarded connection";
        self.over(id, Err(CallerError::Unread { stream, bytes }.into()));
    }

    fn handle_stuck(&mut self, index: usize) {
        let bound = self.config.mux.receive_buffer;
        let next = later(self.now, self.config.mux.patience);
        let others = self.len() > 1;
        let connection = &mut self.connections[index];
        let moved = connection.watch.take();
        if connection.receive.len() < bound {
            return;
        }
        if moved || !others {
            connection.watch.begin(next);
        } else {
            self.give_up(ConnectionId(index as u32));
        }
    }
}

impl Session for Channels {
    type Event = ForwardEvent;

    of_link!(queued is_ended poll_event handle_end);

    fn handle_message(&mut self, now: Instant, message: Message) {
        self.handle_activity(now);
        if self.link.is_ended() {
            return;
        }
        match message {
            Message::Binary(bytes) | Message::Text(bytes) => {
                if let Err(error) = self.handle_payload(bytes) {
                    self.fail_session(error.into());
                }
            }
            control => {
                if let Some(closed) = self.link.handle_control(now, control) {
                    self.end(closed.into_result());
                }
            }
        }
    }

    fn handle_activity(&mut self, now: Instant) {
        self.now = now;
        self.link.handle_activity(now);
    }

    fn handle_hold(&mut self, now: Instant, held: bool) {
        self.now = now;
        self.link.handle_hold(now, held);
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.now = now;
        for index in 0..self.connections.len() {
            let id = ConnectionId(index as u32);
            let connection = &self.connections[index];
            match &connection.state {
                State::Failing { text, until, .. } if *until <= now => {
                    let error = refused(connection.port, text);
                    self.over(id, Err(error));
                }
                _ if connection.watch.at().is_some_and(|at| at <= now) => self.handle_stuck(index),
                _ => {}
            }
        }
        if let Some(how) = self.link.handle_timeout(now) {
            self.end(how);
        }
    }

    fn poll_timeout(&self) -> Option<Instant> {
        if self.link.is_ended() {
            return None;
        }
        let connections = self.connections.iter().flat_map(|connection| {
            let verdict = match connection.state {
                State::Failing { until, .. } => Some(until),
                _ => None,
            };
            [verdict, connection.watch.at()]
        });
        connections
            .chain([self.link.poll_timeout()])
            .flatten()
            .min()
    }

    fn poll_transmit(&mut self) -> Option<Transmit> {
        let transmit = self.link.poll_transmit()?;
        if self.link.queued() <= self.config.mux.send_buffer / 2 {
            let events = self.blocked.drain(..).map(ForwardEvent::Writable);
            self.events.extend(events);
        }
        Some(transmit)
    }

    fn close(&mut self) {
        self.events.clear();
        for connection in &mut self.connections {
            connection.state = State::Released;
        }
        self.link.leave(false);
    }
}

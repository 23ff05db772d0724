//! Connections as channels: one for each port that the request names, open from the start.
//!
//! In flow WebSocket messages and commands; out come messages and events. The server connects to
//! every port at once, announces each on its channels, and closes the WebSocket when all
//! connections are over. Nothing says that one of them is over while others go on, except the
//! server's text about its failure; and nothing says that a client has finished
//! (`k8s.io/cri-streaming/pkg/streaming/portforward/websocket.go`).
//!
//! ```text
//!   client:  unclaimed -- open --> open -- text, and a moment without more --> Closed(Err)
//!                                   +----- close 1000 -----------------------> Finished, Closed(Ok)
//!                                   +----- the connection is lost -----------> Closed(Err)
//!   server:  Incoming -- finish --> Closed(Ok)
//!               +------- the client closes --> Closed(Err)
//! ```

mod inbound;

use std::{collections::VecDeque, time::Instant};

use bytes::Bytes;

use super::{ConnectionId, ForwardConfig, ForwardEvent, ForwardProtocol, OpenError};
use crate::{
    Role,
    error::CallerError,
    limits,
    session::{Keepalive, Opcode, Transmit, chunks::Chunks},
    wire::{
        channel::Encoding,
        port_channel::{PortChannel, Preamble},
    },
};

/// The connection of one port.
#[derive(Debug)]
struct Connection {
    port: u16,
    /// Whether the user knows of it.
    claimed: bool,
    /// Whether it is over: what arrives is dropped.
    over: bool,
    /// Whether the user has given it up.
    released: bool,
    data_preamble: Preamble,
    error_preamble: Preamble,
    receive: Chunks,
    /// The server's text so far (client).
    text: Vec<u8>,
    /// Until when more of it is waited for.
    verdict_by: Option<Instant>,
    /// When the reader loses the connection, if it is full and others wait.
    stuck_at: Option<Instant>,
    /// Whether the reader has taken something since that was set.
    progress: bool,
}

/// Port-forward through channels.
#[derive(Debug)]
pub struct Channels {
    role: Role,
    config: ForwardConfig,
    encoding: Encoding,
    protocol: ForwardProtocol,
    connections: Vec<Connection>,
    keepalive: Keepalive,
    transmits: VecDeque<Transmit>,
    queued: usize,
    /// Connections whose writer was told that there is no room.
    blocked: Vec<ConnectionId>,
    received: usize,
    events: VecDeque<ForwardEvent>,
    close_sent: bool,
    ended: bool,
    now: Instant,
}

impl Channels {
    /// A session that begins at `now`, right after the handshake of a request for `ports`.
    ///
    /// # Errors
    ///
    /// [`CallerError::Ports`] if there are no ports, or more than the encoding can number.
    pub fn new(
        role: Role,
        encoding: Encoding,
        ports: &[u16],
        config: ForwardConfig,
        now: Instant,
    ) -> Result<Self, CallerError> {
        if ports.is_empty() || ports.len() > encoding.max_ports() {
            let count = ports.len();
            return Err(CallerError::Ports { count });
        }
        let connection = |&port: &u16| Connection {
            port,
            claimed: role == Role::Server,
            over: false,
            released: false,
            data_preamble: Preamble::default(),
            error_preamble: Preamble::default(),
            receive: Chunks::default(),
            text: Vec::new(),
            verdict_by: None,
            stuck_at: None,
            progress: false,
        };
        let mut session = Self {
            role,
            encoding,
            protocol: match encoding {
                Encoding::Binary => ForwardProtocol::V4,
                Encoding::Base64 => ForwardProtocol::V4Base64,
            },
            connections: ports.iter().map(connection).collect(),
            keepalive: Keepalive::new(config.keepalive, now),
            config,
            transmits: VecDeque::new(),
            queued: 0,
            blocked: Vec::new(),
            received: 0,
            events: VecDeque::new(),
            close_sent: false,
            ended: false,
            now,
        };
        if role == Role::Server {
            for (index, &port) in (0..).zip(ports) {
                for channel in [PortChannel::data(index), PortChannel::error(index)] {
                    session.send(channel, Bytes::copy_from_slice(&port.to_le_bytes()));
                }
                let id = ConnectionId(u32::from(index));
                session
                    .events
                    .push_back(ForwardEvent::Incoming { id, port });
            }
        }
        Ok(session)
    }

    pub(super) fn role(&self) -> Role {
        self.role
    }

    /// See [`PortForward::can_open`](super::PortForward::can_open).
    ///
    /// # Errors
    ///
    /// Why not.
    pub fn can_open(&self) -> Result<(), OpenError> {
        if self.ended || self.close_sent {
            Err(OpenError::Ended)
        } else if self.connections.iter().all(|c| c.claimed) {
            Err(OpenError::Exhausted)
        } else {
            Ok(())
        }
    }

    /// See [`PortForward::open`](super::PortForward::open).
    ///
    /// # Errors
    ///
    /// [`OpenError::Exhausted`] if the request did not name the port, or its connection was given
    /// out; [`OpenError::Ended`].
    pub fn open(&mut self, now: Instant, port: u16) -> Result<ConnectionId, OpenError> {
        self.now = now;
        self.can_open()?;
        let free = |c: &Connection| c.port == port && !c.claimed;
        let index = self.connections.iter().position(free);
        let index = index.ok_or(OpenError::Exhausted)?;
        let connection = &mut self.connections[index];
        connection.claimed = true;
        let id = ConnectionId(index as u32);
        // What happened before anybody asked.
        if connection.data_preamble.is_done() {
            self.events.push_back(ForwardEvent::Accepted(id));
        }
        if !connection.receive.is_empty() {
            self.events.push_back(ForwardEvent::Readable(id));
        }
        Ok(id)
    }

    fn get(&mut self, id: ConnectionId) -> Option<&mut Connection> {
        self.connections.get_mut(id.0 as usize)
    }

    /// See [`PortForward::read`](super::PortForward::read).
    pub fn read(&mut self, id: ConnectionId) -> Option<Bytes> {
        let connection = self.get(id)?;
        let payload = connection.receive.pop(usize::MAX)?;
        connection.progress = true;
        self.received -= payload.len();
        Some(payload)
    }

    /// See [`PortForward::room`](super::PortForward::room). All connections share one queue.
    pub fn room(&self, id: ConnectionId) -> usize {
        match self.connections.get(id.0 as usize) {
            Some(connection) if !connection.over && !self.close_sent => {
                self.config.mux.send_buffer.saturating_sub(self.queued)
            }
            _ => 0,
        }
    }

    /// See [`PortForward::write`](super::PortForward::write).
    ///
    /// # Errors
    ///
    /// [`CallerError::Ended`] if the connection is over.
    pub fn write(
        &mut self,
        now: Instant,
        id: ConnectionId,
        mut payload: Bytes,
    ) -> Result<(), CallerError> {
        self.now = now;
        let closed = self.close_sent;
        self.get(id)
            .filter(|connection| !connection.over && !closed)
            .ok_or(CallerError::Ended)?;
        while !payload.is_empty() {
            let length = payload.len().min(limits::INPUT_MESSAGE);
            self.keepalive.outbound(now);
            self.send(PortChannel::data(id.0 as u8), payload.split_to(length));
        }
        if self.queued >= self.config.mux.send_buffer && !self.blocked.contains(&id) {
            self.blocked.push(id);
        }
        Ok(())
    }

    /// See [`PortForward::finish`](super::PortForward::finish).
    ///
    /// # Errors
    ///
    /// [`CallerError::HalfClose`] for a client: nothing can tell the server.
    pub fn finish(&mut self, now: Instant, id: ConnectionId) -> Result<(), CallerError> {
        self.now = now;
        match (self.role, self.get(id)) {
            (Role::Client, Some(connection)) if !connection.over => Err(CallerError::HalfClose {
                protocol: self.protocol.name(),
            }),
            (Role::Server, Some(_)) => {
                // The client cannot finish its half: this was all there is.
                self.over(id, Ok(()));
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// See [`PortForward::fail`](super::PortForward::fail).
    pub fn fail(&mut self, id: ConnectionId, text: &str) {
        if self.role == Role::Server && self.get(id).is_some_and(|c| !c.over) {
            let text = Bytes::copy_from_slice(text.as_bytes());
            self.send(PortChannel::error(id.0 as u8), text);
        }
        self.release(id);
    }

    /// See [`PortForward::release`](super::PortForward::release). The WebSocket is closed when all
    /// connections are given up or over.
    pub fn release(&mut self, id: ConnectionId) {
        let Some(connection) = self.get(id) else {
            return;
        };
        connection.claimed = true;
        connection.released = true;
        connection.over = true;
        connection.verdict_by = None;
        connection.stuck_at = None;
        let waiting = connection.receive.len();
        connection.receive.clear();
        self.received -= waiting;
        self.close_if_over();
    }

    /// See [`PortForward::can_write`](super::PortForward::can_write).
    pub fn can_write(&self, id: ConnectionId) -> bool {
        let connection = self.connections.get(id.0 as usize);
        connection.is_some_and(|c| !c.over) && !self.close_sent
    }

    /// Connections that are not over.
    pub fn len(&self) -> usize {
        self.connections.iter().filter(|c| !c.over).count()
    }

    /// Whether all connections are over.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether no message should be handed in until more has been read.
    pub fn wants_hold(&self) -> bool {
        let bound = self.config.mux.receive_buffer;
        self.received >= self.config.mux.receive_total
            || self.connections.iter().any(|c| c.receive.len() >= bound)
    }

    fn send(&mut self, channel: PortChannel, payload: Bytes) {
        let transmit = match self.encoding {
            Encoding::Binary => Transmit {
                opcode: Opcode::Binary,
                prefix: Some(channel.head(self.encoding)),
                payload,
            },
            Encoding::Base64 => {
                Transmit::new(Opcode::Text, channel.message(&payload, self.encoding))
            }
        };
        self.queue(transmit);
    }

    fn queue(&mut self, transmit: Transmit) {
        // At least one, so that an empty message counts as something to send.
        self.queued += transmit.len().max(1);
        self.transmits.push_back(transmit);
    }

    fn send_close(&mut self, code: u16) {
        if !std::mem::replace(&mut self.close_sent, true) {
            self.queue(Transmit::close(code, ""));
        }
    }
}

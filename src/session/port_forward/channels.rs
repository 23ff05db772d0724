//! Connections as channels: one for each port that the request names, open from the start.
//!
//! In flow WebSocket messages and commands; out come messages and events. The server connects to
//! every port at once, announces each on its channels, and closes the WebSocket when all
//! connections are over. Nothing says that one of them is over while others go on, except the
//! server's text about its failure; and nothing says that a client has finished
//! (`k8s.io/cri-streaming/pkg/streaming/portforward/websocket.go`).
//!
//! ```text
//!   client:  Open, unknown -- open --> Open -- text, and a moment without more --> Over: Err
//!                                        +----- close 1000 ----------------------> Over: Ok
//!                                        +----- the connection is lost ----------> Over: Err
//!   server:  Open -- finish --> Over: Ok
//!              +---- the client closes --> Over: Err
//!
//!   Over or not: release --> Released. Over before the user knew of it: Untold, until it asks.
//! ```

mod inbound;

use std::{collections::VecDeque, time::Instant};

use bytes::Bytes;

use super::{ConnectionId, ForwardConfig, ForwardEvent, ForwardProtocol, OpenError, PortForward};
use crate::{
    Role,
    error::{CallerError, Error},
    limits,
    session::{Opcode, Transmit, chunks::Chunks, link::Link, reader::Watch},
    wire::{
        channel::Encoding,
        port_channel::{PortChannel, Preamble},
    },
};

/// How far a connection is.
#[derive(Debug)]
enum State {
    /// Bytes come and go.
    Open { known: bool },
    /// The server has begun to say what went wrong (client).
    Failing {
        known: bool,
        text: Vec<u8>,
        until: Instant,
    },
    /// It is over, which the user will be told when it asks for the connection.
    Untold(Result<(), Error>),
    /// It is over, which the user knows. What has arrived may still be read.
    Over,
    /// The user has given it up: what arrives is dropped.
    Released,
}

#[derive(Debug)]
struct Connection {
    port: u16,
    state: State,
    data_preamble: Preamble,
    error_preamble: Preamble,
    receive: Chunks,
    /// When the reader loses the connection, if it is full and others wait.
    watch: Watch,
}

impl Connection {
    fn is_over(&self) -> bool {
        !matches!(self.state, State::Open { .. } | State::Failing { .. })
    }

    /// Whether the user can be told of it.
    fn is_known(&self) -> bool {
        match self.state {
            State::Open { known } | State::Failing { known, .. } => known,
            State::Untold(_) => false,
            State::Over | State::Released => true,
        }
    }
}

/// Port-forward through channels.
///
/// ```
/// use kubewire::{
///     Role,
///     session::port_forward::{Channels, ForwardConfig, OpenError, PortForward as _},
///     wire::channel::Encoding,
/// };
/// use std::time::Instant;
///
/// let now = Instant::now();
/// let config = ForwardConfig::default();
/// let mut client = Channels::new(Role::Client, Encoding::Binary, &[80], config, now)?;
/// let connection = client.open(now, 80)?; // the one that the request named
/// assert_eq!(client.open(now, 80), Err(OpenError::Exhausted));
/// assert!(client.finish(now, connection).is_err(), "the protocol cannot say it");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Channels {
    link: Link,
    config: ForwardConfig,
    encoding: Encoding,
    protocol: ForwardProtocol,
    connections: Vec<Connection>,
    /// Connections whose writer was told that there is no room.
    blocked: Vec<ConnectionId>,
    received: usize,
    events: VecDeque<ForwardEvent>,
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
            state: State::Open {
                known: role == Role::Server,
            },
            data_preamble: Preamble::default(),
            error_preamble: Preamble::default(),
            receive: Chunks::default(),
            watch: Watch::Off,
        };
        let mut session = Self {
            link: Link::new(role, Some(config.keepalive), now),
            encoding,
            protocol: match encoding {
                Encoding::Binary => ForwardProtocol::V4,
                Encoding::Base64 => ForwardProtocol::V4Base64,
            },
            connections: ports.iter().map(connection).collect(),
            config,
            blocked: Vec::new(),
            received: 0,
            events: VecDeque::new(),
            now,
        };
        if role == Role::Server {
            for (index, &port) in (0..).zip(ports) {
                for channel in [PortChannel::data(index), PortChannel::error(index)] {
                    let port = Bytes::copy_from_slice(&port.to_le_bytes());
                    let transmit = session.transmit(channel, port);
                    session.link.send(now, transmit);
                }
                let id = ConnectionId(u32::from(index));
                session
                    .events
                    .push_back(ForwardEvent::Incoming { id, port });
            }
        }
        Ok(session)
    }

    fn get(&mut self, id: ConnectionId) -> Option<&mut Connection> {
        self.connections.get_mut(id.0 as usize)
    }

    fn live(&mut self, id: ConnectionId) -> Option<&mut Connection> {
        self.get(id).filter(|connection| !connection.is_over())
    }

    fn transmit(&self, channel: PortChannel, payload: Bytes) -> Transmit {
        match self.encoding {
            Encoding::Binary => Transmit {
                opcode: Opcode::Binary,
                prefix: Some(channel.head(self.encoding)),
                payload,
            },
            Encoding::Base64 => {
                Transmit::new(Opcode::Text, channel.message(&payload, self.encoding))
            }
        }
    }
}

impl PortForward for Channels {
    fn can_open(&self) -> Result<(), OpenError> {
        if !self.link.is_open() {
            Err(OpenError::Ended)
        } else if self.connections.iter().all(Connection::is_known) {
            Err(OpenError::Exhausted)
        } else {
            Ok(())
        }
    }

    fn open(&mut self, now: Instant, port: u16) -> Result<ConnectionId, OpenError> {
        self.now = now;
        self.can_open()?;
        let free = |c: &Connection| c.port == port && !c.is_known();
        let index = self.connections.iter().position(free);
        let index = index.ok_or(OpenError::Exhausted)?;
        let connection = &mut self.connections[index];
        let id = ConnectionId(index as u32);
        // What happened before anybody asked.
        if connection.data_preamble.is_done() {
            self.events.push_back(ForwardEvent::Accepted(id));
        }
        if !connection.receive.is_empty() {
            self.events.push_back(ForwardEvent::Readable(id));
        }
        match &mut connection.state {
            State::Open { known } | State::Failing { known, .. } => *known = true,
            state => {
                if let State::Untold(result) = std::mem::replace(state, State::Over) {
                    self.events.push_back(ForwardEvent::Closed { id, result });
                }
                self.close_if_over();
            }
        }
        Ok(id)
    }

    fn read(&mut self, id: ConnectionId) -> Option<Bytes> {
        let connection = self.get(id)?;
        let payload = connection.receive.pop(usize::MAX)?;
        connection.watch.note();
        self.received -= payload.len();
        Some(payload)
    }

    /// All connections share one queue.
    fn room(&self, id: ConnectionId) -> usize {
        match self.can_write(id) {
            true => self
                .config
                .mux
                .send_buffer
                .saturating_sub(self.link.queued()),
            false => 0,
        }
    }

    fn write(
        &mut self,
        now: Instant,
        id: ConnectionId,
        mut payload: Bytes,
    ) -> Result<(), CallerError> {
        self.now = now;
        if !self.can_write(id) {
            return Err(CallerError::Ended);
        }
        while !payload.is_empty() {
            let length = payload.len().min(limits::INPUT_MESSAGE);
            let channel = PortChannel::data(id.0 as u8);
            let transmit = self.transmit(channel, payload.split_to(length));
            self.link.send_input(now, transmit);
        }
        if self.link.queued() >= self.config.mux.send_buffer && !self.blocked.contains(&id) {
            self.blocked.push(id);
        }
        Ok(())
    }

    fn can_write(&self, id: ConnectionId) -> bool {
        let connection = self.connections.get(id.0 as usize);
        connection.is_some_and(|c| !c.is_over()) && self.link.is_open()
    }

    fn finish(&mut self, now: Instant, id: ConnectionId) -> Result<(), CallerError> {
        self.now = now;
        if self.live(id).is_none() {
            return Ok(());
        }
        if self.link.role() == Role::Client {
            return Err(CallerError::HalfClose {
                protocol: self.protocol.name(),
            });
        }
        // The client cannot finish its half: this was all there is.
        self.over(id, Ok(()));
        Ok(())
    }

    fn has_half_close(&self) -> bool {
        self.link.role() == Role::Server
    }

    fn fail(&mut self, id: ConnectionId, text: &str) {
        if self.link.role() == Role::Server && self.live(id).is_some() {
            // Nothing else tells a reset from an end in order.
            let text = match text {
                "" => Bytes::from_static(b"the connection was reset"),
                text => Bytes::copy_from_slice(text.as_bytes()),
            };
            let transmit = self.transmit(PortChannel::error(id.0 as u8), text);
            self.link.send_input(self.now, transmit);
        }
        self.release(id);
    }

    fn release(&mut self, id: ConnectionId) {
        let Some(connection) = self.get(id) else {
            return;
        };
        connection.state = State::Released;
        connection.watch = Watch::Off;
        let waiting = connection.receive.len();
        connection.receive.clear();
        self.received -= waiting;
        self.close_if_over();
    }

    fn detach(&mut self, _now: Instant, id: ConnectionId) {
        self.release(id);
    }

    fn len(&self) -> usize {
        self.connections.iter().filter(|c| !c.is_over()).count()
    }

    fn streams(&self) -> usize {
        self.len()
    }

    fn wants_hold(&self) -> bool {
        let bound = self.config.mux.receive_buffer;
        self.received >= self.config.mux.receive_total
            || self.connections.iter().any(|c| c.receive.len() >= bound)
    }

    fn is_suspect(&self) -> bool {
        false
    }
}

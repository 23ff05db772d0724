//! Frames to events and back: state machines without sockets, clocks, locks or random numbers.
//!
//! In flow the messages of one WebSocket and the commands of its user; out come messages to send,
//! [events](Session::Event), and the time of the next deadline. Both ends of a protocol are the
//! same state machine with another [`Role`](crate::Role), so that a client, a gateway and a fake
//! API server cannot disagree.
//!
//! # The contract
//!
//! Whoever drives a session
//!
//! 1. hands it what arrives: [`handle_message`](Session::handle_message), in order; then
//!    [`handle_end`](Session::handle_end) once when nothing more can;
//! 2. takes all of its events with [`poll_event`](Session::poll_event) after each of these calls
//!    and after each command. [`receive`](Session::receive) does both for a message, and what
//!    flows through it is not queued in between;
//! 3. sends all that [`poll_transmit`](Session::poll_transmit) gives, in order, as far as the
//!    socket takes it: a blocked socket stops transmissions and not events;
//! 4. calls [`handle_timeout`](Session::handle_timeout) when the time of
//!    [`poll_timeout`](Session::poll_timeout) has come, which any of the calls above may change.
//!
//! A command queues what it sends. Where a command and the socket would both copy a payload, the
//! command may leave the message to the driver, which then sends it before anything else:
//! [`RemoteCommand::write_through`].
//!
//! A session never fails a call for what its peer did: that is an event, and the last one.
//! Backpressure towards the peer is not handing in messages; the driver says so with
//! [`handle_hold`](Session::handle_hold), for no deadline runs while the peer is held back.

use std::time::Instant;

use bytes::Bytes;

use crate::error::Error;
pub use crate::wire::websocket::{Close, Message, Opcode};

mod backoff;
mod chunks;
mod keepalive;
pub(crate) mod later;
mod link;
pub mod messages;
pub mod mux;
pub mod port_forward;
mod reader;
pub mod remote_command;
mod requests;
pub mod subprotocol;
#[cfg(test)]
mod testing;

pub use keepalive::{Due, Keepalive, KeepaliveConfig};
pub use messages::Messages;
pub use remote_command::RemoteCommand;
pub use requests::{Exchange, Head, logs, watch};
pub use subprotocol::Subprotocol;

/// One WebSocket message to send.
///
/// ```
/// use kubewire::session::{Opcode, Transmit};
///
/// let pong = Transmit::new(Opcode::Pong, "payload of the ping");
/// assert_eq!((pong.prefix, pong.payload.len()), (None, 19));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transmit {
    /// What the message is; never a continuation.
    pub opcode: Opcode,
    /// A byte that goes before the payload, inside the message: the channel.
    pub prefix: Option<u8>,
    /// The payload, as its owner gave it.
    pub payload: Bytes,
}

impl Transmit {
    /// A message without a prefix.
    pub fn new(opcode: Opcode, payload: impl Into<Bytes>) -> Self {
        Self {
            opcode,
            prefix: None,
            payload: payload.into(),
        }
    }

    /// A close frame.
    pub fn close(code: u16, reason: impl Into<String>) -> Self {
        Self::new(
            Opcode::Close,
            Close {
                code,
                reason: reason.into(),
            }
            .to_payload(),
        )
    }

    /// The message's length in bytes.
    pub fn len(&self) -> usize {
        usize::from(self.prefix.is_some()) + self.payload.len()
    }

    /// Whether the message has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The message as its receiver will see it; copies a payload that has a prefix.
    pub fn to_message(&self) -> Message {
        let whole = match self.prefix {
            None => self.payload.clone(),
            Some(prefix) => [&[prefix], &self.payload[..]].concat().into(),
        };
        match self.opcode {
            Opcode::Text => Message::Text(whole),
            Opcode::Binary | Opcode::Continuation => Message::Binary(whole),
            Opcode::Ping => Message::Ping(whole),
            Opcode::Pong => Message::Pong(whole),
            Opcode::Close => Message::Close(match &whole[..] {
                [high, low, reason @ ..] => Some(Close {
                    code: u16::from_be_bytes([*high, *low]),
                    reason: String::from_utf8_lossy(reason).into_owned(),
                }),
                _ => None,
            }),
        }
    }
}

/// A protocol over one WebSocket, for one [`Role`](crate::Role). See [the contract](self).
///
/// ```
/// use kubewire::session::{Message, Session};
/// use std::time::Instant;
///
/// /// One turn of a driver: what arrived goes in, the events and the answers come out.
/// fn turn<S: Session>(session: &mut S, arrived: Message) -> (Vec<S::Event>, Vec<Message>) {
///     let now = Instant::now();
///     let first = session.receive(now, arrived);
///     let events = first.into_iter().chain(std::iter::from_fn(|| session.poll_event())).collect();
///     if session.poll_timeout().is_some_and(|due| due <= now) {
///         session.handle_timeout(now);
///     }
///     let answers = std::iter::from_fn(|| session.poll_transmit());
///     (events, answers.map(|transmit| transmit.to_message()).collect())
/// }
///
/// # let now = Instant::now();
/// # let role = kubewire::Role::Client;
/// # let mut session = kubewire::session::Messages::new(role, Default::default(), now);
/// let (events, answers) = turn(&mut session, Message::Ping("alive?".into()));
/// assert!(events.is_empty());
/// assert_eq!(answers, [Message::Pong("alive?".into())]);
/// ```
pub trait Session {
    /// What the session tells its user.
    type Event;

    /// Takes the next message that arrived.
    fn handle_message(&mut self, now: Instant, message: Message);

    /// Takes the next message that arrived, and gives the next event, if there is one:
    /// [`handle_message`](Self::handle_message), then [`poll_event`](Self::poll_event), which has
    /// those that follow. `None` says that there is none.
    fn receive(&mut self, now: Instant, message: Message) -> Option<Self::Event> {
        self.handle_message(now, message);
        self.poll_event()
    }

    /// Takes note that bytes arrived, even if they are no whole message yet.
    fn handle_activity(&mut self, now: Instant);

    /// Takes the end of the connection: why it was lost, or `None` if the peer ended it in order.
    fn handle_end(&mut self, lost: Option<Error>);

    /// Takes note that messages are, or are no longer, held back from the session because its
    /// user does not take what has arrived.
    fn handle_hold(&mut self, now: Instant, held: bool);

    /// Does what is due at `now`. Calling it too early does nothing.
    fn handle_timeout(&mut self, now: Instant);

    /// When to call [`handle_timeout`](Self::handle_timeout) next, if ever.
    fn poll_timeout(&self) -> Option<Instant>;

    /// The next message to send.
    fn poll_transmit(&mut self) -> Option<Transmit>;

    /// Bytes that wait for [`poll_transmit`](Self::poll_transmit), about.
    fn queued(&self) -> usize;

    /// The next event.
    fn poll_event(&mut self) -> Option<Self::Event>;

    /// Whether no event will come to be any more; some may wait for
    /// [`poll_event`](Self::poll_event).
    fn is_ended(&self) -> bool;

    /// Ends the session from this side: a close frame is sent, and events stop.
    fn close(&mut self);
}

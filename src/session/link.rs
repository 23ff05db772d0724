//! What every session over a WebSocket shares: signs of life, what waits to be sent, and the end.
//!
//! In flow the peer's control messages, the time, and what the session has to say; out come
//! messages in the order in which they are to go, and how the peer ended it.
//!
//! ```text
//!   open -- this side has said all: close --> closing -- the peer's close, or `LINGER` --> ended
//!     +---- the peer's close: answered --------------------------------------------------> ended
//!     +---- the peer breaks the protocol: close 1002 ------------------------------------> ended
//!     +---- the connection is lost, or silent too long: nobody is there to be told ------> ended
//! ```
//!
//! # Bounds
//!
//! A session queues payload as its writers bring it, and they wait while
//! [`queued`](Link::queued) is at their bound. Of what the peer or a timer can ask for there is
//! at most one each: a pong, a ping, an empty message, a close frame.

use std::{collections::VecDeque, time::Instant};

use bytes::Bytes;

use super::{
    Close, Keepalive, KeepaliveConfig, Message, Opcode, Transmit, keepalive::Due, later::later,
};
use crate::{
    Role,
    error::{Error, NetworkError, PeerError},
    limits,
};

/// How far the WebSocket is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    /// This side has sent its close frame, and nothing more: the peer's is awaited.
    Closing {
        since: Instant,
    },
    /// Nothing that arrives counts any more; what is queued may still go.
    Ended,
}

/// One end of a WebSocket, below the session that it carries.
#[derive(Debug)]
pub(super) struct Link {
    role: Role,
    state: State,
    /// `None` where what goes through the WebSocket has pings of its own.
    keepalive: Option<Keepalive>,
    outbox: Outbox,
}

/// What waits to be sent: a pong goes first, the close frame last.
#[derive(Debug, Default)]
struct Outbox {
    pong: Option<Transmit>,
    messages: VecDeque<Transmit>,
    close: Option<Transmit>,
    /// Of all of these.
    bytes: usize,
    /// Whether a ping is among the messages. It must not overtake them: its answer says that they
    /// have been read.
    pinged: bool,
}

/// What a message counts: at least one byte, so that an empty one counts as something to send.
fn cost(transmit: &Transmit) -> usize {
    transmit.len().max(1)
}

impl Outbox {
    fn push(&mut self, transmit: Transmit) {
        self.bytes += cost(&transmit);
        self.messages.push_back(transmit);
    }

    fn pop_pong(&mut self) -> Option<Transmit> {
        let pong = self.pong.take()?;
        self.bytes -= cost(&pong);
        Some(pong)
    }

    fn pop(&mut self) -> Option<Transmit> {
        if let Some(pong) = self.pop_pong() {
            return Some(pong);
        }
        let next = self.messages.pop_front().or_else(|| self.close.take())?;
        self.bytes -= cost(&next);
        self.pinged &= next.opcode != Opcode::Ping;
        Some(next)
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Closed {
    code: Option<u16>,
    reason: String,
    /// Whether the close says that all was well. A client that closes leaves, whatever the code; a
    /// server says so with 1000 alone.
    in_order: bool,
}

impl Closed {
    pub(super) fn is_normal(&self) -> bool {
        self.code == Some(Close::NORMAL)
    }

    pub(super) fn into_error(self) -> Error {
        NetworkError::ClosedWithoutStatus {
            code: self.code,
            reason: self.reason,
            source: None,
        }
        .into()
    }

    /// The end, where the close frame says all there is to say about it.
    pub(super) fn into_result(self) -> Result<(), Error> {
        match self.in_order {
            true => Ok(()),
            false => Err(self.into_error()),
        }
    }
}

/// The code that tells the peer which rule it broke: 1002, "a protocol error", unless it is one of
/// WebSockets themselves (RFC 6455, section 7.4.1).
fn code_of(error: &PeerError) -> u16 {
    match error {
        PeerError::WebSocket(error) => error.close_code(),
        _ => 1002,
    }
}

/// The code that answers a close frame: "typically echos the status code it received" (RFC 6455,
/// section 5.5.1), unless that is one which no frame may carry (section 7.4).
fn answer_to(code: Option<u16>) -> u16 {
    match code {
        None => Close::NORMAL,
        Some(code) if Close::may_be_sent(code) => code,
        Some(_) => 1002,
    }
}

impl Link {
    /// A WebSocket whose handshake is over. Without `keepalive` it never pings.
    pub(super) fn new(role: Role, keepalive: Option<KeepaliveConfig>, now: Instant) -> Self {
        Self {
            role,
            state: State::Open,
            keepalive: keepalive.map(|config| Keepalive::new(config, now)),
            outbox: Outbox::default(),
        }
    }

    pub(super) fn role(&self) -> Role {
        self.role
    }

    /// Whether anything may still be sent.
    pub(super) fn is_open(&self) -> bool {
        self.state == State::Open
    }

    /// Whether this side has said that it was all, and awaits the peer's close.
    fn is_closing(&self) -> bool {
        matches!(self.state, State::Closing { .. })
    }

    /// Whether what arrives counts no more.
    pub(super) fn is_ended(&self) -> bool {
        self.state == State::Ended
    }

    /// Bytes that wait for [`poll_transmit`](Self::poll_transmit), at least one a message.
    pub(super) fn queued(&self) -> usize {
        self.outbox.bytes
    }

    /// Queues what the peer may take long to read: payload.
    pub(super) fn send_input(&mut self, now: Instant, transmit: Transmit) {
        self.note_input(now);
        self.queue(transmit);
    }

    /// Takes note that payload goes out past the queue.
    pub(super) fn note_input(&mut self, now: Instant) {
        if let Some(keepalive) = &mut self.keepalive {
            keepalive.input(now);
        }
    }

    /// Queues what the peer reads at once: a size, the end of input.
    pub(super) fn send(&mut self, now: Instant, transmit: Transmit) {
        if let Some(keepalive) = &mut self.keepalive {
            keepalive.outbound(now);
        }
        self.queue(transmit);
    }

    fn queue(&mut self, transmit: Transmit) {
        if self.is_open() {
            self.outbox.push(transmit);
        }
    }

    /// Takes back what waits to be sent, but for signs of life.
    pub(super) fn take_payload(&mut self) -> VecDeque<Transmit> {
        let messages = std::mem::take(&mut self.outbox.messages);
        let (pings, payload): (VecDeque<_>, VecDeque<_>) = messages
            .into_iter()
            .partition(|transmit| transmit.opcode == Opcode::Ping);
        self.outbox.messages = pings;
        self.outbox.bytes -= payload.iter().map(cost).sum::<usize>();
        payload
    }

    /// Says that this was all, after what is queued, and awaits the peer's close.
    pub(super) fn close(&mut self, now: Instant) {
        if self.is_open() {
            self.shut(Close::NORMAL, "");
            self.state = State::Closing { since: now };
        }
    }

    /// Ends the link because the peer broke the protocol, and tells it. Whether it had not ended.
    pub(super) fn fail(&mut self, error: &PeerError) -> bool {
        self.shut(code_of(error), &error.to_string());
        self.end()
    }

    /// Ends the link because the user has gone. `told` says whether the peer knows how it ended: to
    /// a client a normal close says that all is whole.
    pub(super) fn leave(&mut self, told: bool) {
        match told || self.role == Role::Client {
            true => self.shut(Close::NORMAL, ""),
            false => self.shut(Close::INTERNAL, "the server gave up"),
        }
        self.end();
    }

    /// Ends the link. Whether it had not ended.
    pub(super) fn end(&mut self) -> bool {
        std::mem::replace(&mut self.state, State::Ended) != State::Ended
    }

    fn shut(&mut self, code: u16, reason: &str) {
        if self.is_open() {
            let close = Transmit::close(code, reason);
            self.outbox.bytes += cost(&close);
            self.outbox.close = Some(close);
        }
    }

    #[inline]
    pub(super) fn handle_activity(&mut self, now: Instant) {
        if let Some(keepalive) = &mut self.keepalive {
            keepalive.inbound(now);
        }
    }

    /// Takes a message that is not payload. A close is answered, and ends the link.
    pub(super) fn handle_control(&mut self, now: Instant, message: Message) -> Option<Closed> {
        match message {
            Message::Ping(payload) => self.owe(payload),
            Message::Pong(payload) => {
                if let Some(keepalive) = &mut self.keepalive {
                    keepalive.pong(now, &payload);
                }
            }
            Message::Close(close) => {
                let (code, reason) = close.map_or((None, String::new()), |close| {
                    (Some(close.code), close.reason)
                });
                self.shut(answer_to(code), "");
                self.end();
                return Some(Closed {
                    in_order: self.role == Role::Server || code == Some(Close::NORMAL),
                    code,
                    reason,
                });
            }
            Message::Text(_) | Message::Binary(_) => {}
        }
        None
    }

    /// Owes a pong: "MAY elect to send a Pong frame for only the most recently processed Ping"
    /// (RFC 6455, section 5.5.3).
    fn owe(&mut self, payload: Bytes) {
        if self.is_open() {
            self.outbox.pop_pong();
            let pong = Transmit::new(Opcode::Pong, payload);
            self.outbox.bytes += cost(&pong);
            self.outbox.pong = Some(pong);
        }
    }

    /// Takes the end of the connection. A peer that broke the WebSocket protocol is told.
    pub(super) fn handle_end(&mut self, lost: Option<&Error>) {
        match lost {
            Some(Error::Peer(error)) => self.fail(error),
            _ => self.end(),
        };
    }

    /// The same where nothing but a close frame says that all was well: how it ended.
    pub(super) fn handle_last(&mut self, lost: Option<Error>) -> Result<(), Error> {
        let said = self.is_closing();
        self.handle_end(lost.as_ref());
        match lost {
            lost if !said => Err(lost.unwrap_or_else(Error::cut)),
            Some(error @ Error::Peer(_)) => Err(error),
            _ => Ok(()),
        }
    }

    /// Takes note that messages are, or are no longer, held back.
    pub(super) fn handle_hold(&mut self, now: Instant, held: bool) {
        if let Some(keepalive) = &mut self.keepalive {
            keepalive.hold(now, held);
        }
    }

    /// When the peer was last heard; `None` while it is held back.
    pub(super) fn heard(&self) -> Option<Instant> {
        self.keepalive.as_ref()?.heard()
    }

    /// Does what is due at `now`. How the session ends, if it does: a peer without a sign of life is
    /// dead; one that does not answer a close frame has been told all.
    pub(super) fn handle_timeout(&mut self, now: Instant) -> Option<Result<(), Error>> {
        match self.state {
            State::Ended => return None,
            State::Closing { since } => {
                let due = later(since, limits::LINGER) <= now;
                return due.then_some(Ok(()));
            }
            State::Open => {}
        }
        loop {
            match self.keepalive.as_mut()?.handle_timeout(now) {
                Due::Nothing => return None,
                Due::Send(transmit) => self.queue_sign(transmit),
                Due::Dead(silent) => {
                    return Some(Err(NetworkError::Silent { silent }.into()));
                }
            }
        }
    }

    fn queue_sign(&mut self, transmit: Transmit) {
        let wanted = match transmit.opcode {
            // One ping in the queue asks as much as two.
            Opcode::Ping => !std::mem::replace(&mut self.outbox.pinged, true),
            // The message without a channel keeps a server from idling. To clients it is unknown:
            // client-go takes it for the end (`remotecommand/websocket.go`).
            _ => self.role == Role::Client && self.outbox.messages.is_empty(),
        };
        if wanted {
            self.outbox.push(transmit);
        }
    }

    /// When to call [`handle_timeout`](Self::handle_timeout) next, if ever.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        match self.state {
            State::Open => self.keepalive.as_ref().map(Keepalive::deadline),
            State::Closing { since } => Some(later(since, limits::LINGER)),
            State::Ended => None,
        }
    }

    /// The answer to a ping, which may go before what the session carries.
    pub(super) fn poll_pong(&mut self) -> Option<Transmit> {
        self.outbox.pop_pong()
    }

    #[inline]
    pub(super) fn poll_transmit(&mut self) -> Option<Transmit> {
        self.outbox.pop()
    }
}

/// Those methods of a [`Session`](super::Session) that are its `link`'s, or take from its `events`.
macro_rules! of_link {
    (handle_activity) => {
        #[inline]
        fn handle_activity(&mut self, now: Instant) {
            self.link.handle_activity(now);
        }
    };
    (handle_hold) => {
        #[inline]
        fn handle_hold(&mut self, now: Instant, held: bool) {
            self.link.handle_hold(now, held);
        }
    };
    (poll_transmit) => {
        #[inline]
        fn poll_transmit(&mut self) -> Option<Transmit> {
            self.link.poll_transmit()
        }
    };
    (queued) => {
        #[inline]
        fn queued(&self) -> usize {
            self.link.queued()
        }
    };
    (is_ended) => {
        #[inline]
        fn is_ended(&self) -> bool {
            self.link.is_ended()
        }
    };
    (handle_end) => {
        fn handle_end(&mut self, lost: Option<Error>) {
            if !self.link.is_ended() {
                let how = self.link.handle_last(lost);
                self.end(how);
            }
        }
    };
    (poll_event) => {
        #[inline]
        fn poll_event(&mut self) -> Option<Self::Event> {
            self.events.pop_front()
        }
    };
    ($($method:ident)+) => { $($crate::session::link::of_link!($method);)+ };
}

pub(crate) use of_link;

#[cfg(test)]
mod tests;

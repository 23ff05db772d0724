//! Messages that go one way: a watch or a log over a WebSocket.
//!
//! In flow the messages of one WebSocket; out come, on the client's side, those with data, and
//! how the stream ended. The server's side sends them. There are no channels and no Status:
//! API servers close in order (1000) where an HTTP body would end, and that is the end
//! (`k8s.io/apiserver/pkg/endpoints/handlers/watch.go`, `k8s.io/streaming/pkg/httpstream/wsstream/stream.go`).
//!
//! ```text
//!   client:  open -- the server's close ----------------> ended: in order if it was 1000
//!              +---- the end, or silent too long -------> ended: lost
//!   server:  open -- finish --> closing -- the close ---> ended: in order
//!              +---- the client's close ----------------> ended: in order
//! ```
//!
//! The states are those of every WebSocket here (`link.rs`): nothing is added to them.

use std::{collections::VecDeque, time::Instant};

use bytes::Bytes;

use super::{
    KeepaliveConfig, Message, Opcode, Session, Transmit,
    link::{Link, of_link},
};
use crate::{Role, error::Error};

/// What a stream of messages says.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum MessagesEvent {
    /// A text or binary message.
    Message(Message),
    /// The last event: the server closed in order, or how the stream was lost.
    Ended(Result<(), Error>),
}

/// One end of a WebSocket on which the server alone sends.
///
/// ```
/// use kubewire::{
///     Role,
///     session::{Message, Messages, Opcode, Session as _, messages::MessagesEvent},
/// };
/// use std::time::Instant;
///
/// let now = Instant::now();
/// let mut server = Messages::new(Role::Server, Default::default(), now);
/// let mut client = Messages::new(Role::Client, Default::default(), now);
/// server.send(now, Opcode::Text, "a line".into());
/// server.finish(now);
/// while let Some(transmit) = server.poll_transmit() {
///     client.handle_message(now, transmit.to_message());
/// }
/// assert!(matches!(client.poll_event(), Some(MessagesEvent::Message(Message::Text(_)))));
/// assert!(matches!(client.poll_event(), Some(MessagesEvent::Ended(Ok(())))));
/// ```
#[derive(Debug)]
pub struct Messages {
    link: Link,
    events: VecDeque<MessagesEvent>,
}

impl Messages {
    /// An end of a WebSocket whose handshake is over.
    pub fn new(role: Role, keepalive: KeepaliveConfig, now: Instant) -> Self {
        Self {
            link: Link::new(role, Some(keepalive), now),
            events: VecDeque::new(),
        }
    }

    /// Sends a message (server). After the end it goes nowhere.
    pub fn send(&mut self, now: Instant, opcode: Opcode, payload: Bytes) {
        self.link.send_input(now, Transmit::new(opcode, payload));
    }

    /// Ends the stream in order (server).
    pub fn finish(&mut self, now: Instant) {
        self.link.close(now);
    }

    fn end(&mut self, how: Result<(), Error>) {
        self.link.end();
        self.events.push_back(MessagesEvent::Ended(how));
    }
}

impl Session for Messages {
    type Event = MessagesEvent;

    of_link!(handle_activity handle_hold poll_transmit queued is_ended poll_event handle_end);

    fn handle_message(&mut self, now: Instant, message: Message) {
        self.handle_activity(now);
        if self.link.is_ended() {
            return;
        }
        match message {
            Message::Text(_) | Message::Binary(_) => {
                if self.link.role() == Role::Client {
                    self.events.push_back(MessagesEvent::Message(message));
                }
            }
            control => {
                if let Some(closed) = self.link.handle_control(now, control) {
                    self.end(closed.into_result());
                }
            }
        }
    }

    fn handle_timeout(&mut self, now: Instant) {
        if let Some(how) = self.link.handle_timeout(now) {
            self.end(how);
        }
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.link.poll_timeout()
    }

    fn close(&mut self) {
        self.events.clear();
        self.link.leave(false);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::limits;

    fn client(now: Instant) -> Messages {
        Messages::new(Role::Client, KeepaliveConfig::default(), now)
    }

    #[test]
    fn both_ends_agree_on_the_end() {
        let now = Instant::now();
        let mut ours = client(now);
        let mut theirs = Messages::new(Role::Server, KeepaliveConfig::default(), now);
        theirs.send(now, Opcode::Binary, Bytes::from_static(b"one"));
        theirs.finish(now);
        theirs.send(now, Opcode::Binary, Bytes::from_static(b"too late"));
        let mut texts = Vec::new();
        for _ in 0..3 {
            while let Some(transmit) = theirs.poll_transmit() {
                ours.handle_message(now, transmit.to_message());
            }
            while let Some(transmit) = ours.poll_transmit() {
                theirs.handle_message(now, transmit.to_message());
            }
            while let Some(event) = ours.poll_event() {
                texts.push(match event {
                    MessagesEvent::Message(message) => format!("{message:?}"),
                    MessagesEvent::Ended(how) => format!("{}", how.is_ok()),
                });
            }
        }
        assert_eq!(texts.len(), 2, "{texts:?}");
        assert_eq!(texts[1], "true");
        assert!(theirs.is_ended());
        // One that never answers the close is given up.
        let mut alone = Messages::new(Role::Server, KeepaliveConfig::default(), now);
        alone.finish(now);
        alone.handle_timeout(now + limits::LINGER - Duration::from_millis(1));
        assert!(!alone.is_ended());
        alone.handle_timeout(now + limits::LINGER);
        assert!(alone.is_ended());
    }
}

//! Messages that go one way: a watch or a log over a WebSocket.
//!
//! In flow the messages of one WebSocket; out come, on the client's side, those with data, and
//! how the stream ended. The server's side sends them. There are no channels and no Status:
//! API servers close in order (1000) where an HTTP body would end, and that is the end
//! (`k8s.io/apiserver/pkg/endpoints/handlers/watch.go`, `k8s.io/streaming/pkg/httpstream/wsstream/stream.go`).
//!
//! ```text
//!   open ----- close received: answer it ---------------------> ended: in order if it was 1000
//!     |  \---- the connection ends, or is silent too long ----> ended: lost
//!     +------- close sent ------> closing --- close received, or the end ---> ended
//! ```

use std::{collections::VecDeque, io, sync::Arc, time::Instant};

use bytes::Bytes;

use super::{Close, Due, Keepalive, KeepaliveConfig, Message, Opcode, Session, Transmit};
use crate::{
    Role,
    error::{Error, NetworkError},
    limits,
};

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
#[derive(Debug)]
pub struct Messages {
    role: Role,
    keepalive: Keepalive,
    transmits: VecDeque<Transmit>,
    queued: usize,
    events: VecDeque<MessagesEvent>,
    /// When the close frame was sent.
    closing: Option<Instant>,
    ended: bool,
}

impl Messages {
    /// An end of a WebSocket whose handshake is over.
    pub fn new(role: Role, keepalive: KeepaliveConfig, now: Instant) -> Self {
        Self {
            role,
            keepalive: Keepalive::new(keepalive, now),
            transmits: VecDeque::new(),
            queued: 0,
            events: VecDeque::new(),
            closing: None,
            ended: false,
        }
    }

    /// Sends a message (server). After the end it goes nowhere.
    pub fn send(&mut self, now: Instant, opcode: Opcode, payload: Bytes) {
        if self.closing.is_none() && !self.ended {
            self.keepalive.input(now);
            self.queue(Transmit::new(opcode, payload));
        }
    }

    /// Ends the stream in order (server).
    pub fn finish(&mut self, now: Instant) {
        if self.closing.is_none() && !self.ended {
            self.queue(Transmit::close(Close::NORMAL, ""));
            self.closing = Some(now);
        }
    }

    fn queue(&mut self, transmit: Transmit) {
        self.queued += transmit.len();
        self.transmits.push_back(transmit);
    }

    fn end(&mut self, how: Result<(), Error>) {
        if !self.ended {
            self.ended = true;
            self.events.push_back(MessagesEvent::Ended(how));
        }
    }

    fn closed(&mut self, close: Option<Close>) {
        let code = close.as_ref().map(|close| close.code);
        if self.closing.is_none() {
            // "MUST send a Close frame in response ... typically echos the status code" (RFC
            // 6455, section 5.5.1).
            self.queue(Transmit::close(code.unwrap_or(Close::NORMAL), ""));
        }
        if self.role == Role::Server || code == Some(Close::NORMAL) {
            return self.end(Ok(()));
        }
        let text = match close {
            None => "the server closed without a code".to_owned(),
            Some(Close { code, reason }) => format!("the server closed with {code} {reason}"),
        };
        let error = io::Error::other(text.trim_end().to_owned());
        self.end(Err(NetworkError::Lost(Arc::new(error)).into()));
    }
}

impl Session for Messages {
    type Event = MessagesEvent;

    fn handle_message(&mut self, now: Instant, message: Message) {
        self.handle_activity(now);
        if self.ended {
            return;
        }
        match message {
            Message::Text(_) | Message::Binary(_) => {
                if self.role == Role::Client {
                    self.events.push_back(MessagesEvent::Message(message));
                }
            }
            Message::Ping(payload) => {
                // Of several pings the last may be the only one that is answered (RFC 6455,
                // section 5.5.3).
                self.transmits.retain(|t| t.opcode != Opcode::Pong);
                self.queued = self.transmits.iter().map(Transmit::len).sum();
                if self.closing.is_none() {
                    self.queue(Transmit::new(Opcode::Pong, payload));
                }
            }
            Message::Pong(payload) => self.keepalive.pong(now, &payload),
            Message::Close(close) => self.closed(close),
        }
    }

    fn handle_activity(&mut self, now: Instant) {
        self.keepalive.inbound(now);
    }

    fn handle_end(&mut self, lost: Option<Error>) {
        if self.role == Role::Server {
            return self.end(Ok(()));
        }
        let cut = || NetworkError::Lost(Arc::new(io::ErrorKind::UnexpectedEof.into())).into();
        self.end(Err(lost.unwrap_or_else(cut)));
    }

    fn handle_hold(&mut self, now: Instant, held: bool) {
        self.keepalive.hold(now, held);
    }

    fn handle_timeout(&mut self, now: Instant) {
        if self.ended {
            return;
        }
        if let Some(since) = self.closing {
            // Nothing follows the close frame (RFC 6455, section 5.5.1), pings neither.
            if since + limits::LINGER <= now {
                self.end(Ok(()));
            }
            return;
        }
        loop {
            match self.keepalive.handle_timeout(now) {
                Due::Nothing => return,
                Due::Send(transmit) => self.queue(transmit),
                Due::Dead(silent) => {
                    return self.end(Err(NetworkError::Silent { silent }.into()));
                }
            }
        }
    }

    fn poll_timeout(&self) -> Option<Instant> {
        if self.ended {
            return None;
        }
        let grace = self.closing.map(|since| since + limits::LINGER);
        Some(grace.unwrap_or_else(|| self.keepalive.deadline()))
    }

    fn poll_transmit(&mut self) -> Option<Transmit> {
        let transmit = self.transmits.pop_front()?;
        self.queued -= transmit.len();
        Some(transmit)
    }

    fn queued(&self) -> usize {
        self.queued
    }

    fn is_ended(&self) -> bool {
        self.ended
    }

    fn poll_event(&mut self) -> Option<MessagesEvent> {
        self.events.pop_front()
    }

    fn close(&mut self) {
        if !self.ended && self.closing.is_none() {
            // Nobody waits for what has not gone yet.
            self.transmits.clear();
            self.queued = 0;
            self.queue(Transmit::close(Close::NORMAL, ""));
        }
        self.events.clear();
        self.ended = true;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn client(now: Instant) -> Messages {
        Messages::new(Role::Client, KeepaliveConfig::default(), now)
    }

    fn close(code: Option<u16>) -> Message {
        Message::Close(code.map(|code| Close {
            code,
            reason: String::new(),
        }))
    }

    fn end(session: &mut Messages) -> Result<(), Error> {
        match session.poll_event() {
            Some(MessagesEvent::Ended(how)) => how,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn only_a_close_in_order_is_an_end_in_order() {
        for (code, whole) in [(Some(1000), true), (Some(1001), false), (None, false)] {
            let now = Instant::now();
            let mut session = client(now);
            session.handle_message(now, Message::Text("x".into()));
            session.handle_message(now, close(code));
            assert!(matches!(
                session.poll_event(),
                Some(MessagesEvent::Message(_))
            ));
            assert_eq!(end(&mut session).is_ok(), whole, "{code:?}");
            let answer = session.poll_transmit().unwrap();
            assert_eq!(answer.opcode, Opcode::Close);
            assert_eq!(answer.payload[..2], code.unwrap_or(1000).to_be_bytes());
            assert!(session.is_ended() && session.poll_timeout().is_none());
        }
        let mut session = client(Instant::now());
        session.handle_end(None);
        assert!(matches!(
            end(&mut session),
            Err(Error::Network(NetworkError::Lost(_)))
        ));
    }

    #[test]
    fn a_silent_server_is_pinged_and_then_lost() {
        let start = Instant::now();
        let mut session = client(start);
        let mut pings = 0;
        let silent = loop {
            let now = session.poll_timeout().unwrap();
            session.handle_timeout(now);
            while let Some(transmit) = session.poll_transmit() {
                assert_eq!(transmit.opcode, Opcode::Ping);
                pings += 1;
            }
            if let Some(MessagesEvent::Ended(how)) = session.poll_event() {
                break how;
            }
        };
        assert!(pings >= 2, "{pings}");
        assert!(matches!(
            silent,
            Err(Error::Network(NetworkError::Silent { silent })) if silent >= limits::SILENCE
        ));
    }

    #[test]
    fn a_flood_of_pings_gets_one_answer() {
        let now = Instant::now();
        let mut session = client(now);
        for n in 0..100_u8 {
            session.handle_message(now, Message::Ping(vec![n].into()));
        }
        let pong = session.poll_transmit().unwrap();
        assert_eq!((pong.opcode, &pong.payload[..]), (Opcode::Pong, &[99][..]));
        assert_eq!((session.poll_transmit(), session.queued()), (None, 0));
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

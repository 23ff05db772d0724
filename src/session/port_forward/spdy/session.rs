//! Port-forward over SPDY as a session: in flow messages and the time, out come messages and events.

use std::time::Instant;

use super::Spdy;
use crate::{
    error::{Error, PeerError},
    limits,
    session::{
        Message, Opcode, Session, Transmit,
        link::of_link,
        port_forward::{ForwardEvent, PortForward},
    },
    wire::spdy::{RstStatus, SpdyError},
};

impl Session for Spdy {
    type Event = ForwardEvent;

    of_link!(is_ended poll_event);

    fn handle_message(&mut self, now: Instant, message: Message) {
        self.now = now;
        self.mux.handle_activity(now);
        match message {
            _ if self.link.is_ended() => {}
            // What one frame brings is sorted before the next: a message has room for very many.
            Message::Binary(mut bytes) => {
                while self.mux.handle_next(now, &mut bytes) {
                    self.sort();
                }
            }
            // The API server treats text as an error, too
            // (k8s.io/apiserver/pkg/util/proxy/streamtunnel.go).
            Message::Text(_) => {
                let text = PeerError::Spdy(SpdyError::Text);
                self.mux.handle_end(Some(text.into()));
            }
            control => {
                if let Some(closed) = self.link.handle_control(now, control) {
                    self.mux.handle_end(closed.into_result().err());
                }
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
        self.link.handle_end(lost.as_ref());
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
            self.waited(id);
        }
        while let Some(&(at, id)) = self.lingering.first()
            && at <= now
        {
            self.lingering.pop_first();
            self.release(id);
            let late = Error::late("ending a forwarded connection", limits::FORWARD_LINGER);
            let result = Err(late);
            self.events.push_back(ForwardEvent::Closed { id, result });
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
        if self.link.is_ended() {
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
        if let Some(pong) = self.link.poll_pong() {
            return Some(pong);
        }
        match self.mux.poll_transmit() {
            Some(bytes) => Some(Transmit::new(Opcode::Binary, bytes)),
            None => self.link.poll_transmit(),
        }
    }

    fn queued(&self) -> usize {
        self.mux.queued() + self.link.queued()
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
        // Resets and a GOAWAY have told the peer.
        self.link.leave(true);
    }
}

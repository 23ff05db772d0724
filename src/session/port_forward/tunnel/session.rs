//! A tunnel as a session: in flow messages and the time, out come messages and events.

use std::time::Instant;

use super::Tunnel;
use crate::{
    error::{Error, NetworkError, PeerError},
    limits,
    session::{Close, Message, Opcode, Session, Transmit, port_forward::ForwardEvent},
    wire::spdy::{RstStatus, SpdyError},
};

impl Session for Tunnel {
    type Event = ForwardEvent;

    fn handle_message(&mut self, now: Instant, message: Message) {
        self.now = now;
        match message {
            _ if self.ended => {}
            Message::Binary(bytes) => self.mux.handle_bytes(now, bytes),
            // The API server's end of the tunnel treats text as an error, too
            // (k8s.io/apiserver/pkg/util/proxy/streamtunnel.go).
            Message::Text(_) => self
                .mux
                .handle_end(Some(PeerError::Spdy(SpdyError::Text).into())),
            Message::Ping(payload) => {
                self.mux.handle_activity(now);
                // Only the most recent ping needs an answer (RFC 6455, section 5.5.3).
                self.pong = Some(Transmit::new(Opcode::Pong, payload));
            }
            Message::Pong(_) => self.mux.handle_activity(now),
            Message::Close(close) => {
                let code = close.as_ref().map_or(Close::NORMAL, |close| close.code);
                self.send_close(code);
                let lost = close
                    .filter(|close| close.code != Close::NORMAL)
                    .map(|close| {
                        NetworkError::ClosedWithoutStatus {
                            code: Some(close.code),
                            reason: close.reason,
                            source: None,
                        }
                        .into()
                    });
                self.mux.handle_end(lost);
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
            if let Some(connection) = self.connections.get_mut(&id) {
                connection.verdict_by = None;
                connection.verdict = true;
            }
            self.judge(id);
        }
        while let Some(&(at, id)) = self.lingering.first()
            && at <= now
        {
            self.lingering.pop_first();
            self.release(id);
            let late = NetworkError::TimedOut {
                operation: "ending a forwarded connection".into(),
                after: limits::FORWARD_LINGER,
            };
            self.events.push_back(ForwardEvent::Closed {
                id,
                result: Err(late.into()),
            });
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
        if self.ended {
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
        if let Some(pong) = self.pong.take() {
            return Some(pong);
        }
        match self.mux.poll_transmit() {
            Some(bytes) => Some(Transmit::new(Opcode::Binary, bytes)),
            None => self.close.take(),
        }
    }

    fn queued(&self) -> usize {
        let frames = [&self.pong, &self.close].into_iter().flatten();
        self.mux.queued() + frames.map(|frame| 2 + frame.len()).sum::<usize>()
    }

    fn is_ended(&self) -> bool {
        self.ended
    }

    fn poll_event(&mut self) -> Option<ForwardEvent> {
        self.events.pop_front()
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
        self.ended = true;
        self.send_close(Close::NORMAL);
    }
}

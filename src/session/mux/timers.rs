//! What is due when on a SPDY connection.

use std::time::Instant;

use super::{Abort, Mux, MuxEvent, keepalive::Due, stream::Reply};
use crate::{
    error::NetworkError,
    session::later::later,
    wire::spdy::{Ping, RstStatus},
};

impl Mux {
    /// Takes note that bytes are, or are no longer, held back. No deadline for the peer runs
    /// meanwhile.
    pub fn handle_hold(&mut self, now: Instant, held: bool) {
        self.pings.hold(now, held);
        match (self.held_since, held) {
            (None, true) => self.held_since = Some(now),
            (Some(since), false) => {
                self.held_since = None;
                let lost = now.saturating_duration_since(since);
                self.replies = std::mem::take(&mut self.replies)
                    .into_iter()
                    .map(|(at, stream)| (later(at, lost), stream))
                    .collect();
                for entry in self.streams.values_mut() {
                    if let Reply::Awaited { by } = &mut entry.reply {
                        *by = later(*by, lost);
                    }
                }
            }
            _ => {}
        }
    }

    /// Does what is due at `now`. Calling it too early does nothing.
    pub fn handle_timeout(&mut self, now: Instant) {
        while !self.ended {
            match self.pings.handle_timeout(now) {
                Due::Nothing => break,
                Due::Suspect => self.events.push_back(MuxEvent::Suspect),
                Due::Dead(silent) => {
                    return self.end(Err(NetworkError::Silent { silent }.into()));
                }
                // One ping in the queue asks as much as two.
                Due::Ping(id) if !self.ping_queued => {
                    self.ping_queued = true;
                    Ping { id }.encode(&mut self.out);
                }
                Due::Ping(_) => {}
            }
        }
        while self.held_since.is_none()
            && let Some(&(at, stream)) = self.replies.first()
            && at <= now
        {
            self.abort(stream, RstStatus::CANCEL, Abort::NoReply);
        }
        while let Some(&(at, stream)) = self.stuck.first()
            && at <= now
        {
            self.stuck.pop_first();
            let holds = self.waiting.is_crowded(&self.config);
            if let Some(entry) = self.streams.get_mut(&stream) {
                let moved = entry.watch.take();
                if !holds && entry.receive.len() < self.config.receive_buffer {
                    continue;
                }
                let next = later(now, self.config.patience);
                entry.watch.begin(next);
                self.stuck.insert((next, stream));
                if !moved {
                    self.events.push_back(MuxEvent::Stuck(stream));
                }
            }
        }
    }

    /// When to call [`handle_timeout`](Self::handle_timeout) next, if ever.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let stuck = self.stuck.first().map(|(at, _)| *at);
        if self.ended {
            return None;
        }
        let reply = self.replies.first().map(|(at, _)| *at);
        let reply = reply.filter(|_| self.held_since.is_none());
        [Some(self.pings.deadline()), stuck, reply]
            .into_iter()
            .flatten()
            .min()
    }
}

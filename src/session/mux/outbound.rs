//! What leaves a SPDY connection.

use bytes::Bytes;

use super::{Mux, MuxEvent, stream::Local};
use crate::{
    limits,
    wire::spdy::{Data, HEAD, StreamId},
};

/// Payloads up to this are copied behind their head, in bytes: handing them out by themselves
/// would cost a message of their own.
const COPY: usize = 1 << 10;
/// Frames are put together up to about this, in bytes.
const TOGETHER: usize = 16 << 10;

impl Mux {
    /// The next bytes to send. Control frames go before payload, and streams take turns, a frame
    /// of at most 32 KiB each. Large payloads are handed out as they were
    /// written, after their heads.
    pub fn poll_transmit(&mut self) -> Option<Bytes> {
        if let Some(payload) = self.staged.take() {
            return Some(payload);
        }
        while self.out.len() < TOGETHER
            && self.staged.is_none()
            && let Some(stream) = self.ring.pop_front()
        {
            self.emit(stream);
        }
        if self.out.is_empty() {
            return None;
        }
        self.owed = 0;
        self.ping_queued = false;
        Some(self.out.split().freeze())
    }

    pub(super) fn schedule(&mut self, stream: StreamId) {
        if let Some(entry) = self.streams.get_mut(&stream)
            && !entry.scheduled
        {
            entry.scheduled = true;
            self.ring.push_back(stream);
        }
    }

    /// Puts all that a stream has queued ahead of the others, so that a reset can follow it.
    pub(crate) fn flush(&mut self, stream: StreamId) {
        let Some(entry) = self.streams.get_mut(&stream) else {
            return;
        };
        while let Some(payload) = entry.send.pop(limits::SPDY_DATA) {
            self.unsent -= payload.len();
            self.pings.outbound();
            self.out
                .extend_from_slice(&Data::head_of(stream, payload.len(), false));
            self.out.extend_from_slice(&payload);
        }
        if entry.local == Local::Finishing {
            self.out.extend_from_slice(&Data::head_of(stream, 0, true));
            entry.local = Local::Closed;
        }
    }

    /// Writes the next frame of a stream to `out`, or its head there and its payload to `staged`.
    fn emit(&mut self, stream: StreamId) {
        let Some(entry) = self.streams.get_mut(&stream) else {
            return;
        };
        entry.scheduled = false;
        let payload = entry.send.pop(limits::SPDY_DATA).unwrap_or_default();
        self.unsent -= payload.len();
        let fin = entry.local == Local::Finishing && entry.send.is_empty();
        if payload.is_empty() && !fin {
            return;
        }
        if !entry.send.is_empty() {
            entry.scheduled = true;
            self.ring.push_back(stream);
        }
        if entry.blocked && entry.send.len() <= self.config.send_buffer / 2 {
            entry.blocked = false;
            if entry.local == Local::Open {
                self.events.push_back(MuxEvent::Writable(stream));
            }
        }
        if !payload.is_empty() {
            self.pings.outbound();
        }
        let head: [u8; HEAD] = Data::head_of(stream, payload.len(), fin);
        self.out.extend_from_slice(&head);
        if payload.len() <= COPY {
            self.out.extend_from_slice(&payload);
        } else {
            self.staged = Some(payload);
        }
        if fin {
            entry.local = Local::Closed;
            self.forget_if_over(stream);
        }
    }
}

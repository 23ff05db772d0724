//! What arrives on a SPDY connection.

use std::time::Instant;

use bytes::Bytes;

use super::{
    Abort, Mux, MuxEvent,
    stream::{Local, Remote, Reply, Stream},
};
use crate::{
    limits,
    session::later::later,
    wire::spdy::{Data, Frame, GoAway, Headers, Ping, RstStatus, RstStream, SpdyError, StreamId},
};

impl Mux {
    /// Takes one frame off the front of what arrived, cut anywhere. Whether there may be another:
    /// take the events first, so that there are never more of them than one frame brings.
    /// [`handle_activity`](Self::handle_activity) comes before the first.
    #[inline]
    pub fn handle_next(&mut self, now: Instant, bytes: &mut Bytes) -> bool {
        if self.ended {
            return false;
        }
        match self.decoder.decode(bytes) {
            Ok(None) => return false,
            Ok(Some(frame)) => {
                if let Err(error) = self.handle_frame(now, frame) {
                    self.fail(error);
                }
            }
            Err(error) => self.fail(error),
        }
        true
    }

    /// Takes note of a sign of life that is no bytes of this connection.
    pub fn handle_activity(&mut self, now: Instant) {
        if self.pings.inbound(now) && !self.ended {
            self.events.push_back(MuxEvent::Heard);
        }
    }

    fn handle_frame(&mut self, now: Instant, frame: Frame) -> Result<(), SpdyError> {
        match frame {
            Frame::Data(data) => self.handle_data(now, data),
            Frame::SynStream(frame) => {
                let headers = self.reader.read(&frame.block)?;
                self.handle_open(frame.stream, headers, frame.fin, frame.unidirectional)?;
            }
            Frame::SynReply(frame) => {
                // The headers say nothing, but the compression context needs them.
                self.reader.read(&frame.block)?;
                self.handle_reply(frame.stream, frame.fin);
            }
            Frame::Headers(frame) => {
                self.reader.read(&frame.block)?;
                if frame.fin {
                    self.handle_fin(frame.stream);
                }
            }
            Frame::RstStream(frame) => {
                let open = |entry: &Stream| !entry.is_closed();
                if self.streams.get(&frame.stream).is_some_and(open) {
                    self.close_stream(frame.stream, Abort::Peer(frame.status));
                }
            }
            Frame::Ping(ping) => self.handle_ping(ping),
            Frame::GoAway(frame) => self.handle_go_away(frame),
            // SETTINGS and WINDOW_UPDATE too: this end sends without asking for room, as
            // `moby/spdystream` does (`connection.go`, `frameHandler`).
            Frame::Unknown(_) => {}
        }
        match self.owed > limits::SPDY_OWED {
            true => Err(SpdyError::Flood(self.owed)),
            false => Ok(()),
        }
    }

    fn handle_data(&mut self, now: Instant, data: Data) {
        let Data {
            stream,
            payload,
            fin,
        } = data;
        let Some(entry) = self.streams.get_mut(&stream) else {
            // What was sent before the peer saw this side's reset is ignored; anything else is
            // answered with INVALID_STREAM (section 2.2.2).
            if !self.was_open(stream) {
                self.refuse(stream, RstStatus::INVALID_STREAM);
            }
            return;
        };
        match entry.remote {
            Remote::Open => {}
            Remote::Reset => return,
            // Nothing may follow FLAG_FIN; STREAM_ALREADY_CLOSED is the answer (section 2.3.6).
            Remote::Finished => {
                let status = RstStatus::STREAM_ALREADY_CLOSED;
                return self.abort(stream, status, Abort::Protocol(status));
            }
        }
        // No data may come before the SYN_REPLY; PROTOCOL_ERROR is the answer (section 2.2.2).
        if matches!(entry.reply, Reply::Awaited { .. }) {
            let status = RstStatus::PROTOCOL_ERROR;
            return self.abort(stream, status, Abort::Protocol(status));
        }
        if !payload.is_empty() {
            if entry.receive.is_empty() {
                self.events.push_back(MuxEvent::Readable(stream));
            }
            let before = entry.receive.len();
            entry.receive.push(payload);
            let after = entry.receive.len();
            self.waiting.change(&self.config, before, after);
            let bound = self.config.receive_buffer;
            if before < bound && after >= bound {
                self.events.push_back(MuxEvent::Full(stream));
            }
            if after >= bound {
                self.watch_reader(now, stream);
            } else if self.waiting.is_crowded(&self.config) && self.stuck.is_empty() {
                let fullest = self.streams.iter().max_by_key(|(_, e)| e.receive.len());
                let fullest = fullest.map_or(stream, |(fullest, _)| *fullest);
                self.watch_reader(now, fullest);
            }
        }
        if fin {
            self.handle_fin(stream);
        }
    }

    /// Gives the reader that holds back the others a time to take something: that of a stream
    /// that is full, or of the fullest if all are together.
    fn watch_reader(&mut self, now: Instant, stream: StreamId) {
        let at = later(now, self.config.patience);
        if let Some(entry) = self.streams.get_mut(&stream)
            && entry.watch.begin(at)
        {
            self.stuck.insert((at, stream));
        }
    }

    fn handle_fin(&mut self, stream: StreamId) {
        if let Some(entry) = self.streams.get_mut(&stream)
            && entry.remote == Remote::Open
        {
            entry.remote = Remote::Finished;
            self.events.push_back(MuxEvent::Finished(stream));
            self.forget_if_over(stream);
        }
    }

    fn handle_open(
        &mut self,
        stream: StreamId,
        headers: Headers,
        fin: bool,
        unidirectional: bool,
    ) -> Result<(), SpdyError> {
        // Ids have the opener's parity and increase; anything else ends the session (section
        // 2.3.2).
        if stream.opener() == self.role || stream.get() <= self.last_remote {
            return Err(SpdyError::StreamOrder(stream.get()));
        }
        self.last_remote = stream.get();
        if self.remote_streams >= self.config.max_streams || self.going_away {
            self.refuse(stream, RstStatus::REFUSED_STREAM);
            return Ok(());
        }
        let local = match unidirectional {
            true => Local::Closed,
            false => Local::Open,
        };
        let entry = Stream::new(local, Reply::Owed);
        self.streams.insert(stream, entry);
        self.remote_streams += 1;
        self.events.push_back(MuxEvent::Opened { stream, headers });
        if fin {
            self.handle_fin(stream);
        }
        Ok(())
    }

    fn handle_reply(&mut self, stream: StreamId, fin: bool) {
        // A second reply, or one to a stream that this side has reset, is ignored as
        // `moby/spdystream` does (`connection.go`, `handleReplyFrame`).
        let entry = self.streams.get_mut(&stream);
        let Some(by) = entry.and_then(Stream::take_reply) else {
            return;
        };
        self.replies.remove(&(by, stream));
        self.events.push_back(MuxEvent::Accepted(stream));
        if fin {
            self.handle_fin(stream);
        }
    }

    fn handle_ping(&mut self, ping: Ping) {
        // A ping goes back to whoever began it, which its parity tells (section 2.6.5).
        let ours = u32::from(self.role == crate::Role::Client);
        if ping.id % 2 == ours {
            self.pings.answered(ping.id);
        } else {
            self.owe(|out| ping.encode(out));
        }
    }

    fn handle_go_away(&mut self, frame: GoAway) {
        if std::mem::replace(&mut self.going_away, true) {
            return;
        }
        let last_good = frame.last_good.map_or(0, StreamId::get);
        let unhandled: Vec<StreamId> = self
            .streams
            .keys()
            .copied()
            .filter(|stream| stream.opener() == self.role && stream.get() > last_good)
            .collect();
        for stream in unhandled {
            self.close_stream(stream, Abort::GoneAway);
        }
        self.events.push_back(MuxEvent::GoAway);
    }

    fn was_open(&self, stream: StreamId) -> bool {
        match stream.opener() == self.role {
            true => stream.get() < self.next,
            false => stream.get() <= self.last_remote,
        }
    }

    /// Resets a stream that this side never knew.
    fn refuse(&mut self, stream: StreamId, status: RstStatus) {
        self.owe(|out| RstStream { stream, status }.encode(out));
    }
}

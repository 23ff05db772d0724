//! How streams, and the SPDY connection, come to their end.

use bytes::BytesMut;

use super::{
    Abort, Mux, MuxEvent,
    stream::{Local, Remote, Reply, Stream},
};
use crate::{
    error::Error,
    session::reader::Watch,
    wire::spdy::{GoAway, GoAwayStatus, RstStatus, RstStream, StreamId},
};

impl Mux {
    /// Ends the connection from this side: all streams are reset, and the peer is told.
    pub fn close(&mut self) {
        if self.ended {
            return;
        }
        let open = self.streams.iter().filter(|(_, entry)| !entry.is_closed());
        for (&stream, _) in open {
            let status = RstStatus::CANCEL;
            RstStream { stream, status }.encode(&mut self.out);
        }
        self.go_away(GoAwayStatus::OK);
        self.end(Ok(()));
    }

    pub(super) fn go_away(&mut self, status: GoAwayStatus) {
        let last_good = StreamId::new(self.last_remote);
        GoAway { last_good, status }.encode(&mut self.out);
    }

    /// Takes the end of the bytes: why they were lost, or `None` if the peer ended them in order.
    pub fn handle_end(&mut self, lost: Option<Error>) {
        match lost {
            Some(error) => self.end(Err(error)),
            None if !self.decoder.is_between_frames() => self.end(Err(Error::cut())),
            None => self.end(Ok(())),
        }
    }

    /// The peer broke the protocol.
    pub(super) fn fail(&mut self, error: crate::wire::spdy::SpdyError) {
        if !self.ended {
            self.go_away(GoAwayStatus::PROTOCOL_ERROR);
            self.end(Err(crate::error::PeerError::from(error).into()));
        }
    }

    pub(super) fn end(&mut self, how: Result<(), Error>) {
        if self.ended {
            return;
        }
        self.ended = true;
        self.ring.clear();
        self.unsent = 0;
        self.replies.clear();
        self.stuck.clear();
        self.streams.retain(|_, entry| {
            entry.local = Local::Closed;
            entry.send.clear();
            entry.watch = Watch::Off;
            entry.reply = Reply::Done;
            if entry.remote == Remote::Open {
                entry.remote = Remote::Reset;
            }
            !entry.receive.is_empty()
        });
        self.events.push_back(MuxEvent::Ended(how));
    }

    /// Tells the peer that a stream is over. What its own streams cost is owed to it: a peer that
    /// opens them without end and reads nothing is found out.
    pub(super) fn send_reset(&mut self, stream: StreamId, status: RstStatus) {
        let reset = RstStream { stream, status };
        match stream.opener() == self.role {
            true => reset.encode(&mut self.out),
            false => self.owe(|out| reset.encode(out)),
        }
    }

    /// Sends what the peer has asked for, which is owed to it until it is on its way.
    pub(super) fn owe(&mut self, encode: impl FnOnce(&mut BytesMut)) {
        let before = self.out.len();
        encode(&mut self.out);
        self.owed += self.out.len() - before;
    }

    /// Ends a stream for a reason that its owner has to be told.
    pub(super) fn abort(&mut self, stream: StreamId, status: RstStatus, why: Abort) {
        self.send_reset(stream, status);
        self.close_stream(stream, why);
    }

    /// The stream is over in both directions.
    pub(super) fn close_stream(&mut self, stream: StreamId, why: Abort) {
        self.shut(stream);
        self.events.push_back(MuxEvent::Reset { stream, why });
        self.forget_if_over(stream);
    }

    pub(super) fn shut(&mut self, stream: StreamId) {
        let Some(entry) = self.streams.get_mut(&stream) else {
            return;
        };
        self.unsent -= entry.send.len();
        entry.local = Local::Closed;
        entry.send.clear();
        entry.remote = Remote::Reset;
        if let Some(at) = entry.take_reply() {
            self.replies.remove(&(at, stream));
        }
        if std::mem::take(&mut entry.scheduled) {
            self.ring.retain(|scheduled| *scheduled != stream);
        }
    }

    pub(super) fn forget_if_over(&mut self, stream: StreamId) {
        if self.streams.get(&stream).is_some_and(Stream::is_over) {
            self.forget(stream);
        }
    }

    pub(super) fn forget(&mut self, stream: StreamId) {
        let Some(mut entry) = self.streams.remove(&stream) else {
            return;
        };
        self.waiting.change(&self.config, entry.receive.len(), 0);
        self.unsent -= entry.send.len();
        if stream.opener() != self.role {
            self.remote_streams -= 1;
        }
        if let Some(at) = entry.take_reply() {
            self.replies.remove(&(at, stream));
        }
        if let Some(at) = entry.watch.at() {
            self.stuck.remove(&(at, stream));
        }
        if entry.scheduled {
            self.ring.retain(|scheduled| *scheduled != stream);
        }
    }
}

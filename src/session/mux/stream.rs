//! One stream of a SPDY connection.

use std::time::Instant;

use crate::session::{chunks::Chunks, reader::Watch};

/// What this side may still send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Local {
    /// Anything.
    Open,
    /// What is queued, and then that this was all.
    Finishing,
    /// Nothing.
    Closed,
}

/// What the peer may still send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Remote {
    /// Anything.
    Open,
    /// Nothing: it said that this was all.
    Finished,
    /// Nothing: the stream was reset, by either end.
    Reset,
}

/// Whether the stream has been accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reply {
    /// This side has not accepted the peer's stream yet.
    Owed,
    /// The peer must have accepted this side's stream by then.
    Awaited { by: Instant },
    /// It has been accepted, or is over.
    Done,
}

#[derive(Debug)]
pub(super) struct Stream {
    pub(super) local: Local,
    pub(super) remote: Remote,
    pub(super) reply: Reply,
    pub(super) send: Chunks,
    /// Whether the stream has its turn in the queue of those that have something to send.
    pub(super) scheduled: bool,
    /// Whether its writer was told that there is no room.
    pub(super) blocked: bool,
    pub(super) receive: Chunks,
    /// When the reader is to be called stuck, if it holds back the others.
    pub(super) watch: Watch,
}

impl Stream {
    pub(super) fn new(local: Local, reply: Reply) -> Self {
        Self {
            local,
            remote: Remote::Open,
            reply,
            send: Chunks::default(),
            scheduled: false,
            blocked: false,
            receive: Chunks::default(),
            watch: Watch::Off,
        }
    }

    /// Whether neither end may send anything more.
    pub(super) fn is_closed(&self) -> bool {
        self.local == Local::Closed && self.remote != Remote::Open
    }

    /// Whether nothing is left of it.
    pub(super) fn is_over(&self) -> bool {
        self.is_closed() && self.receive.is_empty()
    }

    /// The reply is not awaited any more. When it was.
    pub(super) fn take_reply(&mut self) -> Option<Instant> {
        match std::mem::replace(&mut self.reply, Reply::Done) {
            Reply::Awaited { by } => Some(by),
            Reply::Owed | Reply::Done => None,
        }
    }
}

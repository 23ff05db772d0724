//! One stream of a SPDY connection.

use std::time::Instant;

use crate::session::chunks::Chunks;

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

#[derive(Debug)]
pub(super) struct Stream {
    pub(super) local: Local,
    pub(super) remote: Remote,
    /// Whether the stream has been accepted.
    pub(super) replied: bool,
    /// When this side gives up waiting for that.
    pub(super) reply_by: Option<Instant>,
    pub(super) send: Chunks,
    /// Whether the stream has its turn in the queue of those that have something to send.
    pub(super) scheduled: bool,
    /// Whether its writer was told that there is no room.
    pub(super) blocked: bool,
    pub(super) receive: Chunks,
    /// When the reader is to be called stuck, if it holds back the others.
    pub(super) stuck_at: Option<Instant>,
    /// Whether the reader has taken something since that was set.
    pub(super) progress: bool,
}

impl Stream {
    pub(super) fn new(local: Local, remote: Remote, replied: bool) -> Self {
        Self {
            local,
            remote,
            replied,
            reply_by: None,
            send: Chunks::default(),
            scheduled: false,
            blocked: false,
            receive: Chunks::default(),
            stuck_at: None,
            progress: false,
        }
    }

    /// Whether neither end may send anything more.
    pub(super) fn is_closed(&self) -> bool {
        self.local == Local::Closed && self.remote != Remote::Open
    }
}

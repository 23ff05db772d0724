//! What a SPDY connection can be told, and what it tells.

use std::time::Duration;

use super::MuxKeepalive;
use crate::{
    error::Error,
    limits,
    wire::spdy::{Headers, RstStatus, StreamId},
};

/// The bounds and times of a [`Mux`](super::Mux).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct MuxConfig {
    /// Bytes of one stream that may wait for its reader.
    pub receive_buffer: usize,
    /// Bytes of all streams together that may wait for their readers.
    pub receive_total: usize,
    /// Bytes of one stream that may wait to be sent before [`Mux::room`](super::Mux::room) is zero.
    pub send_buffer: usize,
    /// The time after which a reader of a full stream that takes nothing is reported as stuck.
    pub patience: Duration,
    /// The time within which the peer must accept a stream.
    pub reply: Duration,
    /// Streams that the peer may have open at once; more are refused.
    pub max_streams: usize,
    /// Signs of life.
    pub keepalive: MuxKeepalive,
}

impl MuxConfig {
    /// Bytes of all streams together at which they wait, no stream counted for more than a share.
    pub(super) fn crowd(&self) -> usize {
        (self.receive_total / 32).max(1)
    }

    pub(super) fn share(&self) -> usize {
        self.crowd() / 16
    }
}

impl Default for MuxConfig {
    fn default() -> Self {
        Self {
            receive_buffer: limits::FORWARD_RECEIVE,
            receive_total: limits::FORWARD_RECEIVE_TOTAL,
            send_buffer: limits::FORWARD_SEND,
            patience: limits::FORWARD_PATIENCE,
            reply: limits::FORWARD_REPLY,
            max_streams: limits::SPDY_STREAMS,
            keepalive: MuxKeepalive::default(),
        }
    }
}

/// What a [`Mux`](super::Mux) tells its owner.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum MuxEvent {
    /// The peer opened a stream: [`Mux::accept`](super::Mux::accept) it, or [`Mux::reset`](super::Mux::reset) it.
    Opened {
        /// The stream.
        stream: StreamId,
        /// What the peer says about it.
        headers: Headers,
    },
    /// The peer accepted a stream.
    Accepted(StreamId),
    /// [`Mux::read`](super::Mux::read) has something again, after it had nothing.
    Readable(StreamId),
    /// The peer sends nothing more on the stream; what it sent may still have to be read.
    Finished(StreamId),
    /// [`Mux::room`](super::Mux::room) is at least half of the bound again, after it was none.
    Writable(StreamId),
    /// As much waits for the stream's reader as may: see [the module](super).
    Full(StreamId),
    /// The reader of a full stream has taken nothing for [`MuxConfig::patience`].
    Stuck(StreamId),
    /// The stream is over in both directions; what arrived before may still be read.
    Reset {
        /// The stream.
        stream: StreamId,
        /// Whose doing it was.
        why: Abort,
    },
    /// The peer accepts no new streams; those that it did not handle have been
    /// [reset](MuxEvent::Reset).
    GoAway,
    /// The peer is silent although a ping is out. New streams have better chances elsewhere.
    Suspect,
    /// The peer is not silent any more.
    Heard,
    /// Nothing follows: no stream can send or receive any more. What arrived may still be read.
    Ended(Result<(), Error>),
}

/// Whose doing a reset was, where it was not [`Mux::reset`](super::Mux::reset).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Abort {
    /// The peer's.
    Peer(RstStatus),
    /// The peer did not accept the stream within [`MuxConfig::reply`].
    NoReply,
    /// The peer broke the protocol on this stream, in the way that this status names.
    Protocol(RstStatus),
    /// The peer went away without having handled the stream.
    GoneAway,
}

/// Why a stream cannot be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The peer accepts no new streams.
    #[error("the peer accepts no new streams")]
    GoingAway,
    /// A billion streams have been opened: no id is left.
    #[error("the connection has no stream id left")]
    Exhausted,
    /// The connection has ended.
    #[error("the connection has ended")]
    Ended,
}

//! A SPDY connection: many streams over one pair of byte streams.
//!
//! In flow the bytes that arrived, and commands for single streams; out come bytes to send, and
//! [events](MuxEvent). Payload that arrived waits here, stream by stream, until
//! [`read`](Mux::read) takes it; payload to send waits here until its turn has come, a frame a
//! stream in turn.
//!
//! ```text
//!                  local                                   remote
//!   open/Opened -> Open -- finish --> Finishing            Open -- FIN ---------> Finished
//!                    |                   | sent              |
//!                    +---- reset ----> Closed <-- reset -----+---- RST_STREAM --> Reset
//!
//!   A stream is forgotten when it is Closed, not Open, and has been read to its end.
//! ```
//!
//! # What a slow reader does
//!
//! There is no flow control: `moby/spdystream`, the one implementation that matters, sends no
//! WINDOW_UPDATE and heeds none. A stream whose reader falls behind fills up to
//! [`receive_buffer`](MuxConfig::receive_buffer), while the others go on. Then [`MuxEvent::Full`]
//! asks the owner for a choice: [`reset`](Mux::reset) it at once, or do nothing, whereupon
//! [`wants_hold`](Mux::wants_hold) tells the driver to hand in nothing more until it has been
//! read, so that all streams wait. A reader that takes nothing at all for
//! [`patience`](MuxConfig::patience) is reported as [`MuxEvent::Stuck`], again and again.
//!
//! All streams together have two bounds. Where many wait for their readers, each a little, more
//! would only wait longer, in memory: a 32nd of [`receive_total`](MuxConfig::receive_total) is
//! the bound for them, of which no stream counts for more than a sixteenth. A few streams with slow
//! readers so leave the others all of their room, and have `receive_total` for themselves.
//!
//! What is handed in at once is taken whole, so that a stream can exceed its bound by one message.

mod closing;
mod event;
mod inbound;
mod keepalive;
mod outbound;
mod stream;
mod timers;
mod waiting;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Instant,
};

use bytes::{Bytes, BytesMut};

use self::{
    keepalive::Pings,
    stream::{Local, Remote, Reply, Stream},
    waiting::Waiting,
};
use super::{later::later, reader::Watch};
use crate::{
    Role,
    error::CallerError,
    limits,
    wire::spdy::{
        Data, Decoder, HeaderReader, HeaderWriter, Headers, RstStatus, StreamId, SynReply,
        SynStream,
    },
};

pub use self::{
    event::{Abort, MuxConfig, MuxEvent, OpenError},
    keepalive::MuxKeepalive,
};

/// A SPDY connection. See [the module](self); the contract is that of
/// [`Session`](super::Session), with bytes instead of messages.
///
/// ```
/// use kubewire::{
///     Role,
///     session::mux::{Abort, Mux, MuxConfig, MuxEvent, MuxKeepalive, OpenError},
///     wire::spdy::{Headers, RstStatus},
/// };
/// use std::time::{Duration, Instant};
///
/// /// What one end sends, the other is handed frame by frame.
/// fn carry(from: &mut Mux, to: &mut Mux, now: Instant) {
///     while let Some(mut bytes) = from.poll_transmit() {
///         to.handle_activity(now);
///         while to.handle_next(now, &mut bytes) {}
///     }
/// }
///
/// let now = Instant::now();
/// let mut config = MuxConfig::default();
/// config.keepalive.interval = Duration::from_secs(5);
/// assert_ne!(config.keepalive, MuxKeepalive::default());
/// let mut client = Mux::new(Role::Client, config, now);
/// let mut server = Mux::new(Role::Server, MuxConfig::default(), now);
///
/// let stream = client.open(now, &Headers::new().with("port", "80"))?;
/// client.write(stream, "hello".into())?;
/// client.finish(stream);
/// carry(&mut client, &mut server, now);
///
/// let Some(MuxEvent::Opened { stream, headers }) = server.poll_event() else {
///     panic!("the peer opened a stream");
/// };
/// assert_eq!(headers.get("port"), Some("80"));
/// assert_eq!(server.read(stream).as_deref(), Some(&b"hello"[..]));
/// assert!(server.is_finished(stream));
///
/// server.reset(stream, RstStatus::CANCEL);
/// carry(&mut server, &mut client, now);
/// let why = Abort::Peer(RstStatus::CANCEL);
/// let reset = |event| matches!(event, MuxEvent::Reset { why: it, .. } if it == why);
/// assert!(std::iter::from_fn(|| client.poll_event()).any(reset));
///
/// client.handle_end(None);
/// assert_eq!(client.can_open(), Err(OpenError::Ended));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Mux {
    role: Role,
    config: MuxConfig,
    streams: BTreeMap<StreamId, Stream>,
    /// How many of the streams the peer opened.
    remote_streams: usize,
    next: u32,
    last_remote: u32,
    decoder: Decoder,
    reader: HeaderReader,
    writer: HeaderWriter,
    /// Control frames, and heads and small payloads of DATA, to go out next.
    out: BytesMut,
    /// The payload whose head is at the end of what was handed out last.
    staged: Option<Bytes>,
    /// Bytes in `out` that the peer asked for.
    owed: usize,
    /// Whether a ping is in `out`.
    ping_queued: bool,
    /// The streams that have something to send, in turn.
    ring: VecDeque<StreamId>,
    /// Bytes in all send queues.
    unsent: usize,
    /// What waits in the receive queues.
    waiting: Waiting,
    /// When which stream must have been accepted.
    replies: BTreeSet<(Instant, StreamId)>,
    /// When the reader of which full stream is stuck.
    stuck: BTreeSet<(Instant, StreamId)>,
    pings: Pings,
    held_since: Option<Instant>,
    going_away: bool,
    ended: bool,
    events: VecDeque<MuxEvent>,
}

impl Mux {
    /// A connection that begins at `now`.
    pub fn new(role: Role, config: MuxConfig, now: Instant) -> Self {
        let pings = Pings::new(role, config.keepalive, now);
        Self {
            role,
            config,
            streams: BTreeMap::new(),
            remote_streams: 0,
            // Odd from clients, even from servers (section 2.3.2).
            next: match role {
                Role::Client => 1,
                Role::Server => 2,
            },
            last_remote: 0,
            decoder: Decoder::new(),
            reader: HeaderReader::new(),
            writer: HeaderWriter::new(),
            out: BytesMut::new(),
            staged: None,
            owed: 0,
            ping_queued: false,
            ring: VecDeque::new(),
            unsent: 0,
            waiting: Waiting::default(),
            replies: BTreeSet::new(),
            stuck: BTreeSet::new(),
            pings,
            held_since: None,
            going_away: false,
            ended: false,
            events: VecDeque::new(),
        }
    }

    /// Streams that are not forgotten: open ones, and those that have not been read to the end.
    pub fn len(&self) -> usize {
        self.streams.len()
    }

    /// Whether there are no streams.
    pub fn is_empty(&self) -> bool {
        self.streams.is_empty()
    }

    /// Whether the peer is silent although a ping is out.
    pub fn is_suspect(&self) -> bool {
        self.pings.is_suspect()
    }

    /// Whether the connection can open streams.
    pub fn can_open(&self) -> Result<(), OpenError> {
        if self.ended {
            Err(OpenError::Ended)
        } else if self.going_away {
            Err(OpenError::GoingAway)
        } else if self.next > StreamId::MAX {
            Err(OpenError::Exhausted)
        } else {
            Ok(())
        }
    }

    /// Opens a stream. It can be written to at once; `moby/spdystream` handles the frames of a
    /// stream in order, so that none overtakes the acceptance.
    ///
    /// # Errors
    ///
    /// If [`can_open`](Self::can_open) says so.
    pub fn open(&mut self, now: Instant, headers: &Headers) -> Result<StreamId, OpenError> {
        self.can_open()?;
        let stream = StreamId::new(self.next).ok_or(OpenError::Exhausted)?;
        let block = match self.writer.write(headers) {
            Ok(block) => block,
            Err(error) => {
                self.fail(error);
                return Err(OpenError::Ended);
            }
        };
        self.next += 2;
        SynStream {
            stream,
            associated: None,
            priority: 0,
            fin: false,
            unidirectional: false,
            block,
        }
        .encode(&mut self.out);
        let by = later(now, self.config.reply);
        let entry = Stream::new(Local::Open, Reply::Awaited { by });
        self.replies.insert((by, stream));
        self.streams.insert(stream, entry);
        Ok(stream)
    }

    /// Accepts a stream that the peer opened. Doing it again does nothing.
    pub fn accept(&mut self, stream: StreamId) {
        match self.streams.get_mut(&stream) {
            Some(entry) if entry.reply == Reply::Owed => entry.reply = Reply::Done,
            _ => return,
        }
        match self.writer.write(&Headers::new()) {
            Ok(block) => {
                let fin = false;
                let reply = SynReply { stream, fin, block };
                self.owe(|out| reply.encode(out));
            }
            Err(error) => self.fail(error),
        }
    }

    /// Bytes that should be written to the stream at most; none if it takes no more.
    pub fn room(&self, stream: StreamId) -> usize {
        match self.streams.get(&stream) {
            Some(entry) if entry.local == Local::Open => {
                self.config.send_buffer.saturating_sub(entry.send.len())
            }
            _ => 0,
        }
    }

    /// Whether [`write`](Self::write) has a chance, now or when there is room.
    pub fn can_write(&self, stream: StreamId) -> bool {
        let entry = self.streams.get(&stream);
        entry.is_some_and(|entry| entry.local == Local::Open)
    }

    /// Queues payload. More than [`room`](Self::room) is taken too.
    ///
    /// # Errors
    ///
    /// [`CallerError::Ended`] if the stream is finished, reset or forgotten.
    pub fn write(&mut self, stream: StreamId, payload: Bytes) -> Result<(), CallerError> {
        let entry = self.streams.get_mut(&stream);
        let Some(entry) = entry.filter(|entry| entry.local == Local::Open) else {
            return Err(CallerError::Ended);
        };
        if payload.is_empty() {
            return Ok(());
        }
        self.unsent += payload.len();
        entry.send.push(payload);
        entry.blocked |= entry.send.len() >= self.config.send_buffer;
        self.schedule(stream);
        Ok(())
    }

    /// Says, after all that was written, that this was all. Doing it again does nothing.
    pub fn finish(&mut self, stream: StreamId) {
        if let Some(entry) = self.streams.get_mut(&stream)
            && entry.local == Local::Open
        {
            entry.local = Local::Finishing;
            self.schedule(stream);
        }
    }

    /// Writes a payload and says that it was all, ahead of the payload of other streams. For
    /// short texts that explain what follows.
    ///
    /// # Errors
    ///
    /// [`CallerError::Ended`] if the stream is finished, reset or forgotten.
    pub fn finish_with(&mut self, stream: StreamId, payload: &[u8]) -> Result<(), CallerError> {
        let entry = self.streams.get_mut(&stream);
        let Some(entry) = entry.filter(|entry| entry.local == Local::Open) else {
            return Err(CallerError::Ended);
        };
        if !entry.send.is_empty() || payload.len() > limits::SPDY_DATA {
            self.write(stream, Bytes::copy_from_slice(payload))?;
            self.finish(stream);
            return Ok(());
        }
        entry.local = Local::Closed;
        let head = Data::head_of(stream, payload.len(), true);
        self.out.extend_from_slice(&head);
        self.out.extend_from_slice(payload);
        self.forget_if_over(stream);
        Ok(())
    }

    /// Ends the stream in both directions, forgets it, and drops what waits on it. The peer is
    /// told unless it has finished and so has this side. There is no event.
    pub fn reset(&mut self, stream: StreamId, status: RstStatus) {
        self.cancel(stream, status);
        self.forget(stream);
    }

    /// Ends the stream in both directions like [`reset`](Self::reset), but what has arrived may
    /// still be read.
    pub fn cancel(&mut self, stream: StreamId, status: RstStatus) {
        let Some(entry) = self.streams.get_mut(&stream) else {
            return;
        };
        // Also after this side has said that it was all: `moby/spdystream` does not, so that its
        // peers wait for nothing (`stream.go`, `resetStream`).
        if !entry.is_closed() && !self.ended {
            self.send_reset(stream, status);
        }
        self.shut(stream);
        self.forget_if_over(stream);
    }

    /// The next payload that arrived on the stream. `None` if there is none now, or never will be.
    pub fn read(&mut self, stream: StreamId) -> Option<Bytes> {
        let entry = self.streams.get_mut(&stream)?;
        let before = entry.receive.len();
        let payload = entry.receive.pop(usize::MAX)?;
        let left = entry.receive.len();
        self.waiting.change(&self.config, before, left);
        entry.watch.note();
        if left < self.config.receive_buffer
            && !self.waiting.is_crowded(&self.config)
            && let Some(at) = entry.watch.at()
        {
            entry.watch = Watch::Off;
            self.stuck.remove(&(at, stream));
        }
        if entry.is_over() {
            self.forget(stream);
        }
        Some(payload)
    }

    /// Bytes that [`read`](Self::read) has for the stream.
    pub fn readable(&self, stream: StreamId) -> usize {
        self.streams
            .get(&stream)
            .map_or(0, |entry| entry.receive.len())
    }

    /// Whether the peer sends nothing more on the stream because it said so.
    pub fn is_finished(&self, stream: StreamId) -> bool {
        let entry = self.streams.get(&stream);
        entry.is_some_and(|entry| entry.remote == Remote::Finished)
    }

    /// Whether nothing should be handed in until more has been read.
    pub fn wants_hold(&self) -> bool {
        self.waiting.wants_hold(&self.config)
    }

    /// Bytes that [`poll_transmit`](Self::poll_transmit) has, frame heads of waiting payload not
    /// counted.
    pub fn queued(&self) -> usize {
        let staged = self.staged.as_ref().map_or(0, Bytes::len);
        let fins = self.ring.len();
        self.out.len() + staged + self.unsent + fins
    }

    /// The next event.
    pub fn poll_event(&mut self) -> Option<MuxEvent> {
        self.events.pop_front()
    }
}

#[cfg(test)]
mod tests;

//! exec and attach over a socket: in flow a session and its WebSocket, out come one handle a
//! stream, in either role.
//!
//! [`Input`] reads a stream that the peer writes, [`Output`] writes one that the peer reads, and
//! [`Control`] learns the status and ends the session. The client's child and the server's
//! process are made of these.

use std::{
    collections::VecDeque,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Instant,
};

use bytes::Bytes;
use tokio::io::AsyncWrite;

use super::{
    shared::{Endpoint, Shared, Slot, Waiting},
    slices::read_slices,
    websocket::WebSocket,
};
use crate::{
    error::{CallerError, Error},
    limits,
    session::{
        Message, RemoteCommand, Session, Subprotocol, Transmit,
        remote_command::{RemoteCommandEvent, Streams},
    },
    transport::now,
    wire::{channel::Channel, resize::TerminalSize, status::Status},
};

/// What a queued slice costs beside its bytes, so that a flood of tiny messages is bounded too.
const SLICE: usize = 64;

/// What a reader takes from its queue at once: many small slices cost one lock.
const BATCH: usize = 256 << 10;

/// Sizes of the client's terminal that are kept for a server which has not asked yet: the last,
/// and the one before, from which it must differ for a program to draw its screen again
/// (`k8s.io/kubectl/pkg/cmd/attach/attach.go` sends two for this).
const SIZES: usize = 2;

const STATUS_SLOT: Slot = 3;
const RESIZE_SLOT: Slot = 4;

/// What has arrived of one stream and waits for its reader.
#[derive(Debug, Default)]
struct Inbox {
    slices: VecDeque<Bytes>,
    cost: usize,
    /// Whether there is a reader. Without one, bytes are dropped as they come.
    read: bool,
    finished: bool,
}

impl Inbox {
    fn push(&mut self, bytes: Bytes) {
        if self.read {
            self.cost += bytes.len() + SLICE;
            self.slices.push_back(bytes);
        }
    }

    fn pop(&mut self) -> Option<Bytes> {
        let slice = self.slices.pop_front()?;
        self.cost -= slice.len() + SLICE;
        Some(slice)
    }
}

/// A session with the queues of its streams.
#[derive(Debug)]
pub(crate) struct Remote {
    session: RemoteCommand,
    inboxes: [Inbox; 3],
    /// The bound of each inbox.
    bound: usize,
    status: Option<Status>,
    sizes: VecDeque<TerminalSize>,
    ended: Option<Result<(), Error>>,
    warned: bool,
    /// The slots of handles for which something has come, a bit each.
    woken: u8,
}

/// All handles.
const ALL_SLOTS: u8 = u8::MAX;

impl Remote {
    /// Puts an event where its handle finds it.
    #[inline]
    fn sort(&mut self, event: RemoteCommandEvent) {
        match event {
            RemoteCommandEvent::Data(channel, bytes) => {
                self.inbox(channel).push(bytes);
                self.woken |= 1 << channel.number();
            }
            RemoteCommandEvent::Finished(channel) => {
                self.inbox(channel).finished = true;
                self.woken |= 1 << channel.number();
            }
            RemoteCommandEvent::Resize(size) => {
                if self.sizes.len() == SIZES {
                    self.sizes.pop_front();
                }
                self.sizes.push_back(size);
                self.woken |= 1 << RESIZE_SLOT;
            }
            RemoteCommandEvent::Status(status) => {
                self.status = Some(*status);
                self.woken |= 1 << STATUS_SLOT;
            }
            RemoteCommandEvent::Ended(how) => {
                self.ended = Some(how);
                self.woken = ALL_SLOTS;
            }
        }
    }

    fn inbox(&mut self, channel: Channel) -> &mut Inbox {
        // Readers exist for the first three channels only.
        &mut self.inboxes[usize::from(channel.number()) % 3]
    }

    /// The stream whose reader holds everything else back.
    fn full(&self) -> Option<Channel> {
        let at = self
            .inboxes
            .iter()
            .position(|inbox| inbox.cost >= self.bound)?;
        Channel::from_number(at as u8)
    }
}

impl Session for Remote {
    type Event = ();

    fn handle_message(&mut self, now: Instant, message: Message) {
        if let Some(event) = self.session.receive(now, message) {
            self.sort(event);
        }
    }

    fn handle_activity(&mut self, now: Instant) {
        self.session.handle_activity(now);
    }

    fn handle_end(&mut self, lost: Option<Error>) {
        self.session.handle_end(lost);
    }

    fn handle_hold(&mut self, now: Instant, held: bool) {
        self.session.handle_hold(now, held);
        if let (Some(channel), true, false) = (self.full(), held, self.warned) {
            self.warned = true;
            tracing::debug!(
                stream = channel.name(),
                bytes = self.bound,
                "a stream is full: nothing else of the session arrives until it is read"
            );
        }
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.session.handle_timeout(now);
        // What many small slices have needed, an idle session does not.
        for inbox in self.inboxes.iter_mut().filter(|inbox| inbox.cost == 0) {
            inbox.slices = VecDeque::new();
        }
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.session.poll_timeout()
    }

    fn poll_transmit(&mut self) -> Option<Transmit> {
        self.session.poll_transmit()
    }

    fn poll_event(&mut self) -> Option<()> {
        None
    }

    fn close(&mut self) {
        self.session.close();
        self.ended.get_or_insert(Err(CallerError::Killed.into()));
    }
}

impl Endpoint for Remote {
    fn sort_events(&mut self, waiting: &mut Waiting, _writing: &mut Waiting) {
        while let Some(event) = self.session.poll_event() {
            self.sort(event);
        }
        let mut woken = std::mem::take(&mut self.woken);
        while woken != 0 {
            waiting.wake(woken.trailing_zeros() as usize);
            woken &= woken - 1;
        }
    }

    fn has_room(&self) -> bool {
        self.full().is_none()
    }

    fn queued(&self) -> usize {
        self.session.queued()
    }

    fn is_ended(&self) -> bool {
        self.session.is_ended()
    }

    fn is_complete(&self) -> bool {
        self.status.is_some()
    }
}

type SharedRemote = Arc<Shared<Remote>>;

/// All handles of a session. The connection is closed when the last of them is dropped.
#[derive(Debug)]
struct Lease(SharedRemote);

impl Drop for Lease {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// Takes a session apart into its handles.
pub(crate) fn spawn(
    session: RemoteCommand,
    socket: Box<dyn WebSocket>,
    bound: usize,
    reads: &[Channel],
) -> Control {
    let mut inboxes = <[Inbox; 3]>::default();
    for channel in reads {
        inboxes[usize::from(channel.number()) % 3].read = true;
    }
    let remote = Remote {
        session,
        inboxes,
        bound: bound.max(1),
        status: None,
        sizes: VecDeque::new(),
        ended: None,
        warned: false,
        woken: 0,
    };
    Control {
        lease: Arc::new(Lease(Shared::spawn(remote, socket))),
    }
}

/// The handle of the session itself.
#[derive(Debug, Clone)]
pub(crate) struct Control {
    lease: Arc<Lease>,
}

impl Control {
    fn shared(&self) -> &SharedRemote {
        &self.lease.0
    }

    /// The reader of a stream; there must be at most one.
    pub(crate) fn input(&self, channel: Channel) -> Input {
        Input {
            control: self.clone(),
            channel,
            current: Bytes::new(),
            more: VecDeque::new(),
            failed: false,
        }
    }

    /// The writer of a stream; there must be at most one.
    pub(crate) fn output(&self, channel: Channel) -> Output {
        Output {
            control: self.clone(),
            channel,
        }
    }

    pub(crate) fn protocol(&self) -> Subprotocol {
        self.shared().lock().endpoint.session.protocol()
    }

    pub(crate) fn streams(&self) -> Streams {
        self.shared().lock().endpoint.session.streams()
    }

    /// Waits for the Status, or for an end without one. `unread` says which streams nobody can
    /// be reading meanwhile: that one of them is full is an error.
    pub(crate) fn poll_status(
        &self,
        cx: &mut Context<'_>,
        unread: &[Channel],
    ) -> Poll<Result<Status, Error>> {
        let polled = self.shared().poll_take(cx, STATUS_SLOT, |remote| {
            if let Some(status) = &remote.status {
                return Some(Ok(status.clone()));
            }
            if let Some(how) = &remote.ended {
                // A session never ends well before its Status.
                return Some(Err(how.clone().err().unwrap_or(CallerError::Ended.into())));
            }
            let stream = remote
                .full()
                .filter(|channel| unread.contains(channel))?
                .name();
            Some(Err(CallerError::Unread {
                stream,
                bytes: remote.bound,
            }
            .into()))
        });
        if matches!(polled, Poll::Ready(Ok(_))) {
            self.shared().see_off();
        }
        polled
    }

    /// Waits for the end of the session.
    pub(crate) fn poll_ended(&self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.shared()
            .poll_take(cx, STATUS_SLOT, |remote| remote.ended.clone())
    }

    /// Waits for the next size of the client's terminal; `None` when there can be none.
    pub(crate) fn poll_resize(&self, cx: &mut Context<'_>) -> Poll<Option<TerminalSize>> {
        self.shared()
            .poll_take(cx, RESIZE_SLOT, |remote| match remote.sizes.pop_front() {
                Some(size) => Some(Some(size)),
                None => remote.ended.as_ref().map(|_| None),
            })
    }

    pub(crate) fn has_status(&self) -> bool {
        self.shared().lock().endpoint.status.is_some()
    }

    /// The stream whose reader holds everything else back, if one does.
    pub(crate) fn full(&self) -> Option<Channel> {
        self.shared().lock().endpoint.full()
    }

    pub(crate) fn resize(&self, size: TerminalSize) -> Result<(), Error> {
        let mut state = self.shared().lock();
        state.endpoint.session.resize(now(), size)?;
        self.shared().push(&mut state);
        Ok(())
    }

    pub(crate) fn exit(&self, status: &Status) -> Result<(), Error> {
        let mut state = self.shared().lock();
        state.endpoint.session.exit(now(), status)?;
        self.shared().push(&mut state);
        Ok(())
    }

    /// Ends the session from this side.
    pub(crate) fn close(&self) {
        self.shared().close();
    }

    /// Drops what arrives of a stream from now on.
    pub(crate) fn discard(&self, channel: Channel) {
        let mut state = self.shared().lock();
        let inbox = state.endpoint.inbox(channel);
        *inbox = Inbox {
            finished: inbox.finished,
            ..Inbox::default()
        };
        drop(state);
        self.shared().leave(channel.number().into());
    }
}

/// The reading end of a stream.
#[derive(Debug)]
pub(crate) struct Input {
    control: Control,
    channel: Channel,
    current: Bytes,
    /// Slices that were taken from the queue together.
    more: VecDeque<Bytes>,
    /// Whether the stream of slices has given its error, after which it ends.
    failed: bool,
}

impl Input {
    /// [`poll_slice`](Self::poll_slice) as a stream, which ends after an error.
    #[inline]
    pub(crate) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        if self.failed {
            return Poll::Ready(None);
        }
        let next = ready!(self.poll_slice(cx));
        self.failed = matches!(next, Some(Err(_)));
        Poll::Ready(next)
    }

    /// The next slice, without copying it; `None` at the end of the stream.
    #[inline]
    pub(crate) fn poll_slice(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        if !self.current.is_empty() {
            return Poll::Ready(Some(Ok(std::mem::take(&mut self.current))));
        }
        if let Some(slice) = self.more.pop_front() {
            return Poll::Ready(Some(Ok(slice)));
        }
        let Self {
            control,
            channel,
            more,
            ..
        } = self;
        let slot = channel.number().into();
        control.shared().poll_take(cx, slot, |remote| {
            let Remote { inboxes, ended, .. } = remote;
            let inbox = &mut inboxes[usize::from(channel.number()) % 3];
            if inbox.cost <= BATCH {
                inbox.cost = 0;
                std::mem::swap(&mut inbox.slices, more);
                if let Some(first) = more.pop_front() {
                    return Some(Some(Ok(first)));
                }
            } else if let Some(first) = inbox.pop() {
                let mut taken = first.len();
                while taken < BATCH
                    && let Some(slice) = inbox.pop()
                {
                    taken += slice.len() + SLICE;
                    more.push_back(slice);
                }
                return Some(Some(Ok(first)));
            }
            match ended {
                _ if inbox.finished => Some(None),
                None => None,
                Some(Ok(())) => Some(None),
                Some(Err(error)) => Some(Some(Err(error.clone().into()))),
            }
        })
    }
}

impl Drop for Input {
    fn drop(&mut self) {
        self.control.discard(self.channel);
    }
}

read_slices!(Input);

/// The writing end of a stream.
#[derive(Debug)]
pub(crate) struct Output {
    control: Control,
    channel: Channel,
}

impl Output {
    fn slot(&self) -> Slot {
        self.channel.number().into()
    }

    /// Waits until the stream takes more.
    pub(crate) fn poll_ready(&self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        drop(ready!(self.control.shared().poll_room(cx, self.slot())));
        Poll::Ready(Ok(()))
    }

    /// Queues bytes without copying them, whatever the room.
    pub(crate) fn send(&self, mut bytes: Bytes) -> Result<(), Error> {
        let shared = self.control.shared();
        let mut state = shared.lock();
        if state.is_deaf() {
            return Err(CallerError::Ended.into());
        }
        let now = now();
        while !bytes.is_empty() {
            let part = bytes.split_to(bytes.len().min(limits::INPUT_MESSAGE));
            state.endpoint.session.write(now, self.channel, part)?;
        }
        shared.push(&mut state);
        Ok(())
    }

    pub(crate) fn poll_write(
        &self,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<Result<usize, Error>> {
        let shared = self.control.shared();
        let mut state = ready!(shared.poll_room(cx, self.slot()));
        let (Remote { session, .. }, Some(socket)) = state.parts() else {
            return Poll::Ready(Err(CallerError::Ended.into()));
        };
        let part = &bytes[..bytes.len().min(limits::INPUT_MESSAGE)];
        let now = now();
        match session.write_through(now, self.channel)? {
            Some(prefix) if !part.is_empty() => socket.send_copy(prefix, part),
            _ => session.write(now, self.channel, Bytes::copy_from_slice(part))?,
        }
        shared.push(&mut state);
        Poll::Ready(Ok(part.len()))
    }

    pub(crate) fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.control.shared().poll_flushed(cx, self.slot()).map(Ok)
    }

    /// Sends what is queued, then ends the stream alone, where the subprotocol can.
    pub(crate) fn poll_finish(&self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        ready!(self.poll_flush(cx))?;
        self.finish()?;
        self.poll_flush(cx)
    }

    /// Queues the end of the stream.
    pub(crate) fn finish(&self) -> Result<(), Error> {
        let shared = self.control.shared();
        let mut state = shared.lock();
        state.endpoint.session.finish(now())?;
        shared.push(&mut state);
        Ok(())
    }

    pub(crate) fn control(&self) -> &Control {
        &self.control
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        // On a server, and over a subprotocol without half-close, there is nothing to say.
        let _ = self.finish();
    }
}

impl AsyncWrite for Output {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Output::poll_write(&self, cx, buf).map_err(io::Error::from)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Output::poll_flush(&self, cx).map_err(io::Error::from)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_finish(cx).map_err(io::Error::from)
    }
}

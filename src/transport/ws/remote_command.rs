//! exec and attach over a socket: in flow a session and its WebSocket, out come one handle a
//! stream, in either role.
//!
//! [`Input`] reads a stream that the peer writes, [`Output`] writes one that the peer reads, and
//! [`Control`] learns the status and ends the session. The client's child and the server's
//! process are made of these.

mod stream;

use std::{collections::VecDeque, sync::Arc};

use bytes::Bytes;

pub(crate) use self::stream::{Input, Output};
use super::{
    shared::{Closing, Endpoint, Shared, Slot, Waiters},
    stats::SessionStats,
    websocket::WebSocket,
};
#[cfg(feature = "client")]
use crate::session::remote_command::InputAtExit;
#[cfg(feature = "server")]
use crate::session::remote_command::Streams;
use crate::{
    error::{CallerError, Error},
    session::{RemoteCommand, Subprotocol, remote_command::RemoteCommandEvent},
    transport::now,
    wire::{channel::Channel, resize::TerminalSize, status::Status},
};

/// What a queued slice costs beside its bytes, so that a flood of tiny messages is bounded too.
const SLICE: usize = 64;

/// Sizes of the client's terminal that are kept for a server which has not asked yet: the last,
/// and the one before, from which it must differ for a program to draw its screen again
/// (`k8s.io/kubectl/pkg/cmd/attach/attach.go` sends two for this).
const SIZES: usize = 2;

/// Streams that have a reader or a writer: the first three channels.
const STREAMS: usize = 3;

fn slot(channel: Channel) -> Slot {
    usize::from(channel.number()) % STREAMS
}

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
    inboxes: [Inbox; STREAMS],
    bound: usize,
    status: Option<Status>,
    /// What the socket had still to send when the Status came.
    unsent: usize,
    sizes: VecDeque<TerminalSize>,
    ended: Option<Result<(), Error>>,
    warned: bool,
}

impl Remote {
    fn inbox(&mut self, channel: Channel) -> &mut Inbox {
        &mut self.inboxes[slot(channel)]
    }

    /// What had become of the input when the Status came.
    #[cfg(feature = "client")]
    fn input_at_exit(&self) -> Option<InputAtExit> {
        let mut input = self.session.input_at_exit()?;
        input.unsent = input.unsent.saturating_add(self.unsent);
        Some(input)
    }

    /// What became of the work, if that is known.
    #[cfg(feature = "client")]
    fn status(&self, unread: &[Channel]) -> Option<Result<Status, Error>> {
        if let Some(status) = &self.status {
            return Some(Ok(status.clone()));
        }
        if let Some(how) = &self.ended {
            // A session never ends well before its Status.
            return Some(Err(how.clone().err().unwrap_or(CallerError::Ended.into())));
        }
        let stream = self
            .full()
            .filter(|channel| unread.contains(channel))?
            .name();
        let bytes = self.bound;
        Some(Err(CallerError::Unread { stream, bytes }.into()))
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

impl Endpoint for Remote {
    type Session = RemoteCommand;

    fn session(&self) -> &RemoteCommand {
        &self.session
    }

    fn session_mut(&mut self) -> &mut RemoteCommand {
        &mut self.session
    }

    #[inline]
    fn sort(&mut self, event: RemoteCommandEvent, waiters: &mut Waiters) {
        match event {
            RemoteCommandEvent::Data(channel, bytes) => {
                self.inbox(channel).push(bytes);
                waiters.wake_reader(slot(channel));
            }
            RemoteCommandEvent::Finished(channel) => {
                self.inbox(channel).finished = true;
                waiters.wake_reader(slot(channel));
            }
            RemoteCommandEvent::Resize(size) => {
                if self.sizes.len() == SIZES {
                    self.sizes.pop_front();
                }
                self.sizes.push_back(size);
                waiters.wake_session();
            }
            RemoteCommandEvent::Status(status) => {
                self.status = Some(*status);
                waiters.wake_session();
            }
            RemoteCommandEvent::Ended(how) => {
                self.ended = Some(how);
                waiters.wake_all();
            }
        }
    }

    fn has_room(&self) -> bool {
        self.full().is_none()
    }

    fn is_complete(&self) -> bool {
        self.status.is_some()
    }

    fn handle_unsent(&mut self, bytes: usize) {
        if self.status.is_none() {
            self.unsent = bytes;
        }
    }

    fn closed(&mut self) {
        self.ended.get_or_insert(Err(CallerError::Killed.into()));
    }

    fn held_back(&mut self) {
        if let (Some(channel), false) = (self.full(), self.warned) {
            self.warned = true;
            tracing::debug!(
                stream = channel.name(),
                bytes = self.bound,
                "a stream is full: nothing else of the session arrives until it is read"
            );
        }
    }

    fn shrink(&mut self) {
        // What many small slices have needed, an idle session does not.
        for inbox in self.inboxes.iter_mut().filter(|inbox| inbox.cost == 0) {
            inbox.slices = VecDeque::new();
        }
    }
}

/// Takes a session apart into its handles.
pub(crate) fn spawn(
    session: RemoteCommand,
    socket: Box<dyn WebSocket>,
    bound: usize,
    reads: &[Channel],
) -> Control {
    let mut inboxes = <[Inbox; STREAMS]>::default();
    for channel in reads {
        inboxes[slot(*channel)].read = true;
    }
    let remote = Remote {
        session,
        inboxes,
        bound: bound.max(1),
        status: None,
        unsent: 0,
        sizes: VecDeque::new(),
        ended: None,
        warned: false,
    };
    let mut waiters = Waiters::default();
    for _ in 0..STREAMS {
        waiters.claim();
    }
    Control {
        session: Arc::new(Closing(Shared::spawn(remote, waiters, socket))),
    }
}

/// The handle of the session itself.
#[derive(Debug, Clone)]
pub(crate) struct Control {
    session: Arc<Closing<Remote>>,
}

impl Control {
    fn shared(&self) -> &Shared<Remote> {
        &self.session.0
    }

    /// The reader of a stream; there must be at most one.
    pub(crate) fn input(&self, channel: Channel) -> Input {
        Input::new(self.clone(), channel)
    }

    /// The writer of a stream; there must be at most one.
    pub(crate) fn output(&self, channel: Channel) -> Output {
        Output::new(self.clone(), channel)
    }

    pub(crate) fn protocol(&self) -> Subprotocol {
        self.shared().lock().endpoint.session.protocol()
    }

    pub(crate) fn stats(&self) -> SessionStats {
        self.shared().stats()
    }

    /// Drops what arrives of a stream from now on.
    pub(crate) fn discard(&self, channel: Channel) {
        let mut state = self.shared().lock();
        let inbox = state.endpoint.inbox(channel);
        *inbox = Inbox {
            finished: inbox.finished,
            ..Inbox::default()
        };
        self.shared().lose_interest(&mut state, slot(channel));
    }
}

#[cfg(feature = "server")]
impl Control {
    pub(crate) fn streams(&self) -> Streams {
        self.shared().lock().endpoint.session.streams()
    }

    pub(crate) async fn ended(&self) -> Result<(), Error> {
        self.shared().take(|remote| remote.ended.clone()).await
    }

    /// Waits for the next size of the client's terminal; `None` when there can be none.
    pub(crate) async fn resized(&self) -> Option<TerminalSize> {
        let next = |remote: &mut Remote| match remote.sizes.pop_front() {
            Some(size) => Some(Some(size)),
            None => remote.ended.as_ref().map(|_| None),
        };
        self.shared().take(next).await
    }

    pub(crate) fn exit(&self, status: &Status) -> Result<(), Error> {
        let exit = |remote: &mut Remote| remote.session.exit(now(), status);
        Ok(self.shared().say(exit)?)
    }
}

#[cfg(feature = "client")]
impl Control {
    pub(crate) fn span(&self) -> &tracing::Span {
        self.shared().span()
    }

    /// Waits for the Status, or for an end without one. `unread` says which streams nobody can
    /// be reading meanwhile: that one of them is full is an error.
    pub(crate) async fn status(&self, unread: &[Channel]) -> Result<Status, Error> {
        let status = self.shared().take(|remote| remote.status(unread)).await;
        if status.is_ok() {
            self.shared().see_off();
        }
        status
    }

    /// [`status`](Self::status), if it is known.
    pub(crate) fn try_status(&self, unread: &[Channel]) -> Option<Result<Status, Error>> {
        let status = self.shared().try_take(|remote| remote.status(unread));
        if matches!(status, Some(Ok(_))) {
            self.shared().see_off();
        }
        status
    }

    /// What had become of the input when the Status came.
    pub(crate) fn input_at_exit(&self) -> Option<InputAtExit> {
        self.shared().lock().endpoint.input_at_exit()
    }

    pub(crate) fn has_status(&self) -> bool {
        self.shared().lock().endpoint.status.is_some()
    }

    /// The stream whose reader holds everything else back, if one does.
    pub(crate) fn full(&self) -> Option<Channel> {
        self.shared().lock().endpoint.full()
    }

    pub(crate) fn resize(&self, size: TerminalSize) -> Result<(), Error> {
        let resize = |remote: &mut Remote| remote.session.resize(now(), size);
        Ok(self.shared().say(resize)?)
    }

    pub(crate) fn close(&self) {
        self.shared().close();
    }
}

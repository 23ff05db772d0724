//! The ends of a stream of exec or attach: in flow the bytes of a caller, out come those of the
//! peer.

use std::{
    collections::VecDeque,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use tokio::io::AsyncWrite;

use super::{super::slices::read_slices, Control, Remote, SLICE, slot};
use crate::{
    error::{CallerError, Error},
    limits,
    transport::{now, ws::shared::Slot},
    wire::channel::Channel,
};

/// What a reader takes from its queue at once: many small slices cost one lock.
const BATCH: usize = 256 << 10;

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
    pub(super) fn new(control: Control, channel: Channel) -> Self {
        Self {
            control,
            channel,
            current: Bytes::new(),
            more: VecDeque::new(),
            failed: false,
        }
    }

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
        control.shared().poll_take(cx, slot(*channel), |remote| {
            let Remote { inboxes, ended, .. } = remote;
            let inbox = &mut inboxes[slot(*channel)];
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

read_slices!(Input, |input| input.more.pop_front());

#[derive(Debug)]
pub(crate) struct Output {
    control: Control,
    channel: Channel,
}

impl Output {
    pub(super) fn new(control: Control, channel: Channel) -> Self {
        Self { control, channel }
    }

    fn slot(&self) -> Slot {
        slot(self.channel)
    }

    pub(crate) fn poll_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        drop(ready!(self.control.shared().poll_room(cx, self.slot())));
        Poll::Ready(Ok(()))
    }

    /// Queues bytes without copying them, whatever the room.
    pub(crate) fn send(&self, mut bytes: Bytes) -> io::Result<()> {
        let shared = self.control.shared();
        let mut state = shared.lock();
        if state.is_write_closed() {
            return Err(Error::from(CallerError::Ended).into());
        }
        let now = now();
        while !bytes.is_empty() {
            let part = bytes.split_to(bytes.len().min(limits::INPUT_MESSAGE));
            let written = state.endpoint.session.write(now, self.channel, part);
            written.map_err(Error::from)?;
        }
        shared.push(&mut state);
        Ok(())
    }

    pub(crate) fn finish(&self) -> Result<(), Error> {
        let finish = |remote: &mut Remote| remote.session.finish(now());
        Ok(self.control.shared().say(finish)?)
    }

    #[cfg(feature = "client")]
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
        let shared = self.control.shared();
        let mut state = ready!(shared.poll_room(cx, self.slot()));
        let (Remote { session, .. }, Some(socket)) = state.parts() else {
            return Poll::Ready(Err(Error::from(CallerError::Ended).into()));
        };
        let part = &buf[..buf.len().min(limits::INPUT_MESSAGE)];
        let now = now();
        let through = session.write_through(now, self.channel);
        match through.map_err(Error::from)? {
            Some(prefix) if !part.is_empty() => {
                socket.send_copy(prefix, part);
                state.count_sent(1 + part.len());
            }
            _ => {
                let written = session.write(now, self.channel, Bytes::copy_from_slice(part));
                written.map_err(Error::from)?;
            }
        }
        shared.push(&mut state);
        Poll::Ready(Ok(part.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.control.shared().poll_flushed(cx, self.slot()).map(Ok)
    }

    /// Sends what is queued, then ends the stream alone, where the subprotocol can.
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.as_mut().poll_flush(cx))?;
        self.finish()?;
        self.poll_flush(cx)
    }
}

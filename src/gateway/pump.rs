//! One stream of two joined sessions: in flow slices of the one, out they go at the other.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use futures_core::Stream;
use futures_sink::Sink;

/// Slices that a stream passes on before the others of its session have their turn. All together
/// stay below what a task of tokio may do at once (128), so that none starves.
const TURN: usize = 16;

/// Why a stream passes on nothing more.
#[derive(Debug)]
pub(super) enum Stopped {
    /// It has ended, and the other side knows as far as it can be told.
    Finished,
    /// Its source broke.
    Source(io::Error),
    /// Nobody takes it.
    Sink,
    /// It may not go on unseen.
    Tap(io::Error),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    /// Its end is being said.
    Closing,
    Stopped,
}

/// A stream from one session to the other.
#[derive(Debug)]
pub(super) struct Pump<F, T> {
    ends: Option<(F, T)>,
    state: State,
    pub(super) bytes: u64,
}

impl<F, T> Pump<F, T>
where
    F: Stream<Item = io::Result<Bytes>> + Unpin,
    T: Sink<Bytes, Error = io::Error> + Unpin,
{
    /// A stream that only one side has goes nowhere: what comes of it is dropped.
    pub(super) fn new(from: Option<F>, to: Option<T>) -> Self {
        let ends = from.zip(to);
        Self {
            state: if ends.is_some() {
                State::Open
            } else {
                State::Stopped
            },
            ends,
            bytes: 0,
        }
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.state == State::Stopped
    }

    /// Passes on nothing more; what still comes is dropped.
    pub(super) fn stop(&mut self) {
        self.state = State::Stopped;
        self.ends = None;
    }

    /// Passes on what there is as long as it is taken, showing each slice to `see` before. Ready
    /// once, when it stops.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        see: impl FnMut(&Bytes) -> io::Result<()>,
    ) -> Poll<Stopped> {
        if self.is_stopped() {
            return Poll::Pending;
        }
        let stopped = ready!(self.poll_ends(cx, see));
        self.state = State::Stopped;
        // Of a stream that broke the end must not be said, which dropping it would do: a part
        // would look like the whole.
        if matches!(stopped, Stopped::Finished | Stopped::Sink) {
            self.ends = None;
        }
        Poll::Ready(stopped)
    }

    fn poll_ends(
        &mut self,
        cx: &mut Context<'_>,
        mut see: impl FnMut(&Bytes) -> io::Result<()>,
    ) -> Poll<Stopped> {
        let Some((from, to)) = &mut self.ends else {
            return Poll::Pending;
        };
        let (mut from, mut to) = (Pin::new(from), Pin::new(to));
        for _ in 0..TURN {
            if self.state == State::Closing {
                // Over a subprotocol without half-close it cannot be said.
                return to.poll_close(cx).map(|_| Stopped::Finished);
            }
            // Before it is read: what is not taken stays with its session, which holds its peer
            // back.
            if ready!(to.as_mut().poll_ready(cx)).is_err() {
                return Poll::Ready(Stopped::Sink);
            }
            match ready!(from.as_mut().poll_next(cx)) {
                None => self.state = State::Closing,
                Some(Err(error)) => return Poll::Ready(Stopped::Source(error)),
                Some(Ok(slice)) => {
                    if let Err(error) = see(&slice) {
                        return Poll::Ready(Stopped::Tap(error));
                    }
                    self.bytes += slice.len() as u64;
                    if to.as_mut().start_send(slice).is_err() {
                        return Poll::Ready(Stopped::Sink);
                    }
                }
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

//! Driving a session over its socket: in flow the polls of its handles and of its task, out come
//! messages on the socket and events in the queues.

use std::{
    future::poll_fn,
    task::{Context, Poll, Waker},
};

use super::{super::stats::SessionStats, Endpoint, Guard, Shared, Slot, State, wakers::Direction};
use crate::{error::Error, limits, session::Session as _, transport::now};

/// Reads in a row that one task makes for the others while data flows.
const FILLS: usize = 4;

/// How far a drive got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Driven {
    Satisfied,
    /// The socket has no more for now.
    Empty,
    Full,
    Ended,
}

impl<E: Endpoint> Shared<E> {
    /// Drives the session until `take` finds something in the queues, for the handle in `slot`.
    #[inline]
    pub(crate) fn poll_take<T>(
        &self,
        cx: &mut Context<'_>,
        slot: Slot,
        take: impl FnMut(&mut E) -> Option<T>,
    ) -> Poll<T> {
        let state = &mut *self.lock();
        let (taken, driven) = self.drive_until(state, take);
        if let Some(taken) = taken {
            if let Some(driven) = driven {
                state.waiters.remove_reader(slot);
                self.hand_over(state, driven);
            }
            return Poll::Ready(taken);
        }
        state.waiters.register_reader(slot, cx.waker());
        if driven == Some(Driven::Empty) {
            let others = state.waiters.others_read(cx.waker());
            self.register(state, Direction::Read, Some(cx.waker()), others);
        }
        Poll::Pending
    }

    /// [`poll_take`](Self::poll_take) for who does not wait.
    #[cfg(feature = "client")]
    pub(crate) fn try_take<T>(&self, take: impl FnMut(&mut E) -> Option<T>) -> Option<T> {
        let state = &mut *self.lock();
        let (taken, driven) = self.drive_until(state, take);
        if let Some(driven) = driven {
            self.hand_over(state, driven);
        }
        taken
    }

    /// Waits until `take` finds something in the queues, in a slot of its own. When the future is
    /// dropped, nothing of it is left.
    pub(crate) async fn take<T>(&self, mut take: impl FnMut(&mut E) -> Option<T>) -> T {
        let waiting = Waiting {
            shared: self,
            slot: self.lock().waiters.claim_for_session(),
        };
        poll_fn(|cx| self.poll_take(cx, waiting.slot, &mut take)).await
    }

    /// What `take` finds, and how far the session was driven for it, if it was.
    #[inline]
    fn drive_until<T>(
        &self,
        state: &mut State<E>,
        mut take: impl FnMut(&mut E) -> Option<T>,
    ) -> (Option<T>, Option<Driven>) {
        let mut taken = take(&mut state.endpoint);
        if taken.is_some() && !state.held {
            return (taken, None);
        }
        let driven = self.drive(state, |endpoint| {
            taken.is_some() || {
                taken = take(endpoint);
                taken.is_some()
            }
        });
        (taken, Some(driven))
    }

    /// Sees to it that whoever else waits does not depend on this handle's next poll.
    fn hand_over(&self, state: &mut State<E>, mut driven: Driven) {
        if state.waiters.any_reader().is_none() {
            return;
        }
        if driven == Driven::Satisfied {
            // While data flows the socket is never empty: then another takes its turn.
            driven = self.drive(state, fills());
        }
        match driven {
            Driven::Empty => self.register_any(state),
            Driven::Satisfied => state.waiters.wake_any_reader(),
            Driven::Full | Driven::Ended => {}
        }
    }

    /// Lets the empty socket wake one of those that read.
    pub(super) fn register_any(&self, state: &mut State<E>) {
        if let Some(reader) = state.waiters.any_reader().cloned() {
            let others = state.waiters.others_read(&reader);
            self.register(state, Direction::Read, Some(&reader), others);
        }
    }

    /// Lets the empty socket wake the owner of `waker`, and the task too if it is the fallback.
    pub(super) fn register(
        &self,
        state: &mut State<E>,
        direction: Direction,
        waker: Option<&Waker>,
        fallback: bool,
    ) {
        self.poll_socket(state);
        let wakeups = state.waiters.wakeups();
        self.readiness.register(direction, waker, fallback, wakeups);
    }

    /// From here until the session is unlocked the socket wakes nobody by itself.
    fn poll_socket(&self, state: &mut State<E>) {
        if !std::mem::replace(&mut state.polled, true) {
            self.readiness.begin();
        }
    }

    /// Sends, reads and sorts until `satisfied` by what is in the queues, or the socket is empty,
    /// or a queue is full.
    pub(super) fn drive(
        &self,
        state: &mut State<E>,
        mut satisfied: impl FnMut(&mut E) -> bool,
    ) -> Driven {
        state.active = true;
        self.flush(state);
        let pending = state.socket.as_ref().map_or(0, |socket| socket.pending());
        state.endpoint.handle_unsent(pending + state.dropped);
        let now = now();
        let mut cx = Context::from_waker(&self.read_waker);
        self.poll_socket(state);
        self.readiness.clear(Direction::Read);
        let driven = loop {
            if state.session().is_ended() {
                break Driven::Ended;
            }
            let Some(socket) = &mut state.socket else {
                break Driven::Ended;
            };
            if !state.endpoint.has_room() {
                break Driven::Full;
            }
            // All that is in the buffer is sorted at once: the next handle finds it in its queue.
            match socket.buffered() {
                Ok(Some(message)) => {
                    state.counts.received(&message);
                    if let Some(event) = state.endpoint.session_mut().receive(now, message) {
                        state.endpoint.sort(event, &mut state.waiters);
                        state.sort_events();
                    }
                    continue;
                }
                Ok(None) => {}
                Err(error) => {
                    self.end(state, Some(error));
                    continue;
                }
            }
            if satisfied(&mut state.endpoint) {
                break Driven::Satisfied;
            }
            // A peer that sends without a pause gets its answers too.
            if state.session().queued() > 0 {
                self.flush(state);
            }
            let Some(socket) = &mut state.socket else {
                break Driven::Ended;
            };
            match socket.poll_fill(&mut cx) {
                Poll::Ready(Ok(true)) => {
                    state.session().handle_activity(now);
                    if let Some((_, until)) = &mut state.broken {
                        *until = now + limits::CLOSE_GRACE;
                    }
                }
                Poll::Ready(Ok(false)) => self.end(state, None),
                Poll::Ready(Err(error)) => self.end(state, Some(error)),
                Poll::Pending => break Driven::Empty,
            }
        };
        state.empty = driven == Driven::Empty;
        let held = driven == Driven::Full;
        if held != state.held {
            state.held = held;
            state.session().handle_hold(now, held);
            state.counts.hold(now, held);
            if held {
                self.span().in_scope(|| state.endpoint.held_back());
            }
        }
        // Pongs, and the answer to a close.
        if state.session().queued() > 0 {
            self.flush(state);
        }
        self.advance_alarm(state);
        if driven == Driven::Ended {
            if !std::mem::replace(&mut state.over, true) {
                // The task sees the socket off.
                state.waiters.notify_task();
                state.counts.hold(now, false);
                self.trace_end(state.counts.at(now));
            }
            satisfied(&mut state.endpoint);
        } else if driven == Driven::Full && satisfied(&mut state.endpoint) {
            return Driven::Satisfied;
        }
        driven
    }

    fn trace_end(&self, stats: SessionStats) {
        tracing::debug!(
            parent: &self.span,
            sent = stats.sent,
            received = stats.received,
            held_back_ms = u64::try_from(stats.held_back.as_millis()).unwrap_or(u64::MAX),
            "the session is over"
        );
    }

    /// Drives for the others, as far as one may in a row.
    pub(super) fn drive_for_others(&self, state: &mut State<E>) -> Driven {
        self.drive(state, fills())
    }

    /// Calls the task if a deadline has come to be before its next look.
    fn advance_alarm(&self, state: &mut State<E>) {
        if let Some(next) = state.endpoint.session().poll_timeout()
            && state.alarm.is_some_and(|alarm| next < alarm)
        {
            state.alarm = Some(next);
            state.waiters.notify_task();
        }
    }

    pub(super) fn end(&self, state: &mut State<E>, lost: Option<Error>) {
        state.write_closed |= lost.is_none();
        let broken = state.broken.take().map(|(error, _)| error);
        state.session().handle_end(lost.or(broken));
        state.sort_events();
    }

    /// Sends as much as the socket takes. Whether all of it went.
    pub(super) fn flush(&self, state: &mut State<E>) -> bool {
        let flushed = self.transmit(state);
        // Writers learn that there is room.
        state.sort_events();
        flushed
    }

    fn transmit(&self, state: &mut State<E>) -> bool {
        if state.socket.is_none() {
            return true;
        }
        self.poll_socket(state);
        self.readiness.clear(Direction::Write);
        let mut cx = Context::from_waker(&self.write_waker);
        loop {
            let State {
                endpoint,
                socket: Some(socket),
                write_closed,
                broken,
                dropped,
                waiters,
                counts,
                ..
            } = &mut *state
            else {
                return true;
            };
            let session = endpoint.session_mut();
            while socket.pending() < limits::SEND_BUFFER {
                let Some(transmit) = session.poll_transmit() else {
                    break;
                };
                match *write_closed {
                    true => *dropped = dropped.saturating_add(transmit.len()),
                    false => {
                        counts.sent(transmit.len());
                        socket.send(transmit);
                    }
                }
            }
            if *write_closed {
                return true;
            }
            match socket.poll_flush(&mut cx) {
                Poll::Ready(Ok(())) if session.queued() == 0 => return true,
                Poll::Ready(Ok(())) => {}
                // What has arrived may still say why: the Status is read before the loss counts.
                Poll::Ready(Err(error)) => {
                    *write_closed = true;
                    waiters.notify_task();
                    match Error::of_connection(error) {
                        error @ Error::Caller(_) => self.end(state, Some(error)),
                        error => *broken = Some((error, now() + limits::CLOSE_GRACE)),
                    }
                }
                Poll::Pending => {
                    let writer = waiters.any_writer().cloned();
                    self.register(state, Direction::Write, writer.as_ref(), true);
                    return false;
                }
            }
        }
    }

    /// Ends this side's direction of the socket.
    pub(super) fn poll_shutdown(&self, state: &mut State<E>) -> Poll<()> {
        self.poll_socket(state);
        self.readiness.clear(Direction::Write);
        let mut cx = Context::from_waker(&self.write_waker);
        let ended = match &mut state.socket {
            // An error ends it, too.
            Some(socket) => socket.poll_shutdown(&mut cx).map(drop),
            None => Poll::Ready(()),
        };
        if ended.is_pending() {
            self.register(state, Direction::Write, None, true);
        }
        ended
    }

    /// Waits until the session takes more to send, for the handle in `slot`; then gives it.
    pub(crate) fn poll_room(&self, cx: &mut Context<'_>, slot: Slot) -> Poll<Guard<'_, E>> {
        let mut guard = self.lock();
        let state = &mut *guard;
        let over = state.session().is_ended();
        if self.flush(state) || self.has_send_room(state) || over {
            state.waiters.remove_writer(slot);
            return Poll::Ready(guard);
        }
        self.wait_writable(state, cx, slot);
        Poll::Pending
    }

    /// Waits until `room` is true, for the handle in `slot`; then gives the session.
    pub(crate) fn poll_room_of(
        &self,
        cx: &mut Context<'_>,
        slot: Slot,
        mut room: impl FnMut(&mut E) -> bool,
    ) -> Poll<Guard<'_, E>> {
        let mut guard = self.lock();
        let state = &mut *guard;
        self.look(state);
        if !room(&mut state.endpoint) {
            let flushed = self.flush(state);
            if !room(&mut state.endpoint) {
                match flushed {
                    true => state.waiters.register_writer(slot, cx.waker()),
                    false => self.wait_writable(state, cx, slot),
                }
                if state.waiters.any_reader().is_none() {
                    match state.empty {
                        true => self.register(state, Direction::Read, Some(cx.waker()), true),
                        false => state.waiters.notify_task(),
                    }
                }
                return Poll::Pending;
            }
        }
        state.waiters.remove_writer(slot);
        Poll::Ready(guard)
    }

    /// Reads what has arrived if nobody waits for anything: a writer learns only from the peer
    /// that it writes for nobody.
    fn look(&self, state: &mut State<E>) {
        if state.waiters.any_reader().is_none()
            && !(state.empty && self.readiness.is_armed(Direction::Read))
        {
            self.drive_for_others(state);
        }
    }

    /// Waits until all that was queued has been handed to the operating system.
    pub(crate) fn poll_flushed(&self, cx: &mut Context<'_>, slot: Slot) -> Poll<()> {
        let state = &mut *self.lock();
        if self.flush(state) {
            state.waiters.remove_writer(slot);
            return Poll::Ready(());
        }
        self.wait_writable(state, cx, slot);
        Poll::Pending
    }

    pub(super) fn has_send_room(&self, state: &State<E>) -> bool {
        let pending = state.socket.as_ref().map_or(0, |socket| socket.pending());
        pending + state.endpoint.session().queued() < limits::SEND_BUFFER
    }

    fn wait_writable(&self, state: &mut State<E>, cx: &Context<'_>, slot: Slot) {
        state.waiters.register_writer(slot, cx.waker());
        self.register(state, Direction::Write, Some(cx.waker()), true);
    }

    /// Sends what a command has just queued, without waiting; what does not go now the task
    /// sends.
    pub(crate) fn push(&self, state: &mut State<E>) {
        self.flush(state);
        self.advance_alarm(state);
    }

    /// Has a command queue something, and sends it likewise.
    pub(crate) fn say<T>(&self, command: impl FnOnce(&mut E) -> T) -> T {
        let state = &mut *self.lock();
        let said = command(&mut state.endpoint);
        self.push(state);
        said
    }

    /// Ends the session from this side. Queues keep what they have.
    pub(crate) fn close(&self) {
        let state = &mut *self.lock();
        state.session().close();
        state.endpoint.closed();
        self.flush(state);
        state.waiters.wake_all();
        state.waiters.notify_task();
    }

    /// Leaves the end of a complete session to its task.
    #[cfg(feature = "client")]
    pub(crate) fn see_off(&self) {
        self.lock().waiters.notify_task();
    }

    /// Takes a slot for another handle.
    #[cfg(feature = "client")]
    pub(crate) fn claim(&self, state: &mut State<E>) -> Slot {
        state.waiters.claim()
    }

    /// Takes note that a handle is gone, and gives its slot back.
    pub(crate) fn leave(&self, state: &mut State<E>, slot: Slot) {
        self.lose_interest(state, slot);
        state.waiters.leave(slot);
    }

    /// Takes note that the handle in `slot` waits no longer.
    pub(crate) fn lose_interest(&self, state: &mut State<E>, slot: Slot) {
        for waker in state.waiters.take(slot).into_iter().flatten() {
            self.readiness.deregister(&waker, state.waiters.wakeups());
            state.waiters.wakeups().drop_later(Some(waker));
        }
        // It may have been the one that the socket wakes, or whose full queue held the rest back.
        if state.waiters.any_reader().is_some() {
            state.waiters.notify_task();
        }
    }
}

/// Satisfied after some reads.
fn fills<E>() -> impl FnMut(&mut E) -> bool {
    let mut fills = 0;
    move |_| {
        fills += 1;
        fills > FILLS
    }
}

/// The place of a future that waits for what concerns the session as a whole.
struct Waiting<'a, E: Endpoint> {
    shared: &'a Shared<E>,
    slot: Slot,
}

impl<E: Endpoint> Drop for Waiting<'_, E> {
    fn drop(&mut self) {
        self.shared.leave(&mut self.shared.lock(), self.slot);
    }
}

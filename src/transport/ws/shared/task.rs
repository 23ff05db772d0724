//! The task of a session: in flow the time and its notifications, out come pings when nobody
//! polls, and the orderly end of the socket.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Instant,
};

use super::{
    Endpoint, Shared, State,
    drive::Driven,
    wakers::{Direction, Notification},
};
use crate::{
    error::panic::panicked,
    limits,
    session::Session as _,
    transport::{
        now,
        sync::{self, Timer},
    },
};

pub(super) struct SessionTask<E: Endpoint> {
    shared: Arc<Shared<E>>,
    timer: Timer,
    /// When a session that is over must be gone.
    give_up: Option<Instant>,
    /// Whether it has let others go first.
    yielded: bool,
}

impl<E: Endpoint> SessionTask<E> {
    pub(super) fn new(shared: Arc<Shared<E>>) -> Self {
        Self {
            shared,
            timer: Timer::new(now() + limits::KEEPALIVE_INTERVAL),
            give_up: None,
            yielded: false,
        }
    }

    /// Does what is due; ready when the session is gone.
    fn work(&mut self, timer: bool, notified: bool) -> Poll<()> {
        let shared = self.shared.clone();
        let state = &mut *shared.lock();
        // A timer that has fired was due, even if the clock is a fraction of a millisecond behind.
        let now = match timer {
            true => now().max(self.timer.deadline()),
            false => now(),
        };
        // Nobody may have looked at the socket for long: what has arrived counts before any
        // deadline does.
        let is_watched = state.empty && shared.readiness.is_armed(Direction::Read);
        if timer || notified || !is_watched {
            if timer
                && !std::mem::replace(&mut state.active, false)
                && let Some(socket) = &mut state.socket
            {
                socket.shrink();
            }
            self.drive(&shared, state);
        }
        if timer {
            state.session().handle_timeout(now);
            state.endpoint.shrink();
            state.sort_events();
            if state.held && state.endpoint.has_room() {
                state.waiters.notify_task();
            }
        }
        let flushed = shared.flush(state);
        let broken = state.broken.as_ref().map(|(_, until)| *until);
        if !state.held && broken.is_some_and(|until| until <= now) {
            shared.end(state, None);
        }
        if flushed || shared.has_send_room(state) {
            state.waiters.wake_writers();
        }
        let done = match state.session().is_ended() {
            true => self.see_off(&shared, state, flushed, now),
            false => Poll::Pending,
        };
        let next = state.endpoint.session().poll_timeout();
        let next = next.into_iter().chain(self.give_up).chain(broken).min();
        let next = next.unwrap_or(now + limits::KEEPALIVE_INTERVAL);
        state.alarm = Some(next);
        self.timer.reset(next.max(now));
        done
    }

    /// Drives for those that wait, and lets one of them take over.
    fn drive(&self, shared: &Shared<E>, state: &mut State<E>) {
        let active = state.active;
        let driven = shared.drive_for_others(state);
        state.active = active;
        let waits = state.waiters.any_reader().is_some();
        match driven {
            Driven::Empty if waits => shared.register_any(state),
            Driven::Empty if state.endpoint.is_complete() => {
                shared.register(state, Direction::Read, None, true);
            }
            // Data flows.
            Driven::Satisfied if waits => state.waiters.wake_any_reader(),
            Driven::Satisfied => state.waiters.notify_task(),
            Driven::Empty | Driven::Full | Driven::Ended => {}
        }
    }

    /// The session would go on without its timers, and never notice that its peer is gone: it ends.
    fn panicked(&self, message: String) -> Poll<()> {
        let state = &mut *self.shared.lock();
        state.socket = None;
        self.shared.end(state, Some(panicked("a session", message)));
        state.waiters.wake_all();
        Poll::Ready(())
    }

    /// Ends the socket of a session that is over.
    fn see_off(
        &mut self,
        shared: &Shared<E>,
        state: &mut State<E>,
        flushed: bool,
        now: Instant,
    ) -> Poll<()> {
        let give_up = *self.give_up.get_or_insert(now + limits::CLOSE_GRACE);
        let hopeless = state.write_closed || give_up <= now;
        if !flushed && !hopeless {
            return Poll::Pending;
        }
        if !hopeless && shared.poll_shutdown(state).is_pending() {
            return Poll::Pending;
        }
        state.socket = None;
        state.waiters.wake_all();
        Poll::Ready(())
    }
}

impl<E: Endpoint> Future for SessionTask<E> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        loop {
            let notification = this.shared.task.take(cx.waker());
            let timer = this.timer.poll(cx).is_ready();
            let notified = notification == Some(Notification::Now);
            if !timer && !notified {
                if notification.is_none() {
                    return Poll::Pending;
                }
                // Whom the socket wakes was woken as well and goes first.
                if !std::mem::replace(&mut this.yielded, true) {
                    this.shared.task.notify_fallback();
                    return Poll::Pending;
                }
            }
            this.yielded = false;
            let worked = sync::caught(|| this.work(timer, notified));
            if worked
                .unwrap_or_else(|words| this.panicked(words))
                .is_ready()
            {
                return Poll::Ready(());
            }
        }
    }
}

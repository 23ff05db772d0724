//! A session and its WebSocket, shared by the handles: in flow the handles' polls, out come the
//! session's events in their queues.
//!
//! There is no task on the data path. Whichever handle is polled [drives](drive) the session: it
//! sends what is queued, reads what has arrived, sorts events into the queues of all handles, and
//! wakes the others. One small [task](task) a session owns the timers: it pings when nobody
//! polls, finishes what a dropped handle left, and otherwise sleeps.
//!
//! # Who is woken
//!
//! A socket remembers one waker a direction. It gets that of [`Readiness`], which wakes the handle
//! that last found the socket empty. A task may lose interest in a handle without telling anyone
//! (`select!`, a timeout), and the other handles must not starve for it. So where another task
//! waits too, the session's task is woken as well, as a fallback: it steps in if by then nobody
//! has driven.
//!
//! ```text
//!   handle polls ──> lock ──> drive: flush, read, sort ──> its queue has something: take it
//!                                     │ the socket is empty: this handle is woken when it is ready
//!                                     │ a queue is full: wait for its reader (backpressure)
//!                ──> unlock ──> wake the others
//! ```
//!
//! All of it is explored under shuttle's schedules, with the handles of every verb.

mod drive;
mod task;
#[cfg(test)]
pub(crate) mod tests;
mod wakers;

use std::{
    ops::{Deref, DerefMut},
    sync::Arc,
    task::Waker,
    time::Instant,
};

use self::{
    task::SessionTask,
    wakers::{Direction, Readiness, TaskNotify, Wakeups},
};
use super::{
    stats::{Counts, SessionStats},
    websocket::WebSocket,
};
use crate::{
    error::Error,
    session::Session,
    transport::sync::{self, Mutex, MutexGuard, lock},
};

pub(crate) use self::wakers::{Slot, Waiters};

/// A session with the queues between it and its handles.
pub(crate) trait Endpoint: Send + 'static {
    /// What is driven, by [its contract](crate::session).
    type Session: Session + ?Sized;

    fn session(&self) -> &Self::Session;

    fn session_mut(&mut self) -> &mut Self::Session;

    /// Puts an event where its handle finds it, and wakes that.
    fn sort(&mut self, event: <Self::Session as Session>::Event, waiters: &mut Waiters);

    /// Whether every queue has room for what one more message may bring.
    fn has_room(&self) -> bool;

    /// Whether all that its owner waits for has come, so that perhaps nobody will poll again, and
    /// only the end of the connection is outstanding.
    fn is_complete(&self) -> bool {
        false
    }

    /// Takes note that the session was closed from this side and will say nothing more.
    fn closed(&mut self);

    /// Takes note that the socket had these bytes still to send when what follows arrived.
    fn handle_unsent(&mut self, _bytes: usize) {}

    /// Takes note that a full queue holds the peer back.
    fn held_back(&mut self) {}

    /// Gives back the memory that only flowing data needs.
    fn shrink(&mut self) {}
}

pub(crate) struct State<E> {
    pub(crate) endpoint: E,
    waiters: Waiters,
    socket: Option<Box<dyn WebSocket>>,
    /// Whether the socket takes no more: what is queued is dropped, what arrives still counts.
    write_closed: bool,
    /// Why the socket takes no more, and how long what has arrived may still say it better.
    broken: Option<(Error, Instant)>,
    /// Bytes that were queued and dropped, as the socket takes no more.
    dropped: usize,
    held: bool,
    counts: Counts,
    /// Whether the last drive left the socket empty, so that its waker is called when more
    /// arrives.
    empty: bool,
    /// Whether the task has been told that the session is over.
    over: bool,
    /// Whether anything has been driven since the task last looked.
    active: bool,
    /// When the task will look next.
    alarm: Option<Instant>,
    /// Whether the socket has been polled since the session was locked.
    polled: bool,
}

impl<E> State<E> {
    /// Whether nothing that is sent goes anywhere any more.
    pub(crate) fn is_write_closed(&self) -> bool {
        self.write_closed || self.socket.is_none()
    }

    /// Takes note of a message that went to the socket past the session's queue.
    #[inline]
    pub(crate) fn count_sent(&mut self, bytes: usize) {
        self.counts.sent(bytes);
    }

    /// The session, and its socket if that still takes something.
    pub(crate) fn parts(&mut self) -> (&mut E, Option<&mut dyn WebSocket>) {
        let socket = match (&mut self.socket, self.write_closed) {
            (Some(socket), false) => Some(&mut **socket as &mut dyn WebSocket),
            _ => None,
        };
        (&mut self.endpoint, socket)
    }
}

impl<E: Endpoint> State<E> {
    fn session(&mut self) -> &mut E::Session {
        self.endpoint.session_mut()
    }

    fn sort_events(&mut self) {
        while let Some(event) = self.endpoint.session_mut().poll_event() {
            self.endpoint.sort(event, &mut self.waiters);
        }
    }
}

/// A session that several handles share.
pub(crate) struct Shared<E> {
    state: Mutex<State<E>>,
    readiness: Arc<Readiness>,
    read_waker: Waker,
    write_waker: Waker,
    task: Arc<TaskNotify>,
    /// The span in which the session began, and to which its events belong.
    span: tracing::Span,
}

debug_fields!([E] Shared<E> {});

impl<E: Endpoint> Shared<E> {
    /// Shares a session over its socket, and starts its task on the current tokio runtime.
    pub(crate) fn spawn(endpoint: E, waiters: Waiters, socket: Box<dyn WebSocket>) -> Arc<Self> {
        let task = Arc::<TaskNotify>::default();
        let readiness = Readiness::new(task.clone());
        let shared = Arc::new(Self {
            state: Mutex::new(State {
                endpoint,
                waiters,
                socket: Some(socket),
                write_closed: false,
                broken: None,
                dropped: 0,
                held: false,
                counts: Counts::default(),
                empty: false,
                over: false,
                active: false,
                alarm: None,
                polled: false,
            }),
            read_waker: readiness.waker(Direction::Read),
            write_waker: readiness.waker(Direction::Write),
            readiness,
            task,
            span: tracing::Span::current(),
        });
        // What the session says first is sent by its task.
        shared.task.notify();
        sync::spawn(SessionTask::new(shared.clone()));
        shared
    }

    pub(crate) fn stats(&self) -> SessionStats {
        self.lock().counts.at(crate::transport::now())
    }

    pub(crate) fn span(&self) -> &tracing::Span {
        &self.span
    }

    pub(crate) fn lock(&self) -> Guard<'_, E> {
        Guard {
            state: lock(&self.state),
            readiness: &self.readiness,
            after: AfterUnlock {
                wakeups: Wakeups::default(),
                task: &self.task,
            },
        }
    }
}

/// What the handles of a session hold. It is closed when the last of them is dropped.
#[derive(Debug)]
pub(crate) struct Closing<E: Endpoint>(pub(crate) Arc<Shared<E>>);

impl<E: Endpoint> Drop for Closing<E> {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// The locked session. What has to be woken is woken when it is dropped, after it is unlocked.
pub(crate) struct Guard<'a, E> {
    // Fields are dropped in this order: first the lock is released.
    state: MutexGuard<'a, State<E>>,
    readiness: &'a Readiness,
    after: AfterUnlock<'a>,
}

impl<E> Deref for Guard<'_, E> {
    type Target = State<E>;

    fn deref(&self) -> &State<E> {
        &self.state
    }
}

impl<E> DerefMut for Guard<'_, E> {
    fn deref_mut(&mut self) -> &mut State<E> {
        &mut self.state
    }
}

impl<E> Drop for Guard<'_, E> {
    fn drop(&mut self) {
        let state = &mut *self.state;
        if std::mem::take(&mut state.polled) {
            self.readiness.end(state.waiters.wakeups());
        }
        if !state.waiters.wakeups().is_empty() {
            self.after.wakeups = std::mem::take(state.waiters.wakeups());
        }
    }
}

struct AfterUnlock<'a> {
    wakeups: Wakeups,
    task: &'a TaskNotify,
}

impl Drop for AfterUnlock<'_> {
    fn drop(&mut self) {
        if !self.wakeups.is_empty() {
            std::mem::take(&mut self.wakeups).run(self.task);
        }
    }
}

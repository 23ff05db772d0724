//! Who is woken: in flow the wakers of those that wait, out come those whose turn it is.
//!
//! There is nothing of tokio here, and no waker is ever woken, or dropped, under a lock: a waker
//! may poll in place, and the last waker of a task drops the task with the handles in it. So what
//! is to be done with a waker is noted as [`Wakeups`], and done when the session is unlocked.

use std::{
    sync::Arc,
    task::{Wake, Waker},
};

use crate::transport::sync::{Mutex, lock};

/// What is to be done once the session is unlocked.
#[derive(Debug, Default)]
pub(super) struct Wakeups {
    /// Most often there is one, and it costs no allocation.
    first: Option<Waker>,
    rest: Vec<Waker>,
    dropped: Vec<Waker>,
    notify: bool,
    notify_fallback: bool,
}

impl Wakeups {
    pub(super) fn is_empty(&self) -> bool {
        self.first.is_none()
            && self.rest.is_empty()
            && self.dropped.is_empty()
            && !self.notify
            && !self.notify_fallback
    }

    fn wake(&mut self, waker: Waker) {
        match self.first {
            None => self.first = Some(waker),
            Some(_) => self.rest.push(waker),
        }
    }

    pub(super) fn drop_later(&mut self, waker: Option<Waker>) {
        self.dropped.extend(waker);
    }

    /// Does it. Nothing may be locked.
    pub(super) fn run(self, task: &TaskNotify) {
        if self.notify {
            task.notify();
        } else if self.notify_fallback {
            task.notify_fallback();
        }
        for waker in self.first.into_iter().chain(self.rest) {
            waker.wake();
        }
    }
}

/// Puts `waker` where another may be, which is kept if it wakes the same task.
fn register(place: &mut Option<Waker>, waker: &Waker, wakeups: &mut Wakeups) {
    if !place.as_ref().is_some_and(|known| known.will_wake(waker)) {
        wakeups.drop_later(place.replace(waker.clone()));
    }
}

/// A handle's place among those that wait.
pub(crate) type Slot = usize;

#[derive(Debug, Default)]
struct Entry {
    /// Whether it waits for what concerns the session as a whole.
    session: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

/// The handles that wait for the session, and what is to be done for them.
#[derive(Debug, Default)]
pub(crate) struct Waiters {
    entries: Vec<Entry>,
    free: Vec<Slot>,
    wakeups: Wakeups,
}

impl Waiters {
    /// A slot for a handle, its own until it [leaves](Self::leave).
    pub(crate) fn claim(&mut self) -> Slot {
        self.free.pop().unwrap_or_else(|| {
            self.entries.push(Entry::default());
            self.entries.len() - 1
        })
    }

    /// A slot for who waits for what concerns the session as a whole.
    pub(super) fn claim_for_session(&mut self) -> Slot {
        let slot = self.claim();
        self.entries[slot].session = true;
        slot
    }

    /// Gives a slot back. Its wakers go in the same moment: a handle that gets the slot next must
    /// not lose its own.
    pub(crate) fn leave(&mut self, slot: Slot) {
        for waker in self.take(slot) {
            self.wakeups.drop_later(waker);
        }
        self.entries[slot].session = false;
        self.free.push(slot);
    }

    /// Takes a slot's wakers away.
    pub(super) fn take(&mut self, slot: Slot) -> [Option<Waker>; 2] {
        let entry = &mut self.entries[slot];
        [entry.reader.take(), entry.writer.take()]
    }

    pub(super) fn remove_reader(&mut self, slot: Slot) {
        let waker = self.entries[slot].reader.take();
        self.wakeups.drop_later(waker);
    }

    pub(super) fn remove_writer(&mut self, slot: Slot) {
        let waker = self.entries[slot].writer.take();
        self.wakeups.drop_later(waker);
    }

    pub(super) fn register_reader(&mut self, slot: Slot, waker: &Waker) {
        register(&mut self.entries[slot].reader, waker, &mut self.wakeups);
    }

    pub(super) fn register_writer(&mut self, slot: Slot, waker: &Waker) {
        register(&mut self.entries[slot].writer, waker, &mut self.wakeups);
    }

    /// Wakes who reads in `slot`, if it waits.
    #[inline]
    pub(crate) fn wake_reader(&mut self, slot: Slot) {
        if let Some(waker) = self.entries[slot].reader.take() {
            self.wakeups.wake(waker);
        }
    }

    /// Wakes who writes in `slot`, if it waits.
    pub(crate) fn wake_writer(&mut self, slot: Slot) {
        if let Some(waker) = self.entries[slot].writer.take() {
            self.wakeups.wake(waker);
        }
    }

    /// Wakes those that wait for what concerns the session as a whole.
    pub(crate) fn wake_session(&mut self) {
        for entry in self.entries.iter_mut().filter(|entry| entry.session) {
            if let Some(waker) = entry.reader.take() {
                self.wakeups.wake(waker);
            }
        }
    }

    pub(super) fn wake_writers(&mut self) {
        for slot in 0..self.entries.len() {
            self.wake_writer(slot);
        }
    }

    pub(crate) fn wake_all(&mut self) {
        for slot in 0..self.entries.len() {
            self.wake_reader(slot);
            self.wake_writer(slot);
        }
    }

    /// Lets one that reads take over. Should it have lost interest, the session's task finds the
    /// next one in its place.
    pub(super) fn wake_any_reader(&mut self) {
        let readers = self.entries.iter_mut().map(|entry| &mut entry.reader);
        let mut readers = readers.filter(|reader| reader.is_some());
        if let Some(waker) = readers.next().and_then(Option::take) {
            self.wakeups.notify_fallback |= readers.next().is_some();
            self.wakeups.wake(waker);
        }
    }

    /// Wakes the session's task.
    pub(super) fn notify_task(&mut self) {
        self.wakeups.notify = true;
    }

    pub(super) fn any_reader(&self) -> Option<&Waker> {
        self.entries.iter().find_map(|entry| entry.reader.as_ref())
    }

    /// Whether a task other than the owner of `waker` reads.
    pub(super) fn others_read(&self, waker: &Waker) -> bool {
        self.entries
            .iter()
            .filter_map(|entry| entry.reader.as_ref())
            .any(|other| !other.will_wake(waker))
    }

    pub(super) fn any_writer(&self) -> Option<&Waker> {
        self.entries.iter().find_map(|entry| entry.writer.as_ref())
    }

    pub(super) fn wakeups(&mut self) -> &mut Wakeups {
        &mut self.wakeups
    }
}

/// How the session's task is woken.
#[derive(Default)]
pub(super) struct TaskNotify(Mutex<Notified>);

#[derive(Default)]
struct Notified {
    now: bool,
    fallback: bool,
    waker: Option<Waker>,
}

/// Why the session's task was woken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Notification {
    /// There is work for it.
    Now,
    /// There is work for it unless somebody else does it.
    Fallback,
}

impl TaskNotify {
    pub(super) fn notify(&self) {
        self.raise(|notified| &mut notified.now);
    }

    pub(super) fn notify_fallback(&self) {
        self.raise(|notified| &mut notified.fallback);
    }

    fn raise(&self, flag: fn(&mut Notified) -> &mut bool) {
        let mut notified = lock(&self.0);
        let waker = match std::mem::replace(flag(&mut notified), true) {
            true => None,
            false => notified.waker.take(),
        };
        drop(notified);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Why the task was woken since it last asked; remembers its waker for the next time.
    pub(super) fn take(&self, waker: &Waker) -> Option<Notification> {
        let mut notified = lock(&self.0);
        let old = notified.waker.replace(waker.clone());
        let now = std::mem::take(&mut notified.now);
        let fallback = std::mem::take(&mut notified.fallback);
        drop(notified);
        drop(old);
        match (now, fallback) {
            (true, _) => Some(Notification::Now),
            (false, true) => Some(Notification::Fallback),
            (false, false) => None,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    Read,
    Write,
}

/// What the socket's readiness wakes.
///
/// A socket has one waker a direction, and may call it at any time: while another handle's thread
/// polls it, and from inside the poll. During a poll readiness is only noted, and whoever polls
/// wakes for it at the end, when the session is unlocked.
pub(super) struct Readiness {
    state: Mutex<ReadinessState>,
    task: Arc<TaskNotify>,
}

#[derive(Default)]
struct ReadinessState {
    read: Interest,
    write: Interest,
    polling: bool,
}

impl ReadinessState {
    fn of(&mut self, direction: Direction) -> &mut Interest {
        match direction {
            Direction::Read => &mut self.read,
            Direction::Write => &mut self.write,
        }
    }
}

#[derive(Default)]
struct Interest {
    /// Whether the socket has become ready since it was last [cleared](Readiness::clear).
    ready: bool,
    /// Whether somebody is still to be woken for it.
    due: bool,
    waker: Option<Waker>,
    /// Whether the session's task must look after it too.
    fallback: bool,
}

impl Readiness {
    pub(super) fn new(task: Arc<TaskNotify>) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::default(),
            task,
        })
    }

    pub(super) fn waker(self: &Arc<Self>, direction: Direction) -> Waker {
        let readiness = self.clone();
        Arc::new(SocketWaker {
            readiness,
            direction,
        })
        .into()
    }

    /// From here to [`end`](Self::end) the socket may be polled.
    pub(super) fn begin(&self) {
        lock(&self.state).polling = true;
    }

    /// To be called before a direction is polled.
    pub(super) fn clear(&self, direction: Direction) {
        // Who is due stays due: it may wait for something else than whoever polls now.
        lock(&self.state).of(direction).ready = false;
    }

    /// Says who is to be woken, after a direction was polled and is not ready.
    pub(super) fn register(
        &self,
        direction: Direction,
        waker: Option<&Waker>,
        fallback: bool,
        wakeups: &mut Wakeups,
    ) {
        let mut state = lock(&self.state);
        let interest = state.of(direction);
        match waker {
            Some(waker) => register(&mut interest.waker, waker, wakeups),
            None => wakeups.drop_later(interest.waker.take()),
        }
        interest.fallback = fallback;
        interest.due |= interest.ready;
    }

    /// Forgets who was to be woken, if it is the owner of `waker`.
    pub(super) fn deregister(&self, waker: &Waker, wakeups: &mut Wakeups) {
        let mut state = lock(&self.state);
        for direction in [Direction::Read, Direction::Write] {
            let known = &mut state.of(direction).waker;
            wakeups.drop_later(known.take_if(|known| known.will_wake(waker)));
        }
    }

    /// Whether a direction has not become ready since it was polled.
    pub(super) fn is_armed(&self, direction: Direction) -> bool {
        !lock(&self.state).of(direction).ready
    }

    /// Ends what [`begin`](Self::begin) began.
    pub(super) fn end(&self, wakeups: &mut Wakeups) {
        let mut state = lock(&self.state);
        state.polling = false;
        for direction in [Direction::Read, Direction::Write] {
            let interest = state.of(direction);
            if std::mem::take(&mut interest.due) {
                wakeups.notify_fallback |= interest.fallback;
                if let Some(waker) = interest.waker.take() {
                    wakeups.wake(waker);
                }
            }
        }
    }

    fn set_ready(&self, direction: Direction) {
        let mut state = lock(&self.state);
        let polling = state.polling;
        let interest = state.of(direction);
        interest.ready = true;
        if polling {
            interest.due = true;
            return;
        }
        let (waker, fallback) = (interest.waker.take(), interest.fallback);
        drop(state);
        if fallback {
            self.task.notify_fallback();
        }
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

struct SocketWaker {
    readiness: Arc<Readiness>,
    direction: Direction,
}

impl Wake for SocketWaker {
    fn wake(self: Arc<Self>) {
        self.readiness.set_ready(self.direction);
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.readiness.set_ready(self.direction);
    }
}

//! A session and its WebSocket, shared by the handles: in flow the handles' polls, out come the
//! session's events in their queues.
//!
//! There is no task on the data path. Whichever handle is polled drives the session: it sends what
//! is queued, reads what has arrived, sorts events into the queues of all handles, and wakes the
//! others. One small task a session, the [keeper](Keeper), owns the timers: it pings when nobody
//! polls, finishes what a dropped handle left, and otherwise sleeps.
//!
//! # Who is woken
//!
//! A socket remembers one waker a direction. It gets the [`Fan`], which wakes the *driver*: the
//! handle that last found the socket empty. A task may lose interest in a handle without telling
//! anyone (`select!`, a timeout), and the other handles must not starve for it. So where another
//! task waits too, the fan also wakes the keeper, which steps in if by then nobody has driven.
//!
//! ```text
//!   handle polls ──> lock ──> drive: flush, read, sort ──> its queue has something: take it
//!                                     │ the socket is empty: arm the fan, this handle drives next
//!                                     │ a queue is full: wait for its reader (backpressure)
//! ```

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    time::Instant,
};

use tokio::time::Sleep;

use super::websocket::WebSocket;
use crate::{error::Error, limits, session::Session, transport::now};

/// A session together with the queues between it and its handles.
pub(crate) trait Endpoint: Session + Send + 'static {
    /// Sorts the session's events into the queues, and wakes the handles that wait for them:
    /// those that read are `waiting`, those that write are `writing`.
    fn sort_events(&mut self, waiting: &mut Waiting, writing: &mut Waiting);

    /// Whether every queue has room for what one more message may bring.
    fn has_room(&self) -> bool;

    /// Bytes that the session has queued to be sent.
    fn queued(&self) -> usize;

    /// Whether no event will follow.
    fn is_ended(&self) -> bool;

    /// Whether all that its owner waits for has come, so that perhaps nobody will poll again, and
    /// only the end of the connection is outstanding.
    fn is_complete(&self) -> bool;
}

/// Reads in a row that one task makes for the others while data flows.
const FILLS: usize = 4;

/// A handle's place among those that wait.
pub(crate) type Slot = usize;

/// The wakers of handles that wait for their queue.
#[derive(Debug, Default)]
pub(crate) struct Waiting {
    slots: Vec<Option<Waker>>,
}

impl Waiting {
    fn insert(&mut self, slot: Slot, waker: &Waker) {
        if self.slots.len() <= slot {
            self.slots.resize_with(slot + 1, || None);
        }
        match &mut self.slots[slot] {
            Some(known) => known.clone_from(waker),
            empty => *empty = Some(waker.clone()),
        }
    }

    fn remove(&mut self, slot: Slot) -> Option<Waker> {
        self.slots.get_mut(slot)?.take()
    }

    /// Wakes the handle in `slot`, if it waits.
    pub(crate) fn wake(&mut self, slot: Slot) {
        if let Some(waker) = self.remove(slot) {
            waker.wake();
        }
    }

    /// Wakes every handle that waits.
    pub(crate) fn wake_all(&mut self) {
        for waker in self.slots.iter_mut().filter_map(Option::take) {
            waker.wake();
        }
    }

    fn any(&self) -> Option<&Waker> {
        self.slots.iter().flatten().next()
    }

    /// Whether a task other than the owner of `waker` waits.
    fn others(&self, waker: &Waker) -> bool {
        self.slots
            .iter()
            .flatten()
            .any(|other| !other.will_wake(waker))
    }
}

/// What one direction of the socket wakes.
struct Fan {
    state: Mutex<FanState>,
    keeper: Arc<KeeperWaker>,
}

#[derive(Default)]
struct FanState {
    driver: Option<Waker>,
    /// Whether the keeper must look after it too.
    crowd: bool,
    /// Whether the socket has become ready since the last [`Fan::rest`].
    fired: bool,
}

impl Fan {
    fn new(keeper: &Arc<KeeperWaker>) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::default(),
            keeper: keeper.clone(),
        })
    }

    /// To be called before the socket is polled.
    fn rest(&self) {
        lock(&self.state).fired = false;
    }

    /// Says who is to be woken, after the socket was polled and is not ready.
    fn arm(&self, driver: Option<&Waker>, crowd: bool) {
        let mut state = lock(&self.state);
        match (&mut state.driver, driver) {
            (Some(known), Some(waker)) => known.clone_from(waker),
            (known, waker) => *known = waker.cloned(),
        }
        state.crowd = crowd;
        if state.fired {
            drop(state);
            self.fire();
        }
    }

    fn is_armed(&self) -> bool {
        !lock(&self.state).fired
    }

    fn fire(&self) {
        let mut state = lock(&self.state);
        state.fired = true;
        let (driver, crowd) = (state.driver.take(), state.crowd);
        drop(state);
        if crowd {
            self.keeper.stand_by();
        }
        if let Some(driver) = driver {
            driver.wake();
        }
    }
}

impl Wake for Fan {
    fn wake(self: Arc<Self>) {
        self.fire();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.fire();
    }
}

/// How the keeper is called.
#[derive(Default)]
struct KeeperWaker {
    /// There is work for it.
    called: AtomicBool,
    /// There is work for it unless somebody else does it.
    understudy: AtomicBool,
    waker: Mutex<Option<Waker>>,
}

impl KeeperWaker {
    fn call(&self) {
        self.raise(&self.called);
    }

    fn stand_by(&self) {
        self.raise(&self.understudy);
    }

    fn raise(&self, flag: &AtomicBool) {
        if !flag.swap(true, Ordering::AcqRel) {
            let waker = lock(&self.waker).take();
            if let Some(waker) = waker {
                waker.wake();
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic elsewhere does not make the state wrong: every change is made under one lock.
    mutex
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// How far a drive got.
#[derive(Debug, PartialEq, Eq)]
enum Driven {
    /// What was asked for is there.
    Satisfied,
    /// The socket has no more for now.
    Empty,
    /// A queue is full.
    Full,
    /// The session is over.
    Ended,
}

/// The state behind the lock.
pub(crate) struct State<E> {
    pub(crate) endpoint: E,
    pub(crate) waiting: Waiting,
    writing: Waiting,
    socket: Option<Box<dyn WebSocket>>,
    /// Whether the socket takes no more: what is queued is dropped, what arrives still counts.
    deaf: bool,
    held: bool,
    /// Whether the last drive left the socket empty, so that the fan fires when more arrives.
    empty: bool,
    /// Whether the keeper has been told that the session is over.
    over: bool,
    /// Whether anything has been driven since the keeper last looked.
    active: bool,
    /// When the keeper will look next.
    alarm: Option<Instant>,
}

impl<E: Endpoint> State<E> {
    fn sort_events(&mut self) {
        self.endpoint
            .sort_events(&mut self.waiting, &mut self.writing);
    }
}

/// A session that several handles share.
pub(crate) struct Shared<E> {
    state: Mutex<State<E>>,
    readable: Arc<Fan>,
    writable: Arc<Fan>,
    read_waker: Waker,
    write_waker: Waker,
    keeper: Arc<KeeperWaker>,
}

impl<E> std::fmt::Debug for Shared<E> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

impl<E> State<E> {
    /// Whether nothing that is sent goes anywhere any more.
    pub(crate) fn is_deaf(&self) -> bool {
        self.deaf || self.socket.is_none()
    }

    /// The session, and its socket if that still takes something.
    pub(crate) fn parts(&mut self) -> (&mut E, Option<&mut dyn WebSocket>) {
        let socket = match (&mut self.socket, self.deaf) {
            (Some(socket), false) => Some(&mut **socket as &mut dyn WebSocket),
            _ => None,
        };
        (&mut self.endpoint, socket)
    }
}

impl<E: Endpoint> Shared<E> {
    /// Shares a session over its socket, and starts its keeper on the current tokio runtime.
    pub(crate) fn spawn(endpoint: E, socket: Box<dyn WebSocket>) -> Arc<Self> {
        let keeper = Arc::<KeeperWaker>::default();
        let (readable, writable) = (Fan::new(&keeper), Fan::new(&keeper));
        let shared = Arc::new(Self {
            state: Mutex::new(State {
                endpoint,
                waiting: Waiting::default(),
                writing: Waiting::default(),
                socket: Some(socket),
                deaf: false,
                held: false,
                empty: false,
                over: false,
                active: false,
                alarm: None,
            }),
            read_waker: readable.clone().into(),
            write_waker: writable.clone().into(),
            readable,
            writable,
            keeper,
        });
        tokio::spawn(Keeper::new(shared.clone()));
        // What the session says first is sent by the keeper.
        shared.keeper.call();
        shared
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State<E>> {
        lock(&self.state)
    }

    /// Drives the session until `take` finds something in the queues, for the handle in `slot`.
    #[inline]
    pub(crate) fn poll_take<T>(
        &self,
        cx: &mut Context<'_>,
        slot: Slot,
        mut take: impl FnMut(&mut E) -> Option<T>,
    ) -> Poll<T> {
        let mut state = self.lock();
        let mut taken = take(&mut state.endpoint);
        if let Some(taken) = taken.take_if(|_| !state.held) {
            return Poll::Ready(taken);
        }
        let driven = self.drive(&mut state, |endpoint| {
            taken.is_some() || {
                taken = take(endpoint);
                taken.is_some()
            }
        });
        if let Some(taken) = taken {
            self.hand_over(&mut state, slot, driven);
            return Poll::Ready(taken);
        }
        state.waiting.insert(slot, cx.waker());
        if driven == Driven::Empty {
            let others = state.waiting.others(cx.waker());
            self.readable.arm(Some(cx.waker()), others);
        }
        Poll::Pending
    }

    /// Leaves `slot` satisfied: whoever else waits must not depend on its next poll.
    fn hand_over(&self, state: &mut State<E>, slot: Slot, mut driven: Driven) {
        state.waiting.remove(slot);
        if state.waiting.any().is_none() {
            return;
        }
        if driven == Driven::Satisfied {
            // While data flows the socket is never empty: then another takes its turn.
            let mut fills = 0;
            driven = self.drive(state, |_| {
                fills += 1;
                fills > FILLS
            });
        }
        match (driven, state.waiting.any()) {
            (Driven::Empty, Some(other)) => {
                self.readable.arm(Some(other), state.waiting.others(other));
            }
            (Driven::Satisfied, Some(other)) => other.wake_by_ref(),
            _ => {}
        }
    }

    /// Sends, reads and sorts until `satisfied` by what is in the queues, or the socket is empty,
    /// or a queue is full.
    fn drive(&self, state: &mut State<E>, mut satisfied: impl FnMut(&mut E) -> bool) -> Driven {
        state.active = true;
        self.flush(state);
        let now = now();
        let mut cx = Context::from_waker(&self.read_waker);
        self.readable.rest();
        let driven = loop {
            if state.endpoint.is_ended() {
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
                    state.endpoint.handle_message(now, message);
                    state.sort_events();
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
            let Some(socket) = &mut state.socket else {
                break Driven::Ended;
            };
            match socket.poll_fill(&mut cx) {
                Poll::Ready(Ok(true)) => state.endpoint.handle_activity(now),
                Poll::Ready(Ok(false)) => self.end(state, None),
                Poll::Ready(Err(error)) => self.end(state, Some(error)),
                Poll::Pending => break Driven::Empty,
            }
        };
        state.empty = driven == Driven::Empty;
        let held = driven == Driven::Full;
        if held != state.held {
            state.held = held;
            state.endpoint.handle_hold(now, held);
        }
        // Pongs, and the answer to a close.
        if state.endpoint.queued() > 0 {
            self.flush(state);
        }
        self.advance_alarm(state);
        if driven == Driven::Ended {
            if !std::mem::replace(&mut state.over, true) {
                // The keeper sees the socket off.
                self.keeper.call();
            }
            satisfied(&mut state.endpoint);
        } else if driven == Driven::Full && satisfied(&mut state.endpoint) {
            return Driven::Satisfied;
        }
        driven
    }

    /// Calls the keeper if a deadline has come to be before its next look.
    fn advance_alarm(&self, state: &mut State<E>) {
        if let Some(next) = state.endpoint.poll_timeout()
            && state.alarm.is_some_and(|alarm| next < alarm)
        {
            state.alarm = Some(next);
            self.keeper.call();
        }
    }

    fn end(&self, state: &mut State<E>, lost: Option<Error>) {
        state.deaf |= lost.is_none();
        state.endpoint.handle_end(lost);
        state.sort_events();
    }

    /// Sends as much as the socket takes. Whether all of it went.
    fn flush(&self, state: &mut State<E>) -> bool {
        let flushed = self.transmit(state);
        // Writers learn that there is room.
        state.sort_events();
        flushed
    }

    fn transmit(&self, state: &mut State<E>) -> bool {
        let State {
            endpoint,
            socket: Some(socket),
            deaf,
            writing,
            ..
        } = &mut *state
        else {
            return true;
        };
        self.writable.rest();
        let mut cx = Context::from_waker(&self.write_waker);
        loop {
            while socket.pending() < limits::SEND_BUFFER {
                let Some(transmit) = endpoint.poll_transmit() else {
                    break;
                };
                if !*deaf {
                    socket.send(transmit);
                }
            }
            if *deaf {
                return true;
            }
            match socket.poll_flush(&mut cx) {
                Poll::Ready(Ok(())) if endpoint.queued() == 0 => return true,
                Poll::Ready(Ok(())) => {}
                // What has arrived may still say why: the Status is read before the loss counts.
                Poll::Ready(Err(_)) => {
                    *deaf = true;
                    self.keeper.call();
                }
                Poll::Pending => {
                    self.writable.arm(writing.any(), true);
                    return false;
                }
            }
        }
    }

    /// Waits until the session takes more to send, for the handle in `slot`; then gives it.
    pub(crate) fn poll_room(
        &self,
        cx: &mut Context<'_>,
        slot: Slot,
    ) -> Poll<MutexGuard<'_, State<E>>> {
        let mut state = self.lock();
        let over = state.endpoint.is_ended();
        if self.flush(&mut state) || self.has_send_room(&state) || over {
            state.writing.remove(slot);
            return Poll::Ready(state);
        }
        self.wait_writable(&mut state, cx, slot);
        Poll::Pending
    }

    /// Waits until `room` is true, for the handle in `slot`; then gives the session.
    pub(crate) fn poll_room_of(
        &self,
        cx: &mut Context<'_>,
        slot: Slot,
        mut room: impl FnMut(&mut E) -> bool,
    ) -> Poll<MutexGuard<'_, State<E>>> {
        let mut state = self.lock();
        self.look(&mut state);
        if !room(&mut state.endpoint) {
            let flushed = self.flush(&mut state);
            if !room(&mut state.endpoint) {
                match flushed {
                    true => state.writing.insert(slot, cx.waker()),
                    false => self.wait_writable(&mut state, cx, slot),
                }
                match state.waiting.any() {
                    None if state.empty => self.readable.arm(Some(cx.waker()), true),
                    None => self.keeper.call(),
                    Some(_) => {}
                }
                return Poll::Pending;
            }
        }
        state.writing.remove(slot);
        Poll::Ready(state)
    }

    /// Reads what has arrived if nobody waits for anything: a writer learns only from the peer
    /// that it writes for nobody.
    fn look(&self, state: &mut State<E>) {
        if state.waiting.any().is_none() && !(state.empty && self.readable.is_armed()) {
            let mut fills = 0;
            self.drive(state, |_| {
                fills += 1;
                fills > FILLS
            });
        }
    }

    /// Waits until all that was queued has been handed to the operating system.
    pub(crate) fn poll_flushed(&self, cx: &mut Context<'_>, slot: Slot) -> Poll<()> {
        let mut state = self.lock();
        if self.flush(&mut state) {
            state.writing.remove(slot);
            return Poll::Ready(());
        }
        self.wait_writable(&mut state, cx, slot);
        Poll::Pending
    }

    fn has_send_room(&self, state: &State<E>) -> bool {
        let pending = state.socket.as_ref().map_or(0, |socket| socket.pending());
        pending + state.endpoint.queued() < limits::SEND_BUFFER
    }

    fn wait_writable(&self, state: &mut State<E>, cx: &Context<'_>, slot: Slot) {
        state.writing.insert(slot, cx.waker());
        self.writable.arm(Some(cx.waker()), true);
    }

    /// Sends what a command has just queued, without waiting; what does not go now the keeper
    /// sends.
    pub(crate) fn push(&self, state: &mut State<E>) {
        self.flush(state);
        self.advance_alarm(state);
    }

    /// Ends the session from this side. Queues keep what they have.
    pub(crate) fn close(&self) {
        let mut state = self.lock();
        state.endpoint.close();
        self.flush(&mut state);
        state.waiting.wake_all();
        state.writing.wake_all();
        drop(state);
        self.keeper.call();
    }

    /// Leaves the end of a complete session to the keeper.
    pub(crate) fn see_off(&self) {
        self.keeper.call();
    }

    /// Forgets a handle that is gone.
    pub(crate) fn leave(&self, slot: Slot) {
        self.leave_slot(&mut self.lock(), slot);
    }

    /// [`leave`](Self::leave) for those whose slot is given to another handle: that must not be
    /// possible before.
    pub(crate) fn leave_slot(&self, state: &mut State<E>, slot: Slot) {
        state.waiting.remove(slot);
        state.writing.remove(slot);
        // It may have been the driver, or the one whose full queue held the rest back.
        if state.waiting.any().is_some() {
            self.keeper.call();
        }
    }
}

/// The task that owns a session's timers.
struct Keeper<E: Endpoint> {
    shared: Arc<Shared<E>>,
    sleep: Pin<Box<Sleep>>,
    /// When a session that is over must be gone.
    give_up: Option<Instant>,
    yielded: bool,
}

impl<E: Endpoint> Keeper<E> {
    fn new(shared: Arc<Shared<E>>) -> Self {
        let sleep = Box::pin(tokio::time::sleep(limits::PING_INTERVAL));
        Self {
            shared,
            sleep,
            give_up: None,
            yielded: false,
        }
    }

    /// Does what is due; ready when the session is gone.
    fn work(&mut self, timer: bool, called: bool) -> Poll<()> {
        let shared = self.shared.clone();
        let state = &mut *shared.lock();
        // A timer that has fired was due, even if the clock is a fraction of a millisecond behind.
        let now = match timer {
            true => now().max(self.sleep.deadline().into_std()),
            false => now(),
        };
        // Nobody may have looked at the socket for long: what has arrived counts before any
        // deadline does.
        if timer || called || !shared.readable.is_armed() {
            if timer
                && !std::mem::replace(&mut state.active, false)
                && let Some(socket) = &mut state.socket
            {
                socket.shrink();
            }
            let active = state.active;
            let mut fills = 0;
            let driven = shared.drive(state, |_| {
                fills += 1;
                fills > FILLS
            });
            state.active = active;
            match (driven, state.waiting.any()) {
                (Driven::Empty, Some(other)) => {
                    let crowd = state.waiting.others(other);
                    shared.readable.arm(Some(other), crowd);
                }
                (Driven::Empty, None) if state.endpoint.is_complete() => {
                    shared.readable.arm(None, true);
                }
                // Data flows: whoever waits for it takes over.
                (Driven::Satisfied, Some(other)) => other.wake_by_ref(),
                (Driven::Satisfied, None) => shared.keeper.call(),
                _ => {}
            }
        }
        if timer {
            state.endpoint.handle_timeout(now);
            state.sort_events();
            if state.held && state.endpoint.has_room() {
                shared.keeper.call();
            }
        }
        let flushed = shared.flush(state);
        if flushed || shared.has_send_room(state) {
            state.writing.wake_all();
        }
        if !state.endpoint.is_ended() {
            return Poll::Pending;
        }
        let give_up = *self.give_up.get_or_insert(now + limits::CLOSE_GRACE);
        if flushed || state.deaf || give_up <= now {
            let finished = match &mut state.socket {
                None => true,
                Some(_) if state.deaf || give_up <= now => true,
                Some(socket) => {
                    let mut cx = Context::from_waker(&shared.write_waker);
                    shared.writable.rest();
                    let finished = socket.poll_shutdown(&mut cx).is_ready();
                    if !finished {
                        shared.writable.arm(None, true);
                    }
                    finished
                }
            };
            if finished {
                state.socket = None;
                state.waiting.wake_all();
                state.writing.wake_all();
                return Poll::Ready(());
            }
        }
        Poll::Pending
    }
}

impl<E: Endpoint> Future for Keeper<E> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        let keeper = this.shared.keeper.clone();
        loop {
            *lock(&keeper.waker) = Some(cx.waker().clone());
            let timer = this.sleep.as_mut().poll(cx).is_ready();
            let called = keeper.called.swap(false, Ordering::AcqRel);
            let understudy = keeper.understudy.swap(false, Ordering::AcqRel);
            if !timer && !called && !understudy {
                return Poll::Pending;
            }
            // The driver was woken as well and goes first.
            if understudy && !timer && !called && !std::mem::replace(&mut this.yielded, true) {
                keeper.understudy.store(true, Ordering::Release);
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            this.yielded = false;
            if this.work(timer, called).is_ready() {
                return Poll::Ready(());
            }
            let now = now();
            let mut state = this.shared.lock();
            let next = state.endpoint.poll_timeout();
            let next = next.into_iter().chain(this.give_up).min();
            let next = next.unwrap_or(now + limits::PING_INTERVAL);
            state.alarm = Some(next);
            drop(state);
            this.sleep.as_mut().reset(next.max(now).into());
        }
    }
}

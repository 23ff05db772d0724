//! Schedules that shuttle chooses: in flow a scenario, out come its executions in many orders of
//! locks and wakes, under which no wakeup may be lost and nothing may deadlock.
//!
//! Timers never fire here: what waits for one has lost its wakeup.

use std::{
    cell::Cell,
    collections::VecDeque,
    io,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use shuttle::scheduler::{PctScheduler, RandomScheduler};

use self::sync::{Mutex, lock};
use super::super::websocket::WebSocket;
use crate::{
    error::Error,
    session::{Message, Transmit},
};

thread_local! {
    static EXPLORING: Cell<bool> = const { Cell::new(false) };
}

/// The locks, tasks and timers of a test: shuttle's in a scenario, else those of the library.
pub(super) mod sync {
    use std::{
        ops::{Deref, DerefMut},
        sync::PoisonError,
        task::{Context, Poll},
        time::Instant,
    };

    use super::{super::sync::real, EXPLORING};

    pub(in super::super) enum Mutex<T> {
        Real(real::Mutex<T>),
        Model(shuttle::sync::Mutex<T>),
    }

    impl<T> Mutex<T> {
        pub(in super::super) fn new(value: T) -> Self {
            match EXPLORING.get() {
                true => Self::Model(shuttle::sync::Mutex::new(value)),
                false => Self::Real(real::Mutex::new(value)),
            }
        }
    }

    impl<T: Default> Default for Mutex<T> {
        fn default() -> Self {
            Self::new(T::default())
        }
    }

    pub(in super::super) enum MutexGuard<'a, T> {
        Real(real::MutexGuard<'a, T>),
        Model(shuttle::sync::MutexGuard<'a, T>),
    }

    impl<T> Deref for MutexGuard<'_, T> {
        type Target = T;

        fn deref(&self) -> &T {
            match self {
                Self::Real(guard) => guard,
                Self::Model(guard) => guard,
            }
        }
    }

    impl<T> DerefMut for MutexGuard<'_, T> {
        fn deref_mut(&mut self) -> &mut T {
            match self {
                Self::Real(guard) => guard,
                Self::Model(guard) => guard,
            }
        }
    }

    pub(in super::super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
        match mutex {
            Mutex::Real(mutex) => MutexGuard::Real(real::lock(mutex)),
            Mutex::Model(mutex) => {
                MutexGuard::Model(mutex.lock().unwrap_or_else(PoisonError::into_inner))
            }
        }
    }

    pub(in super::super) fn spawn(task: impl Future<Output = ()> + Send + 'static) {
        match EXPLORING.get() {
            true => drop(shuttle::future::spawn(task)),
            false => real::spawn(task),
        }
    }

    pub(in super::super) enum Timer {
        Real(real::Timer),
        Never(Instant),
    }

    impl Timer {
        pub(in super::super) fn new(deadline: Instant) -> Self {
            match EXPLORING.get() {
                true => Self::Never(deadline),
                false => Self::Real(real::Timer::new(deadline)),
            }
        }

        pub(in super::super) fn deadline(&self) -> Instant {
            match self {
                Self::Real(timer) => timer.deadline(),
                Self::Never(deadline) => *deadline,
            }
        }

        pub(in super::super) fn reset(&mut self, at: Instant) {
            match self {
                Self::Real(timer) => timer.reset(at),
                Self::Never(deadline) => *deadline = at,
            }
        }

        pub(in super::super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
            match self {
                Self::Real(timer) => timer.poll(cx),
                Self::Never(_) => Poll::Pending,
            }
        }
    }
}

/// Runs a scenario under two hundred schedules, or as many as `KUBEWIRE_MODEL_SCHEDULES` says.
/// Half of them are random, half change priorities at few places, which finds what needs one
/// certain order of few steps.
pub(super) fn explore(scenario: impl Fn() + Send + Sync + 'static) {
    struct Exploring;
    impl Drop for Exploring {
        fn drop(&mut self) {
            EXPLORING.set(false);
        }
    }
    let schedules = std::env::var("KUBEWIRE_MODEL_SCHEDULES");
    let schedules: usize = schedules.map_or(200, |schedules| schedules.parse().unwrap());
    EXPLORING.set(true);
    let _exploring = Exploring;
    let scenario = Arc::new(scenario);
    let config = || {
        let mut config = shuttle::Config::new();
        config.silence_warnings = true;
        config.failure_persistence = shuttle::FailurePersistence::Print;
        config
    };
    let again = scenario.clone();
    let random = RandomScheduler::new(schedules / 2);
    shuttle::Runner::new(random, config()).run(move || again());
    let priorities = PctScheduler::new(3, schedules / 2);
    shuttle::Runner::new(priorities, config()).run(move || scenario());
}

/// One direction of a connection in memory.
struct Pipe(Mutex<PipeState>);

#[derive(Default)]
struct PipeState {
    messages: VecDeque<Message>,
    closed: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

/// Messages that a direction holds.
const CAPACITY: usize = 2;

impl Pipe {
    /// Does something, and wakes what that has made possible.
    fn with<T>(&self, work: impl FnOnce(&mut PipeState) -> (T, bool)) -> T {
        let mut state = lock(&self.0);
        let (result, changed) = work(&mut state);
        let wakers = match changed {
            true => [state.reader.take(), state.writer.take()],
            false => [None, None],
        };
        drop(state);
        for waker in wakers.into_iter().flatten() {
            waker.wake();
        }
        result
    }

    fn close(&self) {
        self.with(|state| {
            state.closed = true;
            ((), true)
        });
    }
}

/// One end of a connection in memory.
struct ModelSocket {
    incoming: Arc<Pipe>,
    outgoing: Arc<Pipe>,
    ready: Option<Message>,
    output: VecDeque<Transmit>,
    open: Open,
}

/// Both ends of a connection in memory, and who waits for their ends.
pub(super) fn pair() -> (Box<dyn WebSocket>, Box<dyn WebSocket>, Open) {
    let pipe = || Arc::new(Pipe(Mutex::default()));
    let (up, down) = (pipe(), pipe());
    let open = Open(Arc::new(Mutex::new((2, None))));
    let end = |incoming: &Arc<Pipe>, outgoing: &Arc<Pipe>| {
        Box::new(ModelSocket {
            incoming: incoming.clone(),
            outgoing: outgoing.clone(),
            ready: None,
            output: VecDeque::new(),
            open: open.clone(),
        })
    };
    (end(&down, &up), end(&up, &down), open)
}

/// The ends that have not been dropped.
#[derive(Clone)]
pub(super) struct Open(Arc<Mutex<(usize, Option<Waker>)>>);

impl Open {
    /// Waits until there is none.
    pub(super) async fn none(&self) {
        std::future::poll_fn(|cx| {
            let mut open = lock(&self.0);
            if open.0 == 0 {
                return Poll::Ready(());
            }
            open.1 = Some(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }
}

impl Drop for ModelSocket {
    fn drop(&mut self) {
        self.incoming.close();
        self.outgoing.close();
        let mut open = lock(&self.open.0);
        open.0 -= 1;
        let waker = open.1.take();
        drop(open);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl WebSocket for ModelSocket {
    fn buffered(&mut self) -> Result<Option<Message>, Error> {
        Ok(self.ready.take())
    }

    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<Result<bool, Error>> {
        let next = self
            .incoming
            .with(|pipe| match (pipe.messages.pop_front(), pipe.closed) {
                (Some(message), _) => (Poll::Ready(Some(message)), true),
                (None, true) => (Poll::Ready(None), false),
                (None, false) => {
                    pipe.reader = Some(cx.waker().clone());
                    (Poll::Pending, false)
                }
            });
        next.map(|message| {
            self.ready = message;
            Ok(self.ready.is_some())
        })
    }

    fn send(&mut self, transmit: Transmit) {
        self.output.push_back(transmit);
    }

    fn pending(&self) -> usize {
        self.output.iter().map(Transmit::len).sum()
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(next) = self.output.front() {
            let sent = self.outgoing.with(|pipe| {
                if pipe.closed {
                    return (Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())), false);
                }
                if pipe.messages.len() < CAPACITY {
                    pipe.messages.push_back(next.to_message());
                    return (Poll::Ready(Ok(())), true);
                }
                pipe.writer = Some(cx.waker().clone());
                (Poll::Pending, false)
            });
            match sent {
                Poll::Ready(Ok(())) => drop(self.output.pop_front()),
                other => return other,
            }
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(&mut self, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.outgoing.close();
        Poll::Ready(Ok(()))
    }

    fn shrink(&mut self) {}
}

//! Schedules that shuttle chooses: in flow a scenario, out come its executions in many orders of
//! locks and wakes, under which no wakeup may be lost and nothing may deadlock.
//!
//! Locks, tasks and timers are shuttle's in a scenario, and those of the library in other tests.
//! Timers never fire: what waits for one has lost its wakeup.

use std::{
    cell::Cell,
    ops::{Deref, DerefMut},
    sync::{Arc, PoisonError},
    task::{Context, Poll},
    time::Instant,
};

use shuttle::scheduler::{PctScheduler, RandomScheduler};

use super::real;

thread_local! {
    static EXPLORING: Cell<bool> = const { Cell::new(false) };
}

/// A lock.
#[derive(Debug)]
pub(crate) enum Mutex<T> {
    Real(real::Mutex<T>),
    Model(shuttle::sync::Mutex<T>),
}

impl<T> Mutex<T> {
    pub(crate) fn new(value: T) -> Self {
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

pub(crate) enum MutexGuard<'a, T> {
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

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    match mutex {
        Mutex::Real(mutex) => MutexGuard::Real(real::lock(mutex)),
        Mutex::Model(mutex) => {
            MutexGuard::Model(mutex.lock().unwrap_or_else(PoisonError::into_inner))
        }
    }
}

/// Does work, and gives what it said if it panicked. What explores schedules panics to end them.
pub(crate) fn caught<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    match EXPLORING.get() {
        true => Ok(work()),
        false => real::caught(work),
    }
}

pub(crate) fn spawn(task: impl Future<Output = ()> + Send + 'static) {
    match EXPLORING.get() {
        true => drop(shuttle::future::spawn(task)),
        false => real::spawn(task),
    }
}

pub(crate) enum Timer {
    Real(real::Timer),
    Never(Instant),
}

impl Timer {
    pub(crate) fn new(deadline: Instant) -> Self {
        match EXPLORING.get() {
            true => Self::Never(deadline),
            false => Self::Real(real::Timer::new(deadline)),
        }
    }

    pub(crate) fn deadline(&self) -> Instant {
        match self {
            Self::Real(timer) => timer.deadline(),
            Self::Never(deadline) => *deadline,
        }
    }

    pub(crate) fn reset(&mut self, at: Instant) {
        match self {
            Self::Real(timer) => timer.reset(at),
            Self::Never(deadline) => *deadline = at,
        }
    }

    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match self {
            Self::Real(timer) => timer.poll(cx),
            Self::Never(_) => Poll::Pending,
        }
    }
}

/// Runs a scenario under two hundred schedules, or as many as `KUBEWIRE_MODEL_SCHEDULES` says.
/// Half of them are random, half change priorities at few places, which finds what needs one
/// certain order of few steps.
pub(crate) fn explore(scenario: impl Fn() + Send + Sync + 'static) {
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

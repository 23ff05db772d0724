//! Locks, tasks and timers: in flow what the driver asks of them, out comes what std and tokio
//! give, or, in a test that explores schedules, what shuttle gives.

#[cfg(not(test))]
pub(super) use self::real::{Mutex, MutexGuard, Timer, lock, spawn};
#[cfg(test)]
pub(super) use super::model::sync::{Mutex, MutexGuard, Timer, lock, spawn};

pub(super) mod real {
    use std::{
        pin::Pin,
        sync::PoisonError,
        task::{Context, Poll},
        time::Instant,
    };

    use tokio::time::Sleep;

    pub(in super::super) use std::sync::{Mutex, MutexGuard};

    pub(in super::super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
        // A panic elsewhere does not make the state wrong: every change is made under one lock.
        mutex.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(in super::super) fn spawn(task: impl Future<Output = ()> + Send + 'static) {
        tokio::spawn(task);
    }

    pub(in super::super) struct Timer(Pin<Box<Sleep>>);

    impl Timer {
        pub(in super::super) fn new(deadline: Instant) -> Self {
            Self(Box::pin(tokio::time::sleep_until(deadline.into())))
        }

        pub(in super::super) fn deadline(&self) -> Instant {
            self.0.deadline().into_std()
        }

        pub(in super::super) fn reset(&mut self, deadline: Instant) {
            self.0.as_mut().reset(deadline.into());
        }

        pub(in super::super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
            self.0.as_mut().poll(cx)
        }
    }
}

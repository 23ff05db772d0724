//! Locks, tasks and timers: in flow what the driver asks of them, out comes what std and tokio
//! give, or, in a test that explores schedules, what shuttle gives.

#[cfg(test)]
#[path = "sync/tests/model.rs"]
pub(crate) mod model;

#[cfg(test)]
pub(crate) use self::model::{Mutex, MutexGuard, Timer, caught, lock, spawn};
#[cfg(not(test))]
pub(crate) use self::real::{Mutex, MutexGuard, Timer, caught, lock, spawn};

mod real {
    use std::{
        pin::Pin,
        task::{Context, Poll},
        time::Instant,
    };

    use tokio::time::Sleep;

    pub(crate) use std::sync::{Mutex, MutexGuard};

    pub(crate) use crate::error::panic::{lock, words as caught};

    pub(crate) fn spawn(task: impl Future<Output = ()> + Send + 'static) {
        tokio::spawn(task);
    }

    pub(crate) struct Timer(Pin<Box<Sleep>>);

    impl Timer {
        pub(crate) fn new(deadline: Instant) -> Self {
            Self(Box::pin(tokio::time::sleep_until(deadline.into())))
        }

        pub(crate) fn deadline(&self) -> Instant {
            self.0.deadline().into_std()
        }

        pub(crate) fn reset(&mut self, deadline: Instant) {
            self.0.as_mut().reset(deadline.into());
        }

        pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
            self.0.as_mut().poll(cx)
        }
    }
}

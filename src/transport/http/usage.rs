//! Who uses a connection: in flow the beginnings and ends of requests, out comes whether there is
//! room for one more, and that nobody has used it for long.

use std::sync::{Arc, Mutex};

use tokio::time::{Instant, sleep_until};

use crate::{error::panic::lock, limits};

#[derive(Debug)]
pub(super) struct Usage(Mutex<State>);

#[derive(Debug)]
enum State {
    /// So many requests are under way, or their bodies are being read.
    Active(usize),
    /// None since then.
    Idle(Instant),
    /// None for too long: there will be no other.
    Retired,
}

/// A request of a connection, until this is dropped.
#[derive(Debug)]
pub(super) struct InUse(Arc<Usage>);

impl Usage {
    /// Those of a new connection, and the first of them.
    pub(super) fn begun() -> (Arc<Self>, InUse) {
        let usage = Arc::new(Self(Mutex::new(State::Active(1))));
        let first = InUse(Arc::clone(&usage));
        (usage, first)
    }

    /// One more request, if that makes no more than `most` at once.
    pub(super) fn begin(self: &Arc<Self>, most: usize) -> Option<InUse> {
        let mut state = lock(&self.0);
        let active = match *state {
            State::Active(active) => active,
            State::Idle(_) => 0,
            State::Retired => return None,
        };
        if active >= most {
            return None;
        }
        *state = State::Active(active + 1);
        Some(InUse(Arc::clone(self)))
    }

    pub(super) fn is_retired(&self) -> bool {
        matches!(*lock(&self.0), State::Retired)
    }

    /// Waits until there has been no request for [`limits::IDLE_CONNECTION`]. From then on there
    /// is none.
    pub(super) async fn retired(&self) {
        loop {
            let now = Instant::now();
            let due = {
                let mut state = lock(&self.0);
                match *state {
                    State::Retired => return,
                    State::Active(_) => now + limits::IDLE_CONNECTION,
                    State::Idle(since) if since + limits::IDLE_CONNECTION <= now => {
                        *state = State::Retired;
                        return;
                    }
                    State::Idle(since) => since + limits::IDLE_CONNECTION,
                }
            };
            sleep_until(due).await;
        }
    }
}

impl Drop for InUse {
    fn drop(&mut self) {
        let mut state = lock(&self.0.0);
        if let State::Active(active) = *state {
            *state = match active {
                0 | 1 => State::Idle(Instant::now()),
                more => State::Active(more - 1),
            };
        }
    }
}

//! Who uses a connection: in flow the beginnings and ends of requests, out comes whether there is
//! room for one more, that nobody has used it for long, and for how long its peer has said nothing.

use std::{
    io,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, ReadBuf},
    time::{Instant, sleep_until},
};

use crate::{delegate::write_inner, error::panic::lock, limits, net};

#[derive(Debug)]
pub(super) struct Usage {
    state: Mutex<State>,
    heard: Mutex<Instant>,
}

/// A connection that tells when it has heard of its peer.
pub(super) struct Heard(pub(super) net::Connection, pub(super) Arc<Usage>);

impl AsyncRead for Heard {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let read = Pin::new(&mut this.0).poll_read(cx, buf);
        // The kernel has not heard of it either where it gives up its probes.
        let silent = |error: &io::Error| error.kind() == io::ErrorKind::TimedOut;
        if matches!(&read, Poll::Ready(read) if !read.as_ref().is_err_and(silent)) {
            *lock(&this.1.heard) = Instant::now();
        }
        read
    }
}

write_inner!(Heard, poll_shutdown);

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
        let usage = Arc::new(Self {
            state: Mutex::new(State::Active(1)),
            heard: Mutex::new(Instant::now()),
        });
        let first = InUse(Arc::clone(&usage));
        (usage, first)
    }

    /// One more request, if that makes no more than `most` at once.
    pub(super) fn begin(self: &Arc<Self>, most: usize) -> Option<InUse> {
        let mut state = lock(&self.state);
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
        matches!(*lock(&self.state), State::Retired)
    }

    /// Waits until there has been no request for [`limits::IDLE_CONNECTION`]. From then on there
    /// is none.
    pub(super) async fn retired(&self) {
        loop {
            let now = Instant::now();
            let due = {
                let mut state = lock(&self.state);
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

impl InUse {
    /// How long the peer of the connection has said nothing, its end included.
    pub(super) fn silence(&self) -> Duration {
        lock(&self.0.heard).elapsed()
    }
}

impl Drop for InUse {
    fn drop(&mut self) {
        let mut state = lock(&self.0.state);
        if let State::Active(active) = *state {
            *state = match active {
                0 | 1 => State::Idle(Instant::now()),
                more => State::Active(more - 1),
            };
        }
    }
}

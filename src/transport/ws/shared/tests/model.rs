//! A connection in memory for scenarios: in flow messages of one end, out they come at the other.

use std::{
    collections::VecDeque,
    io,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use crate::{
    error::Error,
    session::{Message, Transmit},
    transport::{
        sync::{Mutex, lock},
        ws::websocket::WebSocket,
    },
};

/// One direction of a connection in memory.
struct Pipe {
    state: Mutex<PipeState>,
    /// Messages that it holds.
    capacity: usize,
}

#[derive(Default)]
struct PipeState {
    messages: VecDeque<Message>,
    closed: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

impl Pipe {
    /// Does something, and wakes what that has made possible.
    fn with<T>(&self, work: impl FnOnce(&mut PipeState) -> (T, bool)) -> T {
        let mut state = lock(&self.state);
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
pub(crate) fn pair() -> (Box<dyn WebSocket>, Box<dyn WebSocket>, Open) {
    pair_of(2)
}

/// The same, whose directions hold so many messages each.
pub(super) fn pair_of(capacity: usize) -> (Box<dyn WebSocket>, Box<dyn WebSocket>, Open) {
    let pipe = || {
        let state = Mutex::default();
        Arc::new(Pipe { state, capacity })
    };
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
pub(crate) struct Open(Arc<Mutex<(usize, Option<Waker>)>>);

impl Open {
    /// Waits until there is none.
    pub(crate) async fn none(&self) {
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
        // A socket that is dropped wakes nobody who waited for it.
        let own = self.incoming.with(|pipe| (pipe.reader.take(), false));
        drop((own, self.outgoing.with(|pipe| (pipe.writer.take(), false))));
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
            let capacity = self.outgoing.capacity;
            let sent = self.outgoing.with(|pipe| {
                if pipe.closed {
                    return (Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())), false);
                }
                if pipe.messages.len() < capacity {
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

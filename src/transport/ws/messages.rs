//! Messages that go one way, over a socket: in flow a WebSocket, out come its messages one by one,
//! or, in the server's role, in flow the messages.

use std::{
    collections::VecDeque,
    future::poll_fn,
    sync::Arc,
    task::{Context, Poll},
    time::Instant,
};

use bytes::Bytes;

use super::{
    shared::{Endpoint, Shared, Waiting},
    websocket::WebSocket,
};
use crate::{
    Role,
    error::Error,
    limits,
    session::{
        KeepaliveConfig, Message, Opcode, Session, Transmit,
        messages::{Messages as Stream, MessagesEvent},
    },
    transport::now,
};

/// What a queued message costs beside its bytes.
const SLICE: usize = 64;

/// A session with the queue of what has arrived.
struct Queue {
    session: Stream,
    messages: VecDeque<Message>,
    cost: usize,
    ended: Option<Result<(), Error>>,
}

fn cost(message: &Message) -> usize {
    SLICE
        + match message {
            Message::Text(bytes) | Message::Binary(bytes) => bytes.len(),
            _ => 0,
        }
}

impl Session for Queue {
    type Event = ();

    fn handle_message(&mut self, now: Instant, message: Message) {
        self.session.handle_message(now, message);
    }

    fn handle_activity(&mut self, now: Instant) {
        self.session.handle_activity(now);
    }

    fn handle_end(&mut self, lost: Option<Error>) {
        self.session.handle_end(lost);
    }

    fn handle_hold(&mut self, now: Instant, held: bool) {
        self.session.handle_hold(now, held);
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.session.handle_timeout(now);
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.session.poll_timeout()
    }

    fn poll_transmit(&mut self) -> Option<Transmit> {
        self.session.poll_transmit()
    }

    fn poll_event(&mut self) -> Option<()> {
        None
    }

    fn close(&mut self) {
        self.session.close();
        self.ended.get_or_insert(Ok(()));
    }
}

impl Endpoint for Queue {
    fn sort_events(&mut self, waiting: &mut Waiting, writing: &mut Waiting) {
        while let Some(event) = self.session.poll_event() {
            match event {
                MessagesEvent::Message(message) => {
                    self.cost += cost(&message);
                    self.messages.push_back(message);
                }
                MessagesEvent::Ended(how) => {
                    self.ended = Some(how);
                    writing.wake_all();
                }
            }
            waiting.wake_all();
        }
    }

    fn has_room(&self) -> bool {
        self.cost < limits::STREAM_BUFFER
    }

    fn queued(&self) -> usize {
        self.session.queued()
    }

    fn is_ended(&self) -> bool {
        self.session.is_ended()
    }

    fn is_complete(&self) -> bool {
        false
    }
}

/// One end of the stream. Dropping it closes the connection.
pub(crate) struct Messages(Arc<Shared<Queue>>);

impl Messages {
    /// Begins on the current tokio runtime.
    pub(crate) fn spawn(role: Role, socket: Box<dyn WebSocket>) -> Self {
        let session = Stream::new(role, KeepaliveConfig::default(), now());
        let queue = Queue {
            session,
            messages: VecDeque::new(),
            cost: 0,
            ended: None,
        };
        Self(Shared::spawn(queue, socket))
    }

    /// The next message with data; `None` after the server closed in order. Cancel safe.
    pub(crate) fn poll_next(&self, cx: &mut Context<'_>) -> Poll<Option<Result<Message, Error>>> {
        self.0
            .poll_take(cx, 0, |queue| match queue.messages.pop_front() {
                Some(message) => {
                    queue.cost -= cost(&message);
                    Some(Some(Ok(message)))
                }
                None => match queue.ended.as_ref()? {
                    Ok(()) => Some(None),
                    Err(error) => Some(Some(Err(error.clone()))),
                },
            })
    }

    /// Sends a message, as soon as there is room for it (server). `false` if the client has gone.
    pub(crate) async fn send(&self, opcode: Opcode, payload: Bytes) -> bool {
        let mut payload = Some(payload);
        poll_fn(|cx| {
            self.0.poll_room(cx, 0).map(|mut state| {
                let open = !state.is_deaf() && !state.endpoint.is_ended();
                if let Some(payload) = payload.take().filter(|_| open) {
                    state.endpoint.session.send(now(), opcode, payload);
                    self.0.push(&mut state);
                }
                open
            })
        })
        .await
    }

    /// Waits until all that was sent has been handed to the operating system (server).
    pub(crate) async fn flushed(&self) {
        poll_fn(|cx| self.0.poll_flushed(cx, 0)).await;
    }

    /// Ends the stream in order and waits until the client has gone (server).
    pub(crate) async fn finish(self) {
        {
            let mut state = self.0.lock();
            state.endpoint.session.finish(now());
            self.0.push(&mut state);
        }
        self.closed().await;
    }

    /// Waits until the client has gone (server).
    pub(crate) async fn closed(&self) {
        while poll_fn(|cx| self.poll_next(cx))
            .await
            .is_some_and(|next| next.is_ok())
        {}
    }
}

impl Drop for Messages {
    fn drop(&mut self) {
        self.0.close();
    }
}

impl std::fmt::Debug for Messages {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Messages").finish_non_exhaustive()
    }
}

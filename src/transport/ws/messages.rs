//! Messages that go one way, over a socket: in flow a WebSocket, out come its messages one by one,
//! or, in the server's role, in flow the messages.

use std::{
    collections::VecDeque,
    sync::Arc,
    task::{Context, Poll},
};

use super::{
    shared::{Endpoint, Shared, Slot, Waiters},
    websocket::WebSocket,
};
use crate::{
    Role,
    error::Error,
    limits,
    session::{
        KeepaliveConfig, Message,
        messages::{Messages as Stream, MessagesEvent},
    },
    transport::now,
};

/// What a queued message costs beside its bytes.
const SLICE: usize = 64;

const SLOT: Slot = 0;

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

impl Endpoint for Queue {
    type Session = Stream;

    fn session(&self) -> &Stream {
        &self.session
    }

    fn session_mut(&mut self) -> &mut Stream {
        &mut self.session
    }

    fn sort(&mut self, event: MessagesEvent, waiters: &mut Waiters) {
        match event {
            MessagesEvent::Message(message) => {
                self.cost += cost(&message);
                self.messages.push_back(message);
                waiters.wake_reader(SLOT);
            }
            MessagesEvent::Ended(how) => {
                self.ended = Some(how);
                waiters.wake_all();
            }
        }
    }

    fn has_room(&self) -> bool {
        self.cost < limits::STREAM_BUFFER
    }

    fn closed(&mut self) {
        self.ended.get_or_insert(Ok(()));
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
        let mut waiters = Waiters::default();
        waiters.claim();
        Self(Shared::spawn(queue, waiters, socket))
    }

    /// The next message with data; `None` after the server closed in order. Cancel safe.
    pub(crate) fn poll_next(&self, cx: &mut Context<'_>) -> Poll<Option<Result<Message, Error>>> {
        self.0
            .poll_take(cx, SLOT, |queue| match queue.messages.pop_front() {
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
}

#[cfg(feature = "testing")]
impl Messages {
    /// Sends a message, as soon as there is room for it (server). `false` if the client has gone.
    pub(crate) async fn send(&self, opcode: crate::session::Opcode, payload: bytes::Bytes) -> bool {
        let mut payload = Some(payload);
        std::future::poll_fn(|cx| {
            self.0.poll_room(cx, SLOT).map(|mut state| {
                let open = !state.is_write_closed()
                    && !crate::session::Session::is_ended(&state.endpoint.session);
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
        std::future::poll_fn(|cx| self.0.poll_flushed(cx, SLOT)).await;
    }

    /// Ends the stream in order and waits until the client has gone (server).
    pub(crate) async fn finish(self) {
        self.0.say(|queue| queue.session.finish(now()));
        self.closed().await;
    }

    /// Waits until the client has gone (server).
    pub(crate) async fn closed(&self) {
        while std::future::poll_fn(|cx| self.poll_next(cx))
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

debug_fields!(Messages {});

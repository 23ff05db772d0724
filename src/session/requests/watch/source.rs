//! Events out of what a response brings: the chunks of a body, or messages.

use bytes::Bytes;

use crate::{
    session::Message,
    wire::watch::{Decoder, Encoding, Event, EventError},
};

/// Where the events of one response come from.
#[derive(Debug)]
pub(crate) enum Source {
    /// The chunks of a body.
    Body(Box<Decoder>),
    /// The messages of a WebSocket, an event each
    /// (`k8s.io/apiserver/pkg/endpoints/handlers/watch.go`, `HandleWS`).
    Messages {
        /// The encoding of binary messages: text is JSON.
        binary: Encoding,
        /// Bytes of the largest event.
        bound: usize,
        /// The message that has not been taken yet.
        next: Option<(Encoding, Bytes)>,
    },
}

impl Source {
    pub(crate) fn body(encoding: Encoding, bound: usize) -> Self {
        Self::Body(Box::new(Decoder::with_bound(encoding, bound)))
    }

    pub(crate) fn messages(binary: Encoding, bound: usize) -> Self {
        Self::Messages {
            binary,
            bound,
            next: None,
        }
    }

    /// Takes the next chunk of a body. Take out all events first.
    pub(crate) fn push(&mut self, chunk: Bytes) {
        if let Self::Body(decoder) = self {
            decoder.push(chunk);
        }
    }

    /// Takes the next message. Take out its event before the next.
    pub(crate) fn push_message(&mut self, message: Message) {
        if let Self::Messages { binary, next, .. } = self {
            match message {
                Message::Text(text) => *next = Some((Encoding::Json, text)),
                Message::Binary(bytes) => *next = Some((*binary, bytes)),
                _ => {}
            }
        }
    }

    pub(crate) fn next_event(&mut self) -> Result<Option<Event>, EventError> {
        match self {
            Self::Body(decoder) => decoder.next_event(),
            Self::Messages { bound, next, .. } => match next.take() {
                // Nothing but a sign of life.
                None => Ok(None),
                Some((_, message)) if message.is_empty() => Ok(None),
                Some((_, message)) if message.len() > *bound => {
                    Err(EventError::TooLarge { bound: *bound })
                }
                Some((encoding, message)) => Event::from_message(encoding, message).map(Some),
            },
        }
    }

    /// The response has ended; an error if it did so in the midst of an event.
    pub(crate) fn finish(&mut self) -> Result<(), EventError> {
        match self {
            Self::Body(decoder) => decoder.finish(),
            // A message comes whole or not at all.
            Self::Messages { .. } => Ok(()),
        }
    }
}

//! A single watch: in flow a body or messages, out come events until the server ends it.

use std::{
    marker::PhantomData,
    pin::Pin,
    task::{Context, Poll, ready},
};

use hyper::body::Body as _;

use super::Body;
use crate::{
    Result,
    error::{Error, PeerError},
    session::watch::Source,
    transport::ws::messages::Messages,
    wire::watch::Event,
};

/// The events of a single watch, until the server ends it.
///
/// An `ERROR` event is an event like others; its object is a Status. After an `Err` the stream
/// ends.
///
/// ```
/// # kubewire::example(|pod| pod.container("main", ["sleep", "infinity"]), async |client| {
/// use kubewire::Resource;
///
/// let pods = Resource::namespaced("", "v1", "pods");
/// let mut events = client.watch(pods).namespace("default").once().await?;
/// let event = events.next().await.expect("the pod that is there")?;
/// assert_eq!(event.object.metadata()?.name()?, "web-0");
/// # Ok(())
/// # });
/// ```
#[derive(Debug)]
pub struct Events<E = Event> {
    source: Source,
    from: Incoming,
    event: PhantomData<fn() -> E>,
}

#[derive(Debug)]
pub(super) enum Incoming {
    Body(Body),
    Messages(Messages),
    /// The watch is over.
    Nothing,
}

impl<E: From<Event>> Events<E> {
    pub(super) fn new(source: Source, from: Incoming) -> Self {
        Self {
            source,
            from,
            event: PhantomData,
        }
    }

    /// The next event; `None` when the server has ended the watch.
    ///
    /// Cancel safe: what has arrived is kept.
    pub async fn next(&mut self) -> Option<Result<E>> {
        std::future::poll_fn(|cx| self.poll(cx)).await
    }

    fn fail(&mut self, error: Error) -> Poll<Option<Result<E>>> {
        self.from = Incoming::Nothing;
        Poll::Ready(Some(Err(error)))
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<E>>> {
        loop {
            if let Incoming::Nothing = self.from {
                return Poll::Ready(None);
            }
            match self.source.next_event() {
                Ok(Some(event)) => return Poll::Ready(Some(Ok(event.into()))),
                Ok(None) => {}
                Err(error) => return self.fail(PeerError::from(error).into()),
            }
            let more = match &mut self.from {
                Incoming::Nothing => None,
                Incoming::Messages(messages) => {
                    let message = ready!(messages.poll_next(cx));
                    message.map(|m| m.map(|message| self.source.push_message(message)))
                }
                Incoming::Body(body) => ready!(Pin::new(body).poll_frame(cx)).map(|frame| {
                    frame.map(|frame| {
                        if let Ok(data) = frame.into_data() {
                            self.source.push(data);
                        }
                    })
                }),
            };
            match more {
                Some(Ok(())) => {}
                Some(Err(error)) => return self.fail(error),
                None => {
                    self.from = Incoming::Nothing;
                    if let Err(error) = self.source.finish() {
                        return self.fail(PeerError::from(error).into());
                    }
                }
            }
        }
    }
}

stream!([E: From<Event>] Events<E>, Result<E>, poll);

//! One session, a server as a test scripts it, and a user, in virtual time.

use std::{
    io,
    ops::{Deref, DerefMut},
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;

use super::{Exchange, Head};
use crate::{error::NetworkError, session::backoff::Backoff};

/// What is on the other sides of a session: its server, and its user, who takes the updates.
pub(super) trait Sides {
    type Session: Exchange;

    fn take(&mut self, session: &Self::Session, update: <Self::Session as Exchange>::Update);

    /// There is no response at hand any more.
    fn response_over(&mut self);
}

pub(super) struct World<S: Sides> {
    pub(super) now: Instant,
    pub(super) session: S::Session,
    pub(super) requests: Vec<<S::Session as Exchange>::Request>,
    sides: S,
}

impl<S: Sides> Deref for World<S> {
    type Target = S;

    fn deref(&self) -> &S {
        &self.sides
    }
}

impl<S: Sides> DerefMut for World<S> {
    fn deref_mut(&mut self) -> &mut S {
        &mut self.sides
    }
}

impl<S: Sides> World<S>
where
    <S::Session as Exchange>::Request: Clone,
{
    pub(super) fn new(start: impl FnOnce(Instant) -> S::Session, sides: S) -> Self {
        let now = Instant::now();
        Self {
            now,
            session: start(now),
            requests: Vec::new(),
            sides,
        }
    }

    fn take_updates(&mut self) {
        while let Some(update) = self.session.poll_update() {
            self.sides.take(&self.session, update);
        }
        if !self.session.wants_response() {
            self.sides.response_over();
        }
    }

    pub(super) fn request(&mut self) -> Option<<S::Session as Exchange>::Request> {
        let request = self.session.poll_request(self.now)?;
        self.take_updates();
        self.requests.push(request.clone());
        Some(request)
    }

    pub(super) fn head(&mut self, status: u16) {
        self.head_of(Head {
            status,
            content_type: Some("application/json"),
            retry_after: None,
        });
    }

    pub(super) fn head_of(&mut self, head: Head<'_>) {
        self.session.handle_head(self.now, head);
        self.take_updates();
    }

    pub(super) fn body(&mut self, bytes: &[u8]) {
        let chunk = Bytes::copy_from_slice(bytes);
        self.session.handle_body(self.now, chunk);
        self.take_updates();
    }

    /// Ends the response in order, or cuts it.
    pub(super) fn end(&mut self, cut: bool) {
        let lost = || NetworkError::Lost(Arc::new(io::ErrorKind::ConnectionReset.into()));
        self.session
            .handle_end(self.now, cut.then(|| lost().into()));
        self.sides.response_over();
        self.take_updates();
    }

    /// A whole response.
    pub(super) fn respond(&mut self, status: u16, body: &[u8]) {
        self.head(status);
        self.body(body);
        self.end(false);
    }

    /// Lets time pass to the next deadline.
    pub(super) fn sleep(&mut self) {
        if let Some(at) = self.session.poll_timeout() {
            self.now = self.now.max(at);
            self.session.handle_timeout(self.now);
            self.take_updates();
        }
    }

    /// Lets an hour pass with a server that does this to each request; how many it gets.
    pub(super) fn hour(
        &mut self,
        mut serve: impl FnMut(&mut Self, <S::Session as Exchange>::Request),
    ) -> usize {
        let (before, end) = (self.requests.len(), self.now + Duration::from_secs(3600));
        while self.now < end && self.requests.len() - before < 100_000 {
            match self.request() {
                Some(request) => serve(self, request),
                None if self.session.poll_timeout().is_none() => break,
                None => self.sleep(),
            }
        }
        self.requests.len() - before
    }
}

/// Chances, always the same for a seed.
pub(super) struct Random(Backoff);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(Backoff::new(seed))
    }

    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.0.within(Duration::from_micros(bound)).as_micros() as u64
    }

    pub(super) fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

//! What sessions are tested with: two ends joined in memory, one end and a server that a test
//! scripts, and chances from a seed. Time is virtual.

use std::{
    io,
    ops::{Deref, DerefMut},
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};

use super::{Exchange, Head, Message, backoff::Backoff};
use crate::{
    Role,
    error::{CallerError, CertificateProblem, Error, NetworkError, PeerError},
    limits,
    wire::spdy::{Frame, HeaderWriter, Headers, StreamId, SynStream},
};

/// What asking again does not help against.
pub(super) fn hopeless() -> [Error; 2] {
    let untrusted = NetworkError::Certificate {
        address: "h:1".into(),
        problem: CertificateProblem::Revoked,
        source: Arc::new(io::ErrorKind::InvalidData.into()),
    };
    [untrusted.into(), PeerError::Http("SSH-2.0".into()).into()]
}

pub(super) const SECOND: Duration = Duration::from_secs(1);

/// One end of a connection, and the user who takes its events.
pub(super) trait End {
    /// Whether it sends a stream of bytes, in which the boundaries of messages mean nothing.
    fn is_stream(&self) -> bool;

    fn transmit(&mut self) -> Option<Message>;

    fn take(&mut self, now: Instant, message: Message);

    fn timeout(&mut self, now: Instant);

    /// Takes all events.
    fn settle(&mut self);
}

/// Two ends in one memory, with a time of their own.
pub(super) struct Pair<E> {
    pub(super) now: Instant,
    pub(super) client: E,
    pub(super) server: E,
    /// Sizes of the pieces that streams of bytes are cut into, in turn.
    cuts: Vec<usize>,
    cut: usize,
}

impl<E: End> Pair<E> {
    pub(super) fn join(make: impl Fn(Role, Instant) -> E, cuts: Vec<usize>) -> Self {
        let now = Instant::now();
        Self {
            now,
            client: make(Role::Client, now),
            server: make(Role::Server, now),
            cuts,
            cut: 0,
        }
    }

    /// Carries bytes to and fro until nothing moves.
    pub(super) fn run(&mut self) {
        while self.step(true) | self.step(false) {}
    }

    /// Carries what one end has to send. Whether that was anything.
    pub(super) fn step(&mut self, to_server: bool) -> bool {
        let (from, to) = match to_server {
            true => (&mut self.client, &mut self.server),
            false => (&mut self.server, &mut self.client),
        };
        from.settle();
        let mut stream = BytesMut::new();
        let mut moved = false;
        while let Some(message) = from.transmit() {
            moved = true;
            match message {
                Message::Binary(bytes) if from.is_stream() => stream.extend_from_slice(&bytes),
                message => {
                    to.take(self.now, message);
                    to.settle();
                }
            }
        }
        let mut stream = stream.freeze();
        while !stream.is_empty() {
            let size = self.cuts[self.cut % self.cuts.len()].min(stream.len());
            self.cut += 1;
            to.take(self.now, Message::Binary(stream.split_to(size)));
            to.settle();
        }
        moved
    }

    pub(super) fn pass(&mut self, time: Duration) {
        self.now += time;
        for end in [&mut self.client, &mut self.server] {
            end.timeout(self.now);
            end.settle();
        }
    }
}

/// The SPDY frames that an end sends now.
pub(super) fn frames(end: &mut impl End) -> Vec<Frame> {
    let mut bytes = BytesMut::new();
    while let Some(message) = end.transmit() {
        match message {
            Message::Binary(payload) => bytes.extend_from_slice(&payload),
            other => panic!("{other:?}"),
        }
    }
    let mut bytes = bytes.freeze();
    std::iter::from_fn(|| Frame::parse(&mut bytes).unwrap()).collect()
}

/// Gives an end one SPDY frame of its peer.
pub(super) fn hand_in(end: &mut impl End, now: Instant, frame: &Frame) {
    let mut bytes = BytesMut::new();
    frame.encode(&mut bytes);
    end.take(now, Message::Binary(bytes.freeze()));
    end.settle();
}

/// The frame that opens a stream.
pub(super) fn syn(writer: &mut HeaderWriter, stream: u32, headers: &Headers) -> Frame {
    Frame::SynStream(SynStream {
        stream: StreamId::new(stream).unwrap(),
        associated: None,
        priority: 0,
        fin: false,
        unidirectional: false,
        block: writer.write(headers).unwrap(),
    })
}

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
            ..Head::default()
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
        self.end_with(cut.then(|| lost().into()));
    }

    /// There are no credentials for the request.
    pub(super) fn without_credentials(&mut self) {
        let (origin, problem) = ("exec".to_owned(), "the plugin failed".to_owned());
        self.end_with(Some(CallerError::Config { origin, problem }.into()));
    }

    pub(super) fn end_with(&mut self, error: Option<Error>) {
        self.session.handle_end(self.now, error);
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

    /// The request is refused, and the server asks to be left alone for ever, which is not waited.
    pub(super) fn is_patient_for_so_long(&mut self, status: u16) {
        self.request().unwrap();
        self.head_of(Head {
            status,
            content_type: None,
            retry_after: Some(Duration::from_secs(u64::MAX)),
            ..Head::default()
        });
        self.end(false);
        let due = self.session.poll_timeout();
        assert_eq!(due, Some(self.now + limits::LOG_WATCH_RETRY_AFTER));
    }

    /// Lets an hour pass with a server that does this to each request; how many it gets.
    pub(super) fn hour(
        &mut self,
        mut serve: impl FnMut(&mut Self, <S::Session as Exchange>::Request),
    ) -> usize {
        let (before, end) = (self.requests.len(), self.now + Duration::from_secs(3600));
        // More than twice the requests that any test allows are without end.
        while self.now < end && self.requests.len() - before < 2_000 {
            match self.request() {
                Some(request) => serve(self, request),
                None if self.session.poll_timeout().is_none() => break,
                None => self.sleep(),
            }
        }
        self.requests.len() - before
    }
}

/// Runs schedules of faults.
pub(super) fn every_seed(run: impl Fn(u64)) {
    let schedules = if cfg!(debug_assertions) {
        1_000
    } else {
        10_000
    };
    (0..schedules).for_each(run);
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

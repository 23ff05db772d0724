//! One request after another: what is under way, and when the next is due.
//!
//! In flow the heads, bodies and ends of responses, and the time; out come what a session asks
//! itself at every step: whether a response at hand is of use, how it ended, whether it has been
//! silent for too long, and what a refusal says. What an answer means is the session's business,
//! which keeps its state of reading it as `A`.
//!
//! ```text
//!   Waiting --due--> Requested --head--> Answer, or Refused --end--> Waiting, after a delay
//! ```

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};

pub mod logs;
pub mod watch;

use self::watch::Head;
use crate::{
    error::{Error, NetworkError},
    limits,
    session::backoff::Backoff,
    wire::{
        status::Status,
        watch::{Encoding, Object},
    },
};

/// What is under way.
#[derive(Debug)]
pub(super) enum Phase<A> {
    /// Nothing until then.
    Waiting(Instant),
    /// The request has been given out.
    Requested,
    /// An error's body arrives.
    Refused(Refusal),
    /// The body or the messages of the answer arrive.
    Answer(A),
    /// There will be no more requests.
    Done,
}

/// The answer of a server that refuses.
#[derive(Debug)]
pub(super) struct Refusal {
    code: u16,
    encoding: Encoding,
    retry_after: Option<Duration>,
    body: BytesMut,
}

impl Refusal {
    /// What the server says, and how long it asks to be left alone.
    pub(super) fn into_status(self) -> (Status, Option<Duration>) {
        let body = self.body.freeze();
        let status = Object::new(self.encoding, body.clone()).status();
        let mut status = status.unwrap_or_else(|_| {
            // Proxies, and API servers before they know what is asked, answer in text.
            Status::failure(self.code, "", String::from_utf8_lossy(&body).trim())
        });
        if status.code == 0 {
            status.code = self.code;
        }
        let retry_after = self.retry_after.max(patience(&status));
        (status, retry_after)
    }
}

/// How long a Status asks to wait.
pub(super) fn patience(status: &Status) -> Option<Duration> {
    let seconds = status.details.as_ref()?.retry_after_seconds;
    (seconds > 0).then(|| Duration::from_secs(seconds.into()))
}

/// The state that every session has which makes requests.
#[derive(Debug)]
pub(super) struct Requests<A> {
    pub(super) phase: Phase<A>,
    pub(super) backoff: Backoff,
    now: Instant,
    /// When the response at hand began, and when its last bytes arrived.
    began: Instant,
    last_byte: Instant,
    /// The driver takes nothing from the network.
    held: bool,
    /// The end of the response, while there are updates before it.
    ended: Option<Option<Error>>,
}

impl<A> Requests<A> {
    /// The first request is due at once. `seed` decides all that is random.
    pub(super) fn new(now: Instant, seed: u64) -> Self {
        Self {
            phase: Phase::Waiting(now),
            backoff: Backoff::new(seed),
            now,
            began: now,
            last_byte: now,
            held: false,
            ended: None,
        }
    }

    pub(super) fn is_due(&self, now: Instant) -> bool {
        matches!(self.phase, Phase::Waiting(until) if until <= now)
    }

    /// A request is given out.
    pub(super) fn begin(&mut self, now: Instant) {
        self.now = now;
        self.last_byte = now;
        self.ended = None;
        self.phase = Phase::Requested;
    }

    /// The head of the response has arrived; whether it is of use.
    pub(super) fn head(&mut self, now: Instant) -> bool {
        self.now = now;
        self.began = now;
        self.last_byte = now;
        matches!(self.phase, Phase::Requested)
    }

    /// The head says no.
    pub(super) fn refuse(&mut self, head: Head<'_>) {
        let encoding = head.content_type.and_then(Encoding::from_content_type);
        self.phase = Phase::Refused(Refusal {
            code: head.status,
            encoding: encoding.unwrap_or(Encoding::Json),
            retry_after: head.retry_after,
            body: BytesMut::new(),
        });
    }

    /// More of the body has arrived: the answer's, unless it is that of a refusal.
    pub(super) fn body(&mut self, now: Instant, chunk: Bytes) -> Option<(&mut A, Bytes)> {
        self.now = now;
        self.last_byte = now;
        match &mut self.phase {
            Phase::Answer(answer) => Some((answer, chunk)),
            Phase::Refused(Refusal { body, .. }) => {
                let room = limits::REFUSAL - body.len();
                body.extend_from_slice(&chunk[..chunk.len().min(room)]);
                None
            }
            Phase::Waiting(_) | Phase::Requested | Phase::Done => None,
        }
    }

    /// The response has ended; whether that is of interest.
    pub(super) fn end(&mut self, now: Instant, error: Option<Error>) -> bool {
        self.now = now;
        let wanted = self.wants_response();
        if wanted {
            self.ended = Some(error);
        }
        wanted
    }

    /// The end of the response, once, with what was under way. Nothing is then, unless said
    /// otherwise.
    pub(super) fn take_end(&mut self) -> Option<(Phase<A>, Option<Error>)> {
        let end = self.ended.take()?;
        let phase = std::mem::replace(&mut self.phase, Phase::Waiting(self.now));
        Some((phase, end))
    }

    /// How the response has ended, if it has.
    pub(super) fn ended(&self) -> Option<Option<&Error>> {
        self.ended.as_ref().map(Option::as_ref)
    }

    /// What was read, now that it has been handed out; the next request is due.
    pub(super) fn next_page(&mut self) -> Phase<A> {
        self.ended = None;
        std::mem::replace(&mut self.phase, Phase::Waiting(self.now))
    }

    pub(super) fn hold(&mut self, now: Instant, held: bool) {
        if self.held && !held {
            self.last_byte = now;
        }
        self.held = held;
    }

    pub(super) fn wants_response(&self) -> bool {
        !matches!(self.phase, Phase::Waiting(_) | Phase::Done)
    }

    /// When something is due: the next request, or the end of so long a silence.
    pub(super) fn deadline(&self, silence: Option<Duration>) -> Option<Instant> {
        match self.phase {
            Phase::Waiting(until) => Some(until),
            Phase::Done => None,
            _ if self.held || self.ended.is_some() => None,
            _ => Some(self.last_byte + silence?),
        }
    }

    /// The time is `now`: whether so long a silence is over the bound, and then the error of it.
    pub(super) fn is_silent(&mut self, now: Instant, silence: Option<Duration>) -> Option<Error> {
        self.now = now;
        if !self.wants_response() || self.deadline(silence)? > now {
            return None;
        }
        let silent = now - self.last_byte;
        Some(NetworkError::Silent { silent }.into())
    }

    /// The time when the session was last told of something.
    pub(super) fn now(&self) -> Instant {
        self.now
    }

    /// When the response at hand began.
    pub(super) fn began(&self) -> Instant {
        self.began
    }

    /// How long the response at hand has lasted.
    pub(super) fn lasted(&self) -> Duration {
        self.now - self.began
    }

    /// The next request is due at once, or after a delay that grows.
    pub(super) fn wait(&mut self, delayed: bool) {
        let delay = match delayed {
            true => self.backoff.next(),
            false => Duration::ZERO,
        };
        self.wait_for(delay);
    }

    /// The next request is due after this delay.
    pub(super) fn wait_for(&mut self, delay: Duration) {
        self.phase = Phase::Waiting(self.now + delay);
    }

    /// The next request is due after a delay that grows, and not before the server wants it.
    pub(super) fn pause(&mut self, retry_after: Option<Duration>) -> Duration {
        let delay = self.backoff.next().max(retry_after.unwrap_or_default());
        self.wait_for(delay);
        delay
    }
}

/// The error of a response that ended before it began.
pub(super) fn cut_off() -> Error {
    let unexpected = std::io::ErrorKind::UnexpectedEof.into();
    NetworkError::Lost(Arc::new(unexpected)).into()
}

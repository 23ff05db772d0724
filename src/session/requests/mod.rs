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

use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};

pub mod logs;
pub mod watch;

use crate::{
    error::{ApiError, CallerError, Error, Hint, NetworkError, text},
    limits,
    session::{Message, backoff::Backoff, later::later},
    wire::{
        status::Status,
        watch::{Encoding, Object},
    },
};

/// The head of a response.
#[derive(Debug, Clone, Copy, Default)]
pub struct Head<'a> {
    /// The status code; 101 if a WebSocket was opened, whose messages follow.
    pub status: u16,
    /// The `Content-Type` header.
    pub content_type: Option<&'a str>,
    /// The `Retry-After` header, which API servers give in seconds. No more than
    /// 10 minutes of it is waited.
    pub retry_after: Option<Duration>,
    /// What whoever drives the session knows to be the reason of a refusal.
    pub hint: Option<&'a Hint>,
}

/// A session that makes one request after another: [`Watch`](watch::Watch) and
/// [`Logs`](logs::Logs).
///
/// Whoever drives one
///
/// 1. makes the request that [`poll_request`](Self::poll_request) gives, dropping any response
///    at hand, and drops it also when [`wants_response`](Self::wants_response) says so;
/// 2. hands in what comes of it: [`handle_head`](Self::handle_head) once,
///    [`handle_body`](Self::handle_body) for each chunk, or, where a WebSocket was opened,
///    [`handle_message`](Self::handle_message) for each message,
///    [`handle_end`](Self::handle_end) once, also where there never was a head;
/// 3. takes all updates with [`poll_update`](Self::poll_update) after each of these calls, before
///    the next;
/// 4. calls [`handle_timeout`](Self::handle_timeout) when the time of
///    [`poll_timeout`](Self::poll_timeout) has come, and asks for requests again.
///
/// ```
/// use kubewire::{error::Error, session::{Exchange, Head}};
/// use std::time::Instant;
///
/// /// Hands in one whole answer.
/// fn answer<E: Exchange>(session: &mut E, head: Head<'_>, body: &str) -> Vec<E::Update> {
///     let now = Instant::now();
///     let mut updates = Vec::new();
///     let steps: [&dyn Fn(&mut E); 3] = [
///         &|session| session.handle_head(now, head),
///         &|session| session.handle_body(now, body.to_owned().into()),
///         &|session| session.handle_end(now, None::<Error>),
///     ];
///     for step in steps {
///         step(session);
///         updates.extend(std::iter::from_fn(|| session.poll_update()));
///     }
///     updates
/// }
///
/// # use kubewire::session::logs::{LogConfig, Logs};
/// # let mut logs = Logs::new(LogConfig::default(), Instant::now(), 7);
/// # assert!(logs.poll_request(Instant::now()).is_some());
/// let head = Head { status: 200, ..Head::default() };
/// assert_eq!(answer(&mut logs, head, "2026-11-01T12:00:00Z ready\n").len(), 2); // and its end
/// ```
pub trait Exchange {
    /// A request to make.
    type Request;
    /// What the session tells its user.
    type Update;

    /// The request to make now, if any.
    fn poll_request(&mut self, now: Instant) -> Option<Self::Request>;

    /// Takes the head of the response to the last request.
    fn handle_head(&mut self, now: Instant, head: Head<'_>);

    /// Takes the next chunk of the body.
    fn handle_body(&mut self, now: Instant, chunk: Bytes);

    /// Takes the next message with data of the WebSocket that was opened.
    fn handle_message(&mut self, now: Instant, message: Message);

    /// Takes the end of the response: in order, or because of an error.
    fn handle_end(&mut self, now: Instant, error: Option<Error>);

    /// Takes note that the driver has stopped, or again begun, to take bytes from the network,
    /// because nobody takes the updates. No silence is counted meanwhile.
    fn handle_hold(&mut self, now: Instant, held: bool);

    /// Does what is due at `now`. Calling it too early does nothing.
    fn handle_timeout(&mut self, now: Instant);

    /// When to call [`handle_timeout`](Self::handle_timeout) and to ask for requests next.
    fn poll_timeout(&self) -> Option<Instant>;

    /// The next update.
    fn poll_update(&mut self) -> Option<Self::Update>;

    /// Whether the response at hand is still of use.
    fn wants_response(&self) -> bool;
}

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
    content_type: Option<String>,
    retry_after: Option<Duration>,
    body: BytesMut,
}

impl Refusal {
    /// What the server says, and how long it asks to be left alone.
    pub(super) fn into_status(self) -> (Status, Option<Duration>) {
        let body = self.body.freeze();
        let form = self.content_type.as_deref();
        let encoding = form.and_then(Encoding::from_content_type);
        let status = Object::new(encoding.unwrap_or(Encoding::Json), body.clone()).status();
        let mut status = status.unwrap_or_else(|_| {
            // Proxies, and API servers before they know what is asked, answer in text.
            let said = text::refusal(self.code, form, &body).unwrap_or_else(|| {
                let form = form.map(|form| format!(", content type {form}"));
                format!("it answered {}{}", self.code, form.unwrap_or_default())
            });
            Status::failure(self.code, "", said)
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

/// What the server makes of a right.
#[derive(Debug, Default)]
pub(super) enum Grant {
    #[default]
    Unknown,
    Given,
    /// It was given, and since then no longer.
    Refused(Instant),
}

impl Grant {
    /// Whether to ask again would be in vain: nothing was ever given, and this is nothing that
    /// passes, such as a server that cannot be trusted, or is none of HTTP.
    pub(super) fn is_hopeless(&self, failure: &Error) -> bool {
        matches!(self, Self::Unknown) && !failure.is_retryable()
    }

    /// Notes a failure: a refusal, or one of another kind.
    pub(super) fn note(&mut self, now: Instant, failure: &Error) {
        let is_refusal = match failure {
            Error::Api(refusal) => matches!(refusal.status.code, 401 | 403),
            error => matches!(
                error,
                Error::Caller(CallerError::Config { .. })
                    | Error::Network(NetworkError::Certificate { .. })
            ),
        };
        *self = match (&*self, is_refusal) {
            (Self::Given, true) => Self::Refused(now),
            (Self::Refused(_), false) => Self::Given,
            _ => return,
        };
    }

    /// Notes a failure; whether it is a refusal that may pass. An API server takes requests before
    /// it knows its roles (`k8s.io/kubernetes/plugin/pkg/auth/authorizer/rbac` asks informers), and
    /// what gives credentials may be cut off together with the server.
    pub(super) fn may_pass(&mut self, now: Instant, failure: &Error) -> bool {
        self.note(now, failure);
        matches!(self, Self::Refused(since) if now - *since < limits::GRANT_PATIENCE)
    }
}

/// The state that every session has which makes requests.
#[derive(Debug)]
pub(super) struct Requests<A> {
    pub(super) phase: Phase<A>,
    backoff: Backoff,
    /// Whether the last request was answered, and how many before it were not: that a server can
    /// be reached again says that those do not count, and nothing of how it answers.
    answered: bool,
    unanswered: u32,
    now: Instant,
    /// When the request at hand was made or its response began, and when its last bytes arrived.
    began: Instant,
    last_byte: Instant,
    /// How long the last answer took, unless another request was made since.
    lasted: Duration,
    /// The driver takes nothing from the network.
    held: bool,
    /// The end of the response, while there are updates before it.
    ended: Option<Result<(), Error>>,
    /// What may be the reason of a refusal.
    hint: Option<Hint>,
}

impl<A> Requests<A> {
    /// The first request is due at once. `seed` decides all that is random.
    pub(super) fn new(now: Instant, seed: u64) -> Self {
        Self {
            phase: Phase::Waiting(now),
            backoff: Backoff::new(seed),
            answered: false,
            unanswered: 0,
            now,
            began: now,
            last_byte: now,
            lasted: Duration::ZERO,
            held: false,
            ended: None,
            hint: None,
        }
    }

    pub(super) fn is_due(&self, now: Instant) -> bool {
        matches!(self.phase, Phase::Waiting(until) if until <= now)
    }

    /// A request is given out.
    pub(super) fn begin(&mut self, now: Instant) {
        self.now = now;
        self.began = now;
        self.last_byte = now;
        self.answered = false;
        self.lasted = Duration::ZERO;
        self.ended = None;
        self.hint = None;
        self.phase = Phase::Requested;
    }

    /// The head of the response has arrived; whether it is of use.
    pub(super) fn head(&mut self, now: Instant) -> bool {
        self.now = now;
        self.began = now;
        self.last_byte = now;
        self.answered = true;
        self.backoff.forget(std::mem::take(&mut self.unanswered));
        matches!(self.phase, Phase::Requested)
    }

    pub(super) fn refuse(&mut self, head: Head<'_>) {
        self.hint = head.hint.cloned();
        self.phase = Phase::Refused(Refusal {
            code: head.status,
            content_type: head.content_type.map(str::to_owned),
            retry_after: head.retry_after,
            body: BytesMut::new(),
        });
    }

    pub(super) fn refusal(&self, operation: String, status: Status) -> Error {
        let mut error = ApiError::new(operation, status);
        error.hint = error.hint.or_else(|| self.hint.clone());
        Box::new(error).into()
    }

    /// More of the body has arrived: the answer's, unless it is that of a refusal.
    pub(super) fn body(&mut self, now: Instant, chunk: Bytes) -> Option<(&mut A, Bytes)> {
        self.now = now;
        self.last_byte = now;
        match &mut self.phase {
            Phase::Answer(answer) => Some((answer, chunk)),
            Phase::Refused(Refusal { body, .. }) => {
                let room = limits::REFUSAL.saturating_sub(body.len());
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
            self.ended = Some(error.map_or(Ok(()), Err));
        }
        wanted
    }

    /// The end of the response, once, with what was under way. Nothing is then, unless said
    /// otherwise.
    pub(super) fn take_end(&mut self) -> Option<(Phase<A>, Result<(), Error>)> {
        let end = self.ended.take()?;
        Some((self.over(), end))
    }

    /// Whether the response has ended, and not in order.
    pub(super) fn is_cut(&self) -> bool {
        matches!(self.ended, Some(Err(_)))
    }

    /// Ends what is under way; the next request is due.
    pub(super) fn over(&mut self) -> Phase<A> {
        self.ended = None;
        if let Phase::Answer(_) = self.phase {
            self.lasted = self.lasted();
            if self.lasted >= limits::ANSWER_PROVEN {
                self.backoff.reset();
            }
        }
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
            _ => self.last_byte.checked_add(silence?),
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

    pub(super) fn last_byte(&self) -> Instant {
        self.last_byte
    }

    pub(super) fn began(&self) -> Instant {
        self.began
    }

    /// How long the answer at hand, or the one that has just ended, has lasted.
    pub(super) fn lasted(&self) -> Duration {
        match self.phase {
            Phase::Answer(_) => self.now - self.began,
            _ => self.lasted,
        }
    }

    /// A random part of `most`.
    pub(super) fn within(&mut self, most: Duration) -> Duration {
        self.backoff.within(most)
    }

    /// The next request is due at once. Only for one that asks for something else.
    pub(super) fn go_on(&mut self) {
        self.wait_until(self.now);
    }

    /// The next request is due after this delay.
    pub(super) fn wait_for(&mut self, delay: Duration) {
        self.wait_until(later(self.now, delay));
    }

    /// The next request is due then.
    pub(super) fn wait_until(&mut self, due: Instant) {
        self.over();
        self.phase = Phase::Waiting(due);
    }

    /// All is well: the next failure is the first.
    pub(super) fn proven(&mut self) {
        self.backoff.reset();
    }

    /// The next request is due after an answer that was of use: at once, unless answers end soon
    /// again and again. Then delays grow, less the time for which the answer lasted. Returns when.
    pub(super) fn resume(&mut self) -> Instant {
        self.over();
        let first = self.backoff.failures() == 0;
        let delay = self.backoff.next().saturating_sub(self.lasted);
        let due = later(self.now, if first { Duration::ZERO } else { delay });
        self.phase = Phase::Waiting(due);
        due
    }

    /// The next request is due after a delay that grows, and not before the server wants it.
    pub(super) fn pause(&mut self, retry_after: Option<Duration>) -> Duration {
        self.over();
        self.unanswered += u32::from(!self.answered);
        let delay = self.backoff.next().saturating_sub(self.lasted);
        let asked = retry_after.unwrap_or_default();
        let delay = delay.max(asked.min(limits::LOG_WATCH_RETRY_AFTER));
        self.phase = Phase::Waiting(later(self.now, delay));
        delay
    }

    /// There will be no more requests.
    pub(super) fn finish(&mut self) {
        self.ended = None;
        self.phase = Phase::Done;
    }
}

/// Whole seconds, rounded up, for a server that makes a `time.Duration` of them: an `int64` of
/// nanoseconds (`time/time.go`).
pub(super) fn go_seconds(duration: Duration) -> u64 {
    let most = i64::MAX as u64 / 1_000_000_000;
    let begun = u64::from(duration.subsec_nanos() > 0);
    duration.as_secs().saturating_add(begun).min(most)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_can_be_reached_again_is_asked_as_before() {
        let now = Instant::now();
        let mut requests = Requests::new(now, 7);
        let mut answer = |unanswered: u32| {
            for _ in 0..unanswered {
                requests.begin(now);
                requests.pause(None);
            }
            requests.begin(now);
            requests.head(now);
            requests.phase = Phase::Answer(());
            requests.resume() - now
        };
        assert_eq!(answer(20), Duration::ZERO);
        assert!(answer(20) <= 2 * limits::RETRY_FIRST);
        // Answers that end at once are made rarer all the same.
        let last = (0..20).map(|_| answer(1)).last();
        assert!(last >= Some(limits::RETRY_MOST / 2), "{last:?}");
    }
}

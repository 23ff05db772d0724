//! The log as its driver sees it: requests out, responses in, updates out.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::{Bytes, BytesMut};

use super::{LogConfig, LogEnd, LogRequest, LogStream, LogUpdate, lines::Lines};
use crate::{
    error::{Error, PeerError},
    limits,
    session::{
        Exchange, Head, Message,
        later::later,
        requests::{Grant, Phase, Requests, go_seconds},
    },
    wire::{stamp::Stamp, watch::EventError},
};

/// What is asked for next, is under way, or has its answer at hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// The pod, which says what has become of the container.
    Pod,
    /// The log of the instance that runs.
    Follow,
    /// What is left of the log of an instance that has ended.
    Drain {
        /// The next has begun.
        previous: bool,
    },
    /// The log, whose end is all that there is to know: it is not to be followed, or the pod is
    /// not to be asked.
    LogOnly { follow: bool },
}

#[derive(Debug)]
pub(super) enum Answer {
    Pod(BytesMut),
    Log,
}

#[derive(Debug)]
pub(super) struct Instance {
    pub(super) id: String,
    pub(super) drained: Drained,
}

/// Whether the log of an instance has been read to its end.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Drained {
    No,
    /// When the instance had ended.
    Ended,
    /// When the next had begun.
    Replaced,
}

/// Which lines are to be skipped while none of the instance was delivered.
#[derive(Debug)]
pub(super) enum Skip {
    /// Those that the user does not want.
    Unwanted { asked: Option<Instant> },
    /// Those from before then: there were none.
    Before(Instant),
    /// None: it is another instance than the one at the beginning.
    Nothing,
}

/// Attempts in a row that brought nothing.
#[derive(Debug, Default)]
pub(super) struct Fruitless {
    pub(super) attempts: u32,
    pub(super) refused: Option<Instant>,
}

/// The state of reading one container's log. See [the module](super).
///
/// ```
/// use kubewire::session::{Exchange as _, Head, logs::{LogConfig, LogUpdate, Logs}};
/// use std::time::Instant;
///
/// let now = Instant::now();
/// let config = LogConfig { resume: false, ..LogConfig::default() };
/// let mut logs = Logs::new(config, now, 7);
/// assert!(logs.poll_request(now).is_some()); // which its driver makes
/// logs.handle_head(now, Head { status: 200, ..Head::default() });
/// logs.handle_body(now, "ready\n".into());
/// let Some(LogUpdate::Line(line)) = logs.poll_update() else {
///     panic!("a line");
/// };
/// assert_eq!(line.to_string(), "ready");
/// logs.handle_end(now, None);
/// assert!(matches!(logs.poll_update(), Some(LogUpdate::Ended(_))));
/// ```
#[derive(Debug)]
pub struct Logs {
    /// With the container, once that is known.
    pub(super) config: LogConfig,
    pub(super) requests: Requests<Answer>,
    pub(super) state: State,
    pub(super) updates: VecDeque<LogUpdate>,
    pub(super) lines: Lines,
    pub(super) skip: Skip,
    /// Whether to ask for all lines from a time on: the last ones did not lead on.
    pub(super) by_time: bool,
    pub(super) fruitless: Fruitless,
    /// The rights to `get` the pod and its log.
    pub(super) pods: Grant,
    pub(super) logs: Grant,
    /// How far the reading just before came, if it ended in order.
    pub(super) reach: Option<u64>,
    /// Before then the log is not followed again.
    pub(super) follow_from: Instant,
    pub(super) pod: Option<String>,
    pub(super) instance: Option<Instance>,
    /// The reason for waiting that was told last.
    pub(super) waiting: String,
}

impl Logs {
    /// Begins to read at once. `seed` decides all that is random.
    pub fn new(config: LogConfig, now: Instant, seed: u64) -> Self {
        let follow = config.follow && !config.previous;
        Self {
            requests: Requests::new(now, seed),
            state: match follow && config.resume {
                true => State::Pod,
                false => State::LogOnly { follow },
            },
            updates: VecDeque::new(),
            lines: Lines::new(&config),
            skip: Skip::Unwanted { asked: None },
            by_time: false,
            fruitless: Fruitless::default(),
            pods: Grant::default(),
            logs: Grant::default(),
            reach: None,
            follow_from: now,
            pod: None,
            instance: None,
            waiting: String::new(),
            config,
        }
    }

    /// The container that is read, once that is known.
    pub fn container(&self) -> Option<&str> {
        self.config.container.as_deref()
    }

    /// Whether the log itself is being read: the server has agreed.
    fn is_reading(&self) -> bool {
        matches!(self.requests.phase, Phase::Answer(Answer::Log))
    }

    pub(super) fn is_followed(&self) -> bool {
        matches!(self.state, State::Follow | State::LogOnly { follow: true })
    }

    /// A log that is followed may be silent for as long as its container is; what else is asked
    /// for may not.
    fn longest_silence(&self) -> Option<Duration> {
        match self.requests.phase {
            Phase::Requested | Phase::Answer(_) if self.is_followed() => {
                self.config.resume.then_some(limits::LOG_SILENCE)
            }
            _ => Some(limits::ANSWER),
        }
    }

    /// Whether to ask for the last lines to go on. A kubelet compares the stamp of each line with
    /// `sinceTime`, those of a followed log as well, so that it would hide what is written after
    /// the clock has stepped back. Of one stream alone there are no last lines.
    fn is_tailed(&self) -> bool {
        !self.by_time && self.config.stream == LogStream::All && self.lines.since().is_some()
    }

    fn query(&self) -> Vec<(&'static str, String)> {
        let config = &self.config;
        let mut query = Vec::new();
        let mut add = |name, value: String| query.push((name, value));
        if let Some(container) = &config.container {
            add("container", container.clone());
        }
        if self.is_followed() {
            add("follow", "true".into());
        }
        if config.previous || self.state == (State::Drain { previous: true }) {
            add("previous", "true".into());
        }
        if config.resume {
            add("timestamps", "true".into());
        }
        let now = self.requests.now();
        match (self.lines.since(), &self.skip) {
            (Some(since), _) if self.is_tailed() => {
                let day = limits::LOG_CLOCK.as_secs() as i64;
                let before = since.unix_seconds().saturating_sub(day).max(0);
                let before = Stamp::from_unix(before, 0).unwrap_or(since);
                add("sinceTime", whole_seconds(since.min(before)));
                add("tailLines", limits::LOG_AGAIN.to_string());
            }
            (Some(since), _) => add("sinceTime", whole_seconds(since)),
            // What was to be skipped was, and must not be skipped again: all lines from then on
            // are wanted. The server counts back from its own time.
            (None, Skip::Before(then)) => {
                let elapsed = (now - *then).saturating_add(Duration::from_secs(2));
                add("sinceSeconds", go_seconds(elapsed).to_string());
            }
            (None, Skip::Unwanted { asked }) => {
                if let Some(since) = config.since_time {
                    add("sinceTime", whole_seconds(since));
                }
                if let Some(seconds) = config.since_seconds {
                    let elapsed = asked.map_or(Duration::ZERO, |asked| now - asked);
                    let back = Duration::from_secs(seconds).saturating_add(elapsed);
                    add("sinceSeconds", go_seconds(back).to_string());
                }
                if let Some(lines) = config.tail_lines {
                    add("tailLines", lines.to_string());
                }
            }
            (None, Skip::Nothing) => {}
        }
        // With stamps the server would count them too.
        if let (Some(limit), false) = (config.limit_bytes, config.resume) {
            add("limitBytes", limit.to_string());
        }
        if config.insecure_skip_tls_verify_backend {
            add("insecureSkipTLSVerifyBackend", "true".into());
        }
        match config.stream {
            LogStream::All => {}
            LogStream::Stdout => add("stream", "Stdout".into()),
            LogStream::Stderr => add("stream", "Stderr".into()),
        }
        query
    }

    /// Delivers what is held back, for nothing more comes that could tell whether it is new; whether
    /// the bound is reached.
    pub(super) fn release(&mut self) -> bool {
        self.lines.conclude();
        while let Some((update, full)) = self.lines.next_held() {
            self.updates.push_back(update);
            if full {
                return true;
            }
        }
        false
    }

    /// Delivers the last line, which has no newline and never will; whether the bound is reached.
    pub(super) fn finish_line(&mut self) -> bool {
        if self.lines.is_in_doubt() && self.release() {
            return true;
        }
        let last = self.lines.finish_line();
        let full = last.as_ref().is_some_and(|(_, full)| *full);
        self.updates.extend(last.map(|(update, _)| update));
        full
    }

    /// When it has been waited long enough for the line that was delivered last.
    fn end_of_doubt(&self) -> Option<Instant> {
        let in_doubt = self.is_reading() && self.lines.is_in_doubt();
        let most = later(self.requests.began(), limits::LOG_DOUBT);
        // The last lines come at once, and all together.
        let quiet = later(self.requests.last_byte(), limits::LOG_QUIET);
        in_doubt.then(|| match self.lines.is_tailed() {
            true => quiet.min(most),
            false => most,
        })
    }

    pub(super) fn finish(&mut self, end: LogEnd) {
        let end = match self.finish_line() {
            true => LogEnd::Limit,
            false => end,
        };
        self.requests.finish();
        self.updates.push_back(LogUpdate::Ended(end));
    }

    pub(super) fn go(&mut self, state: State) {
        self.state = state;
        self.requests.go_on();
    }

    /// Whether this failure of the request at hand may pass.
    pub(super) fn may_pass(&mut self, error: &Error) -> bool {
        let now = self.requests.now();
        self.config.resume && self.grant().may_pass(now, error)
    }

    fn grant(&mut self) -> &mut Grant {
        match self.state {
            State::Pod => &mut self.pods,
            State::Follow | State::Drain { .. } | State::LogOnly { .. } => &mut self.logs,
        }
    }

    /// Asks again after a delay, unless nothing but refusals came for too long.
    pub(super) fn pause(&mut self, error: Error, retry_after: Option<Duration>) {
        let now = self.requests.now();
        self.fruitless.attempts = self.fruitless.attempts.saturating_add(1);
        if self.config.resume {
            self.grant().note(now, &error);
        }
        // An end in order may be part of the same trouble.
        self.reach = None;
        match error {
            Error::Api(_) => {
                let since = *self.fruitless.refused.get_or_insert(now);
                if now - since >= limits::LOG_GIVE_UP {
                    return self.finish(LogEnd::Failed(error));
                }
            }
            // A server that starts refuses before and after it cannot be reached.
            _ => self.fruitless.refused = None,
        }
        let retry_in = self.requests.pause(retry_after);
        self.updates
            .push_back(LogUpdate::Retrying { error, retry_in });
    }
}

/// What the server makes of a time: whole seconds
/// (`k8s.io/kubernetes/pkg/registry/core/pod/strategy.go`).
fn whole_seconds(stamp: Stamp) -> String {
    let text = stamp.to_string();
    format!("{}Z", text.get(..19).unwrap_or(&text))
}

impl Exchange for Logs {
    type Request = LogRequest;
    type Update = LogUpdate;

    fn poll_request(&mut self, now: Instant) -> Option<LogRequest> {
        if !self.requests.is_due(now) || !self.updates.is_empty() {
            return None;
        }
        self.requests.begin(now);
        if self.state == State::Pod {
            return Some(LogRequest::Pod);
        }
        self.lines.begin(self.is_tailed());
        let query = self.query();
        if let Skip::Unwanted { asked } = &mut self.skip {
            asked.get_or_insert(now);
        }
        Some(LogRequest::Log(query))
    }

    fn handle_head(&mut self, now: Instant, head: Head<'_>) {
        if !self.requests.head(now) {
            return;
        }
        self.requests.phase = match (head.status, self.state) {
            (200, State::Pod) => Phase::Answer(Answer::Pod(BytesMut::new())),
            // 204: the pod has no node yet (`k8s.io/kubernetes/pkg/registry/core/pod/rest/log.go`).
            (200 | 204, _) => Phase::Answer(Answer::Log),
            // Over a WebSocket.
            (101, State::Follow | State::Drain { .. } | State::LogOnly { .. }) => {
                Phase::Answer(Answer::Log)
            }
            _ => return self.requests.refuse(head),
        };
        *self.grant() = Grant::Given;
    }

    fn handle_body(&mut self, now: Instant, chunk: Bytes) {
        match self.requests.body(now, chunk) {
            Some((Answer::Log, chunk)) => self.lines.push(chunk),
            Some((Answer::Pod(body), chunk)) => {
                let bound = limits::WATCH_EVENT;
                if chunk.len() > bound.saturating_sub(body.len()) {
                    let error = PeerError::from(EventError::TooLarge { bound });
                    return self.finish(LogEnd::Failed(error.into()));
                }
                body.extend_from_slice(&chunk);
            }
            None => {}
        }
    }

    /// Text is base64: the subprotocol `base64.binary.k8s.io`
    /// (`k8s.io/streaming/pkg/httpstream/wsstream/stream.go`).
    fn handle_message(&mut self, now: Instant, message: Message) {
        let chunk = match message {
            Message::Binary(bytes) => bytes,
            Message::Text(text) => match STANDARD.decode(&text) {
                Ok(bytes) => bytes.into(),
                Err(_) => return self.handle_end(now, Some(PeerError::Base64.into())),
            },
            _ => return,
        };
        self.handle_body(now, chunk);
    }

    fn handle_end(&mut self, now: Instant, error: Option<Error>) {
        if self.requests.end(now, error) {
            self.lines.finish();
        }
    }

    fn handle_hold(&mut self, now: Instant, held: bool) {
        self.requests.hold(now, held);
    }

    fn handle_timeout(&mut self, now: Instant) {
        let Some(error) = self.requests.is_silent(now, self.longest_silence()) else {
            if self.end_of_doubt().is_some_and(|due| due <= now) {
                self.lines.give_up();
            }
            return;
        };
        if self.is_followed() {
            // Most likely nothing is wrong.
            self.requests.proven();
        }
        self.handle_end(now, Some(error));
    }

    fn poll_timeout(&self) -> Option<Instant> {
        let silence = self.requests.deadline(self.longest_silence());
        [silence, self.end_of_doubt()].into_iter().flatten().min()
    }

    fn poll_update(&mut self) -> Option<LogUpdate> {
        loop {
            if let Some(update) = self.updates.pop_front() {
                return Some(update);
            }
            if self.is_reading() {
                let whole = self.state == State::LogOnly { follow: false };
                if let Some((update, full)) = self.lines.next(self.requests.is_cut() || !whole) {
                    if let LogUpdate::Line(_) = update {
                        self.fruitless = Fruitless::default();
                    }
                    if full {
                        self.finish(LogEnd::Limit);
                    }
                    return Some(update);
                }
                if self.lines.has_missed() {
                    self.miss();
                    continue;
                }
            }
            let (phase, end) = self.requests.take_end()?;
            self.end(phase, end);
        }
    }

    fn wants_response(&self) -> bool {
        self.requests.wants_response()
    }
}

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
        Message,
        requests::{Phase, Requests},
        watch::Head,
    },
    wire::watch::EventError,
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    Pod,
    /// The log without following; all that the user asked for.
    Whole,
    Follow,
    /// What is left of the log of an instance that has ended.
    Rest {
        previous: bool,
    },
}

/// What is being read.
#[derive(Debug)]
pub(super) enum Answer {
    Pod(BytesMut),
    Log,
}

/// The state of reading one container's log. See [the module](super).
#[derive(Debug)]
pub struct Logs {
    pub(super) config: LogConfig,
    pub(super) requests: Requests<Answer>,
    pub(super) step: Step,
    pub(super) updates: VecDeque<LogUpdate>,

    pub(super) lines: Lines,
    /// When the log was asked for first.
    pub(super) asked: Option<Instant>,
    /// Since when there is known to be no line that should be skipped, while none was delivered.
    pub(super) empty_from: Option<Instant>,
    /// Another instance is read than the one at the beginning: of its log nothing is skipped.
    pub(super) restarted: bool,
    /// How far the last reading of this instance came, if it ended in order: `delivered` and the
    /// last line.
    pub(super) reach: Option<u64>,

    pub(super) uid: String,
    pub(super) container: Option<String>,
    /// The instance that is read.
    pub(super) instance: Option<String>,
    /// The instance whose log has been read to its end.
    pub(super) read: Option<String>,
    /// The instance whose log has been read to its end when the next had begun.
    pub(super) drained: Option<String>,
    pub(super) waiting: String,
    pub(super) pod_unreadable: bool,
}

impl Logs {
    /// Begins to read at once. `seed` decides all that is random.
    pub fn new(config: LogConfig, now: Instant, seed: u64) -> Self {
        let step = if config.follow && !config.previous && config.resume {
            Step::Pod
        } else if config.follow && !config.previous {
            Step::Follow
        } else {
            Step::Whole
        };
        Self {
            requests: Requests::new(now, seed),
            step,
            updates: VecDeque::new(),
            lines: Lines::new(&config),
            asked: None,
            empty_from: None,
            restarted: false,
            reach: None,
            uid: String::new(),
            container: config.container.clone(),
            config,
            instance: None,
            read: None,
            drained: None,
            waiting: String::new(),
            pod_unreadable: false,
        }
    }

    /// The container that is read, once that is known.
    pub fn container(&self) -> Option<&str> {
        self.container.as_deref()
    }

    /// Takes the head of the response to the last request.
    pub fn handle_head(&mut self, now: Instant, head: Head<'_>) {
        if !self.requests.head(now) {
            return;
        }
        self.requests.phase = match (head.status, self.step) {
            (200, Step::Pod) => Phase::Answer(Answer::Pod(BytesMut::new())),
            // 204: the pod has no node yet (`k8s.io/kubernetes/pkg/registry/core/pod/rest/log.go`).
            (200 | 204, _) => Phase::Answer(Answer::Log),
            // Over a WebSocket.
            (101, Step::Whole | Step::Follow | Step::Rest { .. }) => Phase::Answer(Answer::Log),
            _ => return self.requests.refuse(head),
        };
    }

    /// Takes the next chunk of the body.
    pub fn handle_body(&mut self, now: Instant, chunk: Bytes) {
        match self.requests.body(now, chunk) {
            Some((Answer::Log, chunk)) => self.lines.push(chunk),
            Some((Answer::Pod(body), chunk)) => {
                let bound = limits::WATCH_EVENT;
                if body.len() + chunk.len() > bound {
                    let error = PeerError::from(EventError::TooLarge { bound });
                    return self.finish(LogEnd::Failed(error.into()));
                }
                body.extend_from_slice(&chunk);
            }
            None => {}
        }
    }

    /// Takes the next message with data of the WebSocket that was opened. Text is base64: the
    /// subprotocol `base64.binary.k8s.io` (`k8s.io/streaming/pkg/httpstream/wsstream/stream.go`).
    pub fn handle_message(&mut self, now: Instant, message: Message) {
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

    /// Takes the end of the response: in order, or because of an error.
    pub fn handle_end(&mut self, now: Instant, error: Option<Error>) {
        if self.requests.end(now, error) {
            self.lines.finish();
        }
    }

    /// Takes note that the driver has stopped, or again begun, to take bytes from the network.
    pub fn handle_hold(&mut self, now: Instant, held: bool) {
        self.requests.hold(now, held);
    }

    /// Does what is due at `now`. Calling it too early does nothing.
    pub fn handle_timeout(&mut self, now: Instant) {
        let Some(error) = self.requests.is_silent(now, self.longest_silence()) else {
            return;
        };
        if self.step == Step::Follow {
            // Most likely nothing is wrong.
            self.requests.backoff.reset();
        }
        self.handle_end(now, Some(error));
    }

    /// When to call [`handle_timeout`](Self::handle_timeout) and to ask for requests next.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.requests.deadline(self.longest_silence())
    }

    /// A log that is followed may be silent for as long as its container is; what else is asked
    /// for may not.
    fn longest_silence(&self) -> Option<Duration> {
        match (self.step, &self.requests.phase) {
            (Step::Follow, Phase::Requested | Phase::Answer(_)) => {
                self.config.resume.then_some(limits::LOG_SILENCE)
            }
            _ => Some(limits::ANSWER),
        }
    }

    /// Whether the response at hand is still of use.
    pub fn wants_response(&self) -> bool {
        self.requests.wants_response()
    }

    /// Whether the log itself is being read: the server has agreed.
    pub fn is_reading(&self) -> bool {
        matches!(self.requests.phase, Phase::Answer(Answer::Log))
    }

    /// The request to make now, if any.
    pub fn poll_request(&mut self, now: Instant) -> Option<LogRequest> {
        if !self.requests.is_due(now) || !self.updates.is_empty() {
            return None;
        }
        self.requests.begin(now);
        if self.step == Step::Pod {
            return Some(LogRequest::Pod);
        }
        self.lines.begin();
        let query = self.query();
        self.asked.get_or_insert(now);
        Some(LogRequest::Log(query))
    }

    fn query(&self) -> Vec<(&'static str, String)> {
        let config = &self.config;
        let mut query = Vec::new();
        let mut add = |name, value: String| query.push((name, value));
        if let Some(container) = &self.container {
            add("container", container.clone());
        }
        if self.step == Step::Follow {
            add("follow", "true".into());
        }
        if config.previous || self.step == (Step::Rest { previous: true }) {
            add("previous", "true".into());
        }
        if config.resume {
            add("timestamps", "true".into());
        }
        if let Some(since) = self.lines.since() {
            // Whole seconds, which is what the server makes of it
            // (`k8s.io/kubernetes/pkg/registry/core/pod/strategy.go`).
            let text = since.to_string();
            add("sinceTime", format!("{}Z", text.get(..19).unwrap_or(&text)));
        } else if let Some(from) = self.empty_from {
            // What was to be skipped was, and must not be skipped again: all lines from then on
            // are wanted. The server counts back from its own time.
            let elapsed = self.requests.now() - from;
            add("sinceSeconds", (elapsed.as_secs() + 2).to_string());
        } else if !self.restarted {
            if let Some(since) = config.since_time {
                let text = since.to_string();
                add("sinceTime", format!("{}Z", text.get(..19).unwrap_or(&text)));
            }
            if let Some(seconds) = config.since_seconds {
                let elapsed = self
                    .asked
                    .map_or(Duration::ZERO, |at| self.requests.now() - at);
                let seconds = seconds.saturating_add(elapsed.as_secs_f64().ceil() as u64);
                add("sinceSeconds", seconds.to_string());
            }
            if let Some(lines) = config.tail_lines {
                add("tailLines", lines.to_string());
            }
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

    /// The next update.
    pub fn poll_update(&mut self) -> Option<LogUpdate> {
        loop {
            if let Some(update) = self.updates.pop_front() {
                return Some(update);
            }
            if self.is_reading() {
                let lost = matches!(self.requests.ended(), Some(Some(_)));
                if let Some((update, full)) = self.lines.next(lost || self.step != Step::Whole) {
                    if let LogUpdate::Line(_) = update {
                        self.requests.backoff.reset();
                    }
                    if full {
                        self.finish(LogEnd::Limit);
                    }
                    return Some(update);
                }
            }
            let (phase, error) = self.requests.take_end()?;
            self.end(phase, error);
        }
    }

    /// Delivers the last line, which has no newline and never will; whether the bound is reached.
    pub(super) fn finish_line(&mut self) -> bool {
        let last = self.lines.finish_line();
        let full = last.as_ref().is_some_and(|(_, full)| *full);
        self.updates.extend(last.map(|(update, _)| update));
        full
    }

    pub(super) fn finish(&mut self, end: LogEnd) {
        let end = match self.finish_line() {
            true => LogEnd::Limit,
            false => end,
        };
        self.requests.phase = Phase::Done;
        self.updates.push_back(LogUpdate::Ended(end));
    }

    pub(super) fn go(&mut self, step: Step) {
        self.step = step;
        self.requests.wait(false);
    }

    pub(super) fn pause(&mut self, error: Error, retry_after: Option<Duration>) {
        let retry_in = self.requests.pause(retry_after);
        self.updates
            .push_back(LogUpdate::Trouble { error, retry_in });
    }
}

//! A log that is read to its real end: lines once each, whatever happens to connections.
//!
//! In flow the heads, bodies and ends of responses, and the time; out come requests to make and
//! [`LogUpdate`]s. A log is asked for with stamps, whether or not the user wants them: they say
//! which lines were delivered before a cut, and which text is not the container's but the
//! kubelet's. An end of the response says nothing by itself, since a cut, a kubelet that died and
//! a container that exited look alike; the pod is asked what has happened.
//!
//! ```text
//!           not started: wait
//!              +------+
//!              v      |       running: follow              end or cut
//!   start --> Pod ----+-----------------------> Follow ------------------+
//!              ^ | ended, or another instance runs: the rest of this     |
//!              | +------------------------> Rest --------> ended, or     |
//!              |                              |            go on with    |
//!              +------------------------------+---------- the next <-----+
//! ```
//!
//! The contract is that of [`watch`](super::watch): make the request that `poll_request` gives,
//! hand in what comes of it, take all updates before handing in more, and mind the timeout.
//! After [`LogUpdate::Ended`] there is nothing more to do.

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::{Buf, Bytes, BytesMut};

use super::{Message, backoff::Backoff};
use crate::{
    error::{ApiError, CallerError, Error, NetworkError, PeerError},
    limits,
    wire::{
        line::{Line, LineEnd, LineSplitter},
        stamp::Stamp,
        status::Status,
        watch::{Encoding, EventError, Object},
    },
};

mod pod;
mod replay;

pub use self::pod::Exit;
use self::{
    pod::{Container, Pod},
    replay::Replay,
};
pub use super::watch::Head;

/// Which of a container's output streams to read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum LogStream {
    /// Both, as they were written.
    #[default]
    All,
    /// Standard output; only servers with the gate `PodLogsQuerySplitStreams`, and not together
    /// with a number of last lines.
    Stdout,
    /// Standard error, likewise.
    Stderr,
}

/// Which log to read, and how.
#[derive(Debug, Clone)]
pub struct LogConfig {
    /// What is read, for errors: `pod default/web-0`.
    pub what: String,
    /// The container. `None`: the pod's default.
    pub container: Option<String>,
    /// Go on until the container ends.
    pub follow: bool,
    /// When the container ends and is started again, go on with the next instance.
    pub across_restarts: bool,
    /// Read the log of the instance before the current one.
    pub previous: bool,
    /// Only lines of the last so many seconds, at least 1.
    pub since_seconds: Option<u64>,
    /// Only lines from this instant on.
    pub since_time: Option<Stamp>,
    /// Only so many last lines.
    pub tail_lines: Option<u64>,
    /// At most so many bytes, at least 1.
    pub limit_bytes: Option<u64>,
    /// Whether the API server may take the kubelet's certificate for granted.
    pub insecure_skip_tls_verify_backend: bool,
    /// Which output to read.
    pub stream: LogStream,
    /// Whether to ask for stamps, and go on where a cut connection broke off. Without, each line
    /// is what the server sent, and a lost connection is the end.
    pub resume: bool,
    /// Bytes of the longest line that comes in one piece.
    pub max_line: usize,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self {
            what: String::new(),
            container: None,
            follow: false,
            across_restarts: false,
            previous: false,
            since_seconds: None,
            since_time: None,
            tail_lines: None,
            limit_bytes: None,
            insecure_skip_tls_verify_backend: false,
            stream: LogStream::All,
            resume: true,
            max_line: limits::LOG_LINE,
        }
    }
}

/// The subprotocols of a log over a WebSocket, in order of preference. They have no channel byte.
pub const SUBPROTOCOLS: [&str; 2] = ["binary.k8s.io", "base64.binary.k8s.io"];

/// A GET request on the pod.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum LogRequest {
    /// The subresource `log`, with this query, not yet percent-encoded. It can be asked for over a
    /// WebSocket instead, with one of [`SUBPROTOCOLS`].
    Log(Vec<(&'static str, String)>),
    /// The pod itself, as JSON.
    Pod,
}

/// One line of a log, or a piece of a very long one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    /// When the container runtime read the line, by the node's clock; `None` if stamps were not
    /// asked for. Pieces of a line have its stamp.
    pub stamp: Option<Stamp>,
    /// The line, without stamp and newline.
    pub bytes: Bytes,
    /// How the line ended.
    pub end: LineEnd,
}

/// What a log says.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum LogUpdate {
    /// A line.
    Line(LogLine),
    /// Text that the kubelet put in place of the log, without a stamp: why it cannot read on.
    Notice(Bytes),
    /// The container has not started.
    Waiting {
        /// Why not, such as `ContainerCreating` or `ImagePullBackOff`.
        reason: String,
        /// The same at length.
        message: String,
    },
    /// What follows is from another instance of the container.
    Restarted {
        /// How often it was started again.
        restarts: u32,
        /// How the instance before ended, where that is known.
        exit: Option<Exit>,
    },
    /// Something went wrong, and the log is asked for again after a delay.
    Trouble {
        /// What went wrong.
        error: Error,
        /// The delay.
        retry_in: Duration,
    },
    /// The last update.
    Ended(LogEnd),
}

/// Why a log ended.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum LogEnd {
    /// All that there was has been read; it was not to be followed. Also where the user may not
    /// read the pod: then an end of the log is all that there is to know.
    Complete,
    /// The bound on bytes was reached.
    Limit,
    /// The container ended.
    Exited(Exit),
    /// The pod no longer exists.
    PodGone,
    /// Another pod has taken the pod's name.
    PodReplaced,
    /// The log cannot be read.
    Failed(Error),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Pod,
    /// The log without following; all that the user asked for.
    Whole,
    Follow,
    /// What is left of the log of an instance that has ended.
    Rest {
        previous: bool,
    },
}

#[derive(Debug)]
enum Phase {
    Waiting(Instant),
    Requested,
    Refused {
        code: u16,
        encoding: Encoding,
        retry_after: Option<Duration>,
        body: BytesMut,
    },
    Pod(BytesMut),
    Log,
    Done,
}

/// What becomes of the line whose pieces arrive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Open {
    No,
    /// It was delivered before.
    Known,
    /// The kubelet's text.
    Notice,
    /// So many of its bytes have been delivered.
    Delivered {
        stamp: Option<Stamp>,
        bytes: usize,
    },
}

/// The state of reading one container's log. See [the module](self).
#[derive(Debug)]
pub struct Logs {
    config: LogConfig,
    backoff: Backoff,
    step: Step,
    phase: Phase,
    now: Instant,
    last_byte: Instant,
    held: bool,
    ended: Option<Option<Error>>,
    updates: VecDeque<LogUpdate>,

    lines: LineSplitter,
    replay: Replay,
    open: Open,
    /// A line that was cut when so many of its bytes had been delivered.
    torn: Option<(Stamp, usize)>,
    /// The last line, without a newline: whole only if the log really ends there.
    tail: Option<LogLine>,
    /// Text of the kubelet in this response.
    notice: Option<Bytes>,
    left: Option<u64>,
    /// Bytes of lines that have been delivered.
    delivered: u64,
    /// How far the last reading of this instance came, if it ended in order: `delivered` and the
    /// last line.
    reach: Option<u64>,

    uid: String,
    container: Option<String>,
    /// The instance that is read.
    instance: Option<String>,
    /// The instance whose log has been read to its end.
    read: Option<String>,
    /// The instance whose log has been read to its end when the next had begun.
    drained: Option<String>,
    waiting: String,
    pod_unreadable: bool,
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
            backoff: Backoff::new(seed),
            step,
            phase: Phase::Waiting(now),
            now,
            last_byte: now,
            held: false,
            ended: None,
            updates: VecDeque::new(),
            lines: LineSplitter::new(config.max_line.max(MIN_LINE)),
            replay: Replay::default(),
            open: Open::No,
            torn: None,
            tail: None,
            notice: None,
            left: config.limit_bytes,
            delivered: 0,
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
        self.now = now;
        self.last_byte = now;
        if !matches!(self.phase, Phase::Requested) {
            return;
        }
        self.phase = match (head.status, self.step) {
            (200, Step::Pod) => Phase::Pod(BytesMut::new()),
            // 204: the pod has no node yet (`k8s.io/kubernetes/pkg/registry/core/pod/rest/log.go`).
            // 101: over a WebSocket.
            (200 | 204, _) | (101, Step::Whole | Step::Follow | Step::Rest { .. }) => Phase::Log,
            (code, _) => Phase::Refused {
                code,
                encoding: head
                    .content_type
                    .and_then(Encoding::from_content_type)
                    .unwrap_or(Encoding::Json),
                retry_after: head.retry_after,
                body: BytesMut::new(),
            },
        };
    }

    /// Takes the next chunk of the body.
    pub fn handle_body(&mut self, now: Instant, chunk: Bytes) {
        self.now = now;
        self.last_byte = now;
        match &mut self.phase {
            Phase::Log => self.lines.push(chunk),
            Phase::Pod(body) => {
                let bound = limits::WATCH_EVENT;
                if body.len() + chunk.len() > bound {
                    let error = PeerError::from(EventError::TooLarge { bound });
                    return self.finish(LogEnd::Failed(error.into()));
                }
                body.extend_from_slice(&chunk);
            }
            Phase::Refused { body, .. } => {
                let room = limits::REFUSAL - body.len();
                body.extend_from_slice(&chunk[..chunk.len().min(room)]);
            }
            Phase::Waiting(_) | Phase::Requested | Phase::Done => {}
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
        self.now = now;
        if self.wants_response() {
            self.lines.finish();
            self.ended = Some(error);
        }
    }

    /// Takes note that the driver has stopped, or again begun, to take bytes from the network.
    pub fn handle_hold(&mut self, now: Instant, held: bool) {
        if self.held && !held {
            self.last_byte = now;
        }
        self.held = held;
    }

    /// Does what is due at `now`. Calling it too early does nothing.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.now = now;
        if self.silence_ends().is_some_and(|deadline| deadline <= now) {
            let silent = now - self.last_byte;
            if self.step == Step::Follow {
                // Most likely nothing is wrong.
                self.backoff.reset();
            }
            self.lines.finish();
            self.ended = Some(Some(NetworkError::Silent { silent }.into()));
        }
    }

    /// When to call [`handle_timeout`](Self::handle_timeout) and to ask for requests next.
    pub fn poll_timeout(&self) -> Option<Instant> {
        match self.phase {
            Phase::Waiting(until) => Some(until),
            _ => self.silence_ends(),
        }
    }

    /// A log that is followed may be silent for as long as its container is; what else is asked
    /// for may not.
    fn silence_ends(&self) -> Option<Instant> {
        let silence = match self.phase {
            Phase::Waiting(_) | Phase::Done => return None,
            _ if self.held || self.ended.is_some() => return None,
            Phase::Refused { .. } | Phase::Pod(_) => limits::ANSWER,
            Phase::Requested | Phase::Log if self.step != Step::Follow => limits::ANSWER,
            Phase::Requested | Phase::Log if self.config.resume => limits::LOG_SILENCE,
            Phase::Requested | Phase::Log => return None,
        };
        Some(self.last_byte + silence)
    }

    /// Whether the response at hand is still of use.
    pub fn wants_response(&self) -> bool {
        !matches!(self.phase, Phase::Waiting(_) | Phase::Done)
    }

    /// Whether the log itself is being read: the server has agreed.
    pub fn is_reading(&self) -> bool {
        matches!(self.phase, Phase::Log)
    }

    /// The request to make now, if any.
    pub fn poll_request(&mut self, now: Instant) -> Option<LogRequest> {
        match self.phase {
            Phase::Waiting(until) if until <= now && self.updates.is_empty() => {}
            _ => return None,
        }
        self.now = now;
        self.last_byte = now;
        self.ended = None;
        self.phase = Phase::Requested;
        if self.step == Step::Pod {
            return Some(LogRequest::Pod);
        }
        // What is left of the response before will come again.
        if let Open::Delivered { stamp, bytes } = self.open {
            self.tear(stamp, bytes);
        }
        self.open = Open::No;
        self.tail = None;
        self.notice = None;
        self.lines.reset();
        self.replay.begin();
        Some(LogRequest::Log(self.query()))
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
        if let Some(since) = self.replay.since() {
            // Whole seconds, which is what the server makes of it
            // (`k8s.io/kubernetes/pkg/registry/core/pod/strategy.go`).
            let text = since.to_string();
            add("sinceTime", format!("{}Z", text.get(..19).unwrap_or(&text)));
        } else {
            if let Some(since) = config.since_time {
                let text = since.to_string();
                add("sinceTime", format!("{}Z", text.get(..19).unwrap_or(&text)));
            }
            if let Some(seconds) = config.since_seconds {
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
            if matches!(self.phase, Phase::Log)
                && let Some(line) = self.lines.next_line()
            {
                if let Some(update) = self.line(line) {
                    return Some(update);
                }
                continue;
            }
            let end = self.ended.take()?;
            self.end(end);
        }
    }

    /// What a line is: the container's, new or known, or the kubelet's.
    fn line(&mut self, line: Line) -> Option<LogUpdate> {
        let Line { mut bytes, end } = line;
        if self.open == Open::No {
            self.open = self.begin_line(&mut bytes, end);
        }
        let open = self.open;
        if end != LineEnd::Piece {
            self.open = Open::No;
        }
        match open {
            Open::No | Open::Known => None,
            Open::Notice => {
                // The kubelet's text ends a body in order; a cut may fall into a stamp.
                let cut = self.step != Step::Whole || matches!(self.ended, Some(Some(_)));
                if end == LineEnd::Body && cut && might_be_stamp(&bytes) {
                    return None;
                }
                self.notice = Some(bytes.clone());
                Some(LogUpdate::Notice(bytes))
            }
            Open::Delivered {
                stamp,
                bytes: before,
            } => {
                let skipped = self.skip_torn(stamp, &mut bytes);
                let before = before + skipped;
                if end == LineEnd::Newline {
                    self.torn = None;
                    if let Some(stamp) = stamp {
                        self.replay.deliver(stamp);
                    }
                }
                let after = before + bytes.len();
                if end != LineEnd::Body {
                    self.delivered += bytes.len() as u64 + u64::from(end == LineEnd::Newline);
                }
                let line = LogLine { stamp, bytes, end };
                match end {
                    LineEnd::Newline => {}
                    LineEnd::Piece => {
                        self.open = Open::Delivered {
                            stamp,
                            bytes: after,
                        };
                        if line.bytes.is_empty() {
                            return None;
                        }
                    }
                    LineEnd::Body => {
                        self.tear(stamp, before);
                        self.tail = Some(line);
                        return None;
                    }
                }
                self.backoff.reset();
                let (update, full) = self.bounded(line);
                if full {
                    self.finish(LogEnd::Limit);
                }
                Some(update)
            }
        }
    }

    /// Takes off what was delivered of this line before it was cut.
    fn skip_torn(&mut self, stamp: Option<Stamp>, bytes: &mut Bytes) -> usize {
        match &mut self.torn {
            Some((torn, left)) if Some(*torn) == stamp => {
                let skipped = bytes.len().min(*left);
                bytes.advance(skipped);
                *left -= skipped;
                skipped
            }
            _ => 0,
        }
    }

    /// Remembers how much of a line was delivered that has been cut.
    fn tear(&mut self, stamp: Option<Stamp>, delivered: usize) {
        let Some(stamp) = stamp else { return };
        let left = self.torn.filter(|(torn, _)| *torn == stamp);
        let delivered = delivered + left.map_or(0, |(_, left)| left);
        if delivered > 0 {
            self.torn = Some((stamp, delivered));
        }
    }

    /// Reads and takes off the stamp.
    fn begin_line(&mut self, bytes: &mut Bytes, end: LineEnd) -> Open {
        if !self.config.resume {
            return Open::Delivered {
                stamp: None,
                bytes: 0,
            };
        }
        let Some((stamp, used)) = Stamp::parse_prefix(bytes) else {
            return Open::Notice;
        };
        // `k8s.io/kubernetes/pkg/kubelet/kuberuntime/logs/logs.go`: stamp, space, text.
        match bytes.get(used) {
            Some(b' ') => bytes.advance(used + 1),
            None if end == LineEnd::Body => return Open::Known,
            _ => return Open::Notice,
        }
        if self.replay.is_known(stamp) || self.config.since_time.is_some_and(|s| stamp < s) {
            return Open::Known;
        }
        Open::Delivered {
            stamp: Some(stamp),
            bytes: 0,
        }
    }

    /// Keeps to the bound on bytes; says whether it is reached.
    fn bounded(&mut self, mut line: LogLine) -> (LogUpdate, bool) {
        let Some(left) = self.left.as_mut().filter(|_| self.config.resume) else {
            return (LogUpdate::Line(line), false);
        };
        let newline = u64::from(line.end == LineEnd::Newline);
        let len = line.bytes.len() as u64 + newline;
        if len > *left {
            line.bytes
                .truncate(usize::try_from(*left).unwrap_or(usize::MAX));
            line.end = LineEnd::Body;
        }
        *left = left.saturating_sub(len);
        (LogUpdate::Line(line), *left == 0)
    }

    /// Delivers the last line, which has no newline and never will.
    fn finish_line(&mut self) -> bool {
        let Some(tail) = self.tail.take() else {
            return false;
        };
        let (update, full) = self.bounded(tail);
        self.updates.push_back(update);
        full
    }

    fn finish(&mut self, end: LogEnd) {
        let end = if self.finish_line() {
            LogEnd::Limit
        } else {
            end
        };
        self.phase = Phase::Done;
        self.updates.push_back(LogUpdate::Ended(end));
    }

    fn go(&mut self, step: Step) {
        self.step = step;
        self.phase = Phase::Waiting(self.now);
    }

    fn pause(&mut self, error: Error, retry_after: Option<Duration>) {
        let retry_in = self.backoff.next().max(retry_after.unwrap_or_default());
        self.phase = Phase::Waiting(self.now + retry_in);
        self.updates
            .push_back(LogUpdate::Trouble { error, retry_in });
    }

    /// The response is over.
    fn end(&mut self, error: Option<Error>) {
        match std::mem::replace(&mut self.phase, Phase::Waiting(self.now)) {
            Phase::Waiting(_) => {}
            Phase::Done => self.phase = Phase::Done,
            Phase::Refused {
                code,
                encoding,
                retry_after,
                body,
            } => {
                let body = body.freeze();
                let status = Object::new(encoding, body.clone()).status();
                let mut status = status.unwrap_or_else(|_| {
                    Status::failure(code, "", String::from_utf8_lossy(&body).trim())
                });
                if status.code == 0 {
                    status.code = code;
                }
                self.refused(status, retry_after);
            }
            Phase::Requested => {
                let unexpected = std::io::ErrorKind::UnexpectedEof.into();
                self.lost(error.unwrap_or(NetworkError::Lost(Arc::new(unexpected)).into()));
            }
            Phase::Pod(body) => match (error, serde_json::from_slice::<Pod>(&body)) {
                (Some(error), _) => self.lost(error),
                (None, Ok(pod)) => self.pod(&pod),
                (None, Err(e)) => {
                    let error = PeerError::from(EventError::Decode(e.to_string()));
                    self.lost(error.into());
                }
            },
            Phase::Log => self.log_over(error),
        }
    }

    fn log_over(&mut self, error: Option<Error>) {
        let in_band = self.notice.take().map(|text| {
            let text = String::from_utf8_lossy(&text).trim().to_owned();
            self.api_error(Status::failure(500, "InternalError", text))
        });
        let end = error.or(in_band);
        // A reading that was cut proves nothing about where the log ends.
        let proof = match end {
            None => self.reach.replace(self.reach()),
            Some(_) => self.reach.take().and(None),
        };
        match (self.step, end) {
            (Step::Whole, None) => self.finish(LogEnd::Complete),
            (_, Some(error)) if !self.config.resume => self.finish(LogEnd::Failed(error)),
            (_, None) if !self.config.resume => self.finish(LogEnd::Complete),
            // The kubelet said why it cannot.
            (Step::Whole, Some(error @ Error::Api(_))) => self.finish(LogEnd::Failed(error)),
            (Step::Whole, Some(error)) => self.lost(error),
            (Step::Rest { .. }, None) if !self.is_proven(proof) => {}
            (Step::Rest { previous }, None) => {
                self.read.clone_from(&self.instance);
                if previous {
                    self.drained.clone_from(&self.instance);
                }
                self.step = Step::Pod;
            }
            (Step::Rest { .. }, Some(error @ Error::Api(_)))
                if self.backoff.failures() >= limits::LOG_RETRIES =>
            {
                self.finish(LogEnd::Failed(error));
            }
            (Step::Rest { .. }, Some(error)) => self.pause(error, None),
            (Step::Follow | Step::Pod, end) if self.pod_unreadable => match end {
                None => self.finish(LogEnd::Complete),
                Some(error) => self.lost(error),
            },
            (Step::Follow | Step::Pod, end) => {
                self.step = Step::Pod;
                if let Some(error @ Error::Api(_)) = end {
                    self.pause(error, None);
                }
            }
        }
    }

    fn reach(&self) -> u64 {
        let tail = self.tail.as_ref();
        self.delivered + tail.map_or(0, |line| line.bytes.len() as u64 + 1)
    }

    /// Whether what was read of an instance that has ended is all. A kubelet that dies, too, ends
    /// the body in order, for API servers ignore errors of the copy
    /// (`k8s.io/apiserver/pkg/endpoints/handlers/responsewriters/writers.go`), so that another reading has to come as far and no farther.
    fn is_proven(&mut self, before: Option<u64>) -> bool {
        if self.reach != before {
            return false;
        }
        // If what is known does not come again, perhaps it never will: files are rotated.
        if self.replay.has_caught_up() || self.backoff.failures() >= limits::LOG_RETRIES {
            return true;
        }
        self.phase = Phase::Waiting(self.now + self.backoff.next());
        false
    }

    /// A connection was lost, or there was none.
    fn lost(&mut self, error: Error) {
        let finite = self.step == Step::Whole;
        if !self.config.resume || finite && self.backoff.failures() >= limits::LOG_RETRIES {
            return self.finish(LogEnd::Failed(error));
        }
        self.pause(error, None);
    }

    fn api_error(&self, status: Status) -> Error {
        Box::new(ApiError::new(
            format!("logs of {}", self.config.what),
            status,
        ))
        .into()
    }

    fn refused(&mut self, status: Status, retry_after: Option<Duration>) {
        let asked = status.details.as_ref().map(|d| d.retry_after_seconds);
        let asked = asked
            .filter(|s| *s > 0)
            .map(|s| Duration::from_secs(s.into()));
        let retry_after = retry_after.max(asked);
        let code = status.code;
        let error = self.api_error(status);
        let transient = matches!(code, 408 | 429 | 500..);
        let following = self.config.follow && !self.config.previous && self.config.resume;
        match (self.step, code) {
            (Step::Pod, 404) if !self.uid.is_empty() => self.finish(LogEnd::PodGone),
            (Step::Pod, 401 | 403) => {
                self.pod_unreadable = true;
                self.go(Step::Follow);
            }
            // The log before the last is gone with its container.
            (Step::Rest { previous: true }, 400 | 404) => {
                self.drained.clone_from(&self.instance);
                self.go(Step::Pod);
            }
            (Step::Rest { .. }, 400 | 404) if self.backoff.failures() >= limits::LOG_RETRIES => {
                self.finish(LogEnd::Failed(error));
            }
            (Step::Follow | Step::Rest { .. }, 400 | 404) if following && !self.pod_unreadable => {
                // The pod says better what is the matter.
                self.step = Step::Pod;
                self.pause(error, retry_after);
            }
            (Step::Whole, _) if !transient || self.backoff.failures() >= limits::LOG_RETRIES => {
                self.finish(LogEnd::Failed(error));
            }
            _ if !transient || !self.config.resume => self.finish(LogEnd::Failed(error)),
            _ => self.pause(error, retry_after),
        }
    }

    /// What the pod says about the container, and what is to be done therefore.
    fn pod(&mut self, pod: &Pod) {
        if self.uid.is_empty() {
            self.uid = pod.uid().to_owned();
        } else if self.uid != pod.uid() {
            return self.finish(LogEnd::PodReplaced);
        }
        let name = self.container.take().or_else(|| pod.default_container());
        let name = name.unwrap_or_default();
        let container = pod.container(&name);
        let Some(container) = container else {
            let names = pod.container_names().join(", ");
            let what = &self.config.what;
            let text = format!("{what} has no container {name:?}; it has {names}");
            return self.finish(LogEnd::Failed(CallerError::Request(text).into()));
        };
        self.container = Some(name);
        match container {
            Container::Waiting { reason, message } => {
                self.phase = Phase::Waiting(self.now + limits::POD_POLL);
                if self.waiting != reason {
                    self.waiting.clone_from(&reason);
                    self.updates
                        .push_back(LogUpdate::Waiting { reason, message });
                }
            }
            Container::Over(exit) => self.finish(LogEnd::Exited(exit)),
            Container::Running {
                id,
                restarts,
                before,
            } => {
                if self.is_next(&id, before, restarts) {
                    self.instance = Some(id);
                    self.follow();
                }
            }
            Container::Ended {
                id,
                exit,
                before,
                will_restart,
            } => {
                if !self.is_next(&id, before, 0) {
                    return;
                }
                self.instance = Some(id);
                if self.read != self.instance {
                    self.go(Step::Rest { previous: false });
                } else if will_restart && self.config.across_restarts {
                    self.phase = Phase::Waiting(self.now + limits::POD_POLL);
                } else {
                    self.finish(LogEnd::Exited(exit));
                }
            }
        }
    }

    /// Whether to read the instance `id` now: it is the one at hand, or the one at hand is done
    /// with and the next is wanted.
    fn is_next(&mut self, id: &str, before: Option<(String, Exit)>, restarts: u32) -> bool {
        let Some(instance) = &self.instance else {
            return true;
        };
        if instance == id {
            return true;
        }
        let last = before.filter(|(before, _)| before == instance);
        // Even if it was read when it had just ended: the next may have begun before that.
        if self.drained.as_ref() != Some(instance) && last.is_some() {
            self.go(Step::Rest { previous: true });
            return false;
        }
        let exit = last.map(|(_, exit)| exit);
        if !self.config.across_restarts {
            self.finish(LogEnd::Exited(exit.unwrap_or_default()));
            return false;
        }
        if self.finish_line() {
            self.finish(LogEnd::Limit);
            return false;
        }
        self.reach = None;
        self.updates
            .push_back(LogUpdate::Restarted { restarts, exit });
        true
    }

    /// Reads on, with a delay if the last attempts brought nothing.
    fn follow(&mut self) {
        self.step = Step::Follow;
        let delay = match self.backoff.failures() {
            0 => Duration::ZERO,
            _ => self.backoff.next(),
        };
        // Counts this attempt; a line resets it.
        if delay.is_zero() {
            let _ = self.backoff.next();
        }
        self.phase = Phase::Waiting(self.now + delay);
    }
}

/// A line must hold a stamp and something more.
const MIN_LINE: usize = 64;

/// Whether the text could be the start of a stamp that was cut.
fn might_be_stamp(text: &[u8]) -> bool {
    let of_stamp = |b: &u8| b.is_ascii_digit() || b"-T:.Z+".contains(b);
    text.len() < 36 && text.iter().all(of_stamp)
}

#[cfg(test)]
mod tests;

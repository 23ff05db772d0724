//! A watch that never ends: which request to make next, and what its answer means.
//!
//! In flow the heads, bodies and ends of responses, and the time; out come requests to make and
//! [`Update`]s. Whoever applies every update to a copy has the server's state, whatever happens
//! to connections on the way.
//!
//! ```text
//!            +--> WatchList --snapshot complete--+
//!   start ---+       | 422, or never complete    v      end, cut, silence, 5xx: from the last
//!            |       v                         Watch --------+ resourceVersion, at once after
//!            +--> List, page by page ----------^ | ^         | progress, else after a delay
//!                                                | +---------+
//!   start again, from where it began  <--- 410 --+
//! ```
//!
//! # The contract
//!
//! Whoever drives a [`Watch`]
//!
//! 1. makes the request that [`poll_request`](Watch::poll_request) gives, dropping any response
//!    at hand, and drops it also when [`wants_response`](Watch::wants_response) says so;
//! 2. hands in what comes of it: [`handle_head`](Watch::handle_head) once,
//!    [`handle_body`](Watch::handle_body) for each chunk, or, where a WebSocket was opened,
//!    [`handle_message`](Watch::handle_message) for each message,
//!    [`handle_end`](Watch::handle_end) once, also where there never was a head;
//! 3. takes all updates with [`poll_update`](Watch::poll_update) after each of these calls, before
//!    the next;
//! 4. calls [`handle_timeout`](Watch::handle_timeout) when the time of
//!    [`poll_timeout`](Watch::poll_timeout) has come, and asks for requests again.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};

use super::{Message, backoff::Backoff};
use crate::{
    error::{ApiError, Error, NetworkError, PeerError},
    limits,
    wire::{
        status::Status,
        watch::{Encoding, Event, EventError, EventType, Items, List, Object},
    },
};

mod mirror;
mod query;
mod shard;
mod source;

pub(crate) use self::source::Source;
pub use self::{
    mirror::{Change, Mirror, ObjectKey},
    query::{Form, WatchConfig},
    shard::{Shard, ShardField},
};

/// A GET request on the watched resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Names and values of the query, not yet percent-encoded.
    pub query: Vec<(&'static str, String)>,
    /// The `Accept` header.
    pub accept: String,
    /// Whether this is a watch, whose body has no end in sight, or a list. A watch can be asked
    /// for over a WebSocket instead; the server wants an `Origin` header then, any URL
    /// (`golang.org/x/net/websocket/server.go`, `checkOrigin`).
    pub is_watch: bool,
}

/// The head of a response.
#[derive(Debug, Clone, Copy, Default)]
pub struct Head<'a> {
    /// The status code; 101 if a WebSocket was opened, whose messages follow.
    pub status: u16,
    /// The `Content-Type` header.
    pub content_type: Option<&'a str>,
    /// The `Retry-After` header, which API servers give in seconds.
    pub retry_after: Option<Duration>,
}

/// What a continuous watch says.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Update<E = Event> {
    /// A snapshot of all objects begins. One that had begun and not ended is void.
    SnapshotBegin,
    /// An object was added, modified or deleted; within a snapshot, is there. Also an event of
    /// a type that this crate does not know.
    Event(E),
    /// The snapshot is complete: objects that were not in it no longer exist.
    SnapshotEnd {
        /// The server's version that the snapshot shows.
        resource_version: String,
        /// Whether the server confined the snapshot to the shard that was asked for. If not,
        /// the session does, after all objects have come over the wire.
        sharded: bool,
    },
    /// No other object changed up to this version.
    Bookmark {
        /// The version.
        resource_version: String,
    },
    /// Something went wrong, and the watch goes on after a delay.
    Trouble {
        /// What went wrong.
        error: Error,
        /// The delay.
        retry_in: Duration,
        /// Whether repeating helps only after someone has changed something: the server
        /// understood the request and refused it.
        refused: bool,
    },
}

impl<E> Update<E> {
    /// The same with another event.
    pub fn map<T>(self, event: impl FnOnce(E) -> T) -> Update<T> {
        match self {
            Self::SnapshotBegin => Update::SnapshotBegin,
            Self::Event(e) => Update::Event(event(e)),
            Self::SnapshotEnd {
                resource_version,
                sharded,
            } => Update::SnapshotEnd {
                resource_version,
                sharded,
            },
            Self::Bookmark { resource_version } => Update::Bookmark { resource_version },
            Self::Trouble {
                error,
                retry_in,
                refused,
            } => Update::Trouble {
                error,
                retry_in,
                refused,
            },
        }
    }
}

/// Which request is to be made, is under way, or has its response at hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    WatchList,
    List,
    Watch,
}

#[derive(Debug)]
enum Phase {
    /// Nothing is under way until then.
    Waiting(Instant),
    /// The request has been given out.
    Requested,
    /// An error's body arrives.
    Refused {
        code: u16,
        encoding: Encoding,
        retry_after: Option<Duration>,
        body: BytesMut,
    },
    /// A page arrives.
    Paging { encoding: Encoding, body: BytesMut },
    /// A page is handed out.
    Listed { items: Items, list: Box<List> },
    /// Events arrive.
    Streaming(Source),
}

/// The state of a continuous watch. See [the contract](self).
#[derive(Debug)]
pub struct Watch {
    config: WatchConfig,
    backoff: Backoff,
    step: Step,
    phase: Phase,
    now: Instant,
    /// When the response at hand began, and when its last bytes arrived.
    began: Instant,
    last_byte: Instant,
    /// The watch's own end, as asked of the server.
    timeout: Duration,
    /// The driver takes nothing from the network.
    held: bool,
    /// The end of the response, while there are updates before it.
    ended: Option<Option<Error>>,
    updates: VecDeque<Update>,

    resource_version: String,
    continue_token: String,
    page: usize,
    in_snapshot: bool,
    /// Events show no order of versions: they are what a watch without a version begins with.
    synthetic: bool,
    /// The response at hand brought an event.
    progress: bool,
    bookmarks: bool,
    sharded: bool,
    no_watch_list: bool,
    only_json: bool,
    /// Pages that expired before their turn, in a row.
    expired_pages: u32,
    /// Snapshots that broke off before they were complete, in a row.
    broken_snapshots: u32,
    too_large: u32,
}

impl Watch {
    /// A watch that makes its first request at once. `seed` decides all that is random.
    pub fn new(config: WatchConfig, now: Instant, seed: u64) -> Self {
        let mut watch = Self {
            no_watch_list: !config.watch_list || config.shard.is_some(),
            resource_version: config.from.clone().unwrap_or_default(),
            page: config.page,
            config,
            backoff: Backoff::new(seed),
            step: Step::Watch,
            phase: Phase::Waiting(now),
            now,
            began: now,
            last_byte: now,
            timeout: Duration::ZERO,
            held: false,
            ended: None,
            updates: VecDeque::new(),
            continue_token: String::new(),
            in_snapshot: false,
            synthetic: false,
            progress: false,
            bookmarks: false,
            sharded: false,
            only_json: false,
            expired_pages: 0,
            broken_snapshots: 0,
            too_large: 0,
        };
        match &watch.config.from {
            None => watch.restart(),
            Some(from) => watch.synthetic = is_unversioned(from),
        }
        watch
    }

    /// Whether the server was found not to know watch-list for this resource, which is worth
    /// remembering for the next watch of it.
    pub fn lacks_watch_list(&self) -> bool {
        self.no_watch_list && self.config.watch_list && self.config.shard.is_none()
    }

    /// Where a new watch could go on; empty while there is no complete snapshot.
    pub fn resource_version(&self) -> &str {
        if self.in_snapshot || self.synthetic {
            return "";
        }
        &self.resource_version
    }

    /// Takes the head of the response to the last request.
    pub fn handle_head(&mut self, now: Instant, head: Head<'_>) {
        self.now = now;
        self.began = now;
        self.last_byte = now;
        if !matches!(self.phase, Phase::Requested) {
            return;
        }
        if head.status == 101 && self.step != Step::List {
            let (binary, bound) = (self.config.encoding, self.config.max_event);
            self.phase = Phase::Streaming(Source::messages(binary, bound));
            return;
        }
        let encoding = head.content_type.and_then(Encoding::from_content_type);
        if head.status != 200 {
            self.phase = Phase::Refused {
                code: head.status,
                encoding: encoding.unwrap_or(Encoding::Json),
                retry_after: head.retry_after,
                body: BytesMut::new(),
            };
            return;
        }
        let Some(encoding) = encoding else {
            let found = head.content_type.unwrap_or("none").to_owned();
            let error = PeerError::ContentType { found }.into();
            return self.pause(error, None, true);
        };
        self.phase = match self.step {
            Step::List => Phase::Paging {
                encoding,
                body: BytesMut::new(),
            },
            Step::WatchList | Step::Watch => {
                Phase::Streaming(Source::body(encoding, self.config.max_event))
            }
        };
    }

    /// Takes the next chunk of the body.
    pub fn handle_body(&mut self, now: Instant, chunk: Bytes) {
        self.now = now;
        self.last_byte = now;
        match &mut self.phase {
            Phase::Streaming(source) => source.push(chunk),
            Phase::Refused { body, .. } => {
                let room = limits::REFUSAL - body.len();
                body.extend_from_slice(&chunk[..chunk.len().min(room)]);
            }
            Phase::Paging { body, .. } => {
                if body.len() + chunk.len() <= self.config.max_page {
                    body.extend_from_slice(&chunk);
                    return;
                }
                let bound = self.config.max_page;
                if self.page > 1 {
                    self.page /= 2;
                }
                self.broken(EventError::TooLarge { bound });
            }
            Phase::Waiting(_) | Phase::Requested | Phase::Listed { .. } => {}
        }
    }

    /// Takes the next message with data of the WebSocket that was opened.
    pub fn handle_message(&mut self, now: Instant, message: Message) {
        self.now = now;
        self.last_byte = now;
        if let Phase::Streaming(source) = &mut self.phase {
            source.push_message(message);
        }
    }

    /// Takes the end of the response: in order, or because of an error.
    pub fn handle_end(&mut self, now: Instant, error: Option<Error>) {
        self.now = now;
        if self.wants_response() {
            self.ended = Some(error);
        }
    }

    /// Takes note that the driver has stopped, or again begun, to take bytes from the network,
    /// because nobody takes the updates. No silence is counted meanwhile.
    pub fn handle_hold(&mut self, now: Instant, held: bool) {
        if self.held && !held {
            self.last_byte = now;
        }
        self.held = held;
    }

    /// Does what is due at `now`. Calling it too early does nothing.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.now = now;
        let Some(deadline) = self.silence_ends() else {
            return;
        };
        if now < deadline {
            return;
        }
        if self.step == Step::WatchList && self.in_snapshot {
            // The server ignores what it does not know, or is too slow for it.
            self.no_watch_list = true;
        }
        let silent = now - self.last_byte;
        self.lost(NetworkError::Silent { silent }.into());
    }

    /// When to call [`handle_timeout`](Self::handle_timeout) and to ask for requests next.
    pub fn poll_timeout(&self) -> Option<Instant> {
        match self.phase {
            Phase::Waiting(until) => Some(until),
            _ => self.silence_ends(),
        }
    }

    /// The request to make now, if any.
    pub fn poll_request(&mut self, now: Instant) -> Option<Request> {
        match self.phase {
            Phase::Waiting(until) if until <= now && self.updates.is_empty() => {}
            _ => return None,
        }
        self.now = now;
        self.last_byte = now;
        self.progress = false;
        self.ended = None;
        self.phase = Phase::Requested;
        if self.step == Step::WatchList || self.step == Step::List && self.continue_token.is_empty()
        {
            self.updates.push_back(Update::SnapshotBegin);
            self.in_snapshot = true;
        }
        self.timeout = self.config.timeout + self.backoff.within(self.config.timeout);
        Some(self.request())
    }

    /// Whether the response at hand is still of use.
    pub fn wants_response(&self) -> bool {
        !matches!(self.phase, Phase::Waiting(_))
    }

    /// The next update.
    pub fn poll_update(&mut self) -> Option<Update> {
        loop {
            if let Some(update) = self.updates.pop_front() {
                return Some(update);
            }
            match &mut self.phase {
                Phase::Streaming(source) => match source.next_event() {
                    Ok(Some(event)) => {
                        if let Some(update) = self.event(event) {
                            return Some(update);
                        }
                        continue;
                    }
                    Ok(None) => {}
                    Err(error) => {
                        self.broken(error);
                        continue;
                    }
                },
                Phase::Listed { items, .. } => {
                    match items.next() {
                        Some(Ok(object)) if self.is_mine(&object) => {
                            let event_type = EventType::Added;
                            return Some(Update::Event(Event { event_type, object }));
                        }
                        Some(Ok(_)) => {}
                        Some(Err(error)) => self.broken(error),
                        None => self.page_done(),
                    }
                    continue;
                }
                _ => {}
            }
            let end = self.ended.take()?;
            self.end(end);
        }
    }

    /// The body is all there, or lost.
    fn end(&mut self, error: Option<Error>) {
        if self.step == Step::Watch && self.now - self.began >= limits::WATCH_PROVEN {
            self.backoff.reset();
        }
        match std::mem::replace(&mut self.phase, Phase::Waiting(self.now)) {
            Phase::Waiting(_) => {}
            Phase::Refused {
                code,
                encoding,
                retry_after,
                body,
            } => {
                let body = body.freeze();
                let mut status =
                    Object::new(encoding, body.clone())
                        .status()
                        .unwrap_or_else(|_| {
                            // Proxies, and API servers before they know what is asked, answer in text.
                            Status::failure(code, "", String::from_utf8_lossy(&body).trim())
                        });
                if status.code == 0 {
                    status.code = code;
                }
                self.refused(status, retry_after);
            }
            Phase::Paging { encoding, body } => match error {
                Some(error) => self.lost(error),
                None => match List::parse(encoding, body.freeze()) {
                    Ok(list) => {
                        self.phase = Phase::Listed {
                            items: list.items(),
                            list: Box::new(list),
                        };
                    }
                    Err(error) => self.broken(error),
                },
            },
            Phase::Streaming(mut source) => {
                // An end in order and a cut differ in nothing: API servers end a watch without a
                // word, and all that counts is how far it came.
                let cut = source.finish().err().map(|e| PeerError::from(e).into());
                match error.or(cut) {
                    Some(error) => self.lost(error),
                    None => self.watch_over(),
                }
            }
            Phase::Requested | Phase::Listed { .. } => {
                let ended = || {
                    NetworkError::Lost(std::sync::Arc::new(
                        std::io::ErrorKind::UnexpectedEof.into(),
                    ))
                };
                self.lost(error.unwrap_or_else(|| ended().into()));
            }
        }
    }

    /// A watch ended in order.
    fn watch_over(&mut self) {
        let short = self.now - self.began < Duration::from_secs(1);
        if self.in_snapshot || self.synthetic {
            self.snapshot_broke();
            self.wait(short);
        } else {
            self.wait(short && !self.progress);
        }
    }

    fn wait(&mut self, delayed: bool) {
        let delay = if delayed {
            self.backoff.next()
        } else {
            Duration::ZERO
        };
        self.phase = Phase::Waiting(self.now + delay);
    }

    /// The response was lost; what it brought before counts.
    fn lost(&mut self, error: Error) {
        if self.in_snapshot || self.synthetic {
            self.snapshot_broke();
        } else if self.progress {
            return self.wait(false);
        }
        self.pause(error, None, false);
    }

    fn broken(&mut self, error: EventError) {
        self.lost(PeerError::from(error).into());
    }

    /// Before the snapshot was complete: it begins anew.
    fn snapshot_broke(&mut self) {
        self.broken_snapshots += 1;
        if self.step == Step::WatchList && self.broken_snapshots > 2 {
            self.no_watch_list = true;
        }
        self.restart();
    }

    /// Waits before the next attempt, and says why.
    fn pause(&mut self, error: Error, retry_after: Option<Duration>, refused: bool) {
        let retry_in = self.backoff.next().max(retry_after.unwrap_or_default());
        self.phase = Phase::Waiting(self.now + retry_in);
        self.updates.push_back(Update::Trouble {
            error,
            retry_in,
            refused,
        });
    }

    /// All objects are to be fetched.
    fn restart(&mut self) {
        self.continue_token.clear();
        self.synthetic = false;
        self.step = if self.no_watch_list {
            Step::List
        } else {
            Step::WatchList
        };
    }

    /// The server refused, with an HTTP code or in the stream.
    fn refused(&mut self, status: Status, retry_after: Option<Duration>) {
        let asked = status.details.as_ref().map(|d| d.retry_after_seconds);
        let asked = asked
            .filter(|s| *s > 0)
            .map(|s| Duration::from_secs(s.into()));
        let retry_after = retry_after.max(asked);
        let code = status.code;
        if is_expired(&status) {
            if self.step == Step::List && !self.continue_token.is_empty() {
                // The pages outlived the history; the next attempt takes larger ones.
                self.expired_pages += 1;
                self.page = self.page.saturating_mul(4);
                if self.expired_pages > 2 {
                    self.page = 0;
                }
            }
            let again = self.backoff.failures() > 0 || self.step != Step::Watch;
            self.backoff_unless_first(again);
            return self.restart();
        }
        // `k8s.io/apiserver/pkg/storage/errors.go`, NewTooLargeResourceVersionError.
        if status.has_cause("ResourceVersionTooLarge") {
            self.too_large += 1;
            if self.too_large > 4 {
                // The server will never get there: its store was restored to an earlier state.
                self.too_large = 0;
                self.restart();
            }
        }
        match code {
            // The server knows the parameters and forbids them, or does not know them: 422 without
            // the WatchList gate (`meta/internalversion/validation/validation.go`).
            400 | 422 if self.step == Step::WatchList => {
                self.no_watch_list = true;
                self.restart();
                self.phase = Phase::Waiting(self.now);
            }
            406 | 415 if !self.only_json => {
                self.only_json = true;
                self.phase = Phase::Waiting(self.now);
            }
            _ => {
                let transient = matches!(code, 0 | 408 | 429 | 500..);
                let operation = match self.step {
                    Step::List => "list",
                    Step::WatchList | Step::Watch => "watch",
                };
                let operation = format!("{operation} {}", self.config.what);
                let error = ApiError::new(operation, status);
                if self.in_snapshot && self.step != Step::List || self.synthetic {
                    self.restart();
                }
                self.pause(Box::new(error).into(), retry_after, !transient);
            }
        }
    }

    fn backoff_unless_first(&mut self, again: bool) {
        let delay = self.backoff.next();
        let delay = if again { delay } else { Duration::ZERO };
        self.phase = Phase::Waiting(self.now + delay);
    }

    /// All items of a page have been handed out.
    fn page_done(&mut self) {
        let phase = std::mem::replace(&mut self.phase, Phase::Waiting(self.now));
        let Phase::Listed { list, .. } = phase else {
            return;
        };
        let list = *list;
        self.ended = None;
        let shard = self.config.shard.as_ref();
        self.sharded = shard.is_some_and(|shard| shard.to_selector() == list.shard_selector);
        if !list.continue_token.is_empty() {
            self.continue_token = list.continue_token;
            return;
        }
        self.snapshot_complete(list.resource_version);
        self.step = Step::Watch;
    }

    fn snapshot_complete(&mut self, resource_version: String) {
        self.in_snapshot = false;
        self.continue_token.clear();
        self.expired_pages = 0;
        self.broken_snapshots = 0;
        self.too_large = 0;
        self.synthetic = is_unversioned(&resource_version);
        self.resource_version.clone_from(&resource_version);
        self.updates.push_back(Update::SnapshotEnd {
            resource_version,
            sharded: self.sharded,
        });
    }

    /// What an event means for the watch, and whether it is passed on.
    fn event(&mut self, event: Event) -> Option<Update> {
        if event.event_type == EventType::Error {
            match event.object.status() {
                Ok(status) => self.refused(status, None),
                Err(error) => self.broken(error),
            }
            return None;
        }
        let version = match event.object.metadata().and_then(|m| {
            let version = m.resource_version()?.into_owned();
            let end = event.event_type == EventType::Bookmark
                && m.annotations()?.get(INITIAL_EVENTS_END)?.as_deref() == Some("true");
            Ok((version, end))
        }) {
            Ok(version) => version,
            Err(error) => {
                self.broken(error);
                return None;
            }
        };
        let (version, initial_events_end) = version;
        match event.event_type {
            EventType::Bookmark => return self.bookmark(version, initial_events_end),
            EventType::Added | EventType::Modified | EventType::Deleted => {}
            _ => return Some(Update::Event(event)),
        }
        if !self.in_snapshot {
            // What a watch without a version begins with comes in no order of versions
            // (kubernetes/kubernetes#49745); the first other event ends that.
            if event.event_type != EventType::Added {
                self.synthetic = false;
            }
            if !self.synthetic && !version.is_empty() {
                self.resource_version = version;
            }
            self.progressed();
        }
        self.is_mine(&event.object).then_some(Update::Event(event))
    }

    fn bookmark(&mut self, version: String, initial_events_end: bool) -> Option<Update> {
        self.bookmarks = true;
        if self.in_snapshot {
            if initial_events_end && self.step == Step::WatchList {
                self.snapshot_complete(version);
                self.step = Step::Watch;
                self.progress = true;
            }
            return None;
        }
        if let (Ok(known), Ok(new)) = (self.resource_version.parse::<u64>(), version.parse::<u64>())
            && new < known
            && !self.synthetic
        {
            // The server's store was restored to an earlier state: what is known is of a future
            // that did not happen.
            self.restart();
            self.wait(self.backoff.failures() > 0);
            return None;
        }
        self.synthetic = false;
        self.resource_version.clone_from(&version);
        self.progressed();
        Some(Update::Bookmark {
            resource_version: version,
        })
    }

    fn progressed(&mut self) {
        self.progress = true;
        self.too_large = 0;
        self.backoff.reset();
    }

    fn is_mine(&self, object: &Object) -> bool {
        let shard = self.config.shard.as_ref();
        shard.is_none_or(|shard| shard.contains(object).unwrap_or(true))
    }

    /// When the silence of the response at hand becomes death.
    fn silence_ends(&self) -> Option<Instant> {
        if self.held {
            return None;
        }
        let silence = match self.phase {
            Phase::Waiting(_) => return None,
            // Servers send the head of a watch before they have an event for it.
            Phase::Requested
            | Phase::Refused { .. }
            | Phase::Paging { .. }
            | Phase::Listed { .. } => limits::ANSWER,
            Phase::Streaming(_) => self.longest_silence(),
        };
        Some(self.last_byte + silence)
    }

    fn longest_silence(&self) -> Duration {
        let mut silence = self.timeout + limits::WATCH_SLACK;
        if self.step == Step::WatchList && self.in_snapshot {
            silence = silence.min(limits::SNAPSHOT_SILENCE);
        }
        if self.bookmarks {
            silence = silence.min(limits::WATCH_SILENCE);
        }
        silence
    }

    fn request(&self) -> Request {
        let position = query::Position {
            step: self.step,
            resource_version: &self.resource_version,
            continue_token: &self.continue_token,
            page: self.page,
            timeout: self.timeout,
            only_json: self.only_json,
        };
        query::request(&self.config, position)
    }
}

/// The request of a single watch from `resource_version`, or from nowhere if that is empty.
pub fn single(config: &WatchConfig, resource_version: &str) -> Request {
    let position = query::Position {
        step: Step::Watch,
        resource_version,
        continue_token: "",
        page: 0,
        timeout: config.timeout,
        only_json: false,
    };
    query::request(config, position)
}

/// The annotation of the bookmark behind the initial events
/// (`k8s.io/apimachinery/pkg/apis/meta/v1/types.go`, `InitialEventsAnnotationKey`).
const INITIAL_EVENTS_END: &str = "k8s.io/initial-events-end";

/// The history before a version is gone: 410, whose reason was `Gone` before Kubernetes 1.17.
pub fn is_expired(status: &Status) -> bool {
    status.code == 410 || matches!(status.reason.as_str(), "Expired" | "Gone")
}

/// A watch from here begins with events that the server makes up.
fn is_unversioned(resource_version: &str) -> bool {
    matches!(resource_version, "" | "0")
}

#[cfg(test)]
mod tests;

//! The watch as its driver sees it: requests out, responses in, updates out.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use bytes::Bytes;

use super::{Request, Source, Update, WatchConfig, is_unversioned, query};
use crate::{
    error::{Error, PeerError},
    limits,
    session::{
        Exchange, Head, Message,
        requests::{Grant, Phase, Requests},
    },
    wire::watch::{Encoding, Event, EventType, List, ListDecoder},
};

/// What is asked for next, is under way, or has its answer at hand.
#[derive(Debug)]
pub(super) enum State {
    /// A snapshot as the beginning of a watch.
    WatchList,
    /// A snapshot page by page.
    List {
        /// That of the next page; empty for the first.
        continue_token: String,
    },
    /// What changes from a version on.
    Watch {
        /// Before it is a version (see [`is_unversioned`]), events show no order: they are what
        /// a watch without a version begins with.
        resource_version: String,
        /// How often in a row the server said that it has not got there yet.
        behind: u32,
    },
}

/// How far an answer has been read.
#[derive(Debug)]
pub(super) enum Answer {
    /// A page arrives, and is handed out as it does.
    Paging(Box<ListDecoder>),
    /// A page has arrived whole, and its last items are handed out.
    Listed {
        rest: Box<ListDecoder>,
        list: Box<List>,
    },
    Streaming {
        source: Source,
        /// What they brought lasts: the next watch goes on behind it.
        progress: bool,
    },
}

impl Answer {
    fn streaming(source: Source) -> Self {
        Self::Streaming {
            source,
            progress: false,
        }
    }
}

#[derive(Debug)]
pub(super) struct Snapshots {
    /// As part of a watch, unless the server has been found not to.
    pub(super) watch_list: bool,
    /// Objects of a page; 0 for all.
    pub(super) page: usize,
    /// Pages of the list at hand that named another.
    pub(super) pages: u32,
    /// Pages that expired before their turn, in a row.
    pub(super) expired_pages: u32,
    /// Snapshots that broke off before they were complete, in a row.
    pub(super) broken: u32,
}

/// The state of a continuous watch. See [the module](super).
///
/// ```
/// use kubewire::{
///     session::{Exchange as _, Head, watch::{Request, Watch, WatchConfig}},
///     watch::Update,
/// };
/// use std::time::Instant;
///
/// let now = Instant::now();
/// let config = WatchConfig { from: Some("41".into()), ..WatchConfig::default() };
/// let mut watch = Watch::new(config, now, 7);
/// let request: Option<Request> = watch.poll_request(now);
/// let request = request.expect("a watch from version 41"); // which its driver makes
/// assert!(request.is_watch && request.query.contains(&("resourceVersion", "41".into())));
///
/// let json = Some("application/json");
/// watch.handle_head(now, Head { status: 200, content_type: json, ..Head::default() });
/// let event = r#"{"type":"ADDED","object":{"metadata":{"name":"a","resourceVersion":"42"}}}"#;
/// watch.handle_body(now, format!("{event}\n").into());
/// assert!(matches!(watch.poll_update(), Some(Update::Event(_))));
/// assert_eq!(watch.resource_version(), "42"); // where it goes on after a cut
/// ```
#[derive(Debug)]
pub struct Watch {
    pub(super) config: WatchConfig,
    pub(super) requests: Requests<Answer>,
    pub(super) state: State,
    pub(super) snapshots: Snapshots,
    pub(super) updates: VecDeque<Update>,
    /// The rights to `list` and to `watch`.
    pub(super) lists: Grant,
    pub(super) watches: Grant,
    /// The end of the watch at hand, as asked of the server.
    timeout: Duration,
    /// The server was seen to send bookmarks.
    pub(super) bookmarks: bool,
    pub(super) encoding: Encoding,
}

impl Watch {
    /// A watch that makes its first request at once. `seed` decides all that is random.
    pub fn new(config: WatchConfig, now: Instant, seed: u64) -> Self {
        let snapshots = Snapshots {
            watch_list: config.wants_watch_list(),
            page: config.page,
            pages: 0,
            expired_pages: 0,
            broken: 0,
        };
        let state = match &config.from {
            None => snapshots.first(),
            Some(from) => State::Watch {
                resource_version: from.clone(),
                behind: 0,
            },
        };
        Self {
            requests: Requests::new(now, seed),
            state,
            snapshots,
            updates: VecDeque::new(),
            lists: Grant::default(),
            watches: Grant::default(),
            timeout: Duration::ZERO,
            bookmarks: false,
            encoding: config.encoding,
            config,
        }
    }

    /// Whether the server was found not to know watch-list for this resource, which is worth
    /// remembering for the next watch of it.
    pub fn lacks_watch_list(&self) -> bool {
        !self.snapshots.watch_list && self.config.wants_watch_list()
    }

    /// Where a new watch could go on; empty while there is no complete snapshot.
    pub fn resource_version(&self) -> &str {
        match &self.state {
            State::Watch {
                resource_version, ..
            } if !is_unversioned(resource_version) => resource_version,
            _ => "",
        }
    }

    /// The right that the request at hand needs.
    pub(super) fn grant(&mut self) -> &mut Grant {
        match self.state {
            State::List { .. } => &mut self.lists,
            State::WatchList | State::Watch { .. } => &mut self.watches,
        }
    }

    /// Whether all objects have to be fetched again if this answer ends now.
    pub(super) fn is_incomplete(&self) -> bool {
        self.resource_version().is_empty()
    }

    /// The silence of the response at hand that is death.
    fn longest_silence(&self) -> Duration {
        // Servers send the head of a watch before they have an event for it.
        if !matches!(self.requests.phase, Phase::Answer(Answer::Streaming { .. })) {
            return limits::ANSWER;
        }
        let mut silence = self.timeout.saturating_add(limits::WATCH_SLACK);
        if let State::WatchList = self.state {
            silence = silence.min(limits::SNAPSHOT_SILENCE);
        }
        if self.bookmarks {
            silence = silence.min(limits::WATCH_SILENCE);
        }
        silence
    }
}

impl Snapshots {
    /// What to ask for in order to have all objects.
    pub(super) fn first(&self) -> State {
        match self.watch_list {
            true => State::WatchList,
            false => State::List {
                continue_token: String::new(),
            },
        }
    }
}

impl Exchange for Watch {
    type Request = Request;
    type Update = Update;

    fn poll_request(&mut self, now: Instant) -> Option<Request> {
        if !self.requests.is_due(now) || !self.updates.is_empty() {
            return None;
        }
        self.requests.begin(now);
        let begins = match &self.state {
            State::WatchList => true,
            State::List { continue_token } => continue_token.is_empty(),
            State::Watch { .. } => false,
        };
        if begins {
            self.updates.push_back(Update::SnapshotBegin);
        }
        let timeout = self.config.timeout;
        self.timeout = timeout.saturating_add(self.requests.within(timeout));
        let position = query::Position {
            state: &self.state,
            page: self.snapshots.page,
            timeout: self.timeout,
            encoding: self.encoding,
        };
        Some(query::request(&self.config, position))
    }

    fn handle_head(&mut self, now: Instant, head: Head<'_>) {
        if !self.requests.head(now) {
            return;
        }
        let bound = self.config.max_event;
        let is_list = matches!(self.state, State::List { .. });
        if head.status == 101 && !is_list {
            self.watches = Grant::Given;
            let source = Source::messages(self.config.encoding, bound);
            self.requests.phase = Phase::Answer(Answer::streaming(source));
            return;
        }
        if head.status != 200 {
            return self.requests.refuse(head);
        }
        *self.grant() = Grant::Given;
        let Some(encoding) = head.content_type.and_then(Encoding::from_content_type) else {
            let found = head.content_type.unwrap_or("none").to_owned();
            let error = PeerError::ContentType { found }.into();
            return self.pause(error, None, true);
        };
        self.requests.phase = Phase::Answer(match is_list {
            true => {
                let page = ListDecoder::with_bounds(encoding, bound, self.config.max_page);
                Answer::Paging(Box::new(page))
            }
            false => Answer::streaming(Source::body(encoding, bound)),
        });
    }

    fn handle_body(&mut self, now: Instant, chunk: Bytes) {
        match self.requests.body(now, chunk) {
            Some((Answer::Streaming { source, .. }, chunk)) => source.push(chunk),
            Some((Answer::Paging(page), chunk)) => page.push(chunk),
            Some((Answer::Listed { .. }, _)) | None => {}
        }
    }

    fn handle_message(&mut self, now: Instant, message: Message) {
        if let Some((Answer::Streaming { source, .. }, _)) = self.requests.body(now, Bytes::new()) {
            source.push_message(message);
        }
    }

    fn handle_end(&mut self, now: Instant, error: Option<Error>) {
        self.requests.end(now, error);
    }

    fn handle_hold(&mut self, now: Instant, held: bool) {
        self.requests.hold(now, held);
    }

    fn handle_timeout(&mut self, now: Instant) {
        let Some(error) = self.requests.is_silent(now, Some(self.longest_silence())) else {
            return;
        };
        if let State::WatchList = self.state {
            // The server ignores what it does not know, or is too slow for it.
            self.snapshots.watch_list = false;
        }
        self.lost(error);
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.requests.deadline(Some(self.longest_silence()))
    }

    fn poll_update(&mut self) -> Option<Update> {
        loop {
            if let Some(update) = self.updates.pop_front() {
                return Some(update);
            }
            match &mut self.requests.phase {
                Phase::Answer(Answer::Streaming { source, .. }) => {
                    let event = source.next_event().transpose();
                    match event.map(|event| self.event(event?)) {
                        Some(Ok(Some(update))) => return Some(update),
                        Some(Ok(None)) => continue,
                        Some(Err(error)) => {
                            self.broken(error);
                            continue;
                        }
                        None => {}
                    }
                }
                Phase::Answer(Answer::Paging(page) | Answer::Listed { rest: page, .. }) => {
                    match page.next_item() {
                        Ok(Some(object)) if self.is_mine(&object) => {
                            let event_type = EventType::Added;
                            return Some(Update::Event(Event { event_type, object }));
                        }
                        Ok(Some(_)) => continue,
                        Err(error) => {
                            self.page_broken(error);
                            continue;
                        }
                        Ok(None) => {}
                    }
                    if let Phase::Answer(Answer::Listed { .. }) = self.requests.phase {
                        self.page_done();
                        continue;
                    }
                }
                _ => {}
            }
            let (phase, end) = self.requests.take_end()?;
            self.end(phase, end);
        }
    }

    fn wants_response(&self) -> bool {
        self.requests.wants_response()
    }
}

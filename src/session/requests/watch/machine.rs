//! The watch as its driver sees it: requests out, responses in, updates out.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use bytes::Bytes;

use super::{Head, Request, Source, Update, WatchConfig, is_unversioned, query};
use crate::{
    error::{Error, PeerError},
    limits,
    session::{
        Message,
        requests::{Phase, Requests},
    },
    wire::watch::{Encoding, Event, EventType, List, ListDecoder},
};

/// Which request is to be made, is under way, or has its response at hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    WatchList,
    List,
    Watch,
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
    /// Events arrive.
    Streaming(Source),
}

/// The state of a continuous watch. See [the contract](super).
#[derive(Debug)]
pub struct Watch {
    pub(super) config: WatchConfig,
    pub(super) requests: Requests<Answer>,
    pub(super) step: Step,
    /// The watch's own end, as asked of the server.
    pub(super) timeout: Duration,
    pub(super) updates: VecDeque<Update>,

    pub(super) resource_version: String,
    pub(super) continue_token: String,
    pub(super) page: usize,
    pub(super) in_snapshot: bool,
    /// Events show no order of versions: they are what a watch without a version begins with.
    pub(super) synthetic: bool,
    /// The response at hand brought an event.
    pub(super) progress: bool,
    pub(super) bookmarks: bool,
    pub(super) sharded: bool,
    pub(super) no_watch_list: bool,
    pub(super) only_json: bool,
    /// Pages that expired before their turn, in a row.
    pub(super) expired_pages: u32,
    /// Snapshots that broke off before they were complete, in a row.
    pub(super) broken_snapshots: u32,
    pub(super) too_large: u32,
}

impl Watch {
    /// A watch that makes its first request at once. `seed` decides all that is random.
    pub fn new(config: WatchConfig, now: Instant, seed: u64) -> Self {
        let mut watch = Self {
            no_watch_list: !config.wants_watch_list(),
            resource_version: config.from.clone().unwrap_or_default(),
            page: config.page,
            config,
            requests: Requests::new(now, seed),
            step: Step::Watch,
            timeout: Duration::ZERO,
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
        self.no_watch_list && self.config.wants_watch_list()
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
        if !self.requests.head(now) {
            return;
        }
        let bound = self.config.max_event;
        if head.status == 101 && self.step != Step::List {
            let source = Source::messages(self.config.encoding, bound);
            self.requests.phase = Phase::Answer(Answer::Streaming(source));
            return;
        }
        if head.status != 200 {
            return self.requests.refuse(head);
        }
        let Some(encoding) = head.content_type.and_then(Encoding::from_content_type) else {
            let found = head.content_type.unwrap_or("none").to_owned();
            let error = PeerError::ContentType { found }.into();
            return self.pause(error, None, true);
        };
        self.requests.phase = Phase::Answer(match self.step {
            Step::List => {
                let page = ListDecoder::with_bounds(encoding, bound, self.config.max_page);
                Answer::Paging(Box::new(page))
            }
            Step::WatchList | Step::Watch => Answer::Streaming(Source::body(encoding, bound)),
        });
    }

    /// Takes the next chunk of the body.
    pub fn handle_body(&mut self, now: Instant, chunk: Bytes) {
        match self.requests.body(now, chunk) {
            Some((Answer::Streaming(source), chunk)) => source.push(chunk),
            Some((Answer::Paging(page), chunk)) => page.push(chunk),
            Some((Answer::Listed { .. }, _)) | None => {}
        }
    }

    /// Takes the next message with data of the WebSocket that was opened.
    pub fn handle_message(&mut self, now: Instant, message: Message) {
        if let Some((Answer::Streaming(source), _)) = self.requests.body(now, Bytes::new()) {
            source.push_message(message);
        }
    }

    /// Takes the end of the response: in order, or because of an error.
    pub fn handle_end(&mut self, now: Instant, error: Option<Error>) {
        self.requests.end(now, error);
    }

    /// Takes note that the driver has stopped, or again begun, to take bytes from the network,
    /// because nobody takes the updates. No silence is counted meanwhile.
    pub fn handle_hold(&mut self, now: Instant, held: bool) {
        self.requests.hold(now, held);
    }

    /// Does what is due at `now`. Calling it too early does nothing.
    pub fn handle_timeout(&mut self, now: Instant) {
        let Some(error) = self.requests.is_silent(now, Some(self.longest_silence())) else {
            return;
        };
        if self.step == Step::WatchList && self.in_snapshot {
            // The server ignores what it does not know, or is too slow for it.
            self.no_watch_list = true;
        }
        self.lost(error);
    }

    /// When to call [`handle_timeout`](Self::handle_timeout) and to ask for requests next.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.requests.deadline(Some(self.longest_silence()))
    }

    /// The request to make now, if any.
    pub fn poll_request(&mut self, now: Instant) -> Option<Request> {
        if !self.requests.is_due(now) || !self.updates.is_empty() {
            return None;
        }
        self.requests.begin(now);
        self.progress = false;
        if self.step == Step::WatchList || self.step == Step::List && self.continue_token.is_empty()
        {
            self.updates.push_back(Update::SnapshotBegin);
            self.in_snapshot = true;
        }
        self.timeout = self.config.timeout + self.requests.backoff.within(self.config.timeout);
        Some(self.request())
    }

    /// Whether the response at hand is still of use.
    pub fn wants_response(&self) -> bool {
        self.requests.wants_response()
    }

    /// The next update.
    pub fn poll_update(&mut self) -> Option<Update> {
        loop {
            if let Some(update) = self.updates.pop_front() {
                return Some(update);
            }
            match &mut self.requests.phase {
                Phase::Answer(Answer::Streaming(source)) => match source.next_event() {
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
            let (phase, error) = self.requests.take_end()?;
            self.end(phase, error);
        }
    }

    /// The silence of the response at hand that is death.
    fn longest_silence(&self) -> Duration {
        // Servers send the head of a watch before they have an event for it.
        if !matches!(self.requests.phase, Phase::Answer(Answer::Streaming(_))) {
            return limits::ANSWER;
        }
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

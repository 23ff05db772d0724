//! What answers mean: where the watch stands after each, and what is asked next.

use std::time::Duration;

use super::{
    INITIAL_EVENTS_END, Update, is_expired, is_unversioned,
    machine::{Answer, Step, Watch},
};
use crate::{
    error::{ApiError, Error, PeerError},
    limits,
    session::requests::{Phase, cut_off, patience},
    wire::{
        status::Status,
        watch::{Event, EventError, EventType, Object},
    },
};

impl Watch {
    /// The body is all there, or lost.
    pub(super) fn end(&mut self, phase: Phase<Answer>, error: Option<Error>) {
        if self.step == Step::Watch && self.requests.lasted() >= limits::WATCH_PROVEN {
            self.requests.backoff.reset();
        }
        match phase {
            Phase::Waiting(_) | Phase::Done => {}
            Phase::Refused(refusal) => {
                let (status, retry_after) = refusal.into_status();
                self.refused(status, retry_after);
            }
            Phase::Answer(Answer::Paging(mut page)) => match (error, page.finish()) {
                (Some(error), _) => self.lost(error),
                (None, Ok(list)) => {
                    if let Some(object) = page.table() {
                        let event_type = EventType::Added;
                        let event = Event { event_type, object };
                        self.updates.push_back(Update::Event(event));
                    }
                    self.requests.phase = Phase::Answer(Answer::Listed {
                        rest: page,
                        list: Box::new(list),
                    });
                }
                (None, Err(error)) => self.page_broken(error),
            },
            Phase::Answer(Answer::Streaming(mut source)) => {
                // An end in order and a cut differ in nothing: API servers end a watch without a
                // word, and all that counts is how far it came.
                let cut = source.finish().err().map(|e| PeerError::from(e).into());
                match error.or(cut) {
                    Some(error) => self.lost(error),
                    None => self.watch_over(),
                }
            }
            Phase::Requested | Phase::Answer(Answer::Listed { .. }) => {
                self.lost(error.unwrap_or_else(cut_off));
            }
        }
    }

    /// A watch ended in order.
    fn watch_over(&mut self) {
        let short = self.requests.lasted() < Duration::from_secs(1);
        if self.in_snapshot || self.synthetic {
            self.snapshot_broke();
            self.requests.wait(short);
        } else {
            self.requests.wait(short && !self.progress);
        }
    }

    /// The response was lost; what it brought before counts.
    pub(super) fn lost(&mut self, error: Error) {
        if self.in_snapshot || self.synthetic {
            self.snapshot_broke();
        } else if self.progress {
            return self.requests.wait(false);
        }
        self.pause(error, None, false);
    }

    /// A page cannot be read. Where it is too large, smaller ones are asked for.
    pub(super) fn page_broken(&mut self, error: EventError) {
        if matches!(error, EventError::TooLarge { .. }) && self.page > 1 {
            self.page /= 2;
        }
        self.broken(error);
    }

    pub(super) fn broken(&mut self, error: EventError) {
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
    pub(super) fn pause(&mut self, error: Error, retry_after: Option<Duration>, refused: bool) {
        let retry_in = self.requests.pause(retry_after);
        self.updates.push_back(Update::Trouble {
            error,
            retry_in,
            refused,
        });
    }

    /// All objects are to be fetched.
    pub(super) fn restart(&mut self) {
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
            let again = self.requests.backoff.failures() > 0 || self.step != Step::Watch;
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
                self.requests.wait(false);
            }
            406 | 415 if !self.only_json => {
                self.only_json = true;
                self.requests.wait(false);
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
        let delay = self.requests.backoff.next();
        self.requests
            .wait_for(if again { delay } else { Duration::ZERO });
    }

    /// All items of a page have been handed out.
    pub(super) fn page_done(&mut self) {
        let Phase::Answer(Answer::Listed { list, .. }) = self.requests.next_page() else {
            return;
        };
        let list = *list;
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
    pub(super) fn event(&mut self, event: Event) -> Option<Update> {
        if event.event_type == EventType::Error {
            match event.object.status() {
                Ok(status) => {
                    let retry_after = patience(&status);
                    self.refused(status, retry_after);
                }
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
            self.requests.wait(self.requests.backoff.failures() > 0);
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
        self.requests.backoff.reset();
    }

    pub(super) fn is_mine(&self, object: &Object) -> bool {
        let shard = self.config.shard.as_ref();
        shard.is_none_or(|shard| shard.contains(object).unwrap_or(true))
    }
}

//! What answers mean: where the watch stands after each, and what is asked next.

use std::time::Duration;

use super::{
    INITIAL_EVENTS_END, Update, is_expired, is_unversioned,
    machine::{Answer, State, Watch},
};
use crate::{
    error::{Error, NetworkError, PeerError},
    limits,
    session::requests::{Phase, patience},
    wire::{
        status::Status,
        watch::{Encoding, Event, EventError, EventType, Object},
    },
};

impl Watch {
    /// The body is all there, or lost.
    pub(super) fn end(&mut self, phase: Phase<Answer>, end: Result<(), Error>) {
        match phase {
            Phase::Waiting(_) | Phase::Done => {}
            Phase::Refused(refusal) => {
                let (status, retry_after) = refusal.into_status();
                self.refused(status, retry_after);
            }
            Phase::Answer(Answer::Paging(mut page)) => match (end, page.finish()) {
                (Err(error), _) => self.lost(error),
                (Ok(()), Ok(list)) => {
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
                (Ok(()), Err(error)) => self.page_broken(error),
            },
            Phase::Answer(Answer::Streaming {
                mut source,
                progress,
            }) => {
                // An end in order and a cut differ in nothing: API servers end a watch without a
                // word, and all that counts is how far it came.
                let whole = source.finish().map_err(|e| PeerError::from(e).into());
                match end.and(whole) {
                    Err(error) => self.lost_after(error, progress),
                    Ok(()) => {
                        if self.is_incomplete() {
                            self.snapshot_broke();
                        }
                        self.requests.resume();
                    }
                }
            }
            Phase::Requested | Phase::Answer(Answer::Listed { .. }) => {
                match end.err().unwrap_or_else(Error::cut) {
                    Error::Peer(error) if error.is_of_whole_answer() => {
                        self.pause(error.into(), None, true);
                    }
                    error @ (Error::Caller(_)
                    | Error::Network(NetworkError::Certificate { .. })) => {
                        self.pause(error, None, true);
                    }
                    error if self.lists.is_hopeless(&error) && self.watches.is_hopeless(&error) => {
                        self.pause(error, None, true);
                    }
                    error => self.lost(error),
                }
            }
        }
    }

    /// The response is lost; what it brought before counts.
    pub(super) fn lost(&mut self, error: Error) {
        let progress = matches!(
            self.requests.over(),
            Phase::Answer(Answer::Streaming { progress: true, .. })
        );
        self.lost_after(error, progress);
    }

    fn lost_after(&mut self, error: Error, progress: bool) {
        if self.is_incomplete() {
            self.snapshot_broke();
        } else if progress {
            self.requests.resume();
            return;
        }
        self.pause(error, None, false);
    }

    /// A page cannot be read. Where it is too large, smaller ones are asked for.
    pub(super) fn page_broken(&mut self, error: EventError) {
        if matches!(error, EventError::TooLarge { .. }) {
            self.snapshots.page = match self.snapshots.page {
                0 => limits::LIST_PAGE,
                page => (page / 2).max(1),
            };
        }
        self.broken(error);
    }

    pub(super) fn broken(&mut self, error: EventError) {
        self.lost(PeerError::from(error).into());
    }

    /// Before the snapshot was complete: it begins anew.
    fn snapshot_broke(&mut self) {
        self.snapshots.broken = self.snapshots.broken.saturating_add(1);
        if matches!(self.state, State::WatchList) && self.snapshots.broken > 2 {
            self.snapshots.watch_list = false;
        }
        self.restart();
    }

    /// Waits before the next attempt, and says why.
    pub(super) fn pause(&mut self, error: Error, retry_after: Option<Duration>, refused: bool) {
        let now = self.requests.now();
        let refused = !self.grant().may_pass(now, &error) && refused;
        let retry_in = self.requests.pause(retry_after);
        self.updates.push_back(Update::Retrying {
            error,
            retry_in,
            refused,
        });
    }

    /// All objects are to be fetched.
    fn restart(&mut self) {
        self.snapshots.pages = 0;
        self.state = self.snapshots.first();
    }

    /// The server refused, with an HTTP code or in the stream.
    fn refused(&mut self, status: Status, retry_after: Option<Duration>) {
        let code = status.code;
        if is_expired(&status) {
            match &self.state {
                State::Watch { .. } => {
                    self.requests.resume();
                }
                State::WatchList => {
                    self.requests.pause(retry_after);
                }
                State::List { continue_token } => {
                    if !continue_token.is_empty() {
                        // The pages outlived the history; the next attempt takes larger ones.
                        let snapshots = &mut self.snapshots;
                        snapshots.expired_pages = snapshots.expired_pages.saturating_add(1);
                        snapshots.page = snapshots.page.saturating_mul(4);
                        if snapshots.expired_pages > 2 {
                            snapshots.page = 0;
                        }
                    }
                    self.requests.pause(retry_after);
                }
            }
            return self.restart();
        }
        // `k8s.io/apiserver/pkg/storage/errors.go`, NewTooLargeResourceVersionError.
        if let State::Watch { behind, .. } = &mut self.state
            && status.has_cause("ResourceVersionTooLarge")
        {
            *behind += 1;
            if *behind > 4 {
                // The server will never get there: its store was restored to an earlier state.
                self.restart();
            }
        }
        match (code, &self.state) {
            // The server knows the parameters and forbids them, or does not know them: 422 without
            // the WatchList gate (`meta/internalversion/validation/validation.go`).
            (400 | 422, State::WatchList) => {
                self.snapshots.watch_list = false;
                self.restart();
                self.requests.go_on();
            }
            (406 | 415, _) if self.encoding != Encoding::Json => {
                self.encoding = Encoding::Json;
                self.requests.go_on();
            }
            (_, state) => {
                let transient = matches!(code, 0 | 408 | 429 | 500..);
                let operation = match state {
                    State::List { .. } => "list",
                    State::WatchList | State::Watch { .. } => "watch",
                };
                let operation = format!("{operation} {}", self.config.what);
                let error = self.requests.refusal(operation, status);
                if self.is_incomplete() && !matches!(self.state, State::List { .. }) {
                    self.restart();
                }
                self.pause(error, retry_after, !transient);
            }
        }
    }

    /// All items of a page have been handed out.
    pub(super) fn page_done(&mut self) {
        let Phase::Answer(Answer::Listed { list, .. }) = self.requests.over() else {
            return;
        };
        let next = list.continue_token;
        if !next.is_empty() {
            self.snapshots.pages += 1;
            let again =
                matches!(&self.state, State::List { continue_token } if *continue_token == next);
            if again || self.snapshots.pages > limits::LIST_PAGES {
                let error = PeerError::endless(format!("list {}", self.config.what));
                self.snapshot_broke();
                return self.pause(error.into(), None, false);
            }
            self.state = State::List {
                continue_token: next,
            };
            return;
        }
        let shard = self.config.shard.as_ref();
        let sharded = shard.is_some_and(|shard| shard.to_selector() == list.shard_selector);
        self.snapshot_complete(list.resource_version, sharded);
    }

    fn snapshot_complete(&mut self, resource_version: String, sharded: bool) {
        self.snapshots.expired_pages = 0;
        self.snapshots.broken = 0;
        self.state = State::Watch {
            resource_version: resource_version.clone(),
            behind: 0,
        };
        self.updates.push_back(Update::SnapshotEnd {
            resource_version,
            sharded,
        });
    }

    /// What an event means for the watch, and whether it is passed on.
    pub(super) fn event(&mut self, event: Event) -> Result<Option<Update>, EventError> {
        match event.event_type {
            EventType::Error => {
                let status = event.object.status()?;
                let retry_after = patience(&status);
                self.refused(status, retry_after);
                return Ok(None);
            }
            EventType::Bookmark => {
                let metadata = event.object.metadata()?;
                let end = metadata.annotations()?.get(INITIAL_EVENTS_END)?;
                let version = metadata.resource_version()?;
                return Ok(self.bookmark(&version, end.as_deref() == Some("true")));
            }
            EventType::Added | EventType::Modified | EventType::Deleted => {}
            _ => return Ok(Some(Update::Event(event))),
        }
        // Versions say nothing before a snapshot is complete.
        if let State::Watch {
            resource_version, ..
        } = &self.state
        {
            let version = event.object.metadata()?.resource_version()?;
            // What a watch without a version begins with comes in no order of versions
            // (kubernetes/kubernetes#49745); the first other event ends that.
            let unordered =
                is_unversioned(resource_version) && event.event_type == EventType::Added;
            self.progressed((!unordered && !version.is_empty()).then_some(&version));
        }
        Ok(self.is_mine(&event.object).then_some(Update::Event(event)))
    }

    fn bookmark(&mut self, version: &str, initial_events_end: bool) -> Option<Update> {
        self.bookmarks = true;
        let State::Watch {
            resource_version, ..
        } = &self.state
        else {
            if initial_events_end {
                self.snapshot_complete(version.to_owned(), false);
                self.progressed(None);
            }
            return None;
        };
        if version.is_empty() {
            // It says nothing, and must not take the place of the version that is known.
            return None;
        }
        if let (Ok(known), Ok(new)) = (resource_version.parse::<u64>(), version.parse::<u64>())
            && new < known
        {
            // The server's store was restored to an earlier state: what is known is of a future
            // that did not happen.
            self.restart();
            self.requests.resume();
            return None;
        }
        self.progressed(Some(version));
        Some(Update::Bookmark {
            resource_version: version.to_owned(),
        })
    }

    /// Events came, up to this version.
    fn progressed(&mut self, version: Option<&str>) {
        if let Phase::Answer(Answer::Streaming { progress, .. }) = &mut self.requests.phase {
            *progress = true;
        }
        if let State::Watch {
            resource_version,
            behind,
        } = &mut self.state
        {
            *behind = 0;
            if let Some(version) = version {
                version.clone_into(resource_version);
            }
        }
    }

    pub(super) fn is_mine(&self, object: &Object) -> bool {
        let shard = self.config.shard.as_ref();
        shard.is_none_or(|shard| shard.contains(object).unwrap_or(true))
    }
}

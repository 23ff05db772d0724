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

use std::time::Duration;

use crate::{
    error::Error,
    wire::{status::Status, watch::Event},
};

mod answers;
mod machine;
mod mirror;
mod query;
mod shard;
mod source;

pub(crate) use self::source::Source;
pub use self::{
    machine::Watch,
    mirror::{Change, Mirror, ObjectKey},
    query::{Form, WatchConfig},
    shard::{Shard, ShardField},
};
use machine::Step;

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

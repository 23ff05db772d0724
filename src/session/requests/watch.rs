//! A watch that never ends: which request to make next, and what its answer means.
//!
//! In flow the heads, bodies and ends of responses, and the time; out come requests to make and
//! [`Update`]s. Whoever applies every update to a copy has the server's state, whatever happens
//! to connections on the way.
//!
//! ```text
//!            +--> WatchList --snapshot complete--+
//!   start ---+       | 422, or never complete    v      end, cut, silence, 5xx: from the last
//!            |       v                         Watch --------+ resourceVersion; at once, unless
//!            +--> List, page by page ----------^ | ^         | answers end soon again and again
//!                                                | +---------+
//!   start again, from where it began  <--- 410 --+
//! ```
//!
//! A [`Watch`] is driven as [`Exchange`](crate::session::Exchange) says.

use std::time::Duration;

use crate::{
    error::Error,
    wire::{status::Status, watch::Event},
};

mod answers;
mod backlog;
mod condition;
mod index;
mod machine;
mod mirror;
mod query;
mod shard;
mod shared;
mod source;

pub(crate) use self::source::Source;
pub use self::{
    condition::Condition,
    machine::Watch,
    mirror::{Change, Mirror, ObjectKey},
    query::{Form, WatchConfig},
    shard::{Shard, ShardField},
    shared::{MirrorCursor, MirrorUpdate, SharedMirror},
};
use machine::State;

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

/// What a continuous watch says.
///
/// ```
/// # kubewire::example(|pod| pod.container("main", ["sh", "-c", "echo ready; sleep 600"]), async |client| {
/// use kubewire::watch::Update;
///
/// let pods = client.find("pods").await?.resource;
/// let mut updates = client.watch(pods).namespace("default").stream();
/// let mut names = Vec::new();
/// while let Some(update) = updates.next().await {
///     match update? {
///         Update::SnapshotBegin => names.clear(),
///         Update::Event(event) => names.push(event.object.metadata()?.name()?.into_owned()),
///         Update::SnapshotEnd { .. } => break, // these are all
///         Update::Retrying { error, retry_in, .. } => eprintln!("{error}; again in {retry_in:?}"),
///         _ => {}
///     }
/// }
/// assert_eq!(names, ["web-0"]);
/// # Ok(())
/// # });
/// ```
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
    Retrying {
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
            Self::Retrying {
                error,
                retry_in,
                refused,
            } => Update::Retrying {
                error,
                retry_in,
                refused,
            },
        }
    }
}

/// The request of a single watch from `resource_version`, or from nowhere if that is empty.
pub fn single(config: &WatchConfig, resource_version: &str) -> Request {
    let state = State::Watch {
        resource_version: resource_version.to_owned(),
        behind: 0,
    };
    let position = query::Position {
        state: &state,
        page: 0,
        timeout: config.timeout,
        encoding: config.encoding,
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

//! What to ask of the server: the options of a watch as queries.

use std::time::Duration;

use super::{Request, Shard, State};
use crate::{limits, session::requests::go_seconds, wire::watch::Encoding};

/// Which form of the objects to ask for.
///
/// ```
/// use kubewire::session::watch::{Form, WatchConfig};
///
/// let config = WatchConfig { form: Form::Metadata, ..WatchConfig::default() };
/// assert_ne!(config.form, Form::default());
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Form {
    /// The objects as they are.
    #[default]
    Object,
    /// Their metadata only, as `PartialObjectMetadata`.
    Metadata,
    /// What `kubectl get` prints. Always JSON.
    ///
    /// An event's object is a `Table` of one row; a snapshot is a list, and every page of it one
    /// [`Added`](crate::wire::watch::EventType::Added) event whose table has a row an object. Only
    /// the first table of a response names its columns
    /// (`k8s.io/apiserver/pkg/endpoints/handlers/response.go`). What a row is about its `object`
    /// says; [`Metadata`](crate::wire::watch::Metadata) of the event is the table's. An API
    /// server that knows no tables sends the objects themselves.
    Table,
}

/// What to watch, and how; [`Watch`](super::Watch) has an example.
#[derive(Debug, Clone)]
pub struct WatchConfig {
    /// What is watched, for errors: `pods in default`.
    pub what: String,
    /// Objects whose labels match; empty for all.
    pub label_selector: String,
    /// Objects whose fields match; empty for all.
    pub field_selector: String,
    /// A part of the objects (KEP-5866). Servers that do not know shards send all, and the rest
    /// is dropped on this side.
    pub shard: Option<Shard>,
    /// Go on from this version instead of beginning with a snapshot. `0` begins with whatever the
    /// server has at hand, without the marks of a snapshot.
    pub from: Option<String>,
    /// Which encoding to ask for first; JSON is always accepted too.
    pub encoding: Encoding,
    /// Which form of the objects to ask for.
    pub form: Form,
    /// Whether to ask for the snapshot as part of the watch, which spares the server memory
    /// (KEP-3157). Without, or where the server refuses it, the snapshot is a list in pages.
    pub watch_list: bool,
    /// How many objects to ask for at a time where the snapshot is a list; 0 for all at once.
    pub page: usize,
    /// How long the server is asked to keep one watch up; at random up to twice as long. No more
    /// than a `time.Duration` of Go holds is asked for: 292 years.
    pub timeout: Duration,
    /// Bytes of the largest event.
    pub max_event: usize,
    /// Bytes of the largest page.
    pub max_page: usize,
}

impl Default for WatchConfig {
    fn default() -> Self {
        Self {
            what: String::new(),
            label_selector: String::new(),
            field_selector: String::new(),
            shard: None,
            from: None,
            encoding: Encoding::Json,
            form: Form::Object,
            watch_list: true,
            page: limits::LIST_PAGE,
            timeout: limits::WATCH_TIMEOUT,
            max_event: limits::WATCH_EVENT,
            max_page: limits::LIST_BODY,
        }
    }
}

impl WatchConfig {
    /// Whether the snapshot is to be part of a watch. A table says in its row, not in its own
    /// metadata, that the initial events have ended; and servers confine lists to a shard.
    pub(super) fn wants_watch_list(&self) -> bool {
        self.watch_list && self.shard.is_none() && self.form != Form::Table
    }
}

pub(super) struct Position<'a> {
    pub(super) state: &'a State,
    pub(super) page: usize,
    pub(super) timeout: Duration,
    pub(super) encoding: Encoding,
}

pub(super) fn request(config: &WatchConfig, at: Position<'_>) -> Request {
    let mut query = Vec::new();
    let mut add = |name, value: &str| query.push((name, value.to_owned()));
    if !config.label_selector.is_empty() {
        add("labelSelector", &config.label_selector);
    }
    if !config.field_selector.is_empty() {
        add("fieldSelector", &config.field_selector);
    }
    if let Some(shard) = &config.shard {
        add("shardSelector", &shard.to_selector());
    }
    let is_watch = !matches!(at.state, State::List { .. });
    if is_watch {
        add("watch", "true");
        add("allowWatchBookmarks", "true");
        add("timeoutSeconds", &go_seconds(at.timeout).max(1).to_string());
    }
    match at.state {
        State::List { continue_token } => {
            if at.page > 0 {
                add("limit", &at.page.to_string());
            }
            if !continue_token.is_empty() {
                add("continue", continue_token);
            }
        }
        // `apimachinery/pkg/apis/meta/internalversion/validation/validation.go`: the two go
        // together, and no version means the latest.
        State::WatchList => {
            add("sendInitialEvents", "true");
            add("resourceVersionMatch", "NotOlderThan");
        }
        State::Watch {
            resource_version, ..
        } => {
            if !resource_version.is_empty() {
                add("resourceVersion", resource_version);
            }
        }
    }
    Request {
        query,
        accept: accept(config, is_watch, at.encoding),
        is_watch,
    }
}

fn accept(config: &WatchConfig, is_watch: bool, encoding: Encoding) -> String {
    // `k8s.io/apiserver/pkg/endpoints/handlers/negotiation/negotiate.go`: the first that the
    // server can serve wins; what follows `as` may be unknown to it.
    let form = match config.form {
        Form::Object => "",
        Form::Metadata if is_watch => ";as=PartialObjectMetadata;g=meta.k8s.io;v=v1",
        Form::Metadata => ";as=PartialObjectMetadataList;g=meta.k8s.io;v=v1",
        Form::Table => ";as=Table;g=meta.k8s.io;v=v1",
    };
    let mut accept = String::new();
    // Tables have no protobuf.
    if encoding != Encoding::Json && config.form != Form::Table {
        accept.push_str(encoding.media_type());
        if is_watch && encoding == Encoding::Protobuf {
            accept.push_str(";stream=watch");
        }
        accept.push_str(form);
        accept.push(',');
    }
    accept.push_str("application/json");
    accept.push_str(form);
    if !form.is_empty() && config.form == Form::Table {
        accept.push_str(",application/json");
    }
    accept
}

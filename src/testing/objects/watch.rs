//! Watches: in flows the request, out come events from the store until the client leaves, the time
//! is over or the history has been compacted.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use serde_json::json;
use tokio::time::{interval_at, sleep_until};

use super::{
    Query, expired, is_gzipped, response,
    store::{self, Change, Object},
};
use crate::{
    server::Refusal,
    session::later::later,
    testing::{
        answers::{
            encoding::{Document, gzip},
            messages::Opening,
            streaming::{self, BodyFault, Over, Writer},
        },
        kinds::rules,
        objects,
        requests::negotiation::Form,
        router::{self, Body, Cluster},
    },
    wire::status::Status,
};

/// So long before its end a watch has its last bookmark, or none if it is no longer
/// (`k8s.io/apiserver/pkg/storage/cacher/cache_watcher.go`, `nextBookmarkTime`).
const LAST: Duration = Duration::from_secs(2);

struct Watch {
    query: Query,
    /// The version up to which the client knows.
    version: u64,
    /// The version of the last bookmark.
    told: u64,
    /// Whether a table has named its columns.
    columns_sent: bool,
    /// Whether each event is a member of gzip.
    gzip: bool,
    writer: Writer,
}

pub(super) fn watch<B>(
    cluster: &Arc<Cluster>,
    query: Query,
    request: &mut Request<B>,
    fault: Option<BodyFault>,
) -> Result<Response<Body>, Refusal> {
    // Who asks for neither gets it too (`SetListOptionsDefaults`).
    let is_any = matches!(query.get("resourceVersion"), "" | "0");
    let initial = match query.get("sendInitialEvents") {
        "" => cluster.settings.watch_list && is_any,
        _ => query.is("sendInitialEvents"),
    };
    let is_refused = !initial && !query.get("sendInitialEvents").is_empty();
    objects::check(&query, cluster.settings.watch_list)?;
    let mut version = query.version()?.filter(|version| *version != 0);
    if is_refused {
        version = version.or(Some(cluster.store.version()));
    }
    let timeout = query.parameters.number("timeoutSeconds")?;
    let timeout = timeout.filter(|seconds| *seconds != 0).unwrap_or(1800);
    let timeout = Duration::from_secs(timeout.try_into().unwrap_or(0));
    let accepted = query.accepted;
    if matches!(accepted.form, Form::MetadataList(_)) || timeout.is_zero() {
        // No event can be turned into a list, or none is in time: such a watch ends without one.
        let body = router::body(Full::default());
        return Ok(response(accepted, true, body));
    }
    let socket = Opening::is_asked(request).then(|| Opening::of_watch(request, accepted.encoding));
    let socket = socket.transpose()?;
    let gzip = cluster.settings.watch_gzip && query.gzip && socket.is_none();
    let of_body = |body| response(accepted, true, body);
    let (writer, mut answer) = streaming::open(socket, fault, &cluster.tasks, of_body);
    if gzip {
        is_gzipped(&mut answer);
    }
    let mut watch = Watch {
        query,
        version: version.unwrap_or(0),
        told: version.unwrap_or(0),
        columns_sent: false,
        gzip,
        writer,
    };
    let of_cluster = cluster.clone();
    cluster.tasks.spawn(async move {
        let made_up = version.is_none() || initial;
        // However it ends: the client sees an end or what a fault made of it.
        let _ = watch.run(&of_cluster, made_up, initial, timeout).await;
    });
    Ok(answer)
}

impl Watch {
    async fn send(&mut self, event: &str, object: &Object) -> Result<(), Over> {
        let with_columns = !self.columns_sent;
        let document = self.query.document(object, with_columns);
        self.columns_sent = true;
        match document.encode_event(self.query.accepted.encoding, event) {
            Ok(bytes) => self.write(bytes).await,
            Err(refusal) => match refusal.status() {
                Some(status) => self.fail(status).await,
                None => Err(Over),
            },
        }
    }

    async fn write(&mut self, bytes: Bytes) -> Result<(), Over> {
        let bytes = if self.gzip { gzip(&bytes) } else { bytes };
        self.writer.write(bytes).await
    }

    /// Ends the watch with an error, which has the form of a Status whatever was asked for.
    async fn fail(&mut self, status: &Status) -> Result<(), Over> {
        let document = Document::status(status);
        if let Ok(bytes) = document.encode_event(self.query.accepted.encoding, "ERROR") {
            self.write(bytes).await?;
        }
        Err(Over)
    }

    async fn bookmark(&mut self, end: bool) -> Result<(), Over> {
        if !self.query.is("allowWatchBookmarks") {
            return Ok(());
        }
        let mut metadata = json!({"resourceVersion": self.version.to_string()});
        if end {
            metadata["annotations"] = json!({"k8s.io/initial-events-end": "true"});
        }
        // An empty object of the kind, as Go writes it.
        let name = self.query.target.kind.type_name();
        let mut json = name.map_or_else(|| json!({}), rules::empty);
        json["kind"] = self.query.target.kind.kind.clone().into();
        json["apiVersion"] = self.query.target.resource().api_version().into();
        json["metadata"] = metadata;
        let message = name.is_none().then(Bytes::new);
        self.told = self.version;
        self.send("BOOKMARK", &Object { json, message }).await
    }

    async fn run(
        &mut self,
        cluster: &Cluster,
        made_up: bool,
        initial: bool,
        timeout: Duration,
    ) -> Result<(), Over> {
        let mut versions = cluster.store.subscribe();
        if made_up {
            let target = &self.query.target;
            let (resource, namespace) = (target.resource(), target.in_namespace());
            let listed = cluster.store.list(resource, namespace, None);
            let (objects, version) = listed.unwrap_or_default();
            // By name and so in no order of versions, as the API server's cache gives them.
            for (_, object) in objects {
                if self.query.selects(&object.json) {
                    self.send("ADDED", &object).await?;
                }
            }
            self.version = version;
            if initial {
                self.bookmark(true).await?;
            }
        }
        let now = std::time::Instant::now();
        let end = later(now, timeout).into();
        let last = later(now, timeout.saturating_sub(LAST)).into();
        let mut is_told = timeout <= LAST;
        let period = cluster.settings.bookmarks;
        let mut bookmarks = interval_at(later(now, period).into(), period);
        loop {
            versions.mark_unchanged();
            match cluster.store.changes(self.version) {
                Ok((changes, version)) => {
                    for change in changes {
                        self.change(&change).await?;
                    }
                    self.version = version;
                }
                Err(compacted) => {
                    return self.fail(&expired(self.version, &compacted)).await;
                }
            }
            tokio::select! {
                changed = versions.changed() => changed.map_err(|_| Over)?,
                _ = bookmarks.tick() => self.bookmark(false).await?,
                () = sleep_until(last), if !is_told => {
                    is_told = true;
                    if self.told != self.version {
                        self.bookmark(false).await?;
                    }
                }
                () = sleep_until(end) => return Ok(()),
                () = self.writer.closed() => return Err(Over),
            }
        }
    }

    /// What a change is to this watch: an object may enter or leave its selection.
    async fn change(&mut self, change: &Change) -> Result<(), Over> {
        let target = &self.query.target;
        if !store::is_of(&change.key, target.resource(), target.in_namespace()) {
            return Ok(());
        }
        let before = change
            .before
            .as_ref()
            .is_some_and(|before| self.query.selects(&before.json));
        let after = !change.deleted && self.query.selects(&change.object.json);
        let event = match (before, after) {
            (false, false) => return Ok(()),
            (false, true) => "ADDED",
            (true, true) => "MODIFIED",
            (true, false) => "DELETED",
        };
        match &change.before {
            // Who sees it leave has not seen how: it is as it was, in the version of the change.
            Some(before) if event == "DELETED" => {
                let mut object = (**before).clone();
                let version = &change.object.json["metadata"]["resourceVersion"];
                object.json["metadata"]["resourceVersion"] = version.clone();
                self.send(event, &object).await
            }
            _ => self.send(event, &change.object).await,
        }
    }
}

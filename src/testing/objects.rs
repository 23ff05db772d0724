//! Objects, lists and watches: in flow requests for objects, out come answers from the store.
//!
//! As far as it goes it is `k8s.io/apiserver`: versions, selectors, pages, bookmarks, watch-list,
//! 410 for what has been compacted, in the encoding and form that the client accepts.

use std::{collections::HashMap, sync::Arc, time::Duration};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::Bytes;
use http::{
    HeaderValue, Request, Response,
    header::{ACCEPT, CONTENT_TYPE},
};
use http_body_util::Full;
use serde_json::{Value, json};
use tokio::time::{Instant, interval_at, sleep_until};

use super::{
    encoding::{self, Document},
    logs,
    negotiation::{self, Accepted, Form},
    router::{self, Body, Cluster},
    selector::{Requirement, selector},
    store::{Change, Compacted, Key, Object, key},
    streaming::{self, BodyFault, Over, Writer},
    table::{self, Include},
};
use crate::{
    Resource,
    server::Refusal,
    wire::status::{Status, StatusDetails},
};

/// What a request asks of objects.
struct Query {
    parameters: HashMap<String, String>,
    labels: Vec<Requirement>,
    fields: Vec<Requirement>,
    accepted: Accepted,
    include: Include,
}

impl Query {
    fn parse<B>(
        cluster: &Cluster,
        resource: &Resource,
        request: &Request<B>,
    ) -> Result<Self, Refusal> {
        let query = request.uri().query().unwrap_or_default();
        let decode = |text: &str| {
            let text = text.replace('+', " ");
            percent_encoding::percent_decode_str(&text)
                .decode_utf8_lossy()
                .into_owned()
        };
        let parameters: HashMap<_, _> = query
            .split('&')
            .filter_map(|pair| pair.split_once('='))
            .map(|(name, value)| (decode(name), decode(value)))
            .collect();
        let get = |name| parameters.get(name).map_or("", String::as_str);
        let include = Include::parse(get("includeObject")).ok_or_else(|| {
            Refusal::bad_request(format!(
                "unrecognized includeObject {:?}",
                get("includeObject")
            ))
        })?;
        let is_watch = matches!(get("watch"), "true" | "1");
        let known = cluster.store.find(resource);
        let accepted = negotiation::negotiate(
            accept(request),
            &cluster.encodings,
            known.is_some_and(|known| known.has_messages),
        );
        Ok(Self {
            labels: selector(get("labelSelector"))?,
            fields: selector(get("fieldSelector"))?,
            accepted: accepted
                .ok_or_else(|| negotiation::not_acceptable(&cluster.encodings, is_watch))?,
            include,
            parameters,
        })
    }

    fn get(&self, name: &str) -> &str {
        self.parameters.get(name).map_or("", String::as_str)
    }

    fn is(&self, name: &str) -> bool {
        matches!(self.get(name), "true" | "1")
    }

    fn number(&self, name: &str) -> Result<Option<u64>, Refusal> {
        match self.get(name) {
            "" => Ok(None),
            text => text.parse().map(Some).map_err(|_| {
                Refusal::bad_request(format!("invalid {name}: {text:?} is not a number"))
            }),
        }
    }

    fn selects(&self, object: &Value) -> bool {
        let text = |value: &Value| match value {
            Value::Null => None,
            Value::String(text) => Some(text.clone()),
            other => Some(other.to_string()),
        };
        let label = |key: &str| text(&object["metadata"]["labels"][key]);
        let field = |path: &str| {
            let path = format!("/{}", path.replace('.', "/"));
            Some(object.pointer(&path).and_then(text).unwrap_or_default())
        };
        self.labels.iter().all(|r| r.matches(label)) && self.fields.iter().all(|r| r.matches(field))
    }

    /// An object as it is sent; a table names its columns only if asked to.
    fn document(&self, resource: &Resource, object: &Object, with_columns: bool) -> Document {
        match self.accepted.form {
            Form::Object => Document {
                json: object.json.clone(),
                message: object.message.clone(),
                items: None,
            },
            Form::Metadata(version) | Form::MetadataList(version) => {
                Document::object(table::partial(version, &object.json))
            }
            Form::Table(version) => {
                let objects = [&object.json];
                let now = logs::now();
                let mut table =
                    table::table(version, resource, objects, self.include, with_columns, now);
                let of_object = &object.json["metadata"]["resourceVersion"];
                table["metadata"] = json!({"resourceVersion": of_object});
                Document::object(table)
            }
        }
    }
}

/// What a request accepts.
pub(super) fn accept<B>(request: &Request<B>) -> Option<&str> {
    request.headers().get(ACCEPT)?.to_str().ok()
}

fn expired(version: u64, Compacted(oldest): &Compacted) -> Status {
    let message = format!("too old resource version: {version} ({oldest})");
    Status::failure(410, "Expired", message)
}

fn response(accepted: Accepted, is_watch: bool, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    let media = encoding::content_type(accepted.encoding, is_watch);
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(media));
    response
}

/// One object as it is stored.
pub(super) fn find(
    cluster: &Cluster,
    resource: &Resource,
    namespace: &str,
    name: &str,
) -> Result<Arc<Object>, Refusal> {
    let object = cluster.store.get(&key(resource, namespace, name));
    object.ok_or_else(|| {
        let mut status = Status::failure(404, "NotFound", format!("{resource} {name:?} not found"));
        status.details = Some(StatusDetails {
            name: name.to_owned(),
            group: resource.group.to_string(),
            kind: resource.plural.to_string(),
            ..StatusDetails::default()
        });
        Refusal::new(status)
    })
}

/// Answers a request for one object.
pub(super) fn get<B>(
    cluster: &Cluster,
    resource: &Resource,
    object: &Object,
    request: &Request<B>,
) -> Result<Response<Body>, Refusal> {
    let query = Query::parse(cluster, resource, request)?;
    if let Form::MetadataList(_) = query.accepted.form {
        let kind = object.json["kind"].as_str().unwrap_or_default();
        return Err(negotiation::refuse(format!(
            "you requested PartialObjectMetadataList, but the requested object is not a list \
             ({kind})"
        )));
    }
    let document = query.document(resource, object, true);
    let body = document.encode(query.accepted.encoding);
    let body = router::whole_body(Full::new(body.map_err(Refusal::new)?));
    Ok(response(query.accepted, false, body))
}

/// Answers a list or a watch.
pub(super) async fn collection<B>(
    cluster: &Arc<Cluster>,
    resource: Resource,
    namespace: Option<String>,
    request: &Request<B>,
) -> Result<Response<Body>, Refusal> {
    let query = Query::parse(cluster, &resource, request)?;
    let fault = cluster.fault().await?;
    if query.is("watch") {
        return watch(cluster, resource, namespace, query, fault);
    }
    list(cluster, &resource, namespace.as_deref(), &query, fault)
}

fn list(
    cluster: &Arc<Cluster>,
    resource: &Resource,
    namespace: Option<&str>,
    query: &Query,
    fault: Option<BodyFault>,
) -> Result<Response<Body>, Refusal> {
    let known = cluster.store.find(resource);
    let kind = format!("{}List", known.map_or_else(String::new, |known| known.kind));
    if let Form::Metadata(_) = query.accepted.form {
        return Err(negotiation::refuse(format!(
            "you requested PartialObjectMetadata, but the requested object is a list ({kind})"
        )));
    }
    let limit = query.number("limit")?.filter(|limit| *limit > 0);
    let (version, after) = match query.get("continue") {
        "" => (None, None),
        token => {
            let bad = || Refusal::bad_request("continue key is not valid");
            let text = URL_SAFE_NO_PAD.decode(token).map_err(|_| bad())?;
            let (version, after): (u64, Key) = serde_json::from_slice(&text).map_err(|_| bad())?;
            (Some(version), Some(after))
        }
    };
    let (objects, version) = cluster
        .store
        .list(resource, namespace, version)
        .map_err(|oldest| Refusal::new(expired(version.unwrap_or(0), &oldest)))?;
    let mut rest = objects
        .into_iter()
        .filter(|(key, object)| {
            after.as_ref().is_none_or(|after| key > after) && query.selects(&object.json)
        })
        .peekable();
    let mut page = Vec::new();
    let mut last = None;
    while let Some((key, object)) = rest.next_if(|_| limit.is_none_or(|l| (page.len() as u64) < l))
    {
        page.push(object);
        last = Some(key);
    }
    let mut metadata = json!({"resourceVersion": version.to_string()});
    if let (Some(_), Some(last)) = (rest.peek(), last) {
        let token = json!([version, last]).to_string();
        metadata["continue"] = URL_SAFE_NO_PAD.encode(token).into();
        metadata["remainingItemCount"] = rest.count().into();
    }
    let items = || {
        let documents = page.iter();
        documents.map(|object| query.document(resource, object, false))
    };
    let mut list = match query.accepted.form {
        Form::Object => Document {
            items: Some(items().map(without_type).collect()),
            ..Document::object(json!({"kind": kind, "apiVersion": resource.api_version()}))
        },
        Form::Metadata(version) | Form::MetadataList(version) => Document {
            items: Some(items().collect()),
            ..Document::object(json!({
                "kind": "PartialObjectMetadataList",
                "apiVersion": version,
            }))
        },
        Form::Table(version) => {
            let objects = page.iter().map(|object| &object.json);
            let now = logs::now();
            let table = table::table(version, resource, objects, query.include, true, now);
            Document::object(table)
        }
    };
    list.json["metadata"] = metadata;
    let bytes = list.encode(query.accepted.encoding).map_err(Refusal::new)?;
    let (mut writer, body) = streaming::body(fault);
    cluster.tasks.spawn(async move {
        let _ = writer.write(bytes).await;
    });
    Ok(response(query.accepted, false, body))
}

/// The item of a typed list: the list's kind says what its items are.
fn without_type(mut item: Document) -> Document {
    if let Some(item) = item.json.as_object_mut() {
        item.remove("kind");
        item.remove("apiVersion");
    }
    item
}

/// A watch that is being answered.
struct Watch {
    resource: Resource,
    namespace: Option<String>,
    query: Query,
    /// The version up to which the client knows.
    version: u64,
    kind: String,
    /// Whether a table has named its columns.
    columns_sent: bool,
    writer: Writer,
}

fn watch(
    cluster: &Arc<Cluster>,
    resource: Resource,
    namespace: Option<String>,
    query: Query,
    fault: Option<BodyFault>,
) -> Result<Response<Body>, Refusal> {
    let asked = query.get("resourceVersion");
    let initial = query.is("sendInitialEvents");
    // `k8s.io/apimachinery/pkg/apis/meta/internalversion/validation/validation.go`.
    if initial && !cluster.watch_list
        || initial != (query.get("resourceVersionMatch") == "NotOlderThan")
    {
        let message = "ListOptions.meta.k8s.io \"\" is invalid: sendInitialEvents: Forbidden: \
                       sendInitialEvents is forbidden for watch unless the WatchList feature gate is enabled";
        return Err(Refusal::new(Status::failure(422, "Invalid", message)));
    }
    let version = match asked {
        "" | "0" => None,
        text => Some(
            text.parse()
                .map_err(|_| Refusal::bad_request("invalid resource version"))?,
        ),
    };
    let timeout = Duration::from_secs(query.number("timeoutSeconds")?.unwrap_or(1800));
    let accepted = query.accepted;
    if let Form::MetadataList(_) = accepted.form {
        // No event can be turned into a list: the API server's watch ends without one.
        let body = router::whole_body(Full::default());
        return Ok(response(accepted, true, body));
    }
    let (writer, body) = streaming::body(fault);
    let mut watch = Watch {
        resource,
        namespace,
        query,
        version: version.unwrap_or(0),
        kind: String::new(),
        columns_sent: false,
        writer,
    };
    watch.know(cluster);
    let of_cluster = cluster.clone();
    cluster.tasks.spawn(async move {
        let made_up = version.is_none() || initial;
        // However it ends: the client sees an end or what a fault made of it.
        let _ = watch.run(&of_cluster, made_up, initial, timeout).await;
    });
    Ok(response(accepted, true, body))
}

impl Watch {
    fn know(&mut self, cluster: &Cluster) {
        if let Some(known) = cluster.store.find(&self.resource) {
            self.kind = known.kind;
        }
    }

    async fn send(&mut self, event: &str, object: &Object) -> Result<(), Over> {
        let with_columns = !self.columns_sent;
        let document = self.query.document(&self.resource, object, with_columns);
        self.columns_sent = true;
        match document.encode_event(self.query.accepted.encoding, event) {
            Ok(bytes) => self.writer.write(bytes).await,
            Err(status) => self.fail(&status).await,
        }
    }

    /// Ends the watch with an error, which has the form of a Status whatever was asked for.
    async fn fail(&mut self, status: &Status) -> Result<(), Over> {
        let document = Document::status(status);
        if let Ok(bytes) = document.encode_event(self.query.accepted.encoding, "ERROR") {
            self.writer.write(bytes).await?;
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
        let object = Object {
            json: json!({
                "kind": self.kind,
                "apiVersion": self.resource.api_version(),
                "metadata": metadata,
            }),
            message: Some(Bytes::new()),
        };
        self.send("BOOKMARK", &object).await
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
            let listed = cluster
                .store
                .list(&self.resource, self.namespace.as_deref(), None);
            let (objects, version) = listed.unwrap_or_default();
            // In no order of versions, as the API server's cache gives them.
            for (_, object) in objects.into_iter().rev() {
                if self.query.selects(&object.json) {
                    self.send("ADDED", &object).await?;
                }
            }
            self.version = version;
            if initial {
                self.bookmark(true).await?;
            }
        }
        let end = Instant::now() + timeout;
        let period = cluster.bookmarks;
        let mut bookmarks = interval_at(Instant::now() + period, period);
        loop {
            versions.mark_unchanged();
            match cluster.store.changes(self.version) {
                Ok((changes, version)) => {
                    self.know(cluster);
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
                () = sleep_until(end) => return self.bookmark(false).await,
                () = self.writer.closed() => return Err(Over),
            }
        }
    }

    /// What a change is to this watch: an object may enter or leave its selection.
    async fn change(&mut self, change: &Change) -> Result<(), Over> {
        let (group, plural, namespace, _) = &change.key;
        let mine = **group == self.resource.group
            && **plural == self.resource.plural
            && self.namespace.as_ref().is_none_or(|n| n == namespace);
        if !mine {
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
        self.send(event, &change.object).await
    }
}

//! Lists and watches: in flow requests for objects, out come answers from the store.
//!
//! As far as it goes it is `k8s.io/apiserver`: versions, selectors, pages, bookmarks, watch-list,
//! 410 for what has been compacted. Always JSON; metadata only where that is asked for.

use std::{collections::HashMap, sync::Arc, time::Duration};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::Bytes;
use http::{
    HeaderValue, Request, Response,
    header::{ACCEPT, CONTENT_TYPE},
};
use serde_json::{Value, json};
use tokio::time::{Instant, interval_at, sleep_until};

use super::{
    messages::Opening,
    router::{self, Body, Cluster},
    store::{Change, Compacted, Key, key},
    streaming::{self, BodyFault, Over, Writer},
};
use crate::{
    Resource,
    server::Refusal,
    wire::status::{Status, StatusDetails},
};

/// What a request asks of a collection.
struct Query {
    parameters: HashMap<String, String>,
    labels: Vec<Requirement>,
    fields: Vec<Requirement>,
    metadata_only: bool,
}

/// One part of a selector.
#[derive(Debug, Clone, PartialEq)]
enum Requirement {
    Is(String, String),
    IsNot(String, String),
    In(String, Vec<String>),
    NotIn(String, Vec<String>),
    Exists(String),
    Missing(String),
}

impl Requirement {
    fn matches(&self, get: impl Fn(&str) -> Option<String>) -> bool {
        match self {
            Self::Is(key, value) => get(key).as_ref() == Some(value),
            Self::IsNot(key, value) => get(key).as_ref() != Some(value),
            Self::In(key, values) => get(key).is_some_and(|value| values.contains(&value)),
            Self::NotIn(key, values) => !get(key).is_some_and(|value| values.contains(&value)),
            Self::Exists(key) => get(key).is_some(),
            Self::Missing(key) => get(key).is_none(),
        }
    }
}

/// Reads a selector (`k8s.io/apimachinery/pkg/labels/selector.go`, without `>` and `<`).
fn selector(text: &str) -> Result<Vec<Requirement>, Refusal> {
    let bad = || Refusal::bad_request(format!("unable to parse requirement: {text:?}"));
    let mut parts = Vec::new();
    let (mut depth, mut start) = (0, 0);
    for (at, character) in text.char_indices() {
        match character {
            '(' => depth += 1,
            ')' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    let parts = parts
        .into_iter()
        .map(str::trim)
        .filter(|part| !part.is_empty());
    let set = |values: &str| -> Result<Vec<String>, Refusal> {
        let inside = values
            .trim()
            .strip_prefix('(')
            .and_then(|v| v.strip_suffix(')'));
        let values = inside.ok_or_else(bad)?.split(',');
        Ok(values.map(|value| value.trim().to_owned()).collect())
    };
    parts
        .map(|part| {
            let pair =
                |(key, value): (&str, &str)| (key.trim().to_owned(), value.trim().to_owned());
            Ok(if let Some(split) = part.split_once("!=") {
                let (key, value) = pair(split);
                Requirement::IsNot(key, value)
            } else if let Some(split) = part.split_once("==").or_else(|| part.split_once('=')) {
                let (key, value) = pair(split);
                Requirement::Is(key, value)
            } else if let Some((key, values)) = part.split_once(" notin ") {
                Requirement::NotIn(key.trim().to_owned(), set(values)?)
            } else if let Some((key, values)) = part.split_once(" in ") {
                Requirement::In(key.trim().to_owned(), set(values)?)
            } else if let Some(key) = part.strip_prefix('!') {
                Requirement::Missing(key.trim().to_owned())
            } else {
                Requirement::Exists(part.to_owned())
            })
        })
        .collect()
}

impl Query {
    fn parse<B>(request: &Request<B>) -> Result<Self, Refusal> {
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
        let accept = request
            .headers()
            .get(ACCEPT)
            .and_then(|value| value.to_str().ok());
        Ok(Self {
            labels: selector(get("labelSelector"))?,
            fields: selector(get("fieldSelector"))?,
            metadata_only: accept.is_some_and(|accept| accept.contains("as=PartialObjectMetadata")),
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

    fn form(&self, object: &Value) -> Value {
        if !self.metadata_only {
            return object.clone();
        }
        json!({
            "kind": "PartialObjectMetadata",
            "apiVersion": "meta.k8s.io/v1",
            "metadata": object["metadata"],
        })
    }
}

fn expired(version: u64, Compacted(oldest): &Compacted) -> Status {
    let message = format!("too old resource version: {version} ({oldest})");
    Status::failure(410, "Expired", message)
}

fn json_response(body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(CONTENT_TYPE, json);
    response
}

/// Answers a request for one object.
pub(super) fn get(
    cluster: &Cluster,
    resource: &Resource,
    namespace: &str,
    name: &str,
) -> Result<Value, Refusal> {
    let object = cluster.store.get(&key(resource, namespace, name));
    let object = object.ok_or_else(|| {
        let mut status = Status::failure(404, "NotFound", format!("{resource} {name:?} not found"));
        status.details = Some(StatusDetails {
            name: name.to_owned(),
            group: resource.group.to_string(),
            kind: resource.plural.to_string(),
            ..StatusDetails::default()
        });
        Refusal::new(status)
    })?;
    Ok((*object).clone())
}

/// Answers a list or a watch.
pub(super) async fn collection<B>(
    cluster: &Arc<Cluster>,
    resource: Resource,
    namespace: Option<String>,
    request: &mut Request<B>,
) -> Result<Response<Body>, Refusal> {
    let query = Query::parse(request)?;
    let fault = cluster.fault().await?;
    if query.is("watch") {
        return watch(cluster, resource, namespace, query, request, fault);
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
            after.as_ref().is_none_or(|after| key > after) && query.selects(object)
        })
        .peekable();
    let mut items = Vec::new();
    let mut last = None;
    while let Some((key, object)) = rest.next_if(|_| limit.is_none_or(|l| (items.len() as u64) < l))
    {
        items.push(query.form(&object));
        last = Some(key);
    }
    let mut metadata = json!({"resourceVersion": version.to_string()});
    if let (Some(_), Some(last)) = (rest.peek(), last) {
        let token = json!([version, last]).to_string();
        metadata["continue"] = URL_SAFE_NO_PAD.encode(token).into();
        metadata["remainingItemCount"] = rest.count().into();
    }
    let kind = items
        .first()
        .and_then(|item| item["kind"].as_str())
        .unwrap_or("");
    let group_version = match &*resource.group {
        _ if query.metadata_only => "meta.k8s.io/v1".to_owned(),
        "" => resource.version.to_string(),
        group => format!("{group}/{}", resource.version),
    };
    let kind = format!("{kind}List");
    for item in &mut items {
        // As typed lists are: their kind says what their items are.
        if let Some(item) = item.as_object_mut().filter(|_| !query.metadata_only) {
            item.remove("kind");
            item.remove("apiVersion");
        }
    }
    let list =
        json!({"kind": kind, "apiVersion": group_version, "metadata": metadata, "items": items});
    let (mut writer, body) = streaming::body(fault);
    cluster.tasks.spawn(async move {
        let _ = writer.write(list.to_string().into()).await;
    });
    Ok(json_response(body))
}

/// A watch that is being answered.
struct Watch {
    resource: Resource,
    namespace: Option<String>,
    query: Query,
    /// The version up to which the client knows.
    version: u64,
    kind: Value,
    writer: Writer,
}

fn watch<B>(
    cluster: &Arc<Cluster>,
    resource: Resource,
    namespace: Option<String>,
    query: Query,
    request: &mut Request<B>,
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
    let (writer, response) = match Opening::is_asked(request) {
        true => {
            let (opening, response) = Opening::of_watch(request)?;
            let writer = streaming::messages(opening, fault, &cluster.tasks);
            (writer, router::whole(response))
        }
        false => {
            let (writer, body) = streaming::body(fault);
            (writer, json_response(body))
        }
    };
    let mut watch = Watch {
        resource,
        namespace,
        query,
        version: version.unwrap_or(0),
        kind: json!({}),
        writer,
    };
    let of_cluster = cluster.clone();
    cluster.tasks.spawn(async move {
        let made_up = version.is_none() || initial;
        // However it ends: the client sees an end or what a fault made of it.
        let _ = watch.run(&of_cluster, made_up, initial, timeout).await;
    });
    Ok(response)
}

impl Watch {
    async fn send(&mut self, event: &str, object: &Value) -> Result<(), Over> {
        let mut line = json!({"type": event, "object": object}).to_string();
        line.push('\n');
        self.writer.write(Bytes::from(line)).await
    }

    async fn bookmark(&mut self, end: bool) -> Result<(), Over> {
        if !self.query.is("allowWatchBookmarks") {
            return Ok(());
        }
        let mut object = self.kind.clone();
        object["metadata"] = json!({"resourceVersion": self.version.to_string()});
        if end {
            object["metadata"]["annotations"] = json!({"k8s.io/initial-events-end": "true"});
        }
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
                self.know(&object);
                if self.query.selects(&object) {
                    self.send("ADDED", &self.query.form(&object)).await?;
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
                    for change in changes {
                        self.change(&change).await?;
                    }
                    self.version = version;
                }
                Err(compacted) => {
                    let status = expired(self.version, &compacted).to_json();
                    let status = serde_json::from_slice(&status).unwrap_or_default();
                    return self.send("ERROR", &status).await;
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

    fn know(&mut self, object: &Value) {
        self.kind = json!({"kind": object["kind"], "apiVersion": object["apiVersion"]});
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
        self.know(&change.object);
        let before = change
            .before
            .as_ref()
            .is_some_and(|before| self.query.selects(before));
        let after = !change.deleted && self.query.selects(&change.object);
        let event = match (before, after) {
            (false, false) => return Ok(()),
            (false, true) => "ADDED",
            (true, true) => "MODIFIED",
            (true, false) => "DELETED",
        };
        let object = self.query.form(&change.object);
        self.send(event, &object).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors_are_those_of_labels() {
        let labels = [("app", "web"), ("tier", "front")];
        let get = |key: &str| {
            let found = labels.iter().find(|(name, _)| *name == key);
            found.map(|(_, value)| (*value).to_owned())
        };
        for (text, expected) in [
            ("", true),
            ("app=web", true),
            ("app==web,tier!=back", true),
            ("app=db", false),
            ("app in (db, web)", true),
            ("app notin (db,web)", false),
            ("other notin (db)", true),
            ("tier", true),
            ("!tier", false),
            ("!other,app in (web),tier=front", true),
        ] {
            let all = selector(text).unwrap();
            assert_eq!(all.iter().all(|r| r.matches(get)), expected, "{text}");
        }
        assert!(selector("app in web").is_err());
    }
}

//! Objects and lists: in flow requests for objects, out come answers from the store.
//!
//! As far as it goes it is `k8s.io/apiserver`: versions, selectors, pages, 410 for what has been
//! compacted, in the encoding and form that the client accepts.

use std::{collections::HashMap, sync::Arc};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use http::{
    HeaderValue, Request, Response,
    header::{ACCEPT, CONTENT_TYPE},
};
use http_body_util::Full;
use serde_json::{Value, json};

use super::{
    encoding::{self, Document},
    logs,
    negotiation::{self, Accepted, Form},
    router::{self, Body, Cluster},
    selector::{Requirement, selector},
    store::{Compacted, Key, Object, key},
    streaming::{self, BodyFault},
    table::{self, Include},
    watch,
};
use crate::{
    Resource,
    server::Refusal,
    wire::status::{Status, StatusDetails},
};

/// What a request asks of objects.
pub(super) struct Query {
    parameters: HashMap<String, String>,
    labels: Vec<Requirement>,
    fields: Vec<Requirement>,
    pub(super) accepted: Accepted,
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

    pub(super) fn get(&self, name: &str) -> &str {
        self.parameters.get(name).map_or("", String::as_str)
    }

    pub(super) fn is(&self, name: &str) -> bool {
        matches!(self.get(name), "true" | "1")
    }

    pub(super) fn number(&self, name: &str) -> Result<Option<u64>, Refusal> {
        match self.get(name) {
            "" => Ok(None),
            text => text.parse().map(Some).map_err(|_| {
                Refusal::bad_request(format!("invalid {name}: {text:?} is not a number"))
            }),
        }
    }

    pub(super) fn selects(&self, object: &Value) -> bool {
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
    pub(super) fn document(
        &self,
        resource: &Resource,
        object: &Object,
        with_columns: bool,
    ) -> Document {
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

pub(super) fn expired(version: u64, Compacted(oldest): &Compacted) -> Status {
    let message = format!("too old resource version: {version} ({oldest})");
    Status::failure(410, "Expired", message)
}

/// An answer whose body is encoded as negotiated.
pub(super) fn response(accepted: Accepted, is_watch: bool, body: Body) -> Response<Body> {
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
    let body = router::whole_body(Full::new(body?));
    Ok(response(query.accepted, false, body))
}

/// Answers a list or a watch.
pub(super) async fn collection<B>(
    cluster: &Arc<Cluster>,
    resource: Resource,
    namespace: Option<String>,
    request: &mut Request<B>,
) -> Result<Response<Body>, Refusal> {
    let query = Query::parse(cluster, &resource, request)?;
    let fault = cluster.fault().await?;
    if query.is("watch") {
        return watch::watch(cluster, resource, namespace, query, request, fault);
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
    let bytes = list.encode(query.accepted.encoding)?;
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

//! Objects and lists: in flow requests for objects, out come answers from the store.
//!
//! As far as it goes it is `k8s.io/apiserver`: versions, selectors, pages, 410 for what has been
//! compacted, in the encoding and form that the client accepts.

pub(super) mod controllers;
pub(super) mod delete;
pub(super) mod owners;
pub(super) mod store;
pub(super) mod views;
pub(super) mod watch;

use std::sync::Arc;

use bytes::Bytes;
use http::{
    HeaderValue, Request, Response,
    header::{ACCEPT, ACCEPT_ENCODING, CONTENT_ENCODING, VARY},
};
use http_body_util::Full;
use serde_json::{Value, json};

use self::store::{Compacted, EVENTS, Object, Objects};
use crate::{
    server::Refusal,
    testing::{
        answers::{
            encoding::{self, Document},
            streaming::{self, BodyFault},
            table,
        },
        checks,
        pods::logs,
        requests::{
            negotiation::{self, Accepted, Form},
            pages,
            selector::{self, Requirement},
            target::{NUMBERS, Parameters, Target, failed},
        },
        router::{self, Body, Cluster},
        values::json::{map, set},
    },
    wire::status::Status,
};

pub(super) struct Query {
    pub(super) target: Target,
    pub(super) parameters: Parameters,
    labels: Vec<Requirement>,
    fields: Vec<Requirement>,
    pub(super) accepted: Accepted,
    /// Whether the client can read gzip.
    pub(super) gzip: bool,
}

impl Query {
    pub(super) fn parse<B>(
        cluster: &Cluster,
        target: &Target,
        request: &Request<B>,
    ) -> Result<Self, Refusal> {
        let parameters = Parameters::parse(request.uri().query());
        let has_messages = target.kind.has_messages();
        let accepted =
            negotiation::negotiate(accept(request), &cluster.settings.encodings, has_messages);
        let accepted = accepted.ok_or_else(|| {
            let offered = &cluster.settings.encodings;
            negotiation::not_acceptable(accept(request), offered, target)
        })?;
        if accepted.yaml && target.verb == "watch" {
            return Err(negotiation::only(
                "application/json;stream=watch, application/vnd.kubernetes.protobuf;stream=watch",
            ));
        }
        let include = parameters.get("includeObject");
        if matches!(accepted.form, Form::Table(_)) && !table::INCLUDED.contains(&include) {
            let why = format!(
                "Unable to convert to Table as requested: includeObject: Invalid value: \
                 {include:?}: must be 'Metadata', 'Object', 'None', or empty"
            );
            return Err(Refusal::bad_request(why));
        }
        let selects = matches!(
            target.verb,
            "list" | "watch" | "delete" | "deletecollection"
        );
        let selector = |name| if selects { parameters.get(name) } else { "" };
        for name in NUMBERS.into_iter().filter(|_| selects) {
            parameters.number(name)?;
        }
        let mut fields = selector::fields(selector("fieldSelector"), &target.kind)?;
        if let ("watch", Some(name)) = (target.verb, &target.name) {
            fields.push(Requirement::named(name));
        }
        Ok(Self {
            labels: selector::labels(selector("labelSelector"))?,
            fields,
            accepted,
            gzip: allows_gzip(request),
            parameters,
            target: target.clone(),
        })
    }

    pub(super) fn get(&self, name: &str) -> &str {
        self.parameters.get(name)
    }

    pub(super) fn is(&self, name: &str) -> bool {
        self.parameters.is(name)
    }

    /// A number above zero; any other says nothing.
    pub(super) fn number(&self, name: &str) -> Result<Option<u64>, Refusal> {
        let number = self.parameters.number(name)?;
        Ok(number
            .and_then(|number| u64::try_from(number).ok())
            .filter(|number| *number > 0))
    }

    /// The version that is asked for; 0 is any.
    pub(super) fn version(&self) -> Result<Option<u64>, Refusal> {
        match self.get("resourceVersion") {
            "" => Ok(None),
            text => text.parse().map(Some).map_err(|_| {
                // `k8s.io/apiserver/pkg/storage/api_object_versioner.go`, of which lists make more.
                let why = format!(
                    "resourceVersion: Invalid value: {text:?}: strconv.ParseUint: parsing \
                     {text:?}: invalid syntax"
                );
                match self.target.verb {
                    "list" | "deletecollection" => {
                        Refusal::bad_request(format!("invalid resource version: {why}"))
                    }
                    _ => failed(why),
                }
            }),
        }
    }

    pub(super) fn selects(&self, object: &Value) -> bool {
        let object = views::viewed(&self.target.kind, object);
        selector::selects(&self.labels, &self.fields, &object)
    }

    /// A whole answer, compressed where it is large and the client allows it.
    fn response(&self, bytes: Bytes, body: impl FnOnce(Bytes) -> Body) -> Response<Body> {
        if !self.gzip || self.accepted.yaml || bytes.len() < COMPRESSED {
            return response(self.accepted, false, body(bytes));
        }
        let mut response = response(self.accepted, false, body(encoding::gzip(&bytes)));
        is_gzipped(&mut response);
        response
    }

    fn table<'a>(
        &self,
        version: &str,
        objects: impl IntoIterator<Item = &'a Value>,
        with_columns: bool,
    ) -> Value {
        let (kind, include) = (&self.target.kind, self.get("includeObject"));
        table::table(version, kind, objects, include, with_columns, logs::now())
    }

    /// An object as it is sent; a table names its columns only if asked to.
    pub(super) fn document(&self, object: &Object, with_columns: bool) -> Document {
        let resource = self.target.resource();
        match self.accepted.form {
            Form::Object => {
                let mut json = views::viewed(&self.target.kind, &object.json).into_owned();
                // Versions are views of the same objects, and custom ones convert by name.
                json["apiVersion"] = resource.api_version().into();
                Document {
                    message: object.message.clone().filter(|_| resource.group != EVENTS),
                    of: self.target.kind.type_name(),
                    ..Document::object(json)
                }
            }
            Form::Metadata(version) | Form::MetadataList(version) => {
                Document::object(table::partial(version, &object.json))
            }
            Form::Table(version) => {
                let mut table = self.table(version, [&object.json], with_columns);
                let of_object = &object.json["metadata"]["resourceVersion"];
                set(&mut table["metadata"], "resourceVersion", of_object);
                Document::object(table)
            }
        }
    }
}

/// Bytes from which on answers are compressed for those who can read that
/// (`k8s.io/apiserver/pkg/endpoints/handlers/responsewriters/writers.go`).
const COMPRESSED: usize = 128 << 10;

fn allows_gzip<B>(request: &Request<B>) -> bool {
    let values = request.headers().get_all(ACCEPT_ENCODING).iter();
    let mut codings = values
        .filter_map(|value| value.to_str().ok())
        .flat_map(|v| v.split(','));
    codings.any(|coding| coding.trim() == "gzip")
}

/// Says that a body is in gzip.
pub(super) fn is_gzipped(response: &mut Response<Body>) {
    let headers = response.headers_mut();
    headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    headers.insert(VARY, HeaderValue::from_static("Accept-Encoding"));
}

pub(super) fn accept<B>(request: &Request<B>) -> Option<&str> {
    request.headers().get(ACCEPT)?.to_str().ok()
}

pub(super) fn expired(version: u64, Compacted(oldest): &Compacted) -> Status {
    let message = format!("too old resource version: {version} ({oldest})");
    Status::failure(410, "Expired", message)
}

/// An answer whose body is encoded as negotiated.
pub(super) fn response(accepted: Accepted, is_watch: bool, body: Body) -> Response<Body> {
    router::of_media(encoding::content_type(accepted.encoding, is_watch), body)
}

pub(super) fn find(cluster: &Cluster, target: &Target) -> Result<Arc<Object>, Refusal> {
    cluster
        .store
        .get(&target.key())
        .ok_or_else(|| target.missing(target.name()))
}

pub(super) fn get<B>(
    cluster: &Cluster,
    target: &Target,
    object: &Object,
    request: &Request<B>,
) -> Result<Response<Body>, Refusal> {
    let query = Query::parse(cluster, target, request)?;
    if let Some(version) = query.version()? {
        let current = cluster.store.version();
        if version > current {
            return Err(pages::too_large(version, current));
        }
    }
    answer(&query, object)
}

pub(super) fn answer(query: &Query, object: &Object) -> Result<Response<Body>, Refusal> {
    if let Form::MetadataList(_) = query.accepted.form {
        if query.target.kind.custom.is_some() {
            let why = "content is not a list";
            return Err(failed(why));
        }
        return Err(negotiation::refuse(format!(
            "you requested PartialObjectMetadataList, but the requested object is not a list ({})",
            query.target.kind.go_name()
        )));
    }
    let document = query.document(object, true);
    let bytes = document.encode(query.accepted.encoding)?;
    Ok(query.response(bytes, |bytes| router::body(Full::new(bytes))))
}

/// Answers a list or a watch.
pub(super) async fn collection<B>(
    cluster: &Arc<Cluster>,
    target: &Target,
    request: &mut Request<B>,
) -> Result<Response<Body>, Refusal> {
    let query = Query::parse(cluster, target, request)?;
    let fault = cluster.fault().await?;
    if target.verb == "watch" {
        return watch::watch(cluster, query, request, fault);
    }
    list(cluster, &query, fault)
}

/// Refuses options that do not go together
/// (`k8s.io/apimachinery/pkg/apis/meta/internalversion/validation/validation.go`).
pub(super) fn check(query: &Query, watch_list: bool) -> Result<(), Refusal> {
    let mut options = query.parameters.to_json();
    options["watch"] = (query.target.verb == "watch").into();
    options["watchList"] = watch_list.into();
    checks::options("meta.ListOptions", "ListOptions", &options)
}

fn list(
    cluster: &Arc<Cluster>,
    query: &Query,
    fault: Option<BodyFault>,
) -> Result<Response<Body>, Refusal> {
    let (page, metadata) = match select(cluster, query)? {
        Ok(page) => page,
        Err(compacted) => return Ok(compacted),
    };
    let page = page.into_iter().map(|(_, object)| object).collect();
    let (mut writer, body) = streaming::body(fault);
    render(query, page, metadata, |bytes| {
        cluster.tasks.spawn(async move {
            let _ = writer.write(bytes).await;
        });
        body
    })
}

/// The objects that are asked for, and the metadata of their list, or the answer that there are none
/// of this version any more.
pub(super) fn select(
    cluster: &Cluster,
    query: &Query,
) -> Result<Result<(Objects, Value), Response<Body>>, Refusal> {
    let target = &query.target;
    let resource = target.resource();
    if let Form::Metadata(_) = query.accepted.form {
        return Err(negotiation::refuse(format!(
            "you requested PartialObjectMetadata, but the requested object is a list ({}List)",
            target.kind.go_name()
        )));
    }
    check(query, true)?;
    // Pages are etcd's, and any version comes from the cache.
    let limit = query
        .number("limit")?
        .filter(|_| query.get("resourceVersion") != "0");
    let (version, after) = pages::state(query, cluster.store.version())?;
    let listed = cluster.store.list(resource, target.in_namespace(), version);
    let Ok((objects, version)) = listed else {
        return pages::compacted(target, after.as_ref()).map(Err);
    };
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
        last = Some(key.clone());
        page.push((key, object));
    }
    let mut metadata = json!({"resourceVersion": version.to_string()});
    if let (Some(_), Some(last)) = (rest.peek(), last) {
        metadata["continue"] = pages::token(
            version.cast_signed(),
            &last,
            target.in_namespace().is_some(),
        )
        .into();
        // Who selects is not told how many are left.
        if query.labels.is_empty() && query.fields.is_empty() {
            metadata["remainingItemCount"] = rest.count().into();
        }
    }
    Ok(Ok((page, metadata)))
}

/// A list as a whole answer.
pub(super) fn render(
    query: &Query,
    page: Vec<Arc<Object>>,
    metadata: Value,
    body: impl FnOnce(Bytes) -> Body,
) -> Result<Response<Body>, Refusal> {
    let target = &query.target;
    let kind = format!("{}List", target.kind.kind);
    let items = || {
        let documents = page.iter();
        documents.map(|object| query.document(object, false))
    };
    let is_custom = target.kind.custom.is_some();
    // The items of a typed list are of its kind.
    let untyped = |mut document: Document| {
        if !is_custom {
            set(&mut document.json, "kind", &Value::Null);
            set(&mut document.json, "apiVersion", &Value::Null);
        }
        document
    };
    let mut list = match query.accepted.form {
        Form::Object => Document {
            items: Some(items().map(untyped).collect()),
            ..Document::object(json!({
                "kind": kind, "apiVersion": target.resource().api_version(),
            }))
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
            Document::object(query.table(version, objects, true))
        }
    };
    list.json["metadata"] = metadata;
    if is_custom && query.accepted.form == Form::Object {
        map(&mut list.json["metadata"])
            .entry("continue")
            .or_insert("".into());
    }
    let bytes = list.encode(query.accepted.encoding)?;
    Ok(query.response(bytes, body))
}

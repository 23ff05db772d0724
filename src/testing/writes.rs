//! Writes: in flow requests that create, replace, patch and delete objects, out come their new
//! states.
//!
//! As far as it goes it is `k8s.io/apiserver/pkg/registry/generic/registry/store.go`: names are
//! taken once, a resourceVersion that is given must be the current one, finalizers hold a deletion
//! up, a write that changes nothing is none. There are no schemas, no defaults and no admission.

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header::CONTENT_TYPE};
use http_body_util::{BodyExt as _, Limited};
use serde_json::{Value, json};

use super::{
    logs, objects,
    router::{self, Body, Cluster},
    store::{Next, Object, key, seconds},
};
use crate::{
    Resource,
    server::Refusal,
    wire::status::{Status, StatusDetails},
};

/// Bytes of a request's body: `k8s.io/apiserver/pkg/server/config.go`, `MaxRequestBodyBytes`.
const BODY: usize = 3 << 20;

/// What is written: an object of a resource, or the place for a new one.
pub(super) struct Place<'a> {
    pub(super) resource: &'a Resource,
    pub(super) namespace: &'a str,
    /// `None` for a new object.
    pub(super) name: Option<&'a str>,
    pub(super) subresource: Option<&'a str>,
}

impl Place<'_> {
    /// The refusal of a write, with the details that name the object.
    fn refuse(&self, code: u16, reason: &str, name: &str, message: String) -> Refusal {
        let mut status = Status::failure(code, reason, message);
        status.details = Some(StatusDetails {
            name: name.to_owned(),
            group: self.resource.group.to_string(),
            kind: self.resource.plural.to_string(),
            ..StatusDetails::default()
        });
        Refusal::new(status)
    }

    fn conflict(&self, name: &str, why: &str) -> Refusal {
        // `k8s.io/apimachinery/pkg/api/errors/errors.go`, NewConflict.
        let resource = self.resource;
        let message = format!("Operation cannot be fulfilled on {resource} {name:?}: {why}");
        self.refuse(409, "Conflict", name, message)
    }

    fn missing(&self, name: &str) -> Refusal {
        let message = format!("{} {name:?} not found", self.resource);
        self.refuse(404, "NotFound", name, message)
    }
}

/// The verb that a request needs the right to; `None` if it is no write.
pub(super) fn verb(method: &Method) -> Option<&'static str> {
    Some(match *method {
        Method::POST => "create",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        _ => return None,
    })
}

/// Answers a write.
pub(super) async fn serve<B>(
    cluster: &Cluster,
    place: Place<'_>,
    request: &mut Request<B>,
) -> Result<Response<Body>, Refusal>
where
    B: hyper::body::Body<Data = Bytes> + Send + Unpin,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let body = Limited::new(request.body_mut(), BODY).collect().await;
    let body = body.map_err(|error| {
        let message = format!("the request cannot be read: {error}");
        Refusal::new(Status::failure(413, "RequestEntityTooLarge", message))
    })?;
    let body = body.to_bytes();
    let head = router::head(request);
    let media = request.headers().get(CONTENT_TYPE);
    let media = media.and_then(|value| value.to_str().ok()).unwrap_or("");
    let media = media.split(';').next().unwrap_or_default().trim();
    if place.subresource.is_some_and(|name| name != "status") {
        return Err(router::unknown());
    }
    match (request.method(), place.name) {
        (&Method::POST, None) => create(cluster, &place, media, &body, &head),
        (&Method::PUT, Some(name)) => {
            let mut object = parse(media, &["application/json"], &body)?;
            in_place(&mut object, &place, name)?;
            update(cluster, &place, name, |_| object, &head)
        }
        (&Method::PATCH, Some(name)) => {
            let patch = parse(media, &["application/merge-patch+json"], &body)?;
            let change = |before: &Value| {
                let mut after = before.clone();
                // The version is a condition only where the patch says so.
                if let Some(metadata) = after["metadata"].as_object_mut() {
                    metadata.remove("resourceVersion");
                }
                merge(&mut after, &patch);
                after
            };
            update(cluster, &place, name, change, &head)
        }
        (&Method::DELETE, Some(name)) => delete(cluster, &place, name, &body, &head),
        _ => {
            let message = "the server does not allow this method on the requested resource";
            Err(Refusal::new(Status::failure(
                405,
                "MethodNotAllowed",
                message,
            )))
        }
    }
}

fn parse(media: &str, known: &[&str], body: &[u8]) -> Result<Value, Refusal> {
    if !known.contains(&media) {
        // `endpoints/handlers/negotiation/errors.go`.
        let message = format!(
            "the body of the request was in an unknown format - accepted media types include: {}",
            known.join(", ")
        );
        let status = Status::failure(415, "UnsupportedMediaType", message);
        return Err(Refusal::new(status));
    }
    serde_json::from_slice(body)
        .ok()
        .filter(Value::is_object)
        .ok_or_else(|| Refusal::bad_request("the body of the request is no JSON object"))
}

/// RFC 7386.
fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    if let Value::Object(target) = target {
        for (name, value) in patch {
            if value.is_null() {
                target.remove(name);
            } else {
                merge(target.entry(name.clone()).or_insert(Value::Null), value);
            }
        }
    }
}

/// An object as the answer to a write.
fn answer(
    cluster: &Cluster,
    place: &Place<'_>,
    object: &Object,
    head: &Request<()>,
) -> Result<Response<Body>, Refusal> {
    objects::get(cluster, place.resource, object, head)
}

fn create(
    cluster: &Cluster,
    place: &Place<'_>,
    media: &str,
    body: &[u8],
    head: &Request<()>,
) -> Result<Response<Body>, Refusal> {
    let mut object = parse(media, &["application/json"], body)?;
    let metadata = &mut object["metadata"];
    if metadata["name"].as_str().is_none_or(str::is_empty) {
        let Some(prefix) = metadata["generateName"].as_str() else {
            let kind = object["kind"].as_str().unwrap_or_default();
            let message = format!(
                "{kind}.{} \"\" is invalid: metadata.name: Required value: name or generateName \
                 is required",
                place.resource.group
            );
            return Err(place.refuse(422, "Invalid", "", message));
        };
        metadata["name"] = format!("{prefix}{:05x}", rand::random::<u32>() & 0xf_ffff).into();
    }
    let name = metadata["name"].as_str().unwrap_or_default().to_owned();
    in_place(&mut object, place, &name)?;
    object["metadata"]["generation"] = 1.into();
    let key = key(place.resource, place.namespace, &name);
    let written = cluster
        .store
        .write(place.resource, key, logs::now(), |before| {
            if before.is_some() {
                let message = format!("{} {name:?} already exists", place.resource);
                return Err(place.refuse(409, "AlreadyExists", &name, message));
            }
            Ok(Next::Put(Object::new(object)))
        })?;
    let written = written.ok_or_else(|| place.missing(&name))?;
    let mut response = answer(cluster, place, &written, head)?;
    *response.status_mut() = StatusCode::CREATED;
    Ok(response)
}

/// Checks that an object is what the path says, and completes it.
fn in_place(object: &mut Value, place: &Place<'_>, name: &str) -> Result<(), Refusal> {
    let metadata = &object["metadata"];
    let named = metadata["name"].as_str().unwrap_or(name);
    if named != name {
        return Err(Refusal::bad_request(format!(
            "the name of the object ({named}) does not match the name on the URL ({name})"
        )));
    }
    let namespace = metadata["namespace"].as_str().unwrap_or(place.namespace);
    if namespace != place.namespace {
        return Err(Refusal::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        ));
    }
    if !object["metadata"].is_object() {
        object["metadata"] = json!({});
    }
    object["metadata"]["name"] = name.into();
    if !place.namespace.is_empty() {
        object["metadata"]["namespace"] = place.namespace.into();
    }
    if object["apiVersion"].is_null() {
        object["apiVersion"] = place.resource.api_version().into();
    }
    Ok(())
}

fn update(
    cluster: &Cluster,
    place: &Place<'_>,
    name: &str,
    change: impl FnOnce(&Value) -> Value,
    head: &Request<()>,
) -> Result<Response<Body>, Refusal> {
    let key = key(place.resource, place.namespace, name);
    let written = cluster
        .store
        .write(place.resource, key, logs::now(), |before| {
            let before = before.ok_or_else(|| place.missing(name))?;
            let mut after = change(&before.json);
            in_place(&mut after, place, name)?;
            let version = after["metadata"]["resourceVersion"].as_str();
            if version
                .is_some_and(|v| !v.is_empty() && before.json["metadata"]["resourceVersion"] != v)
            {
                let why = "the object has been modified; please apply your changes to the latest \
                       version and try again";
                return Err(place.conflict(name, why));
            }
            let uid = after["metadata"]["uid"].as_str();
            if uid.is_some_and(|uid| before.json["metadata"]["uid"] != uid) {
                return Err(place.conflict(name, "the UID in the object is not that of the object"));
            }
            Ok(next(before, after, place.subresource.is_some()))
        })?;
    let written = written.ok_or_else(|| place.missing(name))?;
    answer(cluster, place, &written, head)
}

/// What an update makes of an object. The subresource `status` changes the status alone.
fn next(before: &Object, mut after: Value, status_only: bool) -> Next {
    if status_only {
        let status = after["status"].take();
        after = before.json.clone();
        after["status"] = status;
    }
    for field in [
        "uid",
        "creationTimestamp",
        "deletionTimestamp",
        "resourceVersion",
        "generation",
    ] {
        let kept = &before.json["metadata"][field];
        match after["metadata"].as_object_mut() {
            Some(metadata) if kept.is_null() => drop(metadata.remove(field)),
            Some(metadata) => drop(metadata.insert(field.to_owned(), kept.clone())),
            None => {}
        }
    }
    let is_held = after["metadata"]["finalizers"]
        .as_array()
        .is_some_and(|f| !f.is_empty());
    if !after["metadata"]["deletionTimestamp"].is_null() && !is_held {
        return Next::Delete;
    }
    if after == before.json {
        return Next::Same;
    }
    // What is neither metadata nor status is the wish that the generation counts.
    let wish = |object: &Value| {
        let mut wish = object.clone();
        wish["metadata"] = Value::Null;
        wish["status"] = Value::Null;
        wish
    };
    if wish(&after) != wish(&before.json) {
        let generation = before.json["metadata"]["generation"].as_i64();
        after["metadata"]["generation"] = (generation.unwrap_or(0) + 1).into();
    }
    Next::Put(Object {
        json: after,
        message: before.message.clone(),
    })
}

fn delete(
    cluster: &Cluster,
    place: &Place<'_>,
    name: &str,
    body: &[u8],
    head: &Request<()>,
) -> Result<Response<Body>, Refusal> {
    let options: Value = serde_json::from_slice(body).unwrap_or_default();
    let key = key(place.resource, place.namespace, name);
    let now = logs::now();
    let written = cluster.store.write(place.resource, key, now, |before| {
        let before = before.ok_or_else(|| place.missing(name))?;
        let metadata = &before.json["metadata"];
        for field in ["uid", "resourceVersion"] {
            let wanted = &options["preconditions"][field];
            if !wanted.is_null() && *wanted != metadata[field] {
                let why = format!(
                    "Precondition failed: {field} in precondition: {wanted}, {field} in object \
                     meta: {}",
                    metadata[field]
                );
                return Err(place.conflict(name, &why));
            }
        }
        let finalizers = metadata["finalizers"].as_array();
        if finalizers.is_none_or(Vec::is_empty) {
            return Ok(Next::Delete);
        }
        if !metadata["deletionTimestamp"].is_null() {
            return Ok(Next::Same);
        }
        let mut object = before.clone();
        object.json["metadata"]["deletionTimestamp"] = seconds(now).into();
        Ok(Next::Put(object))
    })?;
    let written = written.ok_or_else(|| place.missing(name))?;
    let metadata = &written.json["metadata"];
    if !metadata["deletionTimestamp"].is_null() {
        return answer(cluster, place, &written, head);
    }
    let status = json!({
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Success",
        "details": {
            "name": name,
            "group": place.resource.group,
            "kind": place.resource.plural,
            "uid": metadata["uid"],
        },
    });
    Ok(router::object(&status))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The examples of RFC 7386, appendix A.
    #[test]
    fn patches_merge_as_the_rfc_says() {
        for (target, patch, expected) in [
            (json!({"a": "b"}), json!({"a": "c"}), json!({"a": "c"})),
            (
                json!({"a": "b"}),
                json!({"b": "c"}),
                json!({"a": "b", "b": "c"}),
            ),
            (json!({"a": "b"}), json!({"a": null}), json!({})),
            (json!({"a": ["b"]}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": "c"}), json!({"a": ["b"]}), json!({"a": ["b"]})),
            (
                json!({"a": {"b": "c"}}),
                json!({"a": {"b": "d", "c": null}}),
                json!({"a": {"b": "d"}}),
            ),
            (
                json!({"e": null}),
                json!({"a": 1}),
                json!({"e": null, "a": 1}),
            ),
            (
                json!([1, 2]),
                json!({"a": "b", "c": null}),
                json!({"a": "b"}),
            ),
            (
                json!({}),
                json!({"a": {"bb": {"ccc": null}}}),
                json!({"a": {"bb": {}}}),
            ),
        ] {
            let mut merged = target.clone();
            merge(&mut merged, &patch);
            assert_eq!(merged, expected, "{target} {patch}");
        }
    }
}

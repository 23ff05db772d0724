//! Bodies of requests: in flow bytes and their media type, out come objects.

use bytes::Bytes;
use http::{Method, Request, header::CONTENT_TYPE};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::body::Incoming;
use serde_json::Value;
use serde_saphyr::{DuplicateKeyPolicy, Options};

use super::gojson;
use crate::{
    server::Refusal,
    testing::{answers::encoding, checks::schema, values::json::make_whole},
    wire::status::Status,
};

/// Bytes of a request's body: `k8s.io/apiserver/pkg/server/config.go`, `MaxRequestBodyBytes`.
const BODY: usize = 3 << 20;

const JSON: &str = "application/json";
pub(crate) const YAML: &str = "application/yaml";
const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";
pub(crate) const JSON_PATCH: &str = "application/json-patch+json";
pub(crate) const MERGE_PATCH: &str = "application/merge-patch+json";
pub(crate) const STRATEGIC_PATCH: &str = "application/strategic-merge-patch+json";
pub(crate) const APPLY_PATCH: &str = "application/apply-patch+yaml";

/// The media type of a body without its parameters; JSON if there is none.
pub(crate) fn media<B>(request: &Request<B>) -> String {
    let media = request.headers().get(CONTENT_TYPE);
    let media = media
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let (name, parameters) = media.split_once(';').unwrap_or((media, "="));
    match name.trim() {
        "" => JSON.to_owned(),
        // Of a patch the text counts.
        _ if *request.method() == Method::PATCH => name.to_owned(),
        // Go reads no type whose parameters are none.
        _ if !parameters.contains('=') => String::new(),
        name => name.to_lowercase(),
    }
}

pub(crate) async fn read(request: &mut Request<Incoming>) -> Result<Bytes, Refusal> {
    let body = Limited::new(request.body_mut(), BODY).collect().await;
    let body = body.map_err(|error| match error.is::<LengthLimitError>() {
        true => {
            let message = format!("Request entity too large: limit is {BODY}");
            Refusal::new(Status::failure(413, "RequestEntityTooLarge", message))
        }
        false => Refusal::bad_request(format!("the request cannot be read: {error}")),
    })?;
    Ok(body.to_bytes())
}

/// The refusal of a media type (`endpoints/handlers/negotiation/errors.go`).
pub(crate) fn unsupported(known: &[&str]) -> Refusal {
    let message = format!(
        "the body of the request was in an unknown format - accepted media types include: {}",
        known.join(", ")
    );
    Refusal::new(Status::failure(415, "UnsupportedMediaType", message))
}

/// The refusal of what cannot be read as an object
/// (`k8s.io/apiserver/pkg/endpoints/handlers/create.go`, `transformDecodeError`).
pub(crate) fn unrecognized(body: &[u8], kind: &str, why: &str) -> Refusal {
    let some = &body[..body.len().min(SUMMARY)];
    let more = if body.len() > SUMMARY { " ..." } else { "" };
    let summary = match some {
        [] => "<empty>".to_owned(),
        [b'{', ..] => String::from_utf8_lossy(some).into_owned(),
        _ => some.iter().map(|byte| format!("{byte:02x}")).collect(),
    };
    let front = format!("the object provided is unrecognized (must be of type {kind})");
    Refusal::bad_request(format!("{front}: {why} ({summary}{more})"))
}

pub(crate) fn object(media: &str, body: &[u8], kind: &str) -> Result<Value, Refusal> {
    let bad = |why: String| match kind {
        // Options are read without a word about what they should have been.
        "" => Refusal::bad_request(why),
        kind => unrecognized(body, kind, &why),
    };
    let untyped = |why: String| {
        bad(format!(
            "couldn't get version/kind; json parse error: {why}"
        ))
    };
    let value = match media {
        JSON => gojson::read(body).map_err(untyped)?,
        YAML => yaml(body).map_err(|why| bad(format!("yaml: {why}")))?,
        PROTOBUF => return encoding::decode(body),
        _ => return Err(unsupported(&[JSON, YAML, PROTOBUF])),
    };
    let odd = ["apiVersion", "kind"].into_iter().find_map(|field| {
        let given = value
            .get(field)
            .filter(|given| !given.is_string() && !given.is_null())?;
        let of = schema::go_type_of(given);
        Some(format!(
            "json: cannot unmarshal {of} into Go struct field .{field} of type string"
        ))
    });
    match (gojson::other_type(&value, TYPE_META).or(odd), value) {
        (Some(why), _) => Err(untyped(why)),
        (None, Value::Null) => Ok(Value::Object(serde_json::Map::new())),
        (None, value) => Ok(value),
    }
}

/// Bytes of a bad body that its refusal repeats.
const SUMMARY: usize = 30;

/// What Go reads a body into first.
const TYPE_META: &str = "struct { APIVersion string \"json:\\\"apiVersion,omitempty\\\"\"; \
                         Kind string \"json:\\\"kind,omitempty\\\"\" }";

/// The first document in YAML. Of what is there twice the last counts.
fn yaml(mut body: &[u8]) -> Result<Value, String> {
    let mut options = Options::default();
    options.duplicate_keys = DuplicateKeyPolicy::LastWins;
    options.with_snippet = false;
    let first = serde_saphyr::read_with_options(&mut body, options).next();
    let first = first.transpose().map_err(|error| error.to_string())?;
    let mut first = first.unwrap_or_default();
    make_whole(&mut first);
    Ok(first)
}

/// What strict decoding says of the first key that YAML has twice.
pub(crate) fn twice(mut body: &[u8]) -> Vec<String> {
    let read = serde_saphyr::read::<_, Value>(&mut body).next();
    let error = read
        .and_then(Result::err)
        .map(|error| (error.location(), error.to_string()));
    let fault = error.and_then(|(at, text)| {
        let key = text
            .split_once("duplicate mapping key: ")?
            .1
            .split(',')
            .next()?;
        let line = at?.line();
        Some(format!("line {line}: key {key:?} already set in map"))
    });
    fault.into_iter().collect()
}

/// Reads what is to be applied, in YAML, of which JSON is a part.
pub(crate) fn applied(body: &[u8]) -> Result<Value, Refusal> {
    let bad = |why: String| Refusal::bad_request(format!("error decoding YAML: {why}"));
    let value = yaml(body);
    let value = value.map_err(|why| bad(format!("error converting YAML to JSON: yaml: {why}")))?;
    match gojson::other_type(&value, MAP) {
        Some(why) => Err(bad(format!(
            "error unmarshaling JSON: while decoding JSON: {why}"
        ))),
        None => Ok(value),
    }
}

const MAP: &str = "map[string]interface {}";

/// Reads a merge patch or a strategic one.
pub(crate) fn patch(media: &str, body: &[u8]) -> Result<Value, Refusal> {
    let read = gojson::read(body).and_then(|patch| match gojson::other_type(&patch, MAP) {
        Some(why) => Err(why),
        None => Ok(patch),
    });
    // Go reads it into no type.
    let read = read.map(|mut patch| {
        if media == STRATEGIC_PATCH {
            make_whole(&mut patch);
        }
        patch
    });
    read.map_err(|why| match media {
        STRATEGIC_PATCH => Refusal::bad_request(why),
        _ => Refusal::bad_request(format!("error decoding patch: {why}")),
    })
}

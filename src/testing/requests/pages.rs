//! Versions and pages of lists: in flow what a request says about them, out come the version and the
//! key that it means, and tokens for the next page (`k8s.io/apiserver/pkg/storage/continue.go`).

use base64::{
    DecodeError, Engine as _, alphabet,
    engine::general_purpose::{GeneralPurpose, NO_PAD},
};
use http::Response;
use serde_json::json;

use super::{gojson, target::Target};
use crate::{
    server::Refusal,
    testing::{
        objects::{
            Query,
            store::{self, Key},
        },
        router::{self, Body},
        values::json::text,
    },
    wire::status::{Status, StatusCause, StatusDetails},
};

/// Go does not mind bits that are left over.
const TOKENS: GeneralPurpose = GeneralPurpose::new(
    &alphabet::URL_SAFE,
    NO_PAD.with_decode_allow_trailing_bits(true),
);

/// The refusal of a version that is yet to come
/// (`k8s.io/apiserver/pkg/storage/errors.go`, `NewTooLargeResourceVersionError`).
pub(crate) fn too_large(wanted: u64, current: u64) -> Refusal {
    let message = format!("Timeout: Too large resource version: {wanted}, current: {current}");
    let mut status = Status::failure(504, "Timeout", message);
    status.details = Some(StatusDetails {
        causes: vec![StatusCause {
            reason: "ResourceVersionTooLarge".to_owned(),
            message: "Too large resource version".to_owned(),
            ..StatusCause::default()
        }],
        retry_after_seconds: 1,
        ..StatusDetails::default()
    });
    Refusal::new(status)
}

/// Which version a list is to be of, and after which key it goes on.
pub(crate) fn state(query: &Query, current: u64) -> Result<(Option<u64>, Option<Key>), Refusal> {
    let token = query.get("continue");
    if !token.is_empty() {
        let bad = |why: String| {
            let front = "invalid continue token: continue key is not valid";
            Refusal::bad_request(format!("{front}: {why}"))
        };
        let bytes = TOKENS
            .decode(token)
            .map_err(|error| bad(not_base64(&error, token)))?;
        let read = gojson::read(&bytes).map_err(bad)?;
        let (start, version) = (text(&read["start"]), read["rv"].as_i64().unwrap_or(0));
        match text(&read["v"]) {
            META if version == 0 => {
                let why = "incorrect encoded start resourceVersion (version meta.k8s.io/v1)";
                return Err(bad(why.to_owned()));
            }
            META if start.split('/').any(|part| part == "..") => return Err(bad(start.to_owned())),
            META => {}
            other => {
                let why = format!("server does not recognize this encoded version {other}");
                return Err(bad(why));
            }
        }
        if !["", "0"].contains(&query.get("resourceVersion")) {
            let why = "specifying resource version is not allowed when using continue";
            return Err(Refusal::bad_request(why));
        }
        let start = start.trim_end_matches('\0');
        let here = (&*query.target.namespace, start);
        let (namespace, name) = start.rsplit_once('/').unwrap_or(here);
        let after = store::key(query.target.resource(), namespace, name);
        return Ok((u64::try_from(version).ok(), Some(after)));
    }
    let how = query.get("resourceVersionMatch");
    let asked = query.version()?.filter(|version| *version != 0);
    if let Some(version) = asked.filter(|version| *version > current) {
        return Err(too_large(version, current));
    }
    // A page of a version is of that one, as before there was a way to say so. What is deleted is
    // listed in pages.
    let is_page = query.target.verb == "deletecollection" || query.number("limit")?.is_some();
    let exact = how == "Exact" || how.is_empty() && is_page;
    Ok((asked.filter(|_| exact), None))
}

/// The refusal of a list of a version that has been compacted
/// (`k8s.io/apiserver/pkg/storage/etcd3/errors.go`). Who was in its midst may go on with what is
/// there now.
pub(crate) fn compacted(target: &Target, after: Option<&Key>) -> Result<Response<Body>, Refusal> {
    let Some(after) = after else {
        let why = "The resourceVersion for the provided list is too old.";
        return Err(Refusal::new(Status::failure(410, "Expired", why)));
    };
    let message = "The provided continue parameter is too old to display a consistent list \
        result. You can start a new list without the continue parameter, or use the continue \
        token in this response to retrieve the remainder of the results. Continuing with the \
        provided token results in an inconsistent list - objects that were created, modified, or \
        deleted between the time the first chunk was returned and now may show up in the list.";
    Ok(router::object(
        410,
        &json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {"continue": token(-1, after, !target.namespace.is_empty())},
            "status": "Failure", "message": message, "reason": "Expired", "code": 410,
        }),
    ))
}

const META: &str = "meta.k8s.io/v1";

/// `k8s.io/apiserver/pkg/storage/continue.go`; the version is -1 for what is there now.
pub(crate) fn token(version: i64, last: &Key, in_namespace: bool) -> String {
    let start = match in_namespace || last.2.is_empty() {
        true => format!("{}\0", last.3),
        false => format!("{}/{}\0", last.2, last.3),
    };
    TOKENS.encode(json!({"v": META, "rv": version, "start": start}).to_string())
}

/// What Go says of a text that is no base64.
pub(crate) fn not_base64(error: &DecodeError, text: &str) -> String {
    let at = match error {
        DecodeError::InvalidByte(at, _) | DecodeError::InvalidLastSymbol(at, _) => *at,
        _ => text.len() / 4 * 4,
    };
    format!("illegal base64 data at input byte {at}")
}

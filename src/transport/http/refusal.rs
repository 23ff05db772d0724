//! Answers that are not the one hoped for: in flow code, headers and body, out comes the error.

use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, Response, StatusCode,
    header::{CONTENT_ENCODING, CONTENT_TYPE, LOCATION, RETRY_AFTER},
    response::Parts,
};
use hyper::body::Body;

use crate::{
    Error,
    error::{ApiError, Hint, PeerError, text::refusal as words},
    limits, net,
    wire::{
        status::Status,
        watch::{Encoding, Object},
    },
};

/// The error of an answer that refuses: its Status, or one made from the HTTP code and what else it
/// says. `operation` says what was asked. For the answers of
/// [`Client::send`](crate::Client::send), which come whatever their code is.
pub async fn refusal<B>(operation: &str, response: Response<B>) -> Error
where
    B: Body<Data = Bytes>,
{
    let (head, body) = response.into_parts();
    // A body that is cut off, too long or late still leaves the code.
    let body = net::short(body, limits::REFUSAL);
    let body = match tokio::time::timeout(limits::CLOSE_GRACE, body).await {
        Ok(Ok(Some(body))) => body,
        _ => Bytes::new(),
    };
    // Errors come in the encoding that was asked for
    // (`k8s.io/apiserver/pkg/endpoints/handlers/responsewriters/writers.go`, `ErrorNegotiated`).
    let encoding = text(&head.headers, CONTENT_TYPE).and_then(Encoding::from_content_type);
    let status = Object::new(encoding.unwrap_or(Encoding::Json), body.clone()).status();
    let mut status = match status {
        Ok(status) if !status.is_success() => status,
        // An answer of success is no answer to a request to upgrade.
        _ if head.status.is_success() => {
            let problem = format!("{} instead of upgrading", describe(&head));
            return PeerError::Handshake(problem).into();
        }
        _ => {
            let reason = head.status.canonical_reason().unwrap_or("Unknown");
            let code = head.status.as_u16();
            let is_text = !head.headers.contains_key(CONTENT_ENCODING);
            let said = words(code, text(&head.headers, CONTENT_TYPE), &body);
            let message = said.filter(|_| is_text).unwrap_or_else(|| describe(&head));
            Status::failure(code, reason.replace(' ', ""), message)
        }
    };
    if status.code == 0 {
        status.code = head.status.as_u16();
    }
    if let Some(seconds) = retry_after(&head.headers).and_then(|it| u32::try_from(it).ok()) {
        let details = status.details.get_or_insert_default();
        details.retry_after_seconds = details.retry_after_seconds.max(seconds);
    }
    let mut error = ApiError::new(operation, status);
    let hint = head.extensions.get::<Hint>();
    error.hint = error.hint.or_else(|| hint.cloned());
    Box::new(error).into()
}

/// The error of an answer of success that is not what was asked for, if its headers show that.
pub(crate) fn unexpected(operation: &str, head: &Parts) -> Option<Error> {
    let found = text(&head.headers, CONTENT_TYPE)?;
    let is_page = found.trim_start().starts_with("text/html");
    is_page.then(|| PeerError::answer(operation, describe(head)).into())
}

/// The code, what the headers say of the rest, and what is likely behind it.
fn describe(head: &Parts) -> String {
    let mut text = format!("it answered {}", head.status);
    let mut add = |what: &str, name: HeaderName| {
        if let Some(value) = self::text(&head.headers, name) {
            text.push_str(&format!(", {what} {value}"));
        }
    };
    add("content type", CONTENT_TYPE);
    add("encoded as", CONTENT_ENCODING);
    add("to go on at", LOCATION);
    let html = self::text(&head.headers, CONTENT_TYPE).is_some_and(|form| form.contains("html"));
    if head.status.is_redirection() || head.status.is_success() && html {
        // API servers do not redirect, and have no pages at the paths of their API.
        text.push_str("; this looks like a login page or a proxy in front of the API server");
    } else if head.status == StatusCode::UPGRADE_REQUIRED || head.status.is_success() {
        text.push_str("; a proxy on the way may strip the headers of an upgrade");
    }
    text
}

/// A header, if it is there and text.
pub(crate) fn text(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    headers.get(name)?.to_str().ok()
}

/// After how many seconds to ask again (RFC 9110, section 10.2.3); API servers never give a date.
pub(crate) fn retry_after(headers: &HeaderMap) -> Option<u64> {
    text(headers, RETRY_AFTER)?.trim().parse().ok()
}

//! How a server says no: in flows a Status, out comes the HTTP response that carries it.

use bytes::Bytes;
use http::{
    HeaderValue, Response, StatusCode,
    header::{CONNECTION, CONTENT_TYPE},
};
use http_body_util::Full;

use crate::{error::Error, wire::status::Status};

/// The refusal of a request.
///
/// ```
/// use kubewire::{server::Refusal, wire::status::Status};
///
/// let refusal = Refusal::new(Status::failure(403, "Forbidden", "not for you"));
/// assert_eq!(refusal.into_response().status(), 403);
/// ```
#[derive(Debug, Clone, thiserror::Error)]
#[error("refused with {code}{}", Message(.status.as_deref()))]
pub struct Refusal {
    code: StatusCode,
    /// Boxed, as it is large for an error.
    status: Option<Box<Status>>,
}

struct Message<'a>(Option<&'a Status>);

impl std::fmt::Display for Message<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Some(status) => write!(f, ": {status}"),
            None => Ok(()),
        }
    }
}

impl Refusal {
    /// A refusal with this Status as its body, and its `code` as the HTTP code; 500 if that is
    /// none.
    pub fn new(status: Status) -> Self {
        Self {
            code: StatusCode::from_u16(status.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
            status: Some(Box::new(status)),
        }
    }

    /// A refusal without a body.
    pub(crate) fn bare(code: StatusCode) -> Self {
        Self { code, status: None }
    }

    pub(crate) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(Status::failure(400, "BadRequest", message))
    }

    /// The HTTP code.
    pub fn code(&self) -> StatusCode {
        self.code
    }

    /// The Status, unless there is none: a WebSocket library of Go refuses a subprotocol with a
    /// bare 403.
    pub fn status(&self) -> Option<&Status> {
        self.status.as_deref()
    }

    /// The HTTP response.
    pub fn into_response(self) -> Response<Full<Bytes>> {
        let body = self.status.as_ref().map(|status| status.to_json());
        let mut response = Response::new(Full::new(body.clone().unwrap_or_default().into()));
        *response.status_mut() = self.code;
        let (name, value) = match body {
            Some(_) => (CONTENT_TYPE, "application/json"),
            None => (CONNECTION, "close"),
        };
        response
            .headers_mut()
            .insert(name, HeaderValue::from_static(value));
        response
    }
}

/// With [`Error::to_status`].
impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Self::new(error.to_status())
    }
}

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
#[error("refused with {code}{body}")]
pub struct Refusal {
    code: StatusCode,
    body: Words,
}

/// What is said besides the code.
#[derive(Debug, Clone)]
enum Words {
    Nothing,
    /// Boxed, as it is large for an error.
    Status(Box<Status>),
    #[cfg(all(feature = "testing", unix))]
    Text(String),
}

impl std::fmt::Display for Words {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Nothing => Ok(()),
            Self::Status(status) => write!(f, ": {status}"),
            #[cfg(all(feature = "testing", unix))]
            Self::Text(text) => write!(f, ": {text}"),
        }
    }
}

impl Refusal {
    /// A refusal with this Status as its body, and its `code` as the HTTP code; 500 if that is
    /// none.
    pub fn new(status: Status) -> Self {
        Self {
            code: StatusCode::from_u16(status.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
            body: Words::Status(Box::new(status)),
        }
    }

    /// A refusal without a body.
    pub(crate) fn bare(code: StatusCode) -> Self {
        let body = Words::Nothing;
        Self { code, body }
    }

    /// A refusal in plain text, as kubelets word theirs.
    #[cfg(all(feature = "testing", unix))]
    pub(crate) fn text(code: StatusCode, text: String) -> Self {
        let body = Words::Text(text);
        Self { code, body }
    }

    pub(crate) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(Status::failure(400, "BadRequest", message))
    }

    /// The HTTP code.
    pub fn code(&self) -> StatusCode {
        self.code
    }

    /// The Status, unless there is none: a WebSocket library of Go refuses a subprotocol with a
    /// bare 403, and a kubelet says in plain text what it has not got.
    pub fn status(&self) -> Option<&Status> {
        match &self.body {
            Words::Status(status) => Some(status),
            Words::Nothing => None,
            #[cfg(all(feature = "testing", unix))]
            Words::Text(_) => None,
        }
    }

    /// The HTTP response.
    pub fn into_response(self) -> Response<Full<Bytes>> {
        self.into()
    }
}

/// With any body that can be made of bytes, axum's among them: a handler's `?` answers.
impl<B: From<Bytes>> From<Refusal> for Response<B> {
    fn from(refusal: Refusal) -> Self {
        let (body, name, value) = match refusal.body {
            Words::Status(status) => {
                let mut json = status.to_json();
                // As Go's encoder ends what it writes.
                json.push(b'\n');
                (json, CONTENT_TYPE, "application/json")
            }
            #[cfg(all(feature = "testing", unix))]
            Words::Text(text) => (text.into_bytes(), CONTENT_TYPE, "text/plain; charset=utf-8"),
            Words::Nothing => (Vec::new(), CONNECTION, "close"),
        };
        let mut response = Self::new(Bytes::from(body).into());
        *response.status_mut() = refusal.code;
        response
            .headers_mut()
            .insert(name, HeaderValue::from_static(value));
        response
    }
}

/// With [`Error::to_status`], as a [`Refusal`] would answer.
impl<B: From<Bytes>> From<Error> for Response<B> {
    fn from(error: Error) -> Self {
        Refusal::from(error).into()
    }
}

/// With [`Error::to_status`].
impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Self::new(error.to_status())
    }
}

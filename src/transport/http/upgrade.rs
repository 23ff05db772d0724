//! The WebSocket handshake: in flow a request path and the subprotocols to offer, out comes the
//! open connection, or the server's refusal with its whole Status.
//!
//! hyper speaks HTTP, so that a refusal's body is read like any other; after the handshake its
//! connection is taken back and read directly.

use bytes::{Bytes, BytesMut};
use http::{
    HeaderMap, HeaderValue, Method, Request, Response, StatusCode,
    header::{
        CONNECTION, CONTENT_TYPE, HOST, RETRY_AFTER, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY,
        SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE, USER_AGENT,
    },
};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::{body::Body, client::conn::http1, upgrade::Upgraded};
use hyper_util::rt::TokioIo;
use tokio_tungstenite::tungstenite::handshake::{client::generate_key, derive_accept_key};

use crate::{
    AGENT, Result,
    auth::Connector,
    error::{ApiError, CallerError, Error, NetworkError, PeerError},
    limits,
    net::Connection,
    wire::{
        status::Status,
        watch::{Encoding, Object},
    },
};

/// A request for a WebSocket.
#[derive(Debug)]
pub(crate) struct Upgrade<'a> {
    /// What is asked, for errors: `exec in pod default/web-0`.
    pub(crate) operation: &'a str,
    pub(crate) path_and_query: &'a str,
    /// The value of the one `Sec-WebSocket-Protocol` line.
    pub(crate) offer: Option<&'a str>,
    /// More headers, such as `Origin`.
    pub(crate) headers: HeaderMap,
}

/// An open WebSocket connection.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) io: Connection,
    /// What the server sent behind its handshake.
    pub(crate) read: BytesMut,
    /// The subprotocol that the server chose, as it came.
    pub(crate) protocol: Option<String>,
}

/// Opens a WebSocket; a 401 renews the credentials and is tried once more.
pub(crate) async fn open(connector: &Connector, upgrade: Upgrade<'_>) -> Result<Opened> {
    let late = |_| NetworkError::TimedOut {
        operation: upgrade.operation.to_owned(),
        after: limits::OPEN,
    };
    let mut retried = false;
    loop {
        let mut headers = upgrade.headers.clone();
        connector.authorize(&mut headers).await?;
        let io = connector.connect().await?;
        let attempt = shake_hands(connector, &upgrade, headers.clone(), io);
        let opened = tokio::time::timeout(limits::OPEN, attempt)
            .await
            .map_err(late)?;
        match &opened {
            Err(Error::Api(refusal))
                if refusal.status.code == 401 && !retried && connector.refused(&headers) =>
            {
                retried = true;
            }
            _ => return opened,
        }
    }
}

async fn shake_hands(
    connector: &Connector,
    upgrade: &Upgrade<'_>,
    headers: HeaderMap,
    io: Connection,
) -> Result<Opened> {
    let key = generate_key();
    let mut request = Request::new(Empty::<Bytes>::new());
    *request.method_mut() = Method::GET;
    *request.uri_mut() = connector.uri(upgrade.path_and_query)?;
    let value = |text: &str| {
        HeaderValue::from_str(text)
            .map_err(|_| CallerError::Request(format!("bad header {text:?}")))
    };
    let fields = request.headers_mut();
    *fields = headers;
    fields.insert(HOST, connector.host().clone());
    fields.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    fields.insert(UPGRADE, HeaderValue::from_static("websocket"));
    fields.insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
    fields.insert(SEC_WEBSOCKET_KEY, value(&key)?);
    fields.insert(USER_AGENT, HeaderValue::from_static(AGENT));
    if let Some(offer) = upgrade.offer {
        fields.insert(SEC_WEBSOCKET_PROTOCOL, value(offer)?);
    }

    let (mut sender, connection) = http1::handshake(TokioIo::new(io))
        .await
        .map_err(http_error)?;
    // It lives until the handshake is over: then the connection is ours, or closed.
    let connection = tokio::spawn(connection.with_upgrades());
    let response = sender.send_request(request).await.map_err(http_error)?;
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        let refusal = refusal(upgrade.operation, response).await;
        connection.abort();
        return Err(refusal);
    }
    let protocol = check_answer(&key, &response)?;
    let upgraded = hyper::upgrade::on(response).await.map_err(http_error)?;
    take_back(upgraded, protocol)
}

fn take_back(upgraded: Upgraded, protocol: Option<String>) -> Result<Opened> {
    match upgraded.downcast::<TokioIo<Connection>>() {
        Ok(parts) => {
            let read = BytesMut::from(&parts.read_buf[..]);
            Ok(Opened {
                io: parts.io.into_inner(),
                read,
                protocol,
            })
        }
        Err(_) => Err(PeerError::Handshake("the connection was lost in the upgrade".into()).into()),
    }
}

/// Checks the server's half of the handshake (RFC 6455, section 4.1) and finds its subprotocol.
fn check_answer<B>(key: &str, response: &Response<B>) -> Result<Option<String>, PeerError> {
    let wrong = |what: &str| PeerError::Handshake(what.to_owned());
    let has = |name, token: &str| {
        let lines = response.headers().get_all(name).into_iter();
        lines
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .any(|part| part.trim().eq_ignore_ascii_case(token))
    };
    if !has(UPGRADE, "websocket") || !has(CONNECTION, "upgrade") {
        return Err(wrong("it does not upgrade to websocket"));
    }
    let accept = response.headers().get(SEC_WEBSOCKET_ACCEPT);
    if accept.is_none_or(|accept| accept.as_bytes() != derive_accept_key(key.as_bytes()).as_bytes())
    {
        return Err(wrong("Sec-WebSocket-Accept does not match the key"));
    }
    match response.headers().get(SEC_WEBSOCKET_PROTOCOL) {
        None => Ok(None),
        Some(value) => match value.to_str() {
            Ok(text) => Ok(Some(text.to_owned())),
            Err(_) => Err(wrong("Sec-WebSocket-Protocol is not text")),
        },
    }
}

/// The error of an answer that is not the one hoped for: its Status, or one made from the HTTP
/// code and what text there is.
pub(crate) async fn refusal<B>(operation: &str, response: Response<B>) -> Error
where
    B: Body<Data = Bytes>,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let (head, body) = response.into_parts();
    let body = Limited::new(body, limits::REFUSAL).collect();
    // A body that is cut off, too long or late still leaves the code.
    let body = match tokio::time::timeout(limits::CLOSE_GRACE, body).await {
        Ok(Ok(body)) => body.to_bytes(),
        _ => Bytes::new(),
    };
    // Errors come in the encoding that was asked for
    // (`k8s.io/apiserver/pkg/endpoints/handlers/responsewriters/writers.go`, `ErrorNegotiated`).
    let content_type = head.headers.get(CONTENT_TYPE);
    let encoding = content_type
        .and_then(|value| Encoding::from_content_type(value.to_str().ok()?))
        .unwrap_or(Encoding::Json);
    let status = Object::new(encoding, body.clone()).status();
    let mut status = status.unwrap_or_else(|_| {
        let text = String::from_utf8_lossy(&body);
        let reason = head.status.canonical_reason().unwrap_or("Unknown");
        let message = match text.trim() {
            "" => format!("the server answered {}", head.status),
            text => text.chars().take(1024).collect(),
        };
        Status::failure(head.status.as_u16(), reason.replace(' ', ""), message)
    });
    if status.is_success() {
        // An answer of success is no answer to a request to upgrade.
        return PeerError::Handshake(format!("it answered {} instead of upgrading", head.status))
            .into();
    }
    if status.code == 0 {
        status.code = head.status.as_u16();
    }
    // RFC 9110, section 10.2.3; API servers give seconds, never a date.
    let patience = head.headers.get(RETRY_AFTER).and_then(|v| v.to_str().ok());
    if let Some(seconds) = patience.and_then(|text| text.trim().parse().ok()) {
        let details = status.details.get_or_insert_default();
        details.retry_after_seconds = details.retry_after_seconds.max(seconds);
    }
    Box::new(ApiError::new(operation, status)).into()
}

/// An error of hyper, by who is to blame.
pub(crate) fn http_error(error: hyper::Error) -> Error {
    if error.is_parse() {
        return PeerError::Handshake(format!("it is not HTTP: {error}")).into();
    }
    NetworkError::Lost(std::sync::Arc::new(std::io::Error::other(error))).into()
}

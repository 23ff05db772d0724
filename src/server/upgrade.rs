//! The server's half of the WebSocket handshake: in flow a request's headers, out come the
//! subprotocols that it offers and the 101 response.

use std::{
    io,
    num::{IntErrorKind, ParseIntError},
};

use bytes::{Bytes, BytesMut};
use http::{
    HeaderValue, Method, Request, Response, StatusCode,
    header::{
        CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL,
        SEC_WEBSOCKET_VERSION, UPGRADE,
    },
};
use http_body_util::Full;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use percent_encoding::percent_decode_str;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::Refusal;
use crate::{
    Error, Result, Role,
    transport::ws::{
        handshake::upgrades,
        websocket::{Socket, WebSocket},
    },
};

/// What a request for a WebSocket says in its headers.
#[derive(Debug)]
pub(crate) struct Handshake {
    accept: HeaderValue,
    /// The subprotocols, comma-separated; empty for none.
    pub(crate) offer: String,
}

impl Handshake {
    /// Whether the request asks for a WebSocket, as servers tell where either is served
    /// (`k8s.io/streaming/pkg/httpstream/wsstream/conn.go`, `IsWebSocketRequest`).
    #[cfg(feature = "testing")]
    pub(crate) fn is_asked(headers: &http::HeaderMap) -> bool {
        upgrades(headers)
    }

    /// Checks the request (RFC 6455, section 4.2.1).
    pub(crate) fn check<B>(request: &Request<B>) -> Result<Self, Refusal> {
        let headers = request.headers();
        if request.method() != Method::GET || !upgrades(headers) {
            return Err(Refusal::bad_request("Upgrade request required"));
        }
        if headers
            .get(SEC_WEBSOCKET_VERSION)
            .map(HeaderValue::as_bytes)
            != Some(b"13")
        {
            return Err(Refusal::bad_request("missing or bad WebSocket Version"));
        }
        let accept = headers
            .get(SEC_WEBSOCKET_KEY)
            .filter(|key| !key.is_empty())
            .and_then(|key| HeaderValue::try_from(derive_accept_key(key.as_bytes())).ok())
            .ok_or_else(|| Refusal::bad_request("mismatch challenge/response"))?;
        // Of several lines only the first counts (`golang.org/x/net/websocket/hybi.go`).
        let offer = match headers.get(SEC_WEBSOCKET_PROTOCOL).map(HeaderValue::to_str) {
            None => String::new(),
            Some(Ok(offer)) => offer.to_owned(),
            Some(Err(_)) => return Err(Refusal::bare(StatusCode::FORBIDDEN)),
        };
        Ok(Self { accept, offer })
    }

    /// The response that opens the WebSocket with this subprotocol; empty for none.
    pub(crate) fn response(self, protocol: &str) -> Response<Full<Bytes>> {
        let mut response = Response::new(Full::default());
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let headers = response.headers_mut();
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(SEC_WEBSOCKET_ACCEPT, self.accept);
        // One that was offered in a header fits into one.
        if !protocol.is_empty()
            && let Ok(protocol) = HeaderValue::from_str(protocol)
        {
            headers.insert(SEC_WEBSOCKET_PROTOCOL, protocol);
        }
        response
    }
}

/// The WebSocket, once the 101 response has gone to the client.
pub(super) async fn opened(upgrade: OnUpgrade) -> Result<Box<dyn WebSocket>> {
    let upgraded = upgrade
        .await
        .map_err(|e| Error::lost(io::Error::other(e)))?;
    let socket = Socket::new(TokioIo::new(upgraded), Role::Server, BytesMut::new());
    Ok(Box::new(socket))
}

/// Why a text is no number, in the words of Go's strconv.
pub(crate) fn no_number(function: &str, text: &str, error: &ParseIntError) -> String {
    let why = match error.kind() {
        IntErrorKind::PosOverflow | IntErrorKind::NegOverflow => "value out of range",
        _ => "invalid syntax",
    };
    format!("strconv.{function}: parsing {text:?}: {why}")
}

/// The pairs of a query, decoded; a key without a value has an empty one. As in Go, those with a
/// semicolon or with `%` before anything else than two hexadecimal digits count for nothing.
pub(crate) fn query_pairs(query: &str) -> impl Iterator<Item = (String, String)> + '_ {
    let is_pair = |pair: &&str| !pair.is_empty() && !pair.contains(';') && is_escaped(pair);
    query.split('&').filter(is_pair).map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (decode(key), decode(value))
    })
}

/// Whether `%` is before two hexadecimal digits everywhere.
pub(crate) fn is_escaped(text: &str) -> bool {
    let is_hex = |digits: &[u8]| digits.iter().all(u8::is_ascii_hexdigit);
    let mut escapes = text.split('%').skip(1).map(str::as_bytes);
    escapes.all(|rest| rest.get(..2).is_some_and(is_hex))
}

/// As in a form: `+` is a space.
fn decode(text: &str) -> String {
    let text = text.replace('+', " ");
    percent_decode_str(&text).decode_utf8_lossy().into_owned()
}

//! The WebSocket handshake: in flow a request and the subprotocols to offer, out comes the open
//! connection, or the server's refusal with its whole Status.
//!
//! hyper speaks HTTP, so that a refusal's body is read like any other; after the handshake its
//! connection is taken back and read directly.

use bytes::BytesMut;
use http::{
    HeaderValue, Response, StatusCode,
    header::{
        CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL,
        SEC_WEBSOCKET_VERSION, UPGRADE,
    },
};
use hyper_util::rt::TokioIo;
use tokio_tungstenite::tungstenite::handshake::{client::generate_key, derive_accept_key};

use super::{Http, Outgoing, blame, header_value, refusal::refusal, target::Retargeted};
use crate::{Result, error::PeerError, net::Connection, transport::ws::handshake::upgrades};

/// An open WebSocket connection.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) io: Connection,
    /// What the server sent behind its handshake.
    pub(crate) read: BytesMut,
    /// The subprotocol that the server chose, as it came.
    pub(crate) protocol: Option<String>,
}

/// Opens a WebSocket, offering subprotocols: `offer` is the one line of that header.
///
/// It is tried again as any request is; see [`Http::send`].
pub(crate) async fn open(
    http: &Http,
    mut outgoing: Outgoing,
    offer: Option<&str>,
) -> Result<Opened> {
    let key = generate_key();
    let fields = &mut outgoing.headers;
    fields.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    fields.insert(UPGRADE, HeaderValue::from_static("websocket"));
    fields.insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
    fields.insert(SEC_WEBSOCKET_KEY, header_value(&key)?);
    if let Some(offer) = offer {
        fields.insert(SEC_WEBSOCKET_PROTOCOL, header_value(offer)?);
    }
    let operation = outgoing.operation.clone();
    let response = http.send(outgoing).await?;
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        return Err(refusal(&operation, response).await);
    }
    let protocol = check_answer(&key, &response)?;
    let upgraded = hyper::upgrade::on(response).await.map_err(blame)?;
    match upgraded.downcast::<TokioIo<Retargeted<Connection>>>() {
        Ok(parts) => Ok(Opened {
            io: parts.io.into_inner().into_inner(),
            read: BytesMut::from(&parts.read_buf[..]),
            protocol,
        }),
        Err(_) => Err(PeerError::Handshake("the connection was lost in the upgrade".into()).into()),
    }
}

/// Checks the server's half of the handshake (RFC 6455, section 4.1) and finds its subprotocol.
fn check_answer<B>(key: &str, response: &Response<B>) -> Result<Option<String>, PeerError> {
    let wrong = |what: &str| PeerError::Handshake(what.to_owned());
    if !upgrades(response.headers()) {
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

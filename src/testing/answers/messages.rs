//! Answers over WebSockets: in flow what would be a body, out come messages.

use std::{io, sync::Arc};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::{Buf as _, Bytes, BytesMut};
use http::{Request, Response, StatusCode, header::ORIGIN};
use http_body_util::Full;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::sync::mpsc::Receiver;

use crate::{
    Role,
    server::{Refusal, upgrade::Handshake},
    session::{Opcode, logs},
    testing::faults::{Faulty, Plan},
    transport::ws::{messages::Messages, websocket::Socket},
    wire::watch::Encoding,
};

/// Bytes of the largest message of a log (`k8s.io/streaming/pkg/httpstream/wsstream/stream.go`).
const CHUNK: usize = 2048;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Framing {
    /// A watch: an event each.
    Event(Encoding),
    /// A log in binary.
    Binary,
    /// A log in base64.
    Base64,
}

/// A WebSocket that is about to open.
pub(crate) struct Opening {
    upgrade: OnUpgrade,
    framing: Framing,
}

/// What is no handshake is refused by the WebSocket library, in text.
fn check<B>(request: &Request<B>) -> Result<Handshake, Refusal> {
    Handshake::check(request).map_err(|refusal| {
        let why = refusal.status().map(|status| status.message.clone());
        Refusal::text(refusal.code(), why.unwrap_or_default())
    })
}

impl Opening {
    pub(crate) fn is_asked<B>(request: &Request<B>) -> bool {
        Handshake::is_asked(request.headers())
    }

    /// A watch's: it has an `Origin`, and at most one subprotocol, whatever its name
    /// (`golang.org/x/net/websocket`, `server.go` and `hybi.go`).
    pub(crate) fn of_watch<B>(
        request: &mut Request<B>,
        encoding: Encoding,
    ) -> Result<(Self, Response<Full<Bytes>>), Refusal> {
        let handshake = check(request)?;
        if !request.headers().contains_key(ORIGIN) {
            return Err(Refusal::bare(StatusCode::FORBIDDEN));
        }
        let offer = handshake.offer.clone();
        if offer.contains(',') {
            return Err(Refusal::bare(StatusCode::BAD_REQUEST));
        }
        let framing = Framing::Event(encoding);
        Ok(Self::new(request, handshake, offer.trim(), framing))
    }

    pub(crate) fn of_log<B>(
        request: &mut Request<B>,
    ) -> Result<(Self, Response<Full<Bytes>>), Refusal> {
        let handshake = check(request)?;
        let mut offered = handshake.offer.split(',').map(str::trim);
        let chosen = match handshake.offer.trim() {
            "" => "",
            _ => offered
                .find_map(|name| logs::SUBPROTOCOLS.into_iter().find(|known| *known == name))
                .ok_or_else(|| Refusal::bare(StatusCode::FORBIDDEN))?,
        };
        let framing = match chosen.starts_with("base64") {
            true => Framing::Base64,
            false => Framing::Binary,
        };
        Ok(Self::new(request, handshake, chosen, framing))
    }

    fn new<B>(
        request: &mut Request<B>,
        handshake: Handshake,
        protocol: &str,
        framing: Framing,
    ) -> (Self, Response<Full<Bytes>>) {
        let upgrade = hyper::upgrade::on(request);
        (Self { upgrade, framing }, handshake.response(protocol))
    }

    /// Whether what is written is to arrive whole or not at all.
    pub(super) fn is_whole(&self) -> bool {
        matches!(self.framing, Framing::Event(_))
    }

    /// Sends what comes; an error cuts the connection.
    pub(super) async fn send(self, mut from: Receiver<Result<Bytes, io::Error>>) {
        let whole = self.is_whole();
        let Ok(upgraded) = self.upgrade.await else {
            return;
        };
        let plan = Arc::<Plan>::default();
        let io = Faulty::new(TokioIo::new(upgraded), plan.clone());
        let socket = Socket::new(io, Role::Server, BytesMut::new());
        let messages = Messages::spawn(Role::Server, Box::new(socket));
        if !whole && !messages.send(Opcode::Binary, Bytes::new()).await {
            return;
        }
        loop {
            let next = tokio::select! {
                next = from.recv() => next,
                () = messages.closed() => return,
            };
            match next {
                Some(Ok(bytes)) => {
                    if !self.framing.send(&messages, bytes).await {
                        return;
                    }
                }
                Some(Err(_)) => {
                    messages.flushed().await;
                    plan.fail_after(0, true);
                    return;
                }
                None => return messages.finish().await,
            }
        }
    }
}

impl Framing {
    async fn send(self, messages: &Messages, mut bytes: Bytes) -> bool {
        // JSON goes as text; nothing has the framing of a body, the newline or the length
        // (`k8s.io/apiserver/pkg/endpoints/handlers/watch.go`, `HandleWS`).
        match self {
            Self::Event(Encoding::Json) => {
                bytes.truncate(bytes.trim_ascii_end().len());
                return messages.send(Opcode::Text, bytes).await;
            }
            Self::Event(encoding) => {
                if encoding == Encoding::Protobuf {
                    bytes.advance(4);
                }
                return messages.send(Opcode::Binary, bytes).await;
            }
            Self::Binary | Self::Base64 => {}
        }
        while !bytes.is_empty() {
            let chunk = bytes.split_to(bytes.len().min(CHUNK));
            let sent = match self {
                Self::Base64 => {
                    let text = STANDARD.encode(&chunk);
                    messages.send(Opcode::Text, text.into()).await
                }
                _ => messages.send(Opcode::Binary, chunk).await,
            };
            if !sent {
                return false;
            }
        }
        true
    }
}

//! Four ways to a WebSocket: in flows the URL that a container runtime hands out, out comes what a
//! session runs over.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use bytes::BytesMut;
use futures_util::{Sink, SinkExt as _, Stream, StreamExt as _};
use kubewire::{
    AnyWebSocket, Client, Result, Role,
    exec::Subprotocol,
    session::{Close, Message},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{self, client::IntoClientRequest as _},
};

/// Whose WebSocket the session runs over.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Via {
    /// This crate's own handshake.
    Client,
    /// tokio-tungstenite's.
    Tungstenite,
    /// Any library's, through its messages.
    Messages,
    /// A byte stream after its handshake.
    Bytes,
}

/// Opens the URL that CRI gave, offering one subprotocol.
pub(crate) async fn open(
    url: &str,
    protocol: Subprotocol,
    via: Via,
) -> Result<(AnyWebSocket, Subprotocol)> {
    let rest = url.strip_prefix("http://").expect("CRI says http");
    let (authority, path) = rest.split_at(rest.find('/').expect("a path"));
    match via {
        Via::Client => {
            let client = Client::from_url(&format!("http://{authority}"))?;
            client.websocket(path, &[protocol]).await
        }
        Via::Tungstenite | Via::Messages => {
            let mut request = format!("ws://{rest}").into_client_request().expect("a URL");
            if let Some(offer) = Subprotocol::offer(&[protocol]) {
                let offer = offer.parse().expect("a header");
                request
                    .headers_mut()
                    .insert("Sec-WebSocket-Protocol", offer);
            }
            let tcp = TcpStream::connect(authority).await.expect("it listens");
            let (stream, answer) = client_async(request, tcp).await.expect("a handshake");
            let answer = answer.headers().get("Sec-WebSocket-Protocol");
            let answer = answer.map(|name| name.to_str().expect("text").to_owned());
            let protocol = Subprotocol::accept(answer.as_deref(), &[protocol]).expect("offered");
            let websocket = match via {
                Via::Messages => AnyWebSocket::from_messages(Library(stream), incoming, outgoing),
                _ => stream.into(),
            };
            Ok((websocket, protocol))
        }
        Via::Bytes => {
            let mut tcp = TcpStream::connect(authority).await.expect("it listens");
            let offer = Subprotocol::offer(&[protocol])
                .map(|names| format!("Sec-WebSocket-Protocol: {names}\r\n"));
            let request = format!(
                "GET {path} HTTP/1.1\r\nHost: {authority}\r\nConnection: Upgrade\r\n\
                 Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                 Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{}\r\n",
                offer.unwrap_or_default()
            );
            tcp.write_all(request.as_bytes()).await.expect("it reads");
            let mut answer = BytesMut::new();
            let end = loop {
                tcp.read_buf(&mut answer).await.expect("it answers");
                if let Some(at) = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                    break at + 4;
                }
            };
            let head = answer.split_to(end);
            assert!(head.starts_with(b"HTTP/1.1 101 "), "{head:?}");
            let websocket = AnyWebSocket::from_io(tcp, Role::Client, answer.freeze());
            Ok((websocket, protocol))
        }
    }
}

/// Another library, with message and error types that this crate has never heard of.
struct Library(WebSocketStream<TcpStream>);

#[derive(Debug)]
struct Odd(tungstenite::Message);

impl Stream for Library {
    type Item = Result<Odd, tungstenite::Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_next_unpin(cx).map_ok(Odd)
    }
}

impl Sink<Odd> for Library {
    type Error = tungstenite::Error;

    fn poll_ready(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.0.poll_ready_unpin(cx)
    }

    fn start_send(mut self: Pin<&mut Self>, item: Odd) -> Result<(), Self::Error> {
        self.0.start_send_unpin(item.0)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.0.poll_flush_unpin(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.0.poll_close_unpin(cx)
    }
}

fn incoming(Odd(message): Odd) -> Option<Message> {
    match message {
        tungstenite::Message::Text(text) => Some(Message::Text(text.into())),
        tungstenite::Message::Binary(bytes) => Some(Message::Binary(bytes)),
        // The library has answered it.
        tungstenite::Message::Ping(_) | tungstenite::Message::Frame(_) => None,
        tungstenite::Message::Pong(bytes) => Some(Message::Pong(bytes)),
        tungstenite::Message::Close(close) => Some(Message::Close(close.map(|close| Close {
            code: close.code.into(),
            reason: close.reason.to_string(),
        }))),
    }
}

fn outgoing(message: Message) -> Option<Odd> {
    match message {
        Message::Text(bytes) => {
            let text = String::from_utf8(bytes.to_vec()).expect("base64");
            Some(Odd(tungstenite::Message::Text(text.into())))
        }
        Message::Binary(bytes) => Some(Odd(tungstenite::Message::Binary(bytes))),
        Message::Ping(bytes) => Some(Odd(tungstenite::Message::Ping(bytes))),
        Message::Pong(_) => None,
        Message::Close(_) => Some(Odd(tungstenite::Message::Close(None))),
    }
}

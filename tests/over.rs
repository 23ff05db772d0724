//! Sessions over WebSockets that someone else connected: in flows a connection in memory, held by
//! tokio-tungstenite, by a library that this crate does not know, or by nobody, out comes the same
//! child.

#![cfg(feature = "client")]

use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use kubewire::{
    AnyWebSocket, Error, Role,
    attach::Attached,
    error::{CallerError, NetworkError, PeerError},
    exec::{Child, Streams, Subprotocol},
    limits,
    session::{Close, Message},
};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, DuplexStream};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{self, Message as Theirs, protocol::CloseFrame, protocol::Role as TheirRole},
};

const STREAMS: Streams = Streams {
    stdin: true,
    stdout: true,
    stderr: true,
    tty: false,
};
const SUCCESS: &[u8] = b"\x03{\"metadata\":{},\"status\":\"Success\"}";

/// Who holds the client's end.
#[derive(Debug, Clone, Copy)]
enum Holder {
    Nobody,
    Tungstenite,
    Unknown,
}

const HOLDERS: [Holder; 3] = [Holder::Nobody, Holder::Tungstenite, Holder::Unknown];

async fn hold<S>(io: S, holder: Holder) -> AnyWebSocket
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let stream = async |io| WebSocketStream::from_raw_socket(io, TheirRole::Client, None).await;
    match holder {
        Holder::Nobody => AnyWebSocket::from_io(io, Role::Client, Bytes::new()),
        Holder::Tungstenite => stream(io).await.into(),
        Holder::Unknown => AnyWebSocket::from_messages(stream(io).await, incoming, outgoing),
    }
}

fn incoming(message: Theirs) -> Option<Message> {
    match message {
        Theirs::Text(text) => Some(Message::Text(text.into())),
        Theirs::Binary(bytes) => Some(Message::Binary(bytes)),
        Theirs::Pong(bytes) => Some(Message::Pong(bytes)),
        Theirs::Close(close) => Some(Message::Close(close.map(|close| Close {
            code: close.code.into(),
            reason: close.reason.to_string(),
        }))),
        // It has been answered already.
        Theirs::Ping(_) | Theirs::Frame(_) => None,
    }
}

fn outgoing(message: Message) -> Option<Theirs> {
    match message {
        Message::Binary(bytes) => Some(Theirs::Binary(bytes)),
        Message::Ping(bytes) => Some(Theirs::Ping(bytes)),
        Message::Text(_) | Message::Pong(_) | Message::Close(_) => None,
    }
}

/// A client's end, held by `holder`, and the server's.
async fn pair(holder: Holder) -> (AnyWebSocket, WebSocketStream<DuplexStream>) {
    let (near, far) = tokio::io::duplex(256 << 10);
    let server = WebSocketStream::from_raw_socket(far, TheirRole::Server, None).await;
    (hold(near, holder).await, server)
}

fn normal() -> Theirs {
    Theirs::Close(Some(CloseFrame {
        code: Close::NORMAL.into(),
        reason: "".into(),
    }))
}

/// What arrives until the connection ends.
async fn drain(mut server: WebSocketStream<DuplexStream>) -> Vec<Theirs> {
    let mut seen = Vec::new();
    while let Some(Ok(message)) = server.next().await {
        seen.push(message);
    }
    seen
}

#[track_caller]
fn patiently<T>(what: impl Future<Output = T>) -> impl Future<Output = T> {
    let limit = Duration::from_secs(300);
    let whose = std::panic::Location::caller();
    async move {
        match tokio::time::timeout(limit, what).await {
            Ok(value) => value,
            Err(_) => panic!("it hangs: {whose}"),
        }
    }
}

#[tokio::test]
async fn whoever_holds_the_connection_the_child_is_the_same() {
    for holder in HOLDERS {
        let (websocket, mut server) = pair(holder).await;
        let mut child = Child::over(websocket, Subprotocol::V5, STREAMS).spawn();
        let mut stdin = child.stdin.take().expect("asked for");
        stdin.write_all(b"input").await.expect("it is taken");
        stdin.shutdown().await.expect("v5 can");
        let first = patiently(server.next()).await.expect("a message");
        assert_eq!(first.expect("good"), Theirs::binary(&b"\0input"[..]));
        let second = patiently(server.next()).await.expect("a message");
        assert_eq!(second.expect("good"), Theirs::binary(&b"\xff\0"[..]));
        for message in [&b"\x01out"[..], b"\x02err", b"", b"\x01put", SUCCESS] {
            server.feed(Theirs::binary(message)).await.expect("room");
        }
        server.send(normal()).await.expect("room");
        let output = patiently(child.wait_with_output()).await.expect("it ends");
        assert!(output.status.success(), "{holder:?}");
        assert_eq!(output.stdout, b"output");
        assert_eq!(output.stderr, b"err");
        let rest = patiently(drain(server)).await;
        assert_eq!(rest.len(), 1, "{holder:?}: one answer to the close frame");
        assert!(rest[0].is_close());
    }
}

#[tokio::test]
async fn a_ping_is_answered_once() {
    for holder in HOLDERS {
        let (websocket, mut server) = pair(holder).await;
        let mut child = Child::over(websocket, Subprotocol::V4, STREAMS).spawn();
        let ping = |text: &'static str| Theirs::Ping(Bytes::from_static(text.as_bytes()));
        server.send(ping("one")).await.expect("room");
        let pong = patiently(server.next()).await.expect("a message");
        assert_eq!(
            pong.expect("good"),
            Theirs::Pong(Bytes::from_static(b"one"))
        );
        server.send(Theirs::binary(SUCCESS)).await.expect("room");
        server.send(normal()).await.expect("room");
        let status = patiently(child.wait()).await.expect("it ends");
        assert!(status.success());
        let rest = patiently(drain(server)).await;
        assert!(!rest.iter().any(Theirs::is_pong), "{holder:?}: {rest:?}");
    }
}

#[tokio::test]
async fn what_was_read_behind_the_handshake_counts() {
    let (near, far) = tokio::io::duplex(4096);
    let early = Bytes::from_static(b"\x82\x04\x01out\x82\x24\x03{\"metadata\":{},");
    let late = b"\"status\":\"Success\"}\x88\x02\x03\xe8";
    assert_eq!(SUCCESS.len(), 0x23);
    let mut early = early.to_vec();
    early[7] = 0x23;
    let websocket = AnyWebSocket::from_io(near, Role::Client, early.into());
    let child = Child::over(websocket, Subprotocol::V5, STREAMS).spawn();
    let (_read, mut write) = tokio::io::split(far);
    write.write_all(late).await.expect("room");
    let output = patiently(child.wait_with_output()).await.expect("it ends");
    assert_eq!(output.stdout, b"out");
    assert!(output.status.success());
}

#[tokio::test]
async fn a_connection_that_breaks_is_no_success() {
    for holder in HOLDERS {
        for half in [false, true] {
            let (near, mut far) = tokio::io::duplex(4096);
            let mut child = Child::over(hold(near, holder).await, Subprotocol::V5, STREAMS).spawn();
            far.write_all(b"\x82\x04\x01out").await.expect("room");
            if half {
                far.write_all(b"\x82\x23\x03{").await.expect("room");
            }
            drop(far);
            let mut stdout = child.stdout.take().expect("asked for");
            let mut text = Vec::new();
            let broken = patiently(stdout.read_to_end(&mut text)).await;
            assert_eq!(text, b"out", "{holder:?}");
            assert!(broken.is_err(), "{holder:?}");
            let error = patiently(child.wait()).await.expect_err("it is lost");
            assert!(
                matches!(
                    error,
                    Error::Network(NetworkError::ClosedWithoutStatus { .. })
                ),
                "{holder:?}: {error:?}"
            );
        }
    }
}

/// Input that nobody is known to have read excuses silence for hours, but not this.
#[tokio::test(start_paused = true)]
async fn a_connection_that_breaks_as_it_is_written_to_ends_with_why() {
    for holder in HOLDERS {
        let (read, _silent) = tokio::io::duplex(64);
        let (write, gone) = tokio::io::duplex(64);
        drop(gone);
        let io = tokio::io::join(read, write);
        let begin = tokio::time::Instant::now();
        let mut child = Child::over(hold(io, holder).await, Subprotocol::V5, STREAMS).spawn();
        let mut stdin = child.stdin.take().expect("asked for");
        let _ = stdin.write_all(b"hello").await;
        let error = patiently(child.wait()).await.expect_err("it is lost");
        let text = error.to_string();
        assert!(text.contains("broken pipe"), "{holder:?}: {text}");
        assert!(begin.elapsed() <= limits::CLOSE_GRACE + Duration::from_secs(1));
    }
}

#[tokio::test]
async fn a_frame_that_is_none_is_the_peer_s_fault() {
    for holder in HOLDERS {
        let (near, mut far) = tokio::io::duplex(4096);
        let mut child = Child::over(hold(near, holder).await, Subprotocol::V5, STREAMS).spawn();
        // Reserved bits.
        far.write_all(b"\xf2\x04\x01out").await.expect("room");
        let error = patiently(child.wait()).await.expect_err("it is broken");
        match holder {
            Holder::Nobody => assert!(matches!(error, Error::Peer(PeerError::WebSocket(_)))),
            Holder::Tungstenite => {
                assert!(matches!(error, Error::Peer(PeerError::WebSocketLibrary(_))));
            }
            // Whose fault it is only the library can tell.
            Holder::Unknown => assert!(matches!(error, Error::Network(_))),
        }
    }
}

#[tokio::test]
async fn attaching_ends_with_the_server_s_word() {
    for holder in HOLDERS {
        let (websocket, mut server) = pair(holder).await;
        let mut attached = Attached::over(websocket, Subprotocol::V4Base64, STREAMS).spawn();
        let text = |text: &str| Theirs::text(text);
        server.send(text("1aGk=")).await.expect("room");
        let mut stdout = attached.stdout.take().expect("asked for");
        let mut hi = [0; 2];
        patiently(stdout.read_exact(&mut hi)).await.expect("output");
        assert_eq!(&hi, b"hi");
        server
            .send(text("3eyJzdGF0dXMiOiJTdWNjZXNzIn0="))
            .await
            .expect("room");
        server.send(normal()).await.expect("room");
        patiently(attached.wait()).await.expect("it ends");
    }
}

#[tokio::test]
async fn bounds_can_be_chosen() {
    for holder in HOLDERS {
        let (websocket, mut server) = pair(holder).await;
        let over = Child::over(websocket, Subprotocol::V5, STREAMS);
        let mut child = over.buffer(1000).max_output(10).spawn();
        let mut message = vec![0; 2001];
        message[0] = 2;
        server.send(Theirs::binary(message)).await.expect("room");
        server.send(Theirs::binary(SUCCESS)).await.expect("room");
        server.send(normal()).await.expect("room");
        let error = patiently(child.wait()).await.expect_err("it is full");
        assert!(matches!(
            error,
            Error::Caller(CallerError::Unread {
                stream: "stderr",
                bytes: 1000
            })
        ));
        let error = patiently(child.wait_with_output()).await;
        assert!(matches!(
            error,
            Err(Error::Caller(CallerError::TooMuchOutput { limit: 10 }))
        ));
    }
}

/// A child that is kept after its status does not keep the connection: nobody polls it any more.
#[tokio::test]
async fn a_server_that_closes_late_is_answered_at_once() {
    for holder in HOLDERS {
        let (websocket, mut server) = pair(holder).await;
        let mut child = Child::over(websocket, Subprotocol::V4, STREAMS).spawn();
        server.send(Theirs::binary(SUCCESS)).await.expect("room");
        assert!(patiently(child.wait()).await.expect("it ends").success());
        tokio::time::sleep(Duration::from_millis(50)).await;
        server.send(normal()).await.expect("room");
        // Less than `limits::LINGER`, at which the session would let go by itself.
        let limit = Duration::from_secs(300);
        let rest = tokio::time::timeout(limit, drain(server)).await;
        let rest = rest.unwrap_or_else(|_| panic!("{holder:?}: no answer"));
        assert!(matches!(rest[..], [Theirs::Close(_)]), "{rest:?}");
        drop(child);
    }
}

#[tokio::test]
async fn large_input_arrives_whole_whoever_holds_the_connection() {
    for holder in HOLDERS {
        let (websocket, mut server) = pair(holder).await;
        let mut child = Child::over(websocket, Subprotocol::V5, STREAMS).spawn();
        let mut stdin = child.stdin.take().expect("asked for");
        let data: Vec<u8> = (0..3_000_000u32).map(|at| (at % 251) as u8).collect();
        let sent = data.clone();
        let write = tokio::spawn(async move {
            stdin.write_all(&sent).await.expect("it is taken");
            stdin.shutdown().await.expect("v5 can");
        });
        let mut received = Vec::new();
        loop {
            let message: Result<Theirs, tungstenite::Error> =
                patiently(server.next()).await.expect("a message");
            match &message.expect("good").into_data()[..] {
                [0, bytes @ ..] => received.extend_from_slice(bytes),
                [0xff, 0] => break,
                other => panic!("{other:?}"),
            }
        }
        assert!(received == data, "{holder:?}");
        patiently(write).await.expect("it is done");
        drop(child);
    }
}

#[tokio::test]
async fn input_that_nobody_took_is_counted() {
    for holder in HOLDERS {
        let (near, far) = tokio::io::duplex(1 << 10);
        let mut server = WebSocketStream::from_raw_socket(far, TheirRole::Server, None).await;
        let mut child = Child::over(hold(near, holder).await, Subprotocol::V5, STREAMS).spawn();
        let mut stdin = child.stdin.take().expect("piped");
        patiently(stdin.write_all(&[7; 100_000])).await.unwrap();
        // The server has read nothing when it says how the process ended.
        patiently(server.send(Theirs::Binary(SUCCESS.into())))
            .await
            .unwrap();
        let status = patiently(child.wait()).await.unwrap();
        let input = status.input_at_exit();
        assert!(status.success() && !input.closed, "{holder:?}: {input:?}");
        let unsent = 100_000 - (1 << 10)..100_000 + 64;
        assert!(unsent.contains(&input.unsent), "{holder:?}: {input:?}");
    }
}

#[tokio::test]
async fn exit_codes_of_all_32_bits_are_told() {
    for (raw, code) in [
        (1, Some(1)),
        (300, Some(300)),
        (-1, Some(-1)),
        (3_221_225_786, Some(-1_073_741_510)),
        (4_294_967_295, Some(-1)),
        (4_294_967_296, None),
    ] {
        let (websocket, mut server) = pair(Holder::Nobody).await;
        let mut child = Child::over(websocket, Subprotocol::V4, STREAMS).spawn();
        let json = kubewire::wire::status::Status::exit_code(raw).to_json();
        let status = [&[3], &json[..]].concat();
        patiently(server.send(Theirs::Binary(status.into())))
            .await
            .unwrap();
        let status = patiently(child.wait()).await.unwrap();
        assert_eq!((status.raw_code(), status.code()), (raw, code));
        assert_eq!(status.to_string(), format!("exit status: {raw}"));
        assert!(!status.success());
    }
}

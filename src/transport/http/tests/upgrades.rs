//! Requests that ask for another protocol.

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::*;
use crate::{error::PeerError, session::Subprotocol};

async fn listen() -> (TcpListener, Client) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = client(listener.local_addr().unwrap());
    (listener, client)
}

/// A connection and the head of its request.
async fn accept(listener: &TcpListener) -> (TcpStream, String) {
    let (mut tcp, _) = listener.accept().await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(tcp.read_u8().await.unwrap());
    }
    (tcp, String::from_utf8(head).unwrap())
}

#[tokio::test]
async fn a_websocket_that_is_asked_to_wait_is_tried_again() {
    let (address, got) = serve(|at, _| match at {
        0 => patient(429, "0"),
        1 => patient(503, "0"),
        _ => answer(200, ""),
    })
    .await;
    let client = client(address);
    let opened = client.websocket("/x", &[Subprotocol::V5]).await;
    assert_eq!(opened.unwrap_err().status().unwrap().code, 503);
    assert_eq!(got.lock().unwrap().len(), 2, "after 503 it may have begun");
}

#[tokio::test]
async fn answers_of_code_100_without_end_are_an_error_and_end_the_connection() {
    for upgrade in [Some(true), Some(false), None] {
        let (listener, client) = listen().await;
        let server = tokio::spawn(async move {
            let (mut tcp, _) = accept(&listener).await;
            while tcp
                .write_all(b"HTTP/1.1 100 Continue\r\n\r\n")
                .await
                .is_ok()
            {}
        });
        let error = match upgrade {
            Some(true) => client
                .pod("a", "p")
                .exec(["date"])
                .spawn()
                .await
                .unwrap_err(),
            Some(false) => send(&client, Method::GET).await.unwrap_err(),
            None => {
                let body = Full::new(Bytes::from_static(b"x"));
                client.send_streamed(Request::new(body)).await.unwrap_err()
            }
        };
        let is_peer = matches!(error, Error::Peer(PeerError::Http(_)));
        assert!(is_peer, "{error:?}");
        server.await.unwrap();
    }
}

/// Slow enough for the bound on their number never to be reached.
#[tokio::test]
async fn answers_of_code_100_do_not_put_off_the_deadline() {
    for upgrade in [true, false] {
        let (listener, client) = listen().await;
        let server = tokio::spawn(async move {
            let (mut tcp, _) = accept(&listener).await;
            tokio::time::pause();
            let mut sent = 0;
            while tcp
                .write_all(b"HTTP/1.1 100 Continue\r\n\r\n")
                .await
                .is_ok()
            {
                sent += 1;
                tokio::time::sleep(Duration::from_secs(20)).await;
            }
            sent
        });
        let error = match upgrade {
            true => client.pod("a", "p").exec(["date"]).spawn().await.map(drop),
            false => send(&client, Method::GET).await.map(drop),
        };
        let deadline = if upgrade {
            limits::OPEN
        } else {
            limits::REQUEST
        };
        assert!(
            matches!(&error, Err(Error::Network(NetworkError::TimedOut { after, .. }))
                if *after == deadline),
            "{error:?}"
        );
        // The connection is closed.
        assert!(server.await.unwrap() >= deadline.as_secs() / 20);
        tokio::time::resume();
    }
}

#[tokio::test]
async fn a_few_answers_of_code_100_do_no_harm() {
    let (listener, client) = listen().await;
    tokio::spawn(async move {
        let (mut tcp, _) = accept(&listener).await;
        let hints = "HTTP/1.1 103 Early Hints\r\n\r\n".repeat(limits::INFORMATIONAL);
        let answer = format!("{hints}HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
        tcp.write_all(answer.as_bytes()).await.unwrap();
    });
    assert_eq!(send(&client, Method::GET).await.unwrap(), 200);
}

#[tokio::test]
async fn an_argument_of_70_kb_reaches_the_server() {
    let (listener, client) = listen().await;
    let server = tokio::spawn(async move {
        let (mut tcp, head) = accept(&listener).await;
        let key = head.split_once("sec-websocket-key: ").unwrap().1;
        let accepted = derive_accept_key(key.split_once('\r').unwrap().0.as_bytes());
        let answer = format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: {accepted}\r\nSec-WebSocket-Protocol: v5.channel.k8s.io\r\n\r\n"
        );
        // A message of stdout, "hi", in the same segment.
        let answer = [answer.as_bytes(), b"\x82\x03\x01hi"].concat();
        tcp.write_all(&answer).await.unwrap();
        (tcp, head)
    });
    let argument = "x".repeat(70_000);
    let exec = client.pod("a", "p").exec(["echo", &argument]);
    let mut child = exec.spawn().await.unwrap();
    let (_tcp, head) = server.await.unwrap();
    let line = head.split_once("\r\n").unwrap().0;
    let path = "/base/api/v1/namespaces/a/pods/p/exec?stdout=true&stderr=true";
    let expected = format!("GET {path}&command=echo&command={argument} HTTP/1.1");
    assert!(line == expected, "{} bytes", line.len());
    let mut read = [0; 2];
    let mut stdout = child.stdout.take().unwrap();
    stdout.read_exact(&mut read).await.unwrap();
    assert_eq!(&read, b"hi");
}

#[tokio::test]
async fn a_selector_of_70_kb_reaches_the_server() {
    let (listener, client) = listen().await;
    let server = tokio::spawn(async move {
        let (mut tcp, head) = accept(&listener).await;
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi";
        tcp.write_all(answer).await.unwrap();
        (tcp, head)
    });
    let path = format!("/api/v1/pods?labelSelector={}", "x".repeat(70_000));
    let answer = client.http().send(Outgoing::get("test", &path)).await;
    assert_eq!(answer.unwrap().into_body().bytes(9).await.unwrap(), "hi");
    let (_tcp, head) = server.await.unwrap();
    let line = head.split_once("\r\n").unwrap().0;
    assert!(
        line == format!("GET /base{path} HTTP/1.1"),
        "{} bytes",
        line.len()
    );
}

#[tokio::test]
async fn errors_do_not_repeat_arguments() {
    let (_listener, client) = listen().await;
    let path = format!("/x?command={}é", "secret".repeat(1000));
    let error = client.websocket(&path, &[Subprotocol::V5]).await;
    let error = error.unwrap_err().to_string();
    assert!(!error.contains("secret"), "{error}");
    let (address, _) = serve(|_, _| answer(403, "")).await;
    let client = super::client(address);
    let path = "/x?command=secret";
    let error = client.websocket(path, &[Subprotocol::V5]).await;
    let error = error.unwrap_err().to_string();
    assert!(!error.contains("secret"), "{error}");
}

/// Keeps the text of every event.
#[derive(Clone, Default)]
pub(crate) struct Events(pub(crate) Arc<Mutex<String>>);

impl tracing::field::Visit for Events {
    fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
        let text = format!("{field}={value:?} ");
        self.0.lock().unwrap().push_str(&text);
    }
}

impl tracing::Subscriber for Events {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        metadata.target().starts_with("kubewire")
    }

    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}
    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        event.record(&mut self.clone());
        self.0.lock().unwrap().push('\n');
    }

    fn enter(&self, _: &tracing::span::Id) {}
    fn exit(&self, _: &tracing::span::Id) {}
}

#[tokio::test]
async fn every_request_is_traced_without_secrets() {
    let (address, _) = serve(|at, _| match at {
        0 => patient(429, "0"),
        4 => {
            let mut moved = answer(302, "");
            let to = HeaderValue::from_static("https://login.example.com/");
            moved.headers_mut().insert(http::header::LOCATION, to);
            moved
        }
        _ => answer(200, "{}"),
    })
    .await;
    let config = Config::new(&format!("http://{address}/base")).unwrap();
    let client = Client::new(&config.with_token("hunter2")).unwrap();
    let request = |method: &str, path: &str| {
        let request = Request::builder().method(method).uri(path);
        let secret = "base64url.bearer.authorization.k8s.io.hunter2";
        let request = request
            .header("cookie", "hunter2")
            .header("x-api-key", "hunter2");
        request.header("sec-websocket-protocol", secret)
    };
    let events = Events::default();
    let guard = traced(events.clone());
    let body = Bytes::from_static(b"hunter2");
    client
        .send(request("GET", "/plain").body(body.clone()).unwrap())
        .await
        .unwrap();
    let streamed = request("POST", "/streamed").body(Full::new(body.clone()));
    client.send_streamed(streamed.unwrap()).await.unwrap();
    let upgrade = request("GET", "/upgrade").body(body).unwrap();
    client.send_upgrade(upgrade).await.unwrap();
    // It is no WebSocket.
    client
        .pod("a", "p")
        .exec(["date"])
        .spawn()
        .await
        .unwrap_err();
    drop(guard);
    let text = events.0.lock().unwrap().clone();
    for line in [
        "curl -X GET ",
        "/base/plain'",
        "curl -X POST ",
        "/base/streamed' --data-binary @-",
        "/base/upgrade'",
        "/base/api/v1/namespaces/a/pods/p/exec?",
    ] {
        assert!(text.contains(line), "{line}: {text}");
    }
    // What is sent again is told again.
    let told = text
        .lines()
        .filter(|line| line.starts_with("message=answered "));
    let told: Vec<_> = told.map(|line| line.split_once("ms=").unwrap().0).collect();
    let base = format!("http://{address}/base");
    assert_eq!(
        told,
        [
            format!("message=answered method=GET url={base}/plain status=429 Too Many Requests "),
            format!("message=answered method=GET url={base}/plain status=200 OK "),
            format!("message=answered method=POST url={base}/streamed status=200 OK "),
            format!("message=answered method=GET url={base}/upgrade status=200 OK "),
            format!(
                "message=answered method=GET url={base}/api/v1/namespaces/a/pods/p/exec \
                 status=302 Found location=\"https://login.example.com/\" "
            ),
        ]
    );
    assert!(!text.contains("hunter2"), "{text}");
}

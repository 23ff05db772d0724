//! port-forward against the streaming server of the container runtime.
//!
//! A client asks an API server, and the runtime has URLs of its own that work once. Between them
//! stands what a kubelet does there: it asks CRI for a URL, and passes the bytes on to it.

use std::{io, time::Duration};

use bytes::BytesMut;
use futures_util::{SinkExt as _, StreamExt as _};
use kubewire::{
    Client, Error, limits,
    port_forward::{ForwardStream, Listener, PortForward},
    session::port_forward::ForwardProtocol,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{Message, handshake::derive_accept_key, protocol::Role},
};

use super::{Containerd, cri, shared};

/// Nothing here takes longer, except on a machine that is very busy.
const PATIENCE: Duration = Duration::from_secs(60);

/// An application that has taken nothing for so long does not read.
const QUIET: Duration = limits::FORWARD_STALL;

/// How the runtime is reached.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Way {
    /// Its WebSockets, as they are.
    Channels,
    /// Its SPDY connections, in the messages of a WebSocket, as API servers do it
    /// (`k8s.io/apiserver/pkg/util/proxy/streamtunnel.go`).
    Tunnel,
}

/// A client whose API server is the runtime.
async fn forward(containerd: &'static Containerd, way: Way) -> PortForward {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            tokio::spawn(pass_on(socket, containerd, way));
        }
    });
    let client = Client::from_url(&format!("http://{address}")).expect("a URL");
    client.pod("default", "pod").port_forward()
}

async fn pass_on(mut socket: TcpStream, containerd: &Containerd, way: Way) -> io::Result<()> {
    let head = head(&mut socket).await?;
    let (line, headers) = head.split_once("\r\n").expect("a request line");
    let path = line.split(' ').nth(1).expect("a path");
    let ports = path
        .split(['?', '&'])
        .filter_map(|part| part.strip_prefix("ports="));
    let call = cri::PortForward {
        sandbox: containerd.daemon.sandbox().to_owned(),
        ports: ports.map(|port| port.parse().expect("a port")).collect(),
    };
    let runtime = containerd.daemon.runtime().await;
    let url = runtime.call(call).await.expect("a URL").url;
    let rest = url.strip_prefix("http://").expect("CRI says http");
    let (authority, path) = rest.split_at(rest.find('/').expect("a path"));
    let mut behind = TcpStream::connect(authority).await?;
    if way == Way::Tunnel {
        return tunnel(
            socket,
            headers,
            behind,
            &format!("{path} HTTP/1.1\r\nHost: {authority}"),
        )
        .await;
    }
    let head = format!("GET {path} HTTP/1.1\r\n{headers}");
    behind.write_all(head.as_bytes()).await?;
    tokio::io::copy_bidirectional(&mut socket, &mut behind).await?;
    Ok(())
}

pub(crate) async fn head(socket: &mut TcpStream) -> io::Result<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(socket.read_u8().await?);
    }
    Ok(String::from_utf8_lossy(&head).into_owned())
}

async fn tunnel(
    mut socket: TcpStream,
    headers: &str,
    mut behind: TcpStream,
    target: &str,
) -> io::Result<()> {
    let upgrade = format!(
        "POST {target}\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\
         X-Stream-Protocol-Version: portforward.k8s.io\r\nContent-Length: 0\r\n\r\n"
    );
    behind.write_all(upgrade.as_bytes()).await?;
    let answer = head(&mut behind).await?;
    assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
    let key = headers.lines().filter_map(|line| line.split_once(": "));
    let mut key = key.filter(|(name, _)| name.eq_ignore_ascii_case("sec-websocket-key"));
    let accept = derive_accept_key(key.next().expect("a key").1.as_bytes());
    let answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {accept}\r\n\
         Sec-WebSocket-Protocol: SPDY/3.1+portforward.k8s.io\r\n\r\n"
    );
    socket.write_all(answer.as_bytes()).await?;
    let websocket = WebSocketStream::from_raw_socket(socket, Role::Server, None).await;
    let (mut sink, mut messages) = websocket.split();
    let (mut read, mut write) = behind.split();
    let up = async {
        while let Some(Ok(message)) = messages.next().await {
            if let Message::Binary(bytes) = message {
                write.write_all(&bytes).await?;
            }
        }
        write.shutdown().await
    };
    let down = async {
        loop {
            let mut bytes = BytesMut::with_capacity(32 << 10);
            if read.read_buf(&mut bytes).await? == 0 {
                return Ok(());
            }
            let message = Message::Binary(bytes.freeze());
            sink.send(message).await.map_err(io::Error::other)?;
        }
    };
    tokio::try_join!(up, down).map(drop)
}

/// An application that sends back what it gets; its port.
async fn echo() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut read, mut write) = socket.split();
                tokio::io::copy(&mut read, &mut write).await
            });
        }
    });
    port
}

/// A port at which nobody listens.
async fn nobody() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    listener.local_addr().expect("an address").port()
}

async fn echoes(mut stream: ForwardStream, length: usize) {
    let sent: Vec<_> = (0..length).map(|at| (at ^ (at >> 8)) as u8).collect();
    let (mut read, mut write) = tokio::io::split(&mut stream);
    let mut answer = vec![0; length];
    let both = async {
        let up = async {
            write.write_all(&sent).await?;
            write.flush().await
        };
        tokio::try_join!(up, read.read_exact(&mut answer))
    };
    let outcome = tokio::time::timeout(PATIENCE, both).await;
    outcome.expect("it answers").expect("all of it");
    assert!(answer == sent, "other bytes came back");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forwards_over_channels() {
    let Some(containerd) = shared() else { return };
    let port = echo().await;
    let nobody = nobody().await;
    let forward = forward(containerd, Way::Channels).await;
    // Without a choice SPDY is asked for first, which the runtime does not know.
    let offers = [
        (None, ForwardProtocol::V4),
        (Some(ForwardProtocol::V4), ForwardProtocol::V4),
        (Some(ForwardProtocol::V4Base64), ForwardProtocol::V4Base64),
    ];
    for (offer, expected) in offers {
        let forward = match offer {
            Some(protocol) => forward.clone().subprotocols([protocol]),
            None => forward.clone(),
        };
        let tunnel = forward.connect().await.expect("it connects");
        assert_eq!(tunnel.protocol().await, expected);
        let open = || async { tunnel.open(port).await.expect("it opens") };
        tokio::join!(
            echoes(open().await, 5),
            echoes(open().await, 3_000_000),
            echoes(open().await, 1_000_000)
        );
        let mut refused = tunnel.open(nobody).await.expect("it opens");
        let read = tokio::time::timeout(PATIENCE, refused.read_u8()).await;
        let error = read.expect("it ends").expect_err("nobody listens");
        match Error::of_io(&error) {
            Some(Error::Api(error)) => {
                let text = &error.status.message;
                assert!(text.contains("connection refused"), "{text}");
            }
            _ => panic!("{error:?}"),
        }
    }
}

/// Forty local connections at once, each of which is answered.
async fn forty_are_answered(good: &Listener) {
    let address = good.local_addrs()[0];
    let mut connections = JoinSet::new();
    for _ in 0..40 {
        connections.spawn(async move {
            let mut stream = TcpStream::connect(address).await?;
            round_trip(&mut stream).await
        });
    }
    let answers = tokio::time::timeout(PATIENCE, connections.join_all()).await;
    for answer in answers.expect("they are answered") {
        answer.expect("the answer");
    }
}

async fn round_trip(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> io::Result<()> {
    let request = b"GET / HTTP/1.1\r\n\r\n";
    stream.write_all(request).await?;
    stream.flush().await?;
    let mut answer = [0; 18];
    stream.read_exact(&mut answer).await?;
    assert_eq!(&answer, request);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_connection_that_was_written_to_hangs_no_other() {
    let Some(containerd) = shared() else { return };
    let (echo, nobody) = (echo().await, nobody().await);
    let forward = forward(containerd, Way::Tunnel).await;
    let tunnel = forward.connect().await.expect("it connects");
    assert_eq!(tunnel.protocol().await, ForwardProtocol::Spdy);
    let listen = |port| tunnel.listen("127.0.0.1:0", port);
    let (good, bad) = tokio::join!(listen(echo), listen(nobody));
    let (good, bad) = (good.expect("a port"), bad.expect("a port"));
    let mut before = TcpStream::connect(good.local_addrs()[0])
        .await
        .expect("it listens");
    round_trip(&mut before).await.expect("an answer");
    // It sends at once; the refusal may be sooner, even than this task sees that it is connected.
    let refused = async {
        let mut refused = TcpStream::connect(bad.local_addrs()[0]).await?;
        refused.write_all(b"GET / HTTP/1.1\r\n\r\n").await?;
        refused.read_u8().await
    };
    let told = tokio::time::timeout(PATIENCE, refused).await;
    let told = told.expect("it is told").expect_err("nobody listens");
    assert_eq!(told.kind(), io::ErrorKind::ConnectionReset);
    forty_are_answered(&good).await;
    round_trip(&mut before).await.expect("it goes on");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_application_that_stops_reading_hangs_no_other_connection() {
    let Some(containerd) = shared() else { return };
    let echo = echo().await;
    let application = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = application.local_addr().expect("an address").port();
    let forward = forward(containerd, Way::Tunnel).await;
    let tunnel = forward.connect().await.expect("it connects");
    let good = tunnel.listen("127.0.0.1:0", echo).await.expect("a port");
    let mut before = TcpStream::connect(good.local_addrs()[0])
        .await
        .expect("it listens");
    round_trip(&mut before).await.expect("an answer");
    let mut stream = tunnel.open(port).await.expect("it opens");
    let (_unread, _) = application.accept().await.expect("it connects");
    // Until nothing more is taken. It may begin to read at any time, and is not given up.
    let mut sent = 0;
    while let Ok(written) = tokio::time::timeout(QUIET, stream.write(&[7; 16 << 10])).await {
        sent += written.expect("it is not given up");
    }
    assert!(sent > 0);
    forty_are_answered(&good).await;
}

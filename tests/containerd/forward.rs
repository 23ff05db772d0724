//! port-forward against the streaming server of the container runtime.
//!
//! A client asks an API server, and the runtime has URLs of its own that work once. Between them
//! stands what a kubelet does there: it asks CRI for a URL, and passes the bytes on to it.

use std::{io, time::Duration};

use kubewire::{
    Client, Error,
    port_forward::{ForwardStream, PortForward},
    session::port_forward::ForwardProtocol,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

use super::{Containerd, cri, shared};

/// Nothing here takes longer, except on a machine that is very busy.
const PATIENCE: Duration = Duration::from_secs(60);

/// A client whose API server is the runtime.
async fn forward(containerd: &'static Containerd) -> PortForward {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            tokio::spawn(pass_on(socket, containerd));
        }
    });
    let client = Client::from_url(&format!("http://{address}")).expect("a URL");
    client.pod("default", "pod").port_forward()
}

async fn pass_on(mut socket: TcpStream, containerd: &Containerd) -> io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(socket.read_u8().await?);
    }
    let head = String::from_utf8_lossy(&head);
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
    let head = format!("GET {path} HTTP/1.1\r\n{headers}");
    behind.write_all(head.as_bytes()).await?;
    tokio::io::copy_bidirectional(&mut socket, &mut behind).await?;
    Ok(())
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
    let nobody = {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        listener.local_addr().expect("an address").port()
    };
    let forward = forward(containerd).await;
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

//! Clients that mean the embedded server ill: each is refused, or its connection ends, within a
//! bound, and the server goes on answering others.

#![cfg(all(unix, feature = "testing"))]
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

#[path = "common/upgrade.rs"]
mod upgrade;

use std::time::Duration;

use kubewire::testing::ApiServer;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

/// The time by which all is over: the head of a request has 32 s, of which a loaded machine makes
/// more.
const BOUND: Duration = Duration::from_secs(150);

const EXEC: &str = "/api/v1/namespaces/default/pods/a/exec?stdin=true&stdout=true&command=cat";
const ATTACH: &str = "/api/v1/namespaces/default/pods/a/attach?stdout=true";
const FORWARD: &str = "/api/v1/namespaces/default/pods/a/portforward?ports=80";
const LOG: &str = "/api/v1/namespaces/default/pods/a/log?follow=true";

async fn server() -> ApiServer {
    let builder = ApiServer::builder().plain();
    let builder = builder.pod("default", "a", |pod| {
        pod.container("main", ["sleep", "infinity"])
    });
    builder.start().await.unwrap()
}

async fn connect(server: &ApiServer) -> TcpStream {
    TcpStream::connect(server.address()).await.unwrap()
}

async fn bounded<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(BOUND, work).await.expect("it goes on")
}

/// All that comes until the end, however that comes.
async fn rest(stream: &mut TcpStream) -> Vec<u8> {
    bounded(async {
        let mut answer = Vec::new();
        while !matches!(stream.read_buf(&mut answer).await, Ok(0) | Err(_)) {}
        answer
    })
    .await
}

/// Sends bytes, which the server may stop reading, and returns the first line of its answer.
async fn first_line(server: &ApiServer, bytes: &[u8]) -> String {
    let mut stream = connect(server).await;
    let (mut read, mut write) = stream.split();
    let line = bounded(async {
        let mut answer = Vec::new();
        let reading = async {
            while !answer.contains(&b'\n') {
                if matches!(read.read_buf(&mut answer).await, Ok(0) | Err(_)) {
                    break;
                }
            }
            answer
        };
        let writing = async {
            let _ = write.write_all(bytes).await;
            std::future::pending::<()>().await;
        };
        tokio::select! {
            answer = reading => answer,
            () = writing => unreachable!("it waits"),
        }
    })
    .await;
    let line = String::from_utf8_lossy(&line);
    line.lines().next().unwrap_or_default().to_owned()
}

async fn answers(server: &ApiServer) {
    let healthy = first_line(server, b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").await;
    assert_eq!(healthy, "HTTP/1.1 200 OK");
}

fn upgrade(path: &str, headers: &[(&str, &str)]) -> String {
    let mut head = format!("GET {path} HTTP/1.1\r\nhost: x\r\n");
    let mut all = upgrade::HEADERS.to_vec();
    for (name, value) in headers {
        all.retain(|(known, _)| known != name);
        all.push((name, value));
    }
    for (name, value) in all.iter().filter(|(_, value)| !value.is_empty()) {
        head += &format!("{name}: {value}\r\n");
    }
    head + "\r\n"
}

#[tokio::test]
async fn bad_upgrades_are_refused() {
    let server = server().await;
    for path in [EXEC, ATTACH, FORWARD, LOG] {
        for headers in [
            &[("sec-websocket-key", "")][..],
            &[("sec-websocket-version", "")],
            &[("sec-websocket-version", "12")],
            &[("sec-websocket-protocol", "unknown.example.com")],
            &[("sec-websocket-protocol", "V5.CHANNEL.K8S.IO")],
            &[("upgrade", "SPDY/3.1")],
            &[("upgrade", "h2c")],
        ] {
            let line = first_line(&server, upgrade(path, headers).as_bytes()).await;
            let is_plain_log = path == LOG && headers[0].0 == "upgrade";
            match is_plain_log {
                // A log needs no upgrade.
                true => assert_eq!(line, "HTTP/1.1 200 OK", "{headers:?}"),
                // What a cluster could do.
                false if headers[0].1 == "SPDY/3.1" => {
                    assert_eq!(line, "HTTP/1.1 501 Not Implemented", "{path}");
                }
                false => assert!(line.starts_with("HTTP/1.1 4"), "{path} {headers:?}: {line}"),
            }
        }
        let posted = upgrade(path, &[]).replacen("GET", "POST", 1);
        let line = first_line(&server, posted.as_bytes()).await;
        assert!(line.starts_with("HTTP/1.1 4"), "{path}: {line}");
    }
    answers(&server).await;
    server.shutdown().await;
}

#[tokio::test]
async fn frames_that_make_no_sense_end_the_session() {
    let server = server().await;
    for (name, path, frames) in [
        ("an opcode that is reserved", EXEC, &b"\x83\x80abcd"[..]),
        ("a frame without a mask", EXEC, b"\x82\x02\x00x"),
        (
            "a length beyond all bounds",
            EXEC,
            b"\x82\xff\x7f\xff\xff\xff\xff\xff\xff\xffabcd",
        ),
        ("a continuation of nothing", EXEC, b"\x80\x81abcdx"),
        ("a close code of one byte", EXEC, b"\x88\x81abcd\x03"),
        ("a ping that is fragmented", EXEC, b"\x09\x80abcd"),
        ("noise", EXEC, &[0xff; 4096]),
        ("noise", ATTACH, &[0xff; 4096]),
        ("noise", FORWARD, &[0xff; 4096]),
    ] {
        let mut stream = connect(&server).await;
        let protocol = if path == FORWARD {
            "v4.channel.k8s.io"
        } else {
            "v5.channel.k8s.io"
        };
        let head = upgrade(path, &[("sec-websocket-protocol", protocol)]);
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        bounded(async {
            while !answer.windows(4).any(|end| end == b"\r\n\r\n") {
                assert_ne!(stream.read_buf(&mut answer).await.unwrap(), 0, "{name}");
            }
        })
        .await;
        assert!(answer.starts_with(b"HTTP/1.1 101"), "{name}");
        let _ = stream.write_all(frames).await;
        let last = rest(&mut stream).await;
        // It says why, unless the connection was cut before it could.
        let closes = last
            .windows(4)
            .any(|frame| frame[0] == 0x88 && frame[2] == 0x03);
        assert!(closes || last.is_empty(), "{name}: {last:?}");
    }
    answers(&server).await;
    server.shutdown().await;
}

#[tokio::test]
async fn a_mebibyte_of_headers_is_refused() {
    let server = server().await;
    let many = "x-header: 0123456789abcdef0123456789abcdef\r\n".repeat((1 << 20) / 44);
    let large = format!("x-header: {}\r\n", "x".repeat(1 << 20));
    for headers in [many, large] {
        let request = format!("GET /healthz HTTP/1.1\r\nhost: x\r\n{headers}\r\n");
        let line = first_line(&server, request.as_bytes()).await;
        assert!(
            line.starts_with("HTTP/1.1 431") || line.is_empty(),
            "{line}"
        );
    }
    answers(&server).await;
    server.shutdown().await;
}

#[tokio::test]
async fn a_body_of_more_than_three_mebibytes_is_refused() {
    let server = server().await;
    for (method, path) in [
        ("POST", "/api/v1/namespaces/default/configmaps"),
        ("PUT", "/api/v1/namespaces/default/configmaps/a"),
        ("DELETE", "/api/v1/namespaces/default/pods/a"),
    ] {
        for size in [(3 << 20) + 1, 1 << 30] {
            // It comes without end, and what is too much of it is not waited for.
            let head =
                format!("{method} {path} HTTP/1.1\r\nhost: x\r\ncontent-length: {size}\r\n\r\n");
            let mut request = head.into_bytes();
            request.resize(request.len() + (3 << 20) + 1, b' ');
            let mut stream = connect(&server).await;
            bounded(stream.write_all(&request)).await.unwrap();
            let mut answer = Vec::new();
            let words = "Request entity too large: limit is 3145728";
            bounded(async {
                while !String::from_utf8_lossy(&answer).contains(words) {
                    let read = stream.read_buf(&mut answer).await.unwrap();
                    assert_ne!(read, 0, "{}", String::from_utf8_lossy(&answer));
                }
            })
            .await;
            assert!(answer.starts_with(b"HTTP/1.1 413"), "{method}");
        }
    }
    answers(&server).await;
    server.shutdown().await;
}

#[tokio::test]
async fn a_handshake_that_does_not_come_ends() {
    let builder = ApiServer::builder();
    let server = builder.start().await.unwrap();
    let mut silent = Vec::new();
    for begun in [&b""[..], b"\x16\x03\x01", b"GET / HTTP/1.1\r\n"] {
        let mut stream = connect(&server).await;
        stream.write_all(begun).await.unwrap();
        silent.push(stream);
    }
    for stream in &mut silent {
        rest(stream).await;
    }
    server.shutdown().await;
}

#[tokio::test]
async fn connections_that_say_nothing_or_little_end() {
    let server = server().await;
    let mut idle = Vec::new();
    for _ in 0..1000 {
        idle.push(connect(&server).await);
    }
    // One that sends its head a byte at a time, for ever.
    let slow = connect(&server).await;
    let (mut read, mut write) = slow.into_split();
    let slow = tokio::spawn(async move {
        let dripping = async {
            write.write_all(b"GET /healthz HTTP/1.1\r\nx: ").await?;
            while write.write_all(b"x").await.is_ok() {
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
            Ok::<_, std::io::Error>(())
        };
        let mut answer = Vec::new();
        let _ = tokio::join!(dripping, read.read_to_end(&mut answer));
    });
    answers(&server).await;
    for stream in &mut idle {
        rest(stream).await;
    }
    bounded(slow).await.unwrap();
    answers(&server).await;
    server.shutdown().await;
}

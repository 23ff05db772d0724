//! What handles owe each other over one socket, and the socket to them: sockets here are in
//! memory and do what the test says.

use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use kubewire::{
    AnyWebSocket, Role,
    error::{CallerError, Error, NetworkError},
    exec::{Child, Streams, Subprotocol},
    limits,
    wire::websocket::{FrameHeader, Opcode},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream},
    time::timeout,
};

const ALL: Streams = Streams {
    stdin: true,
    stdout: true,
    stderr: true,
    tty: false,
};
const SUCCESS: &[u8] = b"\x03{\"metadata\":{},\"status\":\"Success\"}";
const CLOSE: &[u8] = b"\x88\x02\x03\xe8";

fn frame(payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let length = payload.len() as u64;
    FrameHeader {
        fin: true,
        opcode: Opcode::Binary,
        mask: None,
        length,
    }
    .encode(&mut out);
    out.extend_from_slice(payload);
    out
}

/// A child over an in-memory socket with buffers of `size` bytes, and the server's end of it.
fn child(size: usize, streams: Streams) -> (Child, DuplexStream) {
    let (ours, theirs) = tokio::io::duplex(size);
    let websocket = AnyWebSocket::from_io(ours, Role::Client, Bytes::new());
    (
        Child::over(websocket, Subprotocol::V5, streams).spawn(),
        theirs,
    )
}

#[tokio::test]
async fn a_killed_session_whose_peer_does_not_read_leaves_the_runtime_alone() {
    let (mut child, _server) = child(64, ALL);
    let mut stdin = child.stdin.take().unwrap();
    let endless = vec![0; 1 << 20];
    let blocked = timeout(Duration::from_millis(100), stdin.write_all(&endless)).await;
    assert!(blocked.is_err(), "more than the bound was taken");
    child.kill();
    // The runtime has one thread: a task that spins would stop this timer.
    tokio::time::sleep(Duration::from_millis(50)).await;
    let error = stdin.write_all(b"more").await.unwrap_err();
    assert!(matches!(
        Error::of_io(&error),
        Some(Error::Caller(CallerError::Ended))
    ));
}

#[tokio::test]
async fn an_abandoned_read_starves_nobody() {
    let (mut child, mut server) = child(1 << 10, ALL);
    let mut stdout = child.stdout.take().unwrap();
    let mut stderr = child.stderr.take().unwrap();
    let reader = tokio::spawn(async move { stderr.next().await });
    tokio::time::sleep(Duration::from_millis(20)).await;
    // This task finds the socket empty last, so that it is the one to be woken; then it leaves.
    let mut buffer = [0; 16];
    let read = timeout(Duration::from_millis(20), stdout.read(&mut buffer)).await;
    assert!(read.is_err());
    server.write_all(&frame(b"\x02for stderr")).await.unwrap();
    let got = timeout(Duration::from_secs(300), reader)
        .await
        .expect("stderr's reader starves");
    assert_eq!(got.unwrap().unwrap().unwrap(), "for stderr");
}

#[tokio::test]
async fn a_reader_that_works_on_its_data_starves_nobody() {
    let (mut child, mut server) = child(1 << 20, ALL);
    let mut stdout = child.stdout.take().unwrap();
    let mut stderr = child.stderr.take().unwrap();
    let reader = tokio::spawn(async move { stderr.next().await });
    tokio::time::sleep(Duration::from_millis(20)).await;
    server.write_all(&frame(b"\x01for stdout")).await.unwrap();
    assert_eq!(stdout.next().await.unwrap().unwrap(), "for stdout");
    // It is not polled again, and still what follows reaches the other.
    server.write_all(&frame(b"\x02for stderr")).await.unwrap();
    let got = timeout(Duration::from_secs(300), reader)
        .await
        .expect("stderr's reader starves");
    assert_eq!(got.unwrap().unwrap().unwrap(), "for stderr");
}

#[tokio::test]
async fn what_was_written_goes_out_though_nobody_polls_again() {
    let (mut child, mut server) = child(64, ALL);
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(&[b'x'; 5000]).await.unwrap();
    let mut received = vec![0; 5000 + 8];
    let read = timeout(Duration::from_secs(300), server.read_exact(&mut received)).await;
    read.expect("written bytes are stuck").unwrap();
}

#[tokio::test]
async fn dropping_a_full_stream_lets_the_others_go_on() {
    let (ours, mut server) = tokio::io::duplex(1 << 20);
    let websocket = AnyWebSocket::from_io(ours, Role::Client, Bytes::new());
    let mut child = Child::over(websocket, Subprotocol::V5, ALL)
        .buffer(1000)
        .spawn();
    let mut wire = Vec::new();
    for _ in 0..20 {
        wire.extend(frame(&[2; 200]));
    }
    wire.extend(frame(SUCCESS));
    wire.extend(CLOSE);
    server.write_all(&wire).await.unwrap();
    let stderr = child.stderr.take();
    let waiting = tokio::spawn(async move {
        let status = child.wait().await;
        (child, status)
    });
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(
        !waiting.is_finished(),
        "the bound did not hold the status back"
    );
    drop(stderr);
    let (_, status) = timeout(Duration::from_secs(300), waiting)
        .await
        .unwrap()
        .unwrap();
    assert!(status.unwrap().success());
}

#[tokio::test]
async fn a_writer_alone_learns_that_the_peer_is_gone() {
    let (mut child, server) = child(1 << 10, ALL);
    let mut stdin = child.stdin.take().unwrap();
    drop(server);
    let wrote = timeout(Duration::from_secs(300), async {
        loop {
            if let Err(error) = stdin.write_all(&[0; 1 << 10]).await {
                return error;
            }
            tokio::task::yield_now().await;
        }
    });
    let error = wrote.await.expect("writes into nothing for ever");
    assert!(
        matches!(
            Error::of_io(&error),
            Some(Error::Caller(CallerError::Ended))
        ),
        "{error}"
    );
    let lost = child.wait().await.unwrap_err();
    assert!(
        matches!(
            lost,
            Error::Network(NetworkError::ClosedWithoutStatus { .. })
        ),
        "{lost}"
    );
}

#[tokio::test(start_paused = true)]
async fn an_idle_session_is_pinged_and_a_silent_peer_is_dead() {
    let (mut child, mut server) = child(1 << 10, ALL);
    let started = tokio::time::Instant::now();
    let lost = child.wait().await.unwrap_err();
    assert!(
        matches!(lost, Error::Network(NetworkError::Silent { .. })),
        "{lost}"
    );
    assert_eq!(started.elapsed().as_secs(), limits::SILENCE.as_secs());
    drop(child);
    let mut wire = Vec::new();
    let _ = timeout(Duration::from_secs(1), server.read_to_end(&mut wire)).await;
    let pings = wire.iter().filter(|byte| **byte == 0x89).count();
    assert!(pings >= 3, "{pings} pings");
}

//! What an idle session holds, as the allocator counts it: in flow sessions over TCP of which
//! nothing is asked, out come bytes and allocations a session, which must not creep.

#![cfg(feature = "client")]
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        mpsc::{self, Receiver, Sender},
    },
    thread,
    time::{Duration, Instant},
};

use futures_util::{StreamExt as _, poll};
use kubewire::{
    Client, Config, KeepaliveConfig,
    exec::{Child, Stdio},
};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

/// Sessions that are opened before any is counted: connections, caches and tables have grown then.
const BEFORE: usize = 40;
/// Sessions that are counted.
const COUNTED: usize = 32;

/// What one of them may hold, without what the kernel has.
const BYTES: i64 = 3840;
/// In how many pieces.
const PIECES: i64 = 15;

/// Answers a handshake, says the empty message that servers begin with when it is told to, and
/// waits.
fn answer(mut io: TcpStream, go: &Mutex<Receiver<()>>) -> std::io::Result<()> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        io.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&head);
    let mut lines = head.lines().filter_map(|line| line.split_once(": "));
    let key = lines.find(|(name, _)| name.eq_ignore_ascii_case("sec-websocket-key"));
    write!(
        io,
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {}\r\nSec-WebSocket-Protocol: v5.channel.k8s.io\r\n\r\n",
        derive_accept_key(key.unwrap().1.trim().as_bytes())
    )?;
    // Not with the handshake: it must be read as whatever comes later is.
    let told = go.lock().unwrap().recv();
    if told.is_ok() {
        io.write_all(b"\x82\x01\x01")?;
    }
    while io.read(&mut byte)? > 0 {}
    Ok(())
}

fn server() -> (SocketAddr, Sender<()>) {
    let (go, told) = mpsc::channel();
    let told = Arc::new(Mutex::new(told));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for io in listener.incoming().map_while(Result::ok) {
            let told = told.clone();
            thread::spawn(move || answer(io, &told));
        }
    });
    (address, go)
}

async fn open(client: &Client, go: &Sender<()>, sessions: usize, all: &mut Vec<Child>) {
    for _ in 0..sessions {
        let exec = client.pod("default", "idle").exec(["sleep", "infinity"]);
        // No ping is due while this runs.
        let exec = exec.keepalive(KeepaliveConfig {
            interval: Duration::from_secs(3600),
            silence: Duration::from_secs(7200),
            ..KeepaliveConfig::default()
        });
        let mut child = exec.stdin(Stdio::piped()).spawn().await.unwrap();
        go.send(()).unwrap();
        // Somebody waits for its output, and the first message has been read.
        let deadline = Instant::now() + Duration::from_secs(300);
        while child.stats().received_messages == 0 {
            let next = poll!(child.stdout.as_mut().unwrap().next());
            assert!(next.is_pending(), "{next:?}");
            assert!(Instant::now() < deadline, "no message has come");
            tokio::task::yield_now().await;
        }
        all.push(child);
    }
}

#[test]
fn an_idle_session_holds_little() {
    let runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = { runtime }.enable_all().build().unwrap();
    let (address, go) = server();
    let client = Client::new(&Config::new(&format!("http://{address}")).unwrap()).unwrap();
    let mut all = Vec::with_capacity(BEFORE + COUNTED);
    runtime.block_on(open(&client, &go, BEFORE, &mut all));
    let counted = allocation_counter::measure(|| {
        runtime.block_on(open(&client, &go, COUNTED, &mut all));
    });
    let sessions = COUNTED as i64;
    let (bytes, pieces) = (
        counted.bytes_current / sessions,
        counted.count_current / sessions,
    );
    println!("an idle session holds {bytes} bytes in {pieces} pieces");
    assert!(
        bytes <= BYTES && pieces <= PIECES,
        "{bytes} bytes in {pieces} pieces"
    );
}

//! Port-forward over loopback against a plain TCP relay of the same bytes, alternated in one run.
//!
//! `cargo bench --bench port_forward [-- ROUNDS]`. Both sides lead from 64 local connections to
//! the same application: `relay` copies each over a TCP connection of its own, as a proxy without
//! Kubernetes would; `kubewire` takes them all through one tunnel, client and embedded server in
//! this process. `open` is the time from opening a connection to its first byte, one after another.

#![allow(missing_docs, clippy::unwrap_used, clippy::print_stdout)]

#[path = "support/application.rs"]
mod application;

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use application::{EACH, application, relay};
use kubewire::{Client, testing::ApiServer};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinSet,
};

const CONNECTIONS: usize = 64;
const OPENINGS: usize = 500;

async fn bulk(address: SocketAddr) -> Duration {
    let begin = Instant::now();
    let mut all = JoinSet::new();
    for _ in 0..CONNECTIONS {
        all.spawn(async move {
            let mut socket = TcpStream::connect(address).await.unwrap();
            socket.write_all(b"?").await.unwrap();
            let (mut buffer, mut read) = (vec![0; 64 << 10], 0);
            loop {
                match socket.read(&mut buffer).await.unwrap() {
                    0 => break,
                    length => read += length,
                }
            }
            assert_eq!(read, EACH + 1);
        });
    }
    all.join_all().await;
    begin.elapsed()
}

async fn open_relay(address: SocketAddr) -> Duration {
    let begin = Instant::now();
    for _ in 0..OPENINGS {
        let mut socket = TcpStream::connect(address).await.unwrap();
        assert_eq!(socket.read_u8().await.unwrap(), b'!');
    }
    begin.elapsed() / OPENINGS as u32
}

#[tokio::main]
async fn main() {
    let rounds = std::env::args()
        .find_map(|word| word.parse().ok())
        .unwrap_or(5);
    let port = application().await;
    let relay = relay(port).await;
    let server = ApiServer::builder()
        .plain()
        .pod("default", "bench", |pod| {
            pod.container("main", ["sleep", "infinity"])
        })
        .start()
        .await
        .unwrap();
    let client = Client::new(&server.config()).unwrap();
    let tunnel = client
        .pod("default", "bench")
        .port_forward()
        .connect()
        .await
        .unwrap();
    let listener = tunnel.listen("127.0.0.1:0", port).await.unwrap();
    let forwarded = listener.local_addrs()[0];
    let speed =
        |time: Duration| (CONNECTIONS * EACH) as f64 / time.as_secs_f64() / f64::from(1 << 20);
    let (mut ratios, mut opens) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        let (plain, ours) = (bulk(relay).await, bulk(forwarded).await);
        let plain_open = open_relay(relay).await;
        let begin = Instant::now();
        for _ in 0..OPENINGS {
            let mut stream = tunnel.open(port).await.unwrap();
            assert_eq!(stream.read_u8().await.unwrap(), b'!');
        }
        let ours_open = begin.elapsed() / OPENINGS as u32;
        println!(
            "bulk: relay {:.0} MiB/s, kubewire {:.0} MiB/s; open: relay {plain_open:?}, kubewire {ours_open:?}",
            speed(plain),
            speed(ours),
        );
        ratios.push(speed(ours) / speed(plain));
        opens.push(ours_open.as_secs_f64() / plain_open.as_secs_f64());
    }
    ratios.sort_by(f64::total_cmp);
    opens.sort_by(f64::total_cmp);
    println!(
        "median: bulk {:.2} of the relay (at least 0.6), open {:.2} times the relay's (at most 2)",
        ratios[ratios.len() / 2],
        opens[opens.len() / 2],
    );
}

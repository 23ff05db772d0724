//! exec stdout over loopback against a raw read of the same bytes, alternated in one run.
//!
//! `cargo bench --bench exec_stdout [-- ROUNDS]`. Sides: `raw` reads the socket (or rustls) into a
//! buffer of 128 KiB and drops the bytes; `kubewire` takes slices from `ChildStdout` through the
//! whole client; `tungstenite` takes messages from a bare tokio-tungstenite stream.

#![allow(missing_docs, clippy::unwrap_used, clippy::print_stdout)]

mod support;

use std::{net::SocketAddr, time::Instant};

use futures_util::StreamExt as _;
use kubewire::{Client, Config};
use support::{Load, Side, Tls, client_tls, serve};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::TcpStream,
};
use tokio_rustls::TlsConnector;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;

const TOTAL: usize = 512 << 20;

trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

async fn dial(address: SocketAddr, tls: Option<&TlsConnector>) -> Box<dyn Io> {
    let tcp = TcpStream::connect(address).await.unwrap();
    tcp.set_nodelay(true).unwrap();
    match tls {
        None => Box::new(tcp),
        Some(tls) => {
            let name = "127.0.0.1".try_into().unwrap();
            Box::new(tls.connect(name, tcp).await.unwrap())
        }
    }
}

async fn raw(address: SocketAddr, tls: Option<&TlsConnector>, expected: usize) {
    let mut io = dial(address, tls).await;
    io.write_all(b"\n").await.unwrap();
    let mut buffer = vec![0; 128 << 10];
    let mut read = 0;
    while read < expected {
        let part = io.read(&mut buffer).await.unwrap();
        assert!(part > 0, "cut after {read} bytes");
        read += part;
    }
}

async fn kubewire(client: &Client, expected: usize) {
    let mut child = client
        .pod("default", "bench")
        .exec(["x"])
        .spawn()
        .await
        .unwrap();
    child.stderr = None;
    let mut stdout = child.stdout.take().unwrap();
    let mut read = 0;
    while let Some(slice) = stdout.next().await {
        read += slice.unwrap().len();
    }
    assert_eq!(read, expected);
    assert!(child.wait().await.unwrap().success());
}

async fn tungstenite(address: SocketAddr, tls: Option<&TlsConnector>, expected: usize) {
    let io = dial(address, tls).await;
    let mut request = "ws://127.0.0.1/".into_client_request().unwrap();
    let protocol = "v5.channel.k8s.io".parse().unwrap();
    request
        .headers_mut()
        .insert("sec-websocket-protocol", protocol);
    let (mut socket, _) = tokio_tungstenite::client_async(request, io).await.unwrap();
    let mut read = 0;
    while let Some(Ok(message)) = socket.next().await {
        if message.is_close() {
            break;
        }
        if message.is_binary() {
            let data = message.into_data();
            if data[0] == 1 {
                read += data.len() - 1;
            }
        }
    }
    assert_eq!(read, expected);
}

async fn compare(name: &str, frame: usize, tls: bool, rounds: usize) {
    let tls = tls.then(Tls::new);
    // Small frames are bound by their number, not their bytes.
    let total = if frame < 1024 { TOTAL / 4 } else { TOTAL };
    let load = Load {
        frame,
        total,
        end: true,
    };
    let address = serve(load, tls.as_ref());
    let config = match &tls {
        None => Config::new(&format!("http://{address}")).unwrap(),
        Some(tls) => Config::new(&format!("https://{address}"))
            .unwrap()
            .with_ca_pem(tls.ca.clone()),
    };
    let client = Client::new(&config).unwrap();
    let connector = tls.as_ref().map(|tls| client_tls(&tls.ca));
    let connector = connector.as_ref();
    let payload = load.payload();
    let mut sides = ["raw", "kubewire", "tungstenite"].map(Side::new);
    for round in 0..=rounds {
        for side in 0..3 {
            let start = Instant::now();
            match side {
                0 => raw(address, connector, payload).await,
                1 => kubewire(&client, payload).await,
                _ => tungstenite(address, connector, payload).await,
            }
            // The first round warms up.
            if round > 0 {
                sides[side].record(start);
            }
        }
    }
    let base = sides[0].rates(payload).0;
    for side in &sides {
        let (median, min, max) = side.rates(payload);
        let frames = median * (1 << 20) as f64 / frame as f64 / 1e6;
        println!(
            "{name:<16} {:<12} {median:>7.0} MiB/s  ({min:.0} to {max:.0})  {:.2} of raw  \
             {frames:.2} M frames/s",
            side.name,
            median / base,
        );
    }
}

fn main() {
    let rounds = std::env::args()
        .skip(1)
        .find_map(|arg| arg.parse().ok())
        .unwrap_or(7);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        for (name, frame, tls) in [
            ("64 B", 64, false),
            ("1 KiB", 1 << 10, false),
            ("32 KiB", 32 << 10, false),
            ("64 B, TLS", 64, true),
            ("1 KiB, TLS", 1 << 10, true),
            ("32 KiB, TLS", 32 << 10, true),
        ] {
            compare(name, frame, tls, rounds).await;
        }
    });
}

//! The resident memory of idle exec sessions, plain and over TLS; the server is a process of its
//! own.
//!
//! `cargo bench --bench idle_memory [-- SESSIONS]`, 1,000 unless given. Sides: `bare` is the
//! connected socket (with rustls) alone; `kubewire` is a child with piped stdin, stdout and
//! stderr, idle after its first frame; `kubewire, was busy` has carried 8 MiB before and then
//! idled over two ping intervals.

#![allow(missing_docs, clippy::unwrap_used, clippy::print_stdout)]

mod support;

use std::{
    io::{BufRead, BufReader, Read},
    net::SocketAddr,
    process::{Command, Stdio},
    time::Duration,
};

use futures_util::StreamExt as _;
use kubewire::{Client, Config, KeepaliveConfig};
use support::{Load, Tls, client_tls, serve};
use tokio::{io::AsyncWriteExt as _, net::TcpStream};

/// Where the child process learns that it is the server.
const SERVER: &str = "KUBEWIRE_BENCH_SERVER";

const INTERVAL: Duration = Duration::from_secs(2);

/// Resident bytes of this process (Linux).
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS:"))
        .unwrap();
    line.split_whitespace()
        .nth(1)
        .unwrap()
        .parse::<usize>()
        .unwrap()
        << 10
}

/// The server's half: prints its address and CA, serves until its stdin ends.
fn server(mode: &str) {
    let (tls, load) = (
        mode.contains("tls"),
        if mode.contains("busy") { 8 << 20 } else { 0 },
    );
    let tls = tls.then(Tls::new);
    let load = Load {
        frame: 32 << 10,
        total: load,
        end: false,
    };
    let address = serve(load, tls.as_ref());
    println!("{address}");
    print!("{}", tls.map(|tls| tls.ca).unwrap_or_default());
    println!("end");
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
}

struct Server {
    process: std::process::Child,
    address: SocketAddr,
    ca: String,
}

impl Server {
    fn start(mode: &str) -> Self {
        let mut process = Command::new(std::env::current_exe().unwrap())
            .env(SERVER, mode)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap())
            .lines()
            .map(Result::unwrap);
        let address = lines.next().unwrap().parse().unwrap();
        let ca = lines
            .take_while(|line| line != "end")
            .collect::<Vec<_>>()
            .join("\n");
        Self {
            process,
            address,
            ca,
        }
    }

    fn client(&self) -> Client {
        let scheme = if self.ca.is_empty() { "http" } else { "https" };
        let mut config = Config::new(&format!("{scheme}://{}", self.address)).unwrap();
        if !self.ca.is_empty() {
            config = config.with_ca_pem(self.ca.clone());
        }
        Client::new(&config).unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

async fn bare(server: &Server, sessions: usize) -> usize {
    let tls = (!server.ca.is_empty()).then(|| client_tls(&server.ca));
    let before = resident();
    let (mut plain, mut encrypted) = (Vec::new(), Vec::new());
    for _ in 0..sessions {
        let mut tcp = TcpStream::connect(server.address).await.unwrap();
        match &tls {
            None => {
                tcp.write_all(b"\n").await.unwrap();
                plain.push(tcp);
            }
            Some(tls) => {
                let name = "127.0.0.1".try_into().unwrap();
                let mut stream = Box::new(tls.connect(name, tcp).await.unwrap());
                stream.write_all(b"\n").await.unwrap();
                encrypted.push(stream);
            }
        }
    }
    resident().saturating_sub(before)
}

async fn kubewire(server: &Server, sessions: usize, busy: bool) -> usize {
    let client = server.client();
    let pings = KeepaliveConfig {
        interval: INTERVAL,
        ..KeepaliveConfig::default()
    };
    let before = resident();
    let mut children = Vec::new();
    for _ in 0..sessions {
        let exec = client
            .pod("default", "bench")
            .exec(["x"])
            .stdin(kubewire::exec::Stdio::piped());
        let mut child = exec.keepalive(pings).spawn().await.unwrap();
        if busy {
            let stdout = child.stdout.as_mut().unwrap();
            let mut left = 8usize << 20;
            while left > 0 {
                left = left.saturating_sub(stdout.next().await.unwrap().unwrap().len());
            }
        }
        children.push(child);
    }
    tokio::time::sleep(INTERVAL * 3).await;
    resident().saturating_sub(before)
}

fn main() {
    if let Ok(mode) = std::env::var(SERVER) {
        return server(&mode);
    }
    let sessions = std::env::args()
        .skip(1)
        .find_map(|arg| arg.parse().ok())
        .unwrap_or(1000);
    // A process of its own each, so that no side finds the other's memory to use again.
    if let Ok(case) = std::env::var("KUBEWIRE_BENCH_CASE") {
        let server = Server::start(&case);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let bytes = runtime.block_on(async {
            match case.contains("bare") {
                true => bare(&server, sessions).await,
                false => kubewire(&server, sessions, case.contains("busy")).await,
            }
        });
        println!(
            "{case:<20} {:>6.1} KiB a session",
            bytes as f64 / 1024.0 / sessions as f64
        );
        return;
    }
    println!("{sessions} idle sessions, resident memory:");
    for case in [
        "bare",
        "kubewire",
        "kubewire busy",
        "bare tls",
        "kubewire tls",
        "kubewire busy tls",
    ] {
        let status = Command::new(std::env::current_exe().unwrap())
            .args(std::env::args().skip(1))
            .env("KUBEWIRE_BENCH_CASE", case)
            // glibc keeps what is freed; with this, resident is what is alive.
            .env("MALLOC_MMAP_THRESHOLD_", "65536")
            .status()
            .unwrap();
        assert!(status.success());
    }
}

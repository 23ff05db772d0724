//! The sides of exec: output, input, echo.

use std::{
    io::Read as _,
    net::SocketAddr,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use futures_util::{SinkExt as _, StreamExt as _};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, AttachParams};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{Message, client::IntoClientRequest as _},
};

use crate::{
    row::{KUBE_PART, Work},
    support::{Load, client_tls},
};

/// Round trips of a run.
const TRIPS: usize = 5000;
const WRITE: usize = 32 << 10;

pub(crate) trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// Where a server is, and how to trust it.
pub(crate) struct Server<'a> {
    pub(crate) address: SocketAddr,
    pub(crate) ca: &'a str,
}

impl<'a> Server<'a> {
    /// The last word is a CA in PEM or nothing; a side that does a part has the second address.
    pub(crate) fn new(addresses: &[&'a str], part: bool) -> Self {
        let (ca, addresses) = addresses.split_last().expect("addresses");
        let address = addresses.get(usize::from(part)).unwrap_or(&addresses[0]);
        Self {
            address: address.parse().expect("an address"),
            ca,
        }
    }

    pub(crate) async fn dial(&self) -> Box<dyn Io> {
        let tcp = TcpStream::connect(self.address)
            .await
            .expect("a connection");
        tcp.set_nodelay(true).expect("an option");
        if self.ca.is_empty() {
            return Box::new(tcp);
        }
        let name = "127.0.0.1".try_into().expect("a name");
        Box::new(client_tls(self.ca).connect(name, tcp).await.expect("TLS"))
    }

    async fn websocket(&self) -> WebSocketStream<Box<dyn Io>> {
        let io = self.dial().await;
        let mut request = "ws://127.0.0.1/".into_client_request().expect("a request");
        let protocol = "v5.channel.k8s.io".parse().expect("a value");
        request
            .headers_mut()
            .insert("sec-websocket-protocol", protocol);
        tokio_tungstenite::client_async(request, io)
            .await
            .expect("a WebSocket")
            .0
    }

    fn url(&self) -> String {
        let scheme = if self.ca.is_empty() { "http" } else { "https" };
        format!("{scheme}://{}", self.address)
    }

    pub(crate) fn kubewire(&self) -> kubewire::Client {
        let mut config = kubewire::Config::new(&self.url()).expect("a URL");
        if !self.ca.is_empty() {
            config = config.with_ca_pem(self.ca.to_owned());
        }
        kubewire::Client::new(&config).expect("a client")
    }

    pub(crate) fn kube(&self) -> kube::Client {
        let mut config = kube::Config::new(self.url().parse().expect("a URL"));
        if !self.ca.is_empty() {
            use rustls::pki_types::{CertificateDer, pem::PemObject as _};
            let ca = CertificateDer::from_pem_slice(self.ca.as_bytes()).expect("a certificate");
            config.root_cert = Some(vec![ca.to_vec()]);
        }
        kube::Client::try_from(config).expect("a client")
    }

    /// A kubeconfig file for kubectl.
    fn kubeconfig(&self) -> std::path::PathBuf {
        let path = std::env::temp_dir().join(format!("kubewire-peers-{}", std::process::id()));
        let mut cluster = serde_json::json!({ "server": self.url() });
        if !self.ca.is_empty() {
            let ca = path.with_extension("pem");
            std::fs::write(&ca, self.ca).expect("a file");
            cluster["certificate-authority"] = ca.to_str().expect("UTF-8").into();
        }
        let config = serde_json::json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "x",
            "clusters": [{"name": "x", "cluster": cluster}],
            "contexts": [{"name": "x", "context": {"cluster": "x", "user": "x"}}],
            // Over TLS kubectl asks for a name if it has none.
            "users": [{"name": "x", "user": {"token": "x"}}],
        });
        std::fs::write(&path, config.to_string()).expect("a file");
        path
    }
}

/// kube-rs as it comes, or with buffers in its pipes.
fn attach_params(side: &str) -> AttachParams {
    let params = AttachParams::default().stdout(true).stderr(false);
    match side {
        "kube-rs-tuned" => params
            .max_stdin_buf_size(1 << 20)
            .max_stdout_buf_size(1 << 20),
        _ => params,
    }
}

/// The rate of a run, or the median time of a round trip.
pub(crate) async fn run(work: &Work, side: &str, addresses: &[&str]) -> f64 {
    let part = side == "kube-rs";
    let server = Server::new(addresses, part);
    let share = |total: usize| if part { total / KUBE_PART } else { total };
    let start = Instant::now();
    let bytes = match *work {
        Work::Stdout { frame, total, .. } => {
            let load = Load {
                frame,
                total: share(total),
                end: true,
            };
            let expected = load.payload();
            assert_eq!(stdout(&server, side, expected).await, expected);
            expected
        }
        Work::Stdin { total } => {
            let total = share(total);
            stdin(&server, side, total).await;
            total
        }
        _ => {
            let mut trips = echo(&server, side).await;
            trips.sort();
            return trips[trips.len() / 2].as_secs_f64() * 1e6;
        }
    };
    bytes as f64 / start.elapsed().as_secs_f64() / f64::from(1 << 20)
}

async fn stdout(server: &Server<'_>, side: &str, expected: usize) -> usize {
    let mut read = 0;
    match side {
        "raw" => {
            let mut io = server.dial().await;
            io.write_all(b"\n").await.expect("a request");
            let mut buffer = vec![0; 128 << 10];
            // Frames and all: what is left when so much has come is less than a read.
            while read < expected {
                read += io.read(&mut buffer).await.expect("data");
            }
            read = expected;
        }
        "tungstenite" => {
            let mut socket = server.websocket().await;
            while let Some(Ok(message)) = socket.next().await {
                match message {
                    Message::Binary(data) if data[0] == 1 => read += data.len() - 1,
                    Message::Close(_) => break,
                    _ => {}
                }
            }
        }
        "kubewire" => {
            let pod = server.kubewire().pod("default", "bench");
            let mut child = pod.exec(["x"]).spawn().await.expect("a child");
            child.stderr = None;
            let mut stdout = child.stdout.take().expect("a stream");
            while let Some(slice) = stdout.next().await {
                read += slice.expect("data").len();
            }
            assert!(child.wait().await.expect("a Status").success());
        }
        "kubectl" => {
            let config = server.kubeconfig();
            let mut kubectl = Command::new("kubectl")
                .arg("--kubeconfig")
                .arg(&config)
                .args(["exec", "bench", "-c", "main", "--", "x"])
                .stdout(Stdio::piped())
                .spawn()
                .expect("kubectl");
            let mut stdout = kubectl.stdout.take().expect("a pipe");
            let mut buffer = vec![0; 128 << 10];
            loop {
                match stdout.read(&mut buffer).expect("data") {
                    0 => break,
                    part => read += part,
                }
            }
            assert!(kubectl.wait().expect("an end").success());
        }
        _ => {
            let pods: Api<Pod> = Api::namespaced(server.kube(), "default");
            let mut process = pods
                .exec("bench", ["x"], &attach_params(side))
                .await
                .expect("a process");
            let mut stdout = process.stdout().expect("a stream");
            let mut buffer = vec![0; 128 << 10];
            loop {
                match stdout.read(&mut buffer).await.expect("data") {
                    0 => break,
                    part => read += part,
                }
            }
        }
    }
    read
}

async fn stdin(server: &Server<'_>, side: &str, total: usize) {
    let chunk = vec![7; WRITE];
    let writes = total / WRITE;
    match side {
        "raw" => {
            let mut io = server.dial().await;
            io.write_all(b"\n").await.expect("a request");
            for _ in 0..writes {
                io.write_all(&chunk).await.expect("room");
            }
            io.read_u8().await.expect("an answer");
        }
        "tungstenite" => {
            let mut socket = server.websocket().await;
            for _ in 0..writes {
                let mut message = Vec::with_capacity(1 + WRITE);
                message.push(0);
                message.extend_from_slice(&chunk);
                socket.send(Message::binary(message)).await.expect("room");
            }
            while let Some(Ok(message)) = socket.next().await {
                if message.is_close() {
                    break;
                }
            }
        }
        "kubewire" => {
            let pod = server.kubewire().pod("default", "bench");
            let exec = pod.exec(["x"]).stdin(kubewire::exec::Stdio::piped());
            let mut child = exec.spawn().await.expect("a child");
            let mut stdin = child.stdin.take().expect("a stream");
            for _ in 0..writes {
                stdin.write_all(&chunk).await.expect("room");
            }
            AsyncWriteExt::flush(&mut stdin).await.expect("room");
            assert!(child.wait().await.expect("a Status").success());
        }
        _ => {
            let pods: Api<Pod> = Api::namespaced(server.kube(), "default");
            let params = attach_params(side).stdin(true);
            let mut process = pods.exec("bench", ["x"], &params).await.expect("a process");
            let status = process.take_status().expect("a future");
            let mut stdin = process.stdin().expect("a stream");
            for _ in 0..writes {
                stdin.write_all(&chunk).await.expect("room");
            }
            stdin.flush().await.expect("room");
            status.await.expect("a Status");
        }
    }
}

/// The times of single round trips.
async fn trips(mut io: impl Io) -> Vec<Duration> {
    let mut buffer = [7; 64];
    let mut times = Vec::with_capacity(TRIPS);
    for _ in 0..TRIPS {
        let start = Instant::now();
        io.write_all(&buffer).await.expect("room");
        io.flush().await.expect("room");
        io.read_exact(&mut buffer).await.expect("an answer");
        times.push(start.elapsed());
    }
    times
}

async fn echo(server: &Server<'_>, side: &str) -> Vec<Duration> {
    match side {
        "raw" => {
            let mut io = server.dial().await;
            io.write_all(b"\n").await.expect("a request");
            trips(io).await
        }
        "tungstenite" => {
            let mut socket = server.websocket().await;
            let mut times = Vec::with_capacity(TRIPS);
            for _ in 0..TRIPS {
                let start = Instant::now();
                let mut message = vec![0; 65];
                message[1..].fill(7);
                socket.send(Message::binary(message)).await.expect("room");
                socket.next().await.expect("an answer").expect("an answer");
                times.push(start.elapsed());
            }
            times
        }
        "kubewire" => {
            let pod = server.kubewire().pod("default", "bench");
            let exec = pod.exec(["x"]).stdin(kubewire::exec::Stdio::piped());
            let mut child = exec.spawn().await.expect("a child");
            let stdin = child.stdin.take().expect("a stream");
            let stdout = child.stdout.take().expect("a stream");
            trips(tokio::io::join(stdout, stdin)).await
        }
        _ => {
            let pods: Api<Pod> = Api::namespaced(server.kube(), "default");
            let params = attach_params(side).stdin(true);
            let mut process = pods.exec("bench", ["x"], &params).await.expect("a process");
            let stdin = process.stdin().expect("a stream");
            let stdout = process.stdout().expect("a stream");
            trips(tokio::io::join(stdout, stdin)).await
        }
    }
}

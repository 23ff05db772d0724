//! The sides of port-forward. All lead from local connections to the same application; `raw` is a
//! TCP relay in the server's process, as a proxy without Kubernetes would be.

use std::{
    io::{BufRead as _, BufReader},
    net::{Ipv4Addr, SocketAddr},
    process::{Command, Stdio},
    time::Instant,
};

use k8s_openapi::api::core::v1::Pod;
use kube::api::Api;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

use crate::{application::EACH, row::{Work, share}};

const CONNECTIONS: usize = 64;
const OPENINGS: usize = share(300);

/// MiB/s of all connections, or µs from opening one to its first byte.
pub(crate) async fn run(work: &Work, side: &str, addresses: &[&str]) -> f64 {
    let [relay, api, application, kubeconfig] = *addresses else {
        panic!("four addresses");
    };
    let port = application
        .rsplit(':')
        .next()
        .and_then(|port| port.parse().ok());
    let port: u16 = port.expect("a port");
    match side {
        "raw" => measure(work, relay.parse().expect("an address")).await,
        "kubewire" => {
            let config = kubewire::Config::new(&format!("http://{api}")).expect("a URL");
            let pod = kubewire::Client::new(&config)
                .expect("a client")
                .pod("default", "bench");
            let tunnel = pod.port_forward().connect().await.expect("a tunnel");
            let listener = tunnel
                .listen("127.0.0.1:0", port)
                .await
                .expect("a listener");
            measure(work, listener.local_addrs()[0]).await
        }
        "kubectl" => {
            let file = std::env::temp_dir().join(format!("kubewire-peers-{}", std::process::id()));
            std::fs::write(&file, kubeconfig).expect("a file");
            let mut kubectl = Command::new("kubectl")
                .arg("--kubeconfig")
                .arg(&file)
                .args(["port-forward", "bench", &format!(":{port}")])
                .stdout(Stdio::piped())
                .spawn()
                .expect("kubectl");
            let mut lines = BufReader::new(kubectl.stdout.take().expect("a pipe")).lines();
            // "Forwarding from 127.0.0.1:40000 -> 80".
            let line = lines.next().expect("a line").expect("a line");
            let address = line.split(' ').nth(2).expect("an address");
            let address = address.parse().expect("an address");
            // It says a line for each connection.
            std::thread::spawn(move || lines.count());
            let value = measure(work, address).await;
            kubectl.kill().expect("its end");
            kubectl.wait().expect("its end");
            value
        }
        _ => {
            let config = kube::Config::new(format!("http://{api}").parse().expect("a URL"));
            let client = kube::Client::try_from(config).expect("a client");
            measure(work, kube(Api::namespaced(client, "default"), port).await).await
        }
    }
}

/// A listener as kube-rs's example makes it: each connection is a port-forward of its own.
async fn kube(pods: Api<Pod>, port: u16) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .await
        .expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((mut near, _)) = listener.accept().await {
            let pods = pods.clone();
            tokio::spawn(async move {
                let mut forwarder = pods.portforward("bench", &[port]).await.expect("a tunnel");
                let mut far = forwarder.take_stream(port).expect("a stream");
                // How it ends is the reader's to see.
                let _ = copy_bidirectional(&mut near, &mut far).await;
            });
        }
    });
    address
}

async fn measure(work: &Work, address: SocketAddr) -> f64 {
    let begin = Instant::now();
    if matches!(work, Work::Open) {
        for _ in 0..OPENINGS {
            let mut socket = TcpStream::connect(address).await.expect("a connection");
            assert_eq!(socket.read_u8().await.expect("a byte"), b'!');
        }
        return begin.elapsed().as_secs_f64() * 1e6 / OPENINGS as f64;
    }
    let mut all = JoinSet::new();
    for _ in 0..CONNECTIONS {
        all.spawn(async move {
            let mut socket = TcpStream::connect(address).await.expect("a connection");
            socket.write_all(b"?").await.expect("room");
            let (mut buffer, mut read) = (vec![0; 64 << 10], 0);
            loop {
                match socket.read(&mut buffer).await.expect("data") {
                    0 => break,
                    length => read += length,
                }
            }
            assert_eq!(read, EACH + 1);
        });
    }
    all.join_all().await;
    (CONNECTIONS * EACH) as f64 / begin.elapsed().as_secs_f64() / f64::from(1 << 20)
}

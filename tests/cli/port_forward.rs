//! `port-forward`: connections through it, and kubectl's over the same server.

use kubewire::Resource;
use serde_json::json;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader, Lines},
    net::{TcpListener, TcpStream},
    process::{Child, ChildStdout, Command},
    time::timeout,
};

use crate::{
    kubectl,
    tool::{Cluster, PATIENCE},
};

/// An application that sends back what it gets; its port.
pub(crate) async fn echo() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut read, mut write) = socket.split();
                tokio::io::copy(&mut read, &mut write).await?;
                write.shutdown().await
            });
        }
    });
    port
}

/// A port of this machine that nobody listens on at the moment.
pub(crate) async fn free() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    listener.local_addr().unwrap().port()
}

/// A port-forward under way: what it writes, and where it listens.
struct Forwarding {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    local: u16,
}

impl Forwarding {
    async fn start(mut command: Command, remote: u16) -> Self {
        let mut child = command.spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let first = timeout(PATIENCE, lines.next_line())
            .await
            .expect("it listens");
        let first = first.unwrap().expect("a line");
        let local = first.strip_prefix("Forwarding from 127.0.0.1:");
        let local = local.and_then(|rest| rest.strip_suffix(&format!(" -> {remote}")));
        let local = local.unwrap_or_else(|| panic!("{first}")).parse().unwrap();
        Self {
            child,
            lines,
            local,
        }
    }

    /// Sends bytes and takes them back, up to the end.
    async fn echoes(&self, bytes: Vec<u8>) {
        let mut socket = TcpStream::connect(("127.0.0.1", self.local)).await.unwrap();
        let (mut read, mut write) = socket.split();
        let up = async {
            write.write_all(&bytes).await.unwrap();
            write.shutdown().await.unwrap();
        };
        let mut answer = Vec::new();
        let down = async { read.read_to_end(&mut answer).await.unwrap() };
        timeout(PATIENCE, async { tokio::join!(up, down) })
            .await
            .expect("it answers");
        assert!(answer == bytes, "{} of {}", answer.len(), bytes.len());
    }

    async fn says(&mut self, line: &str) {
        let wait =
            async { while self.lines.next_line().await.unwrap().expect("it goes on") != line {} };
        timeout(PATIENCE, wait).await.expect(line);
    }
}

#[tokio::test]
async fn a_forward_goes_on_when_a_connection_is_refused() {
    let cluster = Cluster::start().await;
    let remote = echo().await;
    let nobody = {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        listener.local_addr().unwrap().port()
    };
    let ports = [format!(":{remote}"), format!(":{nobody}")];
    let arguments = ["port-forward", "pod/web-0", &ports[0], &ports[1]];
    let arguments = [&arguments[..], &["--address", "127.0.0.1"]].concat();
    let mut forwarding = Forwarding::start(cluster.kubewire(&arguments), remote).await;
    let line = forwarding.lines.next_line().await.unwrap().unwrap();
    let rest = line.strip_prefix("Forwarding from 127.0.0.1:").unwrap();
    let (refused, _) = rest.split_once(" -> ").unwrap();
    // It may be told as soon as it is connected.
    let read = async {
        let mut socket = TcpStream::connect(format!("127.0.0.1:{refused}")).await?;
        socket.read(&mut [0; 1]).await
    };
    let read = timeout(PATIENCE, read).await;
    assert!(!matches!(read.expect("it ends"), Ok(1..)));
    let mut stderr = BufReader::new(forwarding.child.stderr.take().unwrap()).lines();
    let line = timeout(PATIENCE, stderr.next_line())
        .await
        .expect("it tells");
    let line = line.unwrap().unwrap();
    assert!(line.contains("connection refused"), "{line}");

    forwarding.echoes(vec![7; 1 << 20]).await;
    let handled = format!("Handling connection for {}", forwarding.local);
    forwarding.says(&handled).await;
    let pid = forwarding.child.id().unwrap().to_string();
    Command::new("kill")
        .args(["-s", "INT", &pid])
        .status()
        .await
        .unwrap();
    let status = timeout(PATIENCE, forwarding.child.wait())
        .await
        .expect("it ends");
    assert_eq!(status.unwrap().code(), Some(0));
}

/// The local port of a line that says where it listens.
fn local_port(line: &str) -> u16 {
    let rest = line.strip_prefix("Forwarding from 127.0.0.1:");
    let (port, _) = rest.and_then(|rest| rest.split_once(" -> ")).expect(line);
    port.parse().unwrap()
}

#[tokio::test]
async fn several_pods_are_forwarded_to_at_once_and_a_signal_is_told() {
    let cluster = Cluster::start().await;
    let ports = [format!(":{}", echo().await), format!(":{}", echo().await)];
    let arguments = [
        "port-forward",
        "web-0",
        &ports[0],
        "pod/two",
        &ports[0],
        &ports[1],
        "--address=127.0.0.1",
    ];
    let mut tool = cluster.start_tool(&arguments);
    let mut ports = Vec::new();
    while ports.len() < 3 {
        ports.push(local_port(&tool.line().await));
    }
    for port in ports {
        let mut socket = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        socket.write_all(b"hello").await.unwrap();
        let answer = timeout(PATIENCE, socket.read_u8()).await;
        assert_eq!(answer.expect("it answers").unwrap(), b'h');
        let handled = format!("Handling connection for {port}");
        assert_eq!(tool.line().await, handled);
    }
    let pid = tool.child.id().unwrap().to_string();
    let kill = Command::new("kill").args(["-s", "TERM", &pid]).status();
    assert!(kill.await.unwrap().success());
    let end = timeout(PATIENCE, tool.child.wait()).await.expect("it ends");
    assert_eq!(end.unwrap().code(), Some(143));
    for (arguments, what) in [
        (&["web-0", "80", "svc/web"][..], "which ports of"),
        (
            &["web-0", "80", "81", "--address", "unix:/x"],
            "single port",
        ),
        (&["web-0", "80", "--address", "unix:"], "needs the path"),
        (
            &["web-0", "80", "--address", "unix:/no/such/place"],
            "unix:/no/such/place",
        ),
    ] {
        let arguments = [&["port-forward"], arguments].concat();
        cluster.run(&arguments).await.is_error(what);
    }
}

#[tokio::test]
async fn a_unix_socket_leads_to_the_pod_and_is_gone_at_the_end() {
    let cluster = Cluster::start().await;
    let remote = echo().await.to_string();
    let path = cluster.dir.path().join("socket");
    let address = format!("unix:{}", path.display());
    // One that somebody has left.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let arguments = ["port-forward", "web-0", &remote, "--address", &address];
    let mut tool = cluster.start_tool(&arguments);
    let line = tool.line().await;
    assert_eq!(line, format!("Forwarding from {address} -> {remote}"));
    // One that is in use is not taken away.
    cluster.run(&arguments).await.is_error("in use");
    let mut socket = tokio::net::UnixStream::connect(&path).await.unwrap();
    socket.write_all(b"hello").await.unwrap();
    socket.shutdown().await.unwrap();
    let mut answer = String::new();
    let read = timeout(PATIENCE, socket.read_to_string(&mut answer)).await;
    read.expect("it ends").unwrap();
    assert_eq!(answer, "hello");
    assert_eq!(
        tool.line().await,
        format!("Handling connection for {address}")
    );
    assert_eq!(tool.interrupt().await.code(), Some(0));
    assert!(!path.exists());
}

#[tokio::test]
async fn a_terminal_shows_the_connections_and_what_they_carry() {
    let cluster = Cluster::start().await;
    let remote = format!(":{}", echo().await);
    let arguments = [
        "port-forward",
        "web-0",
        &remote,
        "--address=127.0.0.1",
        "--stats",
    ];
    let mut tool = cluster.on_terminal(&arguments);
    tool.until("Forwarding from 127.0.0.1:").await;
    while !tool.seen.contains(" -> ") {
        assert!(tool.read().await, "{:?}", tool.seen);
    }
    let port: u16 = tool.seen.split(' ').next().unwrap().parse().unwrap();
    tool.until("0 open, 0 closed, 0 failed; 0 B sent, 0 B received")
        .await;
    let mut socket = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    socket.write_all(&[b'x'; 2048]).await.unwrap();
    let read = timeout(PATIENCE, socket.read_exact(&mut [0; 2048])).await;
    read.expect("it answers").unwrap();
    tool.until("open    2.0 KiB   2.0 KiB").await;
    tool.until("1 open, 0 closed, 0 failed; 2.0 KiB sent, 2.0 KiB received")
        .await;
    drop(socket);
    tool.until("0 open, 1 closed, 0 failed; 2.0 KiB sent, 2.0 KiB received")
        .await;
    tool.signal("INT").await;
    assert_eq!(tool.end().await, (Some(0), true));
}

#[tokio::test]
async fn a_forward_listens_on_both_families_unless_told_otherwise() {
    if let Err(error) = TcpListener::bind("[::1]:0").await {
        println!("skipped: no IPv6 on this machine: {error}");
        return;
    }
    let cluster = Cluster::start().await;
    let remote = echo().await;
    let port = format!(":{remote}");
    for (flags, addresses) in [
        (&[][..], &["127.0.0.1", "[::1]"][..]),
        (&["--address", "::1"], &["[::1]"]),
        (&["--address", "::1,localhost"], &["[::1]", "127.0.0.1"]),
    ] {
        let arguments = [&["port-forward", "web-0", &port], flags].concat();
        let mut child = cluster.kubewire(&arguments).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        for address in addresses {
            let line = async {
                loop {
                    // Lines about connections may come between.
                    let line = lines.next_line().await.unwrap().unwrap();
                    if line.starts_with("Forwarding") {
                        break line;
                    }
                }
            };
            let line = timeout(PATIENCE, line).await.expect("it listens");
            let rest = line.strip_prefix("Forwarding from ").unwrap();
            let (local, to) = rest.split_once(" -> ").unwrap();
            assert!(local.starts_with(address), "{line}");
            assert_eq!(to, remote.to_string());
            let mut socket = TcpStream::connect(local).await.unwrap();
            socket.write_all(b"hello").await.unwrap();
            let answer = timeout(PATIENCE, socket.read_u8()).await;
            assert_eq!(answer.expect("it answers").unwrap(), b'h');
        }
        child.start_kill().unwrap();
    }
}

#[tokio::test]
async fn a_forward_that_cannot_be_is_an_error() {
    let cluster = Cluster::start().await;
    for (arguments, what) in [
        (["port-forward", "nopod", ":80"], "not found"),
        (["port-forward", "web-0", ":http"], "no TCP port http"),
        (
            ["port-forward", "svc/web", ":80"],
            "services \"web\" not found",
        ),
    ] {
        cluster.run(&arguments).await.is_error(what);
    }
    let pods = Resource::namespaced("", "v1", "pods");
    for phase in ["Pending", "Succeeded", "Failed"] {
        let name = phase.to_lowercase();
        cluster.server.put(
            &pods,
            json!({
                "kind": "Pod",
                "metadata": {"name": name, "namespace": "default"},
                "spec": {"containers": [{"name": "main"}]},
                "status": {"phase": phase},
            }),
        );
        let refused = cluster.run(&["port-forward", &name, ":80"]).await;
        let what = format!("because pod is not running. Current status={phase}\n");
        refused.is_error(&what);
    }
    let waiting = async |time: &str| {
        let arguments = [
            "port-forward",
            "nopod",
            ":80",
            "--pod-running-timeout",
            time,
        ];
        cluster.run(&arguments).await
    };
    let longest = waiting("18446744073709551615").await;
    longest.is_error("longer than 292 years");
    // kubectl's own default.
    waiting("1m0s").await.is_error("not found");
    let wrong = cluster.run(&["port-forward", "node/a", "80"]).await;
    assert!(wrong.stderr.contains("a deployment"), "{}", wrong.stderr);
    assert!(wrong.code.is_some_and(|code| code != 0));
}

#[tokio::test]
async fn kubectl_forwards_over_spdy() {
    let Some(kubectl) = kubectl::kubectl() else {
        return;
    };
    let cluster = Cluster::start().await;
    let remote = echo().await;
    let ports = format!(":{remote}");
    let arguments = ["port-forward", "web-0", &ports, "--address", "127.0.0.1"];
    let forwarding = Forwarding::start(cluster.program(&kubectl, &arguments), remote).await;
    forwarding.echoes(b"hello".to_vec()).await;
    let noise: Vec<_> = (0..3_000_000_u32)
        .map(|at| (at ^ (at >> 8)) as u8)
        .collect();
    tokio::join!(
        forwarding.echoes(noise.clone()),
        forwarding.echoes(noise.clone()),
        forwarding.echoes(noise),
        forwarding.echoes(Vec::new()),
    );
}

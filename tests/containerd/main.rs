//! exec, attach, port-forward and copies against the streaming server of a real container runtime,
//! the one that stands behind kubelets.
//!
//! It needs containerd, runc, busybox-static and root, and is skipped where they are missing;
//! with `KUBEWIRE_REQUIRE_REAL=1` a skip is a failure.

#![cfg(all(target_os = "linux", feature = "client"))]
#![allow(clippy::print_stdout, reason = "a skipped test says why")]

mod connect;
mod copy;
mod cri;
mod daemon;
mod forward;
mod image;
#[path = "../scenarios/mod.rs"]
mod scenarios;
#[path = "../common/soon.rs"]
mod soon;
#[path = "../common/tree.rs"]
mod tree;

use std::{sync::OnceLock, time::Duration};

use connect::{Via, open};
use daemon::Daemon;
use kubewire::{
    AnyWebSocket, Error, Over, Result,
    attach::Attached,
    error::NetworkError,
    exec::{Child, Streams},
    session::Subprotocol::{self, Unnamed, V1, V1Base64, V4, V4Base64},
};
use scenarios::{Request, Target};

const WAIT: &str = "trap 'exit 0' TERM; while :; do sleep 3600 & wait; done";

/// A containerd, and a container for commands.
struct Containerd {
    daemon: Daemon,
    container: String,
}

impl Containerd {
    async fn start() -> Self {
        let daemon = Daemon::start().await;
        let command = ["sh", "-c", WAIT].map(str::to_owned);
        let container = daemon.container(&command, false, false).await;
        Self { daemon, container }
    }

    fn through(&self, via: Via) -> Through<'_> {
        Through {
            daemon: &self.daemon,
            container: &self.container,
            via,
        }
    }
}

/// The one that all tests share, or the reason why there is none.
fn shared() -> Option<&'static Containerd> {
    static SHARED: OnceLock<Option<Containerd>> = OnceLock::new();
    let shared = SHARED.get_or_init(|| {
        if let Some(reason) = daemon::missing() {
            println!("skipped: {reason}");
            let required = std::env::var_os("KUBEWIRE_REQUIRE_REAL").is_some_and(|v| v == "1");
            assert!(!required, "KUBEWIRE_REQUIRE_REAL is set, but {reason}");
            return None;
        }
        // Not on the test's runtime, which ends with the test.
        let start = || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            runtime.expect("a runtime").block_on(Containerd::start())
        };
        Some(std::thread::spawn(start).join().expect("containerd starts"))
    });
    if shared.is_none() {
        println!("skipped: {}", daemon::missing().unwrap_or_default());
    }
    shared.as_ref()
}

/// Sessions with its container, each over a WebSocket of its own.
struct Through<'a> {
    daemon: &'a Daemon,
    container: &'a str,
    via: Via,
}

impl Through<'_> {
    async fn open(&self, url: &str, request: &Request) -> Result<(AnyWebSocket, Subprotocol)> {
        open(url, request.protocol, self.via).await
    }
}

fn choose<T>(over: Over<T>, request: &Request) -> Over<T> {
    let over = over
        .operation("exec in the container")
        .keepalive(request.keepalive);
    match request.buffer {
        Some(bytes) => over.buffer(bytes),
        None => over,
    }
}

fn streams(request: &Request) -> Streams {
    Streams {
        stdin: request.stdin,
        stdout: request.stdout,
        stderr: request.stderr,
        tty: request.tty.is_some(),
    }
}

impl Target for Through<'_> {
    type Process = String;

    async fn exec(&self, request: &Request) -> Result<Child> {
        let call = cri::Exec {
            id: self.container.to_owned(),
            command: request.command.clone(),
            tty: request.tty.is_some(),
            stdin: request.stdin,
            stdout: request.stdout,
            stderr: request.stderr,
        };
        let runtime = self.daemon.runtime().await;
        let url = runtime.call(call).await.expect("a URL").url;
        let (websocket, protocol) = self.open(&url, request).await?;
        let over = Child::over(websocket, protocol, streams(request));
        let child = choose(over, request).spawn();
        if let Some(size) = request.tty {
            child.resize(size)?;
        }
        Ok(child)
    }

    async fn start(&self, request: &Request) -> String {
        let tty = request.tty.is_some();
        self.daemon.container(&request.command, true, tty).await
    }

    async fn attach(&self, process: &String, request: &Request) -> Result<Attached> {
        let call = cri::Attach {
            id: process.clone(),
            tty: request.tty.is_some(),
            stdin: request.stdin,
            stdout: request.stdout,
            stderr: request.stderr,
        };
        let runtime = self.daemon.runtime().await;
        let url = runtime.call(call).await.expect("a URL").url;
        let (websocket, protocol) = self.open(&url, request).await?;
        let over = Attached::over(websocket, protocol, streams(request));
        let attached = choose(over, request).spawn();
        if let Some(size) = request.tty {
            attached.resize(size)?;
        }
        Ok(attached)
    }

    async fn stop(&self, process: String) {
        let stop = cri::StopContainer {
            id: process,
            timeout: 0,
        };
        let runtime = self.daemon.runtime().await;
        runtime.call(stop).await.expect("it stops");
    }
}

macro_rules! run {
    ($name:ident, $target:expr, $protocol:expr, ($($more:expr),*)) => {
        scenarios::$name($target, $protocol $(, $more)*).await
    };
}

/// A test for each scenario, over the given subprotocols and WebSockets.
macro_rules! tests {
    ($($name:ident $more:tt: $($protocol:ident via $via:ident),+;)*) => {$(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            let Some(containerd) = shared() else { return };
            $(
                run!($name, &containerd.through(Via::$via), $protocol, $more);
            )+
        }
    )*};
}

tests! {
    exit_code(): V4 via Client, V4Base64 via Client, V1 via Client, V1Base64 via Client,
        Unnamed via Client, V4 via Tungstenite, V4Base64 via Tungstenite, V1 via Tungstenite,
        V4 via Messages, V4Base64 via Messages, V4 via Bytes, Unnamed via Bytes;
    counted_stdin(): V4 via Client, V4Base64 via Client, V1 via Client, V4 via Tungstenite,
        V4 via Messages, V4 via Bytes;
    half_close(): V4 via Client, V4Base64 via Client, V1 via Client;
    signal(): V4 via Client, V4Base64 via Client, V1 via Client, V1Base64 via Client;
    no_such_program(): V4 via Client, V4Base64 via Client, V1 via Client, Unnamed via Client;
    terminal(): V4 via Client, V4Base64 via Tungstenite, V1 via Client;
    resize_without_terminal(): V4 via Client;
    attach(): V4 via Client, V4Base64 via Client, V1 via Client, V4 via Tungstenite;
    attach_terminal(): V4 via Client;
    bulk_output(64 << 20): V4 via Client, V4Base64 via Client, V4 via Tungstenite,
        V4 via Messages;
    bulk_input(8 << 20): V4 via Client, V4Base64 via Client, V1 via Client, V4 via Tungstenite,
        V4 via Messages, V4 via Bytes;
    both_ways(64 << 20): V4 via Client, V4Base64 via Client, V4 via Tungstenite;
    unread_stderr(): V4 via Client, V4 via Tungstenite;
    sleepy_reader(Duration::from_secs(5)): V4 via Client, V4 via Tungstenite;
    quiet_process(): V4 via Client, V4 via Tungstenite, V4 via Messages;
    blocked_stdin(): V4 via Client, V4 via Tungstenite;
    dropped(): V4 via Client, V4 via Tungstenite;
}

/// Asking for a URL twice is refused, and the refusal is not HTTP's success.
#[tokio::test]
async fn a_token_that_is_used_up_is_refused() {
    let Some(containerd) = shared() else { return };
    let call = cri::Exec {
        id: containerd.container.clone(),
        command: vec!["true".into()],
        stdout: true,
        ..cri::Exec::default()
    };
    let runtime = containerd.daemon.runtime().await;
    let url = runtime.call(call).await.expect("a URL").url;
    let streams = Streams {
        stdout: true,
        ..Streams::default()
    };
    let (websocket, protocol) = open(&url, V4, Via::Client).await.expect("it is fresh");
    let mut child = Child::over(websocket, protocol, streams).spawn();
    assert!(child.wait().await.expect("it ends").success());
    let error = open(&url, V4, Via::Client).await.expect_err("it is used");
    let status = error.status().expect("a refusal").clone();
    assert_eq!(status.code, 404, "{error}");
}

/// The streaming server knows no v5: the refusal of the handshake is an error with its code.
#[tokio::test]
async fn an_unknown_subprotocol_is_refused() {
    let Some(containerd) = shared() else { return };
    let request = Request::new(Subprotocol::V5, &["true"]);
    let error = containerd
        .through(Via::Client)
        .exec(&request)
        .await
        .expect_err("no such subprotocol");
    assert_eq!(error.status().expect("a refusal").code, 403, "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_container_that_is_stopped_in_mid_stream_is_no_success() {
    let Some(containerd) = shared() else { return };
    for protocol in [V4, V4Base64, V1] {
        let command = ["sh", "-c", WAIT].map(str::to_owned);
        let container = containerd.daemon.container(&command, false, false).await;
        let target = Through {
            container: &container,
            ..containerd.through(Via::Client)
        };
        let fault = async { target.stop(container.clone()).await };
        match scenarios::cut(&target, protocol, fault).await {
            Ok(code) => assert_eq!(code, 137),
            Err(error) => assert!(is_cut(&error), "{error:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_runtime_that_is_killed_in_mid_stream_is_no_success() {
    if shared().is_none() {
        return;
    }
    for (protocol, via) in [(V4, Via::Client), (V1, Via::Client), (V4, Via::Tungstenite)] {
        let containerd = Containerd::start().await;
        let process = containerd.daemon.process.id().to_string();
        let fault = async {
            let kill = std::process::Command::new("kill")
                .args(["-KILL", &process])
                .status();
            assert!(kill.expect("kill runs").success());
        };
        let target = containerd.through(via);
        let error = scenarios::cut(&target, protocol, fault)
            .await
            .expect_err("nobody was left to send a status");
        assert!(is_cut(&error), "{error:?}");
    }
}

fn is_cut(error: &Error) -> bool {
    matches!(
        error,
        Error::Network(NetworkError::ClosedWithoutStatus { .. })
    )
}

//! The embedded API server must be good for what real servers are good for: the scenarios that
//! run against a container runtime and a cluster, once more.

#![cfg(all(unix, feature = "client", feature = "testing"))]

mod scenarios;

use std::time::Duration;

use kubewire::{
    Client, Result,
    attach::Attached,
    exec::Child,
    session::Subprotocol::{V1, V1Base64, V4, V4Base64, V5},
    testing::ApiServer,
};
use scenarios::{Request, Target};

/// An embedded server with one pod.
struct Embedded {
    server: ApiServer,
    client: Client,
}

impl Embedded {
    async fn start(plain: bool) -> Self {
        let builder = ApiServer::builder().pod("default", "web-0", |pod| {
            pod.container("main", ["sleep", "infinity"])
        });
        let builder = if plain { builder.plain() } else { builder };
        let server = builder.start().await.expect("it listens");
        let client = Client::new(&server.config()).expect("a client");
        Self { server, client }
    }
}

impl Target for Embedded {
    /// A server of its own, whose container runs the process.
    type Process = ApiServer;

    async fn exec(&self, request: &Request) -> Result<Child> {
        let pod = self.client.pod("default", "web-0");
        scenarios::exec(&pod, request).spawn().await
    }

    async fn start(&self, request: &Request) -> ApiServer {
        let builder = ApiServer::builder().pod("default", "process", |pod| {
            pod.container_with("main", &request.command, |container| {
                let container = container.stdin();
                match request.tty {
                    Some(_) => container.tty(),
                    None => container,
                }
            })
        });
        builder.start().await.expect("it listens")
    }

    async fn attach(&self, process: &ApiServer, request: &Request) -> Result<Attached> {
        let client = Client::new(&process.config())?;
        let pod = client.pod("default", "process");
        scenarios::attach_to(&pod, request).spawn().await
    }

    async fn stop(&self, process: ApiServer) {
        process.shutdown().await;
    }
}

macro_rules! call {
    ($name:ident, $target:expr, $protocol:expr, ($($more:expr),*)) => {
        scenarios::$name($target, $protocol $(, $more)*).await
    };
}

/// A test for each scenario, over the given subprotocols, with TLS and without.
macro_rules! tests {
    ($($name:ident $more:tt: $($protocol:ident),+;)*) => {$(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            for plain in [false, true] {
                let target = Embedded::start(plain).await;
                $(call!($name, &target, $protocol, $more);)+
                target.server.shutdown().await;
            }
        }
    )*};
}

tests! {
    exit_code(): V5, V4, V4Base64, V1, V1Base64;
    counted_stdin(): V5, V4, V4Base64, V1;
    half_close(): V5, V4, V1;
    signal(): V5, V4, V1;
    no_such_program(): V5, V4, V4Base64, V1;
    terminal(): V5, V4;
    resize_without_terminal(): V5, V4;
    attach(): V5, V4;
    attach_terminal(): V5, V4;
    bulk_output(16 << 20): V5, V4, V4Base64;
    bulk_input(4 << 20): V5, V4, V4Base64;
    both_ways(32 << 20): V5;
    unread_stderr(): V5, V4;
    sleepy_reader(Duration::from_secs(3)): V5;
    quiet_process(): V5;
    blocked_stdin(): V5, V4;
    dropped(): V5, V4;
}

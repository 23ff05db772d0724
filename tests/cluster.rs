//! exec, attach, port-forward, copies, logs and watch through an API server: the scenarios of
//! `tests/scenarios`, and the programs in `examples/`, on any cluster.
//!
//! ```text
//! cargo build --release --examples
//! KUBECONFIG=... cargo test --release --test cluster -- --ignored
//! ```
//!
//! It makes pods of its own with `kubectl` and deletes them at the end. What the environment can
//! say:
//!
//! | variable | meaning |
//! |---|---|
//! | `KUBECTL` | the program; `kubectl` from `PATH` unless set |
//! | `KUBEWIRE_TEST_POD` | a pod in `default` to use instead, whose default container has busybox; what needs other pods is left out |
//! | `KUBEWIRE_TEST_IMAGE` | an image with busybox that the node has already; `docker.io/local/busybox:1` |
//! | `KUBEWIRE_TEST_NODE` | the node for the pods; the first one unless set |
//! | `KUBEWIRE_TEST_NOBODY` | a kubeconfig of a user without rights, for the refusals |
//! | `KUBEWIRE_TEST_BYTES` | bytes for the round trip through `cat`; 1 GiB unless set |
//! | `KUBEWIRE_TEST_FAULT` | a shell command that breaks the connection, such as one that restarts the kubelet; it runs in the middle of a stream. Unless set, the pod is deleted there |

#![cfg(feature = "client")]
#![allow(clippy::print_stdout, reason = "a skipped test says why")]

#[path = "cluster/copy.rs"]
mod copy;
#[path = "common/cutter.rs"]
mod cutter;
#[path = "cluster/examples.rs"]
mod examples;
#[path = "cluster/forward.rs"]
mod forward;
#[path = "cluster/pods.rs"]
mod pods;
#[path = "common/programs.rs"]
mod programs;
mod scenarios;
#[path = "common/tree.rs"]
mod tree;

use std::{
    io::{BufRead as _, BufReader},
    process::{Child as Process, Command, Stdio as Pipe},
    sync::OnceLock,
    time::Duration,
};

use kubewire::{
    Client, Config, Error, Pod, Result,
    attach::Attached,
    config::KubeconfigOptions,
    error::{Hint, NetworkError},
    exec::Child,
    logs::LogEnd,
    session::Subprotocol::{self, V1, V1Base64, V4, V4Base64, V5},
    watch::Update,
    wire::watch::{Encoding, EventType},
};
use pods::{NAMESPACE, WAIT, create_pod, delete_pod, kubectl, make_pod, pod, run, variable};
use scenarios::{Request, Target};

/// A pod for commands, which all tests share.
fn shared() -> &'static str {
    static SHARED: OnceLock<String> = OnceLock::new();
    SHARED.get_or_init(|| match variable("KUBEWIRE_TEST_POD") {
        Some(name) => name,
        None => make_pod(&["sh", "-c", WAIT].map(str::to_owned), false),
    })
}

/// Whether pods can be made; says so if not.
fn makes_pods() -> bool {
    let makes = variable("KUBEWIRE_TEST_POD").is_none();
    if !makes {
        println!("skipped: it needs a pod of its own");
    }
    makes
}

/// One pod through one client.
struct Through(Pod);

impl Through {
    async fn cluster() -> Self {
        let client = Client::from_env().await.expect("KUBECONFIG");
        Self(client.pod(NAMESPACE, shared()))
    }
}

impl Target for Through {
    type Process = String;

    async fn exec(&self, request: &Request) -> Result<Child> {
        scenarios::exec(&self.0, request).spawn().await
    }

    async fn start(&self, request: &Request) -> String {
        make_pod(&request.command, request.tty.is_some())
    }

    async fn attach(&self, process: &String, request: &Request) -> Result<Attached> {
        let client = Client::from_env().await?;
        scenarios::attach_to(&client.pod(NAMESPACE, process), request)
            .spawn()
            .await
    }

    async fn stop(&self, process: String) {
        let stop = tokio::task::spawn_blocking(move || delete_pod(&process));
        stop.await.expect("it stops");
    }
}

macro_rules! call {
    ($name:ident, $target:expr, $protocol:expr, ($($more:expr),*)) => {
        scenarios::$name($target, $protocol $(, $more)*).await
    };
}

/// A test for each scenario, over the given subprotocols.
macro_rules! tests {
    ($($name:ident $more:tt: $($protocol:ident),+;)*) => {$(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        #[ignore = "needs a cluster"]
        async fn $name() {
            let target = Through::cluster().await;
            $(call!($name, &target, $protocol, $more);)+
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
    bulk_output(64 << 20): V5, V4, V4Base64;
    bulk_input(8 << 20): V5, V4, V4Base64;
    both_ways(bytes()): V5;
    unread_stderr(): V5, V4;
    sleepy_reader(Duration::from_secs(65)): V5;
    quiet_process(): V5, V4;
    blocked_stdin(): V5, V4;
    dropped(): V5, V4;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a cluster"]
async fn attach() {
    if makes_pods() {
        let target = Through::cluster().await;
        scenarios::attach(&target, V5).await;
        scenarios::attach(&target, V4).await;
        scenarios::attach_terminal(&target, V5).await;
    }
}

fn bytes() -> u64 {
    variable("KUBEWIRE_TEST_BYTES").map_or(1 << 30, |bytes| bytes.parse().expect("a number"))
}

/// The default offer is taken: a server that has v5 chooses it.
#[tokio::test]
#[ignore = "needs a cluster"]
async fn the_first_offer_that_the_server_knows_is_used() {
    let target = Through::cluster().await;
    let child = target.0.exec(["true"]).spawn().await.expect("it starts");
    assert!(Subprotocol::DEFAULT.contains(&child.protocol()));
    let output = child.wait_with_output().await.expect("it ends");
    assert!(output.status.success());
}

/// `kubectl proxy`, on a port of its own choice.
struct Proxy {
    process: Process,
    url: String,
}

impl Proxy {
    fn start() -> Self {
        let program = variable("KUBECTL").unwrap_or_else(|| "kubectl".into());
        let mut process = Command::new(program)
            .args([
                "proxy",
                "--port=0",
                "--reject-paths=^$",
                "--reject-methods=^$",
            ])
            .stdout(Pipe::piped())
            .spawn()
            .expect("kubectl runs");
        let mut line = String::new();
        BufReader::new(process.stdout.take().expect("piped"))
            .read_line(&mut line)
            .expect("it says where it listens");
        let address = line.trim().rsplit(' ').next().unwrap_or_default();
        let url = format!("http://{address}");
        Self { process, url }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Plain HTTP to a sidecar that holds the credentials.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a cluster"]
async fn a_plain_http_proxy_is_a_server_too() {
    let proxy = Proxy::start();
    let client = Client::from_url(&proxy.url).expect("a URL");
    let target = Through(client.pod(NAMESPACE, shared()));
    for protocol in [V5, V4] {
        scenarios::exit_code(&target, protocol).await;
        scenarios::counted_stdin(&target, protocol).await;
        scenarios::half_close(&target, protocol).await;
        scenarios::no_such_program(&target, protocol).await;
    }
    scenarios::bulk_output(&target, V5, 16 << 20).await;
    scenarios::terminal(&target, V5).await;
}

/// A refusal names the rule that is missing.
#[tokio::test]
#[ignore = "needs a cluster"]
async fn a_user_without_rights_learns_which_are_missing() {
    let Some(path) = variable("KUBEWIRE_TEST_NOBODY") else {
        println!("skipped: KUBEWIRE_TEST_NOBODY is not set");
        return;
    };
    let options = KubeconfigOptions::new().file(path);
    let config = Config::from_kubeconfig(&options).expect("a kubeconfig");
    let pod = Client::new(&config)
        .expect("a client")
        .pod(NAMESPACE, shared());
    let refusals = [
        ("pods/exec", pod.exec(["true"]).spawn().await.map(drop)),
        ("pods/attach", pod.attach().spawn().await.map(drop)),
    ];
    for (wanted, refusal) in refusals {
        let error = refusal.expect_err("no rights");
        assert_eq!(error.status().map(|status| status.code), Some(403));
        let Error::Api(refusal) = &error else {
            panic!("{error:?}");
        };
        let Some(Hint::Rule {
            resource, verbs, ..
        }) = &refusal.hint
        else {
            panic!("{error:?}");
        };
        assert_eq!(resource, wanted);
        assert!(verbs.iter().any(|verb| verb == "create"), "{verbs:?}");
        assert!(verbs.iter().any(|verb| verb == "get"), "{verbs:?}");
    }
}

/// A container or a pod that does not exist.
#[tokio::test]
#[ignore = "needs a cluster"]
async fn a_name_that_is_wrong_is_refused_with_the_right_ones() {
    let target = Through::cluster().await;
    let wrong = target.0.exec(["true"]).container("nope").spawn().await;
    let error = wrong.map(drop).expect_err("no such container");
    assert_eq!(error.status().map(|status| status.code), Some(400));
    assert!(
        matches!(&error, Error::Api(refusal)
            if matches!(&refusal.hint, Some(Hint::Containers(names)) if !names.is_empty())),
        "{error:?}"
    );
    let client = Client::from_env().await.expect("KUBECONFIG");
    let wrong = client.pod(NAMESPACE, "nope").exec(["true"]).spawn().await;
    let error = wrong.map(drop).expect_err("no such pod");
    assert_eq!(error.status().map(|status| status.code), Some(404));
}

/// What breaks in the middle is never a success.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a cluster"]
async fn a_stream_that_is_cut_is_no_success() {
    if !makes_pods() {
        return;
    }
    let client = Client::from_env().await.expect("KUBECONFIG");
    for protocol in [V5, V4, V1] {
        let name = make_pod(&["sh", "-c", WAIT].map(str::to_owned), false);
        let target = Through(client.pod(NAMESPACE, &name));
        let fault = async {
            let break_it = move || match variable("KUBEWIRE_TEST_FAULT") {
                None => delete_pod(&name),
                Some(command) => {
                    let status = Command::new("sh").args(["-c", &command]).status();
                    assert!(status.expect("sh runs").success());
                }
            };
            let broken = tokio::task::spawn_blocking(break_it);
            broken.await.expect("it breaks");
        };
        match scenarios::cut(&target, protocol, fault).await {
            Ok(code) => assert_eq!(code, 137),
            Err(error) => assert!(
                matches!(
                    error,
                    Error::Network(NetworkError::ClosedWithoutStatus { .. }) | Error::Api(_)
                ),
                "{error:?}"
            ),
        }
    }
}

/// Over WebSockets logs and watches are what they are over HTTP.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a cluster"]
async fn logs_and_watches_over_websockets_are_those_over_http() {
    if !makes_pods() {
        return;
    }
    let client = Client::from_env().await.expect("KUBECONFIG");
    let script = "i=0; while [ $i -lt 200 ]; do echo line $i; i=$((i+1)); sleep 0.02; done; exit 3";
    let name = make_pod(&["sh", "-c", script].map(str::to_owned), false);
    let expected: Vec<_> = (0..200).map(|n| format!("line {n}")).collect();
    let logs = client.pod(NAMESPACE, &name).logs();
    for logs in [
        logs.clone().follow().over_websocket(),
        logs.clone().follow(),
        logs.clone().over_websocket(),
        logs.clone().plain().over_websocket(),
    ] {
        let mut stream = logs.stream();
        let mut lines = Vec::new();
        while let Some(line) = stream.next().await {
            lines.push(String::from_utf8_lossy(&line.expect("a line").bytes).into_owned());
        }
        assert_eq!(lines, expected);
        match stream.end().expect("it has ended") {
            LogEnd::Exited(exit) => assert_eq!(exit.code, Some(3)),
            end => assert!(matches!(end, LogEnd::Complete), "{end:?}"),
        }
    }
    let missing = client.pod(NAMESPACE, "nope").logs().over_websocket();
    let first = missing.stream().next().await.expect("the refusal");
    let error = first.expect_err("no such pod");
    assert_eq!(error.status().map(|status| status.code), Some(404));

    let pods = client.find("pods").await.expect("pods exist").resource;
    for encoding in [Encoding::Json, Encoding::Protobuf, Encoding::Cbor] {
        for watch_list in [true, false] {
            let watch = client.watch(pods.clone()).namespace(NAMESPACE).name(&*name);
            let watch = watch.encoding(encoding).watch_list(watch_list);
            let mut seen = Vec::new();
            for watch in [watch.clone().over_websocket(), watch] {
                let mut updates = watch.stream();
                let mut found = None;
                let (version, object) = loop {
                    match updates.next().await.expect("no end").expect("no refusal") {
                        Update::Event(event) => found = Some(event.object),
                        Update::SnapshotEnd {
                            resource_version, ..
                        } => break (resource_version, found.expect("the pod")),
                        _ => {}
                    }
                };
                assert!(!version.is_empty());
                let metadata = object.metadata().expect("metadata");
                assert_eq!(metadata.name().expect("a name"), name);
                seen.push((
                    object.encoding(),
                    metadata.uid().expect("a uid").into_owned(),
                ));
            }
            assert_eq!(seen[0], seen[1]);
        }
    }
    let expired = client.watch(pods).from("1").over_websocket().once().await;
    let event = expired.expect("it opens").next().await.expect("an event");
    let event = event.expect("an event");
    if event.event_type != EventType::Error {
        // Of a young cluster nothing has been compacted yet.
        println!("skipped: the first version has not expired");
        return;
    }
    let status = event.object.status().expect("a Status");
    assert_eq!(status.code, 410);
}

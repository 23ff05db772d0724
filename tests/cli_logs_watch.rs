//! `kubewire logs` and `kubewire watch` against the embedded API server, and kubectl beside them.

#![cfg(unix)]
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "helpers of tests are tests"
)]

#[path = "common/kubectl.rs"]
mod kubectl;

use std::{path::PathBuf, process::Stdio, time::Duration};

use kubewire::{
    Client, Resource,
    testing::{ApiServer, BodyFault, RestartPolicy},
};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader, Lines},
    process::{Child, ChildStdout, Command},
    time::timeout,
};

const KUBEWIRE: &str = env!("CARGO_BIN_EXE_kubewire");

/// What a machine with other work to do may take for what should take no time.
const PATIENCE: Duration = Duration::from_secs(60);

struct Cluster {
    server: ApiServer,
    dir: TempDir,
}

/// A container that writes so many lines and goes on.
fn writes(name: &str, lines: u32) -> [String; 3] {
    let script =
        format!("i=0; while [ $i -lt {lines} ]; do i=$((i+1)); echo {name} $i; done; sleep 600");
    ["sh".into(), "-c".into(), script]
}

impl Cluster {
    /// The pods `one` with a container, `two` with two, `three` with a default container, and
    /// `ends`, whose container has ended; the first three are those of `app=web`.
    async fn start() -> Self {
        let server = ApiServer::builder()
            .pod("default", "one", |pod| {
                pod.label("app", "web").container("main", writes("one", 15))
            })
            .pod("default", "two", |pod| {
                let pod = pod.label("app", "web").container("a", writes("a", 15));
                pod.container("b", writes("b", 3))
            })
            .pod("default", "three", |pod| {
                pod.label("app", "web")
                    .annotation("kubectl.kubernetes.io/default-container", "y")
                    .container("x", writes("x", 2))
                    .container("y", writes("y", 2))
            })
            .pod("default", "ends", |pod| {
                pod.container("main", ["sh", "-c", "echo first; printf last; exit 3"])
            })
            .start()
            .await
            .unwrap();
        let cluster = Self::around(server);
        let client = Client::new(&cluster.server.config()).unwrap();
        for (pod, container, lines) in [
            ("one", "main", 15),
            ("two", "a", 15),
            ("two", "b", 3),
            ("three", "x", 2),
            ("three", "y", 2),
            ("ends", "main", 2),
        ] {
            let logs = client.pod("default", pod).logs().container(container);
            let all = async {
                loop {
                    let mut stream = logs.clone().stream().await.unwrap();
                    let mut count = 0;
                    while let Some(Ok(_)) = stream.next().await {
                        count += 1;
                    }
                    if count == lines {
                        break;
                    }
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            };
            timeout(PATIENCE, all).await.expect("it writes");
        }
        cluster
    }

    fn around(server: ApiServer) -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("kubeconfig"), server.kubeconfig()).unwrap();
        Self { server, dir }
    }

    fn program(&self, program: impl Into<PathBuf>, arguments: &[&str]) -> Child {
        let mut command = Command::new(program.into());
        command
            .args(arguments)
            .env_clear()
            .env("HOME", self.dir.path())
            .env("KUBECONFIG", self.dir.path().join("kubeconfig"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command.spawn().unwrap()
    }

    /// The exit code, stdout and stderr of the tool.
    async fn run(&self, arguments: &[&str]) -> (Option<i32>, String, String) {
        finish(self.program(KUBEWIRE, arguments)).await
    }
}

async fn finish(child: Child) -> (Option<i32>, String, String) {
    let output = timeout(PATIENCE, child.wait_with_output()).await;
    let output = output.expect("it hangs").unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (
        output.status.code(),
        text(output.stdout),
        text(output.stderr),
    )
}

/// A program that goes on, and what it writes.
struct Running {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Running {
    fn new(mut child: Child) -> Self {
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines }
    }

    async fn line(&mut self) -> String {
        let line = timeout(PATIENCE, self.lines.next_line()).await;
        line.expect("it is silent").unwrap().expect("it goes on")
    }

    /// The next row of a table, without the age, which changes as time goes by.
    async fn row(&mut self) -> String {
        let row = squeeze(&self.line().await);
        row.rsplit_once(' ').unwrap().0.to_owned()
    }

    async fn is_next(&mut self, expected: &[&str]) {
        for expected in expected {
            assert_eq!(self.row().await, *expected);
        }
    }

    async fn interrupt(mut self) -> std::process::ExitStatus {
        let pid = self.child.id().unwrap().to_string();
        let kill = Command::new("kill").args(["-s", "INT", &pid]).status();
        assert!(kill.await.unwrap().success());
        let end = timeout(PATIENCE, self.child.wait()).await;
        end.expect("it ends").unwrap()
    }
}

/// A row of a table with a space between its cells.
fn squeeze(row: &str) -> String {
    row.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn lines(name: &str, from: u32, to: u32) -> String {
    (from..=to).map(|n| format!("{name} {n}\n")).collect()
}

#[tokio::test]
async fn logs_are_chosen_as_kubectl_chooses() {
    let cluster = Cluster::start().await;
    let all = |name: &str, to| lines(name, 1, to);
    let defaulted = "Defaulted container \"a\" out of: a, b\n";
    let none = "No resources found in default namespace.\n";
    let by_selector = format!(
        "{}{}{}",
        lines("one", 6, 15),
        all("y", 2),
        lines("a", 6, 15)
    );
    let in_order = format!("{}{}", all("a", 15), all("b", 3));
    let prefixed = "[pod/two/a] a 15\n[pod/two/b] b 3\n";
    for (arguments, stdout, stderr) in [
        (&["one"][..], all("one", 15), ""),
        (&["pod/one", "--tail=2"], lines("one", 14, 15), ""),
        (&["one", "--tail", "-1"], all("one", 15), ""),
        (&["one", "--tail=0"], String::new(), ""),
        (
            &["one", "--since=1.5h", "--tail=1"],
            lines("one", 15, 15),
            "",
        ),
        (&["one", "--since=0s", "--tail=1"], lines("one", 15, 15), ""),
        (&["one", "--limit-bytes=7"], "one 1\no".into(), ""),
        (
            &["one", "--limit-bytes=0", "--tail=1"],
            lines("one", 15, 15),
            "",
        ),
        (
            &["one", "--follow=false", "--tail=1"],
            lines("one", 15, 15),
            "",
        ),
        (
            &["one", "--prefix", "--tail=1"],
            "[pod/one/main] one 15\n".into(),
            "",
        ),
        (&["two"], all("a", 15), defaulted),
        (&["two", "b"], all("b", 3), ""),
        (&["two", "-c", "b"], all("b", 3), ""),
        (&["three"], all("y", 2), ""),
        (&["two", "--all-containers"], in_order.clone(), ""),
        (
            &["two", "--all-containers=true", "--timestamps=false"],
            in_order,
            "",
        ),
        (
            &["two", "--all-containers", "--prefix", "--tail=1"],
            prefixed.into(),
            "",
        ),
        (&["-l", "app=web"], by_selector, defaulted),
        (&["-l", "app=web", "--tail=0"], String::new(), defaulted),
        (&["-l", "app=none"], String::new(), none),
        (&["ends"], "first\nlast".into(), ""),
        (&["-f", "ends", "--tail=1"], "last".into(), ""),
    ] {
        let arguments = [&["logs"], arguments].concat();
        let ran = cluster.run(&arguments).await;
        assert_eq!(ran, (Some(0), stdout, stderr.to_owned()), "{arguments:?}");
    }
    for (arguments, error) in [
        (&["nopod"][..], "pods \"nopod\" not found"),
        (&["two", "-c", "x"], "container x is not valid for pod two"),
        (
            &["one", "-p"],
            "previous terminated container \"main\" in pod \"one\" not found",
        ),
        (&["two", "a", "--all-containers"], "exclude each other"),
        (&["one", "--tail=-2"], "--tail"),
        (&["one", "--since=1d"], "no duration"),
        (&["one", "--since-time=noon"], "RFC 3339"),
        (&["one", "-l", "app=web"], "cannot be used with"),
        (&["node/x"], "neither a pod nor anything that selects pods"),
        (&["deploy/x"], "deployments.apps \"x\" not found"),
        (&[], "required"),
    ] {
        let arguments = [&["logs"], arguments].concat();
        let (code, stdout, stderr) = cluster.run(&arguments).await;
        assert_eq!((code, &*stdout), (Some(1), ""), "{arguments:?}: {stderr}");
        assert!(stderr.starts_with("error: "), "{stderr}");
        assert!(stderr.contains(error), "{error:?} is not in {stderr}");
        assert_eq!(stderr.matches('\n').count(), 1, "{stderr}");
    }
    let (code, stdout, stderr) = cluster.run(&["logs", "-l", "app=web", "-c", "b"]).await;
    assert_eq!((code, stdout), (Some(1), all("b", 3)));
    assert_eq!(stderr.matches("error: ").count(), 2, "{stderr}");
    let ignoring = ["logs", "-l", "app=web", "-c", "b", "--ignore-errors"];
    assert_eq!(cluster.run(&ignoring).await.0, Some(0));
}

#[tokio::test]
async fn a_workload_or_a_service_stands_for_one_of_its_pods() {
    let cluster = Cluster::start().await;
    let web = json!({"app": "web"});
    let services = Resource::namespaced("", "v1", "services");
    cluster.server.put(
        &services,
        json!({
            "kind": "Service",
            "metadata": {"name": "web", "namespace": "default"},
            "spec": {"selector": web},
        }),
    );
    cluster.server.put(
        &Resource::namespaced("apps", "v1", "deployments"),
        json!({
            "kind": "Deployment",
            "metadata": {"name": "web", "namespace": "default"},
            "spec": {"selector": {"matchLabels": web}},
        }),
    );
    for target in ["deploy/web", "svc/web", "deployments.apps/web"] {
        let (code, stdout, stderr) = cluster.run(&["logs", target, "--tail=1"]).await;
        assert_eq!((code, &*stdout), (Some(0), "one 15\n"), "{stderr}");
        assert_eq!(stderr, "Found 3 pods, using pod/one\n");
    }
}

#[tokio::test]
async fn the_log_of_a_crashed_container_is_the_previous_one() {
    let server = ApiServer::builder()
        .pod("default", "web-0", |pod| {
            pod.restart_policy(RestartPolicy::Always)
                .container("main", ["sh", "-c", "echo up $$; exec sleep 600"])
        })
        .start()
        .await
        .unwrap();
    let cluster = Cluster::around(server);
    let follow = ["logs", "-f", "web-0", "--across-restarts"];
    let mut tool = Running::new(cluster.program(KUBEWIRE, &follow));
    let first = tool.line().await;
    assert!(cluster.server.kill_container("default", "web-0", "main"));
    let second = tool.line().await;
    assert_ne!(first, second);
    for flags in [&["-p"][..], &["--previous=true"], &["-f", "-p"]] {
        let arguments = [&["logs", "web-0"], flags].concat();
        let ran = cluster.run(&arguments).await;
        assert_eq!(ran, (Some(0), format!("{first}\n"), String::new()));
    }
    tool.interrupt().await;
}

#[tokio::test]
async fn a_reader_that_has_enough_and_an_interrupt_end_it_quietly() {
    let server = ApiServer::builder()
        .pod("default", "web-0", |pod| {
            let script = "while echo y; do sleep 0.01; done";
            pod.container("main", ["sh", "-c", script])
        })
        .start()
        .await
        .unwrap();
    let cluster = Cluster::around(server);
    let mut tool = Running::new(cluster.program(KUBEWIRE, &["logs", "-f", "web-0"]));
    assert_eq!(tool.line().await, "y");
    drop(tool.lines);
    let (code, _, stderr) = finish(tool.child).await;
    assert_eq!((code, &*stderr), (Some(141), ""));

    for arguments in [&["logs", "-f", "web-0"][..], &["watch", "pods"]] {
        let mut tool = Running::new(cluster.program(KUBEWIRE, arguments));
        tool.line().await;
        let status = tool.interrupt().await;
        let number = std::os::unix::process::ExitStatusExt::signal(&status);
        assert!(status.code() == Some(130) || number == Some(2), "{status}");
    }
}

fn things() -> Resource {
    Resource::namespaced("example.com", "v1", "things")
}

fn put(server: &ApiServer, namespace: &str, name: &str, value: u64) {
    let object = json!({
        "kind": "Thing",
        "metadata": {"name": name, "namespace": namespace, "labels": {"value": value.to_string()}},
        "value": value,
    });
    server.put(&things(), object);
}

#[tokio::test]
async fn a_watch_prints_the_server_s_table() {
    let cluster = Cluster::start().await;
    let mut tool = Running::new(cluster.program(KUBEWIRE, &["watch", "pod/ends"]));
    let mut header = String::new();
    let mut row = String::new();
    while !row.contains("Error") {
        let line = tool.line().await;
        if line.starts_with("EVENT") {
            header = line;
        } else {
            row = line;
        }
    }
    assert_eq!(squeeze(&header), "EVENT NAME READY STATUS RESTARTS AGE");
    assert!(squeeze(&row).contains("ends 0/1 Error 0 "), "{row}");
    assert_eq!(header.find("STATUS"), row.find("Error"), "{header}\n{row}");
    let wide = ["watch", "pods", "one", "-o", "wide"];
    let mut tool = Running::new(cluster.program(KUBEWIRE, &wide));
    let header = tool.line().await;
    assert!(header.ends_with("READINESS GATES"), "{header}");
}

#[tokio::test]
async fn a_watch_prints_every_change_in_the_form_that_is_asked_for() {
    let server = ApiServer::builder()
        .resource_with(things(), "Thing", |thing| thing.selectable_field("value"))
        .start()
        .await
        .unwrap();
    let cluster = Cluster::around(server);
    let server = &cluster.server;
    put(server, "default", "a", 1);
    put(server, "default", "b", 1);
    put(server, "other", "c", 1);
    let mut table = Running::new(cluster.program(KUBEWIRE, &["watch", "things"]));
    let all = ["watch", "thing", "-A", "--no-headers", "-l", "value=1"];
    let mut all = Running::new(cluster.program(KUBEWIRE, &all));
    let mut names = Running::new(cluster.program(KUBEWIRE, &["watch", "things", "-o", "name"]));
    let selected = [
        "watch",
        "things",
        "a",
        "--field-selector",
        "value=2",
        "-o",
        "json",
    ];
    let mut json = Running::new(cluster.program(KUBEWIRE, &selected));
    table.is_next(&["EVENT NAME", "ADDED a", "ADDED b"]).await;
    all.is_next(&["ADDED default a", "ADDED default b", "ADDED other c"])
        .await;
    let mut first = vec![names.line().await, names.line().await];
    first.sort();
    assert_eq!(first, ["thing.example.com/a", "thing.example.com/b"]);

    put(server, "default", "a", 2);
    let event: Value = serde_json::from_str(&json.line().await).unwrap();
    assert_eq!(event["type"], "ADDED");
    assert_eq!(event["object"]["value"], 2);
    table.is_next(&["MODIFIED a"]).await;
    all.is_next(&["DELETED default a"]).await;
    server.delete(&things(), "default", "b");
    table.is_next(&["DELETED b"]).await;
}

#[tokio::test]
async fn a_watch_prints_what_happened_while_its_connection_was_down() {
    let server = ApiServer::builder().start().await.unwrap();
    let cluster = Cluster::around(server);
    let server = &cluster.server;
    put(server, "default", "a", 1);
    put(server, "default", "b", 1);
    // The list comes whole; the watch behind it breaks off with its first event.
    server.inject_into_bodies([None, Some(BodyFault::Cut { after: 1 })]);
    let mut table = Running::new(cluster.program(KUBEWIRE, &["watch", "things"]));
    table.is_next(&["EVENT NAME", "ADDED a", "ADDED b"]).await;
    put(server, "default", "a", 2);
    server.delete(&things(), "default", "b");
    put(server, "default", "c", 1);
    server.compact();
    let mut changes = [table.row().await, table.row().await, table.row().await];
    changes.sort();
    assert_eq!(changes, ["ADDED c", "DELETED b", "MODIFIED a"]);
}

#[tokio::test]
async fn what_cannot_be_watched_is_an_error() {
    let cluster = Cluster::start().await;
    let token = cluster.server.token_without_rights();
    for (arguments, error) in [
        (&["watch", "gadgets"][..], "no resource \"gadgets\""),
        (&["watch", "pods/a", "b"], "exclude each other"),
        (&["watch", "pods", "-l", "a in b"], "unable to parse"),
        (
            &["--token", token, "watch", "pods"],
            "cannot list resource \"pods\"",
        ),
    ] {
        let (code, stdout, stderr) = cluster.run(arguments).await;
        assert_eq!((code, &*stdout), (Some(1), ""), "{arguments:?}");
        assert!(stderr.contains(error), "{error:?} is not in {stderr}");
    }
}

#[tokio::test]
async fn kubectl_prints_the_same_logs() {
    let Some(kubectl) = kubectl::kubectl() else {
        return;
    };
    let cluster = Cluster::start().await;
    for arguments in [
        &["one"][..],
        &["pod/one", "--tail=2"],
        &["one", "--tail=-1"],
        &["one", "--since=1.5h", "--tail=1"],
        &["one", "--limit-bytes=7"],
        &["one", "--prefix=true", "--tail=1"],
        &["one", "--timestamps", "--tail=3"],
        &["two"],
        &["two", "b"],
        &["three"],
        &["two", "--all-containers=true"],
        &["two", "--all-containers", "--prefix", "--tail=1"],
        &["-l", "app=web"],
        &["-l", "app=web", "--prefix", "--all-containers", "--tail=2"],
        &["-l", "app=none"],
        &["-f", "ends"],
    ] {
        let arguments = [&["logs"], arguments].concat();
        let ours = cluster.run(&arguments).await;
        let theirs = finish(cluster.program(&kubectl, &arguments)).await;
        // kubectl walks the containers in the order of a Go map.
        let sorted = |(code, stdout, stderr): (Option<i32>, String, String)| {
            let mut lines: Vec<_> = stdout.lines().map(str::to_owned).collect();
            lines.sort();
            (code, lines, stderr)
        };
        assert_eq!(sorted(ours), sorted(theirs), "{arguments:?}");
    }
    for arguments in [
        &["logs", "nopod"][..],
        &["logs", "two", "-c", "x"],
        &["logs", "one", "-p"],
        &["logs", "one", "--tail=-2"],
        &["logs", "one", "--since=1d"],
        &["logs", "two", "a", "--all-containers"],
    ] {
        let (code, stdout, stderr) = cluster.run(arguments).await;
        let theirs = finish(cluster.program(&kubectl, arguments)).await;
        assert_eq!((code, &stdout), (theirs.0, &theirs.1), "{arguments:?}");
        assert!(!stderr.is_empty() && !theirs.2.is_empty());
    }
}

#[tokio::test]
async fn kubectl_gets_and_watches_the_same_table() {
    let Some(kubectl) = kubectl::kubectl() else {
        return;
    };
    let cluster = Cluster::start().await;
    put(&cluster.server, "default", "a", 1);
    // Ages change while the tools run.
    let without_age = |text: &str| -> Vec<String> {
        let rows = text.lines().map(squeeze);
        rows.map(|row| {
            row.rsplit_once(' ')
                .map_or(row.clone(), |(front, _)| front.to_owned())
        })
        .collect()
    };
    for arguments in [
        &["get", "pods"][..],
        &["get", "things"],
        &["get", "po", "-l", "app=web"],
    ] {
        let (code, stdout, stderr) = cluster.run(arguments).await;
        let theirs = finish(cluster.program(&kubectl, arguments)).await;
        assert_eq!((code, &*stderr), (Some(0), ""));
        assert_eq!(theirs.0, code, "{}", theirs.2);
        assert_eq!(
            without_age(&stdout),
            without_age(&theirs.1),
            "{arguments:?}"
        );
    }
    let watch = ["get", "things", "-w", "--output-watch-events"];
    let mut theirs = Running::new(cluster.program(&kubectl, &watch));
    let mut ours = Running::new(cluster.program(KUBEWIRE, &["watch", "things"]));
    for step in 0..4 {
        match step {
            2 => put(&cluster.server, "default", "a", 2),
            3 => assert!(cluster.server.delete(&things(), "default", "a")),
            _ => {}
        }
        let ours = without_age(&ours.line().await);
        assert_eq!(ours, without_age(&theirs.line().await), "step {step}");
    }
}

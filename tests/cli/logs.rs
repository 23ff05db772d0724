//! `logs`: which it prints, and kubectl beside it.

use std::time::Duration;

use kubewire::{
    Client, Resource,
    testing::{ApiServer, BodyFault, RestartPolicy},
    wire::status::Status,
};
use serde_json::json;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::TcpListener,
    time::timeout,
};

use crate::{
    kubectl,
    tool::{Cluster, PATIENCE, finish},
};

/// A container that writes so many lines and goes on.
fn writes(name: &str, lines: u32) -> [String; 3] {
    let script =
        format!("i=0; while [ $i -lt {lines} ]; do i=$((i+1)); echo {name} $i; done; sleep 600");
    ["sh".into(), "-c".into(), script]
}

/// The pods `one` with a container, `two` with two, `three` with a default container, and
/// `ends`, whose container has ended; the first three are those of `app=web`.
pub(crate) async fn cluster() -> Cluster {
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
    let cluster = Cluster::around(server);
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
                let mut stream = logs.clone().stream();
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

fn lines(name: &str, from: u32, to: u32) -> String {
    (from..=to).map(|n| format!("{name} {n}\n")).collect()
}

#[tokio::test]
async fn logs_are_chosen_as_kubectl_chooses() {
    let cluster = cluster().await;
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
        (&["two", "-c", ""], all("a", 15), defaulted),
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
        (
            &["-f", "ends", "--all-containers"],
            "first\nlast".into(),
            "",
        ),
    ] {
        let arguments = [&["logs"], arguments].concat();
        let ran = cluster.run(&arguments).await.into_text();
        assert_eq!(ran, (Some(0), stdout, stderr.to_owned()), "{arguments:?}");
    }
    for (arguments, error) in [
        (&["nopod"][..], "pods \"nopod\" not found"),
        (
            &["-f", "nopod", "--all-containers"],
            "pods \"nopod\" not found",
        ),
        (&["two", "-c", "x"], "container x is not valid for pod two"),
        (
            &["one", "-p"],
            "previous terminated container \"main\" in pod \"one\" not found",
        ),
        (&["two", "a", "--all-containers"], "exclude each other"),
        (&["one", "--tail=-2"], "--tail"),
        (&["one", "--since=1d"], "is not a duration"),
        (&["one", "--since-time=noon"], "RFC 3339"),
        (&["one", "-l", "app=web"], "cannot be used with"),
        (&["node/x"], "neither a pod nor anything that selects pods"),
        (&["deploy/x"], "deployments.apps \"x\" not found"),
        (&[], "required"),
    ] {
        let arguments = [&["logs"], arguments].concat();
        let (code, stdout, stderr) = cluster.run(&arguments).await.into_text();
        assert_eq!((code, &*stdout), (Some(1), ""), "{arguments:?}: {stderr}");
        assert!(stderr.starts_with("error: "), "{stderr}");
        assert!(stderr.contains(error), "{error:?} is not in {stderr}");
        assert_eq!(stderr.matches('\n').count(), 1, "{stderr}");
    }
    let (code, stdout, stderr) = cluster
        .run(&["logs", "-l", "app=web", "-c", "b"])
        .await
        .into_text();
    assert_eq!((code, stdout), (Some(1), all("b", 3)));
    assert_eq!(stderr.matches("error: ").count(), 2, "{stderr}");
    let ignoring = ["logs", "-l", "app=web", "-c", "b", "--ignore-errors"];
    assert_eq!(cluster.run(&ignoring).await.code, Some(0));
}

#[tokio::test]
async fn a_workload_or_a_service_stands_for_one_of_its_pods() {
    let cluster = cluster().await;
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
        let (code, stdout, stderr) = cluster.run(&["logs", target, "--tail=1"]).await.into_text();
        assert_eq!((code, &*stdout), (Some(0), "one 15\n"), "{stderr}");
        assert_eq!(stderr, "Found 3 pods, using pod/one\n");
    }
    let all = ["logs", "deploy/web", "--all-pods", "--tail=1"];
    let (code, stdout, stderr) = cluster.run(&all).await.into_text();
    let mut lines: Vec<_> = stdout.lines().collect();
    lines.sort_unstable();
    let expected = [
        "[pod/one/main] one 15",
        "[pod/three/y] y 2",
        "[pod/two/a] a 15",
    ];
    assert_eq!((code, &lines[..]), (Some(0), &expected[..]), "{stderr}");
    let mut tool = cluster.start_tool(&["logs", "svc/web", "--all-pods", "-f", "--tail=1"]);
    let mut lines = [tool.line().await, tool.line().await, tool.line().await];
    lines.sort_unstable();
    assert_eq!(lines, expected);
}

#[tokio::test]
async fn a_workload_s_first_pod_is_waited_for() {
    let cluster = cluster().await;
    cluster.server.put(
        &Resource::namespaced("apps", "v1", "deployments"),
        json!({
            "kind": "Deployment",
            "metadata": {"name": "idle", "namespace": "default"},
            "spec": {"selector": {"matchLabels": {"app": "none"}}},
        }),
    );
    let none = ["logs", "deploy/idle", "--pod-running-timeout=1s"];
    let begun = std::time::Instant::now();
    cluster.run(&none).await.is_error("deploy/idle has no pod");
    assert!(begun.elapsed() >= Duration::from_secs(1));
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
    let mut tool = cluster.start_tool(&follow);
    let first = tool.line().await;
    assert!(cluster.server.kill_container("default", "web-0", "main"));
    let second = tool.line().await;
    assert_ne!(first, second);
    for flags in [&["-p"][..], &["--previous=true"], &["-f", "-p"]] {
        let arguments = [&["logs", "web-0"], flags].concat();
        let ran = cluster.run(&arguments).await.into_text();
        assert_eq!(ran, (Some(0), format!("{first}\n"), String::new()));
    }
    tool.interrupt().await;
}

#[tokio::test]
async fn that_a_log_is_tried_again_is_said_once() {
    let server = ApiServer::builder()
        .pod("default", "web-0", |pod| {
            pod.container("main", ["sh", "-c", "echo one; exit 0"])
        })
        .start()
        .await
        .unwrap();
    let refusal = || Box::new(Status::failure(500, "InternalError", "no kubelet\x1b[2J"));
    server.inject_into_bodies((0..3).map(|_| Some(BodyFault::Refuse(refusal()))));
    let cluster = Cluster::around(server);
    let (code, stdout, stderr) = cluster.run(&["logs", "-f", "web-0"]).await.into_text();
    assert_eq!((code, &*stdout), (Some(0), "one\n"));
    // In these words alone, not also as an event.
    let said = stderr.matches(" again").count();
    assert!(said == 1 && stderr.contains("no kubelet"), "{stderr}");
}

/// A kubelet that cuts a log after two lines, and has rotated the next away when it is asked again.
async fn rotates() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        let line = |n: u32| format!("2026-11-22T01:55:{n}.000000001Z line {n}\n");
        let mut logs = 0;
        while let Ok((mut tcp, _)) = listener.accept().await {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(tcp.read_u8().await.unwrap());
            }
            let is_log = String::from_utf8(head).unwrap().contains("/log?");
            logs += u32::from(is_log);
            let ended = json!({"exitCode": 0, "containerID": "containerd://1"});
            let state = match logs {
                0 | 1 => json!({"running": {}}),
                _ => json!({"terminated": ended}),
            };
            let pod = json!({
                "kind": "Pod", "apiVersion": "v1",
                "metadata": {"name": "web-0", "namespace": "default", "uid": "1"},
                "spec": {"restartPolicy": "Never", "containers": [{"name": "main"}]},
                "status": {"containerStatuses": [
                    {"name": "main", "containerID": "containerd://1", "state": state},
                ]},
            });
            let (body, missing) = match (is_log, logs) {
                (false, _) => (pod.to_string(), 0),
                (true, 1) => (line(10) + &line(11), 1000),
                (true, _) => (line(15) + &line(16), 0),
            };
            let length = body.len() + missing;
            let head = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length:";
            let answer = format!("{head} {length}\r\n\r\n{body}");
            tcp.write_all(answer.as_bytes()).await.unwrap();
        }
    });
    url
}

#[tokio::test]
async fn that_lines_may_be_missing_is_said() {
    let server = ApiServer::builder().start().await.unwrap();
    let cluster = Cluster::around(server);
    let url = rotates().await;
    let arguments = ["-s", &url, "logs", "-f", "web-0"];
    let mut tool = cluster.kubewire(&arguments);
    let ran = finish(tool.env_remove("KUBECONFIG").spawn().unwrap()).await;
    ran.is(
        0,
        "line 10\nline 11\nline 15\nline 16\n",
        "warning: lines after 2026-11-22T01:55:11.000000001Z may be missing, for the log was rotated or removed \
         while it could not be read\n",
    );
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
    let mut tool = cluster.start_tool(&["logs", "-f", "web-0"]);
    assert_eq!(tool.line().await, "y");
    drop(tool.lines);
    let (code, _, stderr) = finish(tool.child).await.into_text();
    assert_eq!((code, &*stderr), (Some(141), ""));

    for arguments in [&["logs", "-f", "web-0"][..], &["watch", "pods"]] {
        let mut tool = cluster.start_tool(arguments);
        tool.line().await;
        let status = tool.interrupt().await;
        let number = std::os::unix::process::ExitStatusExt::signal(&status);
        assert!(status.code() == Some(130) || number == Some(2), "{status}");
    }
}

#[tokio::test]
async fn kubectl_prints_the_same_logs() {
    let Some(kubectl) = kubectl::kubectl() else {
        return;
    };
    let cluster = cluster().await;
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
        let ours = cluster.run(&arguments).await.into_text();
        let theirs = cluster.run_program(&kubectl, &arguments).await.into_text();
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
        let (code, stdout, stderr) = cluster.run(arguments).await.into_text();
        let theirs = cluster.run_program(&kubectl, arguments).await.into_text();
        assert_eq!((code, &stdout), (theirs.0, &theirs.1), "{arguments:?}");
        assert!(!stderr.is_empty() && !theirs.2.is_empty());
    }
}

#[tokio::test]
async fn lines_are_chosen_by_expressions_and_told_as_json() {
    let cluster = talkers().await;
    let of = |words: &[&'static str]| [&["logs", "one"], words].concat();
    for (arguments, expected) in [
        (of(&["--include", "^a", "--include=c$"]), "apple\nabc\n"),
        (of(&["--exclude", "b"]), "apple\nccd\n"),
        (of(&["--include", "c", "--exclude=d"]), "abc\n"),
        (of(&["--include", "none"]), ""),
    ] {
        cluster.run(&arguments).await.is(0, expected, "");
    }
    let (code, stdout, stderr) = cluster.run(&of(&["-o", "json"])).await.into_text();
    assert_eq!((code, &*stderr), (Some(0), ""));
    let lines: Vec<serde_json::Value> = stdout
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines.len(), 3);
    assert_eq!(lines[0]["line"], "apple");
    assert_eq!(
        (&lines[2]["pod"], &lines[2]["namespace"]),
        (&"one".into(), &"default".into())
    );
    assert_eq!(lines[1]["container"], "main");
    assert!(lines[0]["time"].as_str().unwrap().ends_with('Z'));
    cluster
        .run(&of(&["--include", "("]))
        .await
        .is_error("--include");
}

#[tokio::test]
async fn pods_of_all_namespaces_are_told_apart() {
    let cluster = talkers().await;
    let all = ["logs", "-A", "-l", "app=talk", "--include", "^a"];
    let expected = "[default/pod/one/main] apple\n[default/pod/one/main] abc\n[other/pod/two/main] apple\n[other/pod/two/main] abc\n";
    let (code, stdout, stderr) = cluster.run(&all).await.into_text();
    let mut lines: Vec<_> = stdout.lines().collect();
    lines.sort_unstable();
    let mut sorted: Vec<_> = expected.lines().collect();
    sorted.sort_unstable();
    assert_eq!((code, lines, &*stderr), (Some(0), sorted, ""));
    let mut follow = cluster.start_tool(&["logs", "-f", "-A", "-l", "app=talk", "--include=apple"]);
    let mut seen = vec![follow.line().await, follow.line().await];
    seen.sort();
    assert_eq!(
        seen,
        ["[default/pod/one/main] apple", "[other/pod/two/main] apple"]
    );
    cluster
        .run(&["logs", "-A", "one"])
        .await
        .is_error("cannot be used with");
}

#[tokio::test]
async fn a_terminal_shows_each_pod_in_a_colour_unless_none_is_wanted() {
    let cluster = talkers().await;
    let arguments = ["logs", "one", "--prefix"];
    let mut tool = cluster.on_terminal(&arguments);
    assert_eq!(tool.end().await.0, Some(0));
    let (before, rest) = tool
        .seen
        .split_once("[pod/one/main]\u{1b}[0m apple")
        .expect(&tool.seen);
    assert!(
        before.starts_with("\u{1b}[3") && rest.contains("ccd"),
        "{:?}",
        tool.seen
    );
    let mut tool = cluster.on_terminal_with(&arguments, &[("NO_COLOR", "1")]);
    assert_eq!(tool.end().await.0, Some(0));
    assert!(
        tool.seen.starts_with("[pod/one/main] apple"),
        "{:?}",
        tool.seen
    );
    // In a pipe there are none.
    let ran = cluster.run(&arguments).await;
    assert!(!ran.stdout.contains(&0x1b));
}

/// Pods that have said three words.
async fn talkers() -> Cluster {
    let script = "echo apple; echo abc; echo ccd; sleep 600";
    let server = ApiServer::builder()
        .pod("default", "one", |pod| {
            pod.label("app", "talk")
                .container("main", ["sh", "-c", script])
        })
        .pod("other", "two", |pod| {
            pod.label("app", "talk")
                .container("main", ["sh", "-c", script])
        })
        .start()
        .await
        .unwrap();
    let cluster = Cluster::around(server);
    // They have when the last word is there.
    for (namespace, pod) in [("default", "one"), ("other", "two")] {
        let mut tool = cluster.start_tool(&["logs", "-f", "-n", namespace, pod]);
        while tool.line().await != "ccd" {}
    }
    cluster
}

/// A pod that one of `app=job` is: it writes its name, and ends if it is told to.
fn job(name: &str, ends: bool) -> serde_json::Value {
    let then = if ends { "" } else { "; exec sleep 600" };
    let command = [
        "sh".to_owned(),
        "-c".to_owned(),
        format!("echo {name}{then}"),
    ];
    json!({
        "kind": "Pod", "apiVersion": "v1",
        "metadata": {"name": name, "namespace": "default", "labels": {"app": "job"}},
        "spec": {
            "restartPolicy": "Never",
            "containers": [{"name": "main", "image": "i", "command": command}],
        },
    })
}

#[tokio::test]
async fn a_followed_selector_ends_when_all_its_logs_have() {
    let cluster = Cluster::around(ApiServer::builder().start().await.unwrap());
    let client = Client::new(&cluster.server.config()).unwrap();
    let pods = client.request(Resource::namespaced("", "v1", "pods"));
    let pods = pods.namespace("default");
    let start = async |name: &str, ends: bool| {
        pods.create(&job(name, ends)).await.unwrap();
    };
    let none = ["logs", "-f", "-l", "app=job"];
    let (code, stdout, stderr) = cluster.run(&none).await.into_text();
    assert_eq!((code, &*stdout), (Some(0), ""), "{stderr}");
    assert!(stderr.contains("No resources found"), "{stderr}");

    start("a", true).await;
    start("b", false).await;
    let mut tool = cluster.start_tool(&["logs", "-f", "-l", "app=job", "--prefix"]);
    let mut forever = cluster.start_tool(&["logs", "-f", "-l", "app=job", "--forever"]);
    let mut lines = [tool.line().await, tool.line().await];
    lines.sort_unstable();
    assert_eq!(lines, ["[pod/a/main] a", "[pod/b/main] b"]);
    let mut lines = [forever.line().await, forever.line().await];
    lines.sort_unstable();
    assert_eq!(lines, ["a", "b"]);
    // One that comes meanwhile joins, and is waited for.
    start("c", false).await;
    assert_eq!(tool.line().await, "[pod/c/main] c");
    assert_eq!(forever.line().await, "c");
    for pod in ["b", "c"] {
        assert!(cluster.server.kill_container("default", pod, "main"));
    }
    let status = timeout(PATIENCE, tool.child.wait()).await.unwrap().unwrap();
    assert_eq!(status.code(), Some(0));
    // Others may come for good.
    start("d", true).await;
    assert_eq!(forever.line().await, "d");
    forever.interrupt().await;
}

#[tokio::test]
async fn that_a_container_is_waited_for_is_said_of_one_and_of_many() {
    let cluster = Cluster::start().await;
    let client = Client::new(&cluster.server.config()).unwrap();
    let pods = Resource::namespaced("", "v1", "pods");
    // There are no images, and so no commands of theirs.
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "waits"},
        "spec": {"containers": [{"name": "main", "image": "none"}]},
    });
    let pods = client.request(pods).namespace("default");
    pods.create(&pod).await.unwrap();
    for (flags, prefix) in [
        (&[][..], ""),
        (&["--all-containers"], "default/waits/main: "),
    ] {
        let mut command = cluster.kubewire(&[&["logs", "-f", "waits"], flags].concat());
        let mut child = command.spawn().unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let line = timeout(PATIENCE, stderr.lines().next_line()).await;
        let line = line.expect("it says so").unwrap().unwrap_or_default();
        let expected = format!("{prefix}waiting for the container to start: ");
        assert!(line.starts_with(&expected), "{line}");
        child.kill().await.unwrap();
    }
    let ran = cluster.run(&["logs", "-f", "waits", "--pod-running-timeout=1s"]);
    let ran = ran.await;
    assert_eq!(ran.code, Some(1));
    assert!(
        ran.stderr.contains("has not started within 1s"),
        "{}",
        ran.stderr
    );
}

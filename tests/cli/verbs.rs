//! `api-resources`, `auth can-i`, `events` and `wait`, with kubectl beside them, and output that is lost.

use kubewire::{
    Resource,
    testing::{ApiServer, BodyFault},
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufRead, AsyncBufReadExt as _, BufReader, Lines},
    time::timeout,
};

use crate::{
    kubectl,
    tool::{Cluster, PATIENCE, finish},
};

/// Runs both programs and compares all that they say.
async fn same(cluster: &Cluster, arguments: &[&str]) -> (Option<i32>, String, String) {
    println!("{arguments:?}");
    let ours = cluster.run(arguments).await.into_text();
    if let Some(kubectl) = kubectl::kubectl() {
        let theirs = cluster.run_program(&kubectl, arguments).await.into_text();
        assert_eq!(ours, theirs);
    }
    ours
}

#[tokio::test]
async fn resources_are_listed_as_kubectl_lists_them() {
    let server = ApiServer::builder().start().await.unwrap();
    let things = Resource::namespaced("example.com", "v1", "things");
    let metadata = json!({"name": "a", "namespace": "default"});
    server.put(&things, json!({"kind": "Thing", "metadata": metadata}));
    let cluster = Cluster::around(server);
    let (code, stdout, _) = same(&cluster, &["api-resources"]).await;
    assert_eq!(code, Some(0));
    assert!(stdout.starts_with("NAME "), "{stdout}");
    assert!(stdout.contains("\npods "), "{stdout}");
    for flags in [
        &["-o", "wide"][..],
        &["-o", "name"],
        &["--api-group", "apps", "--no-headers"],
        &["--api-group="],
        &["--namespaced=false"],
        &["--verbs", "list,watch", "--sort-by", "kind"],
        &["--categories=all"],
        &["--sort-by=name"],
    ] {
        same(&cluster, &[&["api-resources"], flags].concat()).await;
    }
}

#[tokio::test]
async fn what_a_user_may_do_is_asked_as_by_kubectl() {
    let cluster = Cluster::start().await;
    for question in [
        &["list", "pods"][..],
        &["get", "pod/web-0"],
        &["create", "pods", "--subresource=exec", "-n", "other"],
        &["delete", "deployments.apps", "-A"],
        &["get", "/healthz"],
        &["*", "*"],
        &["list", "nodes"],
        &["list", "nothings"],
        &["list", "pods", "-q"],
        &["impersonate", "users"],
        &["fly", "/healthz"],
        &["fly", "pods"],
    ] {
        let ask = [&["auth", "can-i"], question].concat();
        assert_eq!(same(&cluster, &ask).await.0, Some(0), "{question:?}");
        let token = cluster.server.token_without_rights();
        let ask = [&["--token", token], &ask[..]].concat();
        let (code, stdout, _) = same(&cluster, &ask).await;
        // What a server says of itself everybody may read.
        let refused = question != ["get", "/healthz"];
        assert_eq!(code, Some(i32::from(refused)));
        assert!(!stdout.starts_with("yes") || !refused, "{stdout}");
    }
}

#[tokio::test]
async fn all_that_a_user_may_do_is_listed_as_by_kubectl() {
    let rules = json!([
        {"apiGroups": ["", "apps"], "resources": ["pods", "deployments/scale"], "verbs": ["list", "get"]},
        {"apiGroups": ["apps"], "resources": ["deployments/scale"], "verbs": ["get", "update"]},
        {"apiGroups": ["*"], "resources": ["*"], "verbs": ["watch"]},
        {"apiGroups": [""], "resources": ["secrets"], "resourceNames": ["b", "a"], "verbs": ["get"]},
        {"nonResourceURLs": ["/metrics", "/logs/*"], "verbs": ["get", "post"]},
    ]);
    let server = ApiServer::builder().start().await.unwrap();
    let role = |plural| Resource::cluster("rbac.authorization.k8s.io", "v1", plural);
    let named = json!({"name": "odd"});
    server.put(
        &role("clusterroles"),
        json!({"metadata": named, "rules": rules}),
    );
    let subject = json!({"kind": "User", "name": "alice", "apiGroup": "rbac.authorization.k8s.io"});
    let of = json!({"kind": "ClusterRole", "name": "odd", "apiGroup": "rbac.authorization.k8s.io"});
    let binding = json!({"metadata": named, "subjects": [subject], "roleRef": of});
    server.put(&role("clusterrolebindings"), binding);
    let cluster = Cluster::around(server);
    let list = ["auth", "can-i", "--list"];
    let (code, stdout, _) = same(&cluster, &[&list[..], &["--as=alice"]].concat()).await;
    assert_eq!(code, Some(0));
    let row = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    let rows: Vec<_> = stdout.lines().map(row).collect();
    for expected in [
        "Resources Non-Resource URLs Resource Names Verbs",
        "deployments.apps/scale [] [] [list get update]",
        "secrets [] [b] [get]",
        "[/logs/*] [] [post]",
    ] {
        assert!(
            rows.iter().any(|row| row == expected),
            "{expected}: {rows:#?}"
        );
    }
    for flags in [&[][..], &["--no-headers"], &["--as=nobody", "-n=other"]] {
        same(&cluster, &[&list, flags].concat()).await;
    }
    for wrong in [&["--list=false"][..], &["get", "pods", "--no-headers"]] {
        let (code, stdout, stderr) = cluster.run(&[&list[..2], wrong].concat()).await.into_text();
        assert_eq!((code, &*stdout), (Some(1), ""));
        assert!(stderr.contains("--list"), "{stderr}");
    }
}

/// An event about a pod, so many seconds ago.
fn event(name: &str, of: &str, seconds: i64, count: u64) -> Value {
    let time = |seconds| {
        let time = jiff::Timestamp::now() - jiff::SignedDuration::from_secs(seconds);
        time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
    };
    json!({
        "apiVersion": "v1", "kind": "Event",
        "metadata": {"name": name, "namespace": "default"},
        "involvedObject": {"apiVersion": "v1", "kind": "Pod", "name": "web-0", "namespace": "default"},
        "type": of, "reason": "Because", "message": format!("{name} is told\n"), "count": count,
        "firstTimestamp": time(seconds * 2), "lastTimestamp": time(seconds),
    })
}

#[tokio::test]
async fn a_selector_and_a_name_exclude_each_other() {
    let cluster = Cluster::start().await;
    for flag in ["-l=app=none", "--field-selector=status.phase=Failed"] {
        let (code, _, stderr) = same(&cluster, &["get", "pods", "web-0", flag]).await;
        assert_eq!(code, Some(1));
        assert!(stderr.contains("a selector is specified"), "{stderr}");
    }
    let (_, stdout, _) = same(&cluster, &["get", "pods.v1.", "web-0", "-o=name"]).await;
    assert_eq!(stdout, "pod/web-0\n");
}

#[tokio::test]
async fn events_are_listed_as_kubectl_lists_them() {
    let cluster = Cluster::start().await;
    let events = Resource::namespaced("", "v1", "events");
    // Of ages that do not change while the test runs.
    for (name, of, hours, count) in [
        ("new", "Normal", 9, 1),
        ("old", "Warning", 20, 3),
        ("mid", "Normal", 15, 2),
    ] {
        cluster
            .server
            .put(&events, event(name, of, hours * 3600 + 60, count));
    }
    let (code, stdout, _) = same(&cluster, &["events"]).await;
    assert_eq!((code, stdout.lines().count()), (Some(0), 4), "{stdout}");
    assert!(
        stdout.lines().nth(1).unwrap().contains("old is told"),
        "{stdout}"
    );
    for flags in [
        &["-A"][..],
        &["--types", "Warning"],
        &["--for", "pod/web-0", "--no-headers"],
        &["--for=pod/none"],
        &["-n", "other"],
        &["--types=Odd"],
    ] {
        same(&cluster, &[&["events"], flags].concat()).await;
    }
    let names = cluster.run(&["events", "-o", "name"]).await;
    assert_eq!(names.stdout, b"event/old\nevent/mid\nevent/new\n");
    let mut tool = cluster.start_tool(&["events", "-w", "--no-headers", "--types=Warning"]);
    assert!(tool.line().await.contains("old is told"));
    cluster
        .server
        .put(&events, event("later", "Warning", 3600, 1));
    assert!(tool.line().await.contains("later is told"));
    // The faults are for the next alone.
    drop(tool);
    // What comes again, because the server has forgotten what happened since, is not new.
    let faults = [None, Some(BodyFault::Cut { after: 1 })];
    cluster.server.inject_into_bodies(faults);
    let mut tool = cluster.start_tool(&["-v=6", "events", "-w", "--no-headers"]);
    let mut stderr = BufReader::new(tool.child.stderr.take().unwrap()).lines();
    for name in ["old", "mid", "new", "later"] {
        assert!(tool.line().await.contains(name));
    }
    says(&mut stderr, "watch=").await;
    for name in ["cut", "last"] {
        cluster.server.put(&events, event(name, "Normal", 7200, 1));
    }
    cluster.server.compact();
    let mut both = [tool.line().await, tool.line().await];
    both.sort();
    assert!(both[0].contains("cut is told") && both[1].contains("last is told"));
    says(&mut stderr, "; trying again").await;
    cluster
        .run(&["events", "--for", "web-0"])
        .await
        .is_error("TYPE/NAME");
}

/// Reads until a line has these words.
async fn says(lines: &mut Lines<impl AsyncBufRead + Unpin>, words: &str) {
    loop {
        let line = timeout(PATIENCE, lines.next_line()).await;
        let line = line.expect("it is silent").unwrap();
        if line.expect("it says no more").contains(words) {
            return;
        }
    }
}

#[tokio::test]
async fn events_that_are_none_have_no_headings_while_they_are_waited_for() {
    let cluster = Cluster::start().await;
    let mut tool = cluster.start_tool(&["-v=6", "events", "-w"]);
    let mut stderr = BufReader::new(tool.child.stderr.take().unwrap()).lines();
    says(&mut stderr, "watch=").await;
    tool.child.start_kill().unwrap();
    assert_eq!(tool.lines.next_line().await.unwrap(), None);
}

/// Things, with and without a condition.
async fn things(count: usize) -> (Cluster, Resource) {
    let server = ApiServer::builder().start().await.unwrap();
    let resource = Resource::namespaced("example.com", "v1", "things");
    let cluster = Cluster::around(server);
    for at in 0..count {
        put(&cluster, &format!("thing-{at}"), "False");
    }
    (cluster, resource)
}

fn put(cluster: &Cluster, name: &str, ready: &str) {
    let resource = Resource::namespaced("example.com", "v1", "things");
    let metadata = json!({"name": name, "namespace": "default", "labels": {"app": "web"}});
    let conditions = json!([{"type": "Ready", "status": ready}]);
    let (version, kind) = ("example.com/v1", "Thing");
    let status = json!({"conditions": conditions, "phase": ready});
    let object =
        json!({"apiVersion": version, "kind": kind, "metadata": metadata, "status": status});
    cluster.server.put(&resource, object);
}

#[tokio::test]
async fn what_is_so_already_is_not_waited_for() {
    let (cluster, _) = things(1).await;
    put(&cluster, "a", "True");
    for arguments in [
        &["things/a", "--for", "condition=Ready"][..],
        &["things", "a", "--for=condition=ready=true"],
        &["things/a", "--for=jsonpath={.status.phase}=True"],
        &["things/a", "--for=jsonpath={.status.phase}"],
        &["things/a", "--for=create"],
        &["things/none", "--for=delete"],
        &["things", "--all", "--for=jsonpath={.kind}=Thing"],
        &["things/none", "--for=condition=Ready", "--timeout=1s"],
        &["things", "-l", "app=none", "--for=condition=Ready"],
        &["things/thing-0", "--for=condition=Ready", "--timeout=0"],
        &["things/thing-0", "--for=condition=Ready", "--timeout=1s"],
    ] {
        let arguments = [&["wait"], arguments].concat();
        println!("{arguments:?}");
        let ours = cluster.run(&arguments).await.into_text();
        let Some(kubectl) = kubectl::kubectl() else {
            continue;
        };
        let theirs = cluster.run_program(&kubectl, &arguments).await.into_text();
        assert_eq!(ours.0, theirs.0, "{} {}", ours.2, theirs.2);
        let sorted = |text: &str| {
            let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
            lines.sort();
            lines
        };
        assert_eq!(sorted(&ours.1), sorted(&theirs.1));
        assert_eq!(
            ours.2.is_empty(),
            theirs.2.is_empty(),
            "{} {}",
            ours.2,
            theirs.2
        );
    }
    for (arguments, what) in [
        (&["things", "--for=delete"][..], "which objects?"),
        (&["things/a", "--for=ready"], "there are condition=NAME"),
        (&["things/a", "--for=jsonpath={.x"], "{.x"),
    ] {
        let arguments = [&["wait"], arguments].concat();
        cluster.run(&arguments).await.is_error(what);
    }
}

#[tokio::test]
async fn many_objects_are_waited_for_at_once() {
    let (cluster, resource) = things(300).await;
    let wait = ["wait", "things", "-l", "app=web", "--timeout=5m", "--for"];
    let ready = [&wait[..], &["condition=Ready"]].concat();
    let gone = [&wait[..], &["delete"]].concat();
    let mut ready = cluster.start_tool(&ready);
    let gone = cluster.kubewire(&gone).spawn().unwrap();
    put(&cluster, "thing-7", "True");
    let line = ready.line().await;
    assert_eq!(line, "thing.example.com/thing-7 condition met");
    for at in 0..300 {
        put(&cluster, &format!("thing-{at}"), "True");
    }
    for _ in 1..300 {
        assert!(ready.line().await.ends_with(" condition met"));
    }
    assert_eq!(ready.child.wait().await.unwrap().code(), Some(0));
    for at in 0..300 {
        let name = format!("thing-{at}");
        cluster.server.delete(&resource, "default", &name);
    }
    let (code, stdout, stderr) = finish(gone).await.into_text();
    assert_eq!((code, &*stderr), (Some(0), ""));
    assert!(stdout.lines().all(|line| line.ends_with(" condition met")));
    let mut created = cluster.start_tool(&["wait", "thing/new", "--for=create", "--timeout=5m"]);
    put(&cluster, "new", "True");
    assert_eq!(created.line().await, "thing.example.com/new condition met");
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn output_that_cannot_be_written_is_an_error() {
    let cluster = Cluster::start().await;
    for form in ["name", "yaml", "jsonpath={.metadata.name}"] {
        let full = std::fs::File::options().write(true).open("/dev/full");
        let arguments = ["get", "pod", "web-0", "-o", form];
        let mut tool = cluster.kubewire(&arguments);
        let ran = finish(tool.stdout(full.unwrap()).spawn().unwrap()).await;
        let (code, _, stderr) = ran.into_text();
        assert_eq!(code, Some(1), "{form}: {stderr}");
        assert!(stderr.contains("stdout: No space left"), "{form}: {stderr}");
    }
}

//! `api-resources`, `auth can-i` and `events`, with kubectl beside them.

use kubewire::{Resource, testing::ApiServer};
use serde_json::{Value, json};

use crate::{kubectl, tool::Cluster};

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
    ] {
        let ask = [&["auth", "can-i"], question].concat();
        assert_eq!(same(&cluster, &ask).await.0, Some(0), "{question:?}");
        let token = cluster.server.token_without_rights();
        let ask = [&["--token", &token], &ask[..]].concat();
        let (code, stdout, _) = same(&cluster, &ask).await;
        assert_eq!(code, Some(1));
        assert!(
            stdout.starts_with("no") || question.contains(&"-q"),
            "{stdout}"
        );
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
        "involvedObject": {"kind": "Pod", "name": "web-0", "namespace": "default"},
        "type": of, "reason": "Because", "message": format!("{name} is told\n"), "count": count,
        "firstTimestamp": time(seconds * 2), "lastTimestamp": time(seconds),
    })
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
    ] {
        same(&cluster, &[&["events"], flags].concat()).await;
    }
    let mut tool = cluster.start_tool(&["events", "-w", "--no-headers", "--types=Warning"]);
    assert!(tool.line().await.contains("old is told"));
    cluster
        .server
        .put(&events, event("later", "Warning", 3600, 1));
    assert!(tool.line().await.contains("later is told"));
    cluster
        .run(&["events", "--for", "web-0"])
        .await
        .is_error("TYPE/NAME");
}

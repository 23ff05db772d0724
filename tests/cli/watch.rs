//! `watch` and `get`: the server's tables, changes, and kubectl beside them.

use kubewire::{
    Resource,
    testing::{ApiServer, BodyFault},
};
use serde_json::{Value, json};

use crate::{
    kubectl, logs,
    tool::{Cluster, Running, squeeze},
};

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
    let cluster = logs::cluster().await;
    let mut tool = cluster.start_tool(&["watch", "pod/ends"]);
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
    let mut tool = cluster.start_tool(&wide);
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
    let mut table = cluster.start_tool(&["watch", "things"]);
    let all = ["watch", "thing", "-A", "--no-headers", "-l", "value=1"];
    let mut all = cluster.start_tool(&all);
    let mut names = cluster.start_tool(&["watch", "things", "-o", "name"]);
    let selected = [
        "watch",
        "things",
        "a",
        "--field-selector",
        "value=2",
        "-o",
        "json",
    ];
    let mut json = cluster.start_tool(&selected);
    table.is_next(&["EVENT NAME", "ADDED a", "ADDED b"]).await;
    all.is_next(&["ADDED default a", "ADDED default b", "ADDED other c"])
        .await;
    let mut first = vec![names.line().await, names.line().await];
    first.sort();
    let expected = ["ADDED thing.example.com/a", "ADDED thing.example.com/b"];
    assert_eq!(first, expected);

    put(server, "default", "a", 2);
    let event: Value = serde_json::from_str(&json.line().await).unwrap();
    assert_eq!(event["type"], "ADDED");
    assert_eq!(event["object"]["value"], 2);
    table.is_next(&["MODIFIED a"]).await;
    all.is_next(&["DELETED default a"]).await;
    server.delete(&things(), "default", "b");
    table.is_next(&["DELETED b"]).await;
    // The last event has the object as it was deleted.
    server.delete(&things(), "default", "a");
    let last: Value = serde_json::from_str(&json.line().await).unwrap();
    assert_eq!(last["type"], "DELETED");
    let version = |event: &Value| event["object"]["metadata"]["resourceVersion"].clone();
    assert_ne!(version(&last), version(&event));
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
    let mut table = cluster.start_tool(&["watch", "things"]);
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
    let cluster = logs::cluster().await;
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
        let (code, stdout, stderr) = cluster.run(arguments).await.into_text();
        assert_eq!((code, &*stdout), (Some(1), ""), "{arguments:?}");
        assert!(stderr.contains(error), "{error:?} is not in {stderr}");
    }
}

#[tokio::test]
async fn kubectl_gets_and_watches_the_same_table() {
    let Some(kubectl) = kubectl::kubectl() else {
        return;
    };
    let cluster = logs::cluster().await;
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
        let (code, stdout, stderr) = cluster.run(arguments).await.into_text();
        let theirs = cluster.run_program(&kubectl, arguments).await.into_text();
        assert_eq!((code, &*stderr), (Some(0), ""));
        assert_eq!(theirs.0, code, "{}", theirs.2);
        assert_eq!(
            without_age(&stdout),
            without_age(&theirs.1),
            "{arguments:?}"
        );
    }
    let watch = ["get", "things", "-w", "--output-watch-events"];
    let mut theirs = Running::new(cluster.program(&kubectl, &watch).spawn().unwrap());
    let mut ours = cluster.start_tool(&["watch", "things"]);
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

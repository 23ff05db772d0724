//! What the embedded server does about logs that clients rely on from the API server and the
//! kubelet: options, refusals, restarts.

#![cfg(feature = "testing")]
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::time::Duration;

use bytes::Bytes;
use kubewire::{
    Client, Resource,
    logs::{LogEnd, LogUpdate},
    testing::{ApiServer, ApiServerBuilder, RestartPolicy},
    watch::Update,
    wire::{stamp::Stamp, status::Status},
};
use serde_json::Value;

async fn patient<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(300), work)
        .await
        .expect("it hangs")
}

async fn start(script: &str, policy: RestartPolicy) -> (ApiServer, Client) {
    with(ApiServer::builder(), script, policy).await
}

async fn with(
    builder: ApiServerBuilder,
    script: &str,
    policy: RestartPolicy,
) -> (ApiServer, Client) {
    let command = ["sh", "-c", script];
    let builder = builder.pod("default", "web-0", |pod| {
        pod.restart_policy(policy).container("main", command)
    });
    let server = builder.start().await.unwrap();
    let client = Client::new(&server.config()).unwrap();
    (server, client)
}

/// The answer to a request for a log: its code and body.
async fn log(client: &Client, query: &str) -> (u16, String) {
    let path = format!("/api/v1/namespaces/default/pods/web-0/log?{query}");
    let request = http::Request::get(path).body(Bytes::new()).unwrap();
    let response = patient(Box::pin(client.send(request))).await.unwrap();
    let code = response.status().as_u16();
    let body = patient(response.into_body().bytes(1 << 20)).await.unwrap();
    (code, String::from_utf8(body.to_vec()).unwrap())
}

/// Waits until the log has so many lines.
async fn lines(client: &Client, count: usize) -> String {
    patient(async {
        loop {
            let (_, text) = log(client, "timestamps=true").await;
            if text.lines().count() >= count {
                return text;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await
}

/// Waits until the pod's container is as wanted.
async fn until(client: &Client, wanted: impl Fn(&Value) -> bool) -> Value {
    let pods = Resource::namespaced("", "v1", "pods");
    let mut updates = client.watch(pods).namespace("default").stream();
    patient(async {
        loop {
            if let Update::Event(event) = updates.next().await.unwrap().unwrap() {
                let pod: Value = event.object.decode().unwrap();
                let status = &pod["status"]["containerStatuses"][0];
                if wanted(status) {
                    return status.clone();
                }
            }
        }
    })
    .await
}

#[tokio::test]
async fn options_are_the_kubelet_s() {
    let script = "for i in 1 2 3; do echo line $i; done; sleep 1.1; echo late; \
                  sleep 0.2; echo err >&2; sleep 0.2; printf part; sleep 0.1; exit 0";
    let builder = ApiServer::builder().log_streams(true);
    let (_server, client) = with(builder, script, RestartPolicy::Never).await;
    until(&client, |status| status["state"]["terminated"].is_object()).await;
    let all = lines(&client, 6).await;
    let stamps: Vec<_> = all
        .lines()
        .map(|line| line.split_once(' ').unwrap().0)
        .collect();
    assert!(stamps.iter().all(|stamp| stamp.len() == 30), "{all}");
    let late = Stamp::parse(stamps[3].as_bytes()).unwrap();
    // Whole seconds count, and those inclusively: the first lines are a second older at least.
    let since = format!("sinceTime={}Z", &late.to_string()[..19]);
    let with_stamp = format!("{} line 1\n{}", stamps[0], &stamps[1][..1]);
    for (query, expected) in [
        ("tailLines=0", ""),
        ("tailLines=1", "part"),
        ("tailLines=2&follow=true", "err\npart"),
        ("limitBytes=8", "line 1\nl"),
        ("limitBytes=1000", "line 1\nline 2\nline 3\nlate\nerr\npart"),
        ("limitBytes=39&timestamps=true", &with_stamp),
        ("tailLines=4&limitBytes=7", "line 3\n"),
        (&since, "late\nerr\npart"),
        // The tail is counted first (`kuberuntime/logs/logs.go`).
        (&format!("{since}&tailLines=4"), "late\nerr\npart"),
        ("sinceTime=2100-01-01T00:00:00%2B01:00", ""),
        ("sinceSeconds=3600&tailLines=1", "part"),
        ("stream=Stderr", "err\n"),
        ("stream=Stdout&limitBytes=6", "line 1"),
        ("stream=All&tailLines=1", "part"),
        ("follow=maybe&tailLines=1", "part"),
        (
            "follow=0&timestamps=false&previous=False&tailLines=1",
            "part",
        ),
        ("container=main&tailLines=1", "part"),
        ("sinceSeconds=1000000000000&tailLines=1", "part"),
    ] {
        let (code, text) = log(&client, query).await;
        assert_eq!((code, sorted(&text)), (200, sorted(expected)), "{query}");
    }
}

/// Lines of two streams come in no certain order where they are written at the same time.
fn sorted(text: &str) -> Vec<&str> {
    let mut lines: Vec<_> = text.split('\n').collect();
    lines.sort_unstable();
    lines
}

#[tokio::test]
async fn refusals_are_those_of_a_real_server() {
    let (_server, client) = start("sleep 60", RestartPolicy::Never).await;
    let invalid = "PodLogOptions \"web-0\" is invalid: ";
    // Recorded from a 1.36 API server over `kubectl proxy`.
    for (query, code, message) in [
        (
            "previous=true",
            400,
            "previous terminated container \"main\" in pod \"web-0\" not found".to_owned(),
        ),
        (
            "container=x",
            400,
            "container x is not valid for pod web-0".to_owned(),
        ),
        (
            "tailLines=-1",
            422,
            format!("{invalid}tailLines: Invalid value: -1: must be greater than or equal to 0"),
        ),
        (
            "tailLines=x",
            400,
            "strconv.ParseInt: parsing \"x\": invalid syntax".to_owned(),
        ),
        (
            "limitBytes=0",
            422,
            format!("{invalid}limitBytes: Invalid value: 0: must be greater than 0"),
        ),
        (
            "sinceSeconds=0",
            422,
            format!("{invalid}sinceSeconds: Invalid value: 0: must be greater than 0"),
        ),
        (
            "sinceSeconds=1&sinceTime=2026-01-01T00:00:00Z",
            422,
            format!(
                "{invalid}[]: Forbidden: at most one of `sinceTime` or `sinceSeconds` may be \
                 specified"
            ),
        ),
        (
            "stream=Stdout",
            422,
            format!("{invalid}stream: Forbidden: may not be specified"),
        ),
    ] {
        let (found, text) = log(&client, query).await;
        let status = Status::from_json(text.as_bytes()).unwrap();
        assert_eq!((found, status.message), (code, message), "{query}");
        assert_eq!(status.code, code);
        let details = status.details.unwrap_or_default();
        assert_eq!(details.causes.len(), usize::from(code == 422), "{query}");
    }
    let builder = ApiServer::builder().log_streams(true);
    let (_server, client) = with(builder, "sleep 60", RestartPolicy::Never).await;
    let (code, text) = log(&client, "stream=Stdout&tailLines=1").await;
    assert_eq!(code, 422);
    assert!(text.contains("mutually exclusive"), "{text}");
}

#[tokio::test]
async fn the_log_of_the_instance_before_is_kept() {
    let (server, client) = start("echo up $$; exec sleep 60", RestartPolicy::Always).await;
    let first = lines(&client, 1).await;
    let before = until(&client, |status| status["restartCount"] == 0).await;
    assert!(before["state"]["running"]["startedAt"].is_string());
    assert_eq!(before["lastState"], serde_json::json!({}));
    assert!(server.kill_container("default", "web-0", "main"));
    assert!(!server.kill_container("default", "web-0", "other"));
    assert!(!server.kill_container("default", "nope", "main"));
    let after = until(&client, |status| {
        status["restartCount"] == 1 && status["state"]["running"].is_object()
    })
    .await;
    let last = &after["lastState"]["terminated"];
    assert_eq!(
        (&last["exitCode"], &last["reason"]),
        (&137.into(), &"Error".into())
    );
    assert_eq!(last["containerID"], before["containerID"]);
    assert_ne!(after["containerID"], before["containerID"]);
    let second = lines(&client, 1).await;
    assert_ne!(first, second);
    assert_eq!(
        log(&client, "previous=true&timestamps=true").await,
        (200, first)
    );
    assert_eq!(
        log(&client, "previous=true&tailLines=0").await,
        (200, String::new())
    );
    // Of several, the last counts.
    assert!(server.kill_container("default", "web-0", "main"));
    until(&client, |status| status["restartCount"] == 2).await;
    assert_eq!(
        log(&client, "previous=true&timestamps=true").await,
        (200, second)
    );
    let previous = client.pod("default", "web-0").logs().previous();
    let mut previous = previous.stream();
    let line = patient(previous.next()).await.unwrap().unwrap();
    assert!(line.bytes.starts_with(b"up "));
    server.shutdown().await;
}

#[tokio::test]
async fn policies_say_who_is_started_again() {
    for (policy, exit, restarted) in [
        (RestartPolicy::Always, 0, true),
        (RestartPolicy::OnFailure, 1, true),
        (RestartPolicy::OnFailure, 0, false),
        (RestartPolicy::Never, 1, false),
    ] {
        let script = format!("echo up; exit {exit}");
        let (_server, client) = start(&script, policy).await;
        until(&client, |status| status["state"]["terminated"].is_object()).await;
        if restarted {
            until(&client, |status| status["restartCount"].as_u64() >= Some(3)).await;
        } else {
            tokio::time::sleep(Duration::from_millis(300)).await;
            until(&client, |status| status["restartCount"] == 0).await;
        }
    }
}

#[tokio::test]
async fn a_follower_goes_on_with_the_next_instance_if_it_wants_to() {
    // Each instance ends when it is told to, once its first line has been seen.
    let dir = tempfile::tempdir().unwrap();
    let told = dir.path().join("told");
    let tell = || std::fs::write(&told, "").unwrap();
    let file = told.display();
    let script =
        format!("echo up; until [ -e {file} ]; do sleep 0.05; done; rm {file}; echo down; exit 3");
    let (server, client) = start(&script, RestartPolicy::OnFailure).await;
    let logs = client.pod("default", "web-0").logs().follow();
    let mut once = logs.clone().stream();
    let mut seen = Vec::new();
    while let Some(line) = patient(once.next()).await {
        seen.push(line.unwrap().bytes);
        if seen.len() == 1 {
            tell();
        }
    }
    assert_eq!(seen, ["up", "down"]);
    assert!(
        matches!(once.end(), Some(LogEnd::Exited(exit)) if exit.code == Some(3)),
        "{:?}",
        once.end()
    );
    let mut on = logs.across_restarts().stream();
    let (mut restarts, mut texts) = (0, Vec::new());
    while restarts < 3 {
        match patient(on.next_update()).await.unwrap() {
            LogUpdate::Line(line) => {
                if line.bytes == "up" {
                    tell();
                }
                texts.push(line.bytes);
            }
            LogUpdate::Restarted { .. } => {
                restarts += 1;
                assert_eq!(texts, ["up", "down"], "instance {restarts}");
                texts.clear();
            }
            // If the first that it reads has ended already, the next goes unseen.
            LogUpdate::Gap { .. } => assert_eq!(restarts, 0),
            LogUpdate::Waiting { .. } => {}
            other => panic!("{other:?}"),
        }
    }
    server.shutdown().await;
}

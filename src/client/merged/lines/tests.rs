//! What joins, what ends, and what is told, without a server.

use std::time::Duration;

use serde_json::{Value, json};

use super::*;
use crate::{
    Client, Config,
    error::NetworkError,
    wire::watch::{Encoding, Event},
};

fn logs() -> MergedLogs {
    let config = Config::new("http://127.0.0.1:1").unwrap();
    let client = Client::new(&config).unwrap();
    client.logs("default").follow()
}

fn pod(name: &str, uid: &str, ephemeral: &[&str]) -> Value {
    let ephemeral: Vec<_> = ephemeral.iter().map(|name| json!({"name": name})).collect();
    json!({"kind": "Pod", "apiVersion": "v1",
        "metadata": {"name": name, "namespace": "default", "uid": uid, "resourceVersion": "1"},
        "spec": {"initContainers": [{"name": "init"}], "containers": [{"name": "main"}],
            "ephemeralContainers": ephemeral}})
}

fn event(event_type: EventType, pod: &Value) -> Update {
    let object = Object::new(Encoding::Json, pod.to_string().into());
    Update::Event(Event { event_type, object })
}

fn complete() -> Update {
    Update::SnapshotEnd {
        resource_version: "1".into(),
        sharded: false,
    }
}

fn retrying(error: Error) -> Update {
    Update::Retrying {
        error,
        retry_in: Duration::ZERO,
        refused: false,
    }
}

/// What is to be read, and whether it was there at the start.
fn joined(lines: &mut MergedLines) -> Vec<(String, bool)> {
    let waiting = lines.waiting.drain(..);
    waiting
        .map(|(source, at_start)| (source.to_string(), at_start))
        .collect()
}

fn failures(lines: &mut MergedLines) -> Vec<String> {
    let told = lines.told.drain(..).map(|update| match update {
        LogUpdate::Ended(LogEnd::Failed(error)) => error.to_string(),
        other => panic!("{other:?}"),
    });
    told.collect()
}

#[tokio::test]
async fn ephemeral_containers_are_read_and_join_when_they_come() {
    let mut lines = logs().pods(["web"]).all_containers().stream();
    lines.pods_changed(&Update::SnapshotBegin);
    lines.pods_changed(&event(EventType::Added, &pod("web", "1", &["debug-1"])));
    lines.pods_changed(&complete());
    let names = ["init", "main", "debug-1"];
    let expected = names.map(|name| (format!("default/web/{name}"), true));
    assert_eq!(joined(&mut lines), expected);
    for _ in 0..2 {
        let changed = pod("web", "1", &["debug-1", "debug-2"]);
        lines.pods_changed(&event(EventType::Modified, &changed));
    }
    assert_eq!(joined(&mut lines), [("default/web/debug-2".into(), false)]);
    assert_eq!(failures(&mut lines), [""; 0]);
}

#[tokio::test]
async fn the_logs_of_named_pods_end() {
    let mut lines = logs().pods(["web", "wbe"]).stream();
    lines.pods_changed(&Update::SnapshotBegin);
    lines.pods_changed(&event(EventType::Added, &pod("web", "1", &[])));
    lines.pods_changed(&complete());
    assert_eq!(joined(&mut lines), [("default/web/main".into(), true)]);
    let missing = "logs of pod default/wbe: pods \"wbe\" not found";
    assert_eq!(failures(&mut lines), [missing]);
    // A pod that takes the name is another.
    lines.pods_changed(&event(EventType::Deleted, &pod("web", "1", &[])));
    lines.pods_changed(&event(EventType::Added, &pod("web", "2", &[])));
    lines.pods_changed(&Update::SnapshotBegin);
    lines.pods_changed(&event(EventType::Added, &pod("web", "2", &[])));
    lines.pods_changed(&complete());
    assert_eq!((joined(&mut lines), failures(&mut lines)), (vec![], vec![]));
    let end = tokio::time::timeout(Duration::from_secs(600), lines.next());
    assert!(end.await.unwrap().is_none(), "all logs have ended");

    // Those of pods that match do not: others may come.
    let mut lines = logs().labels("app=web").stream();
    lines.pods_changed(&Update::SnapshotBegin);
    lines.pods_changed(&complete());
    assert!(matches!(lines.pods, Pods::Watching(_)));
    lines.pods_changed(&event(EventType::Added, &pod("web", "2", &[])));
    lines.pods_changed(&event(EventType::Deleted, &pod("web", "2", &[])));
    lines.pods_changed(&event(EventType::Added, &pod("web", "3", &[])));
    assert_eq!(joined(&mut lines).len(), 2);
}

#[tokio::test]
async fn a_container_that_a_named_pod_lacks_is_told() {
    let mut lines = logs().pods(["web"]).container("mian").stream();
    lines.pods_changed(&event(EventType::Added, &pod("web", "1", &[])));
    lines.pods_changed(&complete());
    let missing = "pod default/web has no container \"mian\"; it has main, init";
    assert_eq!(failures(&mut lines), [missing]);
}

#[tokio::test(start_paused = true)]
async fn a_list_of_pods_that_is_only_refused_is_given_up() {
    let refusal = || {
        let status = Status::failure(500, "InternalError", "no etcd");
        Error::from(Box::new(ApiError::new("watch pods", status)))
    };
    let mut lines = logs().pods(["web"]).stream();
    for _ in 0..2 {
        lines.pods_changed(&retrying(refusal()));
        assert!(matches!(
            lines.told.pop_front(),
            Some(LogUpdate::Retrying { .. })
        ));
    }
    tokio::time::advance(limits::LOG_GIVE_UP).await;
    let silent = Duration::from_secs(60);
    lines.pods_changed(&retrying(NetworkError::Silent { silent }.into()));
    assert!(matches!(
        lines.told.pop_front(),
        Some(LogUpdate::Retrying { .. })
    ));
    lines.pods_changed(&retrying(refusal()));
    assert_eq!(failures(&mut lines), ["watch pods: no etcd"]);
    assert!(lines.next().await.is_none());
}

#[tokio::test]
async fn until_all_end_it_waits_for_those_that_are_there() {
    let mut cx = Context::from_waker(std::task::Waker::noop());
    for (until_all_end, ended) in [(false, false), (true, true)] {
        let mut lines = match until_all_end {
            true => logs().until_all_end().stream(),
            false => logs().stream(),
        };
        // Nothing is known yet.
        assert!(lines.poll_update(&mut cx).is_pending());
        lines.pods_changed(&Update::SnapshotBegin);
        lines.pods_changed(&complete());
        let next = lines.poll_update(&mut cx);
        assert_eq!(matches!(next, Poll::Ready(None)), ended, "{next:?}");
    }
}

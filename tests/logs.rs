//! Logs against the embedded server, with and without faults.

#![cfg(feature = "testing")]
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use kubewire::{
    Client, Error, Resource,
    logs::{LogEnd, LogLines, LogStream, Logs},
    testing::{ApiServer, BodyFault, RestartPolicy},
    wire::{line::LineEnd, status::Status},
};

async fn start(script: &str) -> (ApiServer, Client) {
    let command = ["sh", "-c", script].map(str::to_owned);
    let server = ApiServer::builder()
        .log_streams(true)
        .pod("default", "web-0", |pod| pod.container("main", command))
        .start()
        .await
        .unwrap();
    let client = Client::new(&server.config()).unwrap();
    (server, client)
}

async fn texts(lines: &mut LogLines) -> Vec<String> {
    let mut texts = Vec::new();
    let read = async {
        while let Some(line) = lines.next().await {
            texts.push(String::from_utf8(line.unwrap().bytes.to_vec()).unwrap());
        }
    };
    tokio::time::timeout(Duration::from_secs(300), read)
        .await
        .unwrap();
    texts
}

#[tokio::test]
async fn a_followed_log_ends_with_the_container_and_its_code() {
    let (_server, client) =
        start("for i in 0 1 2; do echo line $i; sleep 0.1; done; printf end; exit 3").await;
    let pod = client.pod("default", "web-0");
    let mut lines = pod.logs().follow().stream();
    assert_eq!(
        texts(&mut lines).await,
        ["line 0", "line 1", "line 2", "end"]
    );
    assert!(matches!(lines.end(), Some(LogEnd::Exited(exit)) if exit.code == Some(3)));
    assert_eq!(lines.container(), Some("main"));
}

#[tokio::test]
async fn over_a_websocket_each_line_comes_once_whatever_happens() {
    let (server, client) =
        start("for i in 0 1 2 3 4 5; do echo line $i; sleep 0.1; done; printf end; exit 3").await;
    for fault in [
        Some(BodyFault::Cut { after: 50 }),
        None,
        Some(BodyFault::Close { after: 120 }),
        Some(BodyFault::Refuse(Box::new(Status::failure(
            500,
            "InternalError",
            "no kubelet",
        )))),
    ] {
        server.inject_into_bodies([fault]);
    }
    let pod = client.pod("default", "web-0");
    let logs = pod.logs().over_websocket();
    let mut lines = logs.clone().follow().stream();
    let all = [
        "line 0", "line 1", "line 2", "line 3", "line 4", "line 5", "end",
    ];
    assert_eq!(texts(&mut lines).await, all);
    assert!(matches!(lines.end(), Some(LogEnd::Exited(exit)) if exit.code == Some(3)));
    let mut lines = logs.clone().stream();
    assert_eq!(texts(&mut lines).await, all);
    assert!(matches!(lines.end(), Some(LogEnd::Complete)));
    server.inject_into_bodies([Some(BodyFault::Cut { after: 50 })]);
    let mut lines = logs.clone().stream();
    assert_eq!(texts(&mut lines).await, all, "a finite log is resumed");
    server.inject_into_bodies([Some(BodyFault::Cut { after: 7 })]);
    let mut plain = logs.plain().stream();
    assert_eq!(plain.next().await.unwrap().unwrap().bytes, "line 0");
    assert!(
        matches!(plain.next().await, Some(Err(Error::Network(_)))),
        "a close without a close frame is no end"
    );
    let missing = client.pod("default", "nope").logs().over_websocket();
    let error = refusal(missing).await;
    assert_eq!(error.status().unwrap().code, 404);
}

#[tokio::test]
async fn options_choose_the_lines() {
    let (_server, client) = start("echo one; echo err >&2; sleep 0.1; echo two; sleep 60").await;
    let pod = client.pod("default", "web-0");
    let mut all = Vec::new();
    while all.len() < 3 {
        tokio::time::sleep(Duration::from_millis(20)).await;
        all = texts(&mut pod.logs().stream()).await;
    }
    assert_eq!(all[2], "two");
    let mut lines = pod.logs().tail(1).stream();
    let line = lines.next().await.unwrap().unwrap();
    assert_eq!((&line.bytes[..], line.end), (&b"two"[..], LineEnd::Newline));
    assert!(lines.next().await.is_none());
    assert!(matches!(lines.end(), Some(LogEnd::Complete)));
    let two = line.stamp.unwrap();
    let mut since = pod.logs().since(two).stream();
    assert_eq!(
        texts(&mut since).await,
        ["two"],
        "the server knows whole seconds only"
    );
    let mut errors = pod.logs().only(LogStream::Stderr).stream();
    assert_eq!(texts(&mut errors).await, ["err"]);
    let mut plain = pod.logs().plain().stream();
    assert_eq!(plain.next().await.unwrap().unwrap().stamp, None);
    let mut limited = pod.logs().limit_bytes(5).only(LogStream::Stdout).stream();
    assert_eq!(texts(&mut limited).await, ["one", "t"]);
    assert!(matches!(limited.end(), Some(LogEnd::Limit)));
}

/// What comes before the first line: a refusal.
async fn refusal(logs: Logs) -> Error {
    logs.stream().next().await.unwrap().unwrap_err()
}

#[tokio::test]
async fn refusals_come_before_the_first_line() {
    let (_server, client) = start("sleep 60").await;
    let nope = client.pod("default", "nope");
    for logs in [nope.logs(), nope.logs().follow()] {
        assert_eq!(refusal(logs).await.status().unwrap().code, 404);
    }
    let pod = client.pod("default", "web-0");
    let error = refusal(pod.logs().previous()).await;
    assert_eq!(error.status().unwrap().code, 400);
    let error = refusal(pod.logs().container("nope").follow()).await;
    assert!(error.to_string().contains("it has main"), "{error}");
}

#[tokio::test]
async fn a_pod_that_is_deleted_ends_the_log() {
    for (script, cut, rest) in [
        ("echo one; sleep 60", None, &[][..]),
        // In the stamp of the line: the log is read again.
        ("echo one; sleep 60", Some(20), &[]),
        // Right behind the line: the pod is asked, which is gone by then.
        ("echo one; sleep 60", Some(35), &[]),
        // What had been written before the pod was deleted comes to its end.
        ("echo one; echo two; sleep 60", Some(20), &["two"]),
    ] {
        let (server, client) = start(script).await;
        let logs = client.pod("default", "web-0").logs();
        while texts(&mut logs.clone().stream()).await.len() <= rest.len() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        server.inject_into_bodies([cut.map(|after| BodyFault::Cut { after })]);
        let mut lines = logs.follow().stream();
        assert_eq!(lines.next().await.unwrap().unwrap().bytes, "one");
        let pods = Resource::namespaced("", "v1", "pods");
        assert!(server.delete(&pods, "default", "web-0"));
        assert_eq!(texts(&mut lines).await, rest, "{cut:?}");
        let end = lines.end();
        assert!(matches!(end, Some(LogEnd::PodGone)), "{cut:?}: {end:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_followers_through_random_faults_get_each_line_once() {
    let script = "i=0; while [ $i -lt 600 ]; do echo $i; i=$((i+1)); \
                  [ $((i % 10)) -eq 0 ] && sleep 0.02; done; exit 5";
    let (server, client) = start(script).await;
    let mut seed = 7_u64;
    let mut below = move |bound: u64| {
        seed = seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        ((seed >> 33) % bound) as usize
    };
    let fault = |n, after| match n {
        0..4 => BodyFault::Cut { after },
        4..7 => BodyFault::Close { after },
        _ => BodyFault::Refuse(Box::new(Status::failure(
            500,
            "InternalError",
            "no kubelet",
        ))),
    };
    server.inject_into_bodies(
        (0..60)
            .map(|_| Some(fault(below(8), below(3000))))
            .collect::<Vec<_>>(),
    );
    let followers: Vec<_> = (0..20)
        .map(|_| {
            let logs = client.pod("default", "web-0").logs().follow();
            tokio::spawn(async move {
                let mut lines = logs.stream();
                (texts(&mut lines).await, lines.end().cloned())
            })
        })
        .collect();
    let expected: Vec<_> = (0..600).map(|n| n.to_string()).collect();
    for follower in followers {
        let (texts, end) = follower.await.unwrap();
        assert_eq!(texts, expected);
        assert!(matches!(end, Some(LogEnd::Exited(exit)) if exit.code == Some(5)));
    }
}

#[tokio::test]
async fn merged_logs_bring_every_line_with_its_source() {
    let echo = |text: &str| {
        [
            "sh".into(),
            "-c".into(),
            format!("echo {text} 1; echo {text} 2"),
        ]
    };
    let server = ApiServer::builder()
        .pod("default", "web-0", |pod| {
            let pod = pod.label("app", "web").container("main", echo("zero"));
            pod.container("side", echo("beside"))
        })
        .pod("default", "web-1", |pod| {
            pod.label("app", "web").container("main", echo("one"))
        })
        .pod("default", "db-0", |pod| {
            pod.label("app", "db").container("main", echo("db"))
        })
        .start()
        .await
        .unwrap();
    let client = Client::new(&server.config()).unwrap();
    let collect = async |logs: kubewire::logs::MergedLogs, count: usize| {
        let mut lines = logs.stream();
        let mut all = Vec::new();
        while all.len() < count {
            let line = tokio::time::timeout(Duration::from_secs(300), lines.next());
            let Some(line) = line.await.unwrap() else {
                break;
            };
            let line = line.unwrap();
            let text = String::from_utf8(line.line.bytes.to_vec()).unwrap();
            all.push(format!("{} {text}", line.source));
        }
        all.sort();
        all
    };
    let web = client.logs("default").labels("app=web");
    let mains = [
        "default/web-0/main zero 1",
        "default/web-0/main zero 2",
        "default/web-1/main one 1",
        "default/web-1/main one 2",
    ];
    assert_eq!(collect(web.clone().follow(), 4).await, mains);
    assert_eq!(
        collect(web.clone().container("main"), usize::MAX).await,
        mains
    );
    assert_eq!(
        collect(web.clone().all_containers(), usize::MAX)
            .await
            .len(),
        6
    );
    let named = client.logs("default").pods(["db-0", "web-1"]).tail(1);
    assert_eq!(
        collect(named, usize::MAX).await,
        ["default/db-0/main db 2", "default/web-1/main one 2"]
    );
    let beside = web.container("side");
    assert_eq!(collect(beside, usize::MAX).await.len(), 2);

    // Logs of named pods end, also where they are followed.
    let named = client.logs("default").follow();
    let both = named.clone().pods(["web-0"]).all_containers();
    assert_eq!(collect(both, usize::MAX).await.len(), 4);
    let mut missing = named.pods(["wbe-0"]).all_containers().stream();
    let missing = async { (missing.next().await, missing.next().await) };
    let (first, second) = tokio::time::timeout(Duration::from_secs(300), missing)
        .await
        .unwrap();
    let error = first.unwrap().unwrap_err();
    assert_eq!(error.status().unwrap().code, 404);
    assert!(second.is_none());
}

#[tokio::test]
async fn merged_logs_end_with_their_pod() {
    let script = "echo one; sleep 1";
    let server = ApiServer::builder()
        .pod("default", "web-0", |pod| {
            pod.restart_policy(RestartPolicy::Always)
                .container("main", ["sh", "-c", script])
        })
        .start()
        .await
        .unwrap();
    let client = Client::new(&server.config()).unwrap();
    let named = client.logs("default").pods(["web-0"]).all_containers();
    let mut lines = named.across_restarts().stream();
    let read = async {
        let first = lines.next().await.unwrap().unwrap();
        assert_eq!(first.line.bytes, "one");
        server.delete(&Resource::namespaced("", "v1", "pods"), "default", "web-0");
        while let Some(line) = lines.next().await {
            line.unwrap();
        }
    };
    tokio::time::timeout(Duration::from_secs(300), read)
        .await
        .unwrap();
}

//! `Duration::MAX` is "never" wherever a duration can be set: nothing overflows, and nothing is over
//! at once.

#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

#[path = "common/soon.rs"]
mod soon;

use std::{collections::BTreeSet, fs, path::Path, time::Duration};

use k8s_openapi::api::core::v1::Pod;
use kubewire::{Client, KeepaliveConfig, request::Kind as _, testing::ApiServer};
use soon::soon;

const NEVER: Duration = Duration::MAX;
const KEEPALIVE: KeepaliveConfig = KeepaliveConfig {
    interval: NEVER,
    silence: NEVER,
    unread: NEVER,
    refresh: NEVER,
};

#[tokio::test]
async fn every_builder_takes_the_longest_duration_for_never() {
    let builder = ApiServer::builder().pod("default", "web-0", |pod| {
        pod.container("main", ["sh", "-c", "echo ready; sleep 600"])
    });
    let server = builder.start().await.unwrap();
    let config = server
        .config()
        .with_connect_timeout(NEVER)
        .with_request_timeout(NEVER)
        .with_tcp_keepalive(NEVER);
    let client = Client::new(&config).unwrap();
    let pod = client.pod("default", "web-0");

    let exec = pod.exec("true").timeout(NEVER).keepalive(KEEPALIVE);
    assert!(soon(exec.status()).await.unwrap().success());

    let all = client.exec_all("default", ["true"]).pods(["web-0"]);
    drop(all.timeout(NEVER));

    let attached = soon(pod.attach().keepalive(KEEPALIVE).spawn())
        .await
        .unwrap();
    drop(attached);

    let forward = pod.port_forward().keepalive(KEEPALIVE);
    let tunnel = soon(forward.connect()).await.unwrap();
    assert!(soon(tunnel.open(9)).await.is_ok());

    let mut lines = pod.logs().since(NEVER).stream();
    let line = soon(lines.next()).await.expect("a line").unwrap();
    assert!(format!("{line:?}").contains("ready"), "{line:?}");

    let request = client
        .request(Pod::resource())
        .namespace("default")
        .timeout(NEVER);
    assert!(soon(request.get::<Pod>("web-0")).await.is_ok());
    let api = client.api::<Pod>().namespace("default").timeout(NEVER);
    assert_eq!(soon(api.list()).await.unwrap().items.len(), 1);
    let mut updates = client.watch(Pod::resource()).timeout(NEVER).stream();
    assert!(soon(updates.next()).await.expect("an update").is_ok());

    let scratch = tempfile::tempdir().unwrap();
    let file = scratch.path().join("file");
    fs::write(&file, "text").unwrap();
    let to = scratch.path().join("copy").display().to_string();
    soon(pod.copy_to(&file, to).deadline(NEVER).run())
        .await
        .unwrap();

    let debug = pod.debug("busybox").timeout(NEVER);
    assert!(format!("{debug:?}").contains("timeout"), "{debug:?}");
}

/// What the test above must have: every public function that takes a duration.
#[test]
fn no_function_that_takes_a_duration_is_left_out() {
    fn look(dir: &Path, found: &mut BTreeSet<String>) {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => look(&path, found),
                false => {
                    let text = fs::read_to_string(&path).unwrap_or_default();
                    for line in text.lines().map(str::trim) {
                        // Those of `setters!` are public, and end with what is set.
                        let setter = || line.strip_prefix("fn ").filter(|it| it.ends_with(';'));
                        let Some(rest) = line.strip_prefix("pub fn ").or_else(setter) else {
                            continue;
                        };
                        let takes = [": Duration", ": KeepaliveConfig"];
                        if takes.iter().any(|it| rest.contains(it)) {
                            let name = rest.split(['(', '<']).next().unwrap();
                            found.insert(name.to_owned());
                        }
                    }
                }
            }
        }
    }
    let mut found = BTreeSet::new();
    for part in ["client", "config", "gateway", "server"] {
        look(&Path::new("src").join(part), &mut found);
    }
    let tested = [
        "deadline",
        "keepalive",
        "timeout",
        "with_connect_timeout",
        "with_request_timeout",
        "with_tcp_keepalive",
    ];
    assert_eq!(found, tested.map(str::to_owned).into());
}

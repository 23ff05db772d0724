//! `get` of lists that are long: as one, as pages, and without end.

use serde_json::{Value, json};

use crate::{
    get::serving,
    tool::{Cluster, Running},
};

const PAGES: usize = 6;

/// A page of objects that are large, 4 MiB in all.
fn page(at: usize) -> Vec<Value> {
    let object = |of: usize| {
        let metadata = json!({
            "name": format!("thing-{at:04}-{of}"), "namespace": "default",
            "creationTimestamp": null, "annotations": {"large": "x".repeat(1 << 20)},
        });
        json!({"metadata": metadata})
    };
    (0..4).map(object).collect()
}

fn list(items: Vec<Value>, next: Option<usize>) -> (usize, String) {
    let next = next.map_or(String::new(), |next| next.to_string());
    let list = json!({
        "apiVersion": "v1", "kind": "ThingList", "metadata": {"continue": next}, "items": items,
    });
    let text = list.to_string();
    (text.len(), text)
}

/// The page that is asked for; nothing where pages are not.
fn asked(target: &str) -> Option<usize> {
    let value = |name: &str| {
        target
            .split(['?', '&'])
            .find_map(|it| it.strip_prefix(name))
    };
    value("limit=")?;
    Some(value("continue=").map_or(0, |at| at.parse().unwrap()))
}

#[tokio::test]
async fn a_list_that_is_printed_as_it_comes_reads_as_one_that_is_printed_whole() {
    let cluster = Cluster::start().await;
    let url = serving(|target| match asked(target) {
        None => list((0..PAGES).flat_map(page).collect(), None),
        Some(at) => list(page(at), (at + 1 < PAGES).then_some(at + 1)),
    })
    .await;
    for form in [
        &[][..],
        &["-o", "name"],
        &["-o", "json"],
        &["-o", "yaml"],
        &[
            "-o",
            "custom-columns=N:.metadata.name,S:.metadata.namespace",
        ],
        &["--sort-by", ".metadata.name"],
    ] {
        let get = [
            &["-s", &url, "get", "things", "--chunk-size"],
            &["4"][..],
            form,
        ]
        .concat();
        let pages = cluster.run(&get).await;
        let get = [
            &["-s", &url, "get", "things", "--chunk-size"],
            &["0"][..],
            form,
        ]
        .concat();
        let whole = cluster.run(&get).await;
        assert_eq!((pages.code, &*pages.stderr), (Some(0), ""), "{form:?}");
        assert_eq!(whole.code, Some(0), "{form:?}: {}", whole.stderr);
        assert!(pages.stdout == whole.stdout, "{form:?}");
        assert!(pages.stdout.len() > PAGES * 4 * 10, "{form:?}");
    }
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_list_without_end_is_printed_and_not_kept() {
    let cluster = Cluster::start().await;
    let url = serving(|target| {
        let at = asked(target).unwrap_or_default();
        list(page(at), Some(at + 1))
    })
    .await;
    let get = ["-s", &url, "get", "things"];
    let Running {
        mut child,
        mut lines,
    } = cluster.start_tool(&get);
    loop {
        let line = lines.next_line().await.unwrap().expect("there is more");
        if line.contains("thing-0060-") {
            break;
        }
    }
    let status = format!("/proc/{}/status", child.id().unwrap());
    let status = std::fs::read_to_string(status).unwrap();
    let most = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let most = most.and_then(|it| it.trim().strip_suffix(" kB")).unwrap();
    // 240 MiB have come.
    assert!(most.parse::<usize>().unwrap() < 180_000, "{most} kB");
    child.kill().await.unwrap();
}

#[tokio::test]
async fn an_answer_that_is_too_long_is_the_server_s_doing() {
    let cluster = Cluster::start().await;
    let url = serving(|_| (300 << 20, r#"{"kind":"ThingList","items":["#.to_owned())).await;
    for form in [&[][..], &["a"], &["-o", "json"]] {
        let get = [&["-s", &url, "get", "things"], form].concat();
        cluster
            .run(&get)
            .await
            .is_error("the server's answer is too long");
    }
    // A template needs all of a list.
    let url = serving(|target| {
        let at = asked(target).unwrap_or_default();
        let text = r#"{"kind":"ThingList","metadata":{"continue":"NEXT"},"items":[]}"#;
        let text = text.replace("NEXT", &(at + 1).to_string()) + &" ".repeat(128 << 20);
        (text.len(), text)
    })
    .await;
    let get = ["-s", &url, "get", "things", "-o", "jsonpath={.items}"];
    cluster.run(&get).await.is_error("needs all of it at once");
}

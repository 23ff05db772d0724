//! When what the tool does ends, by its flags for time and by errors, and what it has said by then.

use std::{collections::HashSet, time::Duration};

use futures_util::future::join_all;
use kubewire::testing::ApiServer;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
    sync::mpsc,
    time::timeout,
};

use crate::tool::{Cluster, PATIENCE, finish};

/// A server of bare HTTP/1.1, which closes after each answer: its URL, and the paths that it was
/// asked for.
async fn server(
    answer: impl Fn(&str) -> String + Send + 'static,
) -> (String, mpsc::UnboundedReceiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (asked, paths) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                let Ok(byte) = socket.read_u8().await else {
                    break;
                };
                head.push(byte);
            }
            let head = String::from_utf8(head).unwrap();
            let path = head.split(' ').nth(1).unwrap_or_default();
            let text = answer(path);
            // The tool may have gone.
            let _ = socket.write_all(text.as_bytes()).await;
            let _ = asked.send(path.to_owned());
        }
    });
    (url, paths)
}

fn ok(form: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "HTTP/1.1 200 OK\r\nContent-Type: {form}\r\nContent-Length: {length}\r\n\
         Connection: close\r\n\r\n{body}"
    )
}

/// As by Go's client, whose timeout counts the whole answer.
#[tokio::test]
async fn a_stream_ends_with_the_time_of_its_request() {
    let server = ApiServer::builder().pod("default", "web-0", |pod| {
        pod.container("main", ["sh", "-c", "echo tick; sleep infinity"])
    });
    let cluster = Cluster::around(server.start().await.unwrap());
    let mut tool = cluster.start_tool(&["logs", "-f", "web-0"]);
    assert_eq!(tool.line().await, "tick");
    tool.interrupt().await;
    let cases = [
        ("get pods -o name -w", 0, "pod/web-0\n", ""),
        ("watch pods -o name", 0, "ADDED pod/web-0\n", ""),
        ("logs -f web-0", 1, "tick\n", "error: no end within 15s\n"),
        ("logs -f -l a!=b", 1, "tick\n", "error: no end within 15s\n"),
        ("events -w", 0, "", ""),
    ];
    let cases = cases.map(async |(command, code, stdout, stderr)| {
        let command: Vec<_> = command.split(' ').chain(["--request-timeout=15"]).collect();
        cluster.run(&command).await.is(code, stdout, stderr);
    });
    join_all(cases).await;
}

#[tokio::test]
async fn a_log_at_a_silent_server_is_not_asked_for_again_once_its_time_is_over() {
    let cluster = Cluster::start().await;
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", silent.local_addr().unwrap());
    for flags in [&["x"][..], &["-f", "x"], &["-l", "a=b"], &["-fl", "a=b"]] {
        let logs = ["-s", &url, "--request-timeout=300ms", "logs"];
        let began = std::time::Instant::now();
        let ran = cluster.run(&[&logs, flags].concat()).await;
        assert_eq!(ran.code, Some(1), "{flags:?}: {}", ran.stderr);
        // It had been half a minute.
        let took = began.elapsed();
        assert!(took < Duration::from_secs(30), "{flags:?}: {took:?}");
    }
}

#[tokio::test]
async fn no_time_is_any_time() {
    let cluster = Cluster::start().await;
    let never = ["--timeout=0", "--request-timeout=0"];
    let exec = [&["exec"], &never[..], &["web-0", "--", "echo", "done"]].concat();
    cluster.run(&exec).await.is(0, "done\n", "");
    std::fs::write(cluster.dir.path().join("file"), "text").unwrap();
    let file = cluster.dir.path().join("file");
    let target = format!("web-0:{}", cluster.dir.path().join("copy").display());
    let cp = ["cp", file.to_str().unwrap(), &target, "-q"];
    let ran = cluster.run(&[&cp[..], &never].concat()).await;
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
}

#[tokio::test]
async fn numbers_of_flags_may_be_large() {
    let cluster = Cluster::start().await;
    let get = ["get", "pod", "-o", "name", "--chunk-size=99999999999"];
    let ran = cluster.run(&[&get[..], &["-v=300"]].concat()).await;
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
}

#[tokio::test]
async fn a_refusal_of_a_raw_path_is_told_as_any_other() {
    let cluster = Cluster::start().await;
    let page = |path: &str| match path {
        "/page" => "HTTP/1.1 403 Forbidden\r\nContent-Type: text/html\r\nContent-Length: 12\r\n\
                    Connection: close\r\n\r\n<html>\x1b[31m\n"
            .to_owned(),
        _ => "HTTP/1.1 302 Found\r\nLocation: http://login.test/\r\nContent-Length: 0\r\n\
              Connection: close\r\n\r\n"
            .to_owned(),
    };
    let (url, _paths) = server(page).await;
    let raw = async |path: &str| {
        let ran = cluster.run(&["-s", &url, "get", "--raw", path]).await;
        assert_eq!((ran.code, &ran.stdout[..]), (Some(1), &b""[..]));
        ran.stderr
    };
    let refused = raw("/page").await;
    assert!(!refused.contains("<html>"), "{refused}");
    assert!(
        refused.contains("403") && refused.contains("text/html"),
        "{refused}"
    );
    let elsewhere = raw("/else").await;
    assert!(elsewhere.contains("http://login.test/"), "{elsewhere}");
    let status = cluster.run(&["get", "--raw", "/nothing"]).await;
    status.is_error("get /nothing");
    let api = cluster.run(&["get", "--raw", "api"]).await;
    api.is_error("--raw \"api\" is no path");
}

/// A kubelet tells it in the place of the log, with 200.
#[tokio::test]
async fn a_log_that_the_runtime_has_removed_is_an_error_unless_errors_are_ignored() {
    let cluster = Cluster::start().await;
    let (url, _paths) = server(|_: &str| {
        ok(
            "text/plain",
            "unable to retrieve container logs for containerd://0",
        )
    })
    .await;
    let logs = ["-s", &url, "logs", "one", "-c", "main", "-p"];
    let ran = cluster.run(&logs).await;
    assert_eq!((ran.code, &ran.stdout[..]), (Some(1), &b""[..]));
    ran.is_error("unable to retrieve container logs for containerd://0");
    let ran = cluster
        .run(&[&logs[..], &["--ignore-errors"]].concat())
        .await;
    assert_eq!((ran.code, &ran.stdout[..]), (Some(0), &b""[..]));
    assert!(ran.stderr.contains("unable to retrieve"), "{}", ran.stderr);
    let ran = cluster.run(&["logs", "nobody", "--ignore-errors"]).await;
    ran.is_error("\"nobody\" not found");
}

/// The tool ends with an error while its lines wait for whoever reads them.
#[tokio::test]
async fn what_was_written_before_an_error_is_not_lost() {
    let cluster = Cluster::start().await;
    // More bytes than a pipe holds, and no more lines than wait for it.
    let lines = 40;
    let table = move |path: &str| {
        if !path.contains("/pods") {
            let version = r#"{"kind":"APIResourceList","groupVersion":"v1","resources":[
                {"name":"pods","namespaced":true,"kind":"Pod","verbs":["list","watch"]}]}"#;
            return match path {
                "/api/v1" => ok("application/json", version),
                "/api" => ok(
                    "application/json",
                    r#"{"kind":"APIVersions","versions":["v1"]}"#,
                ),
                _ => ok("application/json", r#"{"kind":"APIGroupList","groups":[]}"#),
            };
        }
        if path.contains("watch=") {
            let page = "<html></html>";
            return ok("text/html", page);
        }
        let item =
            |n| json!({"metadata": {"name": format!("{}-{n}", "x".repeat(3000))}}).to_string();
        let items: Vec<_> = (0..lines).map(item).collect();
        let list = format!(
            r#"{{"kind":"PartialObjectMetadataList","apiVersion":"meta.k8s.io/v1",
                "metadata":{{"resourceVersion":"7"}},"items":[{}]}}"#,
            items.join(",")
        );
        ok("application/json", &list)
    };
    let (url, mut paths) = server(table).await;
    let get = ["-s", &url, "get", "pods", "-o", "name", "-w"];
    let tool = cluster.kubewire(&get).spawn().unwrap();
    let refused = async { while !paths.recv().await.unwrap().contains("watch=") {} };
    timeout(PATIENCE, refused).await.unwrap();
    // It knows by now that it is to end, or soon; nobody has read.
    tokio::time::sleep(Duration::from_millis(500)).await;
    let ran = finish(tool).await;
    assert_eq!(ran.code, Some(1), "{}", ran.stderr);
    let written = ran.stdout.split(|byte| *byte == b'\n').count() - 1;
    assert_eq!(written, lines, "{}", ran.stderr);
}

#[tokio::test]
async fn of_many_logs_the_same_trouble_is_told_once() {
    let say = |name: &str| {
        [
            "sh".to_owned(),
            "-c".to_owned(),
            format!("echo {name}; sleep infinity"),
        ]
    };
    let server = ApiServer::builder().pod("default", "web-0", |pod| {
        pod.container("a", say("a"))
            .container("b", say("b"))
            .container("c", say("c"))
    });
    let cluster = Cluster::around(server.start().await.unwrap());
    let logs = [
        "logs",
        "-f",
        "web-0",
        "--all-containers",
        "--request-timeout=15",
    ];
    let mut tool = cluster.start_tool(&logs);
    for _ in 0..3 {
        tool.line().await;
    }
    drop(cluster);
    let ran = finish(tool.child).await;
    let stderr = ran.stderr;
    assert_eq!(ran.code, Some(1));
    let told: Vec<_> = stderr.lines().collect();
    let distinct: HashSet<_> = told.iter().collect();
    assert!(
        told.iter().any(|line| line.ends_with("trying again")),
        "{stderr}"
    );
    assert_eq!(told.len(), distinct.len(), "{stderr}");
}

//! exec and port bytes through proxies, and the sidecar: the embedded API server behind an HTTP
//! and a SOCKS5 proxy, and behind `kubewire proxy`.

#![cfg(unix)]
#![allow(clippy::unwrap_used)]

#[path = "config_table/servers.rs"]
#[allow(dead_code, unreachable_pub)]
mod servers;

use std::process::Stdio;

use kubewire::{Client, Config, testing::ApiServer};
use tokio::io::{AsyncBufReadExt, BufReader};

async fn server() -> ApiServer {
    ApiServer::builder()
        .pod("default", "web-0", |pod| {
            pod.container("main", ["sleep", "infinity"])
        })
        .start()
        .await
        .unwrap()
}

/// A WebSocket session there and back: input, output, the exit code.
async fn session(client: &Client) {
    let pod = client.pod("default", "web-0");
    let command = ["sh", "-c", "echo hello; exit 3"];
    let output = pod.exec(command).output().await.unwrap();
    assert_eq!(output.stdout, b"hello\n");
    assert_eq!(output.status.code(), Some(3));
}

#[tokio::test]
async fn exec_goes_through_proxies() {
    let server = server().await;
    let http = servers::http_proxy(None, Some("user:planted-pw")).await;
    let socks = servers::socks_proxy(Some(("user", "planted-pw"))).await;
    for (scheme, proxy) in [("http", &http), ("socks5", &socks)] {
        let url = format!("{scheme}://user:planted-pw@{}", proxy.address);
        let config = server.config().with_proxy(url).unwrap();
        session(&Client::new(&config).unwrap()).await;
        assert_eq!(proxy.take(), [server.address().to_string()]);
    }
    server.shutdown().await;
}

#[tokio::test]
async fn exec_goes_through_the_sidecar() {
    let server = server().await;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("config");
    std::fs::write(&file, server.kubeconfig()).unwrap();
    let sidecar = async |flags: &[&str]| {
        let mut child = tokio::process::Command::new(env!("CARGO_BIN_EXE_kubewire"))
            .args(["proxy", "--port", "0", "--kubeconfig"])
            .arg(&file)
            .args(flags)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let line = lines.next_line().await.unwrap().unwrap();
        let address = line.strip_prefix("Starting to serve on ").unwrap();
        (child, format!("http://{address}"))
    };

    let (_open, url) = sidecar(&["--reject-paths", "^/nothing", "--api-prefix", "/k8s"]).await;
    session(&Client::from_url(&format!("{url}/k8s")).unwrap()).await;
    let outside = Client::from_url(&url).unwrap();
    assert_eq!(status(&outside, "/version").await, 404);

    let (_filtered, url) = sidecar(&["--reject-methods", "^DELETE$,^POST$"]).await;
    let client = Client::from_url(&url).unwrap();
    let exec = client.pod("default", "web-0").exec(["id"]).output().await;
    let error = exec.unwrap_err();
    assert_eq!(
        error.status().map(|status| status.code),
        Some(403),
        "{error}"
    );
    let delete = http::Request::delete("/x")
        .body(bytes::Bytes::new())
        .unwrap();
    assert_eq!(client.send(delete).await.unwrap().status(), 403);
    assert_ne!(
        status(&client, "/api/v1/namespaces/default/pods/web-0").await,
        403
    );

    // A page from elsewhere whose name leads here.
    let port = url.rsplit(':').next().unwrap();
    let config = Config::new(&format!("http://evil.test:{port}")).unwrap();
    let there = servers::http_proxy(None, None).await;
    let config = config
        .with_proxy(format!("http://{}", there.address))
        .unwrap();
    assert_eq!(
        status(&Client::new(&config).unwrap(), "/version").await,
        403
    );
    server.shutdown().await;
}

async fn status(client: &Client, path: &str) -> u16 {
    let request = http::Request::get(path).body(bytes::Bytes::new()).unwrap();
    client.send(request).await.unwrap().status().as_u16()
}

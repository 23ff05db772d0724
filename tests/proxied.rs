//! exec through proxies: the embedded API server behind an HTTP and a SOCKS5 proxy.

#![cfg(unix)]
#![allow(clippy::unwrap_used)]

#[path = "common/servers.rs"]
#[allow(dead_code, reason = "each test uses its part")]
mod servers;

use kubewire::{Client, testing::ApiServer};

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

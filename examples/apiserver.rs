//! An API server to point any client at: `cargo run --example apiserver -- --write-kubeconfig F`,
//! and then `kubectl --kubeconfig F get all`. It serves until it is stopped.

#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::{error::Error, path::PathBuf};

use kubewire::{
    Resource,
    testing::{ApiServer, RestartPolicy},
};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args_os().skip(1);
    let kubeconfig = match (arguments.next(), arguments.next()) {
        (Some(flag), Some(file)) if flag == "--write-kubeconfig" => Some(PathBuf::from(file)),
        (None, None) => None,
        _ => return Err("usage: apiserver [--write-kubeconfig FILE]".into()),
    };
    let counter = "n=0; while :; do echo line $n; n=$((n + 1)); sleep 1; done";
    let server = ApiServer::builder()
        .pod("default", "demo", |pod| {
            pod.label("app", "demo")
                .restart_policy(RestartPolicy::Always)
                .container("main", ["sh", "-c", counter])
                .container_with("shell", ["cat"], |shell| shell.stdin().tty())
        })
        .pod("default", "web", |pod| {
            pod.label("app", "web")
                .container("main", ["sleep", "infinity"])
                .port_with(80, greet)
        })
        .start()
        .await?;
    server.put(
        &Resource::namespaced("apps", "v1", "deployments"),
        json!({
            "kind": "Deployment",
            "metadata": {"name": "web", "namespace": "default", "labels": {"app": "web"}},
            "spec": {
                "replicas": 1,
                "selector": {"matchLabels": {"app": "web"}},
                "template": {
                    "metadata": {"labels": {"app": "web"}},
                    "spec": {"containers": [{"name": "main", "image": "localhost/none"}]},
                },
            },
        }),
    );
    match &kubeconfig {
        Some(file) => std::fs::write(file, server.kubeconfig())?,
        None => print!("{}", server.kubeconfig()),
    }
    eprintln!("serving {}", server.url());
    tokio::signal::ctrl_c().await?;
    server.shutdown().await;
    Ok(())
}

/// Answers one request over HTTP.
async fn greet(mut connection: DuplexStream) {
    let mut head: Vec<u8> = Vec::new();
    let mut buffer = [0; 1024];
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        match connection.read(&mut buffer).await {
            Ok(read @ 1..) if head.len() < 1 << 16 => head.extend(&buffer[..read]),
            _ => return,
        }
    }
    let answer = "HTTP/1.1 200 OK\r\ncontent-length: 6\r\nconnection: close\r\n\r\nhello\n";
    // A client that has left is its own business.
    let _ = connection.write_all(answer.as_bytes()).await;
    let _ = connection.shutdown().await;
}

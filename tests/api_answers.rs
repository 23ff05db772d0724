//! What the embedded server does besides objects and streams: proxies, compression, OpenAPI, and
//! the refusal of what it does not do.

#![cfg(all(unix, feature = "testing"))]
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::{io::Read as _, time::Duration};

use flate2::read::{GzDecoder, MultiGzDecoder};
use kubewire::{Resource, testing::ApiServer};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream},
    net::TcpStream,
};

const PODS: &str = "/api/v1/namespaces/default/pods";
const MAPS: &str = "/api/v1/namespaces/default/configmaps";

/// An answer: its head in lower case, and its body.
async fn ask(server: &ApiServer, request: &str, headers: &str) -> (String, Vec<u8>) {
    let work = async {
        let mut stream = TcpStream::connect(server.address()).await.unwrap();
        let head = format!("{request} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{headers}\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        answer
    };
    let answer = tokio::time::timeout(Duration::from_secs(120), work).await;
    let answer = answer.expect("it hangs");
    let at = answer
        .windows(4)
        .position(|end| end == b"\r\n\r\n")
        .unwrap();
    let head = String::from_utf8_lossy(&answer[..at]).to_lowercase();
    let mut rest = &answer[at + 4..];
    if !head.contains("transfer-encoding: chunked") {
        return (head, rest.to_vec());
    }
    let mut body = Vec::new();
    while let Some(at) = rest.windows(2).position(|end| end == b"\r\n") {
        let size = usize::from_str_radix(std::str::from_utf8(&rest[..at]).unwrap(), 16).unwrap();
        body.extend(&rest[at + 2..at + 2 + size]);
        rest = &rest[at + 2 + size + 2..];
    }
    (head, body)
}

fn code(head: &str) -> u16 {
    head.split(' ').nth(1).unwrap().parse().unwrap()
}

#[track_caller]
fn says((head, body): &(String, Vec<u8>), wanted: u16, text: &str) {
    let body = String::from_utf8_lossy(body);
    assert_eq!(code(head), wanted, "{head}\n{body}");
    assert!(body.contains(text), "{body}");
}

/// A web server that says what it was asked, in parts.
async fn web(mut connection: DuplexStream) {
    let mut request = Vec::new();
    while !request.windows(4).any(|end| end == b"\r\n\r\n") {
        if connection.read_buf(&mut request).await.unwrap_or(0) == 0 {
            return;
        }
    }
    let text = String::from_utf8_lossy(&request).to_lowercase();
    let line = text.lines().next().unwrap_or_default().to_owned();
    let has_token = text.contains("authorization");
    let head = "HTTP/1.1 203 Odd\r\nx-odd: yes\r\nconnection: x-hop\r\nx-hop: 1\r\n\
                transfer-encoding: chunked\r\n\r\n";
    for part in [
        head.to_owned(),
        format!("{:x}\r\n{line}\r\n", line.len()),
        format!("5\r\n{has_token}\r\n0\r\n\r\n"),
    ] {
        let part = part.replace("5\r\ntrue", "4\r\ntrue");
        let _ = connection.write_all(part.as_bytes()).await;
    }
    let _ = connection.shutdown().await;
}

/// Another protocol, which says all louder.
async fn louder(mut connection: DuplexStream) {
    let mut request = Vec::new();
    while !request.windows(4).any(|end| end == b"\r\n\r\n") {
        if connection.read_buf(&mut request).await.unwrap_or(0) == 0 {
            return;
        }
    }
    let head = String::from_utf8_lossy(&request).to_lowercase();
    let answer = match head.contains("upgrade: louder") && head.contains("connection: upgrade") {
        true => "101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: louder",
        false => "400 Bad Request",
    };
    let answer = format!("HTTP/1.1 {answer}\r\n\r\n");
    let _ = connection.write_all(answer.as_bytes()).await;
    let mut words = [0; 5];
    while connection.read_exact(&mut words).await.is_ok() {
        words.make_ascii_uppercase();
        let _ = connection.write_all(&words).await;
    }
}

#[tokio::test]
async fn a_proxied_connection_can_be_upgraded() {
    let builder = ApiServer::builder().plain().pod("default", "web", |pod| {
        pod.container("main", ["sleep", "infinity"])
            .port_with(8080, louder)
    });
    let server = builder.start().await.unwrap();
    let work = async {
        let mut stream = TcpStream::connect(server.address()).await.unwrap();
        let head = format!(
            "GET {PODS}/web:8080/proxy/a HTTP/1.1\r\nhost: x\r\nconnection: Upgrade\r\nupgrade: \
             louder\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            assert_ne!(stream.read_buf(&mut answer).await.unwrap(), 0);
        }
        assert!(
            answer.starts_with(b"HTTP/1.1 101"),
            "{}",
            answer.escape_ascii()
        );
        for _ in 0..3 {
            stream.write_all(b"hello").await.unwrap();
            let mut words = [0; 5];
            stream.read_exact(&mut words).await.unwrap();
            assert_eq!(&words, b"HELLO");
        }
    };
    tokio::time::timeout(Duration::from_secs(120), work)
        .await
        .expect("it hangs");
}

#[tokio::test]
async fn what_is_behind_a_pod_or_a_service_answers_through_the_proxy() {
    let builder = ApiServer::builder().plain().pod("default", "web", |pod| {
        pod.label("app", "web")
            .container("main", ["sleep", "infinity"])
            .port_with(8080, web)
    });
    let server = builder.start().await.unwrap();
    server.put(
        &Resource::namespaced("", "v1", "services"),
        json!({
            "kind": "Service", "metadata": {"name": "front", "namespace": "default"},
            "spec": {
                "selector": {"app": "web"},
                "ports": [{"name": "http", "port": 80, "targetPort": 8080}],
            },
        }),
    );
    let services = "/api/v1/namespaces/default/services";
    for path in [
        format!("{PODS}/web:8080/proxy/a%20b/c?d=e"),
        format!("{PODS}/http:web:8080/proxy/a%20b/c?d=e"),
        format!("{services}/front/proxy/a%20b/c?d=e"),
        format!("{services}/front:http/proxy/a%20b/c?d=e"),
        format!("{services}/front:80/proxy/a%20b/c?d=e"),
    ] {
        let (head, body) = ask(&server, &format!("DELETE {path}"), "").await;
        assert_eq!(code(&head), 203, "{path}: {head}");
        assert!(
            head.contains("x-odd: yes") && !head.contains("x-hop"),
            "{head}"
        );
        assert_eq!(body, b"delete /a%20b/c?d=e http/1.1false", "{path}");
    }
    let moved = ask(&server, &format!("GET {PODS}/web:8080/proxy?x=y"), "").await;
    assert_eq!(code(&moved.0), 301);
    assert!(
        moved
            .0
            .contains(&format!("location: {PODS}/web:8080/proxy/?x=y")),
        "{}",
        moved.0
    );
    for (path, wanted, text) in [
        (
            format!("{PODS}/nothing:80/proxy/"),
            404,
            "pods \\\"nothing\\\" not found",
        ),
        (
            format!("{PODS}/web:1/proxy/"),
            503,
            "error trying to reach service: ",
        ),
        (format!("{services}/nothing/proxy/"), 404, "not found"),
        (
            format!("{services}/front:81/proxy/"),
            503,
            "no service port",
        ),
        (
            format!("{PODS}/https:web:8080/proxy/"),
            501,
            "not implemented by the embedded server",
        ),
        (
            "/api/v1/nodes/embedded/proxy/".to_owned(),
            501,
            "not implemented by the embedded server",
        ),
    ] {
        says(
            &ask(&server, &format!("GET {path}"), "").await,
            wanted,
            text,
        );
    }
    server.shutdown().await;
}

#[tokio::test]
async fn large_lists_and_watches_are_compressed_for_who_accepts_it() {
    let builder = ApiServer::builder().plain().watch_compression(true);
    let server = builder.start().await.unwrap();
    let maps = Resource::namespaced("", "v1", "configmaps");
    let put = |name: &str, size: usize| {
        let metadata = json!({"name": name, "namespace": "default"});
        let data = json!({"text": "x".repeat(size)});
        server.put(
            &maps,
            json!({"kind": "ConfigMap", "metadata": metadata, "data": data}),
        );
    };
    let gzip = "accept-encoding: deflate, gzip\r\n";
    put("small", 1000);
    let (head, _) = ask(&server, &format!("GET {MAPS}"), gzip).await;
    assert!(!head.contains("content-encoding"), "{head}");
    put("large", 200_000);
    let (head, plain) = ask(&server, &format!("GET {MAPS}"), "").await;
    assert!(!head.contains("content-encoding"), "{head}");
    let (head, body) = ask(&server, &format!("GET {MAPS}"), gzip).await;
    assert!(head.contains("content-encoding: gzip"), "{head}");
    let mut text = Vec::new();
    GzDecoder::new(&body[..]).read_to_end(&mut text).unwrap();
    assert_eq!(text, plain);
    let (head, body) = ask(
        &server,
        &format!("GET {MAPS}?watch=true&timeoutSeconds=1"),
        gzip,
    )
    .await;
    assert!(head.contains("content-encoding: gzip"), "{head}");
    // One member an event: the first alone is one.
    let mut first = String::new();
    GzDecoder::new(&body[..])
        .read_to_string(&mut first)
        .unwrap();
    assert_eq!(first.lines().count(), 1);
    let mut all = String::new();
    MultiGzDecoder::new(&body[..])
        .read_to_string(&mut all)
        .unwrap();
    // The certificate authority of the namespace is the third.
    assert_eq!(all.lines().count(), 3);
    server.shutdown().await;
}

#[tokio::test]
async fn what_is_not_known_or_not_done_is_refused() {
    let builder = ApiServer::builder().plain();
    let server = builder.pod("default", "a", |pod| {
        pod.container("main", ["sleep", "infinity"])
    });
    let server = server.start().await.unwrap();
    let nowhere = "the server could not find the requested resource";
    let undone = "not implemented by the embedded server";
    for (request, wanted, text) in [
        ("GET /api/v1/things", 404, nowhere),
        ("GET /apis/apps/v1/things", 404, nowhere),
        ("GET /apis/nothing/v1/things", 404, "404 page not found"),
        (
            "GET /api/v1/namespaces/default/pods/a/nothing",
            404,
            nowhere,
        ),
        ("GET /api/v1/namespaces/default/nodes", 404, nowhere),
        // A cluster takes no notice of what a request does not have.
        (
            "GET /api/v1/namespaces/default/pods?labelselector=a&shardSelector=a",
            200,
            "PodList",
        ),
        (
            "GET /api/v1/namespaces/default/pods/a?watch=1",
            200,
            "\"kind\":\"Pod\"",
        ),
        (
            "GET /api/v1/watch/namespaces/default/pods/b?timeoutSeconds=1",
            200,
            "",
        ),
        ("GET /api/v1/componentstatuses", 501, undone),
        ("GET /metrics", 501, undone),
        ("GET /openid/v1/jwks", 501, undone),
        ("GET /nothing", 404, "404 page not found"),
    ] {
        says(&ask(&server, request, "").await, wanted, text);
    }
    let upgrade = "upgrade: websocket\r\nconnection: upgrade\r\nsec-websocket-version: 13\r\n\
                   sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    let made = json!({
        "kind": "Pod", "apiVersion": "v1", "metadata": {"name": "b"},
        "spec": {"containers": [{"name": "main", "image": "x"}]},
    });
    let body = made.to_string();
    let length = format!("content-length: {}\r\n\r\n{body}", body.len());
    let (head, _) = ask(&server, &format!("POST {PODS}"), &length).await;
    assert_eq!(code(&head), 201, "{head}");
    for (path, text) in [
        (
            "exec?command=true&stdout=true",
            "container not found (\"main\")",
        ),
        (
            "attach?stdout=true",
            "container main not found in pod b_default",
        ),
    ] {
        let answer = ask(&server, &format!("GET {PODS}/b/{path}"), upgrade).await;
        assert!(
            answer.0.contains("content-type: text/plain"),
            "{}",
            answer.0
        );
        says(&answer, 500, text);
    }
    let log = ask(&server, &format!("GET {PODS}/b/log"), "").await;
    says(&log, 400, "is waiting to start");
    server.shutdown().await;
}

#[tokio::test]
async fn schemas_are_those_of_the_types() {
    let server = ApiServer::builder().plain().start().await.unwrap();
    let (_, body) = ask(&server, "GET /openapi/v3/apis/apps/v1", "").await;
    let document: Value = serde_json::from_slice(&body).unwrap();
    let schemas = &document["components"]["schemas"];
    let deployment = &schemas["io.k8s.api.apps.v1.Deployment"];
    assert_eq!(
        deployment["x-kubernetes-group-version-kind"][0]["kind"],
        "Deployment"
    );
    let container = &schemas["io.k8s.api.core.v1.Container"];
    assert_eq!(container["properties"]["command"]["type"], "array");
    assert_eq!(container["required"], json!(["name"]));
    let ports = &container["properties"]["ports"];
    assert_eq!(
        ports["x-kubernetes-list-map-keys"],
        json!(["containerPort", "protocol"])
    );
    // Whatever is referred to is there.
    let text = String::from_utf8(body).unwrap();
    for part in text.split("\"#/components/schemas/").skip(1) {
        let name = part.split('"').next().unwrap();
        assert!(schemas[name].is_object(), "{name}");
    }
    let (_, body) = ask(&server, "GET /openapi/v2", "").await;
    let document: Value = serde_json::from_slice(&body).unwrap();
    let spec = &document["definitions"]["io.k8s.api.core.v1.Pod"]["properties"]["spec"];
    assert_eq!(spec["$ref"], "#/definitions/io.k8s.api.core.v1.PodSpec");
    server.shutdown().await;
}

//! What a refusal leaves out and the API server says if asked: in flow bare refusals, out comes
//! what is the matter.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use futures_util::SinkExt as _;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};

use super::*;

/// A server that refuses sessions so, at once or `in_stream`, and has the pod so. It answers one
/// request a connection.
async fn client(refusal: Value, pod: Value, in_stream: bool) -> Client {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let (refusal, pod) = (refusal.clone(), pod.clone());
            tokio::spawn(async move {
                let mut start = [0; 42];
                while socket.peek(&mut start).await.unwrap() < start.len() {
                    tokio::task::yield_now().await;
                }
                if in_stream && !start.ends_with(b"pods/web-0 ") {
                    return refuse_in_the_stream(socket, &refusal).await;
                }
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(socket.read_u8().await.unwrap());
                }
                let is_pod = head.starts_with(b"GET /api/v1/namespaces/default/pods/web-0 ");
                let (code, body) = match is_pod {
                    true => (json!(200), pod.to_string()),
                    false => (refusal["code"].clone(), refusal.to_string()),
                };
                let length = body.len();
                let answer = format!(
                    "HTTP/1.1 {code} x\r\nContent-Type: application/json\r\n\
                     Content-Length: {length}\r\nConnection: close\r\n\r\n{body}"
                );
                socket.write_all(answer.as_bytes()).await.unwrap();
                let _ = socket.shutdown().await;
            });
        }
    });
    Client::new(&Config::new(&url).unwrap()).unwrap()
}

/// What exec, attach and port-forward say.
async fn refusals(code: u16, message: &str, phase: &str, reason: &str) -> [String; 3] {
    let refusal = json!({
        "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code,
        "message": message, "reason": "x",
    });
    let pod = json!({
        "metadata": {"name": "web-0"}, "spec": {"containers": [{"name": "main"}]},
        "status": {"phase": phase, "reason": reason},
    });
    let client = client(refusal, pod, false).await;
    let pod = client.pod("default", "web-0");
    [
        soon(pod.exec("true").status()).await.unwrap_err(),
        soon(pod.attach().spawn()).await.unwrap_err(),
        soon(pod.port_forward().connect()).await.unwrap_err(),
    ]
    .map(|error| error.to_string())
}

#[tokio::test]
async fn a_refusal_without_words_names_the_right_that_is_missing() {
    let bare = "pods \"web-0\" is forbidden: ";
    let said = refusals(403, bare, "Running", "").await;
    for (text, resource) in said.iter().zip(["exec", "attach", "portforward"]) {
        let rule = format!(
            "{bare} (a Role needs the rule {{apiGroups: [\"\"], resources: [\"pods/{resource}\"], \
             verbs: [\"get\", \"create\"]}})"
        );
        assert!(text.ends_with(&rule), "{text}");
    }
}

#[tokio::test]
async fn that_the_pod_does_not_run_is_said() {
    for (code, message, phase, reason, why) in [
        (
            404,
            "container not found (\"main\")",
            "Succeeded",
            "",
            "Succeeded",
        ),
        (
            500,
            "pod not found (\"web-0_default\")",
            "Failed",
            "Evicted",
            "Failed, Evicted",
        ),
        (
            400,
            "pod web-0 does not have a host assigned",
            "Pending",
            "",
            "Pending",
        ),
    ] {
        for text in refusals(code, message, phase, reason).await {
            let expected = format!("{message} (the pod is not running: {why})");
            assert!(text.ends_with(&expected), "{text}");
        }
    }
    for text in refusals(404, "container not found (\"main\")", "Running", "").await {
        assert!(text.ends_with("container not found (\"main\")"), "{text}");
    }
}

/// As an API server answers that has a kubelet's refusal only when it has accepted the session.
async fn refuse_in_the_stream(socket: TcpStream, status: &Value) {
    use tokio_tungstenite::tungstenite::handshake::server::{Request, Response};

    #[expect(clippy::result_large_err, reason = "its type is tungstenite's")]
    let choose = |_: &Request, mut response: Response| {
        let protocol = "v5.channel.k8s.io".parse().unwrap();
        response
            .headers_mut()
            .insert("sec-websocket-protocol", protocol);
        Ok(response)
    };
    let mut websocket = tokio_tungstenite::accept_hdr_async(socket, choose)
        .await
        .unwrap();
    let message = [b"\x03", status.to_string().as_bytes()].concat();
    let _ = websocket.send(message.into()).await;
    let _ = websocket.close(None).await;
}

#[tokio::test]
async fn that_the_pod_does_not_run_is_said_of_what_the_stream_says_too() {
    let message = "container not found (\"main\")";
    let refusal =
        json!({"status": "Failure", "code": 500, "message": message, "reason": "InternalError"});
    let pod = json!({
        "metadata": {"name": "web-0"}, "spec": {"containers": [{"name": "main"}]},
        "status": {"phase": "Succeeded"},
    });
    let client = client(refusal, pod, true).await;
    let pod = client.pod("default", "web-0");
    let exec = soon(pod.exec("true").status()).await.unwrap_err();
    let mut attached = soon(pod.attach().spawn()).await.unwrap();
    let attach = soon(attached.wait()).await.unwrap_err();
    for error in [exec, attach] {
        let expected = format!("{message} (the pod is not running: Succeeded)");
        assert!(error.to_string().ends_with(&expected), "{error}");
    }
}

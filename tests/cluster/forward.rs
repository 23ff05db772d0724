//! port-forward: to a pod, a service and a workload, and to the next pod when one has gone.
//!
//! There may be no controllers in the cluster: the pods of a workload are made here, with its
//! labels.

use std::{
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use kubewire::{
    Client, Error,
    port_forward::{ForwardPort, ForwardProtocol, Tunnel},
};
use serde_json::json;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinSet,
    time::timeout,
};

use super::{NAMESPACE, create_pod, delete_pod, kubectl, makes_pods, pod, run};

static MADE: AtomicU32 = AtomicU32::new(0);

/// Makes a pod that says its name, at a port which is called `web`; the name and the port.
fn serving(app: &str) -> (String, u16) {
    let number = MADE.fetch_add(1, Ordering::Relaxed);
    // Pods may share the node's network, and ports that a killed one had take a while to be free.
    let port = 20_000 + (std::process::id() % 1000 * 10 + number) as u16;
    let script = format!(
        "mkdir -p /tmp/{port}; echo \"I am {app} {port}\" > /tmp/{port}/index.html; \
         exec httpd -f -p {port} -h /tmp/{port}"
    );
    let mut pod = pod(&["sh".into(), "-c".into(), script], false);
    pod["metadata"]["labels"]["app"] = app.into();
    pod["spec"]["containers"][0]["ports"] = json!([{"name": "web", "containerPort": port}]);
    (create_pod(&pod), port)
}

fn create(object: serde_json::Value) {
    kubectl(&["create", "-f", "-"], &object.to_string());
}

async fn get(mut stream: impl AsyncRead + AsyncWrite + Unpin) -> std::io::Result<String> {
    let talk = async {
        stream.write_all(b"GET / HTTP/1.0\r\n\r\n").await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok(answer)
    };
    timeout(Duration::from_secs(10), talk).await?
}

async fn open(tunnel: &Tunnel, port: impl Into<ForwardPort>) -> String {
    get(tunnel.open(port).await.expect("it opens"))
        .await
        .expect("it answers")
}

async fn tunnel(target: &str) -> Tunnel {
    let client = Client::from_env().await.expect("KUBECONFIG");
    let forward = client.port_forward(NAMESPACE, target);
    forward.connect().await.expect("it connects")
}

#[tokio::test]
#[ignore = "needs a cluster"]
async fn a_refused_connection_fails_alone() {
    if !makes_pods() {
        return;
    }
    let app = format!("{}-refused", run());
    let (name, port) = serving(&app);
    let tunnel = tunnel(&format!("pod/{name}")).await;
    let before = tunnel.open(port).await.expect("it opens");
    let mut refused = tunnel.open(1).await.expect("it opens");
    let error = refused.read_u8().await.expect_err("nobody listens");
    let Some(Error::Api(error)) = Error::of_io(&error) else {
        panic!("{error:?}");
    };
    let text = &error.status.message;
    assert!(text.contains("connection refused"), "{text}");
    let expected = format!("I am {app} {port}\n");
    assert!(get(before).await.expect("it answers").ends_with(&expected));
    for port in [port.into(), ForwardPort::from("web")] {
        assert!(open(&tunnel, port).await.ends_with(&expected));
    }
}

#[tokio::test]
#[ignore = "needs a cluster"]
async fn a_dead_port_that_is_written_to_hangs_nothing() {
    if !makes_pods() {
        return;
    }
    let app = format!("{}-dead", run());
    let (name, _) = serving(&app);
    let client = Client::from_env().await.expect("KUBECONFIG");
    for protocol in [ForwardProtocol::Spdy, ForwardProtocol::V4] {
        let forward = client.port_forward(NAMESPACE, format!("pod/{name}"));
        let tunnel = forward.subprotocols([protocol]).connect().await;
        let tunnel = tunnel.expect("it connects");
        let mut all = JoinSet::new();
        for number in 0..48 {
            let tunnel = tunnel.clone();
            all.spawn(async move {
                if number % 6 > 0 {
                    assert!(open(&tunnel, "web").await.contains("I am"));
                    return;
                }
                let dead = async {
                    let mut dead = tunnel.open(1).await.expect("it opens");
                    let _ = dead.write_all(b"GET / HTTP/1.0\r\n\r\n").await;
                    dead.read_u8().await.expect_err("nobody listens")
                };
                // A server that takes no stream on is given 30 s.
                let refused = timeout(Duration::from_secs(45), dead).await;
                refused.expect("it is refused in time");
            });
        }
        while let Some(done) = all.join_next().await {
            done.expect("none hangs");
        }
    }
}

#[tokio::test]
#[ignore = "needs a cluster"]
async fn a_service_leads_to_its_pod_by_name_and_number_and_to_the_next() {
    if !makes_pods() {
        return;
    }
    let app = format!("{}-service", run());
    let (first, port) = serving(&app);
    create(json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": app, "labels": {"run": run()}},
        "spec": {
            "selector": {"app": app},
            "ports": [{"name": "http", "port": 80, "targetPort": "web"}],
        },
    }));
    let tunnel = tunnel(&format!("svc/{app}")).await;
    let expected = format!("I am {app} {port}\n");
    assert!(open(&tunnel, "http").await.ends_with(&expected));
    assert!(open(&tunnel, 80).await.ends_with(&expected));
    let missing = tunnel
        .open(port)
        .await
        .expect_err("the service has 80 only");
    assert!(matches!(missing, Error::Caller(_)), "{missing:?}");

    let listener = tunnel.listen("127.0.0.1:0", 80).await.expect("it listens");
    let local = listener.local_addrs()[0];
    let through = async || get(TcpStream::connect(local).await.expect("it accepts")).await;
    assert!(through().await.expect("it answers").ends_with(&expected));
    delete_pod(&first);
    let (_, next) = serving(&app);
    let expected = format!("I am {app} {next}\n");
    let mut answers = Vec::new();
    // A pod that was killed may answer for a moment longer.
    for _ in 0..20 {
        answers.push(through().await);
        if matches!(answers.last(), Some(Ok(answer)) if answer.ends_with(&expected)) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    panic!("{expected:?} is not among {answers:?}");
}

#[tokio::test]
#[ignore = "needs a cluster"]
async fn a_workload_leads_to_its_pods() {
    if !makes_pods() {
        return;
    }
    let app = format!("{}-workload", run());
    let (_, port) = serving(&app);
    let container = json!({"name": "main", "image": "docker.io/local/busybox:1"});
    create(json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": app, "labels": {"run": run()}},
        "spec": {
            "replicas": 0,
            "selector": {"matchLabels": {"app": app}},
            "template": {
                "metadata": {"labels": {"app": app}},
                "spec": {"containers": [container]},
            },
        },
    }));
    let tunnel = tunnel(&format!("deploy/{app}")).await;
    let expected = format!("I am {app} {port}\n");
    assert!(open(&tunnel, "web").await.ends_with(&expected));
    assert!(open(&tunnel, port).await.ends_with(&expected));
}

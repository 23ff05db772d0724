//! port-forward to services and workloads: the embedded server forwards, and before it stands
//! something that has the objects which that server does not.

#![cfg(all(unix, feature = "client", feature = "testing"))]
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::{
    collections::BTreeMap,
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex},
    time::Duration,
};

use kubewire::{Client, Error, error::CallerError, limits, testing::ApiServer};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

type Result<T = (), E = Box<dyn std::error::Error>> = std::result::Result<T, E>;

/// Objects by path.
type Objects = Arc<Mutex<BTreeMap<String, Value>>>;

const SERVICE: &str = "/api/v1/namespaces/default/services/web";
const DEPLOYMENT: &str = "/apis/apps/v1/namespaces/default/deployments/web";
const PODS: &str = "/api/v1/namespaces/default/pods";

struct Fixture {
    client: Client,
    objects: Objects,
    _server: ApiServer,
}

impl Fixture {
    async fn new() -> Result<Self> {
        let sleep = ["sleep", "infinity"];
        let server = ApiServer::builder()
            .plain()
            .pod("default", "web-0", |pod| pod.container("main", sleep))
            .pod("default", "web-1", |pod| pod.container("main", sleep))
            .start()
            .await?;
        let objects = Objects::default();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let url = format!("http://{}", listener.local_addr()?);
        let (behind, known) = (server.address(), objects.clone());
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                tokio::spawn(answer(socket, behind, known.clone()));
            }
        });
        Ok(Self {
            client: Client::from_url(&url)?,
            objects,
            _server: server,
        })
    }

    fn put(&self, path: &str, object: Value) {
        self.objects.lock().unwrap().insert(path.into(), object);
    }

    /// Pods that run, with a port named `main`.
    fn pods(&self, names: &[&str], port: u16) {
        let pods = names.iter().map(|name| {
            json!({
                "metadata": {"name": name, "uid": format!("uid of {name}")},
                "spec": {"containers": [
                    {"name": "main", "ports": [{"name": "main", "containerPort": port}]},
                ]},
                "status": {
                    "phase": "Running",
                    "conditions": [{"type": "Ready", "status": "True"}],
                },
            })
        });
        let pods: Vec<_> = pods.collect();
        let mut objects = self.objects.lock().unwrap();
        objects.retain(|path, _| !path.starts_with(PODS));
        for pod in &pods {
            let path = format!("{PODS}/{}", pod["metadata"]["name"].as_str().unwrap());
            objects.insert(path, pod.clone());
        }
        let path = format!("{PODS}?labelSelector=app%3Dweb&limit=500");
        objects.insert(path, json!({"kind": "PodList", "items": pods}));
    }
}

/// Answers from the objects; what is no request for one goes to the server behind.
async fn answer(mut socket: TcpStream, behind: SocketAddr, objects: Objects) -> io::Result<()> {
    let mut head = Vec::new();
    loop {
        while !head.ends_with(b"\r\n\r\n") {
            head.push(socket.read_u8().await?);
        }
        let text = String::from_utf8_lossy(&head);
        let path = text.split(' ').nth(1).unwrap_or_default().to_owned();
        if path.contains("/portforward") {
            let mut behind = TcpStream::connect(behind).await?;
            behind.write_all(&head).await?;
            tokio::io::copy_bidirectional(&mut socket, &mut behind).await?;
            return Ok(());
        }
        let (code, body) = match objects.lock().unwrap().get(&path) {
            Some(object) => ("200 OK", object.to_string()),
            None => (
                "404 Not Found",
                json!({"kind": "Status", "code": 404, "reason": "NotFound", "message": path})
                    .to_string(),
            ),
        };
        let length = body.len();
        let answer = format!(
            "HTTP/1.1 {code}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
        );
        socket.write_all(answer.as_bytes()).await?;
        head.clear();
    }
}

/// An application that sends back what it gets; its port.
async fn echo() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut read, mut write) = socket.split();
                tokio::io::copy(&mut read, &mut write).await
            });
        }
    });
    port
}

async fn echoes(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) {
    stream.write_all(b"hello").await.unwrap();
    let mut answer = [0; 5];
    let read = stream.read_exact(&mut answer);
    tokio::time::timeout(Duration::from_secs(300), read)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(&answer, b"hello");
}

#[tokio::test]
async fn a_service_leads_to_its_pod_and_to_another_when_that_has_gone() -> Result {
    let fixture = Fixture::new().await?;
    let port = echo().await;
    fixture.put(
        SERVICE,
        json!({"spec": {"clusterIP": "10.0.0.1", "selector": {"app": "web"}, "ports": [
            {"name": "http", "port": 80, "targetPort": "main"},
            {"name": "direct", "port": 81, "targetPort": port},
        ]}}),
    );
    fixture.pods(&["web-0"], port);
    let forward = fixture.client.port_forward("default", "svc/web");
    let tunnel = forward.connect().await?;
    assert_eq!(tunnel.pod().await.name(), "web-0");
    let resolved = tunnel.resolve("http").await?;
    assert_eq!((resolved.target, resolved.pod), (80, port));
    let mut first = tunnel.open("http").await?;
    echoes(&mut first).await;
    echoes(&mut tunnel.open(80).await?).await;
    echoes(&mut tunnel.open(81).await?).await;
    for wrong in ["main", "82"] {
        let error = tunnel.open(wrong).await.unwrap_err();
        assert!(error.to_string().contains(wrong), "{error}");
    }

    let moved = echo().await;
    fixture.pods(&["web-1"], moved);
    tokio::time::sleep(limits::FORWARD_FRESH).await;
    echoes(&mut tunnel.open("http").await?).await;
    assert_eq!(tunnel.pod().await.name(), "web-1");
    assert_eq!(tunnel.resolve(80).await?.pod, moved);
    // What is open is not touched: the pod may still finish it.
    echoes(&mut first).await;

    fixture.pods(&[], moved);
    tokio::time::sleep(limits::FORWARD_FRESH).await;
    let error = tunnel.try_open("http").await.unwrap_err();
    assert!(
        matches!(error, Error::Caller(CallerError::NoPod { .. })),
        "{error:?}"
    );
    Ok(())
}

#[tokio::test]
async fn a_listener_and_an_open_wait_for_the_next_pod() -> Result {
    let fixture = Fixture::new().await?;
    let port = echo().await;
    fixture.put(
        DEPLOYMENT,
        json!({"spec": {"selector": {"matchLabels": {"app": "web"}}}}),
    );
    fixture.pods(&["web-0"], port);
    let forward = fixture.client.port_forward("default", "deploy/web");
    let tunnel = forward.connect().await?;
    let listener = tunnel.listen("127.0.0.1:0", "main").await?;
    let local = listener.local_addrs()[0];
    echoes(&mut TcpStream::connect(local).await?).await;
    fixture.pods(&[], port);
    tokio::time::sleep(limits::FORWARD_FRESH).await;
    let mut waiting = TcpStream::connect(local).await?;
    let opening = tokio::spawn({
        let tunnel = tunnel.clone();
        async move { tunnel.open("main").await }
    });
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!opening.is_finished());
    fixture.pods(&["web-1"], port);
    echoes(&mut opening.await??).await;
    echoes(&mut waiting).await;
    assert_eq!(tunnel.pod().await.name(), "web-1");
    Ok(())
}

#[tokio::test]
async fn a_pod_s_ports_have_names_and_a_service_needs_a_selector() -> Result {
    let fixture = Fixture::new().await?;
    let port = echo().await;
    fixture.pods(&["web-0"], port);
    let tunnel = fixture.client.pod("default", "web-0").port_forward();
    let tunnel = tunnel.connect().await?;
    echoes(&mut tunnel.open("main").await?).await;
    let error = tunnel.open("http").await.unwrap_err();
    assert!(matches!(error, Error::Caller(_)), "{error:?}");

    fixture.put(SERVICE, json!({"spec": {"ports": [{"port": 80}]}}));
    let forward = fixture.client.port_forward("default", "svc/web");
    let error = forward.connect().await.unwrap_err();
    assert!(error.to_string().contains("selector"), "{error}");
    let forward = fixture.client.port_forward("default", "svc/none");
    let error = forward.connect().await.unwrap_err();
    assert_eq!(error.status().unwrap().code, 404);
    // What is no target is an error where it is used.
    for target in ["configmap/web", "svc/"] {
        let forward = fixture.client.port_forward("default", target);
        let error = forward.connect().await.unwrap_err();
        assert!(matches!(error, Error::Caller(_)), "{error:?}");
    }
    Ok(())
}

//! Code of the caller's that panics in a task of the library's: whoever waits is told who panicked,
//! and neither waits for ever nor takes what there is for the whole.

#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

#[path = "common/dialler.rs"]
mod dialler;
#[path = "common/soon.rs"]
mod soon;

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    task::{Context, Poll},
    time::Duration,
};

use dialler::{WORDS, dialler_that_panics};
use k8s_openapi::api::core::v1::ConfigMap;
use kubewire::{
    Client, Config, Error, KeepaliveConfig, error::CallerError, exec::AllOutput,
    port_forward::ListenEvent, request::Kind as _, testing::ApiServer, watch::MirrorUpdate,
    wire::watch::Object,
};
use serde_json::{Value, json};
use soon::soon;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
};

async fn start() -> (ApiServer, Config) {
    let server = ApiServer::builder()
        .pod("default", "web-0", |pod| {
            pod.container("main", ["sleep", "600"])
        })
        .pod("default", "web-1", |pod| {
            pod.container("main", ["sleep", "600"])
        })
        .plain()
        .start()
        .await
        .unwrap();
    let config = server.config();
    (server, config)
}

fn says_who(error: &Error, who: &str) {
    assert!(
        matches!(error, Error::Caller(CallerError::Panicked { .. })),
        "{error:?}"
    );
    let text = error.to_string();
    assert!(text.contains(who) && text.contains("panicked"), "{text}");
}

#[tokio::test]
async fn one_pod_s_panic_is_its_end_among_those_of_many() {
    let (_server, config) = start().await;
    let client = Client::new(&dialler_that_panics(config, &[0])).unwrap();
    let all = client
        .exec_all("default", ["true"])
        .pods(["web-0", "web-1"]);
    let mut all = soon(all.max_concurrent(1).spawn()).await.unwrap();
    let (mut failed, mut succeeded) = (0, 0);
    while let Some(event) = soon(all.next()).await {
        match event.output {
            AllOutput::Ended(Err(error)) => {
                says_who(&error, &format!("the exec in the pod {}", event.pod));
                assert!(error.to_string().ends_with(WORDS), "{error}");
                failed += 1;
            }
            AllOutput::Ended(Ok(status)) => succeeded += usize::from(status.success()),
            _ => {}
        }
    }
    assert_eq!((failed, succeeded), (1, 1));
}

#[tokio::test]
async fn a_forwarded_connection_whose_dialler_panics_is_reset_and_told() {
    let (_server, config) = start().await;
    let client = Client::new(&dialler_that_panics(config, &[1])).unwrap();
    let pod = client.pod("default", "web-0");
    let forward = pod.port_forward().websockets(2);
    let tunnel = soon(forward.connect()).await.unwrap();
    let web = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = web.local_addr().unwrap().port();
    let mut listener = tunnel.listen("127.0.0.1:0", port).await.unwrap();
    let local = listener.local_addrs()[0];
    // As long as this one is there, the next takes another WebSocket.
    let first = TcpStream::connect(local).await.unwrap();
    let accepted = soon(web.accept()).await.unwrap();
    // It may end as soon as it is connected.
    let second = async { TcpStream::connect(local).await?.read(&mut [0]).await };
    let ended = soon(second).await;
    assert_eq!(ended.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    let error = loop {
        if let ListenEvent::Failed { error, .. } = soon(listener.event()).await {
            break error;
        }
    };
    says_who(&error, "the forwarding of 127.0.0.1:");
    assert_eq!((listener.stats().open, listener.stats().failed), (1, 1));
    drop((first, accepted));
}

#[tokio::test]
async fn an_object_whose_type_panics_is_one_that_cannot_be_read() {
    let (server, config) = start().await;
    let client = Client::new(&config).unwrap();
    let put = |name: &str| {
        let metadata = json!({"name": name, "namespace": "default"});
        let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata});
        server.put(&ConfigMap::resource(), map);
    };
    put("bad");
    put("good");
    let watch = client.watch(ConfigMap::resource()).namespace("default");
    let keep = |object: &Object| {
        let value = object.decode::<Value>()?;
        assert!(value["metadata"]["name"] != "bad", "{WORDS}");
        Ok(value)
    };
    let reader = watch.mirror(keep).start();
    soon(reader.wait_until_ready()).await.unwrap();
    assert!(reader.get("good").is_some() && reader.get("bad").is_none());
    let mut changes = reader.changes();
    put("later");
    let mut unreadable = 0;
    loop {
        match soon(changes.next()).await.expect("it goes on").unwrap() {
            MirrorUpdate::Unreadable { error, .. } => {
                assert!(error.to_string().contains("its type panicked"), "{error}");
                unreadable += 1;
            }
            MirrorUpdate::Added(key, _) if key.name() == "later" => break,
            _ => {}
        }
    }
    assert!(unreadable > 0);
}

/// A stream whose next read panics once it is armed.
struct Trap {
    stream: TcpStream,
    armed: Arc<AtomicBool>,
    sprung: Arc<AtomicBool>,
}

impl AsyncRead for Trap {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.armed.swap(false, SeqCst) {
            self.sprung.store(true, SeqCst);
            panic!("{WORDS}");
        }
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Trap {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[tokio::test]
async fn a_panic_in_the_task_of_a_session_ends_the_session() {
    let (_server, config) = start().await;
    let (armed, sprung) = (Arc::<AtomicBool>::default(), Arc::<AtomicBool>::default());
    let (arms, springs) = (armed.clone(), sprung.clone());
    let config = config.with_dialer(move |host, port| {
        let (armed, sprung) = (arms.clone(), springs.clone());
        async move {
            let stream = TcpStream::connect((host, port)).await?;
            Ok(Trap {
                stream,
                armed,
                sprung,
            })
        }
    });
    let client = Client::new(&config).unwrap();
    let pod = client.pod("default", "web-0");
    let exec = pod.exec(["sleep", "600"]).keepalive(KeepaliveConfig {
        interval: Duration::from_millis(200),
        ..Default::default()
    });
    let mut child = soon(exec.spawn()).await.unwrap();
    // Nobody polls the session but its task.
    armed.store(true, SeqCst);
    soon(async {
        while !sprung.load(SeqCst) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    let error = soon(child.wait()).await.unwrap_err();
    says_who(&error, "what the session runs over");
}

#[tokio::test]
async fn a_file_s_copy_whose_dialler_panics_ends_the_copy() {
    let bin = tempfile::tempdir().unwrap();
    // Without `tar` each file has a task of its own, on its way and when it is read back.
    for program in ["sh", "cat", "sleep"] {
        let here = std::path::Path::new("/bin").join(program);
        std::os::unix::fs::symlink(here, bin.path().join(program)).unwrap();
    }
    let path = bin.path().to_str().unwrap();
    let server = ApiServer::builder()
        .pod("default", "web-0", |pod| {
            pod.container_with("main", ["sleep", "600"], |c| c.env("PATH", path))
        })
        .plain()
        .start()
        .await
        .unwrap();
    let directory = tempfile::tempdir().unwrap();
    let [here, there] = ["here", "there"].map(|name| directory.path().join(name));
    std::fs::write(&here, "contents").unwrap();
    // What looks for programs is the first call; then come the file, its attributes, digests that
    // the container cannot make, and the file once more.
    for (at, is_there) in [(&[1], false), (&[4], true)] {
        let client = Client::new(&dialler_that_panics(server.config(), at)).unwrap();
        let pod = client.pod("default", "web-0");
        let copy = pod.copy_to(&here, there.to_str().unwrap());
        says_who(&soon(copy.run()).await.unwrap_err(), "a task of the copy");
        assert_eq!(there.exists(), is_there);
    }
}

//! Code of the caller's that panics in a task of the library's: whoever waits is told who panicked,
//! and neither waits for ever nor takes what there is for the whole.

#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

#[path = "common/dialler.rs"]
mod dialler;
#[path = "common/soon.rs"]
mod soon;

use std::{
    future::poll_fn,
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
use futures_core::Stream as _;
use k8s_openapi::api::core::v1::ConfigMap;
use kubewire::{
    AnyWebSocket, Client, Config, Error, KeepaliveConfig, Role,
    error::CallerError,
    exec::{AllOutput, Child, Stdio, Streams, Subprotocol},
    port_forward::ListenEvent,
    request::Kind as _,
    testing::ApiServer,
    watch::MirrorUpdate,
    wire::watch::Object,
};
use serde_json::{Value, json};
use soon::soon;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf, duplex},
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

/// What a stream does wrong once it is armed.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Wrong {
    Read,
    Write,
    Flush,
    Drop,
    /// It says that it has written more than it was given.
    TooMuch,
}

struct Trap<S> {
    stream: S,
    wrong: Wrong,
    armed: Arc<AtomicBool>,
    sprung: Arc<AtomicBool>,
}

impl<S> Trap<S> {
    fn springs(&self, wrong: Wrong) -> bool {
        let springs = self.wrong == wrong && self.armed.load(SeqCst);
        self.sprung.fetch_or(springs, SeqCst);
        springs
    }

    fn spring(&self, wrong: Wrong) {
        assert!(!self.springs(wrong), "{WORDS}");
    }
}

impl<S> Drop for Trap<S> {
    fn drop(&mut self) {
        self.spring(Wrong::Drop);
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Trap<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.spring(Wrong::Read);
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Trap<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.spring(Wrong::Write);
        match self.springs(Wrong::TooMuch) {
            true => Poll::Ready(Ok(buf.len() + 7)),
            false => Pin::new(&mut self.stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.spring(Wrong::Flush);
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// A client whose connections do wrong, what arms them, and whether they have done it.
fn trapped(config: Config, wrong: Wrong) -> (Client, Arc<AtomicBool>, Arc<AtomicBool>) {
    let (armed, sprung) = (Arc::<AtomicBool>::default(), Arc::<AtomicBool>::default());
    let (arms, springs) = (armed.clone(), sprung.clone());
    let config = config.with_dialer(move |host, port| {
        let (armed, sprung) = (arms.clone(), springs.clone());
        async move {
            let stream = TcpStream::connect((host, port)).await?;
            Ok(Trap {
                stream,
                wrong,
                armed,
                sprung,
            })
        }
    });
    (Client::new(&config).unwrap(), armed, sprung)
}

const CONNECTION: &str = "the stream of the connection";

#[tokio::test]
async fn what_a_connection_panics_with_is_the_error_of_each_verb() {
    let (_server, config) = start().await;
    for wrong in [Wrong::Read, Wrong::Write, Wrong::Flush, Wrong::TooMuch] {
        let (client, armed, _) = trapped(config.clone(), wrong);
        let pod = client.pod("default", "web-0");
        let tunnel = soon(pod.port_forward().connect()).await.unwrap();
        let cat = pod.exec("cat").stdin(Stdio::piped());
        let mut child = soon(cat.spawn()).await.unwrap();
        armed.store(true, SeqCst);
        let configs = client.request(ConfigMap::resource());
        let get = soon(configs.get::<Value>("a")).await.unwrap_err();
        let log = soon(pod.logs().stream().next()).await.unwrap().unwrap_err();
        let watch = client.watch(ConfigMap::resource()).namespace("default");
        let watch = soon(async move {
            let mut watch = std::pin::pin!(watch.stream());
            loop {
                // It says first that it is new.
                let next = poll_fn(|cx| watch.as_mut().poll_next(cx)).await;
                if let Err(error) = next.unwrap() {
                    return error;
                }
            }
        });
        for error in [get, log, watch.await] {
            says_who(&error, CONNECTION);
        }
        let forwarded = async {
            let mut stream = tunnel.open(1).await?;
            stream.write_all(b"hello").await?;
            stream.read(&mut [0]).await
        };
        let error = soon(forwarded).await.unwrap_err();
        says_who(Error::of_io(&error).unwrap(), CONNECTION);
        let mut stdin = child.stdin.take().unwrap();
        let _ = soon(stdin.write_all(&[7; 1 << 20])).await;
        drop(stdin);
        says_who(&soon(child.wait()).await.unwrap_err(), CONNECTION);
    }
}

#[tokio::test]
async fn a_session_dropped_while_its_connection_panics_leaves_the_program_alone() {
    for wrong in [Wrong::Write, Wrong::Flush, Wrong::Drop] {
        let (armed, sprung) = (Arc::<AtomicBool>::default(), Arc::<AtomicBool>::default());
        let (stream, _far) = duplex(64);
        let trap = Trap {
            stream,
            wrong,
            armed: armed.clone(),
            sprung: sprung.clone(),
        };
        let streams = Streams {
            stdin: true,
            stdout: true,
            ..Streams::default()
        };
        let websocket = AnyWebSocket::from_io(trap, Role::Client, Default::default());
        let mut child = Child::over(websocket, Subprotocol::V5, streams).spawn();
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
        tokio::task::yield_now().await;
        armed.store(true, SeqCst);
        // A panic while another unwinds would abort.
        let unwound = std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || {
            let _handles = (stdin, stdout, child);
            panic!("{WORDS}");
        }));
        assert!(unwound.is_err());
        soon(async {
            while !sprung.load(SeqCst) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await;
    }
}

#[tokio::test]
async fn a_panic_in_the_task_of_a_session_ends_the_session() {
    let (_server, config) = start().await;
    let (client, armed, sprung) = trapped(config, Wrong::Read);
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
    says_who(&error, CONNECTION);
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

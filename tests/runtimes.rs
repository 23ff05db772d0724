//! Runtimes that programs have: in flow clients and sessions of one, used in another or in none; out
//! comes what works, or an error in words.

#![cfg(all(feature = "client", feature = "testing", unix))]

use std::{
    pin::pin,
    sync::Arc,
    task::{Context, Poll, Wake, Waker},
    thread::{self, Thread},
    time::Duration,
};

use kubewire::{
    Client, Error,
    error::CallerError,
    logs::Logs,
    request::{Request, Resource},
    testing::ApiServer,
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    runtime::{Builder, Runtime},
};

type Result<T = (), E = Box<dyn std::error::Error>> = std::result::Result<T, E>;

async fn soon<T>(work: impl Future<Output = T>) -> T {
    Box::pin(tokio::time::timeout(Duration::from_secs(180), work))
        .await
        .expect("it takes too long")
}

fn runtime() -> Result<Runtime> {
    Ok(Builder::new_current_thread().enable_all().build()?)
}

/// A server in a runtime of its own, which has threads, and a client.
fn serve() -> Result<(Runtime, ApiServer, Client)> {
    serve_script("echo ready; sleep 600")
}

fn serve_script(script: &str) -> Result<(Runtime, ApiServer, Client)> {
    let runtime = Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    let web = |pod: kubewire::testing::PodBuilder| pod.container("main", ["sh", "-c", script]);
    let server = ApiServer::builder().pod("default", "web-0", web);
    let server = runtime.block_on(server.start())?;
    let client = Client::new(&server.config())?;
    Ok((runtime, server, client))
}

fn config_maps(client: &Client) -> Request {
    let resource = Resource::namespaced("", "v1", "configmaps");
    client.request(resource).namespace("default")
}

async fn use_all(client: &Client, name: &str) -> Result {
    // What may not be sent twice comes first: the connections of the runtime before are gone.
    let made = json!({"metadata": {"name": name}, "data": {"a": "b"}});
    config_maps(client).create(&made).await?;
    let pod = client.pod("default", "web-0");
    let output = pod.exec(["cat"]).input("all of it").output().await?;
    assert_eq!(output.stdout, b"all of it");
    let mut lines = pod.logs().stream();
    assert_eq!(lines.next().await.expect("a line")?.to_string(), "ready");
    let mut updates = client.watch(client.find("pods").await?.resource).stream();
    updates.next().await.expect("an update")?;
    Ok(())
}

#[test]
fn a_client_goes_from_one_runtime_to_the_next() -> Result {
    let (_runtime, _server, client) = serve()?;
    for at in 0..3 {
        // Its tasks end with it, those of pooled connections too.
        let runtime = runtime()?;
        runtime.block_on(soon(use_all(&client, &format!("of-{at}"))))?;
    }
    // Two at once, in threads of their own.
    let threads = ["left", "right"].map(|name| {
        let client = client.clone();
        thread::spawn(move || {
            let work = async {
                soon(use_all(&client, name))
                    .await
                    .map_err(|it| it.to_string())
            };
            runtime().map_err(|it| it.to_string())?.block_on(work)
        })
    });
    for thread in threads {
        thread.join().expect("no panic")?;
    }
    Ok(())
}

#[test]
fn a_child_moves_to_another_runtime_while_its_own_lasts() -> Result {
    let (threads, _server, client) = serve()?;
    let exec = client
        .pod("default", "web-0")
        .exec(["cat"])
        .stdin(kubewire::exec::Stdio::piped());
    let mut child = threads.block_on(soon(exec.spawn()))?;
    runtime()?.block_on(soon(async {
        let (mut stdin, mut stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        stdin.write_all(b"hello").await?;
        stdin.shutdown().await?;
        let mut text = String::new();
        stdout.read_to_string(&mut text).await?;
        assert_eq!(text, "hello");
        assert!(child.wait().await?.success());
        Ok(())
    }))
}

#[test]
fn a_session_whose_runtime_has_ended_is_lost() -> Result {
    let dir = tempfile::tempdir()?;
    let mark = dir.path().join("mark");
    let shown = mark.display();
    let script =
        format!("echo ready; while ! [ -e {shown} ]; do sleep 0.05; done; echo again; sleep 600");
    let (_threads, _server, client) = serve_script(&script)?;
    let pod = client.pod("default", "web-0");
    let first = runtime()?;
    let (mut child, mut lines, tunnel) = first.block_on(soon(async {
        let child = pod.exec(["sleep", "600"]).spawn().await?;
        let mut lines = pod.logs().follow().stream();
        assert!(lines.next().await.expect("a line").is_ok());
        let tunnel = pod.port_forward().connect().await?;
        Ok::<_, Error>((child, lines, tunnel))
    }))?;
    drop(first);
    runtime()?.block_on(soon(async {
        let error = child.wait().await.expect_err("its socket is gone");
        assert!(matches!(error, Error::Network(_)), "{error}");
        // The others go on over connections of the runtime that has them now.
        tunnel.open(80).await?;
        std::fs::write(&mark, "")?;
        assert_eq!(
            lines.next().await.expect("it goes on")?.to_string(),
            "again"
        );
        Ok(())
    }))
}

#[test]
fn handles_are_dropped_outside_of_a_runtime() -> Result {
    let (threads, server, client) = serve()?;
    let pod = client.pod("default", "web-0");
    let opened = || {
        threads.block_on(soon(async {
            let exec = pod
                .exec(["cat"])
                .stdin(kubewire::exec::Stdio::piped())
                .spawn()
                .await?;
            let attach = pod.attach().spawn().await?;
            let tunnel = pod.port_forward().connect().await?;
            let listener = tunnel.listen("127.0.0.1:0", 80).await?;
            let mut lines = pod.logs().follow().stream();
            assert!(lines.next().await.expect("a line").is_ok());
            let mut updates = client.watch(client.find("pods").await?.resource).stream();
            assert!(updates.next().await.expect("an update").is_ok());
            Ok::<_, Error>((exec, attach, tunnel, listener, lines, updates))
        }))
    };
    drop(opened()?);
    let handles = opened()?;
    thread::spawn(move || drop(handles))
        .join()
        .expect("no panic");
    let handles = opened()?;
    drop((threads, server));
    drop(handles);
    drop(client);
    Ok(())
}

/// Polls without a runtime, as other executors do.
fn poll_alone<F: Future>(future: F) -> F::Output {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(output) => return output,
            Poll::Pending => thread::park_timeout(Duration::from_secs(180)),
        }
    }
}

#[test]
fn without_a_runtime_there_are_words() -> Result {
    let (threads, _server, client) = serve()?;
    let pod = client.pod("default", "web-0");
    let says = |name: &str, error: Option<Error>| {
        let error = error.unwrap_or_else(|| panic!("{name} worked"));
        assert!(
            matches!(error, Error::Caller(CallerError::NoRuntime)),
            "{name}: {error}"
        );
        assert!(error.to_string().contains("tokio runtime"), "{error}");
    };
    says("exec", poll_alone(pod.exec("date").output()).err());
    let bounded = pod.exec("date").timeout(Duration::from_secs(60));
    says("exec in time", poll_alone(bounded.output()).err());
    says("attach", poll_alone(pod.attach().spawn()).err());
    says(
        "port-forward",
        poll_alone(pod.port_forward().connect()).err(),
    );
    says(
        "get",
        poll_alone(config_maps(&client).get::<Value>("a")).err(),
    );
    says(
        "copy",
        poll_alone(pod.copy_from("/etc/hostname", "target/none").run()).err(),
    );
    for all in [
        client.exec_all("default", "date").labels("app=web"),
        client.exec_all("default", "date").pods(["web-0"]),
    ] {
        says("exec_all", poll_alone(all.spawn()).err());
    }
    says("debug", poll_alone(pod.debug("busybox").start()).err());
    let watch = client.watch(kubewire::Resource::namespaced("", "v1", "pods"));
    let mut updates = watch.clone().stream();
    let mut logs = [pod.logs(), pod.logs().follow()].map(Logs::stream);
    let merged = client.logs("default").labels("app=web").follow();
    for _ in 0..2 {
        // As often as it is polled, for it never ends.
        let update = poll_alone(updates.next()).expect("a watch never ends");
        says("watch", update.err());
    }
    for lines in &mut logs {
        says("logs", poll_alone(lines.next()).expect("why").err());
        assert!(poll_alone(lines.next()).is_none());
    }
    says(
        "merged logs",
        poll_alone(merged.stream().next()).expect("why").err(),
    );
    // Begun in a runtime, polled outside.
    let mut lines = pod.logs().follow().stream();
    threads.block_on(soon(async { Ok::<_, Error>(lines.next().await) }))?;
    let rest = std::iter::from_fn(|| poll_alone(lines.next())).last();
    says("logs", rest.and_then(|line| line.err()));
    Ok(())
}

//! The server's handles, in a hyper server of a test's own, as a gateway has one.

#[path = "common/soon.rs"]
mod soon;

use std::{convert::Infallible, io, time::Duration};

use http::{Request, StatusCode};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use kubewire::{
    AnyWebSocket, Client, Error, KeepaliveConfig, Pod, Role,
    error::{CallerError, NetworkError},
    exec::{Child, Stdio, Streams, Subprotocol, TerminalSize},
    server::{self, Process, RemoteCommandRequest},
    testing::{ApiServer, Fault},
    wire::status::Status,
};
use soon::soon;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
    sync::mpsc,
};

type Result<T = (), E = Box<dyn std::error::Error>> = std::result::Result<T, E>;

/// A server that accepts every request, and what it has accepted.
async fn serve(
    prepare: fn(&mut RemoteCommandRequest),
) -> Result<(Pod, mpsc::UnboundedReceiver<Process>)> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let client = Client::from_url(&format!("http://{}", listener.local_addr()?))?;
    let (sender, receiver) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let sender = sender.clone();
            let service = service_fn(move |mut request: Request<Incoming>| {
                let accepted = RemoteCommandRequest::parse(&mut request).and_then(|mut request| {
                    prepare(&mut request);
                    request.accept(&server::SUBPROTOCOLS)
                });
                let sender = sender.clone();
                let response = match accepted {
                    Ok((response, opening)) => {
                        tokio::spawn(async move {
                            let _ = sender.send(opening.await.expect("the client stays"));
                        });
                        response
                    }
                    Err(refusal) => refusal.into_response(),
                };
                async move { Ok::<_, Infallible>(response) }
            });
            let connection = http1::Builder::new()
                .serve_connection(TokioIo::new(tcp), service)
                .with_upgrades();
            tokio::spawn(connection);
        }
    });
    Ok((client.pod("default", "any"), receiver))
}

async fn pair(
    pod: &Pod,
    protocol: Subprotocol,
    processes: &mut mpsc::UnboundedReceiver<Process>,
) -> Result<(Child, Process)> {
    let exec = pod
        .exec(["any"])
        .stdin(Stdio::piped())
        .subprotocols([protocol]);
    let child = soon(exec.spawn()).await?;
    let process = soon(processes.recv()).await.expect("it was accepted");
    assert_eq!(process.protocol(), protocol);
    Ok((child, process))
}

#[tokio::test]
async fn all_output_goes_out_before_the_status_whatever_still_comes_in() -> Result {
    const SIZE: usize = 3 << 20;
    let (pod, mut processes) = serve(|_| {}).await?;
    for protocol in server::SUBPROTOCOLS {
        let (mut child, mut process) = pair(&pod, protocol, &mut processes).await?;
        let serving = tokio::spawn(async move {
            let mut stdout = process.stdout.take().expect("asked for");
            stdout.write_all(&vec![7; SIZE]).await?;
            process.exit(Status::exit_code(9)).await?;
            let late = stdout.write_all(b"late").await.unwrap_err();
            assert!(matches!(
                Error::of_io(&late),
                Some(Error::Caller(CallerError::Ended))
            ));
            io::Result::Ok(())
        });
        let mut stdin = child.stdin.take().expect("piped");
        let flood = tokio::spawn(async move {
            let chunk = vec![0; 60_000];
            while stdin.write_all(&chunk).await.is_ok() {}
        });
        tokio::time::sleep(Duration::from_millis(100)).await;
        let output = soon(child.wait_with_output()).await?;
        assert_eq!(output.stdout.len(), SIZE, "{protocol}");
        assert_eq!(output.status.code(), Some(9), "{protocol}");
        soon(serving).await??;
        soon(flood).await?;
        // Nobody has waited for the server's deadline, `limits::LINGER`, which is longer.
    }
    Ok(())
}

#[tokio::test]
async fn leaving_without_a_status_is_no_success_over_any_subprotocol() -> Result {
    let (pod, mut processes) = serve(|_| {}).await?;
    for protocol in server::SUBPROTOCOLS {
        let (mut child, process) = pair(&pod, protocol, &mut processes).await?;
        drop(process);
        let error = soon(child.wait()).await.unwrap_err();
        assert!(
            matches!(
                error,
                Error::Network(NetworkError::ClosedWithoutStatus {
                    code: Some(1011),
                    ..
                })
            ),
            "{protocol}: {error:?}"
        );
    }
    Ok(())
}

#[tokio::test]
async fn a_handler_that_does_not_read_holds_the_client_back() -> Result {
    const SIZE: usize = 24 << 20;
    let (pod, mut processes) = serve(|request| request.buffer = 64 << 10).await?;
    let (mut child, mut process) = pair(&pod, Subprotocol::V5, &mut processes).await?;
    let mut stdin = child.stdin.take().expect("piped");
    let mut writing = tokio::spawn(async move {
        stdin.write_all(&vec![7; SIZE]).await?;
        stdin.shutdown().await
    });
    // More than the kernel's buffers hold.
    let early = tokio::time::timeout(Duration::from_millis(500), &mut writing).await;
    assert!(early.is_err());
    let mut input = Vec::new();
    let mut reader = process.stdin.take().expect("asked for");
    assert_eq!(soon(reader.read_to_end(&mut input)).await?, SIZE);
    soon(writing).await??;
    let (exited, status) =
        soon(async { tokio::join!(process.exit(Status::success()), child.wait()) }).await;
    exited?;
    assert!(status?.success());
    Ok(())
}

#[tokio::test]
async fn the_server_learns_how_the_client_left() -> Result {
    let (pod, mut processes) = serve(|_| {}).await?;
    let (mut child, mut process) = pair(&pod, Subprotocol::V5, &mut processes).await?;
    child
        .stdin
        .as_mut()
        .expect("piped")
        .write_all(b"last")
        .await?;
    drop(child);
    soon(process.closed()).await?;
    // What had arrived can still be read, and then the input ends.
    let mut input = String::new();
    let mut stdin = process.stdin.take().expect("asked for");
    soon(stdin.read_to_string(&mut input)).await?;
    assert_eq!(input, "last");
    assert!(process.resized().await.is_none());
    assert!(soon(process.exit(Status::success())).await.is_err());

    // One that vanishes.
    let (near, far) = tokio::io::duplex(1 << 10);
    let websocket = AnyWebSocket::from_io(near, Role::Server, Default::default());
    let streams = Streams {
        stdin: true,
        stdout: true,
        ..Streams::default()
    };
    let mut process = Process::over(websocket, Subprotocol::V5, streams);
    drop(far);
    let error = soon(process.closed()).await.unwrap_err();
    assert!(matches!(error, Error::Network(_)), "{error:?}");
    let mut stdin = process.stdin.take().expect("asked for");
    assert!(soon(stdin.read_u8()).await.is_err());
    Ok(())
}

#[tokio::test]
async fn both_ends_work_over_a_pipe() -> Result {
    let (near, far) = tokio::io::duplex(1 << 10);
    let streams = Streams {
        stdin: true,
        stdout: true,
        tty: true,
        ..Streams::default()
    };
    let websocket = AnyWebSocket::from_io(near, Role::Client, Default::default());
    let mut child = Child::over(websocket, Subprotocol::V4Base64, streams).spawn();
    let websocket = AnyWebSocket::from_io(far, Role::Server, Default::default());
    let mut process = Process::over(websocket, Subprotocol::V4Base64, streams);

    child.resize(TerminalSize::new(3, 4))?;
    assert_eq!(soon(process.resized()).await, Some(TerminalSize::new(3, 4)));
    let mut stdin = child.stdin.take().expect("asked for");
    stdin.write_all(b"question").await?;
    let mut question = [0; 8];
    let mut reader = process.stdin.take().expect("asked for");
    soon(reader.read_exact(&mut question)).await?;
    let mut stdout = process.stdout.take().expect("asked for");
    stdout.write_all(b"answer").await?;
    let (exited, output) =
        soon(async { tokio::join!(process.exit(Status::success()), child.wait_with_output()) })
            .await;
    exited?;
    assert_eq!(output?.stdout, b"answer");
    Ok(())
}

fn parse(query: &str) -> RemoteCommandRequest {
    let mut request = Request::get(format!("/exec?{query}"))
        .header("connection", "Upgrade")
        .header("upgrade", "websocket")
        .header("sec-websocket-version", "13")
        .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")
        .body(())
        .expect("a valid request");
    RemoteCommandRequest::parse(&mut request).expect("it asks for a WebSocket")
}

#[test]
fn queries_are_read_as_go_reads_them() {
    let request = parse(
        "stdin&stdout=&stderr=FALSE&stderr=true&tty=0&container=&command=a&x=y&command=&command=%ff+b",
    );
    assert_eq!(request.container, None);
    assert_eq!(request.command, ["a", "", "\u{fffd} b"]);
    let Streams {
        stdin,
        stdout,
        stderr,
        tty,
    } = request.streams;
    assert_eq!((stdin, stdout, stderr, tty), (true, true, false, false));
}

#[test]
fn what_no_runtime_accepts_is_refused() {
    let refusal = |query: &str, supported: &[Subprotocol]| {
        let Err(refusal) = parse(query).accept(supported) else {
            panic!("{query:?} was accepted");
        };
        let message = refusal.status().map(|status| status.message.clone());
        (refusal.code(), message.unwrap_or_default())
    };
    let all = &server::SUBPROTOCOLS;
    assert_eq!(
        refusal("stdout=true&stderr=true&tty=true", all),
        (
            StatusCode::BAD_REQUEST,
            "tty and stderr cannot both be true".into()
        )
    );
    assert_eq!(
        refusal("tty=true&command=sh", all),
        (
            StatusCode::BAD_REQUEST,
            "you must specify at least 1 of stdin, stdout, stderr".into()
        )
    );
    assert_eq!(
        refusal("stdout=true", &[Subprotocol::V5]),
        (StatusCode::FORBIDDEN, String::new())
    );
}

#[tokio::test]
async fn a_server_that_stalls_is_found_out() -> Result {
    let server = ApiServer::builder()
        .plain()
        .pod("default", "web-0", |pod| {
            pod.container("main", ["sleep", "infinity"])
        })
        .start()
        .await?;
    let client = Client::new(&server.config())?;
    server.inject(Fault::StallAfter(5000));
    let mut child = client
        .pod("default", "web-0")
        .exec(["sh", "-c", "while echo x; do sleep 0.0001; done"])
        .keepalive(KeepaliveConfig {
            interval: Duration::from_millis(50),
            silence: Duration::from_millis(300),
            ..KeepaliveConfig::default()
        })
        .spawn()
        .await?;
    let mut stdout = child.stdout.take().expect("piped");
    let mut output = Vec::new();
    let error = soon(stdout.read_to_end(&mut output)).await.unwrap_err();
    assert!(!output.is_empty());
    assert!(
        matches!(
            Error::of_io(&error),
            Some(Error::Network(NetworkError::Silent { .. }))
        ),
        "{error:?}"
    );
    let error = soon(child.wait()).await.unwrap_err();
    assert!(
        matches!(error, Error::Network(NetworkError::Silent { .. })),
        "{error:?}"
    );
    soon(server.shutdown()).await;
    Ok(())
}

#![allow(clippy::print_stdout, reason = "what a page prints")]

use crate::Result;

// [serve]
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use kubewire::{server, wire::status::Status};
use tokio::io::AsyncWriteExt as _;

/// Answers every exec with a greeting.
fn greet<B>(mut request: Request<B>) -> Response<Full<Bytes>> {
    let accepted = server::RemoteCommandRequest::parse(&mut request)
        .and_then(|request| request.accept(&server::SUBPROTOCOLS));
    let (response, opening) = match accepted {
        Ok(accepted) => accepted,
        Err(refusal) => return refusal.into_response(),
    };
    tokio::spawn(async move {
        let mut process = opening.await?;
        if let Some(mut stdout) = process.stdout.take() {
            stdout.write_all(b"hello\n").await?;
        }
        process.exit(Status::success()).await?;
        Ok::<_, std::io::Error>(())
    });
    response
}
// [end]

#[tokio::test]
async fn greeting() -> Result {
    use hyper_util::rt::{TokioExecutor, TokioIo};

    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}", listener.local_addr()?);
    tokio::spawn(async move {
        let service = hyper::service::service_fn(|request| async move {
            Ok::<_, std::convert::Infallible>(greet(request))
        });
        while let Ok((socket, _)) = listener.accept().await {
            let server = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
            tokio::spawn(async move {
                let io = TokioIo::new(socket);
                server.serve_connection_with_upgrades(io, service).await
            });
        }
    });
    // [ask]
    let client = kubewire::Client::from_url(&url)?;
    let output = client
        .pod("default", "any")
        .exec(["anything"])
        .output()
        .await?;
    assert_eq!(output.stdout, b"hello\n");
    // [end]
    Ok(())
}

// [join]
use kubewire::{Client, gateway::PodRequest, server::Refusal};

async fn join<B>(
    client: Client,
    mut request: Request<B>,
) -> Result<Response<Full<Bytes>>, Refusal> {
    let asked = PodRequest::parse(&mut request)?;
    // Who is it, and may they? `asked` says what it is about.
    let line = asked.to_string();
    let (response, session) = asked.join(&client).await?;
    tokio::spawn(async move {
        let outcome = session.await;
        println!("{line}: {:?}, {:?}", outcome.status, outcome.traffic);
    });
    Ok(response)
}
// [end]

// [steps]
use kubewire::server::RemoteCommandRequest;

async fn exec<B>(
    client: Client,
    mut request: Request<B>,
) -> Result<Response<Full<Bytes>>, Refusal> {
    let asked = RemoteCommandRequest::parse(&mut request)?;
    let exec = asked.exec(&client.pod("default", "web-0"));
    let (response, opening) = asked.accept(&server::SUBPROTOCOLS)?;
    let child = exec.spawn().await?;
    tokio::spawn(async move { Ok::<_, kubewire::Error>(opening.await?.splice(child).await) });
    Ok(response)
}
// [end]

// [tap]
use kubewire::{gateway::Tapped, server::Process};
use std::{fs::File, io::Write as _};

/// Joins, and keeps what the user typed.
async fn recorded(process: Process, child: kubewire::exec::Child, mut file: File) {
    let splice = process.splice(child).tap(move |passed| match passed {
        Tapped::Stdin(bytes) => file.write_all(bytes),
        _ => Ok(()),
    });
    splice.await;
}
// [end]

/// A gateway that answers what a pod can be asked, and exec in steps below another path.
async fn gateway(client: Client) -> Result<String> {
    use hyper_util::rt::{TokioExecutor, TokioIo};

    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}", listener.local_addr()?);
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let client = client.clone();
            let service =
                hyper::service::service_fn(move |request: Request<hyper::body::Incoming>| {
                    let client = client.clone();
                    async move {
                        let answer = match request.uri().path().starts_with("/steps/") {
                            true => exec(client, request).await,
                            false => join(client, request).await,
                        };
                        let answer = answer.unwrap_or_else(Refusal::into_response);
                        Ok::<_, std::convert::Infallible>(answer)
                    }
                });
            let server = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
            tokio::spawn(async move {
                let io = TokioIo::new(socket);
                server.serve_connection_with_upgrades(io, service).await
            });
        }
    });
    Ok(url)
}

#[tokio::test]
async fn joining() -> Result {
    let (_server, client) = crate::serve().await?;
    let url = gateway(client).await?;
    let user = Client::from_url(&url)?.pod("default", "web-0");
    let in_steps = Client::from_url(&format!("{url}/steps"))?.pod("default", "web-0");
    for pod in [&user, &in_steps] {
        let exec = pod.exec(["sh", "-c", "cat; exit 3"]).input("hello");
        let output = exec.output().await?;
        assert_eq!(
            (output.status.code(), &output.stdout[..]),
            (Some(3), &b"hello"[..])
        );
    }

    let program = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let tunnel = user.port_forward().connect().await?;
    let mut near = tunnel.open(program.local_addr()?.port()).await?;
    near.write_all(b"x").await?;
    let (mut far, _) = program.accept().await?;
    assert_eq!(tokio::io::AsyncReadExt::read_u8(&mut far).await?, b'x');
    Ok(())
}

#[tokio::test]
async fn recording() -> Result {
    use kubewire::{
        AnyWebSocket, Role,
        exec::{Child, Streams, Subprotocol},
    };

    let (_server, client) = crate::serve().await?;
    let streams = Streams {
        stdin: true,
        stdout: true,
        ..Streams::default()
    };
    let (near, far) = tokio::io::duplex(1 << 16);
    let over = |io, role| AnyWebSocket::from_io(io, role, Bytes::new());
    let mut user = Child::over(over(near, Role::Client), Subprotocol::V5, streams).spawn();
    let process = Process::over(over(far, Role::Server), Subprotocol::V5, streams);
    let exec = client.pod("default", "web-0").exec(["cat"]);
    let child = exec.stdin(kubewire::exec::Stdio::piped()).spawn().await?;
    let mut stdin = user.stdin.take().ok_or("it is piped")?;
    stdin.write_all(b"typed").await?;
    drop(stdin);
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("session");
    let (_, output) = tokio::join!(
        recorded(process, child, File::create(&path)?),
        user.wait_with_output()
    );
    assert_eq!(output?.stdout, b"typed");
    assert_eq!(std::fs::read(&path)?, b"typed");
    Ok(())
}

//! A gateway for exec: it knows its users by tokens of its own, runs what they ask with its own
//! credentials, and writes a line for each.
//!
//! ```text
//! GATEWAY_TOKEN=secret cargo run --example gateway -- [ADDRESS]
//! kubectl --server http://ADDRESS --token secret exec web-0 -- date
//! ```
//!
//! It speaks HTTP without TLS: for more than loopback, put TLS before it.

#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::{convert::Infallible, sync::Arc};

use bytes::Bytes;
use http::{Request, Response, header::AUTHORIZATION};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use kubewire::{
    Client,
    error::CallerError,
    exec::{Exec, Stdio, TerminalSize},
    server::{Process, Refusal, RemoteCommandRequest, SUBPROTOCOLS},
    wire::status::Status,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, copy},
    net::TcpListener,
    task::JoinSet,
};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let token = format!("Bearer {}", std::env::var("GATEWAY_TOKEN")?);
    let gateway = Arc::new((Client::from_env().await?, token));
    let address = std::env::args().nth(1);
    let listener = TcpListener::bind(address.as_deref().unwrap_or("127.0.0.1:0")).await?;
    println!("http://{}", listener.local_addr()?);
    loop {
        let (socket, _) = listener.accept().await?;
        let gateway = gateway.clone();
        let service = service_fn(move |request| {
            let answer = answer(&gateway.0, &gateway.1, request);
            async move { Ok::<_, Infallible>(answer.unwrap_or_else(Refusal::into_response)) }
        });
        let http = http1::Builder::new().serve_connection(TokioIo::new(socket), service);
        tokio::spawn(http.with_upgrades());
    }
}

/// Answers a request for `/api/v1/namespaces/NAMESPACE/pods/POD/exec`.
fn answer(
    client: &Client,
    token: &str,
    mut request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Refusal> {
    let refuse = |code, reason: &str, text: &str| Refusal::new(Status::failure(code, reason, text));
    // A program with secrets to lose compares them in constant time, or knows them by hash.
    if request
        .headers()
        .get(AUTHORIZATION)
        .is_none_or(|given| given != token)
    {
        return Err(refuse(401, "Unauthorized", "Unauthorized"));
    }
    let path = request.uri().path().to_owned();
    let parts: Vec<_> = path.split('/').skip(1).collect();
    let ["api", "v1", "namespaces", namespace, "pods", pod, "exec"] = parts[..] else {
        return Err(refuse(404, "NotFound", "this gateway has exec alone"));
    };
    let asked = RemoteCommandRequest::parse(&mut request)?;
    println!("exec {namespace}/{pod} {:?}", asked.command);
    let streams = asked.streams;
    let piped = |wanted| {
        if wanted {
            Stdio::piped()
        } else {
            Stdio::null()
        }
    };
    let mut exec = client.pod(namespace, pod).exec(&asked.command);
    exec = exec
        .stdin(piped(streams.stdin))
        .stderr(piped(streams.stderr));
    exec = exec.stdout(piped(streams.stdout));
    if let Some(container) = &asked.container {
        exec = exec.container(container);
    }
    if streams.tty {
        exec = exec.tty(TerminalSize::new(80, 24)); // until the client says its own
    }
    let (response, opening) = asked.accept(&SUBPROTOCOLS)?;
    tokio::spawn(async move {
        let joined = async { join(opening.await?, exec).await };
        if let Err(error) = joined.await {
            eprintln!("{path}: {error}");
        }
    });
    Ok(response)
}

/// Joins the user's session to one with the API server, until either ends.
async fn join(mut user: Process, exec: Exec) -> kubewire::Result<()> {
    let ended = async {
        let mut child = exec.spawn().await?;
        let mut tasks = JoinSet::new(); // ends with this session
        if let (Some(mut from), Some(mut to)) = (user.stdin.take(), child.stdin.take()) {
            tasks.spawn(async move { copy(&mut from, &mut to).await });
        }
        let stdout = relay(child.stdout.take(), user.stdout.take());
        let stderr = relay(child.stderr.take(), user.stderr.take());
        let output = async { Ok(tokio::join!(stdout, stderr)) };
        let status = async {
            loop {
                tokio::select! {
                    status = child.wait() => break status,
                    Some(size) = user.resized() => child.resize(size)?,
                    left = user.closed() => break left.and(Err(CallerError::Ended.into())),
                }
            }
        };
        tokio::try_join!(status, output)
    };
    match ended.await {
        Ok((status, _)) => user.exit(status.status().clone()).await,
        Err(error) => {
            let failure = || Status::failure(500, "InternalError", error.to_string());
            user.exit(error.status().cloned().unwrap_or_else(failure))
                .await
        }
    }
}

async fn relay(from: Option<impl AsyncRead + Unpin>, to: Option<impl AsyncWrite + Unpin>) {
    if let (Some(mut from), Some(mut to)) = (from, to) {
        let _ = copy(&mut from, &mut to).await; // why it broke, the status says
    }
}

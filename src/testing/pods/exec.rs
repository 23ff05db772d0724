//! exec: in flows a request, out come a process on this machine and its streams to the client.

use std::{future::poll_fn, io, pin::Pin, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use futures_core::Stream as _;
use futures_sink::Sink as _;
use http::{Request, Response};
use http_body_util::Full;
use tokio::{io::AsyncWriteExt as _, sync::Notify};

use super::{
    container::Container,
    process::{self, Process, Reader, Writer},
};
use crate::{
    server::{self, Refusal, RemoteCommandRequest},
    session::Subprotocol,
    testing::{router::Cluster, tasks::Tasks},
    wire::{
        resize::TerminalSize,
        status::{Status, StatusCause, StatusDetails},
    },
};

/// How long a process with a terminal waits for the terminal's size, which clients send first.
const FIRST_SIZE: Duration = Duration::from_millis(100);

pub(crate) fn serve<B>(
    cluster: &Cluster,
    container: Arc<Container>,
    request: &mut Request<B>,
) -> Result<Response<Full<Bytes>>, Refusal> {
    let mut request = RemoteCommandRequest::parse(request)?;
    // Kubelets drop what the container runtime would refuse.
    request.streams.stderr &= !request.streams.tty;
    let command = std::mem::take(&mut request.command);
    let (response, opening) = request.accept(&cluster.settings.subprotocols)?;
    let tasks = cluster.tasks.clone();
    let input_ends = cluster.settings.input_ends_with_output;
    cluster.tasks.spawn(async move {
        // A client that has left before is its own business.
        if let Ok(session) = opening.await {
            run(session, &container, &command, input_ends, &tasks).await;
        }
    });
    Ok(response)
}

async fn run(
    session: server::Process,
    container: &Container,
    command: &[String],
    input_ends: bool,
    tasks: &Arc<Tasks>,
) {
    let (streams, protocol) = (session.streams(), session.protocol());
    if !container.is_running() {
        let message = format!("container not found ({:?})", container.name());
        return finish(session, internal_error(protocol, &message)).await;
    }
    let size = match streams.tty {
        true => tokio::time::timeout(FIRST_SIZE, session.resized()).await,
        false => Ok(None),
    };
    match container.exec(command, streams, size.unwrap_or_default(), tasks) {
        Ok(process) => play(session, process, command, input_ends && !streams.tty).await,
        Err(error) => {
            let message = cannot_start(command, &error);
            finish(session, internal_error(protocol, &message)).await;
        }
    }
}

/// Copies the streams until the process has ended and all its output has gone, or the client has.
/// `input_ends` says that the input does when an output has.
async fn play(
    mut session: server::Process,
    process: Process,
    command: &[String],
    input_ends: bool,
) {
    let Process {
        stdin,
        stdout,
        stderr,
        terminal,
        mut wait,
    } = process;
    let code = {
        let output_over = Notify::new();
        let mut from = session.stdin.take();
        let input = async {
            tokio::select! {
                () = feed(from.as_mut(), stdin) => drop(from.take()),
                // Nobody reads what the client sends from here on.
                () = output_over.notified(), if input_ends => {}
            }
        };
        let (out, err) = (session.stdout.take(), session.stderr.take());
        let stdout = async {
            copy(stdout, out).await;
            output_over.notify_one();
        };
        let stderr = async {
            copy(stderr, err).await;
            output_over.notify_one();
        };
        // With it goes the terminal, which hangs up.
        let resize = move |size| terminal.iter().for_each(|terminal| terminal.resize(size));
        let work = async { tokio::join!(wait.code(), stdout, stderr).0 };
        serve_until(&session, work, input, resize).await
    };
    let Some(code) = code else {
        // The process has lost its streams, and its terminal is hung up. If it runs on
        // nevertheless, that is what it would do in a cluster (kubernetes/kubernetes#89031).
        drop(session);
        let _ = wait.code().await;
        return;
    };
    let status = match code {
        Ok(0) => Status::success(),
        Ok(code) => exit_status(session.protocol(), command, code),
        Err(error) => internal_error(session.protocol(), &error.to_string()),
    };
    finish(session, status).await;
}

/// Does the work that ends a session, unless the client leaves before, and meanwhile takes input
/// and resizes the terminal.
pub(super) async fn serve_until<T>(
    session: &server::Process,
    work: impl Future<Output = T>,
    input: impl Future<Output = ()>,
    resize: impl Fn(TerminalSize),
) -> Option<T> {
    let resizes = async {
        while let Some(size) = session.resized().await {
            resize(size);
        }
    };
    let never_ends = async {
        tokio::join!(input, resizes);
        std::future::pending::<()>().await;
    };
    tokio::select! {
        // Output first, so that its end is seen though input never pauses.
        biased;
        done = work => Some(done),
        _ = session.closed() => None,
        () = never_ends => None,
    }
}

/// Ends the session. That its client has left meanwhile is no matter here.
pub(super) async fn finish(session: server::Process, status: Status) {
    if let Err(error) = session.exit(status).await {
        tracing::debug!(%error, "a client of the test server left before the end");
    }
}

/// Copies input to the process, and ends it with the client's.
async fn feed(from: Option<&mut server::Stdin>, to: Option<Writer>) {
    let (Some(from), Some(mut to)) = (from, to) else {
        return;
    };
    while let Some(bytes) = next_input(from).await {
        // A process that reads no more: its input is dropped from here on.
        if to.write_all(&bytes).await.is_err() {
            return;
        }
    }
}

/// The next bytes of the client's input; `None` at its end, however that came.
pub(super) async fn next_input(from: &mut server::Stdin) -> Option<Bytes> {
    poll_fn(|cx| Pin::new(&mut *from).poll_next(cx)).await?.ok()
}

async fn copy(from: Option<Reader>, mut to: Option<server::Output>) {
    let Some(mut from) = from else {
        return;
    };
    let mut buffer = BytesMut::new();
    while let Some(bytes) = process::chunk(&mut from, &mut buffer).await {
        if let Some(to) = &mut to
            && send(to, bytes).await.is_err()
        {
            return;
        }
    }
}

pub(super) async fn send(to: &mut server::Output, bytes: Bytes) -> io::Result<()> {
    poll_fn(|cx| Pin::new(&mut *to).poll_ready(cx)).await?;
    Pin::new(to).start_send(bytes)
}

/// Who words a Status: the API server, which has it from the kubelet, or the kubelet alone, whose
/// answer passes through (seen with Kubernetes 1.36 over containerd 1.6).
fn through_api_server(protocol: Subprotocol) -> bool {
    protocol == Subprotocol::V5
}

fn exit_status(protocol: Subprotocol, command: &[String], code: i32) -> Status {
    let mut status = Status::exit_code(code);
    if !through_api_server(protocol) {
        status.message = format!(
            "command terminated with non-zero exit code: error executing command [{}], exit code \
             {code}",
            command.join(" ")
        );
    }
    status
}

/// A failure of the kubelet.
pub(super) fn internal_error(protocol: Subprotocol, what: &str) -> Status {
    const FRONT: &str = "Internal error occurred: ";
    let cause = match through_api_server(protocol) {
        true => format!("{FRONT}{what}"),
        false => what.to_owned(),
    };
    let mut status = Status::failure(500, "InternalError", format!("{FRONT}{cause}"));
    status.details = Some(StatusDetails {
        causes: vec![StatusCause {
            message: cause,
            ..StatusCause::default()
        }],
        ..StatusDetails::default()
    });
    status
}

/// What runc says of a program that it cannot start, in containerd's and the kubelet's words.
fn cannot_start(command: &[String], error: &io::Error) -> String {
    let problem = match (command.first(), error.kind()) {
        (None, _) => "args must not be empty".to_owned(),
        (Some(program), io::ErrorKind::NotFound) if program.contains('/') => format!(
            "unable to start container process: exec: {program:?}: stat {program}: no such file \
             or directory"
        ),
        (Some(program), io::ErrorKind::NotFound) => format!(
            "unable to start container process: exec: {program:?}: executable file not found in \
             $PATH"
        ),
        (Some(program), io::ErrorKind::PermissionDenied) => {
            format!("unable to start container process: exec: {program:?}: permission denied")
        }
        (Some(program), _) => {
            format!("unable to start container process: exec: {program:?}: {error}")
        }
    };
    let id: [u128; 2] = rand::random();
    format!(
        "error executing command in container: failed to exec in container: failed to start exec \
         \"{:032x}{:032x}\": OCI runtime exec failed: exec failed: {problem}: unknown",
        id[0], id[1]
    )
}

//! attach: in flows a request, out come the streams of the process that a container runs.

use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;

use super::{
    container::{Attachment, Container},
    exec::{finish, internal_error, next_input, send, serve_until},
};
use crate::{
    server::{self, Refusal, RemoteCommandRequest},
    testing::router::Cluster,
    wire::{channel::Channel, status::Status},
};

pub(crate) fn serve<B>(
    cluster: &Cluster,
    container: Arc<Container>,
    request: &mut Request<B>,
) -> Result<Response<Full<Bytes>>, Refusal> {
    let mut request = RemoteCommandRequest::parse(request)?;
    request.streams.stderr &= !request.streams.tty;
    let (response, opening) = request.accept(&cluster.settings.subprotocols)?;
    // From here on, and not from when the client has the response: it must miss nothing after.
    let attachment = container.current().attach();
    cluster.tasks.spawn(async move {
        if let Ok(session) = opening.await {
            run(session, &container, attachment).await;
        }
    });
    Ok(response)
}

/// Copies the streams until the process has ended, or the client has left.
async fn run(mut session: server::Process, container: &Container, attachment: Option<Attachment>) {
    let Some(Attachment { stdin, mut output }) = attachment else {
        let message = format!("container not found ({:?})", container.name());
        let status = internal_error(session.protocol(), &message);
        return finish(session, status).await;
    };
    let (client_stdin, mut stdout, mut stderr) = (
        session.stdin.take(),
        session.stdout.take(),
        session.stderr.take(),
    );
    let input = async {
        let (Some(mut from), Some(to)) = (client_stdin, stdin) else {
            return std::future::pending().await;
        };
        while let Some(bytes) = next_input(&mut from).await {
            if to.send(bytes).await.is_err() {
                return std::future::pending().await;
            }
        }
        // Dropping `to` says that this client sends no more. What is left of the process's
        // output goes to the others (`containerd/internal/cri/io/container_io.go`, Attach).
        drop(to);
        if container.outlives_stdin() {
            std::future::pending::<()>().await;
        }
    };
    let copies = async {
        while let Some((channel, bytes)) = output.recv().await {
            let to = match channel {
                Channel::Stderr => &mut stderr,
                _ => &mut stdout,
            };
            if let Some(to) = to
                && send(to, bytes).await.is_err()
            {
                // The session is over, and `closed` knows why.
                std::future::pending::<()>().await;
            }
        }
    };
    let either = async {
        tokio::select! {
            () = copies => {}
            () = input => {}
        }
    };
    let none = std::future::pending();
    let ended = serve_until(&session, either, none, |size| container.resize(size)).await;
    // There is no exit code: the server does not send one
    // (`k8s.io/cri-streaming/pkg/streaming/remotecommand/attach.go`).
    if ended.is_some() {
        finish(session, Status::success()).await;
    }
}

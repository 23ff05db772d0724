//! port-forward: in flows a request, out come connections to ports of this machine.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use tokio::{net::TcpStream, task::JoinSet};

use super::router::Cluster;
use crate::server::{IncomingForward, PortForwardRequest, Refusal};

/// Answers a request, and forwards when it has been accepted.
pub(super) fn serve<B>(
    cluster: &Arc<Cluster>,
    pod: &str,
    request: &mut Request<B>,
) -> Result<Response<Full<Bytes>>, Refusal> {
    let request = PortForwardRequest::parse(request)?;
    let (response, opening) = request.accept(&cluster.forward_protocols)?;
    let pod = Arc::<str>::from(pod);
    cluster.tasks.spawn(async move {
        // A client that has left before is its own business.
        let Ok(forwarding) = opening.await else {
            return;
        };
        let mut connections = JoinSet::new();
        while let Some(incoming) = forwarding.accept().await {
            while connections.try_join_next().is_some() {}
            connections.spawn(forward(incoming, pod.clone()));
        }
        // What the clients still had is cut, as by a container runtime.
    });
    Ok(response)
}

async fn forward(incoming: IncomingForward, pod: Arc<str>) {
    let port = incoming.port();
    match connect(port).await {
        Ok(socket) => {
            if let Err(error) = incoming.relay(socket).await {
                tracing::debug!(%error, port, "a forwarded connection broke");
            }
        }
        Err(what) => incoming.fail(&format!(
            "error forwarding port {port} to pod {pod}, uid : failed to execute portforward in \
             network namespace \"host\": failed to connect to localhost:{port} inside namespace \
             {pod:?}, {what}"
        )),
    }
}

/// IPv4 first, then IPv6, as containerd does; the texts of both failures.
async fn connect(port: u16) -> Result<TcpStream, String> {
    let v4 = match TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await {
        Ok(socket) => return Ok(prompt(socket)),
        Err(error) => error,
    };
    match TcpStream::connect((Ipv6Addr::LOCALHOST, port)).await {
        Ok(socket) => Ok(prompt(socket)),
        Err(v6) => Err(format!(
            "IPv4: dial tcp4 127.0.0.1:{port}: connect: {} IPv6 dial tcp6 [::1]:{port}: connect: {}",
            reason(&v4),
            reason(&v6)
        )),
    }
}

fn prompt(socket: TcpStream) -> TcpStream {
    // It fails only on a socket that is dead already.
    let _ = socket.set_nodelay(true);
    socket
}

fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
        _ => error.to_string(),
    }
}

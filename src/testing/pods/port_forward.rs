//! port-forward: in flows a request, out come connections to ports of this machine.

use std::{
    collections::BTreeMap,
    fmt, io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    pin::Pin,
    sync::{Arc, Mutex, Weak},
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use tokio::{
    io::{AsyncRead, AsyncWrite, DuplexStream},
    net::TcpStream,
    task::JoinSet,
};

use super::Pod;
use crate::{
    error::panic::lock,
    server::{Forwarding, IncomingForward, PortForwardRequest, Refusal},
    testing::router::Cluster,
};

#[derive(Debug, Default)]
pub(crate) struct Forwardings(Mutex<Vec<Weak<Forwarding>>>);

impl Forwardings {
    fn add(&self, forwarding: &Arc<Forwarding>) {
        let mut open = lock(&self.0);
        open.retain(|other| other.strong_count() > 0);
        open.push(Arc::downgrade(forwarding));
    }

    pub(crate) fn streams(&self) -> usize {
        let open = lock(&self.0);
        let open = open.iter().filter_map(Weak::upgrade);
        open.map(|forwarding| forwarding.streams()).sum()
    }
}

pub(crate) fn serve<B>(
    cluster: &Arc<Cluster>,
    pod: &Arc<Pod>,
    request: &mut Request<B>,
) -> Result<Response<Full<Bytes>>, Refusal> {
    let request = PortForwardRequest::parse(request)?;
    let (response, opening) = request.accept(&cluster.settings.forward_protocols)?;
    let pod = pod.clone();
    let open = cluster.clone();
    cluster.tasks.spawn(async move {
        // A client that has left before is its own business.
        let Ok(forwarding) = opening.await else {
            return;
        };
        let forwarding = Arc::new(forwarding);
        open.forwardings.add(&forwarding);
        drop(open);
        let mut connections = JoinSet::new();
        while let Some(incoming) = forwarding.accept().await {
            while connections.try_join_next().is_some() {}
            connections.spawn(forward(incoming, pod.clone()));
        }
        // What the clients still had is cut, as by a container runtime.
    });
    Ok(response)
}

async fn forward(incoming: IncomingForward, pod: Arc<Pod>) {
    let (port, name) = (incoming.port(), &pod.name);
    match connect(&pod, port).await {
        Ok(socket) => {
            if let Err(error) = incoming.relay(socket).await {
                tracing::debug!(%error, port, "a forwarded connection broke");
            }
        }
        Err(what) => incoming.fail(&format!(
            "error forwarding port {port} to pod {name}, uid : failed to execute portforward in \
             network namespace \"host\": failed to connect to localhost:{port} inside namespace \
             {name:?}, {what}"
        )),
    }
}

/// Connects to a port of a pod: one of its own, or else one of this machine.
pub(super) async fn connect(pod: &Pod, port: u16) -> Result<Io, String> {
    match pod.ports.0.get(&port) {
        Some(backend) => backend.connect().await,
        None => connect_here(port)
            .await
            .map(|socket| Box::new(socket) as Io),
    }
}

pub(super) type Io = Box<dyn Stream>;

pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

type Handler = dyn Fn(DuplexStream) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send + Sync;

/// What is behind a port of a pod.
#[derive(Clone)]
pub(crate) enum Backend {
    Address(SocketAddr),
    Handler(Arc<Handler>),
}

impl fmt::Debug for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Handler(_) => f.write_str("Handler"),
        }
    }
}

/// The ports that a pod has of its own.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ports(pub(crate) BTreeMap<u16, Backend>);

/// Bytes on their way to a handler, or from it.
const HANDED: usize = 64 << 10;

impl Backend {
    async fn connect(&self) -> Result<Io, String> {
        match self {
            Self::Address(address) => match TcpStream::connect(address).await {
                Ok(socket) => Ok(Box::new(prompt(socket))),
                Err(error) => Err(format!("dial tcp {address}: connect: {}", reason(&error))),
            },
            Self::Handler(handler) => {
                let (ours, theirs) = tokio::io::duplex(HANDED);
                // It ends with the connection, or the connection with it.
                tokio::spawn(handler(theirs));
                Ok(Box::new(ours))
            }
        }
    }
}

/// IPv4 first, then IPv6, as containerd does; the texts of both failures.
async fn connect_here(port: u16) -> Result<TcpStream, String> {
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

//! Local ports that lead to the pod: in flow local connections, out come forwarded ones, and news
//! of both.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use tokio::{
    net::{TcpListener, TcpStream, ToSocketAddrs, lookup_host},
    sync::mpsc::{self, Receiver, Sender},
    task::JoinSet,
};

use super::{ForwardPort, Tunnel};
use crate::{
    Result,
    error::{CallerError, Error},
    limits,
    transport::ws::relay::relay,
};

/// News that wait for [`Listener::event`]; more are dropped.
const NEWS: usize = 256;

/// What happens at a [`Listener`].
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum ListenEvent {
    /// A local connection is being forwarded.
    Accepted {
        /// Where it comes from.
        peer: SocketAddr,
    },
    /// A local connection has ended in order.
    Closed {
        /// Where it came from.
        peer: SocketAddr,
    },
    /// A local connection could not be forwarded, or broke. The others go on.
    Failed {
        /// Where it came from.
        peer: SocketAddr,
        /// What the server, the network or the local program did.
        error: Error,
    },
    /// No way to the pod at the moment; connections wait for one while it is tried again.
    Unreachable {
        /// What failed.
        error: Error,
    },
}

/// Local ports that lead to a port of a pod.
///
/// Dropping it closes them and all connections that came through them.
#[derive(Debug)]
pub struct Listener {
    addresses: Vec<SocketAddr>,
    port: ForwardPort,
    events: Receiver<ListenEvent>,
    /// Ends with this struct.
    _tasks: JoinSet<()>,
}

impl Listener {
    pub(super) async fn bind(
        tunnel: Tunnel,
        addresses: impl ToSocketAddrs,
        port: ForwardPort,
    ) -> Result<Self> {
        let failed = |error| CallerError::Listen(Arc::new(error));
        let mut listeners: Vec<TcpListener> = Vec::new();
        let mut failure = None;
        for mut address in lookup_host(addresses).await.map_err(failed)? {
            // All addresses of a name get the same port, chosen with the first.
            if let (0, Some(first)) = (address.port(), listeners.first()) {
                address.set_port(first.local_addr().map_err(failed)?.port());
            }
            match TcpListener::bind(address).await {
                Ok(listener) => listeners.push(listener),
                Err(error) => failure = Some(error),
            }
        }
        if listeners.is_empty() {
            let none = || std::io::Error::from(std::io::ErrorKind::AddrNotAvailable);
            return Err(failed(failure.unwrap_or_else(none)).into());
        }
        let mut tasks = JoinSet::new();
        let (news, events) = mpsc::channel(NEWS);
        let mut addresses = Vec::new();
        for listener in listeners {
            addresses.push(listener.local_addr().map_err(failed)?);
            tasks.spawn(accept(listener, tunnel.clone(), port.clone(), news.clone()));
        }
        Ok(Self {
            addresses,
            port,
            events,
            _tasks: tasks,
        })
    }

    /// The local addresses, at least one.
    pub fn local_addrs(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// The port that it forwards to.
    pub fn port(&self) -> &ForwardPort {
        &self.port
    }

    /// Waits for the next event. Nobody has to: events that are too many are dropped.
    ///
    /// Cancel safety: nothing is lost; call it again.
    pub async fn event(&mut self) -> ListenEvent {
        match self.events.recv().await {
            Some(event) => event,
            // The tasks, which hold the sender, end with this struct.
            None => std::future::pending().await,
        }
    }
}

async fn accept(
    listener: TcpListener,
    tunnel: Tunnel,
    port: ForwardPort,
    news: Sender<ListenEvent>,
) {
    let mut connections = JoinSet::new();
    loop {
        let (socket, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of file descriptors, say: they come back when connections end.
                tracing::debug!(%error, "cannot accept a local connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        while connections.try_join_next().is_some() {}
        let (tunnel, port, news) = (tunnel.clone(), port.clone(), news.clone());
        connections.spawn(async move {
            let tell = |event| drop(news.try_send(event));
            tell(ListenEvent::Accepted { peer });
            match forward(socket, &tunnel, &port, &news).await {
                Ok(()) => tell(ListenEvent::Closed { peer }),
                Err(error) => tell(ListenEvent::Failed { peer, error }),
            }
        });
    }
}

async fn forward(
    socket: TcpStream,
    tunnel: &Tunnel,
    port: &ForwardPort,
    news: &Sender<ListenEvent>,
) -> Result<()> {
    let _ = socket.set_nodelay(true);
    let mut pause = limits::FORWARD_RETRY_FIRST;
    let give_up = tokio::time::Instant::now() + limits::FORWARD_RETRY;
    let stream = loop {
        match tunnel.open_port(port).await {
            Ok(stream) => break stream,
            Err(error) if tokio::time::Instant::now() + pause < give_up && is_passing(&error) => {
                let _ = news.try_send(ListenEvent::Unreachable { error });
                tokio::time::sleep(pause).await;
                pause *= 2;
            }
            Err(error) => return Err(error),
        }
    };
    let outcome = relay(stream, socket).await;
    if let Err(error) = &outcome {
        tunnel.note(error);
    }
    outcome
}

/// Whether what failed may work in a moment: an API server that restarts, a pod that is replaced.
fn is_passing(error: &Error) -> bool {
    match error {
        Error::Network(_) | Error::Caller(CallerError::NoPod { .. }) => true,
        Error::Api(refusal) => matches!(refusal.status.code, 400 | 404 | 429 | 500..),
        _ => false,
    }
}

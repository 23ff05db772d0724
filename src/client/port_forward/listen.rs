//! Local ports that lead to the pod: in flow local connections, out come forwarded ones, and news
//! of both.

use std::{
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex, atomic::Ordering::Relaxed},
    task::{Context, Poll},
    time::Duration,
};

use futures_core::Stream;
use tokio::{
    net::{TcpListener, TcpStream, ToSocketAddrs, lookup_host},
    sync::mpsc::{self, Receiver, Sender},
    task::JoinSet,
    time::Instant,
};

use super::{ForwardPort, Tunnel};
use crate::{
    Result,
    error::{
        CallerError, Error,
        panic::{caught_in, lock},
    },
    transport::ws::relay::{Copied, relay},
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
        /// What it carried.
        traffic: Traffic,
    },
    /// A local connection could not be forwarded, or broke, and was reset. The others go on.
    Failed {
        /// Where it came from.
        peer: SocketAddr,
        /// What the server, the network or the local program did.
        error: Error,
        /// What it carried until then.
        traffic: Traffic,
    },
    /// No way to the pod at the moment; connections wait for one while it is tried again.
    Unreachable {
        /// What failed.
        error: Error,
    },
}

/// What a local connection carried.
///
/// ```
/// use kubewire::port_forward::Traffic;
///
/// fn rate(traffic: &Traffic) -> f64 {
///     traffic.received as f64 / traffic.duration.as_secs_f64().max(0.001)
/// }
/// assert_eq!(rate(&Traffic::default()), 0.0);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Traffic {
    /// Bytes from the local program that were handed to the tunnel.
    pub sent: u64,
    /// Bytes that were written to the local program.
    pub received: u64,
    /// From its acceptance to its end.
    pub duration: Duration,
}

/// What a [`Listener`] has carried.
///
/// ```no_run
/// # fn show(listener: &kubewire::port_forward::Listener) {
/// let stats = listener.stats();
/// println!("{} connections, {} of them open, {} failed", stats.accepted, stats.open, stats.failed);
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct ListenerStats {
    /// Local connections that were accepted.
    pub accepted: u64,
    /// Those of them that have not ended.
    pub open: u64,
    /// Those that could not be forwarded, or broke.
    pub failed: u64,
    /// Bytes that those which have ended sent to the pod.
    pub sent: u64,
    /// Bytes that they received.
    pub received: u64,
}

/// Local ports that lead to a port of a pod.
///
/// A connection that breaks on its way, or is refused by the application, is reset, as the
/// application's own refusal would look. Dropping the listener closes its ports and resets all
/// connections that came through them.
///
/// ```
/// # kubewire::example(|pod| pod.container("main", ["sleep", "infinity"]), async |client| {
/// # use tokio::io::AsyncReadExt as _;
/// # let port = kubewire::example_port().await?;
/// use kubewire::port_forward::ListenEvent;
///
/// let tunnel = client.pod("default", "web-0").port_forward().connect().await?;
/// let mut listener = tunnel.listen("127.0.0.1:0", port).await?;
/// let mut local = tokio::net::TcpStream::connect(listener.local_addrs()[0]).await?;
/// let mut answer = String::new();
/// local.read_to_string(&mut answer).await?;
/// assert_eq!(answer, "hello");
/// drop(local);
/// let traffic = loop {
///     if let ListenEvent::Closed { traffic, .. } = listener.event().await {
///         break traffic;
///     }
/// };
/// assert_eq!(traffic.received, 5);
/// # Ok(())
/// # });
/// ```
#[derive(Debug)]
pub struct Listener {
    addresses: Vec<SocketAddr>,
    port: ForwardPort,
    events: Receiver<ListenEvent>,
    record: Arc<Record>,
    /// Ends with this struct.
    _tasks: JoinSet<()>,
}

/// What a listener's connections have carried, and those that are open.
#[derive(Debug, Default)]
struct Record(Mutex<Connections>);

#[derive(Debug, Default)]
struct Connections {
    open: Vec<Arc<Connection>>,
    /// But for the number of those that are open.
    stats: ListenerStats,
}

impl Record {
    fn begin(&self, peer: SocketAddr) -> Arc<Connection> {
        let connection = Arc::new(Connection {
            peer,
            begin: Instant::now(),
            copied: Copied::default(),
        });
        let mut held = lock(&self.0);
        held.stats.accepted += 1;
        held.open.push(connection.clone());
        connection
    }

    fn end(&self, connection: &Arc<Connection>, failed: bool) -> Traffic {
        let traffic = connection.traffic();
        let mut held = lock(&self.0);
        held.open.retain(|other| !Arc::ptr_eq(other, connection));
        held.stats.failed += u64::from(failed);
        held.stats.sent += traffic.sent;
        held.stats.received += traffic.received;
        traffic
    }
}

/// A local connection that is being forwarded.
#[derive(Debug)]
struct Connection {
    peer: SocketAddr,
    begin: Instant,
    copied: Copied,
}

impl Connection {
    fn traffic(&self) -> Traffic {
        Traffic::of(&self.copied, self.begin)
    }
}

impl Traffic {
    pub(crate) fn of(copied: &Copied, begin: Instant) -> Self {
        Self {
            sent: copied.sent.load(Relaxed),
            received: copied.received.load(Relaxed),
            duration: begin.elapsed(),
        }
    }
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
        let record = Arc::<Record>::default();
        let (news, events) = mpsc::channel(NEWS);
        let mut addresses = Vec::new();
        for listener in listeners {
            addresses.push(listener.local_addr().map_err(failed)?);
            let (tunnel, port) = (tunnel.clone(), port.clone());
            let record = record.clone();
            tasks.spawn(accept(listener, tunnel, port, news.clone(), record));
        }
        Ok(Self {
            addresses,
            port,
            events,
            record,
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

    /// What it has carried.
    pub fn stats(&self) -> ListenerStats {
        let held = lock(&self.record.0);
        ListenerStats {
            open: held.open.len() as u64,
            ..held.stats
        }
    }

    /// The connections that are being forwarded, by where they come from, with what they have
    /// carried so far.
    pub fn connections(&self) -> Vec<(SocketAddr, Traffic)> {
        let held = lock(&self.record.0);
        let open = held.open.iter();
        open.map(|connection| (connection.peer, connection.traffic()))
            .collect()
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

/// Its events; it has no end.
impl Stream for Listener {
    type Item = ListenEvent;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<ListenEvent>> {
        // The tasks, which hold the sender, end with this struct.
        self.events.poll_recv(cx)
    }
}

async fn accept(
    listener: TcpListener,
    tunnel: Tunnel,
    port: ForwardPort,
    news: Sender<ListenEvent>,
    record: Arc<Record>,
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
        let record = record.clone();
        let connection = record.begin(peer);
        connections.spawn(async move {
            let tell = |event| drop(news.try_send(event));
            tell(ListenEvent::Accepted { peer });
            let work = forward(socket, &tunnel, &port, &news, &connection.copied);
            let outcome = caught_in(&format!("the forwarding of {peer}"), work).await;
            let traffic = record.end(&connection, outcome.is_err());
            tell(match outcome {
                Ok(()) => ListenEvent::Closed { peer, traffic },
                Err(error) => ListenEvent::Failed {
                    peer,
                    error,
                    traffic,
                },
            });
        });
    }
}

/// A local connection. Unless it has ended in order, it is reset: half an answer must not look
/// whole to the local program.
struct Local {
    socket: TcpStream,
    whole: bool,
}

impl Drop for Local {
    fn drop(&mut self) {
        if !self.whole {
            // Closing then sends RST (RFC 1122, section 4.2.2.13).
            let _ = self.socket.set_zero_linger();
        }
    }
}

async fn forward(
    socket: TcpStream,
    tunnel: &Tunnel,
    port: &ForwardPort,
    news: &Sender<ListenEvent>,
    copied: &Copied,
) -> Result<()> {
    let _ = socket.set_nodelay(true);
    let mut local = Local {
        socket,
        whole: false,
    };
    let tell = |error| drop(news.try_send(ListenEvent::Unreachable { error }));
    let stream = tunnel.wait_open(port, tell).await?;
    let outcome = relay(stream, &mut local.socket, copied).await;
    match &outcome {
        Ok(()) => local.whole = true,
        Err(error) => tunnel.note(error),
    }
    outcome
}

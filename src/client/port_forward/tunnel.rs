//! The tunnel: in flow the ports to connect to, out come connections, each on the WebSocket that
//! suits it, to the pod that is there at the moment.

mod place;
mod sockets;
mod stats;

use std::sync::{
    Arc, Mutex, MutexGuard,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::ToSocketAddrs,
    sync::{Mutex as AsyncMutex, Semaphore},
    time::Instant,
};
use tracing::{Instrument as _, Span};

use self::sockets::Socket;
pub(super) use self::sockets::Transport;
pub use self::stats::TunnelStats;
use super::{
    ForwardPort, ForwardStream, Listener, PortForward, ResolvedPort, Traffic, resolve::Destination,
};
use crate::{
    Result,
    client::Pod,
    error::{CallerError, Error, panic::lock},
    limits,
    session::port_forward::ForwardProtocol,
    transport::ws::{
        port_forward::Connections,
        relay::{Copied, relay},
    },
};

/// WebSockets that a connection is tried on while each turns out to be held up by others.
const ATTEMPTS: u32 = 4;

#[derive(Debug)]
struct Shared {
    forward: PortForward,
    /// Locked while the pod is looked for and dialled. Those who wait for that share what comes
    /// of it.
    route: AsyncMutex<Route>,
    /// How often that has been done.
    attempts: AtomicU64,
    state: Mutex<State>,
    /// The WebSockets that may be dialled beside the first.
    further: Arc<Semaphore>,
    /// Those that may be dialled to keep ports apart.
    apart: Arc<Semaphore>,
    /// Locked while one of these is dialled; when that last failed.
    dialling: AsyncMutex<Option<Instant>>,
    /// Whether a connection failed in a way that speaks of a pod that has gone.
    doubt: AtomicBool,
    span: Span,
}

#[derive(Debug)]
struct Route {
    destination: Destination,
    /// When the pod was last known to be there.
    looked: Instant,
    /// Why there was none the last time.
    failed: Option<Error>,
}

#[derive(Debug)]
struct State {
    pod: Pod,
    transport: Transport,
    /// How often the WebSockets have been given up for others.
    renewed: u64,
    opened: u64,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// Sees to it that there is a route to the pod, and says what the port is there.
    async fn find(&self, port: &ForwardPort) -> Result<u16> {
        let arrived = self.attempts.load(Ordering::Relaxed);
        let mut route = self.route.lock().await;
        // What failed while this one waited would fail again, and take as long.
        if self.attempts.load(Ordering::Relaxed) != arrived
            && let Some(error) = &route.failed
        {
            return Err(error.clone());
        }
        let found = async {
            self.renew(&mut route).await?;
            route.destination.port(&self.forward.client, port).await
        };
        let found = found.await;
        self.attempts.fetch_add(1, Ordering::Relaxed);
        // That there is no such port says nothing of others.
        let shared = |error: &&Error| !matches!(error, Error::Caller(CallerError::NoPort { .. }));
        route.failed = found.as_ref().err().filter(shared).cloned();
        Ok(found?.pod)
    }

    /// Finds the pod anew if it may have gone, and dials if there is no route to it.
    async fn renew(&self, route: &mut Route) -> Result<()> {
        let Self { forward, doubt, .. } = self;
        let doubted = doubt.load(Ordering::Relaxed);
        let lost = match &mut self.state().transport {
            Transport::Shared(sockets) => {
                // Asked once of each: the answer may change at any time.
                let stays = |socket: &Socket| !socket.connections.should_leave();
                let stay: Vec<bool> = sockets.iter().map(stays).collect();
                let lost = !stay.contains(&true);
                if !lost {
                    let mut stay = stay.into_iter();
                    sockets.retain(|_| stay.next().unwrap_or(true));
                }
                lost
            }
            Transport::Channels(_) => false,
        };
        let stale = route.looked.elapsed() >= limits::FORWARD_FRESH
            && route.destination.is_gone(&forward.client).await;
        if !(lost || doubted || stale) {
            if route.looked.elapsed() >= limits::FORWARD_FRESH {
                route.looked = Instant::now();
            }
            return Ok(());
        }
        let next = forward.find(Some(&route.destination)).await?;
        let is_shared = matches!(self.state().transport, Transport::Shared(_));
        // The old ones go on with the connections that they have.
        if is_shared && (lost || doubted || !next.is_pod_of(&route.destination)) {
            tracing::debug!(pod = next.pod.name(), "dialling the port-forward again");
            let connections = forward.dial_spdy(&next.pod).await?;
            let mut state = self.state();
            state.transport = Transport::shared(connections);
            state.renewed += 1;
        }
        self.state().pod = next.pod.clone();
        route.destination = next;
        route.looked = Instant::now();
        if doubted {
            doubt.store(false, Ordering::Relaxed);
        }
        Ok(())
    }
}

/// A way to a pod, on which connections can be opened.
///
/// Clones share it. It is closed when they and all its connections have been dropped. A tunnel
/// that has died or has become silent is dialled again for the next connection. So is one whose
/// server may be waiting for an application to read: a connection failed before what was sent to
/// it was read, or an application has read nothing of more than
/// [`limits::FORWARD_UNREAD`](crate::limits::FORWARD_UNREAD) bytes for
/// [`limits::FORWARD_STALL`](crate::limits::FORWARD_STALL). The connections that it has go on.
///
/// Before it shows what became of an application, [`open`](Self::open) waits until the server has
/// taken on the new connection, a round trip, and for
/// [`limits::FORWARD_STALL`](crate::limits::FORWARD_STALL) at most; then it takes another WebSocket.
/// It does so while something has been sent to an application that has never answered, or
/// [`limits::FORWARD_UNREAD`](crate::limits::FORWARD_UNREAD) bytes to any since it last did.
/// What was opened before that may share the fate of the one that is stuck. So connections to
/// different ports share a WebSocket only where all that are open there have answered, or another
/// connection to the same port has: up to [`limits::FORWARD_APART`](crate::limits::FORWARD_APART)
/// further ones are dialled to keep them apart. And beside other connections, the first to a port
/// wait until one has answered or failed, and at most for
/// [`limits::FORWARD_PROBE`](crate::limits::FORWARD_PROBE), so that a refusal finds nothing unread.
///
/// # Slow readers
///
/// The protocol has no flow control, and one WebSocket carries all connections. Each may leave
/// [`PortForward::buffer`] bytes unread without slowing the others;
/// [`PortForward::when_full`] says what happens then. Connections that must never wait for each
/// other get a WebSocket each, with [`PortForward::websockets`].
///
/// ```
/// # kubewire::example(|pod| pod.container("main", ["sleep", "infinity"]), async |client| {
/// # use tokio::io::AsyncReadExt as _;
/// # let port = kubewire::example_port().await?;
/// let tunnel = client.pod("default", "web-0").port_forward().connect().await?;
/// let (mut one, mut other) = (tunnel.open(port).await?, tunnel.open(port).await?);
/// assert_eq!((one.read_u8().await?, other.read_u8().await?), (b'h', b'h'));
/// # Ok(())
/// # });
/// ```
#[derive(Debug, Clone)]
pub struct Tunnel {
    shared: Arc<Shared>,
}

impl Tunnel {
    pub(super) fn new(
        forward: PortForward,
        destination: Destination,
        transport: Transport,
        span: Span,
    ) -> Self {
        let further = (forward.websockets - 1).min(Semaphore::MAX_PERMITS);
        Self {
            shared: Arc::new(Shared {
                forward,
                state: Mutex::new(State {
                    pod: destination.pod.clone(),
                    transport,
                    renewed: 0,
                    opened: 0,
                }),
                route: AsyncMutex::new(Route {
                    destination,
                    looked: Instant::now(),
                    failed: None,
                }),
                attempts: AtomicU64::new(0),
                further: Arc::new(Semaphore::new(further)),
                apart: Arc::new(Semaphore::new(limits::FORWARD_APART)),
                dialling: AsyncMutex::new(None),
                doubt: AtomicBool::new(false),
                span,
            }),
        }
    }

    /// Opens a connection to a port: a number, or a name such as `"http"`.
    ///
    /// Of a service it is the service's port, which leads to the pod's `targetPort`. Names of
    /// other targets' ports are those that the pod's containers give them; to look one up needs
    /// the right `get` on `pods`.
    ///
    /// Over SPDY it is ready at once, before the server has answered, unless another connection may
    /// hold it up: a refusal by the application shows in the first read. Where the pod was found
    /// through a service or a
    /// workload, the server is asked whether it still runs, at most once in
    /// [`limits::FORWARD_FRESH`]; if not, another is found.
    ///
    /// While the API server cannot be reached, or no pod runs, it tries again for
    /// 30 s, as a [`Listener`] does. [`try_open`](Self::try_open) does not.
    ///
    /// Cancel safety: dropping the future opens nothing.
    ///
    /// # Errors
    ///
    /// Those of [`PortForward::connect`], where the tunnel has to be dialled again;
    /// [`CallerError::NoPort`] if there is no such port.
    pub async fn open(&self, port: impl Into<ForwardPort>) -> Result<ForwardStream> {
        self.wait_open(&port.into(), |_| {}).await
    }

    /// As [`open`](Self::open), in one attempt.
    ///
    /// # Errors
    ///
    /// Those of [`open`](Self::open).
    pub async fn try_open(&self, port: impl Into<ForwardPort>) -> Result<ForwardStream> {
        self.open_port(&port.into()).await
    }

    /// Opens a connection, and tells `tell` why each attempt but the last failed.
    pub(super) async fn wait_open(
        &self,
        port: &ForwardPort,
        mut tell: impl FnMut(Error),
    ) -> Result<ForwardStream> {
        let mut pause = limits::FORWARD_RETRY_FIRST;
        let give_up = Instant::now() + limits::FORWARD_RETRY;
        loop {
            match self.open_port(port).await {
                Err(error) if Instant::now() + pause < give_up && is_passing(&error) => {
                    tell(error);
                    tokio::time::sleep(pause).await;
                    pause *= 2;
                }
                done => return done,
            }
        }
    }

    async fn open_port(&self, port: &ForwardPort) -> Result<ForwardStream> {
        let opening = self.open_in_span(port);
        let stream = opening.instrument(self.shared.span.clone()).await?;
        let mut state = self.shared.state();
        state.opened += 1;
        let (websockets, connections) = state.occupancy();
        tracing::debug!(
            parent: &self.shared.span,
            websockets,
            connections,
            "a connection is opened"
        );
        drop(state);
        Ok(stream)
    }

    async fn open_in_span(&self, port: &ForwardPort) -> Result<ForwardStream> {
        for _ in 1..ATTEMPTS {
            let stream = self.open_once(port).await?;
            if stream.is_taken_on().await {
                return Ok(stream);
            }
        }
        self.open_once(port).await
    }

    /// Tells what a connection died of. The next one looks for the pod again, unless it was the
    /// application that refused.
    pub(crate) fn note(&self, error: &Error) {
        if let Error::Api(failure) = error {
            let text = &failure.status.message;
            // containerd and CRI-O say so of a port at which nobody listens; a sandbox that is
            // gone has other words.
            let refused = ["failed to connect", "connection refused", "failed to dial"];
            if !refused.iter().any(|words| text.contains(words)) {
                self.shared.doubt.store(true, Ordering::Relaxed);
            }
        }
    }

    /// What a port means at the moment.
    ///
    /// # Errors
    ///
    /// [`CallerError::NoPort`] if there is no such port, and those of
    /// [`Client::request`](crate::Client::request).
    pub async fn resolve(&self, port: impl Into<ForwardPort>) -> Result<ResolvedPort> {
        let port = port.into();
        let mut route = self.shared.route.lock().await;
        route
            .destination
            .port(&self.shared.forward.client, &port)
            .await
    }

    /// Listens on local addresses and forwards what connects there to a port, as for
    /// [`open`](Self::open), until the [`Listener`] is dropped.
    ///
    /// Where a name has several addresses, such as `localhost`, it listens on all that it can.
    ///
    /// # Errors
    ///
    /// [`CallerError::Listen`] if it can listen on none.
    pub async fn listen(
        &self,
        addresses: impl ToSocketAddrs,
        port: impl Into<ForwardPort>,
    ) -> Result<Listener> {
        Listener::bind(self.clone(), addresses, port.into()).await
    }

    /// Forwards one stream of bytes, such as a connection of a Unix socket, to a port, as for
    /// [`open`](Self::open), until both of its directions have ended; gives what it carried.
    ///
    /// Cancel safety: dropping the future resets the connection to the pod and drops the socket.
    ///
    /// # Errors
    ///
    /// Those of [`open`](Self::open), and what broke the connection on its way. The socket is
    /// dropped then: to its other end that may look like an end in order.
    ///
    /// ```
    /// # kubewire::example(|pod| {
    /// #     pod.container("main", ["sleep", "infinity"]).port_with(7, |mut stream| async move {
    /// #         let (mut read, mut write) = tokio::io::split(&mut stream);
    /// #         let _ = tokio::io::copy(&mut read, &mut write).await;
    /// #     })
    /// # }, async |client| {
    /// use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    ///
    /// let tunnel = client.pod("default", "web-0").port_forward().connect().await?;
    /// let (mut here, there) = tokio::io::duplex(1024);
    /// let forwarded = tokio::spawn(async move { tunnel.forward(there, 7).await });
    /// here.write_all(b"hello").await?;
    /// here.shutdown().await?;
    /// let mut echo = String::new();
    /// here.read_to_string(&mut echo).await?;
    /// let traffic = forwarded.await??;
    /// assert_eq!((&*echo, traffic.sent, traffic.received), ("hello", 5, 5));
    /// # Ok(())
    /// # });
    /// ```
    pub async fn forward<S>(&self, socket: S, port: impl Into<ForwardPort>) -> Result<Traffic>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let (begin, copied) = (Instant::now(), Copied::default());
        let stream = self.open(port).await?;
        match relay(stream, socket, &copied).await {
            Ok(()) => Ok(Traffic::of(&copied, begin)),
            Err(error) => {
                self.note(&error);
                Err(error)
            }
        }
    }

    /// The pod that connections go to at the moment.
    pub async fn pod(&self) -> Pod {
        self.shared.state().pod.clone()
    }

    /// The subprotocol in use.
    pub async fn protocol(&self) -> ForwardProtocol {
        match &self.shared.state().transport {
            Transport::Shared(_) => ForwardProtocol::Spdy,
            Transport::Channels(protocol) => *protocol,
        }
    }

    /// Waits until the WebSocket that new connections would use, the oldest of several, is over, or
    /// has become too silent to be used. Over channels there is none: it waits for ever.
    ///
    /// Cancel safety: nothing is lost; call it again.
    ///
    /// # Errors
    ///
    /// Why it is over, unless the server ended it in order.
    pub async fn closed(&self) -> Result<()> {
        let first = match &self.shared.state().transport {
            Transport::Shared(sockets) => {
                Some(sockets.first().map(|socket| socket.connections.clone()))
            }
            Transport::Channels(_) => None,
        };
        let connections = match first {
            Some(Some(connections)) => connections,
            Some(None) => return Ok(()),
            None => return std::future::pending().await,
        };
        connections.closed().await
    }

    /// Closes the tunnel and all its connections. The next [`open`](Self::open) dials again.
    pub async fn close(&self) {
        for socket in self.shared.state().transport.sockets() {
            socket.connections.close();
        }
    }
}

/// Whether what failed may work in a moment: an API server that restarts, and does not know its
/// roles yet, credentials that cannot be renewed meanwhile, a pod that is replaced.
fn is_passing(error: &Error) -> bool {
    match error {
        Error::Network(_)
        | Error::Caller(CallerError::NoPod { .. } | CallerError::Config { .. }) => true,
        Error::Api(refusal) => matches!(refusal.status.code, 400 | 401 | 403 | 404 | 429 | 500..),
        _ => false,
    }
}

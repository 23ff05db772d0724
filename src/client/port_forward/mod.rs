//! port-forward: the builder, and the tunnel that carries connections to a pod.

mod listen;
mod resolve;
mod target;

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use http::HeaderMap;
use tokio::{net::ToSocketAddrs, sync::Mutex, time::Instant};

use self::resolve::Destination;
use super::{Client, Pod};
use crate::{
    Result, Role,
    error::{CallerError, Error, NetworkError, PeerError},
    limits,
    session::{
        mux::PingConfig,
        port_forward::{
            Channels, ForwardConfig, ForwardProtocol, OpenError, PortForward as Session,
            Tunnel as TunnelSession, WhenFull,
        },
    },
    transport::{
        port_forward::{Connections, News},
        upgrade::{self, Opened, Upgrade},
        websocket::Socket,
    },
};

pub use self::{
    listen::{ListenEvent, Listener},
    target::{ForwardPort, ForwardTarget, ResolvedPort},
};
pub use crate::transport::port_forward::ForwardStream;

/// When this side's end of a connection is passed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum HalfClose {
    /// At once, as TCP would.
    #[default]
    Propagate,
    /// When the other end has finished, or the connection is dropped.
    ///
    /// containerd ends a forwarded connection one second after either side has finished
    /// (`sandbox_portforward_linux.go`), which cuts off an answer that takes longer. A client that
    /// finishes after its request and an application that answers slowly need this.
    Defer,
}

/// Opens connections to ports of a pod; see [`Pod::port_forward`] and [`Client::port_forward`].
#[derive(Debug, Clone)]
#[must_use = "nothing is forwarded until it is connected"]
pub struct PortForward {
    client: Client,
    namespace: String,
    target: ForwardTarget,
    protocols: Vec<ForwardProtocol>,
    config: ForwardConfig,
    half_close: HalfClose,
}

impl PortForward {
    pub(super) fn new(client: Client, namespace: String, target: ForwardTarget) -> Self {
        Self {
            client,
            namespace,
            target,
            protocols: vec![ForwardProtocol::Tunnel, ForwardProtocol::V4],
            config: ForwardConfig::default(),
            half_close: HalfClose::default(),
        }
    }

    /// The subprotocols to use, most wanted first; unless set, the tunnel and, where the server
    /// does not have it, [`ForwardProtocol::V4`].
    ///
    /// A channel protocol takes one WebSocket a connection: the ports are those of the request,
    /// and the server connects to them at once, so that nothing can be dialled in advance without
    /// the application seeing it.
    pub fn subprotocols(mut self, protocols: impl IntoIterator<Item = ForwardProtocol>) -> Self {
        self.protocols = protocols.into_iter().collect();
        self
    }

    /// Bytes of one connection that may wait for its reader;
    /// [`limits::FORWARD_RECEIVE`] unless set. Up to here a slow
    /// reader slows nobody else.
    pub fn buffer(mut self, bytes: usize) -> Self {
        self.config.mux.receive_buffer = bytes.max(1);
        self
    }

    /// What happens at that bound; [`WhenFull::Hold`] unless set.
    pub fn when_full(mut self, choice: WhenFull) -> Self {
        self.config.when_full = choice;
        self
    }

    /// When the end of this side is passed on; [`HalfClose::Propagate`] unless set.
    pub fn half_close(mut self, choice: HalfClose) -> Self {
        self.half_close = choice;
        self
    }

    /// How often to ask the tunnel for signs of life, and how long to wait for them.
    pub fn ping(mut self, config: PingConfig) -> Self {
        self.config.mux.ping = config;
        self
    }

    /// All bounds and times of the session.
    pub fn config(mut self, config: ForwardConfig) -> Self {
        self.config = config;
        self
    }

    /// Connects.
    ///
    /// Cancel safety: dropping the future drops the connection.
    ///
    /// # Errors
    ///
    /// [`Error::Api`] if the server refuses: there is no such pod, it does not run, or the user
    /// may not; [`Error::Network`] if it cannot be reached; [`Error::Peer`] if it does not speak
    /// the protocol; [`NetworkError::NoPod`] if none of a service's or workload's pods runs.
    pub async fn connect(&self) -> Result<Tunnel> {
        let destination = self.find(None).await?;
        let way = self.find_way(&destination.pod).await?;
        Ok(Tunnel {
            shared: Arc::new(Shared {
                forward: self.clone(),
                state: Mutex::new(State {
                    destination,
                    way,
                    looked: Instant::now(),
                }),
                doubt: AtomicBool::new(false),
            }),
        })
    }

    async fn find(&self, keep: Option<&Destination>) -> Result<Destination> {
        resolve::find(&self.client, &self.namespace, &self.target, keep).await
    }

    async fn find_way(&self, pod: &Pod) -> Result<Way> {
        let channels = self.protocols.iter().find(|p| p.encoding().is_some());
        if self.protocols.first() == channels {
            let protocol = channels.ok_or_else(|| {
                CallerError::Request("no subprotocol of port-forward is offered".into())
            })?;
            return Ok(Way::Channels(*protocol));
        }
        match (self.dial_tunnel(pod).await, channels) {
            (Ok(connections), _) => Ok(Way::Tunnel(connections)),
            (Err(error), Some(protocol)) if may_lack_tunnel(&error) => {
                // Port 1 is not there, which the server says on a WebSocket that has opened.
                match self.dial(pod, *protocol, &[1]).await {
                    Ok(_) => Ok(Way::Channels(*protocol)),
                    Err(_) => Err(error),
                }
            }
            (Err(error), _) => Err(error),
        }
    }

    async fn dial_tunnel(&self, pod: &Pod) -> Result<Connections> {
        let opened = self.dial(pod, ForwardProtocol::Tunnel, &[]).await?;
        let session =
            TunnelSession::new(Role::Client, self.config.clone(), crate::transport::now());
        Ok(self.start(Session::Tunnel(session), opened))
    }

    /// One connection over a WebSocket of its own.
    async fn dial_channel(
        &self,
        pod: &Pod,
        protocol: ForwardProtocol,
        port: u16,
    ) -> Result<ForwardStream> {
        let encoding = protocol.encoding().ok_or(CallerError::Ended)?;
        let opened = self.dial(pod, protocol, &[port]).await?;
        let config = self.config.clone();
        let session = Channels::new(
            Role::Client,
            encoding,
            &[port],
            config,
            crate::transport::now(),
        )?;
        let socket = Box::new(Socket::new(opened.io, Role::Client, opened.read));
        let defer = self.half_close == HalfClose::Defer;
        Connections::spawn_opened(Session::Channels(session), socket, defer, port)
            .map_err(|why| NetworkError::Lost(Arc::new(std::io::Error::other(why))).into())
    }

    async fn dial(&self, pod: &Pod, protocol: ForwardProtocol, ports: &[u16]) -> Result<Opened> {
        let ports: Vec<String> = ports.iter().map(u16::to_string).collect();
        let query: Vec<_> = ports.iter().map(|port| ("ports", port.as_str())).collect();
        let operation = pod.operation("port-forward to");
        let opened = upgrade::open(
            self.client.connector(),
            Upgrade {
                operation: &operation,
                path_and_query: &pod.path("portforward", &query)?,
                offer: Some(protocol.name()),
                headers: HeaderMap::new(),
            },
        )
        .await?;
        match opened.protocol.as_deref() {
            Some(answer) if answer == protocol.name() => Ok(opened),
            answer => Err(PeerError::Subprotocol {
                offered: protocol.name().to_owned(),
                answer: answer.unwrap_or_default().to_owned(),
            }
            .into()),
        }
    }

    fn start(&self, session: Session, opened: Opened) -> Connections {
        let socket = Socket::new(opened.io, Role::Client, opened.read);
        let defer = self.half_close == HalfClose::Defer;
        Connections::spawn_with(session, Box::new(socket), defer)
    }
}

/// Whether a refusal can mean that the server does not know the tunnel protocol. A kubelet answers
/// a subprotocol that it does not know with a bare 403, and API servers in between with what they
/// make of that.
fn may_lack_tunnel(error: &Error) -> bool {
    match error {
        Error::Api(refusal) => {
            let known = refusal.status.details.is_some();
            !known && matches!(refusal.status.code, 400 | 403 | 500..)
        }
        Error::Peer(PeerError::Subprotocol { .. } | PeerError::Handshake(_)) => true,
        _ => false,
    }
}

/// How connections are opened.
#[derive(Debug)]
enum Way {
    /// On one WebSocket.
    Tunnel(Connections),
    /// On a WebSocket each.
    Channels(ForwardProtocol),
}

#[derive(Debug)]
struct Shared {
    forward: PortForward,
    state: Mutex<State>,
    /// Whether a connection failed in a way that speaks of a pod that has gone.
    doubt: AtomicBool,
}

#[derive(Debug)]
struct State {
    destination: Destination,
    way: Way,
    /// When the pod was last known to be there.
    looked: Instant,
}

impl State {
    /// Finds the pod anew if it may have gone, and dials if there is no way to it.
    async fn renew(&mut self, forward: &PortForward, doubt: bool) -> Result<()> {
        let lost = match &self.way {
            Way::Tunnel(connections) => connections.should_leave(),
            Way::Channels(_) => false,
        };
        let stale = self.looked.elapsed() >= limits::FORWARD_FRESH
            && self.destination.is_gone(&forward.client).await;
        if !(lost || doubt || stale) {
            if self.looked.elapsed() >= limits::FORWARD_FRESH {
                self.looked = Instant::now();
            }
            return Ok(());
        }
        let next = forward.find(Some(&self.destination)).await?;
        // The old one goes on with the connections that it has.
        if let Way::Tunnel(connections) = &mut self.way
            && (lost || doubt || !next.is_pod_of(&self.destination))
        {
            tracing::debug!(
                pod = next.pod.name(),
                "dialling the port-forward tunnel again"
            );
            *connections = forward.dial_tunnel(&next.pod).await?;
        }
        self.destination = next;
        self.looked = Instant::now();
        Ok(())
    }
}

/// A way to a pod, on which connections can be opened.
///
/// Clones share it. It is closed when they and all its connections have been dropped. A tunnel
/// that has died or has become silent is dialled again for the next connection.
///
/// # Slow readers
///
/// The protocol has no flow control, and one WebSocket carries all connections. Each may leave
/// [`PortForward::buffer`] bytes unread without slowing the others;
/// [`PortForward::when_full`] says what happens then. Connections that must never wait for each
/// other get a tunnel each.
#[derive(Debug, Clone)]
pub struct Tunnel {
    shared: Arc<Shared>,
}

impl Tunnel {
    /// Opens a connection to a port: a number, or a name such as `"http"`.
    ///
    /// Of a service it is the service's port, which leads to the pod's `targetPort`. Names of
    /// other targets' ports are those that the pod's containers give them; to look one up needs
    /// the right `get` on `pods`.
    ///
    /// Over the tunnel protocol it is ready at once, before the server has answered: a refusal by
    /// the application shows in the first read. Where the pod was found through a service or a
    /// workload, the server is asked whether it still runs, at most once in
    /// [`limits::FORWARD_FRESH`]; if not, another is found.
    ///
    /// Cancel safety: dropping the future opens nothing.
    ///
    /// # Errors
    ///
    /// Those of [`PortForward::connect`], where the tunnel has to be dialled again;
    /// [`CallerError::Request`] if there is no such port.
    pub async fn open(&self, port: impl Into<ForwardPort>) -> Result<ForwardStream> {
        self.open_port(&port.into()).await
    }

    async fn open_port(&self, port: &ForwardPort) -> Result<ForwardStream> {
        let Shared {
            forward,
            state,
            doubt,
        } = &*self.shared;
        let mut state = state.lock().await;
        let doubted = doubt.load(Ordering::Relaxed);
        state.renew(forward, doubted).await?;
        if doubted {
            doubt.store(false, Ordering::Relaxed);
        }
        let port = state.destination.port(&forward.client, port).await?.pod;
        let protocol = match &state.way {
            Way::Channels(protocol) => *protocol,
            Way::Tunnel(connections) => {
                let opened = connections.open(port);
                return opened.map_err(|why| ended(connections, why));
            }
        };
        let pod = state.destination.pod.clone();
        drop(state);
        forward.dial_channel(&pod, protocol, port).await
    }

    /// Tells what a connection died of. The next one looks for the pod again, unless it was the
    /// application that refused.
    fn note(&self, error: &Error) {
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
    /// [`CallerError::Request`] if there is no such port, and those of [`Client::request`].
    pub async fn resolve(&self, port: impl Into<ForwardPort>) -> Result<ResolvedPort> {
        let port = port.into();
        let mut state = self.shared.state.lock().await;
        state
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

    /// The pod that connections go to at the moment.
    pub async fn pod(&self) -> Pod {
        self.shared.state.lock().await.destination.pod.clone()
    }

    /// The subprotocol in use.
    pub async fn protocol(&self) -> ForwardProtocol {
        match &self.shared.state.lock().await.way {
            Way::Tunnel(_) => ForwardProtocol::Tunnel,
            Way::Channels(protocol) => *protocol,
        }
    }

    /// Streams of the WebSocket that new connections would use which are not forgotten: of
    /// connections that either end may still use, or that have not been read to the end, two each.
    /// Over channels there is no such WebSocket, and none.
    pub async fn streams(&self) -> usize {
        match &self.shared.state.lock().await.way {
            Way::Tunnel(connections) => connections.streams(),
            Way::Channels(_) => 0,
        }
    }

    /// Waits until the WebSocket that new connections would use is over, or has become too silent
    /// to be used. Over channels there is none: it waits for ever.
    ///
    /// Cancel safety: nothing is lost; call it again.
    ///
    /// # Errors
    ///
    /// Why it is over, unless the server ended it in order.
    pub async fn closed(&self) -> Result<()> {
        let connections = match &self.shared.state.lock().await.way {
            Way::Tunnel(connections) => connections.clone(),
            Way::Channels(_) => return std::future::pending().await,
        };
        match std::future::poll_fn(|cx| connections.poll_news(cx)).await {
            News::Ended(how) => how,
            News::Leave => Ok(()),
        }
    }

    /// Closes the tunnel and all its connections. The next [`open`](Self::open) dials again.
    pub async fn close(&self) {
        if let Way::Tunnel(connections) = &self.shared.state.lock().await.way {
            connections.close();
        }
    }
}

fn ended(connections: &Connections, why: OpenError) -> Error {
    match connections.ended() {
        Some(Err(error)) => error,
        _ => {
            let source = std::io::Error::other(why);
            NetworkError::Lost(Arc::new(source)).into()
        }
    }
}

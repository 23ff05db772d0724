//! port-forward: the builder, and the tunnel that carries connections to a pod.

mod listen;

use std::sync::Arc;

use http::HeaderMap;
use tokio::{net::ToSocketAddrs, sync::Mutex};

use super::Pod;
use crate::{
    Result, Role,
    error::{CallerError, Error, NetworkError, PeerError},
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

pub use self::listen::{ListenEvent, Listener};
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

/// Opens connections to ports of a pod.
#[derive(Debug, Clone)]
#[must_use = "nothing is forwarded until it is connected"]
pub struct PortForward {
    pod: Pod,
    protocols: Vec<ForwardProtocol>,
    config: ForwardConfig,
    half_close: HalfClose,
}

impl PortForward {
    pub(super) fn new(pod: Pod) -> Self {
        Self {
            pod,
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
    /// [`limits::FORWARD_RECEIVE`](crate::limits::FORWARD_RECEIVE) unless set. Up to here a slow
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
    /// the protocol.
    pub async fn connect(&self) -> Result<Tunnel> {
        let way = self.find_way().await?;
        Ok(Tunnel {
            shared: Arc::new(Shared {
                forward: self.clone(),
                way: Mutex::new(way),
            }),
        })
    }

    async fn find_way(&self) -> Result<Way> {
        let channels = self.protocols.iter().find(|p| p.encoding().is_some());
        if self.protocols.first() == channels {
            let protocol = channels.ok_or_else(|| {
                CallerError::Request("no subprotocol of port-forward is offered".into())
            })?;
            return Ok(Way::Channels(*protocol));
        }
        match (self.dial_tunnel().await, channels) {
            (Ok(connections), _) => Ok(Way::Tunnel(connections)),
            (Err(error), Some(protocol)) if may_lack_tunnel(&error) => {
                // Port 1 is not there, which the server says on a WebSocket that has opened.
                match self.dial(*protocol, &[1]).await {
                    Ok(_) => Ok(Way::Channels(*protocol)),
                    Err(_) => Err(error),
                }
            }
            (Err(error), _) => Err(error),
        }
    }

    async fn dial_tunnel(&self) -> Result<Connections> {
        let opened = self.dial(ForwardProtocol::Tunnel, &[]).await?;
        let session =
            TunnelSession::new(Role::Client, self.config.clone(), crate::transport::now());
        Ok(self.start(Session::Tunnel(session), opened))
    }

    /// One connection over a WebSocket of its own.
    async fn dial_channel(&self, protocol: ForwardProtocol, port: u16) -> Result<ForwardStream> {
        let encoding = protocol.encoding().ok_or(CallerError::Ended)?;
        let opened = self.dial(protocol, &[port]).await?;
        let config = self.config.clone();
        let session = Channels::new(
            Role::Client,
            encoding,
            &[port],
            config,
            crate::transport::now(),
        )?;
        let connections = self.start(Session::Channels(session), opened);
        connections
            .open(port)
            .map_err(|why| ended(&connections, why))
    }

    async fn dial(&self, protocol: ForwardProtocol, ports: &[u16]) -> Result<Opened> {
        let ports: Vec<String> = ports.iter().map(u16::to_string).collect();
        let query: Vec<_> = ports.iter().map(|port| ("ports", port.as_str())).collect();
        let operation = self.pod.operation("port-forward to");
        let opened = upgrade::open(
            self.pod.client().connector(),
            Upgrade {
                operation: &operation,
                path_and_query: &self.pod.path("portforward", &query)?,
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
    way: Mutex<Way>,
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
    /// Opens a connection to a port of the pod.
    ///
    /// Over the tunnel protocol it is ready at once, before the server has answered: a refusal by
    /// the application shows in the first read.
    ///
    /// Cancel safety: dropping the future opens nothing.
    ///
    /// # Errors
    ///
    /// Those of [`PortForward::connect`], where the tunnel has to be dialled again.
    pub async fn open(&self, port: u16) -> Result<ForwardStream> {
        let mut way = self.shared.way.lock().await;
        let protocol = match &mut *way {
            Way::Channels(protocol) => *protocol,
            Way::Tunnel(connections) => {
                if connections.should_leave() {
                    // The old one goes on with the connections that it has.
                    tracing::debug!("dialling the port-forward tunnel again");
                    *connections = self.shared.forward.dial_tunnel().await?;
                }
                return connections
                    .open(port)
                    .map_err(|why| ended(connections, why));
            }
        };
        drop(way);
        self.shared.forward.dial_channel(protocol, port).await
    }

    /// Listens on local addresses and forwards what connects there to a port of the pod, until the
    /// [`Listener`] is dropped.
    ///
    /// Where a name has several addresses, such as `localhost`, it listens on all that it can.
    ///
    /// # Errors
    ///
    /// [`CallerError::Listen`] if it can listen on none.
    pub async fn listen(&self, addresses: impl ToSocketAddrs, port: u16) -> Result<Listener> {
        Listener::bind(self.clone(), addresses, port).await
    }

    /// The pod.
    pub fn pod(&self) -> &Pod {
        &self.shared.forward.pod
    }

    /// The subprotocol in use.
    pub async fn protocol(&self) -> ForwardProtocol {
        match &*self.shared.way.lock().await {
            Way::Tunnel(_) => ForwardProtocol::Tunnel,
            Way::Channels(protocol) => *protocol,
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
        let connections = match &*self.shared.way.lock().await {
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
        if let Way::Tunnel(connections) = &*self.shared.way.lock().await {
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

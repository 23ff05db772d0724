//! port-forward: in flows what is wanted of which target, out comes a [`Tunnel`] to it.

mod listen;
mod resolve;
mod target;
mod tunnel;

use tracing::Instrument as _;

use self::{resolve::Destination, tunnel::Transport};
use super::{Client, Pod, span};
use crate::{
    Result, Role,
    error::{CallerError, Error, PeerError},
    net::Connection,
    session::{
        KeepaliveConfig,
        port_forward::{Channels, ForwardConfig, ForwardProtocol, Spdy, WhenFull},
    },
    transport::{
        http::{Outgoing, upgrade},
        ws::{port_forward::Connections, websocket::Socket},
    },
};

pub use self::{
    listen::{ListenEvent, Listener, ListenerStats, Traffic},
    target::{ForwardPort, ForwardTarget, ResolvedPort},
    tunnel::{Tunnel, TunnelStats},
};
pub use crate::transport::ws::port_forward::ForwardStream;

/// When this side's end of a connection is passed on.
///
/// ```
/// # async fn run(pod: kubewire::Pod) -> Result<(), Box<dyn std::error::Error>> {
/// use kubewire::port_forward::HalfClose;
/// use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
///
/// let forward = pod.port_forward().half_close(HalfClose::Defer);
/// let mut stream = forward.connect().await?.open(8080).await?;
/// stream.write_all(b"a slow question").await?;
/// stream.shutdown().await?; // the pod hears of it when it has answered
/// let mut answer = String::new();
/// stream.read_to_string(&mut answer).await?;
/// # Ok(())
/// # }
/// ```
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
///
/// ```
/// # kubewire::example(|pod| pod.container("main", ["sleep", "infinity"]), async |client| {
/// # use tokio::io::AsyncReadExt as _;
/// # let port = kubewire::example_port().await?;
/// let forward = client.pod("default", "web-0").port_forward().websockets(4);
/// let tunnel = forward.connect().await?;
/// let mut answer = String::new();
/// tunnel.open(port).await?.read_to_string(&mut answer).await?;
/// assert_eq!(answer, "hello");
/// # Ok(())
/// # });
/// ```
#[derive(Debug, Clone)]
#[must_use = "nothing is forwarded until it is connected"]
pub struct PortForward {
    client: Client,
    namespace: String,
    target: Result<ForwardTarget, CallerError>,
    protocols: Vec<ForwardProtocol>,
    config: ForwardConfig,
    half_close: HalfClose,
    websockets: usize,
}

impl PortForward {
    pub(super) fn new(
        client: Client,
        namespace: String,
        target: Result<ForwardTarget, CallerError>,
    ) -> Self {
        Self {
            client,
            namespace,
            target,
            protocols: vec![ForwardProtocol::Spdy, ForwardProtocol::V4],
            config: ForwardConfig::default(),
            half_close: HalfClose::default(),
            websockets: 1,
        }
    }

    setters! {
        /// The subprotocols to use, most wanted first; unless set, SPDY and, where the server
        /// does not have it, [`ForwardProtocol::V4`].
        ///
        /// A channel protocol takes one WebSocket a connection: the ports are those of the request,
        /// and the server connects to them at once, so that nothing can be dialled in advance without
        /// the application seeing it.
        fn subprotocols(protocols: impl IntoIterator<Item = ForwardProtocol>)
            protocols = protocols.into_iter().collect();

        /// Bytes of one connection that may wait for its reader;
        /// [`limits::FORWARD_RECEIVE`](crate::limits::FORWARD_RECEIVE) unless set. Up to here a slow
        /// reader slows nobody else.
        fn buffer(bytes: usize) config.mux.receive_buffer = bytes.max(1);

        /// What happens at that bound; [`WhenFull::Hold`] unless set.
        fn when_full(choice: WhenFull) config.when_full = choice;

        /// The WebSockets over which SPDY spreads its connections, at most; 1 unless
        /// set. Readers that fall behind hold up those on the same WebSocket only.
        ///
        /// A connection takes a WebSocket on which there is no other. Where there is none, another is
        /// dialled, which takes the time of a handshake; where these are enough, it takes one that is
        /// not held back, with as few connections as there are. With as many as there are ever
        /// connections at once, no reader stalls another. They stay open for the next connections
        /// until the [`Tunnel`] is dropped.
        fn websockets(most: usize) websockets = most.max(1);

        /// When the end of this side is passed on; [`HalfClose::Propagate`] unless set.
        fn half_close(choice: HalfClose) half_close = choice;

        /// All bounds and times of the session.
        fn config(config: ForwardConfig) config = config;
    }

    /// How often to ask the server for signs of life, and how long to wait for them. What more
    /// there is to choose for SPDY, [`config`](Self::config) has.
    pub fn keepalive(mut self, config: KeepaliveConfig) -> Self {
        let keepalive = &mut self.config.mux.keepalive;
        keepalive.interval = config.interval;
        keepalive.silence = config.silence;
        // Nothing is suspect later than it is dead.
        keepalive.suspect = keepalive.suspect.min(config.silence);
        self.config.keepalive = config;
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
    /// the protocol; [`CallerError::NoPod`] if none of a service's or workload's pods runs.
    pub async fn connect(&self) -> Result<Tunnel> {
        let span = span::port_forward(&self.client, &self.namespace);
        let connecting = async {
            let destination = self.find(None).await?;
            span.record("k8s.pod.name", destination.pod.name());
            let transport = self.negotiate(&destination.pod).await;
            span::record_opened(&span, &transport);
            match transport {
                Ok(transport) => Ok((destination, transport)),
                Err(error) => {
                    let pod = &destination.pod;
                    Err(pod.explain(error, Some("portforward")).await)
                }
            }
        };
        let (destination, transport) = connecting.instrument(span.clone()).await?;
        Ok(Tunnel::new(self.clone(), destination, transport, span))
    }

    async fn find(&self, keep: Option<&Destination>) -> Result<Destination> {
        let target = self.target.as_ref().map_err(CallerError::clone)?;
        resolve::find(&self.client, &self.namespace, target, keep).await
    }

    async fn negotiate(&self, pod: &Pod) -> Result<Transport> {
        let channels = self.protocols.iter().find(|p| p.encoding().is_some());
        if self.protocols.first() == channels {
            let protocol = channels.ok_or(CallerError::NoSubprotocol)?;
            return Ok(Transport::Channels(*protocol));
        }
        match (self.dial_spdy(pod).await, channels) {
            (Ok(connections), _) => Ok(Transport::shared(connections)),
            (Err(error), Some(protocol)) if may_lack_spdy(&error) => {
                // Port 1 is not there, which the server says on a WebSocket that has opened.
                match self.dial(pod, *protocol, &[1]).await {
                    Ok(_) => Ok(Transport::Channels(*protocol)),
                    Err(_) => Err(error),
                }
            }
            (Err(error), _) => Err(error),
        }
    }

    async fn dial_spdy(&self, pod: &Pod) -> Result<Connections> {
        let socket = self.dial(pod, ForwardProtocol::Spdy, &[]).await?;
        let session = Spdy::new(Role::Client, self.config.clone(), crate::transport::now());
        let session = Box::new(session);
        Ok(Connections::spawn_with(session, socket, self.defers()))
    }

    /// One connection over a WebSocket of its own.
    async fn dial_channel(
        &self,
        pod: &Pod,
        protocol: ForwardProtocol,
        port: u16,
    ) -> Result<ForwardStream> {
        let encoding = protocol.encoding().ok_or(CallerError::Ended)?;
        let socket = self.dial(pod, protocol, &[port]).await?;
        let (config, now) = (self.config.clone(), crate::transport::now());
        let session = Channels::new(Role::Client, encoding, &[port], config, now)?;
        Connections::spawn_opened(Box::new(session), socket, self.defers(), port)
            .map_err(|why| Error::lost(std::io::Error::other(why)))
    }

    async fn dial(
        &self,
        pod: &Pod,
        protocol: ForwardProtocol,
        ports: &[u16],
    ) -> Result<Box<Socket<Connection>>> {
        let ports: Vec<String> = ports.iter().map(u16::to_string).collect();
        let query: Vec<_> = ports.iter().map(|port| ("ports", port.as_str())).collect();
        let operation = pod.operation("port-forward to");
        let outgoing = Outgoing {
            about: pod.about("get", "portforward"),
            ..Outgoing::upgrade(operation, pod.path("portforward", &query)?)
        };
        let opened = upgrade::open(self.client.http(), outgoing, Some(protocol.name())).await?;
        match opened.protocol.as_deref() {
            Some(answer) if answer == protocol.name() => {
                Ok(Box::new(Socket::new(opened.io, Role::Client, opened.read)))
            }
            answer => Err(PeerError::Subprotocol {
                offered: protocol.name().to_owned(),
                answer: answer.unwrap_or_default().to_owned(),
            }
            .into()),
        }
    }

    fn defers(&self) -> bool {
        self.half_close == HalfClose::Defer
    }
}

/// Whether a refusal can mean that the server does not know SPDY over WebSockets. A kubelet answers
/// a subprotocol that it does not know with a bare 403, and API servers in between with what they
/// make of that.
fn may_lack_spdy(error: &Error) -> bool {
    match error {
        Error::Api(refusal) => {
            let known = refusal.status.details.is_some();
            !known && matches!(refusal.status.code, 400 | 403 | 500..)
        }
        Error::Peer(PeerError::Subprotocol { .. } | PeerError::Handshake(_)) => true,
        _ => false,
    }
}

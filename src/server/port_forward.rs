//! port-forward as a server: in flows a request for a WebSocket, out come the ports it names and,
//! once it is accepted, the connections that the client opens.

use std::future::Future;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::upgrade::OnUpgrade;
use tokio::io::{AsyncRead, AsyncWrite};

use super::{
    Refusal,
    upgrade::{Handshake, no_number, opened, query_pairs},
};
use crate::{
    Result, Role,
    session::port_forward::{Channels, ForwardConfig, ForwardProtocol, PortForward, Spdy},
    transport::ws::{
        port_forward::{Connections, ForwardStream},
        relay::{Copied, relay},
    },
};

/// A client's request for port-forward.
///
/// A server reads it, decides whether the client may have what it asks, and
/// [accepts](Self::accept).
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use axum::{Router, body::Body, extract::Request, response::Response, routing::any};
/// use kubewire::{port_forward::ForwardProtocol, server::{PortForwardRequest, Refusal}};
/// use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
///
/// /// Answers every connection with its port.
/// async fn answer(mut request: Request) -> Result<Response, Response> {
///     let refuse = |refusal: Refusal| refusal.into_response().map(Body::new);
///     let asked = PortForwardRequest::parse(&mut request).map_err(refuse)?;
///     let (response, opening) = asked.accept(&[ForwardProtocol::Spdy]).map_err(refuse)?;
///     tokio::spawn(async move {
///         let forwarding = opening.await?;
///         while let Some(incoming) = forwarding.accept().await {
///             let port = incoming.port().to_string();
///             incoming.into_stream().write_all(port.as_bytes()).await?;
///         }
///         std::io::Result::Ok(())
///     });
///     Ok(response.map(Body::new))
/// }
///
/// let router =
///     Router::new().route("/api/v1/namespaces/{namespace}/pods/{pod}/portforward", any(answer));
/// # let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
/// # let url = format!("http://{}", listener.local_addr()?);
/// # tokio::spawn(async { axum::serve(listener, router).await });
/// # let client = kubewire::Client::from_url(&url)?;
/// let tunnel = client.pod("default", "any").port_forward().connect().await?;
/// let mut said = String::new();
/// tunnel.open(8080).await?.read_to_string(&mut said).await?;
/// assert_eq!(said, "8080");
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub struct PortForwardRequest {
    /// The ports that the request names, in order. Only the channel protocols need them; SPDY
    /// names a port for each connection.
    pub ports: Vec<u16>,
    /// The bounds and times of the session.
    pub config: ForwardConfig,
    handshake: Handshake,
    upgrade: OnUpgrade,
}

/// The ports that a request names, 0 among them: whoever reads the query does not mind.
pub(crate) fn named<B>(request: &Request<B>) -> Result<Vec<u16>, Refusal> {
    let pairs = query_pairs(request.uri().query().unwrap_or_default());
    let values = pairs.filter(|(key, _)| key == "ports");
    let mut ports = Vec::new();
    for (_, value) in values {
        for port in value.split(',') {
            ports.push(port.parse().map_err(|error| {
                let why = no_number("ParseUint", port, &error);
                Refusal::bad_request(format!("cannot convert to []int32: {why}"))
            })?);
        }
    }
    Ok(ports)
}

impl PortForwardRequest {
    /// Reads a request. Ports come as `ports=80&ports=443` or `ports=80,443`
    /// (`k8s.io/apimachinery/pkg/apis/meta/v1/conversion.go`).
    ///
    /// # Errors
    ///
    /// A [`Refusal`] with code 400 if it does not ask for a WebSocket of version 13, or names
    /// something that is no port.
    pub fn parse<B>(request: &mut Request<B>) -> Result<Self, Refusal> {
        let handshake = Handshake::check(request)?;
        let ports = named(request)?;
        if ports.contains(&0) {
            return Err(Refusal::bad_request("port \"0\" must be > 0"));
        }
        Ok(Self {
            ports,
            config: ForwardConfig::default(),
            handshake,
            upgrade: hyper::upgrade::on(request),
        })
    }

    /// Accepts the request with the first subprotocol of the client's order that is among
    /// `supported`. Gives the response, which must go to the client, and the future of the
    /// session, which is ready when it has gone there: spawn it.
    ///
    /// # Errors
    ///
    /// A [`Refusal`]: with code 400 where the channel protocols miss the ports that they need, or
    /// cannot number them all; and with a bare 403 where no subprotocol fits.
    pub fn accept(
        self,
        supported: &[ForwardProtocol],
    ) -> Result<
        (
            Response<Full<Bytes>>,
            impl Future<Output = Result<Forwarding>> + Send + 'static,
        ),
        Refusal,
    > {
        let protocol = ForwardProtocol::choose(&self.handshake.offer, supported)
            .ok_or_else(|| Refusal::bare(StatusCode::FORBIDDEN))?;
        let (config, now) = (self.config, crate::transport::now());
        let session: Box<dyn PortForward> = match protocol.encoding() {
            None => Box::new(Spdy::new(Role::Server, config, now)),
            Some(encoding) => {
                let channels = Channels::new(Role::Server, encoding, &self.ports, config, now);
                let refused = |_| match self.ports.len() {
                    0 => Refusal::bad_request("query parameter \"port\" is required"),
                    _ => Refusal::bad_request("too many ports"),
                };
                Box::new(channels.map_err(refused)?)
            }
        };
        // Who offers nothing gets no name back.
        let name = match self.handshake.offer.is_empty() {
            true => "",
            false => protocol.name(),
        };
        let response = self.handshake.response(name);
        let upgrade = self.upgrade;
        let opening = async move {
            Ok(Forwarding {
                connections: Connections::spawn(session, opened(upgrade).await?),
                protocol,
            })
        };
        Ok((response, opening))
    }
}

/// The server's end of a port-forward.
///
/// The connection is closed when this and all its streams have been dropped.
///
/// ```no_run
/// # async fn run(forwarding: kubewire::server::Forwarding) {
/// while let Some(incoming) = forwarding.accept().await {
///     tokio::spawn(async move {
///         match tokio::net::TcpStream::connect(("127.0.0.1", incoming.port())).await {
///             Ok(socket) => incoming.relay(socket).await,
///             Err(error) => Ok(incoming.fail(&error.to_string())),
///         }
///     });
/// }
/// # }
/// ```
#[derive(Debug)]
pub struct Forwarding {
    connections: Connections,
    protocol: ForwardProtocol,
}

impl Forwarding {
    /// The subprotocol that was agreed on.
    pub fn protocol(&self) -> ForwardProtocol {
        self.protocol
    }

    /// Waits for the next connection that the client opens; `None` once the session is over.
    ///
    /// Cancel safety: nothing is lost; call it again.
    pub async fn accept(&self) -> Option<IncomingForward> {
        let (stream, port) = self.connections.accept().await?;
        Some(IncomingForward { stream, port })
    }

    /// Streams that are not forgotten: of connections that either end may still use, or that have
    /// not been read to the end, two each over SPDY.
    pub fn streams(&self) -> usize {
        self.connections.streams()
    }

    /// Ends the session and all its connections.
    pub fn close(&self) {
        self.connections.close();
    }
}

/// A connection that a client wants.
///
/// Dropping it resets the connection.
///
/// ```no_run
/// # async fn run(incoming: kubewire::server::IncomingForward) {
/// match incoming.port() {
///     80 => drop(incoming.into_stream()), // AsyncRead and AsyncWrite
///     port => incoming.fail(&format!("nobody listens on port {port}")),
/// }
/// # }
/// ```
#[derive(Debug)]
pub struct IncomingForward {
    stream: ForwardStream,
    port: u16,
}

impl IncomingForward {
    /// The port that it is for.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Says that the connection could not be made, and why. The client sees the text.
    pub fn fail(self, text: &str) {
        self.stream.fail(text);
    }

    /// The connection itself.
    pub fn into_stream(self) -> ForwardStream {
        self.stream
    }

    /// Copies to and from `socket` until both directions have ended.
    ///
    /// # Errors
    ///
    /// What broke first: the client's end or the socket. The other end has been told.
    pub async fn relay<S>(self, socket: S) -> Result<()>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        relay(self.stream, socket, &Copied::default()).await
    }
}

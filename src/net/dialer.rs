//! Connections to the API server: TCP, the proxy's handshake, TLS.
//!
//! In flow the settings of a [`Config`] and the client certificate to present; out come
//! [`Connection`]s, to which HTTP or WebSocket is spoken.

use std::{
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use http::{Method, Uri};
use hyper_util::client::legacy::connect::HttpConnector;
use rustls::pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tokio_util::either::Either;
use tower_service::Service;

use super::{
    certificate::{ClientCertificate, Presented},
    connection::{Base, Connection, Link, Secured},
    proxy,
    rotation::Rotating,
    tls,
};
use crate::{
    Error, REQUESTS, Result,
    config::{Config, Dial, Identity, Proxy, ProxyKind, Server, TlsSettings},
    error::{CallerError, NetworkError},
    limits,
};

pub(crate) struct Dialer {
    server: Server,
    tls: Option<Tls>,
    through: Option<Through>,
    tcp: HttpConnector,
    dial: Option<Dial>,
    connect_timeout: Duration,
}

struct Tls {
    rotating: Arc<Rotating>,
    name: ServerName<'static>,
    trusted: String,
}

/// A proxy, and for one that speaks TLS whom to trust: never the cluster's authorities.
struct Through {
    proxy: Proxy,
    tls: Option<(TlsConnector, ServerName<'static>)>,
}

/// What is spoken over a connection, to be settled in the TLS handshake (RFC 7301).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Alpn {
    /// HTTP/1.1 only, as an upgrade needs.
    Http1,
    /// HTTP/2 if the server can; [`Connection::is_http2`] tells. Without TLS, HTTP/1.1.
    Http2,
}

impl Dialer {
    /// Prepares connections: reads certificates and keys, and checks what can be checked before
    /// there is a connection.
    ///
    /// # Errors
    ///
    /// [`CallerError::Config`](crate::error::CallerError::Config) for a file that cannot be read,
    /// PEM that holds nothing, or a key that does not fit its certificate.
    pub(crate) fn new(config: &Config) -> Result<Self> {
        let tls = match config.server.https {
            false => None,
            true => Some(Tls {
                rotating: Arc::new(Rotating::new(config.tls.clone())?),
                name: tls::server_name(&config.tls, &config.server.host)?,
                trusted: tls::trusted(&config.tls),
            }),
        };
        let through = config.proxies.of(&config.server)?;
        let through = through.map(Through::new).transpose()?;
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_keepalive(Some(config.tcp_keepalive));
        tcp.set_connect_timeout(Some(config.connect_timeout));
        Ok(Self {
            server: config.server.clone(),
            tls,
            through,
            tcp,
            dial: config.dial.clone(),
            connect_timeout: config.connect_timeout,
        })
    }

    /// A connection over which `alpn` is spoken. `identity` is presented in place of the
    /// configuration's certificate.
    ///
    /// Dropping the future gives the connection up.
    ///
    /// # Errors
    ///
    /// [`NetworkError::Connect`], [`NetworkError::Proxy`], [`NetworkError::Certificate`],
    /// [`NetworkError::Tls`] or, after the configured time for TCP and the proxy's answer or
    /// [`limits::TLS_HANDSHAKE`], [`NetworkError::TimedOut`].
    /// [`CallerError::Config`](crate::error::CallerError::Config) if the identity cannot be used.
    pub(crate) async fn dial(&self, alpn: Alpn, identity: Option<Identity>) -> Result<Connection> {
        let address = self.server.address();
        let current = match &self.tls {
            None => None,
            Some(tls) => Some((tls, tls.rotating.get(identity).await?)),
        };
        let link = self.reach(&address).await?;
        let Some((tls, current)) = current else {
            return Ok(Connection::plain(link));
        };
        let connector = match alpn {
            Alpn::Http1 => &current.http1,
            Alpn::Http2 => &current.http2,
        };
        let presented = Arc::clone(&current.presented);
        let name = &tls.name;
        let stream = handshake(connector, name, link, &address, &tls.trusted, &presented).await?;
        Ok(Connection::tls(stream, presented))
    }

    /// Whether the files of certificates and keys differ from what the last connection was made
    /// with. Reads them.
    pub(crate) fn certificates_changed(&self) -> bool {
        let tls = self.tls.as_ref();
        tls.is_some_and(|tls| tls.rotating.has_changed())
    }

    /// The client certificate that the last connection presented.
    pub(crate) fn certificate(&self) -> Option<ClientCertificate> {
        let tls = self.tls.as_ref()?;
        tls.rotating.current().presented.certificate.clone()
    }

    /// What the server said of that certificate, if it refused it.
    pub(crate) fn refusal(&self) -> Option<CallerError> {
        let tls = self.tls.as_ref()?;
        tls.rotating.current().presented.refusal()
    }

    pub(crate) fn server(&self) -> &Server {
        &self.server
    }

    pub(crate) fn is_tls(&self) -> bool {
        self.tls.is_some()
    }

    /// Dials, and has the proxy connect if there is one.
    async fn reach(&self, address: &str) -> Result<Link> {
        let Some(Through { proxy, tls }) = &self.through else {
            let (host, port) = (self.server.host.as_str(), self.server.port);
            return Ok(Either::Left(self.base(host, port, address).await?));
        };
        let place = proxy.address();
        let base = self.base(&proxy.host, proxy.port, &place).await;
        let base = base.map_err(|error| error.about("the proxy"))?;
        let mut link = match tls {
            None => Either::Left(base),
            Some((connector, name)) => {
                let trusted = tls::trusted(&TlsSettings::default());
                let presented = Arc::<Presented>::default();
                let stream = handshake(connector, name, base, &place, &trusted, &presented).await;
                let stream = stream.map_err(|error| error.about("the proxy"))?;
                Either::Right(Box::new(Secured::new(stream, presented)))
            }
        };
        let to = (self.server.host.as_str(), self.server.port);
        let login = proxy.login.as_ref();
        let asked = async {
            match proxy.kind {
                ProxyKind::Http | ProxyKind::Https => {
                    proxy::connect(&mut link, to, login).await.map(Some)
                }
                ProxyKind::Socks5 => proxy::socks5(&mut link, to, login).await.map(|()| None),
            }
        };
        let begun = Instant::now();
        let answer = tokio::time::timeout(self.connect_timeout, asked).await;
        let ms = begun.elapsed().as_millis();
        let error = match answer {
            Ok(Ok(status)) => {
                tracing::debug!(target: REQUESTS, method = %Method::CONNECT, url = %address, status, proxy = %place, ms, "answered");
                return Ok(link);
            }
            Ok(Err(error)) => Error::from(NetworkError::Proxy {
                proxy: place.clone(),
                address: address.to_owned(),
                source: Arc::new(error),
            }),
            Err(_) => self.late(&format!("{address} through the proxy {place}")),
        };
        tracing::debug!(target: REQUESTS, method = %Method::CONNECT, url = %address, proxy = %place, %error, ms, "failed");
        Err(error)
    }

    /// A stream to a host and port; `address` is both, for the error texts.
    async fn base(&self, host: &str, port: u16, address: &str) -> Result<Base> {
        let Some(dial) = &self.dial else {
            return Ok(Either::Left(self.tcp(address).await?));
        };
        match tokio::time::timeout(self.connect_timeout, dial.dial(host, port)).await {
            Ok(Ok(stream)) => Ok(Either::Right(stream)),
            Ok(Err(source)) => Err(NetworkError::Connect {
                address: address.to_owned(),
                source: Arc::new(source),
            }
            .into()),
            Err(_) => Err(self.late(address)),
        }
    }

    fn late(&self, address: &str) -> Error {
        Error::late(format!("the connection to {address}"), self.connect_timeout)
    }

    /// Resolves and dials: both address families, the second 300 ms after the first (RFC 8305).
    async fn tcp(&self, address: &str) -> Result<TcpStream> {
        let failed = |source: io::Error| NetworkError::Connect {
            address: address.to_owned(),
            source: Arc::new(source),
        };
        // The scheme plays no part: the address names the port.
        let uri = Uri::builder()
            .scheme("http")
            .authority(address)
            .path_and_query("/")
            .build()
            .map_err(|error| failed(io::Error::new(io::ErrorKind::InvalidInput, error)))?;
        let dialled = self.tcp.clone().call(uri);
        match tokio::time::timeout(self.connect_timeout, dialled).await {
            Ok(Ok(stream)) => Ok(stream.into_inner()),
            Ok(Err(error)) => Err(failed(innermost(&error)).into()),
            Err(_) => Err(self.late(address)),
        }
    }
}

async fn handshake<S>(
    connector: &TlsConnector,
    name: &ServerName<'static>,
    stream: S,
    address: &str,
    trusted: &str,
    presented: &Presented,
) -> Result<TlsStream<S>>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let handshake = connector.connect(name.clone(), stream);
    match tokio::time::timeout(limits::TLS_HANDSHAKE, handshake).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(error)) => Err(tls::handshake_error(address, trusted, presented, error)),
        Err(_) => {
            let operation = format!("the TLS handshake with {address}");
            Err(Error::late(operation, limits::TLS_HANDSHAKE))
        }
    }
}

impl Through {
    fn new(proxy: &Proxy) -> Result<Self> {
        let tls = match proxy.kind {
            ProxyKind::Http | ProxyKind::Socks5 => None,
            ProxyKind::Https => {
                let settings = TlsSettings::default();
                let (mut config, _) = tls::client_config(&settings)?;
                config.alpn_protocols = vec![b"http/1.1".to_vec()];
                let name = tls::server_name(&settings, &proxy.host)?;
                Some((Arc::new(config).into(), name))
            }
        };
        Ok(Self {
            proxy: proxy.clone(),
            tls,
        })
    }
}

/// What the operating system or the resolver said: hyper-util wraps it.
fn innermost(error: &(dyn std::error::Error + 'static)) -> io::Error {
    let mut kind = io::ErrorKind::Other;
    let mut text = error.to_string();
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(error) = error.downcast_ref::<io::Error>() {
            if let Some(code) = error.raw_os_error() {
                return io::Error::from_raw_os_error(code);
            }
            kind = error.kind();
            text = error.to_string();
        }
        next = error.source();
    }
    io::Error::new(kind, text)
}

impl std::fmt::Debug for Dialer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Dialer").field(&self.server).finish()
    }
}

#[cfg(test)]
mod tests;

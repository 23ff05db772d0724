//! Connections to the API server: TCP, then TLS, and the credentials that each request carries.
//!
//! In flow a [`Config`]; out come [`Connection`]s, to which HTTP or WebSocket is spoken, and
//! headers.

use std::{io, sync::Arc, time::Duration};

use http::{HeaderMap, HeaderValue, Uri};
use hyper_util::client::legacy::connect::HttpConnector;
use rustls::pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tower_service::Service;

use super::{
    connection::{Connection, Link},
    proxy,
    rotation::Rotating,
    tls,
};
use crate::{
    Result,
    auth::Credentials,
    config::{Config, Proxy, ProxyKind, Server, TlsSettings},
    error::NetworkError,
    limits,
};

/// Makes connections to one API server and authorizes requests to it. Clones are cheap and share
/// the credentials.
#[derive(Clone)]
pub struct Connector {
    inner: Arc<Inner>,
}

struct Inner {
    server: Server,
    credentials: Credentials,
    tls: Option<Tls>,
    through: Option<Through>,
    tcp: HttpConnector,
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

impl Connector {
    /// Prepares connections: reads certificates and keys, and checks what can be checked before
    /// there is a connection.
    ///
    /// # Errors
    ///
    /// [`CallerError::Config`](crate::error::CallerError::Config) for a file that cannot be read,
    /// PEM that holds nothing, a key that does not fit its certificate, or a token that fits no
    /// header.
    pub fn new(config: &Config) -> Result<Self> {
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
        tcp.set_keepalive(Some(limits::TCP_KEEPALIVE));
        tcp.set_connect_timeout(Some(config.connect_timeout));
        Ok(Self {
            inner: Arc::new(Inner {
                server: config.server.clone(),
                credentials: Credentials::new(config)?,
                tls,
                through,
                tcp,
                connect_timeout: config.connect_timeout,
            }),
        })
    }

    /// A connection over which HTTP/1.1 is spoken: what an upgrade needs.
    ///
    /// Dropping the future gives the connection up.
    ///
    /// # Errors
    ///
    /// [`NetworkError::Connect`], [`NetworkError::Proxy`], [`NetworkError::Certificate`],
    /// [`NetworkError::Tls`] or, after the configured time for TCP and the proxy's answer or
    /// [`limits::TLS_HANDSHAKE`], [`NetworkError::TimedOut`].
    /// [`CallerError::Config`](crate::error::CallerError::Config) if the credentials hold a client
    /// certificate that cannot be had.
    pub async fn connect(&self) -> Result<Connection> {
        self.connect_as(Alpn::Http1).await
    }

    /// A connection over which `alpn` is spoken.
    ///
    /// Dropping the future gives the connection up.
    ///
    /// # Errors
    ///
    /// Those of [`connect`](Self::connect).
    pub async fn connect_as(&self, alpn: Alpn) -> Result<Connection> {
        let inner = &self.inner;
        let address = inner.server.address();
        // Before there is a connection, which would wait for a plugin.
        let config = match &inner.tls {
            None => None,
            Some(tls) => {
                let identity = inner.credentials.identity().await?;
                Some((tls, tls.rotating.get(identity).await?))
            }
        };
        let link = inner.reach(&address).await?;
        let Some((tls, current)) = config else {
            return Ok(Connection::plain(link));
        };
        let connector = match alpn {
            Alpn::Http1 => &current.http1,
            Alpn::Http2 => &current.http2,
        };
        let stream = handshake(connector, &tls.name, link, &address, &tls.trusted).await?;
        Ok(Connection::tls(stream))
    }

    /// Sets the `Authorization` and `Impersonate-*` headers from the current credentials, in
    /// place of any that are there.
    ///
    /// A token file is read at the first call, and again every [`limits::TOKEN_FILE_PERIOD`] or
    /// after [`refused`](Self::refused); if that fails, the last token stays in use. One call at a
    /// time reads; the others go on with the last token if it is not refused. What a plugin or an
    /// OpenID Connect provider gives is kept until shortly before its end and renewed behind it;
    /// only once it has ended, or was refused, do all wait for one renewal. Dropping the future
    /// changes nothing.
    ///
    /// # Errors
    ///
    /// [`CallerError::Config`](crate::error::CallerError::Config) if there has never been a token,
    /// or if there is none that is valid and the plugin or provider gives no other.
    pub async fn authorize(&self, headers: &mut HeaderMap) -> Result<()> {
        self.inner.credentials.authorize(headers).await
    }

    /// Takes note that the server answered 401 to a request with these headers, so that the next
    /// [`authorize`](Self::authorize) renews the credentials, unless that has happened since.
    ///
    /// Returns whether it makes sense to authorize and send the request once more, over a new
    /// connection: not with credentials that never change.
    pub fn refused(&self, headers: &HeaderMap) -> bool {
        let certificates = self.certificates_changed();
        self.inner.credentials.refused(headers) || certificates
    }

    /// Whether the files of certificates and keys differ from what the last connection was made
    /// with. Reads them.
    pub(crate) fn certificates_changed(&self) -> bool {
        let tls = self.inner.tls.as_ref();
        tls.is_some_and(|tls| tls.rotating.has_changed())
    }

    /// A number that changes with the client certificate that a plugin gives.
    pub(crate) fn generation(&self) -> u64 {
        self.inner.credentials.generation()
    }

    /// The request target in origin form, which HTTP/1.1 sends: the server's base path, then
    /// `path_and_query`, such as `/api/v1/namespaces/default/pods?watch=1`.
    ///
    /// # Errors
    ///
    /// [`CallerError::Request`](crate::error::CallerError::Request) if it does not begin with a
    /// slash or holds what must be percent-encoded.
    pub fn uri(&self, path_and_query: &str) -> Result<Uri> {
        self.inner.server.origin_form(path_and_query)
    }

    /// The request target in absolute form, which HTTP/2 needs for `:scheme` and `:authority`.
    ///
    /// # Errors
    ///
    /// Those of [`uri`](Self::uri).
    pub fn absolute_uri(&self, path_and_query: &str) -> Result<Uri> {
        self.inner.server.absolute_form(path_and_query)
    }

    /// The request target in origin form, however long it is: [`Uri`] holds 64 KiB.
    pub(crate) fn target(&self, path_and_query: &str) -> Result<String> {
        self.inner.server.target(path_and_query)
    }

    /// The whole URL, for people.
    pub(crate) fn url(&self, path_and_query: &str) -> String {
        format!("{}{path_and_query}", self.inner.server.url())
    }

    /// The value of the `Host` header.
    pub fn host(&self) -> &HeaderValue {
        &self.inner.server.authority
    }

    /// Whether connections are TLS.
    pub fn is_tls(&self) -> bool {
        self.inner.tls.is_some()
    }
}

/// TLS over a stream.
async fn handshake<S>(
    connector: &TlsConnector,
    name: &ServerName<'static>,
    stream: S,
    address: &str,
    trusted: &str,
) -> Result<TlsStream<S>, NetworkError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let handshake = connector.connect(name.clone(), stream);
    match tokio::time::timeout(limits::TLS_HANDSHAKE, handshake).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(error)) => Err(tls::handshake_error(address, trusted, error)),
        Err(_) => Err(NetworkError::TimedOut {
            operation: format!("the TLS handshake with {address}"),
            after: limits::TLS_HANDSHAKE,
        }),
    }
}

impl Through {
    fn new(proxy: &Proxy) -> Result<Self> {
        let tls = match proxy.kind {
            ProxyKind::Http | ProxyKind::Socks5 => None,
            ProxyKind::Https => {
                let settings = TlsSettings::default();
                let mut config = tls::client_config(&settings)?;
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

impl Inner {
    /// Dials, and has the proxy connect if there is one.
    async fn reach(&self, address: &str) -> Result<Link> {
        let Some(Through { proxy, tls }) = &self.through else {
            return Ok(Link::Tcp(self.dial(address).await?));
        };
        let place = proxy.address();
        let tcp = self.dial(&place).await?;
        let mut link = match tls {
            None => Link::Tcp(tcp),
            Some((connector, name)) => {
                let trusted = tls::trusted(&TlsSettings::default());
                let stream = handshake(connector, name, tcp, &place, &trusted).await?;
                Link::Tls(Box::new(stream))
            }
        };
        let to = (self.server.host.as_str(), self.server.port);
        let login = proxy.login.as_ref();
        let asked = async {
            match proxy.kind {
                ProxyKind::Http | ProxyKind::Https => proxy::connect(&mut link, to, login).await,
                ProxyKind::Socks5 => proxy::socks5(&mut link, to, login).await,
            }
        };
        match tokio::time::timeout(self.connect_timeout, asked).await {
            Ok(Ok(())) => Ok(link),
            Ok(Err(error)) => Err(NetworkError::Proxy {
                proxy: place,
                address: address.to_owned(),
                source: Arc::new(error),
            }
            .into()),
            Err(_) => Err(NetworkError::TimedOut {
                operation: format!("the connection to {address} through the proxy {place}"),
                after: self.connect_timeout,
            }
            .into()),
        }
    }

    /// Resolves and dials: both address families, the second 300 ms after the first (RFC 8305).
    async fn dial(&self, address: &str) -> Result<TcpStream> {
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
            Err(_) => Err(NetworkError::TimedOut {
                operation: format!("the connection to {address}"),
                after: self.connect_timeout,
            }
            .into()),
        }
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

impl std::fmt::Debug for Connector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connector")
            .field("server", &self.inner.server)
            .field("credentials", &self.inner.credentials)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;

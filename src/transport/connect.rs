//! Connections to the API server: TCP, then TLS, and the credentials that each request carries.
//!
//! In flow a [`Config`]; out come [`Connection`]s, to which HTTP or WebSocket is spoken, and
//! headers.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use http::{HeaderMap, HeaderValue, Uri};
use hyper_util::client::legacy::connect::HttpConnector;
use rustls::pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tower_service::Service;

use super::tls;
use crate::{
    Result,
    config::{Config, Credentials, Server},
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
    tcp: HttpConnector,
    connect_timeout: Duration,
}

struct Tls {
    http1: TlsConnector,
    http2: TlsConnector,
    name: ServerName<'static>,
    trusted: String,
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
            true => {
                let mut http1 = tls::client_config(&config.tls)?;
                let mut http2 = http1.clone();
                http1.alpn_protocols = vec![b"http/1.1".to_vec()];
                http2.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
                Some(Tls {
                    http1: Arc::new(http1).into(),
                    http2: Arc::new(http2).into(),
                    name: tls::server_name(&config.tls, &config.server.host)?,
                    trusted: tls::trusted(&config.tls),
                })
            }
        };
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
    /// [`NetworkError::Connect`], [`NetworkError::Certificate`], [`NetworkError::Tls`] or, after
    /// the configured time for TCP or [`limits::TLS_HANDSHAKE`], [`NetworkError::TimedOut`].
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
        let tcp = inner.dial(&address).await?;
        let Some(tls) = &inner.tls else {
            return Ok(Connection::Plain(tcp));
        };
        let connector = match alpn {
            Alpn::Http1 => &tls.http1,
            Alpn::Http2 => &tls.http2,
        };
        let handshake = connector.connect(tls.name.clone(), tcp);
        match tokio::time::timeout(limits::TLS_HANDSHAKE, handshake).await {
            Ok(Ok(stream)) => Ok(Connection::Tls(Box::new(stream))),
            Ok(Err(error)) => Err(tls::handshake_error(&address, &tls.trusted, error).into()),
            Err(_) => Err(NetworkError::TimedOut {
                operation: format!("the TLS handshake with {address}"),
                after: limits::TLS_HANDSHAKE,
            }
            .into()),
        }
    }

    /// Sets the `Authorization` and `Impersonate-*` headers from the current credentials, in
    /// place of any that are there.
    ///
    /// A token file is read at the first call, and again every [`limits::TOKEN_FILE_PERIOD`] or
    /// after [`refused`](Self::refused); if that fails, the last token stays in use. One call at a
    /// time reads; the others go on with the last token if it is not refused. Dropping the future
    /// changes nothing.
    ///
    /// # Errors
    ///
    /// [`CallerError::Config`](crate::error::CallerError::Config) if there has never been a token.
    pub async fn authorize(&self, headers: &mut HeaderMap) -> Result<()> {
        self.inner.credentials.authorize(headers).await
    }

    /// Takes note that the server answered 401 to a request with these headers, so that the next
    /// [`authorize`](Self::authorize) renews the credentials, unless that has happened since.
    ///
    /// Returns whether it makes sense to authorize and send the request once more: not with
    /// credentials that never change.
    pub fn refused(&self, headers: &HeaderMap) -> bool {
        self.inner.credentials.refused(headers)
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

    /// The value of the `Host` header.
    pub fn host(&self) -> &HeaderValue {
        &self.inner.server.authority
    }

    /// Whether connections are TLS.
    pub fn is_tls(&self) -> bool {
        self.inner.tls.is_some()
    }
}

impl Inner {
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

/// A connection to the API server, ready for HTTP.
#[non_exhaustive]
pub enum Connection {
    /// TCP alone, for `http` URLs.
    Plain(TcpStream),
    /// TLS over TCP.
    Tls(Box<TlsStream<TcpStream>>),
}

impl Connection {
    /// Whether the server chose HTTP/2 in the TLS handshake.
    pub fn is_http2(&self) -> bool {
        match self {
            Self::Plain(_) => false,
            Self::Tls(stream) => stream.get_ref().1.alpn_protocol() == Some(b"h2"),
        }
    }

    fn tcp(&self) -> &TcpStream {
        match self {
            Self::Plain(stream) => stream,
            Self::Tls(stream) => stream.get_ref().0,
        }
    }
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name = match self {
            Self::Plain(_) => "Plain",
            Self::Tls(_) => "Tls",
        };
        let mut tuple = f.debug_tuple(name);
        if let Ok(peer) = self.tcp().peer_addr() {
            tuple.field(&peer);
        }
        tuple.finish()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(stream) => stream.is_write_vectored(),
            Self::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

#[cfg(test)]
mod tests;

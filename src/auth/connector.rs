//! Connections and requests that identify themselves: in flows a [`Config`], out come
//! [`Connection`]s and headers.

use std::{sync::Arc, time::Duration};

use http::{HeaderMap, HeaderValue, Response, StatusCode, Uri};

use super::Credentials;
use crate::{
    Error, Result,
    config::{Config, Server},
    error::{Hint, NetworkError},
    net::{Alpn, Connection, Dialer},
};

/// Makes connections to one API server and authorizes requests to it. Clones are cheap and share
/// the credentials.
///
/// ```
/// # #[tokio::main]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let server = kubewire::testing::ApiServer::builder().start().await?;
/// # let config = server.config();
/// use http_body_util::{BodyExt as _, Empty};
/// use hyper_util::rt::TokioIo;
/// use kubewire::{auth::Connector, net::{Alpn, Connection}};
///
/// // An HTTP client of one's own, over the library's connections and credentials.
/// let connector = Connector::new(&config)?;
/// let connection: Connection = connector.connect_as(Alpn::Http1).await?;
/// assert!(connector.is_tls() && !connection.is_http2());
/// let http = hyper::client::conn::http1::handshake(TokioIo::new(connection)).await?;
/// let (mut requests, connection) = http;
/// tokio::spawn(connection);
///
/// let mut request = http::Request::get("/version").body(Empty::<bytes::Bytes>::new())?;
/// request.headers_mut().insert("host", connector.host().clone());
/// connector.authorize(request.headers_mut()).await?;
/// let answer = requests.send_request(request).await?.collect().await?;
/// assert!(answer.to_bytes().starts_with(b"{"));
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Connector {
    inner: Arc<Inner>,
}

struct Inner {
    dialer: Dialer,
    credentials: Credentials,
    compresses: bool,
    request_timeout: Duration,
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
        Ok(Self {
            inner: Arc::new(Inner {
                dialer: Dialer::new(config)?,
                credentials: Credentials::new(config)?,
                compresses: config.compresses(),
                request_timeout: config.request_timeout,
            }),
        })
    }

    /// A connection over which HTTP/1.1 is spoken: what an upgrade needs.
    ///
    /// Dropping the future gives the connection up.
    ///
    /// # Errors
    ///
    /// Those of [`connect_as`](Self::connect_as).
    pub async fn connect(&self) -> Result<Connection> {
        self.connect_as(Alpn::Http1).await
    }

    /// A connection over which `alpn` is spoken.
    ///
    /// Dropping the future gives the connection up.
    ///
    /// # Errors
    ///
    /// [`NetworkError::Connect`], [`NetworkError::Proxy`], [`NetworkError::Certificate`],
    /// [`NetworkError::Tls`] or, after the configured time for TCP and the proxy's answer or
    /// [`limits::TLS_HANDSHAKE`], [`NetworkError::TimedOut`]. [`CallerError::Config`] if the
    /// credentials hold a client certificate that cannot be had.
    ///
    /// [`NetworkError::Connect`]: crate::error::NetworkError::Connect
    /// [`NetworkError::Proxy`]: crate::error::NetworkError::Proxy
    /// [`NetworkError::Certificate`]: crate::error::NetworkError::Certificate
    /// [`NetworkError::Tls`]: crate::error::NetworkError::Tls
    /// [`NetworkError::TimedOut`]: crate::error::NetworkError::TimedOut
    /// [`CallerError::Config`]: crate::error::CallerError::Config
    /// [`limits::TLS_HANDSHAKE`]: crate::limits::TLS_HANDSHAKE
    pub async fn connect_as(&self, alpn: Alpn) -> Result<Connection> {
        let Inner {
            dialer,
            credentials,
            ..
        } = &*self.inner;
        // Before there is a connection, which would wait for a plugin.
        let identity = match dialer.is_tls() {
            false => None,
            true => credentials.identity().await?,
        };
        dialer.dial(alpn, identity).await
    }

    /// Sets the `Authorization` and `Impersonate-*` headers from the current credentials, and the
    /// headers of the configuration, in place of any that are there.
    ///
    /// A token file is read at the first call, and again every
    /// [`TOKEN_FILE_PERIOD`](crate::limits::TOKEN_FILE_PERIOD) or after
    /// [`refused`](Self::refused); if that fails, the last token stays in use. One call at a time
    /// reads; the others go on with the last token if it is not refused. What a plugin or an
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
        self.inner.dialer.certificates_changed()
    }

    /// The error of a request that was sent over a connection of this: the server may have cut it
    /// for our certificate.
    pub(crate) fn explain(&self, error: Error) -> Error {
        match (error, self.inner.dialer.refusal()) {
            (Error::Network(NetworkError::Lost(_)), Some(refusal)) => refusal.into(),
            (error, _) => error,
        }
    }

    /// Adds to a 401 what may be its reason, which the server does not tell.
    pub(crate) fn annotate<B>(&self, response: &mut Response<B>) {
        if response.status() != StatusCode::UNAUTHORIZED {
            return;
        }
        let certificate = self.inner.dialer.certificate();
        let problem = certificate.as_ref().and_then(|it| it.out_of_date());
        let certificate = certificate.map(|it| it.to_string());
        let hint = match (certificate, problem, self.inner.credentials.title()) {
            (Some(certificate), Some(problem), _) => Hint::ClientCertificate {
                certificate,
                problem,
            },
            // A token counts before a certificate.
            (Some(certificate), None, "") => Hint::Credentials(certificate),
            (_, _, title) => Hint::Credentials(title.to_owned()),
        };
        response.extensions_mut().insert(hint);
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
    /// [`CallerError::Path`](crate::error::CallerError::Path) if it does not begin with a
    /// slash or holds what must be percent-encoded.
    pub fn uri(&self, path_and_query: &str) -> Result<Uri> {
        self.server().origin_form(path_and_query)
    }

    /// The request target in absolute form, which HTTP/2 needs for `:scheme` and `:authority`.
    ///
    /// # Errors
    ///
    /// Those of [`uri`](Self::uri).
    pub fn absolute_uri(&self, path_and_query: &str) -> Result<Uri> {
        self.server().absolute_form(path_and_query)
    }

    pub(crate) fn url(&self, path_and_query: &str) -> String {
        format!("{}{path_and_query}", self.server().url())
    }

    /// The value of the `Host` header.
    pub fn host(&self) -> &HeaderValue {
        &self.server().authority
    }

    pub(crate) fn server(&self) -> &Server {
        self.inner.dialer.server()
    }

    pub(crate) fn compresses(&self) -> bool {
        self.inner.compresses
    }

    /// How long an answer may take at most, whatever its request allows.
    pub(crate) fn request_timeout(&self) -> Duration {
        self.inner.request_timeout
    }

    /// Whether connections are TLS.
    pub fn is_tls(&self) -> bool {
        self.inner.dialer.is_tls()
    }
}

impl std::fmt::Debug for Connector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connector")
            .field("server", self.server())
            .field("credentials", &self.inner.credentials)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;

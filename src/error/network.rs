//! Connections that could not be made, or were lost.

use std::{io, sync::Arc, time::Duration};

use super::{Error, Printable};

/// How the connection could not be made, or was lost.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use kubewire::{Client, Error, error::NetworkError};
///
/// let nobody = Client::from_url("http://127.0.0.1:1")?.pod("default", "web-0");
/// let error = nobody.exec(["true"]).output().await.unwrap_err();
/// assert!(matches!(error, Error::Network(NetworkError::Connect { .. })), "{error:?}");
/// assert!(error.is_retryable());
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum NetworkError {
    /// No connection to the server.
    #[error("cannot connect to {address}: {}", Printable(.source))]
    Connect {
        /// Host and port, or the proxy's.
        address: String,
        /// What the operating system or the resolver said.
        source: Arc<io::Error>,
    },
    /// The proxy was reached and does not let the connection through.
    #[error("the proxy {proxy} does not connect to {address}: {}", Printable(.source))]
    Proxy {
        /// Host and port of the proxy.
        proxy: String,
        /// Host and port of the server.
        address: String,
        /// What the proxy said.
        source: Arc<io::Error>,
    },
    /// The server's certificate cannot be trusted.
    #[error("the certificate of {address} is refused: {problem}")]
    Certificate {
        /// Host and port.
        address: String,
        /// The name, the dates, the issuer?
        problem: CertificateProblem,
        /// What TLS said.
        source: Arc<io::Error>,
    },
    /// The TLS handshake failed for another reason than the server's certificate.
    #[error("TLS handshake with {address} failed: {source}")]
    Tls {
        /// Host and port.
        address: String,
        /// What TLS said.
        source: Arc<io::Error>,
    },
    /// An established connection broke.
    #[error("the connection was lost: {}", Printable(.0))]
    Lost(#[source] Arc<io::Error>),
    /// The connection ended, in whatever way, before the server said how the work ended. This is
    /// never a success: the process may still be running, or may have failed.
    #[error("the connection ended without a status{}", Ending(*.code, .reason, .source.as_deref()))]
    ClosedWithoutStatus {
        /// The code of the WebSocket close frame, if there was one (RFC 6455, section 7.4).
        code: Option<u16>,
        /// The text of the close frame.
        reason: String,
        /// How the connection broke, if it did.
        source: Option<Arc<io::Error>>,
    },
    /// The other end reset this connection, and said no more about it.
    #[error("the connection was reset by the other end ({})", Printable(.status))]
    Reset {
        /// The name of the status that it gave.
        status: String,
    },
    /// Nothing arrived for too long although the peer was asked for a sign of life.
    #[error("the peer has been silent for {} s", .silent.as_secs())]
    Silent {
        /// How long nothing arrived.
        silent: Duration,
    },
    /// An operation did not finish before its deadline.
    #[error("{operation} did not finish within {} s", .after.as_secs_f32())]
    TimedOut {
        /// What was under way.
        operation: String,
        /// The deadline.
        after: Duration,
    },
}

/// Why a server's certificate is refused.
///
/// ```
/// use kubewire::error::CertificateProblem;
///
/// let problem = CertificateProblem::Name {
///     expected: "10.0.0.1".into(),
///     presented: vec!["kubernetes".into()],
/// };
/// assert!(problem.to_string().contains("not for the name \"10.0.0.1\""));
/// ```
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CertificateProblem {
    /// It is for other names than the one that was dialled.
    #[error("it is not for the name {expected:?} but for {presented:?}")]
    Name {
        /// The host of the server's URL, or the `tls-server-name` given instead.
        expected: String,
        /// The names in the certificate.
        presented: Vec<String>,
    },
    /// Its time is over, by this machine's clock.
    #[error("it expired{} by this machine's clock", Ago(.for_how_long))]
    Expired {
        /// How long it has been expired, where TLS says so.
        for_how_long: Option<Duration>,
    },
    /// Its time has not begun, by this machine's clock.
    #[error("it is not valid yet; is this machine's clock right?")]
    NotYetValid,
    /// None of the certificate authorities that this client trusts signed it.
    #[error("its issuer is not among the trusted certificate authorities ({trusted})")]
    Issuer {
        /// Where the trusted certificate authorities come from.
        trusted: String,
    },
    /// Its issuer has withdrawn it.
    #[error("it is revoked")]
    Revoked,
    /// Something else, in the words of the TLS library.
    #[error("{0}")]
    Other(String),
}

struct Ago<'a>(&'a Option<Duration>);

impl std::fmt::Display for Ago<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0.map(|age| age.as_secs()) {
            None => Ok(()),
            Some(age @ 0..60) => write!(f, " {age} s ago"),
            Some(age @ 60..7200) => write!(f, " {} min ago", age / 60),
            Some(age @ 7200..172_800) => write!(f, " {} h ago", age / 3600),
            Some(age) => write!(f, " {} days ago", age / 86_400),
        }
    }
}

struct Ending<'a>(Option<u16>, &'a str, Option<&'a io::Error>);

impl std::fmt::Display for Ending<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self(Some(code), "", _) => write!(f, " (close code {code})"),
            Self(Some(code), reason, _) => {
                write!(f, " (close code {code}: {})", Printable(reason))
            }
            Self(None, _, Some(source)) => write!(f, " ({})", Printable(source)),
            Self(None, _, None) => Ok(()),
        }
    }
}

impl Error {
    /// A connection that broke.
    pub(crate) fn lost(error: impl Into<io::Error>) -> Self {
        NetworkError::Lost(Arc::new(error.into())).into()
    }

    /// A connection that ended where more had to come.
    pub(crate) fn cut() -> Self {
        Self::lost(io::ErrorKind::UnexpectedEof)
    }

    /// What did not finish in its time.
    pub(crate) fn late(operation: impl Into<String>, after: Duration) -> Self {
        let operation = operation.into();
        NetworkError::TimedOut { operation, after }.into()
    }

    /// The same, if no connection could be made, of another server than the API server.
    #[cfg(feature = "client")]
    pub(crate) fn about(mut self, server: &str) -> Self {
        use NetworkError::{Certificate, Connect, Proxy, Tls};
        if let Self::Network(
            Connect { address, .. }
            | Proxy { address, .. }
            | Certificate { address, .. }
            | Tls { address, .. },
        ) = &mut self
        {
            *address = format!("{server} at {address}");
        }
        self
    }
}

impl NetworkError {
    pub(super) fn kind(&self) -> io::ErrorKind {
        match self {
            Self::Connect { source, .. }
            | Self::Proxy { source, .. }
            | Self::Certificate { source, .. }
            | Self::Tls { source, .. }
            | Self::Lost(source) => source.kind(),
            Self::ClosedWithoutStatus { .. } => io::ErrorKind::UnexpectedEof,
            Self::Reset { .. } => io::ErrorKind::ConnectionReset,
            Self::Silent { .. } | Self::TimedOut { .. } => io::ErrorKind::TimedOut,
        }
    }
}

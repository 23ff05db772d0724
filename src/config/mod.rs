//! Which API server, how to trust it, and as whom: from the environment, a kubeconfig, a pod's
//! service account, or by hand.
//!
//! In flow files, environment variables and setters; out comes a [`Config`], which says where
//! certificates and credentials are. They are read when a connection or a request needs them, so
//! that rotation is seen.

mod dial;
mod environment;
mod exec;
mod file;
#[cfg(feature = "kube")]
mod kube;
mod kubeconfig;
mod material;
mod oidc;
mod proxy;
mod resolve;
mod server;

use std::{io, path::PathBuf, sync::Arc, time::Duration};

use http::HeaderValue;
use secrecy::{SecretSlice, SecretString};

pub use dial::ByteStream;
pub(crate) use dial::{BoxedStream, Dial};
pub(crate) use exec::{Exec, ExecCluster, Interactive};
pub(crate) use file::{below, document};
pub use kubeconfig::KubeconfigOptions;
pub(crate) use material::{Identity, Material, unreadable};
pub(crate) use oidc::{Oidc, Tokens};
pub(crate) use proxy::{Proxies, Proxy, ProxyKind, is_loopback};
pub(crate) use server::{Server, address, without_login};

use crate::{Result, error::CallerError, limits};
use environment::Environment;
use kubeconfig::Merged;

/// Where an API server is, how to trust it, and as whom to speak to it.
///
/// A `Config` is data: making one opens no connection. `Debug` shows no secret.
///
/// ```
/// let config = kubewire::Config::new("http://127.0.0.1:8001")?.with_namespace("prod");
/// assert_eq!(config.namespace(), "prod");
/// # Ok::<(), kubewire::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Config {
    pub(crate) server: Server,
    pub(crate) namespace: Option<String>,
    pub(crate) tls: TlsSettings,
    pub(crate) auth: Auth,
    pub(crate) impersonate: Option<Impersonation>,
    pub(crate) headers: Vec<(String, SecretString)>,
    pub(crate) dial: Option<Dial>,
    pub(crate) connect_timeout: Duration,
    pub(crate) request_timeout: Duration,
    pub(crate) tcp_keepalive: Duration,
    pub(crate) proxies: Proxies,
    /// Whether to ask for compressed answers; unless it is said, where it is likely to pay.
    pub(crate) compression: Option<bool>,
}

/// How to trust the server and how to identify to it by certificate.
#[derive(Debug, Clone, Default)]
pub(crate) struct TlsSettings {
    /// Without one, the platform's certificate authorities.
    pub(crate) ca: Option<Material>,
    pub(crate) identity: Option<Identity>,
    /// The name to expect in the certificate instead of the URL's host.
    pub(crate) server_name: Option<String>,
    /// Accept any certificate.
    pub(crate) insecure: bool,
}

/// How to identify to the server by header.
#[derive(Debug, Clone, Default)]
pub(crate) enum Auth {
    #[default]
    None,
    /// A token that stays.
    Token(SecretString),
    /// A file whose token is renewed by someone else; the token to use while the file is
    /// unreadable.
    TokenFile(PathBuf, Option<SecretString>),
    /// HTTP basic authentication (RFC 7617).
    Basic(String, SecretString),
    /// By what a plugin gives: a token, a certificate or both.
    Exec(Arc<Exec>),
    /// By the token of an OpenID Connect provider.
    Oidc(Arc<Oidc>),
}

/// As whom to act, if that is another user than the one that the credentials are of: the
/// `Impersonate-*` headers (`k8s.io/api/authentication/v1`). The server asks for the right to
/// `impersonate` each part.
///
/// ```
/// use kubewire::{Config, config::Impersonation};
///
/// let jane = Impersonation::new("jane").group("developers").extra("scopes", "view");
/// let config = Config::new("https://api.example.com")?.with_impersonation(jane);
/// # let _ = config;
/// # Ok::<(), kubewire::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Impersonation {
    pub(crate) user: String,
    pub(crate) uid: Option<String>,
    pub(crate) groups: Vec<String>,
    pub(crate) extra: Vec<(String, Vec<String>)>,
}

impl Impersonation {
    /// A user, such as `jane` or `system:serviceaccount:default:robot`.
    pub fn new(user: impl Into<String>) -> Self {
        Self {
            user: user.into(),
            uid: None,
            groups: Vec::new(),
            extra: Vec::new(),
        }
    }

    setters! {
        /// With this uid.
        fn uid(uid: impl Into<String>) uid = Some(uid.into());

        /// In this group, and in those given before.
        fn group(group: impl Into<String>) groups.push(group.into());
    }

    /// With this value under a key, and with those given before.
    pub fn extra(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        let (key, value) = (key.into(), value.into());
        match self.extra.iter_mut().find(|(known, _)| *known == key) {
            Some((_, values)) => values.push(value),
            None => self.extra.push((key, vec![value])),
        }
        self
    }

    /// Whether it says nothing of anybody.
    pub fn is_empty(&self) -> bool {
        self.user.is_empty()
            && self.uid.is_none()
            && self.groups.is_empty()
            && self.extra.is_empty()
    }

    /// What this leaves out, a name that is empty too, is that of another, as kubectl's flags leave
    /// it to the kubeconfig.
    pub fn or(mut self, other: Self) -> Self {
        if self.user.is_empty() {
            self.user = other.user;
        }
        self.uid = self.uid.or(other.uid);
        if self.groups.is_empty() {
            self.groups = other.groups;
        }
        if self.extra.is_empty() {
            self.extra = other.extra;
        }
        self
    }
}

impl Config {
    /// The configuration that kubectl would use here: the files that `KUBECONFIG` lists, or
    /// `~/.kube/config`; if they name no cluster, the service account of the pod.
    ///
    /// # Errors
    ///
    /// [`CallerError::Config`] if a file cannot be used, or if
    /// nothing was found: then the text names all that was tried.
    pub fn from_env() -> Result<Self> {
        Self::from_env_with(&KubeconfigOptions::new())
    }

    /// The configuration that kubectl would use here with flags: that of
    /// [`from_env`](Self::from_env) with these overrides, or, where they name a file, a context,
    /// a cluster, a user or a server, that of [`from_kubeconfig`](Self::from_kubeconfig).
    ///
    /// # Errors
    ///
    /// Those of the two.
    pub fn from_env_with(options: &KubeconfigOptions) -> Result<Self> {
        Self::from_environment(&Environment::process(), options)
    }

    /// As whom it acts.
    pub fn impersonation(&self) -> Option<&Impersonation> {
        self.impersonate.as_ref()
    }

    /// The configuration of a kubeconfig, with overrides. There is no fallback to the pod's
    /// service account.
    ///
    /// # Errors
    ///
    /// [`CallerError::Config`] if a file cannot be read or
    /// parsed, or if what it selects does not exist or cannot be used.
    pub fn from_kubeconfig(options: &KubeconfigOptions) -> Result<Self> {
        Self::from_kubeconfig_in(&Environment::process(), options)
    }

    /// The configuration of a kubeconfig that is at hand as YAML or JSON. The options' files are not
    /// read. Relative paths in the text are relative to the current directory.
    ///
    /// # Errors
    ///
    /// [`CallerError::Config`] if it cannot be parsed, or if what it selects does not exist or
    /// cannot be used.
    pub fn from_kubeconfig_str(text: &str, options: &KubeconfigOptions) -> Result<Self> {
        let merged = Merged::of_text(text)?;
        Self::select(&merged, options, Environment::process().proxies())
    }

    /// The configuration of the pod that this process runs in: its service account's token,
    /// certificate authority and namespace, under `/var/run/secrets/kubernetes.io/serviceaccount`,
    /// and the address in `KUBERNETES_SERVICE_HOST` and `KUBERNETES_SERVICE_PORT`, or else
    /// `kubernetes.default.svc`.
    ///
    /// # Errors
    ///
    /// [`CallerError::Config`] outside of a pod, or in one
    /// without a service account's token.
    pub fn in_cluster() -> Result<Self> {
        Self::in_cluster_in(&Environment::process())
    }

    /// A server by its URL, without credentials: `http://127.0.0.1:8001` for `kubectl proxy`,
    /// `https://[fd00::1]:6443`, `https://rancher.example.com/k8s/clusters/c-1`. Without a scheme,
    /// as in `10.0.0.1:6443`, it is https: nothing is sent in the clear that was not asked to be.
    ///
    /// Without a certificate authority the platform's are trusted. The proxy is that of the
    /// environment; see [`with_proxy`](Self::with_proxy).
    ///
    /// # Errors
    ///
    /// [`CallerError::Config`] if it is no http or https URL,
    /// or holds a password.
    pub fn new(url: &str) -> Result<Self> {
        let server = Server::parse(url, true, "the server's URL")?;
        Ok(Self::of(server, Environment::process().proxies()))
    }

    fn of(server: Server, proxies: Proxies) -> Self {
        Self {
            proxies,
            server,
            namespace: None,
            tls: TlsSettings::default(),
            auth: Auth::None,
            impersonate: None,
            headers: Vec::new(),
            dial: None,
            connect_timeout: limits::CONNECT,
            request_timeout: Duration::MAX,
            tcp_keepalive: limits::TCP_KEEPALIVE,
            compression: None,
        }
    }

    setters! {
        /// Trusts these certificate authorities, in PEM, and no others, whatever
        /// `insecure-skip-tls-verify` says.
        fn with_ca_pem(pem: impl Into<Vec<u8>>)
            tls.insecure = false,
            tls.ca = Some(Material::inline("the CA's PEM", pem.into()));

        /// Trusts the certificate authorities in this PEM file, and no others, whatever
        /// `insecure-skip-tls-verify` says.
        fn with_ca_file(path: impl Into<PathBuf>)
            tls.insecure = false,
            tls.ca = Some(Material::file("the CA's file", path));

        /// Expects this name in the server's certificate instead of the URL's host.
        fn with_tls_server_name(name: impl Into<String>) tls.server_name = Some(name.into());

        /// Accepts any certificate of the server: whoever answers can pass for it, read what is sent
        /// and take the credentials. For tests on one machine, and nothing else.
        fn with_insecure_skip_tls_verify() tls.ca = None, tls.insecure = true;

        /// Identifies by a user name and a password (RFC 7617). Kubernetes itself has not taken them
        /// since 1.19; a proxy before it may.
        fn with_basic_auth(user: impl Into<String>, password: impl Into<SecretString>)
            auth = Auth::Basic(user.into(), password.into());

        /// Acts as another user.
        fn with_impersonation(who: Impersonation) impersonate = Some(who);

        /// Sends this header with every request to the server, in place of those of the request of that
        /// name. A name that is given twice is sent twice. [`Client::new`](crate::Client::new) refuses
        /// names and values that no header can have.
        fn with_header(name: impl Into<String>, value: impl Into<SecretString>)
            headers.push((name.into(), value.into()));

        /// Identifies by this bearer token, which stays the same. Without TLS it is sent to this
        /// machine alone.
        fn with_token(token: impl Into<SecretString>) auth = Auth::Token(token.into());

        /// Identifies by the bearer token in this file, which is read again as it rotates: every
        /// [`limits::TOKEN_FILE_PERIOD`] and when the server refuses the token.
        fn with_token_file(path: impl Into<PathBuf>) auth = Auth::TokenFile(path.into(), None);

        /// Identifies by this client certificate chain and private key, both in PEM.
        fn with_client_certificate_pem(certificate: impl Into<Vec<u8>>, key: impl Into<SecretSlice<u8>>)
            tls.identity = Some((
                Material::inline("the client certificate's PEM", certificate.into()),
                Material::secret("the client key's PEM", Arc::new(key.into())),
            ));

        /// Identifies by the client certificate chain and the private key in these PEM files.
        fn with_client_certificate_files(certificate: impl Into<PathBuf>, key: impl Into<PathBuf>)
            tls.identity = Some((
                Material::file("the client certificate's file", certificate),
                Material::file("the client key's file", key),
            ));

        /// Uses this namespace where a request names none.
        fn with_namespace(namespace: impl Into<String>) namespace = Some(namespace.into());

        /// Gives up on a TCP connection after this time, name resolution included; by default
        /// [`limits::CONNECT`]. [`Duration::MAX`] is never.
        fn with_connect_timeout(timeout: Duration) connect_timeout = timeout;

        /// Gives up on a request whose answer has not begun within this time, of one that is read
        /// whole, not ended: also where the request itself allows more. Each time that it is sent
        /// again it has this time. An upgrade has it once it is connected. The streams behind an
        /// answer have no such bound, nor have bodies that are sent as they come.
        fn with_request_timeout(timeout: Duration) request_timeout = timeout;

        /// Connects directly, whatever the environment says.
        fn without_proxy() proxies = Proxies::None;

        /// Whether to have the server compress lists and watches (gzip). Unless this or the
        /// kubeconfig's `disable-compression` says so, it does where they come over a network: not from
        /// this machine itself. Servers compress lists from 128 KiB on, and watches from Kubernetes 1.37
        /// on; what they send uncompressed is read all the same. Neither single objects nor logs are
        /// asked for so, and the streams of exec, attach and port-forward never are.
        ///
        /// ```
        /// let nearby = kubewire::Config::new("https://10.0.0.1")?.with_compression(false);
        /// # let _ = nearby;
        /// # Ok::<(), kubewire::Error>(())
        /// ```
        fn with_compression(yes: bool) compression = Some(yes);
    }

    /// Has this function make the byte streams that connections run over: a Unix socket, a pair in
    /// memory, a dialler of the program's own. It is given the host and the port of the server, or
    /// of the proxy if there is one. Over an https URL's stream goes TLS; the stream of an http
    /// URL is taken for private, and credentials go over it.
    ///
    /// ```no_run
    /// # #[cfg(unix)]
    /// # fn main() -> kubewire::Result<()> {
    /// use kubewire::Config;
    /// use tokio::net::UnixStream;
    ///
    /// let config = Config::new("http://localhost")?
    ///     .with_dialer(|_host, _port| UnixStream::connect("/run/kubernetes.sock"));
    /// # let _ = config;
    /// # Ok(())
    /// # }
    /// # #[cfg(not(unix))]
    /// # fn main() {}
    /// ```
    pub fn with_dialer<F, R, S>(mut self, dial: F) -> Self
    where
        F: Fn(String, u16) -> R + Send + Sync + 'static,
        R: Future<Output = io::Result<S>> + Send + 'static,
        S: ByteStream,
    {
        self.dial = Some(Dial::new(dial));
        self
    }

    /// How long a TCP connection may be silent before the kernel probes it, by default
    /// [`limits::TCP_KEEPALIVE`]. It is in whole seconds, from 1 to the 32,767 that Linux takes, and does
    /// not hold for connections of a [dialer](Self::with_dialer).
    pub fn with_tcp_keepalive(mut self, silence: Duration) -> Self {
        let longest = Duration::from_secs(32_767);
        self.tcp_keepalive = silence.clamp(Duration::from_secs(1), longest);
        self
    }

    /// Connects through this proxy, whatever the environment says: `http://proxy:3128`,
    /// `https://user:password@proxy`, `socks5://proxy:1080`; the port defaults to 80, 443 and
    /// 1080.
    ///
    /// A SOCKS proxy resolves the server's name. An https proxy is verified with the platform's
    /// certificate authorities.
    ///
    /// # Errors
    ///
    /// [`CallerError::Config`] if it is not such a URL.
    pub fn with_proxy(mut self, url: impl Into<SecretString>) -> Result<Self> {
        self.proxies = Proxies::Always(Proxy::parse(&url.into(), "the proxy's URL")?);
        Ok(self)
    }

    /// Whether lists and watches are asked for compressed.
    pub(crate) fn compresses(&self) -> bool {
        self.compression
            .unwrap_or_else(|| !is_loopback(&self.server.host))
    }

    /// Whether a credential plugin may ask the user on standard input if that is a terminal and
    /// the kubeconfig allows it; by default it may. A program that reads standard input itself,
    /// or puts the terminal in raw mode, says no.
    pub fn with_stdin_for_plugins(mut self, allowed: bool) -> Self {
        if let Auth::Exec(exec) = &mut self.auth {
            Arc::make_mut(exec).stdin = allowed;
        }
        self
    }

    /// The URL of the server, without a trailing slash.
    pub fn server_url(&self) -> String {
        self.server.url()
    }

    /// The namespace of the context or of the pod; without one, `default`.
    pub fn namespace(&self) -> &str {
        self.namespace.as_deref().unwrap_or("default")
    }
}

pub(crate) fn wrong(origin: impl Into<String>, problem: impl Into<String>) -> crate::Error {
    CallerError::Config {
        origin: origin.into(),
        problem: problem.into(),
    }
    .into()
}

/// The text as the value of an HTTP header.
pub(crate) fn header(value: &str, origin: &str) -> Result<HeaderValue> {
    HeaderValue::from_bytes(value.as_bytes()).map_err(|_| {
        let problem = "it holds a line end or another character that no HTTP header can carry";
        wrong(origin, problem)
    })
}

#[cfg(test)]
mod tests;

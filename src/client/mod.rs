//! The verbs: in flows what a user asks of a pod, out come handles in the shape of
//! [`tokio::process`].

mod attach;
mod child;
mod container;
mod discovery;
mod exec;
mod logs;
mod merged;
mod over;
mod pod;
mod remote_command;
pub(crate) mod watch;

pub use attach::{Attach, Attached};
pub use child::{Child, ChildStderr, ChildStdin, ChildStdout, ExitStatus, Output};
pub use container::{Container, ContainerKind};
pub use discovery::Discovered;
pub use exec::Exec;
pub use logs::{LogLines, Logs};
pub use merged::{LogSource, MergedLines, MergedLogs, SourcedLine};
pub use over::Over;
pub use pod::Pod;
pub use remote_command::Stdio;
pub use watch::{Events, Updates, Watch};

use crate::{
    Config, Resource, Result, Role,
    error::{CallerError, PeerError},
    session::Subprotocol,
    transport::{
        AnyWebSocket,
        connect::Connector,
        http::Http,
        upgrade::{self, Upgrade},
    },
};

/// One API server and the credentials for it.
///
/// Clones are cheap and share the credentials. A client opens connections as they are needed:
/// making one does not talk to the server.
///
/// ```no_run
/// # async fn run() -> kubewire::Result<()> {
/// let client = kubewire::Client::from_env().await?;
/// let output = client.pod("default", "web-0").exec(["uname", "-a"]).output().await?;
/// assert!(output.status.success());
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Client {
    connector: Connector,
    http: Http,
    namespace: std::sync::Arc<str>,
    lacking: std::sync::Arc<watch::Lacking>,
}

impl Client {
    /// A client as kubectl would be configured here: the files that `KUBECONFIG` names, else
    /// `~/.kube/config`, else the service account of the pod that this program runs in.
    ///
    /// # Errors
    ///
    /// [`CallerError::Config`](crate::error::CallerError::Config), which names what was tried.
    pub async fn from_env() -> Result<Self> {
        Self::new(&Config::from_env()?)
    }

    /// A client for a server's URL, without credentials: a `kubectl proxy` sidecar, say, at
    /// `http://127.0.0.1:8001`. For more, build a [`Config`].
    ///
    /// # Errors
    ///
    /// [`CallerError::Config`](crate::error::CallerError::Config) if it is not an `http` or
    /// `https` URL.
    pub fn from_url(url: &str) -> Result<Self> {
        Self::new(&Config::new(url)?)
    }

    /// A client for a configuration.
    ///
    /// # Errors
    ///
    /// [`CallerError::Config`](crate::error::CallerError::Config) if a certificate or key in it
    /// cannot be read or used.
    pub fn new(config: &Config) -> Result<Self> {
        let connector = Connector::new(config)?;
        Ok(Self {
            http: Http::new(connector.clone()),
            connector,
            namespace: config.namespace().into(),
            lacking: std::sync::Arc::default(),
        })
    }

    /// The namespace that the configuration names, or `default`.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// A pod, by its name. Whether it exists shows when something is asked of it.
    pub fn pod(&self, namespace: impl Into<String>, name: impl Into<String>) -> Pod {
        Pod::new(self.clone(), namespace.into(), name.into())
    }

    /// Opens a WebSocket at a path of this server, with this client's credentials, and offers
    /// `protocols` on it. What comes back goes into [`Over`].
    ///
    /// It is for servers with paths of their own: an extension API server, or the URL that a
    /// container runtime hands out for an exec (`http://127.0.0.1:41237/exec/cx1fAgZt`).
    ///
    /// Cancel safety: dropping the future drops the connection.
    ///
    /// # Errors
    ///
    /// Those of [`Exec::spawn`]; [`CallerError::Request`](crate::error::CallerError::Request) for
    /// a path that does not begin with a slash, or if `protocols` is empty:
    /// [`Subprotocol::Unnamed`] alone offers none.
    pub async fn websocket(
        &self,
        path_and_query: &str,
        protocols: &[Subprotocol],
    ) -> Result<(AnyWebSocket, Subprotocol)> {
        self.open(path_and_query, path_and_query, protocols).await
    }

    pub(crate) async fn open(
        &self,
        operation: &str,
        path_and_query: &str,
        protocols: &[Subprotocol],
    ) -> Result<(AnyWebSocket, Subprotocol)> {
        if protocols.is_empty() {
            return Err(CallerError::Request("no subprotocol is offered".into()).into());
        }
        let offer = Subprotocol::offer(protocols);
        let upgrade = Upgrade {
            operation,
            path_and_query,
            offer: offer.as_deref(),
            headers: http::HeaderMap::new(),
        };
        let opened = upgrade::open(&self.connector, upgrade).await?;
        let protocol =
            Subprotocol::accept(opened.protocol.as_deref(), protocols).map_err(|answer| {
                PeerError::Subprotocol {
                    offered: offer.unwrap_or_default(),
                    answer,
                }
            })?;
        let websocket = AnyWebSocket::from_io(opened.io, Role::Client, opened.read.freeze());
        Ok((websocket, protocol))
    }

    pub(crate) fn connector(&self) -> &Connector {
        &self.connector
    }

    /// The logs of many pods of a namespace, merged as they come; see [`MergedLogs`] for which.
    pub fn logs(&self, namespace: impl Into<String>) -> MergedLogs {
        MergedLogs::new(self.clone(), namespace.into())
    }

    /// Finds a resource by any of its names, as kubectl does: plural or singular, the kind, a
    /// short name, and with the group behind a dot where that is in doubt: `po`, `Deployment`,
    /// `things.example.com`. The core group comes first, then the others as the server orders
    /// them; of each its preferred version.
    ///
    /// # Errors
    ///
    /// [`CallerError::Request`] if the server has nothing of that name, and what a request's
    /// errors are.
    pub async fn resource(&self, name: &str) -> Result<Discovered> {
        discovery::find(self, name).await
    }

    /// Watches objects of one kind; see [`Watch`] for which, and in which form.
    ///
    /// All watches and logs of a client share one connection where the server speaks HTTP/2.
    pub fn watch(&self, resource: Resource) -> Watch {
        Watch::new(self.clone(), resource)
    }

    pub(crate) fn http(&self) -> &Http {
        &self.http
    }

    pub(crate) fn lacking(&self) -> &std::sync::Arc<watch::Lacking> {
        &self.lacking
    }
}

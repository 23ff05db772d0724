//! The verbs: in flows what a user asks of a pod, out come handles in the shape of
//! [`tokio::process`].

/// A stream of what `poll` gives.
macro_rules! stream {
    ($([$($generics:tt)*])? $name:ident $(<$type:ident>)?, $item:ty, $poll:ident) => {
        impl$(<$($generics)*>)? futures_core::Stream for $name$(<$type>)? {
            type Item = $item;

            fn poll_next(
                mut self: std::pin::Pin<&mut Self>,
                cx: &mut std::task::Context<'_>,
            ) -> std::task::Poll<Option<Self::Item>> {
                self.$poll(cx)
            }
        }
    };
}

mod api;
mod attach;
mod child;
mod command;
#[cfg(feature = "copy")]
pub(crate) mod copy;
mod debug;
mod discovery;
mod events;
mod exec;
mod exec_all;
mod exit;
mod feed;
mod logs;
mod merged;
mod mirror;
mod over;
mod pages;
mod pod;
mod pods;
pub(crate) mod port_forward;
mod proxy;
mod remote_command;
mod request;
mod since;
mod span;
mod stdio;
mod update;
pub(crate) mod watch;

pub use api::{Api, ApiStatus};
pub use attach::{Attach, Attached};
pub use child::{Child, ChildStderr, ChildStdin, ChildStdout};
pub use command::{IntoCommand, Program, Words};
pub use debug::{DebugContainer, DebugProfile, Debugger};
pub use discovery::{ApiResource, Discovery};
pub use events::Events;
pub use exec::Exec;
pub use exec_all::{AllEvent, AllOutput, ExecAll, RunningAll};
pub use exit::{ExitStatus, Output};
pub use logs::{LogLines, Logs};
pub use merged::{LogSource, MergedLines, MergedLogs, SourcedLine, SourcedUpdate};
pub use mirror::{MirrorBuilder, MirrorChanges, MirrorReader};
pub use over::Over;
pub use pages::{List, ListMeta, Pages};
pub use pod::Pod;
use port_forward::{ForwardTarget, PortForward};
pub use proxy::HttpProxy;
pub use request::Request;
pub use since::Since;
pub use stdio::{Input, Stdio};
pub use update::{Deleted, Patch};
pub use watch::{Updates, Watch};

use std::sync::Arc;

use bytes::Bytes;
use hyper_util::rt::TokioIo;

pub use crate::{
    transport::http::body::{Body, MaybeUpgraded, Upgraded},
    wire::pod::{Container, ContainerKind},
};

use crate::{
    Config, Result, Role,
    auth::Connector,
    error::{CallerError, PeerError},
    limits,
    resource::{Kind, Resource},
    session::Subprotocol,
    transport::{
        AnyWebSocket,
        http::{About, Http, Outgoing, blame, upgrade},
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
    http: Http,
    discovered: Arc<discovery::Cache>,
    without_watch_list: Arc<watch::WithoutWatchList>,
    namespace: Arc<str>,
}

impl Client {
    /// A client as kubectl would be configured here: the files that `KUBECONFIG` names, else
    /// `~/.kube/config`, else the service account of the pod that this program runs in.
    ///
    /// # Errors
    ///
    /// [`CallerError::Config`], which names what was tried.
    pub async fn from_env() -> Result<Self> {
        Self::new(&Config::from_env()?)
    }

    /// A client for a server's URL, without credentials: a `kubectl proxy` sidecar, say, at
    /// `http://127.0.0.1:8001`. Without a scheme it is https. For more, build a [`Config`].
    ///
    /// # Errors
    ///
    /// [`CallerError::Config`] if it is not an `http` or
    /// `https` URL.
    pub fn from_url(url: &str) -> Result<Self> {
        Self::new(&Config::new(url)?)
    }

    /// A client for a configuration.
    ///
    /// # Errors
    ///
    /// [`CallerError::Config`] if a certificate or key in it
    /// cannot be read or used.
    pub fn new(config: &Config) -> Result<Self> {
        let connector = Connector::new(config)?;
        Ok(Self {
            http: Http::new(connector),
            discovered: Arc::default(),
            without_watch_list: Arc::default(),
            namespace: config.namespace().into(),
        })
    }

    /// The namespace that the configuration names, or `default`.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// A pod, by its name. Whether it exists shows when something is asked of it.
    pub fn pod(&self, namespace: impl Into<String>, name: impl Into<String>) -> Pod {
        Pod::new(self.clone(), &namespace.into(), &name.into())
    }

    /// Opens connections to a pod, or to one that a service or a workload selects. It is found when
    /// this connects, and again when it has gone.
    ///
    /// ```no_run
    /// # async fn run() -> kubewire::Result<()> {
    /// let client = kubewire::Client::from_env().await?;
    /// let tunnel = client.port_forward("default", "svc/web").connect().await?;
    /// let stream = tunnel.open("http").await?;
    /// # drop(stream);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// Besides the rights for port-forward it needs `get` on the service or workload, and `get`
    /// and `list` on `pods`. A text that is no target is an error of [`PortForward::connect`].
    pub fn port_forward<T>(&self, namespace: impl Into<String>, target: T) -> PortForward
    where
        T: TryInto<ForwardTarget, Error: Into<CallerError>>,
    {
        let target = target.try_into().map_err(Into::into);
        PortForward::new(self.clone(), namespace.into(), target)
    }

    /// The objects of a type that says what it is: of k8s-openapi with the feature of that name, any
    /// `kube::Resource` with the feature `kube`, or a [`Kind`] of the program's own. All that is
    /// asked of it, requests, watches and mirrors, gives and takes that type.
    ///
    /// ```no_run
    /// # async fn run() -> kubewire::Result<()> {
    /// use k8s_openapi::api::core::v1::Pod;
    ///
    /// let client = kubewire::Client::from_env().await?;
    /// let pods = client.api::<Pod>().namespace("default").labels("app=web").list().await?;
    /// println!("{} pods", pods.items.len());
    /// # Ok(())
    /// # }
    /// ```
    pub fn api<K: Kind>(&self) -> Api<K> {
        Api::new(self)
    }

    /// Requests for the objects of a resource that only the running program knows; for types that
    /// are known there is [`api`](Self::api). [`Request`] has an example.
    pub fn request(&self, resource: Resource) -> Request {
        Request::new(self.clone(), resource)
    }

    /// Sends any request and gives the answer, whatever its code: `/version`, `/healthz`,
    /// `/openapi/v3`. The path is behind the base path of the server's URL.
    ///
    /// The credentials, and the retries after 401, 429 and 503, are those of every request. There
    /// is no deadline, neither for the head nor for [`Body::chunk`], as what is asked may take its
    /// time; [`Body::bytes`] gives up when nothing arrives for [`limits::REQUEST`]. Dropping the
    /// future gives the request up; the server may carry it out all the same.
    ///
    /// # Errors
    ///
    /// [`NetworkError`](crate::error::NetworkError) if there is no answer, and
    /// [`CallerError`] for a path or credentials that cannot be used.
    pub async fn send(&self, request: http::Request<Bytes>) -> Result<http::Response<Body>> {
        self.http.send(outgoing(request)).await
    }

    /// Sends a request whose body is sent as it comes, over a connection of its own, and gives the
    /// answer, whatever its code.
    ///
    /// Nothing is tried again, since the body is gone. There is no deadline. Dropping the future
    /// gives the request up.
    ///
    /// # Errors
    ///
    /// Those of [`send`](Self::send), and [`CallerError::Stream`] if the body fails.
    pub async fn send_streamed<B>(&self, request: http::Request<B>) -> Result<http::Response<Body>>
    where
        B: hyper::body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let path = request.uri().path_and_query();
        let path = path.map_or_else(|| "/".to_owned(), ToString::to_string);
        self.http.send_streamed(&path, request).await
    }

    /// Sends a request whose headers ask for another protocol (`Connection: Upgrade`), over a
    /// connection of its own, and gives the answer, whatever its code. Its head has
    /// [`limits::OPEN`] from when the connection stands.
    ///
    /// # Errors
    ///
    /// Those of [`send`](Self::send).
    pub async fn send_upgrade(
        &self,
        request: http::Request<Bytes>,
    ) -> Result<http::Response<MaybeUpgraded>> {
        let request = Outgoing {
            upgrade: true,
            deadline: Some(limits::OPEN),
            ..outgoing(request)
        };
        let mut response = self.http.send(request).await?;
        if response.status() != http::StatusCode::SWITCHING_PROTOCOLS {
            return Ok(response.map(MaybeUpgraded::Body));
        }
        let upgraded = hyper::upgrade::on(&mut response).await.map_err(blame)?;
        let upgraded = Upgraded(TokioIo::new(upgraded));
        Ok(response.map(|_| MaybeUpgraded::Upgraded(upgraded)))
    }

    pub(crate) fn http(&self) -> &Http {
        &self.http
    }

    /// Opens a WebSocket at a path of this server, with this client's credentials, and offers
    /// `protocols` on it. What comes back goes into [`Child::over`].
    ///
    /// It is for servers with paths of their own: an extension API server, or the URL that a
    /// container runtime hands out for an exec (`http://127.0.0.1:41237/exec/cx1fAgZt`).
    ///
    /// Cancel safety: dropping the future drops the connection.
    ///
    /// # Errors
    ///
    /// Those of [`Exec::spawn`]; [`CallerError::Path`] for
    /// a path that does not begin with a slash, or if `protocols` is empty:
    /// [`Subprotocol::Unnamed`] alone offers none.
    pub async fn websocket(
        &self,
        path_and_query: &str,
        protocols: &[Subprotocol],
    ) -> Result<(AnyWebSocket, Subprotocol)> {
        let path = path_and_query.split('?').next().unwrap_or_default();
        self.open(Outgoing::upgrade(path, path_and_query), protocols)
            .await
    }

    pub(crate) async fn open(
        &self,
        outgoing: Outgoing,
        protocols: &[Subprotocol],
    ) -> Result<(AnyWebSocket, Subprotocol)> {
        if protocols.is_empty() {
            return Err(CallerError::NoSubprotocol.into());
        }
        let offer = Subprotocol::offer(protocols);
        let opened = upgrade::open(&self.http, outgoing, offer.as_deref()).await?;
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

    /// The logs of many pods of a namespace, merged as they come; see [`MergedLogs`] for which.
    pub fn logs(&self, namespace: impl Into<String>) -> MergedLogs {
        MergedLogs::new(self.clone(), namespace.into())
    }

    /// Watches objects of one kind; see [`Watch`] for which, and in which form.
    ///
    /// All watches and logs of a client share one connection where the server speaks HTTP/2.
    pub fn watch(&self, resource: Resource) -> Watch {
        Watch::new(self.clone(), resource)
    }

    /// Starts a copy of the objects of a type that follows the server's: one watch, and as many
    /// readers as there are, each of which finds objects, waits for what they become and is told what
    /// changes. [`MirrorBuilder`] has an example.
    ///
    /// It needs the rights to `list` and to `watch`. For one task alone there is
    /// [`Mirror`](crate::watch::Mirror), without another task.
    pub fn mirror<K>(&self) -> MirrorBuilder<K>
    where
        K: Kind + crate::wire::watch::Decode + Send + Sync,
    {
        self.api().mirror()
    }

    pub(crate) fn without_watch_list(&self) -> &Arc<watch::WithoutWatchList> {
        &self.without_watch_list
    }
}

/// A client for the server of a `kube::Config`, as its user; see
/// [`Config`](Config#impl-TryFrom<Config>-for-Config) for what is carried over.
///
/// ```no_run
/// # fn run(kube: kube_client::Config) -> kubewire::Result<()> {
/// let client = kubewire::Client::try_from(kube)?;
/// # drop(client);
/// # Ok(())
/// # }
/// ```
///
/// A `kube::Client` tells nobody what it was made of: clone its configuration before it is made.
#[cfg(feature = "kube")]
impl TryFrom<kube_client::Config> for Client {
    type Error = crate::Error;

    fn try_from(kube: kube_client::Config) -> Result<Self> {
        Self::new(&kube.try_into()?)
    }
}

fn outgoing(request: http::Request<Bytes>) -> Outgoing {
    let (head, body) = request.into_parts();
    let path = head.uri.path_and_query().map_or("/", |path| path.as_str());
    Outgoing {
        about: About {
            verb: head.method.as_str().to_ascii_lowercase().into(),
            ..About::default()
        },
        method: head.method.clone(),
        headers: head.headers,
        body,
        deadline: None,
        ..Outgoing::get(format!("{} {}", head.method, head.uri.path()), path)
    }
}

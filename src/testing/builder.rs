//! What a server is to be: in flow a test's declarations, out comes a running [`ApiServer`].

use std::{
    collections::BTreeMap,
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use serde_json::Value;
use tokio::{io::DuplexStream, net::TcpListener};

use crate::{
    Resource,
    session::{Subprotocol, port_forward::ForwardProtocol},
    testing::{
        ApiServer, ResourceBuilder,
        access::{self, Access, Rule, roles},
        listener,
        objects::store::Store,
        pods::{
            kubelet,
            port_forward::{Backend, Ports},
        },
        router::{Cluster, Settings},
        tls,
        values::json::text,
    },
    wire::watch::Encoding,
};

/// The builder of an [`ApiServer`].
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use kubewire::{Client, testing::{ApiServer, Rule}};
///
/// let server = ApiServer::builder()
///     .pod("default", "web-0", |pod| pod.container("main", ["sleep", "infinity"]))
///     .user("reader", [Rule::new(["get"], ["pods"]).namespace("default")])
///     .start()
///     .await?;
/// let token = server.token_of("reader").expect("it is declared");
/// let pod = Client::new(&server.config_with_token(token))?.pod("default", "web-0");
/// assert_eq!(pod.containers().await?.len(), 1);
/// assert!(pod.exec(["true"]).output().await.unwrap_err().is_forbidden());
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
#[must_use = "a server does nothing until it is started"]
pub struct ApiServerBuilder {
    tls: bool,
    http2: bool,
    settings: Settings,
    pods: BTreeMap<(String, String), PodBuilder>,
    resources: Vec<ResourceBuilder>,
    users: Vec<(String, Vec<Rule>)>,
}

impl Default for ApiServerBuilder {
    fn default() -> Self {
        Self {
            tls: true,
            http2: true,
            settings: Settings::default(),
            pods: BTreeMap::new(),
            resources: Vec::new(),
            users: Vec::new(),
        }
    }
}

impl ApiServerBuilder {
    setters! {
        /// Speaks HTTP without TLS, and takes requests without a token for the admin's, as
        /// `kubectl proxy` does. A token that comes nevertheless must be right.
        fn plain() tls = false;

        /// The subprotocols of exec and attach to accept; all unless set. A server before 1.29 is one
        /// without [`Subprotocol::V5`].
        fn subprotocols(protocols: impl IntoIterator<Item = Subprotocol>) settings.subprotocols = protocols.into_iter().collect();

        /// Ends the input of a command when its stdout or stderr has ended, wanted or not, as
        /// containerd does (containerd#13934): `sh -c 'exec cat >file'` sees a part of it, and succeeds.
        fn input_ends_with_output() settings.input_ends_with_output = true;

        /// The subprotocols of port-forward to accept; all unless set. A server before 1.30 is one
        /// without [`ForwardProtocol::Spdy`].
        fn forward_protocols(protocols: impl IntoIterator<Item = ForwardProtocol>) settings.forward_protocols = protocols.into_iter().collect();

        /// Speaks HTTP/1.1 only. Without TLS it always does.
        fn http1_only() http2 = false;

        /// Whether watches can be asked for a snapshot, as from 1.34 on they can: without, such a
        /// request is refused with 422.
        fn watch_list(yes: bool) settings.watch_list = yes;
    }

    /// Whether objects can be had as CBOR (KEP-4222), which 1.36 has behind a feature gate that is
    /// off: without, JSON is what clients fall back to.
    pub fn cbor(mut self, yes: bool) -> Self {
        let encodings = &mut self.settings.encodings;
        encodings.retain(|encoding| *encoding != Encoding::Cbor);
        encodings.extend(yes.then_some(Encoding::Cbor));
        self
    }

    setters! {
        /// Whether watches are compressed for clients that accept gzip, one member an event, as from
        /// 1.37 on they are. Lists over 128 KiB always are.
        fn watch_compression(yes: bool) settings.watch_gzip = yes;

        /// Whether logs of stdout or stderr alone can be asked for. They are refused with 422 unless
        /// set: 1.36 has them behind the feature gate `PodLogsQuerySplitStreams`, which is off.
        fn log_streams(yes: bool) settings.log_streams = yes;

        /// How often watches get a bookmark: every minute unless set.
        fn bookmark_period(period: Duration) settings.bookmarks = period;

        /// Adds a user, who may do what these rules and the RBAC objects of the server allow. The
        /// user's token is that of [`ApiServer::token_of`].
        fn user(name: impl Into<String>, rules: impl IntoIterator<Item = Rule>) users.push((name.into(), rules.into_iter().collect()));
    }

    /// Adds a custom resource, as a CustomResourceDefinition does, without a schema and
    /// subresources. Built-in kinds are there.
    pub fn resource(self, resource: Resource, kind: impl Into<String>) -> Self {
        self.resource_with(resource, kind, |resource| resource)
    }

    /// Adds a custom resource, and says more about it.
    pub fn resource_with(
        mut self,
        resource: Resource,
        kind: impl Into<String>,
        declare: impl FnOnce(ResourceBuilder) -> ResourceBuilder,
    ) -> Self {
        let resource = ResourceBuilder::new(resource, &kind.into());
        self.resources.push(declare(resource));
        self
    }

    /// Adds a pod, or replaces the one of this name.
    pub fn pod(
        mut self,
        namespace: impl Into<String>,
        name: impl Into<String>,
        declare: impl FnOnce(PodBuilder) -> PodBuilder,
    ) -> Self {
        let pod = declare(PodBuilder::default());
        self.pods.insert((namespace.into(), name.into()), pod);
        self
    }

    /// Starts the containers' processes and listens on a free port of loopback, on the current
    /// tokio runtime, which needs I/O and time.
    ///
    /// # Errors
    ///
    /// If a socket cannot be had, or a container's program cannot be started: the text names it.
    pub async fn start(self) -> io::Result<ApiServer> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let (ca, acceptor) = match self.tls {
            true => {
                let (ca, acceptor) = tls::acceptor(address.ip(), self.http2)?;
                (Some(ca), Some(acceptor))
            }
            false => (None, None),
        };
        let store = Arc::new(Store::new());
        let users = self.users.iter().map(|(name, _)| &**name);
        let access = Access::new(self.tls, users, store.clone());
        let cluster = Cluster::new(access, store, self.settings, address, ca.as_deref());
        let tasks = cluster.tasks.clone();
        for resource in self.resources {
            cluster.kinds.add(resource.kind);
        }
        let cluster = Arc::new(cluster);
        for namespace in ["default", "kube-node-lease", "kube-public", "kube-system"] {
            cluster.ensure_namespace(namespace);
        }
        for line in include_str!("seeds.txt").lines().skip(1) {
            let (plural, object) = line.split_once(' ').unwrap_or_default();
            let object: Value = serde_json::from_str(object).expect("a table of JSON");
            let version = text(&object["apiVersion"]);
            let (group, version) = version.split_once('/').unwrap_or(("", version));
            let kind = cluster.kinds.find(group, version, plural);
            let resource = &kind.expect("a line of the table").resource;
            cluster.store.seed(resource, object);
        }
        for ((namespace, name), pod) in self.pods {
            let added = kubelet::add(&cluster, &namespace, &name, pod);
            added.inspect_err(|_| tasks.stop())?;
        }
        let declared = self.users.iter();
        let declared = declared.flat_map(|(user, rules)| roles::declared(user, rules));
        for (plural, object) in declared {
            cluster.ensure_namespace(text(&object["metadata"]["namespace"]));
            let kind = cluster.kinds.any(access::GROUP, plural);
            let kind = kind.expect("a line of the table");
            cluster.store.seed(&kind.resource, object);
        }
        tasks.spawn(listener::serve(listener, acceptor, cluster.clone()));
        Ok(ApiServer {
            address,
            ca,
            cluster,
        })
    }
}

/// What becomes of a container whose process has ended, as `spec.restartPolicy` says.
/// See [`PodBuilder`] for an example.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum RestartPolicy {
    /// It is started again.
    Always,
    /// It is started again unless its exit code is 0.
    OnFailure,
    /// It stays terminated.
    #[default]
    Never,
}

impl RestartPolicy {
    pub(super) fn applies(self, exit_code: i32) -> bool {
        match self {
            Self::Always => true,
            Self::OnFailure => exit_code != 0,
            Self::Never => false,
        }
    }
}

/// The declaration of a pod.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use kubewire::testing::{ApiServer, RestartPolicy};
///
/// let server = ApiServer::builder()
///     .pod("default", "web-0", |pod| {
///         pod.label("app", "web").container("main", ["sleep", "infinity"])
///     })
///     .pod("default", "job-0", |pod| {
///         let pod = pod.restart_policy(RestartPolicy::OnFailure);
///         pod.container("main", ["sh", "-c", "exit 1"]) // and again
///     })
///     .start()
///     .await?;
/// # let client = kubewire::Client::new(&server.config())?;
/// assert_eq!(client.pod("default", "web-0").containers().await?.len(), 1);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Default)]
#[must_use]
pub struct PodBuilder {
    pub(super) labels: BTreeMap<String, String>,
    pub(super) annotations: BTreeMap<String, String>,
    pub(super) policy: RestartPolicy,
    pub(super) containers: Vec<ContainerBuilder>,
    pub(super) ports: Ports,
}

impl PodBuilder {
    setters! {
        /// Gives it a label.
        fn label(name: impl Into<String>, value: impl Into<String>) labels.insert(name.into(), value.into());

        /// Gives it an annotation, such as `kubectl.kubernetes.io/default-container`.
        fn annotation(name: impl Into<String>, value: impl Into<String>) annotations.insert(name.into(), value.into());

        /// Whether containers are started again when their processes end, which they are a tenth of a
        /// second later, always: the kubelet's time grows. [`RestartPolicy::Never`] unless set, unlike
        /// in Kubernetes, so that a test's processes end when they end.
        fn restart_policy(policy: RestartPolicy) policy = policy;
    }

    /// Gives it a port of its own, behind which is what listens at this address. Ports that a pod
    /// does not have are those of this machine.
    pub fn port(mut self, port: u16, address: SocketAddr) -> Self {
        self.ports.0.insert(port, Backend::Address(address));
        self
    }

    /// Gives it a port of its own, whose connections are handled by this function: each ends with
    /// the future that it returns.
    pub fn port_with<F>(
        mut self,
        port: u16,
        handle: impl Fn(DuplexStream) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let handler = move |io| Box::pin(handle(io)) as _;
        self.ports
            .0
            .insert(port, Backend::Handler(Arc::new(handler)));
        self
    }

    /// Adds a container that runs this command, without stdin and terminal.
    pub fn container<I, S>(self, name: impl Into<String>, command: I) -> Self
    where
        I: IntoIterator<Item = S>,
        S: Into<String>,
    {
        self.container_with(name, command, |container| container)
    }

    /// Adds a container that runs this command, and says more about it.
    pub fn container_with<I, S>(
        mut self,
        name: impl Into<String>,
        command: I,
        declare: impl FnOnce(ContainerBuilder) -> ContainerBuilder,
    ) -> Self
    where
        I: IntoIterator<Item = S>,
        S: Into<String>,
    {
        self.containers.push(declare(ContainerBuilder {
            name: name.into(),
            command: command.into_iter().map(Into::into).collect(),
            env: Vec::new(),
            stdin: false,
            stdin_once: false,
            tty: false,
            image: None,
        }));
        self
    }
}

/// The declaration of a container.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let server = kubewire::testing::ApiServer::builder()
///     .pod("default", "web-0", |pod| {
///         pod.container_with("main", ["cat"], |container| container.stdin().env("LANG", "C"))
///     })
///     .start()
///     .await?;
/// # let client = kubewire::Client::new(&server.config())?;
/// assert!(client.pod("default", "web-0").containers().await?[0].stdin);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
#[must_use]
pub struct ContainerBuilder {
    pub(super) name: String,
    pub(super) command: Vec<String>,
    pub(super) env: Vec<(String, String)>,
    pub(super) stdin: bool,
    pub(super) stdin_once: bool,
    pub(super) tty: bool,
    /// What a client named; nothing is made of it.
    pub(super) image: Option<String>,
}

impl ContainerBuilder {
    setters! {
        /// Keeps the process's stdin open for those who attach; without this it is empty.
        fn stdin() stdin = true;

        /// Keeps stdin open until the first who attached to it has ended it or left.
        fn stdin_once() stdin = true, stdin_once = true;

        /// Gives the process a terminal.
        fn tty() tty = true;

        /// Sets an environment variable, for commands that exec runs too. There is little else in the
        /// environment: `PATH`, `HOME`, `HOSTNAME`, and `TERM` with a terminal.
        fn env(name: impl Into<String>, value: impl Into<String>) env.push((name.into(), value.into()));
    }
}

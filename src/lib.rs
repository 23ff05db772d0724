//! Kubernetes' streaming protocols: exec, attach, port-forward, logs and watch.
//!
//! A [`Client`] finds the API server as kubectl does, verifies it, authenticates, and opens streams.
//! exec and attach come in the shape of [`tokio::process`], forwarded connections and output as
//! [`AsyncRead`](tokio::io::AsyncRead), logs and watches as streams that survive their connection.
//! Output is handed out as slices of the buffer that the socket was read into, with no task between
//! socket and reader. A connection that breaks is an error, never a success.
//!
//! The examples below run: where a `server` appears, it is the [embedded one](testing), which is
//! there for the tests of your program too.
//!
//! # A client
//!
//! [`Client::from_env`] reads `KUBECONFIG`, `~/.kube/config` or, in a pod, its service account.
//! [`Config`] has all that can be chosen. A client connects when it is first used; clones share
//! connections and credentials.
//!
//! ```no_run
//! # async fn run() -> kubewire::Result<()> {
//! use kubewire::Client;
//!
//! let client = Client::from_env().await?;
//! let pod = client.pod("default", "web-0");
//! # Ok(())
//! # }
//! ```
//!
//! # exec
//!
//! ```
//! # kubewire::example(|pod| pod.container("main", ["sleep", "infinity"]), async |client| {
//! let pod = client.pod("default", "web-0");
//! let output = pod.exec(["echo", "hello"]).output().await?;
//! assert!(output.status.success());
//! assert_eq!(output.stdout, b"hello\n");
//!
//! // Fed while output is read, then closed: a file or any reader does as well.
//! let output = pod.exec(["sh", "-c", "cat; exit 3"]).input("a line\n").output().await?;
//! assert_eq!((output.status.code(), &output.stdout[..]), (Some(3), &b"a line\n"[..]));
//! # Ok(())
//! # });
//! ```
//!
//! With [`tty`](exec::Exec::tty) the process gets a terminal, whose size
//! [`resize`](exec::Child::resize) changes. [`spawn`](exec::Exec::spawn) gives a
//! [`Child`](exec::Child) with the streams as handles. [`Client::exec_all`] runs a command in many
//! pods at once. What success means, and what no client can see, says
//! [`ExitStatus`](exec::ExitStatus).
//!
//! # attach
//!
//! To the process that the container runs. The server sends no exit code; that is in the pod's
//! status.
//!
//! ```
//! # kubewire::example(|pod| {
//! #     pod.container("main", ["sh", "-c", "while :; do echo tick; sleep 0.1; done"])
//! # }, async |client| {
//! use tokio::io::AsyncBufReadExt as _;
//!
//! let mut attached = client.pod("default", "web-0").attach().spawn().await?;
//! let mut lines = attached.stdout.take().expect("stdout is piped").lines();
//! assert_eq!(lines.next_line().await?.as_deref(), Some("tick"));
//! # Ok(())
//! # });
//! ```
//!
//! # port-forward
//!
//! Many connections over one WebSocket, each of which fails alone. The target is a pod, or what a
//! service or a workload selects (`svc/web`, `deploy/web`).
//!
//! ```
//! # kubewire::example(|pod| pod.container("main", ["sleep", "infinity"]), async |client| {
//! # let port = kubewire::example_port().await?;
//! use tokio::io::AsyncReadExt as _;
//!
//! let tunnel = client.pod("default", "web-0").port_forward().connect().await?;
//! let mut stream = tunnel.open(port).await?;
//! let mut answer = String::new();
//! stream.read_to_string(&mut answer).await?;
//! assert_eq!(answer, "hello");
//!
//! // Everything that connects here goes there, until the listener is dropped.
//! let listener = tunnel.listen("127.0.0.1:0", port).await?;
//! # let _ = listener;
//! # Ok(())
//! # });
//! ```
//!
//! # logs
//!
//! A followed log brings each line once, through rotation of connections and restarts of the
//! server; it ends when the container has.
//!
//! ```
//! # kubewire::example(|pod| {
//! #     pod.container("main", ["sh", "-c", "echo ready; sleep 600"])
//! # }, async |client| {
//! let mut lines = client.pod("default", "web-0").logs().follow().stream();
//! while let Some(line) = lines.next().await {
//!     let line = line?;
//!     if line.bytes == "ready" {
//!         break;
//!     }
//! }
//! # Ok(())
//! # });
//! ```
//!
//! [`Client::logs`] merges the logs of many pods, those of new pods as they appear.
//!
//! # watch
//!
//! A watch begins with a snapshot and outlives cut connections and expired versions. Objects stay
//! unparsed until somebody asks. [`Client::mirror`] keeps the server's state for many readers.
//!
//! ```
//! # kubewire::example(|pod| pod.container("main", ["sleep", "infinity"]), async |client| {
//! use kubewire::watch::Update;
//!
//! let pods = client.find("pods").await?.resource;
//! let mut updates = client.watch(pods).namespace("default").stream();
//! while let Some(update) = updates.next().await {
//!     if let Update::Event(event) = update? {
//!         assert_eq!(event.object.metadata()?.name()?, "web-0");
//!         break;
//!     }
//! }
//! # Ok(())
//! # });
//! ```
//!
//! # Plain requests
//!
//! ```
//! # kubewire::example(|pod| pod.container("main", ["sleep", "9"]), async |client| {
//! use kubewire::request::{List, Resource};
//! use serde_json::{Value, json};
//!
//! let maps = Resource::namespaced("", "v1", "configmaps");
//! let maps = client.request(maps).namespace("default");
//! let _: Value = maps
//!     .create(&json!({
//!         "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "site"},
//!         "data": {"theme": "dark"},
//!     }))
//!     .await?;
//! let _: Value = maps.patch("site", &json!({"data": {"theme": "light"}})).await?;
//! let all: List<Value> = maps.list().await?;
//! assert_eq!(all.items[1]["data"]["theme"], "light");
//! # Ok(())
//! # });
//! ```
//!
//! Where the type says what it is, [`Client::api`] gives and takes that type and no other.
//!
//! # Errors
//!
//! An [`Error`] says who is to blame, because that decides what to do: the peer, the API, the
//! network, or the caller. It carries the Status that the server sent and, where the server's
//! words say enough, a hint: the rule that a Role lacks, the containers that a pod has.
//!
//! ```
//! # kubewire::example(|pod| pod.container("main", ["sleep", "9"]), async |client| {
//! let error = client.pod("default", "nobody").exec(["true"]).output().await.unwrap_err();
//! match error {
//!     kubewire::Error::Api(api) => println!("{api}"), // pods "nobody" not found
//!     other => return Err(other.into()),
//! }
//! # Ok(())
//! # });
//! ```
//!
//! # Where things are
//!
//! | module | has |
//! |---|---|
//! | [`exec`], [`attach`], [`debug`], [`port_forward`], [`logs`], [`watch`], [`request`] | what each verb needs |
//! | [`config`], [`net`] | where the server is and how it is reached |
//! | [`error`], [`limits`] | what goes wrong, and how much of anything there can be |
//! | [`server`] | the other side of each verb, for gateways and fake servers |
//! | [`gateway`] | both sides of a verb, joined |
//! | [`testing`] | an API server to embed in tests |
//! | [`session`], [`wire`] | the protocols without I/O: state machines over frames, frames over bytes |
//!
//! # Features
//!
//! | feature | gives | default |
//! |---|---|---|
//! | none | [`wire`] and [`session`], without tokio | |
//! | `client` | [`Client`], [`Config`] and the verbs; with `ring` or `aws-lc-rs` | yes |
//! | `ring` | TLS with ring's cryptography | yes |
//! | `aws-lc-rs` | TLS with AWS-LC's cryptography, also if `ring` is on | |
//! | `copy` | [`copy`]: files and trees to and from containers | |
//! | `server` | [`server`] | |
//! | `testing` | [`testing`] (Unix); with `ring` or `aws-lc-rs` | |
//! | `k8s-openapi` | [`Client::api`] for the types of k8s-openapi | |
//! | `k8s-pb` | the same for the types of k8s-pb, read from protobuf | |
//! | `kube` | [`Client::api`] for all that is a `kube::Resource`, clients out of a `kube::Config` | |
//! | `cli` | the command-line tool | |

#![cfg_attr(docsrs, feature(doc_cfg))]

/// Setters of a builder, each with the fields that it sets, or what it calls of them:
/// `fn tail(lines: u64) config.lines = lines;`, `fn file(path: PathBuf) files.push(path);`.
#[cfg(any(feature = "client", all(feature = "testing", unix)))]
macro_rules! setters {
    ($($(#[$meta:meta])* fn $name:ident($($value:ident: $type:ty),*)
        $($($field:ident).+ $(($($given:expr),*))? $(= $to:expr)?),+;)*) => { $(
        $(#[$meta])*
        pub fn $name(mut self $(, $value: $type)*) -> Self {
            $(self.$($field).+ $(($($given),*))? $(= $to)?;)+
            self
        }
    )* };
}

/// `Debug` with these fields, for a type whose others have none, or are secret.
macro_rules! debug_fields {
    ($([$($generics:tt)*])? $name:ident $(<$type:ident>)? { $($field:ident),* }) => {
        impl$(<$($generics)*>)? std::fmt::Debug for $name$(<$type>)? {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.debug_struct(stringify!($name))
                    $(.field(stringify!($field), &self.$field))*
                    .finish_non_exhaustive()
            }
        }
    };
}

#[cfg(feature = "client")]
pub mod auth;
#[cfg(feature = "client")]
mod client;
#[cfg(feature = "client")]
pub mod config;
#[cfg(any(feature = "client", feature = "server"))]
mod delegate;
pub mod error;
#[cfg(all(feature = "client", feature = "testing", unix))]
mod example;
#[cfg(all(feature = "client", feature = "server"))]
pub mod gateway;
pub mod limits;
#[cfg(any(feature = "client", feature = "testing"))]
pub mod net;
#[cfg(any(feature = "client", feature = "server"))]
mod resource;
mod role;
#[cfg(feature = "server")]
pub mod server;
pub mod session;
#[cfg(all(feature = "testing", unix))]
pub mod testing;
#[cfg(any(feature = "client", feature = "server"))]
mod transport;
pub mod wire;

/// Run a command in a container, as `tokio::process` runs one here.
#[cfg(feature = "client")]
pub mod exec {
    pub use crate::{
        client::{
            AllEvent, AllOutput, Child, ChildStderr, ChildStdin, ChildStdout, Container,
            ContainerKind, Exec, ExecAll, ExitStatus, Input, IntoCommand, Output, Program,
            RunningAll, Stdio, Words,
        },
        session::{
            Subprotocol,
            remote_command::{InputAtExit, Streams},
        },
        transport::ws::stats::SessionStats,
        wire::resize::TerminalSize,
    };
}

/// Attach to the process that a container runs.
#[cfg(feature = "client")]
pub mod attach {
    pub use crate::{
        client::{Attach, Attached, ChildStderr, ChildStdin, ChildStdout, Input, Stdio},
        transport::ws::stats::SessionStats,
    };
}

/// Look into a pod that runs, from an ephemeral container.
#[cfg(feature = "client")]
pub mod debug {
    pub use crate::client::{DebugContainer, DebugProfile, Debugger};
}

/// Copy files and trees to and from containers.
#[cfg(feature = "copy")]
pub mod copy {
    pub use crate::client::copy::{
        Copied, CopyBetween, CopyFrom, CopyTo, LeftOut, NotKept, Progress, Reason,
    };
}

/// Forward connections to ports of a pod.
#[cfg(feature = "client")]
pub mod port_forward {
    pub use crate::{
        client::port_forward::{
            ForwardPort, ForwardStream, ForwardTarget, HalfClose, ListenEvent, Listener,
            ListenerStats, PortForward, ResolvedPort, Traffic, Tunnel, TunnelStats,
        },
        session::port_forward::{ForwardProtocol, WhenFull},
        transport::ws::stats::SessionStats,
    };
}

/// Read and follow the logs of containers.
#[cfg(feature = "client")]
pub mod logs {
    pub use crate::{
        client::{
            LogLines, LogSource, Logs, MergedLines, MergedLogs, Since, SourcedLine, SourcedUpdate,
        },
        session::logs::{Exit, LogEnd, LogLine, LogStream, LogUpdate},
        transport::http::exchange::StreamStats,
        wire::stamp::Stamp,
    };
}

/// Watch objects.
#[cfg(feature = "client")]
pub mod watch {
    pub use crate::{
        client::{Events, MirrorBuilder, MirrorChanges, MirrorReader, Updates, Watch},
        session::watch::{
            Change, Condition, Form, Mirror, MirrorUpdate, ObjectKey, Shard, ShardField, Update,
        },
        transport::http::exchange::StreamStats,
        wire::watch::{
            Decode, Encoding, Event, EventError, EventType, Labels, Metadata, Object, ObjectMeta,
            TypedEvent,
        },
    };

    #[cfg(feature = "k8s-pb")]
    pub use crate::wire::watch::Protobuf;
}

/// Plain requests: get, list, create, replace, patch, delete, and what is served.
#[cfg(feature = "client")]
pub mod request {
    pub use crate::{
        client::{
            Api, ApiResource, ApiStatus, Body, Deleted, Discovery, HttpProxy, List, ListMeta,
            MaybeUpgraded, Pages, Patch, Request, Upgraded,
        },
        resource::{Cluster, InNamespaces, Kind, Namespaced, Resource, Scope},
        transport::http::refusal,
    };
}

#[cfg(feature = "client")]
pub use client::{Client, Over, Pod};
#[cfg(feature = "client")]
pub use config::Config;
pub use error::{Error, Result};
#[cfg(all(feature = "client", feature = "testing", unix))]
#[doc(hidden)]
pub use example::{example, example_port, example_session};
#[cfg(any(feature = "client", feature = "server"))]
pub use resource::Resource;
pub use role::Role;
pub use session::KeepaliveConfig;
#[cfg(any(feature = "client", feature = "server"))]
pub use transport::AnyWebSocket;

/// The target of the events that tell each request, with its code and the time that it took.
#[cfg(feature = "client")]
pub(crate) const REQUESTS: &str = "kubewire::requests";

/// The `User-Agent` of every request.
#[cfg(feature = "client")]
pub(crate) const AGENT: &str = concat!("kubewire/", env!("CARGO_PKG_VERSION"));

/// The code in the README compiles, and what can run there runs.
#[cfg(all(doctest, feature = "client", feature = "testing"))]
#[doc = include_str!("../README.md")]
struct Readme;

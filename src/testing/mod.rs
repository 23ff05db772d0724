//! An API server for tests and demonstrations, embedded in a program: in flow pods as a test
//! declares them, out comes an [`ApiServer`] on loopback that clients cannot tell from a real one
//! in what it serves.
//!
//! exec runs local processes, with a terminal where one is asked for, and attach connects to the
//! process that a container has been running since the server started. They see this machine's
//! files: containers are names here, and isolate nothing. Messages, codes and the order of checks
//! are those of Kubernetes 1.36 over containerd.
//!
//! ```
//! # #[cfg(feature = "client")]
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use kubewire::{Client, testing::ApiServer};
//!
//! let server = ApiServer::builder()
//!     .pod("default", "web-0", |pod| pod.container("main", ["sleep", "infinity"]))
//!     .start()
//!     .await?;
//! let client = Client::new(&server.config())?;
//! let output = client.pod("default", "web-0").exec(["echo", "hello"]).output().await?;
//! assert_eq!(output.stdout, b"hello\n");
//! server.shutdown().await;
//! # Ok(())
//! # }
//! # #[cfg(not(feature = "client"))]
//! # fn main() {}
//! ```
//!
//! # Layout
//!
//! ```text
//!   accept, TLS          listener.rs, tls.rs
//!     -> who may what    access.rs
//!       -> which verb    router.rs
//!         -> the verb    exec.rs, attach.rs, logs.rs, objects.rs, ... one file each
//!           -> processes container.rs (a container's own), process.rs (any)
//!           -> objects   store.rs
//! ```

mod access;
mod attach;
mod builder;
mod container;
mod discovery;
mod exec;
mod faults;
mod listener;
mod logs;
mod objects;
mod pods;
mod port_forward;
mod process;
mod router;
mod store;
mod streaming;
mod tasks;
mod tls;

use std::{net::SocketAddr, sync::Arc};

use base64::{Engine as _, engine::general_purpose::STANDARD};

pub use builder::{ApiServerBuilder, ContainerBuilder, PodBuilder};
pub use faults::Fault;
use router::Cluster;
use serde_json::Value;
pub use streaming::BodyFault;

/// An API server on loopback.
///
/// Dropping it kills its processes and ends its tasks, without waiting for either;
/// [`shutdown`](Self::shutdown) waits.
#[derive(Debug)]
pub struct ApiServer {
    address: SocketAddr,
    /// The certificate authority in PEM; `None` without TLS.
    ca: Option<String>,
    cluster: Arc<Cluster>,
}

impl ApiServer {
    /// A server to be: with TLS and without pods.
    pub fn builder() -> ApiServerBuilder {
        ApiServerBuilder::default()
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its URL, such as `https://127.0.0.1:40123`.
    pub fn url(&self) -> String {
        let scheme = if self.ca.is_some() { "https" } else { "http" };
        format!("{scheme}://{}", self.address)
    }

    /// The certificate authority that signed its certificate, in PEM; `None` without TLS.
    pub fn ca_pem(&self) -> Option<&str> {
        self.ca.as_deref()
    }

    /// The bearer token of the user `admin`, who may do everything.
    pub fn token(&self) -> &str {
        self.cluster.access.token(access::ADMIN)
    }

    /// The bearer token of the user `nobody`, who may do nothing.
    pub fn token_without_rights(&self) -> &str {
        self.cluster.access.token(access::NOBODY)
    }

    /// A client's configuration for this server, as `admin`.
    #[cfg(feature = "client")]
    pub fn config(&self) -> crate::Config {
        self.config_with_token(self.token())
    }

    /// A client's configuration for this server with another token.
    ///
    /// # Panics
    ///
    /// Never: the server's URL is one.
    #[cfg(feature = "client")]
    pub fn config_with_token(&self, token: &str) -> crate::Config {
        let config = crate::Config::new(&self.url()).expect("the URL of a socket address");
        match &self.ca {
            Some(ca) => config.with_ca_pem(ca.as_bytes()).with_token(token),
            // As for `kubectl proxy`, which brings its own credentials.
            None if token == self.token() => config,
            None => config.with_token(token),
        }
    }

    /// A kubeconfig for this server, as `admin` in the namespace `default`: the text to write to
    /// a file. It holds the token.
    pub fn kubeconfig(&self) -> String {
        let ca = self.ca.as_ref().map_or(String::new(), |ca| {
            format!("\n    certificate-authority-data: {}", STANDARD.encode(ca))
        });
        format!(
            "apiVersion: v1
kind: Config
current-context: testing
clusters:
- name: testing
  cluster:
    server: {}{ca}
users:
- name: admin
  user:
    token: {}
contexts:
- name: testing
  context:
    cluster: testing
    user: admin
    namespace: default
",
            self.url(),
            self.token(),
        )
    }

    /// Lets the next request fail; several faults are for as many requests, in order. Requests of
    /// any kind count, so inject when no other is under way.
    pub fn inject(&self, fault: Fault) {
        self.cluster.faults.push(fault);
    }

    /// Creates an object, or replaces the one of this name, and returns its resourceVersion.
    ///
    /// The object brings its `kind` and its name, and its namespace if it has one. The server
    /// fills in `resourceVersion`, `uid`, `creationTimestamp` and, where it is missing, the
    /// `apiVersion`. There are no schemas: any resource can be put, lists and watches find it.
    pub fn put(&self, resource: &crate::Resource, mut object: Value) -> String {
        if object["apiVersion"].is_null() {
            let version = &*resource.version;
            object["apiVersion"] = match &*resource.group {
                "" => version.into(),
                group => format!("{group}/{version}").into(),
            };
        }
        let version = self.cluster.store.put(resource, object, logs::now());
        version.to_string()
    }

    /// Deletes an object; the namespace is empty for what has none. Returns whether it was there.
    ///
    /// A pod's processes run on: to clients it is gone.
    pub fn delete(&self, resource: &crate::Resource, namespace: &str, name: &str) -> bool {
        let key = store::key(resource, namespace, name);
        self.cluster.store.delete(&key).is_some()
    }

    /// Forgets the history of all objects: watches that want to go on from before are told that
    /// their version has expired.
    pub fn compact(&self) {
        self.cluster.store.compact();
    }

    /// The version of the last change.
    pub fn resource_version(&self) -> String {
        self.cluster.store.version().to_string()
    }

    /// All objects of a resource, as a list would give them now.
    pub fn objects(&self, resource: &crate::Resource) -> Vec<Value> {
        let listed = self.cluster.store.list(resource, None, None);
        let (objects, _) = listed.unwrap_or_default();
        objects
            .into_iter()
            .map(|(_, object)| (*object).clone())
            .collect()
    }

    /// What goes wrong with the next list, watch and log requests: one entry a request, `None`
    /// for one that goes well. When all are used up, nothing goes wrong any more.
    pub fn inject_into_bodies(&self, faults: impl IntoIterator<Item = Option<BodyFault>>) {
        self.cluster.body_faults.push(faults);
    }

    /// Streams of all port-forwards that clients have open: of connections that either end may
    /// still use, or that have not been read to the end, two each through a tunnel. For a test that
    /// its program gives back what it opens.
    pub fn forward_streams(&self) -> usize {
        self.cluster.forwardings.streams()
    }

    /// Forgets faults of bodies that have not befallen a request yet.
    pub fn clear_body_faults(&self) {
        self.cluster.body_faults.clear();
    }

    /// Stops listening, kills all processes and waits until they and the connections are gone.
    pub async fn shutdown(self) {
        self.cluster.stop();
        self.cluster.tasks.wait().await;
    }
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        self.cluster.stop();
    }
}

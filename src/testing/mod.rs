//! An API server for tests and demonstrations, embedded in a program: in flow pods as a test
//! declares them, out comes an [`ApiServer`] on loopback that clients cannot tell from a real one
//! in what it serves.
//!
//! exec runs local processes, with a terminal where one is asked for, and attach connects to the
//! process that a container has been running since the server started. They see this machine's
//! files: containers are names here, and isolate nothing. Messages, codes and the order of checks
//! are those of Kubernetes 1.36 over containerd.
//!
//! [`ApiServer`] has an example.
//!
//! # Objects
//!
//! The server has the built-in kinds of Kubernetes 1.36, and those that a test
//! [declares](ApiServerBuilder::resource) or a client defines; what is no resource is not found.
//! Clients create, replace, patch in all four ways and delete objects, with conflicts, field
//! managers, finalizers, owners, generations, dry runs and the subresources `status` and `scale`.
//! A pod that a client creates runs if its containers name commands of this machine, and its
//! deletion kills. Lists come in pages, watches with bookmarks and snapshots, both with selectors,
//! and versions expire when a test says so.
//!
//! What a cluster does and this server does not is refused with 501 and a text that begins with
//! "not implemented by the embedded server". Of admission there is what every pod
//! gets (its service account, priority, tolerations and class; the token itself is not there), and
//! there are no controllers but those of pods, namespaces and garbage: a Deployment makes no pods.
//!
//! What goes wrong is part of it: [`ApiServer::inject_into_bodies`] cuts, ends, stalls, delays or
//! refuses lists, watches and logs, [`ApiServer::inject`] does it to any connection, and
//! [`ApiServer::compact`] lets versions expire.
//!
//! `cargo run --example controller` has a whole controller with its test.
//!
//! # Encodings
//!
//! Answers are in the encoding and form that the client accepts, chosen as the API server does:
//! JSON; protobuf for built-in kinds and `PartialObjectMetadata`, and for custom resources where
//! the test brings their messages ([`ApiServer::put_protobuf`]), otherwise 406 or JSON; CBOR if
//! [asked for](ApiServerBuilder::cbor); `Table` with kubectl's columns. Clients send JSON, YAML or, for built-in kinds, protobuf.
//!
//! # Logs
//!
//! A container's log is what its process writes. All parameters of the kubelet are honoured. When
//! a process ends, the pod's [`restart_policy`](PodBuilder::restart_policy) decides what becomes
//! of its container; [`ApiServer::kill_container`] brings the end about, and `previous` asks for
//! the log of before.
//!
//! # Layout
//!
//! ```text
//!   listener.rs, tls.rs, faults.rs     connections, and what befalls them
//!     -> router.rs                     which verb
//!       -> requests/                   what is asked: the path, the query, the body, what is accepted
//!       -> access/                     who may what
//!       -> pods/                       exec, attach, port-forward, logs and proxies, over processes
//!       -> objects/                    reads, watches and deletions, over the store
//!       -> writes/                     creations, updates, patches, and who owns which field
//!            -> checks/                whether they may be
//!         -> answers/                  encodings, tables, streams, messages
//!
//!   kinds/                             the tables of what there is, and what is said of it
//!   values/                            parts of objects, and the language of the tables
//! ```

mod access;
mod answers;
mod builder;
mod checks;
mod faults;
mod kinds;
mod listener;
mod objects;
mod pods;
mod requests;
mod router;
mod tasks;
mod tls;
mod values;
mod writes;

use std::{net::SocketAddr, sync::Arc};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;

pub use access::Rule;
pub use answers::streaming::BodyFault;
pub use builder::{ApiServerBuilder, ContainerBuilder, PodBuilder, RestartPolicy};
pub use faults::Fault;
pub use kinds::custom::ResourceBuilder;
use objects::store::Object;
use router::Cluster;
use serde_json::Value;

/// An API server on loopback.
///
/// Dropping it kills its processes and ends its tasks, without waiting for either;
/// [`shutdown`](Self::shutdown) waits.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let server = kubewire::testing::ApiServer::builder()
///     .pod("default", "web-0", |pod| pod.container("main", ["sleep", "infinity"]))
///     .start()
///     .await?;
/// let client = kubewire::Client::new(&server.config())?;
/// let output = client.pod("default", "web-0").exec(["echo", "hello"]).output().await?;
/// assert_eq!(output.stdout, b"hello\n");
/// # Ok(())
/// # }
/// ```
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
        self.token_of(access::ADMIN).unwrap_or_default()
    }

    /// The bearer token of the user `nobody`, who may do nothing.
    pub fn token_without_rights(&self) -> &str {
        self.token_of(access::NOBODY).unwrap_or_default()
    }

    /// The bearer token of a user; `None` if there is no such user.
    pub fn token_of(&self, user: &str) -> Option<&str> {
        self.cluster.access.token(user)
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
        self.cluster.faults.push([Some(fault)]);
    }

    /// Creates an object, or replaces the one of this name, and returns its resourceVersion.
    ///
    /// The object brings its `kind` and its name, and its namespace if it has one. The server
    /// fills in `resourceVersion` and, where they are missing, `uid`, `creationTimestamp` and
    /// `apiVersion`. Nothing is checked: any resource can be put; from then on lists, watches and
    /// discovery find it. A pod that is put is an object and does not run; see
    /// [`add_pod`](Self::add_pod).
    ///
    /// Clients get it as JSON, as CBOR where [the server has that](ApiServerBuilder::cbor), as
    /// `PartialObjectMetadata` in any encoding, or as a `Table`. In protobuf a custom resource is
    /// refused with 406, or sent as JSON to a client that takes both; see
    /// [`put_protobuf`](Self::put_protobuf).
    pub fn put(&self, resource: &crate::Resource, object: Value) -> String {
        self.store(resource, object, None)
    }

    /// Like [`put`](Self::put), for an object that clients can also get in protobuf: the message
    /// is that of a generated type, such as a prost one, and says the same as the JSON.
    ///
    /// Its metadata, field 1 in every kind, may be left out: it is always that of the JSON, with
    /// what the server fills in. A resource has protobuf or not: put all objects of one in the
    /// same way.
    pub fn put_protobuf(
        &self,
        resource: &crate::Resource,
        object: Value,
        message: impl Into<Bytes>,
    ) -> String {
        self.store(resource, object, Some(message.into()))
    }

    fn store(&self, resource: &crate::Resource, mut json: Value, message: Option<Bytes>) -> String {
        let kind = json["kind"].as_str().unwrap_or_default();
        let kind = self.cluster.kinds.declare(resource, kind);
        json["kind"] = kind.kind.clone().into();
        kind.set_messages(message.is_some());
        if json["apiVersion"].is_null() {
            json["apiVersion"] = resource.api_version().into();
        }
        let namespace = json["metadata"]["namespace"].as_str().unwrap_or_default();
        self.cluster.ensure_namespace(namespace);
        let key = objects::store::key_of(resource, &json);
        let before = self.cluster.store.get(&key);
        if json["metadata"]["generation"].is_null() && kind.is("gen") {
            json["metadata"]["generation"] = 1.into();
            if let Some(Object { json: old, .. }) = before.as_deref() {
                json["metadata"]["generation"] = old["metadata"]["generation"].clone();
                writes::update::count_generation(&kind, old, &mut json);
            }
        }
        let json = objects::views::stored(&kind, json);
        let object = Object { json, message };
        let Some(object) = self.cluster.store.put(resource, object) else {
            return String::new();
        };
        if !kind.is_core("pods") {
            let before = before.as_ref().map(|before| &before.json);
            objects::controllers::after(&self.cluster, &kind, before, &object.json);
        }
        values::json::text(&object.json["metadata"]["resourceVersion"]).to_owned()
    }

    /// Adds a pod, whose processes run when this returns, or replaces the one of this name.
    ///
    /// # Errors
    ///
    /// If a container's program cannot be started: the text names it.
    pub fn add_pod(
        &self,
        namespace: &str,
        name: &str,
        declare: impl FnOnce(PodBuilder) -> PodBuilder,
    ) -> std::io::Result<()> {
        let declared = declare(PodBuilder::default());
        pods::kubelet::add(&self.cluster, namespace, name, declared)
    }

    /// Deletes an object at once, whatever finalizers it has; the namespace is empty for what has
    /// none. Returns whether it was there. A pod's processes are killed.
    pub fn delete(&self, resource: &crate::Resource, namespace: &str, name: &str) -> bool {
        let key = objects::store::key(resource, namespace, name);
        let Some(object) = self.cluster.store.get(&key) else {
            return false;
        };
        let is_deleted = self.cluster.store.delete(&key).is_some();
        if let (true, Some(kind)) = (is_deleted, self.cluster.kinds.any(&key.0, &key.1)) {
            objects::delete::gone(&self.cluster, &kind, &object.json);
        }
        is_deleted
    }

    /// Kills a container's process with SIGKILL, as the kernel does when memory runs out; returns
    /// whether there was one. What happens then is up to the pod's
    /// [`restart_policy`](PodBuilder::restart_policy): if the container is started again, the log
    /// of the killed process is that which `previous` asks for.
    pub fn kill_container(&self, namespace: &str, pod: &str, container: &str) -> bool {
        let pod = self.cluster.pods.get(namespace, pod);
        pod.is_some_and(|pod| {
            let mut containers = pod.all();
            containers.any(|known| known.name() == container && known.kill())
        })
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
        let objects = self.cluster.store.now(resource, None).into_iter();
        objects.map(|(_, object)| object.json.clone()).collect()
    }

    /// What goes wrong with the next list, watch and log requests: one entry a request, `None`
    /// for one that goes well. When all are used up, nothing goes wrong any more.
    pub fn inject_into_bodies(&self, faults: impl IntoIterator<Item = Option<BodyFault>>) {
        self.cluster.body_faults.push(faults);
    }

    /// Streams of all port-forwards that clients have open: of connections that either end may
    /// still use, or that have not been read to the end, two each over SPDY. For a test that
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
        self.cluster.tasks.stop();
        self.cluster.tasks.wait().await;
    }
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        self.cluster.tasks.stop();
    }
}

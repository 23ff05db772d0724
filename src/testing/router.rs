//! From requests to verbs: in flow HTTP requests, out go responses. Every verb has a file of its
//! own.

use std::{collections::BTreeMap, convert::Infallible, io, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, header::CONTENT_TYPE};
use http_body_util::{BodyExt as _, Full, combinators::UnsyncBoxBody};
use percent_encoding::percent_decode_str;
use serde_json::{Value, json};

use super::{
    access::{Access, Action},
    attach, discovery, exec,
    faults::{Fault, Faults, Plan},
    logs, objects,
    pods::Pod,
    port_forward::{self, Forwardings},
    store::{self, Store},
    streaming::{BodyFault, BodyFaults},
    tasks::Tasks,
};
use crate::{
    Resource,
    server::Refusal,
    session::{Subprotocol, port_forward::ForwardProtocol},
    wire::status::{Status, StatusDetails},
};

/// A response's body: whole, or a stream.
pub(super) type Body = UnsyncBoxBody<Bytes, io::Error>;

/// What all requests share.
#[derive(Debug)]
pub(super) struct Cluster {
    pub(super) access: Access,
    /// Those of exec and attach.
    pub(super) subprotocols: Vec<Subprotocol>,
    /// Those of port-forward.
    pub(super) forward_protocols: Vec<ForwardProtocol>,
    pub(super) tasks: Arc<Tasks>,
    pub(super) forwardings: Forwardings,
    pub(super) store: Store,
    pub(super) body_faults: BodyFaults,
    /// Whether watches can be asked for a snapshot.
    pub(super) watch_list: bool,
    /// How often watches get a bookmark.
    pub(super) bookmarks: Duration,
    pub(super) faults: Faults,
    /// By namespace and name.
    pods: BTreeMap<(String, String), Arc<Pod>>,
}

impl Cluster {
    pub(super) fn new(
        access: Access,
        subprotocols: Vec<Subprotocol>,
        forward_protocols: Vec<ForwardProtocol>,
        tasks: Arc<Tasks>,
    ) -> Self {
        Self {
            access,
            subprotocols,
            forward_protocols,
            tasks,
            forwardings: Forwardings::default(),
            store: Store::new(),
            body_faults: BodyFaults::default(),
            watch_list: true,
            bookmarks: BOOKMARKS,
            faults: Faults::default(),
            pods: BTreeMap::new(),
        }
    }

    pub(super) fn add(&mut self, pod: Pod) {
        let key = (pod.namespace.clone(), pod.name.clone());
        self.store.put(&pods(), pod.to_json(), logs::now());
        self.pods.insert(key, Arc::new(pod));
    }

    /// All pods with processes.
    pub(super) fn pods(&self) -> impl Iterator<Item = &Arc<Pod>> {
        self.pods.values()
    }

    /// What goes wrong with the next answer; waits and refuses if that is it.
    pub(super) async fn fault(&self) -> Result<Option<BodyFault>, Refusal> {
        match self.body_faults.next() {
            Some(BodyFault::Refuse(status)) => Err(Refusal::new(*status)),
            Some(BodyFault::Delay(time)) => {
                tokio::time::sleep(time).await;
                Ok(None)
            }
            fault => Ok(fault),
        }
    }

    /// A pod's object, with the state that it is in now.
    fn pod_object(&self, namespace: &str, name: &str) -> Result<Value, Refusal> {
        let mut object = objects::get(self, &pods(), namespace, name)?;
        if let Ok(pod) = self.pod(namespace, name) {
            object["status"] = pod.to_json()["status"].take();
        }
        Ok(object)
    }

    /// Kills all processes and ends all tasks.
    pub(super) fn stop(&self) {
        self.tasks.stop();
    }

    fn pod(&self, namespace: &str, name: &str) -> Result<Arc<Pod>, Refusal> {
        let key = (namespace.to_owned(), name.to_owned());
        let known = self.pods.get(&key).cloned();
        // Who has deleted its object has deleted the pod.
        let known = known.filter(|_| {
            self.store
                .get(&store::key(&pods(), namespace, name))
                .is_some()
        });
        known.ok_or_else(|| {
            let message = format!("pods {name:?} not found");
            let mut status = Status::failure(404, "NotFound", message);
            status.details = Some(StatusDetails {
                name: name.to_owned(),
                kind: "pods".to_owned(),
                ..StatusDetails::default()
            });
            Refusal::new(status)
        })
    }
}

/// Answers a request.
pub(super) async fn handle<B>(
    cluster: Arc<Cluster>,
    plan: Arc<Plan>,
    mut request: Request<B>,
) -> Result<Response<Body>, Infallible>
where
    B: Send,
{
    let response = match cluster.faults.next() {
        Some(Fault::Refuse(status)) => Err(Refusal::new(*status)),
        fault => {
            match fault {
                Some(Fault::CutAfter(bytes)) => plan.fail_after(bytes, true),
                Some(Fault::StallAfter(bytes)) => plan.fail_after(bytes, false),
                _ => {}
            }
            route(&cluster, &mut request).await
        }
    };
    Ok(response.unwrap_or_else(|refusal| whole(refusal.into_response())))
}

async fn route<B: Send>(
    cluster: &Arc<Cluster>,
    request: &mut Request<B>,
) -> Result<Response<Body>, Refusal> {
    let user = cluster.access.authenticate(request.headers())?;
    let path = request.uri().path().to_owned();
    let segments: Vec<_> = path
        .split('/')
        .skip(1)
        .map(|segment| percent_decode_str(segment).decode_utf8_lossy())
        .collect();
    let segments: Vec<&str> = segments.iter().map(AsRef::as_ref).collect();
    let get = request.method() == Method::GET;
    match segments[..] {
        ["version"] if get => Ok(object(&version())),
        ["api"] if get => Ok(object(&discovery::versions())),
        ["apis"] if get => Ok(object(&discovery::groups())),
        ["api", "v1"] if get => Ok(object(&discovery::resources())),
        ["api", "v1", "namespaces", namespace, "pods", name] if get => {
            cluster
                .access
                .authorize(user, action("get", "pods", namespace, name))?;
            Ok(object(&cluster.pod_object(namespace, name)?))
        }
        ["api", "v1", "namespaces", namespace, "pods", name, "exec"] => {
            cluster
                .access
                .authorize(user, action("create", "pods/exec", namespace, name))?;
            let pod = cluster.pod(namespace, name)?;
            Ok(whole(exec::serve(cluster, &pod, request)?))
        }
        ["api", "v1", "namespaces", namespace, "pods", name, "attach"] => {
            cluster
                .access
                .authorize(user, action("create", "pods/attach", namespace, name))?;
            let pod = cluster.pod(namespace, name)?;
            Ok(whole(attach::serve(cluster, &pod, request)?))
        }
        [
            "api",
            "v1",
            "namespaces",
            namespace,
            "pods",
            name,
            "portforward",
        ] => {
            cluster
                .access
                .authorize(user, action("create", "pods/portforward", namespace, name))?;
            let pod = cluster.pod(namespace, name)?;
            Ok(whole(port_forward::serve(cluster, &pod.name, request)?))
        }
        ["api", "v1", "namespaces", namespace, "pods", name, "log"] if get => {
            cluster
                .access
                .authorize(user, action("get", "pods/log", namespace, name))?;
            let pod = cluster.pod(namespace, name)?;
            logs::serve(cluster, &pod, &head(request)).await
        }
        ["api", version, ref rest @ ..] if get => {
            resource(cluster, user, "", version, rest, &head(request)).await
        }
        ["apis", group, version, ref rest @ ..] if get => {
            resource(cluster, user, group, version, rest, &head(request)).await
        }
        _ => {
            let message = "the server could not find the requested resource";
            Err(Refusal::new(Status::failure(404, "NotFound", message)))
        }
    }
}

/// A request without its body, which GET has none of.
fn head<B>(request: &Request<B>) -> Request<()> {
    let mut head = Request::new(());
    *head.uri_mut() = request.uri().clone();
    *head.headers_mut() = request.headers().clone();
    head
}

/// Answers for objects of any kind: one, a list, or a watch.
async fn resource(
    cluster: &Arc<Cluster>,
    user: &str,
    group: &str,
    version: &str,
    rest: &[&str],
    request: &Request<()>,
) -> Result<Response<Body>, Refusal> {
    let (namespace, plural, name) = match *rest {
        ["namespaces", namespace, plural] => (Some(namespace), plural, None),
        ["namespaces", namespace, plural, name] => (Some(namespace), plural, Some(name)),
        [plural] => (None, plural, None),
        [plural, name] => (None, plural, Some(name)),
        _ => {
            let message = "the server could not find the requested resource";
            return Err(Refusal::new(Status::failure(404, "NotFound", message)));
        }
    };
    let query = request.uri().query().unwrap_or_default();
    let is_watch = query
        .split('&')
        .any(|pair| matches!(pair, "watch=true" | "watch=1"));
    let verb = match name {
        Some(_) => "get",
        None if is_watch => "watch",
        None => "list",
    };
    cluster.access.authorize(
        user,
        Action {
            verb,
            group,
            resource: plural,
            namespace: namespace.unwrap_or_default(),
            name: name.unwrap_or_default(),
        },
    )?;
    let resource = Resource::namespaced(group.to_owned(), version.to_owned(), plural.to_owned());
    match name {
        Some(name) => {
            let namespace = namespace.unwrap_or_default();
            Ok(object(&objects::get(cluster, &resource, namespace, name)?))
        }
        None => {
            let namespace = namespace.map(str::to_owned);
            objects::collection(cluster, resource, namespace, request).await
        }
    }
}

/// How often a watch cache sends bookmarks (`k8s.io/apiserver/pkg/storage/cacher/cacher.go`,
/// `defaultBookmarkFrequency`).
const BOOKMARKS: Duration = Duration::from_secs(60);

pub(super) fn pods() -> Resource {
    Resource::namespaced("", "v1", "pods")
}

fn action<'a>(
    verb: &'static str,
    resource: &'static str,
    namespace: &'a str,
    name: &'a str,
) -> Action<'a> {
    Action {
        verb,
        group: "",
        resource,
        namespace,
        name,
    }
}

/// A response whose body is whole.
pub(super) fn whole(response: Response<Full<Bytes>>) -> Response<Body> {
    response.map(|body| body.map_err(|never| match never {}).boxed_unsync())
}

/// A response with an object.
fn object(object: &Value) -> Response<Body> {
    let mut response = Response::new(Full::new(object.to_string().into()));
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    whole(response)
}

fn version() -> Value {
    json!({
        "major": "1",
        "minor": "36",
        "gitVersion": concat!("v1.36.2+kubewire-", env!("CARGO_PKG_VERSION")),
    })
}

//! From requests to verbs: in flow HTTP requests, out go responses. Every verb has a file of its
//! own.

use std::{collections::BTreeMap, convert::Infallible, io, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{
    HeaderValue, Method, Request, Response,
    header::{CONTENT_LENGTH, CONTENT_TYPE},
};
use http_body_util::{BodyExt as _, Full, combinators::UnsyncBoxBody};
use percent_encoding::percent_decode_str;
use serde_json::{Value, json};

use super::{
    access::{Access, Action},
    attach, discovery,
    encoding::{self, Document},
    exec,
    faults::{Fault, Faults, Plan},
    logs, negotiation, objects,
    pods::Pod,
    port_forward::{self, Forwardings},
    store::{self, Object, Store},
    streaming::{BodyFault, BodyFaults},
    tasks::Tasks,
    writes::{self, Place},
};
use crate::{
    Resource,
    server::Refusal,
    session::{Subprotocol, port_forward::ForwardProtocol},
    wire::{
        status::{Status, StatusDetails},
        watch::Encoding,
    },
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
    /// Whether one stream of a log can be asked for.
    pub(super) log_streams: bool,
    /// How often watches get a bookmark.
    pub(super) bookmarks: Duration,
    pub(super) faults: Faults,
    /// Those of objects, the most preferred first.
    pub(super) encodings: Vec<Encoding>,
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
            log_streams: true,
            bookmarks: BOOKMARKS,
            faults: Faults::default(),
            encodings: vec![Encoding::Json, Encoding::Protobuf],
            pods: BTreeMap::new(),
        }
    }

    pub(super) fn add(&mut self, pod: Pod) {
        let key = (pod.namespace.clone(), pod.name.clone());
        self.store.put(&pods(), pod.to_object(), logs::now());
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
    fn pod_object(&self, namespace: &str, name: &str) -> Result<Object, Refusal> {
        let object = objects::find(self, &pods(), namespace, name)?;
        let mut object = (*object).clone();
        if let Ok(pod) = self.pod(namespace, name) {
            object.json["status"] = pod.to_json()["status"].take();
        }
        Ok(object)
    }

    /// Stores a pod's object anew, with the state that it is in now, unless it was deleted.
    pub(super) fn publish(&self, pod: &Pod) {
        if let Ok(object) = self.pod_object(&pod.namespace, &pod.name) {
            self.store.put(&pods(), object, logs::now());
        }
    }

    /// Kills all processes and ends all tasks.
    pub(super) fn stop(&self) {
        self.tasks.stop();
    }

    pub(super) fn pod(&self, namespace: &str, name: &str) -> Result<Arc<Pod>, Refusal> {
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
    B: hyper::body::Body<Data = Bytes> + Send + Unpin,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let accept = objects::accept(&request).map(str::to_owned);
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
    Ok(response.unwrap_or_else(|refusal| refuse(&cluster, accept.as_deref(), refusal)))
}

/// A refusal, in the encoding that the client prefers
/// (`k8s.io/apiserver/pkg/endpoints/handlers/responsewriters/writers.go`, `ErrorNegotiated`).
fn refuse(cluster: &Cluster, accept: Option<&str>, refusal: Refusal) -> Response<Body> {
    let accepted = negotiation::negotiate(accept, &cluster.encodings, true);
    let encoding = accepted.map_or(Encoding::Json, |accepted| accepted.encoding);
    let body = match refusal.status() {
        Some(status) if encoding != Encoding::Json => Document::status(status).encode(encoding),
        _ => return whole(refusal.into_response()),
    };
    let mut response = whole(refusal.into_response());
    if let Ok(body) = body {
        let media = encoding::content_type(encoding, false);
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(media));
        headers.remove(CONTENT_LENGTH);
        *response.body_mut() = whole_body(Full::new(body));
    }
    response
}

async fn route<B>(
    cluster: &Arc<Cluster>,
    request: &mut Request<B>,
) -> Result<Response<Body>, Refusal>
where
    B: hyper::body::Body<Data = Bytes> + Send + Unpin,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
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
        ["apis"] if get => Ok(object(&discovery::groups(&cluster.store.known()))),
        ["api", version] if get => resources(cluster, "", version),
        ["apis", group, version] if get => resources(cluster, group, version),
        ["api", "v1", "namespaces", namespace, "pods", name] if get => {
            cluster
                .access
                .authorize(user, action("get", "pods", namespace, name))?;
            let object = cluster.pod_object(namespace, name)?;
            objects::get(cluster, &pods(), &object, request)
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
            logs::serve(cluster, &pod, &mut head(request)).await
        }
        ["api", version, ref rest @ ..] if get => {
            resource(cluster, user, "", version, rest, &mut head(request)).await
        }
        ["apis", group, version, ref rest @ ..] if get => {
            resource(cluster, user, group, version, rest, &mut head(request)).await
        }
        ["api", version, ref rest @ ..] => write(cluster, user, "", version, rest, request).await,
        ["apis", group, version, ref rest @ ..] => {
            write(cluster, user, group, version, rest, request).await
        }
        _ => Err(unknown()),
    }
}

pub(super) fn unknown() -> Refusal {
    let message = "the server could not find the requested resource";
    Refusal::new(Status::failure(404, "NotFound", message))
}

/// Which resources a version of a group has.
fn resources(cluster: &Cluster, group: &str, version: &str) -> Result<Response<Body>, Refusal> {
    let known = discovery::resources(&cluster.store.known(), group, version);
    known.map(|known| object(&known)).ok_or_else(unknown)
}

/// A request without its body, which GET has none of.
pub(super) fn head<B>(request: &mut Request<B>) -> Request<()> {
    let mut head = Request::new(());
    *head.method_mut() = request.method().clone();
    // With them it can be upgraded.
    *head.extensions_mut() = std::mem::take(request.extensions_mut());
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
    request: &mut Request<()>,
) -> Result<Response<Body>, Refusal> {
    let (namespace, plural, name) = match *rest {
        ["namespaces", namespace, plural] => (Some(namespace), plural, None),
        ["namespaces", namespace, plural, name] => (Some(namespace), plural, Some(name)),
        [plural] => (None, plural, None),
        [plural, name] => (None, plural, Some(name)),
        _ => return Err(unknown()),
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
            let object = objects::find(cluster, &resource, namespace, name)?;
            objects::get(cluster, &resource, &object, request)
        }
        None => {
            let namespace = namespace.map(str::to_owned);
            objects::collection(cluster, resource, namespace, request).await
        }
    }
}

/// Answers a write to an object of any kind.
async fn write<B>(
    cluster: &Arc<Cluster>,
    user: &str,
    group: &str,
    version: &str,
    rest: &[&str],
    request: &mut Request<B>,
) -> Result<Response<Body>, Refusal>
where
    B: hyper::body::Body<Data = Bytes> + Send + Unpin,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let (namespace, rest) = match *rest {
        ["namespaces", namespace, ref rest @ ..] if !rest.is_empty() => (Some(namespace), rest),
        _ => (None, rest),
    };
    let (plural, name, subresource) = match *rest {
        [plural] => (plural, None, None),
        [plural, name] => (plural, Some(name), None),
        [plural, name, subresource] => (plural, Some(name), Some(subresource)),
        _ => return Err(unknown()),
    };
    let verb = writes::verb(request.method()).ok_or_else(unknown)?;
    let of = subresource.map_or(plural.to_owned(), |name| format!("{plural}/{name}"));
    let action = Action {
        verb,
        group,
        resource: &of,
        namespace: namespace.unwrap_or_default(),
        name: name.unwrap_or_default(),
    };
    cluster.access.authorize(user, action)?;
    let (group, version, plural) = (group.to_owned(), version.to_owned(), plural.to_owned());
    let resource = match namespace {
        Some(_) => Resource::namespaced(group, version, plural),
        None => Resource::cluster(group, version, plural),
    };
    let place = Place {
        resource: &resource,
        namespace: namespace.unwrap_or_default(),
        name,
        subresource,
    };
    writes::serve(cluster, place, request).await
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
    response.map(whole_body)
}

/// A body that is whole.
pub(super) fn whole_body(body: Full<Bytes>) -> Body {
    body.map_err(|never| match never {}).boxed_unsync()
}

/// A response with an object.
pub(super) fn object(object: &Value) -> Response<Body> {
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

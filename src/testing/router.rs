//! From requests to verbs: in flow HTTP requests, out go responses. Every verb has a file of its
//! own.

use std::{collections::BTreeMap, convert::Infallible, io, sync::Arc};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, header::CONTENT_TYPE};
use http_body_util::{BodyExt as _, Full, combinators::UnsyncBoxBody};
use percent_encoding::percent_decode_str;
use serde_json::{Value, json};

use super::{
    access::{Access, Action},
    attach, exec,
    pods::Pod,
    tasks::Tasks,
};
use crate::{
    server::Refusal,
    session::Subprotocol,
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
    pub(super) tasks: Arc<Tasks>,
    /// By namespace and name.
    pods: BTreeMap<(String, String), Arc<Pod>>,
}

impl Cluster {
    pub(super) fn new(access: Access, subprotocols: Vec<Subprotocol>, tasks: Arc<Tasks>) -> Self {
        Self {
            access,
            subprotocols,
            tasks,
            pods: BTreeMap::new(),
        }
    }

    pub(super) fn add(&mut self, pod: Pod) {
        let key = (pod.namespace.clone(), pod.name.clone());
        self.pods.insert(key, Arc::new(pod));
    }

    /// Kills all processes and ends all tasks.
    pub(super) fn stop(&self) {
        self.tasks.stop();
    }

    fn pod(&self, namespace: &str, name: &str) -> Result<Arc<Pod>, Refusal> {
        let key = (namespace.to_owned(), name.to_owned());
        self.pods.get(&key).cloned().ok_or_else(|| {
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
    mut request: Request<B>,
) -> Result<Response<Body>, Infallible>
where
    B: Send,
{
    let response = route(&cluster, &mut request);
    Ok(response.unwrap_or_else(|refusal| whole(refusal.into_response())))
}

fn route<B>(cluster: &Arc<Cluster>, request: &mut Request<B>) -> Result<Response<Body>, Refusal> {
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
        ["api", "v1", "namespaces", namespace, "pods", name] if get => {
            cluster
                .access
                .authorize(user, action("get", "pods", namespace, name))?;
            Ok(object(&cluster.pod(namespace, name)?.to_json()))
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
        _ => {
            let message = "the server could not find the requested resource";
            Err(Refusal::new(Status::failure(404, "NotFound", message)))
        }
    }
}

fn action<'a>(
    verb: &'static str,
    resource: &'static str,
    namespace: &'a str,
    name: &'a str,
) -> Action<'a> {
    Action {
        verb,
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

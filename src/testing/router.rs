//! From requests to verbs: in flow HTTP requests, out go responses. Every verb has a file of its
//! own.

use std::{convert::Infallible, io, net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{
    HeaderValue, Method, Request, Response, StatusCode,
    header::{
        CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER, VARY, X_CONTENT_TYPE_OPTIONS,
    },
};
use http_body_util::{BodyExt as _, Full, combinators::UnsyncBoxBody};
use hyper::body::Incoming;
use percent_encoding::percent_decode_str;
use serde_json::{Value, json};

use crate::{
    server::{self, Refusal, upgrade::is_escaped},
    session::{Subprotocol, port_forward::ForwardProtocol},
    testing::{
        access::{Access, Action, User},
        answers::{
            encoding::{self, Document},
            look::Look,
            streaming::{self, BodyFault},
        },
        faults::{Fault, Faults, Plan},
        kinds::{Kind, Kinds, discovery, rules},
        objects::{
            self, controllers,
            store::{self, Object, Store},
        },
        pods::{Pod, Pods, kubelet, logs, port_forward::Forwardings, proxy},
        requests::{
            negotiation,
            target::{self, Info, Parameters, Target, not_implemented, refusal},
        },
        tasks::Tasks,
        values::json::some,
        writes::{self, subresources},
    },
    wire::watch::Encoding,
};

const JSON: &str = "application/json";
const TEXT: &str = "text/plain; charset=utf-8";

/// A response's body: whole, or a stream.
pub(super) type Body = UnsyncBoxBody<Bytes, io::Error>;

#[derive(Debug, Clone)]
pub(super) struct Settings {
    /// Those of exec and attach.
    pub(super) subprotocols: Vec<Subprotocol>,
    /// Those of port-forward.
    pub(super) forward_protocols: Vec<ForwardProtocol>,
    pub(super) watch_list: bool,
    pub(super) watch_gzip: bool,
    pub(super) log_streams: bool,
    pub(super) bookmarks: Duration,
    pub(super) input_ends_with_output: bool,
    /// Those of objects, the most preferred first.
    pub(super) encodings: Vec<Encoding>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            subprotocols: server::SUBPROTOCOLS.to_vec(),
            forward_protocols: ForwardProtocol::ALL.to_vec(),
            watch_list: true,
            watch_gzip: false,
            log_streams: false,
            bookmarks: BOOKMARKS,
            input_ends_with_output: false,
            encodings: vec![Encoding::Json, Encoding::Protobuf],
        }
    }
}

#[derive(Debug)]
pub(super) struct Cluster {
    pub(super) access: Access,
    pub(super) settings: Settings,
    pub(super) tasks: Arc<Tasks>,
    pub(super) forwardings: Forwardings,
    pub(super) store: Arc<Store>,
    pub(super) kinds: Kinds,
    pub(super) body_faults: Faults<BodyFault>,
    pub(super) faults: Faults<Fault>,
    pub(super) pods: Pods,
    pub(super) addresses: kubelet::Addresses,
    /// Where the server listens.
    pub(super) address: SocketAddr,
    /// Its certificate authority in PEM; empty without TLS.
    pub(super) ca: String,
}

impl Cluster {
    pub(super) fn new(
        access: Access,
        store: Arc<Store>,
        settings: Settings,
        address: SocketAddr,
        ca: Option<&str>,
    ) -> Self {
        Self {
            access,
            settings,
            tasks: Arc::default(),
            forwardings: Forwardings::default(),
            store,
            kinds: Kinds::new(),
            body_faults: Faults::default(),
            faults: Faults::default(),
            pods: Pods::default(),
            addresses: kubelet::Addresses::default(),
            address,
            ca: ca.unwrap_or_default().to_owned(),
        }
    }

    pub(super) fn ensure_namespace(&self, name: &str) {
        let kind = self.kinds.core("namespaces");
        let key = store::key(&kind.resource, "", name);
        if name.is_empty() || self.store.get(&key).is_some() {
            return;
        }
        let mut object =
            json!({"kind": "Namespace", "apiVersion": "v1", "metadata": {"name": name}});
        rules::complete(&kind, &mut object);
        rules::allocate(&kind, None, &mut object);
        self.store.put(&kind.resource, Object::new(object));
        controllers::furnish(self, name);
    }

    /// The pod that runs, of which an object says that it should.
    pub(super) fn pod(&self, target: &Target) -> Result<Arc<Pod>, Refusal> {
        let name = target.name();
        if let Some(pod) = self.pods.get(&target.namespace, name) {
            return Ok(pod);
        }
        let pod = objects::find(self, target)?;
        // `k8s.io/kubernetes/pkg/registry/core/pod/strategy.go`.
        if let Some(node) = some(&pod.json["spec"]["nodeName"]) {
            return Err(target.missing(node));
        }
        let why = format!("pod {name} does not have a host assigned");
        Err(Refusal::bad_request(why))
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
}

pub(super) async fn handle(
    cluster: Arc<Cluster>,
    plan: Arc<Plan>,
    mut request: Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    let accept = objects::accept(&request).map(str::to_owned);
    let look = Look::of(&request);
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
    let response = response.unwrap_or_else(|refusal| refuse(&cluster, accept.as_deref(), refusal));
    Ok(look.give(response).await)
}

/// A refusal, in the encoding that the client prefers
/// (`k8s.io/apiserver/pkg/endpoints/handlers/responsewriters/writers.go`, `ErrorNegotiated`).
pub(super) fn refuse(cluster: &Cluster, accept: Option<&str>, refusal: Refusal) -> Response<Body> {
    let accepted = negotiation::negotiate(accept, &cluster.settings.encodings, true);
    let encoding = accepted.map_or(Encoding::Json, |accepted| accepted.encoding);
    let details = refusal.status().and_then(|status| status.details.as_ref());
    let after = details.map_or(0, |details| details.retry_after_seconds);
    let body = match refusal.status() {
        Some(status) if encoding != Encoding::Json => Document::status(status).encode(encoding),
        _ => Ok(Bytes::new()),
    };
    let mut response = refusal.into_response().map(self::body);
    if after > 0 {
        response.headers_mut().insert(RETRY_AFTER, after.into());
    }
    if let Ok(body) = body
        && !body.is_empty()
    {
        let media = encoding::content_type(encoding, false);
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(media));
        headers.remove(CONTENT_LENGTH);
        *response.body_mut() = self::body(Full::new(body));
    }
    response
}

async fn route(
    cluster: &Arc<Cluster>,
    request: &mut Request<Incoming>,
) -> Result<Response<Body>, Refusal> {
    let path = request.uri().path().to_owned();
    if !is_escaped(&path) {
        return Ok(whole(400, TEXT, "400 Bad Request"));
    }
    let decoded = percent_decode_str(&path).decode_utf8_lossy();
    let mut segments: Vec<&str> = decoded.split('/').skip(1).collect();
    // Go's server takes a slash at the end, which is the application's behind a proxy.
    let keeps = segments[0] == "openapi" || segments.contains(&"proxy");
    if segments.len() > 1 && segments.ends_with(&[""]) && !keeps {
        segments.pop();
    }
    let get = matches!(*request.method(), Method::GET | Method::HEAD);
    let parameters = Parameters::parse(request.uri().query());
    let info = match segments[..] {
        ["api", version, ref rest @ ..] => Some((["", version], rest)),
        ["apis", group, version, ref rest @ ..] if !group.is_empty() => {
            Some(([group, version], rest))
        }
        _ => None,
    };
    let info = info.and_then(|(of, rest)| Info::parse(request.method(), of, rest, &parameters));
    let verb = request.method().as_str().to_lowercase();
    let action = info.as_ref().map(Info::action);
    let action = action.unwrap_or_else(|| Action::at(&verb, &path));
    let user = cluster.access.admit(request.headers(), &action)?;
    if let Some(info) = info {
        return resource(cluster, &user, (info, action), &parameters, request).await;
    }
    let kinds = cluster.kinds.all();
    let aggregated = wants_aggregated(request);
    if let (["version" | "api" | "apis", rest @ ..], true) = (&segments[..], get)
        && rest.len() < 3 - usize::from(segments[0] != "apis")
        && !aggregated
    {
        negotiation::json_only(objects::accept(request), &segments)?;
    }
    match segments[..] {
        ["" | "index.html"] => {
            let paths = format!("{:#}", discovery::paths_of(&kinds));
            Ok(whole(200, JSON, paths))
        }
        ["version"] if *request.method() == Method::GET => {
            let version = include_str!("version.json").trim_end();
            Ok(whole(
                200,
                JSON,
                version.replace("VERSION", env!("CARGO_PKG_VERSION")),
            ))
        }
        ["version" | "api"] if *request.method() != Method::GET => Err(target::not_allowed()),
        ["healthz" | "livez" | "readyz", ..] => Ok(health(&path, request.uri().query())),
        ["openapi", version, ref rest @ ..]
            if version == "v2" && rest.is_empty() || version == "v3" && rest.len() > 1 =>
        {
            let document = match (
                rest,
                negotiation::wants_json(objects::accept(request), version),
            ) {
                (_, None) => {
                    let mut response = Response::new(body(Full::default()));
                    *response.status_mut() = StatusCode::NOT_ACCEPTABLE;
                    response
                }
                (_, Some(false)) => return Err(not_implemented("OpenAPI in protobuf")),
                ([], _) => whole(200, JSON, discovery::openapi_v2(&kinds)),
                (["api", version], _) => found(discovery::openapi_of(&kinds, "", version)),
                (["apis", group, version], _) => {
                    found(discovery::openapi_of(&kinds, group, version))
                }
                _ => return Ok(unknown()),
            };
            Ok(varying(document))
        }
        ["openapi", "v3"] => Ok(whole(200, TEXT, discovery::openapi(&kinds).to_string())),
        ["api"] if aggregated => Ok(discovered(&discovery::aggregated(&kinds, true))),
        ["apis"] if aggregated => Ok(discovered(&discovery::aggregated(&kinds, false))),
        ["api"] => Ok(object(
            200,
            &discovery::versions(&cluster.address.to_string()),
        )),
        ["apis"] => Ok(object(200, &discovery::groups(&kinds))),
        ["apis", group] => Ok(found(discovery::group(&kinds, group))),
        ["apis", "", ..] => Ok(unknown()),
        ["api", version] | ["apis", _, version] => {
            let is_core = segments[0] == "api";
            let group = if is_core { "" } else { segments[1] };
            let resources = discovery::resources(&kinds, group, version);
            match resources {
                None if is_built_in(&kinds, group) => Err(not_found()),
                Some(_) if *request.method() != Method::GET => Err(target::not_allowed()),
                resources => Ok(found(resources)),
            }
        }
        ["metrics" | "statusz" | "flagz"] | ["debug" | ".well-known" | "openid", ..] => {
            Err(not_implemented(&path))
        }
        _ => Ok(unknown()),
    }
}

/// Whether a client prefers discovery in one document.
fn wants_aggregated<B>(request: &Request<B>) -> bool {
    let accept = objects::accept(request).unwrap_or_default();
    accept.split(',').any(|media| {
        let mut wanted = discovery::AGGREGATED.split(';');
        wanted.all(|wanted| media.split(';').any(|part| part.trim() == wanted))
    })
}

fn discovered(list: &Value) -> Response<Body> {
    let list = format!("{list}\n");
    let mut answer = varying(whole(200, discovery::AGGREGATED, list));
    let public = HeaderValue::from_static("public");
    answer.headers_mut().insert(CACHE_CONTROL, public);
    answer
}

/// An answer that depends on what the client accepts.
fn varying(mut response: Response<Body>) -> Response<Body> {
    let headers = response.headers_mut();
    headers.insert(VARY, HeaderValue::from_static("Accept"));
    response
}

fn found(document: Option<Value>) -> Response<Body> {
    document.map_or_else(unknown, |document| object(200, &document))
}

/// Whether a group has a handler of its own, which words what it has not got.
fn is_built_in(kinds: &[Arc<Kind>], group: &str) -> bool {
    let is_it = |kind: &Arc<Kind>| kind.custom.is_none() && kind.resource.group == group;
    kinds.iter().any(is_it)
}

fn not_found() -> Refusal {
    let message = "the server could not find the requested resource";
    refusal((404, "NotFound"), message, [""; 3], [])
}

/// `k8s.io/apiserver/pkg/server/healthz/healthz.go`, with the one check that there is.
fn health(path: &str, query: Option<&str>) -> Response<Body> {
    let name = path.trim_start_matches('/');
    let is_verbose = Parameters::parse(query).has("verbose");
    let text = match name.split_once('/') {
        None if is_verbose => format!("[+]ping ok\n{name} check passed\n"),
        None | Some((_, "ping")) => "ok".to_owned(),
        Some(_) => return unknown(),
    };
    plain(200, text)
}

/// What Go's server says of a path that nothing serves.
fn unknown() -> Response<Body> {
    plain(404, "404 page not found\n")
}

/// A text, as `http.Error` of Go sends it.
fn plain(code: u16, text: impl Into<Bytes>) -> Response<Body> {
    let mut response = whole(code, TEXT, text);
    let headers = response.headers_mut();
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
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

async fn resource(
    cluster: &Arc<Cluster>,
    user: &User,
    (info, action): (Info<'_>, Action),
    parameters: &Parameters,
    request: &mut Request<Incoming>,
) -> Result<Response<Body>, Refusal> {
    let target = match info.target(&cluster.kinds) {
        None if is_built_in(&cluster.kinds.all(), &action.group) => return Err(not_found()),
        None => return Ok(unknown()),
        Some(target) => target?,
    };
    if *request.method() == Method::HEAD && !target.is("proxy") {
        return Err(target::not_allowed());
    }
    parameters.check(&target)?;
    let is_get = matches!(target.verb, "get" | "list" | "watch");
    match target.subresource.as_deref() {
        Some("exec" | "attach" | "portforward") => {
            // A WebSocket's GET needs both (`AuthorizePodWebsocketUpgradeCreatePermission`).
            let verb = "create".to_owned();
            let both = cluster.access.why(user, &Action { verb, ..action });
            both.ok_or_else(|| target::forbidden(target.resource(), target.name(), ""))?;
            Ok(streaming::answer(cluster, &target, parameters, request)?.map(body))
        }
        Some("log") if is_get => {
            let (accept, offered) = (objects::accept(request), &cluster.settings.encodings);
            negotiation::negotiate(accept, offered, true)
                .ok_or_else(|| negotiation::not_acceptable(accept, offered, &target))?;
            let pod = match objects::find(cluster, &target) {
                Ok(object) if some(&object.json["spec"]["nodeName"]).is_none() => {
                    Pod::unplaced(&object.json).into()
                }
                _ => cluster.pod(&target)?,
            };
            logs::serve(cluster, &pod, &mut head(request)).await
        }
        Some("proxy") => proxy::serve(cluster, &target, request).await,
        Some("scale") if is_get => {
            let object = objects::find(cluster, &target)?;
            let scale = Object::new(subresources::read(&target.kind, &object.json)?);
            objects::get(cluster, &target.of_body(), &scale, &head(request))
        }
        None | Some("status" | "ephemeralcontainers" | "resize" | "approval") if is_get => {
            let mut head = head(request);
            // What cannot be answered is not looked for.
            objects::Query::parse(cluster, &target, &head)?;
            match target.name {
                Some(_) if target.verb == "get" => {
                    let object = objects::find(cluster, &target)?;
                    objects::get(cluster, &target, &object, &head)
                }
                _ => objects::collection(cluster, &target, &mut head).await,
            }
        }
        _ => writes::serve(cluster, user, &target, request).await,
    }
}

/// How often a watch cache sends bookmarks (`k8s.io/apiserver/pkg/storage/cacher/cacher.go`,
/// `defaultBookmarkFrequency`).
const BOOKMARKS: Duration = Duration::from_secs(60);

pub(super) fn body(body: Full<Bytes>) -> Body {
    body.map_err(|never| match never {}).boxed_unsync()
}

pub(super) fn of_media(media: &'static str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    let media = HeaderValue::from_static(media);
    response.headers_mut().insert(CONTENT_TYPE, media);
    response
}

fn whole(code: u16, media: &'static str, bytes: impl Into<Bytes>) -> Response<Body> {
    let mut response = of_media(media, body(Full::new(bytes.into())));
    *response.status_mut() = StatusCode::from_u16(code).unwrap_or_default();
    response
}

/// A Status of success that says this besides.
pub(super) fn success(code: u16, more: (&str, Value)) -> Response<Body> {
    let mut status =
        json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"});
    status[more.0] = more.1;
    object(code, &status)
}

pub(super) fn object(code: u16, object: &Value) -> Response<Body> {
    whole(code, JSON, format!("{object}\n"))
}

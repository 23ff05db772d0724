//! Proxies: in flow requests for a pod's or a service's port, out go the requests to what is behind
//! it, and its answers back, as they come.
//!
//! It is `k8s.io/apimachinery/pkg/util/proxy/upgradeaware.go`, but links in HTML are not rewritten.

use std::sync::Arc;

use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri,
    header::{CONNECTION, HOST, LOCATION, UPGRADE},
};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use serde_json::Value;

use super::{Pod, port_forward::connect};
use crate::{
    server::Refusal,
    testing::{
        objects::{self, store},
        requests::{
            body, selector,
            target::{Target, missing, not_implemented, refusal},
        },
        router::{self, Body, Cluster},
        values::json::items,
        writes::subresources::selector_text,
    },
};

pub(crate) async fn serve(
    cluster: &Arc<Cluster>,
    target: &Target,
    request: &mut Request<Incoming>,
) -> Result<Response<Body>, Refusal> {
    let path = request.uri().path().to_owned();
    if target.rest.is_empty() && !path.ends_with('/') && request.method() == Method::GET {
        let mut response = Response::new(router::body(Full::default()));
        *response.status_mut() = StatusCode::MOVED_PERMANENTLY;
        let query = request.uri().query().map(|query| format!("?{query}"));
        if let Ok(location) = format!("{path}/{}", query.unwrap_or_default()).parse() {
            response.headers_mut().insert(LOCATION, location);
        }
        return Ok(response);
    }
    let (pod, port) = match &*target.resource().plural {
        "pods" => of_pod(cluster, target)?,
        "services" => of_service(cluster, target)?,
        other => return Err(not_implemented(format!("{other}/proxy"))),
    };
    let failed = |what: String| {
        let message = format!("error trying to reach service: {what}");
        refusal((503, "ServiceUnavailable"), message, [""; 3], [])
    };
    let unreachable = |why: String| {
        let reason = why.rsplit(": ").next().unwrap_or_default();
        failed(format!("dial tcp {}:{port}: connect: {reason}", pod.ip))
    };
    let io = connect(&pod, port).await.map_err(unreachable)?;
    let broken = |error: hyper::Error| failed(error.to_string());
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(io))
        .await
        .map_err(broken)?;
    cluster.tasks.spawn(async move {
        // The answer's body says how it ended.
        let _ = connection.with_upgrades().await;
    });
    let protocol = request.headers().get(UPGRADE).cloned();
    let mut onward = Request::new(Full::new(body::read(request).await?));
    *onward.method_mut() = request.method().clone();
    *onward.headers_mut() = request.headers().clone();
    // As it was spelled: what follows the fifth or the seventh segment.
    let rest = path
        .splitn(if target.namespace.is_empty() { 7 } else { 9 }, '/')
        .last();
    let query = request
        .uri()
        .query()
        .map(|query| format!("?{query}"))
        .unwrap_or_default();
    let rest = rest.filter(|_| !target.rest.is_empty()).unwrap_or_default();
    *onward.uri_mut() = format!("/{rest}{query}")
        .parse::<Uri>()
        .map_err(|error| failed(error.to_string()))?;
    let headers = onward.headers_mut();
    own_hop(headers);
    if let Some(protocol) = protocol {
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(UPGRADE, protocol);
    }
    // The API server's credentials are not the application's.
    headers.remove(http::header::AUTHORIZATION);
    let host = HeaderValue::try_from(format!("{}:{port}", pod.ip));
    headers.insert(HOST, host.map_err(|error| failed(error.to_string()))?);
    let mut response = sender.send_request(onward).await.map_err(broken)?;
    match response.status() {
        StatusCode::SWITCHING_PROTOCOLS => {
            let theirs = hyper::upgrade::on(&mut response);
            let ours = hyper::upgrade::on(request);
            cluster.tasks.spawn(async move {
                if let (Ok(ours), Ok(theirs)) = tokio::join!(ours, theirs) {
                    let (mut ours, mut theirs) = (TokioIo::new(ours), TokioIo::new(theirs));
                    // How it ends is the business of both ends.
                    let _ = tokio::io::copy_bidirectional(&mut ours, &mut theirs).await;
                }
            });
        }
        _ => own_hop(response.headers_mut()),
    }
    Ok(response.map(|body| body.map_err(std::io::Error::other).boxed_unsync()))
}

/// Removes what is between two neighbours only (RFC 9110, section 7.6.1).
fn own_hop(headers: &mut HeaderMap) {
    let named: Vec<_> = headers.get_all(CONNECTION).iter().cloned().collect();
    let named = named.iter().filter_map(|value| value.to_str().ok());
    for name in named.flat_map(|value| value.split(',')) {
        if let Ok(name) = name.trim().parse::<HeaderName>() {
            headers.remove(name);
        }
    }
    for name in [
        "connection",
        "keep-alive",
        "proxy-connection",
        "te",
        "transfer-encoding",
    ] {
        headers.remove(name);
    }
}

/// `name`, `name:port` or `scheme:name:port`.
fn split(target: &Target) -> Result<(&str, &str), Refusal> {
    match target.name().split(':').collect::<Vec<_>>()[..] {
        [name] => Ok((name, "")),
        [name, port] | ["http" | "", name, port] => Ok((name, port)),
        ["https", ..] => Err(not_implemented("TLS to what is behind a proxy")),
        _ => {
            let why = format!("invalid pod request {:?}", target.name());
            Err(Refusal::bad_request(why))
        }
    }
}

/// The ports that a pod's containers name.
fn ports(pod: &Value) -> impl Iterator<Item = &Value> {
    items(&pod["spec"]["containers"]).flat_map(|container| items(&container["ports"]))
}

fn of_pod(cluster: &Cluster, target: &Target) -> Result<(Arc<Pod>, u16), Refusal> {
    let (name, port) = split(target)?;
    let named = Target {
        name: Some(name.to_owned()),
        ..target.clone()
    };
    let object = objects::find(cluster, &named)?;
    let first = ports(&object.json).find_map(|port| port["containerPort"].as_u64());
    let port = match port {
        "" => u16::try_from(first.unwrap_or(80)).unwrap_or(80),
        port => port
            .parse()
            .map_err(|_| Refusal::bad_request(format!("invalid port {port:?}")))?,
    };
    Ok((cluster.pod(&named)?, port))
}

/// A pod that a service leads to, and its port there.
fn of_service(cluster: &Cluster, target: &Target) -> Result<(Arc<Pod>, u16), Refusal> {
    let (name, port) = split(target)?;
    let key = store::key(target.resource(), &target.namespace, name);
    let service = cluster
        .store
        .get(&key)
        .ok_or_else(|| missing(target.resource(), name))?;
    let none = |what: String| refusal((503, "ServiceUnavailable"), what, [""; 3], []);
    let spec = &service.json["spec"];
    let number = port.parse::<u64>();
    let is_numbered = |known: &Value| number.as_ref().is_ok_and(|number| known["port"] == *number);
    let is_it = |known: &&Value| port.is_empty() || known["name"] == port || is_numbered(known);
    let why = || {
        none(format!(
            "no service port {port:?} found for service {name:?}"
        ))
    };
    let known = items(&spec["ports"]).find(is_it).ok_or_else(why)?;
    let labels = selector::labels(&selector_text(&spec["selector"]))?;
    let pods = super::resource();
    for (key, object) in cluster.store.now(&pods, Some(&target.namespace)) {
        if labels.is_empty() || !selector::selects(&labels, &[], &object.json) {
            continue;
        }
        let named = |port: &&Value| port["name"] == known["targetPort"];
        let number = known["targetPort"]
            .as_u64()
            .or_else(|| ports(&object.json).find(named)?["containerPort"].as_u64());
        let number = number.and_then(|number| u16::try_from(number).ok());
        if let (Some(pod), Some(number)) = (cluster.pods.get(&key.2, &key.3), number) {
            return Ok((pod, number));
        }
    }
    Err(none(format!("no endpoints available for service {name:?}")))
}

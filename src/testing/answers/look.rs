//! How answers look: in flow answers in JSON, out they come spread out for people, or in YAML,
//! for nobody to keep, and with the warning of a kind that is deprecated.

use http::{
    HeaderValue, Request, Response, StatusCode,
    header::{CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, USER_AGENT, WARNING},
};
use http_body_util::{BodyExt as _, Full};
use serde_json::Value;

use crate::{
    server::Refusal,
    testing::{
        objects,
        requests::{negotiation, target::Parameters},
        router::{self, Body},
    },
    wire::{status::Status, watch::Encoding},
};

const ENDPOINTS: &str = "299 - \"v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 \
                         EndpointSlice\"";

/// What a request asks for besides its answer.
pub(crate) struct Look {
    yaml: bool,
    /// `k8s.io/apiserver/pkg/endpoints/handlers/negotiation/negotiate.go`, `isPrettyPrint`.
    pretty: bool,
    is_watch: bool,
    is_deprecated: bool,
    /// What the request is called where it is recorded: as its client says, or anything.
    audit: HeaderValue,
}

const AUDIT: &str = "audit-id";

impl Look {
    pub(crate) fn of<B>(request: &Request<B>) -> Self {
        let parameters = Parameters::parse(request.uri().query());
        let path = request.uri().path();
        let is_other = path.contains("/proxy") || path.starts_with("/openapi");
        let encodings = [Encoding::Json, Encoding::Protobuf, Encoding::Cbor];
        let accepted = negotiation::negotiate(objects::accept(request), &encodings, true);
        let agent = request.headers().get(USER_AGENT);
        let agent = agent.map_or(&b""[..], HeaderValue::as_bytes);
        let people = [&b"curl"[..], b"Wget", b"Mozilla/5.0"];
        let path: Vec<_> = path.split('/').skip(1).collect();
        let audit = request.headers().get(AUDIT).cloned().unwrap_or_else(|| {
            let [a, b] = rand::random::<[u32; 2]>();
            let [c, d, e, f] = rand::random::<[u16; 4]>();
            let id = format!(
                "{a:08x}-{c:04x}-4{:03x}-8{:03x}-{b:08x}{f:04x}",
                d >> 4,
                e >> 4
            );
            HeaderValue::from_str(&id).unwrap_or(HeaderValue::from_static(""))
        });
        Self {
            audit,
            yaml: accepted.is_some_and(|accepted| accepted.yaml) && !is_other,
            pretty: !is_other
                && match parameters.get("pretty") {
                    "" => people.iter().any(|name| agent.starts_with(name)),
                    how => ["1", "t", "T", "true", "TRUE", "True"].contains(&how),
                },
            is_watch: parameters.is("watch"),
            is_deprecated: matches!(
                path[..],
                ["api", "v1", "endpoints", ..] | ["api", "v1", "namespaces", _, "endpoints", ..]
            ),
        }
    }

    pub(crate) async fn give(&self, response: Response<Body>) -> Response<Body> {
        let (mut head, body) = response.into_parts();
        if head.status != StatusCode::SWITCHING_PROTOCOLS {
            let none = HeaderValue::from_static("no-cache, private");
            head.headers.entry(CACHE_CONTROL).or_insert(none);
            head.headers.insert(AUDIT, self.audit.clone());
        }
        if self.is_deprecated {
            let warning = HeaderValue::from_static(ENDPOINTS);
            head.headers.append(WARNING, warning);
        }
        let is = |name, value| head.headers.get(name).is_some_and(|known| known == value);
        if !self.yaml && !self.pretty
            || !is(CONTENT_TYPE, "application/json")
            || is(CONTENT_ENCODING, "gzip")
            || self.is_watch && head.status.is_success()
        {
            return Response::from_parts(head, body);
        }
        let bytes = match body.collect().await {
            Ok(body) => body.to_bytes(),
            Err(error) => {
                let failed = Status::failure(500, "", error.to_string());
                return Refusal::new(failed).into_response().map(router::body);
            }
        };
        let json: Value = serde_json::from_slice(&bytes).unwrap_or_default();
        let text = match self.yaml {
            true => {
                let media = HeaderValue::from_static("application/yaml");
                head.headers.insert(CONTENT_TYPE, media);
                serde_saphyr::to_string(&json).unwrap_or_default()
            }
            false => format!("{json:#}"),
        };
        head.headers.remove(CONTENT_LENGTH);
        Response::from_parts(head, router::body(Full::new(text.into())))
    }
}

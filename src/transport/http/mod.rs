//! HTTP: in flow requests, out come responses whose bodies are read as they arrive.
//!
//! Each request carries the credentials of its moment. It is sent again after a 401 that new
//! credentials may turn, and after a 429 or 503 that says when. The [`Pool`] has the connections,
//! but for requests that have a connection each: that [`upgrade`], whose body is streamed, or whose
//! target is long.

use std::{
    borrow::Cow,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode,
    header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_LENGTH, LOCATION, USER_AGENT},
};
use http_body_util::Full;
use tokio::{sync::Notify, time::Instant};
use tracing::{Instrument, field::Empty};

pub(crate) mod body;
pub(crate) mod exchange;
mod pool;
mod refusal;
mod single;
mod target;
pub(crate) mod upgrade;
mod usage;

pub use self::refusal::refusal;
pub(crate) use self::refusal::{retry_after, text, unexpected};
use self::{body::Body, pool::Pool};
pub(crate) use crate::net::blame;
use crate::{
    AGENT, Error, REQUESTS, Result,
    auth::Connector,
    error::{
        CallerError, NetworkError, PeerError, Printable,
        panic::{blocking, lock},
    },
    limits,
    transport::runtime,
};

/// Bytes of a target with which a request has a connection of its own: 32 KiB. [`http::Uri`], which
/// the pool's have, holds 64 KiB with the server's URL.
const LONG_TARGET: usize = 32 << 10;

/// Sends requests to one API server. Clones share the connections.
#[derive(Clone)]
pub(crate) struct Http {
    connector: Connector,
    pool: Arc<Mutex<Current>>,
}

struct Current {
    pool: Arc<Pool>,
    /// The certificate that its connections present.
    generation: u64,
    /// When the certificate files were last compared.
    checked: Instant,
}

/// A request, and what may be done to have it answered.
#[derive(Debug, Clone)]
pub(crate) struct Outgoing {
    pub(crate) method: Method,
    /// From the first slash after the server's base path on.
    pub(crate) path_and_query: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    /// What is asked, for errors: `get pod default/web-0`.
    pub(crate) operation: String,
    pub(crate) about: About,
    /// How long the head of the answer may take, each time; of an upgrade, once it is connected.
    pub(crate) deadline: Option<Duration>,
    /// Whether to send it again after a 429, a 503 or a lost connection. Sessions have a backoff
    /// of their own.
    pub(crate) again: bool,
    /// Whether the headers ask for another protocol.
    pub(crate) upgrade: bool,
    /// Whether the answer may be worth compressing.
    pub(crate) compress: bool,
}

/// What a request is about, in the words of RBAC.
#[derive(Debug, Clone, Default)]
pub(crate) struct About {
    pub(crate) verb: Cow<'static, str>,
    /// As kubectl writes it, with its subresource: `deployments.apps/scale`.
    pub(crate) resource: String,
    pub(crate) namespace: Option<String>,
    pub(crate) name: Option<String>,
}

impl Outgoing {
    pub(crate) fn get(operation: impl Into<String>, path_and_query: impl Into<String>) -> Self {
        Self {
            method: Method::GET,
            path_and_query: path_and_query.into(),
            headers: HeaderMap::new(),
            body: Bytes::new(),
            operation: operation.into(),
            about: About::default(),
            deadline: Some(limits::REQUEST),
            again: true,
            upgrade: false,
            compress: false,
        }
    }

    /// The path for traces, without its query where that has the command of an exec.
    fn path_to_tell(&self) -> &str {
        let path = self.path_and_query.as_str();
        match self.upgrade {
            true => path.split_once('?').map_or(path, |(path, _)| path),
            false => path,
        }
    }

    /// A GET that asks for another protocol.
    pub(crate) fn upgrade(operation: impl Into<String>, path_and_query: impl Into<String>) -> Self {
        Self {
            deadline: Some(limits::OPEN),
            upgrade: true,
            ..Self::get(operation, path_and_query)
        }
    }
}

impl Http {
    pub(crate) fn new(connector: Connector) -> Self {
        let current = Current {
            pool: Pool::new(&connector),
            generation: connector.generation(),
            checked: Instant::now(),
        };
        Self {
            connector,
            pool: Arc::new(Mutex::new(current)),
        }
    }

    /// The host that is asked, for traces.
    pub(crate) fn server_address(&self) -> &str {
        &self.connector.server().host
    }

    /// Sends a request and gives the server's answer, whatever its code. An upgrade goes over a
    /// connection of its own, as HTTP/1.1, and a 101 carries hyper's upgrade.
    ///
    /// A 401 renews the credentials, if they can be, and is tried once more; a 429 or 503 that
    /// names a time is waited out up to [`limits::RETRIES`] times, a 503 only if the method is
    /// safe. A safe request is also sent once more if the connection is lost under it; an upgrade
    /// is none, for it may start a process. Without [`Outgoing::again`] only the 401 is left of
    /// this, and what the server says it has not begun with.
    ///
    /// Dropping the future gives the request up; the server may carry it out all the same.
    pub(crate) async fn send(&self, mut outgoing: Outgoing) -> Result<Response<Body>> {
        let most = self.connector.request_timeout();
        outgoing.deadline = Some(outgoing.deadline.map_or(most, |own| own.min(most)));
        let about = &outgoing.about;
        let path = outgoing.path_to_tell();
        let span = tracing::debug_span!(
            "request",
            verb = &*about.verb,
            resource = Some(&*about.resource).filter(|resource| !resource.is_empty()),
            namespace = about.namespace.as_deref(),
            name = about.name.as_deref(),
            path = %Printable(path),
            operation = %outgoing.operation,
            status = Empty,
            bytes = Empty,
            retries = Empty,
        );
        runtime()?;
        // It is large, and part of the future of every verb.
        Box::pin(self.send_in(outgoing, &span))
            .instrument(span.clone())
            .await
    }

    async fn send_in(&self, outgoing: Outgoing, span: &tracing::Span) -> Result<Response<Body>> {
        let safe = outgoing.method.is_safe() && !outgoing.upgrade;
        let again = outgoing.again;
        let (mut retries, mut renewed, mut resent) = (0, false, false);
        loop {
            let mut headers = outgoing.headers.clone();
            headers.insert(USER_AGENT, HeaderValue::from_static(AGENT));
            let compress = outgoing.compress && self.connector.compresses();
            if compress {
                headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("gzip"));
            }
            self.connector.authorize(&mut headers).await?;
            tracing::debug!("{}", self.curl(&outgoing, &headers));
            let begun = Instant::now();
            let answer = self.once(&outgoing, headers.clone(), resent).await;
            let answer = answer.map_err(|error| self.connector.explain(error));
            self.tell(&outgoing, begun, &answer);
            let mut response = match answer {
                Err(Error::Network(NetworkError::Lost(error))) if safe && again && !resent => {
                    tracing::debug!(%error, "the connection was lost; sending again");
                    resent = true;
                    continue;
                }
                answer => answer?,
            };
            self.connector.annotate(&mut response);
            let most = self.connector.request_timeout();
            response.body_mut().bound(begun, most);
            if compress {
                response = inflated(response);
            }
            let status = response.status();
            if status == StatusCode::UNAUTHORIZED && !renewed && self.connector.refused(&headers) {
                tracing::debug!("401: renewing the credentials");
                renewed = true;
                self.renew_connections();
                continue;
            }
            match wait(&response, safe).filter(|_| again && retries < limits::RETRIES) {
                Some(wait) => {
                    retries += 1;
                    tracing::info!(%status, wait_seconds = wait.as_secs(), retries, "the server asks for patience");
                    tokio::time::sleep(wait).await;
                }
                None => {
                    span.record("status", status.as_u16());
                    span.record("retries", retries);
                    // Unknown ahead of a body that comes in chunks.
                    let bytes = hyper::body::Body::size_hint(response.body()).exact();
                    span.record("bytes", bytes);
                    return Ok(response);
                }
            }
        }
    }

    /// Sends a request whose body comes as it is made, over a connection of its own. Nothing is
    /// tried again, since the body is gone.
    pub(crate) async fn send_streamed<B>(
        &self,
        path_and_query: &str,
        mut request: Request<B>,
    ) -> Result<Response<Body>>
    where
        B: hyper::body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        runtime()?;
        let headers = request.headers_mut();
        headers.insert(USER_AGENT, HeaderValue::from_static(AGENT));
        self.connector.authorize(headers).await?;
        let headers = headers.clone();
        let outgoing = Outgoing {
            method: request.method().clone(),
            ..Outgoing::get("a request whose body streams", path_and_query)
        };
        tracing::debug!("{} --data-binary @-", self.curl(&outgoing, &headers));
        let started = Instant::now();
        let endless = bound_informational(&mut request);
        let sent = async {
            let io = self.connector.connect().await?;
            // It need not be `Unpin`: the connection holds it.
            let request = request.map(Box::pin);
            single::send(&self.connector, io, path_and_query, request).await
        };
        let answer = unless(&endless, sent).await;
        let answer = answer.map_err(|error| self.connector.explain(error));
        self.tell(&outgoing, started, &answer);
        let mut response = answer?;
        self.connector.annotate(&mut response);
        let status = response.status();
        if status == StatusCode::UNAUTHORIZED && self.connector.refused(&headers) {
            self.renew_connections();
        }
        Ok(response)
    }

    /// Says what became of a request, each time that it was sent.
    fn tell(&self, outgoing: &Outgoing, begun: Instant, answer: &Result<Response<Body>>) {
        let (method, ms) = (&outgoing.method, begun.elapsed().as_millis());
        let url = Printable(self.connector.url(outgoing.path_to_tell()));
        match answer {
            Ok(response) => {
                let status = response.status();
                let location = text(response.headers(), LOCATION);
                tracing::debug!(target: REQUESTS, %method, %url, %status, location, ms, "answered");
            }
            Err(error) => {
                tracing::debug!(target: REQUESTS, %method, %url, %error, ms, "failed");
            }
        }
    }

    /// `resent` says that a connection was lost with it: others that wait may be lost, too.
    async fn once(
        &self,
        outgoing: &Outgoing,
        headers: HeaderMap,
        resent: bool,
    ) -> Result<Response<Body>> {
        let path = outgoing.path_and_query.as_str();
        let mut request = Request::new(Full::new(outgoing.body.clone()));
        *request.method_mut() = outgoing.method.clone();
        *request.headers_mut() = headers;
        let endless = bound_informational(&mut request);
        let sent = async {
            match outgoing.upgrade || path.len() > LONG_TARGET {
                true => {
                    let io = self.connector.connect().await?;
                    let sent = single::send(&self.connector, io, path, request);
                    within(outgoing, sent).await
                }
                false => {
                    let pool = self.current().await;
                    within(outgoing, pool.send(path, request, resent)).await
                }
            }
        };
        unless(&endless, sent).await
    }

    /// The pool, or a new one if another certificate is to be presented. Requests that are under
    /// way stay where they are.
    async fn current(&self) -> Arc<Pool> {
        let due = {
            let mut current = lock(&self.pool);
            let due = current.checked.elapsed() >= limits::TOKEN_FILE_PERIOD;
            if due {
                current.checked = Instant::now();
            }
            due
        };
        if due {
            let connector = self.connector.clone();
            let look = move || Ok(connector.certificates_changed());
            match blocking("the look for other certificates", look).await {
                Ok(true) => self.renew_connections(),
                Ok(false) => {}
                Err(error) => tracing::warn!(%error, "connections keep their certificates"),
            }
        }
        if lock(&self.pool).generation != self.connector.generation() {
            self.renew_connections();
        }
        lock(&self.pool).pool.clone()
    }

    fn renew_connections(&self) {
        let mut current = lock(&self.pool);
        current.generation = self.connector.generation();
        current.pool = Pool::new(&self.connector);
    }

    /// The same request as a shell command, without secrets: bodies are left out too.
    fn curl(&self, outgoing: &Outgoing, headers: &HeaderMap) -> String {
        let quote = |text: &str| format!("'{}'", text.replace('\'', r"'\''"));
        let mut line = format!("curl -X {}", outgoing.method);
        if headers.contains_key(ACCEPT_ENCODING) {
            line.push_str(" --compressed");
        }
        for (name, value) in headers {
            let value = match value.to_str() {
                Ok(text) if !value.is_sensitive() && is_public(name, text) => text,
                Ok(_) => "<redacted>",
                Err(_) => "<bytes>",
            };
            line.push_str(&format!(" -H {}", quote(&format!("{name}: {value}"))));
        }
        if !outgoing.body.is_empty() {
            line.push_str(&format!(" --data-binary '<{} bytes>'", outgoing.body.len()));
        }
        let url = self.connector.url(&outgoing.path_and_query);
        line.push_str(&format!(" {}", quote(&url)));
        line
    }
}

impl std::fmt::Debug for Http {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Http").field(&self.connector).finish()
    }
}

/// The answer with a body that is what the server compressed.
fn inflated(mut response: Response<Body>) -> Response<Body> {
    let headers = response.headers_mut();
    if headers
        .get(CONTENT_ENCODING)
        .is_none_or(|coding| coding != "gzip")
    {
        return response;
    }
    headers.remove(CONTENT_ENCODING);
    headers.remove(CONTENT_LENGTH);
    response.map(Body::inflate)
}

pub(crate) fn header_value(text: &str) -> Result<HeaderValue, CallerError> {
    HeaderValue::from_str(text).map_err(|_| CallerError::Header {
        value: text.to_owned(),
    })
}

/// The answer, if it begins before the request's deadline.
async fn within<T>(outgoing: &Outgoing, answer: impl Future<Output = Result<T>>) -> Result<T> {
    let Some(after) = outgoing.deadline else {
        return answer.await;
    };
    match tokio::time::timeout(after, answer).await {
        Ok(answer) => answer,
        Err(_) => Err(Error::late(&outgoing.operation, after)),
    }
}

/// Tells when a server has sent more answers of code 1xx than it has reason to: hyper reads them
/// without end.
fn bound_informational<B>(request: &mut Request<B>) -> Arc<Notify> {
    let endless = Arc::new(Notify::new());
    let notify = Arc::clone(&endless);
    let seen = AtomicUsize::new(0);
    hyper::ext::on_informational(request, move |_| {
        if seen.fetch_add(1, Ordering::Relaxed) >= limits::INFORMATIONAL {
            notify.notify_one();
        }
    });
    endless
}

/// The answer, unless there are too many before it.
async fn unless<T>(endless: &Notify, answer: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::select! {
        answer = answer => answer,
        () = endless.notified() => {
            let problem = format!("more than {} answers of code 1xx", limits::INFORMATIONAL);
            Err(PeerError::Http(problem).into())
        }
    }
}

/// Whether a header is known to hold no secret. A WebSocket's subprotocol may hold a token
/// (`k8s.io/apiserver/pkg/authentication/request/websocket/protocol.go`).
fn is_public(name: &HeaderName, value: &str) -> bool {
    const PUBLIC: &[&str] = &[
        "accept",
        "accept-encoding",
        "accept-language",
        "cache-control",
        "connection",
        "content-length",
        "content-type",
        "host",
        "if-match",
        "if-none-match",
        "origin",
        "range",
        "sec-websocket-protocol",
        "sec-websocket-version",
        "te",
        "transfer-encoding",
        "upgrade",
        "user-agent",
    ];
    let name = name.as_str();
    (PUBLIC.contains(&name) || name.starts_with("impersonate-"))
        && !value.contains("base64url.bearer.")
}

/// How long the server asks to wait before the same request (`k8s.io/client-go/rest/with_retry.go`,
/// `IsNextRetry`). With 429 it has not begun with it.
fn wait(response: &Response<Body>, safe: bool) -> Option<Duration> {
    match response.status() {
        StatusCode::TOO_MANY_REQUESTS => {}
        StatusCode::SERVICE_UNAVAILABLE if safe => {}
        _ => return None,
    }
    let wait = Duration::from_secs(retry_after(response.headers())?);
    (wait <= limits::LONGEST_RETRY_AFTER).then_some(wait)
}

#[cfg(test)]
pub(crate) mod tests;

//! Plain HTTP: in flow requests, out come responses whose bodies are read as they arrive.
//!
//! Each request carries the credentials of its moment. It is sent again after a 401 that new
//! credentials may turn, and after a 429 or 503 that says when. The [`Pool`] has the connections.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Method, Request, Response, StatusCode,
    header::{AUTHORIZATION, HOST, RETRY_AFTER, USER_AGENT},
};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::time::Instant;
use tracing::Instrument;

mod about;
pub(crate) mod body;
pub(crate) mod exchange;
mod pool;
pub(crate) mod streamed;
pub(crate) mod upgrade;

use self::{
    body::{Body, lost},
    pool::Pool,
};
use crate::{AGENT, Error, Result, auth::Connector, error::NetworkError, limits};

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
#[derive(Debug)]
pub(crate) struct Outgoing {
    pub(crate) method: Method,
    /// From the first slash after the server's base path on.
    pub(crate) path_and_query: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    /// What is asked, for errors: `get pod default/web-0`.
    pub(crate) operation: String,
    /// How long the head of the answer may take, each time.
    pub(crate) deadline: Option<Duration>,
    /// Whether to send it again after a 429, a 503 or a lost connection. Sessions have a backoff
    /// of their own.
    pub(crate) again: bool,
}

impl Outgoing {
    /// A GET of JSON.
    pub(crate) fn get(operation: impl Into<String>, path_and_query: impl Into<String>) -> Self {
        Self {
            method: Method::GET,
            path_and_query: path_and_query.into(),
            headers: HeaderMap::new(),
            body: Bytes::new(),
            operation: operation.into(),
            deadline: Some(limits::REQUEST),
            again: true,
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

    pub(crate) fn connector(&self) -> &Connector {
        &self.connector
    }

    /// Sends a request and gives the server's answer, whatever its code.
    ///
    /// A 401 renews the credentials, if they can be, and is tried once more; a 429 or 503 that
    /// names a time is waited out up to [`limits::RETRIES`] times, a 503 only if the method is
    /// safe. A safe request is also sent once more if the connection is lost under it. Without
    /// [`Outgoing::again`] only the 401 is left of this.
    ///
    /// Dropping the future gives the request up; the server may carry it out all the same.
    pub(crate) async fn send(&self, outgoing: Outgoing) -> Result<Response<Body>> {
        let about = about::about(&outgoing.method, &outgoing.path_and_query);
        let span = tracing::debug_span!(
            "request",
            verb = &*about.verb,
            resource = about.resource,
            namespace = about.namespace.as_deref(),
            name = about.name.as_deref(),
            path = %outgoing.path_and_query,
            operation = %outgoing.operation,
            status = tracing::field::Empty,
            bytes = tracing::field::Empty,
            retries = tracing::field::Empty,
        );
        self.send_in(outgoing, &span).instrument(span.clone()).await
    }

    async fn send_in(&self, outgoing: Outgoing, span: &tracing::Span) -> Result<Response<Body>> {
        let (safe, again) = (outgoing.method.is_safe(), outgoing.again);
        let (mut retries, mut renewed, mut resent) = (0, false, false);
        let started = Instant::now();
        loop {
            let mut headers = outgoing.headers.clone();
            headers.insert(USER_AGENT, HeaderValue::from_static(AGENT));
            self.connector.authorize(&mut headers).await?;
            tracing::debug!("{}", self.curl(&outgoing, &headers));
            let answer = self.once(&outgoing, headers.clone()).await;
            let response = match answer {
                Err(Error::Network(NetworkError::Lost(error))) if safe && again && !resent => {
                    tracing::debug!(%error, "the connection was lost; sending again");
                    resent = true;
                    continue;
                }
                answer => answer?,
            };
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
                    let ms = started.elapsed().as_millis();
                    // Unknown ahead of a body that comes in chunks.
                    let bytes = hyper::body::Body::size_hint(response.body()).exact();
                    span.record("bytes", bytes);
                    tracing::debug!(%status, bytes, ms, retries, "answered");
                    return Ok(response);
                }
            }
        }
    }

    async fn once(&self, outgoing: &Outgoing, headers: HeaderMap) -> Result<Response<Body>> {
        let mut request = Request::new(Full::new(outgoing.body.clone()));
        *request.method_mut() = outgoing.method.clone();
        *request.headers_mut() = headers;
        let pool = self.current().await;
        let sent = pool.send(&outgoing.path_and_query, request);
        match outgoing.deadline {
            None => sent.await,
            Some(after) => match tokio::time::timeout(after, sent).await {
                Ok(response) => response,
                Err(_) => Err(NetworkError::TimedOut {
                    operation: outgoing.operation.clone(),
                    after,
                }
                .into()),
            },
        }
    }

    /// Sends a request that may end in another protocol, over a connection of its own, as HTTP/1.1.
    /// The response carries hyper's upgrade.
    ///
    /// A 401 renews the credentials, if they can be, and is tried once more.
    pub(crate) async fn send_upgrade(&self, outgoing: Outgoing) -> Result<Response<Incoming>> {
        let mut renewed = false;
        loop {
            let mut headers = outgoing.headers.clone();
            self.connector.authorize(&mut headers).await?;
            headers.insert(HOST, self.connector.host().clone());
            tracing::debug!("{}", self.curl(&outgoing, &headers));
            let mut request = Request::new(Full::new(outgoing.body.clone()));
            *request.method_mut() = outgoing.method.clone();
            *request.uri_mut() = self.connector.uri(&outgoing.path_and_query)?;
            *request.headers_mut() = headers.clone();
            let stream = TokioIo::new(self.connector.connect().await?);
            let (mut sender, connection) = hyper::client::conn::http1::handshake(stream)
                .await
                .map_err(lost)?;
            tokio::spawn(connection.with_upgrades());
            let response = sender.send_request(request).await.map_err(lost)?;
            let refused = response.status() == StatusCode::UNAUTHORIZED;
            if !refused || renewed || !self.connector.refused(&headers) {
                return Ok(response);
            }
            renewed = true;
        }
    }

    /// The pool, or a new one if another certificate is to be presented. Requests that are under
    /// way stay where they are.
    async fn current(&self) -> Arc<Pool> {
        let due = {
            let mut current = self.lock();
            let due = current.checked.elapsed() >= limits::TOKEN_FILE_PERIOD;
            if due {
                current.checked = Instant::now();
            }
            due
        };
        if due {
            let connector = self.connector.clone();
            let changed = tokio::task::spawn_blocking(move || connector.certificates_changed());
            if changed.await.unwrap_or(false) {
                self.renew_connections();
            }
        }
        if self.lock().generation != self.connector.generation() {
            self.renew_connections();
        }
        self.lock().pool.clone()
    }

    fn renew_connections(&self) {
        let mut current = self.lock();
        current.generation = self.connector.generation();
        current.pool = Pool::new(&self.connector);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Current> {
        self.pool.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The same request as a shell command, without secrets: bodies are left out too.
    fn curl(&self, outgoing: &Outgoing, headers: &HeaderMap) -> String {
        let quote = |text: &str| format!("'{}'", text.replace('\'', r"'\''"));
        let mut line = format!("curl -X {}", outgoing.method);
        for (name, value) in headers {
            let value = match value.to_str() {
                Ok(_) if value.is_sensitive() || name == AUTHORIZATION => "<redacted>",
                Ok(value) => value,
                Err(_) => "<bytes>",
            };
            line.push_str(&format!(" -H {}", quote(&format!("{name}: {value}"))));
        }
        if !outgoing.body.is_empty() {
            line.push_str(&format!(" --data-binary '<{} bytes>'", outgoing.body.len()));
        }
        if let Ok(uri) = self.connector.absolute_uri(&outgoing.path_and_query) {
            line.push_str(&format!(" {}", quote(&uri.to_string())));
        }
        line
    }
}

impl std::fmt::Debug for Http {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Http").field(&self.connector).finish()
    }
}

/// How long the server asks to wait before the same request (`k8s.io/client-go/rest/with_retry.go`,
/// `IsNextRetry`). With 429 it has not begun with it.
fn wait(response: &Response<Body>, safe: bool) -> Option<Duration> {
    match response.status() {
        StatusCode::TOO_MANY_REQUESTS => {}
        StatusCode::SERVICE_UNAVAILABLE if safe => {}
        _ => return None,
    }
    let seconds = response.headers().get(RETRY_AFTER)?.to_str().ok()?;
    let wait = Duration::from_secs(seconds.trim().parse().ok()?);
    (wait <= limits::LONGEST_RETRY_AFTER).then_some(wait)
}

#[cfg(test)]
pub(crate) mod tests;

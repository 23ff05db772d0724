//! Plain HTTP requests: in flow paths and headers, out come responses whose bodies stream.
//!
//! Where the server speaks HTTP/2, all requests of a client share one connection, up to
//! [`limits::STREAMS`]; its death shows within [`limits::HTTP2_PING`] and
//! [`limits::HTTP2_PONG`]. With HTTP/1.1 each response that is being read has a connection of its
//! own. hyper drives each connection in a task of its own, which ends with the connection.

use std::{
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Method, Request, Response, StatusCode,
    header::{HOST, USER_AGENT},
};
use http_body_util::Empty;
use hyper::{
    body::{Frame, Incoming, SizeHint},
    client::conn::{http1, http2},
};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};

use super::{
    connect::{Alpn, Connector},
    upgrade::{AGENT, http_error},
};
use crate::{Result, error::Error, limits};

type NoBody = Empty<Bytes>;

/// Sends requests to one API server. Clones share the connections.
#[derive(Clone)]
pub(crate) struct Http {
    connector: Connector,
    connections: Arc<Connections>,
}

#[derive(Default)]
struct Connections {
    open: Mutex<Open>,
    /// Held while a connection is made, so that requests that come meanwhile share it.
    connecting: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct Open {
    http2: Vec<Shared>,
    http1: Vec<http1::SendRequest<NoBody>>,
}

/// An HTTP/2 connection and the number of its requests.
#[derive(Clone)]
struct Shared {
    sender: http2::SendRequest<NoBody>,
    requests: Arc<AtomicUsize>,
}

/// Counts a request for as long as its body is not dropped.
#[derive(Debug)]
struct Counted(Arc<AtomicUsize>);

impl Counted {
    fn new(requests: &Arc<AtomicUsize>) -> Self {
        requests.fetch_add(1, Ordering::Relaxed);
        Self(requests.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The body of a response. Dropping it ends the request.
#[derive(Debug)]
pub(crate) struct Body {
    incoming: Incoming,
    _counted: Option<Counted>,
}

impl hyper::body::Body for Body {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        Pin::new(&mut self.incoming).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}

enum Sender {
    Http2(Shared),
    Http1(http1::SendRequest<NoBody>),
}

impl Http {
    pub(crate) fn new(connector: Connector) -> Self {
        Self {
            connector,
            connections: Arc::default(),
        }
    }

    /// Sends a GET request; a 401 renews the credentials and is tried once more. Whatever else
    /// the server answers is the caller's to judge.
    ///
    /// Dropping the future ends the request.
    pub(crate) async fn get(
        &self,
        path_and_query: &str,
        headers: &HeaderMap,
    ) -> Result<Response<Body>> {
        let mut renewed = false;
        loop {
            let mut headers = headers.clone();
            self.connector.authorize(&mut headers).await?;
            headers.insert(USER_AGENT, HeaderValue::from_static(AGENT));
            let response = self.send(path_and_query, &headers).await?;
            let refused = response.status() == StatusCode::UNAUTHORIZED;
            if !refused || renewed || !self.connector.refused(&headers) {
                return Ok(response);
            }
            renewed = true;
        }
    }

    async fn send(&self, path_and_query: &str, headers: &HeaderMap) -> Result<Response<Body>> {
        let mut attempts = 0;
        loop {
            let (sender, is_new) = self.sender().await?;
            let answer = self.send_over(sender, path_and_query, headers).await;
            match answer {
                // The server closed an idle connection just as it was taken; nothing was asked.
                Err(_) if !is_new && attempts < 2 => attempts += 1,
                answer => return answer,
            }
        }
    }

    async fn send_over(
        &self,
        sender: Sender,
        path_and_query: &str,
        headers: &HeaderMap,
    ) -> Result<Response<Body>> {
        let mut request = Request::new(NoBody::new());
        *request.method_mut() = Method::GET;
        *request.headers_mut() = headers.clone();
        match sender {
            Sender::Http2(mut shared) => {
                *request.uri_mut() = self.connector.absolute_uri(path_and_query)?;
                let counted = Counted::new(&shared.requests);
                let response = shared.sender.send_request(request).await;
                Ok(response.map_err(http_error)?.map(|incoming| Body {
                    incoming,
                    _counted: Some(counted),
                }))
            }
            Sender::Http1(mut sender) => {
                *request.uri_mut() = self.connector.uri(path_and_query)?;
                request
                    .headers_mut()
                    .insert(HOST, self.connector.host().clone());
                let response = sender.send_request(request).await.map_err(http_error)?;
                let mut open = self.lock();
                open.http1.retain(|sender| !sender.is_closed());
                let idle = open.http1.iter().filter(|sender| sender.is_ready()).count();
                if idle < limits::IDLE_CONNECTIONS {
                    open.http1.push(sender);
                }
                Ok(response.map(|incoming| Body {
                    incoming,
                    _counted: None,
                }))
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Open> {
        // No code panics while it holds the lock.
        let open = self.connections.open.lock();
        open.unwrap_or_else(PoisonError::into_inner)
    }

    /// A connection that is there and takes another request.
    fn open_sender(&self) -> Option<Sender> {
        let mut open = self.lock();
        open.http2.retain(|shared| !shared.sender.is_closed());
        let free = |shared: &&Shared| shared.requests.load(Ordering::Relaxed) < limits::STREAMS;
        if let Some(shared) = open.http2.iter().find(free) {
            return Some(Sender::Http2(shared.clone()));
        }
        let ready = open.http1.iter().position(http1::SendRequest::is_ready)?;
        Some(Sender::Http1(open.http1.swap_remove(ready)))
    }

    /// A connection, and whether it was made for this.
    async fn sender(&self) -> Result<(Sender, bool)> {
        if let Some(sender) = self.open_sender() {
            return Ok((sender, false));
        }
        let connecting = self.connections.connecting.lock().await;
        if let Some(sender) = self.open_sender() {
            return Ok((sender, false));
        }
        let io = self.connector.connect_as(Alpn::Http2).await?;
        if !io.is_http2() {
            // These are not shared: the next may be made at the same time.
            drop(connecting);
            let (sender, connection) = http1::handshake(TokioIo::new(io))
                .await
                .map_err(http_error)?;
            tokio::spawn(connection);
            return Ok((Sender::Http1(sender), true));
        }
        let (sender, connection) = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .keep_alive_interval(limits::HTTP2_PING)
            .keep_alive_timeout(limits::HTTP2_PONG)
            .keep_alive_while_idle(true)
            .initial_stream_window_size(limits::STREAM_WINDOW)
            .initial_connection_window_size(limits::STREAM_WINDOW * limits::STREAMS as u32)
            .max_frame_size(limits::HTTP2_FRAME)
            .handshake(TokioIo::new(io))
            .await
            .map_err(http_error)?;
        tokio::spawn(connection);
        let shared = Shared {
            sender,
            requests: Arc::default(),
        };
        self.lock().http2.push(shared.clone());
        Ok((Sender::Http2(shared), true))
    }
}

impl std::fmt::Debug for Http {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let open = self.lock();
        f.debug_struct("Http")
            .field("connector", &self.connector)
            .field("http2", &open.http2.len())
            .field("http1", &open.http1.len())
            .finish_non_exhaustive()
    }
}

/// Reads a response whole, which must be one of success.
///
/// # Errors
///
/// The server's refusal with its Status, or [`Error::Network`].
pub(crate) async fn collect(
    operation: &str,
    response: Response<Body>,
    bound: usize,
) -> Result<Bytes> {
    use http_body_util::{BodyExt as _, Limited};
    let (head, body) = response.into_parts();
    if !head.status.is_success() {
        return Err(super::upgrade::refusal(operation, Response::from_parts(head, body)).await);
    }
    match Limited::new(body, bound).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) => match error.downcast::<hyper::Error>() {
            Ok(error) => Err(http_error(*error)),
            Err(_) => {
                let error = crate::wire::watch::EventError::TooLarge { bound };
                Err(Error::Peer(error.into()))
            }
        },
    }
}

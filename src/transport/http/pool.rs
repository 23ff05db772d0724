//! The connections to one API server: in flow requests, out come their responses.
//!
//! Where the server speaks HTTP/2, requests share one connection, up to [`limits::STREAMS`]; its
//! death shows within [`limits::HTTP2_PING`] and [`limits::HTTP2_PONG`]. With HTTP/1.1 each
//! response that is being read has a connection of its own, which serves another request later.
//! hyper drives each connection in a task of its own, which ends with the connection.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response, header::HOST};
use http_body_util::Full;
use hyper::client::conn::{TrySendError, http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::time::Instant;

use super::body::{Body, lost};
use crate::{Error, Result, auth::Connector, error::PeerError, limits, net::Alpn};

type Content = Full<Bytes>;

/// Connections that present the same certificate.
pub(super) struct Pool {
    connector: Connector,
    open: Mutex<Open>,
    /// Held while a connection is made, so that requests that come meanwhile share it.
    connecting: tokio::sync::Mutex<()>,
    /// Whether the last connection could not be shared: the next are made at the same time.
    alone: AtomicBool,
}

#[derive(Default)]
struct Open {
    http2: Vec<Shared>,
    http1: Vec<Idle>,
}

/// An HTTP/2 connection and the number of its requests.
#[derive(Clone)]
struct Shared {
    sender: http2::SendRequest<Content>,
    requests: Arc<AtomicUsize>,
}

/// An HTTP/1.1 connection that will take another request once its response is read.
struct Idle {
    sender: http1::SendRequest<Content>,
    since: Instant,
}

/// Counts a request for as long as its body is not dropped.
#[derive(Debug)]
pub(crate) struct Counted(Arc<AtomicUsize>);

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

enum Sender {
    /// With the place that the request has taken.
    Http2(Shared, Counted),
    Http1(http1::SendRequest<Content>),
}

impl Pool {
    pub(super) fn new(connector: &Connector) -> Arc<Self> {
        Arc::new(Self {
            alone: AtomicBool::new(!connector.is_tls()),
            connector: connector.clone(),
            open: Mutex::default(),
            connecting: tokio::sync::Mutex::default(),
        })
    }

    /// Sends a request to a path and gives the answer, whatever its code. If it turns out that
    /// the server had closed the connection before the request was sent, it takes another.
    ///
    /// Dropping the future ends the request.
    pub(super) async fn send(
        &self,
        path_and_query: &str,
        mut request: Request<Content>,
    ) -> Result<Response<Body>> {
        loop {
            let (sender, is_new) = self.sender().await?;
            match self.send_over(sender, path_and_query, request).await? {
                Ok(response) => return Ok(response),
                Err(mut refused) => match refused.take_message() {
                    // Nothing of it has left this process.
                    Some(unsent) if !is_new => request = unsent,
                    _ => return Err(failure(refused.into_error())),
                },
            }
        }
    }

    async fn send_over(
        &self,
        sender: Sender,
        path_and_query: &str,
        mut request: Request<Content>,
    ) -> Result<Result<Response<Body>, TrySendError<Request<Content>>>> {
        match sender {
            Sender::Http2(mut shared, counted) => {
                *request.uri_mut() = self.connector.absolute_uri(path_and_query)?;
                let response = shared.sender.try_send_request(request).await;
                Ok(response.map(|head| head.map(|body| Body::new(body, Some(counted)))))
            }
            Sender::Http1(mut sender) => {
                *request.uri_mut() = self.connector.uri(path_and_query)?;
                let host = || self.connector.host().clone();
                request.headers_mut().entry(HOST).or_insert_with(host);
                let response = sender.try_send_request(request).await;
                if response.is_ok() {
                    self.keep(sender);
                }
                Ok(response.map(|head| head.map(|body| Body::new(body, None))))
            }
        }
    }

    fn keep(&self, sender: http1::SendRequest<Content>) {
        let since = Instant::now();
        self.lock().http1.push(Idle { sender, since });
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        // No code panics while it holds the lock.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A connection that is there and takes another request.
    fn open_sender(&self) -> Option<Sender> {
        let mut open = self.lock();
        open.http2.retain(|shared| !shared.sender.is_closed());
        let free = |shared: &&Shared| shared.requests.load(Ordering::Relaxed) < limits::STREAMS;
        if let Some(shared) = open.http2.iter().find(free) {
            let counted = Counted::new(&shared.requests);
            return Some(Sender::Http2(shared.clone(), counted));
        }
        // One whose response is still being read will be ready, however long that takes.
        let fresh = |idle: &Idle| {
            let unused: Duration = idle.since.elapsed();
            !idle.sender.is_closed()
                && (unused < limits::IDLE_CONNECTION || !idle.sender.is_ready())
        };
        open.http1.retain(fresh);
        // The one used last: the others come to their end.
        let ready = open.http1.iter().rposition(|idle| idle.sender.is_ready())?;
        Some(Sender::Http1(open.http1.remove(ready).sender))
    }

    /// A connection, and whether it was made for this.
    async fn sender(&self) -> Result<(Sender, bool)> {
        if let Some(sender) = self.open_sender() {
            return Ok((sender, false));
        }
        let mut connecting = None;
        if !self.alone.load(Ordering::Relaxed) {
            connecting = Some(self.connecting.lock().await);
            if let Some(sender) = self.open_sender() {
                return Ok((sender, false));
            }
        }
        let io = self.connector.connect_as(Alpn::Http2).await?;
        let alone = !io.is_http2();
        self.alone.store(alone, Ordering::Relaxed);
        if alone {
            drop(connecting);
            let (sender, connection) = http1::handshake(TokioIo::new(io)).await.map_err(failure)?;
            tokio::spawn(connection);
            return Ok((Sender::Http1(sender), true));
        }
        let (sender, connection) = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .keep_alive_interval(limits::HTTP2_PING)
            .keep_alive_timeout(limits::HTTP2_PONG)
            .keep_alive_while_idle(true)
            .initial_stream_window_size(limits::HTTP2_STREAM)
            .initial_connection_window_size(limits::HTTP2_CONNECTION)
            .max_frame_size(limits::HTTP2_FRAME)
            .handshake(TokioIo::new(io))
            .await
            .map_err(failure)?;
        tokio::spawn(connection);
        let shared = Shared {
            sender,
            requests: Arc::default(),
        };
        let counted = Counted::new(&shared.requests);
        self.lock().http2.push(shared.clone());
        Ok((Sender::Http2(shared, counted), true))
    }
}

/// An error of hyper, by who is to blame.
fn failure(error: hyper::Error) -> Error {
    if error.is_parse() {
        return PeerError::Http(error.to_string()).into();
    }
    lost(error)
}

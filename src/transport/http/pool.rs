//! The connections to one API server: in flow requests, out come their responses.
//!
//! Where the server speaks HTTP/2, requests share a connection, as many as the server allows and
//! [`limits::STREAMS`] at most; its death shows within [`limits::HTTP2_PING`] and
//! [`limits::HTTP2_PONG`]. With HTTP/1.1 each response that is being read has a connection of its
//! own, which serves another request later. Each connection has a task that drives it, and closes
//! it once it has been idle for [`limits::IDLE_CONNECTION`].

use std::{
    pin::{Pin, pin},
    sync::{
        Arc, Mutex, Weak,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, Uri, header::HOST};
use http_body_util::Full;
use hyper::{
    body::Incoming,
    client::conn::{TrySendError, http1, http2},
};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::sync::OwnedMutexGuard;

use super::{
    blame,
    body::Body,
    usage::{Heard, InUse, Usage},
};
use crate::{
    REQUESTS, Result,
    auth::Connector,
    error::panic::lock,
    limits,
    net::{self, Alpn, is_unprocessed},
};

type Content = Full<Bytes>;

/// Connections that present the same certificate.
pub(super) struct Pool {
    connector: Connector,
    open: Mutex<Vec<Connection>>,
    /// Held while a connection is made, until it is known how many requests may share it.
    connecting: Arc<tokio::sync::Mutex<()>>,
    /// Whether the last connection could not be shared: the next are made at the same time.
    alone: AtomicBool,
}

struct Connection {
    sender: Sender,
    usage: Arc<Usage>,
}

enum Sender {
    Http1(http1::SendRequest<Content>),
    /// With the number of streams that the server allows.
    Http2(http2::SendRequest<Content>, Arc<AtomicUsize>),
}

/// The request's target in both forms.
struct Target {
    origin: Uri,
    absolute: Uri,
    host: HeaderValue,
}

type Sent = Pin<
    Box<dyn Future<Output = Result<Response<Incoming>, TrySendError<Request<Content>>>> + Send>,
>;

/// Stands for a number of streams that the server has not told yet.
const UNTOLD: usize = usize::MAX - 1;

impl Connection {
    /// Begins a request, if the connection takes one now.
    fn begin(&mut self, target: &Target, request: &Request<Content>) -> Option<(Sent, InUse)> {
        let most = match &self.sender {
            Sender::Http1(sender) if sender.is_ready() => 1,
            Sender::Http1(_) => 0,
            Sender::Http2(_, streams) => streams.load(Ordering::Relaxed).min(limits::STREAMS),
        };
        let in_use = self.usage.begin(most)?;
        Some((self.sender.send(target, request.clone()), in_use))
    }

    fn is_over(&self) -> bool {
        self.usage.is_retired()
            || match &self.sender {
                Sender::Http1(sender) => sender.is_closed(),
                Sender::Http2(sender, _) => sender.is_closed(),
            }
    }
}

impl Sender {
    fn send(&mut self, target: &Target, mut request: Request<Content>) -> Sent {
        match self {
            Self::Http1(sender) => {
                *request.uri_mut() = target.origin.clone();
                let headers = request.headers_mut();
                headers.entry(HOST).or_insert_with(|| target.host.clone());
                Box::pin(sender.try_send_request(request))
            }
            Self::Http2(sender, _) => {
                *request.uri_mut() = target.absolute.clone();
                Box::pin(sender.try_send_request(request))
            }
        }
    }
}

impl Pool {
    pub(super) fn new(connector: &Connector) -> Arc<Self> {
        Arc::new(Self {
            alone: AtomicBool::new(!connector.is_tls()),
            connector: connector.clone(),
            open: Mutex::default(),
            connecting: Arc::default(),
        })
    }

    /// Sends a request to a path and gives the answer, whatever its code. It takes another
    /// connection if the server had closed this one before the request was sent, or says that it
    /// has not begun with it. Where connections carry one request at a time, `fresh` asks for a new
    /// one.
    ///
    /// Dropping the future ends the request.
    pub(super) async fn send(
        self: &Arc<Self>,
        path_and_query: &str,
        request: Request<Content>,
        fresh: bool,
    ) -> Result<Response<Body>> {
        let target = Target {
            origin: self.connector.uri(path_and_query)?,
            absolute: self.connector.absolute_uri(path_and_query)?,
            host: self.connector.host().clone(),
        };
        let mut unprocessed = 0;
        loop {
            let fresh = fresh && self.alone.load(Ordering::Relaxed);
            let begun = (!fresh).then(|| self.begin(&target, &request)).flatten();
            let (sent, in_use, is_new) = match begun {
                Some((sent, in_use)) => (sent, in_use, false),
                None => self.connect(&target, &request).await?,
            };
            let mut failed = match sent.await {
                Ok(response) => return Ok(Body::of(response, Some(in_use))),
                Err(failed) => failed,
            };
            let unsent = failed.take_message().is_some() && !is_new;
            let error = failed.into_error();
            if !unsent {
                if !is_unprocessed(&error) || unprocessed >= limits::UNPROCESSED_RETRIES {
                    return Err(blame(error));
                }
                // At once, and then as Go has it (`golang.org/x/net/http2/transport.go`).
                if unprocessed > 0 {
                    tokio::time::sleep(limits::UNPROCESSED_RETRY * 2_u32.pow(unprocessed - 1))
                        .await;
                }
                unprocessed += 1;
            }
            let (method, url) = (request.method(), &target.absolute);
            tracing::debug!(
                target: REQUESTS, %method, %url, %error, "the server has not begun with it; sending again"
            );
        }
    }

    /// Drops the handles of connections that are over, which ends those that are idle.
    fn sweep(&self) {
        lock(&self.open).retain(|connection| !connection.is_over());
    }

    fn begin(&self, target: &Target, request: &Request<Content>) -> Option<(Sent, InUse)> {
        self.sweep();
        // The one made last: the others come to their end.
        let mut open = lock(&self.open);
        let mut latest = open.iter_mut().rev();
        latest.find_map(|connection| connection.begin(target, request))
    }

    /// Begins a request over a connection that is made for it, unless another one is free
    /// meanwhile. The last part says whether it was made.
    async fn connect(
        self: &Arc<Self>,
        target: &Target,
        request: &Request<Content>,
    ) -> Result<(Sent, InUse, bool)> {
        let mut connecting = None;
        if !self.alone.load(Ordering::Relaxed) {
            connecting = Some(Arc::clone(&self.connecting).lock_owned().await);
            if let Some((sent, in_use)) = self.begin(target, request) {
                return Ok((sent, in_use, false));
            }
        }
        let io = self.connector.connect_as(Alpn::Http2).await?;
        let is_http2 = io.is_http2();
        self.alone.store(!is_http2, Ordering::Relaxed);
        let (usage, in_use) = Usage::begun();
        let mut sender = match is_http2 {
            false => self.http1(io, &usage).await?,
            true => self.http2(io, &usage, connecting).await?,
        };
        let sent = sender.send(target, request.clone());
        lock(&self.open).push(Connection { sender, usage });
        Ok((sent, in_use, true))
    }

    async fn http1(self: &Arc<Self>, io: net::Connection, usage: &Arc<Usage>) -> Result<Sender> {
        let (sender, connection) = http1::handshake(TokioIo::new(Heard(io, Arc::clone(usage))))
            .await
            .map_err(blame)?;
        tokio::spawn(drive(connection, Arc::clone(usage), Arc::downgrade(self)));
        Ok(Sender::Http1(sender))
    }

    async fn http2(
        self: &Arc<Self>,
        io: net::Connection,
        usage: &Arc<Usage>,
        connecting: Option<OwnedMutexGuard<()>>,
    ) -> Result<Sender> {
        let (sender, mut connection) = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .keep_alive_interval(limits::HTTP2_PING)
            .keep_alive_timeout(limits::HTTP2_PONG)
            .keep_alive_while_idle(true)
            .initial_stream_window_size(limits::HTTP2_STREAM)
            .initial_connection_window_size(limits::HTTP2_CONNECTION)
            .initial_max_send_streams(UNTOLD)
            .max_frame_size(limits::HTTP2_FRAME)
            .handshake(TokioIo::new(Heard(io, Arc::clone(usage))))
            .await
            .map_err(blame)?;
        let streams = Arc::new(AtomicUsize::new(UNTOLD));
        let allowed = Arc::clone(&streams);
        let mut connecting = connecting;
        // hyper does not say when the server's SETTINGS have come: it is asked in ever longer
        // intervals, and whenever it has something to do.
        let mut pause = Duration::from_millis(1);
        let mut look = Box::pin(tokio::time::sleep(pause));
        let driven = std::future::poll_fn(move |cx| {
            let done = Pin::new(&mut connection).poll(cx);
            if done.is_ready() {
                return done;
            }
            while connecting.is_some() && look.as_mut().poll(cx).is_ready() {
                pause *= 2;
                look = Box::pin(tokio::time::sleep(pause));
                if pause > limits::HTTP2_SETTINGS {
                    connecting = None;
                }
            }
            let told = connection.current_max_send_streams();
            allowed.store(told, Ordering::Relaxed);
            if told != UNTOLD {
                connecting = None;
            }
            done
        });
        tokio::spawn(drive(driven, Arc::clone(usage), Arc::downgrade(self)));
        Ok(Sender::Http2(sender, streams))
    }
}

/// Drives a connection to its end, which comes in order once nobody has used it for long.
async fn drive(
    connection: impl Future<Output = hyper::Result<()>>,
    usage: Arc<Usage>,
    pool: Weak<Pool>,
) {
    let mut connection = pin!(connection);
    let ended = tokio::select! {
        _ = &mut connection => true,
        () = usage.retired() => false,
    };
    if let Some(pool) = pool.upgrade() {
        pool.sweep();
    }
    if !ended {
        let _ = tokio::time::timeout(limits::CLOSE_GRACE, connection).await;
    }
}

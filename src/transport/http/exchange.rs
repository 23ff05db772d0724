//! Drives a session that makes one request after another: watches and logs.
//!
//! In flow the session's requests, which go over HTTP or open a WebSocket; its responses are read
//! only while somebody asks for updates, in the task that asks: a slow reader is backpressure to
//! the server.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use http::{
    HeaderValue, Response, StatusCode,
    header::{ACCEPT, CONTENT_TYPE, ORIGIN},
};
use hyper::body::{Body as _, Frame};
use tokio::{
    runtime,
    time::{Sleep, sleep_until},
};
use tracing::{Instrument as _, Span};

use super::{
    About, Http, Outgoing, body::Body, header_value, refusal, retry_after, text, unexpected,
    upgrade,
};
use crate::{
    Error, Result, Role,
    error::PeerError,
    session::{Exchange, Head, Message},
    transport::{
        self,
        ws::{messages::Messages, websocket::Socket},
    },
};

pub(crate) struct Get {
    pub(crate) path_and_query: String,
    pub(crate) accept: String,
    pub(crate) operation: String,
    pub(crate) about: About,
    /// Open a WebSocket, and offer these subprotocols.
    pub(crate) websocket: Option<&'static [&'static str]>,
    /// Whether the answer may be worth compressing.
    pub(crate) compress: bool,
}

pub(crate) enum Answer {
    Http(Response<Body>),
    WebSocket(Messages),
}

type Sending = Pin<Box<dyn Future<Output = Result<Answer>> + Send>>;

enum At {
    Idle,
    Sending(Sending),
    Reading(Body),
    Listening(Messages),
}

/// A session and the response that it reads.
pub(crate) struct Driver<S: Exchange> {
    session: S,
    http: Http,
    to_get: Box<dyn Fn(S::Request) -> Result<Get> + Send + Sync>,
    at: At,
    /// And the runtime whose it is: polled in another, it panics once its own has ended.
    timer: Option<(runtime::Id, Pin<Box<Sleep>>)>,
    /// Since when the reader has been away: an update was handed out, and no bytes asked for since.
    away: Option<Instant>,
    span: Span,
    /// The code that the span has.
    recorded: u16,
    stats: StreamStats,
}

/// What a stream of requests, a log or a watch, has cost so far.
///
/// ```
/// # kubewire::example(|pod| pod.container("main", ["sh", "-c", "echo tick; sleep 600"]), async |client| {
/// let mut lines = client.pod("default", "web-0").logs().follow().stream();
/// lines.next().await.expect("there is a line")?;
/// assert_eq!(lines.stats().retries, 0);
/// # Ok(())
/// # });
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct StreamStats {
    /// Bytes that arrived in answers, as they came over the network: compressed, if they were.
    pub received: u64,
    /// Pieces in which they arrived: messages of a WebSocket, or what HTTP gave at once.
    pub chunks: u64,
    /// Requests that were made, the first included.
    pub requests: u64,
    /// How often a request had to be made again because one failed.
    pub retries: u64,
    /// For how long nothing was taken from the server, as what had arrived was not read.
    pub held_back: Duration,
}

impl StreamStats {
    fn add(&mut self, chunk: &[u8]) {
        self.received += chunk.len() as u64;
        self.chunks += 1;
    }
}

impl<S: Exchange> Driver<S> {
    pub(crate) fn new(
        session: S,
        http: Http,
        span: Span,
        to_get: impl Fn(S::Request) -> Result<Get> + Send + Sync + 'static,
    ) -> Self {
        Self {
            session,
            http,
            to_get: Box::new(to_get),
            at: At::Idle,
            timer: None,
            away: None,
            span,
            recorded: 0,
            stats: StreamStats::default(),
        }
    }

    pub(crate) fn span(&self) -> &Span {
        &self.span
    }

    pub(crate) fn stats(&self) -> StreamStats {
        let mut stats = self.stats;
        let away = self.away;
        stats.held_back += away.map_or(Duration::ZERO, |since| transport::now() - since);
        stats
    }

    /// Takes note that a request has failed and another follows.
    pub(crate) fn count_retry(&mut self) {
        self.stats.retries += 1;
    }

    pub(crate) fn session(&self) -> &S {
        &self.session
    }

    /// The next update; an error where there is no runtime, in which alone it can be waited for.
    ///
    /// Cancel safe: what has arrived stays with the session.
    pub(crate) fn poll_update(&mut self, cx: &mut Context<'_>) -> Poll<Result<S::Update>> {
        loop {
            if let Some(update) = self.session.poll_update() {
                self.away.get_or_insert_with(transport::now);
                return Poll::Ready(Ok(update));
            }
            let runtime = transport::runtime()?.id();
            if let Some(since) = self.away.take() {
                // Silence counts from when the reader has come back for more.
                let now = transport::now();
                self.session.handle_hold(now, true);
                self.session.handle_hold(now, false);
                self.stats.held_back += now - since;
            }
            ready!(self.poll_progress(cx, runtime));
        }
    }

    /// Does one thing that can be done now; pending if there is none.
    fn poll_progress(&mut self, cx: &mut Context<'_>, runtime: runtime::Id) -> Poll<()> {
        if !self.session.wants_response() {
            self.at = At::Idle;
        }
        let now = transport::now();
        if let Some(request) = self.session.poll_request(now) {
            match (self.to_get)(request) {
                Ok(get) => {
                    self.stats.requests += 1;
                    let sending = get.send(self.http.clone());
                    self.at = At::Sending(Box::pin(sending.instrument(self.span.clone())));
                }
                Err(error) => self.session.handle_end(now, Some(error)),
            }
            return Poll::Ready(());
        }
        match &mut self.at {
            At::Idle => {}
            At::Sending(sending) => {
                if let Poll::Ready(answer) = sending.as_mut().poll(cx) {
                    self.answered(answer);
                    return Poll::Ready(());
                }
            }
            At::Listening(messages) => {
                if let Poll::Ready(next) = messages.poll_next(cx) {
                    match next {
                        Some(Ok(message)) => {
                            if let Message::Text(bytes) | Message::Binary(bytes) = &message {
                                self.stats.add(bytes);
                            }
                            self.session.handle_message(transport::now(), message);
                        }
                        Some(Err(error)) => self.end(Some(error)),
                        None => self.end(None),
                    }
                    return Poll::Ready(());
                }
            }
            At::Reading(body) => {
                let before = body.received();
                if let Poll::Ready(frame) = Pin::new(&mut *body).poll_frame(cx) {
                    self.stats.received += body.received() - before;
                    match frame.map(|frame| frame.map(Frame::into_data)) {
                        Some(Ok(Ok(data))) => {
                            self.stats.chunks += 1;
                            self.session.handle_body(transport::now(), data);
                        }
                        // Trailers.
                        Some(Ok(Err(_))) => {}
                        Some(Err(error)) => self.end(Some(error)),
                        None => self.end(None),
                    }
                    return Poll::Ready(());
                }
            }
        }
        self.poll_timer(cx, runtime)
    }

    fn end(&mut self, lost: Option<Error>) {
        self.at = At::Idle;
        self.session.handle_end(transport::now(), lost);
    }

    /// Records the code of an answer, if it is another: who prints spans keeps all values of a field.
    fn record(&mut self, status: u16) {
        if std::mem::replace(&mut self.recorded, status) != status {
            self.span.record("http.response.status_code", status);
        }
    }

    fn answered(&mut self, answer: Result<Answer>) {
        let now = transport::now();
        self.at = At::Idle;
        match answer {
            Ok(Answer::WebSocket(messages)) => {
                let status = StatusCode::SWITCHING_PROTOCOLS.as_u16();
                let head = Head {
                    status,
                    ..Head::default()
                };
                self.record(status);
                self.session.handle_head(now, head);
                self.at = At::Listening(messages);
            }
            Ok(Answer::Http(response)) => {
                let (parts, body) = response.into_parts();
                let head = Head {
                    status: parts.status.as_u16(),
                    content_type: text(&parts.headers, CONTENT_TYPE),
                    retry_after: retry_after(&parts.headers).map(Duration::from_secs),
                    hint: parts.extensions.get(),
                };
                self.record(head.status);
                self.session.handle_head(now, head);
                self.at = At::Reading(body);
            }
            // A redirect, or a WebSocket that was refused: to the session a refusal like any other.
            Err(error) => match error.status().filter(|status| status.code >= 300) {
                Some(status) => {
                    self.record(status.code);
                    let hint = match &error {
                        Error::Api(refusal) | Error::Conflict(refusal) => refusal.hint.as_ref(),
                        _ => None,
                    };
                    let head = Head {
                        status: status.code,
                        content_type: Some("application/json"),
                        hint,
                        ..Head::default()
                    };
                    self.session.handle_head(now, head);
                    self.session.handle_body(now, status.to_json().into());
                    self.session.handle_end(now, None);
                }
                None => self.session.handle_end(now, Some(error)),
            },
        }
    }

    fn poll_timer(&mut self, cx: &mut Context<'_>, runtime: runtime::Id) -> Poll<()> {
        let Some(deadline) = self.session.poll_timeout() else {
            return Poll::Pending;
        };
        // A timer that fires early does no harm and spares a new one for each chunk.
        let timer = match &mut self.timer {
            Some((id, timer)) if *id == runtime && timer.deadline().into_std() <= deadline => timer,
            timer => {
                let new = Box::pin(sleep_until(deadline.into()));
                &mut timer.insert((runtime, new)).1
            }
        };
        ready!(timer.as_mut().poll(cx));
        self.timer = None;
        self.session.handle_timeout(transport::now());
        Poll::Ready(())
    }
}

impl<S: Exchange> Drop for Driver<S> {
    fn drop(&mut self) {
        let StreamStats {
            received,
            chunks,
            requests,
            retries,
            held_back,
        } = self.stats();
        tracing::debug!(
            parent: &self.span,
            received,
            chunks,
            requests,
            retries,
            ?held_back,
            "the stream is over"
        );
    }
}

impl Get {
    /// Makes the request. What the server refuses over HTTP is an answer; a WebSocket that it does
    /// not open is an error, and so is what others answer in its place: a redirect, a page.
    pub(crate) async fn send(self, http: Http) -> Result<Answer> {
        let accept = header_value(&self.accept)?;
        let mut outgoing = match self.websocket {
            Some(_) => Outgoing::upgrade(self.operation.as_str(), self.path_and_query),
            None => Outgoing::get(self.operation.as_str(), self.path_and_query),
        };
        outgoing.about = self.about;
        // When to ask again, the session knows.
        outgoing.again = false;
        outgoing.headers.insert(ACCEPT, accept);
        if let Some(offered) = self.websocket {
            // Any URL will do, none will not (`golang.org/x/net/websocket/server.go`).
            let origin = HeaderValue::from_static("http://localhost");
            outgoing.headers.insert(ORIGIN, origin);
            let offer = offered.join(", ");
            let asked = Some(offer.as_str()).filter(|offer| !offer.is_empty());
            let opened = upgrade::open(&http, outgoing, asked).await?;
            let answer = opened.protocol.unwrap_or_default();
            if !offered.contains(&&*answer) && !answer.is_empty() {
                let offered = offer;
                return Err(PeerError::Subprotocol { offered, answer }.into());
            }
            let socket = Socket::new(opened.io, Role::Client, opened.read);
            return Ok(Answer::WebSocket(Messages::spawn(
                Role::Client,
                Box::new(socket),
            )));
        }
        // And how long the answer may take.
        outgoing.deadline = None;
        outgoing.compress = self.compress;
        let response = http.send(outgoing).await?;
        if response.status().is_redirection() {
            return Err(refusal(&self.operation, response).await);
        }
        let (head, body) = response.into_parts();
        match unexpected(&self.operation, &head) {
            // A page with another code is a refusal, which the session reads.
            Some(error) if head.status.is_success() => Err(error),
            _ => Ok(Answer::Http(Response::from_parts(head, body))),
        }
    }
}

debug_fields!([S: Exchange + std::fmt::Debug] Driver<S> { session });

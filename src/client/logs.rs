//! Logs: in flows which, out comes a stream of their lines.

use std::{
    pin::Pin,
    string::FromUtf8Error,
    task::{Context, Poll, ready},
};

use super::{Pod, Since, span};
use crate::{
    Error, Result,
    error::CallerError,
    limits,
    resource::with_query,
    session::logs::{
        LogConfig, LogEnd, LogLine, LogRequest, LogStream, LogUpdate, Logs as Session, SUBPROTOCOLS,
    },
    transport::http::exchange::{Driver, Get, StreamStats},
    wire::line::LineEnd,
};

/// A log to be read: which, and how much of it.
///
/// ```no_run
/// # async fn run(pod: kubewire::Pod) -> kubewire::Result<()> {
/// let mut lines = pod.logs().container("main").follow().stream();
/// while let Some(line) = lines.next().await {
///     println!("{}", line?);
/// }
/// println!("ended: {:?}", lines.end());
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
#[must_use = "a log is not read until its stream is started"]
pub struct Logs {
    pod: Pod,
    config: LogConfig,
    websocket: bool,
}

impl Logs {
    pub(super) fn new(pod: Pod, config: LogConfig) -> Self {
        let config = LogConfig {
            what: pod.operation("").trim().to_owned(),
            ..config
        };
        Self {
            pod,
            config,
            websocket: false,
        }
    }

    setters! {
        /// The container. Needed unless the pod has one only, or names its default one.
        fn container(name: impl Into<String>) config.container = Some(name.into());

        /// Go on until the container ends. The stream lasts through cut connections, the server's
        /// limit of four hours and restarts of the kubelet, and gives each line once. Where the
        /// kubelet has rotated lines away meanwhile, [`LogUpdate::Gap`] tells it.
        fn follow() config.follow = true;

        /// Follow, and when the container is started again, go on with its next instance.
        fn across_restarts() config.follow = true, config.across_restarts = true;

        /// Read the log of the instance before the current one.
        fn previous() config.previous = true;

        /// Only so many last lines.
        fn tail(lines: u64) config.tail_lines = Some(lines);

        /// At most so many bytes, newlines included; at least 1.
        fn limit_bytes(bytes: u64) config.limit_bytes = Some(bytes);

        /// Only one of the container's output streams, on servers with the gate
        /// `PodLogsQuerySplitStreams`; others refuse.
        fn only(stream: LogStream) config.stream = stream;

        /// Let the API server take the kubelet's certificate for granted.
        fn insecure_skip_tls_verify_backend() config.insecure_skip_tls_verify_backend = true;

        /// Do not ask for stamps: lines have none, the text of the kubelet cannot be told from the
        /// container's, and a lost connection is the end.
        fn plain() config.resume = false;

        /// Bytes of the longest line that comes in one piece; 64 if it is less, for a stamp and something
        /// more.
        fn max_line(bytes: usize) config.max_line = bytes;

        /// Read over a WebSocket of its own, with `binary.k8s.io`, instead of the body of an HTTP
        /// response: for proxies that hold HTTP bodies back until they end, and for places that let
        /// only WebSockets last. All else is the same, resumption included, and the connection is
        /// pinged. Users need the right to `get` `pods/log`, as without.
        fn over_websocket() websocket = true;
    }

    /// Only lines from then on: an instant by the node's clock, or a time ago, in whole seconds.
    ///
    /// ```
    /// # kubewire::example(|pod| pod.container("main", ["echo", "hello"]), async |client| {
    /// use std::time::Duration;
    ///
    /// let logs = client.pod("default", "web-0").logs().follow();
    /// let mut lines = logs.since(Duration::from_secs(600)).stream();
    /// while let Some(line) = lines.next().await {
    ///     assert_eq!(line?.bytes, "hello");
    ///     # break;
    /// }
    /// # Ok(())
    /// # });
    /// ```
    pub fn since(mut self, since: impl Into<Since>) -> Self {
        since.into().set(&mut self.config);
        self
    }

    /// Begins to read when the stream is polled.
    ///
    /// What the stream gives is [`Error::Api`](crate::Error::Api) if the server refuses: no such
    /// pod, no right, several containers and none named; [`Error::Caller`](crate::Error::Caller) if
    /// it cannot be asked: a name that is none, no tokio runtime;
    /// [`Error::Network`](crate::Error::Network) if a log that is not followed cannot be had; one
    /// that is followed is tried again.
    pub fn stream(self) -> LogLines {
        let session = Session::new(self.config, crate::transport::now(), rand::random());
        let pod = self.pod.clone();
        let over_websocket = self.websocket;
        let to_get = move |request: LogRequest| {
            let (subresource, query, accept, websocket) = match request {
                LogRequest::Log(query) => {
                    let websocket = over_websocket.then_some(&SUBPROTOCOLS[..]);
                    ("log", query, "text/plain, application/json, */*", websocket)
                }
                LogRequest::Pod => ("", Vec::new(), "application/json", None),
            };
            Ok(Get {
                websocket,
                compress: false,
                path_and_query: with_query(pod.path(subresource, &[])?, &query),
                operation: pod.operation("log of"),
                about: pod.about("get", subresource),
                accept: accept.into(),
            })
        };
        let http = self.pod.client().http().clone();
        let span = span::logs(&self.pod);
        LogLines {
            driver: Driver::new(session, http, span, to_get),
            pod: self.pod,
            explaining: None,
            retrying: false,
            end: None,
        }
    }

    /// The whole log as text, each line with its newline; bytes that are no UTF-8 become U+FFFD.
    ///
    /// With [`follow`](Self::follow) it ends when the container does. What the kubelet wrote in
    /// between, and where lines may be missing, is a trace event, as with
    /// [`next`](LogLines::next). Dropping the future gives up what was read.
    ///
    /// # Errors
    ///
    /// Those of the [`stream`](Self::stream), and [`CallerError::TooMuchOutput`] past
    /// [`limits::OUTPUT`] bytes; [`limit_bytes`](Self::limit_bytes) and [`tail`](Self::tail) ask for
    /// less.
    ///
    /// ```
    /// # kubewire::example(|pod| {
    /// #     pod.restart_policy(kubewire::testing::RestartPolicy::Never)
    /// #         .container("main", ["sh", "-c", "echo one; echo two"])
    /// # }, async |client| {
    /// let log = client.pod("default", "web-0").logs().follow().text().await?;
    /// assert_eq!(log, "one\ntwo\n");
    /// # Ok(())
    /// # });
    /// ```
    pub async fn text(self) -> Result<String> {
        let limit = limits::OUTPUT;
        let mut lines = self.stream();
        let mut text = Vec::new();
        while let Some(line) = lines.next().await {
            let LogLine { bytes, end, .. } = line?;
            if text.len() + bytes.len() >= limit {
                return Err(CallerError::TooMuchOutput { limit }.into());
            }
            text.extend_from_slice(&bytes);
            if end == LineEnd::Newline {
                text.push(b'\n');
            }
        }
        let lossy = |e: FromUtf8Error| String::from_utf8_lossy(e.as_bytes()).into_owned();
        Ok(String::from_utf8(text).unwrap_or_else(lossy))
    }
}

type Explaining = Pin<Box<dyn Future<Output = Error> + Send>>;

/// The lines of a log.
///
/// As a stream it gives the lines and, where the log cannot be read on, one error. What else there
/// is to know, [`next_update`](Self::next_update) tells.
///
/// ```
/// # kubewire::example(|pod| {
/// #     pod.restart_policy(kubewire::testing::RestartPolicy::Never)
/// #         .container("main", ["sh", "-c", "echo tick; exit 4"])
/// # }, async |client| {
/// use kubewire::logs::LogEnd;
///
/// let mut lines = client.pod("default", "web-0").logs().follow().stream();
/// while let Some(line) = lines.next().await {
///     assert_eq!(line?.bytes, "tick");
/// }
/// // Why there are no more.
/// assert!(matches!(lines.end(), Some(LogEnd::Exited(exit)) if exit.code == Some(4)));
/// # Ok(())
/// # });
/// ```
pub struct LogLines {
    pod: Pod,
    driver: Driver<Session>,
    /// Why the log ended, while the pod is asked which containers it has.
    explaining: Option<Explaining>,
    /// It was said that the log is asked for again, and no line has come since.
    retrying: bool,
    end: Option<LogEnd>,
}

impl LogLines {
    /// The next line; `None` when there are no more, and [`end`](Self::end) says why.
    ///
    /// Cancel safe: what has arrived is kept.
    pub async fn next(&mut self) -> Option<Result<LogLine>> {
        std::future::poll_fn(|cx| self.poll_line(cx)).await
    }

    /// The next line, restart, gap, text of the kubelet, failed attempt or end; `None` after the
    /// end.
    ///
    /// Cancel safe: what has arrived is kept.
    pub async fn next_update(&mut self) -> Option<LogUpdate> {
        std::future::poll_fn(|cx| self.poll_update(cx)).await
    }

    /// Why the log ended, once it has.
    pub fn end(&self) -> Option<&LogEnd> {
        self.end.as_ref()
    }

    /// What the log has cost so far.
    pub fn stats(&self) -> StreamStats {
        self.driver.stats()
    }

    /// The container that is read, once that is known.
    pub fn container(&self) -> Option<&str> {
        self.driver.session().container()
    }

    pub(super) fn poll_update(&mut self, cx: &mut Context<'_>) -> Poll<Option<LogUpdate>> {
        if self.end.is_some() {
            return Poll::Ready(None);
        }
        let update = match &mut self.explaining {
            None => ready!(self.driver.poll_update(cx))
                .unwrap_or_else(|error| LogUpdate::Ended(LogEnd::Failed(error))),
            Some(error) => LogUpdate::Ended(LogEnd::Failed(ready!(error.as_mut().poll(cx)))),
        };
        match &update {
            LogUpdate::Ended(LogEnd::Failed(error)) if self.explaining.is_none() => {
                let (pod, error) = (self.pod.clone(), error.clone());
                self.explaining = Some(Box::pin(async move { pod.explain(error, None).await }));
                return self.poll_update(cx);
            }
            LogUpdate::Ended(end) => self.end = Some(end.clone()),
            LogUpdate::Line(_) => self.retrying = false,
            LogUpdate::Retrying { error, retry_in } => {
                self.driver.count_retry();
                if !std::mem::replace(&mut self.retrying, true) {
                    tracing::warn!(parent: self.driver.span(), %error, ?retry_in, "a log is asked for again until it comes");
                }
            }
            _ => {}
        }
        Poll::Ready(Some(update))
    }

    fn poll_line(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<LogLine>>> {
        loop {
            match ready!(self.poll_update(cx)) {
                None => return Poll::Ready(None),
                Some(LogUpdate::Line(line)) => return Poll::Ready(Some(Ok(line))),
                Some(LogUpdate::Ended(LogEnd::Failed(error))) => {
                    return Poll::Ready(Some(Err(error)));
                }
                Some(LogUpdate::Notice(text)) => {
                    tracing::warn!(parent: self.driver.span(), %text, "the kubelet wrote into a log");
                }
                Some(LogUpdate::Gap { after }) => {
                    tracing::warn!(parent: self.driver.span(), %after, "lines of a log may be missing");
                }
                Some(_) => {}
            }
        }
    }
}

debug_fields!(LogLines { driver, end });

stream!(LogLines, Result<LogLine>, poll_line);

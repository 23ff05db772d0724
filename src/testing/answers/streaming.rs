//! Answers that take their time: the choice of a stream of a pod, bodies that are written as time goes
//! by, and the faults that befall them.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{
    HeaderValue, Method, Request, Response, StatusCode,
    header::{ACCEPT, CONNECTION, HeaderName, SEC_WEBSOCKET_PROTOCOL, UPGRADE},
};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Frame;
use tokio::sync::mpsc;

use super::messages::Opening;
use crate::{
    server::{Refusal, port_forward::named as named_ports},
    testing::{
        objects,
        pods::{self, attach, exec, port_forward},
        requests::target::{Parameters, Target, not_implemented},
        router::{self, Body, Cluster},
        tasks::Tasks,
    },
    wire::status::Status,
};

/// What goes wrong with the answer to one list, watch or log request.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let server = kubewire::testing::ApiServer::builder()
/// #     .pod("default", "web-0", |pod| pod.container("main", ["sh", "-c", "echo ready; sleep 600"]))
/// #     .start()
/// #     .await?;
/// # let client = kubewire::Client::new(&server.config())?;
/// use kubewire::{logs::LogUpdate, testing::BodyFault, wire::status::Status};
///
/// // The first request for the log is refused, the second is answered.
/// let busy = Status::failure(503, "ServiceUnavailable", "not now");
/// server.inject_into_bodies([Some(BodyFault::Refuse(Box::new(busy)))]);
/// let mut lines = client.pod("default", "web-0").logs().follow().stream();
/// let mut retries = 0;
/// while let Some(update) = lines.next_update().await {
///     match update {
///         LogUpdate::Retrying { .. } => retries += 1,
///         LogUpdate::Line(line) => {
///             assert_eq!(line.bytes, "ready");
///             break;
///         }
///         _ => {}
///     }
/// }
/// assert!(retries > 0);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum BodyFault {
    /// The connection breaks after so many bytes of the body.
    Cut {
        /// Bytes that are still sent.
        after: usize,
    },
    /// The body ends in order after so many bytes, as if there were no more.
    Close {
        /// Bytes that are still sent.
        after: usize,
    },
    /// After so many bytes nothing more comes, and nothing ends.
    Stall {
        /// Bytes that are still sent.
        after: usize,
    },
    /// The request is refused.
    Refuse(Box<Status>),
    /// The answer comes so much later.
    Delay(Duration),
}

/// The writing end of a body.
pub(crate) struct Writer {
    to: mpsc::Sender<Result<Bytes, io::Error>>,
    fault: Option<BodyFault>,
    sent: usize,
    /// What is written arrives whole or not at all.
    whole: bool,
}

/// The client is gone, or a fault has ended the body.
pub(crate) struct Over;

impl Writer {
    fn new(fault: Option<BodyFault>, whole: bool) -> (Self, Parts) {
        let (to, parts) = mpsc::channel(16);
        let sent = 0;
        let writer = Self {
            to,
            fault,
            sent,
            whole,
        };
        (writer, parts)
    }

    pub(crate) async fn write(&mut self, mut bytes: Bytes) -> Result<(), Over> {
        let (after, fault) = match self.fault {
            Some(
                ref fault @ (BodyFault::Cut { after }
                | BodyFault::Close { after }
                | BodyFault::Stall { after }),
            ) => (after, Some(fault.clone())),
            _ => (usize::MAX, None),
        };
        let left = after - self.sent;
        let reached = bytes.len() >= left && fault.is_some();
        match self.whole && bytes.len() > left {
            true => bytes.clear(),
            false => bytes.truncate(left),
        }
        self.sent += bytes.len();
        if !bytes.is_empty() {
            self.to.send(Ok(bytes)).await.map_err(|_| Over)?;
        }
        match fault {
            _ if !reached => Ok(()),
            Some(BodyFault::Cut { .. }) => {
                let reset = io::ErrorKind::ConnectionReset.into();
                let _ = self.to.send(Err(reset)).await;
                Err(Over)
            }
            Some(BodyFault::Stall { .. }) => {
                self.to.closed().await;
                Err(Over)
            }
            _ => Err(Over),
        }
    }

    /// Waits until the client has left.
    pub(crate) async fn closed(&self) {
        self.to.closed().await;
    }
}

/// A body and the end that it is written to.
pub(crate) fn body(fault: Option<BodyFault>) -> (Writer, Body) {
    let (writer, parts) = Writer::new(fault, false);
    (writer, Streaming(parts).boxed_unsync())
}

/// Likewise, or the messages of a WebSocket.
pub(crate) fn open(
    socket: Option<(Opening, Response<Full<Bytes>>)>,
    fault: Option<BodyFault>,
    tasks: &Tasks,
    of_body: impl FnOnce(Body) -> Response<Body>,
) -> (Writer, Response<Body>) {
    let Some((opening, response)) = socket else {
        let (writer, body) = body(fault);
        return (writer, of_body(body));
    };
    let (writer, parts) = Writer::new(fault, opening.is_whole());
    tasks.spawn(opening.send(parts));
    (writer, response.map(router::body))
}

type Parts = mpsc::Receiver<Result<Bytes, io::Error>>;

struct Streaming(Parts);

impl hyper::body::Body for Streaming {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        self.0
            .poll_recv(cx)
            .map(|next| Some(next?.map(Frame::data)))
    }
}
/// Answers a request for the streams of a pod.
pub(crate) fn answer<B>(
    cluster: &Arc<Cluster>,
    target: &Target,
    parameters: &Parameters,
    request: &mut Request<B>,
) -> Result<Response<Full<Bytes>>, Refusal> {
    if target.is("portforward") {
        // The query is read before anything is looked for.
        named_ports(request)?;
    }
    let pod = cluster.pod(target)?;
    let name = parameters.some("container");
    if !target.is("portforward") {
        // Whether it runs is the kubelet's affair.
        let _ = pod.container(name)?;
    }
    check_upgrade(request)?;
    let of = format!("{}_{}", pod.name, pod.namespace);
    match target.subresource.as_deref() {
        Some("exec") => {
            let gone = |name: &str| format!("container not found ({name:?})");
            let container = pod.running(name, gone)?;
            check_socket(request, "bad method")?;
            named(exec::serve(cluster, container, request))
        }
        Some("attach") => {
            let gone = |name: &str| format!("container {name} not found in pod {of}");
            let container = pod.running(name, gone)?;
            let has_stderr = parameters.is("stderr") && !parameters.is("tty");
            if has_stderr && container.has_terminal() {
                let front = "rpc error: code = InvalidArgument desc =";
                let why = format!("{front} tty and stderr cannot both be true");
                return Err(Refusal::text(StatusCode::INTERNAL_SERVER_ERROR, why));
            }
            check_socket(request, "bad method")?;
            named(attach::serve(cluster, container, request))
        }
        _ => {
            if pods::is_over(&objects::find(cluster, target)?.json) {
                let why = format!("pod not found ({of:?})");
                return Err(Refusal::text(StatusCode::INTERNAL_SERVER_ERROR, why));
            }
            check_socket(request, "Method Not Allowed\n")?;
            port_forward::serve(cluster, &pod, request).map_err(in_text)
        }
    }
}

/// What the kubelet refuses it words without a Status.
fn in_text(refusal: Refusal) -> Refusal {
    match refusal.status() {
        Some(status) => Refusal::text(refusal.code(), status.message.clone()),
        None => refusal,
    }
}

/// An answer that names a subprotocol, if only the empty one.
fn named(answer: Result<Response<Full<Bytes>>, Refusal>) -> Result<Response<Full<Bytes>>, Refusal> {
    let mut answer = answer.map_err(in_text)?;
    let none = HeaderValue::from_static("");
    answer
        .headers_mut()
        .entry(SEC_WEBSOCKET_PROTOCOL)
        .or_insert(none);
    Ok(answer)
}

fn has<B>(request: &Request<B>, name: HeaderName, value: &str) -> bool {
    let values = request.headers().get_all(name).iter();
    let mut values = values.filter_map(|known| known.to_str().ok());
    values.any(|known| known.to_lowercase().contains(value))
}

/// Refuses what asks for no upgrade, as the API server does, or cannot take it, as a kubelet.
fn check_upgrade<B>(request: &Request<B>) -> Result<(), Refusal> {
    if !has(request, CONNECTION, "upgrade") {
        return Err(Refusal::bad_request("Upgrade request required"));
    }
    if request.headers().contains_key(ACCEPT) && !has(request, ACCEPT, "*/*") {
        let why = "406: Not Acceptable\n\nAvailable representations: ";
        return Err(Refusal::text(StatusCode::NOT_ACCEPTABLE, why.to_owned()));
    }
    Ok(())
}

/// Refuses what is no WebSocket.
fn check_socket<B>(request: &Request<B>, bad_method: &str) -> Result<(), Refusal> {
    let asked = request
        .headers()
        .get(UPGRADE)
        .map_or(&b""[..], HeaderValue::as_bytes);
    if !asked.eq_ignore_ascii_case(b"websocket") {
        if has(request, UPGRADE, "spdy") {
            return Err(not_implemented("SPDY; use WebSockets"));
        }
        let why = "unable to upgrade: X-Stream-Protocol-Version is required\n";
        return Err(Refusal::text(StatusCode::BAD_REQUEST, why.to_owned()));
    }
    match *request.method() {
        Method::GET => Ok(()),
        _ => Err(Refusal::text(
            StatusCode::METHOD_NOT_ALLOWED,
            bad_method.to_owned(),
        )),
    }
}

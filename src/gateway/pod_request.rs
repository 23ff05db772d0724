//! What a client asks of a pod, asked of an API server: in flows a request, out come its response
//! and both sessions, joined.

use std::{
    fmt,
    pin::Pin,
    sync::{Arc, atomic::Ordering::Relaxed},
};

use bytes::Bytes;
use http::{Method, Request, Response, header::ACCEPT};
use tokio::time::Instant;

use super::ClientSession;
use crate::{
    Client, Error, Result,
    client::{
        Body,
        port_forward::{Traffic, Tunnel},
    },
    server::{
        Forwarding, PortForwardRequest, Process, Refusal, RemoteCommandRequest, SUBPROTOCOLS,
    },
    session::port_forward::ForwardProtocol,
    transport::ws::relay::Copied,
    wire::status::Status,
};

/// A request for exec, attach or port-forward, by its path and query those of an API server.
///
/// A gateway knows who sent it, reads what is asked, changes or [refuses](Refusal) it, and joins
/// what it lets pass. The module has [an example](super).
///
/// ```
/// use bytes::Bytes;
/// use http::{Request, Response};
/// use http_body_util::Full;
/// use kubewire::{Client, gateway::PodRequest, server::Refusal};
///
/// async fn join<B>(client: Client, mut request: Request<B>) -> Result<Response<Full<Bytes>>, Refusal> {
///     let mut asked = PodRequest::parse(&mut request)?;
///     asked.namespace = format!("tenant-{}", asked.namespace); // or refuse it
///     let (response, session) = asked.join(&client).await?;
///     tokio::spawn(session);
///     Ok(response)
/// }
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub struct PodRequest {
    /// The pod's namespace.
    pub namespace: String,
    /// The pod's name.
    pub pod: String,
    /// What is asked of it.
    pub subresource: Subresource,
}

/// What a [`PodRequest`] asks for.
///
/// ```
/// use kubewire::{gateway::{PodRequest, Subresource}, server::Refusal, wire::status::Status};
///
/// /// Nobody gets a shell, whatever else they may run.
/// fn may(asked: &PodRequest) -> Result<(), Refusal> {
///     match &asked.subresource {
///         Subresource::Exec(exec) if exec.streams.tty => {
///             Err(Refusal::new(Status::failure(403, "Forbidden", "no terminals here")))
///         }
///         _ => Ok(()),
///     }
/// }
/// # let request = http::Request::get("/api/v1/namespaces/default/pods/web-0/exec?tty=true&stdin=1")
/// #     .header("Connection", "Upgrade")
/// #     .header("Upgrade", "websocket")
/// #     .header("Sec-WebSocket-Version", "13")
/// #     .header("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==");
/// # let asked = PodRequest::parse(&mut request.body(()).unwrap()).unwrap();
/// # assert_eq!(may(&asked).unwrap_err().code(), 403);
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub enum Subresource {
    /// `exec`
    Exec(RemoteCommandRequest),
    /// `attach`
    Attach(RemoteCommandRequest),
    /// `portforward`
    PortForward(PortForwardRequest),
}

/// How joined sessions ended.
///
/// ```
/// # use kubewire::gateway::Outcome;
/// /// A line of audit.
/// fn line(outcome: &Outcome) -> String {
///     let (code, traffic) = (outcome.status.as_ref().map(|it| it.code_of_exit()), outcome.traffic);
///     format!("{code:?}: {} bytes sent, {} received", traffic.sent, traffic.received)
/// }
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Outcome {
    /// That of the process, as [`Spliced::status`](super::Spliced::status) has it; of a port-forward
    /// a success once the client has left. An error if the client's session never began.
    pub status: Result<Status>,
    /// What went to the pod and what came back, and for how long: stdout and stderr together, or
    /// all connections of a port-forward.
    pub traffic: Traffic,
}

impl Outcome {
    /// What only one side knew of: the client's session never began.
    fn unopened(error: Error) -> Self {
        Self {
            status: Err(error),
            traffic: Traffic::default(),
        }
    }
}

impl PodRequest {
    /// Reads a request to `/api/v1/namespaces/NAMESPACE/pods/POD/SUBRESOURCE`.
    ///
    /// # Errors
    ///
    /// A [`Refusal`]: with code 404 if it is for something else, and those of
    /// [`RemoteCommandRequest::parse`] and [`PortForwardRequest::parse`].
    pub fn parse<B>(request: &mut Request<B>) -> Result<Self, Refusal> {
        let path: Vec<_> = request.uri().path().split('/').collect();
        let &["", "api", "v1", "namespaces", namespace, "pods", pod, verb] = &path[..] else {
            return Err(not_found());
        };
        let (namespace, pod) = (namespace.to_owned(), pod.to_owned());
        let subresource = match verb {
            "exec" => Subresource::Exec(RemoteCommandRequest::parse(request)?),
            "attach" => Subresource::Attach(RemoteCommandRequest::parse(request)?),
            "portforward" => Subresource::PortForward(PortForwardRequest::parse(request)?),
            _ => return Err(not_found()),
        };
        Ok(Self {
            namespace,
            pod,
            subresource,
        })
    }

    /// Asks the same of the client's API server and accepts the request. Gives the response, which
    /// must go to the client, and the future of the joined sessions: spawn it. Every subprotocol is
    /// accepted.
    ///
    /// [`Splice`](super::Splice) and [`ForwardSplice`](super::ForwardSplice) say what joined
    /// sessions do, and what dropping the future does.
    ///
    /// # Errors
    ///
    /// The API server's refusal, and those of [`RemoteCommandRequest::accept`] and
    /// [`PortForwardRequest::accept`]: what cannot be accepted is not asked of the API server.
    pub async fn join<B: From<Bytes>>(
        self,
        client: &Client,
    ) -> Result<
        (
            Response<B>,
            impl Future<Output = Outcome> + Send + 'static + use<B>,
        ),
        Refusal,
    > {
        let pod = client.pod(self.namespace, self.pod);
        let (response, session) = match self.subresource {
            Subresource::Exec(asked) => {
                let exec = asked.exec(&pod);
                let (response, opening) = asked.accept(&SUBPROTOCOLS)?;
                let child = exec.spawn().await?;
                (response, command(opening, child))
            }
            Subresource::Attach(asked) => {
                let attach = asked.attach(&pod);
                let (response, opening) = asked.accept(&SUBPROTOCOLS)?;
                let attached = attach.spawn().await?;
                (response, command(opening, attached))
            }
            Subresource::PortForward(asked) => {
                let (response, opening) = asked.accept(&ForwardProtocol::ALL)?;
                let tunnel = pod.port_forward().connect().await?;
                (response, forward(opening, tunnel))
            }
        };
        // It is an answer without a body.
        Ok((response.map(|_| Bytes::new().into()), session))
    }
}

/// What is asked, for a log: names in a path have no line breaks, and other words are quoted.
impl fmt::Display for PodRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { namespace, pod, .. } = self;
        let (verb, asked) = match &self.subresource {
            Subresource::Exec(asked) => ("exec", asked),
            Subresource::Attach(asked) => ("attach", asked),
            Subresource::PortForward(_) => return write!(f, "portforward {namespace}/{pod}"),
        };
        write!(f, "{verb} {namespace}/{pod}")?;
        if let Some(container) = &asked.container {
            write!(f, " {container:?}")?;
        }
        match asked.command.is_empty() {
            true => Ok(()),
            false => write!(f, " {:?}", asked.command),
        }
    }
}

type Session = Pin<Box<dyn Future<Output = Outcome> + Send>>;

fn command(
    opening: impl Future<Output = Result<Process>> + Send + 'static,
    session: impl Into<ClientSession>,
) -> Session {
    let (begin, session) = (Instant::now(), session.into());
    Box::pin(async move {
        let spliced = match opening.await {
            Ok(process) => process.splice(session).await,
            Err(error) => return Outcome::unopened(error),
        };
        Outcome {
            status: spliced.status,
            traffic: Traffic {
                sent: spliced.stdin,
                received: spliced.stdout + spliced.stderr,
                duration: begin.elapsed(),
            },
        }
    })
}

fn forward(
    opening: impl Future<Output = Result<Forwarding>> + Send + 'static,
    tunnel: Tunnel,
) -> Session {
    let begin = Instant::now();
    Box::pin(async move {
        let splice = match opening.await {
            Ok(forwarding) => forwarding.splice(tunnel),
            Err(error) => return Outcome::unopened(error),
        };
        let copied = Arc::<Copied>::default();
        let total = copied.clone();
        splice
            .each(move |one| {
                total.sent.fetch_add(one.traffic.sent, Relaxed);
                total.received.fetch_add(one.traffic.received, Relaxed);
            })
            .await;
        Outcome {
            status: Ok(Status::success()),
            traffic: Traffic::of(&copied, begin),
        }
    })
}

/// Answers a GET, such as those that kubectl sends before it asks for a session: what the client's
/// API server says to the same path and query. Of the headers only `Accept` goes on: none that
/// says who the user is, or whom to take them for.
///
/// # Errors
///
/// A [`Refusal`] with code 405 for any other method, and with [`Error::to_status`] if there is no
/// answer. What the API server refuses is an answer.
///
/// ```
/// # kubewire::example(|pod| pod.container("main", ["sleep", "9"]), async |client| {
/// use kubewire::gateway;
///
/// let request = http::Request::get("/version").header("Impersonate-User", "root").body(())?;
/// let response = gateway::read(&client, request).await?;
/// assert_eq!(response.status(), 200);
/// # Ok(())
/// # });
/// ```
pub async fn read<B>(client: &Client, request: Request<B>) -> Result<Response<Body>, Refusal> {
    let (head, _) = request.into_parts();
    if head.method != Method::GET {
        let message = "the server does not allow this method on the requested resource";
        let status = Status::failure(405, "MethodNotAllowed", message);
        return Err(Refusal::new(status));
    }
    let mut asked = Request::new(Bytes::new());
    *asked.uri_mut() = head.uri;
    if let Some(accept) = head.headers.get(ACCEPT) {
        asked.headers_mut().insert(ACCEPT, accept.clone());
    }
    Ok(client.send(asked).await?)
}

fn not_found() -> Refusal {
    let message = "the server could not find the requested resource";
    Refusal::new(Status::failure(404, "NotFound", message))
}

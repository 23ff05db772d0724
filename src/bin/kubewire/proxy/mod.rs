//! `proxy`: in flow requests from this machine, out they go with the kubeconfig's credentials.
//!
//! The filters and their defaults are those of `k8s.io/kubectl/pkg/proxy/proxy_server.go`;
//! [`filter`] applies them to what the server will see.

use std::{
    convert::Infallible,
    io::{self, Write},
    net::IpAddr,
    path::PathBuf,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use clap::Args;
use http::{
    HeaderName, Request, Response, StatusCode,
    header::{AUTHORIZATION, CONNECTION, HOST, UPGRADE},
};
use http_body_util::{BodyExt, Either, Full};
use hyper::{
    body::{Frame, Incoming, SizeHint},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use kubewire::{
    Client, Config,
    request::{Body, MaybeUpgraded},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};

use self::{files::Files, filter::Filter};
#[cfg(unix)]
use crate::unix_socket::UnixSocket;
use crate::{
    connection::Connection,
    duration,
    failure::{Failure, Local as _, note},
    set::Set as _,
};

mod files;
mod filter;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Bytes of a request's body that are held to be sent again if need be: 1 MiB. A longer one is
/// sent as it comes.
const HELD_BODY: usize = 1 << 20;

/// Connections at a time: 512. More wait until one ends.
const CONNECTIONS: usize = 512;

/// How long a request's head may take, and a connection wait for the next: 30 s.
const HEAD: Duration = Duration::from_secs(30);

/// How long to wait when no connection can be taken, as when there are no more files: 100 ms.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Those of kubectl, and the same over the kubelet's own API.
const REJECTED_PATHS: &str = "^/api/.*/pods/.*/exec,^/api/.*/pods/.*/attach,\
    ^/api/.*/nodes/.*/proxy/(exec|attach|run|cri)";

/// Serve the API on this machine, adding the credentials of the kubeconfig
///
/// Whoever can connect to it acts as this user. The filters are kubectl's. They see paths as the
/// server will: decoded, and without the prefix; a path with dots or double slashes is refused.
/// Pages of another origin may only read.
///
/// Exit codes: 0 when it is interrupted (SIGINT); 1 if it cannot begin.
#[derive(Args)]
#[command(after_help = "Examples:\n  \
    kubewire proxy\n  \
    kubewire proxy -p 0 --reject-methods POST,PUT,PATCH,DELETE\n  \
    kubewire proxy --unix-socket /run/kube.sock\n  \
    kubewire proxy --www site --www-prefix /site/ --api-prefix /")]
pub(crate) struct Proxy {
    /// The port to listen on; 0 for any
    #[arg(short, long, default_value_t = 8001)]
    port: u16,
    /// The address to listen on
    #[arg(long, default_value = "127.0.0.1")]
    address: IpAddr,
    /// The Unix socket to listen on instead of an address; one that nobody listens on any more is
    /// replaced
    #[arg(short, long, value_name = "PATH", conflicts_with_all = ["port", "address"])]
    unix_socket: Option<String>,
    /// The directory whose files are served, too; they are read by the same filters
    #[arg(short = 'w', long, value_name = "DIRECTORY")]
    www: Option<PathBuf>,
    /// The path under which they are
    #[arg(short = 'P', long, value_name = "PATH", default_value = "/static/")]
    www_prefix: String,
    /// The path of the server's URL goes in front of every path; it always does
    #[arg(long)]
    append_server_path: bool,
    /// The path under which the API is served
    #[arg(long, default_value = "/", value_name = "PATH")]
    api_prefix: String,
    /// Hosts that a request may name, as regular expressions
    #[arg(
        long,
        value_delimiter = ',',
        default_value = r"^localhost$,^127\.0\.0\.1$,^\[::1\]$"
    )]
    accept_hosts: Vec<String>,
    /// Paths that are passed on, as regular expressions
    #[arg(long, value_delimiter = ',', default_value = "^.*")]
    accept_paths: Vec<String>,
    /// Paths that are refused, as regular expressions
    #[arg(
        long,
        value_delimiter = ',',
        default_value = REJECTED_PATHS
    )]
    reject_paths: Vec<String>,
    /// Methods that are refused, as regular expressions
    #[arg(long, value_delimiter = ',', default_value = "^$")]
    reject_methods: Vec<String>,
    /// How long a connection to the server may be silent before it is probed: 1m30s, or a number of
    /// seconds; 0 for 30 s, which is kubewire's default
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = duration::or_seconds)]
    keepalive: Duration,
    /// Pass everything on: any page in a browser here can then use the cluster
    #[arg(long)]
    disable_filter: bool,
}

struct Server {
    client: Client,
    prefix: String,
    filter: Option<Filter>,
    files: Option<Files>,
}

type Answer = Either<Body, Full<Bytes>>;

impl Proxy {
    pub(crate) async fn run(self, connection: &Connection) -> Result<u8, Failure> {
        let (hosts, paths) = (&self.accept_hosts[..], &self.accept_paths[..]);
        let rules = [hosts, paths, &self.reject_paths, &self.reject_methods];
        let filter = match self.disable_filter {
            true => {
                note(
                    "the filter is off: any page in a browser on this machine can use the cluster",
                );
                None
            }
            // The words have several lines.
            false => Some(Filter::new(rules).map_err(|error| {
                let words = error.to_string();
                words.split_whitespace().collect::<Vec<_>>().join(" ")
            })?),
        };
        let files = self
            .www
            .as_ref()
            .map(|root| Files::new(root, &self.www_prefix).local(root.display()));
        let files = files.transpose()?;
        let keepalive = Some(self.keepalive).filter(|keepalive| !keepalive.is_zero());
        let config = connection.config()?;
        let config = config.set(keepalive, Config::with_tcp_keepalive);
        let server = Arc::new(Server {
            client: Client::new(&config)?,
            prefix: format!("/{}", self.api_prefix.trim_matches('/')),
            filter,
            files,
        });
        #[cfg(unix)]
        if let Some(path) = self.unix_socket.as_deref().filter(|path| !path.is_empty()) {
            let listening = UnixSocket::bind(path)?;
            return run(listening, path, server).await;
        }
        #[cfg(not(unix))]
        if self.unix_socket.is_some() {
            bail!("--unix-socket: this system has no Unix sockets");
        }
        let listener = TcpListener::bind((self.address, self.port)).await?;
        let address = listener.local_addr()?.to_string();
        run(listener, &address, server).await
    }
}

async fn run(listener: impl Accept, address: &str, server: Arc<Server>) -> Result<u8, Failure> {
    writeln!(io::stdout(), "Starting to serve on {address}")?;
    io::stdout().flush()?;
    tokio::select! {
        () = serve(listener, server) => Ok(0),
        stop = tokio::signal::ctrl_c() => Ok(stop.map(|()| 0)?),
    }
}

trait Accept {
    type Connection: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    async fn accept(&self) -> io::Result<Self::Connection>;
}

impl Accept for TcpListener {
    type Connection = TcpStream;

    async fn accept(&self) -> io::Result<TcpStream> {
        let (tcp, _) = TcpListener::accept(self).await?;
        // It only costs time, and a client that has gone again refuses it.
        if let Err(error) = tcp.set_nodelay(true) {
            tracing::debug!(%error, "TCP_NODELAY");
        }
        Ok(tcp)
    }
}

#[cfg(unix)]
impl Accept for UnixSocket {
    type Connection = tokio::net::UnixStream;

    async fn accept(&self) -> io::Result<Self::Connection> {
        Self::accept(self).await
    }
}

/// Takes connections, whatever becomes of one.
async fn serve(listener: impl Accept, server: Arc<Server>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let mut told = false;
    loop {
        // Nobody closes the semaphore.
        let Ok(place) = Arc::clone(&places).acquire_owned().await else {
            return;
        };
        let connection = match listener.accept().await {
            Ok(connection) => connection,
            Err(error) => {
                if !std::mem::replace(&mut told, true) {
                    note!("a connection cannot be taken, trying again: {error}");
                }
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        told = false;
        let server = Arc::clone(&server);
        tokio::spawn(async move {
            if let Err(error) = server.serve(connection, Arc::new(place)).await {
                tracing::debug!(%error, "a connection ended");
            }
        });
    }
}

/// A place among the connections, which is free again when the last owner is gone.
type Place = Arc<tokio::sync::OwnedSemaphorePermit>;

impl Server {
    async fn serve(
        self: Arc<Self>,
        connection: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        place: Place,
    ) -> hyper::Result<()> {
        let service = service_fn(|request| {
            let (server, place) = (Arc::clone(&self), Arc::clone(&place));
            async move { Ok::<_, Infallible>(server.answer(request, place).await) }
        });
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD)
            .serve_connection(TokioIo::new(connection), service)
            .with_upgrades()
            .await
    }

    async fn answer(&self, request: Request<Incoming>, place: Place) -> Response<Answer> {
        let path = request.uri().path().to_owned();
        let files = self.files.as_ref();
        let file = files.and_then(|files| Some((files, files.below(&path)?)));
        let path = match file {
            Some(_) => Some(path.clone()),
            None => filter::strip_prefix(&self.prefix, &path),
        };
        let Some(path) = path else {
            return text(StatusCode::NOT_FOUND, "404 page not found");
        };
        if let Some(filter) = &self.filter
            && let Err(refusal) = filter.check(&request, &path)
        {
            return text(refusal.0, refusal.1);
        }
        if let Some((files, below)) = file {
            let answer = files.answer(request.method(), below).await;
            return answer.map(|bytes| Either::Right(Full::new(bytes)));
        }
        let query = request.uri().query();
        let target = query.map_or_else(|| path.clone(), |query| format!("{path}?{query}"));
        match self.pass(request, &target, place).await {
            Ok(response) => response,
            Err(error) => {
                tracing::warn!(path, %error, "not passed on");
                let first: &(dyn std::error::Error + 'static) = &*error;
                let mut causes = std::iter::successors(Some(first), |error| error.source());
                let (code, words) = match causes.find_map(|cause| cause.downcast_ref::<Broken>()) {
                    Some(broken) => (StatusCode::BAD_REQUEST, broken.to_string()),
                    None => (StatusCode::BAD_GATEWAY, error.to_string()),
                };
                text(code, &words)
            }
        }
    }

    async fn pass(
        &self,
        mut request: Request<Incoming>,
        target: &str,
        place: Place,
    ) -> Result<Response<Answer>, BoxError> {
        let upgrade = request.headers().contains_key(UPGRADE);
        let here = upgrade.then(|| hyper::upgrade::on(&mut request));
        let (mut head, body) = request.into_parts();
        hop_by_hop(&mut head.headers, upgrade);
        // They are the client's to set.
        head.headers.remove(HOST);
        head.headers.remove(AUTHORIZATION);
        let mut outgoing = Request::new(());
        *outgoing.method_mut() = head.method;
        *outgoing.uri_mut() = target.parse()?;
        *outgoing.headers_mut() = head.headers;
        let body = Streamed::begin(body).await?;
        let Some(here) = here else {
            let mut response = match body.whole() {
                Ok(bytes) => self.client.send(outgoing.map(|()| bytes)).await?,
                Err(body) => self.client.send_streamed(outgoing.map(|()| body)).await?,
            };
            hop_by_hop(response.headers_mut(), false);
            return Ok(response.map(Either::Left));
        };
        let Ok(bytes) = body.whole() else {
            let problem = "a request to upgrade has a small body or none";
            return Ok(text(StatusCode::PAYLOAD_TOO_LARGE, problem));
        };
        let outgoing = outgoing.map(|()| bytes);
        let (head, rest) = self.client.send_upgrade(outgoing).await?.into_parts();
        let mut there = match rest {
            MaybeUpgraded::Upgraded(there) => there,
            MaybeUpgraded::Body(body) => {
                let mut response = Response::from_parts(head, Either::Left(body));
                hop_by_hop(response.headers_mut(), false);
                return Ok(response);
            }
            _ => return Err("an answer of another kind".into()),
        };
        tokio::spawn(async move {
            let _place = place;
            let Ok(here) = here.await else { return };
            let mut here = TokioIo::new(here);
            if let Err(error) = tokio::io::copy_bidirectional(&mut here, &mut there).await {
                tracing::debug!(%error, "an upgraded connection broke");
                // Half of it must not look like the whole.
                if let Ok(parts) = here.into_inner().downcast::<TokioIo<TcpStream>>() {
                    let _ = parts.io.inner().set_zero_linger();
                }
            }
        });
        Ok(Response::from_parts(head, Either::Right(Full::default())))
    }
}

/// The client's request ends too soon, or its chunks are none.
#[derive(Debug, thiserror::Error)]
#[error("the body of the request is broken: {0}")]
struct Broken(#[source] hyper::Error);

/// A request's body: its start, and the rest if it is long.
struct Streamed {
    start: Bytes,
    rest: Option<Incoming>,
    /// What there is in all, if the client said so.
    length: SizeHint,
}

impl Streamed {
    /// Reads up to [`HELD_BODY`], or a little more.
    async fn begin(mut body: Incoming) -> Result<Self, Broken> {
        let length = hyper::body::Body::size_hint(&body);
        let mut start = BytesMut::new();
        // A body that is said to be long is not worth the copy.
        let (is_long, mut has_ended) = (length.lower() > HELD_BODY as u64, false);
        while !is_long && start.len() <= HELD_BODY {
            match body.frame().await.transpose().map_err(Broken)? {
                None => {
                    has_ended = true;
                    break;
                }
                // Trailers have no place in what is sent on.
                Some(frame) => start.extend_from_slice(&frame.into_data().unwrap_or_default()),
            }
        }
        Ok(Self {
            start: start.freeze(),
            rest: (!has_ended).then_some(body),
            length,
        })
    }

    /// All of it, if it has been read.
    fn whole(self) -> Result<Bytes, Self> {
        match self.rest {
            None => Ok(self.start),
            Some(_) => Err(self),
        }
    }
}

impl hyper::body::Body for Streamed {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        if !self.start.is_empty() {
            let start = std::mem::take(&mut self.start);
            return Poll::Ready(Some(Ok(Frame::data(start))));
        }
        match &mut self.rest {
            Some(rest) => Pin::new(rest)
                .poll_frame(cx)
                .map(|frame| frame.map(|frame| frame.map_err(Broken))),
            None => Poll::Ready(None),
        }
    }

    fn size_hint(&self) -> SizeHint {
        self.length
    }
}

/// RFC 9110, section 7.6.1: what belongs to one connection only.
fn hop_by_hop(headers: &mut http::HeaderMap, upgrade: bool) {
    let named = headers.get_all(CONNECTION).iter();
    let named = named
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','));
    let named = named.filter_map(|name| name.trim().parse::<HeaderName>().ok());
    let named = named.filter(|name| !(upgrade && *name == UPGRADE));
    for name in named.collect::<Vec<_>>() {
        headers.remove(name);
    }
    let names = "keep-alive proxy-authenticate proxy-authorization proxy-connection te trailer \
                 transfer-encoding";
    for name in names.split(' ') {
        headers.remove(name);
    }
    if !upgrade {
        headers.remove(CONNECTION);
        headers.remove(UPGRADE);
    }
}

fn text(status: StatusCode, text: &str) -> Response<Answer> {
    let body = Full::new(Bytes::from(format!("{text}\n")));
    let mut response = Response::new(Either::Right(body));
    *response.status_mut() = status;
    response
}

//! `proxy`: in flow requests from this machine, out they go with the kubeconfig's credentials.
//!
//! The filters and their defaults are those of `k8s.io/kubectl/pkg/proxy/proxy_server.go`.

use std::{
    convert::Infallible,
    io::{self, Write},
    net::IpAddr,
    sync::Arc,
};

use bytes::Bytes;
use clap::Args;
use http::{
    HeaderName, Request, Response, StatusCode,
    header::{AUTHORIZATION, CONNECTION, HOST, TRANSFER_ENCODING, UPGRADE},
};
use http_body_util::{BodyExt, Either, Full, Limited};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use kubewire::{
    Client,
    request::{Body, Rest},
};
use regex::RegexSet;
use tokio::net::TcpListener;

use crate::{
    connection::Connection,
    failure::{Failure, note},
};

type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// Bytes of a request's body that are passed on: 64 MiB.
const MOST: usize = 64 << 20;

/// Serve the API on this machine, adding the credentials of the kubeconfig
///
/// Whoever can connect to it acts as this user. The filters and their defaults are kubectl's.
#[derive(Args)]
pub(crate) struct Proxy {
    /// The port to listen on; 0 for any
    #[arg(short, long, default_value_t = 8001)]
    port: u16,
    /// The address to listen on
    #[arg(long, default_value = "127.0.0.1")]
    address: IpAddr,
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
        default_value = "^/api/.*/pods/.*/exec,^/api/.*/pods/.*/attach"
    )]
    reject_paths: Vec<String>,
    /// Methods that are refused, as regular expressions
    #[arg(long, value_delimiter = ',', default_value = "^$")]
    reject_methods: Vec<String>,
    /// Pass everything on: any page in a browser here can then use the cluster
    #[arg(long)]
    disable_filter: bool,
}

struct Server {
    client: Client,
    prefix: String,
    filter: Option<Filter>,
}

struct Filter {
    hosts: RegexSet,
    paths: RegexSet,
    rejected_paths: RegexSet,
    rejected_methods: RegexSet,
}

type Answer = Either<Body, Full<Bytes>>;

impl Proxy {
    pub(crate) async fn run(self, connection: &Connection) -> Result<u8, Failure> {
        let filter = match self.disable_filter {
            true => {
                note(
                    "the filter is off: any page in a browser on this machine can use the cluster",
                );
                None
            }
            false => Some(self.filter().map_err(|error| {
                let problem = error.to_string();
                Failure::Message(problem.split_whitespace().collect::<Vec<_>>().join(" "))
            })?),
        };
        let server = Arc::new(Server {
            client: connection.client()?,
            prefix: format!("/{}", self.api_prefix.trim_matches('/')),
            filter,
        });
        let listener = TcpListener::bind((self.address, self.port)).await?;
        writeln!(
            io::stdout(),
            "Starting to serve on {}",
            listener.local_addr()?
        )?;
        io::stdout().flush()?;
        loop {
            let (tcp, _) = tokio::select! {
                accepted = listener.accept() => accepted?,
                stop = tokio::signal::ctrl_c() => {
                    stop?;
                    return Ok(0);
                }
            };
            tcp.set_nodelay(true)?;
            let server = Arc::clone(&server);
            tokio::spawn(async move {
                let service = service_fn(|request| {
                    let server = Arc::clone(&server);
                    async move { Ok::<_, Infallible>(server.answer(request).await) }
                });
                let connection = auto::Builder::new(TokioExecutor::new());
                let connection =
                    connection.serve_connection_with_upgrades(TokioIo::new(tcp), service);
                if let Err(error) = connection.await {
                    tracing::debug!(%error, "a connection ended");
                }
            });
        }
    }
}

impl Proxy {
    fn filter(&self) -> Result<Filter, regex::Error> {
        Ok(Filter {
            hosts: RegexSet::new(&self.accept_hosts)?,
            paths: RegexSet::new(&self.accept_paths)?,
            rejected_paths: RegexSet::new(&self.reject_paths)?,
            rejected_methods: RegexSet::new(&self.reject_methods)?,
        })
    }
}

impl Server {
    async fn answer(&self, request: Request<Incoming>) -> Response<Answer> {
        if let Some(filter) = &self.filter
            && !filter.accepts(&request)
        {
            return text(StatusCode::FORBIDDEN, "Forbidden");
        }
        let path = request
            .uri()
            .path_and_query()
            .map_or("/", |path| path.as_str());
        let path = match self.prefix.as_str() {
            "/" => Some(path.to_owned()),
            prefix => path
                .strip_prefix(prefix)
                .filter(|rest| rest.is_empty() || rest.starts_with(['/', '?']))
                .map(|rest| format!("/{}", rest.trim_start_matches('/'))),
        };
        let Some(path) = path else {
            return text(StatusCode::NOT_FOUND, "404 page not found");
        };
        match self.pass(request, &path).await {
            Ok(response) => response,
            Err(error) => {
                tracing::warn!(path, %error, "not passed on");
                text(StatusCode::BAD_GATEWAY, &error.to_string())
            }
        }
    }

    async fn pass(&self, mut request: Request<Incoming>, path: &str) -> Outcome<Response<Answer>> {
        let upgrade = request.headers().contains_key(UPGRADE);
        let here = upgrade.then(|| hyper::upgrade::on(&mut request));
        let (mut head, body) = request.into_parts();
        let body = Limited::new(body, MOST).collect().await?.to_bytes();
        hop_by_hop(&mut head.headers, upgrade);
        // They are the client's to set.
        head.headers.remove(HOST);
        head.headers.remove(AUTHORIZATION);
        let mut outgoing = Request::new(body);
        *outgoing.method_mut() = head.method;
        *outgoing.uri_mut() = path.parse()?;
        *outgoing.headers_mut() = head.headers;
        let Some(here) = here else {
            let mut response = self.client.send(outgoing).await?;
            hop_by_hop(response.headers_mut(), false);
            return Ok(response.map(Either::Left));
        };
        let (head, rest) = self.client.send_upgrade(outgoing).await?.into_parts();
        let mut there = match rest {
            Rest::Upgraded(there) => there,
            Rest::Body(body) => {
                let mut response = Response::from_parts(head, Either::Left(body));
                hop_by_hop(response.headers_mut(), false);
                return Ok(response);
            }
            _ => return Err("an answer of another kind".into()),
        };
        tokio::spawn(async move {
            let Ok(here) = here.await else { return };
            let copied = tokio::io::copy_bidirectional(&mut TokioIo::new(here), &mut there).await;
            if let Err(error) = copied {
                tracing::debug!(%error, "an upgraded connection ended");
            }
        });
        Ok(Response::from_parts(head, Either::Right(Full::default())))
    }
}

impl Filter {
    fn accepts<B>(&self, request: &Request<B>) -> bool {
        let host = request
            .headers()
            .get(HOST)
            .and_then(|host| host.to_str().ok());
        let host = host.or(request
            .uri()
            .authority()
            .map(|authority| authority.as_str()));
        let host = host.unwrap_or_default();
        // Without its port, and an IPv6 address with its brackets.
        let host = match host.rsplit_once(':') {
            Some((front, _)) if !front.contains(':') || front.ends_with(']') => front,
            _ => host,
        };
        let path = request.uri().path();
        self.hosts.is_match(host)
            && self.paths.is_match(path)
            && !self.rejected_paths.is_match(path)
            && !self.rejected_methods.is_match(request.method().as_str())
    }
}

/// RFC 9110, section 7.6.1: what belongs to one connection only.
fn hop_by_hop(headers: &mut http::HeaderMap, upgrade: bool) {
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .filter(|name| !(upgrade && *name == UPGRADE))
        .collect();
    for name in named {
        headers.remove(name);
    }
    for name in ["keep-alive", "proxy-connection", "te", "trailer"] {
        headers.remove(name);
    }
    headers.remove(TRANSFER_ENCODING);
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

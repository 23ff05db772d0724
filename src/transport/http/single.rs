//! A request over a connection that serves no other, as HTTP/1.1: in flows what may upgrade, or has
//! a body that cannot be sent twice, out comes the answer.

use bytes::Bytes;
use http::{Request, Response, Uri, header::HOST};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;

use super::{blame, body::Body, target::Retargeted};
use crate::{Result, auth::Connector, net::Connection};

/// Sends a request to a path and gives the answer, whatever its code. With code 101 it carries
/// hyper's upgrade.
///
/// Dropping the future ends the request.
pub(super) async fn send<B>(
    connector: &Connector,
    io: Connection,
    path_and_query: &str,
    mut request: Request<B>,
) -> Result<Response<Body>>
where
    B: hyper::body::Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let target = connector.server().target(path_and_query)?;
    let io = TokioIo::new(Retargeted::new(io, request.method(), &target));
    *request.uri_mut() = Uri::default();
    let host = connector.host().clone();
    request.headers_mut().insert(HOST, host);
    let (mut sender, connection) = http1::handshake(io).await.map_err(blame)?;
    // It ends with the upgrade, or with the answer's body.
    tokio::spawn(connection.with_upgrades());
    let response = sender.send_request(request).await.map_err(blame)?;
    Ok(Body::of(response, None))
}

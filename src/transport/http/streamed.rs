//! Requests whose bodies are not known as a whole: in flows a body as it comes, out comes the
//! answer. Each has a connection of its own, because nothing of it can be sent again.

use bytes::Bytes;
use http::{HeaderValue, Request, Response, header::HOST, header::USER_AGENT};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;

use super::body::{Body, lost};
use crate::{AGENT, Result, auth::Connector};

/// Sends a request to a path and gives the answer, whatever its code.
///
/// Dropping the future ends the request.
pub(crate) async fn send<B>(
    connector: &Connector,
    path_and_query: &str,
    mut request: Request<B>,
) -> Result<Response<Body>>
where
    B: hyper::body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    *request.uri_mut() = connector.uri(path_and_query)?;
    let headers = request.headers_mut();
    headers.insert(USER_AGENT, HeaderValue::from_static(AGENT));
    headers.insert(HOST, connector.host().clone());
    connector.authorize(headers).await?;
    let io = TokioIo::new(connector.connect().await?);
    // It need not be `Unpin`: the connection holds it.
    let request = request.map(Box::pin);
    let (mut sender, connection) = http1::handshake(io).await.map_err(lost)?;
    tokio::spawn(connection);
    let response = sender.send_request(request).await.map_err(lost)?;
    Ok(response.map(|body| Body::new(body, None)))
}

//! HTTP to pods and services through the API server: in flow requests as the pod is to get them,
//! out come its answers and WebSockets.

use std::fmt::Display;

use bytes::Bytes;
use http::{Request, Response};
use percent_encoding::percent_decode_str;
use tokio_tungstenite::{WebSocketStream, tungstenite::protocol::Role};

use super::{Body, Client, Pod, Resource};
use crate::{
    Result,
    error::CallerError,
    net::Connection,
    transport::http::{About, Outgoing, upgrade},
};

/// The HTTP server of a pod or a service, reached through the API server; see [`Pod::proxy`] and
/// [`Client::service_proxy`].
///
/// The API server takes `Authorization` for itself and does not pass it on.
///
/// ```
/// # kubewire::example(|pod| pod.container("main", ["sh", "-c", "echo ready; sleep 600"]), async |client| {
/// # use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
/// # let web = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
/// # let port = web.local_addr()?.port();
/// # tokio::spawn(async move {
/// #     let (mut socket, _) = web.accept().await?;
/// #     let _ = socket.read(&mut [0; 1024]).await?;
/// #     socket.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nup").await
/// # });
/// let proxy = client.pod("default", "web-0").proxy(port);
/// let health = http::Request::get("/healthz").body(bytes::Bytes::new())?;
/// let mut answer = proxy.send(health).await?;
/// assert_eq!(answer.status(), 200);
/// assert_eq!(answer.body_mut().chunk().await?.as_deref(), Some(&b"up"[..]));
/// # Ok(())
/// # });
/// ```
#[derive(Debug, Clone)]
pub struct HttpProxy {
    client: Client,
    plural: &'static str,
    namespace: String,
    name: String,
    port: String,
    scheme: &'static str,
}

impl Pod {
    /// Its HTTP server on this port, by number or name, through the API server.
    pub fn proxy(&self, port: impl Display) -> HttpProxy {
        HttpProxy {
            plural: "pods",
            ..self
                .client()
                .service_proxy(self.namespace(), self.name(), port)
        }
    }
}

impl Client {
    /// The HTTP server of a service on this port, by number or name, through the API server.
    pub fn service_proxy(
        &self,
        namespace: impl Into<String>,
        name: impl Into<String>,
        port: impl Display,
    ) -> HttpProxy {
        HttpProxy {
            client: self.clone(),
            plural: "services",
            namespace: namespace.into(),
            name: name.into(),
            port: port.to_string(),
            scheme: "",
        }
    }
}

impl HttpProxy {
    /// The API server speaks TLS to it, without verifying its certificate.
    pub fn https(mut self) -> Self {
        self.scheme = "https:";
        self
    }

    /// Sends a request and gives the answer, whatever its code. The URI is a path with its query,
    /// as the server behind is to get it.
    ///
    /// There is no deadline. Dropping the future gives the request up.
    ///
    /// # Errors
    ///
    /// Those of [`Client::send`]. The API server's own refusals are answers too: a 503 with a
    /// Status, if nothing listens.
    pub async fn send(&self, request: Request<Bytes>) -> Result<Response<Body>> {
        let (head, body) = request.into_parts();
        let path = head.uri.path_and_query().map_or("/", |path| path.as_str());
        let outgoing = Outgoing {
            about: self.about(),
            method: head.method,
            headers: head.headers,
            body,
            deadline: None,
            ..Outgoing::get(self.operation(), self.path(path)?)
        };
        self.client.http().send(outgoing).await
    }

    /// Opens a WebSocket to a path, offering subprotocols. The second is the one that was chosen.
    ///
    /// Dropping the future gives it up.
    ///
    /// # Errors
    ///
    /// [`Error::Api`](crate::Error::Api) if it is refused, and those of [`Client::send`].
    pub async fn websocket(
        &self,
        path: &str,
        subprotocols: &[&str],
    ) -> Result<(WebSocketStream<Connection>, Option<String>)> {
        let offer = subprotocols.join(", ");
        let offer = Some(offer.as_str()).filter(|offer| !offer.is_empty());
        let request = Outgoing {
            about: self.about(),
            ..Outgoing::upgrade(self.operation(), self.path(path)?)
        };
        let opened = upgrade::open(self.client.http(), request, offer).await?;
        let stream = WebSocketStream::from_partially_read(
            opened.io,
            opened.read.to_vec(),
            Role::Client,
            None,
        );
        Ok((stream.await, opened.protocol))
    }

    fn about(&self) -> About {
        About {
            verb: "proxy".into(),
            resource: format!("{}/proxy", self.plural),
            namespace: Some(self.namespace.clone()),
            name: Some(self.name.clone()),
        }
    }

    fn operation(&self) -> String {
        format!(
            "proxy to {} {}/{}:{}",
            self.plural, self.namespace, self.name, self.port
        )
    }

    /// `k8s.io/apimachinery/pkg/util/net/port_split.go`, `SplitSchemeNamePort`.
    fn path(&self, path: &str) -> Result<String> {
        let wrong = |problem| CallerError::Path {
            path: path.to_owned(),
            problem,
        };
        if !path.starts_with('/') {
            return Err(wrong("does not begin with a slash").into());
        }
        if self.name.contains(':') || self.port.contains(':') {
            let name = format!("{}:{}", self.name, self.port);
            let what = "a name and a port, which have no colon";
            return Err(CallerError::misnamed(&name, what).into());
        }
        // The API server decodes a path before it looks where it leads (RFC 3986, section 6.2.2.3).
        let segments = path.split('?').next().unwrap_or_default();
        if percent_decode_str(segments)
            .collect::<Vec<u8>>()
            .split(|byte| *byte == b'/')
            .any(|segment| matches!(segment, b"." | b".."))
        {
            return Err(wrong("has dots that would lead elsewhere").into());
        }
        let name = match (self.scheme, self.port.as_str()) {
            ("", "") => self.name.clone(),
            (scheme, port) => format!("{scheme}{}:{port}", self.name),
        };
        let resource = Resource::namespaced("", "v1", self.plural);
        let front = resource.path(Some(&self.namespace), Some(&name), Some("proxy"))?;
        Ok(format!("{front}{path}"))
    }
}

#[cfg(test)]
mod tests {
    use futures_util::{SinkExt as _, StreamExt as _};
    use tokio::net::TcpListener;
    use tokio_tungstenite::{
        accept_hdr_async,
        tungstenite::{
            Message,
            handshake::server::{Request, Response},
        },
    };

    use super::*;

    #[test]
    fn dots_lead_elsewhere_in_a_path_and_nowhere_in_a_query() {
        let client = Client::from_url("http://127.0.0.1:1").unwrap();
        let proxy = client.pod("ns", "web-0").proxy(80);
        for path in [
            "/..",
            "/a/./b",
            "/%2e%2e/secrets",
            "/a/%2E./b",
            "/a%2f..%2fb",
            "/.%2e?x",
        ] {
            let error = proxy.path(path).unwrap_err().to_string();
            assert!(error.contains("lead elsewhere"), "{path}: {error}");
        }
        for path in [
            "/",
            "/a//b",
            "/...",
            "/a?..",
            "/a?up=/../x&y=%2e%2e",
            "/%252e%252e",
            "/?/./",
        ] {
            let front = "/api/v1/namespaces/ns/pods/web-0%3A80/proxy";
            assert_eq!(proxy.path(path).unwrap(), format!("{front}{path}"));
        }
    }

    #[tokio::test]
    #[allow(clippy::result_large_err)]
    async fn a_websocket_goes_to_the_path_behind_the_proxy_and_carries_both_ways() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let (tcp, _) = listener.accept().await.unwrap();
            let mut asked = String::new();
            let choose = |request: &Request, mut response: Response| {
                let offer = request.headers()["sec-websocket-protocol"]
                    .to_str()
                    .unwrap();
                asked = format!("{} {offer}", request.uri());
                let chosen = http::HeaderValue::from_static("b");
                response
                    .headers_mut()
                    .insert("sec-websocket-protocol", chosen);
                Ok(response)
            };
            let mut server = accept_hdr_async(tcp, choose).await.unwrap();
            server.send(Message::text(asked)).await.unwrap();
            let got = server.next().await.unwrap().unwrap();
            server.send(got).await.unwrap();
        });
        let client = Client::from_url(&format!("http://{address}")).unwrap();
        let proxy = client.pod("ns", "web-0").proxy(80);
        let (mut websocket, chosen) = proxy.websocket("/live?x=1", &["a", "b"]).await.unwrap();
        assert_eq!(chosen.as_deref(), Some("b"));
        let asked = websocket.next().await.unwrap().unwrap();
        let path = "/api/v1/namespaces/ns/pods/web-0:80/proxy/live?x=1";
        let path = path.replace(':', "%3A");
        assert_eq!(asked.to_text().unwrap(), format!("{path} a, b"));
        let sent = Message::binary(vec![0, 255]);
        websocket.send(sent.clone()).await.unwrap();
        assert_eq!(websocket.next().await.unwrap().unwrap(), sent);
    }
}

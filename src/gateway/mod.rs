//! A server's session and a client's, joined: in flow a [`Process`] and a
//! [`Child`](crate::exec::Child), or a [`Forwarding`](crate::server::Forwarding) and a
//! [`Tunnel`](crate::port_forward::Tunnel), out come the bytes of each at the other, and how both
//! ended.
//!
//! A gateway knows its users by means of its own and acts with its own credentials: it reads a
//! request, decides, opens the same session at the API server, accepts, and joins the two.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use axum::{Router, body::Body, extract::{Path, Request, State}, response::Response, routing::any};
//! use kubewire::{Client, server::{Refusal, RemoteCommandRequest, SUBPROTOCOLS}};
//!
//! async fn exec(
//!     State(client): State<Client>,
//!     Path((namespace, pod)): Path<(String, String)>,
//!     mut request: Request,
//! ) -> Result<Response, Response> {
//!     let refuse = |refusal: Refusal| refusal.into_response().map(Body::new);
//!     let asked = RemoteCommandRequest::parse(&mut request).map_err(refuse)?;
//!     let child = asked.exec(&client.pod(namespace, pod)).spawn().await;
//!     let child = child.map_err(|error| refuse(error.into()))?;
//!     let (response, opening) = asked.accept(&SUBPROTOCOLS).map_err(refuse)?;
//!     tokio::spawn(async move {
//!         if let Ok(process) = opening.await {
//!             println!("{:?}", process.splice(child).await);
//!         }
//!     });
//!     Ok(response.map(Body::new))
//! }
//!
//! # let server = kubewire::testing::ApiServer::builder()
//! #     .pod("default", "web-0", |pod| pod.container("main", ["sleep", "infinity"]))
//! #     .start()
//! #     .await?;
//! # let client = Client::new(&server.config())?;
//! let exec = any(exec);
//! let gateway = Router::new().route("/api/v1/namespaces/{namespace}/pods/{pod}/exec", exec);
//! # let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
//! # let url = format!("http://{}", listener.local_addr()?);
//! # tokio::spawn(async { axum::serve(listener, gateway.with_state(client)).await });
//! // A user of the gateway asks it as any API server.
//! let output = Client::from_url(&url)?.pod("default", "web-0").exec(["echo", "hello"]).output().await?;
//! assert_eq!(output.stdout, b"hello\n");
//! # Ok(())
//! # }
//! ```

mod forward;
mod pump;
mod splice;

pub use forward::{ForwardSplice, Forwarded};
pub use splice::{ClientSession, Splice, Spliced, Tapped};

use crate::{
    Pod,
    client::{Attach, Exec},
    server::{Process, RemoteCommandRequest},
};

impl RemoteCommandRequest {
    /// The same request for exec, to be made by this side: the command, the container and the
    /// streams that the client asks for. A terminal gets its size when the client tells its own.
    pub fn exec(&self, pod: &Pod) -> Exec {
        let exec = pod.exec(&self.command).streams(self.streams);
        match &self.container {
            Some(container) => exec.container(container),
            None => exec,
        }
    }

    /// The same request for attach, to be made by this side.
    pub fn attach(&self, pod: &Pod) -> Attach {
        let attach = pod.attach().streams(self.streams);
        match &self.container {
            Some(container) => attach.container(container),
            None => attach,
        }
    }
}

impl Process {
    /// Joins the session to one with an API server; [`Splice`] says how.
    pub fn splice(self, session: impl Into<ClientSession>) -> Splice {
        Splice::new(self, session.into())
    }
}

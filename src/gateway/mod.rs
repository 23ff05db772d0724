//! A server's session and a client's, joined: in flow a [`Process`] and a
//! [`Child`](crate::exec::Child), or a [`Forwarding`](crate::server::Forwarding) and a
//! [`Tunnel`](crate::port_forward::Tunnel), out come the bytes of each at the other, and how both
//! ended.
//!
//! A gateway knows its users by means of its own and acts with its own credentials: it reads a
//! request, decides, asks the same of the API server, accepts, and joins the two.
//!
//! ```
//! # kubewire::example(|pod| pod.container("main", ["sleep", "infinity"]), async |client| {
//! use axum::{Router, extract::{Request, State}, response::Response, routing::any};
//! use kubewire::{Client, gateway::PodRequest};
//!
//! async fn join(client: State<Client>, mut request: Request) -> Result<Response, Response> {
//!     let asked = PodRequest::parse(&mut request)?;
//!     let line = asked.to_string(); // exec default/web-0 ["echo", "hello"]
//!     let (response, session) = asked.join(&client).await?;
//!     tokio::spawn(async move { println!("{line}: {:?}", session.await) });
//!     Ok(response)
//! }
//!
//! let gateway = Router::new().fallback(join);
//! # let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
//! # let url = format!("http://{}", listener.local_addr()?);
//! # tokio::spawn(async { axum::serve(listener, gateway.with_state(client)).await });
//! // A user of the gateway asks it as any API server.
//! let output = Client::from_url(&url)?.pod("default", "web-0").exec(["echo", "hello"]).output().await?;
//! assert_eq!(output.stdout, b"hello\n");
//! # Ok(())
//! # });
//! ```
//!
//! What [`PodRequest`] does can be done in steps, with paths, subprotocols and a record of what
//! passes of the gateway's own: [`RemoteCommandRequest`] and
//! [`PortForwardRequest`](crate::server::PortForwardRequest), then [`Splice`] and [`ForwardSplice`].

mod forward;
mod pod_request;
mod pump;
mod splice;

pub use forward::{ForwardSplice, Forwarded};
pub use pod_request::{Outcome, PodRequest, Subresource, read};
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
        pod.exec(&self.command)
            .streams(self.streams, &self.container)
    }

    /// The same request for attach, to be made by this side.
    pub fn attach(&self, pod: &Pod) -> Attach {
        pod.attach().streams(self.streams, &self.container)
    }
}

impl Process {
    /// Joins the session to one with an API server; [`Splice`] says how.
    pub fn splice(self, session: impl Into<ClientSession>) -> Splice {
        Splice::new(self, session.into())
    }
}

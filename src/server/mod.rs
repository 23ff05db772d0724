//! The other side of each verb, for gateways and fake servers: in flow requests that a
//! [hyper](https://docs.rs/hyper) server received, out come the response to give and handles in
//! the shape of the client's.
//!
//! ```
//! # use kubewire::{server, wire::status::Status};
//! # use http::{Request, Response};
//! # use http_body_util::Full;
//! # use bytes::Bytes;
//! # use tokio::io::AsyncWriteExt as _;
//! /// Answers every exec with a greeting.
//! fn greet<B>(mut request: Request<B>) -> Response<Full<Bytes>> {
//!     let accepted = server::RemoteCommandRequest::parse(&mut request)
//!         .and_then(|request| request.accept(&server::SUBPROTOCOLS));
//!     let (response, opening) = match accepted {
//!         Ok(accepted) => accepted,
//!         Err(refusal) => return refusal.into_response(),
//!     };
//!     tokio::spawn(async move {
//!         let mut process = opening.await?;
//!         if let Some(mut stdout) = process.stdout.take() {
//!             stdout.write_all(b"hello\n").await?;
//!         }
//!         process.exit(Status::success()).await?;
//!         Ok::<_, std::io::Error>(())
//!     });
//!     response
//! }
//! ```

pub(crate) mod port_forward;
mod refusal;
mod remote_command;
pub(crate) mod upgrade;

pub use crate::transport::ws::{port_forward::ForwardStream, stats::SessionStats};
pub use port_forward::{Forwarding, IncomingForward, PortForwardRequest};
pub use refusal::Refusal;
pub use remote_command::{Output, Process, RemoteCommandRequest, SUBPROTOCOLS, Stdin};

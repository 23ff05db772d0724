//! Kubernetes' streaming protocols: exec, attach, port-forward, logs and watch.

#[cfg(feature = "client")]
pub mod auth;
#[cfg(feature = "client")]
pub mod client;
#[cfg(feature = "client")]
pub mod config;
pub mod error;
pub mod limits;
#[cfg(any(feature = "client", feature = "testing"))]
pub mod net;
#[cfg(any(feature = "client", feature = "server"))]
mod resource;
mod role;
#[cfg(feature = "server")]
pub mod server;
pub mod session;
#[cfg(all(feature = "testing", unix))]
pub mod testing;
#[cfg(any(feature = "client", feature = "server"))]
pub mod transport;
pub mod wire;

#[cfg(feature = "client")]
pub use client::Client;
#[cfg(feature = "client")]
pub use config::Config;
pub use error::{Error, Result};
#[cfg(any(feature = "client", feature = "server"))]
pub use resource::Resource;
#[cfg(all(feature = "k8s-openapi", any(feature = "client", feature = "server")))]
pub use resource::Scope;
pub use role::Role;

/// The `User-Agent` of every request.
#[cfg(feature = "client")]
pub(crate) const AGENT: &str = concat!("kubewire/", env!("CARGO_PKG_VERSION"));

/// The code in the README compiles, and what can run there runs.
#[cfg(all(doctest, feature = "client", feature = "testing"))]
#[doc = include_str!("../README.md")]
struct Readme;

//! Kubernetes' streaming protocols: exec, attach, port-forward, logs and watch.

#[cfg(feature = "client")]
pub mod client;
#[cfg(feature = "client")]
pub mod config;
pub mod error;
pub mod limits;
mod role;
pub mod session;
#[cfg(feature = "client")]
pub mod transport;
pub mod wire;

#[cfg(feature = "client")]
pub use client::Client;
#[cfg(feature = "client")]
pub use config::Config;
pub use error::{Error, Result};
pub use role::Role;

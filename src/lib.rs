//! Kubernetes' streaming protocols: exec, attach, port-forward, logs and watch.

pub mod error;
pub mod limits;
mod role;
pub mod session;
#[cfg(feature = "client")]
pub mod transport;
pub mod wire;

pub use error::{Error, Result};
pub use role::Role;

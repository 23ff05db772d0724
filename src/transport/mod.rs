//! Events to sockets and back: the only tasks, clocks and sockets of this crate.

#[cfg(feature = "client")]
mod any;
#[cfg(feature = "client")]
pub mod connect;
#[cfg(feature = "client")]
pub(crate) mod exchange;
#[cfg(feature = "client")]
pub(crate) mod http;
// One file for both roles: a build with one of them leaves the other's part unused.
#[cfg_attr(not(all(feature = "client", feature = "server")), allow(dead_code))]
pub(crate) mod remote_command;
pub(crate) mod shared;
#[cfg(feature = "client")]
mod tls;
#[cfg(feature = "client")]
pub(crate) mod upgrade;
#[cfg_attr(not(feature = "client"), allow(dead_code))]
pub(crate) mod websocket;

#[cfg(feature = "client")]
pub use any::AnyWebSocket;

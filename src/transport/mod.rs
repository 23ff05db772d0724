//! Events to sockets and back: the only tasks, clocks and sockets of this crate.

mod any;
#[cfg(feature = "client")]
pub(crate) mod body;
#[cfg(feature = "client")]
pub mod connect;
#[cfg(feature = "client")]
mod connection;
#[cfg(feature = "client")]
pub(crate) mod exchange;
#[cfg(feature = "client")]
pub(crate) mod http;
#[cfg_attr(not(all(feature = "client", feature = "testing")), allow(dead_code))]
pub(crate) mod messages;
#[cfg(feature = "client")]
pub(crate) mod pool;
// One file for both roles: a build with one of them leaves the other's part unused.
#[cfg_attr(not(all(feature = "client", feature = "server")), allow(dead_code))]
pub(crate) mod port_forward;
#[cfg(any(feature = "client", feature = "testing"))]
pub(crate) mod provider;
#[cfg_attr(not(all(feature = "client", feature = "server")), allow(dead_code))]
pub(crate) mod relay;
#[cfg_attr(not(all(feature = "client", feature = "server")), allow(dead_code))]
pub(crate) mod remote_command;
#[cfg(feature = "client")]
mod rotation;
pub(crate) mod shared;
mod slices;
#[cfg(feature = "client")]
mod tls;
#[cfg(feature = "client")]
mod tunnel;
#[cfg(feature = "client")]
pub(crate) mod upgrade;
pub(crate) mod websocket;

/// The time, by the clock that the timers follow: tests that pause tokio's pause the sessions too.
pub(crate) fn now() -> std::time::Instant {
    tokio::time::Instant::now().into_std()
}

pub use any::AnyWebSocket;

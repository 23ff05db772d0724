//! Events to sockets and back: the only tasks, clocks and sockets of this crate.

pub mod connect;
pub(crate) mod exchange;
pub(crate) mod http;
pub(crate) mod remote_command;
pub(crate) mod shared;
mod tls;
pub(crate) mod upgrade;
pub(crate) mod websocket;

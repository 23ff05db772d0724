//! Events to sockets and back: the only tasks, clocks and sockets of this crate.

pub mod connect;
mod connection;
pub(crate) mod http;
pub(crate) mod remote_command;
mod rotation;
pub(crate) mod shared;
mod tls;
mod tunnel;
pub(crate) mod upgrade;
pub(crate) mod websocket;

//! Events to sockets and back: the only tasks, clocks and sockets of this crate.

pub(crate) mod remote_command;
pub(crate) mod shared;
pub(crate) mod websocket;

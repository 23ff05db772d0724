//! WebSockets and the sessions over them: in flow sockets, out come handles.

pub(super) mod any;
pub(crate) mod handshake;
#[cfg(any(feature = "client", feature = "testing"))]
pub(crate) mod messages;
pub(crate) mod port_forward;
pub(crate) mod relay;
pub(crate) mod remote_command;
mod shared;
#[cfg(test)]
pub(crate) use shared::tests::model;
pub(crate) mod slices;
pub(crate) mod stats;
pub(crate) mod websocket;

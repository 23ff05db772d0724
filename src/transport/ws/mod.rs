//! WebSockets and the sessions over them: in flow sockets, out come handles.

pub(super) mod any;
#[cfg_attr(not(all(feature = "client", feature = "testing")), allow(dead_code))]
pub(crate) mod messages;
// One file for both roles: a build with one of them leaves the other's part unused.
#[cfg_attr(not(all(feature = "client", feature = "server")), allow(dead_code))]
pub(crate) mod port_forward;
#[cfg_attr(not(all(feature = "client", feature = "server")), allow(dead_code))]
pub(crate) mod relay;
#[cfg_attr(not(all(feature = "client", feature = "server")), allow(dead_code))]
pub(crate) mod remote_command;
pub(crate) mod shared;
mod slices;
pub(crate) mod websocket;

//! Sockets to the API server: dial, the proxy's handshake, TLS.
//!
//! In flow the settings of a [`Config`](crate::Config); out come [`Connection`]s, to which HTTP or
//! WebSocket is spoken.

#[cfg(feature = "client")]
mod connect;
#[cfg(feature = "client")]
mod connection;
pub(crate) mod provider;
#[cfg(feature = "client")]
mod proxy;
#[cfg(feature = "client")]
mod rotation;
#[cfg(feature = "client")]
mod tls;

#[cfg(feature = "client")]
pub use self::{
    connect::{Alpn, Connector},
    connection::Connection,
};

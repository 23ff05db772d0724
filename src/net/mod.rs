//! Sockets to the API server: dial, the proxy's handshake, TLS.
//!
//! In flow the settings of a [`Config`](crate::Config); out come [`Connection`]s, to which HTTP or
//! WebSocket is spoken.

#[cfg(feature = "client")]
mod blame;
#[cfg(feature = "client")]
mod body;
#[cfg(feature = "client")]
mod certificate;
#[cfg(feature = "client")]
mod connection;
#[cfg(feature = "client")]
mod dialer;
pub(crate) mod provider;
#[cfg(feature = "client")]
mod proxy;
#[cfg(feature = "client")]
mod rotation;
#[cfg(all(test, feature = "client"))]
pub(crate) mod tests;
#[cfg(feature = "client")]
mod tls;

#[cfg(feature = "client")]
pub(crate) use self::{
    blame::{blame, is_unprocessed},
    body::short,
    dialer::Dialer,
};
#[cfg(feature = "client")]
pub use self::{connection::Connection, dialer::Alpn};

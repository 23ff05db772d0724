//! Sockets for the sessions: tokio, rustls and hyper live here and nowhere below.

pub mod connect;
mod tls;

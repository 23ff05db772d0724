//! The WebSockets of a tunnel: in flow those that were dialled, out comes the one for a new
//! connection.

use tokio::sync::OwnedSemaphorePermit;

use crate::{session::port_forward::ForwardProtocol, transport::ws::port_forward::Connections};

/// How connections are opened.
#[derive(Debug)]
pub(in crate::client::port_forward) enum Transport {
    /// On WebSockets that they share, at least one.
    Shared(Vec<Socket>),
    /// On a WebSocket each.
    Channels(ForwardProtocol),
}

impl Transport {
    pub(in crate::client::port_forward) fn shared(connections: Connections) -> Self {
        Self::Shared(vec![Socket::new(connections)])
    }
}

/// A WebSocket that connections share.
#[derive(Debug)]
pub(in crate::client::port_forward) struct Socket {
    pub(super) connections: Connections,
    /// Says that it is not the first, of which there are only so many.
    pub(super) _further: Option<OwnedSemaphorePermit>,
}

impl Socket {
    pub(super) fn new(connections: Connections) -> Self {
        Self {
            connections,
            _further: None,
        }
    }
}

/// The WebSocket that a new connection waits on least, and whether it has it to itself.
pub(super) fn best(sockets: &[Socket]) -> Option<(Connections, bool)> {
    let loads = sockets
        .iter()
        .map(|socket| (socket.connections.load(), socket));
    let (load, socket) = loads.min_by_key(|(load, _)| *load)?;
    Some((socket.connections.clone(), load == (false, 0)))
}

//! The WebSockets of a tunnel: in flow those that were dialled, out comes the one for a new
//! connection.

use tokio::sync::OwnedSemaphorePermit;

use crate::{session::port_forward::ForwardProtocol, transport::ws::port_forward::Connections};

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

    /// The WebSockets that all connections share; none over channels.
    pub(super) fn sockets(&self) -> &[Socket] {
        match self {
            Self::Shared(sockets) => sockets,
            Self::Channels(_) => &[],
        }
    }
}

/// A WebSocket that connections share.
#[derive(Debug)]
pub(in crate::client::port_forward) struct Socket {
    pub(super) connections: Connections,
    /// Says that it is not the first, of which there are only so many.
    pub(super) _further: Option<OwnedSemaphorePermit>,
    /// Whether it was dialled to keep ports apart, and is left when nothing is on it.
    pub(super) apart: bool,
}

impl Socket {
    pub(super) fn new(connections: Connections) -> Self {
        Self {
            connections,
            _further: None,
            apart: false,
        }
    }
}

/// Leaves those that were dialled to keep ports apart and carry nothing, but for one that is idle.
pub(super) fn leave_idle(sockets: &mut Vec<Socket>) {
    let is_idle = |socket: &Socket| socket.connections.load().1 == 0;
    let mut idle = sockets.iter().filter(|socket| is_idle(socket)).count();
    sockets.retain(|socket| {
        let leave = idle > 1 && socket.apart && is_idle(socket);
        idle -= usize::from(leave);
        !leave
    });
}

/// The WebSocket for a new connection.
pub(super) struct Best<'a> {
    pub(super) connections: &'a Connections,
    /// Whether the connection has it to itself.
    pub(super) alone: bool,
    /// Whether it shares it with none that may be hurt by it, or hurt it.
    pub(super) suits: bool,
}

/// The WebSocket on which a connection to a port does no harm, and waits least.
pub(super) fn best(sockets: &[Socket], port: u16) -> Option<Best<'_>> {
    let ranks = sockets.iter().map(|Socket { connections, .. }| {
        let suits = connections.suits(port);
        ((!suits, connections.load()), connections)
    });
    let ((unsuited, load), connections) = ranks.min_by_key(|(rank, _)| *rank)?;
    Some(Best {
        connections,
        alone: load == (false, 0),
        suits: !unsuited,
    })
}

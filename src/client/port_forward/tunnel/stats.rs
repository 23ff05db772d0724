//! What a tunnel tells of itself: in flow its WebSockets, out come counts.

use super::{State, Tunnel};
use crate::transport::ws::stats::SessionStats;

/// What a [`Tunnel`] has carried and carries.
///
/// ```
/// # kubewire::example(|pod| pod.container("main", ["sh", "-c", "echo ready; sleep 600"]), async |client| {
/// let tunnel = client.pod("default", "web-0").port_forward().connect().await?;
/// let stats = tunnel.stats();
/// assert_eq!((stats.connections, stats.opened, stats.reconnects), (0, 0, 0));
/// # Ok(())
/// # });
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct TunnelStats {
    /// WebSockets that new connections may use. Over channels each connection has its own, which
    /// are not among these.
    pub websockets: usize,
    /// Connections on them that have not ended.
    pub connections: usize,
    /// Connections that have been opened so far.
    pub opened: u64,
    /// How often the WebSockets were given up for another, as they had died or the pod had gone.
    pub reconnects: u64,
    /// What went through these WebSockets so far; what those carried that were given up is not in
    /// it.
    pub traffic: SessionStats,
}

impl State {
    /// How many WebSockets connections share, and how many connections.
    pub(super) fn occupancy(&self) -> (usize, usize) {
        let sockets = self.transport.sockets();
        let loads = sockets.iter().map(|socket| socket.connections.load().1);
        (sockets.len(), loads.sum())
    }
}

impl Tunnel {
    /// What the tunnel has carried and carries.
    pub fn stats(&self) -> TunnelStats {
        let state = self.shared.state();
        let (websockets, connections) = state.occupancy();
        let mut traffic = SessionStats::default();
        for socket in state.transport.sockets() {
            traffic += socket.connections.stats();
        }
        TunnelStats {
            websockets,
            connections,
            opened: state.opened,
            reconnects: state.renewed,
            traffic,
        }
    }

    /// Streams of the WebSockets that new connections may use which are not forgotten: of
    /// connections that either end may still use, or that have not been read to the end, two each.
    /// Over channels there is no such WebSocket, and none.
    pub async fn streams(&self) -> usize {
        let state = self.shared.state();
        let sockets = state.transport.sockets().iter();
        sockets.map(|socket| socket.connections.streams()).sum()
    }
}

//! What the clones of a tunnel share: in flow what has become of the pod and of the WebSockets, out
//! comes a way to the pod that is there at the moment.

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use tokio::{
    sync::{Mutex as AsyncMutex, OwnedSemaphorePermit, Semaphore},
    time::Instant,
};
use tracing::Span;

use super::{ForwardPort, PortForward, resolve::Destination};
use crate::{
    Result,
    client::Pod,
    error::{CallerError, Error},
    limits,
    session::port_forward::ForwardProtocol,
    transport::ws::{port_forward::Connections, stats::SessionStats},
};

/// How connections are opened.
#[derive(Debug)]
pub(super) enum Transport {
    /// On WebSockets that they share, at least one.
    Shared(Vec<Socket>),
    /// On a WebSocket each.
    Channels(ForwardProtocol),
}

impl Transport {
    pub(super) fn shared(connections: Connections) -> Self {
        Self::Shared(vec![Socket::new(connections)])
    }
}

/// A WebSocket that connections share.
#[derive(Debug)]
pub(super) struct Socket {
    pub(super) connections: Connections,
    /// Says that it is not the first, of which there are only so many.
    pub(super) _further: Option<OwnedSemaphorePermit>,
}

impl Socket {
    fn new(connections: Connections) -> Self {
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

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) forward: PortForward,
    /// Locked while the pod is looked for and dialled. Those who wait for that share what comes
    /// of it.
    pub(super) way: AsyncMutex<Way>,
    /// How often that has been done.
    pub(super) attempts: AtomicU64,
    pub(super) state: Mutex<State>,
    /// The WebSockets that may be dialled beside the first.
    pub(super) further: Arc<Semaphore>,
    /// Whether a connection failed in a way that speaks of a pod that has gone.
    pub(super) doubt: AtomicBool,
    pub(super) span: Span,
}

#[derive(Debug)]
pub(super) struct Way {
    pub(super) destination: Destination,
    /// When the pod was last known to be there.
    pub(super) looked: Instant,
    /// Why there was none the last time.
    pub(super) failed: Option<Error>,
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) pod: Pod,
    pub(super) transport: Transport,
    /// How often the WebSockets have been given up for others.
    pub(super) renewed: u64,
    /// Connections that have been opened.
    pub(super) opened: u64,
}

/// What a [`Tunnel`](super::Tunnel) has carried and carries.
///
/// ```
/// # async fn run(tunnel: kubewire::port_forward::Tunnel) {
/// let stats = tunnel.stats().await;
/// println!("{} of {} connections are open", stats.connections, stats.opened);
/// # }
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
        match &self.transport {
            Transport::Shared(sockets) => {
                let loads = sockets.iter().map(|socket| socket.connections.load().1);
                (sockets.len(), loads.sum())
            }
            Transport::Channels(_) => (0, 0),
        }
    }
}

impl Shared {
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sees to it that there is a way to the pod, and says what the port is there.
    pub(super) async fn find(&self, port: &ForwardPort) -> Result<u16> {
        let arrived = self.attempts.load(Ordering::Relaxed);
        let mut way = self.way.lock().await;
        // What failed while this one waited would fail again, and take as long.
        if self.attempts.load(Ordering::Relaxed) != arrived
            && let Some(error) = &way.failed
        {
            return Err(error.clone());
        }
        let found = async {
            self.renew(&mut way).await?;
            way.destination.port(&self.forward.client, port).await
        };
        let found = found.await;
        self.attempts.fetch_add(1, Ordering::Relaxed);
        // That there is no such port says nothing of others.
        let shared = |error: &&Error| !matches!(error, Error::Caller(CallerError::NoPort { .. }));
        way.failed = found.as_ref().err().filter(shared).cloned();
        Ok(found?.pod)
    }

    /// Finds the pod anew if it may have gone, and dials if there is no way to it.
    async fn renew(&self, way: &mut Way) -> Result<()> {
        let Self { forward, doubt, .. } = self;
        let doubted = doubt.load(Ordering::Relaxed);
        let lost = match &mut self.state().transport {
            Transport::Shared(sockets) => {
                let leave = |socket: &Socket| socket.connections.should_leave();
                let lost = sockets.iter().all(leave);
                if !lost {
                    sockets.retain(|socket| !leave(socket));
                }
                lost
            }
            Transport::Channels(_) => false,
        };
        let stale = way.looked.elapsed() >= limits::FORWARD_FRESH
            && way.destination.is_gone(&forward.client).await;
        if !(lost || doubted || stale) {
            if way.looked.elapsed() >= limits::FORWARD_FRESH {
                way.looked = Instant::now();
            }
            return Ok(());
        }
        let next = forward.find(Some(&way.destination)).await?;
        let is_shared = matches!(self.state().transport, Transport::Shared(_));
        // The old ones go on with the connections that they have.
        if is_shared && (lost || doubted || !next.is_pod_of(&way.destination)) {
            tracing::debug!(pod = next.pod.name(), "dialling the port-forward again");
            let connections = forward.dial_spdy(&next.pod).await?;
            let mut state = self.state();
            state.transport = Transport::shared(connections);
            state.renewed += 1;
        }
        self.state().pod = next.pod.clone();
        way.destination = next;
        way.looked = Instant::now();
        if doubted {
            doubt.store(false, Ordering::Relaxed);
        }
        Ok(())
    }
}

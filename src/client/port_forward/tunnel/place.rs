//! Where a connection is opened: in flow a port and the WebSockets that there are, out comes a
//! connection on one that suits it, which may have to be dialled.

use std::{io, sync::Arc};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::Instant,
};

use super::{
    Connections, ForwardPort, ForwardStream, Shared, State, Tunnel,
    sockets::{Socket, Transport, best, leave_idle},
};
use crate::{
    Error, Result, client::Pod, error::CallerError, session::port_forward::ForwardProtocol,
};

enum Place {
    Shared(Result<ForwardStream>),
    Dial(Dial),
    Channel(Pod, ForwardProtocol),
}

/// That a WebSocket is to be dialled.
struct Dial {
    permit: OwnedSemaphorePermit,
    /// To keep ports apart.
    apart: bool,
}

impl Dial {
    fn new(permits: &Arc<Semaphore>, apart: bool) -> Option<Self> {
        let permit = permits.clone().try_acquire_owned().ok()?;
        Some(Self { permit, apart })
    }
}

impl Shared {
    /// Opens a connection where it does no harm, or says where that has to be done; `None` if
    /// that is away from the WebSockets that are there, on one that only one may dial at a time.
    fn place(&self, port: u16) -> Result<Option<Place>> {
        let State { pod, transport, .. } = &mut *self.state();
        let sockets = match transport {
            Transport::Shared(sockets) => sockets,
            Transport::Channels(protocol) => {
                return Ok(Some(Place::Channel(pod.clone(), *protocol)));
            }
        };
        leave_idle(sockets);
        let best = best(sockets, port).ok_or(CallerError::Ended)?;
        let further = match best.alone {
            true => None,
            false => Dial::new(&self.further, false),
        };
        Ok(match further {
            Some(dial) => Some(Place::Dial(dial)),
            None => (best.suits).then(|| Place::Shared(open(best.connections, port))),
        })
    }

    /// Opens a connection on a WebSocket that is there, if there is one.
    fn share(&self, port: u16) -> Option<Result<ForwardStream>> {
        let state = self.state();
        let best = best(state.transport.sockets(), port)?;
        Some(open(best.connections, port))
    }
}

impl Tunnel {
    pub(super) async fn open_once(&self, port: &ForwardPort) -> Result<ForwardStream> {
        let shared = &*self.shared;
        let port = shared.find(port).await?;
        // Those who come to keep away from the same one share what is dialled.
        let mut turn = None;
        let mut place = shared.place(port)?;
        if place.is_none() {
            let arrived = Instant::now();
            let failed = turn.insert(shared.dialling.lock().await);
            if failed.is_none_or(|failed| failed < arrived) {
                place = shared.place(port)?;
                place = place.or_else(|| Dial::new(&shared.apart, true).map(Place::Dial));
            }
        }
        let dial = match place {
            Some(Place::Shared(opened)) => return opened,
            Some(Place::Channel(pod, protocol)) => {
                return shared.forward.dial_channel(&pod, protocol, port).await;
            }
            Some(Place::Dial(dial)) => dial,
            None => return shared.share(port).ok_or(CallerError::Ended)?,
        };
        let (pod, renewed) = {
            let state = shared.state();
            (state.pod.clone(), state.renewed)
        };
        match shared.forward.dial_spdy(&pod).await {
            Ok(connections) => {
                let mut state = shared.state();
                let opened = open(&connections, port);
                // Unless there has come to be another pod.
                if let (true, Transport::Shared(sockets)) =
                    (renewed == state.renewed, &mut state.transport)
                {
                    sockets.push(Socket {
                        connections,
                        _further: Some(dial.permit),
                        apart: dial.apart,
                    });
                }
                opened
            }
            Err(error) => {
                tracing::debug!(%error, "no further WebSocket for a connection");
                if let Some(turn) = &mut turn {
                    **turn = Some(Instant::now());
                }
                shared.share(port).unwrap_or(Err(error))
            }
        }
    }
}

fn open(connections: &Connections, port: u16) -> Result<ForwardStream> {
    let lost = |why| match connections.ended() {
        Some(Err(error)) => error,
        _ => Error::lost(io::Error::other(why)),
    };
    connections.open(port).map_err(lost)
}

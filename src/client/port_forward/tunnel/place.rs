//! Where a connection is opened: in flow a port and the WebSockets that there are, out comes a
//! connection on one that suits it, which may have to be dialled.

use std::sync::Arc;

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::Instant,
};

use super::{
    ForwardPort, ForwardStream, Shared, State, Tunnel, ended,
    sockets::{Socket, Transport, best, leave_idle},
};
use crate::{Result, client::Pod, error::CallerError, session::port_forward::ForwardProtocol};

/// Where a connection is opened.
enum Place {
    Shared(Result<ForwardStream>),
    /// Away from those that are there, on a WebSocket that only one may dial at a time.
    Apart,
    /// On a WebSocket that is to be dialled, as the permit says.
    Further(Dial),
    Channel(Pod, ForwardProtocol),
}

struct Dial {
    pod: Pod,
    renewed: u64,
    permit: OwnedSemaphorePermit,
    /// To keep ports apart.
    apart: bool,
}

/// Which WebSockets may be dialled for a connection.
#[derive(Clone, Copy, PartialEq, Eq)]
enum May {
    Nothing,
    Further,
    Apart,
}

impl Shared {
    /// Opens a connection where it does no harm, or says where that has to be done.
    fn place(&self, port: u16, may: May) -> Result<Place> {
        let mut state = self.state();
        let State {
            pod,
            renewed,
            transport,
            ..
        } = &mut *state;
        let sockets = match transport {
            Transport::Shared(sockets) => sockets,
            Transport::Channels(protocol) => return Ok(Place::Channel(pod.clone(), *protocol)),
        };
        leave_idle(sockets);
        let best = best(sockets, port).ok_or(CallerError::Ended)?;
        let permit = |of: &Arc<Semaphore>| of.clone().try_acquire_owned().ok();
        let mut dial = None;
        if may != May::Nothing && !best.alone {
            dial = permit(&self.further).map(|permit| (permit, false));
        }
        if dial.is_none() && !best.suits {
            match may {
                May::Nothing => {}
                May::Further => return Ok(Place::Apart),
                May::Apart => dial = permit(&self.apart).map(|permit| (permit, true)),
            }
        }
        Ok(match dial {
            Some((permit, apart)) => Place::Further(Dial {
                pod: pod.clone(),
                renewed: *renewed,
                permit,
                apart,
            }),
            None => {
                let opened = best.connections.open(port);
                Place::Shared(opened.map_err(|why| ended(best.connections, why)))
            }
        })
    }
}

impl Tunnel {
    pub(super) async fn open_once(&self, port: &ForwardPort) -> Result<ForwardStream> {
        let Shared {
            forward, dialling, ..
        } = &*self.shared;
        let port = self.shared.find(port).await?;
        let mut place = self.shared.place(port, May::Further)?;
        // Those who come to keep away from the same one share what is dialled.
        let mut turn = None;
        if let Place::Apart = place {
            let arrived = Instant::now();
            let others = dialling.lock().await;
            let failed = others.is_some_and(|failed| failed >= arrived);
            let may = if failed { May::Nothing } else { May::Apart };
            turn = Some(others);
            place = self.shared.place(port, may)?;
        }
        let dial = match place {
            Place::Shared(opened) => return opened,
            Place::Channel(pod, protocol) => {
                return forward.dial_channel(&pod, protocol, port).await;
            }
            Place::Further(dial) => dial,
            Place::Apart => return Err(CallerError::Ended.into()),
        };
        match forward.dial_spdy(&dial.pod).await {
            Ok(connections) => {
                let mut state = self.shared.state();
                let opened = connections.open(port);
                let opened = opened.map_err(|why| ended(&connections, why));
                // Unless there has come to be another pod.
                if let (true, Transport::Shared(sockets)) =
                    (dial.renewed == state.renewed, &mut state.transport)
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
                match self.shared.place(port, May::Nothing)? {
                    Place::Shared(opened) => opened,
                    Place::Apart | Place::Further(_) | Place::Channel(..) => Err(error),
                }
            }
        }
    }
}

//! Unix sockets: in flow connections to a path, out come forwarded ones.

use std::time::Duration;

use kubewire::port_forward::{ForwardPort, Traffic, Tunnel};
use tokio::{sync::mpsc, task::JoinSet};

use super::{Ended, News};
use crate::unix_socket::UnixSocket;

/// Forwards what connects to a socket to a port.
pub(super) async fn watch(
    listener: UnixSocket,
    tunnel: Tunnel,
    port: ForwardPort,
    news: mpsc::Sender<News>,
) {
    let mut connections = JoinSet::new();
    loop {
        let socket = match listener.accept().await {
            Ok(socket) => socket,
            Err(error) => {
                // Out of file descriptors, say: they come back when connections end.
                tracing::debug!(%error, "cannot accept a local connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        while connections.try_join_next().is_some() {}
        let here = format!("unix:{}", listener.path());
        let (tunnel, port, news) = (tunnel.clone(), port.clone(), news.clone());
        connections.spawn(async move {
            // If nobody listens, the program is at its end.
            let _ = news.send(News::Accepted(here.clone())).await;
            let (traffic, error) = match tunnel.forward(socket, port).await {
                Ok(traffic) => (traffic, None),
                Err(error) => (Traffic::default(), Some(error)),
            };
            let ended = Ended {
                port: here,
                peer: None,
                traffic,
                error,
            };
            let _ = news.send(News::Ended(ended)).await;
        });
    }
}

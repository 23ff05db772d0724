//! Unix sockets: in flow connections to a path, out come forwarded ones.

use std::{fs, io::ErrorKind, os::unix::fs::FileTypeExt as _, time::Duration};

use kubewire::port_forward::{ForwardPort, Traffic, Tunnel};
use tokio::{net::UnixListener, sync::mpsc, task::JoinSet};

use super::News;
use crate::failure::Failure;

/// A socket, which is removed when it is no longer listened on.
pub(super) struct Listening {
    listener: UnixListener,
    path: String,
}

impl Drop for Listening {
    fn drop(&mut self) {
        // Whoever has removed it meanwhile has done what is to be done.
        let _ = fs::remove_file(&self.path);
    }
}

/// Listens at a path. A socket that nobody listens on any more is replaced.
pub(crate) fn listen(path: &str) -> Result<UnixListener, Failure> {
    let failed = |error: std::io::Error| Failure::local(&format!("unix:{path}"), &error);
    match UnixListener::bind(path) {
        Err(error) if error.kind() == ErrorKind::AddrInUse => {}
        bound => return bound.map_err(failed),
    }
    let is_socket = fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket());
    let refused = std::os::unix::net::UnixStream::connect(path);
    let refused = refused.is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused);
    if is_socket && refused {
        fs::remove_file(path).map_err(failed)?;
    }
    UnixListener::bind(path).map_err(failed)
}

/// Forwards what connects to a socket to a port.
pub(super) async fn watch(
    listener: UnixListener,
    path: String,
    tunnel: Tunnel,
    port: ForwardPort,
    news: mpsc::Sender<News>,
) {
    let listening = Listening { listener, path };
    let mut connections = JoinSet::new();
    loop {
        let socket = match listening.listener.accept().await {
            Ok((socket, _)) => socket,
            Err(error) => {
                // Out of file descriptors, say: they come back when connections end.
                tracing::debug!(%error, "cannot accept a local connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        while connections.try_join_next().is_some() {}
        let here = format!("unix:{}", listening.path);
        let (tunnel, port, news) = (tunnel.clone(), port.clone(), news.clone());
        connections.spawn(async move {
            let accepted = News::Accepted { port: here.clone() };
            // If nobody listens, the program is at its end.
            let _ = news.send(accepted).await;
            let (traffic, error) = match tunnel.forward(socket, port).await {
                Ok(traffic) => (traffic, None),
                Err(error) => (Traffic::default(), Some(error)),
            };
            let ended = News::Ended {
                port: here,
                peer: None,
                traffic,
                error,
            };
            let _ = news.send(ended).await;
        });
    }
}

//! Connections: in flow TCP connections, out come HTTP requests for the router.

use std::{sync::Arc, time::Duration};

use hyper::service::service_fn;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
};
use tokio_rustls::TlsAcceptor;

use super::{
    faults::{Faulty, Plan},
    router::{self, Cluster},
};
use crate::limits;

/// Accepts connections until it is aborted.
pub(super) async fn serve(
    listener: TcpListener,
    acceptor: Option<TlsAcceptor>,
    cluster: Arc<Cluster>,
) {
    loop {
        let tcp = match listener.accept().await {
            Ok((tcp, _)) => tcp,
            Err(error) => {
                // Out of file descriptors, say: it may get better.
                tracing::warn!(%error, "the test server cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let _ = tcp.set_nodelay(true);
        let (acceptor, of_cluster) = (acceptor.clone(), cluster.clone());
        cluster.tasks.spawn(async move {
            match acceptor {
                None => connection(tcp, of_cluster).await,
                Some(acceptor) => {
                    let accepted = acceptor.accept(tcp);
                    // Otherwise it is the client's business: it does not trust us, say.
                    if let Ok(Ok(tls)) = tokio::time::timeout(limits::TLS_HANDSHAKE, accepted).await
                    {
                        connection(tls, of_cluster).await;
                    }
                }
            }
        });
    }
}

async fn connection<S>(io: S, cluster: Arc<Cluster>)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let plan = Arc::<Plan>::default();
    let io = Faulty::new(io, plan.clone());
    let service = service_fn(move |request| router::handle(cluster.clone(), plan.clone(), request));
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new());
    builder.http2().timer(TokioTimer::new());
    let served = builder
        .serve_connection_with_upgrades(TokioIo::new(io), service)
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "a connection to the test server ended");
    }
}

//! Connections: in flow TCP connections, out come HTTP requests for the router.

use std::{sync::Arc, time::Duration};

use hyper::{
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
};
use tokio_rustls::TlsAcceptor;

use crate::{
    limits,
    testing::{
        faults::{Faulty, Plan},
        router::{self, Cluster},
    },
};

/// How long the head of a request may take: `ReadHeaderTimeout` of
/// `k8s.io/apiserver/pkg/server/secure_serving.go`.
const HEAD: Duration = Duration::from_secs(32);

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
                None => connection(tcp, false, of_cluster).await,
                Some(acceptor) => {
                    let accepted = acceptor.accept(tcp);
                    // Otherwise it is the client's business: it does not trust us, say.
                    if let Ok(Ok(tls)) = tokio::time::timeout(limits::TLS_HANDSHAKE, accepted).await
                    {
                        let http2 = tls.get_ref().1.alpn_protocol() == Some(b"h2");
                        connection(tls, http2, of_cluster).await;
                    }
                }
            }
        });
    }
}

/// Serves one. Who has not sent the head of a request, or of the next, in time is left.
async fn connection<S>(io: S, http2: bool, cluster: Arc<Cluster>)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let plan = Arc::<Plan>::default();
    let io = Faulty::new(io, plan.clone());
    let service = service_fn(move |request| router::handle(cluster.clone(), plan.clone(), request));
    let io = TokioIo::new(io);
    let served = match http2 {
        true => {
            let mut builder = http2::Builder::new(TokioExecutor::new());
            builder.timer(TokioTimer::new()).keep_alive_interval(HEAD);
            builder.serve_connection(io, service).await
        }
        false => {
            let mut builder = http1::Builder::new();
            builder.timer(TokioTimer::new()).header_read_timeout(HEAD);
            builder.serve_connection(io, service).with_upgrades().await
        }
    };
    if let Err(error) = served {
        tracing::debug!(%error, "a connection to the test server ended");
    }
}

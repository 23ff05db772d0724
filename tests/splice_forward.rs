//! A client's port-forward joined to a tunnel: what passes, what holds whom back, and what each is
//! told of the other's end.

#![cfg(unix)]

#[path = "common/dialler.rs"]
mod dialler;

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use bytes::Bytes;
use dialler::{WORDS, dialler_that_panics};
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use kubewire::{
    Client, Config, Error,
    error::CallerError,
    gateway::Forwarded,
    limits,
    port_forward::{ForwardProtocol, Tunnel},
    server::{PortForwardRequest, Refusal},
    testing::ApiServer,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::mpsc::{self, UnboundedReceiver},
};

type Result<T = (), E = Box<dyn std::error::Error>> = std::result::Result<T, E>;

const DEADLINE: Duration = Duration::from_secs(180);

async fn within<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, work)
        .await
        .expect("it ends in time")
}

type Answer = Response<Full<Bytes>>;

/// Serves requests so; the URL.
async fn serve<F>(
    answer: impl Fn(Request<Incoming>) -> F + Clone + Send + 'static,
) -> Result<String>
where
    F: Future<Output = Result<Answer, Refusal>> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}", listener.local_addr()?);
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let answer = answer.clone();
            let service = hyper::service::service_fn(move |request| {
                let answer = answer(request);
                async { Ok::<_, Infallible>(answer.await.unwrap_or_else(Refusal::into_response)) }
            });
            let http = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
            tokio::spawn(async move {
                let io = TokioIo::new(socket);
                http.serve_connection_with_upgrades(io, service).await
            });
        }
    });
    Ok(url)
}

/// A gateway before a server with one pod, the tunnel of its user, and what it reports.
struct Stage {
    _server: ApiServer,
    tunnel: Tunnel,
    ended: UnboundedReceiver<Forwarded>,
}

impl Stage {
    async fn new() -> Result<Self> {
        Self::with(|config| config).await
    }

    /// Over tunnels of two WebSockets.
    async fn with(changed: impl FnOnce(Config) -> Config) -> Result<Self> {
        let server = ApiServer::builder()
            .pod("default", "web-0", |pod| {
                pod.container("main", ["sleep", "infinity"])
            })
            .start()
            .await?;
        let client = Client::new(&changed(server.config()))?;
        let (report, ended) = mpsc::unbounded_channel();
        let url = serve(move |mut request| {
            let (client, report) = (client.clone(), report.clone());
            async move {
                let asked = PortForwardRequest::parse(&mut request)?;
                let forward = client.pod("default", "web-0").port_forward();
                let tunnel = forward.websockets(2).connect().await?;
                let (response, opening) = asked.accept(&[ForwardProtocol::Spdy])?;
                tokio::spawn(async move {
                    let splice = opening.await?.splice(tunnel);
                    splice.each(move |one| drop(report.send(one))).await;
                    Ok::<_, Error>(())
                });
                Ok(response)
            }
        })
        .await?;
        let user = Client::from_url(&url)?.pod("default", "web-0");
        let tunnel = within(user.port_forward().connect()).await?;
        Ok(Self {
            _server: server,
            tunnel,
            ended,
        })
    }

    async fn ended(&mut self) -> Result<Forwarded> {
        Ok(within(self.ended.recv()).await.ok_or("it reports")?)
    }
}

/// The application in the pod, whose only connection this is.
async fn application() -> Result<(u16, impl Future<Output = std::io::Result<TcpStream>>)> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let port = listener.local_addr()?.port();
    Ok((port, async move {
        listener.accept().await.map(|(socket, _)| socket)
    }))
}

#[tokio::test]
async fn bytes_and_ends_go_through() -> Result {
    let mut stage = Stage::new().await?;
    let (port, accepted) = application().await?;
    let mut near = stage.tunnel.open(port).await?;
    let mut far = within(accepted).await?;
    let sent = vec![b'x'; 2 << 20];
    let feed = async {
        near.write_all(&sent).await?;
        near.shutdown().await
    };
    let mut got = Vec::new();
    within(async { tokio::try_join!(feed, far.read_to_end(&mut got)) }).await?;
    assert!(got == sent);
    // The other direction is open still.
    far.write_all(b"answer").await?;
    drop(far);
    let mut answer = String::new();
    within(near.read_to_string(&mut answer)).await?;
    assert_eq!(answer, "answer");
    let one = stage.ended().await?;
    one.result?;
    assert_eq!(
        (one.port, one.traffic.sent, one.traffic.received),
        (port, 2 << 20, 6)
    );
    Ok(())
}

#[tokio::test]
async fn a_panic_of_the_dialler_ends_one_connection_and_is_reported() -> Result {
    let mut stage = Stage::with(|config| dialler_that_panics(config, &[1])).await?;
    let (port, accepted) = application().await?;
    let mut one = stage.tunnel.open(port).await?;
    let mut far = within(accepted).await?;
    // The first WebSocket is taken, so another is dialled for this one.
    let mut two = stage.tunnel.open(port).await?;
    let told = within(two.read(&mut [0; 9])).await.unwrap_err().to_string();
    assert!(told.contains(WORDS), "{told}");
    let ended = stage.ended().await?;
    assert!(
        matches!(
            ended.result,
            Err(Error::Caller(CallerError::Panicked { .. }))
        ),
        "{ended:?}"
    );
    far.write_all(b"still").await?;
    let mut still = [0; 5];
    within(one.read_exact(&mut still)).await?;
    assert_eq!(&still, b"still");
    Ok(())
}

#[tokio::test]
async fn after_a_sandbox_has_gone_it_dials_again() -> Result {
    let dials = Arc::new(AtomicUsize::new(0));
    let counted = dials.clone();
    let url = serve(move |mut request| {
        let counted = counted.clone();
        async move {
            let asked = PortForwardRequest::parse(&mut request)?;
            let (response, opening) = asked.accept(&[ForwardProtocol::Spdy])?;
            counted.fetch_add(1, Relaxed);
            tokio::spawn(async move {
                let forwarding = opening.await?;
                while let Some(incoming) = forwarding.accept().await {
                    incoming.fail("the sandbox is not there");
                }
                Ok::<_, Error>(())
            });
            Ok(response)
        }
    })
    .await?;
    let upstream = Config::new(&url)?;
    let mut stage = Stage::with(|_| upstream).await?;
    for dialled in 1..=3 {
        let mut near = stage.tunnel.open(80).await?;
        let told = within(near.read_u8()).await.unwrap_err().to_string();
        assert!(told.contains("the sandbox is not there"), "{told}");
        stage.ended().await?;
        assert_eq!(dials.load(Relaxed), dialled);
    }
    Ok(())
}

#[tokio::test]
async fn a_refusal_has_the_words_of_the_pod_and_touches_nothing_else() -> Result {
    let mut stage = Stage::new().await?;
    let (port, accepted) = application().await?;
    let mut good = stage.tunnel.open(port).await?;
    let mut far = within(accepted).await?;
    // Nobody listens where somebody has.
    let closed = {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        listener.local_addr()?.port()
    };
    let mut bad = stage.tunnel.open(closed).await?;
    let error = within(bad.read_u8()).await.unwrap_err();
    let told = Error::of_io(&error).ok_or("it is an error of this crate")?;
    let known = stage.ended().await?.result.unwrap_err();
    let words = |error: &Error| error.status().map(|status| status.message.clone());
    assert!(words(&known).is_some());
    assert_eq!(words(told), words(&known));
    good.write_all(b"x").await?;
    assert_eq!(within(far.read_u8()).await?, b'x');
    Ok(())
}

#[tokio::test]
async fn a_client_that_leaves_resets_what_has_not_ended() -> Result {
    let mut stage = Stage::new().await?;
    let (port, accepted) = application().await?;
    let mut near = stage.tunnel.open(port).await?;
    let mut far = within(accepted).await?;
    near.write_all(b"half").await?;
    let mut half = [0; 4];
    within(far.read_exact(&mut half)).await?;
    stage.tunnel.close().await;
    assert!(stage.ended().await?.result.is_err());
    // How the pod's side shows it is the runtime's affair; it does end.
    let _ = within(far.read_u8()).await;
    Ok(())
}

#[tokio::test]
async fn a_client_that_does_not_read_holds_the_pod_back() -> Result {
    let mut stage = Stage::new().await?;
    let (port, accepted) = application().await?;
    let mut near = stage.tunnel.open(port).await?;
    let mut far = within(accepted).await?;
    // What fits into the buffers of two sessions and of the operating system, and what does not.
    let total = 16 * limits::FORWARD_RECEIVE;
    let feed = tokio::spawn(async move {
        let mut written = 0;
        while written < total {
            far.write_all(&[b'x'; 64 << 10]).await?;
            written += 64 << 10;
        }
        std::io::Result::Ok(())
    });
    // It cannot end before this side reads, whenever that is looked at.
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!feed.is_finished());
    let mut read = 0;
    let mut buffer = vec![0; 256 << 10];
    while read < total {
        let length = within(near.read(&mut buffer)).await?;
        assert!(length > 0, "after {read} of {total}");
        read += length;
    }
    within(feed).await??;
    drop(near);
    let one = stage.ended().await?;
    assert_eq!(one.traffic.received, total as u64);
    Ok(())
}

//! port-forward through real sockets, between this crate's client, its embedded server and
//! applications on this machine.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod listeners;
#[path = "../common/soon.rs"]
mod soon;

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr},
    sync::{Arc, Mutex},
    time::Duration,
};

use kubewire::{
    Client, Error,
    error::CallerError,
    port_forward::{HalfClose, ListenEvent, PortForward, Tunnel, WhenFull},
    session::port_forward::{ForwardConfig, ForwardProtocol},
    testing::{ApiServer, Fault},
    wire::status::Status,
};
use soon::soon;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufStream, duplex},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

type Result<T = (), E = Box<dyn std::error::Error>> = std::result::Result<T, E>;

fn builder() -> kubewire::testing::ApiServerBuilder {
    ApiServer::builder().pod("default", "web-0", |pod| {
        pod.container("main", ["sleep", "infinity"])
    })
}

struct Fixture {
    server: ApiServer,
    client: Client,
    applications: JoinSet<()>,
}

impl Fixture {
    async fn new() -> Result<Self> {
        Self::with(builder()).await
    }

    async fn with(builder: kubewire::testing::ApiServerBuilder) -> Result<Self> {
        let server = builder.start().await?;
        let client = Client::new(&server.config())?;
        Ok(Self {
            server,
            client,
            applications: JoinSet::new(),
        })
    }

    fn forward(&self) -> PortForward {
        self.client.pod("default", "web-0").port_forward()
    }

    async fn tunnel(&self) -> Result<Tunnel> {
        let tunnel = self.forward().connect().await?;
        assert_eq!(tunnel.protocol().await, ForwardProtocol::Spdy);
        Ok(tunnel)
    }

    /// An application; its port.
    async fn application<F>(
        &mut self,
        mut serve: impl FnMut(TcpStream) -> F + Send + 'static,
    ) -> u16
    where
        F: Future<Output = io::Result<()>> + Send + 'static,
    {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        self.applications.spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                tokio::spawn(serve(socket));
            }
        });
        port
    }

    /// Sends back what it gets.
    async fn echo(&mut self) -> u16 {
        self.application(|mut socket| async move {
            let (mut read, mut write) = socket.split();
            tokio::io::copy(&mut read, &mut write).await?;
            write.shutdown().await
        })
        .await
    }

    /// A port at which nobody listens.
    async fn nobody(&self) -> u16 {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        listener.local_addr().unwrap().port()
    }
}

async fn round_trip(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    text: &[u8],
) -> io::Result<()> {
    stream.write_all(text).await?;
    let mut answer = vec![0; text.len()];
    stream.read_exact(&mut answer).await?;
    assert_eq!(answer, text);
    Ok(())
}

fn noise(length: usize, seed: u8) -> Vec<u8> {
    (0..length)
        .map(|at| (at as u8).wrapping_mul(31) ^ (at >> 8) as u8 ^ seed)
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn many_connections_at_once_carry_their_own_bytes() -> Result {
    let mut fixture = Fixture::new().await?;
    let port = fixture.echo().await;
    let tunnel = fixture.tunnel().await?;
    let mut connections = JoinSet::new();
    for seed in 0..50 {
        let mut stream = tunnel.open(port).await?;
        connections.spawn(async move {
            let sent = noise(300_000, seed);
            let (mut read, mut write) = tokio::io::split(&mut stream);
            let mut answer = Vec::new();
            let up = async {
                write.write_all(&sent).await?;
                write.shutdown().await
            };
            let (up, down) = tokio::join!(up, read.read_to_end(&mut answer));
            up.unwrap();
            down.unwrap();
            assert!(answer == sent, "connection {seed}");
        });
    }
    soon(async {
        while connections.join_next().await.transpose()?.is_some() {}
        Ok::<_, tokio::task::JoinError>(())
    })
    .await?;
    Ok(())
}

#[tokio::test]
async fn a_refused_connection_fails_alone_and_says_why() -> Result {
    let mut fixture = Fixture::new().await?;
    let (echo, nobody) = (fixture.echo().await, fixture.nobody().await);
    let tunnel = fixture.tunnel().await?;
    let mut good = tunnel.open(echo).await?;
    round_trip(&mut good, b"before").await?;
    let mut bad = tunnel.open(nobody).await?;
    let error = soon(bad.read_u8()).await.unwrap_err();
    let Some(Error::Api(error)) = Error::of_io(&error) else {
        panic!("{error:?}");
    };
    assert!(
        error.status.message.contains("connection refused"),
        "{error}"
    );
    assert!(error.status.message.contains(&nobody.to_string()));
    assert!(bad.write_all(b"x").await.is_err());
    round_trip(&mut good, b"after").await?;
    Ok(())
}

#[tokio::test]
async fn an_application_that_resets_ends_its_connection_only() -> Result {
    let mut fixture = Fixture::new().await?;
    let rude = fixture
        .application(|mut socket| async move {
            socket.read_u8().await?;
            // Closing with unread bytes and no lingering is a reset.
            socket.set_zero_linger()?;
            Ok(())
        })
        .await;
    let echo = fixture.echo().await;
    let tunnel = fixture.tunnel().await?;
    let mut good = tunnel.open(echo).await?;
    let mut bad = tunnel.open(rude).await?;
    bad.write_all(b"hello").await?;
    let error = soon(bad.read_u8()).await.unwrap_err();
    assert!(Error::of_io(&error).is_some(), "{error:?}");
    round_trip(&mut good, b"still here").await?;
    Ok(())
}

#[tokio::test]
async fn who_only_writes_learns_that_the_application_has_left() -> Result {
    let mut fixture = Fixture::new().await?;
    let leaves = fixture
        .application(|mut socket| async move { socket.read_u8().await.map(drop) })
        .await;
    let stalls = fixture
        .application(|socket| async move {
            tokio::time::sleep(Duration::from_millis(500)).await;
            socket.set_zero_linger()
        })
        .await;
    // It learns without the help of the keepalive.
    let mut config = ForwardConfig::default();
    config.mux.keepalive.interval = Duration::from_secs(3600);
    let tunnel = fixture.forward().config(config).connect().await?;
    for port in [leaves, stalls] {
        let mut stream = tunnel.open(port).await?;
        let refused = async {
            loop {
                if let Err(error) = stream.write_all(&[7; 4 << 10]).await {
                    break error;
                }
                if port == leaves {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            }
        };
        let error = soon(refused).await;
        assert!(Error::of_io(&error).is_some(), "{error:?}");
    }
    Ok(())
}

#[tokio::test]
async fn half_close_reaches_both_ends() -> Result {
    let mut fixture = Fixture::new().await?;
    let counts = fixture
        .application(|mut socket| async move {
            let mut all = Vec::new();
            socket.read_to_end(&mut all).await?;
            socket.write_all(all.len().to_string().as_bytes()).await
        })
        .await;
    let greets = fixture
        .application(|mut socket| async move {
            socket.write_all(b"welcome").await?;
            socket.shutdown().await?;
            let mut all = Vec::new();
            socket.read_to_end(&mut all).await?;
            assert_eq!(all, b"thanks");
            Ok(())
        })
        .await;
    let tunnel = fixture.tunnel().await?;

    let mut stream = tunnel.open(counts).await?;
    stream.write_all(&noise(1 << 20, 0)).await?;
    stream.shutdown().await?;
    assert!(stream.write_all(b"late").await.is_err());
    let mut answer = String::new();
    soon(stream.read_to_string(&mut answer)).await?;
    assert_eq!(answer, "1048576");

    let mut stream = tunnel.open(greets).await?;
    let mut greeting = String::new();
    soon(stream.read_to_string(&mut greeting)).await?;
    assert_eq!(greeting, "welcome");
    stream.write_all(b"thanks").await?;
    stream.shutdown().await?;
    Ok(())
}

#[tokio::test]
async fn a_local_end_that_buffers_gets_its_answer_and_one_that_breaks_is_named() -> Result {
    let mut fixture = Fixture::new().await?;
    let port = fixture.echo().await;
    let tunnel = fixture.tunnel().await?;

    let (mut here, there) = duplex(64);
    let forwarded = tunnel.forward(BufStream::new(there), port);
    let asked = async {
        round_trip(&mut here, b"hello").await?;
        here.shutdown().await
    };
    let (forwarded, asked) = soon(Box::pin(async { tokio::join!(forwarded, asked) })).await;
    asked?;
    assert_eq!(forwarded?.received, 5);

    let (mut here, there) = duplex(64);
    here.write_all(b"hello").await?;
    here.shutdown().await?;
    let (closed, gone) = duplex(64);
    drop(gone);
    let forwarded = tunnel.forward(tokio::io::join(there, closed), port);
    let error = soon(forwarded).await.unwrap_err();
    assert!(
        matches!(error, Error::Caller(CallerError::Stream(_))),
        "{error:?}"
    );
    assert_eq!(error.to_string(), "a local stream failed: broken pipe");
    Ok(())
}

#[tokio::test]
async fn a_deferred_half_close_waits_for_the_other_end() -> Result {
    let mut fixture = Fixture::new().await?;
    let (heard, mut ends) = tokio::sync::mpsc::unbounded_channel();
    let port = fixture
        .application(move |mut socket| {
            let heard = heard.clone();
            async move {
                let mut request = [0; 7];
                socket.read_exact(&mut request).await?;
                let early = tokio::time::timeout(Duration::from_millis(200), socket.read_u8());
                heard.send(early.await.is_ok()).unwrap();
                socket.write_all(b"slow answer").await?;
                socket.shutdown().await?;
                assert_eq!(
                    socket.read_u8().await.unwrap_err().kind(),
                    io::ErrorKind::UnexpectedEof
                );
                heard.send(true).unwrap();
                Ok(())
            }
        })
        .await;
    let forward = fixture.forward().half_close(HalfClose::Defer);
    let tunnel = forward.connect().await?;
    let mut stream = tunnel.open(port).await?;
    stream.write_all(b"request").await?;
    stream.shutdown().await?;
    let mut answer = String::new();
    soon(stream.read_to_string(&mut answer)).await?;
    assert_eq!(answer, "slow answer");
    assert_eq!(
        soon(ends.recv()).await,
        Some(false),
        "no end before the answer"
    );
    assert_eq!(soon(ends.recv()).await, Some(true), "the end after it");
    Ok(())
}

#[tokio::test]
async fn dropping_a_stream_sends_what_was_written() -> Result {
    let mut fixture = Fixture::new().await?;
    let (heard, mut received) = tokio::sync::mpsc::unbounded_channel();
    let port = fixture
        .application(move |mut socket| {
            let heard = heard.clone();
            async move {
                let mut all = Vec::new();
                socket.read_to_end(&mut all).await?;
                heard.send(all.len()).unwrap();
                Ok(())
            }
        })
        .await;
    let tunnel = fixture.tunnel().await?;
    let mut stream = tunnel.open(port).await?;
    stream.write_all(&[7; 300_000]).await?;
    drop(stream);
    assert_eq!(soon(received.recv()).await, Some(300_000));
    // Nothing was written: the application sees a connection that ends.
    drop(tunnel.open(port).await?);
    assert_eq!(soon(received.recv()).await, Some(0));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_reader_stalls_only_itself_until_its_bound() -> Result {
    let mut fixture = Fixture::new().await?;
    let source = fixture
        .application(|mut socket| async move {
            let chunk = vec![1; 64 << 10];
            loop {
                socket.write_all(&chunk).await?;
            }
        })
        .await;
    let echo = fixture.echo().await;
    for choice in [WhenFull::Hold, WhenFull::Reset] {
        let mut config = ForwardConfig::default();
        config.mux.receive_buffer = 256 << 10;
        config.mux.patience = Duration::from_millis(500);
        config.when_full = choice;
        let forward = fixture.forward().config(config);
        let tunnel = forward.connect().await?;
        // Ports that have answered share a WebSocket.
        round_trip(&mut tunnel.open(echo).await?, b"once").await?;
        let mut slow = tunnel.open(source).await?;
        slow.read_u8().await?;
        let mut other = tunnel.open(echo).await?;
        round_trip(&mut other, b"before").await?;
        assert_eq!(tunnel.stats().websockets, 1);
        tokio::time::sleep(Duration::from_millis(300)).await;
        // At the bound either all wait until the reader loses its connection, or it does at once.
        soon(round_trip(&mut other, b"after")).await?;
        let mut rest = Vec::new();
        let error = soon(slow.read_to_end(&mut rest)).await.unwrap_err();
        let error = Error::of_io(&error);
        assert!(
            matches!(error, Some(Error::Caller(CallerError::Unread { .. }))),
            "{error:?}"
        );
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_websocket_each_a_slow_reader_stalls_nobody_and_loses_nothing() -> Result {
    const LENGTH: usize = 32 << 20;
    let mut fixture = Fixture::new().await?;
    let source = fixture
        .application(|mut socket| async move { socket.write_all(&noise(LENGTH, 3)).await })
        .await;
    let echo = fixture.echo().await;
    let forward = fixture.forward().buffer(64 << 10).websockets(3);
    let tunnel = forward.connect().await?;
    let slow = tunnel.listen("127.0.0.1:0", source).await?;
    let quick = tunnel.listen("127.0.0.1:0", echo).await?;
    let mut before = TcpStream::connect(quick.local_addrs()[0]).await?;
    round_trip(&mut before, b"before").await?;
    let mut slow = TcpStream::connect(slow.local_addrs()[0]).await?;
    assert_eq!(slow.read_u8().await?, noise(1, 3)[0]);
    // Longer than a reader that stalls others is borne with: had one waited for it, it would lose
    // its connection.
    for _ in 0..12 {
        tokio::time::sleep(Duration::from_millis(500)).await;
        let mut after = TcpStream::connect(quick.local_addrs()[0]).await?;
        for socket in [&mut before, &mut after] {
            soon(round_trip(socket, b"during")).await?;
        }
    }
    let mut rest = Vec::new();
    soon(slow.read_to_end(&mut rest)).await?;
    assert!(rest == noise(LENGTH, 3)[1..], "{} bytes", rest.len());
    Ok(())
}

#[tokio::test]
async fn further_websockets_are_dialled_when_needed_and_used_again() -> Result {
    let mut fixture = Fixture::new().await?;
    let echo = fixture.echo().await;
    let tunnel = fixture.forward().websockets(2).connect().await?;
    let refuse = || {
        let status = Status::failure(503, "ServiceUnavailable", "no more");
        fixture.server.inject(Fault::Refuse(Box::new(status)));
    };
    let mut first = tunnel.open(echo).await?;
    round_trip(&mut first, b"first").await?;
    // One that cannot be dialled is no reason to fail.
    refuse();
    let mut second = tunnel.open(echo).await?;
    round_trip(&mut second, b"second").await?;
    let mut third = tunnel.open(echo).await?;
    round_trip(&mut third, b"third").await?;
    // Now there are two: nothing is dialled any more, else it would be refused.
    refuse();
    let mut more = Vec::new();
    for _ in 0..5 {
        let mut stream = tunnel.open(echo).await?;
        round_trip(&mut stream, b"more").await?;
        more.push(stream);
    }
    assert_eq!(tunnel.streams().await, 2 * 8);
    tunnel.close().await;
    assert!(first.read_u8().await.is_err() && third.read_u8().await.is_err());
    let refused = tunnel.try_open(echo).await.unwrap_err();
    assert_eq!(refused.status().map(|status| status.code), Some(503));
    let mut again = tunnel.open(echo).await?;
    round_trip(&mut again, b"again").await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_only_connection_can_be_read_slowly_and_loses_nothing() -> Result {
    let mut fixture = Fixture::new().await?;
    let port = fixture
        .application(|mut socket| async move {
            socket.write_all(&noise(8 << 20, 9)).await?;
            socket.shutdown().await
        })
        .await;
    let tunnel = fixture.forward().buffer(64 << 10).connect().await?;
    let mut stream = tunnel.open(port).await?;
    tokio::time::sleep(Duration::from_millis(300)).await;
    let mut all = Vec::new();
    soon(stream.read_to_end(&mut all)).await?;
    assert!(all == noise(8 << 20, 9));
    Ok(())
}

#[tokio::test]
async fn servers_without_spdy_get_a_websocket_a_connection() -> Result {
    for protocol in [ForwardProtocol::V4, ForwardProtocol::V4Base64] {
        let mut fixture = Fixture::with(builder().forward_protocols([protocol])).await?;
        let (echo, nobody) = (fixture.echo().await, fixture.nobody().await);
        let forward = fixture
            .forward()
            .subprotocols([ForwardProtocol::Spdy, protocol]);
        let tunnel = forward.connect().await?;
        assert_eq!(tunnel.protocol().await, protocol);
        let (mut a, mut b) = (tunnel.open(echo).await?, tunnel.open(echo).await?);
        assert!(!a.has_half_close());
        round_trip(&mut a, &noise(100_000, 1)).await?;
        round_trip(&mut b, b"two").await?;
        drop(a);
        round_trip(&mut b, b"three").await?;
        let mut bad = tunnel.open(nobody).await?;
        let error = soon(bad.read_u8()).await.unwrap_err();
        assert!(error.to_string().contains("connection refused"), "{error}");
    }
    Ok(())
}

#[tokio::test]
async fn refusals_are_told_as_the_server_told_them() -> Result {
    let fixture = Fixture::new().await?;
    let missing = fixture.client.pod("default", "no-such").port_forward();
    let error = missing.connect().await.unwrap_err();
    assert_eq!(
        error.status().map(|status| status.code),
        Some(404),
        "{error}"
    );
    let config = fixture
        .server
        .config_with_token(fixture.server.token_without_rights());
    let forbidden = Client::new(&config)?.pod("default", "web-0").port_forward();
    let error = forbidden.connect().await.unwrap_err();
    assert_eq!(
        error.status().map(|status| status.code),
        Some(403),
        "{error}"
    );
    assert!(error.to_string().contains("pods/portforward"), "{error}");
    Ok(())
}

#[tokio::test]
async fn a_tunnel_that_was_closed_is_dialled_again() -> Result {
    let mut fixture = Fixture::new().await?;
    let port = fixture.echo().await;
    let tunnel = fixture.tunnel().await?;
    let mut first = tunnel.open(port).await?;
    round_trip(&mut first, b"one").await?;
    tunnel.close().await;
    assert!(first.read_u8().await.is_err());
    let mut second = tunnel.open(port).await?;
    round_trip(&mut second, b"two").await?;
    Ok(())
}

/// An API server takes requests before it knows its roles.
#[tokio::test]
async fn a_refusal_by_a_server_that_starts_is_waited_out() -> Result {
    let mut fixture = Fixture::new().await?;
    let port = fixture.echo().await;
    let tunnel = fixture.tunnel().await?;
    tunnel.close().await;
    for code in [403, 401] {
        let status = Status::failure(code, "", "no role says so");
        fixture.server.inject(Fault::Refuse(Box::new(status)));
    }
    let mut stream = tunnel.open(port).await?;
    round_trip(&mut stream, b"one").await?;
    Ok(())
}

#[tokio::test]
async fn a_tunnel_that_was_cut_while_nothing_was_open_is_dialled_again() -> Result {
    let mut fixture = Fixture::new().await?;
    let port = fixture.echo().await;
    let sockets = Arc::<Mutex<Vec<_>>>::default();
    let dialled = sockets.clone();
    let config = fixture.server.config().with_dialer(move |host, port| {
        let dialled = dialled.clone();
        async move {
            let socket = TcpStream::connect((host, port)).await?.into_std()?;
            dialled.lock().unwrap().push(socket.try_clone()?);
            TcpStream::from_std(socket)
        }
    });
    let pod = Client::new(&config)?.pod("default", "web-0");
    let tunnel = pod.port_forward().connect().await?;
    for socket in sockets.lock().unwrap().drain(..) {
        socket.shutdown(Shutdown::Both)?;
    }
    // The runtime hears of it.
    tokio::time::sleep(Duration::from_millis(10)).await;
    let mut stream = tunnel.try_open(port).await?;
    round_trip(&mut stream, b"one").await?;
    Ok(())
}

#[tokio::test]
async fn the_servers_end_is_an_error_of_each_connection() -> Result {
    let mut fixture = Fixture::new().await?;
    let port = fixture.echo().await;
    let tunnel = fixture.tunnel().await?;
    let mut stream = tunnel.open(port).await?;
    round_trip(&mut stream, b"one").await?;
    fixture.server.shutdown().await;
    let error = soon(stream.read_u8()).await.unwrap_err();
    assert!(
        matches!(Error::of_io(&error), Some(Error::Network(_))),
        "{error:?}"
    );
    soon(tunnel.closed()).await.ok();
    Ok(())
}

//! Connections to local addresses, forwarded.

use super::*;

#[tokio::test]
async fn a_local_listener_forwards_on_every_address() -> Result {
    let mut fixture = Fixture::new().await?;
    let (echo, nobody) = (fixture.echo().await, fixture.nobody().await);
    let tunnel = fixture.tunnel().await?;
    let mut listener = tunnel.listen("localhost:0", echo).await?;
    for address in listener.local_addrs().to_vec() {
        let mut socket = TcpStream::connect(address).await?;
        socket.write_all(b"through").await?;
        socket.shutdown().await?;
        let mut answer = String::new();
        soon(socket.read_to_string(&mut answer)).await?;
        assert_eq!(answer, "through");
        assert!(matches!(
            soon(listener.event()).await,
            ListenEvent::Accepted { .. }
        ));
        let event = soon(listener.event()).await;
        assert!(
            matches!(
                &event,
                ListenEvent::Closed { traffic, .. }
                    if (traffic.sent, traffic.received) == (7, 7) && !traffic.duration.is_zero()
            ),
            "{event:?}"
        );
    }
    let mut refused = tunnel.listen("127.0.0.1:0", nobody).await?;
    // It may be told as soon as it is connected.
    let address = refused.local_addrs()[0];
    let answer = soon(async { TcpStream::connect(address).await?.read_u8().await }).await;
    assert!(answer.is_err());
    assert!(matches!(
        soon(refused.event()).await,
        ListenEvent::Accepted { .. }
    ));
    let event = soon(refused.event()).await;
    assert!(
        matches!(&event, ListenEvent::Failed { error, .. } if error.to_string().contains("refused")),
        "{event:?}"
    );
    let taken = tunnel.listen(refused.local_addrs()[0], echo).await;
    assert!(matches!(
        taken.unwrap_err(),
        Error::Caller(CallerError::Listen(_))
    ));
    Ok(())
}

#[tokio::test]
async fn a_listener_takes_ipv6_and_both_families_with_one_port() -> Result {
    let mut fixture = Fixture::new().await?;
    let echo = fixture.echo().await;
    let tunnel = fixture.tunnel().await?;
    if let Err(error) = TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).await {
        println!("skipped: no IPv6 on this machine: {error}");
        return Ok(());
    }
    let echoes = async |address: SocketAddr| -> io::Result<()> {
        let mut socket = TcpStream::connect(address).await?;
        socket.write_all(b"through").await?;
        let mut answer = [0; 7];
        soon(socket.read_exact(&mut answer)).await?;
        assert_eq!(&answer, b"through");
        Ok(())
    };
    let six = tunnel.listen("[::1]:0", echo).await?;
    let [address] = six.local_addrs() else {
        panic!("{six:?}");
    };
    assert!(address.is_ipv6());
    echoes(*address).await?;
    let both = [
        SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
        SocketAddr::from((Ipv6Addr::LOCALHOST, 0)),
    ];
    let both = tunnel.listen(&both[..], echo).await?;
    let [four, six] = both.local_addrs() else {
        panic!("{both:?}");
    };
    assert!(four.is_ipv4() && six.is_ipv6() && four.port() == six.port());
    echoes(*four).await?;
    echoes(*six).await?;
    // What one family has not, the other has: that is enough.
    let taken = [*four, SocketAddr::from((Ipv6Addr::LOCALHOST, 0))];
    let half = tunnel.listen(&taken[..], echo).await?;
    assert_eq!(half.local_addrs().len(), 1);
    echoes(half.local_addrs()[0]).await?;
    Ok(())
}

/// Reads a local connection to its end, which must not look like one in order.
async fn broken(mut socket: TcpStream, how: &str) -> Vec<u8> {
    let mut answer = Vec::new();
    let end = soon(socket.read_to_end(&mut answer)).await;
    let kind = end.map_err(|error| error.kind());
    assert_eq!(kind, Err(io::ErrorKind::ConnectionReset), "{how}");
    answer
}

#[tokio::test]
async fn what_breaks_on_its_way_is_reset_at_the_local_end() -> Result {
    for protocol in [ForwardProtocol::Spdy, ForwardProtocol::V4] {
        let mut fixture = Fixture::new().await?;
        let nobody = fixture.nobody().await;
        let rude = fixture
            .application(|mut socket| async move {
                socket.read_u8().await?;
                socket.write_all(b"half an ans").await?;
                // It has been read before the reset: else that may destroy it.
                socket.read_u8().await?;
                socket.set_zero_linger()
            })
            .await;
        let source = fixture
            .application(|mut socket| async move {
                loop {
                    socket.write_all(&[1; 64 << 10]).await?;
                }
            })
            .await;
        let echo = fixture.echo().await;
        let mut config = ForwardConfig::default();
        config.mux.receive_buffer = 64 << 10;
        config.when_full = WhenFull::Reset;
        let forward = fixture.forward().config(config).subprotocols([protocol]);
        let tunnel = forward.connect().await?;
        let local = async |port| -> io::Result<_> {
            let listener = tunnel.listen("127.0.0.1:0", port).await.unwrap();
            let mut socket = TcpStream::connect(listener.local_addrs()[0]).await?;
            socket.write_all(b"x").await?;
            Ok((listener, socket))
        };

        // It may be told as soon as it is connected.
        let told = soon(async { local(nobody).await?.1.read_u8().await }).await;
        let kind = told.map_err(|error| error.kind());
        assert_eq!(kind, Err(io::ErrorKind::ConnectionReset), "refused");

        let (_listener, mut socket) = local(rude).await?;
        let mut half = [0; 11];
        soon(socket.read_exact(&mut half)).await?;
        socket.write_all(b"x").await?;
        assert_eq!(broken(socket, "reset by the application").await, b"");

        // Over channels a slow reader holds back its own WebSocket only.
        if protocol == ForwardProtocol::Spdy {
            let (mut listener, socket) = local(source).await?;
            assert!(matches!(
                soon(listener.event()).await,
                ListenEvent::Accepted { .. }
            ));
            let event = soon(listener.event()).await;
            assert!(matches!(event, ListenEvent::Failed { .. }), "{event:?}");
            assert!(!broken(socket, "given up as slow").await.is_empty());
        }

        let (listener, mut socket) = local(echo).await?;
        assert_eq!(soon(socket.read_u8()).await?, b'x');
        drop(listener);
        assert_eq!(broken(socket, "the listener is dropped").await, b"");

        fixture.server.inject(Fault::CutAfter(10_000));
        let tunnel = forward.connect().await?;
        let listener = tunnel.listen("127.0.0.1:0", source).await?;
        let socket = TcpStream::connect(listener.local_addrs()[0]).await?;
        assert!(!broken(socket, "the tunnel is cut").await.is_empty());
    }
    Ok(())
}

#[tokio::test]
async fn what_an_application_said_before_its_reset_is_read_before_the_error() -> Result {
    for protocol in [ForwardProtocol::Spdy, ForwardProtocol::V4] {
        let mut fixture = Fixture::new().await?;
        // As HTTP servers refuse an upload: they answer, and read no more.
        let hasty = fixture
            .application(|mut socket| async move {
                socket.read_u8().await?;
                socket.write_all(b"it is too large").await
            })
            .await;
        let forward = fixture.forward().subprotocols([protocol]);
        let tunnel = forward.connect().await?;
        for _ in 0..20 {
            let (mut read, mut write) = tokio::io::split(tunnel.open(hasty).await?);
            let upload = async { while write.write_all(&[1; 64 << 10]).await.is_ok() {} };
            let mut said = Vec::new();
            let both = async { tokio::join!(read.read_to_end(&mut said), upload) };
            let (told, ()) = soon(both).await;
            let told = told.unwrap_err();
            assert!(matches!(Error::of_io(&told), Some(Error::Api(_))), "{told}");
            assert_eq!(said, b"it is too large", "{protocol:?}");
        }
    }
    Ok(())
}

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

use crate::{Result, serve};

/// A program in the pod: the embedded server's pods have this machine's ports.
async fn program() -> Result<u16> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let port = listener.local_addr()?.port();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut hello = [0; 5];
                socket.read_exact(&mut hello).await?;
                socket.write_all(&hello).await
            });
        }
    });
    Ok(port)
}

#[tokio::test]
async fn open() -> Result {
    let (_server, client) = serve().await?;
    let port = program().await?;
    // [open]
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    let tunnel = client
        .pod("default", "web-0")
        .port_forward()
        .connect()
        .await?;
    let mut stream = tunnel.open(port).await?;
    stream.write_all(b"hello").await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    assert_eq!(answer, "hello");
    // [end]
    Ok(())
}

#[tokio::test]
async fn listen() -> Result {
    let (_server, client) = serve().await?;
    let port = program().await?;
    let tunnel = client
        .pod("default", "web-0")
        .port_forward()
        .connect()
        .await?;
    // [listen]
    use kubewire::port_forward::ListenEvent;

    let mut listener = tunnel.listen("127.0.0.1:0", port).await?;
    let local = listener.local_addrs()[0]; // any program of this machine may connect here
    // [end]
    let program = tokio::spawn(async move {
        let mut socket = TcpStream::connect(local).await?;
        socket.write_all(b"hello").await?;
        socket.read_to_end(&mut Vec::new()).await
    });
    // [news]
    loop {
        match listener.event().await {
            ListenEvent::Closed { traffic, .. } => {
                assert_eq!((traffic.sent, traffic.received), (5, 5));
                break;
            }
            ListenEvent::Failed { error, .. } => println!("a connection broke: {error}"),
            ListenEvent::Unreachable { error } => println!("no way to the pod: {error}"),
            _ => {}
        }
    }
    // [end]
    assert_eq!(program.await??, 5);
    Ok(())
}

#[tokio::test]
async fn refused() -> Result {
    let (_server, client) = serve().await?;
    let port = {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        listener.local_addr()?.port()
    };
    let tunnel = client
        .pod("default", "web-0")
        .port_forward()
        .connect()
        .await?;
    // [refused]
    let mut stream = tunnel.open(port).await?; // nobody listens there
    let error = stream.read_to_end(&mut Vec::new()).await.unwrap_err();
    println!("{error}"); // in the words of the server
    // [end]
    assert!(kubewire::Error::of_io(&error).is_some());
    Ok(())
}

//! What the benches of port-forward lead to: an application, and a TCP relay to it.

use std::net::{Ipv4Addr, SocketAddr};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional},
    net::{TcpListener, TcpStream},
};

/// Bytes that a connection brings; fewer in debug builds, which only show that it runs.
pub(crate) const EACH: usize = if cfg!(debug_assertions) {
    1 << 20
} else {
    16 << 20
};

/// Sends a byte, and after one from the client all the rest.
pub(crate) async fn application() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        let chunk = vec![7; 64 << 10];
        while let Ok((mut socket, _)) = listener.accept().await {
            let chunk = chunk.clone();
            tokio::spawn(async move {
                socket.set_nodelay(true)?;
                socket.write_all(b"!").await?;
                if socket.read_u8().await.is_ok() {
                    for _ in 0..EACH / chunk.len() {
                        socket.write_all(&chunk).await?;
                    }
                }
                Ok::<_, std::io::Error>(())
            });
        }
    });
    port
}

/// A TCP relay to a port.
pub(crate) async fn relay(port: u16) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut near, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut far = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
                near.set_nodelay(true)?;
                far.set_nodelay(true)?;
                copy_bidirectional(&mut near, &mut far).await
            });
        }
    });
    address
}

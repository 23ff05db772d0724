//! What port-forward leaves behind: nothing. Connections are opened and closed in every order of
//! FIN and RST from either side, through real sockets, and afterwards no stream, task or socket is
//! more than before.
//!
//! The sockets counted are the process's, so that there is one test here.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use kubewire::{
    Client,
    port_forward::{ForwardStream, Tunnel},
    session::port_forward::ForwardProtocol,
    testing::ApiServer,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    runtime::Handle,
    task::{AbortHandle, JoinSet},
};

type Result<T = (), E = Box<dyn std::error::Error>> = std::result::Result<T, E>;

/// Who ends a connection how, in which order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Order {
    ClientFin,
    ApplicationFin,
    BothFin,
    ClientReset,
    ApplicationReset,
    BothReset,
    /// The client leaves while the application still sends.
    ClientLeaves,
    /// The application leaves while the client still sends.
    ApplicationLeaves,
    ClientFinThenApplicationReset,
    ClientFinThenClientReset,
    ApplicationFinThenClientReset,
    ApplicationFinThenApplicationReset,
    /// The client leaves before anything has been answered.
    ClientLeavesEarly,
    /// Nobody listens at the port.
    Refused,
    /// Nobody listens, and the client does not wait to hear it.
    RefusedUnheard,
}

use Order::*;

const ORDERS: [Order; 15] = [
    ClientFin,
    ApplicationFin,
    BothFin,
    ClientReset,
    ApplicationReset,
    BothReset,
    ClientLeaves,
    ApplicationLeaves,
    ClientFinThenApplicationReset,
    ClientFinThenClientReset,
    ApplicationFinThenClientReset,
    ApplicationFinThenApplicationReset,
    ClientLeavesEarly,
    Refused,
    RefusedUnheard,
];

/// The application's part: it is told the order first, and says that it knows.
async fn application(mut socket: TcpStream) -> io::Result<()> {
    let order = usize::from(socket.read_u8().await?);
    let order = *ORDERS.get(order).ok_or(io::ErrorKind::InvalidData)?;
    socket.write_all(b"!").await?;
    let mut rest = Vec::new();
    match order {
        ClientFin => {
            socket.read_to_end(&mut rest).await?;
        }
        ApplicationFin | BothFin | ApplicationFinThenClientReset => {
            socket.shutdown().await?;
            socket.read_to_end(&mut rest).await?;
        }
        ApplicationReset | BothReset => socket.set_zero_linger()?,
        ClientReset | ClientLeaves | ClientFinThenClientReset => {
            let chunk = vec![7; 16 << 10];
            while socket.write_all(&chunk).await.is_ok() {}
        }
        ApplicationLeaves => {}
        ClientFinThenApplicationReset => {
            socket.read_to_end(&mut rest).await?;
            socket.set_zero_linger()?;
        }
        ApplicationFinThenApplicationReset => {
            socket.shutdown().await?;
            socket.read_u8().await?;
            socket.set_zero_linger()?;
        }
        ClientLeavesEarly | Refused | RefusedUnheard => {}
    }
    Ok(())
}

/// A client's end: of a tunnel, or of a local socket that a listener forwards.
trait End: AsyncRead + AsyncWrite + Unpin {
    fn reset(self);
}

impl End for ForwardStream {
    /// A stream has no other way than to be dropped: with unread bytes that is a reset.
    fn reset(self) {}
}

impl End for TcpStream {
    fn reset(self) {
        self.set_zero_linger().unwrap();
    }
}

/// The client's part.
async fn client(mut end: impl End, order: Order, half_close: bool) -> io::Result<()> {
    match order {
        ClientLeavesEarly | RefusedUnheard => return Ok(()),
        Refused => {
            let mut rest = Vec::new();
            let _ = end.read_to_end(&mut rest).await;
            assert!(rest.is_empty(), "nobody answers");
            return Ok(());
        }
        _ => {}
    }
    end.write_all(&[order as u8]).await?;
    assert_eq!(end.read_u8().await?, b'!');
    let mut rest = Vec::new();
    match order {
        // Over channels nothing tells the application that the client has finished.
        ClientFin | ClientFinThenApplicationReset if !half_close => {}
        ClientFin | BothFin => {
            end.shutdown().await?;
            end.read_to_end(&mut rest).await?;
            assert!(rest.is_empty());
        }
        // The kernel may have told the client's own end of the reset before.
        ClientFinThenApplicationReset => {
            let _ = end.shutdown().await;
            let _ = end.read_to_end(&mut rest).await;
        }
        ApplicationFin => {
            end.read_to_end(&mut rest).await?;
            end.shutdown().await?;
        }
        ApplicationReset => {
            let _ = end.read_to_end(&mut rest).await;
        }
        ClientReset => {
            end.read_u8().await?;
            end.reset();
        }
        BothReset => end.reset(),
        ClientLeaves => {
            let mut some = vec![0; 40_000];
            end.read_exact(&mut some).await?;
        }
        ApplicationLeaves => {
            while end.write_all(&[7; 1 << 10]).await.is_ok() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
        ClientFinThenClientReset => {
            let _ = end.shutdown().await;
            end.read_u8().await?;
            end.reset();
        }
        ApplicationFinThenClientReset => {
            end.read_to_end(&mut rest).await?;
            end.reset();
        }
        ApplicationFinThenApplicationReset => {
            end.read_to_end(&mut rest).await?;
            let _ = end.write_all(b"?").await;
            let _ = end.shutdown().await;
        }
        ClientLeavesEarly | Refused | RefusedUnheard => {}
    }
    Ok(())
}

/// What a connection would leave behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Left {
    client_streams: usize,
    server_streams: usize,
    applications: usize,
    tasks: usize,
    sockets: usize,
}

impl Left {
    fn is_within(self, other: Self) -> bool {
        self.client_streams <= other.client_streams
            && self.server_streams <= other.server_streams
            && self.applications <= other.applications
            && self.tasks <= other.tasks
            && self.sockets <= other.sockets
    }
}

struct Fixture {
    server: ApiServer,
    tunnel: Tunnel,
    applications: Arc<AtomicUsize>,
}

impl Fixture {
    async fn left(&self) -> Left {
        Left {
            client_streams: self.tunnel.streams().await,
            server_streams: self.server.forward_streams(),
            applications: self.applications.load(Ordering::Relaxed),
            tasks: tasks(),
            sockets: sockets(),
        }
    }

    /// Waits until no more is left than `before`.
    async fn assert_left(&self, before: Left, what: &str) {
        let begin = Instant::now();
        loop {
            let now = self.left().await;
            // Less is what was still ending when it was counted before.
            if now.is_within(before) {
                return;
            }
            assert!(
                begin.elapsed() < Duration::from_secs(300),
                "{what}: {now:?} is left, before it was {before:?}"
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

fn tasks() -> usize {
    Handle::current().metrics().num_alive_tasks()
}

fn sockets() -> usize {
    let Ok(open) = std::fs::read_dir("/proc/self/fd") else {
        return 0;
    };
    let links = open.filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok());
    links
        .filter(|link| link.to_string_lossy().starts_with("socket:"))
        .count()
}

/// An application for all orders, and its port.
async fn applications(running: Arc<AtomicUsize>) -> (AbortHandle, u16) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let listening = tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let running = running.clone();
            running.fetch_add(1, Ordering::Relaxed);
            tokio::spawn(async move {
                // How it ends is the client's business.
                let _ = application(socket).await;
                running.fetch_sub(1, Ordering::Relaxed);
            });
        }
    });
    (listening.abort_handle(), port)
}

/// Makes `count` connections in each order, and checks after each that nothing is left of them.
async fn every_order(protocol: ForwardProtocol, count: usize) -> Result {
    let at_first = (tasks(), sockets());
    let server = ApiServer::builder()
        .plain()
        .pod("default", "web-0", |pod| {
            pod.container("main", ["sleep", "infinity"])
        })
        .start()
        .await?;
    let running = Arc::<AtomicUsize>::default();
    let (listening, port) = applications(running.clone()).await;
    let nobody = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .await?
        .local_addr()?
        .port();
    let forward = Client::new(&server.config())?
        .pod("default", "web-0")
        .port_forward();
    let forward = forward.subprotocols([protocol]);
    let tunnel = forward.connect().await?;
    let listener = tunnel.listen("127.0.0.1:0", port).await?;
    let refuses = tunnel.listen("127.0.0.1:0", nobody).await?;
    let half_close = protocol == ForwardProtocol::Spdy;
    let fixture = Fixture {
        server,
        tunnel,
        applications: running,
    };
    // Once the server has carried something, all its tasks are there.
    let warm = (port, listener.local_addrs()[0]);
    some(&fixture.tunnel, warm, ApplicationFin, half_close, 2).await?;
    let begin = Instant::now();
    let before = loop {
        let left = fixture.left().await;
        if (left.client_streams, left.server_streams, left.applications) == (0, 0, 0) {
            break left;
        }
        assert!(begin.elapsed() < Duration::from_secs(300), "{left:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    for order in ORDERS {
        let to = match order {
            Refused | RefusedUnheard => (nobody, refuses.local_addrs()[0]),
            _ => (port, listener.local_addrs()[0]),
        };
        some(&fixture.tunnel, to, order, half_close, count).await?;
        let what = format!("{protocol:?}, {order:?}");
        fixture.assert_left(before, &what).await;
    }
    listening.abort();
    drop((fixture, listener, refuses, forward));
    let begin = Instant::now();
    while (tasks(), sockets()) != at_first {
        let now = (tasks(), sockets());
        assert!(
            begin.elapsed() < Duration::from_secs(300),
            "{protocol:?}: tasks and sockets {now:?} are left, at first there were {at_first:?}"
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Ok(())
}

/// Whether a connection ends only because its client's end does. Over channels nobody can tell the
/// application that the local socket has finished: a listener gives up such a connection later.
fn needs_half_close(order: Order) -> bool {
    matches!(
        order,
        ClientFin | ClientFinThenApplicationReset | ClientLeavesEarly
    )
}

/// Connections at once.
const AT_ONCE: usize = 32;

async fn some(
    tunnel: &Tunnel,
    (port, local): (u16, SocketAddr),
    order: Order,
    half_close: bool,
    count: usize,
) -> Result {
    let mut connections = JoinSet::new();
    for n in 0..count {
        if connections.len() == AT_ONCE {
            connections.join_next().await.transpose()?.transpose()?;
        }
        let tunnel = tunnel.clone();
        connections.spawn(async move {
            let work = async {
                match n % 2 {
                    _ if !half_close && needs_half_close(order) => {
                        client(tunnel.open(port).await.unwrap(), order, half_close).await
                    }
                    0 => client(tunnel.open(port).await.unwrap(), order, half_close).await,
                    _ => match TcpStream::connect(local).await {
                        Ok(socket) => client(socket, order, half_close).await,
                        // Sooner reset than this task looked whether it is connected.
                        Err(_) if matches!(order, Refused | RefusedUnheard) => Ok(()),
                        Err(error) => Err(error),
                    },
                }
            };
            let done = tokio::time::timeout(Duration::from_secs(300), work).await;
            done.unwrap_or_else(|_| panic!("{order:?}: connection {n} does not end"))
                .map_err(|error| format!("{order:?}: connection {n}: {error}"))
        });
    }
    while let Some(done) = connections.join_next().await {
        done??;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_connections_in_every_order_of_fin_and_rst_leave_nothing() -> Result {
    let begin = Instant::now();
    every_order(ForwardProtocol::Spdy, 540).await?;
    every_order(ForwardProtocol::V4, 130).await?;
    println!("10,050 connections in {:?}", begin.elapsed());
    Ok(())
}

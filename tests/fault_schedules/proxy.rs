//! A proxy on loopback that cuts, stalls and trickles: in flow the bytes of connections, out they
//! come up to the fault.

use std::{
    collections::VecDeque,
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use kubewire::{Config, testing::ApiServer};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, copy, sink},
    net::{
        TcpListener, TcpStream,
        tcp::{ReadHalf, WriteHalf},
    },
};

use super::harness::Random;

/// How a connection ends.
#[derive(Debug, Clone, Copy)]
pub(crate) enum End {
    /// With FIN in both directions: over TLS, without `close_notify`.
    Fin,
    /// With RST in both directions.
    Reset,
    /// Never: nothing is carried any more, in either direction.
    Stall,
}

const ENDS: [End; 3] = [End::Fin, End::Reset, End::Stall];

/// What befalls one connection.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Plan {
    /// The direction, 0 for up and 1 for down, the bytes that it still carries, and what then
    /// becomes of the connection.
    pub(crate) fault: Option<(usize, u64, End)>,
    /// How many bytes at the beginning of each direction are carried one at a time.
    pub(crate) trickle: u64,
}

impl Plan {
    /// The `n`th of all faults of a session with so many bytes up and down.
    pub(crate) fn nth(n: u64, [up, down]: [u64; 2]) -> Self {
        let total = up + down;
        // A prime step, so that a few schedules are spread over the session as well.
        let at = n.wrapping_mul(7919) % total;
        let end = ENDS[((n + n / total) % 3) as usize];
        Self {
            fault: Some(match at.checked_sub(up) {
                None => (0, at, end),
                Some(at) => (1, at, end),
            }),
            trickle: 0,
        }
    }

    /// One of any kind within so many bytes up and down, or none.
    pub(crate) fn random(random: &mut Random, reach: [u64; 2]) -> Self {
        let direction = random.below(2) as usize;
        let fault = (
            direction,
            random.below(reach[direction]),
            ENDS[random.below(3) as usize],
        );
        Self {
            fault: (!random.one_in(8)).then_some(fault),
            trickle: if random.one_in(3) {
                random.below(2000)
            } else {
                0
            },
        }
    }
}

#[derive(Default)]
struct State {
    plans: Mutex<VecDeque<Plan>>,
    carried: [AtomicU64; 2],
    faults: AtomicUsize,
}

pub(crate) struct Proxy {
    address: SocketAddr,
    state: Arc<State>,
}

impl Proxy {
    /// Each connection to `server` meets the next of these plans; after them all goes well.
    pub(crate) async fn new(server: &ApiServer, plans: impl IntoIterator<Item = Plan>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State::default());
        state.plans.lock().unwrap().extend(plans);
        let (server, shared) = (server.address(), state.clone());
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let plan = shared.plans.lock().unwrap().pop_front();
                let shared = shared.clone();
                tokio::spawn(async move {
                    if let Ok(server) = TcpStream::connect(server).await {
                        let _ = carry(client, server, plan.unwrap_or_default(), &shared).await;
                    }
                });
            }
        });
        Self { address, state }
    }

    /// The server's configuration, through here.
    pub(crate) fn config(&self, server: &ApiServer) -> Config {
        let address = self.address;
        let dial = move |_: String, _: u16| TcpStream::connect(address);
        server.config().with_dialer(dial)
    }

    /// More plans, behind those that are left.
    pub(crate) fn plan(&self, plan: Plan) {
        self.state.plans.lock().unwrap().push_back(plan);
    }

    /// Bytes carried up and down.
    pub(crate) fn carried(&self) -> [u64; 2] {
        [0, 1].map(|at| self.state.carried[at].load(Ordering::Relaxed))
    }

    /// Faults that have come about.
    pub(crate) fn faults(&self) -> usize {
        self.state.faults.load(Ordering::Relaxed)
    }
}

async fn carry(
    mut client: TcpStream,
    mut server: TcpStream,
    plan: Plan,
    state: &State,
) -> io::Result<()> {
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (from_client, to_client) = client.split();
    let (from_server, to_server) = server.split();
    let limit = |direction| match plan.fault {
        Some((at, bytes, _)) if at == direction => bytes,
        _ => u64::MAX,
    };
    let [up, down] = &state.carried;
    let up = pump(from_client, to_server, limit(0), plan.trickle, up);
    let down = pump(from_server, to_client, limit(1), plan.trickle, down);
    let (Err(()), Some((_, _, end))) = (tokio::try_join!(up, down), plan.fault) else {
        return Ok(());
    };
    state.faults.fetch_add(1, Ordering::Relaxed);
    match end {
        // The clock does not jump by itself where a thread waits, as one does under a copy.
        End::Stall => loop {
            for _ in 0..20 {
                tokio::task::yield_now().await;
            }
            tokio::time::advance(Duration::from_secs(5)).await;
        },
        End::Reset => {
            client.set_zero_linger()?;
            server.set_zero_linger()
        }
        End::Fin => {
            let _ = (client.shutdown().await, server.shutdown().await);
            // Closing with unread bytes would be a reset.
            let (mut one, mut other) = (sink(), sink());
            let _ = tokio::join!(copy(&mut client, &mut one), copy(&mut server, &mut other));
            Ok(())
        }
    }
}

/// Carries one direction to its end, or to its limit: that is the error.
async fn pump(
    mut from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
    limit: u64,
    trickle: u64,
    carried: &AtomicU64,
) -> Result<(), ()> {
    let mut buffer = vec![0; 16 << 10];
    let mut total = 0;
    while total < limit {
        let most = if total < trickle { 1 } else { limit - total };
        let most = most.min(buffer.len() as u64) as usize;
        let Ok(read @ 1..) = from.read(&mut buffer[..most]).await else {
            let _ = to.shutdown().await;
            return Ok(());
        };
        if to.write_all(&buffer[..read]).await.is_err() {
            return Ok(());
        }
        total += read as u64;
        carried.fetch_add(read as u64, Ordering::Relaxed);
        if total < trickle {
            tokio::task::yield_now().await;
        }
    }
    Err(())
}

//! Load: sessions opened, used and dropped at random in every state, many at a time, and idle ones
//! under a storm of pings. Afterwards there are no more descriptors, tasks and memory than before.
//!
//! `KUBEWIRE_LOAD_SECONDS` says how long it goes on (10 s, half of it on many threads, the rest
//! on one and in tasks that are not `Send`), `KUBEWIRE_LOAD_SESSIONS` how many sessions are open
//! at a time (2,000; the idle ones are five times as many). What is counted is the process's, so
//! that there is one test here.

#![cfg(feature = "testing")]
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "helpers of tests are tests, and figures are printed"
)]

use std::{
    cell::Cell,
    fs, io,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use kubewire::{
    AnyWebSocket, Client, Config, Error, KeepaliveConfig, Resource, Result, Role,
    error::NetworkError,
    exec::{Child, Streams, Subprotocol},
    server::Process,
    testing::ApiServer,
    wire::status::Status,
};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex},
    net::{TcpListener, TcpStream},
    runtime::{Builder, Handle, Runtime},
    sync::Mutex,
    task::{JoinSet, LocalSet},
    time::{sleep, timeout},
};

fn number(variable: &str, default: u64) -> u64 {
    let text = std::env::var(variable).ok();
    text.map_or(default, |text| text.parse().expect("a number"))
}

struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        (mixed ^ (mixed >> 31)) % bound
    }
}

const STREAMS: Streams = Streams {
    stdin: true,
    stdout: true,
    stderr: false,
    tty: false,
};
const PORT: u16 = 7;

/// Both ends of a session that is used, and dropped wherever this future is.
async fn exec(client: AnyWebSocket, server: AnyWebSocket, mut random: Random) {
    let mut child = Child::over(client, Subprotocol::V5, STREAMS).spawn();
    let mut process = Process::over(server, Subprotocol::V5, STREAMS);
    let (size, early) = (random.below(50_000) as usize, random.below(6));
    let serve = async move {
        let mut stdin = process.stdin.take().unwrap();
        let mut stdout = process.stdout.take().unwrap();
        let mut bytes = Vec::new();
        match early {
            0 => return,
            1 => drop(stdin),
            _ => drop(stdin.read_to_end(&mut bytes).await),
        }
        let _ = stdout.write_all(&bytes).await;
        drop(stdout);
        let _ = process.exit(Status::success()).await;
    };
    let used = async {
        let mut stdin = child.stdin.take().unwrap();
        let mut stdout = child.stdout.take().unwrap();
        let send = async {
            let _ = stdin.write_all(&vec![7; size]).await;
            let _ = stdin.shutdown().await;
        };
        let mut got = Vec::new();
        let (_, read) = tokio::join!(send, stdout.read_to_end(&mut got));
        let waited = child.wait().await;
        if early > 1 {
            assert!(read.is_ok() && got.len() == size, "{} of {size}", got.len());
            assert!(waited.unwrap().success());
        }
    };
    tokio::join!(serve, used);
}

async fn echo(mut socket: DuplexStream) {
    let (mut read, mut write) = tokio::io::split(&mut socket);
    let _ = tokio::io::copy(&mut read, &mut write).await;
}

async fn forward(client: &Client, mut random: Random) -> Result<()> {
    let forward = client.pod("default", "web-0").port_forward();
    let tunnel = forward.connect().await?;
    for _ in 0..1 + random.below(3) {
        let mut stream = tunnel.open(PORT).await?;
        let size = random.below(20_000) as usize;
        stream.write_all(&vec![7; size]).await.unwrap();
        stream.flush().await.unwrap();
        let mut back = vec![0; size];
        if random.below(4) > 0 {
            stream.read_exact(&mut back).await.unwrap();
        }
    }
    Ok(())
}

async fn watch(client: &Client, mut random: Random) -> Result<()> {
    let things = Resource::namespaced("example.com", "v1", "things");
    let mut updates = client.watch(things).stream();
    // What there is: three objects, and the end of the snapshot.
    for _ in 0..random.below(5) {
        updates.next().await.unwrap()?;
    }
    Ok(())
}

struct Load {
    config: Config,
    listener: TcpListener,
    turn: Mutex<()>,
    opened: AtomicU64,
    finished: AtomicU64,
}

impl Load {
    /// One of its own, which takes its connections with it.
    fn client(&self) -> Client {
        Client::new(&self.config).unwrap()
    }

    /// Opens and drops sessions one after the other until `end`.
    async fn work(&self, seed: u64, end: Instant) {
        let mut random = Random(seed);
        while Instant::now() < end {
            let choices = Random(random.below(u64::MAX));
            let session = async {
                match seed % 16 {
                    0..4 => forward(&self.client(), choices).await,
                    4..6 => watch(&self.client(), choices).await,
                    _ => {
                        let (one, other) = self.sockets().await;
                        exec(one, other, choices).await;
                        Ok(())
                    }
                }
            };
            self.opened.fetch_add(1, Ordering::Relaxed);
            // Some are dropped in whatever state they are, some wait for their end.
            let patience = match random.below(3) {
                0 => Duration::from_micros(random.below(20_000)),
                1 => Duration::from_millis(random.below(2_000)),
                _ => Duration::from_secs(300),
            };
            match timeout(patience, session).await {
                Ok(Ok(())) => drop(self.finished.fetch_add(1, Ordering::Relaxed)),
                // On a busy machine thousands do not connect at once, by our clock or the kernel's.
                Ok(Err(Error::Network(NetworkError::TimedOut { .. }))) | Err(_) => {}
                Ok(Err(Error::Network(NetworkError::Connect { source, .. })))
                    if source.kind() == io::ErrorKind::TimedOut => {}
                // Linux drops the end of a handshake whose queue is full, and resets what follows.
                Ok(Err(Error::Network(NetworkError::Lost(source))))
                    if source.kind() == io::ErrorKind::ConnectionReset => {}
                Ok(Err(other)) => panic!("{other}"),
            }
        }
    }

    /// In memory or over TCP.
    async fn sockets(&self) -> (AnyWebSocket, AnyWebSocket) {
        let from = AnyWebSocket::from_io::<TcpStream>;
        if self.opened.load(Ordering::Relaxed).is_multiple_of(2) {
            return in_memory(4 << 10);
        }
        let address = self.listener.local_addr().unwrap();
        // One at a time, so that these two belong together.
        let _turn = self.turn.lock().await;
        let (one, other) = tokio::join!(TcpStream::connect(address), self.listener.accept());
        let (one, other) = (one.unwrap(), other.unwrap().0);
        (
            from(one, Role::Client, Bytes::new()),
            from(other, Role::Server, Bytes::new()),
        )
    }
}

fn in_memory(capacity: usize) -> (AnyWebSocket, AnyWebSocket) {
    let (one, other) = duplex(capacity);
    (
        AnyWebSocket::from_io(one, Role::Client, Bytes::new()),
        AnyWebSocket::from_io(other, Role::Server, Bytes::new()),
    )
}

/// Descriptors, tasks, and resident KiB.
fn count(handle: &Handle) -> [usize; 3] {
    let descriptors = fs::read_dir("/proc/self/fd").unwrap().count();
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let resident = resident.unwrap().trim_end_matches("kB").trim();
    let tasks = handle.metrics().num_alive_tasks();
    [descriptors, tasks, resident.parse().unwrap()]
}

/// Waits until there are no more descriptors and tasks than before.
async fn settle(name: &str, before: [usize; 3]) {
    let started = Instant::now();
    loop {
        let now = count(&Handle::current());
        if now[0] <= before[0] && now[1] <= before[1] {
            println!("{name}: before {before:?}, after {now:?} (descriptors, tasks, KiB)");
            return;
        }
        let waited = started.elapsed();
        assert!(
            waited < Duration::from_secs(300),
            "{name}: {before:?}, {now:?}"
        );
        sleep(Duration::from_millis(50)).await;
    }
}

async fn start() -> (ApiServer, Arc<Load>) {
    let builder = ApiServer::builder().plain().pod("default", "web-0", |pod| {
        let pod = pod.port_with(PORT, echo);
        pod.container("main", ["sleep", "infinity"])
    });
    let server = builder.start().await.unwrap();
    let things = Resource::namespaced("example.com", "v1", "things");
    for name in ["one", "two", "three"] {
        server.put(
            &things,
            json!({"kind": "Thing", "metadata": {"name": name, "namespace": "default"}}),
        );
    }
    let load = Arc::new(Load {
        // On a busy machine thousands do not connect at once.
        config: server
            .config()
            .with_connect_timeout(Duration::from_secs(300)),
        listener: TcpListener::bind("127.0.0.1:0").await.unwrap(),
        turn: Mutex::new(()),
        opened: AtomicU64::new(0),
        finished: AtomicU64::new(0),
    });
    (server, load)
}

impl Load {
    fn report(&self, name: &str) {
        let [opened, finished] = [&self.opened, &self.finished].map(|n| n.load(Ordering::Relaxed));
        println!("{name}: {opened} sessions, {finished} of them to their end");
        assert!(finished > 0);
    }
}

/// Twice the same load: what the first has allocated, the second finds.
fn on(runtime: &Runtime, name: &str, sessions: u64, time: Duration) {
    runtime.block_on(async {
        let (server, load) = start().await;
        let mut memory = Vec::new();
        for round in 0..2 {
            let before = count(&Handle::current());
            let end = Instant::now() + time / 2;
            let mut tasks = JoinSet::new();
            for seed in 0..sessions {
                let load = load.clone();
                tasks.spawn(async move { load.work(seed + round * sessions, end).await });
            }
            while let Some(done) = tasks.join_next().await {
                done.unwrap();
            }
            drop(tasks);
            // The tasks of the first round may still be ending.
            if round == 1 {
                settle(name, before).await;
            } else {
                sleep(Duration::from_secs(1)).await;
            }
            memory.push(count(&Handle::current())[2]);
        }
        load.report(name);
        assert!(
            memory[1] < memory[0] + memory[0] / 2 + (32 << 10),
            "{name}: {memory:?} KiB"
        );
        server.shutdown().await;
    });
}

/// The same in tasks that hold what is not `Send` across every await.
fn on_local_set(runtime: &Runtime, sessions: u64, time: Duration) {
    LocalSet::new().block_on(runtime, async {
        let (server, load) = start().await;
        let before = count(&Handle::current());
        let end = Instant::now() + time;
        let running = Rc::new(Cell::new(0));
        let mut tasks = JoinSet::new();
        for seed in 0..sessions {
            let (load, running) = (load.clone(), running.clone());
            tasks.spawn_local(async move {
                running.set(running.get() + 1);
                load.work(seed, end).await;
                running.set(running.get() - 1);
            });
        }
        while let Some(done) = tasks.join_next().await {
            done.unwrap();
        }
        assert_eq!(running.get(), 0);
        drop(tasks);
        let name = "tasks that are not Send";
        settle(name, before).await;
        load.report(name);
        let (before, after) = (before[2], count(&Handle::current())[2]);
        // The load before this one has allocated what there is.
        assert!(
            after < before + before / 2 + (32 << 10),
            "{name}: {before} KiB, then {after}"
        );
        server.shutdown().await;
    });
}

/// Idle sessions that ask for a sign of life all the time.
fn idle(runtime: &Runtime, sessions: u64, time: Duration) {
    runtime.block_on(async {
        let mut memory = Vec::new();
        for _ in 0..2 {
            memory.push(idle_once(sessions, time / 2).await);
        }
        assert!(memory[1] < memory[0] + memory[0] / 4, "{memory:?} KiB");
    });
}

async fn idle_once(sessions: u64, time: Duration) -> usize {
    let before = count(&Handle::current());
    let keepalive = KeepaliveConfig {
        interval: Duration::from_millis(500),
        ..KeepaliveConfig::default()
    };
    let mut both = Vec::new();
    for _ in 0..sessions {
        let (one, other) = in_memory(256);
        let child = Child::over(one, Subprotocol::V5, STREAMS).keepalive(keepalive);
        both.push((
            child.spawn(),
            Process::over(other, Subprotocol::V5, STREAMS),
        ));
    }
    let began = count(&Handle::current());
    sleep(time).await;
    let now = count(&Handle::current());
    println!("{sessions} idle sessions: before {before:?}, at first {began:?}, then {now:?}");
    let (mut child, process) = both.pop().unwrap();
    let (waited, exited) = tokio::join!(child.wait(), process.exit(Status::success()));
    assert!(waited.unwrap().success());
    exited.unwrap();
    drop((both, child));
    settle("idle sessions", before).await;
    count(&Handle::current())[2]
}

#[test]
fn nothing_is_left_of_sessions_by_the_thousand() {
    let time = Duration::from_secs(number("KUBEWIRE_LOAD_SECONDS", 10));
    let sessions = number("KUBEWIRE_LOAD_SESSIONS", 2_000);
    let many = Builder::new_multi_thread().enable_all().build().unwrap();
    let one = Builder::new_current_thread().enable_all().build().unwrap();
    idle(&many, sessions * 5, time / 10);
    on(&many, "many threads", sessions, time / 2);
    on(&one, "one thread", sessions, time / 5);
    on_local_set(&one, sessions, time / 5);
}

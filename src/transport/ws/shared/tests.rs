//! Handles of every verb under schedules that shuttle chooses.

use std::{
    future::{Future, poll_fn},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Wake, Waker},
};

use bytes::Bytes;
use shuttle::{
    future::{block_on, spawn, yield_now},
    rand::Rng as _,
};

use super::{
    model::{Open, explore, pair},
    sync::{Mutex, lock},
};
use crate::{
    Role,
    error::Error,
    session::{
        KeepaliveConfig, Opcode, RemoteCommand, Subprotocol,
        port_forward::{Channels, ForwardConfig, PortForward, Spdy},
        remote_command::Streams,
    },
    transport::{
        now,
        ws::{
            messages::Messages,
            port_forward::{Connections, ForwardStream},
            remote_command::{self, Control, Input, Output},
        },
    },
    wire::{
        channel::{Channel, Encoding},
        resize::TerminalSize,
        status::Status,
    },
};

const STREAMS: Streams = Streams {
    stdin: true,
    stdout: true,
    stderr: true,
    tty: true,
};

/// Both ends of an exec session whose queues hold some messages.
fn exec() -> (Control, Control, Open) {
    let (near, far, open) = pair();
    let session = |role| {
        let keepalive = KeepaliveConfig::default();
        RemoteCommand::new(role, Subprotocol::V5, STREAMS, keepalive, now())
    };
    let reads = [Channel::Stdout, Channel::Stderr];
    let client = remote_command::spawn(session(Role::Client), near, 200, &reads);
    let reads = [Channel::Stdin];
    let server = remote_command::spawn(session(Role::Server), far, 200, &reads);
    (client, server, open)
}

async fn read_all(mut input: Input) -> Result<usize, Error> {
    let mut total = 0;
    while let Some(slice) = poll_fn(|cx| input.poll_slice(cx)).await {
        match slice {
            Ok(slice) => total += slice.len(),
            Err(error) => return Err(Error::of_io(&error).unwrap().clone()),
        }
    }
    Ok(total)
}

async fn write(output: &Output, messages: usize) -> Result<(), Error> {
    for _ in 0..messages {
        poll_fn(|cx| output.poll_write(cx, b"0123456789")).await?;
    }
    poll_fn(|cx| output.poll_flush(cx)).await
}

/// A server's process: reads its input to the end, writes to both outputs meanwhile, exits.
async fn process(control: Control, messages: usize) {
    let stdin = spawn(read_all(control.input(Channel::Stdin)));
    let stdout = control.output(Channel::Stdout);
    let stderr = control.output(Channel::Stderr);
    let stderr = spawn(async move { write(&stderr, messages).await });
    let _ = write(&stdout, messages).await;
    let _ = stderr.await.unwrap();
    let _ = stdin.await.unwrap();
    let _ = control.exit(&Status::success());
    let _ = control.ended().await;
}

#[test]
fn two_readers_and_a_writer_miss_nothing() {
    explore(|| {
        block_on(async {
            let (client, server, open) = exec();
            let server = spawn(process(server, 3));
            let stdout = spawn(read_all(client.input(Channel::Stdout)));
            let stderr = spawn(read_all(client.input(Channel::Stderr)));
            let stdin = client.output(Channel::Stdin);
            write(&stdin, 3).await.unwrap();
            drop(stdin);
            assert!(client.status(&[]).await.unwrap().is_success());
            assert_eq!(stdout.await.unwrap().unwrap(), 30);
            assert_eq!(stderr.await.unwrap().unwrap(), 30);
            server.await.unwrap();
            drop(client);
            open.none().await;
        });
    });
}

#[test]
fn handles_may_be_dropped_at_any_point() {
    async fn read_some(mut input: Input, slices: usize) {
        for _ in 0..slices {
            match poll_fn(|cx| input.poll_slice(cx)).await {
                Some(Ok(_)) => {}
                _ => break,
            }
        }
    }
    explore(|| {
        block_on(async {
            let (client, server, open) = exec();
            let server = spawn(process(server, 3));
            let mut random = shuttle::rand::thread_rng();
            let (few, fewer) = (random.gen_range(0..4), random.gen_range(0..3));
            let stdout = spawn(read_some(client.input(Channel::Stdout), few));
            let stderr = spawn(read_some(client.input(Channel::Stderr), fewer));
            let stdin = client.output(Channel::Stdin);
            let written = random.gen_range(0..3);
            let stdin = spawn(async move { write(&stdin, written).await });
            if random.gen_range(0..2) == 0 {
                // The readers must not wait for one that gives up.
                assert!(client.status(&[]).await.unwrap().is_success());
            } else if random.gen_range(0..2) == 0 {
                client.close();
            }
            drop(client);
            stdout.await.unwrap();
            stderr.await.unwrap();
            let _ = stdin.await.unwrap();
            server.await.unwrap();
            open.none().await;
        });
    });
}

#[test]
fn a_reader_that_loses_interest_does_not_starve_the_others() {
    explore(|| {
        block_on(async {
            let (client, server, open) = exec();
            let server = spawn(process(server, 2));
            let mut stdout = client.input(Channel::Stdout);
            let stderr = spawn(read_all(client.input(Channel::Stderr)));
            drop(client.output(Channel::Stdin));
            // As a `select!` whose other branch is ready: this task will not look again for long.
            let first = poll_fn(|cx| Poll::Ready(stdout.poll_slice(cx))).await;
            assert_eq!(stderr.await.unwrap().unwrap(), 20);
            let first = match first {
                Poll::Ready(slice) => slice.unwrap().unwrap().len(),
                Poll::Pending => 0,
            };
            assert_eq!(first + read_all(stdout).await.unwrap(), 20);
            assert!(client.status(&[]).await.unwrap().is_success());
            server.await.unwrap();
            drop(client);
            open.none().await;
        });
    });
}

#[test]
fn who_asks_without_waiting_leaves_the_readers_their_wakeups() {
    explore(|| {
        block_on(async {
            let (client, server, open) = exec();
            let server = spawn(process(server, 2));
            let stdout = spawn(read_all(client.input(Channel::Stdout)));
            drop(client.input(Channel::Stderr));
            let asking = client.clone();
            let asks = spawn(async move {
                for _ in 0..3 {
                    asking.try_status(&[]);
                    yield_now().await;
                }
            });
            drop(client.output(Channel::Stdin));
            assert_eq!(stdout.await.unwrap().unwrap(), 20);
            asks.await.unwrap();
            assert!(client.try_status(&[]).unwrap().unwrap().is_success());
            server.await.unwrap();
            drop(client);
            open.none().await;
        });
    });
}

#[test]
fn a_dropped_wait_leaves_the_others_their_wakeups() {
    explore(|| {
        block_on(async {
            let (client, server, open) = exec();
            let server = spawn(process(server, 2));
            let stdout = spawn(read_all(client.input(Channel::Stdout)));
            drop(client.input(Channel::Stderr));
            drop(client.output(Channel::Stdin));
            {
                let mut wait = Box::pin(client.status(&[]));
                poll_fn(|cx| Poll::Ready(wait.as_mut().poll(cx).is_ready())).await;
            }
            assert_eq!(stdout.await.unwrap().unwrap(), 20);
            server.await.unwrap();
            drop(client);
            open.none().await;
        });
    });
}

#[test]
fn the_session_ends_whoever_lets_go_first() {
    explore(|| {
        block_on(async {
            let (client, server, open) = exec();
            let server = spawn(async move { server.ended().await });
            let waiting = client.clone();
            let waiting = spawn(async move { waiting.status(&[]).await });
            let resize = client.clone();
            let resize = spawn(async move {
                let _ = resize.resize(TerminalSize::new(80, 24));
            });
            client.close();
            drop(client);
            assert!(waiting.await.unwrap().is_err());
            resize.await.unwrap();
            let _ = server.await.unwrap();
            open.none().await;
        });
    });
}

/// Both ends of a port-forward.
fn forward(spdy: bool) -> (Connections, Connections, Open) {
    let (near, far, open) = pair();
    let session = |role| -> Box<dyn PortForward> {
        let config = ForwardConfig::default();
        match spdy {
            true => Box::new(Spdy::new(role, config, now())),
            false => {
                let channels = Channels::new(role, Encoding::Binary, &[80, 81], config, now());
                Box::new(channels.unwrap())
            }
        }
    };
    let client = Connections::spawn(session(Role::Client), near);
    let server = Connections::spawn(session(Role::Server), far);
    (client, server, open)
}

async fn send(stream: &ForwardStream, text: &'static [u8]) -> Result<(), Error> {
    stream.send(Bytes::from_static(text)).await
}

/// Sends back what comes on every connection.
async fn echo(server: Connections) {
    let mut echoes = Vec::new();
    while let Some((stream, _)) = server.accept().await {
        echoes.push(spawn(async move {
            while let Some(Ok(payload)) = poll_fn(|cx| stream.poll_payload(cx)).await {
                if stream.send(payload).await.is_err() {
                    return;
                }
            }
            let _ = stream.finish();
        }));
    }
    for echo in echoes {
        echo.await.unwrap();
    }
}

#[test]
fn connections_that_take_each_other_s_slots_lose_no_wakeup() {
    explore(|| {
        block_on(async {
            let (client, server, open) = forward(true);
            let server = spawn(echo(server));
            let users: Vec<_> = (0..2)
                .map(|_| {
                    let client = client.clone();
                    spawn(async move {
                        for _ in 0..2 {
                            let stream = client.open(80).unwrap();
                            send(&stream, b"ping").await.unwrap();
                            let pong = poll_fn(|cx| stream.poll_payload(cx)).await;
                            assert_eq!(pong.unwrap().unwrap(), "ping");
                        }
                    })
                })
                .collect();
            for user in users {
                user.await.unwrap();
            }
            drop(client);
            server.await.unwrap();
            open.none().await;
        });
    });
}

#[test]
fn connections_may_be_dropped_at_any_point() {
    for spdy in [true, false] {
        explore(move || {
            block_on(async move {
                let (client, server, open) = forward(spdy);
                let server = spawn(echo(server));
                let watching = client.clone();
                let closed = spawn(async move { watching.closed().await });
                let users: Vec<_> = [80, 81]
                    .into_iter()
                    .map(|port| {
                        let client = client.clone();
                        let what = shuttle::rand::thread_rng().gen_range(0..4);
                        spawn(async move {
                            let mut stream = client.open(port).unwrap();
                            if what > 0 {
                                let _ = send(&stream, b"ping").await;
                            }
                            match what {
                                2 => drop(poll_fn(|cx| stream.poll_payload(cx)).await),
                                3 => stream.abort(),
                                _ => {}
                            }
                        })
                    })
                    .collect();
                for user in users {
                    user.await.unwrap();
                }
                client.close();
                drop(client);
                let _ = closed.await.unwrap();
                server.await.unwrap();
                open.none().await;
            });
        });
    }
}

#[test]
fn all_that_wait_for_the_end_of_a_port_forward_hear_of_it() {
    explore(|| {
        block_on(async {
            let (client, server, open) = forward(true);
            let waits: Vec<_> = (0..2)
                .map(|_| {
                    let client = client.clone();
                    spawn(async move { client.closed().await })
                })
                .collect();
            let accepts: Vec<_> = (0..2)
                .map(|_| {
                    let server = server.clone();
                    spawn(async move { server.accept().await.is_none() })
                })
                .collect();
            yield_now().await;
            server.close();
            for wait in waits {
                let _ = wait.await.unwrap();
            }
            for accept in accepts {
                assert!(accept.await.unwrap());
            }
            drop((client, server));
            open.none().await;
        });
    });
}

#[test]
fn messages_arrive_and_end() {
    explore(|| {
        block_on(async {
            let (near, far, open) = pair();
            let client = Messages::spawn(Role::Client, near);
            let server = Messages::spawn(Role::Server, far);
            let server = spawn(async move {
                for _ in 0..3 {
                    assert!(server.send(Opcode::Text, "event".into()).await);
                }
                server.finish().await;
            });
            for _ in 0..3 {
                poll_fn(|cx| client.poll_next(cx)).await.unwrap().unwrap();
            }
            assert!(poll_fn(|cx| client.poll_next(cx)).await.is_none());
            server.await.unwrap();
            drop(client);
            open.none().await;
        });
    });
}

/// A waker that polls a reader in place.
struct InPlace {
    /// None while it is being polled, and whether it was woken meanwhile.
    reader: Mutex<(Option<Input>, bool)>,
}

impl Wake for InPlace {
    fn wake(self: Arc<Self>) {
        let waker = self.clone().into();
        let mut cx = Context::from_waker(&waker);
        let mut state = lock(&self.reader);
        state.1 = true;
        while state.1
            && let Some(mut reader) = state.0.take()
        {
            state.1 = false;
            drop(state);
            while let Poll::Ready(Some(_)) = reader.poll_slice(&mut cx) {}
            state = lock(&self.reader);
            state.0 = Some(reader);
        }
    }
}

#[test]
fn a_waker_may_poll_in_place() {
    explore(|| {
        block_on(async {
            let (client, server, open) = exec();
            let in_place = Arc::new(InPlace {
                reader: Mutex::new((Some(client.input(Channel::Stderr)), false)),
            });
            // It waits from here on.
            in_place.clone().wake();
            let server = spawn(process(server, 2));
            drop(client.output(Channel::Stdin));
            let stdout = read_all(client.input(Channel::Stdout)).await;
            assert_eq!(stdout.unwrap(), 20);
            assert!(client.status(&[]).await.unwrap().is_success());
            server.await.unwrap();
            drop(client);
            open_after(&in_place, open).await;
        });
    });
}

/// Drops a reader that is polled in place, then waits for the end.
async fn open_after(in_place: &InPlace, open: Open) {
    loop {
        let reader = lock(&in_place.reader).0.take();
        match reader {
            Some(reader) => break drop(reader),
            None => yield_now().await,
        }
    }
    open.none().await;
}

/// A waker that owns a handle, as that of a task which nobody else remembers.
struct Owner(Mutex<Option<Input>>);

impl Wake for Owner {
    fn wake(self: Arc<Self>) {}
}

#[test]
fn the_last_waker_of_a_task_may_drop_its_handles() {
    explore(|| {
        block_on(async {
            let (client, server, open) = exec();
            let owner = Arc::new(Owner(Mutex::new(None)));
            let waker = Waker::from(owner.clone());
            let mut wait = Box::pin(client.status(&[]));
            let polled = wait.as_mut().poll(&mut Context::from_waker(&waker));
            assert!(polled.is_pending());
            *lock(&owner.0) = Some(client.input(Channel::Stderr));
            drop((owner, waker));
            // Another waker takes the place of the last one.
            poll_fn(|cx| Poll::Ready(wait.as_mut().poll(cx).is_pending())).await;
            drop(wait);
            let server = spawn(process(server, 2));
            drop(client.output(Channel::Stdin));
            drop(client.input(Channel::Stdout));
            assert!(client.status(&[]).await.unwrap().is_success());
            server.await.unwrap();
            drop(client);
            open.none().await;
        });
    });
}

/// Counts itself.
struct Counted;

impl Wake for Counted {
    fn wake(self: Arc<Self>) {}
}

#[tokio::test]
async fn a_dropped_wait_leaves_no_waker_behind() {
    let (client, _server, _open) = exec();
    let counted = Arc::new(Counted);
    let waker = Waker::from(counted.clone());
    let held = Arc::strong_count(&counted);
    let mut cx = Context::from_waker(&waker);
    let mut wait: Pin<Box<dyn Future<Output = _>>> = Box::pin(client.status(&[]));
    assert!(wait.as_mut().poll(&mut cx).is_pending());
    assert!(Arc::strong_count(&counted) > held, "it waits");
    drop(wait);
    assert_eq!(Arc::strong_count(&counted), held);
    let mut resized = Box::pin(client.resized());
    assert!(resized.as_mut().poll(&mut cx).is_pending());
    drop(resized);
    assert_eq!(Arc::strong_count(&counted), held);
}

#[tokio::test]
async fn who_asks_without_waiting_leaves_the_socket_to_who_waits() {
    let (client, server, _open) = exec();
    let mut stdout = client.input(Channel::Stdout);
    let reading = tokio::spawn(async move { poll_fn(|cx| stdout.poll_slice(cx)).await });
    tokio::task::yield_now().await;
    assert!(client.try_status(&[]).is_none());
    let output = server.output(Channel::Stdout);
    poll_fn(|cx| output.poll_write(cx, b"late")).await.unwrap();
    assert_eq!(reading.await.unwrap().unwrap().unwrap(), "late");
}

//! Handles of every verb under schedules that shuttle chooses.
//!
//! Each of these was undone by hand, alone, and was found. The first two were faults once.
//!
//! | undone | found by |
//! |---|---|
//! | a slot's wakers go with the slot | `connections_that_take_...`, `connections_may_be_dropped_...` |
//! | who asks without waiting leaves the socket's waker | `who_asks_without_waiting_...` |
//! | all that wait for the session are woken, not one | `connections_that_take_each_other_s_slots_...` |
//! | the task steps in for who loses interest | `a_reader_that_loses_interest_...` |
//! | who leaves tells the task | `handles_may_be_dropped_at_any_point` |
//! | who leaves satisfied hands the socket over | `who_makes_room_in_a_full_queue_hands_over` |
//! | it is handed over once, and the task told; the task hands it over too | `a_reader_that_leaves_while_data_flows_...` |
//! | who is due stays due | `two_readers_and_a_writer_miss_nothing` and three more |
//! | who comes when it is ready is due | `who_comes_after_the_socket_has_become_ready_is_woken` |
//! | who only writes is woken by what arrives | `who_cannot_write_hears_of_the_end` |
//! | all hear that this side has closed | `who_waits_hears_at_once_...` |
//! | all hear that the socket is gone | `who_waits_for_a_peer_that_takes_nothing_...` |
//! | wakers are woken behind the lock | `a_waker_may_poll_in_place`, `two_sessions_may_...` |
//! | wakers are dropped behind the lock | `the_last_waker_of_a_task_may_drop_its_handles` |
//! | a socket that is polled wakes nobody | `both_ends_may_poll_in_place` |
//! | the task sees off what has ended | `two_readers_...`, `messages_arrive_and_end` |

use std::{
    future::{Future, poll_fn},
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
};

use bytes::Bytes;
use shuttle::{
    future::{block_on, spawn, yield_now},
    rand::Rng as _,
};
use tokio::io::AsyncWriteExt as _;

use self::model::{Open, pair, pair_of};
use super::wakers::{Direction, Readiness, TaskNotify, Wakeups};
use crate::{
    Role,
    error::Error,
    limits,
    session::{
        KeepaliveConfig, Opcode, RemoteCommand, Subprotocol, Transmit,
        port_forward::{Channels, ForwardConfig, PortForward, Spdy},
        remote_command::Streams,
    },
    transport::{
        now,
        sync::{Mutex, lock, model::explore},
        ws::{
            messages::Messages,
            port_forward::{Connections, ForwardStream},
            remote_command::{self, Control, Input, Output},
            websocket::WebSocket,
        },
    },
    wire::{
        channel::{Channel, Encoding},
        resize::TerminalSize,
        status::Status,
    },
};

mod in_place;
pub(crate) mod model;
mod port_forward;

const STREAMS: Streams = Streams {
    stdin: true,
    stdout: true,
    stderr: true,
    tty: true,
};

/// Both ends of an exec session whose queues hold some messages.
fn exec() -> (Control, Control, Open) {
    let (near, far, open) = pair();
    let (client, server) = exec_over(near, far);
    (client, server, open)
}

fn exec_over(near: Box<dyn WebSocket>, far: Box<dyn WebSocket>) -> (Control, Control) {
    (end(Role::Client, near, 200), end(Role::Server, far, 200))
}

/// One end, each of whose queues holds so many bytes.
fn end(role: Role, socket: Box<dyn WebSocket>, bound: usize) -> Control {
    let keepalive = KeepaliveConfig::default();
    let session = RemoteCommand::new(role, Subprotocol::V5, STREAMS, keepalive, now());
    let reads: &[_] = match role {
        Role::Client => &[Channel::Stdout, Channel::Stderr],
        Role::Server => &[Channel::Stdin],
    };
    remote_command::spawn(session, socket, bound, reads)
}

/// Explores what is done with both ends of an exec session, whose socket is closed behind it.
fn explore_exec(scenario: impl AsyncFn(Control, Control) + Send + Sync + 'static) {
    explore(move || {
        block_on(async {
            let (client, server, open) = exec();
            scenario(client, server).await;
            open.none().await;
        });
    });
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

async fn write(output: &mut Output, messages: usize) -> io::Result<()> {
    for _ in 0..messages {
        output.write_all(b"0123456789").await?;
    }
    output.flush().await
}

/// A server's process: reads its input to the end, writes to both outputs meanwhile, exits.
async fn process(control: Control, messages: usize) {
    let stdin = spawn(read_all(control.input(Channel::Stdin)));
    let mut stdout = control.output(Channel::Stdout);
    let mut stderr = control.output(Channel::Stderr);
    let stderr = spawn(async move { write(&mut stderr, messages).await });
    let _ = write(&mut stdout, messages).await;
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
            let mut stdin = client.output(Channel::Stdin);
            write(&mut stdin, 3).await.unwrap();
            drop(stdin);
            assert!(client.status(&[]).await.unwrap().is_success());
            assert_eq!(stdout.await.unwrap().unwrap(), 30);
            assert_eq!(stderr.await.unwrap().unwrap(), 30);
            server.await.unwrap();
            // A session that is over closes its socket, though its handles are there.
            open.none().await;
            drop(client);
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
    explore_exec(async |client, server| {
        let server = spawn(process(server, 3));
        let mut random = shuttle::rand::thread_rng();
        let (few, fewer) = (random.gen_range(0..4), random.gen_range(0..3));
        let stdout = spawn(read_some(client.input(Channel::Stdout), few));
        let stderr = spawn(read_some(client.input(Channel::Stderr), fewer));
        let mut stdin = client.output(Channel::Stdin);
        let written = random.gen_range(0..3);
        let stdin = spawn(async move { write(&mut stdin, written).await });
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
    });
}

/// One of two readers takes a slice, for which it may wait, and no more until the other has all.
fn one_reader_stops(waits: bool) {
    explore_exec(async move |client, server| {
        let server = spawn(process(server, 2));
        let mut stdout = client.input(Channel::Stdout);
        let stderr = spawn(read_all(client.input(Channel::Stderr)));
        drop(client.output(Channel::Stdin));
        let first = poll_fn(|cx| match stdout.poll_slice(cx) {
            Poll::Pending if waits => Poll::Pending,
            polled => Poll::Ready(polled),
        });
        let first = match first.await {
            Poll::Ready(slice) => slice.unwrap().unwrap().len(),
            Poll::Pending => 0,
        };
        assert_eq!(stderr.await.unwrap().unwrap(), 20);
        assert_eq!(first + read_all(stdout).await.unwrap(), 20);
        assert!(client.status(&[]).await.unwrap().is_success());
        server.await.unwrap();
    });
}

/// As a `select!` whose other branch is ready: its task will not look again for long.
#[test]
fn a_reader_that_loses_interest_does_not_starve_the_others() {
    one_reader_stops(false);
}

#[test]
fn a_reader_that_has_had_enough_hands_over() {
    one_reader_stops(true);
}

/// While data flows the socket is never empty, and wakes nobody.
#[test]
fn a_reader_that_leaves_while_data_flows_hands_over_past_one_that_lost_interest() {
    explore(|| {
        block_on(async {
            let (near, far, open) = pair_of(16);
            let (client, server) = exec_over(near, far);
            let mut stdout = client.input(Channel::Stdout);
            let mut stderr = client.input(Channel::Stderr);
            drop(client.output(Channel::Stdin));
            let lost = poll_fn(|cx| Poll::Ready(stderr.poll_slice(cx))).await;
            let waiting = client.clone();
            let status = spawn(async move { waiting.status(&[]).await });
            // All of it is dropped but the first.
            let server = spawn(async move {
                let _ = write(&mut server.output(Channel::Stdout), 16).await;
                let _ = server.exit(&Status::success());
                let _ = server.ended().await;
            });
            drop(poll_fn(|cx| stdout.poll_slice(cx)).await);
            drop(stdout);
            assert!(status.await.unwrap().unwrap().is_success());
            drop((lost, stderr, client));
            server.await.unwrap();
            open.none().await;
        });
    });
}

/// A full queue holds back what others wait for. Who makes room in it need not come again.
#[test]
fn who_makes_room_in_a_full_queue_hands_over() {
    explore(|| {
        block_on(async {
            let (near, far, open) = pair();
            // Two messages, and what they cost beside their bytes.
            let client = end(Role::Client, near, 2 * (64 + 10));
            let server = end(Role::Server, far, 200);
            let server = spawn(async move {
                let _ = write(&mut server.output(Channel::Stdout), 3).await;
                let _ = write(&mut server.output(Channel::Stderr), 1).await;
                let _ = server.exit(&Status::success());
                let _ = server.ended().await;
            });
            drop(client.output(Channel::Stdin));
            let stderr = spawn(read_all(client.input(Channel::Stderr)));
            let mut stdout = client.input(Channel::Stdout);
            for _ in 0..2 {
                let slice = poll_fn(|cx| stdout.poll_slice(cx)).await;
                assert_eq!(slice.unwrap().unwrap().len(), 10);
            }
            assert_eq!(stderr.await.unwrap().unwrap(), 10);
            assert_eq!(read_all(stdout).await.unwrap(), 10);
            server.await.unwrap();
            drop(client);
            open.none().await;
        });
    });
}

#[test]
fn who_asks_without_waiting_leaves_the_readers_their_wakeups() {
    explore_exec(async |client, server| {
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
    });
}

#[test]
fn a_dropped_wait_leaves_the_others_their_wakeups() {
    explore_exec(async |client, server| {
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
    });
}

#[test]
fn the_session_ends_whoever_lets_go_first() {
    explore_exec(async |client, server| {
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
    });
}

/// The peer takes nothing, not even the close, and the clock stands still.
#[test]
fn who_waits_hears_at_once_that_this_side_has_closed() {
    explore(|| {
        block_on(async {
            let (near, far, open) = pair();
            let client = end(Role::Client, near, 200);
            let stdout = spawn(read_all(client.input(Channel::Stdout)));
            let waiting = client.clone();
            let waiting = spawn(async move { waiting.status(&[]).await });
            let mut stdin = client.output(Channel::Stdin);
            for _ in 0..3 {
                stdin.write_all(b"0123456789").await.unwrap();
            }
            client.close();
            assert!(stdout.await.unwrap().is_err());
            assert!(waiting.await.unwrap().is_err());
            drop((stdin, client, far));
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
            open.none().await;
            drop(client);
        });
    });
}

/// Counts how often it was woken, and itself.
#[derive(Default)]
struct Counted(AtomicUsize);

impl Wake for Counted {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// The socket was polled and became ready, and then somebody comes who relies on that it will.
#[test]
fn who_comes_after_the_socket_has_become_ready_is_woken() {
    let task = Arc::<TaskNotify>::default();
    let readiness = Readiness::new(task.clone());
    readiness.waker(Direction::Read).wake();
    let counted = Arc::<Counted>::default();
    let mut wakeups = Wakeups::default();
    readiness.begin();
    let waker = Waker::from(counted.clone());
    readiness.register(Direction::Read, Some(&waker), false, &mut wakeups);
    readiness.end(&mut wakeups);
    wakeups.run(&task);
    assert_eq!(counted.0.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn a_dropped_wait_leaves_no_waker_behind() {
    let (client, _server, _open) = exec();
    let counted = Arc::<Counted>::default();
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
    let mut output = server.output(Channel::Stdout);
    output.write_all(b"late").await.unwrap();
    assert_eq!(reading.await.unwrap().unwrap().unwrap(), "late");
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_a_peer_that_takes_nothing_is_let_go_at_the_end() {
    let (near, _far, open) = pair();
    let client = end(Role::Client, near, 200);
    let mut stdin = client.output(Channel::Stdin);
    // Two messages are on their way, and what waits behind them fills the send buffer.
    for _ in 0..2 + limits::SEND_BUFFER / limits::INPUT_MESSAGE {
        let message = [0; limits::INPUT_MESSAGE];
        let written = stdin.write(&message).await;
        assert_eq!(written.unwrap(), message.len());
    }
    let written = tokio::spawn(async move { stdin.flush().await });
    tokio::task::yield_now().await;
    client.close();
    let day = std::time::Duration::from_secs(24 * 3600);
    let written = tokio::time::timeout(day, written).await;
    let _ = written.expect("it ends").unwrap();
    drop((client, open));
}

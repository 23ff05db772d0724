//! Sessions that idle, each with its handles and its task, over a peer in memory that answers
//! pings.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::Bytes;
use futures_util::StreamExt as _;
use kubewire::{
    AnyWebSocket, Role,
    exec::{Child, Streams, Subprotocol},
    limits,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    runtime::{Builder, Runtime},
};

use super::super::{Case, case};

/// So many, idle after their first output.
pub(super) fn open(count: usize) -> Case {
    case("sessions", count, 0, || (), move |()| opened(count))
}

/// What they do in the time between two pings.
pub(super) fn idle(count: usize) -> Case {
    case(
        "sessions",
        count,
        0,
        move || {
            let (runtime, mut children) = opened(count);
            for child in &mut children {
                let mut stdout = child.stdout.take().unwrap();
                runtime.spawn(async move { stdout.next().await });
            }
            runtime.block_on(async { tokio::time::sleep(Duration::from_millis(1)).await });
            (runtime, children)
        },
        |(runtime, children)| {
            runtime.block_on(async { tokio::time::sleep(limits::KEEPALIVE_INTERVAL).await });
            for child in &children {
                // The output and the pong.
                assert_eq!(child.stats().received_messages, 2);
            }
            (runtime, children)
        },
    )
}

fn opened(count: usize) -> (Runtime, Vec<Child>) {
    // Time passes as soon as nobody has anything to do.
    let mut builder = Builder::new_current_thread();
    let runtime = builder.enable_time().start_paused(true).build().unwrap();
    let mut children = Vec::with_capacity(count);
    runtime.block_on(async {
        let streams = Streams {
            stdin: true,
            stdout: true,
            stderr: true,
            ..Streams::default()
        };
        for _ in 0..count {
            let socket = AnyWebSocket::from_io(Peer::default(), Role::Client, Bytes::new());
            let mut child = Child::over(socket, Subprotocol::V5, streams).spawn();
            let stdout = child.stdout.as_mut().unwrap();
            assert_eq!(stdout.next().await.unwrap().unwrap(), "x");
            children.push(child);
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    });
    (runtime, children)
}

/// Says one byte, and a pong to whatever is written.
#[derive(Default)]
struct Peer {
    said: bool,
    owed: bool,
    reader: Option<Waker>,
}

impl AsyncRead for Peer {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !std::mem::replace(&mut self.said, true) {
            buffer.put_slice(b"\x82\x02\x01x");
        } else if std::mem::take(&mut self.owed) {
            buffer.put_slice(b"\x8a\x00");
        } else {
            self.reader = Some(context.waker().clone());
            return Poll::Pending;
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Peer {
    fn poll_write(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.owed = true;
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

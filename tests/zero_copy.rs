//! Zero-copy as a property: payloads are slices of the buffer that the socket was read into, and
//! parsing allocates nothing. Bytes copied and allocations are counted, not timed.

use std::{
    collections::VecDeque,
    io,
    ops::Range,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
};

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;
use kubewire::{
    Role,
    client::Over,
    session::{Subprotocol, remote_command::Streams},
    transport::AnyWebSocket,
    wire::{
        channel::{self, Encoding, Frame},
        websocket::{Decoder, FrameHeader, Message, Opcode},
    },
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

fn encode(out: &mut Vec<u8>, payload: &[u8]) {
    let length = payload.len() as u64;
    FrameHeader {
        fin: true,
        opcode: Opcode::Binary,
        mask: None,
        length,
    }
    .encode(out);
    out.extend_from_slice(payload);
}

#[test]
fn parsing_a_channel_frame_neither_allocates_nor_copies_whatever_its_size() {
    for size in [0, 1, 64, 1 << 10, 32 << 10, 1 << 20] {
        let mut message = vec![b'x'; size + 1];
        message[0] = 1;
        let message = Bytes::from(message);
        let expected = message[1..].as_ptr();
        let mut payload = Bytes::new();
        let counted = allocation_counter::measure(|| {
            for _ in 0..100 {
                match channel::parse(Encoding::Binary, true, message.clone()) {
                    Ok(Some(Frame::Data(channel::Channel::Stdout, bytes))) => payload = bytes,
                    other => panic!("{other:?}"),
                }
            }
        });
        assert_eq!(
            counted.count_total, 1,
            "only the first clone of a Vec's bytes allocates"
        );
        assert_eq!((payload.len(), payload.as_ptr()), (size, expected));
    }
}

#[test]
fn websocket_frames_in_one_buffer_are_decoded_without_allocation_or_copy() {
    let mut wire = Vec::new();
    for at in 0..100u8 {
        encode(&mut wire, &vec![at; 1 + usize::from(at) * 100]);
    }
    let mut input = BytesMut::from(&wire[..]);
    let buffer = input.as_ptr_range();
    let mut decoder = Decoder::new(Role::Client, 1 << 20);
    let mut payloads = Vec::with_capacity(100);
    let counted = allocation_counter::measure(|| {
        while let Ok(Some(Message::Binary(payload))) = decoder.decode(&mut input) {
            payloads.push(payload);
        }
    });
    assert_eq!(payloads.len(), 100);
    assert!(
        counted.count_total <= 1,
        "{} allocations",
        counted.count_total
    );
    for payload in &payloads {
        assert!(buffer.contains(&payload.as_ptr()));
    }
}

/// A socket that notes where it was read into.
struct Noted {
    reads: VecDeque<Vec<u8>>,
    targets: Arc<Mutex<Vec<Range<usize>>>>,
}

impl AsyncRead for Noted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Some(mut next) = self.reads.pop_front() else {
            return Poll::Ready(Ok(()));
        };
        let rest = next.split_off(next.len().min(buf.remaining()));
        if !rest.is_empty() {
            self.reads.push_front(rest);
        }
        buf.put_slice(&next);
        let end = buf.filled().as_ptr_range().end as usize;
        self.targets.lock().unwrap().push(end - next.len()..end);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Noted {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// Bytes of payload that reach the reader from somewhere else than where the socket put them.
async fn copied(frame: usize, total: usize) -> usize {
    let mut wire = Vec::new();
    let mut payload = vec![b'x'; frame + 1];
    payload[0] = 1;
    for _ in 0..total / frame {
        encode(&mut wire, &payload);
    }
    encode(&mut wire, b"\x03{\"metadata\":{},\"status\":\"Success\"}");
    wire.extend_from_slice(b"\x88\x02\x03\xe8");
    let targets = Arc::<Mutex<Vec<Range<usize>>>>::default();
    let socket = Noted {
        reads: [wire].into(),
        targets: targets.clone(),
    };
    let websocket = AnyWebSocket::from_io(socket, Role::Client, Bytes::new());
    let streams = Streams {
        stdout: true,
        ..Streams::default()
    };
    let mut child = Over::new(websocket, Subprotocol::V5, streams).child();
    let mut stdout = child.stdout.take().unwrap();
    let (mut received, mut copied) = (0, 0);
    let mut held = Vec::new();
    while let Some(slice) = stdout.next().await {
        let slice = slice.unwrap();
        received += slice.len();
        let bytes = slice.as_ptr_range();
        let (start, end) = (bytes.start as usize, bytes.end as usize);
        let mut fresh = 0;
        for target in targets.lock().unwrap().iter() {
            fresh += end.min(target.end).saturating_sub(start.max(target.start));
        }
        copied += slice.len().saturating_sub(fresh);
        // Held to the end, so that no buffer is used twice and addresses stay unique.
        held.push(slice);
    }
    assert_eq!(received, total / frame * frame);
    copied
}

#[tokio::test]
async fn only_frames_that_straddle_two_buffers_are_copied() {
    // A buffer is 128 KiB, so that at most one frame in so many bytes is cut by its end.
    for frame in [64, 1 << 10, 8 << 10, 32 << 10] {
        let total = 8 << 20;
        let copied = copied(frame, total).await;
        let bound = (total / (96 << 10) + 8) * frame;
        println!("frames of {frame} B: {copied} of {total} bytes copied");
        assert!(copied <= bound, "{copied} bytes copied, frames of {frame}");
    }
}

//! Zero-copy as a property: payloads are slices of the buffer that the socket was read into, and
//! parsing allocates nothing. Bytes copied and allocations are counted, not timed.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::{
    collections::VecDeque,
    io,
    ops::Range,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
    time::Instant,
};

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;
use kubewire::{
    AnyWebSocket, Role,
    exec::{Child, Streams, Subprotocol},
    session::{
        Session as _,
        port_forward::{ConnectionId, ForwardConfig, PortForward as _, Spdy},
    },
    wire::{
        channel::{self, Encoding},
        spdy::{self, Data, Frame, StreamId},
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
                    Ok(Some(channel::Frame::Data(channel::Channel::Stdout, bytes))) => {
                        payload = bytes;
                    }
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

fn spdy_data(out: &mut Vec<u8>, stream: StreamId, payload: &[u8]) {
    out.extend_from_slice(&Data::head_of(stream, payload.len(), false));
    out.extend_from_slice(payload);
}

#[test]
fn spdy_data_frames_are_decoded_without_allocation_or_copy_however_they_are_cut() {
    let stream = StreamId::new(3).unwrap();
    let mut wire = Vec::new();
    for at in 0..100u8 {
        spdy_data(&mut wire, stream, &vec![at; 1 + usize::from(at) * 100]);
    }
    let total = wire.len() - 100 * spdy::HEAD;
    // Sizes of messages: all in one, and some that cut heads and payloads.
    for size in [usize::MAX, 32 << 10, 1000, 11, 1] {
        let input = Bytes::from(wire.clone());
        let buffer = input.as_ptr_range();
        let size = size.min(input.len());
        let mut messages: Vec<Bytes> = (0..input.len())
            .step_by(size)
            .map(|at| input.slice(at..input.len().min(at + size)))
            .collect();
        let mut decoder = spdy::Decoder::new();
        let mut payloads = Vec::with_capacity(2 * messages.len() + 200);
        let counted = allocation_counter::measure(|| {
            for message in &mut messages {
                while let Ok(Some(Frame::Data(data))) = decoder.decode(message) {
                    payloads.push(data.payload);
                }
            }
        });
        assert_eq!(counted.count_total, 0, "in messages of {size}");
        assert_eq!(payloads.iter().map(Bytes::len).sum::<usize>(), total);
        for payload in &payloads {
            assert!(buffer.contains(&payload.as_ptr()));
        }
    }
}

/// Both ends of a port-forward with one connection.
fn port_forward() -> (Spdy, Spdy, ConnectionId, Instant) {
    let now = Instant::now();
    let mut client = Spdy::new(Role::Client, ForwardConfig::default(), now);
    let mut server = Spdy::new(Role::Server, ForwardConfig::default(), now);
    let id = client.open(now, 80).unwrap();
    pass(&mut client, &mut server, now);
    let opened = std::iter::from_fn(|| server.poll_event());
    assert!(opened.last().is_some(), "the connection is there");
    pass(&mut server, &mut client, now);
    while client.poll_event().is_some() {}
    (client, server, id, now)
}

fn pass(from: &mut Spdy, to: &mut Spdy, now: Instant) {
    while let Some(transmit) = from.poll_transmit() {
        to.handle_message(now, transmit.to_message());
    }
}

#[test]
fn a_connection_s_payload_is_read_where_it_arrived_without_allocation() {
    let (mut client, _, id, now) = port_forward();
    let stream = StreamId::new(3).unwrap();
    for size in [1, 64, 1 << 10, 32 << 10, 1 << 20] {
        let mut wire = Vec::new();
        spdy_data(&mut wire, stream, &vec![7; size]);
        let message = Bytes::from(wire);
        let expected = message[spdy::HEAD..].as_ptr();
        let mut payload = Bytes::new();
        let mut take = || {
            client.handle_message(now, Message::Binary(message.clone()));
            while client.poll_event().is_some() {}
            payload = client.read(id).unwrap();
        };
        // The first makes the queues.
        take();
        let counted = allocation_counter::measure(|| (0..100).for_each(|_| take()));
        assert_eq!(counted.count_total, 0, "payloads of {size}");
        assert_eq!((payload.len(), payload.as_ptr()), (size, expected));
    }
}

#[test]
fn a_connection_s_payload_is_sent_from_where_it_was_written() {
    let (mut client, mut server, id, now) = port_forward();
    for end in [&mut client, &mut server] {
        for size in [2 << 10, 32 << 10] {
            let payload = Bytes::from(vec![7; size]);
            let expected = payload.as_ptr();
            let mut sent = Bytes::new();
            let mut send = || {
                end.write(now, id, payload.clone()).unwrap();
                let head = end.poll_transmit().unwrap().payload;
                assert_eq!(head.len(), spdy::HEAD, "the head goes before");
                sent = end.poll_transmit().unwrap().payload;
                assert!(end.poll_transmit().is_none());
            };
            send();
            let counted = allocation_counter::measure(|| (0..100).for_each(|_| send()));
            assert!(
                counted.bytes_total < 100 * 256,
                "heads only, not payloads of {size}: {}",
                counted.bytes_total
            );
            assert_eq!((sent.len(), sent.as_ptr()), (size, expected));
        }
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
    let mut child = Child::over(websocket, Subprotocol::V5, streams).spawn();
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

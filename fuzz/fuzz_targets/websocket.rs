//! Any bytes, in any pieces, give the same messages or the same error, and no message is longer
//! than the bound.
#![no_main]

use bytes::BytesMut;
use kubewire::{
    Role,
    wire::websocket::{Decoder, Message, WebSocketError},
};
use libfuzzer_sys::fuzz_target;

const LIMIT: usize = 4096;

fn decode<'a>(
    role: Role,
    pieces: impl Iterator<Item = &'a [u8]>,
) -> (Vec<Message>, Option<WebSocketError>) {
    let mut decoder = Decoder::new(role, LIMIT);
    let mut input = BytesMut::new();
    let mut messages = Vec::new();
    for piece in pieces {
        input.extend_from_slice(piece);
        loop {
            match decoder.decode(&mut input) {
                Ok(Some(message)) => messages.push(message),
                Ok(None) => break,
                Err(error) => return (messages, Some(error)),
            }
        }
    }
    (messages, None)
}

fuzz_target!(|data: &[u8]| {
    let Some((&[choice, size], wire)) = data.split_first_chunk() else {
        return;
    };
    let role = if choice & 1 == 0 { Role::Client } else { Role::Server };
    let whole = decode(role, std::iter::once(wire));
    assert_eq!(whole, decode(role, wire.chunks(usize::from(size).max(1))));
    for message in whole.0 {
        let length = match message {
            Message::Text(b) | Message::Binary(b) => b.len(),
            Message::Ping(b) | Message::Pong(b) => {
                assert!(b.len() <= 125);
                b.len()
            }
            Message::Close(_) => 0,
        };
        assert!(length <= LIMIT);
    }
});

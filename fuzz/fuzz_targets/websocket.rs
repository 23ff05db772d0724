//! Any bytes, in any pieces, give the same messages or the same error, and no message is longer
//! than the bound. Tungstenite, which shares no line, understands the same.
#![no_main]

use std::io::{self, Read, Write};

use bytes::BytesMut;
use kubewire::{
    Role,
    wire::websocket::{Close, Decoder, Message, WebSocketError},
};
use libfuzzer_sys::fuzz_target;
use tungstenite::protocol::{self, WebSocketConfig};

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

struct Input<'a>(&'a [u8]);

impl Read for Input<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.0.read(buffer)? {
            0 => Err(io::ErrorKind::WouldBlock.into()),
            read => Ok(read),
        }
    }
}

impl Write for Input<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What the other library makes of the bytes, up to a close or its first failure, and whether it
/// failed.
fn peer(role: Role, wire: &[u8]) -> (Vec<Message>, bool) {
    let role = match role {
        Role::Client => protocol::Role::Client,
        Role::Server => protocol::Role::Server,
    };
    let config = WebSocketConfig::default().max_message_size(Some(LIMIT)).max_frame_size(Some(LIMIT));
    let mut socket = tungstenite::WebSocket::from_raw_socket(Input(wire), role, Some(config));
    let mut messages = Vec::new();
    loop {
        messages.push(match socket.read() {
            Ok(tungstenite::Message::Text(found)) => Message::Text(found.into()),
            Ok(tungstenite::Message::Binary(found)) => Message::Binary(found),
            Ok(tungstenite::Message::Ping(found)) => Message::Ping(found),
            Ok(tungstenite::Message::Pong(found)) => Message::Pong(found),
            // What it makes of a code that may not be sent is its own answer.
            Ok(tungstenite::Message::Close(Some(found)))
                if found.reason == "Protocol violation" =>
            {
                return (messages, true);
            }
            Ok(tungstenite::Message::Close(found)) => {
                messages.push(Message::Close(found.map(|found| Close {
                    code: found.code.into(),
                    reason: found.reason.as_str().to_owned(),
                })));
                return (messages, false);
            }
            Ok(tungstenite::Message::Frame(_)) => unreachable!("only written"),
            Err(tungstenite::Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => {
                return (messages, false);
            }
            Err(_) => return (messages, true),
        });
    }
}

/// Tungstenite reads no further than a close, and is younger than the code 1014; where it waits for
/// the rest of a frame that is too long or malformed, ours has said so already.
fn compare(role: Role, (messages, error): &(Vec<Message>, Option<WebSocketError>), wire: &[u8]) {
    let (theirs, they_failed) = peer(role, wire);
    let mut ours = &messages[..];
    let mut failed = error.is_some();
    if let Some(close) = ours.iter().position(|message| matches!(message, Message::Close(_))) {
        if matches!(&ours[close], Message::Close(Some(close)) if close.code == 1014) {
            return;
        }
        ours = &ours[..=close];
        failed = false;
    }
    assert_eq!(ours, &theirs[..ours.len().min(theirs.len())]);
    if !failed {
        assert_eq!((ours.len(), false), (theirs.len(), they_failed));
    }
}

fuzz_target!(|data: &[u8]| {
    let Some((&[choice, size], wire)) = data.split_first_chunk() else {
        return;
    };
    let role = if choice & 1 == 0 { Role::Client } else { Role::Server };
    let whole = decode(role, std::iter::once(wire));
    assert_eq!(whole, decode(role, wire.chunks(usize::from(size).max(1))));
    compare(role, &whole, wire);
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

//! Whatever a server sends of a watch or a log over a WebSocket, the client gets what came before the
//! end, ends exactly once, and in order only if the server closed so.
#![no_main]

use std::time::Instant;

use bytes::BytesMut;
use kubewire::{
    Role,
    error::{Error, PeerError},
    session::{Message, Messages, Session, messages::MessagesEvent},
    wire::websocket::Decoder,
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|wire: &[u8]| {
    let now = Instant::now();
    let mut session = Messages::new(Role::Client, Default::default(), now);
    let mut decoder = Decoder::new(Role::Client, 1 << 20);
    let mut input = BytesMut::from(wire);
    // What came before the first close frame, and whether that was one of order.
    let (mut sent, mut closed) = (Vec::new(), None);
    let lost: Option<Error> = loop {
        match decoder.decode(&mut input) {
            Ok(Some(message)) => {
                match &message {
                    Message::Text(_) | Message::Binary(_) if closed.is_none() => {
                        sent.push(message.clone());
                    }
                    Message::Close(close) if closed.is_none() => {
                        closed = Some(close.as_ref().is_some_and(|it| it.code == 1000));
                    }
                    _ => {}
                }
                session.handle_message(now, message);
            }
            Ok(None) => break None,
            Err(error) => break Some(PeerError::from(error).into()),
        }
    };
    session.handle_end(lost);
    let (mut came, mut ended) = (Vec::new(), None);
    while let Some(event) = session.poll_event() {
        assert!(ended.is_none(), "{event:?} after the end");
        match event {
            MessagesEvent::Message(message) => came.push(message),
            MessagesEvent::Ended(how) => ended = Some(how.is_ok()),
            _ => {}
        }
    }
    assert_eq!(came, sent);
    assert_eq!(ended, Some(closed == Some(true)));
    assert!(session.queued() < 4096);
});

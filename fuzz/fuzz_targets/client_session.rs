//! Whatever a server sends, a client ends exactly once, says nothing afterwards, and claims no
//! success that the server did not send.
#![no_main]

use std::time::Instant;

use bytes::BytesMut;
use kubewire::{
    Role,
    session::{KeepaliveConfig, Message, RemoteCommand, Session, Subprotocol,
        remote_command::{RemoteCommandEvent, Streams}},
    wire::websocket::Decoder,
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((&choice, wire)) = data.split_first() else {
        return;
    };
    let protocol = match usize::from(choice) % 6 {
        5 => Subprotocol::Unnamed,
        at => Subprotocol::NAMED[at],
    };
    let streams = Streams { stdin: true, stdout: true, stderr: true, tty: false };
    let now = Instant::now();
    let config = KeepaliveConfig::default();
    let mut session = RemoteCommand::new(Role::Client, protocol, streams, config, now);
    let mut decoder = Decoder::new(Role::Client, 1 << 20);
    let mut input = BytesMut::from(wire);
    let mut close_1000 = false;
    let lost = loop {
        match decoder.decode(&mut input) {
            Ok(Some(message)) => {
                close_1000 |= matches!(&message, Message::Close(Some(c)) if c.code == 1000);
                session.handle_message(now, message);
            }
            Ok(None) => break None,
            Err(error) => {
                break Some(kubewire::error::PeerError::from(error).into());
            }
        }
    };
    session.handle_end(lost);
    let (mut ended, mut statuses) = (0, 0);
    while let Some(event) = session.poll_event() {
        assert_eq!(ended, 0, "{event:?} after the end");
        match event {
            RemoteCommandEvent::Status(status) => {
                statuses += 1;
                if status.is_success() {
                    let said = wire.windows(7).any(|bytes| bytes == b"Success")
                        // Base64 and JSON escapes hide the word.
                        || matches!(protocol, Subprotocol::V4Base64)
                        || wire.contains(&b'\\');
                    assert!(said || (!protocol.has_status() && close_1000));
                }
            }
            RemoteCommandEvent::Ended(Ok(())) => {
                assert_eq!(statuses, 1);
                ended += 1;
            }
            RemoteCommandEvent::Ended(Err(_)) => ended += 1,
            RemoteCommandEvent::Data(_, bytes) => assert!(!bytes.is_empty()),
            _ => {}
        }
    }
    assert_eq!(ended, 1);
    assert!(statuses <= 1);
    assert!(session.queued() < 4096);
});

//! A client and a server that do anything in any order: bytes arrive once and in order, and the
//! client's status is the one that the server gave.
#![no_main]

use std::time::Instant;

use bytes::Bytes;
use kubewire::{
    Role,
    session::{KeepaliveConfig, RemoteCommand, Session, Subprotocol,
        remote_command::{RemoteCommandEvent, Streams}},
    wire::{channel::Channel, resize::TerminalSize, status::Status},
};
use libfuzzer_sys::fuzz_target;

#[derive(Default)]
struct Seen {
    streams: [Vec<u8>; 3],
    finished: bool,
    status: Option<Status>,
    ended: bool,
}

impl Seen {
    fn take(&mut self, session: &mut RemoteCommand) {
        while let Some(event) = session.poll_event() {
            assert!(!self.ended);
            match event {
                RemoteCommandEvent::Data(channel, bytes) => {
                    assert!(!(channel == Channel::Stdin && self.finished));
                    self.streams[usize::from(channel.number())].extend_from_slice(&bytes);
                }
                RemoteCommandEvent::Finished(_) => self.finished = true,
                RemoteCommandEvent::Status(status) => assert!(self.status.replace(*status).is_none()),
                RemoteCommandEvent::Ended(how) => {
                    how.unwrap();
                    self.ended = true;
                }
                _ => {}
            }
        }
    }
}

fuzz_target!(|data: &[u8]| {
    let Some((&choice, actions)) = data.split_first() else {
        return;
    };
    let protocol = match usize::from(choice) % 6 {
        5 => Subprotocol::Unnamed,
        at => Subprotocol::NAMED[at],
    };
    let streams = Streams { stdin: true, stdout: true, stderr: true, tty: choice & 0x80 != 0 };
    let now = Instant::now();
    let new = |role| RemoteCommand::new(role, protocol, streams, KeepaliveConfig::default(), now);
    let (mut client, mut server) = (new(Role::Client), new(Role::Server));
    let (mut at_client, mut at_server) = (Seen::default(), Seen::default());
    let mut sent: [Vec<u8>; 3] = Default::default();
    let mut exit = None;
    for (at, &action) in actions.iter().enumerate() {
        let payload = vec![at as u8; usize::from(action >> 3)];
        match action & 7 {
            0 => {
                if client.write(now, Channel::Stdin, Bytes::from(payload.clone())).is_ok() {
                    sent[0].extend_from_slice(&payload);
                }
            }
            kind @ 1..=2 => {
                let channel = Channel::from_number(kind).unwrap();
                if server.write(now, channel, Bytes::from(payload.clone())).is_ok() {
                    sent[usize::from(kind)].extend_from_slice(&payload);
                }
            }
            3 => {
                let _ = client.finish(now);
            }
            4 => {
                let _ = client.resize(now, TerminalSize::new(u16::from(action), 24));
            }
            5 => {
                if let Some(transmit) = client.poll_transmit() {
                    server.handle_message(now, transmit.to_message());
                    at_server.take(&mut server);
                }
            }
            6 => {
                if let Some(transmit) = server.poll_transmit() {
                    client.handle_message(now, transmit.to_message());
                    at_client.take(&mut client);
                }
            }
            _ => {
                let status = match action >> 3 {
                    0 => Status::success(),
                    code => Status::exit_code(i64::from(code)),
                };
                if server.exit(now, &status).is_ok() {
                    exit = Some(status);
                }
            }
        }
    }
    if exit.is_none() && server.exit(now, &Status::exit_code(9)).is_ok() {
        exit = Some(Status::exit_code(9));
    }
    loop {
        let to_server = client.poll_transmit();
        let to_client = server.poll_transmit();
        if to_server.is_none() && to_client.is_none() {
            break;
        }
        if let Some(transmit) = to_server {
            server.handle_message(now, transmit.to_message());
        }
        if let Some(transmit) = to_client {
            client.handle_message(now, transmit.to_message());
        }
        at_server.take(&mut server);
        at_client.take(&mut client);
    }
    assert!(at_client.ended && at_server.ended);
    assert_eq!(at_client.streams[1], sent[1]);
    assert_eq!(at_client.streams[2], sent[2]);
    // Input that was on its way when the command ended may be dropped, never changed.
    assert!(sent[0].starts_with(&at_server.streams[0]));
    assert_eq!(
        at_client.status.and_then(|status| status.code_of_exit()),
        exit.and_then(|status| status.code_of_exit())
    );
});

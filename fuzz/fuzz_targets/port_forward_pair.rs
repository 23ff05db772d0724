//! A client and a server of a port-forward over SPDY that do anything in any order: bytes arrive once and in
//! order, each connection is closed once, and in the end nothing is left.
#![no_main]

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use bytes::Bytes;
use kubewire::{
    Role,
    session::{
        Message, Opcode, Session,
        port_forward::{ConnectionId, ForwardConfig, ForwardEvent, PortForward as _, Spdy},
    },
};
use libfuzzer_sys::fuzz_target;

#[derive(Default)]
struct Seen {
    bytes: Vec<u8>,
    finished: bool,
    closed: bool,
}

fn take(session: &mut Spdy, seen: &mut BTreeMap<ConnectionId, Seen>) {
    while let Some(event) = session.poll_event() {
        match event {
            ForwardEvent::Incoming { id, .. } => assert!(seen.insert(id, Seen::default()).is_none()),
            ForwardEvent::Readable(id) => {
                while let Some(payload) = session.read(id) {
                    seen.entry(id).or_default().bytes.extend_from_slice(&payload);
                }
            }
            ForwardEvent::Finished(id) => {
                assert!(!std::mem::replace(&mut seen.entry(id).or_default().finished, true));
            }
            ForwardEvent::Closed { id, .. } => {
                assert!(!std::mem::replace(&mut seen.entry(id).or_default().closed, true));
            }
            ForwardEvent::Ended(how) => panic!("{how:?}"),
            _ => {}
        }
    }
}

fuzz_target!(|data: &[u8]| {
    let mut now = Instant::now();
    let mut client = Spdy::new(Role::Client, ForwardConfig::default(), now);
    let mut server = Spdy::new(Role::Server, ForwardConfig::default(), now);
    let (mut at_client, mut at_server) = (BTreeMap::new(), BTreeMap::new());
    let mut ids: Vec<ConnectionId> = Vec::new();
    let (mut up, mut down): (BTreeMap<_, Vec<u8>>, BTreeMap<_, Vec<u8>>) = Default::default();
    let carry = |from: &mut Spdy, to: &mut Spdy, now, seen: &mut _, cut: usize| {
        let Some(transmit) = from.poll_transmit() else {
            return false;
        };
        let mut bytes = transmit.payload.clone();
        if transmit.opcode == Opcode::Binary {
            while !bytes.is_empty() {
                let piece = bytes.split_to(cut.clamp(1, bytes.len()));
                to.handle_message(now, Message::Binary(piece));
                take(to, seen);
            }
        } else {
            to.handle_message(now, transmit.to_message());
        }
        take(to, seen);
        true
    };
    for (at, action) in data.chunks_exact(2).enumerate() {
        let [kind, which] = [action[0], action[1]];
        if kind & 15 == 0 && ids.len() < 8 {
            ids.push(client.open(now, u16::from(which) + 1).unwrap());
            continue;
        }
        let Some(&id) = ids.get(usize::from(which & 7) % ids.len().max(1)) else {
            continue;
        };
        let payload = Bytes::from(vec![at as u8; usize::from(which) * 40]);
        let known = at_server.contains_key(&id);
        match kind & 15 {
            1 | 2 => {
                if client.write(now, id, payload.clone()).is_ok() {
                    up.entry(id).or_default().extend_from_slice(&payload);
                }
            }
            3 | 4 if known => {
                if server.write(now, id, payload.clone()).is_ok() {
                    down.entry(id).or_default().extend_from_slice(&payload);
                }
            }
            5 => client.finish(now, id).unwrap(),
            6 if known => server.finish(now, id).unwrap(),
            7 => client.release(id),
            8 if known => server.fail(id, "failed"),
            9 => client.detach(now, id),
            10 if known => server.detach(now, id),
            11 | 12 => drop(carry(&mut client, &mut server, now, &mut at_server, which.into())),
            13 | 14 => drop(carry(&mut server, &mut client, now, &mut at_client, which.into())),
            _ => {
                now += Duration::from_millis(u64::from(which));
                client.handle_timeout(now);
                server.handle_timeout(now);
                take(&mut client, &mut at_client);
                take(&mut server, &mut at_server);
            }
        }
    }
    let mut settle = |client: &mut Spdy, server: &mut Spdy| {
        while carry(client, server, now, &mut at_server, usize::MAX)
            | carry(server, client, now, &mut at_client, usize::MAX)
        {}
    };
    settle(&mut client, &mut server);
    for &id in &ids {
        client.release(id);
    }
    settle(&mut client, &mut server);
    for &id in &ids {
        server.release(id);
    }
    settle(&mut client, &mut server);
    for (seen, sent) in [(&at_server, &up), (&at_client, &down)] {
        for (id, seen) in seen {
            assert!(sent.get(id).map_or(&[][..], |sent| &sent[..]).starts_with(&seen.bytes));
        }
    }
    assert!(client.is_empty() && server.is_empty());
    assert_eq!((client.queued(), server.queued()), (0, 0));
});

//! Both ends of a port-forward in memory, in either protocol.

use std::{
    collections::BTreeMap,
    ops::{Deref, DerefMut},
};

use super::*;
use crate::{
    Role, limits,
    session::{
        Close, Message, Transmit,
        testing::{self, End as _, SECOND, frames, hand_in, syn},
    },
    wire::{
        channel::Encoding,
        spdy::{Data, Frame, HeaderWriter, Headers, RstStatus, RstStream, StreamId},
    },
};

mod captured;
mod channels;
mod orders;
mod streams;

/// What one end has seen of one connection.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct Seen {
    port: u16,
    accepted: bool,
    bytes: Vec<u8>,
    finished: bool,
    closed: Option<Result<(), String>>,
}

/// A session of either protocol.
#[allow(clippy::large_enum_variant, reason = "a test has few of them")]
enum Of {
    Spdy(Spdy),
    Channels(Channels),
}

impl Deref for Of {
    type Target = dyn PortForward;

    fn deref(&self) -> &Self::Target {
        match self {
            Self::Spdy(spdy) => spdy,
            Self::Channels(channels) => channels,
        }
    }
}

impl DerefMut for Of {
    fn deref_mut(&mut self) -> &mut Self::Target {
        match self {
            Self::Spdy(spdy) => spdy,
            Self::Channels(channels) => channels,
        }
    }
}

struct End {
    session: Of,
    seen: BTreeMap<ConnectionId, Seen>,
    others: Vec<String>,
    unread: Vec<ConnectionId>,
}

impl End {
    fn spdy(role: Role, config: ForwardConfig, now: Instant) -> Self {
        Self::of(Of::Spdy(Spdy::new(role, config, now)))
    }

    fn channels(role: Role, encoding: Encoding, ports: &[u16], now: Instant) -> Self {
        let config = ForwardConfig::default();
        let channels = Channels::new(role, encoding, ports, config, now).unwrap();
        Self::of(Of::Channels(channels))
    }

    fn of(session: Of) -> Self {
        Self {
            session,
            seen: BTreeMap::new(),
            others: vec![],
            unread: vec![],
        }
    }

    fn read(&mut self, id: ConnectionId) {
        while let Some(payload) = self.session.read(id) {
            assert!(!payload.is_empty());
            self.see(id).bytes.extend_from_slice(&payload);
        }
    }

    fn see(&mut self, id: ConnectionId) -> &mut Seen {
        self.seen.entry(id).or_default()
    }

    fn write(&mut self, now: Instant, id: ConnectionId, payload: &[u8]) {
        let payload = Bytes::copy_from_slice(payload);
        self.session.write(now, id, payload).unwrap();
    }

    fn finish(&mut self, now: Instant, id: ConnectionId) {
        self.session.finish(now, id).unwrap();
        self.settle();
    }
}

impl testing::End for End {
    fn is_stream(&self) -> bool {
        matches!(self.session, Of::Spdy(_))
    }

    fn transmit(&mut self) -> Option<Message> {
        let Some(transmit) = self.session.poll_transmit() else {
            assert_eq!(self.session.queued(), 0);
            return None;
        };
        Some(transmit.to_message())
    }

    fn take(&mut self, now: Instant, message: Message) {
        self.session.handle_message(now, message);
    }

    fn timeout(&mut self, now: Instant) {
        self.session.handle_timeout(now);
    }

    fn settle(&mut self) {
        while let Some(event) = self.session.poll_event() {
            assert!(
                !self.others.iter().any(|other| other.starts_with("ended")),
                "{event:?} after the end"
            );
            match event {
                ForwardEvent::Incoming { id, port } => {
                    let before = self.seen.insert(
                        id,
                        Seen {
                            port,
                            ..Seen::default()
                        },
                    );
                    assert_eq!(before, None);
                }
                ForwardEvent::Accepted(id) => self.see(id).accepted = true,
                ForwardEvent::Readable(id) => {
                    if !self.unread.contains(&id) {
                        self.read(id);
                    }
                }
                ForwardEvent::Writable(_) => self.others.push("writable".into()),
                ForwardEvent::Finished(id) => {
                    assert!(!std::mem::replace(&mut self.see(id).finished, true));
                }
                ForwardEvent::Closed { id, result } => {
                    let result = result.map_err(|error| error.to_string());
                    let before = self.see(id).closed.replace(result);
                    assert_eq!(before, None, "a connection is closed once");
                }
                ForwardEvent::GoAway => self.others.push("go away".into()),
                ForwardEvent::Suspect => self.others.push("suspect".into()),
                ForwardEvent::Heard => self.others.push("heard".into()),
                ForwardEvent::Ended(how) => {
                    let how = how.map_err(|error| error.to_string());
                    self.others.push(format!("ended: {how:?}"));
                }
            }
        }
    }
}

type Pair = testing::Pair<End>;

impl Pair {
    fn spdy() -> Self {
        Self::spdy_with(ForwardConfig::default(), vec![usize::MAX])
    }

    fn spdy_with(config: ForwardConfig, cuts: Vec<usize>) -> Self {
        Self::join(|role, now| End::spdy(role, config.clone(), now), cuts)
    }

    fn channels(encoding: Encoding, ports: &[u16]) -> Self {
        Self::join(
            |role, now| End::channels(role, encoding, ports, now),
            vec![],
        )
    }

    fn open(&mut self, port: u16) -> ConnectionId {
        self.client.session.open(self.now, port).unwrap()
    }

    fn assert_nothing_left(&self) {
        for end in [&self.client, &self.server] {
            assert!(end.session.is_empty());
            assert_eq!(end.session.queued(), 0);
            let Of::Spdy(spdy) = &end.session else {
                continue;
            };
            spdy.assert_nothing_left();
        }
    }
}

#[test]
fn a_connection_carries_bytes_both_ways_and_half_closes() {
    let mut pair = Pair::spdy();
    let id = pair.open(8080);
    pair.client.write(pair.now, id, b"request");
    pair.client.finish(pair.now, id);
    pair.run();
    assert_eq!(pair.server.seen[&id].port, 8080);
    assert_eq!(pair.server.seen[&id].bytes, b"request");
    assert!(pair.server.seen[&id].finished && pair.client.seen[&id].accepted);
    pair.server.write(pair.now, id, b"answer");
    pair.run();
    assert_eq!(pair.client.seen[&id].bytes, b"answer");
    assert_eq!(
        (pair.client.session.len(), pair.server.session.len()),
        (1, 1)
    );
    pair.server.finish(pair.now, id);
    pair.run();
    for end in [&pair.client, &pair.server] {
        assert!(end.seen[&id].finished);
        assert_eq!(end.seen[&id].closed, Some(Ok(())));
    }
    pair.assert_nothing_left();
}

#[test]
fn the_servers_half_can_end_first() {
    let mut pair = Pair::spdy();
    let id = pair.open(8080);
    pair.run();
    pair.server.write(pair.now, id, b"greeting");
    pair.server.finish(pair.now, id);
    pair.run();
    // The end of the data is held back for the server's text, for a moment.
    assert!(!pair.client.seen[&id].finished);
    pair.pass(limits::FORWARD_VERDICT);
    assert!(pair.client.seen[&id].finished);
    assert_eq!(pair.client.seen[&id].closed, None);
    pair.client.write(pair.now, id, b"late word");
    pair.client.finish(pair.now, id);
    pair.run();
    assert_eq!(pair.server.seen[&id].bytes, b"late word");
    assert_eq!(pair.client.seen[&id].closed, Some(Ok(())));
    pair.assert_nothing_left();
}

#[test]
fn a_failed_connection_fails_alone_and_with_the_servers_text() {
    let mut pair = Pair::spdy();
    let (bad, good) = (pair.open(1), pair.open(2));
    pair.client.write(pair.now, bad, b"hello?");
    pair.run();
    pair.server.session.fail(bad, "connect: connection refused");
    pair.run();
    let error = pair.client.seen[&bad].closed.clone().unwrap().unwrap_err();
    assert_eq!(error, "port-forward to port 1: connect: connection refused");
    assert_eq!(pair.client.seen[&good].closed, None);
    pair.server.write(pair.now, good, b"fine");
    pair.run();
    assert_eq!(pair.client.seen[&good].bytes, b"fine");
    for id in [bad, good] {
        pair.client.session.release(id);
        pair.server.session.release(id);
    }
    pair.run();
    pair.assert_nothing_left();
}

#[test]
fn what_arrived_before_a_failure_is_delivered() {
    let mut pair = Pair::spdy();
    let id = pair.open(1);
    pair.client.unread.push(id);
    pair.run();
    pair.server.write(pair.now, id, b"half an ans");
    pair.run();
    pair.server.session.fail(id, "reset by the application");
    pair.run();
    assert!(matches!(&pair.client.seen[&id].closed, Some(Err(text)) if text.contains("reset by")));
    pair.client.read(id);
    assert_eq!(pair.client.seen[&id].bytes, b"half an ans");
    pair.assert_nothing_left();
}

#[test]
fn what_was_written_before_a_failure_is_delivered_before_it() {
    let long = [7; 100_000];
    for finished in [false, true] {
        let mut pair = Pair::spdy();
        let (id, other) = (pair.open(1), pair.open(2));
        pair.run();
        // Both ends give up before anything of this has left.
        pair.server.write(pair.now, other, b"meanwhile");
        for end in [&mut pair.server, &mut pair.client] {
            end.write(pair.now, id, b"first");
            end.write(pair.now, id, &long);
            if finished {
                end.finish(pair.now, id);
            }
        }
        pair.server.session.fail(id, "reset by the application");
        let sent = [&b"first"[..], &long].concat();
        pair.run();
        let seen = &pair.client.seen[&id];
        assert!(seen.bytes == sent, "{} bytes came", seen.bytes.len());
        let told = seen.closed.clone().unwrap().unwrap_err();
        assert!(told.contains("reset by the application"), "{told}");
        assert_eq!(pair.client.seen[&other].bytes, b"meanwhile");

        let mut pair = Pair::spdy();
        let id = pair.open(1);
        pair.run();
        pair.client.write(pair.now, id, &sent);
        pair.client.session.fail(id, "a client has no words for it");
        pair.run();
        let seen = &pair.server.seen[&id];
        assert!(seen.bytes == sent, "{} bytes came", seen.bytes.len());
        assert!(matches!(seen.closed, Some(Err(_))));
    }
}

#[test]
fn the_end_of_the_session_is_told_to_each_connection() {
    let mut pair = Pair::spdy();
    let ids = [pair.open(1), pair.open(2)];
    pair.run();
    pair.server.session.close();
    pair.run();
    for id in ids {
        assert!(matches!(pair.client.seen[&id].closed, Some(Err(_))));
    }
    assert!(pair.client.others.last().unwrap().starts_with("ended"));
    assert!(pair.client.session.open(pair.now, 3).is_err());

    let mut pair = Pair::spdy();
    let id = pair.open(1);
    pair.run();
    let close = Close {
        code: 1011,
        reason: "node is gone".into(),
    };
    pair.client
        .session
        .handle_message(pair.now, Message::Close(Some(close)));
    pair.client.settle();
    let error = pair.client.seen[&id].closed.clone().unwrap().unwrap_err();
    assert!(error.contains("1011: node is gone"), "{error}");
    let answer = pair.client.session.poll_transmit().unwrap();
    assert_eq!(answer, Transmit::close(1011, ""));
}

#[test]
fn text_in_spdy_ends_it() {
    let mut pair = Pair::spdy();
    pair.client
        .session
        .handle_message(pair.now, Message::Text("hello".into()));
    pair.client.settle();
    assert!(pair.client.others[0].contains("text message"));
    let close = std::iter::from_fn(|| pair.client.session.poll_transmit()).last();
    let reason = "the peer broke the SPDY protocol: a text message";
    assert!(
        close.as_ref().is_some_and(|close| {
            close.payload[..2] == 1002_u16.to_be_bytes()
                && close.payload[2..].starts_with(reason.as_bytes())
        }),
        "{close:?}"
    );
}

#[test]
fn a_reader_that_does_not_move_loses_its_connection_and_no_other() {
    let mut pair = Pair::spdy();
    let (slow, other) = (pair.open(1), pair.open(2));
    pair.client.unread.push(slow);
    pair.run();
    pair.server
        .write(pair.now, slow, &vec![1; limits::FORWARD_RECEIVE]);
    pair.run();
    assert!(pair.client.session.wants_hold());
    pair.client.session.handle_hold(pair.now, true);
    pair.pass(limits::FORWARD_PATIENCE);
    let error = pair.client.seen[&slow].closed.clone().unwrap().unwrap_err();
    assert!(error.contains("wait to be read"), "{error}");
    assert!(!pair.client.session.wants_hold());
    pair.client.session.handle_hold(pair.now, false);
    pair.run();
    assert!(matches!(pair.server.seen[&slow].closed, Some(Err(_))));
    pair.server.write(pair.now, other, b"moves");
    pair.run();
    assert_eq!(pair.client.seen[&other].bytes, b"moves");
}

#[test]
fn the_only_connection_may_be_read_as_slowly_as_it_likes() {
    let mut pair = Pair::spdy();
    let id = pair.open(1);
    pair.client.unread.push(id);
    pair.run();
    pair.server
        .write(pair.now, id, &vec![1; limits::FORWARD_RECEIVE]);
    pair.run();
    pair.client.session.handle_hold(pair.now, true);
    for _ in 0..1000 {
        pair.pass(limits::FORWARD_PATIENCE);
    }
    assert_eq!(
        pair.client.seen.get(&id).and_then(|s| s.closed.clone()),
        None
    );
    assert!(pair.client.others.is_empty());
}

#[test]
fn at_its_bound_a_connection_is_reset_where_that_is_asked_for() {
    let config = ForwardConfig {
        when_full: WhenFull::Reset,
        ..ForwardConfig::default()
    };
    let mut pair = Pair::spdy_with(config, vec![usize::MAX]);
    let (slow, other) = (pair.open(1), pair.open(2));
    pair.client.unread.push(slow);
    pair.run();
    pair.server
        .write(pair.now, slow, &vec![1; 2 * limits::FORWARD_RECEIVE]);
    pair.run();
    assert!(matches!(pair.client.seen[&slow].closed, Some(Err(_))));
    assert_eq!(pair.client.session.read(slow), None);
    assert!(!pair.client.session.wants_hold());
    pair.server.write(pair.now, other, b"moves");
    pair.run();
    assert_eq!(pair.client.seen[&other].bytes, b"moves");
}

#[test]
fn a_detached_connection_sends_what_was_written_and_ends_in_order() {
    let mut pair = Pair::spdy();
    let id = pair.open(80);
    pair.client.write(pair.now, id, &[7; 100_000]);
    pair.client.session.detach(pair.now, id);
    pair.run();
    assert_eq!(pair.server.seen[&id].bytes, [7; 100_000]);
    assert!(pair.server.seen[&id].finished);
    pair.server.finish(pair.now, id);
    pair.run();
    assert_eq!(pair.server.seen[&id].closed, Some(Ok(())));
    assert_eq!(pair.client.seen.len(), 0, "nobody is told");
    pair.assert_nothing_left();
}

#[test]
fn what_waits_to_be_sent_survives_the_end_of_its_connection() {
    let mut pair = Pair::spdy();
    let id = pair.open(80);
    pair.client.finish(pair.now, id);
    pair.run();
    pair.server.write(pair.now, id, &[7; 500_000]);
    pair.server.finish(pair.now, id);
    assert_eq!(pair.server.seen[&id].closed, Some(Ok(())));
    pair.server.session.detach(pair.now, id);
    pair.run();
    assert_eq!(pair.client.seen[&id].bytes, [7; 500_000]);
    assert_eq!(pair.client.seen[&id].closed, Some(Ok(())));
    pair.assert_nothing_left();
}

#[test]
fn a_detached_connection_is_reset_when_the_peer_says_more_or_nothing() {
    for says_more in [true, false] {
        let mut pair = Pair::spdy();
        let id = pair.open(80);
        pair.run();
        pair.client.session.detach(pair.now, id);
        pair.run();
        if says_more {
            pair.server.write(pair.now, id, b"and another thing");
        } else {
            assert_eq!(pair.server.seen[&id].closed, None);
            pair.pass(limits::FORWARD_LINGER);
        }
        pair.run();
        assert!(matches!(pair.server.seen[&id].closed, Some(Err(_))));
        pair.assert_nothing_left();
    }
}

#[test]
fn errors_name_who_is_to_blame() {
    let error = refused(80, b" connection refused\n");
    let Error::Api(api) = &error else { panic!() };
    assert_eq!(api.status.message, "connection refused");
}

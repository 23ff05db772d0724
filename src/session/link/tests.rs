//! One table of what a link does, over all sessions that have one, in both roles.

use std::{sync::Arc, time::Duration};

use super::*;
use crate::{
    session::{
        Messages, RemoteCommand, Session, Subprotocol,
        messages::MessagesEvent,
        port_forward::{Channels, ForwardConfig, ForwardEvent, PortForward, Spdy},
        remote_command::{RemoteCommandEvent, Streams},
        testing::SECOND,
    },
    wire::websocket::WebSocketError,
};

/// What the table needs to know of a session.
trait Linked: Session {
    fn ended(event: Self::Event) -> Option<Result<(), Error>>;
}

macro_rules! linked {
    ($session:ty, $event:ident) => {
        impl Linked for $session {
            fn ended(event: Self::Event) -> Option<Result<(), Error>> {
                match event {
                    $event::Ended(how) => Some(how),
                    _ => None,
                }
            }
        }
    };
}

linked!(RemoteCommand, RemoteCommandEvent);
linked!(Messages, MessagesEvent);
linked!(Channels, ForwardEvent);
linked!(Spdy, ForwardEvent);

/// How the sessions of the table differ.
struct Row<S> {
    name: &'static str,
    role: Role,
    make: fn(Role, KeepaliveConfig, Instant) -> S,
    /// Whether the WebSocket is pinged, and not what it carries.
    pings: bool,
    /// Says all that there is to say; `None` where that does not exist.
    finish: Option<fn(&mut S, Instant)>,
    /// The code of a server that leaves.
    leaves: u16,
}

fn remote_command(role: Role, keepalive: KeepaliveConfig, now: Instant) -> RemoteCommand {
    let streams = Streams {
        stdin: true,
        stdout: true,
        ..Streams::default()
    };
    RemoteCommand::new(role, Subprotocol::V5, streams, keepalive, now)
}

fn channels(role: Role, keepalive: KeepaliveConfig, now: Instant) -> Channels {
    let config = ForwardConfig {
        keepalive,
        ..ForwardConfig::default()
    };
    let encoding = crate::wire::channel::Encoding::Binary;
    let mut channels = Channels::new(role, encoding, &[80], config, now).unwrap();
    if role == Role::Client {
        channels.open(now, 80).unwrap();
    }
    channels
}

/// Runs a check over every session in both roles.
macro_rules! each {
    ($check:ident) => {
        for role in [Role::Client, Role::Server] {
            $check(&Row {
                name: "exec",
                role,
                make: remote_command,
                pings: true,
                finish: (role == Role::Server).then_some(|session: &mut RemoteCommand, now| {
                    let status = crate::wire::status::Status::success();
                    session.exit(now, &status).unwrap();
                }),
                leaves: 1011,
            });
            $check(&Row {
                name: "messages",
                role,
                make: Messages::new,
                pings: true,
                finish: (role == Role::Server).then_some(Messages::finish),
                leaves: 1011,
            });
            $check(&Row {
                name: "channels",
                role,
                make: channels,
                pings: true,
                finish: (role == Role::Server).then_some(|session: &mut Channels, now| {
                    let id = crate::session::port_forward::ConnectionId(0);
                    session.finish(now, id).unwrap();
                }),
                leaves: 1011,
            });
            $check(&Row {
                name: "spdy",
                role,
                make: |role, _, now| Spdy::new(role, ForwardConfig::default(), now),
                pings: false,
                finish: None,
                leaves: 1000,
            });
        }
    };
}

impl<S: Linked> Row<S> {
    /// A session that has sent what it begins with.
    fn start(&self, now: Instant) -> S {
        self.start_with(KeepaliveConfig::default(), now)
    }

    fn start_with(&self, keepalive: KeepaliveConfig, now: Instant) -> S {
        let mut session = (self.make)(self.role, keepalive, now);
        sent(&mut session);
        assert_eq!(session.queued(), 0, "{self}");
        session
    }
}

impl<S> std::fmt::Display for Row<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} as {:?}", self.name, self.role)
    }
}

fn sent<S: Session>(session: &mut S) -> Vec<Transmit> {
    std::iter::from_fn(|| session.poll_transmit()).collect()
}

/// The end of a session, if it has come; it is the last event.
fn end<S: Linked>(session: &mut S) -> Option<Result<(), Error>> {
    let mut end = None;
    while let Some(event) = session.poll_event() {
        assert!(end.is_none(), "an event after the end");
        end = S::ended(event);
    }
    assert_eq!(end.is_some(), session.is_ended());
    end
}

fn close(code: u16, reason: &str) -> Message {
    Message::Close(Some(Close {
        code,
        reason: reason.into(),
    }))
}

fn closes(transmits: &[Transmit]) -> Vec<u16> {
    let closes = transmits.iter().filter(|t| t.opcode == Opcode::Close);
    closes
        .map(|close| u16::from_be_bytes([close.payload[0], close.payload[1]]))
        .collect()
}

fn an_hour_of_a_blocked_socket<S: Linked>(row: &Row<S>) {
    let start = Instant::now();
    let mut session = row.start(start);
    // The user does not read, and the peer does not either.
    session.handle_hold(start, true);
    while let Some(now) = session
        .poll_timeout()
        .filter(|now| *now < start + 3600 * SECOND)
    {
        session.handle_timeout(now);
    }
    assert!(
        end(&mut session).is_none(),
        "{row}: nothing was to be heard"
    );
    let waits = sent(&mut session);
    let pings = waits.iter().filter(|t| t.opcode == Opcode::Ping).count();
    assert_eq!(pings, usize::from(row.pings), "{row}: {waits:?}");
    // A SPDY connection has its own ping; exec and the others may have an empty message.
    assert!(waits.len() <= 2, "{row}: {waits:?}");
}

#[test]
fn an_hour_behind_a_blocked_socket_queues_one_ping() {
    each!(an_hour_of_a_blocked_socket);
}

fn a_flood_of_pings<S: Linked>(row: &Row<S>) {
    let now = Instant::now();
    let mut session = row.start(now);
    for n in 0..100_u8 {
        session.handle_message(now, Message::Ping(vec![n; 100].into()));
        assert_eq!(session.queued(), 100, "{row}");
    }
    let waits = sent(&mut session);
    let last = Transmit::new(Opcode::Pong, vec![99; 100]);
    assert_eq!((waits, session.queued()), (vec![last], 0), "{row}");
}

#[test]
fn a_flood_of_pings_gets_one_answer() {
    each!(a_flood_of_pings);
}

fn a_close_is_answered_once<S: Linked>(row: &Row<S>) {
    for (code, answer) in [
        (1000, 1000),
        (1001, 1001),
        (1011, 1011),
        (4999, 4999),
        // No frame may carry these.
        (0, 1002),
        (999, 1002),
        (1005, 1002),
        (1006, 1002),
        (1015, 1002),
        (5000, 1002),
    ] {
        let now = Instant::now();
        let mut session = row.start(now);
        session.handle_message(now, close(code, "why"));
        session.handle_message(now, Message::Ping("late".into()));
        session.handle_message(now, close(code, "again"));
        let how = end(&mut session).expect("it has ended");
        assert_eq!(closes(&sent(&mut session)), [answer], "{row}: {code}");
        assert_eq!((session.queued(), session.poll_timeout()), (0, None));
        session.handle_end(None);
        assert!(session.poll_event().is_none(), "{row}: it ends once");
        // From a client any close is a leave; from a server only 1000 is the whole, and a Status
        // that is missing makes even that a loss.
        match (row.role, how) {
            (Role::Server, Ok(())) => {}
            (Role::Client, Ok(())) => assert!(code == 1000 && row.name != "exec", "{row}"),
            (
                Role::Client,
                Err(Error::Network(NetworkError::ClosedWithoutStatus {
                    code: Some(said),
                    reason,
                    source: None,
                })),
            ) => {
                assert!(code != 1000 || row.name == "exec", "{row}: {code}");
                assert_eq!((said, &reason[..]), (code, "why"), "{row}");
            }
            (_, other) => panic!("{row}: {code}: {other:?}"),
        }
    }
}

#[test]
fn a_close_is_answered_once_and_means_the_same_everywhere() {
    each!(a_close_is_answered_once);
}

fn a_close_without_a_code<S: Linked>(row: &Row<S>) {
    let now = Instant::now();
    let mut session = row.start(now);
    session.handle_message(now, Message::Close(None));
    let how = end(&mut session).expect("it has ended");
    assert_eq!(how.is_ok(), row.role == Role::Server, "{row}: {how:?}");
    assert_eq!(closes(&sent(&mut session)), [1000], "{row}");
}

#[test]
fn a_server_that_gives_no_code_does_not_say_that_all_is_whole() {
    each!(a_close_without_a_code);
}

fn a_malformed_frame<S: Linked>(row: &Row<S>) {
    for (error, code) in [
        (WebSocketError::ReservedBits, 1002),
        (WebSocketError::Utf8, 1007),
        (
            WebSocketError::TooLong {
                length: 1 << 40,
                limit: 1,
            },
            1009,
        ),
    ] {
        let now = Instant::now();
        let mut session = row.start(now);
        session.handle_end(Some(PeerError::WebSocket(error.clone()).into()));
        let how = end(&mut session).expect("it has ended");
        assert!(
            matches!(&how, Err(Error::Peer(PeerError::WebSocket(told))) if *told == error),
            "{row}: {how:?}"
        );
        let waits = sent(&mut session);
        assert_eq!(closes(&waits), [code], "{row}");
        let reason = &waits.last().unwrap().payload[2..];
        assert!(reason.starts_with(b"the peer broke"), "{row}: {reason:?}");
    }
}

#[test]
fn a_peer_that_breaks_the_protocol_is_told() {
    each!(a_malformed_frame);
}

fn a_malformed_message<S: Linked>(row: &Row<S>) {
    // On messages, anything goes.
    let (message, code) = match row.name {
        "messages" => return,
        "spdy" => (Message::Text("text".into()), 1002),
        _ => (Message::Binary(Bytes::from_static(&[9])), 1002),
    };
    let now = Instant::now();
    let mut session = row.start(now);
    session.handle_message(now, message);
    let how = end(&mut session).expect("it has ended");
    assert!(matches!(how, Err(Error::Peer(_))), "{row}: {how:?}");
    assert_eq!(closes(&sent(&mut session)), [code], "{row}");
}

#[test]
fn a_message_that_is_none_of_the_subprotocol_ends_the_session_with_1002() {
    each!(a_malformed_message);
}

fn a_lost_connection<S: Linked>(row: &Row<S>) {
    let reset = || Arc::new(std::io::Error::from(std::io::ErrorKind::ConnectionReset));
    for lost in [None, Some(NetworkError::Lost(reset()).into())] {
        let now = Instant::now();
        let mut session = row.start(now);
        session.handle_end(lost.clone());
        let how = end(&mut session).expect("it has ended");
        // A SPDY connection whose bytes end between two frames has ended in order.
        assert_eq!(
            how.is_ok(),
            row.name == "spdy" && lost.is_none(),
            "{row}: {how:?}"
        );
        assert_eq!(
            closes(&sent(&mut session)),
            [0; 0],
            "{row}: nobody is there"
        );
        session.close();
        assert_eq!(sent(&mut session), [], "{row}");
    }
}

#[test]
fn nobody_is_told_of_a_connection_that_was_lost() {
    each!(a_lost_connection);
}

fn a_silent_peer<S: Linked>(row: &Row<S>) {
    let start = Instant::now();
    let mut session = row.start(start);
    let mut last = start;
    while let Some(now) = session.poll_timeout() {
        last = now;
        session.handle_timeout(now);
        let closed = closes(&sent(&mut session));
        assert_eq!(closed, [0; 0], "{row}: nobody is there");
    }
    assert_eq!(last, start + limits::SILENCE, "{row}");
    let how = end(&mut session).expect("it has ended");
    assert!(
        matches!(&how, Err(Error::Network(NetworkError::Silent { silent })) if *silent == limits::SILENCE),
        "{row}: {how:?}"
    );
}

#[test]
fn a_peer_that_is_silent_is_given_up() {
    each!(a_silent_peer);
}

fn one_who_leaves<S: Linked>(row: &Row<S>) {
    let now = Instant::now();
    let mut session = row.start(now);
    session.handle_message(now, close_later());
    session.close();
    let code = match row.role {
        Role::Client => 1000,
        Role::Server => row.leaves,
    };
    assert_eq!(closes(&sent(&mut session)), [code], "{row}");
    assert!(
        session.is_ended() && session.poll_event().is_none(),
        "{row}"
    );
    assert_eq!((session.poll_timeout(), session.queued()), (None, 0));
}

fn close_later() -> Message {
    Message::Pong("unasked".into())
}

#[test]
fn a_server_that_gives_up_does_not_close_as_if_all_were_said() {
    each!(one_who_leaves);
}

fn one_who_has_said_all<S: Linked>(row: &Row<S>) {
    let Some(finish) = row.finish else {
        return;
    };
    let start = Instant::now();
    let finished = || {
        let mut session = row.start(start);
        finish(&mut session, start);
        assert_eq!(closes(&sent(&mut session)), [1000], "{row}");
        assert!(!session.is_ended(), "{row}: the client's close is awaited");
        session
    };
    // The client answers,
    let mut session = finished();
    session.handle_message(start, close(1000, ""));
    assert!(matches!(end(&mut session), Some(Ok(()))), "{row}");
    // ends the connection in its own way,
    let mut session = finished();
    session.handle_end(None);
    assert!(matches!(end(&mut session), Some(Ok(()))), "{row}");
    // or does neither: nothing follows the close frame, pings neither.
    let mut session = finished();
    session.handle_message(start, Message::Ping("late".into()));
    assert_eq!(
        session.poll_timeout(),
        Some(start + limits::LINGER),
        "{row}"
    );
    session.handle_timeout(start + limits::LINGER - SECOND);
    assert!(
        !session.is_ended() && sent(&mut session).is_empty(),
        "{row}"
    );
    session.handle_timeout(start + limits::LINGER);
    assert!(matches!(end(&mut session), Some(Ok(()))), "{row}");
    assert_eq!(sent(&mut session), [], "{row}");
}

#[test]
fn a_server_that_has_said_all_waits_for_the_client_and_not_for_ever() {
    each!(one_who_has_said_all);
}

fn an_idle_day<S: Linked>(row: &Row<S>) {
    let start = Instant::now();
    let mut session = row.start(start);
    let mut empty = 0;
    while let Some(now) = session
        .poll_timeout()
        .filter(|t| *t < start + 86_400 * SECOND)
    {
        session.handle_timeout(now);
        for transmit in sent(&mut session) {
            match transmit.opcode {
                Opcode::Ping => session.handle_message(now, Message::Pong(transmit.payload)),
                _ if transmit.is_empty() => empty += 1,
                _ => session.handle_activity(now),
            }
        }
    }
    assert!(end(&mut session).is_none(), "{row}");
    let expected = match (row.role, row.pings) {
        (Role::Client, true) => 47,
        _ => 0,
    };
    assert_eq!(empty, expected, "{row}: only clients refresh a session");
}

#[test]
fn only_a_client_sends_empty_messages_against_idling() {
    each!(an_idle_day);
}

fn durations_without_end<S: Linked>(row: &Row<S>) {
    let start = Instant::now();
    let never = KeepaliveConfig {
        unread: Duration::MAX,
        interval: Duration::MAX,
        silence: Duration::MAX,
        refresh: Duration::MAX,
    };
    let mut session = row.start_with(never, start);
    if row.pings {
        assert!(session.poll_timeout().unwrap() > start + 86_400 * 365 * SECOND);
    }
    session.handle_timeout(start + SECOND);
    assert_eq!(sent(&mut session), [], "{row}");
}

#[test]
fn a_duration_may_be_as_long_as_it_can() {
    each!(durations_without_end);
}

#[test]
fn a_ping_goes_behind_what_was_queued_before_it() {
    let now = Instant::now();
    let mut link = Link::new(Role::Client, Some(KeepaliveConfig::default()), now);
    link.send_input(now, Transmit::new(Opcode::Binary, "input"));
    link.handle_timeout(now + limits::KEEPALIVE_INTERVAL);
    link.handle_control(now, Message::Ping("x".into()));
    let order: Vec<Opcode> = std::iter::from_fn(|| link.poll_transmit())
        .map(|transmit| transmit.opcode)
        .collect();
    assert_eq!(order, [Opcode::Pong, Opcode::Binary, Opcode::Ping]);
    // What is taken back leaves the ping.
    link.send_input(now, Transmit::new(Opcode::Binary, "more"));
    link.handle_timeout(now + 2 * limits::KEEPALIVE_INTERVAL);
    assert_eq!(link.take_payload().len(), 1);
    assert_eq!(link.queued(), 8);
    assert_eq!(link.poll_transmit().unwrap().opcode, Opcode::Ping);
    assert_eq!(link.queued(), 0);
}

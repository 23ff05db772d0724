//! Both ends of exec in memory: in flow what each end's program writes and a seed for what the
//! network does to it, out come the promises of a session: every byte once and in order, or the
//! end is an error.
//!
//! Time is virtual. The network cuts the bytes into pieces of any size, delays them, and at some
//! byte loses the connection or falls silent; the server's messages arrive in fragments; readers
//! pause.

use std::{
    collections::VecDeque,
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};
use kubewire::{
    Error, KeepaliveConfig, Role,
    error::{CallerError, NetworkError},
    exec::{Streams, Subprotocol},
    limits,
    session::{Opcode, RemoteCommand, Session, Transmit, remote_command::RemoteCommandEvent},
    wire::{
        channel::Channel,
        status::Status,
        websocket::{Decoder, FrameHeader, Message, apply_mask},
    },
};
use proptest::prelude::*;

const MS: Duration = Duration::from_millis(1);
/// Bytes that the network takes before it blocks a sender.
const WINDOW: usize = 48 << 10;
/// How long a connection that swallows everything lasts before TCP itself gives up.
const TCP_TIMEOUT: Duration = Duration::from_secs(900);

#[derive(Debug, Clone, Copy, PartialEq)]
enum Fault {
    None,
    /// The connection is lost at this byte of this end's output.
    Cut(Role, usize),
    /// From this byte of this end's output on, nothing arrives on either side.
    Silence(Role, usize),
}

/// What the two programs do, and what the network does to them.
#[derive(Debug, Clone)]
struct Plan {
    protocol: Subprotocol,
    seed: u64,
    stdin: Vec<Bytes>,
    output: Vec<(Channel, Bytes)>,
    /// The process ends without reading its input to the end.
    hasty: bool,
    code: i32,
    fault: Fault,
    /// Whether readers pause.
    pauses: bool,
    /// The longest pause of the programs.
    nap: Duration,
}

struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        // xorshift64*
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11
    }

    /// From `0` to `bound`, which is left out.
    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

/// One direction of the connection.
#[derive(Default)]
struct Pipe {
    pieces: VecDeque<(Instant, Vec<u8>)>,
    in_flight: usize,
    sent: usize,
    last: Option<Instant>,
    /// The sender has ended its direction.
    finished: bool,
}

impl Pipe {
    fn push(&mut self, now: Instant, rng: &mut Rng, mut bytes: &[u8]) {
        self.sent += bytes.len();
        self.in_flight += bytes.len();
        while !bytes.is_empty() {
            let size = match rng.below(4) {
                0 => 1 + rng.below(3),
                1 => 1 + rng.below(200),
                2 => 1 + rng.below(5000),
                _ => bytes.len() as u64,
            };
            let (piece, rest) = bytes.split_at((size as usize).min(bytes.len()));
            let delay = MS * rng.below(30) as u32;
            let at = self.last.map_or(now, |last| last.max(now)) + delay / 8;
            self.last = Some(at);
            self.pieces.push_back((at, piece.to_vec()));
            bytes = rest;
        }
    }
}

struct End {
    role: Role,
    session: RemoteCommand,
    decoder: Decoder,
    input: BytesMut,
    /// What the program still has to write.
    todo: VecDeque<(Channel, Bytes)>,
    written: [Vec<u8>; 3],
    received: [Vec<u8>; 3],
    finished: bool,
    status: Option<Status>,
    ended: Option<Result<(), Error>>,
    act_at: Option<Instant>,
    paused_until: Option<Instant>,
    told_end: bool,
    pings: usize,
    heard: Instant,
    longest_silence: Duration,
}

impl End {
    fn new(plan: &Plan, role: Role, now: Instant, todo: VecDeque<(Channel, Bytes)>) -> Self {
        let streams = Streams {
            stdin: true,
            stdout: true,
            stderr: true,
            tty: false,
        };
        let keepalive = KeepaliveConfig::default();
        Self {
            role,
            session: RemoteCommand::new(role, plan.protocol, streams, keepalive, now),
            decoder: Decoder::new(role, limits::MESSAGE),
            input: BytesMut::new(),
            todo,
            written: Default::default(),
            received: Default::default(),
            finished: false,
            status: None,
            ended: None,
            act_at: Some(now),
            paused_until: None,
            told_end: false,
            pings: 0,
            heard: now,
            longest_silence: Duration::ZERO,
        }
    }

    fn take_events(&mut self) {
        while let Some(event) = self.session.poll_event() {
            assert!(self.ended.is_none(), "{event:?} after the end");
            match event {
                RemoteCommandEvent::Data(channel, bytes) => {
                    assert!(!bytes.is_empty());
                    self.received[usize::from(channel.number())].extend_from_slice(&bytes);
                }
                RemoteCommandEvent::Finished(channel) => {
                    assert_eq!(channel, Channel::Stdin);
                    assert!(!self.finished, "it ends once");
                    self.finished = true;
                }
                RemoteCommandEvent::Status(status) => {
                    assert!(self.status.is_none(), "a second status");
                    self.status = Some(*status);
                }
                RemoteCommandEvent::Ended(how) => self.ended = Some(how),
                other => panic!("{other:?}"),
            }
        }
    }

    fn deliver(&mut self, now: Instant, bytes: &[u8]) {
        self.longest_silence = self.longest_silence.max(now - self.heard);
        self.heard = now;
        self.session.handle_activity(now);
        self.input.extend_from_slice(bytes);
        while let Some(message) = self.decoder.decode(&mut self.input).expect("good frames") {
            self.pings += usize::from(matches!(message, Message::Ping(_)));
            self.session.handle_message(now, message);
            self.take_events();
        }
    }

    /// Encodes a message: masked and whole from a client, in any number of fragments from a server.
    fn encode(&self, rng: &mut Rng, transmit: Transmit) -> Vec<u8> {
        let mut payload: Vec<u8> = transmit.prefix.into_iter().collect();
        payload.extend_from_slice(&transmit.payload);
        let mut out = Vec::new();
        if self.role == Role::Client {
            let key = (rng.next() as u32).to_le_bytes();
            let header = FrameHeader {
                fin: true,
                opcode: transmit.opcode,
                mask: Some(key),
                length: payload.len() as u64,
            };
            header.encode(&mut out);
            apply_mask(&mut payload, key, 0);
            out.extend(payload);
            return out;
        }
        let data = matches!(transmit.opcode, Opcode::Binary | Opcode::Text);
        let mut opcode = transmit.opcode;
        let mut rest = &payload[..];
        let mut frame = |fin, opcode, part: &[u8]| {
            let header = FrameHeader {
                fin,
                opcode,
                mask: None,
                length: part.len() as u64,
            };
            header.encode(&mut out);
            out.extend_from_slice(part);
        };
        while data && rng.one_in(3) {
            let (part, left) = rest.split_at(rng.below(rest.len() as u64 + 1) as usize);
            frame(false, opcode, part);
            // Control frames may come between fragments (RFC 6455, section 5.4).
            if rng.one_in(4) {
                frame(true, Opcode::Pong, b"unasked");
            }
            opcode = Opcode::Continuation;
            rest = left;
        }
        frame(true, opcode, rest);
        out
    }

    fn is_quiet(&self) -> bool {
        self.ended.is_some() && self.session.queued() == 0
    }
}

struct World {
    plan: Plan,
    rng: Rng,
    now: Instant,
    /// The client, then the server.
    ends: [End; 2],
    /// From the client, then from the server.
    pipes: [Pipe; 2],
    /// When the connection was lost or fell silent.
    broken: Option<Instant>,
    wanted: usize,
}

impl World {
    fn new(plan: Plan) -> Self {
        let now = Instant::now();
        let stdin = plan
            .stdin
            .iter()
            .map(|bytes| (Channel::Stdin, bytes.clone()));
        let client = End::new(&plan, Role::Client, now, stdin.collect());
        let server = End::new(&plan, Role::Server, now, plan.output.clone().into());
        Self {
            rng: Rng(plan.seed | 1),
            now,
            ends: [client, server],
            pipes: Default::default(),
            broken: None,
            wanted: plan.stdin.iter().map(Bytes::len).sum(),
            plan,
        }
    }

    /// One step of an end's program: a write, the end of stdin, the exit.
    fn act(&mut self, at: usize) {
        let end = &mut self.ends[at];
        end.act_at = None;
        if end.ended.is_some() {
            return;
        }
        let nap = match self.rng.one_in(12) {
            true => MS * self.rng.below(self.plan.nap.as_millis() as u64) as u32,
            false => MS * self.rng.below(4) as u32,
        };
        if end.session.queued() > limits::SEND_BUFFER {
            end.act_at = Some(self.now + MS + nap);
            return;
        }
        if let Some((channel, bytes)) = end.todo.pop_front() {
            match end.session.write(self.now, channel, bytes.clone()) {
                Ok(()) => {
                    end.written[usize::from(channel.number())].extend_from_slice(&bytes);
                    end.act_at = Some(self.now + nap);
                }
                Err(error) => assert!(matches!(error, CallerError::Ended)),
            }
            return;
        }
        if end.role == Role::Client {
            match end.session.finish(self.now) {
                Ok(()) => {}
                Err(error) => {
                    assert!(matches!(error, CallerError::HalfClose { .. }));
                    assert!(!self.plan.protocol.has_half_close());
                }
            }
            return;
        }
        let read = match self.plan.protocol.has_half_close() {
            true => end.finished,
            false => end.received[0].len() == self.wanted,
        };
        if read || self.plan.hasty {
            let status = match self.plan.code {
                0 => Status::success(),
                code => Status::exit_code(code),
            };
            end.session.exit(self.now, &status).expect("it runs");
            end.status = Some(status);
        }
    }

    fn transmit(&mut self, at: usize) {
        let (end, pipe) = (&mut self.ends[at], &mut self.pipes[at]);
        while pipe.in_flight < WINDOW || self.broken.is_some() {
            let Some(transmit) = end.session.poll_transmit() else {
                if end.is_quiet() {
                    pipe.finished = true;
                }
                return;
            };
            let mut bytes = end.encode(&mut self.rng, transmit);
            if self.broken.is_some() {
                continue;
            }
            if let Fault::Cut(role, limit) | Fault::Silence(role, limit) = self.plan.fault
                && role == end.role
                && pipe.sent + bytes.len() >= limit
            {
                bytes.truncate(limit.saturating_sub(pipe.sent));
                self.broken = Some(self.now);
            }
            pipe.push(self.now, &mut self.rng, &bytes);
        }
    }

    fn deliver(&mut self, at: usize) {
        let pipe = &mut self.pipes[1 - at];
        let end = &mut self.ends[at];
        let due = pipe.pieces.front().is_some_and(|piece| piece.0 <= self.now);
        if due && end.paused_until.is_none() {
            let (_, bytes) = pipe.pieces.pop_front().expect("just seen");
            pipe.in_flight -= bytes.len();
            if end.ended.is_none() {
                end.deliver(self.now, &bytes);
                if end.todo.is_empty() && end.role == Role::Server && end.status.is_none() {
                    end.act_at.get_or_insert(self.now);
                }
            }
            if self.plan.pauses && self.rng.one_in(40) {
                let pause = MS * self.rng.below(150_000) as u32;
                end.paused_until = Some(self.now + pause);
                end.session.handle_hold(self.now, true);
            }
        }
        if !pipe.pieces.is_empty() || end.told_end || end.paused_until.is_some() {
            return;
        }
        let lost = match (self.plan.fault, self.broken) {
            (Fault::Cut(..), Some(_)) => true,
            (Fault::Silence(..), Some(since)) => self.now >= since + TCP_TIMEOUT,
            _ => false,
        };
        if lost || pipe.finished {
            end.told_end = true;
            let reset = Arc::new(io::Error::from(io::ErrorKind::ConnectionReset));
            let how = lost.then(|| NetworkError::Lost(reset).into());
            end.session.handle_end(how);
            end.take_events();
            pipe.finished |= lost;
        }
    }

    /// When something happens next.
    fn next(&self) -> Option<Instant> {
        let mut times = Vec::new();
        for (at, end) in self.ends.iter().enumerate() {
            if end.ended.is_none() {
                times.extend(end.session.poll_timeout());
                times.extend(end.act_at);
            }
            times.extend(end.paused_until);
            if end.paused_until.is_none() {
                times.extend(self.pipes[1 - at].pieces.front().map(|piece| piece.0));
            }
        }
        let unaware = self.ends.iter().any(|end| end.ended.is_none());
        if let (Fault::Silence(..), Some(since), true) = (self.plan.fault, self.broken, unaware) {
            times.push((since + TCP_TIMEOUT).max(self.now));
        }
        times.into_iter().min()
    }

    fn run(&mut self) {
        for _ in 0..200_000 {
            for at in 0..2 {
                if self.ends[at]
                    .paused_until
                    .is_some_and(|until| until <= self.now)
                {
                    self.ends[at].paused_until = None;
                    self.ends[at].session.handle_hold(self.now, false);
                }
                self.deliver(at);
                if self.ends[at].act_at.is_some_and(|time| time <= self.now) {
                    self.act(at);
                }
                self.ends[at].session.handle_timeout(self.now);
                self.ends[at].take_events();
            }
            // A delivery on one side makes room on the other.
            self.transmit(0);
            self.transmit(1);
            if self
                .ends
                .iter()
                .all(|end| end.ended.is_some() && end.session.queued() == 0)
            {
                return;
            }
            match self.next() {
                Some(next) => self.now = self.now.max(next),
                // Nothing is on its way: only an end of the connection is left to be seen.
                None if self.pipes.iter().any(|pipe| pipe.finished) => {}
                None => panic!("it hangs"),
            }
        }
        panic!("it goes on for ever");
    }

    fn check(&self) {
        let [client, server] = &self.ends;
        let client_end = client.ended.as_ref().expect("it ended");
        let server_end = server.ended.as_ref().expect("it ended");

        // Every byte once and in order, as far as it went.
        for channel in 0..3 {
            let (from, to) = match channel {
                0 => (client, server),
                _ => (server, client),
            };
            assert!(from.written[channel].starts_with(&to.received[channel]));
        }
        let whole = (1..3).all(|channel| server.written[channel] == client.received[channel]);

        // What the client knows of the end is what the server said.
        if let Some(status) = &client.status {
            let said = server.status.as_ref().expect("a status from nowhere");
            assert_eq!(status.code_of_exit(), said.code_of_exit());
            assert!(server.todo.is_empty());
            assert!(whole, "the status came before the output");
        }
        if client_end.is_ok() {
            assert!(
                client.status.is_some(),
                "an end without a status is no success"
            );
            assert!(whole, "output is missing and nobody says so");
        }
        if server_end.is_ok() && !self.plan.hasty {
            assert_eq!(client.written[0], server.received[0]);
        }

        if self.broken.is_none() {
            assert!(client_end.is_ok(), "{client_end:?}");
            assert!(server_end.is_ok(), "{server_end:?}");
            assert_eq!(
                client.status.as_ref().and_then(Status::code_of_exit),
                Some(self.plan.code.into())
            );
            if !self.plan.pauses {
                for end in &self.ends {
                    assert!(
                        end.longest_silence <= limits::KEEPALIVE_INTERVAL + Duration::from_secs(2),
                        "{:?} without a sign of life",
                        end.longest_silence
                    );
                }
            }
        } else if client.status.is_none() {
            assert!(
                matches!(
                    client_end,
                    Err(Error::Network(
                        NetworkError::ClosedWithoutStatus { .. } | NetworkError::Silent { .. }
                    ))
                ),
                "{client_end:?}"
            );
        }
    }
}

fn piece() -> impl Strategy<Value = Bytes> {
    prop_oneof![
        8 => prop::collection::vec(any::<u8>(), 0..200),
        2 => prop::collection::vec(any::<u8>(), 0..5000),
        1 => (0..100_000usize, any::<u8>()).prop_map(|(size, first)| {
            (0..size).map(|at| (at as u8).wrapping_mul(31) ^ first).collect()
        }),
    ]
    .prop_map(Bytes::from)
}

fn fault() -> impl Strategy<Value = Fault> {
    let role = || prop_oneof![Just(Role::Client), Just(Role::Server)];
    let at = || prop_oneof![0..300usize, 0..20_000usize];
    prop_oneof![
        2 => Just(Fault::None),
        2 => (role(), at()).prop_map(|(role, at)| Fault::Cut(role, at)),
        1 => (role(), at()).prop_map(|(role, at)| Fault::Silence(role, at)),
    ]
}

fn plan() -> impl Strategy<Value = Plan> {
    use Subprotocol::{Unnamed, V1, V1Base64, V4, V4Base64, V5};
    let protocol = prop::sample::select(vec![V5, V5, V4, V4Base64, V1, V1Base64, Unnamed]);
    let channel = prop_oneof![Just(Channel::Stdout), Just(Channel::Stderr)];
    let nap = prop_oneof![Just(1u64), Just(100), Just(130_000)];
    (
        (protocol, any::<u64>(), fault()),
        prop::collection::vec(piece(), 0..12),
        prop::collection::vec((channel, piece()), 0..20),
        (any::<bool>(), any::<bool>(), nap),
        prop_oneof![Just(0), Just(1), Just(3), Just(137)],
    )
        .prop_map(
            |((protocol, seed, fault), stdin, output, (hasty, pauses, nap), code)| Plan {
                protocol,
                seed,
                stdin,
                output,
                hasty,
                code,
                fault,
                pauses,
                nap: MS * nap as u32,
            },
        )
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_byte_arrives_once_and_in_order_or_the_end_is_an_error(plan in plan()) {
        let mut world = World::new(plan);
        world.run();
        world.check();
    }
}

/// An hour in which neither program says anything.
#[test]
fn an_idle_hour_is_full_of_pings_and_ends_well() {
    for protocol in Subprotocol::NAMED {
        let mut world = World::new(Plan {
            protocol,
            seed: 7,
            stdin: vec![Bytes::from_static(b"late")],
            output: vec![(Channel::Stdout, Bytes::from_static(b"out"))],
            hasty: false,
            code: 0,
            fault: Fault::None,
            pauses: false,
            nap: MS,
        });
        world.ends[0].act_at = Some(world.now + Duration::from_secs(3600));
        world.run();
        world.check();
        let pings: usize = world.ends.iter().map(|end| end.pings).sum();
        assert!(pings >= 179, "{pings} pings");
        assert_eq!(world.ends[1].received[0], b"late");
    }
}

/// A peer that vanishes is noticed although no end of the connection is ever seen.
#[test]
fn a_peer_that_vanishes_is_given_up_in_time() {
    for at in [0, 1, 30] {
        let mut world = World::new(Plan {
            protocol: Subprotocol::V5,
            seed: 9,
            stdin: Vec::new(),
            output: vec![(
                Channel::Stdout,
                Bytes::from_static(b"0123456789012345678901234567890"),
            )],
            hasty: false,
            code: 0,
            fault: Fault::Silence(Role::Server, at),
            pauses: false,
            nap: MS,
        });
        // The program keeps its stdin open.
        world.ends[0].act_at = None;
        let start = world.now;
        world.run();
        world.check();
        assert!(matches!(
            world.ends[0].ended,
            Some(Err(Error::Network(NetworkError::Silent { .. })))
        ));
        assert!(world.now - start <= TCP_TIMEOUT);
    }
}

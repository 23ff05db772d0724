use std::{collections::BTreeMap, time::Duration};

use proptest::prelude::*;

use super::*;
use crate::{
    error::Error,
    wire::spdy::{Data, Frame, GoAway, GoAwayStatus, Ping, SpdyError},
};

const SECOND: Duration = Duration::from_secs(1);

fn headers(port: u16) -> Headers {
    Headers::new().with("port", port.to_string())
}

fn id(id: u32) -> StreamId {
    StreamId::new(id).unwrap()
}

/// What one end has seen of one stream.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct Seen {
    accepted: bool,
    bytes: Vec<u8>,
    finished: bool,
    reset: Option<Abort>,
}

struct End {
    mux: Mux,
    seen: BTreeMap<StreamId, Seen>,
    ended: Option<Result<(), String>>,
    others: Vec<&'static str>,
    /// Streams that are not read.
    unread: Vec<StreamId>,
    accepts: bool,
}

/// Two ends in one memory, with a time of their own.
struct Pair {
    now: Instant,
    client: End,
    server: End,
    /// Sizes of the pieces that the bytes are cut into, in turn.
    cuts: Vec<usize>,
    cut: usize,
}

impl End {
    fn new(role: Role, config: MuxConfig, now: Instant) -> Self {
        Self {
            mux: Mux::new(role, config, now),
            seen: BTreeMap::new(),
            ended: None,
            others: vec![],
            unread: vec![],
            accepts: true,
        }
    }

    fn settle(&mut self) {
        while let Some(event) = self.mux.poll_event() {
            assert!(self.ended.is_none(), "{event:?} after the end");
            match event {
                MuxEvent::Opened { stream, .. } => {
                    self.seen.insert(stream, Seen::default());
                    if self.accepts {
                        self.mux.accept(stream);
                    }
                }
                MuxEvent::Accepted(stream) => self.see(stream).accepted = true,
                MuxEvent::Finished(stream) => self.see(stream).finished = true,
                MuxEvent::Reset { stream, why } => {
                    let before = self.see(stream).reset.replace(why);
                    assert_eq!(before, None, "a stream is reset once");
                }
                MuxEvent::Ended(how) => self.ended = Some(how.map_err(|error| error.to_string())),
                MuxEvent::Readable(_) => self.others.push("readable"),
                MuxEvent::Writable(_) => self.others.push("writable"),
                MuxEvent::Full(_) => self.others.push("full"),
                MuxEvent::Stuck(_) => self.others.push("stuck"),
                MuxEvent::GoAway => self.others.push("go away"),
                MuxEvent::Suspect => self.others.push("suspect"),
                MuxEvent::Heard => self.others.push("heard"),
            }
        }
        let streams: Vec<StreamId> = self.mux.streams.keys().copied().collect();
        for stream in streams {
            if !self.unread.contains(&stream) {
                while let Some(payload) = self.mux.read(stream) {
                    self.see(stream).bytes.extend_from_slice(&payload);
                }
            }
        }
    }

    fn see(&mut self, stream: StreamId) -> &mut Seen {
        self.seen.entry(stream).or_default()
    }
}

impl Pair {
    fn new() -> Self {
        Self::with(MuxConfig::default(), vec![usize::MAX])
    }

    fn with(config: MuxConfig, cuts: Vec<usize>) -> Self {
        let now = Instant::now();
        Self {
            now,
            client: End::new(Role::Client, config.clone(), now),
            server: End::new(Role::Server, config, now),
            cuts,
            cut: 0,
        }
    }

    /// Carries bytes to and fro until nothing moves.
    fn run(&mut self) {
        loop {
            let mut moved = false;
            for to_server in [true, false] {
                let (from, to) = match to_server {
                    true => (&mut self.client, &mut self.server),
                    false => (&mut self.server, &mut self.client),
                };
                from.settle();
                let mut wire = BytesMut::new();
                while let Some(bytes) = from.mux.poll_transmit() {
                    assert!(!bytes.is_empty());
                    wire.extend_from_slice(&bytes);
                }
                let mut wire = wire.freeze();
                moved |= !wire.is_empty();
                while !wire.is_empty() {
                    let size = self.cuts[self.cut % self.cuts.len()].min(wire.len());
                    self.cut += 1;
                    to.mux.handle_bytes(self.now, wire.split_to(size));
                    to.settle();
                }
            }
            if !moved {
                return;
            }
        }
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.client.mux.handle_timeout(self.now);
        self.server.mux.handle_timeout(self.now);
        self.client.settle();
        self.server.settle();
    }

    fn open(&mut self, port: u16) -> StreamId {
        self.client.mux.open(self.now, &headers(port)).unwrap()
    }

    fn assert_nothing_left(&self) {
        for end in [&self.client, &self.server] {
            let mux = &end.mux;
            assert!(mux.is_empty(), "{:?}", mux.streams);
            assert_eq!((mux.remote_streams, mux.received, mux.owed), (0, 0, 0));
            assert_eq!((mux.full, mux.unsent, mux.queued()), (0, 0, 0));
            assert!(mux.ring.is_empty() && mux.replies.is_empty() && mux.stuck.is_empty());
            assert!(!mux.wants_transmit() && !mux.wants_hold());
            assert!(mux.events.is_empty());
        }
    }
}

/// The frames that a mux sends now.
fn frames(mux: &mut Mux) -> Vec<Frame> {
    let mut wire = BytesMut::new();
    while let Some(bytes) = mux.poll_transmit() {
        wire.extend_from_slice(&bytes);
    }
    let mut wire = wire.freeze();
    std::iter::from_fn(|| Frame::parse(&mut wire).unwrap()).collect()
}

fn hand_in(mux: &mut Mux, now: Instant, frame: &Frame) {
    let mut wire = BytesMut::new();
    frame.encode(&mut wire);
    mux.handle_bytes(now, wire.freeze());
}

fn data(stream: u32, payload: &'static str, fin: bool) -> Frame {
    Frame::Data(Data {
        stream: id(stream),
        payload: payload.into(),
        fin,
    })
}

#[test]
fn a_stream_carries_bytes_both_ways_and_ends_with_the_second_fin() {
    let mut pair = Pair::new();
    let stream = pair.open(80);
    pair.client.mux.write(stream, "request".into()).unwrap();
    pair.client.mux.finish(stream);
    pair.run();
    assert!(pair.client.seen[&stream].accepted);
    assert_eq!(pair.server.seen[&stream].bytes, b"request");
    assert!(pair.server.seen[&stream].finished);
    assert_eq!(
        pair.client.mux.len(),
        1,
        "half-closed: the answer may still come"
    );
    pair.server.mux.write(stream, "answer".into()).unwrap();
    pair.server.mux.finish(stream);
    pair.run();
    assert_eq!(pair.client.seen[&stream].bytes, b"answer");
    assert!(pair.client.seen[&stream].finished);
    assert_eq!(
        pair.client
            .mux
            .write(stream, "late".into())
            .unwrap_err()
            .to_string(),
        CallerError::Ended.to_string()
    );
    pair.assert_nothing_left();
}

#[test]
fn what_arrived_before_a_reset_can_be_read_after_it() {
    let mut pair = Pair::new();
    let stream = pair.open(80);
    pair.client.unread.push(stream);
    pair.run();
    pair.server.mux.write(stream, "so far".into()).unwrap();
    pair.run();
    pair.server.mux.reset(stream, RstStatus::INTERNAL_ERROR);
    pair.run();
    let why = Abort::Peer(RstStatus::INTERNAL_ERROR);
    assert_eq!(pair.client.seen[&stream].reset, Some(why));
    assert_eq!(pair.client.mux.room(stream), 0);
    assert_eq!(pair.client.mux.read(stream).unwrap(), "so far");
    assert_eq!(pair.client.mux.read(stream), None);
    pair.assert_nothing_left();
}

#[test]
fn a_reset_after_the_own_fin_reaches_the_peer() {
    let mut pair = Pair::new();
    let stream = pair.open(80);
    pair.client.mux.finish(stream);
    pair.run();
    pair.client.mux.reset(stream, RstStatus::CANCEL);
    pair.run();
    let why = Abort::Peer(RstStatus::CANCEL);
    assert_eq!(pair.server.seen[&stream].reset, Some(why));
    pair.assert_nothing_left();
}

#[test]
fn a_reset_drops_what_was_queued() {
    let mut pair = Pair::new();
    let stream = pair.open(80);
    pair.client
        .mux
        .write(stream, vec![0; 1 << 20].into())
        .unwrap();
    pair.client.mux.reset(stream, RstStatus::CANCEL);
    let sent = frames(&mut pair.client.mux);
    assert!(
        matches!(&sent[..], [Frame::SynStream(_), Frame::RstStream(_)]),
        "{sent:?}"
    );
}

#[test]
fn streams_take_turns_and_control_frames_go_first() {
    let mut pair = Pair::new();
    let (bulk, other) = (pair.open(1), pair.open(2));
    frames(&mut pair.client.mux);
    pair.client
        .mux
        .write(bulk, vec![1; 10 * limits::SPDY_DATA].into())
        .unwrap();
    pair.client.mux.write(other, "small".into()).unwrap();
    pair.client.mux.finish(other);
    let late = pair.open(3);
    let sent: Vec<(u32, usize)> = frames(&mut pair.client.mux)
        .into_iter()
        .map(|frame| match frame {
            Frame::SynStream(frame) => (frame.stream.get(), 0),
            Frame::Data(frame) => (frame.stream.get(), frame.payload.len()),
            other => panic!("{other:?}"),
        })
        .collect();
    let mut expected = vec![
        (late.get(), 0),
        (bulk.get(), limits::SPDY_DATA),
        (other.get(), 5),
    ];
    expected.extend(vec![(bulk.get(), limits::SPDY_DATA); 9]);
    assert_eq!(sent, expected);
}

#[test]
fn a_large_payload_is_handed_out_as_it_was_written() {
    let mut pair = Pair::new();
    let stream = pair.open(80);
    let payload = Bytes::from(vec![1; 3 * limits::SPDY_DATA]);
    let range = payload.as_ptr_range();
    pair.client.mux.write(stream, payload.clone()).unwrap();
    let slices: Vec<Bytes> = std::iter::from_fn(|| pair.client.mux.poll_transmit())
        .filter(|bytes| range.contains(&bytes.as_ptr()))
        .collect();
    assert_eq!(slices.iter().map(Bytes::len).sum::<usize>(), payload.len());
    let copied = slices.len();
    assert_eq!(copied, 3);
}

#[test]
fn a_writer_is_told_when_there_is_room_again() {
    let mut pair = Pair::new();
    let stream = pair.open(80);
    let room = pair.client.mux.room(stream);
    assert_eq!(room, limits::FORWARD_SEND);
    pair.client
        .mux
        .write(stream, vec![0; room - 1].into())
        .unwrap();
    pair.run();
    assert!(!pair.client.others.contains(&"writable"), "it had room");
    pair.client.mux.write(stream, vec![0; room].into()).unwrap();
    assert_eq!(pair.client.mux.room(stream), 0);
    pair.run();
    assert_eq!(
        pair.client
            .others
            .iter()
            .filter(|e| **e == "writable")
            .count(),
        1
    );
    assert_eq!(pair.client.mux.room(stream), room);
}

#[test]
fn a_full_stream_holds_everything_back_until_it_is_read() {
    let mut pair = Pair::new();
    let (slow, _other) = (pair.open(1), pair.open(2));
    pair.client.unread.push(slow);
    pair.run();
    pair.server
        .mux
        .write(slow, vec![7; limits::FORWARD_RECEIVE - 1].into())
        .unwrap();
    pair.run();
    assert!(!pair.client.mux.wants_hold());
    pair.server.mux.write(slow, vec![7; 1].into()).unwrap();
    pair.run();
    assert!(pair.client.mux.wants_hold());
    assert_eq!(
        pair.client.others.iter().filter(|e| **e == "full").count(),
        1
    );
    pair.client.mux.handle_hold(pair.now, true);
    // A reader that takes something is not stuck; one that takes nothing is, again and again.
    let patience = limits::FORWARD_PATIENCE;
    hand_in(
        &mut pair.client.mux,
        pair.now,
        &Frame::Data(Data {
            stream: slow,
            payload: vec![7; limits::FORWARD_RECEIVE].into(),
            fin: false,
        }),
    );
    assert_eq!(pair.client.mux.read(slow).unwrap().len(), limits::SPDY_DATA);
    assert!(pair.client.mux.wants_hold());
    pair.pass(patience);
    assert!(!pair.client.others.contains(&"stuck"));
    for _ in 0..2 {
        pair.pass(patience);
    }
    assert_eq!(
        pair.client.others.iter().filter(|e| **e == "stuck").count(),
        2
    );
    while pair.client.mux.read(slow).is_some() {}
    assert!(!pair.client.mux.wants_hold());
    assert_eq!((pair.client.mux.stuck.len(), pair.client.mux.full), (0, 0));
}

#[test]
fn all_streams_together_are_bounded() {
    let config = MuxConfig {
        receive_total: 1000,
        ..MuxConfig::default()
    };
    let mut pair = Pair::with(config, vec![usize::MAX]);
    let streams: Vec<StreamId> = (0..20).map(|port| pair.open(port)).collect();
    pair.client.unread = streams.clone();
    pair.run();
    for stream in &streams {
        pair.server.mux.write(*stream, vec![0; 50].into()).unwrap();
    }
    pair.run();
    assert!(pair.client.mux.wants_hold());
    // The reader of the fullest is the one to be reported.
    pair.client.mux.handle_hold(pair.now, true);
    pair.pass(limits::FORWARD_PATIENCE);
    assert_eq!(pair.client.others.last(), Some(&"stuck"));
    pair.client.mux.reset(streams[3], RstStatus::CANCEL);
    assert!(!pair.client.mux.wants_hold());
    pair.pass(limits::FORWARD_PATIENCE);
    assert!(pair.client.mux.stuck.is_empty());
}

#[test]
fn a_stream_that_is_not_accepted_in_time_fails_alone() {
    let mut pair = Pair::new();
    pair.server.accepts = false;
    let stream = pair.open(80);
    pair.run();
    pair.server.accepts = true;
    let other = pair.open(81);
    pair.run();
    // While everything is held back, so is the acceptance.
    pair.client.mux.handle_hold(pair.now, true);
    pair.pass(60 * SECOND);
    pair.client.mux.handle_hold(pair.now, false);
    assert_eq!(pair.client.seen.get(&stream).and_then(|s| s.reset), None);
    pair.run();
    for _ in 0..3 {
        pair.pass(10 * SECOND);
        pair.run();
    }
    assert_eq!(pair.client.seen[&stream].reset, Some(Abort::NoReply));
    assert_eq!(pair.client.seen[&other].reset, None);
    let why = Abort::Peer(RstStatus::CANCEL);
    assert_eq!(pair.server.seen[&stream].reset, Some(why));
}

#[test]
fn pings_are_answered_and_their_absence_noticed() {
    let mut pair = Pair::new();
    let _stream = pair.open(80);
    pair.run();
    for _ in 0..100 {
        pair.pass(10 * SECOND);
        pair.run();
    }
    assert_eq!((&pair.client.ended, pair.client.others.len()), (&None, 0));
    // The server falls silent.
    for _ in 0..8 {
        pair.pass(10 * SECOND);
        let pings = frames(&mut pair.client.mux);
        assert!(pings.len() <= 1, "{pings:?}");
    }
    assert_eq!(pair.client.others, ["suspect"]);
    assert_eq!(
        pair.client.ended,
        Some(Err("the peer has been silent for 70 s".into()))
    );
}

#[test]
fn a_single_byte_is_life_enough() {
    let mut pair = Pair::new();
    let _stream = pair.open(80);
    pair.run();
    let mut wire = BytesMut::new();
    data(1, &"x".repeat(1000).leak()[..], false).encode(&mut wire);
    for byte in wire.freeze() {
        pair.pass(9 * SECOND);
        pair.client.mux.handle_bytes(pair.now, vec![byte].into());
        frames(&mut pair.client.mux);
    }
    pair.client.settle();
    assert!(!pair.client.others.contains(&"suspect"));
    assert_eq!(pair.client.ended, None);
}

#[test]
fn an_end_in_the_middle_of_a_frame_is_a_loss() {
    let mut pair = Pair::new();
    let stream = pair.open(80);
    pair.run();
    pair.client
        .mux
        .handle_bytes(pair.now, Bytes::from_static(b"\0\0\0"));
    pair.client.mux.handle_end(None);
    pair.client.settle();
    assert!(matches!(pair.client.ended, Some(Err(_))));
    assert_eq!(pair.client.mux.room(stream), 0);
    pair.server.mux.handle_end(None);
    pair.server.settle();
    assert_eq!(pair.server.ended, Some(Ok(())));
}

#[test]
fn go_away_ends_what_was_not_handled_and_nothing_else() {
    let mut pair = Pair::new();
    let first = pair.open(1);
    pair.run();
    let second = pair.open(2);
    let frame = GoAway {
        last_good: Some(first),
        status: GoAwayStatus::OK,
    };
    hand_in(&mut pair.client.mux, pair.now, &Frame::GoAway(frame));
    pair.client.settle();
    assert_eq!(pair.client.others, ["go away"]);
    assert_eq!(pair.client.seen[&second].reset, Some(Abort::GoneAway));
    assert_eq!(pair.client.mux.can_open(), Err(OpenError::GoingAway));
    pair.server.mux.write(first, "goes on".into()).unwrap();
    pair.run();
    assert_eq!(pair.client.seen[&first].bytes, b"goes on");
}

#[test]
fn closing_resets_every_stream_and_says_goodbye() {
    let mut pair = Pair::new();
    let streams = [pair.open(1), pair.open(2)];
    pair.run();
    pair.client.mux.close();
    pair.run();
    for stream in streams {
        let why = Abort::Peer(RstStatus::CANCEL);
        assert_eq!(pair.server.seen[&stream].reset, Some(why));
    }
    assert_eq!(pair.server.others, ["go away"]);
    assert_eq!(pair.client.ended, Some(Ok(())));
    assert_eq!(pair.client.mux.can_open(), Err(OpenError::Ended));
    assert!(pair.client.mux.is_empty() && pair.server.mux.is_empty());
}

#[test]
fn what_breaks_the_protocol_on_one_stream_ends_that_stream() {
    let mut pair = Pair::new();
    let (first, second) = (pair.open(1), pair.open(2));
    frames(&mut pair.client.mux);
    let now = pair.now;
    let mux = &mut pair.client.mux;
    // Payload before the acceptance.
    hand_in(mux, now, &data(1, "early", false));
    // Payload after the end.
    let mut writer = HeaderWriter::new();
    let reply = SynReply {
        stream: second,
        fin: true,
        block: writer.write(&Headers::new()).unwrap(),
    };
    hand_in(mux, now, &Frame::SynReply(reply));
    hand_in(mux, now, &data(3, "late", false));
    // A stream that never was, one that is no more, and one of the peer that never was.
    for stream in [99, 1, 98] {
        hand_in(mux, now, &data(stream, "whose?", false));
    }
    let resets: Vec<(u32, RstStatus)> = frames(mux)
        .into_iter()
        .map(|frame| match frame {
            Frame::RstStream(frame) => (frame.stream.get(), frame.status),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(
        resets,
        [
            (1, RstStatus::PROTOCOL_ERROR),
            (3, RstStatus::STREAM_ALREADY_CLOSED),
            (99, RstStatus::INVALID_STREAM),
            (98, RstStatus::INVALID_STREAM),
        ]
    );
    pair.client.settle();
    assert!(matches!(
        pair.client.seen[&first].reset,
        Some(Abort::Protocol(_))
    ));
    assert!(matches!(
        pair.client.seen[&second].reset,
        Some(Abort::Protocol(_))
    ));
    assert_eq!(pair.client.ended, None);
}

#[test]
fn streams_out_of_order_end_the_connection() {
    for ids in [vec![2], vec![3, 1], vec![3, 3]] {
        let now = Instant::now();
        let mut mux = Mux::new(Role::Server, MuxConfig::default(), now);
        let mut writer = HeaderWriter::new();
        for stream in &ids {
            let frame = SynStream {
                stream: id(*stream),
                associated: None,
                priority: 0,
                fin: false,
                unidirectional: false,
                block: writer.write(&headers(1)).unwrap(),
            };
            hand_in(&mut mux, now, &Frame::SynStream(frame));
        }
        let error = std::iter::from_fn(|| mux.poll_event()).last();
        let Some(MuxEvent::Ended(Err(error))) = error else {
            panic!("{error:?}");
        };
        assert!(error.to_string().contains("out of order"), "{error}");
        assert!(matches!(
            frames(&mut mux).last(),
            Some(Frame::GoAway(GoAway {
                status: GoAwayStatus::PROTOCOL_ERROR,
                ..
            }))
        ));
    }
}

#[test]
fn more_streams_than_allowed_are_refused_one_by_one() {
    let config = MuxConfig {
        max_streams: 2,
        ..MuxConfig::default()
    };
    let mut pair = Pair::with(config, vec![usize::MAX]);
    let streams = [pair.open(1), pair.open(2), pair.open(3)];
    pair.run();
    let refused = Some(Abort::Peer(RstStatus::REFUSED_STREAM));
    let resets = streams.map(|stream| pair.client.seen[&stream].reset);
    assert_eq!(resets, [None, None, refused]);
    pair.client.mux.reset(streams[0], RstStatus::CANCEL);
    let fourth = pair.open(4);
    pair.run();
    assert!(pair.client.seen[&fourth].accepted);
}

#[test]
fn a_peer_that_only_asks_is_cut_off() {
    let now = Instant::now();
    let mut mux = Mux::new(Role::Server, MuxConfig::default(), now);
    let mut wire = BytesMut::new();
    for id in 0..(limits::SPDY_OWED as u32) {
        Ping { id: 2 * id + 1 }.encode(&mut wire);
    }
    mux.handle_bytes(now, wire.freeze());
    let Some(MuxEvent::Ended(Err(error))) = mux.poll_event() else {
        panic!("it goes on");
    };
    assert!(matches!(
        error,
        Error::Peer(crate::error::PeerError::Spdy(SpdyError::Flood(_)))
    ));
    assert!(mux.out.len() < limits::SPDY_OWED + 100);
}

#[test]
fn ids_run_out_in_the_end() {
    let mut pair = Pair::new();
    pair.client.mux.next = StreamId::MAX;
    let last = pair.open(1);
    assert_eq!(last.get(), StreamId::MAX);
    assert_eq!(pair.client.mux.can_open(), Err(OpenError::Exhausted));
}

/// Who does what last on a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    ClientWrites,
    ServerWrites,
    ClientFins,
    ServerFins,
    ClientResets,
    ServerResets,
    Run,
}

#[test]
fn ten_thousand_streams_in_every_order_of_fin_and_rst_leave_nothing() {
    use Step::*;
    let orders: Vec<Vec<Step>> = {
        let mut orders = vec![];
        let ends = [ClientFins, ServerFins, ClientResets, ServerResets];
        for first in ends {
            for second in ends {
                for third in ends {
                    for runs in 0..8 {
                        let mut order = vec![];
                        for (n, step) in [first, second, third].into_iter().enumerate() {
                            order.push(step);
                            if runs >> n & 1 == 1 {
                                order.push(Run);
                            }
                        }
                        // Whatever the order, both ends are done.
                        order.extend([ClientFins, ServerFins]);
                        orders.push(order);
                    }
                }
            }
        }
        orders
    };
    let mut pair = Pair::new();
    for n in 0..10_000 {
        let stream = pair.open(80);
        if n % 3 == 0 {
            pair.run();
        }
        let mut steps = vec![ClientWrites, ServerWrites];
        steps.extend_from_slice(&orders[n % orders.len()]);
        for step in steps {
            let (client, server) = (&mut pair.client.mux, &mut pair.server.mux);
            match step {
                // A write to a stream that is over is refused, which is as good.
                ClientWrites => drop(client.write(stream, "request".into())),
                ServerWrites => drop(server.write(stream, "answer".into())),
                ClientFins => client.finish(stream),
                ServerFins => server.finish(stream),
                ClientResets => client.reset(stream, RstStatus::CANCEL),
                ServerResets => server.reset(stream, RstStatus::CANCEL),
                Run => pair.run(),
            }
        }
        pair.run();
        // The server could not finish what it had not seen by then.
        pair.server.mux.finish(stream);
        pair.run();
        pair.client.seen.clear();
        pair.server.seen.clear();
    }
    pair.assert_nothing_left();
    assert_eq!((&pair.client.ended, &pair.server.ended), (&None, &None));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Whatever is written arrives, in order and whole, however the bytes are cut.
    #[test]
    fn bytes_arrive_however_the_connection_is_cut(
        cuts in prop::collection::vec(1..3000usize, 1..20),
        writes in prop::collection::vec((0..5usize, any::<bool>(), 0..70_000usize), 0..30),
        run_every in 1..8usize,
    ) {
        let mut pair = Pair::with(MuxConfig::default(), cuts);
        let streams: Vec<StreamId> = (0..5).map(|port| pair.open(port)).collect();
        pair.run();
        let mut sent = vec![(Vec::new(), Vec::new()); 5];
        for (step, (n, from_client, length)) in writes.into_iter().enumerate() {
            let payload = vec![step as u8; length];
            let (mux, log) = match from_client {
                true => (&mut pair.client.mux, &mut sent[n].0),
                false => (&mut pair.server.mux, &mut sent[n].1),
            };
            log.extend_from_slice(&payload);
            mux.write(streams[n], payload.into()).unwrap();
            if step % run_every == 0 {
                pair.run();
            }
        }
        for stream in &streams {
            pair.client.mux.finish(*stream);
            pair.server.mux.finish(*stream);
        }
        pair.run();
        for (n, stream) in streams.iter().enumerate() {
            let (client, server) = (&pair.client.seen[stream], &pair.server.seen[stream]);
            prop_assert!(server.bytes == sent[n].0 && client.bytes == sent[n].1);
            prop_assert!(client.finished && server.finished);
            prop_assert!(client.reset.is_none() && server.reset.is_none());
        }
        pair.assert_nothing_left();
    }

    /// No bytes make it panic, and it says at most once that it has ended.
    #[test]
    fn no_bytes_make_it_panic(
        pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..60), 0..20),
        mutate in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        server: bool,
    ) {
        let now = Instant::now();
        let role = if server { Role::Server } else { Role::Client };
        let mut end = End::new(role, MuxConfig::default(), now);
        // An honest start, slightly wrong.
        let mut wire = BytesMut::new();
        let mut peer = Mux::new(Role::Client, MuxConfig::default(), now);
        let stream = peer.open(now, &headers(80)).unwrap();
        peer.write(stream, "payload".into()).unwrap();
        while let Some(bytes) = peer.poll_transmit() {
            wire.extend_from_slice(&bytes);
        }
        for (at, byte) in mutate {
            let at = at.index(wire.len());
            wire[at] = byte;
        }
        end.mux.handle_bytes(now, wire.freeze());
        end.settle();
        for piece in pieces {
            end.mux.handle_bytes(now, piece.into());
            end.settle();
            while end.mux.poll_transmit().is_some() {}
        }
        end.mux.handle_end(None);
        end.settle();
        prop_assert!(end.ended.is_some());
        prop_assert!(end.mux.is_empty());
    }
}

//! What waits, and for how long.

use super::*;

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
        &mut pair.client,
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
    assert_eq!(
        (pair.client.mux.stuck.len(), pair.client.mux.waiting.full),
        (0, 0)
    );
}

#[test]
fn all_streams_together_are_bounded() {
    let config = MuxConfig {
        receive_total: 1000,
        ..MuxConfig::default()
    };
    let mut pair = Pair::with(config, vec![usize::MAX]);
    let streams: Vec<StreamId> = (0..10).map(|port| pair.open(port)).collect();
    pair.client.unread = streams.clone();
    pair.run();
    for stream in &streams {
        pair.server.mux.write(*stream, vec![0; 100].into()).unwrap();
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
fn many_streams_that_wait_a_little_are_held_back_before_a_few_that_wait_much() {
    const SHARE: usize = 8 << 10;
    let config = MuxConfig {
        receive_total: 32 * 16 * SHARE,
        ..MuxConfig::default()
    };
    let mut pair = Pair::with(config, vec![usize::MAX]);
    let streams: Vec<StreamId> = (0..40).map(|port| pair.open(port)).collect();
    pair.client.unread = streams.clone();
    pair.run();
    let (slow, quick) = streams.split_at(15);
    let send = |pair: &mut Pair, stream, length| {
        pair.server
            .mux
            .write(stream, vec![0; length].into())
            .unwrap();
        pair.run();
    };
    for stream in slow {
        send(&mut pair, *stream, 5 * SHARE);
    }
    for stream in &quick[..15] {
        assert!(
            !pair.client.mux.wants_hold(),
            "the slow ones do not make up a crowd"
        );
        send(&mut pair, *stream, SHARE / 15);
    }
    send(&mut pair, quick[15], SHARE);
    assert!(pair.client.mux.wants_hold());
    assert!(pair.client.mux.waiting.bytes < 32 * 16 * SHARE);
    pair.client.mux.read(quick[15]);
    assert!(!pair.client.mux.wants_hold());
    send(&mut pair, quick[16], SHARE / 4);
    assert!(pair.client.mux.wants_hold());
    pair.client.mux.reset(slow[0], RstStatus::CANCEL);
    assert!(!pair.client.mux.wants_hold());
    for stream in &streams {
        while pair.client.mux.read(*stream).is_some() {}
    }
    assert_eq!(
        (
            pair.client.mux.waiting.bytes,
            pair.client.mux.waiting.shared
        ),
        (0, 0)
    );
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
        let pings = frames(&mut pair.client);
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
        frames(&mut pair.client);
    }
    pair.client.settle();
    assert!(!pair.client.others.contains(&"suspect"));
    assert_eq!(pair.client.ended, None);
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

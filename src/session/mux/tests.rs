//! Two ends of a SPDY connection in memory.

use std::collections::BTreeMap;

use super::*;
use crate::{
    error::Error,
    session::{
        Message,
        testing::{self, End as _, SECOND, frames, hand_in, syn},
    },
    wire::spdy::{Data, Frame, GoAway, GoAwayStatus, Ping, SpdyError},
};

mod bounds;
mod orders;

impl Mux {
    /// Takes all of what arrived.
    fn handle_bytes(&mut self, now: Instant, mut bytes: Bytes) {
        self.handle_activity(now);
        while self.handle_next(now, &mut bytes) {}
    }
}

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

    fn see(&mut self, stream: StreamId) -> &mut Seen {
        self.seen.entry(stream).or_default()
    }
}

impl testing::End for End {
    fn is_stream(&self) -> bool {
        true
    }

    fn transmit(&mut self) -> Option<Message> {
        let bytes = self.mux.poll_transmit()?;
        assert!(!bytes.is_empty());
        Some(Message::Binary(bytes))
    }

    fn take(&mut self, now: Instant, message: Message) {
        let Message::Binary(bytes) = message else {
            panic!("{message:?}");
        };
        self.mux.handle_bytes(now, bytes);
    }

    fn timeout(&mut self, now: Instant) {
        self.mux.handle_timeout(now);
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
}

type Pair = testing::Pair<End>;

impl Pair {
    fn new() -> Self {
        Self::with(MuxConfig::default(), vec![usize::MAX])
    }

    fn with(config: MuxConfig, cuts: Vec<usize>) -> Self {
        Self::join(|role, now| End::new(role, config.clone(), now), cuts)
    }

    fn open(&mut self, port: u16) -> StreamId {
        self.client.mux.open(self.now, &headers(port)).unwrap()
    }

    fn assert_nothing_left(&self) {
        for end in [&self.client, &self.server] {
            let mux = &end.mux;
            assert!(mux.is_empty(), "{:?}", mux.streams);
            assert_eq!((mux.remote_streams, mux.waiting.bytes, mux.owed), (0, 0, 0));
            assert_eq!((mux.waiting.full, mux.unsent, mux.queued()), (0, 0, 0));
            assert!(mux.ring.is_empty() && mux.replies.is_empty() && mux.stuck.is_empty());
            assert!(!mux.wants_hold());
            assert!(mux.events.is_empty());
        }
    }
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
    let sent = frames(&mut pair.client);
    assert!(
        matches!(&sent[..], [Frame::SynStream(_), Frame::RstStream(_)]),
        "{sent:?}"
    );
}

#[test]
fn streams_take_turns_and_control_frames_go_first() {
    let mut pair = Pair::new();
    let (bulk, other) = (pair.open(1), pair.open(2));
    frames(&mut pair.client);
    pair.client
        .mux
        .write(bulk, vec![1; 10 * limits::SPDY_DATA].into())
        .unwrap();
    pair.client.mux.write(other, "small".into()).unwrap();
    pair.client.mux.finish(other);
    let late = pair.open(3);
    let sent: Vec<(u32, usize)> = frames(&mut pair.client)
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
    hand_in(&mut pair.client, pair.now, &Frame::GoAway(frame));
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
    frames(&mut pair.client);
    let now = pair.now;
    let client = &mut pair.client;
    // Payload before the acceptance.
    hand_in(client, now, &data(1, "early", false));
    // Payload after the end.
    let mut writer = HeaderWriter::new();
    let reply = SynReply {
        stream: second,
        fin: true,
        block: writer.write(&Headers::new()).unwrap(),
    };
    hand_in(client, now, &Frame::SynReply(reply));
    hand_in(client, now, &data(3, "late", false));
    // A stream that never was, one that is no more, and one of the peer that never was.
    for stream in [99, 1, 98] {
        hand_in(client, now, &data(stream, "whose?", false));
    }
    let resets: Vec<(u32, RstStatus)> = frames(client)
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
        let mut server = End::new(Role::Server, MuxConfig::default(), now);
        let mut writer = HeaderWriter::new();
        for stream in &ids {
            hand_in(&mut server, now, &syn(&mut writer, *stream, &headers(1)));
        }
        let Some(Err(error)) = &server.ended else {
            panic!("{:?}", server.ended);
        };
        assert!(error.contains("out of order"), "{error}");
        assert!(matches!(
            frames(&mut server).last(),
            Some(Frame::GoAway(GoAway {
                status: GoAwayStatus::PROTOCOL_ERROR,
                ..
            }))
        ));
    }
}

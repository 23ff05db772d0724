use std::{
    collections::BTreeMap,
    ops::{Deref, DerefMut},
    time::Duration,
};

use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::BytesMut;
use proptest::prelude::*;

use super::*;
use crate::{
    Role, limits,
    session::{Close, Message, Opcode, Transmit},
    wire::{
        channel::Encoding,
        spdy::{
            Data, Frame, HeaderReader, HeaderWriter, Headers, RstStatus, RstStream, StreamId,
            SynReply, SynStream,
        },
        websocket::Decoder,
    },
};

const SECOND: Duration = Duration::from_secs(1);

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

struct Pair {
    now: Instant,
    client: End,
    server: End,
    /// Sizes of the messages that the SPDY bytes are cut into, in turn.
    cuts: Vec<usize>,
    cut: usize,
}

impl Pair {
    fn spdy() -> Self {
        Self::spdy_with(ForwardConfig::default(), vec![usize::MAX])
    }

    fn spdy_with(config: ForwardConfig, cuts: Vec<usize>) -> Self {
        let now = Instant::now();
        Self {
            now,
            client: End::spdy(Role::Client, config.clone(), now),
            server: End::spdy(Role::Server, config, now),
            cuts,
            cut: 0,
        }
    }

    fn channels(encoding: Encoding, ports: &[u16]) -> Self {
        let now = Instant::now();
        Self {
            now,
            client: End::channels(Role::Client, encoding, ports, now),
            server: End::channels(Role::Server, encoding, ports, now),
            cuts: vec![],
            cut: 0,
        }
    }

    fn run(&mut self) {
        while self.step(true) | self.step(false) {}
    }

    /// Carries what one end has to send.
    fn step(&mut self, to_server: bool) -> bool {
        let (from, to) = match to_server {
            true => (&mut self.client, &mut self.server),
            false => (&mut self.server, &mut self.client),
        };
        from.settle();
        let mut moved = false;
        while let Some(transmit) = from.session.poll_transmit() {
            moved = true;
            let spdy = matches!(to.session, Of::Spdy(_));
            if transmit.opcode == Opcode::Binary && spdy {
                let mut bytes = transmit.payload;
                while !bytes.is_empty() {
                    let size = self.cuts[self.cut % self.cuts.len()].min(bytes.len());
                    self.cut += 1;
                    let message = Message::Binary(bytes.split_to(size));
                    to.session.handle_message(self.now, message);
                }
            } else {
                to.session.handle_message(self.now, transmit.to_message());
            }
            to.settle();
        }
        assert_eq!(from.session.queued(), 0);
        moved
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        for end in [&mut self.client, &mut self.server] {
            end.session.handle_timeout(self.now);
            end.settle();
        }
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

/// A client with a peer made of single frames, for the orders that servers of other make have.
struct Scripted {
    now: Instant,
    client: End,
    id: ConnectionId,
    error: StreamId,
    data: StreamId,
    writer: HeaderWriter,
}

impl Scripted {
    fn new() -> Self {
        let now = Instant::now();
        let mut client = End::spdy(Role::Client, ForwardConfig::default(), now);
        let id = client.session.open(now, 80).unwrap();
        let (error, data) = (StreamId::new(1).unwrap(), StreamId::new(3).unwrap());
        let mut scripted = Self {
            now,
            client,
            id,
            error,
            data,
            writer: HeaderWriter::new(),
        };
        for stream in [error, data] {
            let block = scripted.writer.write(&Headers::new()).unwrap();
            scripted.send(Frame::SynReply(SynReply {
                stream,
                fin: false,
                block,
            }));
        }
        scripted.sent();
        scripted
    }

    fn send(&mut self, frame: Frame) {
        let mut bytes = BytesMut::new();
        frame.encode(&mut bytes);
        let message = Message::Binary(bytes.freeze());
        self.client.session.handle_message(self.now, message);
        self.client.settle();
    }

    fn data(&mut self, stream: StreamId, payload: &'static str, fin: bool) {
        let payload = payload.into();
        self.send(Frame::Data(Data {
            stream,
            payload,
            fin,
        }));
    }

    fn reset(&mut self, stream: StreamId) {
        let status = RstStatus::CANCEL;
        self.send(Frame::RstStream(RstStream { stream, status }));
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.client.session.handle_timeout(self.now);
        self.client.settle();
    }

    fn closed(&self) -> Option<Result<(), String>> {
        self.client.seen[&self.id].closed.clone()
    }

    fn sent(&mut self) -> Vec<Frame> {
        let mut bytes = BytesMut::new();
        while let Some(transmit) = self.client.session.poll_transmit() {
            bytes.extend_from_slice(&transmit.payload);
        }
        let mut bytes = bytes.freeze();
        std::iter::from_fn(|| Frame::parse(&mut bytes).unwrap()).collect()
    }
}

#[test]
fn the_text_is_found_in_whatever_order_the_streams_end() {
    type Script = fn(&mut Scripted);
    let text: Script = |s| s.data(s.error, "went wrong", false);
    let scripts: [&[Script]; 6] = [
        // Kubernetes until 1.35: text, FIN, FIN.
        &[
            text,
            |s| s.data(s.error, "", true),
            |s| s.data(s.data, "", true),
        ],
        // Since: text, then both are reset.
        &[text, |s| s.reset(s.data), |s| s.reset(s.error)],
        // The data ends first.
        &[
            |s| s.data(s.data, "", true),
            text,
            |s| s.data(s.error, "", true),
        ],
        &[|s| s.reset(s.data), text, |s| s.reset(s.error)],
        // The error stream never ends.
        &[text, |s| s.pass(limits::FORWARD_VERDICT)],
        &[
            |s| s.reset(s.data),
            text,
            |s| s.pass(limits::FORWARD_VERDICT),
        ],
    ];
    for (n, script) in scripts.into_iter().enumerate() {
        let mut scripted = Scripted::new();
        for step in script {
            step(&mut scripted);
        }
        let error = scripted.closed().expect("it is over").unwrap_err();
        assert_eq!(error, "port-forward to port 80: went wrong", "script {n}");
        assert!(!scripted.client.seen[&scripted.id].finished, "script {n}");
        scripted.client.session.release(scripted.id);
        let Of::Spdy(spdy) = &scripted.client.session else {
            panic!();
        };
        assert!(spdy.mux.is_empty(), "script {n}: {:?}", spdy.mux);
    }
}

#[test]
fn a_reset_without_a_text_is_said_to_be_one() {
    let mut scripted = Scripted::new();
    scripted.reset(scripted.data);
    assert_eq!(scripted.closed(), None);
    scripted.pass(limits::FORWARD_VERDICT);
    let error = scripted.closed().unwrap().unwrap_err();
    assert!(error.contains("reset by the other end (CANCEL)"), "{error}");
    // The error stream, which the server left open, is given up.
    assert!(matches!(
        &scripted.sent()[..],
        [Frame::RstStream(RstStream { stream, .. })] if *stream == scripted.error
    ));
}

#[test]
fn the_opening_frames_are_kubectls() {
    let now = Instant::now();
    let mut client = End::spdy(Role::Client, ForwardConfig::default(), now);
    let id = client.session.open(now, 18080).unwrap();
    client.write(now, id, b"GET /");
    let mut bytes = BytesMut::new();
    while let Some(transmit) = client.session.poll_transmit() {
        assert_eq!((transmit.opcode, transmit.prefix), (Opcode::Binary, None));
        bytes.extend_from_slice(&transmit.payload);
    }
    let mut bytes = bytes.freeze();
    let mut reader = HeaderReader::new();
    let mut syn = |frame, kind| {
        let Some(Frame::SynStream(SynStream {
            stream,
            associated: None,
            priority: 0,
            fin: false,
            unidirectional: false,
            block,
        })) = frame
        else {
            panic!("{frame:?}");
        };
        let headers = reader.read(&block).unwrap();
        let values = ["streamtype", "port", "requestid"].map(|name| headers.get(name));
        assert_eq!(values, [Some(kind), Some("18080"), Some("0")]);
        stream.get()
    };
    let mut next = || Frame::parse(&mut bytes).unwrap();
    let order = [next(), next(), next(), next()];
    let [error, data, fin, payload] = order;
    assert_eq!(syn(error, "error"), 1);
    assert_eq!(syn(data, "data"), 3);
    let end = |stream, payload, fin| {
        let stream = StreamId::new(stream).unwrap();
        Some(Frame::Data(Data {
            stream,
            payload: Bytes::from_static(payload),
            fin,
        }))
    };
    assert_eq!(fin, end(1, b"", true));
    assert_eq!(payload, end(3, b"GET /", false));
    assert_eq!(next(), None);
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

/// A server with a peer made of single frames.
fn serve(headers: &[Headers]) -> (End, Vec<Frame>) {
    let now = Instant::now();
    let mut server = End::spdy(Role::Server, ForwardConfig::default(), now);
    let mut writer = HeaderWriter::new();
    for (n, headers) in (0..).zip(headers) {
        let frame = SynStream {
            stream: StreamId::new(2 * n + 1).unwrap(),
            associated: None,
            priority: 0,
            fin: false,
            unidirectional: false,
            block: writer.write(headers).unwrap(),
        };
        let mut bytes = BytesMut::new();
        frame.encode(&mut bytes);
        let message = Message::Binary(bytes.freeze());
        server.session.handle_message(now, message);
        server.settle();
    }
    let frames = sent(&mut server);
    (server, frames)
}

fn sent(end: &mut End) -> Vec<Frame> {
    let mut bytes = BytesMut::new();
    while let Some(transmit) = end.session.poll_transmit() {
        bytes.extend_from_slice(&transmit.payload);
    }
    let mut bytes = bytes.freeze();
    std::iter::from_fn(|| Frame::parse(&mut bytes).unwrap()).collect()
}

fn headers(kind: &'static str, port: &'static str, request: Option<&'static str>) -> Headers {
    let headers = Headers::new().with("streamtype", kind).with("port", port);
    match request {
        Some(request) => headers.with("requestid", request),
        None => headers,
    }
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
fn streams_are_paired_by_their_request_in_either_order() {
    let (server, frames) = serve(&[
        headers("error", "80", Some("a")),
        headers("data", "81", Some("b")),
        headers("data", "80", Some("a")),
        headers("error", "81", Some("b")),
    ]);
    let ports: Vec<_> = server.seen.iter().map(|(id, s)| (id.0, s.port)).collect();
    assert_eq!(ports, [(3, 81), (5, 80)]);
    assert!(matches!(
        frames[..],
        [
            Frame::SynReply(_),
            Frame::SynReply(_),
            Frame::SynReply(_),
            Frame::SynReply(_)
        ]
    ));
}

#[test]
fn clients_without_request_numbers_are_served() {
    let (server, _) = serve(&[
        headers("error", "80", None),
        headers("data", "80", None),
        headers("error", "81", None),
        headers("data", "81", None),
    ]);
    let ports: Vec<_> = server.seen.values().map(|seen| seen.port).collect();
    assert_eq!(ports, [80, 81]);
}

#[test]
fn streams_that_say_nothing_sensible_are_refused_alone() {
    let (server, frames) = serve(&[
        headers("error", "0", Some("a")),
        headers("error", "65536", Some("a")),
        headers("other", "80", Some("a")),
        Headers::new(),
        headers("error", "80", Some("b")),
        headers("error", "80", Some("b")),
        headers("data", "80", Some("b")),
    ]);
    assert_eq!(server.seen.len(), 1);
    let refused = frames
        .iter()
        .filter(|frame| matches!(frame, Frame::RstStream(_)))
        .count();
    assert_eq!((refused, frames.len()), (5, 7));
}

#[test]
fn a_server_keeps_no_long_numbers_of_pairs() {
    let long = |kind| headers(kind, "80", None).with("requestid", "x".repeat(60_000));
    let (server, frames) = serve(&[long("error"), long("data"), long("error")]);
    assert_eq!(server.seen.len(), 0);
    assert!(frames.iter().all(|frame| matches!(
        frame,
        Frame::RstStream(RstStream { status, .. }) if *status == RstStatus::REFUSED_STREAM
    )));
    assert_eq!((frames.len(), server.session.streams()), (3, 0));
}

#[test]
fn an_upload_to_an_application_that_does_not_read_goes_on() {
    let mut pair = Pair::channels(Encoding::Binary, &[80]);
    let id = pair.open(80);
    pair.run();
    pair.client.write(pair.now, id, b"nobody reads this");
    // The server reads nothing more, pings neither.
    for _ in 0..360 {
        pair.pass(10 * SECOND);
        while pair.client.session.poll_transmit().is_some() {}
    }
    assert_eq!(pair.client.seen[&id].closed, None);
    assert!(!pair.client.session.is_ended());
}

#[test]
fn a_stream_whose_other_half_does_not_come_is_given_up() {
    let now = Instant::now();
    let (mut server, _) = serve(&[
        headers("error", "80", Some("a")),
        headers("data", "81", Some("b")),
    ]);
    let due = server.session.poll_timeout().unwrap();
    assert!(due <= now + 31 * SECOND);
    server
        .session
        .handle_timeout(now + limits::FORWARD_PAIR + SECOND);
    server.settle();
    let frames: Vec<Frame> = sent(&mut server)
        .into_iter()
        .filter(|frame| !matches!(frame, Frame::Ping(_)))
        .collect();
    assert!(
        matches!(
            &frames[..],
            [Frame::Data(text), Frame::RstStream(a), Frame::RstStream(b)]
                if text.payload.starts_with(b"timed out") && text.fin
                    && a.stream.get() == 1 && b.stream.get() == 3
        ),
        "{frames:?}"
    );
}

#[test]
fn what_came_before_the_pair_was_whole_is_not_lost() {
    let now = Instant::now();
    let (mut server, _) = serve(&[headers("data", "80", Some("a"))]);
    let mut bytes = BytesMut::new();
    Frame::Data(Data {
        stream: StreamId::new(1).unwrap(),
        payload: "early".into(),
        fin: true,
    })
    .encode(&mut bytes);
    let mut writer = HeaderWriter::new();
    writer.write(&headers("data", "80", Some("a"))).unwrap();
    SynStream {
        stream: StreamId::new(3).unwrap(),
        associated: None,
        priority: 0,
        fin: false,
        unidirectional: false,
        block: writer.write(&headers("error", "80", Some("a"))).unwrap(),
    }
    .encode(&mut bytes);
    server
        .session
        .handle_message(now, Message::Binary(bytes.freeze()));
    server.settle();
    let seen = &server.seen[&ConnectionId(1)];
    assert_eq!((&seen.bytes[..], seen.finished), (&b"early"[..], true));
}

#[test]
fn channels_carry_each_port_and_end_together() {
    for encoding in [Encoding::Binary, Encoding::Base64] {
        let mut pair = Pair::channels(encoding, &[80, 443]);
        let web = pair.open(80);
        assert_eq!(
            pair.client.session.open(pair.now, 80),
            Err(OpenError::Exhausted)
        );
        pair.run();
        let tls = pair.open(443);
        assert_eq!(
            pair.client.session.open(pair.now, 443),
            Err(OpenError::Exhausted)
        );
        pair.client.write(pair.now, web, b"GET /");
        pair.client.write(pair.now, tls, &vec![22; 200_000]);
        pair.run();
        assert!(pair.client.seen[&web].accepted && pair.client.seen[&tls].accepted);
        assert_eq!(pair.server.seen[&web].bytes, b"GET /");
        assert_eq!(pair.server.seen[&tls].bytes, vec![22; 200_000]);
        assert!(pair.client.session.finish(pair.now, web).is_err());
        pair.server.write(pair.now, web, b"200");
        pair.server.finish(pair.now, web);
        pair.run();
        assert_eq!(pair.client.seen[&web].closed, None, "nothing says so yet");
        pair.server.session.fail(tls, "no route");
        pair.run();
        assert_eq!(pair.client.seen[&web].bytes, b"200");
        assert_eq!(pair.client.seen[&web].closed, Some(Ok(())));
        assert!(matches!(&pair.client.seen[&tls].closed, Some(Err(e)) if e.contains("no route")));
        assert_eq!(pair.client.others, ["writable", "ended: Ok(())"]);
        assert!(pair.server.session.is_ended());
        pair.assert_nothing_left();
    }
}

#[test]
fn a_refused_port_fails_while_the_other_goes_on() {
    let mut pair = Pair::channels(Encoding::Binary, &[80, 81]);
    let (good, bad) = (pair.open(80), pair.open(81));
    pair.run();
    pair.server.session.fail(bad, "connection refused");
    pair.run();
    pair.pass(limits::FORWARD_VERDICT);
    assert!(matches!(pair.client.seen[&bad].closed, Some(Err(_))));
    pair.server.write(pair.now, good, b"fine");
    pair.run();
    assert_eq!(pair.client.seen[&good].bytes, b"fine");
    pair.client.session.release(good);
    pair.run();
    assert_eq!(pair.client.session.poll_timeout(), None);
    assert!(pair.client.session.is_ended());
    assert!(matches!(pair.server.seen[&good].closed, Some(Err(_))));
}

#[test]
fn channels_refuse_what_no_server_sends() {
    let cases: [(&'static [u8], &str); 3] = [
        (b"\x00\x51\x00", "announced as port 81"),
        (b"\x04\x50\x00", "channel 4"),
        (b"\xff", "channel 255"),
    ];
    for (message, expected) in cases {
        let now = Instant::now();
        let mut client = End::channels(Role::Client, Encoding::Binary, &[80, 81], now);
        client
            .session
            .handle_message(now, Message::Binary(Bytes::from_static(message)));
        client.settle();
        assert!(client.others[0].contains(expected), "{:?}", client.others);
    }
    let now = Instant::now();
    let mut server = End::channels(Role::Server, Encoding::Binary, &[80], now);
    server
        .session
        .handle_message(now, Message::Binary(Bytes::from_static(b"\x01")));
    server.settle();
    assert!(matches!(
        server.session,
        Of::Channels(ref channels) if channels.is_ended()
    ));
    let config = ForwardConfig::default;
    let count = |ports: usize, encoding| {
        Channels::new(Role::Client, encoding, &vec![1; ports], config(), now).is_ok()
    };
    assert!(!count(0, Encoding::Binary));
    assert!(count(127, Encoding::Binary) && !count(128, Encoding::Binary));
    assert!(count(39, Encoding::Base64) && !count(40, Encoding::Base64));
}

#[test]
fn a_full_channel_holds_the_rest_back_until_its_reader_is_given_up() {
    let mut pair = Pair::channels(Encoding::Binary, &[80, 81]);
    let (slow, other) = (pair.open(80), pair.open(81));
    pair.client.unread.push(slow);
    pair.run();
    pair.server
        .write(pair.now, slow, &vec![0; limits::FORWARD_RECEIVE]);
    pair.run();
    assert!(pair.client.session.wants_hold());
    let due = pair.client.session.poll_timeout().unwrap();
    assert_eq!(due, pair.now + limits::FORWARD_PATIENCE);
    pair.pass(limits::FORWARD_PATIENCE);
    assert!(matches!(pair.client.seen[&slow].closed, Some(Err(_))));
    assert!(!pair.client.session.wants_hold());
    pair.server.write(pair.now, other, b"moves");
    pair.run();
    assert_eq!(pair.client.seen[&other].bytes, b"moves");
}

#[test]
fn a_silent_channel_server_is_noticed() {
    let mut pair = Pair::channels(Encoding::Binary, &[80]);
    let id = pair.open(80);
    pair.run();
    for _ in 0..8 {
        pair.pass(10 * SECOND);
        while pair.client.session.poll_transmit().is_some() {}
    }
    let error = pair.client.seen[&id].closed.clone().unwrap().unwrap_err();
    assert!(error.contains("silent"), "{error}");
}

/// The bytes of one direction of a capture, after its HTTP head.
fn captured(name: &str, from: &str) -> Vec<u8> {
    let path = format!("{}/tests/captures/{name}.jsonl", env!("CARGO_MANIFEST_DIR"));
    let capture = std::fs::read_to_string(path).unwrap();
    let mut bytes = Vec::new();
    for line in capture.lines().skip(1) {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        if line["from"] == from
            && let Some(base64) = line["b64"].as_str()
        {
            bytes.extend(BASE64_STANDARD.decode(base64).unwrap());
        }
    }
    let end = b"\r\n\r\n";
    let head = bytes.windows(4).position(|window| window == end).unwrap();
    bytes.split_off(head + 4)
}

/// Gives each message of a capture's direction, whose bytes arrive in two pieces.
fn decode(bytes: &[u8], from: &str, cut: usize, mut take: impl FnMut(Message)) {
    let role = match from {
        "server" => Role::Client,
        _ => Role::Server,
    };
    let mut decoder = Decoder::new(role, limits::MESSAGE);
    let mut input = BytesMut::new();
    for piece in [&bytes[..cut], &bytes[cut..]] {
        input.extend_from_slice(piece);
        while let Some(message) = decoder.decode(&mut input).unwrap() {
            take(message);
        }
    }
    assert!(input.is_empty());
}

/// The bytes that go over the SPDY connection of a capture in one direction.
fn captured_stream(from: &str) -> Bytes {
    let bytes = captured("portforward-spdy", from);
    let stream = |cut| {
        let mut stream = BytesMut::new();
        decode(&bytes, from, cut, |message| match message {
            Message::Binary(bytes) => stream.extend_from_slice(&bytes),
            other => panic!("{other:?}"),
        });
        stream.freeze()
    };
    let whole = stream(0);
    for cut in 0..bytes.len() {
        assert_eq!(stream(cut), whole, "cut at {cut}");
    }
    whole
}

fn two(stream: &Bytes, cut: usize) -> [Bytes; 2] {
    [stream.slice(..cut), stream.slice(cut..)]
}

#[test]
fn kubectl_is_served_as_captured_at_every_split() {
    let stream = captured_stream("client");
    let request = b"GET / HTTP/1.1\r\nHost: 127.0.0.1:28080\r\nUser-Agent: curl/7.88.1\r\nAccept: */*\r\n\r\n";
    for cut in 0..=stream.len() {
        let now = Instant::now();
        let mut server = End::spdy(Role::Server, ForwardConfig::default(), now);
        for piece in two(&stream, cut) {
            server.session.handle_message(now, Message::Binary(piece));
            server.settle();
        }
        let seen = |id| &server.seen[&ConnectionId(id)];
        for id in [3, 7] {
            assert_eq!(seen(id).port, 18080, "cut at {cut}");
            assert_eq!(seen(id).bytes, request, "cut at {cut}");
            assert!(seen(id).finished);
            assert_eq!(seen(id).closed, None);
        }
        assert_eq!((server.seen.len(), server.others.len()), (2, 0));
    }
}

#[test]
fn the_kubelet_is_understood_as_captured_at_every_split() {
    let stream = captured_stream("server");
    for cut in 0..=stream.len() {
        let now = Instant::now();
        let mut client = End::spdy(Role::Client, ForwardConfig::default(), now);
        let ids = [(); 2].map(|()| {
            let id = client.session.open(now, 18080).unwrap();
            client.finish(now, id);
            id
        });
        while client.session.poll_transmit().is_some() {}
        for piece in two(&stream, cut) {
            client.session.handle_message(now, Message::Binary(piece));
            client.settle();
        }
        for id in ids {
            let seen = &client.seen[&id];
            assert!(seen.bytes.ends_with(b"\r\n\r\nhello-web\n"), "cut at {cut}");
            assert!(seen.bytes.starts_with(b"HTTP/1.1 200 OK\r\n"));
            assert!(seen.accepted && seen.finished);
            assert_eq!(seen.closed, Some(Ok(())), "cut at {cut}");
        }
        assert!(client.session.is_empty());
        let Of::Spdy(spdy) = &client.session else {
            panic!();
        };
        assert!(spdy.mux.is_empty());
    }
}

#[test]
fn the_kubelets_channels_are_understood_as_captured_at_every_split() {
    let bytes = captured("portforward-v4", "server");
    for cut in 0..=bytes.len() {
        let now = Instant::now();
        let mut client = End::channels(Role::Client, Encoding::Binary, &[18080, 18081], now);
        let web = client.session.open(now, 18080).unwrap();
        let refused = client.session.open(now, 18081).unwrap();
        decode(&bytes, "server", cut, |message| {
            client.session.handle_message(now, message);
            client.settle();
        });
        assert!(client.seen[&web].bytes.starts_with(b"HTTP/1.1 200 OK\r\n"));
        assert!(client.seen[&web].bytes.ends_with(b"hello-web\n"));
        assert!(client.seen[&web].accepted, "cut at {cut}");
        assert_eq!(client.seen[&web].closed, Some(Ok(())));
        let error = client.seen[&refused].closed.clone().unwrap().unwrap_err();
        assert!(error.contains("connect: connection refused"), "{error}");
        assert_eq!(client.others, ["ended: Ok(())"]);
    }
}

#[test]
fn a_client_of_channels_is_served_as_captured_at_every_split() {
    let bytes = captured("portforward-v4", "client");
    for cut in 0..=bytes.len() {
        let now = Instant::now();
        let mut server = End::channels(Role::Server, Encoding::Binary, &[18080, 18081], now);
        decode(&bytes, "client", cut, |message| {
            server.session.handle_message(now, message);
            server.settle();
        });
        let seen: Vec<&Seen> = server.seen.values().collect();
        assert_eq!(
            seen.iter().map(|s| s.port).collect::<Vec<_>>(),
            [18080, 18081]
        );
        assert!(seen[0].bytes.starts_with(b"GET "), "cut at {cut}");
        assert!(seen[0].bytes.ends_with(b"\r\n\r\n"), "cut at {cut}");
        assert_eq!(seen[1].bytes, b"x", "cut at {cut}");
        assert!(server.session.is_ended());
    }
}

#[derive(Debug, Clone, Copy)]
enum Step {
    ClientWrites,
    ServerWrites,
    ClientFinishes,
    ServerFinishes,
    ServerFails,
    ClientReleases,
    ClientDetaches,
    ServerReleases,
    ToServer,
    ToClient,
    Waits,
}

fn step() -> impl Strategy<Value = Step> {
    use Step::*;
    prop::sample::select(vec![
        ClientWrites,
        ServerWrites,
        ClientFinishes,
        ServerFinishes,
        ServerFails,
        ClientReleases,
        ClientDetaches,
        ServerReleases,
        ToServer,
        ToClient,
        Waits,
    ])
}

fn take(pair: &mut Pair, step: Step, id: ConnectionId) {
    let now = pair.now;
    let known = pair.server.seen.contains_key(&id);
    match step {
        // A write to what is over is refused, which is as good.
        Step::ClientWrites => drop(pair.client.session.write(now, id, "request".into())),
        Step::ServerWrites if known => drop(pair.server.session.write(now, id, "answer".into())),
        Step::ClientFinishes => pair.client.finish(now, id),
        Step::ServerFinishes if known => pair.server.finish(now, id),
        Step::ServerFails if known => pair.server.session.fail(id, "failed"),
        Step::ClientReleases => pair.client.session.release(id),
        Step::ClientDetaches => pair.client.session.detach(now, id),
        Step::ServerReleases if known => pair.server.session.release(id),
        Step::ToServer => drop(pair.step(true)),
        Step::ToClient => drop(pair.step(false)),
        Step::Waits => pair.pass(limits::FORWARD_VERDICT),
        _ => {}
    }
}

#[test]
fn ten_thousand_connections_in_every_order_leave_nothing() {
    use Step::*;
    let ends = [
        ClientFinishes,
        ServerFinishes,
        ServerFails,
        ClientReleases,
        ClientDetaches,
        ServerReleases,
        ToServer,
        ToClient,
        Waits,
    ];
    let mut pair = Pair::spdy_with(ForwardConfig::default(), vec![1000, 300]);
    for n in 0..10_000usize {
        let id = pair.open(80);
        take(&mut pair, ClientWrites, id);
        if n % 5 != 0 {
            pair.run();
        }
        take(&mut pair, ServerWrites, id);
        let mut order = n;
        for _ in 0..5 {
            take(&mut pair, ends[order % ends.len()], id);
            order /= ends.len();
        }
        // In the end each side lets go, which the other side may or may not have seen coming.
        pair.run();
        pair.client.session.release(id);
        pair.run();
        pair.server.session.release(id);
        pair.run();
        pair.client.seen.clear();
        pair.server.seen.clear();
    }
    pair.assert_nothing_left();
    assert!(pair.client.others.is_empty() && pair.server.others.is_empty());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// Whatever happens to one connection, the other carries its bytes and ends well.
    #[test]
    fn connections_do_not_disturb_each_other(
        steps in prop::collection::vec(step(), 0..25),
        cuts in prop::collection::vec(1..100usize, 1..5),
        payload in prop::collection::vec(any::<u8>(), 0..5000),
    ) {
        let mut pair = Pair::spdy_with(ForwardConfig::default(), cuts);
        let (troubled, sound) = (pair.open(1), pair.open(2));
        for step in steps {
            take(&mut pair, step, troubled);
        }
        pair.client.write(pair.now, sound, &payload);
        pair.client.finish(pair.now, sound);
        pair.run();
        prop_assert_eq!(&pair.server.seen[&sound].bytes, &payload);
        pair.server.write(pair.now, sound, &payload);
        pair.server.finish(pair.now, sound);
        pair.run();
        prop_assert_eq!(&pair.client.seen[&sound].bytes, &payload);
        prop_assert_eq!(&pair.client.seen[&sound].closed, &Some(Ok(())));
        prop_assert_eq!(&pair.server.seen[&sound].closed, &Some(Ok(())));
        pair.client.session.release(troubled);
        pair.run();
        pair.server.session.release(troubled);
        pair.run();
        pair.assert_nothing_left();
    }

    /// No messages make a session panic, in either protocol and role.
    #[test]
    fn no_messages_make_it_panic(
        messages in prop::collection::vec((0..4u8, prop::collection::vec(any::<u8>(), 0..30)), 0..20),
        server: bool,
        kind in 0..3u8,
    ) {
        let now = Instant::now();
        let role = if server { Role::Server } else { Role::Client };
        let mut end = match kind {
            0 => End::spdy(role, ForwardConfig::default(), now),
            1 => End::channels(role, Encoding::Binary, &[1, 2], now),
            _ => End::channels(role, Encoding::Base64, &[1, 2], now),
        };
        if role == Role::Client {
            end.session.open(now, 1).unwrap();
        }
        for (n, (kind, bytes)) in messages.into_iter().enumerate() {
            let bytes = Bytes::from(bytes);
            let message = match kind {
                0 => Message::Text(bytes),
                1 => Message::Ping(bytes),
                _ => Message::Binary(bytes),
            };
            end.session.handle_message(now, message);
            end.settle();
            end.session.handle_timeout(now + n as u32 * SECOND);
            end.settle();
            while end.session.poll_transmit().is_some() {}
        }
        end.session.handle_end(None);
        end.settle();
        prop_assert!(end.session.is_ended() && end.session.is_empty());
        prop_assert_eq!(end.session.poll_timeout(), None);
    }
}

#[test]
fn errors_name_who_is_to_blame() {
    let error = refused(80, b" connection refused\n");
    let Error::Api(api) = &error else { panic!() };
    assert_eq!(api.status.message, "connection refused");
}

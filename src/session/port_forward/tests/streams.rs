//! The streams of SPDY that make a connection, frame by frame.

use std::time::Duration;

use super::*;
use crate::wire::spdy::{HeaderReader, SynReply, SynStream};

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
        Self::accepted(&[1, 3])
    }

    /// After the server has accepted some streams of the two.
    fn accepted(streams: &[u32]) -> Self {
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
        for stream in streams {
            let block = scripted.writer.write(&Headers::new()).unwrap();
            scripted.send(Frame::SynReply(SynReply {
                stream: StreamId::new(*stream).unwrap(),
                fin: false,
                block,
            }));
        }
        frames(&mut scripted.client);
        scripted
    }

    fn send(&mut self, frame: Frame) {
        hand_in(&mut self.client, self.now, &frame);
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
        &frames(&mut scripted.client)[..],
        [Frame::RstStream(RstStream { stream, .. })] if *stream == scripted.error
    ));
}

#[test]
fn a_connection_of_which_half_is_not_accepted_in_time_is_over() {
    for accepted in [&[1][..], &[3], &[]] {
        let mut scripted = Scripted::accepted(accepted);
        scripted.pass(limits::FORWARD_REPLY);
        scripted.pass(limits::FORWARD_VERDICT);
        let closed = scripted.closed().expect("it is over");
        let error = closed.expect_err("nobody answers");
        let expected = "opening a forwarded connection did not finish within 30 s";
        assert_eq!(error, expected, "{accepted:?}");
    }
}

#[test]
fn the_opening_frames_are_kubectls() {
    let now = Instant::now();
    let mut client = End::spdy(Role::Client, ForwardConfig::default(), now);
    let id = client.session.open(now, 18080).unwrap();
    client.write(now, id, b"GET /");
    let mut sent = frames(&mut client).into_iter();
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
    let order = [(); 4].map(|()| sent.next());
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
    assert_eq!(sent.next(), None);
}

/// A server with a peer made of single frames.
fn serve(headers: &[Headers]) -> (End, Vec<Frame>) {
    let now = Instant::now();
    let mut server = End::spdy(Role::Server, ForwardConfig::default(), now);
    let mut writer = HeaderWriter::new();
    for (n, headers) in (0..).zip(headers) {
        hand_in(&mut server, now, &syn(&mut writer, 2 * n + 1, headers));
    }
    let sent = frames(&mut server);
    (server, sent)
}

fn headers(kind: &'static str, port: &'static str, request: Option<&'static str>) -> Headers {
    let headers = Headers::new().with("streamtype", kind).with("port", port);
    match request {
        Some(request) => headers.with("requestid", request),
        None => headers,
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
    let long = |kind| headers(kind, "80", None).with("requestid", "x".repeat(6_000));
    let (server, frames) = serve(&[long("error"), long("data"), long("error")]);
    assert_eq!(server.seen.len(), 0);
    assert!(frames.iter().all(|frame| matches!(
        frame,
        Frame::RstStream(RstStream { status, .. }) if *status == RstStatus::REFUSED_STREAM
    )));
    assert_eq!((frames.len(), server.session.streams()), (3, 0));
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
    let frames: Vec<Frame> = frames(&mut server)
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
    let early = Frame::Data(Data {
        stream: StreamId::new(1).unwrap(),
        payload: "early".into(),
        fin: true,
    });
    hand_in(&mut server, now, &early);
    let mut writer = HeaderWriter::new();
    writer.write(&headers("data", "80", Some("a"))).unwrap();
    let error = headers("error", "80", Some("a"));
    hand_in(&mut server, now, &syn(&mut writer, 3, &error));
    let seen = &server.seen[&ConnectionId(1)];
    assert_eq!((&seen.bytes[..], seen.finished), (&b"early"[..], true));
}

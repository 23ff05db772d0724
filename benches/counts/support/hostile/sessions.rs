//! The sessions, whose transmissions nobody takes: a peer that floods does not read.

use std::{hint::black_box, time::Instant};

use bytes::{Bytes, BytesMut};
use kubewire::{
    KeepaliveConfig, Role,
    exec::{Streams, Subprotocol},
    limits,
    session::{
        Exchange, Head, Message, Messages, RemoteCommand, Session,
        logs::{LogConfig, Logs},
        port_forward::{Channels, ConnectionId, ForwardConfig, ForwardEvent, PortForward, Spdy},
        watch::{Watch, WatchConfig},
    },
    wire::{
        channel::Encoding as ChannelEncoding,
        spdy::{HeaderWriter, Headers, RstStatus, RstStream, StreamId, SynStream},
        watch::Encoding,
    },
};

use super::{Pieces, Row};

pub(super) fn rows() -> Vec<Row> {
    let mut rows = remote_commands();
    rows.extend(tunnels());
    rows.extend(forwards());
    rows.extend(requests());
    rows
}

const STREAMS: Streams = Streams {
    stdin: true,
    stdout: true,
    stderr: true,
    tty: false,
};

type Input<'a> = &'a mut dyn Iterator<Item = Bytes>;

/// Hands a session its messages until it has ended.
fn hand_in<S: Session>(mut session: S, input: Input<'_>, message: fn(Bytes) -> Message) {
    let now = Instant::now();
    for piece in input {
        session.handle_message(now, message(piece));
        while let Some(event) = session.poll_event() {
            drop(black_box(event));
        }
        if session.is_ended() {
            return;
        }
    }
}

fn remote_commands() -> Vec<Row> {
    let row = |of, input_is, role, protocol, message: fn(Bytes) -> Message, again: &[u8]| {
        let piece = again.len();
        Row::new(of, input_is, b"", again, piece, move |input| {
            let (keepalive, now) = (KeepaliveConfig::default(), Instant::now());
            let session = RemoteCommand::new(role, protocol, STREAMS, keepalive, now);
            hand_in(session, input, message);
        })
    };
    let client = |input_is, protocol, message, again: &[u8]| {
        row(
            "exec, client",
            input_is,
            Role::Client,
            protocol,
            message,
            again,
        )
    };
    let server = |input_is, message, again: &[u8]| {
        row(
            "exec, server",
            input_is,
            Role::Server,
            Subprotocol::V5,
            message,
            again,
        )
    };
    vec![
        client(
            "output of a byte",
            Subprotocol::V5,
            Message::Binary,
            b"\x01a",
        ),
        client(
            "output of nothing",
            Subprotocol::V5,
            Message::Binary,
            b"\x01",
        ),
        client(
            "output of a byte, base64",
            Subprotocol::V4Base64,
            Message::Text,
            b"1YQ==",
        ),
        client("pings", Subprotocol::V5, Message::Ping, b"ping"),
        client("pongs", Subprotocol::V5, Message::Pong, b"pong"),
        client(
            "a Status without end",
            Subprotocol::V4,
            Message::Binary,
            b"\x03{",
        )
        .within(1 << 20),
        server("input of a byte", Message::Binary, b"\x00a"),
        server("terminal sizes", Message::Binary, b"\x04{}"),
        server(
            "a terminal size a brace at a time",
            Message::Binary,
            b"\x04{",
        ),
        server("ends of the input", Message::Binary, b"\xff\x00"),
        server("pings", Message::Ping, b"ping"),
        Row::new("messages, client", "of a byte", b"", b"x", 1, |input| {
            let session = Messages::new(Role::Client, KeepaliveConfig::default(), Instant::now());
            hand_in(session, input, Message::Text);
        }),
    ]
}

/// Hands a tunnel its messages until it has ended, or wants no more before something is read.
fn tunnel<S: PortForward>(mut session: S, input: Input<'_>, reads: bool) {
    let now = Instant::now();
    let drain = |session: &mut S| {
        while let Some(event) = session.poll_event() {
            match event {
                ForwardEvent::Readable(id) if reads => while session.read(id).is_some() {},
                other => drop(black_box(other)),
            }
        }
    };
    for piece in input {
        session.handle_message(now, Message::Binary(piece));
        drain(&mut session);
        if session.is_ended() || session.wants_hold() {
            return;
        }
    }
}

/// Connections of a client, opened and, if so, reset at once, in messages of 16 KiB.
fn opened(size: usize, reset: bool, long: usize) -> Pieces {
    let mut writer = HeaderWriter::new();
    let (mut message, mut messages, mut total) = (BytesMut::new(), Vec::new(), 0);
    for at in 0_u32.. {
        for (nth, kind) in [(1, "error"), (3, "data")] {
            let request = format!("{at:0long$}");
            let headers = Headers::new().with("streamtype", kind).with("port", "80");
            SynStream {
                stream: StreamId::new(4 * at + nth).unwrap(),
                associated: None,
                priority: 0,
                fin: false,
                unidirectional: false,
                block: writer.write(&headers.with("requestid", request)).unwrap(),
            }
            .encode(&mut message);
        }
        for nth in [3, 1].into_iter().filter(|_| reset) {
            let stream = StreamId::new(4 * at + nth).unwrap();
            RstStream {
                stream,
                status: RstStatus::CANCEL,
            }
            .encode(&mut message);
        }
        if message.len() > 16 << 10 || total + message.len() >= size {
            total += message.len();
            messages.push(message.split().freeze());
        }
        if total >= size {
            break;
        }
    }
    Box::new(messages.into_iter())
}

fn tunnels() -> Vec<Row> {
    let row = |of, input_is, role, again: &[u8]| {
        Row::new(of, input_is, b"", again, 64 * again.len(), move |input| {
            let mut session = Spdy::new(role, ForwardConfig::default(), Instant::now());
            if role == Role::Client {
                session.open(Instant::now(), 80).unwrap();
            }
            tunnel(session, input, true);
        })
        .within(512 << 10)
    };
    let client =
        |input_is, again: &[u8]| row("port-forward, client", input_is, Role::Client, again);
    let server =
        |input_is, again: &[u8]| row("port-forward, server", input_is, Role::Server, again);
    // What waits for a peer that does not read, and what each of 4,096 streams costs.
    let (owed, streams) = (4 << 20, 8 << 20);
    let unread = Row::new(
        "port-forward, client",
        "data that nobody reads",
        b"",
        b"\x00\x00\x00\x03\x00\x00\x00\x01x",
        64 * 9,
        |input| {
            let mut session = Spdy::new(Role::Client, ForwardConfig::default(), Instant::now());
            session.open(Instant::now(), 80).unwrap();
            tunnel(session, input, false);
        },
    );
    vec![
        client("data of a byte", b"\x00\x00\x00\x03\x00\x00\x00\x01x"),
        client("data of nothing", b"\x00\x00\x00\x03\x00\x00\x00\x00"),
        client("data of no stream", b"\x00\x00\x10\x01\x00\x00\x00\x01x").within(owed),
        client(
            "text of a failure, without end",
            b"\x00\x00\x00\x01\x00\x00\x00\x01x",
        ),
        client("pings", b"\x80\x03\x00\x06\x00\x00\x00\x04\x00\x00\x00\x02").within(owed),
        client("unknown frames", b"\x80\x03\x00\x63\x00\x00\x00\x00"),
        client(
            "resets of no stream",
            b"\x80\x03\x00\x03\x00\x00\x00\x08\x00\x00\x10\x01\x00\x00\x00\x05",
        ),
        unread.within(limits::FORWARD_RECEIVE_TOTAL),
        server("pings", b"\x80\x03\x00\x06\x00\x00\x00\x04\x00\x00\x00\x01").within(owed),
        server("connections", b"x")
            .made_of(|size| opened(size, false, 0))
            .within(streams),
        server("connections of long numbers", b"x")
            .made_of(|size| opened(size, false, 250))
            .within(streams),
        server("connections that are reset", b"x")
            .made_of(|size| opened(size, true, 0))
            .within(owed),
    ]
}

fn forwards() -> Vec<Row> {
    let row = |of, input_is, role, again: &[u8]| {
        Row::new(
            of,
            input_is,
            b"\x00\x50\x00\x01\x50\x00",
            again,
            3,
            move |input| {
                let (config, now) = (ForwardConfig::default(), Instant::now());
                let session = Channels::new(role, ChannelEncoding::Binary, &[80], config, now);
                let mut session = session.unwrap();
                let _: Option<ConnectionId> = session.open(now, 80).ok();
                tunnel(session, input, true);
            },
        )
    };
    vec![
        row(
            "port-forward by channels, client",
            "data",
            Role::Client,
            b"\x00ab",
        ),
        row(
            "port-forward by channels, client",
            "text of a failure",
            Role::Client,
            b"\x01ab",
        ),
    ]
}

/// Answers a session's first request with this body.
fn answer<S: Exchange>(mut session: S, content_type: &str, input: Input<'_>) {
    let now = Instant::now();
    assert!(session.poll_request(now).is_some());
    let content_type = Some(content_type);
    session.handle_head(
        now,
        Head {
            status: 200,
            content_type,
            retry_after: None,
            hint: None,
        },
    );
    for piece in input {
        if !session.wants_response() {
            return;
        }
        session.handle_body(now, piece);
        while let Some(update) = session.poll_update() {
            drop(black_box(update));
        }
    }
}

fn requests() -> Vec<Row> {
    let watch = |input_is, encoding, list: bool, start: &[u8], again: &[u8]| {
        Row::new("watch", input_is, start, again, 64, move |input| {
            let config = WatchConfig {
                encoding,
                watch_list: !list,
                ..WatchConfig::default()
            };
            let content_type = match encoding {
                Encoding::Cbor => "application/cbor-seq",
                Encoding::Protobuf => "application/vnd.kubernetes.protobuf;stream=watch",
                _ => "application/json",
            };
            answer(Watch::new(config, Instant::now(), 1), content_type, input);
        })
    };
    let json = |input_is, again: &[u8]| watch(input_is, Encoding::Json, false, b"", again);
    let logs = |input_is, start: &[u8], again: &[u8]| {
        let row = Row::new("logs", input_is, start, again, 64, |input| {
            let config = LogConfig::default();
            answer(Logs::new(config, Instant::now(), 1), "text/plain", input);
        });
        // A line comes in pieces of no more than this.
        row.within(2 * limits::LOG_LINE + (64 << 10))
    };
    vec![
        json(
            "small events",
            br#"{"type":"ADDED","object":{"metadata":{"name":"a","resourceVersion":"1"}}}"#,
        ),
        json(
            "bookmarks",
            br#"{"type":"BOOKMARK","object":{"metadata":{"resourceVersion":"1"}}}"#,
        ),
        json("errors", br#"{"type":"ERROR","object":{}}"#),
        json("space", b" \n"),
        watch(
            "a list of small items",
            Encoding::Json,
            true,
            br#"{"kind":"PodList","metadata":{"resourceVersion":"1"},"items":[{}"#,
            b",{}",
        ),
        watch(
            "protobuf: empty events",
            Encoding::Protobuf,
            false,
            b"",
            b"\x00\x00\x00\x00",
        ),
        watch("CBOR: empty maps", Encoding::Cbor, false, b"", b"\xa0"),
        logs("lines of a byte", b"", b"2026-11-22T01:55:55Z a\n"),
        logs("a line without end", b"2026-11-22T01:55:55Z ", b"a"),
        logs("lines without a stamp", b"", b"a\n"),
        logs(
            "stamps that go back",
            b"",
            b"2026-11-22T01:55:55Z a\n2026-11-21T01:55:55Z a\n",
        ),
        logs("nothing but newlines", b"", b"\n"),
    ]
}

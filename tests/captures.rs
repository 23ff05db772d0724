//! Real sessions, replayed: in flow the bytes of `tests/captures`, recorded from kube-apiserver
//! 1.36.2 and its kubelet over containerd, out come the same events however the bytes are cut.

use std::{io, path::Path, sync::Arc, time::Instant};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use bytes::BytesMut;
use kubewire::{
    Error, KeepaliveConfig, Role,
    error::{ApiError, Hint, NetworkError},
    exec::{Streams, Subprotocol, TerminalSize},
    limits,
    session::{RemoteCommand, Session, remote_command::RemoteCommandEvent},
    wire::{
        channel::Channel,
        status::Status,
        websocket::{Decoder, FrameHeader, Message},
    },
};

/// One recorded connection.
struct Capture {
    name: String,
    client: Vec<u8>,
    server: Vec<u8>,
}

impl Capture {
    fn read(name: &str) -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/captures");
        let path = path.join(format!("{name}.jsonl"));
        let text = std::fs::read_to_string(path).expect("a capture");
        let (mut client, mut server) = (Vec::new(), Vec::new());
        for line in text.lines().skip(1) {
            let line: serde_json::Value = serde_json::from_str(line).expect("JSON");
            if let Some(bytes) = line["b64"].as_str() {
                let bytes = BASE64_STANDARD.decode(bytes).expect("base64");
                match line["from"].as_str() {
                    Some("client") => client.extend(bytes),
                    Some("server") => server.extend(bytes),
                    other => panic!("{other:?}"),
                }
            }
        }
        Self {
            name: name.to_owned(),
            client,
            server,
        }
    }

    /// A direction's HTTP head, and what follows it.
    fn parts(bytes: &[u8]) -> (&str, &[u8]) {
        let at = bytes.windows(4).position(|end| end == b"\r\n\r\n");
        let (head, rest) = bytes.split_at(at.expect("an HTTP head") + 4);
        (std::str::from_utf8(head).expect("text"), rest)
    }

    fn protocol(&self) -> Subprotocol {
        let header = |head: &str| {
            let line = head
                .lines()
                .find_map(|line| line.strip_prefix("Sec-WebSocket-Protocol: "));
            line.expect("a subprotocol").to_owned()
        };
        let (offer, answer) = (
            header(Self::parts(&self.client).0),
            header(Self::parts(&self.server).0),
        );
        let offered: Vec<_> = offer
            .split(", ")
            .filter_map(Subprotocol::from_name)
            .collect();
        Subprotocol::accept(Some(&answer), &offered).expect("it was offered")
    }

    fn session(&self, role: Role, now: Instant) -> RemoteCommand {
        let head = Self::parts(&self.client).0;
        let request = head.lines().next().expect("a request line");
        let streams = Streams {
            stdin: request.contains("stdin=true"),
            stdout: request.contains("stdout=true"),
            stderr: request.contains("stderr=true"),
            tty: request.contains("tty=true"),
        };
        let keepalive = KeepaliveConfig::default();
        RemoteCommand::new(role, self.protocol(), streams, keepalive, now)
    }
}

/// One end, fed with bytes.
struct End {
    session: RemoteCommand,
    decoder: Decoder,
    input: BytesMut,
    events: Vec<RemoteCommandEvent>,
}

impl End {
    fn new(capture: &Capture, role: Role, now: Instant) -> Self {
        Self {
            session: capture.session(role, now),
            decoder: Decoder::new(role, limits::MESSAGE),
            input: BytesMut::new(),
            events: Vec::new(),
        }
    }

    fn feed(&mut self, now: Instant, bytes: &[u8]) {
        self.input.extend_from_slice(bytes);
        self.session.handle_activity(now);
        while let Some(message) = self.decoder.decode(&mut self.input).expect("good frames") {
            self.session.handle_message(now, message);
        }
        self.take();
    }

    fn take(&mut self) {
        self.events
            .extend(std::iter::from_fn(|| self.session.poll_event()));
        while self.session.poll_transmit().is_some() {}
    }

    fn end(&mut self, lost: Option<Error>) {
        self.session.handle_end(lost);
        self.take();
        assert!(self.session.is_ended());
    }

    fn text(&self) -> String {
        format!("{:?}", self.events)
    }

    fn data(&self, wanted: Channel) -> Vec<u8> {
        let mut data = Vec::new();
        for event in &self.events {
            if let RemoteCommandEvent::Data(channel, bytes) = event
                && *channel == wanted
            {
                data.extend_from_slice(bytes);
            }
        }
        data
    }

    fn status(&self) -> Option<&Status> {
        self.events.iter().find_map(|event| match event {
            RemoteCommandEvent::Status(status) => Some(&**status),
            _ => None,
        })
    }

    /// How it ended; nothing follows that.
    fn ended(&self) -> &Result<(), Error> {
        let ends = self
            .events
            .iter()
            .filter(|event| matches!(event, RemoteCommandEvent::Ended(_)));
        assert_eq!(ends.count(), 1);
        match self.events.last() {
            Some(RemoteCommandEvent::Ended(how)) => how,
            other => panic!("{other:?}"),
        }
    }
}

/// Name, stdout, stderr, exit code.
const SESSIONS: [(&str, &str, &str, i32); 12] = [
    ("attach-v5", "ping\n", "", NO_STATUS),
    ("exec-v1-exit3", "out\n", "", 3),
    ("exec-v4-base64", "out\n", "err\n", 3),
    ("exec-v4-exit3", "out\n", "err\n", 3),
    ("exec-v4-stdin", "abcdef", "", 0),
    ("exec-v5-exit3", "out\n", "err\n", 3),
    ("exec-v5-large", LARGE, "", 0),
    ("exec-v5-not-found", "", "", NO_EXIT),
    ("exec-v5-signal", "", "", 137),
    ("exec-v5-stdin-close", "12\n", "", 0),
    ("exec-v5-success", "ok\n", "", 0),
    ("exec-v5-tty-resize", "24 80\r\n43 132\r\n", "", 0),
];

/// The client closed before the server could say anything.
const NO_STATUS: i32 = -1;
/// A status of a failure to start.
const NO_EXIT: i32 = -2;
/// Too long to stand here.
const LARGE: &str = "large";

fn small() -> impl Iterator<Item = &'static str> {
    let names = SESSIONS.iter().map(|session| session.0);
    names.filter(|name| *name != "exec-v5-large")
}

fn lost() -> Error {
    let source = Arc::new(io::Error::from(io::ErrorKind::ConnectionReset));
    NetworkError::Lost(source).into()
}

/// The whole of a direction at once.
fn whole(capture: &Capture, role: Role, now: Instant) -> End {
    let mut end = End::new(capture, role, now);
    let bytes = match role {
        Role::Client => &capture.server,
        Role::Server => &capture.client,
    };
    end.feed(now, Capture::parts(bytes).1);
    end.end(None);
    end
}

#[test]
fn each_session_replays_to_what_happened() {
    let now = Instant::now();
    for (name, stdout, stderr, code) in SESSIONS {
        let capture = Capture::read(name);
        let end = whole(&capture, Role::Client, now);
        let expected = match stdout {
            LARGE => "0123456789\n".repeat(30_000)[..300_000].to_owned(),
            text => text.to_owned(),
        };
        assert_eq!(
            String::from_utf8_lossy(&end.data(Channel::Stdout)),
            expected,
            "{name}"
        );
        assert_eq!(end.data(Channel::Stderr), stderr.as_bytes(), "{name}");
        if code == NO_STATUS {
            assert!(end.status().is_none(), "{name}");
            assert!(
                matches!(
                    end.ended(),
                    Err(Error::Network(NetworkError::ClosedWithoutStatus {
                        code: Some(1000),
                        ..
                    }))
                ),
                "{name}"
            );
            continue;
        }
        let status = end.status().expect("a status");
        let expected = (code != NO_EXIT).then_some(i64::from(code));
        assert_eq!(status.code_of_exit(), expected, "{name}: {status:?}");
        assert!(end.ended().is_ok(), "{name}");
    }
}

#[test]
fn a_program_that_does_not_exist_is_named() {
    let capture = Capture::read("exec-v5-not-found");
    let end = whole(&capture, Role::Client, Instant::now());
    let status = end.status().expect("a status").clone();
    let error = ApiError::new("exec", status);
    assert_eq!(error.hint, Some(Hint::Program("/no/such/program".into())));
}

#[test]
fn every_split_of_the_server_s_bytes_gives_the_same_events() {
    let now = Instant::now();
    for name in small() {
        let capture = Capture::read(name);
        let bytes = Capture::parts(&capture.server).1;
        let expected = whole(&capture, Role::Client, now).text();
        for at in 0..=bytes.len() {
            let mut end = End::new(&capture, Role::Client, now);
            end.feed(now, &bytes[..at]);
            end.feed(now, &bytes[at..]);
            end.end(None);
            assert_eq!(end.text(), expected, "{name} at {at}");
        }
        for size in 1..=17 {
            let mut end = End::new(&capture, Role::Client, now);
            for piece in bytes.chunks(size) {
                end.feed(now, piece);
            }
            end.end(None);
            assert_eq!(end.text(), expected, "{name} in pieces of {size}");
        }
    }
}

/// Between two messages a decoder is as new, so that a long transcript is split frame by frame.
#[test]
fn every_split_of_a_long_burst_gives_the_same_messages() {
    let capture = Capture::read("exec-v5-large");
    let mut rest = Capture::parts(&capture.server).1;
    let mut frames = 0;
    while !rest.is_empty() {
        let (header, length) = FrameHeader::parse(rest)
            .expect("a good frame")
            .expect("a whole header");
        let (frame, next) = rest.split_at(length + header.length as usize);
        let decode = |pieces: [&[u8]; 2]| {
            let mut decoder = Decoder::new(Role::Client, limits::MESSAGE);
            let mut input = BytesMut::with_capacity(frame.len());
            let mut messages: Vec<Message> = Vec::new();
            for piece in pieces {
                input.extend_from_slice(piece);
                while let Some(message) = decoder.decode(&mut input).expect("a good frame") {
                    messages.push(message);
                }
            }
            assert!(input.is_empty());
            messages
        };
        let expected = decode([frame, &[]]);
        assert_eq!(expected.len(), 1);
        for at in 1..frame.len() {
            assert_eq!(decode([&frame[..at], &frame[at..]]), expected);
        }
        rest = next;
        frames += 1;
    }
    assert!(frames > 10);
}

/// Where in the server's bytes the Status is whole, and where the close frame is.
fn marks(capture: &Capture) -> (Option<usize>, Option<usize>) {
    let bytes = Capture::parts(&capture.server).1;
    let now = Instant::now();
    let mut end = End::new(capture, Role::Client, now);
    let (mut status, mut close) = (None, None);
    for (at, byte) in bytes.iter().enumerate() {
        end.feed(now, &[*byte]);
        if status.is_none() && end.status().is_some() {
            status = Some(at + 1);
        }
        if close.is_none() && end.session.is_ended() {
            close = Some(at + 1);
        }
    }
    (status, close)
}

#[test]
fn a_cut_at_any_byte_is_never_a_false_success() {
    let now = Instant::now();
    for name in small() {
        let capture = Capture::read(name);
        let bytes = Capture::parts(&capture.server).1;
        let stdout = whole(&capture, Role::Client, now).data(Channel::Stdout);
        let (status, close) = marks(&capture);
        assert_eq!(
            close,
            Some(bytes.len()),
            "{name}: it ends with a close frame"
        );
        for at in 0..bytes.len() {
            for how in [None, Some(lost())] {
                let reset = how.is_some();
                let mut end = End::new(&capture, Role::Client, now);
                end.feed(now, &bytes[..at]);
                end.end(how);
                assert!(stdout.starts_with(&end.data(Channel::Stdout)));
                if status.is_none_or(|status| at < status) {
                    assert!(end.status().is_none(), "{name} at {at}");
                    let without = |source: &Option<_>| source.is_some() == reset;
                    assert!(
                        matches!(
                            end.ended(),
                            Err(Error::Network(NetworkError::ClosedWithoutStatus {
                                code: None,
                                source,
                                ..
                            })) if without(source)
                        ),
                        "{name} at {at}: {:?}",
                        end.ended()
                    );
                } else {
                    assert!(end.status().is_some(), "{name} at {at}");
                    // Only v5 says that nothing can follow the Status.
                    let whole = capture.protocol().status_is_last();
                    assert_eq!(end.ended().is_ok(), whole, "{name} at {at}");
                }
            }
        }
    }
}

#[test]
fn a_server_that_falls_silent_at_any_byte_is_given_up() {
    let start = Instant::now();
    for name in small() {
        let capture = Capture::read(name);
        let bytes = Capture::parts(&capture.server).1;
        let (status, _) = marks(&capture);
        for at in 0..bytes.len() {
            let mut end = End::new(&capture, Role::Client, start);
            end.feed(start, &bytes[..at]);
            let mut now = start;
            for _ in 0..100 {
                let Some(next) = end.session.poll_timeout() else {
                    break;
                };
                assert!(next >= now);
                now = next;
                end.session.handle_timeout(now);
                end.take();
            }
            assert!(end.session.is_ended(), "{name} at {at}");
            let told = status.is_some_and(|status| at >= status);
            assert_eq!(end.status().is_some(), told);
            if !told {
                let silence = limits::SILENCE;
                assert!(
                    matches!(end.ended(), Err(Error::Network(NetworkError::Silent { silent })) if *silent >= silence),
                    "{name} at {at}: {:?}",
                    end.ended()
                );
                assert!(now - start < 2 * silence);
            } else if !capture.protocol().status_is_last() {
                assert!(end.ended().is_err(), "{name} at {at}");
            }
        }
    }
}

/// What the server's side makes of the client's bytes.
fn asked(name: &str) -> Vec<RemoteCommandEvent> {
    let stdin = |text: &'static str| RemoteCommandEvent::Data(Channel::Stdin, text.into());
    let mut events = match name {
        "attach-v5" => vec![stdin("ping\n")],
        "exec-v4-stdin" => vec![stdin("abcdefgh")],
        "exec-v5-stdin-close" => vec![
            stdin("hello "),
            stdin("world\n"),
            RemoteCommandEvent::Finished(Channel::Stdin),
        ],
        "exec-v5-tty-resize" => vec![
            RemoteCommandEvent::Resize(TerminalSize::new(80, 24)),
            RemoteCommandEvent::Resize(TerminalSize::new(132, 43)),
        ],
        _ => Vec::new(),
    };
    events.push(RemoteCommandEvent::Ended(Ok(())));
    events
}

#[test]
fn every_split_of_the_client_s_bytes_gives_the_server_the_same_events() {
    let now = Instant::now();
    for (name, ..) in SESSIONS {
        let capture = Capture::read(name);
        let bytes = Capture::parts(&capture.client).1;
        let expected = format!("{:?}", asked(name));
        assert_eq!(
            whole(&capture, Role::Server, now).text(),
            expected,
            "{name}"
        );
        for at in 0..=bytes.len() {
            let mut end = End::new(&capture, Role::Server, now);
            end.feed(now, &bytes[..at]);
            end.feed(now, &bytes[at..]);
            end.end(None);
            assert_eq!(end.text(), expected, "{name} at {at}");
        }
        for at in 0..bytes.len() {
            let mut end = End::new(&capture, Role::Server, now);
            end.feed(now, &bytes[..at]);
            end.end(Some(lost()));
            assert!(end.ended().is_err(), "{name} at {at}: a cut is no close");
        }
    }
}

#[test]
fn refusals_keep_the_server_s_words() {
    for (name, code, word) in [
        ("exec-no-container", 400, "nope"),
        ("exec-no-pod", 404, "nope"),
    ] {
        let capture = Capture::read(name);
        let (head, body) = Capture::parts(&capture.server);
        assert!(
            head.starts_with(&format!("HTTP/1.1 {code} ")),
            "{}",
            capture.name
        );
        let status = Status::from_json(body).expect("a status");
        assert_eq!(status.code, code);
        assert!(status.message.contains(word), "{status}");
        for at in 0..body.len() {
            let cut = Status::from_json(&body[..at]);
            assert!(
                cut.is_err() || body[at..].iter().all(u8::is_ascii_whitespace),
                "{name} at {at}"
            );
        }
    }
}

//! WebSocket frames as a test suite of RFC 6455 sends them: bytes in, messages or the close code
//! out, in both roles and however the bytes are cut.
//!
//! The cases are those of the Autobahn test suite 0.8.2, by its numbers, of framing (1), pings (2),
//! reserved bits (3), opcodes (4), fragmentation (5), UTF-8 (6), closing (7) and a large message in
//! small fragments (10.1). Not here:
//!
//! - 6.4.3 and 6.4.4 ask for the failure *within* a frame. A frame is looked at when it is whole,
//!   which the suite calls non-strict; across frames (6.4.1, 6.4.2) the failure is at once.
//! - 7.1.1 to 7.1.6 (what follows a close frame) are of the session, which sends and takes nothing
//!   after it; here it is only shown that the frames are read in order.
//! - 9 (limits and performance), 12 and 13 (compression, which is never offered).

use bytes::{Bytes, BytesMut};
use kubewire::{
    Role,
    wire::websocket::{Close, Decoder, FrameHeader, Message, Opcode, WebSocketError, apply_mask},
};
use proptest::prelude::*;

const LIMIT: usize = 1 << 24;

/// A frame as a test sends it, right or wrong.
#[derive(Debug, Clone)]
struct Raw {
    fin: bool,
    reserved: u8,
    opcode: u8,
    payload: Vec<u8>,
}

fn raw(fin: bool, opcode: u8, payload: impl AsRef<[u8]>) -> Raw {
    Raw {
        fin,
        reserved: 0,
        opcode,
        payload: payload.as_ref().to_vec(),
    }
}

impl Raw {
    /// The bytes, as they arrive at the end `role`.
    fn write(&self, role: Role, out: &mut Vec<u8>) {
        out.push(u8::from(self.fin) << 7 | self.reserved << 4 | self.opcode);
        let mask = match role {
            Role::Client => None,
            Role::Server => Some([0x37, 0xfa, 0x21, 0x3d]),
        };
        let masked = if mask.is_some() { 0x80 } else { 0 };
        match self.payload.len() {
            length @ 0..126 => out.push(masked | length as u8),
            length @ 126..0x1_0000 => {
                out.push(masked | 126);
                out.extend((length as u16).to_be_bytes());
            }
            length => {
                out.push(masked | 127);
                out.extend((length as u64).to_be_bytes());
            }
        }
        out.extend(mask.iter().flatten());
        let start = out.len();
        out.extend(&self.payload);
        if let Some(key) = mask {
            apply_mask(&mut out[start..], key, 0);
        }
    }
}

type Outcome = (Vec<Message>, Option<WebSocketError>);

fn decode<'a>(role: Role, limit: usize, pieces: impl IntoIterator<Item = &'a [u8]>) -> Outcome {
    let mut decoder = Decoder::new(role, limit);
    let (mut input, mut messages) = (BytesMut::new(), Vec::new());
    for piece in pieces {
        input.extend_from_slice(piece);
        loop {
            match decoder.decode(&mut input) {
                Ok(Some(message)) => messages.push(message),
                Ok(None) => break,
                Err(error) => return (messages, Some(error)),
            }
        }
    }
    (messages, None)
}

/// What is expected: the messages, then perhaps a failure that closes with this code.
type Expected = (Vec<Message>, Option<u16>);

#[track_caller]
fn check(case: &str, frames: &[Raw], (messages, code): &Expected) {
    for role in [Role::Client, Role::Server] {
        let mut wire = Vec::new();
        for frame in frames {
            frame.write(role, &mut wire);
        }
        for size in [1, 2, 3, 997, wire.len().max(1)] {
            if wire.len() / size > 100_000 {
                continue;
            }
            let (found, error) = decode(role, LIMIT, wire.chunks(size));
            assert_eq!(&found, messages, "{case}, {role:?}, pieces of {size}");
            let found = error.map(|error| error.close_code());
            assert_eq!(&found, code, "{case}, {role:?}, pieces of {size}");
        }
    }
}

fn text(payload: impl AsRef<[u8]>) -> Message {
    Message::Text(Bytes::copy_from_slice(payload.as_ref()))
}

fn binary(payload: impl AsRef<[u8]>) -> Message {
    Message::Binary(Bytes::copy_from_slice(payload.as_ref()))
}

fn ping(payload: impl AsRef<[u8]>) -> Message {
    Message::Ping(Bytes::copy_from_slice(payload.as_ref()))
}

fn pong(payload: impl AsRef<[u8]>) -> Message {
    Message::Pong(Bytes::copy_from_slice(payload.as_ref()))
}

const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

#[test]
fn framing_1() {
    for (n, size) in [0, 125, 126, 127, 128, 65_535, 65_536]
        .into_iter()
        .enumerate()
    {
        let stars = vec![b'*'; size];
        let n = n + 1;
        check(
            &format!("1.1.{n}"),
            &[raw(true, TEXT, &stars)],
            &(vec![text(&stars)], None),
        );
        let bytes = vec![0xfe; size];
        check(
            &format!("1.2.{n}"),
            &[raw(true, BINARY, &bytes)],
            &(vec![binary(&bytes)], None),
        );
    }
}

#[test]
fn pings_and_pongs_2() {
    let bytes = [0x00, 0xff, 0xfe, 0xfd, 0xfc, 0xfb, 0x00, 0xff];
    for (case, payload) in [
        ("2.1", vec![]),
        ("2.2", b"Hello, world!".to_vec()),
        ("2.3", bytes.to_vec()),
        ("2.4", vec![0xfe; 125]),
    ] {
        check(
            case,
            &[raw(true, PING, &payload)],
            &(vec![ping(&payload)], None),
        );
    }
    check(
        "2.5",
        &[raw(true, PING, [0xfe; 126])],
        &(vec![], Some(1002)),
    );
    check("2.7", &[raw(true, PONG, "")], &(vec![pong("")], None));
    check(
        "2.8",
        &[raw(true, PONG, "unsolicited")],
        &(vec![pong("unsolicited")], None),
    );
    check(
        "2.9",
        &[raw(true, PONG, "unsolicited"), raw(true, PING, "ping")],
        &(vec![pong("unsolicited"), ping("ping")], None),
    );
    let payloads: Vec<_> = (0..10).map(|n| format!("payload-{n}")).collect();
    let frames: Vec<_> = payloads.iter().map(|p| raw(true, PING, p)).collect();
    check(
        "2.10",
        &frames,
        &(payloads.iter().map(ping).collect(), None),
    );
}

#[test]
fn reserved_bits_3() {
    for (case, reserved, opcode) in [
        ("3.1", 1, TEXT),
        ("3.5", 5, BINARY),
        ("3.6", 6, PING),
        ("3.7", 7, CLOSE),
    ] {
        let wrong = Raw {
            reserved,
            ..raw(true, opcode, "")
        };
        check(case, &[wrong], &(vec![], Some(1002)));
    }
    for (case, reserved) in [("3.2", 2), ("3.3", 3), ("3.4", 4)] {
        let wrong = Raw {
            reserved,
            ..raw(true, TEXT, "Hello, world!")
        };
        let frames = [raw(true, TEXT, "first"), wrong, raw(true, PING, "")];
        check(case, &frames, &(vec![text("first")], Some(1002)));
    }
}

#[test]
fn reserved_opcodes_4() {
    for opcode in [3, 4, 5, 6, 7, 11, 12, 13, 14, 15] {
        let case = format!("4, opcode {opcode}");
        check(&case, &[raw(true, opcode, "")], &(vec![], Some(1002)));
        let frames = [
            raw(true, TEXT, "first"),
            raw(true, opcode, "x"),
            raw(true, PING, ""),
        ];
        check(&case, &frames, &(vec![text("first")], Some(1002)));
    }
}

#[test]
fn fragmentation_5() {
    let wrong = |messages| (messages, Some(1002));
    let part = |payload: &str| raw(false, 0, payload);
    let last = |payload: &str| raw(true, 0, payload);
    let first = |payload: &str| raw(false, TEXT, payload);
    check("5.1", &[raw(false, PING, "a"), last("b")], &wrong(vec![]));
    check("5.2", &[raw(false, PONG, "a"), last("b")], &wrong(vec![]));
    check("5.3", &[first("a"), last("b")], &(vec![text("ab")], None));
    for case in ["5.6", "5.7", "5.8"] {
        let frames = [first("a"), raw(true, PING, "p"), last("b")];
        check(case, &frames, &(vec![ping("p"), text("ab")], None));
    }
    for (case, fin) in [
        ("5.9", true),
        ("5.10", true),
        ("5.11", true),
        ("5.12", false),
    ] {
        let frames = [raw(fin, 0, "non-continuation"), raw(true, TEXT, "x")];
        check(case, &frames, &wrong(vec![]));
    }
    check(
        "5.15",
        &[first("a"), last("b"), part("c"), first("d")],
        &wrong(vec![text("ab")]),
    );
    check(
        "5.16",
        &[part("a"), raw(false, TEXT, "b"), last("c")],
        &wrong(vec![]),
    );
    check(
        "5.17",
        &[last("a"), raw(false, TEXT, "b"), last("c")],
        &wrong(vec![]),
    );
    check("5.18", &[first("a"), raw(true, TEXT, "b")], &wrong(vec![]));
    for case in ["5.19", "5.20"] {
        let frames = [
            first("1"),
            part("2"),
            raw(true, PING, "one"),
            part("3"),
            part("4"),
            raw(true, PING, "two"),
            last("5"),
        ];
        check(
            case,
            &frames,
            &(vec![ping("one"), ping("two"), text("12345")], None),
        );
    }
}

const GREEK: &[u8] = "κόσμε".as_bytes();

#[test]
fn text_is_utf8_6() {
    check("6.1.1", &[raw(true, TEXT, "")], &(vec![text("")], None));
    let empty = [raw(false, TEXT, ""), raw(false, 0, ""), raw(true, 0, "")];
    check("6.1.2", &empty, &(vec![text("")], None));
    let middle = [raw(false, TEXT, ""), raw(false, 0, "m"), raw(true, 0, "")];
    check("6.1.3", &middle, &(vec![text("m")], None));
    let hello = "Hello-µ@ßöäüàá-UTF-8!!".as_bytes();
    check(
        "6.2.1",
        &[raw(true, TEXT, hello)],
        &(vec![text(hello)], None),
    );
    for at in 0..hello.len() {
        let frames = [raw(false, TEXT, &hello[..at]), raw(true, 0, &hello[at..])];
        check("6.2.2 and 6.2.3", &frames, &(vec![text(hello)], None));
    }
    let bytes = |text: &[u8]| -> Vec<Raw> {
        let last = text.len() - 1;
        let opcode = |at| if at == 0 { TEXT } else { 0 };
        let each = text.iter().enumerate();
        each.map(|(at, byte)| raw(at == last, opcode(at), [*byte]))
            .collect()
    };
    check("6.2.4", &bytes(GREEK), &(vec![text(GREEK)], None));
    let invalid = [GREEK, b"\xed\xa0\x80", b"edited"].concat();
    check("6.3.1", &[raw(true, TEXT, &invalid)], &(vec![], Some(1007)));
    check("6.3.2", &bytes(&invalid), &(vec![], Some(1007)));
    // The failure comes with the fragment that is wrong, not with the last.
    for (case, wrong) in [("6.4.1", &b"\xf4\x90\x80\x80"[..]), ("6.4.2", b"\xf4\x90")] {
        let frames = [raw(false, TEXT, GREEK), raw(false, 0, wrong)];
        check(case, &frames, &(vec![], Some(1007)));
    }
}

/// 6.5 to 6.23, after "UTF-8 decoder capability and stress test" by Markus Kuhn.
#[test]
fn sequences_of_utf8_6() {
    let valid: [&[u8]; 26] = [
        GREEK,
        "κόσμε ascii".as_bytes(),
        b"\x00",
        b"\xc2\x80",
        b"\xe0\xa0\x80",
        b"\xf0\x90\x80\x80",
        b"\x7f",
        b"\xdf\xbf",
        b"\xef\xbf\xbf",
        b"\xf4\x8f\xbf\xbf",
        b"\xed\x9f\xbf",
        b"\xee\x80\x80",
        b"\xef\xbf\xbd",
        b"\xef\xbf\xbe",
        b"\xf0\x9f\xbf\xbe",
        b"\xf0\x9f\xbf\xbf",
        b"\xf0\xaf\xbf\xbe",
        b"\xf0\xaf\xbf\xbf",
        b"\xf1\x8f\xbf\xbe",
        b"\xf2\x8f\xbf\xbf",
        b"\xf3\x8f\xbf\xbe",
        b"\xf3\xbf\xbf\xbf",
        b"\xf4\x8f\xbf\xbe",
        b"\xef\xb7\x90",
        b"\xf3\xa0\x80\x81",
        "Fragmented €".as_bytes(),
    ];
    for sequence in valid {
        let case = format!("6, {sequence:x?}");
        check(
            &case,
            &[raw(true, TEXT, sequence)],
            &(vec![text(sequence)], None),
        );
    }
    let invalid: [&[u8]; 32] = [
        b"\xce",
        b"\xce\xba\xe1",
        b"\xce\xba\xe1\xbd",
        b"\xce\xba\xe1\xbd\xb9\xcf",
        b"\xf8\x88\x80\x80\x80",
        b"\xfc\x84\x80\x80\x80\x80",
        b"\xf7\xbf\xbf\xbf",
        b"\xfb\xbf\xbf\xbf\xbf",
        b"\xfd\xbf\xbf\xbf\xbf\xbf",
        b"\xf4\x90\x80\x80",
        b"\x80",
        b"\xbf",
        b"\x80\xbf",
        b"\x80\xbf\x80\xbf\x80\xbf\x80",
        b"\xc0 \xc1 \xdf ",
        b"\xe0 \xef ",
        b"\xf0 \xf7 ",
        b"\xfe",
        b"\xff",
        b"\xfe\xfe\xff\xff",
        b"\xc0\xaf",
        b"\xe0\x80\xaf",
        b"\xf0\x80\x80\xaf",
        b"\xc1\xbf",
        b"\xe0\x9f\xbf",
        b"\xf0\x8f\xbf\xbf",
        b"\xc0\x80",
        b"\xed\xa0\x80",
        b"\xed\xad\xbf",
        b"\xed\xae\x80",
        b"\xed\xbf\xbf",
        b"\xed\xa0\x80\xed\xb0\x80",
    ];
    for sequence in invalid {
        let case = format!("6, {sequence:x?}");
        check(&case, &[raw(true, TEXT, sequence)], &(vec![], Some(1007)));
        check(
            &case,
            &[raw(true, BINARY, sequence)],
            &(vec![binary(sequence)], None),
        );
    }
}

#[test]
fn closing_7() {
    let closed = |code: u16, reason: &str| {
        let reason = reason.to_owned();
        Message::Close(Some(Close { code, reason }))
    };
    let payload = |code: u16, reason: &[u8]| [&code.to_be_bytes()[..], reason].concat();
    check(
        "7.1.1",
        &[
            raw(true, TEXT, "Hello World!"),
            raw(true, CLOSE, payload(1000, b"")),
        ],
        &(vec![text("Hello World!"), closed(1000, "")], None),
    );
    check(
        "7.3.1",
        &[raw(true, CLOSE, "")],
        &(vec![Message::Close(None)], None),
    );
    check("7.3.2", &[raw(true, CLOSE, "a")], &(vec![], Some(1002)));
    check(
        "7.3.3",
        &[raw(true, CLOSE, payload(1000, b""))],
        &(vec![closed(1000, "")], None),
    );
    let reason = "Hello World!";
    let frame = raw(true, CLOSE, payload(1000, reason.as_bytes()));
    check("7.3.4", &[frame], &(vec![closed(1000, reason)], None));
    let reason = "*".repeat(123);
    let frame = raw(true, CLOSE, payload(1000, reason.as_bytes()));
    check("7.3.5", &[frame], &(vec![closed(1000, &reason)], None));
    let frame = raw(true, CLOSE, payload(1000, &[b'*'; 124]));
    check("7.3.6", &[frame], &(vec![], Some(1002)));
    let frame = raw(
        true,
        CLOSE,
        payload(1000, &[GREEK, b"\xed\xa0\x80edited"].concat()),
    );
    check("7.5.1", &[frame], &(vec![], Some(1007)));
    for code in [
        1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999,
    ] {
        let frame = raw(true, CLOSE, payload(code, b""));
        check(
            &format!("7.7, {code}"),
            &[frame],
            &(vec![closed(code, "")], None),
        );
    }
    for code in [
        0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535,
    ] {
        for reason in ["", "reason"] {
            let frame = raw(true, CLOSE, payload(code, reason.as_bytes()));
            check(
                &format!("7.9 and 7.13, {code}"),
                &[frame],
                &(vec![], Some(1002)),
            );
        }
    }
}

#[test]
fn a_large_message_in_small_fragments_10() {
    let whole = vec![b'*'; 65_536];
    let mut frames: Vec<_> = whole.chunks(1300).map(|part| raw(false, 0, part)).collect();
    frames[0].opcode = TEXT;
    frames.last_mut().unwrap().fin = true;
    check("10.1.1", &frames, &(vec![text(&whole)], None));
}

/// What `tungstenite` makes of the same bytes, up to its first failure.
fn peer(role: Role, wire: &[u8]) -> (Vec<Message>, bool) {
    use tokio_tungstenite::tungstenite::{
        self, Error, WebSocket,
        protocol::{Role as Their, WebSocketConfig},
    };
    struct Input<'a>(&'a [u8]);
    impl std::io::Read for Input<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            match self.0.read(buffer)? {
                0 => Err(std::io::ErrorKind::WouldBlock.into()),
                read => Ok(read),
            }
        }
    }
    impl std::io::Write for Input<'_> {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let their = match role {
        Role::Client => Their::Client,
        Role::Server => Their::Server,
    };
    let config = WebSocketConfig::default();
    let mut socket = WebSocket::from_raw_socket(Input(wire), their, Some(config));
    let mut messages = Vec::new();
    loop {
        messages.push(match socket.read() {
            Ok(tungstenite::Message::Text(found)) => text(found.as_bytes()),
            Ok(tungstenite::Message::Binary(found)) => binary(found),
            Ok(tungstenite::Message::Ping(found)) => ping(found),
            Ok(tungstenite::Message::Pong(found)) => pong(found),
            // What it makes of a code that may not be sent is its own answer.
            Ok(tungstenite::Message::Close(Some(found)))
                if found.reason == "Protocol violation" =>
            {
                return (messages, true);
            }
            Ok(tungstenite::Message::Close(found)) => {
                messages.push(Message::Close(found.map(|found| Close {
                    code: found.code.into(),
                    reason: found.reason.as_str().to_owned(),
                })));
                return (messages, false);
            }
            Ok(tungstenite::Message::Frame(_)) => unreachable!("only written"),
            Err(Error::Io(error)) if error.kind() == std::io::ErrorKind::WouldBlock => {
                return (messages, false);
            }
            Err(_) => return (messages, true),
        });
    }
}

fn any_frame() -> impl Strategy<Value = Raw> {
    let opcode = prop_oneof![
        4 => Just(TEXT), 4 => Just(0), 2 => Just(BINARY), 2 => Just(PING), 1 => Just(PONG),
        1 => Just(CLOSE), 1 => 0..16_u8,
    ];
    let reserved = prop_oneof![30 => Just(0_u8), 1 => 0..8_u8];
    let payload = prop_oneof![
        4 => "[aé€𝄞]{0,3}".prop_map(String::into_bytes),
        1 => prop::collection::vec(any::<u8>(), 0..4),
        // 1014 is younger than the other decoder.
        1 => (990..1014_u16, "[aé]{0,2}").prop_map(|(code, reason)| {
            [&code.to_be_bytes()[..], reason.as_bytes()].concat()
        }),
    ];
    (prop::bool::weighted(0.7), reserved, opcode, payload).prop_map(
        |(fin, reserved, opcode, payload)| Raw {
            fin,
            reserved,
            opcode,
            payload,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    /// Two decoders that share no line understand the same, and refuse the same.
    #[test]
    fn another_decoder_agrees(
        frames in prop::collection::vec(any_frame(), 0..8),
        server in any::<bool>(),
    ) {
        let role = if server { Role::Server } else { Role::Client };
        let mut wire = Vec::new();
        for frame in &frames {
            frame.write(role, &mut wire);
        }
        let (mut messages, error) = decode(role, LIMIT, [&wire[..]]);
        let mut failed = error.is_some();
        // The other decoder reads no further than a close.
        if let Some(close) = messages.iter().position(|m| matches!(m, Message::Close(_))) {
            messages.truncate(close + 1);
            failed = false;
        }
        prop_assert_eq!((messages, failed), peer(role, &wire));
    }
}

#[test]
fn headers_are_as_long_as_they_need_be() {
    for (length, expected) in [(125, 2), (126, 4), (65_535, 4), (65_536, 10)] {
        let mut out = Vec::new();
        let header = FrameHeader {
            fin: true,
            opcode: Opcode::Binary,
            mask: None,
            length,
        };
        header.encode(&mut out);
        assert_eq!(out.len(), expected, "{length}");
    }
}

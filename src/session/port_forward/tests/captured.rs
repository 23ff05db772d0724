//! What kubectl and a kubelet sent, cut everywhere.

use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::BytesMut;

use super::*;
use crate::wire::websocket::Decoder;

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

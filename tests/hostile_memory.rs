//! What a peer can make a session keep: in flow its worst messages, out comes a bound that the
//! allocator counts.

#![cfg(all(feature = "server", feature = "client"))]
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::{
    convert::Infallible,
    net::{SocketAddr, TcpListener},
    time::Instant,
};

use allocation_counter::AllocationInfo;
use bytes::{Bytes, BytesMut};
use flate2::FlushCompress;
use http::Request;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use kubewire::{
    KeepaliveConfig, Role,
    exec::{Streams, Subprotocol, TerminalSize},
    limits,
    server::{Forwarding, PortForwardRequest},
    session::{
        Message, Session as _,
        port_forward::{ForwardConfig, ForwardEvent, ForwardProtocol, Spdy},
        remote_command::{RemoteCommand, RemoteCommandEvent},
    },
    wire::{
        spdy::{RstStatus, RstStream, StreamId, SynStream},
        watch::{Encoding, EventError, ListDecoder},
    },
};
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::{
    self, client::IntoClientRequest as _, stream::MaybeTlsStream,
};

/// The most that was allocated at once.
fn most(counted: &AllocationInfo) -> usize {
    usize::try_from(counted.bytes_max).unwrap()
}

/// The header blocks of a client, packed with little effort: there are many.
struct Packer(flate2::Compress);

impl Packer {
    fn new() -> Self {
        Self(flate2::Compress::new(flate2::Compression::fast(), true))
    }

    fn pack(&mut self, kind: &str, request: &str) -> Bytes {
        let mut plain = vec![0, 0, 0, 3];
        for text in ["streamtype", kind, "port", "80", "requestid", request] {
            plain.extend((text.len() as u32).to_be_bytes());
            plain.extend(text.as_bytes());
        }
        let mut block = Vec::with_capacity(plain.len() + 1024);
        let packed = self.0.compress_vec(&plain, &mut block, FlushCompress::Sync);
        packed.unwrap();
        block.into()
    }
}

/// Opens half a connection.
fn open(id: u32, block: Bytes, to: &mut BytesMut) {
    SynStream {
        stream: StreamId::new(id).unwrap(),
        associated: None,
        priority: 0,
        fin: false,
        unidirectional: false,
        block,
    }
    .encode(to);
}

fn reset(id: u32, to: &mut BytesMut) {
    RstStream {
        stream: StreamId::new(id).unwrap(),
        status: RstStatus::CANCEL,
    }
    .encode(to);
}

#[test]
fn terminal_sizes_without_end_are_two_events() {
    let streams = Streams {
        stdin: true,
        stdout: true,
        stderr: false,
        tty: true,
    };
    let now = Instant::now();
    for protocol in [Subprotocol::V4, Subprotocol::V5] {
        let keepalive = KeepaliveConfig::default();
        let mut session = RemoteCommand::new(Role::Server, protocol, streams, keepalive, now);
        let mut message = vec![4];
        message.resize(31 << 20, b'{');
        message[2..]
            .iter_mut()
            .step_by(2)
            .for_each(|byte| *byte = b'}');
        let message = Message::Binary(message.into());
        let mut sizes = Vec::new();
        let counted = allocation_counter::measure(|| {
            session.handle_message(now, message);
            while let Some(event) = session.poll_event() {
                match event {
                    RemoteCommandEvent::Resize(size) => sizes.push(size),
                    other => panic!("{other:?}"),
                }
            }
        });
        assert_eq!(sizes, [TerminalSize::new(0, 0); 2]);
        assert!(most(&counted) < 64 << 10, "{counted:?}");
    }
}

/// 4,096 streams with request ids of so many bytes, in as many messages or in one: the most that
/// was allocated, and whether the session ended.
fn endless_request_ids(length: usize) -> [(usize, bool); 2] {
    let mut packer = Packer::new();
    let mut message = BytesMut::new();
    let mut messages = Vec::new();
    let mut block = Bytes::new();
    for n in 0..4096_u32 {
        // Behind a window of the same bytes the same block means the same.
        if length < 64_000 || n < 3 {
            let number = if length < 64_000 { n } else { 0 };
            block = packer.pack("data", &format!("{number:0length$}"));
        }
        open(2 * n + 1, block.clone(), &mut message);
        messages.push(message.split().freeze());
    }
    let whole = vec![Bytes::from(messages.concat())];
    [messages, whole].map(|messages| {
        let now = Instant::now();
        let mut server = Spdy::new(Role::Server, ForwardConfig::default(), now);
        let counted = allocation_counter::measure(|| {
            for message in messages {
                server.handle_message(now, Message::Binary(message));
                while let Some(event) = server.poll_event() {
                    assert!(!matches!(event, ForwardEvent::Incoming { .. }), "{event:?}");
                }
                while server.poll_transmit().is_some() {}
            }
        });
        (most(&counted), server.is_ended())
    })
}

#[test]
fn request_ids_of_65_kb_are_not_kept() {
    for (most, ended) in endless_request_ids(65_000) {
        assert!(ended, "no header block may be that large");
        assert!(most < 1 << 20, "{most}");
    }
}

#[test]
fn request_ids_that_are_taken_are_bounded_together() {
    for (most, ended) in endless_request_ids(256) {
        // With what each stream costs: 4,096 may be open.
        assert!(!ended && most < 8 << 20, "{most}");
    }
    for (most, ended) in endless_request_ids(4096) {
        // Each is refused by itself.
        assert!(!ended && most < 2 << 20, "{most}");
    }
}

/// A client that opens connections and resets them at once, in a thread whose memory is not
/// counted; the last one stays.
fn open_and_reset(address: SocketAddr, connections: u32) {
    let mut request = format!("ws://{address}/api/v1/namespaces/default/pods/a/portforward")
        .into_client_request()
        .unwrap();
    let offer = ForwardProtocol::Spdy.name().parse().unwrap();
    request
        .headers_mut()
        .insert("Sec-WebSocket-Protocol", offer);
    let (mut websocket, _) = tungstenite::connect(request).unwrap();
    let MaybeTlsStream::Plain(socket) = websocket.get_ref() else {
        panic!("no TLS");
    };
    // Its answers are read, as by any client, until the server has gone.
    let mut answers = socket.try_clone().unwrap();
    let reading = std::thread::spawn(move || std::io::copy(&mut answers, &mut std::io::sink()));
    let mut packer = Packer::new();
    let mut message = BytesMut::new();
    for n in 0..=connections {
        let (error, data) = (4 * n + 1, 4 * n + 3);
        open(error, packer.pack("error", &n.to_string()), &mut message);
        open(data, packer.pack("data", &n.to_string()), &mut message);
        if n < connections {
            reset(data, &mut message);
            reset(error, &mut message);
        }
        if message.len() > 32 << 10 || n == connections {
            let bytes: Bytes = message.split().freeze();
            websocket.send(tungstenite::Message::Binary(bytes)).unwrap();
        }
    }
    drop(reading.join());
}

async fn forwarding(listener: TcpListener) -> Forwarding {
    listener.set_nonblocking(true).unwrap();
    let listener = tokio::net::TcpListener::from_std(listener).unwrap();
    let (socket, _) = listener.accept().await.unwrap();
    let (give, mut take) = mpsc::unbounded_channel();
    let service = service_fn(move |mut request: Request<Incoming>| {
        let accepted = PortForwardRequest::parse(&mut request).unwrap();
        let (response, opening) = accepted.accept(&[ForwardProtocol::Spdy]).unwrap();
        let give = give.clone();
        tokio::spawn(async move { give.send(opening.await.unwrap()).unwrap() });
        async move { Ok::<_, Infallible>(response) }
    });
    let connection = http1::Builder::new()
        .serve_connection(TokioIo::new(socket), service)
        .with_upgrades();
    tokio::spawn(connection);
    take.recv().await.unwrap()
}

#[test]
fn connections_that_are_reset_while_accept_waits_leave_nothing() {
    const CONNECTIONS: u32 = 50_000;
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let client = std::thread::spawn(move || open_and_reset(address, CONNECTIONS));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let forwarding = runtime.block_on(forwarding(listener));
    let mut kept = None;
    let counted = allocation_counter::measure(|| {
        kept = runtime.block_on(async {
            loop {
                let next = forwarding.accept().await.unwrap();
                // The last is the only one that is not reset: both of its streams are there.
                if forwarding.streams() == 2 {
                    return Some(next);
                }
            }
        });
    });
    assert!(most(&counted) < 4 << 20, "{counted:?}");
    assert!(counted.bytes_current < 1 << 20, "{counted:?}");
    drop((kept, forwarding));
    runtime.shutdown_timeout(std::time::Duration::from_secs(60));
    client.join().unwrap();
}

/// A list without end: what it begins with, and what then comes again and again.
struct Endless {
    encoding: Encoding,
    begin: Vec<u8>,
    item: Vec<u8>,
}

impl Endless {
    fn json(begin: &str, item: &str) -> Self {
        Self {
            encoding: Encoding::Json,
            begin: begin.into(),
            item: item.into(),
        }
    }

    /// Hands in so many bytes; the items that came out, how it ended, and the most that was
    /// allocated.
    fn read(&self, bytes: usize) -> (usize, Option<EventError>, usize) {
        let chunk: Bytes = self.item.repeat((64 << 10) / self.item.len() + 1).into();
        let mut decoder = ListDecoder::new(self.encoding);
        let (mut items, mut error) = (0, None);
        let counted = allocation_counter::measure(|| {
            let mut next = Bytes::from(self.begin.clone());
            let mut handed_in = 0;
            while handed_in < bytes && error.is_none() {
                handed_in += next.len();
                decoder.push(std::mem::replace(&mut next, chunk.clone()));
                loop {
                    match decoder.next_item() {
                        Ok(Some(_)) => items += 1,
                        Ok(None) => break,
                        Err(why) => {
                            error = Some(why);
                            break;
                        }
                    }
                }
            }
        });
        (items, error, most(&counted))
    }
}

/// A field of protobuf whose length is beyond all that comes.
fn endless_field(number: u8, to: &mut Vec<u8>) {
    to.push(number << 3 | 2);
    to.extend([0xff, 0xff, 0xff, 0xff, 0x7f]);
}

/// `k8s\0`, a `PodList` in an envelope, and the beginning of the list.
fn pods() -> Vec<u8> {
    let mut begin = b"k8s\0\x0a\x0d\x0a\x02v1\x12\x07PodList".to_vec();
    endless_field(2, &mut begin);
    begin
}

#[test]
fn of_a_list_without_end_one_item_is_kept() {
    let own = r#"{"apiVersion":"a/v1","kind":"Foo","metadata":{"name":"a"}},"#;
    let item = r#"{"metadata":{"name":"a"}},"#;
    for list in [
        Endless::json(
            r#"{"kind":"PodList","apiVersion":"v1","metadata":{},"items":["#,
            item,
        ),
        // Those of custom resources are sorted by name, and so say their kind themselves.
        Endless::json(r#"{"apiVersion":"a/v1","items":["#, own),
        Endless {
            encoding: Encoding::Protobuf,
            begin: pods(),
            // An item with metadata that has a name.
            item: b"\x12\x05\x0a\x03\x0a\x01a".to_vec(),
        },
    ] {
        let (items, error, most) = list.read(16 << 20);
        assert_eq!(error, None, "{:?}", list.encoding);
        assert!(items > 100_000, "{items}");
        assert!(most < 1 << 20, "{:?}: {most}", list.encoding);
    }
}

#[test]
fn what_of_a_list_without_end_has_to_be_kept_is_bounded() {
    let item = r#"{"metadata":{"name":"a"}},"#;
    let table = r#"{"kind":"Table","columnDefinitions":[{"name":"Name"}],"rows":["#;
    let whole = limits::LIST_BODY;
    let one = limits::WATCH_EVENT;
    let mut item_of_protobuf = pods();
    endless_field(2, &mut item_of_protobuf);
    for (list, bound) in [
        // Kept whole.
        (Endless::json(r#"{"items":["#, item), whole),
        (Endless::json(table, r#"{"cells":["a"]},"#), whole),
        (
            Endless {
                encoding: Encoding::Cbor,
                begin: b"\xd9\xd9\xf7\xa3\x44kind\x47PodList\x45items\x9b\0\0\0\0\xff\0\0\0"
                    .to_vec(),
                item: b"\xa1\x48metadata\xa1\x44name\x41a".to_vec(),
            },
            whole,
        ),
        // One item, or what is around the items.
        (
            Endless::json(r#"{"kind":"PodList","items":["#, r#"{"a":"#),
            one,
        ),
        (
            Endless::json(r#"{"kind":"PodList","items":[{"a":""#, "aaaaaaaa"),
            one,
        ),
        (
            Endless::json(r#"{"kind":"PodList","metadata":{"a":""#, "aaaaaaaa"),
            one,
        ),
        (Endless::json("{", r#""a":1,"#), one),
        (
            Endless {
                encoding: Encoding::Protobuf,
                begin: item_of_protobuf,
                item: vec![0; 8],
            },
            one,
        ),
    ] {
        let name = String::from_utf8_lossy(&list.begin).into_owned();
        let (items, error, most) = list.read(96 << 20);
        assert_eq!(
            (items, error),
            (0, Some(EventError::TooLarge { bound })),
            "{name}"
        );
        // A buffer that grows is there twice for a moment.
        assert!(most <= 2 * bound + bound / 16, "{name}: {most}");
    }
}

//! port-forward through a server whose SPDY library has few workers: in flow connections that
//! leave bytes unread, out come others that nevertheless work.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

#[path = "common/soon.rs"]
mod soon;

use std::{
    collections::HashMap,
    io,
    net::Ipv4Addr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};
use kubewire::{
    Client, Config, Role, limits,
    port_forward::Tunnel,
    wire::{
        spdy::{self, Data, Frame, HeaderReader, HeaderWriter, Headers, StreamId, SynReply},
        websocket::{Decoder, FrameHeader, Message, Opcode},
    },
};
use soon::soon;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::{Notify, mpsc},
    task::JoinSet,
};

type Result<T = (), E = Box<dyn std::error::Error>> = std::result::Result<T, E>;

/// Workers of a SPDY connection, and frames that wait for each
/// (`github.com/moby/spdystream/connection.go`, `FRAME_WORKERS` and `QUEUE_SIZE`).
const WORKERS: usize = 5;
const QUEUE: usize = 50;

/// Where the payload of a stream goes: whoever puts some there waits until it is taken.
#[derive(Clone)]
struct Inlet {
    payloads: mpsc::Sender<Bytes>,
    /// Something has been put there.
    arrived: Arc<Notify>,
}

/// A stream of a connection.
struct Half {
    stream: StreamId,
    headers: Headers,
    received: mpsc::Receiver<Bytes>,
    arrived: Arc<Notify>,
}

enum Work {
    Open(StreamId, Headers),
    Data(Data),
    Reset(StreamId),
}

/// A port at which nobody listens, about which the server says nothing.
const MUTE: u16 = 1;

type Out = mpsc::UnboundedSender<Frame>;

#[derive(Default)]
struct Streams {
    inlets: HashMap<StreamId, Inlet>,
    /// The streams of a connection of which the other is still to come, by request.
    halves: HashMap<String, Half>,
    /// What is never read and never reset.
    abandoned: Vec<mpsc::Receiver<Bytes>>,
}

/// Does what comes for the streams of one worker, in order.
async fn worker(mut work: mpsc::Receiver<Work>, streams: Arc<Mutex<Streams>>, out: Out) {
    while let Some(next) = work.recv().await {
        match next {
            Work::Open(stream, headers) => open(stream, headers, &streams, &out),
            Work::Data(data) => {
                let inlet = streams.lock().unwrap().inlets.get(&data.stream).cloned();
                if let Some(inlet) = inlet
                    && !data.payload.is_empty()
                {
                    let _ = inlet.payloads.send(data.payload).await;
                    inlet.arrived.notify_one();
                    // The stream's channel has no buffer: the worker waits for the reader.
                    drop(inlet.payloads.reserve().await);
                }
                if data.fin {
                    streams.lock().unwrap().inlets.remove(&data.stream);
                }
            }
            Work::Reset(stream) => drop(streams.lock().unwrap().inlets.remove(&stream)),
        }
    }
}

fn open(stream: StreamId, headers: Headers, streams: &Arc<Mutex<Streams>>, out: &Out) {
    let block = HeaderWriter::new().write(&Headers::new()).unwrap();
    // The client reads the first only; all are alike.
    let _ = out.send(Frame::SynReply(SynReply {
        stream,
        fin: false,
        block,
    }));
    let mut state = streams.lock().unwrap();
    let request = headers.get("requestid").unwrap().to_owned();
    let (payloads, received) = mpsc::channel(1);
    let arrived = Arc::new(Notify::new());
    let inlet = Inlet {
        payloads,
        arrived: arrived.clone(),
    };
    state.inlets.insert(stream, inlet);
    let half = Half {
        stream,
        headers,
        received,
        arrived,
    };
    let Some(other) = state.halves.remove(&request) else {
        state.halves.insert(request, half);
        return;
    };
    // Workers race each other.
    let is_data = half.headers.get("streamtype") == Some("data");
    let (data, other) = match is_data {
        true => (half, other.stream),
        false => (other, half.stream),
    };
    let Half {
        stream,
        headers,
        received,
        arrived,
    } = data;
    let port = headers.get("port").unwrap().parse().unwrap();
    let (streams, out) = (streams.clone(), out.clone());
    tokio::spawn(async move {
        let data = |stream, payload: Bytes, fin| {
            let _ = out.send(Frame::Data(Data {
                stream,
                payload,
                fin,
            }));
        };
        match TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await {
            Ok(socket) => {
                let _ = copy(socket, received, |payload| data(stream, payload, false)).await;
                data(stream, Bytes::new(), true);
                data(other, Bytes::new(), true);
            }
            Err(error) => {
                // The refusal comes after the client has sent, and nobody reads what it sent.
                arrived.notified().await;
                streams.lock().unwrap().abandoned.push(received);
                if port == MUTE {
                    return;
                }
                let text = format!("failed to connect to localhost:{port}: {error}");
                data(other, text.into(), true);
            }
        }
    });
}

async fn copy(
    mut socket: TcpStream,
    mut received: mpsc::Receiver<Bytes>,
    send: impl Fn(Bytes),
) -> io::Result<()> {
    let (mut read, mut write) = socket.split();
    let up = async {
        while let Some(payload) = received.recv().await {
            write.write_all(&payload).await?;
        }
        write.shutdown().await
    };
    let down = async {
        loop {
            let mut buffer = BytesMut::with_capacity(4096);
            if read.read_buf(&mut buffer).await? == 0 {
                return Ok(());
            }
            send(buffer.freeze());
        }
    };
    tokio::try_join!(up, down).map(drop)
}

/// One WebSocket, from its handshake on.
async fn serve(mut socket: TcpStream) -> io::Result<()> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        head.push(char::from(socket.read_u8().await?));
    }
    let key = head
        .lines()
        .filter_map(|line| line.split_once(": "))
        .find(|(name, _)| name.eq_ignore_ascii_case("sec-websocket-key"))
        .unwrap()
        .1;
    let accept = tokio_tungstenite::tungstenite::handshake::derive_accept_key(key.as_bytes());
    let answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {accept}\r\n\
         Sec-WebSocket-Protocol: SPDY/3.1+portforward.k8s.io\r\n\r\n"
    );
    socket.write_all(answer.as_bytes()).await?;
    let (mut read, mut write) = socket.into_split();
    let (out, mut frames) = mpsc::unbounded_channel::<Frame>();
    tokio::spawn(async move {
        let mut writer = HeaderWriter::new();
        while let Some(mut frame) = frames.recv().await {
            // Header blocks of a connection share one context.
            if let Frame::SynReply(reply) = &mut frame {
                reply.block = writer.write(&Headers::new()).unwrap();
            }
            let mut payload = BytesMut::new();
            frame.encode(&mut payload);
            let mut bytes = BytesMut::new();
            FrameHeader {
                fin: true,
                opcode: Opcode::Binary,
                mask: None,
                length: payload.len() as u64,
            }
            .encode(&mut bytes);
            bytes.extend_from_slice(&payload);
            if write.write_all(&bytes).await.is_err() {
                return;
            }
        }
    });
    let streams = Arc::<Mutex<Streams>>::default();
    let workers: Vec<_> = (0..WORKERS)
        .map(|_| {
            let (give, take) = mpsc::channel(QUEUE);
            tokio::spawn(worker(take, streams.clone(), out.clone()));
            give
        })
        .collect();
    let (mut websocket, mut spdy) = (Decoder::new(Role::Server, 1 << 24), spdy::Decoder::new());
    let (mut input, mut headers) = (BytesMut::new(), HeaderReader::new());
    loop {
        while let Some(message) = websocket.decode(&mut input).map_err(io::Error::other)? {
            let Message::Binary(mut bytes) = message else {
                continue;
            };
            while let Some(frame) = spdy.decode(&mut bytes).map_err(io::Error::other)? {
                let (stream, work) = match frame {
                    Frame::SynStream(frame) => {
                        let headers = headers.read(&frame.block).map_err(io::Error::other)?;
                        (frame.stream, Work::Open(frame.stream, headers))
                    }
                    Frame::Data(data) => (data.stream, Work::Data(data)),
                    Frame::RstStream(reset) => (reset.stream, Work::Reset(reset.stream)),
                    Frame::Ping(ping) => {
                        let _ = out.send(Frame::Ping(ping));
                        continue;
                    }
                    _ => continue,
                };
                let worker = &workers[stream.get() as usize % WORKERS];
                let _ = worker.send(work).await;
            }
        }
        if read.read_buf(&mut input).await? == 0 {
            return Ok(());
        }
    }
}

struct Fixture {
    tunnel: Tunnel,
    /// WebSockets so far.
    websockets: Arc<AtomicUsize>,
    /// Whether new ones are accepted and not answered.
    hang: Arc<AtomicBool>,
    _tasks: JoinSet<()>,
}

async fn listener() -> (TcpListener, u16) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, port)
}

impl Fixture {
    async fn new() -> Result<Self> {
        let (server, port) = listener().await;
        let websockets = Arc::new(AtomicUsize::new(0));
        let hang = Arc::new(AtomicBool::new(false));
        let (counted, hangs) = (websockets.clone(), hang.clone());
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            while let Ok((socket, _)) = server.accept().await {
                counted.fetch_add(1, Ordering::Relaxed);
                if hangs.load(Ordering::Relaxed) {
                    tokio::spawn(async move {
                        std::future::pending::<()>().await;
                        drop(socket);
                    });
                } else {
                    tokio::spawn(serve(socket));
                }
            }
        });
        let client = Client::new(&Config::new(&format!("http://127.0.0.1:{port}"))?)?;
        let tunnel = client
            .pod("default", "web-0")
            .port_forward()
            .connect()
            .await?;
        Ok(Self {
            tunnel,
            websockets,
            hang,
            _tasks: tasks,
        })
    }

    /// An application that sends back what it gets; its port.
    async fn echo(&mut self) -> u16 {
        let (listener, port) = listener().await;
        self._tasks.spawn(async move {
            while let Ok((mut socket, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let (mut read, mut write) = socket.split();
                    tokio::io::copy(&mut read, &mut write).await
                });
            }
        });
        port
    }

    /// An application that accepts and reads nothing; its port.
    async fn stuck(&mut self) -> u16 {
        let (listener, port) = listener().await;
        self._tasks.spawn(async move {
            let mut sockets = Vec::new();
            while let Ok((socket, _)) = listener.accept().await {
                sockets.push(socket);
            }
        });
        port
    }
}

async fn round_trip(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    text: &[u8],
) -> io::Result<()> {
    stream.write_all(text).await?;
    let mut answer = vec![0; text.len()];
    stream.read_exact(&mut answer).await?;
    assert_eq!(answer, text);
    Ok(())
}

/// Forty connections at once, all of which are answered.
async fn forty_at_once<S, F>(open: impl Fn() -> F) -> Result
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    F: Future<Output = io::Result<S>> + Send + 'static,
{
    let mut connections = JoinSet::new();
    for _ in 0..40 {
        let opening = open();
        connections.spawn(async move {
            let stream = opening.await?;
            round_trip(stream, b"GET / HTTP/1.1\r\n\r\n").await
        });
    }
    for answer in soon(connections.join_all()).await {
        answer?;
    }
    Ok(())
}

/// Forty connections one after the other, all of which are answered.
async fn forty_in_a_row(tunnel: &Tunnel, port: u16) -> Result {
    for _ in 0..40 {
        let stream = tunnel.open(port).await?;
        soon(round_trip(stream, b"all are answered")).await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_refused_connection_that_was_written_to_hangs_no_other() -> Result {
    let mut fixture = Fixture::new().await?;
    let echo = fixture.echo().await;
    let nobody = listener().await.1;
    let good = fixture.tunnel.listen("127.0.0.1:0", echo).await?;
    let bad = fixture.tunnel.listen("127.0.0.1:0", nobody).await?;
    let mut before = TcpStream::connect(good.local_addrs()[0]).await?;
    soon(round_trip(&mut before, b"before")).await?;
    let mut refused = TcpStream::connect(bad.local_addrs()[0]).await?;
    refused.write_all(b"GET / HTTP/1.1\r\n\r\n").await?;
    // It is told, and its bytes are never read.
    let told = soon(refused.read_u8()).await.unwrap_err();
    assert_eq!(told.kind(), io::ErrorKind::ConnectionReset);
    let address = good.local_addrs()[0];
    // The very next one goes elsewhere; it is not tried here first.
    soon(round_trip(TcpStream::connect(address).await?, b"next")).await?;
    assert_eq!(fixture.websockets.load(Ordering::Relaxed), 2);
    forty_at_once(|| TcpStream::connect(address)).await?;
    soon(round_trip(&mut before, b"after")).await?;
    assert_eq!(fixture.websockets.load(Ordering::Relaxed), 2);
    Ok(())
}

#[tokio::test]
async fn a_refused_connection_whose_handle_has_gone_hangs_no_other() -> Result {
    let mut fixture = Fixture::new().await?;
    let echo = fixture.echo().await;
    let nobody = listener().await.1;
    let mut refused = fixture.tunnel.open(nobody).await?;
    refused.write_all(b"and gone").await?;
    drop(refused);
    // When the refusal has come, the next connection takes another WebSocket.
    let another = async {
        while fixture.websockets.load(Ordering::Relaxed) < 2 {
            let stream = fixture.tunnel.open(echo).await.unwrap();
            let wait = Duration::from_millis(100);
            let _ = tokio::time::timeout(wait, round_trip(stream, b"x")).await;
        }
    };
    soon(Box::pin(another)).await;
    forty_in_a_row(&fixture.tunnel, echo).await?;
    Ok(())
}

#[tokio::test]
async fn until_a_refusal_has_come_others_are_answered_within_a_bound() -> Result {
    let mut fixture = Fixture::new().await?;
    let echo = fixture.echo().await;
    let mut before = fixture.tunnel.open(echo).await?;
    soon(round_trip(&mut before, b"before")).await?;
    let mut refused = fixture.tunnel.open(MUTE).await?;
    refused.write_all(b"GET / HTTP/1.1\r\n\r\n").await?;
    refused.flush().await?;
    forty_at_once(|| {
        let tunnel = fixture.tunnel.clone();
        async move { tunnel.open(echo).await.map_err(io::Error::from) }
    })
    .await?;
    soon(round_trip(&mut before, b"after")).await?;
    assert_eq!(fixture.websockets.load(Ordering::Relaxed), 2);
    Ok(())
}

#[tokio::test]
async fn a_handle_dropped_before_the_refusal_hangs_no_other() -> Result {
    let mut fixture = Fixture::new().await?;
    let echo = fixture.echo().await;
    let mut refused = fixture.tunnel.open(MUTE).await?;
    refused.write_all(b"and gone").await?;
    drop(refused);
    forty_in_a_row(&fixture.tunnel, echo).await?;
    assert_eq!(fixture.websockets.load(Ordering::Relaxed), 2);
    Ok(())
}

#[tokio::test]
async fn those_who_wait_for_a_server_that_hangs_share_one_dial() -> Result {
    let mut fixture = Fixture::new().await?;
    let echo = fixture.echo().await;
    soon(round_trip(fixture.tunnel.open(echo).await?, b"it works")).await?;
    // From here on it accepts, and answers nothing.
    fixture.hang.store(true, Ordering::Relaxed);
    fixture.tunnel.close().await;
    tokio::time::pause();
    let begin = tokio::time::Instant::now();
    let mut waiting = JoinSet::new();
    for _ in 0..40 {
        let tunnel = fixture.tunnel.clone();
        waiting.spawn(async move { tunnel.try_open(echo).await.map(drop) });
    }
    let errors = waiting.join_all().await;
    assert!(errors.iter().all(Result::is_err), "{errors:?}");
    assert!(begin.elapsed() < 2 * limits::OPEN, "{:?}", begin.elapsed());
    // It is locked for nobody who asks for something else.
    fixture.tunnel.close().await;
    assert_eq!(fixture.websockets.load(Ordering::Relaxed), 2);
    Ok(())
}

#[tokio::test]
async fn an_application_that_stops_reading_hangs_no_other_connection() -> Result {
    let mut fixture = Fixture::new().await?;
    let (echo, stuck) = (fixture.echo().await, fixture.stuck().await);
    let mut stream = fixture.tunnel.open(stuck).await?;
    let progress = Arc::new(Mutex::new(Instant::now()));
    let seen = progress.clone();
    let writing = tokio::spawn(async move {
        while stream.write_all(&[7; 16 << 10]).await.is_ok() {
            *seen.lock().unwrap() = Instant::now();
        }
    });
    loop {
        let since = progress.lock().unwrap().elapsed();
        if since > limits::FORWARD_STALL {
            break;
        }
        tokio::time::sleep(limits::FORWARD_STALL).await;
    }
    for _ in 0..40 {
        let stream = fixture.tunnel.open(echo).await?;
        soon(round_trip(stream, b"all are answered")).await?;
    }
    assert_eq!(fixture.websockets.load(Ordering::Relaxed), 2);
    assert!(!writing.is_finished(), "it goes on as it was");
    writing.abort();
    Ok(())
}

/// Each leaves its bytes unread, and those to the other port come in between.
#[tokio::test]
async fn many_that_are_refused_at_once_hang_none_to_another_port() -> Result {
    for answered_before in [true, false] {
        let mut fixture = Fixture::new().await?;
        let echo = fixture.echo().await;
        let nobody = listener().await.1;
        if answered_before {
            soon(round_trip(fixture.tunnel.open(echo).await?, b"before")).await?;
        }
        let mut refused = JoinSet::new();
        for _ in 0..60 {
            let tunnel = fixture.tunnel.clone();
            refused.spawn(async move {
                let mut stream = tunnel.open(nobody).await?;
                stream.write_all(b"GET / HTTP/1.1\r\n\r\n").await?;
                stream.read_u8().await
            });
        }
        forty_at_once(|| {
            let tunnel = fixture.tunnel.clone();
            async move { tunnel.open(echo).await.map_err(io::Error::from) }
        })
        .await?;
        forty_in_a_row(&fixture.tunnel, echo).await?;
        assert!(fixture.websockets.load(Ordering::Relaxed) <= 2 + limits::FORWARD_APART);
    }
    Ok(())
}

//! Against a server that speaks HTTP/2 over TLS.

use std::future::poll_fn;

use bytes::Bytes;
use h2::server::{Connection, SendResponse};
use rustls::{ServerConfig, pki_types::PrivateKeyDer};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::mpsc,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use super::*;
use crate::session::{logs::LogEnd, watch::Update};

type Tls = TlsStream<TcpStream>;

struct Server {
    listener: TcpListener,
    acceptor: TlsAcceptor,
}

/// A server, and a client that trusts it.
async fn server() -> (Server, Client) {
    let names = vec!["127.0.0.1".to_owned()];
    let signed = rcgen::generate_simple_self_signed(names).unwrap();
    let key = PrivateKeyDer::try_from(signed.signing_key.serialize_der()).unwrap();
    let provider = crate::net::provider::provider();
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![signed.cert.der().clone()], key)
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    let config_of_client = Config::new(&url).unwrap();
    let config_of_client = config_of_client.with_ca_pem(signed.cert.pem());
    let server = Server {
        listener,
        acceptor: TlsAcceptor::from(Arc::new(config)),
    };
    (server, Client::new(&config_of_client).unwrap())
}

impl Server {
    async fn accept(&self) -> Tls {
        let (tcp, _) = self.listener.accept().await.unwrap();
        self.acceptor.accept(tcp).await.unwrap()
    }
}

fn ok(mut respond: SendResponse<Bytes>) {
    respond.send_response(Response::new(()), true).unwrap();
}

/// Answers every request of a connection with 200, until it ends.
async fn answer_all(tls: Tls) {
    let mut connection: Connection<_, Bytes> = h2::server::handshake(tls).await.unwrap();
    while let Some(Ok((_, respond))) = connection.accept().await {
        ok(respond);
    }
}

/// An HTTP/2 frame (RFC 9113, section 4.1).
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = length[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;

/// The bytes that answer the request of a stream.
type Answer = Box<dyn FnOnce(u32) -> Vec<u8> + Send>;

/// A head that is followed by more: `:status: 200` and a content type (RFC 7541, appendix A).
fn begun(stream: u32, body: &str) -> Vec<u8> {
    let head = [&[0x88, 0x0f, 0x10, 16], &b"application/json"[..]].concat();
    let body = frame(DATA, 0, stream, body.as_bytes());
    [frame(HEADERS, 0x4, stream, &head), body].concat()
}

/// The rest of an answer, and its end.
fn whole(stream: u32, rest: &str) -> Vec<u8> {
    frame(DATA, 0x1, stream, rest.as_bytes())
}

fn reset(stream: u32, code: u32) -> Vec<u8> {
    frame(RST_STREAM, 0, stream, &code.to_be_bytes())
}

fn go_away(last: u32, code: u32) -> Vec<u8> {
    let payload = [last, code].map(u32::to_be_bytes).concat();
    frame(GOAWAY, 0, 0, &payload)
}

/// Answers the first requests of all so, and each one after them with 200; a connection that goes
/// away ends.
async fn answer_by_hand(server: Server, answers: Vec<Answer>) {
    let answers = Arc::new(Mutex::new(answers.into_iter()));
    loop {
        let mut tls = server.accept().await;
        let answers = Arc::clone(&answers);
        tokio::spawn(async move {
            let mut preface = [0; 24];
            tls.read_exact(&mut preface).await?;
            tls.write_all(&frame(SETTINGS, 0, 0, &[])).await?;
            let mut head = [0; 9];
            while tls.read_exact(&mut head).await.is_ok() {
                let [_, a, b, kind, _, stream @ ..] = head;
                let mut payload = vec![0; usize::from(u16::from_be_bytes([a, b]))];
                tls.read_exact(&mut payload).await?;
                if kind == HEADERS {
                    let stream = u32::from_be_bytes(stream);
                    let next = answers.lock().unwrap().next();
                    // The end of the stream and of its headers.
                    let ok = || frame(HEADERS, 0x5, stream, &[0x88]);
                    let answer = next.map_or_else(ok, |answer| answer(stream));
                    tls.write_all(&answer).await?;
                    if answer.ends_with(&go_away(stream, 0)) {
                        return tls.shutdown().await;
                    }
                }
            }
            Ok(())
        });
    }
}

#[tokio::test]
async fn what_the_server_has_not_begun_with_is_sent_again_whatever_it_is() {
    for (what, answer, sent_again) in [
        ("GOAWAY, last stream 0", go_away(0, 0), true),
        ("the same, with an error", go_away(0, 2), true),
        ("REFUSED_STREAM", reset(1, 7), true),
        ("NO_ERROR", reset(1, 0), false),
        ("INTERNAL_ERROR", reset(1, 2), false),
        ("CANCEL", reset(1, 8), false),
        ("GOAWAY, last stream 1", go_away(1, 0), false),
    ] {
        for method in [Method::POST, Method::PATCH] {
            let (server, client) = server().await;
            let answer = answer.clone();
            tokio::spawn(answer_by_hand(server, vec![Box::new(|_| answer)]));
            let status = send(&client, method.clone()).await;
            assert_eq!(status.is_ok(), sent_again, "{what}, {method}: {status:?}");
        }
    }
}

/// A server under load is not asked again and again at once.
#[tokio::test]
async fn what_the_server_does_not_begin_with_is_given_up() {
    for refusal in [reset(1, 7), go_away(0, 11)] {
        let (server, client) = server().await;
        let (asked, mut times) = mpsc::unbounded_channel();
        let answer = || -> Answer {
            let (asked, refusal) = (asked.clone(), refusal.clone());
            Box::new(move |stream| {
                let _ = asked.send(Instant::now());
                match refusal[3] {
                    RST_STREAM => reset(stream, 7),
                    _ => refusal,
                }
            })
        };
        tokio::spawn(answer_by_hand(server, (0..99).map(|_| answer()).collect()));
        let error = send(&client, Method::POST).await.unwrap_err();
        assert!(error.to_string().contains("the server "), "{error}");
        times.close();
        let first = times.recv().await.unwrap();
        let mut last = (first, 1);
        while let Some(at) = times.recv().await {
            last = (at, last.1 + 1);
        }
        assert!(last.1 <= 8, "{} times", last.1);
        assert!(last.0 - first >= Duration::from_secs(4), "{last:?}");
    }
}

#[tokio::test]
async fn a_server_that_allows_two_streams_gets_another_connection_for_the_third_request() {
    let (server, client) = server().await;
    let (asked, mut asking) = mpsc::unbounded_channel();
    let connections = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&connections);
    tokio::spawn(async move {
        loop {
            let tls = server.accept().await;
            count.fetch_add(1, Ordering::Relaxed);
            let asked = asked.clone();
            tokio::spawn(async move {
                let mut builder = h2::server::Builder::new();
                let builder = builder.max_concurrent_streams(2);
                let mut connection = builder.handshake::<_, Bytes>(tls).await.unwrap();
                while let Some(Ok((_, respond))) = connection.accept().await {
                    asked.send(respond).unwrap();
                }
            });
        }
    });
    let mut requests = tokio::task::JoinSet::new();
    for _ in 0..5 {
        let client = client.clone();
        requests.spawn(async move { send(&client, Method::POST).await });
    }
    // None is answered before all have come.
    let mut waiting = Vec::new();
    while waiting.len() < 5 {
        waiting.push(asking.recv().await.unwrap());
    }
    waiting.into_iter().for_each(ok);
    for status in requests.join_all().await {
        assert_eq!(status.unwrap(), 200);
    }
    assert_eq!(connections.load(Ordering::Relaxed), 3);
}

#[tokio::test]
async fn many_requests_at_once_share_one_connection() {
    let (server, client) = server().await;
    let mut requests = tokio::task::JoinSet::new();
    for _ in 0..50 {
        let client = client.clone();
        requests.spawn(async move { send(&client, Method::GET).await });
    }
    let serve = async {
        answer_all(server.accept().await).await;
    };
    let second = async {
        requests.join_all().await.into_iter().for_each(|status| {
            assert_eq!(status.unwrap(), 200);
        });
    };
    tokio::select! {
        () = serve => panic!("the connection ended"),
        () = second => {}
    }
}

#[tokio::test]
async fn an_http2_connection_ends_when_it_has_been_idle_for_long() {
    let (server, client) = server().await;
    let served = tokio::spawn(async move {
        let tls = server.accept().await;
        let mut connection: Connection<_, Bytes> = h2::server::handshake(tls).await.unwrap();
        while let Some(Ok((_, respond))) = connection.accept().await {
            ok(respond);
        }
        poll_fn(|cx| connection.poll_closed(cx)).await
    });
    assert_eq!(send(&client, Method::GET).await.unwrap(), 200);
    tokio::time::pause();
    tokio::time::advance(limits::IDLE_CONNECTION * 2).await;
    tokio::time::resume();
    served.await.unwrap().expect("it ends in order");
}

/// The body of the answer to a GET.
async fn get(client: &Client) -> Result<Bytes> {
    let response = client
        .http()
        .send(Outgoing::get("test", "/version"))
        .await?;
    response.into_body().bytes(1 << 10).await
}

/// How an answer ends in its midst: each code of a reset, the last one unknown, and both ways to
/// go away.
fn ends() -> impl Iterator<Item = (String, Answer)> {
    let resets = (0..=14).map(|code| {
        let answer: Answer = Box::new(move |stream| reset(stream, code));
        (format!("RST_STREAM {code}"), answer)
    });
    let go_away: Answer = Box::new(|stream| go_away(stream, 0));
    resets.chain([("GOAWAY and FIN".to_owned(), go_away)])
}

#[tokio::test]
async fn an_answer_that_is_reset_in_its_midst_is_lost() {
    for (what, end) in ends() {
        let (server, client) = server().await;
        let answer: Answer = Box::new(|stream| [begun(stream, "hal"), end(stream)].concat());
        tokio::spawn(answer_by_hand(server, vec![answer]));
        let error = get(&client).await.expect_err(&what);
        assert!(matches!(error, Error::Network(_)), "{what}: {error}");
        assert!(error.is_retryable(), "{what}: {error}");
        // What the server did is told by the name of its code, not in the words of a library.
        let text = error.to_string();
        assert!(!text.contains("error received"), "{what}: {text}");
        let is_told = text.contains("the server has reset the stream: ");
        let is_cut = what.contains("GOAWAY") || what == "RST_STREAM 0";
        assert!(is_told != is_cut, "{what}: {text}");
        assert_eq!(get(&client).await.unwrap(), "", "{what}");
    }
    let (server, client) = server().await;
    let answer: Answer =
        Box::new(|at| [begun(at, "wh"), go_away(at, 0), whole(at, "ole")].concat());
    tokio::spawn(answer_by_hand(server, vec![answer]));
    assert_eq!(get(&client).await.unwrap(), "whole");
    assert_eq!(get(&client).await.unwrap(), "");
}

#[tokio::test]
async fn a_server_that_answers_no_ping_is_silent() {
    let (server, client) = server().await;
    let (asks, mut asked) = mpsc::channel(1);
    let answer: Answer = Box::new(move |_| {
        asks.try_send(()).unwrap();
        Vec::new()
    });
    tokio::spawn(answer_by_hand(server, vec![answer]));
    // It may have been carried out, and is not sent again.
    let sending = tokio::spawn(async move { send(&client, Method::POST).await });
    asked.recv().await.unwrap();
    tokio::time::pause();
    let error = sending.await.unwrap().unwrap_err();
    let expected = limits::HTTP2_PING + limits::HTTP2_PONG;
    assert!(
        matches!(error, Error::Network(NetworkError::Silent { silent }) if silent == expected),
        "{error}"
    );
}

#[tokio::test]
async fn a_server_that_answers_no_ping_is_silent_in_a_body_too() {
    let (server, client) = server().await;
    let answer: Answer = Box::new(|stream| begun(stream, "half"));
    tokio::spawn(answer_by_hand(server, vec![answer]));
    let response = client.http().send(Outgoing::get("test", "/version")).await;
    let mut body = response.unwrap().into_body();
    assert_eq!(body.chunk().await.unwrap().unwrap(), "half");
    tokio::time::pause();
    let error = body.chunk().await.unwrap_err();
    assert!(
        matches!(error, Error::Network(NetworkError::Silent { silent }) if silent >= limits::HTTP2_PING),
        "{error}"
    );
}

#[tokio::test]
async fn frames_that_are_no_http2_are_the_server_s_fault() {
    let too_large = [&[0xff; 3][..], &[0; 6]].concat();
    for (what, broken) in [
        ("data of no stream", frame(DATA, 0, 0, b"x")),
        (
            "a head that is no HPACK",
            frame(HEADERS, 0x4, 1, &[0xff; 4]),
        ),
        ("a frame that is too large", too_large),
        ("settings of half a setting", frame(SETTINGS, 0, 0, &[0; 3])),
        ("a window of nothing", frame(8, 0, 0, &[0; 4])),
        (
            "a window that overflows",
            frame(8, 0, 0, &[0x7f, 0xff, 0xff, 0xff]),
        ),
        ("a promise", frame(5, 0x4, 1, &[0, 0, 0, 2, 0x82])),
        ("a reset of no stream", reset(0, 0)),
        ("data before its head", frame(DATA, 0, 1, b"x")),
    ] {
        let (server, client) = server().await;
        tokio::spawn(answer_by_hand(server, vec![Box::new(|_| broken)]));
        let error = get(&client).await.expect_err(what);
        assert!(
            matches!(error, Error::Peer(PeerError::Http(_))),
            "{what}: {error:#?}"
        );
    }
}

#[tokio::test]
async fn a_log_that_is_reset_goes_on_where_it_was() {
    const LINES: [&str; 2] = ["2026-01-01T00:00:00.5Z one\n", "2026-01-01T00:00:01Z two\n"];
    let mut tasks = tokio::task::JoinSet::new();
    for (what, end) in ends() {
        let (server, client) = server().await;
        let first: Answer = Box::new(|at| [begun(at, LINES[0]), end(at)].concat());
        let second: Answer = Box::new(|at| [begun(at, LINES[0]), whole(at, LINES[1])].concat());
        tokio::spawn(answer_by_hand(server, vec![first, second]));
        tasks.spawn(async move {
            let mut lines = client.pod("a", "p").logs().stream();
            let mut texts = Vec::new();
            while let Some(line) = lines.next().await {
                texts.push(line.expect(&what).to_string());
            }
            assert_eq!(texts, ["one", "two"], "{what}");
            assert!(matches!(lines.end(), Some(LogEnd::Complete)), "{what}");
            assert_eq!(lines.stats().retries, 1, "{what}");
        });
    }
    tasks.join_all().await;
}

#[tokio::test]
async fn a_watch_that_is_reset_goes_on_where_it_was() {
    let event = |name: &str| {
        let version = 5 + name.len();
        format!(
            r#"{{"type":"ADDED","object":{{"kind":"Pod","apiVersion":"v1","metadata":{{"name":"{name}","resourceVersion":"{version}"}}}}}}"#
        ) + "\n"
    };
    for (what, end) in ends() {
        let (server, client) = server().await;
        let answers = ["a", "bb"].map(event);
        let [a, b] = answers;
        let first: Answer = Box::new(move |at| [begun(at, &a), end(at)].concat());
        let second: Answer = Box::new(move |at| begun(at, &b));
        tokio::spawn(answer_by_hand(server, vec![first, second]));
        let pods = Resource::namespaced("", "v1", "pods");
        let mut updates = client.watch(pods).from("5").stream();
        let mut seen = Vec::new();
        while seen.len() < 2 {
            match updates.next().await.expect(&what).expect(&what) {
                Update::Event(event) => {
                    seen.push(
                        event
                            .object
                            .metadata()
                            .unwrap()
                            .resource_version()
                            .unwrap()
                            .into_owned(),
                    );
                }
                update => panic!("{what}: {update:?}"),
            }
        }
        assert_eq!(seen, ["6", "7"], "{what}");
    }
}

#[tokio::test]
async fn a_reader_that_sleeps_holds_up_no_other_request_of_its_connection() {
    let (server, client) = server().await;
    tokio::spawn(async move {
        let tls = server.accept().await;
        let mut connection: Connection<_, Bytes> = h2::server::handshake(tls).await.unwrap();
        while let Some(Ok((request, mut respond))) = connection.accept().await {
            if !request.uri().path().ends_with("/log") {
                ok(respond);
                continue;
            }
            let head = Response::builder().header("content-type", "text/plain");
            let mut body = respond
                .send_response(head.body(()).unwrap(), false)
                .unwrap();
            tokio::spawn(async move {
                let line = Bytes::from("2026-01-01T00:00:00Z x\n".repeat(1000));
                loop {
                    body.reserve_capacity(line.len());
                    match poll_fn(|cx| body.poll_capacity(cx)).await {
                        Some(Ok(room)) => body
                            .send_data(line.slice(..room.min(line.len())), false)
                            .unwrap(),
                        _ => return,
                    }
                }
            });
        }
    });
    let mut logs = Vec::new();
    for _ in 0..8 {
        let mut lines = client.pod("a", "p").logs().stream();
        lines.next().await.unwrap().unwrap();
        logs.push(lines);
    }
    for _ in 0..20 {
        assert_eq!(send(&client, Method::GET).await.unwrap(), 200);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

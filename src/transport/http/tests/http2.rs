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

const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;

/// Answers the first request of all with these bytes, and each one after it with 200.
async fn answer_first(server: Server, mut answer: Option<Vec<u8>>) {
    loop {
        let mut tls = server.accept().await;
        let first = answer.take();
        tokio::spawn(answer_by_hand(first, async move {
            let mut preface = [0; 24];
            tls.read_exact(&mut preface).await.unwrap();
            tls.write_all(&frame(SETTINGS, 0, 0, &[])).await.unwrap();
            tls
        }));
    }
}

async fn answer_by_hand(mut first: Option<Vec<u8>>, begun: impl Future<Output = Tls>) {
    let mut tls = begun.await;
    let mut head = [0; 9];
    while tls.read_exact(&mut head).await.is_ok() {
        let [_, a, b, kind, _, stream @ ..] = head;
        let mut payload = vec![0; usize::from(u16::from_be_bytes([a, b]))];
        tls.read_exact(&mut payload).await.unwrap();
        if kind == HEADERS {
            // The end of the stream and of its headers; `:status: 200` (RFC 7541, appendix A).
            let ok = || frame(HEADERS, 0x5, u32::from_be_bytes(stream), &[0x88]);
            let answer = first.take().unwrap_or_else(ok);
            tls.write_all(&answer).await.unwrap();
        }
    }
}

#[tokio::test]
async fn what_the_server_has_not_begun_with_is_sent_again_whatever_it_is() {
    let code = u32::to_be_bytes;
    let go_away = |last: u32| frame(GOAWAY, 0, 0, &[code(last), code(0)].concat());
    for (what, answer, sent_again) in [
        ("GOAWAY, last stream 0", go_away(0), true),
        ("REFUSED_STREAM", frame(RST_STREAM, 0, 1, &code(7)), true),
        ("INTERNAL_ERROR", frame(RST_STREAM, 0, 1, &code(2)), false),
    ] {
        for method in [Method::POST, Method::PATCH] {
            let (server, client) = server().await;
            tokio::spawn(answer_first(server, Some(answer.clone())));
            let status = send(&client, method.clone()).await;
            assert_eq!(status.is_ok(), sent_again, "{what}, {method}: {status:?}");
        }
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

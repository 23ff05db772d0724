//! Every await ends: a server that stalls at each step, in virtual time over a connection in
//! memory, and the bound that ends it.

#![cfg(feature = "client")]
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::{io, net::SocketAddr, pin::Pin, time::Duration};

use kubewire::{
    Client, Config, Error, Resource, config::KubeconfigOptions, error::NetworkError, exec::Stdio,
    limits,
};
use serde_json::Value;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, duplex},
    net::{TcpSocket, TcpStream},
    time::Instant,
};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

/// Where the server stalls.
#[derive(Debug, Clone, Copy)]
enum Stall {
    Dial,
    /// What it is sent, it reads.
    Silent,
    /// After these bytes behind each head.
    After(&'static str),
    /// Behind these bytes one comes each second, without end.
    Dribbles(&'static str),
    /// After the upgrade, and these bytes of frames.
    Upgraded(&'static [u8]),
}

async fn serve(mut io: impl AsyncRead + AsyncWrite + Unpin, stall: Stall) -> io::Result<()> {
    let mut head = Vec::new();
    match stall {
        Stall::Dial => return Ok(()),
        Stall::Silent => {}
        Stall::After(_) | Stall::Dribbles(_) | Stall::Upgraded(_) => {
            while !head.ends_with(b"\r\n\r\n") {
                head.push(io.read_u8().await?);
            }
        }
    }
    match stall {
        Stall::After(text) => io.write_all(text.as_bytes()).await?,
        Stall::Dribbles(text) => {
            io.write_all(text.as_bytes()).await?;
            loop {
                tokio::time::sleep(Duration::from_secs(1)).await;
                io.write_all(b" ").await?;
            }
        }
        Stall::Upgraded(frames) => {
            let head = String::from_utf8(head).unwrap();
            let value = |name: &str| {
                let line = head.lines().find_map(|line| {
                    let (key, value) = line.split_once(": ")?;
                    key.eq_ignore_ascii_case(name).then_some(value)
                });
                line.unwrap().split(',').next().unwrap().trim()
            };
            let accept = derive_accept_key(value("sec-websocket-key").as_bytes());
            let protocol = value("sec-websocket-protocol");
            let answer = format!(
                "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\
                 Connection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n\
                 Sec-WebSocket-Protocol: {protocol}\r\n\r\n"
            );
            io.write_all(answer.as_bytes()).await?;
            io.write_all(frames).await?;
        }
        _ => {}
    }
    tokio::io::copy(&mut io, &mut tokio::io::sink()).await?;
    Ok(())
}

fn client(url: &str, proxy: Option<&str>, stall: Stall) -> Client {
    Client::new(&config(url, proxy, stall)).unwrap()
}

fn config(url: &str, proxy: Option<&str>, stall: Stall) -> Config {
    let mut config = Config::new(url).unwrap().with_insecure_skip_tls_verify();
    if let Some(proxy) = proxy {
        config = config.with_proxy(proxy).unwrap();
    }
    config.with_dialer(move |_, _| async move {
        if matches!(stall, Stall::Dial) {
            return std::future::pending().await;
        }
        let (ours, theirs) = duplex(64 << 10);
        tokio::spawn(serve(theirs, stall));
        Ok(ours)
    })
}

type Outcome = Pin<Box<dyn Future<Output = Result<(), Error>>>>;
type Work = fn(Client) -> Outcome;
/// A step, the URL of the server and of a proxy, the stall, what waits, and what ends it.
type Row = (
    &'static str,
    &'static str,
    Option<&'static str>,
    Stall,
    Work,
    Duration,
);

fn things() -> Resource {
    Resource::namespaced("example.com", "v1", "things")
}

fn get(client: Client) -> Outcome {
    Box::pin(async move { client.request(things()).get::<Value>("a").await.map(drop) })
}

fn list(client: Client) -> Outcome {
    Box::pin(async move { client.request(things()).list::<Value>().await.map(drop) })
}

fn exec(client: Client) -> Outcome {
    let pod = client.pod("default", "web-0");
    Box::pin(async move { pod.exec(["true"]).container("c").output().await.map(drop) })
}

fn fed(client: Client) -> Outcome {
    let pod = client.pod("default", "web-0");
    Box::pin(async move {
        let exec = pod.exec(["cat"]).container("c").input("unread");
        exec.output().await.map(drop)
    })
}

fn attach(client: Client) -> Outcome {
    let pod = client.pod("default", "web-0");
    Box::pin(async move {
        let attach = pod.attach().container("c").stderr(Stdio::null());
        let mut attached = attach.spawn().await?;
        attached.wait().await.map(drop)
    })
}

fn forward(client: Client) -> Outcome {
    let pod = client.pod("default", "web-0");
    Box::pin(async move {
        let tunnel = pod.port_forward().connect().await?;
        let mut stream = tunnel.open(80).await?;
        let error = stream.read_u8().await.expect_err("nothing was sent");
        let error = error.into_inner().expect("a cause").downcast();
        Err(*error.expect("an error of the library"))
    })
}

fn discover(client: Client) -> Outcome {
    Box::pin(async move { client.find("things").await.map(drop) })
}

const GET_HEAD: &str =
    "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 999\r\n\r\n{";
const REFUSAL: &str =
    "HTTP/1.1 403 Forbidden\r\nContent-Type: application/json\r\nContent-Length: 999\r\n\r\n{";
/// Channel 3 and a Status, and no close frame behind it.
const STATUS: &[u8] = b"\x82\x25\x03{\"kind\":\"Status\",\"status\":\"Success\"}";

#[tokio::test(start_paused = true)]
async fn a_stall_at_each_step_ends_at_its_bound() {
    let plain = "http://api.test";
    let tls = "https://api.test";
    let http = Some("http://proxy.test:3128");
    let socks = Some("socks5://proxy.test:1080");
    let none = None;
    let upgraded = Stall::Upgraded(b"");
    #[rustfmt::skip]
    let table: &[Row] = &[
        ("connect",              plain, none,  Stall::Dial,            get,      limits::CONNECT),
        ("connect to a proxy",   plain, http,  Stall::Dial,            exec,     limits::CONNECT),
        ("HTTP proxy's answer",  plain, http,  Stall::Silent,          exec,     limits::CONNECT),
        ("half of that",         tls,   http,  Stall::After("HTTP/1"), exec,     limits::CONNECT),
        ("SOCKS proxy's answer", tls,   socks, Stall::Silent,          exec,     limits::CONNECT),
        ("TLS, request",         tls,   none,  Stall::Silent,          get,      limits::TLS_HANDSHAKE),
        ("TLS, exec",            tls,   none,  Stall::Silent,          exec,     limits::TLS_HANDSHAKE),
        ("head",                 plain, none,  Stall::Silent,          get,      limits::REQUEST),
        ("half a head",          plain, none,  Stall::After("HTTP/1"), get,      limits::REQUEST),
        ("body",                 plain, none,  Stall::After(GET_HEAD), get,      limits::REQUEST),
        ("body of a list",       plain, none,  Stall::After(GET_HEAD), list,     limits::REQUEST),
        ("body of a refusal",    plain, none,  Stall::After(REFUSAL),  get,      limits::CLOSE_GRACE),
        ("discovery",            plain, none,  Stall::Silent,          discover, limits::REQUEST),
        ("body of discovery",    plain, none,  Stall::After(GET_HEAD), discover, limits::REQUEST),
        ("upgrade, exec",        plain, none,  Stall::Silent,          exec,     limits::OPEN),
        ("half an upgrade",      plain, none,  Stall::After("HTTP/1"), exec,     limits::OPEN),
        ("upgrade, attach",      plain, none,  Stall::Silent,          attach,   limits::OPEN),
        ("upgrade, forward",     plain, none,  Stall::Silent,          forward,  limits::OPEN),
        ("refused upgrade",      plain, none,  Stall::After(REFUSAL),  exec,     limits::CLOSE_GRACE),
        ("first frame, exec",    plain, none,  upgraded,               exec,     limits::SILENCE),
        ("first frame, attach",  plain, none,  upgraded,               attach,   limits::SILENCE),
        ("half a frame",         plain, none,  Stall::Upgraded(b"\x82"), exec,   limits::SILENCE),
        ("input unread",         plain, none,  upgraded,               fed,      limits::UNREAD),
        ("reply, forward",       plain, none,  upgraded,               forward,  limits::FORWARD_REPLY),
    ];
    for &(step, url, proxy, stall, work, bound) in table {
        let client = client(url, proxy, stall);
        let began = Instant::now();
        let result = tokio::time::timeout(Duration::from_secs(1 << 20), work(client)).await;
        let took = began.elapsed();
        let Ok(result) = result else {
            panic!("{step}: no bound ends it");
        };
        let error = result.expect_err(step);
        assert!(
            took >= bound && took < bound + Duration::from_secs(1),
            "{step}: {took:?} instead of {bound:?}: {error}"
        );
        match error {
            // The code of a refusal is enough.
            Error::Api(_) => assert_eq!(bound, limits::CLOSE_GRACE, "{step}"),
            Error::Network(
                NetworkError::TimedOut { .. }
                | NetworkError::Silent { .. }
                | NetworkError::Proxy { .. }
                | NetworkError::Tls { .. },
            ) => {}
            other => panic!("{step}: {other:?}"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_configuration_bounds_every_answer() {
    let bound = Duration::from_secs(3);
    let head = Stall::After("HTTP/1");
    let table: &[(Stall, Work)] = &[
        (Stall::Silent, get),
        (Stall::Silent, list),
        (Stall::Silent, discover),
        (Stall::Silent, exec),
        (Stall::Silent, attach),
        (Stall::Silent, forward),
        (head, get),
        (head, exec),
        (Stall::After(GET_HEAD), get),
        (Stall::After(GET_HEAD), list),
        (Stall::After(GET_HEAD), discover),
        (Stall::Dribbles(GET_HEAD), get),
        (Stall::Dribbles(GET_HEAD), list),
        (Stall::Dribbles(GET_HEAD), discover),
    ];
    for &(stall, work) in table {
        let config = config("http://api.test", None, stall).with_request_timeout(bound);
        let began = Instant::now();
        let error = work(Client::new(&config).unwrap()).await.unwrap_err();
        let took = began.elapsed();
        let is_in_time = took >= bound && took < bound + Duration::from_secs(1);
        assert!(is_in_time, "{stall:?}: {took:?}: {error}");
        assert!(error.to_string().ends_with("3 s"), "{stall:?}: {error}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_does_not_close_is_left() {
    let client = client("http://api.test", None, Stall::Upgraded(STATUS));
    let began = Instant::now();
    let pod = client.pod("default", "web-0");
    let output = pod.exec(["true"]).container("c").output().await.unwrap();
    assert!(output.status.success());
    assert!(began.elapsed() <= limits::CLOSE_GRACE + Duration::from_secs(1));
}

/// Neither a request for a log nor the waiting for the next try is for ever.
#[tokio::test(start_paused = true)]
async fn a_log_that_never_comes_ends() {
    for stall in [Stall::Dial, Stall::Silent, Stall::After(GET_HEAD)] {
        let client = client("http://api.test", None, stall);
        let pod = client.pod("default", "web-0");
        let began = Instant::now();
        let mut lines = pod.logs().container("c").stream();
        let work = async { while lines.next().await.is_some() {} };
        let bound = Duration::from_secs(3600);
        let ended = tokio::time::timeout(bound, work).await;
        assert!(ended.is_ok(), "{stall:?} after {:?}", began.elapsed());
    }
}

/// A handle that is dropped leaves its connection within the grace, though the peer says nothing.
#[tokio::test(start_paused = true)]
async fn a_dropped_session_closes_its_socket() {
    let (closed, wait) = tokio::sync::oneshot::channel();
    let closed = std::sync::Mutex::new(Some(closed));
    let config = Config::new("http://api.test")
        .unwrap()
        .with_dialer(move |_, _| {
            let (ours, theirs) = duplex(64 << 10);
            let closed = closed.lock().unwrap().take();
            tokio::spawn(async move {
                let _ = serve(theirs, Stall::Upgraded(b"")).await;
                let _ = closed.map(|closed| closed.send(()));
            });
            async move { Ok(ours) }
        });
    let pod = Client::new(&config).unwrap().pod("default", "web-0");
    let child = pod.exec(["true"]).container("c").spawn().await.unwrap();
    let began = Instant::now();
    drop(child);
    wait.await.unwrap();
    assert!(began.elapsed() <= limits::CLOSE_GRACE + Duration::from_secs(1));
}

/// A user of an API server, who has to be given a credential first.
fn user(entry: &str, proxy: &str) -> Client {
    let text = format!(
        "{{current-context: c, contexts: [{{name: c, context: {{cluster: k, user: u}}}}], \
         clusters: [{{name: k, cluster: {{server: 'https://api.test'{proxy}}}}}], \
         users: [{{name: u, user: {{{entry}}}}}]}}"
    );
    let config = Config::from_kubeconfig_str(&text, &KubeconfigOptions::new()).unwrap();
    Client::new(&config).unwrap()
}

/// A listener on loopback each of whose connections stalls.
async fn stalling(stall: Stall) -> SocketAddr {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(1).unwrap();
    let address = listener.local_addr().unwrap();
    match stall {
        // Nobody accepts, and the queue is full: the kernel answers no more.
        Stall::Dial => {
            let mut waiting = Vec::new();
            let long = Duration::from_secs(1);
            while let Ok(io) = tokio::time::timeout(long, TcpStream::connect(address)).await {
                waiting.push(io.unwrap());
            }
            tokio::spawn(async move {
                std::future::pending::<()>().await;
                drop((waiting, listener));
            });
        }
        stall => {
            tokio::spawn(async move {
                while let Ok((io, _)) = listener.accept().await {
                    tokio::spawn(serve(io, stall));
                }
            });
        }
    }
    address
}

/// A provider whose tokens are to be had elsewhere.
async fn provider(token_endpoint: String) -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let body = format!(r#"{{"token_endpoint":"{token_endpoint}"}}"#);
    let answer = format!(
        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    tokio::spawn(async move {
        while let Ok((mut io, _)) = listener.accept().await {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(io.read_u8().await.unwrap());
            }
            io.write_all(answer.as_bytes()).await.unwrap();
        }
    });
    address
}

#[tokio::test(start_paused = true)]
async fn a_provider_that_stalls_at_any_step_of_a_renewal_is_given_up() {
    let whole = Duration::from_secs(30);
    #[rustfmt::skip]
    let table = [
        ("connect",             "http",  "",       Stall::Dial,            limits::CONNECT),
        ("TLS",                 "https", "",       Stall::Silent,          limits::TLS_HANDSHAKE),
        ("head",                "http",  "",       Stall::Silent,          whole),
        ("half a head",         "http",  "",       Stall::After("HTTP/1"), whole),
        ("body",                "http",  "",       Stall::After(GET_HEAD), whole),
        ("connect to a proxy",  "https", "http",   Stall::Dial,            limits::CONNECT),
        ("HTTP proxy's answer", "https", "http",   Stall::Silent,          limits::CONNECT),
        ("half of that",        "https", "http",   Stall::After("HTTP/1"), limits::CONNECT),
        ("proxy's TLS",         "https", "https",  Stall::Silent,          limits::TLS_HANDSHAKE),
        ("SOCKS answer",        "https", "socks5", Stall::Silent,          limits::CONNECT),
    ];
    for (step, scheme, proxy, stall, bound) in table {
        let address = stalling(stall).await;
        let url = format!("{scheme}://{address}");
        // Through a proxy all stall at the first request.
        let discovery = provider(format!("{url}/token")).await;
        let (issuers, proxy) = match proxy {
            "" => (vec![url, format!("http://{discovery}")], String::new()),
            kind => (
                vec!["https://issuer.test".to_owned()],
                format!(", proxy-url: '{kind}://{address}'"),
            ),
        };
        for issuer in issuers {
            let entry = format!(
                "auth-provider: {{name: oidc, config: {{idp-issuer-url: '{issuer}', \
                 client-id: c, refresh-token: r}}}}"
            );
            for work in [get, exec] {
                let client = user(&entry, &proxy);
                let began = Instant::now();
                let result = tokio::time::timeout(Duration::from_secs(1 << 20), work(client));
                let error = result.await.expect(step).expect_err(step);
                let took = began.elapsed();
                assert!(
                    took >= bound && took < bound + Duration::from_secs(1),
                    "{step} of {issuer}: {took:?} instead of {bound:?}: {error}"
                );
                assert!(matches!(error, Error::Network(_)), "{step}: {error:?}");
            }
        }
    }
}

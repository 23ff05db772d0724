//! Against a real HTTP server in this process.

use std::{convert::Infallible, net::SocketAddr};

use http::header::RETRY_AFTER;
use http_body_util::BodyExt as _;
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use tokio::net::TcpListener;

mod http2;
mod refusals;
pub(crate) mod upgrades;

use super::*;
use crate::{Config, Resource, client::Client, error::Hint};

/// A request as the server got it: head and body.
pub(crate) type Got = (http::request::Parts, Bytes);

/// Hands what this thread traces to a subscriber, until what comes back is dropped.
///
/// Where a process has one subscriber, a callsite that another thread comes to first is off for good
/// (`tracing_core::callsite`): a second one, which hears nothing, is kept beside it.
pub(crate) fn traced(
    subscriber: impl tracing::Subscriber + Send + Sync,
) -> (tracing::subscriber::DefaultGuard, tracing::Dispatch) {
    let second = tracing::Dispatch::new(tracing::subscriber::NoSubscriber::new());
    (tracing::subscriber::set_default(subscriber), second)
}

/// A server that answers the nth request by a function, and what it got.
pub(crate) async fn serve(
    answer: impl Fn(usize, &Got) -> Response<String> + Send + Sync + 'static,
) -> (SocketAddr, Arc<Mutex<Vec<Got>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let got = Arc::new(Mutex::new(Vec::new()));
    let record = Arc::clone(&got);
    let answer = Arc::new(answer);
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let (record, answer) = (Arc::clone(&record), Arc::clone(&answer));
            tokio::spawn(async move {
                let service = service_fn(move |request: Request<Incoming>| {
                    let (record, answer) = (Arc::clone(&record), Arc::clone(&answer));
                    async move {
                        let (head, body) = request.into_parts();
                        let got = (head, body.collect().await.unwrap().to_bytes());
                        let mut record = record.lock().unwrap();
                        let response = answer(record.len(), &got);
                        record.push(got);
                        Ok::<_, Infallible>(response)
                    }
                });
                let connection = auto::Builder::new(TokioExecutor::new());
                let _ = connection
                    .serve_connection(TokioIo::new(tcp), service)
                    .await;
            });
        }
    });
    (address, got)
}

pub(crate) fn answer(code: u16, body: impl Into<String>) -> Response<String> {
    let mut response = Response::new(body.into());
    *response.status_mut() = StatusCode::from_u16(code).unwrap();
    response
}

fn patient(code: u16, seconds: &str) -> Response<String> {
    let mut response = answer(code, "");
    let value = HeaderValue::from_str(seconds).unwrap();
    response.headers_mut().insert(RETRY_AFTER, value);
    response
}

pub(crate) fn client(address: SocketAddr) -> Client {
    Client::new(&Config::new(&format!("http://{address}/base")).unwrap()).unwrap()
}

async fn send(client: &Client, method: Method) -> Result<StatusCode> {
    let mut outgoing = Outgoing::get("test", "/version?a=b");
    outgoing.method = method;
    let response = client.http().send(outgoing).await?;
    Ok(response.status())
}

#[tokio::test]
async fn a_request_names_the_agent_and_goes_below_the_base_path() {
    let (address, got) = serve(|_, _| answer(200, "")).await;
    assert_eq!(send(&client(address), Method::GET).await.unwrap(), 200);
    let (head, _) = got.lock().unwrap().remove(0);
    assert_eq!(head.uri, "/base/version?a=b");
    assert_eq!(head.headers["host"], address.to_string());
    assert_eq!(head.headers["user-agent"], AGENT);
}

#[tokio::test]
async fn a_server_that_asks_for_patience_is_asked_again() {
    for (method, code, times) in [
        (Method::GET, 429, 3),
        (Method::GET, 503, 3),
        (Method::POST, 429, 3),
        (Method::POST, 503, 1),
        (Method::GET, 500, 1),
    ] {
        let (address, got) = serve(move |at, _| match at {
            0 | 1 => patient(code, "0"),
            _ => answer(200, ""),
        })
        .await;
        let status = send(&client(address), method.clone()).await.unwrap();
        assert_eq!(got.lock().unwrap().len(), times, "{method} {code}");
        assert_eq!(status, if times == 1 { code } else { 200 });
    }
}

#[tokio::test]
async fn patience_has_an_end() {
    let (address, got) = serve(|_, _| patient(429, "0")).await;
    assert_eq!(send(&client(address), Method::GET).await.unwrap(), 429);
    assert_eq!(got.lock().unwrap().len(), limits::RETRIES as usize + 1);
    for seconds in [
        "3600",
        "18446744073709551615",
        "99999999999999999999",
        "-1",
        "1.5",
        "Fri, 31 Dec 9999 23:59:59 GMT",
        "soon",
    ] {
        let (address, got) = serve(move |_, _| patient(429, seconds)).await;
        let client = client(address);
        let status = tokio::time::timeout(Duration::from_secs(300), send(&client, Method::GET));
        assert_eq!(status.await.expect(seconds).unwrap(), 429);
        assert_eq!(got.lock().unwrap().len(), 1, "{seconds}");
    }
    let (address, _) = serve(|at, _| patient(if at == 0 { 429 } else { 200 }, "1")).await;
    let started = Instant::now();
    send(&client(address), Method::GET).await.unwrap();
    assert!(started.elapsed() >= Duration::from_secs(1));
}

#[tokio::test]
async fn a_401_reads_the_token_file_again_and_only_once() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("token");
    std::fs::write(&path, "old").unwrap();
    let file = path.clone();
    let (address, got) = serve(move |_, (head, _)| {
        let right = head.headers["authorization"] == "Bearer new";
        std::fs::write(&file, "new").unwrap();
        answer(if right { 200 } else { 401 }, "")
    })
    .await;
    let config = Config::new(&format!("http://{address}")).unwrap();
    let client = Client::new(&config.clone().with_token_file(&path)).unwrap();
    assert_eq!(send(&client, Method::POST).await.unwrap(), 200);
    assert_eq!(got.lock().unwrap().len(), 2);
    let client = Client::new(&config.with_token("wrong")).unwrap();
    assert_eq!(send(&client, Method::GET).await.unwrap(), 401);
    assert_eq!(
        got.lock().unwrap().len(),
        3,
        "a token that stays is not tried twice"
    );
}

#[tokio::test]
async fn a_safe_request_survives_a_lost_connection_once() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = client(listener.local_addr().unwrap());
    let server = tokio::spawn(async move {
        let mut accepted = 0;
        while let Ok((mut tcp, _)) = listener.accept().await {
            accepted += 1;
            let mut head = [0; 1024];
            let _ = tokio::io::AsyncReadExt::read(&mut tcp, &mut head).await;
            drop(tcp);
            if accepted == 3 {
                break;
            }
        }
        accepted
    });
    let error = send(&client, Method::GET).await.unwrap_err();
    assert!(
        matches!(error, Error::Network(NetworkError::Lost(_))),
        "{error}"
    );
    let error = send(&client, Method::POST).await.unwrap_err();
    assert!(
        matches!(error, Error::Network(NetworkError::Lost(_))),
        "{error}"
    );
    assert_eq!(server.await.unwrap(), 3, "GET twice, POST once");
}

#[tokio::test]
async fn a_safe_request_takes_a_new_connection_where_those_that_wait_are_lost() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = client(listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut tcp, _)) = listener.accept().await {
            // Each answers one request, and breaks with the next.
            tokio::spawn(async move {
                let mut head = [0; 1024];
                let _ = tcp.read(&mut head).await;
                let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
                tcp.write_all(answer).await.unwrap();
                let _ = tcp.read(&mut head).await;
            });
        }
    });
    let get = || send(&client, Method::GET);
    tokio::try_join!(get(), get(), get()).unwrap();
    assert_eq!(get().await.unwrap(), 200);
}

#[tokio::test]
async fn a_silent_server_meets_the_deadline() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = client(listener.local_addr().unwrap());
    let mut outgoing = Outgoing::get("get x", "/");
    outgoing.deadline = Some(Duration::from_millis(50));
    let error = client.http().send(outgoing).await.unwrap_err().to_string();
    assert!(error.starts_with("get x did not finish within"), "{error}");
}

#[tokio::test]
async fn what_is_not_http_is_the_peers_fault_and_no_connection_the_networks() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = tokio::spawn(async move {
        // The second is what TLS says of what is no TLS.
        for answer in [
            &b"SSH-2.0-OpenSSH\r\n\r\n"[..],
            b"\x15\x03\x03\x00\x02\x02\x46",
        ] {
            let (mut tcp, _) = listener.accept().await.unwrap();
            let mut head = [0; 1024];
            let _ = tcp.read(&mut head).await.unwrap();
            tcp.write_all(answer).await.unwrap();
        }
    });
    for _ in 0..2 {
        let error = send(&client(address), Method::POST).await.unwrap_err();
        assert!(
            matches!(error, Error::Peer(crate::error::PeerError::Http(_))),
            "{error:?}"
        );
        let error = error.to_string();
        assert!(error.contains("its URL begins with https://"), "{error}");
    }
    server.await.unwrap();
    let error = send(&client(address), Method::GET)
        .await
        .unwrap_err()
        .to_string();
    assert!(
        error.starts_with(&format!("cannot connect to {address}: ")),
        "{error}"
    );
}

#[tokio::test]
async fn an_answer_that_is_none_of_http_is_told_with_what_it_may_be() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    // A server of SSH, and the alert with which one of TLS answers.
    for answer in [
        &b"SSH-2.0-OpenSSH_9.9\r\n"[..],
        b"\x15\x03\x01\0\x02\x02\x46",
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let (mut tcp, _) = listener.accept().await.unwrap();
            let _ = tcp.read(&mut [0; 1024]).await.unwrap();
            let _ = tcp.write_all(answer).await;
        });
        let error = send(&client(address), Method::GET).await.unwrap_err();
        let ours = "the peer broke HTTP: its answer does not begin as one of HTTP/1.1 does; \
                    perhaps it speaks TLS, and its URL begins with https://, or it is no HTTP server";
        assert_eq!(error.to_string(), ours);
    }
}

#[tokio::test]
async fn a_body_in_chunks_that_are_none_is_the_peers_fault() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    for chunk in ["ZZ\r\n{}\r\n", "FFFFFFFFFFFFFFFFF\r\n{}\r\n"] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let (mut tcp, _) = listener.accept().await.unwrap();
            let _ = tcp.read(&mut [0; 1024]).await.unwrap();
            let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\
                        Transfer-Encoding: chunked\r\n\r\n";
            let _ = tcp.write_all(format!("{head}{chunk}").as_bytes()).await;
        });
        let pods = client(address).request(Resource::namespaced("", "v1", "pods"));
        let error = pods.get::<serde_json::Value>("p").await.unwrap_err();
        let Error::Peer(crate::error::PeerError::Http(problem)) = &error else {
            panic!("{error:?}");
        };
        let ours = "the lengths of the parts of its body are not written as HTTP/1.1 has it";
        assert_eq!(problem, ours);
    }
}

#[test]
fn the_curl_line_can_be_pasted_and_holds_no_secret() {
    let config = Config::new("http://h:6443/base").unwrap();
    let http = Http::new(Connector::new(&config).unwrap());
    let mut outgoing = Outgoing::get("x", "/api?labelSelector=a%3D'b'");
    outgoing.body = Bytes::from_static(b"hunter2");
    let mut headers = HeaderMap::new();
    for name in [
        "authorization",
        "proxy-authorization",
        "cookie",
        "x-api-key",
        "x-remote-user",
        "sec-websocket-protocol",
    ] {
        let secret = HeaderValue::from_static("base64url.bearer.authorization.k8s.io.hunter2");
        headers.insert(name, secret);
    }
    headers.insert("accept", HeaderValue::from_static("it's"));
    headers.insert("impersonate-user", HeaderValue::from_static("jane"));
    assert_eq!(
        http.curl(&outgoing, &headers),
        "curl -X GET -H 'authorization: <redacted>' -H 'proxy-authorization: <redacted>' -H \
         'cookie: <redacted>' -H 'x-api-key: <redacted>' -H 'x-remote-user: <redacted>' -H \
         'sec-websocket-protocol: <redacted>' -H 'accept: it'\\''s' -H 'impersonate-user: jane' \
         --data-binary '<7 bytes>' 'http://h:6443/base/api?labelSelector=a%3D'\\''b'\\'''"
    );
}

#[tokio::test]
async fn a_refused_client_certificate_is_no_fault_of_the_network() {
    use crate::net::tests::{authority, local, params, serve, to};
    let (ca, clients) = (authority(), authority());
    let address = serve(&ca.sign(local()), Some(&clients)).await;
    let mut past = params(&[]);
    past.not_after = rcgen::date_time_ymd(2002, 1, 1);
    let leaf = clients.sign(past);
    let config = to(address)
        .with_ca_pem(ca.pem())
        .with_client_certificate_pem(
            leaf.certificate.pem(),
            leaf.key.serialize_pem().into_bytes(),
        );
    let client = Client::new(&config).unwrap();
    let upgrade = Outgoing::upgrade("exec", "/");
    for error in [
        send(&client, Method::GET).await.unwrap_err(),
        upgrade::open(client.http(), upgrade, None)
            .await
            .unwrap_err(),
    ] {
        assert_eq!(
            error.to_string(),
            "the server refuses the client certificate (the client certificate's PEM, valid until \
             2002-01-01T00:00:00Z): it expired at 2002-01-01T00:00:00Z"
        );
        assert!(matches!(error, Error::Caller(_)), "{error:#?}");
    }
}

#[tokio::test]
async fn a_401_carries_the_hint_that_the_connector_gave() {
    let mut response = Response::new(http_body_util::Empty::<Bytes>::new());
    *response.status_mut() = StatusCode::UNAUTHORIZED;
    response.extensions_mut().insert(Hint::ClientCertificate {
        certificate: "c".to_owned(),
        problem: "it expired".to_owned(),
    });
    let error = refusal("get pods", response).await;
    let text = error.to_string();
    assert!(
        text.ends_with(" (the client certificate (c): it expired)"),
        "{text}"
    );
}

#[cfg(feature = "testing")]
#[tokio::test]
async fn every_verb_names_the_certificate_that_has_expired() {
    use crate::{
        net::tests::{authority, params},
        session::watch::Update,
    };

    let server = crate::testing::ApiServer::builder().start().await.unwrap();
    let mut past = params(&[]);
    past.not_after = rcgen::date_time_ymd(2002, 1, 1);
    let leaf = authority().sign(past);
    let key = leaf.key.serialize_pem().into_bytes();
    let config = server.config_with_token("of nobody");
    let config = config.with_client_certificate_pem(leaf.certificate.pem(), key);
    let client = Client::new(&config).unwrap();
    let pod = client.pod("default", "web-0");
    let pods = || Resource::namespaced("", "v1", "pods");
    let mut updates = client.watch(pods()).stream();
    let watch = loop {
        match updates.next().await {
            Some(Ok(Update::Retrying { error, .. })) => break Some(error),
            Some(Ok(_)) => {}
            Some(Err(error)) => break Some(error),
            None => break None,
        }
    };
    let mut errors = vec![
        client
            .request(pods())
            .get::<serde_json::Value>("web-0")
            .await
            .err(),
        client
            .request(pods())
            .list::<serde_json::Value>()
            .await
            .err(),
        pod.exec(["date"]).output().await.err(),
        watch,
    ];
    for logs in [
        pod.logs(),
        pod.logs().follow(),
        pod.logs().plain(),
        pod.logs().over_websocket(),
    ] {
        errors.push(logs.stream().next().await.and_then(Result::err));
    }
    for error in errors {
        let text = error
            .expect("the server does not know the user")
            .to_string();
        assert!(
            text.contains("it expired at 2002-01-01T00:00:00Z"),
            "{text}"
        );
    }
}

#[tokio::test]
async fn the_span_of_an_upgrade_says_what_it_was() {
    let (address, _) = serve(|_, _| answer(403, "no")).await;
    let client = client(address);
    let spans = Spans::default();
    let guard = traced(spans.clone());
    client
        .pod("a", "p")
        .exec(["date"])
        .spawn()
        .await
        .unwrap_err();
    drop(guard);
    let fields = spans.0.lock().unwrap();
    for (field, value) in [
        ("verb", "\"get\""),
        ("resource", "\"pods/exec\""),
        ("namespace", "\"a\""),
        ("name", "\"p\""),
        ("status", "403"),
    ] {
        let found = fields.get(field).map(String::as_str);
        assert_eq!(found, Some(value), "{field}");
    }
}

#[tokio::test]
async fn an_http1_connection_ends_when_it_has_been_idle_for_long() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = client(listener.local_addr().unwrap());
    let server = tokio::spawn(async move {
        let (mut tcp, _) = listener.accept().await.unwrap();
        let mut head = [0; 1024];
        assert!(tcp.read(&mut head).await.unwrap() > 0);
        let answer = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
        tcp.write_all(answer.as_bytes()).await.unwrap();
        tcp.read(&mut head).await.unwrap()
    });
    assert_eq!(send(&client, Method::GET).await.unwrap(), 200);
    tokio::time::pause();
    tokio::time::advance(limits::IDLE_CONNECTION * 2).await;
    tokio::time::resume();
    assert_eq!(server.await.unwrap(), 0, "it is closed while nobody asks");
}

/// Keeps the fields of every span named `request`.
#[derive(Clone, Default)]
struct Spans(Arc<Mutex<std::collections::BTreeMap<String, String>>>);

impl tracing::field::Visit for Spans {
    fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
        let mut fields = self.0.lock().unwrap();
        fields.insert(field.name().to_owned(), format!("{value:?}"));
    }
}

impl tracing::Subscriber for Spans {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        metadata.is_span() && metadata.name() == "request"
    }

    fn new_span(&self, span: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        span.record(&mut self.clone());
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::span::Id, values: &tracing::span::Record<'_>) {
        values.record(&mut self.clone());
    }

    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
    fn event(&self, _: &tracing::Event<'_>) {}
    fn enter(&self, _: &tracing::span::Id) {}
    fn exit(&self, _: &tracing::span::Id) {}
}

#[tokio::test]
async fn the_span_of_a_request_says_what_it_was_and_what_came_of_it() {
    let (address, _) = serve(|at, _| match at {
        0 => patient(429, "0"),
        _ => answer(200, "{\"a\":1}"),
    })
    .await;
    let client = client(address);
    let spans = Spans::default();
    let guard = traced(spans.clone());
    let path = "/apis/apps/v1/namespaces/a/deployments/d/scale";
    let deployments = client.request(Resource::namespaced("apps", "v1", "deployments"));
    let scale = deployments.namespace("a").subresource("scale");
    scale.get::<serde_json::Value>("d").await.unwrap();
    drop(guard);
    let fields = spans.0.lock().unwrap();
    for (field, value) in [
        ("verb", "\"get\""),
        ("resource", "\"deployments.apps/scale\""),
        ("namespace", "\"a\""),
        ("name", "\"d\""),
        ("path", path),
        ("status", "200"),
        ("bytes", "7"),
        ("retries", "1"),
    ] {
        assert_eq!(
            fields.get(field).map(String::as_str),
            Some(value),
            "{field}"
        );
    }
}

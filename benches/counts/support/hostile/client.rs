//! What a client reads before there is a session: heads of answers and refusals, and credentials. Of the
//! instructions those of the server that answers are counted too.

use std::{
    fs,
    hint::black_box,
    sync::{Arc, Mutex},
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::Bytes;
use http::HeaderMap;
use kubewire::{Client, Config, Resource, auth::Connector, config::KubeconfigOptions};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, duplex},
    net::TcpListener,
};

use super::{Row, wire::document};

pub(super) fn rows() -> Vec<Row> {
    let mut rows = heads();
    rows.extend(credentials());
    rows
}

fn block_on<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread();
    { runtime }.enable_all().build().unwrap().block_on(work)
}

/// Answers the first connection with what comes, and makes a request.
fn asked(input: &mut dyn Iterator<Item = Bytes>, upgrade: bool) {
    block_on(async {
        let (mut server, client) = duplex(4096);
        let client = Arc::new(Mutex::new(Some(client)));
        let config = Config::new("http://api.test").unwrap();
        let config = config.with_dialer(move |_, _| {
            let client = client.lock().unwrap().take();
            async { client.ok_or_else(|| std::io::ErrorKind::ConnectionRefused.into()) }
        });
        let client = Client::new(&config).unwrap();
        let work = async {
            match upgrade {
                true => {
                    let pod = client.pod("default", "web-0");
                    drop(black_box(pod.exec(["true"]).container("c").output().await));
                }
                false => {
                    let request = client.request(Resource::namespaced("", "v1", "pods"));
                    drop(black_box(request.get::<Value>("a").await));
                }
            }
        };
        let serve = async {
            let mut head = [0; 4096];
            assert!(server.read(&mut head).await.unwrap() > 0);
            for piece in input {
                if server.write_all(&piece).await.is_err() {
                    return;
                }
            }
            drop(server);
        };
        tokio::join!(work, serve);
    });
}

fn heads() -> Vec<Row> {
    let row = |input_is, upgrade, start: &str, again: &str| {
        let (start, again) = (start.as_bytes(), again.as_bytes());
        let run = move |input: &mut dyn Iterator<Item = Bytes>| asked(input, upgrade);
        // hyper's buffer, of which there are two as it grows.
        Row::new("HTTP heads", input_is, start, again, 64, run).within(1 << 20)
    };
    let found = "HTTP/1.1 200 OK\r\n";
    let switching = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n";
    let refused = "HTTP/1.1 403 Forbidden\r\nContent-Type: application/json\r\n\r\n";
    vec![
        row("headers without end", false, found, "a: b\r\n"),
        row("a header without end", false, found, "a"),
        row(
            "answers to come",
            false,
            "",
            "HTTP/1.1 100 Continue\r\n\r\n",
        ),
        row(
            "headers of an upgrade without end",
            true,
            switching,
            "a: b\r\n",
        ),
        row("a refusal without end", true, refused, "[{\"\":"),
        row(
            "a refusal in chunks of a byte",
            true,
            &refused.replace("\r\n\r\n", "\r\nTransfer-Encoding: chunked\r\n\r\n"),
            "1\r\n[\r\n",
        ),
    ]
}

/// The credentials of a user with this entry.
async fn authorize(entry: &str) {
    let text = format!(
        "{{current-context: c, contexts: [{{name: c, context: {{cluster: k, user: u}}}}], \
         clusters: [{{name: k, cluster: {{server: 'https://h', insecure-skip-tls-verify: true}}}}], \
         users: [{{name: u, user: {{{entry}}}}}]}}"
    );
    let config = Config::from_kubeconfig_str(&text, &KubeconfigOptions::new()).unwrap();
    let connector = Connector::new(&config).unwrap();
    let mut headers = HeaderMap::new();
    drop(black_box(connector.authorize(&mut headers).await));
}

/// A provider each of whose answers is this.
async fn renewed(answers: [Bytes; 2]) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let issuer = listener.local_addr().unwrap();
    let entry = format!(
        "auth-provider: {{name: oidc, config: {{idp-issuer-url: 'http://{issuer}', \
         client-id: c, refresh-token: r}}}}"
    );
    let serve = async {
        for body in answers {
            let body = String::from_utf8_lossy(&body).replace("ISSUER", &issuer.to_string());
            let (mut io, _) = listener.accept().await.unwrap();
            let _ = io.read(&mut [0; 4096]).await;
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
            let _ = io.write_all(head.as_bytes()).await;
            let _ = io.write_all(body.as_bytes()).await;
        }
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = authorize(&entry) => {}
        () = serve => {}
    }
}

const DISCOVERY: Bytes = Bytes::from_static(br#"{"token_endpoint":"http://ISSUER/token"}"#);

fn credentials() -> Vec<Row> {
    let row = |of, input_is, start: &str, again: &str, end: &str, run: fn(Bytes)| {
        let row = Row::new(of, input_is, b"", b"x", 1, move |input| {
            input.for_each(run);
        });
        let mut row = row.made_of(document(start, again, end)).whole(8);
        // A little less than the bound, so that it is read.
        row.most = 1_000_000;
        row
    };
    let plugin = |input_is, start, again, end| {
        row("exec plugins", input_is, start, again, end, |printed| {
            let file = tempfile::NamedTempFile::new().unwrap();
            fs::write(file.path(), &printed).unwrap();
            let entry = format!(
                "exec: {{apiVersion: client.authentication.k8s.io/v1, command: cat, \
                 args: ['{}'], interactiveMode: Never}}",
                file.path().display()
            );
            block_on(authorize(&entry));
        })
    };
    let discovery = |input_is, start, again, end| {
        row("OpenID Connect", input_is, start, again, end, |answer| {
            block_on(renewed([answer, Bytes::new()]));
        })
    };
    let tokens = |input_is, start, again, end| {
        row("OpenID Connect", input_is, start, again, end, |answer| {
            block_on(renewed([DISCOVERY, answer]));
        })
    };
    let id_token = |input_is, start, again, end| {
        row("OpenID Connect", input_is, start, again, end, |claims| {
            let token = URL_SAFE_NO_PAD.encode(claims);
            let answer = format!(r#"{{"id_token":"e30.{token}.x"}}"#);
            block_on(renewed([DISCOVERY, answer.into()]));
        })
    };
    let kind = r#"{"kind":"ExecCredential","apiVersion":"client.authentication.k8s.io/v1","status":{"token":"t"#;
    vec![
        plugin("a long token", kind, "t", "\"}}"),
        plugin("members of no name", &format!("{kind}\""), ",\"\":0", "}}"),
        plugin("depth", "{\"x\":", "[", ""),
        discovery("discovery: members of no name", "{\"\":0", ",\"\":0", "}"),
        tokens("tokens: members of no name", "{\"\":0", ",\"\":0", "}"),
        tokens("tokens: escapes", "{\"id_token\":\"", r"\u0001", "\"}"),
        id_token(
            "id-token: members of no name",
            "{\"exp\":4e9",
            ",\"\":0",
            "}",
        ),
        id_token("id-token: digits", "{\"exp\":4", "0", "}"),
    ]
}

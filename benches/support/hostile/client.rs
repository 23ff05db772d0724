//! What a client reads before there is a session: heads of answers and refusals. Of the
//! instructions those of the server that answers are counted too.

use std::{
    hint::black_box,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use kubewire::{Client, Config, Resource};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

use super::Row;

/// Answers the first connection with what comes, and makes a request.
fn asked(input: &mut dyn Iterator<Item = Bytes>, upgrade: bool) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
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

pub(super) fn rows() -> Vec<Row> {
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

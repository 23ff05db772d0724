//! Whatever a server answers to the requests of any verb (heads of upgrades and refusals, bodies,
//! frames behind an upgrade), the verb ends or waits for its time, says nothing with control
//! characters, and reports no success that was not sent.
//!
//! The first byte chooses the verb. Each connection takes the next bytes of the script, as they are
//! or behind an upgrade that is in order. The clock is virtual.
#![no_main]

use std::{
    collections::VecDeque,
    io,
    sync::{Arc, Mutex},
    time::Duration,
};

use kubewire::{Client, Config, Error, Resource};
use kubewire_fuzz::Script;
use libfuzzer_sys::fuzz_target;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tungstenite::handshake::derive_accept_key;

struct Answer {
    upgrade: Option<&'static str>,
    bytes: Vec<u8>,
}

async fn serve(mut stream: DuplexStream, answer: Answer) -> io::Result<()> {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        if stream.read_buf(&mut request).await? == 0 {
            return Ok(());
        }
    }
    if let Some(protocol) = answer.upgrade {
        let text = String::from_utf8_lossy(&request).to_lowercase();
        let original = String::from_utf8_lossy(&request);
        let key = text.find("sec-websocket-key: ").map_or("", |at| {
            original[at + 19..].split("\r\n").next().unwrap_or_default()
        });
        let accept = derive_accept_key(key.as_bytes());
        let head = format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: {accept}\r\nSec-WebSocket-Protocol: {protocol}\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await?;
    }
    stream.write_all(&answer.bytes).await?;
    stream.shutdown().await?;
    tokio::io::copy(&mut stream, &mut tokio::io::sink()).await.map(drop)
}

fn check(error: &Error) {
    let said = error.to_string();
    assert!(!said.contains(|c: char| c.is_control() && c != '\n'), "{said:?}");
    assert!(said.len() < 1 << 14, "{} bytes", said.len());
}

async fn run(verb: u8, client: &Client, sent: &[u8]) {
    let pod = client.pod("default", "web");
    match verb % 7 {
        0 | 1 => {
            let exec = pod.exec(["true"]);
            let exec = if verb % 7 == 0 { exec.container("main") } else { exec };
            match exec.output().await {
                Ok(output) => {
                    let escaped = sent.contains(&b'\\');
                    let said = escaped || sent.windows(7).any(|bytes| bytes == b"Success");
                    assert!(!output.status.success() || said);
                }
                Err(error) => check(&error),
            }
        }
        2 => match pod.port_forward().connect().await {
            Ok(tunnel) => match tunnel.open(80).await {
                Ok(mut connection) => {
                    let _ = connection.read_to_end(&mut Vec::new()).await;
                }
                Err(error) => check(&error),
            },
            Err(error) => check(&error),
        },
        3 => {
            let mut lines = pod.logs().follow().stream();
            while let Some(line) = lines.next().await {
                line.as_ref().err().into_iter().for_each(check);
            }
        }
        4 => {
            let mut lines = client.logs("default").labels("app=web").stream();
            while let Some(line) = lines.next().await {
                line.as_ref().err().into_iter().for_each(check);
            }
        }
        5 => {
            let mut updates = client.watch(Resource::namespaced("", "v1", "pods")).stream();
            while let Some(update) = updates.next().await {
                update.as_ref().err().into_iter().for_each(check);
            }
        }
        _ => {
            let request = client.request(Resource::namespaced("", "v1", "pods")).namespace("default");
            let list = request.list::<serde_json::Value>().await;
            list.as_ref().err().into_iter().for_each(check);
        }
    }
}

fuzz_target!(|data: &[u8]| {
    let mut script = Script::new(data);
    let verb = script.byte();
    let mut answers = VecDeque::new();
    while !script.is_over() && answers.len() < 8 {
        let upgrade = script.one_of([
            None,
            Some("v5.channel.k8s.io"),
            Some("v4.channel.k8s.io"),
            Some("SPDY/3.1+portforward.k8s.io"),
            None,
        ]);
        let bytes = script.bytes().to_vec();
        answers.push_back(Answer { upgrade, bytes });
    }
    let answers = Arc::new(Mutex::new(answers));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let config = Config::new("http://localhost:1").expect("a URL");
        let config = config.with_dialer(move |_, _| {
            let answer = answers.lock().expect("nobody panicked").pop_front();
            async move {
                let answer = answer.ok_or(io::ErrorKind::ConnectionRefused)?;
                let (near, far) = tokio::io::duplex(1 << 16);
                tokio::spawn(serve(far, answer));
                Ok(near)
            }
        });
        let client = Client::new(&config).expect("a client");
        // Logs and watches go on for ever.
        let _ = tokio::time::timeout(Duration::from_secs(600), run(verb, &client, data)).await;
    });
});

#![allow(dead_code, reason = "each bench uses its part")]
//! What the benches share: a server that only sends frames it has encoded beforehand, and the
//! statistics of alternated runs.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use bytes::BytesMut;
use kubewire::wire::websocket::{FrameHeader, Opcode};
use rustls::{
    ClientConfig, RootCertStore, ServerConfig, ServerConnection, StreamOwned,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};
use tokio_rustls::TlsConnector;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

/// What a connection gets: frames of one size, as often as fits the total, then the Status.
#[derive(Clone, Copy)]
pub(crate) struct Load {
    /// Bytes of payload a frame, without the channel.
    pub(crate) frame: usize,
    /// Bytes of payload altogether, about.
    pub(crate) total: usize,
    /// Whether the session ends after them; else it idles.
    pub(crate) end: bool,
}

impl Load {
    /// The frames that are sent at once, and how often.
    fn encode(self) -> (Vec<u8>, usize) {
        let mut frame = BytesMut::new();
        let header = FrameHeader {
            fin: true,
            opcode: Opcode::Binary,
            mask: None,
            length: self.frame as u64 + 1,
        };
        header.encode(&mut frame);
        frame.extend_from_slice(&[1]);
        frame.extend_from_slice(&vec![b'x'; self.frame]);
        let per_block = (256 << 10) / frame.len() + 1;
        let blocks = self.total.div_ceil(per_block * self.frame);
        (frame.repeat(per_block), blocks)
    }

    /// The bytes of payload that one connection gets.
    pub(crate) fn payload(self) -> usize {
        let per_block = (256 << 10) / self.wire_frame() + 1;
        self.total.div_ceil(per_block * self.frame) * per_block * self.frame
    }

    fn wire_frame(self) -> usize {
        self.frame
            + 1
            + if self.frame + 1 < 126 {
                2
            } else if self.frame < 65535 {
                4
            } else {
                10
            }
    }
}

/// The end of every session: Status on channel 3, close 1000.
pub(crate) const END: &[u8] =
    b"\x82\x23\x03{\"metadata\":{},\"status\":\"Success\"}\x88\x02\x03\xe8";

/// What servers begin with.
const EMPTY: &[u8] = b"\x82\x01\x01";

/// A TLS server's side, and the CA for its clients in PEM.
pub(crate) struct Tls {
    config: Arc<ServerConfig>,
    pub(crate) ca: String,
}

impl Tls {
    pub(crate) fn new() -> Self {
        let cert = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
        let key = PrivateKeyDer::try_from(cert.signing_key.serialize_der()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![cert.cert.der().clone()], key)
            .unwrap();
        Self {
            config: Arc::new(config),
            ca: cert.cert.pem(),
        }
    }
}

/// A TLS client that trusts `ca`.
pub(crate) fn client_tls(ca: &str) -> TlsConnector {
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_slice(ca.as_bytes()).unwrap())
        .unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    TlsConnector::from(Arc::new(config))
}

/// What a connection is served over.
pub(crate) trait Io: Read + Write + Send {}
impl<T: Read + Write + Send> Io for T {}

/// What a bench's server does with a connection: over WebSocket with one that asked for that with
/// a request head, bare with one that sent a newline.
pub(crate) trait Serve:
    Fn(&mut dyn Io, bool) -> std::io::Result<()> + Clone + Send + 'static
{
}
impl<F: Fn(&mut dyn Io, bool) -> std::io::Result<()> + Clone + Send + 'static> Serve for F {}

/// Serves `load` to every connection. Ends with the process.
pub(crate) fn serve(load: Load, tls: Option<&Tls>) -> SocketAddr {
    let (block, blocks) = load.encode();
    listen(tls, move |io, _| {
        for _ in 0..blocks {
            io.write_all(&block)?;
        }
        io.write_all(if load.end { END } else { EMPTY })?;
        io.flush()
    })
}

/// Serves every connection with a thread of its own, and then waits for its end.
pub(crate) fn listen(tls: Option<&Tls>, serve: impl Serve) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let config = tls.map(|tls| tls.config.clone());
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let (serve, config) = (serve.clone(), config.clone());
            thread::spawn(move || {
                stream.set_nodelay(true).unwrap();
                // A client that stops reading is not an error of the server.
                let _ = match config {
                    None => answer(&mut { stream }, &serve),
                    Some(config) => {
                        let session = ServerConnection::new(config).unwrap();
                        answer(&mut StreamOwned::new(session, stream), &serve)
                    }
                };
            });
        }
    });
    address
}

fn answer(io: &mut dyn Io, serve: &impl Serve) -> std::io::Result<()> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && head != b"\n" {
        io.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    let websocket = head != b"\n";
    if websocket {
        let head = String::from_utf8_lossy(&head);
        let key = head.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("sec-websocket-key")
                .then(|| value.trim())
        });
        let Some(key) = key else {
            // kubectl asks what there is, and then for the pod.
            let path = head.split([' ', '?']).nth(1).unwrap_or_default();
            let known = OBJECTS.iter().find(|(known, _)| *known == path);
            let (code, body) = known.map_or(("404 Not Found", "{}"), |(_, body)| ("200 OK", *body));
            write!(
                io,
                "HTTP/1.1 {code}\r\nContent-Type: application/json\r\nConnection: close\r\n\
                 Content-Length: {}\r\n\r\n{body}",
                body.len()
            )?;
            return io.flush();
        };
        write!(
            io,
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: {}\r\nSec-WebSocket-Protocol: v5.channel.k8s.io\r\n\r\n",
            derive_accept_key(key.as_bytes())
        )?;
    }
    serve(io, websocket)?;
    let mut rest = [0; 1024];
    while io.read(&mut rest)? > 0 {}
    Ok(())
}

/// What kubectl reads before it opens a session.
const OBJECTS: [(&str, &str); 4] = [
    ("/api", r#"{"kind":"APIVersions","versions":["v1"]}"#),
    (
        "/apis",
        r#"{"kind":"APIGroupList","apiVersion":"v1","groups":[]}"#,
    ),
    (
        "/api/v1",
        r#"{"kind":"APIResourceList","groupVersion":"v1","resources":[{"name":"pods","singularName":"pod","namespaced":true,"kind":"Pod","verbs":["get"],"shortNames":["po"]}]}"#,
    ),
    ("/api/v1/namespaces/default/pods/bench", POD),
];

/// The pod of every session.
const POD: &str = r#"{"kind":"Pod","apiVersion":"v1","metadata":{"name":"bench","namespace":"default"},"spec":{"containers":[{"name":"main","image":"x"}]},"status":{"phase":"Running"}}"#;

/// The wall times of one side.
pub(crate) struct Side {
    pub(crate) name: &'static str,
    pub(crate) times: Vec<Duration>,
}

impl Side {
    pub(crate) fn new(name: &'static str) -> Self {
        Self {
            name,
            times: Vec::new(),
        }
    }

    pub(crate) fn record(&mut self, since: Instant) {
        self.times.push(since.elapsed());
    }

    pub(crate) fn median(&self) -> Duration {
        let mut sorted = self.times.clone();
        sorted.sort();
        sorted[sorted.len() / 2]
    }

    /// Median, smallest and largest rate in MiB/s.
    pub(crate) fn rates(&self, bytes: usize) -> (f64, f64, f64) {
        let rate = |time: Duration| bytes as f64 / (1 << 20) as f64 / time.as_secs_f64();
        let slowest = self.times.iter().max().copied().unwrap_or_default();
        let fastest = self.times.iter().min().copied().unwrap_or_default();
        (rate(self.median()), rate(slowest), rate(fastest))
    }
}

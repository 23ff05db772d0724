//! What the cases run against: a TLS server that tells what it was sent, an HTTP, an HTTPS and a
//! SOCKS5 proxy, an OpenID Connect provider.

use std::{
    convert::Infallible,
    io,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use http::{Request, Response, StatusCode};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::{
    RootCertStore, ServerConfig,
    pki_types::PrivateKeyDer,
    server::{NoClientAuth, WebPkiClientVerifier},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, copy_bidirectional},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::TlsAcceptor;

pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: rcgen::Certificate,
}

pub(crate) struct Leaf {
    certificate: rcgen::Certificate,
    key: KeyPair,
}

pub(crate) fn base64(text: &str) -> String {
    STANDARD.encode(text)
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params
            .distinguished_name
            .push(DnType::CommonName, "a test's authority");
        let key = KeyPair::generate().unwrap();
        Self {
            certificate: params.self_signed(&key).unwrap(),
            issuer: Issuer::new(params, key),
        }
    }

    pub(crate) fn pem(&self) -> String {
        self.certificate.pem()
    }

    pub(crate) fn sign(&self, names: &[&str], years: (i32, i32)) -> Leaf {
        let names: Vec<_> = names.iter().map(|&name| name.to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params
            .distinguished_name
            .push(DnType::CommonName, "a test's leaf");
        params.not_before = rcgen::date_time_ymd(years.0, 1, 1);
        params.not_after = rcgen::date_time_ymd(years.1, 1, 1);
        let key = KeyPair::generate().unwrap();
        Leaf {
            certificate: params.signed_by(&key, &self.issuer).unwrap(),
            key,
        }
    }
}

impl Leaf {
    pub(crate) fn pem(&self) -> String {
        self.certificate.pem()
    }

    pub(crate) fn key_pem(&self) -> String {
        self.key.serialize_pem()
    }

    fn acceptor(&self, clients: Option<&Authority>, alpn: &[&[u8]]) -> TlsAcceptor {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = match clients {
            None => Arc::new(NoClientAuth),
            Some(ca) => {
                let mut roots = RootCertStore::empty();
                roots.add(ca.certificate.der().clone()).unwrap();
                let roots = Arc::new(roots);
                WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(&provider))
                    .allow_unauthenticated()
                    .build()
                    .unwrap()
            }
        };
        let key = PrivateKeyDer::try_from(self.key.serialize_der()).unwrap();
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(verifier)
            .with_single_cert(vec![self.certificate.der().clone()], key)
            .unwrap();
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        Arc::new(config).into()
    }
}

async fn bind() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// A server that answers with the path and the credentials that it got, and 401 to the token
/// `planted-stale`.
pub(crate) async fn echo(leaf: Option<&Leaf>, clients: Option<&Authority>) -> SocketAddr {
    let acceptor = leaf.map(|leaf| leaf.acceptor(clients, &[b"h2", b"http/1.1"]));
    let (listener, address) = bind().await;
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                match acceptor {
                    None => serve_echo(tcp, 0).await,
                    Some(acceptor) => {
                        if let Ok(tls) = acceptor.accept(tcp).await {
                            let chain = tls.get_ref().1.peer_certificates();
                            let certificates = chain.map_or(0, <[_]>::len);
                            serve_echo(tls, certificates).await;
                        }
                    }
                }
            });
        }
    });
    address
}

async fn serve_echo<S>(stream: S, certificates: usize)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(move |request: Request<Incoming>| async move {
        let header = |name: &str| {
            let values = request.headers().get_all(name).iter();
            let values: Vec<_> = values.map(|value| value.to_str().unwrap()).collect();
            values.join("|")
        };
        let authorization = header("authorization");
        let text = format!(
            "path={} authorization={authorization} certificates={certificates} user={} groups={} \
             uid={} extra={}\n",
            request.uri().path(),
            header("impersonate-user"),
            header("impersonate-group"),
            header("impersonate-uid"),
            header("impersonate-extra-scope"),
        );
        let mut response = Response::new(text);
        if authorization.contains("planted-stale") {
            *response.status_mut() = StatusCode::UNAUTHORIZED;
        }
        Ok::<_, Infallible>(response)
    });
    let builder = auto::Builder::new(TokioExecutor::new());
    let _ = builder
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

/// A proxy and the targets that it was asked for.
pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    pub(crate) targets: Arc<Mutex<Vec<String>>>,
}

impl Proxy {
    pub(crate) fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.targets.lock().unwrap())
    }
}

/// A proxy that speaks HTTP CONNECT, over TLS if it has a certificate. Whatever the host, it
/// connects to this machine.
pub(crate) async fn http_proxy(leaf: Option<&Leaf>, login: Option<&str>) -> Proxy {
    let acceptor = leaf.map(|leaf| leaf.acceptor(None, &[b"http/1.1"]));
    let login = login.map(|login| format!("Basic {}", base64(login)));
    let (listener, address) = bind().await;
    let targets = Arc::new(Mutex::new(Vec::new()));
    let record = Arc::clone(&targets);
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let (acceptor, login, record) = (acceptor.clone(), login.clone(), Arc::clone(&record));
            tokio::spawn(async move {
                match acceptor {
                    None => connect(tcp, login, record).await,
                    Some(acceptor) => connect(acceptor.accept(tcp).await?, login, record).await,
                }
            });
        }
    });
    Proxy { address, targets }
}

async fn connect<S>(
    mut stream: S,
    login: Option<String>,
    record: Arc<Mutex<Vec<String>>>,
) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    let head = String::from_utf8(head).map_err(io::Error::other)?;
    let target = head.split(' ').nth(1).unwrap_or_default().to_owned();
    record.lock().unwrap().push(target.clone());
    let given = head.lines().find_map(|line| {
        let (name, value) = line.split_once(": ")?;
        name.eq_ignore_ascii_case("proxy-authorization")
            .then(|| value.to_owned())
    });
    if login.is_some() && login != given {
        let answer = b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n";
        return stream.write_all(answer).await;
    }
    if target.starts_with("forbidden") {
        let answer = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n";
        return stream.write_all(answer).await;
    }
    let port = target.rsplit(':').next().unwrap_or_default();
    let mut server = TcpStream::connect(format!("127.0.0.1:{port}")).await?;
    stream
        .write_all(b"HTTP/1.1 200 Connection established\r\n\r\n")
        .await?;
    copy_bidirectional(&mut stream, &mut server).await?;
    Ok(())
}

/// A SOCKS5 proxy. Whatever the host, it connects to this machine.
pub(crate) async fn socks_proxy(login: Option<(&str, &str)>) -> Proxy {
    let login = login.map(|(user, password)| (user.to_owned(), password.to_owned()));
    let (listener, address) = bind().await;
    let targets = Arc::new(Mutex::new(Vec::new()));
    let record = Arc::clone(&targets);
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            tokio::spawn(socks(tcp, login.clone(), Arc::clone(&record)));
        }
    });
    Proxy { address, targets }
}

async fn socks(
    mut tcp: TcpStream,
    login: Option<(String, String)>,
    record: Arc<Mutex<Vec<String>>>,
) -> io::Result<()> {
    async fn take(tcp: &mut TcpStream, length: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; length];
        tcp.read_exact(&mut bytes).await?;
        Ok(bytes)
    }
    async fn text(tcp: &mut TcpStream) -> io::Result<String> {
        let length = tcp.read_u8().await?;
        let bytes = take(tcp, length.into()).await?;
        String::from_utf8(bytes).map_err(io::Error::other)
    }
    let greeting = take(&mut tcp, 2).await?;
    let methods = take(&mut tcp, greeting[1].into()).await?;
    match login {
        None => tcp.write_all(&[5, 0]).await?,
        Some(_) if !methods.contains(&2) => return tcp.write_all(&[5, 0xff]).await,
        Some(login) => {
            tcp.write_all(&[5, 2]).await?;
            take(&mut tcp, 1).await?;
            let given = (text(&mut tcp).await?, text(&mut tcp).await?);
            if given != login {
                return tcp.write_all(&[1, 1]).await;
            }
            tcp.write_all(&[1, 0]).await?;
        }
    }
    let request = take(&mut tcp, 4).await?;
    let host = match request[3] {
        1 => {
            let octets = take(&mut tcp, 4).await?;
            format!("{}.{}.{}.{}", octets[0], octets[1], octets[2], octets[3])
        }
        _ => text(&mut tcp).await?,
    };
    let port = tcp.read_u16().await?;
    record.lock().unwrap().push(format!("{host}:{port}"));
    let mut server = TcpStream::connect(("127.0.0.1", port)).await?;
    tcp.write_all(&[5, 0, 0, 1, 127, 0, 0, 1, 0, 80]).await?;
    copy_bidirectional(&mut tcp, &mut server).await?;
    Ok(())
}

/// An OpenID Connect provider over TLS whose refresh gives this token.
pub(crate) async fn provider(leaf: &Leaf, id_token: String) -> SocketAddr {
    let acceptor = leaf.acceptor(None, &[b"http/1.1"]);
    let (listener, address) = bind().await;
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let Ok(tls) = acceptor.accept(tcp).await else {
                continue;
            };
            let id_token = id_token.clone();
            let service = service_fn(move |request: Request<Incoming>| {
                let id_token = id_token.clone();
                async move {
                    let body = match request.uri().path() {
                        "/.well-known/openid-configuration" => format!(
                            r#"{{"issuer":"https://{address}","token_endpoint":"https://{address}/token"}}"#
                        ),
                        _ => format!(
                            r#"{{"id_token":"{id_token}","access_token":"a","token_type":"Bearer"}}"#
                        ),
                    };
                    let response = Response::builder().header("content-type", "application/json");
                    response.body(body)
                }
            });
            tokio::spawn(async move {
                let builder = auto::Builder::new(TokioExecutor::new());
                let _ = builder.serve_connection(TokioIo::new(tls), service).await;
            });
        }
    });
    address
}

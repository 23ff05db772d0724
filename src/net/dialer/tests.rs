use std::io::IoSlice;

use rcgen::{BasicConstraints, IsCa};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use super::*;
use crate::{
    Error,
    error::CertificateProblem,
    net::tests::{Leaf, authority, local, params, self_signed, serve, to},
};

/// What the server greets with, after an echo has gone there and back.
async fn greeting(config: &Config, alpn: Alpn) -> Result<String> {
    let mut connection = Dialer::new(config)?.dial(alpn, None).await?;
    let bufs = [IoSlice::new(b"pi"), IoSlice::new(b"ng")];
    assert_eq!(connection.write_vectored(&bufs).await.unwrap(), 4);
    connection.shutdown().await.unwrap();
    let mut text = String::new();
    connection.read_to_string(&mut text).await.unwrap();
    Ok(text.strip_suffix("ping").expect("an echo").to_owned())
}

async fn refusal(config: &Config) -> (CertificateProblem, String) {
    match greeting(config, Alpn::Http1).await {
        Err(error) => {
            let text = error.to_string();
            match error {
                Error::Network(NetworkError::Certificate { problem, .. }) => (problem, text),
                other => panic!("{other}"),
            }
        }
        Ok(text) => panic!("connected: {text}"),
    }
}

#[tokio::test]
async fn a_certificate_of_the_configured_authority_is_trusted() {
    let ca = authority();
    let address = serve(&ca.sign(local()), None).await;
    let config = to(address).with_ca_pem(ca.pem());
    assert_eq!(greeting(&config, Alpn::Http1).await.unwrap(), "0 http/1.1;");
    assert_eq!(greeting(&config, Alpn::Http2).await.unwrap(), "0 h2;");
    let bundle = format!("{}{}", authority().pem(), ca.pem());
    let config = to(address).with_ca_pem(bundle);
    assert_eq!(greeting(&config, Alpn::Http1).await.unwrap(), "0 http/1.1;");
    let connection = Dialer::new(&config)
        .unwrap()
        .dial(Alpn::Http2, None)
        .await
        .unwrap();
    assert!(connection.is_http2());
    assert_eq!(format!("{connection:?}"), format!("Tls({address})"));
    assert!(connection.tcp().unwrap().nodelay().unwrap());
}

#[tokio::test]
async fn a_wrong_authority_is_refused_as_such() {
    let address = serve(&authority().sign(local()), None).await;
    let other = authority();
    let (problem, text) = refusal(&to(address).with_ca_pem(other.pem())).await;
    assert!(matches!(problem, CertificateProblem::Issuer { .. }));
    assert_eq!(
        text,
        format!(
            "the certificate of {address} is refused: its issuer is not among the trusted \
             certificate authorities (the CA's PEM)"
        )
    );
}

#[tokio::test]
async fn without_an_authority_those_of_the_machine_are_trusted() {
    let address = serve(&authority().sign(local()), None).await;
    match Dialer::new(&to(address)) {
        Ok(dialer) => {
            let error = dialer
                .dial(Alpn::Http1, None)
                .await
                .unwrap_err()
                .to_string();
            assert!(error.contains("those of this machine"), "{error}");
        }
        // A machine without any.
        Err(error) => assert!(error.to_string().starts_with("the platform's"), "{error}"),
    }
}

#[tokio::test]
async fn a_wrong_name_is_refused_as_such() {
    let ca = authority();
    let address = serve(&ca.sign(params(&["kubernetes", "10.0.0.1"])), None).await;
    let config = to(address).with_ca_pem(ca.pem());
    let (problem, _) = refusal(&config).await;
    let CertificateProblem::Name {
        expected,
        presented,
    } = problem
    else {
        panic!("{problem}");
    };
    assert_eq!(expected, "127.0.0.1");
    assert_eq!(presented, ["kubernetes", "10.0.0.1"]);
    let config = config.with_tls_server_name("kubernetes");
    assert_eq!(greeting(&config, Alpn::Http1).await.unwrap(), "0 http/1.1;");
}

#[tokio::test]
async fn wrong_dates_are_refused_as_such() {
    let ca = authority();
    let mut past = local();
    past.not_before = rcgen::date_time_ymd(2001, 1, 1);
    past.not_after = rcgen::date_time_ymd(2002, 1, 1);
    let address = serve(&ca.sign(past), None).await;
    let (problem, text) = refusal(&to(address).with_ca_pem(ca.pem())).await;
    assert!(matches!(
        problem,
        CertificateProblem::Expired {
            for_how_long: Some(_)
        }
    ));
    assert!(
        text.contains("it expired") && text.ends_with(" days ago by this machine's clock"),
        "{text}"
    );
    let mut future = local();
    future.not_before = rcgen::date_time_ymd(3001, 1, 1);
    future.not_after = rcgen::date_time_ymd(3002, 1, 1);
    let address = serve(&ca.sign(future), None).await;
    let (problem, _) = refusal(&to(address).with_ca_pem(ca.pem())).await;
    assert_eq!(problem, CertificateProblem::NotYetValid);
}

#[tokio::test]
async fn a_server_certificate_given_as_authority_is_trusted_as_in_kubectl() {
    let mut marked = local();
    marked.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    for leaf in [
        self_signed(local()),
        self_signed(marked),
        authority().sign(local()),
    ] {
        let address = serve(&leaf, None).await;
        let config = to(address).with_ca_pem(leaf.certificate.pem());
        assert_eq!(greeting(&config, Alpn::Http1).await.unwrap(), "0 http/1.1;");
        let (problem, _) = refusal(&config.with_tls_server_name("other")).await;
        assert!(
            matches!(problem, CertificateProblem::Name { .. }),
            "{problem}"
        );
        // Also of one that says it is an authority.
        let (problem, _) = refusal(&to(address).with_ca_pem(authority().pem())).await;
        assert!(
            matches!(problem, CertificateProblem::Issuer { .. }),
            "{problem}"
        );
    }
    let mut expired = local();
    expired.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    expired.not_after = rcgen::date_time_ymd(2002, 1, 1);
    let leaf = self_signed(expired);
    let address = serve(&leaf, None).await;
    let (problem, _) = refusal(&to(address).with_ca_pem(leaf.certificate.pem())).await;
    assert!(
        matches!(problem, CertificateProblem::Expired { .. }),
        "{problem}"
    );
}

#[tokio::test]
async fn a_client_certificate_is_presented() {
    let (ca, clients) = (authority(), authority());
    let address = serve(&ca.sign(local()), Some(&clients)).await;
    let client = clients.sign(params(&[]));
    let config = to(address)
        .with_ca_pem(ca.pem())
        .with_client_certificate_pem(
            client.certificate.pem(),
            client.key.serialize_pem().into_bytes(),
        );
    assert_eq!(greeting(&config, Alpn::Http1).await.unwrap(), "1 http/1.1;");
}

#[tokio::test]
async fn certificates_and_keys_are_checked_before_there_is_a_connection() {
    let ca = authority();
    let (one, two) = (ca.sign(local()), ca.sign(local()));
    let config = Config::new("https://h").unwrap().with_ca_pem(ca.pem());
    let problem = |config: Config| Dialer::new(&config).unwrap_err().to_string();
    let identity = |certificate: &str, key: &str| {
        problem(
            config
                .clone()
                .with_client_certificate_pem(certificate, key.as_bytes().to_vec()),
        )
    };
    let (certificate, key) = (one.certificate.pem(), one.key.serialize_pem());
    assert!(identity(&certificate, &two.key.serialize_pem()).contains("does not fit"));
    assert!(identity(&certificate, &certificate).contains("the client key's PEM"));
    assert!(identity(&key, &key).contains("the client certificate's PEM: holds no certificate"));
    assert!(problem(config.clone().with_ca_pem("")).contains("holds no certificate"));
    assert!(problem(config.clone().with_ca_file("/nonexistent")).contains("cannot be read"));
    assert!(problem(config.with_tls_server_name("a b")).contains("tls-server-name"));
}

#[tokio::test]
async fn a_server_without_tls_is_named_as_such() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut tcp, _) = listener.accept().await.unwrap();
        let _ = tcp.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
        let _ = tcp.read(&mut [0; 1024]).await;
    });
    let error = Dialer::new(&to(address).with_ca_pem(authority().pem())).unwrap();
    let error = error.dial(Alpn::Http1, None).await.unwrap_err().to_string();
    assert!(error.contains("is its URL http and not https?"), "{error}");
}

#[tokio::test]
async fn a_silent_server_is_given_up_after_the_handshake_limit() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let config = to(listener.local_addr().unwrap()).with_ca_pem(authority().pem());
    let dialer = Dialer::new(&config).unwrap();
    let attempt = tokio::spawn(async move { dialer.dial(Alpn::Http1, None).await });
    let _held = listener.accept().await.unwrap();
    tokio::time::pause();
    let error = attempt.await.unwrap().unwrap_err();
    assert!(
        matches!(error, Error::Network(NetworkError::TimedOut { .. })),
        "{error}"
    );
}

#[tokio::test]
async fn plain_connections_need_no_certificates() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let dialer = Dialer::new(&Config::new(&format!("http://{address}")).unwrap()).unwrap();
    let mut connection = dialer.dial(Alpn::Http1, None).await.unwrap();
    let (mut accepted, peer) = listener.accept().await.unwrap();
    assert_eq!(format!("{connection:?}"), format!("Plain({address})"));
    assert_eq!(connection.tcp().unwrap().local_addr().unwrap(), peer);
    connection.write_all(b"hello").await.unwrap();
    connection.shutdown().await.unwrap();
    let mut text = String::new();
    accepted.read_to_string(&mut text).await.unwrap();
    assert_eq!(text, "hello");
}

#[tokio::test]
async fn a_refused_connection_says_where_and_why() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let dialer = Dialer::new(&Config::new(&format!("http://{address}")).unwrap()).unwrap();
    let error = dialer.dial(Alpn::Http1, None).await.unwrap_err();
    let text = error.to_string();
    assert!(
        text.starts_with(&format!("cannot connect to {address}: Connection refused")),
        "{text}"
    );
    let Error::Network(NetworkError::Connect { source, .. }) = error else {
        panic!("{error}");
    };
    assert_eq!(source.kind(), io::ErrorKind::ConnectionRefused);
}

#[tokio::test]
async fn all_addresses_of_a_name_are_tried() {
    let addresses = tokio::net::lookup_host("localhost:0").await.unwrap();
    for address in addresses {
        // A name server may know an address family that this machine lacks.
        let Ok(listener) = TcpListener::bind(address).await else {
            continue;
        };
        let bound = listener.local_addr().unwrap();
        let url = format!("http://localhost:{}", bound.port());
        let dialer = Dialer::new(&Config::new(&url).unwrap()).unwrap();
        let connection = dialer.dial(Alpn::Http1, None).await.unwrap();
        assert_eq!(connection.tcp().unwrap().peer_addr().unwrap(), bound);
    }
}

#[tokio::test]
async fn an_insecure_configuration_accepts_any_certificate() {
    let address = serve(&authority().sign(params(&["other"])), None).await;
    let mut config = to(address);
    config.tls.insecure = true;
    assert_eq!(greeting(&config, Alpn::Http1).await.unwrap(), "0 http/1.1;");
    let config = to(address).with_insecure_skip_tls_verify();
    assert_eq!(greeting(&config, Alpn::Http1).await.unwrap(), "0 http/1.1;");
    let (problem, _) = refusal(&config.with_ca_pem(authority().pem())).await;
    assert!(
        matches!(problem, CertificateProblem::Issuer { .. }),
        "an explicit authority wins: {problem}"
    );
}

#[test]
fn requests_carry_the_base_path_and_the_host() {
    let config = Config::new("https://rancher.example.com/k8s/clusters/c").unwrap();
    let dialer = Dialer::new(&config.with_ca_pem(authority().pem())).unwrap();
    assert_eq!(
        dialer.server().origin_form("/version?a=b").unwrap(),
        "/k8s/clusters/c/version?a=b"
    );
    assert_eq!(dialer.server().authority, "rancher.example.com");
    assert!(dialer.is_tls());
}

/// The contents of a directory, replaced as by a rotation.
fn write_identity(dir: &std::path::Path, ca: &str, leaf: &Leaf) -> Config {
    let path = |name: &str| dir.join(name);
    std::fs::write(path("ca"), ca).unwrap();
    std::fs::write(path("crt"), leaf.certificate.pem()).unwrap();
    std::fs::write(path("key"), leaf.key.serialize_pem()).unwrap();
    Config::new("https://h")
        .unwrap()
        .with_ca_file(path("ca"))
        .with_client_certificate_files(path("crt"), path("key"))
}

#[tokio::test]
async fn rotated_files_are_used_by_new_connections_and_old_ones_live_on() {
    let (old, new) = (authority(), authority());
    let at_old = serve(&old.sign(local()), Some(&old)).await;
    let at_new = serve(&new.sign(local()), Some(&new)).await;
    let dir = tempfile::tempdir().unwrap();
    let mut config = write_identity(dir.path(), &old.pem(), &old.sign(params(&[])));
    config.server = to(at_old).server;
    let mut dialer = Dialer::new(&config).unwrap();
    let mut running = dialer.dial(Alpn::Http1, None).await.unwrap();

    // Half of a rotation: the key does not fit.
    let next = new.sign(params(&[]));
    std::fs::write(dir.path().join("key"), next.key.serialize_pem()).unwrap();
    assert!(dialer.certificates_changed(), "the files differ");
    dialer.dial(Alpn::Http1, None).await.unwrap();

    write_identity(dir.path(), &new.pem(), &next);
    dialer.server = to(at_new).server;
    let mut connection = dialer.dial(Alpn::Http1, None).await.unwrap();
    assert!(!dialer.certificates_changed(), "nothing is new any more");
    for (connection, expected) in [
        (&mut running, "1 http/1.1;"),
        (&mut connection, "1 http/1.1;"),
    ] {
        let mut greeting = vec![0; expected.len()];
        connection.read_exact(&mut greeting).await.unwrap();
        assert_eq!(greeting, expected.as_bytes());
    }
    std::fs::remove_file(dir.path().join("crt")).unwrap();
    dialer.dial(Alpn::Http1, None).await.unwrap();
}

#[tokio::test]
async fn a_connect_timeout_may_be_off() {
    let ca = authority();
    let address = serve(&ca.sign(local()), None).await;
    let config = to(address)
        .with_ca_pem(ca.pem())
        .with_connect_timeout(Duration::MAX);
    assert_eq!(greeting(&config, Alpn::Http1).await.unwrap(), "0 http/1.1;");
    let proxied = config.with_proxy(format!("http://{address}")).unwrap();
    assert!(greeting(&proxied, Alpn::Http1).await.is_err());
}

#[tokio::test]
async fn a_dialler_of_the_program_makes_the_streams() {
    let ca = authority();
    let address = serve(&ca.sign(local()), None).await;
    let asked = Arc::new(std::sync::Mutex::new(Vec::new()));
    let record = Arc::clone(&asked);
    let config = Config::new("https://kubernetes:6443")
        .unwrap()
        .without_proxy()
        .with_ca_pem(ca.pem())
        .with_dialer(move |host, port| {
            record.lock().unwrap().push((host, port));
            TcpStream::connect(address)
        });
    assert_eq!(greeting(&config, Alpn::Http2).await.unwrap(), "0 h2;");
    let proxied = config.clone().with_proxy("http://proxy:3128").unwrap();
    assert!(greeting(&proxied, Alpn::Http1).await.is_err());
    assert_eq!(
        *asked.lock().unwrap(),
        [("kubernetes".to_owned(), 6443), ("proxy".to_owned(), 3128)]
    );

    let config = Config::new("http://h").unwrap().without_proxy();
    let (ours, mut theirs) = tokio::io::duplex(64);
    let ours = std::sync::Mutex::new(Some(ours));
    let config = config.with_dialer(move |_, _| {
        let next = ours.lock().unwrap().take();
        async { next.ok_or_else(|| io::Error::other("there is one only")) }
    });
    let dialer = Dialer::new(&config).unwrap();
    let mut connection = dialer.dial(Alpn::Http1, None).await.unwrap();
    connection.write_all(b"hello").await.unwrap();
    drop(connection);
    let mut text = String::new();
    theirs.read_to_string(&mut text).await.unwrap();
    assert_eq!(text, "hello");
    let error = dialer.dial(Alpn::Http1, None).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "cannot connect to h:80: there is one only"
    );
}

/// What reading ends with.
async fn end_of(config: &Config) -> (Dialer, io::Error) {
    let dialer = Dialer::new(config).unwrap();
    let mut connection = dialer.dial(Alpn::Http1, None).await.unwrap();
    let error = loop {
        match connection.read(&mut [0; 64]).await {
            Ok(0) => panic!("an orderly end"),
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    (dialer, error)
}

#[tokio::test]
async fn a_refused_client_certificate_is_named_with_its_date() {
    let (ca, clients) = (authority(), authority());
    let address = serve(&ca.sign(local()), Some(&clients)).await;
    let mut past = params(&[]);
    past.not_after = rcgen::date_time_ymd(2002, 1, 1);
    for (leaf, expected) in [
        (
            clients.sign(past),
            "valid until 2002-01-01T00:00:00Z): it expired at 2002-01-01T00:00:00Z",
        ),
        (
            authority().sign(params(&[])),
            "valid until 4096-01-01T00:00:00Z): ",
        ),
    ] {
        let config = to(address)
            .with_ca_pem(ca.pem())
            .with_client_certificate_pem(
                leaf.certificate.pem(),
                leaf.key.serialize_pem().into_bytes(),
            );
        let (dialer, error) = end_of(&config).await;
        let error = Error::of_io(&error)
            .expect("an error of this crate")
            .clone();
        assert!(
            matches!(error, Error::Caller(CallerError::ClientCertificate { .. })),
            "{error}"
        );
        let text = error.to_string();
        assert!(
            text.starts_with(
                "the server refuses the client certificate (the client certificate's PEM, "
            ) && text.contains(expected),
            "{text}"
        );
        assert_eq!(dialer.refusal().unwrap().to_string(), text);
    }
    let (_, error) = end_of(&to(address).with_ca_pem(ca.pem())).await;
    assert_eq!(
        error.to_string(),
        "the server refuses the client certificate (none is given): it wants one"
    );
}

#[tokio::test]
async fn a_connection_that_is_cut_is_told_in_our_words() {
    let ca = authority();
    let address = crate::net::tests::serve_and_cut(&ca.sign(local())).await;
    let config = to(address).with_ca_pem(ca.pem());
    let (_, error) = end_of(&config).await;
    assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    assert_eq!(
        error.to_string(),
        "it was cut: the server, or something before it, closed it without an end of TLS"
    );
}

#[tokio::test]
async fn a_server_that_leaves_in_the_handshake_is_told_in_our_words() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut tcp, _) = listener.accept().await.unwrap();
        let _ = tcp.read(&mut [0; 4096]).await;
    });
    let dialer = Dialer::new(&to(address).with_ca_pem(authority().pem())).unwrap();
    let error = dialer.dial(Alpn::Http1, None).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("TLS handshake with {address} failed: the server closed the connection")
    );
}

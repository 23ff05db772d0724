//! A TLS server for tests, and the authorities that sign for it and its clients.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::{net::SocketAddr, sync::Arc};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::{
    RootCertStore, ServerConfig, SupportedProtocolVersion,
    pki_types::{CertificateDer, PrivateKeyDer},
    server::{WebPkiClientVerifier, danger::ClientCertVerifier},
};
use tokio::{io::AsyncWriteExt, net::TcpListener};

use crate::Config;

pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub(crate) certificate: rcgen::Certificate,
}

/// Both authorities of a test have the same name, as clusters' do.
pub(crate) fn authority() -> Authority {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    Authority {
        certificate: params.self_signed(&key).unwrap(),
        issuer: Issuer::new(params, key),
    }
}

pub(crate) struct Leaf {
    pub(crate) certificate: rcgen::Certificate,
    pub(crate) key: KeyPair,
}

impl Authority {
    pub(crate) fn pem(&self) -> String {
        self.certificate.pem()
    }

    pub(crate) fn sign(&self, params: CertificateParams) -> Leaf {
        let key = KeyPair::generate().unwrap();
        Leaf {
            certificate: params.signed_by(&key, &self.issuer).unwrap(),
            key,
        }
    }
}

pub(crate) fn params(names: &[&str]) -> CertificateParams {
    let mut params = CertificateParams::new(
        names
            .iter()
            .map(|&name| name.to_owned())
            .collect::<Vec<_>>(),
    )
    .unwrap();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params
}

pub(crate) fn local() -> CertificateParams {
    params(&["127.0.0.1", "kubernetes"])
}

pub(crate) fn self_signed(params: CertificateParams) -> Leaf {
    let key = KeyPair::generate().unwrap();
    Leaf {
        certificate: params.self_signed(&key).unwrap(),
        key,
    }
}

/// A TLS server that answers each connection with its client's certificate count and ALPN, then
/// echoes.
pub(crate) async fn serve(leaf: &Leaf, client_ca: Option<&Authority>) -> SocketAddr {
    let provider = super::provider::provider();
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .unwrap();
    let builder = match client_ca {
        None => builder.with_no_client_auth(),
        Some(ca) => {
            let mut roots = RootCertStore::empty();
            roots.add(ca.certificate.der().clone()).unwrap();
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            builder.with_client_cert_verifier(verifier.build().unwrap())
        }
    };
    greet(acceptor(leaf, builder)).await
}

/// The same, with a verifier of the test's own.
pub(crate) async fn serve_verified(
    leaf: &Leaf,
    verifier: Arc<dyn ClientCertVerifier>,
    version: &'static SupportedProtocolVersion,
) -> SocketAddr {
    let builder = ServerConfig::builder_with_provider(super::provider::provider())
        .with_protocol_versions(&[version])
        .unwrap()
        .with_client_cert_verifier(verifier);
    greet(acceptor(leaf, builder)).await
}

async fn greet(acceptor: tokio_rustls::TlsAcceptor) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(mut tls) = acceptor.accept(tcp).await else {
                    return;
                };
                let session = tls.get_ref().1;
                let greeting = format!(
                    "{} {};",
                    session.peer_certificates().map_or(0, <[_]>::len),
                    String::from_utf8_lossy(session.alpn_protocol().unwrap_or_default())
                );
                let _ = tls.write_all(greeting.as_bytes()).await;
                let (mut read, mut write) = tokio::io::split(tls);
                let _ = tokio::io::copy(&mut read, &mut write).await;
                let _ = write.shutdown().await;
            });
        }
    });
    address
}

fn acceptor(
    leaf: &Leaf,
    builder: rustls::ConfigBuilder<ServerConfig, rustls::server::WantsServerCert>,
) -> tokio_rustls::TlsAcceptor {
    let chain: Vec<CertificateDer<'static>> = vec![leaf.certificate.der().clone()];
    let key = PrivateKeyDer::try_from(leaf.key.serialize_der()).unwrap();
    let mut config = builder.with_single_cert(chain, key).unwrap();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    tokio_rustls::TlsAcceptor::from(Arc::new(config))
}

/// A TLS server that greets each connection and then closes it without close_notify.
pub(crate) async fn serve_and_cut(leaf: &Leaf) -> SocketAddr {
    let builder = ServerConfig::builder_with_provider(super::provider::provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth();
    let acceptor = acceptor(leaf, builder);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let mut tls = acceptor.accept(tcp).await.unwrap();
            tls.write_all(b"hello").await.unwrap();
            tls.flush().await.unwrap();
            let (mut tcp, _) = tls.into_inner();
            tcp.shutdown().await.unwrap();
        }
    });
    address
}

pub(crate) fn to(address: SocketAddr) -> Config {
    Config::new(&format!("https://{address}")).unwrap()
}

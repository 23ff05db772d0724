use crate::error::CallerError;
use rustls::{
    DistinguishedName,
    pki_types::{UnixTime, pem::PemObject as _},
    server::danger::{ClientCertVerified, ClientCertVerifier},
};
use tokio::io::AsyncReadExt as _;

use super::*;
use crate::net::{
    certificate,
    dialer::{Alpn, Dialer},
    tests::{authority, local, serve_verified, to},
};

/// What `openssl x509 -req` makes, and a stock MicroK8s: X.509 version 1.
const VERSION_1: &str = "\
-----BEGIN CERTIFICATE-----\n\
MIIBNjCB3gIUVPFNeKxv2HZltoaZgyNM35bx/3swCgYIKoZIzj0EAwIwEjEQMA4G\n\
A1UEAwwHZml4dHVyZTAgFw0yNjExMjYxMzE5NDdaGA8yMTI2MTEwMjEzMTk0N1ow\n\
KTEOMAwGA1UEAwwFYWRtaW4xFzAVBgNVBAoMDnN5c3RlbTptYXN0ZXJzMFkwEwYH\n\
KoZIzj0CAQYIKoZIzj0DAQcDQgAENwO9jenhO57SgSIkld0hpEyoP1YCZp4cIqyC\n\
SShFkyrSofn9pxL53Tafqp7e7KrLjfc8XM1mZ0oXV0/Z9R+9/DAKBggqhkjOPQQD\n\
AgNHADBEAiAQxeo4bRTXM1C11obmkJ5Pn1GDpE5L4MRoBdjb2fkl1wIgFhsaqdW+\n\
U6bp6GSOzs8otoQ7B1p2fq2kx7bw8bnn4eY=\n\
-----END CERTIFICATE-----\n\
";
const VERSION_1_KEY: &str = "\
-----BEGIN PRIVATE KEY-----\n\
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQg/fC8VRoQOOWuzW1i\n\
DqqfUcI05lB52B7pAQtxb7I3C9ShRANCAAQ3A72N6eE7ntKBIiSV3SGkTKg/VgJm\n\
nhwirIJJKEWTKtKh+f2nEvndNp+qnt7sqsuN9zxczWZnShdXT9n1H738\n\
-----END PRIVATE KEY-----\n\
";
const P521: &str = "\
-----BEGIN CERTIFICATE-----\n\
MIIB9jCCAVigAwIBAgIUdpJlnKLApAjcy7SM7iUuFTYAldowCgYIKoZIzj0EAwIw\n\
DDEKMAgGA1UEAwwBcDAgFw0yNjExMjYxMzE5NDdaGA8yMTI2MTEwMjEzMTk0N1ow\n\
DDEKMAgGA1UEAwwBcDCBmzAQBgcqhkjOPQIBBgUrgQQAIwOBhgAEAU/ySQc8gxOt\n\
kgXMI6nRDbwUCSYV4ihRlIGoHvCnRth7YeG5FLhdT1mu/EaIVkS9QeIRiQdWBG+a\n\
yKeALo1AZ0tEASy12btXMUVdNf58pqzM5GCNeXqyrRZUz+96c7MOzdnb7Wl9sBaQ\n\
XGvFRbQ8RlA5vgmIAUbupSlHfdEPv4WZILqao1MwUTAdBgNVHQ4EFgQU3lN7xhQB\n\
FhlVNPlucpkq0J5FwQ4wHwYDVR0jBBgwFoAU3lN7xhQBFhlVNPlucpkq0J5FwQ4w\n\
DwYDVR0TAQH/BAUwAwEB/zAKBggqhkjOPQQDAgOBiwAwgYcCQXvLRtPoqeYmBbUV\n\
gdZ056uQwfUUNI5k+90pcJGpt52TNYuW56usD8sWh0Meid3yZvDNQwjPEVDfChGi\n\
YWtqiY9lAkIAz8O9QIWalXhjIetFL9P3MC7ru+FQJxz8hdByM+bq+Oy587ahBZ2I\n\
fz4EwFLL1Dto0Ja4g+hi8bHNAyDRiXinKKQ=\n\
-----END CERTIFICATE-----\n\
";
const P521_KEY: &str = "\
-----BEGIN EC PRIVATE KEY-----\n\
MIHcAgEBBEIAYPzjspFH1LcXeYmwxALLeqOLO9Eg2Aex5MQrtFAnu14EmTiQ+ADD\n\
jx9jO2YT73MWiY9tmt+tj5vh1RzGxd7Iux+gBwYFK4EEACOhgYkDgYYABAFP8kkH\n\
PIMTrZIFzCOp0Q28FAkmFeIoUZSBqB7wp0bYe2HhuRS4XU9ZrvxGiFZEvUHiEYkH\n\
VgRvmsingC6NQGdLRAEstdm7VzFFXTX+fKaszORgjXl6sq0WVM/venOzDs3Z2+1p\n\
fbAWkFxrxUW0PEZQOb4JiAFG7qUpR33RD7+FmSC6mg==\n\
-----END EC PRIVATE KEY-----\n\
";

fn material(origin: &str, pem: &str) -> Material {
    Material::inline(origin, pem.as_bytes().to_vec())
}

fn with_identity(certificate: &str, key: &str) -> Result<Option<ClientCertificate>> {
    let settings = TlsSettings {
        ca: Some(material("the CA", P521)),
        identity: Some((
            material("the certificate", certificate),
            material("the key", key),
        )),
        ..TlsSettings::default()
    };
    client_config(&settings).map(|(_, certificate)| certificate)
}

#[test]
fn damaged_blocks_beside_certificates_are_passed_over() {
    const BEGIN: &str = "-----BEGIN CERTIFICATE-----\n";
    let bad = format!("{BEGIN}!!!!\n-----END CERTIFICATE-----\n");
    let cut = format!("{BEGIN}AAAA\n");
    for pem in [
        format!("{bad}{P521}"),
        format!("{P521}{bad}"),
        format!("{P521}{cut}"),
        format!("# a comment\n{P521}\n# another\n"),
    ] {
        let found = certificates(&material("the CA", &pem)).unwrap();
        assert_eq!(found.len(), 1, "{pem}");
    }
    for pem in [bad, cut] {
        let error = certificates(&material("the CA", &pem)).unwrap_err();
        assert_eq!(error.to_string(), "the CA: holds damaged PEM");
    }
}

#[test]
fn a_client_certificate_of_version_1_is_the_servers_to_judge() {
    let certificate = with_identity(VERSION_1, VERSION_1_KEY).unwrap().unwrap();
    assert_eq!(
        certificate.to_string(),
        "the certificate, valid until 2126-11-02T13:19:47Z"
    );
}

/// A server that takes certificates of version 1, as Go's and OpenSSL's do: what is signed is
/// verified with the key in it.
#[derive(Debug)]
struct AnyVersion(Arc<CryptoProvider>);

impl AnyVersion {
    fn verify(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let info = certificate::public_key(certificate).expect("a certificate");
        // Behind its head and the algorithm: the bits of a point of P-256.
        let key = &info[info.len() - 65..];
        let algorithms = self.0.signature_verification_algorithms.mapping;
        let mut algorithms = algorithms
            .iter()
            .filter(|(scheme, _)| *scheme == signed.scheme)
            .flat_map(|(_, algorithms)| *algorithms);
        match algorithms.any(|it| {
            it.verify_signature(key, message, signed.signature())
                .is_ok()
        }) {
            true => Ok(HandshakeSignatureValid::assertion()),
            false => Err(rustls::CertificateError::BadSignature.into()),
        }
    }
}

impl ClientCertVerifier for AnyVersion {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let sent = CertificateDer::from_pem_slice(VERSION_1.as_bytes());
        assert_eq!(sent.unwrap(), *end_entity);
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verify(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verify(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[tokio::test]
async fn a_client_certificate_of_version_1_identifies_to_a_server_that_takes_it() {
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let ca = authority();
        let verifier = Arc::new(AnyVersion(provider()));
        let address = serve_verified(&ca.sign(local()), verifier, version).await;
        let config = to(address)
            .with_ca_pem(ca.pem())
            .with_client_certificate_pem(VERSION_1, VERSION_1_KEY.as_bytes().to_vec());
        let dialer = Dialer::new(&config).unwrap();
        let mut connection = dialer.dial(Alpn::Http1, None).await.unwrap();
        let mut greeting = [0; 11];
        connection.read_exact(&mut greeting).await.unwrap();
        assert_eq!(
            &greeting, b"1 http/1.1;",
            "one certificate, and it is verified"
        );
    }
}

#[test]
fn a_key_of_another_certificate_does_not_fit_whatever_the_version() {
    let other = rcgen::KeyPair::generate().unwrap().serialize_pem();
    let error = with_identity(VERSION_1, &other).unwrap_err().to_string();
    assert_eq!(error, "the key: does not fit the client certificate");
}

/// Also in a build where `aws-lc-rs` wins.
#[cfg(feature = "ring")]
#[test]
fn a_key_of_p_521_names_what_ring_lacks() {
    let chain = certificates(&material("the certificate", P521)).unwrap();
    let ring = rustls::crypto::ring::default_provider();
    let error = certified(chain, &material("the key", P521_KEY), &ring).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the key: is a key of the curve P-521, which ring does not have; build kubewire with the \
         feature `aws-lc-rs`"
    );
}

#[cfg(feature = "aws-lc-rs")]
#[test]
fn a_key_of_p_521_is_used() {
    with_identity(P521, P521_KEY).unwrap();
}

#[test]
fn alerts_about_certificates_are_told_from_others() {
    use rustls::AlertDescription as Alert;
    let alert = |alert| io::Error::other(rustls::Error::AlertReceived(alert));
    for about in [
        Alert::CertificateExpired,
        Alert::BadCertificate,
        Alert::UnknownCA,
        Alert::CertificateRequired,
    ] {
        let error = handshake_error("h", "t", &Presented::default(), alert(about));
        assert!(
            matches!(error, Error::Caller(CallerError::ClientCertificate { .. })),
            "{error}"
        );
        assert!(!error.is_retryable());
    }
    let error = handshake_error("h", "t", &Presented::default(), alert(Alert::InternalError));
    assert!(
        matches!(error, Error::Network(NetworkError::Tls { .. })),
        "{error}"
    );
}

//! rustls as kubectl's users expect it: whom to trust, how to identify, and what went wrong.
//!
//! In flow [`TlsSettings`]; out comes a rustls configuration. A failed handshake becomes a
//! [`NetworkError`] that says whether it was the name, the dates or the issuer.

use std::{io, sync::Arc};

use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, InvalidMessage, RootCertStore,
    SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_name,
    },
    crypto::{
        CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature,
    },
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject},
    server::ParsedCertificate,
    sign::{CertifiedKey, SingleCertAndKey},
};
use secrecy::ExposeSecret;

use super::{
    certificate::{self, ClientCertificate, Presented},
    provider::provider,
};
use crate::{
    Error, Result,
    config::{Material, TlsSettings, wrong},
    error::{CertificateProblem, NetworkError},
};

/// A rustls configuration without ALPN protocols, and the client certificate in it.
///
/// # Errors
///
/// [`CallerError::Config`] if a file cannot be read, or holds no certificate or key, or if the key
/// does not fit the certificate.
pub(super) fn client_config(
    settings: &TlsSettings,
) -> Result<(ClientConfig, Option<ClientCertificate>)> {
    let provider = provider();
    let verifier: Arc<dyn ServerCertVerifier> = match &settings.ca {
        _ if settings.insecure => {
            tracing::warn!(
                "insecure-skip-tls-verify: any server can pass for the API server and read the \
                 credentials sent to it"
            );
            Arc::new(Verifier::new(None, &provider))
        }
        Some(ca) => Arc::new(Verifier::new(
            Some(Authorities::new(ca, &provider)?),
            &provider,
        )),
        None => Arc::new(
            rustls_platform_verifier::Verifier::new(Arc::clone(&provider))
                .map_err(|error| setup("the platform's certificate authorities", &error))?,
        ),
    };
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| setup("TLS", &error))?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    match &settings.identity {
        None => Ok((builder.with_no_client_auth(), None)),
        Some((certificate, key)) => {
            let chain = certificates(certificate)?;
            let seen = ClientCertificate::new(&certificate.origin, &chain[0]);
            let certified = certified(chain, key, &provider)?;
            let resolver = Arc::new(SingleCertAndKey::from(certified));
            Ok((builder.with_client_cert_resolver(resolver), Some(seen)))
        }
    }
}

/// A certificate chain and its key. rustls's own way refuses certificates that it would not accept
/// from a server, such as those of X.509 version 1.
fn certified(
    chain: Vec<CertificateDer<'static>>,
    pem: &Material,
    provider: &CryptoProvider,
) -> Result<CertifiedKey> {
    let key = private_key(pem)?;
    let curve = unsupported_curve(key.secret_der());
    let key = provider
        .key_provider
        .load_private_key(key)
        .map_err(|error| match curve {
            Some(curve) => pem.wrong(format!(
                "is a key of the curve {curve}, which ring does not have; build kubewire with the \
                 feature `aws-lc-rs`"
            )),
            None => pem.wrong(format!(
                "cannot be used, perhaps for an RSA key of less than 2048 bits or a curve that is not \
                 P-256, P-384 or Ed25519: {error}"
            )),
        })?;
    let own = key.public_key();
    let theirs = certificate::public_key(&chain[0]);
    if let (Some(own), Some(theirs)) = (own, theirs)
        && own.as_ref() != theirs
    {
        return Err(pem.wrong("does not fit the client certificate"));
    }
    Ok(CertifiedKey::new(chain, key))
}

/// The curve of a key that aws-lc-rs can use and ring cannot.
fn unsupported_curve(key: &[u8]) -> Option<&'static str> {
    // 1.3.132.0.35 (RFC 5480, section 2.1.1.1), in whatever form the key has.
    const SECP521R1: &[u8] = &[0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x23];
    memchr::memmem::find(key, SECP521R1).map(|_| "P-521")
}

/// The name that the server's certificate must have.
pub(super) fn server_name(settings: &TlsSettings, host: &str) -> Result<ServerName<'static>> {
    let (name, origin) = match &settings.server_name {
        Some(name) => (name.as_str(), "tls-server-name"),
        None => (host, "the host in the server's URL"),
    };
    ServerName::try_from(name.to_owned()).map_err(|_| {
        let problem = format!("{name:?} is neither a DNS name nor an IP address");
        wrong(origin, problem)
    })
}

/// Where the trusted certificate authorities come from, for error texts.
pub(super) fn trusted(settings: &TlsSettings) -> String {
    match &settings.ca {
        Some(ca) => ca.origin.clone(),
        None => "those of this machine; no other is configured".to_owned(),
    }
}

/// What the server says of our certificate, if this error is about that.
pub(super) fn certificate_alert(error: &io::Error, presented: &Presented) -> Option<&'static str> {
    use rustls::AlertDescription as Alert;
    let rustls::Error::AlertReceived(alert) = error.get_ref()?.downcast_ref()? else {
        return None;
    };
    // RFC 8446, section 6.2.
    Some(match alert {
        Alert::CertificateRequired => "it wants one",
        Alert::CertificateExpired => "it is out of date",
        Alert::CertificateRevoked => "it is revoked",
        Alert::UnknownCA => "none of the authorities that it trusts for clients signed it",
        Alert::UnsupportedCertificate => "it does not know its kind",
        Alert::BadCertificate | Alert::CertificateUnknown => "it cannot be verified",
        Alert::DecryptError if presented.certificate.is_some() => {
            "a signature does not fit: is it of an authority of the same name with another key?"
        }
        _ => return None,
    })
}

pub(super) fn handshake_error(
    address: &str,
    trusted: &str,
    presented: &Presented,
    error: io::Error,
) -> Error {
    match certificate_alert(&error, presented) {
        Some(problem) => presented.refused(problem, &error).into(),
        None => server_error(address, trusted, error).into(),
    }
}

fn server_error(address: &str, trusted: &str, error: io::Error) -> NetworkError {
    let address = address.to_owned();
    let problem = match error.get_ref().and_then(|inner| inner.downcast_ref()) {
        Some(rustls::Error::InvalidCertificate(problem)) => certificate_problem(problem, trusted),
        Some(rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType)) => {
            let text = "the server does not speak TLS; is its URL http and not https?";
            return NetworkError::Tls {
                address,
                source: Arc::new(io::Error::new(error.kind(), text)),
            };
        }
        _ => {
            let error = match error.kind() {
                io::ErrorKind::UnexpectedEof => {
                    io::Error::new(error.kind(), "the server closed the connection")
                }
                _ => error,
            };
            return NetworkError::Tls {
                address,
                source: Arc::new(error),
            };
        }
    };
    NetworkError::Certificate {
        address,
        problem,
        source: Arc::new(error),
    }
}

fn certificate_problem(error: &CertificateError, trusted: &str) -> CertificateProblem {
    match error {
        CertificateError::NotValidForNameContext {
            expected,
            presented,
        } => CertificateProblem::Name {
            expected: expected.to_str().into_owned(),
            presented: presented
                .iter()
                .map(|name| plain(name).to_owned())
                .collect(),
        },
        CertificateError::Expired => CertificateProblem::Expired { for_how_long: None },
        CertificateError::ExpiredContext { time, not_after } => CertificateProblem::Expired {
            for_how_long: time
                .as_secs()
                .checked_sub(not_after.as_secs())
                .map(std::time::Duration::from_secs),
        },
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            CertificateProblem::NotYetValid
        }
        // A bad signature is that of an authority of the right name with another key.
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            CertificateProblem::Issuer {
                trusted: trusted.to_owned(),
            }
        }
        CertificateError::Revoked => CertificateProblem::Revoked,
        CertificateError::UnsupportedSignatureAlgorithmContext { .. }
        | CertificateError::UnsupportedSignatureAlgorithmForPublicKeyContext { .. }
            if !cfg!(feature = "aws-lc-rs") =>
        {
            CertificateProblem::Other(format!(
                "{error}; ring does not have the curve P-521, which the feature `aws-lc-rs` has"
            ))
        }
        other => CertificateProblem::Other(other.to_string()),
    }
}

/// rustls gives the names in the form `DnsName("kubernetes")`.
fn plain(name: &str) -> &str {
    name.split_once('(')
        .and_then(|(_, name)| name.strip_suffix(')'))
        .map_or(name, |name| name.trim_matches('"'))
}

fn setup(origin: &str, error: &rustls::Error) -> Error {
    wrong(origin, error.to_string())
}

/// Those that can be read: Go passes over damaged blocks (`encoding/pem`).
fn certificates(pem: &Material) -> Result<Vec<CertificateDer<'static>>> {
    let text = pem.read()?;
    let mut damaged = 0;
    let blocks = CertificateDer::pem_slice_iter(text.expose_secret());
    let blocks = blocks.filter_map(|block| block.inspect_err(|_| damaged += 1).ok());
    let certificates: Vec<_> = blocks.collect();
    match (certificates.is_empty(), damaged) {
        (false, 0) => {}
        (false, _) => tracing::warn!(pem = pem.origin, damaged, "blocks that cannot be read"),
        (true, 0) => return Err(pem.wrong("holds no certificate in PEM")),
        (true, _) => return Err(pem.wrong("holds damaged PEM")),
    }
    Ok(certificates)
}

fn private_key(pem: &Material) -> Result<PrivateKeyDer<'static>> {
    PrivateKeyDer::from_pem_slice(pem.read()?.expose_secret()).map_err(|_| {
        pem.wrong("holds no unencrypted private key in PEM (PKCS #8, PKCS #1 or SEC 1)")
    })
}

/// The configured certificate authorities and no others.
///
/// As in Go (`crypto/x509/verify.go`, `Certificate.Verify`: "if opts.Roots.contains(c)"), a server
/// certificate that is itself among them is trusted whoever signed it, also when it is marked as
/// a CA: what `openssl req -x509` makes.
#[derive(Debug)]
struct Authorities {
    certificates: Vec<CertificateDer<'static>>,
    chains: Arc<WebPkiServerVerifier>,
}

impl Authorities {
    fn new(ca: &Material, provider: &Arc<CryptoProvider>) -> Result<Self> {
        let certificates = certificates(ca)?;
        let mut roots = RootCertStore::empty();
        // Go's AppendCertsFromPEM too passes over what it cannot parse.
        let (_, ignored) = roots.add_parsable_certificates(certificates.iter().cloned());
        if ignored > 0 {
            tracing::warn!(
                ca = ca.origin,
                ignored,
                "certificates that cannot be parsed"
            );
        }
        let chains =
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider))
                .build()
                .map_err(|error| ca.wrong(format!("holds no usable certificate: {error}")))?;
        Ok(Self {
            certificates,
            chains,
        })
    }
}

/// Whether webpki found nothing wrong with the certificate alone: it looks at the dates first,
/// then at the CA mark, then at the purposes, and only then for an issuer
/// (`rustls-webpki/src/verify_cert.rs`, `build_chain_inner`).
fn only_the_chain_is_wrong(error: &CertificateError) -> bool {
    match error {
        CertificateError::UnknownIssuer | CertificateError::BadSignature => true,
        CertificateError::Other(other) => {
            other.0.downcast_ref() == Some(&webpki::Error::CaUsedAsEndEntity)
        }
        _ => false,
    }
}

#[derive(Debug)]
struct Verifier {
    /// `None` for everybody: `insecure-skip-tls-verify`.
    authorities: Option<Authorities>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl Verifier {
    fn new(authorities: Option<Authorities>, provider: &CryptoProvider) -> Self {
        Self {
            authorities,
            algorithms: provider.signature_verification_algorithms,
        }
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let Some(authorities) = &self.authorities else {
            return Ok(ServerCertVerified::assertion());
        };
        match authorities
            .chains
            .verify_server_cert(end_entity, intermediates, name, ocsp, now)
        {
            Err(rustls::Error::InvalidCertificate(error)) if only_the_chain_is_wrong(&error) => {
                if authorities
                    .certificates
                    .iter()
                    .any(|trusted| trusted == end_entity)
                {
                    verify_server_name(&ParsedCertificate::try_from(end_entity)?, name)?;
                    return Ok(ServerCertVerified::assertion());
                }
                // A CA of the right name with another key: for the user, another issuer.
                Err(match error {
                    CertificateError::BadSignature => CertificateError::UnknownIssuer,
                    error => error,
                }
                .into())
            }
            result => result,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests;

//! TLS configurations for as long as a client lives: certificates and keys are read again, so that
//! a new connection has what is in the files now.
//!
//! In flow the [`TlsSettings`] and the certificate that a credential plugin gave last; out come
//! TLS connectors. Connections that exist are left alone.

use std::sync::{Arc, Mutex};

use rustls::client::Resumption;
use secrecy::{ExposeSecret, SecretSlice};
use tokio_rustls::TlsConnector;

use super::{certificate::Presented, tls};
use crate::{
    Result,
    config::{Identity, Material, TlsSettings},
    error::panic::{blocking, lock},
};

/// The TLS configuration of one server.
pub(super) struct Rotating {
    settings: TlsSettings,
    current: Mutex<Arc<Current>>,
}

/// What a TLS handshake needs.
pub(super) struct Current {
    seen: Vec<Arc<SecretSlice<u8>>>,
    /// What a plugin gave, in place of what the settings name.
    given: Option<Identity>,
    pub(super) presented: Arc<Presented>,
    pub(super) http1: TlsConnector,
    pub(super) http2: TlsConnector,
}

impl Rotating {
    pub(super) fn new(settings: TlsSettings) -> Result<Self> {
        let current = Arc::new(Current::new(&frozen(&settings, None)?, None)?);
        Ok(Self {
            settings,
            current: Mutex::new(current),
        })
    }

    /// The configuration for a connection that is made now.
    ///
    /// A file that cannot be used at this moment, as while it is being replaced, leaves the last
    /// configuration in force.
    pub(super) async fn get(self: &Arc<Self>, identity: Option<Identity>) -> Result<Arc<Current>> {
        let files = self.materials().any(Material::is_file);
        if !files {
            return self.read(identity);
        }
        let rotating = Arc::clone(self);
        blocking("the reading of certificates", move || {
            rotating.read(identity)
        })
        .await
    }

    /// Whether the files differ from what the last connection was made with.
    pub(super) fn has_changed(&self) -> bool {
        let current = self.current();
        self.materials().any(Material::is_file)
            && frozen(&self.settings, current.given.clone())
                .and_then(|now| contents(&now))
                .is_ok_and(|now| !same(&now, &current.seen))
    }

    fn read(&self, identity: Option<Identity>) -> Result<Arc<Current>> {
        let given = identity.is_some();
        let old = self.current();
        let new = frozen(&self.settings, identity.clone()).and_then(|settings| {
            match same(&contents(&settings)?, &old.seen) {
                true => Ok(Arc::clone(&old)),
                false => Ok(Arc::new(Current::new(&settings, identity)?)),
            }
        });
        match new {
            Ok(new) => {
                *lock(&self.current) = Arc::clone(&new);
                Ok(new)
            }
            Err(error) if given => Err(error),
            Err(error) => {
                tracing::warn!(%error, "certificates cannot be renewed; using the last ones");
                Ok(old)
            }
        }
    }

    pub(super) fn current(&self) -> Arc<Current> {
        Arc::clone(&lock(&self.current))
    }

    fn materials(&self) -> impl Iterator<Item = &Material> {
        materials(&self.settings)
    }
}

impl Current {
    fn new(settings: &TlsSettings, given: Option<Identity>) -> Result<Self> {
        let (mut http1, certificate) = tls::client_config(settings)?;
        // A resumed session would speak for the certificate of the first.
        http1.resumption = Resumption::in_memory_sessions(64);
        let mut http2 = http1.clone();
        http1.alpn_protocols = vec![b"http/1.1".to_vec()];
        http2.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Self {
            seen: contents(settings)?,
            given,
            presented: Arc::new(Presented::new(certificate)),
            http1: Arc::new(http1).into(),
            http2: Arc::new(http2).into(),
        })
    }
}

fn materials(settings: &TlsSettings) -> impl Iterator<Item = &Material> {
    let identity = settings.identity.iter();
    let identity = identity.flat_map(|(certificate, key)| [certificate, key]);
    settings.ca.iter().chain(identity)
}

/// The settings with each file's present content.
fn frozen(settings: &TlsSettings, identity: Option<Identity>) -> Result<TlsSettings> {
    let mut settings = settings.clone();
    if let Some(ca) = &mut settings.ca {
        *ca = ca.frozen()?;
    }
    if identity.is_some() {
        settings.identity = identity;
    }
    if let Some((certificate, key)) = &mut settings.identity {
        *certificate = certificate.frozen()?;
        *key = key.frozen()?;
    }
    Ok(settings)
}

fn contents(settings: &TlsSettings) -> Result<Vec<Arc<SecretSlice<u8>>>> {
    materials(settings).map(Material::read).collect()
}

fn same(a: &[Arc<SecretSlice<u8>>], b: &[Arc<SecretSlice<u8>>]) -> bool {
    a.len() == b.len()
        && a.iter()
            .zip(b)
            .all(|(a, b)| a.expose_secret() == b.expose_secret())
}

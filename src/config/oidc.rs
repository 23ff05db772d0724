//! The auth provider `oidc` of a user: whom to ask for tokens, and which are in hand.
//!
//! In flows the `auth-provider` entry as it is in the kubeconfig; out come [`Oidc`] settings.

use std::{collections::BTreeMap, path::PathBuf, sync::Mutex};

use secrecy::{ExposeSecret, SecretString};

use super::{Material, Proxies, kubeconfig::given_secret, wrong};
use crate::Result;

/// An OpenID Connect provider and what it has given this user.
pub(crate) struct Oidc {
    /// What error texts call the entry.
    pub(crate) origin: String,
    pub(crate) issuer: String,
    pub(crate) client: String,
    pub(crate) secret: Option<SecretString>,
    pub(crate) ca: Option<Material>,
    pub(crate) proxies: Proxies,
    /// The kubeconfig file, where renewed tokens are kept for other programs.
    pub(crate) file: Option<PathBuf>,
    /// All clients of one configuration share them: a provider may accept a refresh token only
    /// once.
    pub(crate) tokens: Mutex<Tokens>,
}

#[derive(Clone)]
pub(crate) struct Tokens {
    pub(crate) id: Option<SecretString>,
    pub(crate) refresh: Option<SecretString>,
}

impl Oidc {
    /// Checks an entry. `ca` is its `idp-certificate-authority`.
    pub(super) fn new(
        settings: &BTreeMap<String, SecretString>,
        origin: &str,
        ca: Option<Material>,
        proxies: Proxies,
        file: Option<PathBuf>,
    ) -> Result<Self> {
        let origin = format!("auth-provider oidc of {origin}");
        let secret = |name: &str| given_secret(settings.get(name));
        let text = |name: &str| {
            secret(name)
                .map(|text| text.expose_secret().to_owned())
                .ok_or_else(|| wrong(origin.as_str(), format!("it has no {name}")))
        };
        Ok(Self {
            issuer: text("idp-issuer-url")?,
            client: text("client-id")?,
            secret: secret("client-secret"),
            ca,
            proxies,
            tokens: Mutex::new(Tokens {
                id: secret("id-token"),
                refresh: secret("refresh-token"),
            }),
            file,
            origin,
        })
    }
}

debug_fields!(Oidc { issuer });

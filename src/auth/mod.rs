//! Credentials at work: as request headers and client certificates, renewed while they are in use.
//!
//! In flow the settings of a [`Config`] and what the server refuses; out come headers, and a
//! [`Connector`], whose connections present the certificate that a plugin gives. One caller at a
//! time renews; whoever still holds a good value does not wait for it.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use http::{HeaderMap, HeaderName, HeaderValue, header::AUTHORIZATION};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use secrecy::{ExposeSecret, SecretString};
use tokio::time::Instant;

mod connector;
mod exec;
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzzing;
mod oidc;
mod renewal;

pub use self::connector::Connector;
use self::{
    exec::Plugin,
    oidc::Provider,
    renewal::{Issuer, Renewal},
};
use crate::{
    Result,
    config::{Auth, Config, Identity, Impersonation, header, is_loopback, unreadable, wrong},
    error::panic::lock,
    limits,
};

/// The characters of an RFC 7230 token except `%` and those that Go escapes too
/// (`k8s.io/client-go/transport/round_trippers.go`, `headerKeyEscape`).
const EXTRA_KEY: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'!')
    .remove(b'#')
    .remove(b'$')
    .remove(b'&')
    .remove(b'\'')
    .remove(b'*')
    .remove(b'+')
    .remove(b'-')
    .remove(b'.')
    .remove(b'^')
    .remove(b'_')
    .remove(b'`')
    .remove(b'|')
    .remove(b'~');

pub(crate) struct Credentials {
    source: Source,
    /// What they are, for a server's refusal.
    title: String,
    /// Those of the configuration and of impersonation.
    headers: Vec<(HeaderName, Vec<HeaderValue>)>,
}

enum Source {
    None,
    Fixed(HeaderValue),
    File(TokenFile),
    Issued(Arc<Renewal>),
}

struct TokenFile {
    path: PathBuf,
    /// What to use while the file has never been readable.
    fallback: Option<HeaderValue>,
    held: Mutex<Option<Held>>,
    /// Whoever holds it reads the file.
    renewal: tokio::sync::Mutex<()>,
}

struct Held {
    value: HeaderValue,
    since: Instant,
    refused: bool,
}

impl Credentials {
    pub(crate) fn new(config: &Config) -> Result<Self> {
        over_tls_only(config)?;
        let source = match &config.auth {
            Auth::None => Source::None,
            Auth::Token(token) => Source::Fixed(bearer(token, "the token")?),
            Auth::Basic(user, password) => Source::Fixed(basic(user, password)?),
            Auth::TokenFile(path, fallback) => Source::File(TokenFile {
                path: path.clone(),
                fallback: fallback
                    .as_ref()
                    .map(|t| bearer(t, "the token"))
                    .transpose()?,
                held: Mutex::new(None),
                renewal: tokio::sync::Mutex::new(()),
            }),
            Auth::Exec(exec) => {
                Source::Issued(Renewal::new(Issuer::Exec(Plugin::new(exec, config))))
            }
            Auth::Oidc(oidc) => Source::Issued(Renewal::new(Issuer::Oidc(Provider::new(oidc)))),
        };
        let title = match &config.auth {
            Auth::None => String::new(),
            Auth::Token(_) => "the token".to_owned(),
            Auth::Basic(..) => "the user name and password".to_owned(),
            Auth::TokenFile(path, _) => format!("the token in {}", path.display()),
            Auth::Exec(exec) => format!("what {} gave", exec.command.display()),
            Auth::Oidc(oidc) => format!("the token of {}", oidc.origin),
        };
        let impersonate = config.impersonate.as_ref().map(impersonation).transpose()?;
        let mut headers = extra_headers(&config.headers)?;
        headers.extend(impersonate.unwrap_or_default());
        Ok(Self {
            source,
            title,
            headers,
        })
    }

    pub(crate) fn title(&self) -> &str {
        &self.title
    }

    /// Sets the `Authorization` and `Impersonate-*` headers and those of the configuration, in place
    /// of any that are there.
    pub(crate) async fn authorize(&self, headers: &mut HeaderMap) -> Result<()> {
        let authorization = match &self.source {
            Source::None => None,
            Source::Fixed(value) => Some(value.clone()),
            Source::File(file) => Some(file.value().await?),
            Source::Issued(renewal) => renewal.get().await?.header.clone(),
        };
        if let Some(value) = authorization {
            headers.insert(AUTHORIZATION, value);
        }
        for (name, values) in &self.headers {
            headers.remove(name);
            for value in values {
                headers.append(name, value.clone());
            }
        }
        Ok(())
    }

    /// Takes note that the server answered 401 to these headers. Whether
    /// [`authorize`](Self::authorize) may now give others, so that a second try makes sense.
    pub(crate) fn refused(&self, headers: &HeaderMap) -> bool {
        match &self.source {
            Source::None | Source::Fixed(_) => false,
            Source::File(file) => {
                file.refuse(headers.get(AUTHORIZATION));
                true
            }
            Source::Issued(renewal) => renewal.refuse(headers.get(AUTHORIZATION)),
        }
    }

    /// A number that changes with [`identity`](Self::identity).
    pub(crate) fn generation(&self) -> u64 {
        match &self.source {
            Source::Issued(renewal) => renewal.generation(),
            _ => 0,
        }
    }

    /// The certificate chain and key that a plugin gives, to be presented by new connections.
    pub(crate) async fn identity(&self) -> Result<Option<Identity>> {
        match &self.source {
            Source::Issued(renewal) => Ok(renewal.get().await?.identity.clone()),
            _ => Ok(None),
        }
    }
}

impl TokenFile {
    async fn value(&self) -> Result<HeaderValue> {
        if let Some(value) = self.held(limits::TOKEN_FILE_PERIOD) {
            return Ok(value);
        }
        let _renewal = match self.renewal.try_lock() {
            Ok(renewal) => renewal,
            Err(_) => match self.held(std::time::Duration::MAX) {
                Some(value) => return Ok(value),
                None => self.renewal.lock().await,
            },
        };
        // Another may have read it while this one waited.
        if let Some(value) = self.held(limits::TOKEN_FILE_PERIOD) {
            return Ok(value);
        }
        let error = match self.read().await {
            Ok(value) => {
                *lock(&self.held) = Some(Held {
                    value: value.clone(),
                    since: Instant::now(),
                    refused: false,
                });
                return Ok(value);
            }
            Err(error) => error,
        };
        // As transport's cachingTokenSource: an old token is better than none.
        let old = lock(&self.held).as_ref().map(|held| held.value.clone());
        match old.or_else(|| self.fallback.clone()) {
            None => Err(error),
            Some(value) => {
                tracing::warn!(%error, "the token file cannot be renewed; using the last token");
                Ok(value)
            }
        }
    }

    async fn read(&self) -> Result<HeaderValue> {
        let wrong = |problem| wrong("the token file", problem);
        let text = tokio::fs::read_to_string(&self.path)
            .await
            .map_err(|error| wrong(unreadable(&self.path, &error)))?;
        let text = SecretString::from(text);
        match text.expose_secret().trim() {
            "" => Err(wrong(format!("{} is empty", self.path.display()))),
            token => bearer(
                &token.into(),
                &format!("the token in {}", self.path.display()),
            ),
        }
    }

    /// The token in hand if it is younger than `age` and not refused.
    fn held(&self, age: std::time::Duration) -> Option<HeaderValue> {
        let held = lock(&self.held);
        let held = held.as_ref()?;
        (!held.refused && held.since.elapsed() < age).then(|| held.value.clone())
    }

    /// A token that was renewed since the refused request was sent is not refused.
    fn refuse(&self, sent: Option<&HeaderValue>) {
        if let Some(held) = lock(&self.held).as_mut() {
            held.refused |= sent == Some(&held.value);
        }
    }
}

pub(super) fn bearer(token: &SecretString, origin: &str) -> Result<HeaderValue> {
    sensitive(&format!("Bearer {}", token.expose_secret()), origin)
}

fn basic(user: &str, password: &SecretString) -> Result<HeaderValue> {
    let pair = STANDARD.encode(format!("{user}:{}", password.expose_secret()));
    sensitive(&format!("Basic {pair}"), "the user name and password")
}

fn sensitive(value: &str, origin: &str) -> Result<HeaderValue> {
    let mut value = header(value, origin)?;
    value.set_sensitive(true);
    Ok(value)
}

/// Secrets do not go over a network where all can read them. That a kubeconfig's are left out is
/// clientcmd's way; what the program or its user gives is not dropped without a word.
fn over_tls_only(config: &Config) -> Result<()> {
    let secret = match config.auth {
        Auth::None | Auth::Exec(_) | Auth::Oidc(_) => return Ok(()),
        Auth::Token(_) => "the token",
        Auth::TokenFile(..) => "the token file",
        Auth::Basic(..) => "the user name and password",
    };
    if config.server.https || config.dial.is_some() || is_loopback(&config.server.host) {
        return Ok(());
    }
    let problem = format!(
        "the URL {} is not https: whoever sees the connection could read it",
        config.server.url()
    );
    Err(wrong(secret, problem))
}

fn extra_headers(
    headers: &[(String, SecretString)],
) -> Result<Vec<(HeaderName, Vec<HeaderValue>)>> {
    let mut all: Vec<(HeaderName, Vec<HeaderValue>)> = Vec::new();
    for (name, value) in headers {
        let key = HeaderName::from_bytes(name.as_bytes())
            .map_err(|_| wrong("a header", format!("{name:?} is not the name of one")))?;
        let value = sensitive(value.expose_secret(), &format!("the header {key}"))?;
        match all.iter_mut().find(|(known, _)| *known == key) {
            Some((_, values)) => values.push(value),
            None => all.push((key, vec![value])),
        }
    }
    Ok(all)
}

fn impersonation(who: &Impersonation) -> Result<Vec<(HeaderName, Vec<HeaderValue>)>> {
    let values = |field: &str, values: &[String]| -> Result<Vec<HeaderValue>> {
        values.iter().map(|value| header(value, field)).collect()
    };
    if who.user.is_empty() {
        return Err(wrong("as", "a uid, groups and extras alone are of nobody"));
    }
    let user = std::slice::from_ref(&who.user);
    let mut headers = Vec::new();
    for (name, field, given) in [
        ("impersonate-user", "as", user),
        ("impersonate-uid", "as-uid", who.uid.as_slice()),
        ("impersonate-group", "as-groups", &who.groups),
    ] {
        if !given.is_empty() {
            headers.push((HeaderName::from_static(name), values(field, given)?));
        }
    }
    for (key, extra) in &who.extra {
        let key = utf8_percent_encode(key, EXTRA_KEY).to_string();
        let name = format!("impersonate-extra-{key}");
        let unfit = |_| {
            wrong(
                "as-user-extra",
                format!("the key {key:?} fits no HTTP header"),
            )
        };
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(unfit)?;
        headers.push((name, values("as-user-extra", extra)?));
    }
    Ok(headers)
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self.source {
            Source::None => "Credentials(none)",
            Source::Fixed(_) => "Credentials(fixed)",
            Source::File(_) => "Credentials(file)",
            Source::Issued(_) => "Credentials(issued)",
        })
    }
}

#[cfg(test)]
mod tests;

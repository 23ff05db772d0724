//! The auth provider `oidc`: an `id-token` that is used as it is, and renewed with a refresh token.
//!
//! In flow the [`Oidc`] settings of a user; out come bearer tokens. The rules are those of
//! `k8s.io/client-go/plugin/pkg/client/auth/oidc/oidc.go`; the exchange is that of OpenID Connect
//! Core 1.0, section 12.

use std::{
    fs, io,
    io::Write,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::Bytes;
use http::{
    HeaderValue, Method, Request, StatusCode, Uri,
    header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST, LOCATION},
};
use http_body_util::Full;
use hyper_util::rt::TokioIo;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;

use super::{basic, bearer, renewal::Issued};
use crate::{
    Error, REQUESTS, Result,
    config::{Config, Oidc, Tokens, without_login, wrong},
    error::{
        NetworkError, PeerError,
        panic::{blocking, lock},
    },
    limits,
    net::{self, Alpn, Dialer},
};

/// The unreserved characters of RFC 3986 stay.
const FORM: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

pub(crate) struct Provider(Arc<Oidc>);

#[derive(Deserialize)]
struct Discovery {
    token_endpoint: String,
}

#[derive(Deserialize)]
pub(super) struct Granted {
    id_token: Option<SecretString>,
    refresh_token: Option<SecretString>,
}

#[derive(Deserialize)]
struct Refused {
    error: String,
    #[serde(default)]
    error_description: String,
}

#[derive(Deserialize)]
struct Claims {
    exp: f64,
}

impl Provider {
    pub(crate) fn new(settings: &Arc<Oidc>) -> Self {
        Self(Arc::clone(settings))
    }

    /// The id-token in hand while it is valid, or else one for the refresh token.
    ///
    /// What the provider gives is kept for the next issue, and put into the kubeconfig in place of
    /// what was there: a provider may accept a refresh token only once.
    pub(crate) async fn issue(&self) -> Result<Issued> {
        let Tokens { id, refresh } = lock(&self.0.tokens).clone();
        if let Some(id) = &id {
            let expires = self.expiry(id)?;
            if expires.is_none_or(|expires| SystemTime::now() < expires) {
                // Others renew it when it has ended, so that this process does not take the
                // refresh token from a kubectl that is about to use it.
                return self.issued(id, expires);
            }
        }
        let refresh = refresh.ok_or_else(|| {
            self.wrong(match id {
                Some(_) => "the id-token has expired and there is no refresh-token; log in again",
                None => "there is neither an id-token nor a refresh-token; log in",
            })
        })?;
        let granted = tokio::time::timeout(limits::OIDC_REQUEST, self.refresh(&refresh))
            .await
            .map_err(|_| {
                let operation = format!("the renewal of a token by {}", self.0.issuer);
                Error::late(operation, limits::OIDC_REQUEST)
            })??;
        let new = granted.id_token.ok_or_else(|| {
            self.wrong(
                "the provider gave no id_token: either the scope openid was not asked for at \
                 login, or the provider gives none for a refresh token",
            )
        })?;
        let expires = self.expiry(&new)?;
        let mut changes = vec![(id, new.clone())];
        if let Some(again) = &granted.refresh_token
            && again.expose_secret() != refresh.expose_secret()
        {
            changes.push((Some(refresh), again.clone()));
        }
        {
            let mut tokens = lock(&self.0.tokens);
            tokens.id = Some(new.clone());
            if let Some(again) = granted.refresh_token {
                tokens.refresh = Some(again);
            }
        }
        if let Some(file) = self.0.file.clone() {
            let keep = move || Ok(keep(&file, &changes).map_err(|error| error.to_string()));
            let kept = blocking("the keeping of tokens", keep).await;
            if let Err(error) = kept.unwrap_or_else(|panic| Err(panic.to_string())) {
                tracing::warn!(
                    file = %self.0.file.as_deref().unwrap_or(Path::new("")).display(),
                    %error,
                    "the renewed tokens cannot be kept; another program may have to log in again"
                );
            }
        }
        self.issued(&new, expires)
    }

    fn issued(&self, token: &SecretString, expires: Option<SystemTime>) -> Result<Issued> {
        Ok(Issued {
            header: Some(bearer(token, &self.0.origin)?),
            identity: None,
            expires,
            early: false,
        })
    }

    /// The claim `exp` less a margin, or nothing if no clock reaches it. The signature is the
    /// server's to verify.
    pub(super) fn expiry(&self, token: &SecretString) -> Result<Option<SystemTime>> {
        let exp = token
            .expose_secret()
            .split('.')
            .nth(1)
            .and_then(|claims| URL_SAFE_NO_PAD.decode(claims.trim_end_matches('=')).ok())
            .and_then(|claims| serde_json::from_slice::<Claims>(&claims).ok())
            .filter(|claims| claims.exp >= 0.0)
            .ok_or_else(|| self.wrong("the id-token is not a JSON Web Token with an exp"))?;
        let exp = Duration::try_from_secs_f64(exp.exp).unwrap_or(Duration::MAX);
        Ok(SystemTime::UNIX_EPOCH.checked_add(exp.saturating_sub(limits::OIDC_EARLY)))
    }

    async fn refresh(&self, refresh: &SecretString) -> Result<Granted> {
        let issuer = self.0.issuer.trim_end_matches('/');
        let url = format!("{issuer}/.well-known/openid-configuration");
        let (status, body) = self.send(Method::GET, &url, None, String::new()).await?;
        if status != StatusCode::OK {
            return Err(self.refusal(&url, status, &body));
        }
        let Discovery { token_endpoint } = serde_json::from_slice(&body)
            .map_err(|error| self.unreadable(&url, &body, error.is_data()))?;
        let escape = |text: &str| utf8_percent_encode(text, FORM).to_string();
        let form = format!(
            "grant_type=refresh_token&refresh_token={}",
            escape(refresh.expose_secret())
        );
        let client = escape(&self.0.client);
        let secret = self.0.secret.as_ref().map(|s| escape(s.expose_secret()));
        // RFC 6749, section 2.3.1: the header is what every provider must take; some do not.
        if let Some(secret) = &secret {
            let basic = basic(&client, &secret.as_str().into())?;
            let (status, body) = self
                .send(Method::POST, &token_endpoint, Some(basic), form.clone())
                .await?;
            if status == StatusCode::OK {
                return self.granted(&token_endpoint, status, &body);
            }
        }
        let secret = secret.map_or_else(String::new, |s| format!("&client_secret={s}"));
        let form = format!("{form}&client_id={client}{secret}");
        let (status, body) = self.send(Method::POST, &token_endpoint, None, form).await?;
        self.granted(&token_endpoint, status, &body)
    }

    pub(super) fn granted(&self, url: &str, status: StatusCode, body: &[u8]) -> Result<Granted> {
        if status == StatusCode::OK {
            return serde_json::from_slice(body).map_err(|_| self.unreadable(url, body, false));
        }
        Err(self.refusal(url, status, body))
    }

    /// `is_other` says that it is JSON, and lacks what it is for.
    fn unreadable(&self, url: &str, body: &[u8], is_other: bool) -> Error {
        let what = match body.trim_ascii_start().first() {
            Some(b'<') => "answered a page of HTML",
            _ if is_other => "names no token_endpoint",
            _ => "answered something else than JSON",
        };
        self.wrong(&format!("{url} {what}"))
    }

    /// A provider that is down is not the user's fault, and may be up soon (RFC 6749, section 5.2).
    fn refusal(&self, url: &str, status: StatusCode, body: &[u8]) -> Error {
        let (url, said) = (without_login(url), serde_json::from_slice::<Refused>(body));
        let word = said.as_ref().map_or("", |said| &said.error);
        let words = match &said {
            Ok(said) => format!("{word} {}", said.error_description),
            Err(_) => status.to_string(),
        };
        let words: String = words.trim().chars().take(200).collect();
        let is_down = status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS;
        if is_down || matches!(word, "server_error" | "temporarily_unavailable") {
            return NetworkError::Connect {
                address: format!("the OpenID Connect provider at {url}"),
                source: Arc::new(io::Error::other(format!("it answered {words}"))),
            }
            .into();
        }
        self.wrong(&match word {
            "" => format!("{url} answered {words}"),
            "invalid_client" | "unauthorized_client" => {
                format!("the provider refuses the client-id or the client-secret ({words})")
            }
            _ => format!("the provider refuses the refresh-token ({words}); log in again"),
        })
    }

    async fn send(
        &self,
        method: Method,
        url: &str,
        authorization: Option<HeaderValue>,
        body: String,
    ) -> Result<(StatusCode, Bytes)> {
        let begun = Instant::now();
        let answer = self.ask(&method, url, authorization, body).await;
        let (url, ms) = (without_login(url), begun.elapsed().as_millis());
        match &answer {
            Ok((status, _)) => {
                tracing::debug!(target: REQUESTS, %method, %url, %status, ms, "answered");
            }
            Err(error) => tracing::debug!(target: REQUESTS, %method, %url, %error, ms, "failed"),
        }
        answer
    }

    async fn ask(
        &self,
        method: &Method,
        url: &str,
        authorization: Option<HeaderValue>,
        body: String,
    ) -> Result<(StatusCode, Bytes)> {
        let place = url
            .parse::<Uri>()
            .ok()
            .filter(|uri| uri.host().is_some())
            .ok_or_else(|| self.wrong(&format!("{:?} is not a URL", without_login(url))))?;
        let secure = place.scheme_str() == Some("https");
        // OpenID Connect Core 1.0, section 3.1.3: communication must use TLS.
        if !secure && !place.host().is_some_and(crate::config::is_loopback) {
            return Err(self.wrong(&format!("{:?} is not an https URL", without_login(url))));
        }
        let url = without_login(url);
        let scheme = if secure { "https" } else { "http" };
        let authority = place.authority().map_or("", |authority| authority.as_str());
        if authority.contains('@') {
            return Err(self.wrong(&format!("{url:?} holds a login, which is not sent")));
        }
        let mut config = Config::new(&format!("{scheme}://{authority}"))?;
        config.tls.ca.clone_from(&self.0.ca);
        config.proxies = self.0.proxies.clone();
        let dialer = Dialer::new(&config)?;
        let failed = |error: hyper::Error| match net::blame(error) {
            Error::Network(NetworkError::Lost(error)) => {
                Error::lost(io::Error::new(error.kind(), format!("{url}: {error}")))
            }
            Error::Peer(PeerError::Http(problem)) => PeerError::answer(&url, problem).into(),
            error => error,
        };
        let dialled = dialer.dial(Alpn::Http1, None).await;
        let dialled = dialled.map_err(|error| error.about("the OpenID Connect provider"))?;
        let stream = TokioIo::new(dialled);
        let (mut sender, connection) = hyper::client::conn::http1::handshake(stream)
            .await
            .map_err(failed)?;
        let mut request = Request::builder()
            .method(method)
            .uri(
                config
                    .server
                    .origin_form(place.path_and_query().map_or("/", |path| path.as_str()))?,
            )
            .header(HOST, &config.server.authority)
            .header(ACCEPT, "application/json")
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded");
        if let Some(authorization) = authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        let request = request
            .body(Full::new(Bytes::from(body)))
            .map_err(|error| self.wrong(&error.to_string()))?;
        let answer = async {
            let response = sender.send_request(request).await.map_err(failed)?;
            let status = response.status();
            if let Some(place) = response.headers().get(LOCATION)
                && status.is_redirection()
            {
                let place = String::from_utf8_lossy(place.as_bytes());
                let problem = format!("{url} answered {status}, to go on at {place}");
                return Err(self.wrong(&problem));
            }
            let most = limits::OIDC_ANSWER;
            let body = net::short(response.into_body(), most).await;
            let too_long = || self.wrong(&format!("{url} answered more than {most} bytes"));
            Ok((status, body.map_err(failed)?.ok_or_else(too_long)?))
        };
        tokio::pin!(answer);
        tokio::select! {
            answer = &mut answer => answer,
            _ = connection => answer.await,
        }
    }

    fn wrong(&self, problem: &str) -> crate::Error {
        wrong(self.0.origin.as_str(), problem)
    }
}

/// Puts new tokens in place of the old ones, the rest of the file staying as it is.
///
/// The lock is kubectl's (`clientcmd/config.go`, `lockFile`).
fn keep(file: &Path, changes: &[(Option<SecretString>, SecretString)]) -> io::Result<()> {
    let file = fs::canonicalize(file)?;
    let mut lock = file.clone().into_os_string();
    lock.push(".lock");
    let lock = PathBuf::from(lock);
    fs::File::create_new(&lock)?;
    let replaced = replace(&file, changes);
    fs::remove_file(&lock)?;
    replaced
}

/// Nobody else may read it at any moment.
fn create_private(path: &Path) -> io::Result<fs::File> {
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

fn replace(file: &Path, changes: &[(Option<SecretString>, SecretString)]) -> io::Result<()> {
    let mut text = SecretString::from(fs::read_to_string(file)?);
    for (old, new) in changes {
        let Some(old) = old else { continue };
        let (old, new) = (old.expose_secret(), new.expose_secret());
        let plain = |token: &str| {
            token
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"-._~+/=".contains(&byte))
        };
        let found = text.expose_secret().matches(old).count();
        if found != 1 || !plain(new) || new.is_empty() {
            let problem = "the old token is not in it exactly once";
            return Err(io::Error::other(problem));
        }
        text = text.expose_secret().replacen(old, new, 1).into();
    }
    let mut name = file.as_os_str().to_owned();
    name.push(".new");
    let new = PathBuf::from(name);
    let written = (|| {
        let mut to = create_private(&new)?;
        to.set_permissions(fs::metadata(file)?.permissions())?;
        to.write_all(text.expose_secret().as_bytes())?;
        to.sync_all()?;
        fs::rename(&new, file)
    })();
    if written.is_err() {
        let _ = fs::remove_file(&new);
    }
    written
}

#[cfg(test)]
mod tests;

//! Doors for the fuzz targets, under `--cfg fuzzing` alone: in flow what plugins and providers
//! answer; out comes whether it is a credential.

use secrecy::SecretString;

use super::{exec::Plugin, oidc::Provider};
use crate::{
    Result,
    config::{Auth, Config, KubeconfigOptions},
};

fn user(entry: &str) -> Config {
    let text = format!(
        "current-context: c\n\
         contexts: [{{name: c, context: {{cluster: k, user: u}}}}]\n\
         clusters: [{{name: k, cluster: {{server: 'https://h'}}}}]\n\
         users: [{{name: u, user: {{{entry}}}}}]\n"
    );
    Config::from_kubeconfig_str(&text, &KubeconfigOptions::new()).expect("a valid kubeconfig")
}

fn provider() -> Provider {
    let config = user(
        "auth-provider: {name: oidc, config: {idp-issuer-url: 'https://nowhere.invalid', \
         client-id: c, refresh-token: r}}",
    );
    match &config.auth {
        Auth::Oidc(settings) => Provider::new(settings),
        _ => unreachable!("the entry is that of a provider"),
    }
}

/// What an exec plugin prints.
pub fn exec_credential(output: &[u8]) -> Result<()> {
    let config = user(
        "exec: {apiVersion: client.authentication.k8s.io/v1, command: plugin, interactiveMode: Never}",
    );
    let Auth::Exec(settings) = &config.auth else {
        unreachable!("the entry is that of a plugin");
    };
    let output = SecretString::from(String::from_utf8_lossy(output).into_owned());
    Plugin::new(settings, &config).understand(&output).map(drop)
}

/// The token that a provider gave.
pub fn id_token(token: &[u8]) -> Result<()> {
    let token = SecretString::from(String::from_utf8_lossy(token).into_owned());
    provider().expiry(&token).map(drop)
}

/// A provider's answer to a request for tokens.
pub fn token_response(body: &[u8], granted: bool) -> Result<()> {
    let status = match granted {
        true => http::StatusCode::OK,
        false => http::StatusCode::BAD_REQUEST,
    };
    provider()
        .granted("https://nowhere.invalid/token", status, body)
        .map(drop)
}

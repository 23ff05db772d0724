//! kube's configuration as ours: in flows a `kube::Config`, out comes a [`Config`] of the same
//! server and the same user.

use std::fmt::Write as _;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use super::{Config, KubeconfigOptions, wrong};
use crate::{Error, Result};

/// What a `kube::Config` says about the server, the trust in it and the user. Its timeouts of reads
/// and writes and its retries have no place here: the verbs have their own.
///
/// It becomes the kubeconfig that says the same, and is read by its rules.
///
/// # Errors
///
/// [`CallerError::Config`](crate::error::CallerError::Config), as for a kubeconfig; also for what no kubeconfig can say: a plugin whose
/// environment is to lack some variables, and a header that is no text.
impl TryFrom<kube_client::Config> for Config {
    type Error = Error;

    fn try_from(kube: kube_client::Config) -> Result<Self> {
        let unusable = |problem: &str| wrong("the configuration of kube", problem);
        let exec = kube.auth_info.exec.as_ref();
        if exec.is_some_and(|exec| exec.drop_env.as_ref().is_some_and(|it| !it.is_empty())) {
            return Err(unusable(
                "`drop_env` of a credential plugin is not supported",
            ));
        }
        let mut cluster = json!({
            "server": kube.cluster_url.to_string(),
            "insecure-skip-tls-verify": kube.accept_invalid_certs,
            "disable-compression": kube.disable_compression,
        });
        let mut set = |key: &str, value: Value| cluster[key] = value;
        if !kube.accept_invalid_certs {
            match (&kube.root_cert_file, &kube.root_cert) {
                (Some(file), _) => set("certificate-authority", json!(file)),
                (None, Some(certificates)) => {
                    set("certificate-authority-data", pem(certificates).into());
                }
                (None, None) => {}
            }
        }
        if let Some(name) = kube.tls_server_name {
            set("tls-server-name", name.into());
        }
        if let Some(proxy) = kube.proxy_url {
            set("proxy-url", proxy.to_string().into());
        }
        let user = serde_json::to_value(&kube.auth_info);
        let user = user.map_err(|error| unusable(&error.to_string()))?;
        let kubeconfig = json!({
            "clusters": [{"name": "kube", "cluster": cluster}],
            "users": [{"name": "kube", "user": user}],
            "contexts": [{"name": "kube", "context": {"cluster": "kube", "user": "kube"}}],
            "current-context": "kube",
        });
        let mut config =
            Self::from_kubeconfig_str(&kubeconfig.to_string(), &KubeconfigOptions::new())?
                .with_namespace(kube.default_namespace)
                .with_connect_timeout(kube.connect_timeout.unwrap_or(std::time::Duration::MAX));
        for (name, value) in &kube.headers {
            let value = value
                .to_str()
                .map_err(|_| unusable("a header is no text"))?;
            config = config.with_header(name.as_str(), value);
        }
        Ok(config)
    }
}

fn pem(certificates: &[Vec<u8>]) -> String {
    let mut pem = String::new();
    for certificate in certificates {
        pem.push_str("-----BEGIN CERTIFICATE-----\n");
        for line in STANDARD.encode(certificate).as_bytes().chunks(64) {
            // Base64 is ASCII, and writing to a String does not fail.
            let _ = writeln!(pem, "{}", String::from_utf8_lossy(line));
        }
        pem.push_str("-----END CERTIFICATE-----\n");
    }
    STANDARD.encode(pem)
}

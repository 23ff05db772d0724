//! From what a context selects to a [`Config`].

use std::path::PathBuf;

use secrecy::{ExposeSecret, SecretString};

use super::{
    Auth, Config, Impersonate, KubeconfigOptions, Material, Server,
    kubeconfig::{Entry, Merged, Selected, User, given},
    material::from_base64,
    wrong,
};
use crate::Result;

impl Config {
    /// The configuration that the merged files give with these overrides.
    ///
    /// The rules are those of `k8s.io/client-go/tools/clientcmd/client_config.go`.
    pub(super) fn select(merged: &Merged, options: &KubeconfigOptions) -> Result<Self> {
        let Selected {
            cluster_name,
            cluster,
            user,
            namespace,
        } = merged.select(options)?;
        let origin = cluster.origin("cluster", &cluster_name);
        let unusable = |problem: &str| wrong(origin.as_str(), problem);
        let entry = &cluster.entry;
        let url = given(&entry.server).ok_or_else(|| unusable("it names no server"))?;
        let ca = material(
            ("certificate-authority", &entry.certificate_authority),
            (
                "certificate-authority-data",
                given(&entry.certificate_authority_data).map(Into::into),
            ),
            &origin,
            |path| cluster.path(path),
        )?;
        let insecure = entry.insecure_skip_tls_verify == Some(true);
        if insecure && ca.is_some() {
            return Err(unusable(
                "a certificate authority and insecure-skip-tls-verify exclude each other",
            ));
        }
        if entry
            .proxy_url
            .as_ref()
            .is_some_and(|url| !url.expose_secret().is_empty())
        {
            return Err(unusable("proxy-url is not supported"));
        }
        let user = user.map(|(name, user)| (user.origin("user", &name), user));
        let identity = match &user {
            None => None,
            Some((origin, user)) => identity(user, origin)?,
        };
        // rest.DefaultServerURL: a bare host is https if there is anything to do TLS with.
        let bare_https = ca.is_some() || insecure || identity.is_some();
        let server_origin = match given(&options.server) {
            Some(_) => "the server that replaces the kubeconfig's",
            None => &origin,
        };
        let mut config = Self::of(Server::parse(&url, bare_https, server_origin)?);
        config.namespace = namespace;
        if let Some((origin, user)) = &user {
            config.impersonate = impersonate(&user.entry, origin)?;
            // clientcmd's ClientConfig sends credentials over TLS only.
            if config.server.https {
                config.auth = auth(user, origin)?;
                config.tls.identity = identity;
            }
        }
        if config.server.https {
            config.tls.ca = ca;
            config.tls.insecure = insecure;
            config.tls.server_name = given(&entry.tls_server_name);
        }
        Ok(config)
    }
}

/// Inline data wins over a file (`clientcmd/api/types.go`).
fn material(
    (file_field, file): (&str, &Option<PathBuf>),
    (data_field, data): (&str, Option<SecretString>),
    origin: &str,
    resolve: impl Fn(&std::path::Path) -> PathBuf,
) -> Result<Option<Material>> {
    if let Some(data) = data.filter(|data| !data.expose_secret().is_empty()) {
        let origin = format!("{data_field} of {origin}");
        let pem = from_base64(&origin, data.expose_secret())?;
        return Ok(Some(Material::inline(origin, pem)));
    }
    Ok(file
        .as_ref()
        .filter(|path| !path.as_os_str().is_empty())
        .map(|path| Material::file(format!("{file_field} of {origin}"), resolve(path))))
}

fn identity(user: &Entry<User>, origin: &str) -> Result<Option<(Material, Material)>> {
    let entry = &user.entry;
    let certificate = material(
        ("client-certificate", &entry.client_certificate),
        (
            "client-certificate-data",
            given(&entry.client_certificate_data).map(Into::into),
        ),
        origin,
        |path| user.path(path),
    )?;
    let key = material(
        ("client-key", &entry.client_key),
        ("client-key-data", entry.client_key_data.clone()),
        origin,
        |path| user.path(path),
    )?;
    match (certificate, key) {
        (Some(certificate), Some(key)) => Ok(Some((certificate, key))),
        (None, None) => Ok(None),
        (Some(_), None) => Err(wrong(
            origin,
            "it has a client certificate and no client-key",
        )),
        (None, Some(_)) => Err(wrong(
            origin,
            "it has a client key and no client-certificate",
        )),
    }
}

fn auth(user: &Entry<User>, origin: &str) -> Result<Auth> {
    let entry = &user.entry;
    let token = entry
        .token
        .clone()
        .filter(|token| !token.expose_secret().is_empty());
    let file = entry
        .token_file
        .as_ref()
        .filter(|path| !path.as_os_str().is_empty());
    let basic = given(&entry.username).is_some()
        || entry
            .password
            .as_ref()
            .is_some_and(|p| !p.expose_secret().is_empty());
    if entry.exec.is_some() {
        return Err(wrong(origin, "exec plugins are not supported"));
    }
    if let Some(provider) = &entry.auth_provider {
        let name = provider.name.as_deref().unwrap_or_default();
        let problem = match name {
            "gcp" => "the auth provider gcp was removed in Kubernetes 1.26; use the exec plugin \
                      gke-gcloud-auth-plugin"
                .to_owned(),
            "azure" => "the auth provider azure was removed in Kubernetes 1.26; use the exec \
                        plugin kubelogin"
                .to_owned(),
            name => format!("the auth provider {name:?} is not supported"),
        };
        return Err(wrong(origin, problem));
    }
    // transport.HTTPWrappersForConfig refuses both.
    match (token, file, basic) {
        (None, None, false) => Ok(Auth::None),
        (None, None, true) => Ok(Auth::Basic(
            entry.username.clone().unwrap_or_default(),
            entry.password.clone().unwrap_or_default(),
        )),
        (_, _, true) => Err(wrong(origin, "username and password exclude a token")),
        (token, Some(file), false) => Ok(Auth::TokenFile(user.path(file), token)),
        (Some(token), None, false) => Ok(Auth::Token(token)),
    }
}

fn impersonate(user: &User, origin: &str) -> Result<Option<Impersonate>> {
    let groups = user.as_groups.clone().unwrap_or_default();
    let extra: Vec<_> = user
        .as_user_extra
        .clone()
        .unwrap_or_default()
        .into_iter()
        .collect();
    let uid = given(&user.as_uid);
    match given(&user.impersonate) {
        Some(user) => Ok(Some(Impersonate {
            user,
            uid,
            groups,
            extra,
        })),
        None if groups.is_empty() && extra.is_empty() && uid.is_none() => Ok(None),
        // validateAuthInfo requires a user name for these.
        None => Err(wrong(origin, "as-uid, as-groups and as-user-extra need as")),
    }
}

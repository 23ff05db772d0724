//! From what a context selects to a [`Config`].

use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

use secrecy::ExposeSecret;

use super::{
    Auth, Config, Exec, ExecCluster, Identity, Impersonation, KubeconfigOptions, Oidc, Proxies,
    Proxy, Server,
    file::{Cluster, User},
    header,
    kubeconfig::{Entry, Merged, Selected, given, given_secret},
    wrong,
};
use crate::Result;

impl Config {
    /// The configuration that the merged files give with these overrides.
    ///
    /// The rules are those of `k8s.io/client-go/tools/clientcmd/client_config.go`.
    pub(super) fn select(
        merged: &Merged,
        options: &KubeconfigOptions,
        environment: Proxies,
    ) -> Result<Self> {
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
        let data = entry.certificate_authority_data.clone().map(Into::into);
        let file = &entry.certificate_authority;
        let ca = cluster.material("certificate-authority", file, data, &origin)?;
        let insecure = entry.insecure_skip_tls_verify == Some(true);
        if insecure && ca.is_some() {
            return Err(unusable(
                "a certificate authority and insecure-skip-tls-verify exclude each other",
            ));
        }
        let proxies = match given_secret(entry.proxy_url.as_ref()) {
            Some(url) => Proxies::Always(Proxy::parse(&url, &format!("proxy-url of {origin}"))?),
            None => environment,
        };
        let user = user.map(|(name, user)| (user.origin("user", &name), user));
        let identity = match &user {
            None => None,
            Some((origin, user)) => identity(user, origin)?,
        };
        // rest.DefaultServerURL: a bare host is https if there is anything to do TLS with.
        let bare_https = ca.is_some() || insecure || identity.is_some() || options.has_tls();
        let server_origin = match given(&options.server) {
            Some(_) => "the server that replaces the kubeconfig's",
            None => &origin,
        };
        let mut config = Self::of(Server::parse(&url, bare_https, server_origin)?, proxies);
        config.namespace = namespace;
        if entry.disable_compression == Some(true) {
            config.compression = Some(false);
        }
        if let Some((origin, user)) = &user {
            config.impersonate = impersonate(&user.entry, origin)?;
            // clientcmd's ClientConfig sends credentials over TLS only.
            if config.server.https {
                let cluster = exec_cluster(entry, &url);
                config.auth = auth(user, origin, &config.proxies, cluster)?;
                // UpdateTransportConfig: a certificate of the user's own leaves the plugin out.
                if identity.is_some() && matches!(config.auth, Auth::Exec(_)) {
                    config.auth = Auth::None;
                }
                config.tls.identity = identity;
            }
        }
        if config.server.https {
            config.tls.ca = ca;
            config.tls.insecure = insecure;
            config.tls.server_name = given(&entry.tls_server_name);
        }
        options.apply(config)
    }
}

fn identity(user: &Entry<User>, origin: &str) -> Result<Option<Identity>> {
    let entry = &user.entry;
    let data = entry.client_certificate_data.clone().map(Into::into);
    let certificate = user.material(
        "client-certificate",
        &entry.client_certificate,
        data,
        origin,
    )?;
    let data = entry.client_key_data.clone();
    let key = user.material("client-key", &entry.client_key, data, origin)?;
    match (certificate, key) {
        (Some(certificate), Some(key)) => Ok(Some((certificate, key))),
        // A key alone is of no use, and does no harm (`clientcmd/validation.go`).
        (None, _) => Ok(None),
        (Some(_), None) => Err(wrong(
            origin,
            "it has a client certificate and no client-key",
        )),
    }
}

fn exec_cluster(entry: &Cluster, url: &str) -> ExecCluster {
    let mut extensions = entry.extensions.iter().flatten().flatten();
    ExecCluster {
        server: url.to_owned(),
        disable_compression: entry.disable_compression == Some(true),
        config: extensions
            .find(|e| e.name.as_deref() == Some("client.authentication.k8s.io/exec"))
            .map(|extension| extension.extension.clone()),
    }
}

fn auth(user: &Entry<User>, origin: &str, proxies: &Proxies, cluster: ExecCluster) -> Result<Auth> {
    let entry = &user.entry;
    let token = given_secret(entry.token.as_ref());
    if let Some(token) = &token {
        header(token.expose_secret(), &format!("token of {origin}"))?;
    }
    let file = given(&entry.token_file);
    let password = given_secret(entry.password.as_ref());
    let basic = given(&entry.username).is_some() || password.is_some();
    if let (Some(_), Some(_)) = (&entry.exec, &entry.auth_provider) {
        return Err(wrong(origin, "exec and auth-provider exclude each other"));
    }
    let other = match (&entry.exec, &entry.auth_provider) {
        (Some(exec), _) => {
            let exec = Exec::new(exec, origin, cluster, |path| user.path(path))?;
            Auth::Exec(Arc::new(exec))
        }
        (None, Some(provider)) if provider.name.as_deref() == Some("oidc") => {
            Auth::Oidc(Arc::new(oidc(user, origin, proxies)?))
        }
        (None, Some(provider)) => {
            let name = provider.name.as_deref().unwrap_or_default();
            let problem = match name {
                "gcp" => "the auth provider gcp was removed in Kubernetes 1.26; use the exec \
                          plugin gke-gcloud-auth-plugin"
                    .to_owned(),
                "azure" => "the auth provider azure was removed in Kubernetes 1.26; use the exec \
                            plugin kubelogin"
                    .to_owned(),
                name => format!("the auth provider {name:?} is not known; oidc is"),
            };
            return Err(wrong(origin, problem));
        }
        (None, None) => Auth::None,
    };
    // transport.HTTPWrappersForConfig refuses both.
    match (token, file, basic) {
        // RoundTrip of exec.go: a header that is set stays, and the plugin is not run.
        (None, None, false) => Ok(other),
        (None, None, true) => Ok(Auth::Basic(
            entry.username.clone().unwrap_or_default(),
            password.unwrap_or_default(),
        )),
        (_, _, true) => Err(wrong(origin, "username and password exclude a token")),
        (token, Some(file), false) => Ok(Auth::TokenFile(user.path(&file), token)),
        (Some(token), None, false) => Ok(Auth::Token(token)),
    }
}

fn oidc(user: &Entry<User>, origin: &str, proxies: &Proxies) -> Result<Oidc> {
    let provider = user.entry.auth_provider.as_ref();
    let settings = provider.and_then(|provider| provider.config.clone());
    let settings = settings.into_iter().flatten();
    let settings = settings.filter_map(|(name, value)| Some((name, value?)));
    let settings: BTreeMap<_, _> = settings.collect();
    let file = settings
        .get("idp-certificate-authority")
        .map(|path| PathBuf::from(path.expose_secret()));
    let data = settings.get("idp-certificate-authority-data").cloned();
    let ca = user.material("idp-certificate-authority", &file, data, origin)?;
    let file = user.file.clone();
    Oidc::new(&settings, origin, ca, proxies.clone(), file)
}

fn impersonate(user: &User, origin: &str) -> Result<Option<Impersonation>> {
    // What is null is empty, as in Go.
    let texts = |list: &Option<Vec<Option<String>>>| -> Vec<String> {
        let list = list.iter().flatten();
        list.map(|text| text.clone().unwrap_or_default()).collect()
    };
    let groups = texts(&user.as_groups);
    let extra = user.as_user_extra.iter().flatten();
    let extra: Vec<_> = extra
        .map(|(key, values)| (key.clone(), texts(values)))
        .collect();
    let uid = given(&user.as_uid);
    let values = extra.iter().flat_map(|(_, values)| values);
    let values = values.map(|value| ("as-user-extra", value));
    let values = values.chain(groups.iter().map(|group| ("as-groups", group)));
    let values = values.chain(user.impersonate.iter().map(|user| ("as", user)));
    for (field, value) in values.chain(uid.iter().map(|uid| ("as-uid", uid))) {
        header(value, &format!("{field} of {origin}"))?;
    }
    match given(&user.impersonate) {
        Some(user) => Ok(Some(Impersonation {
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

//! What a configuration depends on besides its files: variables, the home directory, and where a
//! pod's service account is mounted. Tests bring their own.

use std::{
    collections::HashMap,
    ffi::OsString,
    path::{Path, PathBuf},
};

use super::{
    Auth, Config, KubeconfigOptions, Material, Proxies, Server, kubeconfig::Merged, wrong,
};
use crate::Result;

/// `k8s.io/client-go/rest/config.go`, `InClusterConfig`.
const SERVICE_ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

#[derive(Debug, Default)]
pub(super) struct Environment {
    pub(super) variables: HashMap<OsString, OsString>,
    pub(super) home: Option<PathBuf>,
    pub(super) service_account: PathBuf,
}

impl Environment {
    pub(super) fn process() -> Self {
        const WANTED: [&str; 5] = [
            "KUBECONFIG",
            "KUBERNETES_SERVICE_HOST",
            "KUBERNETES_SERVICE_PORT",
            "POD_NAMESPACE",
            "REQUEST_METHOD",
        ];
        let wanted = |name: &OsString| {
            let name = name.to_str().unwrap_or_default();
            WANTED.contains(&name) || name.to_ascii_lowercase().ends_with("_proxy")
        };
        Self {
            variables: std::env::vars_os()
                .filter(|(name, _)| wanted(name))
                .collect(),
            home: std::env::home_dir(),
            service_account: PathBuf::from(SERVICE_ACCOUNT),
        }
    }

    fn variable(&self, name: &str) -> Option<&OsString> {
        self.variables
            .get(std::ffi::OsStr::new(name))
            .filter(|value| !value.is_empty())
    }

    pub(super) fn proxies(&self) -> Proxies {
        Proxies::of_environment(|name| self.text(name))
    }

    fn text(&self, name: &str) -> Option<&str> {
        self.variable(name)?.to_str()
    }

    fn kubeconfig_paths(&self, options: &KubeconfigOptions) -> Vec<PathBuf> {
        match (&options.files[..], self.variable("KUBECONFIG"), &self.home) {
            ([], Some(list), _) => std::env::split_paths(list).collect(),
            ([], None, Some(home)) => vec![home.join(".kube").join("config")],
            ([], None, None) => Vec::new(),
            (paths, ..) => paths.to_vec(),
        }
    }

    fn token(&self) -> PathBuf {
        self.service_account.join("token")
    }
}

impl Config {
    pub(super) fn from_environment(
        environment: &Environment,
        options: &KubeconfigOptions,
    ) -> Result<Self> {
        if options.names_a_server() {
            return Self::from_kubeconfig_in(environment, options);
        }
        let merged = Merged::read(&environment.kubeconfig_paths(options))?;
        let missing = match merged.selects(options) {
            Ok(()) => return Self::select(&merged, options, environment.proxies()),
            Err(missing) => missing,
        };
        // clientcmd's DeferredLoadingClientConfig: in the pod only if no kubeconfig says anything.
        if environment.token().is_file() {
            return options.apply(Self::in_cluster_in(environment)?);
        }
        let source = match (environment.variable("KUBECONFIG"), &environment.home) {
            (Some(_), _) => "the variable KUBECONFIG",
            (None, Some(_)) => "KUBECONFIG is not set, and the default",
            (None, None) => "neither KUBECONFIG nor a home directory is set",
        };
        let token = environment.token();
        Err(wrong(
            "no cluster is configured",
            format!(
                "{source}: {missing}; not in a pod: {} does not exist",
                token.display()
            ),
        ))
    }

    pub(super) fn from_kubeconfig_in(
        environment: &Environment,
        options: &KubeconfigOptions,
    ) -> Result<Self> {
        let merged = Merged::read(&environment.kubeconfig_paths(options))?;
        Self::select(&merged, options, environment.proxies())
    }

    pub(super) fn in_cluster_in(environment: &Environment) -> Result<Self> {
        let token = environment.token();
        if !token.is_file() {
            let token = token.display();
            let problem = format!("{token} does not exist: is this a pod?");
            return Err(wrong("the pod's service account", problem));
        }
        let host = environment.text("KUBERNETES_SERVICE_HOST");
        let port = environment.text("KUBERNETES_SERVICE_PORT");
        let host = host.map(|host| match host.contains(':') {
            true => format!("[{host}]"),
            false => host.to_owned(),
        });
        let (url, origin) = match host.zip(port) {
            Some((host, port)) => (format!("https://{host}:{port}"), "KUBERNETES_SERVICE_HOST"),
            None => ("https://kubernetes.default.svc".to_owned(), "the default"),
        };
        let mut config = Self::of(Server::parse(&url, true, origin)?, environment.proxies());
        config.auth = Auth::TokenFile(token, None);
        let ca = environment.service_account.join("ca.crt");
        match ca.is_file() {
            true => config.tls.ca = Some(Material::file("the service account's ca.crt", ca)),
            false => tracing::warn!(
                file = %ca.display(),
                "the service account has no CA; trusting the platform's"
            ),
        }
        config.namespace = match environment.text("POD_NAMESPACE") {
            Some(namespace) => Some(namespace.to_owned()),
            None => namespace_in(&environment.service_account.join("namespace")),
        };
        Ok(config)
    }
}

fn namespace_in(file: &Path) -> Option<String> {
    let text = std::fs::read_to_string(file).ok()?;
    Some(text.trim().to_owned()).filter(|namespace| !namespace.is_empty())
}

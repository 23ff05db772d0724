//! The flags that say which cluster and as whom, which all subcommands share.

use std::{path::PathBuf, time::Duration};

use clap::Args;
use kubewire::{
    Client, Config,
    config::{Impersonation, KubeconfigOptions},
};

use crate::{duration, failure::Failure};

/// Which cluster, and as whom.
#[derive(Args)]
#[command(next_help_heading = "Connection")]
pub(crate) struct Connection {
    /// The kubeconfig to use instead of those that KUBECONFIG lists or ~/.kube/config
    #[arg(long, global = true, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// The context to use instead of the current one
    #[arg(long, global = true, value_name = "NAME")]
    context: Option<String>,
    /// The cluster to use instead of the context's
    #[arg(long, global = true, value_name = "NAME")]
    cluster: Option<String>,
    /// The user to use instead of the context's
    #[arg(long, global = true, value_name = "NAME")]
    user: Option<String>,
    /// The namespace to use instead of the context's
    #[arg(short, long, global = true, value_name = "NAME")]
    namespace: Option<String>,
    /// The URL of the API server to use instead of the cluster's
    #[arg(short, long, global = true, value_name = "URL")]
    server: Option<String>,
    /// The file of the certificate authority to trust instead of the cluster's
    #[arg(long, global = true, value_name = "FILE")]
    certificate_authority: Option<PathBuf>,
    /// The bearer token to send instead of the user's; other users of this machine may see it in
    /// the list of processes
    #[arg(long, global = true, value_name = "TOKEN")]
    token: Option<String>,
    /// The file of the certificate to identify by instead of the user's
    #[arg(long, global = true, value_name = "FILE", requires = "client_key")]
    client_certificate: Option<PathBuf>,
    /// The file of that certificate's private key
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        requires = "client_certificate"
    )]
    client_key: Option<PathBuf>,
    /// The name to expect in the server's certificate instead of the URL's host
    #[arg(long, global = true, value_name = "NAME")]
    tls_server_name: Option<String>,
    /// Take any certificate of the server for granted: whoever is between can read all, the
    /// credentials too
    #[arg(long, global = true, conflicts_with = "certificate_authority")]
    insecure_skip_tls_verify: bool,
    /// The proxy to connect through: http://, https:// or socks5://
    #[arg(long, global = true, value_name = "URL")]
    proxy_url: Option<String>,
    /// How long a request may take, and of one that streams, how long connecting may: 30s, or a
    /// number of seconds; 0 for any time
    #[arg(long, global = true, value_name = "DURATION", value_parser = duration::or_seconds)]
    request_timeout: Option<Duration>,
    /// The user or service account to act as: NAME or system:serviceaccount:NAMESPACE:NAME
    #[arg(long = "as", global = true, value_name = "USER")]
    as_user: Option<String>,
    /// A group to act as a member of; may be given several times
    #[arg(long, global = true, value_name = "GROUP", requires = "as_user")]
    as_group: Vec<String>,
    /// The UID to act as
    #[arg(long, global = true, value_name = "UID", requires = "as_user")]
    as_uid: Option<String>,
    /// More about whom to act as; may be given several times
    #[arg(long, global = true, value_name = "KEY=VALUE", requires = "as_user",
          value_parser = key_and_value)]
    as_user_extra: Vec<(String, String)>,
}

/// `KEY=VALUE`.
fn key_and_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err(format!("{text:?} is not KEY=VALUE")),
    }
}

impl Connection {
    /// The time that a request has, if it is bounded.
    fn request_timeout(&self) -> Option<Duration> {
        self.request_timeout.filter(|timeout| !timeout.is_zero())
    }

    /// Does what ends by itself, in the time that a request has.
    pub(crate) async fn in_time(
        &self,
        work: impl Future<Output = Result<u8, Failure>>,
    ) -> Result<u8, Failure> {
        match self.request_timeout() {
            None => work.await,
            Some(timeout) => match tokio::time::timeout(timeout, work).await {
                Ok(done) => done,
                Err(_) => Err(Failure::Message(format!("no answer within {timeout:?}"))),
            },
        }
    }

    /// Whether a flag names the namespace.
    pub(crate) fn has_namespace(&self) -> bool {
        self.namespace.is_some()
    }

    /// The client that the flags, the kubeconfig or the pod's service account give.
    pub(crate) fn client(&self) -> kubewire::Result<Client> {
        Client::new(&self.config()?)
    }

    /// What they say of the server and the user.
    pub(crate) fn config(&self) -> kubewire::Result<Config> {
        let mut options = KubeconfigOptions::new();
        if let Some(file) = &self.kubeconfig {
            options = options.file(file);
        }
        if let Some(context) = &self.context {
            options = options.context(context);
        }
        if let Some(cluster) = &self.cluster {
            options = options.cluster(cluster);
        }
        if let Some(user) = &self.user {
            options = options.user(user);
        }
        if let Some(server) = &self.server {
            options = options.server(server);
        }
        if let Some(file) = &self.certificate_authority {
            options = options.ca_file(file);
        }
        if let Some(token) = &self.token {
            options = options.token(token.clone());
        }
        if let (Some(certificate), Some(key)) = (&self.client_certificate, &self.client_key) {
            options = options.client_certificate_files(certificate, key);
        }
        if let Some(name) = &self.tls_server_name {
            options = options.tls_server_name(name);
        }
        if self.insecure_skip_tls_verify {
            options = options.insecure_skip_tls_verify();
        }
        if let Some(url) = &self.proxy_url {
            options = options.proxy(url.clone());
        }
        let mut config = Config::from_env_with(&options)?;
        if let Some(namespace) = &self.namespace {
            config = config.with_namespace(namespace);
        }
        if let Some(timeout) = self.request_timeout() {
            config = config.with_connect_timeout(timeout);
        }
        if let Some(user) = &self.as_user {
            let mut who = Impersonation::new(user);
            for group in &self.as_group {
                who = who.group(group);
            }
            if let Some(uid) = &self.as_uid {
                who = who.uid(uid);
            }
            for (key, value) in &self.as_user_extra {
                who = who.extra(key, value);
            }
            config = config.with_impersonation(who);
        }
        Ok(config)
    }
}

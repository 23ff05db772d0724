//! The flags that say which cluster and as whom, which all subcommands share.

use std::{ffi::OsString, time::Duration};

use clap::Args;
use kubewire::{
    Client, Config,
    config::{Impersonation, KubeconfigOptions},
};

use crate::{duration, failure::Failure, flags, set::Set as _};

/// Which cluster, and as whom.
#[derive(Args)]
#[command(next_help_heading = "Connection")]
pub(crate) struct Connection {
    /// The kubeconfig to use instead of those that KUBECONFIG lists or ~/.kube/config
    #[arg(long, global = true, value_name = "FILE")]
    kubeconfig: Option<OsString>,
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
    certificate_authority: Option<OsString>,
    /// The bearer token to send instead of the user's; other users of this machine may see it in
    /// the list of processes
    #[arg(long, global = true, value_name = "TOKEN")]
    token: Option<String>,
    /// The file of the certificate to identify by instead of the user's
    #[arg(long, global = true, value_name = "FILE", requires = "client_key")]
    client_certificate: Option<OsString>,
    /// The file of that certificate's private key
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        requires = "client_certificate"
    )]
    client_key: Option<OsString>,
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
    /// Have nothing compressed: lists and watches are, unless they come from this machine
    #[arg(long, global = true)]
    disable_compression: bool,
    /// How long each request may take, a log that is followed and a watch too; of a session, how
    /// long connecting may: 30s, or a number of seconds; 0 for any time
    #[arg(long, global = true, value_name = "DURATION", value_parser = duration::or_any)]
    request_timeout: Option<Duration>,
    /// The user or service account to act as: NAME or system:serviceaccount:NAMESPACE:NAME
    #[arg(long = "as", global = true, value_name = "USER")]
    as_user: Option<String>,
    /// A group to act as a member of; may be given several times
    #[arg(long, global = true, value_name = "GROUP")]
    as_group: Vec<String>,
    /// The UID to act as
    #[arg(long, global = true, value_name = "UID")]
    as_uid: Option<String>,
    /// More about whom to act as; may be given several times
    #[arg(long, global = true, value_name = "KEY=VALUE",
          value_parser = |it: &str| flags::pair(it, "KEY=VALUE"))]
    as_user_extra: Vec<(String, String)>,
}

impl Connection {
    fn request_timeout(&self) -> Option<Duration> {
        self.request_timeout.filter(|time| *time != Duration::MAX)
    }

    /// Reads a stream in the time that a request has, of which Go counts the body too
    /// (`net/http/client.go`, `Timeout`).
    pub(crate) async fn in_time<T>(
        &self,
        work: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        let time = self.request_timeout.unwrap_or(Duration::MAX);
        let done = tokio::time::timeout(time, work).await;
        done.unwrap_or(Err(Failure::Late(time)))
    }

    pub(crate) fn has_namespace(&self) -> bool {
        self.namespace.as_ref().is_some_and(|name| !name.is_empty())
    }

    /// The client that the flags, the kubeconfig or the pod's service account give.
    pub(crate) fn client(&self) -> kubewire::Result<Client> {
        Client::new(&self.config()?)
    }

    /// What they say of the server and the user.
    pub(crate) fn config(&self) -> kubewire::Result<Config> {
        type Options = KubeconfigOptions;
        let identity = self
            .client_certificate
            .as_ref()
            .zip(self.client_key.as_ref())
            .filter(|(certificate, _)| !certificate.is_empty());
        let options = Options::new()
            .set_given(self.kubeconfig.as_ref(), Options::file)
            .set(self.context.as_ref(), Options::context)
            .set(self.cluster.as_ref(), Options::cluster)
            .set(self.user.as_ref(), Options::user)
            .set(self.server.as_ref(), Options::server)
            .set_given(self.certificate_authority.as_ref(), Options::ca_file)
            .set_given(self.token.clone(), Options::token)
            .set(identity, |options, (certificate, key)| {
                options.client_certificate_files(certificate, key)
            })
            .set_given(self.tls_server_name.as_ref(), Options::tls_server_name)
            .set_if(
                self.insecure_skip_tls_verify,
                Options::insecure_skip_tls_verify,
            )
            .set_given(self.proxy_url.clone(), Options::proxy);
        let config = Config::from_env_with(&options)?
            .set_given(self.namespace.as_ref(), Config::with_namespace)
            .set_if(self.disable_compression, |config| {
                config.with_compression(false)
            })
            .set(self.request_timeout(), Config::with_connect_timeout)
            .set(self.request_timeout(), Config::with_request_timeout);
        let user = self.as_user.as_deref().unwrap_or_default();
        let mut who = Impersonation::new(user).set(self.as_uid.as_ref(), Impersonation::uid);
        for group in &self.as_group {
            who = who.group(group);
        }
        for (key, value) in &self.as_user_extra {
            who = who.extra(key, value);
        }
        // What flags leave out, the kubeconfig may say.
        let who = match config.impersonation() {
            Some(other) => who.or(other.clone()),
            None => who,
        };
        Ok(config.set_if(!who.is_empty(), |config| config.with_impersonation(who)))
    }
}

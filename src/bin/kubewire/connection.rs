//! The flags that say which cluster and as whom, which all subcommands share.

use std::path::PathBuf;

use clap::Args;
use kubewire::{Client, Config, config::KubeconfigOptions};

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
}

impl Connection {
    /// The client that the flags, the kubeconfig or the pod's service account give.
    pub(crate) fn client(&self) -> kubewire::Result<Client> {
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
        let selected = [&self.context, &self.cluster, &self.user, &self.server];
        let mut config = if self.kubeconfig.is_none() && selected.iter().all(|flag| flag.is_none())
        {
            Config::from_env()?
        } else {
            Config::from_kubeconfig(&options)?
        };
        if let Some(namespace) = &self.namespace {
            config = config.with_namespace(namespace);
        }
        if let Some(file) = &self.certificate_authority {
            config = config.with_ca_file(file);
        }
        if let Some(token) = &self.token {
            config = config.with_token(token.clone());
        }
        Client::new(&config)
    }
}

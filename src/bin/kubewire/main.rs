//! The command-line tool: in flow arguments and a kubeconfig, out come what a cluster says and an
//! exit code.

mod get;
mod proxy;
mod version;
mod whoami;

use std::{
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
};

use clap::{Args, Parser, Subcommand};
use kubewire::{Client, Config, config::KubeconfigOptions};
use tracing::level_filters::LevelFilter;
use tracing_subscriber::{filter::Targets, layer::SubscriberExt, util::SubscriberInitExt};

/// Speaks Kubernetes' streaming protocols.
#[derive(Parser)]
#[command(version, propagate_version = true)]
struct Arguments {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

#[derive(Args)]
struct Global {
    /// The kubeconfig file, instead of those that KUBECONFIG lists or ~/.kube/config.
    #[arg(long, global = true, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// The context of the kubeconfig.
    #[arg(long, global = true)]
    context: Option<String>,
    /// The cluster of the kubeconfig.
    #[arg(long, global = true)]
    cluster: Option<String>,
    /// The user of the kubeconfig.
    #[arg(long, global = true)]
    user: Option<String>,
    /// The namespace, instead of the context's.
    #[arg(short, long, global = true)]
    namespace: Option<String>,
    /// How much to tell on standard error: 1 warnings and retries, 6 each request as a curl
    /// command without its secrets, 9 everything.
    #[arg(short, long, global = true, value_name = "LEVEL", default_value_t = 0,
          value_parser = clap::value_parser!(u8).range(0..=9))]
    v: u8,
}

#[derive(Subcommand)]
enum Command {
    /// Print objects.
    Get(get::Get),
    /// Serve the API without authentication on this machine, adding the kubeconfig's.
    Proxy(proxy::Proxy),
    /// Print the versions of this program and of the server.
    Version(version::Version),
    /// Ask about the user.
    Auth {
        #[command(subcommand)]
        command: Auth,
    },
}

#[derive(Subcommand)]
enum Auth {
    /// Print who the server takes this user for.
    Whoami(whoami::Whoami),
}

type Outcome<T = ()> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

impl Global {
    fn config(&self) -> kubewire::Result<Config> {
        let mut options = KubeconfigOptions::default();
        options.paths.extend(self.kubeconfig.clone());
        options.context.clone_from(&self.context);
        options.cluster.clone_from(&self.cluster);
        options.user.clone_from(&self.user);
        let chosen = [&self.context, &self.cluster, &self.user];
        let config = match self.kubeconfig.is_none() && chosen.iter().all(|c| c.is_none()) {
            true => Config::from_env()?,
            false => Config::from_kubeconfig(&options)?,
        };
        Ok(match &self.namespace {
            Some(namespace) => config.with_namespace(namespace.as_str()),
            None => config,
        })
    }

    fn client(&self) -> kubewire::Result<Client> {
        Client::new(&self.config()?)
    }

    fn trace(&self) {
        let level = match self.v {
            0 => LevelFilter::ERROR,
            1..=3 => LevelFilter::WARN,
            4..=5 => LevelFilter::INFO,
            6..=8 => LevelFilter::DEBUG,
            _ => LevelFilter::TRACE,
        };
        // Other crates stay silent: theirs is not the promise that no secret is printed.
        let own = Targets::new().with_target("kubewire", level.max(LevelFilter::WARN));
        let layer = tracing_subscriber::fmt::layer()
            .with_writer(io::stderr)
            .with_target(false);
        tracing_subscriber::registry().with(own).with(layer).init();
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    arguments.global.trace();
    let global = &arguments.global;
    let outcome = match &arguments.command {
        Command::Get(get) => get.run(global).await,
        Command::Proxy(proxy) => proxy.run(global).await,
        Command::Version(version) => version.run(global).await,
        Command::Auth {
            command: Auth::Whoami(whoami),
        } => whoami.run(global).await,
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        // A reader that has had enough, such as head.
        Err(error) if is_broken_pipe(&*error) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "kubewire: {error}");
            ExitCode::FAILURE
        }
    }
}

fn is_broken_pipe(error: &(dyn std::error::Error + 'static)) -> bool {
    error
        .downcast_ref::<io::Error>()
        .is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

/// Rows under headings, as kubectl lays them out: three spaces between columns.
fn print_table(rows: &[Vec<String>]) -> io::Result<()> {
    let columns = rows.iter().map(Vec::len).max().unwrap_or_default();
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<_> = (0..columns).map(width).collect();
    let mut out = io::stdout().lock();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            line.push_str(&format!("{cell:<width$}   "));
        }
        writeln!(out, "{}", line.trim_end())?;
    }
    Ok(())
}

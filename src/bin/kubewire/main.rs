//! The command-line tool `kubewire`: the library's verbs with kubectl's flags.
//!
//! In flow arguments and the standard streams; out come the remote's output and its exit code.
//! Nothing but the remote's output goes to stdout. One file a subcommand; `connection` is what
//! they share before the connection stands, `relay` what they share after.

use std::{io::Write as _, process::ExitCode};

use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

#[macro_use]
mod failure;

mod absent;
mod answer;
mod api_resources;
mod attach;
mod bar;
mod can_i;
mod changes;
mod completion;
mod connection;
mod cp;
mod debug;
mod duration;
mod events;
mod exec;
mod flags;
mod get;
mod jsonpath;
mod keys;
mod lines;
mod logs;
mod man;
mod many;
mod port_forward;
mod printable;
mod proxy;
mod relay;
mod review;
mod rules;
mod set;
mod signals;
mod stdio;
mod table;
mod target;
mod terminal;
mod trace;
#[cfg(unix)]
mod unix_socket;
mod version;
mod wait;
mod watch;
mod whoami;
mod workload;
mod yaml;

use failure::{Failure, Local as _};

const ABOUT: &str = "Kubernetes' streaming protocols on the command line\n\n\
    Verbs and flags are kubectl's; what is not here is refused with what to use instead. The cluster \
    and the user are those of the kubeconfig: KUBECONFIG, ~/.kube/config, or in a pod its service \
    account. HTTPS_PROXY and NO_PROXY count, and NO_COLOR turns colours off.\n\n\
    Exit codes: 0 if all went well; 1 for an error, of the command line too; from exec the remote \
    command's own; 128 and a signal's number after a signal, such as 130 after Ctrl-C, and 141 if \
    nobody reads the output any more. Where a verb has others, its help says so.";

const EXAMPLES: &str = "Examples:\n  \
    kubewire exec web-0 -it -- sh\n  \
    kubewire port-forward svc/web 8080:http\n  \
    kubewire logs -f -l app=web --all-containers --prefix\n  \
    kubewire cp web-0:/var/log/app logs --retries 5\n  \
    kubewire wait pods -l app=web --for condition=Ready";

#[derive(Parser)]
#[command(
    version,
    about = "Kubernetes' streaming protocols on the command line",
    long_about = ABOUT,
    after_help = EXAMPLES,
    args_override_self = true,
    max_term_width = 100
)]
struct Cli {
    #[command(flatten)]
    connection: connection::Connection,
    /// Show on stderr what happens: 0 warnings; 1 to 3 each request with its code and its time;
    /// 4 to 6 details, with each request as a curl command; 7 to 9 everything
    #[arg(
        short,
        long,
        global = true,
        alias = "v",
        value_name = "LEVEL",
        default_value_t = 0,
        hide_default_value = true
    )]
    verbosity: u32,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Exec(exec::Exec),
    Attach(attach::Attach),
    PortForward(port_forward::PortForward),
    Cp(cp::Cp),
    Debug(debug::Debug),
    Logs(logs::Logs),
    Watch(watch::Watch),
    Wait(wait::Wait),
    Get(get::Get),
    Events(events::Events),
    ApiResources(api_resources::ApiResources),
    Proxy(proxy::Proxy),
    Version(version::Version),
    Completion(completion::Completion),
    Man(man::Man),
    /// Ask about the user
    ///
    /// Exit codes: those of its verbs.
    #[command(
        subcommand,
        after_help = "Examples:\n  \
            kubewire auth whoami\n  \
            kubewire auth can-i create pods/exec -n web"
    )]
    Auth(Auth),
}

#[derive(Subcommand)]
enum Auth {
    CanI(can_i::CanI),
    Whoami(whoami::Whoami),
}

fn main() -> ExitCode {
    let code = match parse() {
        Ok(cli) => match start(cli).and_then(written) {
            Ok(code) => code,
            Err(failure) => failure.report(),
        },
        Err(error) => failure::usage(&error),
    };
    terminal::restore();
    let _ = std::io::stderr().flush();
    // Not a return: a thread may be waiting for input that never comes.
    std::process::exit(code.into())
}

/// The exit code, if all output has been written: behind the last newline it waits for this.
fn written(code: u8) -> Result<u8, Failure> {
    std::io::stdout().flush()?;
    Ok(code)
}

/// Reads the command line.
///
/// The flags of all verbs are four hundred, and most of what the start costs. So it is read with the
/// verbs that it may name; where that fails, with all of them, whose help and words are whole.
fn parse() -> Result<Cli, clap::Error> {
    let read = |command| {
        let matches = flags::with_values(command).try_get_matches()?;
        Cli::from_arg_matches(&matches)
    };
    let words: Vec<_> = std::env::args_os().skip(1).collect();
    let all = Cli::command();
    let verbs = all.get_subcommands();
    let named = verbs.filter(|verb| words.iter().any(|word| word == verb.get_name()));
    let few = clap::Command::new("kubewire")
        .subcommand_required(true)
        .args(all.get_arguments().cloned())
        .subcommands(named.cloned());
    read(few).or_else(|_| read(all))
}

fn start(cli: Cli) -> Result<u8, Failure> {
    trace::start(cli.verbosity);
    terminal::restore_on_panic();
    // One thread does: the verbs have no task on the data path, and the standard streams have
    // threads of their own.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .local("the runtime cannot be started")?;
    let connection = &cli.connection;
    let result = runtime.block_on(async {
        match cli.command {
            Command::Exec(exec) => exec.run(connection).await,
            Command::Attach(attach) => attach.run(connection).await,
            Command::PortForward(forward) => forward.run(connection).await,
            Command::Cp(cp) => cp.run(connection).await,
            Command::Debug(debug) => debug.run(connection).await,
            Command::Logs(logs) => logs.run(connection).await,
            Command::Wait(wait) => wait.run(connection).await,
            Command::Watch(watch) => watch.run(connection).await,
            Command::Get(get) => get.run(connection).await,
            Command::Events(events) => events.run(connection).await,
            Command::ApiResources(list) => list.run(connection).await,
            Command::Proxy(proxy) => proxy.run(connection).await,
            Command::Version(version) => version.run(connection).await,
            Command::Auth(Auth::CanI(ask)) => ask.run(connection).await,
            Command::Auth(Auth::Whoami(whoami)) => whoami.run(connection).await,
            Command::Completion(completion) => completion.run(Cli::command()),
            Command::Man(man) => man.run(Cli::command()),
        }
    });
    // Nothing that is left may keep the process, such as a resolver that does not answer.
    runtime.shutdown_background();
    result
}

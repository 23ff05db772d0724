//! `kubewire exec`: runs a command in a container.

use clap::Args;
use kubewire::exec::{Child, TerminalSize};

use crate::{
    connection::Connection,
    failure::{Failure, note},
    relay::{self, Remote, Streams},
    target::Target,
};

/// Run a command in a container
///
/// Its exit code is the exit code here; 1 is also that of errors, 128 and a signal's number that
/// of a signal that ended this command.
#[derive(Args)]
#[command(after_help = "Examples:\n  \
    kubewire exec web-0 -- date\n  \
    kubewire exec web-0 -it -- sh\n  \
    tar c site | kubewire exec web-0 -i -- tar x -C /srv")]
pub(crate) struct Exec {
    #[command(flatten)]
    target: Target,
    /// The command: program, then arguments; no shell is involved
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<String>,
}

impl Exec {
    pub(crate) async fn run(self, connection: &Connection) -> Result<u8, Failure> {
        let pod = self.target.pod(connection)?;
        let terminal = self.target.terminal();
        let mut exec = pod.exec(self.command).stdin(self.target.stdio());
        if let Some(container) = &self.target.container {
            exec = exec.container(container);
        }
        if let Some(terminal) = terminal {
            exec = exec.tty(terminal.size);
        }
        let mut child = match exec.spawn().await {
            Ok(child) => child,
            Err(error) => {
                let container = self.target.default_container(&pod, error).await?;
                exec.container(container).spawn().await?
            }
        };
        tracing::info!(protocol = %child.protocol(), "the command is accepted");
        let streams = Streams {
            stdin: child.stdin.take(),
            stdout: child.stdout.take(),
            stderr: child.stderr.take(),
        };
        let code = relay::run(child, streams, terminal, false).await?;
        if code != 0 {
            note(&format!("command terminated with exit code {code}"));
        }
        Ok(code)
    }
}

impl Remote for Child {
    async fn wait(&mut self) -> kubewire::Result<u8> {
        let status = Child::wait(self).await?;
        let code = status.code().and_then(|code| u8::try_from(code).ok());
        // A code that is none of a process is still a failure.
        Ok(code.unwrap_or(1))
    }

    fn resize(&self, size: TerminalSize) -> kubewire::Result<()> {
        Child::resize(self, size)
    }
}

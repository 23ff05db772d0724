//! `kubewire exec`: runs a command in a container.

use clap::Args;
use kubewire::exec::{Child, TerminalSize};

use crate::{
    connection::Connection,
    failure::{Failure, note},
    keys::Keys,
    many::{Bounds, Many},
    relay::{self, Remote, Streams},
    target::Target,
};

/// Run a command in a container
///
/// On a terminal, ~. at the start of a line gives up a session that hangs; ~~ sends a tilde.
///
/// Exit codes: that of the remote command; of one above 255 or below 0 what a shell would see, its
/// lowest byte, and 1 where that is 0; stderr has the whole. 1 for errors of this program; 128 and
/// a signal's number for a signal that ended it; 141 if nobody reads its output.
#[derive(Args)]
#[command(after_help = "Examples:\n  \
    kubewire exec web-0 -- date\n  \
    kubewire exec web-0 -it -- sh\n  \
    kubewire exec deploy/web -c main -- env\n  \
    tar c site | kubewire exec web-0 -i -- tar x -C /srv\n  \
    kubewire exec -l app=web --timeout 30s -- nginx -t")]
pub(crate) struct Exec {
    #[command(flatten)]
    target: Target,
    /// In all pods whose labels match, at once: each line begins with its pod, and a table of exit
    /// codes goes to stderr. The exit code is 0 if all are, the one that all others share, or 1
    #[arg(short = 'l', long, value_name = "SELECTOR",
          conflicts_with_all = ["pod", "filename", "stdin", "tty"])]
    selector: Option<String>,
    #[command(flatten)]
    bounds: Bounds,
    /// The command: program, then arguments; no shell is involved
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<String>,
}

impl Exec {
    pub(crate) async fn run(self, connection: &Connection) -> Result<u8, Failure> {
        if let Some(labels) = &self.selector {
            let client = connection.client()?;
            let (container, quiet) = (self.target.container, self.target.quiet);
            return Many::new(client, self.command, container, self.bounds)
                .run(labels, quiet)
                .await;
        }
        let pod = self.target.pod(connection).await?;
        let terminal = self.target.terminal();
        let mut exec = pod.exec(self.command).stdin(self.target.stdio());
        if let Some(limit) = self.bounds.timeout {
            exec = exec.timeout(limit);
        }
        if let Some(container) = &self.target.container {
            exec = exec.container(container);
        }
        if let Some(terminal) = terminal {
            exec = exec.tty(terminal.size);
        }
        let mut child = exec.spawn().await?;
        self.target.note_default(&pod, child.container()).await;
        tracing::info!(protocol = %child.protocol(), "the command is accepted");
        let streams = Streams {
            stdin: child.stdin.take(),
            stdout: child.stdout.take(),
            stderr: child.stderr.take(),
        };
        let code = relay::run(child, streams, terminal, false, Keys::new(&[])).await?;
        if code != 0 {
            note(&format!("command terminated with exit code {code}"));
        }
        Ok(exit_code(code))
    }
}

/// The exit code here for one of the remote's: its lowest byte, as for a process of this machine,
/// but never a success that it was not.
pub(crate) fn exit_code(code: i32) -> u8 {
    match (code, code as u8) {
        (0, _) => 0,
        (_, 0) => 1,
        (_, byte) => byte,
    }
}

impl Remote for Child {
    async fn wait(&mut self) -> kubewire::Result<i32> {
        let status = Child::wait(self).await?;
        // Without a code it did not end well either.
        Ok(status.code().unwrap_or(1))
    }

    fn resize(&self, size: TerminalSize) -> kubewire::Result<()> {
        Child::resize(self, size)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_are_what_a_shell_would_see_and_no_failure_is_a_success() {
        let windows = 3_221_225_786_u32 as i32;
        for (code, here) in [
            (0, 0),
            (1, 1),
            (137, 137),
            (255, 255),
            (256, 1),
            (300, 44),
            (-1, 255),
            (-256, 1),
            (windows, 0x3a),
            (i32::MIN, 1),
        ] {
            assert_eq!(exit_code(code), here, "{code}");
        }
    }
}

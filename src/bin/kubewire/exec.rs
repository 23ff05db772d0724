//! `kubewire exec`: runs a command in a container.

use clap::Args;
use kubewire::exec::{self, ExecAll, ExitStatus};

use crate::{
    connection::Connection,
    failure::Failure,
    many::{self, Bounds},
    relay,
    set::Set as _,
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
            let all = client
                .exec_all(client.namespace(), self.command)
                .labels(labels)
                .max_concurrent(self.bounds.max_concurrent)
                .set(self.target.container(), ExecAll::container)
                .set(self.bounds.timeout, ExecAll::timeout);
            return many::run(all, self.target.quiet).await;
        }
        let pod = self.target.pod(connection).await?;
        let terminal = self.target.terminal();
        let exec = pod.exec(self.command).stdin(self.target.stdio());
        let exec = exec
            .set(self.bounds.timeout, exec::Exec::timeout)
            .set(self.target.container(), exec::Exec::container)
            .set(terminal, |exec, terminal| exec.tty(terminal.size));
        let child = exec.spawn().await?;
        self.target.note_default(&pod, child.container()).await;
        tracing::info!(protocol = %child.protocol(), "the command is accepted");
        let exit = relay::run(child, terminal, &[], self.target.quiet).await?;
        let code = exit.as_ref().map_or(0, code);
        if code != 0 {
            note!("command terminated with exit code {code}");
        }
        Ok(exit_code(code))
    }
}

/// The remote's exit code; one that failed without has none that is 0.
pub(crate) fn code(status: &ExitStatus) -> i64 {
    match status.raw_code() {
        0 if !status.success() => 1,
        code => code,
    }
}

/// The exit code here for one of the remote's: its lowest byte, as for a process of this machine,
/// but never a success that it was not.
pub(crate) fn exit_code(code: i64) -> u8 {
    match (code, code as u8) {
        (0, _) => 0,
        (_, 0) => 1,
        (_, byte) => byte,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_are_what_a_shell_would_see_and_no_failure_is_a_success() {
        for (code, here) in [
            (0, 0),
            (1, 1),
            (137, 137),
            (255, 255),
            (256, 1),
            (300, 44),
            (-1, 255),
            (-256, 1),
            (3_221_225_786, 0x3a),
            (i32::MIN.into(), 1),
        ] {
            assert_eq!(exit_code(code), here, "{code}");
        }
    }
}

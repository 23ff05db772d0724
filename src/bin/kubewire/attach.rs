//! `kubewire attach`: joins the process that a container runs.

use clap::Args;
use kubewire::{
    attach::{self, Attached},
    exec::TerminalSize,
};

use crate::{
    connection::Connection,
    failure::{Failure, note},
    keys, relay,
    set::Set as _,
    target::{Target, Terminal},
    terminal,
};

/// Attach to the process that a container runs
///
/// On a terminal, ~. at the start of a line gives up a session that hangs; ~~ sends a tilde.
///
/// Exit codes: 0 when the container ends, whatever its own, which the server does not send; 1 for
/// errors of this program; 128 and a signal's number for a signal that ended it; 141 if nobody
/// reads its output.
#[derive(Args)]
#[command(after_help = "Examples:\n  \
    kubewire attach web-0\n  \
    kubewire attach deploy/web -c main\n  \
    kubewire attach shell-0 -it")]
pub(crate) struct Attach {
    #[command(flatten)]
    target: Target,
    /// The keys that leave the process running and end this: characters and ctrl-LETTER, with
    /// commas between them; empty for none
    #[arg(long, value_name = "KEYS", default_value = "ctrl-p,ctrl-q", value_parser = keys::sequence)]
    detach_keys: keys::Sequence,
}

impl Attach {
    pub(crate) async fn run(self, connection: &Connection) -> Result<u8, Failure> {
        let pod = self.target.pod(connection).await?;
        let mut terminal = self.target.terminal();
        let mut attach = pod
            .attach()
            .stdin(self.target.stdio())
            .set(self.target.container(), attach::Attach::container);
        // Who may attach may not be allowed to look at the pod; then the server says what is wrong.
        let containers = pod.containers().await.unwrap_or_default();
        if let Some(container) = self.target.choose(&containers) {
            attach = attach.container(&container.name);
            if container.tty {
                // Servers refuse to attach to a terminal as to anything else; only who asks for it
                // has all keys passed on.
                let size = terminal::size();
                terminal.get_or_insert(Terminal { size, raw: false });
            } else if terminal.take().is_some() && !self.target.quiet {
                // In raw mode every key, interrupt too, would go to a program that expects lines.
                let name = &container.name;
                note!("Unable to use a TTY - container {name} did not allocate one");
            }
        }
        let attach = attach.set(terminal, |attach, it| attach.tty(one_more(it.size)));
        let attached = attach.spawn().await?;
        tracing::info!(protocol = %attached.protocol(), "attached");
        relay(attached, terminal, &self.detach_keys, self.target.quiet).await
    }
}

pub(crate) async fn relay(
    attached: Attached,
    terminal: Option<Terminal>,
    detach: &keys::Sequence,
    quiet: bool,
) -> Result<u8, Failure> {
    if terminal.is_some_and(|terminal| terminal.raw) && !quiet {
        note("If you don't see a command prompt, try pressing enter.");
    }
    relay::run(attached, terminal, &detach.0, quiet).await?;
    Ok(0)
}

/// A size that differs from `size`, so that the true one, sent next, is a change that makes the
/// program draw its screen again (`k8s.io/kubectl/pkg/cmd/attach/attach.go`).
fn one_more(size: TerminalSize) -> TerminalSize {
    TerminalSize::new(size.width.saturating_add(1), size.height.saturating_add(1))
}

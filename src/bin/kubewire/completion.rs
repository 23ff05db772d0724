//! `completion`: in flows the name of a shell, out comes the script that completes this tool's
//! command lines in it.

use std::io::{self, Write as _};

use clap::{Args, Command};
use clap_complete::Shell;

use crate::failure::Failure;

/// Print the script that lets a shell complete command lines
///
/// Exit codes: 0, or 141 if nobody reads it.
#[derive(Args)]
#[command(after_help = "Examples:\n  \
    source <(kubewire completion bash)\n  \
    kubewire completion zsh > \"${fpath[1]}/_kubewire\"\n  \
    kubewire completion fish | source")]
pub(crate) struct Completion {
    /// The shell
    shell: Shell,
}

impl Completion {
    pub(crate) fn run(self, mut command: Command) -> Result<u8, Failure> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut command, "kubewire", &mut script);
        io::stdout().write_all(&script)?;
        Ok(0)
    }
}

//! `man`: in flows a directory, out come manual pages in it, one for the tool and one for each verb.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use clap::{Args, Command};
use clap_mangen::{
    Man as Page,
    roff::{Roff, roman},
};

use crate::failure::{Failure, Local as _};

/// Write the manual pages
///
/// There is one for the tool, kubewire.1, and one for each verb, such as kubewire-exec.1.
///
/// Exit codes: 0 if they are written; 1 if not.
#[derive(Args)]
#[command(after_help = "Examples:\n  \
    kubewire man ~/.local/share/man/man1\n  \
    kubewire man . && man ./kubewire-cp.1")]
pub(crate) struct Man {
    /// The directory for them, which is made if it is not there
    directory: PathBuf,
}

impl Man {
    pub(crate) fn run(self, command: Command) -> Result<u8, Failure> {
        let shown = self.directory.display();
        fs::create_dir_all(&self.directory).local(&shown)?;
        let mut command = command.disable_help_subcommand(true);
        command.build();
        write(&command, &self.directory).local(&shown)?;
        Ok(0)
    }
}

/// Writes the page of a command, and those of its subcommands.
fn write(command: &Command, directory: &Path) -> io::Result<()> {
    for verb in command.get_subcommands() {
        write(verb, directory)?;
    }
    let page = Page::new(command.clone()).source(concat!("kubewire ", env!("CARGO_PKG_VERSION")));
    let mut text = Vec::new();
    page.render_title(&mut text)?;
    page.render_name_section(&mut text)?;
    page.render_synopsis_section(&mut text)?;
    page.render_description_section(&mut text)?;
    page.render_options_section(&mut text)?;
    if command.has_subcommands() {
        page.render_subcommands_section(&mut text)?;
    }
    if let Some(examples) = command.get_after_help() {
        examples_of(&examples.to_string()).to_writer(&mut text)?;
    }
    fs::write(directory.join(page.get_filename()), text)
}

/// The section with the examples, each in a line of its own.
fn examples_of(text: &str) -> Roff {
    let mut section = Roff::new();
    section.control("SH", ["EXAMPLES"]);
    section.control("nf", []);
    for line in text.trim_start_matches("Examples:\n").lines() {
        section.text([roman(line.trim_start())]);
    }
    section.control("fi", []);
    section
}

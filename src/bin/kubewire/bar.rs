//! How far a copy is, for a person: in flow the library's counts, out comes a line on stderr, if
//! that is a terminal, with rate and time left.

use std::{
    io::{IsTerminal as _, stderr},
    time::Duration,
};

use indicatif::{ProgressBar, ProgressStyle};
use kubewire::copy::Progress;
use tokio::task::JoinHandle;

use crate::printable::Printable;

/// How often the line changes.
const PERIOD: Duration = Duration::from_millis(100);

/// Characters of a name that are shown, its last: the rest of the line takes 50 of the 80 that a terminal has.
const NAME: usize = 24;

// They end at the begin of the line: a terminal that shows Ctrl-C as ^C would begin another with it,
// and this one would stay.
const KNOWN: &str = "{prefix} {wide_bar} {binary_bytes}/{binary_total_bytes} \
    {binary_bytes_per_sec}, {eta} left\r";

const UNKNOWN: &str = "{prefix} {spinner} {binary_bytes} {binary_bytes_per_sec}\r";

/// The line, until this is dropped.
#[derive(Debug)]
pub(crate) struct Bar(Option<(ProgressBar, JoinHandle<()>)>);

impl Bar {
    /// Shows it, unless nobody would see it.
    pub(crate) fn start(progress: &Progress, name: &str, quiet: bool) -> Self {
        if quiet || !stderr().is_terminal() {
            return Self(None);
        }
        let style = |template| ProgressStyle::with_template(template).ok();
        let name = short(&Printable::line(name).to_string());
        let bar = ProgressBar::new_spinner().with_prefix(name);
        if let Some(style) = style(UNKNOWN) {
            bar.set_style(style);
        }
        let (shown, progress) = (bar.clone(), progress.clone());
        let showing = tokio::spawn(async move {
            let mut ticks = tokio::time::interval(PERIOD);
            loop {
                ticks.tick().await;
                if let (None, Some(total)) = (shown.length(), progress.total_bytes()) {
                    shown.set_length(total);
                    if let Some(style) = style(KNOWN) {
                        shown.set_style(style.progress_chars("=> "));
                    }
                }
                shown.set_position(progress.bytes());
                shown.tick();
            }
        });
        Self(Some((bar, showing)))
    }

    /// Takes it away, before anything else is said.
    pub(crate) fn finish(self) {}
}

fn short(name: &str) -> String {
    match name.chars().count().checked_sub(NAME) {
        None | Some(0) => name.to_owned(),
        Some(more) => format!(
            "\u{2026}{}",
            name.chars().skip(more + 1).collect::<String>()
        ),
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        if let Some((bar, showing)) = self.0.take() {
            showing.abort();
            bar.finish_and_clear();
        }
    }
}

//! How a subcommand ends when it does not end well: in flow errors, out come one line on stderr
//! and an exit code.

use std::{
    fmt,
    io::{self, Write as _},
    time::{Duration, Instant},
};

use clap::error::{ContextKind, ErrorKind};

use crate::{absent, printable::Printable};

/// Ends a subcommand with a message.
macro_rules! bail {
    ($($message:tt)*) => {
        return Err(format!($($message)*).into())
    };
}

/// [`note`](crate::failure::note) with the arguments of `format!`.
macro_rules! note {
    ($($line:tt)*) => {
        $crate::failure::note(&format!($($line)*))
    };
}

/// The exit code of a process that a broken pipe ended, as a shell sees it: 128 + SIGPIPE.
const BROKEN_PIPE: u8 = 141;

#[derive(Debug)]
pub(crate) enum Failure {
    Message(String),
    /// A stream has not ended in the time that a request has.
    Late(Duration),
    /// A signal asked for the end; its number.
    Signal(u8),
    /// Nobody reads the output any more: as quiet as a process that SIGPIPE ends.
    BrokenPipe,
}

/// What may fail on this machine, which is told with what it was about.
pub(crate) trait Local<T> {
    fn local(self, what: impl fmt::Display) -> Result<T, Failure>;
}

impl<T, E: fmt::Display> Local<T> for Result<T, E> {
    fn local(self, what: impl fmt::Display) -> Result<T, Failure> {
        self.map_err(|error| format!("{what}: {error}").into())
    }
}

impl Failure {
    /// A standard stream cannot be used.
    pub(crate) fn stream(what: &str, error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::BrokenPipe,
            _ => Self::Message(format!("{what}: {error}")),
        }
    }

    /// Tells the user, and gives the exit code.
    pub(crate) fn report(self) -> u8 {
        match self {
            Self::Message(message) => {
                note!("error: {message}");
                1
            }
            Self::Late(time) => Self::Message(format!("no end within {time:?}")).report(),
            Self::Signal(number) => 128 + number,
            Self::BrokenPipe => BROKEN_PIPE,
        }
    }
}

impl From<&str> for Failure {
    fn from(message: &str) -> Self {
        Self::Message(message.to_owned())
    }
}

impl From<String> for Failure {
    fn from(message: String) -> Self {
        Self::Message(message)
    }
}

impl From<kubewire::Error> for Failure {
    fn from(error: kubewire::Error) -> Self {
        Self::Message(error.to_string())
    }
}

/// An error on standard output.
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::stream("stdout", &error)
    }
}

/// That something is tried again, which is told once, however long it lasts.
#[derive(Debug, Default)]
pub(crate) struct Retrying(Option<Instant>);

impl Retrying {
    /// Tells why, unless that has been told; gives for how long it has lasted.
    pub(crate) fn tell(&mut self, error: &kubewire::Error) -> Duration {
        let since = self.0.get_or_insert_with(|| {
            note!("{error}; trying again");
            Instant::now()
        });
        since.elapsed()
    }
}

/// Says what is wrong with the arguments, or gives the help that they ask for, and gives the exit
/// code.
pub(crate) fn usage(error: &clap::Error) -> u8 {
    if !error.use_stderr() || error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        // That nobody reads it is no reason to complain.
        let _ = error.print();
        return error.use_stderr().into();
    }
    let text = error.render().to_string();
    let text = text.strip_prefix("error: ").unwrap_or(&text);
    let (complaint, usage) = text.split_once("Usage: ").unwrap_or((text, ""));
    let complaint = complaint.split("For more information").next();
    let complaint = complaint.unwrap_or_default().replace("\n\n  tip: ", "; ");
    let complaint: Vec<_> = complaint.split_whitespace().collect();
    let usage = usage.lines().next().unwrap_or_default();
    let message = of_kubectl(error, usage).unwrap_or_else(|| match usage {
        // Of a value that is wrong.
        "" => complaint.join(" "),
        usage => format!("{}; usage: {usage}", complaint.join(" ")),
    });
    Failure::Message(message).report()
}

/// What to use instead of what only kubectl has.
fn of_kubectl(error: &clap::Error, usage: &str) -> Option<String> {
    let context = |kind| error.get(kind).map(ToString::to_string);
    let words = usage.split_whitespace().skip(1);
    let verb: Vec<_> = words
        .take_while(|word| word.starts_with(|c: char| c.is_ascii_lowercase()))
        .collect();
    match error.kind() {
        ErrorKind::UnknownArgument => {
            absent::flag_of(&verb.join(" "), &context(ContextKind::InvalidArg)?)
        }
        ErrorKind::InvalidSubcommand => absent::verb(&context(ContextKind::InvalidSubcommand)?),
        _ => None,
    }
}

/// Says that there are no objects, in a namespace or in all.
pub(crate) fn nothing_found(namespace: Option<&str>) {
    match namespace {
        Some(namespace) => note!("No resources found in {namespace} namespace."),
        None => note!("No resources found"),
    }
}

/// Writes one line to stderr. The terminal is as it was at the start by then, or the line says so
/// itself: in raw mode a line feed alone does not return to the first column.
pub(crate) fn note(line: &str) {
    let end = match crate::terminal::is_raw() {
        true => "\r\n",
        false => "\n",
    };
    // A server's message may have several lines; an error is one.
    let line = Printable::line(line);
    // If stderr is closed there is nobody to tell.
    let _ = io::stderr().write_all(format!("{line}{end}").as_bytes());
}

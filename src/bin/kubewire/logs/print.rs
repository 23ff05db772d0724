//! How a line of a log is printed: in flows a line and where it comes from, out it comes behind
//! its source, or as JSON, or not at all.

use std::{collections::hash_map::DefaultHasher, hash::Hasher as _};

use clap::{Args, ValueEnum};
use kubewire::{logs::LogLine, wire::line::LineEnd};
use regex::bytes::Regex;
use serde::Serialize;

use crate::{
    failure::{Failure, Local as _},
    lines::Lines,
    printable::Printable,
    terminal,
};

#[derive(Args)]
pub(super) struct Form {
    /// Only lines that match one of these regular expressions; may be given several times
    #[arg(long, value_name = "REGEX")]
    include: Vec<Regex>,
    /// No lines that match one of these regular expressions; may be given several times
    #[arg(long, value_name = "REGEX")]
    exclude: Vec<Regex>,
    /// How to print a line: json for an object with the namespace, the pod, the container, the time
    /// and the line
    #[arg(short, long, value_name = "FORMAT", value_enum)]
    output: Option<Output>,
    /// Print when each line was written
    #[arg(long)]
    timestamps: bool,
    /// Print where each line comes from, on a terminal in a colour of the pod's; NO_COLOR turns
    /// colours off
    #[arg(long)]
    pub(super) prefix: bool,
    /// The line that is under way is left out.
    #[arg(skip)]
    skips: bool,
    #[arg(skip)]
    colours: Option<bool>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    /// A line of JSON a line
    Json,
}

#[derive(Clone, Copy)]
pub(super) struct Source<'a> {
    pub(super) namespace: &'a str,
    pub(super) pod: &'a str,
    pub(super) container: &'a str,
    pub(super) everywhere: bool,
}

#[derive(Serialize)]
struct JsonLine<'a> {
    namespace: &'a str,
    pod: &'a str,
    container: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    time: Option<String>,
    line: &'a str,
    /// Whether more of the line follows.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    partial: bool,
}

impl Form {
    pub(super) fn names_sources(&self) -> bool {
        self.prefix || self.output.is_some()
    }

    pub(super) async fn line(
        &mut self,
        line: &LogLine,
        source: Source<'_>,
        out: &mut Lines,
    ) -> Result<(), Failure> {
        let begins = out.begin() && !self.skips;
        if begins {
            let is_in = |all: &[Regex]| all.iter().any(|one| one.is_match(&line.bytes));
            self.skips =
                (!self.include.is_empty() && !is_in(&self.include)) || is_in(&self.exclude);
        }
        if self.skips {
            self.skips = line.end == LineEnd::Piece;
            return Ok(());
        }
        if self.output == Some(Output::Json) {
            return json(line, source, out).await;
        }
        // Further pieces of a long line follow the first without a prefix of their own.
        if begins {
            if self.prefix {
                out.write(self.prefixed(source).as_bytes());
            }
            if let (true, Some(stamp)) = (self.timestamps, line.stamp) {
                out.write(format!("{stamp} ").as_bytes());
            }
        }
        out.write(&line.bytes);
        out.end(line.end).await
    }

    fn prefixed(&mut self, source: Source<'_>) -> String {
        let Source {
            namespace,
            pod,
            container,
            everywhere,
        } = source;
        let name = match everywhere {
            true => format!("{namespace}/pod/{pod}/{container}"),
            false => format!("pod/{pod}/{container}"),
        };
        let name = Printable::line(&name);
        match *self.colours.get_or_insert_with(terminal::has_colours) {
            true => format!("\x1b[{}m[{name}]\x1b[0m ", colour(pod)),
            false => format!("[{name}] "),
        }
    }
}

/// A pod's colour, always the same: one of those that can be read on black and on white.
fn colour(pod: &str) -> u8 {
    let mut hasher = DefaultHasher::new();
    hasher.write(pod.as_bytes());
    // ECMA-48, SGR: red, green, yellow, blue, magenta, cyan.
    31 + (hasher.finish() % 6) as u8
}

async fn json(line: &LogLine, source: Source<'_>, out: &mut Lines) -> Result<(), Failure> {
    let text = String::from_utf8_lossy(&line.bytes);
    let object = JsonLine {
        namespace: source.namespace,
        pod: source.pod,
        container: source.container,
        time: line.stamp.map(|stamp| stamp.to_string()),
        line: &text,
        partial: line.end == LineEnd::Piece,
    };
    let json = serde_json::to_string(&object).local("a line as JSON")?;
    out.text(&format!("{}\n", Printable::json(&json))).await
}

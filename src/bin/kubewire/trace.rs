//! What `-v` shows: the library's tracing events, on stderr.

use std::io::{self, Write};

use tracing_subscriber::{
    filter::{LevelFilter, Targets},
    fmt::{MakeWriter, time::uptime},
    layer::SubscriberExt as _,
    util::SubscriberInitExt as _,
};

use crate::failure::note;

/// The target of the library's events that tell each request, with its code and its time.
const REQUESTS: &str = "kubewire::requests";

/// That of a log's, which the tool tells in its own words.
const LOGS: &str = "kubewire::client::logs";

/// Shows the library's events from now on. Those of other crates are left out: they may hold
/// request headers.
pub(crate) fn start(verbosity: u8) {
    let level = match verbosity {
        0 => LevelFilter::WARN,
        1..=3 => LevelFilter::INFO,
        4..=6 => LevelFilter::DEBUG,
        _ => LevelFilter::TRACE,
    };
    let (requests, logs) = match verbosity {
        0 => (LevelFilter::OFF, LevelFilter::OFF),
        _ => (LevelFilter::DEBUG.max(level), level),
    };
    let events = tracing_subscriber::fmt::layer()
        .with_timer(uptime())
        .with_ansi(false)
        .with_writer(Stderr);
    tracing_subscriber::registry()
        .with(events)
        .with(
            Targets::new()
                .with_target("kubewire", level)
                .with_target(REQUESTS, requests)
                .with_target(LOGS, logs),
        )
        .init();
}

struct Stderr;

impl<'a> MakeWriter<'a> for Stderr {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        Self
    }
}

impl Write for Stderr {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        // What is traced holds texts of servers. It comes as one line.
        let text = String::from_utf8_lossy(line);
        note(text.strip_suffix('\n').unwrap_or(&text));
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

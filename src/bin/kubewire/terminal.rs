//! The terminal on this side: raw mode, which ends whatever happens, and its size.

use std::{
    io::{self, IsTerminal as _},
    sync::atomic::{AtomicBool, Ordering},
};

use kubewire::exec::TerminalSize;

/// The size of a terminal that cannot tell: that of a VT100.
const DEFAULT: TerminalSize = TerminalSize::new(80, 24);

static RAW: AtomicBool = AtomicBool::new(false);

/// Raw mode, until this is dropped.
#[must_use]
pub(crate) struct RawMode(());

impl RawMode {
    /// Hands every key to the remote, interrupt and suspend too.
    pub(crate) fn enter() -> io::Result<Self> {
        crossterm::terminal::enable_raw_mode()?;
        RAW.store(true, Ordering::SeqCst);
        Ok(Self(()))
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        restore();
    }
}

/// Ends raw mode, if it is on.
pub(crate) fn restore() {
    if RAW.swap(false, Ordering::SeqCst) {
        // A terminal that has gone away needs no repair.
        let _ = crossterm::terminal::disable_raw_mode();
    }
}

/// Restores the terminal before a panic is reported, so that the report can be read.
pub(crate) fn restore_on_panic() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        restore();
        report(info);
    }));
}

pub(crate) fn is_raw() -> bool {
    RAW.load(Ordering::SeqCst)
}

pub(crate) fn stdin_is_one() -> bool {
    io::stdin().is_terminal()
}

/// Whether stdout is a terminal that may show colours (<https://no-color.org>).
pub(crate) fn has_colours() -> bool {
    let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    io::stdout().is_terminal() && !no_color
}

pub(crate) fn size() -> TerminalSize {
    match crossterm::terminal::size() {
        Ok((width @ 1.., height @ 1..)) => TerminalSize::new(width, height),
        _ => DEFAULT,
    }
}

/// Text that is drawn in its own place, again and again.
#[derive(Debug, Default)]
pub(crate) struct Drawing {
    lines: usize,
}

impl Drawing {
    /// Draws lines over those that were drawn before, cut to what the terminal has room for.
    pub(crate) fn draw(&mut self, out: &mut impl io::Write, text: &str) -> io::Result<()> {
        let size = size();
        let (width, height) = (usize::from(size.width), usize::from(size.height));
        let mut drawn = String::new();
        if self.lines > 0 {
            // Up to the first of them, and away with all below (ECMA-48, CPL and ED).
            drawn.push_str(&format!("\x1b[{}F\x1b[J", self.lines));
        }
        let lines = text.lines().take(height.saturating_sub(1));
        self.lines = 0;
        for line in lines {
            drawn.extend(line.chars().take(width));
            drawn.push('\n');
            self.lines += 1;
        }
        out.write_all(drawn.as_bytes())?;
        out.flush()
    }
}

//! Signals: those that ask for the end, and those that say that the window has a new size.

use std::io;

#[cfg(unix)]
use tokio::signal::unix::{Signal, SignalKind, signal};

#[cfg(unix)]
#[derive(Debug)]
pub(crate) struct Signals {
    ends: [(u8, Signal); 4],
    window: Signal,
}

#[cfg(unix)]
impl Signals {
    pub(crate) fn new() -> io::Result<Self> {
        let end = |kind: SignalKind| -> io::Result<_> {
            // Signal numbers are small and positive.
            Ok((kind.as_raw_value() as u8, signal(kind)?))
        };
        Ok(Self {
            ends: [
                end(SignalKind::interrupt())?,
                end(SignalKind::terminate())?,
                end(SignalKind::hangup())?,
                end(SignalKind::quit())?,
            ],
            window: signal(SignalKind::window_change())?,
        })
    }

    /// Waits for the next of them. Cancel safety: none is lost.
    pub(crate) async fn next(&mut self) -> Received {
        let [a, b, c, d] = &mut self.ends;
        tokio::select! {
            _ = a.1.recv() => Received::End(a.0),
            _ = b.1.recv() => Received::End(b.0),
            _ = c.1.recv() => Received::End(c.0),
            _ = d.1.recv() => Received::End(d.0),
            _ = self.window.recv() => Received::Window,
        }
    }
}

impl Signals {
    /// Waits for one that ends the tool, and gives its number. Cancel safety: none is lost.
    pub(crate) async fn end(&mut self) -> u8 {
        loop {
            if let Received::End(number) = self.next().await {
                return number;
            }
        }
    }
}

/// What ends the tool where there are no signals, and a look at the window from time to time.
#[cfg(not(unix))]
#[derive(Debug)]
pub(crate) struct Signals(tokio::time::Interval);

#[cfg(not(unix))]
impl Signals {
    pub(crate) fn new() -> io::Result<Self> {
        let period = std::time::Duration::from_millis(500);
        Ok(Self(tokio::time::interval(period)))
    }

    pub(crate) async fn next(&mut self) -> Received {
        tokio::select! {
            // 2 is what an interrupt is called elsewhere.
            _ = tokio::signal::ctrl_c() => Received::End(2),
            _ = self.0.tick() => Received::Window,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Received {
    /// The tool is to end; the signal's number.
    End(u8),
    /// The window may have another size.
    Window,
}

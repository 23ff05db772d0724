//! What went through a WebSocket: in flow its messages, out come counts.

use std::time::{Duration, Instant};

use crate::session::Message;

/// What went through the WebSocket of a session, so far. Two of them can be added.
///
/// ```
/// # kubewire::example(|pod| pod.container("main", ["sleep", "infinity"]), async |client| {
/// let mut child = client.pod("default", "web-0").exec(["echo", "hello"]).spawn().await?;
/// assert!(child.wait().await?.success());
/// assert!(child.stats().received > 6); // "hello\n" and a Status, each with its channel
/// # Ok(())
/// # });
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct SessionStats {
    /// Bytes of the messages that were sent, or wait for the socket to take them; the byte of a
    /// channel counts, the header of a frame does not.
    pub sent: u64,
    /// Messages that were sent, signs of life included.
    pub sent_messages: u64,
    /// Bytes of the messages that arrived.
    pub received: u64,
    /// Messages that arrived, signs of life included.
    pub received_messages: u64,
    /// For how long the peer was held back, as something that had arrived was not read.
    pub held_back: Duration,
}

impl std::ops::AddAssign for SessionStats {
    fn add_assign(&mut self, other: Self) {
        self.sent += other.sent;
        self.sent_messages += other.sent_messages;
        self.received += other.received;
        self.received_messages += other.received_messages;
        self.held_back += other.held_back;
    }
}

#[derive(Debug, Default)]
pub(super) struct Counts {
    counted: SessionStats,
    held_since: Option<Instant>,
}

impl Counts {
    pub(super) fn at(&self, now: Instant) -> SessionStats {
        let mut stats = self.counted;
        stats.held_back += self
            .held_since
            .map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
        stats
    }

    #[inline]
    pub(super) fn sent(&mut self, bytes: usize) {
        self.counted.sent += bytes as u64;
        self.counted.sent_messages += 1;
    }

    #[inline]
    pub(super) fn received(&mut self, message: &Message) {
        let bytes = match message {
            Message::Text(bytes)
            | Message::Binary(bytes)
            | Message::Ping(bytes)
            | Message::Pong(bytes) => bytes.len(),
            Message::Close(close) => close.as_ref().map_or(0, |close| 2 + close.reason.len()),
        };
        self.counted.received += bytes as u64;
        self.counted.received_messages += 1;
    }

    pub(super) fn hold(&mut self, now: Instant, held: bool) {
        if let Some(since) = self.held_since.take() {
            self.counted.held_back += now.saturating_duration_since(since);
        }
        self.held_since = held.then_some(now);
    }
}

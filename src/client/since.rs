//! From when on a log is read: in flows a time in any of the caller's types, out comes what the
//! server is asked for.

use std::time::{Duration, SystemTime};

use crate::{session::logs::LogConfig, wire::stamp::Stamp};

/// From when on a log is read: a time ago, by a [`Duration`], or an instant by the node's clock, by
/// a [`SystemTime`], a [`Stamp`] or a `jiff::Timestamp`.
///
/// ```
/// use kubewire::logs::Since;
/// use std::time::{Duration, SystemTime};
///
/// let lately: Since = Duration::from_secs(600).into();
/// let today: Since = SystemTime::now().into();
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Since(When);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum When {
    /// Seconds, at least 1: the server knows no parts of them.
    Ago(u64),
    At(Stamp),
}

/// Rounded up to whole seconds, of which there is at least one.
impl Since {
    pub(super) fn set(self, config: &mut LogConfig) {
        (config.since_seconds, config.since_time) = match self.0 {
            When::Ago(seconds) => (Some(seconds), None),
            When::At(time) => (None, Some(time)),
        };
    }
}

impl From<Duration> for Since {
    fn from(ago: Duration) -> Self {
        let part = u64::from(ago.subsec_nanos() > 0);
        Self(When::Ago(ago.as_secs().saturating_add(part).max(1)))
    }
}

impl From<Stamp> for Since {
    fn from(time: Stamp) -> Self {
        Self(When::At(time))
    }
}

impl From<SystemTime> for Since {
    fn from(time: SystemTime) -> Self {
        Stamp::from(time).into()
    }
}

impl From<jiff::Timestamp> for Since {
    fn from(time: jiff::Timestamp) -> Self {
        // Before 1970 both parts are negative.
        SystemTime::from(time).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_whole_seconds_and_at_least_one() {
        for (ago, seconds) in [
            (Duration::ZERO, 1),
            (Duration::from_millis(1), 1),
            (Duration::from_millis(1001), 2),
            (Duration::from_secs(600), 600),
            (Duration::MAX, u64::MAX),
        ] {
            assert_eq!(Since::from(ago).0, When::Ago(seconds));
        }
    }

    #[test]
    fn instants_are_the_same_from_every_type() {
        for text in [
            "2026-11-22T01:55:55.156900177Z",
            "1970-01-01T00:00:00Z",
            "1969-12-31T23:59:58.25Z",
        ] {
            let stamp = Stamp::parse(text.as_bytes()).unwrap();
            let time: jiff::Timestamp = text.parse().unwrap();
            assert_eq!(Since::from(time), Since::from(stamp));
            assert_eq!(Since::from(SystemTime::from(time)), Since::from(stamp));
        }
    }
}

//! Instants in the future, however far.
//!
//! In go delays that a peer or a user chose, [`Duration::MAX`] for "never" among them; out come
//! instants, which no such delay overflows.

use std::time::{Duration, Instant};

/// What is as good as never: 30 years.
const NEVER: Duration = Duration::from_secs(30 * 365 * 86_400);

/// The instant so long after `from`.
pub(crate) fn later(from: Instant, delay: Duration) -> Instant {
    from.checked_add(delay.min(NEVER)).unwrap_or(from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_delay_overflows() {
        let now = Instant::now();
        assert_eq!(
            later(now, Duration::from_secs(7)),
            now + Duration::from_secs(7)
        );
        assert_eq!(later(now, Duration::MAX), now + NEVER);
        assert_eq!(later(now + NEVER, Duration::MAX), now + 2 * NEVER);
    }
}

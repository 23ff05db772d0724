//! How long to wait before another attempt.
//!
//! In goes a failure count and a random number from outside; out comes a delay that grows to a
//! bound, spread so that clients that failed together do not come back together.

use std::time::Duration;

use crate::limits;

/// Delays that double from [`RETRY_FIRST`](limits::RETRY_FIRST) to
/// [`RETRY_MOST`](limits::RETRY_MOST), each cut at random by up to half.
#[derive(Debug, Clone)]
pub(super) struct Backoff {
    failures: u32,
    random: u64,
}

impl Backoff {
    /// `seed` decides all that is random here; the same seed gives the same delays.
    pub(super) fn new(seed: u64) -> Self {
        Self {
            failures: 0,
            random: seed,
        }
    }

    /// The delay after another failure.
    pub(super) fn next(&mut self) -> Duration {
        let doubled = limits::RETRY_FIRST.saturating_mul(1 << self.failures.min(16));
        self.failures = self.failures.saturating_add(1);
        let most = doubled.min(limits::RETRY_MOST);
        most / 2 + self.within(most / 2)
    }

    pub(super) fn failures(&self) -> u32 {
        self.failures
    }

    pub(super) fn reset(&mut self) {
        self.failures = 0;
    }

    /// So many of them do not count any more.
    pub(super) fn forget(&mut self, failures: u32) {
        self.failures = self.failures.saturating_sub(failures);
    }

    /// A random part of `most`.
    pub(super) fn within(&mut self, most: Duration) -> Duration {
        // SplitMix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, 2014).
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        let micros = u64::try_from(most.as_micros()).unwrap_or(u64::MAX);
        Duration::from_micros(mixed % micros.max(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_grow_to_the_bound_and_are_spread() {
        let mut one = Backoff::new(1);
        let mut two = Backoff::new(2);
        let delays: Vec<_> = (0..40).map(|_| (one.next(), two.next())).collect();
        for (index, (a, b)) in delays.iter().enumerate() {
            let doubled = limits::RETRY_FIRST.saturating_mul(1 << index.min(16));
            let most = doubled.min(limits::RETRY_MOST);
            for delay in [a, b] {
                assert!((most / 2..=most).contains(delay), "{index}: {delay:?}");
            }
            assert_ne!(a, b);
        }
        one.reset();
        assert!(one.next() <= limits::RETRY_FIRST);
    }
}

//! Which lines of a log that is read again were delivered before.
//!
//! In go the stamps of the lines that are delivered, and, after a cut, those of the lines that
//! the server sends again; out comes which of these are new, and whether some may be missing.

use std::collections::VecDeque;

use crate::{limits, wire::stamp::Stamp};

/// What a line is that comes after a cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Seen {
    /// It was delivered.
    Delivered,
    /// It stands before those that were delivered last.
    Before,
    /// It stands there too, if the line that was delivered last comes again behind it; else it is
    /// new.
    Doubtful,
    /// It was never delivered.
    New,
}

/// The stamps of the lines delivered last.
///
/// A stamp is no name: several lines may have the same, and as stdout and stderr are stamped
/// before they are ordered, a line may be older than the one before it. So stamps are counted.
/// Nor does it tell new from old, for a clock may step back: a log is read in the order in which it
/// was written, so that all is new behind the line that was delivered last.
#[derive(Debug, Default)]
pub(super) struct Replay {
    /// Stamps in the order of delivery, and how many lines in a row had each.
    delivered: VecDeque<(Stamp, u32)>,
    /// The earliest and the latest of the stamps before those.
    forgotten: Option<(Stamp, Stamp)>,
    /// Whether lines before the first that was delivered were left out: they may come after a cut.
    partial: bool,
    /// While lines come again: how many of each stamp are to be dropped, in the order of stamps.
    expected: Vec<(Stamp, u32)>,
    /// While it has not come again: the line that was delivered last before the cut.
    last: Option<Stamp>,
}

impl Replay {
    /// Before the first line; `partial` says that lines before it are left out.
    pub(super) fn new(partial: bool) -> Self {
        Self {
            partial,
            ..Self::default()
        }
    }

    #[inline]
    pub(super) fn deliver(&mut self, stamp: Stamp) {
        if let Some((last, count)) = self.delivered.back_mut()
            && *last == stamp
        {
            *count += 1;
            return;
        }
        if self.delivered.len() == limits::LOG_STAMPS
            && let Some((oldest, _)) = self.delivered.pop_front()
        {
            let (first, last) = self.forgotten.unwrap_or((oldest, oldest));
            self.forgotten = Some((first.min(oldest), last.max(oldest)));
        }
        self.delivered.push_back((stamp, 1));
    }

    /// From when on to ask for lines again; `None` if none was delivered.
    pub(super) fn since(&self) -> Option<Stamp> {
        self.delivered.iter().map(|(stamp, _)| *stamp).min()
    }

    /// The log is read again from [`since`](Self::since).
    pub(super) fn begin(&mut self) {
        self.last = self.delivered.back().map(|(stamp, _)| *stamp);
        self.expected = self.delivered.iter().copied().collect();
        self.expected.sort_unstable();
        self.expected.dedup_by(|next, kept| {
            let same = next.0 == kept.0;
            if same {
                kept.1 += next.1;
            }
            same
        });
    }

    /// Whether the line that was delivered last before the cut has come again, or there was none,
    /// or it was given up.
    pub(super) fn has_caught_up(&self) -> bool {
        self.last.is_none()
    }

    /// The line that was delivered last, this one, does not come again: all is new.
    pub(super) fn give_up(&mut self) -> Option<Stamp> {
        self.last.take()
    }

    #[inline]
    pub(super) fn see(&mut self, stamp: Stamp) -> Seen {
        let (Some(last), Some((first, _))) = (self.last, self.expected.first()) else {
            return Seen::New;
        };
        match self.expected.binary_search_by_key(&stamp, |(s, _)| *s) {
            Ok(at) if self.expected[at].1 > 0 => {
                self.expected[at].1 -= 1;
                if stamp == last && self.expected[at].1 == 0 {
                    self.last = None;
                }
                Seen::Delivered
            }
            // Of the second that the server starts with; or one of those that were forgotten, for
            // the oldest that is remembered may have been late itself.
            _ if stamp < *first => Seen::Before,
            _ if self
                .forgotten
                .is_some_and(|(from, to)| from <= stamp && stamp <= to) =>
            {
                Seen::Before
            }
            // Where the clock has stepped back, lines that were left out may look new.
            _ if self.partial => Seen::Doubtful,
            // All lines before the last were delivered: that one has been rotated away.
            _ => Seen::New,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(nanos: u32) -> Stamp {
        Stamp::from_unix(100, nanos).unwrap()
    }

    impl Replay {
        fn is_known(&mut self, stamp: Stamp) -> bool {
            matches!(self.see(stamp), Seen::Delivered | Seen::Before)
        }
    }

    fn new_ones(delivered: &[u32], again: &[u32]) -> Vec<u32> {
        let mut replay = Replay::default();
        delivered.iter().for_each(|n| replay.deliver(at(*n)));
        replay.begin();
        let new = again.iter().filter(|n| !replay.is_known(at(**n)));
        new.copied().collect()
    }

    #[test]
    fn lines_delivered_before_are_known() {
        assert_eq!(new_ones(&[5, 6, 7], &[1, 2, 5, 6, 7, 8, 9]), [8, 9]);
        assert_eq!(new_ones(&[5, 6, 7], &[8]), [8]);
        assert_eq!(new_ones(&[], &[1, 2]), [1, 2]);
    }

    #[test]
    fn of_equal_stamps_as_many_are_known_as_were_delivered() {
        assert_eq!(new_ones(&[5, 5], &[5, 5, 5, 5, 6]), [5, 5, 6]);
        assert_eq!(new_ones(&[5, 6, 5], &[5, 6, 5, 5]), [5]);
    }

    #[test]
    fn a_line_out_of_order_is_new_even_if_later_ones_are_known() {
        assert_eq!(new_ones(&[1, 5, 7], &[1, 5, 7, 6, 8]), [6, 8]);
    }

    #[test]
    fn a_late_line_that_is_remembered_does_not_bring_back_those_that_are_forgotten() {
        let mut replay = Replay::default();
        let many = limits::LOG_STAMPS as u32;
        // The third is late, and is the oldest that is remembered.
        let delivered: Vec<_> = [10, 20, 5].into_iter().chain(100..99 + many).collect();
        delivered.iter().for_each(|n| replay.deliver(at(*n)));
        assert_eq!(replay.since(), Some(at(5)));
        replay.begin();
        let again = delivered.iter().filter(|n| !replay.is_known(at(**n)));
        assert_eq!(again.count(), 0);
        assert!(!replay.is_known(at(1000)));
    }

    #[test]
    fn behind_the_last_line_all_is_new_even_if_the_clock_stepped_back() {
        let at = |second| Stamp::from_unix(second, 0).unwrap();
        let mut replay = Replay::default();
        let delivered: Vec<_> = (1000..1300).chain(700..705).collect();
        delivered.iter().for_each(|s| replay.deliver(at(*s)));
        assert_eq!(replay.since(), Some(at(700)));
        replay.begin();
        let again = delivered.iter().copied().chain(705..710);
        let new: Vec<_> = again.filter(|s| !replay.is_known(at(*s))).collect();
        assert_eq!(new, (705..710).collect::<Vec<_>>());
    }

    #[test]
    fn behind_a_clock_that_stepped_back_a_rotated_log_is_new() {
        let at = |second| Stamp::from_unix(second, 0).unwrap();
        let delivered = || (1000..1300).chain(700..705);
        // Where only the last lines were asked for, it may be one of those before.
        for (partial, first) in [(false, Seen::New), (true, Seen::Doubtful)] {
            let mut replay = Replay::new(partial);
            delivered().for_each(|s| replay.deliver(at(s)));
            replay.begin();
            assert!((705..710).all(|s| replay.see(at(s)) == first));
            assert!(!replay.has_caught_up());
            assert_eq!(replay.give_up(), Some(at(704)));
            assert!((705..710).all(|s| replay.see(at(s)) == Seen::New));
            // Nothing comes twice where it is not rotated.
            let mut replay = Replay::new(partial);
            delivered().for_each(|s| replay.deliver(at(s)));
            replay.begin();
            assert!(delivered().all(|s| replay.is_known(at(s))));
            assert!(replay.has_caught_up() && replay.give_up().is_none());
        }
    }

    #[test]
    fn the_memory_is_bounded() {
        let mut replay = Replay::default();
        (0..10_000).for_each(|n| replay.deliver(at(n)));
        assert_eq!(replay.since(), Some(at(10_000 - limits::LOG_STAMPS as u32)));
        replay.begin();
        assert!((0..10_000).all(|n| replay.is_known(at(n))));
        assert!(!replay.is_known(at(10_000)));
    }
}

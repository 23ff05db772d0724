//! Lines out of readings of a log: each once, without stamps.
//!
//! In flow the chunks of one reading after another; out come the lines that were not delivered
//! before, the text of the kubelet, and where lines may be missing. A line that was cut after some
//! of its pieces were delivered goes on there in the next reading.

use std::collections::VecDeque;

use bytes::{Buf, Bytes};

use super::{
    LogConfig, LogLine, LogUpdate,
    replay::{Replay, Seen},
};
use crate::{
    error::text,
    limits,
    wire::{
        line::{LineEnd, LineSplitter},
        stamp::Stamp,
    },
};

/// What becomes of the line whose pieces arrive.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Open {
    #[default]
    No,
    /// It was delivered before, or is not wanted.
    Skipped,
    /// Whether it is wanted is not known yet.
    Held,
    /// The kubelet's text.
    Notice,
    /// So many of its bytes have been delivered.
    Delivered { stamp: Option<Stamp>, bytes: usize },
}

/// What is known of one reading alone.
#[derive(Debug, Default)]
struct Reading {
    /// Whether only the last lines were asked for, so that others may come from an earlier time on.
    tailed: bool,
    /// Whether the line that was delivered last is not among those, and what came is kept back.
    missed: bool,
    /// Whether it may stand before those: so many came.
    many: bool,
    /// Lines with their stamps, of which it is not known yet whether they are new.
    held: VecDeque<(Bytes, LineEnd)>,
    held_bytes: usize,
    /// Lines may be missing behind the one with this stamp, which is to be told.
    gap: Option<Stamp>,
    open: Open,
    /// The last line, without a newline: whole only if the log really ends there.
    tail: Option<LogLine>,
    /// The last text of the kubelet.
    notice: Option<String>,
    /// Bytes of such text that have been told.
    told: usize,
}

impl Reading {
    fn drop_held(&mut self) {
        self.held.clear();
        self.held_bytes = 0;
    }
}

#[derive(Debug)]
pub(super) struct Lines {
    splitter: LineSplitter,
    /// Whether lines have stamps.
    resume: bool,
    since: Option<Stamp>,
    replay: Replay,
    reading: Reading,
    /// The last text of the kubelet that was told since a line was delivered: readings repeat it.
    said: Option<String>,
    /// A line that was cut when so many of its bytes had been delivered.
    torn: Option<(Stamp, usize)>,
    /// Bytes that may still be delivered.
    left: Option<u64>,
    /// Bytes of lines that have been delivered.
    delivered: u64,
}

impl Lines {
    pub(super) fn new(config: &LogConfig) -> Self {
        Self {
            splitter: LineSplitter::new(config.max_line.max(MIN_LINE)),
            resume: config.resume,
            since: config.since_time,
            // What is from before `since_time` is known by its stamp.
            replay: Replay::new(config.tail_lines.is_some() || config.since_seconds.is_some()),
            reading: Reading::default(),
            said: None,
            torn: None,
            left: config.limit_bytes,
            delivered: 0,
        }
    }

    /// Another reading begins, of the last lines alone or not; what is left of the one before will
    /// come again.
    pub(super) fn begin(&mut self, tailed: bool) {
        if let Open::Delivered { stamp, bytes } = self.reading.open {
            self.tear(stamp, bytes);
        }
        self.reading = Reading {
            tailed,
            ..Reading::default()
        };
        self.splitter.reset();
        self.replay.begin();
    }

    /// Whether lines are held back because the one that was delivered last has not come again.
    pub(super) fn is_in_doubt(&self) -> bool {
        !self.reading.held.is_empty() && !self.replay.has_caught_up()
    }

    /// If the line that was delivered last has not come again, it never will: what is held back
    /// is new, and there may have been more. Of the last lines alone that does not show.
    pub(super) fn give_up(&mut self) {
        if self.reading.tailed {
            self.reading.missed = !self.replay.has_caught_up();
            return;
        }
        let Some(last) = self.replay.give_up() else {
            return;
        };
        self.reading.gap = Some(last);
    }

    /// What was missed is of another instance, and comes again.
    pub(super) fn forget_missed(&mut self) {
        if std::mem::take(&mut self.reading.missed) {
            self.reading.drop_held();
        }
    }

    /// As [`give_up`](Self::give_up), where nothing more is asked for that could tell.
    pub(super) fn conclude(&mut self) {
        self.reading.tailed = false;
        self.give_up();
    }

    /// What comes is the log of another instance.
    pub(super) fn next_instance(&mut self) {
        self.replay = Replay::default();
        self.reading.open = Open::No;
        self.torn = None;
    }

    pub(super) fn push(&mut self, chunk: Bytes) {
        self.splitter.push(chunk);
    }

    /// The reading has ended, whether in order or not.
    pub(super) fn finish(&mut self) {
        self.splitter.finish();
    }

    /// The next line or text, and whether the bound on bytes is reached. `may_be_cut` says that
    /// an end of the reading need not be that of the log.
    pub(super) fn next(&mut self, may_be_cut: bool) -> Option<(LogUpdate, bool)> {
        loop {
            let held = self.next_held();
            if held.is_some() {
                return held;
            }
            if self.reading.missed {
                return None;
            }
            let line = self.splitter.next_line()?;
            let (bytes, end) = (line.to_bytes(), line.end);
            if let Some(update) = self.line(bytes, end, may_be_cut) {
                return Some(update);
            }
        }
    }

    /// The same of what was held back and is no longer in doubt.
    pub(super) fn next_held(&mut self) -> Option<(LogUpdate, bool)> {
        if let Some(after) = self.reading.gap.take() {
            return Some((LogUpdate::Gap { after }, false));
        }
        while self.replay.has_caught_up()
            && let Some((bytes, end)) = self.reading.held.pop_front()
        {
            self.reading.held_bytes -= bytes.len();
            // What is held begins with a line's beginning, also if that line has not ended.
            if self.reading.open == Open::Held {
                self.reading.open = Open::No;
            }
            let update = self.line(bytes, end, false);
            if update.is_some() {
                return update;
            }
        }
        None
    }

    /// What a line is: the container's, new or known, or the kubelet's.
    fn line(
        &mut self,
        mut bytes: Bytes,
        end: LineEnd,
        may_be_cut: bool,
    ) -> Option<(LogUpdate, bool)> {
        if self.reading.open == Open::No {
            self.reading.open = self.begin_line(&mut bytes, end);
        }
        let open = self.reading.open;
        if end != LineEnd::Piece {
            self.reading.open = Open::No;
        }
        match open {
            Open::No | Open::Skipped => None,
            Open::Held => {
                self.reading.held_bytes += bytes.len();
                self.reading.held.push_back((bytes, end));
                let is_full = self.reading.held_bytes > limits::LOG_HELD;
                self.reading.many =
                    is_full || self.reading.held.len() >= limits::LOG_AGAIN as usize;
                if is_full || self.reading.many && self.reading.tailed {
                    self.give_up();
                }
                None
            }
            Open::Notice => {
                // The kubelet's text ends a body in order; a cut may fall into a stamp.
                if end == LineEnd::Body && may_be_cut && might_be_stamp(&bytes) {
                    return None;
                }
                let text = text::line(&bytes, limits::SERVER_TEXT);
                if text.is_empty() || self.reading.told >= limits::SERVER_TEXT {
                    return None;
                }
                self.reading.told += text.len();
                self.reading.notice = Some(text.clone());
                let is_new = self.said.replace(text.clone()).as_ref() != Some(&text);
                is_new.then_some((LogUpdate::Notice(text), false))
            }
            Open::Delivered {
                stamp,
                bytes: before,
            } => {
                self.said = None;
                let skipped = self.skip_torn(stamp, &mut bytes);
                let before = before + skipped;
                if end == LineEnd::Newline {
                    self.torn = None;
                    if let Some(stamp) = stamp {
                        self.replay.deliver(stamp);
                    }
                }
                let after = before + bytes.len();
                if end != LineEnd::Body {
                    self.delivered += bytes.len() as u64 + u64::from(end == LineEnd::Newline);
                }
                let line = LogLine { stamp, bytes, end };
                match end {
                    LineEnd::Newline => {}
                    LineEnd::Piece => {
                        self.reading.open = Open::Delivered {
                            stamp,
                            bytes: after,
                        };
                        if line.bytes.is_empty() {
                            return None;
                        }
                    }
                    LineEnd::Body => {
                        self.tear(stamp, before);
                        self.reading.tail = Some(line);
                        return None;
                    }
                }
                Some(self.bounded(line))
            }
        }
    }

    /// Takes off what was delivered of this line before it was cut.
    fn skip_torn(&mut self, stamp: Option<Stamp>, bytes: &mut Bytes) -> usize {
        match &mut self.torn {
            Some((torn, left)) if Some(*torn) == stamp => {
                let skipped = bytes.len().min(*left);
                bytes.advance(skipped);
                *left -= skipped;
                skipped
            }
            _ => 0,
        }
    }

    /// Remembers how much of a line was delivered that has been cut.
    fn tear(&mut self, stamp: Option<Stamp>, delivered: usize) {
        let Some(stamp) = stamp else { return };
        let left = self.torn.filter(|(torn, _)| *torn == stamp);
        let delivered = delivered + left.map_or(0, |(_, left)| left);
        if delivered > 0 {
            self.torn = Some((stamp, delivered));
        }
    }

    /// Reads and takes off the stamp.
    fn begin_line(&mut self, bytes: &mut Bytes, end: LineEnd) -> Open {
        if !self.resume {
            return Open::Delivered {
                stamp: None,
                bytes: 0,
            };
        }
        let Some((stamp, used)) = Stamp::parse_prefix(bytes) else {
            return Open::Notice;
        };
        // `k8s.io/kubernetes/pkg/kubelet/kuberuntime/logs/logs.go`: stamp, space, text.
        match bytes.get(used) {
            Some(b' ') => {}
            None if end == LineEnd::Body => return Open::Skipped,
            _ => return Open::Notice,
        }
        if self.since.is_some_and(|since| stamp < since) {
            return Open::Skipped;
        }
        match self.replay.see(stamp) {
            Seen::Delivered => {
                self.reading.drop_held();
                return Open::Skipped;
            }
            Seen::Before => return Open::Skipped,
            Seen::Doubtful => return Open::Held,
            // It is told first that the one before it is missing.
            Seen::New if !self.replay.has_caught_up() => {
                if !self.reading.tailed {
                    self.give_up();
                }
                return Open::Held;
            }
            Seen::New => bytes.advance(used + 1),
        }
        Open::Delivered {
            stamp: Some(stamp),
            bytes: 0,
        }
    }

    /// Keeps to the bound on bytes; says whether it is reached.
    fn bounded(&mut self, mut line: LogLine) -> (LogUpdate, bool) {
        let Some(left) = self.left.as_mut() else {
            return (LogUpdate::Line(line), false);
        };
        let newline = u64::from(line.end == LineEnd::Newline);
        let len = line.bytes.len() as u64 + newline;
        if len > *left {
            line.bytes
                .truncate(usize::try_from(*left).unwrap_or(usize::MAX));
            line.end = LineEnd::Body;
        }
        *left = left.saturating_sub(len);
        (LogUpdate::Line(line), *left == 0)
    }

    /// The last line, which has no newline and never will, and whether the bound is reached.
    pub(super) fn finish_line(&mut self) -> Option<(LogUpdate, bool)> {
        let tail = self.reading.tail.take()?;
        Some(self.bounded(tail))
    }

    /// How far the log has been read: the bytes delivered, and the last line.
    pub(super) fn reach(&self) -> u64 {
        let tail = self.reading.tail.as_ref();
        self.delivered + tail.map_or(0, |line| line.bytes.len() as u64 + 1)
    }

    /// Whether only the last lines were asked for.
    pub(super) fn is_tailed(&self) -> bool {
        self.reading.tailed
    }

    /// Whether the last lines were read, and what was delivered last is not among them.
    pub(super) fn has_missed(&self) -> bool {
        self.reading.missed
    }

    /// After that: what is held back is new, unless the line that was delivered last may still
    /// come from an earlier time on. Whether there is anything.
    pub(super) fn accept(&mut self) -> bool {
        std::mem::take(&mut self.reading.missed)
            && !self.reading.many
            && !self.reading.held.is_empty()
    }

    /// Whether the line that was delivered last has come again in this reading.
    pub(super) fn has_caught_up(&self) -> bool {
        self.replay.has_caught_up()
    }

    /// From when on to ask for lines again; `None` if none was delivered.
    pub(super) fn since(&self) -> Option<Stamp> {
        self.replay.since()
    }

    /// What the kubelet wrote in this reading.
    pub(super) fn take_notice(&mut self) -> Option<String> {
        self.reading.notice.take()
    }
}

/// A line must hold a stamp and something more.
const MIN_LINE: usize = 64;

/// Whether the text could be the start of a stamp that was cut.
fn might_be_stamp(text: &[u8]) -> bool {
    let of_stamp = |b: &u8| b.is_ascii_digit() || b"-T:.Z+".contains(b);
    text.len() < 36 && text.iter().all(of_stamp)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// It is held back before it has ended, and what is held back comes out piece by piece.
    #[test]
    fn a_long_line_behind_one_that_was_rotated_away_comes_whole() {
        let config = LogConfig {
            max_line: MIN_LINE,
            ..LogConfig::default()
        };
        let mut lines = Lines::new(&config);
        lines.push("2026-11-22T01:00:00Z before\n".into());
        assert!(lines.next(true).is_some() && lines.next(true).is_none());
        lines.begin(false);
        let (head, rest) = ("2026-11-22T01:00:09Z ", "x".repeat(3 * MIN_LINE));
        lines.push([head, &rest].concat().into());
        let Some((LogUpdate::Gap { .. }, _)) = lines.next(true) else {
            panic!("a line is missing");
        };
        lines.push("\n".into());
        let mut text = Vec::new();
        while let Some((update, _)) = lines.next(true) {
            match update {
                LogUpdate::Line(line) => text.extend_from_slice(&line.bytes),
                update => panic!("{update:?}"),
            }
        }
        assert_eq!(text, rest.as_bytes());
    }
}

//! Log lines out of the chunks of a response body.
//!
//! In go the chunks as they arrive, cut anywhere; out come [`Line`]s, each borrowed from a chunk. A line
//! is copied only when it straddles two chunks.
//! Bytes stay bytes: nothing here assumes UTF-8.

use bytes::{Bytes, BytesMut};
use memchr::memchr;

/// How a [`Line`] ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LineEnd {
    /// With a newline, which is not among the line's bytes.
    Newline,
    /// It did not: this is a piece of a line longer than the bound, and more of it follows.
    Piece,
    /// With the end of the body: the last line, without a newline.
    Body,
}

/// One line, or a piece of a line that is longer than the splitter's bound.
///
/// ```
/// use kubewire::wire::line::LineSplitter;
///
/// let mut splitter = LineSplitter::new(1024);
/// splitter.push("one\r\ntwo".into());
/// let line = splitter.next_line().expect("one is whole");
/// assert_eq!(line.bytes, b"one\r");
/// let kept = line.to_bytes();
/// assert!(splitter.next_line().is_none());
/// assert_eq!(kept, "one\r");
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Line<'a> {
    /// The bytes without the newline. A carriage return before it stays.
    pub bytes: &'a [u8],
    /// How the line ended.
    pub end: LineEnd,
    /// What the bytes are in.
    whole: &'a Bytes,
}

impl Line<'_> {
    /// The bytes, to be kept: they share the buffer that they arrived in.
    pub fn to_bytes(self) -> Bytes {
        self.whole.slice_ref(self.bytes)
    }
}

/// Splits a body into lines.
///
/// Every way to cut the same body into chunks gives the same lines, pieces included: a line
/// longer than the bound comes as pieces of exactly the bound, the last of them shorter.
///
/// ```
/// use kubewire::wire::line::{LineEnd, LineSplitter};
///
/// let mut splitter = LineSplitter::new(1024);
/// splitter.push("one\ntw".into());
/// assert_eq!(splitter.next_line().unwrap().bytes, b"one");
/// assert!(splitter.next_line().is_none());
/// splitter.push("o".into());
/// splitter.finish();
/// let line = splitter.next_line().unwrap();
/// assert_eq!((line.bytes, line.end), (&b"two"[..], LineEnd::Body));
/// ```
#[derive(Debug)]
pub struct LineSplitter {
    /// The last chunk.
    chunk: Bytes,
    /// So much of it has been handed out.
    at: usize,
    /// The last line that straddled two chunks.
    copied: Bytes,
    /// The start of a line whose end had not arrived; never more than `bound`.
    carry: BytesMut,
    bound: usize,
    finished: bool,
}

impl LineSplitter {
    /// A splitter whose lines have at most `bound` bytes; at least 1 is taken.
    pub fn new(bound: usize) -> Self {
        Self {
            chunk: Bytes::new(),
            at: 0,
            copied: Bytes::new(),
            carry: BytesMut::new(),
            bound: bound.max(1),
            finished: false,
        }
    }

    /// Takes the next chunk of the body.
    ///
    /// Take out all lines first: a chunk that meets the unread rest of another is copied behind
    /// it.
    pub fn push(&mut self, chunk: Bytes) {
        self.chunk = super::behind(&self.chunk[self.at..], chunk);
        self.at = 0;
    }

    /// The body has ended: what has no newline becomes the last line.
    pub fn finish(&mut self) {
        self.finished = true;
    }

    /// Bytes that have arrived and have not been handed out.
    pub fn buffered(&self) -> usize {
        self.chunk.len() - self.at + self.carry.len()
    }

    /// Forgets what has not been handed out, for the body of another response.
    pub fn reset(&mut self) {
        *self = Self::new(self.bound);
    }

    /// The next line, in the buffer that it arrived in.
    #[inline]
    pub fn next_line(&mut self) -> Option<Line<'_>> {
        let from = self.at;
        let rest = &self.chunk[from..];
        let room = self.bound - self.carry.len();
        let window = &rest[..rest.len().min(room.saturating_add(1))];
        let (len, end) = match memchr(b'\n', window) {
            Some(len) => {
                self.at += len + 1;
                (len, LineEnd::Newline)
            }
            None => self.unended(window.len(), room)?,
        };
        let (whole, bytes) = match self.carry.is_empty() {
            true => (&self.chunk, &self.chunk[from..from + len]),
            false => self.straddling(from, len),
        };
        Some(Line { bytes, end, whole })
    }

    /// What comes without a newline in so many bytes, if it is handed out at all.
    #[cold]
    fn unended(&mut self, len: usize, room: usize) -> Option<(usize, LineEnd)> {
        let (len, end) = if len > room {
            (room, LineEnd::Piece)
        } else if self.finished && self.buffered() > 0 {
            (len, LineEnd::Body)
        } else {
            // The carry grows where it lay, if nobody keeps that line.
            self.copied = Bytes::new();
            self.carry.extend_from_slice(&self.chunk[self.at..]);
            self.chunk = Bytes::new();
            self.at = 0;
            return None;
        };
        self.at += len;
        Some((len, end))
    }

    /// A line of which so many bytes are in this chunk, behind what was kept of others.
    #[cold]
    fn straddling(&mut self, from: usize, len: usize) -> (&Bytes, &[u8]) {
        self.carry.extend_from_slice(&self.chunk[from..from + len]);
        self.copied = self.carry.split().freeze();
        (&self.copied, &self.copied)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn all(chunks: &[&[u8]], bound: usize) -> Vec<(Vec<u8>, LineEnd)> {
        let mut splitter = LineSplitter::new(bound);
        let mut lines = Vec::new();
        for chunk in chunks {
            splitter.push(Bytes::copy_from_slice(chunk));
            while let Some(line) = splitter.next_line() {
                lines.push((line.bytes.to_vec(), line.end));
            }
            assert!(splitter.buffered() <= bound);
        }
        splitter.finish();
        while let Some(line) = splitter.next_line() {
            lines.push((line.bytes.to_vec(), line.end));
        }
        lines
    }

    /// What the splitter should give, said in the plainest way.
    fn model(body: &[u8], bound: usize) -> Vec<(Vec<u8>, LineEnd)> {
        let mut lines = Vec::new();
        let mut rest = body;
        while !rest.is_empty() {
            let (mut line, end) = match rest.iter().position(|b| *b == b'\n') {
                Some(at) => {
                    let line = &rest[..at];
                    rest = &rest[at + 1..];
                    (line, LineEnd::Newline)
                }
                None => (std::mem::take(&mut rest), LineEnd::Body),
            };
            while line.len() > bound {
                lines.push((line[..bound].to_vec(), LineEnd::Piece));
                line = &line[bound..];
            }
            lines.push((line.to_vec(), end));
        }
        lines
    }

    #[test]
    fn a_line_in_one_chunk_shares_its_buffer() {
        let chunk = Bytes::from_static(b"one\ntwo\n");
        let mut splitter = LineSplitter::new(64);
        splitter.push(chunk.clone());
        for at in [0, 4] {
            let line = splitter.next_line().unwrap();
            assert_eq!(line.bytes.as_ptr(), chunk[at..].as_ptr());
            assert_eq!(line.to_bytes().as_ptr(), chunk[at..].as_ptr());
        }
        assert!(splitter.next_line().is_none());
    }

    #[test]
    fn the_last_line_without_a_newline_is_delivered() {
        let body: &[u8] = b"one\ntwo";
        let expected = vec![
            (b"one".to_vec(), LineEnd::Newline),
            (b"two".to_vec(), LineEnd::Body),
        ];
        assert_eq!(all(&[body], 64), expected);
    }

    #[test]
    fn a_line_over_the_bound_comes_in_marked_pieces() {
        let lines = all(&[b"abcdefgh\nabcd\nabcde"], 4);
        let ends: Vec<_> = lines.iter().map(|(_, end)| *end).collect();
        use LineEnd::{Body, Newline, Piece};
        assert_eq!(ends, [Piece, Newline, Newline, Piece, Body]);
    }

    #[test]
    fn a_chunk_behind_an_unread_one_loses_nothing() {
        let mut splitter = LineSplitter::new(64);
        splitter.push("a\nb".into());
        splitter.push("c\n".into());
        assert_eq!(splitter.next_line().unwrap().bytes, b"a");
        assert_eq!(splitter.next_line().unwrap().bytes, b"bc");
    }

    proptest! {
        #[test]
        fn every_split_gives_the_same_lines(
            body in proptest::collection::vec(prop_oneof![Just(b'\n'), Just(b'x'), any::<u8>()], 0..200),
            cuts in proptest::collection::vec(any::<proptest::sample::Index>(), 0..8),
            bound in 1_usize..40,
        ) {
            let mut cuts: Vec<_> = cuts.iter().map(|i| i.index(body.len() + 1)).collect();
            cuts.sort_unstable();
            let mut chunks = Vec::new();
            let mut from = 0;
            for cut in cuts {
                chunks.push(&body[from..cut]);
                from = cut;
            }
            chunks.push(&body[from..]);
            let expected = model(&body, bound);
            prop_assert_eq!(&all(&chunks, bound), &expected);
        }
    }
}

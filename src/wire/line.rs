//! Log lines out of the chunks of a response body.
//!
//! In go the chunks as they arrive, cut anywhere; out come [`Block`]s of whole lines, each one
//! slice of a chunk, or single [`Line`]s. A line is copied only when it straddles two chunks.
//! Bytes stay bytes: nothing here assumes UTF-8.

use bytes::{Bytes, BytesMut};
use memchr::{memchr, memrchr};

/// How a [`Line`] ended.
///
/// ```
/// use kubewire::wire::line::{LineEnd, LineSplitter};
///
/// let mut splitter = LineSplitter::new(4); // no line has more bytes
/// splitter.push("longer\n".into());
/// let mut ends = std::iter::from_fn(|| splitter.next_line()).map(|line| line.end);
/// assert!(ends.eq([LineEnd::Piece, LineEnd::Newline]));
/// ```
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
/// assert_eq!(line.bytes, "one\r");
/// assert!(splitter.next_line().is_none());
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// The bytes without the newline. A carriage return before it stays.
    pub bytes: Bytes,
    /// How the line ended.
    pub end: LineEnd,
}

/// One or more consecutive lines in one buffer.
///
/// Iterating over a block costs a scan for newlines and nothing else; a [`Line`] on its own
/// costs an atomic reference count more.
///
/// ```
/// use kubewire::wire::line::LineSplitter;
///
/// let mut splitter = LineSplitter::new(1024);
/// splitter.push("one\ntwo\nthr".into());
/// let block = splitter.next_block().expect("two lines are whole");
/// assert_eq!(block.bytes(), "one\ntwo\n");
/// assert_eq!(block.lines().count(), 2);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    bytes: Bytes,
    end: LineEnd,
}

impl Block {
    /// The lines, as borrowed slices.
    pub fn lines(&self) -> Lines<'_> {
        Lines {
            rest: Some(&self.bytes),
            end: self.end,
        }
    }

    /// The bytes of all the lines, newlines included.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// How the last line of the block ended.
    pub fn end(&self) -> LineEnd {
        self.end
    }
}

/// The lines of a [`Block`].
///
/// ```
/// use kubewire::wire::line::{LineEnd, LineSplitter};
///
/// let mut splitter = LineSplitter::new(1024);
/// splitter.push("one\ntwo\n".into());
/// let block = splitter.next_block().expect("both are whole");
/// let expected = [(&b"one"[..], LineEnd::Newline), (&b"two"[..], LineEnd::Newline)];
/// assert!(block.lines().eq(expected));
/// ```
#[derive(Debug, Clone)]
pub struct Lines<'a> {
    rest: Option<&'a [u8]>,
    end: LineEnd,
}

impl<'a> Iterator for Lines<'a> {
    type Item = (&'a [u8], LineEnd);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        let rest = self.rest?;
        if let Some(at) = memchr(b'\n', rest) {
            self.rest = (at + 1 < rest.len()).then(|| &rest[at + 1..]);
            return Some((&rest[..at], LineEnd::Newline));
        }
        self.rest = None;
        Some((rest, self.end))
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
/// assert_eq!(splitter.next_line().unwrap().bytes, "one");
/// assert!(splitter.next_line().is_none());
/// splitter.push("o".into());
/// splitter.finish();
/// let line = splitter.next_line().unwrap();
/// assert_eq!((&line.bytes[..], line.end), (&b"two"[..], LineEnd::Body));
/// ```
#[derive(Debug)]
pub struct LineSplitter {
    /// What of the last chunk has not been handed out.
    chunk: Bytes,
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
        if self.chunk.is_empty() {
            self.chunk = chunk;
        } else {
            let mut both = BytesMut::with_capacity(self.chunk.len() + chunk.len());
            both.extend_from_slice(&self.chunk);
            both.extend_from_slice(&chunk);
            self.chunk = both.freeze();
        }
    }

    /// The body has ended: what has no newline becomes the last line.
    pub fn finish(&mut self) {
        self.finished = true;
    }

    /// Bytes that have arrived and have not been handed out.
    pub fn buffered(&self) -> usize {
        self.chunk.len() + self.carry.len()
    }

    /// Forgets what has not been handed out, for the body of another response.
    pub fn reset(&mut self) {
        self.chunk.clear();
        self.carry.clear();
        self.finished = false;
    }

    /// The next line, sharing the buffer that it arrived in.
    pub fn next_line(&mut self) -> Option<Line> {
        let (mut bytes, end) = self.next_raw()?;
        if end == LineEnd::Newline {
            bytes.truncate(bytes.len() - 1);
        }
        Some(Line { bytes, end })
    }

    /// All the whole lines that lie in one buffer, as one block.
    ///
    /// The start of a line that was carried over from the chunk before is completed first and
    /// makes a block of its own.
    pub fn next_block(&mut self) -> Option<Block> {
        if self.carry.is_empty()
            && let Some(whole) = self.whole_lines()
        {
            return Some(Block {
                bytes: self.chunk.split_to(whole),
                end: LineEnd::Newline,
            });
        }
        let (bytes, end) = self.next_raw()?;
        Some(Block { bytes, end })
    }

    /// How many bytes of the chunk are whole lines within the bound.
    fn whole_lines(&self) -> Option<usize> {
        let end = memrchr(b'\n', &self.chunk)? + 1;
        if end <= self.bound {
            return Some(end);
        }
        // Only lines that may exceed the bound need a look of their own, in steps of the bound.
        let mut checked = 0;
        while end - checked > self.bound + 1 {
            match memrchr(b'\n', &self.chunk[checked..checked + self.bound + 1]) {
                Some(at) => checked += at + 1,
                None if checked == 0 => return None,
                None => return Some(checked),
            }
        }
        Some(end)
    }

    /// The next line with its newline, if it has one.
    fn next_raw(&mut self) -> Option<(Bytes, LineEnd)> {
        let room = self.bound - self.carry.len();
        let window = &self.chunk[..self.chunk.len().min(room.saturating_add(1))];
        let (take, end) = match memchr(b'\n', window) {
            Some(at) => (at + 1, LineEnd::Newline),
            None if window.len() > room => (room, LineEnd::Piece),
            None if self.finished && self.buffered() > 0 => (window.len(), LineEnd::Body),
            None => {
                self.carry.extend_from_slice(window);
                self.chunk = Bytes::new();
                return None;
            }
        };
        let taken = self.chunk.split_to(take);
        if self.carry.is_empty() {
            return Some((taken, end));
        }
        self.carry.extend_from_slice(&taken);
        Some((self.carry.split().freeze(), end))
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

    fn all_by_block(chunks: &[&[u8]], bound: usize) -> Vec<(Vec<u8>, LineEnd)> {
        fn take(splitter: &mut LineSplitter, lines: &mut Vec<(Vec<u8>, LineEnd)>) {
            while let Some(block) = splitter.next_block() {
                lines.extend(block.lines().map(|(line, end)| (line.to_vec(), end)));
            }
        }
        let mut splitter = LineSplitter::new(bound);
        let mut lines = Vec::new();
        for chunk in chunks {
            splitter.push(Bytes::copy_from_slice(chunk));
            take(&mut splitter, &mut lines);
        }
        splitter.finish();
        take(&mut splitter, &mut lines);
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
        }
        assert!(splitter.next_line().is_none());
    }

    #[test]
    fn a_block_holds_all_whole_lines_of_a_chunk() {
        let chunk = Bytes::from_static(b"one\n\ntwo\nthr");
        let mut splitter = LineSplitter::new(64);
        splitter.push(chunk.clone());
        let block = splitter.next_block().unwrap();
        assert_eq!(block.bytes(), &chunk[..9]);
        assert_eq!(block.bytes().as_ptr(), chunk.as_ptr());
        assert_eq!(block.lines().count(), 3);
        assert!(splitter.next_block().is_none());
        splitter.push(Bytes::from_static(b"ee\nfour\n"));
        assert_eq!(splitter.next_block().unwrap().bytes(), &b"three\n"[..]);
        assert_eq!(splitter.next_block().unwrap().bytes(), &b"four\n"[..]);
    }

    #[test]
    fn the_last_line_without_a_newline_is_delivered() {
        let body: &[u8] = b"one\ntwo";
        let expected = vec![
            (b"one".to_vec(), LineEnd::Newline),
            (b"two".to_vec(), LineEnd::Body),
        ];
        assert_eq!(all(&[body], 64), expected);
        assert_eq!(all_by_block(&[body], 64), expected);
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
        assert_eq!(splitter.next_line().unwrap().bytes, "a");
        assert_eq!(splitter.next_line().unwrap().bytes, "bc");
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
            prop_assert_eq!(&all_by_block(&chunks, bound), &expected);
        }
    }
}

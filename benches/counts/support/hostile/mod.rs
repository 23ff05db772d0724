//! The worst input that is known for each decoder and session: what comes, and what takes it.

mod client;
mod sessions;
mod wire;

use bytes::Bytes;

pub(crate) type Run = dyn Fn(&mut dyn Iterator<Item = Bytes>) + Sync;
pub(crate) type Pieces = Box<dyn Iterator<Item = Bytes>>;

/// A decoder or session with one input.
pub(crate) struct Row {
    pub(crate) of: &'static str,
    pub(crate) input_is: &'static str,
    /// The input, of at least so many bytes, in pieces as they arrive.
    pub(crate) input: Box<dyn Fn(usize) -> Pieces + Sync>,
    /// Takes it until it is at its end, or nothing more is taken.
    pub(crate) run: Box<Run>,
    /// Bytes that come while memory is measured.
    pub(crate) most: usize,
    /// The most memory that may be held meanwhile.
    pub(crate) bound: usize,
}

/// All of them.
pub(crate) fn rows() -> Vec<Row> {
    let mut rows = wire::rows();
    rows.extend(sessions::rows());
    rows.extend(client::rows());
    rows
}

impl Row {
    /// `start`, then `again` without end, in pieces of `piece` bytes; one that is kept in a few KiB.
    fn new(
        of: &'static str,
        input_is: &'static str,
        start: &[u8],
        again: &[u8],
        piece: usize,
        run: impl Fn(&mut dyn Iterator<Item = Bytes>) + Sync + 'static,
    ) -> Self {
        let (start, again) = (start.to_vec(), again.to_vec());
        let input = move |size| -> Pieces { Box::new(Filled::new(&start, &again, piece, size)) };
        Self {
            of,
            input_is,
            input: Box::new(input),
            run: Box::new(run),
            most: 8 << 20,
            bound: 64 << 10,
        }
    }

    /// Up to a bound all that comes has to be kept; a buffer that grows is there with the old one
    /// for a moment.
    fn kept_to(mut self, bound: usize) -> Self {
        self.most = 2 * bound + (1 << 20);
        self.bound = 2 * bound + bound / 32 + (64 << 10);
        self
    }

    /// A message is parsed whole, into at most so many times its own bytes.
    fn whole(mut self, times: usize) -> Self {
        self.most = 1 << 20;
        self.bound = (times + 1) * self.most + (64 << 10);
        self
    }

    /// Holds no more than this.
    fn within(mut self, bound: usize) -> Self {
        self.bound = bound;
        self
    }

    /// Other pieces than those that repeat.
    fn made_of(mut self, input: impl Fn(usize) -> Pieces + Sync + 'static) -> Self {
        self.input = Box::new(input);
        self
    }
}

/// Bytes that repeat, in pieces.
struct Filled {
    start: Bytes,
    again: Bytes,
    /// How many bytes of `again` make it repeat.
    period: usize,
    at: usize,
    piece: usize,
}

impl Filled {
    fn new(start: &[u8], again: &[u8], piece: usize, size: usize) -> Self {
        let piece = piece.min(size);
        let times = piece / again.len() + 2;
        let start_whole = [start, &again.repeat(times)].concat();
        Self {
            start: start_whole.into(),
            again: again.repeat(times).into(),
            period: again.len(),
            at: 0,
            piece,
        }
        .behind(start.len())
    }

    /// `start` has been followed by what repeats, so that its last piece is whole.
    fn behind(mut self, start: usize) -> Self {
        let pieces = start.div_ceil(self.piece);
        self.start.truncate(pieces * self.piece);
        self.at = (pieces * self.piece - start) % self.period;
        self
    }
}

impl Iterator for Filled {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        if !self.start.is_empty() {
            return Some(self.start.split_to(self.piece));
        }
        let next = self.again.slice(self.at..self.at + self.piece);
        self.at = (self.at + self.piece) % self.period;
        Some(next)
    }
}

//! What readers have yet to be told: in go batches of items, out comes every batch for each reader.
//!
//! A batch is shared by all readers and never copied. The bound is on what is kept for the slowest;
//! one that is behind that has to begin anew. Without readers nothing is kept.

use std::{collections::VecDeque, sync::Arc};

use crate::limits;

#[derive(Debug)]
pub(super) struct Backlog<T> {
    /// Items that are kept for the slowest.
    pub(super) bound: u64,
    batches: VecDeque<Arc<[T]>>,
    /// The number of the first of them: how many items there were before it.
    first: u64,
    /// The number of the item that comes next.
    next: u64,
    /// Every reader has one of these.
    readers: Arc<()>,
}

#[derive(Debug)]
pub(super) struct Cursor<T> {
    batch: Arc<[T]>,
    told: usize,
    /// The number of the batch after this one.
    next: u64,
    _reader: Arc<()>,
}

impl<T> Default for Backlog<T> {
    fn default() -> Self {
        Self {
            bound: limits::MIRROR_BACKLOG,
            batches: VecDeque::new(),
            first: 0,
            next: 0,
            readers: Arc::default(),
        }
    }
}

impl<T> Backlog<T> {
    pub(super) fn push(&mut self, batch: Arc<[T]>) {
        self.next += batch.len() as u64;
        if Arc::strong_count(&self.readers) == 1 {
            self.batches.clear();
            self.first = self.next;
            return;
        }
        self.batches.push_back(batch);
        // The newest stays, however large.
        while self.next - self.first > self.bound && self.batches.len() > 1 {
            let oldest = self.batches.pop_front();
            self.first += oldest.map_or(0, |oldest| oldest.len() as u64);
        }
    }

    /// A reader that is to be told this, and then all that comes from now on.
    pub(super) fn cursor(&self, items: Vec<T>) -> Cursor<T> {
        Cursor {
            batch: items.into(),
            told: 0,
            next: self.next,
            _reader: self.readers.clone(),
        }
    }

    /// Gives a reader that has been told all it has the next batch, if there is one. The error is
    /// how many items it has missed, if it is too far behind.
    pub(super) fn fill(&self, cursor: &mut Cursor<T>) -> Result<bool, u64> {
        if cursor.next == self.next {
            return Ok(false);
        }
        if cursor.next < self.first {
            return Err(self.next - cursor.next);
        }
        // Readers that keep up find theirs at the end.
        let mut begin = self.next;
        for batch in self.batches.iter().rev() {
            begin -= batch.len() as u64;
            if begin == cursor.next {
                cursor.batch = batch.clone();
                cursor.told = 0;
                cursor.next += batch.len() as u64;
                return Ok(true);
            }
        }
        Err(self.next - cursor.next)
    }
}

impl<T: Clone> Cursor<T> {
    #[inline]
    pub(super) fn next(&mut self) -> Option<T> {
        let item = self.batch.get(self.told)?.clone();
        self.told += 1;
        Some(item)
    }
}

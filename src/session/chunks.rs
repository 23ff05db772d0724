//! Bytes that wait, as the slices they came in.
//!
//! In flow payloads, out come payloads, not copied, with one exception: small ones that queue up
//! behind others are put together. A slice keeps the whole buffer alive that it was cut from, so
//! that a queue of small ones would hold many times the memory that it counts.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

/// Payloads below this are put together, in bytes.
const SMALL: usize = 2 << 10;
/// What is put together is closed at this size, in bytes.
const TOGETHER: usize = 16 << 10;

#[derive(Debug, Default)]
pub(super) struct Chunks {
    whole: VecDeque<Bytes>,
    /// Comes after all of `whole`.
    together: BytesMut,
    bytes: usize,
}

impl Chunks {
    pub(super) fn len(&self) -> usize {
        self.bytes
    }

    pub(super) fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    pub(super) fn push(&mut self, payload: Bytes) {
        if payload.is_empty() {
            return;
        }
        let first = self.is_empty();
        self.bytes += payload.len();
        if !first && payload.len() < SMALL {
            self.together.extend_from_slice(&payload);
            if self.together.len() >= TOGETHER {
                self.close();
            }
            return;
        }
        self.close();
        self.whole.push_back(payload);
    }

    fn close(&mut self) {
        if !self.together.is_empty() {
            self.whole.push_back(self.together.split().freeze());
        }
    }

    /// The next payload, of at most `limit` bytes.
    pub(super) fn pop(&mut self, limit: usize) -> Option<Bytes> {
        if self.whole.is_empty() {
            self.close();
        }
        let front = self.whole.front_mut()?;
        let payload = if front.len() > limit {
            front.split_to(limit)
        } else {
            self.whole.pop_front()?
        };
        self.bytes -= payload.len();
        Some(payload)
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_payload_that_is_taken_at_once_is_not_copied() {
        let mut chunks = Chunks::default();
        for payload in [Bytes::from_static(b"small"), Bytes::from(vec![1; 5000])] {
            chunks.push(payload.clone());
            assert_eq!(chunks.pop(usize::MAX).unwrap().as_ptr(), payload.as_ptr());
        }
    }

    #[test]
    fn small_payloads_do_not_keep_large_buffers_alive() {
        let mut chunks = Chunks::default();
        let buffer = Bytes::from(vec![1; 64 << 10]);
        chunks.push(buffer.slice(..100));
        for _ in 0..1000 {
            let buffer = Bytes::from(vec![2; 64 << 10]);
            chunks.push(buffer.slice(..100));
            assert!(buffer.is_unique(), "the queue holds no slice of it");
        }
        assert_eq!(chunks.len(), 100_100);
        assert!(chunks.whole.len() < 10);
    }

    proptest! {
        #[test]
        fn bytes_come_out_as_they_went_in(
            steps in prop::collection::vec((0..5000usize, 1..5000usize, any::<bool>()), 0..40)
        ) {
            let (mut chunks, mut pushed, mut popped) = (Chunks::default(), vec![], vec![]);
            for (step, (length, limit, pop)) in steps.into_iter().enumerate() {
                let payload = vec![step as u8; length];
                pushed.extend_from_slice(&payload);
                chunks.push(payload.into());
                if pop && let Some(payload) = chunks.pop(limit) {
                    prop_assert!((1..=limit).contains(&payload.len()));
                    popped.extend_from_slice(&payload);
                }
                prop_assert_eq!(chunks.len(), pushed.len() - popped.len());
            }
            while let Some(payload) = chunks.pop(usize::MAX) {
                popped.extend_from_slice(&payload);
            }
            prop_assert!(chunks.is_empty());
            prop_assert_eq!(pushed, popped);
        }
    }
}

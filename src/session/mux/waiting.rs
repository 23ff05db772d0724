//! What waits for the readers of all streams: in flow the lengths of single queues, out comes
//! whether they are too much together.

use super::MuxConfig;

#[derive(Debug, Default)]
pub(super) struct Waiting {
    pub(super) bytes: usize,
    /// The same with no more than a share of any stream.
    pub(super) shared: usize,
    /// Streams whose queue is full.
    pub(super) full: usize,
}

impl Waiting {
    /// The queue of a stream had `before` bytes and has `after`.
    #[inline]
    pub(super) fn change(&mut self, config: &MuxConfig, before: usize, after: usize) {
        let (share, bound) = (config.share(), config.receive_buffer);
        self.bytes = self.bytes + after - before;
        self.shared = self.shared + after.min(share) - before.min(share);
        self.full = self.full + usize::from(after >= bound) - usize::from(before >= bound);
    }

    /// Whether nothing should be handed in until more has been read.
    pub(super) fn wants_hold(&self, config: &MuxConfig) -> bool {
        self.full > 0 || self.is_crowded(config)
    }

    /// Whether what waits for all readers together is as much as it may be.
    #[inline]
    pub(super) fn is_crowded(&self, config: &MuxConfig) -> bool {
        self.bytes >= config.receive_total || self.shared >= config.crowd()
    }
}

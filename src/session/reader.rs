//! Whether a reader whose queue is full moves: in flow the times, out comes when to look again.

use std::time::Instant;

/// A reader that holds others back must take something from time to time.
#[derive(Debug, Clone, Copy, Default)]
pub(super) enum Watch {
    /// It holds back nobody.
    #[default]
    Off,
    /// It is looked at then, and may have taken something before.
    Until { at: Instant, moved: bool },
}

impl Watch {
    /// The reader is to be looked at then, unless it is watched already. Whether it was not.
    pub(super) fn begin(&mut self, at: Instant) -> bool {
        let begins = matches!(self, Self::Off);
        if begins {
            *self = Self::Until { at, moved: false };
        }
        begins
    }

    /// The reader has taken something.
    pub(super) fn note(&mut self) {
        if let Self::Until { moved, .. } = self {
            *moved = true;
        }
    }

    pub(super) fn at(&self) -> Option<Instant> {
        match self {
            Self::Off => None,
            Self::Until { at, .. } => Some(*at),
        }
    }

    /// Ends the watch: whether the reader had taken something.
    pub(super) fn take(&mut self) -> bool {
        matches!(std::mem::take(self), Self::Until { moved: true, .. })
    }
}

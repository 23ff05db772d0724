//! The number of a stream.

use std::fmt;

use crate::Role;

/// The number of a stream: 31 bits, odd if the client opened it, even if the server did
/// (section 2.3.2).
///
/// ```
/// use kubewire::{Role, wire::spdy::StreamId};
///
/// assert_eq!(StreamId::new(7).map(StreamId::opener), Some(Role::Client));
/// assert_eq!(StreamId::new(0), None);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(u32);

impl StreamId {
    /// The largest id.
    pub const MAX: u32 = (1 << 31) - 1;

    /// The id in the low 31 bits of `bits`; the highest is reserved and ignored. `None` for zero,
    /// which no stream has.
    pub fn new(bits: u32) -> Option<Self> {
        match bits & Self::MAX {
            0 => None,
            id => Some(Self(id)),
        }
    }

    /// The number.
    pub fn get(self) -> u32 {
        self.0
    }

    /// Who opens streams with such an id.
    pub fn opener(self) -> Role {
        if self.0 % 2 == 1 {
            Role::Client
        } else {
            Role::Server
        }
    }
}

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

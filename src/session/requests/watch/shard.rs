//! Shards of a resource (KEP-5866): ranges of a hash of each object's UID or namespace.

use crate::wire::watch::{EventError, Object};

/// What is hashed for a [`Shard`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ShardField {
    /// `object.metadata.uid`.
    Uid,
    /// `object.metadata.namespace`.
    Namespace,
}

/// A part of all objects.
///
/// ```
/// use kubewire::watch::{Shard, ShardField};
///
/// assert_eq!(
///     Shard::of(ShardField::Uid, 0, 2).unwrap().to_selector(),
///     "shardRange(object.metadata.uid,'0x0000000000000000','0x8000000000000000')"
/// );
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shard {
    field: ShardField,
    /// First and last hash.
    first: u64,
    last: u64,
}

impl Shard {
    /// The shard `index` of `count` shards of nearly the same size; `None` unless
    /// `index < count`.
    pub fn of(field: ShardField, index: u32, count: u32) -> Option<Self> {
        if index >= count {
            return None;
        }
        let start = |index: u32| (u128::from(index) << 64) / u128::from(count);
        Some(Self {
            field,
            first: start(index) as u64,
            last: (start(index + 1) - 1) as u64,
        })
    }

    /// The selector, as the server expects and echoes it: the end is exclusive.
    pub fn to_selector(&self) -> String {
        let field = match self.field {
            ShardField::Uid => "uid",
            ShardField::Namespace => "namespace",
        };
        let end = u128::from(self.last) + 1;
        format!(
            "shardRange(object.metadata.{field},'{:#018x}','{end:#018x}')",
            self.first
        )
    }

    /// Whether the object belongs to the shard.
    ///
    /// # Errors
    ///
    /// If the object is malformed.
    pub fn contains(&self, object: &Object) -> Result<bool, EventError> {
        let metadata = object.metadata()?;
        let text = match self.field {
            ShardField::Uid => metadata.uid()?,
            ShardField::Namespace => metadata.namespace()?,
        };
        Ok((self.first..=self.last).contains(&fnv1a(text.as_bytes())))
    }
}

/// FNV-1a with 64 bits (`k8s.io/apimachinery/pkg/sharding/hash.go`).
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_as_fnv_defines() {
        // The test vectors of draft-eastlake-fnv, appendix C.
        assert_eq!(fnv1a(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(fnv1a(b"a"), 0xaf63_dc4c_8601_ec8c);
        assert_eq!(fnv1a(b"foobar"), 0x8594_4171_f739_67e8);
    }

    #[test]
    fn shards_cover_all_hashes_once() {
        for count in [1, 2, 3, 7, 1000] {
            let shards: Vec<_> = (0..count)
                .map(|index| Shard::of(ShardField::Uid, index, count).unwrap())
                .collect();
            assert_eq!(shards[0].first, 0);
            assert_eq!(shards[count as usize - 1].last, u64::MAX);
            for pair in shards.windows(2) {
                assert_eq!(pair[0].last + 1, pair[1].first);
            }
        }
        assert_eq!(Shard::of(ShardField::Uid, 2, 2), None);
        let all = Shard::of(ShardField::Namespace, 0, 1).unwrap();
        assert!(
            all.to_selector()
                .ends_with("'0x0000000000000000','0x10000000000000000')")
        );
    }
}

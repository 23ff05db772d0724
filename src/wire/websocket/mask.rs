//! The mask of what a client sends: the same operation puts it on and takes it off.

#[cfg(any(feature = "client", feature = "server"))]
use bytes::{Buf as _, Bytes};

/// Bytes that are copied and masked at once.
#[cfg(any(feature = "client", feature = "server"))]
const BLOCK: usize = 64;

/// Masks or unmasks `data`, which begins `offset` bytes into its frame (RFC 6455, section 5.3).
pub fn apply_mask(data: &mut [u8], key: [u8; 4], offset: usize) {
    let wide = widen(key, offset);
    let (words, rest) = data.as_chunks_mut();
    for word in words {
        *word = (u64::from_ne_bytes(*word) ^ wide).to_ne_bytes();
    }
    for (byte, key) in rest.iter_mut().zip(wide.to_ne_bytes()) {
        *byte ^= key;
    }
}

/// `head`, of at most 64 bytes, and behind it `data`, which [`apply_mask`] has been applied to. Each
/// byte is read and written once.
#[cfg(any(feature = "client", feature = "server"))]
pub(crate) fn masked_copy(head: &[u8], data: &[u8], key: [u8; 4], offset: usize) -> Bytes {
    let wide = widen(key, offset);
    let masked = |mut block: [u8; BLOCK]| {
        for word in block.as_chunks_mut().0 {
            *word = (u64::from_ne_bytes(*word) ^ wide).to_ne_bytes();
        }
        block
    };
    let (blocks, rest) = data.as_chunks();
    let (mut first, mut last) = ([0; BLOCK], [0; BLOCK]);
    first[BLOCK - head.len()..].copy_from_slice(head);
    last[..rest.len()].copy_from_slice(rest);
    // An iterator that knows its length writes to what is not filled with zeros before.
    let mut copy = Vec::with_capacity(blocks.len() + 2);
    copy.push(first);
    copy.extend(blocks.iter().map(|block| masked(*block)));
    copy.push(masked(last));
    let mut copy = Bytes::from(copy.into_flattened());
    copy.truncate(BLOCK + data.len());
    copy.advance(BLOCK - head.len());
    copy
}

/// The key as often as it fits into a word, from its byte at `offset` on.
fn widen(key: [u8; 4], offset: usize) -> u64 {
    u64::from_ne_bytes(std::array::from_fn(|at| key[(at + offset % 4) % 4]))
}

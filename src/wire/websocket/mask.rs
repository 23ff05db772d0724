//! The mask of what a client sends: the same operation puts it on and takes it off.

/// Masks or unmasks `data`, which begins `offset` bytes into its frame (RFC 6455, section 5.3).
pub fn apply_mask(data: &mut [u8], key: [u8; 4], offset: usize) {
    let mut wide = [0; 8];
    for (i, byte) in wide.iter_mut().enumerate() {
        *byte = key[(i + offset % 4) % 4];
    }
    let wide = u64::from_ne_bytes(wide);
    let mut words = data.chunks_exact_mut(8);
    for word in &mut words {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(word);
        word.copy_from_slice(&(u64::from_ne_bytes(bytes) ^ wide).to_ne_bytes());
    }
    for (byte, key) in words.into_remainder().iter_mut().zip(wide.to_ne_bytes()) {
        *byte ^= key;
    }
}

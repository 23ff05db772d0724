//! Terminal sizes are the same in any pieces.
#![no_main]

use kubewire::wire::resize::ResizeDecoder;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((&size, wire)) = data.split_first() else {
        return;
    };
    // A prefix may be refused sooner or later, but what is accepted whole is the same in pieces.
    if let Ok(whole) = ResizeDecoder::default().push(wire) {
        let mut decoder = ResizeDecoder::default();
        let mut pieces = Vec::new();
        for piece in wire.chunks(usize::from(size).max(1)) {
            match decoder.push(piece) {
                Ok(sizes) => pieces.extend(sizes),
                Err(_) => return,
            }
        }
        assert_eq!(pieces, whole);
    }
});

//! Terminal sizes are the same in any pieces.
#![no_main]

use kubewire::wire::resize::ResizeDecoder;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((&size, wire)) = data.split_first() else {
        return;
    };
    // A prefix may be refused sooner or later, but what is accepted whole is the same in pieces.
    let (mut whole, mut pieces) = (Vec::new(), Vec::new());
    if ResizeDecoder::default().push(wire, |size| whole.push(size)).is_ok() {
        let mut decoder = ResizeDecoder::default();
        for piece in wire.chunks(usize::from(size).max(1)) {
            if decoder.push(piece, |size| pieces.push(size)).is_err() {
                return;
            }
        }
        assert_eq!(pieces, whole);
    }
});

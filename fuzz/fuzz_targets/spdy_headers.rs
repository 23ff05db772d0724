//! A header block that expands holds headers that survive another writer and reader, and none
//! exceeds its bound.
#![no_main]

use kubewire::{
    limits,
    wire::spdy::{HeaderReader, HeaderWriter},
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let mut reader = HeaderReader::new();
    let (mut writer, mut again) = (HeaderWriter::new(), HeaderReader::new());
    // The first byte of each block is its length.
    let mut rest = data;
    while let Some((&length, after)) = rest.split_first() {
        let (block, after) = after.split_at(usize::from(length).min(after.len()));
        rest = after;
        let Ok(headers) = reader.read(block) else {
            return;
        };
        let size: usize = headers.iter().map(|(name, value)| name.len() + value.len()).sum();
        assert!(size <= limits::SPDY_HEADERS);
        assert_eq!(again.read(&writer.write(&headers).unwrap()), Ok(headers));
    }
});

//! A list gives the same items and ends alike however its bytes are cut, in all three encodings.
//! The first byte chooses the encoding, the second the size of chunks.
#![no_main]

use bytes::Bytes;
use kubewire::wire::watch::{Encoding, EventError, List, ListDecoder};
use libfuzzer_sys::fuzz_target;

/// All items, the metadata of each and how the list ends.
fn read(encoding: Encoding, body: &Bytes, chunk: usize) -> (Vec<Bytes>, Result<List, EventError>) {
    let mut list = ListDecoder::with_bounds(encoding, 4096, 4096);
    let mut items = Vec::new();
    let mut take = |list: &mut ListDecoder| {
        while let Some(item) = list.next_item()? {
            let _ = item.metadata().and_then(|metadata| metadata.name().map(drop));
            items.push(item.bytes().unwrap_or_default());
        }
        Ok::<_, EventError>(())
    };
    let end = (|| {
        for chunk in body.chunks(chunk) {
            list.push(body.slice_ref(chunk));
            take(&mut list)?;
        }
        let end = list.finish()?;
        take(&mut list)?;
        Ok(end)
    })();
    (items, end)
}

fuzz_target!(|data: &[u8]| {
    let [encoding, chunk, body @ ..] = data else {
        return;
    };
    let encoding = match encoding % 3 {
        0 => Encoding::Json,
        1 => Encoding::Protobuf,
        _ => Encoding::Cbor,
    };
    let body = Bytes::copy_from_slice(body);
    let (items, end) = read(encoding, &body, usize::MAX);
    let (cut_items, cut_end) = read(encoding, &body, usize::from(*chunk).max(1));
    assert_eq!(end.is_ok(), cut_end.is_ok());
    if let (Ok(end), Ok(cut_end)) = (end, cut_end) {
        assert_eq!((items, end), (cut_items, cut_end));
    }
});

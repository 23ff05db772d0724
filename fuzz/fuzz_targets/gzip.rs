//! However a body is cut into chunks, it inflates to the same bytes and the same error; what another
//! library inflates to its end is the same; and what that has compressed comes back.
#![no_main]

use std::io::{Read as _, Write as _};

use bytes::Bytes;
use flate2::{Compression, read::MultiGzDecoder, write::GzEncoder};
use kubewire::wire::gzip::{Decoder, GzipError, PIECE};
use libfuzzer_sys::fuzz_target;

/// Bytes of what is looked at: a body may be a bomb.
const MOST: usize = 256 << 10;

/// What a body becomes, and how it ends; `None` if it is more than is looked at.
fn inflate(body: &[u8], chunk: usize) -> (Vec<u8>, Option<Result<(), GzipError>>) {
    let mut decoder = Decoder::new();
    let mut inflated = Vec::new();
    for chunk in body.chunks(chunk) {
        decoder.push(Bytes::copy_from_slice(chunk));
        loop {
            match decoder.next_piece() {
                Ok(None) => break,
                Ok(Some(piece)) => {
                    assert!(!piece.is_empty() && piece.len() <= PIECE);
                    inflated.extend_from_slice(&piece);
                }
                Err(error) => return (inflated, Some(Err(error))),
            }
            if inflated.len() >= MOST {
                inflated.truncate(MOST);
                return (inflated, None);
            }
        }
    }
    (inflated, Some(decoder.finish()))
}

fuzz_target!(|data: &[u8]| {
    let [members, chunk, body @ ..] = data else {
        return;
    };
    let chunk = usize::from(*chunk).max(1);
    let whole = inflate(body, usize::MAX);
    for chunk in [1, chunk] {
        assert_eq!(inflate(body, chunk), whole);
    }
    if let (inflated, Some(Ok(()))) = &whole {
        let mut other = Vec::new();
        let read = MultiGzDecoder::new(body).read_to_end(&mut other);
        assert!(read.is_ok() || body.is_empty(), "{read:?}");
        assert_eq!(&other, inflated);
    }
    let mut compressed = Vec::new();
    for member in body.chunks(usize::from(*members).max(1)) {
        let level = Compression::new(u32::from(*members) % 10);
        let mut encoder = GzEncoder::new(&mut compressed, level);
        encoder.write_all(member).expect("a Vec takes all");
        encoder.finish().expect("a Vec takes all");
    }
    assert_eq!(
        inflate(&compressed, chunk),
        (body.to_vec(), Some(Ok(()))),
        "compressed"
    );
});

//! However a body is cut into chunks, it gives the same lines; and a stamp that is understood reads
//! the same after it is written.
#![no_main]

use bytes::Bytes;
use kubewire::wire::{
    line::{LineEnd, LineSplitter},
    stamp::Stamp,
};
use libfuzzer_sys::fuzz_target;

type Lines = Vec<(Vec<u8>, LineEnd)>;

fn lines(body: &[u8], bound: usize, chunk: usize) -> Lines {
    fn take(splitter: &mut LineSplitter, lines: &mut Lines) {
        while let Some(line) = splitter.next_line() {
            lines.push((line.bytes.to_vec(), line.end));
        }
    }
    let mut splitter = LineSplitter::new(bound);
    let mut lines = Vec::new();
    for chunk in body.chunks(chunk) {
        splitter.push(Bytes::copy_from_slice(chunk));
        take(&mut splitter, &mut lines);
        assert!(splitter.buffered() <= bound);
    }
    splitter.finish();
    take(&mut splitter, &mut lines);
    lines
}

fuzz_target!(|data: &[u8]| {
    let [bound, chunk, body @ ..] = data else {
        return;
    };
    let bound = usize::from(*bound).max(1);
    let whole = lines(body, bound, usize::MAX);
    for chunk in [1, usize::from(*chunk).max(1), usize::MAX] {
        assert_eq!(lines(body, bound, chunk), whole);
    }
    if let Some((stamp, used)) = Stamp::parse_prefix(body) {
        assert_eq!(Stamp::parse(&body[..used]), Some(stamp));
        // An offset may lead out of the years with four digits.
        if (-62_167_219_200..253_402_300_800).contains(&stamp.unix_seconds()) {
            assert_eq!(Stamp::parse(stamp.to_string().as_bytes()), Some(stamp));
        }
    }
});

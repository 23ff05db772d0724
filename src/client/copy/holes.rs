//! Holes: in flows a file of this machine, out comes where its data are, and the headers with
//! which GNU's `tar` makes the same holes.

use std::{
    fs::File,
    io::{self, Read, Seek as _},
};

use tar::{EntryType, GnuExtSparseHeader, Header};

/// Parts of a file that have data: where each begins, and its length.
pub(super) type Segments = Vec<(u64, u64)>;

/// More parts than these in one file are sent as if the holes were zeros.
const SEGMENTS: usize = 10_000;

/// Where the data of a file with holes are. `None` if it has no holes, or nobody can tell.
#[cfg(any(target_os = "linux", target_os = "macos", target_os = "freebsd"))]
pub(super) fn segments(file: &File, size: u64) -> Option<Segments> {
    use std::os::unix::fs::MetadataExt as _;

    use rustix::fs::{SeekFrom, seek};

    if file.metadata().ok()?.blocks().checked_mul(512)? >= size {
        return None;
    }
    let mut segments = Vec::new();
    let mut at = 0;
    while at < size {
        let data = match seek(file, SeekFrom::Data(at)) {
            Ok(data) => data.min(size),
            Err(rustix::io::Errno::NXIO) => size,
            Err(_) => return None,
        };
        if data == size {
            break;
        }
        // As GNU's tar has it: all parts but the last are whole blocks.
        let data = data / 512 * 512;
        let hole = seek(file, SeekFrom::Hole(data)).ok()?;
        let hole = hole.checked_next_multiple_of(512)?.min(size);
        segments.push((data, hole.checked_sub(data)?));
        at = hole;
    }
    seek(file, SeekFrom::Start(0)).ok()?;
    let is_dense = segments == [(0, size)];
    (!is_dense && segments.len() <= SEGMENTS).then_some(segments)
}

#[cfg(not(any(target_os = "linux", target_os = "macos", target_os = "freebsd")))]
pub(super) fn segments(_: &File, _: u64) -> Option<Segments> {
    None
}

/// Makes the header one of a file with holes. What is given comes before the data.
pub(super) fn announce(header: &mut Header, segments: &Segments, size: u64) -> io::Result<Vec<u8>> {
    header.set_entry_type(EntryType::GNUSparse);
    header.set_size(segments.iter().map(|(_, length)| length).sum());
    // A hole at the end is a part without data behind it.
    let mut parts = segments.iter().copied().chain([(size, 0)]).peekable();
    let gnu = header.as_gnu_mut().ok_or(io::ErrorKind::InvalidInput)?;
    gnu.set_real_size(size);
    for (field, (offset, length)) in gnu.sparse.iter_mut().zip(&mut parts) {
        field.set_offset(offset);
        field.set_length(length);
    }
    gnu.set_is_extended(parts.peek().is_some());
    let mut more = Vec::new();
    while parts.peek().is_some() {
        let mut block = GnuExtSparseHeader::new();
        for (field, (offset, length)) in block.sparse.iter_mut().zip(&mut parts) {
            field.set_offset(offset);
            field.set_length(length);
        }
        block.set_is_extended(parts.peek().is_some());
        more.extend_from_slice(block.as_bytes());
    }
    Ok(more)
}

/// Reads only the data of a file, and tells `skipped` of the holes before and between them.
pub(super) struct DataOf<'a, F> {
    file: &'a File,
    parts: std::slice::Iter<'a, (u64, u64)>,
    at: u64,
    left: u64,
    skipped: F,
}

impl<'a, F: FnMut(&[u8], u64)> DataOf<'a, F> {
    /// `passed` gets what is read, and the length of the hole that was before it.
    pub(super) fn new(file: &'a File, segments: &'a Segments, passed: F) -> Self {
        Self {
            file,
            parts: segments.iter(),
            at: 0,
            left: 0,
            skipped: passed,
        }
    }

    pub(super) fn at(&self) -> u64 {
        self.at
    }
}

impl<F: FnMut(&[u8], u64)> Read for DataOf<'_, F> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        let mut hole = 0;
        while self.left == 0 {
            let Some((offset, length)) = self.parts.next() else {
                return Ok(0);
            };
            hole = offset - self.at;
            self.file.seek(io::SeekFrom::Start(*offset))?;
            (self.at, self.left) = (*offset, *length);
        }
        let most = buffer
            .len()
            .min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let read = self.file.read(&mut buffer[..most])?;
        self.at += read as u64;
        self.left -= read as u64;
        (self.skipped)(&buffer[..read], hole);
        Ok(read)
    }
}

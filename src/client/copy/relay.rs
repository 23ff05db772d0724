//! From an archive to another: in flows what one container made up, out come the same files for
//! another, under names that lead nowhere else.

use std::{
    collections::HashMap,
    io::{self, Read},
    path::PathBuf,
};

use tar::{Builder, Entry, EntryType, Header};

use super::{
    LeftOut, Reason, Record,
    holes::Segments,
    name_bytes,
    pack::{Filled, Keep, Packed, Plan, append_symlink, end, failure, joined},
    pipe::{PipeReader, PipeWriter, State},
    place::leads_out,
    sums::{Digest, Hasher, Sum},
    times,
    unpack::{Bounds, below, each, is_file, wrong},
};
use crate::Result;

/// Zeros of so many bytes are a hole.
const HOLE: u64 = 32 << 10;

/// Hands on what is in the archive below `base`.
pub(super) fn relay(
    input: PipeReader,
    base: Option<&std::path::Path>,
    bounds: Bounds,
    plan: &Plan,
    packed: &mut Packed,
    out: PipeWriter,
) -> Result<()> {
    packed.begin();
    let mut relay = Relay {
        archive: Builder::new(out),
        base: base.map(PathBuf::from),
        plan,
        digests: HashMap::new(),
        packed,
    };
    // What is there already comes before what may be a link to it.
    let done: Vec<_> = relay.packed.done.values().cloned().collect();
    for record in done {
        let digest = (record.size, record.digest);
        relay.digests.insert(record.name.to_vec(), digest);
        relay.packed.records.push(record);
    }
    each(input, base, bounds, |path, entry, state| {
        relay.entry(path, entry, state)
    })?;
    // Children before parents, when they get their attributes.
    relay.packed.directories.reverse();
    end(relay.archive).map_err(failure(&plan.root))
}

struct Relay<'a> {
    archive: Builder<PipeWriter>,
    base: Option<PathBuf>,
    plan: &'a Plan,
    digests: HashMap<Vec<u8>, (u64, Digest)>,
    packed: &'a mut Packed,
}

impl Relay<'_> {
    fn entry(
        &mut self,
        path: PathBuf,
        entry: &mut Entry<'_, PipeReader>,
        state: &State,
    ) -> Result<()> {
        let key = name_bytes(&path);
        if self.plan.exclude.has(&key) {
            state.allow(None);
            return Ok(());
        }
        let shown = path.clone();
        let broken = |error: io::Error| wrong(&shown, error.to_string());
        let failed = failure(&shown);
        let kind = entry.header().entry_type();
        let mut header = self.header(entry.header()).map_err(broken)?;
        let name = joined(&self.plan.root, &path);
        let target = entry.link_name().map_err(broken)?;
        let target = target.map(|it| it.into_owned()).unwrap_or_default();
        match kind {
            EntryType::Directory => {
                header.set_entry_type(kind);
                let last = header.clone();
                header.set_mode(header.mode().map_err(&failed)? | 0o700);
                self.append(&mut header, &name, io::empty())?;
                self.packed.directories.push((path, last));
            }
            EntryType::Symlink if leads_out(&path, &target) => {
                let reason = Reason::LeadsOut { target };
                self.packed.left_out.push(LeftOut { path, reason });
            }
            EntryType::Symlink => {
                append_symlink(&mut self.archive, &mut header, &name, &target).map_err(&failed)?;
            }
            EntryType::Link => {
                let first = below(&target, self.base.as_deref());
                let first = first.filter(|it| self.digests.contains_key(&name_bytes(it)));
                let first =
                    first.ok_or_else(|| wrong(&path, "it is a link to what was not copied"))?;
                let (size, digest) = self.digests[&name_bytes(&first)];
                header.set_entry_type(kind);
                let first = joined(&self.plan.root, &first);
                let done = self.archive.append_link(&mut header, &name, first);
                done.map_err(&failed)?;
                self.packed.records.push(Record {
                    name: key.into(),
                    size,
                    digest,
                    link: true,
                });
            }
            kind if is_file(kind) => {
                state.allow(None);
                self.packed.current = Some(key.clone());
                let size = entry.size();
                header.set_entry_type(EntryType::Regular);
                header.set_size(size);
                let described = header.clone();
                let mut seen = Seen::new(entry, self.plan.sum);
                self.append(&mut header, &name, &mut seen)?;
                if seen.at != size {
                    let problem = format!("{size} bytes were announced, {} came", seen.at);
                    return Err(wrong(&path, problem));
                }
                let (digest, segments) = seen.finish();
                self.plan.progress.add(size);
                self.plan.progress.file();
                if kind == EntryType::GNUSparse {
                    let filled = Filled {
                        size,
                        segments,
                        header: described,
                    };
                    self.packed.filled.insert(key.clone(), filled);
                }
                self.digests.insert(key.clone(), (size, digest));
                self.packed.current = None;
                self.packed.records.push(Record {
                    name: key.into(),
                    size,
                    digest,
                    link: false,
                });
            }
            _ => {
                let reason = Reason::Special;
                self.packed.left_out.push(LeftOut { path, reason });
            }
        }
        Ok(())
    }

    fn append(&mut self, header: &mut Header, name: &PathBuf, data: impl Read) -> Result<()> {
        let done = self.archive.append_data(header, name, data);
        done.map_err(|error| match error.kind() {
            io::ErrorKind::BrokenPipe => failure(name)(error),
            _ => wrong(name, error.to_string()),
        })
    }

    fn header(&self, from: &Header) -> io::Result<Header> {
        let keep = self.plan.keep;
        let owner = match keep {
            Keep::Owners => (from.uid()?, from.gid()?),
            Keep::Times | Keep::Modes => (0, 0),
        };
        // Set-user-ID would be that of whoever unpacks it.
        let mode = from.mode()? & 0o777;
        let modified = times::of_entry(from)?;
        Ok(keep.header(from.entry_type().is_dir(), mode, modified, owner))
    }
}

/// A reader that makes the digest of what passes, and sees where it is not zero.
struct Seen<R> {
    inner: R,
    digest: Hasher,
    at: u64,
    /// The blocks that are not zero, next to each other taken together.
    segments: Segments,
}

impl<R: Read> Seen<R> {
    fn new(inner: R, sum: Sum) -> Self {
        Self {
            inner,
            digest: sum.hasher(),
            at: 0,
            segments: Vec::new(),
        }
    }

    fn finish(self) -> (Digest, Segments) {
        (self.digest.finish(), self.segments)
    }
}

impl<R: Read> Read for Seen<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        let mut part = &buffer[..read];
        self.digest.update(part);
        while !part.is_empty() {
            let begin = self.at / HOLE * HOLE;
            let left = (begin + HOLE - self.at) as usize;
            let (block, rest) = part.split_at(left.min(part.len()));
            if block.iter().any(|byte| *byte != 0) {
                match self.segments.last_mut() {
                    Some((offset, length)) if *offset + *length >= begin => {
                        *length = begin + HOLE - *offset;
                    }
                    _ => self.segments.push((begin, HOLE)),
                }
            }
            self.at += block.len() as u64;
            part = rest;
        }
        Ok(read)
    }
}

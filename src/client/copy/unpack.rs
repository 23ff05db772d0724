//! From an archive to the disk: in flow the bytes of a tar archive that a container made up, out
//! come files below one path, and nothing elsewhere.
//!
//! A name that leads out ends the copy. Below the destination no symbolic link is followed: those
//! that are on the disk end the copy, those in the archive are made last. A file gets its name when
//! it is whole. What is here when an archive is cut stays, for the next one.

use std::{
    collections::HashMap,
    io::{self, Read},
    path::{Component, Path, PathBuf},
    sync::Arc,
};

use tar::{Archive, Entry, EntryType};

use super::{
    LeftOut, Reason, Record,
    glob::Exclude,
    name_bytes,
    pack::{Digesting, failure},
    pipe::{Awaited, PipeReader, State},
    place::{About, Attributes, Growing, Root, leads_out},
    progress::Progress,
    sums::{Digest, Sum},
    times,
    verify::Comparing,
};
use crate::{
    Result,
    error::{Error, PeerError, Printable},
    limits,
};

#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    pub(super) entries: u64,
    pub(super) bytes: u64,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            entries: limits::COPY_ENTRIES,
            bytes: limits::COPY_BYTES,
        }
    }
}

/// What the archive does wrong, in one line, whatever it names.
pub(super) fn wrong(path: &Path, problem: impl Into<String>) -> Error {
    PeerError::Copy {
        path: Printable(path.display()).to_string(),
        problem: Printable(problem.into()).to_string(),
    }
    .into()
}

/// What has come so far, which must stay within bounds.
#[derive(Debug)]
pub(super) struct Counted {
    bounds: Bounds,
    entries: u64,
    bytes: u64,
    names: usize,
}

impl Counted {
    pub(super) fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            entries: 0,
            bytes: 0,
            names: 0,
        }
    }

    /// One more entry, and `bytes` more of files.
    pub(super) fn entry(&mut self, path: &Path, bytes: u64) -> Result<()> {
        self.entries += 1;
        self.names = self.names.saturating_add(name_bytes(path).len());
        self.bytes(path, bytes)
    }

    pub(super) fn bytes(&mut self, path: &Path, bytes: u64) -> Result<()> {
        self.bytes = self.bytes.saturating_add(bytes);
        let are_too_many = self.entries > self.bounds.entries
            || self.bytes > self.bounds.bytes
            || self.names > limits::COPY_NAMES;
        match are_too_many {
            true => Err(wrong(path, "the archive is larger than is allowed")),
            false => Ok(()),
        }
    }
}

/// The entries of an archive, each with its path below `base`.
pub(super) fn each(
    input: PipeReader,
    base: Option<&Path>,
    bounds: Bounds,
    mut take: impl FnMut(PathBuf, &mut Entry<'_, PipeReader>, &State) -> Result<()>,
) -> Result<()> {
    let state = input.state();
    let mut archive = Archive::new(input);
    let whole = Path::new("the archive");
    let broken = |error: io::Error| wrong(whole, error.to_string());
    let mut counted = Counted::new(bounds);
    state.allow(Some(limits::COPY_HEADERS));
    for entry in archive.entries().map_err(broken)? {
        let mut entry = entry.map_err(broken)?;
        let path = entry.path().map_err(broken)?.into_owned();
        counted.entry(&path, entry.size())?;
        let below = below(&path, base)
            .ok_or_else(|| wrong(&path, "the archive names what was not asked for"))?;
        take(below, &mut entry, &state)?;
        state.allow(Some(limits::COPY_HEADERS));
    }
    // The end is a block of zeros (pax, "ustar Interchange Format"); without it something is cut.
    if state.has_ended() {
        return Err(wrong(whole, "it has no end"));
    }
    let mut input = archive.into_inner();
    io::copy(&mut input, &mut io::sink()).map_err(broken)?;
    match counted.entries {
        0 => Err(wrong(whole, "it is empty")),
        _ => Ok(()),
    }
}

/// The path below `base`, if it is there and leads nowhere else.
pub(super) fn below(path: &Path, base: Option<&Path>) -> Option<PathBuf> {
    let mut below = PathBuf::new();
    let parts = path.components();
    for part in parts.filter(|part| !matches!(part, Component::CurDir)) {
        match part {
            Component::Normal(part) => below.push(part),
            _ => return None,
        }
    }
    match base {
        None => Some(below),
        Some(base) => below.strip_prefix(base).ok().map(Path::to_owned),
    }
}

/// Only reads an archive, and compares the files below `base` in it with `records`. `shown` is what
/// errors call the base.
pub(super) fn compare(
    input: PipeReader,
    base: &Path,
    sum: Sum,
    shown: &Path,
    records: &[Record],
) -> Result<()> {
    let mut missing: HashMap<&[u8], &Record> = HashMap::new();
    for record in records {
        missing.insert(&record.name, record);
    }
    let mut first_names: HashMap<PathBuf, (u64, Digest)> = HashMap::new();
    let bounds = Bounds {
        entries: u64::MAX,
        bytes: u64::MAX,
    };
    let progress = Progress::default();
    each(input, Some(base), bounds, |path, entry, state| {
        let found = match entry.header().entry_type() {
            kind if is_file(kind) => {
                state.allow(None);
                let contents = Digesting::new(&mut *entry, sum, &progress);
                let found = contents.pass(&mut io::sink()).map_err(failure(&path))?;
                first_names.insert(path.clone(), found);
                found
            }
            EntryType::Link => {
                let target = entry.link_name().map_err(failure(&path))?;
                let target = target.and_then(|target| below(&target, Some(base)));
                match target.and_then(|target| first_names.get(&target)) {
                    Some(found) => *found,
                    None => return Ok(()),
                }
            }
            _ => return Ok(()),
        };
        match missing.remove(&name_bytes(&path)[..]) {
            Some(record) if (record.size, record.digest) != found => Err(wrong(
                &record.shown(shown),
                format!("{} bytes were sent, {} are there", record.size, found.0),
            )),
            _ => Ok(()),
        }
    })?;
    match records.iter().find(|it| missing.contains_key(&it.name[..])) {
        None => Ok(()),
        Some(record) => Err(wrong(&record.shown(shown), "it was sent and is not there")),
    }
}

pub(super) fn is_file(kind: EntryType) -> bool {
    matches!(
        kind,
        EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse
    )
}

#[derive(Debug, Clone)]
pub(super) struct Rules {
    /// The name in the container, which is not that of the destination.
    pub(super) base: Option<PathBuf>,
    pub(super) modes: bool,
    pub(super) owners: bool,
    pub(super) bounds: Bounds,
    pub(super) exclude: Exclude,
    pub(super) progress: Progress,
    pub(super) sum: Sum,
}

/// A link that is not made yet.
#[derive(Debug)]
struct Symlink {
    below: PathBuf,
    target: PathBuf,
    owner: Option<(u32, u32)>,
}

/// What is written, and what waits until nothing more is.
#[derive(Debug)]
pub(super) struct Unpacker {
    pub(super) rules: Rules,
    pub(super) root: Root,
    directories: HashMap<PathBuf, Attributes>,
    symlinks: Vec<Symlink>,
    /// With names below the destination; a name once.
    pub(super) records: HashMap<Arc<[u8]>, Record>,
    /// Further names of those files, with their first.
    pub(super) links: HashMap<Vec<u8>, Vec<u8>>,
    pub(super) left_out: Vec<LeftOut>,
    /// Who compares files as they come.
    pub(super) comparing: Option<Comparing>,
    /// The file in which the archive was cut.
    pub(super) partial: Option<Growing>,
    pub(super) awaited: Awaited,
}

impl Unpacker {
    pub(super) fn new(rules: Rules, root: PathBuf) -> Result<Self> {
        Ok(Self {
            rules,
            root: Root::new(root)?,
            directories: HashMap::new(),
            symlinks: Vec::new(),
            records: HashMap::new(),
            links: HashMap::new(),
            left_out: Vec::new(),
            comparing: None,
            partial: None,
            awaited: Awaited::default(),
        })
    }

    pub(super) fn unpack(&mut self, input: PipeReader) -> Result<()> {
        self.forget();
        self.awaited = input.awaited();
        let base = self.rules.base.clone();
        let bounds = self.rules.bounds;
        each(input, base.as_deref(), bounds, |path, entry, state| {
            self.entry(path, entry, state)
        })
    }

    /// Forgets what comes again, which is all that is not a whole file.
    pub(super) fn forget(&mut self) {
        self.symlinks.clear();
        self.left_out.clear();
        self.partial = None;
    }

    fn entry(
        &mut self,
        path: PathBuf,
        entry: &mut Entry<'_, PipeReader>,
        state: &State,
    ) -> Result<()> {
        let unreadable = |error: io::Error| wrong(&path, error.to_string());
        let header = entry.header();
        let kind = header.entry_type();
        // Set-user-ID would be that of whoever runs this.
        let mode = header.mode().map_err(unreadable)? & 0o777;
        let time = times::to_disk(times::of_entry(header).map_err(unreadable)?);
        let time = time.ok_or_else(|| wrong(&path, "its time is none"))?;
        let number = |field: io::Result<u64>| {
            let number = field.map_err(unreadable)?;
            u32::try_from(number).map_err(|_| wrong(&path, "its owner is none"))
        };
        let owner = match self.rules.owners {
            true => Some((number(header.uid())?, number(header.gid())?)),
            false => None,
        };
        let attributes = Attributes {
            mode: self.rules.modes.then_some(mode),
            time: Some(time),
            owner,
        };
        if self.rules.exclude.has(&name_bytes(&path)) {
            state.allow(None);
            return Ok(());
        }
        match kind {
            EntryType::Directory => self.directory(path, attributes),
            EntryType::Symlink => {
                let target = entry.link_name().map_err(unreadable)?;
                let target = target.map(|it| it.into_owned()).unwrap_or_default();
                self.symlink(path, target, owner)
            }
            EntryType::Link => {
                let target = entry.link_name().map_err(unreadable)?;
                let target = target.and_then(|it| below(&it, self.rules.base.as_deref()));
                let target =
                    target.ok_or_else(|| wrong(&path, "it is a link to what was not copied"))?;
                self.hard_link(&path, &target)
            }
            kind if is_file(kind) => {
                state.allow(None);
                let about = About {
                    below: path,
                    size: Some(entry.size()),
                    attributes,
                };
                if let Some(comparing) = &mut self.comparing {
                    comparing.begins(&name_bytes(&about.below), entry.size());
                }
                let growing = self.root.file(about, self.rules.sum)?;
                self.grow(growing, entry)
            }
            _ => {
                self.leave_out(path, Reason::Special);
                Ok(())
            }
        }
    }

    /// Writes a file to its end; keeps what there is of it if that does not come.
    pub(super) fn grow(&mut self, growing: Growing, from: &mut impl Read) -> Result<()> {
        let awaited = self.awaited.clone();
        let growing = self.partial.insert(growing);
        let mut buffer = vec![0; limits::COPY_STEP];
        loop {
            let (mut filled, mut end) = (0, None);
            while filled < buffer.len() && end.is_none() {
                match from.read(&mut buffer[filled..]) {
                    Ok(0) => end = Some(Ok(())),
                    Ok(read) => filled += read,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => end = Some(Err(error)),
                }
            }
            awaited.check().map_err(failure(&growing.place))?;
            growing.write(&buffer[..filled])?;
            self.rules.progress.add(filled as u64);
            match end {
                None => {}
                Some(Ok(())) => break,
                Some(Err(error)) => return Err(wrong(&growing.place, error.to_string())),
            }
        }
        if let Some(size) = growing.about.size.filter(|it| *it != growing.size) {
            // It stays for whoever has the rest.
            let problem = format!("{size} bytes were announced, {} came", growing.size);
            return Err(wrong(&growing.place, problem));
        }
        let record = match self.partial.take() {
            Some(growing) => growing.finish()?,
            None => return Ok(()),
        };
        self.links.remove(&record.name[..]);
        if let Some(comparing) = &self.comparing {
            comparing.is_whole(&record);
        }
        self.records.insert(record.name.clone(), record);
        self.rules.progress.file();
        Ok(())
    }

    /// Writes what comes behind the file that was cut. The first line is the digest of its
    /// beginning in the container.
    pub(super) fn rest(&mut self, mut input: PipeReader) -> Result<()> {
        self.awaited = input.awaited();
        let Some(growing) = self.partial.take() else {
            return Ok(());
        };
        let mut line = Vec::new();
        let mut byte = [0];
        while line.last() != Some(&b'\n') && line.len() < 128 {
            match input.read(&mut byte) {
                Ok(1) => line.push(byte[0]),
                _ => break,
            }
        }
        let is_same = self
            .rules
            .sum
            .read(&line)
            .is_some_and(|(digest, _)| digest == growing.digest());
        if !is_same && line.ends_with(b"\n") {
            return Err(wrong(&growing.place, "it has another beginning"));
        }
        if !is_same {
            self.partial = Some(growing);
            return Ok(());
        }
        self.grow(growing, &mut input)
    }

    /// Of files that came, those in whose place no other has come since.
    pub(super) fn keep_last(&self, files: &mut Vec<Record>) {
        files.retain(|it| {
            let last = self.records.get(&it.name[..]);
            last.is_some_and(|last| last.digest == it.digest)
        });
    }

    pub(super) fn directory(&mut self, below: PathBuf, attributes: Attributes) -> Result<()> {
        self.root.directory(&below)?;
        self.directories.insert(below, attributes);
        Ok(())
    }

    pub(super) fn symlink(
        &mut self,
        below: PathBuf,
        target: PathBuf,
        owner: Option<(u32, u32)>,
    ) -> Result<()> {
        if below.as_os_str().is_empty() {
            let base = self.rules.base.as_deref().unwrap_or(Path::new("."));
            let target = target.display();
            let problem = format!("it is a symbolic link: copy what it leads to, {target}");
            return Err(wrong(base, problem));
        }
        if leads_out(&below, &target) {
            self.leave_out(below, Reason::LeadsOut { target });
        } else {
            self.symlinks.push(Symlink {
                below,
                target,
                owner,
            });
        }
        Ok(())
    }

    pub(super) fn hard_link(&mut self, below: &Path, target: &Path) -> Result<()> {
        self.root.hard_link(below, target)?;
        let name = name_bytes(below);
        self.records.remove(&name[..]);
        self.links.insert(name, name_bytes(target));
        self.rules.progress.file();
        Ok(())
    }

    pub(super) fn leave_out(&mut self, path: PathBuf, reason: Reason) {
        self.left_out.push(LeftOut { path, reason });
    }

    /// What waits until nothing more is written: links, then the modes and times of directories.
    pub(super) fn finish(&mut self) -> Result<()> {
        for link in std::mem::take(&mut self.symlinks) {
            self.root.symlink(&link.below, &link.target, link.owner)?;
        }
        let mut directories: Vec<_> = self.directories.drain().collect();
        // Those below before those above, whose mode may close them.
        directories.sort_unstable_by(|a, b| b.0.cmp(&a.0));
        for (below, attributes) in directories {
            self.root.finish(&below, attributes)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_lead_out_are_none() {
        let base = Some(Path::new("x"));
        assert_eq!(below(Path::new("./x/a"), base), Some("a".into()));
        assert_eq!(below(Path::new("x"), base), Some("".into()));
        for name in ["/x/a", "x/../../a", "../x/a", "y/a", "xy"] {
            assert_eq!(below(Path::new(name), base), None, "{name}");
        }
    }
}

//! From an archive to the disk: in flow the bytes of a tar archive that a container made up, out
//! come files below one path, and nothing elsewhere.
//!
//! A name that leads out ends the copy. Below the destination no symbolic link is followed: those
//! that are on the disk end the copy, those in the archive are made last. A file gets its name when
//! it is whole.

use std::{
    collections::HashMap,
    fs::{self, File, OpenOptions},
    io::{self, Read, Seek as _, Write as _},
    path::{Component, Path, PathBuf},
    time::{Duration, SystemTime},
};

use sha2::Digest as _;
use tar::{Archive, Entry, EntryType};

use super::{
    LeftOut, Reason, Record, name_bytes,
    pack::{Digesting, failure},
    pipe::{PipeReader, State},
};
use crate::{
    Result,
    error::{Error, PeerError},
    limits,
};

/// Bytes that are a hole if they are all zero.
const HOLE: usize = 32 << 10;

/// How much a container may send.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    pub(super) entries: u64,
    pub(super) bytes: u64,
}

/// What came out of an archive.
#[derive(Debug, Default)]
pub(super) struct Unpacked {
    /// With names below the destination.
    pub(super) records: Vec<Record>,
    /// Further names of those files.
    pub(super) links: u64,
    pub(super) left_out: Vec<LeftOut>,
}

/// What the archive does wrong.
fn wrong(path: &Path, problem: impl Into<String>) -> Error {
    PeerError::Copy {
        path: path.display().to_string(),
        problem: problem.into(),
    }
    .into()
}

/// The entries of an archive, each with its path below `base`.
fn each(
    input: PipeReader,
    base: Option<&Path>,
    bounds: Bounds,
    mut take: impl FnMut(PathBuf, &mut Entry<'_, PipeReader>, &State) -> Result<()>,
) -> Result<()> {
    let state = input.state();
    let mut archive = Archive::new(input);
    let whole = Path::new("the archive");
    let broken = |error: io::Error| wrong(whole, error.to_string());
    let (mut count, mut bytes, mut names) = (0, 0_u64, 0_usize);
    state.allow(Some(limits::COPY_HEADERS));
    for entry in archive.entries().map_err(broken)? {
        let mut entry = entry.map_err(broken)?;
        let path = entry.path().map_err(broken)?.into_owned();
        count += 1;
        bytes = bytes.saturating_add(entry.size());
        names = names.saturating_add(name_bytes(&path).len());
        if count > bounds.entries || bytes > bounds.bytes || names > limits::COPY_NAMES {
            return Err(wrong(&path, "the archive is larger than is allowed"));
        }
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
    match count {
        0 => Err(wrong(whole, "it is empty")),
        _ => Ok(()),
    }
}

/// The path below `base`, if it is there and leads nowhere else.
fn below(path: &Path, base: Option<&Path>) -> Option<PathBuf> {
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

/// Only reads an archive, and compares the files in it with `records`, whose names are below its
/// root.
pub(super) fn compare(input: PipeReader, records: &[Record]) -> Result<()> {
    let mut missing: HashMap<&[u8], &Record> = HashMap::new();
    for record in records {
        missing.insert(&record.name, record);
    }
    let mut first_names: HashMap<PathBuf, (u64, [u8; 32])> = HashMap::new();
    let bounds = Bounds {
        entries: u64::MAX,
        bytes: u64::MAX,
    };
    each(input, None, bounds, |path, entry, state| {
        let found = match entry.header().entry_type() {
            kind if is_file(kind) => {
                state.allow(None);
                let mut contents = Digesting::new(&mut *entry);
                io::copy(&mut contents, &mut io::sink()).map_err(failure(&path))?;
                let found = (contents.read, contents.digest.finalize().into());
                first_names.insert(path.clone(), found);
                found
            }
            EntryType::Link => {
                let target = entry.link_name().map_err(failure(&path))?;
                let target = target.and_then(|target| below(&target, None));
                match target.and_then(|target| first_names.get(&target)) {
                    Some(found) => *found,
                    None => return Ok(()),
                }
            }
            _ => return Ok(()),
        };
        match missing.remove(&name_bytes(&path)[..]) {
            Some(record) if (record.size, record.digest) != found => Err(wrong(
                &path,
                format!("{} bytes were sent, {} are there", record.size, found.0),
            )),
            _ => Ok(()),
        }
    })?;
    match records.iter().find(|it| missing.contains_key(&it.name[..])) {
        None => Ok(()),
        Some(record) => Err(wrong(&record.path(), "it was sent and is not there")),
    }
}

fn is_file(kind: EntryType) -> bool {
    matches!(
        kind,
        EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse
    )
}

/// Writes what is in the archive below `base` to `root`.
pub(super) fn unpack(
    input: PipeReader,
    base: Option<&Path>,
    root: &Path,
    modes: bool,
    bounds: Bounds,
) -> Result<Unpacked> {
    if let Some(parent) = root.parent().filter(|it| !it.as_os_str().is_empty()) {
        fs::create_dir_all(parent).map_err(failure(parent))?;
    }
    let mut unpacker = Unpacker {
        base,
        root,
        modes,
        checked: None,
        directories: Vec::new(),
        symlinks: Vec::new(),
        unpacked: Unpacked::default(),
    };
    each(input, base, bounds, |path, entry, state| {
        unpacker.entry(path, entry, state)
    })?;
    unpacker.finish()
}

struct Unpacker<'a> {
    base: Option<&'a Path>,
    root: &'a Path,
    modes: bool,
    /// A directory below the root that is known to be one.
    checked: Option<PathBuf>,
    directories: Vec<(PathBuf, u32, SystemTime)>,
    symlinks: Vec<(PathBuf, PathBuf)>,
    unpacked: Unpacked,
}

impl Unpacker<'_> {
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
        let time = Duration::from_secs(header.mtime().map_err(unreadable)?);
        let time = SystemTime::UNIX_EPOCH.checked_add(time);
        let time = time.ok_or_else(|| wrong(&path, "its time is none"))?;
        let is_root = path.as_os_str().is_empty();
        match kind {
            EntryType::Directory => {
                self.directory(&path)?;
                self.directories.push((path, mode, time));
            }
            EntryType::Symlink => {
                let target = entry.link_name().map_err(unreadable)?;
                let target = target.map(|it| it.into_owned()).unwrap_or_default();
                if is_root {
                    let target = target.display();
                    return Err(wrong(
                        self.base.unwrap_or(Path::new(".")),
                        format!("it is a symbolic link: copy what it leads to, {target}"),
                    ));
                }
                if leads_out(&path, &target) {
                    self.leave_out(path, Reason::LeadsOut { target });
                } else {
                    self.symlinks.push((path, target));
                }
            }
            EntryType::Link => {
                let target = entry.link_name().map_err(unreadable)?;
                let target = target.and_then(|target| below(&target, self.base));
                let target =
                    target.ok_or_else(|| wrong(&path, "it is a link to what was not copied"))?;
                self.hard_link(&path, &target)?;
            }
            kind if is_file(kind) => {
                state.allow(None);
                self.file(&path, entry, mode, time)?;
            }
            _ => self.leave_out(path, Reason::Special),
        }
        Ok(())
    }

    fn leave_out(&mut self, path: PathBuf, reason: Reason) {
        self.unpacked.left_out.push(LeftOut { path, reason });
    }

    /// Makes sure that a path below the root is a directory, and that no link leads there.
    fn directory(&mut self, below: &Path) -> Result<()> {
        if self.checked.as_deref() == Some(below) {
            return Ok(());
        }
        let mut path = self.root.to_owned();
        // The destination itself is the caller's, and may be a link.
        let mut found = fs::metadata(&path);
        let mut parts = below.components();
        loop {
            match found {
                Ok(found) if found.is_dir() => {}
                Ok(_) => {
                    let problem = "it is no directory, and nothing is written through it";
                    let error = io::Error::new(io::ErrorKind::NotADirectory, problem);
                    return Err(failure(&path)(error));
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    fs::create_dir(&path).map_err(failure(&path))?;
                }
                Err(error) => return Err(failure(&path)(error)),
            }
            let Some(part) = parts.next() else { break };
            path.push(part);
            found = fs::symlink_metadata(&path);
        }
        self.checked = Some(below.to_owned());
        Ok(())
    }

    /// Where a file goes, whose directory there is then.
    fn place(&mut self, below: &Path) -> Result<PathBuf> {
        match below.parent() {
            None => Ok(self.root.to_owned()),
            Some(parent) => {
                self.directory(parent)?;
                Ok(self.root.join(below))
            }
        }
    }

    fn file(
        &mut self,
        below: &Path,
        entry: &mut Entry<'_, PipeReader>,
        mode: u32,
        time: SystemTime,
    ) -> Result<()> {
        let place = self.place(below)?;
        let failed = failure(&place);
        let size = entry.size();
        let (unfinished, mut file) = Unfinished::file(&place).map_err(&failed)?;
        let mut contents = Digesting::new(entry);
        write(&mut contents, &mut file).map_err(&failed)?;
        if contents.read != size {
            let problem = format!("{size} bytes were announced, {} came", contents.read);
            return Err(wrong(&place, problem));
        }
        if self.modes {
            set_mode(&file, mode).map_err(&failed)?;
        }
        file.set_modified(time).map_err(&failed)?;
        drop(file);
        unfinished.finish(&place).map_err(&failed)?;
        self.unpacked.records.push(Record {
            name: name_bytes(below),
            size,
            digest: contents.digest.finalize().into(),
            link: false,
        });
        Ok(())
    }

    fn hard_link(&mut self, below: &Path, target: &Path) -> Result<()> {
        let from = self.place(target)?;
        let place = self.place(below)?;
        let failed = failure(&place);
        if !fs::symlink_metadata(&from).is_ok_and(|it| it.is_file()) {
            return Err(wrong(&place, "it is a link to what was not copied"));
        }
        let unfinished = Unfinished::link(&from, &place).map_err(&failed)?;
        unfinished.finish(&place).map_err(&failed)?;
        self.unpacked.links += 1;
        Ok(())
    }

    /// What waits until nothing more is written: links, then the modes and times of directories.
    fn finish(mut self) -> Result<Unpacked> {
        for (below, target) in std::mem::take(&mut self.symlinks) {
            // The link before this one may stand in the way.
            self.checked = None;
            let place = self.place(&below)?;
            let made = match fs::symlink_metadata(&place) {
                Ok(there) if !there.is_dir() => fs::remove_file(&place),
                _ => Ok(()),
            };
            made.and_then(|()| symlink(&target, &place))
                .map_err(failure(&place))?;
        }
        // The last of a directory's entries counts; those below it come after it, or before.
        let directories = std::mem::take(&mut self.directories);
        for (below, mode, time) in directories.into_iter().rev() {
            let place = self.root.join(&below);
            let failed = failure(&place);
            let file = File::open(&place).map_err(&failed)?;
            // Not every system lets a directory have its time set.
            let _ = file.set_modified(time);
            if self.modes {
                set_mode(&file, mode).map_err(&failed)?;
            }
        }
        Ok(self.unpacked)
    }
}

/// Whether a link at `below` can lead out of the root. `..` is taken only in front: behind a name,
/// which may be a link itself, nobody knows from where it leads up.
fn leads_out(below: &Path, target: &Path) -> bool {
    let depth = below.components().count().saturating_sub(1);
    let (mut up, mut down) = (0, false);
    for part in target.components() {
        match part {
            Component::CurDir => {}
            Component::Normal(_) => down = true,
            Component::ParentDir if !down => up += 1,
            _ => return true,
        }
    }
    up > depth
}

/// Copies to the end; what is zero becomes a hole.
fn write(from: &mut impl Read, to: &mut File) -> io::Result<()> {
    let mut buffer = vec![0; HOLE];
    let (mut size, mut hole) = (0_u64, false);
    loop {
        let mut filled = 0;
        while filled < HOLE {
            match from.read(&mut buffer[filled..])? {
                0 => break,
                read => filled += read,
            }
        }
        if filled == 0 {
            break;
        }
        let part = &buffer[..filled];
        size += filled as u64;
        hole = part.iter().all(|byte| *byte == 0);
        if hole {
            to.seek(io::SeekFrom::Start(size))?;
        } else {
            to.write_all(part)?;
        }
    }
    if hole { to.set_len(size) } else { Ok(()) }
}

/// A file that has not its final name yet. Dropping it removes it.
struct Unfinished(PathBuf);

impl Unfinished {
    fn name(place: &Path) -> PathBuf {
        let number: u64 = rand::random();
        place.with_file_name(format!(".kubewire-{number:016x}.part"))
    }

    fn file(place: &Path) -> io::Result<(Self, File)> {
        let name = Self::name(place);
        let mut options = OpenOptions::new();
        // Never one that is there, nor what a link leads to.
        let file = options.write(true).create_new(true).open(&name)?;
        Ok((Self(name), file))
    }

    fn link(from: &Path, place: &Path) -> io::Result<Self> {
        let name = Self::name(place);
        fs::hard_link(from, &name)?;
        Ok(Self(name))
    }

    fn finish(self, place: &Path) -> io::Result<()> {
        fs::rename(&self.0, place)
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        // It is gone if it was renamed, unless both names were links to one file already.
        let _ = fs::remove_file(&self.0);
    }
}

#[cfg(unix)]
fn set_mode(file: &File, mode: u32) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    file.set_permissions(fs::Permissions::from_mode(mode))
}

#[cfg(not(unix))]
fn set_mode(_: &File, _: u32) -> io::Result<()> {
    Ok(())
}

#[cfg(unix)]
fn symlink(target: &Path, place: &Path) -> io::Result<()> {
    std::os::unix::fs::symlink(target, place)
}

#[cfg(not(unix))]
fn symlink(_: &Path, _: &Path) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_that_may_lead_out_are_told_from_those_that_cannot() {
        for (below, target, out) in [
            ("a", "b", false),
            ("a", "b/c", false),
            ("d/a", "../b", false),
            ("d/a", "./../b", false),
            ("a", "..", true),
            ("d/a", "../..", true),
            ("a", "/etc/passwd", true),
            // What `b` is, nobody knows.
            ("d/e/a", "b/..", true),
        ] {
            assert_eq!(
                leads_out(Path::new(below), Path::new(target)),
                out,
                "{target}"
            );
        }
    }

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

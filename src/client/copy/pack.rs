//! From the disk to an archive: in flows a path, out come the bytes of a tar archive, and the size
//! and digest of each file that is in it.

use std::{
    collections::HashMap,
    ffi::OsString,
    fs::{self, File, Metadata},
    io::{self, Read, Write},
    path::{Path, PathBuf},
    sync::Arc,
};

use tar::{Builder, EntryType, Header};

use super::{
    LeftOut, Reason, Record,
    glob::Exclude,
    holes::{DataOf, Segments, announce, segments},
    name_bytes,
    pipe::{Awaited, PipeWriter},
    progress::Progress,
    sums::{Digest, Hasher, Sum},
    times,
    verify::Lately,
};
use crate::{
    Result,
    error::{CallerError, Error, Printable},
    limits,
};

/// What of a file's metadata goes along.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Keep {
    /// Nothing but times: files are 0644 or 0755, directories 0755.
    Times,
    /// Modes too.
    Modes,
    /// The numbers of owner and group too.
    Owners,
}

#[derive(Debug, Clone)]
pub(super) struct Plan {
    pub(super) source: PathBuf,
    pub(super) root: PathBuf,
    pub(super) keep: Keep,
    pub(super) exclude: Exclude,
    /// Whether the other side knows how GNU's `tar` writes holes.
    pub(super) holes: bool,
    pub(super) sum: Sum,
    pub(super) progress: Progress,
}

/// What went into an archive.
#[derive(Debug, Default)]
pub(super) struct Packed {
    /// With names below the root.
    pub(super) records: Vec<Record>,
    pub(super) left_out: Vec<LeftOut>,
    /// The directories, children before parents, for when nothing more is written into them: some
    /// tars set a mode, which may forbid writing, and a time at once.
    pub(super) directories: Vec<(PathBuf, Header)>,
    /// The files with holes that went as zeros.
    pub(super) filled: HashMap<Vec<u8>, Filled>,
    /// The file that is not whole yet.
    pub(super) current: Option<Vec<u8>>,
    /// Those of `records` that were sent last.
    pub(super) lately: Lately,
    /// The files that are there already, by their names.
    pub(super) done: HashMap<Arc<[u8]>, Record>,
}

impl Packed {
    /// Forgets what comes again.
    pub(super) fn begin(&mut self) {
        self.records.clear();
        self.left_out.clear();
        self.directories.clear();
    }

    fn record(&mut self, record: Record) {
        self.lately.push(&record);
        self.records.push(record);
    }
}

/// A file with holes that went as zeros.
#[derive(Debug, Clone)]
pub(super) struct Filled {
    pub(super) size: u64,
    /// Where its data are.
    pub(super) segments: Segments,
    pub(super) header: Header,
}

enum Step {
    Enter(PathBuf, PathBuf),
    Leave(PathBuf, Box<Header>),
}

pub(super) fn pack(plan: &Plan, packed: &mut Packed, out: PipeWriter) -> Result<()> {
    packed.begin();
    packed.current = None;
    let awaited = out.awaited();
    let mut packer = Packer {
        awaited,
        archive: Builder::new(out),
        plan,
        names: 0,
        linked: HashMap::new(),
        packed,
    };
    let mut steps = vec![Step::Enter(plan.source.clone(), PathBuf::new())];
    while let Some(step) = steps.pop() {
        match step {
            Step::Enter(path, below) => {
                let failed = failure(&path);
                packer.enter(&path, below, &mut steps).map_err(failed)?;
            }
            Step::Leave(below, header) => packer.packed.directories.push((below, *header)),
        }
    }
    end(packer.archive).map_err(failure(&plan.source))
}

pub(super) fn end(archive: Builder<PipeWriter>) -> io::Result<()> {
    archive.into_inner()?.flush()
}

/// Writes a link, whose target is as it is written, where that fits.
pub(super) fn append_symlink(
    archive: &mut Builder<PipeWriter>,
    header: &mut Header,
    name: &Path,
    target: &Path,
) -> io::Result<()> {
    header.set_entry_type(EntryType::Symlink);
    match header.set_link_name_literal(name_bytes(target)) {
        Ok(()) => archive.append_data(header, name, io::empty()),
        Err(_) => archive.append_link(header, name, target),
    }
}

pub(super) fn pack_directories(
    root: &Path,
    directories: &[(PathBuf, Header)],
    out: PipeWriter,
) -> Result<()> {
    let failed = failure(root);
    let mut archive = Builder::new(out);
    for (below, header) in directories {
        let mut header = header.clone();
        let name = joined(root, below);
        archive
            .append_data(&mut header, &name, io::empty())
            .map_err(&failed)?;
    }
    end(archive).map_err(failed)
}

/// Without the slash that `join` puts before nothing.
pub(super) fn joined(root: &Path, below: &Path) -> PathBuf {
    match below.as_os_str().is_empty() {
        true => root.to_owned(),
        false => root.join(below),
    }
}

/// The names in a directory, the last first.
pub(super) fn children(directory: &Path) -> io::Result<Vec<OsString>> {
    let children = fs::read_dir(directory)?.map(|child| Ok(child?.file_name()));
    let mut children = children.collect::<io::Result<Vec<_>>>()?;
    children.sort_unstable_by(|a, b| b.cmp(a));
    Ok(children)
}

/// The bytes of all files that are to be copied.
pub(super) fn total(plan: &Plan) -> u64 {
    let (mut total, mut left) = (0_u64, vec![(plan.source.clone(), PathBuf::new())]);
    while let Some((path, below)) = left.pop() {
        if plan.exclude.has(&name_bytes(&below)) {
            continue;
        }
        // What cannot be read, the copy says.
        let Ok(found) = fs::symlink_metadata(&path) else {
            continue;
        };
        if found.is_file() {
            total = total.saturating_add(found.len());
        } else if found.is_dir() {
            let children = fs::read_dir(&path).into_iter().flatten().flatten();
            left.extend(children.map(|it| (it.path(), below.join(it.file_name()))));
        }
    }
    total
}

/// Puts the path to an error of the disk.
pub(super) fn failure(path: &Path) -> impl Fn(io::Error) -> Error {
    move |source| {
        CallerError::File {
            path: Printable(path.display()).to_string(),
            source: Arc::new(source),
        }
        .into()
    }
}

struct Packer<'a> {
    awaited: Awaited,
    archive: Builder<PipeWriter>,
    plan: &'a Plan,
    names: usize,
    /// The first name of a file that has several, and its record.
    linked: HashMap<(u64, u64), (PathBuf, usize)>,
    packed: &'a mut Packed,
}

impl Packer<'_> {
    fn enter(&mut self, path: &Path, below: PathBuf, steps: &mut Vec<Step>) -> io::Result<()> {
        let key = name_bytes(&below);
        if self.plan.exclude.has(&key) {
            return Ok(());
        }
        let name = joined(&self.plan.root, &below);
        let metadata = fs::symlink_metadata(path)?;
        let kind = metadata.file_type();
        let mut header = self.plan.header(&metadata);
        if kind.is_dir() {
            header.set_entry_type(EntryType::Directory);
            steps.push(Step::Leave(below.clone(), Box::new(header.clone())));
            header.set_mode(header.mode()? | 0o700);
            self.archive.append_data(&mut header, &name, io::empty())?;
            let children = children(path)?.into_iter();
            steps.extend(children.map(|it| Step::Enter(path.join(&it), below.join(&it))));
            return Ok(());
        }
        if kind.is_symlink() {
            let target = fs::read_link(path)?;
            return append_symlink(&mut self.archive, &mut header, &name, &target);
        }
        if !kind.is_file() {
            self.packed.left_out.push(LeftOut {
                path: path.to_owned(),
                reason: Reason::Special,
            });
            return Ok(());
        }
        self.names = self.names.saturating_add(key.len());
        if self.names > limits::COPY_NAMES {
            return Err(io::Error::other("too many files for one copy"));
        }
        let id = several_names(&metadata);
        if let Some((first, record)) = id.and_then(|id| self.linked.get(&id)) {
            header.set_entry_type(EntryType::Link);
            let first = joined(&self.plan.root, first);
            self.archive.append_link(&mut header, &name, first)?;
            let record = Record {
                name: key.into(),
                link: true,
                ..self.packed.records[*record].clone()
            };
            self.packed.record(record);
            return Ok(());
        }
        if let Some(id) = id {
            self.linked.insert(id, (below, self.packed.records.len()));
        }
        if let Some(record) = self.packed.done.get(&key[..]) {
            let record = record.clone();
            self.packed.record(record);
            return Ok(());
        }
        self.packed.current = Some(key);
        let record = self.file(path, &name, header)?;
        self.packed.current = None;
        self.packed.record(record);
        self.plan.progress.file();
        Ok(())
    }

    fn file(&mut self, path: &Path, name: &Path, mut header: Header) -> io::Result<Record> {
        let file = File::open(path)?;
        // What was opened counts.
        let size = file.metadata()?.len();
        let key = self.packed.current.clone().unwrap_or_default();
        let segments = segments(&file, size);
        let progress = &self.plan.progress;
        let (read, digest) = match segments {
            Some(segments) if self.plan.holes => {
                let more = announce(&mut header, &segments, size)?;
                let mut digest = self.plan.sum.hasher();
                let mut data = DataOf::new(&file, &segments, |bytes, hole| {
                    zeros(&mut digest, hole, &self.awaited, progress);
                    digest.update(bytes);
                    progress.add(bytes.len() as u64);
                });
                let contents = more.chain(&mut data);
                self.archive.append_data(&mut header, name, contents)?;
                let at = data.at();
                let end = segments
                    .last()
                    .map_or(0, |(offset, length)| offset + length);
                if at == end {
                    zeros(&mut digest, size - at, &self.awaited, progress);
                    (size, digest)
                } else {
                    (at, digest)
                }
            }
            segments => {
                header.set_entry_type(EntryType::Regular);
                header.set_size(size);
                let mut contents = Digesting::new(file.take(size), self.plan.sum, progress);
                self.archive.append_data(&mut header, name, &mut contents)?;
                if let Some(segments) = segments {
                    let filled = Filled {
                        size,
                        segments,
                        header,
                    };
                    self.packed.filled.insert(key.clone(), filled);
                }
                (contents.read, contents.digest)
            }
        };
        if read != size {
            let problem = "it became shorter while it was read";
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, problem));
        }
        Ok(Record {
            name: key.into(),
            size,
            digest: digest.finish(),
            link: false,
        })
    }
}

/// Digests the zeros of a hole, as long as anybody waits for that.
fn zeros(digest: &mut Hasher, mut count: u64, awaited: &Awaited, progress: &Progress) {
    static ZEROS: [u8; 32 << 10] = [0; 32 << 10];
    while count > 0 && awaited.check().is_ok() {
        let part = count.min(ZEROS.len() as u64);
        digest.update(&ZEROS[..part as usize]);
        progress.add(part);
        count -= part;
    }
}

impl Plan {
    pub(super) fn header(&self, metadata: &Metadata) -> Header {
        let modified = metadata.modified().map_or(0, times::of_disk);
        #[cfg(unix)]
        let (mode, owner) = {
            use std::os::unix::fs::MetadataExt as _;
            let owner = (metadata.uid().into(), metadata.gid().into());
            (metadata.mode() & 0o7777, owner)
        };
        #[cfg(not(unix))]
        let (mode, owner) = (if metadata.is_dir() { 0o755 } else { 0o644 }, (0, 0));
        self.keep.header(metadata.is_dir(), mode, modified, owner)
    }
}

impl Keep {
    /// The attributes that are kept of these.
    pub(super) fn header(
        self,
        is_dir: bool,
        mode: u32,
        modified: i64,
        owner: (u64, u64),
    ) -> Header {
        let (user, group) = if self == Self::Owners { owner } else { (0, 0) };
        let mut header = Header::new_gnu();
        header.set_size(0);
        header.set_uid(user);
        header.set_gid(group);
        times::set(&mut header, modified);
        header.set_mode(match self {
            Self::Times if is_dir || mode & 0o111 != 0 => 0o755,
            Self::Times => 0o644,
            Self::Modes | Self::Owners => mode,
        });
        header
    }
}

/// What tells a file apart that has other names too.
#[cfg(unix)]
pub(super) fn several_names(metadata: &Metadata) -> Option<(u64, u64)> {
    use std::os::unix::fs::MetadataExt as _;
    (metadata.nlink() > 1).then(|| (metadata.dev(), metadata.ino()))
}

#[cfg(not(unix))]
pub(super) fn several_names(_: &Metadata) -> Option<(u64, u64)> {
    None
}

/// A reader that makes the digest of what passes.
pub(super) struct Digesting<'a, R> {
    inner: R,
    progress: &'a Progress,
    pub(super) digest: Hasher,
    pub(super) read: u64,
}

impl<'a, R> Digesting<'a, R> {
    pub(super) fn new(inner: R, sum: Sum, progress: &'a Progress) -> Self {
        Self {
            inner,
            progress,
            digest: sum.hasher(),
            read: 0,
        }
    }
}

impl<R: Read> Digesting<'_, R> {
    /// Writes all that is left; gives how much that was, and the digest.
    pub(super) fn pass(mut self, to: &mut impl Write) -> io::Result<(u64, Digest)> {
        io::copy(&mut self, to)?;
        to.flush()?;
        Ok((self.read, self.digest.finish()))
    }
}

impl<R: Read> Read for Digesting<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.digest.update(&buffer[..read]);
        self.read += read as u64;
        self.progress.add(read as u64);
        Ok(read)
    }
}

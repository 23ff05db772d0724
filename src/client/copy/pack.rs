//! From the disk to an archive: in flows a path, out come the bytes of a tar archive, and the size
//! and digest of each file that is in it.

use std::{
    collections::HashMap,
    fs::{self, File, Metadata},
    io::{self, Read},
    path::{Path, PathBuf},
    sync::Arc,
    time::UNIX_EPOCH,
};

use sha2::{Digest as _, Sha256};
use tar::{Builder, EntryType, Header};

use super::{LeftOut, Reason, Record, name_bytes, pipe::PipeWriter};
use crate::{
    Result,
    error::{CallerError, Error},
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

/// What went into an archive.
#[derive(Debug, Default)]
pub(super) struct Packed {
    pub(super) records: Vec<Record>,
    pub(super) left_out: Vec<LeftOut>,
}

enum Step {
    Enter(PathBuf, PathBuf),
    /// The directory again, now that nothing more is written into it: some tars set a mode, which
    /// may forbid writing, and a time at once.
    Leave(PathBuf, Box<Header>),
}

/// Writes the archive of `source`, in which its name is `name`.
pub(super) fn pack(source: &Path, name: &Path, keep: Keep, out: PipeWriter) -> Result<Packed> {
    let mut packer = Packer {
        archive: Builder::new(out),
        keep,
        names: 0,
        linked: HashMap::new(),
        packed: Packed::default(),
    };
    let mut steps = vec![Step::Enter(source.to_owned(), name.to_owned())];
    while let Some(step) = steps.pop() {
        match step {
            Step::Enter(path, name) => {
                let failed = failure(&path);
                packer.enter(&path, name, &mut steps).map_err(failed)?;
            }
            Step::Leave(name, mut header) => {
                let failed = failure(&name);
                let archive = &mut packer.archive;
                archive
                    .append_data(&mut header, &name, io::empty())
                    .map_err(failed)?;
            }
        }
    }
    let failed = failure(source);
    let mut out = packer.archive.into_inner().map_err(&failed)?;
    io::Write::flush(&mut out).map_err(&failed)?;
    Ok(packer.packed)
}

/// Puts the path to an error of the disk.
pub(super) fn failure(path: &Path) -> impl Fn(io::Error) -> Error {
    move |source| {
        CallerError::File {
            path: path.display().to_string(),
            source: Arc::new(source),
        }
        .into()
    }
}

struct Packer {
    archive: Builder<PipeWriter>,
    keep: Keep,
    names: usize,
    /// The first name of a file that has several, and its record.
    linked: HashMap<(u64, u64), (PathBuf, usize)>,
    packed: Packed,
}

impl Packer {
    fn enter(&mut self, path: &Path, name: PathBuf, steps: &mut Vec<Step>) -> io::Result<()> {
        let metadata = fs::symlink_metadata(path)?;
        let kind = metadata.file_type();
        let mut header = self.header(&metadata);
        if kind.is_dir() {
            header.set_entry_type(EntryType::Directory);
            steps.push(Step::Leave(name.clone(), Box::new(header.clone())));
            header.set_mode(header.mode()? | 0o700);
            self.archive.append_data(&mut header, &name, io::empty())?;
            let mut children = Vec::new();
            for child in fs::read_dir(path)? {
                children.push(child?.file_name());
            }
            children.sort_unstable_by(|a, b| b.cmp(a));
            let children = children.into_iter();
            steps.extend(children.map(|child| Step::Enter(path.join(&child), name.join(&child))));
            return Ok(());
        }
        if kind.is_symlink() {
            header.set_entry_type(EntryType::Symlink);
            let target = fs::read_link(path)?;
            // As it is written, where it fits.
            return match header.set_link_name_literal(name_bytes(&target)) {
                Ok(()) => self.archive.append_data(&mut header, &name, io::empty()),
                Err(_) => self.archive.append_link(&mut header, &name, &target),
            };
        }
        if !kind.is_file() {
            self.packed.left_out.push(LeftOut {
                path: path.to_owned(),
                reason: Reason::Special,
            });
            return Ok(());
        }
        self.names = self.names.saturating_add(name_bytes(&name).len());
        if self.names > limits::COPY_NAMES {
            return Err(io::Error::other("too many files for one copy"));
        }
        let id = several_names(&metadata);
        if let Some((first, record)) = id.and_then(|id| self.linked.get(&id)) {
            header.set_entry_type(EntryType::Link);
            self.archive.append_link(&mut header, &name, first)?;
            let record = Record {
                name: name_bytes(&name),
                link: true,
                ..self.packed.records[*record].clone()
            };
            self.packed.records.push(record);
            return Ok(());
        }
        let file = File::open(path)?;
        // What was opened counts.
        let size = file.metadata()?.len();
        header.set_entry_type(EntryType::Regular);
        header.set_size(size);
        let mut contents = Digesting::new(file.take(size));
        self.archive
            .append_data(&mut header, &name, &mut contents)?;
        if contents.read != size {
            let problem = "it became shorter while it was read";
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, problem));
        }
        if let Some(id) = id {
            let record = self.packed.records.len();
            self.linked.insert(id, (name.clone(), record));
        }
        self.packed.records.push(Record {
            name: name_bytes(&name),
            size,
            digest: contents.digest.finalize().into(),
            link: false,
        });
        Ok(())
    }

    fn header(&self, metadata: &Metadata) -> Header {
        let mut header = Header::new_gnu();
        header.set_size(0);
        header.set_uid(0);
        header.set_gid(0);
        let modified = metadata.modified().ok();
        let modified = modified.and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        header.set_mtime(modified.map_or(0, |time| time.as_secs()));
        header.set_mode(if metadata.is_dir() { 0o755 } else { 0o644 });
        #[cfg(unix)]
        {
            use std::os::unix::fs::MetadataExt as _;
            match self.keep {
                Keep::Times if metadata.mode() & 0o111 != 0 => header.set_mode(0o755),
                Keep::Times => {}
                Keep::Modes | Keep::Owners => header.set_mode(metadata.mode() & 0o7777),
            }
            if self.keep == Keep::Owners {
                header.set_uid(metadata.uid().into());
                header.set_gid(metadata.gid().into());
            }
        }
        header
    }
}

/// What tells a file apart that has other names too.
#[cfg(unix)]
fn several_names(metadata: &Metadata) -> Option<(u64, u64)> {
    use std::os::unix::fs::MetadataExt as _;
    (metadata.nlink() > 1).then(|| (metadata.dev(), metadata.ino()))
}

#[cfg(not(unix))]
fn several_names(_: &Metadata) -> Option<(u64, u64)> {
    None
}

/// A reader that makes the digest of what passes.
pub(super) struct Digesting<R> {
    inner: R,
    pub(super) digest: Sha256,
    pub(super) read: u64,
}

impl<R> Digesting<R> {
    pub(super) fn new(inner: R) -> Self {
        Self {
            inner,
            digest: Sha256::new(),
            read: 0,
        }
    }
}

impl<R: Read> Read for Digesting<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.digest.update(&buffer[..read]);
        self.read += read as u64;
        Ok(read)
    }
}

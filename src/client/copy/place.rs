//! Places on the disk below one path: in flow names that were checked, out come files,
//! directories and links there, and nothing elsewhere.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Seek as _, Write as _},
    path::{Component, Path, PathBuf},
    time::SystemTime,
};

use super::{
    Record, name_bytes,
    pack::failure,
    sums::{Digest, Hasher, Sum},
    unpack::wrong,
};
use crate::Result;

/// Bytes that are a hole if they are all zero.
const HOLE: usize = 32 << 10;

/// The path that a copy goes to, and what was found to be a directory below it.
#[derive(Debug)]
pub(super) struct Root {
    path: PathBuf,
    checked: Option<PathBuf>,
}

impl Root {
    /// Makes the directories before it.
    pub(super) fn new(path: PathBuf) -> Result<Self> {
        if let Some(parent) = path.parent().filter(|it| !it.as_os_str().is_empty()) {
            fs::create_dir_all(parent).map_err(failure(parent))?;
        }
        Ok(Self {
            path,
            checked: None,
        })
    }

    /// Makes sure that a path below the root is a directory, and that no link leads there.
    pub(super) fn directory(&mut self, below: &Path) -> Result<()> {
        if self.checked.as_deref() == Some(below) {
            return Ok(());
        }
        let mut path = self.path.clone();
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

    /// Where a file goes, whose directory there is then. What is there is replaced, if it is a file
    /// or a link.
    fn place(&mut self, below: &Path) -> Result<PathBuf> {
        let place = match below.parent() {
            None => self.path.clone(),
            Some(parent) => {
                self.directory(parent)?;
                self.path.join(below)
            }
        };
        match fs::symlink_metadata(&place).map(|there| there.file_type()) {
            Ok(there) if !there.is_file() && !there.is_symlink() && !there.is_dir() => {
                let problem = "a device, a pipe or a socket is there, and is not replaced";
                Err(failure(&place)(io::Error::other(problem)))
            }
            _ => Ok(place),
        }
    }

    /// A file that gets its name when it is whole.
    pub(super) fn file(&mut self, about: About, sum: Sum) -> Result<Growing> {
        let place = self.place(&about.below)?;
        let (unfinished, file) = Unfinished::file(&place).map_err(failure(&place))?;
        Ok(Growing {
            about,
            place,
            unfinished,
            file,
            digest: sum.hasher(),
            size: 0,
            hole: false,
        })
    }

    pub(super) fn hard_link(&mut self, below: &Path, target: &Path) -> Result<()> {
        let from = self.place(target)?;
        let place = self.place(below)?;
        let failed = failure(&place);
        if !fs::symlink_metadata(&from).is_ok_and(|it| it.is_file()) {
            return Err(wrong(&place, "it is a link to what was not copied"));
        }
        let unfinished = Unfinished::link(&from, &place).map_err(&failed)?;
        unfinished.finish(&place).map_err(&failed)
    }

    pub(super) fn symlink(
        &mut self,
        below: &Path,
        target: &Path,
        owner: Option<(u32, u32)>,
    ) -> Result<()> {
        // The link before this one may stand in the way.
        self.checked = None;
        let place = self.place(below)?;
        let made = match fs::symlink_metadata(&place) {
            Ok(there) if !there.is_dir() => fs::remove_file(&place),
            _ => Ok(()),
        };
        made.and_then(|()| symlink(target, &place))
            .and_then(|()| owner.map_or(Ok(()), |owner| own_link(&place, owner)))
            .map_err(failure(&place))
    }

    /// Gives a directory, in which nothing more is written, its attributes.
    pub(super) fn finish(&self, below: &Path, attributes: Attributes) -> Result<()> {
        let place = self.path.join(below);
        let failed = failure(&place);
        let file = File::open(&place).map_err(&failed)?;
        // Not every system lets a directory have its time set.
        let _ = attributes.time.map(|time| file.set_modified(time));
        let rest = Attributes {
            time: None,
            ..attributes
        };
        rest.give(&file).map_err(&failed)
    }
}

/// What is known of a file before its contents.
#[derive(Debug, Clone)]
pub(super) struct About {
    pub(super) below: PathBuf,
    /// Its size, if that was announced.
    pub(super) size: Option<u64>,
    pub(super) attributes: Attributes,
}

/// What of a file or directory is kept beside its contents.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Attributes {
    pub(super) mode: Option<u32>,
    pub(super) time: Option<SystemTime>,
    /// The numbers of owner and group.
    pub(super) owner: Option<(u32, u32)>,
}

impl Attributes {
    fn give(&self, file: &File) -> io::Result<()> {
        if let Some(owner) = self.owner {
            own(file, owner)?;
        }
        // A new owner takes bits of the mode away.
        if let Some(mode) = self.mode {
            set_mode(file, mode)?;
        }
        self.time.map_or(Ok(()), |time| file.set_modified(time))
    }
}

/// A file that is being written. Dropping it removes it.
#[derive(Debug)]
pub(super) struct Growing {
    pub(super) about: About,
    pub(super) place: PathBuf,
    unfinished: Unfinished,
    file: File,
    digest: Hasher,
    pub(super) size: u64,
    hole: bool,
}

impl Growing {
    pub(super) fn digest(&self) -> Digest {
        self.digest.clone().finish()
    }

    /// Writes more; what is zero becomes a hole.
    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<()> {
        let failed = failure(&self.place);
        for part in bytes.chunks(HOLE) {
            self.digest.update(part);
            self.size = self.size.saturating_add(part.len() as u64);
            self.hole = part.iter().all(|byte| *byte == 0);
            match self.hole {
                true => self.file.seek(io::SeekFrom::Start(self.size)).map(|_| ()),
                false => self.file.write_all(part),
            }
            .map_err(&failed)?;
        }
        Ok(())
    }

    /// Gives it its name, for it is whole.
    pub(super) fn finish(self) -> Result<Record> {
        let failed = failure(&self.place);
        if self.hole {
            self.file.set_len(self.size).map_err(&failed)?;
        }
        self.about.attributes.give(&self.file).map_err(&failed)?;
        drop(self.file);
        self.unfinished.finish(&self.place).map_err(&failed)?;
        Ok(Record {
            name: name_bytes(&self.about.below).into(),
            size: self.size,
            digest: self.digest.finish(),
            link: false,
        })
    }
}

/// Whether a link at `below` can lead out of the root. `..` is taken only in front: behind a name,
/// which may be a link itself, nobody knows from where it leads up.
pub(super) fn leads_out(below: &Path, target: &Path) -> bool {
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

/// A file that has not its final name yet. Dropping it removes it.
#[derive(Debug)]
struct Unfinished(PathBuf);

impl Unfinished {
    fn name(place: &Path) -> PathBuf {
        place.with_file_name(super::aside())
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
fn own(file: &File, (user, group): (u32, u32)) -> io::Result<()> {
    std::os::unix::fs::fchown(file, Some(user), Some(group))
}

#[cfg(not(unix))]
fn own(_: &File, _: (u32, u32)) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(unix)]
fn own_link(place: &Path, (user, group): (u32, u32)) -> io::Result<()> {
    std::os::unix::fs::lchown(place, Some(user), Some(group))
}

#[cfg(not(unix))]
fn own_link(_: &Path, _: (u32, u32)) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
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

    #[cfg(unix)]
    #[test]
    fn what_is_no_file_is_not_replaced() {
        use std::os::unix::fs::FileTypeExt as _;

        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let _socket = std::os::unix::net::UnixListener::bind(&path).unwrap();
        for (root, below) in [(path.clone(), ""), (dir.path().to_owned(), "s")] {
            let mut root = Root::new(root).unwrap();
            let about = About {
                below: below.into(),
                size: None,
                attributes: Attributes::default(),
            };
            let error = root.file(about, Sum::default()).unwrap_err().to_string();
            assert!(error.contains("is not replaced"), "{error}");
            let link = root.symlink(Path::new(below), Path::new("x"), None);
            assert!(link.is_err());
        }
        assert!(fs::metadata(&path).unwrap().file_type().is_socket());
    }

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
}

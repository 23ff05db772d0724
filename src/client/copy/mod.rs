//! Copies of files and trees: in flow a path on this machine and one in a container, out comes
//! what was copied.
//!
//! ```text
//!   disk -> pack   -> pipe -> stdin of `tar -x`        then `sha256sum` there finds
//!   disk <- unpack <- pipe <- stdout of `tar -c`       what was digested here on the way
//! ```

mod pack;
mod pipe;
mod side;
mod unpack;
mod verify;

use std::path::{Path, PathBuf};

use self::{
    pack::{Keep, pack},
    pipe::{PipeWriter, pipe},
    side::{Side, complaint, feed, joined, of_stream},
    unpack::{Bounds, compare, unpack},
    verify::verify,
};
#[cfg(doc)]
use super::Exec;
use super::{Pod, Stdio};
use crate::{
    Result,
    error::{CallerError, Error},
    limits,
};

/// What was copied.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Copied {
    /// How many regular files; one with several names counts for each.
    pub files: u64,
    /// The bytes in them, once for each file.
    pub bytes: u64,
    /// Whether each file's digest in the container was found to be the same as here. It always is
    /// after [`CopyTo::run`]; after [`CopyFrom::run`] it is if the container has `xargs` and
    /// `sha256sum`.
    pub compared: bool,
    /// What was not copied, and why.
    pub left_out: Vec<LeftOut>,
}

/// Something that was not copied.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct LeftOut {
    /// Its path: on this machine, or below the destination.
    pub path: PathBuf,
    /// Why not.
    pub reason: Reason,
}

/// Why something was not copied.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reason {
    /// It is no file, directory or link: a device, a socket, a pipe.
    Special,
    /// A symbolic link that leads, or may lead, out of what is copied.
    LeadsOut {
        /// Where it leads.
        target: PathBuf,
    },
}

impl std::fmt::Display for LeftOut {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let path = self.path.display();
        match &self.reason {
            Reason::Special => write!(f, "{path} is no file, directory or link"),
            Reason::LeadsOut { target } => {
                let target = target.display();
                write!(f, "{path} is a link that leads out, to {target}")
            }
        }
    }
}

impl Pod {
    /// Copies a file or a tree of this machine to a container; see [`CopyTo`].
    pub fn copy_to(&self, source: impl Into<PathBuf>, destination: impl Into<String>) -> CopyTo {
        CopyTo {
            side: Side::new(self),
            source: source.into(),
            destination: destination.into(),
            keep: Keep::Modes,
        }
    }

    /// Copies a file or a tree of a container to this machine; see [`CopyFrom`].
    pub fn copy_from(
        &self,
        source: impl Into<String>,
        destination: impl Into<PathBuf>,
    ) -> CopyFrom {
        CopyFrom {
            side: Side::new(self),
            source: source.into(),
            destination: destination.into(),
            modes: true,
            bounds: Bounds {
                entries: limits::COPY_ENTRIES,
                bytes: limits::COPY_BYTES,
            },
        }
    }
}

/// A copy from this machine to a container, by the container's `tar`.
///
/// The destination is the copy's name; its directory must exist. One that ends with a slash is
/// the directory into which the copy goes under its own name. What is there already is replaced
/// file by file, and what else is there stays.
///
/// Kept are modes, times in seconds, symbolic and hard links. Owner is who runs `tar`, unless
/// [`preserve_owner`](Self::preserve_owner) asks for more. Holes in files arrive as zeros. busybox
/// makes links last, so that the directories that they are in have new times.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let server = kubewire::testing::ApiServer::builder()
/// #     .pod("default", "web-0", |pod| pod.container("main", ["sleep", "infinity"]))
/// #     .start()
/// #     .await?;
/// # let client = kubewire::Client::new(&server.config())?;
/// # let (here, there) = (tempfile::tempdir()?, tempfile::tempdir()?);
/// # std::fs::write(here.path().join("index.html"), "hello")?;
/// # let (site, srv) = (here.path(), there.path().to_str().expect("it is UTF-8"));
/// // `site` is a directory here, `srv` is one in the container.
/// let copied = client.pod("default", "web-0").copy_to(site, format!("{srv}/site")).run().await?;
/// assert_eq!((copied.files, copied.bytes), (1, 5));
/// assert!(copied.left_out.is_empty());
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
#[must_use = "nothing is copied until it is run"]
pub struct CopyTo {
    side: Side,
    source: PathBuf,
    destination: String,
    keep: Keep,
}

impl CopyTo {
    /// The container; without one the pod's default container, or its only one.
    pub fn container(mut self, name: impl Into<String>) -> Self {
        self.side.container = Some(name.into());
        self
    }

    /// Gives the copy the owners' numbers too, which `tar` can only do as root.
    pub fn preserve_owner(mut self) -> Self {
        self.keep = Keep::Owners;
        self
    }

    /// Does not keep modes: files are 0644, or 0755 if anyone may execute them.
    pub fn no_preserve(mut self) -> Self {
        self.keep = Keep::Times;
        self
    }

    /// Copies, and then compares every file: with `sha256sum` in the container or, if that or
    /// `xargs` is missing there, by reading all back.
    ///
    /// Cancel safety: dropping the future closes the connection. In the container, files are
    /// written under their names, so that one of them may then be incomplete.
    ///
    /// # Errors
    ///
    /// * [`CallerError::File`] for a file that cannot be read, or becomes shorter meanwhile;
    /// * [`Error::Api`] with the words of `tar` if that fails, and those of
    ///   [`Exec::spawn`];
    /// * [`PeerError::Copy`](crate::error::PeerError::Copy), which names the file, if something
    ///   else is in the container than was sent, whatever the server said;
    /// * [`Error::Peer`] if the server lacks `v5.channel.k8s.io`, over which alone `tar` sees the
    ///   end of its input.
    pub async fn run(&self) -> Result<Copied> {
        let (directory, name) = split(&self.destination);
        let name = if self.destination.ends_with('/') {
            None
        } else {
            name
        };
        let (directory, name) = match name {
            Some(name) => (directory, PathBuf::from(name)),
            None => {
                let name = self.source.file_name();
                let name = name.ok_or_else(|| unnamed(&self.source))?;
                (&self.destination[..], PathBuf::from(name))
            }
        };
        let mut command = vec!["tar", "-x", "-p", "-f", "-", "-C", directory];
        if self.keep != Keep::Owners {
            // As whoever runs it (GNU tar and busybox alike).
            command.insert(2, "-o");
        }
        let packed = self.send(command, &name).await?;
        if !verify(&self.side, directory, &packed.records).await? {
            let records = packed.records.clone();
            let name = name.to_string_lossy();
            let job = move |input| compare(input, &records);
            self.side.receive(directory, Some(&name), job).await?;
        }
        let sizes = packed.records.iter().filter(|it| !it.link);
        Ok(Copied {
            files: packed.records.len() as u64,
            bytes: sizes.map(|it| it.size).sum(),
            compared: true,
            left_out: packed.left_out,
        })
    }

    async fn send(&self, command: Vec<&str>, name: &Path) -> Result<pack::Packed> {
        let exec = self.side.exec(command).stdin(Stdio::piped());
        let exec = exec.stdout(Stdio::null()).require_half_close();
        let mut child = exec.spawn().await?;
        let (to, from) = pipe();
        let (source, name, keep) = (self.source.clone(), name.to_owned(), self.keep);
        let packing =
            tokio::task::spawn_blocking(move || pack(&source, &name, keep, PipeWriter::new(to)));
        let (stdin, stderr) = (child.stdin.take(), child.stderr.take());
        let work = async {
            let fed = feed(from, stdin).await;
            let packed = joined(packing).await;
            if let (Ok(()), Err(error)) = (&fed, &packed) {
                child.kill();
                return Err(error.clone());
            }
            let status = child.wait().await?;
            Ok((fed, packed, status))
        };
        let (done, complaint) = tokio::join!(work, complaint(stderr));
        let (fed, packed, status) = done?;
        self.side.judge(&status, "copy to", &complaint)?;
        fed.map_err(of_stream)?;
        packed
    }
}

/// A copy from a container to this machine, by the container's `tar`.
///
/// The destination is the copy's name; directories before it are made. One that ends with a slash
/// is the directory into which the copy goes under its own name.
///
/// What a container sends is not trusted. Nothing is written outside the destination: a name that
/// leads out is an error, and so is a symbolic link on this machine below the destination that a
/// name goes through. Symbolic links that lead out and devices are left out and
/// [named](Copied::left_out). Kept are permissions (not set-user-ID and its like), times in
/// seconds, hard links; zeros become holes. A file gets its name when it is whole.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let server = kubewire::testing::ApiServer::builder()
/// #     .pod("default", "web-0", |pod| pod.container("main", ["sleep", "infinity"]))
/// #     .start()
/// #     .await?;
/// # let client = kubewire::Client::new(&server.config())?;
/// # let (here, there) = (tempfile::tempdir()?, tempfile::tempdir()?);
/// # std::fs::write(there.path().join("app.log"), "hello\n")?;
/// # let (here, log) = (here.path(), there.path().join("app.log"));
/// # let log = log.to_str().expect("it is UTF-8");
/// // `log` is a file in the container.
/// let pod = client.pod("default", "web-0");
/// let copied = pod.copy_from(log, here.join("copy.log")).max_bytes(1 << 30).run().await?;
/// assert_eq!(copied.files, 1);
/// assert_eq!(std::fs::read(here.join("copy.log"))?, b"hello\n");
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
#[must_use = "nothing is copied until it is run"]
pub struct CopyFrom {
    side: Side,
    source: String,
    destination: PathBuf,
    modes: bool,
    bounds: Bounds,
}

impl CopyFrom {
    /// The container; without one the pod's default container, or its only one.
    pub fn container(mut self, name: impl Into<String>) -> Self {
        self.side.container = Some(name.into());
        self
    }

    /// Does not keep modes: files and directories get those of new ones.
    pub fn no_preserve(mut self) -> Self {
        self.modes = false;
        self
    }

    /// How many files, directories and links may come; [`limits::COPY_ENTRIES`] unless set.
    pub fn max_entries(mut self, entries: u64) -> Self {
        self.bounds.entries = entries;
        self
    }

    /// How many bytes of files may come; [`limits::COPY_BYTES`] unless set.
    pub fn max_bytes(mut self, bytes: u64) -> Self {
        self.bounds.bytes = bytes;
        self
    }

    /// Copies, and then compares every file with `sha256sum` in the container. Without that or
    /// `xargs`, what tells that all has arrived is the archive's own structure, to its end.
    ///
    /// Cancel safety: dropping the future closes the connection. Files that are whole stay; of one
    /// that is not, at most a name such as `.kubewire-0123456789abcdef.part` stays, if the process
    /// ends at once.
    ///
    /// # Errors
    ///
    /// * [`CallerError::File`] for what cannot be written here;
    /// * [`Error::Api`] with the words of `tar` if that fails, and those of
    ///   [`Exec::spawn`];
    /// * [`PeerError::Copy`](crate::error::PeerError::Copy), which names the file, for an archive
    ///   that is cut, too large, or would write elsewhere, and for a file that is another in the
    ///   container, because it has changed meanwhile.
    pub async fn run(&self) -> Result<Copied> {
        let (directory, name) = split(&self.source);
        let directory = if name.is_some() {
            directory
        } else {
            &self.source
        };
        let base = name.map(PathBuf::from);
        let last = self.destination.as_os_str().as_encoded_bytes().last();
        let into = last.is_some_and(|last| std::path::is_separator(char::from(*last)))
            || self.destination.file_name().is_none();
        let root = match (&base, into) {
            (_, false) => self.destination.clone(),
            (Some(base), true) => self.destination.join(base),
            (None, true) => return Err(unnamed(Path::new(&self.source))),
        };
        let (modes, bounds) = (self.modes, self.bounds);
        let below = base.clone();
        let job = move |input| unpack(input, below.as_deref(), &root, modes, bounds);
        let unpacked = self.side.receive(directory, name, job).await?;
        // Names in the container: the destination's have no base.
        let rooted = match name {
            Some(name) => format!("{}/{name}", directory.trim_end_matches('/')),
            None => directory.to_owned(),
        };
        let compared = verify(&self.side, &rooted, &unpacked.records).await?;
        Ok(Copied {
            files: unpacked.records.len() as u64 + unpacked.links,
            bytes: unpacked.records.iter().map(|it| it.size).sum(),
            compared,
            left_out: unpacked.left_out,
        })
    }
}

/// A file that was copied.
#[derive(Debug, Clone)]
struct Record {
    name: Vec<u8>,
    size: u64,
    digest: [u8; 32],
    /// Whether another name of the file came before.
    link: bool,
}

impl Record {
    /// Its name, to be shown.
    fn path(&self) -> PathBuf {
        PathBuf::from(String::from_utf8_lossy(&self.name).into_owned())
    }
}

/// The directory and the name in it, if the path has one: `/`, `.` and `..` have none.
fn split(path: &str) -> (&str, Option<&str>) {
    let trimmed = path.trim_end_matches('/');
    let (directory, name) = match trimmed.rsplit_once('/') {
        Some(("", name)) => ("/", name),
        Some((directory, name)) => (directory, name),
        None => (".", trimmed),
    };
    match name {
        "" | "." | ".." => (path, None),
        name => (directory, Some(name)),
    }
}

fn unnamed(path: &Path) -> Error {
    CallerError::Path {
        path: path.display().to_string(),
        problem: "has no name that the copy could have: give the destination one",
    }
    .into()
}

#[cfg(unix)]
fn name_bytes(path: &Path) -> Vec<u8> {
    std::os::unix::ffi::OsStrExt::as_bytes(path.as_os_str()).to_vec()
}

#[cfg(not(unix))]
fn name_bytes(path: &Path) -> Vec<u8> {
    path.to_string_lossy().replace('\\', "/").into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_split_into_directory_and_name() {
        for (path, expected) in [
            ("/srv/site", ("/srv", Some("site"))),
            ("/srv/site/", ("/srv", Some("site"))),
            ("/site", ("/", Some("site"))),
            ("site", (".", Some("site"))),
            ("a/-b", ("a", Some("-b"))),
            ("/", ("/", None)),
            ("/srv/.", ("/srv/.", None)),
            ("..", ("..", None)),
        ] {
            assert_eq!(split(path), expected, "{path}");
        }
    }
}

//! Copies of files and trees: in flow a path on this machine and one in a container, out comes
//! what was copied.
//!
//! ```text
//!   disk -> pack   -> pipe -> stdin of `tar -x`        then `sha256sum` or `cksum`
//!   disk <- unpack <- pipe <- stdout of `tar -c`       there finds what was digested here
//! ```
//!
//! Without `tar`, [`cat`] and [`walk`] have a shell do its work. A copy to a container goes to a
//! [`stage`], which gets its name when it is verified. What a cut connection has left on either side
//! is found again by [`resume`] and [`from`].

mod between;
mod cat;
mod finish;
mod from;
mod glob;
mod holes;
mod options;
mod pack;
mod pipe;
mod place;
mod progress;
mod relay;
mod resume;
mod shell;
mod side;
mod stage;
mod sums;
mod times;
mod to;
mod tools;
mod unpack;
mod verify;
mod walk;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use self::side::Side;
pub use self::{between::CopyBetween, from::CopyFrom, progress::Progress, to::CopyTo};
use super::{Exec, Pod};
use crate::{
    Result,
    error::{CallerError, Error, Printable, panic::lock},
};

macro_rules! copy_options {
    () => {
        setters! {
            /// The container; without one the pod's default container, or its only one.
            fn container(name: impl Into<String>) options.side.container = Some(name.into());

            /// Gives the copy the owners' numbers too, which needs root where it goes.
            fn preserve_owner() options.keep = super::pack::Keep::Owners;

            /// Does not keep modes: the copy has those of new files and directories; in a container 0644,
            /// or 0755 if anyone may execute them.
            fn no_preserve() options.keep = super::pack::Keep::Times;

            /// Leaves out what matches a pattern, with all below it. `*`, `?` and `[a-z]` are as in a
            /// shell, except that `*` takes slashes too; a pattern may match from any name of a path
            /// on, as those of `tar --exclude` do. May be called several times.
            fn exclude(pattern: impl Into<String>) options.exclude.push(pattern.into());

            /// How often the copy goes on after its connection was cut; never unless set, without end
            /// if `u32::MAX`. It waits before that, longer each time, unless it has come on since.
            ///
            /// Files that are whole do not come again, and of a file that was cut only the rest, if
            /// what is there is the same on both sides. That needs `find` or `xargs`, and `sha256sum`
            /// or `cksum` in the container; without them the copy begins anew.
            fn retries(retries: u32) options.retries = retries;

            /// How long the copy may take, all attempts together; without limit unless set.
            fn deadline(limit: Duration) options.deadline = Some(limit);
        }

        /// Says there how far it is.
        pub fn progress(mut self, progress: &Progress) -> Self {
            progress.watch();
            self.options.progress = progress.clone();
            self
        }
    };
}
use copy_options;

/// What was copied.
///
/// ```no_run
/// # async fn run(pod: kubewire::Pod) -> kubewire::Result<()> {
/// let copied = pod.copy_from("/var/log", "logs").run().await?;
/// println!("{} files, {} bytes", copied.files, copied.bytes);
/// for left_out in &copied.left_out {
///     println!("not copied: {left_out}");
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Copied {
    /// How many regular files; one with several names counts for each.
    pub files: u64,
    /// The bytes in them, once for each file.
    pub bytes: u64,
    /// Whether each file's digest in the container was found to be the same as here. It always is
    /// after [`CopyTo::run`]; after the other two it is if the container that was copied from has
    /// `xargs` and `sha256sum` or `cksum`.
    pub compared: bool,
    /// What was not copied, and why.
    pub left_out: Vec<LeftOut>,
    /// What of the files was not kept, for want of programs in the container or of rights there.
    pub not_kept: Vec<NotKept>,
}

/// Something that was not copied.
///
/// ```no_run
/// # fn links(copied: &kubewire::copy::Copied) -> usize {
/// use kubewire::copy::Reason;
///
/// let left_out = copied.left_out.iter();
/// left_out.filter(|it| matches!(it.reason, Reason::LeadsOut { .. })).count()
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct LeftOut {
    /// Its path: on this machine, or below the destination.
    pub path: PathBuf,
    /// Why not.
    pub reason: Reason,
}

/// Why something was [not copied](LeftOut).
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
    /// A symbolic link, and the container lacks the program that it takes.
    Lacks {
        /// The program.
        program: &'static str,
    },
}

/// In one line, whatever is in the name.
impl std::fmt::Display for LeftOut {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let itself = Path::new("it");
        let is_named = !self.path.as_os_str().is_empty();
        let path = Printable(if is_named { &self.path } else { itself }.display());
        match &self.reason {
            Reason::Special => write!(f, "{path} is no file, directory or link"),
            Reason::LeadsOut { target } => {
                let target = Printable(target.display());
                write!(f, "{path} is a link that leads out, to {target}")
            }
            Reason::Lacks { program } => {
                write!(f, "{path} is a link, and the container has no {program}")
            }
        }
    }
}

/// What of a file may get lost on its way.
///
/// ```no_run
/// # fn check(copied: &kubewire::copy::Copied) {
/// use kubewire::copy::NotKept;
///
/// assert!(!copied.not_kept.contains(&NotKept::Modes), "who may read them would be open");
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum NotKept {
    /// Who may read, write and execute it.
    Modes,
    /// When it was written last.
    Times,
    /// The numbers of its owner and group.
    Owners,
    /// That two names are of one file.
    HardLinks,
    /// The holes in it, which are zeros now.
    Holes,
}

impl NotKept {
    const ALL: [Self; 5] = [
        Self::Modes,
        Self::Times,
        Self::Owners,
        Self::HardLinks,
        Self::Holes,
    ];

    const fn word(self) -> &'static [u8] {
        match self {
            Self::Modes => b"modes",
            Self::Times => b"times",
            Self::Owners => b"owners",
            Self::HardLinks => b"hard links",
            Self::Holes => b"holes",
        }
    }
}

impl std::fmt::Display for NotKept {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&String::from_utf8_lossy(self.word()))
    }
}

impl Pod {
    /// Copies a file or a tree of this machine to a container; see [`CopyTo`].
    pub fn copy_to(&self, source: impl Into<PathBuf>, destination: impl Into<String>) -> CopyTo {
        CopyTo::new(self, source.into(), destination.into())
    }

    /// Copies a file or a tree of a container to this machine; see [`CopyFrom`].
    pub fn copy_from(
        &self,
        source: impl Into<String>,
        destination: impl Into<PathBuf>,
    ) -> CopyFrom {
        CopyFrom::new(self, source.into(), destination.into())
    }

    /// Copies a file or a tree of a container to one of another pod; see [`CopyBetween`].
    pub fn copy_between(
        &self,
        source: impl Into<String>,
        other: &Pod,
        destination: impl Into<String>,
    ) -> CopyBetween {
        CopyBetween::new(self, source.into(), other, destination.into())
    }

    /// The exec whose output is an archive of a file or a tree, in the form of `tar`, with names
    /// that begin with its own.
    pub fn archive_of(&self, source: impl AsRef<str>) -> Exec {
        let source = from::Source::new(source.as_ref());
        let what = source.what();
        self.exec(source.archive(&what, false))
    }

    /// The exec whose input is an archive, in the form of `tar`, of what goes into a directory.
    /// Nothing is verified, and files are written under their names.
    pub fn archive_into(&self, directory: impl Into<String>) -> Exec {
        let words = ["tar", "-x", "-f", "-", "-C"].map(str::to_owned);
        self.exec(words.into_iter().chain([directory.into()]))
    }

    /// The paths in a container that match a pattern of its shell. One that matches nothing is
    /// what it is.
    ///
    /// # Errors
    ///
    /// Those of [`Exec::output`], and [`CallerError::Path`] for a name that is no text.
    pub async fn matching(
        &self,
        container: Option<&str>,
        pattern: impl AsRef<str>,
    ) -> Result<Vec<String>> {
        let mut side = Side::new(self);
        side.container = container.map(str::to_owned);
        let exec = side.script(shell::MATCH, [pattern.as_ref()]);
        let said = side.run(exec, "look into").await?;
        let names = said.split(|byte| *byte == 0).filter(|it| !it.is_empty());
        let names = names.map(|name| {
            String::from_utf8(name.to_vec()).map_err(|_| {
                let path = String::from_utf8_lossy(name).into_owned();
                let problem = "is no text: copy the directory that it is in";
                CallerError::Path { path, problem }.into()
            })
        });
        names.collect()
    }
}

#[derive(Debug, Clone)]
struct Record {
    name: Arc<[u8]>,
    size: u64,
    digest: sums::Digest,
    /// Whether another name of the file came before.
    link: bool,
}

impl AsRef<[u8]> for Record {
    fn as_ref(&self) -> &[u8] {
        &self.name
    }
}

impl Record {
    /// Its path below the copy's, to be shown.
    fn shown(&self, copy: &Path) -> PathBuf {
        pack::joined(copy, &bytes_path(&self.name))
    }
}

/// A name for what is not whole yet.
fn aside() -> String {
    let number: u64 = rand::random();
    format!(".kubewire-{number:016x}.part")
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

/// A name below a directory there. What was copied alone has none below itself.
fn below(directory: &[u8], name: &[u8]) -> Vec<u8> {
    match name {
        b"" => directory.to_vec(),
        name => [directory, b"/", name].concat(),
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

#[cfg(unix)]
fn bytes_path(name: &[u8]) -> PathBuf {
    PathBuf::from(<std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(name))
}

#[cfg(not(unix))]
fn bytes_path(name: &[u8]) -> PathBuf {
    PathBuf::from(String::from_utf8_lossy(name).into_owned())
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

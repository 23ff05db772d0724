//! What the tests of copies share: a server whose container has the programs that it is given, trees
//! with all that is awkward, and what is in them.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    fs::{self, File},
    io::{Seek as _, Write as _},
    os::unix::{
        ffi::OsStrExt as _,
        fs::{MetadataExt as _, PermissionsExt as _, symlink},
    },
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use kubewire::{Client, Error, Pod, error::PeerError, testing::ApiServer};
use tempfile::TempDir;

pub(crate) type Result<T = (), E = Box<dyn std::error::Error>> = std::result::Result<T, E>;

/// A server with one pod, whose container finds its programs in `path`.
pub(crate) struct Fixture {
    pub(crate) server: ApiServer,
    pub(crate) pod: Pod,
    pub(crate) other: Pod,
    /// What both sides have.
    pub(crate) disk: TempDir,
}

impl Fixture {
    pub(crate) async fn new() -> Result<Self> {
        Self::with_path("/usr/local/bin:/usr/bin:/bin").await
    }

    pub(crate) async fn with_path(path: &str) -> Result<Self> {
        Self::with_paths(path, path).await
    }

    /// Two pods, each with a `PATH` of its own.
    pub(crate) async fn with_paths(path: &str, other: &str) -> Result<Self> {
        let sleep = ["/bin/sleep", "infinity"];
        let server = ApiServer::builder()
            .input_ends_with_output()
            .pod("default", "web-0", |pod| {
                pod.container_with("main", sleep, |c| c.env("PATH", path))
            })
            .pod("default", "web-1", |pod| {
                pod.container_with("main", sleep, |c| c.env("PATH", other))
            })
            .start()
            .await?;
        let client = Client::new(&server.config())?;
        let (pod, other) = (
            client.pod("default", "web-0"),
            client.pod("default", "web-1"),
        );
        let disk = tempfile::tempdir()?;
        Ok(Self {
            server,
            pod,
            other,
            disk,
        })
    }

    /// With these programs alone: scripts, or links to programs.
    pub(crate) async fn with_programs(programs: &[(&str, Program<'_>)]) -> Result<(Self, TempDir)> {
        let bin = bin(programs)?;
        Ok((Self::with_path(bin.path().to_str().unwrap()).await?, bin))
    }

    /// The names of what was to have another name by now, or to be gone.
    pub(crate) fn aside(&self) -> Result<Vec<PathBuf>> {
        let mut found = Vec::new();
        let mut left = vec![self.disk.path().to_owned()];
        while let Some(path) = left.pop() {
            for entry in fs::read_dir(path)? {
                let entry = entry?;
                if entry
                    .file_name()
                    .to_string_lossy()
                    .starts_with(".kubewire-")
                {
                    found.push(entry.path());
                } else if entry.file_type()?.is_dir() {
                    left.push(entry.path());
                }
            }
        }
        Ok(found)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.disk.path().join(name)
    }

    pub(crate) fn remote(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }
}

/// A directory of programs.
pub(crate) fn bin(programs: &[(&str, Program<'_>)]) -> Result<TempDir> {
    let bin = tempfile::tempdir()?;
    for (name, program) in programs {
        let path = bin.path().join(name);
        match program {
            Program::Link(to) => symlink(to, path)?,
            Program::Script(script) => {
                let path_and_script = format!("#!/bin/sh\nPATH=/usr/bin:/bin\n{script}\n");
                fs::write(&path, path_and_script)?;
                fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
            }
        }
    }
    Ok(bin)
}

pub(crate) const BUSYBOX: &str = "/usr/bin/busybox";

/// What a copy needs that is kept aside until it is compared.
pub(crate) const NEEDED: [&str; 10] = [
    "tar",
    "xargs",
    "sha256sum",
    "sh",
    "cat",
    "mkdir",
    "mv",
    "rm",
    "chmod",
    "touch",
];

/// busybox under these names, if there is one.
pub(crate) fn busybox(names: &[&str]) -> Result<Option<TempDir>> {
    if !Path::new(BUSYBOX).exists() {
        eprintln!("skipped: there is no {BUSYBOX}");
        return Ok(None);
    }
    let programs: Vec<_> = names
        .iter()
        .map(|name| (*name, Program::Link(BUSYBOX)))
        .collect();
    bin(&programs).map(Some)
}

/// These programs of this machine.
pub(crate) fn of_system(names: &[&str]) -> Result<TempDir> {
    let paths: Vec<_> = names
        .iter()
        .map(|name| format!("/usr/bin/{name}"))
        .collect();
    let programs = names.iter().zip(&paths);
    let programs: Vec<_> = programs
        .map(|(name, path)| (*name, Program::Link(path)))
        .collect();
    bin(&programs)
}

/// What a container has that compares files with `cksum` alone.
pub(crate) fn with_cksum() -> Result<TempDir> {
    let mut names = NEEDED.to_vec();
    names.retain(|name| *name != "sha256sum");
    names.extend(["cksum", "dd", "find", "head", "stat", "tail", "wc"]);
    of_system(&names)
}

/// Bytes on the disk.
pub(crate) fn on_disk(path: &Path) -> u64 {
    fs::metadata(path).unwrap().blocks() * 512
}

pub(crate) enum Program<'a> {
    Link(&'a str),
    Script(String),
}

/// Bytes that do not repeat soon.
pub(crate) fn noise(seed: u64, size: usize) -> Vec<u8> {
    let mut state = seed | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..size).map(|_| next()).collect()
}

/// A tree with all that is awkward.
pub(crate) fn plant(root: &Path) -> Result {
    fs::create_dir(root)?;
    for directory in ["empty", "a", "a/b", "closed"] {
        fs::create_dir(root.join(directory))?;
    }
    let long = "long/".repeat(30) + &"n".repeat(200);
    fs::create_dir_all(root.join(&long).parent().unwrap())?;
    let names: [&[u8]; 11] = [
        b"plain",
        b"a/b/with space",
        b"-dash",
        b"line\nfeed",
        b"back\\slash",
        b"return\rhere",
        b"esc\x1b[31m",
        b"not \xff utf-8",
        "\u{fc}ml\u{e4}ut".as_bytes(),
        long.as_bytes(),
        b"closed/inside",
    ];
    for (at, name) in names.iter().enumerate() {
        let path = root.join(OsStr::from_bytes(name));
        fs::write(&path, noise(at as u64, at * 7777))?;
        let mode = [0o644, 0o600, 0o755, 0o444][at % 4];
        fs::set_permissions(&path, fs::Permissions::from_mode(mode))?;
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000 + at as u64);
        File::open(&path)?.set_modified(time)?;
    }
    fs::write(root.join("zero"), "")?;
    fs::write(root.join("large"), noise(99, 5 << 20))?;
    let mut holes = File::create(root.join("holes"))?;
    holes.write_all(b"front")?;
    holes.seek(std::io::SeekFrom::Start(8 << 20))?;
    holes.write_all(b"middle")?;
    holes.set_len(20 << 20)?;
    fs::hard_link(root.join("plain"), root.join("a/plain too"))?;
    fs::hard_link(root.join("large"), root.join("zz large too"))?;
    symlink("plain", root.join("link"))?;
    symlink("../plain", root.join("a/up"))?;
    symlink("a//b/.", root.join("odd"))?;
    symlink("nowhere/at all", root.join("dangling"))?;
    symlink("x/".repeat(90) + "y", root.join("far"))?;
    for (directory, mode) in [("closed", 0o555), ("a", 0o700)] {
        let path = root.join(directory);
        fs::set_permissions(&path, fs::Permissions::from_mode(mode))?;
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_100_000_000);
        File::open(&path)?.set_modified(time)?;
    }
    Ok(())
}

/// All that a copy keeps: what it is, mode, time, contents or target, and which names are one file.
pub(crate) fn survey(root: &Path) -> Result<BTreeMap<PathBuf, String>> {
    let mut found = BTreeMap::new();
    let mut first_names = BTreeMap::new();
    let mut left = vec![root.to_owned()];
    while let Some(path) = left.pop() {
        let metadata = fs::symlink_metadata(&path)?;
        let below = path.strip_prefix(root)?.to_owned();
        let kind = metadata.file_type();
        let state = if kind.is_symlink() {
            format!("link to {:?}", fs::read_link(&path)?)
        } else {
            let (mode, time) = (metadata.mode() & 0o7777, metadata.mtime());
            let what = if kind.is_dir() {
                let children = fs::read_dir(&path)?.collect::<Result<Vec<_>, _>>()?;
                left.extend(children.iter().map(fs::DirEntry::path));
                "directory".to_owned()
            } else {
                use sha2::Digest as _;
                let digest = sha2::Sha256::digest(fs::read(&path)?);
                let names = first_names.entry(metadata.ino()).or_insert_with(Vec::new);
                names.push(below.clone());
                format!(
                    "{} bytes {digest:x?} {} names",
                    metadata.len(),
                    metadata.nlink()
                )
            };
            format!("{what} {mode:o} {time}")
        };
        found.insert(below, state);
    }
    for mut names in first_names.into_values().filter(|it| it.len() > 1) {
        names.sort();
        found.insert(
            Path::new("one file").join(&names[0]),
            format!("{names:?} are one"),
        );
    }
    Ok(found)
}

/// Says what differs, and only that. busybox makes links last, which sets the time of their
/// directories; there it is left out.
pub(crate) fn assert_same(
    found: &BTreeMap<PathBuf, String>,
    expected: &BTreeMap<PathBuf, String>,
    directory_times: bool,
) {
    assert!(found.keys().eq(expected.keys()), "{:?}", found.keys());
    let state = |state: &str| match state.starts_with("directory") && !directory_times {
        true => state.rsplit_once(' ').unwrap().0.to_owned(),
        false => state.to_owned(),
    };
    for (path, expected) in expected {
        assert_eq!(state(&found[path]), state(expected), "{path:?}");
    }
}

pub(crate) fn peer_problem(error: Error) -> (String, String) {
    match error {
        Error::Peer(PeerError::Copy { path, problem }) => (path, problem),
        other => panic!("the container is not to blame: {other:?}"),
    }
}

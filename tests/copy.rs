//! Copies of files and trees, between this crate's client and its embedded server, whose containers
//! run the programs of this machine.

#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

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

use kubewire::{
    Client, Error, Pod,
    copy::{Copied, Reason},
    error::{CallerError, PeerError},
    testing::{ApiServer, Fault},
};
use tempfile::TempDir;

type Result<T = (), E = Box<dyn std::error::Error>> = std::result::Result<T, E>;

/// A server with one pod, whose container finds its programs in `path`.
struct Fixture {
    server: ApiServer,
    pod: Pod,
    /// What both sides have.
    disk: TempDir,
}

impl Fixture {
    async fn new() -> Result<Self> {
        Self::with_path("/usr/local/bin:/usr/bin:/bin").await
    }

    async fn with_path(path: &str) -> Result<Self> {
        let server = ApiServer::builder()
            .pod("default", "web-0", |pod| {
                pod.container_with("main", ["/bin/sleep", "infinity"], |c| c.env("PATH", path))
            })
            .start()
            .await?;
        let pod = Client::new(&server.config())?.pod("default", "web-0");
        let disk = tempfile::tempdir()?;
        Ok(Self { server, pod, disk })
    }

    /// With these programs alone: scripts, or links to programs.
    async fn with_programs(programs: &[(&str, Program<'_>)]) -> Result<(Self, TempDir)> {
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
        let path = bin.path().to_str().unwrap().to_owned();
        Ok((Self::with_path(&path).await?, bin))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.disk.path().join(name)
    }

    fn remote(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }
}

enum Program<'a> {
    Link(&'a str),
    Script(String),
}

/// Bytes that do not repeat soon.
fn noise(seed: u64, size: usize) -> Vec<u8> {
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
fn plant(root: &Path) -> Result {
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
fn survey(root: &Path) -> Result<BTreeMap<PathBuf, String>> {
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
fn assert_same(
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

fn peer_problem(error: Error) -> (String, String) {
    match error {
        Error::Peer(PeerError::Copy { path, problem }) => (path, problem),
        other => panic!("the container is not to blame: {other:?}"),
    }
}

async fn both_ways(fixture: &Fixture, directory_times: bool) -> Result<[Copied; 2]> {
    plant(&fixture.path("tree"))?;
    let expected = survey(&fixture.path("tree"))?;
    let to = fixture
        .pod
        .copy_to(fixture.path("tree"), fixture.remote("there"))
        .run()
        .await?;
    assert_same(&survey(&fixture.path("there"))?, &expected, directory_times);
    let from = fixture
        .pod
        .copy_from(fixture.remote("there"), fixture.path("back"))
        .run()
        .await?;
    let arrived = survey(&fixture.path("there"))?;
    assert_same(&survey(&fixture.path("back"))?, &arrived, true);
    assert_eq!((to.files, to.bytes), (from.files, from.bytes));
    assert_eq!(to.files, 16);
    assert!(to.left_out.is_empty() && from.left_out.is_empty());
    // Over what is there already, and into a directory under its own name.
    fs::create_dir(fixture.path("into"))?;
    let into = fixture.remote("into") + "/";
    fixture
        .pod
        .copy_to(fixture.path("back"), &into)
        .run()
        .await?;
    fixture
        .pod
        .copy_to(fixture.path("back"), &into)
        .run()
        .await?;
    assert_same(
        &survey(&fixture.path("into/back"))?,
        &expected,
        directory_times,
    );
    fixture
        .pod
        .copy_from(fixture.remote("tree"), fixture.path("into/"))
        .run()
        .await?;
    fixture
        .pod
        .copy_from(fixture.remote("tree"), fixture.path("into/"))
        .run()
        .await?;
    assert_same(
        &survey(&fixture.path("into/tree"))?,
        &expected,
        directory_times,
    );
    Ok([to, from])
}

#[tokio::test]
async fn a_tree_with_odd_names_links_and_holes_is_the_same_after_both_ways() -> Result {
    let fixture = Fixture::new().await?;
    let copied = both_ways(&fixture, true).await?;
    assert!(copied.iter().all(|it| it.compared));
    let holes = fs::metadata(fixture.path("back/holes"))?;
    assert!(
        holes.blocks() * 512 < holes.len() / 4,
        "the holes are filled"
    );
    Ok(())
}

#[tokio::test]
async fn busybox_does_as_well() -> Result {
    const BUSYBOX: &str = "/usr/bin/busybox";
    if !Path::new(BUSYBOX).exists() {
        eprintln!("skipped: there is no {BUSYBOX}");
        return Ok(());
    }
    let programs = ["tar", "xargs", "sha256sum"].map(|name| (name, Program::Link(BUSYBOX)));
    let (fixture, _bin) = Fixture::with_programs(&programs).await?;
    let copied = both_ways(&fixture, false).await?;
    assert!(copied.iter().all(|it| it.compared));
    Ok(())
}

#[tokio::test]
async fn without_sha256sum_what_was_sent_is_read_back() -> Result {
    let programs = [("tar", Program::Link("/usr/bin/tar"))];
    let (fixture, _bin) = Fixture::with_programs(&programs).await?;
    let [to, from] = both_ways(&fixture, true).await?;
    assert!(to.compared && !from.compared);

    let damage = r#"/usr/bin/tar "$@"; case "$*" in *-x*) eval "cd \"\${$#}\""; printf x >>there/large;; esac"#;
    let programs = [("tar", Program::Script(damage.to_owned()))];
    let (fixture, _bin) = Fixture::with_programs(&programs).await?;
    plant(&fixture.path("tree"))?;
    let copy = fixture
        .pod
        .copy_to(fixture.path("tree"), fixture.remote("there"));
    let (path, problem) = peer_problem(copy.run().await.unwrap_err());
    assert_eq!(path, "there/large");
    assert_eq!(problem, "5242880 bytes were sent, 5242881 are there");
    Ok(())
}

#[tokio::test]
async fn a_single_file_has_the_name_that_it_is_given() -> Result {
    let fixture = Fixture::new().await?;
    fs::write(fixture.path("here"), "contents")?;
    let copied = fixture
        .pod
        .copy_to(fixture.path("here"), fixture.remote("there"))
        .run()
        .await?;
    assert_eq!((copied.files, copied.bytes), (1, 8));
    assert_eq!(fs::read(fixture.path("there"))?, b"contents");
    let back = fixture.path("new/directory/back");
    let copied = fixture
        .pod
        .copy_from(fixture.remote("there"), &back)
        .run()
        .await?;
    assert_eq!((copied.files, copied.bytes, copied.compared), (1, 8, true));
    assert_eq!(fs::read(&back)?, b"contents");
    // Into a directory, under its own name.
    fs::create_dir(fixture.path("into"))?;
    fixture
        .pod
        .copy_to(fixture.path("here"), fixture.remote("into/"))
        .run()
        .await?;
    fixture
        .pod
        .copy_from(fixture.remote("there"), fixture.path("into/"))
        .run()
        .await?;
    assert_eq!(fs::read(fixture.path("into/here"))?, b"contents");
    assert_eq!(fs::read(fixture.path("into/there"))?, b"contents");
    Ok(())
}

#[tokio::test]
async fn a_success_with_bytes_missing_is_an_error_that_names_the_file() -> Result {
    let tools = |script: &str| {
        [
            ("tar", Program::Script(script.to_owned())),
            ("xargs", Program::Link("/usr/bin/xargs")),
            ("sha256sum", Program::Link("/usr/bin/sha256sum")),
        ]
    };
    for (script, file) in [
        ("cat >/dev/null", "there/-dash"),
        (
            "head -c 3000000 | /usr/bin/tar \"$@\" 2>/dev/null; cat >/dev/null; exit 0",
            "there/holes",
        ),
    ] {
        let (fixture, _bin) = Fixture::with_programs(&tools(script)).await?;
        plant(&fixture.path("tree"))?;
        let copy = fixture
            .pod
            .copy_to(fixture.path("tree"), fixture.remote("there"));
        let (path, problem) = peer_problem(copy.run().await.unwrap_err());
        assert_eq!(path, file, "{problem}");
    }
    let (fixture, _bin) =
        Fixture::with_programs(&tools("/usr/bin/tar \"$@\" | head -c 23000000; exit 0")).await?;
    plant(&fixture.path("tree"))?;
    let copy = fixture
        .pod
        .copy_from(fixture.remote("tree"), fixture.path("back"));
    let (path, _) = peer_problem(copy.run().await.unwrap_err());
    // Which one that is, the order of the directory decides.
    assert!(
        ["back/large", "back/holes"]
            .iter()
            .any(|it| path.ends_with(it)),
        "{path}"
    );
    assert!(!Path::new(&path).exists());
    // Cut between two files, where nothing but the missing end tells.
    let (fixture, _bin) =
        Fixture::with_programs(&tools("/usr/bin/tar \"$@\" | head -c 1024; exit 0")).await?;
    fs::write(fixture.path("one"), "x")?;
    let copy = fixture
        .pod
        .copy_from(fixture.remote("one"), fixture.path("back"));
    let (path, problem) = peer_problem(copy.run().await.unwrap_err());
    assert_eq!((&path[..], &problem[..]), ("the archive", "it has no end"));
    Ok(())
}

/// An entry: kind, name, target of a link, contents.
type Planned<'a> = (tar::EntryType, &'a [u8], &'a [u8], &'a [u8]);

/// An archive with these entries.
fn archive(entries: &[Planned<'_>]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (kind, name, target, contents) in entries {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(*kind);
        header.set_mode(0o4777);
        header.set_mtime(1);
        header.set_uid(0);
        header.set_gid(0);
        header.set_size(contents.len() as u64);
        header.as_old_mut().name[..name.len()].copy_from_slice(name);
        header.as_old_mut().linkname[..target.len()].copy_from_slice(target);
        header.set_cksum();
        builder.append(&header, *contents).unwrap();
    }
    builder.into_inner().unwrap()
}

/// Copies from a container that sends this archive for `/x`, whatever it is asked for.
async fn from_hostile(
    bytes: &[u8],
    prepare: impl FnOnce(&Path),
) -> Result<(Result<Copied, Error>, Fixture)> {
    let file = tempfile::NamedTempFile::new()?;
    fs::write(file.path(), bytes)?;
    let script = format!("cat {}", file.path().display());
    let (fixture, _bin) = Fixture::with_programs(&[("tar", Program::Script(script))]).await?;
    fs::write(fixture.path("victim"), "untouched")?;
    fs::create_dir(fixture.path("outside"))?;
    prepare(fixture.disk.path());
    let copied = fixture
        .pod
        .copy_from("/x", fixture.path("in"))
        .max_bytes(1 << 20)
        .run()
        .await;
    assert_eq!(fs::read(fixture.path("victim"))?, b"untouched");
    assert_eq!(fs::metadata(fixture.path("victim"))?.nlink(), 1);
    assert_eq!(
        fs::read_dir(fixture.path("outside"))?.count(),
        0,
        "it wrote outside"
    );
    let mut names = BTreeMap::new();
    for entry in fs::read_dir(fixture.disk.path())? {
        names.insert(entry?.file_name(), ());
    }
    names.remove(OsStr::new("in"));
    assert_eq!(names.len(), 2, "{names:?}");
    Ok((copied, fixture))
}

#[tokio::test]
async fn an_archive_writes_nothing_outside() -> Result {
    use tar::EntryType as T;
    let refused: &[&[Planned<'_>]] = &[
        &[(T::Regular, b"./x/../../victim", b"", b"evil")],
        &[(T::Regular, b"../victim", b"", b"evil")],
        &[(T::Regular, b"/x/y", b"", b"evil")],
        &[(T::Regular, b"./y", b"", b"evil")],
        &[(T::Link, b"./x/a", b"../victim", b"")],
        &[(T::Link, b"./x/a", b"./x/../../victim", b"")],
        &[(T::Link, b"./x/a", b"/etc/passwd", b"")],
        // A link and then a file through it.
        &[
            (T::Symlink, b"./x/d", b"e", b""),
            (T::Regular, b"./x/d/f", b"", b"evil"),
        ],
        // Links that are harmless one by one.
        &[
            (T::Symlink, b"./x/a/b/up", b"../..", b""),
            (T::Symlink, b"./x/a/b/up/out", b"../../..", b""),
        ],
        &[(T::Symlink, b"./x", b"outside", b"")],
        &[(T::Regular, b"./x/bomb", b"", &[0; (1 << 20) + 1])],
        &[(T::GNULongName, b"././@LongLink", b"", &[b'n'; 2 << 20])],
        &[(T::XHeader, b"./x/p", b"", &[b'1'; 2 << 20])],
        &[],
    ];
    for entries in refused {
        let (copied, _fixture) = from_hostile(&archive(entries), |_| ()).await?;
        let error = copied.expect_err("it is taken");
        let blamed = matches!(
            &error,
            Error::Peer(_) | Error::Caller(CallerError::File { .. })
        );
        assert!(blamed, "{error}");
    }

    let left_out: &[Planned<'_>] = &[
        (T::Symlink, b"./x/a", b"../outside", b""),
        (T::Symlink, b"./x/b", b"/etc", b""),
        (T::Symlink, b"./x/c", b"d/../..", b""),
        (T::Block, b"./x/block", b"", b""),
        (T::Char, b"./x/char", b"", b""),
        (T::Fifo, b"./x/fifo", b"", b""),
        (T::Regular, b"./x/a/f", b"", b"evil"),
        (T::Regular, b"./x/good", b"", b"good"),
    ];
    let (copied, fixture) = from_hostile(&archive(left_out), |_| ()).await?;
    let copied = copied?;
    assert_eq!(copied.files, 2);
    let special = copied
        .left_out
        .iter()
        .filter(|it| it.reason == Reason::Special);
    assert_eq!((copied.left_out.len(), special.count()), (6, 3));
    assert_eq!(
        copied.left_out[0].to_string(),
        "a is a link that leads out, to ../outside"
    );
    // Not with the set-user-ID that the container would like.
    assert_eq!(
        fs::metadata(fixture.path("in/good"))?.mode() & 0o7777,
        0o777
    );
    Ok(())
}

#[tokio::test]
async fn a_link_on_this_disk_is_not_followed() -> Result {
    use tar::EntryType as T;
    let bytes = archive(&[(T::Regular, b"./x/d/f", b"", b"evil")]);
    let (copied, fixture) = from_hostile(&bytes, |disk| {
        fs::create_dir(disk.join("in")).unwrap();
        symlink("../outside", disk.join("in/d")).unwrap();
    })
    .await?;
    let error = copied.unwrap_err();
    let expected = "in/d: it is no directory, and nothing is written through it";
    assert!(error.to_string().ends_with(expected), "{error}");
    drop(fixture);
    // A link in a file's place is replaced, and what it leads to is not.
    let bytes = archive(&[(T::Regular, b"./x/f", b"", b"new")]);
    let (copied, fixture) = from_hostile(&bytes, |disk| {
        fs::create_dir(disk.join("in")).unwrap();
        symlink("../victim", disk.join("in/f")).unwrap();
    })
    .await?;
    copied?;
    assert_eq!(fs::read(fixture.path("in/f"))?, b"new");
    Ok(())
}

#[tokio::test]
async fn what_fails_is_said_in_the_words_of_tar_or_of_the_system() -> Result {
    let fixture = Fixture::new().await?;
    fs::write(fixture.path("file"), "x")?;
    let copy = fixture
        .pod
        .copy_to(fixture.path("file"), fixture.remote("missing/file"));
    let error = copy.run().await.unwrap_err();
    assert!(matches!(error, Error::Api(_)), "{error:?}");
    let error = error.to_string();
    assert!(
        error.starts_with("copy to pod default/web-0: ") && error.contains("missing"),
        "{error}"
    );
    let copy = fixture
        .pod
        .copy_from(fixture.remote("missing"), fixture.path("back"));
    let error = copy.run().await.unwrap_err().to_string();
    assert!(error.contains("No such file"), "{error}");
    let copy = fixture
        .pod
        .copy_to(fixture.path("missing"), fixture.remote("there"));
    let error = copy.run().await.unwrap_err();
    assert!(
        matches!(error, Error::Caller(CallerError::File { .. })),
        "{error:?}"
    );
    Ok(())
}

#[tokio::test]
async fn a_cut_connection_leaves_no_half_file_under_its_name() -> Result {
    let fixture = Fixture::new().await?;
    plant(&fixture.path("tree"))?;
    let expected = survey(&fixture.path("tree"))?;
    let points = noise(7, 24);
    for (round, point) in points.chunks(2).enumerate() {
        let at = 1_000 + u64::from(point[0]) * 80_000 + u64::from(point[1]);
        let back = fixture.path(&format!("back{round}"));
        fixture.server.inject(Fault::CutAfter(at));
        let copy = fixture.pod.copy_from(fixture.remote("tree"), &back);
        let error = copy.run().await.expect_err("it was cut");
        assert!(matches!(error, Error::Network(_)), "after {at}: {error:?}");
        if back.exists() {
            for (path, state) in survey(&back)? {
                let whole = state.split(' ').take(3).eq(expected
                    .get(&path)
                    .map_or("", |state| state)
                    .split(' ')
                    .take(3));
                assert!(
                    whole || !state.contains(" bytes "),
                    "{path:?} after {at}: {state}"
                );
            }
        }
        copy.run().await?;
        assert_eq!(survey(&back)?, expected);
        // The other way, what the server sends is little: the first answer is cut.
        fixture.server.inject(Fault::CutAfter(u64::from(point[0])));
        let copy = fixture
            .pod
            .copy_to(fixture.path("tree"), fixture.remote("there"));
        let error = copy.run().await.expect_err("it was cut");
        assert!(matches!(error, Error::Network(_)), "{error:?}");
    }
    Ok(())
}

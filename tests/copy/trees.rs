//! Files and trees both ways, as they should be afterwards, and what is said when they cannot be.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _, symlink},
    path::{Path, PathBuf},
    process::Command,
};

use kubewire::{
    Client, Error,
    copy::{Copied, NotKept},
    error::CallerError,
    exec::Subprotocol,
    testing::ApiServer,
};

use crate::fixture::{
    Fixture, NEEDED, Program, Result, assert_same, busybox, on_disk, peer_problem, plant, survey,
    with_cksum,
};

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
    for copy in ["back/holes", "there/holes", "into/back/holes"] {
        assert!(
            on_disk(&fixture.path(copy)) < 5 << 20,
            "{copy} has no holes"
        );
    }
    assert!(copied.iter().all(|it| it.not_kept.is_empty()));
    assert!(fixture.aside()?.is_empty());
    Ok(())
}

#[tokio::test]
async fn busybox_does_as_well() -> Result {
    for more in [&[][..], &["dd", "find", "head", "tail", "wc"]] {
        let names = [&NEEDED[..], more].concat();
        let Some(bin) = busybox(&names)? else {
            return Ok(());
        };
        let fixture = Fixture::with_path(bin.path().to_str().unwrap()).await?;
        let [to, from] = both_ways(&fixture, true).await?;
        assert!(to.compared && from.compared);
        assert!(on_disk(&fixture.path("back/holes")) < 5 << 20);
        // busybox may find its own programs under any name.
        let has_holes = on_disk(&fixture.path("there/holes")) < 5 << 20;
        assert_eq!(has_holes, to.not_kept.is_empty(), "{:?}", to.not_kept);
        assert!(has_holes || more.is_empty());
    }
    Ok(())
}

#[tokio::test]
async fn without_sha256sum_files_are_compared_by_cksum() -> Result {
    let bin = with_cksum()?;
    let fixture = Fixture::with_path(bin.path().to_str().unwrap()).await?;
    let copied = both_ways(&fixture, true).await?;
    assert!(copied.iter().all(|it| it.compared));
    let (few, all) = (bin.path().to_str().unwrap(), "/usr/bin:/bin");
    for (from, to) in [(few, all), (all, few)] {
        let fixture = Fixture::with_paths(from, to).await?;
        plant(&fixture.path("tree"))?;
        let (tree, there) = (fixture.remote("tree"), fixture.remote("there"));
        let copy = fixture.pod.copy_between(tree, &fixture.other, there);
        assert!(copy.run().await?.compared);
        let expected = survey(&fixture.path("tree"))?;
        assert_same(&survey(&fixture.path("there"))?, &expected, true);
    }

    let cksum = bin.path().join("cksum");
    fs::remove_file(&cksum)?;
    let others = "#!/bin/sh\nPATH=/usr/bin\ncksum \"$@\" | sed 's/^[0-9]*/7/'\n";
    fs::write(&cksum, others)?;
    fs::set_permissions(&cksum, fs::Permissions::from_mode(0o755))?;
    let (tree, again) = (fixture.path("tree"), fixture.remote("again"));
    let to = fixture.pod.copy_to(tree, again).run().await;
    let from = fixture
        .pod
        .copy_from(fixture.remote("tree"), fixture.path("other"));
    for done in [to, from.run().await] {
        let (_, problem) = peer_problem(done.unwrap_err());
        assert!(problem.contains("are others in the container"), "{problem}");
    }
    Ok(())
}

#[tokio::test]
async fn without_sha256sum_what_was_sent_is_read_back() -> Result {
    let programs = [("tar", Program::Link("/usr/bin/tar"))];
    let (fixture, _bin) = Fixture::with_programs(&programs).await?;
    let [to, from] = both_ways(&fixture, true).await?;
    assert!(to.compared && !from.compared);
    let (tree, between) = (fixture.remote("tree"), fixture.remote("between"));
    let between = fixture.pod.copy_between(tree, &fixture.other, between);
    assert!(!between.run().await?.compared);

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
async fn a_pipe_in_the_container_is_not_replaced() -> Result {
    let fixture = Fixture::new().await?;
    plant(&fixture.path("tree"))?;
    fs::create_dir(fixture.path("there"))?;
    for (from, to, pipe) in [
        ("tree/large", "pipe", "pipe"),
        ("tree", "there", "there/large"),
    ] {
        let made = Command::new("mkfifo").arg(fixture.path(pipe)).status()?;
        assert!(made.success());
        let copy = fixture.pod.copy_to(fixture.path(from), fixture.remote(to));
        let error = copy.run().await.unwrap_err().to_string();
        let words = "a device, a pipe or a socket is there, and is not replaced";
        assert!(error.contains(words), "{error}");
        let kind = fs::metadata(fixture.path(pipe))?.file_type();
        assert!(kind.is_fifo(), "{kind:?}");
    }
    Ok(())
}

/// Over `v4.channel.k8s.io` no program is told that its input has ended.
#[tokio::test]
async fn files_are_compared_where_stdin_has_no_end() -> Result {
    let sleep = ["/bin/sleep", "infinity"];
    let server =
        ApiServer::builder()
            .subprotocols([Subprotocol::V4])
            .pod("default", "web-0", |pod| pod.container("main", sleep));
    let server = server.start().await?;
    let pod = Client::new(&server.config())?.pod("default", "web-0");
    let disk = tempfile::tempdir()?;
    let (tree, back) = (disk.path().join("tree"), disk.path().join("back"));
    plant(&tree)?;
    let copy = pod.copy_from(tree.to_str().unwrap(), &back);
    let copied = copy.run().await?;
    assert_eq!((copied.files, copied.compared), (16, true));
    assert_same(&survey(&back)?, &survey(&tree)?, true);
    let error = pod.copy_to(&back, "/tmp/there").run().await.unwrap_err();
    let is_it = matches!(error, Error::Caller(CallerError::HalfClose { .. }));
    assert!(is_it, "{error:?}");
    Ok(())
}

/// The numbers of owner and group of all that is below a path.
fn owners(root: &Path) -> Result<BTreeMap<PathBuf, (u32, u32)>> {
    let (mut found, mut left) = (BTreeMap::new(), vec![root.to_owned()]);
    while let Some(path) = left.pop() {
        let metadata = fs::symlink_metadata(&path)?;
        let below = path.strip_prefix(root)?.to_owned();
        found.insert(below, (metadata.uid(), metadata.gid()));
        if metadata.is_dir() {
            for entry in fs::read_dir(&path)? {
                left.push(entry?.path());
            }
        }
    }
    Ok(found)
}

#[tokio::test]
async fn owners_are_kept_where_they_are_asked_for() -> Result {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: only root gives files to others");
        return Ok(());
    }
    let fixture = Fixture::new().await?;
    let tree = fixture.path("tree");
    fs::create_dir_all(tree.join("a"))?;
    fs::write(tree.join("a/f"), "x")?;
    fs::write(tree.join("g"), "y")?;
    symlink("g", tree.join("l"))?;
    for (name, user, group) in [("", 11, 12), ("a", 13, 14), ("a/f", 15, 16), ("g", 17, 18)] {
        std::os::unix::fs::chown(tree.join(name), Some(user), Some(group))?;
    }
    std::os::unix::fs::lchown(tree.join("l"), Some(19), Some(20))?;
    let set_user_id = fs::Permissions::from_mode(0o4755);
    fs::set_permissions(tree.join("g"), set_user_id)?;
    let expected = owners(&tree)?;
    let (there, across) = (fixture.remote("there"), fixture.remote("across"));
    let up = fixture.pod.copy_to(&tree, &there).preserve_owner();
    assert!(up.run().await?.not_kept.is_empty());
    assert_eq!(owners(&fixture.path("there"))?, expected);
    // The mode is set behind the owner, who takes its bits away.
    let mode = fs::metadata(fixture.path("there/g"))?.mode();
    assert_eq!(mode & 0o7777, 0o4755);
    let down = fixture.pod.copy_from(&there, fixture.path("back"));
    assert!(down.preserve_owner().run().await?.not_kept.is_empty());
    assert_eq!(owners(&fixture.path("back"))?, expected);
    let copy = fixture.pod.copy_between(&there, &fixture.other, &across);
    assert!(copy.preserve_owner().run().await?.not_kept.is_empty());
    assert_eq!(owners(&fixture.path("across"))?, expected);

    // Unless they are, all belongs to who runs the programs.
    let own = |name: &str| -> Result<bool> {
        let all = owners(&fixture.path(name))?;
        Ok(all.values().all(|it| *it == (0, 0)))
    };
    fixture
        .pod
        .copy_to(&tree, fixture.remote("plain"))
        .run()
        .await?;
    fixture
        .pod
        .copy_from(&there, fixture.path("plain back"))
        .run()
        .await?;
    assert!(own("plain")? && own("plain back")?);

    // Without `tar` the container is told, and cannot tell.
    let names = [
        "sh", "cat", "mkdir", "mv", "rm", "chmod", "chown", "touch", "ln", "readlink", "stat",
    ];
    let paths = names.map(|name| format!("/usr/bin/{name}"));
    let programs = names.iter().zip(&paths);
    let programs: Vec<_> = programs
        .map(|(name, path)| (*name, Program::Link(path)))
        .collect();
    let (poor, _bin) = Fixture::with_programs(&programs).await?;
    let there = poor.remote("there");
    let copied = poor
        .pod
        .copy_to(&tree, &there)
        .preserve_owner()
        .run()
        .await?;
    assert!(copied.not_kept.is_empty(), "{copied:?}");
    assert_eq!(owners(&poor.path("there"))?, expected);
    let down = poor
        .pod
        .copy_from(&there, poor.path("back"))
        .preserve_owner();
    assert_eq!(down.run().await?.not_kept, [NotKept::Owners]);
    Ok(())
}

#[tokio::test]
async fn files_from_before_1970_keep_their_time() -> Result {
    let fixture = Fixture::with_paths("/usr/bin:/bin", "/usr/bin:/bin").await?;
    let (at, seconds) = (fixture.path("tree/old"), -315_619_200);
    fs::create_dir(fixture.path("tree"))?;
    fs::write(&at, "of 1960")?;
    let apart = std::time::Duration::from_secs(315_619_200);
    fs::File::open(&at)?.set_modified(std::time::UNIX_EPOCH - apart)?;
    let (tree, pod) = (fixture.remote("tree"), &fixture.pod);
    pod.copy_from(&tree, fixture.path("from")).run().await?;
    pod.copy_to(fixture.path("tree"), fixture.remote("to"))
        .run()
        .await?;
    pod.copy_between(&tree, &fixture.other, fixture.remote("between"))
        .run()
        .await?;
    for copy in ["from/old", "to/old", "between/old"] {
        let metadata = fs::metadata(fixture.path(copy))?;
        assert_eq!((metadata.mtime(), metadata.len()), (seconds, 7), "{copy}");
    }
    Ok(())
}

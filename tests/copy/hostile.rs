//! What a hostile container sends, and what is on this disk: nothing is written outside.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    fs,
    os::unix::{
        ffi::OsStrExt as _,
        fs::{MetadataExt as _, symlink},
    },
    path::Path,
};

use kubewire::{
    Error,
    copy::{Copied, Reason},
    error::CallerError,
};

use crate::fixture::{Fixture, Program, Result};

/// An entry: kind, name, target of a link, contents.
pub(crate) type Planned<'a> = (tar::EntryType, &'a [u8], &'a [u8], &'a [u8]);

/// An archive with these entries.
pub(crate) fn archive(entries: &[Planned<'_>]) -> Vec<u8> {
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

/// Copies from a container with a shell that sends this for `/x`, with `MARK` where the mark belongs.
async fn from_hostile_shell(sent: &[u8], then: &str) -> Result<(Result<Copied, Error>, Fixture)> {
    let file = tempfile::NamedTempFile::new()?;
    fs::write(file.path(), sent)?;
    let script = format!(
        "case $2 in *'command -v \"$p\"'*) printf 'cat\\nstat\\nreadlink\\n.\\n' ;; \
         *'exec 3<&0'*) shift 5; exec \"$0\" \"$@\" ;; \
         *'mark=$2'*) sed \"s/MARK/$5/g\" {}; {then} ;; *) exit 127 ;; esac",
        file.path().display()
    );
    let (fixture, _bin) = Fixture::with_programs(&[("sh", Program::Script(script))]).await?;
    fs::write(fixture.path("victim"), "untouched")?;
    fs::create_dir(fixture.path("outside"))?;
    let copy = fixture.pod.copy_from("/x", fixture.path("in"));
    let copied = copy.max_bytes(1 << 20).max_entries(100).run().await;
    assert_eq!(fs::read(fixture.path("victim"))?, b"untouched");
    assert_eq!(fs::metadata(fixture.path("victim"))?.nlink(), 1);
    assert_eq!(fs::read_dir(fixture.path("outside"))?.count(), 0);
    for entry in fs::read_dir(fixture.disk.path())? {
        let name = entry?.file_name();
        let expected = ["in", "victim", "outside"];
        assert!(expected.iter().any(|it| name == *it), "{name:?}");
    }
    Ok((copied, fixture))
}

#[tokio::test]
async fn what_a_shell_sends_writes_nothing_outside() -> Result {
    let many = "d 755 1 1 1 8:1\nnMARK".repeat(101);
    let link_and_through = "d 755 1 1 1 8:1\nMARKl 777 1 1 1 8:2\ndMARKe\nMARK\
                            f 644 1 4 1 8:3\nd/fMARKevilMARKe \nMARK";
    let refused: &[(&str, &str)] = &[
        ("f 644 1 4 1 8:1\n../victimMARKevilMARKe \nMARK", ""),
        ("f 644 1 4 1 8:1\n/x/yMARKevilMARKe \nMARK", ""),
        (
            "d 755 1 1 1 8:1\nMARKf 644 1 4 1 8:1\na/../../victimMARKevilMARKe \nMARK",
            "",
        ),
        ("d 755 1 1 1 8:1\n../outside/newMARKe \nMARK", ""),
        (
            "l 777 1 1 1 8:1\n../outside/linkMARKvictim\nMARKe \nMARK",
            "",
        ),
        // The destination itself as a link.
        ("l 777 1 1 1 8:1\nMARKoutside\nMARKe \nMARK", ""),
        // Bombs: of bytes that were announced, that were not, of names, and without an end.
        ("f 644 1 9999999999 1 8:1\nMARKxMARKe \nMARK", ""),
        ("f 644 1 4 1 8:1\nMARK", "yes"),
        ("f 644\nMARK", "yes"),
        ("f 644 1 4 1 8:1\n", "yes"),
        (&many, ""),
        ("", "yes"),
        // Cut, and nonsense.
        ("f 644 1 4 1 8:1\nMARKevil", ""),
        ("f 644 1 4 1 8:1\nMARKevilMARK", ""),
        ("no headerMARK", ""),
        ("", ""),
    ];
    for (sent, then) in refused {
        let (copied, fixture) = from_hostile_shell(sent.as_bytes(), then).await?;
        let error = copied.expect_err("it is taken");
        assert!(matches!(&error, Error::Peer(_)), "{sent:?}: {error:?}");
        assert!(fixture.aside()?.is_empty(), "{sent:?}");
    }
    // A link that is made last leads nobody anywhere: what is written through it is not.
    let (copied, fixture) = from_hostile_shell(link_and_through.as_bytes(), "").await?;
    copied.expect_err("a directory is where the link was to be");
    assert!(!fixture.path("in/e").exists());

    // Names are what they are, and are told in one line.
    let taken = "d 755 1 1 1 8:1\nMARKs 644 1 0 1 8:2\nde\nvice\x1b[31mMARK\
                 l 777 1 1 1 8:3\noutMARK../outside\nMARKf 4755 1 4 1 8:4\nli\nne\x1b[2JMARK\
                 goodMARKe \nMARK";
    let (copied, fixture) = from_hostile_shell(taken.as_bytes(), "").await?;
    let copied = copied?;
    assert_eq!((copied.files, copied.left_out.len()), (1, 2), "{copied:?}");
    assert_eq!(copied.left_out[0].reason, Reason::Special);
    for left_out in &copied.left_out {
        let said = left_out.to_string();
        assert!(!said.contains(['\n', '\x1b']), "{said:?}");
    }
    let file = fixture.path("in/li\nne\x1b[2J");
    assert_eq!(fs::read(&file)?, b"good");
    assert_eq!(fs::metadata(&file)?.mode() & 0o7777, 0o755);
    assert!(!fixture.path("in/out").is_symlink());
    Ok(())
}

/// Names with line feeds and escapes in an archive, and in what is said of them.
#[tokio::test]
async fn names_with_line_feeds_and_escapes_stay_names() -> Result {
    use tar::EntryType as T;
    let names: &[&[u8]] = &[b"./x/li\nne", b"./x/\x1b[31mred", b"./x/\r\tx", b"./x/\xff"];
    let files: Vec<Planned<'_>> = names
        .iter()
        .map(|name| (T::Regular, *name, &b""[..], &b"good"[..]))
        .chain([(T::Fifo, &b"./x/pi\npe\x1b[2J"[..], &b""[..], &b""[..])])
        .collect();
    let (copied, fixture) = from_hostile(&archive(&files), |_| ()).await?;
    let copied = copied?;
    assert_eq!((copied.files, copied.left_out.len()), (4, 1));
    let said = copied.left_out[0].to_string();
    assert!(!said.contains(['\n', '\x1b']), "{said:?}");
    for name in names {
        let name = OsStr::from_bytes(name.strip_prefix(b"./x/").unwrap());
        assert_eq!(
            fs::read(fixture.path("in").join(name))?,
            b"good",
            "{name:?}"
        );
    }
    let bad: &[Planned<'_>] = &[(T::Link, b"./x/a\n\x1b[2J", b"../victim", b"")];
    let (copied, _fixture) = from_hostile(&archive(bad), |_| ()).await?;
    let said = copied.expect_err("it is taken").to_string();
    assert!(!said.contains(['\n', '\x1b']), "{said:?}");
    Ok(())
}

/// As where the container runtime dies, which is no success of the copy.
#[tokio::test]
async fn a_program_that_ends_well_before_it_has_read_all_is_a_lost_connection() -> Result {
    let script = "head -c 1000 >/dev/null".to_owned();
    let (fixture, _bin) = Fixture::with_programs(&[("tar", Program::Script(script))]).await?;
    fs::write(fixture.path("file"), vec![7; 8 << 20])?;
    let (file, there) = (fixture.path("file"), fixture.remote("there"));
    let copy = fixture.pod.copy_to(file, there).retries(0);
    let error = copy.run().await.expect_err("it was not read");
    assert!(matches!(error, Error::Network(_)), "{error:?}");
    assert!(
        error.to_string().contains("before it had read all"),
        "{error}"
    );
    Ok(())
}

//! Copies from one pod to another.

use std::{fs, path::Path};

use kubewire::copy::Reason;

use crate::{
    fixture::{
        BUSYBOX, Fixture, NEEDED, Program, Result, assert_same, bin, busybox, on_disk, plant,
        survey,
    },
    hostile::{Planned, archive},
};

const GNU: &str = "/usr/bin:/bin";

#[tokio::test]
async fn a_tree_is_the_same_in_the_other_pod() -> Result {
    let names = [&NEEDED[..], &["dd"]].concat();
    let Some(bin) = busybox(&names)? else {
        return Ok(());
    };
    let busybox = bin.path().to_str().unwrap();
    for (from, to) in [(GNU, GNU), (GNU, busybox), (busybox, GNU)] {
        let fixture = Fixture::with_paths(from, to).await?;
        plant(&fixture.path("tree"))?;
        let expected = survey(&fixture.path("tree"))?;
        let (tree, there) = (fixture.remote("tree"), fixture.remote("there"));
        // Over what is there the second time.
        for _ in 0..2 {
            let copied = fixture
                .pod
                .copy_between(&tree, &fixture.other, &there)
                .run()
                .await?;
            assert_eq!((copied.files, copied.compared), (16, true));
            assert!(
                copied.left_out.is_empty() && copied.not_kept.is_empty(),
                "{copied:?}"
            );
            assert_same(&survey(&fixture.path("there"))?, &expected, true);
        }
        if from == GNU {
            assert!(
                on_disk(&fixture.path("there/holes")) < 5 << 20,
                "{from} {to}"
            );
        }
        assert!(fixture.aside()?.is_empty());
        // A file alone, into a directory under its own name.
        let (file, into) = (fixture.remote("tree/plain"), fixture.remote("into/"));
        fs::create_dir(fixture.path("into"))?;
        fixture
            .pod
            .copy_between(&file, &fixture.other, &into)
            .run()
            .await?;
        assert_eq!(fs::read(fixture.path("into/plain"))?, fs::read(&file)?);
    }
    Ok(())
}

#[tokio::test]
async fn a_hostile_pod_cannot_write_elsewhere_in_the_other() -> Result {
    use tar::EntryType as T;
    let refused: &[Planned<'_>] = &[
        (T::Regular, b"./x/../../victim", b"", b"evil"),
        (T::Regular, b"/x/y", b"", b"evil"),
        (T::Link, b"./x/a", b"../victim", b""),
    ];
    let links: &[Planned<'_>] = &[
        (T::Directory, b"./x", b"", b""),
        (T::Symlink, b"./x/out", b"../victim", b""),
        (T::Block, b"./x/block", b"", b""),
        (T::Regular, b"./x/good", b"", b"good"),
    ];
    let archives = refused.iter().map(std::slice::from_ref).chain([links]);
    for entries in archives {
        let file = tempfile::NamedTempFile::new()?;
        fs::write(file.path(), archive(entries))?;
        let script = format!("cat {}", file.path().display());
        let hostile = bin(&[
            ("tar", Program::Script(script)),
            ("sh", Program::Link("/bin/sh")),
        ])?;
        let fixture = Fixture::with_paths(hostile.path().to_str().unwrap(), GNU).await?;
        fs::write(fixture.path("victim"), "untouched")?;
        let there = fixture.remote("in");
        let copied = fixture
            .pod
            .copy_between("/x", &fixture.other, &there)
            .run()
            .await;
        assert_eq!(fs::read(fixture.path("victim"))?, b"untouched");
        if entries.len() == 1 {
            copied.expect_err("it is taken");
            assert!(!fixture.path("in").exists());
        } else {
            let left_out = copied?.left_out;
            assert_eq!(left_out.len(), 2, "{left_out:?}");
            assert!(left_out.iter().any(|it| it.reason == Reason::Special));
            assert_eq!(fs::read(fixture.path("in/good"))?, b"good");
            assert!(!fixture.path("in/out").is_symlink());
        }
    }
    Ok(())
}

#[tokio::test]
async fn both_pods_need_tar() -> Result {
    if !Path::new(BUSYBOX).exists() {
        return Ok(());
    }
    let poor = bin(&[
        ("sh", Program::Link("/bin/sh")),
        ("cat", Program::Link("/bin/cat")),
    ])?;
    let poor = poor.path().to_str().unwrap();
    for (from, to, blamed) in [(poor, GNU, "web-0"), (GNU, poor, "web-1")] {
        let fixture = Fixture::with_paths(from, to).await?;
        fs::write(fixture.path("file"), "x")?;
        let (file, there) = (fixture.remote("file"), fixture.remote("there"));
        let copy = fixture.pod.copy_between(file, &fixture.other, there);
        let error = copy.run().await.unwrap_err().to_string();
        assert!(
            error.contains(blamed) && error.contains("kubectl debug"),
            "{error}"
        );
    }
    Ok(())
}

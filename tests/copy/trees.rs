//! Files and trees both ways, as they should be afterwards, and what is said when they cannot be.

use std::{fs, path::Path};

use kubewire::{Error, copy::Copied, error::CallerError};

use crate::fixture::{
    Fixture, Program, Result, assert_same, busybox, on_disk, peer_problem, plant, survey,
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
    let names = [
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
    for more in [&[][..], &["dd", "find", "head", "tail", "wc"]] {
        let names = [&names[..], more].concat();
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

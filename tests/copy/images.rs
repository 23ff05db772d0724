//! Containers that have not all: a shell and `cat`, `tar` alone, and neither.

use std::{collections::BTreeMap, fs, path::PathBuf};

use kubewire::{
    Error,
    copy::{NotKept, Reason},
    error::CallerError,
};

use crate::fixture::{Fixture, Result, assert_same, busybox, of_system, on_disk, plant, survey};

/// As if each name were of a file of its own.
fn without_links(mut states: BTreeMap<PathBuf, String>) -> BTreeMap<PathBuf, String> {
    states.retain(|path, _| !path.starts_with("one file"));
    for state in states.values_mut() {
        *state = state.replace(" 2 names", " 1 names");
    }
    states
}

#[tokio::test]
async fn a_shell_and_a_few_programs_keep_all_but_hard_links() -> Result {
    let names = [
        "sh", "cat", "mkdir", "mv", "rm", "chmod", "touch", "ln", "readlink", "stat", "dd",
    ];
    let bin = of_system(&names)?;
    let fixture = Fixture::with_path(bin.path().to_str().unwrap()).await?;
    plant(&fixture.path("tree"))?;
    let expected = survey(&fixture.path("tree"))?;
    let copy = fixture
        .pod
        .copy_to(fixture.path("tree"), fixture.remote("there"));
    // Over what is there the second time.
    for _ in 0..2 {
        let copied = copy.run().await?;
        assert_eq!((copied.files, copied.compared), (16, true));
        assert_eq!(copied.not_kept, [NotKept::HardLinks]);
        assert!(copied.left_out.is_empty());
        let found = survey(&fixture.path("there"))?;
        assert_same(
            &without_links(found),
            &without_links(expected.clone()),
            true,
        );
    }
    assert!(on_disk(&fixture.path("there/holes")) < 5 << 20);
    let copy = fixture
        .pod
        .copy_from(fixture.remote("tree"), fixture.path("back"));
    let copied = copy.run().await?;
    assert_eq!(copied.files, 16);
    assert!(
        copied.not_kept.is_empty() && copied.left_out.is_empty(),
        "{copied:?}"
    );
    assert_same(&survey(&fixture.path("back"))?, &expected, true);
    assert!(fixture.aside()?.is_empty());
    Ok(())
}

#[tokio::test]
async fn a_shell_and_cat_alone_do_for_files_and_trees() -> Result {
    let bin = of_system(&["sh", "cat"])?;
    let fixture = Fixture::with_path(bin.path().to_str().unwrap()).await?;
    plant(&fixture.path("tree"))?;
    let copy = fixture
        .pod
        .copy_from(fixture.remote("tree"), fixture.path("back"));
    let copied = copy.run().await?;
    assert_eq!((copied.files, copied.compared), (16, false));
    let lost = [NotKept::Modes, NotKept::Times, NotKept::HardLinks];
    assert_eq!(copied.not_kept, lost);
    let program = "readlink";
    assert_eq!(copied.left_out.len(), 5);
    assert!(
        copied
            .left_out
            .iter()
            .all(|it| it.reason == Reason::Lacks { program })
    );
    let contents = |root: &str| -> Result<BTreeMap<PathBuf, String>> {
        let found = survey(&fixture.path(root))?.into_iter();
        let found = found.filter(|(_, state)| state.contains(" bytes "));
        Ok(found
            .map(|(path, state)| {
                (
                    path,
                    state.split(" names").next().unwrap().replace(" 2", " 1"),
                )
            })
            .collect())
    };
    assert_eq!(contents("back")?, contents("tree")?);

    // Into directories that are there, for it cannot make any.
    for directory in ["a/b", "empty", "closed"] {
        fs::create_dir_all(fixture.path("there").join(directory))?;
    }
    let long = fixture.path("there").join("long/".repeat(30));
    fs::create_dir_all(long)?;
    let copy = fixture
        .pod
        .copy_to(fixture.path("tree"), fixture.remote("there"));
    let copied = copy.run().await?;
    assert_eq!((copied.files, copied.compared), (16, true));
    assert!(copied.not_kept.contains(&NotKept::Times) && copied.not_kept.contains(&NotKept::Modes));
    assert_eq!(copied.left_out.len(), 5);
    assert_eq!(contents("there")?, contents("tree")?);
    let copy = fixture
        .pod
        .copy_to(fixture.path("tree"), fixture.remote("new"));
    let error = copy.run().await.unwrap_err().to_string();
    assert!(
        error.contains("mkdir") && error.contains("not found"),
        "{error}"
    );

    // What is copied back is compared.
    fs::write(fixture.path("file"), "contents")?;
    let copy = fixture
        .pod
        .copy_to(fixture.path("file"), fixture.remote("one"));
    assert_eq!(copy.run().await?.bytes, 8);
    assert_eq!(fs::read(fixture.path("one"))?, b"contents");
    Ok(())
}

#[tokio::test]
async fn tar_alone_does() -> Result {
    let directories = [Some(of_system(&["tar"])?), busybox(&["tar"])?];
    for (bin, is_gnu) in directories.into_iter().flatten().zip([true, false]) {
        let fixture = Fixture::with_path(bin.path().to_str().unwrap()).await?;
        plant(&fixture.path("tree"))?;
        let expected = survey(&fixture.path("tree"))?;
        let copy = fixture
            .pod
            .copy_to(fixture.path("tree"), fixture.remote("there"));
        let copied = copy.run().await?;
        assert_eq!((copied.files, copied.compared), (16, true));
        assert_same(&survey(&fixture.path("there"))?, &expected, true);
        let copy = fixture
            .pod
            .copy_from(fixture.remote("tree"), fixture.path("back"));
        assert_eq!(copy.run().await?.files, 16);
        assert_same(&survey(&fixture.path("back"))?, &expected, true);
        // Nobody can ask it which one it is.
        assert_eq!(copied.not_kept, [NotKept::Holes], "{is_gnu}");
    }
    Ok(())
}

#[tokio::test]
async fn neither_is_an_error_that_says_what_to_do() -> Result {
    for programs in [&["sha256sum"][..], &["sh", "sha256sum"]] {
        let bin = of_system(programs)?;
        let fixture = Fixture::with_path(bin.path().to_str().unwrap()).await?;
        fs::write(fixture.path("file"), "x")?;
        let to = fixture
            .pod
            .copy_to(fixture.path("file"), fixture.remote("there"));
        let from = fixture
            .pod
            .copy_from(fixture.remote("file"), fixture.path("back"));
        let errors = [
            to.retries(9).run().await.unwrap_err(),
            from.retries(9).container("main").run().await.unwrap_err(),
        ];
        for (error, target) in errors.iter().zip(["", " --target=main"]) {
            let is_it = matches!(error, Error::Caller(CallerError::NothingToCopyWith { .. }));
            assert!(is_it, "{error:?}");
            let words = format!("kubectl debug web-0 -n default{target} --image=busybox");
            assert!(error.to_string().contains(&words), "{error}");
        }
    }
    Ok(())
}

//! Trees of a thousand files and more, and a file of many bytes.

use std::fs;

use kubewire::{Error, copy::Copied};

use crate::{
    fixture::{Fixture, Program, Result, noise, peer_problem},
    tree::{digest, on_disk, plant},
};

#[tokio::test]
async fn a_thousand_files_are_the_same_after_both_ways() -> Result {
    let fixture = Fixture::new().await?;
    let tree = fixture.path("tree");
    plant(&tree, 1000, 64 << 20)?;
    let expected = digest(&tree)?;
    let copied = fixture
        .pod
        .copy_to(&tree, fixture.remote("there"))
        .run()
        .await?;
    assert_eq!(copied.files, 990);
    assert_eq!(digest(&fixture.path("there"))?, expected);
    let copied = fixture
        .pod
        .copy_from(fixture.remote("tree"), fixture.path("back"))
        .run()
        .await?;
    assert!(copied.compared && copied.left_out.is_empty(), "{copied:?}");
    assert_eq!(digest(&fixture.path("back"))?, expected);
    // Ten files begin with a hole of 1 MiB.
    for copy in ["there", "back"] {
        let (here, there) = (on_disk(&tree)?, on_disk(&fixture.path(copy))?);
        assert!(
            there < here + (2 << 20),
            "{copy} has {there} bytes, {here} were copied"
        );
    }
    Ok(())
}

/// Copies a large file from a container whose `tar` keeps the end of the archive back until
/// somebody has run `sha256sum`, which is this script.
async fn large(sha256sum: &str) -> Result<Result<Copied, Error>> {
    let tar = r#"[ "$1" = -c ] || exec tar "$@"
tar "$@" | {
  head -c 1000000
  i=0
  while [ ! -e "${0%/*}/asked" ] && [ $i -lt 1200 ]; do sleep 0.1; i=$((i + 1)); done
  [ -e "${0%/*}/asked" ] && exec cat
}"#;
    let sha256sum = format!("echo >>\"${{0%/*}}/asked\"\n{sha256sum}");
    let (fixture, _bin) = Fixture::with_programs(&[
        ("tar", Program::Script(tar.to_owned())),
        ("sha256sum", Program::Script(sha256sum)),
        ("xargs", Program::Link("/usr/bin/xargs")),
        ("head", Program::Link("/usr/bin/head")),
        ("sh", Program::Link("/bin/sh")),
    ])
    .await?;
    let contents = noise(7, 9 << 20);
    fs::write(fixture.path("large"), &contents)?;
    let copy = fixture
        .pod
        .copy_from(fixture.remote("large"), fixture.path("back"));
    let copied = copy.run().await;
    assert_eq!(fs::read(fixture.path("back"))?, contents);
    Ok(copied)
}

#[tokio::test]
async fn a_large_file_is_read_in_the_container_while_it_comes() -> Result {
    assert!(large(r#"exec sha256sum "$@""#).await??.compared);
    Ok(())
}

#[tokio::test]
async fn a_large_file_that_was_read_too_early_is_read_again() -> Result {
    let other = "printf '%064d  %s\\n' 0 \"$1\"";
    let once = format!("[ $(wc -l <\"${{0%/*}}/asked\") -gt 1 ] && exec sha256sum \"$@\"\n{other}");
    assert!(large(&once).await??.compared);
    let (path, problem) = peer_problem(large(other).await?.unwrap_err());
    assert!(path.ends_with("large"), "{path}");
    assert_eq!(
        problem,
        "its 9437184 bytes are others in the container, where it may have changed meanwhile"
    );
    Ok(())
}

//! Trees of a thousand files and more.

use crate::{
    fixture::{Fixture, Result},
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

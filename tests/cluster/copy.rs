//! Copies to and from a container of a real cluster, between two, and of a tree of every kind of
//! file.

use std::path::Path;

use kubewire::{Client, Config, copy::Copied};

use super::{NAMESPACE, WAIT, cutter::Cutter, make_pod, makes_pods, shared, tree};

/// The digests of all files in the container, as `sha256sum` there finds them.
async fn digests(pod: &kubewire::Pod, root: &str) -> String {
    let script = "cd \"$1\" && find . -type f -exec sha256sum {} + | sort";
    let output = pod.exec(["sh", "-c", script, "sh", root]).output().await;
    let output = output.expect("it runs");
    assert!(output.status.success(), "{output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn is_whole(copied: &Copied) {
    assert!(copied.compared, "{copied:?}");
    assert!(
        copied.left_out.is_empty() && copied.not_kept.is_empty(),
        "{copied:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a cluster"]
async fn a_tree_is_the_same_there_and_back() {
    let client = Client::from_env().await.expect("KUBECONFIG");
    let pod = client.pod(NAMESPACE, shared());
    let here = tempfile::tempdir().expect("a directory");
    let path = |name: &str| here.path().join(name);
    tree::plant(&path("tree"), 500, 32 << 20).expect("it is written");
    let expected = tree::digest(&path("tree")).expect("it is there");
    let there = format!("/tmp/kubewire-{}", std::process::id());
    // Over what is there the second time.
    for _ in 0..2 {
        is_whole(&pod.copy_to(path("tree"), &there).run().await.expect("up"));
    }
    is_whole(
        &pod.copy_from(&there, path("back"))
            .run()
            .await
            .expect("down"),
    );
    assert_eq!(tree::digest(&path("back")).expect("it is there"), expected);
    assert!(holes_are_kept(&path("back")), "holes became zeros");

    if makes_pods() {
        let other = make_pod(&["sh", "-c", WAIT].map(str::to_owned), false);
        let other = client.pod(NAMESPACE, other);
        let copy = pod.copy_between(&there, &other, "/tmp/copy");
        let copied = copy.run().await.expect("across");
        assert!(copied.compared && copied.left_out.is_empty(), "{copied:?}");
        assert_eq!(
            digests(&other, "/tmp/copy").await,
            digests(&pod, &there).await
        );
    }
    let removed = pod.exec(["rm", "-rf", &there]).status().await;
    assert!(removed.expect("it runs").success());
}

/// A file with a hole of 1 MiB takes less on the disk.
fn holes_are_kept(root: &Path) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    let file = std::fs::metadata(root.join("d0/f97")).expect("it has a hole");
    file.len() > 1 << 20 && file.blocks() * 512 < file.len() - (1 << 19)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a cluster"]
async fn a_copy_goes_on_after_cuts() {
    let cutter = Cutter::default();
    let config = Config::from_env().expect("KUBECONFIG");
    let client = Client::new(&cutter.on(config)).expect("a client");
    let pod = client.pod(NAMESPACE, shared());
    let here = tempfile::tempdir().expect("a directory");
    let path = |name: &str| here.path().join(name);
    tree::plant(&path("tree"), 50, 64 << 20).expect("it is written");
    let expected = tree::digest(&path("tree")).expect("it is there");
    let there = format!("/tmp/kubewire-cut-{}", std::process::id());
    // The first files have 8 MiB each: of them what has come stays.
    for gaps in [[40_000, 5 << 20], [3 << 20, 9 << 20]] {
        cutter.plan(gaps);
        is_whole(
            &pod.copy_to(path("tree"), &there)
                .retries(9)
                .run()
                .await
                .expect("up"),
        );
        cutter.plan(gaps);
        let copy = pod.copy_from(&there, path("back")).retries(9);
        is_whole(&copy.run().await.expect("down"));
        assert_eq!(tree::digest(&path("back")).expect("it is there"), expected);
    }
    assert_eq!(cutter.cuts(), 8, "each copy was cut twice");
    let removed = pod.exec(["rm", "-rf", &there]).status().await;
    assert!(removed.expect("it runs").success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a cluster"]
async fn a_file_goes_into_a_directory_and_errors_are_those_of_the_container() {
    let client = Client::from_env().await.expect("KUBECONFIG");
    let pod = client.pod(NAMESPACE, shared());
    let here = tempfile::tempdir().expect("a directory");
    let file = here.path().join("a name");
    std::fs::write(&file, "contents").expect("it is written");
    is_whole(&pod.copy_to(&file, "/tmp/").run().await.expect("up"));
    let output = pod.exec(["cat", "/tmp/a name"]).output().await;
    assert_eq!(output.expect("it runs").stdout, b"contents");
    let removed = pod.exec(["rm", "/tmp/a name"]).status().await;
    assert!(removed.expect("it runs").success());
    let missing = pod.copy_from("/no/such", here.path().join("x"));
    let error = missing.run().await.expect_err("it is not there");
    assert!(error.to_string().contains("No such file"), "{error}");
    let nowhere = pod.copy_to(&file, "/no/such/place");
    let error = nowhere.run().await.expect_err("it has no place");
    assert!(error.to_string().contains("/no/such"), "{error}");
}

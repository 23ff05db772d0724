//! `cp`: kubectl's arguments both ways, several sources, what is refused, and kubectl beside it.

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::Path,
};

use kubewire::testing::{ApiServer, Fault};

use crate::{kubectl, tool::Cluster};

/// A tree below the cluster's directory, which both sides have, and its path as text.
fn plant(cluster: &Cluster) -> String {
    let root = cluster.dir.path().join("tree");
    fs::create_dir_all(root.join("sub/deep")).unwrap();
    fs::write(root.join("file"), "contents").unwrap();
    fs::write(root.join("sub/deep/script"), "#!/bin/sh\n").unwrap();
    let mode = fs::Permissions::from_mode(0o750);
    fs::set_permissions(root.join("sub/deep/script"), mode).unwrap();
    root.to_str().unwrap().to_owned()
}

fn is_copied(root: &Path) {
    assert_eq!(fs::read(root.join("file")).unwrap(), b"contents");
    let script = fs::metadata(root.join("sub/deep/script")).unwrap();
    assert_eq!(script.permissions().mode() & 0o777, 0o750);
}

#[tokio::test]
async fn cp_copies_trees_and_files_both_ways() {
    let cluster = Cluster::start().await;
    let dir = cluster.dir.path();
    let tree = plant(&cluster);
    let path = |name: &str| dir.join(name).to_str().unwrap().to_owned();
    let there = |name: &str| format!("web-0:{}", path(name));

    cluster
        .run(&["cp", &tree, &there("new")])
        .await
        .is(0, "", "");
    is_copied(&dir.join("new"));
    // Into a directory that is there.
    cluster
        .run(&["cp", &tree, &there("new")])
        .await
        .is(0, "", "");
    is_copied(&dir.join("new/tree"));
    cluster
        .run(&["cp", &there("tree"), &path("back")])
        .await
        .is(0, "", "");
    is_copied(&dir.join("back"));
    // As kubectl: a directory takes the name, a file goes into the directory.
    cluster
        .run(&["cp", &there("tree"), &path("back")])
        .await
        .is(0, "", "");
    assert!(!dir.join("back/tree").exists());
    fs::create_dir(dir.join("into")).unwrap();
    cluster
        .run(&["cp", &there("tree/file"), &path("into")])
        .await
        .is(0, "", "");
    assert_eq!(fs::read(dir.join("into/file")).unwrap(), b"contents");
    let other = format!("other/web-1:{}", path("other"));
    cluster
        .run(&["cp", &path("into/file"), &other, "-c", "main"])
        .await
        .is(0, "", "");
    assert_eq!(fs::read(dir.join("other")).unwrap(), b"contents");
    // Several at once.
    let (file, sub) = (format!("{tree}/file"), format!("{tree}/sub"));
    fs::create_dir(dir.join("many")).unwrap();
    cluster
        .run(&["cp", &file, &sub, &there("many")])
        .await
        .is(0, "", "");
    is_copied(&dir.join("many"));
    fs::create_dir(dir.join("many back")).unwrap();
    let sources = [there("many/file"), there("many/sub")];
    cluster
        .run(&["cp", &sources[0], &sources[1], &path("many back")])
        .await
        .is(0, "", "");
    is_copied(&dir.join("many back"));
    cluster
        .run(&["cp", "--no-preserve", &tree, &there("plain")])
        .await
        .is(0, "", "");
    let script = fs::metadata(dir.join("plain/sub/deep/script")).unwrap();
    assert_eq!(script.permissions().mode() & 0o777, 0o755);
    let two = format!("two:{}", path("two"));
    // The pod is read once, however many sources there are.
    let hint = "Defaulted container \"a\" out of: a, b\n";
    fs::create_dir(dir.join("two")).unwrap();
    cluster
        .run(&["cp", &file, &sub, &two])
        .await
        .is(0, "", hint);
    cluster
        .run(&["cp", "-q", &file, &sub, &two])
        .await
        .is(0, "", "");
}

#[tokio::test]
async fn cp_takes_patterns_archives_and_other_pods() {
    let cluster = Cluster::start().await;
    let dir = cluster.dir.path();
    let tree = plant(&cluster);
    fs::write(dir.join("tree/more"), "more").unwrap();
    let path = |name: &str| dir.join(name).to_str().unwrap().to_owned();
    // Patterns match in the container.
    fs::create_dir(dir.join("some")).unwrap();
    let pattern = format!("web-0:{tree}/[fm]*");
    cluster
        .run(&["cp", &pattern, &path("some")])
        .await
        .is(0, "", "");
    let names = fs::read_dir(dir.join("some")).unwrap().count();
    assert_eq!(names, 2);
    // Between pods.
    let to = format!("other/web-1:{}", path("other"));
    cluster
        .run(&["cp", &format!("web-0:{tree}"), &to])
        .await
        .is(0, "", "");
    is_copied(&dir.join("other"));
    // What is left out.
    let excluded = path("without");
    let arguments = ["cp", "--exclude", "deep", "--exclude", "m*", &tree];
    cluster
        .run(&[&arguments[..], &[&format!("web-0:{excluded}")]].concat())
        .await
        .is(0, "", "");
    assert!(dir.join("without/sub").exists() && dir.join("without/file").exists());
    assert!(!dir.join("without/sub/deep").exists() && !dir.join("without/more").exists());
    // An archive there and back.
    let archive = cluster.run(&["cp", &format!("web-0:{tree}"), "-"]).await;
    assert_eq!((archive.code, &archive.stderr[..]), (Some(0), ""));
    fs::create_dir(dir.join("streamed")).unwrap();
    let into = format!("web-0:{}", path("streamed"));
    let ran = cluster
        .run_with_input(&["cp", "-", &into], &archive.stdout)
        .await;
    ran.is(0, "", "");
    is_copied(&dir.join("streamed/tree"));
}

/// A container with `tar` alone has nothing to compare by.
#[tokio::test]
async fn cp_says_what_is_not_compared() {
    let bin = tempfile::tempdir().unwrap();
    symlink("/usr/bin/tar", bin.path().join("tar")).unwrap();
    let path = bin.path().to_str().unwrap();
    let server = ApiServer::builder().pod("default", "web-0", |pod| {
        let sleep = ["/bin/sleep", "infinity"];
        pod.container_with("main", sleep, |main| main.env("PATH", path))
    });
    let cluster = Cluster::around(server.start().await.unwrap());
    let there = format!("web-0:{}", plant(&cluster));
    let back = cluster.dir.path().join("back");
    let back = back.to_str().unwrap();
    let words = format!("{there}: not compared, which takes xargs and sha256sum or cksum there\n");
    cluster.run(&["cp", &there, back]).await.is(0, "", &words);
    cluster.run(&["cp", "-q", &there, back]).await.is(0, "", "");
}

#[tokio::test]
async fn cp_shows_how_far_it_is_on_a_terminal_only() {
    let cluster = Cluster::start().await;
    let large = cluster.dir.path().join("large");
    fs::write(&large, vec![1; 64 << 20]).unwrap();
    let (large, there) = (large.to_str().unwrap(), cluster.dir.path().join("there"));
    let there = format!("web-0:{}", there.to_str().unwrap());
    let mut terminal = cluster.on_terminal(&["cp", large, &there]);
    terminal.until("64.00 MiB").await;
    assert_eq!(terminal.end().await.0, Some(0));
    cluster.run(&["cp", large, &there]).await.is(0, "", "");
}

#[tokio::test]
async fn a_cp_that_is_given_up_leaves_no_half_file() {
    let cluster = Cluster::start().await;
    let dir = cluster.dir.path();
    let large = dir.join("large");
    // It never ends by itself.
    fs::File::create(&large).unwrap().set_len(1 << 40).unwrap();
    fs::create_dir(dir.join("in")).unwrap();
    let (from, there) = (large.to_str().unwrap().to_owned(), dir.join("in/copy"));
    let there = there.to_str().unwrap().to_owned();
    for (from, to) in [
        (from.clone(), format!("web-0:{there}")),
        (format!("web-0:{from}"), there.clone()),
    ] {
        let copy = cluster.start_tool(&["cp", "-c", "main", &from, &to]);
        let begun = || fs::read_dir(dir.join("in")).unwrap().count() > 0;
        while !begun() {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        let status = copy.interrupt().await;
        assert_eq!(status.code(), Some(130), "{status:?}");
        assert!(!begun(), "something is left");
        // The same past its time.
        let arguments = ["cp", "-c", "main", "--timeout", "2s", &from, &to];
        let ran = cluster.run(&arguments).await;
        assert_eq!(ran.code, Some(1), "{}", ran.stderr);
        assert!(!begun(), "something is left: {}", ran.stderr);
    }
}

#[tokio::test]
async fn cp_refuses_in_words() {
    let cluster = Cluster::start().await;
    let tree = plant(&cluster);
    let there = format!("web-0:{tree}");
    for (arguments, words) in [
        (
            &["cp", &tree, "elsewhere"][..],
            "write what is in a pod as POD:PATH",
        ),
        (&["cp", "-", "-"], "kubewire cp POD:PATH -"),
        (&["cp", &there, &there, "-"], "is one archive, of one path"),
        (&["cp", &there, &there, "/no/such"], "with mkdir"),
        (&["cp", &there, &there, "/etc/hostname"], "is a file"),
        (&["cp", &tree, "-", &there], "no other source beside it"),
        (&["cp", &tree, ":/tmp"], "[[NAMESPACE/]POD:]PATH"),
        (
            &["cp", &tree, &tree, "web-0:/no/such"],
            "-- mkdir -p /no/such",
        ),
        (&["cp", "web-0:/no/such", "/tmp/x"], "No such file"),
        (&["cp", &tree, "nobody:/tmp/x"], "not found"),
        (&["cp", "web-0:", "/tmp/x"], "./NAME"),
        (
            &["cp", "-n", "nosuch", &there, "/tmp/x"],
            "there is no namespace",
        ),
    ] {
        let ran = cluster.run(arguments).await;
        assert_eq!(
            (ran.code, &ran.stdout[..]),
            (Some(1), &b""[..]),
            "{arguments:?}"
        );
        assert!(ran.stderr.contains(words), "{arguments:?}: {}", ran.stderr);
    }
}

#[tokio::test]
async fn cp_begins_anew_as_often_as_it_is_told() {
    let cluster = Cluster::start().await;
    let tree = plant(&cluster);
    let back = cluster.dir.path().join("back");
    // With a container named, the copy's connection is the first that is made.
    let arguments = [
        "cp",
        "-c",
        "main",
        &format!("web-0:{tree}"),
        back.to_str().unwrap(),
    ];
    cluster.server.inject(Fault::CutAfter(300));
    let ran = cluster.run(&arguments).await;
    assert_eq!(ran.code, Some(1), "{}", ran.stderr);
    cluster.server.inject(Fault::CutAfter(300));
    let ran = cluster
        .run(&[&arguments[..], &["--retries", "2"]].concat())
        .await;
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    assert!(ran.stderr.contains("goes on"), "{}", ran.stderr);
    is_copied(&back);
}

#[tokio::test]
async fn kubectl_copies_to_the_same_places() {
    let Some(kubectl) = kubectl::kubectl() else {
        return;
    };
    let cluster = Cluster::start().await;
    let tree = plant(&cluster);
    let survey = |root: &Path| {
        let mut found = Vec::new();
        let mut left = vec![root.to_owned()];
        while let Some(path) = left.pop() {
            for entry in fs::read_dir(path).unwrap() {
                let path = entry.unwrap().path();
                found.push(path.strip_prefix(root).unwrap().to_owned());
                if path.is_dir() {
                    left.push(path);
                }
            }
        }
        found.sort();
        found
    };
    let roots = ["ours", "kubectl's"].map(|name| cluster.dir.path().join(name));
    for (root, program) in roots
        .iter()
        .zip([Path::new(crate::tool::KUBEWIRE), &kubectl])
    {
        fs::create_dir_all(root.join("there")).unwrap();
        fs::create_dir_all(root.join("here")).unwrap();
        let path = |name: &str| root.join(name).to_str().unwrap().to_owned();
        let (source, file) = (format!("web-0:{tree}"), format!("{tree}/file"));
        for (from, to) in [
            (&tree, format!("web-0:{}", path("there"))),
            (&tree, format!("web-0:{}", path("new"))),
            (&file, format!("web-0:{}", path("there"))),
            (&source, path("here")),
            (&source, path("deep/down")),
        ] {
            let ran = cluster.run_program(program, &["cp", from, &to]).await;
            assert_eq!(ran.code, Some(0), "{program:?} {from} {to}: {}", ran.stderr);
        }
    }
    assert_eq!(survey(&roots[0]), survey(&roots[1]));
}

//! `exec -l`: a command in many pods at once.

use kubewire::testing::ApiServer;

use crate::tool::{Cluster, finish};

/// Five pods of `app=web`, one of which has two containers, and one of another.
async fn cluster() -> Cluster {
    let mut builder = ApiServer::builder();
    for number in 0..4 {
        let number = number.to_string();
        builder = builder.pod("default", format!("web-{number}"), move |pod| {
            pod.label("app", "web")
                .container_with("main", ["sleep", "infinity"], |one| {
                    one.env("NUMBER", number)
                })
        });
    }
    let server = builder
        .pod("default", "web-4", |pod| {
            pod.label("app", "web")
                .container_with("a", ["sleep", "infinity"], |one| one.env("NUMBER", "4"))
                .container("b", ["sleep", "infinity"])
        })
        .pod("default", "db-0", |pod| {
            pod.label("app", "db")
                .container("main", ["sleep", "infinity"])
        })
        .start()
        .await
        .unwrap();
    Cluster::around(server)
}

fn sorted(text: &str) -> Vec<&str> {
    let mut lines: Vec<_> = text.lines().collect();
    lines.sort_unstable();
    lines
}

#[tokio::test]
async fn a_command_runs_in_all_pods_that_match() {
    let cluster = cluster().await;
    let script = "echo out $NUMBER; printf err >&2; [ $NUMBER != 2 ] || exit 7";
    for most in ["1", "2", "32"] {
        let exec = [
            "exec",
            "-l",
            "app=web",
            "--max-concurrent",
            most,
            "--",
            "sh",
            "-c",
            script,
        ];
        let (code, stdout, stderr) = cluster.run(&exec).await.into_text();
        let out: Vec<_> = (0..5).map(|n| format!("[web-{n}] out {n}")).collect();
        assert_eq!(
            (code, sorted(&stdout)),
            (Some(7), out.iter().map(|s| &**s).collect())
        );
        let (errors, table) = stderr.split_once("POD ").expect("a table");
        let err: Vec<_> = (0..5).map(|n| format!("[web-{n}] err")).collect();
        assert_eq!(sorted(errors), err);
        let expected = "    EXIT CODE\nweb-0   0\nweb-1   0\nweb-2   7\nweb-3   0\nweb-4   0\n";
        assert_eq!(table, expected);
    }
    let quiet = ["exec", "-q", "-l", "app=web", "-c", "main", "--", "true"];
    let ran = cluster.run(&quiet).await;
    ran.is(1, "", "");
    let ran = cluster
        .run(&["exec", "-l", "app=web", "-c", "main", "--", "true"])
        .await;
    assert!(ran.stderr.contains("web-4   error: "), "{}", ran.stderr);
    assert!(ran.stderr.contains("web-3   0\n"), "{}", ran.stderr);
}

#[tokio::test]
async fn a_command_that_takes_too_long_is_given_up_in_its_pod_alone() {
    let cluster = cluster().await;
    let script = "echo begun; [ $NUMBER != 1 ] || sleep 600";
    let exec = [
        "exec",
        "-l",
        "app=web",
        "--timeout=5s",
        "--",
        "sh",
        "-c",
        script,
    ];
    let (code, stdout, stderr) = cluster.run(&exec).await.into_text();
    assert_eq!(
        (code, stdout.lines().count()),
        (Some(1), 5),
        "{stdout}{stderr}"
    );
    assert!(stderr.contains("web-0   0\nweb-1   error: "), "{stderr}");
    let alone = ["exec", "web-0", "--timeout=1s", "--", "sleep", "600"];
    cluster.run(&alone).await.is_error("within 1s");
}

#[tokio::test]
async fn long_lines_come_in_pieces_and_nobody_who_reads_ends_it() {
    let cluster = cluster().await;
    let script = "head -c 200000 /dev/zero | tr '\\0' x";
    let exec = ["exec", "-l", "app=db", "--", "sh", "-c", script];
    let (code, stdout, _) = cluster.run(&exec).await.into_text();
    let pieces = stdout
        .lines()
        .map(|line| line.strip_prefix("[db-0] ").unwrap().len());
    assert_eq!((code, pieces.sum()), (Some(0), 200_000));
    let mut command = cluster.kubewire(&["exec", "-l", "app=web", "--", "yes"]);
    let mut child = command.spawn().unwrap();
    drop(child.stdout.take());
    finish(child).await.is(141, "", "");
}

#[tokio::test]
async fn what_cannot_be_in_many_pods_is_refused() {
    let cluster = cluster().await;
    for (arguments, what) in [
        (
            &["exec", "-l", "app=none", "--", "true"][..],
            "no pod of app=none",
        ),
        (
            &["exec", "-l", "app=web", "web-0", "--", "true"],
            "cannot be used with",
        ),
        (
            &["exec", "-il", "app=web", "--", "cat"],
            "cannot be used with",
        ),
        (
            &["exec", "-t", "-l", "app=web", "--", "sh"],
            "cannot be used with",
        ),
        (
            &["exec", "web-0", "--max-concurrent=2", "--", "true"],
            "cannot be used with",
        ),
        (
            &["exec", "-l", "app=web", "--max-concurrent=0", "--", "true"],
            "0 is not in",
        ),
        (&["exec", "--", "true"], "which pod?"),
    ] {
        cluster.run(arguments).await.is_error(what);
    }
}

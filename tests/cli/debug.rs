//! `debug`: ephemeral containers as kubectl makes them, waited for and attached to.

use kubewire::testing::RestartPolicy;
use serde_json::Value;

use crate::{kubectl, tool::Cluster};

/// An ephemeral container of a pod, without its name.
async fn made(cluster: &Cluster, name: &str) -> Value {
    let ran = cluster.run(&["get", "pod", "web-0", "-o", "json"]).await;
    let pod: Value = serde_json::from_slice(&ran.stdout).unwrap();
    let all = pod["spec"]["ephemeralContainers"].as_array().unwrap();
    let found = all.iter().find(|container| container["name"] == name);
    let mut container = found.expect("it was made").clone();
    let fields = container.as_object_mut().unwrap();
    fields.remove("name");
    // Go writes it where it is empty, too.
    fields.remove("resources");
    container
}

#[tokio::test]
async fn containers_are_made_as_kubectl_makes_them() {
    let cluster = Cluster::start().await;
    let Some(kubectl) = kubectl::kubectl() else {
        return;
    };
    for (at, flags) in [
        &["--profile", "general", "--target=main"][..],
        &[
            "--profile=baseline",
            "--env",
            "A=b",
            "--image-pull-policy",
            "Never",
        ],
        &["--profile", "restricted", "-i", "--attach=false"],
        &["--profile", "netadmin", "-it", "--attach=false"],
        &["--profile", "sysadmin"],
        &[],
    ]
    .into_iter()
    .enumerate()
    {
        println!("{flags:?}");
        let command = ["debug", "web-0", "--image=busybox", "-q"];
        let words = ["--", "sh", "-c", "echo x"];
        let of = |name| [&command[..], &["-c", name], flags, &words].concat();
        let (ours, theirs) = (format!("ours-{at}"), format!("theirs-{at}"));
        cluster.run(&of(&ours)).await.is(0, "", "");
        let ran = cluster.run_program(&kubectl, &of(&theirs)).await;
        assert_eq!(ran.code, Some(0), "{}", ran.stderr);
        assert_eq!(made(&cluster, &ours).await, made(&cluster, &theirs).await);
    }
}

#[tokio::test]
async fn a_container_is_waited_for_and_attached_to() {
    let cluster = Cluster::start().await;
    let debug = [
        "debug",
        "pod/web-0",
        "--image=busybox",
        "-it",
        "-c",
        "look",
        "--",
        "sh",
    ];
    let mut tool = cluster.on_terminal(&debug);
    tool.until("Started container look.").await;
    tool.until("press").await;
    tool.type_in("x=kept; echo rea''dy; stty size\r").await;
    tool.until("ready").await;
    tool.until("30 100").await;
    assert!(tool.is_raw());
    tool.type_in("\u{10}\u{11}").await;
    assert_eq!(tool.end().await, (Some(0), true));
    let mut tool = cluster.on_terminal(&["attach", "web-0", "-c", "look", "-it"]);
    tool.until("press").await;
    tool.type_in("echo is $x; exit\r").await;
    tool.until("is kept").await;
    assert_eq!(tool.end().await, (Some(0), true));
}

#[tokio::test]
async fn what_cannot_be_debugged_is_an_error() {
    let cluster = Cluster::start().await;
    let over = cluster.server.add_pod("default", "over", |pod| {
        pod.restart_policy(RestartPolicy::Never)
            .container("main", ["false"])
    });
    over.unwrap();
    let ended = cluster.run(&["wait", "pod/over", "--for=jsonpath={.status.phase}=Failed"]);
    assert_eq!(ended.await.code, Some(0));
    let of = |words: &[&'static str]| [&["debug", "--image=busybox"], words].concat();
    for (arguments, what) in [
        (of(&["none"]), "not found"),
        (
            of(&["over", "--", "true"]),
            "the pod is not running: Failed",
        ),
        (
            of(&["over", "-i", "--", "true"]),
            "the pod is not running: Failed",
        ),
        (of(&["node/a"]), "use kubectl debug node/NAME"),
        (of(&["web-0", "--copy-to=x"]), "copies of pods"),
        (of(&["web-0", "--profile=all"]), "possible values"),
        (of(&["web-0", "--env=x"]), "is not NAME=VALUE"),
        (of(&["web-0", "-t"]), "--stdin"),
        (
            vec!["debug", "web-0", "--image=a image"],
            "invalid image name",
        ),
        (
            vec!["debug", "web-0", "--image=Upper:1"],
            "invalid image name",
        ),
        (vec!["debug", "web-0"], "--image"),
    ] {
        cluster.run(&arguments).await.is_error(what);
    }
}

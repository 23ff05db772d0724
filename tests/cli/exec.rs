//! `exec` and `attach` without a terminal, and what all subcommands share: errors, the connection's
//! flags, `-v`, help.

use std::{io, process::Stdio};

use kubewire::{
    exec::Subprotocol,
    testing::{ApiServer, RestartPolicy},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    time::timeout,
};

use crate::{
    kubectl,
    tool::{Cluster, PATIENCE, Ran, feed, finish},
};

#[tokio::test]
async fn the_remote_s_streams_and_exit_code_are_its_own() {
    let cluster = Cluster::start().await;
    let script = "echo out; echo err >&2; exit 3";
    let exec = ["exec", "web-0", "--", "sh", "-c", script];
    cluster
        .run(&exec)
        .await
        .is(3, "out\n", "err\ncommand terminated with exit code 3\n");
    let quiet = [
        "exec",
        "-q",
        "pod/web-0",
        "-c",
        "main",
        "--",
        "sh",
        "-c",
        script,
    ];
    let ended = "err\ncommand terminated with exit code 3\n";
    cluster.run(&quiet).await.is(3, "out\n", ended);
    let other = ["-n", "other", "exec", "web-1", "--", "true"];
    cluster.run(&other).await.is(0, "", "");
    let killed = ["exec", "-q", "web-0", "--", "sh", "-c", "kill -9 $$"];
    let ended = "command terminated with exit code 137\n";
    cluster.run(&killed).await.is(137, "", ended);
    let ambiguous = ["exec", "two", "--", "true"];
    let hint = "Defaulted container \"a\" out of: a, b\n";
    cluster.run(&ambiguous).await.is(0, "", hint);
    let quiet = ["exec", "-q", "two", "--", "true"];
    cluster.run(&quiet).await.is(0, "", "");
}

#[tokio::test]
async fn input_that_was_not_read_is_told() {
    let cluster = Cluster::start().await;
    let input = vec![0; 8 << 20];
    let partly = ["web-0", "--", "head", "-c", "10"];
    let ran = cluster
        .run_with_input(&[&["exec", "-i"], &partly[..]].concat(), &input)
        .await;
    let (code, stdout, stderr) = ran.into_text();
    assert_eq!((code, stdout.len()), (Some(0), 10), "{stderr}");
    assert!(stderr.contains("before all its input was sent"), "{stderr}");
    assert!(stderr.contains("cat >file; true"), "{stderr}");
    let quiet = [&["exec", "-q", "-i"], &partly[..]].concat();
    let (code, _, stderr) = cluster.run_with_input(&quiet, &input).await.into_text();
    assert_eq!((code, stderr.as_str()), (Some(0), ""));
}

#[tokio::test]
async fn input_that_nobody_takes_is_told_while_the_session_goes_on() {
    let cluster = Cluster::start().await;
    let directory = tempfile::tempdir().unwrap();
    let told = directory.path().join("told");
    let script = format!("until [ -e {} ]; do sleep 0.1; done; wc -c", told.display());
    let exec = ["exec", "-i", "web-0", "--", "sh", "-c", &script];
    let mut child = cluster
        .kubewire(&exec)
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let mut stderr = child.stderr.take().unwrap();
    let feed = async move { stdin.write_all(&vec![0; 64 << 20]).await };
    let listen = async {
        let words = "no input has been taken for 20 s";
        let mut said = String::new();
        let mut buffer = [0; 1 << 10];
        loop {
            let read = stderr.read(&mut buffer).await.unwrap();
            said.push_str(&String::from_utf8_lossy(&buffer[..read]));
            if read == 0 {
                return said.matches(words).count();
            }
            if said.contains(words) {
                std::fs::write(&told, "").unwrap();
            }
        }
    };
    let (fed, times) = timeout(PATIENCE, async { tokio::join!(feed, listen) })
        .await
        .expect("it ends");
    fed.unwrap();
    assert_eq!(times, 1);
    finish(child).await.is(0, "67108864\n", "");
}

#[tokio::test]
async fn input_that_the_runtime_did_not_hand_on_is_told() {
    let server = ApiServer::builder().input_ends_with_output();
    let server = server.pod("default", "web-0", |pod| {
        pod.container("main", ["sleep", "infinity"])
    });
    let cluster = Cluster::around(server.start().await.unwrap());
    let input = vec![0; 64 << 20];
    let exec = |script| ["exec", "-i", "web-0", "--", "sh", "-c", script];
    let short = exec("exec cat >/dev/null");
    let short = cluster.run_with_input(&short, &input).await;
    let (code, _, stderr) = short.into_text();
    assert_eq!(code, Some(0));
    assert!(stderr.contains("before all its input was sent"), "{stderr}");
    assert!(stderr.contains("cat >file; true"), "{stderr}");
    let whole = exec("cat >/dev/null; true");
    let whole = cluster.run_with_input(&whole, &input).await;
    whole.is(0, "", "");
}

/// It leaves a container that reads one line while there is more to come.
#[tokio::test]
async fn input_that_an_attached_container_did_not_read_is_told() {
    let script = "echo ready; read line; exit 0";
    let server = ApiServer::builder().pod("default", "web-0", |pod| {
        pod.container_with("main", ["sh", "-c", script], |main| main.stdin())
            .restart_policy(RestartPolicy::Never)
            .container("other", ["sleep", "infinity"])
    });
    let cluster = Cluster::around(server.start().await.unwrap());
    let debug = ["debug", "web-0", "--image=busybox", "-i"];
    for (arguments, is_told) in [
        (&["attach", "web-0", "-c", "main", "-i"][..], true),
        (&[&debug[..], &["--", "sh", "-c", script]].concat(), true),
        (
            &[&debug[..], &["-q", "--", "sh", "-c", script]].concat(),
            false,
        ),
    ] {
        let mut command = cluster.kubewire(arguments);
        command.stdin(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let (given, ran) = tokio::join!(stdin.write_all(b"line\n"), finish(child));
        given.unwrap();
        let (code, _, stderr) = ran.into_text();
        assert_eq!(code, Some(0), "{stderr}");
        let warning = "warning: the container ended before all its input was sent and ended";
        assert_eq!(stderr.contains(warning), is_told, "{arguments:?}: {stderr}");
    }
}

#[tokio::test]
async fn stdin_is_copied_to_its_end() {
    let cluster = Cluster::start().await;
    cluster
        .run_with_input(&["exec", "-i", "web-0", "--", "sort"], b"b\na\n")
        .await
        .is(0, "a\nb\n", "");
    let mut input = vec![0; 5_000_000];
    for (at, byte) in input.iter_mut().enumerate() {
        *byte = (at % 251) as u8;
    }
    let echoed = cluster
        .run_with_input(&["exec", "-i", "web-0", "--", "cat"], &input)
        .await;
    assert_eq!(echoed.code, Some(0));
    assert!(echoed.stdout == input, "the bytes differ");
}

#[tokio::test]
async fn a_container_without_a_name_is_the_default_one() {
    let cluster = Cluster::start().await;
    let ran = cluster.run(&["exec", "two", "-c", "", "--", "true"]).await;
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    assert!(ran.stderr.contains("Defaulted container"), "{}", ran.stderr);
}

#[tokio::test]
async fn flags_without_a_value_take_true_and_false_as_go_s_do() {
    let cluster = Cluster::start().await;
    for (flags, echoed) in [
        (&["-i"][..], "in"),
        (&["-i=true"], "in"),
        (&["-iq"], "in"),
        (&["--stdin=true", "--tty=false"], "in"),
        (&["-i=false"], ""),
        (&["--stdin=false", "-q"], ""),
    ] {
        let arguments = [&["exec", "web-0"], flags, &["--", "cat"]].concat();
        let ran = cluster.run_with_input(&arguments, b"in").await;
        ran.is(0, echoed, "");
    }
}

#[tokio::test]
async fn without_the_flag_stdin_stays_where_it_is() {
    let cluster = Cluster::start().await;
    cluster
        .run_with_input(&["exec", "web-0", "--", "cat"], b"not for the remote")
        .await
        .is(0, "", "");
}

#[tokio::test]
async fn an_input_that_never_ends_does_not_keep_it() {
    let cluster = Cluster::start().await;
    let mut command = cluster.kubewire(&["exec", "-i", "web-0", "--", "true"]);
    let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
    let _open = child.stdin.take();
    finish(child).await.is(0, "", "");
}

#[tokio::test]
async fn a_server_that_cannot_end_stdin_is_warned_about() {
    let cluster = Cluster::with(&[Subprotocol::V4]).await;
    let head = [
        "exec",
        "-i",
        "web-0",
        "--",
        "sh",
        "-c",
        "head -c 3; sleep 1",
    ];
    let ran = cluster.run_with_input(&head, b"abc").await;
    assert_eq!((ran.code, &ran.stdout[..]), (Some(0), &b"abc"[..]));
    assert!(
        ran.stderr.starts_with("warning: stdin cannot be closed"),
        "{}",
        ran.stderr
    );
    assert_eq!(ran.stderr.matches('\n').count(), 1, "{}", ran.stderr);
}

#[tokio::test]
async fn errors_are_one_line_that_says_what_to_do() {
    let cluster = Cluster::start().await;
    let missing = cluster.dir.path().join("missing");
    let missing = missing.to_str().unwrap();
    for (arguments, what) in [
        (
            &["exec", "nopod", "--", "true"][..],
            "pods \"nopod\" not found",
        ),
        (
            &["exec", "two", "-c", "x", "--", "true"],
            "container x is not valid for pod two",
        ),
        (
            &["exec", "web-0", "--", "/no/such"],
            "cannot execute \"/no/such\"",
        ),
        (
            &["exec", "deploy/web", "--", "true"],
            "deployments.apps \"web\" not found",
        ),
        (&["exec", "web-0", "ls"], "unexpected argument 'ls'"),
        (&["exec", "web-0"], "<COMMAND>"),
        (&["exec", "web-0", "--bogus", "--", "true"], "--bogus"),
        (&["attach", "nopod"], "pods \"nopod\" not found"),
        (&["attach"], "<POD>"),
        (
            &["--token", "wrong", "exec", "web-0", "--", "true"],
            "Unauthorized (it does not take the token: log in again",
        ),
        (
            &["-s", "http://127.0.0.1:1", "exec", "web-0", "--", "true"],
            "cannot connect to 127.0.0.1:1",
        ),
        (&["-s", "ftp://x", "exec", "web-0", "--", "true"], "scheme"),
        (
            &["--context", "x", "exec", "web-0", "--", "true"],
            "the context \"x\" does not exist",
        ),
        (
            &["--kubeconfig", missing, "exec", "web-0", "--", "true"],
            "does not exist",
        ),
        (
            &["-v", "x", "exec", "web-0", "--", "true"],
            "invalid value 'x'",
        ),
    ] {
        println!("{arguments:?}");
        cluster.run(arguments).await.is_error(what);
    }
}

#[tokio::test]
async fn a_user_without_rights_is_told_the_rule() {
    let cluster = Cluster::start().await;
    let token = cluster.server.token_without_rights();
    let ran = cluster
        .run(&["--token", token, "exec", "web-0", "--", "true"])
        .await;
    ran.is_error("pods/exec");
    assert!(ran.stderr.contains("\"get\", \"create\""), "{}", ran.stderr);
    assert!(!ran.stderr.contains(token), "{}", ran.stderr);
}

#[tokio::test]
async fn flags_do_without_a_kubeconfig() {
    let cluster = Cluster::start().await;
    let ca = cluster.dir.path().join("ca.pem");
    std::fs::write(&ca, cluster.server.ca_pem().unwrap()).unwrap();
    let arguments = [
        "exec",
        "web-0",
        "-s",
        &cluster.server.url(),
        "--token",
        cluster.server.token(),
        "--certificate-authority",
        ca.to_str().unwrap(),
        "--",
        "echo",
        "hello",
    ];
    let mut command = cluster.kubewire(&arguments);
    finish(command.env_remove("KUBECONFIG").spawn().unwrap())
        .await
        .is(0, "hello\n", "");
}

#[tokio::test]
async fn verbose_events_go_to_stderr_without_secrets() {
    let cluster = Cluster::start().await;
    let ran = cluster
        .run(&["-v=9", "exec", "web-0", "--", "echo", "out"])
        .await;
    assert_eq!((ran.code, &ran.stdout[..]), (Some(0), &b"out\n"[..]));
    assert!(ran.stderr.contains("v5.channel.k8s.io"), "{}", ran.stderr);
    assert!(
        !ran.stderr.contains(cluster.server.token()),
        "{}",
        ran.stderr
    );
}

#[tokio::test]
async fn a_reader_that_has_enough_ends_it_quietly() {
    let cluster = Cluster::start().await;
    let mut command = cluster.kubewire(&["exec", "web-0", "--", "yes"]);
    let mut child = command.spawn().unwrap();
    let mut stdout = child.stdout.take().unwrap();
    let mut start = [0; 4];
    stdout.read_exact(&mut start).await.unwrap();
    assert_eq!(&start, b"y\ny\n");
    drop(stdout);
    finish(child).await.is(141, "", "");
}

#[tokio::test]
async fn a_server_that_goes_away_is_no_success() {
    let cluster = Cluster::start().await;
    let script = "echo up; echo err >&2; sleep 60";
    let mut command = cluster.kubewire(&["exec", "web-0", "--", "sh", "-c", script]);
    let mut child = command.spawn().unwrap();
    let (mut up, mut err) = ([0; 3], [0; 4]);
    let (stdout, stderr) = (
        child.stdout.as_mut().unwrap(),
        child.stderr.as_mut().unwrap(),
    );
    stdout.read_exact(&mut up).await.unwrap();
    stderr.read_exact(&mut err).await.unwrap();
    assert_eq!((&up, &err), (b"up\n", b"err\n"));
    cluster.server.shutdown().await;
    finish(child).await.is_error("without a status");
}

#[tokio::test]
async fn help_and_version_are_asked_for_and_go_to_stdout() {
    let cluster = Cluster::start().await;
    let version = cluster.run(&["--version"]).await;
    version.is(0, concat!("kubewire ", env!("CARGO_PKG_VERSION"), "\n"), "");
    let help = cluster.run(&["exec", "--help"]).await;
    assert_eq!((help.code, &*help.stderr), (Some(0), ""));
    assert!(String::from_utf8_lossy(&help.stdout).contains("--stdin"));
}

#[tokio::test]
async fn attach_joins_the_container_s_process() {
    let cluster = Cluster::start().await;
    for line in ["first\n", "second\n"] {
        let mut command = cluster.kubewire(&["attach", "-i", "catter"]);
        let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(line.as_bytes()).await.unwrap();
        let mut echo = vec![0; line.len()];
        let stdout = child.stdout.as_mut().unwrap();
        timeout(PATIENCE, stdout.read_exact(&mut echo))
            .await
            .expect("it echoes")
            .unwrap();
        assert_eq!(echo, line.as_bytes());
        child.kill().await.unwrap();
    }
}

#[tokio::test]
async fn kubectl_does_the_same() -> io::Result<()> {
    let Some(kubectl) = kubectl::kubectl() else {
        return Ok(());
    };
    let cluster = Cluster::start().await;
    let script = "echo out; echo err >&2; exit 3";
    for (arguments, input) in [
        (&["exec", "web-0", "--", "sh", "-c", script][..], ""),
        (&["exec", "-q", "web-0", "--", "sh", "-c", script], ""),
        (
            &["exec", "web-0", "-c", "main", "--", "echo", "--", "-i"],
            "",
        ),
        (&["exec", "-i", "web-0", "--", "sort"], "b\na\n"),
        (&["exec", "-it", "web-0", "--", "cat"], "no terminal\n"),
        (&["exec", "-i", "web-0", "--", "head", "-c", "2"], "abcdef"),
        (&["-n", "other", "exec", "pod/web-1", "--", "true"], ""),
        (&["exec", "web-0", "--", "sh", "-c", "kill -9 $$"], ""),
        (&["exec", "two", "--", "true"], ""),
    ] {
        let ours = feed(cluster.kubewire(arguments), input.as_bytes()).await;
        let theirs = feed(cluster.program(&kubectl, arguments), input.as_bytes()).await;
        let of = |ran: &Ran| {
            let stdout = String::from_utf8_lossy(&ran.stdout).into_owned();
            (ran.code, stdout, ran.stderr.clone())
        };
        assert_eq!(of(&ours), of(&theirs), "{arguments:?}");
    }
    // The words of errors are each tool's own; that they are errors, and go to stderr, is not.
    for arguments in [
        &["exec", "nopod", "--", "true"][..],
        &["exec", "two", "-c", "x", "--", "true"],
        &["exec", "web-0", "--", "/no/such"],
        &["exec", "web-0", "ls"],
        &["exec", "web-0", "--bogus", "--", "true"],
        &["attach", "nopod"],
    ] {
        let ours = feed(cluster.kubewire(arguments), b"").await;
        let theirs = feed(cluster.program(&kubectl, arguments), b"").await;
        assert_eq!(
            (ours.code, ours.stdout),
            (theirs.code, theirs.stdout),
            "{arguments:?}"
        );
    }
    Ok(())
}

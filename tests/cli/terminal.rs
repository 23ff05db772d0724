//! `exec` and `attach` on a terminal: its keys, its size, and that it is as it was at the end.

use pty_process::Size;

use crate::tool::{Cluster, OnTerminal};

/// A shell in the container that runs this on a terminal.
fn shell(cluster: &Cluster, script: &str) -> OnTerminal {
    cluster.on_terminal(&["exec", "-it", "web-0", "--", "sh", "-c", script])
}

/// One that has said that it is ready.
async fn ready(cluster: &Cluster) -> OnTerminal {
    let mut tool = shell(cluster, "echo ready; sleep 60");
    tool.until("ready").await;
    tool
}

/// Joins the shell that runs there already.
async fn attached(cluster: &Cluster, flags: &[&str]) -> OnTerminal {
    let mut tool = cluster.on_terminal(&[&["attach", "-it", "shell"], flags].concat());
    tool.until("press").await;
    tool
}

#[tokio::test]
async fn a_terminal_passes_every_key_and_is_restored() {
    let cluster = Cluster::start().await;
    let script = "trap 'echo interrupted' INT; echo ready; \
                  while ! read -r line; do :; done; echo \"got $line\"; exit 5";
    let mut tool = shell(&cluster, script);
    tool.until("ready").await;
    assert!(tool.is_raw());
    // The interrupt key is the remote's, and no signal here.
    tool.type_in("\u{3}").await;
    tool.until("interrupted").await;
    tool.type_in("ab\r").await;
    tool.until("got ab").await;
    let (code, restored) = tool.end().await;
    assert!(
        tool.seen
            .contains("command terminated with exit code 5\r\n"),
        "{}",
        tool.seen
    );
    assert_eq!((code, restored), (Some(5), true));
}

#[tokio::test]
async fn the_remote_s_terminal_has_the_size_of_ours() {
    let cluster = Cluster::start().await;
    let script = "until [ \"$(stty size 2>/dev/null)\" = '30 100' ]; do sleep 0.05; done; echo first; \
                  until [ \"$(stty size 2>/dev/null)\" = '40 120' ]; do sleep 0.05; done; echo second";
    let mut tool = shell(&cluster, script);
    tool.until("first").await;
    tool.pty.resize(Size::new(40, 120)).unwrap();
    tool.until("second").await;
    assert_eq!(tool.end().await, (Some(0), true));
}

#[tokio::test]
async fn signals_end_it_and_restore_the_terminal() {
    let cluster = Cluster::start().await;
    for (name, code) in [("INT", 130), ("TERM", 143), ("HUP", 129), ("QUIT", 131)] {
        let mut tool = ready(&cluster).await;
        assert!(tool.is_raw());
        tool.signal(name).await;
        assert_eq!(tool.end().await, (Some(code), true), "{name}");
    }
}

#[tokio::test]
async fn errors_restore_the_terminal_too() {
    let cluster = Cluster::start().await;
    let mut tool = cluster.on_terminal(&["exec", "-it", "web-0", "--", "/no/such"]);
    let (code, restored) = tool.end().await;
    assert!(tool.seen.starts_with("error: "), "{:?}", tool.seen);
    assert_eq!((code, restored), (Some(1), true));

    let mut tool = ready(&cluster).await;
    cluster.server.shutdown().await;
    let (code, restored) = tool.end().await;
    assert!(tool.seen.contains("without a status"), "{:?}", tool.seen);
    assert_eq!((code, restored), (Some(1), true));
}

#[tokio::test]
async fn a_terminal_is_not_used_where_stdin_is_none() {
    let cluster = Cluster::start().await;
    let ran = cluster
        .run_with_input(&["exec", "-it", "web-0", "--", "cat"], b"hello\n")
        .await;
    ran.is(
        0,
        "hello\n",
        "Unable to use a TTY - input is not a terminal or the right kind of file\n",
    );
}

#[tokio::test]
async fn attach_makes_the_program_draw_its_screen_again() {
    let cluster = Cluster::start().await;
    let mut tool = attached(&cluster, &[]).await;
    tool.type_in("trap 'echo drawn aga''in' WINCH; stty size\r")
        .await;
    tool.until("30 100").await;
    assert!(tool.is_raw());
    tool.signal("TERM").await;
    assert_eq!(tool.end().await, (Some(143), true));

    // The size is the same, and still the program is told.
    let mut tool = attached(&cluster, &[]).await;
    tool.type_in("\r").await;
    tool.until("drawn again").await;
    tool.type_in("stty size\r").await;
    tool.until("30 100").await;
}

#[tokio::test]
async fn a_tilde_and_a_dot_end_a_session_that_hangs() {
    let cluster = Cluster::start().await;
    let script = "echo ready; while read -r line; do echo \"got $line\"; done";
    let mut tool = shell(&cluster, script);
    tool.until("ready").await;
    tool.type_in("a~.\r~~b\r").await;
    tool.until("got a~.").await;
    tool.until("got ~b").await;
    tool.type_in("~").await;
    tool.type_in(".").await;
    let (code, restored) = tool.end().await;
    assert!(tool.seen.contains("given up with ~."), "{:?}", tool.seen);
    assert_eq!((code, restored), (Some(1), true));
}

#[tokio::test]
async fn attach_is_left_by_its_keys_and_what_runs_goes_on() {
    let cluster = Cluster::start().await;
    let mut tool = attached(&cluster, &[]).await;
    // Before raw mode the terminal here would take some of the keys.
    tool.type_in("x=kept; echo rea''dy\r").await;
    tool.until("ready").await;
    tool.type_in("\u{10}\u{11}").await;
    let (code, restored) = tool.end().await;
    assert!(tool.seen.contains("detached\r\n"), "{:?}", tool.seen);
    assert_eq!((code, restored), (Some(0), true));

    let mut tool = attached(&cluster, &["--detach-keys", "ctrl-]"]).await;
    tool.type_in("echo is $x\r").await;
    tool.until("is kept").await;
    tool.type_in("\u{1d}").await;
    assert_eq!(tool.end().await, (Some(0), true));
    let wrong = ["attach", "-it", "shell", "--detach-keys", "ctrl-1"];
    cluster.run(&wrong).await.is_error("not a sequence of keys");
}

//! Screens as a person sees them, in tmux: programs that draw, sizes that change, sessions that are
//! left and joined again, the table of connections.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    process::Command,
};

use crate::tool::{Cluster, KUBEWIRE, PATIENCE};

/// A program of this machine, or why the test is skipped.
fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut places = std::env::split_paths(&path).map(|dir| dir.join(name));
    let found = places.find(|file| file.is_file());
    if found.is_none() {
        assert!(
            std::env::var_os("KUBEWIRE_REQUIRE_REAL").is_none_or(|value| value != "1"),
            "{name} is not in PATH"
        );
        println!("skipped: {name} is not in PATH");
    }
    found
}

/// A terminal of tmux with the tool in it.
struct Screen<'a> {
    tmux: &'a Path,
    socket: PathBuf,
}

impl<'a> Screen<'a> {
    /// 80 columns and 24 lines.
    async fn start(cluster: &Cluster, tmux: &'a Path, name: &str, arguments: &[&str]) -> Self {
        let screen = Self {
            tmux,
            socket: cluster.dir.path().join(name),
        };
        let environment = format!("KUBECONFIG={}", cluster.kubeconfig().display());
        let new = [
            "-f",
            "/dev/null",
            "new-session",
            "-d",
            "-x",
            "80",
            "-y",
            "24",
        ];
        // What the tool says last is still there when it has ended, and a shell says that it has:
        // tmux 3.3 misses the end of a process while it calls utempter. Ctrl-C is the tool's.
        let shell = r#"trap : INT QUIT; "$@"; echo "ended with $?"; exec sleep 3600"#;
        let tool = ["-e", &environment, "sh", "-c", shell, "sh", KUBEWIRE];
        screen.tmux(&[&new[..], &tool, arguments].concat()).await;
        screen
    }

    async fn tmux(&self, arguments: &[&str]) -> String {
        let mut command = Command::new(self.tmux);
        command.arg("-S").arg(&self.socket).args(arguments);
        command.env("LC_ALL", "C.UTF-8").stdin(Stdio::null());
        let output = command.output().await.unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "tmux {arguments:?}: {error}");
        String::from_utf8(output.stdout).unwrap()
    }

    async fn keys(&self, keys: &[&str]) {
        self.tmux(&[&["send-keys"], keys].concat()).await;
    }

    /// Waits until the screen is as expected, and gives it.
    async fn until(&self, what: &str, is: impl Fn(&str) -> bool) -> String {
        let begin = std::time::Instant::now();
        loop {
            let screen = self.tmux(&["capture-pane", "-p"]).await;
            if is(&screen) {
                return screen;
            }
            assert!(begin.elapsed() < PATIENCE, "no {what}:\n{screen}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Waits until the tool has ended, and gives the screen that it leaves.
    async fn ended(&self) -> String {
        self.shows("ended with ").await
    }

    async fn shows(&self, text: &str) -> String {
        self.until(text, |screen| screen.contains(text)).await
    }
}

impl Drop for Screen<'_> {
    fn drop(&mut self) {
        let mut command = std::process::Command::new(self.tmux);
        command.arg("-S").arg(&self.socket).arg("kill-server");
        // It may have ended by itself.
        let _ = command.stderr(Stdio::null()).status();
    }
}

#[tokio::test]
async fn an_editor_draws_as_on_a_terminal_of_this_machine() {
    let (Some(tmux), Some(busybox)) = (program("tmux"), program("busybox")) else {
        return;
    };
    let cluster = Cluster::start().await;
    let file = cluster.dir.path().join("text");
    let (file_name, busybox) = (file.to_str().unwrap(), busybox.to_str().unwrap());
    let exec = ["exec", "-it", "web-0", "--", busybox, "vi", file_name];
    let screen = Screen::start(&cluster, &tmux, "vi", &exec).await;
    // It fills the lines behind the text's end.
    let tildes = |screen: &str| screen.lines().filter(|line| line.starts_with('~')).count();
    screen.until("vi", |screen| tildes(screen) == 22).await;
    screen.keys(&["i", "hello", "Escape"]).await;
    screen
        .until("hello", |screen| screen.starts_with("hello"))
        .await;
    screen
        .tmux(&["resize-window", "-x", "60", "-y", "12"])
        .await;
    screen
        .until("smaller vi", |screen| {
            screen.starts_with("hello") && tildes(screen) == 10
        })
        .await;
    screen.keys(&[":wq", "Enter"]).await;
    screen.ended().await;
    assert_eq!(std::fs::read_to_string(file).unwrap(), "hello\n");
}

#[tokio::test]
async fn a_program_that_draws_again_and_again_stays_in_its_place() {
    let (Some(tmux), Some(busybox)) = (program("tmux"), program("busybox")) else {
        return;
    };
    let cluster = Cluster::start().await;
    let exec = [
        "exec",
        "-it",
        "web-0",
        "--",
        busybox.to_str().unwrap(),
        "top",
        "-d",
        "1",
    ];
    let screen = Screen::start(&cluster, &tmux, "top", &exec).await;
    let is_top = |screen: &str| screen.contains("CPU:") && screen.contains("PID");
    let mut before = screen.until("top", is_top).await;
    for _ in 0..3 {
        let is_drawn_again = |now: &str| is_top(now) && now != before;
        before = screen.until("top again", is_drawn_again).await;
        assert_eq!(before.matches("CPU:").count(), 1, "{before}");
    }
    screen.keys(&["q"]).await;
    screen.ended().await;
}

#[tokio::test]
async fn a_session_is_left_and_joined_again() {
    let Some(tmux) = program("tmux") else {
        return;
    };
    let cluster = Cluster::start().await;
    let attach = ["attach", "-it", "shell"];
    let first = Screen::start(&cluster, &tmux, "first", &attach).await;
    first.shows("press").await;
    first.keys(&["x=kept; echo rea''dy", "Enter"]).await;
    first.shows("\nready").await;
    first.keys(&["C-p", "C-q"]).await;
    first.shows("detached").await;
    let second = Screen::start(&cluster, &tmux, "second", &attach).await;
    second.shows("press").await;
    second.keys(&["echo is $x; stty size", "Enter"]).await;
    second.shows("\nis kept").await;
    second.shows("\n24 80").await;
    second.keys(&["C-p", "C-q"]).await;
    second.shows("detached").await;
}

#[tokio::test]
async fn the_progress_bar_is_drawn_in_its_place_and_taken_away() {
    let Some(tmux) = program("tmux") else {
        return;
    };
    let cluster = Cluster::start().await;
    let dir = cluster.dir.path();
    // It never ends by itself.
    let large = std::fs::File::create(dir.join("large")).unwrap();
    large.set_len(1 << 40).unwrap();
    let (here, there) = (dir.join("large"), dir.join("copy"));
    let there = format!("web-0:{}", there.to_str().unwrap());
    let copy = ["cp", "-c", "main", here.to_str().unwrap(), &there];
    let screen = Screen::start(&cluster, &tmux, "bar", &copy).await;
    let is_bar = |screen: &str| screen.contains("/1.00 TiB ") && screen.contains(" left");
    let mut before = screen.until("bar", is_bar).await;
    for _ in 0..3 {
        let is_drawn_again = |now: &str| is_bar(now) && now != before;
        before = screen.until("bar again", is_drawn_again).await;
        assert_eq!(before.matches(" left").count(), 1, "{before}");
        assert_eq!(
            before.lines().filter(|line| !line.is_empty()).count(),
            1,
            "{before}"
        );
    }
    screen.keys(&["C-c"]).await;
    let after = screen.ended().await;
    assert!(after.contains("ended with 130"), "{after}");
    assert!(!after.contains("TiB"), "{after}");
}

#[tokio::test]
async fn the_table_of_connections_is_drawn_in_its_place() {
    let Some(tmux) = program("tmux") else {
        return;
    };
    let cluster = Cluster::start().await;
    let echo = crate::port_forward::echo().await.to_string();
    let free = crate::port_forward::free().await;
    let ports = format!("{free}:{echo}");
    let forward = [
        "port-forward",
        "web-0",
        &ports,
        "--address=127.0.0.1",
        "--stats",
    ];
    let screen = Screen::start(&cluster, &tmux, "stats", &forward).await;
    screen.shows("0 open, 0 closed").await;
    let mut socket = TcpStream::connect(("127.0.0.1", free)).await.unwrap();
    socket.write_all(&[b'x'; 3072]).await.unwrap();
    socket.read_exact(&mut [0; 3072]).await.unwrap();
    let shown = screen
        .shows("1 open, 0 closed, 0 failed; 3.0 KiB sent, 3.0 KiB received")
        .await;
    assert_eq!(shown.matches("STATE").count(), 1, "{shown}");
    let row = shown.lines().find(|line| line.contains(" open ")).unwrap();
    assert!(
        row.starts_with(&free.to_string()) && row.contains("3.0 KiB"),
        "{shown}"
    );
    drop(socket);
    let shown = screen.shows("0 open, 1 closed").await;
    assert!(
        shown.contains(" closed ") && shown.matches("STATE").count() == 1,
        "{shown}"
    );
    screen.keys(&["C-c"]).await;
    screen.ended().await;
}

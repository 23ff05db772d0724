//! The built tool against the embedded API server: what it writes where, its exit codes, the
//! terminal, and kubectl beside it.

#![cfg(unix)]
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "helpers of tests are tests"
)]

#[path = "common/kubectl.rs"]
mod kubectl;

use std::{
    io,
    path::{Path, PathBuf},
    process::{Output, Stdio},
    time::Duration,
};

use kubewire::{exec::Subprotocol, testing::ApiServer};
use pty_process::{Pty, Size};
use rustix::termios::{LocalModes, tcgetattr};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader, Lines},
    net::{TcpListener, TcpStream},
    process::{Child, ChildStdout, Command},
    time::timeout,
};

const KUBEWIRE: &str = env!("CARGO_BIN_EXE_kubewire");

/// What a machine with other work to do may take for what should take no time.
const PATIENCE: Duration = Duration::from_secs(60);

/// A server, and a kubeconfig for it.
struct Cluster {
    server: ApiServer,
    dir: TempDir,
}

impl Cluster {
    async fn start() -> Self {
        Self::with(&Subprotocol::NAMED).await
    }

    async fn with(protocols: &[Subprotocol]) -> Self {
        let sleep = ["sleep", "infinity"];
        let server = ApiServer::builder()
            .subprotocols(protocols.iter().copied())
            .pod("default", "web-0", |pod| pod.container("main", sleep))
            .pod("other", "web-1", |pod| pod.container("main", sleep))
            .pod("default", "two", |pod| {
                pod.container("a", sleep).container("b", sleep)
            })
            .pod("default", "catter", |pod| {
                pod.container_with("main", ["cat"], |container| container.stdin())
            })
            .pod("default", "shell", |pod| {
                pod.container_with("main", ["sh"], |container| {
                    container.stdin().tty().env("PS1", "prompt ")
                })
            })
            .start()
            .await
            .unwrap();
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("kubeconfig"), server.kubeconfig()).unwrap();
        Self { server, dir }
    }

    fn kubeconfig(&self) -> PathBuf {
        self.dir.path().join("kubeconfig")
    }

    /// The tool, or another program, in an environment that says nothing but the kubeconfig.
    fn program(&self, program: impl AsRef<Path>, arguments: &[&str]) -> Command {
        let mut command = Command::new(program.as_ref());
        command
            .args(arguments)
            .env_clear()
            .env("HOME", self.dir.path())
            .env("KUBECONFIG", self.kubeconfig())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command
    }

    fn kubewire(&self, arguments: &[&str]) -> Command {
        self.program(KUBEWIRE, arguments)
    }

    async fn run(&self, arguments: &[&str]) -> Ran {
        finish(self.kubewire(arguments).spawn().unwrap()).await
    }

    async fn run_with_input(&self, arguments: &[&str], input: &[u8]) -> Ran {
        feed(self.kubewire(arguments), input).await
    }

    /// The tool on a terminal of its own.
    fn on_terminal(&self, arguments: &[&str]) -> OnTerminal {
        let (pty, pts) = pty_process::open().unwrap();
        pty.resize(Size::new(30, 100)).unwrap();
        let child = pty_process::Command::new(KUBEWIRE)
            .args(arguments)
            .env_clear()
            .env("HOME", self.dir.path())
            .env("KUBECONFIG", self.kubeconfig())
            .kill_on_drop(true)
            .spawn(pts)
            .unwrap();
        let modes = tcgetattr(&pty).unwrap().local_modes;
        assert!(modes.contains(LocalModes::ICANON | LocalModes::ECHO));
        OnTerminal {
            child,
            pty,
            seen: String::new(),
        }
    }
}

async fn feed(mut command: Command, input: &[u8]) -> Ran {
    let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    tokio::spawn(async move {
        // It may end before it has read everything.
        let _ = stdin.write_all(&input).await;
    });
    finish(child).await
}

async fn finish(child: Child) -> Ran {
    let Output {
        status,
        stdout,
        stderr,
    } = timeout(PATIENCE, child.wait_with_output())
        .await
        .expect("it hangs")
        .unwrap();
    Ran {
        code: status.code(),
        stdout,
        stderr: String::from_utf8(stderr).unwrap(),
    }
}

/// What a program did.
#[derive(Debug)]
struct Ran {
    code: Option<i32>,
    stdout: Vec<u8>,
    stderr: String,
}

impl Ran {
    #[track_caller]
    fn is(&self, code: i32, stdout: &str, stderr: &str) {
        let seen = String::from_utf8_lossy(&self.stdout);
        assert_eq!(
            (self.code, &*seen, &*self.stderr),
            (Some(code), stdout, stderr)
        );
    }

    /// One line on stderr that says what is wrong, and nothing else anywhere.
    #[track_caller]
    fn is_error(&self, what: &str) {
        let Self {
            code,
            stdout,
            stderr,
        } = self;
        assert_eq!((*code, &stdout[..]), (Some(1), &b""[..]), "{stderr}");
        assert!(stderr.starts_with("error: "), "{stderr}");
        assert!(stderr.contains(what), "{what:?} is not in {stderr}");
        assert_eq!(stderr.matches('\n').count(), 1, "{stderr}");
        assert!(stderr.ends_with('\n'), "{stderr}");
    }
}

/// The tool on a terminal whose other end is ours.
struct OnTerminal {
    child: Child,
    pty: Pty,
    seen: String,
}

impl OnTerminal {
    /// Reads until the terminal has shown `text` once more.
    async fn until(&mut self, text: &str) {
        let wait = async {
            loop {
                if let Some((_, rest)) = self.seen.split_once(text) {
                    self.seen = rest.to_owned();
                    return;
                }
                if !self.read().await {
                    panic!("it ended without {text:?}: {:?}", self.seen);
                }
            }
        };
        if timeout(PATIENCE, wait).await.is_err() {
            panic!("it never shows {text:?}");
        }
    }

    async fn read(&mut self) -> bool {
        let mut buffer = [0; 4096];
        // Linux reports that the other end of a terminal is closed as an error.
        let read = self.pty.read(&mut buffer).await.unwrap_or(0);
        self.seen
            .push_str(&String::from_utf8_lossy(&buffer[..read]));
        read > 0
    }

    async fn type_in(&mut self, keys: &str) {
        self.pty.write_all(keys.as_bytes()).await.unwrap();
    }

    fn is_raw(&self) -> bool {
        let modes = tcgetattr(&self.pty).unwrap().local_modes;
        !modes.intersects(LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG)
    }

    async fn signal(&self, name: &str) {
        let pid = self.child.id().unwrap().to_string();
        let mut kill = Command::new("kill");
        assert!(
            kill.args(["-s", name, &pid])
                .status()
                .await
                .unwrap()
                .success()
        );
    }

    /// Waits for its end. The exit code, and whether the terminal is as it was.
    async fn end(&mut self) -> (Option<i32>, bool) {
        let wait = async {
            while self.read().await {}
            self.child.wait().await.unwrap()
        };
        let status = timeout(PATIENCE, wait).await.expect("it hangs");
        let modes = tcgetattr(&self.pty).unwrap().local_modes;
        let expected = LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG;
        (status.code(), modes.contains(expected))
    }
}

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
        (&["exec", "deploy/web", "--", "true"], "only pods"),
        (&["exec", "web-0", "ls"], "unexpected argument 'ls'"),
        (&["exec", "web-0"], "<COMMAND>"),
        (&["exec", "web-0", "--bogus", "--", "true"], "--bogus"),
        (&["attach", "nopod"], "pods \"nopod\" not found"),
        (&["attach"], "<POD>"),
        (
            &["--token", "wrong", "exec", "web-0", "--", "true"],
            "Unauthorized",
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

/// An application that sends back what it gets; its port.
async fn echo() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut read, mut write) = socket.split();
                tokio::io::copy(&mut read, &mut write).await?;
                write.shutdown().await
            });
        }
    });
    port
}

/// A port-forward under way: what it writes, and where it listens.
struct Forwarding {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    local: u16,
}

impl Forwarding {
    async fn start(mut command: Command, remote: u16) -> Self {
        let mut child = command.spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let first = timeout(PATIENCE, lines.next_line())
            .await
            .expect("it listens");
        let first = first.unwrap().expect("a line");
        let local = first.strip_prefix("Forwarding from 127.0.0.1:");
        let local = local.and_then(|rest| rest.strip_suffix(&format!(" -> {remote}")));
        let local = local.unwrap_or_else(|| panic!("{first}")).parse().unwrap();
        Self {
            child,
            lines,
            local,
        }
    }

    /// Sends bytes and takes them back, up to the end.
    async fn echoes(&self, bytes: Vec<u8>) {
        let mut socket = TcpStream::connect(("127.0.0.1", self.local)).await.unwrap();
        let (mut read, mut write) = socket.split();
        let up = async {
            write.write_all(&bytes).await.unwrap();
            write.shutdown().await.unwrap();
        };
        let mut answer = Vec::new();
        let down = async { read.read_to_end(&mut answer).await.unwrap() };
        timeout(PATIENCE, async { tokio::join!(up, down) })
            .await
            .expect("it answers");
        assert!(answer == bytes, "{} of {}", answer.len(), bytes.len());
    }

    async fn says(&mut self, line: &str) {
        let wait =
            async { while self.lines.next_line().await.unwrap().expect("it goes on") != line {} };
        timeout(PATIENCE, wait).await.expect(line);
    }
}

#[tokio::test]
async fn a_forward_goes_on_when_a_connection_is_refused() {
    let cluster = Cluster::start().await;
    let remote = echo().await;
    let nobody = {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        listener.local_addr().unwrap().port()
    };
    let ports = [format!(":{remote}"), format!(":{nobody}")];
    let arguments = ["port-forward", "pod/web-0", &ports[0], &ports[1]];
    let arguments = [&arguments[..], &["--address", "127.0.0.1"]].concat();
    let mut forwarding = Forwarding::start(cluster.kubewire(&arguments), remote).await;
    let line = forwarding.lines.next_line().await.unwrap().unwrap();
    let rest = line.strip_prefix("Forwarding from 127.0.0.1:").unwrap();
    let (refused, _) = rest.split_once(" -> ").unwrap();
    let mut socket = TcpStream::connect(format!("127.0.0.1:{refused}"))
        .await
        .unwrap();
    let read = timeout(PATIENCE, socket.read(&mut [0; 1])).await;
    assert!(!matches!(read.expect("it ends"), Ok(1..)));
    let mut stderr = BufReader::new(forwarding.child.stderr.take().unwrap()).lines();
    let line = timeout(PATIENCE, stderr.next_line())
        .await
        .expect("it tells");
    let line = line.unwrap().unwrap();
    assert!(line.contains("connection refused"), "{line}");

    forwarding.echoes(vec![7; 1 << 20]).await;
    let handled = format!("Handling connection for {}", forwarding.local);
    forwarding.says(&handled).await;
    let pid = forwarding.child.id().unwrap().to_string();
    Command::new("kill")
        .args(["-s", "INT", &pid])
        .status()
        .await
        .unwrap();
    let status = timeout(PATIENCE, forwarding.child.wait())
        .await
        .expect("it ends");
    let status = status.unwrap();
    let number = std::os::unix::process::ExitStatusExt::signal(&status);
    assert!(status.code() == Some(130) || number == Some(2), "{status}");
}

#[tokio::test]
async fn a_forward_listens_on_both_families_unless_told_otherwise() {
    if let Err(error) = TcpListener::bind("[::1]:0").await {
        println!("skipped: no IPv6 on this machine: {error}");
        return;
    }
    let cluster = Cluster::start().await;
    let remote = echo().await;
    let port = format!(":{remote}");
    for (flags, addresses) in [
        (&[][..], &["127.0.0.1", "[::1]"][..]),
        (&["--address", "::1"], &["[::1]"]),
        (&["--address", "::1,localhost"], &["[::1]", "127.0.0.1"]),
    ] {
        let arguments = [&["port-forward", "web-0", &port], flags].concat();
        let mut child = cluster.kubewire(&arguments).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        for address in addresses {
            let line = async {
                loop {
                    // Lines about connections may come between.
                    let line = lines.next_line().await.unwrap().unwrap();
                    if line.starts_with("Forwarding") {
                        break line;
                    }
                }
            };
            let line = timeout(PATIENCE, line).await.expect("it listens");
            let rest = line.strip_prefix("Forwarding from ").unwrap();
            let (local, to) = rest.split_once(" -> ").unwrap();
            assert!(local.starts_with(address), "{line}");
            assert_eq!(to, remote.to_string());
            let mut socket = TcpStream::connect(local).await.unwrap();
            socket.write_all(b"hello").await.unwrap();
            let answer = timeout(PATIENCE, socket.read_u8()).await;
            assert_eq!(answer.expect("it answers").unwrap(), b'h');
        }
        child.start_kill().unwrap();
    }
}

#[tokio::test]
async fn a_forward_that_cannot_be_is_an_error() {
    let cluster = Cluster::start().await;
    for (arguments, what) in [
        (["port-forward", "nopod", ":80"], "not found"),
        (["port-forward", "web-0", ":http"], "no TCP port http"),
        (
            ["port-forward", "svc/web", ":80"],
            "services \"web\" not found",
        ),
    ] {
        cluster.run(&arguments).await.is_error(what);
    }
    let wrong = cluster.run(&["port-forward", "node/a", "80"]).await;
    assert!(wrong.stderr.contains("a deployment"), "{}", wrong.stderr);
    assert!(wrong.code.is_some_and(|code| code != 0));
}

#[tokio::test]
async fn a_terminal_passes_every_key_and_is_restored() {
    let cluster = Cluster::start().await;
    let script = "trap 'echo interrupted' INT; echo ready; \
                  while ! read -r line; do :; done; echo \"got $line\"; exit 5";
    let mut tool = cluster.on_terminal(&["exec", "-it", "web-0", "--", "sh", "-c", script]);
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
    let mut tool = cluster.on_terminal(&["exec", "-it", "web-0", "--", "sh", "-c", script]);
    tool.until("first").await;
    tool.pty.resize(Size::new(40, 120)).unwrap();
    tool.until("second").await;
    assert_eq!(tool.end().await, (Some(0), true));
}

#[tokio::test]
async fn signals_end_it_and_restore_the_terminal() {
    let cluster = Cluster::start().await;
    for (name, code) in [("INT", 130), ("TERM", 143), ("HUP", 129), ("QUIT", 131)] {
        let script = [
            "exec",
            "-it",
            "web-0",
            "--",
            "sh",
            "-c",
            "echo ready; sleep 60",
        ];
        let mut tool = cluster.on_terminal(&script);
        tool.until("ready").await;
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

    let script = [
        "exec",
        "-it",
        "web-0",
        "--",
        "sh",
        "-c",
        "echo ready; sleep 60",
    ];
    let mut tool = cluster.on_terminal(&script);
    tool.until("ready").await;
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
    let mut tool = cluster.on_terminal(&["attach", "-it", "shell"]);
    tool.until("press").await;
    tool.type_in("trap 'echo drawn aga''in' WINCH; stty size\r")
        .await;
    tool.until("30 100").await;
    assert!(tool.is_raw());
    tool.signal("TERM").await;
    assert_eq!(tool.end().await, (Some(143), true));

    // The size is the same, and still the program is told.
    let mut tool = cluster.on_terminal(&["attach", "-it", "shell"]);
    tool.until("press").await;
    tool.type_in("\r").await;
    tool.until("drawn again").await;
    tool.type_in("stty size\r").await;
    tool.until("30 100").await;
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

#[tokio::test]
async fn kubectl_forwards_over_the_tunnel() {
    let Some(kubectl) = kubectl::kubectl() else {
        return;
    };
    let cluster = Cluster::start().await;
    let remote = echo().await;
    let ports = format!(":{remote}");
    let arguments = ["port-forward", "web-0", &ports, "--address", "127.0.0.1"];
    let forwarding = Forwarding::start(cluster.program(&kubectl, &arguments), remote).await;
    forwarding.echoes(b"hello".to_vec()).await;
    let noise: Vec<_> = (0..3_000_000_u32)
        .map(|at| (at ^ (at >> 8)) as u8)
        .collect();
    tokio::join!(
        forwarding.echoes(noise.clone()),
        forwarding.echoes(noise.clone()),
        forwarding.echoes(noise),
        forwarding.echoes(Vec::new()),
    );
}

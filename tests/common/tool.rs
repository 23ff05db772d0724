//! The built tool, or another program in its place, against the embedded API server: started, fed,
//! on a terminal of its own, and what it wrote.

#![allow(dead_code, reason = "each test uses its part")]

use std::{
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
    process::{Child, ChildStdout, Command},
    time::timeout,
};

pub(crate) const KUBEWIRE: &str = env!("CARGO_BIN_EXE_kubewire");

/// What a machine with other work to do may take for what should take no time.
pub(crate) const PATIENCE: Duration = Duration::from_secs(300);

/// A server, and a kubeconfig for it.
pub(crate) struct Cluster {
    pub(crate) server: ApiServer,
    pub(crate) dir: TempDir,
}

impl Cluster {
    pub(crate) async fn start() -> Self {
        Self::with(&Subprotocol::NAMED).await
    }

    pub(crate) async fn with(protocols: &[Subprotocol]) -> Self {
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
        Self::around(server)
    }

    /// A kubeconfig for a server that runs.
    pub(crate) fn around(server: ApiServer) -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("kubeconfig"), server.kubeconfig()).unwrap();
        Self { server, dir }
    }

    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.dir.path().join("kubeconfig")
    }

    /// The tool, or another program, in an environment that says nothing but the kubeconfig.
    pub(crate) fn program(&self, program: impl AsRef<Path>, arguments: &[&str]) -> Command {
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

    pub(crate) fn kubewire(&self, arguments: &[&str]) -> Command {
        self.program(KUBEWIRE, arguments)
    }

    pub(crate) async fn run(&self, arguments: &[&str]) -> Ran {
        finish(self.kubewire(arguments).spawn().unwrap()).await
    }

    /// Another program in the tool's place.
    pub(crate) async fn run_program(&self, program: &Path, arguments: &[&str]) -> Ran {
        finish(self.program(program, arguments).spawn().unwrap()).await
    }

    /// The tool, which goes on.
    pub(crate) fn start_tool(&self, arguments: &[&str]) -> Running {
        Running::new(self.kubewire(arguments).spawn().unwrap())
    }

    pub(crate) async fn run_with_input(&self, arguments: &[&str], input: &[u8]) -> Ran {
        feed(self.kubewire(arguments), input).await
    }

    /// The tool on a terminal of its own.
    pub(crate) fn on_terminal(&self, arguments: &[&str]) -> OnTerminal {
        self.on_terminal_with(arguments, &[])
    }

    /// The same with variables of the environment.
    pub(crate) fn on_terminal_with(
        &self,
        arguments: &[&str],
        variables: &[(&str, &str)],
    ) -> OnTerminal {
        let (pty, pts) = pty_process::open().unwrap();
        pty.resize(Size::new(30, 100)).unwrap();
        let child = pty_process::Command::new(KUBEWIRE)
            .args(arguments)
            .env_clear()
            .env("TERM", "xterm")
            .env("HOME", self.dir.path())
            .env("KUBECONFIG", self.kubeconfig())
            .envs(variables.iter().copied())
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

pub(crate) async fn feed(mut command: Command, input: &[u8]) -> Ran {
    let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    tokio::spawn(async move {
        // It may end before it has read everything.
        let _ = stdin.write_all(&input).await;
    });
    finish(child).await
}

pub(crate) async fn finish(child: Child) -> Ran {
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
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
}

impl Ran {
    #[track_caller]
    pub(crate) fn is(&self, code: i32, stdout: &str, stderr: &str) {
        let seen = String::from_utf8_lossy(&self.stdout);
        assert_eq!(
            (self.code, &*seen, &*self.stderr),
            (Some(code), stdout, stderr)
        );
    }

    /// The exit code, stdout and stderr.
    pub(crate) fn into_text(self) -> (Option<i32>, String, String) {
        (
            self.code,
            String::from_utf8(self.stdout).unwrap(),
            self.stderr,
        )
    }

    /// One line on stderr that says what is wrong, and nothing else anywhere.
    #[track_caller]
    pub(crate) fn is_error(&self, what: &str) {
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
pub(crate) struct OnTerminal {
    pub(crate) child: Child,
    pub(crate) pty: Pty,
    pub(crate) seen: String,
}

impl OnTerminal {
    /// Reads until the terminal has shown `text` once more.
    pub(crate) async fn until(&mut self, text: &str) {
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

    pub(crate) async fn read(&mut self) -> bool {
        let mut buffer = [0; 4096];
        // Linux reports that the other end of a terminal is closed as an error.
        let read = self.pty.read(&mut buffer).await.unwrap_or(0);
        self.seen
            .push_str(&String::from_utf8_lossy(&buffer[..read]));
        read > 0
    }

    pub(crate) async fn type_in(&mut self, keys: &str) {
        self.pty.write_all(keys.as_bytes()).await.unwrap();
    }

    pub(crate) fn is_raw(&self) -> bool {
        let modes = tcgetattr(&self.pty).unwrap().local_modes;
        !modes.intersects(LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG)
    }

    pub(crate) async fn signal(&self, name: &str) {
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
    pub(crate) async fn end(&mut self) -> (Option<i32>, bool) {
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

/// A program that goes on, and what it writes.
pub(crate) struct Running {
    pub(crate) child: Child,
    pub(crate) lines: Lines<BufReader<ChildStdout>>,
}

impl Running {
    pub(crate) fn new(mut child: Child) -> Self {
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines }
    }

    pub(crate) async fn line(&mut self) -> String {
        let line = timeout(PATIENCE, self.lines.next_line()).await;
        line.expect("it is silent").unwrap().expect("it goes on")
    }

    /// The next row of a table, without the age, which changes as time goes by.
    pub(crate) async fn row(&mut self) -> String {
        let row = squeeze(&self.line().await);
        row.rsplit_once(' ').unwrap().0.to_owned()
    }

    pub(crate) async fn is_next(&mut self, expected: &[&str]) {
        for expected in expected {
            assert_eq!(self.row().await, *expected);
        }
    }

    pub(crate) async fn interrupt(mut self) -> std::process::ExitStatus {
        let pid = self.child.id().unwrap().to_string();
        let kill = Command::new("kill").args(["-s", "INT", &pid]).status();
        assert!(kill.await.unwrap().success());
        let end = timeout(PATIENCE, self.child.wait()).await;
        end.expect("it ends").unwrap()
    }
}

/// A row of a table with a space between its cells.
pub(crate) fn squeeze(row: &str) -> String {
    row.split_whitespace().collect::<Vec<_>>().join(" ")
}

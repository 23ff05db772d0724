//! A tour of exec and attach, through real TLS WebSockets.
//!
//! `cargo run --example tour` starts an API server inside this process, whose containers run
//! programs of this machine, and plays against it.
//! `cargo run --example tour -- --kubeconfig FILE --pod POD [-n NAMESPACE] [-c CONTAINER]` plays
//! the same in a pod of a real cluster; its container needs a shell.
//!
//! The code that is shown is the code that runs: it is cut out of this file.

#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::{io::IsTerminal as _, path::PathBuf, process::ExitCode, time::Duration};

use bytes::Bytes;
use futures_util::StreamExt as _;
use kubewire::{
    Client, Config, Pod,
    config::KubeconfigOptions,
    exec::{Exec, Stdio, TerminalSize},
    testing::ApiServer,
};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _};

type Result<T = (), E = Box<dyn std::error::Error>> = std::result::Result<T, E>;

#[tokio::main]
async fn main() -> ExitCode {
    let played = async { tour(Options::parse()?).await };
    let played = tokio::time::timeout(Duration::from_secs(120), played).await;
    match played.unwrap_or_else(|_| Err("the tour does not end within two minutes".into())) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn tour(options: Options) -> Result {
    let Some(pod) = &options.pod else {
        return embedded().await;
    };
    let mut kubeconfig = KubeconfigOptions::new();
    if let Some(file) = options.kubeconfig {
        kubeconfig = kubeconfig.file(file);
    }
    let config = Config::from_kubeconfig(&kubeconfig)?;
    let client = Client::new(&config)?;
    let namespace = options
        .namespace
        .unwrap_or_else(|| client.namespace().to_owned());
    let stage = Stage {
        pod: client.pod(namespace, pod),
        container: options.container,
    };
    println!("The API server is {}.", config.server_url());
    stage.exec().await?;
    stage.listen().await?;
    stage.refusals().await?;
    println!("\nThat was the tour.");
    Ok(())
}

/// Plays on a server of our own.
async fn embedded() -> Result {
    let server = ApiServer::builder()
        .pod("default", "web-0", |pod| {
            pod.container("main", ["sleep", "infinity"])
        })
        .pod("default", "echo-0", |pod| {
            pod.container_with("main", ["cat"], |container| container.stdin())
        })
        .start()
        .await?;
    println!(
        "An API server listens on {}. It is part of this process; its certificate\n\
         and token were made a moment ago, and its containers run programs of this machine.\n\
         Everything else is real: TLS, the WebSocket handshake, Kubernetes' subprotocols.",
        server.url()
    );
    let client = Client::new(&server.config())?;
    let stage = Stage {
        pod: client.pod("default", "web-0"),
        container: None,
    };
    stage.exec().await?;
    attach(&client.pod("default", "echo-0")).await?;
    stage.refusals().await?;
    without_rights(&server).await?;
    without_trust(&server).await?;
    cut(server, &stage.pod).await?;
    println!(
        "\nThat was the tour. The same in a pod of yours:\n  \
         cargo run --example tour -- --kubeconfig ~/.kube/config --pod POD [-n NAMESPACE]"
    );
    Ok(())
}

/// Where the tour plays.
struct Stage {
    pod: Pod,
    container: Option<String>,
}

impl Stage {
    fn command<const N: usize>(&self, command: [&str; N]) -> Exec {
        let exec = self.pod.exec(command);
        match &self.container {
            Some(name) => exec.container(name),
            None => exec,
        }
    }

    async fn exec(&self) -> Result {
        self.output().await?;
        self.exit_code().await?;
        self.stdin().await?;
        self.zero_copy().await?;
        self.terminal().await
    }

    async fn output(&self) -> Result {
        title("Run a command", "As with std::process: build, run, look.");
        show("output");
        // show: output
        let output = self
            .command(["sh", "-c", "echo hello from $HOSTNAME"])
            .output()
            .await?;
        // end
        println!("  stdout  {}", text(&output.stdout));
        println!("  status  {}", output.status);
        ensure(output.status.success(), "the command succeeds")
    }

    async fn exit_code(&self) -> Result {
        title(
            "Two streams and an exit code",
            "stdout and stderr come on channels of their own, the exit code in a Status at the end.",
        );
        show("exit_code");
        // show: exit_code
        let script = "echo to stdout; echo to stderr >&2; exit 3";
        let output = self.command(["sh", "-c", script]).output().await?;
        // end
        println!("  stdout  {}", text(&output.stdout));
        println!("  stderr  {}", text(&output.stderr));
        println!("  code    {:?}", output.status.code());
        println!("  server  {}", output.status.message());
        ensure(output.status.code() == Some(3), "the exit code is 3")
    }

    async fn stdin(&self) -> Result {
        title(
            "Input, and its end",
            "sort writes nothing until its input ends. Only v5 of the subprotocol can end it while\n\
             output goes on, and a program can ask before it writes.",
        );
        show("stdin");
        // show: stdin
        let mut child = self.command(["sort"]).stdin(Stdio::piped()).spawn().await?;
        let mut stdin = child.stdin.take().ok_or("stdin is piped")?;
        let half_close = stdin.can_shutdown();
        stdin.write_all(b"pear\napple\nfig\n").await?;
        if half_close {
            stdin.shutdown().await?;
        }
        // end
        println!("  server  {}", child.protocol());
        if !half_close {
            println!(
                "  It cannot end stdin by itself, so sort would wait for ever: on to the next."
            );
            return Ok(());
        }
        let output = child.wait_with_output().await?;
        println!("  stdout  {}", text(&output.stdout));
        ensure(
            output.stdout == b"apple\nfig\npear\n",
            "the lines are sorted",
        )
    }

    async fn zero_copy(&self) -> Result {
        title(
            "Much output",
            "Each item is a slice of the buffer that the socket was read into: no payload is copied\n\
             unless its frame arrived in two parts.",
        );
        show("zero_copy");
        // show: zero_copy
        let mut child = self
            .command(["head", "-c", "33554432", "/dev/zero"])
            .spawn()
            .await?;
        let mut stdout = child.stdout.take().ok_or("stdout is piped")?;
        let (mut slices, mut bytes) = (0, 0);
        while let Some(slice) = stdout.next().await {
            slices += 1;
            bytes += slice?.len();
        }
        let status = child.wait().await?;
        // end
        println!("  {} MiB in {slices} slices, {status}", bytes >> 20);
        ensure(bytes == 32 << 20, "all bytes arrive")
    }

    async fn terminal(&self) -> Result {
        title(
            "A terminal",
            "The remote program gets a terminal of 80 columns and 24 rows, which then grows. The\n\
             script says so when it sees either size.",
        );
        show("terminal");
        // show: terminal
        let script = "for size in '24 80' '43 132'; do \
                          until test \"$(stty size 2>/dev/null)\" = \"$size\"; do sleep 0.1; done; \
                          echo \"$size\"; \
                      done";
        let small = TerminalSize::new(80, 24);
        let mut child = self
            .command(["sh", "-c", script])
            .tty(small)
            .spawn()
            .await?;
        let mut lines = child.stdout.take().ok_or("stdout is piped")?.lines();
        let before = lines.next_line().await?;
        child.resize(TerminalSize::new(132, 43))?;
        let after = lines.next_line().await?;
        // end
        println!("  before  {before:?} (rows, columns)");
        println!("  after   {after:?}");
        ensure(child.wait().await?.success(), "the script has seen both")
    }

    /// attach in a pod that is not ours: without stdin, which would be the program's.
    async fn listen(&self) -> Result {
        title(
            "Attach",
            "This joins the program that the container runs and hears what it writes from now on.\n\
             Dropping the session leaves the program alone.",
        );
        show("listen");
        // show: listen
        let containers = self.pod.containers().await?;
        let mut containers = containers.iter();
        let container = match &self.container {
            Some(name) => containers.find(|one| one.name == *name),
            None => containers.find(|one| one.default),
        };
        let container = container.ok_or("there is no such container")?;
        let mut attach = self.pod.attach().container(&container.name);
        if container.tty {
            attach = attach.tty(TerminalSize::new(80, 24));
        }
        let mut attached = attach.spawn().await?;
        let mut stdout = attached.stdout.take().ok_or("stdout is piped")?;
        let mut heard = [0; 1024];
        let heard = tokio::time::timeout(Duration::from_secs(2), stdout.read(&mut heard));
        // end
        match heard.await {
            Ok(read) => println!("  It wrote {} bytes.", read?),
            Err(_) => println!("  It wrote nothing for two seconds."),
        }
        Ok(())
    }

    async fn refusals(&self) -> Result {
        title(
            "Refusals",
            "An error says who is to blame, and carries the server's words and what to do about it.",
        );
        show("refusals");
        // show: refusals
        let nowhere = self
            .pod
            .exec(["true"])
            .container("no-such-container")
            .output()
            .await;
        let nothing = self.command(["/no/such/program"]).output().await;
        // end
        for result in [nowhere, nothing] {
            println!("  {}", result.err().ok_or("both are refused")?);
        }
        Ok(())
    }
}

async fn attach(pod: &Pod) -> Result {
    title(
        "Attach",
        "The container of echo-0 has been running cat since the server started. Attaching joins\n\
         that process; leaving leaves it alone, so that we can come back.",
    );
    show("attach");
    for line in ["hello\n", "hello again\n"] {
        // show: attach
        let mut attached = pod.attach().stdin(Stdio::piped()).spawn().await?;
        let mut stdin = attached.stdin.take().ok_or("stdin is piped")?;
        let mut stdout = attached.stdout.take().ok_or("stdout is piped")?;
        stdin.write_all(line.as_bytes()).await?;
        let mut echo = vec![0; line.len()];
        stdout.read_exact(&mut echo).await?;
        drop(attached);
        // end
        println!("  stdout  {}", text(&echo));
        ensure(echo == line.as_bytes(), "cat writes what it reads")?;
    }
    Ok(())
}

async fn without_rights(server: &ApiServer) -> Result {
    title(
        "Rights",
        "This user may do nothing. The error names the rule that is missing.",
    );
    show("without_rights");
    // show: without_rights
    let config = server.config_with_token(server.token_without_rights());
    let pod = Client::new(&config)?.pod("default", "web-0");
    let refused = pod.exec(["true"]).output().await;
    // end
    println!("  {}", refused.err().ok_or("nobody has no rights")?);
    Ok(())
}

async fn without_trust(server: &ApiServer) -> Result {
    title(
        "Trust",
        "Without the server's certificate authority there is no connection.",
    );
    show("without_trust");
    // show: without_trust
    let pod = Client::from_url(&server.url())?.pod("default", "web-0");
    let refused = pod.exec(["true"]).output().await;
    // end
    println!(
        "  {}",
        refused.err().ok_or("the certificate is not trusted")?
    );
    Ok(())
}

async fn cut(server: ApiServer, pod: &Pod) -> Result {
    title(
        "A cut is not a success",
        "The server goes away while a command runs. Nobody knows how that ended, and the error says so.",
    );
    show("cut");
    // show: cut
    let mut child = pod.exec(["sleep", "60"]).spawn().await?;
    server.shutdown().await;
    let lost = child.wait().await;
    // end
    println!("  {}", lost.err().ok_or("nobody has said how it ended")?);
    Ok(())
}

fn text(bytes: &[u8]) -> String {
    format!("{:?}", Bytes::copy_from_slice(bytes))[1..].to_owned()
}

fn ensure(holds: bool, what: &str) -> Result {
    if holds {
        return Ok(());
    }
    Err(format!("this should hold, and does not: {what}").into())
}

fn style(code: &str, text: &str) -> String {
    match std::io::stdout().is_terminal() {
        true => format!("\x1b[{code}m{text}\x1b[0m"),
        false => text.to_owned(),
    }
}

fn title(title: &str, explanation: &str) {
    println!("\n{}\n{explanation}\n", style("1", &format!("## {title}")));
}

/// Prints the piece of this file between `show: name` and `end`.
fn show(name: &str) {
    let mark = format!("// show: {name}\n");
    let rest = include_str!("tour.rs").split_once(&mark);
    let code = rest.and_then(|(_, rest)| rest.split_once("// end"));
    let Some((code, _)) = code else { return };
    let indent = code.len() - code.trim_start().len();
    for line in code.trim_end().lines() {
        let line = line.get(indent..).unwrap_or_default();
        println!("    {}", style("2", line));
    }
    println!();
}

#[derive(Default)]
struct Options {
    kubeconfig: Option<PathBuf>,
    pod: Option<String>,
    namespace: Option<String>,
    container: Option<String>,
}

impl Options {
    fn parse() -> Result<Self> {
        const USAGE: &str = "tour [--kubeconfig FILE] --pod POD [-n NAMESPACE] [-c CONTAINER]";
        let mut options = Self::default();
        let mut arguments = std::env::args().skip(1);
        while let Some(flag) = arguments.next() {
            let mut value = || arguments.next().ok_or(format!("{flag} needs a value"));
            match flag.as_str() {
                "--kubeconfig" => options.kubeconfig = Some(value()?.into()),
                "--pod" => options.pod = Some(value()?),
                "-n" | "--namespace" => options.namespace = Some(value()?),
                "-c" | "--container" => options.container = Some(value()?),
                _ => return Err(format!("{flag} is no flag; usage: {USAGE}").into()),
            }
        }
        if options.pod.is_none() && options.kubeconfig.is_some() {
            return Err(format!("--kubeconfig goes with --pod; usage: {USAGE}").into());
        }
        Ok(options)
    }
}

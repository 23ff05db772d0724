//! A tour of every verb, through real TLS connections.
//!
//! `cargo run --example tour` starts an API server inside this process, whose containers run
//! programs of this machine, and plays against it.
//! `cargo run --example tour -- --kubeconfig FILE --pod POD [-n NAMESPACE] [-c CONTAINER]` plays
//! the same in a pod of a real cluster; its container needs a shell, `sort`, `head` and `stty`.
//!
//! The code that is shown is the code that runs: it is cut out of this file.

#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::{io::IsTerminal as _, path::PathBuf, process::ExitCode};

use bytes::Bytes;

// show: imports
use std::time::Duration;

use futures_util::StreamExt as _;
use kubewire::{
    Client, Config, Pod,
    config::KubeconfigOptions,
    exec::{Stdio, TerminalSize},
    request::Resource,
    testing::{ApiServer, Fault},
    watch::Update,
};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _};
// end

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
    println!(
        "The code below stands in functions that return Result<_, Box<dyn std::error::Error>>, below:\n"
    );
    show("imports");
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
    let pod = client.pod(namespace, pod);
    let container = match options.container {
        Some(name) => name,
        None => {
            let containers = pod.containers().await?;
            let default = containers.into_iter().find(|one| one.default);
            default.ok_or("the pod has no container")?.name
        }
    };
    let pods = client.request(Resource::namespaced("", "v1", "pods"));
    let object: Value = pods.namespace(pod.namespace()).get(pod.name()).await?;
    let containers = object["spec"]["containers"]
        .as_array()
        .into_iter()
        .flatten();
    let mut ports = containers.filter_map(|one| one["ports"][0]["containerPort"].as_u64());
    let port = ports.next().and_then(|port| u16::try_from(port).ok());
    let stage = Stage {
        client,
        pod,
        container,
        port,
    };
    println!("The API server is {}.", config.server_url());
    println!("The container is {}.", stage.container);
    stage.exec().await?;
    stage.listen().await?;
    stage.others().await?;
    stage.refusals().await?;
    println!("\nThat was the tour.");
    Ok(())
}

/// Plays on a server of our own.
async fn embedded() -> Result {
    let server = ApiServer::builder()
        .pod("default", "web-0", |pod| {
            let command = ["sh", "-c", "echo ready; exec sleep infinity"];
            pod.container("main", command)
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
        client: client.clone(),
        container: "main".to_owned(),
        port: Some(greeter().await?),
    };
    stage.exec().await?;
    attach(&client.pod("default", "echo-0")).await?;
    stage.others().await?;
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
    client: Client,
    pod: Pod,
    container: String,
    /// One where the pod listens.
    port: Option<u16>,
}

/// A program of the embedded server's pods, which have this machine's ports.
async fn greeter() -> Result<u16> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let port = listener.local_addr()?.port();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let answer = b"HTTP/1.0 200 OK\r\n\r\nhello\n";
            let _ = socket.read(&mut [0; 1024]).await;
            let _ = socket.write_all(answer).await;
        }
    });
    Ok(port)
}

impl Stage {
    async fn exec(&self) -> Result {
        self.output().await?;
        self.exit_code().await?;
        self.stdin().await?;
        self.zero_copy().await?;
        self.terminal().await
    }

    async fn output(&self) -> Result {
        let (pod, container) = (&self.pod, &self.container);
        title("Run a command", "As with std::process: build, run, look.");
        show("output");
        // show: output
        let output = pod
            .exec(["sh", "-c", "echo hello from $HOSTNAME"])
            .container(container)
            .output()
            .await?;
        // end
        println!("  stdout  {}", text(&output.stdout));
        println!("  status  {}", output.status);
        ensure(output.status.success(), "the command succeeds")
    }

    async fn exit_code(&self) -> Result {
        let (pod, container) = (&self.pod, &self.container);
        title(
            "Two streams and an exit code",
            "stdout and stderr come on channels of their own, the exit code in a Status at the end.",
        );
        show("exit_code");
        // show: exit_code
        let script = "echo to stdout; echo to stderr >&2; exit 3";
        let output = pod
            .exec(["sh", "-c", script])
            .container(container)
            .output()
            .await?;
        // end
        println!("  stdout  {}", text(&output.stdout));
        println!("  stderr  {}", text(&output.stderr));
        println!("  code    {:?}", output.status.code());
        println!("  server  {}", output.status.message());
        ensure(output.status.code() == Some(3), "the exit code is 3")
    }

    async fn stdin(&self) -> Result {
        let (pod, container) = (&self.pod, &self.container);
        title(
            "Input, and its end",
            "sort writes nothing until its input ends. Only v5 of the subprotocol can end it while\n\
             output goes on, and a program can ask before it writes.",
        );
        show("stdin");
        // show: stdin
        let mut child = pod
            .exec(["sort"])
            .container(container)
            .stdin(Stdio::piped())
            .spawn()
            .await?;
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
        let (pod, container) = (&self.pod, &self.container);
        title(
            "Much output",
            "Each item is a slice of the buffer that the socket was read into: no payload is copied\n\
             unless its frame arrived in two parts.",
        );
        show("zero_copy");
        // show: zero_copy
        let mut child = pod
            .exec(["head", "-c", "33554432", "/dev/zero"])
            .container(container)
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
        let (pod, container) = (&self.pod, &self.container);
        title(
            "A terminal",
            "The remote program gets a terminal of 80 columns and 24 rows, which then grows. The\n\
             script says so when it sees either size.",
        );
        show("terminal");
        // show: terminal
        let script = "command -v stty >/dev/null || exit 127; for size in '24 80' '43 132'; do \
                          until test \"$(stty size 2>/dev/null)\" = \"$size\"; do sleep 0.1; done; \
                          echo \"$size\"; \
                      done";
        let small = TerminalSize::new(80, 24);
        let mut child = pod
            .exec(["sh", "-c", script])
            .container(container)
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
        let (pod, container) = (&self.pod, &self.container);
        title(
            "Attach",
            "This joins the program that the container runs and hears what it writes from now on.\n\
             Dropping the session leaves the program alone.",
        );
        show("listen");
        // show: listen
        let containers = pod.containers().await?;
        let mut containers = containers.iter();
        let known = containers.find(|one| one.name == *container);
        let has_terminal = known.is_some_and(|known| known.tty);
        let mut attach = pod.attach().container(container);
        if has_terminal {
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

    async fn others(&self) -> Result {
        self.port_forward().await?;
        self.logs().await?;
        self.watch().await?;
        self.request().await
    }

    async fn port_forward(&self) -> Result {
        title(
            "Port-forward",
            "A connection to a port of the pod, one of many over one WebSocket.",
        );
        let Some(port) = self.port else {
            println!("  The pod names no port: on to the next.");
            return Ok(());
        };
        let pod = &self.pod;
        show("port_forward");
        // show: port_forward
        let tunnel = pod.port_forward().connect().await?;
        let mut stream = tunnel.open(port).await?.take(1 << 16);
        let request = stream.get_mut();
        request
            .write_all(b"GET / HTTP/1.0\r\nHost: localhost\r\n\r\n")
            .await?;
        let mut answer = Vec::new();
        let read = stream.read_to_end(&mut answer);
        let read = tokio::time::timeout(Duration::from_secs(5), read).await;
        // end
        match read {
            Ok(Ok(bytes)) => println!("  {bytes} bytes from port {port}"),
            Ok(Err(error)) => println!("  {error}"),
            Err(_) => println!("  It says nothing for five seconds."),
        }
        Ok(())
    }

    async fn logs(&self) -> Result {
        title(
            "Logs",
            "What the container has written. With follow() it goes on, each line once, through\n\
             broken connections.",
        );
        let (pod, container) = (&self.pod, &self.container);
        show("logs");
        // show: logs
        let mut lines = pod.logs().container(container).tail(3).stream();
        while let Some(line) = lines.next().await {
            println!("  {}", line?);
        }
        // end
        Ok(())
    }

    async fn watch(&self) -> Result {
        title(
            "Watch",
            "First what is there, then every change, through broken connections and expired versions.",
        );
        let (client, pod) = (&self.client, &self.pod);
        show("watch");
        // show: watch
        let pods = Resource::namespaced("", "v1", "pods");
        let watch = client.watch(pods).namespace(pod.namespace());
        let mut updates = watch.name(pod.name()).stream();
        while let Some(update) = updates.next().await {
            match update? {
                Update::Event(event) => {
                    let kind = event.event_type.as_str();
                    println!("  {kind} {}", event.object.metadata()?.name()?);
                }
                Update::SnapshotEnd { .. } => break,
                _ => {}
            }
        }
        // end
        Ok(())
    }

    async fn request(&self) -> Result {
        title(
            "A plain request",
            "Get, list, create, replace, patch and delete, of any resource, as any serde type.",
        );
        let (client, pod) = (&self.client, &self.pod);
        show("request");
        // show: request
        let pods = client.request(Resource::namespaced("", "v1", "pods"));
        let object: Value = pods.namespace(pod.namespace()).get(pod.name()).await?;
        println!("  It is {}.", object["status"]["phase"]);
        // end
        Ok(())
    }

    async fn refusals(&self) -> Result {
        title(
            "Refusals",
            "An error says who is to blame, and carries the server's words and what to do about it.",
        );
        show("refusals");
        let (pod, container) = (&self.pod, &self.container);
        // show: refusals
        let nowhere = pod
            .exec(["true"])
            .container("no-such-container")
            .output()
            .await;
        let nothing = pod
            .exec(["/no/such/program"])
            .container(container)
            .output()
            .await;
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
        "The connection breaks while a command runs. Nobody knows how that ended, and the error says so.",
    );
    show("cut");
    // show: cut
    server.inject(Fault::CutAfter(4096));
    let lost = pod.exec("yes").output().await;
    // end
    println!("  {}", lost.err().ok_or("nobody has said how it ended")?);
    server.shutdown().await;
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
    println!(
        "\n{}\n{explanation}\n",
        style("1;33", &format!("## {title}"))
    );
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
        println!("    {}", style("36", line));
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

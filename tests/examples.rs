//! The programs in `examples/` do what they say, against the embedded server.

#![cfg(unix)]
#![allow(clippy::print_stdout, reason = "a skipped test says why")]

#[path = "common/kubectl.rs"]
mod kubectl;
#[path = "common/programs.rs"]
mod programs;

use std::{process::Stdio, sync::Arc};

use kubewire::{
    Client, Config,
    testing::{ApiServer, RestartPolicy},
};
use programs::{DEADLINE, Running};
use rustls::{ServerConfig, crypto::ring, pki_types::PrivateKeyDer};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    process::Command,
};
use tokio_rustls::TlsAcceptor;

type Result<T = (), E = Box<dyn std::error::Error>> = std::result::Result<T, E>;

/// A server with two pods of the label `app=web`, and the kubeconfig for it.
struct Stage {
    server: ApiServer,
    directory: tempfile::TempDir,
}

impl Stage {
    async fn new() -> Result<Self> {
        let mut server = ApiServer::builder();
        for name in ["web-0", "web-1"] {
            server = server.pod("default", name, |pod| {
                let pod = pod.label("app", "web").restart_policy(RestartPolicy::Never);
                let said = ["sh", "-c", "echo ready; exit 4"];
                pod.container("main", ["sleep", "infinity"])
                    .container("said", said)
            });
        }
        let server = server.start().await?;
        let directory = tempfile::tempdir()?;
        let stage = Self { server, directory };
        std::fs::write(stage.kubeconfig(), stage.server.kubeconfig())?;
        Ok(stage)
    }

    fn kubeconfig(&self) -> std::path::PathBuf {
        self.directory.path().join("config")
    }

    fn program(&self, name: &str) -> Result<Command> {
        let mut program = programs::program(name)?;
        program.env("KUBECONFIG", self.kubeconfig());
        Ok(program)
    }

    /// Runs a program to its end.
    async fn run(&self, name: &str, arguments: &[&str]) -> Result<(Option<i32>, String)> {
        let mut program = self.program(name)?;
        program.args(arguments);
        programs::run(program).await
    }
}

#[tokio::test]
async fn a_command_runs_in_all_pods_of_a_label() -> Result {
    let stage = Stage::new().await?;
    let (code, output) = stage.run("exec_all", &["app=web", "echo", "hello"]).await?;
    let mut lines: Vec<_> = output.lines().collect();
    lines.sort_unstable();
    assert_eq!(
        (code, lines),
        (Some(0), vec!["web-0: hello", "web-1: hello"])
    );
    let (code, _) = stage
        .run("exec_all", &["-n", "default", "app=web", "false"])
        .await?;
    assert_eq!(code, Some(1));
    let (code, _) = stage.run("exec_all", &["app=other", "true"]).await?;
    assert_eq!(code, Some(1));
    Ok(())
}

#[tokio::test]
async fn a_local_port_leads_to_a_pod() -> Result {
    let program = TcpListener::bind("127.0.0.1:0").await?;
    let port = program.local_addr()?.port();
    tokio::spawn(async move {
        let (mut socket, _) = program.accept().await?;
        let mut hello = [0; 5];
        socket.read_exact(&mut hello).await?;
        socket.write_all(&hello).await
    });
    let stage = Stage::new().await?;
    let mut command = stage.program("port_forward")?;
    command.args(["pod/web-0", &format!(":{port}")]);
    let mut forward = Running::of(command)?;
    let first = forward.line().await?;
    let (address, _) = first.split_once(' ').ok_or("an address comes first")?;
    let mut socket = TcpStream::connect(address).await?;
    socket.write_all(b"hello").await?;
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await?;
    assert_eq!(answer, "hello");
    drop(socket);
    let closed = |line: &str| line.contains(": 5 bytes there, 5 back in ");
    forward.line_that(closed).await?;
    Ok(())
}

#[tokio::test]
async fn logs_and_pods_are_followed() -> Result {
    let stage = Stage::new().await?;
    let (code, output) = stage
        .run("follow", &["logs", "default", "web-0", "said"])
        .await?;
    assert_eq!((code, output.lines().next()), (Some(0), Some("ready")));
    assert!(output.contains("code: Some(4)"), "{output}");

    let mut command = stage.program("follow")?;
    command.args(["pods", "default"]);
    let mut pods = Running::of(command)?;
    pods.line_that(|line| line == "+ default/web-1").await?;
    stage.server.delete(
        &kubewire::Resource::namespaced("", "v1", "pods"),
        "default",
        "web-1",
    );
    pods.line_that(|line| line.starts_with("- default/web-1"))
        .await?;
    Ok(())
}

#[tokio::test]
async fn kube_and_this_crate_share_a_program() -> Result {
    let stage = Stage::new().await?;
    let arguments = ["app=web", "sh", "-c", "echo hello; exit 3"];
    let (code, output) = stage.run("bridge", &arguments).await?;
    assert_eq!(code, Some(0));
    for name in ["web-0", "web-1"] {
        assert!(output.contains(&format!("{name}: hello\n")), "{output}");
        assert!(output.contains(&format!("{name}: exit")), "{output}");
    }
    Ok(())
}

#[tokio::test]
async fn the_tour_shows_every_verb() -> Result {
    let (code, output) = Stage::new().await?.run("tour", &[]).await?;
    assert_eq!(code, Some(0), "{output}");
    assert!(!output.contains('\x1b'), "{output}");
    // Each step has a title, code, and what came of it.
    let steps: Vec<_> = output.split("\n## ").skip(1).collect();
    for verb in [
        "Attach",
        "Port-forward",
        "Logs",
        "Watch",
        "A plain request",
        "A terminal",
    ] {
        assert!(steps.iter().any(|step| step.starts_with(verb)), "{verb}");
    }
    for step in steps {
        let is_code = |line: &&str| line.starts_with("    ");
        let (code, rest): (Vec<_>, Vec<_>) = step.lines().partition(is_code);
        assert!(!code.is_empty(), "{step}");
        assert!(rest.iter().any(|line| line.starts_with("  ")), "{step}");
    }
    Ok(())
}

#[tokio::test]
async fn the_tour_plays_in_a_pod_with_several_containers() -> Result {
    let stage = Stage::new().await?;
    let kubeconfig = stage.kubeconfig();
    let kubeconfig = kubeconfig.to_str().ok_or("it is text")?;
    let arguments = ["--kubeconfig", kubeconfig, "--pod", "web-0"];
    let (code, output) = stage.run("tour", &arguments).await?;
    assert_eq!(code, Some(0), "{output}");
    assert!(output.contains("The container is main."), "{output}");
    assert!(output.contains("That was the tour."), "{output}");
    Ok(())
}

#[tokio::test]
async fn the_tour_has_colours_on_a_terminal() -> Result {
    let (mut terminal, its) = pty_process::open()?;
    let mut tour = pty_process::Command::new(programs::path("tour")?)
        .kill_on_drop(true)
        .spawn(its)?;
    let mut output = Vec::new();
    let read = async {
        // Linux says so when nobody has the terminal open any more.
        let _ = terminal.read_to_end(&mut output).await;
        tour.wait().await
    };
    let status = tokio::time::timeout(DEADLINE, read).await??;
    let output = String::from_utf8_lossy(&output);
    assert!(status.success(), "{output}");
    assert!(
        output.contains("\x1b[1;33m## Run a command\x1b[0m"),
        "{output}"
    );
    assert!(output.contains("    \x1b[36mlet output = pod"), "{output}");
    Ok(())
}

#[tokio::test]
async fn the_controller_lasts() -> Result {
    let (code, output) = Stage::new().await?.run("controller", &[]).await?;
    assert_eq!(code, Some(0), "{output}");
    Ok(())
}

#[tokio::test]
async fn the_gateway_joins_sessions() -> Result {
    let stage = Stage::new().await?;
    let mut command = stage.program("gateway")?;
    command.env("GATEWAY_TOKEN", "secret");
    let mut gateway = Running::of(command)?;
    let url = gateway.line().await?;

    let pod = Client::new(&Config::new(&url)?.with_token("secret"))?.pod("default", "web-0");
    let exec = pod
        .exec(["sh", "-c", "cat; echo err >&2; exit 3"])
        .container("main");
    let mut child = exec.stdin(kubewire::exec::Stdio::piped()).spawn().await?;
    let mut stdin = child.stdin.take().ok_or("stdin is piped")?;
    let mut stdout = child.stdout.take().ok_or("stdout is piped")?;
    let sent = vec![b'x'; 4 << 20];
    let feed = async {
        stdin.write_all(&sent).await?;
        stdin.shutdown().await
    };
    let mut echo = Vec::new();
    tokio::try_join!(feed, stdout.read_to_end(&mut echo))?;
    assert!(echo == sent);
    let output = child.wait_with_output().await?;
    assert_eq!(
        (output.status.code(), &output.stderr[..]),
        (Some(3), &b"err\n"[..])
    );
    let audit = gateway.line().await?;
    assert!(audit.starts_with("exec default/web-0 "), "{audit}");
    assert!(
        audit.contains("sent: 4194304, received: 4194308"),
        "{audit}"
    );

    let size = kubewire::exec::TerminalSize::new(132, 43);
    let script = "until test \"$(stty size)\" = '43 132'; do sleep 0.1; done";
    let terminal = pod.exec(["sh", "-c", script]).container("main").tty(size);
    assert!(terminal.status().await?.success());

    // The API server's refusal comes through as it is.
    let refused = pod
        .exec(["true"])
        .container("none")
        .output()
        .await
        .unwrap_err();
    assert!(refused.to_string().contains("container none"), "{refused}");

    // What no gateway needs, it does not pass on.
    let logs = pod.logs().container("main").stream().next().await;
    let refused = logs.ok_or("it is refused")?.unwrap_err();
    assert!(refused.is_not_found(), "{refused}");

    let other = Client::new(&Config::new(&url)?.with_token("guess"))?.pod("default", "web-0");
    let refused = other
        .exec(["true"])
        .container("main")
        .output()
        .await
        .unwrap_err();
    assert_eq!(refused.status().map(|status| status.code), Some(401));
    Ok(())
}

/// TLS before a server that has none: kubectl sends tokens over nothing else.
async fn with_tls(url: &str) -> Result<String> {
    let address = url.trim_start_matches("http://").to_owned();
    let key = rcgen::KeyPair::generate()?;
    let params = rcgen::CertificateParams::new(["localhost".to_owned()])?;
    let certificate = params.self_signed(&key)?.der().clone();
    let key = PrivateKeyDer::try_from(key.serialize_der())?;
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)?;
    let tls = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let port = listener.local_addr()?.port();
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let (tls, address) = (tls.clone(), address.clone());
            tokio::spawn(async move {
                let mut near = tls.accept(socket).await?;
                let mut far = TcpStream::connect(address).await?;
                tokio::io::copy_bidirectional(&mut near, &mut far).await
            });
        }
    });
    Ok(format!("https://localhost:{port}"))
}

#[tokio::test]
async fn kubectl_works_through_the_gateway() -> Result {
    let Some(kubectl) = kubectl::kubectl() else {
        return Ok(());
    };
    let stage = Stage::new().await?;
    let mut command = stage.program("gateway")?;
    command.env("GATEWAY_TOKEN", "secret");
    let mut gateway = Running::of(command)?;
    let url = with_tls(&gateway.line().await?).await?;
    let through = |arguments: &[&str]| {
        let mut command = Command::new(&kubectl);
        command
            .env("KUBECONFIG", "/dev/null")
            .env("HOME", stage.directory.path())
            .args(["--server", &url, "--token", "secret"])
            .arg("--insecure-skip-tls-verify")
            .args(arguments)
            .kill_on_drop(true)
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        command
    };
    let script = "echo out; exit 5";
    let mut exec = through(&["exec", "web-0", "-c", "main", "--", "sh", "-c", script]);
    let output = tokio::time::timeout(DEADLINE, exec.output()).await??;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(5), "{said}");
    assert_eq!(output.stdout, b"out\n");

    let program = TcpListener::bind("127.0.0.1:0").await?;
    let port = program.local_addr()?.port();
    let mut forward = Running::of(through(&["port-forward", "pod/web-0", &format!(":{port}")]))?;
    let line = forward.line().await?; // Forwarding from 127.0.0.1:40001 -> 40000
    let local = line.split(' ').nth(2).ok_or("it says where")?;
    let mut near = TcpStream::connect(local).await?;
    let (mut far, _) = tokio::time::timeout(DEADLINE, program.accept()).await??;
    far.write_all(b"hello").await?;
    let mut hello = [0; 5];
    tokio::time::timeout(DEADLINE, near.read_exact(&mut hello)).await??;
    assert_eq!(&hello, b"hello");
    Ok(())
}

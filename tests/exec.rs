//! exec and attach through real sockets, between this crate's client and its embedded server.

use std::{
    io,
    time::{Duration, Instant},
};

use bytes::Bytes;
use kubewire::{
    Client, Error, Pod,
    error::{CallerError, Hint, NetworkError},
    exec::{Child, Stdio, Subprotocol, TerminalSize},
    testing::{ApiServer, Fault},
};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};

type Result<T = (), E = Box<dyn std::error::Error>> = std::result::Result<T, E>;

/// Nothing here takes longer, except on a machine that is very busy.
const PATIENCE: Duration = Duration::from_secs(30);

async fn soon<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, work)
        .await
        .expect("it takes too long")
}

fn builder() -> kubewire::testing::ApiServerBuilder {
    ApiServer::builder()
        .pod("default", "web-0", |pod| {
            pod.container_with("main", ["sleep", "infinity"], |c| c.env("COLOR", "green"))
        })
        .pod("default", "two", |pod| {
            pod.container("a", ["sleep", "infinity"])
                .container("b", ["sleep", "infinity"])
        })
        .pod("default", "catter", |pod| {
            pod.container_with("main", ["cat"], |container| container.stdin())
        })
        .pod("default", "shell", |pod| {
            pod.container_with("main", ["sh"], |container| container.stdin().tty())
        })
}

struct Fixture {
    server: ApiServer,
    client: Client,
}

impl Fixture {
    async fn with(builder: kubewire::testing::ApiServerBuilder) -> Result<Self> {
        let server = builder.start().await?;
        let client = Client::new(&server.config())?;
        Ok(Self { server, client })
    }

    /// With TLS and a token.
    async fn new() -> Result<Self> {
        Self::with(builder()).await
    }

    async fn plain() -> Result<Self> {
        Self::with(builder().plain()).await
    }

    fn pod(&self, name: &str) -> Pod {
        self.client.pod("default", name)
    }

    fn web(&self) -> Pod {
        self.pod("web-0")
    }
}

fn api_error(error: &Error) -> &kubewire::error::ApiError {
    match error {
        Error::Api(error) => error,
        other => panic!("no refusal of the API: {other:?}"),
    }
}

fn caller_error(error: &io::Error) -> &CallerError {
    match Error::of_io(error) {
        Some(Error::Caller(error)) => error,
        other => panic!("no error of the caller: {other:?}"),
    }
}

#[tokio::test]
async fn output_errors_and_exit_code_arrive_over_tls_and_plain() -> Result {
    for fixture in [Fixture::new().await?, Fixture::plain().await?] {
        let output = soon(
            fixture
                .web()
                .exec(["sh", "-c", "echo out; echo err >&2; echo $COLOR; exit 3"])
                .output(),
        )
        .await?;
        assert_eq!(output.stdout, b"out\ngreen\n");
        assert_eq!(output.stderr, b"err\n");
        assert_eq!(output.status.code(), Some(3));
        assert_eq!(
            output.status.message(),
            "command terminated with non-zero exit code: command terminated with exit code 3"
        );
        assert_eq!(output.status.reason(), "NonZeroExitCode");
        let success = soon(fixture.web().exec(["true"]).status()).await?;
        assert!(success.success());
        soon(fixture.server.shutdown()).await;
    }
    Ok(())
}

#[tokio::test]
async fn closing_stdin_ends_the_input_while_output_goes_on() -> Result {
    let fixture = Fixture::new().await?;
    let mut child = fixture
        .web()
        .exec(["sh", "-c", "cat; echo end; sleep 0.2; echo later"])
        .stdin(Stdio::piped())
        .spawn()
        .await?;
    let mut stdin = child.stdin.take().expect("piped");
    assert!(stdin.can_shutdown());
    stdin.write_all(b"hello\n").await?;
    let mut stdout = child.stdout.take().expect("piped");
    let mut first = [0; 6];
    soon(stdout.read_exact(&mut first)).await?;
    assert_eq!(&first, b"hello\n");
    soon(stdin.shutdown()).await?;
    let mut rest = String::new();
    soon(stdout.read_to_string(&mut rest)).await?;
    assert_eq!(rest, "end\nlater\n");
    assert!(soon(child.wait()).await?.success());
    Ok(())
}

#[tokio::test]
async fn without_half_close_the_caller_learns_before_and_loses_nothing() -> Result {
    let fixture = Fixture::with(builder().subprotocols([Subprotocol::V4])).await?;
    let mut child = fixture
        .web()
        .exec(["sh", "-c", "head -c 12; echo; echo end; exit 4"])
        .stdin(Stdio::piped())
        .spawn()
        .await?;
    assert_eq!(child.protocol(), Subprotocol::V4);
    let mut stdin = child.stdin.take().expect("piped");
    assert!(!stdin.can_shutdown());
    stdin.write_all(b"hello ").await?;
    let error = soon(stdin.shutdown()).await.unwrap_err();
    assert!(matches!(
        caller_error(&error),
        CallerError::HalfClose {
            protocol: "v4.channel.k8s.io"
        }
    ));
    stdin.write_all(b"world!").await?;
    drop(stdin);
    let output = soon(child.wait_with_output()).await?;
    assert_eq!(output.stdout, b"hello world!\nend\n");
    assert_eq!(output.status.code(), Some(4));
    assert_eq!(
        output.status.message(),
        "command terminated with non-zero exit code: error executing command [sh -c head -c 12; \
         echo; echo end; exit 4], exit code 4"
    );
    // Who cannot do without is refused.
    let demanding = fixture.web().exec(["true"]).require_half_close();
    let error = soon(demanding.spawn()).await.unwrap_err();
    assert_eq!(api_error(&error).status.code, 403);
    Ok(())
}

#[tokio::test]
async fn every_subprotocol_carries_streams_and_exit_code() -> Result {
    use Subprotocol::*;
    let fixture = Fixture::plain().await?;
    for protocol in [V5, V4, V4Base64, V1, V1Base64, Unnamed] {
        let exec = fixture
            .web()
            .exec(["sh", "-c", "head -c 4; printf err >&2; exit $0", "7"])
            .stdin(Stdio::piped())
            .subprotocols([protocol]);
        let mut child = soon(exec.spawn()).await?;
        assert_eq!(child.protocol(), protocol);
        let mut stdin = child.stdin.take().expect("piped");
        stdin.write_all(&[0, 255, b'\n', b'0']).await?;
        let output = soon(child.wait_with_output()).await?;
        assert_eq!(output.stdout, [0, 255, b'\n', b'0'], "{protocol}");
        assert_eq!(output.stderr, b"err", "{protocol}");
        assert_eq!(output.status.code(), Some(7), "{protocol}");
        let quiet = fixture.web().exec(["true"]).subprotocols([protocol]);
        assert!(soon(quiet.status()).await?.success(), "{protocol}");
    }
    Ok(())
}

#[tokio::test]
async fn a_signal_and_a_missing_program_read_as_in_a_cluster() -> Result {
    let fixture = Fixture::new().await?;
    let killed = fixture.web().exec(["sh", "-c", "kill -9 $$"]);
    assert_eq!(soon(killed.status()).await?.code(), Some(137));

    for (program, ending) in [
        (
            "/no/such/program",
            "exec: \"/no/such/program\": stat /no/such/program: no such file or directory: unknown",
        ),
        (
            "nosuchprogram",
            "exec: \"nosuchprogram\": executable file not found in $PATH: unknown",
        ),
        (
            "/etc/passwd",
            "exec: \"/etc/passwd\": permission denied: unknown",
        ),
    ] {
        for protocol in [Subprotocol::V5, Subprotocol::V4, Subprotocol::V1] {
            let exec = fixture.web().exec([program]).subprotocols([protocol]);
            let error = soon(exec.output()).await.unwrap_err();
            let error = api_error(&error);
            assert_eq!(
                (error.status.code, &error.status.reason[..]),
                (500, "InternalError")
            );
            let message = &error.status.message;
            assert!(message.ends_with(ending), "{message}");
            assert_eq!(error.hint, Some(Hint::Program(program.into())));
            assert_eq!(error.operation, "exec in pod default/web-0");
        }
    }
    Ok(())
}

#[tokio::test]
async fn refusals_say_what_is_missing() -> Result {
    let fixture = Fixture::new().await?;
    let refusal = async |token: &str, pod: &str, container: Option<&str>| {
        let client = Client::new(&fixture.server.config_with_token(token)).unwrap();
        let mut exec = client.pod("default", pod).exec(["true"]);
        if let Some(container) = container {
            exec = exec.container(container);
        }
        let error = soon(exec.output()).await.unwrap_err();
        let error = api_error(&error);
        (
            error.status.code,
            error.status.message.clone(),
            error.hint.clone(),
        )
    };
    let token = fixture.server.token();
    assert_eq!(
        refusal("wrong", "web-0", None).await,
        (401, "Unauthorized".into(), None)
    );
    let forbidden = "pods \"web-0\" is forbidden: User \"nobody\" cannot create resource \
                     \"pods/exec\" in API group \"\" in the namespace \"default\"";
    let rule = Hint::Rule {
        group: String::new(),
        resource: "pods/exec".into(),
        verbs: vec!["get".into(), "create".into()],
    };
    assert_eq!(
        refusal(fixture.server.token_without_rights(), "web-0", None).await,
        (403, forbidden.into(), Some(rule))
    );
    assert_eq!(
        refusal(token, "nope", None).await,
        (404, "pods \"nope\" not found".into(), None)
    );
    let both = Some(Hint::Containers(vec!["a".into(), "b".into()]));
    assert_eq!(
        refusal(token, "two", None).await,
        (
            400,
            "a container name must be specified for pod two, choose one of: [a b]".into(),
            both.clone()
        )
    );
    assert_eq!(
        refusal(token, "two", Some("c")).await,
        (400, "container c is not valid for pod two".into(), both)
    );
    assert!(
        soon(fixture.pod("two").exec(["true"]).container("b").status())
            .await?
            .success()
    );
    Ok(())
}

#[tokio::test]
async fn a_terminal_has_the_client_s_size_and_is_hung_up_with_it() -> Result {
    let fixture = Fixture::new().await?;
    let script = "stty size; while [ \"$(stty size)\" = '24 80' ]; do sleep 0.02; done; stty size; \
                  read line; echo \"<$line>\"; echo err >&2; exit 6";
    let mut child = fixture
        .web()
        .exec(["sh", "-c", script])
        .stdin(Stdio::piped())
        .tty(TerminalSize::new(80, 24))
        .spawn()
        .await?;
    assert!(child.stderr.is_none());
    let mut stdout = BufReader::new(child.stdout.take().expect("piped"));
    let mut line = String::new();
    soon(stdout.read_line(&mut line)).await?;
    assert_eq!(line, "24 80\r\n");
    child.resize(TerminalSize::new(132, 43))?;
    line.clear();
    soon(stdout.read_line(&mut line)).await?;
    assert_eq!(line, "43 132\r\n");
    let mut stdin = child.stdin.take().expect("piped");
    stdin.write_all(b"hi\n").await?;
    let mut rest = String::new();
    soon(stdout.read_to_string(&mut rest)).await?;
    assert_eq!(rest, "hi\r\n<hi>\r\nerr\r\n");
    assert_eq!(soon(child.wait()).await?.code(), Some(6));

    let child = fixture.web().exec(["true"]).spawn().await?;
    let error = child.resize(TerminalSize::new(1, 1)).unwrap_err();
    assert!(matches!(
        error,
        Error::Caller(CallerError::ResizeWithoutTty)
    ));
    Ok(())
}

async fn first_line(child: &mut Child) -> Result<(String, BufReader<kubewire::exec::ChildStdout>)> {
    let mut stdout = BufReader::new(child.stdout.take().expect("piped"));
    let mut line = String::new();
    soon(stdout.read_line(&mut line)).await?;
    Ok((line.trim_end().to_owned(), stdout))
}

async fn gone(pid: &str) {
    let path = format!("/proc/{pid}");
    soon(async {
        while std::path::Path::new(&path).exists() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn dropping_the_child_ends_its_streams_and_what_it_runs() -> Result {
    let fixture = Fixture::new().await?;
    let pod = fixture.web();
    let hung_up = pod
        .exec(["sh", "-c", "echo $$; exec sleep 1000"])
        .tty(TerminalSize::new(80, 24));
    // Without a terminal it is not told, but its input ends.
    let starved = pod
        .exec(["sh", "-c", "echo $$; exec cat"])
        .stdin(Stdio::piped());
    for exec in [hung_up, starved] {
        let mut child = soon(exec.spawn()).await?;
        let (pid, mut stdout) = first_line(&mut child).await?;
        assert!(std::path::Path::new(&format!("/proc/{pid}")).exists());
        drop(child);
        let error = soon(stdout.read_to_end(&mut Vec::new())).await.unwrap_err();
        assert!(matches!(caller_error(&error), CallerError::Killed));
        gone(&pid).await;
    }
    Ok(())
}

#[tokio::test]
async fn the_server_takes_its_processes_with_it() -> Result {
    let fixture = Fixture::plain().await?;
    let script = "sleep 1000 & echo $!; exec sleep 1000";
    let mut child = fixture.web().exec(["sh", "-c", script]).spawn().await?;
    let (pid, _stdout) = first_line(&mut child).await?;
    soon(fixture.server.shutdown()).await;
    gone(&pid).await;
    let error = soon(child.wait()).await.unwrap_err();
    assert!(
        matches!(
            error,
            Error::Network(NetworkError::ClosedWithoutStatus { .. })
        ),
        "{error:?}"
    );
    Ok(())
}

#[tokio::test]
async fn waiting_while_an_untaken_stream_is_full_is_an_error_that_passes() -> Result {
    let fixture = Fixture::new().await?;
    let script = "head -c 3000000 /dev/zero >&2; echo done; exit 5";
    let mut child = fixture.web().exec(["sh", "-c", script]).spawn().await?;
    let error = soon(child.wait()).await.unwrap_err();
    match error {
        Error::Caller(CallerError::Unread { stream, bytes }) => {
            assert_eq!((stream, bytes), ("stderr", kubewire::limits::STREAM_BUFFER));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(child.held_back_by(), Some("stderr"));
    let mut stderr = child.stderr.take().expect("still there");
    let (mut errors, mut output) = (Vec::new(), Vec::new());
    let mut stdout = child.stdout.take().expect("still there");
    let (status, read, also) = soon(async {
        tokio::join!(
            child.wait(),
            stderr.read_to_end(&mut errors),
            stdout.read_to_end(&mut output)
        )
    })
    .await;
    assert_eq!(status?.code(), Some(5));
    assert_eq!((read?, also?), (3_000_000, 5));
    assert_eq!(output, b"done\n");
    Ok(())
}

#[tokio::test]
async fn an_unread_stream_stops_nothing_before_its_bound() -> Result {
    let fixture = Fixture::plain().await?;
    let script = "head -c \"$1\" /dev/zero >&2; seq 1 1000; exit 5";
    let exec = |bytes: &'static str| fixture.web().exec(["sh", "-c", script, "sh", bytes]);

    let mut child = exec("500000").spawn().await?;
    let mut stderr = child.stderr.take().expect("piped");
    let mut output = String::new();
    let mut stdout = child.stdout.take().expect("piped");
    soon(stdout.read_to_string(&mut output)).await?;
    assert!(output.ends_with("\n999\n1000\n"));
    assert_eq!(soon(child.wait()).await?.code(), Some(5));
    assert_eq!(child.held_back_by(), None);
    let mut errors = Vec::new();
    assert_eq!(soon(stderr.read_to_end(&mut errors)).await?, 500_000);

    // Past it everything waits, until somebody reads or nobody can any more.
    let mut child = exec("3000000").spawn().await?;
    let stderr = child.stderr.take().expect("piped");
    let early = tokio::time::timeout(Duration::from_millis(500), child.wait()).await;
    assert!(early.is_err(), "{early:?}");
    assert_eq!(child.held_back_by(), Some("stderr"));
    drop(stderr);
    let output = soon(child.wait_with_output()).await?;
    assert!(output.stdout.ends_with(b"\n999\n1000\n"));
    assert_eq!(output.status.code(), Some(5));
    Ok(())
}

#[tokio::test]
async fn a_cut_connection_is_never_a_success() -> Result {
    for fixture in [Fixture::new().await?, Fixture::plain().await?] {
        for bytes in [0, 100, 300, 5000] {
            fixture.server.inject(Fault::CutAfter(bytes));
            let exec = fixture
                .web()
                .exec(["sh", "-c", "while echo x; do sleep 0.0001; done"]);
            let error = match soon(exec.spawn()).await {
                // In the middle of the handshake.
                Err(error) => {
                    assert!(bytes <= 100, "{error:?}");
                    assert!(
                        matches!(error, Error::Network(_) | Error::Peer(_)),
                        "{error:?}"
                    );
                    continue;
                }
                Ok(mut child) => {
                    let mut stdout = child.stdout.take().expect("piped");
                    let read = soon(stdout.read_to_end(&mut Vec::new())).await;
                    assert!(read.is_err());
                    soon(child.wait()).await.unwrap_err()
                }
            };
            assert!(
                matches!(
                    error,
                    Error::Network(NetworkError::ClosedWithoutStatus { .. })
                ),
                "after {bytes} bytes: {error:?}"
            );
        }
        let mut status = kubewire::wire::status::Status::failure(429, "TooManyRequests", "later");
        status.message.push_str(", please");
        fixture.server.inject(Fault::Refuse(Box::new(status)));
        let error = soon(fixture.web().exec(["true"]).output())
            .await
            .unwrap_err();
        assert_eq!(api_error(&error).status.message, "later, please");
        assert!(soon(fixture.web().exec(["true"]).status()).await?.success());
    }
    Ok(())
}

#[tokio::test]
async fn attach_joins_a_running_process() -> Result {
    let fixture = Fixture::new().await?;
    let attach = fixture.pod("catter").attach().stdin(Stdio::piped());
    let mut first = soon(attach.spawn()).await?;
    let mut stdin = first.stdin.take().expect("piped");
    let mut seen = BufReader::new(first.stdout.take().expect("piped"));
    let mut line = String::new();
    stdin.write_all(b"before\n").await?;
    soon(seen.read_line(&mut line)).await?;
    assert_eq!(line, "before\n");

    let mut second = soon(fixture.pod("catter").attach().spawn()).await?;
    let mut too = BufReader::new(second.stdout.take().expect("piped"));
    stdin.write_all(b"after\n").await?;
    for seen in [&mut seen, &mut too] {
        line.clear();
        soon(seen.read_line(&mut line)).await?;
        assert_eq!(line, "after\n");
    }
    // One who leaves, even in order, does not end it.
    soon(stdin.shutdown()).await?;
    drop(first);
    let mut third = soon(attach.spawn()).await?;
    let mut stdin = third.stdin.take().expect("piped");
    stdin.write_all(b"again\n").await?;
    line.clear();
    soon(too.read_line(&mut line)).await?;
    assert_eq!(line, "again\n");
    Ok(())
}

#[tokio::test]
async fn attach_ends_with_the_process_and_without_a_code() -> Result {
    let builder = builder().pod("default", "brief", |pod| {
        pod.container_with("main", ["sh", "-c", "cat; echo bye >&2; exit 9"], |c| {
            c.stdin_once()
        })
    });
    let fixture = Fixture::with(builder).await?;
    let attach = fixture.pod("brief").attach().stdin(Stdio::piped());
    let mut attached = soon(attach.spawn()).await?;
    let mut stdin = attached.stdin.take().expect("piped");
    stdin.write_all(b"hello\n").await?;
    soon(stdin.shutdown()).await?;
    let (mut output, mut errors) = (String::new(), String::new());
    let mut stdout = attached.stdout.take().expect("piped");
    let mut stderr = attached.stderr.take().expect("piped");
    soon(stdout.read_to_string(&mut output)).await?;
    soon(stderr.read_to_string(&mut errors)).await?;
    assert_eq!((&output[..], &errors[..]), ("hello\n", "bye\n"));
    soon(attached.wait()).await?;

    // What has ended takes nobody in.
    let mut late = soon(attach.spawn()).await?;
    let error = soon(late.wait()).await.unwrap_err();
    assert!(
        api_error(&error)
            .status
            .message
            .contains("container not found (\"main\")")
    );
    let pod = get(&fixture.server, "/api/v1/namespaces/default/pods/brief").await?;
    assert!(pod.contains("\"exitCode\":9"), "{pod}");
    Ok(())
}

#[tokio::test]
async fn attach_to_a_terminal_resizes_it() -> Result {
    let fixture = Fixture::new().await?;
    let mut attached = fixture
        .pod("shell")
        .attach()
        .stdin(Stdio::piped())
        .tty(TerminalSize::new(101, 33))
        .spawn()
        .await?;
    assert!(attached.stderr.is_none());
    let mut stdin = attached.stdin.take().expect("piped");
    let script =
        "while [ \"$(stty size)\" != '33 101' ]; do sleep 0.02; done; echo \"size=\"$((30+3))\n";
    stdin.write_all(script.as_bytes()).await?;
    let mut stdout = attached.stdout.take().expect("piped");
    let mut seen = Vec::new();
    soon(async {
        while !String::from_utf8_lossy(&seen).contains("size=33") {
            assert!(stdout.read_buf(&mut seen).await? > 0);
        }
        io::Result::Ok(())
    })
    .await?;
    stdin.write_all(b"exit\n").await?;
    soon(stdout.read_to_end(&mut seen)).await?;
    soon(attached.wait()).await?;
    Ok(())
}

/// Bytes that are nowhere the same, and are known at every offset.
fn pattern(offset: u64, length: usize) -> Bytes {
    let mut bytes = Vec::with_capacity(length + 8);
    let mut word = offset / 8;
    while bytes.len() < length {
        let mixed = (word ^ (word >> 7)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        bytes.extend_from_slice(&(mixed ^ (mixed >> 31)).to_le_bytes());
        word += 1;
    }
    bytes.truncate(length);
    bytes.into()
}

/// Sends `total` bytes through `cat` and compares what comes back.
async fn through_cat(pod: &Pod, total: u64) -> Result {
    const CHUNK: usize = 64 << 10;
    let mut child = pod.exec(["cat"]).stdin(Stdio::piped()).spawn().await?;
    let mut stdin = child.stdin.take().expect("piped");
    let mut stdout = child.stdout.take().expect("piped");
    let write = async move {
        for offset in (0..total).step_by(CHUNK) {
            stdin.write_all(&pattern(offset, CHUNK)).await?;
        }
        stdin.shutdown().await
    };
    let read = async move {
        let mut buffer = vec![0; CHUNK];
        for offset in (0..total).step_by(CHUNK) {
            stdout.read_exact(&mut buffer).await?;
            assert!(
                buffer == pattern(offset, CHUNK),
                "other bytes near {offset}"
            );
        }
        assert_eq!(stdout.read(&mut buffer).await?, 0);
        io::Result::Ok(())
    };
    tokio::try_join!(write, read)?;
    assert!(child.wait().await?.success());
    Ok(())
}

#[tokio::test]
async fn stdin_and_stdout_flow_at_once() -> Result {
    for fixture in [Fixture::new().await?, Fixture::plain().await?] {
        tokio::time::timeout(4 * PATIENCE, through_cat(&fixture.web(), 64 << 20)).await??;
    }
    Ok(())
}

/// `cargo test --release --test exec -- --ignored`
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a GiB: seconds in release mode, minutes otherwise"]
async fn a_gibibyte_flows_through_cat() -> Result {
    for fixture in [Fixture::new().await?, Fixture::plain().await?] {
        let start = Instant::now();
        through_cat(&fixture.web(), 1 << 30).await?;
        println!("1 GiB there and back in {:?}", start.elapsed());
    }
    Ok(())
}

#[tokio::test]
async fn a_reader_that_sleeps_loses_nothing() -> Result {
    let expected: String = (1..=700_000).map(|n| format!("{n}\n")).collect();
    for protocol in [Subprotocol::V5, Subprotocol::V4] {
        let fixture = Fixture::new().await?;
        let exec = fixture
            .web()
            .exec(["sh", "-c", "seq 1 700000; exit 3"])
            .subprotocols([protocol]);
        let mut child = soon(exec.spawn()).await?;
        let mut stdout = child.stdout.take().expect("piped");
        let mut output = vec![0; 10];
        soon(stdout.read_exact(&mut output)).await?;
        tokio::time::sleep(Duration::from_millis(1500)).await;
        soon(stdout.read_to_end(&mut output)).await?;
        assert!(output == expected.as_bytes(), "{} bytes", output.len());
        assert_eq!(soon(child.wait()).await?.code(), Some(3));
    }
    Ok(())
}

#[tokio::test]
async fn input_that_nobody_reads_does_not_destroy_output() -> Result {
    let expected: String = (1..=300_000).map(|n| format!("{n}\n")).collect();
    let fixture = Fixture::plain().await?;
    for protocol in [Subprotocol::V5, Subprotocol::V4, Subprotocol::V1] {
        let exec = fixture
            .web()
            .exec(["sh", "-c", "seq 1 300000; exit 3"])
            .stdin(Stdio::piped())
            .subprotocols([protocol]);
        let mut child = soon(exec.spawn()).await?;
        let mut stdin = child.stdin.take().expect("piped");
        let mut stdout = child.stdout.take().expect("piped");
        let flood = async move {
            let chunk = vec![0; 64 << 10];
            while stdin.write_all(&chunk).await.is_ok() {}
        };
        let mut output = Vec::new();
        let read = async {
            let read = stdout.read_to_end(&mut output).await;
            (read, child.wait().await)
        };
        let ((), (read, status)) = soon(async { tokio::join!(flood, read) }).await;
        read?;
        assert!(
            output == expected.as_bytes(),
            "{} bytes over {protocol}",
            output.len()
        );
        assert_eq!(status?.code(), Some(3));
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_sessions_do_not_mix() -> Result {
    let fixture = Fixture::new().await?;
    let mut sessions = tokio::task::JoinSet::new();
    for number in 0..200 {
        let pod = fixture.web();
        sessions.spawn(async move {
            let script = format!("cat; echo {number} >&2; exit {}", number % 100);
            let exec = pod.exec(["sh", "-c", &script]).stdin(Stdio::piped());
            let mut child = exec.spawn().await?;
            let mut stdin = child.stdin.take().expect("piped");
            stdin.write_all(&pattern(number * 8, 10_000)).await.unwrap();
            stdin.shutdown().await.unwrap();
            let output = child.wait_with_output().await?;
            assert!(output.stdout == pattern(number * 8, 10_000));
            assert_eq!(output.stderr, format!("{number}\n").as_bytes());
            assert_eq!(output.status.code(), Some(number as i32 % 100));
            Ok::<_, Error>(())
        });
    }
    while let Some(session) = tokio::time::timeout(4 * PATIENCE, sessions.join_next()).await? {
        session??;
    }
    Ok(())
}

#[tokio::test]
async fn no_task_is_left_behind() -> Result {
    let tasks = || {
        tokio::runtime::Handle::current()
            .metrics()
            .num_alive_tasks()
    };
    let settled = async |wanted: usize| {
        soon(async {
            while tasks() > wanted {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await;
        assert_eq!(tasks(), wanted);
    };
    let before = tasks();
    let fixture = Fixture::new().await?;
    settled(tasks()).await;
    let idle = tasks();
    for _ in 0..3 {
        let pod = fixture.web();
        soon(pod.exec(["true"]).output()).await?;
        drop(soon(pod.exec(["cat"]).stdin(Stdio::piped()).spawn()).await?);
        let mut child = soon(
            pod.exec(["sh", "-c", "exec sleep 1000"])
                .tty(TerminalSize::new(9, 9))
                .spawn(),
        )
        .await?;
        drop(child.stdout.take());
        drop(child);
        drop(soon(fixture.pod("catter").attach().stdin(Stdio::piped()).spawn()).await?);
        settled(idle).await;
    }
    soon(fixture.server.shutdown()).await;
    settled(before).await;
    Ok(())
}

/// One HTTP exchange by hand; the whole answer.
async fn exchange(server: &ApiServer, head: &str) -> Result<String> {
    let mut tcp = tokio::net::TcpStream::connect(server.address()).await?;
    tcp.write_all(head.replace('\n', "\r\n").as_bytes()).await?;
    let mut answer = Vec::new();
    soon(tcp.read_to_end(&mut answer)).await?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// A GET over TLS or not.
async fn get(server: &ApiServer, path: &str) -> Result<String> {
    use http_body_util::BodyExt as _;
    let connector = kubewire::auth::Connector::new(&server.config())?;
    let mut request = http::Request::get(path)
        .header("host", connector.host())
        .body(http_body_util::Empty::<Bytes>::new())?;
    connector.authorize(request.headers_mut()).await?;
    let io = hyper_util::rt::TokioIo::new(connector.connect().await?);
    let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await?;
    tokio::spawn(connection);
    let body = sender
        .send_request(request)
        .await?
        .into_body()
        .collect()
        .await?;
    Ok(String::from_utf8_lossy(&body.to_bytes()).into_owned())
}

const UPGRADE: &str = "Host: x
Connection: keep-alive, Upgrade
Upgrade: WebSocket
Sec-WebSocket-Version: 13
Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==
";

#[tokio::test]
async fn odd_requests_are_answered_as_a_kubelet_does() -> Result {
    let fixture = Fixture::plain().await?;
    let answer = async |query: &str, headers: &str| {
        let path = "/api/v1/namespaces/default/pods/web-0/exec";
        let head = format!("GET {path}{query} HTTP/1.1\n{headers}\n");
        exchange(&fixture.server, &head).await.unwrap()
    };
    let close = "Host: x\nConnection: close\n";
    let refused = answer("?stdout=true&command=true", close).await;
    assert!(refused.starts_with("HTTP/1.1 400 "), "{refused}");
    assert!(refused.contains("Upgrade request required"), "{refused}");

    let upgrade = UPGRADE.replace("keep-alive", "close");
    for query in [
        "",
        "?",
        "?command=true",
        "?stdout=false&stdin=0&command=true",
    ] {
        let refused = answer(query, &upgrade).await;
        assert!(refused.starts_with("HTTP/1.1 400 "), "{query}: {refused}");
        assert!(
            refused.contains("you must specify at least 1 of stdin, stdout, stderr"),
            "{query}: {refused}"
        );
    }
    let unknown = format!("{upgrade}Sec-WebSocket-Protocol: v9.channel.k8s.io\n");
    let refused = answer("?stdout=true&command=true", &unknown).await;
    assert!(refused.starts_with("HTTP/1.1 403 "), "{refused}");
    let old = upgrade.replace("13", "12");
    let refused = answer("?stdout=true&command=true", &old).await;
    assert!(refused.starts_with("HTTP/1.1 400 "), "{refused}");

    // A value may be missing, a plus is a space, and only the first line of an offer counts.
    let offers = format!(
        "{UPGRADE}Sec-WebSocket-Protocol: v9.channel.k8s.io, v4.channel.k8s.io\n\
         Sec-WebSocket-Protocol: v5.channel.k8s.io\n"
    );
    let mut tcp = tokio::net::TcpStream::connect(fixture.server.address()).await?;
    let head = format!(
        "GET /api/v1/namespaces/default/pods/web-0/exec?stdout&tty=&stderr=true&command=echo&command=a+b%20c HTTP/1.1\n{offers}\n"
    );
    tcp.write_all(head.replace('\n', "\r\n").as_bytes()).await?;
    let mut answer = Vec::new();
    soon(async {
        while !answer.ends_with(b"\x88\x02\x03\xe8") {
            assert!(tcp.read_buf(&mut answer).await? > 0);
        }
        io::Result::Ok(())
    })
    .await?;
    // The close is answered, and the server closes.
    tcp.write_all(b"\x88\x82\0\0\0\0\x03\xe8").await?;
    assert_eq!(soon(tcp.read_buf(&mut answer)).await?, 0);
    let answer = String::from_utf8_lossy(&answer).to_lowercase();
    assert!(answer.starts_with("http/1.1 101 "), "{answer}");
    assert!(
        answer.contains("sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo=\r\n"),
        "{answer}"
    );
    assert!(
        answer.contains("sec-websocket-protocol: v4.channel.k8s.io\r\n"),
        "{answer}"
    );
    assert!(answer.contains("a b c\r\n"), "{answer}");
    Ok(())
}

#[tokio::test]
async fn the_kubeconfig_and_the_objects_can_be_read() -> Result {
    let fixture = Fixture::new().await?;
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("config");
    std::fs::write(&path, fixture.server.kubeconfig())?;
    let options = kubewire::config::KubeconfigOptions::new().file(path);
    let config = kubewire::Config::from_kubeconfig(&options)?;
    assert_eq!(config.server_url(), fixture.server.url());
    let client = Client::new(&config)?;
    let output = soon(
        client
            .pod(client.namespace(), "web-0")
            .exec(["echo", "hi"])
            .output(),
    )
    .await?;
    assert_eq!(output.stdout, b"hi\n");

    let version = get(&fixture.server, "/version").await?;
    assert!(version.contains("\"minor\":\"36\""), "{version}");
    let pod = get(&fixture.server, "/api/v1/namespaces/default/pods/two").await?;
    let pod: serde_json::Value = serde_json::from_str(&pod)?;
    assert_eq!(pod["spec"]["containers"][1]["name"], "b");
    let missing = get(&fixture.server, "/nothing").await?;
    assert!(missing.contains("404 page not found"), "{missing}");
    Ok(())
}

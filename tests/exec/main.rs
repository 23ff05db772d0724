//! exec and attach through real sockets, between this crate's client and its embedded server.

mod attach;
mod raw;
mod refused;
#[path = "../common/soon.rs"]
mod soon;
mod volume;

use std::{
    io,
    time::{Duration, Instant},
};

use bytes::Bytes;
use kubewire::{
    Client, Config, Error, Pod,
    error::{CallerError, Hint, NetworkError},
    exec::{Child, Stdio, Subprotocol, TerminalSize},
    testing::{ApiServer, Fault},
};
use soon::soon;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};

type Result<T = (), E = Box<dyn std::error::Error>> = std::result::Result<T, E>;

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
        (
            401,
            "Unauthorized".into(),
            Some(Hint::Credentials("the token".into()))
        )
    );
    let forbidden = "pods \"web-0\" is forbidden: User \"nobody\" cannot get resource \
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
async fn that_there_is_no_such_namespace_is_said() -> Result {
    let fixture = Fixture::new().await?;
    let lost = fixture.client.pod("nosuch", "web-0");
    let mut lines = lost.logs().stream();
    let refusals = [
        soon(lost.exec("true").status()).await.err(),
        soon(lost.attach().spawn()).await.err(),
        soon(lost.port_forward().connect()).await.err(),
        soon(lines.next()).await.expect("an item").err(),
    ];
    for error in refusals {
        let error = error.expect("there is no such pod");
        assert!(error.is_not_found(), "{error}");
        let text = error.to_string();
        let words = "pods \"web-0\" not found (there is no namespace \"nosuch\")";
        assert!(text.ends_with(words), "{text}");
    }
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
async fn what_many_pods_wrote_comes_in_the_order_in_which_they_are_named() -> Result {
    let fixture = Fixture::new().await?;
    let all = fixture
        .client
        .exec_all("default", ["sh", "-c", "echo $HOSTNAME; exit 3"])
        .pods(["web-0", "gone", "catter", "web-0"]);
    for at_once in [1, 4] {
        let outputs = soon(all.clone().max_concurrent(at_once).output()).await?;
        let told = outputs.iter().map(|(pod, output)| match output {
            Ok(output) => {
                assert_eq!(output.status.code(), Some(3));
                assert_eq!(output.stdout, format!("{pod}\n").as_bytes());
                (&**pod, true)
            }
            Err(error) => (&**pod, !error.is_not_found()),
        });
        let expected = [
            ("web-0", true),
            ("gone", false),
            ("catter", true),
            ("web-0", true),
        ];
        assert_eq!(told.collect::<Vec<_>>(), expected);
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

//! exec and attach through real sockets, between this crate's client and its embedded server.

use std::{
    io,
    time::{Duration, Instant},
};

use bytes::Bytes;
use kubewire::{
    Client, Error,
    client::{Child, Pod, Stdio},
    error::{CallerError, Hint, NetworkError},
    session::Subprotocol,
    testing::ApiServer,
    wire::resize::TerminalSize,
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

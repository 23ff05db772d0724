//! exec with streams that tasks copy: in flow bytes, files and readers, out come output, files and
//! errors, through real sockets.

#![cfg(all(feature = "client", feature = "testing", unix))]

use std::{
    fs::File,
    io::{self, Seek as _, Write as _},
    path::PathBuf,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use kubewire::{
    Client, Error, Pod,
    error::CallerError,
    exec::{Input, Stdio, Subprotocol},
    testing::{ApiServer, ApiServerBuilder},
};
use tokio::io::{AsyncRead, AsyncReadExt as _, ReadBuf};

type Result<T = (), E = Box<dyn std::error::Error>> = std::result::Result<T, E>;

/// For what ends by itself, on a machine that is very busy.
const PATIENCE: Duration = Duration::from_secs(180);

async fn soon<T>(work: impl Future<Output = T>) -> T {
    Box::pin(tokio::time::timeout(PATIENCE, work))
        .await
        .expect("it takes too long")
}

fn builder() -> ApiServerBuilder {
    let shell = ["sh", "-c", "head -c 5; echo; echo attached"];
    ApiServer::builder()
        .pod("default", "web-0", |pod| {
            pod.container("main", ["sleep", "infinity"])
        })
        .pod("default", "reader", |pod| {
            // Otherwise attach ends with the client's input.
            pod.container_with("main", shell, |container| container.stdin().stdin_once())
        })
        .plain()
}

async fn start(builder: ApiServerBuilder) -> Result<(ApiServer, Client, Pod)> {
    let server = builder.start().await?;
    let client = Client::new(&server.config())?;
    let pod = client.pod("default", "web-0");
    Ok((server, client, pod))
}

/// A file of this name for this process, which is deleted at the end.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let name = format!("kubewire-exec-input-{}-{name}", std::process::id());
        Self(std::env::temp_dir().join(name))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn pattern(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|at| (at / 7 + at / 4099) as u8).collect()
}

#[tokio::test]
async fn a_large_input_goes_through_a_process_that_echoes_it() -> Result {
    let (_server, _, pod) = start(builder()).await?;
    let input = pattern(64 << 20);
    let output = soon(pod.exec("cat").input(input.clone()).output()).await?;
    assert!(output.status.success());
    assert!(output.stdout == input);
    Ok(())
}

#[tokio::test]
async fn one_word_is_a_program_without_arguments() -> Result {
    let (_server, _, pod) = start(builder()).await?;
    for exec in [
        pod.exec("pwd"),
        pod.exec(String::from("pwd")),
        pod.exec(["pwd"]),
        pod.exec(vec![String::from("pwd")]),
        pod.exec(["pwd"].iter().copied()),
    ] {
        assert!(soon(exec.output()).await?.stdout.starts_with(b"/"));
    }
    // No shell takes it apart.
    let error = soon(pod.exec("echo hello").output()).await.unwrap_err();
    assert!(matches!(error, Error::Api(_)), "{error}");
    Ok(())
}

#[tokio::test]
async fn a_process_that_ends_before_its_input_is_no_error() -> Result {
    let (_server, _, pod) = start(builder()).await?;
    let endless = || Input::reader(tokio::io::repeat(b'x'));
    let output = soon(pod.exec(["head", "-c", "3"]).input(endless()).output()).await?;
    assert_eq!(
        (output.status.code(), &output.stdout[..]),
        (Some(0), &b"xxx"[..])
    );
    let status = soon(pod.exec(["sh", "-c", "exit 4"]).input(endless()).status()).await?;
    assert_eq!(status.code(), Some(4));
    // Nor is a reader that has nothing yet.
    let (_writer, reader) = tokio::io::duplex(64);
    let status = soon(pod.exec("true").input(Input::reader(reader)).status()).await?;
    assert!(status.success());
    // And where stdin cannot be closed, a process that knows when to stop ends too.
    let (_old, _, pod) = start(builder().subprotocols([Subprotocol::V4])).await?;
    let output = soon(pod.exec(["head", "-c", "3"]).input("abc").output()).await?;
    assert_eq!(output.stdout, b"abc");
    Ok(())
}

/// A reader that gives some bytes and then fails.
struct Breaks(bool);

impl AsyncRead for Breaks {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if std::mem::replace(&mut self.0, true) {
            return Poll::Ready(Err(io::Error::other("the disk is gone")));
        }
        buf.put_slice(b"some");
        Poll::Ready(Ok(()))
    }
}

#[tokio::test]
async fn an_input_that_fails_ends_the_session_with_its_error() -> Result {
    let (_server, _, pod) = start(builder()).await?;
    let exec = pod.exec("cat").input(Input::reader(Breaks(false)));
    let error = soon(exec.spawn().await?.wait()).await.unwrap_err();
    assert!(
        matches!(error, Error::Caller(CallerError::Stream(_))),
        "{error:?}"
    );
    assert_eq!(error.to_string(), "a local stream failed: the disk is gone");
    // The reader is used up: that is said before anything is started.
    let error = soon(exec.output()).await.unwrap_err();
    assert!(
        matches!(error, Error::Caller(CallerError::InputTaken)),
        "{error:?}"
    );
    let exec = pod.exec("cat").input(Input::reader(Breaks(false)));
    let error = soon(exec.output()).await.unwrap_err();
    assert_eq!(error.to_string(), "a local stream failed: the disk is gone");
    Ok(())
}

/// A reader that gives some bytes and then panics.
struct Panics(Breaks);

impl AsyncRead for Panics {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match Pin::new(&mut self.0).poll_read(cx, buf) {
            Poll::Ready(Err(_)) => panic!("this reader panics, as it is to"),
            read => read,
        }
    }
}

/// Half an input must not look whole to the process, nor its success to the caller.
#[tokio::test]
async fn an_input_that_panics_ends_the_session_with_an_error() -> Result {
    let (_server, _, pod) = start(builder()).await?;
    let exec = pod.exec(["sh", "-c", "cat >/dev/null; echo whole"]);
    let exec = exec.input(Input::reader(Panics(Breaks(false))));
    let error = soon(exec.output()).await.unwrap_err();
    assert!(
        matches!(error, Error::Caller(CallerError::Panicked { .. })),
        "{error:?}"
    );
    let told = "the reader of stdin panicked: this reader panics, as it is to";
    assert_eq!(error.to_string(), told);
    Ok(())
}

#[tokio::test]
async fn files_are_read_and_written() -> Result {
    let (_server, _, pod) = start(builder()).await?;
    let (from, to) = (Scratch::new("from"), Scratch::new("to"));
    let text = pattern(3 << 20);
    std::fs::write(&from.0, &text)?;
    let mut out = File::options()
        .create(true)
        .write(true)
        .truncate(true)
        .open(&to.0)?;
    out.write_all(b"before ")?;
    let exec = pod.exec("cat").input(File::open(&from.0)?).stdout(out);
    assert!(soon(exec.status()).await?.success());
    let written = std::fs::read(&to.0)?;
    assert!(
        written
            .strip_prefix(b"before ")
            .is_some_and(|rest| rest == text)
    );

    // One of tokio's is read from where it is, and once.
    let mut file = tokio::fs::File::open(&from.0).await?;
    tokio::io::AsyncSeekExt::seek(&mut file, io::SeekFrom::Start(1 << 20)).await?;
    let exec = pod.exec("cat").input(file);
    let output = soon(exec.output()).await?;
    assert!(output.stdout == text[1 << 20..]);
    let error = soon(exec.output()).await.unwrap_err();
    assert!(
        matches!(error, Error::Caller(CallerError::InputTaken)),
        "{error:?}"
    );

    // Both outputs in one file, and the status by asking for it.
    let mut both = File::options()
        .create(true)
        .read(true)
        .write(true)
        .truncate(true)
        .open(&to.0)?;
    let mut child = pod
        .exec(["sh", "-c", "echo out; echo err >&2; exit 2"])
        .stdout(both.try_clone()?)
        .stderr(both.try_clone()?)
        .spawn()
        .await?;
    assert!(child.stdout.is_none() && child.stderr.is_none() && child.stdin.is_none());
    let status = soon(async {
        loop {
            if let Some(status) = child.try_wait()? {
                return Ok::<_, Error>(status);
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    assert_eq!(status.await?.code(), Some(2));
    both.rewind()?;
    let mut lines: Vec<_> = io::read_to_string(both)?
        .lines()
        .map(str::to_owned)
        .collect();
    lines.sort();
    assert_eq!(lines, ["err", "out"]);
    Ok(())
}

#[tokio::test]
async fn a_file_that_cannot_be_written_is_an_error() -> Result {
    let (_server, _, pod) = start(builder()).await?;
    // A file that is open for reading only.
    let scratch = Scratch::new("readonly");
    std::fs::write(&scratch.0, b"")?;
    let exec = pod.exec(["sh", "-c", "echo hello; sleep 600"]);
    let error = soon(exec.stdout(File::open(&scratch.0)?).status()).await;
    let error = error.unwrap_err();
    assert!(
        matches!(error, Error::Caller(CallerError::Stream(_))),
        "{error:?}"
    );
    let error = soon(pod.exec("true").stdout(Input::from("x")).status()).await;
    let error = error.unwrap_err();
    assert!(
        matches!(error, Error::Caller(CallerError::InputForOutput)),
        "{error:?}"
    );
    Ok(())
}

#[tokio::test]
async fn past_its_time_a_command_gives_what_it_wrote() -> Result {
    let (_server, _, pod) = start(builder()).await?;
    let script = "echo out; echo err >&2; exec sleep 600";
    let mut limit = Duration::from_millis(100);
    // On a machine that is busy nothing has been written by then.
    let output = loop {
        let exec = pod.exec(["sh", "-c", script]).timeout(limit);
        match soon(exec.output()).await {
            Err(Error::Caller(CallerError::TimedOut { output, after, .. })) => {
                assert_eq!(after, limit);
                if output.stdout.len() + output.stderr.len() == 8 || limit > PATIENCE / 4 {
                    break output;
                }
                limit *= 2;
            }
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(
        (&output.stdout[..], &output.stderr[..]),
        (&b"out\n"[..], &b"err\n"[..])
    );

    let mut child = pod
        .exec(["sleep", "600"])
        .timeout(Duration::from_millis(300))
        .spawn()
        .await?;
    let mut stdout = child.stdout.take().expect("piped");
    let error = soon(child.wait()).await.unwrap_err();
    let text = error.to_string();
    assert_eq!(
        text,
        "exec in pod default/web-0: no end within 300ms, with 0 bytes of output so far"
    );
    // The connection is closed.
    let error = soon(stdout.read_u8()).await.unwrap_err();
    assert!(matches!(
        Error::of_io(&error),
        Some(Error::Caller(CallerError::Killed))
    ));

    let output = soon(pod.exec("true").timeout(Duration::MAX).output()).await?;
    assert!(output.status.success());
    Ok(())
}

#[tokio::test]
async fn attach_is_fed_too() -> Result {
    let (_server, client, _) = start(builder()).await?;
    let attach = client.pod("default", "reader").attach().input("hello");
    let mut attached = soon(attach.spawn()).await?;
    assert!(attached.stdin.is_none());
    let mut stdout = attached.stdout.take().expect("piped");
    let mut all = String::new();
    soon(stdout.read_to_string(&mut all)).await?;
    assert_eq!(all, "hello\nattached\n");
    soon(attached.wait()).await?;
    Ok(())
}

#[tokio::test]
async fn a_null_stream_has_no_handle() -> Result {
    let (_server, _, pod) = start(builder()).await?;
    let exec = pod.exec("cat").stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = soon(exec.spawn()).await?;
    assert!(child.stdout.is_none() && child.stderr.is_none() && child.stdin.is_none());
    assert!(soon(child.wait()).await?.success());
    Ok(())
}

#[tokio::test]
async fn what_a_runtime_did_not_hand_on_is_told() -> Result {
    let (_server, _, pod) = start(builder().input_ends_with_output()).await?;
    let file = Scratch::new("short");
    let input = pattern(64 << 20);
    let to = |script: &str| {
        let script = script.replace("file", &file.0.display().to_string());
        pod.exec(["sh", "-c", &script]).input(input.clone())
    };
    // `exec`, for not every shell becomes its last command by itself.
    let output = soon(to("exec cat >file").output()).await?;
    let left = output.status.input_at_exit();
    assert!(output.status.success() && !left.is_whole(), "{left:?}");
    assert!(std::fs::metadata(&file.0)?.len() < 64 << 20);
    // The remedies: something keeps the output, whether anybody wants it or not.
    for script in ["cat >file; true", "exec cat 3>&1 >file"] {
        for stdout in [Stdio::piped(), Stdio::null()] {
            let output = soon(to(script).stdout(stdout).output()).await?;
            assert!(output.status.success() && output.status.input_at_exit().is_whole());
            assert!(std::fs::read(&file.0)? == input);
        }
    }
    Ok(())
}

//! A client's session joined to one with an API server: what passes, what holds whom back, and
//! what each is told of the other's end.

#![cfg(unix)]

use std::{
    future::IntoFuture as _,
    sync::{Arc, Mutex},
    time::Duration,
};

use kubewire::{
    AnyWebSocket, Client, Error, Pod, Role,
    error::{CallerError, NetworkError},
    exec::{Child, Exec, Stdio, Streams, Subprotocol, TerminalSize},
    gateway::{Splice, Spliced, Tapped},
    limits,
    server::Process,
    testing::{ApiServer, Fault},
    wire::status::Status,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, duplex},
    task::JoinHandle,
};

type Result<T = (), E = Box<dyn std::error::Error>> = std::result::Result<T, E>;

const DEADLINE: Duration = Duration::from_secs(180);

/// What lies in the pipes of these tests.
const PIPE: usize = 64 << 10;

const ALL: Streams = Streams {
    stdin: true,
    stdout: true,
    stderr: true,
    tty: false,
};

/// Both ends of a session in memory.
fn session(protocol: Subprotocol, streams: Streams) -> (Child, Process) {
    let (near, far) = duplex(PIPE);
    let over = |io, role| AnyWebSocket::from_io(io, role, Default::default());
    let child = Child::over(over(near, Role::Client), protocol, streams).spawn();
    let process = Process::over(over(far, Role::Server), protocol, streams);
    (child, process)
}

async fn serve() -> Result<(ApiServer, Pod)> {
    let server = ApiServer::builder()
        .pod("default", "web-0", |pod| {
            pod.container("main", ["sleep", "infinity"])
        })
        .start()
        .await?;
    let pod = Client::new(&server.config())?.pod("default", "web-0");
    Ok((server, pod))
}

/// A client of a gateway that runs this.
async fn through(exec: Exec, streams: Streams) -> Result<(Child, JoinHandle<Spliced>)> {
    let (user, process) = session(Subprotocol::V5, streams);
    let child = exec.spawn().await?;
    Ok((user, tokio::spawn(process.splice(child).into_future())))
}

async fn within<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, work)
        .await
        .expect("it ends in time")
}

fn script(pod: &Pod, script: &str) -> Exec {
    pod.exec(["sh", "-c", script]).stdin(Stdio::piped())
}

#[tokio::test]
async fn streams_half_close_and_exit_code_go_through() -> Result {
    let (_server, pod) = serve().await?;
    let (mut user, splice) = through(script(&pod, "cat; echo end >&2; exit 3"), ALL).await?;
    let sent = vec![b'x'; 3 << 20];
    let mut stdin = user.stdin.take().ok_or("it is piped")?;
    let feed = async {
        stdin.write_all(&sent).await?;
        stdin.shutdown().await
    };
    let mut stdout = user.stdout.take().ok_or("it is piped")?;
    let mut echo = Vec::new();
    within(async { tokio::try_join!(feed, stdout.read_to_end(&mut echo)) }).await?;
    assert!(echo == sent);
    let output = within(user.wait_with_output()).await?;
    let (code, stderr) = (output.status.code(), &output.stderr[..]);
    assert_eq!((code, stderr), (Some(3), &b"end\n"[..]));
    let spliced = within(splice).await?;
    assert_eq!(spliced.status?.code_of_exit(), Some(3));
    assert!(spliced.client.is_ok());
    let bytes = (spliced.stdin, spliced.stdout, spliced.stderr);
    assert_eq!(bytes, (3 << 20, 3 << 20, 4));
    Ok(())
}

#[tokio::test]
async fn the_client_is_told_every_kind_of_end() -> Result {
    let (_server, pod) = serve().await?;
    for (command, code) in [("exit 0", 0), ("exit 7", 7), ("kill -9 $$", 137)] {
        let (user, splice) = through(script(&pod, command), ALL).await?;
        let output = within(user.wait_with_output()).await?;
        assert_eq!(output.status.code(), Some(code), "{command}");
        let status = within(splice).await?.status?;
        assert_eq!(status.code_of_exit(), Some(code.into()));
    }
    // What could not be started has no code.
    let (user, splice) = through(pod.exec(["/no/such/program"]), ALL).await?;
    let told = within(user.wait_with_output()).await.unwrap_err();
    let known = within(splice).await?.status.unwrap_err();
    assert!(known.status().is_some());
    assert_eq!(told.status(), known.status());
    Ok(())
}

#[tokio::test]
async fn a_connection_that_breaks_is_told_as_a_failure_after_what_arrived() -> Result {
    let (mut remote, pod_side) = {
        let (child, process) = session(Subprotocol::V5, ALL);
        (process, child)
    };
    let (user, process) = session(Subprotocol::V5, ALL);
    let splice = tokio::spawn(process.splice(pod_side).into_future());
    let mut stdout = remote.stdout.take().ok_or("it is piped")?;
    stdout.write_all(b"a part").await?;
    stdout.flush().await?;
    drop((remote, stdout));

    let mut user = user;
    let mut output = Vec::new();
    let mut reader = user.stdout.take().ok_or("it is piped")?;
    within(reader.read_to_end(&mut output)).await?;
    assert_eq!(output, b"a part");
    let told = within(user.wait()).await.unwrap_err();
    let status = told.status().ok_or("it is told by a Status")?;
    assert_eq!(
        (status.code, status.reason.as_str()),
        (500, "InternalError")
    );
    let spliced = within(splice).await?;
    assert!(matches!(
        spliced.status,
        Err(Error::Network(NetworkError::ClosedWithoutStatus { .. }))
    ));
    assert!(spliced.client.is_ok());
    Ok(())
}

#[tokio::test]
async fn a_connection_to_the_server_that_is_cut_is_no_success() -> Result {
    let (server, pod) = serve().await?;
    server.inject(Fault::CutAfter(64 << 10));
    let (user, splice) = through(script(&pod, "yes | head -c 1000000"), ALL).await?;
    let told = within(user.wait_with_output()).await.unwrap_err();
    assert_eq!(told.status().map(|status| status.code), Some(500), "{told}");
    assert!(within(splice).await?.status.unwrap_err().is_retryable());
    Ok(())
}

#[tokio::test]
async fn a_client_that_leaves_hangs_up_the_terminal_of_the_process() -> Result {
    let (_server, pod) = serve().await?;
    let directory = tempfile::tempdir()?;
    let mark = directory.path().join("hung up");
    let command = format!(
        "trap 'touch \"{}\"; exit' HUP; echo ready; while :; do sleep 0.1; done",
        mark.display()
    );
    let exec = script(&pod, &command).tty(TerminalSize::new(80, 24));
    let terminal = Streams {
        stderr: false,
        tty: true,
        ..ALL
    };
    let (mut user, splice) = through(exec, terminal).await?;
    let mut stdout = user.stdout.take().ok_or("it is piped")?;
    within(stdout.read_u8()).await?;
    drop((user, stdout));
    let spliced = within(splice).await?;
    assert!(matches!(
        spliced.status,
        Err(Error::Caller(CallerError::Killed))
    ));
    assert!(spliced.client.is_err());
    let hung_up = async {
        while !mark.exists() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    within(hung_up).await;
    Ok(())
}

#[tokio::test]
async fn the_terminal_has_the_size_of_the_client() -> Result {
    let (_server, pod) = serve().await?;
    let exec = script(
        &pod,
        "until test \"$(stty size)\" = '43 132'; do sleep 0.1; done",
    );
    let terminal = Streams {
        stderr: false,
        tty: true,
        ..ALL
    };
    let (mut user, splice) = through(exec.tty(TerminalSize::new(80, 24)), terminal).await?;
    user.resize(TerminalSize::new(132, 43))?;
    assert!(within(user.wait()).await?.success());
    assert!(within(splice).await?.status.is_ok());
    Ok(())
}

/// Writes until nothing more is taken, and says how much was.
async fn fill(to: &mut (impl AsyncWrite + Unpin)) -> Result<usize> {
    let mut written = 0;
    // The clock of these tests is paused: it goes on only when nothing else can.
    while let Ok(done) =
        tokio::time::timeout(Duration::from_millis(100), to.write(&[b'x'; 8 << 10])).await
    {
        written += done?;
    }
    Ok(written)
}

async fn empty(from: &mut (impl AsyncRead + Unpin), length: usize) -> Result {
    let mut all = vec![0; length];
    from.read_exact(&mut all).await?;
    Ok(())
}

/// What may lie between a writer and a reader that does not read: the buffers of two sessions and
/// their pipes, each of which may be passed by one write or read.
const BETWEEN: usize = 2 * (limits::STREAM_BUFFER + limits::SEND_BUFFER + PIPE) + (1 << 20);

#[tokio::test(start_paused = true)]
async fn who_does_not_read_holds_the_other_back() -> Result {
    let (mut user, process) = session(Subprotocol::V5, ALL);
    let (child, mut remote) = session(Subprotocol::V5, ALL);
    let splice = tokio::spawn(process.splice(child).into_future());

    let mut stdout = remote.stdout.take().ok_or("it is piped")?;
    let mut reader = user.stdout.take().ok_or("it is piped")?;
    let held = fill(&mut stdout).await?;
    assert!((PIPE..BETWEEN).contains(&held), "{held} of {BETWEEN}");
    empty(&mut reader, held).await?;

    let mut stdin = user.stdin.take().ok_or("it is piped")?;
    let mut reader = remote.stdin.take().ok_or("it is piped")?;
    let pushed = fill(&mut stdin).await?;
    assert!((PIPE..BETWEEN).contains(&pushed), "{pushed} of {BETWEEN}");
    empty(&mut reader, pushed).await?;

    let exit = remote.exit(Status::exit_code(5));
    let (status, told) = tokio::join!(user.wait(), exit);
    told?;
    assert_eq!(status?.code(), Some(5));
    let spliced = splice.await?;
    assert_eq!(
        (spliced.stdin, spliced.stdout),
        (pushed as u64, held as u64)
    );
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn input_that_cannot_be_ended_goes_on() -> Result {
    // The client can close its input, the server behind the gateway cannot.
    let (mut user, process) = session(Subprotocol::V5, ALL);
    let (child, mut remote) = session(Subprotocol::V4, ALL);
    let splice = tokio::spawn(process.splice(child).into_future());
    let mut stdin = user.stdin.take().ok_or("it is piped")?;
    stdin.write_all(b"all").await?;
    stdin.shutdown().await?;
    let mut reader = remote.stdin.take().ok_or("it is piped")?;
    empty(&mut reader, 3).await?;
    remote.exit(Status::success()).await?;
    assert!(user.wait().await?.success());
    assert!(splice.await?.status.is_ok());
    Ok(())
}

/// What has passed of stdin, stdout and stderr.
type Record = Arc<Mutex<[Vec<u8>; 3]>>;

/// A tap that keeps what passes, in the order of each stream.
fn recorder() -> (
    Record,
    impl FnMut(Tapped<'_>) -> std::io::Result<()> + Send + 'static,
) {
    let record = Record::default();
    let recorder = record.clone();
    let tap = move |passed: Tapped<'_>| {
        let mut record = recorder.lock().expect("nobody panics");
        let (stream, bytes) = match passed {
            Tapped::Stdin(bytes) => (0, bytes.clone()),
            Tapped::Stdout(bytes) => (1, bytes.clone()),
            Tapped::Stderr(bytes) => (2, bytes.clone()),
            _ => return Ok(()),
        };
        record[stream].extend_from_slice(&bytes);
        Ok(())
    };
    (record, tap)
}

async fn tapped(splice: Splice, user: Child) -> Result<(Spliced, kubewire::exec::Output)> {
    let (spliced, output) =
        within(async { tokio::join!(splice.into_future(), user.wait_with_output()) }).await;
    Ok((spliced, output?))
}

#[tokio::test]
async fn a_tap_sees_all_that_passes() -> Result {
    let (_server, pod) = serve().await?;
    let (mut user, process) = session(Subprotocol::V5, ALL);
    let child = script(&pod, "cat; cat /proc/self/comm >&2").spawn().await?;
    let mut stdin = user.stdin.take().ok_or("it is piped")?;
    stdin.write_all(b"one line\n").await?;
    drop(stdin);
    let (record, tap) = recorder();
    let (spliced, output) = tapped(process.splice(child).tap(tap), user).await?;
    assert!(spliced.status?.is_success());
    let record = record.lock().unwrap();
    assert_eq!(record[0], b"one line\n");
    assert_eq!(record[1], output.stdout);
    assert_eq!(record[2], output.stderr);
    Ok(())
}

#[tokio::test]
async fn what_cannot_be_recorded_does_not_go_on() -> Result {
    let (_server, pod) = serve().await?;
    let (user, process) = session(Subprotocol::V5, ALL);
    let child = script(&pod, "echo secret; sleep 600").spawn().await?;
    let full = |passed: Tapped<'_>| match passed {
        Tapped::Stdout(_) => Err(std::io::Error::other("the disk is full")),
        _ => Ok(()),
    };
    let splice = tokio::spawn(process.splice(child).tap(full).into_future());
    let told = within(user.wait_with_output()).await.unwrap_err();
    let status = told.status().ok_or("it is told by a Status")?;
    assert_eq!(
        (status.code, status.message.as_str()),
        (500, "a local stream failed: the disk is full")
    );
    assert!(within(splice).await?.status.is_err());
    Ok(())
}

#[tokio::test]
async fn an_attached_session_is_joined_too() -> Result {
    let server = ApiServer::builder()
        .pod("default", "web-0", |pod| {
            let command = ["sh", "-c", "read line; echo \"got $line\""];
            pod.container_with("main", command, |container| container.stdin())
        })
        .start()
        .await?;
    let pod = Client::new(&server.config())?.pod("default", "web-0");
    let attached = pod.attach().stdin(Stdio::piped()).spawn().await?;
    let (mut user, process) = session(Subprotocol::V5, ALL);
    let splice = tokio::spawn(process.splice(attached).into_future());
    let mut stdin = user.stdin.take().ok_or("it is piped")?;
    stdin.write_all(b"it\n").await?;
    let output = within(user.wait_with_output()).await?;
    assert_eq!(output.stdout, b"got it\n");
    assert!(within(splice).await?.status?.is_success());
    Ok(())
}

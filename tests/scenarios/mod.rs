//! What every server of exec and attach must be good for: in flows a [`Target`], out come panics
//! where a session does not keep its promises. The servers are a container runtime, a cluster,
//! and whatever else implements [`Target`].

#![allow(dead_code, reason = "every test crate uses its own part")]

use std::{future::Future, time::Duration};

use kubewire::{
    Error, KeepaliveConfig, Pod, Result,
    attach::{Attach, Attached},
    error::{CallerError, Hint, NetworkError},
    exec::{Child, ChildStdout, Exec, Stdio, Subprotocol, TerminalSize},
};
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};

/// What a session asks for.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) command: Vec<String>,
    pub(crate) stdin: bool,
    pub(crate) stdout: bool,
    pub(crate) stderr: bool,
    pub(crate) tty: Option<TerminalSize>,
    pub(crate) protocol: Subprotocol,
    pub(crate) buffer: Option<usize>,
    pub(crate) keepalive: KeepaliveConfig,
}

impl Request {
    /// Output of `command`, without stdin.
    pub(crate) fn new(protocol: Subprotocol, command: &[&str]) -> Self {
        Self {
            command: command.iter().map(|&word| word.to_owned()).collect(),
            stdin: false,
            stdout: true,
            stderr: true,
            tty: None,
            protocol,
            buffer: None,
            keepalive: KeepaliveConfig::default(),
        }
    }

    /// Output of a shell script.
    pub(crate) fn script(protocol: Subprotocol, script: &str) -> Self {
        Self::new(protocol, &["sh", "-c", script])
    }

    pub(crate) fn stdin(mut self) -> Self {
        self.stdin = true;
        self
    }

    pub(crate) fn tty(mut self, width: u16, height: u16) -> Self {
        self.tty = Some(TerminalSize::new(width, height));
        self.stderr = false;
        self
    }

    pub(crate) fn buffer(mut self, bytes: usize) -> Self {
        self.buffer = Some(bytes);
        self
    }
}

/// A server with a container in which `sh` and the usual tools are found.
pub(crate) trait Target: Sync {
    /// A process that was started to be attached to.
    type Process: Send;

    /// Runs the request's command.
    fn exec(&self, request: &Request) -> impl Future<Output = Result<Child>> + Send;

    /// Starts the request's command as a container of its own, which has its stdin and, if asked
    /// for, a terminal.
    fn start(&self, request: &Request) -> impl Future<Output = Self::Process> + Send;

    /// Attaches to it.
    fn attach(
        &self,
        process: &Self::Process,
        request: &Request,
    ) -> impl Future<Output = Result<Attached>> + Send;

    /// Ends it.
    fn stop(&self, process: Self::Process) -> impl Future<Output = ()> + Send;
}

const fn stdio(piped: bool) -> Stdio {
    match piped {
        true => Stdio::piped(),
        false => Stdio::null(),
    }
}

macro_rules! choose {
    ($builder:expr, $request:expr) => {{
        let mut builder = $builder
            .stdin(stdio($request.stdin))
            .stdout(stdio($request.stdout))
            .stderr(stdio($request.stderr))
            .subprotocols([$request.protocol])
            .keepalive($request.keepalive);
        if let Some(size) = $request.tty {
            builder = builder.tty(size);
        }
        if let Some(bytes) = $request.buffer {
            builder = builder.buffer(bytes);
        }
        builder
    }};
}

/// The builder of a request's exec.
pub(crate) fn exec(pod: &Pod, request: &Request) -> Exec {
    choose!(pod.exec(&request.command), request)
}

/// The builder of a request's attach.
pub(crate) fn attach_to(pod: &Pod, request: &Request) -> Attach {
    choose!(pod.attach(), request)
}

/// No scenario takes this long unless something hangs.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// Fails instead of hanging.
pub(crate) async fn within<T>(limit: Duration, what: impl Future<Output = T>) -> T {
    match tokio::time::timeout(limit, what).await {
        Ok(value) => value,
        Err(_) => panic!("it hangs"),
    }
}

pub(crate) fn hex(digest: impl AsRef<[u8]>) -> String {
    use std::fmt::Write as _;
    digest
        .as_ref()
        .iter()
        .fold(String::new(), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
}

/// Bytes without a pattern that a lost or repeated piece would not disturb.
pub(crate) struct Noise(u64);

impl Noise {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed | 1)
    }

    pub(crate) fn fill(&mut self, buffer: &mut [u8]) {
        for piece in buffer.chunks_mut(8) {
            // xorshift64*
            self.0 ^= self.0 >> 12;
            self.0 ^= self.0 << 25;
            self.0 ^= self.0 >> 27;
            let word = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d).to_le_bytes();
            piece.copy_from_slice(&word[..piece.len()]);
        }
    }
}

/// Both streams, and exit codes other than success and success itself.
pub(crate) async fn exit_code(target: &impl Target, protocol: Subprotocol) {
    let request = Request::script(protocol, "echo out; echo err >&2; exit 3");
    let child = target.exec(&request).await.expect("it starts");
    assert_eq!(child.protocol(), protocol);
    let output = within(PATIENCE, child.wait_with_output())
        .await
        .expect("it ends");
    assert_eq!(output.stdout, b"out\n");
    assert_eq!(output.stderr, b"err\n");
    assert_eq!(output.status.code(), Some(3));
    assert!(!output.status.success());

    let request = Request::new(protocol, &["echo", "fine"]);
    let child = target.exec(&request).await.expect("it starts");
    let output = within(PATIENCE, child.wait_with_output())
        .await
        .expect("it ends");
    assert_eq!(output.stdout, b"fine\n");
    assert_eq!(output.stderr, b"");
    assert!(output.status.success(), "{:?}", output.status);
    assert_eq!(output.status.code(), Some(0));
}

/// Input arrives whole and in order at a process that knows how much it wants.
pub(crate) async fn counted_stdin(target: &impl Target, protocol: Subprotocol) {
    let request = Request::new(protocol, &["head", "-c", "6"]).stdin();
    let mut child = target.exec(&request).await.expect("it starts");
    let mut stdin = child.stdin.take().expect("asked for");
    stdin.write_all(b"hel").await.expect("it reads");
    stdin.write_all(b"lo\n").await.expect("it reads");
    let output = within(PATIENCE, child.wait_with_output())
        .await
        .expect("it ends");
    assert_eq!(output.stdout, b"hello\n");
    assert!(output.status.success());
    let late = stdin.write_all(b"late").await.expect_err("it has ended");
    assert!(matches!(
        Error::of_io(&late),
        Some(Error::Caller(CallerError::Ended))
    ));
}

/// Shutting down stdin ends the input, or is a named error that costs nothing.
pub(crate) async fn half_close(target: &impl Target, protocol: Subprotocol) {
    if protocol.has_half_close() {
        let request = Request::script(protocol, "sha256sum; sleep 1; echo after").stdin();
        let mut child = target.exec(&request).await.expect("it starts");
        let mut stdin = child.stdin.take().expect("asked for");
        assert!(stdin.can_shutdown());
        stdin.write_all(b"all of it").await.expect("it reads");
        stdin.shutdown().await.expect("it can");
        let output = within(PATIENCE, child.wait_with_output())
            .await
            .expect("it ends");
        let sum = hex(Sha256::digest(b"all of it"));
        assert_eq!(
            String::from_utf8_lossy(&output.stdout),
            format!("{sum}  -\nafter\n")
        );
        return;
    }
    let request = Request::new(protocol, &["head", "-c", "12"]).stdin();
    let mut child = target.exec(&request).await.expect("it starts");
    let mut stdin = child.stdin.take().expect("asked for");
    assert!(!stdin.can_shutdown());
    stdin.write_all(b"before").await.expect("it reads");
    let refused = stdin.shutdown().await.expect_err("it cannot");
    assert_eq!(refused.kind(), std::io::ErrorKind::Unsupported);
    assert!(matches!(
        Error::of_io(&refused),
        Some(Error::Caller(CallerError::HalfClose { .. }))
    ));
    stdin.write_all(b" after").await.expect("it reads");
    drop(stdin);
    let output = within(PATIENCE, child.wait_with_output())
        .await
        .expect("it ends");
    assert_eq!(output.stdout, b"before after");
    assert!(output.status.success());
}

/// A signal shows as 128 plus its number.
pub(crate) async fn signal(target: &impl Target, protocol: Subprotocol) {
    let request = Request::script(protocol, "kill -9 $$");
    let mut child = target.exec(&request).await.expect("it starts");
    let status = within(PATIENCE, child.wait()).await.expect("it ends");
    assert_eq!(status.code(), Some(137));
}

/// A program that does not exist is a refusal that names it, not an exit code.
pub(crate) async fn no_such_program(target: &impl Target, protocol: Subprotocol) {
    let request = Request::new(protocol, &["/no/such/program"]);
    let error = match target.exec(&request).await {
        Err(error) => error,
        Ok(mut child) => within(PATIENCE, child.wait())
            .await
            .expect_err("there is none"),
    };
    let Error::Api(refusal) = &error else {
        panic!("{error:?}");
    };
    assert!(
        refusal.status.message.contains("/no/such/program"),
        "{error}"
    );
    assert!(
        matches!(&refusal.hint, Some(Hint::Program(name)) if name == "/no/such/program"),
        "{error:?}"
    );
}

/// The terminal has the size it was given, and the next one.
pub(crate) async fn terminal(target: &impl Target, protocol: Subprotocol) {
    let script = "wait_for() { while [ \"$(stty size 2>/dev/null)\" != \"$1\" ]; do sleep 0.05; done; echo \"$1\"; }\n\
                  wait_for '24 80'; wait_for '40 120'; read word; echo \"<$word>\"; exit 7";
    let request = Request::script(protocol, script).stdin().tty(80, 24);
    let mut child = target.exec(&request).await.expect("it starts");
    let mut lines = BufReader::new(child.stdout.take().expect("asked for")).lines();
    assert!(child.stderr.is_none(), "a terminal has one output");
    let mut next = async || {
        within(PATIENCE, lines.next_line())
            .await
            .expect("output")
            .expect("a line")
    };
    assert_eq!(next().await, "24 80");
    child
        .resize(TerminalSize::new(120, 40))
        .expect("it is a terminal");
    assert_eq!(next().await, "40 120");
    let mut stdin = child.stdin.take().expect("asked for");
    stdin.write_all(b"typed\n").await.expect("it reads");
    // The terminal's echo, then the program.
    assert_eq!(next().await, "typed");
    assert_eq!(next().await, "<typed>");
    let status = within(PATIENCE, child.wait()).await.expect("it ends");
    assert_eq!(status.code(), Some(7));
}

/// Sizes without a terminal are refused here: they hang the server.
pub(crate) async fn resize_without_terminal(target: &impl Target, protocol: Subprotocol) {
    let child = target
        .exec(&Request::new(protocol, &["true"]))
        .await
        .expect("it starts");
    for _ in 0..4 {
        assert!(matches!(
            child.resize(TerminalSize::new(80, 24)),
            Err(Error::Caller(CallerError::ResizeWithoutTty))
        ));
    }
    let output = within(PATIENCE, child.wait_with_output())
        .await
        .expect("it ends");
    assert!(output.status.success());
}

/// Attaching to a process that runs: input goes in, output comes back, no exit code.
pub(crate) async fn attach(target: &impl Target, protocol: Subprotocol) {
    let request = Request::script(protocol, "while read line; do echo \"<$line>\"; done").stdin();
    let process = target.start(&request).await;
    let mut attached = target
        .attach(&process, &request)
        .await
        .expect("it can be attached to");
    assert_eq!(attached.protocol(), protocol);
    let mut stdin = attached.stdin.take().expect("asked for");
    let mut lines = BufReader::new(attached.stdout.take().expect("asked for")).lines();
    for word in ["one", "two"] {
        stdin
            .write_all(format!("{word}\n").as_bytes())
            .await
            .expect("it reads");
        let line = within(PATIENCE, lines.next_line()).await.expect("output");
        assert_eq!(line, Some(format!("<{word}>")));
    }
    attached.stderr = None;
    let (ended, ()) = tokio::join!(within(PATIENCE, attached.wait()), target.stop(process));
    if let Err(error) = ended {
        // Servers differ in whether they get to say so before the container is gone.
        assert!(
            matches!(
                error,
                Error::Api(_) | Error::Network(NetworkError::ClosedWithoutStatus { .. })
            ),
            "{error:?}"
        );
    }
}

/// Attaching to a terminal.
pub(crate) async fn attach_terminal(target: &impl Target, protocol: Subprotocol) {
    let script = "while read line; do echo \"<$line> $(stty size)\"; done";
    let request = Request::script(protocol, script).stdin().tty(90, 30);
    let process = target.start(&request).await;
    let mut attached = target
        .attach(&process, &request)
        .await
        .expect("it can be attached to");
    let mut stdin = attached.stdin.take().expect("asked for");
    let mut lines = BufReader::new(attached.stdout.take().expect("asked for")).lines();
    let size = async |stdin: &mut kubewire::exec::ChildStdin,
                      lines: &mut tokio::io::Lines<_>,
                      wanted: &str| {
        within(PATIENCE, async {
            loop {
                stdin.write_all(b"x\n").await.expect("it reads");
                while let Some(line) = lines.next_line().await.expect("output") {
                    if line.starts_with('<') {
                        if line == format!("<x> {wanted}") {
                            return;
                        }
                        break;
                    }
                }
            }
        })
        .await;
    };
    size(&mut stdin, &mut lines, "30 90").await;
    attached
        .resize(TerminalSize::new(100, 50))
        .expect("it is a terminal");
    size(&mut stdin, &mut lines, "50 100").await;
    drop(attached);
    target.stop(process).await;
}

/// Reads to the end: what it is, and how many bytes.
async fn take_all(stdout: &mut ChildStdout, sum: &mut Sha256, seen: &mut u64) {
    let mut buffer = vec![0; 64 << 10];
    let all = async {
        loop {
            match stdout.read(&mut buffer).await.expect("output") {
                0 => return,
                read => {
                    sum.update(&buffer[..read]);
                    *seen += read as u64;
                }
            }
        }
    };
    within(PATIENCE, all).await;
}

/// Output of `bytes` arrives whole: the other end says what its checksum is.
pub(crate) async fn bulk_output(target: &impl Target, protocol: Subprotocol, bytes: u64) {
    let script =
        format!("f=$(mktemp); head -c {bytes} /dev/urandom >$f; cat $f; sha256sum <$f >&2; rm $f");
    let request = Request::script(protocol, &script);
    let mut child = target.exec(&request).await.expect("it starts");
    let mut stdout = child.stdout.take().expect("asked for");
    let (mut sum, mut seen) = (Sha256::new(), 0);
    take_all(&mut stdout, &mut sum, &mut seen).await;
    let output = within(PATIENCE, child.wait_with_output())
        .await
        .expect("it ends");
    assert!(output.status.success());
    assert_eq!(seen, bytes);
    let theirs = String::from_utf8_lossy(&output.stderr);
    assert_eq!(theirs.trim(), format!("{}  -", hex(sum.finalize())));
}

/// Input of `bytes` arrives whole, and where it can, ends by being closed.
pub(crate) async fn bulk_input(target: &impl Target, protocol: Subprotocol, bytes: usize) {
    let script = match protocol.has_half_close() {
        true => "sha256sum".to_owned(),
        false => format!("head -c {bytes} | sha256sum"),
    };
    let request = Request::script(protocol, &script).stdin();
    let mut child = target.exec(&request).await.expect("it starts");
    let mut stdin = child.stdin.take().expect("asked for");
    let mut data = vec![0; bytes];
    Noise::new(bytes as u64).fill(&mut data);
    within(PATIENCE, stdin.write_all(&data))
        .await
        .expect("it reads");
    drop(stdin);
    let output = within(PATIENCE, child.wait_with_output())
        .await
        .expect("it ends");
    assert!(output.status.success());
    let theirs = String::from_utf8_lossy(&output.stdout);
    assert_eq!(theirs.trim(), format!("{}  -", hex(Sha256::digest(&data))));
}

/// `bytes` through `cat`, both directions at once.
pub(crate) async fn both_ways(target: &impl Target, protocol: Subprotocol, bytes: u64) {
    let script = match protocol.has_half_close() {
        true => "cat".to_owned(),
        false => format!("head -c {bytes}"),
    };
    let request = Request::script(protocol, &script).stdin();
    let mut child = target.exec(&request).await.expect("it starts");
    let mut stdin = child.stdin.take().expect("asked for");
    let mut stdout = child.stdout.take().expect("asked for");
    let send = async move {
        let (mut noise, mut sum) = (Noise::new(bytes), Sha256::new());
        let (mut buffer, mut left) = (vec![0; 64 << 10], bytes);
        while left > 0 {
            let part = left.min(buffer.len() as u64) as usize;
            noise.fill(&mut buffer[..part]);
            sum.update(&buffer[..part]);
            stdin.write_all(&buffer[..part]).await.expect("it reads");
            left -= part as u64;
        }
        drop(stdin);
        sum.finalize()
    };
    let receive = async move {
        let (mut sum, mut seen) = (Sha256::new(), 0u64);
        let mut buffer = vec![0; 64 << 10];
        loop {
            match stdout.read(&mut buffer).await.expect("output") {
                0 => return (sum.finalize(), seen),
                read => {
                    sum.update(&buffer[..read]);
                    seen += read as u64;
                }
            }
        }
    };
    // Tasks of their own, as callers have them: the handles must not starve each other.
    let (send, receive) = (tokio::spawn(send), tokio::spawn(receive));
    let limit = PATIENCE + Duration::from_secs(bytes >> 20);
    let (sent, received) = within(limit, async { tokio::join!(send, receive) }).await;
    let (sent, (received, seen)) = (sent.expect("sent"), received.expect("received"));
    assert_eq!(seen, bytes);
    assert_eq!(hex(sent), hex(received));
    let status = within(PATIENCE, child.wait()).await.expect("it ends");
    assert!(status.success());
}

/// Error output that nobody reads stops nothing before its bound, and then it says so.
pub(crate) async fn unread_stderr(target: &impl Target, protocol: Subprotocol) {
    let script = "head -c 300000 /dev/zero >&2; echo done; exit 4";
    let mut child = target
        .exec(&Request::script(protocol, script))
        .await
        .expect("it starts");
    let mut text = String::new();
    let mut stdout = child.stdout.take().expect("asked for");
    within(PATIENCE, stdout.read_to_string(&mut text))
        .await
        .expect("output");
    assert_eq!(text, "done\n");
    let status = within(PATIENCE, child.wait()).await.expect("it ends");
    assert_eq!(status.code(), Some(4));

    let script = "head -c 8000000 /dev/zero >&2; echo done; exit 5";
    let mut child = target
        .exec(&Request::script(protocol, script).buffer(64 << 10))
        .await
        .expect("it starts");
    let error = within(PATIENCE, child.wait()).await.expect_err("it waits");
    assert!(
        matches!(
            error,
            Error::Caller(CallerError::Unread {
                stream: "stderr",
                bytes: 65_536
            })
        ),
        "{error:?}"
    );
    assert_eq!(child.held_back_by(), Some("stderr"));
    child.stderr = None;
    let output = within(PATIENCE, child.wait_with_output())
        .await
        .expect("it ends");
    assert_eq!(output.stdout, b"done\n");
    assert_eq!(output.status.code(), Some(5));
}

/// A reader that sleeps holds the server back and loses nothing.
pub(crate) async fn sleepy_reader(target: &impl Target, protocol: Subprotocol, nap: Duration) {
    const BYTES: u64 = 32 << 20;
    let script =
        format!("f=$(mktemp); head -c {BYTES} /dev/urandom >$f; sha256sum <$f >&2; cat $f; rm $f");
    let mut request = Request::script(protocol, &script);
    // No deadline runs while the server is held back.
    request.keepalive.interval = nap / 8;
    request.keepalive.silence = nap / 2;
    let mut child = target.exec(&request).await.expect("it starts");
    let mut theirs = BufReader::new(child.stderr.take().expect("asked for")).lines();
    let theirs = within(PATIENCE, theirs.next_line())
        .await
        .expect("output")
        .expect("a line");
    let mut stdout = child.stdout.take().expect("asked for");
    let mut first = vec![0; 1000];
    stdout.read_exact(&mut first).await.expect("output");
    tokio::time::sleep(nap).await;
    let (mut sum, mut seen) = (Sha256::new(), 1000);
    sum.update(&first);
    take_all(&mut stdout, &mut sum, &mut seen).await;
    assert_eq!(seen, BYTES);
    assert_eq!(theirs, format!("{}  -", hex(sum.finalize())));
    let status = within(PATIENCE, child.wait()).await.expect("it ends");
    assert!(status.success());
}

/// The server answers pings while its process says nothing: with these times a session without
/// answers would be dead long before the end.
pub(crate) async fn quiet_process(target: &impl Target, protocol: Subprotocol) {
    let mut request = Request::script(protocol, "sleep 6; echo woke");
    request.keepalive.interval = Duration::from_millis(500);
    request.keepalive.silence = Duration::from_millis(2500);
    let child = target.exec(&request).await.expect("it starts");
    let output = within(PATIENCE, child.wait_with_output())
        .await
        .expect("it lives");
    assert_eq!(output.stdout, b"woke\n");
    assert!(output.status.success());
}

/// A process that does not read its input makes the server deaf, for pings too: that is no reason
/// to take it for dead, and nothing is lost.
pub(crate) async fn blocked_stdin(target: &impl Target, protocol: Subprotocol) {
    const BYTES: usize = 4 << 20;
    let script = format!("sleep 6; head -c {BYTES} | sha256sum");
    let mut request = Request::script(protocol, &script).stdin();
    request.keepalive.interval = Duration::from_millis(500);
    request.keepalive.silence = Duration::from_millis(2500);
    let mut child = target.exec(&request).await.expect("it starts");
    let mut stdin = child.stdin.take().expect("asked for");
    let mut data = vec![0; BYTES];
    Noise::new(BYTES as u64).fill(&mut data);
    let sum = hex(Sha256::digest(&data));
    let write = tokio::spawn(async move {
        stdin.write_all(&data).await.expect("it reads");
        stdin
    });
    let output = within(PATIENCE, child.wait_with_output())
        .await
        .expect("it lives");
    within(PATIENCE, write).await.expect("all was read");
    let theirs = String::from_utf8_lossy(&output.stdout);
    assert_eq!(theirs.trim(), format!("{sum}  -"));
    assert!(output.status.success());
}

/// A child whose process never ends is let go of by dropping it, and its streams say so.
pub(crate) async fn dropped(target: &impl Target, protocol: Subprotocol) {
    let request = Request::script(protocol, "echo up; sleep 20");
    let mut child = target.exec(&request).await.expect("it starts");
    let mut stdout = child.stdout.take().expect("asked for");
    let mut line = [0; 3];
    within(PATIENCE, stdout.read_exact(&mut line))
        .await
        .expect("output");
    drop(child);
    let error = within(Duration::from_secs(5), stdout.read(&mut line))
        .await
        .expect_err("it was killed");
    assert!(matches!(
        Error::of_io(&error),
        Some(Error::Caller(CallerError::Killed))
    ));
}

/// Runs a command that writes for ever, calls `fault` in its middle, and checks that the end is
/// no success. Gives the error, or the status that the server still sent.
pub(crate) async fn cut<T: Target>(
    target: &T,
    protocol: Subprotocol,
    fault: impl Future<Output = ()>,
) -> Result<i32> {
    let request = Request::script(protocol, "exec yes 0123456789");
    let mut child = target.exec(&request).await.expect("it starts");
    let mut stdout = child.stdout.take().expect("asked for");
    let mut buffer = vec![0; 64 << 10];
    for _ in 0..100 {
        within(PATIENCE, stdout.read(&mut buffer))
            .await
            .expect("output");
    }
    let read = tokio::spawn(async move {
        let mut end = 0;
        loop {
            match stdout.read(&mut buffer).await {
                Ok(0) => return (Ok(()), end),
                Ok(read) => end = read,
                Err(error) => return (Err(error), end),
            }
        }
    });
    fault.await;
    let status = within(PATIENCE, child.wait()).await;
    let (_, _) = within(PATIENCE, read).await.expect("the reader ends");
    match status {
        Ok(status) => {
            assert!(!status.success(), "a cut is no success: {status:?}");
            Ok(status.code().unwrap_or_default())
        }
        Err(error) => Err(error),
    }
}

//! What this side does wrong: one variant for each mistake.

use std::{borrow::Cow, io, sync::Arc, time::Duration};

use super::Printable;

/// What is wrong on this side.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// use kubewire::{Config, Error, error::CallerError};
///
/// let error = Config::new("ftp://kubernetes.default").unwrap_err();
/// assert!(matches!(error, Error::Caller(CallerError::Config { .. })), "{error:?}");
/// # }
/// ```
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum CallerError {
    /// A configuration that cannot be used: which file or variable, and why.
    #[error("{}: {}", Printable(.origin), Printable(.problem))]
    Config {
        /// The file, the environment variable or the field.
        origin: String,
        /// What is wrong with it, and what would be right.
        problem: String,
    },
    /// The server speaks a subprotocol that cannot end stdin alone, so that the remote command
    /// would wait for input for ever.
    #[error("stdin cannot be closed by itself over {protocol}: the server lacks v5.channel.k8s.io")]
    HalfClose {
        /// The subprotocol in use.
        protocol: &'static str,
    },
    /// A terminal size for a session without a terminal. Servers read it and never deliver it:
    /// after a few the whole session hangs.
    #[error("resize needs a session with a TTY")]
    ResizeWithoutTty,
    /// A write after the remote command, or the session, has ended.
    #[error("the session has ended")]
    Ended,
    /// The session's owner was dropped or killed it; what had arrived was still delivered.
    #[error("the session was killed on this side")]
    Killed,
    /// A stream that nobody reads is full, so that nothing else can arrive.
    #[error(
        "{bytes} bytes of {stream} wait to be read and hold everything else back: read it, drop \
         it, or allow it a larger buffer"
    )]
    Unread {
        /// The stream.
        stream: &'static str,
        /// The bound that it reached, in bytes.
        bytes: usize,
    },
    /// More output than the caller allows to be collected.
    #[error("more than {limit} bytes of output")]
    TooMuchOutput {
        /// The bound, in bytes.
        limit: usize,
    },
    /// A remote command did not end in the time that it was given.
    #[error(
        "{operation}: no end within {after:?}, with {} bytes of output so far",
        .output.stdout.len() + .output.stderr.len()
    )]
    TimedOut {
        /// What was asked.
        operation: String,
        /// The time that it had.
        after: Duration,
        /// What had been collected by then.
        output: Arc<PartialOutput>,
    },
    /// A container did not start in the time that it was given.
    #[error("the container {container} has not started within {after:?}: {}", Printable(.reason))]
    NotStarted {
        /// Its name.
        container: String,
        /// The time that it had.
        after: Duration,
        /// What it waits for, as the kubelet says.
        reason: String,
    },
    /// A container that will not start: its pod is over, or it has nothing that can be executed.
    #[error("the container {container} cannot start: {}", Printable(.reason))]
    CannotStart {
        /// Its name.
        container: String,
        /// Why, in the words of the pod or of the container runtime.
        reason: String,
    },
    /// An input that can be read once was to be read again.
    #[error("the input is a reader, which an earlier process has taken")]
    InputTaken,
    /// An input stands where output should go.
    #[error("an input cannot take a process's output")]
    InputForOutput,
    /// No local address to listen on.
    #[error("cannot listen: {0}")]
    Listen(#[source] Arc<io::Error>),
    /// None of the pods that a service or a workload selects is running.
    #[error("no pod of {target} in namespace {namespace} is running")]
    NoPod {
        /// What selects them, such as `service/web`.
        target: String,
        /// Its namespace.
        namespace: String,
    },
    /// The server refuses our client certificate, or has no use for it.
    #[error("the server refuses the client certificate ({certificate}): {problem}")]
    ClientCertificate {
        /// Which one it is, and until when it is valid.
        certificate: String,
        /// What the server said.
        problem: String,
        /// What TLS said.
        source: Arc<io::Error>,
    },
    /// A path that is none, or would lead elsewhere.
    #[error("the path {path:?} {problem}")]
    Path {
        /// The path.
        path: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A name that cannot be one, such as `..`, or that does not fit where it stands.
    #[error("{name:?} is not {what}")]
    Name {
        /// What should have been named, with its article: `a namespace`.
        what: Cow<'static, str>,
        /// What was given instead.
        name: String,
    },
    /// A value that no HTTP header can carry.
    #[error("{value:?} fits no HTTP header")]
    Header {
        /// The value.
        value: String,
    },
    /// An object that is no JSON.
    #[error("{operation}: {source}")]
    Json {
        /// What was asked.
        operation: String,
        /// What serde_json said.
        source: Arc<serde_json::Error>,
    },
    /// A future of this library that was polled outside of a tokio runtime.
    #[error(
        "there is no tokio runtime here: call it in `#[tokio::main]`, or by `Runtime::block_on`"
    )]
    NoRuntime,
    /// An exec without a command.
    #[error("exec needs a command")]
    NoCommand,
    /// No subprotocol is offered, or none that can do this.
    #[error("no subprotocol is offered that can be used for this")]
    NoSubprotocol,
    /// The server has no resource of this name.
    #[error("the server has no resource {name:?}")]
    NoResource {
        /// The name, as it was given.
        name: String,
    },
    /// The pod has no container of this name.
    #[error("{pod} has no container {name:?}; it has {}", Printable(.containers.join(", ")))]
    NoContainer {
        /// The pod.
        pod: String,
        /// The name that was given.
        name: String,
        /// The names of those that it has.
        containers: Vec<String>,
    },
    /// The pod, or the service before it, has no such port.
    #[error("{object} has no TCP port {}", Printable(.port))]
    NoPort {
        /// What was looked at.
        object: String,
        /// The port as it was asked for.
        port: String,
    },
    /// A service or a workload without a selector: its pods are unknown.
    #[error("{target} has no selector, so that its pods are unknown")]
    NoSelector {
        /// The object, such as `service/web`.
        target: String,
    },
    /// Connections can be forwarded to a pod, a service or a workload, and to nothing else.
    #[error(
        "{target}: nothing can be forwarded to a {kind}, only to a pod, a service, a deployment, \
         a statefulset, a daemonset, a replicaset, a job or a replicationcontroller"
    )]
    NoForward {
        /// The target as it was given.
        target: String,
        /// Its kind.
        kind: String,
    },
    /// A mirror is asked for objects by a label that it was not started with.
    #[error("the mirror has no index of the label {label:?}: start it with `index_by_label`")]
    NoIndex {
        /// The label.
        label: String,
    },
    /// No object can be made of metadata alone.
    #[error(
        "a type of {resource} that has only metadata cannot be written: all else would be lost"
    )]
    MetadataOnly {
        /// The resource.
        resource: String,
    },
    /// More ports than one WebSocket can have, or none.
    #[error("{count} ports on one WebSocket")]
    Ports {
        /// How many were asked for.
        count: usize,
    },
    /// A file of this machine cannot be read or written.
    #[error("{}: {source}", Printable(.path))]
    File {
        /// Its path.
        path: String,
        /// What the operating system said.
        source: Arc<io::Error>,
    },
    /// A container has neither `tar` nor a shell with `cat` to copy with.
    #[error(
        "{pod}: the container has neither tar nor a shell with cat to copy with; give the pod an \
         ephemeral container that has: kubectl debug {name}{} --image=busybox -- sleep 1d; \
         there the files are below /proc/1/root",
        Printable(.target)
    )]
    NothingToCopyWith {
        /// The pod.
        pod: String,
        /// Its name alone.
        name: String,
        /// The flags of `kubectl debug` that say where, with a space before each.
        target: String,
    },
    /// Code of the caller's panicked in a task of this library's: a dialler, a reader, a type that
    /// is decoded. Or that task itself did, which is a bug.
    #[error("{who} panicked: {message}")]
    Panicked {
        /// Where it ran.
        who: String,
        /// What it said.
        message: String,
    },
    /// A stream given by the caller failed.
    #[error("a local stream failed: {}", Printable(.0))]
    Stream(#[source] Arc<io::Error>),
}

#[cfg(feature = "client")]
impl CallerError {
    /// That a name is not what stands there.
    pub(crate) fn misnamed(name: &str, what: impl Into<Cow<'static, str>>) -> Self {
        let (what, name) = (what.into(), name.to_owned());
        Self::Name { what, name }
    }
}

/// For conversions that cannot fail where others can.
impl From<std::convert::Infallible> for CallerError {
    fn from(never: std::convert::Infallible) -> Self {
        match never {}
    }
}

/// What a process had written when its time was over.
///
/// ```
/// # kubewire::example(|pod| pod.container("main", ["sh", "-c", "echo ready; sleep 600"]), async |client| {
/// use kubewire::{Error, error::CallerError};
///
/// let slow = client.pod("default", "web-0").exec(["sh", "-c", "echo begun; sleep 600"]);
/// match slow.timeout(std::time::Duration::from_secs(2)).output().await {
///     Err(Error::Caller(CallerError::TimedOut { output, .. })) => {
///         println!("so far: {}", String::from_utf8_lossy(&output.stdout));
///     }
///     other => println!("{other:?}"),
/// }
/// # Ok(())
/// # });
/// ```
#[derive(Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PartialOutput {
    /// What it wrote to stdout, as far as it was collected.
    pub stdout: Vec<u8>,
    /// What it wrote to stderr, as far as it was collected.
    pub stderr: Vec<u8>,
}

/// Without the bytes, of which there may be many.
impl std::fmt::Debug for PartialOutput {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PartialOutput")
            .field("stdout", &self.stdout.len())
            .field("stderr", &self.stderr.len())
            .finish()
    }
}

//! A log that is read to its real end: lines once each, whatever happens to connections.
//!
//! In flow the heads, bodies and ends of responses, and the time; out come requests to make and
//! [`LogUpdate`]s. A log is asked for with stamps, whether or not the user wants them: they say
//! which lines were delivered before a cut, and which text is not the container's but the
//! kubelet's. An end of the response says nothing by itself, since a cut, a kubelet that died and
//! a container that exited look alike; the pod is asked what has happened.
//!
//! ```text
//!           not started: wait
//!              +------+
//!              v      |       running: follow              end or cut
//!   start --> Pod ----+-----------------------> Follow ------------------+
//!              ^ | ended, or another instance runs: the rest of this     |
//!              | +------------------------> Drain -------> ended, or     |
//!              |                              |            go on with    |
//!              +------------------------------+---------- the next <-----+
//!
//!   start, or Pod if nobody may read it --> LogOnly --> the end of the log is the end
//! ```
//!
//! [`Logs`] is driven as [`Exchange`](crate::session::Exchange) says. After [`LogUpdate::Ended`]
//! there is nothing more to do.

use std::{fmt, time::Duration};

use bytes::Bytes;

use crate::{
    error::Error,
    limits,
    wire::{line::LineEnd, stamp::Stamp},
};

mod answers;
mod lines;
mod machine;
mod replay;

pub use self::machine::Logs;
pub use crate::wire::pod::Exit;

/// Which of a container's output streams to read.
///
/// ```no_run
/// # fn errors(pod: kubewire::Pod) -> kubewire::logs::LogLines {
/// use kubewire::logs::LogStream;
///
/// pod.logs().only(LogStream::Stderr).stream()
/// # }
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum LogStream {
    /// Both, as they were written.
    #[default]
    All,
    /// Standard output; only servers with the gate `PodLogsQuerySplitStreams`, and not together
    /// with a number of last lines.
    Stdout,
    /// Standard error, likewise.
    Stderr,
}

/// Which log to read, and how.
///
/// ```
/// use kubewire::session::{Exchange as _, logs::{LogConfig, LogRequest, Logs}};
/// use std::time::Instant;
///
/// let config = LogConfig { tail_lines: Some(10), ..LogConfig::default() };
/// let now = Instant::now();
/// let mut logs = Logs::new(config, now, 7);
/// let Some(LogRequest::Log(query)) = logs.poll_request(now) else {
///     panic!("it asks for the log");
/// };
/// assert!(query.contains(&("tailLines", "10".to_owned())));
/// ```
#[derive(Debug, Clone)]
pub struct LogConfig {
    /// What is read, for errors: `pod default/web-0`.
    pub what: String,
    /// The container. `None`: the pod's default.
    pub container: Option<String>,
    /// Go on until the container ends.
    pub follow: bool,
    /// When the container ends and is started again, go on with the next instance.
    pub across_restarts: bool,
    /// Read the log of the instance before the current one.
    pub previous: bool,
    /// Only lines of the last so many seconds, at least 1.
    pub since_seconds: Option<u64>,
    /// Only lines from this instant on.
    pub since_time: Option<Stamp>,
    /// Only so many last lines.
    pub tail_lines: Option<u64>,
    /// At most so many bytes, at least 1.
    pub limit_bytes: Option<u64>,
    /// Whether the API server may take the kubelet's certificate for granted.
    pub insecure_skip_tls_verify_backend: bool,
    /// Which output to read.
    pub stream: LogStream,
    /// Whether to ask for stamps, and go on where a cut connection broke off. Without, each line
    /// is what the server sent, and a lost connection is the end.
    pub resume: bool,
    /// Bytes of the longest line that comes in one piece; 64 if it is less, for a stamp and something
    /// more.
    pub max_line: usize,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self {
            what: String::new(),
            container: None,
            follow: false,
            across_restarts: false,
            previous: false,
            since_seconds: None,
            since_time: None,
            tail_lines: None,
            limit_bytes: None,
            insecure_skip_tls_verify_backend: false,
            stream: LogStream::All,
            resume: true,
            max_line: limits::LOG_LINE,
        }
    }
}

/// The subprotocols of a log over a WebSocket, in order of preference. They have no channel byte.
pub const SUBPROTOCOLS: [&str; 2] = ["binary.k8s.io", "base64.binary.k8s.io"];

/// A GET request on the pod: see [`LogConfig`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum LogRequest {
    /// The subresource `log`, with this query, not yet percent-encoded. It can be asked for over a
    /// WebSocket instead, with one of [`SUBPROTOCOLS`].
    Log(Vec<(&'static str, String)>),
    /// The pod itself, as JSON.
    Pod,
}

/// One line of a log, or a piece of a very long one.
///
/// ```
/// # kubewire::example(|pod| pod.container("main", ["sh", "-c", "echo ready; sleep 9"]), async |client| {
/// let mut lines = client.pod("default", "web-0").logs().follow().stream();
/// let line = lines.next().await.ok_or("no line")??;
/// assert_eq!((&line.bytes[..], line.to_string()), (&b"ready"[..], "ready".to_owned()));
/// assert!(line.stamp.is_some()); // when the runtime read it
/// # Ok(())
/// # });
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    /// When the container runtime read the line, by the node's clock; `None` if stamps were not
    /// asked for. Pieces of a line have its stamp.
    pub stamp: Option<Stamp>,
    /// The line, without stamp and newline.
    pub bytes: Bytes,
    /// How the line ended.
    pub end: LineEnd,
}

/// The line as text; what is not UTF-8 is replaced.
impl fmt::Display for LogLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        String::from_utf8_lossy(&self.bytes).fmt(f)
    }
}

/// What a log says.
///
/// ```
/// # kubewire::example(|pod| pod.container("main", ["sh", "-c", "echo ready; sleep 600"]), async |client| {
/// use kubewire::logs::{LogEnd, LogUpdate};
///
/// let mut lines = client.pod("default", "web-0").logs().stream();
/// while let Some(update) = lines.next_update().await {
///     match update {
///         LogUpdate::Line(line) => println!("{line}"),
///         LogUpdate::Restarted { restarts, .. } => println!("-- started again, {restarts} times now"),
///         LogUpdate::Retrying { error, .. } => println!("-- {error}"),
///         LogUpdate::Ended(end) => assert!(matches!(end, LogEnd::Complete)),
///         _ => {}
///     }
/// }
/// # Ok(())
/// # });
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum LogUpdate {
    /// A line.
    Line(LogLine),
    /// Text that the kubelet put in place of the log, without a stamp: why it cannot read on. A
    /// line without control characters; of one answer no more than 4 KiB.
    Notice(String),
    /// Lines may be missing here. After a cut the line that was delivered last has not come again:
    /// the kubelet has rotated the log meanwhile, and reads the newest file alone
    /// (`k8s.io/kubernetes/pkg/kubelet/kuberuntime/logs/logs.go`).
    ///
    /// No request for a log names an instance of the container, so that the lines of the next look
    /// as if some were missing before them. The pod is asked again which instance runs before a gap
    /// is told, 2 s later. Only where it says so later still, or may not be read, a gap is told though
    /// nothing is missing; [`Restarted`](Self::Restarted), if it comes, follows the lines. An
    /// instance of which nothing could be read is such a gap, too.
    Gap {
        /// The stamp of the line before the gap.
        after: Stamp,
    },
    /// The container has not started.
    Waiting {
        /// Why not, such as `ContainerCreating` or `ImagePullBackOff`.
        reason: String,
        /// The same at length.
        message: String,
    },
    /// What follows is from another instance of the container.
    Restarted {
        /// How often it was started again.
        restarts: u32,
        /// How the instance before ended, where that is known.
        exit: Option<Exit>,
    },
    /// Something went wrong, and the log is asked for again after a delay.
    Retrying {
        /// What went wrong.
        error: Error,
        /// The delay.
        retry_in: Duration,
    },
    /// The last update.
    Ended(LogEnd),
}

/// Why a log ended, as the last [`LogUpdate`] says.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum LogEnd {
    /// All that there was has been read; it was not to be followed. Also where the user may not
    /// read the pod: then an end of the log is all that there is to know.
    Complete,
    /// The bound on bytes was reached.
    Limit,
    /// The container ended.
    Exited(Exit),
    /// The pod no longer exists.
    PodGone,
    /// Another pod has taken the pod's name.
    PodReplaced,
    /// The log cannot be read.
    Failed(Error),
}

#[cfg(test)]
mod tests;

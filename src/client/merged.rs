//! The logs of many pods as one stream: in flows which pods, out come their lines as they come,
//! each with its source.

use std::sync::Arc;

use super::{
    Client, Since,
    pods::{Pods, chosen_pods},
};
use crate::{
    Resource,
    session::logs::{LogConfig, LogLine, LogUpdate},
};

mod lines;
mod ready;

pub use self::lines::MergedLines;

/// Where a line comes from.
///
/// ```
/// use kubewire::logs::LogSource;
///
/// let source = LogSource {
///     namespace: "default".into(),
///     pod: "web-0".into(),
///     container: "main".into(),
/// };
/// assert_eq!(source.to_string(), "default/web-0/main");
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct LogSource {
    /// The pod's namespace.
    pub namespace: String,
    /// The pod's name.
    pub pod: String,
    /// The container's name.
    pub container: String,
}

/// `namespace/pod/container`.
impl std::fmt::Display for LogSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}/{}", self.namespace, self.pod, self.container)
    }
}

/// A line and where it comes from; [`MergedLines`] has an example.
#[derive(Debug, Clone)]
pub struct SourcedLine {
    /// Where it comes from. Lines of one source share it.
    pub source: Arc<LogSource>,
    /// The line.
    pub line: LogLine,
}

/// `namespace/pod/container: ` and the line as text.
impl std::fmt::Display for SourcedLine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.source, self.line)
    }
}

/// An update and where it comes from.
///
/// ```no_run
/// # fn show(update: kubewire::logs::SourcedUpdate) {
/// use kubewire::logs::LogUpdate;
///
/// match (update.source, update.update) {
///     (Some(source), LogUpdate::Ended(end)) => println!("{source}: {end:?}"),
///     (None, LogUpdate::Retrying { error, .. }) => println!("the list of pods: {error}"),
///     _ => {}
/// }
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct SourcedUpdate {
    /// Where it comes from; `None` if it is about the list of pods. Updates of one source share
    /// it.
    pub source: Option<Arc<LogSource>>,
    /// The update. Of the list of pods it is told that it is asked for again, and why it has
    /// failed.
    pub update: LogUpdate,
}

/// The logs of many pods, to be read: which, and how much of them. Of a container that is named, pods
/// that have none of it are left out.
///
/// ```no_run
/// # async fn run(client: kubewire::Client) -> kubewire::Result<()> {
/// let mut lines = client.logs("default").labels("app=web").all_containers().follow().stream();
/// while let Some(line) = lines.next().await {
///     println!("{}", line?);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
#[must_use = "logs are not read until their stream is started"]
pub struct MergedLogs {
    pods: Pods,
    all_namespaces: bool,
    all_containers: bool,
    until_all_end: bool,
    config: LogConfig,
}

impl MergedLogs {
    pub(super) fn new(client: Client, namespace: String) -> Self {
        Self {
            pods: Pods::new(client, namespace),
            all_namespaces: false,
            all_containers: false,
            until_all_end: false,
            config: LogConfig::default(),
        }
    }

    chosen_pods!();

    setters! {
        /// The pods of all namespaces; pods cannot be [named](Self::pods) then.
        fn all_namespaces() all_namespaces = true;

        /// All containers of each pod, init and ephemeral containers too, instead of the default one.
        /// Ephemeral containers that come later join.
        fn all_containers() all_containers = true;

        /// Go on: containers are followed to their end, and pods that come to match join from the
        /// start of their logs. Unless [`pods`](Self::pods) names them, or
        /// [`until_all_end`](Self::until_all_end) says so, the stream never ends by itself. Of pods that
        /// are named it ends with all their logs; it does not go on with a pod that takes the name of one.
        fn follow() config.follow = true;

        /// Follow, and end when all logs have ended that are read, as kubectl does with a selector.
        /// Pods that come to match before that join. If none matches at first, it ends at once.
        fn until_all_end() config.follow = true, until_all_end = true;

        /// Follow, and go on with the next instance of a container that is started again.
        fn across_restarts() config.follow = true, config.across_restarts = true;

        /// Read the logs of the instances before the current ones.
        fn previous() config.previous = true;

        /// Only so many last lines of each log, of pods that are there at the start.
        fn tail(lines: u64) config.tail_lines = Some(lines);
    }

    /// Only lines from then on: an instant by the nodes' clocks, or a time ago, which is for pods
    /// that are there at the start.
    pub fn since(mut self, since: impl Into<Since>) -> Self {
        since.into().set(&mut self.config);
        self
    }

    /// Begins to read. Requests are made when the stream is polled.
    pub fn stream(self) -> MergedLines {
        let chosen = &self.pods;
        let pods = Resource::namespaced("", "v1", "pods");
        let mut watch = chosen.client.watch(pods).labels(&chosen.labels);
        if !self.all_namespaces {
            watch = watch.namespace(&chosen.namespace);
        }
        if let [only] = &chosen.names[..] {
            watch = watch.name(only);
        }
        let pods = watch.stream();
        MergedLines::new(self, pods)
    }
}

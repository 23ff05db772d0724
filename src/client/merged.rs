//! The logs of many pods as one stream: in flows which pods, out come their lines as they come,
//! each with its source.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use futures_core::Stream;

use super::{Client, LogLines, Logs, Updates};
use crate::{
    Error, Resource, Result,
    error::PeerError,
    limits,
    session::{
        logs::{LogEnd, LogLine, LogUpdate},
        watch::{ObjectKey, Update},
    },
    wire::{
        pod::Pod,
        watch::{EventType, Object},
    },
};

/// Where a line comes from.
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

/// A line and where it comes from.
#[derive(Debug, Clone)]
pub struct SourcedLine {
    /// Where it comes from. Lines of one source share it.
    pub source: Arc<LogSource>,
    /// The line.
    pub line: LogLine,
}

/// The logs of many pods, to be read: which, and how much of them.
///
/// ```no_run
/// # async fn run(client: kubewire::Client) -> kubewire::Result<()> {
/// let mut lines = client.logs("default").labels("app=web").all_containers().follow().stream();
/// while let Some(line) = lines.next().await {
///     let line = line?;
///     println!("{}: {}", line.source, String::from_utf8_lossy(&line.line.bytes));
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
#[must_use = "logs are not read until their stream is started"]
pub struct MergedLogs {
    client: Client,
    namespace: String,
    labels: String,
    pods: Vec<String>,
    all_containers: bool,
    container: Option<String>,
    follow: bool,
    options: Vec<Choice>,
}

/// What is asked of each log.
#[derive(Debug, Clone)]
enum Choice {
    AcrossRestarts,
    Previous,
    Tail(u64),
    SinceSeconds(u64),
    Since(crate::wire::stamp::Stamp),
}

impl MergedLogs {
    pub(super) fn new(client: Client, namespace: String) -> Self {
        Self {
            client,
            namespace,
            labels: String::new(),
            pods: Vec::new(),
            all_containers: false,
            container: None,
            follow: false,
            options: Vec::new(),
        }
    }

    /// Only pods whose labels match.
    pub fn labels(mut self, selector: impl Into<String>) -> Self {
        self.labels = selector.into();
        self
    }

    /// Only these pods.
    pub fn pods<I, S>(mut self, names: I) -> Self
    where
        I: IntoIterator<Item = S>,
        S: Into<String>,
    {
        self.pods.extend(names.into_iter().map(Into::into));
        self
    }

    /// All containers of each pod, init containers too, instead of the default one.
    pub fn all_containers(mut self) -> Self {
        self.all_containers = true;
        self
    }

    /// The container of this name; pods that have none of it are left out.
    pub fn container(mut self, name: impl Into<String>) -> Self {
        self.container = Some(name.into());
        self
    }

    /// Go on: containers are followed to their end, pods that come to match join from the start
    /// of their logs, and the stream never ends by itself.
    pub fn follow(mut self) -> Self {
        self.follow = true;
        self
    }

    /// Follow, and go on with the next instance of a container that is started again.
    pub fn across_restarts(mut self) -> Self {
        self.follow = true;
        self.options.push(Choice::AcrossRestarts);
        self
    }

    /// Read the logs of the instances before the current ones.
    pub fn previous(mut self) -> Self {
        self.options.push(Choice::Previous);
        self
    }

    /// Only so many last lines of each log, of pods that are there at the start.
    pub fn tail(mut self, lines: u64) -> Self {
        self.options.push(Choice::Tail(lines));
        self
    }

    /// Only lines of the last so many seconds, of pods that are there at the start.
    pub fn since_seconds(mut self, seconds: u64) -> Self {
        self.options.push(Choice::SinceSeconds(seconds));
        self
    }

    /// Only lines from this instant on.
    pub fn since(mut self, time: crate::wire::stamp::Stamp) -> Self {
        self.options.push(Choice::Since(time));
        self
    }

    /// Begins to read. Requests are made when the stream is polled.
    pub fn stream(self) -> MergedLines {
        let mut watch = self.client.watch(Resource::namespaced("", "v1", "pods"));
        watch = watch.namespace(&self.namespace).labels(&self.labels);
        if let [only] = &self.pods[..] {
            watch = watch.name(only);
        }
        MergedLines {
            pods: Some(watch.stream()),
            choices: self,
            begun: false,
            known: HashMap::new(),
            seen: HashSet::new(),
            waiting: VecDeque::new(),
            reading: Vec::new(),
            next: 0,
        }
    }
}

/// The lines of many logs.
///
/// An `Err` is about one source or about the list of pods; the others go on.
#[derive(Debug)]
pub struct MergedLines {
    choices: MergedLogs,
    /// Which pods there are; `None` when no more can join.
    pods: Option<Updates>,
    /// The first snapshot is complete.
    begun: bool,
    /// The UID and the sources of each pod, so that none is read twice.
    known: HashMap<ObjectKey, String>,
    /// Pods of the snapshot at hand.
    seen: HashSet<ObjectKey>,
    waiting: VecDeque<(LogSource, bool)>,
    reading: Vec<(Arc<LogSource>, LogLines)>,
    /// Whose turn it is.
    next: usize,
}

impl MergedLines {
    /// The next line; `None` when all logs have ended, which they never have where they are
    /// followed.
    ///
    /// Cancel safe: what has arrived is kept.
    pub async fn next(&mut self) -> Option<Result<SourcedLine>> {
        std::future::poll_fn(|cx| self.poll(cx)).await
    }

    /// The sources that are being read.
    pub fn sources(&self) -> impl Iterator<Item = &LogSource> {
        self.reading.iter().map(|(source, _)| &**source)
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<SourcedLine>>> {
        loop {
            if let Poll::Ready(error) = self.poll_pods(cx) {
                return Poll::Ready(Some(Err(error)));
            }
            self.start_waiting();
            if let Poll::Ready(line) = self.poll_lines(cx) {
                return Poll::Ready(Some(line));
            }
            if !self.waiting.is_empty() && self.reading.len() < limits::LOG_SOURCES {
                continue;
            }
            if self.pods.is_none() && self.reading.is_empty() {
                return Poll::Ready(None);
            }
            return Poll::Pending;
        }
    }

    /// Takes what there is to know of the pods; ready with an error.
    fn poll_pods(&mut self, cx: &mut Context<'_>) -> Poll<Error> {
        while let Some(pods) = &mut self.pods {
            let update = match Pin::new(pods).poll_next(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Some(Ok(update))) => update,
                Poll::Ready(Some(Err(error))) => {
                    if !self.choices.follow {
                        self.pods = None;
                    }
                    return Poll::Ready(error);
                }
                Poll::Ready(None) => {
                    self.pods = None;
                    break;
                }
            };
            match update {
                Update::SnapshotBegin => self.seen.clear(),
                Update::SnapshotEnd { .. } => {
                    let seen = std::mem::take(&mut self.seen);
                    self.known.retain(|key, _| seen.contains(key));
                    self.begun = true;
                    if !self.choices.follow {
                        self.pods = None;
                    }
                }
                Update::Event(event) => {
                    let known = match event.event_type {
                        EventType::Added | EventType::Modified => self.pod(&event.object),
                        EventType::Deleted => self.pod_gone(&event.object),
                        _ => Ok(()),
                    };
                    if let Err(error) = known {
                        return Poll::Ready(error);
                    }
                }
                Update::Trouble { error, .. } if !self.choices.follow => {
                    // As for one log that is not followed: someone is waiting for the end.
                    self.pods = None;
                    return Poll::Ready(error);
                }
                Update::Bookmark { .. } | Update::Trouble { .. } => {}
            }
        }
        Poll::Pending
    }

    fn pod(&mut self, object: &Object) -> Result<()> {
        let metadata = object.metadata().map_err(PeerError::from)?;
        let name = metadata.name().map_err(PeerError::from)?;
        let namespace = metadata.namespace().map_err(PeerError::from)?;
        let uid = metadata.uid().map_err(PeerError::from)?;
        let choices = &self.choices;
        if !choices.pods.is_empty() && !choices.pods.iter().any(|pod| *pod == name) {
            return Ok(());
        }
        let key = ObjectKey::new(&namespace, &name);
        self.seen.insert(key.clone());
        if self.known.get(&key).is_some_and(|known| *known == uid) {
            return Ok(());
        }
        let mut all = object
            .decode::<Pod>()
            .map_err(PeerError::from)?
            .containers();
        // As they start.
        all.sort_by_key(|one| !one.kind.is_init());
        all.retain(|one| match &choices.container {
            Some(wanted) => one.name == *wanted,
            None => choices.all_containers || one.default,
        });
        for container in all {
            let source = LogSource {
                namespace: namespace.clone().into_owned(),
                pod: name.clone().into_owned(),
                container: container.name,
            };
            self.waiting.push_back((source, !self.begun));
        }
        self.known.insert(key, uid.into_owned());
        Ok(())
    }

    fn pod_gone(&mut self, object: &Object) -> Result<()> {
        let metadata = object.metadata().map_err(PeerError::from)?;
        let key = ObjectKey::new(
            &metadata.namespace().map_err(PeerError::from)?,
            &metadata.name().map_err(PeerError::from)?,
        );
        // Its logs end by themselves, with all their lines.
        self.known.remove(&key);
        Ok(())
    }

    fn start_waiting(&mut self) {
        while self.reading.len() < limits::LOG_SOURCES
            && let Some((source, at_start)) = self.waiting.pop_front()
        {
            let choices = &self.choices;
            let pod = choices.client.pod(&source.namespace, &source.pod);
            let mut logs = Logs::new(pod).container(&source.container);
            if choices.follow {
                logs = logs.follow();
            }
            for choice in &choices.options {
                logs = match choice {
                    Choice::AcrossRestarts => logs.across_restarts(),
                    Choice::Previous => logs.previous(),
                    Choice::Since(time) => logs.since(*time),
                    Choice::Tail(lines) if at_start => logs.tail(*lines),
                    Choice::SinceSeconds(seconds) if at_start => logs.since_seconds(*seconds),
                    Choice::Tail(_) | Choice::SinceSeconds(_) => logs,
                };
            }
            self.reading.push((Arc::new(source), logs.start()));
        }
    }

    /// A line of whoever has one, in turn.
    fn poll_lines(&mut self, cx: &mut Context<'_>) -> Poll<Result<SourcedLine>> {
        let mut left = self.reading.len();
        while left > 0 {
            left -= 1;
            if self.next >= self.reading.len() {
                self.next = 0;
            }
            let (source, lines) = &mut self.reading[self.next];
            match lines.poll_update(cx) {
                Poll::Pending => self.next += 1,
                Poll::Ready(Some(LogUpdate::Line(line))) => {
                    let source = source.clone();
                    // A long line comes in one go.
                    if line.end != crate::wire::line::LineEnd::Piece {
                        self.next += 1;
                    }
                    return Poll::Ready(Ok(SourcedLine { source, line }));
                }
                Poll::Ready(Some(LogUpdate::Ended(end))) => {
                    self.reading.swap_remove(self.next);
                    if let LogEnd::Failed(error) = end {
                        return Poll::Ready(Err(error));
                    }
                }
                Poll::Ready(Some(_)) => left += 1,
                Poll::Ready(None) => {
                    self.reading.swap_remove(self.next);
                }
            }
        }
        Poll::Pending
    }
}

impl Stream for MergedLines {
    type Item = Result<SourcedLine>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.poll(cx)
    }
}

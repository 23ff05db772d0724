//! Reading many logs at once: in flow the list of pods and the updates of each log, out they come
//! as one stream.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use futures_core::Stream as _;

use super::{
    LogSource, MergedLogs, SourcedLine, SourcedUpdate,
    ready::{ReadySet, Turn},
};
use crate::{
    Error, Result,
    client::{LogLines, Logs, Updates},
    error::{ApiError, CallerError},
    limits,
    session::{
        logs::{LogEnd, LogUpdate},
        watch::{ObjectKey, Update},
    },
    transport,
    wire::{
        line::LineEnd,
        pod::Pod,
        status::Status,
        watch::{EventType, Object},
    },
};

/// The lines of many logs.
///
/// An `Err` is about one source or about the list of pods; the others go on.
///
/// ```
/// # kubewire::example(|pod| pod.container("main", ["sh", "-c", "echo tick; sleep 600"]), async |client| {
/// use kubewire::logs::SourcedLine;
///
/// let mut lines = client.logs("default").pods(["web-0"]).follow().stream();
/// let SourcedLine { source, line } = lines.next().await.expect("there is a line")?;
/// assert_eq!((source.pod.as_str(), &line.bytes[..]), ("web-0", &b"tick"[..]));
/// # Ok(())
/// # });
/// ```
#[derive(Debug)]
pub struct MergedLines {
    choices: MergedLogs,
    pods: Pods,
    /// What has been found, so that nothing is read twice.
    known: HashMap<ObjectKey, Found>,
    /// Pods of the snapshot at hand.
    listed: HashSet<ObjectKey>,
    /// Since when the server has refused the list of pods.
    refused: Option<Instant>,
    told: VecDeque<LogUpdate>,
    /// Sources that are to be read, and whether they were there at the start.
    waiting: VecDeque<(LogSource, bool)>,
    reading: ReadySet<(Arc<LogSource>, LogLines)>,
}

#[derive(Debug)]
enum Pods {
    /// Those of the first snapshot arrive.
    Listing(Updates),
    /// More can join.
    Watching(Updates),
    /// No more can join.
    Settled,
}

/// A pod, and those of its containers whose logs were taken up.
#[derive(Debug, Default)]
struct Found {
    uid: String,
    containers: HashSet<String>,
}

impl MergedLines {
    pub(super) fn new(choices: MergedLogs, pods: Updates) -> Self {
        Self {
            pods: Pods::Listing(pods),
            choices,
            known: HashMap::new(),
            listed: HashSet::new(),
            refused: None,
            told: VecDeque::new(),
            waiting: VecDeque::new(),
            reading: ReadySet::new(),
        }
    }

    /// The next line; `None` when all logs have ended. Where pods are followed that are not named,
    /// others may come, and it is `None` only with
    /// [`until_all_end`](MergedLogs::until_all_end).
    ///
    /// Cancel safe: what has arrived is kept.
    pub async fn next(&mut self) -> Option<Result<SourcedLine>> {
        std::future::poll_fn(|cx| self.poll_line(cx)).await
    }

    /// The next line, restart, gap, text of a kubelet, failed attempt or end of any source; `None` as
    /// from [`next`](Self::next).
    ///
    /// Cancel safe: what has arrived is kept.
    pub async fn next_update(&mut self) -> Option<SourcedUpdate> {
        std::future::poll_fn(|cx| self.poll_update(cx)).await
    }

    /// The sources that are being read.
    pub fn sources(&self) -> impl ExactSizeIterator<Item = &LogSource> {
        self.reading.iter().map(|(source, _)| &**source)
    }

    fn poll_line(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<SourcedLine>>> {
        loop {
            let Some(SourcedUpdate { source, update }) = ready!(self.poll_update(cx)) else {
                return Poll::Ready(None);
            };
            match (source, update) {
                (Some(source), LogUpdate::Line(line)) => {
                    return Poll::Ready(Some(Ok(SourcedLine { source, line })));
                }
                (_, LogUpdate::Ended(LogEnd::Failed(error))) => {
                    return Poll::Ready(Some(Err(error)));
                }
                (None, LogUpdate::Retrying { error, retry_in }) => {
                    tracing::debug!(%error, ?retry_in, "the list of pods is asked for again");
                }
                _ => {}
            }
        }
    }

    fn poll_update(&mut self, cx: &mut Context<'_>) -> Poll<Option<SourcedUpdate>> {
        self.poll_pods(cx);
        if let Some(update) = self.told.pop_front() {
            let source = None;
            return Poll::Ready(Some(SourcedUpdate { source, update }));
        }
        loop {
            self.start_waiting();
            let next = self.reading.poll(cx, |(source, lines), cx| {
                let update = ready!(lines.poll_update(cx));
                let given = update.map(|update| (source.clone(), update));
                Poll::Ready(match &given {
                    // A long line comes in one go.
                    Some((_, LogUpdate::Line(line))) if line.end == LineEnd::Piece => {
                        Turn::Stay(given)
                    }
                    Some((_, LogUpdate::Ended(_))) | None => Turn::Over(given),
                    Some(_) => Turn::Next(given),
                })
            });
            if let Poll::Ready(given) = next {
                let Some((source, update)) = given else {
                    continue;
                };
                let source = Some(source);
                return Poll::Ready(Some(SourcedUpdate { source, update }));
            }
            if !self.reading.is_empty() {
                return Poll::Pending;
            }
            let ends = self.choices.until_all_end || !self.choices.pods.names.is_empty();
            return match self.pods {
                Pods::Listing(_) => Poll::Pending,
                Pods::Watching(_) if !ends => Poll::Pending,
                // As kubectl does, which asks once which containers there are.
                Pods::Watching(_) | Pods::Settled => {
                    self.pods = Pods::Settled;
                    Poll::Ready(None)
                }
            };
        }
    }

    fn poll_pods(&mut self, cx: &mut Context<'_>) {
        while let Pods::Listing(pods) | Pods::Watching(pods) = &mut self.pods {
            let Poll::Ready(update) = Pin::new(pods).poll_next(cx) else {
                return;
            };
            match update {
                None => self.pods = Pods::Settled,
                Some(Ok(update)) => self.pods_changed(&update),
                // Refused: without a list there is nothing to read, ever. Nor where it cannot be
                // asked for.
                Some(Err(error @ Error::Caller(_))) => self.give_up(error),
                Some(Err(error)) if matches!(self.pods, Pods::Listing(_)) => self.give_up(error),
                Some(Err(error)) => self.fail(error),
            }
        }
    }

    fn give_up(&mut self, error: Error) {
        self.pods = Pods::Settled;
        self.fail(error);
    }

    fn fail(&mut self, error: Error) {
        self.told.push_back(LogUpdate::Ended(LogEnd::Failed(error)));
    }

    fn pods_changed(&mut self, update: &Update) {
        match update {
            Update::SnapshotBegin => self.listed.clear(),
            Update::SnapshotEnd { .. } => {
                self.refused = None;
                self.listing_complete();
            }
            Update::Event(event) => {
                self.refused = None;
                let known = match event.event_type {
                    EventType::Added | EventType::Modified => self.pod(&event.object),
                    EventType::Deleted => self.pod_gone(&event.object),
                    _ => Ok(()),
                };
                if let Err(error) = known {
                    self.fail(error);
                }
            }
            Update::Retrying {
                error, retry_in, ..
            } => {
                let (error, retry_in) = (error.clone(), *retry_in);
                let now = transport::now();
                let listing = matches!(self.pods, Pods::Listing(_));
                let refused_for = match error {
                    Error::Api(_) => now - *self.refused.get_or_insert(now),
                    _ => Duration::ZERO,
                };
                // As for one log: one that is not followed has someone who waits for the end.
                if !self.choices.config.follow || listing && refused_for >= limits::LOG_GIVE_UP {
                    return self.give_up(error);
                }
                self.told.push_back(LogUpdate::Retrying { error, retry_in });
            }
            Update::Bookmark { .. } => {}
        }
    }

    fn listing_complete(&mut self) {
        let listed = std::mem::take(&mut self.listed);
        let named = !self.choices.pods.names.is_empty();
        if !named {
            self.known.retain(|key, _| listed.contains(key));
        }
        self.pods = match std::mem::replace(&mut self.pods, Pods::Settled) {
            Pods::Listing(pods) | Pods::Watching(pods) if self.choices.config.follow => {
                Pods::Watching(pods)
            }
            _ => Pods::Settled,
        };
        for name in self.choices.pods.names.clone() {
            let namespace = &self.choices.pods.namespace;
            let key = ObjectKey::new(namespace, &name);
            if self.known.contains_key(&key) {
                continue;
            }
            let status = Status::failure(404, "NotFound", format!("pods {name:?} not found"));
            let error = ApiError::new(format!("logs of pod {namespace}/{name}"), status);
            // It is told once.
            self.known.insert(key, Found::default());
            self.fail(Box::new(error).into());
        }
    }

    fn pod(&mut self, object: &Object) -> Result<()> {
        let metadata = object.metadata()?;
        let name = metadata.name()?;
        let namespace = metadata.namespace()?;
        let uid = metadata.uid()?;
        let choices = &self.choices;
        let named = choices.pods.names.iter().any(|pod| *pod == name);
        if !choices.pods.names.is_empty() && !named {
            return Ok(());
        }
        let key = ObjectKey::new(&namespace, &name);
        self.listed.insert(key.clone());
        let found = self.known.get(&key).filter(|found| found.uid == uid);
        if found.is_none() && named && self.known.contains_key(&key) {
            // Another pod of that name.
            return Ok(());
        }
        let pod = object.decode::<Pod>()?;
        let mut wanted = pod.containers();
        wanted.retain(|one| match &choices.pods.container {
            Some(container) => one.name == *container,
            None => choices.all_containers || one.default,
        });
        wanted.sort_by_key(|one| !one.kind.is_init());
        if let (Some(container), [], true, None) = (&choices.pods.container, &*wanted, named, found)
        {
            let all = pod.containers().into_iter();
            let error = CallerError::NoContainer {
                pod: format!("pod {namespace}/{name}"),
                name: container.clone(),
                containers: all.map(|one| one.name.to_string()).collect(),
            };
            let end = LogEnd::Failed(error.into());
            self.told.push_back(LogUpdate::Ended(end));
        }
        let at_start = matches!(self.pods, Pods::Listing(_));
        let mut containers = HashSet::new();
        for container in wanted {
            containers.insert(container.name.clone());
            if found.is_some_and(|found| found.containers.contains(&container.name)) {
                continue;
            }
            let source = LogSource {
                namespace: namespace.clone().into_owned(),
                pod: name.clone().into_owned(),
                container: container.name.clone(),
            };
            self.waiting.push_back((source, at_start));
        }
        let uid = uid.into_owned();
        self.known.insert(key, Found { uid, containers });
        Ok(())
    }

    fn pod_gone(&mut self, object: &Object) -> Result<()> {
        let metadata = object.metadata()?;
        let key = ObjectKey::new(&metadata.namespace()?, &metadata.name()?);
        // Its logs end by themselves, with all their lines.
        if self.choices.pods.names.is_empty() {
            self.known.remove(&key);
        }
        Ok(())
    }

    fn start_waiting(&mut self) {
        while self.reading.len() < limits::LOG_SOURCES
            && let Some((source, at_start)) = self.waiting.pop_front()
        {
            let choices = &self.choices;
            let pod = choices.pods.client.pod(&source.namespace, &source.pod);
            let mut config = choices.config.clone();
            if !at_start {
                (config.tail_lines, config.since_seconds) = (None, None);
            }
            let logs = Logs::new(pod, config).container(&source.container);
            self.reading.push((Arc::new(source), logs.stream()));
        }
    }
}

stream!(MergedLines, Result<SourcedLine>, poll_line);

#[cfg(test)]
mod tests;

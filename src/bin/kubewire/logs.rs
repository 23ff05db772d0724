//! `kubewire logs`: prints what containers have written, and goes on if asked.

use std::collections::HashSet;

use clap::Args;
use kubewire::{
    Client, Error, Pod, Resource,
    error::Hint,
    exec::Container,
    logs::{LogEnd, LogLine, LogUpdate, SourcedUpdate},
    request::List,
    wire::stamp::Stamp,
};
use serde::Deserialize;

use crate::{
    connection::Connection,
    duration,
    failure::{Failure, note},
    lines::Lines,
    printable::Printable,
    target,
    workload::{self, Selects, Wait},
};

/// How many lines of each log a selector brings, unless told
/// (`k8s.io/kubectl/pkg/cmd/logs/logs.go`, `selectorTail`).
const SELECTOR_TAIL: u64 = 10;

/// Print the log of a container, or of many
///
/// A log that is followed lasts through cut connections, and each line is printed once. Logs of
/// many containers come one after the other, or as they are written if they are followed.
#[derive(Args)]
#[command(after_help = "Examples:\n  \
    kubewire logs web-0 --tail 20\n  \
    kubewire logs -f web-0 -c main --timestamps\n  \
    kubewire logs -f -l app=web --all-containers --prefix\n  \
    kubewire logs deploy/web --all-pods --tail 5")]
pub(crate) struct Logs {
    /// The pod: NAME, pod/NAME, or what selects pods, of which one is taken: deploy/NAME, svc/NAME
    #[arg(value_name = "POD", required_unless_present = "selector")]
    pod: Option<String>,
    /// The container, as with -c
    #[arg(value_name = "CONTAINER", conflicts_with = "container", hide = true)]
    container_argument: Option<String>,
    /// The pods whose labels match, instead of one
    #[arg(short = 'l', long, value_name = "SELECTOR", conflicts_with = "pod")]
    selector: Option<String>,
    /// All pods that POD selects, with prefixes, instead of one of them
    #[arg(long, requires = "pod")]
    all_pods: bool,
    /// The labels of the pods, where there may be many.
    #[arg(skip)]
    labels: Option<String>,
    /// How long to wait for a pod, where one is chosen: 1m30s, or a number of seconds
    #[arg(long, value_name = "DURATION", default_value = "20s", value_parser = duration::or_seconds)]
    pod_running_timeout: std::time::Duration,
    /// The container; without it the pod's default container, or its first
    #[arg(short, long, value_name = "NAME")]
    container: Option<String>,
    /// All containers of the pod or pods
    #[arg(long)]
    all_containers: bool,
    /// Go on until the container ends; with a selector, for good
    #[arg(short, long)]
    follow: bool,
    /// When following, go on with the next instance of a container that is started again
    #[arg(long)]
    across_restarts: bool,
    /// The log of the instance before the current one
    #[arg(short, long)]
    previous: bool,
    /// Only so many last lines of each log, -1 for all; with a selector 10 unless given
    #[arg(long, value_name = "LINES", allow_negative_numbers = true,
          value_parser = clap::value_parser!(i64).range(-1..))]
    tail: Option<i64>,
    /// Only lines newer than this: 30s, 5m, 2h
    #[arg(long, value_name = "DURATION", value_parser = duration::parse,
          conflicts_with = "since_time")]
    since: Option<std::time::Duration>,
    /// Only lines from this time on, in RFC 3339
    #[arg(long, value_name = "TIME", value_parser = time)]
    since_time: Option<Stamp>,
    /// Print so many bytes of a log at most
    #[arg(long, value_name = "BYTES")]
    limit_bytes: Option<u64>,
    /// Print when each line was written
    #[arg(long)]
    timestamps: bool,
    /// Print where each line comes from
    #[arg(long)]
    prefix: bool,
    /// Exit with 0 even if some of many logs cannot be read
    #[arg(long)]
    ignore_errors: bool,
    /// How many logs may be followed at once; without it any number
    #[arg(long, value_name = "LOGS")]
    max_log_requests: Option<usize>,
    /// Let the API server take the kubelet's certificate for granted
    #[arg(long)]
    insecure_skip_tls_verify_backend: bool,
}

/// A pod of a list, as far as it matters.
#[derive(Deserialize)]
struct Named {
    metadata: Metadata,
}

#[derive(Deserialize)]
struct Metadata {
    name: String,
}

fn time(text: &str) -> Result<Stamp, String> {
    Stamp::parse(text.as_bytes()).ok_or_else(|| format!("{text:?} is no time in RFC 3339"))
}

impl Logs {
    pub(crate) async fn run(mut self, connection: &Connection) -> Result<u8, Failure> {
        self.container = self.container.or(self.container_argument.take());
        if let (true, Some(name)) = (self.all_containers, &self.container) {
            let message = format!("--all-containers and the container {name} exclude each other");
            return Err(Failure::Message(message));
        }
        // What was before has ended: there is nothing to follow.
        self.follow &= !self.previous;
        let client = connection.client()?;
        self.labels = self.selector.clone();
        if let (Some(target), true) = (&self.pod, self.all_pods) {
            self.prefix = true;
            match workload::selects(&client, client.namespace(), target).await? {
                Selects::Labels(labels) => self.labels = Some(labels),
                Selects::Pod(_) => {}
            }
        }
        let mut out = Lines::start()?;
        let done = if self.labels.is_none() && !self.all_containers {
            let pod = client.pod(client.namespace(), self.pod_name(&client).await?);
            self.one(&pod, self.container.clone(), &mut out).await
        } else if self.follow {
            self.merged(&client, &mut out).await
        } else {
            self.each(&client, &mut out).await
        };
        match done {
            // That nobody reads is told by the writing itself.
            Err(failure) => Err(failure),
            Ok(code) => out.finish().await.map(|()| code),
        }
    }

    async fn pod_name(&self, client: &Client) -> Result<String, Failure> {
        let target = self.pod.as_deref().unwrap_or_default();
        let wait = Wait::Any(self.pod_running_timeout);
        let found = workload::pod(client, client.namespace(), target, wait).await?;
        if found.of > 1 {
            note(&format!(
                "Found {} pods, using pod/{}",
                found.of, found.name
            ));
        }
        Ok(found.name)
    }

    /// How many last lines to ask for.
    fn lines(&self) -> Option<u64> {
        match self.tail {
            Some(lines) => u64::try_from(lines).ok(),
            None => self.selector.as_ref().map(|_| SELECTOR_TAIL),
        }
    }

    /// How many seconds back to ask for. Servers know whole ones, from 1 on.
    fn seconds(&self) -> Option<u64> {
        let since = self.since.filter(|since| !since.is_zero())?;
        Some((since.as_secs_f64().round() as u64).max(1))
    }

    /// The log of one container.
    async fn one(
        &self,
        pod: &Pod,
        container: Option<String>,
        out: &mut Lines,
    ) -> Result<u8, Failure> {
        let mut logs = pod.logs();
        if self.follow {
            logs = logs.follow();
        }
        if self.across_restarts && self.follow {
            logs = logs.across_restarts();
        }
        if self.previous {
            logs = logs.previous();
        }
        if let Some(lines) = self.lines() {
            logs = logs.tail(lines);
        }
        if let Some(seconds) = self.seconds() {
            logs = logs.since(std::time::Duration::from_secs(seconds));
        }
        if let Some(time) = self.since_time {
            logs = logs.since(time);
        }
        if let Some(bytes) = self.limit_bytes.filter(|bytes| *bytes > 0) {
            logs = logs.limit_bytes(bytes);
        }
        if self.insecure_skip_tls_verify_backend {
            logs = logs.insecure_skip_tls_verify_backend();
        }
        let mut name = container;
        if self.prefix && name.is_none() {
            name = default_container(&pod.containers().await?);
        }
        let of = |container: &Option<String>| match container {
            Some(container) => logs.clone().container(container),
            None => logs.clone(),
        };
        let mut lines = of(&name).stream();
        let mut retrying = false;
        loop {
            match lines.next_update().await {
                Some(LogUpdate::Line(line)) => {
                    retrying = false;
                    let container = name.as_deref().or(lines.container()).unwrap_or("");
                    let prefix = || format!("pod/{}/{container}", pod.name());
                    self.print(&line, prefix, out).await?;
                }
                // Otherwise it is the error that follows.
                Some(LogUpdate::Notice(text)) if self.follow => {
                    note(&format!("the kubelet says: {text}"));
                }
                // Once, however long it lasts.
                Some(LogUpdate::Retrying { error, .. }) if !retrying => {
                    retrying = true;
                    note(&format!("{error}; trying again until it succeeds"));
                }
                Some(LogUpdate::Waiting { reason, .. }) => {
                    note(&format!("waiting for the container to start: {reason}"));
                }
                Some(LogUpdate::Ended(LogEnd::Failed(error))) if name.is_none() => {
                    name = Some(self.guess(pod, error).await?);
                    lines = of(&name).stream();
                }
                Some(LogUpdate::Ended(LogEnd::Failed(error))) => return Err(error.into()),
                Some(LogUpdate::Ended(end)) => {
                    tracing::info!(?end, "the log ended");
                    return Ok(0);
                }
                None => return Ok(0),
                Some(_) => {}
            }
        }
    }

    /// The container that kubectl would take, where the server wants one named.
    async fn guess(&self, pod: &Pod, error: Error) -> Result<String, Failure> {
        let ambiguous = matches!(&error, Error::Api(refusal)
            if matches!(refusal.hint, Some(Hint::Containers(_))));
        if !ambiguous {
            return Err(error.into());
        }
        let Ok(containers) = pod.containers().await else {
            return Err(error.into());
        };
        default_container(&containers).ok_or(error.into())
    }

    /// The logs of many containers, one after the other.
    async fn each(&self, client: &Client, out: &mut Lines) -> Result<u8, Failure> {
        let namespace = client.namespace();
        let names = match &self.labels {
            None => vec![self.pod_name(client).await?],
            Some(selector) => {
                let pods = client.request(Resource::namespaced("", "v1", "pods"));
                let pods = pods.namespace(namespace).labels(selector);
                let list: List<Named> = pods.list().await?;
                list.items
                    .into_iter()
                    .map(|pod| pod.metadata.name)
                    .collect()
            }
        };
        if names.is_empty() {
            note(&format!("No resources found in {namespace} namespace."));
        }
        let mut code = 0;
        for name in names {
            let pod = client.pod(namespace, name);
            let containers = match (&self.container, self.all_containers) {
                (Some(container), _) => vec![Some(container.clone())],
                (None, false) => vec![default_container(&pod.containers().await?)],
                (None, true) => in_order(&pod.containers().await?),
            };
            for container in containers {
                match self.one(&pod, container, out).await {
                    Ok(_) => {}
                    Err(Failure::Message(message)) => {
                        note(&format!("error: {message}"));
                        code = u8::from(!self.ignore_errors);
                    }
                    Err(failure) => return Err(failure),
                }
            }
        }
        Ok(code)
    }

    /// The logs of many containers, as they are written.
    async fn merged(&self, client: &Client, out: &mut Lines) -> Result<u8, Failure> {
        let mut logs = client.logs(client.namespace()).follow();
        if let Some(selector) = &self.labels {
            logs = logs.labels(selector);
        } else {
            logs = logs.pods([self.pod_name(client).await?]);
        }
        if self.all_containers {
            logs = logs.all_containers();
        }
        if let Some(container) = &self.container {
            logs = logs.container(container);
        }
        if self.across_restarts {
            logs = logs.across_restarts();
        }
        if let Some(lines) = self.lines() {
            logs = logs.tail(lines);
        }
        if let Some(seconds) = self.seconds() {
            logs = logs.since(std::time::Duration::from_secs(seconds));
        }
        if let Some(time) = self.since_time {
            logs = logs.since(time);
        }
        let mut lines = logs.stream();
        let mut retrying = HashSet::new();
        let mut code = 0;
        loop {
            let next = lines.next_update().await;
            let followed = lines.sources().len();
            if let Some(most) = self.max_log_requests.filter(|most| *most < followed) {
                return Err(Failure::Message(format!(
                    "{followed} logs are to be followed, and --max-log-requests allows {most}"
                )));
            }
            let Some(SourcedUpdate { source, update }) = next else {
                return Ok(code);
            };
            match (source, update) {
                (Some(source), LogUpdate::Line(line)) => {
                    retrying.remove(&Some(source.clone()));
                    let prefix = || format!("pod/{}/{}", source.pod, source.container);
                    self.print(&line, prefix, out).await?;
                }
                (Some(source), LogUpdate::Notice(text)) => {
                    note(&format!("{source}: the kubelet says: {text}"));
                }
                // Once, however long it lasts.
                (source, LogUpdate::Retrying { error, .. }) if retrying.insert(source.clone()) => {
                    note(&format!("{error}; trying again until it succeeds"));
                }
                (_, LogUpdate::Ended(LogEnd::Failed(error))) => {
                    note(&format!("error: {error}"));
                    code = u8::from(!self.ignore_errors);
                }
                _ => {}
            }
        }
    }

    async fn print(
        &self,
        line: &LogLine,
        prefix: impl FnOnce() -> String,
        out: &mut Lines,
    ) -> Result<(), Failure> {
        // Further pieces of a long line follow the first without a prefix of their own.
        if out.begin() {
            if self.prefix {
                out.write(format!("[{}] ", Printable::line(&prefix())).as_bytes());
            }
            if let (true, Some(stamp)) = (self.timestamps, line.stamp) {
                out.write(format!("{stamp} ").as_bytes());
            }
        }
        out.write(&line.bytes);
        out.end(line.end).await
    }
}

/// The container to take where none is named; says so if it is a guess.
fn default_container(all: &[Container]) -> Option<String> {
    target::default_container(all, false).map(|container| container.name.clone())
}

/// All containers in the order in which they run, as kubectl has them.
fn in_order(all: &[Container]) -> Vec<Option<String>> {
    let mut all: Vec<_> = all.iter().collect();
    all.sort_by_key(|container| !container.kind.is_init());
    all.into_iter().map(|one| Some(one.name.clone())).collect()
}

//! `kubewire logs`: prints what containers have written, and goes on if asked.

use std::{collections::HashMap, time::Duration};

use clap::Args;
use kubewire::{
    Client, Error, Pod, Resource,
    error::Hint,
    exec::Container,
    logs::{self, LogEnd, LogUpdate, MergedLogs, Since, SourcedUpdate},
    request::List,
    wire::stamp::Stamp,
};
use serde_json::Value;
use tokio::time::{Instant, timeout_at};

use crate::{
    connection::Connection,
    duration,
    failure::{Failure, Retrying, nothing_found},
    lines::Lines,
    set::Set as _,
    target,
    workload::{self, Selects, Wait},
};

use self::print::{Form, Source};

mod print;

/// How many lines of each log a selector brings, unless told
/// (`k8s.io/kubectl/pkg/cmd/logs/logs.go`, `selectorTail`).
const SELECTOR_TAIL: u64 = 10;

/// Print the log of a container, or of many
///
/// A log that is followed lasts through cut connections, and each line is printed once. Logs of
/// many containers come one after the other, or as they are written if they are followed.
///
/// Exit codes: 0 when the logs have ended; 1 if one of them cannot be read, unless --ignore-errors
/// is given; 141 if nobody reads the output.
#[derive(Args)]
#[command(after_help = "Examples:\n  \
    kubewire logs web-0 --tail 20\n  \
    kubewire logs -f web-0 -c main --timestamps\n  \
    kubewire logs -f -l app=web --all-containers --prefix\n  \
    kubewire logs deploy/web --all-pods --tail 5\n  \
    kubewire logs -f -A -l app=web --prefix --exclude /healthz\n  \
    kubewire logs web-0 --since 5m -o json")]
pub(crate) struct Logs {
    /// The pod: NAME, pod/NAME, or what selects pods, of which one is taken: deploy/NAME, svc/NAME
    #[arg(value_name = "POD", required_unless_present_any = ["selector", "all_namespaces"])]
    pod: Option<String>,
    /// The container, as with -c
    #[arg(value_name = "CONTAINER", conflicts_with = "container", hide = true)]
    container_argument: Option<String>,
    /// The pods whose labels match, instead of one
    #[arg(short = 'l', long, value_name = "SELECTOR", conflicts_with = "pod")]
    selector: Option<String>,
    /// The pods of all namespaces
    #[arg(short = 'A', long, conflicts_with = "pod")]
    all_namespaces: bool,
    /// All pods that POD selects, with prefixes, instead of one of them
    #[arg(long, requires = "pod")]
    all_pods: bool,
    /// The labels of the pods, where there may be many.
    #[arg(skip)]
    labels: Option<String>,
    /// How long to wait for a pod, where one is chosen, 20s without it; with it, also for its
    /// container to start: 1m30s, or a number of seconds
    #[arg(long, value_name = "DURATION", value_parser = duration::or_seconds)]
    pod_running_timeout: Option<Duration>,
    /// The container; without it the pod's default container, or its first
    #[arg(short, long, value_name = "NAME")]
    container: Option<String>,
    /// All containers of the pod or pods
    #[arg(long)]
    all_containers: bool,
    /// Go on until the container ends; with a selector, until all do, those of pods that have come
    /// meanwhile too
    #[arg(short, long)]
    follow: bool,
    /// When following a selector, wait for further pods when all logs have ended
    #[arg(long, requires = "follow")]
    forever: bool,
    /// When following, go on with the next instance of a container that is started again
    #[arg(long)]
    across_restarts: bool,
    /// The log of the instance before the current one; one that the runtime has removed is an error
    #[arg(short, long)]
    previous: bool,
    /// Only so many last lines of each log, -1 for all; with a selector 10 unless given
    #[arg(long, value_name = "LINES", allow_negative_numbers = true,
          value_parser = clap::value_parser!(i64).range(-1..))]
    tail: Option<i64>,
    /// Only lines newer than this: 30s, 5m, 2h
    #[arg(long, value_name = "DURATION", value_parser = duration::parse,
          conflicts_with = "since_time")]
    since: Option<Duration>,
    /// Only lines from this time on, in RFC 3339
    #[arg(long, value_name = "TIME", value_parser = time)]
    since_time: Option<Stamp>,
    /// Print so many bytes of a log at most
    #[arg(long, value_name = "BYTES")]
    limit_bytes: Option<u64>,
    #[command(flatten)]
    form: Form,
    /// Exit with 0 even if logs cannot be read, but for a pod or container that is named wrongly
    #[arg(long)]
    ignore_errors: bool,
    /// How many logs may be followed at once; without it any number
    #[arg(long, value_name = "LOGS")]
    max_log_requests: Option<usize>,
    /// Let the API server take the kubelet's certificate for granted
    #[arg(long)]
    insecure_skip_tls_verify_backend: bool,
}

/// Whether it is about which container is meant.
fn is_ambiguous(error: &Error) -> bool {
    matches!(error, Error::Api(refusal) if matches!(refusal.hint, Some(Hint::Containers(_))))
}

fn time(text: &str) -> Result<Stamp, String> {
    Stamp::parse(text.as_bytes()).ok_or_else(|| format!("{text:?} is no time in RFC 3339"))
}

impl Logs {
    pub(crate) async fn run(mut self, connection: &Connection) -> Result<u8, Failure> {
        let given = self.container.or(self.container_argument.take());
        self.container = target::named(given.as_ref()).cloned();
        if let (true, Some(name)) = (self.all_containers, &self.container) {
            bail!("--all-containers and the container {name} exclude each other");
        }
        // What was before has ended: there is nothing to follow.
        self.follow &= !self.previous;
        let client = connection.client()?;
        self.labels = self.selector.clone();
        if self.all_namespaces {
            self.form.prefix = true;
            self.labels.get_or_insert_default();
        }
        if let (Some(target), true) = (&self.pod, self.all_pods) {
            self.form.prefix = true;
            match workload::selects(&client, client.namespace(), target).await? {
                Selects::Labels(labels) => self.labels = Some(labels),
                Selects::Pod(_) => {}
            }
        }
        let mut out = Lines::start()?;
        let done = if self.labels.is_none() && !self.all_containers {
            let pod = client.pod(client.namespace(), self.pod_name(&client).await?);
            let one = self.one(&pod, self.container.clone(), &mut out);
            connection.in_time(one).await
        } else if self.follow {
            connection.in_time(self.merged(&client, &mut out)).await
        } else {
            self.each(&client, connection, &mut out).await
        };
        let code = done?;
        out.finish().await.map(|()| code)
    }

    async fn pod_name(&self, client: &Client) -> Result<String, Failure> {
        let target = self.pod.as_deref().unwrap_or_default();
        let wait = Wait::Any(self.pod_running_timeout.unwrap_or(Duration::from_secs(20)));
        let found = workload::pod(client, client.namespace(), target, wait).await?;
        if found.of > 1 {
            note!("Found {} pods, using pod/{}", found.of, found.name);
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

    /// Since when to ask for lines. Servers know whole seconds, from 1 on.
    fn since(&self) -> Option<Since> {
        let seconds = |since: Duration| Duration::from_secs(since.as_secs_f64().round() as u64);
        let since = self.since.filter(|since| !since.is_zero());
        let since = since.map(|since| seconds(since).max(Duration::from_secs(1)).into());
        self.since_time.map(Since::from).or(since)
    }

    async fn one(
        &mut self,
        pod: &Pod,
        container: Option<String>,
        out: &mut Lines,
    ) -> Result<u8, Failure> {
        let limit = self.limit_bytes.filter(|bytes| *bytes > 0);
        let unverified = self.insecure_skip_tls_verify_backend;
        let logs = pod
            .logs()
            .set_if(self.follow, logs::Logs::follow)
            .set_if(
                self.across_restarts && self.follow,
                logs::Logs::across_restarts,
            )
            .set_if(self.previous, logs::Logs::previous)
            .set(self.lines(), logs::Logs::tail)
            .set(self.since(), logs::Logs::since)
            .set(limit, logs::Logs::limit_bytes)
            .set_if(unverified, logs::Logs::insecure_skip_tls_verify_backend);
        let mut name = container;
        if self.form.names_sources() && name.is_none() {
            name = default_container(&pod.containers().await?);
        }
        let of = |container: &Option<String>| match container {
            Some(container) => logs.clone().container(container),
            None => logs.clone(),
        };
        let mut lines = of(&name).stream();
        let mut retrying = Retrying::default();
        let mut give_up = None::<Instant>;
        loop {
            let next = lines.next_update();
            let next = match give_up {
                Some(at) => timeout_at(at, next).await.map_err(|_| self.not_started())?,
                None => next.await,
            };
            match next {
                Some(LogUpdate::Line(line)) => {
                    (retrying, give_up) = (Retrying::default(), None);
                    let container = name.as_deref().or(lines.container()).unwrap_or("");
                    let source = Source {
                        namespace: pod.namespace(),
                        pod: pod.name(),
                        container,
                        everywhere: self.all_namespaces,
                    };
                    self.form.line(&line, source, out).await?;
                }
                Some(LogUpdate::Retrying { error, .. }) => drop(retrying.tell(&error)),
                Some(LogUpdate::Ended(LogEnd::Failed(error))) if name.is_none() => {
                    name = Some(self.guess(pod, error).await?);
                    lines = of(&name).stream();
                }
                Some(LogUpdate::Ended(LogEnd::Failed(error))) => return self.failed(error),
                Some(LogUpdate::Ended(end)) => {
                    tracing::info!(?end, "the log ended");
                    return Ok(0);
                }
                None => return Ok(0),
                Some(other @ LogUpdate::Waiting { .. }) => {
                    let end = || Instant::now().checked_add(self.pod_running_timeout?);
                    give_up = give_up.or_else(end);
                    say("", &other);
                }
                // It is the error that follows.
                Some(LogUpdate::Notice(_)) if !self.follow => {}
                Some(other) => say("", &other),
            }
        }
    }

    /// As kubectl, which looks for the pod and the container before it reads logs.
    fn failed(&self, error: Error) -> Result<u8, Failure> {
        if !self.ignore_errors || error.is_not_found() || is_ambiguous(&error) {
            return Err(error.into());
        }
        Failure::from(error).report();
        Ok(0)
    }

    fn not_started(&self) -> String {
        let time = self.pod_running_timeout.unwrap_or_default();
        format!("the container has not started within {time:?}")
    }

    /// The container that kubectl would take, where the server wants one named.
    async fn guess(&self, pod: &Pod, error: Error) -> Result<String, Failure> {
        if !is_ambiguous(&error) {
            return Err(error.into());
        }
        let Ok(containers) = pod.containers().await else {
            return Err(error.into());
        };
        default_container(&containers).ok_or(error.into())
    }

    /// The logs of many containers, one after the other.
    async fn each(
        &mut self,
        client: &Client,
        connection: &Connection,
        out: &mut Lines,
    ) -> Result<u8, Failure> {
        let here = client.namespace();
        let pods = match &self.labels {
            None => vec![client.pod(here, self.pod_name(client).await?)],
            Some(selector) => {
                let pods = client
                    .request(Resource::namespaced("", "v1", "pods"))
                    .set_if(!self.all_namespaces, |pods| pods.namespace(here))
                    .set_if(!selector.is_empty(), |pods| pods.labels(selector));
                let list: List<Value> = pods.list().await?;
                let pod = |pod: &Value| {
                    let text = |field: &str| pod["metadata"][field].as_str().unwrap_or_default();
                    client.pod(text("namespace"), text("name"))
                };
                list.items.iter().map(pod).collect()
            }
        };
        if pods.is_empty() {
            nothing_found((!self.all_namespaces).then_some(here));
        }
        let mut code = 0;
        for pod in pods {
            let containers = match (&self.container, self.all_containers) {
                (Some(container), _) => vec![Some(container.clone())],
                (None, false) => vec![default_container(&pod.containers().await?)],
                (None, true) => in_order(&pod.containers().await?),
            };
            for container in containers {
                match connection.in_time(self.one(&pod, container, out)).await {
                    Ok(_) => {}
                    Err(failure @ (Failure::Message(_) | Failure::Late(_))) => {
                        code = failure.report() * u8::from(!self.ignore_errors);
                    }
                    Err(failure) => return Err(failure),
                }
            }
        }
        Ok(code)
    }

    /// The logs of many containers, as they are written.
    async fn merged(&mut self, client: &Client, out: &mut Lines) -> Result<u8, Failure> {
        let logs = client.logs(client.namespace()).follow();
        let logs = match &self.labels {
            Some(selector) => logs.labels(selector),
            None => logs.pods([self.pod_name(client).await?]),
        };
        let mut lines = logs
            .set_if(self.all_namespaces, MergedLogs::all_namespaces)
            .set_if(self.all_containers, MergedLogs::all_containers)
            .set(self.container.as_ref(), MergedLogs::container)
            .set_if(self.across_restarts, MergedLogs::across_restarts)
            .set_if(!self.forever, MergedLogs::until_all_end)
            .set(self.lines(), MergedLogs::tail)
            .set(self.since(), MergedLogs::since)
            .stream();
        // What was said of those that are asked for again: of many it is the same.
        let mut retrying = HashMap::<_, String>::new();
        let (mut code, mut found) = (0, false);
        loop {
            let next = lines.next_update().await;
            let followed = lines.sources().len();
            if let Some(most) = self.max_log_requests.filter(|most| *most < followed) {
                bail!("{followed} logs are to be followed, and --max-log-requests allows {most}");
            }
            let Some(SourcedUpdate { source, update }) = next else {
                if !found {
                    nothing_found(Some(client.namespace()));
                }
                return Ok(code);
            };
            found = true;
            match (source, update) {
                (Some(source), LogUpdate::Line(line)) => {
                    retrying.remove(&Some(source.clone()));
                    let source = Source {
                        namespace: &source.namespace,
                        pod: &source.pod,
                        container: &source.container,
                        everywhere: self.all_namespaces,
                    };
                    self.form.line(&line, source, out).await?;
                }
                (source, LogUpdate::Retrying { error, .. }) => {
                    let name = source.as_ref().filter(|_| matches!(error, Error::Api(_)));
                    let name = name.map(|source| format!("{source}: ")).unwrap_or_default();
                    let words = format!("{name}{error}; trying again");
                    let is_known = retrying.contains_key(&source);
                    if !is_known && !retrying.values().any(|said| *said == words) {
                        note!("{words}");
                    }
                    retrying.entry(source).or_insert(words);
                }
                (_, LogUpdate::Ended(LogEnd::Failed(error))) => {
                    note!("error: {error}");
                    code = u8::from(!self.ignore_errors);
                }
                (Some(source), other) => say(&format!("{source}: "), &other),
                (None, _) => {}
            }
        }
    }
}

/// Says what else there is to know of a log, behind its name.
fn say(name: &str, update: &LogUpdate) {
    match update {
        LogUpdate::Notice(text) => note!("{name}the kubelet says: {text}"),
        LogUpdate::Waiting { reason, .. } => {
            note!("{name}waiting for the container to start: {reason}");
        }
        LogUpdate::Gap { after } => note!(
            "{name}warning: lines after {after} may be missing, for the log was rotated or removed \
             while it could not be read"
        ),
        _ => {}
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

//! `kubewire wait`: in flow objects and a condition, out come the objects as they meet it. All are
//! watched at once, by one watch for each resource in each namespace.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use clap::Args;
use kubewire::{
    Client,
    request::ApiResource,
    watch::{self, Update, Watch},
};
use serde_json::Value;
use tokio::{sync::mpsc, task::JoinSet, time::Instant};

use crate::{
    changes,
    connection::Connection,
    duration,
    failure::{Failure, Local as _, Retrying, note},
    get::asked::{Asked, Files},
    jsonpath::JsonPath,
    lines::Lines,
    printable::Printable,
    set::Set as _,
};

/// What kubectl takes for ever: a week.
const EVER: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// Wait until objects meet a condition
///
/// All of them are watched at once, however many they are, through cut connections.
///
/// Exit codes: 0 when all meet it; 1 if they do not in time, or for another error.
#[derive(Args)]
#[command(after_help = "Examples:\n  \
    kubewire wait pod/web-0 --for condition=Ready --timeout 1m\n  \
    kubewire wait pods -l app=web --for condition=Ready\n  \
    kubewire wait deploy/web --for condition=Available\n  \
    kubewire wait pod/web-0 --for delete --timeout 5m\n  \
    kubewire wait pod/web-0 --for jsonpath='{.status.phase}'=Running\n  \
    kubewire wait job/import --for create")]
pub(crate) struct Wait {
    /// TYPE/NAME, any number of them; or TYPE and names, or TYPE with -l or --all
    #[arg(value_name = "RESOURCE", required_unless_present = "filename")]
    objects: Vec<String>,
    #[command(flatten)]
    files: Files,
    /// What to wait for: condition=NAME, condition=NAME=VALUE, delete, create,
    /// jsonpath={PATH}=VALUE, or jsonpath={PATH} for any value
    #[arg(long = "for", value_name = "CONDITION")]
    condition: String,
    /// How long all have together: 1m30s, or a number of seconds; 0 to look once, -1s for a week
    #[arg(long, value_name = "DURATION", default_value = "30s", allow_hyphen_values = true,
          value_parser = time)]
    timeout: Duration,
    /// Those of these labels
    #[arg(short = 'l', long, value_name = "LABELS", conflicts_with = "filename")]
    selector: Option<String>,
    /// Those of these fields
    #[arg(long, value_name = "FIELDS", conflicts_with = "filename")]
    field_selector: Option<String>,
    /// All there are of the type
    #[arg(long, conflicts_with = "filename")]
    all: bool,
    /// In all namespaces
    #[arg(short = 'A', long)]
    all_namespaces: bool,
}

fn time(text: &str) -> Result<Duration, String> {
    match text.strip_prefix('-') {
        Some(_) => Ok(EVER),
        None => duration::or_seconds(text),
    }
}

#[derive(Debug, Clone)]
enum Condition {
    Status(watch::Condition<Value>),
    /// A path has a value, or this one.
    Path(Box<JsonPath>, Option<String>),
    Create,
    Delete,
}

impl Condition {
    /// As kubectl writes it (`k8s.io/kubectl/pkg/cmd/wait/wait.go`, `conditionFuncFor`).
    fn parse(text: &str) -> Result<Self, String> {
        match (text.to_ascii_lowercase().as_str(), text.split_once('=')) {
            ("delete", _) => Ok(Self::Delete),
            ("create", _) => Ok(Self::Create),
            (_, Some(("condition", rest))) => {
                let (name, value) = rest.split_once('=').unwrap_or((rest, "true"));
                Ok(Self::Status(watch::Condition::is(name, value)))
            }
            (_, Some(("jsonpath", rest))) => {
                // Quotes are those that a shell has left.
                let rest = rest.trim_matches(['\'', '"']);
                let ends = ["}=", "}'=", "}\"="];
                let braced = ends.iter().find_map(|end| rest.rsplit_once(end));
                let (path, value) = match (braced, rest.split_once('=')) {
                    (Some((path, value)), _) => (format!("{path}}}"), Some(value)),
                    (None, Some((path, value))) if !rest.starts_with('{') => {
                        (path.to_owned(), Some(value))
                    }
                    (None, _) => (rest.to_owned(), None),
                };
                let value = value.map(|value| value.trim_matches(['\'', '"']).to_owned());
                Ok(Self::Path(Box::new(JsonPath::relaxed(&path)?), value))
            }
            _ => Err(format!(
                "--for {text}: there are condition=NAME, jsonpath={{PATH}}=VALUE, delete and create"
            )),
        }
    }

    fn is_met(&self, object: &Value) -> Result<bool, String> {
        match self {
            Self::Create => Ok(true),
            Self::Delete => Ok(false),
            Self::Status(condition) => Ok(condition.holds(Some(object))),
            Self::Path(path, value) => {
                let found = path.find(object)?;
                let mut values = found.iter().flatten();
                let Some(first) = values.next() else {
                    return Ok(false);
                };
                match value {
                    None => Ok(true),
                    Some(_) if values.next().is_some() => {
                        Err("the path finds more than one value".to_owned())
                    }
                    Some(value) => Ok(crate::jsonpath::sprint(first) == *value),
                }
            }
        }
    }
}

/// The objects of one resource in one namespace.
struct Group {
    known: ApiResource,
    watch: Watch,
    /// Those that do not meet it yet; `None` until it is known which there are.
    waiting: Option<BTreeSet<String>>,
    condition: Condition,
    /// Whether to look once, and not to wait.
    once: bool,
}

/// What a group tells of its objects, by their resource and name.
enum News {
    Waits(String),
    /// It meets the condition; what kubectl calls it.
    Met(String, String),
    Fails(String, Failure),
    /// Nothing is left to wait for.
    Done(Option<Failure>),
}

impl Wait {
    pub(crate) async fn run(self, connection: &Connection) -> Result<u8, Failure> {
        let end = Instant::now()
            + match self.timeout {
                Duration::ZERO => EVER,
                timeout => timeout.min(EVER),
            };
        let condition = Condition::parse(&self.condition)?;
        let client = connection.client()?;
        let named = (&self.objects[..], self.all_namespaces);
        let asked = self.files.asked_or(named, &client, connection);
        let asked = tokio::time::timeout_at(end, asked).await;
        let asked =
            asked.map_err(|_| "the server has not said in time which resources it has")??;
        let selects = self.all || self.selector.is_some() || self.field_selector.is_some();
        if !selects && asked.iter().any(|one| one.name.is_none()) {
            bail!("which objects? Name them, or give -l or --all");
        }
        let (news, mut told) = mpsc::channel(64);
        let mut tasks = JoinSet::new();
        for group in self.groups(&client, asked, &condition) {
            tasks.spawn(group.run(news.clone()));
        }
        drop(news);
        let mut out = Lines::start()?;
        let (mut code, mut waiting) = (0, BTreeSet::new());
        loop {
            match tokio::time::timeout_at(end, told.recv()).await {
                Ok(Some(News::Waits(object))) => {
                    waiting.insert(object);
                }
                Ok(Some(News::Met(object, name))) => {
                    waiting.remove(&object);
                    let line = format!("{} condition met\n", Printable::line(&name));
                    out.text(&line).await?;
                }
                Ok(Some(News::Fails(object, failure))) => {
                    waiting.remove(&object);
                    code = failure.report();
                }
                Ok(Some(News::Done(failure))) => {
                    code = failure.map_or(code, Failure::report);
                }
                Ok(None) => {
                    // A group that has not said how it went has met nothing.
                    while let Some(done) = tasks.join_next().await {
                        done.local("a watch has failed")?;
                    }
                    break;
                }
                Err(_) => {
                    for object in &waiting {
                        note!("error: timed out waiting for the condition on {object}");
                    }
                    if waiting.is_empty() {
                        note("error: the server has not said in time which objects there are");
                    }
                    code = 1;
                    break;
                }
            }
        }
        out.finish().await.map(|()| code)
    }

    fn groups(&self, client: &Client, asked: Vec<Asked>, condition: &Condition) -> Vec<Group> {
        let mut groups: BTreeMap<(String, Option<String>), Group> = BTreeMap::new();
        for one in asked {
            let key = (one.known.resource.to_string(), one.namespace.clone());
            let group = groups.entry(key).or_insert_with(|| {
                let watch = client.watch(one.known.resource.clone());
                Group {
                    known: one.known.clone(),
                    watch: watch
                        .set(one.namespace.as_ref(), Watch::namespace)
                        .set(self.selector.as_ref(), Watch::labels)
                        .set(self.field_selector.as_ref(), Watch::fields),
                    waiting: None,
                    condition: condition.clone(),
                    once: self.timeout.is_zero(),
                }
            });
            if let Some(name) = one.name {
                group.waiting.get_or_insert_default().insert(name);
            }
        }
        let only = |mut group: Group| {
            // One object needs no watch of all.
            if let Some(name) = group.waiting.as_ref().filter(|names| names.len() == 1) {
                group.watch = group.watch.set(name.first(), Watch::name);
            }
            group
        };
        groups.into_values().map(only).collect()
    }
}

impl Group {
    async fn run(mut self, news: mpsc::Sender<News>) {
        let failure = self.observe(&news).await.err();
        // Nobody listens any more where the time is over.
        let _ = news.send(News::Done(failure)).await;
    }

    fn object(&self, name: &str) -> String {
        format!("{}/{name}", self.known.resource)
    }

    async fn met(&self, name: &str, news: &mpsc::Sender<News>) {
        let title = format!("{}/{name}", changes::title(&self.known));
        let _ = news.send(News::Met(self.object(name), title)).await;
    }

    async fn fails(&self, name: &str, problem: String, news: &mpsc::Sender<News>) {
        let fails = News::Fails(self.object(name), problem.into());
        let _ = news.send(fails).await;
    }

    async fn observe(&mut self, news: &mpsc::Sender<News>) -> Result<(), Failure> {
        for name in self.waiting.iter().flatten() {
            let _ = news.send(News::Waits(self.object(name))).await;
        }
        let mut updates = self.watch.clone().stream();
        let (mut there, mut found, mut first) = (BTreeSet::new(), BTreeSet::new(), true);
        let mut retrying = Retrying::default();
        while let Some(update) = updates.next().await {
            match update? {
                Update::SnapshotBegin => there.clear(),
                Update::SnapshotEnd { .. } => {
                    if self.waiting.is_none() {
                        if there.is_empty() && !matches!(self.condition, Condition::Delete) {
                            bail!("no matching resources found");
                        }
                        self.waiting = Some(std::mem::take(&mut found));
                    }
                    self.missing(&there, std::mem::take(&mut first), news).await;
                    if self.once {
                        for name in self.waiting.iter().flatten() {
                            let object = self.object(name);
                            let problem = format!("condition not met for {object}");
                            self.fails(name, problem, news).await;
                        }
                        return Ok(());
                    }
                }
                Update::Event(event) => {
                    let object: Value = event.object.decode().map_err(kubewire::Error::from)?;
                    let name = object["metadata"]["name"].as_str();
                    let name = name.unwrap_or_default().to_owned();
                    let collects = self.waiting.is_none();
                    let waits = self.waiting.as_ref().is_none_or(|all| all.contains(&name));
                    match event.event_type.as_str() {
                        "ADDED" | "MODIFIED" => {
                            there.insert(name.clone());
                            if !waits {
                                continue;
                            }
                            match self.condition.is_met(&object) {
                                Ok(true) => self.met(&name, news).await,
                                Ok(false) => {
                                    if collects && found.insert(name.clone()) {
                                        let _ = news.send(News::Waits(self.object(&name))).await;
                                    }
                                    continue;
                                }
                                Err(problem) => self.fails(&name, problem, news).await,
                            }
                        }
                        "DELETED" => {
                            there.remove(&name);
                            if !waits {
                                continue;
                            }
                            self.gone(&name, news).await;
                        }
                        _ => continue,
                    }
                    found.remove(&name);
                    if let Some(waiting) = &mut self.waiting {
                        waiting.remove(&name);
                    }
                }
                Update::Retrying { error, .. } => drop(retrying.tell(&error)),
                _ => {}
            }
            if self.waiting.as_ref().is_some_and(BTreeSet::is_empty) {
                return Ok(());
            }
        }
        Ok(())
    }

    async fn gone(&self, name: &str, news: &mpsc::Sender<News>) {
        match self.condition {
            Condition::Delete => self.met(name, news).await,
            _ => {
                let problem = format!("{} {name:?} not found", self.known.resource);
                self.fails(name, problem, news).await;
            }
        }
    }

    /// Sees to those that are waited for and are not there.
    async fn missing(&mut self, there: &BTreeSet<String>, first: bool, news: &mpsc::Sender<News>) {
        if matches!(self.condition, Condition::Create) {
            return;
        }
        let Some(waiting) = self.waiting.take() else {
            return;
        };
        let (left, missing): (BTreeSet<_>, BTreeSet<_>) =
            waiting.into_iter().partition(|name| there.contains(name));
        for name in missing {
            // What never was is not deleted, but is what was wanted.
            if !(first && matches!(self.condition, Condition::Delete)) {
                self.gone(&name, news).await;
            }
        }
        self.waiting = Some(left);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn conditions_are_written_as_for_kubectl() {
        let pod = json!({
            "metadata": {"generation": 2},
            "spec": {"names": ["a", "b"], "n": 3, "on": true},
            "status": {"phase": "Running", "observedGeneration": 2, "conditions": [
                {"type": "Ready", "status": "True"},
                {"type": "Old", "status": "True", "observedGeneration": 1},
                {"type": "Bad", "status": "False"},
            ]},
        });
        for (condition, met) in [
            ("condition=Ready", Ok(true)),
            ("condition=ready=true", Ok(true)),
            ("condition=Ready=False", Ok(false)),
            ("condition=Bad=false", Ok(true)),
            ("condition=Old", Ok(false)),
            ("condition=None", Ok(false)),
            ("jsonpath={.status.phase}=Running", Ok(true)),
            ("jsonpath='{.status.phase}'=Failed", Ok(false)),
            ("jsonpath=.status.phase=Running", Ok(true)),
            ("jsonpath={.spec.n}=3", Ok(true)),
            ("jsonpath={.spec.on}=true", Ok(true)),
            ("jsonpath={.spec.none}=x", Ok(false)),
            ("jsonpath={.status.phase}", Ok(true)),
            ("jsonpath={.spec.none}", Ok(false)),
            (
                "jsonpath={.status.conditions[?(@.type==\"Ready\")].status}=True",
                Ok(true),
            ),
            ("jsonpath={.spec.names[*]}=a", Err(())),
            ("delete", Ok(false)),
            ("create", Ok(true)),
        ] {
            let parsed = Condition::parse(condition).expect(condition);
            assert_eq!(parsed.is_met(&pod).map_err(drop), met, "{condition}");
        }
        for wrong in ["", "ready", "condition", "jsonpath=", "jsonpath={.a"] {
            assert!(Condition::parse(wrong).is_err(), "{wrong}");
        }
    }
}

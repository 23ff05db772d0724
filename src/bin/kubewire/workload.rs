//! From a workload to one of its pods: in flows `deploy/web`, out comes the name of a pod.

use std::time::{Duration, Instant};

use kubewire::{Client, Resource, port_forward::ForwardTarget, request::List, watch::Condition};
use serde_json::Value;

use crate::failure::Failure;

/// How often to look for a pod that runs.
const PERIOD: Duration = Duration::from_secs(1);

/// A pod, out of so many.
pub(crate) struct Found {
    pub(crate) name: String,
    pub(crate) of: usize,
}

/// For which pod to wait, and how long.
#[derive(Clone, Copy)]
pub(crate) enum Wait {
    Any(Duration),
    Running(Duration),
}

/// The pod that a target means: itself, or the first that runs of those that it selects, else the
/// first.
pub(crate) async fn pod(
    client: &Client,
    namespace: &str,
    target: &str,
    wait: Wait,
) -> Result<Found, Failure> {
    let selector = match selects(client, namespace, target).await? {
        Selects::Pod(name) => return Ok(Found { name, of: 1 }),
        Selects::Labels(selector) => selector,
    };
    let pods = client.request(Resource::namespaced("", "v1", "pods"));
    let pods = pods.namespace(namespace).labels(&selector);
    let ready = Condition::ready();
    let is_ready = |pod: &&Value| ready.holds(Some(*pod));
    let is_running = |pod: &&Value| pod["status"]["phase"] == "Running";
    let started = Instant::now();
    let mut told = false;
    loop {
        let list: List<Value> = pods.list().await?;
        let all = || list.items.iter();
        let running = all().find(is_ready).or_else(|| all().find(is_running));
        let chosen = running.or_else(|| all().next());
        let wait = match wait {
            Wait::Any(wait) if chosen.is_none() => wait,
            Wait::Running(wait) if running.is_none() => wait,
            _ => Duration::ZERO,
        };
        if started.elapsed() < wait {
            // One that comes at once needs no words.
            if started.elapsed() >= PERIOD && !std::mem::replace(&mut told, true) {
                note!("waiting for a pod of {target} in namespace {namespace}");
            }
            tokio::time::sleep(PERIOD).await;
            continue;
        }
        let chosen = chosen.and_then(|pod| pod["metadata"]["name"].as_str());
        let none = || format!("{target} has no pod in the namespace {namespace}");
        return Ok(Found {
            name: chosen.ok_or_else(none)?.to_owned(),
            of: list.items.len(),
        });
    }
}

pub(crate) enum Selects {
    Pod(String),
    /// All pods with labels that match.
    Labels(String),
}

pub(crate) async fn selects(
    client: &Client,
    namespace: &str,
    target: &str,
) -> Result<Selects, Failure> {
    match target.parse() {
        Ok(ForwardTarget::Pod(name)) => Ok(Selects::Pod(name)),
        Ok(target) => Ok(Selects::Labels(client.selector(namespace, &target).await?)),
        Err(_) => bail!("{target}: neither a pod nor anything that selects pods"),
    }
}

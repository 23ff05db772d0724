//! From a workload to one of its pods: in flows `deploy/web`, out comes the name of a pod.

use std::time::{Duration, Instant};

use kubewire::{Client, Resource, port_forward::ForwardTarget, request::List};
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
    let is_ready = |pod: &&Value| {
        let conditions = pod["status"]["conditions"].as_array();
        let mut conditions = conditions.into_iter().flatten();
        conditions.any(|one| one["type"] == "Ready" && one["status"] == "True")
    };
    let is_running = |pod: &&Value| pod["status"]["phase"] == "Running";
    let started = Instant::now();
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
            tokio::time::sleep(PERIOD).await;
            continue;
        }
        let chosen = chosen.and_then(|pod| pod["metadata"]["name"].as_str());
        let none = || Failure::Message(format!("{target} has no pod in the namespace {namespace}"));
        return Ok(Found {
            name: chosen.ok_or_else(none)?.to_owned(),
            of: list.items.len(),
        });
    }
}

/// What a target means.
pub(crate) enum Selects {
    Pod(String),
    /// All pods with labels that match.
    Labels(String),
}

/// What a target selects.
pub(crate) async fn selects(
    client: &Client,
    namespace: &str,
    target: &str,
) -> Result<Selects, Failure> {
    let parsed: ForwardTarget = target.parse().map_err(|_| {
        let message = format!("{target}: neither a pod nor anything that selects pods");
        Failure::Message(message)
    })?;
    let (resource, name) = match parsed {
        ForwardTarget::Pod(name) => return Ok(Selects::Pod(name)),
        ForwardTarget::Service(name) => (Resource::namespaced("", "v1", "services"), name),
        ForwardTarget::Workload { resource, name } => (resource, name),
        _ => return Err(Failure::Message(format!("{target}: of an unknown kind"))),
    };
    let objects = client.request(resource).namespace(namespace);
    let object: Value = objects.get(&name).await?;
    let selector = selector(&object["spec"]["selector"])
        .map_err(|problem| Failure::Message(format!("{target}: its selector {problem}")))?;
    if selector.is_empty() {
        return Err(Failure::Message(format!("{target} selects no pods")));
    }
    Ok(Selects::Labels(selector))
}

/// A selector as text: that of a service or a replication controller is a map, that of others a
/// `metav1.LabelSelector`. What is not understood must not select more.
fn selector(selector: &Value) -> Result<String, String> {
    let is_map = selector["matchLabels"].is_null() && selector["matchExpressions"].is_null();
    let labels = if is_map {
        selector
    } else {
        &selector["matchLabels"]
    };
    let labels = labels.as_object().into_iter().flatten();
    let text = |value: &Value| {
        let text = value.as_str().map(str::to_owned);
        text.ok_or_else(|| format!("has {value} in the place of a text"))
    };
    let mut terms = Vec::new();
    for (key, value) in labels {
        terms.push(format!("{key}={}", text(value)?));
    }
    for one in selector["matchExpressions"]
        .as_array()
        .into_iter()
        .flatten()
    {
        let key = text(&one["key"])?;
        let values = one["values"].as_array().into_iter().flatten();
        let values = values.map(text).collect::<Result<Vec<_>, _>>()?.join(",");
        terms.push(match &*text(&one["operator"])? {
            "In" => format!("{key} in ({values})"),
            "NotIn" => format!("{key} notin ({values})"),
            "DoesNotExist" => format!("!{key}"),
            "Exists" => key,
            other => return Err(format!("has the operator {other:?}, which is not known")),
        });
    }
    Ok(terms.join(","))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn selectors_of_either_form_become_text() {
        assert_eq!(
            selector(&json!({"app": "web", "tier": "a"})).unwrap(),
            "app=web,tier=a"
        );
        let rich = json!({
            "matchLabels": {"app": "web"},
            "matchExpressions": [
                {"key": "tier", "operator": "In", "values": ["a", "b"]},
                {"key": "zone", "operator": "NotIn", "values": ["c"]},
                {"key": "x", "operator": "Exists"},
                {"key": "y", "operator": "DoesNotExist"},
            ],
        });
        let text = "app=web,tier in (a,b),zone notin (c),x,!y";
        assert_eq!(selector(&rich).unwrap(), text);
        assert_eq!(selector(&json!(null)).unwrap(), "");
    }

    #[test]
    fn a_selector_that_is_not_understood_selects_nothing() {
        for odd in [
            json!({"app": 1}),
            json!({"matchLabels": {"app": null}}),
            json!({"matchExpressions": [{"key": "a", "operator": "Gt", "values": ["1"]}]}),
            json!({"matchExpressions": [{"key": "a"}]}),
            json!({"matchExpressions": [{"operator": "Exists"}]}),
            json!({"matchExpressions": [{"key": "a", "operator": "In", "values": [1]}]}),
        ] {
            selector(&odd).unwrap_err();
        }
    }
}

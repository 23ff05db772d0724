//! Tables: in flow objects, out comes what `kubectl get` prints.
//!
//! Pods have the columns of `k8s.io/kubernetes/pkg/printers/internalversion/printers.go`, all
//! other resources those of a custom resource that names none: Name and Age.

use serde_json::{Value, json};

use super::json::{items, some, text};
use crate::{Resource, wire::stamp::Stamp};

/// What a row says about its object besides the cells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Include {
    Nothing,
    Metadata,
    Object,
}

impl Include {
    /// Reads `includeObject` (`k8s.io/apimachinery/pkg/apis/meta/v1/types.go`).
    pub(super) fn parse(text: &str) -> Option<Self> {
        match text {
            "None" => Some(Self::Nothing),
            "" | "Metadata" => Some(Self::Metadata),
            "Object" => Some(Self::Object),
            _ => None,
        }
    }
}

/// A table's columns: name, type and format; those in brackets are shown only where there is room.
const POD: &str = "Name:string:name Ready:string: Status:string: Restarts:string: Age:string: \
                   [IP:string: [Node:string: [Nominated_Node:string: [Readiness_Gates:string:";
const ANY: &str = "Name:string:name Age:date:";

fn is_pods(resource: &Resource) -> bool {
    resource.group.is_empty() && resource.plural == "pods"
}

/// The table of these objects, without its metadata. Only the first table of a watch names its
/// columns (`k8s.io/apiserver/pkg/endpoints/handlers/response.go`).
pub(super) fn table<'a>(
    version: &str,
    resource: &Resource,
    objects: impl IntoIterator<Item = &'a Value>,
    include: Include,
    with_columns: bool,
    now: Stamp,
) -> Value {
    let columns = if is_pods(resource) { POD } else { ANY };
    let definitions = columns.split(' ').map(|column| {
        let mut parts = column.trim_start_matches('[').split(':');
        json!({
            "name": parts.next().map(|name| name.replace('_', " ")),
            "type": parts.next(),
            "format": parts.next(),
            "description": "",
            "priority": i32::from(column.starts_with('[')),
        })
    });
    let rows = objects.into_iter().map(|object| {
        let mut row = json!({"cells": cells(resource, object, now)});
        match include {
            Include::Nothing => {}
            Include::Metadata => row["object"] = partial(version, object),
            Include::Object => row["object"] = object.clone(),
        }
        row
    });
    json!({
        "kind": "Table",
        "apiVersion": version,
        "columnDefinitions": with_columns.then(|| definitions.collect::<Vec<_>>()),
        "rows": rows.collect::<Vec<_>>(),
    })
}

/// The `PartialObjectMetadata` of an object.
pub(super) fn partial(version: &str, object: &Value) -> Value {
    json!({
        "kind": "PartialObjectMetadata",
        "apiVersion": version,
        "metadata": object["metadata"],
    })
}

fn cells(resource: &Resource, object: &Value, now: Stamp) -> Vec<Value> {
    let metadata = &object["metadata"];
    let name = text(&metadata["name"]);
    let age = since(&metadata["creationTimestamp"], now);
    if !is_pods(resource) {
        return vec![name.into(), age.into()];
    }
    let status = &object["status"];
    let containers = items(&status["containerStatuses"]);
    let total = items(&object["spec"]["containers"]).len();
    let ready = containers.clone().filter(|c| c["ready"] == true).count();
    let restarts = containers.clone().map(|c| c["restartCount"].as_u64());
    let restarts = restarts.map(Option::unwrap_or_default).sum::<u64>();
    let last = containers.filter_map(|c| {
        let finished = &c["lastState"]["terminated"]["finishedAt"];
        Stamp::parse(finished.as_str()?.as_bytes())
    });
    let restarts = match last.max() {
        Some(last) if restarts > 0 => format!("{restarts} ({} ago)", duration(last, now)),
        _ => restarts.to_string(),
    };
    let shown = |value: &Value| value.as_str().unwrap_or("<none>").to_owned();
    vec![
        name.into(),
        format!("{ready}/{total}").into(),
        pod_status(object).into(),
        restarts.into(),
        age.into(),
        shown(&status["podIP"]).into(),
        shown(&object["spec"]["nodeName"]).into(),
        shown(&status["nominatedNodeName"]).into(),
        "<none>".into(),
    ]
}

/// The phase, or what is said about containers that do not run (`printPod`).
fn pod_status(object: &Value) -> String {
    let status = &object["status"];
    let mut shown = some(&status["reason"])
        .unwrap_or(text(&status["phase"]))
        .to_owned();
    let mut running = false;
    for container in items(&status["containerStatuses"]).rev() {
        let (waiting, terminated) = (
            &container["state"]["waiting"],
            &container["state"]["terminated"],
        );
        if let Some(reason) = some(&waiting["reason"]).or(some(&terminated["reason"])) {
            reason.clone_into(&mut shown);
        } else if terminated.is_object() {
            shown = format!("ExitCode:{}", terminated["exitCode"]);
        } else if container["ready"] == true && container["state"]["running"].is_object() {
            running = true;
        }
    }
    if shown == "Completed" && running {
        "Running".clone_into(&mut shown);
    }
    if !object["metadata"]["deletionTimestamp"].is_null() {
        "Terminating".clone_into(&mut shown);
    }
    shown
}

/// How long ago a time was.
fn since(time: &Value, now: Stamp) -> String {
    let stamp = time.as_str().and_then(|t| Stamp::parse(t.as_bytes()));
    stamp.map_or("<unknown>".to_owned(), |stamp| duration(stamp, now))
}

/// `HumanDuration` of `k8s.io/apimachinery/pkg/util/duration/duration.go`.
fn duration(from: Stamp, to: Stamp) -> String {
    let seconds = to.unix_seconds() - from.unix_seconds();
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    let two = |large: i64, unit, small: i64, small_unit| match small {
        0 => format!("{large}{unit}"),
        small => format!("{large}{unit}{small}{small_unit}"),
    };
    match seconds {
        ..-1 => "<invalid>".to_owned(),
        -1..0 => "0s".to_owned(),
        _ if seconds < 120 => format!("{seconds}s"),
        _ if minutes < 10 => two(minutes, 'm', seconds % 60, 's'),
        _ if minutes < 180 => format!("{minutes}m"),
        _ if hours < 8 => two(hours, 'h', minutes % 60, 'm'),
        _ if hours < 48 => format!("{hours}h"),
        _ if hours < 192 => two(days, 'd', hours % 24, 'h'),
        _ if days < 730 => format!("{days}d"),
        _ if days < 2920 => two(days / 365, 'y', days % 365, 'd'),
        _ => format!("{}y", days / 365),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_written_as_kubectl_writes_them() {
        let at = |seconds| Stamp::from_unix(seconds, 0).unwrap();
        for (seconds, expected) in [
            (-5, "<invalid>"),
            (-1, "0s"),
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (127, "2m7s"),
            (600, "10m"),
            (3 * 3600 - 1, "179m"),
            (3 * 3600, "3h"),
            (3 * 3600 + 60, "3h1m"),
            (47 * 3600, "47h"),
            (2 * 86_400, "2d"),
            (2 * 86_400 + 3600, "2d1h"),
            (8 * 86_400 + 3600, "8d"),
            (730 * 86_400, "2y"),
            (731 * 86_400, "2y1d"),
            (3000 * 86_400, "8y"),
        ] {
            assert_eq!(duration(at(0), at(seconds)), expected, "{seconds}");
        }
    }

    #[test]
    fn a_pod_s_status_is_what_its_containers_say() {
        let pod = |states: &[Value]| {
            let statuses: Vec<_> = states
                .iter()
                .map(|state| json!({"state": state, "ready": state["running"].is_object()}))
                .collect();
            json!({"status": {"phase": "Running", "containerStatuses": statuses}})
        };
        let completed = json!({"terminated": {"reason": "Completed", "exitCode": 0}});
        let running = json!({"running": {}});
        for (states, expected) in [
            (vec![running.clone()], "Running"),
            (vec![completed.clone()], "Completed"),
            (vec![completed.clone(), running.clone()], "Running"),
            (vec![json!({"terminated": {"exitCode": 3}})], "ExitCode:3"),
            (
                vec![running, json!({"waiting": {"reason": "CrashLoopBackOff"}})],
                "CrashLoopBackOff",
            ),
        ] {
            assert_eq!(pod_status(&pod(&states)), expected);
        }
        let mut leaving = pod(&[]);
        leaving["metadata"]["deletionTimestamp"] = "2026-11-22T01:55:41Z".into();
        assert_eq!(pod_status(&leaving), "Terminating");
    }
}

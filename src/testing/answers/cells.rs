//! Cells of tables that are more than a field: in flow objects, out comes what `kubectl get` prints
//! of them (`k8s.io/kubernetes/pkg/printers/internalversion/printers.go`).

use serde_json::Value;

use crate::{
    testing::values::{
        json::{items, members, some, text},
        texts::duration,
    },
    wire::stamp::Stamp,
};

fn stamp(value: &Value) -> Option<Stamp> {
    Stamp::parse(value.as_str()?.as_bytes())
}

/// A cell of the table's columns, by its name there.
pub(crate) fn cell(name: &str, object: &Value, now: Stamp) -> Value {
    let join = |parts: Vec<String>| match parts.is_empty() {
        true => "<none>".to_owned(),
        false => parts.join(","),
    };
    match name {
        "phase" => pod_status(object),
        "restarts" => restarts(object, now),
        "endpoints" => {
            let of = |subset: &Value| {
                let ports: Vec<_> = items(&subset["ports"])
                    .map(|port| port["port"].clone())
                    .collect();
                let addresses = items(&subset["addresses"]).map(|address| text(&address["ip"]));
                addresses
                    .flat_map(|ip| match ports.is_empty() {
                        true => vec![ip.to_owned()],
                        false => ports.iter().map(|port| format!("{ip}:{port}")).collect(),
                    })
                    .collect::<Vec<_>>()
            };
            join(items(&object["subsets"]).flat_map(of).collect())
        }
        "roles" => {
            let labels = members(&object["metadata"]["labels"]);
            let roles = labels.filter_map(|(key, value)| match &**key {
                "kubernetes.io/role" => some(value),
                key => key.strip_prefix("node-role.kubernetes.io/"),
            });
            join(roles.map(str::to_owned).collect())
        }
        "requests" | "limits" => {
            let is_limit = |key: &str| key.starts_with("limits.");
            let lines: Vec<_> = members(&object["status"]["hard"])
                .filter(|(key, _)| is_limit(key) == (name == "limits"))
                .map(|(key, most)| {
                    let used = some(&object["status"]["used"][key]).unwrap_or("0");
                    format!("{key}: {used}/{}", text(most))
                })
                .collect();
            lines.join(", ")
        }
        "owner" => {
            let mut owners = items(&object["metadata"]["ownerReferences"]);
            let owner = owners.find(|owner| owner["controller"] == true);
            owner.map_or("<none>".to_owned(), |owner| {
                let group = text(&owner["apiVersion"])
                    .split_once('/')
                    .map_or("", |(group, _)| group);
                let dot = if group.is_empty() { "" } else { "." };
                let kind = text(&owner["kind"]).to_lowercase();
                format!("{kind}{dot}{group}/{}", text(&owner["name"]))
            })
        }
        _ => String::new(),
    }
    .into()
}

/// How often containers began again, and when the last of them did.
fn restarts(pod: &Value, now: Stamp) -> String {
    let containers = items(&pod["status"]["containerStatuses"]);
    let count = containers.clone().map(|c| c["restartCount"].as_u64());
    let count = count.map(Option::unwrap_or_default).sum::<u64>();
    let last = containers.filter_map(|c| stamp(&c["lastState"]["terminated"]["finishedAt"]));
    match last.max() {
        Some(last) if count > 0 => format!("{count} ({} ago)", duration(last, now)),
        _ => count.to_string(),
    }
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

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

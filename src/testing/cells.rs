//! Cells of tables that are more than a field: in flow objects, out comes what `kubectl get` prints
//! of them (`k8s.io/kubernetes/pkg/printers/internalversion/printers.go`).

use serde_json::Value;

use super::{
    json::{items, members, some, text, texts},
    table::duration,
};
use crate::wire::stamp::Stamp;

fn stamp(value: &Value) -> Option<Stamp> {
    Stamp::parse(value.as_str()?.as_bytes())
}

/// A cell of the table's columns, by its name there.
pub(super) fn cell(name: &str, object: &Value, now: Stamp) -> Value {
    let (spec, status) = (&object["spec"], &object["status"]);
    let join = |parts: Vec<String>, other: &str| match parts.is_empty() {
        true => other.to_owned(),
        false => parts.join(","),
    };
    let is = |name: &str| {
        let mut conditions = items(&status["conditions"]);
        conditions.any(|condition| condition["type"] == name && condition["status"] == "True")
    };
    let entrances = || -> Vec<String> {
        let entrances = items(&status["loadBalancer"]["ingress"]);
        entrances
            .filter_map(|entrance| some(&entrance["ip"]).or(some(&entrance["hostname"])))
            .map(str::to_owned)
            .collect()
    };
    match name {
        "ready" => {
            let containers = items(&status["containerStatuses"]);
            let ready = containers
                .filter(|container| container["ready"] == true)
                .count();
            format!("{ready}/{}", items(&spec["containers"]).len())
        }
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
            join(items(&object["subsets"]).flat_map(of).collect(), "<none>")
        }
        "node" => {
            let known = items(&status["conditions"]).any(|condition| condition["type"] == "Ready");
            let state = match known {
                true if is("Ready") => "Ready",
                true => "NotReady",
                false => "Unknown",
            };
            let cordoned = spec["unschedulable"] == true;
            format!(
                "{state}{}",
                if cordoned { ",SchedulingDisabled" } else { "" }
            )
        }
        "roles" => {
            let labels = members(&object["metadata"]["labels"]);
            let roles = labels.filter_map(|(key, value)| match &**key {
                "kubernetes.io/role" => some(value),
                key => key.strip_prefix("node-role.kubernetes.io/"),
            });
            join(roles.map(str::to_owned).collect(), "<none>")
        }
        "kernel" => {
            let info = &status["nodeInfo"];
            let version = some(&info["kernelVersion"]).unwrap_or("<unknown>");
            some(&info["architecture"]).map_or(version.to_owned(), |of| format!("{version} ({of})"))
        }
        "modes" => {
            // A claim has those of its volume.
            let modes = match () {
                () if spec["capacity"].is_object() => &spec["accessModes"],
                () if spec["volumeName"].is_string() => &status["accessModes"],
                () => &Value::Null,
            };
            let initials = |mode: &str| match mode {
                "ReadWriteOncePod" => "RWOP".to_owned(),
                mode => mode
                    .chars()
                    .filter(char::is_ascii_uppercase)
                    .take(3)
                    .collect(),
            };
            texts(modes).map(initials).collect::<Vec<_>>().join(",")
        }
        "requests" | "limits" => {
            let is_limit = |key: &str| key.starts_with("limits.");
            let lines: Vec<_> = members(&status["hard"])
                .filter(|(key, _)| is_limit(key) == (name == "limits"))
                .map(|(key, most)| {
                    let used = some(&status["used"][key]).unwrap_or("0");
                    format!("{key}: {used}/{}", text(most))
                })
                .collect();
            lines.join(", ")
        }
        "outside" => match text(&spec["type"]) {
            "ExternalName" => text(&spec["externalName"]).to_owned(),
            of => {
                let mut all = entrances();
                all.extend(texts(&spec["externalIPs"]).map(str::to_owned));
                let other = ["<none>", "<pending>"][usize::from(of == "LoadBalancer")];
                join(all, other)
            }
        },
        "ports" => {
            let ports = items(&spec["ports"]).map(|port| {
                let node = port["nodePort"].as_u64().filter(|port| *port > 0);
                let node = node.map_or(String::new(), |node| format!(":{node}"));
                format!("{}{node}/{}", port["port"], text(&port["protocol"]))
            });
            join(ports.collect(), "<none>")
        }
        "available" => {
            let mut conditions = items(&status["conditions"]);
            let of = conditions.find(|condition| condition["type"] == "Available");
            match of.map(|of| (text(&of["status"]), text(&of["reason"]))) {
                Some(("True", _)) => "True".to_owned(),
                Some((state, reason)) => format!("{state} ({reason})"),
                None => "Unknown".to_owned(),
            }
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
        "targets" => {
            let target = |metric: &Value| {
                let of = &metric["resource"];
                let (name, target) = (text(&of["name"]), &of["target"]);
                match (&target["averageUtilization"], some(&target["averageValue"])) {
                    (Value::Null, Some(value)) => format!("{name}: <unknown>/{value}"),
                    (Value::Null, None) => "<unknown>/<auto>".to_owned(),
                    (percent, _) => format!("{name}: <unknown>/{percent}%"),
                }
            };
            let targets: Vec<_> = items(&spec["metrics"]).map(target).collect();
            match targets.is_empty() {
                true => "<none>".to_owned(),
                false => targets.join(", "),
            }
        }
        "job" => {
            let known = ["Complete", "Failed"].into_iter().find(|name| is(name));
            let leaving = !object["metadata"]["deletionTimestamp"].is_null();
            let known = known.or(leaving.then_some("Terminating"));
            let more = ["Suspended", "FailureTarget", "SuccessCriteriaMet"];
            let more = more.into_iter().find(|name| is(name));
            known.or(more).unwrap_or("Running").to_owned()
        }
        "completions" => {
            let done = status["succeeded"].as_i64().unwrap_or_default();
            match (
                &spec["completions"],
                spec["parallelism"].as_i64().unwrap_or(1),
            ) {
                (Value::Null, many @ 2..) => format!("{done}/1 of {many}"),
                (Value::Null, _) => format!("{done}/1"),
                (completions, _) => format!("{done}/{completions}"),
            }
        }
        "duration" => match (
            stamp(&status["startTime"]),
            stamp(&status["completionTime"]),
        ) {
            (None, _) => String::new(),
            (Some(start), end) => duration(start, end.unwrap_or(now)),
        },
        "asked" => match spec["expirationSeconds"].as_i64() {
            Some(seconds) => {
                let at = |seconds| Stamp::from_unix(seconds, 0).unwrap_or(now);
                duration(at(0), at(seconds))
            }
            None => "<none>".to_owned(),
        },
        "signed" => {
            let is_there = |name: &&str| is(name);
            let known = ["Approved", "Denied", "Failed"]
                .into_iter()
                .filter(is_there);
            let known = known.map(str::to_owned);
            let issued = some(&status["certificate"]).map(|_| "Issued".to_owned());
            join(known.chain(issued).collect(), "Pending")
        }
        "parameters" | "kind" | "param" => {
            let (of, name) = match name {
                "parameters" => (&spec["parameters"], "name"),
                "kind" => (&spec["paramKind"], "kind"),
                _ => (&spec["paramRef"], "name"),
            };
            let group = some(&of["apiGroup"]).or(some(&of["apiVersion"]));
            let kind = some(&of["kind"]).filter(|_| name == "name");
            match (of, group, kind) {
                (Value::Null, ..) if name == "kind" || !spec["policyName"].is_null() => {
                    "<unset>".to_owned()
                }
                (Value::Null, ..) => "<none>".to_owned(),
                (of, group, Some(kind)) => {
                    let group = group.map_or(String::new(), |group| format!(".{group}"));
                    format!("{kind}{group}/{}", text(&of["name"]))
                }
                (of, Some(group), None) if name == "kind" => {
                    format!("{group}/{}", text(&of["kind"]))
                }
                (of, ..) => match some(&of["namespace"]) {
                    Some(namespace) => format!("{namespace}/{}", text(&of["name"])),
                    None => format!("*/{}", text(&of["name"])),
                },
            }
        }
        "state" => {
            let allocated = status["allocation"].is_object();
            let parts = [
                (
                    !object["metadata"]["deletionTimestamp"].is_null(),
                    "deleted",
                ),
                (allocated, "allocated"),
                (!allocated, "pending"),
                (items(&status["reservedFor"]).len() > 0, "reserved"),
            ];
            let parts = parts.into_iter().filter(|(holds, _)| *holds);
            parts.map(|(_, part)| part).collect::<Vec<_>>().join(",")
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

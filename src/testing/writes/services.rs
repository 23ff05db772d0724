//! What services have in common: in flow a service that is to be stored, out it comes with numbers of
//! ports on nodes that no other has, or what of it others have already
//! (`k8s.io/kubernetes/pkg/registry/core/service/storage/alloc.go`).

use serde_json::{Value, json};

use crate::testing::{
    kinds::Kind,
    requests::target::Invalid,
    router::Cluster,
    values::{
        json::{items, items_mut, some, text},
        paths::fill,
    },
};

const PORTS: std::ops::RangeInclusive<i64> = 30_000..=32_767;

pub(super) fn allocate(
    cluster: &Cluster,
    kind: &Kind,
    before: Option<&Value>,
    service: &mut Value,
) -> Vec<Invalid> {
    let mut faults = Vec::new();
    if !kind.is_core("services") {
        return faults;
    }
    let others = cluster.store.now(&kind.resource, None);
    let uid = &service["metadata"]["uid"];
    let others = others.iter().map(|(_, other)| &other.json);
    let others: Vec<_> = others
        .filter(|other| other["metadata"]["uid"] != *uid)
        .collect();
    let spec = &mut service["spec"];
    let ip = some(&spec["clusterIP"]).filter(|ip| *ip != "None");
    if let Some(ip) = ip.filter(|ip| others.iter().any(|other| other["spec"]["clusterIP"] == *ip)) {
        let why = format!("failed to allocate IP {ip}: provided IP is already allocated");
        let value = json!([ip]).to_string();
        faults.push(Invalid::value("spec.clusterIPs", &value, &why));
    }
    if items(&spec["ports"]).len() == 0 {
        return faults;
    }
    let wants = match text(&spec["type"]) {
        "NodePort" => true,
        "LoadBalancer" => spec["allocateLoadBalancerNodePorts"] != false,
        _ => false,
    };
    let ports_of = |service: &Value| {
        items(&service["spec"]["ports"])
            .cloned()
            .collect::<Vec<_>>()
    };
    let theirs: Vec<_> = others.into_iter().flat_map(ports_of).collect();
    let is_in = |ports: &[Value], number: i64| ports.iter().any(|port| port["nodePort"] == number);
    // A port of the same name keeps its own (`patchAllocatedValues`).
    let old = before.map(ports_of).unwrap_or_default();
    for port in items_mut(&mut spec["ports"]).filter(|_| wants) {
        let known = old.iter().find(|known| known["name"] == port["name"]);
        fill(
            port,
            &["nodePort"],
            known.map_or(&Value::Null, |known| &known["nodePort"]),
        );
    }
    let mut taken = theirs.clone();
    taken.extend(items(&spec["ports"]).cloned());
    for (at, port) in items_mut(&mut spec["ports"]).enumerate() {
        let why = match port["nodePort"].as_i64() {
            Some(number) if !PORTS.contains(&number) => {
                "provided port is not in the valid range. The range of valid ports is 30000-32767"
            }
            Some(number) if is_in(&theirs, number) => "provided port is already allocated",
            None if wants => {
                let free = PORTS.clone().find(|number| !is_in(&taken, *number));
                fill(port, &["nodePort"], &free.into());
                taken.push(port.clone());
                continue;
            }
            _ => continue,
        };
        let field = format!("spec.ports[{at}].nodePort");
        faults.push(Invalid::value(field, &port["nodePort"].to_string(), why));
    }
    faults
}

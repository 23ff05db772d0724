#![cfg(feature = "client")]

use serde_json::{Value, from_value, json};

use super::*;

fn pod(object: Value) -> Pod {
    from_value(object).unwrap()
}

#[test]
fn containers_have_their_kinds_and_the_first_regular_one_is_the_default() {
    let pod = pod(json!({"metadata": {"name": "p"}, "spec": {
        "initContainers": [{"name": "i"}, {"name": "s", "restartPolicy": "Always"}],
        "containers": [{"name": "a"}, {"name": "b", "tty": true, "stdin": true}],
        "ephemeralContainers": [{"name": "e"}]}}));
    let found = pod.containers();
    let found = found.iter().map(|one| (&*one.name, one.kind, one.default));
    let expected = [
        ("a", ContainerKind::Regular, true),
        ("b", ContainerKind::Regular, false),
        ("i", ContainerKind::Init, false),
        ("s", ContainerKind::Sidecar, false),
        ("e", ContainerKind::Ephemeral, false),
    ];
    assert_eq!(found.collect::<Vec<_>>(), expected);
    let b = &pod.containers()[1];
    assert_eq!((b.tty, b.stdin), (true, true));
}

#[test]
fn the_annotation_names_another_default_of_any_kind_if_there_is_one() {
    for (named, expected) in [
        (json!("b"), "b"),
        (json!("i"), "i"),
        (json!("e"), "e"),
        (json!("gone"), "a"),
        (json!(""), "a"),
        (json!(null), "a"),
    ] {
        let pod = pod(json!({
            "metadata": {"annotations": {"kubectl.kubernetes.io/default-container": named, "other": "x"}},
            "spec": {
                "initContainers": [{"name": "i"}], "containers": [{"name": "a"}, {"name": "b"}],
                "ephemeralContainers": [{"name": "e"}],
            },
        }));
        assert_eq!(pod.default_container(), Some(expected), "{named}");
        let marked = pod.containers().into_iter().filter(|one| one.default);
        assert_eq!(marked.map(|one| one.name).collect::<Vec<_>>(), [expected]);
    }
}

#[test]
fn what_go_leaves_null_is_nothing_and_what_is_no_pod_is_an_error() {
    let empty = pod(json!({
        "metadata": {"annotations": null},
        "spec": {"containers": null, "initContainers": null},
        "status": {"conditions": null, "containerStatuses": null},
    }));
    assert_eq!(
        (empty.containers(), empty.default_container()),
        (vec![], None)
    );
    for object in [json!({}), json!({"spec": {"containers": [{}]}})] {
        assert!(from_value::<Pod>(object).is_err());
    }
}

/// Whether each container will be started again after it has ended with `code`.
fn restarts(policy: &str, code: i32) -> Vec<bool> {
    let ended = |name| json!({"name": name, "state": {"terminated": {"exitCode": code}}});
    let pod = pod(json!({
        "spec": {
            "restartPolicy": policy,
            "containers": [{"name": "a"}, {"name": "never", "restartPolicy": "Never"}],
            "initContainers": [{"name": "i"}, {"name": "s", "restartPolicy": "Always"}],
            "ephemeralContainers": [{"name": "e"}],
        },
        "status": {
            "phase": "Running",
            "ephemeralContainerStatuses": [ended("e")],
            "containerStatuses": [ended("a"), ended("never")],
            "initContainerStatuses": [ended("i"), ended("s")],
        },
    }));
    let will_restart = |name| match pod.state(name) {
        Some(ContainerState::Ended { will_restart, .. }) => will_restart,
        other => panic!("{other:?}"),
    };
    assert!(!will_restart("e"), "a kubelet starts it once");
    ["a", "never", "i", "s"].map(will_restart).to_vec()
}

#[test]
fn what_ends_is_started_again_by_its_own_policy_or_that_of_the_pod() {
    assert_eq!(restarts("Always", 0), [true, false, false, true]);
    assert_eq!(restarts("Always", 1), [true, false, true, true]);
    assert_eq!(restarts("OnFailure", 0), [false, false, false, true]);
    assert_eq!(restarts("OnFailure", 1), [true, false, true, true]);
    assert_eq!(restarts("Never", 1), [false, false, false, true]);
}

#[test]
fn a_container_without_a_status_waits_or_is_over_with_its_pod() {
    let state = |status| {
        let spec = json!({"containers": [{"name": "a"}]});
        pod(json!({"spec": spec, "status": status})).state("a")
    };
    // The kubelet has not seen an ephemeral container of a pod that runs.
    for (phase, reason) in [("Pending", "Pending"), ("Running", "ContainerCreating")] {
        let waits = ContainerState::Waiting {
            reason: reason.into(),
            message: String::new(),
        };
        assert_eq!(state(json!({"phase": phase})), Some(waits));
    }
    assert_eq!(
        state(json!({"phase": "Failed", "reason": "Evicted"})),
        Some(ContainerState::Over(Exit {
            reason: "Evicted".into(),
            ..Exit::default()
        }))
    );
    assert_eq!(pod(json!({"spec": {}})).state("a"), None);
}

#[test]
fn a_named_port_is_that_of_a_container_that_stays_and_tcp() {
    let pod = pod(json!({"spec": {
        "containers": [
            {"name": "a", "ports": [{"name": "dns", "containerPort": 53, "protocol": "UDP"}]},
            {"name": "b", "ports": [{"name": "web", "containerPort": 8000, "protocol": "TCP"}]},
        ],
        "initContainers": [
            {"name": "c", "ports": [{"name": "setup", "containerPort": 1}]},
            {"name": "d", "restartPolicy": "Always",
             "ports": [{"name": "mesh", "containerPort": 15000}]},
        ],
    }}));
    let ports = ["web", "mesh", "dns", "setup", "http"].map(|name| pod.port(name));
    assert_eq!(ports, [Some(8000), Some(15000), None, None, None]);
}

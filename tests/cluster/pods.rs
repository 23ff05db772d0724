//! Pods of a test's own on whatever cluster there is, made with `kubectl` and deleted at the end.

#![allow(dead_code, reason = "every test crate uses its own part")]

use std::{
    io::Write as _,
    process::{Child as Process, Command, Stdio as Pipe},
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
    },
};

use serde_json::Value;

pub(crate) const WAIT: &str = "trap 'exit 0' TERM; while :; do sleep 3600 & wait; done";
pub(crate) const NAMESPACE: &str = "default";

pub(crate) fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

pub(crate) fn kubectl(arguments: &[&str], input: &str) -> String {
    let program = variable("KUBECTL").unwrap_or_else(|| "kubectl".into());
    let mut process = Command::new(program)
        .args(["-n", NAMESPACE])
        .args(arguments)
        .stdin(Pipe::piped())
        .stdout(Pipe::piped())
        .stderr(Pipe::piped())
        .spawn()
        .expect("kubectl runs");
    let mut stdin = process.stdin.take().expect("piped");
    stdin.write_all(input.as_bytes()).expect("kubectl reads");
    drop(stdin);
    let output = process.wait_with_output().expect("kubectl ends");
    let problem = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "kubectl {arguments:?}: {problem}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The label of this run's pods.
pub(crate) fn run() -> String {
    format!("kubewire-{}", std::process::id())
}

/// A shell that outlives this process, and deletes its pods when it ends: nobody but this process
/// holds the other end of its stdin.
pub(crate) fn delete_at_the_end() {
    static ONCE: OnceLock<Process> = OnceLock::new();
    ONCE.get_or_init(|| {
        let program = variable("KUBECTL").unwrap_or_else(|| "kubectl".into());
        let script = "trap '' INT TERM HUP; read -r _; \
                      \"$1\" -n \"$2\" delete pod,service,deployment,configmap -l \"run=$3\" --grace-period=0 --force; \
                      \"$1\" delete customresourcedefinition -l \"run=$3\" --wait=false";
        Command::new("/bin/sh")
            .args(["-c", script, "delete", &program, NAMESPACE, &run()])
            .stdin(Pipe::piped())
            .stdout(Pipe::null())
            .stderr(Pipe::null())
            .spawn()
            .expect("sh runs")
    });
}

/// A pod to be.
pub(crate) fn pod(command: &[String], tty: bool) -> Value {
    static MADE: AtomicU32 = AtomicU32::new(0);
    let name = format!("{}-{}", run(), MADE.fetch_add(1, Ordering::Relaxed));
    let node = variable("KUBEWIRE_TEST_NODE").unwrap_or_else(|| {
        let path = "jsonpath={.items[0].metadata.name}";
        kubectl(&["get", "nodes", "-o", path], "")
    });
    let image = variable("KUBEWIRE_TEST_IMAGE");
    let image = image.unwrap_or_else(|| "docker.io/local/busybox:1".into());
    serde_json::json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"run": run()}},
        "spec": {
            "nodeName": node,
            "hostNetwork": true,
            "restartPolicy": "Never",
            "automountServiceAccountToken": false,
            "activeDeadlineSeconds": 3600,
            "terminationGracePeriodSeconds": 0,
            "tolerations": [{"operator": "Exists"}],
            "containers": [{
                "name": "main",
                "image": image,
                "imagePullPolicy": "Never",
                "command": command,
                "stdin": true,
                "tty": tty,
            }],
        },
    })
}

/// Makes a pod and waits until it is ready; gives its name.
pub(crate) fn make_pod(command: &[String], tty: bool) -> String {
    create_pod(&pod(command, tty))
}

pub(crate) fn create_pod(pod: &Value) -> String {
    delete_at_the_end();
    let name = pod["metadata"]["name"].as_str().expect("it has one");
    kubectl(&["create", "-f", "-"], &pod.to_string());
    let ready = [
        "wait",
        "--for=condition=Ready",
        "--timeout=60s",
        "pod",
        name,
    ];
    kubectl(&ready, "");
    name.to_owned()
}

pub(crate) fn delete_pod(name: &str) {
    kubectl(&["delete", "pod", name, "--grace-period=0", "--force"], "");
}

//! Real clients against one embedded server: a script each makes its own objects, and what it prints
//! is compared with a committed table of client, case and expected line.
//!
//! Where `KUBECONFIG` is set, the same scripts run against that cluster, and the table is the same:
//! that is what "cannot tell" means. `KUBEWIRE_TEST_NODE` and `KUBEWIRE_TEST_IMAGE` say how its pods
//! are made; they have the network of this machine.
//!
//! `KUBEWIRE_KUBECTL`, `KUBEWIRE_PYTHON` and `KUBEWIRE_NODE` name the programs; kubectl, python3 and
//! node unless set. `KUBEWIRE_NODE_MODULES` is the directory with the JavaScript client. kube-rs is
//! in a program of `benches/peers`, its example `client`, which `KUBEWIRE_KUBE` names if it is not
//! where cargo puts it. A client that is missing is skipped with a word, or with
//! `KUBEWIRE_REQUIRE_REAL=1` fails.

#![cfg(all(unix, feature = "testing"))]
#![allow(clippy::unwrap_used, clippy::print_stderr)]

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use kubewire::testing::ApiServer;

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// The lines of a client in the table: each a case and what is expected.
fn table(client: &str) -> Vec<&'static str> {
    let lines = include_str!("table.txt").lines();
    let prefix = format!("{client} | ");
    lines
        .filter_map(|line| line.strip_prefix(&prefix))
        .collect()
}

/// Where a client is, if it is there.
fn client(name: &str, program: &str, probe: &[&str], directory: &Path) -> Option<String> {
    let program = variable(name).unwrap_or_else(|| program.to_owned());
    let mut command = Command::new(&program);
    let command = command
        .args(probe)
        .current_dir(directory)
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    if command.status().is_ok_and(|status| status.success()) {
        return Some(program);
    }
    let required = variable("KUBEWIRE_REQUIRE_REAL").is_some_and(|value| value == "1");
    assert!(!required, "{program} is missing");
    eprintln!("skipped: {program} is missing");
    None
}

/// Runs a client's script, and compares what it prints with the table.
async fn cannot_tell(client: &str, program: &str, script: Option<String>, directory: &Path) {
    let server = match variable("KUBECONFIG") {
        None => Some(ApiServer::builder().start().await.unwrap()),
        Some(_) => None,
    };
    let mut command = Command::new(program);
    command
        .args(script)
        .current_dir(directory)
        .stdin(Stdio::null());
    command.env(
        "KUBECTL",
        variable("KUBEWIRE_KUBECTL").unwrap_or_else(|| "kubectl".to_owned()),
    );
    let files = tempfile::tempdir().unwrap();
    if let Some(server) = &server {
        let file = files.path().join("kubeconfig");
        std::fs::write(&file, server.kubeconfig()).unwrap();
        command.env("KUBECONFIG", file);
    }
    let output = tokio::task::spawn_blocking(move || command.output())
        .await
        .unwrap()
        .unwrap();
    let printed = String::from_utf8_lossy(&output.stdout);
    let printed: Vec<_> = printed.lines().collect();
    let expected = table(client);
    let mut differences: Vec<_> = expected
        .iter()
        .filter(|line| !printed.contains(line))
        .map(|line| format!("- {line}"))
        .collect();
    let added = printed.iter().filter(|line| !expected.contains(line));
    differences.extend(added.map(|line| format!("+ {line}")));
    if let Some(server) = server {
        server.shutdown().await;
    }
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        differences.is_empty(),
        "{}\n{errors}",
        differences.join("\n")
    );
    assert_eq!(printed, expected, "the cases are there in another order");
}

fn here(script: &str) -> Option<String> {
    Some(format!(
        "{}/tests/clients/{script}",
        env!("CARGO_MANIFEST_DIR")
    ))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kubectl_cannot_tell() {
    let directory = PathBuf::from("/");
    let kubectl = client(
        "KUBEWIRE_KUBECTL",
        "kubectl",
        &["version", "--client"],
        &directory,
    );
    let python = client("KUBEWIRE_PYTHON", "python3", &["--version"], &directory);
    if let (Some(_), Some(python)) = (kubectl, python) {
        cannot_tell("kubectl", &python, here("kubectl.py"), &directory).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn python_cannot_tell() {
    let directory = PathBuf::from("/");
    let probe = ["-c", "import kubernetes"];
    if let Some(python) = client("KUBEWIRE_PYTHON", "python3", &probe, &directory) {
        cannot_tell("python", &python, here("python.py"), &directory).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn javascript_cannot_tell() {
    let modules = variable("KUBEWIRE_NODE_MODULES").unwrap_or_else(|| ".".to_owned());
    let directory = PathBuf::from(modules);
    let probe = ["-e", "require.resolve('@kubernetes/client-node')"];
    if let Some(node) = client("KUBEWIRE_NODE", "node", &probe, &directory) {
        // A module is looked for where the script is.
        let script = directory.join("javascript.mjs");
        std::fs::copy(here("javascript.mjs").unwrap(), &script).unwrap();
        let script = script.display().to_string();
        cannot_tell("javascript", &node, Some(script), &directory).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kube_cannot_tell() {
    let directory = PathBuf::from("/");
    let built = "benches/peers/target/debug/examples/client";
    let built = format!("{}/{built}", env!("CARGO_MANIFEST_DIR"));
    if let Some(kube) = client("KUBEWIRE_KUBE", &built, &["--version"], &directory) {
        cannot_tell("kube", &kube, None, &directory).await;
    }
}

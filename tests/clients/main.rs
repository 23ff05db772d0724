//! Real clients against one embedded server: what they print is compared with a committed table of
//! client, case and expected line, which a cluster fulfils as well.
//!
//! `KUBEWIRE_KUBECTL` and `KUBEWIRE_PYTHON` name the programs; kubectl and python3 unless set. A
//! client that is missing is skipped with a word, or with `KUBEWIRE_REQUIRE_REAL=1` fails.

#![cfg(all(unix, feature = "testing"))]
#![allow(clippy::unwrap_used, clippy::print_stderr)]

use std::{
    path::Path,
    process::{Command, Stdio},
};

use kubewire::testing::ApiServer;

/// The cases of a client in the table: its name, the case and the expected line.
fn table(client: &str) -> Vec<(&'static str, &'static str)> {
    let lines = include_str!("table.txt").lines();
    let lines = lines.filter(|line| !line.starts_with('#') && !line.is_empty());
    lines
        .map(|line| line.split(" | ").collect::<Vec<_>>())
        .filter(|columns| columns[0] == client)
        .map(|columns| (columns[1], columns[2]))
        .collect()
}

async fn start() -> (ApiServer, tempfile::TempDir) {
    let server = ApiServer::builder()
        .pod("default", "demo", |pod| {
            pod.container("main", ["sh", "-c", "echo started; exec sleep infinity"])
        })
        .start()
        .await
        .unwrap();
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("kubeconfig"), server.kubeconfig()).unwrap();
    std::fs::write(
        directory.path().join("map.yaml"),
        "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: applied\ndata:\n  a: b\n",
    )
    .unwrap();
    (server, directory)
}

/// Where a client is, if it is there.
fn client(variable: &str, program: &str, probe: &[&str]) -> Option<String> {
    let program = std::env::var(variable).unwrap_or_else(|_| program.to_owned());
    let mut command = Command::new(&program);
    let command = command
        .args(probe)
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    if command.status().is_ok_and(|status| status.success()) {
        return Some(program);
    }
    let required = std::env::var("KUBEWIRE_REQUIRE_REAL").is_ok_and(|value| value == "1");
    assert!(!required, "{program} is missing");
    eprintln!("skipped: {program} is missing");
    None
}

fn run(program: &str, arguments: &[&str], directory: &Path) -> String {
    let output = Command::new(program)
        .args(arguments)
        .current_dir(directory)
        .env("KUBECONFIG", directory.join("kubeconfig"))
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = [output.stdout, output.stderr].concat();
    String::from_utf8_lossy(&text).into_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kubectl_cannot_tell() {
    let Some(kubectl) = client("KUBEWIRE_KUBECTL", "kubectl", &["version", "--client"]) else {
        return;
    };
    let (server, directory) = start().await;
    let mut differences = Vec::new();
    for (case, expected) in table("kubectl") {
        let arguments: Vec<_> = case.split(' ').collect();
        let printed = run(&kubectl, &arguments, directory.path());
        let line = printed.lines().next().unwrap_or_default();
        if line != expected {
            differences.push(format!("{case}\n  - {expected}\n  + {printed}"));
        }
    }
    server.shutdown().await;
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn python_cannot_tell() {
    let Some(python) = client("KUBEWIRE_PYTHON", "python3", &["-c", "import kubernetes"]) else {
        return;
    };
    let (server, directory) = start().await;
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients/python.py");
    let printed = run(&python, &[script], directory.path());
    let expected: Vec<_> = table("python")
        .into_iter()
        .map(|(case, expected)| format!("{case} | {expected}"))
        .collect();
    server.shutdown().await;
    assert_eq!(printed.lines().collect::<Vec<_>>(), expected);
}

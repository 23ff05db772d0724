//! Runs a command in all running pods of a label, eight at a time, and prints what each says.
//!
//! ```text
//! cargo run --example exec_all -- [-n NAMESPACE] SELECTOR COMMAND...
//! ```
//!
//! It ends with 0 if the command did so in every pod.

#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::{process::ExitCode, sync::Arc};

use kubewire::{Client, Pod, Resource, request::List};
use serde_json::Value;
use tokio::{sync::Semaphore, task::JoinSet};

const AT_A_TIME: usize = 8;

#[tokio::main]
async fn main() -> Result<ExitCode, Box<dyn std::error::Error>> {
    let client = Client::from_env().await?;
    let mut arguments = std::env::args().skip(1).peekable();
    let mut namespace = client.namespace().to_owned();
    if arguments.next_if(|word| word == "-n").is_some() {
        namespace = arguments.next().ok_or("-n needs a namespace")?;
    }
    let selector = arguments.next();
    let command: Arc<[String]> = arguments.collect();
    let (Some(selector), false) = (selector, command.is_empty()) else {
        return Err("usage: exec_all [-n NAMESPACE] SELECTOR COMMAND...".into());
    };

    let pods = client.request(Resource::namespaced("", "v1", "pods"));
    let pods: List<Value> = pods.namespace(&namespace).labels(selector).list().await?;
    let free = Arc::new(Semaphore::new(AT_A_TIME));
    let mut running = JoinSet::new();
    for pod in &pods.items {
        if pod["status"]["phase"] != "Running" {
            continue;
        }
        let name = pod["metadata"]["name"].as_str().unwrap_or_default();
        let (pod, command, free) = (client.pod(&namespace, name), command.clone(), free.clone());
        running.spawn(async move {
            let _permit = free.acquire_owned().await;
            run(&pod, &command).await
        });
    }
    if running.is_empty() {
        return Err("no such pod is running".into());
    }
    let done = running.join_all().await;
    let failed = done.iter().filter(|succeeded| !**succeeded).count();
    eprintln!("{} pods, {failed} failed", done.len());
    Ok(if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Whether the command succeeded in the pod.
async fn run(pod: &Pod, command: &[String]) -> bool {
    let ran = async {
        let containers = pod.containers().await?;
        let default = containers.iter().find(|container| container.default);
        let exec = pod.exec(command);
        match default {
            Some(container) => exec.container(&container.name).output().await,
            None => exec.output().await,
        }
    };
    match ran.await {
        Ok(output) => {
            for line in String::from_utf8_lossy(&output.stdout).lines() {
                println!("{}: {line}", pod.name());
            }
            for line in String::from_utf8_lossy(&output.stderr).lines() {
                eprintln!("{}: {line}", pod.name());
            }
            if !output.status.success() {
                eprintln!("{}: {}", pod.name(), output.status);
            }
            output.status.success()
        }
        Err(error) => {
            eprintln!("{}: {error}", pod.name());
            false
        }
    }
}

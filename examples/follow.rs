//! Follows what happens in a namespace: every change of its pods and, line by line, their logs.
//!
//! ```text
//! cargo run --example follow -- pods [NAMESPACE]
//! cargo run --example follow -- logs NAMESPACE POD [CONTAINER]
//! ```

#![allow(clippy::print_stdout)]

use kubewire::{
    Client, Resource,
    logs::LogUpdate,
    watch::{Change, Mirror, Update},
    wire::watch::{Encoding, EventError},
};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let client = Client::from_env().await?;
    let args: Vec<_> = std::env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["logs", namespace, pod] => follow(client.pod(namespace, pod).logs()).await,
        ["logs", namespace, pod, container] => {
            follow(client.pod(namespace, pod).logs().container(container)).await
        }
        ["pods", ref namespace @ ..] => watch(&client, namespace.first().copied()).await,
        _ => Err("usage: follow pods [NAMESPACE] | follow logs NAMESPACE POD [CONTAINER]".into()),
    }
}

async fn follow(logs: kubewire::logs::Logs) -> Result<(), Box<dyn std::error::Error>> {
    let mut lines = logs.across_restarts().tail(10).stream();
    while let Some(update) = lines.next_update().await {
        match update {
            LogUpdate::Line(line) => println!("{line}"),
            other => println!("-- {other:?}"),
        }
    }
    Ok(())
}

async fn watch(client: &Client, namespace: Option<&str>) -> Result<(), Box<dyn std::error::Error>> {
    let mut watch = client.watch(Resource::namespaced("", "v1", "pods"));
    if let Some(namespace) = namespace {
        watch = watch.namespace(namespace);
    }
    let mut updates = watch.encoding(Encoding::Protobuf).stream();
    let mut mirror = Mirror::new();
    while let Some(update) = updates.next().await {
        let update = update?;
        match &update {
            Update::SnapshotEnd { .. } => println!("-- {} pods", mirror.len()),
            Update::Retrying {
                error, retry_in, ..
            } => println!("-- {error}; again in {retry_in:?}"),
            _ => {}
        }
        let keep = |object: &kubewire::wire::watch::Object| {
            Ok::<_, EventError>(object.metadata()?.labels()?.count())
        };
        for change in mirror.apply(&update, keep)? {
            match change {
                Change::Added(key) => println!("+ {key}"),
                Change::Modified(key) => println!("~ {key}"),
                Change::Deleted(key, labels) => println!("- {key}, which had {labels} labels"),
            }
        }
    }
    Ok(())
}

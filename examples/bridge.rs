//! A program of kube-rs with kubewire in it: kube's configuration and types, kubewire's sessions.
//! It runs a command in every running pod of a label, one after the other.
//!
//! ```text
//! cargo run --example bridge -- SELECTOR COMMAND...
//! ```
//!
//! `kube::Config` is `kube_client::Config` here, and `kube::ResourceExt` is `kube_core`'s.
//! `benches/peers/examples/bridge.rs` has `kube::Client` itself, and a session over its connection.

#![allow(clippy::print_stdout)]

use k8s_openapi::api::core::v1::Pod;
use kube_client::Config;
use kube_core::ResourceExt as _;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let selector = arguments.next();
    let command: Vec<_> = arguments.collect();
    let (Some(selector), false) = (selector, command.is_empty()) else {
        return Err("usage: bridge SELECTOR COMMAND...".into());
    };
    let config = Config::infer().await?;
    let namespace = config.default_namespace.clone();
    // The one line that adds kubewire.
    let client = kubewire::Client::try_from(config)?;

    let pods = client.api::<Pod>().namespace(&namespace).labels(selector);
    for pod in pods.list().await?.items {
        if pod.status.as_ref().and_then(|it| it.phase.as_deref()) != Some("Running") {
            continue;
        }
        let name = pod.name_any();
        let output = client
            .pod(&namespace, &name)
            .exec(&command)
            .output()
            .await?;
        print!("{name}: {}", String::from_utf8_lossy(&output.stdout));
        if !output.status.success() {
            println!("{name}: {}", output.status);
        }
    }
    Ok(())
}

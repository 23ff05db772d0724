//! The memory of sessions that do nothing.

use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, AttachParams};
use tokio::io::AsyncWriteExt as _;

use crate::{exec::Server, row::Work};

/// Resident KiB of this process (Linux).
fn resident() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let digits = line.unwrap_or("0").trim_end_matches("kB").trim();
    digits.parse().unwrap_or(0.0)
}

/// KiB a session.
pub(crate) async fn run(work: &Work, side: &str, addresses: &[&str]) -> f64 {
    let Work::Idle { sessions, .. } = *work else {
        panic!("not this row");
    };
    let server = Server::new(addresses, false);
    let after = match side {
        "raw" => {
            let before = resident();
            let mut all = Vec::new();
            for _ in 0..sessions {
                let mut io = server.dial().await;
                io.write_all(b"\n").await.expect("a request");
                all.push(io);
            }
            settled(before).await
        }
        "kubewire" => {
            let client = server.kubewire();
            let before = resident();
            let mut all = Vec::new();
            for _ in 0..sessions {
                let pod = client.pod("default", "bench");
                let exec = pod.exec(["x"]).stdin(kubewire::exec::Stdio::piped());
                all.push(exec.spawn().await.expect("a child"));
            }
            settled(before).await
        }
        _ => {
            let pods: Api<Pod> = Api::namespaced(server.kube(), "default");
            let params = AttachParams::default().stdin(true);
            let before = resident();
            let mut all = Vec::new();
            for _ in 0..sessions {
                all.push(pods.exec("bench", ["x"], &params).await.expect("a process"));
            }
            settled(before).await
        }
    };
    after / sessions as f64
}

/// What has been added, when the first frames have been read.
async fn settled(before: f64) -> f64 {
    tokio::time::sleep(Duration::from_secs(2)).await;
    resident() - before
}

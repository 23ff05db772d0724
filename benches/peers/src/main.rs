//! The same work through kubewire, kube-rs 5, bare tokio-tungstenite, raw sockets and kubectl.
//!
//! ```text
//! cargo run --release --manifest-path benches/peers/Cargo.toml [-- [--runs N] [ROW...]]
//! ```
//!
//! In goes nothing; out come a table and `target/peers.json`. The server of a row is a process of
//! its own that only sends what it encoded beforehand. Each run of a side is a process of its own
//! as well, so that its CPU time and its peak of memory are its alone. The sides alternate.

#[path = "../../support/application.rs"]
mod application;
#[path = "../../support/snapshot.rs"]
mod snapshot;
#[path = "../../support/mod.rs"]
mod support;

mod bodies;
mod exec;
mod forward;
mod idle;
mod initial;
mod report;
mod row;
mod server;

use std::time::Instant;

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["serve", kind] => server::run(kind),
        ["side", row, side, ref addresses @ ..] => run_side(row, side, addresses),
        _ => report::run(&words),
    }
}

/// One run of one side: prints what it measured, for the process that compares.
fn run_side(row: &str, side: &str, addresses: &[&str]) {
    let row = row::find(row).expect("a row");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let start = Instant::now();
    let value = runtime.block_on(async {
        match row.work {
            row::Work::Stdout { .. } | row::Work::Stdin { .. } | row::Work::Echo => {
                exec::run(&row.work, side, addresses).await
            }
            row::Work::Idle { .. } => idle::run(&row.work, side, addresses).await,
            row::Work::Metadata
            | row::Work::Typed
            | row::Work::Messages
            | row::Work::Partial
            | row::Work::Unmanaged
            | row::Work::Lines => bodies::run(&row.work, side),
            row::Work::Initial => initial::run(side),
            row::Work::Bulk | row::Work::Open => forward::run(&row.work, side, addresses).await,
        }
    });
    let usage = report::usage(side);
    println!(
        "{}",
        serde_json::json!({
            "value": value,
            "cpu_s": usage.0,
            "peak_kib": usage.1,
            "wall_s": start.elapsed().as_secs_f64(),
        })
    );
}

//! The parsers by time: `cargo bench --bench wire`. Each by the bytes it goes through and by the
//! frames, events or lines it makes.

#![allow(missing_docs, clippy::unwrap_used)]

#[path = "support/cases.rs"]
mod cases;

use std::time::Duration;

use criterion::{BatchSize, Criterion, Throughput};

fn main() {
    let mut criterion = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
        .configure_from_args();
    for (group, of) in [("units", true), ("bytes", false)] {
        let mut group = criterion.benchmark_group(group);
        for case in cases::all() {
            group.throughput(match of {
                true => Throughput::Elements(case.units),
                false => Throughput::Bytes(case.bytes),
            });
            group.bench_function(case.name, |bencher| {
                bencher.iter_batched(&case.prepare, |work| work(), BatchSize::LargeInput);
            });
        }
    }
    criterion.final_summary();
}

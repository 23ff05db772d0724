//! The parsers by time: `cargo counts wire [WORD...]`, of which words choose some. For each
//! the median of its rounds, by the frames, events or lines that it makes and by the bytes that it
//! goes through, and the fastest and the slowest.

#![allow(missing_docs, clippy::unwrap_used, clippy::print_stdout)]

#[path = "support/cases.rs"]
mod cases;

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use cases::Case;

const ROUNDS: usize = 20;

/// How long a batch takes, without what prepares it and what drops what it gives.
fn time(case: &Case) -> Duration {
    let work = (case.prepare)();
    let begin = Instant::now();
    let kept = black_box(work());
    let time = begin.elapsed();
    drop(kept);
    time
}

fn main() {
    let words: Vec<_> = std::env::args().skip(1).collect();
    println!("| work | ns | MiB/s | ns, fastest to slowest |\n|---|---:|---:|---:|");
    let chosen = |case: &Case| words.iter().all(|word| case.name.contains(&**word));
    for case in cases::all().into_iter().filter(chosen) {
        // The first run fills what is computed once.
        time(&case);
        let mut times: Vec<_> = (0..ROUNDS).map(|_| time(&case)).collect();
        times.sort_unstable();
        let (fastest, slowest) = (times[0], times[ROUNDS - 1]);
        let median = (times[ROUNDS / 2 - 1] + times[ROUNDS / 2]) / 2;
        let unit = |time: Duration| time.as_secs_f64() * 1e9 / case.units as f64;
        println!(
            "| {} | {:.1} | {:.0} | {:.1} to {:.1} |",
            case.name,
            unit(median),
            case.bytes as f64 / f64::from(1 << 20) / median.as_secs_f64(),
            unit(fastest),
            unit(slowest)
        );
    }
}

//! How cost grows with size, counted in instructions (by valgrind) and in bytes that are held:
//! `cargo counts scale` writes `docs/scale`, each series as data and as a picture. Words choose
//! series: `sessions`.
//!
//! The allocator that counts bytes adds a twentieth to the instructions of what allocates much.

#![allow(missing_docs, clippy::unwrap_used, clippy::print_stdout)]

#[path = "support/cases.rs"]
mod cases;

use std::process::ExitCode;

use cases::{
    callgrind,
    scale::{SERIES, Series, Unit},
};

const DIRECTORY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/scale");

/// What a unit of one size costs.
fn cost(series: &Series, size: usize) -> f64 {
    let case = (series.at)(size);
    if series.unit == Unit::Instructions {
        return cases::count(case.units, &[series.name, &size.to_string()]);
    }
    // The first run fills what is computed once.
    drop((case.prepare)()());
    let work = (case.prepare)();
    let mut held = None;
    let counted = allocation_counter::measure(|| held = Some(work()));
    counted.bytes_current as f64 / case.units as f64
}

fn main() -> ExitCode {
    let series = |name: &str| SERIES.iter().find(|series| series.name == name);
    if let Some(words) = callgrind::case() {
        (series(&words[0]).unwrap().at)(words[1].parse().unwrap()).run();
        return ExitCode::SUCCESS;
    }
    if let Some(code) = callgrind::missing() {
        return code;
    }
    let words: Vec<_> = std::env::args().skip(1).collect();
    std::fs::create_dir_all(DIRECTORY).unwrap();
    let chosen = |series: &&Series| words.iter().all(|word| series.name.contains(word.as_str()));
    for series in SERIES.iter().filter(chosen) {
        let costs: Vec<_> = series
            .sizes
            .iter()
            .map(|size| cost(series, *size))
            .collect();
        let data = series.data(&costs);
        println!("{}\n{data}", series.name);
        let file = |kind: &str| format!("{DIRECTORY}/{}.{kind}", series.name);
        std::fs::write(file("csv"), data).unwrap();
        std::fs::write(file("svg"), series.picture(&costs)).unwrap();
    }
    ExitCode::SUCCESS
}

//! The parsers by instruction, which a noisy machine does not change: `cargo bench --bench
//! instructions` runs each under valgrind and compares with `benches/instructions.txt`; with
//! `-- --write` it writes that file anew.
//!
//! What is cheap because it does less, or is shared, must be it: `PARTS` says of what it may be how
//! much.
//!
//! With `-- --scale` it counts the same work at sizes that grow instead, and writes `docs/scale`.
//!
//! More than a twentieth above the baseline is a failure, with the compiler that it was written
//! with; another makes other code. So is a missing valgrind where
//! `KUBEWIRE_REQUIRE_REAL` is set; elsewhere nothing is compared then.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr
)]

#[path = "support/callgrind.rs"]
mod callgrind;
#[path = "support/cases.rs"]
mod cases;

use std::{collections::BTreeMap, fmt::Write as _, process::ExitCode};

const BASELINE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/instructions.txt");
/// How much more than the baseline is allowed, of it.
const TOLERANCE: f64 = 0.05;
/// Instructions a unit that never count: a case of a few would fail for one more.
const SLACK: f64 = 2.0;

/// Instructions a unit, of which a case has so many.
fn count(units: u64, words: &[&str]) -> f64 {
    let (total, _) = callgrind::count(words).unwrap();
    total / units as f64
}

/// What one work costs at each size, into `docs/scale`.
fn scale() {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/scale");
    std::fs::create_dir_all(directory).unwrap();
    for (index, series) in cases::scale::SERIES.iter().enumerate() {
        let costs: Vec<_> = series
            .sizes
            .iter()
            .map(|size| {
                let words = [index.to_string(), size.to_string()];
                count((series.at)(*size).units, &[&words[0], &words[1]])
            })
            .collect();
        let data = series.data(&costs);
        println!("{}\n{data}", series.name);
        let file = |kind: &str| format!("{directory}/{}.{kind}", series.name);
        std::fs::write(file("csv"), data).unwrap();
        std::fs::write(file("svg"), series.picture(&costs)).unwrap();
    }
}

fn read_baseline() -> BTreeMap<String, f64> {
    let text = std::fs::read_to_string(BASELINE).unwrap_or_default();
    text.lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| {
            let (count, name) = line.trim().split_once("  ")?;
            Some((name.trim().to_owned(), count.parse().ok()?))
        })
        .collect()
}

fn run(case: cases::Case) {
    // The first run fills what is computed once.
    drop((case.prepare)()());
    drop(callgrind::counted((case.prepare)()));
}

fn main() -> ExitCode {
    if let Some(words) = callgrind::case() {
        run(match &words[..] {
            [name] => {
                let mut all = cases::all().into_iter();
                all.find(|case| case.name == *name).unwrap()
            }
            [series, size] => {
                let [series, size] = [series, size].map(|word| word.parse::<usize>().unwrap());
                (cases::scale::SERIES[series].at)(size)
            }
            _ => panic!("no such case: {words:?}"),
        });
        return ExitCode::SUCCESS;
    }
    if let Some(code) = callgrind::missing() {
        return code;
    }
    let words: Vec<String> = std::env::args().skip(1).collect();
    if words.iter().any(|word| word == "--scale") {
        scale();
        return ExitCode::SUCCESS;
    }
    let write = words.iter().any(|word| word == "--write");
    let baseline = read_baseline();
    let compiler = callgrind::compiler();
    let mut text = format!(
        "# Instructions a frame, event or line. `cargo bench --bench instructions -- --write`\n\
         # {compiler}\n"
    );
    let before = std::fs::read_to_string(BASELINE).unwrap_or_default();
    let comparable = before.lines().any(|line| line == format!("# {compiler}"));
    if !comparable && !write {
        println!("the baseline is of another compiler than {compiler}: nothing fails");
    }
    let mut failed = false;
    let mut counts = BTreeMap::new();
    let cases: Vec<_> = cases::all().iter().map(|it| (it.name, it.units)).collect();
    let measured = callgrind::each(&cases, |(name, units)| count(*units, &[name]));
    for ((name, _), now) in cases.into_iter().zip(measured) {
        counts.insert(name, now);
        writeln!(text, "{now:>10.1}  {name}").unwrap();
        let Some(before) = baseline.get(name) else {
            println!("{now:>10.1}  {name} (new)");
            failed |= !write;
            continue;
        };
        let worse = now > before * (1.0 + TOLERANCE) + SLACK;
        failed |= worse && !write;
        println!(
            "{now:>10.1}  {name} (baseline {before:.1}){}",
            if worse { ": MORE" } else { "" }
        );
    }
    let mut large = false;
    for (part, whole, most) in cases::PARTS {
        let share = counts[part] / counts[whole];
        large |= share > *most;
        println!(
            "{share:>10.3}  of {whole}: {part}{}",
            if share > *most { ": TOO MUCH" } else { "" }
        );
    }
    if large {
        eprintln!("error: what should cost a part costs more");
        return ExitCode::FAILURE;
    }
    if write {
        std::fs::write(BASELINE, text).unwrap();
    }
    if failed && comparable {
        eprintln!("error: some cases cost more than {BASELINE} says");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

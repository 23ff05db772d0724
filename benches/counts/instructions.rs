//! The parsers by instruction, which a noisy machine does not change: `cargo counts
//! instructions` runs each under valgrind and compares with `instructions.txt`; with `-- --write` it
//! writes that file anew.
//!
//! What is cheap because it does less, or is shared, must be it: `PARTS` says of what it may be how
//! much.
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

#[path = "support/cases.rs"]
mod cases;

use std::{collections::BTreeMap, fmt::Write as _, process::ExitCode};

use cases::callgrind;

const BASELINE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/instructions.txt");
/// How much more than the baseline is allowed, of it.
const TOLERANCE: f64 = 0.05;
/// Instructions a unit that never count: a case of a few would fail for one more.
const SLACK: f64 = 2.0;

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

fn main() -> ExitCode {
    if let Some(words) = callgrind::case() {
        // Those behind it live on: what they hold is no hole in the heap.
        let mut all = cases::all().into_iter();
        let case = all.find(|case| words == [case.name]);
        case.expect("a case of this name").run();
        return ExitCode::SUCCESS;
    }
    if let Some(code) = callgrind::missing() {
        return code;
    }
    let words: Vec<String> = std::env::args().skip(1).collect();
    let write = words.iter().any(|word| word == "--write");
    let baseline = read_baseline();
    let compiler = callgrind::compiler();
    let mut text = format!(
        "# Instructions a frame, event or line. `cargo counts instructions -- --write`\n\
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
    let measured = callgrind::each(&cases, |(name, units)| cases::count(*units, &[name]));
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

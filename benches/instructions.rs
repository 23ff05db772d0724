//! The parsers by instruction, which a noisy machine does not change: `cargo bench --bench
//! instructions` runs each under valgrind and compares with `benches/instructions.txt`; with
//! `-- --write` it writes that file anew.
//!
//! What is cheap because it does less, or is shared, must be it: `PARTS` says of what it may be how
//! much.
//!
//! With `-- --scale` it counts the same work at sizes that grow instead, and writes `docs/scale`.
//!
//! Of hostile input it counts twice as much as well, which must not cost more than twice as much.
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

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    hint::black_box,
    process::{Command, ExitCode},
};

const BASELINE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/instructions.txt");
/// How much more than the baseline is allowed, of it.
const TOLERANCE: f64 = 0.05;
/// Instructions a unit that never count: a case of a few would fail for one more.
const SLACK: f64 = 2.0;

/// Bytes of hostile input, and the same twice.
const HOSTILE: [usize; 2] = [32 << 10, 64 << 10];
/// How much more a byte of twice the input may cost: tables grow, constants do not shrink.
const LINEAR: f64 = 0.15;

fn find(name: &str, hostile: usize) -> Option<cases::Case> {
    let all = match hostile {
        0 => cases::all(),
        size => cases::hostile(size),
    };
    all.into_iter().find(|case| case.name == name)
}

/// What valgrind counts in; by this name.
#[inline(never)]
fn measured(work: cases::Work) -> Box<dyn cases::Drop_> {
    black_box(black_box(work)())
}

/// Instructions a unit of one case.
fn count(name: &str, hostile: usize) -> Option<f64> {
    let total = collected(&["--case", name, &hostile.to_string()])?;
    Some(total / find(name, hostile)?.units as f64)
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
                let total = collected(&["--scale-case", &words[0], &words[1]]).unwrap();
                total / (series.at)(*size).units as f64
            })
            .collect();
        let data = series.data(&costs);
        println!("{}\n{data}", series.name);
        let file = |kind: &str| format!("{directory}/{}.{kind}", series.name);
        std::fs::write(file("csv"), data).unwrap();
        std::fs::write(file("svg"), series.picture(&costs)).unwrap();
    }
}

/// Instructions that this program collects with these arguments.
fn collected(arguments: &[&str]) -> Option<f64> {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .args(["--toggle-collect=instructions::measured"])
        .arg(std::env::current_exe().unwrap())
        .args(arguments)
        .output()
        .ok()?;
    let text = String::from_utf8_lossy(&output.stderr);
    let total = text
        .lines()
        .find_map(|line| line.split("Collected :").nth(1)?.trim().parse::<f64>().ok());
    let Some(total) = total else {
        panic!("valgrind says no count:\n{text}");
    };
    Some(total)
}

/// The compiler, as it names itself.
fn compiler() -> String {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output = Command::new(rustc).arg("--version").output();
    let output = output.map(|output| output.stdout).unwrap_or_default();
    String::from_utf8_lossy(&output).trim().to_owned()
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

fn run(case: cases::Case) -> ExitCode {
    // The first run fills what is computed once.
    drop((case.prepare)()());
    drop(measured((case.prepare)()));
    ExitCode::SUCCESS
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if let Some(at) = words.iter().position(|word| word == "--case") {
        let hostile = words[at + 2].parse().unwrap();
        return run(find(&words[at + 1], hostile).unwrap());
    }
    if let Some(at) = words.iter().position(|word| word == "--scale-case") {
        let [series, size] = [1, 2].map(|behind| words[at + behind].parse::<usize>().unwrap());
        return run((cases::scale::SERIES[series].at)(size));
    }
    if Command::new("valgrind").arg("--version").output().is_err() {
        eprintln!("skipped: there is no valgrind");
        let required = std::env::var_os("KUBEWIRE_REQUIRE_REAL").is_some();
        return if required {
            ExitCode::FAILURE
        } else {
            ExitCode::SUCCESS
        };
    }
    if words.iter().any(|word| word == "--scale") {
        scale();
        return ExitCode::SUCCESS;
    }
    let write = words.iter().any(|word| word == "--write");
    let baseline = read_baseline();
    let compiler = compiler();
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
    for case in cases::all() {
        let now = count(case.name, 0).unwrap();
        counts.insert(case.name, now);
        writeln!(text, "{now:>10.1}  {}", case.name).unwrap();
        let Some(before) = baseline.get(case.name) else {
            println!("{now:>10.1}  {} (new)", case.name);
            failed |= !write;
            continue;
        };
        let worse = now > before * (1.0 + TOLERANCE) + SLACK;
        failed |= worse && !write;
        println!(
            "{now:>10.1}  {} (baseline {before:.1}){}",
            case.name,
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
    let mut quadratic = false;
    for case in cases::hostile(HOSTILE[0]) {
        let [once, twice] = HOSTILE.map(|size| count(case.name, size).unwrap());
        let worse = twice > once * (1.0 + LINEAR) + SLACK;
        quadratic |= worse;
        println!(
            "{once:>10.1}  {}, a byte (of twice as much {twice:.1}){}",
            case.name,
            if worse { ": NOT LINEAR" } else { "" }
        );
    }
    if quadratic {
        eprintln!("error: the cost of some input grows faster than the input");
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

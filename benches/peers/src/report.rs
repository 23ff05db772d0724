//! Runs the sides, each in a process of its own, and compares.

use std::{
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
};

use nix::sys::resource::{UsageWho, getrusage};
use serde_json::{Value, json};

use crate::row::{self, Goal, KUBE_PART, Row, Work};

/// Seconds of CPU and the peak of resident KiB, of this process or of kubectl.
pub(crate) fn usage(side: &str) -> (f64, i64) {
    let who = match side {
        "kubectl" => UsageWho::RUSAGE_CHILDREN,
        _ => UsageWho::RUSAGE_SELF,
    };
    let usage = getrusage(who).expect("the usage of resources");
    let seconds = [usage.user_time(), usage.system_time()]
        .map(|time| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6);
    (seconds.iter().sum(), usage.max_rss())
}

/// A server in a process of its own.
struct Server {
    process: Child,
    words: Vec<String>,
}

impl Server {
    fn start(kind: &str) -> Self {
        let mut process = Command::new(std::env::current_exe().expect("a path"))
            .args(["serve", kind])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a server");
        let stdout = process.stdout.take().expect("a pipe");
        let mut lines = BufReader::new(stdout).lines().map_while(Result::ok);
        let mut words: Vec<_> = lines.by_ref().take_while(|line| line != "end").collect();
        let rest: Vec<_> = lines.take_while(|line| line != "end").collect();
        words.push(rest.join("\n"));
        Self { process, words }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// What one side has shown.
#[derive(Default)]
struct Measured {
    values: Vec<f64>,
    cpu: Vec<f64>,
    peak: i64,
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}

pub(crate) fn run(words: &[String]) {
    let mut runs = 5;
    let mut only = Vec::new();
    let mut words = words.iter();
    while let Some(word) = words.next() {
        match word.as_str() {
            "--runs" => {
                let count = words.next().and_then(|word| word.parse().ok());
                runs = count.expect("--runs is followed by a number");
            }
            name => only.push(name.to_owned()),
        }
    }
    let kubectl = Command::new("kubectl")
        .args(["version", "--client"])
        .output();
    let kubectl = kubectl.is_ok_and(|output| output.status.success());
    if !kubectl {
        eprintln!("skipped: the side kubectl, for there is no kubectl in the PATH");
    }
    let mut all = Vec::new();
    let mut rows = Vec::new();
    println!("| work | side | median | min to max | CPU s | peak MiB | kubewire is better by |");
    println!("|---|---|---|---|---|---|---|");
    for row in row::all() {
        if only.is_empty() || only.iter().any(|name| row.name.contains(name.as_str())) {
            let measured = compare(&row, runs, kubectl);
            rows.push((row, measured.clone()));
            all.extend(measured);
        }
    }
    side_by_side(&rows);
    verdicts(&rows);
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/peers.json");
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory).expect("a directory");
    }
    let text = serde_json::to_string_pretty(&all).expect("JSON");
    std::fs::write(&path, text).expect("a file");
    eprintln!("written to target/peers.json");
}

/// The table of the README: medians, and the seconds of CPU where something is moved.
fn side_by_side(rows: &[(Row, Vec<Value>)]) {
    const SIDES: [&str; 6] = [
        "kubewire",
        "raw",
        "tungstenite",
        "kube-rs-tuned",
        "kube-rs",
        "kubectl",
    ];
    println!("\n| work | {} |", SIDES.join(" | "));
    println!("|---|{}", "---:|".repeat(SIDES.len()));
    for (row, measured) in rows {
        let cells = SIDES.map(|side| {
            let Some(of) = measured.iter().find(|of| of["side"] == side) else {
                return String::new();
            };
            let value = short(of["median"].as_f64().unwrap_or(f64::NAN));
            match row.work {
                Work::Stdout { .. } | Work::Stdin { .. } | Work::Bulk => {
                    format!(
                        "{value} ({:.2} s)",
                        of["cpu_s"].as_f64().unwrap_or(f64::NAN)
                    )
                }
                _ => value,
            }
        });
        println!("| {}, {} | {} |", row.name, row.unit, cells.join(" | "));
    }
}

const BEGIN: &str = "<!-- verdicts: written by benches/peers -->\n";
const END: &str = "<!-- end of verdicts -->";

/// Of each row the goal, what was measured, and whether it is met: printed, and written into the
/// README, whose lines of rows that did not run stay.
fn verdicts(rows: &[(Row, Vec<Value>)]) {
    let lines: Vec<_> = rows
        .iter()
        .filter_map(|(row, of)| verdict(row, of))
        .collect();
    println!("\n{HEAD}{}", lines.concat());
    if cfg!(debug_assertions) {
        eprintln!("a debug build shows that all sides work, not how well: the README stays");
        return;
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../README.md");
    let readme = std::fs::read_to_string(&path).expect("the README");
    let (before, rest) = readme.split_once(BEGIN).expect("the mark of the verdicts");
    let (old, after) = rest.split_once(END).expect("their end");
    let of_row = |row: &Row| {
        let start = format!("| {} |", row.name);
        let all = lines
            .iter()
            .map(String::as_str)
            .chain(old.split_inclusive('\n'));
        all.into_iter().find(|line| line.starts_with(&start))
    };
    let known: Vec<_> = row::all();
    let table: String = known.iter().filter_map(of_row).collect();
    let readme = format!("{before}{BEGIN}{HEAD}{table}{END}{after}");
    std::fs::write(&path, readme).expect("a file");
}

const HEAD: &str = "Of the goals:\n\n| work | goal | measured | verdict |\n|---|---|---|---|\n";

fn verdict(row: &Row, measured: &[Value]) -> Option<String> {
    let of = |side: &str| {
        let found = measured.iter().find(|of| of["side"] == side)?;
        found["median"].as_f64()
    };
    let own = of("kubewire")?;
    let bound = if row.less { "at most " } else { "" };
    let (goal, reached, said) = match row.goal {
        Goal::None => return None,
        Goal::Figure(figure) => {
            let goal = format!("{bound}{} {}", short(figure), row.unit);
            (goal, own / figure, format!("{} {}", short(own), row.unit))
        }
        Goal::Times(times, side) => {
            let part = own / of(side)?;
            let goal = format!("{bound}{times} of {side}");
            (goal, part / times, format!("{part:.2}"))
        }
    };
    let reached = if row.less { 1.0 / reached } else { reached };
    let verdict = match reached >= 1.0 {
        true => "met".to_owned(),
        false => format!("{:.0} % of the way", reached * 100.0),
    };
    Some(format!("| {} | {goal} | {said} | {verdict} |\n", row.name))
}

fn compare(row: &Row, runs: usize, kubectl: bool) -> Vec<Value> {
    let server = (row.server != "none").then(|| Server::start(row.server));
    let addresses = server.as_ref().map_or(&[][..], |server| &server.words);
    let sides: Vec<_> = row
        .sides
        .iter()
        .filter(|side| kubectl || **side != "kubectl")
        .collect();
    let mut measured: Vec<Measured> = sides.iter().map(|_| Measured::default()).collect();
    for run in 0..runs {
        // Nobody is always the one behind the slowest.
        for turn in 0..sides.len() {
            let at = (turn + run) % sides.len();
            let mut command = Command::new(std::env::current_exe().expect("a path"));
            command
                .args(["side", row.name, sides[at]])
                .args(addresses)
                .env_remove("RUST_BACKTRACE")
                .stderr(Stdio::inherit());
            if let Work::Idle { .. } = row.work {
                // glibc keeps what is freed; with this, resident is what is alive.
                command.env("MALLOC_MMAP_THRESHOLD_", "65536");
            }
            let output = command.output().expect("a side");
            let Ok(value) = serde_json::from_slice::<Value>(&output.stdout) else {
                eprintln!("{}: {} failed", row.name, sides[at]);
                continue;
            };
            let part = match row.work {
                Work::Stdout { .. } | Work::Stdin { .. } if *sides[at] == "kube-rs" => KUBE_PART,
                _ => 1,
            };
            let measured = &mut measured[at];
            measured
                .values
                .push(value["value"].as_f64().unwrap_or(f64::NAN));
            measured
                .cpu
                .push(value["cpu_s"].as_f64().unwrap_or(f64::NAN) * part as f64);
            measured.peak = measured.peak.max(value["peak_kib"].as_i64().unwrap_or(0));
        }
    }
    let base = median(&measured[0].values);
    let kept = sides
        .iter()
        .zip(&measured)
        .filter(|(_, of)| !of.values.is_empty());
    let mut all = Vec::new();
    for (side, of) in kept {
        let value = median(&of.values);
        let (min, max) = of
            .values
            .iter()
            .fold((f64::INFINITY, 0.0_f64), |(min, max), value| {
                (min.min(*value), max.max(*value))
            });
        let cpu = median(&of.cpu);
        println!(
            "| {} | {side} | {} {} | {} to {} | {cpu:.2} | {:.1} | {:.2} |",
            row.name,
            short(value),
            row.unit,
            short(min),
            short(max),
            of.peak as f64 / 1024.0,
            if row.less { value / base } else { base / value },
        );
        all.push(json!({
            "row": row.name, "side": side, "unit": row.unit,
            "median": value, "min": min, "max": max,
            "cpu_s": cpu, "peak_kib": of.peak, "runs": of.values.len(),
        }));
    }
    all
}

fn short(value: f64) -> String {
    match value {
        value if value >= 1e6 => format!("{:.2} M", value / 1e6),
        value if value >= 1e4 => format!("{:.1} k", value / 1e3),
        value if value >= 100.0 => format!("{value:.0}"),
        value => format!("{value:.1}"),
    }
}

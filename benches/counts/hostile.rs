//! What hostile input costs: `cargo counts hostile` hands the worst that is known to each decoder
//! and session, and compares with the table in `docs/HOSTILE.md`; with `-- --write` it writes that table
//! anew, and a word chooses rows (`SPDY`).
//!
//! Two things must be so on any machine: twice the input costs no more than twice the instructions,
//! and however much comes, no more memory is held than a row says. A tenth more instructions than
//! in the table are a failure with the compiler that it was written with, as is a missing valgrind
//! where `KUBEWIRE_REQUIRE_REAL` is set.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr
)]

#[path = "support/callgrind.rs"]
mod callgrind;
#[path = "support/hostile/mod.rs"]
mod hostile;

use std::{collections::BTreeMap, fmt::Write as _, process::ExitCode};

use bytes::Bytes;
use hostile::Row;

const TABLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/HOSTILE.md");

/// Bytes of input, and the same twice.
const SIZES: [usize; 2] = [32 << 10, 64 << 10];
/// How much more than twice as much twice the input may cost.
const LINEAR: f64 = 1.05;
/// How much more than the table says is allowed.
const TOLERANCE: f64 = 1.1;

/// Bytes of a row's input, in its pieces.
struct Input {
    pieces: Box<dyn Iterator<Item = Bytes>>,
    left: usize,
    taken: usize,
    fresh: bool,
}

impl Input {
    fn new(row: &Row, size: usize, fresh: bool) -> Self {
        Self {
            pieces: (row.input)(size),
            left: size,
            taken: 0,
            fresh,
        }
    }
}

impl Iterator for Input {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        if self.left == 0 {
            return None;
        }
        let piece = self.pieces.next()?;
        self.left = self.left.saturating_sub(piece.len());
        self.taken += piece.len();
        Some(match self.fresh {
            // As from a socket: whoever keeps it keeps memory.
            true => Bytes::copy_from_slice(&piece),
            false => piece,
        })
    }
}

/// What one row costs.
struct Cost {
    /// Millions of instructions for a MiB that was taken.
    millions: f64,
    /// How much more than twice as much twice the input costs.
    growth: f64,
    /// Bytes that were taken before the end, if not all were.
    refused: Option<usize>,
    /// The most memory that was held.
    memory: usize,
}

/// Runs in valgrind: one row with so many bytes, of which it prints how many were taken.
fn run_case(words: &[String]) {
    let row = hostile::rows().swap_remove(words[0].parse().unwrap());
    let size = words[1].parse().unwrap();
    // The first run fills what is computed once.
    (row.run)(&mut Input::new(&row, 1 << 10, false));
    let mut input = Input::new(&row, size, false);
    callgrind::counted(|| (row.run)(&mut input));
    println!("{}", input.taken);
}

fn measure(at: usize, row: &Row) -> Cost {
    let [once, twice] = SIZES.map(|size| {
        let (instructions, said) = callgrind::count(&[&at.to_string(), &size.to_string()]).unwrap();
        let taken: usize = said.trim().parse().unwrap();
        (instructions, taken)
    });
    let mut input = Input::new(row, row.most, true);
    let counted = allocation_counter::measure(|| (row.run)(&mut input));
    Cost {
        millions: twice.0 / twice.1 as f64 * (1 << 20) as f64 / 1e6,
        // Where it ended early, more than that costs nothing.
        growth: (twice.0 / once.0) / (twice.1 as f64 / once.1 as f64),
        refused: (input.left > 0).then_some(input.taken),
        memory: usize::try_from(counted.bytes_max).unwrap(),
    }
}

/// Bytes for people.
fn bytes(count: usize) -> String {
    match count {
        0..1024 => format!("{count} B"),
        1024..0x10_0000 => format!("{} KiB", count.div_ceil(1 << 10)),
        _ => format!("{} MiB", count.div_ceil(1 << 20)),
    }
}

/// The instructions of each row of the table, by its first two cells.
fn read_table(text: &str) -> BTreeMap<(String, String), f64> {
    let rows = text.lines().filter_map(|line| {
        let mut cells = line.strip_prefix("| ")?.split(" | ");
        let name = (cells.next()?.to_owned(), cells.next()?.to_owned());
        Some((name, cells.next()?.parse().ok()?))
    });
    rows.collect()
}

fn main() -> ExitCode {
    if let Some(words) = callgrind::case() {
        run_case(&words);
        return ExitCode::SUCCESS;
    }
    if let Some(code) = callgrind::missing() {
        return code;
    }
    let mut words: Vec<String> = std::env::args().skip(1).collect();
    let write = words.iter().any(|word| word == "--write");
    words.retain(|word| word != "--write");
    let before = std::fs::read_to_string(TABLE).unwrap_or_default();
    let compiler = callgrind::compiler();
    let comparable = before.contains(&compiler);
    let table = read_table(&before);
    let chosen = |row: &Row| words.iter().all(|word| row.of.contains(word.as_str()));
    let rows: Vec<_> = hostile::rows().into_iter().enumerate().collect();
    let rows: Vec<_> = rows.into_iter().filter(|(_, row)| chosen(row)).collect();
    let costs = callgrind::each(&rows, |(at, row)| measure(*at, row));
    let mut text = String::new();
    let mut failed = false;
    for ((_, row), cost) in rows.iter().zip(&costs) {
        let known = table.get(&(row.of.to_owned(), row.input_is.to_owned()));
        let mut faults = Vec::new();
        if cost.growth > LINEAR {
            faults.push(format!(
                "NOT LINEAR: twice as much costs {:.2} times 2",
                cost.growth
            ));
        }
        if cost.memory > row.bound {
            faults.push(format!("NOT BOUNDED: {} of {}", cost.memory, row.bound));
        }
        if comparable && !write {
            match known {
                Some(known) if cost.millions <= known * TOLERANCE + 1.0 => {}
                Some(known) => faults.push(format!("MORE than {known:.1}")),
                None => faults.push("NOT IN THE TABLE".to_owned()),
            }
        }
        let line = format!(
            "| {} | {} | {:.1} | {:.2} | {} | {} |",
            row.of,
            row.input_is,
            cost.millions,
            2.0 * cost.growth,
            bytes(cost.memory),
            match cost.refused {
                None => format!("goes on after {}", bytes(row.most)),
                Some(taken) => format!("ends after {}", bytes(taken)),
            },
        );
        println!("{line} {}", faults.join("; "));
        failed |= !faults.is_empty();
        writeln!(text, "{line}").unwrap();
    }
    if write {
        let head = before
            .split_once("\n| ")
            .map_or(&before[..], |(head, _)| head)
            .trim_end();
        let head = head
            .lines()
            .map(|line| match line.starts_with("Counted with ") {
                true => format!("Counted with {compiler}."),
                false => line.to_owned(),
            });
        let head = head.collect::<Vec<_>>().join("\n");
        let columns = "| decoder or session | input | million instructions a MiB | twice as much | \
                       most memory | then |\n|---|---|---|---|---|---|\n";
        std::fs::write(TABLE, format!("{head}\n\n{columns}{text}")).unwrap();
    }
    if !comparable && !write {
        println!("the table is of another compiler than {compiler}: instructions are not compared");
    }
    if failed {
        eprintln!("error: some input costs more than it may");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

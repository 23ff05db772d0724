#![allow(clippy::print_stderr, reason = "a bench that is skipped says why")]
//! Instructions, as valgrind counts them: in flow a case of this program, out comes what it took.

use std::{
    collections::BTreeMap,
    hint::black_box,
    process::{Command, ExitCode},
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

/// What is counted is what happens in here; by this name.
#[inline(never)]
pub(crate) fn counted<T>(work: impl FnOnce() -> T) -> T {
    black_box(black_box(work)())
}

/// Runs this program with `--case` and these words under valgrind; the instructions of
/// [`counted`] in it, and what it printed. None without valgrind.
pub(crate) fn count(words: &[&str]) -> Option<(f64, String)> {
    // Who looks for variables goes through all of them.
    let path = std::env::var_os("PATH").map(|path| ("PATH", path));
    let output = Command::new("valgrind")
        .env_clear()
        .envs(path)
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .args(["--toggle-collect=*callgrind::counted*", "--"])
        .arg(std::env::current_exe().expect("a path"))
        .arg("--case")
        .args(words)
        .output()
        .ok()?;
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{words:?} failed:\n{text}");
    let total = text
        .lines()
        .find_map(|line| line.split("Collected :").nth(1)?.trim().parse::<f64>().ok());
    let Some(total) = total else {
        panic!("valgrind says no count:\n{text}");
    };
    Some((total, String::from_utf8_lossy(&output.stdout).into_owned()))
}

/// What each of these takes, as many at a time as there are cores: counts do not change with it.
pub(crate) fn each<T: Sync, R: Send>(all: &[T], measure: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let next = AtomicUsize::new(0);
    let found = Mutex::new(BTreeMap::new());
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    let Some(one) = all.get(at) else { return };
                    let measured = measure(one);
                    found.lock().expect("no panic").insert(at, measured);
                }
            });
        }
    });
    found
        .into_inner()
        .expect("no panic")
        .into_values()
        .collect()
}

/// The words behind `--case`, in the program that valgrind runs.
pub(crate) fn case() -> Option<Vec<String>> {
    let mut words = std::env::args().skip_while(|word| word != "--case");
    words.next()?;
    Some(words.collect())
}

/// How a bench ends that cannot count here: as a failure where `KUBEWIRE_REQUIRE_REAL` is set.
pub(crate) fn missing() -> Option<ExitCode> {
    if Command::new("valgrind").arg("--version").output().is_ok() {
        return None;
    }
    eprintln!("skipped: there is no valgrind");
    let required = std::env::var_os("KUBEWIRE_REQUIRE_REAL").is_some();
    Some(if required {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

/// The compiler, as it names itself.
pub(crate) fn compiler() -> String {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output = Command::new(rustc).arg("--version").output();
    let output = output.map(|output| output.stdout).unwrap_or_default();
    String::from_utf8_lossy(&output).trim().to_owned()
}

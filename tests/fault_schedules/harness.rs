//! Schedules by number, each in a runtime of its own whose clock jumps from timer to timer.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    time::Duration,
};

/// SplitMix64: a schedule's choices, from its number.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }

    pub(crate) fn one_in(&mut self, bound: u64) -> bool {
        self.below(bound) == 0
    }

    pub(crate) fn bytes(&mut self, count: u64) -> Vec<u8> {
        let words = 0..count.div_ceil(8);
        let words = words.flat_map(|_| self.below(u64::MAX).to_le_bytes());
        words.take(count as usize).collect()
    }
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().expect("a number"))
}

/// No schedule takes that long, by a clock that does not jump, not on the busiest machine either.
const PATIENCE: Duration = Duration::from_secs(300);

fn run<F: AsyncFn(u64)>(schedule: &F, seed: u64) -> bool {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .unwrap();
    let run = || runtime.block_on(schedule(seed));
    catch_unwind(AssertUnwindSafe(run)).is_ok()
}

/// Runs all schedules on two threads.
pub(crate) fn run_all(schedule: impl AsyncFn(u64) + Send + Sync + 'static) {
    let replay = "run it alone with KUBEWIRE_SEED";
    let seeds = match number("KUBEWIRE_SEED") {
        Some(seed) => seed..seed + 1,
        None if cfg!(debug_assertions) => 0..number("KUBEWIRE_SCHEDULES").unwrap_or(300),
        None => 0..number("KUBEWIRE_SCHEDULES").unwrap_or(10_000),
    };
    let next = Arc::new(AtomicU64::new(seeds.start));
    let schedule = Arc::new(schedule);
    let (done, results) = mpsc::channel();
    // Not scoped: one that hangs cannot be joined.
    for _ in 0..2 {
        let (next, schedule, done) = (next.clone(), schedule.clone(), done.clone());
        std::thread::spawn(move || {
            loop {
                let seed = next.fetch_add(1, Ordering::Relaxed);
                if seed >= seeds.end || done.send((seed, None)).is_err() {
                    return;
                }
                let _ = done.send((seed, Some(run(&*schedule, seed))));
            }
        });
    }
    drop(done);
    let mut under_way = Vec::new();
    loop {
        match results.recv_timeout(PATIENCE) {
            Ok((seed, None)) => under_way.push(seed),
            Ok((seed, Some(true))) => under_way.retain(|&other| other != seed),
            Ok((seed, Some(false))) => panic!("schedule {seed} fails: {replay}={seed}"),
            Err(mpsc::RecvTimeoutError::Timeout) => {
                panic!("one of the schedules {under_way:?} hangs: {replay}")
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => return,
        }
    }
}

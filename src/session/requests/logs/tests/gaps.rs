//! Lines that a kubelet has rotated away, and a clock that has stepped back.

use super::{MS, SECOND, kubelet::*};
use crate::session::logs::*;

/// A line written in this second, which says so.
fn line(second: u64) -> (u64, String) {
    (second * SECOND, format!("line {second}"))
}

fn lines(seconds: impl IntoIterator<Item = u64>) -> Vec<(u64, String)> {
    seconds.into_iter().map(line).collect()
}

fn texts(seconds: impl IntoIterator<Item = u64>) -> Vec<String> {
    seconds.into_iter().map(|second| line(second).1).collect()
}

fn tail(lines: u64) -> LogConfig {
    LogConfig {
        tail_lines: Some(lines),
        ..config()
    }
}

/// A reader of a log with these lines, all of which it has.
fn reading(config: LogConfig, seconds: impl IntoIterator<Item = u64>) -> World {
    let mut kubelet = Kubelet::new();
    kubelet.current().lines = lines(seconds);
    let mut world = start(config, kubelet, 1);
    world.settle();
    world
}

#[test]
fn what_was_rotated_away_during_a_cut_is_told() {
    let mut world = reading(config(), 1000..1010);
    world.end(true);
    // 15 lines were written, and the first five of them are in a file that nobody reads.
    world.kubelet.current().lines = lines(1015..1025);
    world.settle();
    assert_eq!(world.lines, texts((1000..1010).chain(1015..1025)));
    assert_eq!(world.gaps, [(10, stamp(1009 * SECOND))]);
    // After another cut the last line comes again.
    world.end(true);
    world.kubelet.current().lines.extend(lines(1025..1027));
    world.settle();
    assert_eq!(world.lines, texts((1000..1010).chain(1015..1027)));
    assert_eq!(world.gaps.len(), 1);
}

#[test]
fn what_was_rotated_away_is_told_at_the_end_too() {
    let finite = LogConfig {
        follow: false,
        ..config()
    };
    for config in [config(), finite] {
        let mut world = start(config, Kubelet::new(), 1);
        world.kubelet.current().lines = lines(1000..1010);
        while world.open.is_none() {
            match world.request() {
                Some(LogRequest::Log(_)) => {
                    world.head(200);
                    world.open = Some((0, 0, 0));
                }
                Some(request) => world.answer(&request),
                None => world.sleep(),
            }
        }
        world.send(usize::MAX, 1000);
        world.end(true);
        world.kubelet.current().lines.clear();
        world.kubelet.current().exit = Some(0);
        world.settle();
        assert_eq!(world.lines, texts(1000..1010));
        assert_eq!(world.gaps, [(10, stamp(1009 * SECOND))]);
        assert!(world.end.is_some());
    }
}

#[test]
fn no_gap_is_told_where_there_is_none() {
    for config in [config(), tail(10)] {
        let mut world = reading(config, 1000..1010);
        for n in 1010..1020 {
            world.end(true);
            world.settle();
            world.kubelet.current().lines.push(line(n));
            world.settle();
        }
        assert_eq!(world.lines, texts(1000..1020));
        assert_eq!(world.gaps, []);
    }
}

/// The lines that `tail` leaves out come after a cut, for their stamps are later.
#[test]
fn lines_from_before_the_tail_do_not_come_after_a_clock_has_stepped_back() {
    for (wanted, left_out) in [(3, 302), (10, 295)] {
        let all: Vec<_> = (1000..1300).chain(700..705).collect();
        let mut kubelet = Kubelet::new();
        kubelet.current().lines = lines(all[left_out..].iter().copied());
        let mut world = start(tail(wanted), kubelet, 1);
        world.settle();
        world.kubelet.current().lines = lines(all.iter().copied().chain(705..710));
        world.end(true);
        world.settle();
        let expected = all[left_out..].iter().copied().chain(705..710);
        assert_eq!(world.lines, texts(expected));
        assert_eq!(world.gaps, []);
    }
}

/// That it may be rotated too shows only after a while.
#[test]
fn lines_after_a_clock_has_stepped_back_come_though_the_log_was_rotated() {
    let all = (1000..1300).chain(700..705);
    for ended in [false, true] {
        let mut world = reading(tail(305), all.clone());
        assert_eq!(world.lines.len(), 305);
        world.end(true);
        world.kubelet.current().lines = lines(705..710);
        world.kubelet.current().exit = ended.then_some(0);
        world.settle();
        if !ended {
            assert_eq!(world.lines.len(), 305, "the last line may still come");
            let before = world.now;
            world.sleep();
            assert_eq!(world.now - before, limits::LOG_DOUBT);
        }
        assert_eq!(world.lines, texts(all.clone().chain(705..710)));
        assert_eq!(world.gaps, [(305, stamp(704 * SECOND))]);
        world.kubelet.current().lines.push(line(710));
        world.settle();
        assert_eq!(world.lines.len(), 310 + usize::from(!ended));
    }
}

#[test]
fn what_is_held_back_in_doubt_is_bounded_and_comes_whole() {
    let mut world = reading(tail(1), [1000]);
    world.end(true);
    let long = "x".repeat(1000);
    let many = (limits::LOG_HELD / 1000 + 10) as u64;
    world.kubelet.current().lines = (0..many)
        .map(|n| (2000 * SECOND + n * MS, long.clone()))
        .collect();
    world.settle();
    // A line is longer than one piece may be.
    assert_eq!(world.lines.len() as u64, 1 + many);
    assert!(world.lines[1..].iter().all(|line| *line == long));
    assert_eq!(world.gaps, [(1, stamp(1000 * SECOND))]);
}

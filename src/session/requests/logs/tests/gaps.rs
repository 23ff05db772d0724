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

/// What does not lead on is told when the pod has been asked whose it is.
pub(super) fn until(world: &mut World, lines: usize) {
    let before = world.now;
    while world.lines.len() < lines {
        world.sleep();
        world.settle();
        let most = limits::LOG_DOUBT + limits::POD_POLL;
        assert!(world.now - before <= most, "{:?}", world.lines.len());
    }
}

#[test]
fn what_was_rotated_away_during_a_cut_is_told() {
    let mut world = reading(config(), 1000..1010);
    world.end(true);
    // 15 lines were written, and the first five of them are in a file that nobody reads.
    world.kubelet.current().lines = lines(1015..1025);
    world.settle();
    until(&mut world, 20);
    assert_eq!(world.lines, texts((1000..1010).chain(1015..1025)));
    assert_eq!(world.gaps, [(10, stamp(1009 * SECOND))]);
    // After another cut the last line comes again.
    world.end(true);
    world.kubelet.current().lines.extend(lines(1025..1027));
    world.settle();
    assert_eq!(world.lines, texts((1000..1010).chain(1015..1027)));
    assert_eq!(world.gaps.len(), 1);
}

/// What is open for long and brings nothing new is no refusal.
#[test]
fn a_server_that_gave_a_quiet_log_in_between_may_refuse_again() {
    let mut world = reading(config(), 1000..1010);
    world.end(true);
    let mut turn = 0;
    while turn < 4 {
        match world.request() {
            Some(LogRequest::Log(query)) => {
                turn += 1;
                match turn {
                    2 => {
                        world.head(200);
                        let (index, since, _) = world.kubelet.open(&query).unwrap();
                        world.open = Some((index, since, 0));
                        // Not as far as to the last line that is known.
                        world.send(20, 20);
                        world.open = None;
                    }
                    4 => {
                        world.kubelet.current().lines.push(line(1010));
                        world.head(200);
                        let (index, since, _) = world.kubelet.open(&query).unwrap();
                        world.open = Some((index, since, 0));
                    }
                    _ => world.respond(503, b"not now"),
                }
            }
            Some(request) => world.answer(&request),
            None => world.sleep(),
        }
    }
    world.settle();
    assert!(world.end.is_none(), "{:?}", world.end);
    assert_eq!(world.lines, texts(1000..1011));
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
                    world.open = Some((0, Begin::default(), 0));
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
            until(&mut world, 310);
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

#[test]
fn an_instance_that_came_and_went_during_a_cut_is_told() {
    let config = LogConfig {
        across_restarts: true,
        ..config()
    };
    for missed in [false, true] {
        let mut world = start(config.clone(), Kubelet::new(), 1);
        world.kubelet.write("old", MS);
        world.settle();
        let last = world.kubelet.clock;
        for _ in 0..=u32::from(missed) {
            world.kubelet.restart(1);
            world.kubelet.write("new", MS);
        }
        world.end(true);
        world.settle();
        assert_eq!(world.lines, ["old", "new"]);
        let told: &[_] = if missed { &[(1, stamp(last))] } else { &[] };
        assert_eq!(world.gaps, told);
    }
}

#[test]
fn a_clock_that_steps_back_during_a_cut_or_after_it_hides_no_line() {
    for (config, exit) in [(config(), None), (tail(1000), None), (config(), Some(0))] {
        let mut world = reading(config, 1000..1300);
        world.end(true);
        world.kubelet.current().lines.extend(lines(700..705));
        world.kubelet.current().exit = exit;
        world.settle();
        if exit.is_none() {
            world.kubelet.current().lines.extend(lines(600..605));
            world.settle();
            world.end(true);
            world.kubelet.current().lines.extend(lines(605..610));
            world.settle();
        }
        let late = if exit.is_none() { 600..610 } else { 0..0 };
        assert_eq!(world.lines, texts((1000..1300).chain(700..705).chain(late)));
        assert_eq!(world.gaps, []);
    }
}

#[test]
fn more_lines_than_are_asked_for_to_go_on_are_no_gap() {
    let many = u64::from(limits::LOG_AGAIN) + 10;
    for exit in [None, Some(0)] {
        let mut world = reading(config(), 1000..1010);
        world.end(true);
        let all = 1000..1010 + many;
        world.kubelet.current().lines = lines(all.clone());
        world.kubelet.current().exit = exit;
        world.settle();
        assert_eq!(world.lines, texts(all));
        assert_eq!(world.gaps, []);
    }
}

/// No request for a log names the instance, and what the pod says is a second old.
#[test]
fn an_instance_that_begins_before_the_pod_says_so_is_no_gap() {
    for across_restarts in [true, false] {
        let config = LogConfig {
            across_restarts,
            ..config()
        };
        let mut world = reading(config, 1000..1010);
        world.kubelet.current().lines.extend(lines(1010..1012));
        world.end(true);
        loop {
            match world.request() {
                Some(LogRequest::Log(query)) => {
                    world.kubelet.restart(3);
                    world.kubelet.current().lines = lines(1020..1025);
                    world.answer(&LogRequest::Log(query));
                    break;
                }
                Some(request) => world.answer(&request),
                None => world.sleep(),
            }
        }
        world.settle();
        let next = if across_restarts { 1020..1025 } else { 0..0 };
        until(&mut world, 12 + next.clone().count());
        assert_eq!(world.gaps, []);
        assert_eq!(world.lines, texts((1000..1012).chain(next)));
        match across_restarts {
            true => assert_eq!(world.restarts, [Some(3)]),
            false => assert!(matches!(
                world.end,
                Some(LogEnd::Exited(Exit { code: Some(3), .. }))
            )),
        }
    }
}

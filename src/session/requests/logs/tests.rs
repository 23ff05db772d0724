//! Logs against a kubelet in memory, in virtual time, with faults.

use std::time::{Duration, Instant};

use self::kubelet::{Begin, Kubelet, START, World, config, start};
use super::*;
use crate::{error::CallerError, session::Exchange as _};

mod gaps;
mod kubelet;
mod refusals;
mod schedules;

const MS: u64 = 1_000_000;

#[test]
fn a_followed_log_resumes_after_a_cut_without_loss_or_repetition() {
    let mut world = start(config(), Kubelet::new(), 1);
    for n in 0..10 {
        world.kubelet.write(format!("line {n}"), 150 * MS);
    }
    world.settle();
    assert_eq!(world.lines.len(), 10);
    world.kubelet.write("line 10", 150 * MS);
    // A part of the line arrives, then nothing more.
    world.send(35, 10);
    world.end(true);
    world.kubelet.write("line 11", 150 * MS);
    world.settle();
    let expected: Vec<_> = (0..12).map(|n| format!("line {n}")).collect();
    assert_eq!(world.lines, expected);
    assert_eq!(world.notices, Vec::<String>::new());
    assert!(world.end.is_none());
}

#[test]
fn equal_stamps_and_long_lines_survive_a_cut_anywhere() {
    let mut kubelet = Kubelet::new();
    kubelet.write("first", 900 * MS);
    kubelet.write("same", 0);
    kubelet.write("same", 0);
    kubelet.write("x".repeat(250) + "end of the long one", 200 * MS);
    // Stamped before the line above was, and written after it.
    kubelet
        .current()
        .lines
        .push((START + 1000 * MS, "late".into()));
    kubelet.write("", 10 * MS);
    kubelet.write("last", 10 * MS);
    let texts: Vec<_> = kubelet
        .current()
        .lines
        .iter()
        .map(|(_, t)| t.clone())
        .collect();
    let len = kubelet.text(0, Begin::default()).len();
    for first in 0..=len {
        for second in [0, 1, first / 2, len] {
            let mut world = start(config(), Kubelet::new(), 1);
            world.kubelet.instances = kubelet.instances.clone();
            for cut in [first, second] {
                while world.open.is_none() {
                    match world.request() {
                        Some(LogRequest::Log(query)) => {
                            world.head(200);
                            let (index, since, _) = world.kubelet.open(&query).unwrap();
                            world.open = Some((index, since, 0));
                        }
                        Some(request) => world.answer(&request),
                        None => world.sleep(),
                    }
                }
                world.send(cut, 50);
                world.end(first % 2 == 0);
            }
            world.settle();
            assert_eq!(world.lines, texts, "cut at {first}, then {second}");
            assert_eq!(world.gaps, []);
            assert_eq!(world.notices, Vec::<String>::new());
        }
    }
}

#[test]
fn the_end_of_the_container_is_the_end_with_its_exit_code() {
    let mut world = start(config(), Kubelet::new(), 1);
    world.kubelet.write("one", MS);
    world.settle();
    world.kubelet.write("two", MS);
    world.kubelet.write("no newline", MS);
    world.kubelet.current().unfinished = true;
    world.kubelet.current().exit = Some(3);
    // The kubelet dies before it has sent everything, which looks like an end in order.
    world.send(20, 10);
    world.end(false);
    world.settle();
    assert_eq!(world.lines, ["one", "two", "no newline"]);
    let Some(LogEnd::Exited(exit)) = &world.end else {
        panic!("{:?}", world.end);
    };
    assert_eq!((exit.code, exit.reason.as_str()), (Some(3), "Error"));
}

#[test]
fn a_restart_ends_the_log_or_not_as_asked() {
    for across_restarts in [false, true] {
        let config = LogConfig {
            across_restarts,
            ..config()
        };
        let mut world = start(config, Kubelet::new(), 1);
        world.kubelet.write("old 1", MS);
        world.settle();
        world.kubelet.write("old 2", MS);
        world.kubelet.restart(7);
        world.kubelet.write("new 1", MS);
        world.end(true);
        world.settle();
        if across_restarts {
            assert_eq!(world.lines, ["old 1", "old 2", "new 1"]);
            assert_eq!(world.restarts, [Some(7)]);
            assert!(world.end.is_none());
        } else {
            assert_eq!(world.lines, ["old 1", "old 2"]);
            assert!(matches!(&world.end, Some(LogEnd::Exited(e)) if e.code == Some(7)));
        }
    }
}

/// A reader of all instances, which has the line of the first.
fn across_restarts() -> World {
    let config = LogConfig {
        across_restarts: true,
        ..config()
    };
    let mut world = start(config, Kubelet::new(), 1);
    world.kubelet.write("old", MS);
    world.settle();
    world
}

#[test]
fn an_instance_that_was_removed_meanwhile_ends_no_log() {
    let mut world = across_restarts();
    world.kubelet.removes = true;
    world.kubelet.restart(7);
    world.kubelet.write("new", MS);
    world.end(true);
    world.settle();
    assert_eq!(world.lines, ["old", "new"]);
    assert!(world.end.is_none(), "{:?}", world.end);
}

#[test]
fn what_an_instance_wrote_before_two_restarts_is_missed_aloud() {
    let mut world = start(config(), Kubelet::new(), 1);
    world.kubelet.write("old", MS);
    world.settle();
    world.kubelet.write("unread", MS);
    world.kubelet.restart(7);
    world.kubelet.restart(8);
    world.end(true);
    world.settle();
    assert_eq!(world.lines, ["old"]);
    assert_eq!(world.gaps.len(), 1);
    assert!(matches!(&world.end, Some(LogEnd::Exited(e)) if e.code.is_none()));
}

#[test]
fn between_restarts_it_waits() {
    let mut world = across_restarts();
    world.kubelet.current().exit = Some(1);
    world.kubelet.backing_off = true;
    world.settle();
    assert!(world.end.is_none());
    world.kubelet.backing_off = false;
    world.kubelet.restart(1);
    world.kubelet.write("new", MS);
    world.requests.clear();
    world.settle();
    assert_eq!(world.lines, ["old", "new"]);
    // A container that is not to be started again ends even so.
    world.kubelet.policy = "Never";
    world.kubelet.current().exit = Some(0);
    world.settle();
    assert!(matches!(&world.end, Some(LogEnd::Exited(e)) if e.code == Some(0)));
}

#[test]
fn a_pod_that_never_ran_is_refused_and_not_silent() {
    let mut kubelet = Kubelet::new();
    kubelet.rejected = true;
    let mut world = start(config(), kubelet, 1);
    world.settle();
    let Some(LogEnd::Failed(Error::Api(refusal))) = &world.end else {
        panic!("{:?}", world.end);
    };
    assert_eq!(refusal.status.code, 400);
}

#[test]
fn a_pod_that_is_gone_or_replaced_is_told_from_a_cut() {
    let mut world = start(config(), Kubelet::new(), 1);
    world.kubelet.write("one", MS);
    world.settle();
    world.kubelet.gone = true;
    world.end(false);
    world.settle();
    assert!(
        matches!(world.end, Some(LogEnd::PodGone)),
        "{:?}",
        world.end
    );

    let mut world = start(config(), Kubelet::new(), 1);
    world.settle();
    world.kubelet.uid = "u-2";
    world.end(true);
    world.settle();
    assert!(matches!(world.end, Some(LogEnd::PodReplaced)));
}

#[test]
fn text_of_the_kubelet_is_no_line() {
    let mut world = start(config(), Kubelet::new(), 1);
    world.kubelet.write("one", MS);
    world.settle();
    world.body(b"unable to retrieve container logs for containerd://0\n");
    world.end(false);
    world.kubelet.write("two", MS);
    world.settle();
    assert_eq!(world.lines, ["one", "two"]);
    assert_eq!(world.notices.len(), 1);
    assert_eq!(
        world.failures,
        ["logs of pod default/web-0: unable to retrieve container logs for containerd://0"]
    );

    // Each reading repeats it, and it is told once, until a line has come.
    let mut refused = || {
        for _ in 0..3 {
            world.body(b"unable to retrieve container logs for containerd://0\n");
            world.end(false);
            world.settle();
        }
        world.notices.len()
    };
    assert_eq!(refused(), 2);
    assert_eq!(refused(), 2);

    let whole = LogConfig {
        follow: false,
        ..config()
    };
    let mut world = start(whole, Kubelet::new(), 1);
    world.request().unwrap();
    world.head(200);
    world.body(b"failed to try resolving symlinks");
    world.end(false);
    assert!(matches!(world.end, Some(LogEnd::Failed(Error::Api(_)))));
}

#[test]
fn a_finite_log_ends_complete_and_resumes_where_it_was_cut() {
    let whole = LogConfig {
        follow: false,
        tail_lines: Some(3),
        ..config()
    };
    let mut world = start(whole, Kubelet::new(), 1);
    for n in 0..3 {
        world.kubelet.write(format!("line {n}"), 400 * MS);
    }
    let Some(LogRequest::Log(query)) = world.request() else {
        panic!("a finite log needs no pod");
    };
    assert!(query.contains(&("tailLines", "3".into())));
    assert!(!query.iter().any(|(name, _)| *name == "follow"));
    world.head(200);
    world.open = Some((0, Begin::default(), 0));
    world.send(60, 7);
    world.end(true);
    world.settle();
    assert_eq!(world.lines, ["line 0", "line 1", "line 2"]);
    assert!(matches!(world.end, Some(LogEnd::Complete)));
    let Some(LogRequest::Log(query)) = world.requests.last() else {
        panic!("{:?}", world.requests);
    };
    assert!(query.contains(&("tailLines", limits::LOG_AGAIN.to_string())));
    assert!(query.contains(&("sinceTime", "2026-11-21T01:55:55Z".into())));
}

fn query(world: &World) -> Vec<(&'static str, String)> {
    match world.requests.last() {
        Some(LogRequest::Log(query)) => query.clone(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_comes_while_a_log_without_lines_is_cut_off_is_not_skipped() {
    let skipping = LogConfig {
        tail_lines: Some(1),
        since_seconds: Some(60),
        ..config()
    };
    let mut world = start(skipping.clone(), Kubelet::new(), 1);
    world.settle();
    assert!(query(&world).contains(&("tailLines", "1".into())));
    assert!(query(&world).contains(&("sinceSeconds", "60".into())));
    // It was open for long: then there are no lines before that would have to be skipped.
    world.now += Duration::from_secs(100);
    world.end(true);
    world.now += Duration::from_secs(200);
    world.kubelet.write("one", MS);
    world.kubelet.write("two", MS);
    world.settle();
    assert_eq!(world.lines, ["one", "two"]);
    let query_after = query(&world);
    assert!(
        query_after.contains(&("sinceSeconds", "302".into())),
        "{query_after:?}"
    );
    assert!(!query_after.iter().any(|(name, _)| *name == "tailLines"));

    // Cut at once, it says nothing: what was to be skipped still is, but no more than that.
    let mut world = start(skipping, Kubelet::new(), 1);
    world.settle();
    world.end(true);
    world.now += Duration::from_secs(30);
    world.settle();
    assert!(query(&world).contains(&("tailLines", "1".into())));
    let seconds = query(&world)
        .into_iter()
        .find(|(name, _)| *name == "sinceSeconds");
    let seconds: u64 = seconds.unwrap().1.parse().unwrap();
    assert!((90..=92).contains(&seconds), "{seconds}");
}

#[test]
fn of_the_next_instance_nothing_is_skipped() {
    let config = LogConfig {
        tail_lines: Some(0),
        across_restarts: true,
        ..config()
    };
    let mut world = start(config, Kubelet::new(), 1);
    world.settle();
    world.kubelet.restart(1);
    world.kubelet.write("new", MS);
    world.end(false);
    world.settle();
    assert_eq!(world.lines, ["new"]);
    let skipped = |(name, _): &(&str, String)| *name == "tailLines";
    assert!(!query(&world).iter().any(skipped));
}

#[test]
fn a_log_that_is_silent_is_asked_for_again_without_trouble() {
    let mut world = start(config(), Kubelet::new(), 1);
    world.kubelet.write("one", MS);
    world.settle();
    for _ in 0..5 {
        // Nothing arrives any more, and nothing ends.
        world.requests.clear();
        world.sleep();
        world.open = None;
        world.kubelet.write("more", 100 * MS);
        world.settle();
        assert_eq!(world.requests.len(), 2, "the pod and the log");
    }
    assert_eq!(world.lines, ["one", "more", "more", "more", "more", "more"]);
    assert_eq!(world.failures, Vec::<String>::new());
}

#[test]
fn the_end_of_an_instance_is_read_until_nothing_new_comes() {
    let mut world = start(config(), Kubelet::new(), 1);
    for n in 0..5 {
        world.kubelet.write(format!("line {n}"), MS);
    }
    world.kubelet.current().exit = Some(0);
    // The kubelet dies under every reading, which looks like an end in order. One that comes as far
    // as the one before proves nothing if the server was in trouble in between.
    let (lost, refused) = (Err(true), Err(false));
    let all = Ok(usize::MAX);
    let readings = [Ok(0), lost, Ok(0), Ok(45), refused, Ok(45), lost, Ok(45)];
    for reading in readings.into_iter().chain([Ok(100), Ok(140), all, all]) {
        loop {
            assert!(world.end.is_none(), "{reading:?}");
            match world.request() {
                Some(LogRequest::Log(_)) => break,
                Some(request) => world.answer(&request),
                None => world.sleep(),
            }
        }
        match reading {
            Ok(sent) => {
                world.head(200);
                world.open = Some((0, Begin::default(), 0));
                world.send(sent, 1000);
            }
            Err(true) => {
                world.end(true);
                continue;
            }
            Err(false) => world.head(500),
        }
        world.end(false);
    }
    world.settle();
    let expected: Vec<_> = (0..5).map(|n| format!("line {n}")).collect();
    assert_eq!(world.lines, expected);
    assert!(matches!(&world.end, Some(LogEnd::Exited(e)) if e.code == Some(0)));
    assert_eq!(world.notices, Vec::<String>::new());
}

#[test]
fn a_log_of_an_ended_instance_that_cannot_be_read_fails_in_the_end() {
    let mut world = start(config(), Kubelet::new(), 1);
    world.kubelet.current().exit = Some(1);
    for _ in 0..100 {
        match world.request() {
            Some(LogRequest::Log(_)) => {
                world.head(200);
                world.body(b"unable to retrieve container logs for containerd://0");
                world.end(false);
            }
            Some(request) => world.answer(&request),
            None => world.sleep(),
        }
    }
    assert!(
        matches!(&world.end, Some(LogEnd::Failed(Error::Api(_)))),
        "{:?}",
        world.end
    );
}

#[test]
fn a_finite_log_gives_up_after_a_few_attempts() {
    let whole = LogConfig {
        follow: false,
        ..config()
    };
    let mut world = start(whole, Kubelet::new(), 1);
    while world.end.is_none() {
        match world.request() {
            Some(_) => world.end(true),
            None => world.sleep(),
        }
    }
    assert!(matches!(world.end, Some(LogEnd::Failed(Error::Network(_)))));
    assert_eq!(world.requests.len() as u32, limits::LOG_RETRIES + 1);
}

#[test]
fn what_the_caller_did_wrong_ends_a_log() {
    for follow in [false, true] {
        let now = Instant::now();
        let mut logs = Logs::new(LogConfig { follow, ..config() }, now, 1);
        assert!(logs.poll_request(now).is_some());
        logs.handle_end(now, Some(CallerError::NoRuntime.into()));
        let end = std::iter::from_fn(|| logs.poll_update()).last();
        assert!(
            matches!(
                end,
                Some(LogUpdate::Ended(LogEnd::Failed(Error::Caller(_))))
            ),
            "{end:?}"
        );
        assert_eq!((logs.poll_timeout(), logs.poll_request(now)), (None, None));
    }
}

#[test]
fn the_bound_on_bytes_counts_what_the_user_sees() {
    for (limit, expected) in [(1, vec!["o"]), (4, vec!["one"]), (5, vec!["one", "t"])] {
        let limited = LogConfig {
            follow: false,
            limit_bytes: Some(limit),
            ..config()
        };
        let mut world = start(limited, Kubelet::new(), 1);
        world.kubelet.write("one", MS);
        world.kubelet.write("two", MS);
        world.settle();
        assert_eq!(world.lines, expected);
        assert!(matches!(world.end, Some(LogEnd::Limit)));
    }
}

#[test]
fn without_resumption_the_lines_are_what_the_server_sent() {
    let plain = LogConfig {
        follow: false,
        resume: false,
        limit_bytes: Some(10),
        ..config()
    };
    let mut world = start(plain, Kubelet::new(), 1);
    let request = world.request().unwrap();
    assert_eq!(request, LogRequest::Log(vec![("limitBytes", "10".into())]));
    world.head(200);
    world.body(b"no stamp\nat ");
    world.body(b"all");
    world.end(false);
    // A server that gives more than it was asked for changes nothing about the bound.
    assert_eq!(world.lines, ["no stamp", "a"]);
    assert!(matches!(world.end, Some(LogEnd::Limit)));
}

#[test]
fn a_user_who_may_not_read_pods_still_gets_the_log() {
    let mut world = start(config(), Kubelet::new(), 1);
    assert_eq!(world.request(), Some(LogRequest::Pod));
    world.head(403);
    world.end(false);
    assert!(matches!(world.request(), Some(LogRequest::Log(_))));
    world.head(200);
    world.body(b"2026-11-22T01:55:55.000000001Z one\n");
    world.end(true);
    while world.request().is_none() {
        world.sleep();
    }
    world.head(200);
    world.body(b"2026-11-22T01:55:55.000000001Z one\n2026-11-22T01:55:56Z two\n");
    world.end(false);
    assert_eq!(world.lines, ["one", "two"]);
    assert!(matches!(world.end, Some(LogEnd::Complete)));
}

#[test]
fn a_container_that_does_not_exist_is_named_with_those_that_do() {
    let other = LogConfig {
        container: Some("nope".into()),
        ..config()
    };
    let mut world = start(other, Kubelet::new(), 1);
    world.settle();
    let Some(LogEnd::Failed(error)) = &world.end else {
        panic!("{:?}", world.end);
    };
    let text = "pod default/web-0 has no container \"nope\"; it has main, side";
    assert_eq!(error.to_string(), text);
}

const SECOND: u64 = 1000 * MS;

#[test]
fn a_clock_that_steps_back_hides_no_line() {
    let mut kubelet = Kubelet::new();
    let line = |second: u64| (second * SECOND, format!("line {second}"));
    kubelet.current().lines = (1000..1300).chain(700..705).map(line).collect();
    let mut world = start(config(), kubelet, 1);
    world.settle();
    world.kubelet.current().lines.extend((705..710).map(line));
    world.end(true);
    world.settle();
    let expected: Vec<_> = (1000..1300).chain(700..710).map(|n| line(n).1).collect();
    assert_eq!(world.lines, expected);

    // Nor where the log is rotated as well, so that nothing of it comes again.
    let mut kubelet = Kubelet::new();
    kubelet.current().lines = (1000..1300).chain(700..705).map(line).collect();
    let mut world = start(config(), kubelet, 1);
    world.settle();
    world.kubelet.current().lines = (705..710).map(line).collect();
    world.end(true);
    world.settle();
    gaps::until(&mut world, expected.len());
    assert_eq!(world.lines, expected);
    assert_eq!(world.gaps, [(305, kubelet::stamp(704 * SECOND))]);

    // And none of the next instance.
    let config = LogConfig {
        across_restarts: true,
        ..config()
    };
    let mut kubelet = Kubelet::new();
    kubelet.current().lines = vec![line(1000), line(1001)];
    let mut world = start(config, kubelet, 1);
    world.settle();
    world.kubelet.restart(1);
    world.kubelet.current().lines = vec![line(900), line(1001), line(1002)];
    world.end(false);
    world.settle();
    assert_eq!(
        world.lines,
        [
            "line 1000",
            "line 1001",
            "line 900",
            "line 1001",
            "line 1002"
        ]
    );
}

#[test]
fn a_server_that_ends_each_log_after_a_line_is_asked_ever_less_often() {
    for (exit, cut) in [(None, false), (None, true), (Some(0), false)] {
        let mut kubelet = Kubelet::new();
        kubelet.current().exit = exit;
        let mut world = start(config(), kubelet, 1);
        let mut sent = 0;
        let asked = world.hour(|world, request| match request {
            LogRequest::Pod => world.answer(&request),
            LogRequest::Log(_) => {
                world.kubelet.write(format!("{sent}"), MS);
                let at = world.kubelet.text(0, Begin::default()).len();
                let text = world.kubelet.text(0, Begin::default());
                let line = text[..at - 1].iter().rposition(|b| *b == b'\n');
                sent += 1;
                world.head(200);
                world.body(&text[line.map_or(0, |end| end + 1)..]);
                world.end(cut);
            }
        });
        // The pod and the log.
        assert!((100..2 * 260).contains(&asked), "{exit:?}: {asked}");
        assert!(world.end.is_none() && world.failures.is_empty());
        // Whether the last is of the next instance may still be in doubt.
        assert!((sent - 1..=sent).contains(&world.lines.len()));
    }
}

#[test]
fn no_retry_after_is_too_long() {
    let mut world = start(config(), Kubelet::new(), 1);
    world.is_patient_for_so_long(429);
}

#[test]
fn so_many_seconds_back_are_asked_for_as_the_server_can_count() {
    let ages = LogConfig {
        follow: false,
        since_seconds: Some(u64::MAX),
        ..config()
    };
    let mut world = start(ages, Kubelet::new(), 1);
    let Some(LogRequest::Log(query)) = world.request() else {
        panic!("a finite log needs no pod");
    };
    assert!(query.contains(&("sinceSeconds", "9223372036".into())));
}

#[test]
fn text_of_the_kubelet_is_bounded_and_without_control_characters() {
    let mut world = start(config(), Kubelet::new(), 1);
    world.settle();
    for _ in 0..10_000 {
        world.body(b"\x1b[31munable to\tretrieve\x07\r\n");
    }
    let told: usize = world.notices.iter().map(String::len).sum();
    assert!((1..2 * limits::SERVER_TEXT).contains(&told), "{told}");
    assert_eq!(world.notices[0], "\\u{1b}[31munable to retrieve\\u{7}");
}

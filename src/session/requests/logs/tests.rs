//! Logs against a kubelet in memory, in virtual time, with faults.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use serde_json::json;

use super::*;
use crate::{error::NetworkError, session::backoff::Backoff, wire::status::Status};

/// One instance of a container and all that it has written.
#[derive(Default, Clone)]
struct Instance {
    id: u32,
    /// Stamps in nanoseconds, and texts; the last may have no newline.
    lines: Vec<(u64, String)>,
    unfinished: bool,
    exit: Option<i32>,
}

struct Kubelet {
    clock: u64,
    instances: Vec<Instance>,
    uid: &'static str,
    gone: bool,
    policy: &'static str,
    backing_off: bool,
}

const START: u64 = 1_795_312_555_000_000_000;

fn stamp(nanos: u64) -> Stamp {
    Stamp::from_unix(
        (nanos / 1_000_000_000) as i64,
        (nanos % 1_000_000_000) as u32,
    )
    .unwrap()
}

impl Kubelet {
    fn new() -> Self {
        Self {
            clock: START,
            instances: vec![Instance::default()],
            uid: "u-1",
            gone: false,
            policy: "Always",
            backing_off: false,
        }
    }

    fn current(&mut self) -> &mut Instance {
        self.instances.last_mut().unwrap()
    }

    fn write(&mut self, text: impl Into<String>, after: u64) {
        self.clock += after;
        let at = self.clock;
        self.current().lines.push((at, text.into()));
    }

    fn restart(&mut self, exit: i32) {
        self.current().exit = Some(exit);
        let id = self.current().id + 1;
        self.instances.push(Instance {
            id,
            ..Instance::default()
        });
    }

    fn pod(&self) -> Vec<u8> {
        let terminated = |i: &Instance| {
            json!({"terminated": {
                "exitCode": i.exit.unwrap(), "reason": "Error",
                "containerID": format!("containerd://{}", i.id),
            }})
        };
        let current = self.instances.last().unwrap();
        let state = match (current.exit, self.backing_off) {
            (None, _) => json!({"running": {"startedAt": "2026-11-22T01:55:42Z"}}),
            (Some(_), false) => terminated(current),
            (Some(_), true) => json!({"waiting": {"reason": "CrashLoopBackOff"}}),
        };
        let last = match self.instances.len() {
            _ if self.backing_off => terminated(current),
            1 => json!({}),
            n => terminated(&self.instances[n - 2]),
        };
        let pod = json!({
            "metadata": {"name": "web-0", "uid": self.uid},
            "spec": {"restartPolicy": self.policy, "containers": [{"name": "main"}, {"name": "side"}]},
            "status": {"phase": "Running", "containerStatuses": [{
                "name": "main", "containerID": format!("containerd://{}", current.id),
                "restartCount": current.id, "state": state, "lastState": last,
            }]},
        });
        pod.to_string().into_bytes()
    }

    /// Which instance's log a query reads, where it begins and whether it follows.
    fn open(&self, query: &[(&'static str, String)]) -> Option<(usize, u64, bool)> {
        let get = |name| {
            query
                .iter()
                .find(|(found, _)| *found == name)
                .map(|(_, v)| v)
        };
        assert_eq!(get("timestamps").unwrap(), "true");
        let index = self.instances.len() - 1;
        let index = if get("previous").is_some() {
            index.checked_sub(1)?
        } else {
            index
        };
        let since = get("sinceTime").map_or(0, |since| {
            assert_eq!(since.len(), 20, "whole seconds: {since}");
            let since = Stamp::parse(since.as_bytes()).unwrap();
            since.unix_seconds() as u64 * 1_000_000_000
        });
        Some((index, since, get("follow").is_some()))
    }

    fn text(&self, index: usize, since: u64) -> Vec<u8> {
        let instance = &self.instances[index];
        let mut text = Vec::new();
        for (at, line) in instance.lines.iter().filter(|(at, _)| *at >= since) {
            text.extend(format!("{} {line}\n", stamp(*at)).into_bytes());
        }
        if instance.unfinished && !text.is_empty() {
            text.pop();
        }
        text
    }
}

struct World {
    now: Instant,
    kubelet: Kubelet,
    logs: Logs,
    lines: Vec<String>,
    piece: String,
    notices: Vec<String>,
    troubles: Vec<String>,
    restarts: Vec<Option<i32>>,
    waits: Vec<String>,
    end: Option<LogEnd>,
    requests: Vec<LogRequest>,
    /// The response at hand: instance, begin, and how much was sent.
    open: Option<(usize, u64, usize)>,
}

fn config() -> LogConfig {
    LogConfig {
        what: "pod default/web-0".into(),
        follow: true,
        max_line: 100,
        ..LogConfig::default()
    }
}

impl World {
    fn new(config: LogConfig, kubelet: Kubelet, seed: u64) -> Self {
        let now = Instant::now();
        Self {
            now,
            kubelet,
            logs: Logs::new(config, now, seed),
            lines: Vec::new(),
            piece: String::new(),
            notices: Vec::new(),
            troubles: Vec::new(),
            restarts: Vec::new(),
            waits: Vec::new(),
            end: None,
            requests: Vec::new(),
            open: None,
        }
    }

    fn take(&mut self) {
        while let Some(update) = self.logs.poll_update() {
            assert!(self.end.is_none(), "{update:?} after the end");
            match update {
                LogUpdate::Line(line) => {
                    self.piece
                        .push_str(std::str::from_utf8(&line.bytes).unwrap());
                    if line.end != LineEnd::Piece {
                        self.lines.push(std::mem::take(&mut self.piece));
                    }
                }
                LogUpdate::Notice(text) => {
                    self.notices.push(String::from_utf8(text.to_vec()).unwrap());
                }
                LogUpdate::Waiting { reason, .. } => self.waits.push(reason),
                LogUpdate::Restarted { exit, .. } => {
                    self.restarts.push(exit.and_then(|exit| exit.code));
                }
                LogUpdate::Trouble { error, .. } => self.troubles.push(error.to_string()),
                LogUpdate::Ended(end) => self.end = Some(end),
            }
        }
        if !self.logs.wants_response() {
            self.open = None;
        }
    }

    fn head(&mut self, status: u16) {
        let head = Head {
            status,
            content_type: Some("application/json"),
            retry_after: None,
        };
        self.logs.handle_head(self.now, head);
        self.take();
    }

    fn body(&mut self, bytes: &[u8]) {
        self.logs
            .handle_body(self.now, Bytes::copy_from_slice(bytes));
        self.take();
    }

    fn end(&mut self, error: bool) {
        let lost = || NetworkError::Lost(Arc::new(std::io::ErrorKind::ConnectionReset.into()));
        self.logs.handle_end(self.now, error.then(|| lost().into()));
        self.open = None;
        self.take();
    }

    fn sleep(&mut self) {
        if let Some(at) = self.logs.poll_timeout() {
            self.now = self.now.max(at);
            self.logs.handle_timeout(self.now);
            self.take();
        }
    }

    fn request(&mut self) -> Option<LogRequest> {
        let request = self.logs.poll_request(self.now)?;
        self.requests.push(request.clone());
        Some(request)
    }

    /// Sends what the response at hand has not had yet.
    fn send(&mut self, at_most: usize, chunk: usize) {
        let Some((index, since, sent)) = self.open else {
            return;
        };
        let text = self.kubelet.text(index, since);
        let end = text.len().min(sent.saturating_add(at_most));
        self.open = Some((index, since, end));
        for chunk in text[sent.min(end)..end].chunks(chunk) {
            self.body(chunk);
        }
    }

    /// Answers a request's head, and its whole body where that is finite.
    fn answer(&mut self, request: &LogRequest) {
        match request {
            LogRequest::Pod if self.kubelet.gone => {
                self.head(404);
                self.body(&Status::failure(404, "NotFound", "pods not found").to_json());
                self.end(false);
            }
            LogRequest::Pod => {
                let pod = self.kubelet.pod();
                self.head(200);
                self.body(&pod);
                self.end(false);
            }
            LogRequest::Log(query) => match self.kubelet.open(query) {
                _ if self.kubelet.gone => {
                    self.head(404);
                    self.end(false);
                }
                None => {
                    self.head(400);
                    self.end(false);
                }
                Some((index, since, follow)) => {
                    self.head(200);
                    self.open = Some((index, since, 0));
                    self.send(usize::MAX, 1000);
                    let running = self.kubelet.instances[index].exit.is_none();
                    if !(follow && running) {
                        self.end(false);
                    }
                }
            },
        }
    }

    /// Without faults until there is nothing more to do.
    fn settle(&mut self) {
        for _ in 0..100 {
            if self.end.is_some() {
                return;
            }
            if let Some((index, ..)) = self.open {
                self.send(usize::MAX, 1000);
                if self.kubelet.instances[index].exit.is_none() {
                    return;
                }
                self.end(false);
                continue;
            }
            match self.request() {
                Some(request) => self.answer(&request),
                None => {
                    self.sleep();
                    if self.waits.len() > 3 || self.kubelet.backing_off && self.now_is_late() {
                        return;
                    }
                }
            }
        }
    }

    fn now_is_late(&self) -> bool {
        self.requests.len() > 20
    }
}

const MS: u64 = 1_000_000;

#[test]
fn a_followed_log_resumes_after_a_cut_without_loss_or_repetition() {
    let mut world = World::new(config(), Kubelet::new(), 1);
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
    let len = kubelet.text(0, 0).len();
    for first in 0..=len {
        for second in [0, 1, first / 2, len] {
            let mut world = World::new(config(), Kubelet::new(), 1);
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
            assert_eq!(world.notices, Vec::<String>::new());
        }
    }
}

#[test]
fn the_end_of_the_container_is_the_end_with_its_exit_code() {
    let mut world = World::new(config(), Kubelet::new(), 1);
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
        let mut world = World::new(config, Kubelet::new(), 1);
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

#[test]
fn between_restarts_it_waits() {
    let config = LogConfig {
        across_restarts: true,
        ..config()
    };
    let mut world = World::new(config, Kubelet::new(), 1);
    world.kubelet.write("old", MS);
    world.settle();
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
fn a_pod_that_is_gone_or_replaced_is_told_from_a_cut() {
    let mut world = World::new(config(), Kubelet::new(), 1);
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

    let mut world = World::new(config(), Kubelet::new(), 1);
    world.settle();
    world.kubelet.uid = "u-2";
    world.end(true);
    world.settle();
    assert!(matches!(world.end, Some(LogEnd::PodReplaced)));
}

#[test]
fn text_of_the_kubelet_is_no_line() {
    let mut world = World::new(config(), Kubelet::new(), 1);
    world.kubelet.write("one", MS);
    world.settle();
    world.body(b"unable to retrieve container logs for containerd://0\n");
    world.end(false);
    world.kubelet.write("two", MS);
    world.settle();
    assert_eq!(world.lines, ["one", "two"]);
    assert_eq!(world.notices.len(), 1);
    assert_eq!(
        world.troubles,
        ["logs of pod default/web-0: unable to retrieve container logs for containerd://0"]
    );

    let whole = LogConfig {
        follow: false,
        ..config()
    };
    let mut world = World::new(whole, Kubelet::new(), 1);
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
    let mut world = World::new(whole, Kubelet::new(), 1);
    for n in 0..3 {
        world.kubelet.write(format!("line {n}"), 400 * MS);
    }
    let Some(LogRequest::Log(query)) = world.request() else {
        panic!("a finite log needs no pod");
    };
    assert!(query.contains(&("tailLines", "3".into())));
    assert!(!query.iter().any(|(name, _)| *name == "follow"));
    world.head(200);
    world.open = Some((0, 0, 0));
    world.send(60, 7);
    world.end(true);
    world.settle();
    assert_eq!(world.lines, ["line 0", "line 1", "line 2"]);
    assert!(matches!(world.end, Some(LogEnd::Complete)));
    let Some(LogRequest::Log(query)) = world.requests.last() else {
        panic!("{:?}", world.requests);
    };
    assert!(!query.iter().any(|(name, _)| *name == "tailLines"));
    assert!(query.contains(&("sinceTime", "2026-11-22T01:55:55Z".into())));
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
    let mut world = World::new(skipping.clone(), Kubelet::new(), 1);
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
    let mut world = World::new(skipping, Kubelet::new(), 1);
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
    let mut world = World::new(config, Kubelet::new(), 1);
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
    let mut world = World::new(config(), Kubelet::new(), 1);
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
    assert_eq!(world.troubles, Vec::<String>::new());
}

#[test]
fn the_end_of_an_instance_is_read_until_nothing_new_comes() {
    let mut world = World::new(config(), Kubelet::new(), 1);
    for n in 0..5 {
        world.kubelet.write(format!("line {n}"), MS);
    }
    world.kubelet.current().exit = Some(0);
    // The kubelet dies under every reading, which looks like an end in order, and each comes a
    // little farther than the one before.
    for sent in [0, 45, 100, 140, usize::MAX, usize::MAX] {
        assert!(world.end.is_none(), "{sent}");
        loop {
            match world.request() {
                Some(LogRequest::Log(_)) => break,
                Some(request) => world.answer(&request),
                None => world.sleep(),
            }
        }
        world.head(200);
        world.open = Some((0, 0, 0));
        world.send(sent, 1000);
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
    let mut world = World::new(config(), Kubelet::new(), 1);
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
    let mut world = World::new(whole, Kubelet::new(), 1);
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
fn the_bound_on_bytes_counts_what_the_user_sees() {
    for (limit, expected) in [(1, vec!["o"]), (4, vec!["one"]), (5, vec!["one", "t"])] {
        let limited = LogConfig {
            follow: false,
            limit_bytes: Some(limit),
            ..config()
        };
        let mut world = World::new(limited, Kubelet::new(), 1);
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
    let mut world = World::new(plain, Kubelet::new(), 1);
    let request = world.request().unwrap();
    assert_eq!(request, LogRequest::Log(vec![("limitBytes", "10".into())]));
    world.head(200);
    world.body(b"no stamp\nat ");
    world.body(b"all");
    world.end(false);
    assert_eq!(world.lines, ["no stamp", "at all"]);
    assert!(matches!(world.end, Some(LogEnd::Complete)));
}

#[test]
fn a_user_who_may_not_read_pods_still_gets_the_log() {
    let mut world = World::new(config(), Kubelet::new(), 1);
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
    let mut world = World::new(other, Kubelet::new(), 1);
    world.settle();
    let Some(LogEnd::Failed(error)) = world.end else {
        panic!("{:?}", world.end);
    };
    let text = "pod default/web-0 has no container \"nope\"; it has main, side";
    assert_eq!(error.to_string(), text);
}

/// Lines 0 to n once each, through cuts, restarts and refusals.
fn run(seed: u64) {
    let mut random = Backoff::new(seed);
    let mut below = move |n: u64| random.within(Duration::from_micros(n)).as_micros() as u64;
    let config = LogConfig {
        across_restarts: true,
        ..config()
    };
    let mut world = World::new(config, Kubelet::new(), seed);
    let mut written = 0;
    for _ in 0..60 {
        for _ in 0..below(4) {
            let pause = [0, 1, MS, 300 * MS, 2000 * MS][below(5) as usize];
            let padding = "x".repeat([0, 10, 150][below(3) as usize]);
            world.kubelet.write(format!("{written} {padding}"), pause);
            written += 1;
        }
        // An instance is read before the one after the next begins: older logs are gone.
        if below(15) == 0
            && world
                .open
                .is_some_and(|(i, ..)| i + 1 == world.kubelet.instances.len())
        {
            world.kubelet.clock += MS;
            world.kubelet.restart(1);
        }
        if world.open.is_some() {
            world.send(below(400) as usize, 1 + below(100) as usize);
            let (index, since, sent) = world.open.unwrap();
            let exited = world.kubelet.instances[index].exit.is_some();
            let all = world.kubelet.text(index, since).len() == sent;
            if below(4) == 0 || exited && all {
                world.end(!all || below(2) == 0);
            }
            continue;
        }
        match world.request() {
            None => world.sleep(),
            Some(_) if below(5) == 0 => world.end(true),
            Some(_) if below(6) == 0 => {
                world.head([500, 503, 429][below(3) as usize]);
                world.end(false);
            }
            Some(LogRequest::Pod) => world.answer(&LogRequest::Pod),
            Some(LogRequest::Log(query)) => match world.kubelet.open(&query) {
                None => {
                    world.head(400);
                    world.end(false);
                }
                Some((index, since, follow)) => {
                    world.head(200);
                    world.open = Some((index, since, 0));
                    if !follow {
                        world.send(usize::MAX, 33);
                        world.end(false);
                    }
                }
            },
        }
    }
    world.settle();
    let numbers: Vec<u64> = world
        .lines
        .iter()
        .map(|line| line.split(' ').next().unwrap().parse().unwrap())
        .collect();
    assert_eq!(numbers, (0..written).collect::<Vec<_>>(), "seed {seed}");
    assert_eq!(world.notices, Vec::<String>::new());
    let known: Vec<_> = world
        .kubelet
        .instances
        .iter()
        .flat_map(|i| &i.lines)
        .collect();
    assert!(
        world.lines.iter().eq(known.iter().map(|(_, text)| text)),
        "seed {seed}"
    );
}

#[test]
fn any_schedule_of_faults_gives_each_line_once() {
    let schedules = if cfg!(debug_assertions) {
        1_000
    } else {
        10_000
    };
    for seed in 0..schedules {
        run(seed);
    }
}

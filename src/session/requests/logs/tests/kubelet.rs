//! A kubelet in memory, and a user who collects what a log says.

use serde_json::json;

use super::super::*;
use crate::{
    session::testing::{Sides, World as Harness},
    wire::status::Status,
};

/// One instance of a container and all that it has written.
#[derive(Default, Clone)]
pub(super) struct Instance {
    pub(super) id: u32,
    /// Stamps in nanoseconds, and texts; the last may have no newline.
    pub(super) lines: Vec<(u64, String)>,
    pub(super) unfinished: bool,
    pub(super) exit: Option<i32>,
}

/// From when on the log is sent, and how many lines are not.
#[derive(Default, Clone, Copy)]
pub(super) struct Begin {
    pub(super) since: u64,
    pub(super) skip: usize,
}

pub(super) struct Kubelet {
    pub(super) clock: u64,
    pub(super) instances: Vec<Instance>,
    pub(super) uid: &'static str,
    pub(super) gone: bool,
    pub(super) policy: &'static str,
    pub(super) backing_off: bool,
    /// Containers that have been replaced are removed, and their logs with them.
    pub(super) removes: bool,
    /// The node did not take the pod.
    pub(super) rejected: bool,
}

pub(super) const START: u64 = 1_795_312_555_000_000_000;

pub(super) fn stamp(nanos: u64) -> Stamp {
    Stamp::from_unix(
        (nanos / 1_000_000_000) as i64,
        (nanos % 1_000_000_000) as u32,
    )
    .unwrap()
}

impl Kubelet {
    pub(super) fn new() -> Self {
        Self {
            clock: START,
            instances: vec![Instance::default()],
            uid: "u-1",
            gone: false,
            policy: "Always",
            backing_off: false,
            removes: false,
            rejected: false,
        }
    }

    pub(super) fn current(&mut self) -> &mut Instance {
        self.instances.last_mut().unwrap()
    }

    pub(super) fn write(&mut self, text: impl Into<String>, after: u64) {
        self.clock += after;
        let at = self.clock;
        self.current().lines.push((at, text.into()));
    }

    pub(super) fn restart(&mut self, exit: i32) {
        self.current().exit = Some(exit);
        let id = self.current().id + 1;
        self.instances.push(Instance {
            id,
            ..Instance::default()
        });
    }

    pub(super) fn pod(&self) -> Vec<u8> {
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
        let mut pod = json!({
            "metadata": {"name": "web-0", "uid": self.uid},
            "spec": {"restartPolicy": self.policy, "containers": [{"name": "main"}, {"name": "side"}]},
            "status": {"phase": "Running", "containerStatuses": [{
                "name": "main", "containerID": format!("containerd://{}", current.id),
                "restartCount": current.id, "state": state, "lastState": last,
            }]},
        });
        if self.rejected {
            pod["status"] = json!({"phase": "Failed", "reason": "NodePorts"});
        }
        pod.to_string().into_bytes()
    }

    /// Which instance's log a query reads, where it begins and whether it follows.
    pub(super) fn open(&self, query: &[(&'static str, String)]) -> Option<(usize, Begin, bool)> {
        let get = |name| {
            query
                .iter()
                .find(|(found, _)| *found == name)
                .map(|(_, v)| v)
        };
        assert_eq!(get("timestamps").unwrap(), "true");
        if self.rejected {
            return None;
        }
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
        let tail = get("tailLines").map_or(usize::MAX, |tail| tail.parse().unwrap());
        let skip = self.instances[index].lines.len().saturating_sub(tail);
        Some((index, Begin { since, skip }, get("follow").is_some()))
    }

    pub(super) fn text(&self, index: usize, begin: Begin) -> Vec<u8> {
        let instance = &self.instances[index];
        let mut text = Vec::new();
        let lines = instance.lines.iter().skip(begin.skip);
        for (at, line) in lines.filter(|(at, _)| *at >= begin.since) {
            text.extend(format!("{} {line}\n", stamp(*at)).into_bytes());
        }
        if instance.unfinished && !text.is_empty() {
            text.pop();
        }
        text
    }
}

/// The kubelet, and what the log said.
pub(super) struct Reader {
    pub(super) kubelet: Kubelet,
    pub(super) lines: Vec<String>,
    pub(super) piece: String,
    pub(super) notices: Vec<String>,
    /// How many lines there were before each gap, and the stamp of the last of them.
    pub(super) gaps: Vec<(usize, Stamp)>,
    pub(super) failures: Vec<String>,
    pub(super) restarts: Vec<Option<i32>>,
    pub(super) waits: Vec<String>,
    pub(super) end: Option<LogEnd>,
    /// The response at hand: instance, begin, and how much was sent.
    pub(super) open: Option<(usize, Begin, usize)>,
}

pub(super) type World = Harness<Reader>;

impl Sides for Reader {
    type Session = Logs;

    fn take(&mut self, _: &Logs, update: LogUpdate) {
        assert!(self.end.is_none(), "{update:?} after the end");
        match update {
            LogUpdate::Line(line) => {
                self.piece
                    .push_str(std::str::from_utf8(&line.bytes).unwrap());
                if line.end != LineEnd::Piece {
                    self.lines.push(std::mem::take(&mut self.piece));
                }
            }
            LogUpdate::Notice(text) => self.notices.push(text),
            LogUpdate::Gap { after } => self.gaps.push((self.lines.len(), after)),
            LogUpdate::Waiting { reason, .. } => self.waits.push(reason),
            LogUpdate::Restarted { exit, .. } => {
                self.restarts.push(exit.and_then(|exit| exit.code));
            }
            LogUpdate::Retrying { error, .. } => self.failures.push(error.to_string()),
            LogUpdate::Ended(end) => self.end = Some(end),
        }
    }

    fn response_over(&mut self) {
        self.open = None;
    }
}

pub(super) fn start(config: LogConfig, kubelet: Kubelet, seed: u64) -> World {
    let sides = Reader {
        kubelet,
        lines: Vec::new(),
        piece: String::new(),
        notices: Vec::new(),
        gaps: Vec::new(),
        failures: Vec::new(),
        restarts: Vec::new(),
        waits: Vec::new(),
        end: None,
        open: None,
    };
    World::new(|now| Logs::new(config, now, seed), sides)
}

pub(super) fn config() -> LogConfig {
    LogConfig {
        what: "pod default/web-0".into(),
        follow: true,
        max_line: 100,
        ..LogConfig::default()
    }
}

impl World {
    /// Sends what the response at hand has not had yet.
    pub(super) fn send(&mut self, at_most: usize, chunk: usize) {
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
    pub(super) fn answer(&mut self, request: &LogRequest) {
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
            LogRequest::Log(query)
                if self.kubelet.removes && query.iter().any(|(name, _)| *name == "previous") =>
            {
                self.head(200);
                self.body(b"unable to retrieve container logs for containerd://0");
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
    pub(super) fn settle(&mut self) {
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

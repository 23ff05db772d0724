//! What answers mean: what the log and the pod say together, and what is asked next.

use std::time::Duration;

use super::{
    Exit, LogEnd, LogUpdate,
    machine::{Answer, Drained, Fruitless, Instance, Logs, Skip, State},
};
use crate::{
    error::{CallerError, Error, NetworkError, PeerError},
    limits,
    session::{later::later, requests::Phase},
    wire::{
        pod::{ContainerState, Pod},
        status::Status,
    },
};

impl Logs {
    pub(super) fn end(&mut self, phase: Phase<Answer>, end: Result<(), Error>) {
        // What cannot be asked will not be answered.
        if let Err(error @ Error::Caller(_)) = end {
            return match self.may_pass(&error) {
                true => self.pause(error, None),
                false => self.finish(LogEnd::Failed(error)),
            };
        }
        match phase {
            Phase::Waiting(_) => {}
            Phase::Done => self.requests.finish(),
            Phase::Refused(refusal) => {
                let (status, retry_after) = refusal.into_status();
                self.refused(status, retry_after);
            }
            Phase::Requested => self.lost(end.err().unwrap_or_else(Error::cut)),
            Phase::Answer(Answer::Pod(body)) => match (end, serde_json::from_slice::<Pod>(&body)) {
                (Err(error), _) => self.lost(error),
                (Ok(()), Ok(pod)) => self.pod(&pod),
                (Ok(()), Err(e)) => {
                    let operation = format!("get {}", self.config.what);
                    let problem = e.to_string();
                    self.lost(PeerError::Answer { operation, problem }.into());
                }
            },
            Phase::Answer(Answer::Log) => self.log_over(end),
        }
    }

    fn log_over(&mut self, end: Result<(), Error>) {
        let in_band = match self.lines.take_notice() {
            None => Ok(()),
            Some(text) => Err(self.api_error(Status::failure(500, "InternalError", text))),
        };
        let end = end.and(in_band);
        let lasted = self.requests.lasted();
        if self.is_followed() && (end.is_ok() || lasted >= limits::ANSWER_PROVEN) {
            self.fruitless = Fruitless::default();
        }
        self.by_time = !self.lines.has_caught_up();
        if self.by_time && self.lines.is_tailed() {
            let lost = matches!(end, Err(Error::Network(_)));
            if end.is_ok() || lost && self.state == State::Follow {
                self.lines.give_up();
                return self.miss();
            }
        }
        // A reading that was cut proves nothing about where the log ends.
        let before = self.reach.take();
        self.reach = end.is_ok().then(|| self.lines.reach());
        // The lines that there are when a log is opened come at once, if any come at all.
        let dead = matches!(end, Err(Error::Network(NetworkError::Silent { .. })));
        if self.lines.since().is_none()
            && lasted >= Duration::from_secs(1)
            && !dead
            && !matches!(self.skip, Skip::Before(_))
        {
            self.skip = Skip::Before(self.requests.began());
        }
        match (self.state, end) {
            (_, Err(error)) if !self.config.resume => self.finish(LogEnd::Failed(error)),
            (State::LogOnly { .. }, Ok(())) => {
                let full = self.release();
                self.finish(if full {
                    LogEnd::Limit
                } else {
                    LogEnd::Complete
                });
            }
            // The kubelet said why it cannot.
            (State::LogOnly { follow: false }, Err(error @ Error::Api(_))) => {
                self.finish(LogEnd::Failed(error));
            }
            (State::LogOnly { .. }, Err(error)) => self.lost(error),
            (State::Drain { .. }, Ok(())) if !self.is_proven(before) => {}
            (State::Drain { previous }, Ok(())) => {
                self.drained(previous);
                match self.release() {
                    true => self.finish(LogEnd::Limit),
                    false => self.go(State::Pod),
                }
            }
            // The container has been removed, which a kubelet says in the log.
            (State::Drain { previous: true }, Err(Error::Api(_)))
                if self.fruitless.attempts > 0 =>
            {
                self.drained(true);
                self.go(State::Pod);
            }
            (State::Drain { .. }, Err(error @ Error::Api(_)))
                if self.fruitless.attempts >= limits::LOG_RETRIES =>
            {
                self.finish(LogEnd::Failed(error));
            }
            (State::Drain { .. }, Err(error)) => self.pause(error, None),
            (State::Follow | State::Pod, Err(error @ Error::Api(_))) => {
                self.state = State::Pod;
                self.pause(error, None);
            }
            (State::Follow | State::Pod, _) => {
                self.follow_from = self.requests.resume();
                self.go(State::Pod);
            }
        }
    }

    /// The last lines do not lead on from the one that was delivered last. The pod is asked whether
    /// they are those of the next instance, which it says only a while after; if they are not, they
    /// are new, or they are so many that more may stand before them.
    pub(super) fn miss(&mut self) {
        self.by_time = true;
        match self.state {
            State::LogOnly { .. } => self.requests.go_on(),
            State::Pod | State::Follow | State::Drain { .. } => {
                self.state = State::Pod;
                let told = later(self.requests.now(), limits::POD_POLL);
                let due = self.requests.resume();
                self.requests.wait_until(due.max(told));
            }
        }
    }

    /// Delivers what was missed if it is of the instance at hand; whether the bound is reached.
    fn accept(&mut self) -> bool {
        if !self.lines.accept() {
            return false;
        }
        self.by_time = false;
        self.fruitless = Fruitless::default();
        self.release()
    }

    fn drained(&mut self, previous: bool) {
        if let Some(instance) = &mut self.instance {
            instance.drained = match previous {
                true => Drained::Replaced,
                false => Drained::Ended,
            };
        }
    }

    /// Whether what was read of an instance that has ended is all. A kubelet that dies, too, ends
    /// the body in order, for API servers ignore errors of the copy
    /// (`k8s.io/apiserver/pkg/endpoints/handlers/responsewriters/writers.go`), so that another reading has to come as far and no farther.
    fn is_proven(&mut self, before: Option<u64>) -> bool {
        if self.reach == before {
            let attempts = &mut self.fruitless.attempts;
            // If what is known does not come again, perhaps it never will: files are rotated.
            if self.lines.has_caught_up() || *attempts >= limits::LOG_RETRIES {
                return true;
            }
            *attempts += 1;
        }
        self.requests.resume();
        false
    }

    /// A connection was lost, or there was none.
    fn lost(&mut self, error: Error) {
        let finite = self.state == State::LogOnly { follow: false };
        let spent = self.fruitless.attempts >= limits::LOG_RETRIES;
        let is_other = matches!(&error, Error::Peer(peer) if peer.is_of_whole_answer());
        let is_hopeless = [&self.pods, &self.logs]
            .iter()
            .all(|it| it.is_hopeless(&error));
        if is_other || is_hopeless || !self.config.resume || finite && spent {
            return self.finish(LogEnd::Failed(error));
        }
        self.pause(error, None);
    }

    fn api_error(&self, status: Status) -> Error {
        let operation = format!("logs of {}", self.config.what);
        self.requests.refusal(operation, status)
    }

    fn refused(&mut self, status: Status, retry_after: Option<Duration>) {
        let code = status.code;
        let error = self.api_error(status);
        let passes = self.may_pass(&error);
        let transient = passes || matches!(code, 408 | 429 | 500..);
        let spent = self.fruitless.attempts >= limits::LOG_RETRIES;
        match (self.state, code) {
            (State::Pod, 404) if self.pod.is_some() => self.finish(LogEnd::PodGone),
            (State::Pod, 401 | 403) if !passes => self.go(State::LogOnly { follow: true }),
            // The log before the last is gone with its container.
            (State::Drain { previous: true }, 400 | 404) => {
                self.drained(true);
                self.go(State::Pod);
            }
            (State::Drain { .. }, 400 | 404) if spent => self.finish(LogEnd::Failed(error)),
            (State::Follow | State::Drain { .. }, 400 | 404) => {
                // The pod says better what is the matter.
                self.state = State::Pod;
                self.pause(error, retry_after);
            }
            (State::LogOnly { follow: false }, _) if spent => self.finish(LogEnd::Failed(error)),
            _ if !transient || !self.config.resume => self.finish(LogEnd::Failed(error)),
            _ => self.pause(error, retry_after),
        }
    }

    /// What the pod says about the container, and what is to be done therefore.
    fn pod(&mut self, pod: &Pod) {
        if self.pod.get_or_insert_with(|| pod.uid().to_owned()) != pod.uid() {
            return self.finish(LogEnd::PodReplaced);
        }
        let name = self.config.container.take();
        let name = name.or_else(|| pod.default_container().map(str::to_owned));
        let name = name.unwrap_or_default();
        let Some(state) = pod.state(&name) else {
            let error = CallerError::NoContainer {
                pod: self.config.what.clone(),
                containers: pod.container_names().map(str::to_owned).collect(),
                name,
            };
            return self.finish(LogEnd::Failed(error.into()));
        };
        self.config.container = Some(name);
        match state {
            ContainerState::Waiting { reason, message } => {
                self.fruitless.refused = None;
                self.requests.wait_for(limits::POD_POLL);
                if self.waiting != reason {
                    self.waiting.clone_from(&reason);
                    self.updates
                        .push_back(LogUpdate::Waiting { reason, message });
                }
            }
            // Where no instance is known, the kubelet says why there is no log.
            ContainerState::Over(_) if self.instance.is_none() => {
                self.go(State::LogOnly { follow: false });
            }
            ContainerState::Over(exit) => self.finish(LogEnd::Exited(exit)),
            ContainerState::Running {
                id,
                restarts,
                before,
            } => {
                if self.is_next(&id, before, restarts) {
                    if self.accept() {
                        return self.finish(LogEnd::Limit);
                    }
                    self.state = State::Follow;
                    self.requests.wait_until(self.follow_from);
                }
            }
            ContainerState::Ended {
                id,
                exit,
                before,
                will_restart,
            } => {
                if !self.is_next(&id, before, 0) {
                    return;
                }
                if self.accept() {
                    return self.finish(LogEnd::Limit);
                }
                let drained = |instance: &Instance| instance.drained != Drained::No;
                if !self.instance.as_ref().is_some_and(drained) {
                    self.go(State::Drain { previous: false });
                } else if will_restart && self.config.across_restarts {
                    self.fruitless.refused = None;
                    self.requests.wait_for(limits::POD_POLL);
                } else {
                    self.finish(LogEnd::Exited(exit));
                }
            }
        }
    }

    /// Tells that lines behind those that were delivered are missing.
    fn tell_gap(&mut self) {
        let after = self.lines.since();
        self.updates
            .extend(after.map(|after| LogUpdate::Gap { after }));
    }

    /// Whether to read the instance `id` now: it is the one at hand, or the one at hand is done
    /// with and the next is wanted, which then is at hand.
    fn is_next(&mut self, id: &str, before: Option<(String, Exit)>, restarts: u32) -> bool {
        let next = Instance {
            id: id.to_owned(),
            drained: Drained::No,
        };
        let Some(instance) = &self.instance else {
            self.instance = Some(next);
            return true;
        };
        if instance.id == id {
            return true;
        }
        self.lines.forget_missed();
        // There was one between them, of which nothing has been read.
        let is_other = |(before, _): &(String, Exit)| !before.is_empty() && *before != instance.id;
        let missed = before.as_ref().is_some_and(is_other);
        let last = before.filter(|(before, _)| *before == instance.id);
        // Even if it was read when it had just ended: the next may have begun before that.
        if instance.drained != Drained::Replaced && last.is_some() {
            self.go(State::Drain { previous: true });
            return false;
        }
        let exit = last.map(|(_, exit)| exit);
        let is_unread = missed && instance.drained == Drained::No;
        if !self.config.across_restarts {
            if is_unread {
                self.tell_gap();
            }
            self.finish(LogEnd::Exited(exit.unwrap_or_default()));
            return false;
        }
        if self.finish_line() {
            self.finish(LogEnd::Limit);
            return false;
        }
        self.instance = Some(next);
        if missed {
            self.tell_gap();
        }
        self.lines.next_instance();
        self.reach = None;
        self.skip = Skip::Nothing;
        self.fruitless = Fruitless::default();
        self.updates
            .push_back(LogUpdate::Restarted { restarts, exit });
        true
    }
}

//! What answers mean: what the log and the pod say together, and what is asked next.

use std::time::Duration;

use super::{
    Exit, LogEnd, LogUpdate,
    machine::{Answer, Logs, Step},
};
use crate::{
    error::{ApiError, CallerError, Error, NetworkError, PeerError},
    limits,
    session::requests::{Phase, cut_off},
    wire::{
        pod::{ContainerState, Pod},
        status::Status,
        watch::EventError,
    },
};

impl Logs {
    /// The response is over.
    pub(super) fn end(&mut self, phase: Phase<Answer>, error: Option<Error>) {
        match phase {
            Phase::Waiting(_) => {}
            Phase::Done => self.requests.phase = Phase::Done,
            Phase::Refused(refusal) => {
                let (status, retry_after) = refusal.into_status();
                self.refused(status, retry_after);
            }
            Phase::Requested => self.lost(error.unwrap_or_else(cut_off)),
            Phase::Answer(Answer::Pod(body)) => {
                match (error, serde_json::from_slice::<Pod>(&body)) {
                    (Some(error), _) => self.lost(error),
                    (None, Ok(pod)) => self.pod(&pod),
                    (None, Err(e)) => {
                        let error = PeerError::from(EventError::Decode(e.to_string()));
                        self.lost(error.into());
                    }
                }
            }
            Phase::Answer(Answer::Log) => self.log_over(error),
        }
    }

    fn log_over(&mut self, error: Option<Error>) {
        let in_band = self.lines.take_notice().map(|text| {
            let text = String::from_utf8_lossy(&text).trim().to_owned();
            self.api_error(Status::failure(500, "InternalError", text))
        });
        let end = error.or(in_band);
        // A reading that was cut proves nothing about where the log ends.
        let proof = match end {
            None => self.reach.replace(self.lines.reach()),
            Some(_) => self.reach.take().and(None),
        };
        // The lines that there are when a log is opened come at once, if any come at all.
        let dead = matches!(end, Some(Error::Network(NetworkError::Silent { .. })));
        let lasted = self.requests.lasted() >= Duration::from_secs(1);
        if self.lines.since().is_none() && lasted && !dead {
            self.empty_from.get_or_insert(self.requests.began());
        }
        match (self.step, end) {
            (Step::Whole, None) => self.finish(LogEnd::Complete),
            (_, Some(error)) if !self.config.resume => self.finish(LogEnd::Failed(error)),
            (_, None) if !self.config.resume => self.finish(LogEnd::Complete),
            // The kubelet said why it cannot.
            (Step::Whole, Some(error @ Error::Api(_))) => self.finish(LogEnd::Failed(error)),
            (Step::Whole, Some(error)) => self.lost(error),
            (Step::Rest { .. }, None) if !self.is_proven(proof) => {}
            (Step::Rest { previous }, None) => {
                self.read.clone_from(&self.instance);
                if previous {
                    self.drained.clone_from(&self.instance);
                }
                self.step = Step::Pod;
            }
            (Step::Rest { .. }, Some(error @ Error::Api(_)))
                if self.requests.backoff.failures() >= limits::LOG_RETRIES =>
            {
                self.finish(LogEnd::Failed(error));
            }
            (Step::Rest { .. }, Some(error)) => self.pause(error, None),
            (Step::Follow | Step::Pod, end) if self.pod_unreadable => match end {
                None => self.finish(LogEnd::Complete),
                Some(error) => self.lost(error),
            },
            (Step::Follow | Step::Pod, end) => {
                self.step = Step::Pod;
                if let Some(error @ Error::Api(_)) = end {
                    self.pause(error, None);
                }
            }
        }
    }

    /// Whether what was read of an instance that has ended is all. A kubelet that dies, too, ends
    /// the body in order, for API servers ignore errors of the copy
    /// (`k8s.io/apiserver/pkg/endpoints/handlers/responsewriters/writers.go`), so that another reading has to come as far and no farther.
    fn is_proven(&mut self, before: Option<u64>) -> bool {
        if self.reach != before {
            return false;
        }
        // If what is known does not come again, perhaps it never will: files are rotated.
        if self.lines.has_caught_up() || self.requests.backoff.failures() >= limits::LOG_RETRIES {
            return true;
        }
        self.requests.wait(true);
        false
    }

    /// A connection was lost, or there was none.
    fn lost(&mut self, error: Error) {
        let finite = self.step == Step::Whole;
        if !self.config.resume || finite && self.requests.backoff.failures() >= limits::LOG_RETRIES
        {
            return self.finish(LogEnd::Failed(error));
        }
        self.pause(error, None);
    }

    fn api_error(&self, status: Status) -> Error {
        Box::new(ApiError::new(
            format!("logs of {}", self.config.what),
            status,
        ))
        .into()
    }

    fn refused(&mut self, status: Status, retry_after: Option<Duration>) {
        let code = status.code;
        let error = self.api_error(status);
        let transient = matches!(code, 408 | 429 | 500..);
        let following = self.config.follow && !self.config.previous && self.config.resume;
        match (self.step, code) {
            (Step::Pod, 404) if !self.uid.is_empty() => self.finish(LogEnd::PodGone),
            (Step::Pod, 401 | 403) => {
                self.pod_unreadable = true;
                self.go(Step::Follow);
            }
            // The log before the last is gone with its container.
            (Step::Rest { previous: true }, 400 | 404) => {
                self.drained.clone_from(&self.instance);
                self.go(Step::Pod);
            }
            (Step::Rest { .. }, 400 | 404)
                if self.requests.backoff.failures() >= limits::LOG_RETRIES =>
            {
                self.finish(LogEnd::Failed(error));
            }
            (Step::Follow | Step::Rest { .. }, 400 | 404) if following && !self.pod_unreadable => {
                // The pod says better what is the matter.
                self.step = Step::Pod;
                self.pause(error, retry_after);
            }
            (Step::Whole, _)
                if !transient || self.requests.backoff.failures() >= limits::LOG_RETRIES =>
            {
                self.finish(LogEnd::Failed(error));
            }
            _ if !transient || !self.config.resume => self.finish(LogEnd::Failed(error)),
            _ => self.pause(error, retry_after),
        }
    }

    /// What the pod says about the container, and what is to be done therefore.
    fn pod(&mut self, pod: &Pod) {
        if self.uid.is_empty() {
            self.uid = pod.uid().to_owned();
        } else if self.uid != pod.uid() {
            return self.finish(LogEnd::PodReplaced);
        }
        let name = self.container.take();
        let name = name.or_else(|| pod.default_container().map(str::to_owned));
        let name = name.unwrap_or_default();
        let Some(state) = pod.state(&name) else {
            let error = CallerError::NoContainer {
                pod: self.config.what.clone(),
                containers: pod
                    .containers()
                    .into_iter()
                    .map(|one| one.name.to_string())
                    .collect(),
                name,
            };
            return self.finish(LogEnd::Failed(error.into()));
        };
        self.container = Some(name);
        match state {
            ContainerState::Waiting { reason, message } => {
                self.requests.wait_for(limits::POD_POLL);
                if self.waiting != reason {
                    self.waiting.clone_from(&reason);
                    self.updates
                        .push_back(LogUpdate::Waiting { reason, message });
                }
            }
            ContainerState::Over(exit) => self.finish(LogEnd::Exited(exit)),
            ContainerState::Running {
                id,
                restarts,
                before,
            } => {
                if self.is_next(&id, before, restarts) {
                    self.instance = Some(id);
                    self.follow();
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
                self.instance = Some(id);
                if self.read != self.instance {
                    self.go(Step::Rest { previous: false });
                } else if will_restart && self.config.across_restarts {
                    self.requests.wait_for(limits::POD_POLL);
                } else {
                    self.finish(LogEnd::Exited(exit));
                }
            }
        }
    }

    /// Whether to read the instance `id` now: it is the one at hand, or the one at hand is done
    /// with and the next is wanted.
    fn is_next(&mut self, id: &str, before: Option<(String, Exit)>, restarts: u32) -> bool {
        let Some(instance) = &self.instance else {
            return true;
        };
        if instance == id {
            return true;
        }
        let last = before.filter(|(before, _)| before == instance);
        // Even if it was read when it had just ended: the next may have begun before that.
        if self.drained.as_ref() != Some(instance) && last.is_some() {
            self.go(Step::Rest { previous: true });
            return false;
        }
        let exit = last.map(|(_, exit)| exit);
        if !self.config.across_restarts {
            self.finish(LogEnd::Exited(exit.unwrap_or_default()));
            return false;
        }
        if self.finish_line() {
            self.finish(LogEnd::Limit);
            return false;
        }
        self.reach = None;
        self.restarted = true;
        self.empty_from = None;
        self.updates
            .push_back(LogUpdate::Restarted { restarts, exit });
        true
    }

    /// Reads on, with a delay if the last attempts brought nothing.
    fn follow(&mut self) {
        self.step = Step::Follow;
        let delay = match self.requests.backoff.failures() {
            0 => Duration::ZERO,
            _ => self.requests.backoff.next(),
        };
        // Counts this attempt; a line resets it.
        if delay.is_zero() {
            let _ = self.requests.backoff.next();
        }
        self.requests.wait_for(delay);
    }
}

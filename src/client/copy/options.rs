//! What all copies are told, and how often and how long they are tried: in flow failures, out
//! comes whether a copy goes on.

use std::{path::PathBuf, sync::Arc, time::Duration};

use super::{
    glob::Exclude,
    pack::{Keep, Plan},
    progress::Progress,
    side::Side,
};
use crate::{
    Pod, Result,
    error::{CallerError, Error, Hint, NetworkError},
    limits,
    transport::runtime,
};

/// What all copies are told.
#[derive(Debug, Clone)]
pub(super) struct Options {
    /// The container, of the source if there are two.
    pub(super) side: Side,
    pub(super) keep: Keep,
    pub(super) exclude: Exclude,
    pub(super) progress: Progress,
    pub(super) retries: u32,
    pub(super) deadline: Option<Duration>,
}

impl Options {
    pub(super) fn new(pod: &Pod) -> Self {
        Self {
            side: Side::new(pod),
            keep: Keep::Modes,
            exclude: Exclude::default(),
            progress: Progress::default(),
            retries: 0,
            deadline: None,
        }
    }

    pub(super) fn plan(&self, source: PathBuf) -> Plan {
        Plan {
            source,
            root: PathBuf::new(),
            keep: self.keep,
            exclude: self.exclude.clone(),
            holes: false,
            sum: self.side.sum,
            progress: self.progress.clone(),
        }
    }

    /// Attempts until one does not end in a cut. What `begin` gives outlives the connections: it is
    /// made once, and each attempt goes on with it. After a failure all that was kept aside is gone,
    /// unless that is past the deadline.
    pub(super) async fn run<W, T>(
        &self,
        verb: &str,
        begin: impl AsyncFn() -> Result<W>,
        attempt: impl AsyncFn(&mut W) -> Result<T>,
    ) -> Result<T> {
        let progress = &self.progress;
        progress.begin();
        let work = async {
            let mut begun = None;
            let (mut left, mut reached) = (self.retries, 0);
            let mut pause = Duration::ZERO;
            loop {
                let once = async {
                    let work = match &mut begun {
                        Some(work) => work,
                        None => begun.insert(begin().await?),
                    };
                    attempt(work).await
                };
                // It is large.
                let error = match Box::pin(once).await {
                    Ok(done) => return Ok(done),
                    Err(error) if left == 0 || !is_cut(&error) => {
                        drop(begun);
                        progress.settled().await;
                        return Err(error);
                    }
                    Err(error) => error,
                };
                if left != u32::MAX {
                    left -= 1;
                }
                tracing::warn!(%error, "a copy was cut, and goes on");
                // One that has come on is not why to wait.
                if progress.moved() > reached {
                    (reached, pause) = (progress.moved(), Duration::ZERO);
                }
                tokio::time::sleep(pause).await;
                pause = (pause * 2).clamp(limits::RETRY_FIRST, limits::RETRY_MOST);
            }
        };
        // Outside of a runtime, which has the timers, `work` says so itself.
        let Some(deadline) = self.deadline.filter(|_| runtime().is_ok()) else {
            return work.await;
        };
        let missed = |_| CallerError::TimedOut {
            operation: self.side.pod.operation(verb),
            after: deadline,
            output: Arc::default(),
        };
        tokio::time::timeout(deadline, work).await.map_err(missed)?
    }
}

/// Whether the connection is to blame, or a server on the way, and not what was asked for.
pub(super) fn is_cut(error: &Error) -> bool {
    match error {
        Error::Network(NetworkError::Certificate { .. }) => false,
        Error::Network(_) => true,
        Error::Api(error) => match error.status.code {
            429 | 502..=504 => true,
            // A kubelet that cannot, and not a program that could not, or that is not there.
            500 => {
                !matches!(error.hint, Some(Hint::Program(_)))
                    && error.status.reason != "NonZeroExitCode"
            }
            _ => false,
        },
        _ => false,
    }
}

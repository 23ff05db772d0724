//! How often and how long a copy is tried: in flow failures, out comes whether it goes on.

use std::{sync::Arc, time::Duration};

use super::{progress::Progress, side::Side};
use crate::{
    Result,
    error::{CallerError, Error, Hint, NetworkError},
    limits,
};

/// What the caller allows.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Retry {
    pub(super) retries: u32,
    pub(super) deadline: Option<Duration>,
}

impl Retry {
    /// Attempts until one does not end in a cut. What `begin` gives outlives the connections: it is
    /// made once, and each attempt goes on with it.
    pub(super) async fn run<W, T>(
        &self,
        side: &Side,
        verb: &str,
        progress: &Progress,
        begin: impl AsyncFn() -> Result<W>,
        attempt: impl AsyncFn(&mut W) -> Result<T>,
    ) -> Result<T> {
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
                    Err(error) if left == 0 || !is_cut(&error) => return Err(error),
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
        let Some(deadline) = self.deadline else {
            return work.await;
        };
        let missed = |_| CallerError::TimedOut {
            operation: side.pod.operation(verb),
            after: deadline,
            output: Arc::default(),
        };
        tokio::time::timeout(deadline, work).await.map_err(missed)?
    }
}

/// Whether the connection is to blame, or a server on the way, and not what was asked for.
fn is_cut(error: &Error) -> bool {
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

//! Waiting for what happens, with an end that only a hang reaches.

use std::time::Duration;

/// No test takes that long, not on the busiest machine either.
pub(crate) const PATIENCE: Duration = Duration::from_secs(300);

/// What `work` comes to.
///
/// # Panics
///
/// If it hangs.
#[track_caller]
pub(crate) fn soon<T>(work: impl Future<Output = T>) -> impl Future<Output = T> {
    let whose = std::panic::Location::caller();
    async move {
        match tokio::time::timeout(PATIENCE, work).await {
            Ok(value) => value,
            Err(_) => panic!("it hangs: {whose}"),
        }
    }
}

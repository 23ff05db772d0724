//! What is to be reconciled: one task a key at a time, and what fails again, ever later.

use std::{collections::HashMap, future::Future, time::Duration};

use kubewire::watch::ObjectKey;
use tokio::task::JoinSet;

pub(crate) type Done = Result<(), Box<dyn std::error::Error + Send + Sync>>;

const FIRST_DELAY: Duration = Duration::from_millis(5);
const LONGEST_DELAY: Duration = Duration::from_secs(300);

#[derive(Default)]
pub(crate) struct Queue {
    /// Keys that are being reconciled, or wait to be.
    keys: HashMap<ObjectKey, Entry>,
    tasks: JoinSet<(ObjectKey, Done)>,
}

#[derive(Default)]
struct Entry {
    /// It has changed since its task began.
    changed: bool,
    failures: u32,
}

impl Queue {
    /// Reconciles a key, now or when the task that it has is done.
    pub(crate) fn add<F, R>(&mut self, key: &ObjectKey, reconcile: F)
    where
        F: FnOnce(ObjectKey) -> R,
        R: Future<Output = Done> + Send + 'static,
    {
        match self.keys.get_mut(key) {
            Some(entry) => entry.changed = true,
            None => {
                self.keys.insert(key.clone(), Entry::default());
                self.start(key, Duration::ZERO, reconcile);
            }
        }
    }

    fn start<F, R>(&mut self, key: &ObjectKey, delay: Duration, reconcile: F)
    where
        F: FnOnce(ObjectKey) -> R,
        R: Future<Output = Done> + Send + 'static,
    {
        let (key, reconciled) = (key.clone(), reconcile(key.clone()));
        self.tasks.spawn(async move {
            tokio::time::sleep(delay).await;
            (key, reconciled.await)
        });
    }

    /// The next task that is done; `None` if there is none. Cancel safe.
    pub(crate) async fn done(&mut self) -> Option<(ObjectKey, Done)> {
        // A task that panicked takes the controller with it, as it would without tasks.
        Some(
            self.tasks
                .join_next()
                .await?
                .expect("a reconcile does not panic"),
        )
    }

    /// Goes on after a task: again if it failed, or if its key has changed meanwhile. Returns the
    /// delay.
    pub(crate) fn again<F, R>(
        &mut self,
        key: &ObjectKey,
        failed: bool,
        reconcile: F,
    ) -> Option<Duration>
    where
        F: FnOnce(ObjectKey) -> R,
        R: Future<Output = Done> + Send + 'static,
    {
        let entry = self.keys.get_mut(key)?;
        let changed = std::mem::take(&mut entry.changed);
        let delay = match (failed, changed) {
            (true, _) => {
                let factor = 2_u32.saturating_pow(entry.failures);
                entry.failures = entry.failures.saturating_add(1);
                FIRST_DELAY.saturating_mul(factor).min(LONGEST_DELAY)
            }
            (false, true) => {
                entry.failures = 0;
                Duration::ZERO
            }
            (false, false) => {
                self.keys.remove(key);
                return None;
            }
        };
        self.start(key, delay, reconcile);
        Some(delay)
    }
}

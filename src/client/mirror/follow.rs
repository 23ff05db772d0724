//! The task that follows the watch: in flow its updates, out come states and wakeups.

use std::{
    collections::HashMap,
    future::poll_fn,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::Poll,
};

use futures_core::Stream as _;
use tokio::sync::{Notify, futures::Notified};

use super::{Keep, Shared};
use crate::{
    Result,
    client::Updates,
    error::panic::{self, lock},
    session::watch::{MirrorUpdate, ObjectKey, Update},
    wire::watch::{EventError, Object},
};

/// Updates that are applied at once, where so many have arrived.
const BATCH: usize = 256;

/// Applies the updates until the task is aborted.
pub(super) async fn follow<K>(shared: Arc<Shared<K>>, mut updates: Updates, keep: Keep<K>) {
    let _end = End(&*shared);
    loop {
        let batch = take(&mut updates).await;
        // Objects are decoded while readers read.
        let mut decoded = Vec::with_capacity(batch.len());
        for update in &batch {
            decoded.push(match update {
                Ok(Update::Event(event)) if !shared.read().knows(&event.object) => {
                    Some(kept(&keep, &event.object))
                }
                _ => None,
            });
        }
        let mut state = shared.state.write().unwrap_or_else(PoisonError::into_inner);
        for (update, decoded) in batch.into_iter().zip(decoded) {
            match update {
                Ok(update) => {
                    // What was known is not any more if another of the batch was about it.
                    let decode = |object: &Object| decoded.unwrap_or_else(|| kept(&keep, object));
                    state.apply(&update, decode);
                }
                Err(error) => state.refuse(error),
            }
        }
        let published = state.publish();
        drop(state);
        let Some(published) = published else { continue };
        let turned = published
            .iter()
            .any(|told| matches!(told, Ok(MirrorUpdate::Current) | Err(_)));
        if turned {
            shared.turned.notify_waiters();
            shared.waiting.wake_all();
        }
        // Who waits finds the state as it is now.
        for told in &*published {
            match told {
                Ok(MirrorUpdate::Added(key, _) | MirrorUpdate::Modified(key, _)) => {
                    shared.waiting.wake(key, false);
                }
                Ok(MirrorUpdate::Deleted(key, _)) => shared.waiting.wake(key, true),
                Ok(MirrorUpdate::Unreadable { key: Some(key), .. }) => {
                    shared.waiting.wake(key, false);
                }
                _ => {}
            }
        }
        shared.wakers.wake();
    }
}

/// What is kept of an object. Where its type's own code panics, it is one that cannot be read: the
/// readers of the others must not wait for ever.
fn kept<K>(keep: &Keep<K>, object: &Object) -> Result<K, EventError> {
    let kept = panic::words(|| keep(object));
    kept.unwrap_or_else(|words| Err(EventError::Decode(format!("its type panicked: {words}"))))
}

async fn take(updates: &mut Updates) -> Vec<Result<Update>> {
    let mut batch = Vec::new();
    poll_fn(|cx| {
        while batch.len() < BATCH {
            match Pin::new(&mut *updates).poll_next(cx) {
                Poll::Ready(Some(update)) => batch.push(update),
                Poll::Ready(None) | Poll::Pending if batch.is_empty() => return Poll::Pending,
                Poll::Ready(None) | Poll::Pending => break,
            }
        }
        Poll::Ready(())
    })
    .await;
    batch
}

/// Tells the readers that nothing comes any more.
struct End<'a, K>(&'a Shared<K>);

impl<K> Drop for End<'_, K> {
    fn drop(&mut self) {
        self.0.wakers.end();
        self.0.turned.notify_waiters();
        self.0.waiting.wake_all();
    }
}

/// Those who wait for objects, by key.
#[derive(Debug, Default)]
pub(super) struct Waiting(Mutex<HashMap<ObjectKey, Vec<Arc<Waiter>>>>);

#[derive(Debug, Default)]
struct Waiter {
    changed: Notify,
    deleted: AtomicBool,
}

#[derive(Debug)]
pub(super) struct Waits<'a> {
    waiter: Arc<Waiter>,
    key: ObjectKey,
    waiting: &'a Waiting,
}

impl Waiting {
    /// Waits for the object of this key from now on.
    pub(super) fn begin(&self, key: &ObjectKey) -> Waits<'_> {
        let waiter = Arc::new(Waiter::default());
        lock(&self.0)
            .entry(key.clone())
            .or_default()
            .push(waiter.clone());
        Waits {
            waiter,
            key: key.clone(),
            waiting: self,
        }
    }

    fn wake(&self, key: &ObjectKey, deleted: bool) {
        let waiters = lock(&self.0).get(key).cloned();
        for waiter in waiters.into_iter().flatten() {
            waiter.deleted.fetch_or(deleted, Relaxed);
            waiter.changed.notify_waiters();
        }
    }

    fn wake_all(&self) {
        let waiters: Vec<_> = lock(&self.0).values().flatten().cloned().collect();
        waiters.iter().for_each(|it| it.changed.notify_waiters());
    }
}

impl Waits<'_> {
    pub(super) fn changed(&self) -> Notified<'_> {
        self.waiter.changed.notified()
    }

    /// Whether the object was deleted since this began.
    pub(super) fn was_deleted(&self) -> bool {
        self.waiter.deleted.load(Relaxed)
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        let mut all = lock(&self.waiting.0);
        if let Some(waiters) = all.get_mut(&self.key) {
            waiters.retain(|it| !Arc::ptr_eq(it, &self.waiter));
            if waiters.is_empty() {
                all.remove(&self.key);
            }
        }
    }
}

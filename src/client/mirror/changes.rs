//! The changes of a shared mirror, for one reader: in flow wakeups, out come the state and what
//! changes.

use std::{
    collections::HashMap,
    future::poll_fn,
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    task::{Context, Poll, Waker},
};

use super::MirrorReader;
use crate::{
    Result,
    error::panic::lock,
    session::watch::{MirrorCursor, MirrorUpdate},
};

/// What a [`MirrorReader`] is told; see [`MirrorReader::changes`].
///
/// A reader that falls more than [`limits::MIRROR_BACKLOG`](crate::limits::MIRROR_BACKLOG) behind is
/// told so, and the state anew. It holds nobody up. An `Err` is what the server has understood and
/// refused; the stream goes on, as the watch does.
///
/// ```
/// # kubewire::example(|pod| pod.container("main", ["sleep", "9"]), async |client| {
/// use k8s_openapi::api::core::v1::Pod;
/// use kubewire::watch::MirrorUpdate;
///
/// let mut changes = client.mirror::<Pod>().start().changes();
/// while let Some(update) = changes.next().await {
///     match update? {
///         MirrorUpdate::Added(key, _pod) => println!("{key}"),
///         MirrorUpdate::Current => break, // that was all
///         _ => {}
///     }
/// }
/// # Ok(())
/// # });
/// ```
#[derive(Debug)]
pub struct MirrorChanges<K> {
    reader: MirrorReader<K>,
    cursor: MirrorCursor<K>,
    number: u64,
}

impl<K> MirrorChanges<K> {
    pub(super) fn new(reader: MirrorReader<K>) -> Self {
        let cursor = reader.shared.read().begin();
        let number = reader.shared.wakers.number();
        Self {
            reader,
            cursor,
            number,
        }
    }

    /// The next of them; `None` only where the runtime is gone that the mirror was started in.
    ///
    /// Cancel safe: what is not told yet is told by the next call.
    pub async fn next(&mut self) -> Option<Result<MirrorUpdate<K>>> {
        poll_fn(|cx| self.poll(cx)).await
    }

    /// The reader that this came from.
    pub fn reader(&self) -> &MirrorReader<K> {
        &self.reader
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<MirrorUpdate<K>>>> {
        let shared = &self.reader.shared;
        let mut is_registered = false;
        loop {
            if let Some(told) = self.cursor.next_update() {
                return Poll::Ready(Some(told));
            }
            // The end is looked for first: what was told before it is not lost.
            let have_ended = shared.wakers.have_ended();
            if shared.read().fill(&mut self.cursor) {
                continue;
            }
            if have_ended {
                return Poll::Ready(None);
            }
            if is_registered {
                return Poll::Pending;
            }
            shared.wakers.register(self.number, cx.waker());
            is_registered = true;
        }
    }
}

stream!([K] MirrorChanges<K>, Result<MirrorUpdate<K>>, poll);

impl<K> Drop for MirrorChanges<K> {
    fn drop(&mut self) {
        self.reader.shared.wakers.forget(self.number);
    }
}

/// The wakers of those who have been told all. None is woken, or dropped, under the lock: either may
/// run code of the reader's.
#[derive(Debug, Default)]
pub(super) struct Wakers {
    have_ended: AtomicBool,
    slots: Mutex<Slots>,
}

#[derive(Debug, Default)]
struct Slots {
    next: u64,
    wakers: HashMap<u64, Waker>,
}

impl Wakers {
    fn number(&self) -> u64 {
        let mut slots = lock(&self.slots);
        slots.next += 1;
        slots.next
    }

    fn register(&self, number: u64, waker: &Waker) {
        let waker = waker.clone();
        let before = lock(&self.slots).wakers.insert(number, waker);
        drop(before);
    }

    fn forget(&self, number: u64) {
        let waker = lock(&self.slots).wakers.remove(&number);
        drop(waker);
    }

    pub(super) fn wake(&self) {
        let wakers = std::mem::take(&mut lock(&self.slots).wakers);
        wakers.into_values().for_each(Waker::wake);
    }

    /// Nothing comes any more.
    pub(super) fn end(&self) {
        self.have_ended.store(true, SeqCst);
        self.wake();
    }

    pub(super) fn have_ended(&self) -> bool {
        self.have_ended.load(SeqCst)
    }
}

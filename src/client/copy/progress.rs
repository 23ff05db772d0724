//! How far a copy is: in flow counts from the threads that copy, out they come to who watches.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use tokio::sync::watch;

use super::lock;

/// How far a copy is, for who shows it: give the copy a clone, and look at the other.
///
/// ```
/// # kubewire::example(|pod| pod.container("main", ["sleep", "infinity"]), async |client| {
/// # let (here, there) = (tempfile::tempdir()?, tempfile::tempdir()?);
/// # std::fs::write(here.path().join("index.html"), "hello")?;
/// # let (site, srv) = (here.path(), there.path().to_str().expect("it is UTF-8"));
/// let progress = kubewire::copy::Progress::default();
/// let copy = client.pod("default", "web-0").copy_to(site, format!("{srv}/site"));
/// copy.progress(&progress).run().await?;
/// assert_eq!((progress.bytes(), progress.total_bytes()), (5, Some(5)));
/// # Ok(())
/// # });
/// ```
#[derive(Debug, Clone, Default)]
pub struct Progress(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    files: AtomicU64,
    bytes: AtomicU64,
    /// One more than there are, 0 while that is not known.
    total: AtomicU64,
    /// The bytes that have gone or come at all, some of them again.
    moved: AtomicU64,
    is_watched: AtomicBool,
    /// How many threads and tasks are at work.
    busy: watch::Sender<usize>,
    left: Mutex<Vec<String>>,
}

impl Progress {
    /// Of a copy that has not begun.
    pub fn new() -> Self {
        Self::default()
    }

    /// The files that have gone, or come, whole.
    pub fn files(&self) -> u64 {
        self.0.files.load(Ordering::Relaxed)
    }

    /// The bytes of files that have gone, or come. After a cut it may go back.
    pub fn bytes(&self) -> u64 {
        self.0.bytes.load(Ordering::Relaxed)
    }

    /// The bytes that there are, once that is known. It never is of a container that cannot tell.
    pub fn total_bytes(&self) -> Option<u64> {
        self.0.total.load(Ordering::Relaxed).checked_sub(1)
    }

    /// Waits until nothing of a copy whose future was dropped is at work any more: its thread has
    /// removed the file that is not whole, and the container what it kept aside, for which it has
    /// a few seconds. Gives the paths of what may be left in the container, which could not be
    /// reached or did not remove it.
    ///
    /// Cancel safety: nothing is lost.
    pub async fn settled(&self) -> Vec<String> {
        // The sender is here, so that this cannot fail.
        let _ = self.0.busy.subscribe().wait_for(|busy| *busy == 0).await;
        lock(&self.0.left).clone()
    }

    pub(super) fn leave(&self, path: String) {
        lock(&self.0.left).push(path);
    }

    pub(super) fn is_watched(&self) -> bool {
        self.0.is_watched.load(Ordering::Relaxed)
    }

    pub(super) fn watch(&self) {
        self.0.is_watched.store(true, Ordering::Relaxed);
    }

    pub(super) fn begin(&self) {
        self.0.total.store(0, Ordering::Relaxed);
        lock(&self.0.left).clear();
        self.start(0, 0);
    }

    pub(super) fn start(&self, files: u64, bytes: u64) {
        self.0.files.store(files, Ordering::Relaxed);
        self.0.bytes.store(bytes, Ordering::Relaxed);
    }

    pub(super) fn moved(&self) -> u64 {
        self.0.moved.load(Ordering::Relaxed)
    }

    pub(super) fn total(&self, bytes: u64) {
        let known = bytes.saturating_add(1);
        self.0.total.store(known, Ordering::Relaxed);
    }

    pub(super) fn file(&self) {
        self.0.files.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn add(&self, bytes: u64) {
        self.0.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.0.moved.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Something is at work until the guard is dropped.
    pub(super) fn busy(&self) -> Busy {
        self.0.busy.send_modify(|busy| *busy += 1);
        Busy(self.clone())
    }
}

#[derive(Debug)]
pub(super) struct Busy(Progress);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.0.busy.send_modify(|busy| *busy -= 1);
    }
}

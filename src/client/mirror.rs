//! A copy of the server's objects for many readers: in flows one watch, which a task follows, out
//! come the objects and their changes for as many readers as there are.

mod changes;
mod follow;

use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use tokio::{sync::Notify, task::AbortHandle};

pub use self::changes::MirrorChanges;
use self::{changes::Wakers, follow::Waiting};
use super::Watch;
use crate::{
    Result,
    error::CallerError,
    resource::{InNamespaces, Kind},
    session::watch::{Condition, Form, ObjectKey, SharedMirror},
    wire::watch::{Encoding, EventError, Object, ObjectMeta},
};

type Keep<K> = Arc<dyn Fn(&Object) -> Result<K, EventError> + Send + Sync>;

/// A shared mirror to be: of which objects, and by what they are found; see
/// [`Client::mirror`](super::Client::mirror).
///
/// ```
/// # kubewire::example(|pod| pod.label("app", "web").container("main", ["sleep", "9"]), async |client| {
/// use k8s_openapi::api::core::v1::Pod;
///
/// let pods = client.mirror::<Pod>().namespace("default").index_by_label("app").start();
/// pods.wait_until_ready().await?;
/// assert!(pods.get("web-0").is_some());
/// assert_eq!(pods.by_label("app", "web")?.len(), 1);
/// # Ok(())
/// # });
/// ```
#[must_use = "a mirror does nothing until it is started"]
pub struct MirrorBuilder<K> {
    watch: Watch,
    keep: Keep<K>,
    labels: Vec<String>,
}

impl<K: Send + Sync + 'static> MirrorBuilder<K> {
    pub(super) fn new<F>(watch: Watch, keep: F) -> Self
    where
        F: Fn(&Object) -> Result<K, EventError> + Send + Sync + 'static,
    {
        Self {
            watch,
            keep: Arc::new(keep),
            labels: Vec::new(),
        }
    }

    /// Only objects of this namespace. Without, those of all.
    pub fn namespace(mut self, namespace: impl Into<String>) -> Self
    where
        K: Kind<Scope: InNamespaces>,
    {
        self.watch = self.watch.namespace(namespace);
        self
    }

    /// Only objects whose labels match, such as `app=web,tier!=cache`.
    pub fn labels(mut self, selector: impl Into<String>) -> Self {
        self.watch = self.watch.labels(selector);
        self
    }

    /// Only objects whose fields match, such as `spec.nodeName=node-1`.
    pub fn fields(mut self, selector: impl Into<String>) -> Self {
        self.watch = self.watch.fields(selector);
        self
    }

    /// Only the metadata of the objects, which is a fraction of them on the wire and in memory. It is
    /// asked for in protobuf, which API servers have of the metadata of every resource.
    pub fn metadata_only(self) -> MirrorBuilder<ObjectMeta> {
        let watch = self.watch.form(Form::Metadata).encoding(Encoding::Protobuf);
        MirrorBuilder {
            labels: self.labels,
            ..MirrorBuilder::new(watch, ObjectMeta::of)
        }
    }

    setters! {
        /// Finds the objects by this label too: [`MirrorReader::by_label`].
        fn index_by_label(label: impl Into<String>) labels.push(label.into());
    }

    /// Starts the watch, in a task of its own, and gives the first of its readers. It ends when the
    /// last of them is dropped.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime.
    pub fn start(self) -> MirrorReader<K> {
        let shared = Arc::new(Shared {
            state: RwLock::new(SharedMirror::new(self.labels)),
            namespace: self.watch.in_namespace().map(str::to_owned),
            wakers: Wakers::default(),
            turned: Notify::new(),
            waiting: Waiting::default(),
        });
        let updates = self.watch.stream();
        let following = follow::follow(shared.clone(), updates, self.keep);
        let task = tokio::spawn(following).abort_handle();
        MirrorReader {
            shared,
            task: Arc::new(Task(task)),
        }
    }
}

debug_fields!([K] MirrorBuilder<K> { watch, labels });

#[derive(Debug)]
struct Shared<K> {
    state: RwLock<SharedMirror<K>>,
    /// Where names without a namespace are.
    namespace: Option<String>,
    wakers: Wakers,
    /// A snapshot is complete, the server has refused, or the task has ended.
    turned: Notify,
    waiting: Waiting,
}

impl<K> Shared<K> {
    fn read(&self) -> RwLockReadGuard<'_, SharedMirror<K>> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn key(&self, key: ObjectKey) -> ObjectKey {
        match &self.namespace {
            Some(namespace) if key.namespace().is_empty() => ObjectKey::new(namespace, key.name()),
            _ => key,
        }
    }
}

/// Ends the watch with the last reader.
#[derive(Debug)]
struct Task(AbortHandle);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A reader of a shared mirror; its clones read the same one.
///
/// Objects are shared and never copied: what `get` gives is the object that all readers have. What
/// is read is the last state that the watch has brought, so that a change of one's own may not be
/// in it yet.
///
/// ```
/// # kubewire::example(|pod| pod.container("main", ["sleep", "9"]), async |client| {
/// use k8s_openapi::api::core::v1::Pod;
/// use kubewire::watch::{Condition, MirrorUpdate};
///
/// let pods = client.mirror::<Pod>().start();
/// let reader = pods.clone(); // for another task
/// let changes = tokio::spawn(async move {
///     let mut changes = reader.changes();
///     while let Some(update) = changes.next().await {
///         if let Ok(MirrorUpdate::Deleted(key, _)) = update {
///             return Some(key.to_string());
///         }
///     }
///     None
/// });
/// pods.wait_for("default/web-0", &Condition::ready()).await?;
/// client.api::<Pod>().namespace("default").delete("web-0", None).await?;
/// pods.wait_for("default/web-0", &Condition::deleted()).await?;
/// assert_eq!(changes.await?.as_deref(), Some("default/web-0"));
/// # Ok(())
/// # });
/// ```
pub struct MirrorReader<K> {
    shared: Arc<Shared<K>>,
    task: Arc<Task>,
}

impl<K> Clone for MirrorReader<K> {
    fn clone(&self) -> Self {
        Self {
            shared: self.shared.clone(),
            task: self.task.clone(),
        }
    }
}

impl<K> std::fmt::Debug for MirrorReader<K> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let state = self.shared.read();
        f.debug_struct("MirrorReader")
            .field("len", &state.len())
            .field("is_ready", &state.is_current())
            .finish_non_exhaustive()
    }
}

impl<K> MirrorReader<K> {
    /// An object by its name, `default/web-0`; the name alone where the mirror is of one namespace,
    /// or of objects of the cluster.
    pub fn get(&self, key: impl Into<ObjectKey>) -> Option<Arc<K>> {
        let key = self.shared.key(key.into());
        self.shared.read().get(&key).cloned()
    }

    /// All objects, in no order.
    pub fn list(&self) -> Vec<Arc<K>> {
        self.shared.read().iter().cloned().collect()
    }

    /// The objects of a namespace, in no order, without a look at the others.
    pub fn in_namespace(&self, namespace: &str) -> Vec<Arc<K>> {
        self.shared
            .read()
            .in_namespace(namespace)
            .cloned()
            .collect()
    }

    /// The objects whose label has this value, in no order, without a look at the others.
    ///
    /// # Errors
    ///
    /// [`CallerError::NoIndex`] if the mirror was started without
    /// [`index_by_label`](MirrorBuilder::index_by_label) for it.
    pub fn by_label(&self, label: &str, value: &str) -> Result<Vec<Arc<K>>> {
        let state = self.shared.read();
        let found = state.by_label(label, value);
        let found = found.ok_or_else(|| CallerError::NoIndex {
            label: label.to_owned(),
        })?;
        Ok(found.cloned().collect())
    }

    /// How many objects there are.
    pub fn len(&self) -> usize {
        self.shared.read().len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether every object of the server is here. From the first time on there is always a whole
    /// state to read; while the watch begins anew, which it may have to after a long cut, this says
    /// that the state is an old one.
    pub fn is_ready(&self) -> bool {
        self.shared.read().is_current()
    }

    /// Waits until every object of the server is here, for as long as that takes: through lost
    /// connections too.
    ///
    /// Cancel safety: nothing is lost.
    ///
    /// # Errors
    ///
    /// What the server has understood and refused, such as a missing right. The watch is tried again
    /// all the same, and so may this be.
    /// [`CallerError::Ended`] if the runtime that the mirror was started in is gone.
    pub async fn wait_until_ready(&self) -> Result<()> {
        loop {
            let turned = self.shared.turned.notified();
            tokio::pin!(turned);
            turned.as_mut().enable();
            {
                let state = self.shared.read();
                if state.is_current() {
                    return Ok(());
                }
                self.may_wait(&state)?;
            }
            turned.await;
        }
    }

    /// Waits until the condition holds of an object, which is named as in [`get`](Self::get), and
    /// gives the object as it was then; `None` if there was none. One watch serves as many of these
    /// as there are, each of which is woken for its own object alone.
    ///
    /// That an object is not there is known once the mirror [is ready](Self::is_ready). A deletion
    /// counts also if another object of the same name follows at once.
    ///
    /// Cancel safety: nothing is lost, but a state that passes between two calls is not seen.
    ///
    /// # Errors
    ///
    /// Those of [`wait_until_ready`](Self::wait_until_ready);
    /// [`PeerError::Event`](crate::error::PeerError::Event) if the object is not of the type.
    pub async fn wait_for(
        &self,
        key: impl Into<ObjectKey>,
        condition: &Condition<K>,
    ) -> Result<Option<Arc<K>>> {
        let key = self.shared.key(key.into());
        let waits = self.shared.waiting.begin(&key);
        loop {
            let changed = waits.changed();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let (object, is_known, may_wait) = {
                let state = self.shared.read();
                if let Some(error) = state.unreadable(&key) {
                    return Err(error.clone().into());
                }
                let object = state.get(&key).cloned();
                let is_known = object.is_some() || state.is_current();
                (object, is_known, self.may_wait(&state))
            };
            let is_deleted = condition.is_deletion && waits.was_deleted();
            // It may look at the mirror itself.
            if is_deleted || (is_known && condition.holds(object.as_deref())) {
                return Ok(object);
            }
            may_wait?;
            changed.await;
        }
    }

    /// What a wait cannot outlast.
    fn may_wait(&self, state: &SharedMirror<K>) -> Result<()> {
        if let Some(refusal) = state.refusal() {
            return Err(refusal.clone());
        }
        match self.shared.wakers.have_ended() {
            true => Err(CallerError::Ended.into()),
            false => Ok(()),
        }
    }

    /// The state, and then what changes, for this reader by itself. It keeps the watch going as
    /// every reader does.
    pub fn changes(&self) -> MirrorChanges<K> {
        MirrorChanges::new(self.clone())
    }
}

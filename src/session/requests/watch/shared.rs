//! A copy of the server's objects that many read.
//!
//! In go the updates of one continuous watch; out come the objects, found by name, namespace and
//! label, and for every reader the changes since it last looked, or, where it has fallen behind,
//! the state anew. An object is decoded once: readers share it.

use std::{collections::HashMap, sync::Arc, time::Duration};

use super::{
    Change, Mirror, ObjectKey, Update,
    backlog::{Backlog, Cursor},
    index::Index,
};
use crate::{
    error::Error,
    wire::watch::{Event, EventError, EventType, Metadata, Object},
};

/// What a reader of a [`SharedMirror`] is told.
///
/// It begins with the state, an [`Added`](Self::Added) for each object, and goes on with what
/// changes.
#[derive(Debug)]
#[non_exhaustive]
pub enum MirrorUpdate<K> {
    /// The object is there.
    Added(ObjectKey, Arc<K>),
    /// The object has another resourceVersion.
    Modified(ObjectKey, Arc<K>),
    /// The object is gone; this was its last state that the mirror had.
    Deleted(ObjectKey, Arc<K>),
    /// All objects of the server have been told.
    Current,
    /// This reader was too slow, and so many changes are not told. The state follows anew, with an
    /// [`Added`](Self::Added) for each object: those that it does not name are gone.
    Lagged {
        /// How many.
        missed: u64,
    },
    /// An object is not of the type; the mirror keeps what it had of it.
    Unreadable {
        /// Which, if that can be read.
        key: Option<ObjectKey>,
        /// What is wrong with it.
        error: EventError,
    },
    /// Something went wrong, and the watch goes on after a delay.
    Retrying {
        /// What went wrong.
        error: Error,
        /// The delay.
        retry_in: Duration,
    },
}

impl<K> MirrorUpdate<K> {
    /// Which object it is about, if it is about one.
    pub fn key(&self) -> Option<&ObjectKey> {
        match self {
            Self::Added(key, _) | Self::Modified(key, _) | Self::Deleted(key, _) => Some(key),
            Self::Unreadable { key, .. } => key.as_ref(),
            _ => None,
        }
    }
}

impl<K> Clone for MirrorUpdate<K> {
    fn clone(&self) -> Self {
        match self {
            Self::Added(key, object) => Self::Added(key.clone(), object.clone()),
            Self::Modified(key, object) => Self::Modified(key.clone(), object.clone()),
            Self::Deleted(key, object) => Self::Deleted(key.clone(), object.clone()),
            Self::Current => Self::Current,
            Self::Lagged { missed } => Self::Lagged { missed: *missed },
            Self::Unreadable { key, error } => Self::Unreadable {
                key: key.clone(),
                error: error.clone(),
            },
            Self::Retrying { error, retry_in } => Self::Retrying {
                error: error.clone(),
                retry_in: *retry_in,
            },
        }
    }
}

/// What is told: an error is what the server has understood and refused.
type Told<K> = Result<MirrorUpdate<K>, Error>;

/// Where a reader of a [`SharedMirror`] stands; see there.
#[derive(Debug)]
pub struct MirrorCursor<K>(Cursor<Told<K>>);

impl<K> MirrorCursor<K> {
    /// The next that the reader is told of what it was [filled](SharedMirror::fill) with. An error
    /// is what the server has understood and refused.
    #[inline]
    pub fn next_update(&mut self) -> Option<Result<MirrorUpdate<K>, Error>> {
        self.0.next()
    }
}

#[derive(Debug)]
struct Kept<K> {
    object: Arc<K>,
    labels: Arc<[Option<Box<str>>]>,
}

impl<K> Clone for Kept<K> {
    fn clone(&self) -> Self {
        Self {
            object: self.object.clone(),
            labels: self.labels.clone(),
        }
    }
}

/// A [`Mirror`] and what its readers have yet to be told.
///
/// Whoever drives it [applies](Self::apply) updates, [publishes](Self::publish) what they changed,
/// and wakes the readers. A reader [begins](Self::begin) and takes out of its cursor what it has not
/// been told yet; one whose cursor is empty has it [filled](Self::fill).
///
/// ```
/// use bytes::Bytes;
/// use kubewire::{
///     session::watch::{MirrorCursor, SharedMirror},
///     watch::{Encoding, Event, MirrorUpdate, ObjectMeta, Update},
/// };
///
/// let mut mirror = SharedMirror::new(vec!["app".to_owned()]);
/// let mut reader: MirrorCursor<ObjectMeta> = mirror.begin();
/// let event = br#"{"type":"ADDED","object":{"metadata":{"name":"a","labels":{"app":"web"}}}}"#;
/// let event = Event::from_message(Encoding::Json, Bytes::from_static(event))?;
/// mirror.apply(&Update::Event(event), ObjectMeta::of);
/// mirror.publish();
/// assert!(mirror.fill(&mut reader));
/// assert!(matches!(reader.next_update(), Some(Ok(MirrorUpdate::Added(..)))));
/// assert!(reader.next_update().is_none() && !mirror.fill(&mut reader));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct SharedMirror<K> {
    mirror: Mirror<Kept<K>>,
    namespaces: Index,
    labels: Vec<(Box<str>, Index)>,
    /// What objects that are not of the type are wrong with.
    unreadable: HashMap<ObjectKey, EventError>,
    refusal: Option<Error>,
    pending: Vec<Told<K>>,
    backlog: Backlog<Told<K>>,
}

impl<K> SharedMirror<K> {
    /// A mirror of nothing yet, which finds objects by these labels too.
    pub fn new(labels: Vec<String>) -> Self {
        let labels = labels.into_iter().map(|it| (it.into(), Index::default()));
        Self {
            mirror: Mirror::new(),
            namespaces: Index::default(),
            labels: labels.collect(),
            unreadable: HashMap::new(),
            refusal: None,
            pending: Vec::new(),
            backlog: Backlog::default(),
        }
    }

    /// Whether the object is here in this state, so that there is nothing to decode. Before the first
    /// snapshot is complete none is looked for.
    pub fn knows(&self, object: &Object) -> bool {
        let known = || {
            let metadata = object.metadata()?;
            self.mirror.knows(&ObjectKey::of(&metadata)?, &metadata)
        };
        !self.mirror.is_first() && known().unwrap_or(false)
    }

    /// Applies an update; `decode` is asked for an object that is not known in its state.
    pub fn apply(
        &mut self,
        update: &Update,
        decode: impl FnOnce(&Object) -> Result<K, EventError>,
    ) {
        match update {
            Update::SnapshotBegin => {
                // Every object is seen again.
                self.unreadable.clear();
                self.mirror.begin_snapshot();
            }
            Update::SnapshotEnd { .. } => {
                self.refusal = None;
                for change in self.mirror.end_snapshot() {
                    if let Change::Deleted(key, kept) = change {
                        self.delete(key, &kept);
                    }
                }
                self.pending.push(Ok(MirrorUpdate::Current));
            }
            Update::Event(event) => {
                self.refusal = None;
                if let Err((key, error)) = self.apply_event(event, decode) {
                    if let Some(key) = &key {
                        self.unreadable.insert(key.clone(), error.clone());
                    }
                    self.pending
                        .push(Ok(MirrorUpdate::Unreadable { key, error }));
                }
            }
            Update::Bookmark { .. } => self.refusal = None,
            Update::Retrying {
                error, retry_in, ..
            } => self.pending.push(Ok(MirrorUpdate::Retrying {
                error: error.clone(),
                retry_in: *retry_in,
            })),
        }
    }

    /// An error comes with the object that it is about, unless that cannot be read.
    fn apply_event(
        &mut self,
        event: &Event,
        decode: impl FnOnce(&Object) -> Result<K, EventError>,
    ) -> Result<(), (Option<ObjectKey>, EventError)> {
        let metadata = event.object.metadata().map_err(|error| (None, error))?;
        let key = ObjectKey::of(&metadata).map_err(|error| (None, error))?;
        match event.event_type {
            EventType::Added | EventType::Modified | EventType::Deleted => {}
            _ => return Ok(()),
        }
        let labels = &self.labels;
        let before = match labels.is_empty() {
            true => None,
            false => self.mirror.get(&key).map(|kept| kept.labels.clone()),
        };
        let mut now = None;
        let keep = || {
            let kept = Kept {
                labels: values(&metadata, labels)?,
                object: Arc::new(decode(&event.object)?),
            };
            now = Some(kept.clone());
            Ok::<_, EventError>(kept)
        };
        let changes = self
            .mirror
            .apply_event(&event.event_type, key.clone(), &metadata, keep);
        let changes = changes.map_err(|error| (Some(key.clone()), error))?;
        if !self.unreadable.is_empty() {
            self.unreadable.remove(&key);
        }
        for change in changes.into_iter().flatten() {
            let update = match (change, &now) {
                (Change::Deleted(key, kept), _) => {
                    self.delete(key, &kept);
                    continue;
                }
                (Change::Added(key), Some(now)) => {
                    self.namespaces.insert(key.namespace(), &key);
                    self.label(&key, &now.labels, Index::insert);
                    MirrorUpdate::Added(key, now.object.clone())
                }
                (Change::Modified(key), Some(now)) => {
                    if let Some(before) = &before {
                        self.label(&key, before, Index::remove);
                    }
                    self.label(&key, &now.labels, Index::insert);
                    MirrorUpdate::Modified(key, now.object.clone())
                }
                (Change::Added(_) | Change::Modified(_), None) => continue,
            };
            self.pending.push(Ok(update));
        }
        Ok(())
    }

    /// The server has refused the watch, which is tried again.
    pub fn refuse(&mut self, error: Error) {
        self.refusal = Some(error.clone());
        self.pending.push(Err(error));
    }

    fn delete(&mut self, key: ObjectKey, kept: &Kept<K>) {
        self.namespaces.remove(key.namespace(), &key);
        self.label(&key, &kept.labels, Index::remove);
        let object = kept.object.clone();
        self.pending.push(Ok(MirrorUpdate::Deleted(key, object)));
    }

    /// Changes the index of each label that is there.
    fn label(
        &mut self,
        key: &ObjectKey,
        values: &[Option<Box<str>>],
        change: impl Fn(&mut Index, &str, &ObjectKey),
    ) {
        for ((_, index), value) in self.labels.iter_mut().zip(values) {
            if let Some(value) = value {
                change(index, value, key);
            }
        }
    }

    /// Hands what has changed to all readers, and returns it; `None` for nothing.
    pub fn publish(&mut self) -> Option<Arc<[Told<K>]>> {
        if self.pending.is_empty() {
            return None;
        }
        let batch: Arc<[_]> = std::mem::take(&mut self.pending).into();
        self.backlog.push(batch.clone());
        Some(batch)
    }

    /// A reader that has been told nothing yet.
    pub fn begin(&self) -> MirrorCursor<K> {
        MirrorCursor(self.backlog.cursor(self.state(None)))
    }

    /// Fills a reader's cursor that is empty. Returns whether there was something.
    pub fn fill(&self, cursor: &mut MirrorCursor<K>) -> bool {
        match self.backlog.fill(&mut cursor.0) {
            Ok(filled) => filled,
            Err(missed) => {
                cursor.0 = self.backlog.cursor(self.state(Some(missed)));
                true
            }
        }
    }

    fn state(&self, missed: Option<u64>) -> Vec<Told<K>> {
        let missed = missed.map(|missed| MirrorUpdate::Lagged { missed });
        let objects = self.mirror.iter();
        let objects = objects.map(|(k, kept)| MirrorUpdate::Added(k.clone(), kept.object.clone()));
        let unreadable = self.unreadable.iter();
        let unreadable = unreadable.map(|(key, error)| MirrorUpdate::Unreadable {
            key: Some(key.clone()),
            error: error.clone(),
        });
        let current = self.is_current().then_some(MirrorUpdate::Current);
        let state = missed.into_iter().chain(objects).chain(unreadable);
        let state = state.chain(current).map(Ok);
        state.chain(self.refusal.clone().map(Err)).collect()
    }

    /// Whether the last snapshot is complete.
    pub fn is_current(&self) -> bool {
        self.mirror.is_current()
    }

    /// What the server has understood and refused, if that was the last that happened.
    pub fn refusal(&self) -> Option<&Error> {
        self.refusal.as_ref()
    }

    /// What is wrong with an object that is not of the type.
    pub fn unreadable(&self, key: &ObjectKey) -> Option<&EventError> {
        self.unreadable.get(key)
    }

    /// An object.
    pub fn get(&self, key: &ObjectKey) -> Option<&Arc<K>> {
        self.mirror.get(key).map(|kept| &kept.object)
    }

    /// All objects, in no order.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<K>> {
        self.mirror.iter().map(|(_, kept)| &kept.object)
    }

    /// The objects of a namespace, in no order.
    pub fn in_namespace(&self, namespace: &str) -> impl Iterator<Item = &Arc<K>> {
        let keys = self.namespaces.get(namespace);
        keys.filter_map(|key| self.get(key))
    }

    /// The objects whose label has this value, in no order; `None` if the label is not indexed.
    pub fn by_label(&self, label: &str, value: &str) -> Option<impl Iterator<Item = &Arc<K>>> {
        let (_, index) = self.labels.iter().find(|(known, _)| **known == *label)?;
        Some(index.get(value).filter_map(|key| self.get(key)))
    }

    /// How many objects there are.
    pub fn len(&self) -> usize {
        self.mirror.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.mirror.is_empty()
    }
}

fn values(
    metadata: &Metadata<'_>,
    labels: &[(Box<str>, Index)],
) -> Result<Arc<[Option<Box<str>>]>, EventError> {
    if labels.is_empty() {
        return Ok(Arc::default());
    }
    let mut values = vec![None; labels.len()];
    for entry in metadata.labels()? {
        let (name, value) = entry?;
        if let Some(at) = labels.iter().position(|(label, _)| **label == *name) {
            values[at] = Some((*value).into());
        }
    }
    Ok(values.into())
}

#[cfg(test)]
mod tests;

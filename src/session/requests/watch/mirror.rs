//! A copy of the server's objects that follows a watch.
//!
//! In go the updates of a continuous watch; out come the changes that they made, deletions that
//! nobody saw among them.

use std::{
    collections::{HashMap, hash_map},
    fmt,
    hash::{Hash, Hasher},
    ops::Deref,
    sync::Arc,
};

use super::Update;
use crate::wire::watch::{Event, EventError, EventType, Metadata, Object};

/// Which object: its namespace, empty for what has none, and its name. A clone costs a counter.
///
/// ```
/// use kubewire::watch::ObjectKey;
///
/// let key = ObjectKey::from("default/web-0");
/// assert_eq!((key.namespace(), key.name()), ("default", "web-0"));
/// assert_eq!(key, ObjectKey::new("default", "web-0"));
/// assert_eq!(ObjectKey::from("node-1").namespace(), "");
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct ObjectKey(Pair<Arc<str>>);

/// Two texts in one allocation.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Pair<S> {
    text: S,
    first: u32,
}

impl<S: From<String> + Deref<Target = str>> Pair<S> {
    fn new(first: &str, second: &str) -> Self {
        Self {
            text: [first, second].concat().into(),
            // Names have at most 253 bytes.
            first: u32::try_from(first.len()).unwrap_or(u32::MAX),
        }
    }

    fn first(&self) -> &str {
        self.text.get(..self.first as usize).unwrap_or_default()
    }

    fn second(&self) -> &str {
        self.text.get(self.first as usize..).unwrap_or_default()
    }
}

impl ObjectKey {
    /// The key of the object `name` in `namespace`.
    pub fn new(namespace: &str, name: &str) -> Self {
        Self(Pair::new(namespace, name))
    }

    pub(super) fn of(metadata: &Metadata<'_>) -> Result<Self, EventError> {
        Ok(Self::new(&metadata.namespace()?, &metadata.name()?))
    }

    /// The namespace; empty for what has none.
    pub fn namespace(&self) -> &str {
        self.0.first()
    }

    /// The name.
    pub fn name(&self) -> &str {
        self.0.second()
    }
}

/// As it is shown: `namespace/name`, or the name alone.
impl From<&str> for ObjectKey {
    fn from(text: &str) -> Self {
        let (namespace, name) = text.split_once('/').unwrap_or(("", text));
        Self::new(namespace, name)
    }
}

impl From<&String> for ObjectKey {
    fn from(text: &String) -> Self {
        text.as_str().into()
    }
}

impl From<&Self> for ObjectKey {
    fn from(key: &Self) -> Self {
        key.clone()
    }
}

impl Hash for ObjectKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write(self.0.text.as_bytes());
    }
}

/// `namespace/name`, or the name alone.
impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.namespace() {
            "" => f.write_str(self.name()),
            namespace => write!(f, "{namespace}/{}", self.name()),
        }
    }
}

impl fmt::Debug for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ObjectKey({self})")
    }
}

/// What an update changed in a [`Mirror`].
///
/// ```
/// use kubewire::watch::Change;
///
/// fn say(change: &Change<u32>) -> String {
///     match change {
///         Change::Added(key) => format!("+ {key}"),
///         Change::Modified(key) => format!("~ {key}"),
///         Change::Deleted(key, value) => format!("- {key}, which had {value}"),
///     }
/// }
/// # let _ = say;
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change<T> {
    /// The object is new.
    Added(ObjectKey),
    /// The object has another resourceVersion.
    Modified(ObjectKey),
    /// The object is gone; this was its value. Also where it was deleted while nobody watched, and
    /// where another object has taken its name meanwhile.
    Deleted(ObjectKey, T),
}

impl<T> Change<T> {
    /// Which object it is about.
    pub fn key(&self) -> &ObjectKey {
        match self {
            Self::Added(key) | Self::Modified(key) | Self::Deleted(key, _) => key,
        }
    }
}

#[derive(Debug)]
struct Entry<T> {
    value: T,
    /// The uid and the resourceVersion.
    version: Pair<Box<str>>,
    seen: u32,
}

impl<T> Entry<T> {
    /// Whether it is the object in this version.
    fn is_in(&self, version: &str) -> bool {
        self.version.second() == version && !version.is_empty()
    }
}

/// A copy of the server's objects, of each what the caller keeps: the unparsed object, a parsed
/// one, or a few fields.
///
/// Between [`Update::SnapshotBegin`] and [`Update::SnapshotEnd`] it holds the objects of before,
/// those of the snapshot so far in their new state; from the end on, exactly those of the server.
///
/// ```
/// # kubewire::example(|pod| pod.container("main", ["sleep", "infinity"]), async |client| {
/// use kubewire::{Resource, watch::{Mirror, ObjectKey}};
/// use serde_json::Value;
///
/// let pods = Resource::namespaced("", "v1", "pods");
/// let mut updates = client.watch(pods).namespace("default").stream();
/// let mut mirror = Mirror::new();
/// while !mirror.is_current() {
///     let update = updates.next().await.expect("it never ends")?;
///     mirror.apply(&update, |object| object.decode::<Value>())?;
/// }
/// assert!(mirror.get(&ObjectKey::new("default", "web-0")).is_some());
/// # Ok(())
/// # });
/// ```
#[derive(Debug)]
pub struct Mirror<T> {
    objects: HashMap<ObjectKey, Entry<T>>,
    snapshot: u32,
    current: bool,
}

impl<T> Default for Mirror<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Mirror<T> {
    /// A mirror of nothing yet.
    pub fn new() -> Self {
        Self {
            objects: HashMap::new(),
            snapshot: 0,
            current: false,
        }
    }

    /// Applies an update; `keep` says what to keep of an object.
    ///
    /// Returns what changed: nothing for an object that is seen again in the state that is known.
    ///
    /// # Errors
    ///
    /// What `keep` returns, or if the object's metadata is malformed; the mirror is as before.
    pub fn apply<V: AsRef<Event>, E: From<EventError>>(
        &mut self,
        update: &Update<V>,
        keep: impl FnOnce(&Object) -> Result<T, E>,
    ) -> Result<Vec<Change<T>>, E> {
        match update {
            Update::SnapshotBegin => self.begin_snapshot(),
            Update::SnapshotEnd { .. } => return Ok(self.end_snapshot()),
            Update::Event(event) => {
                let event = event.as_ref();
                let metadata = event.object.metadata()?;
                let key = ObjectKey::of(&metadata)?;
                let keep = || keep(&event.object);
                let changes = self.apply_event(&event.event_type, key, &metadata, keep)?;
                return Ok(changes.into_iter().flatten().collect());
            }
            Update::Bookmark { .. } | Update::Retrying { .. } => {}
        }
        Ok(Vec::new())
    }

    pub(super) fn begin_snapshot(&mut self) {
        self.snapshot = self.snapshot.wrapping_add(1);
        self.current = false;
    }

    /// What was not in the snapshot is gone.
    pub(super) fn end_snapshot(&mut self) -> Vec<Change<T>> {
        self.current = true;
        let snapshot = self.snapshot;
        let gone = self.objects.extract_if(|_, entry| entry.seen != snapshot);
        gone.map(|(key, e)| Change::Deleted(key, e.value)).collect()
    }

    /// Applies an event about the object that has this key and metadata.
    pub(super) fn apply_event<E: From<EventError>>(
        &mut self,
        event_type: &EventType,
        key: ObjectKey,
        metadata: &Metadata<'_>,
        keep: impl FnOnce() -> Result<T, E>,
    ) -> Result<[Option<Change<T>>; 2], E> {
        match event_type {
            EventType::Added | EventType::Modified => self.insert(key, metadata, keep),
            EventType::Deleted => {
                let gone = self.objects.remove_entry(&key);
                let gone = gone.map(|(key, entry)| Change::Deleted(key, entry.value));
                Ok([gone, None])
            }
            _ => Ok([None, None]),
        }
    }

    fn insert<E: From<EventError>>(
        &mut self,
        key: ObjectKey,
        metadata: &Metadata<'_>,
        keep: impl FnOnce() -> Result<T, E>,
    ) -> Result<[Option<Change<T>>; 2], E> {
        let (uid, version) = (metadata.uid()?, metadata.resource_version()?);
        let seen = self.snapshot;
        let entry = || {
            Ok::<_, E>(Entry {
                value: keep()?,
                version: Pair::new(&uid, &version),
                seen,
            })
        };
        let mut known = match self.objects.entry(key.clone()) {
            hash_map::Entry::Vacant(place) => {
                place.insert(entry()?);
                return Ok([Some(Change::Added(key)), None]);
            }
            hash_map::Entry::Occupied(known) => known,
        };
        let is_same = known.get().version.first() == uid;
        if is_same {
            // It is there, also if what it is now cannot be kept.
            known.get_mut().seen = seen;
            if known.get().is_in(&version) {
                return Ok([None, None]);
            }
        }
        let before = known.insert(entry()?);
        Ok(match is_same {
            true => [Some(Change::Modified(key)), None],
            false => [
                Some(Change::Deleted(key.clone(), before.value)),
                Some(Change::Added(key)),
            ],
        })
    }

    /// Whether the object is here in this state.
    pub(super) fn knows(
        &self,
        key: &ObjectKey,
        metadata: &Metadata<'_>,
    ) -> Result<bool, EventError> {
        let (uid, version) = (metadata.uid()?, metadata.resource_version()?);
        let known = self.objects.get(key);
        Ok(known.is_some_and(|known| known.version.first() == uid && known.is_in(&version)))
    }

    /// Whether the first snapshot comes, each object of which is a new one.
    pub(super) fn is_first(&self) -> bool {
        self.snapshot <= 1 && !self.current
    }

    /// Whether the last snapshot is complete.
    pub fn is_current(&self) -> bool {
        self.current
    }

    /// What was kept of an object.
    pub fn get(&self, key: &ObjectKey) -> Option<&T> {
        self.objects.get(key).map(|entry| &entry.value)
    }

    /// The version of an object.
    pub fn resource_version(&self, key: &ObjectKey) -> Option<&str> {
        self.objects.get(key).map(|entry| entry.version.second())
    }

    /// All objects, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (&ObjectKey, &T)> {
        self.objects.iter().map(|(key, entry)| (key, &entry.value))
    }

    /// How many objects there are.
    pub fn len(&self) -> usize {
        self.objects.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.objects.is_empty()
    }
}

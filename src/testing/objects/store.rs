//! The objects of a server: in flow objects to keep, out come the states and changes that lists
//! and watches are answered from.
//!
//! As in etcd, one counter gives every change its version, changes are kept until they are
//! compacted, and older states can be read as far as the changes go back.

use std::{
    collections::{BTreeMap, VecDeque},
    convert::Infallible,
    sync::{Arc, Mutex, MutexGuard},
};

use bytes::Bytes;
use serde_json::Value;
use tokio::sync::watch;

use crate::{
    Resource,
    error::panic::lock,
    testing::{pods::logs::now, values::json::set},
    wire::stamp::Stamp,
};

/// A resource's objects are those of this prefix.
pub(crate) type Key = (String, String, String, String);

#[derive(Debug, Clone)]
pub(crate) struct Object {
    pub(crate) json: Value,
    /// Its protobuf message, without the metadata.
    pub(crate) message: Option<Bytes>,
}

impl Object {
    /// An object without a message.
    pub(crate) fn new(json: Value) -> Self {
        Self {
            json,
            message: None,
        }
    }
}

/// Objects in the order of their keys.
pub(super) type Objects = Vec<(Key, Arc<Object>)>;

/// Its objects are views of those of the core group.
pub(super) const EVENTS: &str = "events.k8s.io";

/// The group that has the stored objects of this one.
pub(crate) fn group_of(group: &str) -> &str {
    if group == EVENTS { "" } else { group }
}

pub(crate) fn key(resource: &Resource, namespace: &str, name: &str) -> Key {
    (
        group_of(&resource.group).to_owned(),
        resource.plural.to_string(),
        namespace.to_owned(),
        name.to_owned(),
    )
}

/// Whether an object is of a resource, in a namespace if one is named.
pub(super) fn is_of(key: &Key, resource: &Resource, namespace: Option<&str>) -> bool {
    key.0 == group_of(&resource.group)
        && key.1 == resource.plural
        && namespace.is_none_or(|namespace| namespace == key.2)
}

/// The key of an object, by its metadata.
pub(crate) fn key_of(resource: &Resource, object: &Value) -> Key {
    let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default();
    key(resource, text("namespace"), text("name"))
}

#[derive(Debug, Clone)]
pub(super) struct Change {
    pub(super) version: u64,
    pub(super) key: Key,
    pub(super) before: Option<Arc<Object>>,
    /// For a deletion, the last state with the version of the deletion.
    pub(super) object: Arc<Object>,
    pub(super) deleted: bool,
}

#[derive(Debug)]
pub(crate) struct Store {
    state: Mutex<State>,
    /// The version, for those who wait for the next.
    version: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct State {
    version: u64,
    objects: BTreeMap<Key, Arc<Object>>,
    changes: VecDeque<Change>,
    /// Changes up to this one are gone.
    compacted: u64,
    objects_made: u64,
    /// How many objects have owners.
    owned: usize,
}

fn is_owned(object: &Object) -> usize {
    usize::from(object.json["metadata"]["ownerReferences"].is_array())
}

impl State {
    fn next_uid(&mut self) -> String {
        self.objects_made += 1;
        format!("00000000-0000-4000-8000-{:012x}", self.objects_made)
    }

    /// Fills in the server's part of an object's metadata, with this version or none.
    fn complete(&mut self, before: Option<&Object>, json: &mut Value, version: Value) {
        let metadata = &mut json["metadata"];
        set(metadata, "resourceVersion", &version);
        match before {
            Some(before) => {
                for field in ["uid", "creationTimestamp"] {
                    metadata[field] = before.json["metadata"][field].clone();
                }
            }
            None => {
                if metadata["uid"].is_null() {
                    metadata["uid"] = self.next_uid().into();
                }
                if metadata["creationTimestamp"].is_null() {
                    metadata["creationTimestamp"] = seconds(now()).into();
                }
            }
        }
    }

    /// Makes a change of an object, which is there or is to be, and returns its new state or the
    /// last one.
    fn change(&mut self, key: Key, next: Option<Object>) -> Option<Arc<Object>> {
        let before = self.objects.get(&key).cloned();
        let deleted = next.is_none();
        let mut object = next.or_else(|| before.as_deref().cloned())?;
        self.version += 1;
        let version = self.version;
        self.complete(
            before.as_deref(),
            &mut object.json,
            version.to_string().into(),
        );
        let object = Arc::new(object);
        self.owned -= before.as_deref().map_or(0, is_owned);
        match deleted {
            true => drop(self.objects.remove(&key)),
            false => {
                self.owned += is_owned(&object);
                self.objects.insert(key.clone(), object.clone());
            }
        }
        self.changes.push_back(Change {
            version,
            key,
            before,
            object: object.clone(),
            deleted,
        });
        Some(object)
    }
}

#[derive(Debug)]
pub(crate) enum Next {
    Same,
    Put(Object),
    Delete,
}

/// A time as objects have it: in whole seconds.
pub(crate) fn seconds(stamp: Stamp) -> String {
    format!("{}Z", &stamp.to_string()[..19])
}

/// The version asked for has been compacted; this is the oldest there is.
#[derive(Debug)]
pub(crate) struct Compacted(pub(super) u64);

impl Store {
    pub(crate) fn new() -> Self {
        let state = State {
            version: 1,
            ..State::default()
        };
        Self {
            state: Mutex::new(state),
            version: watch::Sender::new(1),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    pub(crate) fn version(&self) -> u64 {
        self.lock().version
    }

    /// Tells of every new version.
    pub(super) fn subscribe(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }

    /// Creates or replaces an object; the server's part of the metadata is filled in.
    pub(crate) fn put(&self, resource: &Resource, object: Object) -> Option<Arc<Object>> {
        let key = key_of(resource, &object.json);
        self.commit(self.lock(), key, Some(object))
    }

    /// Makes a change and tells of it.
    fn commit(
        &self,
        mut state: MutexGuard<'_, State>,
        key: Key,
        next: Option<Object>,
    ) -> Option<Arc<Object>> {
        let after = state.change(key, next);
        let version = state.version;
        drop(state);
        self.version.send_replace(version);
        after
    }

    /// Adds an object that has been there from the beginning: no version is its own.
    pub(crate) fn seed(&self, resource: &Resource, mut json: Value) {
        let key = key_of(resource, &json);
        let mut state = self.lock();
        let version = state.version.to_string();
        state.complete(None, &mut json, version.into());
        state.objects.insert(key, Arc::new(Object::new(json)));
    }

    pub(crate) fn delete(&self, key: &Key) -> Option<Arc<Object>> {
        self.edit(key, |_| true).map(|(object, _)| object)
    }

    /// Does to an object what `change` makes of its present state, with nothing in between, and
    /// returns its new state, or the last one. A dry run returns the same and does nothing.
    ///
    /// `change` may read other objects, and is asked again if this one has changed meanwhile.
    pub(crate) fn write<E>(
        &self,
        key: Key,
        dry: bool,
        mut change: impl FnMut(Option<&Object>) -> Result<Next, E>,
    ) -> Result<Option<Arc<Object>>, E> {
        loop {
            let before = self.get(&key);
            let next = change(before.as_deref())?;
            let mut state = self.lock();
            if state.objects.get(&key).map(Arc::as_ptr) != before.as_ref().map(Arc::as_ptr) {
                continue;
            }
            let next = match next {
                Next::Same => return Ok(before),
                Next::Delete if dry => return Ok(before),
                Next::Put(mut object) if dry => {
                    // As in a cluster, a dry run has the version of before, or none.
                    let version = before.as_ref().map(|before| &before.json["metadata"]);
                    let version = version.map_or(Value::Null, |of| of["resourceVersion"].clone());
                    let made = state.objects_made;
                    state.complete(before.as_deref(), &mut object.json, version);
                    state.objects_made = made;
                    return Ok(Some(Arc::new(object)));
                }
                Next::Put(object) => Some(object),
                Next::Delete => None,
            };
            return Ok(self.commit(state, key, next));
        }
    }

    /// Makes of an object what `edit` does, and deletes it if that says so; returns it as it is
    /// then, or was, and whether it has gone.
    pub(crate) fn edit(
        &self,
        key: &Key,
        mut edit: impl FnMut(&mut Value) -> bool,
    ) -> Option<(Arc<Object>, bool)> {
        let mut gone = false;
        let written = self.write(key.clone(), false, |before| {
            let Some(mut object) = before.cloned() else {
                return Ok::<_, Infallible>(Next::Same);
            };
            gone = edit(&mut object.json);
            Ok(
                match before.is_some_and(|before| before.json == object.json) {
                    _ if gone => Next::Delete,
                    true => Next::Same,
                    false => Next::Put(object),
                },
            )
        });
        let Ok(written) = written;
        Some((written?, gone))
    }

    /// Forgets all changes so far: watches from before are told 410.
    pub(crate) fn compact(&self) {
        let mut state = self.lock();
        state.compacted = state.version;
        state.changes.clear();
    }

    pub(crate) fn get(&self, key: &Key) -> Option<Arc<Object>> {
        self.lock().objects.get(key).cloned()
    }

    pub(super) fn has_owned(&self) -> bool {
        self.lock().owned > 0
    }

    pub(crate) fn next_uid(&self) -> String {
        self.lock().next_uid()
    }

    /// All objects that meet a condition, with their keys.
    pub(super) fn all(&self, mut is_wanted: impl FnMut(&Key, &Object) -> bool) -> Objects {
        let state = self.lock();
        let all = state.objects.iter();
        let wanted = all.filter(|(key, object)| is_wanted(key, object));
        wanted.map(|(k, o)| (k.clone(), o.clone())).collect()
    }

    /// All objects of a resource, as they were at `version`, or are now, with the version.
    pub(super) fn list(
        &self,
        resource: &Resource,
        namespace: Option<&str>,
        version: Option<u64>,
    ) -> Result<(Objects, u64), Compacted> {
        let state = self.lock();
        let version = version.unwrap_or(state.version);
        if version < state.compacted {
            return Err(Compacted(state.compacted));
        }
        let mine = |key: &Key| is_of(key, resource, namespace);
        let all = state.objects.iter().filter(|(key, _)| mine(key));
        let mut objects: BTreeMap<_, _> = all.map(|(k, o)| (k.clone(), o.clone())).collect();
        let later = state.changes.iter().rev();
        for change in later.take_while(|change| change.version > version) {
            if mine(&change.key) {
                match &change.before {
                    Some(before) => objects.insert(change.key.clone(), before.clone()),
                    None => objects.remove(&change.key),
                };
            }
        }
        Ok((objects.into_iter().collect(), version))
    }

    pub(crate) fn now(&self, resource: &Resource, namespace: Option<&str>) -> Objects {
        self.list(resource, namespace, None).unwrap_or_default().0
    }

    /// The changes after `version`, and the version up to which they go.
    pub(super) fn changes(&self, version: u64) -> Result<(Vec<Change>, u64), Compacted> {
        let state = self.lock();
        if version < state.compacted {
            return Err(Compacted(state.compacted));
        }
        let from = state
            .changes
            .partition_point(|change| change.version <= version);
        Ok((
            state.changes.range(from..).cloned().collect(),
            state.version,
        ))
    }
}

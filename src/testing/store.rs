//! The objects of a server: in flow objects to keep, out come the states and changes that lists
//! and watches are answered from.
//!
//! As in etcd, one counter gives every change its version, changes are kept until they are
//! compacted, and older states can be read as far as the changes go back.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::{Resource, wire::stamp::Stamp};

/// A resource's objects are those of this prefix.
pub(super) type Key = (String, String, String, String);

/// One object.
#[derive(Debug, Clone)]
pub(super) struct Object {
    pub(super) json: Value,
    /// Its protobuf message, without the metadata.
    pub(super) message: Option<Bytes>,
}

impl Object {
    /// An object without a message.
    pub(super) fn new(json: Value) -> Self {
        Self {
            json,
            message: None,
        }
    }
}

/// Objects in the order of their keys.
pub(super) type Objects = Vec<(Key, Arc<Object>)>;

/// What is known about a resource whose objects have been put.
#[derive(Debug, Clone)]
pub(super) struct Known {
    pub(super) resource: Resource,
    pub(super) kind: String,
    /// Whether its objects have protobuf messages, as far as is known from the last.
    pub(super) has_messages: bool,
}

pub(super) fn key(resource: &Resource, namespace: &str, name: &str) -> Key {
    (
        resource.group.to_string(),
        resource.plural.to_string(),
        namespace.to_owned(),
        name.to_owned(),
    )
}

/// One change.
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
pub(super) struct Store {
    state: Mutex<State>,
    /// The version, for those who wait for the next.
    version: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct State {
    version: u64,
    objects: BTreeMap<Key, Arc<Object>>,
    /// In the order in which they became known.
    known: Vec<Known>,
    changes: VecDeque<Change>,
    /// Changes up to this one are gone.
    compacted: u64,
    objects_made: u64,
}

impl Known {
    /// Versions are views of the same objects.
    fn is(&self, resource: &Resource) -> bool {
        self.resource.group == resource.group && self.resource.plural == resource.plural
    }
}

impl State {
    fn know(&mut self, resource: &Resource, kind: String, has_messages: bool) {
        let known = Known {
            resource: resource.clone(),
            kind,
            has_messages,
        };
        match self.known.iter_mut().find(|known| known.is(resource)) {
            Some(before) if known.kind.is_empty() => before.has_messages = has_messages,
            Some(before) => *before = known,
            None => self.known.push(known),
        }
    }
}

impl State {
    fn put(&mut self, resource: &Resource, key: Key, object: Object, now: Stamp) -> Arc<Object> {
        let Object { mut json, message } = object;
        self.version += 1;
        let version = self.version;
        let kind = json["kind"].as_str().unwrap_or_default().to_owned();
        self.know(resource, kind, message.is_some());
        let before = self.objects.get(&key).cloned();
        if !json["metadata"].is_object() {
            json["metadata"] = json!({});
        }
        let metadata = &mut json["metadata"];
        metadata["resourceVersion"] = version.to_string().into();
        match &before {
            Some(before) => {
                for field in ["uid", "creationTimestamp"] {
                    metadata[field] = before.json["metadata"][field].clone();
                }
            }
            None => {
                self.objects_made += 1;
                if metadata["uid"].is_null() {
                    let uid = format!("00000000-0000-4000-8000-{:012x}", self.objects_made);
                    metadata["uid"] = uid.into();
                }
                metadata["creationTimestamp"] = seconds(now).into();
            }
        }
        let object = Arc::new(Object { json, message });
        self.objects.insert(key.clone(), object.clone());
        self.changes.push_back(Change {
            version,
            key,
            before,
            object: object.clone(),
            deleted: false,
        });
        object
    }

    fn delete(&mut self, key: &Key) -> Option<Arc<Object>> {
        let before = self.objects.remove(key)?;
        self.version += 1;
        let version = self.version;
        let mut object = (*before).clone();
        object.json["metadata"]["resourceVersion"] = version.to_string().into();
        let object = Arc::new(object);
        self.changes.push_back(Change {
            version,
            key: key.clone(),
            before: Some(before),
            object: object.clone(),
            deleted: true,
        });
        Some(object)
    }
}

/// What becomes of an object.
#[derive(Debug)]
pub(super) enum Next {
    Same,
    Put(Object),
    Delete,
}

/// A time as objects have it: in whole seconds.
pub(super) fn seconds(stamp: Stamp) -> String {
    format!("{}Z", &stamp.to_string()[..19])
}

/// The version asked for has been compacted; this is the oldest there is.
#[derive(Debug)]
pub(super) struct Compacted(pub(super) u64);

impl Store {
    pub(super) fn new() -> Self {
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
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn version(&self) -> u64 {
        self.lock().version
    }

    /// Tells of every new version.
    pub(super) fn subscribe(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }

    /// Creates or replaces an object; the server's part of the metadata is filled in.
    pub(super) fn put(&self, resource: &Resource, object: Object, now: Stamp) -> u64 {
        let text = |field: &str| object.json["metadata"][field].as_str().unwrap_or_default();
        let key = key(resource, text("namespace"), text("name"));
        let mut state = self.lock();
        state.put(resource, key, object, now);
        self.changed(state)
    }

    /// Removes an object; `None` if it is not there.
    pub(super) fn delete(&self, key: &Key) -> Option<u64> {
        let mut state = self.lock();
        state.delete(key)?;
        Some(self.changed(state))
    }

    /// Does to an object what `change` makes of its present state, with nothing in between, and
    /// returns its new state, or the last one.
    pub(super) fn write<E>(
        &self,
        resource: &Resource,
        key: Key,
        now: Stamp,
        change: impl FnOnce(Option<&Object>) -> Result<Next, E>,
    ) -> Result<Option<Arc<Object>>, E> {
        let mut state = self.lock();
        let before = state.objects.get(&key).cloned();
        let after = match change(before.as_deref())? {
            Next::Same => return Ok(before),
            Next::Put(object) => Some(state.put(resource, key, object, now)),
            Next::Delete => state.delete(&key),
        };
        self.changed(state);
        Ok(after)
    }

    fn changed(&self, state: MutexGuard<'_, State>) -> u64 {
        let version = state.version;
        drop(state);
        self.version.send_replace(version);
        version
    }

    /// Forgets all changes so far: watches from before are told 410.
    pub(super) fn compact(&self) {
        let mut state = self.lock();
        state.compacted = state.version;
        state.changes.clear();
    }

    pub(super) fn get(&self, key: &Key) -> Option<Arc<Object>> {
        self.lock().objects.get(key).cloned()
    }

    /// The resources whose objects have been put.
    pub(super) fn known(&self) -> Vec<Known> {
        self.lock().known.clone()
    }

    /// What is known of a resource, in any of its versions.
    pub(super) fn find(&self, resource: &Resource) -> Option<Known> {
        let state = self.lock();
        let mut known = state.known.iter();
        known.find(|known| known.is(resource)).cloned()
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
        let mine = |key: &Key| {
            key.0 == resource.group
                && key.1 == resource.plural
                && namespace.is_none_or(|namespace| namespace == key.2)
        };
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

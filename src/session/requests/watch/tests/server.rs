//! A store in memory, what the API server answers from it, and a user who keeps a copy.

use std::collections::{BTreeMap, HashMap};

use serde_json::{Value, json};

use super::super::*;
use crate::{
    session::testing::{Sides, World as Harness},
    wire::watch::{EventError, Object},
};

/// A store with versions, and what the API server answers from it.
pub(super) struct Server {
    pub(super) version: u64,
    /// Versions and values by name.
    pub(super) objects: BTreeMap<String, (u64, u64, String)>,
    pub(super) history: Vec<(u64, &'static str, Value)>,
    /// History up to here is gone.
    pub(super) compacted: u64,
    pub(super) knows_watch_list: bool,
    /// Ignores that it was asked for a snapshot in the watch.
    pub(super) ignores_watch_list: bool,
    pub(super) uids: u64,
}

impl Server {
    pub(super) fn new() -> Self {
        Self {
            version: 100,
            objects: BTreeMap::new(),
            history: Vec::new(),
            compacted: 0,
            knows_watch_list: true,
            ignores_watch_list: false,
            uids: 0,
        }
    }

    pub(super) fn object(name: &str, (version, value, uid): &(u64, u64, String)) -> Value {
        json!({"kind": "Thing", "apiVersion": "example.com/v1", "metadata": {
            "name": name, "namespace": "default", "uid": uid,
            "resourceVersion": version.to_string(),
        }, "value": value})
    }

    pub(super) fn put(&mut self, name: &str, value: u64) {
        self.version += 1;
        let known = self.objects.get(name).map(|(_, _, uid)| uid.clone());
        let event = if known.is_some() { "MODIFIED" } else { "ADDED" };
        let uid = known.unwrap_or_else(|| {
            self.uids += 1;
            format!("{}-unique", self.uids)
        });
        let entry = (self.version, value, uid);
        self.history
            .push((self.version, event, Self::object(name, &entry)));
        self.objects.insert(name.into(), entry);
    }

    pub(super) fn delete(&mut self, name: &str) {
        if let Some(mut entry) = self.objects.remove(name) {
            self.version += 1;
            entry.0 = self.version;
            self.history
                .push((self.version, "DELETED", Self::object(name, &entry)));
        }
    }

    pub(super) fn compact(&mut self) {
        self.compacted = self.version;
        self.history.clear();
    }

    pub(super) fn line(event: &str, object: &Value) -> Vec<u8> {
        let mut line = json!({"type": event, "object": object}).to_string();
        line.push('\n');
        line.into_bytes()
    }

    pub(super) fn bookmark(&self, end: bool) -> Vec<u8> {
        let mut metadata = json!({"resourceVersion": self.version.to_string()});
        if end {
            metadata["annotations"] = json!({INITIAL_EVENTS_END: "true"});
        }
        Self::line("BOOKMARK", &json!({"kind": "Thing", "metadata": metadata}))
    }

    pub(super) fn events_since(&self, version: u64) -> Vec<u8> {
        let newer = self.history.iter().filter(|(v, ..)| *v > version);
        newer
            .flat_map(|(_, event, o)| Self::line(event, o))
            .collect()
    }

    /// Status, body, and for a watch the version up to which the body goes.
    pub(super) fn answer(&self, request: &Request) -> (u16, Vec<u8>, u64) {
        let query: HashMap<_, _> = request.query.iter().cloned().collect();
        if !request.is_watch {
            let from: usize = query
                .get("continue")
                .map_or(0, |c| c.split('@').next().unwrap().parse().unwrap());
            // Pages after the first show the state of the first; the model has only the present.
            if let Some(token) = query.get("continue")
                && !token.ends_with(&format!("@{}", self.version))
            {
                return (410, Status::failure(410, "Expired", "too old").to_json(), 0);
            }
            let limit = query
                .get("limit")
                .map_or(usize::MAX, |l| l.parse().unwrap());
            let items = self.objects.iter().skip(from).take(limit);
            let items: Vec<_> = items.map(|(n, e)| Self::object(n, e)).collect();
            let more = from + items.len() < self.objects.len();
            let token = format!("{}@{}", from + items.len(), self.version);
            let list = json!({"kind": "ThingList", "apiVersion": "example.com/v1", "metadata": {
                "resourceVersion": self.version.to_string(),
                "continue": if more { token } else { String::new() },
            }, "items": items});
            return (200, list.to_string().into_bytes(), 0);
        }
        let snapshot = query.contains_key("sendInitialEvents");
        if snapshot && !self.knows_watch_list {
            return (
                422,
                Status::failure(422, "Invalid", "forbidden").to_json(),
                0,
            );
        }
        let version = query.get("resourceVersion").map_or("", |v| v);
        if is_unversioned(version) {
            let objects = self.objects.iter().rev();
            let mut body: Vec<u8> = objects
                .flat_map(|(n, e)| Self::line("ADDED", &Self::object(n, e)))
                .collect();
            if snapshot && !self.ignores_watch_list {
                body.extend(self.bookmark(true));
            }
            return (200, body, self.version);
        }
        let version = version.parse().unwrap();
        if version < self.compacted {
            let status: Value =
                serde_json::from_slice(&Status::failure(410, "Expired", "too old").to_json())
                    .unwrap();
            return (200, Self::line("ERROR", &status), self.version);
        }
        (200, self.events_since(version), self.version)
    }
}

/// The server, and the mirror of what the watch says.
pub(super) struct Replication {
    pub(super) server: Server,
    pub(super) mirror: Mirror<u64>,
    /// What a reader who counts deletions and additions has.
    pub(super) replica: BTreeMap<String, u64>,
    /// The version up to which the watch at hand was answered.
    pub(super) watched: Option<u64>,
    /// Failed attempts, and whether they were refusals.
    pub(super) failures: Vec<(String, bool)>,
    pub(super) snapshots: usize,
}

pub(super) type World = Harness<Replication>;

impl Sides for Replication {
    type Session = Watch;

    fn take(&mut self, _: &Watch, update: Update) {
        match &update {
            Update::Retrying { error, refused, .. } => {
                self.failures.push((error.to_string(), *refused));
            }
            Update::SnapshotBegin => self.snapshots += 1,
            _ => {}
        }
        let keep = |object: &Object| {
            let value: Value = object.decode()?;
            Ok::<_, EventError>(value["value"].as_u64().unwrap_or_default())
        };
        for change in self.mirror.apply(&update, keep).unwrap() {
            match change {
                Change::Added(key) => {
                    let value = *self.mirror.get(&key).unwrap_or(&0);
                    let before = self.replica.insert(key.name().into(), value);
                    assert_eq!(before, None, "{key} was added twice");
                }
                Change::Modified(key) => {
                    let value = *self.mirror.get(&key).unwrap();
                    let before = self.replica.insert(key.name().into(), value);
                    assert!(before.is_some(), "{key} was modified before it was added");
                }
                Change::Deleted(key, value) => {
                    let before = self.replica.remove(key.name());
                    assert_eq!(before, Some(value), "{key} was deleted without being there");
                }
            }
        }
    }

    fn response_over(&mut self) {
        self.watched = None;
    }
}

pub(super) fn start(config: WatchConfig, server: Server, seed: u64) -> World {
    let sides = Replication {
        server,
        mirror: Mirror::new(),
        replica: BTreeMap::new(),
        watched: None,
        failures: Vec::new(),
        snapshots: 0,
    };
    World::new(|now| Watch::new(config, now, seed), sides)
}

impl World {
    /// Answers requests without a fault until the watch is quiet.
    pub(super) fn settle(&mut self) {
        for _ in 0..100 {
            match self.watched {
                Some(version) => {
                    let events = self.server.events_since(version);
                    self.watched = Some(self.server.version);
                    if self.server.compacted > version {
                        self.end(false);
                        continue;
                    }
                    self.body(&events);
                    if self.watched.is_some() && self.mirror.is_current() {
                        return;
                    }
                }
                None => self.sleep(),
            }
            if let Some(request) = self.request() {
                let (status, body, version) = self.server.answer(&request);
                self.watched = (request.is_watch && status == 200).then_some(version);
                self.head(status);
                self.body(&body);
                if self.watched.is_none() {
                    self.end(false);
                }
            } else if self.watched.is_none() || !self.mirror.is_current() {
                self.sleep();
            }
        }
        panic!("the watch does not settle");
    }

    pub(super) fn check(&self) {
        let expected: BTreeMap<_, _> = self
            .server
            .objects
            .iter()
            .map(|(name, (_, value, _))| (name.clone(), *value))
            .collect();
        assert_eq!(self.replica, expected);
        let mirrored: BTreeMap<_, _> = self
            .mirror
            .iter()
            .map(|(key, value)| (key.name().to_owned(), *value))
            .collect();
        assert_eq!(mirrored, expected);
        assert!(self.mirror.is_current());
    }
}

pub(super) fn config() -> WatchConfig {
    WatchConfig {
        what: "things".into(),
        page: 2,
        ..WatchConfig::default()
    }
}

pub(super) fn server_of_five() -> Server {
    let mut server = Server::new();
    for name in ["a", "b", "c", "d", "e"] {
        server.put(name, 1);
    }
    server
}

pub(super) fn has(request: &Request, name: &str) -> bool {
    request.query.iter().any(|(found, _)| *found == name)
}

//! The watch against a server in memory, in virtual time, with faults.

use std::collections::{BTreeMap, HashMap};

use std::time::Instant;

use bytes::Bytes;
use serde_json::{Value, json};

use super::*;
use crate::{
    error::NetworkError,
    limits,
    session::backoff::Backoff,
    wire::watch::{Encoding, EventError, Object},
};

/// A store with versions, and what the API server answers from it.
struct Server {
    version: u64,
    /// Versions and values by name.
    objects: BTreeMap<String, (u64, u64, String)>,
    history: Vec<(u64, &'static str, Value)>,
    /// History up to here is gone.
    compacted: u64,
    knows_watch_list: bool,
    /// Ignores that it was asked for a snapshot in the watch.
    ignores_watch_list: bool,
    uids: u64,
}

impl Server {
    fn new() -> Self {
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

    fn object(name: &str, (version, value, uid): &(u64, u64, String)) -> Value {
        json!({"kind": "Thing", "apiVersion": "example.com/v1", "metadata": {
            "name": name, "namespace": "default", "uid": uid,
            "resourceVersion": version.to_string(),
        }, "value": value})
    }

    fn put(&mut self, name: &str, value: u64) {
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

    fn delete(&mut self, name: &str) {
        if let Some(mut entry) = self.objects.remove(name) {
            self.version += 1;
            entry.0 = self.version;
            self.history
                .push((self.version, "DELETED", Self::object(name, &entry)));
        }
    }

    fn compact(&mut self) {
        self.compacted = self.version;
        self.history.clear();
    }

    fn line(event: &str, object: &Value) -> Vec<u8> {
        let mut line = json!({"type": event, "object": object}).to_string();
        line.push('\n');
        line.into_bytes()
    }

    fn bookmark(&self, end: bool) -> Vec<u8> {
        let mut metadata = json!({"resourceVersion": self.version.to_string()});
        if end {
            metadata["annotations"] = json!({INITIAL_EVENTS_END: "true"});
        }
        Self::line("BOOKMARK", &json!({"kind": "Thing", "metadata": metadata}))
    }

    fn events_since(&self, version: u64) -> Vec<u8> {
        let newer = self.history.iter().filter(|(v, ..)| *v > version);
        newer
            .flat_map(|(_, event, o)| Self::line(event, o))
            .collect()
    }

    /// Status, body, and for a watch the version up to which the body goes.
    fn answer(&self, request: &Request) -> (u16, Vec<u8>, u64) {
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

struct Random(Backoff);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0.within(Duration::from_micros(bound)).as_micros() as u64
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

/// Watch and server, the bytes between them, and the mirror of what came out.
struct World {
    now: Instant,
    server: Server,
    watch: Watch,
    mirror: Mirror<u64>,
    /// What a reader who counts deletions and additions has.
    replica: BTreeMap<String, u64>,
    /// The version up to which the watch at hand was answered.
    watched: Option<u64>,
    requests: Vec<Request>,
    troubles: Vec<(String, bool)>,
    snapshots: usize,
}

impl World {
    fn new(config: WatchConfig, server: Server, seed: u64) -> Self {
        let now = Instant::now();
        Self {
            now,
            server,
            watch: Watch::new(config, now, seed),
            mirror: Mirror::new(),
            replica: BTreeMap::new(),
            watched: None,
            requests: Vec::new(),
            troubles: Vec::new(),
            snapshots: 0,
        }
    }

    fn take_updates(&mut self) {
        while let Some(update) = self.watch.poll_update() {
            match &update {
                Update::Trouble { error, refused, .. } => {
                    self.troubles.push((error.to_string(), *refused));
                }
                Update::SnapshotBegin => self.snapshots += 1,
                _ => {}
            }
            let keep = |object: &Object| {
                let value: Value = object.decode()?;
                Ok::<_, EventError>(value["value"].as_u64().unwrap())
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
        if !self.watch.wants_response() {
            self.watched = None;
        }
    }

    fn head(&mut self, status: u16) {
        let content_type = Some("application/json");
        self.watch.handle_head(
            self.now,
            Head {
                status,
                content_type,
                retry_after: None,
            },
        );
        self.take_updates();
    }

    fn body(&mut self, bytes: &[u8]) {
        self.watch
            .handle_body(self.now, Bytes::copy_from_slice(bytes));
        self.take_updates();
    }

    fn end(&mut self, error: bool) {
        let lost = || {
            NetworkError::Lost(std::sync::Arc::new(
                std::io::ErrorKind::ConnectionReset.into(),
            ))
        };
        self.watch
            .handle_end(self.now, error.then(|| lost().into()));
        self.watched = None;
        self.take_updates();
    }

    fn request(&mut self) -> Option<Request> {
        let request = self.watch.poll_request(self.now)?;
        self.take_updates();
        self.requests.push(request.clone());
        Some(request)
    }

    /// Lets time pass to the next deadline.
    fn sleep(&mut self) {
        if let Some(at) = self.watch.poll_timeout() {
            self.now = self.now.max(at);
            self.watch.handle_timeout(self.now);
            self.take_updates();
        }
    }

    /// Answers requests without a fault until the watch is quiet.
    fn settle(&mut self) {
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

    fn check(&self) {
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

fn config() -> WatchConfig {
    WatchConfig {
        what: "things".into(),
        page: 2,
        ..WatchConfig::default()
    }
}

fn server_of_five() -> Server {
    let mut server = Server::new();
    for name in ["a", "b", "c", "d", "e"] {
        server.put(name, 1);
    }
    server
}

fn has(request: &Request, name: &str) -> bool {
    request.query.iter().any(|(found, _)| *found == name)
}

#[test]
fn a_watch_list_brings_the_snapshot_and_the_events_behind_it() {
    let mut world = World::new(config(), server_of_five(), 1);
    world.settle();
    world.check();
    assert_eq!(world.requests.len(), 1);
    assert!(has(&world.requests[0], "sendInitialEvents"));
    assert_eq!(world.requests[0].accept, "application/json");
    world.server.put("f", 2);
    world.server.delete("a");
    world.settle();
    world.check();
    assert_eq!((world.requests.len(), world.snapshots), (1, 1));
    assert_eq!(
        world.watch.resource_version(),
        world.server.version.to_string()
    );
}

#[test]
fn without_watch_list_the_snapshot_is_a_list_in_pages() {
    let mut server = server_of_five();
    server.knows_watch_list = false;
    let mut world = World::new(config(), server, 1);
    world.settle();
    world.check();
    let lists = world.requests.iter().filter(|r| !r.is_watch).count();
    assert_eq!(
        (world.requests.len(), lists),
        (5, 3),
        "{:?}",
        world.requests
    );
    assert!(world.watch.lacks_watch_list());
    assert_eq!(world.troubles, []);
    // And it is remembered.
    world.server.put("a", 9);
    world.server.compact();
    world.settle();
    world.check();
    assert!(
        world.requests[5..]
            .iter()
            .all(|r| !has(r, "sendInitialEvents"))
    );
}

#[test]
fn a_server_that_ignores_watch_list_is_found_out() {
    let mut server = server_of_five();
    server.ignores_watch_list = true;
    let mut world = World::new(config(), server, 1);
    world.settle();
    world.check();
    assert!(world.watch.lacks_watch_list());
}

#[test]
fn a_clean_end_resumes_at_once_from_the_last_version() {
    let mut world = World::new(config(), server_of_five(), 1);
    world.settle();
    world.server.put("a", 2);
    world.settle();
    world.now += Duration::from_secs(300);
    world.end(false);
    world.server.delete("b");
    let asked = world.now;
    world.settle();
    world.check();
    assert_eq!((world.now, world.snapshots), (asked, 1));
    let version = ("resourceVersion", "106".to_owned());
    assert!(
        world.requests[1].query.contains(&version),
        "{:?}",
        world.requests[1]
    );
}

#[test]
fn a_cut_after_progress_resumes_at_once_and_one_without_progress_waits() {
    let mut world = World::new(config(), server_of_five(), 1);
    world.settle();
    world.end(true);
    let before = world.now;
    world.request().unwrap();
    assert_eq!((world.now, world.troubles.len()), (before, 0));
    world.end(true);
    assert_eq!(world.troubles.len(), 1);
    assert!(world.request().is_none());
    world.settle();
    assert!(world.now > before);
    world.check();
}

#[test]
fn an_expired_version_begins_anew_and_reports_what_was_deleted_meanwhile() {
    for over_http in [false, true] {
        let mut world = World::new(config(), server_of_five(), 1);
        world.settle();
        world.end(true);
        world.server.delete("b");
        world.server.delete("c");
        world.server.put("c", 7);
        world.server.compact();
        if over_http {
            world.request().unwrap();
            world.head(410);
            world.body(&Status::failure(410, "Gone", "").to_json());
            world.end(false);
        }
        world.settle();
        world.check();
        assert_eq!(world.snapshots, 2);
        assert_eq!(world.troubles, []);
    }
}

#[test]
fn made_up_events_do_not_move_the_version() {
    let config = WatchConfig {
        from: Some("0".into()),
        ..config()
    };
    let mut world = World::new(config, server_of_five(), 1);
    let request = world.request().unwrap();
    let (_, body, _) = world.server.answer(&request);
    world.head(200);
    // The newest object comes first.
    world.body(&body[..body.len() / 2]);
    assert_eq!(world.watch.resource_version(), "");
    world.body(&body[body.len() / 2..]);
    assert_eq!(world.watch.resource_version(), "");
    world.body(&world.server.bookmark(true));
    assert_eq!(world.watch.resource_version(), "105");
}

#[test]
fn a_refusal_is_told_and_tried_again_with_growing_delays() {
    let mut world = World::new(config(), server_of_five(), 1);
    let mut delays = Vec::new();
    for _ in 0..8 {
        let before = world.now;
        while world.request().is_none() {
            world.sleep();
        }
        delays.push(world.now - before);
        world.head(403);
        world.body(&Status::failure(403, "Forbidden", "things is forbidden").to_json());
        world.end(false);
    }
    assert_eq!(
        world.troubles[0],
        ("watch things: things is forbidden".into(), true)
    );
    assert_eq!(delays[0], Duration::ZERO);
    assert!(delays[7] >= limits::RETRY_MOST / 2, "{delays:?}");
    world.settle();
    world.check();
}

#[test]
fn retry_after_is_honoured() {
    let mut world = World::new(config(), server_of_five(), 1);
    world.request().unwrap();
    world.watch.handle_head(
        world.now,
        Head {
            status: 429,
            content_type: Some("text/plain"),
            retry_after: Some(Duration::from_secs(77)),
        },
    );
    world.body(b"Too many requests, please try again later.\n");
    world.end(false);
    let (trouble, refused) = &world.troubles[0];
    assert_eq!(
        trouble,
        "watch things: Too many requests, please try again later."
    );
    assert!(!refused);
    assert_eq!(
        world.watch.poll_timeout(),
        Some(world.now + Duration::from_secs(77))
    );
}

#[test]
fn a_silent_watch_is_dead_sooner_where_the_server_sends_bookmarks() {
    let mut world = World::new(config(), server_of_five(), 1);
    world.settle();
    let before = world.now;
    world.sleep();
    assert_eq!(world.now - before, limits::WATCH_SILENCE);
    assert!(!world.watch.wants_response());
    world.server.put("a", 5);
    world.settle();
    world.check();

    let config = WatchConfig {
        from: Some("100".into()),
        ..config()
    };
    let mut world = World::new(config, server_of_five(), 1);
    world.request().unwrap();
    world.head(200);
    let before = world.now;
    world.watch.handle_hold(world.now, true);
    assert_eq!(world.watch.poll_timeout(), None);
    world.watch.handle_hold(world.now, false);
    world.sleep();
    let silence = world.now - before;
    let least = limits::WATCH_TIMEOUT + limits::WATCH_SLACK;
    assert!(
        (least..least + limits::WATCH_TIMEOUT).contains(&silence),
        "{silence:?}"
    );
}

#[test]
fn a_bookmark_from_the_past_begins_anew() {
    let mut world = World::new(config(), server_of_five(), 1);
    world.settle();
    world.server = Server::new();
    world.server.put("z", 1);
    world.body(&world.server.bookmark(false));
    world.settle();
    world.check();
}

#[test]
fn events_of_an_unknown_type_are_handed_on() {
    let mut world = World::new(config(), server_of_five(), 1);
    world.settle();
    let object = json!({"metadata": {"name": "a"}});
    world
        .watch
        .handle_body(world.now, Server::line("RENAMED", &object).into());
    let update = world.watch.poll_update().unwrap();
    assert!(matches!(update, Update::Event(e) if e.event_type.as_str() == "RENAMED"));
}

#[test]
fn a_shard_is_filtered_on_this_side_where_the_server_does_not() {
    let config = WatchConfig {
        shard: Shard::of(ShardField::Uid, 0, 2),
        ..config()
    };
    let mut world = World::new(config, server_of_five(), 1);
    world.settle();
    let shard = Shard::of(ShardField::Uid, 0, 2).unwrap();
    let expected = world.server.objects.iter().filter(|(name, entry)| {
        let object = Server::object(name, entry).to_string();
        shard
            .contains(&Object::new(Encoding::Json, object.into()))
            .unwrap()
    });
    let expected: Vec<_> = expected.map(|(name, _)| name.clone()).collect();
    assert!(!expected.is_empty() && expected.len() < 5, "{expected:?}");
    assert_eq!(world.replica.keys().cloned().collect::<Vec<_>>(), expected);
    assert!(world.requests.iter().all(|r| has(r, "shardSelector")));
}

/// One run against a server with every fault, and the server's state in the end.
fn run(seed: u64) {
    let mut random = Random(Backoff::new(seed));
    let mut server = server_of_five();
    server.knows_watch_list = !random.one_in(3);
    server.ignores_watch_list = random.one_in(8);
    let mut world = World::new(config(), server, seed);
    for _ in 0..40 {
        for _ in 0..random.below(4) {
            let name = ["a", "b", "c", "d", "e", "f", "g"][random.below(7) as usize];
            match random.below(3) {
                0 => world.server.delete(name),
                _ => world.server.put(name, random.below(1000)),
            }
        }
        if random.one_in(8) {
            world.server.compact();
        }
        match world.watched {
            Some(version) if world.server.compacted > version => world.end(random.one_in(2)),
            Some(version) => {
                let mut bytes = world.server.events_since(version);
                if random.one_in(4) {
                    bytes.extend(world.server.bookmark(false));
                }
                let fault = random.one_in(3);
                if fault {
                    bytes.truncate(random.below(bytes.len() as u64 + 1) as usize);
                }
                world.watched = Some(world.server.version);
                for chunk in bytes.chunks(1 + random.below(300) as usize) {
                    world.body(chunk);
                }
                if fault && random.one_in(3) {
                    // Silence, until the watch notices.
                    world.watched = None;
                    while world.watch.wants_response() {
                        world.sleep();
                    }
                } else if fault {
                    world.end(random.one_in(2));
                }
            }
            None if world.watch.wants_response() => world.sleep(),
            None => {
                let Some(request) = world.request() else {
                    world.sleep();
                    continue;
                };
                if random.one_in(5) {
                    world.end(true);
                    continue;
                }
                if random.one_in(5) {
                    let code = [429, 500, 503, 403][random.below(4) as usize];
                    world.head(code);
                    world.end(false);
                    continue;
                }
                let (status, mut body, version) = world.server.answer(&request);
                let fault = random.one_in(4);
                if fault {
                    body.truncate(random.below(body.len() as u64 + 1) as usize);
                }
                world.head(status);
                for chunk in body.chunks(1 + random.below(2000) as usize) {
                    world.body(chunk);
                }
                let watching = request.is_watch && status == 200 && !fault;
                world.watched = (watching && world.watch.wants_response()).then_some(version);
                if world.watched.is_none() {
                    world.end(fault);
                }
            }
        }
    }
    // From here on without faults.
    if world.watched.is_some() {
        world.end(true);
    }
    world.settle();
    world.check();
}

#[test]
fn any_schedule_of_faults_ends_with_the_server_s_state() {
    let schedules = if cfg!(debug_assertions) {
        1_000
    } else {
        10_000
    };
    for seed in 0..schedules {
        run(seed);
    }
}

//! The watch against a server in memory, in virtual time, with faults.

use std::time::{Duration, Instant};

use serde_json::json;

use self::server::{Server, config, has, server_of_five, start};
use super::*;
use crate::session::testing::hopeless;
use crate::{
    error::{CallerError, Error},
    limits,
    session::{
        Exchange as _, Head,
        testing::{Random, every_seed},
    },
    wire::watch::{Encoding, Object},
};

mod server;

#[test]
fn a_watch_list_brings_the_snapshot_and_the_events_behind_it() {
    let mut world = start(config(), server_of_five(), 1);
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
        world.session.resource_version(),
        world.server.version.to_string()
    );
}

#[test]
fn what_asking_again_does_not_help_against_is_refused() {
    let now = Instant::now();
    let caller = Error::from(CallerError::NoRuntime);
    for error in hopeless().into_iter().chain([caller]) {
        let mut watch = Watch::new(config(), now, 1);
        assert!(watch.poll_request(now).is_some());
        watch.handle_end(now, Some(error));
        let told = std::iter::from_fn(|| watch.poll_update()).last();
        let is_refused = matches!(told, Some(Update::Retrying { refused: true, .. }));
        assert!(is_refused, "{told:?}");
    }
}

#[test]
fn without_watch_list_the_snapshot_is_a_list_in_pages() {
    let mut server = server_of_five();
    server.knows_watch_list = false;
    let mut world = start(config(), server, 1);
    world.settle();
    world.check();
    let lists = world.requests.iter().filter(|r| !r.is_watch).count();
    assert_eq!(
        (world.requests.len(), lists),
        (5, 3),
        "{:?}",
        world.requests
    );
    assert!(world.session.lacks_watch_list());
    assert_eq!(world.failures, []);
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
fn a_list_whose_pages_name_each_other_without_end_is_told_and_asked_for_ever_less_often() {
    // The same page again, or ever another.
    for repeats in [true, false] {
        let mut server = server_of_five();
        server.knows_watch_list = false;
        let mut world = start(config(), server, 1);
        let (mut lists, mut pages) = (0, 0);
        world.hour(|world, request| {
            if request.is_watch {
                return world.respond(422, b"");
            }
            pages += 1;
            lists += usize::from(!has(&request, "continue"));
            let next = if repeats { 0 } else { pages };
            if !repeats && pages % 4 == 0 {
                world.session.snapshots.pages = limits::LIST_PAGES;
            }
            let list = json!({
                "kind": "ThingList", "apiVersion": "example.com/v1", "items": [],
                "metadata": {"resourceVersion": "7", "continue": format!("t{next}")},
            });
            world.respond(200, list.to_string().as_bytes());
        });
        let told = "the list has no end: page after page names another";
        assert_eq!(world.failures.len(), lists);
        assert!(
            world
                .failures
                .iter()
                .all(|(failure, _)| failure.ends_with(told)),
            "{:?}",
            world.failures
        );
        assert_eq!(pages, lists * if repeats { 2 } else { 4 });
        assert!((100..260).contains(&lists), "{lists}");
    }
}

#[test]
fn a_server_that_ignores_watch_list_is_found_out() {
    let mut server = server_of_five();
    server.ignores_watch_list = true;
    let mut world = start(config(), server, 1);
    world.settle();
    world.check();
    assert!(world.session.lacks_watch_list());
}

#[test]
fn a_clean_end_resumes_at_once_from_the_last_version() {
    let mut world = start(config(), server_of_five(), 1);
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
    let mut world = start(config(), server_of_five(), 1);
    world.settle();
    world.end(true);
    let before = world.now;
    world.request().unwrap();
    assert_eq!((world.now, world.failures.len()), (before, 0));
    world.end(true);
    assert_eq!(world.failures.len(), 1);
    assert!(world.request().is_none());
    world.settle();
    assert!(world.now > before);
    world.check();
}

#[test]
fn an_expired_version_begins_anew_and_reports_what_was_deleted_meanwhile() {
    for over_http in [false, true] {
        let mut world = start(config(), server_of_five(), 1);
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
        assert_eq!(world.failures, []);
    }
}

#[test]
fn a_bookmark_without_a_version_says_nothing_whatever_else_it_claims() {
    let now = Instant::now();
    let from = Some("7".to_owned());
    let mut watch = Watch::new(WatchConfig { from, ..config() }, now, 1);
    assert!(watch.poll_request(now).is_some());
    let head = Head {
        status: 200,
        content_type: Some("application/json"),
        ..Head::default()
    };
    watch.handle_head(now, head);
    let bookmark = json!({"type": "BOOKMARK", "object": {"kind": "Pod", "metadata": {
        "annotations": {"k8s.io/initial-events-end": "true"},
    }}});
    for object in [
        bookmark,
        json!({"type": "BOOKMARK", "object": {"metadata": {}}}),
    ] {
        watch.handle_body(now, format!("{object}\n").into());
        assert!(watch.poll_update().is_none());
        assert_eq!(watch.resource_version(), "7");
    }
}

#[test]
fn made_up_events_do_not_move_the_version() {
    let config = WatchConfig {
        from: Some("0".into()),
        ..config()
    };
    let mut world = start(config, server_of_five(), 1);
    let request = world.request().unwrap();
    let (_, body, _) = world.server.answer(&request);
    world.head(200);
    // The newest object comes first.
    world.body(&body[..body.len() / 2]);
    assert_eq!(world.session.resource_version(), "");
    world.body(&body[body.len() / 2..]);
    assert_eq!(world.session.resource_version(), "");
    world.body(&world.server.bookmark(true));
    assert_eq!(world.session.resource_version(), "105");
}

#[test]
fn a_refusal_is_told_and_tried_again_with_growing_delays() {
    let mut world = start(config(), server_of_five(), 1);
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
        world.failures[0],
        ("watch things: things is forbidden".into(), true)
    );
    assert_eq!(delays[0], Duration::ZERO);
    assert!(delays[7] >= limits::RETRY_MOST / 2, "{delays:?}");
    world.settle();
    world.check();
}

#[test]
fn retry_after_is_honoured() {
    let mut world = start(config(), server_of_five(), 1);
    world.request().unwrap();
    world.session.handle_head(
        world.now,
        Head {
            status: 429,
            content_type: Some("text/plain"),
            retry_after: Some(Duration::from_secs(77)),
            ..Head::default()
        },
    );
    world.body(b"Too many requests, please try again later.\n");
    world.end(false);
    let (failure, refused) = &world.failures[0];
    assert_eq!(
        failure,
        "watch things: Too many requests, please try again later. (code 429)"
    );
    assert!(!refused);
    assert_eq!(
        world.session.poll_timeout(),
        Some(world.now + Duration::from_secs(77))
    );
}

#[test]
fn a_silent_watch_is_dead_sooner_where_the_server_sends_bookmarks() {
    let mut world = start(config(), server_of_five(), 1);
    world.settle();
    let before = world.now;
    world.sleep();
    assert_eq!(world.now - before, limits::WATCH_SILENCE);
    assert!(!world.session.wants_response());
    world.server.put("a", 5);
    world.settle();
    world.check();

    let config = WatchConfig {
        from: Some("100".into()),
        ..config()
    };
    let mut world = start(config, server_of_five(), 1);
    world.request().unwrap();
    world.head(200);
    let before = world.now;
    world.session.handle_hold(world.now, true);
    assert_eq!(world.session.poll_timeout(), None);
    world.session.handle_hold(world.now, false);
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
    let mut world = start(config(), server_of_five(), 1);
    world.settle();
    world.server = Server::new();
    world.server.put("z", 1);
    world.body(&world.server.bookmark(false));
    world.settle();
    world.check();
}

#[test]
fn events_of_an_unknown_type_are_handed_on() {
    let mut world = start(config(), server_of_five(), 1);
    world.settle();
    let object = json!({"metadata": {"name": "a"}});
    world
        .session
        .handle_body(world.now, Server::line("RENAMED", &object).into());
    let update = world.session.poll_update().unwrap();
    assert!(matches!(update, Update::Event(e) if e.event_type.as_str() == "RENAMED"));
}

#[test]
fn an_object_that_cannot_be_read_ends_a_watch_which_needs_its_version_and_no_snapshot() {
    let broken = Server::line("ADDED", &json!({"metadata": 7}));
    let mut world = start(config(), server_of_five(), 1);
    let request = world.request().unwrap();
    let (_, body, _) = world.server.answer(&request);
    world.head(200);
    let now = world.now;
    world.session.handle_body(now, broken.clone().into());
    let update = world.session.poll_update().unwrap();
    assert!(matches!(update, Update::Event(event) if event.object.metadata().is_err()));
    world.body(&body);
    world.body(&world.server.bookmark(true));
    assert_eq!(world.session.resource_version(), "105");
    world.session.handle_body(now, broken.into());
    assert!(world.session.poll_update().is_none());
    let request = world.request().unwrap();
    let from = ("resourceVersion", "105".to_owned());
    assert!(request.is_watch && request.query.contains(&from));
}

#[test]
fn a_shard_is_filtered_on_this_side_where_the_server_does_not() {
    let config = WatchConfig {
        shard: Shard::of(ShardField::Uid, 0, 2),
        ..config()
    };
    let mut world = start(config, server_of_five(), 1);
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

#[test]
fn a_server_that_ends_each_watch_after_an_event_is_asked_ever_less_often() {
    for cut in [false, true] {
        let from = Some("100".into());
        let mut world = start(WatchConfig { from, ..config() }, Server::new(), 1);
        let asked = world.hour(|world, _| {
            world.server.put("a", 1);
            let event = world.server.events_since(world.server.version - 1);
            world.head(200);
            world.body(&event);
            world.end(cut);
        });
        // The bound on delays is half a minute, and each is cut by up to half.
        assert!((100..260).contains(&asked), "{asked}");
        assert_eq!(world.failures, []);
    }
}

#[test]
fn a_watch_that_lasts_is_followed_by_the_next_at_once() {
    let from = Some("100".into());
    let mut world = start(WatchConfig { from, ..config() }, Server::new(), 1);
    let asked = world.hour(|world, _| {
        world.server.put("a", 1);
        let event = world.server.events_since(world.server.version - 1);
        world.head(200);
        world.now += Duration::from_secs(60);
        world.body(&event);
        world.end(true);
    });
    assert_eq!((asked, world.failures.len()), (60, 0));
}

#[test]
fn no_answer_makes_a_server_be_asked_without_end() {
    let mut world = start(config(), server_of_five(), 1);
    let stale = Server::new();
    let asked = world.hour(|world, request| {
        let (_, body, _) = world.server.answer(&request);
        world.head(200);
        world.body(&body);
        world.body(&stale.bookmark(false));
        world.end(false);
    });
    assert!(
        (100..260).contains(&asked),
        "bookmarks of the past: {asked}"
    );

    for code in [200, 410] {
        let mut world = start(config(), server_of_five(), 1);
        let gone = Status::failure(410, "Expired", "").to_json();
        let gone = serde_json::from_slice(&gone).unwrap();
        let asked = world.hour(|world, request| {
            let (_, body, _) = world.server.answer(&request);
            world.head(code);
            world.body(&body);
            world.body(&Server::line("ERROR", &gone));
            world.end(false);
        });
        assert!((100..260).contains(&asked), "expired, {code}: {asked}");
    }

    let mut world = start(config(), server_of_five(), 1);
    world.settle();
    world.now += Duration::from_secs(300);
    world.end(true);
    let asked = world.hour(|world, _| world.end(true));
    assert!((100..260).contains(&asked), "gone after long: {asked}");
}

#[test]
fn no_retry_after_is_too_long() {
    for status in [429, 503] {
        let mut world = start(config(), server_of_five(), 1);
        world.is_patient_for_so_long(status);
    }
}

#[test]
fn a_timeout_without_bound_asks_for_what_the_server_can_count() {
    let config = WatchConfig {
        from: Some("100".into()),
        timeout: Duration::MAX,
        ..config()
    };
    let mut world = start(config, server_of_five(), 1);
    let request = world.request().unwrap();
    let seconds = ("timeoutSeconds", "9223372036".to_owned());
    assert!(request.query.contains(&seconds), "{request:?}");
    world.head(200);
    assert_eq!(world.session.poll_timeout(), None);
}

/// An API server that has just started knows no roles yet, and a plugin may fail with it.
#[test]
fn a_watch_that_was_granted_outlives_a_refusal_that_passes() {
    for seconds in [5, 300] {
        let mut world = start(config(), server_of_five(), 1);
        world.settle();
        world.end(true);
        let began = world.now;
        let mut turn = 0;
        world.hour(|world, request| {
            turn += 1;
            if world.now - began > Duration::from_secs(seconds) {
                let (code, body, _) = world.server.answer(&request);
                return world.respond(code, &body);
            }
            match turn % 3 {
                0 => world.without_credentials(),
                1 => world.respond(401, b""),
                _ => world.respond(403, b""),
            }
        });
        world.server.put("f", 2);
        world.settle();
        world.check();
        assert_eq!(world.snapshots, 1);
        let refused = world.failures.iter().filter(|(_, refused)| *refused);
        assert_eq!(refused.count() > 0, seconds > 60, "{:?}", world.failures);
    }
    // What was granted is the list; the watch never was.
    let mut server = server_of_five();
    server.knows_watch_list = false;
    let mut world = start(config(), server, 1);
    world.hour(|world, request| match request.is_watch {
        true => world.respond(403, b""),
        false => {
            let (code, body, _) = world.server.answer(&request);
            world.respond(code, &body);
        }
    });
    assert!(world.failures.iter().all(|(_, refused)| *refused));
}

#[test]
fn the_text_of_a_refusal_is_one_line_without_control_characters() {
    let mut world = start(config(), server_of_five(), 1);
    world.request().unwrap();
    world.head_of(Head {
        status: 403,
        content_type: Some("text/plain"),
        ..Head::default()
    });
    world.body(b"\x1f\x08\x1b[2J\r\nno\x07 way ");
    world.body(&[b'x'; 100_000]);
    world.end(false);
    let (text, refused) = &world.failures[0];
    assert!(*refused && text.contains("no\\u{7} way"), "{text:?}");
    assert!(!text.contains(char::is_control), "{text:?}");
    assert!(text.len() < 2 * limits::SERVER_TEXT);
}

#[test]
fn a_refusal_that_is_no_status_says_its_code() {
    let page = (
        "text/html",
        &b"<html>blocked</html>"[..],
        "it answered 403, content type text/html",
    );
    let compressed = (
        "text/plain",
        &b"\x1f\x8b\x08"[..],
        "it answered 403, content type text/plain",
    );
    let words = (
        "text/plain",
        &b"rate\nlimited"[..],
        "rate limited (code 403)",
    );
    let nothing = (
        "text/plain",
        &b""[..],
        "it answered 403, content type text/plain",
    );
    for (form, body, said) in [page, compressed, words, nothing] {
        let mut world = start(config(), server_of_five(), 1);
        world.request().unwrap();
        world.head_of(Head {
            status: 403,
            content_type: Some(form),
            ..Head::default()
        });
        world.body(body);
        world.end(false);
        assert_eq!(world.failures[0].0, format!("watch things: {said}"));
    }
}

/// One run against a server with every fault, and the server's state in the end.
fn run(seed: u64) {
    let mut random = Random::new(seed);
    let mut server = server_of_five();
    server.knows_watch_list = !random.one_in(3);
    server.ignores_watch_list = random.one_in(8);
    let mut world = start(config(), server, seed);
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
                    while world.session.wants_response() {
                        world.sleep();
                    }
                } else if fault {
                    world.end(random.one_in(2));
                }
            }
            None if world.session.wants_response() => world.sleep(),
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
                world.watched = (watching && world.session.wants_response()).then_some(version);
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
    every_seed(run);
}

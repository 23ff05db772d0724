//! A server that refuses a log: for a moment, or for good.

use super::*;
use crate::{error::PeerError, session::testing::hopeless};

/// An API server that has just started knows no roles yet, and a plugin may fail with it.
#[test]
fn a_log_that_was_granted_outlives_a_refusal_that_passes() {
    for seconds in [40, 300] {
        let mut world = start(config(), Kubelet::new(), 1);
        let (began, mut turn) = (world.now, 0);
        world.hour(|world, request| {
            turn += 1;
            let after = (world.now - began).as_secs();
            // Longer than any delay between two requests.
            if turn < 3 || after > 60 + seconds {
                world.kubelet.write("line", SECOND);
                world.answer(&request);
                return world.end(true);
            }
            match (after < 60, turn % 3) {
                (true, _) => world.end(true),
                (_, 0) => world.without_credentials(),
                (_, 1) => world.respond(401, b""),
                _ => world.respond(403, b""),
            }
        });
        let refused = matches!(&world.end, Some(LogEnd::Failed(_)));
        assert_eq!(refused, seconds > 60, "{:?}", world.end);
    }
}

#[test]
fn an_answer_that_is_no_pod_ends_a_log() {
    let mut world = start(config(), Kubelet::new(), 1);
    world.hour(|world, _| world.respond(200, b"{\"kind\":\"Login\"}"));
    let Some(LogEnd::Failed(Error::Peer(PeerError::Answer { problem, .. }))) = &world.end else {
        panic!("{:?}", world.end);
    };
    assert!(problem.contains("missing field"), "{problem}");
}

#[test]
fn a_log_that_is_only_refused_is_told_and_given_up() {
    for in_band in [false, true] {
        let mut world = start(config(), Kubelet::new(), 1);
        let began = world.now;
        world.hour(|world, request| match request {
            LogRequest::Pod => world.answer(&request),
            LogRequest::Log(_) if in_band => world.respond(200, b"unable to retrieve logs"),
            LogRequest::Log(_) => world.respond(500, b"no kubelet"),
        });
        assert!(!world.failures.is_empty());
        assert!(
            matches!(&world.end, Some(LogEnd::Failed(Error::Api(_)))),
            "{:?}",
            world.end
        );
        let lasted = world.now - began;
        assert!(lasted >= limits::LOG_GIVE_UP, "{lasted:?}");
        assert!(lasted <= limits::LOG_GIVE_UP + 2 * limits::RETRY_MOST);
    }
    // A server that cannot be reached may come back.
    let mut world = start(config(), Kubelet::new(), 1);
    let asked = world.hour(|world, _| world.end(true));
    assert!(
        world.end.is_none() && (100..260).contains(&asked),
        "{asked}"
    );
    // Also if it refuses at the beginning and at the end of that.
    let mut world = start(config(), Kubelet::new(), 1);
    let began = world.now;
    let mut refusals = 0;
    world.hour(|world, _| {
        let minutes = (world.now - began).as_secs() / 60;
        match minutes == 0 || (20..25).contains(&minutes) {
            true => {
                refusals += 1;
                world.respond(503, b"not now");
            }
            false => world.end(true),
        }
    });
    assert!(world.end.is_none() && refusals > 2, "{:?}", world.end);
    // One that gives lines in between is asked on.
    let mut world = start(config(), Kubelet::new(), 1);
    let mut turn = 0;
    world.hour(|world, request| match request {
        LogRequest::Pod => world.answer(&request),
        LogRequest::Log(_) => {
            turn += 1;
            if turn % 4 > 0 {
                return world.respond(502, b"");
            }
            world.kubelet.write("line", SECOND);
            let text = world.kubelet.text(0, Begin::default());
            world.respond(200, &text);
        }
    });
    assert!(world.end.is_none(), "{:?}", world.end);
}

#[test]
fn a_server_that_cannot_be_trusted_or_is_none_is_not_asked_again() {
    for error in hopeless() {
        for granted in [false, true] {
            let mut world = start(config(), Kubelet::new(), 1);
            let mut turn = 0;
            world.hour(|world, request| {
                turn += 1;
                match granted && turn == 1 {
                    true => {
                        world.answer(&request);
                        world.end(true);
                    }
                    false => world.end_with(Some(error.clone())),
                }
            });
            let failed = matches!(&world.end, Some(LogEnd::Failed(_)));
            assert_eq!(failed && turn == 1, !granted, "{turn}: {:?}", world.end);
            assert_eq!(world.end.is_none(), granted, "{:?}", world.end);
        }
    }
}

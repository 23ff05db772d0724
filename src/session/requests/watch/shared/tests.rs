//! A shared mirror whose readers keep up, fall behind and come late.

use std::collections::BTreeMap;

use bytes::Bytes;
use proptest::prelude::*;
use serde::Deserialize;
use serde_json::json;

use super::*;
use crate::{error::CallerError, limits, wire::watch::Encoding};

#[derive(Debug, Deserialize)]
struct Thing {
    value: u64,
}

fn event(
    event_type: &str,
    name: &str,
    uid: &str,
    version: u64,
    value: serde_json::Value,
) -> Update {
    let app = value.as_u64().map(|value| (value % 3).to_string());
    let event = json!({"type": event_type, "object": {
        "metadata": {"name": name, "namespace": "n", "uid": uid, "resourceVersion": version.to_string(),
            "labels": {"app": app.unwrap_or_default()}},
        "value": value,
    }});
    let bytes = Bytes::from(event.to_string());
    Update::Event(Event::from_message(Encoding::Json, bytes).unwrap())
}

fn end() -> Update {
    Update::SnapshotEnd {
        resource_version: "1".to_owned(),
        sharded: false,
    }
}

fn apply(mirror: &mut SharedMirror<Thing>, updates: impl IntoIterator<Item = Update>) {
    for update in updates {
        mirror.apply(&update, |object| object.decode());
    }
    mirror.publish();
}

fn mirror() -> SharedMirror<Thing> {
    SharedMirror::new(vec!["app".to_owned()])
}

/// All that a reader can be told now, in words.
fn told(mirror: &SharedMirror<Thing>, cursor: &mut MirrorCursor<Thing>) -> Vec<String> {
    let mut told = Vec::new();
    loop {
        while let Some(update) = cursor.next_update() {
            told.push(match update {
                Ok(MirrorUpdate::Added(key, it)) => format!("+{}={}", key.name(), it.value),
                Ok(MirrorUpdate::Modified(key, it)) => format!("~{}={}", key.name(), it.value),
                Ok(MirrorUpdate::Deleted(key, it)) => format!("-{}={}", key.name(), it.value),
                Ok(MirrorUpdate::Current) => "current".to_owned(),
                Ok(MirrorUpdate::Lagged { missed }) => format!("missed {missed}"),
                Ok(MirrorUpdate::Unreadable { key, .. }) => format!("?{}", key.unwrap().name()),
                Ok(MirrorUpdate::Retrying { .. }) => "retrying".to_owned(),
                Err(error) => error.to_string(),
            });
        }
        if !mirror.fill(cursor) {
            return told;
        }
    }
}

fn labelled(mirror: &SharedMirror<Thing>, value: &str) -> Vec<u64> {
    let mut values: Vec<_> = mirror
        .by_label("app", value)
        .unwrap()
        .map(|it| it.value)
        .collect();
    values.sort_unstable();
    values
}

#[test]
fn a_late_reader_is_told_the_state_first_and_all_readers_share_the_objects() {
    let mut mirror = mirror();
    let mut early = mirror.begin();
    let a = event("ADDED", "a", "1", 1, json!(1));
    apply(&mut mirror, [Update::SnapshotBegin, a, end()]);
    let mut late = mirror.begin();
    assert_eq!(told(&mirror, &mut early), ["+a=1", "current"]);
    assert_eq!(told(&mirror, &mut late), ["+a=1", "current"]);
    let changes = [
        event("MODIFIED", "a", "1", 2, json!(2)),
        event("ADDED", "b", "2", 3, json!(3)),
        event("DELETED", "a", "1", 4, json!(2)),
    ];
    apply(&mut mirror, changes);
    assert!(mirror.fill(&mut early) && mirror.fill(&mut late));
    for expected in ["~a=2", "+b=3", "-a=2"] {
        let (Some(Ok(early)), Some(Ok(late))) = (early.next_update(), late.next_update()) else {
            panic!("there should be {expected}");
        };
        let object = |update| match update {
            MirrorUpdate::Added(_, it)
            | MirrorUpdate::Modified(_, it)
            | MirrorUpdate::Deleted(_, it) => it,
            other => panic!("{other:?}"),
        };
        assert!(Arc::ptr_eq(&object(early), &object(late)));
    }
    assert!(!mirror.fill(&mut early) && mirror.len() == 1);
}

#[test]
fn who_is_too_slow_is_told_so_and_the_state_anew() {
    let mut mirror = mirror();
    let (mut slow, mut quick) = (mirror.begin(), mirror.begin());
    let all = limits::MIRROR_BACKLOG + 7;
    apply(&mut mirror, [Update::SnapshotBegin, end()]);
    for version in 1..=all {
        apply(
            &mut mirror,
            [event("MODIFIED", "a", "1", version, json!(version))],
        );
        assert!(
            told(&mirror, &mut quick)
                .last()
                .unwrap()
                .ends_with(&format!("a={version}"))
        );
    }
    let expected = [
        format!("missed {}", all + 1),
        format!("+a={all}"),
        "current".to_owned(),
    ];
    assert_eq!(told(&mirror, &mut slow), expected);
    apply(&mut mirror, [event("DELETED", "a", "1", all + 1, json!(0))]);
    assert_eq!(told(&mirror, &mut slow), told(&mirror, &mut quick));
}

#[test]
fn without_readers_nothing_is_kept_and_a_batch_that_is_too_large_is_told_whole() {
    let mut mirror = mirror();
    let first = event("ADDED", "a", "1", 1, json!(1));
    mirror.apply(&first, |object| object.decode());
    let batch = mirror.publish().unwrap();
    assert_eq!(Arc::strong_count(&batch), 1);
    assert!(mirror.publish().is_none());
    let mut reader = mirror.begin();
    let count = limits::MIRROR_BACKLOG * 2;
    let large = (0..count).map(|at| event("MODIFIED", "a", "1", at + 2, json!(at)));
    apply(&mut mirror, large);
    assert_eq!(told(&mirror, &mut reader).len() as u64, count + 1);
}

#[test]
fn indices_follow_changes_deletions_and_objects_that_take_a_name_over() {
    let mut mirror = mirror();
    let objects = [("a", 0), ("b", 3), ("c", 1)];
    let objects = objects.map(|(name, value)| event("ADDED", name, name, value + 1, json!(value)));
    apply(&mut mirror, objects);
    assert_eq!(
        (labelled(&mirror, "0"), labelled(&mirror, "1")),
        (vec![0, 3], vec![1])
    );
    apply(&mut mirror, [event("MODIFIED", "a", "a", 9, json!(4))]);
    assert_eq!(
        (labelled(&mirror, "0"), labelled(&mirror, "1")),
        (vec![3], vec![1, 4])
    );
    // Another object of that name, and one that is gone with the next snapshot.
    let other = event("ADDED", "a", "other", 10, json!(2));
    apply(
        &mut mirror,
        [
            Update::SnapshotBegin,
            other,
            event("ADDED", "c", "c", 2, json!(1)),
            end(),
        ],
    );
    let by = ["0", "1", "2"].map(|value| labelled(&mirror, value));
    assert_eq!(by, [vec![], vec![1], vec![2]]);
    assert_eq!(mirror.in_namespace("n").count(), 2);
    assert_eq!(mirror.in_namespace("m").count(), 0);
    assert!(mirror.by_label("tier", "x").is_none());
}

#[test]
fn an_object_that_cannot_be_read_is_told_and_not_taken_for_deleted() {
    let mut mirror = mirror();
    let mut reader = mirror.begin();
    apply(
        &mut mirror,
        [
            Update::SnapshotBegin,
            event("ADDED", "a", "1", 1, json!(1)),
            end(),
        ],
    );
    apply(
        &mut mirror,
        [event("MODIFIED", "a", "1", 2, json!("no number"))],
    );
    assert_eq!(told(&mirror, &mut reader), ["+a=1", "current", "?a"]);
    let key = ObjectKey::new("n", "a");
    assert!(mirror.unreadable(&key).is_some() && mirror.get(&key).is_some());
    assert_eq!(
        told(&mirror, &mut mirror.begin()),
        ["+a=1", "?a", "current"]
    );
    // A snapshot that has it still.
    let still = event("ADDED", "a", "1", 2, json!("no number"));
    apply(&mut mirror, [Update::SnapshotBegin, still, end()]);
    assert_eq!(told(&mirror, &mut reader), ["?a", "current"]);
    assert_eq!(mirror.len(), 1);
    apply(&mut mirror, [event("MODIFIED", "a", "1", 3, json!(3))]);
    assert_eq!(told(&mirror, &mut reader), ["~a=3"]);
    assert!(mirror.unreadable(&key).is_none());
    // And one that is gone meanwhile.
    apply(&mut mirror, [event("MODIFIED", "a", "1", 4, json!(null))]);
    apply(&mut mirror, [Update::SnapshotBegin, end()]);
    assert_eq!(told(&mirror, &mut reader), ["?a", "-a=3", "current"]);
    assert!(mirror.unreadable(&key).is_none());
}

#[test]
fn a_refusal_is_told_to_all_until_the_server_thinks_better_of_it() {
    let mut mirror = mirror();
    let mut early = mirror.begin();
    mirror.refuse(CallerError::Ended.into());
    mirror.publish();
    let refusal = CallerError::Ended.to_string();
    assert_eq!(told(&mirror, &mut early), [refusal.as_str()]);
    assert_eq!(told(&mirror, &mut mirror.begin()), [refusal.as_str()]);
    apply(&mut mirror, [Update::SnapshotBegin]);
    assert!(mirror.refusal().is_some());
    apply(&mut mirror, [end()]);
    assert!(mirror.refusal().is_none());
    assert_eq!(told(&mirror, &mut mirror.begin()), ["current"]);
}

proptest! {
    /// Whoever applies what it is told to a copy has what the mirror has, however seldom it looks.
    #[test]
    fn a_reader_can_keep_a_copy(
        steps in proptest::collection::vec((0_u8..6, 0_u8..5, any::<bool>()), 0..60),
        pace in 1_usize..20,
    ) {
        let mut mirror = mirror();
        mirror.backlog.bound = 16;
        let mut cursor = mirror.begin();
        let mut copy = BTreeMap::new();
        let mut version = 0;
        for (at, (what, name, burst)) in steps.into_iter().enumerate() {
            let name = name.to_string();
            let repeat = if burst { 7 } else { 1 };
            for _ in 0..repeat {
                version += 1;
                let uid = if what == 5 { version.to_string() } else { name.clone() };
                apply(&mut mirror, [match what {
                    0 => event("DELETED", &name, &uid, version, json!(0)),
                    1 => Update::SnapshotBegin,
                    2 => end(),
                    _ => event("MODIFIED", &name, &uid, version, json!(version)),
                }]);
            }
            if at % pace == 0 {
                follow(&mirror, &mut cursor, &mut copy);
            }
        }
        follow(&mirror, &mut cursor, &mut copy);
        let held: BTreeMap<_, _> = mirror.mirror.iter()
            .map(|(key, kept)| (key.name().to_owned(), kept.object.value)).collect();
        prop_assert_eq!(&copy, &held);
        prop_assert_eq!(mirror.in_namespace("n").count(), held.len());
        let by_label: usize = ["0", "1", "2"].map(|value| labelled(&mirror, value).len()).iter().sum();
        prop_assert_eq!(by_label, held.len());
    }
}

fn follow(
    mirror: &SharedMirror<Thing>,
    cursor: &mut MirrorCursor<Thing>,
    copy: &mut BTreeMap<String, u64>,
) {
    loop {
        while let Some(update) = cursor.next_update() {
            match update.unwrap() {
                MirrorUpdate::Added(key, it) => {
                    assert!(copy.insert(key.name().to_owned(), it.value).is_none());
                }
                MirrorUpdate::Modified(key, it) => {
                    assert!(copy.insert(key.name().to_owned(), it.value).is_some());
                }
                MirrorUpdate::Deleted(key, _) => assert!(copy.remove(key.name()).is_some()),
                MirrorUpdate::Lagged { .. } => copy.clear(),
                _ => {}
            }
        }
        if !mirror.fill(cursor) {
            return;
        }
    }
}

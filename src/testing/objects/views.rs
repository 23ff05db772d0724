//! Events, which two groups have: in flow those of `events.k8s.io`, out come those of the core group,
//! which are stored, and the other way (`k8s.io/kubernetes/pkg/apis/events/v1/conversion.go`).

use std::borrow::Cow;

use serde_json::{Value, json};

use super::store::{EVENTS, Next, Object};
use crate::testing::{
    kinds::{Kind, rules},
    values::json::map,
};

/// How the fields of a stored event are called in the other group.
const FIELDS: [(&str, &str); 7] = [
    ("count", "deprecatedCount"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("involvedObject", "regarding"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("message", "note"),
    ("reportingComponent", "reportingController"),
    ("source", "deprecatedSource"),
];

fn renamed(mut object: Value, names: impl Iterator<Item = (&'static str, &'static str)>) -> Value {
    for (from, to) in names {
        if let Some(value) = map(&mut object).remove(from) {
            object[to] = value;
        }
    }
    object
}

/// A stored object as a kind has it.
pub(super) fn viewed<'a>(kind: &Kind, object: &'a Value) -> Cow<'a, Value> {
    if kind.resource.group != EVENTS || object["apiVersion"] != "v1" {
        return Cow::Borrowed(object);
    }
    let mut view = renamed(object.clone(), FIELDS.into_iter());
    view["apiVersion"] = kind.resource.api_version().into();
    rules::complete(kind, &mut view);
    Cow::Owned(view)
}

/// An object of a kind as it is stored.
pub(crate) fn stored(kind: &Kind, object: Value) -> Value {
    if kind.resource.group != EVENTS {
        return object;
    }
    let mut stored = renamed(object, FIELDS.into_iter().map(|(own, other)| (other, own)));
    stored["apiVersion"] = "v1".into();
    for field in ["reportingComponent", "reportingInstance"] {
        map(&mut stored).entry(field).or_insert(json!(""));
    }
    stored
}

/// Changes a stored object as one of a kind.
pub(crate) fn change<E>(
    kind: &Kind,
    before: Option<&Object>,
    change: impl FnOnce(Option<&Object>) -> Result<Next, E>,
) -> Result<Next, E> {
    if kind.resource.group != EVENTS {
        return change(before);
    }
    let before = before.map(|before| Object::new(viewed(kind, &before.json).into_owned()));
    Ok(match change(before.as_ref())? {
        Next::Put(after) => Next::Put(Object::new(stored(kind, after.json))),
        next => next,
    })
}

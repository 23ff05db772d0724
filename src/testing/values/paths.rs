//! Paths to fields and conditions on them, of which the tables of rules and columns are made; the
//! head of `rules.txt` says how they are written.

use std::borrow::Cow;

use serde_json::Value;

use super::{
    json::{items, items_mut, map, members, set},
    quantity::number,
};
use crate::testing::checks::validation;

/// The names in a path: `a/b`, `*` for each item of a list, and `[k/e.y]` for a key of a map.
pub(crate) fn segments(mut path: &str) -> Vec<&str> {
    let mut names = Vec::new();
    while !path.is_empty() {
        let end = match path.strip_prefix('[') {
            Some(rest) => rest.find(']').map(|at| at + 2),
            None => path.find('/'),
        };
        let (name, rest) = path.split_at(end.unwrap_or(path.len()));
        names.push(name);
        path = rest.trim_start_matches('/');
    }
    names
}

fn key(name: &str) -> &str {
    name.trim_start_matches('[').trim_end_matches(']')
}

/// The field at a path without `*`.
pub(crate) fn get<'a>(object: &'a Value, path: &str) -> &'a Value {
    let mut names = segments(path).into_iter();
    let found = names.try_fold(object, |value, name| value.get(key(name)));
    found.unwrap_or(&Value::Null)
}

/// The fields that a path leads to, with their names in messages. `*` is each item or value, `#`
/// likewise without a name of its own, `@` the keys, `~a` a field without a name, and `?CONDITION`
/// the same if it holds.
pub(crate) fn each<'a>(object: &'a Value, path: &str, at: &str) -> Fields<'a> {
    each_of(object, &segments(path), at)
}

pub(super) type Fields<'a> = Vec<(String, Cow<'a, Value>)>;

pub(crate) fn each_of<'a>(object: &'a Value, path: &[&str], at: &str) -> Fields<'a> {
    let Some((name, rest)) = path.split_first() else {
        return vec![(at.to_owned(), Cow::Borrowed(object))];
    };
    let inner = |at: &str, value: &'a Value| each_of(value, rest, at);
    let text = |key: &str| Cow::Owned(key.into());
    match *name {
        "*" => {
            let items = items(object).enumerate();
            let items = items.flat_map(|(index, item)| inner(&format!("{at}[{index}]"), item));
            let members = members(object);
            let members = members.flat_map(|(key, item)| inner(&format!("{at}[{key}]"), item));
            items.chain(members).collect()
        }
        "#" => {
            let all = items(object).chain(members(object).map(|(_, item)| item));
            all.flat_map(|item| inner(at, item)).collect()
        }
        "@" => members(object)
            .map(|(key, _)| (at.to_owned(), text(key)))
            .collect(),
        "@@" => members(object)
            .map(|(key, _)| (format!("{at}[{key}]"), text(key)))
            .collect(),
        "." => vec![(at.to_owned(), Cow::Owned(Value::Null))],
        name if name.starts_with('?') => match holds(&name[1..], object) {
            true => inner(at, object),
            false => Vec::new(),
        },
        name if name.starts_with('[') => {
            let found = match (object, key(name).parse::<usize>()) {
                (Value::Array(items), Ok(index)) => items.get(index).unwrap_or(&Value::Null),
                _ => &object[key(name)],
            };
            inner(&format!("{at}{name}"), found)
        }
        name => match name.strip_prefix('~') {
            Some(name) => inner(at, &object[name]),
            None => inner(&join(at, name), &object[name]),
        },
    }
}

pub(crate) fn join(path: &str, name: &str) -> String {
    match path {
        "" => name.to_owned(),
        path => format!("{path}.{name}"),
    }
}

/// Gives fields that are null a value, and makes maps on the way.
pub(crate) fn fill(object: &mut Value, path: &[&str], value: &Value) {
    match path {
        [] if object.is_null() => *object = value.clone(),
        ["*", rest @ ..] => items_mut(object).for_each(|item| fill(item, rest, value)),
        // There are no items to fill.
        [name, "*", ..] if object.get(key(name)).is_none() => {}
        [name, rest @ ..] if object.is_null() || object.is_object() => {
            let field = map(object).entry(key(name)).or_insert(Value::Null);
            fill(field, rest, value);
        }
        _ => {}
    }
}

pub(crate) fn clear(object: &mut Value, path: &[&str]) {
    match path {
        ["*", rest @ ..] => items_mut(object).for_each(|item| clear(item, rest)),
        [name] => set(object, key(name), &Value::Null),
        [name, rest @ ..] => {
            if let Some(inner) = object.get_mut(key(name)).filter(|inner| !inner.is_null()) {
                clear(inner, rest);
            }
        }
        [] => {}
    }
}

/// A value as conditions compare it: nothing for what is empty.
pub(crate) fn plain(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Array(items) if items.is_empty() => String::new(),
        Value::Array(items) => items.len().to_string(),
        Value::Object(map) if map.is_empty() => String::new(),
        Value::Object(map) => map.len().to_string(),
        other => other.to_string(),
    }
}

/// Whether a condition does: `F=a,b`, `F!=a,b`, `F<G` and `F>G`, of which G is a number or a field,
/// and a list counts as its length; `F+G` is how many of them are there, and no F the value itself.
/// `F~FORMAT` is of a format, `F!~FORMAT` is not, and `F==a` is just that.
pub(crate) fn holds(condition: &str, object: &Value) -> bool {
    let Some(at) = condition.find(['=', '!', '<', '>', '~']) else {
        return false;
    };
    let found = match condition[..at].contains('+') {
        false => plain(get(object, &condition[..at])),
        true => {
            let fields = condition[..at].split('+');
            let there = fields.filter(|field| !get(object, field).is_null());
            there.count().to_string()
        }
    };
    let other = &condition[at + 1..];
    let compare = |is: fn(&i128, &i128) -> bool| {
        let other = number(other).or_else(|| number(&plain(get(object, other))));
        let both = number(&found).zip(other);
        both.is_some_and(|(found, other)| is(&found, &other))
    };
    let is_it = |value: &str| match value.strip_prefix('$') {
        Some(path) => plain(get(object, path)) == found,
        None => value == found,
    };
    match condition.as_bytes()[at] {
        b'=' if other.starts_with('=') => other[1..] == found,
        b'=' => other.split(',').any(is_it),
        b'!' if other.starts_with('~') => !validation::faults(&other[1..], &found).is_empty(),
        b'!' => !other[1..].split(',').any(is_it),
        b'~' => validation::faults(other, &found).is_empty(),
        b'<' => compare(i128::lt),
        _ => compare(i128::gt),
    }
}

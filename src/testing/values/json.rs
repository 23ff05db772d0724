//! Short ways to the parts of JSON, which may be anything that a client sent.

use serde_json::{Map, Value};

pub(crate) fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// A text that is there and not empty.
pub(crate) fn some(value: &Value) -> Option<&str> {
    value.as_str().filter(|text| !text.is_empty())
}

pub(crate) fn items(value: &Value) -> std::slice::Iter<'_, Value> {
    value.as_array().map_or(&[][..], Vec::as_slice).iter()
}

pub(crate) fn items_mut(value: &mut Value) -> impl Iterator<Item = &mut Value> {
    value.as_array_mut().into_iter().flatten()
}

pub(crate) fn texts(value: &Value) -> impl Iterator<Item = &str> {
    items(value).filter_map(Value::as_str)
}

pub(crate) fn members(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flat_map(Map::iter)
}

/// The parts of a map, which it becomes if it is none.
pub(crate) fn map(value: &mut Value) -> &mut Map<String, Value> {
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    match value {
        Value::Object(map) => map,
        _ => unreachable!("it has just become one"),
    }
}

/// Sets a field, or removes it if the value is null.
pub(crate) fn set(value: &mut Value, field: &str, to: &Value) {
    match to {
        Value::Null => map(value).remove(field),
        to => map(value).insert(field.to_owned(), to.clone()),
    };
}

/// A path of fields, such as `.spec.replicas` or `/spec/replicas`.
pub(crate) fn at<'a>(value: &'a Value, path: &str) -> &'a Value {
    let mut names = path.split(['.', '/']).skip_while(|name| name.is_empty());
    names
        .try_fold(value, |value, name| value.get(name))
        .unwrap_or(&Value::Null)
}

/// Likewise; maps are made on the way, and what is none stays.
pub(crate) fn at_mut<'a>(value: &'a mut Value, path: &str) -> Option<&'a mut Value> {
    let mut names = path.split(['.', '/']).skip_while(|name| name.is_empty());
    names.try_fold(value, |value, name| match value {
        Value::Null | Value::Object(_) => Some(map(value).entry(name).or_insert(Value::Null)),
        _ => None,
    })
}

/// Makes integers of numbers that are.
pub(crate) fn make_whole(value: &mut Value) {
    match value {
        Value::Number(number) if number.is_f64() => {
            let whole = number.as_f64().filter(|float| float.fract() == 0.0);
            let whole = whole.and_then(|float| format!("{float:.0}").parse::<i64>().ok());
            if let Some(whole) = whole {
                *value = whole.into();
            }
        }
        Value::Array(items) => items.iter_mut().for_each(make_whole),
        Value::Object(map) => map.values_mut().for_each(make_whole),
        _ => {}
    }
}

/// A list, or null of nothing.
pub(crate) fn list(items: impl IntoIterator<Item = Value>) -> Value {
    let items: Vec<_> = items.into_iter().collect();
    Some(items).filter(|items| !items.is_empty()).into()
}

/// Adds an item to a list, which it becomes if it is none.
pub(crate) fn push(list: &mut Value, item: Value) {
    match list {
        Value::Array(items) => items.push(item),
        list => *list = Value::Array(vec![item]),
    }
}

//! `--sort-by`: in flow objects, out they come in the order of one of their fields.

use std::cmp::Ordering;

use kubewire::wire::quantity;
use serde_json::Value;

use crate::{failure::Failure, jsonpath::JsonPath};

/// What objects are sorted by. Those without the field come first
/// (`k8s.io/kubectl/pkg/cmd/get/sorter.go`, `isLess`).
#[derive(Debug, PartialEq)]
enum Key {
    Missing,
    Number(f64),
    /// A text, and what it is as a quantity.
    Text(String, Option<i128>),
}

/// Sorts by a field of each one's object. One of them must have it.
pub(super) fn sort<T>(
    all: &mut Vec<T>,
    path: &str,
    object: impl Fn(&T) -> &Value,
) -> Result<(), Failure> {
    let template = JsonPath::relaxed(path)?;
    let mut keyed = Vec::with_capacity(all.len());
    for one in std::mem::take(all) {
        let found = template.first(object(&one))?;
        let key = match found.first().map(|value| &**value) {
            None | Some(Value::Null) => Key::Missing,
            Some(Value::Number(number)) => Key::Number(number.as_f64().unwrap_or_default()),
            Some(Value::String(text)) => Key::Text(
                text.clone(),
                quantity::parse(text).map(|(number, _)| number),
            ),
            Some(other) => {
                bail!("{path} is neither a number nor a text, but {other}");
            }
        };
        keyed.push((key, one));
    }
    if !keyed.is_empty() && keyed.iter().all(|(key, _)| *key == Key::Missing) {
        bail!("no object has a field {path} to sort by");
    }
    keyed.sort_by(|(one, _), (other, _)| compare(one, other));
    all.extend(keyed.into_iter().map(|(_, one)| one));
    Ok(())
}

fn compare(one: &Key, other: &Key) -> Ordering {
    let rank = |key: &Key| match key {
        Key::Missing => 0,
        Key::Number(_) => 1,
        Key::Text(_, Some(_)) => 2,
        Key::Text(_, None) => 3,
    };
    match (one, other) {
        (Key::Number(one), Key::Number(other)) => one.total_cmp(other),
        (Key::Text(_, Some(one)), Key::Text(_, Some(other))) => one.cmp(other),
        (Key::Text(one, None), Key::Text(other, None)) => one.cmp(other),
        _ => rank(one).cmp(&rank(other)),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn sorted(values: &[Value], path: &str) -> Result<Vec<String>, Failure> {
        let mut objects: Vec<_> = values.iter().map(|v| json!({"a": {"b": v}})).collect();
        sort(&mut objects, path, |object| object)?;
        Ok(objects.iter().map(|o| o["a"]["b"].to_string()).collect())
    }

    #[test]
    fn numbers_texts_and_quantities_have_their_order_and_what_is_missing_is_first() {
        for (values, expected) in [
            (json!([3, 1.5, null, 2]), ["null", "1.5", "2", "3"]),
            (
                json!(["b", "a", "B", "c"]),
                ["\"B\"", "\"a\"", "\"b\"", "\"c\""],
            ),
            (
                json!(["2Gi", "100Mi", "1", "500m"]),
                ["\"500m\"", "\"1\"", "\"100Mi\"", "\"2Gi\""],
            ),
            (
                json!(["web", "2", "10", 7]),
                ["7", "\"2\"", "\"10\"", "\"web\""],
            ),
        ] {
            let sorted = sorted(values.as_array().unwrap(), ".a.b").unwrap();
            assert_eq!(sorted, expected);
        }
        assert!(sorted(&[json!(1)], ".a.c").is_err());
        assert!(sorted(&[json!({})], ".a.b").is_err());
        assert!(sorted(&[json!(1)], "{").is_err());
        assert_eq!(sorted(&[], ".a.c").unwrap(), Vec::<String>::new());
    }
}

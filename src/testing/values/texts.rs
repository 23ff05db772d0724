//! Texts with fields in them, of which columns and defaults are made: in flow an object and a text
//! of a table, out comes what that says of the object. The head of `columns.txt` says how texts are
//! written.

use serde_json::Value;

use super::{
    json::text,
    paths::{each, plain},
};
use crate::{
    testing::{answers::cells, writes::subresources::selector_text},
    wire::{age::human, stamp::Stamp},
};

/// What a text says of an object: a value if it is one field alone, and otherwise a text.
pub(crate) fn value(template: &str, object: &Value, now: Stamp) -> Value {
    let mut spelled = String::new();
    let mut rest = template;
    while let Some((before, field, after)) = next_field(rest) {
        let value = any(field, object, now);
        if rest.len() == template.len() && before.is_empty() && after.is_empty() {
            return value;
        }
        spelled += &before.replace('_', " ");
        spelled += &plain(&value);
        rest = after;
    }
    (spelled + &rest.replace('_', " ")).into()
}

/// What is before the first field, the field, and what is after it.
fn next_field(text: &str) -> Option<(&str, &str, &str)> {
    let start = text.find('{')?;
    let mut depth = Depth(0);
    let mut rest = text[start..].char_indices();
    let (end, _) = rest.find(|(_, c)| depth.after(*c) == 0)?;
    Some((
        &text[..start],
        &text[start + 1..start + end],
        &text[start + end + 1..],
    ))
}

/// How many brackets are open.
struct Depth(usize);

impl Depth {
    fn after(&mut self, character: char) -> usize {
        match character {
            '{' => self.0 += 1,
            '}' => self.0 -= 1,
            _ => {}
        }
        self.0
    }
}

/// The first part of a field that gives anything.
fn any(field: &str, object: &Value, now: Stamp) -> Value {
    let mut depth = Depth(0);
    let parts = field.split(|c| depth.after(c) == 0 && c == '|').enumerate();
    let mut values = parts.map(|(at, part)| {
        let is_path = at == 0 || !part.starts_with('{') && part.contains("=>");
        match part.strip_prefix('!') {
            Some(name) => cells::cell(name, object, now),
            None if is_path => expression(part, object, now),
            None => match serde_json::from_str(part) {
                Ok(known @ (Value::Number(_) | Value::Bool(_))) => known,
                _ => value(part, object, now),
            },
        }
    });
    let found = values.find(|value| !value.is_null() && *value != "");
    found.unwrap_or_else(|| "".into())
}

fn expression(part: &str, object: &Value, now: Stamp) -> Value {
    let (path, template) = match part.split_once("=>") {
        Some((path, template)) => (path, Some(template)),
        None => (part, None),
    };
    let (how, path) = path.split_once(':').unwrap_or(("", path));
    let found = path.split('+').flat_map(|path| each(object, path, ""));
    let found = found.map(|(_, value)| value);
    if how == "count" {
        return found.count().into();
    }
    let found = found.filter(|value| !value.is_null() && **value != "");
    let found: Vec<_> = found.collect();
    let spelled = found.iter().map(|item| match template {
        Some(template) => plain(&value(template, item, now)),
        None => plain(item),
    });
    let spelled = spelled.filter(|text| !text.is_empty() && text != "/");
    let all = |between: &str| Value::from(spelled.clone().collect::<Vec<_>>().join(between));
    let Some(first) = found.first() else {
        return Value::Null;
    };
    let stamp = |value: &Value| Stamp::parse(text(value).as_bytes());
    let end = || found.get(1).map_or(Some(now), |end| stamp(end));
    match (how, template) {
        ("each", _) => all(","),
        ("list", _) => all(", "),
        ("modes", _) => found
            .iter()
            .map(|mode| initials(text(mode)))
            .collect::<Vec<_>>()
            .join(",")
            .into(),
        ("age", _) => since(first, now).into(),
        ("span", _) => stamp(first)
            .zip(end())
            .map(|(start, end)| duration(start, end))
            .into(),
        ("seconds", _) => human(first.as_i64().unwrap_or_default()).into(),
        ("lower", _) => text(first).to_lowercase().into(),
        ("labels", _) => selector_text(first).into(),
        ("text", _) => plain(first).into(),
        (_, Some(template)) => value(template, object, now),
        (_, None) => first.clone().into_owned(),
    }
}

/// An access mode in short.
fn initials(mode: &str) -> String {
    let capitals = mode.chars().filter(char::is_ascii_uppercase);
    match mode {
        "ReadWriteOncePod" => "RWOP".to_owned(),
        _ => capitals.take(3).collect(),
    }
}

pub(crate) fn since(time: &Value, now: Stamp) -> String {
    let stamp = Stamp::parse(text(time).as_bytes());
    stamp.map_or("<unknown>".to_owned(), |stamp| duration(stamp, now))
}

pub(crate) fn duration(from: Stamp, to: Stamp) -> String {
    human(to.unix_seconds() - from.unix_seconds())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_written_as_kubectl_writes_them() {
        for (seconds, expected) in [
            (-5, "<invalid>"),
            (-1, "0s"),
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (127, "2m7s"),
            (600, "10m"),
            (3 * 3600 - 1, "179m"),
            (3 * 3600, "3h"),
            (3 * 3600 + 60, "3h1m"),
            (47 * 3600, "47h"),
            (2 * 86_400, "2d"),
            (2 * 86_400 + 3600, "2d1h"),
            (8 * 86_400 + 3600, "8d"),
            (730 * 86_400, "2y"),
            (731 * 86_400, "2y1d"),
            (3000 * 86_400, "8y"),
        ] {
            assert_eq!(human(seconds), expected, "{seconds}");
        }
    }

    #[test]
    fn texts_have_fields_and_what_is_there_instead() {
        let object = serde_json::json!({
            "spec": {"a": 3, "b": true, "c": "text", "none": ""},
            "list": [{"n": "x", "v": 1}, {"n": "y"}],
        });
        for (template, expected) in [
            ("{spec/a}", "3"),
            ("{spec/a}/{spec/d|0}", "\"3/0\""),
            ("{spec/d|7}", "7"),
            ("{spec/none|{spec/c}s}", "\"texts\""),
            ("a_b", "\"a b\""),
            ("{spec/?a>2=>many|few}", "\"many\""),
            ("{spec/?a>3=>many|spec/?b=true=>yes|few}", "\"yes\""),
            ("{each:list/#=>{n}{v=>:{v}}}", "\"x:1,y\""),
            ("{list:list/#/n}", "\"x, y\""),
            ("{count:list/#+spec/#}", "6"),
            ("{list/#/?n==y=>{spec/c}}", "\"text\""),
            ("{text:spec/a}", "\"3\""),
            ("{lower:spec/d|-}", "\"-\""),
            ("{age:spec/d|<unknown>}", "\"<unknown>\""),
        ] {
            let now = Stamp::from_unix(0, 0).unwrap();
            assert_eq!(
                value(template, &object, now).to_string(),
                expected,
                "{template}"
            );
        }
    }
}
